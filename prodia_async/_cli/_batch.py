"""``batch``, ``report``, ``export``, ``verify``: many jobs, and what became of them."""

from __future__ import annotations

import os
import re
import shlex
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import anyio
import anyio.to_thread
import typer

from .._client import AsyncProdia
from .._errors import InvalidRequestError
from ..fireworks import AsyncFireworks
from ._app import app, counted, hush, in_our_words, named, note, say_error, wrong
from ._config import media_of, read_config, tell_slips
from ._names import full_type

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..batch import Batch, BatchRecord, BatchSummary
    from ..batch._rows import JobReader

_BROKEN = 3
_OF_THE_FOLDER = frozenset({"layout", "outputs", "api"})
"""What a folder is made with once and for all."""
_LOOKED_AT = 10_000
"""How many failures are looked at for what they have in common. Chosen: a moment."""
_DOUBTS = 20
"""How many jobs in doubt are named. Chosen: a screen, and they are all in the record."""
_CAUSES = 3
"""How many of these are told. Chosen: the page of `report` has them all."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """
    What the command was given, beyond its jobs.

    Attributes:
        client: Arguments of the client, whichever `api` it is for.
        batch: Arguments of the `Batch`, but for the price.
    """

    api: str
    client: dict[str, Any]
    batch: dict[str, Any]
    price: float | None
    dry_run: bool


@app.command("batch")
def _batch(
    jobs: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE",
            help="Jobs: .jsonl, .csv, .tsv, .parquet, .txt (a prompt a line), or - for standard "
            "input. Left out, the folder's own are gone on with.",
        ),
    ] = None,
    *,
    out: Annotated[
        str,
        typer.Option(
            "--out",
            "-o",
            metavar="FOLDER",
            callback=named("-o"),
            help="New, or one to go on with.",
        ),
    ],
    job_type: Annotated[
        str | None,
        typer.Option(
            "--type",
            "-t",
            metavar="TYPE",
            help="The type of rows that have none: whole, or a part that tells, as `job` takes it.",
        ),
    ] = None,
    config: Annotated[
        list[str] | None,
        typer.Option(
            "--config",
            "-c",
            metavar="KEY=VALUE",
            help="A setting of every job; {column} in it is filled in. May be given again.",
        ),
    ] = None,
    inputs: Annotated[
        list[Path] | None,
        typer.Option("--input", "-i", metavar="FILE", help="A file that every job works on."),
    ] = None,
    accept: Annotated[
        str | None,
        typer.Option(
            metavar="FORMAT",
            help="The format of rows that ask for none: png, jpeg, webp, 'jpeg;quality=95', or a "
            "media type.",
        ),
    ] = None,
    submit: Annotated[
        Literal["sync", "async", "auto"] | None,
        typer.Option(help="Wait for each job (sync), or leave it with the server (async)."),
    ] = None,
    on_doubt: Annotated[
        Literal["retry", "hold"] | None,
        typer.Option(help="Send again what may have been paid (retry), or leave it (hold)."),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Also run what failed before.")
    ] = False,
    max_cost: Annotated[
        float | None, typer.Option(metavar="DOLLARS", help="Stop before the folder costs more.")
    ] = None,
    price: Annotated[
        float | None,
        typer.Option(
            "--price-per-job", metavar="DOLLARS", help="What a job costs, where nobody knows."
        ),
    ] = None,
    max_concurrency: Annotated[
        int, typer.Option(metavar="N", help="The most jobs in flight at once.")
    ] = 64,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout-seconds",
            metavar="S",
            help="Give a job up when nothing comes for so long; must exceed the longest one.",
        ),
    ] = 600.0,
    layout: Annotated[
        Literal["files", "tar"] | None,
        typer.Option(help="A file for each output, or WebDataset shards."),
    ] = None,
    outputs: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Where outputs go instead, as s3://bucket/run."),
    ] = None,
    also: Annotated[
        bool, typer.Option("--also", help="Take jobs of other settings into the same folder.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what it would do and cost."),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    api: Annotated[
        Literal["prodia", "fireworks"] | None,
        typer.Option(help="Which service; the folder's own, else prodia."),
    ] = None,
    base_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="By default PRODIA_BASE_URL or FIREWORKS_API_BASE from the environment, else the "
            "live API.",
        ),
    ] = None,
) -> int:
    """
    Run many jobs into a folder; what the folder has is not run again.

    Exit status: 0 all done, 1 some failed, 2 stopped with work left, 3 the
    folder cannot be written any more. Ctrl-C once ends in good order, twice at
    once; run it again to go on.
    """
    from ..batch import BatchError  # noqa: PLC0415  (only this needs it)

    folder = Path(out)
    try:
        before = _before(folder)
    except BatchError as error:
        return say_error(str(error), status=_BROKEN)
    made_with = before.get("made with") or {}
    options = before.get("options") or {}
    wanted = _Wanted(
        api=str(api or made_with.get("api", "prodia")),
        client={"base_url": base_url, "max_concurrency": max_concurrency, "timeout": timeout},
        batch={
            "layout": layout or made_with.get("layout", "files"),
            "outputs": outputs or made_with.get("outputs"),
            "submit": submit or options.get("submit", "auto"),
            "on_doubt": on_doubt or options.get("on_doubt", "retry"),
            "retry_failed": retry_failed,
            "max_cost": max_cost if max_cost is not None else options.get("max_cost"),
            "also": also,
            "progress": False if quiet else None,
        },
        price=price if price is not None else options.get("price"),
        dry_run=dry_run,
    )
    is_known_here = job_type is not None and wanted.api == "prodia"
    name = full_type(job_type or "", has_inputs=bool(inputs)) if is_known_here else job_type
    given = {
        "job_type": name,
        "config": read_config(config or [], name),
        "inputs": [str(each.absolute()) for each in inputs or ()],
        "accept": media_of(accept, None, ()),
    }
    if is_known_here:
        tell_slips(name, given["config"])
    if name is None and jobs is not None and jobs.endswith(".txt"):
        wrong("--type", f"is missing: a line of {jobs} is a prompt, and says no type")
    try:
        reader = _reader(jobs, folder, before, given, is_dry=dry_run)
        return anyio.run(partial(_run, folder, reader, wanted))
    except BatchError as error:
        return say_error(str(error), status=_BROKEN)


def _before(folder: Path) -> dict[str, Any]:
    """Return what a folder was made with; empty for a new one."""
    from ..batch import BatchRecord  # noqa: PLC0415  (only this needs it)

    if not (folder / "run.sqlite").exists():
        return {}
    record = BatchRecord(folder)
    return {name: record.setting(name) for name in ("made with", "options", "input")}


def _reader(
    jobs: str | None, out: Path, before: dict[str, Any], given: dict[str, Any], *, is_dry: bool
) -> JobReader:
    from ..batch import read_jobs  # noqa: PLC0415  (only this needs it)

    known = before.get("input") or {}
    base = None
    if jobs is None:
        if not known:
            wrong("batch", f"needs a file of jobs: {out} has none to go on with")
        path, base = Path(known["path"]), known.get("base")
        moved = out / path.name
        if not path.exists() and _is_kept(moved, out) and moved.exists():
            path = moved
        jobs = str(path)
        given["config"] = {**(known.get("config") or {}), **(given["config"] or {})}
        for name, value in given.items():
            given[name] = value or known.get(name)
    elif jobs == "-" and not is_dry:
        jobs, base = str(_keep_input(out)), str(Path.cwd())
    reader = read_jobs(jobs, sniff=_is_kept(Path(jobs), out), **given)
    if base is not None:
        # Files that rows name are looked for where it was given, not where it is kept.
        reader.options["base"] = base
        reader._defaults = replace(reader._defaults, base=Path(base))  # noqa: SLF001  (our own)
    return reader


def _keep_input(folder: Path) -> Path:
    """
    Keep standard input in a run's folder: it comes once, and the run may have to go on without it.

    It is named by its content, so what a run that goes on there has got, or one
    that is refused now has left to go on with, stays as it is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".input-{os.getpid()}.part"
    digest = blake2b(digest_size=8)
    try:
        with temporary.open("wb") as file:
            while piece := sys.stdin.buffer.read(1 << 20):
                digest.update(piece)
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        return temporary.replace(folder / f"input-{digest.hexdigest()}.txt")
    finally:
        temporary.unlink(missing_ok=True)


