"""Dtypes and constants."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Dtypes and what is known about them: nothing of this is computed on arrays.
from jax.numpy import finfo, iinfo, isdtype, issubdtype, promote_types
from numpy import (
    False_,
    True_,
    complexfloating,
    dtype,
    floating,
    generic,
    inexact,
    integer,
    iterable,
    number,
    signedinteger,
    unsignedinteger,
)

from ..errors import here
from ..ops import inexact_dtype
from ..tape import Var, aval_of
from .creation import asarray


class _ScalarType(type(jnp.float32)):  # type: ignore[misc]
    """What JAX's scalar types are, a dtype to every function that takes one; called, they make an array of it here."""

    def __call__(cls, x: Any) -> Any:
        return asarray(x, cls.dtype)


def _scalar(name: str) -> Any:
    doc = f"The dtype {name}; called, the cast to it."
    members = {"dtype": getattr(jnp, name).dtype, "__module__": __package__, "__doc__": doc}
    return _ScalarType(name, (object,), members)


(
    bfloat16, bool_, complex64, complex128, complex_, float4_e2m1fn, float8_e3m4, float8_e4m3, float8_e4m3b11fnuz,
    float8_e4m3fn, float8_e4m3fnuz, float8_e5m2, float8_e5m2fnuz, float8_e8m0fnu, float16, float32, float64, float_,
    int2, int4, int8, int16, int32, int64, int_, uint, uint2, uint4, uint8, uint16, uint32, uint64,
) = map(_scalar, [
    "bfloat16", "bool_", "complex64", "complex128", "complex_", "float4_e2m1fn", "float8_e3m4", "float8_e4m3",
    "float8_e4m3b11fnuz", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu",
    "float16", "float32", "float64", "float_", "int2", "int4", "int8", "int16", "int32", "int64", "int_", "uint",
    "uint2", "uint4", "uint8", "uint16", "uint32", "uint64"
])  # fmt: skip
bool = bool_
double, single, half, cdouble, csingle = float64, float32, float16, complex128, complex64
byte, short, intc, intp, longlong = int8, int16, int32, int_, int64
ubyte, ushort, uintc, uintp, ulonglong = uint8, uint16, uint32, uint, uint64

e = math.e
euler_gamma = 0.57721566490153286060
inf = math.inf
nan = math.nan
newaxis = None
pi = math.pi


def _type(x: Any) -> Any:
    return x.aval.promoting() if isinstance(x, Var) else x


def result_type(*arrays_and_dtypes: Any) -> Any:
    """The dtype that these arrays, numbers and dtypes have together, by JAX's rules."""
    return jax.dtypes.result_type(*map(_type, arrays_and_dtypes))


def common_type(*arrays: Any) -> Any:
    """The type of floats or complex numbers that holds these arrays together."""
    return inexact_dtype(result_type(*arrays)).type


def can_cast(from_: Any, to: Any, casting: Any = "safe") -> Any:
    """Whether a dtype, or an array of one, casts to another under a rule, as NumPy has them."""
    kind = aval_of(from_).dtype if isinstance(from_, (Var, jax.Array)) else from_
    kind = kind.dtype if isinstance(kind, (np.ndarray, np.generic)) else kind
    return np.can_cast(np.dtype(kind), np.dtype(to), casting=casting)


__array_api_version__ = "2024.12"
"""The version of the array API standard (https://data-apis.org/array-api) whose names are here."""


def __array_namespace_info__() -> Any:
    """What the array API standard asks a namespace to tell of itself."""
    return jnp.__array_namespace_info__()


class _ArrayType(type):
    def __instancecheck__(cls, instance: Any) -> Any:
        return isinstance(instance, (jax.Array, Var))


class ndarray(metaclass=_ArrayType):
    """What arrays are: `isinstance(x, ndarray)` holds for arrays of JAX and for traced values. It makes none."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(f"ndarray makes no arrays {here()}. Use tracegrad.numpy.zeros or asarray.")


def isscalar(element: Any) -> Any:
    """Whether it is a number, or an array without axes."""
    return not element.aval.shape if isinstance(element, Var) else jnp.isscalar(element)


__all__ = [
    "False_", "True_", "__array_api_version__", "__array_namespace_info__", "bfloat16", "bool", "bool_", "byte",
    "can_cast", "cdouble", "common_type", "complex128", "complex64", "complex_", "complexfloating", "csingle", "double",
    "dtype", "e", "euler_gamma", "finfo", "float16", "float32", "float4_e2m1fn", "float64", "float8_e3m4",
    "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz",
    "float8_e8m0fnu", "float_", "floating", "generic", "half", "iinfo", "inexact", "inf", "int16", "int2", "int32",
    "int4", "int64", "int8", "int_", "intc", "integer", "intp", "isdtype", "isscalar", "issubdtype", "iterable",
    "longlong", "nan", "ndarray", "newaxis", "number", "pi", "promote_types", "result_type", "short", "signedinteger",
    "single", "ubyte", "uint", "uint16", "uint2", "uint32", "uint4", "uint64", "uint8", "uintc", "uintp", "ulonglong",
    "unsignedinteger", "ushort",
]  # fmt: skip
