"""The rules of the array API standard (https://data-apis.org/array-api/2024.12): shapes, dtypes and special values.

The values expected are NumPy's, the dtypes are those that the standard names. Under `@jit` and in recordings the same
functions run; that they agree is tested elsewhere.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tracegrad.numpy as tnp

from ..reference import x64

INTS, FLOATS, COMPLEX = ["int8", "int32", "uint8", "int64"], ["float32", "float64"], ["complex64"]
REAL = INTS + FLOATS
NUMERIC = REAL + COMPLEX
ALL = [*NUMERIC, "bool"]
SHAPES = [(), (3,), (2, 3), (0, 2)]
PAIRS = [((), (3,)), ((2, 3), (3,)), ((2, 1), (1, 3)), ((0, 2), (1,))]
FEW = settings(max_examples=4, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def each(names: str, dtypes: list[str]) -> dict[str, list[str]]:
    return dict.fromkeys(names.split(), dtypes)


SAME = {
    "abs": REAL, "negative": ["int32", "float32", "complex64"], "positive": NUMERIC, "sign": NUMERIC, "square": NUMERIC,
    "floor": REAL, "ceil": REAL, "round": REAL, "trunc": REAL, "conj": NUMERIC, "bitwise_invert": [*INTS, "bool"],
    "reciprocal": FLOATS, "logical_not": ["bool"],
    **each("exp expm1 sin cos tan sinh cosh tanh asin acos atan asinh acosh atanh log log1p log2 log10 sqrt",
           [*FLOATS, "complex64"]),
}  # fmt: skip
"""Functions of one array that keep its dtype, and the dtypes they take."""

TESTS = {"isfinite": NUMERIC, "isinf": NUMERIC, "isnan": NUMERIC, "signbit": FLOATS}
"""Functions of one array whose result is boolean."""

BINARY = {
    **each("add subtract multiply", NUMERIC), "divide": [*FLOATS, "complex64"],
    **each("maximum minimum floor_divide remainder", REAL), "pow": FLOATS,
    **each("atan2 copysign hypot logaddexp nextafter", FLOATS),
    **each("bitwise_and bitwise_or bitwise_xor", [*INTS, "bool"]),
    **each("bitwise_left_shift bitwise_right_shift", ["int32", "uint8"]),
}  # fmt: skip
"""Functions of two arrays whose result has their common dtype."""

COMPARE = {
    **each("equal not_equal", ALL), **each("less less_equal greater greater_equal", REAL),
    **each("logical_and logical_or logical_xor", ["bool"]),
}  # fmt: skip

REDUCE = {"sum": NUMERIC, "prod": REAL, "max": REAL, "min": REAL, "mean": FLOATS, "var": FLOATS, "std": FLOATS,
          "all": ALL, "any": ALL, "argmax": REAL, "argmin": REAL, "count_nonzero": ALL}  # fmt: skip


def values(dtype: str, shape: tuple[int, ...], seed: int, positive: bool = False) -> np.ndarray:
    rng = np.random.default_rng(seed)
    kind = np.dtype(dtype).kind
    if kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    low = 1 if positive or kind == "u" else -4
    x = rng.integers(low, 5, shape) if kind in "iu" else rng.uniform(0.1 if positive else -2, 2, shape)
    return np.asarray(x + 1j * rng.uniform(-1, 1, shape) if kind == "c" else x).astype(dtype)


def compare(actual: Any, expected: Any, dtype: Any, what: str) -> None:
    assert isinstance(actual, jax.Array), what
    assert (actual.shape, actual.dtype) == (np.shape(expected), np.dtype(dtype)), what
    tolerance = 1e-4 if np.dtype(dtype).name in ("float32", "complex64") else 1e-9
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance, err_msg=what)


@pytest.mark.parametrize("name", [*SAME, *TESTS])
@FEW
@given(data=st.data())
def test_of_one_array(name: str, data: Any) -> None:
    dtype = data.draw(st.sampled_from(SAME.get(name) or TESTS[name]))
    x = values(dtype, data.draw(st.sampled_from(SHAPES)), data.draw(st.integers(0, 9)))
    with x64(), np.errstate(all="ignore"):
        compare(getattr(tnp, name)(x), getattr(np, name)(x), dtype if name in SAME else bool, f"{name} {dtype}")


@pytest.mark.parametrize("name", [*BINARY, *COMPARE])
@FEW
@given(data=st.data())
def test_of_two_arrays(name: str, data: Any) -> None:
    dtypes = BINARY.get(name) or COMPARE[name]
    shapes = data.draw(st.sampled_from(PAIRS))
    first = data.draw(st.sampled_from(dtypes))
    # The standard promotes within a kind.
    alike = [d for d in dtypes if np.dtype(d).kind == np.dtype(first).kind or {d, first} <= {*FLOATS, *COMPLEX}]
    second = data.draw(st.sampled_from(alike))
    x, y = (values(d, s, data.draw(st.integers(0, 9)), True) for d, s in zip((first, second), shapes, strict=True))
    wanted = np.result_type(x.dtype, y.dtype) if name in BINARY else bool
    with x64():
        compare(getattr(tnp, name)(x, y), getattr(np, name)(x, y), wanted, f"{name} {first} {second}")


@pytest.mark.parametrize("name", REDUCE)
@FEW
@given(data=st.data())
def test_reductions(name: str, data: Any) -> None:
    dtype = data.draw(st.sampled_from(REDUCE[name]))
    x = values(dtype, (2, 3, 2), data.draw(st.integers(0, 9)))
    places = [None, 0, -1] if name.startswith("arg") else [None, 0, -1, (0, 2), (1, -1)]
    options = {"axis": data.draw(st.sampled_from(places)), "keepdims": data.draw(st.booleans())}
    wanted: Any = dtype
    if name in ("all", "any"):
        wanted = bool
    elif name.startswith(("arg", "count")):
        wanted = "int64"
    elif name in ("sum", "prod") and x.dtype.kind in "iu":
        # At least as wide as the default integer.
        wanted = "uint64" if x.dtype.kind == "u" else "int64"
    with x64():
        compare(getattr(tnp, name)(x, **options), getattr(np, name)(x, **options), wanted, f"{name} {dtype} {options}")


inf, nan = math.inf, math.nan
SPECIAL: dict[str, list[tuple[Any, ...]]] = {
    "acos": [(nan, nan), (1.5, nan), (-1.5, nan), (1.0, 0.0)],
    "acosh": [(nan, nan), (0.5, nan), (1.0, 0.0), (inf, inf)],
    "asin": [(nan, nan), (1.5, nan), (-1.5, nan), (0.0, 0.0), (-0.0, -0.0)],
    "asinh": [(nan, nan), (0.0, 0.0), (-0.0, -0.0), (inf, inf), (-inf, -inf)],
    "atan": [(nan, nan), (0.0, 0.0), (-0.0, -0.0), (inf, math.pi / 2), (-inf, -math.pi / 2)],
    "atanh": [(nan, nan), (-1.5, nan), (1.5, nan), (-1.0, -inf), (1.0, inf), (0.0, 0.0), (-0.0, -0.0)],
    "ceil": [(inf, inf), (-inf, -inf), (0.0, 0.0), (-0.0, -0.0), (nan, nan), (-0.5, -0.0)],
    "cos": [(nan, nan), (0.0, 1.0), (inf, nan)],
    "cosh": [(nan, nan), (0.0, 1.0), (inf, inf), (-inf, inf)],
    "exp": [(nan, nan), (0.0, 1.0), (inf, inf), (-inf, 0.0)],
    "expm1": [(nan, nan), (0.0, 0.0), (-0.0, -0.0), (inf, inf), (-inf, -1.0)],
    "floor": [(inf, inf), (-inf, -inf), (-0.0, -0.0), (nan, nan), (0.5, 0.0)],
    "log": [(nan, nan), (-1.0, nan), (0.0, -inf), (-0.0, -inf), (1.0, 0.0), (inf, inf)],
    "log10": [(nan, nan), (-1.0, nan), (0.0, -inf), (1.0, 0.0), (inf, inf)],
    "log1p": [(nan, nan), (-2.0, nan), (-1.0, -inf), (-0.0, -0.0), (0.0, 0.0), (inf, inf)],
    "log2": [(nan, nan), (-1.0, nan), (0.0, -inf), (1.0, 0.0), (inf, inf)],
    "reciprocal": [(nan, nan), (inf, 0.0), (-inf, -0.0), (0.0, inf), (-0.0, -inf)],
    "round": [(inf, inf), (-0.0, -0.0), (nan, nan), (0.5, 0.0), (1.5, 2.0), (-2.5, -2.0)],
    "sign": [(-2.0, -1.0), (0.0, 0.0), (2.0, 1.0), (nan, nan)],
    "sin": [(nan, nan), (0.0, 0.0), (-0.0, -0.0), (inf, nan)],
    "sinh": [(nan, nan), (0.0, 0.0), (-0.0, -0.0), (inf, inf), (-inf, -inf)],
    "sqrt": [(nan, nan), (-1.0, nan), (0.0, 0.0), (-0.0, -0.0), (inf, inf)],
    "tan": [(nan, nan), (0.0, 0.0), (-0.0, -0.0), (inf, nan)],
    "tanh": [(nan, nan), (0.0, 0.0), (-0.0, -0.0), (inf, 1.0), (-inf, -1.0)],
    "trunc": [(inf, inf), (-inf, -inf), (-0.0, -0.0), (nan, nan), (-0.5, -0.0)],
    "signbit": [(0.0, False), (-0.0, True), (inf, False), (-inf, True), (-2.0, True)],
    "atan2": [(0.0, 1.0, 0.0), (0.0, -0.0, math.pi), (-0.0, -0.0, -math.pi), (-0.0, 0.0, -0.0), (inf, inf, math.pi / 4),
              (1.0, -inf, math.pi), (-1.0, inf, -0.0), (nan, 1.0, nan)],
    "copysign": [(1.0, -0.0, -1.0), (-1.0, 0.0, 1.0), (0.0, -1.0, -0.0)],
    "divide": [(inf, inf, nan), (0.0, 0.0, nan), (1.0, 0.0, inf), (-1.0, 0.0, -inf), (1.0, -inf, -0.0)],
    "hypot": [(inf, nan, inf), (nan, -inf, inf), (1.0, nan, nan), (0.0, 0.0, 0.0)],
    "logaddexp": [(nan, 1.0, nan), (inf, 1.0, inf), (-inf, -inf, -inf), (inf, inf, inf)],
    "maximum": [(nan, 1.0, nan), (1.0, nan, nan), (-inf, 1.0, 1.0)],
    "minimum": [(nan, 1.0, nan), (1.0, nan, nan), (inf, 1.0, 1.0)],
    "nextafter": [(nan, 1.0, nan), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)],
    "pow": [(2.0, 0.0, 1.0), (nan, 0.0, 1.0), (1.0, nan, 1.0), (nan, 2.0, nan), (2.0, inf, inf), (0.5, inf, 0.0),
            (2.0, -inf, 0.0), (inf, 2.0, inf), (inf, -2.0, 0.0), (-inf, 3.0, -inf), (-inf, -3.0, -0.0),
            (-0.0, 3.0, -0.0), (-0.0, -3.0, -inf), (0.0, -2.0, inf), (-2.0, 0.5, nan)],
    "remainder": [(nan, 1.0, nan), (1.0, 0.0, nan), (inf, 1.0, nan), (5.0, 3.0, 2.0), (-5.0, 3.0, 1.0),
                  (5.0, -3.0, -1.0)],
    "subtract": [(inf, inf, nan), (-inf, -inf, nan), (0.0, 0.0, 0.0)],
    "add": [(inf, -inf, nan), (-0.0, -0.0, -0.0), (-0.0, 0.0, 0.0)],
    "multiply": [(inf, 0.0, nan), (-1.0, 0.0, -0.0), (inf, -1.0, -inf)],
    "floor_divide": [(nan, 1.0, nan), (5.0, 2.0, 2.0), (-5.0, 2.0, -3.0), (1.0, inf, 0.0), (0.0, 0.0, nan)],
}  # fmt: skip
"""Operands and results at the edges, from the standard's tables of special cases."""


