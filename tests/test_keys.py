"""The content key: what counts, what does not, and that it stays as it is."""

from __future__ import annotations

import os
from collections import UserDict
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest
from conftest import on_both_loops

from prodia_async import JPEG, Input, InvalidRequestError, WebP
from prodia_async._keys import (
    INLINE_BYTES,
    READ_BYTES,
    Digester,
    InputDigest,
    canonical_accept,
    canonical_json,
    content_key,
    digest_bytes,
    digest_file,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

JOB: dict[str, Any] = {"type": "inference.x.v1", "config": {"prompt": "a cat", "steps": 4}}
PICTURE = InputDigest(digest_bytes(b"picture"), "cat.jpg")


def test_keys_of_today_are_those_of_every_later_version() -> None:
    """These stand in people's records: another value here means that they pay again."""
    assert content_key(JOB).hex() == "b582603ad3b6b0a0addab2267b86f43f"
    key = content_key(
        {**JOB, "config": {"prompt": "café 🍓", "scale": 0.5}},
        inputs=[PICTURE],
        accept="image/webp;lossless=1",
        sample=3,
    )
    assert key.hex() == "11afe503f9df6db3f418ac70ca7b8371"


SAME = [
    {"config": {"steps": 4, "prompt": "a cat"}, "type": "inference.x.v1"},
    {**JOB, "config": {"prompt": "a cat", "steps": 4.0}},
    {**JOB, "jobs": None},
    {**JOB, "config": MappingProxyType(JOB["config"])},
    {**JOB, "config": UserDict(JOB["config"])},
]


@pytest.mark.parametrize("job", SAME, ids=range(len(SAME)))
def test_what_is_the_same_has_one_key(job: dict[str, Any]) -> None:
    """Order, kinds of mapping, 4 and 4.0, and a field that is absent do not count."""
    assert content_key(job) == content_key(JOB)


OTHER: list[dict[str, Any]] = [
    {"job": {**JOB, "type": "inference.y.v1"}},
    {"job": {**JOB, "config": {"prompt": "a dog", "steps": 4}}},
    {"job": {**JOB, "config": {"prompt": "a cat", "steps": 4.5}}},
    {"job": {**JOB, "config": {"prompt": "a cat", "steps": "4"}}},
    {"job": {**JOB, "config": {"prompt": "a cat", "steps": True}}},
    {"job": {**JOB, "config": {"prompt": "a cat", "steps": 4, "seed": None}}},
    {"job": {"type": "inference.x.v1"}},
    {"job": {**JOB, "jobs": [JOB]}},
    {"inputs": [PICTURE]},
    {"inputs": [PICTURE, PICTURE]},
    {"inputs": [InputDigest(PICTURE.digest)]},
    {"inputs": [InputDigest(digest_bytes(b"other"), "cat.jpg")]},
    {"accept": "image/webp"},
    {"accept": "image/webp;lossless=1"},
    {"sample": 1},
    {"sample": 2},
]


def test_what_is_different_has_another_key() -> None:
    """No two of these are the same job, nor the plain one."""
    keys = [content_key(**{"job": JOB, **each}) for each in [{}, *OTHER]]
    assert len(set(keys)) == len(keys) == 1 + len(OTHER)
    assert {len(key) for key in keys} == {16}


def test_the_order_of_inputs_and_of_lists_counts() -> None:
    """The first picture is the base and the second is put into it, as far as anybody knows."""
    first, second = InputDigest(b"1" * 16), InputDigest(b"2" * 16)
    assert content_key(JOB, inputs=[first, second]) != content_key(JOB, inputs=[second, first])
    assert canonical_json([1, 2]) != canonical_json([2, 1])
    assert canonical_json((1, 2)) == canonical_json([1, 2])


@pytest.mark.parametrize(
    ("accept", "canonical"),
    [
        (None, None),
        ("", None),
        ("image/png", "image/png"),
        ("IMAGE/PNG", "image/png"),
        ("image/jpeg; quality=95;subsampling=444", "image/jpeg;quality=95;subsampling=444"),
        ("image/jpeg;subsampling=444;QUALITY = 95;", "image/jpeg;quality=95;subsampling=444"),
        ('image/jpeg;quality="95"', "image/jpeg;quality=95"),
        ("multipart/form-data", None),
        ("Multipart/form-data; image/webp;lossless=1", "image/webp;lossless=1"),
        (JPEG(quality=95), "image/jpeg;quality=95"),
        (WebP(), "image/webp"),
    ],
)
def test_accept_counts_by_what_it_means(accept: object, canonical: str | None) -> None:
    """However a format is written, it is one format."""
    assert canonical_accept(accept) == canonical


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1, "a": [True, None, "ä\ud800"]}, rb'{"a":[true,null,"\u00e4\ud800"],"b":1}'),
        (-0.0, b"0"),
        (1e15, b"1000000000000000"),
        (2.0**53, b"9007199254740992.0"),
        (-(2.0**53), b"-9007199254740992.0"),
        (2**64, b"18446744073709551616"),
        (0.1, b"0.1"),
    ],
)
def test_canonical_json(value: object, text: bytes) -> None:
    """Sorted, without blanks, in ASCII; whole numbers without a point."""
    assert canonical_json(value) == text


