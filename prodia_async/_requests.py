"""
A job as a request: everything about ``POST /v2/job`` that is known before an answer comes.

All that costs nothing to check is checked here, before anything is sent. No
waiting in this module, but for a look at input files in a worker thread. Source
of the facts: reference "Inference", guide "Combining Multiple Images".
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import aclosing
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import anyio.to_thread

from ._catalogue import SentInput, doubts, input_limit, limits_pixels, load_catalogue, problems
from ._checks import HEADER_VALUE, flag, header
from ._errors import InvalidRequestError
from ._files import numbered
from ._formats import JSON_TYPE, accept_header
from ._hooks import log
from ._media import OCTET_STREAM, SNIFF_BYTES, sniff, suffix_of, type_of_name
from ._models import Input, JobRequest, as_input, wire_job
from ._outputs import Output
from ._pixels import size_of
from ._show import shown
from ._sources import Drawn, Source
from ._uploads import BytesBody, FileFacts, FormBody, FormPart, chunks_of, measure
from ._wire import Body, WireRequest

if TYPE_CHECKING:
    from ._models import InputLike
    from ._uploads import Source as BodySource

JOB_PATH = "/v2/job"
ASYNC_PATH = "/v2/job/async"
JOB_FILENAME = "job.json"

FILENAME_FIELDS = (
    "image", "images", "mask", "first_frame", "last_frame", "audio", "video", "references",
)  # fmt: skip
"""Config fields whose values name inputs. Documented: the job types' pages, format "filename"."""

_BAD_IN_FILENAME = re.compile(r'["/\\\x00-\x1f\x7f\ud800-\udfff]')


async def encode_job(
    request: JobRequest,
    *,
    price: bool = False,
    submit: bool = False,
    validate: Literal["off", "known", "warn"] | None = None,
) -> WireRequest:
    """
    Turn a job into its request, checking all that costs nothing to check.

    Args:
        request: The job and what belongs to it.
        price: Ask for the price, unless the request says otherwise itself.
        submit: Leave the job with the server (``POST /v2/job/async``) rather
            than wait for its answer.
        validate: ``"known"``: also hold the job against what is documented of
            its type, and report all that is wrong with it together. Types and
            fields that are not known pass. ``"warn"``: log that, and what is
            likely wrong. ``"off"``: refuse nothing but what cannot be sent.

    Returns:
        A request that can be sent any number of times.

    Raises:
        InvalidRequestError: It cannot be sent, or the server is known to refuse it.
    """
    job = wire_job(request.job)
    flag("multipart", request.multipart)
    kind = str(job["type"])
    inputs = [as_input(each) for each in _sequence_of_inputs(request.inputs)]
    if len(inputs) > 1 and validate is None:  # no type is documented to take none
        await _check_count(kind, len(inputs))
    content = encode_json(job)
    accept = accept_header(request.accept, multipart=request.multipart and not submit)
    if submit and request.accept is None:
        accept = JSON_TYPE
    parts = await input_parts(inputs)
    names = [part.filename for part in parts]
    if validate == "known":
        await _check_known(job, parts)
    elif validate == "warn":
        await _warn_of_doubts(job, parts)
    if validate in {None, "known"}:
        _check_names(job.get("config"), names)
    return WireRequest(
        method="POST",
        path=ASYNC_PATH if submit else JOB_PATH,
        query=_query(request, price=price, submit=submit),
        headers=(("accept", accept), *extra_headers(request.extra_headers)),
        body=job_body(content, parts),
        kind=kind,
    )


def job_body(content: bytes, parts: Sequence[FormPart]) -> Body:
    """Return JSON alone when there are no inputs, else the job part and then the inputs."""
    if not parts:
        return BytesBody(content, JSON_TYPE)
    return FormBody([FormPart("job", JOB_FILENAME, JSON_TYPE, content, len(content)), *parts])


def encode_json(value: object) -> bytes:
    """
    Write JSON, strictly: no NaN, nothing that JSON has no form for.

    Raises:
        InvalidRequestError: It names the first value that JSON cannot carry.
    """
    try:
        return _JSON.encode(value).encode()
    except (TypeError, ValueError, RecursionError) as error:
        where = _find_unfit(value, "job") or f"the job ({error!s:.200})"
        raise InvalidRequestError(f"JSON cannot carry {where}") from error


def _as_json(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"no JSON form for {type(value).__name__}")


# Made once: json.dumps would make one for every job.
_JSON = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_as_json
)


