"""The facts that are no plain job, through the clients: prices, tasks left, the second API."""

from __future__ import annotations

import re
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pytest
from test_facts import FACTS, opened, written_out
from test_facts_client import inputs_of, is_a_job, job_of, options_of

from prodia_async import (
    APIStatusError,
    AsyncProdia,
    DeadlineExceededError,
    InvalidRequestError,
    JobFailedError,
    JobNotFoundError,
    RetryPolicy,
)
from prodia_async.emulator import Behaviour, Emulator, FireworksBehaviour
from prodia_async.fireworks import (
    AsyncFireworks,
    ContentFilteredError,
    Generate,
    ImageResponse,
    Kontext,
    TextToImage,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ONCE = RetryPolicy(max_attempts=1, max_capacity_wait=0, backoff_initial=0.01, backoff_max=0.02)

NEVER_SENT = {
    # Shapes of a request that the clients do not have, and addresses that they do not ask.
    "a job may be a form of its job part alone", "the job part may come last",
    "a part that is not called input is not seen", "no endpoint answers reads of sync jobs",
    "nor of their results", "the description of the API needs a token", "with one it is there",
    "GET is 405", "the doubled path of some documents can be had",
}  # fmt: skip

REST = [fact for fact in FACTS if not is_a_job(fact) and fact["fact"] not in NEVER_SENT]
PRODIA = [fact for fact in REST if fact.get("api") != "fireworks"]
FIREWORKS = [fact for fact in REST if fact.get("api") == "fireworks"]


def named(fact: Mapping[str, Any]) -> str:
    return f"{fact.get('type') or fact.get('api', 'prodia')}: {fact['fact']}"


@pytest.fixture(scope="module")
def shared() -> Iterator[Emulator]:
    with Emulator(tokens=["token"], retry_after=None) as emulator:
        yield emulator


def serving(fact: Mapping[str, Any], shared: Emulator) -> Any:
    """Return the emulator that a row asks for."""
    if not {"emulator", "behaviour", "fireworks"} & set(fact):
        return nullcontext(shared)
    options: dict[str, Any] = dict(fact.get("emulator", {}))
    if "behaviour" in fact:
        options["behaviour"] = Behaviour(**fact["behaviour"])
    if "fireworks" in fact:
        options["fireworks"] = FireworksBehaviour(**fact["fireworks"])
    return Emulator(tokens=["token"], **options)


def test_every_row_is_asked_of_a_client_or_is_listed() -> None:
    """No row is left out in silence."""
    left = [fact["fact"] for fact in FACTS if not is_a_job(fact) and fact not in REST]
    assert set(left) == NEVER_SENT
    assert len(left) == len(NEVER_SENT)
    assert (len(PRODIA), len(FIREWORKS)) > (50, 90)


# The first API.


async def asked(client: AsyncProdia, fact: Mapping[str, Any]) -> Any:
    """Ask what a row asks, in the client's own way."""
    path = fact.get("path", "/v2/job")
    if fact.get("method") == "GET":
        task = client.async_job(path.split("/")[4])
        return await (task.state() if path.endswith("state.current") else task.outputs())
    job, options = job_of(dict(fact)), options_of(dict(fact))
    if path != "/v2/job/async":
        return await client.job(job, **options)
    submitted = await client.submit(job, inputs=inputs_of(dict(fact)))
    if "follow" not in fact:
        return submitted
    if fact.get("expire"):
        await submitted.wait(poll=0.01)
        return submitted
    return await submitted.result(poll=0.01)


@pytest.mark.parametrize("fact", PRODIA, ids=named)
async def test_a_fact_of_the_first_api(fact: Mapping[str, Any], shared: Emulator) -> None:
    """Its price, its error or its result is what the client tells."""
    status = fact.get("status", 200)
    token = "token" if fact.get("token") is None else "another"
    with serving(fact, shared) as emulator:
        if "fail" in fact:
            emulator.fail_next(**fact["fail"])
        async with AsyncProdia(
            token,
            base_url=emulator.base_url,
            retry=ONCE,
            price="price=true" in fact.get("query", ""),
            validate="off",
        ) as client:
            if status >= 400:
                with pytest.raises(APIStatusError) as caught:
                    await asked(client, fact)
                assert caught.value.status_code == status
                assert fact.get("says", "") in caught.value.body.decode()
                return
            if fact.get("then_result", {}).get("state.current") == "failed":
                with pytest.raises(JobFailedError, match="out of luck"):
                    await asked(client, fact)
                return
            if fact["fact"] == "in 2024 inputs of one name were taken":
                with pytest.raises(InvalidRequestError, match="names must differ"):
                    await asked(client, fact)  # what is sent can be told apart
                return
            answer = await asked(client, fact)
            if fact.get("expire"):
                emulator.expire(answer.id)
                with pytest.raises(JobNotFoundError):  # one's own is asked for a while longer
                    await client.async_job(answer.id).state()
                return
    wanted = {**fact.get("result", {}), **fact.get("then_result", {})}
    if "price.dollars" in wanted:
        assert answer.dollars == wanted["price.dollars"]
    if "price.product" in wanted:
        assert answer.job.price.product == wanted["price.product"]
    if "then_type" in fact:
        assert answer.output.content_type == fact["then_type"]
    if "then_json" in fact:
        assert [each.filename for each in answer.outputs] == fact["then_json"]
    if "lives" in fact:
        lived = answer.job.expires_at - answer.job.created_at
        assert lived.total_seconds() == fact["lives"]
    if "ips" in fact:
        metrics = answer.job.metrics
        assert metrics.ips * metrics.elapsed == pytest.approx(answer.config["steps"], rel=0.01)


# The second API.


def order_of(fact: Mapping[str, Any]) -> TextToImage | Generate | Kontext:
    """Write a row's body as an order; what an order has no field for goes along as it is."""
    path = fact["path"]
    model = path.removesuffix("/text_to_image").rpartition("/")[2]
    kind: type[Any] = TextToImage
    if path.startswith("/image_generation"):
        kind = Generate
    elif "kontext" in path:
        kind = Kontext
    body = written_out(fact["body"])
    if "input_image" in body:
        body["input_image"] = f"data:image/png;base64,{body['input_image']}"
    own = set(kind.__dataclass_fields__)
    known = {name: value for name, value in body.items() if name in own}
    extra = {name: value for name, value in body.items() if name not in own}
    options: dict[str, Any] = {"extra_body": extra or None}
    if kind is Kontext:
        options["poll"] = 0.001
    else:
        options |= {"accept": fact.get("accept"), "raise_if_filtered": False}
    headers = fact.get("send_headers", {})
    if "Jpeg-Quality" in headers:
        options["jpeg_quality"] = int(headers["Jpeg-Quality"])
    if "Json-Return-Image-Accept" in headers:
        options["json_image"] = headers["Json-Return-Image-Accept"]
    made: TextToImage | Generate | Kontext = kind(
        known.pop("prompt", ""), model=model, **known, **options
    )
    return made


FOUND_HERE = {
    # What the client refuses before it is sent, so that no server is asked.
    "a prompt is required", "there is no other ratio", "Jpeg-Quality ends at 100",
    "422 has a detail", "and nothing else", "there is no other sampler",
    "an adapter needs its file", "steps begin at 1", "safety_tolerance ends at 6",
    "with a picture it ends at 2", "a ratio lies between 21:9 and 9:21",
    "a webhook's address has at most 2083 characters",
}  # fmt: skip

ENDS: dict[str, tuple[type[Exception], str]] = {
    "a poll may be told Task not found": (JobNotFoundError, "Task not found"),
    "a poll may be told Pending": (DeadlineExceededError, "not done within its deadline"),
    "a poll may be told Request Moderated": (ContentFilteredError, "Request Moderated"),
    "a poll may be told Content Moderated": (ContentFilteredError, "Content Moderated"),
    "a poll may be told Error": (JobFailedError, "the task failed"),
    "an unknown task is not found": (JobNotFoundError, "Task not found"),
}
"""How a task that is told this for ever ends."""


async def ordered(client: AsyncFireworks, fact: Mapping[str, Any]) -> ImageResponse:
    if fact["path"].endswith("get_result"):
        return await client.kontext_result(fact["body"]["id"], poll=0.001)
    order = order_of(fact)
    for _ in range(fact.get("repeat", 1) - 1):
        await client.run(order)
    return await client.run(order)


@pytest.mark.parametrize("fact", FIREWORKS, ids=named)
async def test_a_fact_of_the_second_api(fact: Mapping[str, Any], shared: Emulator) -> None:
    """Its error, its reason or its picture is what the client tells."""
    status = fact.get("status", 200)
    key = "token" if fact.get("token") is None else "another"
    with serving(fact, shared) as emulator:
        if "fail" in fact:
            emulator.fail_next(**fact["fail"])
        sent = emulator.ledger.totals().received
        limit = 1.0 if fact["fact"] in ENDS else None
        async with AsyncFireworks(
            key, base_url=emulator.fireworks_url, retry=ONCE, deadline=limit
        ) as client:
            if fact["fact"] in FOUND_HERE:
                with pytest.raises(InvalidRequestError):
                    await ordered(client, fact)
                assert emulator.ledger.totals().received == sent
                return
            if fact["fact"] in ENDS:
                kind, words = ENDS[fact["fact"]]
                with pytest.raises(kind, match=words):
                    await ordered(client, fact)
                return
            if status >= 400:
                with pytest.raises(APIStatusError) as caught:
                    await ordered(client, fact)
                assert caught.value.status_code == status
                return
            response = await ordered(client, fact)
            charged = emulator.ledger[-1].dollars
    check(fact, response, charged)


def check(fact: Mapping[str, Any], response: ImageResponse, charged: float | None) -> None:
    """Look whether a response has what a row says of the answer."""
    headers = fact.get("headers", {})
    if "content-type" in headers:
        assert response.image.content_type == headers["content-type"]
    if headers.get("seed") == "number":
        assert (response.seed or 0) > 0
    elif "seed" in headers:
        assert response.seed == int(headers["seed"])
    for name in ("x-ratelimit-limit-requests", "x-ratelimit-remaining-requests"):
        if name in headers:
            assert response.headers[name] == headers[name]
    if "x-ratelimit-over-limit" in headers:
        assert response.is_over_limit
    reason = fact.get("json", {}).get("finishReason") or headers.get("finish-reason")
    if reason is not None:
        assert response.image.finish_reason == reason
        assert response.image.is_filtered == (reason == "CONTENT_FILTERED")
    if "charged" in fact:
        assert response.dollars == pytest.approx(fact["charged"]) == charged
    picture = opened(response.content)
    if "ratio" in fact:
        assert picture.width / picture.height == pytest.approx(fact["ratio"], rel=0.08)
    if "size" in fact:
        assert f"{picture.width}x{picture.height}" == fact["size"]
    if "count" in fact:
        assert len(response.images) == fact["count"]
    wanted = fact.get("json_prefix") or fact.get("sample_type")
    if wanted is not None:
        found = re.search(r"image/(png|jpeg)", wanted)
        assert found is not None
        assert response.image.content_type == found[0]
