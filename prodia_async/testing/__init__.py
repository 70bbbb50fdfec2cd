"""
For the tests of an app that uses this package; a pytest plugin, by entry point.

::

    async def test_a_busy_server(prodia):       # an emulator of its own, and a client
        prodia.emulator.fail_next(2, 429, retry_after=30)
        await my_app.make("a cat", client=prodia.client)
        assert prodia.emulator.jobs[0].config["prompt"] == "a cat"
        assert prodia.waited >= 60              # though it took no time

The fixture works in plain tests and in async ones of pytest-asyncio and anyio.
PRODIA_TOKEN and PRODIA_BASE_URL lead to its emulator, so an app that makes its
own client needs nothing. Beside it:

* `no_waiting`: backoff, Retry-After and polls cost no time, and are counted.
* `answer`: an answer of the API, for respx and for transports of one's own.
* `record` and `replay`: live answers in a folder, without the token.

It needs the extra ``testing``.
"""

from __future__ import annotations

from .._waiting import Skipping
from .._waiting import skip_waiting as no_waiting
from ._answers import answer
from ._fixture import ProdiaFixture
from ._recordings import NotRecordedError, record, replay

__all__ = [
    "NotRecordedError",
    "ProdiaFixture",
    "Skipping",
    "answer",
    "no_waiting",
    "record",
    "replay",
]

for _public in (NotRecordedError, ProdiaFixture, Skipping):
    _public.__module__ = __name__  # tracebacks and reprs name the door
