"""The pytest plugin: found by its entry point, and light until the fixture is asked for."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

    from ._fixture import ProdiaFixture


@pytest.fixture
def prodia(monkeypatch: pytest.MonkeyPatch) -> Generator[ProdiaFixture, None, None]:
    """Return an emulator of its own with a client; no waiting takes any time."""
    from ._fixture import ProdiaFixture  # noqa: PLC0415  (not before it is asked for)

    with ProdiaFixture() as fixture:
        monkeypatch.setenv("PRODIA_TOKEN", fixture.token)
        monkeypatch.setenv("PRODIA_BASE_URL", fixture.base_url)
        yield fixture


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Close the client in the loop of the async test that used it."""
    fixture = getattr(item, "funcargs", {}).get("prodia")
    test = getattr(item, "obj", None)
    if fixture is None or not inspect.iscoroutinefunction(test):
        yield
        return

    @functools.wraps(test)
    async def closing(*args: Any, **kwargs: Any) -> Any:
        try:
            return await test(*args, **kwargs)
        finally:
            await fixture.client.aclose()

    item.obj = closing  # type: ignore[attr-defined]  # a Function has it
    try:
        yield
    finally:
        item.obj = test  # type: ignore[attr-defined]
