"""httpx without its command line."""

from __future__ import annotations

from typing import Any

from prodia_async._httpx import hide, show


def test_what_is_hidden_is_shown_again() -> None:
    """Nothing is left behind, and a module that was there before stays."""
    fresh: dict[str, Any] = {}
    hide(fresh)
    assert fresh == {"httpx._main": None}
    show(fresh)
    assert fresh == {}
    loaded = {"httpx._main": "module"}
    hide(loaded)
    show(loaded)
    assert loaded == {"httpx._main": "module"}
