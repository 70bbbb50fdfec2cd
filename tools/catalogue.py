"""
What is made of the catalogue of job types, and what an edit of it changed.

::

    python tools/catalogue.py write          # prodia_async/job_types.py, anew
    python tools/catalogue.py diff [REV]     # each fact that REV (HEAD) had otherwise
    python tools/catalogue.py table          # all types as a table in Markdown

``ruff format`` lays out what is written, and ``tests/test_job_types.py`` fails
when `write` was forgotten.
"""

import argparse
import dataclasses
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

import prodia_async
from prodia_async._catalogue import described
from prodia_async._catalogue_data import (
    CATALOGUE,
    Field,
    JobType,
    Source,
    job_types,
    read_catalogue,
)
from prodia_async._media import suffix_of

PACKAGE = Path(prodia_async.__file__).parent
TARGET = PACKAGE / "job_types.py"

STYLES = next(
    field.choices
    for field in job_types()["inference.flux-fast.schnell.txt2img.v1"].fields
    if field.name == "style_preset"
)

TYPES = {
    "string": "str",
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "strings": "Sequence[str]",
    "object": "Mapping[str, Any]",
    "objects": "Sequence[Mapping[str, Any]]",
    "filename": "str",
    "filenames": "Sequence[str]",
}

HEAD = '''
"""
Jobs of known types, with their settings as arguments, so that an editor completes them.

::

    from prodia_async import AsyncProdia, job_types

    job = job_types.flux_fast_schnell_txt2img("a bowl of fruit", steps=4, seed=42)
    response = await client.job(job)

Each function returns a plain `Job` and sends nothing. Only what is given goes
into its ``config``, so the service's own defaults hold for the rest (a setting
that is always sent says so). Nothing is checked here: a type checker sees
wrong names and kinds, and the client's ``validate="known"`` holds a job
against what is documented.

A function is named after its type, without ``inference.``; without a version
it stands for the newest version that is known. Any other type is a
``Job("inference...", {...})`` by hand, which is all that these functions make.

After each setting stands how sure its description is: A documented by Prodia,
B recorded from or tested against the live service, C assumed by other
clients, I our inference. Settings that are missing here go into ``extra``.
"""

# Written by tools/catalogue.py from the catalogue; change that, not this.

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


# The typed helpers.


def helped() -> list[JobType]:
    """Return the types that get a function: inference, with at least one field."""
    return [
        each for each in job_types().values() if each.name.startswith("inference.") and each.fields
    ]


def function_name(job_type: JobType) -> str:
    """Return the name of a type's function: the newest version has none in it."""
    stem, version = _stem_and_version(job_type.name)
    newest = max(
        _stem_and_version(each.name)[1]
        for each in helped()
        if _stem_and_version(each.name)[0] == stem
    )
    full = stem if version == newest else f"{stem}.v{version}"
    return re.sub(r"[.-]", "_", full.removeprefix("inference."))


def _stem_and_version(name: str) -> tuple[str, int]:
    stem, _, version = name.rpartition(".v")
    return stem, int(version)


def annotation(field: Field) -> str:
    """Return a field's type; choices only where they are known to be all."""
    if field.choices and field.source.mark in {"A", "B"}:
        if field.choices == STYLES:
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
    if field.choices == STYLES:
        text = "one of `StylePreset`"
    elif field.choices:
        text = f"one of {', '.join(f'``{literal(choice)}``' for choice in field.choices)}"
    if field.default is not None:
        text = f"{text}; default ``{literal(field.default)}``"
    if field.excludes:
        text = f"{text}; not beside ``{field.excludes}``"
    if field.note:
        text = f"{text}; {field.note}"
    return f"{field.name}: {sentence(text)} ({field.source.mark})"


def about(job_type: JobType) -> str:
    """Return what the docstring says of the type as a whole."""
    takes = job_type.inputs
    facts = []
    if takes.most is None:
        facts.append(f"Takes {takes.least} or more inputs")
    elif takes.most:
        span = f"{takes.least}" if takes.least == takes.most else f"{takes.least} to {takes.most}"
        note = f": {takes.note}" if takes.note else ""
        facts.append(f"Takes {span} input{'s' * (takes.most > 1)}{note} ({takes.source.mark})")
    if job_type.seconds:
        facts.append(f"About {job_type.seconds} s ({job_type.seconds.source.mark})")
    if job_type.dollars:
        facts.append(f"About ${job_type.dollars} ({job_type.dollars.source.mark})")
    if job_type.note:
        facts.append(f"{job_type.note[0].upper()}{job_type.note[1:]}")
    return "".join(f"{fact}. " for fact in facts).strip()


def sources(job_type: JobType) -> str:
    """Return where all that comes from, each source once."""
    found: list[Source] = [job_type.source, *(field.source for field in job_type.fields)]
    if job_type.inputs.most:
        found.append(job_type.inputs.source)
    found += [hint.source for hint in (job_type.seconds, job_type.dollars) if hint]
    wheres = dict.fromkeys(source.where for source in found if source.mark != "I")
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


def function(job_type: JobType) -> str:
    """Return a type's function."""
    needed = [field for field in job_type.fields if field.required]
    optional = [field for field in job_type.fields if not field.required]
    parameters = [f"{field.name}: {annotation(field)}" for field in needed]
    parameters.append("*")
    parameters += [
        f"{field.name}: {annotation(field)} | None = {literal(field.always)}" for field in optional
    ]
    parameters.append("extra: Mapping[str, Any] | None = None")
    config = ", ".join(f'"{field.name}": {field.name}' for field in (*needed, *optional))
    paragraphs = [
        f"Ask for {job_type.does}.",
        f"The type is ``{job_type.name}``. {about(job_type)}".strip(),
        "Args:\n"
        + "\n".join(wrapped(explained(field), 8, 4) for field in (*needed, *optional))
        + "\n        extra: Further members of ``config``.",
        sources(job_type),
    ]
    body = "\n\n".join(
        f"    {each}" if each.startswith("Args:") else wrapped(each, 4) for each in paragraphs
    )
    return (
        f"def {function_name(job_type)}({', '.join(parameters)}) -> Job:\n"
        f'    """\n{body}\n    """\n'
        f'    return _job("{job_type.name}", {{{config}}}, extra)\n'
    )


def module() -> str:
    """Return the whole module, as it is before ``ruff format``."""
    types = helped()
    public = sorted(["StylePreset", *map(function_name, types)])
    presets = ", ".join(map(literal, STYLES))
    return "\n\n".join(
        [
            HEAD.lstrip("\n"),
            f"__all__ = [{', '.join(map(literal, public))}]",
            f'StylePreset: TypeAlias = Literal[{presets}]\n"""Styles of pictures. (A)"""',
            *map(function, types),
            TAIL.lstrip("\n"),
        ]
    )


# What changed.


def facts(job_type: JobType) -> Iterator[tuple[str, str]]:
    """Yield each fact of a type: what it is about, and what it says."""
    for part in dataclasses.fields(job_type):
        value = getattr(job_type, part.name)
        if part.name == "fields":
            yield from ((f"config.{each.name}", _fact(each)) for each in value)
        elif part.name != "name":
            yield part.name, _fact(value)


def _fact(value: object) -> str:
    if not dataclasses.is_dataclass(value) or isinstance(value, Source):
        return str(value)
    told = (
        f"{part.name}={_fact(getattr(value, part.name))}"
        for part in dataclasses.fields(value)
        if getattr(value, part.name) != part.default and part.name != "name"
    )
    return ", ".join(told)


def changes(old: Mapping[str, JobType], new: Mapping[str, JobType]) -> Iterator[str]:
    """Yield a line for each type and each fact that came, went, or is another."""
    for name in sorted({*old, *new}):
        if name not in new:
            yield f"- {name}"
        elif name not in old:
            yield f"+ {name}"
            yield from (f"    + {what}: {says}" for what, says in facts(new[name]))
        else:
            before, after = dict(facts(old[name])), dict(facts(new[name]))
            lines = [
                *(f"    - {what}: {before[what]}" for what in before if what not in after),
                *(f"    + {what}: {after[what]}" for what in after if what not in before),
                *(
                    f"    ~ {what}: {before[what]}\n      now {after[what]}"
                    for what in after
                    if what in before and before[what] != after[what]
                ),
            ]
            if lines:
                yield f"  {name}"
                yield from lines


def at_revision(revision: str) -> Mapping[str, JobType]:
    """Read the catalogue as it was at a revision; empty where there was none."""
    done = subprocess.run(
        ["git", "show", f"{revision}:{PACKAGE.name}/{CATALOGUE.name}"],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return read_catalogue(done.stdout) if done.returncode == 0 else {}


# The documentation.


def table() -> str:
    """Return all types as a table in Markdown."""
    rows = ["| Type | Makes | Inputs | Seconds | Dollars | Async |", "|---|---|--:|--:|--:|---|"]
    for each in job_types().values():
        most = "+" if each.inputs.most is None else f"-{each.inputs.most}"
        span = f"{each.inputs.least}{'' if most == f'-{each.inputs.least}' else most}"
        seconds, dollars = (
            f"{hint} ({hint.source.mark})" if hint else "" for hint in (each.seconds, each.dollars)
        )
        permit = each.permits_async
        permits = f"{'yes' if permit.value else 'no'} ({permit.source.mark})" if permit else ""
        makes = ", ".join(suffix_of(media)[1:] for media in each.outputs.media)
        rows.append(
            f"| `{each.name}` | {makes or '-'} | {span} | {seconds} | {dollars} | {permits} |"
        )
    return "\n".join(rows) + "\n"


def main() -> None:
    """Do what the arguments say."""
    parser = argparse.ArgumentParser(description="What is made of the catalogue of job types.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("write", help="write prodia_async/job_types.py anew")
    commands.add_parser("table", help="print all types as a table in Markdown")
    diff = commands.add_parser("diff", help="print each fact that another revision had otherwise")
    diff.add_argument("revision", nargs="?", default="HEAD")
    options = parser.parse_args()
    if options.command == "write":
        TARGET.write_text(module(), encoding="utf-8")
        subprocess.run([sys.executable, "-m", "ruff", "format", "-q", str(TARGET)], check=True)
    elif options.command == "table":
        print(table(), end="")
    else:
        lines = list(changes(at_revision(options.revision), job_types()))
        print("\n".join(lines) or f"Nothing differs from {options.revision}.")


if __name__ == "__main__":
    main()
