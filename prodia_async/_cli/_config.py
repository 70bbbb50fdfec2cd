"""
What a job is made of on the command line: ``key=value``, files, formats by their short names.

A value is text where text is meant, and JSON where the type's documentation
(or the value itself, for a field that nobody knows) says so: the prompt ``12``
is no number. ``key:=value`` is JSON in any case.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from .._catalogue import doubts, job_type
from .._media import type_of_name
from .._models import Input, Job
from ._app import note, wrong
from ._names import full_type

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

TEXTS = frozenset({"prompt", "negative_prompt", "text", "model"})
"""Fields that hold text in every type that has them, known or not."""

_PICTURES = frozenset({"image/png", "image/jpeg", "image/webp"})
"""What a type that makes pictures can be asked for; documented: guide "Output Image Formats"."""


def make_job(typed: str | None, file: str | None, items: Sequence[str], *, has_inputs: bool) -> Job:
    """
    Make the job of what was typed.

    Args:
        typed: The type's name, perhaps short.
        file: A file with the job as JSON, or a list of jobs, which is a workflow; ``-``: standard
            input.
        items: The settings, for its config.
        has_inputs: Whether files come with it.

    Raises:
        InvalidRequestError: It is none; says what is wrong.
    """
    if file is None:
        if typed is None:
            wrong("Missing argument 'TYPE':", "a job type, or a whole job with --job FILE")
        name = full_type(typed, has_inputs=has_inputs)
        config = read_config(items, name)
        tell_slips(name, config)
        return Job(name, config)
    wire = read_json("--job", file)
    if isinstance(wire, list):
        if typed is not None or items:
            wrong("--job", f"{file} holds a workflow, whose steps have types and settings there")
        return Job.serial(*wire)
    if not isinstance(wire, dict):
        wrong("--job", f"{file} must hold a job or a list of jobs, not {type(wire).__name__}")
    strange = sorted(set(wire) - {"type", "config", "jobs"})
    if strange:
        wrong("--job", f"{file} must hold type, config and jobs alone, not {', '.join(strange)}")
    given: Any = full_type(typed, has_inputs=has_inputs) if typed is not None else wire.get("type")
    config = read_config(items, given)
    if config is not None:
        config = {**(wire.get("config") or {}), **config}
    config = wire.get("config") if config is None else config
    tell_slips(given, config)
    return Job(given, config, wire.get("jobs"))


def tell_slips(name: object, config: object) -> None:
    """Say which settings look like slips of others; the service takes any, without effect."""
    for doubt in doubts({"type": name, "config": config}):
        if "did you mean" in doubt:
            note(f"{doubt} It is sent as it is")


def read_config(
    items: Sequence[str], name: object = None, *, option: str = "-c"
) -> dict[str, Any] | None:
    """
    Make a config of settings as they were typed, or ``None`` when there are none.

    Args:
        items: ``key=value``, ``key=@file`` (the file's text), ``key:=json`` or ``@file.json``.
        name: The job type, whose catalogue entry says what is text.
        option: What they were typed after.

    Raises:
        InvalidRequestError: One is none of these; says which.
    """
    known = job_type(name)
    kinds = {field.name: field.kind for field in known.fields} if known else {}
    config: dict[str, Any] = {}
    for item in items:
        key, equals, value = item.partition("=")
        key = key.strip()
        if item.startswith("@"):
            config.update(_read_object(option, item[1:]))
        elif not equals or not key.strip(": "):
            form = "must read key=value or @file.json"
            wrong(option, f"{form}, not {item!r} (key:=json for a number)")
        else:
            name = key.removesuffix(":").strip()
            is_text = kinds.get(name) in {"string", "filename"} or (
                name not in kinds and name in TEXTS
            )
            config[name] = read_setting(key, value, is_text=is_text, option=option)
    return config if items else None


def read_setting(key: str, value: str, *, is_text: bool, option: str = "-c") -> Any:
    """
    Read the value of one setting.

    Args:
        key: Its name; one that ends in a colon takes JSON alone.
        value: As it was typed; ``@file`` is a file's text, ``@@`` an at sign.
        is_text: Whether text is meant, so that ``12`` is no number.
        option: What it was typed after.

    Raises:
        InvalidRequestError: The file cannot be read, or it must be JSON and is none.
    """
    if key.endswith(":"):
        return _read_exactly(option, key[:-1], value)
    if value.startswith("@@"):
        return value[1:]
    if value.startswith("@"):
        return read_text(option, value[1:]).removesuffix("\n").removesuffix("\r")
    return value if is_text else _read_value(value)


def _read_exactly(option: str, key: str, text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        wrong(option, f"{key}:= takes JSON, and {text!r} is none; {key}= takes text", cause=error)


def _read_value(text: str) -> Any:
    try:
        # NaN and Infinity are no JSON, whatever Python thinks; here they are text.
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return text


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _read_object(option: str, name: str) -> dict[str, Any]:
    found = read_json(option, name, mark="@")
    if not isinstance(found, dict):
        wrong(option, f"@{name} must hold a JSON object, not {type(found).__name__}")
    return found


def read_json(option: str, name: str, *, mark: str = "") -> Any:
    """
    Read a file of JSON; ``-`` is standard input.

    Raises:
        InvalidRequestError: It cannot be read, or is none.
    """
    text = read_text(option, name, mark=mark)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        wrong(option, f"{mark}{name} is not JSON: {error}", cause=error)


def read_text(option: str, name: str, *, mark: str = "@") -> str:
    """
    Read a file of text; ``-`` is standard input.

    Raises:
        InvalidRequestError: It cannot be read, or is no UTF-8.
    """
    mark = "" if option == "--job" else mark
    try:
        if name == "-":
            return _standard_input(option).decode("utf-8-sig")
        return Path(name).read_text(encoding="utf-8-sig")
    except OSError as error:
        wrong(option, f"{mark}{name} cannot be read: {error.strerror}", cause=error)
    except UnicodeDecodeError as error:
        wrong(option, f"{mark}{name} is not UTF-8", cause=error)


_READ: list[str] = []
"""After which option standard input was read."""


def _standard_input(option: str) -> bytes:
    if _READ:
        wrong(option, f"cannot read standard input again: {_READ[0]} has read it to its end")
    _READ.append(option)
    found = sys.stdin.buffer.read() if sys.stdin is not None else b""
    if not found:
        wrong(option, "is to come from standard input, and nothing came")
    return found


def read_inputs(items: Sequence[str]) -> list[Input]:
    """Make inputs of ``path`` or ``name=path``; a file may have an equals sign in its name."""
    inputs = []
    for item in items:
        name, equals, path = item.partition("=")
        if equals and name and path and not Path(item).exists():
            inputs.append(Input(path, filename=name))
        elif item:
            inputs.append(Input(item))
        else:
            wrong("-i", "must be a file, or read name=file")
    return inputs


def read_accept(typed: str | None, file: Path | None, job: Job) -> str | None:
    """
    Return the format to ask for.

    Args:
        typed: As it was given: a media type or its short name (``png``), with parameters or not.
        file: The file that was named for the output: without `typed` its ending says.
        job: What is asked.
    """
    known = job_type(job.type)
    makes = set(known.outputs.media) if known is not None else set()
    can = makes | _PICTURES if not makes or makes & _PICTURES else makes
    return media_of(typed, file, can)


def media_of(typed: str | None, file: Path | None, can: Collection[str]) -> str | None:
    """
    Return a media type of its short name, or of a file's ending.

    Args:
        typed: ``png``, ``jpeg;quality=95``, or a media type, which is taken as it is.
        file: Whose ending counts where nothing was typed, if it is one of `can`.
        can: What can be asked for.

    Raises:
        InvalidRequestError: The short name is none.
    """
    if typed is None:
        media = type_of_name(file.name) if file is not None else None
        return media if media in can else None
    short, semicolon, parameters = typed.partition(";")
    if "/" in short:
        return typed
    media = type_of_name(f".{short.strip()}")
    if media is None:
        wrong("--accept", f"must be a media type such as image/png, or png, not {typed!r}")
    return f"{media}{semicolon}{parameters}"
