"""A command that pays, told to end: one line about what was paid for, and how to go on."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from raw_server import Conversation, RawServer
from test_cli import SCENE, TOKEN, Done, environment, error_line

from prodia_async import AttemptDetails, InvalidRequestError
from prodia_async._attempts import Attempt
from prodia_async._cli import _app
from prodia_async._cli._app import InterruptedJobError
from prodia_async._cli._ending import Watch, ending, undisturbed
from prodia_async._hooks import logger
from prodia_async.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

VIDEO = "inference.wan2-2.lightning.txt2vid.v0"
BOTH = pytest.mark.parametrize(
    ("number", "word", "status"),
    [(signal.SIGINT, "interrupted", 130), (signal.SIGTERM, "terminated", 143)],
    ids=["SIGINT", "SIGTERM"],
)


def ended(
    *arguments: str,
    cwd: Path,
    number: signal.Signals,
    when: Callable[[], object],
    stdout: int = subprocess.PIPE,
    ignores_interrupts: bool = False,
    after: float = 0.0,
    env: dict[str, str],
) -> Done:
    """Run a command, send it a signal when something is so, and return how it ended."""
    command = [sys.executable, "-m", "prodia_async", *arguments]
    if ignores_interrupts:
        command = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *command]
    process = subprocess.Popen(
        command, cwd=cwd, env=environment(**env), stdout=stdout, stderr=subprocess.PIPE
    )
    with process:
        until = time.monotonic() + 20
        while not when():
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.01)
        time.sleep(after)
        process.send_signal(number)
        try:
            out, err = process.communicate(timeout=10)
        finally:
            process.kill()
    return Done(process.args, process.returncode, out or b"", err)


@pytest.fixture
def slow() -> Iterator[Emulator]:
    with Emulator(tokens=[TOKEN], latency=60) as emulator:
        yield emulator


def of(api: Emulator) -> dict[str, str]:
    return {
        "PRODIA_BASE_URL": api.base_url, "PRODIA_TOKEN": TOKEN,
        "FIREWORKS_API_BASE": api.fireworks_url, "FIREWORKS_API_KEY": TOKEN,
    }  # fmt: skip


@BOTH
def test_a_job_that_is_with_the_server(
    number: signal.Signals, word: str, status: int, slow: Emulator, tmp_path: Path
) -> None:
    """It may have run, and nothing can be collected."""
    command = ("job", SCENE, "-c", "prompt=cat")
    done = ended(*command, cwd=tmp_path, number=number, when=lambda: slow.busy, env=of(slow))
    assert error_line(done) == f"{word}; {SCENE} may have run and been charged"
    assert done.returncode == status


@BOTH
def test_a_job_that_did_not_run(
    number: signal.Signals, word: str, status: int, tmp_path: Path
) -> None:
    """The server is busy, so nothing was charged."""
    with Emulator(tokens=[TOKEN], workers=0, retry_after=60) as api:
        done = ended(
            *("job", SCENE, "-c", "prompt=cat"),
            cwd=tmp_path, number=number, when=lambda: len(api.ledger), after=0.3, env=of(api),
        )  # fmt: skip
    assert error_line(done) == f"{word}; {SCENE} did not run, so nothing was charged"
    assert done.returncode == status


def test_a_job_in_the_background_of_a_script(slow: Emulator, tmp_path: Path) -> None:
    """A shell has such ones ignore Ctrl-C; SIGTERM ends them all the same."""
    done = ended(
        *("job", SCENE, "-c", "prompt=cat"),
        cwd=tmp_path, number=signal.SIGTERM, when=lambda: slow.busy, ignores_interrupts=True,
        env=of(slow),
    )  # fmt: skip
    assert error_line(done) == f"terminated; {SCENE} may have run and been charged"
    assert done.returncode == 143


def test_a_job_whose_output_nobody_reads(tmp_path: Path) -> None:
    """It waits for a reader of the pipe for ever; a signal ends that, and says that it was paid."""
    os.mkfifo(tmp_path / "pipe.jpg")
    with Emulator(tokens=[TOKEN]) as api:
        done = ended(
            *("job", SCENE, "-c", "prompt=cat", "-o", "pipe.jpg"),
            cwd=tmp_path, number=signal.SIGTERM,
            when=lambda: api.ledger.totals().charged, after=0.5, env=of(api),
        )  # fmt: skip
    assert error_line(done) == f"terminated; {SCENE} may have run and been charged"
    assert done.returncode == 143


@BOTH
def test_a_submission_that_is_not_answered(
    number: signal.Signals, word: str, status: int, tmp_path: Path
) -> None:
    """Nobody knows whether the server took it."""

    def stall(conversation: Conversation) -> None:
        conversation.stall()

    with RawServer([stall]) as server:
        done = ended(
            *("submit", VIDEO, "-c", "prompt=x"),
            cwd=tmp_path, number=number, when=lambda: server.requests,
            env={"PRODIA_BASE_URL": server.url, "PRODIA_TOKEN": TOKEN},
        )  # fmt: skip
    assert error_line(done) == f"{word}; {VIDEO} may have run and been charged"
    assert done.returncode == status


@BOTH
def test_a_submission_whose_id_nobody_reads(
    number: signal.Signals, word: str, status: int, slow: Emulator, tmp_path: Path
) -> None:
    """It is paid for, and its id is all that leads to what it makes."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, bytes(65536))
    os.set_blocking(writer, True)
    done = ended(
        *("submit", VIDEO, "-c", "prompt=x"),
        cwd=tmp_path, number=number, stdout=writer,
        when=lambda: slow.ledger.totals().submitted, after=0.5, env=of(slow),
    )  # fmt: skip
    os.close(reader)
    os.close(writer)
    said = re.fullmatch(
        rf"{word}; {re.escape(VIDEO)} was submitted as (\S+) and may be charged; "
        r"`prodia-async collect (\S+)` waits for it",
        error_line(done),
    )
    assert said is not None, done.stderr
    assert said[1] == said[2]
    assert done.returncode == status


