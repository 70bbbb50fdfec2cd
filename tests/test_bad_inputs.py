"""
What is wrong with a job, made from every fact that is documented: three places say so, or none.

Each wrong job is found before it is sent under ``validate="known"``, with the
field or the file named; let through under ``"off"``; and then refused by the
emulator, which was written apart from the same pages, in the service's words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from test_emulator_types import MP4, WAV, picture, valid

from prodia_async import (
    AsyncProdia,
    BadRequestError,
    InvalidRequestError,
    JobRequest,
    RetryPolicy,
)
from prodia_async._catalogue import names
from prodia_async._catalogue_data import Field, JobType, job_types
from prodia_async._requests import encode_job
from prodia_async.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

File = tuple[str, bytes, str]

WRONG_KIND: dict[str, Any] = {
    "string": 7, "integer": "x", "number": "x", "boolean": "yes", "strings": "x", "filenames": 7,
    "filename": 7, "object": 1, "objects": 1,
}  # fmt: skip

FILES: dict[str, tuple[bytes, str]] = {
    "audio": (WAV, "audio/wav"),
    "video": (MP4, "video/mp4"),
    "image": (picture(size=(256, 256)), "image/png"),
}


@dataclass(frozen=True)
class Bad:
    """A job that is wrong in one thing, and what it is called before sending."""

    name: str
    config: dict[str, Any]
    files: list[File]
    told: str

    @property
    def job(self) -> dict[str, Any]:
        return {"type": self.name, "config": self.config}


def good(kind: JobType) -> tuple[dict[str, Any], list[File]]:
    config, files = valid(kind.name)
    return dict(config or {}), files


def each_type() -> Iterator[tuple[JobType, dict[str, Any], list[File]]]:
    for kind in job_types().values():
        if kind.name.startswith("inference."):
            yield kind, *good(kind)


def each_field() -> Iterator[tuple[JobType, Field, dict[str, Any], list[File]]]:
    """What Prodia itself says of a field, which alone is held against a job."""
    for kind, config, files in each_type():
        for field in kind.fields:
            if field.source.mark == "A":
                yield kind, field, config, files


def beyond(field: Field) -> Iterator[Any]:
    """One step beyond each end of a field's range."""
    step = field.multiple_of or (0.01 if field.kind == "number" else 1)
    for end, by in ((field.least, -step), (field.most, step)):
        if end is None or (field.kind not in {"integer", "number"} and end + by < 0):
            continue
        value = end + by
        match field.kind:
            case "integer":
                yield int(value)
            case "number":
                yield value
            case "string":
                yield "x" * int(value)
            case _:
                yield ["0.png"] * int(value)


def out_of_range() -> Iterator[Bad]:
    for kind, field, config, files in each_field():
        for value in beyond(field):
            wrong = {**config, field.name: value}
            yield Bad(kind.name, wrong, files, f"config.{field.name} must be")


def no_choice() -> Iterator[Bad]:
    for kind, field, config, files in each_field():
        if field.choices:
            first = field.choices[0]
            value = f"{first}x" if isinstance(first, str) else 10**6
            yield Bad(kind.name, {**config, field.name: value}, files, f"config.{field.name} must")


def of_another_kind() -> Iterator[Bad]:
    for kind, field, config, files in each_field():
        value = WRONG_KIND[field.kind]
        yield Bad(kind.name, {**config, field.name: value}, files, f"config.{field.name} must be")


def missing() -> Iterator[Bad]:
    for kind, field, config, files in each_field():
        if field.required == "A":
            left = {name: value for name, value in config.items() if name != field.name}
            yield Bad(kind.name, left, files, f"config.{field.name} is required")


def of_a_sibling() -> Iterator[Bad]:
    """Every fifth field of other types, for each type whose page says that it takes no others."""
    everywhere = {field.name for kind in job_types().values() for field in kind.fields}
    for kind, config, files in each_type():
        if kind.closed is not None and kind.closed.mark == "A":
            for name in sorted(everywhere - {field.name for field in kind.fields})[::5]:
                yield Bad(kind.name, {**config, name: 1}, files, f"config takes no '{name}'")


def one_file_too_many() -> Iterator[Bad]:
    for kind, config, _ in each_type():
        most = kind.inputs.most
        if kind.inputs.source.mark == "A" and most is not None:
            many = [(f"{n}.png", *FILES["image"]) for n in range(most + 1)]
            yield Bad(kind.name, config, many, f"takes at most {most} input")


def one_file_too_few() -> Iterator[Bad]:
    for kind, config, files in each_type():
        least = kind.inputs.least
        if kind.inputs.least_source.mark == "A" and least:
            yield Bad(kind.name, config, files[: least - 1], f"needs at least {least} input")


