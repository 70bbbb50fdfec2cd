"""Inputs that break, wait, or are read on: what was read is run, recorded, and told."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import anyio
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import on_both_loops
from processes import ROOT, SCHNELL, TOKEN, charges, check_alike

from prodia_async import AsyncProdia, InvalidRequestError
from prodia_async.batch import Batch, BatchRecord, read_jobs
from prodia_async.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from prodia_async.batch import BatchSummary

pytestmark = pytest.mark.timeout(60)


def fox(seed: int) -> dict[str, Any]:
    config = {"prompt": "a fox", "seed": seed, "width": 256, "height": 256}
    return {"type": SCHNELL, "config": config}


@pytest.fixture(name="api")
def _api() -> Iterator[Emulator]:
    with Emulator(workers=20, latency=0.02) as emulator:
        yield emulator


async def run(api: Emulator, folder: Path, jobs: Any, **options: Any) -> BatchSummary:
    async with AsyncProdia("any", base_url=api.base_url, max_concurrency=4) as client:
        settings = {"progress": False, "signals": False, **options}
        async with Batch(folder, client, **settings) as batch:
            return await batch.run(jobs)


class BrokenError(Exception):
    """The user's own."""


def broken(count: int, error: BaseException) -> Iterator[Any]:
    yield from (fox(n) for n in range(count))
    raise error


async def broken_async(count: int, error: BaseException) -> AsyncIterator[Any]:
    for n in range(count):
        yield fox(n)
    raise error


class Lazy(dict[str, Any]):
    """A job that is made when it is looked at, and cannot be."""

    def items(self) -> Any:
        raise BrokenError("the table is gone")


def digested(count: int, error: BaseException) -> Iterator[Any]:
    yield from (fox(n) for n in range(count))
    yield Lazy()
    yield from (fox(n) for n in range(count, 300))
    raise AssertionError(error)


def lines(count: int, error: BaseException) -> Any:
    """Return jobs read from a stream that breaks."""
    text = "".join(f"prompt {n}\n" for n in range(count)).encode()

    class Stream(io.BytesIO):
        def readline(self, size: int | None = -1, /) -> bytes:
            found = super().readline(size)
            if not found:
                raise error
            return found

    config = {"width": 256, "height": 256, "seed": 1}
    return read_jobs(Stream(text), job_type=SCHNELL, config=config)


@pytest.mark.parametrize("make", [broken, broken_async, digested, lines])
@pytest.mark.parametrize("count", [0, 1, 64, 130])
@on_both_loops
async def test_an_input_that_raises(tmp_path: Path, make: Any, count: int) -> None:
    """All rows before it are run and recorded, its own error comes out, and the folder goes on."""
    folder = tmp_path / "run"
    with Emulator(workers=20, latency=0.02) as api:
        error = BrokenError("the table is gone")
        with pytest.raises(BrokenError, match="the table is gone") as caught:
            await run(api, folder, make(count, error))
        (note,) = caught.value.__notes__
        rows = "1 row," if count == 1 else f"{count} rows,"
        assert f"behind {rows}" in note
        assert f": {count} done, 0 failed, 0 in doubt, $" in note
        assert str(folder) in note
        record = BatchRecord(folder)
        found = record.summary()
        assert (found.done, found.in_doubt, found.left) == (count, 0, 0)
        assert found.stopped == "the input raised the table is gone"
        assert record.verify(hashes=True).checked == count == api.ledger.totals().charged
        if make is not lines:
            whole = await run(api, folder, [fox(n) for n in range(count + 3)])
            assert (whole.done, whole.done_before) == (count + 3, count)
            assert set(charges(api).values()) == {1}


async def test_jobs_in_flight_when_the_input_raises(tmp_path: Path, api: Emulator) -> None:
    """They come home, and are recorded."""
    api.hold()

    async def jobs() -> AsyncIterator[Any]:
        for n in range(3):
            yield fox(n)
        while api.busy < 3:
            await anyio.sleep(0.01)
        asyncio.get_running_loop().call_later(0.3, api.release)
        raise BrokenError("in the middle")

    with pytest.raises(BrokenError, match="in the middle"):
        await run(api, tmp_path / "run", jobs())
    assert BatchRecord(tmp_path / "run").summary().done == api.ledger.totals().charged == 3


async def test_an_input_that_is_cancelled_by_itself(tmp_path: Path, api: Emulator) -> None:
    """Is an input that raises, and never one that ended."""

    async def jobs() -> AsyncIterator[Any]:
        yield fox(0)
        raise asyncio.CancelledError("what it waited for was cancelled")

    with pytest.raises(asyncio.CancelledError, match="what it waited for"):
        await run(api, tmp_path / "run", jobs())
    found = BatchRecord(tmp_path / "run").summary()
    assert (found.done, found.stopped) == (1, "the input raised what it waited for was cancelled")


async def test_a_run_that_is_cancelled_while_its_input_waits(tmp_path: Path, api: Emulator) -> None:
    """Ends at once, and what it had read is recorded."""

    async def jobs() -> AsyncIterator[Any]:
        yield fox(0)
        await anyio.sleep(30)

    with anyio.move_on_after(1.0):
        await run(api, tmp_path / "run", jobs())
    assert BatchRecord(tmp_path / "run").summary().done == 1