def circle() -> list[object]:
    value: list[object] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "value", [{1: 2}, {"a": {None: 1}}, b"bytes", {1, 2}, float("nan"), float("inf"), circle()]
)
def test_what_json_cannot_carry_is_refused(value: object) -> None:
    """A key over something that cannot be sent would be a key over nothing."""
    with pytest.raises(InvalidRequestError, match="what JSON can carry"):
        content_key({"type": "x", "config": value})


@pytest.mark.parametrize("sample", [-1, 1.0, "1", True, None])
def test_a_sample_is_an_integer_from_0(sample: Any) -> None:
    """``True`` too would be a silent 1."""
    with pytest.raises(InvalidRequestError, match="sample must be an integer from 0"):
        content_key(JOB, sample=sample)


def test_files_are_digested_by_their_bytes(tmp_path: Path) -> None:
    """Pieces of a file add up to its bytes, whatever its size."""
    for size in (0, 1, READ_BYTES, READ_BYTES + 1, 3 * READ_BYTES):
        content = os.urandom(size)
        (tmp_path / "file").write_bytes(content)
        assert digest_file(tmp_path / "file") == digest_bytes(content)


def test_what_is_no_readable_file_is_refused(tmp_path: Path) -> None:
    """A missing file, a folder, and a pipe, which would wait for ever and lose its bytes."""
    with pytest.raises(InvalidRequestError, match=r"cannot be read: No such file"):
        digest_file(tmp_path / "missing")
    with pytest.raises(InvalidRequestError, match="must be a regular file"):
        digest_file(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidRequestError, match="must be a regular file"):
        digest_file(tmp_path / "pipe")


@on_both_loops
async def test_inputs_of_every_kind_have_the_digest_of_their_bytes(tmp_path: Path) -> None:
    """Bytes, a path and a function of the same bytes are told apart by their names alone."""
    content = os.urandom(INLINE_BYTES + 1)
    path = tmp_path / "cat.jpg"
    path.write_bytes(content)

    async def pieces() -> AsyncIterator[bytes]:
        yield content[:1000]
        yield content[1000:]

    inputs = [
        Input(content), Input(path), Input(path, filename="other.jpg"),
        Input(pieces, size=len(content)), Input(content[:INLINE_BYTES]),
    ]  # fmt: skip
    *same, short = await Digester().inputs(inputs)
    assert {each.digest for each in same} == {digest_bytes(content)}
    assert [each.name for each in same] == [None, "cat.jpg", "other.jpg", None]
    assert short.digest == digest_bytes(content[:INLINE_BYTES])
    with pytest.raises(InvalidRequestError, match="cannot be read"):
        await Digester().digest(tmp_path / "missing")


@on_both_loops
async def test_a_file_that_stays_as_it_is_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Known by path, size, inode and time; one that changed a moment ago is read each time."""
    read: list[Path] = []

    def reading(path: Path) -> bytes:
        read.append(path)
        return digest_file(path)

    monkeypatch.setattr("prodia_async._keys.digest_file", reading)
    path = tmp_path / "cat.jpg"
    path.write_bytes(b"one")
    digester = Digester(now=lambda: path.stat().st_mtime + 2.1)
    for _ in range(3):
        assert await digester.digest(path) == digest_bytes(b"one")
    assert len(read) == 1
    os.utime(path, (1e9, 1e9))
    assert await digester.digest(path) == digest_bytes(b"one")
    path.write_bytes(b"two, longer")
    assert await digester.digest(path) == digest_bytes(b"two, longer")
    assert len(read) == 3

    fresh = Digester(now=lambda: path.stat().st_mtime + 1.9)
    await fresh.digest(path)
    await fresh.digest(path)
    assert len(read) == 5


@on_both_loops
async def test_only_so_many_files_are_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The memory of a run over a million files stays flat."""
    read: list[Path] = []

    def reading(path: Path) -> bytes:
        read.append(path)
        return digest_file(path)

    monkeypatch.setattr("prodia_async._keys.digest_file", reading)
    digester = Digester(remember=2, now=lambda: 0.0)
    paths = [tmp_path / name for name in "abc"]
    for path in paths:
        path.write_bytes(b"x")
        await digester.digest(path)
    await digester.digest(paths[2])
    await digester.digest(paths[1])
    assert read == paths
    await digester.digest(paths[0])
    assert read == [*paths, paths[0]]
