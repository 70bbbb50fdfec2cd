"""How many rows of a batch are with the server at once, whatever the pace of their input."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import anyio
from conftest import until

from prodia_async import AsyncProdia, JobDetails
from prodia_async.batch import Batch
from prodia_async.batch._record import Record
from prodia_async.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import pytest

    from prodia_async import AttemptDetails

SCHNELL = "inference.flux-fast.schnell.txt2img.v2"
SLOTS = 5


class Gauge:
    """Counts what is with the server, by the hook."""

    def __init__(self) -> None:
        self.events: Counter[str] = Counter()
        self.most = 0
        self.taken = self.most_taken = 0

    def __call__(self, details: AttemptDetails) -> None:
        if isinstance(details, JobDetails):
            self.taken += 1 if details.event == "queued" else -1
            self.most_taken = max(self.most_taken, self.taken)
            return
        self.events[details.event] += 1
        self.most = max(self.most, self.events["started"] - self.events["finished"])


async def test_all_slots_are_used_again_after_the_input_has_paused(tmp_path: Path) -> None:
    """The workers that had nothing to do are gone by then, and others take their places."""
    gauge = Gauge()
    peaks = []

    async def bursts() -> AsyncIterator[Any]:
        for burst in range(3):
            for number in range(2 * SLOTS):
                yield {"type": SCHNELL, "config": {"prompt": f"{burst}-{number}"}}
            wanted = (burst + 1) * 2 * SLOTS
            await until(lambda: gauge.events["finished"] == wanted)  # noqa: B023  (awaited here)
            await anyio.sleep(0.05)
            peaks.append(gauge.most)
            gauge.most = 0

    with Emulator(workers=20, latency=0.3) as api:  # longer than five rows take to be read
        client = AsyncProdia("any", base_url=api.base_url, max_concurrency=SLOTS, hook=gauge)
        async with client, Batch(tmp_path / "run", client, progress=False, signals=False) as batch:
            summary = await batch.run(bursts())
    assert summary.done == 6 * SLOTS
    assert peaks == [SLOTS] * 3
    assert gauge.most_taken == SLOTS  # none waits for its turn where a kill would take it


async def test_a_run_that_is_through_waits_for_no_company(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit waits for more rows, and behind the last answer none comes."""
    monkeypatch.setattr(Record.__init__, "__kwdefaults__", {"linger": 20.0})
    with Emulator(workers=20) as api:
        client = AsyncProdia("any", base_url=api.base_url, max_concurrency=SLOTS)
        began = time.monotonic()
        async with client, Batch(tmp_path / "run", client, progress=False, signals=False) as batch:
            summary = await batch.run(
                [{"type": SCHNELL, "config": {"prompt": "x", "seed": seed}} for seed in range(3)]
            )
    assert summary.done == 3
    assert time.monotonic() - began < 10
