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
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
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

_BESIDE = frozenset(
    {"id", "type", "config", "jobs", "input", "inputs", "accept", "sample", "_failed"}
)

_PLACE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}")
"""A brace written twice, or the name of a column."""


class Cells(dict[str, str]):
    """A row of text: each cell as it stands in the file."""


@dataclass(frozen=True, slots=True)
class ReadJob(BatchJob):
    """A job with the line that it was read from."""

    line: int = 0
    source: tuple[Mapping[str, Any], Defaults] | None = field(
        default=None, repr=False, compare=False
    )
    """The row, and what it was read with."""


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds for all rows of a file, where a row does not say otherwise."""

    job_type: str | None
    config: Mapping[str, Any]
    inputs: tuple[InputLike, ...]
    accept: Format | str | None
    base: Path
    columns: frozenset[str] = field(default=frozenset())

    def beside(self, given: Mapping[str, Any]) -> Defaults:
        """Return these for a row that failed before, with what was given then beside them."""
        config, inputs = given.get("config"), given.get("inputs")
        return Defaults(
            self.job_type or given.get("type"),
            {**(config if isinstance(config, Mapping) else {}), **self.config},
            self.inputs or tuple(inputs if isinstance(inputs, list) else ()),
            self.accept if self.accept is not None else given.get("accept"),
            self.base / str(given.get("folder", "")),
        )

    def given(self) -> dict[str, Any]:
        """Return what `beside` takes."""
        said = {
            "type": self.job_type,
            "config": dict(self.config),
            "inputs": [str(each) for each in self.inputs if isinstance(each, str | os.PathLike)],
            "accept": None if self.accept is None else str(self.accept),
            "folder": str(self.base),
        }
        return {name: value for name, value in said.items() if value}

    def __post_init__(self) -> None:
        texts = [value for value in self.config.values() if isinstance(value, str)]
        found = {match[1] for text in texts for match in _PLACE.finditer(text)}
        object.__setattr__(self, "columns", frozenset(found - {None}))


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
            with _parquet_file(source) as file:
                self.total = file.metadata.num_rows

    def __repr__(self) -> str:
        return f"<JobReader {self._source!r:.200}>"

    def __iter__(self) -> Iterator[ReadJob | BadRow]:
        for line, row in _rows(self._source, self._defaults.columns, sniff=self._sniff):
            if isinstance(row, BadRow):
                yield row
                continue
            failed = row.get("_failed")
            defaults = self._defaults
            if isinstance(failed, Mapping) and isinstance(failed.get("given"), Mapping):
                defaults = defaults.beside(failed["given"])
            try:
                yield to_job(row, line, defaults)
            except InvalidRequestError as error:
                yield BadRow(line, error.message, _start(row), written(row, defaults))

    async def chunks(self) -> AsyncIterator[list[ReadJob | BadRow]]:
        """Yield lists of items, read off the event loop."""
        rows = iter(self)
        error: Exception | None = None
        most = CHUNK if self._is_whole() else 1  # a pipe may keep us waiting for each
        while error is None:
            some, error = await anyio.to_thread.run_sync(_some, rows, most, abandon_on_cancel=True)
            if some:
                yield some
            elif error is None:
                return
        raise error

    def _is_whole(self) -> bool:
        """Return whether all rows are there already, so that none is waited for."""
        if isinstance(self._source, Path):
            return self._source.is_file()
        stream: Any = sys.stdin if isinstance(self._source, str) else self._source
        try:
            return bool(stream.seekable())
        except (AttributeError, OSError, ValueError):
            return False

    async def __aiter__(self) -> AsyncIterator[ReadJob | BadRow]:
        async for some in self.chunks():
            for each in some:
                yield each


def _some(
    rows: Iterator[ReadJob | BadRow], most: int
) -> tuple[list[ReadJob | BadRow], Exception | None]:
    """Return the next rows, and what the file raised behind them."""
    some: list[ReadJob | BadRow] = []
    try:
        some.extend(islice(rows, most))  # which keeps those before an error
    except Exception as error:  # noqa: BLE001  (raised where the rows before it have been used)
        return some, error
    return some, None


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
    What is filled in is the text of the cell as it stands in the file; as a
    setting, a cell of a CSV file is a number or a truth value where it is
    written as one.
    Lines of the OpenAI batch shape (``custom_id``, ``body``) are read as they are.

    Args:
        path_or_stream: A path ending in ``.jsonl``, ``.csv``, ``.tsv``,
            ``.parquet`` or ``.txt`` (a prompt a line); ``-`` for standard
            input; a pipe (which can be read once); or an open file. Where no
            name tells, the first line does.
        job_type: The type of rows that have none.
        config: Settings for all rows.
        inputs: Input files for all rows.
        accept: The format for all rows.
        sniff: Whether the first line tells what a file is, rather than its name.

    Returns:
        What `Batch.run` and `Batch.plan` take.

    Raises:
        InvalidRequestError: The file is not there, or `config` is no mapping.
            Also when the rows are read, where the file as a whole is no list
            of jobs: it is no text, or no Parquet, or its header cannot be used.
        BatchError: It is a Parquet file, and pyarrow is missing.
    """
    if config is not None and not isinstance(config, Mapping):
        raise InvalidRequestError(f"config must be a mapping, not {shown(config)}")
    source: Any = path_or_stream
    base = Path.cwd()
    if isinstance(source, str | os.PathLike) and os.fspath(source) != "-":
        source = Path(source)
        if not source.exists() or source.is_dir():
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
    failed = row.get("_failed")
    if len(row) == 1 and isinstance(failed, Mapping):
        why = f"it could not be read, and has not been mended: {failed.get('error')}"
        raise InvalidRequestError(why)
    source = (row, defaults)
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
        int(sample) if isinstance(sample, str) and re.fullmatch("[0-9]{1,18}", sample) else sample,
        line=line,
        source=source,
    )


