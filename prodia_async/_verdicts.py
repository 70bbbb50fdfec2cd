"""
What an attempt says, in plain functions: what became of the job, what of the server, how far.

And what an error must not keep: the answer it was found in.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from ._errors import APIStatusError, JobFailedError, ProdiaError, Stage

if TYPE_CHECKING:
    from types import TracebackType

    from ._admission import Reason, Trouble
    from ._attempts import Fate
    from ._wire import Sending


def fate_of(error: BaseException | None, *, answered: bool, sent: bool, own: bool = True) -> Fate:
    """
    Tell what an attempt came to.

    Args:
        error: What it ended with; ``None`` for nothing.
        answered: Whether an answer of success had begun: then the job ran.
        sent: Whether the server may have the whole request.
        own: Whether the error is this request's, rather than its reader's.
    """
    if answered:
        return "succeeded" if error is None or not own else "ran"
    if isinstance(error, ProdiaError):
        return error.fate
    if sent:
        # Cut off from outside, by a deadline or by whoever waited for it; or the caller's own
        # error, of a hook that was shown the response.
        return "uncertain"
    # The caller's own as well: a token function, an input that cannot be read.
    return "refused" if isinstance(error, Exception) else "undelivered"


def trouble_of(fate: Fate, status_code: int | None) -> Trouble | None:
    """Tell what an attempt says of the server: that it does not work, or not for us."""
    if status_code in {401, 403}:
        return "unauthorized"
    if fate in {"server fault", "uncertain"}:
        return "fault"
    return "unreachable" if fate == "undelivered" else None


WHY_HELD: dict[Reason, str] = {
    "capacity": "the server had no capacity for this type",
    "fault": "the server met job after job with a fault",
    "unreachable": "nobody listens at the server's address",
    "unauthorized": "the server takes none with this credential",
}
"""Why nothing was sent, in a sentence."""

STAGES: dict[Stage, str] = {
    "queued": "it was waiting for a slot and not with the server",
    "refused": "the server had no capacity for it, and it was not with the server",
    "connecting": "it was connecting, and not with the server",
    "sending": "it was being sent, and not yet with the server",
    "running": "it was with the server",
    "reading": "it was with the server, and its answer had begun",
}
"""How far a job had come, in a sentence."""


def stage_of_attempt(sending: Sending, *, answered: bool) -> Stage:
    """Tell how far an attempt had come that was cut off."""
    if answered:
        return "reading"
    if sending.may_have_run:
        return "running"
    return sending.stage


def status_of(error: BaseException | None) -> int | None:
    return error.status_code if isinstance(error, APIStatusError | JobFailedError) else None


# Whose frames may hold an answer; a caller's own are none of our business.
_OURS = frozenset({"prodia_async", "httpx", "httpcore", "h11", "tenacity"})


def forget_locals(error: BaseException) -> None:
    """
    Clear the variables of our functions that an error passed through.

    A collection of failures would keep each of their answers alive by its
    traceback. The lines stay.
    """
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        traceback: TracebackType | None = each.__traceback__
        while traceback is not None:
            frame, traceback = traceback.tb_frame, traceback.tb_next
            if str(frame.f_globals.get("__name__")).partition(".")[0] in _OURS:
                with contextlib.suppress(RuntimeError):  # it is still at work
                    frame.clear()
        each = each.__cause__ or each.__context__
