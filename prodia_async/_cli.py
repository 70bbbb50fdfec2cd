"""
The command line: arguments in, exit status out.

Whatever goes wrong and can be named is one line on standard error, so that
scripts can pass it on: status 2 when it was asked wrongly (nothing was sent
then), 130 when interrupted, 1 otherwise. A traceback would be a bug of ours.

Results meant for another program go to standard output, what is meant for
people beside them to standard error.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shlex
import signal
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import anyio
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ._client import AsyncProdia
from ._errors import InvalidRequestError, ProdiaError
from ._models import Job
from ._version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from ._catalogue_data import Field, Inputs, JobType
    from ._demo import DemoReport
    from ._models import JobResponse
    from ._outputs import Output
    from .emulator import Emulator

# Typer has carried its own copy of click since 0.26, and shows neither's base class.
_CommandLineError: type[Any] = typer.BadParameter.__mro__[2]

app = typer.Typer(
    help="Run image and video generation jobs on the Prodia v2 inference API.",
    epilog="The token comes from the environment variable PRODIA_TOKEN, never from an option, "
    "since every user of a machine can read the options of its processes.",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def run(arguments: Sequence[str] | None = None) -> int:
    """
    Run the command line; by default on the process's own arguments.

    Returns:
        The exit status.
    """
    try:
        status = app(arguments, prog_name="prodia-async", standalone_mode=False)
    except _CommandLineError as error:
        return _say(error.format_message(), status=error.exit_code)
    except InvalidRequestError as error:
        return _say(str(error), status=2)
    except ProdiaError as error:
        return _say(str(error), status=1)
    except _InterruptedError as error:
        return _say(str(error), status=130)
    except (KeyboardInterrupt, typer.Abort):
        return _say("interrupted", status=130)
    except BrokenPipeError:
        # Whoever read our output has seen enough. Python would complain once
        # more when it flushes at exit, so what is left goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _say(_describe(error), status=1)
    if status == 130:
        # Typer's own answer to KeyboardInterrupt, which is to say nothing.
        return _say("interrupted", status=130)
    return status if isinstance(status, int) else 0


class _InterruptedError(Exception):
    """Ctrl-C, with what there is to say about it."""


def _say(text: str, *, status: int) -> int:
    """Say what went wrong on one line of standard error; return the status."""
    line = " ".join(text.split())
    token = os.environ.get("PRODIA_TOKEN", "")
    if len(token) >= 8:
        # We never write the token, but a server's message might repeat it.
        line = line.replace(token, "<token>")
    printable = "".join(character if character.isprintable() else "?" for character in line)
    encoding = sys.stderr.encoding or "ascii"
    plain = printable.encode(encoding, "replace").decode(encoding)
    print(f"prodia-async: {plain}", file=sys.stderr)  # rich would wrap it
    return status


def _describe(error: OSError) -> str:
    if error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return error.strerror or str(error)


def _wrong(option: str, why: str, *, cause: BaseException | None = None) -> NoReturn:
    raise InvalidRequestError(f"{option} {why}") from cause


def _seconds(option: str) -> Any:
    """Return a check that a number of seconds is one; Typer lets ``nan`` and ``inf`` pass."""

    def check(value: float | None) -> float | None:
        if value is not None and not (math.isfinite(value) and value >= 0):
            _wrong(option, f"must be a number of seconds from 0, not {value}")
        return value

    return check


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"prodia-async {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _main(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print the version and end."
        ),
    ] = False,
) -> None:
    del version  # its callback has answered
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


# The demo.


@app.command("demo")
def _demo(
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FOLDER", help="Where to write the pictures.")
    ] = Path("demo"),
) -> None:
    """Run the API's guides on a local emulator, without an account, and show what came."""
    from ._contact_sheet import contact_sheet  # noqa: PLC0415  (only the demo needs Pillow)
    from ._demo import JOBS, STEPS, run_demo  # noqa: PLC0415

    page = out / "index.html"
    titles = {
        "formats": "One prompt, six formats",
        "combined": "Two pictures into one",
        "hundred": f"{JOBS} jobs at once",
    }
    with _progress(STEPS + 1) as advance:
        report = anyio.run(run_demo, out, lambda guide: advance(titles[guide]))
        page.write_text(contact_sheet(report), encoding="utf-8")
        advance("Contact sheet")
    say = Console(highlight=False, soft_wrap=True)
    _print_report(say, report)
    say.print(f"\nThe pictures are in {out.resolve()}", markup=False)
    say.print(f"Open {page.resolve().as_uri()}", markup=False, style="bold")


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[str], None]]:
    """Show a progress bar, on a terminal only; what is yielded advances it under a title."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _title: None
        return
    columns = (
        TextColumn("{task.description:<24}"),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("Starting", total=total)
        yield lambda title: progress.update(bar, advance=1, description=title)


def _print_report(say: Console, report: DemoReport) -> None:
    from ._demo import LATENCY, WORKERS  # noqa: PLC0415

    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("One prompt, six formats", no_wrap=True)
    table.add_column("here", justify="right", no_wrap=True)
    table.add_column("documented", justify="right", style="dim", no_wrap=True)
    table.add_column("file", no_wrap=True)
    for picture in report.formats:
        table.add_row(
            str(picture.accept),
            f"{picture.size / 1000:.0f} KB",
            f"{picture.documented_kb} KB",
            picture.path.name,
        )
    say.print()
    say.print(table)
    same = "the same pixels" if report.lossless_agree else "DIFFERENT pixels"
    say.print(f"PNG and lossless WebP decode to {same}.")
    many = report.many
    say.print(
        f"\n{len(many.jobs)} jobs at once against {WORKERS} workers\n"
        f"  {many.elapsed:.1f} s in all; with {LATENCY:g} s a job, {many.ideal:.1f} s is the least "
        "that so many workers can take\n"
        f"  {many.refusals} refusals (429) waited out, none lost; "
        f"{many.peak} workers busy at the height"
    )


# One job.


def _complete_type(incomplete: str) -> list[str]:
    from ._catalogue import names  # noqa: PLC0415  (a job itself does not need it)

    return [name for name in names() if name.startswith(incomplete)]


@app.command("job")
def _job(
    job_type: Annotated[
        str,
        typer.Argument(
            metavar="TYPE",
            help="The job type, for instance inference.flux-fast.schnell.txt2img.v2; "
            "`prodia-async types` lists them.",
            autocompletion=_complete_type,
        ),
    ],
    *,
    config: Annotated[
        list[str] | None,
        typer.Option(
            "--config",
            "-c",
            metavar="KEY=VALUE",
            help="A setting of the job's config. The value is read as JSON if it is JSON, else "
            "as text. @FILE.json merges a whole object. May be given again; the last one counts.",
        ),
    ] = None,
    inputs: Annotated[
        list[Path] | None,
        typer.Option(
            "--input",
            "-i",
            metavar="FILE",
            help="A file the job works on; the config may refer to it by its name. May be "
            "given again; the order is kept.",
        ),
    ] = None,
    accept: Annotated[
        str | None,
        typer.Option(
            metavar="TYPE",
            help="The output's format, for instance image/png or 'image/jpeg;quality=95'.",
        ),
    ] = None,
    out: Annotated[
        str,
        typer.Option(
            "--out",
            "-o",
            metavar="OUT",
            help="A file, a folder (ends in / or exists), or - for standard output. By default "
            "the current folder, under the name that the server gives.",
        ),
    ] = ".",
    base_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="By default PRODIA_BASE_URL from the environment, else the live API.",
        ),
    ] = None,
    deadline: Annotated[
        float | None,
        typer.Option(
            "--deadline-seconds",
            metavar="S",
            help="Give up after so long in all: queue, waits and every attempt.",
        ),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout-seconds",
            metavar="S",
            help="Give up when nothing comes for so long; must exceed the longest job.",
        ),
    ] = 600.0,
    price: Annotated[bool, typer.Option("--price", help="Ask what the job cost.")] = False,
    direct: Annotated[
        bool,
        typer.Option(
            "--direct", help="Receive the output alone, without the job result (seed, price)."
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the job result as JSON on standard output.")
    ] = False,
) -> None:
    """
    Run one job and write what it makes.

    The token is taken from the environment variable PRODIA_TOKEN; there is no
    option for it, since it would show in the list of processes.
    """
    if as_json and direct:
        _wrong("--json", "needs the job result, which --direct leaves out")
    if as_json and out == "-":
        _wrong("--json", "needs standard output for itself; give -o a file or a folder")
    if price and direct:
        _wrong("--price", "needs the job result, which --direct leaves out")
    job = Job(job_type, _read_config(config or []))
    target = _Target(out)
    say = Console(
        highlight=False, markup=False, soft_wrap=True, stderr=as_json or target.is_standard_output
    )

    async def run_job() -> JobResponse:
        async with AsyncProdia(
            base_url=base_url, timeout=timeout, deadline=deadline, price=price
        ) as client:
            # Found before the job costs anything.
            target.prepare()
            return await client.job(job, inputs=inputs or (), accept=accept, multipart=not direct)

    try:
        with _spinner(job_type):
            response = anyio.run(run_job)
    except KeyboardInterrupt:
        raise _InterruptedError(
            "interrupted; a job that was under way may have run and been charged"
        ) from None
    except ProdiaError as error:
        # What came whole is paid for, and worth having.
        for output, path in target.write(error.outputs):
            say.print(_wrote(output, path))
        raise
    for output, path in target.write(response.outputs):
        say.print(_wrote(output, path))
    for line in _summary(response):
        say.print(line)
    if as_json and response.job is not None:
        typer.echo(response.job.model_dump_json(exclude_unset=True, indent=2))


def _read_config(items: Sequence[str]) -> dict[str, Any] | None:
    """Make a config of ``key=value`` and ``@file.json``, or ``None`` when there are none."""
    config: dict[str, Any] = {}
    for item in items:
        key, equals, value = item.partition("=")
        if item.startswith("@"):
            config.update(_read_object(item[1:]))
        elif not equals or not key.strip():
            _wrong("-c", f"must read key=value or @file.json, not {item!r}")
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
        _wrong("-c", f"@{name} cannot be read: {error.strerror}", cause=error)
    except ValueError as error:
        _wrong("-c", f"@{name} is not UTF-8", cause=error)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        _wrong("-c", f"@{name} is not JSON: {error}", cause=error)
    if not isinstance(found, dict):
        _wrong("-c", f"@{name} must hold a JSON object, not {type(found).__name__}")
    return found


class _Target:
    """Where outputs go: standard output, a folder, or a file and its numbered neighbours."""

    def __init__(self, out: str) -> None:
        self.is_standard_output = out == "-"
        path = Path(out)
        self._is_folder = out.endswith(("/", os.sep)) or path.is_dir()
        self._path = path

    def prepare(self) -> None:
        """
        Find out whether it can be written; makes the folder if one was named.

        Raises:
            OSError: It cannot.
        """
        if self.is_standard_output:
            return
        folder = self._path if self._is_folder else self._path.parent
        if self._is_folder:
            folder.mkdir(parents=True, exist_ok=True)
        try:
            # The only sure way to know is to write.
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise OSError(
                error.errno, f"cannot write into it: {error.strerror}", str(folder)
            ) from error

    def write(self, outputs: Sequence[Output]) -> Iterator[tuple[Output, Path | None]]:
        """
        Write outputs, and tell each with where it went; ``None`` is standard output.

        None is ever lost for want of a name: a second one for a single file
        is numbered, a second one for standard output goes to the current folder.
        """
        for number, output in enumerate(outputs, 1):
            if self.is_standard_output and number == 1:
                sys.stdout.buffer.write(output.content)
                sys.stdout.buffer.flush()
                yield output, None
            else:
                # Only the file that the user named is replaced, not its neighbours.
                save = partial(output.save, overwrite=number == 1)
                yield output, anyio.run(save, self._path_for(number))

    def _path_for(self, number: int) -> Path:
        if self.is_standard_output:
            return Path()
        if self._is_folder or number == 1:
            return self._path
        return self._path.with_stem(f"{self._path.stem}-{number}")


@contextlib.contextmanager
def _spinner(job_type: str) -> Iterator[None]:
    """Show that something is going on, on a terminal only."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(f"{job_type} is running"):
        yield


