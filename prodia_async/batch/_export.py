"""Manifests, and what failed as an input file of its own."""

from __future__ import annotations

import csv
import json
import logging
from typing import TYPE_CHECKING, Any

from .._errors import InvalidRequestError
from .._hooks import log
from ._folder import written_whole
from ._trade import IN_MEMORY
from ._values import BatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from ._snapshot import Snapshot
    from ._values import Row

COLUMNS = (
    "row", "id", "key", "state", "path", "shard", "offset", "bytes", "sha256", "job_id", "seed",
    "seconds", "attempts", "refusals", "paid_again", "dollars", "error", "type", "prompt",
)  # fmt: skip


def export(record: Snapshot, path: Path, failures: bool | None) -> int:
    """Write a manifest, whole or not at all."""
    writers: dict[str, Callable[[Path, Iterator[dict[str, Any]]], int]] = {
        ".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet,
    }  # fmt: skip
    write = writers.get(path.suffix.lower())
    if write is None:
        raise InvalidRequestError(
            f"a manifest ends in {', '.join(writers)}, not {path.suffix or path.name!r}"
        )
    if failures is None:
        failures = path.stem == "failures"
    if failures and write is not _jsonl:
        raise InvalidRequestError("failures are written as JSON lines, to a file in .jsonl")
    lines = _failures(record) if failures else (manifest_line(row) for row in record.rows())
    with written_whole(path) as temporary:
        return write(temporary, lines)


def manifest_line(row: Row) -> dict[str, Any]:
    """Return a row as a line of a manifest."""
    request: Mapping[str, Any] = row.request or {}
    config = request.get("config")
    line = {name: getattr(row, name, None) for name in COLUMNS}
    line["type"] = _text(request.get("type"))
    config = config if isinstance(config, dict) else {}
    line["prompt"] = _text(config.get("prompt", request.get("prompt")))
    return line


def _text(value: object) -> str | None:
    """Write what a row has, also one that is no job, so that each format can carry it."""
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.encode(errors="backslashreplace").decode()


def _failures(record: Snapshot) -> Iterator[dict[str, Any]]:
    only_in_memory = 0
    for rows in (record.failures(), record.in_doubt()):
        for row in rows:
            if row.request is None:
                continue
            if IN_MEMORY in row.request:
                only_in_memory += 1
            else:
                failed = {"row": row.row, "state": row.state, "error": row.error}
                name = {"id": row.id} if row.id else {}
                told = {**failed, **row.request.get("_failed", {})}
                yield {**row.request, **name, "_failed": told}
    if only_in_memory:
        log(
            logging.WARNING,
            "rows left out of the failures, since only memory had their inputs: %d",
            only_in_memory,
        )


def _jsonl(path: Path, lines: Iterator[dict[str, Any]]) -> int:
    count = 0
    # Paths may hold bytes that are no UTF-8, written as Python reads them: "\udcfc".
    with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
        for line in lines:
            count += 1
            said = {name: value for name, value in line.items() if value is not None}
            file.write(json.dumps(said, ensure_ascii=False) + "\n")
    return count


def _csv(path: Path, lines: Iterator[dict[str, Any]]) -> int:
    count = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for line in lines:
            count += 1
            writer.writerow(line)
    return count


def _parquet(path: Path, lines: Iterator[dict[str, Any]]) -> int:
    try:
        import pyarrow as pa  # noqa: PLC0415  (an extra)
        from pyarrow import parquet  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise BatchError("Parquet needs pyarrow: pip install 'prodia-async[batch]'") from error
    kinds = {"offset": pa.int64(), "bytes": pa.int64(), "seed": pa.int64(), "row": pa.int64(),
             "seconds": pa.float64(), "dollars": pa.float64(), "attempts": pa.int32(),
             "refusals": pa.int32(), "paid_again": pa.int32()}  # fmt: skip
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in COLUMNS])
    count = 0
    with parquet.ParquetWriter(path, schema) as writer:
        some: list[dict[str, Any]] = []
        for line in lines:
            some.append(line)
            count += 1
            if len(some) == 10_000:
                writer.write_table(pa.Table.from_pylist(some, schema))
                some = []
        if some:
            writer.write_table(pa.Table.from_pylist(some, schema))
    return count
