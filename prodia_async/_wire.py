"""What goes over the wire, in nobody's vocabulary: headers, a request, its body."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import KW_ONLY, dataclass
from typing import Literal, NamedTuple, Protocol, TypeAlias, TypeVar, overload

from ._secret import MIN_SECRET, blotted

D = TypeVar("D")

SendingStage: TypeAlias = Literal["connecting", "sending", "running", "reading"]
"""Where an attempt is: before its first byte, before its last, before the answer, in it."""

MAX_RESPONSE_BYTES = 1024 * 1024 * 1024
"""Largest answer that is collected in memory. Chosen: far above the videos of known types."""


class Headers(Mapping[str, str]):
    """
    An answer's headers: looked up in any case, several of one name joined by a comma.

    Equal ones count once. Proxies repeat headers, and a Content-Type that is
    there twice would cost the boundary, and with it a paid answer.

    Args:
        pairs: Names and values in wire order.
    """

    __slots__ = ("_values",)

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            self._values.setdefault(name.lower(), []).append(value)

    def __getitem__(self, name: str) -> str:
        values = self._values[name.lower()]
        return values[0] if len(values) == 1 else ", ".join(dict.fromkeys(values))

    # A miss is usual, and where `Mapping` leads to an exception it costs more (measured).
    @overload
    def get(self, name: str, /) -> str | None: ...
    @overload
    def get(self, name: str, default: D, /) -> str | D: ...
    def get(self, name: str, default: D | None = None, /) -> str | D | None:
        """Return a header, or ``default`` where it is not there."""
        return self[name] if name.lower() in self._values else default

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<Headers {', '.join(self._values)}>"

    def without(self, secret: str) -> Headers:
        """Return the same headers with ``secret`` blotted out of every value."""
        each = (value for values in self._values.values() for value in values)
        if not secret or secret[:MIN_SECRET] not in "\n".join(each):
            return self
        return Headers(
            (name, blotted(value, secret))
            for name, values in self._values.items()
            for value in values
        )

    def get_all(self, name: str) -> list[str]:
        """Return every value of a header, in wire order; empty if it is not there."""
        return list(self._values.get(name.lower(), ()))


class Body(Protocol):
    """A request body of known length that can be sent any number of times."""

    @property
    def content_type(self) -> str:
        """The Content-Type header."""

    @property
    def content_length(self) -> int:
        """Bytes in all."""

    def __aiter__(self) -> AsyncIterator[bytes | memoryview]:
        """Return a fresh iterator over the same bytes."""


@dataclass(frozen=True, slots=True, repr=False)
class WireRequest:
    """
    One request as it is sent, but for the token, which is added at each attempt.

    Attributes:
        method: The HTTP method.
        path: Below the base URL, beginning with a slash; or a whole URL.
        query: Names and values.
        headers: Names and values, without those of the body and the connection.
        body: What is sent, or ``None``.
        kind: What shares the server's capacity with what: the job type.
    """

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: tuple[tuple[str, str], ...]
    body: Body | None
    kind: str

    def __repr__(self) -> str:
        # Header values may be secrets of the caller's.
        size = self.body.content_length if self.body else 0
        return f"<WireRequest {self.method} {self.path} {self.kind} {size} bytes>"


class Sending:
    """
    How far one attempt has come: our own record of it, read when it fails or is cut off.

    Attributes:
        stage: Where it is.
        may_have_run: Whether the server may have the whole request, or answers without it.
        is_answered: Whether its answer has come whole, and no more of it is wanted.
        stream: The number of its HTTP/2 stream, if it has one.
        carrier: The connection that this is a stream of.
    """

    __slots__ = ("carrier", "is_answered", "may_have_run", "stage", "stream")

    def __init__(self) -> None:
        self.stage: SendingStage = "connecting"
        self.may_have_run = self.is_answered = False
        self.stream = 0
        self.carrier: object = None

    def __repr__(self) -> str:
        return f"<Sending {self.stage}{', may have run' if self.may_have_run else ''}>"


sending_now: ContextVar[Sending | None] = ContextVar("sending_now", default=None)
"""The record of the attempt that is made in this context, for what no order gets to."""


class Target(NamedTuple):
    """Where a request goes, taken apart once."""

    scheme: str
    host: str
    port: int
    path: bytes
    """With the query."""
    url: str = ""
    """The whole, as it was given."""


@dataclass(slots=True, eq=False, repr=False)
class Order:
    """
    One request as a transport of ours takes it, with all that the attempt adds.

    Attributes:
        method: The HTTP method.
        target: Where to.
        headers: Names and values, all of them.
        body: At hand, or in pieces; ``None`` for none.
        length: Bytes of the body; ``None`` if nobody knows (then it is sent in chunks).
        sending: Told how far it came.
        connect: Seconds that connecting may take, or ``None``.
        read: Seconds of silence allowed while it is answered, or ``None``.
        write: Seconds that the network may take nothing of it, or ``None``.
    """

    method: str
    target: Target
    headers: Sequence[tuple[bytes, bytes]]
    _: KW_ONLY
    body: bytes | AsyncIterable[bytes | memoryview] | None
    length: int | None
    sending: Sending
    connect: float | None
    read: float | None
    write: float | None

    def __repr__(self) -> str:
        # Without the headers: the token is among them.
        return f"<Order {self.method} to {self.target.host}>"


def is_this_machine(host: str) -> bool:
    """Tell whether a host name or address is a loopback one, by its look."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
