"""
One worker of a run on many machines: rows in, rows out, what is done never paid again.

Which worker gets which row, and what becomes of a worker that died, is the
engine's matter (Ray Data, Daft). What is kept here is the money: the store is
asked before a job is sent, told before it may be paid, and told again when it
is done (`_objects`); nothing is started without the driver's lease (`_lease`).
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

import anyio
import anyio.to_thread

from .._client import AsyncProdia
from .._errors import InvalidRequestError, JobNotFoundError, ProdiaError
from .._show import one_line, shown
from .._version import __version__
from ._lease import RENEWALS, LeaseView
from ._objects import LEASE, RUN, Done, ObjectRecord, Sent
from ._rows import Defaults, to_job
from ._trade import ProdiaTrade, complete_outputs, content_of, no_output
from ._values import BatchChangedError, BatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ._trade import Asked, Made

T = TypeVar("T")

Doubt: TypeAlias = Literal["retry", "hold"]

STORE_THREADS = 32
"""Objects read or written at once by one worker. Chosen: a put takes some 20 ms elsewhere."""

MOST_TIMES = 2
"""How often a job that is in doubt is sent in all. Chosen: it is paid again at most once."""

COLUMNS = (
    "key", "state", "path", "paths", "bytes", "seed", "dollars", "seconds", "job_id", "attempts",
    "refusals", "paid_again", "error",
)  # fmt: skip
"""What a row gains; the last is ``None`` unless `state` is another than ``done``."""

Step: TypeAlias = Literal["have", "collect", "run", "doubt"]


def next_step(
    done: Done | None,
    sent: Sent | None,
    *,
    now: float,
    on_doubt: Doubt,
    retry_failed: bool,
) -> Step:
    """
    Decide what to do about a job, from what the store says of it.

    Args:
        done: How it ended, if it did.
        sent: That it may be under way, if it may.
        now: Wall clock, against which the keeping of a result is held.
        on_doubt: Whether a job that may have been paid is sent again.
        retry_failed: Whether one that failed is.

    Returns:
        ``have``: nothing, it is there. ``collect``: ask the server for it. ``run``: send it.
        ``doubt``: leave it to a person.
    """
    if done is not None and (done.state == "done" or not retry_failed):
        return "have"
    if sent is None or done is not None:
        return "run"
    if sent.job_id is not None and (sent.keeps_until is None or now < sent.keeps_until):
        return "collect"
    return after_loss(sent, on_doubt=on_doubt)


def after_loss(sent: Sent, *, on_doubt: Doubt) -> Step:
    """Decide about a job whose result nobody will ever have."""
    return "run" if on_doubt == "retry" and sent.times < MOST_TIMES else "doubt"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions:
    """
    What a worker is given: plain values that pickle, and no secret among them.

    Attributes:
        to: The store's URL.
        job_type: The type of rows that name none.
        config: The config of all rows; ``{column}`` in a string is filled in.
        accept: The format of all rows.
        max_concurrency: The most jobs in flight in this worker.
        submit: ``"sync"`` waits on the connection, ``"async"`` leaves each job with the server.
        on_doubt: ``"retry"`` sends a job that may have been paid once more; ``"hold"`` does not.
        retry_failed: Send again what failed in an earlier run.
        base_url: Of the API; by default the worker's environment says it.
        token_variable: The name of the variable in which a worker finds its token.
        lease_seconds: How long a worker goes on without a sign of life from the driver; 0 for
            a run without a driver that could die alone.
        columns: Of the rows, those that belong to the job; ``None``: all.
        version: Of this package where the run began.
    """

    to: str
    job_type: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    accept: str | None = None
    max_concurrency: int = 64
    submit: Literal["sync", "async"] = "sync"
    on_doubt: Doubt = "retry"
    retry_failed: bool = False
    base_url: str | None = None
    token_variable: str = "PRODIA_TOKEN"  # noqa: S105  (the name of a variable)
    lease_seconds: float = 30.0
    columns: tuple[str, ...] | None = None
    version: str = __version__

    def __post_init__(self) -> None:
        for name, allowed in (("submit", ("sync", "async")), ("on_doubt", ("retry", "hold"))):
            if getattr(self, name) not in allowed:
                raise InvalidRequestError(
                    f"{name} must be one of {allowed}, not {shown(getattr(self, name))}"
                )
        if not isinstance(self.to, str) or not self.to:
            raise InvalidRequestError(f"to must be a store's URL, not {shown(self.to)}")

    def settings(self) -> dict[str, Any]:
        """Return what a later run is compared with."""
        return {"job_type": self.job_type, "config": dict(self.config), "accept": self.accept}


def check_settings(record: ObjectRecord, options: WorkerOptions, *, also: bool) -> None:
    """
    Write down with which settings a run is made, or compare them with those of an earlier one.

    Raises:
        BatchChangedError: They differ, and nobody said `also`.
        BatchError: The store cannot be read or written.
    """
    text = record.get(RUN)
    earlier = json.loads(text)["settings"] if text is not None else None
    wanted = json.loads(json.dumps(options.settings(), default=str))
    if earlier is not None and earlier != wanted and not also:
        changed = tuple(
            f"{name} was {shown(earlier.get(name))} and is {shown(value)}"
            for name, value in wanted.items()
            if earlier.get(name) != value
        )
        error = BatchChangedError(
            f"{record.url} was made otherwise: {'; '.join(changed)}. Say also=True to have both "
            "in one place, or take another"
        )
        error.differences = changed
        raise error
    record.put(
        RUN,
        json.dumps({"settings": wanted, "version": options.version, "began": time.time()}).encode(),
    )


class Worker:
    """
    Runs rows for one process; make it once, and use it on one event loop.

    Raises:
        BatchError: The package has another version here than where the run
            began, the token is missing, or the store cannot be read.
    """

    def __init__(self, options: WorkerOptions) -> None:
        self._options = options
        if options.version != __version__:
            raise BatchError(
                f"this worker has prodia_async {__version__}, and the run began with "
                f"{options.version}: equal versions are needed, or keys and promises may differ"
            )
        if not os.environ.get(options.token_variable):
            raise BatchError(
                f"the environment of this worker has no {options.token_variable}; hand it over "
                "with the engine's means (for Ray: runtime_env, env_vars)"
            )
        self._record = ObjectRecord(options.to)
        self._client = AsyncProdia(
            os.environ[options.token_variable],
            base_url=options.base_url,
            max_concurrency=options.max_concurrency,
            price=True,
        )
        self._trade = ProdiaTrade(self._client)
        self._defaults = Defaults(options.job_type, options.config, (), options.accept, Path())
        self._under_way: dict[str, asyncio.Future[Done]] = {}
        self._lease = LeaseView(options.lease_seconds)
        self._looking: asyncio.Task[None] | None = None
        self._threads = anyio.CapacityLimiter(STORE_THREADS)

    def __reduce__(self) -> Any:
        raise TypeError("a Worker holds a client and cannot be pickled; send its WorkerOptions")

    async def rows(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """
        Run some rows, all at once as far as the bound allows.

        Returns:
            For each row what it gained (`COLUMNS`), in the rows' order. One
            row's failure is in its own.
        """
        if self._options.lease_seconds and self._looking is None:
            await self._look_at_lease()
            self._looking = asyncio.create_task(self._watch_lease())
        return list(await asyncio.gather(*map(self._row, rows)))

    async def aclose(self) -> None:
        """Close the client. Nothing depends on it: every row is safe before it is returned."""
        if self._looking is not None:
            self._looking.cancel()
        await self._client.aclose()

    # One row.

    async def _row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        own = row
        if self._options.columns is not None:
            own = {name: row[name] for name in self._options.columns if name in row}
        try:
            asked = await self._trade.asked(to_job(own, 0, self._defaults))
        except ProdiaError as error:
            return self._told(Done(key="", type="", state="failed", error=_words(error)))
        key = asked.key.hex()
        twin = self._under_way.get(key)
        if twin is not None:  # an equal row: it is run once, and both have its output
            return self._told(await asyncio.shield(twin))
        mine: asyncio.Future[Done] = asyncio.get_running_loop().create_future()
        self._under_way[key] = mine
        try:
            done = await self._job(asked, key)
        except Exception as error:  # noqa: BLE001  (one row's failure is its own)
            done = Done(key=key, type=asked.type, state="failed", error=_words(error))
        except BaseException:
            mine.cancel()
            raise
        finally:
            del self._under_way[key]
        mine.set_result(done)
        return self._told(done)

    async def _job(self, asked: Asked, key: str) -> Done:
        options = self._options
        done = await self._in_thread(self._record.done, key)
        sent = None
        if done is None or (done.state != "done" and options.retry_failed):
            sent = await self._in_thread(self._record.sent, key)
        step = next_step(
            done,
            sent,
            now=time.time(),
            on_doubt=options.on_doubt,
            retry_failed=options.retry_failed,
        )
        if step == "have" and done is not None:
            return done
        if step == "collect" and sent is not None and sent.job_id is not None:
            try:
                return await self._collect(asked, key, sent)
            except JobNotFoundError:
                step = after_loss(sent, on_doubt=options.on_doubt)
        if step == "doubt":
            return _doubtful(asked, key, sent)
        if not await self._may_start():
            error = "not sent: the run's driver is gone"
            return Done(key=key, type=asked.type, state="left", error=error)
        times = 1 + (sent.times if sent is not None else 0)
        return await self._run(asked, key, times)

    async def _run(self, asked: Asked, key: str, times: int) -> Done:
        options, began = self._options, time.monotonic()
        try:
            if options.submit == "async":
                job_id, keeps = await self._trade.submit(asked)
                sent = Sent(job_id=job_id, keeps_until=time.time() + keeps, times=times)
                with anyio.CancelScope(shield=True):  # the id is all that is left of the money
                    await self._in_thread(self._record.mark_sent, key, sent)
                made = await self._trade.collect(job_id)
            else:
                if options.on_doubt == "hold":
                    await self._in_thread(self._record.mark_sent, key, Sent(times=times))
                made = await self._trade.run(asked)
        except ProdiaError as error:
            return await self._failed(asked, key, error, times, began)
        return await self._finished(asked, key, made, times, began)

    async def _collect(self, asked: Asked, key: str, sent: Sent) -> Done:
        assert sent.job_id is not None  # noqa: S101  (the caller looked)
        began = time.monotonic()
        try:
            made = await self._trade.collect(sent.job_id)
        except JobNotFoundError:
            raise
        except ProdiaError as error:
            return await self._failed(asked, key, error, sent.times, began)
        return await self._finished(asked, key, made, sent.times, began)

    async def _finished(self, asked: Asked, key: str, made: Made, times: int, began: float) -> Done:
        error = no_output(asked.type, made)
        done = Done(
            key=key,
            type=asked.type,
            state="done" if error is None else "failed",
            error=None if error is None else _words(error),
            job_id=made.job_id,
            seed=made.seed,
            dollars=made.dollars,
            seconds=round(time.monotonic() - began, 3),
            attempts=made.attempts,
            refusals=made.refusals,
            paid_again=times - 1,
            finished_at=time.time(),
            request=asked.line,
        )
        with anyio.CancelScope(shield=True):  # it is paid: it is made safe first
            done = await self._in_thread(self._record.finish, done, made.outputs)
        return done  # noqa: RET504  (for the type checker a scope may swallow)

    async def _failed(
        self, asked: Asked, key: str, error: ProdiaError, times: int, began: float
    ) -> Done:
        done = Done(
            key=key,
            type=asked.type,
            state="failed",
            job_id=error.job_id,
            seconds=round(time.monotonic() - began, 3),
            attempts=len(error.attempts),
            paid_again=times - 1,
            error=_words(error),
            finished_at=time.time(),
            request=asked.line,
        )
        if error.may_have_run and self._options.on_doubt == "hold":
            return replace(done, state="in doubt")
        outputs = [content_of(each) for each in complete_outputs(error)]
        with anyio.CancelScope(shield=True):
            done = await self._in_thread(self._record.finish, done, outputs)
        return done  # noqa: RET504  (for the type checker a scope may swallow)

    def _told(self, done: Done) -> dict[str, Any]:
        paths = [f"{self._record.url}/{name}" for name in done.names]
        return {
            "key": done.key,
            "state": done.state,
            "path": paths[0] if paths else None,
            "paths": paths,
            "bytes": done.sizes[0] if done.sizes else None,
            "seed": done.seed,
            "dollars": done.dollars,
            "seconds": done.seconds,
            "job_id": done.job_id,
            "attempts": done.attempts,
            "refusals": done.refusals,
            "paid_again": done.paid_again,
            "error": done.error,
        }

    async def _in_thread(self, do: Callable[..., T], *arguments: Any) -> T:
        return await anyio.to_thread.run_sync(do, *arguments, limiter=self._threads)

    # The lease.

    async def _may_start(self) -> bool:
        """Wait for a sign of life where there was one lately; return whether work may begin."""
        if not self._options.lease_seconds:
            return True
        while not self._lease.holds(time.monotonic()):
            if self._lease.is_over(time.monotonic()):
                return False
            await asyncio.sleep(self._lease.seconds / RENEWALS / 4)
        return True

    async def _watch_lease(self) -> None:
        while True:
            await asyncio.sleep(self._lease.seconds / RENEWALS)
            await self._look_at_lease()

    async def _look_at_lease(self) -> None:
        try:
            text = await self._in_thread(self._record.get, LEASE)
            said = json.loads(text) if text is not None else {}
        except (BatchError, ValueError):
            return  # no news is no sign of life
        if text is not None:
            self._lease.seen(
                said.get("beat"), time.monotonic(), released=bool(said.get("released"))
            )


def _doubtful(asked: Asked, key: str, sent: Sent | None) -> Done:
    job_id = sent.job_id if sent is not None else None
    error = "it was sent before and may have been paid; its result is lost"
    return Done(key=key, type=asked.type, state="in doubt", job_id=job_id, error=error)


def _words(error: BaseException) -> str:
    return one_line(f"{type(error).__name__}: {error}")[:500]
