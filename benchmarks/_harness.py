"""
How everything here is measured.

Each contender runs in a fresh process, in rounds: once round all contenders,
then the next round, so that whatever else the machine does hits all of them.
The process warms up, and what it then uses of the CPU (user and system time,
all threads) is its figure. A table shows the median over the rounds and the
spread from the least to the most. Clients are pinned to one CPU and the load
server to another, where there are two.

A benchmark is a script with a function that measures one contender; `rounds`
starts the script again as ``python jobs.py --measure '{"contender": ...}'``
and reads the JSON that `report` prints.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

Figures = dict[str, float]
OneJob = Callable[[], Awaitable[object]]

_CPUS = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
CLIENT_CPU = _CPUS[0]
SERVER_CPU = _CPUS[-1] if len(_CPUS) > 1 else None

TOKEN = "benchmark-token"
JOB: dict[str, Any] = {
    "type": "inference.flux-fast.schnell.txt2img.v2",
    "config": {"prompt": "a strawberry on a wooden table", "seed": 42},
}


# --------------------------------------------------------------------------- in the fresh process


def cpu_seconds() -> float:
    """Return what this process has used of the CPU, user and system time of all threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def reset_peak_memory() -> float:
    """Forget the peak so far and return the resident memory now, in MB (Linux)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _status("VmRSS")


def peak_memory() -> float:
    """
    Return the most resident memory since the last reset, in MB (Linux).

    Not ``ru_maxrss``, which a process inherits from the one that started it.
    """
    return _status("VmHWM")


def _status(name: str) -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    return float("nan")


def percentile(values: Iterable[float], share: float) -> float:
    """Return the value that this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def drive(one_job: OneJob, *, jobs: int, concurrency: int, delay_ms: float) -> Figures:
    """
    Run jobs, so many at a time, after a warm-up, and measure.

    Args:
        one_job: Runs one job to its decoded answer.
        jobs: How many are measured.
        concurrency: How many are in flight: workers that draw from one count.
        delay_ms: What the server takes for each; latency beyond it is ours.
    """
    latencies: list[float] = []

    async def work(left: list[None]) -> None:
        while left:
            left.pop()
            began = time.perf_counter()
            await one_job()
            latencies.append(time.perf_counter() - began)

    async def run(count: int) -> None:
        left: list[None] = [None] * count
        async with asyncio.TaskGroup() as tasks:
            for _ in range(concurrency):
                tasks.create_task(work(left))

    await run(3 * concurrency)
    latencies.clear()
    cpu, wall = cpu_seconds(), time.perf_counter()
    await run(jobs)
    return summary(
        jobs=jobs,
        cpu=cpu_seconds() - cpu,
        wall=time.perf_counter() - wall,
        latencies=latencies,
        delay_ms=delay_ms,
    )


def summary(
    *, jobs: int, cpu: float, wall: float, latencies: Sequence[float], delay_ms: float
) -> Figures:
    """Return the figures of a run as every jobs table shows them."""
    return {
        "cpu_ms": cpu / jobs * 1e3,
        "jobs_per_s": jobs / wall,
        "p50_ms": percentile(latencies, 0.50) * 1e3 - delay_ms,
        "p99_ms": percentile(latencies, 0.99) * 1e3 - delay_ms,
        "peak_mb": peak_memory(),
    }


def report(figures: Mapping[str, float]) -> None:
    """Hand the figures of this process to the one that started it."""
    print(json.dumps(figures))


# --------------------------------------------------------------------------- in the benchmark


@dataclass
class Options:
    """What every benchmark takes on its command line."""

    quick: bool
    only: str | None
    measure: dict[str, Any] | None


def options(doc: str | None) -> Options:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a smoke test: few jobs, few rounds")
    parser.add_argument("--only", metavar="TEXT", help="only contenders with TEXT in their name")
    parser.add_argument("--measure", type=json.loads, help=argparse.SUPPRESS)
    return Options(**vars(parser.parse_args()))


@dataclass
class Contender:
    """
    One way to do the work.

    Attributes:
        name: As the table shows it.
        params: What its process is told, beside its name.
        command: What to start instead of this script; the parameters come last, as JSON.
        missing: Why it cannot run here, if it can't.
    """

    name: str
    params: dict[str, Any] = field(default_factory=dict)
    command: Sequence[str] = ()
    missing: str = ""


