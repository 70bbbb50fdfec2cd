"""Rows that are odd in every way, from files and from Python: each fails alone, and is told."""

from __future__ import annotations

import json
import os
from collections import UserDict
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from PIL import Image

from prodia_async import AsyncProdia, Input, InvalidRequestError, Job, JobRequest, RetryPolicy
from prodia_async.batch import Batch, BatchJob, BatchRecord, read_jobs
from prodia_async.batch._going import Source
from prodia_async.emulator import Emulator
from prodia_async.fireworks import AsyncFireworks, CannyEdgeDetection, TextToImage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

SCHNELL = "inference.flux-fast.schnell.txt2img.v2"
EDIT = "inference.flux-2.klein.4b.img2img.v1"
SMALL = {"width": 256, "height": 256}
QUICK = RetryPolicy(backoff_initial=0.01, backoff_max=0.02)


@pytest.fixture(name="api")
def _api() -> Iterator[Emulator]:
    with Emulator(workers=20, retry_after=0.05) as emulator:
        yield emulator


@asynccontextmanager
async def batch_in(folder: Path, api: Emulator) -> AsyncIterator[Batch]:
    async with (
        AsyncProdia("any", base_url=api.base_url, retry=QUICK) as client,
        Batch(folder, client, progress=False, signals=False) as batch,
    ):
        yield batch


ODD: list[tuple[str, str | None]] = [
    ('{"id": "\\ud800", "prompt": "x"}', "JSON cannot carry job.id"),
    ('{"prompt": "\\ud83d half of a smile"}', "JSON cannot carry job.config.prompt"),
    ('{"prompt": "x", "seed": Infinity}', "JSON cannot carry job.config.seed = inf"),
    ('{"prompt": "x", "config": {"a": NaN}}', "JSON cannot carry job.config.a = nan"),
    ('{"prompt": "x", "sample": 1.5}', "sample must be an integer"),
    ('{"prompt": "x", "sample": true}', "sample must be an integer"),
    ('{"prompt": "x", "sample": "²"}', "sample must be an integer"),
    ('{"prompt": "x", "sample": 99999999999999999999999}', None),
    ('{"prompt": "x", "seed": 99999999999999999999999999}', None),
    ('{"prompt": "x", "accept": 5}', "accept must be"),
    ('{"prompt": "x", "accept": "image/nothing"}', "JobRefusedError: 400"),
    ('{"prompt": "x", "inputs": [5]}', "inputs must be a list of files"),
    ('{"prompt": "x", "inputs": {"a": 1}}', "inputs must be a list of files"),
    ('{"prompt": "x", "input": "a\\u0000b.png"}', "cannot be read: "),
    ('{"prompt": "x", "input": "\\ud800.png"}', "cannot be read: 'utf-8' codec can't"),
    ('{"prompt": "x", "input": "."}', "cannot be read: it must be a regular file"),
    ('{"prompt": "x", "input": "https://example.org/a.png"}', "cannot be read: No such file"),
    ('{"prompt": "x", "type": "no type at all \\n"}', "JobRefusedError: 400"),
    ('{"prompt": ["a", "b"]}', "JobRefusedError: 400"),
    ('{"prompt": {"a": 1}}', "JobRefusedError: 400"),
    ('{"prompt": "x", "type": 5}', "no type"),
    ('{"prompt": "x", "type": "\\ud800"}', "JSON cannot carry job.type"),
    ('{"prompt": "\\ud800", "config": 5}', "config must be an object"),
    ('{"prompt": "x", "jobs": 5}', "JobRefusedError: 400"),
    ('{"prompt": "x", "": 5}', None),
    ('{"custom_id": 7, "body": {"prompt": "x", "model": 5}}', "no type"),
    ('{"prompt": "y", "id": "' + "i" * 100_000 + '"}', None),
    ("[" * 100_000, "it is no JSON"),
    ("\0\0\0", "it has a NUL"),
    ("null", "a line must be a JSON object"),
]


