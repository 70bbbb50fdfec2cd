"""
What do workers under Ray make of one server, beside one process? What does killing them cost?

Goal 7 of the durable batch, and the fairness of workers that know nothing of each other:

1. so many jobs on two actors, beside a `Batch` of one process at the same bound;
2. the same with an actor killed, then the driver, then the same call once more;
3. four actors on one server of twenty workers: how busy it is, and who gets how much.

The server charges by seed (`_batch_server`) and has a process of its own.
Needs the extra ``ray``, a gigabyte of memory, and 127.0.0.1 only.

::

    python benchmarks/cluster.py            # about ten minutes
    python benchmarks/cluster.py --quick    # a smoke test of two
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from _batch_server import ledger, serving
from _batch_ways import TYPE, WAYS
from _harness import goal, least_goal, options

LEASE_SECONDS = 3.0


def drive(wanted: dict[str, Any]) -> None:
    """Be a driver: run the jobs on so many actors, and tell how long it took."""
    import ray

    from prodia_async.integrations.ray import run_jobs

    names = {"PRODIA_TOKEN": "any-token", "PRODIA_BASE_URL": wanted["url"]}
    ray.init(
        num_cpus=wanted["actors"],
        runtime_env={"env_vars": names},
        log_to_driver=False,
        include_dashboard=False,
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = ray.data.from_items(
        [{"prompt": "a lake at dawn", "seed": seed} for seed in range(wanted["jobs"])],
        override_num_blocks=8 * wanted["actors"],
    )
    began = time.perf_counter()
    done = run_jobs(
        rows,
        to=wanted["folder"],
        job_type=TYPE,
        workers=wanted["actors"],
        max_concurrency=wanted["slots"] // wanted["actors"],
        batch_rows=wanted["batch_rows"],
        lease_seconds=LEASE_SECONDS,
    )
    states = Counter(each["state"] for each in done.iter_rows())
    print(json.dumps({"seconds": time.perf_counter() - began, "done": states["done"]}), flush=True)


def alone(wanted: dict[str, Any]) -> None:
    """Be the one process: the same jobs as a batch."""
    folder = Path(wanted["folder"])
    folder.mkdir(parents=True)
    began = time.perf_counter()
    asyncio.run(WAYS["Batch"](wanted["url"], folder, wanted["jobs"], wanted["slots"]))
    print(json.dumps({"seconds": time.perf_counter() - began, "done": wanted["jobs"]}), flush=True)


def child(**wanted: Any) -> subprocess.Popen[str]:
    """Start one of the two in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, __file__, "--measure", json.dumps(wanted)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        env={**os.environ, "RAY_DATA_DISABLE_PROGRESS_BARS": "1", "RAY_USAGE_STATS_ENABLED": "0"},
    )