def _find_unfit(value: object, path: str, depth: int = 0) -> str | None:
    """Name the first value in depth-first order that JSON cannot carry, by its path."""
    if depth > 100:
        return f"{path[:80]}...: it is nested too deeply, or contains itself"
    if len(path) > 200:
        path = f"{path[:200]}..."
    pairs: Iterable[tuple[str, object]]
    if isinstance(value, Mapping):
        for key in value:
            unfit = _find_unfit(key, "a key")
            if unfit or not isinstance(key, str | int | float | bool | None):
                return f"{path}: a key must be a string, not {shown(key)}"
        pairs = ((f"{path}.{key}", each) for key, each in value.items())
    elif isinstance(value, list | tuple):
        pairs = ((f"{path}[{index}]", each) for index, each in enumerate(value))
    else:
        try:
            json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        except (TypeError, ValueError):
            return f"{path} = {shown(value)}"
        return None
    found = (_find_unfit(each, inner, depth + 1) for inner, each in pairs)
    return next((unfit for unfit in found if unfit), None)


def _sequence_of_inputs(inputs: object) -> Sequence[InputLike]:
    if type(inputs) in {list, tuple}:  # asking what a `Drawn` is takes 15 us (measured)
        return list(inputs)  # type: ignore[call-overload,no-any-return]  # they can be iterated
    # One path or one picture is a sequence too, of letters or of numbers.
    if isinstance(inputs, str | bytes | bytearray | memoryview | Path | Input | Output | Drawn) or (
        hasattr(inputs, "read")
    ):
        raise InvalidRequestError(
            f"inputs must be a list of inputs, not one {type(inputs).__name__}; write inputs=[...]"
        )
    # Of these it is unclear what the inputs are, or in which order.
    if isinstance(inputs, Mapping | AbstractSet):
        raise InvalidRequestError(f"inputs must be a list of inputs, not {type(inputs).__name__}")
    try:
        return list(inputs)  # type: ignore[call-overload,no-any-return]  # checked by trying
    except TypeError:
        raise InvalidRequestError(
            f"inputs must be a list of inputs, not {type(inputs).__name__}"
        ) from None


async def _check_count(kind: str, count: int) -> None:
    await load_catalogue()
    most = input_limit(kind)
    if most is not None and count > most:
        raise InvalidRequestError(f"{kind} takes at most {most} inputs, not {count}")


async def _sent(job: Mapping[str, Any], parts: Sequence[FormPart]) -> list[SentInput]:
    """Say of each input what its type may limit; pictures are looked at only where sides count."""
    wants_pixels = limits_pixels(job.get("type"))
    found = []
    for part in parts:
        pixels = None
        if wants_pixels and part.content_type.startswith("image/"):
            async with aclosing(chunks_of(part)) as chunks:
                pixels = await size_of(chunks)
        found.append(
            SentInput(
                name=part.filename, media_type=part.content_type, size=part.size, pixels=pixels
            )
        )
    return found


async def _check_known(job: Mapping[str, Any], parts: Sequence[FormPart]) -> None:
    """Check the job against what is documented of its type, and report all problems at once."""
    await load_catalogue()
    found = problems(job, await _sent(job, parts))
    if found:
        raise InvalidRequestError(f"{job['type']} refuses this job: {'; '.join(found)}")


async def _warn_of_doubts(job: Mapping[str, Any], parts: Sequence[FormPart]) -> None:
    """Log what is wrong with the job, for certain or likely; it is sent all the same."""
    await load_catalogue()
    sent = await _sent(job, parts)
    found = [*problems(job, sent), *doubts(job, sent)]
    names = [part.filename for part in parts]
    try:
        _check_names(job.get("config"), names)
    except InvalidRequestError as error:
        found.append(error.message)
    if found:
        extra = {"job_type": job["type"]}
        log(logging.WARNING, "%s: %s", job["type"], "; ".join(found), extra=extra)


async def input_parts(inputs: Sequence[Input]) -> list[FormPart]:
    """
    Find out each input's size, type and name; what blocks of that is done in a thread.

    Raises:
        InvalidRequestError: A file cannot be read, a name cannot be sent, or two are equal.
    """
    paths = [each.content for each in inputs if isinstance(each.content, Path)]
    facts: dict[Path, FileFacts] = {}
    if paths:
        facts = await anyio.to_thread.run_sync(_measure_all, paths, abandon_on_cancel=True)
    parts: list[FormPart] = []
    taken: set[str] = set()
    for number, each in enumerate(inputs, 1):
        part = await _input_part(each, number, facts, taken)
        parts.append(part)
        taken.add(part.filename)
    return parts


def _measure_all(paths: Sequence[Path]) -> dict[Path, FileFacts]:
    return {path: measure(path, SNIFF_BYTES) for path in paths}


