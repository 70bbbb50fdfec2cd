"""A real Ray, with workers and drivers that are killed: is each job paid once, and none lost?"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prodia_async.batch._objects import ObjectRecord
from prodia_async.emulator import Emulator

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(280)]

ROOT = Path(__file__).parents[2]

DRIVER = """
import json, os, sys, time
import ray
from prodia_async.integrations.ray import run_jobs

options = json.loads(sys.argv[1])
names = {n: os.environ[n] for n in ("PRODIA_TOKEN", "PRODIA_BASE_URL") if n in os.environ}
if options.pop("hide_token", False):
    del names["PRODIA_TOKEN"]
    del os.environ["PRODIA_TOKEN"]
ray.init(num_cpus=options.pop("cpus", 2), runtime_env={"env_vars": names}, log_to_driver=False)
ray.data.DataContext.get_current().enable_progress_bars = False
count = options.pop("count")
rows = ray.data.from_items(
    [{"prompt": f"a lake {n}", "seed": n} for n in range(1, count + 1)],
    override_num_blocks=options.pop("blocks", 8),
)
began = time.monotonic()
done = run_jobs(rows, **options)
print("begun", flush=True)
told = done.take_all()
print(json.dumps({
    "states": [each["state"] for each in told],
    "keys": [each["key"] for each in told],
    "seconds": time.monotonic() - began,
}), flush=True)
"""


@pytest.fixture
def emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    with Emulator(workers=20, latency=0.3, retry_after=1.0) as emulator:
        monkeypatch.setenv("PRODIA_TOKEN", "any-token")
        monkeypatch.setenv("PRODIA_BASE_URL", emulator.base_url)
        monkeypatch.setenv("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
        yield emulator


def start(to: Path, **options: Any) -> subprocess.Popen[str]:
    """Start a driver in a process group of its own."""
    given = {
        "to": str(to),
        "job_type": "inference.flux-fast.schnell.txt2img.v2",
        "count": 400,
        "workers": 2,
        "max_concurrency": 40,
        "batch_rows": 20,
        "lease_seconds": 3,
        **options,
    }
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, json.dumps(given)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(driver: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for a driver's good end, and return what it told."""
    out, err = driver.communicate(timeout=240)
    assert driver.returncode == 0, err[-3000:]
    told: dict[str, Any] = json.loads(out.splitlines()[-1])
    return told


def kill(driver: subprocess.Popen[str]) -> None:
    driver.kill()
    for pipe in (driver.stdout, driver.stderr):
        assert pipe is not None
        pipe.close()  # its orphans hold the other ends
    driver.wait()


def wait_until(condition: Any, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def actors() -> list[int]:
    """Return the processes of Ray's workers that run our class."""
    listed = subprocess.run(
        ["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True
    ).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if "MapWorker" in line]


def end_ray() -> None:
    subprocess.run(
        [str(Path(sys.executable).with_name("ray")), "stop", "--force"],
        capture_output=True,
        check=False,
    )


@pytest.fixture(autouse=True)
def _no_ray_left() -> Iterator[None]:
    yield
    end_ray()


def test_a_killed_worker_and_a_killed_driver(emulator: Emulator, tmp_path: Path) -> None:
    """The rerun completes all; what was paid twice was in flight at a kill; orphans stop."""
    totals = emulator.ledger.totals
    driver = start(tmp_path / "run")
    wait_until(lambda: totals().charged > 60)
    os.kill(actors()[0], signal.SIGKILL)
    wait_until(lambda: totals().charged > 160)
    kill(driver)
    time.sleep(6)  # two lengths of the lease
    stopped_at = totals().charged
    time.sleep(2)
    assert totals().charged == stopped_at < 400
    end_ray()
    done_before = len(ObjectRecord(str(tmp_path / "run")).listing().done)
    told = finish(start(tmp_path / "run"))
    assert told["states"] == ["done"] * 400
    assert len(set(told["keys"])) == 400
    # Two kills, at most 20 workers of the server each.
    assert 400 <= totals().charged <= 400 + 2 * 20
    assert done_before >= stopped_at - 2 * 20
    charged = totals().charged
    assert finish(start(tmp_path / "run"))["states"] == ["done"] * 400
    assert totals().charged == charged


def test_left_with_the_server_nothing_is_paid_twice(emulator: Emulator, tmp_path: Path) -> None:
    """Of async jobs the next run collects what the dead one had sent."""
    totals = emulator.ledger.totals
    driver = start(tmp_path / "run", submit="async", count=200)
    wait_until(lambda: totals().charged > 60)
    kill(driver)
    end_ray()
    told = finish(start(tmp_path / "run", submit="async", count=200))
    assert told["states"] == ["done"] * 200
    # Only what was accepted and whose id was on its way to the store can be paid again.
    assert totals().charged <= 200 + 20


def test_four_workers_share_one_server(emulator: Emulator, tmp_path: Path) -> None:
    """Strangers to each other, they keep its twenty workers busy and none of them starves."""
    told = finish(
        start(tmp_path / "run", workers=4, cpus=4, count=1600, blocks=32, lease_seconds=30)
    )
    assert told["states"] == ["done"] * 1600
    best = 1600 * 0.3 / 20
    print(f"{told['seconds']:.1f} s with start-up; {best:.1f} s at best")


def test_no_token_in_the_workers(emulator: Emulator, tmp_path: Path) -> None:
    """It is found before the first row, and told by its name."""
    driver = start(tmp_path / "run", hide_token=True, count=40)
    _, err = driver.communicate(timeout=200)
    assert driver.returncode != 0
    assert "has no PRODIA_TOKEN" in err
    assert emulator.ledger.totals().received == 0


def test_the_example(tmp_path: Path) -> None:
    """On a machine with the extra it runs by itself: forty pictures, charged once."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PRODIA_")}
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "ray_batch.py"), str(tmp_path / "pictures")],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env=kept,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("40 of 40 are done") == 2
    assert "charged 40 times" in done.stdout
