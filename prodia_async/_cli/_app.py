"""What all commands share: the application, its exit status, and how it says what went wrong."""

from __future__ import annotations

import contextlib
import io
import math
import os
import re
import sys
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import anyio
import typer

from .._errors import InvalidRequestError, ProdiaError
from .._secret import MIN_SECRET, blotted
from .._version import __version__

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

# Typer has carried its own copy of click since 0.26, and shows neither's base class.
_CommandLineError: type[Any] = typer.BadParameter.__mro__[2]

app = typer.Typer(
    help="Run image and video generation jobs on the Prodia v2 inference API.",
    epilog="The token comes from the environment variable PRODIA_TOKEN (for the second API "
    "FIREWORKS_API_KEY), never from an option, since every user of a machine can read the options "
    "of its processes.",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def run(arguments: Sequence[str] | None = None) -> int:
    """
    Run the command line; by default on the process's own arguments.

    Returns:
        The exit status.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name with a letter that the terminal lacks is shown with a mark for it.
            stream.reconfigure(errors="replace")
    try:
        status = app(arguments, prog_name="prodia-async", standalone_mode=False)
    except _CommandLineError as error:
        return say_error(error.format_message(), status=error.exit_code)
    except InvalidRequestError as error:
        # What cannot be sent again may have been sent before.
        return say_error(str(error), status=1 if error.may_have_run else 2)
    except ProdiaError as error:
        return say_error(str(error), status=1)
    except InterruptedJobError as error:
        return say_error(str(error), status=error.status)
    except (KeyboardInterrupt, typer.Abort):
        return say_error("interrupted", status=130)
    except BrokenPipeError:
        hush()
        return 1
    except OSError as error:
        return say_error(describe(error), status=1)
    if status == 130:
        # Typer's own answer to KeyboardInterrupt, which is to say nothing.
        return say_error("interrupted", status=130)
    return status if isinstance(status, int) else 0


def hush() -> None:
    """
    Let what is left of our output go nowhere: whoever read it has seen enough.

    Python would complain once more when it flushes at exit.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class InterruptedJobError(Exception):
    """
    Ctrl-C or SIGTERM, with what there is to say about it.

    Args:
        message: What is said.
        status: The exit status.
    """

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


def say_error(text: str, *, status: int) -> int:
    """Say what went wrong on one line of standard error; return the status."""
    note(in_our_words(text))
    return status


def note(text: str) -> None:
    """Say something on one line of standard error; where nobody listens, nothing is said."""
    if sys.stderr is None:
        return
    line = " ".join(text.split())
    for variable in ("PRODIA_TOKEN", "FIREWORKS_API_KEY"):
        # We never write the token, but a server's message might repeat it.
        token = os.environ.get(variable, "")
        if len(token) >= MIN_SECRET:  # a shorter one would blot words of our own
            line = blotted(line, token)
    printable = "".join(character if character.isprintable() else "?" for character in line)
    encoding = sys.stderr.encoding or "ascii"
    plain = printable.encode(encoding, "replace").decode(encoding)
    with contextlib.suppress(OSError):
        print(f"prodia-async: {plain}", file=sys.stderr, flush=True)  # rich would wrap it


_WORDS: tuple[tuple[str, str], ...] = (
    # What a message advises to whoever writes Python, and what there is here in its place.
    (r", or give (token|api_key)=\.*", ""),
    (r"; use https, or allow_http=True", "; use https"),
    (r"^deadline must", "--deadline-seconds must"),
    (r"^timeout must", "--timeout-seconds must"),
    (r"^poll must", "--poll-seconds must"),
    (
        r"It was not sent again; RetryPolicy\(retry_uncertain=True\) would, at that risk(, and a larger timeout= waits longer)?",  # noqa: E501
        "It was not sent again, since that could be charged twice",
    ),
    (r" and max_retry_after is ([0-9.e+]+) s", r", and \1 s is the most that is waited for"),
    (r" and max_capacity_wait is ([0-9.e+]+) s", r", and \1 s is the most that is waited for"),
    (r"max_response_bytes=([0-9]+)( together)?; stream\(\) has no such limit", r"\1 bytes\2"),
    (r"; it goes on at the server, and can be waited for again",
     "; it goes on at the server, and `prodia-async collect ID` waits for it"),
    (r"kontext_result\(\) can pick it up", "`prodia-async fireworks --task ID` picks it up"),
    (r"raise_if_filtered=False hands it over, flagged,",
     "--keep-filtered writes it all the same"),
    (r" as submit\(\) gave it", " as `prodia-async submit` printed it"),
    (r"\(FIREWORKS_API_KEY, or api_key=\)", "(FIREWORKS_API_KEY)"),
    (r"\(PRODIA_TOKEN, or token=\)", "(PRODIA_TOKEN)"),
    (r"^max_concurrency must", "--max-concurrency must"),
    (r"^max_cost must", "--max-cost must"),
    (r"^price must", "--price-per-job must"),
    (r"and timeout is ([0-9.e+]+) s", r"and --timeout-seconds is \1"),
)  # fmt: skip


def in_our_words(text: str) -> str:
    """Return a message of the package in the words of the command line."""
    for pattern, here in _WORDS:
        text = re.sub(pattern, here, text)
    return text


def describe(error: Exception) -> str:
    """Return an error's words; of the system's, what it is about and what is wrong."""
    if not isinstance(error, OSError) or isinstance(error, ProdiaError):
        return str(error)
    if error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return error.strerror or str(error)


def wrong(option: str, why: str, *, cause: BaseException | None = None) -> NoReturn:
    """
    Say that an option was given wrongly.

    Raises:
        InvalidRequestError: Always; the command line ends with status 2.
    """
    raise InvalidRequestError(f"{option} {why}") from cause


def run_unwrapped(program: Callable[[], Awaitable[None]]) -> None:
    """
    Run a program that has a task group; of several errors the first is raised.

    Raises:
        BaseException: What its tasks raised, without the group around it.
    """
    try:
        anyio.run(program)
    except BaseExceptionGroup as group:
        first: BaseException = group
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None


def seconds(option: str) -> Any:
    """Return a check that a number of seconds is one; Typer lets ``nan`` and ``inf`` pass."""

    def check(value: float | None) -> float | None:
        if value is not None and not (math.isfinite(value) and value >= 0):
            wrong(option, f"must be a number of seconds from 0, not {value}")
        return value

    return check


def named(option: str) -> Any:
    """Return a check that a path has a name: an empty one is often a variable that is not set."""

    def check(value: str | None) -> str | None:
        if value is not None and not value.strip():
            wrong(option, f"must be a file or a folder, not {value!r}")
        return value

    return check


def counted(number: int, thing: str) -> str:
    """Return how many there are: ``1 row``, ``2 rows``."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


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
