"""Records of any size, as a run would have left them, without running it."""

from __future__ import annotations

import json
import os
import random
from typing import TYPE_CHECKING, Any

from prodia_async._keys import content_key
from prodia_async.batch._decide import State
from prodia_async.batch._outputs import relative
from prodia_async.batch._record import Finish, Record, Saved, put

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence
    from pathlib import Path

SCHNELL = "inference.flux-fast.schnell.txt2img.v2"
SCENES = ("a lake at dawn", "a green meadow", "a quiet coast", "a pass at night", "a forest")
ERRORS = (
    "BadRequestError: 400: config.prompt: must have at least 3 characters",
    "JobFailedError: the job failed: content was filtered by the safety check",
    "ServerError: 502: upstream connect error or disconnect/reset before headers",
    "TruncatedResponseError: the answer ended after 48213 bytes, before it was complete",
)


def job(i: int) -> dict[str, Any]:
    """Return row ``i`` as a line of an input file."""
    return {
        "type": SCHNELL,
        "config": {"prompt": f"{SCENES[i % 5]}, picture {i}", "seed": i, "steps": 4},
    }


def fill(
    folder: Path,
    rows: int,
    *,
    pictures: Sequence[bytes] = (),
    failed: float = 0.001,
    rate: float = 50.0,
    ended: bool = True,
    in_flight: int = 0,
) -> None:
    """
    Write a record of so many rows.

    Args:
        folder: Where.
        rows: How many.
        pictures: JPEGs to lie in ``out/``, linked for as many rows as are looked at.
        failed: Which share of the rows failed.
        rate: Jobs a second.
        ended: Whether the run came to its end.
        in_flight: Rows that were with the server when the process died.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = Record(folder / "run.sqlite", notify=lambda *_: None)
    connection = record.connection
    rand = random.Random(11)
    began = 1_795_000_000.0
    seconds = rows / rate
    connection.execute("BEGIN")
    put(connection, "made with", {"layout": "files", "outputs": None, "api": "prodia"})
    put(connection, "began", began)
    put(connection, "lease", {"pid": 1, "host": "elsewhere", "boot": "", "released": ended})
    connection.execute(
        "INSERT INTO session(began, ended, pid, host, stopped, settings) "
        "VALUES(?,?,1,'here',?,'{}')",
        (began, began + seconds if ended else None, None),
    )
    spent = 0
    for i in range(rows):
        bad = rand.random() < failed
        line = job(i)
        key = content_key(line)
        end = Finish(
            i, key, State.FAILED if bad else State.DONE, None, 1, SCHNELL, attempts=1,
            at=round(1000 * i / rate), ms=round(1000 * rand.lognormvariate(0.5, 0.25)),
            request=json.dumps(line),
        )  # fmt: skip
        if bad:
            end.error = ERRORS[min(3, int(rand.expovariate(0.9)))]
        else:
            content = pictures[i % len(pictures)] if pictures else b""
            end.seed, end.price = i, 2_500_000
            end.job_id = str(__import__("uuid").UUID(int=rand.getrandbits(128), version=4))
            size = len(content) or rand.randrange(40_000, 90_000)
            end.saved = [Saved(None, "jpg", rand.randbytes(32), size)]
            spent += end.price
        record.finish(connection, end)
        if i % int(rate) == 0:
            slow = 0.4 < i / rows < 0.55
            put_sample(connection, i, rate, slow=slow, spent=spent, rand=rand)
    for i in range(rows, rows + in_flight):
        line = job(i)
        connection.execute(
            "INSERT INTO open(i, k, type, expected, again, sent, times, request) "
            "VALUES(?,?,?,2500000,0,?,1,?)",
            (i, content_key(line), SCHNELL, began + seconds, json.dumps(line)),
        )
    connection.execute("COMMIT")
    record.close()
    if pictures:
        lay_out(folder, rows, pictures)


_refused = 0


def put_sample(
    connection: sqlite3.Connection,
    i: int,
    rate: float,
    *,
    slow: bool,
    spent: int,
    rand: random.Random,
) -> None:
    """Write what a run notes once a second."""
    global _refused  # noqa: PLW0603  (a count that goes on)
    _refused = 0 if i == 0 else _refused + (rand.randrange(25, 45) if slow else rand.randrange(5))
    jitter = rand.randrange(-int(rate / 6), int(rate / 6) + 1) if i else 0
    connection.execute(
        "INSERT OR REPLACE INTO sample VALUES(1,?,?,?,?,?,?)",
        (int(i / rate), max(0, i + jitter), 0, _refused, 100, spent),
    )


def lay_out(folder: Path, rows: int, pictures: Sequence[bytes]) -> None:
    """Put pictures where the report looks for them."""
    sources = []
    for number, content in enumerate(pictures):
        source = folder / f".source-{number}.jpg"
        source.write_bytes(content)
        sources.append(source)
    for i in range(0, rows, 1 if rows <= 20_000 else max(1, rows // 20_000)):
        path = folder / "out" / relative(i, content_key(job(i)), "jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            os.link(sources[i % len(sources)], path)
    for source in sources:
        source.unlink()
