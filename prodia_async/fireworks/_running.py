"""How an order is run: its picture read, sent or taken from the folder, a task asked about."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from .. import _waiting
from .._attempts import Timing
from .._base import Account, BaseClient, BaseOptions, TokenSource
from .._errors import DeadlineExceededError, ProdiaError
from .._hooks import log
from .._map import own_error
from .._models import Failed, Succeeded, as_input
from .._polling import OneJob, awaited, count, told_as_one
from .._requests import input_parts
from .._sessions import Unfinished
from .._show import one_line, shown
from .._uploads import looked_at
from ._answers import Image, ImageOutcome, ImageResponse, Pictures, dollars_of
from ._edits import Order, PictureOrder, SyncOrder, with_seed
from ._kept import from_kept, key_of, to_keep
from ._kontext import GOES_ON, Task, submission
from ._orders import Kontext, TextToImage, accept_headers, picture_text, with_headers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .._formats import Format
    from .._models import Raised
    from .._source import Source
    from .._vocabulary import Finished, Terms
    from .._wire import Headers, WireRequest

ACCOUNT = Account(
    credential="API key",
    option="api_key",
    variable="FIREWORKS_API_KEY",
    url="https://api.fireworks.ai/inference/v1",  # documented; so are both variables
    url_variable="FIREWORKS_API_BASE",
    url_suffixes=(),
    requests="the requests (TextToImage, Generate, Kontext ...)",
)

READING = "reading the input picture"

OrderLike: TypeAlias = Order | str
"""What `AsyncFireworks.map` takes; a string is the prompt of a `TextToImage`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions(BaseOptions):
    """
    `Options` with all their defaults, checked.

    Raises:
        InvalidRequestError: A value is out of its range.
    """

    api_key: TokenSource | None = field(default=None, repr=False)
    accept: Format | str | None = None

    def __post_init__(self) -> None:
        BaseOptions.__post_init__(self)
        accept_headers(self.accept, None, None)

    @property
    def credential(self) -> TokenSource | None:
        """The API key."""
        return self.api_key


