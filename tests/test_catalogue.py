"""The catalogue of job types: is it whole, and does only what is documented count against a job?"""

import itertools
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, get_args

import pytest

from prodia_async import AsyncProdia, InvalidRequestError, Job, JobRequest, _catalogue
from prodia_async._catalogue import (
    SentInput,
    described,
    doubts,
    input_limit,
    job_type,
    matching,
    names,
    near_misses,
    problems,
)
from prodia_async._catalogue_data import CATALOGUE as CATALOGUE_FILE
from prodia_async._catalogue_data import (
    Field,
    FieldKind,
    JobType,
    Mark,
    Source,
    job_types,
    read_catalogue,
)
from prodia_async._requests import FILENAME_FIELDS, encode_job
from prodia_async.batch._trade import ProdiaTrade
from prodia_async.emulator import CATALOGUE

FAST = "inference.flux-fast.schnell.txt2img.v1"
PRO = "inference.flux-2.pro.img2img.v1"
RECRAFT = "inference.recraft.img2img.v1"
SAM = "inference.sam3.segment.v1"

# Every name that was found anywhere, without its prefix.
FOUND = """
flux-fast.schnell.txt2img.v{0,1,2} flux-fast.dev.txt2img.v1 flux.schnell.txt2img.v{1,2}
flux.dev.txt2img.v{1,2} flux.pro.txt2img.v1 flux.pro11.txt2img.v1 flux.pro11ultra.txt2img.v1
flux-2.{dev,pro,max,flex,klein,klein.4b,klein.9b}.{txt2img,img2img}.v1
flux-kontext.{pro,max}.{txt2img,img2img}.v{1,2} gemini-3-{pro,1-flash}.{txt2img,img2img}.v1
nano-banana.txt2img.v2 nano-banana.img2img.v{1,2} sdxl.{txt2img,img2img,inpainting}.v1
sd15.{txt2img,img2img,inpainting}.v1 seedream.txt2img.v1 seedream-4.{txt2img,img2img}.v1
seedream-4-5.{txt2img,img2img}.v1 seedream-5-0.lite.{txt2img,img2img}.v1
recraft.{txt2img,img2img}.v1
recraft.v4.{txt2img,txt2vec}.v1 recraft.v4.pro.{txt2img,txt2vec}.v1 wan2-7.{txt2img,img2img}.v1
flux.schnell.img2img.v{1,2} flux.dev.img2img.v2 flux-fast.schnell.img2img.v2
flux-fast.dev-kontext.img2img.v1 flux-control.dev.ghibli.img2img.v1
qwen.image-edit.lightning.img2img.v1 qwen.image-edit.plus.img2img.v2
qwen.image-edit.plus.lightning.img2img.v2 flux.dev.inpainting.v2 upscale.v1
{hypir,resrgan}.upscale.v1 {remove,mask}-background.v1 {birefnet,sam2,sam3}.segment.v1
segment.v{1,2} vit.img2label.v2 facerestore.v1 facerestore.upscale.v1 faceswap.v1 ping.v1
veo.{txt2vid,img2vid}.v{1,2} veo.fast.txt2vid.v{1,2} veo.fast.img2vid.v1
wan2-2.lightning.{txt2vid,img2vid}.v0 wan2-7.{txt2vid,img2vid,vid2vid}.v1
seedance.{lite,pro}.{txt2vid,img2vid}.v1 seedance.proturbo.txt2vid.v1 kling.txt2vid.v1
sora-2.{txt2vid,img2vid}.v1 sora-2.pro.{txt2vid,img2vid}.v1
pruna.p-video.{txt2vid,img2vid,aud2vid}.v1
runway.gen4.vid2vid.v1 minimax.h3.fast.{txt2vid,img2vid,ref2vid}.v1 mochi1.txt2vid.v1
"""


def expanded(pattern: str) -> Iterator[str]:
    """Write out braces as a shell does."""
    pieces = [piece.split(",") for piece in re.split(r"[{}]", pattern)]
    yield from ("".join(choice) for choice in itertools.product(*pieces))


def fields() -> Iterator[tuple[JobType, Field]]:
    return ((kind, field) for kind in job_types().values() for field in kind.fields)


def test_every_name_is_there() -> None:
    """No name that was found anywhere is missing, and none was made up."""
    found = {f"inference.{name}" for each in FOUND.split() for name in expanded(each)}
    assert set(names()) == found | {"workflow.serial.v1", "workflow.moderate.v1"}


