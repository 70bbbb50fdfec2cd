"""What the clients of all APIs share: options and views, connections, totals. In nobody's words."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import AsyncIterable, Awaitable, Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypeVar

import httpx

from ._cache import AnswerCache
from ._checks import flag, integer, optional, seconds
from ._engine import Engine
from ._errors import InvalidRequestError
from ._exchange import Sender, check_client, check_transport
from ._map import Outcomes
from ._models import Failed, Succeeded
from ._notebook import show_lists
from ._progress import MapProgress, progress_of
from ._requests import extra_headers
from ._retry import RetryPolicy
from ._scheduler import Scheduler, SchedulerStatistics
from ._secret import Secret
from ._show import shown
from ._vocabulary import Terms
from ._waiting import watch
from ._wire import is_this_machine
from .transports import default_transport

if TYPE_CHECKING:
    from typing import Self

    from ._hooks import AttemptHook
    from ._sessions import Unfinished
    from ._source import Source

Item = TypeVar("Item")
Outcome = TypeVar("Outcome", bound=Succeeded[Any, Any] | Failed[Any])

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
        url_suffixes: What may be given or left out at a base URL's end, the longest first.
        requests: What to send to another process rather than the client.
    """

    credential: str
    option: str
    variable: str
    url: str
    url_variable: str
    url_suffixes: tuple[str, ...]
    requests: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseOptions:
    """
    What a client and each view of it may have of its own, in every API; checked when made.

    Raises:
        InvalidRequestError: A value is out of its range.
    """

    retry: RetryPolicy | None = None
    timeout: float = 600.0
    deadline: float | None = None
    hook: AttemptHook | None = None
    max_queued: int | None = None
    extra_headers: Mapping[str, str] | None = field(default=None, repr=False)
    cache: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if self.retry is not None and not isinstance(self.retry, RetryPolicy):
            raise InvalidRequestError(f"retry must be a RetryPolicy(...), not {shown(self.retry)}")
        seconds("timeout", self.timeout)
        optional(seconds, "deadline", self.deadline)
        if self.hook is not None and (
            not callable(self.hook) or inspect.iscoroutinefunction(self.hook)
        ):
            raise InvalidRequestError(f"hook must be a plain function, not {shown(self.hook)}")
        optional(integer, "max_queued", self.max_queued)
        extra_headers(self.extra_headers)

    @property
    def credential(self) -> TokenSource | None:
        """The credential, whatever the API calls it; ``None`` for the environment's."""
        raise NotImplementedError