async def _input_part(
    each: Input, number: int, facts: Mapping[Path, FileFacts], taken: AbstractSet[str]
) -> FormPart:
    content = each.content
    source: BodySource = content if not isinstance(content, Path) else facts[content]
    name = suggested = content_type = None
    head = b""
    size = each.size or 0
    if isinstance(source, FileFacts):
        size, head, name = source.size, source.head, source.path.name
    elif isinstance(source, Source):
        size, head = await source.measure(SNIFF_BYTES)
        suggested = source.name
        # What an upload says for want of better says nothing.
        content_type = None if source.content_type == OCTET_STREAM else source.content_type
    elif isinstance(source, bytes):
        size, head = len(source), source[:SNIFF_BYTES]
    if each.size is not None and each.size != size:
        what = str(content) if isinstance(content, Path) else each.filename or suggested
        raise InvalidRequestError(
            f"the input {shown(what or number)} has {size} bytes and was said to have "
            f"{shown(each.size)}"
        )
    name = each.filename or name
    content_type = (
        each.content_type
        or content_type
        or sniff(head)
        or type_of_name(name or suggested or "")
        or OCTET_STREAM
    )
    if not HEADER_VALUE.fullmatch(content_type):
        raise InvalidRequestError(
            f"an input's content_type must be plain ASCII, not {shown(content_type)}"
        )
    if name is None:
        # Nobody of ours chose it, so of two that are equal one gets a number.
        name = _free(suggested or f"input-{number}{suffix_of(content_type)}", taken)
    elif name in taken:
        raise InvalidRequestError(
            f"two inputs are named {shown(name)}, and names must differ; "
            "give one of them another with Input(..., filename=...)"
        )
    _check_filename(name)
    return FormPart("input", name, content_type, source, size)


def _free(name: str, taken: AbstractSet[str]) -> str:
    return next(free for at in count(1) if (free := numbered(name, at)) not in taken)


def _check_filename(name: str) -> None:
    bad = _BAD_IN_FILENAME.search(name)
    if bad:
        raise InvalidRequestError(
            f"an input's filename must be a plain name, without {bad.group()!r}: it is "
            f"{shown(name)}; "
            "no quotes, folders, control characters or broken Unicode arrive as they were sent"
        )
    if not name.strip(" ."):
        raise InvalidRequestError(
            f"an input's filename must be more than dots and blanks: it is {shown(name)}"
        )


def _check_names(config: object, names: Sequence[str]) -> None:
    """Check that the config is one, and that every input that it names is there."""
    if config is None:
        return
    if not isinstance(config, Mapping):
        raise InvalidRequestError(f"a job's config must be a mapping, not {shown(config)}")
    for field in FILENAME_FIELDS:
        value = config.get(field)
        listed = value if isinstance(value, list | tuple) else [value]
        for name in listed:
            # An address or a data URI is no name; the server decides about it.
            if isinstance(name, str) and name not in names and ":" not in name:
                have = shown(list(names)) if names else "there are none"
                raise InvalidRequestError(
                    f"config.{field} names {shown(name)}, which no input bears; inputs: {have}. "
                    'A client with validate="off" sends it all the same'
                )


def _query(request: JobRequest, *, price: bool, submit: bool) -> tuple[tuple[str, str], ...]:
    wanted = price if request.price is None else flag("price", request.price)
    if request.price and not request.multipart and not submit:
        raise InvalidRequestError(
            "price=True needs the job result, which is where the price comes, and multipart=False "
            "leaves it out"
        )
    pairs = [("price", "true")] if wanted else []
    for name, value in _items("extra_query", request.extra_query):
        if not all(isinstance(each, str) and _is_unicode(each) for each in (name, value)):
            # The value may be a secret, so it is not shown.
            raise InvalidRequestError(
                f"extra_query must map strings to strings, not {shown(name)} to "
                f"{type(value).__name__}, nor to broken Unicode"
            )
        pairs.append((name, value))
    return tuple(pairs)


def _items(what: str, given: Mapping[str, str] | None) -> Iterable[tuple[str, str]]:
    if given is not None and not isinstance(given, Mapping):
        raise InvalidRequestError(f"{what} must be a mapping, not {type(given).__name__}")
    return (given or {}).items()


def _is_unicode(text: str) -> bool:
    return re.search(r"[\ud800-\udfff]", text) is None


def extra_headers(headers: Mapping[str, str] | None) -> list[tuple[str, str]]:
    """
    Check headers of the caller's own and return them as they are sent.

    Raises:
        InvalidRequestError: One cannot be sent, or is the client's own.
    """
    return [
        header("extra_headers", name, value) for name, value in _items("extra_headers", headers)
    ]
