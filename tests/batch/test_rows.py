"""Jobs from files, and what is wrong with a row."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import sys
import threading
from typing import TYPE_CHECKING, Any

import anyio
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import on_both_loops

from prodia_async import InvalidRequestError, Job, JobRequest
from prodia_async.batch import BadRow, BatchError, BatchJob, grid, read_jobs
from prodia_async.batch._rows import MOST_LINE_BYTES, mended_by
from prodia_async.fireworks import TextToImage

if TYPE_CHECKING:
    from pathlib import Path

TYPE = "inference.x.v1"


def read(path: Path, text: str | bytes, **options: Any) -> list[Any]:
    content = text.encode() if isinstance(text, str) else text
    path.write_bytes(content)
    return list(read_jobs(path, **{"job_type": TYPE, **options}))


def configs(rows: list[Any]) -> list[dict[str, Any]]:
    return [dict(row.request.job.config) for row in rows]


def test_json_lines(tmp_path: Path) -> None:
    """Members are settings; config, type, id, accept and inputs stand beside them."""
    (tmp_path / "cat.jpg").write_bytes(b"x")
    lines = [
        {"prompt": "a", "seed": 1, "id": 7, "config.scale": 0.5},
        {"type": "inference.y.v1", "config": {"prompt": "b"}, "accept": "image/png", "sample": 2},
        {"prompt": "c", "input": "cat.jpg"},
        {"prompt": "d", "inputs": ["cat.jpg", "cat.jpg"]},
        {"custom_id": "e-1", "method": "POST", "url": "/v2/job", "body": {"prompt": "e"}},
        {"custom_id": "f-1", "body": {"type": "inference.z.v1", "config": {"prompt": "f"}}},
        {"custom_id": "g-1", "body": {"model": "inference.m.v1", "prompt": "g"}},
    ]
    rows = read(tmp_path / "jobs.jsonl", "\n\n".join(map(json.dumps, lines)))
    assert configs(rows) == [
        {"prompt": "a", "seed": 1, "scale": 0.5}, {"prompt": "b"}, {"prompt": "c"}, {"prompt": "d"},
        {"prompt": "e"}, {"prompt": "f"}, {"prompt": "g"},
    ]  # fmt: skip
    assert [row.id for row in rows] == ["7", None, None, None, "e-1", "f-1", "g-1"]
    assert [row.line for row in rows] == [1, 3, 5, 7, 9, 11, 13]
    assert rows[1].request.accept == "image/png"
    assert rows[1].sample == 2
    assert rows[2].request.inputs == (tmp_path / "cat.jpg",)
    assert len(rows[3].request.inputs) == 2
    assert [row.request.job.type for row in rows[4:]] == [TYPE, "inference.z.v1", "inference.m.v1"]


def test_csv(tmp_path: Path) -> None:
    """Numbers are numbers, prompts stay text, empty cells are absent, quotes span lines."""
    text = (
        "id,prompt,seed,scale,progressive,negative_prompt\n"
        '1,"a, b",7,0.5,true,4\n'
        '2,"two\nlines",,,FALSE,\n'
        "3,12,0x1,1e3,,\n"
    )
    rows = read(tmp_path / "jobs.csv", text)
    assert configs(rows) == [
        {"prompt": "a, b", "seed": 7, "scale": 0.5, "progressive": True, "negative_prompt": "4"},
        {"prompt": "two\nlines", "progressive": False},
        {"prompt": "12", "seed": "0x1", "scale": 1000.0},
    ]
    assert [row.id for row in rows] == ["1", "2", "3"]
    assert [row.line for row in rows] == [2, 3, 5]


def test_one_file_by_every_editor(tmp_path: Path) -> None:
    """A byte order mark, CRLF, blank lines and a missing end change nothing."""
    plain = read(tmp_path / "a.csv", "prompt,seed\na,1\nb,2\n")
    odd = read(tmp_path / "b.csv", b"\xef\xbb\xbfprompt,seed\r\na,1\r\n\r\n,\r\nb,2")
    assert configs(plain) == configs(odd)
    assert configs(read(tmp_path / "a.tsv", "prompt\tseed\na, x\t1\n")) == [
        {"prompt": "a, x", "seed": 1}
    ]
    text = read(tmp_path / "a.txt", b"\xef\xbb\xbfone fox\r\n\r\n  two, foxes \r\n")
    assert configs(text) == [{"prompt": "one fox"}, {"prompt": "two, foxes"}]


def test_parquet(tmp_path: Path) -> None:
    """Columns as they are typed; nothing stands for a missing value."""
    table = pa.table(
        {
            "prompt": ["a", "b"], "seed": pa.array([1, None], pa.int64()),
            "scale": [0.5, float("nan")],
        }
    )  # fmt: skip
    pq.write_table(table, tmp_path / "jobs.parquet")
    jobs = read_jobs(tmp_path / "jobs.parquet", job_type=TYPE)
    assert jobs.total == 2
    assert configs(list(jobs)) == [{"prompt": "a", "seed": 1, "scale": 0.5}, {"prompt": "b"}]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"prompt": "a"}\n', {"prompt": "a"}),
        ("prompt,seed\na,1\n", {"prompt": "a", "seed": 1}),
        ("seed\tprompt\n1\ta\n", {"prompt": "a", "seed": 1}),
        ("a\n", {"prompt": "a"}),
    ],
)
def test_a_stream_tells_what_it_is(text: str, found: dict[str, Any]) -> None:
    """By its first line, whether it gives bytes or text."""
    for stream in (io.BytesIO(text.encode()), io.StringIO(text)):
        assert configs(list(read_jobs(stream, job_type=TYPE))) == [found]
    assert list(read_jobs(io.BytesIO(b""), job_type=TYPE)) == []


@pytest.mark.parametrize("header", ["input,seed", "id\tseed", "Animal,place"])
def test_a_stream_whose_header_names_no_prompt(header: str) -> None:
    """The header is no prompt: it would be paid for, and so would all rows."""
    text = f"{header}\nfox{header[-5 if 'seed' in header else -6]}7\n"
    config = {"prompt": "a {Animal}"} if "Animal" in header else {}
    (row,) = read_jobs(io.StringIO(text), job_type=TYPE, config=config)
    assert row.line == 2
    assert configs([row])[0].get("prompt") in {"a fox", None}


@pytest.mark.parametrize(
    "text", ['[\n  {"prompt": "a"},\n 7]', '[{"prompt": "a"},\n7]', '{\n"a": 7\n}']
)
def test_json_that_is_no_lines(text: str) -> None:
    """Its lines are no prompts: each is told, but for one that can be a row by itself."""
    found = list(read_jobs(io.StringIO(text), job_type=TYPE))
    assert {type(each) for each in found} == {BadRow}
    assert len(found) == text.count("\n") + 1


@pytest.mark.parametrize(
    "line", ["a cat, seed", "portrait, image, mask", "a cat; a type", "[cat] in snow", "[ a cat ]"]
)
def test_a_prompt_with_the_name_of_a_setting_is_no_header(line: str) -> None:
    """Only words that stand alone are column names."""
    assert configs(list(read_jobs(io.StringIO(line), job_type=TYPE))) == [{"prompt": line}]


def test_a_pipe_is_read(tmp_path: Path) -> None:
    """As the shell makes one of a command's output."""
    os.mkfifo(tmp_path / "pipe.csv")
    writer = threading.Thread(
        target=lambda: (tmp_path / "pipe.csv").write_bytes(b"prompt\na\n"), daemon=True
    )
    writer.start()
    assert configs(list(read_jobs(tmp_path / "pipe.csv", job_type=TYPE))) == [{"prompt": "a"}]
    writer.join(10)