class BaseClient:
    """
    The client of some API, without a word of that API.

    A subclass names its `Account`, and calls `_set_options` with what
    `with_options` takes at the end of its ``__init__``.
    """

    _account: ClassVar[Account]

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
        if transport is not None:
            check_transport(transport)
        if http_client is not None:
            check_client(http_client)
        seconds("connect_timeout", connect_timeout)
        flag("adaptive", adaptive)
        flag("allow_http", allow_http)
        integer("max_response_bytes", max_response_bytes, least=1)
        account = self._account
        address = _check_base_url(
            base_url or os.environ.get(account.url_variable) or account.url,
            account,
            allow_http=allow_http,
        )
        self._credential: Hashable = None
        self._first_token: TokenSource | None = None
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

    def _set_options(self, options: BaseOptions) -> None:
        """
        Take what a view may have of its own.

        Raises:
            InvalidRequestError: There is no credential, or it cannot be one.
        """
        token = options.credential
        if token is None:
            token = os.environ.get(self._account.variable, "")
        if not callable(token):
            token = Secret(_check_token(token, self._account))
        self._options = options
        self._token: TokenSource = token
        if self._first_token is None:
            self._first_token = token
        self._retry = options.retry or RetryPolicy()
        self._hook = options.hook
        self._headers = extra_headers(options.extra_headers)
        folder = options.cache
        self._cache = None if folder is None else AnswerCache(folder, base_url=self._base_url)

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

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def drain(self, *, timeout: float | None = None) -> tuple[Unfinished, ...]:
        """
        Take no new jobs, let those that were sent come to their ends, then close.

        ::

            loop.add_signal_handler(signal.SIGTERM, lambda: asyncio.ensure_future(client.drain()))

        The sources of maps stop, so their loops end with the jobs they have.
        A job that was not sent yet ends in a `ConnectError` that says so. One
        that is left with the server is waited for while somebody waits for
        its result. It holds for every view of the client.

        Args:
            timeout: Seconds the jobs may take; what is with the server then
                is cut off. By default as long as it takes.

        Returns:
            The jobs that were sent and left without an answer, with the tags
            and indexes they had, and with the id of each that is with the
            server, for `async_job`; empty where all have ended.

        Raises:
            InvalidRequestError: `timeout` is no number of seconds above 0.
        """
        optional(seconds, "timeout", timeout)
        return await self._engine.drain(timeout)

    @property
    def is_closing(self) -> bool:
        """Whether it takes no more jobs, since it drains or was closed; for a readiness probe."""
        return self._engine.is_draining or self._engine.closed

    async def aclose(self) -> None:
        """
        Close the connections, at once; the client and every view of it cannot be used afterwards.

        Nothing is sent from then on. A job that was sent ends in a `ConnectionLostError` (it may
        have run), one that was not in a `ConnectError`; `drain` lets those that were sent finish.
        """
        await self._engine.aclose()

    def statistics(self) -> SchedulerStatistics:
        """Return what the client is doing and has done: slots, queues, refusals, totals."""
        return self._engine.statistics()

    def _view(self, overrides: Mapping[str, Any]) -> Self:
        """Return a client of other options over the same connections, scheduler and totals."""
        names = [field.name for field in fields(self._options)]
        unknown = sorted(set(overrides) - set(names))
        if unknown:
            raise InvalidRequestError(
                f"with_options takes {', '.join(names)}, not "
                f"{', '.join(unknown)}; what belongs to the connections needs a client of its own"
            )
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__)
        view._set_options(replace(self._options, **overrides))
        view._credential = self._name_of(view._token)
        return view

    def _name_of(self, token: TokenSource) -> Hashable:
        """Return what tells a credential from the client's first, for the scheduler; no secret."""
        if token == self._first_token:
            return None
        return token if callable(token) else blake2b(token.encode(), digest_size=16).digest()

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
        job_type_of: Callable[[Item], str | None],
        progress: bool | Callable[[MapProgress], None],
    ) -> Outcomes[Item, Outcome]:
        """
        Run many at once; options are as ``map`` takes them.

        For messages ``many`` says what the items are, ``single`` what to call with one, and
        ``alone`` of which types one is, though it could be iterated.

        Raises:
            InvalidRequestError: Something is not as ``map`` takes it.
        """
        if isinstance(items, (str, bytes, Mapping, *alone)) or not isinstance(
            items, Iterable | AsyncIterable
        ):
            raise InvalidRequestError(
                f"map takes an iterable of {many}, not {type(items).__name__}; for one: {single}"
            )
        integer("buffer", buffer)
        shows = progress_of(progress, items)

        async def run_and_tell(index: int, item: Item, source: Source) -> Outcome:
            outcome = await run(index, item, source)
            assert shows is not None  # noqa: S101  (else nobody calls this)
            paid = None if outcome.response is None else outcome.response.dollars
            shows.ended(failed=outcome.error is not None, dollars=paid or 0.0)
            return outcome

        return Outcomes(
            items,
            run=run if shows is None else run_and_tell,
            open_source=self._open_source,
            concurrency=self._max_concurrency,
            ordered=ordered,
            buffer=buffer,
            job_type_of=job_type_of,
            on_leave=None if shows is None else shows.close,
        )

    def _open_source(self) -> Source:
        source = self._engine.session().scheduler.source(self._credential)
        source.stopped |= self._engine.is_draining  # also in a loop that is new since
        return source

    def _terms(
        self,
        deadline: float | None,
        source: Source | None = None,
        *,
        index: int | None = None,
        tag: object = None,
    ) -> Terms:
        """Return the terms for one request; ``None`` is the client's own deadline."""
        deadline = self._options.deadline if deadline is None else seconds("deadline", deadline)
        return Terms(
            authorize=self._authorize,
            retry=self._retry,
            deadline=deadline,
            timeout=self._options.timeout,
            hook=self._hook,
            source=source,
            credential=self._credential,
            max_queued=self._options.max_queued,
            index=index,
            tag=tag,
        )

    async def _authorize(self) -> str:
        if not callable(self._token):
            return f"Bearer {self._token}"
        token = self._token()
        if not inspect.isawaitable(token):
            what = self._account.credential
            raise InvalidRequestError(
                f"a function that returns the {what} must be async, and this one returned "
                f"{type(token).__name__} at once"
            )
        return f"Bearer {_check_token(await token, self._account)}"


def _check_token(token: object, account: Account) -> str:
    """Check a credential's form; never show it."""
    what = account.credential
    if not isinstance(token, str):
        raise InvalidRequestError(f"the {what} must be a string, not {type(token).__name__}")
    if not token:
        raise InvalidRequestError(
            f"no {what}: set the environment variable {account.variable}, or give "
            f"{account.option}=...; without an account, `prodia-async emulator` serves a stand-in "
            "that takes any"
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
    if not isinstance(text, str):
        raise InvalidRequestError(f"{wanted}, not {shown(text)}")
    try:
        url = httpx.URL(text)
        _ = url.host  # decoded when it is looked at, and IDNA may know no such name
    except (httpx.InvalidURL, ValueError):
        raise InvalidRequestError(f"{wanted}, not {text!r:.200}") from None
    if url.port is not None and not 0 < url.port < 65536:
        raise InvalidRequestError(f"{wanted}; its port must be 1 to 65535, not {url.port}")
    if url.userinfo:
        raise InvalidRequestError(f"{wanted}, without a user name or password")
    if url.scheme not in {"http", "https"} or not url.host or url.query or url.fragment:
        raise InvalidRequestError(f"{wanted}, not {text!r:.200}")
    if url.scheme == "http" and not allow_http and not is_this_machine(url.host):
        raise InvalidRequestError(
            f"plain http to {url.host} would show the {account.credential} to everybody on the "
            "way; use https, or allow_http=True"
        )
    address = str(url).rstrip("/")
    for suffix in account.url_suffixes:
        if address.endswith(suffix):
            return address.removesuffix(suffix)
    return address
