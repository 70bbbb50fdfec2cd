"""
A job's configuration against its JSON Schema, in the words the service uses.

The service's messages (``maximum: got 1,000`` is documented by its own tests)
are those of the Go library santhosh-tekuri/jsonschema, so the rest of the
vocabulary follows that library too: one headline, then a line per failure.
Only the keywords that the published schemas use are understood.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

Schema = Mapping[str, Any]
"""A JSON Schema object; see `check` for the keywords that count."""


def check(
    schema: Schema, value: Any, where: str = "", sent: Collection[str] | None = None
) -> list[str]:
    """
    List what is wrong with a value.

    Args:
        schema: Keywords understood: ``type``, ``enum``, ``const``, ``minimum``,
            ``maximum``, ``multipleOf``, ``minLength``, ``maxLength``,
            ``minItems``, ``maxItems``, ``items``, ``properties``, ``required``,
            ``additionalProperties`` and ``unevaluatedProperties`` (``False``
            only), ``oneOf``, ``not``, and the formats ``uuid`` and ``filename``.
        value: The parsed JSON.
        where: JSON pointer of the value; empty for the root.
        sent: Names of the files that were sent, of which a ``filename`` must be
            one; ``None`` leaves those to the caller.

    Returns:
        One line per failure, ``at '/config/steps': maximum: got 1,000, want 4``;
        empty when the value is valid. A ``oneOf`` that nothing matches lists
        the failures of all its branches in further, indented lines: the one
        that matters is among them.
    """
    wanted = schema.get("type")
    if wanted is not None and not _is(wanted, value):
        return [f"at '{where}': got {_kind(value)}, want {wanted}"]
    failures = [f"at '{where}': {text}" for text in _value_failures(schema, value)]
    failures += (f"at '{where}': {text}" for text in _format_failures(schema, value, sent))
    if isinstance(value, dict):
        properties: Mapping[str, Schema] = schema.get("properties", {})
        for name, inner in properties.items():
            if name in value:
                failures += check(inner, value[name], f"{where}/{name}", sent)
        if schema.get("unevaluatedProperties") is False:
            # This keyword is itself a schema that nothing matches, and says so.
            extra = (name for name in value if name not in properties)
            failures += (f"at '{where}/{name}': false schema" for name in extra)
    if isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            failures += check(schema["items"], item, f"{where}/{index}", sent)
    return failures + _branch_failures(schema, value, where, sent)


def report(name: str, failures: list[str]) -> str:
    """Make the error text of a job result out of `check`'s lines."""
    return "\n- ".join([f"jsonschema validation failed with '{name}#'", *failures])


def _branch_failures(
    schema: Schema, value: Any, where: str, sent: Collection[str] | None
) -> list[str]:
    failures = []
    if "not" in schema and not check(schema["not"], value, where, sent):
        failures.append(f"at '{where}': not failed")
    if "oneOf" in schema:
        branches = [check(branch, value, where, sent) for branch in schema["oneOf"]]
        matched = [str(index) for index, found in enumerate(branches) if not found]
        if not matched:
            failures.append(
                "\n  - ".join(
                    (
                        f"at '{where}': oneOf failed, none matched",
                        *itertools.chain.from_iterable(branches),
                    )
                )
            )
        elif len(matched) > 1:
            numbers = ", ".join(matched)
            failures.append(f"at '{where}': oneOf failed, subschemas {numbers} matched")
    return failures


def _format_failures(schema: Schema, value: Any, sent: Collection[str] | None) -> list[str]:
    if not isinstance(value, str):
        return []
    match schema.get("format"):
        case "uuid":
            try:
                UUID(value)
            except ValueError:
                return [f"'{value}' is not valid uuid: want 8-4-4-4-12 hex digits"]
        case "filename" if sent is not None and value not in sent:
            text = f"filename '{value}' not found in request"
            return [f"'{value}' is not valid filename: {text}"]
    return []


def _value_failures(schema: Schema, value: Any) -> list[str]:
    failures = []
    if "const" in schema and value != schema["const"]:
        failures.append(f"value must be {_quoted(schema['const'])}")
    if "enum" in schema and not _is_one_of(value, schema["enum"]):
        options = ", ".join(_quoted(option) for option in schema["enum"])
        one_of = "one of " if len(schema["enum"]) > 1 else ""
        failures.append(f"value must be {one_of}{options}")
    if isinstance(value, bool):
        return failures
    if isinstance(value, (int, float)):
        if "minimum" in schema and value < schema["minimum"]:
            failures.append(_got_want("minimum", value, schema["minimum"]))
        if "maximum" in schema and value > schema["maximum"]:
            failures.append(_got_want("maximum", value, schema["maximum"]))
        if "multipleOf" in schema and value % schema["multipleOf"]:
            failures.append(_got_want("multipleOf", value, schema["multipleOf"]))
    elif isinstance(value, str):
        failures += _size_failures(schema, "Length", len(value))
    elif isinstance(value, list):
        failures += _size_failures(schema, "Items", len(value))
    elif isinstance(value, dict):
        failures += _member_failures(schema, value)
    return failures


def _size_failures(schema: Schema, noun: str, size: int) -> list[str]:
    failures = []
    if size < schema.get(f"min{noun}", 0):
        failures.append(_got_want(f"min{noun}", size, schema[f"min{noun}"]))
    if size > schema.get(f"max{noun}", size):
        failures.append(_got_want(f"max{noun}", size, schema[f"max{noun}"]))
    return failures


def _member_failures(schema: Schema, value: dict[str, Any]) -> list[str]:
    failures = []
    missing = [_quoted(name) for name in schema.get("required", ()) if name not in value]
    if missing:
        noun = "property" if len(missing) == 1 else "properties"
        failures.append(f"missing {noun} {', '.join(missing)}")
    if schema.get("additionalProperties") is False:
        extra = [_quoted(name) for name in value if name not in schema.get("properties", {})]
        if extra:
            failures.append(f"additional properties {', '.join(extra)} not allowed")
    return failures


def _is_one_of(value: Any, options: Sequence[Any]) -> bool:
    # Python takes True for 1; JSON does not.
    return any(value == option and _kind(value) == _kind(option) for option in options)


def _is(wanted: str, value: Any) -> bool:
    kind = _kind(value)
    if wanted == "integer":
        return kind == "number" and value == value // 1
    return kind == wanted


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


def _got_want(keyword: str, got: float, want: float) -> str:
    return f"{keyword}: got {_number(got)}, want {_number(want)}"


def _number(value: float) -> str:
    # The library's printer groups thousands; whole floats carry no fraction in JSON.
    return f"{int(value) if value == value // 1 else value:,}"


def _quoted(value: Any) -> str:
    """Show a value as the library does: quotes around text alone."""
    return f"'{value}'" if isinstance(value, str) else json.dumps(value)