@on_both_loops
async def test_a_pipe_gives_each_row_as_it_comes(tmp_path: Path) -> None:
    """Whoever writes it may take an hour for the next one."""
    os.mkfifo(tmp_path / "pipe.csv")
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            got = anyio.Event()

            async def write() -> None:
                async with await anyio.open_file(tmp_path / "pipe.csv", "wb") as file:
                    await file.write(b"prompt\na\n")
                    await file.flush()
                    await got.wait()

            group.start_soon(write)
            async for some in read_jobs(tmp_path / "pipe.csv", job_type=TYPE).chunks():
                assert configs(some) == [{"prompt": "a"}]
                got.set()


def test_columns_fill_in_the_config(tmp_path: Path) -> None:
    """A placeholder takes its column, which then is no setting of its own; ``{{`` is a brace."""
    config = {"prompt": "a {animal} in {place} {{x}}", "steps": 4}
    rows = read(tmp_path / "a.csv", "animal,place,seed\nfox,snow,1\n,sea,2\n", config=config)
    assert configs(rows[:1]) == [{"prompt": "a fox in snow {x}", "steps": 4, "seed": 1}]
    assert rows[1].why == "{animal} is to be filled in, and the row has no animal"
    (row,) = read(tmp_path / "b.txt", "fox\n", config={"steps": 4, "prompt": "x"})
    assert row.request.job.config == {"prompt": "fox", "steps": 4}