def _is_kept(path: Path, folder: Path) -> bool:
    """Return whether a file is what standard input once was: its first line tells what it is."""
    is_in = path.parent.absolute() == folder.absolute()
    return is_in and re.fullmatch(r"input(-[0-9a-f]{16})?\.txt", path.name) is not None


async def _run(out: Path, reader: JobReader, wanted: _Wanted) -> int:
    from ..batch import Batch, BatchChangedError, PriceUnknownError  # noqa: PLC0415  (only this needs it)

    client: AsyncProdia | AsyncFireworks
    # A plan sends nothing, so it needs no account.
    token = "none-is-needed" if wanted.dry_run else None
    if wanted.api == "fireworks":
        client = AsyncFireworks(token, **wanted.client)
    else:
        client = AsyncProdia(token, price=True, **wanted.client)
    batch = partial(Batch, out, client, **wanted.batch)
    async with client:
        if wanted.dry_run:
            typer.echo(str(await batch(price=wanted.price).plan(reader)))
            return 0
        try:
            return await _work(out, batch(price=wanted.price), reader, wanted, wanted.price)
        except PriceUnknownError as error:
            if not sys.stdin.isatty():
                raise
            typer.echo(str(error), err=True)
            price = await anyio.to_thread.run_sync(
                lambda: typer.prompt("Dollars a job", type=float, err=True)
            )
            return await _work(out, batch(price=price), reader, wanted, price)
        except BatchChangedError as error:
            if {each.partition(" ")[0] for each in error.differences} <= _OF_THE_FOLDER:
                raise  # which says so itself: nothing can be added to it
            for each in error.differences:
                typer.echo(f"different: {each}", err=True)
            raise InvalidRequestError(
                f"these are other jobs than those {out} was made for; nothing was sent. Give "
                "--also to have them in the same folder, or a new one with -o"
            ) from error


