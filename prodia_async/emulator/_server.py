"""The emulator as its users see it: what can be set, planned and looked at."""

from __future__ import annotations

import contextlib
import importlib.util
import ipaddress
import os
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import anyio
import anyio.to_thread

from ._app import App
from ._capacity import Capacity
from ._ledger import Ledger, Record
from ._running import Running, listen
from ._script import Framing, Mishap, PlannedReply, Plans, seconds_text
from ._settings import Settings
from .fireworks._api import PREFIX
from .fireworks._behaviour import FireworksBehaviour
from .prodia._behaviour import Behaviour
from .prodia._catalogue import CATALOGUE
from .prodia._jobs import FAILED
from .prodia._store import State, Store

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from ._settings import Latency, RetryAfter
    from .fireworks._webhooks import Webhook


class Emulator:
    """
    A local server that answers as the Prodia v2 API is documented to.

    A job can ask for its own fate: a prompt with ``[fail]`` or ``[fail: why]``
    ends ``failed``, one with the word ``nsfw`` trips the moderation of its
    workflow, and a face swap's source called ``landscape`` or ``no-face``
    (anywhere in its name) has no face in it. A film whose prompt has ``[30 MB]``
    in it (or KB, or GB: powers of ten) is that large.

    Times are seconds, sizes bytes. Use it as ``async with`` (asyncio or trio)
    or ``with``; `start`, `stop`, `wait` and `serve_forever` do the same by hand.

    Args:
        host: Where to listen. Anything but loopback needs `allow_remote`.
        port: 0 takes a free one.
        tokens: Those that are valid; ``None`` takes any that is not empty.
        privileged_types: Job types that no token may run: they answer 403.
        workers: How many jobs run at once; one more is refused with 429.
        type_workers: Job types with workers of their own, and how many.
        latency: How long a worker holds a job: seconds, bounds of a uniform
            distribution (its sequence repeats from run to run), or a function
            of the job type. Drawing counts towards it. One that raises makes
            a 500, or a failed async job.
        retry_after: The header of a 429: seconds, the header's text as it
            stands, a function that makes it, or ``None`` for no header.
        max_upload_bytes: Largest request body; a larger one answers 413
            (documented without a number; this one is chosen).
        keep_alive: How long an idle connection is kept open.
        max_records: How many records the ledger keeps; its totals are exact
            beyond that.
        allow_remote: Listen on an address other machines can reach.
        behaviour: What it does where the documents leave a choice; the default
            follows the newest of them. See `behave`.
        max_async_jobs: How many submitted jobs may be unfinished at once; one
            more is refused with 429 (documented without a number; chosen).
        sync_only_types: Job types that do not permit async: submitting one is
            a 400. ``None``: those of the catalogue, which are nano-banana's.
        fireworks: How the second API behaves; see `fireworks_url`.
        accept_unknown_types: Run job types that nobody knows, as what their
            names say they do; the same as `Behaviour.accept_unknown_types`.
        http2: Speak HTTP/2 beside HTTP/1.1, as the service does; needs the
            extra ``emulator-http2``. A drop breaks a whole connection then.
        certificate: Paths of a certificate chain and its key (PEM) to speak TLS;
            the URLs begin with ``https`` then, at both ports.

    Raises:
        ValueError: A negative number, or a `host` that is not loopback
            without `allow_remote`.
        TypeError: `tokens` is one string.
        ImportError: `http2` without hypercorn.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tokens: Collection[str] | None = None,
        privileged_types: Collection[str] = (),
        workers: int = 20,
        type_workers: Mapping[str, int] | None = None,
        latency: Latency = 0.0,
        retry_after: RetryAfter = 1.0,
        max_upload_bytes: int = 256 << 20,
        keep_alive: int = 60,
        max_records: int = 10_000,
        allow_remote: bool = False,
        behaviour: Behaviour | None = None,
        max_async_jobs: int = 100,
        sync_only_types: Collection[str] | None = None,
        fireworks: FireworksBehaviour | None = None,
        accept_unknown_types: bool = False,
        http2: bool = False,
        certificate: tuple[str | os.PathLike[str], str | os.PathLike[str]] | None = None,
    ) -> None:
        if isinstance(tokens, str):
            raise TypeError("tokens must be a collection of strings, not one string")
        if not allow_remote and not _is_loopback(host):
            raise ValueError(
                f"host must be a loopback address, not {host!r}: "
                "allow_remote=True lets other machines in"
            )
        if http2 and importlib.util.find_spec("hypercorn") is None:
            raise ImportError(
                "http2=True needs hypercorn: pip install 'prodia-async[emulator-http2]'",
                name="hypercorn",
            )
        for count in (workers, *(type_workers or {}).values()):
            _check("workers", count)
        _check("max_async_jobs", max_async_jobs)
        if sync_only_types is None:
            sync_only_types = [kind.name for kind in CATALOGUE.values() if not kind.permits_async]
        self._host = host
        self._port = port
        self._keep_alive = keep_alive
        self._http2 = http2
        self._certificate = (
            None if certificate is None else (os.fspath(certificate[0]), os.fspath(certificate[1]))
        )
        self._settings = Settings(
            tokens=None if tokens is None else frozenset(tokens),
            privileged_types=frozenset(privileged_types),
            latency=latency,
            retry_after=retry_after,
            max_upload_bytes=max_upload_bytes,
            max_async_jobs=max_async_jobs,
            sync_only_types=frozenset(sync_only_types),
            behaviour=_behaviour(behaviour, accept_unknown_types),
            fireworks=fireworks or FireworksBehaviour(),
        )
        self._capacity = Capacity(workers, type_workers or {})
        self._plans = Plans()
        # Kept through a stop and a new start, as the ledger is.
        self._store = Store()
        self._life = threading.Lock()
        self._running: Running | None = None
        self._stopped = threading.Event()
        self._stopped.set()
        self.ledger = Ledger(max_records)
        """What was received, answered, run and charged."""
        self.webhooks: list[Webhook] = []
        """The webhooks of Kontext tasks that were called, oldest first."""

    def __repr__(self) -> str:
        running = self._running
        where = f"at {self._url(running.address)}" if running else "stopped"
        return (
            f"<Emulator {where} workers={self.workers} "
            f"busy={self._capacity.busy} ledger={self.ledger!r}>"
        )

    @property
    def running(self) -> bool:
        """Whether it is accepting connections."""
        return self._running is not None

    @property
    def base_url(self) -> str:
        """
        ``http://127.0.0.1:PORT``, without a path; ``https`` if it has a certificate.

        Raises:
            RuntimeError: It is stopped.
        """
        running = self._running
        if running is None:
            raise RuntimeError("the emulator is not running: use it as a context manager")
        return self._url(running.address)

    @property
    def fireworks_url(self) -> str:
        """``http://127.0.0.1:PORT/inference/v1``: the base URL of the Fireworks image API."""
        return self.base_url + PREFIX

    @property
    def fireworks(self) -> FireworksBehaviour:
        """How the second API behaves; may be set at any time, for requests that arrive later."""
        return self._settings.fireworks

    @fireworks.setter
    def fireworks(self, behaviour: FireworksBehaviour) -> None:
        self._settings.fireworks = behaviour

    @property
    def port(self) -> int:
        """The port it listens on; raises RuntimeError while it is stopped."""
        return int(self.base_url.rpartition(":")[2])

    @property
    def workers(self) -> int:
        """How many jobs run at once; may be set at any time."""
        return self._capacity.shared.workers

    @workers.setter
    def workers(self, count: int) -> None:
        self.set_workers(count)

    def set_workers(self, count: int, type: str | None = None) -> None:
        """
        Change the capacity while it runs.

        Args:
            count: At least 0. Jobs under way always finish.
            type: Changes that job type's own workers, and gives it some if it
                shared the others' before; ``None`` changes the shared ones.
        """
        _check("workers", count)
        self._capacity.set_workers(count, type)

    @property
    def busy(self) -> int:
        """How many workers hold a job now."""
        return self._capacity.busy

    @property
    def peak_busy(self) -> int:
        """The most shared workers that were ever busy at once."""
        return self._capacity.shared.peak

    @property
    def latency(self) -> Latency:
        """How long a worker holds a job; may be set at any time, for jobs that start later."""
        return self._settings.latency

    @latency.setter
    def latency(self, latency: Latency) -> None:
        self._settings.latency = latency

    @property
    def retry_after(self) -> RetryAfter:
        """The Retry-After of a 429; may be set at any time."""
        return self._settings.retry_after

    @retry_after.setter
    def retry_after(self, retry_after: RetryAfter) -> None:
        self._settings.retry_after = retry_after

    def hold(self) -> None:
        """
        Let no job finish until `release`.

        Jobs that a worker has or gets stay with it, so that a test can look at
        a full server for as long as it likes.
        """
        self._settings.held = True

    def release(self) -> None:
        """Let the jobs finish that `hold` kept back, and those to come."""
        self._settings.held = False
        running = self._running
        if running is not None:
            running.let_go()

    def fail_next(
        self,
        count: int = 1,
        status: int = 503,
        *,
        body: bytes | str | None = None,
        content_type: str = "text/plain; charset=utf-8",
        retry_after: float | str | None = None,
        headers: Mapping[str, str] | None = None,
        charged: bool = False,
        before_body: bool = False,
        reads: bool = False,
    ) -> None:
        """
        Answer the next requests for jobs with an error, whatever they ask.

        Calls queue up: ``fail_next(2, 503)`` and then ``fail_next(1, 429)``
        plans three replies in that order.

        Args:
            count: How many requests.
            status: The HTTP status.
            body: ``None`` makes a failed job result of a 400, and a line of
                text of anything else; of anything an ``error`` object for the
                second API, whose submissions and polls count as requests for jobs.
            content_type: Of `body`.
            retry_after: The Retry-After header: seconds, or its text as it stands.
            headers: Further headers, as they stand.
            charged: The ledger counts the job as run and charged all the same.
            before_body: Answer before the request's body is read.
            reads: Plan it for the reads of async jobs (state, result, listing,
                output) instead of the requests for jobs, sync and async.
        """
        given = dict(headers or {})
        if retry_after is not None:
            given["retry-after"] = (
                retry_after if isinstance(retry_after, str) else seconds_text(retry_after)
            )
        reply = PlannedReply(
            status=status,
            body=body.encode() if isinstance(body, str) else body,
            content_type=content_type,
            headers=given,
            charged=charged,
            before_body=before_body,
        )
        self._plan(reply, count, reads=reads)

    def drop_next(
        self,
        count: int = 1,
        *,
        at: Literal["connect", "sent", "head"] | float = "sent",
        reads: bool = False,
    ) -> None:
        """
        Break the connection of the next requests for jobs.

        But for ``connect`` this queues up with `fail_next`: a request gets
        either. The job is judged, runs and is charged as ever; its record has
        the status that was lost, and a `mishap`.

        Args:
            count: How many requests; for ``connect``, how many attempts.
            at: ``sent``: reset when the answer was ready, without a byte of it.
                ``head``: after half of the answer's head (with `http2`: as
                ``sent``). A number from 0 to 1: after that share of the body
                (never all of it). ``connect``: from
                now on nobody listens and idle connections are closed, so that
                nothing is sent at all, until this process has been refused
                `count` times (attempts of other processes, and of uvloop, are
                refused too and not counted).
            reads: As for `fail_next`.

        Raises:
            ValueError: `at` is none of these.
            RuntimeError: ``connect`` while it is stopped.
        """
        if at == "connect":
            running = self._running
            if running is None:
                raise RuntimeError("the emulator is not running: nobody can connect as it is")
            running.refuse(count)
        elif at in {"sent", "head"}:
            self._plan(Mishap(at=at), count, reads=reads)
        elif isinstance(at, (int, float)) and not isinstance(at, bool) and 0 <= at <= 1:
            self._plan(Mishap(share=at), count, reads=reads)
        else:
            raise ValueError(f"at is 'connect', 'sent', 'head' or a number from 0 to 1, not {at!r}")

    def slow_next(
        self,
        count: int = 1,
        *,
        bytes_per_second: float,
        first_byte: float = 0.0,
        reads: bool = False,
    ) -> None:
        """
        Send the answers to the next requests for jobs slowly; queues up with `fail_next`.

        Args:
            count: How many requests.
            bytes_per_second: The pace of the body.
            first_byte: Seconds of silence before the head.
            reads: As for `fail_next`.

        Raises:
            ValueError: A pace that is not above 0, or a negative silence.
        """
        if bytes_per_second <= 0 or first_byte < 0:
            raise ValueError(
                "bytes_per_second must be above 0 and first_byte 0 or more, "
                f"not {bytes_per_second} and {first_byte}"
            )
        self._plan(
            Mishap(bytes_per_second=bytes_per_second, first_byte=first_byte), count, reads=reads
        )

    def truncate_next(
        self,
        count: int = 1,
        *,
        keep: float = 0.5,
        framing: Framing = "close",
        reads: bool = False,
    ) -> None:
        """
        End the answers to the next requests for jobs early; queues up with `fail_next`.

        The job runs and is charged as ever.

        Args:
            count: How many requests.
            keep: The share of the body that goes out, from 0 to 1 (never all of it).
            framing: ``close``: the connection's end is the body's, so nothing
                but the content tells. ``length``: Content-Length tells.
                ``chunked``: all is well for HTTP, as behind a proxy that was cut off.
            reads: As for `fail_next`.

        Raises:
            ValueError: A share or a framing that is none of these.
        """
        if not 0 <= keep <= 1 or framing not in get_args(Framing):
            raise ValueError(f"keep must be from 0 to 1, and framing one of {get_args(Framing)}")
        self._plan(Mishap(share=keep, framing=framing), count, reads=reads)

    def _plan(self, planned: PlannedReply | Mishap, count: int, *, reads: bool) -> None:
        (self._plans.reads if reads else self._plans.jobs).add(planned, count)

    @property
    def planned(self) -> int:
        """How many planned replies and mishaps nobody has met yet."""
        running = self._running
        refusing = 0 if running is None else running.refusing
        return len(self._plans.jobs) + len(self._plans.reads) + refusing

    def forget_planned(self) -> None:
        """Drop the planned replies and mishaps nobody has met yet."""
        self._plans.jobs.clear()
        self._plans.reads.clear()
        running = self._running
        if running is not None:
            running.accept()

    @property
    def jobs(self) -> list[Record]:
        """
        The records of the jobs that ran, or will, in the order in which they were asked for.

        Refusals, polls and reads are in the `ledger` alone, so
        ``len(emulator.jobs)`` is what would have been paid for.
        """
        ran = (record for record in self.ledger.records() if record.ran)
        return sorted(ran, key=lambda record: record.number)

    def fail_jobs(
        self,
        count: int | None = 1,
        error: str = FAILED,
        *,
        type: str | None = None,
        prompt: str | None = None,
    ) -> None:
        """
        Let the next jobs end ``failed`` after a worker has run them, sync or async.

        A prompt does the same for its own job: ``a fox [fail]``, or
        ``a fox [fail: out of memory]``. How a failed sync job is answered is
        `Behaviour.failure_status`.

        Args:
            count: How many jobs that find an idle worker; ``None``: all, until
                `forget_failures`.
            error: Why, in the job result's ``error``.
            type: Only jobs of that type, or workflows with a step of it.
            prompt: Only jobs with that text in their prompt.
        """
        self._plans.failures.add(count, error, type, prompt)

    def forget_failures(self) -> None:
        """Let no more jobs fail that `fail_jobs` planned to."""
        self._plans.failures.clear()

    # Behaviour.

    @property
    def behaviour(self) -> Behaviour:
        """What it does where the documents leave a choice; may be set at any time."""
        return self._settings.behaviour

    @behaviour.setter
    def behaviour(self, behaviour: Behaviour) -> None:
        self._settings.behaviour = behaviour

    def behave(self, **changes: Any) -> None:
        """
        Change some of `behaviour`, for requests that arrive later.

        ``emulator.behave(poster=True, quoted_state=True)``. The names and
        values are those of `Behaviour`, with the same errors.

        Args:
            changes: Fields of `Behaviour`.
        """
        self._settings.behaviour = replace(self._settings.behaviour, **changes)

    # Async jobs.

    @property
    def max_async_jobs(self) -> int:
        """How many submitted jobs may be unfinished at once; may be set at any time."""
        return self._settings.max_async_jobs

    @max_async_jobs.setter
    def max_async_jobs(self, count: int) -> None:
        _check("max_async_jobs", count)
        self._settings.max_async_jobs = count

    @property
    def async_jobs(self) -> dict[str, State]:
        """The states of all submitted jobs that have not expired, by id, oldest first."""
        return self._store.states(time.monotonic())

    def expire(self, job_id: str | None = None) -> None:
        """
        Let async jobs expire at once, as if their time had passed.

        Args:
            job_id: Which one; ``None``: all of them.
        """
        self._store.expire(job_id)

    # Life.

    def start(self) -> None:
        """
        Start, and return once connections are accepted (some ten milliseconds).

        Raises:
            OSError: The port is in use, or the address cannot be listened on;
                the message names it.
            RuntimeError: It is running already.
        """
        with self._life:
            if self._running is not None:
                raise RuntimeError("the emulator is running already")
            with contextlib.ExitStack() as undo:
                # The second one is the host that finished Kontext pictures lie at.
                listeners = []
                for port in (self._port, 0):
                    listeners.append(listen(self._host, port))
                    undo.callback(listeners[-1].close)
                running = Running(
                    self._make_app,
                    listeners,
                    self._keep_alive,
                    http2=self._http2,
                    certificate=self._certificate,
                )
                undo.pop_all()
            self._stopped.clear()
            self._running = running

    def stop(self) -> None:
        """Stop, and return once the thread has ended; does nothing if it is stopped already."""
        with self._life:
            running, self._running = self._running, None
            if running is not None:
                running.stop()
            self._stopped.set()

    def wait(self, timeout: float | None = None) -> bool:
        """
        Block until it is stopped from elsewhere.

        Args:
            timeout: Seconds to wait at most; ``None`` for as long as it takes.

        Returns:
            Whether it was stopped; ``False`` when the seconds passed first.
        """
        return self._stopped.wait(timeout)

    def serve_forever(self) -> None:
        """Start, and stop at KeyboardInterrupt or when `stop` is called from another thread."""
        with self:
            try:
                self.wait()
            except KeyboardInterrupt:
                return

    def _url(self, address: tuple[str, int]) -> str:
        return _url("https" if self._certificate else "http", address)

    def _make_app(self, samples_port: int) -> App:
        return App(
            self._settings,
            self._capacity,
            self.ledger,
            self._plans,
            self._store,
            samples_port=samples_port,
            webhooks=self.webhooks,
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        try:
            await anyio.to_thread.run_sync(self.start)
        except BaseException:
            # Cancelled: the thread may have started it all the same. stop()
            # waits for a start() under way, and does nothing after one that failed.
            await self._stop_shielded()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop_shielded()

    async def _stop_shielded(self) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self.stop)


def _url(scheme: str, address: tuple[str, int]) -> str:
    host, port = address
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # only reworded
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _behaviour(behaviour: Behaviour | None, accept_unknown_types: bool) -> Behaviour:
    behaviour = behaviour or Behaviour()
    return replace(behaviour, accept_unknown_types=True) if accept_unknown_types else behaviour


def _check(what: str, count: int) -> None:
    if count < 0:
        raise ValueError(f"{what} must be 0 or more, not {count}")
