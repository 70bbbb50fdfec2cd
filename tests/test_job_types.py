"""The typed helpers: do they say what the catalogue says, and make plain jobs?"""

import ast
import inspect
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args, get_type_hints

import catalogue as tool
import pytest

from prodia_async import Job, job_types
from prodia_async._catalogue import SentInput, problems
from prodia_async._catalogue_data import CATALOGUE, Field, JobType, read_catalogue
from prodia_async._catalogue_data import job_types as catalogue_types

SAMPLES: Mapping[str, Any] = MappingProxyType(
    {
        "string": "abc",
        "boolean": False,
        "strings": ["a"],
        "object": {},
        "objects": [],
        "filename": "a",
        "filenames": ["a"],
    }
)


def helper(kind: JobType) -> Callable[..., Job]:
    found = getattr(job_types, tool.function_name(kind))
    assert callable(found)
    return found  # type: ignore[no-any-return]  # looked up by name


def sample(field: Field) -> Any:
    """Return a value that fits, the smallest there is."""
    if field.choices:
        return field.choices[0]
    return SAMPLES.get(field.kind, field.least or 0)


def test_it_is_what_the_catalogue_writes() -> None:
    """``python tools/catalogue.py write`` was run after the last change to the catalogue."""
    written = ast.dump(ast.parse(tool.TARGET.read_text(encoding="utf-8")))
    assert written == ast.dump(ast.parse(tool.module()))


def test_every_type_with_fields_has_a_helper_of_its_own() -> None:
    """Nothing else is at this door, and it is sorted."""
    helpers = {tool.function_name(each) for each in tool.helped()}
    assert set(job_types.__all__) == helpers | {"StylePreset"}
    assert len(helpers) == len(tool.helped()) > 100
    assert job_types.__all__ == sorted(job_types.__all__)
    assert tool.function_name(catalogue_types()["inference.flux-kontext.pro.txt2img.v1"]) == (
        "flux_kontext_pro_txt2img_v1"
    )


def test_the_signature_is_the_catalogues() -> None:
    """What is required comes first and by position; the rest by keyword; ``extra`` at the end."""
    for kind in tool.helped():
        found = inspect.signature(helper(kind)).parameters.values()
        assert [each.name for each in found if each.default is each.empty] == [
            field.name for field in kind.fields if field.required
        ]
        optional = [each for each in found if each.default is not each.empty]
        assert all(each.kind is each.KEYWORD_ONLY for each in optional), kind.name
        assert [(each.name, each.default) for each in optional] == [
            *((field.name, field.always) for field in kind.fields if not field.required),
            ("extra", None),
        ]


def test_choices_are_literals_where_they_are_sure() -> None:
    """An editor offers exactly the catalogue's choices, and none that are only assumed."""
    known = {"Mapping": Mapping, "Sequence": Sequence, "Job": Job}
    for kind in tool.helped():
        hints = get_type_hints(helper(kind), localns=known)
        for field in kind.fields:
            if not field.choices:
                continue
            # Each is `X | None`, and a Literal has its values one level below.
            offered = [value for each in get_args(hints[field.name]) for value in get_args(each)]
            sure = field.source.mark in {"A", "B"}
            # Python takes two Literals of the same values for one, whatever their order.
            assert set(offered) == (set(field.choices) if sure else set()), (kind.name, field.name)


def test_only_what_is_given_is_sent() -> None:
    """The required alone make a job with nothing else in it but what is always sent."""
    for kind in tool.helped():
        required = {field.name: sample(field) for field in kind.fields if field.required}
        always = {each.name: each.always for each in kind.fields if each.always is not None}
        assert helper(kind)(**required) == Job(kind.name, required | always)
    assert job_types.veo_img2vid_v1("x").config == {"prompt": "x", "resolution": "720p"}


def test_everything_given_is_sent() -> None:
    """Zero and False too; what the catalogue lists passes its own checks."""
    for kind in tool.helped():
        given = {field.name: sample(field) for field in kind.fields}
        job = helper(kind)(**given, extra={"later": 1})
        assert job == Job(kind.name, given | {"later": 1})
        excluding = {field.name for field in kind.fields if field.excludes}
        plain = {name: value for name, value in given.items() if name not in excluding}
        wire = {"type": kind.name, "config": plain}
        assert problems(wire, [SentInput(name="a")] * max(kind.inputs.least, 1)) == [
            each
            for each in ["it takes at most 0 inputs, not 1"]
            if kind.inputs.most == 0 and kind.inputs.source.mark == "A"
        ]


def test_each_setting_is_explained() -> None:
    """The docstring has a line for each, with how sure it is."""
    for kind in tool.helped():
        text = inspect.getdoc(helper(kind)) or ""
        assert f"``{kind.name}``" in text
        for field in kind.fields:
            entry = text.split(f"    {field.name}: ", 1)[1].split("\n    " + "extra: ")[0]
            assert f"({field.source.mark})" in entry, (kind.name, field.name)


def test_style_presets() -> None:
    """The alias has the documented presets, in their order."""
    assert get_args(job_types.StylePreset) == tool.STYLES


def test_one_by_hand() -> None:
    """As the module's docstring shows it."""
    job = job_types.flux_fast_schnell_txt2img("a bowl of fruit", steps=4, seed=0)
    assert job.to_wire() == {
        "type": "inference.flux-fast.schnell.txt2img.v2",
        "config": {"prompt": "a bowl of fruit", "steps": 4, "seed": 0},
    }
    assert job_types.remove_background().to_wire()["config"] == {}


def test_what_an_edit_changed() -> None:
    """Types and facts that came, went or are another, each on its line; nothing else."""
    text = CATALOGUE.read_text(encoding="utf-8")
    old = read_catalogue(text)
    price = 'seconds = { low = 0.3, source = "price" }'
    edited = text.replace(price, "", 1).replace("most = 4, default = 4", "most = 8, default = 4")
    ping = '[types."inference.ping.v1"]'
    pong = '[types."inference.pong.v1"]\nseconds = { low = 1, source = "seen" }'
    lines = list(tool.changes(old, read_catalogue(edited.replace(ping, pong))))
    assert "- inference.ping.v1" in lines
    assert "+ inference.pong.v1" in lines
    assert "    + seconds: low=1, source=C, names seen in clients and listings" in lines
    at = lines.index("  inference.flux-fast.schnell.txt2img.v2")
    steps, seconds = sorted(lines[at + 1 : at + 3])
    assert steps.startswith("    ~ config.steps: ")
    assert "most=4" in steps
    assert "\n      now " in steps
    assert "most=8" in steps.partition("now")[2]
    assert seconds.startswith("    ~ seconds: low=0.3")
    assert list(tool.changes(old, old)) == []


@pytest.mark.slow
def test_the_command(tmp_path: Path) -> None:
    """It runs by itself: the table has a row for each type, and an unknown revision is all new."""
    script = Path(tool.__file__)
    for arguments, expected in (
        (["table"], "| `inference.ping.v1` | - | 0 |"),
        (["diff", "no-such-revision"], "+ inference.ping.v1"),
    ):
        done = subprocess.run(
            [sys.executable, str(script), *arguments],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
        )
        assert expected in done.stdout
