"""
A store as the record of a run: objects that are there whole or not at all.

::

    <key>.<ext>       an output; a further one is <key>-2.<ext>
    <key>.json        done: put after all its outputs
    <key>.failed      it ended otherwise, and how
    <key>.sent        it may be under way or paid: the id of a job that was left with the server
    _run.json         with which settings the run was made
    _lease.json       the driver's sign of life

Any number of workers need no merging, and one listing at the start says what is
there. The keys are those of a folder's record (`_keys`), so a run may go from one
machine to many and back.

Everything here blocks; call it in threads.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from ._outputs import open_store
from ._values import BatchError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ._outputs import Content

RUN, LEASE = "_run.json", "_lease.json"

RETRY_SECONDS = 120.0
"""How long a store that does not answer is tried again. Chosen: networks come back in that."""

RETRY_FIRST, RETRY_MOST = 0.25, 8.0
"""Seconds between two tries: doubled from the first to the most. Chosen."""

_KEY = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """
    What ``<key>.json`` and ``<key>.failed`` say of a job.

    Attributes:
        key: Its content key, 32 hexadecimal digits.
        type: Its job type.
        state: ``"done"`` or ``"failed"``.
        names: Of its outputs in the store, in wire order.
        sizes: Their bytes.
        hashes: Their SHA-256, in hexadecimal digits.
        job_id: The server's id.
        seed: The seed that made it.
        dollars: What the answer told that it cost.
        seconds: How long it took.
        attempts: How often it was sent, refusals included.
        refusals: How many of these were refused for lack of capacity.
        paid_again: How often it may have been paid besides.
        error: What it failed with.
        finished_at: Seconds since the epoch; for people.
        request: What was asked, as a line of an input file.
    """

    key: str
    type: str
    state: str = "done"
    names: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    hashes: tuple[str, ...] = ()
    job_id: str | None = None
    seed: int | None = None
    dollars: float | None = None
    seconds: float | None = None
    attempts: int = 0
    refusals: int = 0
    paid_again: int = 0
    error: str | None = None
    finished_at: float | None = None
    request: Mapping[str, Any] | None = None

    def to_json(self) -> bytes:
        """Return it as it is put."""
        return json.dumps(asdict(self), default=str).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Done:
        """
        Read what `to_json` wrote.

        Raises:
            ValueError: It is something else.
        """
        facts = json.loads(text)
        try:
            return cls(
                **{
                    **facts,
                    **{name: tuple(facts[name]) for name in ("names", "sizes", "hashes")},
                }
            )
        except (TypeError, KeyError) as error:
            raise ValueError(f"no record of a job: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """
    What ``<key>.sent`` says: the job may be under way, and may have been paid.

    Attributes:
        job_id: The id of a job that was left with the server; ``None`` for one
            that was waited for on its connection.
        keeps_until: Wall clock until which its result is kept; ``None`` if unknown.
        times: How often it was sent.
    """

    job_id: str | None = None
    keeps_until: float | None = None
    times: int = 1


@dataclass(frozen=True, slots=True)
class Listing:
    """
    What a store holds, by one listing.

    Attributes:
        done: Keys of jobs that are done.
        failed: Keys of jobs that failed.
        sent: Keys of jobs that may be under way.
    """

    done: frozenset[str] = field(default=frozenset())
    failed: frozenset[str] = field(default=frozenset())
    sent: frozenset[str] = field(default=frozenset())


class ObjectRecord:
    """
    Reads and writes a run's objects.

    Args:
        url: Any URL that fsspec knows; a path is one, too.
        sleep: Waits between two tries.
        now: The clock by which tries are bounded.

    Raises:
        BatchError: fsspec, or what it needs for this store, is missing.
        InvalidRequestError: It is no URL that fsspec knows.
    """

    def __init__(
        self,
        url: str,
        *,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.url = url.rstrip("/")
        self._fs, self._root = open_store(url)
        self._sleep = sleep
        self._now = now

    def __repr__(self) -> str:
        return f"<ObjectRecord {self.url!r}>"

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _tried(self, what: str, do: Callable[[], Any]) -> Any:
        """Do it; again while the store does not answer."""
        until, wait = self._now() + RETRY_SECONDS, RETRY_FIRST
        while True:
            try:
                return do()
            except FileNotFoundError:
                raise
            except PermissionError as error:
                raise BatchError(f"{self.url} does not allow to {what}: {error!s:.200}") from error
            except Exception as error:
                # Each store has errors of its own.
                if self._now() + wait > until:
                    raise BatchError(
                        f"{self.url} could not {what} for {RETRY_SECONDS:g} s: {error!s:.300}"
                    ) from error
            self._sleep(wait)
            wait = min(2 * wait, RETRY_MOST)

    def put(self, name: str, content: bytes) -> None:
        """
        Put an object whole.

        Raises:
            BatchError: The store does not allow it, or did not answer for long.
        """
        self._tried(f"put {name}", lambda: self._put(name, content))

    def _put(self, name: str, content: bytes) -> None:
        path = self._path(name)
        if "file" in self._protocols():
            self._fs.makedirs(self._root, exist_ok=True)
            temporary = f"{path}.part-{hashlib.blake2b(content, digest_size=4).hexdigest()}"
            self._fs.pipe_file(temporary, content)
            self._fs.mv(temporary, path)
        else:
            self._fs.pipe_file(path, content)

    def _protocols(self) -> set[str]:
        protocols = self._fs.protocol
        return {protocols} if isinstance(protocols, str) else set(protocols)

    def get(self, name: str) -> bytes | None:
        """
        Return an object's bytes; ``None`` if it is not there.

        Raises:
            BatchError: The store does not allow it, or did not answer for long.
        """
        try:
            return bytes(self._tried(f"read {name}", lambda: self._fs.cat_file(self._path(name))))
        except FileNotFoundError:
            return None

    def listing(self) -> Listing:
        """Return what is there. One listing, whatever the number of jobs."""
        by_ending: dict[str, set[str]] = {"json": set(), "failed": set(), "sent": set()}
        for name in self.names():
            key, _, ending = name.partition(".")
            if ending in by_ending and _KEY.fullmatch(key):
                by_ending[ending].add(key)
        return Listing(*(frozenset(by_ending[each]) for each in ("json", "failed", "sent")))

    def names(self) -> list[str]:
        """Return the names of all objects."""

        def find() -> list[str]:
            try:
                # What fsspec remembers would hide what other workers put.
                self._fs.invalidate_cache()
                return list(self._fs.find(self._root))
            except FileNotFoundError:
                return []

        return [path.rpartition("/")[2] for path in self._tried("list its objects", find)]

    def done(self, key: str) -> Done | None:
        """Return what became of a job that came to an end, or ``None``."""
        for name in (f"{key}.json", f"{key}.failed"):
            text = self.get(name)
            if text is not None:
                try:
                    return Done.from_json(text)
                except ValueError:
                    continue  # not whole: it is as if it were not there
        return None

    def forget(self, key: str) -> None:
        """Have a job run again that is done, and whose outputs are lost."""
        path = self._path(f"{key}.json")
        with contextlib.suppress(FileNotFoundError):
            self._tried(f"remove {key}.json", lambda: self._fs.rm_file(path))

    def sent(self, key: str) -> Sent | None:
        """Return what is known of a job that may be under way, or ``None``."""
        text = self.get(f"{key}.sent")
        if text is None:
            return None
        try:
            return Sent(**json.loads(text))
        except (ValueError, TypeError):
            return Sent()  # somebody sent it, and no more is known

    def mark_sent(self, key: str, sent: Sent) -> None:
        """Say that a job may be under way; before it leaves, or before its first question."""
        self.put(f"{key}.sent", json.dumps(asdict(sent)).encode())

    def finish(self, done: Done, outputs: Sequence[Content] = ()) -> Done:
        """
        Put a job's outputs, then say that it is done (or failed).

        Returns:
            The same, with the names, sizes and hashes of its outputs.
        """
        names = []
        for number, output in enumerate(outputs):
            name = f"{done.key}{f'-{number + 1}' if number else ''}.{output.ext}"
            self.put(name, output.content)
            names.append(name)
        facts = asdict(done) | {
            "names": tuple(names),
            "sizes": tuple(len(each.content) for each in outputs),
            "hashes": tuple(hashlib.sha256(each.content).hexdigest() for each in outputs),
        }
        done = Done(**facts)
        self.put(f"{done.key}.{'json' if done.state == 'done' else 'failed'}", done.to_json())
        return done
