"""
A local stand-in for the Prodia v2 inference API, and for the Fireworks image API.

::

    async with Emulator(workers=20, latency=0.3) as emulator:
        client = AsyncProdia("any-token", base_url=emulator.base_url)
        other = AsyncFireworks("any-key", base_url=emulator.fireworks_url)

This annex is written from the published documentation alone and shares no code
with the rest of the package: a server built on the client's own decoder would
agree with its mistakes. What to answer is decided by plain functions on plain
values; only `_app` knows that there is a network.

::

    _server     Emulator: its life in a thread of its own
    _app        the routes: who waits, who is refused, what is recorded
    _jobs       a received job to a plan, a plan to its job result
    _workflows  the same for several jobs in one
    _store      async jobs, from their submission until they expire
    _studio     a plan to its outputs, drawn once and remembered
    _pictures   drawing; _encoding: Pillow's encoders by their Accept parameters
    _films      small real films; _vectors: drawings as SVG
    _kinds      what a job type is; _catalogue: all of them, as data
    _schema     configurations checked; _openapi: the endpoints described
    _accept     the Accept header; _forms: request bodies read, answers written
    _capacity   idle workers; _ledger: what happened; _script: what was planned
    _behaviour  what is done where the documents leave a choice
    _refusals   the one way to say no
    _fireworks  the second API's routes; _fireworks_answers: what they say

It needs the extra ``emulator``: Starlette, uvicorn and Pillow.
"""

from __future__ import annotations

try:
    from ._behaviour import Behaviour
    from ._catalogue import CATALOGUE
    from ._fireworks import FireworksRecord
    from ._fireworks_answers import FireworksBehaviour
    from ._kinds import JobType
    from ._ledger import Ledger, ReceivedInput, Record, Totals
    from ._script import PlannedReply
    from ._server import Emulator
    from ._webhooks import Webhook
except ModuleNotFoundError as exc:
    if (exc.name or "").partition(".")[0] == "prodia_async":
        raise
    raise ImportError(
        f"prodia_async.emulator needs {exc.name}: pip install 'prodia-async[emulator]'",
        name=exc.name,
    ) from exc

__all__ = [
    "CATALOGUE",
    "Behaviour",
    "Emulator",
    "FireworksBehaviour",
    "FireworksRecord",
    "JobType",
    "Ledger",
    "PlannedReply",
    "ReceivedInput",
    "Record",
    "Totals",
    "Webhook",
]

for _public in (
    *(Behaviour, Emulator, FireworksBehaviour, FireworksRecord),
    *(JobType, Ledger, PlannedReply, ReceivedInput, Record, Totals, Webhook),
):
    # Tracebacks and reprs name the door.
    _public.__module__ = "prodia_async.emulator"
