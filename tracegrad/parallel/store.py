"""The key-value store of JAX's coordination service: texts that processes leave there for each other."""

from __future__ import annotations

from typing import Any

import jax
from jax._src import distributed  # The store has no public name.


def store() -> Any:
    """The store; `None` in a process that has no others."""
    return distributed.global_state.client


def turn(what: str, process: int) -> int:
    """How often this process asked here: the same number in all. The store counts, so that nothing here does."""
    return int(store().key_value_increment(f"tracegrad/{what}/{process}", 1))


def read(key: str, seconds: float) -> str | None:
    """What another process puts there; `None` if it does not in time."""
    try:
        return str(store().blocking_key_value_get(key, max(int(1000 * seconds), 1)))
    except jax.errors.JaxRuntimeError as error:
        if "DEADLINE_EXCEEDED" in str(error) or "NOT_FOUND" in str(error):
            return None
        raise


__all__ = ["read", "store", "turn"]