def said_by(item: Any) -> Mapping[str, Any] | None:
    """Return an item of an input that is no job as a line of a file; ``None`` if it is none."""
    if isinstance(item, ReadJob) and item.source is not None:
        return written(*item.source)
    beside: dict[str, Any] = {}
    if isinstance(item, BatchJob):
        beside = {name: value for name in ("id", "sample") if (value := getattr(item, name))}
        item = item.request
    if isinstance(item, JobRequest):
        if not all(isinstance(each, str | os.PathLike) for each in item.inputs):
            return None
        if item.inputs:
            beside["inputs"] = [str(Path(each).absolute()) for each in item.inputs]  # type: ignore[arg-type]  # as they all are
        if item.accept is not None:
            beside["accept"] = str(item.accept)
        item = item.job
    if isinstance(item, Job):
        item = {"type": item.type, "config": item.config}
    return {**item, **beside} if isinstance(item, Mapping) else None


def mended_by(item: Any) -> bytes | None:
    """Return the key of the row that was no job, and that an item was written as; else ``None``."""
    row = item.row if isinstance(item, BadRow) else None
    if isinstance(item, ReadJob) and item.source is not None:
        row = item.source[0]
    failed = (row or {}).get("_failed")
    key = failed.get("key") if isinstance(failed, Mapping) else None
    return (
        bytes.fromhex(key) if isinstance(key, str) and re.fullmatch("[0-9a-f]{32}", key) else None
    )


def written(row: Mapping[str, Any], defaults: Defaults) -> dict[str, Any]:
    """
    Write a row as a line of JSON that is read as it was, whatever else is given then.

    What it is read with stands under ``_failed``, beside what an earlier reading said of it.
    """
    line = {
        name: value
        if name in defaults.columns or not isinstance(row, Cells)
        else _setting(name, value)
        for name, value in row.items()
    }
    failed = row.get("_failed")
    before = failed if isinstance(failed, Mapping) else {}
    return {**line, "_failed": {**before, "given": defaults.given()}}


def _config(row: Mapping[str, Any], own: Mapping[str, Any], defaults: Defaults) -> dict[str, Any]:
    nested = own.get("config")
    if nested is not None and not isinstance(nested, Mapping):
        raise InvalidRequestError(f"config must be an object, not {shown(nested)}")
    config: dict[str, Any] = {}
    for name, value in defaults.config.items():
        if name in (nested or {}):
            continue  # the row says otherwise, and may lack the columns
        is_template = isinstance(value, str) and defaults.columns
        config[name] = _PLACE.sub(partial(_piece, own), value) if is_template else value
    config.update(nested or {})
    for name, value in own.items():
        if name in _BESIDE or name in defaults.columns:
            continue
        config[name.removeprefix("config.")] = (
            _setting(name, value) if isinstance(row, Cells) else value
        )
    return config


