"""What the clients of all APIs share: options and views, connections, totals. In nobody's words."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypeVar

from ._connections import default_transport
from ._engine import Engine
from ._errors import InvalidRequestError
from ._httpx import httpx
from ._map import Outcomes
from ._notebook import show_lists
from ._retry import RetryPolicy, check_seconds
from ._scheduler import Scheduler, SchedulerStatistics
from ._transport import Sender
from ._vocabulary import Terms
from ._waiting import watch
from ._wire import Secret, is_this_machine

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from ._source import Source

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

TokenSource: TypeAlias = str | Callable[[], Awaitable[str]]
"""A credential, or a function that returns one, awaited for each attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """
    What an API calls the things that every API has.

    Attributes:
        credential: In a sentence: ``token``.
        option: The client's argument for it.
        variable: The environment variable for it.
        url: The base URL by default.
        url_variable: The environment variable for another one.
        url_suffix: What may be given or left out at a base URL's end.
        requests: What to send to another process rather than the client.
    """

    credential: str
    option: str
    variable: str
    url: str
    url_variable: str
    url_suffix: str
    requests: str


class BaseClient:
    """
    The client of some API, without a word of that API.

    A subclass names its `Account` and the options that `with_options` takes,
    and calls `_set_options` with all of them at the end of its ``__init__``.
    """

    _account: ClassVar[Account]
    _option_names: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        *,
        base_url: str | None,
        max_concurrency: int,
        adaptive: bool,
        connect_timeout: float,
        transport: httpx.AsyncBaseTransport | None,
        http_client: httpx.AsyncClient | None,
        allow_http: bool,
        max_response_bytes: int,
    ) -> None:
        if transport is not None and http_client is not None:
            raise InvalidRequestError("give transport or http_client, not both")
        check_seconds("connect_timeout", connect_timeout)
        account = self._account
        address = _check_base_url(
            base_url or os.environ.get(account.url_variable) or account.url,
            account,
            allow_http=allow_http,
        )
        self._base_url = address
        self._max_concurrency = max_concurrency
        self._max_response_bytes = max_response_bytes

        def make_sender() -> Sender:
            own = None if http_client is not None else transport or default_transport(address)
            return Sender(
                address,
                transport=own,
                client=http_client,
                connect_timeout=connect_timeout,
            )

        def make_scheduler() -> Scheduler:
            return Scheduler(max_concurrency=max_concurrency, adaptive=adaptive)

        self._engine = Engine(make_sender=make_sender, make_scheduler=make_scheduler)
        watch(self._engine)
        show_lists()

    def _set_options(self, options: Mapping[str, Any]) -> None:
        """
        Check and keep what a view may have of its own; a subclass adds what is its alone.

        Args:
            options: One value for each of the option names.

        Raises:
            InvalidRequestError: One is out of its range.
        """
        token = options[self._account.option]
        if token is None:
            token = os.environ.get(self._account.variable, "")
        if not callable(token):
            _check_token(token, self._account)
        retry, hook = options["retry"], options["hook"]
        if retry is None:
            retry = RetryPolicy()
        if not isinstance(retry, RetryPolicy):
            raise InvalidRequestError(f"retry must be a RetryPolicy(...), not {retry!r:.80}")
        check_seconds("timeout", options["timeout"])
        if options["deadline"] is not None:
            check_seconds("deadline", options["deadline"])
        if hook is not None and (not callable(hook) or inspect.iscoroutinefunction(hook)):
            raise InvalidRequestError(f"hook must be a plain function, not {hook!r:.80}")
        if isinstance(token, str):
            token = Secret(token)
        self._options = {**options, self._account.option: token}
        self._token: TokenSource = token
        self._retry = retry
        self._timeout: float = options["timeout"]
        self._deadline: float | None = options["deadline"]
        self._hook = hook

    def __repr__(self) -> str:
        counts = self.statistics()
        return (
            f"<{type(self).__name__} {self._base_url}: {counts.in_flight} of "
            f"{counts.max_concurrency} in flight, {counts.queued + counts.waiting} waiting, "
            f"{counts.completed} completed>"
        )

    def __reduce__(self) -> Any:
        account = self._account
        raise TypeError(
            f"an {type(self).__name__} holds connections and {account.credential}s, and cannot be "
            f"pickled; send {account.requests} and make a client in the process that runs them"
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections. The client, and every view of it, cannot be used afterwards."""
        await self._engine.aclose()

    def statistics(self) -> SchedulerStatistics:
        """Return what the client is doing and has done: slots, queues, refusals, totals."""
        return self._engine.statistics()

    def _view(self, overrides: Mapping[str, Any]) -> Self:
        """Return a client of other options over the same connections, scheduler and totals."""
        unknown = sorted(set(overrides) - set(self._option_names))
        if unknown:
            raise InvalidRequestError(
                f"with_options takes {', '.join(self._option_names)}, not "
                f"{', '.join(unknown)}; what belongs to the connections needs a client of its own"
            )
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__)
        view._set_options({**self._options, **overrides})
        return view

    def _outcomes(
        self,
        items: Iterable[Item] | AsyncIterable[Item],
        run: Callable[[int, Item, Source], Awaitable[Outcome]],
        *,
        alone: tuple[type, ...],
        many: str,
        single: str,
        ordered: bool,
        buffer: int,
        job_type_of: Callable[[Item], str | None] | None = None,
    ) -> Outcomes[Item, Outcome]:
        """
        Run many at once.

        Args:
            items: What was given to ``map``.
            run: Runs one item to its outcome.
            alone: Types that can be iterated and are a single item all the same.
            many: What the items are.
            single: What to call with a single one.
            ordered: As ``map`` takes it.
            buffer: As ``map`` takes it.
            job_type_of: Tells an item's job type, if it has one.

        Raises:
            InvalidRequestError: It is not iterable, or a single item; `buffer` is negative.
        """
        if isinstance(items, (str, bytes, Mapping, *alone)) or not isinstance(
            items, Iterable | AsyncIterable
        ):
            raise InvalidRequestError(
                f"map takes an iterable of {many}, not {type(items).__name__}; for one: {single}"
            )
        if type(buffer) is not int or buffer < 0:
            raise InvalidRequestError(f"buffer must be a number of outcomes from 0, not {buffer!r}")
        return Outcomes(
            items,
            run=run,
            open_source=self._open_source,
            concurrency=self._max_concurrency,
            ordered=ordered,
            buffer=buffer,
            job_type_of=job_type_of,
        )

    def _open_source(self) -> Source:
        return self._engine.session().scheduler.source()

    def _terms(self, deadline: float | None, source: Source | None = None) -> Terms:
        """Return the terms for one request; ``None`` is the client's own deadline."""
        deadline = self._deadline if deadline is None else deadline
        if deadline is not None:
            check_seconds("deadline", deadline)
        return Terms(
            authorize=self._authorize,
            retry=self._retry,
            deadline=deadline,
            timeout=self._timeout,
            hook=self._hook,
            source=source,
        )

    async def _authorize(self) -> str:
        if callable(self._token):
            return f"Bearer {_check_token(await self._token(), self._account)}"
        return f"Bearer {self._token}"


def _check_token(token: object, account: Account) -> str:
    """Check a credential's form; never show it."""
    what = account.credential
    if not isinstance(token, str):
        raise InvalidRequestError(f"the {what} must be a text, not {type(token).__name__}")
    if not token:
        raise InvalidRequestError(
            f"no {what}: set the environment variable {account.variable}, or give "
            f"{account.option}=..."
        )
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise InvalidRequestError(
            f"the {what} must be printable ASCII without blanks or line ends; was it cut or "
            "pasted with a newline?"
        )
    return token


def _check_base_url(text: str, account: Account, *, allow_http: bool) -> str:
    """Return the base URL without a slash or the API's own suffix at its end."""
    wanted = f"a base URL must read like {account.url!r}"
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, TypeError):
        raise InvalidRequestError(f"{wanted}, not {text!r:.200}") from None
    if url.userinfo:
        raise InvalidRequestError(f"{wanted}, without a user name or password")
    if url.scheme not in {"http", "https"} or not url.host or url.query or url.fragment:
        raise InvalidRequestError(f"{wanted}, not {text!r:.200}")
    if url.scheme == "http" and not allow_http and not is_this_machine(url.host):
        raise InvalidRequestError(
            f"plain http to {url.host} would show the {account.credential} to everybody on the "
            "way; use https, or allow_http=True"
        )
    return str(url).rstrip("/").removesuffix(account.url_suffix)
