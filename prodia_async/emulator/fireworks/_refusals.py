"""How the second API says no."""

from __future__ import annotations

from dataclasses import dataclass

from .._refusals import Refused, phrase


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a body: the field (empty for the whole), why, and its kind."""

    name: str
    text: str
    kind: str = "value_error"

    def __str__(self) -> str:
        return f"{self.name}: {self.text}" if self.name else self.text


class Invalid(Refused):
    """
    The body or a header of it is wrong: 400 or 422, whichever the behaviour says.

    Attributes:
        problems: At least one.
    """

    def __init__(self, *problems: Problem) -> None:
        super().__init__(400, "; ".join(map(str, problems)))
        self.problems = problems


TEXTS = {
    401: "the API key is missing or invalid",
    402: "payment method or usage limit: the account cannot be charged",
    403: "no access to this model",
    404: "model not found, inaccessible, or not deployed",
    408: "the request took too long",
    412: "the account is suspended, or a LoRA adapter failed to load",
    413: "the request body is too large",
    429: "no idle capacity",
    503: "the service is overloaded",
}
"""Messages by status (chosen; their meanings are documented)."""


def refusal(status: int, text: str | None = None) -> Refused:
    """Make a refusal in the usual words of its status."""
    return Refused(status, text or TEXTS.get(status) or phrase(status))