def finished(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for its good end, and return what it told."""
    out, _ = process.communicate(timeout=900)
    if process.returncode != 0:
        raise SystemExit(f"a driver ended with {process.returncode}")
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def end_ray() -> None:
    """End what a killed driver left behind."""
    ray = str(Path(sys.executable).with_name("ray"))
    subprocess.run([ray, "stop", "--force"], capture_output=True, check=False)


def actors() -> list[int]:
    """Return the processes of Ray's workers that run our class."""
    found = []
    for each in Path("/proc").iterdir():
        if each.name.isdecimal():
            try:
                command = (each / "cmdline").read_bytes()
            except OSError:
                continue  # it has ended
            if b"MapWorker" in command:
                found.append(int(each.name))
    return found


def ports_of(pid: int) -> set[int]:
    """Return the local ports of a process's connections (Linux)."""
    inodes = set()
    try:
        for each in Path(f"/proc/{pid}/fd").iterdir():
            target = str(each.readlink())
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
        table = Path(f"/proc/{pid}/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return set()  # it has ended
    fields = [line.split() for line in table]
    return {int(each[1].rpartition(":")[2], 16) for each in fields if each[9] in inodes}


def until_charged(url: str, number: int) -> None:
    """Wait until so much is charged."""
    end = time.monotonic() + 300
    while ledger(url)["charged"] < number and time.monotonic() < end:
        time.sleep(0.05)


def jain(shares: list[int]) -> float:
    """Return Jain's index: 1 where all have the same. Source: Jain, Chiu and Hawe, 1984."""
    return sum(shares) ** 2 / (len(shares) * sum(each * each for each in shares))


def beside_one_process(scratch: Path, *, jobs: int, slots: int, seconds: float) -> None:
    """Goal 7, its speed."""
    best = jobs * seconds / slots
    given = {"jobs": jobs, "slots": slots}
    with serving(slots, seconds) as url:
        one = finished(child(way="alone", url=url, folder=str(scratch / "alone"), **given))
    with serving(slots, seconds) as url:
        two = finished(
            child(
                way="ray", url=url, folder=str(scratch / "ray"), actors=2, batch_rows=100, **given
            )
        )
        charged = ledger(url)["charged"]
    print(
        f"{jobs} jobs, {slots} in flight: one process {one['seconds']:.1f} s, two actors "
        f"{two['seconds']:.1f} s, at best {best:.1f} s; {two['done']} done, {charged} charged"
    )
    least_goal("7a jobs/s of two actors beside one process", one["seconds"] / two["seconds"], 0.9)


def kills(scratch: Path, *, jobs: int, slots: int, seconds: float) -> None:
    """Goal 7, its money."""
    with serving(slots, seconds) as url:
        wanted = {
            "way": "ray", "url": url, "folder": str(scratch / "kills"), "jobs": jobs,
            "slots": slots, "actors": 2, "batch_rows": 100,
        }  # fmt: skip
        driver = child(**wanted)
        until_charged(url, jobs // 4)
        os.kill(actors()[0], signal.SIGKILL)
        until_charged(url, jobs * 6 // 10)
        driver.kill()
        driver.wait()
        at_kill = ledger(url)["charged"]
        time.sleep(2 * LEASE_SECONDS + seconds)
        after = ledger(url)["charged"]
        end_ray()
        told = finished(child(**wanted))
        found = ledger(url)
    twice = found["charged"] - found["seeds"]
    print(
        f"an actor and the driver killed: {found['seeds']} of {jobs} done ({told['done']} told), "
        f"{twice} paid twice; {after - at_kill} charged after the driver's death"
    )
    goal("7b paid twice, at most what was in flight at the two", twice, 2 * slots)
    goal("7c jobs that are missing in the end", jobs - told["done"], 0)


def fairness(scratch: Path, *, jobs: int, workers: int, seconds: float) -> None:
    """Four actors that may have ten times in flight of what the server has workers."""
    with serving(workers, seconds) as url:
        driver = child(
            way="ray", url=url, folder=str(scratch / "fair"), jobs=jobs, slots=10 * workers,
            actors=4, batch_rows=20,
        )  # fmt: skip
        owners: dict[int, int] = {}

        def watch(number: int) -> dict[str, Any]:
            while True:
                for pid in actors():
                    owners.update(dict.fromkeys(ports_of(pid), pid))
                found = ledger(url)
                if found["charged"] >= number or driver.poll() is not None:
                    return found
                time.sleep(0.2)

        begun = watch(jobs // 10)
        began = time.monotonic()
        ended = watch(jobs * 85 // 100)  # before the first of them runs out of rows
        took = time.monotonic() - began
        told = finished(driver)
    shares = dict.fromkeys(owners.values(), 0)
    for port, count in ended["ports"].items():
        owner = owners.get(int(port))
        if owner is not None:
            shares[owner] += count - begun["ports"].get(port, 0)
    number = ended["charged"] - begun["charged"]
    refused = (ended["refused"] - begun["refused"]) / number
    print(
        f"four actors, {workers} workers: {told['done']} of {jobs} done, "
        f"{refused:.2f} refused a job; "
        f"each had {', '.join(str(each) for each in sorted(shares.values()))} of {number}"
    )
    least_goal("7d busy workers of the server, of all", number * seconds / (workers * took), 0.95)
    least_goal("7e Jain's index of four actors", jain(list(shares.values())), 0.95)


def main() -> None:
    """Measure all of it."""
    given = options(__doc__)
    if given.measure is not None:
        (drive if given.measure["way"] == "ray" else alone)(given.measure)
        return
    scratch = Path(tempfile.mkdtemp(prefix="cluster-"))
    jobs = 1000 if given.quick else 10_000
    try:
        beside_one_process(scratch, jobs=jobs, slots=50, seconds=0.5)
        kills(scratch, jobs=jobs, slots=50, seconds=0.5)
        fairness(scratch, jobs=jobs // 2, workers=20, seconds=0.3)
    finally:
        end_ray()
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