def present(contenders: Iterable[Contender], only: str | None) -> list[Contender]:
    """Leave out what is not wanted, and say what cannot run here."""
    kept = []
    for each in contenders:
        if only is not None and only not in each.name:
            continue
        if each.missing:
            print(f"left out: {each.name} ({each.missing})")
        else:
            kept.append(each)
    return kept


def pin(cpu: int) -> None:
    """Keep this process, and those it starts, on one CPU; on other systems than Linux nothing."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {cpu})


def _pin_client() -> None:
    pin(CLIENT_CPU)


def measure(contender: Contender) -> Figures:
    """Measure one contender once, in a fresh process."""
    params = json.dumps({"contender": contender.name, **contender.params})
    command = contender.command or [sys.executable, sys.argv[0], "--measure"]
    done = subprocess.run(
        [*command, params], stdout=subprocess.PIPE, check=True, preexec_fn=_pin_client, timeout=300
    )
    figures: Figures = json.loads(done.stdout)
    return figures


class Results:
    """The figures of every contender and round."""

    def __init__(self) -> None:
        self.rounds: dict[str, list[Figures]] = {}

    def add(self, name: str, figures: Figures) -> None:
        """Take the figures of one round."""
        self.rounds.setdefault(name, []).append(figures)

    def values(self, name: str, figure: str) -> list[float]:
        """Return one figure of one contender, a value per round; empty if it did not run."""
        return [each[figure] for each in self.rounds.get(name, []) if figure in each]

    def median(self, name: str, figure: str) -> float:
        """Return the median over the rounds."""
        return median(self.values(name, figure))

    def table(self, columns: Mapping[str, str], *, baseline: str = "") -> None:
        """
        Print a row for each contender: the first figure with its spread, the others as medians.

        Args:
            columns: Figures and their headings; the first is the one that counts.
            baseline: The contender whose first figure is 1.00 in the last column.
        """
        if not self.rounds:
            return
        width = max(map(len, self.rounds))
        first, *others = columns
        head = f"{'':{width}}  {columns[first]:>14}  {'least-most':>15}"
        head += "".join(f"  {columns[each]:>12}" for each in others)
        print(
            head + (f"  {'x ' + baseline:>{len(baseline) + 2}}" if baseline in self.rounds else "")
        )
        for name in self.rounds:
            values = self.values(name, first)
            spread = f"{min(values):.3g}-{max(values):.3g}"
            row = f"{name:{width}}  {median(values):14.4g}  {spread:>15}"
            for each in others:
                found = self.values(name, each)
                row += f"  {median(found):12.4g}" if found else f"  {'':12}"
            if baseline in self.rounds:
                ratio = median(values) / self.median(baseline, first)
                row += f"  {ratio:{len(baseline) + 2}.2f}"
            print(row)


def rounds(contenders: Sequence[Contender], count: int, results: Results | None = None) -> Results:
    """Measure every contender so many times, in turn."""
    results = results or Results()
    for number in range(count):
        for each in contenders:
            print(f"\rround {number + 1} of {count}: {each.name:40}", end="", file=sys.stderr)
            results.add(each.name, measure(each))
    print(f"\r{'':60}\r", end="", file=sys.stderr)
    return results


def goal(text: str, value: float, most: float, unit: str = "") -> None:
    """Print a goal, what was reached, and whether that is enough."""
    verdict = "pass" if value <= most else "MISSED"
    print(f"goal {text}: {value:.3g}{unit}, at most {most:g}{unit}: {verdict}")


def least_goal(text: str, value: float, least: float, unit: str = "") -> None:
    """The same for what should be much."""
    verdict = "pass" if value >= least else "MISSED"
    print(f"goal {text}: {value:.3g}{unit}, at least {least:g}{unit}: {verdict}")


def ratio_goal(
    text: str, results: Results, *, ours: str, peer: str, most: float, figure: str = "cpu_ms"
) -> None:
    """Print a goal that is a ratio of medians, if both contenders ran."""
    if results.values(ours, figure) and results.values(peer, figure):
        goal(text, results.median(ours, figure) / results.median(peer, figure), most)
    else:
        print(f"goal {text}: not measured, {peer!r} or {ours!r} did not run")


def is_installed(module: str) -> bool:
    """Tell whether an optional peer is there, without importing it."""
    from importlib.util import find_spec

    return find_spec(module) is not None


def missing(module: str) -> str:
    """Return why a peer cannot run, or nothing."""
    return "" if is_installed(module) else f"pip install {module}"
