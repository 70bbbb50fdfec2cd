"""The one way to say no: an exception that carries the answer."""

from __future__ import annotations

from http import HTTPStatus

TEXTS = {
    401: "token is invalid",
    413: "request entity too large",
    429: "no idle capacity",
}
"""
Bodies by status. That of 401 is documented by the service's own tests; of the
others only the status is, and the words are chosen.
"""


class Refused(Exception):  # noqa: N818  # it is an answer, not a fault of the emulator
    """
    The request is answered with an error status, and no work is done.

    Attributes:
        status: The HTTP status.
        text: What is wrong, in the documented words where they are known.
        as_job: Whether the body is a failed job result in the negotiated form
            (documented for 400) rather than plain text.
    """

    def __init__(self, status: int, text: str, *, as_job: bool = False) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.as_job = as_job


def bad_request(text: str) -> Refused:
    """Make the 400 whose body is a failed job result."""
    return Refused(400, text, as_job=True)


def phrase(status: int) -> str:
    """Return what a status is called; of one that nobody knows that it was planned."""
    try:
        return HTTPStatus(status).phrase.lower()
    except ValueError:
        return "planned reply"
