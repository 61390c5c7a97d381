"""Dtypes and constants."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.numpy import (  # dtypes and what is known about them: nothing of this is computed on arrays
    bfloat16 as bfloat16,
)
from jax.numpy import (
    bool_ as bool_,
)
from jax.numpy import (
    complex64 as complex64,
)
from jax.numpy import (
    complex128 as complex128,
)
from jax.numpy import (
    complex_ as complex_,
)
from jax.numpy import (
    finfo as finfo,
)
from jax.numpy import (
    float16 as float16,
)
from jax.numpy import (
    float32 as float32,
)
from jax.numpy import (
    float64 as float64,
)
from jax.numpy import (
    float_ as float_,
)
from jax.numpy import (
    iinfo as iinfo,
)
from jax.numpy import (
    int8 as int8,
)
from jax.numpy import (
    int16 as int16,
)
from jax.numpy import (
    int32 as int32,
)
from jax.numpy import (
    int64 as int64,
)
from jax.numpy import (
    int_ as int_,
)
from jax.numpy import (
    isdtype as isdtype,
)
from jax.numpy import (
    issubdtype as issubdtype,
)
from jax.numpy import (
    promote_types as promote_types,
)
from jax.numpy import (
    uint as uint,
)
from jax.numpy import (
    uint8 as uint8,
)
from jax.numpy import (
    uint16 as uint16,
)
from jax.numpy import (
    uint32 as uint32,
)
from jax.numpy import (
    uint64 as uint64,
)
from numpy import (
    bool as bool,
)
from numpy import (
    complexfloating as complexfloating,
)
from numpy import (
    dtype as dtype,
)
from numpy import (
    floating as floating,
)
from numpy import (
    generic as generic,
)
from numpy import (
    inexact as inexact,
)
from numpy import (
    integer as integer,
)
from numpy import (
    number as number,
)
from numpy import (
    signedinteger as signedinteger,
)
from numpy import (
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


def can_cast(from_: Any, to: Any, casting: Any = "safe") -> Any:
    """Whether a dtype, or an array of one, casts to another under a rule, as NumPy has them."""
    kind = getattr(from_, "dtype", from_)
    return jnp.can_cast(kind, to, casting=casting)


def __array_namespace_info__() -> Any:
    """What the array API standard asks a namespace to tell of itself."""
    return jnp.__array_namespace_info__()


__all__ = [
    "__array_namespace_info__", "bfloat16", "bool", "bool_", "can_cast", "complex128", "complex64", "complex_",
    "complexfloating", "dtype", "e", "euler_gamma", "finfo", "float16", "float32", "float64", "float_", "floating",
    "generic", "iinfo", "inexact", "inf", "int16", "int32", "int64", "int8", "int_", "integer", "isdtype",
    "issubdtype", "nan", "newaxis", "number", "pi", "promote_types", "result_type", "signedinteger", "uint",
    "uint16", "uint32", "uint64", "uint8", "unsignedinteger",
]  # fmt: skip