class Runner(BaseClient):
    """A client of this API without its methods: what they all go through."""

    _account = ACCOUNT
    _options: ClientOptions

    async def _run_one_of_many(
        self, accept: Format | str | None, index: int, item: OrderLike, source: Source
    ) -> ImageOutcome:
        request: Any = item
        try:
            if isinstance(item, str):
                request = TextToImage(item)
            request = _with_accept(_with_accept(request, accept), self._options.accept)
            asked, request = request, with_seed(request)
            response = await self._run(asked, source, index, seeded=request)
            return Succeeded(index, request, response, tag=request.tag)
        except BaseException as error:  # noqa: BLE001  (one failure never stops the rest)
            tag = getattr(request, "tag", None)
            return Failed(index, request, None, cast("Raised", own_error(error)), tag=tag)

    async def _run(
        self,
        order: Order,
        source: Source | None = None,
        index: int | None = None,
        *,
        seeded: Order | None = None,
    ) -> ImageResponse:
        """Answer an order from the folder, or send it; ``seeded`` is it with its seed drawn."""
        if seeded is None:
            order = _with_accept(order, self._options.accept)
        if self._cache is None or not isinstance(order, Order):
            return await self._send(seeded or with_seed(order), source, index)
        key = partial(key_of, order, self._cache.digester)
        found = await self._cache.find(key, self._terms(order.deadline).deadline)
        if found.answer is not None:
            return from_kept(found.answer, order)
        response = await self._send(seeded or with_seed(order), source, index, deadline=found.left)
        keeping = to_keep(response)
        if found.key is not None and keeping is not None:
            await self._cache.put(found.key, keeping)
        return response

    async def _send(
        self,
        order: Order,
        source: Source | None,
        index: int | None,
        *,
        deadline: float | None = None,
    ) -> ImageResponse:
        """Send an order; ``deadline`` is what is left of its own, where some is gone."""
        self._engine.session()  # a closed client says so at once
        left = order.deadline if deadline is None else deadline
        terms = self._terms(left, source, index=index, tag=order.tag)
        try:
            if isinstance(order, Kontext):
                return await self._run_kontext(order, terms)
            wire, spent = await looked_at(partial(_request, order), terms.deadline, READING)
            wire = with_headers(wire, self._headers)
            terms = replace(terms, spent=spent)
            price = dollars_of(order) or 0.0
            answer = Pictures(order, max_bytes=self._max_response_bytes, price=price)
            (images, headers), finished = await self._engine.run(wire, answer, terms)
        except ProdiaError as error:
            # What was drawn here nobody else knows, and it may have run.
            if order.seed is not None:
                error.add_note(f"the seed was {shown(order.seed)}")
            raise
        return _response(images, order, headers, finished)

    async def _run_kontext(self, order: Kontext, terms: Terms) -> ImageResponse:
        began = _waiting.current_time()
        with self._counting(order.model, terms) as told:
            reading = partial(picture_text, order.input_image)
            picture, spent = await looked_at(reading, terms.deadline, READING)
            wire = with_headers(order.to_request(picture), self._headers)
            step = replace(terms, counted=False, spent=spent)
            task_id, finished = await self._engine.run(wire, submission(), step)
            told.attempts = finished.attempts
            # If whoever waits is cut off, this is the one place that knows what was paid for.
            extra: dict[str, Any] = {"job_type": order.model, "job_id": task_id}
            extra |= {"index": terms.index, "tag": terms.tag, "request_id": finished.request_id}
            log(logging.INFO, "%s: submitted as %s", order.model, one_line(task_id), extra=extra)
            try:
                # The deadline is one for all: what the submission took is gone.
                image, headers = await self._picture(
                    task_id, order.model, order.seed, order.poll, terms,
                    spent=_waiting.current_time() - began,
                )  # fmt: skip
            except ProdiaError as error:
                error.tell(attempts=error.attempts or finished.attempts)
                raise
        total = _waiting.current_time() - began
        queued, backoff = finished.timing.queued, finished.timing.backoff
        timing = Timing(queued, backoff, total - queued - backoff, total)
        finished = replace(finished, timing=timing)
        return _response((image,), order, headers, finished)

    @contextmanager
    def _counting(self, model: str, terms: Terms) -> Iterator[OneJob]:
        """Count what is one job in several requests, and tell the hook of it as of one."""
        with told_as_one(terms, model) as told:
            try:
                yield told
            except BaseException as error:
                count(self._engine, cancelled=not isinstance(error, Exception))
                raise
            count(self._engine, completed=True)

    async def _picture(
        self, task_id: str, model: str, seed: int | None, poll: float, terms: Terms, *, spent: float
    ) -> tuple[Image, Headers]:
        """Wait for a task's picture within what is left of the deadline."""
        task = Task(
            id=task_id,
            model=model,
            seed=seed,
            poll=poll,
            terms=terms,
            engine=self._engine,
            base_url=self._base_url,
            max_bytes=self._max_response_bytes,
            headers=self._headers,
        )
        seconds = inf if terms.deadline is None else terms.deadline
        end = _waiting.current_time() + seconds - spent
        left = Unfinished(model, terms.index, terms.tag, may_have_run=True, job_id=task_id)
        with awaited(self._engine, left), _waiting.until(end):
            return await task.picture()
        why = f" (last trouble: {task.fault.message})" if task.fault else ""
        error = DeadlineExceededError(
            f"the task was not done within its deadline of {seconds:g} s{why}; {GOES_ON}",
            may_have_run=True,
        )
        raise error.tell(job_id=task_id) from task.fault


def _with_accept(order: Any, accept: Format | str | None) -> Any:
    """Return an order with a form of answer, if it does not say and one is given."""
    if accept is None or getattr(order, "accept", accept) is not None:
        return order
    # Several pictures come in one form alone, which is theirs by default.
    return order if getattr(order, "samples", 1) > 1 else replace(order, accept=accept)


async def _request(order: SyncOrder) -> WireRequest:
    """Return the request for an order, its picture measured."""
    if not isinstance(order, PictureOrder):
        return order.to_request()
    (part,) = await input_parts([as_input(order.picture)])
    return order.to_request(part)


def _response(
    images: tuple[Image, ...], order: Order, headers: Headers, finished: Finished
) -> ImageResponse:
    request_id, attempts, timing = finished.request_id, finished.attempts, finished.timing
    return ImageResponse(images, order, headers, request_id, attempts, timing)