@pytest.mark.parametrize("source", ["async", "pipe"])
async def test_a_stop_does_not_wait_for_the_input(
    tmp_path: Path, api: Emulator, source: str
) -> None:
    """Whoever makes the rows may take for ever over the next."""
    reader, writer = os.pipe()
    os.write(writer, b"a fox\n")
    file = os.fdopen(reader, "rb")

    async def slow() -> AsyncIterator[Any]:
        yield fox(0)
        await anyio.sleep(300)

    jobs: Any = slow()
    if source == "pipe":
        config = {"width": 256, "height": 256}
        jobs = read_jobs(file, job_type=SCHNELL, config=config)
    async with AsyncProdia("any", base_url=api.base_url) as client:
        settings: dict[str, Any] = {"progress": False, "signals": False}
        async with Batch(tmp_path / "run", client, **settings) as batch:
            async with anyio.create_task_group() as group:

                async def stop() -> None:
                    while not api.ledger.totals().charged:  # the row that there is does not wait
                        await anyio.sleep(0.05)
                    batch.stop()

                group.start_soon(stop)
                with anyio.fail_after(5):
                    summary = await batch.run(jobs)
    os.close(writer)
    file.close()
    assert summary.stopped == "stop() was called"
    assert summary.done == 1
    check_alike(summary, BatchRecord(tmp_path / "run"))


async def test_an_input_that_waits_keeps_nobody_waiting(tmp_path: Path, api: Emulator) -> None:
    """A row that was told to come again in a second does, though the next is not there yet."""
    done: list[float] = []
    api.fail_next(1, 429, retry_after=0.6)

    async def slow() -> AsyncIterator[Any]:
        yield fox(0)
        began = time.monotonic()
        while not api.ledger.totals().charged and time.monotonic() - began < 20:
            await anyio.sleep(0.05)
        done.append(time.monotonic() - began)

    from prodia_async import RetryPolicy

    async with AsyncProdia(
        "any", base_url=api.base_url, max_concurrency=1, retry=RetryPolicy(max_retry_after=0.1)
    ) as client:
        async with Batch(tmp_path / "run", client, progress=False, signals=False) as batch:
            summary = await batch.run(slow())
    assert (summary.done, summary.left) == (1, 0)
    assert done[0] < 5


async def test_an_input_that_waits_for_what_became_of_its_last_row(
    tmp_path: Path, api: Emulator
) -> None:
    """Is gone on with like any other: no row waits for more of them to be looked at."""

    async def each_behind_the_last() -> AsyncIterator[Any]:
        for n in range(4):
            yield fox(n)
            while not (n < len(list(BatchRecord(tmp_path / "run").rows()))):
                await anyio.sleep(0.02)

    async with AsyncProdia("any", base_url=api.base_url) as client:
        async with Batch(tmp_path / "run", client, progress=False, signals=False) as batch:
            assert (await batch.run([fox(0)])).done == 1
        async with Batch(tmp_path / "run", client, progress=False, signals=False) as batch:
            with anyio.fail_after(10):
                summary = await batch.run(each_behind_the_last())
    assert (summary.done, summary.done_before) == (4, 1)


async def test_an_input_that_blocks_over_each_row_keeps_those_before_it_not_waiting(
    tmp_path: Path, api: Emulator
) -> None:
    """Nothing else runs meanwhile, so no more than one such row is read at a time."""
    sent = []

    def slow() -> Iterator[Any]:
        for n in range(12):
            time.sleep(0.1)
            sent.append(api.ledger.totals().received)
            yield fox(n)

    assert (await run(api, tmp_path / "run", slow())).done == 12
    assert sent[-1] >= 6


def damaged_parquet(path: Path) -> Path:
    """Write three groups of rows, the last of which cannot be read."""
    table = pa.table({"prompt": [f"fox {n}" for n in range(3000)]})
    pq.write_table(table, path, row_group_size=1000, compression="none")
    place = pq.ParquetFile(path).metadata.row_group(2).column(0)
    content = bytearray(path.read_bytes())
    at = place.dictionary_page_offset or place.data_page_offset
    content[at : at + 40] = b"\xff" * 40
    path.write_bytes(content)
    return path


def test_a_file_that_cannot_be_read_on(tmp_path: Path, api: Emulator) -> None:
    """One line, and status 2; the rows before are done, and the same command goes on."""
    path = damaged_parquet(tmp_path / "jobs.parquet")
    ask = ["batch", path, "-o", tmp_path / "run", "-t", SCHNELL, "-c", "width=256", "-c",
           "height=256", "--max-concurrency", "20", "-q"]  # fmt: skip
    env = {"PRODIA_TOKEN": TOKEN, "PRODIA_BASE_URL": api.base_url, "PYTHONPATH": str(ROOT)}
    api.latency = 0.0
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "prodia_async", *map(str, ask)],
        env=os.environ | env, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    told, last = done.stderr.splitlines()
    assert last.startswith(f"prodia-async: {path} cannot be read as Parquet: "), done.stderr
    assert "behind 1,024 rows" in told
    assert ": 1,024 done, 0 failed" in told
    assert done.returncode == 2
    assert BatchRecord(tmp_path / "run").summary().done == 1024
    with pytest.raises(InvalidRequestError, match="cannot be read as Parquet"):
        (tmp_path / "no.parquet").write_bytes(b"no parquet")
        read_jobs(tmp_path / "no.parquet")
