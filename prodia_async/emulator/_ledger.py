"""
What happened, for tests and people to look at: received, refused, run, charged.

Written by the emulator's loop, read from anywhere. A bounded number of records
is kept; the totals are exact however many there were. No header that could
hold a token is ever copied into it.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload


@dataclass(frozen=True, slots=True)
class ReceivedInput:
    """One ``input`` part as it arrived."""

    filename: str
    """The name it came under."""
    content_type: str | None
    """As its head said; ``None`` if it did not."""
    size: int
    """In bytes."""
    sha256: str
    """Of its bytes, in hexadecimal digits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One request, written when its answer was decided."""

    number: int
    """Counts requests in order of arrival, from 1."""
    at: float
    """When it arrived, in seconds since the epoch."""
    seconds: float
    """From arrival to the answer."""
    method: str
    """HTTP method."""
    path: str
    """Path without the query."""
    client: tuple[str, int] | None
    """Address and port it came from: one pair is one connection."""
    request_id: str
    """The answer's ``x-request-id``."""
    accept: str | None = None
    """The Accept header, ``None`` if there was none."""
    user_agent: str | None = None
    """The User-Agent header, ``None`` if there was none."""
    content_type: str | None = None
    """Media type of the body without parameters, ``None`` if not said."""
    content_length: int | None = None
    """The header's value in bytes; ``None`` when chunked or absent."""
    price: bool = False
    """Whether ``?price=true`` was asked for."""
    type: str | None = None
    """Job type, ``None`` if it never became known."""
    config: Mapping[str, Any] | None = None
    """The job's ``config`` as it came, ``None`` likewise or if there was none."""
    parts: tuple[str, ...] = ()
    """Names of the parts in wire order; empty for JSON."""
    job_filename: str | None = None
    """Filename of the ``job`` part, if it had one."""
    inputs: tuple[ReceivedInput, ...] = ()
    """The ``input`` parts in wire order."""
    status: int | None = None
    """Status answered; ``None`` when the client left before its request was whole."""
    error: str | None = None
    """Why it was refused; ``None`` for a success."""
    retry_after: str | None = None
    """The Retry-After header that was sent, if any."""
    planned: bool = False
    """Whether the answer was a planned reply."""
    mishap: str | None = None
    """
    What befell the answer on its way, as it was planned: ``slow``, ``truncated``, ``dropped at
    head`` and so on.
    """
    submitted: bool = False
    """Whether it created an async job."""
    ran: bool = False
    """Whether a worker ran the job, or will for an async one."""
    charged: bool = False
    """
    Whether it was charged: it ran and is no 400, it was submitted (reads of an async job cost
    nothing), or a planned reply says so.
    """
    dollars: float = 0.0
    """What it cost; 0 when not charged."""
    job_id: str | None = None
    """Id in the answer's job result, or in the path of a read."""
    client_gone: bool = False
    """
    Whether the client had left when the answer was ready. The job ran and is charged all the
    same.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Exact counts since the start, or since `Ledger.clear`."""

    received: int
    """Requests that began to arrive."""
    answered: int
    """Requests whose answer was decided; the rest is under way."""
    succeeded: int
    """Answered with 2xx."""
    refused: int
    """Answered with an error status."""
    submitted: int
    """Async jobs that were created."""
    ran: int
    """Jobs that a worker ran, async ones included."""
    charged: int
    """Jobs that were charged."""
    dollars: float
    """What they cost together."""
    client_gone: int
    """Jobs that ran for a client that had left."""
    abandoned: int
    """Requests whose client left before they were whole."""
    statuses: Mapping[int, int]
    """Answers by status."""
    types: Mapping[str, int]
    """Requests by job type, where it became known."""
    input_bytes: int
    """Size of all inputs together."""


class Ledger(Sequence[Record]):
    """
    The records, oldest first, and exact totals.

    It reads like a list; ``ledger[-1]`` is the answer decided last. Safe to
    use from any thread while the emulator runs.

    Args:
        max_records: How many are kept; the totals count all.
    """

    def __init__(self, max_records: int) -> None:
        self._condition = threading.Condition()
        self._records: deque[Record] = deque(maxlen=max_records)
        self._received = 0
        self._reset()

    def _reset(self) -> None:
        self._received_before = self._received
        self._counts: Counter[str] = Counter()
        self._statuses: Counter[int] = Counter()
        self._types: Counter[str] = Counter()
        # Millionths, so that a million additions stay exact.
        self._micro_dollars = 0

    def __len__(self) -> int:
        return len(self._records)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if isinstance(index, slice):
            return self.records()[index]
        with self._condition:
            return self._records[index]

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records())

    def __repr__(self) -> str:
        totals = self.totals()
        return (
            f"<Ledger received={totals.received} ran={totals.ran} "
            f"refused={totals.refused} charged={totals.charged}>"
        )

    def records(self) -> list[Record]:
        """Copy the records that are kept, oldest first."""
        with self._condition:
            return list(self._records)

    def totals(self) -> Totals:
        """Take a snapshot of the counts."""
        with self._condition:
            counts = self._counts
            return Totals(
                received=self._received - self._received_before,
                answered=counts["answered"],
                succeeded=counts["succeeded"],
                refused=counts["refused"],
                submitted=counts["submitted"],
                ran=counts["ran"],
                charged=counts["charged"],
                dollars=self._micro_dollars / 1e6,
                client_gone=counts["client_gone"],
                abandoned=counts["abandoned"],
                statuses=dict(self._statuses),
                types=dict(self._types),
                input_bytes=counts["input_bytes"],
            )

    def clear(self) -> None:
        """Forget all records and start the totals at 0."""
        with self._condition:
            self._records.clear()
            self._reset()

    def wait_for(self, predicate: Callable[[Totals], bool], timeout: float = 10.0) -> Totals:
        """
        Block until the totals fulfil a condition.

        Args:
            predicate: Is called with a snapshot after each change.
            timeout: Longest wait in seconds.

        Returns:
            The snapshot that fulfilled it.

        Raises:
            TimeoutError: None did in time.
        """
        with self._condition:
            # A Condition's default lock is re-entrant, so totals() may take it again.
            if self._condition.wait_for(lambda: predicate(self.totals()), timeout):
                return self.totals()
        raise TimeoutError(f"the ledger did not come to that within {timeout} s: {self!r}")

    def arrive(self) -> int:
        """Count a request that begins to arrive; return its number."""
        with self._condition:
            self._received += 1
            self._condition.notify_all()
            return self._received

    def write(self, record: Record) -> None:
        """
        Add the record of a request whose answer is decided.

        Args:
            record: What is known of it.
        """
        with self._condition:
            self._records.append(record)
            counts = self._counts
            counts["answered"] += 1
            if record.status is None:
                counts["abandoned"] += 1
            else:
                self._statuses[record.status] += 1
                counts["succeeded" if record.status < 400 else "refused"] += 1
            counts["submitted"] += record.submitted
            counts["ran"] += record.ran
            counts["charged"] += record.charged
            counts["client_gone"] += record.client_gone
            counts["input_bytes"] += sum(item.size for item in record.inputs)
            if record.type is not None:
                self._types[record.type] += 1
            self._micro_dollars += round(record.dollars * 1e6)
            self._condition.notify_all()
