"""
httpx, without its command line.

`import httpx` also imports httpx's own command line wherever click, rich and
pygments happen to be installed, and then every program pays for rich (some 40
ms). Nothing here needs it, so it is left out; a program that imported httpx
before keeps what it has.
"""

from __future__ import annotations

import sys

_COMMAND_LINE = "httpx._main"

if "httpx" not in sys.modules:
    # The documented way to have an import fail, which httpx expects of this one.
    sys.modules[_COMMAND_LINE] = None  # type: ignore[assignment]

import httpx  # noqa: E402  (the whole point)

if sys.modules.get(_COMMAND_LINE, ...) is None:
    del sys.modules[_COMMAND_LINE]

__all__ = ["httpx"]
