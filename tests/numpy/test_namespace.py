"""Every name of `jax.numpy` and of the array API standard is there, or is not for a reason; so are its parameters."""

from __future__ import annotations

import inspect
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tracegrad.op import Op

STANDARD = [
    "__array_namespace_info__", "abs", "acos", "acosh", "add", "all", "any", "arange", "argmax", "argmin", "argsort",
    "asarray", "asin", "asinh", "astype", "atan", "atan2", "atanh", "bitwise_and", "bitwise_invert",
    "bitwise_left_shift", "bitwise_or", "bitwise_right_shift", "bitwise_xor", "bool", "broadcast_arrays",
    "broadcast_to", "can_cast", "ceil", "clip", "complex128", "complex64", "concat", "conj", "copysign", "cos", "cosh",
    "count_nonzero", "cumulative_prod", "cumulative_sum", "diff", "divide", "e", "empty", "empty_like", "equal", "exp",
    "expand_dims", "expm1", "eye", "fft", "finfo", "flip", "float32", "float64", "floor", "floor_divide", "from_dlpack",
    "full", "full_like", "greater", "greater_equal", "hypot", "iinfo", "imag", "inf", "int16", "int32", "int64", "int8",
    "isdtype", "isfinite", "isinf", "isnan", "less", "less_equal", "linalg", "linspace", "log", "log10", "log1p",
    "log2", "logaddexp", "logical_and", "logical_not", "logical_or", "logical_xor", "matmul", "matrix_transpose", "max",
    "maximum", "mean", "meshgrid", "min", "minimum", "moveaxis", "multiply", "nan", "negative", "newaxis", "nextafter",
    "nonzero", "not_equal", "ones", "ones_like", "permute_dims", "pi", "positive", "pow", "prod", "real", "reciprocal",
    "remainder", "repeat", "reshape", "result_type", "roll", "round", "searchsorted", "sign", "signbit", "sin", "sinh",
    "sort", "sqrt", "square", "squeeze", "stack", "std", "subtract", "sum", "take", "take_along_axis", "tan", "tanh",
    "tensordot", "tile", "tril", "triu", "trunc", "uint16", "uint32", "uint64", "uint8", "unique_all", "unique_counts",
    "unique_inverse", "unique_values", "unstack", "var", "vecdot", "where", "zeros", "zeros_like",
]  # fmt: skip
"""The main namespace of https://data-apis.org/array-api/2024.12."""

_TEXT = "prints an array: NumPy's takes our values as they are"
_FILES = "reads or writes files: use numpy's, and asarray"
_NARROW = "XLA does not compute with it"
_OBJECTS = "arrays hold numbers, not Python objects or text"

NOT_PROVIDED = {
    "ComplexWarning": "no such warning is given",
    "array_repr": _TEXT,
    "array_str": _TEXT,
    "character": _OBJECTS,
    "flexible": _OBJECTS,
    "float6_e2m3fn": _NARROW,
    "float6_e3m2fn": _NARROW,
    "fromfile": _FILES,
    "fromiter": "takes Python objects one by one: use asarray(list(...))",
    "frompyfunc": "makes a ufunc; vectorize maps any function",
    "get_printoptions": _TEXT,
    "int1": "one bit: use bool",
    "load": _FILES,
    "object_": _OBJECTS,
    "printoptions": _TEXT,
    "save": _FILES,
    "savez": _FILES,
    "set_printoptions": _TEXT,
    "uint1": _NARROW,
    "ufunc": "elementwise functions are ops or functions: sum, prod, cumsum, x.at[i].add(y) and x[:, None] stand for "
    "reduce, accumulate, at and outer; NumPy's own np.add.reduce(x) works on traced values",
}


_HOST = "about NumPy's own arrays in memory: ours have no buffer, order or writable elements"
_IN_PLACE = "changes its argument, and arrays never change: x.at[...].set, or where"
_DATES = "XLA has no dates"
_FLOATS = "says what NumPy does at a floating point error, and XLA has none"
_PLATFORM = "its width differs from platform to platform: int32, int64, ..."
_MODULE = "not of functions of arrays: NumPy's own"
_CLASS = "a class of NumPy's own arrays"

_OF_NUMPY = {
    _TEXT: "array2string base_repr binary_repr format_float_positional format_float_scientific typename info",
    _FILES: "fromregex genfromtxt loadtxt memmap savetxt savez_compressed",
    _OBJECTS: "bytes_ str_ void typecodes sctypeDict ScalarType mintypecode",
    _DATES: "busday_count busday_offset busdaycalendar datetime64 datetime_as_string datetime_data is_busday isnat "
    "timedelta64",
    _FLOATS: "errstate geterr geterrcall getbufsize setbufsize seterr seterrcall",
    _HOST: "flatiter isfortran may_share_memory nditer nested_iters require shares_memory little_endian broadcast",
    _IN_PLACE: "copyto putmask",
    _CLASS: "asmatrix bmat matrix recarray record poly1d",
    _PLATFORM: "long ulong longdouble clongdouble float128 complex256 float96 complex192",
    _MODULE: "char core ctypeslib emath exceptions f2py get_include lib ma random rec show_config show_runtime strings "
    "test testing typing",
    "depends on a value, and dtypes do not: result_type": "min_scalar_type",
}
NOT_PROVIDED_OF_NUMPY = {name: reason for reason, names in _OF_NUMPY.items() for name in names.split()}
"""Names of NumPy's that `jax.numpy` lacks too."""


