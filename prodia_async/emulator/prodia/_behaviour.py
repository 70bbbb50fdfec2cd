"""Which of several known or supposed behaviours the emulator shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Words = Literal["async", "sync"] | Mapping[str, str]
"""
How ``processing``, ``processed`` and ``failed`` are called: ``async`` as they
are, ``sync`` with ``completed`` for ``processed``, or a mapping from them to
any other words.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """
    What the service does where the documents are silent, contradict each other or changed.

    The defaults follow the newest documents. All of it may be changed while
    the emulator runs: `Emulator.behave`.
    """

    expires_after: float = 300.0
    """
    Seconds from a job's creation to its ``expires_at``, after which reads of an async job
    answer 404. Source of 300: two live results of 2026; the documents of 2025 have 60.
    """
    unknown_type_status: Literal[400, 429] = 400
    """
    Answer to a job type that nobody knows, or none at all. Live tests of January 2025 got a
    429.
    """
    error_in_history: bool = False
    """
    Tell why a job failed in ``state.history[].message`` alone, as in early 2025, rather than in
    ``error``.
    """
    failure_status: Literal[200, 400] = 400
    """
    Answer to a sync job that a worker ran and that ended ``failed`` (a tripped moderation, no
    face found, `Emulator.fail_jobs`). A 400 is not charged, a 200 is; neither is documented.
    """
    moderation: float | None = None
    """
    The score that a moderation gives every picture, 0 to 1; ``None``: 0.99 when the prompt that
    made it has the word ``nsfw``, else 0.01. A score from the threshold on trips it.
    """
    strict_filenames: bool = True
    """
    Refuse inputs of one name, as documented; else they do no harm unless the configuration
    names them (live in 2024, when the official JavaScript package sent them so).
    """
    strict_schemas: bool = False
    """
    Look at a configuration as it came. Else the values of `JobType.before` are filled in first:
    read strictly, a Veo job without a resolution is invalid, which nobody can have meant.
    """
    accept_unknown_types: bool = False
    """
    Run job types that nobody knows, and configurations of any members, as what the operation in
    their name says (``txt2img``, ``img2vid``, ``txt2vec``), with any number of inputs.
    """
    film_bytes: int | None = None
    """
    The size of every film; ``None``: a few kilobytes. A prompt with ``[30 MB]`` in it has its
    own. The film is written while it is sent, so its size costs no memory.
    """
    clamp_encoder: bool = False
    """
    Take the nearest encoder parameter for one out of range, and ignore those nobody knows,
    rather than answer 400. Not documented.
    """
    price_null: bool = False
    """
    Send ``"price": null`` when a price was asked for, as for a product without one. One
    client's schema allows it.
    """
    poster: bool = False
    """
    Add the film's first frame, ``poster.jpg``, to the output of the video types. The documents
    show the film alone.
    """
    state_words: Words = "async"
    """The vocabulary of ``job.state.current``; documented: ``async``."""
    job_state_words: Words = "async"
    """
    The vocabulary of ``state.current`` in the ``job.json`` of async jobs; one client expects
    ``async``, no document says.
    """
    quoted_state: bool = False
    """Send ``job.state.current`` as a JSON string, in quotes."""
    listing: Callable[[Sequence[str]], Any] | None = None
    """
    Makes the body of an output listing from the real names: anything that JSON can say, or
    bytes that are sent as they stand.
    """

    def __post_init__(self) -> None:
        if self.expires_after < 0:
            raise ValueError(f"expires_after must be 0 or more, not {self.expires_after}")
        if self.unknown_type_status not in {400, 429}:
            raise ValueError(f"unknown_type_status is 400 or 429, not {self.unknown_type_status}")
        if self.failure_status not in {200, 400}:
            raise ValueError(f"failure_status is 200 or 400, not {self.failure_status}")
        if self.film_bytes is not None and self.film_bytes < 1:
            raise ValueError(f"film_bytes must be 1 or more, not {self.film_bytes}")
        for words in (self.state_words, self.job_state_words):
            if isinstance(words, str) and words not in {"async", "sync"}:
                raise ValueError(f"a vocabulary is 'async', 'sync' or a mapping, not {words!r}")

    @classmethod
    def early_2025(cls) -> Behaviour:
        """Make what was seen in early 2025: 429 for unknown types, 60 s, errors in the history."""
        return cls(
            expires_after=60.0,
            unknown_type_status=429,
            error_in_history=True,
            strict_filenames=False,
        )


def word(words: Words, state: str) -> str:
    """Say a state (``processing``, ``processed``, ``failed``) in one of the vocabularies."""
    if isinstance(words, str):
        return "completed" if words == "sync" and state == "processed" else state
    return words.get(state, state)