def _piece(own: Mapping[str, Any], found: re.Match[str]) -> str:
    name = found[1]
    if name is None:
        return found[0][0]
    value = own.get(name)
    if value is None or isinstance(value, Mapping | list):
        kind = f"no {name}" if value is None else f"{shown(value)}, which is no string or number"
        raise InvalidRequestError(f"{{{name}}} is to be filled in, and the row has {kind}")
    return json.dumps(value) if isinstance(value, bool) else str(value)


def _inputs(own: Mapping[str, Any], defaults: Defaults) -> tuple[InputLike, ...]:
    listed = own.get("inputs", own.get("input"))
    if listed is None:
        return defaults.inputs
    if isinstance(listed, str) and listed.startswith("["):
        try:
            listed = json.loads(listed)
        except (ValueError, RecursionError) as error:
            raise InvalidRequestError(f"inputs must be a JSON list of files: {error}") from error
    if isinstance(listed, str):
        listed = [listed]
    if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
        raise InvalidRequestError(f"inputs must be a list of files, not {shown(listed)}")
    return tuple(defaults.base / each for each in listed)


def _start(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, default=str)[:200]


# Files to rows.


def _rows(
    source: Any, columns: frozenset[str], *, sniff: bool
) -> Iterator[tuple[int, Mapping[str, Any] | BadRow]]:
    if isinstance(source, Path):
        if source.suffix.lower() == ".parquet":
            yield from _parquet_rows(source)
            return
        with _readable(source), source.open("rb") as file:
            yield from _text_rows(file, "" if sniff else source.suffix.lower(), columns)
        return
    stream = sys.stdin.buffer if isinstance(source, str) else source
    if isinstance(stream, io.TextIOBase):
        stream = getattr(stream, "buffer", None) or io.BytesIO(stream.read().encode())
    yield from _text_rows(stream, "", columns)


def _text_rows(
    file: Any, suffix: str, columns: frozenset[str]
) -> Iterator[tuple[int, Mapping[str, Any] | BadRow]]:
    begin = file.peek(1) if hasattr(file, "peek") else b""
    lines = _lines(file)
    first = next(lines, None)
    if first is None:
        return
    number, line = first
    kinds = {".jsonl": "json", ".ndjson": "json", ".json": "json", ".csv": ",", ".tsv": "\t",
             ".txt": "text"}  # fmt: skip
    kind = kinds.get(suffix) or _kind_of(line if isinstance(line, str) else "", columns)
    if kind != "json" and (isinstance(line, BadRow) or b"\0" in begin):
        # Some pieces of it may be text by chance, and would be paid for.
        why = line.why if isinstance(line, BadRow) else "its first bytes have a NUL among them"
        raise InvalidRequestError(
            f"jobs are read from JSON lines, CSV, or a prompt a line, in UTF-8, and this is none "
            f"of them (line {number}: {why}); is it compressed, or in another encoding?"
        )
    lines = chain([first], lines)
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


