"""
Who reads HTTP/1.1: h11, or httptools where the extra ``fast`` is installed.

Both are well-kept libraries behind the one face of `_settled.Response`. h11 is
written in Python and checks everything it reads; httptools (llhttp, the parser
of Node.js) is written in C and costs a fifth less of a job (measured). Where they
differ a response can have two readings, and ours is the same with either: a head
that httptools refuses is given to h11, which reads header lines that are folded,
lines that end in LF alone, and a length that is said twice if it is equal.
Proxies write such heads, and what is behind one has been paid for.
"""

from __future__ import annotations

import contextlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import h11

from ._settled import MAX_HEAD, BadResponseError, Response

if TYPE_CHECKING:
    from collections.abc import Callable

_httptools: Any = None
with contextlib.suppress(ImportError):  # an extra
    import httptools as _httptools

PARSERS = ("h11", "httptools") if _httptools is not None else ("h11",)
"""Those that are installed, the fastest last."""

_BODILESS = frozenset({204, 304})
_END = h11.EndOfMessage()


@lru_cache(maxsize=16)
def _request(method: str) -> h11.Request:
    """Return a request as h11 wants to hear of one, before it reads a response."""
    return h11.Request(method=method, target="/", headers=[("host", "h")])


def _h11_connection(method: str) -> h11.Connection:
    """Return a connection that has sent its request."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
    connection.send(_request(method))
    connection.send(_END)
    return connection


class H11Response(Response):
    """Read by h11."""

    __slots__ = ("_h11",)

    def __init__(self, method: str) -> None:
        super().__init__()
        self._h11 = _h11_connection(method)

    def _parse(self, data: bytes) -> None:
        connection = self._h11
        try:
            connection.receive_data(data)
            while True:
                event = connection.next_event()
                kind = type(event)
                if kind is h11.Data:
                    assert isinstance(event, h11.Data)  # noqa: S101  (for the type checker)
                    self._chunks += event.chunk_start
                    self._add(bytes(event.data))
                elif kind is h11.Response:
                    assert isinstance(event, h11.Response)  # noqa: S101  (for the type checker)
                    self._begin(event.status_code, event.http_version, event.headers.raw_items())
                elif kind is h11.EndOfMessage:
                    self.has_more = bool(connection.trailing_data[0])
                    self._end(is_last=connection.their_state is not h11.DONE)
                    return
                elif kind is not h11.InformationalResponse:
                    return  # it wants more, or the connection has ended
        except h11.RemoteProtocolError as error:
            raise BadResponseError(str(error)) from None

    def _parse_eof(self) -> None:
        # What it says of an early end, the caller says in words of its own.
        with contextlib.suppress(BadResponseError):
            self._parse(b"")


class ToolsResponse(H11Response):
    """Read by httptools, which calls the methods named ``on_...``; by h11 if it refuses a head."""

    __slots__ = ("_ends_with_connection", "_fields", "_head", "_is_refused", "_method", "_tools")

    def __init__(self, method: str) -> None:
        Response.__init__(self)
        self._method = method
        self._head: list[bytes] = []  # all that came, as long as it may have to be read again
        self._is_refused = False
        self._fields: list[tuple[bytes, bytes]] = []
        self._ends_with_connection = False
        self._tools: Any = _httptools.HttpResponseParser(self)
        # As RFC 9112 and h11 have it; such a connection is not used again.
        self._tools.set_dangerous_leniencies(lenient_chunked_length=True)

    def _parse(self, data: bytes) -> None:
        if self._is_refused:
            super()._parse(data)
            return
        if not self.status:
            self._head.append(data)
        try:
            self._tools.feed_data(data)
        except (_httptools.HttpParserError, _httptools.HttpParserUpgrade) as error:
            if self.is_over:
                self.has_more = True  # whatever it was
            elif isinstance(error.__context__, BadResponseError):
                raise BadResponseError(str(error.__context__)) from None
            elif self.status:
                raise BadResponseError(str(error)) from None
            else:
                self._is_refused = True
        finally:
            if self.is_over or self._is_refused:
                self._tools = None  # they refer to each other
        if self._is_refused:
            self._h11 = _h11_connection(self._method)
            super()._parse(b"".join(self._head))
        if self.status:
            self._head = []

    def _parse_eof(self) -> None:
        if self._is_refused:
            super()._parse_eof()
        elif self.status and self._ends_with_connection:
            self._end(is_last=True)

    def on_message_begin(self) -> None:
        if self.is_over:
            self.has_more = True

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        fields, self._fields = self._fields, []
        status = self._tools.get_status_code()
        if self.is_over or (status < 200 and status != 101):
            return
        if status == 101:
            raise BadResponseError("a 101 Switching Protocols that nobody asked for")
        self._begin(status, self._tools.get_http_version().encode(), fields)
        names = {name.lower() for name, _ in fields}
        self._ends_with_connection = status not in _BODILESS and names.isdisjoint(
            {b"content-length", b"transfer-encoding"}
        )

    def on_chunk_header(self) -> None:
        self._chunks += 1

    def on_body(self, data: bytes) -> None:
        if not self.is_over:
            self._add(data)

    def on_message_complete(self) -> None:
        if self.status and not self.is_over:
            self._end(is_last=not self._tools.should_keep_alive())


def response_maker(parser: str) -> Callable[[str], Response]:
    """
    Return what makes the response to a request of some method.

    Raises:
        ValueError: No such parser is installed.
    """
    if parser not in PARSERS:
        raise ValueError(f"parser must be one of {', '.join(PARSERS)}, not {parser!r}")
    return H11Response if parser == "h11" else _tools_response


def _tools_response(method: str) -> Response:
    # httptools cannot be told that the answer to a HEAD has no body.
    return H11Response(method) if method == "HEAD" else ToolsResponse(method)