def _wrote(output: Output, path: Path | None) -> str:
    return (
        f"wrote     {path or 'standard output'} "
        f"({output.content_type}, {len(output.content):,} bytes)"
    )


def _summary(response: JobResponse) -> Iterator[str]:
    job, timing = response.job, response.timing
    if not response.outputs:
        yield "wrote     nothing: this job made no output"
    if job is not None and (job.config or {}).get("seed") is not None:
        yield f"seed      {(job.config or {})['seed']}"
    waited = timing.queued + timing.backoff
    waiting = f", {waited:.2f} s of it waiting" if waited >= 0.005 else ""
    yield f"time      {timing.total:.2f} s{waiting}"
    tried = ", ".join(map(str, response.attempts))
    yield f"attempts  {len(response.attempts)} ({tried})"
    if job is not None and job.price is not None and job.price.dollars is not None:
        yield f"price     ${job.price.dollars:g}"


# What job types there are.

_TYPE_COLUMNS = ("name", "operation", "inputs", "outputs", "async", "seconds", "price")
_UNKNOWN = "-"
_PERMITS = {True: "yes", False: "no", None: _UNKNOWN}
_MARKS = (
    "A documented by Prodia, B recorded from or tested against the live service, "
    "C assumed by other clients, I our inference"
)


@app.command("types")
def _types(
    wanted: Annotated[
        str,
        typer.Argument(
            metavar="[FILTER|NAME]",
            help="Part of a name or of an operation, for instance img2vid; or a whole name.",
            autocompletion=_complete_type,
        ),
    ] = "",
) -> None:
    """
    List the job types that are known, or tell all that is known of one.

    A table on a terminal; else lines of tab-separated columns: name,
    operation, inputs, outputs, async, seconds, price, with - for unknown.
    Types that are not listed can be used all the same.
    """
    from ._catalogue import job_type, matching  # noqa: PLC0415  (only this needs it)

    found = job_type(wanted) or job_type(f"inference.{wanted}")
    if found is not None:
        for line in _type_lines(found):
            typer.echo(line)
        return
    rows = [_type_row(kind) for kind in matching(wanted)]
    if not rows:
        _wrong("types", f"knows no job type with {wanted!r} in its name")
    say = Console(highlight=False)
    if not say.is_terminal:
        for row in rows:
            typer.echo("\t".join(row))
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in _TYPE_COLUMNS:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    say.print(table)


