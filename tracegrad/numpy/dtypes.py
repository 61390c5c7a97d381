"""Dtypes and constants."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from ..tape import Var

e = math.e
euler_gamma = 0.57721566490153286060
inf = math.inf
nan = math.nan
newaxis = None
pi = math.pi


def _type(x: Any) -> Any:
    return x.aval.struct() if isinstance(x, Var) else x


def result_type(*arrays_and_dtypes: Any) -> Any:
    """The dtype that these arrays, numbers and dtypes have together, by JAX's rules."""
    return jax.dtypes.result_type(*map(_type, arrays_and_dtypes))


def can_cast(from_: Any, to: Any, casting: Any = "safe") -> Any:
    """Whether a dtype, or an array of one, casts to another under a rule, as NumPy has them."""
    kind = getattr(from_, "dtype", from_)
    return jnp.can_cast(kind, to, casting=casting)


def __array_namespace_info__() -> Any:
    """What the array API standard asks a namespace to tell of itself."""
    return jnp.__array_namespace_info__()


__all__ = [
    "__array_namespace_info__", "can_cast", "e", "euler_gamma", "inf", "nan", "newaxis", "pi", "result_type",
]  # fmt: skip
