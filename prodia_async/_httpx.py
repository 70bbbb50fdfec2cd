"""
httpx, without its command line.

`import httpx` also imports httpx's own command line wherever click, rich and
pygments happen to be installed, and then every program pays for rich (some 40
ms). Nothing here needs it, so it is left out; a program that imported httpx
before keeps what it has.
"""

from __future__ import annotations

import sys
from typing import Any

_COMMAND_LINE = "httpx._main"


def hide(modules: dict[str, Any]) -> None:
    """Have an import of httpx's command line fail, as httpx expects it to where rich is missing."""
    modules.setdefault(_COMMAND_LINE, None)


def show(modules: dict[str, Any]) -> None:
    """Undo `hide`."""
    if modules.get(_COMMAND_LINE, ...) is None:
        del modules[_COMMAND_LINE]


hide(sys.modules)
import httpx  # noqa: E402  (the whole point)

show(sys.modules)

__all__ = ["httpx"]