def _type_row(kind: JobType) -> tuple[str, ...]:
    return (
        kind.name,
        kind.operation,
        _input_count(kind.inputs),
        ", ".join(_main_kinds(kind.outputs.media)) or _UNKNOWN,
        _PERMITS[kind.permits_async.value if kind.permits_async else None],
        str(kind.seconds or _UNKNOWN),
        f"${kind.dollars}" if kind.dollars else _UNKNOWN,
    )


def _input_count(inputs: Inputs) -> str:
    if inputs.most is None:
        return f"{inputs.least}+"
    return f"{inputs.least}" if inputs.least == inputs.most else f"{inputs.least}-{inputs.most}"


def _main_kinds(kinds: Iterable[str]) -> Iterable[str]:
    """Return one media type for pictures, one for text and so on: the default."""
    by_family: dict[str, str] = {}
    for kind in kinds:
        by_family.setdefault(kind.partition("/")[0], kind)
    return by_family.values()


def _type_lines(kind: JobType) -> Iterator[str]:
    yield f"{kind.name}  ({kind.source})"
    for alias in kind.aliases:
        yield f"also {alias}"
    yield ""
    yield f"operation  {kind.operation}"
    takes, makes = kind.inputs, kind.outputs
    of_kinds = f" of {', '.join(takes.media)}" if takes.media else ""
    yield f"inputs     {_input_count(takes)}{of_kinds}  (most: {takes.source})"
    if takes.least_source != takes.source:
        yield f"           (least: {takes.least_source})"
    if takes.note:
        yield f"           {takes.note}"
    yield f"outputs    {', '.join(makes.media) or makes.note or 'none'}  ({makes.source})"
    if makes.names:
        yield f"           named {', '.join(makes.names)}"
    if makes.media and makes.note:
        yield f"           {makes.note}"
    permit = kind.permits_async
    yield (
        f"async      {_PERMITS[permit.value]}  ({permit.source})"
        if permit
        else ("async      unknown")
    )
    for name, unit, hint in (("seconds", "", kind.seconds), ("price", "$", kind.dollars)):
        yield f"{name:<9}  " + (f"{unit}{hint}  ({hint.source})" if hint else "unknown")
    if kind.note:
        yield f"note       {kind.note}"
    yield ""
    yield from _field_lines(kind)
    yield ""
    yield f"{_MARKS}."


