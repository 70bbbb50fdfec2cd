"""Which of several documented or supposed behaviours the second API shows, and its faults."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

JsonShape = Literal["list-prefixed", "list", "string", "array"]
"""
How the JSON form of a result looks.

``list-prefixed``: an object whose ``base64`` is a list of data URIs; ``list``:
the same without the prefix; ``string``: an object whose ``base64`` is one bare
string, that of the first picture; ``array``: an array of objects, one for each
picture, each with a bare string.
"""

KontextState = Literal[
    "Task not found", "Pending", "Request Moderated", "Content Moderated", "Ready", "Error"
]
"""The six documented values of ``status``."""

KontextSample = Literal["url", "base64", "data-uri", "gone"]
"""What ``result.sample`` is; ``gone`` is a URL that answers 404."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FireworksBehaviour:
    """
    How the second API behaves where its documents leave it open, and its faults.

    Raises:
        ValueError: A value that is not one of those above.
    """

    missing_key_status: Literal[401, 404] = 401
    """
    What a missing or unknown key gets on a workflow path: the documented 401, or the 404 that a
    probe was given. The older path always answers 401.
    """
    validation_status: Literal[400, 422] = 400
    """400 with an ``error`` object, or 422 with ``detail``."""
    json_shape: JsonShape | None = None
    """``None`` is ``list-prefixed`` on workflow paths and ``array`` on the older path."""
    doubled_path: bool = False
    """Also answer at ``.../models/accounts/fireworks/models/{model}/text_to_image``."""
    flux_on_image_generation: bool = True
    """
    Let the older path take the flux models, as an older page of the reference has it; a newer
    client sends none there.
    """
    filter_word: str = "[filtered]"
    """
    A prompt that contains it is filtered if the order has ``safety_check``: status 200, a black
    picture. Kontext, which has no such field, ends in ``Content Moderated`` where it would be
    ``Ready``.
    """
    always_check_safety: bool = False
    """
    Filter without ``safety_check`` too; its default is said to be off, in one capture of three.
    """
    busy_status: Literal[429, 503] = 429
    """
    What an order gets that finds no idle worker. Only a 429 carries the emulator's
    `retry_after`.
    """
    rate_limit: int | None = None
    """
    Orders served in `rate_window`; ``None`` for no limit and no headers. Up to half as many
    again are served with ``x-ratelimit-over-limit: yes``, later ones refused with 429 (the half
    is chosen; "far over" is documented).
    """
    rate_window: float = 60.0
    """Seconds (documented: a minute)."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Further headers of every answer, as they stand."""
    kontext_states: Sequence[KontextState] = ("Pending", "Ready")
    """
    What successive polls of one task are told; the last one is repeated. ``Ready`` is told as
    ``Pending`` until the worker is done. A task keeps the plan it was submitted under.
    """
    kontext_sample: KontextSample = "url"
    """What ``result.sample`` is."""
    shrink: int = 1
    """
    Both sides of every picture are divided by it, and above 1 a picture is soft spots of colour
    rather than a scene, so that hundreds can be made quickly; still by prompt and seed alone.
    """

    def __post_init__(self) -> None:
        for name, allowed in (
            ("missing_key_status", (401, 404)),
            ("validation_status", (400, 422)),
            ("json_shape", (None, *get_args(JsonShape))),
            ("busy_status", (429, 503)),
            ("kontext_sample", get_args(KontextSample)),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, not {getattr(self, name)!r}")
        known = get_args(KontextState)
        if isinstance(self.kontext_states, str) or not self.kontext_states:
            raise ValueError("kontext_states must be a sequence of at least one state")
        for state in self.kontext_states:
            if state not in known:
                raise ValueError(f"kontext_states must be some of {known}, not {state!r}")
        if not self.filter_word:
            raise ValueError("filter_word must not be empty: every prompt would be filtered")
        if self.rate_limit is not None and self.rate_limit < 1:
            raise ValueError(f"rate_limit must be 1 or more, not {self.rate_limit}")
        if self.shrink < 1:
            raise ValueError(f"shrink must be 1 or more, not {self.shrink}")
