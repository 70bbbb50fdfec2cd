"""Outputs in a real S3 server, moto's, over HTTP on 127.0.0.1."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from moto.server import ThreadedMotoServer
from processes import TOKEN, run

from prodia_async import InvalidRequestError
from prodia_async.batch import BatchError, BatchRecord
from prodia_async.batch._outputs import open_store
from prodia_async.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore")  # botocore's own


@pytest.fixture(name="s3")
def _s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    if "PYTHONASYNCIODEBUG" in os.environ:
        pytest.skip("in debug mode aiohttp refuses this server, which says Server twice")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_CONFIG_FILE": str(tmp_path / "none"), "AWS_EC2_METADATA_DISABLED": "true",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    # What an earlier test put there stays in moto's memory.
    reset = urllib.request.Request(f"http://127.0.0.1:{port}/moto-api/reset", method="POST")
    urllib.request.urlopen(reset, timeout=10).close()
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    fs = s3fs.S3FileSystem()
    fs.mkdir("pictures")
    yield fs
    server.stop()
    s3fs.S3FileSystem.clear_instance_cache()


def test_outputs_in_a_bucket(tmp_path: Path, s3: Any) -> None:
    """Each is one finished object, put before the record says so; a process of its own."""
    with Emulator() as api:
        wanted = {
            "folder": tmp_path / "run",
            "jobs": 12,
            "batch": {"outputs": "s3://pictures/run-7"},
        }
        first = run(api, wanted)
        assert first.process.returncode == 0, first.stderr
        s3.invalidate_cache()
        found = sorted(s3.glob("pictures/run-7/*/*/*"))
        assert len(found) == 12
        assert {path.rpartition(".")[2] for path in found} == {"jpg"}
        record = BatchRecord(tmp_path / "run")
        assert str(record.verify(hashes=True)) == "12 outputs are there and whole"
        assert next(record.rows()).path == f"s3://{found[0]}"
        s3.rm(found[3])
        assert record.verify().missing == (3,)
        second = run(api, wanted)
        assert second.summary()["done_before"] == 11
        assert api.ledger.totals().charged == 13
        page = record.write_report().read_text(encoding="utf-8")
        assert page.count('src="data:image/webp') == 12


def test_a_store_that_refuses(tmp_path: Path, s3: Any) -> None:
    """What is in hand is kept, status 3; once there is a bucket it goes there, paid once."""
    with Emulator() as api:
        options = {"outputs": "s3://no-such-bucket/run"}
        wanted = {"folder": tmp_path / "run", "jobs": 6, "batch": options}
        early = run(api, wanted)
        assert early.process.returncode == 3
        assert "s3://no-such-bucket/run cannot be written" in early.stderr
        assert api.ledger.totals().received == 0
        s3.mkdir("no-such-bucket")
        gone = "import s3fs; s3fs.S3FileSystem().rm('no-such-bucket', recursive=True)"
        first = run(api, {**wanted, "before": gone})
        assert first.process.returncode == 3, first.stderr
        assert "no-such-bucket" in first.summary()["broken"]
        assert api.ledger.totals().charged == 6
        assert len(list((tmp_path / "run" / "reserve").glob("*.json"))) == 6
        s3.mkdir("no-such-bucket")
        second = run(api, wanted)
        assert second.process.returncode == 0, second.stderr
        assert api.ledger.totals().charged == 6
        s3.invalidate_cache()
        assert len(s3.glob("no-such-bucket/run/*/*/*.jpg")) == 6


def test_a_url_that_nobody_knows() -> None:
    """Is told in one sentence."""
    with pytest.raises((InvalidRequestError, BatchError), match="nonsense"):
        open_store("nonsense://x")


def test_without_the_extra(tmp_path: Path) -> None:
    """Each library is asked for when it is used, and the error names what to install."""
    code = """
import sys, json
for name in ("pyarrow", "fsspec", "jinja2", "matplotlib", "PIL", "rich"):
    sys.modules[name] = None
from prodia_async.batch import *
from prodia_async.batch._outputs import open_store
import pathlib
folder = pathlib.Path(sys.argv[1])
told = []
for work in (
    lambda: open_store("s3://x"), lambda: BatchRecord(folder).write_report(),
    lambda: BatchRecord(folder).contact_sheet(), lambda: BatchRecord(folder).export("x.parquet"),
    lambda: read_jobs(folder / "x.parquet"),
):
    try: work()
    except BatchError as error: told.append(str(error))
print(json.dumps(told))
"""
    with Emulator() as api:
        run(api, {"folder": tmp_path, "jobs": 1})
    (tmp_path / "x.parquet").write_bytes(b"")
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path],
        env=os.environ | {"PRODIA_TOKEN": TOKEN},
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    told = json.loads(done.stdout)
    assert len(told) == 5
    assert all("pip install 'prodia-async[batch]'" in each for each in told)