def _field_lines(kind: JobType) -> Iterator[str]:
    if not kind.fields:
        yield "No field of its config is known."
        return
    yield "config"
    for field in kind.fields:
        yield f"  {field.name}: {_field_text(field)}  ({field.source})"
        if field.note:
            yield f"    {field.note}"
    if kind.closed is None:
        yield "  There may be other fields."
    else:
        yield f"  No other field is taken.  ({kind.closed})"


def _field_text(field: Field) -> str:
    from ._catalogue import described  # noqa: PLC0415  (only this needs it)

    parts = [described(field)]
    if field.default is not None:
        parts.append(f"default {json.dumps(field.default)}")
    if field.excludes:
        parts.append(f"not beside {field.excludes}")
    if field.required:
        parts.append(f"required ({field.required})")
    return "; ".join(parts)


# The emulator.


@app.command("emulator")
def _emulator(
    *,
    port: Annotated[
        int, typer.Option(metavar="N", min=0, max=65535, help="0 takes a free one.")
    ] = 0,
    host: Annotated[str, typer.Option(metavar="HOST", help="The address to listen on.")] = (
        "127.0.0.1"
    ),
    token: Annotated[
        list[str] | None,
        typer.Option(
            metavar="T",
            help="A token that is valid, made up for the purpose; others get 401. By default "
            "any is. May be given again.",
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            metavar="K", min=0, help="How many jobs run at once; one more is refused with 429."
        ),
    ] = 20,
    latency: Annotated[
        float,
        typer.Option(metavar="S", callback=_seconds("--latency"), help="Seconds that a job takes."),
    ] = 0.0,
    retry_after: Annotated[
        float,
        typer.Option(
            metavar="S",
            callback=_seconds("--retry-after"),
            help="Seconds that a refused job is asked to wait.",
        ),
    ] = 1.0,
    allow_remote: Annotated[
        bool,
        typer.Option("--allow-remote", help="Allow a host that other machines can reach."),
    ] = False,
) -> None:
    """Serve a local stand-in for the API until Ctrl-C."""
    from .emulator import Emulator  # noqa: PLC0415  (an extra of its own)

    # Set by hand: a shell starts background jobs with interrupts ignored, and
    # what ends a service is usually SIGTERM.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        emulator = Emulator(
            host=host,
            port=port,
            tokens=token or None,
            workers=workers,
            latency=latency,
            retry_after=retry_after,
            allow_remote=allow_remote,
        )
    except ValueError as error:
        why = str(error).removeprefix("host ").replace("allow_remote=True", "--allow-remote")
        _wrong("--host", why, cause=error)
    with contextlib.suppress(KeyboardInterrupt), emulator:
        _print_welcome(emulator, shlex.quote(token[0] if token else "any-token"))
        emulator.wait()
    totals = emulator.ledger.totals()
    typer.echo(f"Stopped after {totals.received} requests; {totals.ran} jobs ran.")


def _print_welcome(emulator: Emulator, token: str) -> None:
    typer.echo(
        f"The emulator of the Prodia v2 API listens at {emulator.base_url} "
        f"({emulator.workers} workers); Ctrl-C ends it. In another terminal:\n\n"
        f"export PRODIA_BASE_URL={emulator.base_url} PRODIA_TOKEN={token}\n"
        "prodia-async job inference.flux-fast.schnell.txt2img.v2 "
        '-c prompt="a bowl of fruit" -o fruit.jpg\n\n'
        "or, with nothing installed:\n\n"
        f"curl {emulator.base_url}/v2/job -H 'Authorization: Bearer '{token} "
        "-H 'Content-Type: application/json' -H 'Accept: image/jpeg' "
        """-d '{"type": "inference.flux-fast.schnell.txt2img.v2", """
        """"config": {"prompt": "a bowl of fruit"}}' -o fruit.jpg\n"""
    )
    sys.stdout.flush()
