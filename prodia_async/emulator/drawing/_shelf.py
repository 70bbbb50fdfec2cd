"""What was made last, kept up to a number of bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable

Value = TypeVar("Value")


class Shelf(Generic[Value]):
    """What was used last, up to a number of bytes; safe from any thread."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._lock = threading.Lock()
        self._items: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()

    def get(self, key: Hashable) -> Value | None:
        """Find a value; ``None`` if it is not kept."""
        with self._lock:
            found = self._items.get(key)
            if found is None:
                return None
            self._items.move_to_end(key)
            return found[0]

    def put(self, key: Hashable, value: Value, size: int) -> None:
        """Keep a value of `size` bytes, at the price of those used longest ago."""
        with self._lock:
            if key in self._items:
                return
            self._items[key] = value, size
            self._bytes += size
            while self._bytes > self._max_bytes:
                _, (_, freed) = self._items.popitem(last=False)
                self._bytes -= freed
