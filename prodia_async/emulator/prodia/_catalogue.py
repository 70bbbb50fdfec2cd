"""
Every job type the emulator knows, read from ``job_types.toml``.

The file is the source of truth and says at its top how it is written; this
module turns its short forms into JSON Schemas. What the emulator makes up of a
type, because no page tells, stands there as `JobType.invented`.
"""

from __future__ import annotations

import tomllib
from importlib import resources
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ._kinds import JobType, config_schema, job_schema

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._kinds import Work
    from ._schema import Schema

_NOT_INHERITED = ("names", "aliases", "like", "without")


def read_catalogue(text: str) -> Mapping[str, JobType]:
    """
    Read the file.

    Args:
        text: Its content.

    Returns:
        All types by wire name, aliases included.

    Raises:
        ValueError: A field's short form that cannot be read, or ``like`` of a
            type that does not stand before it.
    """
    tables: dict[str, dict[str, Any]] = {}
    kinds: dict[str, JobType] = {}
    for entry in tomllib.loads(text)["type"]:
        table = _inherited(entry, tables)
        names = [_full(name) for name in entry["names"]]
        tables |= dict.fromkeys(names, table)
        also = [_full(name) for name in entry.get("aliases", ())]
        for name in (*names, *also):
            # An alias is the same type under another name.
            same = (names[0], *also) if name == names[0] or name in also else (name,)
            others = tuple(other for other in same if other != name)
            kinds[name] = _job_type(name, others, table)
    return MappingProxyType({name: _with_siblings(kind, kinds) for name, kind in kinds.items()})


def _full(name: str) -> str:
    return name if name.startswith("workflow.") else f"inference.{name}"


