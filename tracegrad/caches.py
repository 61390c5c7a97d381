"""Caches: what was made once is found again, within bounds, from any thread. Uses nothing of the package."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any


class Cache(OrderedDict[Any, Any]):
    """What was made for each of the last `size` keys.

    Looking up is that of a dictionary. Two threads may make the same thing at once: then the later one's stays.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        # A key may compare by code of ours, which may be interrupted; the same thread may then come back here.
        self.lock = threading.RLock()

    def keep(self, key: Any, value: Any) -> Any:
        """`value`, kept until `size` others are; the oldest goes first."""
        with self.lock:
            self[key] = value
            self.move_to_end(key)
            while len(self) > self.size:
                self.popitem(last=False)
        return value

    def use(self, key: Any) -> Any:
        """What is kept for this key, if anything is, as if it had been made only now."""
        with self.lock:
            value = self.get(key)
            if value is not None:
                self.move_to_end(key)
        return value


class Nothing(dict[Any, Any]):
    """Where nothing is kept, since finding it would cost more than making it."""

    def get(self, key: Any, default: Any = None) -> Any:
        return default

    def keep(self, key: Any, value: Any) -> Any:
        return value
