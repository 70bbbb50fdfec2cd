"""
The one entrance.

Quick: ``nox -s lint types tests coverage examples docs peers``. Slow, and outside CI: ``debug``,
``uvloop``, ``lowest``, ``soak``, ``mutate``, ``bench``.
"""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path

import nox

PROJECT = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
PYTHONS = [
    found[1]
    for line in PROJECT["classifiers"]
    if (found := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", line))
]

nox.options.default_venv_backend = "venv"
nox.options.sessions = ["lint", "types", "tests", "coverage", "examples", "docs"]


@nox.session(python=PYTHONS[0])
def lint(session: nox.Session) -> None:
    """Style and formatting."""
    session.install("-e", ".[dev]")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(python=PYTHONS[0])
def types(session: nox.Session) -> None:
    """Types, strictly."""
    session.install("-e", ".[dev]")
    session.run("mypy")
    session.run("mypy", "examples/batch.py")  # see pyproject.toml


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """All tests; arguments after ``--`` go to pytest."""
    session.install("-e", ".[dev]")
    session.run("pytest", "-n", "auto", "-m", "not soak and not cluster", *session.posargs)


@nox.session(python=PYTHONS[0])
def coverage(session: nox.Session) -> None:
    """Branch coverage by all tests but soaks, some 14 minutes; what decides must stand at 100 %."""
    session.install("-e", ".[dev]")
    session.run("coverage", "erase")
    chosen = session.posargs or ["-m", "not soak and not cluster"]
    session.run("coverage", "run", "-m", "pytest", "-q", "-n", "auto", *chosen)
    session.run("coverage", "combine", "-q")
    session.run("coverage", "report")
    # The client whole, and of a batch what decides. Not the extras' bridges: each of them is left
    # by a cancellation, behind which Python 3.11 tells a tracer of no line any more.
    client = ["*.py", "transports/*", "fireworks/*", "testing/*"]
    deciding = [
        "admit", "arrivals", "cluster", "decide", "driver", "folder", "grid", "lease", "opening",
        "submissions", "values",
    ]  # fmt: skip
    batch = [f"batch/_{name}.py" for name in deciding]
    include = ",".join(f"prodia_async/{each}" for each in (*client, *batch))
    session.run("coverage", "report", "--fail-under=100", f"--include={include}")


@nox.session(python=PYTHONS[0])
def examples(session: nox.Session) -> None:
    """Run each example against the emulator."""
    session.install("-e", ".[cli,batch]")
    for example in sorted(Path("examples").glob("*.py")):
        if example.stem.endswith("_service"):
            continue  # serves until it is stopped; tests/test_services.py runs it
        if example.stem.startswith("ray_"):
            continue  # needs Ray; `nox -s cluster` runs it
        session.run("python", str(example), session.create_tmp())


@nox.session(python=PYTHONS[0])
def peers(session: nox.Session) -> None:
    """Other people's clients against the emulator; those from npm where npm is there."""
    session.install("-e", ".[dev]")
    if shutil.which("npm"):
        where = ("--prefix", "tests/peers")
        session.run("npm", "install", "--no-package-lock", *where, external=True)
    else:
        session.warn("npm is not installed: the JavaScript clients are skipped")
    session.run("pytest", "tests/peers", *session.posargs)


@nox.session(python=PYTHONS[0])
def docs(session: nox.Session) -> None:
    """Build the site, strictly, into build/site; its snippets are tests."""
    session.install("-e", ".[docs,batch,cli,opentelemetry,starlette,testing]")
    session.run("mkdocs", "build", "--strict", *session.posargs)


@nox.session(python=PYTHONS[0])
def cluster(session: nox.Session) -> None:
    """Run many workers with a real Ray and Daft: kills, leases, fairness; 1 GB, 20 minutes."""
    session.install("-e", ".[dev,ray,daft]")
    session.run("pytest", "-m", "cluster", "tests/cluster", *session.posargs)
    session.run("python", "benchmarks/cluster.py")


@nox.session(python=PYTHONS[0])
def debug(session: nox.Session) -> None:
    """Run the tests with asyncio's debug mode, which watches for what holds up the loop."""
    session.install("-e", ".[dev]")
    session.run("pytest", "-q", *session.posargs, env={"PYTHONASYNCIODEBUG": "1"})


@nox.session(python=PYTHONS[0])
def uvloop(session: nox.Session) -> None:
    """Run the tests under uvloop in the place of asyncio's own loop."""
    session.install("-e", ".[dev]", "uvloop>=0.21")
    session.run("pytest", "-q", *session.posargs, env={"PRODIA_TEST_LOOP": "uvloop"})


@nox.session(python=PYTHONS[0])
def mutate(session: nox.Session) -> None:
    """
    Break each decision, and see a test fail; tests/MUTANTS.md lists what survives, and why.

    Arguments after ``--`` are names of mutants, such as ``prodia_async._retry*``.
    """
    session.install("-e", ".[dev]", "mutmut>=3.8")
    session.run("mutmut", "run", *session.posargs)
    session.run("mutmut", "results")


@nox.session(python=PYTHONS[0])
def lowest(session: nox.Session) -> None:
    """Run the tests with the oldest versions that pyproject.toml allows."""
    extras = PROJECT["optional-dependencies"]
    oldest = [
        requirement.replace(">=", "==")
        for requirement in [*PROJECT["dependencies"], *extras["emulator"], *extras["cli"]]
        if ">=" in requirement
    ]
    session.install("-e", ".[dev]", *oldest)
    session.run("pytest", "-q", *session.posargs)


@nox.session(python=PYTHONS[0])
def soak(session: nox.Session) -> None:
    """Long runs: ten thousand cancellations, a million jobs; minutes, and outside CI."""
    session.install("-e", ".[dev]")
    session.run("pytest", "-m", "soak", *session.posargs)


@nox.session(python=PYTHONS[0])
def bench(session: nox.Session) -> None:
    """Every benchmark but that of `cluster`; slow, and outside CI."""
    session.install("-e", ".[dev]")
    for benchmark in sorted(Path("benchmarks").glob("[!_]*.py")):
        if benchmark.stem == "cluster":
            continue  # needs Ray
        session.run("python", str(benchmark), *session.posargs)
