"""
Write ``prodia_async/job_types.py`` from the catalogue.

``python tests/write_job_types.py`` rewrites the file, ``ruff format`` lays it
out, and ``test_job_types.py`` fails when this was forgotten.
"""

import re
import textwrap
from pathlib import Path

import prodia_async
from prodia_async._catalogue import described
from prodia_async._catalogue_data import JOB_TYPES, STYLE_PRESETS, Field, JobType, Source

TARGET = Path(prodia_async.__file__).with_name("job_types.py")

# The newest of its kind first: it gets the name without a version.
HELPED = [
    "inference.flux-fast.schnell.txt2img.v2",
    "inference.flux-fast.schnell.txt2img.v1",
    *(
        f"inference.flux-2.{variant}.{operation}.v1"
        for variant in ("dev", "pro", "flex", "max", "klein.4b", "klein.9b")
        for operation in ("txt2img", "img2img")
    ),
    "inference.nano-banana.txt2img.v2",
    "inference.nano-banana.img2img.v2",
    "inference.recraft.img2img.v1",
    "inference.sam3.segment.v1",
    "inference.birefnet.segment.v1",
    "inference.remove-background.v1",
    "inference.upscale.v1",
    "inference.veo.txt2vid.v2",
    "inference.veo.img2vid.v2",
    "inference.veo.fast.txt2vid.v2",
    "inference.veo.fast.img2vid.v1",
    "inference.wan2-7.txt2vid.v1",
    "inference.wan2-7.img2vid.v1",
    "inference.minimax.h3.fast.txt2vid.v1",
    "inference.minimax.h3.fast.img2vid.v1",
    "inference.minimax.h3.fast.ref2vid.v1",
]

DOES = {
    "txt2img": "a picture from a text",
    "img2img": "a picture from pictures and a text",
    "segment": "masks of what is in a picture",
    "remove-background": "a picture without its background",
    "upscale": "a picture, larger",
    "txt2vid": "a video from a text",
    "img2vid": "a video from a picture",
    "ref2vid": "a video from references",
}

TYPES = {
    "text": "str",
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "texts": "Sequence[str]",
    "filename": "str",
    "filenames": "Sequence[str]",
}

HEAD = '''
"""
Jobs of well-known types, with their settings as arguments, so that an editor completes them.

::

    from prodia_async import AsyncProdia, job_types

    job = job_types.flux_fast_schnell_txt2img("a bowl of fruit", steps=4, seed=42)
    response = await client.job(job)

Each function returns a plain `Job` and sends nothing. Only what is given goes
into its ``config``, so the service's own defaults hold for the rest. Nothing
is checked here: a type checker sees wrong names and kinds, and the client's
``validate="known"`` holds a job against what is documented.

A function is named after its type, without ``inference.``; without a version
it stands for the newest version that is known. Any other type is a
``Job("inference...", {...})`` by hand, which is all that these functions make.

After each setting stands how sure its description is: A documented by Prodia,
B recorded from or tested against the live service, C assumed by other
clients, I our inference. Settings that are missing here go into ``extra``.
"""

# Written by tests/write_job_types.py from the catalogue; change that, not this.

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ._models import Job

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
'''

TAIL = """
def _job(name: str, config: dict[str, Any], extra: Mapping[str, Any] | None) -> Job:
    given = {field: value for field, value in config.items() if value is not None}
    return Job(name, {**given, **(extra or {})})
"""


def function_name(kind: JobType) -> str:
    """Return the name of a type's function."""
    stem, _, version = kind.name.removeprefix("inference.").rpartition(".")
    first = next(name for name in HELPED if name.rpartition(".")[0] == f"inference.{stem}")
    full = stem if first == kind.name else f"{stem}.{version}"
    return re.sub(r"[.-]", "_", full)


def annotation(field: Field) -> str:
    """Return a field's type; choices only where they are known to be all."""
    if field.choices and field.source.mark in {"A", "B"}:
        if field.choices == STYLE_PRESETS:
            return "StylePreset"
        return f"Literal[{', '.join(map(literal, field.choices))}]"
    return TYPES[field.kind]


def literal(value: object) -> str:
    """Write a constant as the formatter does."""
    return f'"{value}"' if isinstance(value, str) else repr(value)


