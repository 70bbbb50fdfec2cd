"""
Jobs from files: JSON lines, CSV, Parquet, a prompt a line, standard input.

A file is read as it is needed, off the event loop, and never held whole. What
is wrong with a row is said with its line number, and ends nothing.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import string
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import anyio.to_thread

from .._catalogue import job_type as catalogued
from .._errors import InvalidRequestError
from .._models import Job, JobRequest
from .._show import shown
from ._values import BadRow, BatchError, BatchJob

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from .._formats import Format
    from .._models import InputLike

CHUNK = 128
"""Rows read at once. Chosen: the way to a thread and back is shared by as many."""

MOST_LINE_BYTES = 4 << 20
"""Longest line. Chosen: a prompt has some KB, and a file without line ends is no list of jobs."""

_BESIDE = frozenset({"id", "type", "config", "jobs", "input", "inputs", "accept", "sample"})


@dataclass(frozen=True, slots=True)
class ReadJob(BatchJob):
    """A job with the line that it was read from."""

    line: int = 0


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds for all rows of a file, where a row does not say otherwise."""

    job_type: str | None
    config: Mapping[str, Any]
    inputs: tuple[InputLike, ...]
    accept: Format | str | None
    base: Path
    columns: frozenset[str] = field(default=frozenset())

    def __post_init__(self) -> None:
        names: set[str] = set()
        for value in self.config.values():
            if isinstance(value, str):
                names |= set(_placeholders(value))
        object.__setattr__(self, "columns", frozenset(names))