def _kind_of(line: str, columns: frozenset[str]) -> str:
    if re.match(
        r"\s*(\{|\[\s*(\{|$))", line
    ):  # of an array each line is told, and none is paid for
        return "json"
    names = {each.strip().strip('"').lower() for each in re.split(r"[,;\t]", line)}
    # A header of other columns is one of words alone: a prompt may well say "seed, type".
    is_header = all(re.fullmatch(r"[\w.]+", name) for name in names) and (
        names & (_BESIDE | {"seed", *(each.lower() for each in columns)})
    )
    if is_header or names & {"prompt", "type", "config.prompt"}:
        return "\t" if "\t" in line else ","
    return "text"


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
            line = piece.decode("utf-8").rstrip("\r\n")
            has_nul = "\0" in line
            yield (
                number,
                BadRow(number, "it has a NUL, as no text has", line[:80]) if has_nul else line,
            )
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
    began = at = quotes = 0

    def good() -> Iterator[str]:
        nonlocal began, at, quotes
        for number, line in lines:
            if isinstance(line, BadRow):
                bad.append(line)
            else:
                began, at = began or number, number
                quotes += line.count('"')
                yield line + "\n"

    reader = csv.reader(good(), delimiter=delimiter, skipinitialspace=True, strict=True)
    names: list[str] = []
    broken = 0
    while True:
        began, quotes, why = 0, 0, ""
        try:
            cells = next(reader, None)
        except csv.Error as error:
            cells, why = [], f"it is no CSV: {error} (lines {began} to {at}; is a quote open?)"
        if quotes % 2 and not why:
            why = 'a quote is missing: a cell that has one is written as "6"" nails"'
        if not names and (bad or why):
            line, said = (bad[0].line, bad[0].why) if bad else (began, why)
            raise InvalidRequestError(f"line {line}: the header cannot be read: {said}")
        for each in bad:
            broken = each.line
            yield broken, each
        bad.clear()
        if cells is None:
            return
        if why:
            broken = at
        elif not any(cells):
            continue
        elif not names:
            names = _header(cells, delimiter, began)
            continue
        elif len(cells) > len(names) and any(cells[len(names) :]):
            why = f"it has {len(cells)} cells, and the header names {len(names)}"
        elif broken > began or (broken and (len(cells) != len(names) or '"' in "".join(cells))):
            # What cannot be read may have opened a quote, or closed one.
            why = f"line {broken} cannot be read, and this may be a part of the same row"
        if why:
            yield began, BadRow(began, why, delimiter.join(cells)[:200])
            continue
        broken = 0
        row = zip(names, cells, strict=False)
        yield began, Cells((name, _text(name, cell)) for name, cell in row if name)


def _header(cells: list[str], delimiter: str, line: int) -> list[str]:
    names = [cell.strip() for cell in cells]
    other = next((each for each in ";\t," if each in names[0]), None)
    if len(names) == 1 and other:
        raise InvalidRequestError(
            f"line {line}: columns must be separated by {delimiter!r}, not by {other!r}: "
            f"{shown(names[0])}"
        )
    _check_once(f"line {line}: the header", names)
    return names


def _check_once(what: str, names: list[str]) -> None:
    twice = [name for name, times in Counter(names).items() if name and times > 1]
    if twice:
        raise InvalidRequestError(f"{what} must name each column once, and has two of {twice[0]!r}")


_TEXTS = frozenset(
    {"prompt", "negative_prompt", "id", "type", "accept", "input", "inputs", "image", "mask"}
)
_LITERAL = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?|true|false")


def _text(name: str, cell: str) -> str:
    return cell if name.removeprefix("config.") == "prompt" else cell.strip()


def _setting(name: str, text: str) -> Any:
    """Read a cell: a number or a truth value where it is written as one, but for what is text."""
    is_text = name.removeprefix("config.") in _TEXTS or len(text) > 100
    return text if is_text or not _LITERAL.fullmatch(text.lower()) else json.loads(text.lower())


def _parquet_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    number = 0
    with _parquet_file(path) as file:
        for batch in file.iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                number += 1
                yield number, _without_nulls(row)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """
    Say in our words that a file cannot be read on.

    Raises:
        InvalidRequestError: In the block: the disk says so.
    """
    try:
        yield
    except OSError as error:
        raise InvalidRequestError(f"{path} cannot be read: {error.strerror or error}") from error


def _without_nulls(value: Any) -> Any:
    """Leave out what a row has not got: a column of objects has all their members in every row."""
    if isinstance(value, list):
        return [_without_nulls(each) for each in value]
    if isinstance(value, dict):
        return {name: _without_nulls(each) for name, each in value.items() if each is not None}
    return value


@contextmanager
def _parquet_file(path: Path) -> Iterator[Any]:
    try:
        import pyarrow as pa  # noqa: PLC0415  (an extra)
        from pyarrow import parquet  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise BatchError("Parquet needs pyarrow: pip install 'prodia-async[batch]'") from error
    try:
        with parquet.ParquetFile(path) as file:
            _check_once("it", file.schema_arrow.names)
            yield file
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InvalidRequestError(f"{path} cannot be read as Parquet: {error}") from error