def test_what_is_filled_in_is_what_stands_in_the_file(tmp_path: Path) -> None:
    """1.10 is no 1.1 where it is a part of a text; as a setting of its own it is a number."""
    config = {"prompt": "{version} of {year} { {{x}}", "steps": 4}
    text = "version,year,seed,on\n1.10,007,1.10,TRUE\nTRUE, 1e3 ,,\n"
    assert configs(read(tmp_path / "a.csv", text, config=config)) == [
        {"prompt": "1.10 of 007 { {x}", "steps": 4, "seed": 1.1, "on": True},
        {"prompt": "TRUE of 1e3 { {x}", "steps": 4},
    ]
    lines = [{"version": True, "year": 2e3}, {"version": ["a"], "year": 1}, {"version": 1}]
    found = read(tmp_path / "a.jsonl", "\n".join(map(json.dumps, lines)), config=config)
    assert configs(found[:1]) == [{"prompt": "true of 2000.0 { {x}", "steps": 4}]
    assert [row.why for row in found[1:]] == [
        "{version} is to be filled in, and the row has ['a'], which is no string or number",
        "{year} is to be filled in, and the row has no year",
    ]


def test_a_quote_that_never_ends_takes_no_row_along(tmp_path: Path) -> None:
    """The rest of the file would be one prompt, and be paid for."""
    rows = "".join(f"a cat {n},{n}\n" for n in range(50))
    (bad,) = read(tmp_path / "a.csv", f'prompt,seed\n"a dog,0\n{rows}')
    assert bad.line == 2
    assert bad.why == "it is no CSV: unexpected end of data (lines 2 to 52; is a quote open?)"
    found = read(tmp_path / "a.csv", f'prompt,seed\n"a dog,0\n{rows}"b",1\nc,2\n')
    assert [each.line for each in found] == [2, 54]
    assert configs(found[1:]) == [{"prompt": "c", "seed": 2}]


def test_a_quote_that_was_not_begun(tmp_path: Path) -> None:
    """A row with half a pair of them is told, and so is what may be the rest of it."""
    text = 'prompt,seed\na cat",1\nof two lines\n"6"" nails",2\n"6"" nails, ""big""",2\n'
    found = read(tmp_path / "a.csv", f'{text}a "big" cat,3\n')
    whys = ["a quote is missing", "line 2 cannot be read", "line 2 cannot be read"]
    assert [each.why[: len(why)] for each, why in zip(found[:3], whys, strict=True)] == whys
    assert [each.line for each in found] == [2, 3, 4, 5, 6]
    found = read(tmp_path / "a.csv", "prompt,seed\na cat,1\n" + text.partition("lines\n")[2])
    assert [config["prompt"] for config in configs(found)] == [
        "a cat",
        '6" nails',
        '6" nails, "big"',
    ]
    (row,) = read(tmp_path / "a.csv", 'prompt,seed\na "big" cat,3\n')
    assert configs([row]) == [{"prompt": 'a "big" cat', "seed": 3}]


@pytest.mark.parametrize("first", ['"a "big" cat', "\xff", '"a\n\xff'])
def test_the_rest_of_a_row_that_cannot_be_read_is_no_row(tmp_path: Path, first: str) -> None:
    """What comes behind it may be a part of it, until a line is a whole row for certain."""
    text = f'prompt,seed\n{first}\n in the snow\nby night",5\nb "x",1\n"c, d",2\n'
    found = read(tmp_path / "a.csv", text.encode("latin-1"))
    last = 6 + first.count("\n")
    assert [each.line for each in found if not isinstance(each, BadRow)] == [last]
    assert configs(found[-1:]) == [{"prompt": "c, d", "seed": 2}]
    assert sum("may be a part of the same row" in getattr(each, "why", "") for each in found)


