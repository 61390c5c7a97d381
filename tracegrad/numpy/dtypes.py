"""Dtypes and constants."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

# Dtypes and what is known about them: nothing of this is computed on arrays.
from jax.numpy import (
    bfloat16,
    bool_,
    complex64,
    complex128,
    complex_,
    finfo,
    float16,
    float32,
    float64,
    float_,
    iinfo,
    int8,
    int16,
    int32,
    int64,
    int_,
    isdtype,
    issubdtype,
    promote_types,
    uint,
    uint8,
    uint16,
    uint32,
    uint64,
)
from numpy import (
    bool,
    complexfloating,
    dtype,
    floating,
    generic,
    inexact,
    integer,
    number,
    signedinteger,
    unsignedinteger,
)

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
    "__array_namespace_info__", "bfloat16", "bool", "bool_", "can_cast", "complex128", "complex64", "complex_",
    "complexfloating", "dtype", "e", "euler_gamma", "finfo", "float16", "float32", "float64", "float_",
    "floating", "generic", "iinfo", "inexact", "inf", "int16", "int32", "int64", "int8", "int_", "integer",
    "isdtype", "issubdtype", "nan", "newaxis", "number", "pi", "promote_types", "result_type", "signedinteger",
    "uint", "uint16", "uint32", "uint64", "uint8", "unsignedinteger",
]  # fmt: skip