def too_small_or_large() -> Iterator[Bad]:
    for kind, config, _ in each_type():
        takes = kind.inputs
        if takes.source.mark == "A" and takes.least_side and takes.most_side:
            for side in (takes.least_side - 1, takes.most_side + 1):
                content = picture(size=(side, takes.least_side))
                files = [("0.png", content, "image/png")]
                yield Bad(kind.name, config, files, "'0.png' must have sides of")


def file_of_another_kind() -> Iterator[Bad]:
    for kind, config, files in each_type():
        takes = kind.inputs
        kinds = {media.partition("/")[0] for media in takes.media}
        if takes.source.mark == "A" and kinds and takes.least:
            for other in FILES.keys() - kinds:
                wrong = [("0.bin", *FILES[other]), *files[1:]]
                yield Bad(kind.name, config, wrong, "'0.bin' must be one of")


def one_letter_off() -> Iterator[Bad]:
    for name in names():
        middle = len(name) // 2
        slip = name[:middle] + name[middle + 1 :]
        meant = re.escape(name)
        yield Bad(slip, {"prompt": "a lake"}, [], f"no such type; did you mean .*{meant}")


SCHEMA = r"^jsonschema validation failed with 'inference\.[\w.-]+#?'"

TABLE: list[tuple[Any, str, int, set[str]]] = [
    (
        out_of_range,
        rf"{SCHEMA}.*((min|max)(imum|Length|Items)|multipleOf): got |many images|filename '.*' not",
        110,
        set(),
    ),
    (no_choice, rf"{SCHEMA}.*value must be (one of )?", 20, set()),
    (
        of_another_kind,
        rf"{SCHEMA}.*got \w+, want \w+|{SCHEMA}.*value must be",
        120,
        # The guide sends it, and the type's own schema, which is open, does not have it.
        {"inference.flux-2.flex.img2img.v1: config.aspect_ratio must be"},
    ),
    (missing, rf"{SCHEMA}.*missing propert", 9, set()),
    (of_a_sibling, rf"{SCHEMA}.*(additional properties '|false schema)", 70, set()),
    (one_file_too_many, r"too many images", 18, set()),
    (one_file_too_few, r"input image is required", 3, set()),
    (too_small_or_large, r"input '0\.png': got \d+x\d+ pixels, want 256 to 4096 a side", 2, set()),
    (file_of_another_kind, r"input '0\.bin': got (audio|video), want image", 30, set()),
    (
        one_letter_off,
        r"^unknown job type$",
        110,
        # They differ from a type in their numbers alone, as a new version does.
        {"inference.flux.pro1ultra.txt2img.v1", "inference.sd5.img2img.v1",
         "inference.sd5.txt2img.v1"},
    ),
]  # fmt: skip


@pytest.fixture(scope="module")
def emulator() -> Iterator[Emulator]:
    with Emulator(tokens=["token"], retry_after=None) as emulator:
        yield emulator


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[AsyncProdia]:
    policy = RetryPolicy(max_attempts=1, max_capacity_wait=0)
    async with AsyncProdia("token", base_url=emulator.base_url, retry=policy) as client:
        yield client


async def refusal(client: AsyncProdia, bad: Bad) -> Exception | None:
    try:
        await client.job(bad.job, inputs=bad.files)
    except (InvalidRequestError, BadRequestError) as error:
        return error
    return None


@pytest.mark.parametrize("row", TABLE, ids=[row[0].__name__ for row in TABLE])
async def test_what_is_wrong_is_said_before_it_is_sent_or_by_the_service(
    row: tuple[Any, str, int, set[str]], client: AsyncProdia, emulator: Emulator
) -> None:
    """Found under "known", sent under "off", refused in the words that were seen of the service."""
    make, words, least, apart = row
    strict, free = client.with_options(validate="known"), client.with_options(validate="off")
    table: list[Bad] = list(make())
    assert len(table) >= least
    seen = set()
    for bad in table:
        about = f"{bad.name}: {bad.told}"
        before = emulator.ledger.totals()
        found = await refusal(strict, bad)
        if isinstance(found, InvalidRequestError):
            assert re.search(bad.told, str(found)), f"{about}: {found}"
            assert emulator.ledger.totals() == before, f"{about}: it was sent"
        else:
            seen.add(bad.name)
        refused = await refusal(free, bad)
        if isinstance(refused, BadRequestError):
            assert re.search(words, str(refused.reason), re.DOTALL), f"{about}: {refused.reason}"
        else:
            assert refused is None, f"{about}: {refused}"
            seen.add(about)
        after = emulator.ledger.totals()
        assert after.received > before.received, f"{about}: it was not sent"
        assert after.charged - before.charged == (about in seen)
    assert seen == apart


async def test_a_good_job_of_each_type_passes() -> None:
    """What is wrong above is wrong in one thing: without it nobody minds (nor the emulator)."""
    made = 0
    for kind, config, files in each_type():
        request = JobRequest({"type": kind.name, "config": config}, files)
        await encode_job(request, validate="known")
        made += 1
    assert made > 110
