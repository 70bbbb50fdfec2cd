"""What the second API says: an order to its answer, a refusal to its body. Plain functions."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

from .._desk import Answer
from ._refusals import Invalid

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .._refusals import Refused
    from ._behaviour import FireworksBehaviour, JsonShape, KontextState
    from ._orders import Order


def error_answer(refused: Refused, behaviour: FireworksBehaviour) -> Answer:
    """Write a refusal: JSON, whatever the Accept header asked for."""
    if isinstance(refused, Invalid) and behaviour.validation_status == 422:
        detail = [
            {
                "loc": ["body", problem.name] if problem.name else ["body"],
                "msg": problem.text,
                "type": problem.kind,
            }
            for problem in refused.problems
        ]
        return json_answer({"detail": detail}, 422)
    kind = "invalid_request_error" if refused.status < 500 else "internal_server_error"
    error = {"object": "error", "type": kind, "message": refused.text}
    return json_answer({"error": error}, refused.status)


def json_answer(value: Any, status: int = 200) -> Answer:
    """Write JSON as FastAPI does: compact, not escaped."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    # A lone surrogate came in as an escape and has no bytes of its own.
    return Answer(status, "application/json", text.encode(errors="replace"))


def base64_text(content: bytes) -> str:
    """Write bytes as bare base64."""
    return base64.b64encode(content).decode()


def image_answer(order: Order, content: bytes) -> Answer:
    """Write the one picture of an order as it is."""
    headers = {"seed": str(order.seed), "finish-reason": order.finish_reason}
    return Answer(200, order.wanted.encoding.media_type, content, headers)


def artifacts_answer(order: Order, contents: Sequence[bytes], id: str, shape: JsonShape) -> Answer:
    """
    Write the pictures of an order as JSON.

    Args:
        order: The order.
        contents: Its pictures; `shape` ``string`` has room for the first only.
        id: The answer's id.
        shape: See `JsonShape`.
    """
    texts = [base64_text(content) for content in contents]
    common = {"finishReason": order.finish_reason, "seed": order.seed}
    match shape:
        case "array":
            artifacts = [
                {"base64": text, "finishReason": order.finish_reason, "seed": seed, "id": id}
                for seed, text in _counted(order.seed, texts)
            ]
            return json_answer(artifacts)
        case "string":
            return json_answer({"id": id, "base64": texts[0], **common})
        case "list":
            return json_answer({"id": id, "base64": texts, **common})
        case "list-prefixed":
            uris = [order.prefix + text for text in texts]
            return json_answer({"id": id, "base64": uris, **common})


def _counted(seed: int, texts: Sequence[str]) -> Iterator[tuple[int, str]]:
    for index, text in enumerate(texts):
        yield seed + index, text


def state_at(
    states: Sequence[KontextState], poll: int, *, done: bool, filtered: bool
) -> KontextState:
    """
    Decide what a poll is told.

    Args:
        states: The plan of the task.
        poll: Counts from 0; beyond the plan its last state holds.
        done: Whether the worker has finished.
        filtered: Whether the prompt has the word that is filtered.
    """
    state = states[min(poll, len(states) - 1)]
    if state == "Ready" and not done:
        return "Pending"
    return "Content Moderated" if state == "Ready" and filtered else state


def runs(states: Sequence[KontextState]) -> bool:
    """
    Tell whether a task with this plan is drawn, and charged.

    Chosen: one that ends in ``Request Moderated`` or ``Error`` is neither;
    ``Content Moderated`` is both, since the picture had to be made to be judged.
    """
    return states[-1] not in {"Request Moderated", "Error"}


_DETAILS: Mapping[KontextState, str] = {
    "Request Moderated": "the prompt or the input image was refused",
    "Content Moderated": "the picture was refused",
    "Error": "the task failed",
}


def poll_answer(id: str, state: KontextState, sample: str | None) -> Answer:
    """Write the answer of ``get_result``; what `details` holds is chosen."""
    reason = _DETAILS.get(state)
    return json_answer(
        {
            "id": id,
            "status": state,
            "result": None if sample is None else {"sample": sample},
            "progress": None,
            "details": None if reason is None else {"reason": reason},
        }
    )


# The older ceiling of requests, and what is told of it.


def rate_headers(limit: int, served: int) -> dict[str, str]:
    """
    Make the headers of an order.

    Args:
        limit: Orders in one window.
        served: Orders served in this window, with this one.
    """
    headers = {
        "x-ratelimit-limit-requests": str(limit),
        "x-ratelimit-remaining-requests": str(max(0, limit - served)),
    }
    if served > limit:
        headers["x-ratelimit-over-limit"] = "yes"
    return headers


def is_far_over(limit: int, served: int) -> bool:
    """Tell whether an order is refused; half as many again is chosen."""
    return served > limit + limit // 2