@pytest.mark.parametrize("name", SPECIAL)
def test_special_values(name: str) -> None:
    *operands, expected = (np.asarray(column, np.float64) for column in zip(*SPECIAL[name], strict=True))
    with x64():
        actual = np.asarray(getattr(tnp, name)(*operands), np.float64)
    np.testing.assert_allclose(actual, expected, rtol=1e-12)
    if name != "signbit":
        real = ~np.isnan(expected)
        np.testing.assert_array_equal(np.signbit(actual)[real], np.signbit(expected)[real])


SHAPE_RULES: list[tuple[str, Any]] = [
    (name, case)
    for name, case in {
        "broadcast_to": lambda np, x: np.broadcast_to(x, (2, 2, 3)),
        "concat": lambda np, x: np.concat((x, x), axis=-1),
        "concat flat": lambda np, x: np.concat((x, x), axis=None),
        "cumulative_sum": lambda np, x: np.cumulative_sum(x, axis=1, include_initial=True),
        "diff": lambda np, x: np.diff(x, axis=0),
        "expand_dims": lambda np, x: np.expand_dims(x, axis=-2),
        "flip": lambda np, x: np.flip(x),
        "matmul": lambda np, x: np.matmul(x, np.matrix_transpose(x)),
        "meshgrid": lambda np, x: np.meshgrid(x[0], x[1], indexing="ij")[1],
        "moveaxis": lambda np, x: np.moveaxis(x, 0, 1),
        "permute_dims": lambda np, x: np.permute_dims(x, (1, 0)),
        "repeat": lambda np, x: np.repeat(x, 2, axis=0),
        "reshape": lambda np, x: np.reshape(x, (3, -1)),
        "roll": lambda np, x: np.roll(x, (1, 2), axis=(0, 1)),
        "searchsorted": lambda np, x: np.searchsorted(np.sort(x[0]), x),
        "sort": lambda np, x: np.sort(x, axis=0),
        "squeeze": lambda np, x: np.squeeze(np.expand_dims(x, axis=0), axis=0),
        "stack": lambda np, x: np.stack((x, x), axis=2),
        "take": lambda np, x: np.take(x, np.asarray([2, 0]), axis=1),
        "take_along_axis": lambda np, x: np.take_along_axis(x, np.argsort(x, axis=1), axis=1),
        "tensordot": lambda np, x: np.tensordot(x, x, axes=((0, 1), (0, 1))),
        "tile": lambda np, x: np.tile(x, (2, 1, 2)),
        "tril": lambda np, x: np.tril(x, k=1),
        "triu": lambda np, x: np.triu(x, k=-1),
        "unstack": lambda np, x: np.unstack(x, axis=1)[2],
        "vecdot": lambda np, x: np.vecdot(x, x, axis=0),
        "clip": lambda np, x: np.clip(x, 1, 3),
        "where": lambda np, x: np.where(x > 0, x, x * 2),
        "full_like": lambda np, x: np.full_like(x, 3),
        "zeros_like": lambda np, x: np.zeros_like(x),
        "astype": lambda np, x: np.astype(x, np.float32),
        "nonzero": lambda np, x: np.nonzero(x)[1],
    }.items()
]