@pytest.mark.parametrize("model", ["flux-kontext-pro", "flux-kontext-max"])
def test_a_kontext_task(model: str, slow: Emulator, tmp_path: Path) -> None:
    """What picks it up is told, with its model where that matters."""
    done = ended(
        *("fireworks", "a cat", "-m", model, "--poll-seconds", "0.1"),
        cwd=tmp_path, number=signal.SIGTERM,
        when=lambda: any("get_result" in each.path for each in slow.ledger), env=of(slow),
    )  # fmt: skip
    again = "" if model.endswith("pro") else f" -m {model}"
    assert re.fullmatch(
        rf"terminated; {model} was submitted as (\S+) and may be charged; "
        rf"`prodia-async fireworks --task \1{again}` picks it up",
        error_line(done),
    )
    assert done.returncode == 143


def test_a_task_that_was_submitted_before(slow: Emulator, tmp_path: Path) -> None:
    """Its id is known from the beginning."""
    done = ended(
        *("fireworks", "--task", "task-1", "--poll-seconds", "30"),
        cwd=tmp_path, number=signal.SIGTERM,
        when=lambda: True, after=2.0, env=of(slow),
    )  # fmt: skip
    assert "`prodia-async fireworks --task task-1` picks it up" in error_line(done)
    assert done.returncode == 143


def test_a_collection_that_is_terminated(slow: Emulator, tmp_path: Path) -> None:
    """As with Ctrl-C: the jobs are paid for, and their ids are what matters."""
    done = ended(
        *("submit", VIDEO, "-c", "prompt=x"),
        cwd=tmp_path, number=signal.SIGCONT, when=lambda: True, env=of(slow),
    )  # fmt: skip
    job_id = done.stdout.decode().strip()
    done = ended(
        *("collect", job_id),
        cwd=tmp_path, number=signal.SIGTERM,
        when=lambda: any("current" in each.path for each in slow.ledger), env=of(slow),
    )  # fmt: skip
    assert error_line(done) == (
        "terminated; what is not collected goes on at the server, and `prodia-async collect "
        f"{job_id}` waits for it"
    )
    assert done.returncode == 143


