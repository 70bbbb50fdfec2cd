"""
Answers kept in a folder, so that asking the same again costs nothing.

A job is known by its content key (`_keys`): type, config, the bytes of its
inputs, format. It must have a seed, or two runs are not meant to be the same.
One file is one answer, written under a temporary name and then renamed, so
that processes that share the folder see whole ones only; and it ends with its
own digest, so that one cut by a full disk is noticed and asked anew. Whatever
goes wrong with the folder is logged and costs no answer.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio.to_thread

from ._attempts import Timing
from ._errors import InvalidRequestError, ProdiaError
from ._files import PendingFile
from ._hooks import log
from ._keys import Digester, content_key
from ._models import JobResponse, as_input, wire_job
from ._outputs import Output
from ._results import read_job_result
from ._show import one_line, shown
from ._uploads import looked_at

if TYPE_CHECKING:
    import os
    from collections.abc import Awaitable, Callable, Sequence

    from ._models import JobRequest

MAGIC = b"prodia-async answer 1\n"
"""How a file begins; another number for another form."""

DIGEST_BYTES = 16

CHECKS_ONLY = "workflow.moderate"
"""A step of a workflow that makes nothing, and so needs no seed."""


MIN_LEFT = 0.001
"""Seconds of a deadline that are left at the least: none at all would be no deadline. Chosen."""


class Found(NamedTuple):
    """
    What was found.

    Attributes:
        key: By what the answer is known; ``None`` if it is not to be kept.
        answer: The answer, if it was kept.
        left: Seconds that are left of the deadline, if there is one.
    """

    key: str | None
    answer: JobResponse | None
    left: float | None


class AnswerCache:
    """
    A folder of answers.

    Args:
        folder: Where they lie; made when the first is kept.
        base_url: Whose answers they are: another server's do not count.

    Attributes:
        digester: Digests inputs, by which an answer is known too.

    Raises:
        InvalidRequestError: `folder` is no path, or is a file.
    """

    def __init__(self, folder: str | os.PathLike[str], *, base_url: str) -> None:
        try:
            self.folder = Path(folder)
        except TypeError:
            raise InvalidRequestError(f"cache must be a folder, not {shown(folder)}") from None
        try:
            is_file = self.folder.exists() and not self.folder.is_dir()
        except OSError as error:
            raise InvalidRequestError(
                f"cache must be a folder, not {shown(folder)}: {error.strerror or error}"
            ) from None
        if is_file:
            raise InvalidRequestError(f"cache must be a folder, and {self.folder} is a file")
        self._base_url = base_url
        self.digester = Digester()

    def __repr__(self) -> str:
        return f"<AnswerCache {self.folder}>"

    async def key(self, request: JobRequest) -> str | None:
        """
        Return by what the answer to a job is known, or ``None`` if it is not to be kept.

        Not kept is what has no seed, what came without the job result, and
        what was asked with query parameters of the caller's own. What is
        wrong with a job is told by whoever sends it.
        """
        if not request.multipart or request.extra_query:
            return None
        try:
            job = wire_job(request.job)
            if not has_seed(job):
                return None
            inputs = await self.digester.inputs([as_input(each) for each in request.inputs])
            return content_key(job, inputs=inputs, accept=request.accept).hex()
        except (ProdiaError, OSError, TypeError, ValueError):
            return None

    async def find(self, key: Callable[[], Awaitable[str | None]], deadline: float | None) -> Found:
        """
        Look for an answer.

        Args:
            key: Finds out by what it is known, perhaps by reading inputs.
            deadline: Seconds for that, and for whatever comes after it.

        Raises:
            DeadlineExceededError: It took longer.
        """

        async def look() -> tuple[str | None, JobResponse | None]:
            known_by = await key()
            return known_by, await self.get(known_by) if known_by is not None else None

        doing = f"looking for an answer that is kept in {self.folder}, by the bytes of its inputs,"
        (known_by, answer), spent = await looked_at(look, deadline, doing)
        left = None if deadline is None else max(deadline - spent, MIN_LEFT)
        return Found(known_by, answer, left)

    async def get(self, key: str) -> JobResponse | None:
        """Return the answer that is kept under a key, if there is a whole one."""
        try:
            return await anyio.to_thread.run_sync(self._read, key, abandon_on_cancel=True)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            log(
                logging.WARNING,
                "the answer kept in %s cannot be used, and is asked for anew: %s",
                self._path(key),
                one_line(str(error)),
            )
            return None

    async def put(self, key: str, response: JobResponse) -> None:
        """Keep an answer; a folder that cannot be written to is logged, and no more."""
        try:
            await anyio.to_thread.run_sync(self._write, key, response, abandon_on_cancel=True)
        except (OSError, ValueError) as error:
            log(
                logging.WARNING,
                "an answer could not be kept in %s: %s",
                self.folder,
                one_line(str(error)),
            )

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.answer"

    def _read(self, key: str) -> JobResponse | None:
        content = self._path(key).read_bytes()
        return unpack(content, base_url=self._base_url)

    def _write(self, key: str, response: JobResponse) -> None:
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with PendingFile(path.parent) as pending:
            pending.write(pack(response, base_url=self._base_url))
            pending.publish(path, replace=True)


def has_seed(job: Mapping[str, Any]) -> bool:
    """Return whether a job makes the same again; every step of a workflow that draws must."""
    steps = job.get("jobs")
    if isinstance(steps, list | tuple) and steps:
        wired = [wire_job(step) for step in steps]
        drawing = [each for each in wired if not str(each["type"]).startswith(CHECKS_ONLY)]
        return bool(drawing) and all(has_seed(each) for each in drawing)
    config = job.get("config")
    seed = config.get("seed") if isinstance(config, Mapping) else None
    return isinstance(seed, int) and not isinstance(seed, bool)


def pack(response: JobResponse, *, base_url: str) -> Sequence[bytes]:
    """Put an answer into the pieces of a file: magic, head, outputs, digest of all that."""
    head = {
        "base_url": base_url,
        "job": json.loads(response.job.model_dump_json()) if response.job is not None else None,
        "request_id": response.request_id,
        "outputs": [
            {"type": each.content_type, "name": each.filename, "size": len(each.content)}
            for each in response.outputs
        ],
    }
    text = json.dumps(head).encode()
    pieces = [MAGIC, len(text).to_bytes(8, "big"), text]
    pieces += [each.content for each in response.outputs]
    digest = blake2b(digest_size=DIGEST_BYTES)
    for piece in pieces:
        digest.update(piece)
    return [*pieces, digest.digest()]


def unpack(content: bytes, *, base_url: str) -> JobResponse | None:
    """
    Take an answer out of a file again.

    Returns:
        The answer, marked as `cached`, its price left out since nothing was
        charged; ``None`` if another server gave it.

    Raises:
        ValueError: It is not whole, or no such file.
    """
    body, digest = content[:-DIGEST_BYTES], content[-DIGEST_BYTES:]
    if not content.startswith(MAGIC):
        raise ValueError("it is no kept answer of this version")
    if blake2b(body, digest_size=DIGEST_BYTES).digest() != digest:
        raise ValueError("it was cut short or changed")
    start = len(MAGIC) + 8
    size = int.from_bytes(body[len(MAGIC) : start], "big")
    head = json.loads(body[start : start + size])
    if head["base_url"] != base_url:
        return None
    outputs, position = [], start + size
    for each in head["outputs"]:
        outputs.append(Output(body[position : position + each["size"]], each["type"], each["name"]))
        position += each["size"]
    job = None
    if head["job"] is not None:
        job = read_job_result(json.dumps({**head["job"], "price": None}).encode())
    return JobResponse(
        job, tuple(outputs), head["request_id"], (), Timing(0.0, 0.0, 0.0, 0.0), cached=True
    )