@pytest.mark.parametrize(("name", "case"), SHAPE_RULES)
def test_shapes_and_dtypes(name: str, case: Any) -> None:
    for dtype in ("int32", "float64"):
        x = values(dtype, (2, 3), 1)
        expected = case(np, x)
        with x64():
            compare(case(tnp, x), expected, expected.dtype, f"{name} {dtype}")


CREATION: list[Any] = [
    lambda np: np.arange(5), lambda np: np.arange(0.0, 1.0, 0.25), lambda np: np.arange(3, dtype=np.float32),
    lambda np: np.eye(2, 3, k=1), lambda np: np.full((2,), 1.5), lambda np: np.full((), True), lambda np: np.full(2, 3),
    lambda np: np.linspace(0, 1, 5), lambda np: np.linspace(0, 1, 4, endpoint=False), lambda np: np.ones((2, 0)),
    lambda np: np.zeros(3, dtype=np.int8), lambda np: np.asarray([[1, 2], [3, 4]]), lambda np: np.asarray(1 + 2j),
    lambda np: np.asarray([True, False]), lambda np: np.empty((2, 2)) * 0,
]  # fmt: skip


@pytest.mark.parametrize("case", CREATION)
def test_creation(case: Any) -> None:
    expected = case(np)
    with x64():
        compare(case(tnp), expected, expected.dtype, "creation")


def test_dtypes() -> None:
    kinds = ["bool", "integral", "signed integer", "unsigned integer", "real floating", "complex floating", "numeric"]
    for dtype in ALL:
        for kind in kinds:
            assert tnp.isdtype(np.dtype(dtype), kind) == np.isdtype(np.dtype(dtype), kind)
    with x64():
        info = tnp.__array_namespace_info__()
        assert info.default_dtypes() == {
            "real floating": np.float64, "integral": np.int64, "indexing": np.int64, "complex floating": np.complex128,
        }  # fmt: skip
        assert tnp.result_type(tnp.float32, tnp.float64) == np.float64
        assert tnp.result_type(tnp.asarray(1, tnp.int8), 3) == np.int8
        assert tnp.can_cast(tnp.int8, tnp.int16) and not tnp.can_cast(tnp.int16, tnp.int8)
        assert tnp.finfo(tnp.float32).eps == np.finfo(np.float32).eps
        assert tnp.iinfo(tnp.int8).max == 127
