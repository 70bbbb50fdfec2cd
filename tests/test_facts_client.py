"""The facts of `facts.toml` through the client: does it let pass what they allow, and no more?"""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from test_facts import FACTS, file, written_out

from prodia_async import APIStatusError, AsyncProdia, InvalidRequestError, RetryPolicy
from prodia_async.emulator import Emulator

# What says how the server is made, or what a client of the API never sends.
APART = {
    *("emulator", "behaviour", "fireworks", "fail", "repeat", "method", "path", "query", "token"),
    *("send_headers", "parts", "form", "job_last", "body"),
}


def is_a_job(fact: dict[str, Any]) -> bool:
    """Return whether a row is a plain job of the Prodia API."""
    plain = fact.get("api") != "fireworks" and not APART & set(fact)
    return plain and ("type" in fact or "job" in fact)


JOBS = [fact for fact in FACTS if is_a_job(fact)]


def job_of(fact: dict[str, Any]) -> dict[str, Any]:
    if "job" in fact:
        return dict(written_out(fact["job"]))
    name = fact["type"]
    name = name if name.startswith(("inference.", "workflow.")) else f"inference.{name}"
    return {"type": name, "config": written_out(fact.get("config", {}))}


def inputs_of(fact: dict[str, Any]) -> list[Any]:
    kinds = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp", "wav": "audio/wav",
             "mp4": "video/mp4", "gif": "image/gif", "padded": "image/png"}  # fmt: skip
    return [
        (name, file(kind), declared[0] if declared else kinds[kind.partition(":")[0]])
        for name, kind, *declared in fact.get("inputs", ())
    ]


def options_of(fact: dict[str, Any]) -> dict[str, Any]:
    """Return what goes with the job: its inputs, and the format without the client's own words."""
    accept = fact.get("accept", "").removeprefix("multipart/form-data").lstrip("; ")
    return {"inputs": inputs_of(fact), "accept": accept if "/" in accept else None}


@pytest.fixture(scope="module")
def emulator() -> Any:
    with Emulator(tokens=["token"], retry_after=None) as emulator:
        yield emulator


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[AsyncProdia]:
    async with AsyncProdia(
        "token", base_url=emulator.base_url, retry=RetryPolicy(max_attempts=1, max_capacity_wait=0)
    ) as client:
        yield client


async def test_without_checks_the_server_decides(client: AsyncProdia) -> None:
    """Each job goes out as the row has it, and comes back with the row's status."""
    free = client.with_options(validate="off")
    others = []
    for fact in JOBS:
        try:
            await free.job(job_of(fact), **options_of(fact))
            status = 200
        except InvalidRequestError:
            status = 400  # two inputs of one name and the like: no server is asked about those
        except APIStatusError as error:
            status = error.status_code
        if status != fact.get("status", 200):
            others.append((fact["fact"], status))
    assert others == []


async def test_what_the_pages_allow_is_never_refused(client: AsyncProdia) -> None:
    """A row that is answered well passes `validate="known"`, whatever its mark."""
    strict = client.with_options(validate="known")
    refused: list[str] = []
    allowed = [fact for fact in JOBS if fact.get("status", 200) == 200]
    for fact in allowed:
        try:
            await strict.job(job_of(fact), **options_of(fact))
        except InvalidRequestError as error:
            refused.append(f"{fact['fact']} ({fact['mark']}): {error}")
    assert refused == []
    assert len(allowed) > 300


async def test_what_the_pages_forbid_is_found_before_sending(
    client: AsyncProdia, emulator: Emulator
) -> None:
    """Of what Prodia itself states (A), all but what is listed here costs no request."""
    strict = client.with_options(validate="known")
    forbidden = [fact for fact in JOBS if fact.get("status") == 400 and fact["mark"] == "A"]
    sent = emulator.ledger.totals().received
    missed = []
    for fact in forbidden:
        with pytest.raises((InvalidRequestError, APIStatusError)) as caught:
            await strict.job(job_of(fact), **options_of(fact))
        if not isinstance(caught.value, InvalidRequestError):
            missed.append(fact["fact"])
    assert emulator.ledger.totals().received - sent == len(missed)
    assert set(missed) == LEFT_TO_THE_SERVER
    assert len(forbidden) > 2 * len(missed)


LEFT_TO_THE_SERVER = {
    # Inside objects, which the catalogue names and does not describe.
    "a colour ends at 255", "a point lies between 0 and 1", "a text layout has nothing else",
    "a text layout needs its box", "three points are too few",
    # Only the content tells.
    "a picture may not be a GIF", "a source without a face is told so",
    # Stated by the page of a family, or of a sibling: an inference here, so it passes.
    "a face swap needs two pictures", "anything else is not", "model_name may be nothing else",
    "prompt is required", "prompt may not be beyond 2500 characters",
    "steps: 1000 is refused with the word steps", "style_preset may be nothing else",
    "v1 takes one picture",
    # About the form of the answer; the job is one of the above.
    "a 400 is a failed job result where a form was asked for", "a failed job has an id",
}  # fmt: skip
