"""``emulator``: a local stand-in for both APIs."""

from __future__ import annotations

import contextlib
import math
import re
import shlex
import signal
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from .._show import printable
from ._app import app, counted, seconds, wrong

if TYPE_CHECKING:
    from ..emulator import Emulator, Record


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
        typer.Option(metavar="S", callback=seconds("--latency"), help="Seconds that a job takes."),
    ] = 0.0,
    retry_after: Annotated[
        float,
        typer.Option(
            metavar="S",
            callback=seconds("--retry-after"),
            help="Seconds that a refused job is asked to wait.",
        ),
    ] = 1.0,
    fail: Annotated[
        list[str] | None,
        typer.Option(
            metavar="STATUS[xN]",
            help="Answer the first requests for jobs with an error: 503 (one), 429x20 (twenty). "
            "May be given again.",
        ),
    ] = None,
    slow: Annotated[
        float | None,
        typer.Option(
            metavar="BYTES", help="Send every answer to a job this slowly, in bytes a second."
        ),
    ] = None,
    log: Annotated[
        bool, typer.Option("--log", help="Print a line for every request that was answered.")
    ] = False,
    allow_remote: Annotated[
        bool,
        typer.Option("--allow-remote", help="Allow a host that other machines can reach."),
    ] = False,
) -> None:
    """
    Serve a local stand-in for both APIs until Ctrl-C.

    It makes pictures and films of its own, refuses and charges as the
    documents say, and costs nothing. The Fireworks image API is served beside
    Prodia's, below /inference/v1.
    """
    from ..emulator import Emulator  # noqa: PLC0415  (an extra of its own)

    # Set by hand: a shell starts background jobs with interrupts ignored, and
    # what ends a service is usually SIGTERM.
    for each in token or ():
        if not re.fullmatch(r"[\x21-\x7e]+", each):
            wrong("--token", f"must be printable ASCII without blanks, not {each!r}")
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
        wrong("--host", why, cause=error)
    for planned in fail or ():
        emulator.fail_next(*_planned(planned))
    if slow is not None:
        if not 0 < slow < math.inf:
            wrong("--slow", f"must be a number of bytes a second above 0, not {slow:g}")
        emulator.slow_next(FOR_EVER, bytes_per_second=slow)
    with contextlib.suppress(KeyboardInterrupt), emulator:
        _print_welcome(emulator, token[0] if token else "any-token")
        if log:
            _print_requests(emulator)
        emulator.wait()
    totals = emulator.ledger.totals()
    typer.echo(
        f"Stopped after {counted(totals.received, 'request')}; {counted(totals.ran, 'job')} ran."
    )


FOR_EVER = 10**9
"""How many answers are slow. Chosen: more than anybody asks for."""


def _planned(text: str) -> tuple[int, int]:
    """Read how many answers of which status are planned."""
    read = re.fullmatch(r"([45][0-9]{2})(?:x([0-9]{1,6}))?", text)
    if read is None:
        wrong("--fail", f"must be a status from 400 to 599, or read 503x3, not {text!r}")
    return int(read[2] or 1), int(read[1])


def _print_requests(emulator: Emulator) -> None:
    """Print a line for each request as it is answered, until Ctrl-C."""
    answered = 0
    while True:
        seen = answered
        with contextlib.suppress(TimeoutError):
            emulator.ledger.wait_for(lambda totals: totals.answered > seen, timeout=0.5)  # noqa: B023
        answered = emulator.ledger.totals().answered
        for record in emulator.ledger.records()[seen - answered :] if answered > seen else ():
            typer.echo(_request_line(record))
        sys.stdout.flush()


def _request_line(record: Record) -> str:
    """Say on one line what was asked and what became of it."""
    time = datetime.fromtimestamp(record.at).astimezone().strftime("%H:%M:%S")
    words = [
        f"{time}  {record.status or 'left'}  {record.method} {record.path}",
        record.type or "",
        f"{record.seconds:.2f} s",
        f"${record.dollars:g}" if record.charged else "not charged",
        "the client had left" if record.client_gone else "",
        f"Retry-After: {record.retry_after}" if record.retry_after else "",
        record.error or "",
    ]
    return printable("  ".join(" ".join(word.split()) for word in words if word))


def _print_welcome(emulator: Emulator, token: str) -> None:
    header, token = shlex.quote(f"Authorization: Bearer {token}"), shlex.quote(token)
    typer.echo(
        f"The emulator of the Prodia v2 API and of Fireworks' listens at {emulator.base_url} "
        f"({emulator.workers} workers); Ctrl-C ends it. In another terminal:\n\n"
        f"export PRODIA_BASE_URL={emulator.base_url} PRODIA_TOKEN={token}\n"
        "prodia-async job inference.flux-fast.schnell.txt2img.v2 "
        '-c prompt="a bowl of fruit" -o fruit.jpg\n\n'
        "or, with nothing installed:\n\n"
        f"curl {emulator.base_url}/v2/job -H {header} "
        "-H 'Content-Type: application/json' -H 'Accept: image/jpeg' "
        """-d '{"type": "inference.flux-fast.schnell.txt2img.v2", """
        """"config": {"prompt": "a bowl of fruit"}}' -o fruit.jpg\n\n"""
        "and the second API:\n\n"
        f"export FIREWORKS_API_BASE={emulator.fireworks_url} FIREWORKS_API_KEY={token}\n"
        'prodia-async fireworks "a bowl of fruit" -o fruit.png\n'
    )
    sys.stdout.flush()
