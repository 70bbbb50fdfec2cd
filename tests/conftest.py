"""Fixtures that several test modules share."""

from __future__ import annotations

import functools
import gc
import inspect
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import anyio
import pytest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

BACKENDS = ("asyncio", "trio")

if "MUTANT_UNDER_TEST" in os.environ:
    # The mutation tool notes every call in a context variable. A `__del__` of ours that the
    # garbage collector calls does so while another call is being noted, which CPython 3.11 does
    # not survive: it walks a map that is freed under its feet.
    gc.disable()

    # It runs each test many times in one process, from other places.
    from hypothesis import HealthCheck, settings

    settings.register_profile(
        "mutants",
        suppress_health_check=[HealthCheck.differing_executors],
        derandomize=True,
        database=None,
    )
    settings.load_profile("mutants")

if os.environ.get("PRODIA_TEST_LOOP") == "uvloop":
    import asyncio

    import uvloop  # type: ignore[import-not-found, unused-ignore]  # nox installs it

    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())


SLOW = {
    "batch/test_arrivals.py", "batch/test_broken_inputs.py", "batch/test_cluster.py",
    "batch/test_commands.py", "batch/test_doubts.py", "batch/test_ends.py",
    "batch/test_example.py", "batch/test_faults.py", "batch/test_folder.py",
    "batch/test_no_output.py", "batch/test_odd_rows.py", "batch/test_payments.py",
    "batch/test_promises.py", "batch/test_reports.py", "batch/test_signals.py",
    "batch/test_slots.py", "batch/test_stores.py", "batch/test_troubles.py",
    "batch/test_verify.py",
    "faults/test_dead_api.py", "faults/test_free_questions.py", "faults/test_kept_answers.py",
    "faults/test_storms.py", "faults/test_money.py",
    "peers/test_http_clients.py", "test_against_emulator.py", "test_emulator_http2.py",
    "test_cache.py", "test_fireworks_edits.py", "test_sources.py",
    "test_bad_inputs.py", "test_emulator_async.py", "test_emulator_edits.py", "test_kontext.py",
    "test_emulator_life.py", "test_emulator_mishaps.py", "test_emulator_pictures.py",
    "test_emulator_types.py", "test_facts.py", "test_lifetimes.py",
    "test_cli.py", "test_cli_commands.py", "test_demo.py", "test_docs.py", "test_examples.py",
    "test_drain.py", "test_ending.py", "test_facts_client.py", "test_facts_elsewhere.py",
    "test_types.py", "test_killed_process.py", "test_notebook.py", "test_services.py",
    "test_progress.py", "test_secret.py", "test_telemetry.py", "test_testing.py",
    "transports/test_doors.py",
}  # fmt: skip
"""Whole programs, processes and outages: beside the default run, in CI and `nox -s tests`."""

ONE_WAY = "default, h11"
"""Of the ways to send that test_conformance.py goes, the one that is not slow: what users have."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not even load what a run leaves out, unless it is named: that takes seconds."""
    name = collection_path.name
    if not name.startswith("test_") or "not slow" not in config.option.markexpr:
        return None
    is_named = any(name in argument for argument in config.invocation_params.args)
    inside = collection_path.relative_to(Path(__file__).parent).as_posix()
    return True if inside in SLOW and not is_named else None


@pytest.hookimpl(tryfirst=True)  # before those that are not asked for are left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what takes long, file by file."""
    here = Path(__file__).parent
    for item in items:
        is_longer = item.get_closest_marker("soak") or item.get_closest_marker("cluster")
        name = item.path.relative_to(here).as_posix()
        is_other_way = name == "test_conformance.py" and ONE_WAY not in item.name
        if (name in SLOW or is_other_way) and not is_longer:
            item.add_marker(pytest.mark.slow)


def on_both_loops(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an async test under asyncio and again under trio."""

    @pytest.mark.parametrize("loop", BACKENDS)
    @functools.wraps(test)
    def run(*, loop: str, **fixtures: Any) -> None:
        anyio.run(functools.partial(test, **fixtures), backend=loop)

    signature = inspect.signature(test)
    parameter = inspect.Parameter("loop", inspect.Parameter.KEYWORD_ONLY)
    others = [each.replace(kind=parameter.kind) for each in signature.parameters.values()]
    run.__signature__ = signature.replace(parameters=[*others, parameter], return_annotation=None)
    del run.__wrapped__  # or pytest would see a coroutine function
    return cast("Callable[..., None]", run)


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for something that another thread brings about."""
    with anyio.fail_after(seconds):
        while not condition():
            await anyio.sleep(0.005)


def open_sockets() -> int:
    """Count this process's open sockets."""
    count = 0
    for entry in os.scandir("/proc/self/fd"):
        try:
            count += os.readlink(entry.path).startswith("socket:")  # noqa: PTH115
        except OSError:
            continue
    return count


@pytest.fixture(autouse=True)
def _no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the developer's own account."""
    monkeypatch.delenv("PRODIA_TOKEN", raising=False)
    monkeypatch.delenv("PRODIA_BASE_URL", raising=False)