async def test_odd_rows_fail_alone(tmp_path: Path, api: Emulator) -> None:
    """The plan names them, the run does all others, and every way out of the record is open."""
    good = [json.dumps({"prompt": "a", "seed": n}) for n in range(3)]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join([*good, *(line for line, _ in ODD), good[0]]), encoding="utf-8")
    jobs = read_jobs(path, job_type=SCHNELL, config=SMALL)
    async with batch_in(tmp_path / "run", api) as batch:
        plan = await batch.plan(jobs)
        assert all(f"{each.why}{each.start}".isprintable() for each in plan.invalid)
        summary = await batch.run(jobs)
    rows = list(BatchRecord(tmp_path / "run").rows())[3:-1]
    for (line, why), row in zip(ODD, rows, strict=True):
        said = (row.error or "").removeprefix("Invalid: ")
        assert row.state == ("done" if why is None else "failed"), (line[:50], row)
        assert (why or "") in said, (line[:50], said)
    done = 4 + sum(why is None for _, why in ODD)
    assert (summary.done, summary.failed) == (done, len(rows) + 4 - done)
    assert api.ledger.totals().dollars == pytest.approx(0.0025 * (done - 1))
    record = BatchRecord(tmp_path / "run")
    for name in ("m.jsonl", "m.csv", "m.parquet"):
        assert record.export(tmp_path / name) == len(rows) + 4
    record.export(tmp_path / "failures.jsonl")
    record.write_report()


@pytest.mark.parametrize(
    "config",
    [
        {"seed": Decimal(1)}, {"seed": datetime(2026, 1, 1, tzinfo=UTC)}, {"seed": {1, 2}},
        {"seed": b"1"}, {1: 2}, {"prompt": "\ud800"}, {"\ud800": 1}, {"seed": float("nan")},
    ],
    ids=range(8),
)  # fmt: skip
async def test_odd_jobs_fail_alone(tmp_path: Path, api: Emulator, config: dict[Any, Any]) -> None:
    """What JSON cannot carry is told before anything of it is sent."""
    jobs = [BatchJob({"type": SCHNELL, "config": {"prompt": "x", **SMALL, **config}}, id="\xfc")]
    jobs += [BatchJob({"type": SCHNELL, "config": {"prompt": "y", **SMALL}}, id="y")]
    async with batch_in(tmp_path / "run", api) as batch:
        summary = await batch.run(jobs)
    assert (summary.done, summary.failed) == (1, 1)
    assert api.ledger.totals().types.get(SCHNELL) == 1
    (row, _) = BatchRecord(tmp_path / "run").rows()
    assert row.error is not None
    assert "JSON" in row.error


async def test_a_file_that_is_no_list_of_jobs_leaves_no_trace(
    tmp_path: Path, api: Emulator
) -> None:
    """Its error comes out as it is, and the folder is as new for one that is."""
    (tmp_path / "a.csv").write_text("prompt;seed\nfox;1\n", encoding="utf-8")
    jobs = read_jobs(tmp_path / "a.csv", job_type=SCHNELL, config=SMALL)
    with pytest.raises(InvalidRequestError, match="line 1: columns must be separated") as caught:
        async with batch_in(tmp_path / "run", api) as batch:
            await batch.run(jobs)
    assert not hasattr(caught.value, "__notes__")
    assert BatchRecord(tmp_path / "run").summary().stopped is None
    (tmp_path / "a.csv").write_text("prompt,seed\nfox,1\n", encoding="utf-8")
    async with batch_in(tmp_path / "run", api) as batch:
        assert (await batch.run(jobs)).done == 1


async def test_rows_before_one_that_cannot_be_made_are_run(tmp_path: Path, api: Emulator) -> None:
    """In a folder that has some too, where the first rows are looked at together."""

    async def jobs(count: int) -> AsyncIterator[Job]:
        for n in range(count):
            yield Job(SCHNELL, {"prompt": "x", "seed": n, **SMALL})
        yield Job("")

    for count in (1, 3):
        with pytest.raises(InvalidRequestError):
            async with batch_in(tmp_path / "run", api) as batch:
                await batch.run(jobs(count))
        assert BatchRecord(tmp_path / "run").summary().done == count


async def test_an_error_in_words_that_are_no_text(tmp_path: Path, api: Emulator) -> None:
    """A user's own input raises, with half of a letter in its words: they are recorded."""
    times = iter(range(9))

    async def pieces() -> AsyncIterator[bytes]:
        if next(times):  # once to know it by, and once to send it
            raise ValueError("half of a smile: \ud83d")
        yield b"abc"

    odd = JobRequest(Job(EDIT, {"prompt": "x"}), (Input(pieces, "a.png", size=3),))
    async with batch_in(tmp_path / "run", api) as batch:
        summary = await batch.run([odd, Job(SCHNELL, {"prompt": "y", **SMALL})])
    assert (summary.done, summary.failed) == (1, 1), summary
    (row, _) = BatchRecord(tmp_path / "run").rows()
    assert "half of a smile: \N{REPLACEMENT CHARACTER}" in (row.error or "")