def _inherited(entry: Mapping[str, Any], tables: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Lay a table over the one that it is like."""
    like = entry.get("like")
    if like is not None and _full(like) not in tables:
        raise ValueError(f"{entry['names'][0]}: no type {like} stands before it")
    base = tables[_full(like)] if like is not None else {}
    table = {**base, **entry}
    for group in ("fields", "schema", "defaults"):
        kept = {**base.get(group, {}), **entry.get(group, {})}
        table[group] = {
            name: value for name, value in kept.items() if name not in entry.get("without", ())
        }
    return {name: value for name, value in table.items() if name not in _NOT_INHERITED}


def _job_type(name: str, aliases: tuple[str, ...], table: Mapping[str, Any]) -> JobType:
    dollars, by = table["dollars"], None
    if isinstance(dollars, dict):
        prices = {str(value): price for value, price in dollars.items() if value != "field"}
        dollars, by = min(prices.values()), (dollars["field"], MappingProxyType(prices))
    fewest, most = table.get("inputs", (0, 0))
    return JobType(
        name=name,
        aliases=aliases,
        work=table["makes"],
        config=_config(name, table),
        closed=table.get("closed", ""),
        computed=MappingProxyType(table.get("computed", {})),
        before=MappingProxyType(table.get("before", {})),
        inputs=(fewest, most),
        takes=tuple(table.get("takes", ("image",))),
        most_of=MappingProxyType(table.get("most_of", {})),
        formats=tuple(table.get("formats", ())),
        sides=tuple(table["sides"]) if "sides" in table else None,
        most_bytes=table.get("most_bytes"),
        max_pixels=table.get("most_pixels") or None,
        seeded=table.get("seeded", False),
        native=table.get("native", "image/jpeg"),
        permits_async=table.get("async", True),
        product=table.get("product") or _product(name),
        dollars=dollars,
        dollars_by=by,
        seconds=table.get("seconds"),
        page=table.get("page", ""),
        invented=table.get("invented", ""),
        family=table.get("siblings", ""),
    )


def _product(name: str) -> str:
    """Make a product code: of inference.veo.fast.txt2vid.v2 what stands before the operation."""
    words = name.split(".")
    return "-".join(words[:-2] if len(words) > 3 else words[:-1]) or name


def _config(name: str, table: Mapping[str, Any]) -> Schema:
    if table["makes"] == "serial":
        # Each member is checked against the schema of its own type.
        return {"type": "array", "items": {"type": "object", "required": ["type"]}, "minItems": 1}
    properties: dict[str, Schema] = {}
    required = []
    for field, text in table["fields"].items():
        try:
            properties[field], is_required = field_schema(text)
        except (ValueError, IndexError) as exc:
            raise ValueError(f"{name}: {field}: cannot read {text!r}: {exc}") from exc
        if is_required:
            required.append(field)
    properties |= table["schema"]
    for field in {**table.get("defaults", {}), **table.get("before", {})}:
        default = table.get("defaults", {}).get(field, table.get("before", {}).get(field))
        properties[field] = {**properties.get(field, {}), "default": default}
    return config_schema(properties, required, table.get("closed", ""), table.get("rules", {}))


def field_schema(text: str) -> tuple[Schema, bool]:
    """
    Turn the short form of a field into a schema.

    Args:
        text: ``[required] kind [fewest..most] [step N] [of a|b|c] [= default]``.

    Returns:
        The schema, and whether the field is required.

    Raises:
        ValueError: It is not of that form.
    """
    text, _, default = text.partition(" = ")
    words = iter(text.split())
    word = next(words)
    required = word == "required"
    kind = next(words) if required else word
    schema: dict[str, Any] = dict(_KINDS[kind]) if kind in _KINDS else {"type": kind}
    if schema["type"] not in _BOUNDS:
        raise ValueError(f"there is no kind {kind!r}")
    for word in words:
        if word == "step":
            schema["multipleOf"] = _value(kind, next(words))
        elif word == "of":
            schema["enum"] = [_value(kind, each) for each in next(words).split("|")]
        else:
            schema |= _bounds(schema["type"], word)
    if default:
        schema["default"] = _value(kind, default)
    return schema, required


_KINDS: Mapping[str, Schema] = {
    "strings": {"type": "array", "items": {"type": "string"}},
    "filename": {"type": "string", "format": "filename"},
    "filenames": {"type": "array", "items": {"type": "string", "format": "filename"}},
    "uuid": {"type": "string", "format": "uuid"},
}
_BOUNDS: Mapping[str, str] = {
    "string": "Length",
    "integer": "imum",
    "number": "imum",
    "boolean": "",
    "array": "Items",
}


def _bounds(kind: str, text: str) -> dict[str, Any]:
    fewest, dots, most = text.partition("..")
    if not dots or not _BOUNDS[kind]:
        raise ValueError(f"{text!r} is no range of a {kind}")
    bounds = {f"min{_BOUNDS[kind]}": fewest, f"max{_BOUNDS[kind]}": most}
    number = "number" if kind == "number" else "integer"
    return {name: _value(number, bound) for name, bound in bounds.items() if bound}


def _value(kind: str, text: str) -> Any:
    match kind:
        case "integer":
            return int(text)
        case "number":
            return float(text) if "." in text else int(text)
        case "boolean":
            return {"true": True, "false": False}[text]
        case _:
            return text


def _with_siblings(kind: JobType, kinds: Mapping[str, JobType]) -> JobType:
    """
    Check the types of some families in one ``oneOf``.

    Source: a client was told that the type of its Wan 2.7 job had to be another
    one and that a field was not allowed, when a text was one character too long.
    """
    if not kind.family:
        return kind
    others = [
        job_schema(other) for other in kinds.values() if other.family == kind.family != other.name
    ]
    # The first sibling's failures stand first, and are what people read.
    others.sort(key=lambda schema: not str(schema["properties"]["type"]).count("txt2img"))
    mine = job_schema(kind)
    return kind.with_siblings([other for other in others if other != mine])


def guessed(name: str) -> JobType:
    """
    Make up a job type that nobody knows from the operation in its name.

    Args:
        name: ``inference.<model>.<operation>.v<N>``, or any other text.

    Returns:
        One that takes any configuration and up to a hundred inputs of any kind.
        A name without a known operation makes pictures.
    """
    operation = name.rpartition(".")[0].rpartition(".")[2]
    work: Work = _WORKS.get(operation.rpartition("2")[2], "compose")
    return JobType(
        name=name,
        work=work,
        inputs=(0, 100),
        takes=("image", "video", "audio"),
        seeded=True,
        native={"film": "video/mp4", "vector": "image/svg+xml"}.get(work, "image/jpeg"),
        product=_product(name),
        dollars=0.0,
        invented="everything",
    )


_WORKS: Mapping[str, Work] = {"vid": "film", "vec": "vector"}
"""How an unknown type makes its output; any other operation makes pictures from what it gets."""


CATALOGUE: Mapping[str, JobType] = read_catalogue(
    resources.files(__package__).joinpath("job_types.toml").read_text(encoding="utf-8")
)
"""Every job type the emulator knows, by wire name."""
