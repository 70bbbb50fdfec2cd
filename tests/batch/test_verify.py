"""Outputs looked at again: what is gone is made anew, and nothing else is paid for twice."""

from __future__ import annotations

import json
import shutil
import sqlite3
import tarfile
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from fsspec import register_implementation
from fsspec.implementations.memory import MemoryFileSystem
from raw_server import JOB_PART, RawServer, http, multipart, part, say

from prodia_async import AsyncProdia, RetryPolicy
from prodia_async.batch import Batch, BatchChangedError, BatchRecord
from prodia_async.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from prodia_async.batch import BatchSummary

SCHNELL = "inference.flux-fast.schnell.txt2img.v2"
QUICK = RetryPolicy(backoff_initial=0.01, backoff_max=0.02)
PICTURE = b"\xff\xd8\xff\xe0" + bytes(1000) + b"\xff\xd9"
TWO = multipart(
    JOB_PART,
    part("output", "a.jpg", "image/jpeg", PICTURE),
    part("output", "b.jpg", "image/jpeg", PICTURE + b"x"),
)


def foxes(count: int) -> list[dict[str, Any]]:
    config = {"prompt": "a fox", "width": 256, "height": 256}
    return [{"type": SCHNELL, "config": {**config, "seed": seed}} for seed in range(count)]


async def run(url: str, folder: Path, jobs: Any, **options: Any) -> BatchSummary:
    async with AsyncProdia("any", base_url=url, retry=QUICK) as client:
        async with Batch(folder, client, progress=False, signals=False, **options) as batch:
            return await batch.run(jobs)


@pytest.fixture(name="api")
def _api() -> Iterator[Emulator]:
    with Emulator(workers=20, retry_after=0.05) as emulator:
        yield emulator


class Shut(MemoryFileSystem):  # type: ignore[misc]
    """A store that can refuse for a while."""

    protocol = "shut"
    refusal: Exception | None = None
    store: dict[str, Any] = {}  # noqa: RUF012  (as its base has it)
    pseudo_dirs = [""]  # noqa: RUF012  (likewise)

    def info(self, path: str, **options: Any) -> Any:
        if Shut.refusal is not None:
            raise Shut.refusal
        return super().info(path, **options)


@pytest.fixture(name="store")
def _store() -> str:
    register_implementation("shut", Shut, clobber=True)
    Shut.refusal = None
    Shut.store.clear()
    return "shut://bucket/run"


@pytest.mark.parametrize(
    "refusal", [PermissionError("ExpiredToken"), OSError(5, "EIO"), ValueError("no endpoint")]
)
async def test_what_cannot_be_looked_at_is_not_given_back(
    tmp_path: Path, api: Emulator, store: str, refusal: Exception
) -> None:
    """A store that refuses for a while has lost nothing."""
    await run(api.base_url, tmp_path / "run", foxes(4), outputs=store)
    record = BatchRecord(tmp_path / "run")
    assert str(record.verify()) == "4 outputs are there and whole"
    Shut.refusal = refusal
    found = record.verify()
    assert (found.checked, found.missing, found.wrong) == (0, (), ())
    assert (found.unseen, found.returned, found.is_whole) == ((0, 1, 2, 3), False, False)
    assert type(refusal).__name__ in str(found)
    Shut.refusal = None
    summary = await run(api.base_url, tmp_path / "run", foxes(4), outputs=store)
    assert (summary.done, api.ledger.totals().charged) == (4, 4)


@pytest.mark.parametrize("outputs", ["", "file://"])
async def test_a_place_that_is_not_mounted_has_lost_nothing(
    tmp_path: Path, api: Emulator, outputs: str
) -> None:
    """Everything in it is missing, and so is what marks it; back again, all is whole."""
    pictures = tmp_path / "pictures"
    options: dict[str, Any] = {"outputs": f"{outputs}{pictures}"}
    await run(api.base_url, tmp_path / "run", foxes(3), **options)
    record = BatchRecord(tmp_path / "run")
    pictures.rename(tmp_path / "away")
    pictures.mkdir()  # where it was mounted
    found = record.verify()
    assert (found.checked, found.unseen, found.returned) == (0, (0, 1, 2), False)
    assert "there is nothing at" in str(found)
    pictures.rmdir()
    (tmp_path / "away").rename(pictures)
    assert record.verify().is_whole
    next(pictures.rglob("*.jpg")).unlink()
    assert len(record.verify().missing) == 1