def test_an_alias_is_the_same_type() -> None:
    """Both names of a type lead to it, and nothing else leads anywhere."""
    assert job_type("inference.segment.v2") is job_type(SAM) is job_types()[SAM]
    assert job_type("inference.flux-fast.schnell.txt2img.v0") is job_types()[FAST]
    for nobody in ("inference.unknown.v1", "", None, 7, ["x"]):
        assert job_type(nobody) is None


def test_search() -> None:
    """Part of a name, of an alias or of an operation is enough, in any case."""
    assert [kind.name for kind in matching("SAM3")] == [SAM]
    assert [kind.name for kind in matching("inference.segment.v2")] == [SAM]
    assert {kind.operation for kind in matching("ref2vid")} == {"ref2vid"}
    assert len(matching("")) == len(job_types())
    assert matching("no such thing") == []


def sources_of(kind: JobType) -> Iterator[Source]:
    """Yield the source of each fact that is known of a type."""
    yield kind.source
    yield kind.inputs.source
    yield kind.inputs.least_source
    yield kind.outputs.source
    yield from (field.source for field in kind.fields)
    for fact in (kind.seconds, kind.dollars, kind.permits_async, kind.one_of):
        if fact is not None:
            yield fact.source
    if kind.closed is not None:
        yield kind.closed


def test_every_fact_has_a_source() -> None:
    """Each has one of the four marks and says where it was found."""
    for kind in job_types().values():
        for source in sources_of(kind):
            assert source.mark in get_args(Mark)
            assert source.where
            assert str(source) == f"{source.mark}, {source.where}"


def test_the_facts_of_a_field_agree() -> None:
    """Ranges have their ends in order, a default is one of the allowed values, kinds are known."""
    for kind, field in fields():
        low, high = field.least, field.most
        assert low is None or high is None or low < high, (kind.name, field.name)
        assert field.kind in get_args(FieldKind)
        for value in (field.default, field.always):
            if value is not None:
                assert problems_of_value(field, value) == [], (kind.name, field.name)
        if field.excludes:
            assert field.excludes in {each.name for each in kind.fields}
    for kind in job_types().values():
        named = [field.name for field in kind.fields]
        assert len(named) == len(set(named)), kind.name


def test_every_source_is_used_and_every_page_is_the_sites() -> None:
    """The list of sources has none that nothing names, and an address only where it is known."""
    used = {source for kind in job_types().values() for source in sources_of(kind)}
    text = CATALOGUE_FILE.read_text(encoding="utf-8")
    listed = tomllib.loads(text)["sources"]
    assert {source.where for source in used} == {each["where"] for each in listed.values()}
    for source in used:
        assert not source.url or source.url.startswith("https://docs.prodia.com/")
        assert source.mark == "A" or not source.url


def problems_of_value(field: Field, value: object) -> list[str]:
    """Hold a value against a field, through the type that it belongs to."""
    kind = next(kind for kind, each in fields() if each is field)
    found = problems({"type": kind.name, "config": {field.name: value}})
    return [each for each in found if each.startswith(f"config.{field.name} must be")]


def test_only_what_is_documented_counts() -> None:
    """A value of a wrong kind is a problem for facts marked A, a doubt for B, else nothing."""
    for kind, field in fields():
        job: dict[str, Any] = {"type": kind.name, "config": {field.name: object()}}
        if field.kind == "jobs":
            job = {"type": kind.name, "jobs": object()}
        for check, mark in ((problems, "A"), (doubts, "B")):
            wrong = any(f"{field.name} must be" in each for each in check(job))
            assert wrong is (field.source.mark == mark), (kind.name, field.name, mark)