def test_lines_keep_their_numbers(tmp_path: Path) -> None:
    """Behind one that is no UTF-8, and behind a cell of two lines."""
    found = read(tmp_path / "a.csv", b"prompt,seed\na,1\n\xff\xff,2\nb,3,4\nc,5\n")
    assert [each.line for each in found] == [2, 3, 4, 5]
    found = read(tmp_path / "a.csv", 'prompt,seed\r\n"a\r\ncat",1\r\nb,2,3\r\n')
    assert [each.line for each in found] == [2, 4]


BAD = [
    ("a.jsonl", "{", "it is no JSON"),
    ("a.jsonl", "[1]", "a line must be a JSON object, not list"),
    ("a.jsonl", "[" * 100_000, "it is no JSON"),
    ("a.jsonl", b'{"prompt": "\xff"}', "it is no UTF-8"),
    ("a.jsonl", '{"prompt": ""}', "no prompt"),
    ("a.jsonl", '{"prompt": "a", "config": 1}', "config must be an object, not 1"),
    ("a.jsonl", '{"prompt": "a", "inputs": 1}', "inputs must be a list of files, not 1"),
    ("a.jsonl", '{"prompt": "a", "inputs": "[x"}', "inputs must be a JSON list"),
    ("a.jsonl", '{"prompt": "a", "sample": -1}', "sample must be an integer"),
    ("a.jsonl", '{"prompt": "a", "type": 3}', "no type"),
    ("a.jsonl", '{"prompt": "a", "sample": "\u00b2"}', "sample must be an integer"),
    ("a.jsonl", '{"prompt": "a", "inputs": "' + "[" * 100_000 + '"}', "inputs must be a JSON list"),
    ("a.jsonl", "\0\0", "it has a NUL, as no text has"),
    ("a.csv", "prompt\na,b,c", "it has 3 cells, and the header names 1"),
    ("a.csv", b"prompt\n\xff", "it is no UTF-8"),
    ("a.csv", "prompt\n" + '"' + "x" * 200_000, "it is no CSV"),
]


@pytest.mark.parametrize(("name", "text", "why"), BAD, ids=range(len(BAD)))
def test_a_bad_row_is_told_and_ends_nothing(
    tmp_path: Path, name: str, text: str | bytes, why: str
) -> None:
    """With its line; the row behind it is read."""
    content = text.encode() if isinstance(text, str) else text
    good = b"\nfine" if name.endswith("csv") else b'\n{"prompt": "fine"}'
    found = read(tmp_path / name, content + good)
    assert isinstance(found[0], BadRow)
    assert found[0].why.startswith(why), found[0].why
    assert found[0].line == (2 if name.endswith("csv") else 1)
    if "no CSV" not in why:  # an open quote takes what follows it
        assert configs(found[1:]) == [{"prompt": "fine"}]


def test_a_row_that_failed_is_read_as_it_was(tmp_path: Path) -> None:
    """With what was given then, if nothing is given now; one that could not be read is no job."""
    given = {"type": "inference.y.v1", "config": {"steps": 4, "seed": 1}, "accept": "image/png",
             "inputs": ["/a.png"], "folder": "/then"}  # fmt: skip
    lines = [
        {"_failed": {"error": "it is no JSON", "text": "{", "key": "0" * 32}},
        {"prompt": "a", "_failed": {"given": given, "key": "ab" * 16}},
        {"prompt": "a", "input": "b.png", "_failed": {"given": given, "key": "no key"}},
        {"prompt": "", "id": "x", "_failed": {"given": given}},
        {"prompt": "a", "_failed": {"given": {"config": 3, "inputs": 3}}},
        {"prompt": "a", "_failed": "of the user's own"},
    ]
    text = "\n".join(map(json.dumps, lines))
    bad, first, second, third, *rest = read(tmp_path / "a.jsonl", text, config={"seed": 2})
    assert bad.why == "it could not be read, and has not been mended: it is no JSON"
    assert first.request.job == Job(TYPE, {"steps": 4, "seed": 2, "prompt": "a"})
    assert (first.request.accept, first.request.inputs) == ("image/png", ("/a.png",))
    assert [str(each) for each in second.request.inputs] == ["/then/b.png"]
    assert (third.why, third.row["id"]) == ("no prompt", "x")
    assert third.row["_failed"]["given"]["config"] == {"steps": 4, "seed": 2}
    assert [each.request.job.config for each in rest] == [{"seed": 2, "prompt": "a"}] * 2
    keys = [mended_by(each) for each in (bad, first, second, third, *rest)]
    assert keys == [bytes(16), bytes([0xAB] * 16), None, None, None, None]
    plain = read(tmp_path / "a.jsonl", text, job_type=None)
    assert plain[1].request.job.type == "inference.y.v1"


