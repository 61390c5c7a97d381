"""What stands for an array: a traced value, an array, a number, or a list of these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from ..errors import called, describe, here
from ..tape import Aval, Var, aval_of
from ..tracer import Tracer, aval_or_explain


def type_of(x: Any) -> Aval:
    """The type of an array-like argument. A list is one: it is of the type of the array that an op makes of it.

    Raises:
      TypeError: if it is a string or anything else that is no array.
    """
    if isinstance(x, Var):
        return x.aval
    if type(x) is list or type(x) is tuple:
        return aval_of(Tracer.of_list(x))
    return aval_or_explain(x)


def holds_arrays(a: Sequence[Any]) -> bool:
    """Whether a traced value or an array of JAX's is somewhere in a list."""
    return any(holds_arrays(x) if isinstance(x, (list, tuple)) else isinstance(x, (Tracer, jax.Array)) for x in a)


def from_list(x: Any, dtype: Any = None) -> Any:
    """`x`; a list as an array, one of NumPy's where its numbers are there at once and need no recording."""
    if not isinstance(x, (list, tuple)):
        return x
    return Tracer.of_list(x, dtype) if holds_arrays(x) else np.asarray(x, dtype)


def unsharded(out_sharding: Any) -> None:
    """Raises for an option of `jax.lax` that means nothing on a tape, unless it is `None`."""
    if out_sharding is not None:
        raise NotImplementedError(
            f"{called()}: out_sharding={describe(out_sharding)} {here()}. Leave it out: programs are sharded by "
            "tracegrad.jit(f, in_shardings=..., out_shardings=...)."
        )