def test_ranges_hold_at_both_ends() -> None:
    """The ends pass and one beyond them is reported, wherever the range is documented."""
    tried = 0
    for _, field in fields():
        if field.source.mark != "A" or field.kind not in {"integer", "number", "string"}:
            continue
        step = field.multiple_of or 1
        for end, beyond in ((field.least, -step), (field.most, step)):
            if end is None:
                continue
            inside, outside = int(end) if beyond > 0 else -int(-end // 1), int(end + beyond)
            made = "x".__mul__ if field.kind == "string" else float
            assert problems_of_value(field, made(inside)) == []
            assert len(problems_of_value(field, made(outside))) == 1
            tried += 1
    assert tried > 80


WRONG: list[tuple[Mapping[str, Any], int, list[str]]] = [
    (
        {"type": FAST, "config": {"steps": 5, "prompt": "ab", "seed": True}},
        0,
        [
            "config.prompt must be a string of 3 to 4096 characters, not of 2",
            "config.steps must be an integer 1 to 4, not 5",
            "config.seed must be an integer, not True",
        ],
    ),
    ({"type": FAST}, 0, ["config.prompt is required"]),
    ({"type": FAST, "config": None}, 0, ["config.prompt is required"]),
    ({"type": FAST, "config": "cat"}, 0, ["config must be a mapping, not 'cat'"]),
    (
        {"type": FAST, "config": {"prompt": "cat", "step": 1, "n": 2}, "name": "x"},
        0,
        [
            "config takes no 'step', 'n', only prompt, steps, resolution, seed, style_preset",
            "the job takes no 'name', only type and config",
        ],
    ),
    (
        {"type": FAST, "config": {"prompt": "cat", "resolution": "1x1"}},
        0,
        ["config.resolution must be one of '1024x1024', '1024x768', "],
    ),
    (
        {"type": PRO, "config": {"width": 100, "images": ["a.png"] * 9}},
        9,
        [
            "it takes at most 8 inputs, not 9",
            "config.images must be a list of names of inputs, 1 to 8 of them, not 9",
            "config.width must be an integer 64 to 4096, a multiple of 16, not 100",
        ],
    ),
    (
        {"type": PRO, "config": {"images": ["b.png", "https://example.com/c.png"]}},
        0,
        [
            "it needs at least 1 input, not 0",
            "config.images names 'b.png', which no input bears; inputs: there are none",
        ],
    ),
    ({"type": PRO, "config": {"images": "a.png"}}, 1, ["config.images must be a list of names"]),
    (
        {"type": RECRAFT, "config": {"prompt": "x", "style": "icon", "style_id": "1"}},
        1,
        ["config.style_id must not stand beside style"],
    ),
    (
        {"type": RECRAFT, "config": {"prompt": "x", "image": "b.png", "strength": 1.5}},
        1,
        [
            "config.image names 'b.png', which no input bears; inputs: ['a.png']",
            "config.strength must be a number 0 to 1, not 1.5",
        ],
    ),
    (
        {
            "type": "workflow.serial.v1",
            "jobs": [{"type": "x"}, {"type": SAM, "config": {"confidence_threshold": 2}, "n": 1}],
        },
        0,
        [
            "jobs[1].config.prompt is required",
            "jobs[1].config.confidence_threshold must be a number 0 to 1, not 2",
            "jobs[1] takes no 'n', only type and config",
        ],
    ),
    ({"type": "workflow.serial.v1", "jobs": ["x"]}, 0, ["jobs must be a list of jobs, not ['x']"]),
    ({"type": "workflow.serial.v1"}, 0, ["jobs is required"]),
]


@pytest.mark.parametrize(("job", "count", "expected"), WRONG)
def test_all_problems_are_found_together(
    job: Mapping[str, Any], count: int, expected: list[str]
) -> None:
    """Each problem is one phrase with the field, what it must be and what it is."""
    input_names = ["a.png", *(f"{number}.png" for number in range(count - 1))][:count]
    found = problems(job, [SentInput(name=name) for name in input_names])
    assert len(found) == len(expected)
    for phrase, start in zip(found, expected, strict=True):
        assert phrase.startswith(start)


FINE: list[Mapping[str, Any]] = [
    {"type": FAST, "config": {"prompt": "cat", "steps": 4.0, "seed": -(10**30)}},
    {"type": PRO, "config": {"prompt": "cat", "width": 64, "later": object()}, "name": "x"},
    {"type": "inference.flux-fast.schnell.txt2img.v2", "config": {"steps": 1000, "width": 1}},
    {"type": "inference.unknown.v1", "config": {"prompt": 1}, "anything": 2},
    {"type": "workflow.serial.v1", "jobs": [{"type": "workflow.serial.v1", "jobs": "deep"}]},
    {"type": ["no", "name"]},
    {},
]


@pytest.mark.parametrize("job", FINE)
def test_what_is_not_known_passes(job: Mapping[str, Any]) -> None:
    """Unknown types and fields, and values that only other clients call wrong."""
    assert problems(job, [SentInput(name="a.png")]) == []


def test_counts_that_only_the_name_tells_pass() -> None:
    """That img2img needs a picture and txt2img none is our inference, so the service decides."""
    assert problems({"type": "inference.sdxl.img2img.v1"}) == []
    text = {"type": "inference.sdxl.txt2img.v1"}
    assert problems(text, [SentInput(name="a.png")]) == []


async def test_one_error_before_anything_is_sent() -> None:
    """With validate, everything is in one message; without, the service decides."""
    job = Job(PRO, {"prompt": "", "safety_tolerance": 6, "image": "b.png"})
    with pytest.raises(InvalidRequestError) as caught:
        await encode_job(JobRequest(job, [b"x"] * 9), validate="known")
    assert caught.value.message == (
        f"{PRO} refuses this job: it takes at most 8 inputs, not 9; "
        "config.prompt must be a string of 1 to 32768 characters, not of 0; "
        "config.safety_tolerance must be an integer 0 to 5, not 6"
    )
    await encode_job(JobRequest(Job(PRO, {"prompt": ""}), [b"x"]))


async def test_a_good_job_is_the_same_request() -> None:
    """Validation changes nothing that is sent, and leaves the other checks in force."""
    request = JobRequest(Job(PRO, {"prompt": "cat", "images": ["input-1"]}), [b"x"])
    checked, plain = await encode_job(request, validate="known"), await encode_job(request)
    assert (checked.query, checked.headers, checked.kind) == (
        plain.query,
        plain.headers,
        plain.kind,
    )
    with pytest.raises(InvalidRequestError, match="which no input bears"):
        await encode_job(JobRequest(Job("t", {"image": "b.png"})), validate="known")


def test_it_is_not_read_before_it_is_asked() -> None:
    """Neither the import nor a job with one input reads it; several inputs or a check do."""
    code = (
        "import asyncio; from prodia_async import Job, JobRequest\n"
        "from prodia_async._catalogue import catalogue_is_read\n"
        "from prodia_async._requests import encode_job\n"
        "asyncio.run(encode_job(JobRequest(Job('t'), [b'x'])))\n"
        "print(catalogue_is_read())\n"
        "asyncio.run(encode_job(JobRequest(Job('t'), [b'x'{more}]), validate={validate}))\n"
        "print(catalogue_is_read())\n"
    )
    for more, validate in ((", b'y'", None), ("", "'known'")):
        done = subprocess.run(
            [sys.executable, "-c", code.format(more=more, validate=validate)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split() == ["False", "True"]


async def test_it_is_read_off_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes some milliseconds and reads a file, which would hold up every other job."""
    threads: list[int] = []

    def spy() -> None:
        threads.append(threading.get_ident())
        read()

    read = _catalogue.read_catalogue
    monkeypatch.setattr(_catalogue, "read_catalogue", spy)
    async with AsyncProdia("any", base_url="http://127.0.0.1:1") as client:
        trade = ProdiaTrade(client)
        for use in (
            lambda: encode_job(JobRequest(Job("t")), validate="known"),
            lambda: trade.asked(Job("t")),  # a batch, which asks what a job may cost
        ):
            threads.clear()
            _catalogue._by_name.cache_clear()
            for _ in range(2):
                await use()
            assert len(threads) == 1
            assert threads != [threading.get_ident()]


def test_the_limits_that_always_hold_are_the_catalogues() -> None:
    """The table that every job is held against has each documented limit, and no other."""
    documented = {
        name: kind.inputs.most
        for kind in job_types().values()
        if kind.inputs.source.mark == "A"
        for name in (kind.name, *kind.aliases)
    }
    assert {name: input_limit(name) for name in names() if input_limit(name)} == documented
    assert input_limit("inference.unknown.v1") is None


def test_names_of_inputs_are_looked_for_in_every_such_field() -> None:
    """There is no field for a filename that the check of names does not know."""
    of_names = {field.name for _, field in fields() if field.kind in {"filename", "filenames"}}
    assert of_names <= set(FILENAME_FIELDS)


def test_descriptions() -> None:
    """A field in a few words, with the ends of its range where there are any."""
    cases: list[tuple[FieldKind, float | None, float | None, str]] = [
        ("integer", None, None, "an integer"),
        ("string", None, 500, "a string of at most 500 characters"),
        ("integer", 512, None, "an integer at least 512"),
        ("number", 1.5, 10, "a number 1.5 to 10"),
        ("strings", None, 3, "a list of strings, at most 3 of them"),
        ("boolean", None, None, "True or False"),
    ]
    for kind, low, high, words in cases:
        made = Field(name="x", kind=kind, source=Source("A", "x"), least=low, most=high)
        assert described(made) == words
    sixteen = Field(name="x", kind="integer", source=Source("A", "x"), multiple_of=16)
    assert described(sixteen) == "an integer, a multiple of 16"


VEO = "inference.veo.img2vid.v1"
SLIPS = [
    ("inference.flux-fast.schnel.txt2img.v2", "inference.flux-fast.schnell.txt2img.v2"),
    ("inference.nano-bananna.img2img.v2", "inference.nano-banana.img2img.v2"),
    ("flux-fast.schnell.txt2img.v2", "inference.flux-fast.schnell.txt2img.v2"),
]


@pytest.mark.parametrize(("slip", "meant"), SLIPS)
def test_a_slip_in_a_type_is_named(slip: str, meant: str) -> None:
    """One letter off, or without its prefix: what was meant comes first."""
    assert near_misses(slip)[0] == meant
    found = problems({"type": slip})
    assert found[0].startswith(f"there is no such type; did you mean {meant}")


@pytest.mark.parametrize(
    "name", [FAST, "inference.flux-2.pro.txt2img.v2", "inference.sora-3.txt2vid.v1", "x", ""]
)
def test_a_new_version_is_no_slip(name: str) -> None:
    """What differs in its numbers alone is newer than the catalogue, not wrong."""
    assert near_misses(name) == []
    assert not [each for each in problems({"type": name}) if "no such type" in each]


def test_values_that_must_go_together() -> None:
    """Each allowed pair passes, one alone too; the pair that no branch has is a problem."""
    for config in ({}, {"resolution": "1080p"}, {"aspect_ratio": "9:16"},
                   {"resolution": "720p", "aspect_ratio": "9:16"},
                   {"resolution": "1080p", "aspect_ratio": "16:9"}):  # fmt: skip
        assert problems({"type": VEO, "config": {"prompt": "x", **config}}) == []
    found = problems(
        {"type": VEO, "config": {"prompt": "x", "resolution": "1080p", "aspect_ratio": "9:16"}}
    )
    assert found == [  # one phrase
        (
            "config must have resolution 1080p with aspect_ratio 16:9 or resolution 720p with "
            "aspect_ratio 16:9/9:16, not {'aspect_ratio': '9:16', 'resolution': '1080p'}"
        )
    ]


def test_files_are_held_against_the_documented_limits() -> None:
    """Kind, size and sides of each, the pixels of all; what is not known of a file passes."""
    job = {"type": SAM, "config": {"prompt": "x"}}
    good = SentInput(name="a.png", media_type="image/png", size=10_000_000, pixels=(256, 4096))
    assert problems(job, [good]) == []
    assert problems(job, [SentInput(name="a.png")]) == []
    assert problems(job, [SentInput(name="a", media_type="application/octet-stream")]) == []
    for bad, expected in (
        (replace(good, pixels=(255, 4096)), "must have sides of 256 to 4096 pixels, not 255x4096"),
        (replace(good, pixels=(256, 4097)), "must have sides of 256 to 4096 pixels, not 256x4097"),
        (replace(good, size=10_000_001), "must have at most 10,000,000 bytes, not 10,000,001"),
        (
            replace(good, media_type="video/mp4"),
            "must be one of image/png, image/jpeg, image/webp, not video/mp4",
        ),
    ):
        assert problems(job, [bad]) == [f"'a.png' {expected}"]
    pro = {"type": PRO, "config": {"prompt": "x"}}
    wide = SentInput(name="a.png", pixels=(3000, 1500))
    assert problems(pro, [wide, wide]) == []
    assert problems(pro, [wide, replace(wide, pixels=(3001, 1500))]) == [
        "its pictures must have at most 9 megapixels together, not 9.0"
    ]
    removed = {"type": "inference.remove-background.v1"}
    small = [SentInput(name="a.png", pixels=(255, 300))]
    assert problems(removed, small) == []
    assert doubts(removed, small) == ["'a.png' must have sides of at least 256 pixels, not 255x300"]


def test_doubts() -> None:
    """What others recorded, slips, and fields that only siblings take; never a problem."""
    name = "inference.flux-fast.schnell.txt2img.v2"
    config = {"prompt": "x", "steps": 5, "sede": 1, "negative_prompt": "y", "brand_new": 2, 3: 4}
    job = {"type": name, "config": config}
    assert problems(job) == []
    assert doubts(job) == [
        "config.steps must be an integer 1 to 4, not 5",
        "config.sede is not known; did you mean seed?",
        "config.negative_prompt is known of other types only, and may have no effect",
    ]
    assert doubts({"type": "inference.unknown.v1", "config": config}) == []
    assert doubts({"type": FAST, "config": {"prompt": "cat", "sede": 1}}) == []
    assert doubts({"type": name, "config": "x"}) == []


def test_a_closed_type_names_what_was_meant() -> None:
    """A slip in a field of a type that takes no others is told with the field."""
    found = problems({"type": FAST, "config": {"prompt": "cat", "sede": 1}})
    assert found == [
        (
            "config takes no 'sede', only prompt, steps, resolution, seed, style_preset, "
            "progressive (did you mean seed?)"
        )
    ]


@pytest.mark.parametrize(
    "broken",
    [
        'operation = "nothing"\nsource = "seen"',
        'operation = "ping"\nsource = "nobody"',
        'operation = "ping"',
        'operation = "ping"\nsource = "seen"\nstrange = 1',
        'operation = "ping"\nsource = "seen"\nfields.x = { kind = "string" }',
    ],
)
def test_a_catalogue_that_is_not_in_its_form(broken: str) -> None:
    """The error names the type, so that whoever edits the file finds the line."""
    text = CATALOGUE_FILE.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match=r"the catalogue's inference\.new\.v1 is not in its form"):
        read_catalogue(f'{text}\n[types."inference.new.v1"]\n{broken}\n')


# The emulator was written by somebody else from the same pages.

LIMITS = {
    "string": ("minLength", "maxLength"),
    "integer": ("minimum", "maximum"),
    "number": ("minimum", "maximum"),
    "strings": ("minItems", "maxItems"),
    "filenames": ("minItems", "maxItems"),
}

KNOWN_DIFFERENCES = {
    # The emulator counts the inputs instead, and answers with the guide's own words.
    "inference.flux-2.dev.img2img.v1: images, most",
    "inference.flux-2.flex.img2img.v1: images, most",
    "inference.flux-2.max.img2img.v1: images, most",
    "inference.flux-2.pro.img2img.v1: images, most",
    "inference.nano-banana.img2img.v2: images, most",
    # The page has them in the branches of a oneOf, as the emulator has.
    "inference.veo.img2vid.v1: aspect_ratio, choices",
    "inference.veo.img2vid.v1: resolution, choices",
}


def differences() -> Iterator[str]:
    """Say where the emulator has something else than what the catalogue takes for sure (A, B)."""
    for name, theirs in CATALOGUE.items():
        ours = job_type(name)
        if ours is None:
            yield f"{name}: unknown here"
            continue
        takes = ours.inputs
        if takes.source.mark in {"A", "B"} and takes.most != theirs.inputs[1]:
            yield f"{name}: inputs, most"
        if takes.least_source.mark in {"A", "B"} and takes.least != theirs.inputs[0]:
            yield f"{name}: inputs, least"
        members = theirs.config.get("properties", {})
        for field in ours.fields:
            if field.name in members and field.source.mark in {"A", "B"}:
                yield from field_differences(f"{name}: {field.name}", field, members[field.name])
        if ours.closed and not theirs.closed:
            yield f"{name}: other fields"


def field_differences(where: str, field: Field, schema: Mapping[str, Any]) -> Iterator[str]:
    low, high = LIMITS.get(field.kind, ("", ""))
    stated = {
        "least": (field.least, low),
        "most": (field.most, high),
        "multiple": (field.multiple_of, "multipleOf"),
        "choices": (list(field.choices) or None, "enum"),
    }
    for what, (ours, key) in stated.items():
        if ours is not None and ours != schema.get(key):
            yield f"{where}, {what}"


def test_the_emulator_agrees() -> None:
    """On every type that both know, but for what is listed here with its reason."""
    assert set(differences()) == KNOWN_DIFFERENCES