@pytest.mark.parametrize(("layout", "name"), [("files", "out"), ("tar", "shards")])
async def test_a_folder_of_outputs_that_is_not_there(
    tmp_path: Path, api: Emulator, layout: str, name: str
) -> None:
    """One that is empty has lost them all: these are made again."""
    options: dict[str, Any] = {"layout": layout}
    await run(api.base_url, tmp_path / "run", foxes(3), **options)
    record = BatchRecord(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / name)
    assert record.verify().unseen == (0, 1, 2)
    (tmp_path / "run" / name).mkdir()
    assert record.verify().missing == (0, 1, 2)
    assert (await run(api.base_url, tmp_path / "run", foxes(3), **options)).done == 3
    assert str(record.verify(hashes=True)) == "3 outputs are there and whole"


@pytest.mark.parametrize("layout", ["files", "tar"])
async def test_every_output_of_a_row_is_looked_at(tmp_path: Path, layout: str) -> None:
    options: dict[str, Any] = {"layout": layout}
    with RawServer([say(http(body=TWO))]) as server:
        assert (await run(server.url, tmp_path / "run", foxes(1), **options)).done == 1
    record = BatchRecord(tmp_path / "run")
    (row,) = record.rows()
    assert [record.read_path(path, row) for path in row.paths] == [PICTURE, PICTURE + b"x"]
    assert record.verify(hashes=True).is_whole
    if layout == "tar":
        shard = tmp_path / "run" / "shards" / "shard-00000.tar"
        with tarfile.open(shard) as tar:
            at = tar.getmember(row.paths[1]).offset_data
        with shard.open("r+b") as file:
            file.seek(at)
            file.write(b"damaged")
        assert record.verify().wrong == (0,)
    else:
        second = tmp_path / "run" / row.paths[1]
        second.write_bytes(PICTURE + b"y")
        assert record.verify().is_whole
        assert record.verify(hashes=True).wrong == (0,)


@pytest.mark.parametrize("damage", [None, b"short"])
async def test_a_second_output_that_is_gone_or_short(tmp_path: Path, damage: bytes | None) -> None:
    with RawServer([say(http(body=TWO))]) as server:
        await run(server.url, tmp_path / "run", foxes(1))
    record = BatchRecord(tmp_path / "run")
    (row,) = record.rows()
    (tmp_path / "run" / row.paths[1]).unlink()
    if damage is not None:
        (tmp_path / "run" / row.paths[1]).write_bytes(damage)
    found = record.verify()
    assert (found.missing, found.wrong) == (((0,), ()) if damage is None else ((), (0,)))
    assert found.returned


@pytest.mark.parametrize("outputs", ["pictures", "file://pictures", "~/pictures"])
async def test_outputs_in_a_relative_folder_are_found_from_everywhere(
    tmp_path: Path, api: Emulator, monkeypatch: pytest.MonkeyPatch, outputs: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    await run(api.base_url, tmp_path / "run", foxes(4), outputs=outputs)
    assert len(list((tmp_path / "pictures").rglob("*.jpg"))) == 4
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    record = BatchRecord(tmp_path / "run")
    assert str(record.verify()) == "4 outputs are there and whole"
    assert all(record.read(row).startswith(b"\xff\xd8") for row in record.rows())
    if outputs != "~/pictures":
        with pytest.raises(BatchChangedError, match="elsewhere/pictures"):
            await run(api.base_url, tmp_path / "run", foxes(4), outputs=outputs)
    monkeypatch.chdir(tmp_path)
    assert (await run(api.base_url, tmp_path / "run", foxes(5), outputs=outputs)).done == 5


async def test_a_relative_folder_that_an_older_version_wrote_down(
    tmp_path: Path, api: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From elsewhere it is not found, and nothing is given back; a run writes down where it is."""
    monkeypatch.chdir(tmp_path)
    await run(api.base_url, tmp_path / "run", foxes(2), outputs="pictures")
    with closing(sqlite3.connect(tmp_path / "run" / "run.sqlite")) as connection, connection:
        old = {"layout": "files", "outputs": "pictures", "api": "prodia"}
        connection.execute("UPDATE run SET v=? WHERE k='made with'", (json.dumps(old),))
    record = BatchRecord(tmp_path / "run")
    assert record.verify().is_whole
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert record.verify().unseen == (0, 1)
    monkeypatch.chdir(tmp_path)
    assert (await run(api.base_url, tmp_path / "run", foxes(3), outputs="pictures")).done == 3
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert record.verify().is_whole