def sentence(text: str) -> str:
    """Make a sentence of a phrase."""
    return f"{text[:1].upper()}{text[1:]}."


def explained(field: Field) -> str:
    """Return a field's line of the docstring."""
    text = described(field)
    if field.choices == STYLE_PRESETS:
        text = "one of `StylePreset`"
    elif field.choices:
        text = f"one of {', '.join(f'``{literal(choice)}``' for choice in field.choices)}"
    if field.default is not None:
        text = f"{text}; default ``{literal(field.default)}``"
    if field.note:
        text = f"{text}; {field.note}"
    return f"{field.name}: {sentence(text)} ({field.source.mark})"


def about(kind: JobType) -> str:
    """Return what the docstring says of the type as a whole."""
    takes = kind.inputs
    facts = []
    if takes.most is None:
        facts.append(f"Takes {takes.least} or more inputs")
    elif takes.most:
        span = f"{takes.least}" if takes.least == takes.most else f"{takes.least} to {takes.most}"
        note = f": {takes.note}" if takes.note else ""
        facts.append(f"Takes {span} input{'s' * (takes.most > 1)}{note} ({takes.source.mark})")
    if kind.seconds:
        facts.append(f"About {kind.seconds} s ({kind.seconds.source.mark})")
    if kind.dollars:
        facts.append(f"About ${kind.dollars} ({kind.dollars.source.mark})")
    if kind.note:
        facts.append(f"{kind.note[0].upper()}{kind.note[1:]}")
    return "".join(f"{fact}. " for fact in facts).strip()


def sources(kind: JobType) -> str:
    """Return where all that comes from, each source once."""
    of_kind: list[Source] = [kind.source, *(field.source for field in kind.fields)]
    if kind.inputs.most:
        of_kind.append(kind.inputs.source)
    of_kind += [hint.source for hint in (kind.seconds, kind.dollars) if hint]
    wheres = dict.fromkeys(source.where for source in of_kind if source.mark != "I")
    return f"Source: {'; '.join(wheres)}."


def wrapped(text: str, indent: int, hanging: int = 0) -> str:
    """Lay out a paragraph of a docstring."""
    return textwrap.fill(
        text,
        96,
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + hanging),
        break_long_words=False,
        break_on_hyphens=False,
    )


def function(kind: JobType) -> str:
    """Return a type's function."""
    needed = [field for field in kind.fields if field.required]
    optional = [field for field in kind.fields if not field.required]
    parameters = [f"{field.name}: {annotation(field)}" for field in needed]
    parameters.append("*")
    parameters += [f"{field.name}: {annotation(field)} | None = None" for field in optional]
    parameters.append("extra: Mapping[str, Any] | None = None")
    config = ", ".join(f'"{field.name}": {field.name}' for field in (*needed, *optional))
    paragraphs = [
        f"Ask ``{kind.name}`` for {DOES[kind.operation]}.",
        *([about(kind)] if about(kind) else []),
        "Args:\n"
        + "\n".join(wrapped(explained(field), 8, 4) for field in (*needed, *optional))
        + "\n        extra: Further members of ``config``.",
        sources(kind),
    ]
    body = "\n\n".join(
        f"    {each}" if each.startswith("Args:") else wrapped(each, 4) for each in paragraphs
    )
    return (
        f"def {function_name(kind)}({', '.join(parameters)}) -> Job:\n"
        f'    """\n{body}\n    """\n'
        f'    return _job("{kind.name}", {{{config}}}, extra)\n'
    )


def module() -> str:
    """Return the whole module, as it is before ``ruff format``."""
    kinds = [JOB_TYPES[name] for name in HELPED]
    public = sorted(["StylePreset", *map(function_name, kinds)])
    presets = ", ".join(map(literal, STYLE_PRESETS))
    return "\n\n".join(
        [
            HEAD.lstrip("\n"),
            f"__all__ = [{', '.join(map(literal, public))}]",
            f"StylePreset: TypeAlias = Literal[{presets}]",
            *map(function, kinds),
            TAIL.lstrip("\n"),
        ]
    )


if __name__ == "__main__":
    TARGET.write_text(module(), encoding="utf-8")
