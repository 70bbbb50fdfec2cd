"""
The content key: by which a job is known again, in a batch, a cache, on any machine.

Two jobs have the same key if they ask for the same: same type, same config,
inputs with the same bytes under the same names, same format, same `sample`
number. Where a row stands in its file, where a file lies on the disk, and in
which order a config was written do not count, so inserting, sorting or moving
never pays for anything again. The key is 16 bytes: BLAKE2b-128 over canonical
JSON. It is written into records that outlive this version, so **what goes into
it must never change**; `KEY_VERSION` is part of it for the day when it has to.

Among a million jobs, the chance that two different ones share a key is below
1 in 10^26 (birthday bound of 128 bits).
"""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import anyio.to_thread

from ._errors import InvalidRequestError
from ._show import shown

if TYPE_CHECKING:
    import os

KEY_BYTES = 16
KEY_VERSION = 1

READ_BYTES = 1 << 20
"""How much of a file is read at once. Chosen: some 1 ms of work between two cancellations."""

INLINE_BYTES = 256 << 10
"""Most bytes that are digested on the event loop: some 0.3 ms. Chosen."""

SETTLED_SECONDS = 2.0
"""
How old a file's last change must be for its digest to be remembered. Chosen, as
git does: a file that is written twice within one tick of its clock looks unchanged.
"""

Content: TypeAlias = "bytes | Path | Callable[[], AsyncIterator[bytes]]"
"""What an input is made of: its bytes, a file, or a function that gives its bytes afresh."""


class InputFile(Protocol):
    """What is looked at of an `Input`."""

    @property
    def content(self) -> Content:
        """What it is made of."""

    @property
    def filename(self) -> str | None:
        """The name it is sent under, if it was given one."""


@dataclass(frozen=True, slots=True)
class InputDigest:
    """
    One input as a key sees it.

    Attributes:
        digest: BLAKE2b-128 of its bytes.
        name: The name it is sent under, to which a config may refer; ``None``
            when it has none of its own, and so goes by its place.
    """

    digest: bytes
    name: str | None = None


def content_key(
    job: Mapping[str, Any],
    *,
    inputs: Sequence[InputDigest] = (),
    accept: object = None,
    sample: int = 0,
) -> bytes:
    """
    Return the key of a job: 16 bytes.

    Args:
        job: Its wire form: ``type``, ``config``, and ``jobs`` for a workflow.
        inputs: Its input files, in order.
        accept: The format asked for: a media type, or a value whose string is
            one. `canonical_accept` says what is the same.
        sample: 0, or another number for one more of the same.

    Raises:
        InvalidRequestError: JSON cannot carry the job, or `sample` is no integer from 0.
    """
    if type(sample) is not int or sample < 0:
        raise InvalidRequestError(f"sample must be an integer from 0, not {shown(sample)}")
    content = {
        "v": KEY_VERSION,
        "job": {name: value for name, value in job.items() if value is not None},
        "inputs": [[each.name, each.digest.hex()] for each in inputs],
        "accept": canonical_accept(accept),
        "sample": sample,
    }
    return digest_bytes(canonical_json(content))


def canonical_json(value: object) -> bytes:
    """
    Write a value as JSON in the one way in which equal values are written.

    Names are sorted, nothing is blank, everything outside ASCII is escaped,
    and a number that is whole is written without a point: JSON has one kind of
    number, and a table reader may hand 4 out as 4.0.

    Raises:
        InvalidRequestError: JSON has no form for something in it.
    """
    try:
        return _JSON.encode(_canonical(value)).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestError(
            f"a job must be made of what JSON can carry, for its key as well: {error!s:.200}"
        ) from error


_JSON = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":"), sort_keys=True)

_EXACT_FLOAT = 2.0**53
"""From here on a float stands for more than one integer."""


