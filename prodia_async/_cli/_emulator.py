"""``emulator``: a local stand-in for both APIs."""

from __future__ import annotations

import contextlib
import shlex
import signal
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ._app import app, seconds, wrong

if TYPE_CHECKING:
    from ..emulator import Emulator


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
    allow_remote: Annotated[
        bool,
        typer.Option("--allow-remote", help="Allow a host that other machines can reach."),
    ] = False,
) -> None:
    """Serve a local stand-in for the API until Ctrl-C."""
    from ..emulator import Emulator  # noqa: PLC0415  (an extra of its own)

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
        wrong("--host", why, cause=error)
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