# ------------------------------------------------------------------ in this process


def handlers() -> list[Any]:
    return [signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)]


def test_what_was_paid_for_is_written_first() -> None:
    """One signal is put off for ever, since then there is nothing to be said; two are meant."""
    before = handlers()
    for number in (signal.SIGINT, signal.SIGTERM):
        with undisturbed():
            signal.raise_signal(number)
        with pytest.raises(KeyboardInterrupt), undisturbed():
            signal.raise_signal(number)
            signal.raise_signal(number)
        assert handlers() == before


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    """And outside the main thread nothing can be done about any."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with undisturbed():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    entered: list[bool] = []

    def elsewhere() -> None:
        with undisturbed(), ending(lambda: "x"):
            entered.append(True)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert entered == [True]


def test_errors_of_others_go_through() -> None:
    """And what was before is again."""
    before = handlers()
    with pytest.raises(LookupError), ending(lambda: "x"):
        raise LookupError
    with pytest.raises(InterruptedJobError, match="interrupted; x") as caught, ending(lambda: "x"):
        signal.raise_signal(signal.SIGINT)
    assert caught.value.status == 130
    with pytest.raises(InterruptedJobError, match="terminated; x") as caught, ending(lambda: "x"):
        signal.raise_signal(signal.SIGTERM)
    assert caught.value.status == 143
    assert handlers() == before


@pytest.mark.parametrize(
    ("fates", "charged"),
    [
        ([], False), (["undelivered", "not run", "refused"], False), (["uncertain"], True),
        (["server fault", "not run"], True), (["succeeded"], True), (["ran"], True),
    ],
)  # fmt: skip
def test_what_is_told_of_a_job(fates: list[Any], charged: bool) -> None:
    """Whatever one of its attempts came to; no id helps where nothing can be collected."""
    watch = Watch("a.type")
    for fate in fates:
        attempt = Attempt(1, fate, None, None, 1.0)
        watch(AttemptDetails(event="started", job_type="x", number=1, attempt=None,
                             seconds_queued=0.0))  # fmt: skip
        watch(AttemptDetails(event="finished", job_type="x", number=1, attempt=attempt,
                             seconds_queued=0.0))  # fmt: skip
    may = "may have run and been charged"
    assert watch.told() == f"a.type {may if charged else 'did not run, so nothing was charged'}"
    level = logger.level
    with watch.listening():
        logger.info("x", extra={"job_id": "j-1"})
    assert "j-1" not in watch.told()
    assert (logger.level, watch in logger.handlers) == (level, False)


@pytest.mark.parametrize("level", [logging.NOTSET, logging.DEBUG, logging.ERROR])
def test_the_id_is_heard_whatever_is_logged(level: int) -> None:
    """The latest; a line without one takes none back."""
    watch = Watch("a.type", how="`ask {}`", job_id="j-0")
    assert watch.told().endswith("submitted as j-0 and may be charged; `ask j-0`")
    before = logger.level
    logger.setLevel(level)
    try:
        with watch.listening():
            assert logger.level == (logging.DEBUG if level == logging.DEBUG else logging.INFO)
            logger.info("x", extra={"job_id": "j\x1b1"})
            logger.info("y")
            logger.info("z", extra={"job_id": None})
        assert logger.level == level
    finally:
        logger.setLevel(before)
    assert watch.told().endswith("submitted as j\N{REPLACEMENT CHARACTER}1 and may be charged; "
                                 "`ask j\N{REPLACEMENT CHARACTER}1`")  # fmt: skip


@pytest.mark.parametrize(("may_have_run", "status"), [(False, 2), (True, 1)])
def test_the_status_of_what_cannot_be_sent(
    may_have_run: bool, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """2 says that nothing was sent; of an input that changed between two attempts it would lie."""

    def fail(*_: object, **__: object) -> None:
        raise InvalidRequestError("the input changed", may_have_run=may_have_run)

    monkeypatch.setattr(_app, "app", fail)
    assert _app.run(["job"]) == status
