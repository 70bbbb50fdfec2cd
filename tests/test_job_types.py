"""The typed helpers: do they say what the catalogue says, and make plain jobs?"""

import ast
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args, get_type_hints

import pytest
from write_job_types import HELPED, TARGET, function_name, module

from prodia_async import Job, job_types
from prodia_async._catalogue import problems
from prodia_async._catalogue_data import JOB_TYPES, STYLE_PRESETS, Field, JobType

KINDS = pytest.mark.parametrize("kind", [JOB_TYPES[name] for name in HELPED], ids=lambda k: k.name)
SAMPLES = {"text": "abc", "boolean": False, "texts": ["a"], "filename": "a", "filenames": ["a"]}


def helper(kind: JobType) -> Callable[..., Job]:
    found = getattr(job_types, function_name(kind))
    assert callable(found)
    return found  # type: ignore[no-any-return]  # looked up by name


def sample(field: Field) -> Any:
    """Return a value that fits, the smallest there is."""
    if field.choices:
        return field.choices[0]
    return SAMPLES.get(field.kind, field.between[0] or 0)


def test_it_is_what_the_catalogue_writes() -> None:
    """``python tests/write_job_types.py`` was run after the last change to the catalogue."""
    written = ast.dump(ast.parse(TARGET.read_text(encoding="utf-8")))
    assert written == ast.dump(ast.parse(module()))


def test_every_public_name_is_a_helper() -> None:
    """Nothing else is at this door, and it is sorted."""
    helpers = {function_name(JOB_TYPES[name]) for name in HELPED}
    assert set(job_types.__all__) == helpers | {"StylePreset"}
    assert len(helpers) == len(HELPED)
    assert job_types.__all__ == sorted(job_types.__all__)


@KINDS
def test_the_signature_is_the_catalogues(kind: JobType) -> None:
    """What is required comes first and by position; the rest by keyword; ``extra`` at the end."""
    found = inspect.signature(helper(kind)).parameters.values()
    assert [each.name for each in found if each.default is each.empty] == [
        field.name for field in kind.fields if field.required
    ]
    optional = [each for each in found if each.default is not each.empty]
    assert all(each.default is None and each.kind is each.KEYWORD_ONLY for each in optional)
    assert [each.name for each in optional] == [
        *(field.name for field in kind.fields if not field.required),
        "extra",
    ]


@KINDS
def test_choices_are_literals_where_they_are_sure(kind: JobType) -> None:
    """An editor offers exactly the catalogue's choices, and none that are only assumed."""
    known = {"Mapping": Mapping, "Sequence": Sequence, "Job": Job}
    hints = get_type_hints(helper(kind), localns=known)
    for field in kind.fields:
        # Each is `X | None`, and a Literal has its values one level below.
        offered = [value for each in get_args(hints[field.name]) for value in get_args(each)]
        if field.choices:
            sure = field.source.mark in {"A", "B"}
            assert offered == (list(field.choices) if sure else [])


@KINDS
def test_only_what_is_given_is_sent(kind: JobType) -> None:
    """The required alone make a job of the type with nothing else in it."""
    required = {field.name: sample(field) for field in kind.fields if field.required}
    job = helper(kind)(**required)
    assert job == Job(kind.name, required)


@KINDS
def test_everything_given_is_sent(kind: JobType) -> None:
    """Zero and False too; what the catalogue lists passes its own checks."""
    given = {field.name: sample(field) for field in kind.fields}
    job = helper(kind)(**given, extra={"later": 1})
    assert job == Job(kind.name, given | {"later": 1})
    excluding = {field.name for field in kind.fields if field.excludes}
    plain = {name: value for name, value in given.items() if name not in excluding}
    wire = {"type": kind.name, "config": plain}
    assert problems(wire, inputs=kind.inputs.least, input_names=["a"]) == []


@KINDS
def test_each_setting_is_explained(kind: JobType) -> None:
    """The docstring has a line for each, with how sure it is."""
    text = inspect.getdoc(helper(kind)) or ""
    assert kind.name in text
    for field in kind.fields:
        entry = text.split(f"    {field.name}: ", 1)[1].split("\n    " + "extra: ")[0]
        assert f"({field.source.mark})" in entry


def test_style_presets() -> None:
    """The alias has the documented presets, in their order."""
    assert get_args(job_types.StylePreset) == STYLE_PRESETS


def test_one_by_hand() -> None:
    """As the module's docstring shows it."""
    job = job_types.flux_fast_schnell_txt2img("a bowl of fruit", steps=4, seed=0)
    assert job.to_wire() == {
        "type": "inference.flux-fast.schnell.txt2img.v2",
        "config": {"prompt": "a bowl of fruit", "steps": 4, "seed": 0},
    }
    assert job_types.remove_background().to_wire()["config"] == {}
