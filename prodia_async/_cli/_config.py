"""What a job is made of on the command line: ``key=value`` and files of JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ._app import wrong

if TYPE_CHECKING:
    from collections.abc import Sequence


def read_config(items: Sequence[str]) -> dict[str, Any] | None:
    """Make a config of ``key=value`` and ``@file.json``, or ``None`` when there are none."""
    config: dict[str, Any] = {}
    for item in items:
        key, equals, value = item.partition("=")
        if item.startswith("@"):
            config.update(_read_object(item[1:]))
        elif not equals or not key.strip():
            wrong("-c", f"must read key=value or @file.json, not {item!r}")
        else:
            config[key.strip()] = _read_value(value)
    return config if items else None


def _read_value(text: str) -> Any:
    try:
        # NaN and Infinity are no JSON, whatever Python thinks; here they are text.
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return text


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _read_object(name: str) -> dict[str, Any]:
    try:
        text = Path(name).read_text(encoding="utf-8")
    except OSError as error:
        wrong("-c", f"@{name} cannot be read: {error.strerror}", cause=error)
    except ValueError as error:
        wrong("-c", f"@{name} is not UTF-8", cause=error)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        wrong("-c", f"@{name} is not JSON: {error}", cause=error)
    if not isinstance(found, dict):
        wrong("-c", f"@{name} must hold a JSON object, not {type(found).__name__}")
    return found
