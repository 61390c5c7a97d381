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

import tracegrad as tg
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
    "sign": [(-2.0, -1.0), (0.0, 0.0), (-0.0, 0.0), (2.0, 1.0), (-inf, -1.0), (nan, nan)],
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
                  (5.0, -3.0, -1.0), (0.0, 2.0, 0.0), (-0.0, 2.0, 0.0), (0.0, -2.0, -0.0), (-0.0, -2.0, -0.0),
                  (4.0, -2.0, -0.0), (-4.0, 2.0, 0.0)],
    "subtract": [(inf, inf, nan), (-inf, -inf, nan), (0.0, 0.0, 0.0)],
    "add": [(inf, -inf, nan), (-0.0, -0.0, -0.0), (-0.0, 0.0, 0.0)],
    "multiply": [(inf, 0.0, nan), (-1.0, 0.0, -0.0), (inf, -1.0, -inf)],
    "floor_divide": [(nan, 1.0, nan), (5.0, 2.0, 2.0), (-5.0, 2.0, -3.0), (1.0, inf, 0.0), (0.0, 0.0, nan),
                     (-0.0, 2.0, -0.0), (0.0, -2.0, -0.0), (-0.0, -2.0, 0.0), (-1.0, -2.0, 0.0), (-1.0, -inf, 0.0),
                     (inf, 2.0, inf), (inf, -2.0, -inf), (-inf, 2.0, -inf), (-inf, -2.0, inf), (inf, inf, nan),
                     (1.0, -inf, -0.0), (-1.0, inf, -0.0), (1.0, 0.0, inf), (1.0, -0.0, -inf), (-1.0, -0.0, inf)],
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


EDGES = np.array([0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, -1.5, 2.0, -2.0, 3.0, -3.0, inf, -inf, nan])
OF_ONE = (
    "i0 abs acos acosh asin asinh atan atanh ceil cos cosh exp exp2 expm1 floor isfinite isinf isnan log log1p log2 "
)
OF_ONE += "log10 logical_not negative positive reciprocal round sign signbit sin sinh square sqrt tan tanh trunc cbrt "
OF_ONE += "rint fabs rad2deg sinc nan_to_num real imag conj"
OF_TWO = "add atan2 copysign divide equal floor_divide greater greater_equal hypot less less_equal logaddexp "
OF_TWO += "logical_and logical_or logical_xor maximum minimum multiply nextafter not_equal pow remainder subtract fmax "
OF_TWO += "logaddexp2 fmin fmod heaviside float_power"
REFERENCE: dict[str, Any] = {
    "floor_divide": lambda x, y: np.floor(np.divide(x, y)),
}
"""Where the standard and NumPy differ."""
OPEN = {"maximum", "minimum", "fmax", "fmin", "logaddexp2"}
"""Functions of which the sign of a zero is left open."""


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_elementwise_function_at_every_edge(dtype: Any) -> None:
    """Against NumPy, which follows the standard but for the functions in `REFERENCE`; the signs of zeros too."""
    x = EDGES.astype(dtype)
    pairs = np.meshgrid(x, x)
    wrong = []
    with x64(), np.errstate(all="ignore"):
        for name in [*OF_ONE.split(), *OF_TWO.split()]:
            operands = pairs if name in OF_TWO.split() else [x]
            actual = np.asarray(getattr(tnp, name)(*operands))
            expected = REFERENCE.get(name, getattr(np, name))(*operands)
            if actual.dtype == bool:
                same = actual == expected
            else:
                close = np.isclose(actual, expected, 1e-5, 1e-7, equal_nan=True)
                same = close & (np.isnan(expected) | (np.signbit(actual) == np.signbit(expected)) | (name in OPEN))
            wrong += [(name, *(float(v[at]) for v in operands)) for at in zip(*np.nonzero(~same), strict=True)]
    assert wrong == []


def test_can_cast_takes_dtypes_types_and_arrays() -> None:
    dtypes = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float32 float64 complex64"

    for a in dtypes.split():
        for b in dtypes.split():
            expected = np.can_cast(a, b)
            ours = getattr(tnp, a if a != "bool" else "bool_")
            for kind in (np.dtype(a), np.dtype(a).type, ours, a, np.zeros(2, a), np.zeros((), a)):
                assert tnp.can_cast(kind, np.dtype(b)) == expected, (kind, b)
    found: list[Any] = []
    tg.jit(lambda x: (found.append((tnp.can_cast(x, tnp.float64), tnp.can_cast(x, tnp.int32))), x)[1])(1.0)
    assert found == [(True, False)]


