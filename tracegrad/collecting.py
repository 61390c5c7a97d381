"""Python's garbage collector, kept from searching through tapes while they grow. Uses nothing of the package."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_NEVER = 1_000_000


@contextmanager
def long_lived() -> Iterator[None]:
    """Pauses cyclic garbage collection while our own code makes many objects that all stay."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextmanager
def no_full_collections() -> Iterator[None]:
    """Puts off garbage collections of the oldest generation, for code that makes many objects that stay a while.

    A tape that grows to 100,000 nodes would otherwise be searched for garbage many times over. The young
    generations are collected as ever.
    """
    young, middle, old = gc.get_threshold()
    if old >= _NEVER:
        yield
        return
    gc.set_threshold(young, middle, _NEVER)
    try:
        yield
    finally:
        gc.set_threshold(young, middle, old)