def _again(out: Path, wanted: _Wanted) -> str:
    """Return the command that goes on; the folder remembers what it was made with."""
    url = wanted.client["base_url"]
    base_url = f" --base-url {shlex.quote(url)}" if url else ""
    return f"prodia-async batch -o {shlex.quote(str(out))}{base_url}"


async def _work(
    out: Path, batch: Batch, reader: JobReader, wanted: _Wanted, price: float | None
) -> int:
    async with batch:
        kept = {name: wanted.batch[name] for name in ("submit", "on_doubt", "max_cost")}
        batch.remember("options", kept | {"price": price})
        try:
            summary = await batch.run(reader)
        except InvalidRequestError as error:
            for each in getattr(error, "__notes__", ()):
                note(each)
            raise
        doubts = batch.in_doubt()
        failures = await anyio.to_thread.run_sync(_causes, batch.record) if summary.failed else []
    _say(summary, doubts, failures)
    if summary.left and not summary.broken:
        note(f"{counted(summary.left, 'job')} left; `{_again(out, wanted)}` goes on with it")
    return summary.exit_code


def _causes(record: BatchRecord) -> list[str]:
    """Return why rows failed, but for those that are no jobs, which the notes name."""
    from ..batch._figures import causes  # noqa: PLC0415  (only this needs it)

    failed = ((row.row, 0, row.error) for row in islice(record.failures(), _LOOKED_AT))
    sent = [each for each in failed if not (each[2] or "").startswith("Invalid:")]
    return [
        f"{cause.count:,} failed: {in_our_words(cause.example).rstrip('.')}. {cause.advice}"
        for cause in causes(sent)[0][:_CAUSES]
    ]


def _say(summary: BatchSummary, doubts: list[str], failures: list[str]) -> None:
    """Say what became of a run; where nobody listens, its status still does."""
    lines = [*summary.notes, *failures, *(f"in doubt: {line}" for line in doubts[:_DOUBTS])]
    if len(doubts) > _DOUBTS:
        more = f"and {len(doubts) - _DOUBTS:,} more in doubt"
        lines.append(f"{more}; `prodia-async export FOLDER failures.jsonl` has them all")
    with suppress(BrokenPipeError):
        for line in lines:
            typer.echo(line, err=True)
    if summary.broken:
        say_error(summary.broken, status=_BROKEN)
    try:
        typer.echo(in_our_words(str(summary)))
    except BrokenPipeError:
        hush()


FolderArgument = Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder of a batch.")]


def _with_record(folder: Path, work: Callable[[BatchRecord], int]) -> int:
    from ..batch import BatchError, BatchRecord  # noqa: PLC0415  (only this needs it)

    try:
        return work(BatchRecord(folder))
    except BatchError as error:
        return say_error(str(error), status=_BROKEN)


@app.command("report")
def _report(
    folder: FolderArgument,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            callback=named("-o"),
            help="By default report.html in the folder.",
        ),
    ] = None,
    sheet: Annotated[
        bool, typer.Option("--sheet", help="Also write contact-sheet.jpg, for a chat or a mail.")
    ] = False,
) -> int:
    """Write a page about a batch: finished, crashed, or while it runs."""
    from ..batch._report import write_report  # noqa: PLC0415  (only this needs it)
    from ..batch._sheet import write_sheet  # noqa: PLC0415  (only this needs it)

    def work(record: BatchRecord) -> int:
        # Page, line and sheet are of one moment, though the run may go on.
        with record.snapshot() as snapshot:
            path = write_report(snapshot, Path(out) if out else folder / "report.html")
            typer.echo(str(snapshot.summary()))
            typer.echo(path.absolute().as_uri())
            if sheet:
                typer.echo(str(write_sheet(snapshot, folder / "contact-sheet.jpg")))
        return 0

    return _with_record(folder, work)


@app.command("export")
def _export(
    folder: FolderArgument,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A manifest in .jsonl, .csv or .parquet; failures.jsonl is what failed, to be "
            "run again.",
        ),
    ],
    failures: Annotated[
        bool | None,
        typer.Option("--failures/--all", help="By default by the file's name."),
    ] = None,
) -> int:
    """Write what became of every row, in the order of the input."""

    def work(record: BatchRecord) -> int:
        count = record.export(file, failures=failures)
        typer.echo(f"{counted(count, 'row')} in {file}")
        return 0

    return _with_record(folder, work)


@app.command("verify")
def _verify(
    folder: FolderArgument,
    hashes: Annotated[
        bool, typer.Option("--hashes", help="Compare the bytes, not the sizes alone.")
    ] = False,
) -> int:
    """Look whether every output is there; what is not is made again by the next run."""

    def work(record: BatchRecord) -> int:
        found = record.verify(hashes=hashes)
        typer.echo(str(found))
        return 0 if found.is_whole else 1

    return _with_record(folder, work)
