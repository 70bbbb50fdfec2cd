"""
Live answers kept in a folder, and given again from there; never with the token.

A request is known by what it asks: method, path, query, Accept, and its body
without the boundary. What it was answered lies beside it, as it came::

    answers/
      2f6c...-1.json     what was asked and answered, for people to read
      2f6c...-1.body     the body of the answer

The same question asked again is the next number, so a job that was refused and
then served is so again. After the last number the last answer is repeated.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import anyio.to_thread
import httpx

from .._errors import InvalidRequestError
from .._hooks import log
from .._secret import MIN_SECRET
from .._show import shown

if TYPE_CHECKING:
    import os

KEPT_HEADERS = ("content-type", "date", "retry-after", "x-request-id")
"""Of an answer; others may hold what is nobody's business. Chosen: what the client reads."""

MAX_NEAREST = 3
"""How many recorded questions an error shows. Chosen."""


class NotRecordedError(InvalidRequestError):
    """A replay was asked what its folder has no answer to; nothing was sent."""


def record(
    folder: str | os.PathLike[str], *, transport: httpx.AsyncBaseTransport | None = None
) -> httpx.AsyncBaseTransport:
    """
    Return a transport that keeps what it is answered.

    ::

        async with AsyncProdia(transport=record("tests/answers")) as client:
            await client.job(job)               # live, and paid, once

    Neither the token nor any header of a request is kept; should the server
    have echoed the token, it is blotted out. Bodies are read whole, so this is
    for tests.

    Args:
        folder: Made if it is missing; what it has for the same questions is replaced. An
            answer that cannot be written there is logged, and handed over all the same.
        transport: What to send through; httpx's own by default.
    """
    return _Recorder(Path(folder), transport or httpx.AsyncHTTPTransport())


def replay(folder: str | os.PathLike[str]) -> httpx.AsyncBaseTransport:
    """
    Return a transport that gives recorded answers, and never touches the network.

    ::

        client = AsyncProdia("no-token", transport=replay("tests/answers"))

    Args:
        folder: What `record` filled.

    Raises:
        NotRecordedError: At once: the folder is missing or empty. Later, from
            the job: it has no answer to that. The message shows what comes nearest.
    """
    path = Path(folder)
    if not any(path.glob("*.json")):
        raise NotRecordedError(
            f"there are no recorded answers in {str(path)!r}: run the test once with "
            f"AsyncProdia(transport=record({str(path)!r})), which needs a token"
        )
    return _Player(path)


