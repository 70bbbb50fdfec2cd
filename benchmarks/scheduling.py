"""
Does the scheduler keep every worker busy, seldom hear a 429, and share fairly?

A server has K workers and no queue; a job sent while all are busy is refused
at once with Retry-After. What share of the ceiling does a client reach, at
what cost in refusals, and how soon does it notice that K has changed? Beside
ours, in the same run and with the same randomness, the policies users have
today.

::

    python benchmarks/scheduling.py                    # everything, about two minutes
    python benchmarks/scheduling.py --quick            # fewer seeds and sizes, some ten seconds
    python benchmarks/scheduling.py --plot dip.svg     # and a picture of a capacity dip
    python benchmarks/scheduling.py --sockets          # AsyncProdia over TCP, some minutes

Simulated: virtual time, the package's own `Scheduler` and `Ticket`, waiting
replaced by callbacks. 20 ms on the network, jobs of 0.3 to 20 s give or take
20 %, Retry-After 1 s (what we wait is 1 to 1.25 times that), a backlog of 200
job times (60 with 500 workers), `max_concurrency` 64 (1000 with 500 workers).
The figures, all of them ratios:

goodput
    Jobs per second until 95 % have ended (so with the start, without the last
    stragglers), over the same for a client that knows K and keeps exactly K
    in flight. Above 1: a job more than K on the way fills the gap that an
    answer leaves.
refusals
    429s per job.
slowest
    The largest, over all jobs, of when it ended over when it would have ended
    for the client that knows K, plus one Retry-After.
recovery
    Job times from a change of K to the end of the first whole job time in
    which the workers were busy for 95 % of what the ceiling makes of them and
    at most a quarter as many jobs were refused as served.
Jain
    (sum of x)^2 / (n * sum of x^2) over jobs served per client in 200 job
    times, after 40 to settle. 1: all equal.
latecomer
    Job times from its arrival to the end of the first five in which it was
    served half of a fair share, K / (n + 1).

Whole runs count from the first job to the end of the last one, tail and all.
An outage answers 500 at once, also to what was under way when it began, so its
requests are those, the ones sent before it is noticed, and the probes.

What was tried on the way; the worst of two to nine seeds:

====================================================  ===========  ==========  ==========
variant                                               goodput      Jain        Jain
                                                      1 client     10 clients  10 clients
                                                      20 x 0.3 s   20 x 20 s   100 x 20 s
====================================================  ===========  ==========  ==========
limit = accepted in flight, probes only               0.98         0.48        0.39
+ a worker taken by a stranger costs 10 % of limit    0.98         0.43        0.90
+ the same, 30 %                                      0.97         0.69        0.95
instead: a gap of 0.1 job times per 10 completions    0.98         0.69        0.96
+ all probe equally often among strangers             0.98         0.96        0.98
a gap per 8 completions                               0.98         0.93        0.99
a gap per 5, fewer probes during Retry-After          0.98         0.93        0.99
====================================================  ===========  ==========  ==========

(The rows but the last: goodput to the end of the last job. The last: nine
seeds, median Jain 0.97; with a start of 16 jobs a gap of 0.125 job times.) A
cut of 30 % left a single client with 500 workers and jobs of 0.3 s only 0.85,
since jobs of its own that are on the way look like strangers. Fewer probes
during the latest Retry-After took the 429s of ten clients with jobs of 0.3 s
from 0.68 to 0.33 per job; none at all gave 0.26, but took 4.1 job times
instead of 2.4 to find returned capacity. Confirming a limit by silence rather
than by completions is what makes long jobs start well: 500 workers are busy
within 2 s whatever the jobs take, rather than after 9 job times.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent))

from _capacity_server import serving
from _outages import ROWS, Careful, Usual, run_outage
from _policies import POLICIES, Client, Pool
from _simulation import Server, World
from _sockets import ask, bare_sender, with_client, with_pool, with_scheduler

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

OURS = next(iter(POLICIES))
NETWORK = 0.02
ENDLESS = 10**9


def job_time(job_seconds: float) -> float:
    """Return the seconds a job takes for the client that knows K."""
    return job_seconds + NETWORK


@dataclass
class Goals:
    """The goals of this run and whether they were met."""

    failed: int = 0
    lines: list[str] = field(default_factory=list)

    def check(self, what: str, value: float, goal: float, *, at_least: bool) -> None:
        """Note one goal."""
        met = value >= goal if at_least else value <= goal
        self.failed += not met
        sign = ">=" if at_least else "<="
        self.lines.append(f"{'pass' if met else 'FAIL'}  {what}: {value:.3f} (goal {sign} {goal})")

    def report(self) -> None:
        """Print them."""
        print("\nGoals (median over the seeds, worst over the cases)")
        for line in self.lines:
            print("  " + line)


# One client.


@dataclass
class Single:
    """What one run of one client gave."""

    goodput: float
    refusals: float
    lost: float
    slowest: float


def run_single(
    policy: str,
    workers: int,
    job_seconds: float,
    seed: int,
    *,
    retry_after: float | None = 1.0,
    spread: float | None = 0.2,
    rounds: int | None = None,
) -> Single:
    """Send a backlog, once by `policy` and once by the client that knows K."""
    if rounds is None:
        rounds = 60 if workers >= 500 else 200
    jobs = max(300, workers * rounds)
    bound = 1000 if workers >= 500 else 64

    def run(make: Callable[[Server, random.Random], Client]) -> Client:
        world = World()
        server = Server(
            world,
            workers,
            job_seconds,
            random.Random(seed),
            network=NETWORK,
            retry_after=retry_after,
            spread=spread,
        )
        client = make(server, random.Random(seed + 1))
        client.start()
        world.run(float("inf"), client.finished)
        return client

    client = run(lambda server, rng: POLICIES[policy](server, jobs, rng, bound))
    fair = run(lambda server, rng: Pool(server, jobs, rng, workers))
    patience = retry_after or 0.5
    slowest = max(a / (b + patience) for a, b in zip(client.ended, fair.ended, strict=True))
    return Single(
        goodput=_rate(client, jobs) / _rate(fair, jobs),
        refusals=client.refusals / jobs,
        lost=client.lost / jobs,
        slowest=slowest,
    )


def _rate(client: Client, jobs: int) -> float:
    if client.lost:
        return client.completed / client.last_end
    nearly_all = int(0.95 * jobs)
    return nearly_all / sorted(client.ended)[nearly_all - 1]


def single_client(seeds: Sequence[int], goals: Goals, *, quick: bool) -> None:
    """Print goodput, refusals, losses and the slowest job for every policy."""
    print(f"\nOne client, Retry-After 1 s, {len(seeds)} seeds: goodput (worst), 429s per job, lost")
    seconds = (0.3, 5.0) if quick else (0.3, 1.0, 5.0, 20.0)
    worst: dict[int, list[float]] = {}
    refusals = lost = slowest = 0.0
    for workers in (1, 5, 20, 500):
        for policy in POLICIES:
            cells = []
            for length in seconds:
                few = seeds if workers < 500 and policy == OURS else seeds[:1]
                runs = [run_single(policy, workers, length, seed) for seed in few]
                goodput = median(run.goodput for run in runs)
                heard = median(run.refusals for run in runs)
                gone = max(run.lost for run in runs)
                cells.append(
                    f"{length:4g} s {goodput:5.0%} ({min(run.goodput for run in runs):4.0%})"
                    f" {heard:6.2f}" + (f" lost {gone:3.0%}" if gone else "         ")
                )
                if policy == OURS:
                    worst.setdefault(workers, []).append(goodput)
                    lost = max(lost, gone)
                    slowest = max(slowest, median(run.slowest for run in runs))
                    if workers >= 20:
                        refusals = max(refusals, heard)
            print(f"  K={workers:<4} {policy:23} " + " | ".join(cells))
    for workers, goal in ((1, 0.95), (5, 0.95), (20, 0.97), (500, 0.97)):
        goals.check(f"goodput, K={workers}", min(worst[workers]), goal, at_least=True)
    goals.check("refusals per job, K >= 20", refusals, 0.10, at_least=False)
    goals.check("share of jobs lost", lost, 0.0, at_least=False)
    goals.check("slowest job over its fair time", slowest, 3.0, at_least=False)


def other_servers(seeds: Sequence[int]) -> None:
    """Print what ours does with other waits, other lengths of jobs, and none said."""
    print("\nOurs with other servers (no goal): goodput, 429s per job, slowest")
    cases: list[tuple[str, float | None, float | None]] = [
        ("Retry-After 0.1 s", 0.1, 0.2),
        ("Retry-After 5 s", 5.0, 0.2),
        ("Retry-After 30 s", 30.0, 0.2),
        ("no Retry-After", None, 0.2),
        ("log-normal jobs", 1.0, None),
    ]
    for name, retry_after, spread in cases:
        cells = []
        for workers, length in ((1, 5.0), (5, 0.3), (20, 0.3), (20, 5.0), (20, 20.0)):
            runs = [
                run_single(OURS, workers, length, seed, retry_after=retry_after, spread=spread)
                for seed in seeds
            ]
            cells.append(
                f"{workers} x {length:g} s {median(run.goodput for run in runs):5.0%}"
                f" {median(run.refusals for run in runs):.2f}"
                f" {median(run.slowest for run in runs):.1f}"
            )
        print(f"  {name:18} " + " | ".join(cells))


# Capacity that changes.


@dataclass
class Dip:
    """How a client met a server of 20, 5 and 20 workers."""

    recovery: list[float | None] = field(default_factory=list)  # job times, per change
    busy: list[tuple[float, float]] = field(default_factory=list)  # job time, mean busy workers


def run_dip(
    policy: str, job_seconds: float, seed: int, *, retry_after: float | None = 1.0, phase: int = 20
) -> Dip:
    """Run three phases of `phase` job times each."""
    world = World()
    server = Server(
        world, 20, job_seconds, random.Random(seed), network=NETWORK, retry_after=retry_after
    )
    unit = job_time(job_seconds)
    client = POLICIES[policy](server, ENDLESS, random.Random(seed + 1), 64)
    client.start()
    dip = Dip()
    for number, workers in enumerate((20, 5, 20)):
        server.workers = workers
        begin = number * phase
        marks = [(server.worked(), server.refused, server.served)]
        for tenth in range(1, 10 * phase + 1):
            world.run((begin + tenth / 10) * unit)
            world.now = (begin + tenth / 10) * unit
            marks.append((server.worked(), server.refused, server.served))
            dip.busy.append((begin + tenth / 10, (marks[-1][0] - marks[-2][0]) / (unit / 10)))
        if number:
            dip.recovery.append(_recovered(marks, workers, job_seconds))
    return dip


def _recovered(
    marks: list[tuple[float, int, int]], workers: int, job_seconds: float
) -> float | None:
    for tenth in range(10, len(marks)):
        (worked0, refused0, served0), (worked1, refused1, served1) = marks[tenth - 10], marks[tenth]
        busy = (worked1 - worked0) / (workers * job_time(job_seconds))
        rare = refused1 - refused0 <= 0.25 * max(1, served1 - served0)
        if busy >= 0.95 * job_seconds / job_time(job_seconds) and rare:
            return tenth / 10
    return None


def capacity_dip(seeds: Sequence[int], goals: Goals, *, quick: bool) -> None:
    """Print the time to recover from a drop to a quarter, and from its end."""
    print("\nK drops from 20 to 5 and returns: job times to recovery, drop / return (20: never)")
    worst = 0.0
    for policy in POLICIES:
        cells = []
        for length in (0.3, 5.0) if quick else (0.3, 1.0, 5.0, 20.0):
            runs = [run_dip(policy, length, seed) for seed in seeds]
            each = [median(run.recovery[i] or 20.0 for run in runs) for i in (0, 1)]
            cells.append(f"{length:4g} s {each[0]:5.1f} / {each[1]:5.1f}")
            if policy == OURS:
                worst = max(worst, *each)
        print(f"  {policy:23} " + " | ".join(cells))
    goals.check("recovery, job times", worst, 5.0, at_least=False)


# Many clients.


@dataclass
class Together:
    """How several clients shared one server."""

    goodput: float
    jain: float
    refusals: float
    latecomer: int


def run_together(
    policy: str,
    workers: int,
    job_seconds: float,
    seed: int,
    *,
    clients: int = 10,
    retry_after: float | None = 1.0,
) -> Together:
    """Start `clients` within a job time, let them settle, measure, add one more."""
    world = World()
    server = Server(
        world, workers, job_seconds, random.Random(seed), network=NETWORK, retry_after=retry_after
    )
    unit = job_time(job_seconds)
    rng = random.Random(seed)
    crowd = [
        POLICIES[policy](server, ENDLESS, random.Random(1000 * seed + number), 64)
        for number in range(clients)
    ]
    for client in crowd:
        world.at(rng.uniform(0, unit), client.start)
    world.run(40 * unit)
    before = [(client.completed, client.refusals) for client in crowd]
    world.run(240 * unit)
    served = [client.completed - done for client, (done, _) in zip(crowd, before, strict=True)]
    refused = sum(client.refusals - heard for client, (_, heard) in zip(crowd, before, strict=True))
    late = POLICIES[policy](server, ENDLESS, random.Random(seed + 77), 64)
    late.start()
    history = [0]
    while len(history) <= 100:
        world.run((240 + len(history)) * unit)
        history.append(late.completed)
        if len(history) > 5 and history[-1] - history[-6] >= 2.5 * workers / (clients + 1):
            break
    total = sum(served)
    return Together(
        goodput=total / 200 / workers,
        jain=total**2 / (clients * sum(x * x for x in served)),
        refusals=refused / total,
        latecomer=len(history) - 1,
    )


def many_clients(seeds: Sequence[int], goals: Goals, *, quick: bool) -> None:
    """Print what ten clients reach together, how evenly, and how a latecomer fares."""
    print("\nTen clients on one server: goodput together, Jain's index (worst), 429s per job,")
    print("latecomer in job times (101: not within 100)")
    goodput = jain = 9.0
    latecomer = 0.0
    for workers in (20, 100):
        for length in (0.3, 5.0) if quick else (0.3, 1.0, 5.0, 20.0):
            # The others need ten times the events of ours; one length tells enough.
            for policy in POLICIES if length == 0.3 else [OURS]:
                few = seeds if policy == OURS else seeds[:1]
                runs = [run_together(policy, workers, length, seed) for seed in few]
                together = median(run.goodput for run in runs)
                even = median(run.jain for run in runs)
                late = median(run.latecomer for run in runs)
                print(
                    f"  K={workers:<4} {length:4g} s {policy:23} {together:5.0%}"
                    f"  {even:.3f} ({min(run.jain for run in runs):.3f})"
                    f"  {median(run.refusals for run in runs):6.2f}  {late:5.1f}"
                )
                if policy == OURS:
                    goodput, jain = min(goodput, together), min(jain, even)
                    latecomer = max(latecomer, late)
    goals.check("ten clients, goodput together", goodput, 0.95, at_least=True)
    goals.check("ten clients, Jain's index", jain, 0.95, at_least=True)
    goals.check("latecomer to half a fair share, job times", latecomer, 30.0, at_least=False)


def patient_clients(seeds: Sequence[int], goals: Goals, *, quick: bool) -> None:
    """Print the same where Retry-After is ten times as long as a job."""
    print("\nTen clients, 20 workers, Retry-After ten job times: goodput, Jain (worst), 429s")
    goodput = jain = 9.0
    for length in (0.3, 1.0) if quick else (0.3, 1.0, 5.0):
        runs = [run_together(OURS, 20, length, seed, retry_after=10 * length) for seed in seeds]
        together = median(run.goodput for run in runs)
        even = median(run.jain for run in runs)
        goodput, jain = min(goodput, together), min(jain, even)
        print(
            f"  {length:4g} s {together:5.0%}  {even:.3f} ({min(run.jain for run in runs):.3f})"
            f"  {median(run.refusals for run in runs):6.2f}"
        )
    goals.check("ten patient clients, goodput together", goodput, 0.95, at_least=True)
    goals.check("ten patient clients, Jain's index", jain, 0.95, at_least=True)


# Whole runs.

WHOLE_RUNS: tuple[tuple[str, int, int, float, float, int], ...] = (
    ("800 of 0.3 s, 20 workers", 800, 20, 0.3, 1.0, 64),
    ("3,000 of 0.3 s, 100 workers", 3000, 100, 0.3, 1.0, 128),
    ("300 of 2 s, 20 workers", 300, 20, 2.0, 1.0, 64),
    ("the demo: 100 of 0.5 s, 20 workers", 100, 20, 0.5, 0.5, 64),
)
"""Name, jobs, workers, seconds a job, Retry-After, max_concurrency."""


def run_whole(
    jobs: int,
    workers: int,
    job_seconds: float,
    retry_after: float,
    *,
    bound: int,
    seed: int,
    spread: float,
) -> float:
    """Return for what share of a run, its start and its tail included, the workers were busy."""
    world = World()
    server = Server(
        world,
        workers,
        job_seconds,
        random.Random(seed),
        network=0.002,
        retry_after=retry_after,
        spread=spread,
    )
    client = POLICIES[OURS](server, jobs, random.Random(seed + 1), bound)
    client.start()
    world.run(float("inf"), client.finished)
    return server.worked() / (workers * client.last_end)


def whole_runs(seeds: Sequence[int], goals: Goals) -> None:
    """Print how busy whole runs keep the workers, with even jobs and with uneven ones."""
    print("\nWhole runs, ours, 2 ms on the network: workers busy (jobs give or take 20 %)")
    for name, jobs, workers, seconds, retry_after, bound in WHOLE_RUNS:
        even, uneven = (
            median(
                run_whole(
                    jobs, workers, seconds, retry_after, bound=bound, seed=seed, spread=spread
                )
                for seed in seeds
            )
            for spread in (0.0, 0.2)
        )
        print(f"  {name:36} {even:5.1%} ({uneven:5.1%})")
        if name.startswith("the demo"):
            goals.check(f"{name}, times the least", 1 / uneven, 1.2, at_least=False)
        else:
            goals.check(f"whole run, {name}", min(even, uneven), 0.95, at_least=True)


# A server that is down.


def outages(seeds: Sequence[int], goals: Goals, *, quick: bool) -> None:
    """Print what ten seconds of 500s do to 50,000 rows."""
    print("\nThe API is dead for 10 s under 50,000 rows, 20 workers: rows lost, requests a second")
    print("while it is down, recovery in job times (40: not within 40)")
    rows = per_second = recovery = 0.0
    for length in (0.3, 5.0) if quick else (0.3, 1.0, 5.0, 20.0):
        for name, make in (("ours", Careful), ("semaphore, tenacity", Usual)):
            runs = [
                run_outage(make, length, random.Random(seed), network=NETWORK) for seed in seeds
            ]
            print(
                f"  {length:4g} s {name:20} {max(run.rows for run in runs):5}"
                f"  {median(run.per_second for run in runs):5.1f}"
                f"  {median(run.recovery for run in runs):5.1f}"
            )
            if make is Careful:
                rows = max(rows, *(run.rows for run in runs))
                per_second = max(per_second, *(run.per_second for run in runs))
                recovery = max(recovery, median(run.recovery for run in runs))
    goals.check("dead API: share of the rows lost", rows / ROWS, 0.01, at_least=False)
    goals.check("dead API: requests a second", per_second, 5.0, at_least=False)
    goals.check("dead API: recovery, job times", recovery, 5.0, at_least=False)


# Real sockets.


async def _over_sockets(policy: str, port: int, jobs: int, bound: int) -> tuple[float, int]:
    """Return the jobs per second until 95 % have ended, and the refusals."""
    async with bare_sender(port) as send:
        before = (await ask(port, "GET /ledger"))["refused"]
        began = time.perf_counter()
        if policy == "AsyncProdia.map":
            ended = await with_client(port, jobs, bound)
        elif policy == "its scheduler alone":
            ended = await with_scheduler(send, jobs, bound)
        else:
            ended = await with_pool(send, jobs, bound)
        refused = (await ask(port, "GET /ledger"))["refused"] - before
    nearly_all = int(0.95 * jobs)
    return nearly_all / (sorted(ended)[nearly_all - 1] - began), refused


def sockets(goals: Goals, *, quick: bool) -> None:
    """Print what one client reaches over TCP, beside a fixed pool and one that knows K."""
    print("\nOver TCP, jobs of 0.3 s, Retry-After 1 s: goodput, 429s per job")
    for workers in (5, 20):
        jobs = workers * (25 if quick else 60)
        with serving(workers, 0.3) as port:
            ceiling, _ = asyncio.run(_over_sockets("knows K", port, jobs, workers))
            for policy in ("AsyncProdia.map", "its scheduler alone", "fixed 64"):
                rate, refused = asyncio.run(_over_sockets(policy, port, jobs, 64))
                print(f"  K={workers:<4} {policy:23} {rate / ceiling:5.0%} {refused / jobs:6.2f}")
                if policy == "AsyncProdia.map":
                    goal = 0.97 if workers >= 20 else 0.95
                    what = f"over TCP, goodput, K={workers}"
                    goals.check(what, rate / ceiling, goal, at_least=True)


# The picture.


def plot(path: Path, seed: int) -> None:
    """Draw the busy workers of every policy through the dip, as SVG."""
    width, height, left, top = 760, 150, 60, 30
    colours = ("#0a7d4f", "#b3261e", "#b26a00", "#4a5ccc", "#7a7a7a")
    rows = []
    for number, (policy, colour) in enumerate(zip(POLICIES, colours, strict=True)):
        base = top + number * (height + 34)

        def point(at: float, busy: float, base: float = base) -> str:
            return (
                f"{left + at / 60 * (width - left - 20):.1f},{base + height * (1 - busy / 24):.1f}"
            )

        capacity = " ".join(
            point(at, busy)
            for at, busy in ((0, 20), (20, 20), (20, 5), (40, 5), (40, 20), (60, 20))
        )
        line = " ".join(point(at, busy) for at, busy in run_dip(policy, 1.0, seed).busy)
        rows.append(
            f'<text x="{left}" y="{base - 6}" font-weight="bold">{policy}</text>'
            f'<polyline points="{capacity}" fill="none" stroke="#bbb" stroke-width="6"/>'
            f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
            + "".join(
                f'<text x="{left - 8}" y="{base + height * (1 - busy / 24) + 4:.1f}"'
                f' text-anchor="end">{busy}</text>'
                for busy in (0, 5, 20)
            )
        )
    total = top + len(POLICIES) * (height + 34) + 20
    rows.append(
        f'<text x="{width / 2}" y="{total - 8}" text-anchor="middle">job times; busy workers'
        " (grey: there are); jobs of 1 s, Retry-After 1 s</text>"
    )
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{total}"'
        f' font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="#fff"/>'
        + "".join(rows)
        + "</svg>\n",
        encoding="utf-8",
    )
    print(f"\nWrote {path}")


def simulated(goals: Goals, *, quick: bool) -> None:
    """Everything in virtual time."""
    seeds = range(1, 4) if quick else range(1, 8)
    single_client(seeds, goals, quick=quick)
    other_servers(seeds[:1] if quick else seeds[:3])
    capacity_dip(seeds, goals, quick=quick)
    many_clients(seeds, goals, quick=quick)
    patient_clients(seeds, goals, quick=quick)
    whole_runs(seeds, goals)
    outages(seeds[:3], goals, quick=quick)


def main() -> int:
    """Run what the arguments ask for; 1 when a goal was missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().splitlines()[0])
    parser.add_argument("--simulated", action="store_true", help="virtual time (the default)")
    parser.add_argument("--sockets", action="store_true", help="over TCP, in real time")
    parser.add_argument("--quick", action="store_true", help="fewer seeds and lengths")
    parser.add_argument("--plot", type=Path, metavar="SVG", help="draw a capacity dip")
    arguments = parser.parse_args()
    goals = Goals()
    began = time.perf_counter()
    if arguments.simulated or not arguments.sockets:
        simulated(goals, quick=arguments.quick)
    if arguments.sockets:
        sockets(goals, quick=arguments.quick)
    if arguments.plot is not None:
        plot(arguments.plot, 1)
    goals.report()
    print(f"\n{time.perf_counter() - began:.0f} s")
    return 1 if goals.failed else 0


if __name__ == "__main__":
    sys.exit(main())
