"""
A local stand-in for the Prodia v2 inference API, and for the Fireworks image API.

::

    async with Emulator(workers=20, latency=0.3) as emulator:
        client = AsyncProdia("any-token", base_url=emulator.base_url)
        other = AsyncFireworks("any-key", base_url=emulator.fireworks_url)

It listens on 127.0.0.1 and answers as the services' documentation has it: pictures, films and
refusals, drawn and counted here, so nothing is charged and no account is needed. It is written
from that documentation alone and shares no code with the client, or both would agree on the same
mistake.

It needs the extra ``emulator``: Starlette, uvicorn and Pillow.
"""

# What to answer is decided by plain functions on plain values; only `_app` knows that there is a
# network.
#
# _server     Emulator: what its users set, plan and look at
# _running    its life in a thread of its own; _http2: likewise, for HTTP/2
# _app        the APIs put together
# _desk       the way of every request: who waits, who is refused, what is recorded
# _delivery   answers on their way out, with what shall befall them; _bodies
# _door       a port that refuses to be connected to
# _settings   what may be changed while it runs
# _capacity   idle workers; _ledger: what happened; _script: what was planned
# _refusals   the one way to say no
# prodia/     the first API
#     _api        its routes
#     _jobs       a received job to a plan, a plan to its job result; _workflows: of several
#     _store      async jobs, from their submission until they expire
#     _studio     a plan to its outputs, drawn once and remembered
#     _catalogue  what the job types are, read from job_types.toml; _kinds: what one is
#     _schema     configurations checked; _openapi: the endpoints described
#     _accept     the Accept header; _forms: request bodies read, answers written
#     _behaviour  what is done where the documents leave a choice
# fireworks/  the second API
#     _api        its routes
#     _orders     a body to an order, by _fields and _models; _answers: what is said
#     _edits      pictures from pictures, edges and codes at the older path
#     _webhooks   who is told that a task has ended
#     _behaviour  what is done where the documents leave a choice
# drawing/    pictures, films and drawings; _encoding: Pillow's encoders
#
# A third API would be a folder beside the two, and its line in `_app`.

from __future__ import annotations

try:
    from ._ledger import Ledger, ReceivedInput, Record, Totals
    from ._script import PlannedReply
    from ._server import Emulator
    from .fireworks._api import FireworksRecord
    from .fireworks._behaviour import FireworksBehaviour
    from .fireworks._webhooks import Webhook
    from .prodia._behaviour import Behaviour
    from .prodia._catalogue import CATALOGUE
    from .prodia._kinds import JobType
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
