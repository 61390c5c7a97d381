"""Dtypes and constants."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.numpy import (  # dtypes and what is known about them: nothing of this is computed on arrays
    bfloat16 as bfloat16,
    bool_ as bool_,
    complex64 as complex64,
    complex128 as complex128,
    finfo as finfo,
    float16 as float16,
    float32 as float32,
    float64 as float64,
    iinfo as iinfo,
    int8 as int8,
    int16 as int16,
    int32 as int32,
    int64 as int64,
    isdtype as isdtype,
    issubdtype as issubdtype,
    promote_types as promote_types,
    uint8 as uint8,
    uint16 as uint16,
    uint32 as uint32,
    uint64 as uint64,
)
from numpy import (
    bool as bool,
    complexfloating as complexfloating,
    dtype as dtype,
    floating as floating,
    generic as generic,
    inexact as inexact,
    integer as integer,
    number as number,
    signedinteger as signedinteger,
    unsignedinteger as unsignedinteger,
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


def can_cast(from_: Any, to: Any, casting: Any = "safe") -> bool:
    """Whether a dtype, or an array of one, casts to another under a rule, as NumPy has them."""
    kind = getattr(from_, "dtype", from_)
    return jnp.can_cast(kind, to, casting=casting)  # type: ignore[no-any-return]


def __array_namespace_info__() -> Any:
    """What the array API standard asks a namespace to tell of itself."""
    return jnp.__array_namespace_info__()


_ = np