class JobReader:
    """
    Jobs read from a file; what `read_jobs` returns.

    It can be iterated over, plainly or with ``async for``, any number of times
    (standard input and streams once); each item is a `BatchJob` or a `BadRow`.

    Attributes:
        total: Rows in the file, where that is known without reading it.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | IO[Any],
        defaults: Defaults,
        options: dict[str, Any],
        *,
        sniff: bool = False,
    ) -> None:
        self._sniff = sniff
        self._source = source
        self._defaults = defaults
        self.options = options
        """What `read_jobs` was given, in plain values, for the record."""
        self.total: int | None = None
        if isinstance(source, Path) and source.suffix.lower() == ".parquet":
            self.total = _parquet().ParquetFile(source).metadata.num_rows

    def __repr__(self) -> str:
        return f"<JobReader {self._source!r:.200}>"

    def __iter__(self) -> Iterator[ReadJob | BadRow]:
        for line, row in _rows(self._source, sniff=self._sniff):
            if isinstance(row, BadRow):
                yield row
                continue
            try:
                yield to_job(row, line, self._defaults)
            except InvalidRequestError as error:
                yield BadRow(line, error.message, _start(row))

    async def chunks(self) -> AsyncIterator[list[ReadJob | BadRow]]:
        """Yield lists of items, read off the event loop."""
        rows = iter(self)
        while some := await anyio.to_thread.run_sync(lambda: list(islice(rows, CHUNK))):
            yield some

    async def __aiter__(self) -> AsyncIterator[ReadJob | BadRow]:
        async for some in self.chunks():
            for each in some:
                yield each


def read_jobs(
    path_or_stream: str | os.PathLike[str] | IO[Any],
    *,
    job_type: str | None = None,
    config: Mapping[str, Any] | None = None,
    inputs: Sequence[InputLike] | None = None,
    accept: Format | str | None = None,
    sniff: bool = False,
) -> JobReader:
    """
    Read jobs from a file.

    A column (or a member of a JSON line) is a setting of the job's config:
    ``prompt``, ``seed``, or ``config.x``; but for ``type``, ``input`` (a file,
    relative to the one that is read), ``inputs`` (a JSON list of them),
    ``accept``, ``sample`` and ``id``. ``config``, ``inputs`` and ``accept``
    given here hold for every row that does not say otherwise; a string in
    ``config`` may name columns, which are filled in: ``"a {animal} at dusk"``.
    Lines of the OpenAI batch shape (``custom_id``, ``body``) are read as they are.

    Args:
        path_or_stream: A path ending in ``.jsonl``, ``.csv``, ``.tsv``,
            ``.parquet`` or ``.txt`` (a prompt a line); ``-`` for standard
            input; or an open file. Where no name tells, the first line does.
        job_type: The type of rows that have none.
        config: Settings for all rows.
        inputs: Input files for all rows.
        accept: The format for all rows.
        sniff: Whether the first line tells what a file is, rather than its name.

    Returns:
        What `Batch.run` and `Batch.plan` take.

    Raises:
        InvalidRequestError: The file is not there, or `config` is no mapping.
        BatchError: It is a Parquet file, and pyarrow is missing.
    """
    if config is not None and not isinstance(config, Mapping):
        raise InvalidRequestError(f"config must be a mapping, not {shown(config)}")
    source: Any = path_or_stream
    base = Path.cwd()
    if isinstance(source, str | os.PathLike) and os.fspath(source) != "-":
        source = Path(source)
        if not source.is_file():
            why = "it is a folder" if source.is_dir() else "there is no such file"
            raise InvalidRequestError(f"jobs cannot be read from {source!s}: {why}")
        base = source.absolute().parent
    elif not isinstance(source, str) and not hasattr(source, "read"):
        raise InvalidRequestError(f"jobs are read from a path or a stream, not {shown(source)}")
    defaults = Defaults(job_type, dict(config or {}), tuple(inputs or ()), accept, base)
    options = {
        "path": str(source.absolute()) if isinstance(source, Path) else "-",
        "job_type": job_type,
        "config": dict(config or {}),
        "inputs": [str(each) for each in inputs or () if isinstance(each, str | os.PathLike)],
        "accept": None if accept is None else str(accept),
    }
    return JobReader(source, defaults, options, sniff=sniff)


def to_job(row: Mapping[str, Any], line: int, defaults: Defaults) -> ReadJob:
    """
    Turn one row into a job.

    Raises:
        InvalidRequestError: It is none.
    """
    if isinstance(row.get("body"), Mapping) and "custom_id" in row:
        body = dict(row["body"])
        model = body.pop("model", None)
        row = {"id": row["custom_id"], **({"type": model} if model else {}), **body}
    own: dict[str, Any] = {}
    for name, value in row.items():
        if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
            continue
        own[name] = value
    job_type = own.get("type", defaults.job_type)
    if not isinstance(job_type, str) or not job_type.strip():
        raise InvalidRequestError("no type: the row has none, and none was given for all rows")
    config = _config(row, own, defaults)
    known = catalogued(job_type)
    wanted = {each.name for each in known.fields if each.required} if known else set()
    if ("prompt" in row or "prompt" in wanted) and not config.get("prompt"):
        raise InvalidRequestError("no prompt")
    job: Job | Mapping[str, Any] = Job(job_type, config or None)
    if "jobs" in own:
        job = {"type": job_type, "jobs": own["jobs"]}
    inputs = _inputs(own, defaults)
    sample = own.get("sample", 0)
    return ReadJob(
        JobRequest(job, inputs, own.get("accept", defaults.accept)),
        None if own.get("id") is None else str(own["id"]),
        int(sample) if isinstance(sample, str) and sample.isdigit() else sample,
        line=line,
    )


def _config(row: Mapping[str, Any], own: Mapping[str, Any], defaults: Defaults) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for name, value in defaults.config.items():
        is_template = isinstance(value, str) and defaults.columns
        config[name] = _filled(value, row) if is_template else value
    nested = own.get("config")
    if nested is not None and not isinstance(nested, Mapping):
        raise InvalidRequestError(f"config must be an object, not {shown(nested)}")
    config.update(nested or {})
    for name, value in own.items():
        if name in _BESIDE or name in defaults.columns:
            continue
        config[name.removeprefix("config.")] = value
    return config


def _placeholders(text: str) -> list[str]:
    try:
        return [name for _, name, _, _ in string.Formatter().parse(text) if name is not None]
    except ValueError:
        return []


def _filled(text: str, row: Mapping[str, Any]) -> str:
    for name in _placeholders(text):
        if row.get(name) in {None, ""}:
            raise InvalidRequestError(f"{{{name}}} is to be filled in, and the row has no {name}")
    try:
        filled = re.sub(r"\{\{|\}\}|\{([^{}]*)\}", lambda found: _piece(found, row), text)
    except KeyError as error:
        raise InvalidRequestError(f"the row has no {error}") from error
    return filled


def _piece(found: re.Match[str], row: Mapping[str, Any]) -> str:
    return found[0][0] if found[1] is None else str(row[found[1]])


def _inputs(own: Mapping[str, Any], defaults: Defaults) -> tuple[InputLike, ...]:
    listed = own.get("inputs", own.get("input"))
    if listed is None:
        return defaults.inputs
    if isinstance(listed, str) and listed.startswith("["):
        try:
            listed = json.loads(listed)
        except ValueError as error:
            raise InvalidRequestError(f"inputs must be a JSON list of files: {error}") from error
    if isinstance(listed, str):
        listed = [listed]
    if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
        raise InvalidRequestError(f"inputs must be a list of files, not {shown(listed)}")
    return tuple(defaults.base / each for each in listed)


def _start(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, default=str)[:200]


# Files to rows.


def _rows(source: Any, *, sniff: bool) -> Iterator[tuple[int, Mapping[str, Any] | BadRow]]:
    if isinstance(source, Path):
        if source.suffix.lower() == ".parquet":
            yield from _parquet_rows(source)
            return
        with source.open("rb") as file:
            yield from _text_rows(file, "" if sniff else source.suffix.lower())
        return
    stream = sys.stdin.buffer if isinstance(source, str) else source
    if isinstance(stream, io.TextIOBase):
        stream = getattr(stream, "buffer", None) or io.BytesIO(stream.read().encode())
    yield from _text_rows(stream, "")


def _text_rows(file: Any, suffix: str) -> Iterator[tuple[int, Mapping[str, Any] | BadRow]]:
    lines = _lines(file)
    kinds = {".jsonl": "json", ".ndjson": "json", ".json": "json", ".csv": ",", ".tsv": "\t",
             ".txt": "text"}  # fmt: skip
    kind = kinds.get(suffix)
    if kind is None:
        first = next(lines, None)
        if first is None:
            return
        kind = _kind_of(first[1] if isinstance(first[1], str) else "")
        lines = _chained(first, lines)
    if kind == "json":
        yield from _json_rows(lines)
    elif kind == "text":
        for number, line in lines:
            if isinstance(line, BadRow):
                yield number, line
            elif line.strip():
                yield number, {"prompt": line.strip()}
    else:
        yield from _csv_rows(lines, kind)


def _kind_of(line: str) -> str:
    if line.lstrip().startswith("{"):
        return "json"
    names = {each.strip().strip('"').lower() for each in re.split(r"[,\t]", line)}
    if names & {"prompt", "type", "config.prompt"}:
        return "\t" if "\t" in line else ","
    return "text"


def _chained(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


def _lines(file: Any) -> Iterator[tuple[int, str | BadRow]]:
    """Yield lines with their numbers; a byte order mark and line ends of any kind go."""
    number = 0
    while piece := file.readline(MOST_LINE_BYTES + 1):
        number += 1
        if len(piece) > MOST_LINE_BYTES and not piece.endswith(b"\n"):
            size = len(piece)
            while more := file.readline(MOST_LINE_BYTES):
                size += len(more)
                if more.endswith(b"\n"):
                    break
            start = piece[:80].decode("utf-8", "replace")
            yield number, BadRow(number, f"the line has {size:,} bytes", start)
            continue
        if number == 1:
            piece = piece.removeprefix(b"\xef\xbb\xbf")
        try:
            yield number, piece.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            start = piece[:80].decode("utf-8", "replace")
            yield number, BadRow(number, f"it is no UTF-8: {error.reason}", start)


def _json_rows(
    lines: Iterator[tuple[int, str | BadRow]],
) -> Iterator[tuple[int, Mapping[str, Any] | BadRow]]:
    for number, line in lines:
        if isinstance(line, BadRow):
            yield number, line
            continue
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, BadRow(number, f"it is no JSON: {error}", line[:200])
            continue
        if isinstance(row, Mapping):
            yield number, row
        else:
            why = f"a line must be a JSON object, not {type(row).__name__}"
            yield number, BadRow(number, why, line[:200])


def _csv_rows(
    lines: Iterator[tuple[int, str | BadRow]], delimiter: str
) -> Iterator[tuple[int, Mapping[str, Any] | BadRow]]:
    bad: list[BadRow] = []
    at = 0

    def good() -> Iterator[str]:
        nonlocal at
        for number, line in lines:
            at = number
            if isinstance(line, BadRow):
                bad.append(line)
            else:
                yield line + "\n"

    reader = csv.reader(good(), delimiter=delimiter, skipinitialspace=True)
    names: list[str] | None = None
    while True:
        began = at + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield began, BadRow(began, f"it is no CSV: {error}")
            continue
        while bad:
            each = bad.pop(0)
            yield each.line, each
        if cells is None:
            return
        if not any(cells):
            continue
        if names is None:
            names = [cell.strip() for cell in cells]
            continue
        if len(cells) > len(names) and any(cells[len(names) :]):
            why = f"it has {len(cells)} cells, and the header names {len(names)}"
            yield began, BadRow(began, why, delimiter.join(cells)[:200])
            continue
        yield (
            began,
            {name: _cell(name, cell) for name, cell in zip(names, cells, strict=False) if name},
        )


_TEXTS = frozenset(
    {"prompt", "negative_prompt", "id", "type", "accept", "input", "inputs", "image", "mask"}
)
_LITERAL = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?|true|false")


def _cell(name: str, cell: str) -> Any:
    """Read a cell: a number or a truth value where it is written as one, but for what is text."""
    text = cell.strip()
    if name.removeprefix("config.") in _TEXTS or not _LITERAL.fullmatch(text.lower()):
        return cell if name.removeprefix("config.") == "prompt" else text
    return json.loads(text.lower())


def _parquet_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any] | BadRow]]:
    parquet = _parquet()
    try:
        file = parquet.ParquetFile(path)
        number = 0
        for batch in file.iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except OSError as error:
        raise BatchError(f"{path} cannot be read as Parquet: {error}") from error


def _parquet() -> Any:
    try:
        import pyarrow.parquet  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise BatchError("Parquet needs pyarrow: pip install 'prodia-async[batch]'") from error
    return pyarrow.parquet