def test_a_line_of_ten_megabytes(tmp_path: Path) -> None:
    """Is refused by its size, and never held whole."""
    line = b'{"prompt": "' + b"x" * (10 << 20) + b'"}'
    found = read(tmp_path / "a.jsonl", line + b'\n{"prompt": "fine"}\n')
    assert found[0].why == f"the line has {len(line) + 1:,} bytes"
    assert found[1].line == 2
    (last,) = read(tmp_path / "a.jsonl", line)
    assert last.why == f"the line has {len(line):,} bytes"
    exact = b'{"prompt": "' + b"x" * (MOST_LINE_BYTES - 15) + b'"}\n'
    (row,) = read(tmp_path / "b.jsonl", exact)
    assert isinstance(row, BatchJob)


def test_a_type_that_needs_a_prompt(tmp_path: Path) -> None:
    """The catalogue knows that some cannot do without."""
    (row,) = read(
        tmp_path / "a.csv", "seed\n1\n", job_type="inference.flux-fast.schnell.txt2img.v2"
    )
    assert row.why == "no prompt"
    (row,) = read(tmp_path / "a.csv", "seed\n1\n", job_type=None)
    assert row.why.startswith("no type")


def test_what_cannot_be_read_at_all(tmp_path: Path) -> None:
    """Is refused at once."""
    with pytest.raises(InvalidRequestError, match="there is no such file"):
        read_jobs(tmp_path / "missing.csv")
    assert repr(read_jobs(io.BytesIO(b""))).startswith("<JobReader <_io.BytesIO")
    with pytest.raises(InvalidRequestError, match="it is a folder"):
        read_jobs(tmp_path)
    with pytest.raises(InvalidRequestError, match="there is no such file"):
        read_jobs(tmp_path / "a\0b.csv")
    with pytest.raises(InvalidRequestError, match="a path or a stream, not 3"):
        read_jobs(3)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequestError, match="config must be a mapping"):
        read_jobs(io.BytesIO(b""), config=3)  # type: ignore[arg-type]


WHOLE = gzip.compress(
    "".join(f"{random.Random(n).random()} foxes\n" for n in range(20_000)).encode()
)


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        (
            "a.csv",
            b"prompt;seed\na cat;1\n",
            "line 1: columns must be separated by ',', not by ';'",
        ),
        ("-", b"prompt;seed\na cat;1\n", "line 1: columns must be separated by ',', not by ';'"),
        ("a.tsv", b"prompt,seed\na cat,1\n", r"line 1: columns must be separated by '\\t'"),
        ("a.csv", b"\nprompt,seed,seed\na,1,2\n", "line 2: the header .* has two of 'seed'"),
        ("a.csv", b'prompt,"se\na,1\n', "line 1: the header cannot be read: it is no CSV"),
        ("a.csv", b'prompt,se"\na,1\n', "line 1: the header cannot be read: a quote is missing"),
        ("a.csv", b"\n\xff,seed\na,1\n", "line 2: the header cannot be read: it is no UTF-8"),
        ("a.csv", "prompt\nfox\n".encode("utf-16"), r"in UTF-8, .* \(line 1: it is no UTF-8"),
        ("a.txt", "fox\n".encode("latin-1") + "F\xfcchse\n".encode("utf-16-le"), "have a NUL"),
        ("a.txt", "F\xfcchse\n".encode("latin-1"), r"\(line 1: it is no UTF-8"),
        ("a.txt", WHOLE, "is it compressed"),
        ("a.jsonl.gz", WHOLE, "is it compressed"),
        ("-", WHOLE, "is it compressed"),
        ("a.pdf", b"%PDF-1.7\n%\xe2\n1 0 obj\n\0\0", "is it compressed"),
    ],
    ids=range(14),
)
def test_a_file_that_is_no_list_of_jobs(
    tmp_path: Path, name: str, content: bytes, why: str
) -> None:
    """Is refused as a whole before its first row: none of its pieces is paid for."""
    (tmp_path / name).write_bytes(content)
    stream = io.BufferedReader(io.BytesIO(content))
    jobs = read_jobs(stream if name == "-" else tmp_path / name, job_type=TYPE)
    with pytest.raises(InvalidRequestError, match=why):
        next(iter(jobs))