def _canonical(value: object) -> object:
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < _EXACT_FLOAT else value
    if isinstance(value, str | int) or value is None:
        return value
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise TypeError(f"a name must be a string, not {shown(name)}")
        return {name: _canonical(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(each) for each in value]
    raise TypeError(f"no JSON form for {type(value).__name__}")


def canonical_accept(accept: object) -> str | None:
    """
    Write a media type in the one way in which equal ones are written.

    Blanks and the order of parameters do not count, nor does the ``multipart/form-data``
    in front of it, which says how the answer is packed and not what is in it.
    """
    if accept is None:
        return None
    first, *rest = (each.strip() for each in str(accept).split(";"))
    if first.lower() == "multipart/form-data":
        first, *rest = rest or [""]
    pairs = sorted(
        f"{name.strip().lower()}={value.strip().strip(chr(34))}"
        for name, _, value in (each.partition("=") for each in rest if each)
    )
    return ";".join([first.lower(), *pairs]) if first else None


def digest_bytes(content: bytes | bytearray | memoryview) -> bytes:
    """Return the BLAKE2b-128 of some bytes."""
    return blake2b(content, digest_size=KEY_BYTES).digest()


def digest_file(path: str | os.PathLike[str]) -> bytes:
    """
    Return the BLAKE2b-128 of a file. Blocks.

    Raises:
        InvalidRequestError: It cannot be read, or is no regular file.
    """
    digest = blake2b(digest_size=KEY_BYTES)
    try:
        if not Path(path).is_file():
            # Reading a pipe would take its bytes away from the job; a folder has none.
            Path(path).stat()
            raise OSError(None, "it must be a regular file")
        with Path(path).open("rb") as file:
            while piece := file.read(READ_BYTES):
                digest.update(piece)
    except (OSError, ValueError) as error:  # of a path that no file can have, too
        raise InvalidRequestError(
            f"the input {path!s} cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from error
    return digest.digest()


class Digester:
    """
    Digests inputs off the event loop, and remembers those of files that have not changed.

    Ten thousand jobs on one reference picture read it once. A file is known
    again by its path, size, inode and time of change, as long as that lies
    some seconds back (`SETTLED_SECONDS`).

    Args:
        remember: Of how many files. Chosen: some 2 MB.
        now: The clock that file times are compared with: seconds since the epoch.
    """

    def __init__(self, remember: int = 10_000, now: Callable[[], float] = time.time) -> None:
        self._known: OrderedDict[tuple[str, int, int, int], bytes] = OrderedDict()
        self._remember = remember
        self._now = now

    async def digest(self, content: Content) -> bytes:
        """
        Return the BLAKE2b-128 of one input's bytes.

        Raises:
            InvalidRequestError: It is a file that cannot be read.
        """
        if isinstance(content, Path):
            return await anyio.to_thread.run_sync(self._of_file, content, abandon_on_cancel=True)
        if isinstance(content, bytes):
            if len(content) <= INLINE_BYTES:
                return digest_bytes(content)
            return await anyio.to_thread.run_sync(digest_bytes, content, abandon_on_cancel=True)
        digest = blake2b(digest_size=KEY_BYTES)
        async for piece in content():
            digest.update(piece)
        return digest.digest()

    async def inputs(self, inputs: Sequence[InputFile]) -> list[InputDigest]:
        """
        Return the digests of a job's inputs, in order.

        Raises:
            InvalidRequestError: One cannot be read.
        """
        return [
            InputDigest(await self.digest(each.content), each.filename or _name_of(each.content))
            for each in inputs
        ]

    def _of_file(self, path: Path) -> bytes:
        try:
            facts = path.stat()
        except (OSError, ValueError):
            return digest_file(path)  # which says why
        known_by = (str(path.absolute()), facts.st_size, facts.st_ino, facts.st_mtime_ns)
        known = self._known.get(known_by)
        if known is not None:
            return known
        digest = digest_file(path)
        if abs(self._now() - facts.st_mtime) > SETTLED_SECONDS:
            self._known[known_by] = digest
            while len(self._known) > self._remember:
                self._known.popitem(last=False)
        return digest


def _name_of(content: Content) -> str | None:
    return content.name if isinstance(content, Path) else None