async def test_a_file_whose_name_is_no_utf8(tmp_path: Path, api: Emulator) -> None:
    """Old disks have them: the list and the picture are read, recorded, and named when it fails."""
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(folder / "a.png")
    (folder / "a.csv").write_text("prompt,input\na,a.png\nb,a.png\n", encoding="utf-8")
    jobs = read_jobs(folder / "a.csv", job_type=EDIT)
    async with batch_in(folder / os.fsdecode(b"r\xfcn"), api) as batch:
        str(await batch.plan(jobs)).encode()
        assert (await batch.run(jobs)).done == 2
    record = BatchRecord(folder / os.fsdecode(b"r\xfcn"))
    assert Path(record.setting("input")["path"]) == folder / "a.csv"
    record.write_report()
    api.fail_jobs(None)
    async with batch_in(folder / "other", api) as batch:
        assert (
            await batch.run([JobRequest(Job(EDIT, {"prompt": "c"}), (folder / "a.png",))])
        ).failed
    record = BatchRecord(folder / "other")
    assert record.export(tmp_path / "failures.jsonl") == 1
    (again,) = read_jobs(tmp_path / "failures.jsonl")
    assert again.request.inputs == (folder / "a.png",)  # type: ignore[union-attr]


async def test_failures_of_inputs_in_memory(
    tmp_path: Path, api: Emulator, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have no name to be read again by, so they are left out, which is said."""
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    api.fail_jobs(None)
    inputs: list[Any] = [(tmp_path / "a.png").read_bytes(), "a.png"]
    jobs = [JobRequest(Job(EDIT, {"prompt": str(each)[-5:]}), (each,)) for each in inputs]
    async with batch_in(tmp_path / "run", api) as batch:
        assert (await batch.run(jobs)).failed == 2
    (tmp_path / "other").mkdir()
    target = tmp_path / "other/failures.jsonl"
    assert BatchRecord(tmp_path / "run").export(target) == 1
    assert "only memory had their inputs: 1" in caplog.text
    (again,) = read_jobs(target)
    assert again.request.inputs == (tmp_path / "a.png",)  # type: ignore[union-attr]
    caplog.clear()
    api.fail_next(2, 400, body="no")
    async with AsyncFireworks("any", base_url=api.fireworks_url, retry=QUICK) as client:
        async with Batch(tmp_path / "fireworks", client, progress=False, signals=False) as batch:
            orders = [CannyEdgeDetection(each, min_val=n) for n, each in enumerate(inputs)]
            assert (await batch.run(orders)).failed == 2
    assert BatchRecord(tmp_path / "fireworks").export(target) == 1
    assert "only memory had their inputs: 1" in caplog.text
    (line,) = target.read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["config"]["image"] == str(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["inputs", "input", "accept", "sample"])
async def test_a_mapping_of_more_than_the_job(tmp_path: Path, api: Emulator, name: str) -> None:
    """The shape of an input file's line, in Python: what is beside the job was lost in silence."""
    job = {"type": SCHNELL, "config": {"prompt": "x", **SMALL}}
    async with batch_in(tmp_path / "run", api) as batch:
        summary = await batch.run([{**job, name: ["a.png"]}, {**job, name: None}])
    assert (summary.done, summary.failed) == (1, 1)
    (row, _) = BatchRecord(tmp_path / "run").rows()
    assert f"the job alone, of type, config and jobs, and this one has {name}=['a.png']" in str(row)


async def test_a_name_that_is_given_later(tmp_path: Path, api: Emulator) -> None:
    """Stands in the manifest and among the failures, though nothing is run again for it."""
    jobs = [Job(SCHNELL, {"prompt": "x", "steps": steps, **SMALL}) for steps in (1, 1000)]
    async with batch_in(tmp_path / "run", api) as batch:
        await batch.run(jobs)
        await batch.run([BatchJob(job, id=name) for job, name in zip(jobs, "ab", strict=True)])
    record = BatchRecord(tmp_path / "run")
    assert [(row.id, row.state) for row in record.rows()] == [("a", "done"), ("b", "failed")]
    assert record.export(tmp_path / "failures.jsonl") == 1
    assert [each.id for each in read_jobs(tmp_path / "failures.jsonl")] == ["b"]  # type: ignore[union-attr]
    assert api.ledger.totals().types[SCHNELL] == 2


async def test_odd_orders_fail_alone(tmp_path: Path, api: Emulator) -> None:
    """Of the other API, in the same words."""
    orders: list[Any] = [
        TextToImage("half of a smile: \ud83d"), CannyEdgeDetection("a\0b.png"),
        BatchJob(TextToImage("a fox"), id="\ud800"), TextToImage("a fox", seed=1),
        {"type": "text_to_image", "config": {"prompt": "x", 1: 2}},
    ]  # fmt: skip
    async with AsyncFireworks("any", base_url=api.fireworks_url, retry=QUICK) as client:
        async with Batch(tmp_path / "run", client, progress=False, signals=False) as batch:
            summary = await batch.run(orders)
    assert (summary.done, summary.failed) == (1, 4)
    errors = [str(row.error) for row in BatchRecord(tmp_path / "run").rows()]
    assert "JSON cannot carry job.config.prompt" in errors[0]
    assert "cannot be read: embedded null byte" in errors[1]
    assert "JSON cannot carry job.id" in errors[2]
    assert "TextToImage has no setting 1; it has prompt" in errors[4]


def _filled_anew(kind: str, pictures: list[Path]) -> Iterator[Any]:
    config: dict[str, Any] = {"width": 512, "height": 512, "prompt": "a boat"}
    job = {"type": EDIT if kind == "inputs" else SCHNELL, "config": config}
    inputs: list[Any] = [None]
    for seed, inputs[0] in enumerate(pictures):
        if kind == "inputs":
            yield JobRequest(job, inputs=inputs)
            continue
        config["seed"] = seed
        moderated = Job.serial(job, Job.moderate(threshold=0.95))
        yield {"BatchJob": BatchJob(job), "Job": Job(SCHNELL, config), "workflow": moderated}.get(
            kind, job
        )


@pytest.mark.parametrize("kind", ["mapping", "BatchJob", "Job", "workflow", "inputs"])
@pytest.mark.parametrize("is_async", [False, True])
async def test_one_mapping_that_is_filled_anew_for_each_row(
    tmp_path: Path, api: Emulator, kind: str, is_async: bool
) -> None:
    """A row is what it was when it was given: else all would be the last, and count as equal."""
    pictures = [tmp_path / f"{number}.png" for number in range(3)]
    for shade, path in enumerate(pictures):
        Image.new("RGB", (64, 64), (shade, 0, 0)).save(path)

    async def slowly() -> AsyncIterator[Any]:
        for each in _filled_anew(kind, pictures):
            yield each

    async with batch_in(tmp_path / "run", api) as batch:
        summary = await batch.run(slowly() if is_async else _filled_anew(kind, pictures))
    rows = list(BatchRecord(tmp_path / "run").rows())
    assert (summary.done, summary.duplicates) == (3, 0), [row.error for row in rows]
    assert len({row.sha256 for row in rows}) == 3  # what came, not what is recorded
    assert len({json.dumps(row.request) for row in rows}) == 3


class Fox(Job):
    """A job that is made of something else."""

    def __init__(self, seed: int) -> None:
        super().__init__(SCHNELL, {"prompt": "a fox", "seed": seed, **SMALL})


@pytest.mark.parametrize("wrap", [lambda job: job, JobRequest, BatchJob])
async def test_a_job_of_a_class_of_the_users_own(tmp_path: Path, api: Emulator, wrap: Any) -> None:
    """Its class takes other arguments than a job has fields."""
    async with batch_in(tmp_path / "run", api) as batch:
        summary = await batch.run(wrap(Fox(seed)) for seed in range(3))
    assert (summary.done, summary.duplicates) == (3, 0)


async def test_what_an_item_is_made_of_is_taken_as_it_is_when_it_is_given() -> None:
    """Mappings of every class, headers and parameters too; what cannot be copied is itself."""
    filled: dict[str, Any] = {}
    headers: dict[str, str] = {}
    tag = object()
    looped: list[Any] = []
    looped += [looped, looped]
    job = Job(SCHNELL, {"a": looped})
    looped += [job, job]

    def rows() -> Iterator[Any]:
        for seed in range(2):
            filled["seed"] = seed
            headers["x-seed"] = str(seed)
            config = MappingProxyType({"nested": UserDict({"deep": MappingProxyType(filled)})})
            yield JobRequest(
                Job(SCHNELL, config), extra_headers=headers, extra_query=headers, tag=tag
            )
            yield UserDict({"type": SCHNELL, "config": MappingProxyType(filled)})
        yield job

    with anyio.fail_after(10):
        items = await Source(rows()).some(64)
    assert items is not None
    assert items[4] is job
    for seed in range(2):
        request, mapping = items[2 * seed : 2 * seed + 2]
        assert request.job.config == {"nested": {"deep": {"seed": seed}}}
        assert request.extra_headers == request.extra_query == {"x-seed": str(seed)}
        assert request.tag is tag
        assert mapping == {"type": SCHNELL, "config": {"seed": seed}}