def jax_names() -> list[str]:
    return [name for name in dir(jnp) if not name.startswith("_")]


@pytest.mark.parametrize("names", [jax_names(), STANDARD], ids=["jax.numpy", "standard"])
def test_every_name_is_there_or_has_a_reason(names: list[str]) -> None:
    assert len(names) > 100
    missing = {name for name in names if not hasattr(tnp, name)}
    assert sorted(missing - NOT_PROVIDED.keys()) == []


def test_every_name_of_numpys_is_there_or_has_a_reason() -> None:
    missing = {name for name in dir(np) if not name.startswith("_") and not hasattr(tnp, name)}
    assert sorted(missing - NOT_PROVIDED.keys() - NOT_PROVIDED_OF_NUMPY.keys()) == []
    assert sorted(name for name in NOT_PROVIDED_OF_NUMPY if hasattr(tnp, name)) == []
    for space in ("linalg", "fft"):
        functions = set(getattr(np, space).__all__) - {"LinAlgError"}  # what cannot be solved is NaN here
        assert not [name for name in functions if not hasattr(getattr(tnp, space), name)]


def test_reasons_are_of_what_is_missing() -> None:
    assert sorted(name for name in NOT_PROVIDED if hasattr(tnp, name)) == []
    assert NOT_PROVIDED.keys() <= set(jax_names())


def test_the_namespace_tells_of_itself() -> None:
    assert tnp.__array_api_version__ == "2024.12"
    spaces: list[Any] = []
    tg.grad(lambda x: (spaces.append(x.__array_namespace__(api_version="2024.12")), x)[1])(1.0)
    assert spaces == [tnp]
    assert tnp.__array_namespace_info__().default_dtypes()["real floating"] == np.float32


# -- parameters

ANYWHERE = {
    "out_sharding": "programs are sharded by jit(in_shardings=..., out_shardings=...)",
    "_dot_general": "private",
    "interpolation": "gone from NumPy: it is method=",
}
"""Parameters of `jax.numpy` that no function has."""

PARAMETERS = {
    "take_along_axis": {"wrap_negative_indices"},
    "logical_and": {"out", "where"}, "logical_or": {"out", "where"}, "logical_xor": {"out", "where"},
}  # fmt: skip
"""Those that one function does not have: a detail of JAX's indexing, and arguments of ufuncs that JAX takes as None."""

BY_POSITION = {"fmax", "fmin", "gcd", "i0", "lcm", "trunc"}
"""Ops, which take their operands by position; in `jax.numpy` these may be named."""


def signature(function: Any) -> dict[str, Any]:
    return dict(inspect.signature(function).parameters)


def functions() -> list[str]:
    found = []
    for name in jax_names():
        theirs, ours = getattr(jnp, name), getattr(tnp, name, None)
        if ours is not None and callable(theirs) and not isinstance(theirs, type) and not isinstance(theirs, np.dtype):
            try:
                inspect.signature(theirs), inspect.signature(ours)
            except (TypeError, ValueError):
                continue
            if not isinstance(getattr(theirs, "dtype", None), np.dtype):
                found.append(name)
    return found


def test_parameters() -> None:
    names = functions()
    assert len(names) > 300
    wrong = {}
    for name in names:
        theirs, ours = signature(getattr(jnp, name)), getattr(tnp, name)
        kind = inspect.Parameter
        if isinstance(ours, Op):
            if isinstance(getattr(jnp, name), jnp.ufunc):
                continue
            operands = [p for p in signature(ours.lower).values() if p.kind is kind.POSITIONAL_OR_KEYWORD]
            by_name = any(p.kind is kind.POSITIONAL_OR_KEYWORD for p in theirs.values())
            if len(operands) != len(theirs) or by_name != (name in BY_POSITION):
                wrong[name] = f"{list(theirs)} and an op of {len(operands)} operands"
            continue
        named = [n for n, p in theirs.items() if p.kind in (kind.POSITIONAL_OR_KEYWORD, kind.KEYWORD_ONLY)]
        absent = set(named) - signature(ours).keys() - ANYWHERE.keys() - PARAMETERS.get(name, set())
        places = [n for n, p in theirs.items() if p.kind is kind.POSITIONAL_OR_KEYWORD and n not in ANYWHERE]
        mine = [n for n, p in signature(ours).items() if p.kind is kind.POSITIONAL_OR_KEYWORD]
        if absent or mine[: len(places)] != places:
            wrong[name] = f"{list(theirs)} and {list(signature(ours))}"
    assert wrong == {}


def test_exceptions_are_needed() -> None:
    for name, parameters in PARAMETERS.items():
        assert parameters & signature(getattr(jnp, name)).keys() - signature(getattr(tnp, name)).keys(), name
    assert all(isinstance(getattr(tnp, name), Op) for name in BY_POSITION)