def test_a_parquet_file_that_is_none(tmp_path: Path) -> None:
    """At once; where it is damaged further in, once that is reached."""
    (tmp_path / "a.parquet").write_bytes(b"this is no Parquet, but long enough for a footer")
    with pytest.raises(InvalidRequestError, match="cannot be read as Parquet"):
        read_jobs(tmp_path / "a.parquet")
    pq.write_table(pa.table([[1], [2]], names=["seed", "seed"]), tmp_path / "a.parquet")
    with pytest.raises(InvalidRequestError, match="has two of 'seed'"):
        read_jobs(tmp_path / "a.parquet")
    pq.write_table(pa.table({"prompt": [f"cat {n}" * 50 for n in range(5000)]}), tmp_path / "b")
    content = bytearray((tmp_path / "b").read_bytes())
    content[200:4000] = bytes(3800)
    (tmp_path / "a.parquet").write_bytes(content)
    jobs = read_jobs(tmp_path / "a.parquet", job_type=TYPE)
    with pytest.raises(InvalidRequestError, match="cannot be read as Parquet"):
        list(jobs)


def test_parquet_without_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra that is missing is named."""
    (tmp_path / "a.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(BatchError, match=r"pip install 'prodia-async\[batch\]'"):
        read_jobs(tmp_path / "a.parquet")


def test_members_that_a_parquet_row_lacks(tmp_path: Path) -> None:
    """A struct has all members in every row; those of other rows are no nulls to be sent."""
    rows = [
        {"config": {"prompt": "a", "seed": 1, "loras": [{"name": "x", "scale": 1}]}},
        {"config": {"prompt": "b", "loras": [{"name": "y"}]}},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    found = configs(list(read_jobs(tmp_path / "a.parquet", job_type=TYPE)))
    assert [{"config": config} for config in found] == rows


@on_both_loops
async def test_rows_come_the_same_in_a_loop(tmp_path: Path) -> None:
    """``async for`` and ``for`` give the same, any number of times."""
    path = tmp_path / "jobs.txt"
    path.write_text("\n".join(f"fox {n}" for n in range(300)), encoding="utf-8")
    jobs = read_jobs(path, job_type=TYPE)
    for _ in range(2):
        assert [row async for row in jobs] == list(jobs)


# Grids.


def test_every_combination_once() -> None:
    """In order, the last setting fastest; lazily, and any number of times."""
    made = grid(Job(TYPE, {"steps": 4}), prompt=["a", "b"], seed=range(3))
    assert len(made) == 6
    assert repr(made) == "<Grid 2 prompt x 3 seed>"
    requests: list[Any] = [each.request for each in made]
    found = [request.config for request in requests]
    assert found == [
        {"steps": 4, "prompt": prompt, "seed": seed} for prompt in "ab" for seed in range(3)
    ]
    assert list(made) == list(made)
    assert len(grid(Job(TYPE), seed=range(10**9))) == 10**9


@pytest.mark.parametrize(
    "job",
    [
        {"type": TYPE},
        JobRequest(Job(TYPE), accept="image/png"),
        BatchJob({"type": TYPE, "config": {"seed": 9}}, id="x"),
        TextToImage("b"),
    ],
)
def test_a_grid_of_any_job(job: Any) -> None:
    """Whatever a batch takes can be varied, and keeps the rest of what it is."""
    first, second = grid(job, seed=[1, 2])
    assert first != second
    if isinstance(job, JobRequest):
        assert first.request.accept == "image/png"  # type: ignore[union-attr]
    if isinstance(job, BatchJob):
        assert first.id == "x"


def test_what_is_no_grid() -> None:
    """A string would be a list of letters; what cannot be varied is told at once."""
    for values in ("abc", 3, {"a": 1}):
        with pytest.raises(InvalidRequestError, match="prompt must be a list of values"):
            grid(Job(TYPE), prompt=values)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequestError, match="cannot vary nonsense of TextToImage"):
        grid(TextToImage("a"), nonsense=[1])
    with pytest.raises(InvalidRequestError, match="cannot vary"):
        grid(3, seed=[1])


@pytest.mark.parametrize("given", [{"id": ""}, {"id": 3}, {"sample": -1}, {"sample": True}])
def test_a_batch_job_checks_itself(given: dict[str, Any]) -> None:
    """Before it is anywhere near a run."""
    with pytest.raises(InvalidRequestError):
        BatchJob(Job(TYPE), **given)