class _Recorder(httpx.AsyncBaseTransport):
    def __init__(self, folder: Path, transport: httpx.AsyncBaseTransport) -> None:
        self._folder = folder
        self._transport = transport
        self._asked: Counter[str] = Counter()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await anyio.to_thread.run_sync(self._prepare)
        body = await request.aread()
        secret = request.headers.get("authorization", "").rpartition(" ")[2]
        question = describe(request, body)
        key = key_of(question)
        # The number is taken before anything is awaited, so it is of the order of asking.
        self._asked[key] += 1
        number = self._asked[key]
        response = await self._transport.handle_async_request(request)
        try:
            # What came over the wire, not decoded: it is given again as it was.
            stream = response.stream
            assert isinstance(stream, httpx.AsyncByteStream)  # noqa: S101
            content = b"".join([bytes(chunk) async for chunk in stream])
        finally:
            await response.aclose()
        headers = {n: response.headers[n] for n in KEPT_HEADERS if n in response.headers}
        kept = _Answer(response.status_code, headers, content).without(secret)
        question = json.loads(_blotted(json.dumps(question), secret))
        try:
            await anyio.to_thread.run_sync(self._keep, key, number, question, kept)
        except OSError as error:
            # It is paid for, so the one who asked has it all the same.
            log(logging.WARNING, "an answer was not recorded in %s: %s", self._folder, error)
        return httpx.Response(response.status_code, headers=response.headers, content=content)

    def _prepare(self) -> None:
        """Find out before anything is paid whether there can be such a folder."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidRequestError(
                f"nothing can be recorded in {str(self._folder)!r}: {error.strerror or error}"
            ) from error

    def _keep(self, key: str, number: int, question: dict[str, Any], kept: _Answer) -> None:
        if number == 1:  # what an earlier recording has more would be given after it
            for old in self._folder.glob(f"{key}-*"):
                if int(old.stem.rpartition("-")[2]) > self._asked[key]:
                    old.unlink()
        name = f"{key}-{number}"
        (self._folder / f"{name}.body").write_bytes(kept.content)
        described = {"asked": question, "status": kept.status, "headers": kept.headers}
        text = json.dumps(described, indent=1, ensure_ascii=False)
        (self._folder / f"{name}.json").write_text(f"{text}\n", encoding="utf-8")

    async def aclose(self) -> None:
        await self._transport.aclose()


class _Player(httpx.AsyncBaseTransport):
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._asked: Counter[str] = Counter()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        question = describe(request, await request.aread())
        key = key_of(question)
        self._asked[key] += 1
        return await anyio.to_thread.run_sync(self._find, question, key, self._asked[key])

    def _find(self, question: dict[str, Any], key: str, number: int) -> httpx.Response:
        while number and not (self._folder / f"{key}-{number}.json").exists():
            number -= 1
        if not number:
            raise NotRecordedError(_unknown(question, self._folder))
        path = self._folder / f"{key}-{number}"
        try:
            described = json.loads(path.with_suffix(".json").read_bytes())
            status, headers = described["status"], described["headers"]
            content = path.with_suffix(".body").read_bytes()
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise NotRecordedError(
                f"the recorded answer {str(path)!r} cannot be read: {error}; record it again"
            ) from error
        return httpx.Response(status, headers=headers, content=content)


class _Answer:
    def __init__(self, status: int, headers: dict[str, str], content: bytes) -> None:
        self.status, self.headers, self.content = status, headers, content

    def without(self, secret: str) -> _Answer:
        """Blot out the token, if the server said it; the lengths stay."""
        headers = {name: _blotted(value, secret) for name, value in self.headers.items()}
        content = _blotted(self.content.decode("latin-1"), secret).encode("latin-1")
        return _Answer(self.status, headers, content)


def _blotted(text: str, secret: str) -> str:
    if len(secret) >= MIN_SECRET:
        return text.replace(secret, "*" * len(secret))
    # One of a few letters stands by chance in a prompt or a picture, and is one behind this word.
    named = rf"((?i:bearer)\s+){re.escape(secret)}(?!\w)"
    return re.sub(named, rf"\1{'*' * len(secret)}", text) if secret else text


def describe(request: httpx.Request, body: bytes) -> dict[str, Any]:
    """
    Say what a request asks, so that the same question is known again.

    Returns:
        JSON: method, path, query, Accept, and the job and inputs of the body.
    """
    content_type = request.headers.get("content-type", "")
    return {
        "method": request.method,
        "path": request.url.path,
        "query": sorted(parse_qsl(request.url.query.decode(), keep_blank_values=True)),
        "accept": request.headers.get("accept"),
        **_describe_body(content_type, body),
    }


def key_of(question: dict[str, Any]) -> str:
    """Return the name under which the answer to a question is kept."""
    text = json.dumps(question, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _describe_body(content_type: str, body: bytes) -> dict[str, Any]:
    found = re.search(r'boundary="?([^";]+)', content_type)
    if found is None:
        return _describe_job(body) if body else {}
    described: dict[str, Any] = {}
    inputs = []
    # The boundary is the client's own, and stands nowhere else.
    for part in body.split(b"--" + found[1].encode())[1:-1]:
        head, _, content = part.removeprefix(b"\r\n").removesuffix(b"\r\n").partition(b"\r\n\r\n")
        if b'name="job"' in head:
            described = _describe_job(content)
        else:
            digest = hashlib.blake2b(content, digest_size=16).hexdigest()
            inputs.append({"head": head.decode("utf-8", "replace"), "digest": digest})
    return {**described, "inputs": inputs}


def _describe_job(content: bytes) -> dict[str, Any]:
    try:
        return {"job": json.loads(content)}
    except ValueError:
        return {"digest": hashlib.blake2b(content, digest_size=16).hexdigest()}


def _unknown(question: dict[str, Any], folder: Path) -> str:
    asked = {name: value for name, value in question.items() if value not in (None, [], {})}
    recorded = []
    for path in sorted(folder.glob("*.json")):
        try:
            recorded.append(json.loads(path.read_bytes())["asked"])
        except (OSError, ValueError, LookupError, TypeError):
            continue
    ranked = sorted(recorded, key=lambda each: len(_differences(question, each)))
    nearest = [
        "; ".join(_differences(question, each)[:MAX_NEAREST]) for each in ranked[:MAX_NEAREST]
    ]
    but = f" Nearest: {' | '.join(nearest)}." if nearest else ""
    return (
        f"no answer to this was recorded in {str(folder)!r}: {shown(asked)}.{but} "
        "Nothing was sent; record it, or correct the test"
    )


def _differences(asked: Any, recorded: Any, where: str = "") -> list[str]:
    """Say where a recorded question differs."""
    if isinstance(asked, dict) and isinstance(recorded, dict):
        names = dict.fromkeys([*asked, *recorded])
        return [
            each
            for name in names
            for each in _differences(
                asked.get(name), recorded.get(name), f"{where}.{name}" if where else str(name)
            )
        ]
    if json.dumps(asked, sort_keys=True) == json.dumps(recorded, sort_keys=True):
        return []
    return [f"{where} was recorded as {shown(recorded)}, not {shown(asked)}"]