def test_nonzero_needs_an_axis() -> None:
    for call in (lambda x: tnp.nonzero(x), lambda x: tnp.where(x), lambda x: np.nonzero(x)):
        for run in (tg.jit(call), tg.grad(lambda x, call=call: (call(x), x)[1])):
            with pytest.raises(ValueError, match=r"^(nonzero|where): f32\[\]~ has no axes .* atleast_1d"):
                run(1.0)
    assert tnp.argwhere(3.0).shape == np.argwhere(3.0).shape and tnp.flatnonzero(3.0).tolist() == [0]


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


MATRIX = np.array([[4.0, 1.0, 0.5], [1.0, 3.0, 0.2], [0.5, 0.2, 5.0]])
WIDE = np.sin(np.arange(24.0) ** 1.5).reshape(2, 3, 4)
EXTENSIONS: dict[str, Any] = {
    "cholesky": lambda np: np.linalg.cholesky(MATRIX),
    "cholesky upper": lambda np: np.linalg.cholesky(MATRIX, upper=True),
    "cross": lambda np: np.linalg.cross(WIDE, WIDE[::-1] ** 2, axis=1),
    "det": lambda np: np.linalg.det(np.stack([np.asarray(MATRIX), np.asarray(MATRIX) ** 2])),
    "diagonal": lambda np: np.linalg.diagonal(WIDE, offset=1),
    "eigh": lambda np: np.linalg.eigh(MATRIX).eigenvalues,
    "eigvalsh": lambda np: np.linalg.eigvalsh(MATRIX),
    "inv": lambda np: np.linalg.inv(MATRIX),
    "matmul": lambda np: np.linalg.matmul(MATRIX, WIDE),
    "matrix_norm": lambda np: np.linalg.matrix_norm(WIDE, ord="nuc", keepdims=True),
    "matrix_power": lambda np: np.linalg.matrix_power(MATRIX, -2),
    "matrix_rank": lambda np: np.linalg.matrix_rank(WIDE),
    "matrix_transpose": lambda np: np.linalg.matrix_transpose(WIDE),
    "outer": lambda np: np.linalg.outer(MATRIX[0], WIDE[0, 0]),
    "pinv": lambda np: np.linalg.pinv(WIDE),
    "qr": lambda np: np.abs(np.linalg.qr(WIDE, mode="reduced").R),
    "qr complete": lambda np: np.linalg.qr(WIDE, mode="complete").Q @ np.linalg.qr(WIDE, mode="complete").R,
    "slogdet": lambda np: np.linalg.slogdet(MATRIX).logabsdet,
    "slogdet sign": lambda np: np.linalg.slogdet(MATRIX).sign,
    "solve": lambda np: np.linalg.solve(MATRIX, WIDE),
    "solve vector": lambda np: np.linalg.solve(MATRIX, MATRIX[0]),
    "svd": lambda np: np.abs(np.linalg.svd(WIDE, full_matrices=False).Vh),
    "svdvals": lambda np: np.linalg.svdvals(WIDE),
    "tensordot": lambda np: np.linalg.tensordot(WIDE, WIDE, axes=((0, 2), (0, 2))),
    "trace": lambda np: np.linalg.trace(WIDE, offset=-1, dtype=np.float32),
    "vecdot": lambda np: np.linalg.vecdot(WIDE, WIDE * 1j, axis=1),
    "vector_norm": lambda np: np.linalg.vector_norm(WIDE, axis=(0, 2), keepdims=True, ord=-np.inf),
    **{
        f"fft {name} {norm}": lambda np, name=name, norm=norm: getattr(np.fft, name)(WIDE, n=5, axis=1, norm=norm)
        for name in ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft")
        for norm in ("backward", "ortho", "forward")
    },
    **{
        f"fft {name}": lambda np, name=name: getattr(np.fft, name)(WIDE, s=(3, 6), axes=(0, 2))
        for name in ("fftn", "ifftn", "rfftn", "irfftn")
    },
    "fft fftfreq": lambda np: np.fft.fftfreq(5, d=0.5),
    "fft rfftfreq": lambda np: np.fft.rfftfreq(6),
    "fft fftshift": lambda np: np.fft.fftshift(WIDE, axes=1),
    "fft ifftshift": lambda np: np.fft.ifftshift(WIDE),
    "unique_all": lambda np: np.unique_all(np.asarray([3, 1, 3])).inverse_indices,
    "unique_counts": lambda np: np.unique_counts(np.asarray([3, 1, 3])).counts,
    "unique_inverse": lambda np: np.unique_inverse(np.asarray([[3, 1], [1, 1]])).inverse_indices,
    "unique_values": lambda np: np.unique_values(np.asarray([2.0, 0.0, 2.0])),
    "argsort descending": lambda np: -np.sort(-np.asarray(WIDE), axis=1),
    "isdtype": lambda np: np.asarray(np.isdtype(np.asarray(WIDE).dtype, ("complex floating", "real floating"))),
    "cumulative_prod": lambda np: np.cumulative_prod(WIDE, axis=2, include_initial=True),
    "clip open": lambda np: np.clip(WIDE, None, 0.5),
    "mT": lambda np: np.asarray(WIDE).mT,
    "ellipsis": lambda np: np.asarray(WIDE)[..., 1:, ::-2],
    "newaxis and mask": lambda np: np.asarray(WIDE)[np.asarray(WIDE) > 0][None],
    "integer arrays": lambda np: np.asarray(WIDE)[np.asarray([1, 0]), :, np.asarray([2, -1])],
}


@pytest.mark.parametrize("name", EXTENSIONS)
def test_extensions_sets_and_indexing(name: str) -> None:
    expected = EXTENSIONS[name](np)
    with x64():
        compare(jax.numpy.asarray(EXTENSIONS[name](tnp)), expected, expected.dtype, name)


OPERATORS: dict[str, Any] = {
    "arithmetic": lambda x: (x + 2, 2 - x, x * x, -x, +x, abs(x), x**2, x // 2, x % 2, divmod(x, 2)[1]),
    "comparison": lambda x: (x < 2, x <= x, x > 1, x >= 2, x == x, x != 1),
    "bits": lambda x: (x & 6, 6 | x, x ^ x, ~x, x << 1, x >> 1),
    "matrices": lambda x: (x @ x.T, x.mT @ x),
}


@pytest.mark.parametrize(("name", "dtype"), [(n, d) for n in OPERATORS for d in (INTS if n == "bits" else REAL)])
def test_operators_keep_the_dtype(name: str, dtype: str) -> None:
    """Python numbers take the dtype of the array, eagerly and on traced values."""
    x = values(dtype, (2, 3), 3, positive=True)
    with x64():
        for actual in (OPERATORS[name](tnp.asarray(x)), tg.jit(OPERATORS[name])(x)):
            for i, (a, e) in enumerate(zip(actual, OPERATORS[name](x), strict=True)):
                compare(a, e, e.dtype, f"{name} {i} {dtype}")


def test_attributes_of_traced_values() -> None:
    seen: list[Any] = []

    def look(x: Any) -> Any:
        seen.append((x.dtype, x.ndim, x.shape, x.size, x.T.shape, x.mT.shape, x.__array_namespace__()))
        return x

    tg.grad(lambda x: look(x).sum())(np.ones((2, 3), np.float32))
    assert seen == [(np.float32, 2, (2, 3), 6, (3, 2), (3, 2), tnp)]


def test_the_namespace_describes_what_there_is() -> None:
    info = tnp.__array_namespace_info__()
    assert info.default_device() in info.devices() or info.default_device() is None
    assert {"boolean indexing", "data-dependent shapes", "max dimensions"} <= info.capabilities().keys()
    with x64():
        names = info.dtypes(kind=("signed integer", "real floating"))
        assert set(names) == {"int8", "int16", "int32", "int64", "float32", "float64"}
        assert set(info.dtypes(kind="bool")) == {"bool"} and "complex128" in info.dtypes()
    assert (tnp.e, tnp.inf, tnp.pi, tnp.newaxis) == (math.e, math.inf, math.pi, None) and math.isnan(tnp.nan)


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
