"""Every elementwise op: its value, types and derivatives against NumPy, SciPy, jax.numpy and central differences."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special as sp
from jax import lax
from jax.scipy import special as jsp

import tracegrad as tg
import tracegrad.numpy as tnp
from tests.reference import check_grads, check_value, x64
from tracegrad.op import Op
from tracegrad.tape import make_aval

OPS = {name: op for name, op in vars(import_module("tracegrad.ops.elementwise")).items() if isinstance(op, Op)}
"""The ops of the module, by the name that they have in it."""

ANY, POSITIVE, UNIT, ABOVE_ONE, AWAY = (-2.0, 2.0), (0.2, 3.0), (-0.9, 0.9), (1.2, 3.0), (0.6, 1.9)
Domain = tuple[float, float]


@dataclass
class Row:
    """What is known of an op from outside: `ref` over NumPy, `jnp` over JAX, and where its operands may lie.

    `order` is how often it can be differentiated (0: it has no derivative), `complex` whether it takes
    complex operands, `dtypes` what its values are compared in.
    """

    ref: Callable[..., Any]
    jnp: Callable[..., Any]
    domains: Sequence[Domain] = (ANY,)
    order: int = 2
    complex: bool = False
    dtypes: str = "df"
    params: dict[str, Any] = field(default_factory=dict)
    rtol: float = 0.0

    def operands(self, dtype: str, seed: int = 0) -> list[np.ndarray]:
        """Arrays that broadcast together: (2, 3), (3,), (2, 1)."""
        rng = np.random.default_rng(seed)
        out = []
        for shape, (lo, hi) in zip([(2, 3), (3,), (2, 1)], self.domains, strict=False):
            if dtype in "?il":
                out.append(rng.integers(0 if lo >= 0 else -9, 9, shape).astype(dtype) + (lo > 0))
            else:
                x = rng.uniform(lo, hi, shape)
                out.append((x + 1j * rng.uniform(0.3, 1.3, shape) if dtype in "FD" else x).astype(dtype))
        return out


def u(name: str, **kwargs: Any) -> Row:
    """An op that NumPy and JAX have under this name."""
    return Row(getattr(np, name), getattr(jnp, name), **kwargs)


BITS = {"domains": (ANY, ANY), "order": 0, "dtypes": "i?"}
COMPARE = {"domains": (ANY, ANY), "order": 0, "dtypes": "dfi?", "complex": True}
TEST = {"order": 0, "dtypes": "dfi"}
two = {"domains": (ANY, ANY)}


def _astype(x: Any, dtype: Any) -> Any:
    return x.astype(dtype)


def _logical_shift(x: Any, y: Any) -> Any:
    return (x.astype(np.uint32) >> y.astype(np.uint32)).astype(np.int32)


def _rounded(x: Any, exponent_bits: int, mantissa_bits: int) -> Any:
    mantissa, exponent = np.frexp(x)
    return np.ldexp(np.rint(mantissa * 2 ** (mantissa_bits + 1)), exponent - mantissa_bits - 1)


def _where(module: Any) -> Callable[..., Any]:
    return lambda p, x, y: module.where(p > 0, x, y)


ROWS: dict[str, Row] = {
    "add": u("add", **two, complex=True, dtypes="dfi?"),
    "sub": u("subtract", **two, complex=True, dtypes="dfi"),
    "mul": u("multiply", **two, complex=True, dtypes="dfi?"),
    "div": u("divide", domains=(ANY, AWAY), complex=True, dtypes="dfi"),
    "neg": u("negative", complex=True, dtypes="dfi"),
    "mul_no_nan_op": Row(np.multiply, jnp.multiply, (POSITIVE, ANY), complex=True),
    "mul_either_op": Row(np.multiply, jnp.multiply, (POSITIVE, ANY), complex=True),
    "div_no_nan_op": Row(np.divide, jnp.divide, (POSITIVE, AWAY), complex=True),
    "floor_divide": u("floor_divide", domains=(ANY, AWAY), order=0, dtypes="dfi"),
    "trunc_divide": Row(lambda x, y: np.trunc(x / y).astype(x.dtype), lax.div, (ANY, AWAY), order=0, dtypes="i"),
    "remainder": u("remainder", domains=(ANY, AWAY), dtypes="dfi", order=1),
    "fmod": u("fmod", domains=(ANY, AWAY), dtypes="dfi", order=1),
    "pow_": u("power", domains=(POSITIVE, ANY), complex=True, dtypes="df"),
    "power_log": Row(
        lambda x, y, n: x**y * np.log(x) ** n, lambda x, y, n: x**y * jnp.log(x) ** n, (POSITIVE, ANY), complex=True,
        dtypes="df", params={"n": 1},
    ),
    "integer_pow": Row(lambda x, n: x**n, lambda x, n: x**n, (AWAY,), complex=True, dtypes="dfi", params={"n": 3}),
    "square": u("square", complex=True, dtypes="dfi"),
    "sqrt": u("sqrt", domains=(POSITIVE,), complex=True, dtypes="dfi"),
    "rsqrt": Row(lambda x: 1 / np.sqrt(x), lambda x: 1 / jnp.sqrt(x), (POSITIVE,), complex=True),
    "cbrt": u("cbrt", domains=(POSITIVE,)),
    "reciprocal": Row(lambda x: 1 / x, lambda x: 1 / x, (AWAY,), complex=True),
    "exp": u("exp", complex=True, dtypes="dfi"),
    "exp2": u("exp2", complex=True),
    "expm1": u("expm1", complex=True),
    "log": u("log", domains=(POSITIVE,), complex=True),
    "log2": u("log2", domains=(POSITIVE,), complex=True),
    "log10": u("log10", domains=(POSITIVE,), complex=True),
    "log1p": u("log1p", domains=(POSITIVE,), complex=True),
    "logaddexp": u("logaddexp", **two),
    "logaddexp2": u("logaddexp2", **two),
    "difference": u("subtract", **two, dtypes="df"),
    "sin": u("sin", complex=True, dtypes="dfi"),
    "cos": u("cos", complex=True),
    "tan": u("tan", domains=(UNIT,), complex=True),
    "one_minus_square": Row(lambda x: 1 - x * x, lambda x: 1 - x * x, complex=True),
    "arcsin": u("arcsin", domains=(UNIT,), complex=True),
    "arccos": u("arccos", domains=(UNIT,), complex=True),
    "arctan": u("arctan", domains=(UNIT,), complex=True),
    "arctan2": u("arctan2", domains=(ANY, AWAY)),
    "sinh": u("sinh", complex=True),
    "cosh": u("cosh", complex=True),
    "tanh": u("tanh", complex=True),
    "arcsinh": u("arcsinh", complex=True),
    "arccosh": u("arccosh", domains=(ABOVE_ONE,), complex=True),
    "arctanh": u("arctanh", domains=(UNIT,), complex=True),
    "hypot": u("hypot", domains=(AWAY, ANY)),
    "logistic": Row(sp.expit, jsp.expit),
    "softplus": Row(lambda x: np.logaddexp(x, 0), jax.nn.softplus),
    "erf": Row(sp.erf, jsp.erf),
    "erfc": Row(sp.erfc, jsp.erfc),
    "erf_inv": Row(sp.erfinv, jsp.erfinv, (UNIT,), rtol=1e-5),
    "digamma": Row(sp.digamma, jsp.digamma, (POSITIVE,), rtol=1e-4),
    "polygamma": Row(lambda m, x: sp.polygamma(1, x) + 0 * m, jsp.polygamma, ((1.0, 1.0), POSITIVE), rtol=1e-4),
    "lgamma": Row(sp.gammaln, jsp.gammaln, (POSITIVE,), rtol=1e-4),
    "relu": Row(lambda x: np.maximum(x, 0), jax.nn.relu, dtypes="dfi"),
    "abs_": u("abs", complex=True, dtypes="dfi"),
    "sign": u("sign", complex=True, dtypes="dfi"),
    "floor": u("floor", order=0),
    "ceil": u("ceil", order=0),
    "trunc": u("trunc", order=0),
    "rint": u("rint", order=0),
    "round_away": Row(lambda x: np.copysign(np.floor(np.abs(x) + 0.5), x), lax.round, order=0),
    "conj": u("conj", complex=True),
    "real": u("real", complex=True),
    "imag": u("imag", complex=True),
    "complex_": Row(lambda x, y: x + 1j * y, lambda x, y: lax.complex(*jnp.broadcast_arrays(x, y)), (ANY, ANY)),
    "copysign": u("copysign", domains=(AWAY, ANY)),
    "nextafter": u("nextafter", **two, order=0),
    "nan_to_num": Row(np.nan_to_num, jnp.nan_to_num, params={"nan": 0.0, "posinf": None, "neginf": None}),
    "equal": u("equal", **COMPARE),
    "not_equal": u("not_equal", **COMPARE),
    "less": u("less", **COMPARE),
    "less_equal": u("less_equal", **COMPARE),
    "greater": u("greater", **COMPARE),
    "greater_equal": u("greater_equal", **COMPARE),
    "bitwise_and": u("bitwise_and", **BITS),
    "bitwise_or": u("bitwise_or", **BITS),
    "bitwise_xor": u("bitwise_xor", **BITS),
    "bitwise_not": u("bitwise_not", order=0, dtypes="i?"),
    "left_shift": u("left_shift", domains=(ANY, POSITIVE), order=0, dtypes="i"),
    "right_shift": u("right_shift", domains=(ANY, POSITIVE), order=0, dtypes="i"),
    "shift_right_arithmetic": u("right_shift", domains=(ANY, POSITIVE), order=0, dtypes="i"),
    "shift_right_logical": Row(_logical_shift, lax.shift_right_logical, (ANY, POSITIVE), order=0, dtypes="i"),
    "population_count": Row(np.bitwise_count, lax.population_count, (POSITIVE,), order=0, dtypes="i"),
    "clz": Row(lambda x: 32 - np.frexp(x)[1], lax.clz, (POSITIVE,), order=0, dtypes="i"),
    "gcd": u("gcd", domains=(ANY, ANY), order=0, dtypes="i"),
    "lcm": u("lcm", domains=(ANY, ANY), order=0, dtypes="i"),
    "exponent": Row(lambda x: np.frexp(x)[1], lambda x: jnp.frexp(x)[1], order=0),
    "isfinite": u("isfinite", **TEST),
    "isnan": u("isnan", **TEST),
    "isinf": u("isinf", **TEST),
    "signbit": u("signbit", **TEST),
    "where": Row(_where(np), _where(jnp), (ANY, ANY, ANY), complex=True),
    "maximum": u("maximum", **two, dtypes="dfi"),
    "minimum": u("minimum", **two, dtypes="dfi"),
    "fmax": u("fmax", **two),
    "fmin": u("fmin", **two),
    "astype": Row(_astype, _astype, params={"dtype": np.dtype("f")}, order=0),
    "reduce_precision": Row(_rounded, lax.reduce_precision, order=0, params={"exponent_bits": 8, "mantissa_bits": 7}),
    "alias": Row(lambda x: x, lambda x: x, complex=True),
    "stop_gradient": Row(lambda x: x, lax.stop_gradient, complex=True, order=0),
}  # fmt: skip


NO_NUMBERS = [ROWS[name] for name in ("mul_no_nan_op", "mul_either_op", "div_no_nan_op", "polygamma", "where")]
"""Ops that are not called with a Python number, or not in every place."""


def call(name: str) -> Callable[..., Any]:
    """The op with its static parameters, its condition made of its first operand where it takes one."""
    op, row = OPS[name], ROWS[name]
    if name == "where":
        return lambda p, x, y: op(OPS["greater"](p, 0.0), x, y)
    return lambda *xs: op(*xs, **row.params)


def test_every_op_has_a_row_and_every_row_an_op() -> None:
    assert sorted(ROWS) == sorted(OPS)


def tolerance(row: Row, dtype: str) -> float:
    return max(1e-10, row.rtol * 1e-6) if dtype in "dD" else max(3e-5, row.rtol)


def calls(row: Row, dtype: str) -> tuple[list[Any], Any]:
    """The operands of several calls; a Python number stands in each place in turn."""
    arrays = row.operands(dtype)
    places = len(arrays) if len(arrays) > 1 and dtype in "dfi" and row not in NO_NUMBERS else 0
    number: Any = 2 if dtype == "i" else 0.75
    numbers = [[number if i == place else x for i, x in enumerate(arrays)] for place in range(places)]
    return [arrays, [x.reshape(-1)[:0] for x in arrays], [x.reshape(-1)[0] for x in arrays]], numbers


def reference_values(row: Row, dtype: str, operands: list[Any]) -> list[Any]:
    convert = np.dtype(dtype).type
    return [row.ref(*[convert(x) if isinstance(x, int | float) else x for x in xs], **row.params) for xs in operands]


@pytest.mark.parametrize("name", ROWS)
def test_value(name: str) -> None:
    """For operands that broadcast, empty ones, scalars, and a Python number in each place."""
    row, fn = ROWS[name], call(name)
    dtype = row.dtypes[0]
    varying, fixed = calls(row, dtype)
    check_value(
        lambda varying: [fn(*xs) for xs in [*varying, *fixed]],
        lambda varying: reference_values(row, dtype, [*varying, *fixed]),
        varying,
        rtol=tolerance(row, dtype),
        atol=tolerance(row, dtype),
        only=("eager", "undecorated", "jit"),
    )


@pytest.mark.parametrize("dtype", "fi?DF")
def test_value_in_other_dtypes(dtype: str) -> None:
    """All ops that take operands of this dtype, in one program."""
    rows = {n: r for n, r in ROWS.items() if dtype in r.dtypes[1:] + "DF" * r.complex}
    operands = {n: [xs for part in calls(r, dtype) for xs in part] for n, r in rows.items()}
    with x64(dtype in "dD"):
        actual = tg.jit(lambda: {n: [call(n)(*xs) for xs in calls_] for n, calls_ in operands.items()})()
    for name, row in rows.items():
        for a, e in zip(actual[name], reference_values(row, dtype, operands[name]), strict=True):
            limit = tolerance(row, dtype)
            np.testing.assert_allclose(a, e, rtol=limit, atol=limit, err_msg=name)
            assert a.shape == np.shape(e)


OFTEN = (np.int32, np.float32, int, float)
OF_TYPES = [np.bool_, np.uint8, np.int32, np.float16, jnp.bfloat16, np.float32, np.complex64, int, float, complex]


def as_struct(t: Any) -> Any:
    if t in (int, float, complex):
        dtype = jax.dtypes.canonicalize_dtype(t)
        return jax.ShapeDtypeStruct((), dtype, weak_type=True)
    return jax.ShapeDtypeStruct((2,), np.dtype(t))


def result_type(fn: Callable[..., Any], structs: list[Any]) -> Any:
    """Shape, dtype and weak type of the result, or the kind of error."""
    try:
        out = jax.eval_shape(fn, *structs)
    except (TypeError, ValueError):
        return TypeError
    return out.shape, out.dtype, out.weak_type


INTERNAL = {
    "mul_no_nan_op", "mul_either_op", "div_no_nan_op", "one_minus_square", "trunc_divide", "complex_", "polygamma",
    "shift_right_arithmetic", "shift_right_logical", "power_log",
}  # fmt: skip
"""Ops that other ops' functions and rules call, with operands of one dtype."""

WEAK_DIFFERS = {
    "gcd",
    "lcm",
    "pow_",
    "logaddexp",
    "logaddexp2",
    "hypot",
    "reciprocal",
    "less",
    "less_equal",
    "greater",
    "greater_equal",
}
"""Where jax.numpy's weak types depend on more than the operands' types."""

NOT_TAKEN = {
    "integer_pow": (np.bool_,),
    "softplus": (np.bool_, np.complex64, complex),
    "relu": (np.bool_, np.complex64, complex),
    "logaddexp": (np.complex64, complex),
    "logaddexp2": (np.complex64, complex),
    "left_shift": (np.bool_,),
    "astype": (np.complex64, complex),
}
"""Types that the functions of the array namespace convert before they call the op."""


@pytest.mark.parametrize("name", ROWS)
def test_types_follow_jax_numpy(name: str) -> None:
    """The recorded type, the type of the compiled value, and that of jax.numpy agree for operands of mixed dtypes."""
    op, row = OPS[name], ROWS[name]
    types = [t for t in OF_TYPES if t not in NOT_TAKEN.get(name, ())]
    combos: list[tuple[Any, ...]] = [(t,) for t in types]
    if len(row.domains) > 1:
        combos = [(s, t) for s in types for t in types if s is t or t in OFTEN or s in (float, jnp.bfloat16)]
    if name == "where":
        combos = [(np.bool_, *c) for c in combos]
    reference = row.jnp if name != "where" else jnp.where
    wrong = []
    for combo in combos:
        structs = [as_struct(t) for t in combo]
        avals = tuple(make_aval(s.shape, s.dtype, s.weak_type) for s in structs)
        recorded: Any = TypeError
        with contextlib.suppress(TypeError, ValueError):
            aval = op.infer(avals, row.params)[0]
            recorded = (aval.shape, aval.dtype, aval.weak_type)
        lowered = result_type(lambda *xs: op.lower(*xs, **row.params), structs)
        expected = result_type(lambda *xs: reference(*xs, **row.params), structs)
        if name in INTERNAL:
            expected = lowered
        elif name in WEAK_DIFFERS and TypeError not in (lowered, expected):
            expected = (*expected[:2], lowered[2])
        if not recorded == lowered == expected:
            names = ", ".join(t.__name__ for t in combo)
            wrong.append(f"{names}: recorded {recorded}, lowered {lowered}, jax.numpy {expected}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "name, dtype", [(n, d) for n, r in ROWS.items() if r.order for d in ("float64", "complex128")[: 1 + r.complex]]
)
def test_derivatives(name: str, dtype: str) -> None:
    row = ROWS[name]

    def reference(*xs: Any) -> Any:
        return row.jnp(*xs, **row.params)

    operands = row.operands(np.dtype(dtype).char, seed=1)
    ours, theirs = call(name), reference
    if name in ("where", "polygamma"):
        first, *operands = operands
        fixed, n = (first.real, first.real) if name == "where" else (first, np.ones(first.shape, int))
        ours = functools.partial(call(name), fixed)
        theirs = functools.partial(reference, n)
    # JAX has 0 for the derivative of z / |z|: differences say otherwise.
    known = None if name == "sign" and dtype == "complex128" else theirs
    check_grads(ours, *operands, jax_fn=known, order=row.order)


# -- edges: what the derivative is where a formula has a pole, a jump or a tie


UNTAKEN = {
    # name: the function that is only defined for x > 0, and a point at which it is not
    "sqrt": (lambda x: tnp.sqrt(x), 0.0),
    "sqrt of a negative": (lambda x: tnp.sqrt(x), -1.0),
    "log": (lambda x: tnp.log(x), 0.0),
    "log2": (lambda x: tnp.log2(x), 0.0),
    "log10": (lambda x: tnp.log10(x), -2.0),
    "log1p": (lambda x: tnp.log1p(x - 1.0), 0.0),
    "div": (lambda x: 1.0 / x, 0.0),
    "div by itself": (lambda x: x / x, 0.0),
    "reciprocal": (lambda x: tnp.reciprocal(x), 0.0),
    "rsqrt": (lambda x: OPS["rsqrt"](x), 0.0),
    "cbrt": (lambda x: tnp.cbrt(x), 0.0),
    "power": (lambda x: tnp.power(x, 0.3), 0.0),
    "power of a negative": (lambda x: tnp.power(x, 0.3), -1.0),
    "power of two traced values": (lambda x: tnp.power(x, x), -0.5),
    "integer power": (lambda x: x**-2, 0.0),
    "arcsin": (lambda x: tnp.arcsin(1.0 - x), 0.0),
    "arcsin outside": (lambda x: tnp.arcsin(x), -2.0),
    "arccos": (lambda x: tnp.arccos(x - 1.0), 0.0),
    "arccosh": (lambda x: tnp.arccosh(x + 1.0), 0.0),
    "arctanh": (lambda x: tnp.arctanh(1.0 - x), 0.0),
    "erf_inv": (lambda x: OPS["erf_inv"](1.0 - x), 0.0),
    "logaddexp": (lambda x: tnp.logaddexp(tnp.log(x), tnp.log(x)), 0.0),
    "hypot": (lambda x: tnp.hypot(x, 0.0), 0.0),
}


@pytest.mark.parametrize("name", UNTAKEN)
def test_no_nan_from_a_path_that_was_not_taken(name: str) -> None:
    f, point = UNTAKEN[name]

    def safe(x: Any) -> Any:
        return tnp.where(x > 0, f(x), 0.0)

    assert float(tg.grad(safe)(point)) == 0.0
    inside = float(tg.grad(safe)(0.7))
    assert inside == float(tg.grad(f)(0.7))
    assert float(tg.grad(tg.grad(safe))(point)) == 0.0


@pytest.mark.parametrize("name, point", [("sqrt", 0.0), ("log", 0.0), ("cbrt", 0.0), ("reciprocal", 0.0)])
def test_a_pole_on_the_path_taken_is_not_hidden(name: str, point: float) -> None:
    assert not np.isfinite(tg.grad(getattr(tnp, name))(point))


@pytest.mark.parametrize(
    "f, points, expected",
    [
        (lambda x: OPS["relu"](x), [-1.0, 0.0, -0.0, 2.0], [0.0, 0.0, 0.0, 1.0]),
        (lambda x: abs(x), [-2.0, 0.0, -0.0, 2.0], [-1.0, 0.0, 0.0, 1.0]),
        (lambda x: tnp.sign(x), [-2.0, 0.0, 2.0], [0.0, 0.0, 0.0]),
        (lambda x: tnp.maximum(x, 1.0), [0.0, 1.0, 2.0], [0.0, 0.5, 1.0]),
        (lambda x: tnp.minimum(1.0, x), [0.0, 1.0, 2.0], [1.0, 0.5, 0.0]),
        (lambda x: tnp.fmax(x, 1.0), [0.0, 1.0, 2.0], [0.0, 0.5, 1.0]),
        (lambda x: tnp.fmin(x, 1.0), [0.0, 1.0, 2.0], [1.0, 0.5, 0.0]),
        (lambda x: tnp.maximum(x, x), [1.0, -1.0], [1.0, 1.0]),
        (lambda x: tnp.hypot(x, 0.0), [0.0, -2.0], [0.0, -1.0]),
        (lambda x: tnp.arctan2(x, 0.0), [0.0, 2.0], [0.0, 0.0]),
        (lambda x: x**0, [0.0, 2.0], [0.0, 0.0]),
        (lambda x: x**1, [0.0, 2.0], [1.0, 1.0]),
        (lambda x: x**2, [0.0, 2.0], [0.0, 4.0]),
        (lambda x: tnp.power(x, 1.5), [0.0, 4.0], [0.0, 3.0]),
        (lambda x: tnp.power(0.0, x), [1.0, 2.0], [0.0, 0.0]),
        (lambda x: tnp.power(2.0, x), [0.0], [math.log(2)]),
        (lambda x: tnp.logaddexp(x, x), [1e4, -1e4], [1.0, 1.0]),
        (lambda x: tnp.logaddexp(x, -np.inf), [1.0], [1.0]),
        (lambda x: tnp.logaddexp(x, 0.0), [1e4, -1e4, 0.0, np.inf, -np.inf], [1.0, 0.0, 0.5, 1.0, 0.0]),
        (lambda x: tnp.logaddexp(0, x), [1e4, -1e4, 0.0, -30.0], [1.0, 0.0, 0.5, math.exp(-30)]),
        (lambda x: OPS["softplus"](x), [1e4, -1e4, 0.0, -30.0], [1.0, 0.0, 0.5, math.exp(-30)]),
        (lambda x: OPS["logistic"](x), [1e4, -1e4, 0.0], [0.0, 0.0, 0.25]),
        (lambda x: tnp.tanh(x), [1e4, -1e4, 0.0], [0.0, 0.0, 1.0]),
        (lambda x: tnp.nan_to_num(x), [1.0, np.nan, np.inf], [1.0, 0.0, 0.0]),
    ],
)
def test_subgradients_and_limits(f: Any, points: list[float], expected: list[float]) -> None:
    grads = tg.grad(lambda x: tnp.sum(f(x)))(np.array(points, np.float32))
    np.testing.assert_allclose(grads, expected, rtol=1e-6)


def test_astype_converts_the_cotangent_back() -> None:
    check_grads(lambda x: OPS["astype"](tnp.sin(x), dtype=np.dtype("D")) * (1 + 2j), np.array([0.3, 0.8]))
    gradient = tg.grad(lambda x: tnp.sum(OPS["astype"](x, dtype=np.dtype("f")) * 3.0))(jnp.ones(2, "bfloat16"))
    assert gradient.dtype == jnp.bfloat16
    assert float(tg.grad(lambda x: OPS["astype"](x, dtype=np.dtype("i")) * 2.0)(3.7)) == 0.0


def test_real_functions_of_complex_numbers_have_the_gradient_of_jax() -> None:
    z = np.array([0.3 + 0.4j, -1.0 + 0.2j])
    for f in (
        lambda z, n: n.sum(abs(z)),
        lambda z, n: n.sum((z * z.conj()).real),
        lambda z, n: n.sum(n.real(z) * n.imag(z)),
        lambda z, n: n.sum(n.exp(z).imag),
        lambda z, n: n.sum(n.sin(z.real + z)).real,
        lambda z, n: n.sum(z.real / z).imag,
    ):
        check_grads(lambda z, f=f: f(z, tnp), z, jax_fn=lambda z, f=f: f(z, jnp))
    holomorphic = tg.grad(lambda z: tnp.sin(z) * z, holomorphic=True)(0.3 + 0.4j)
    np.testing.assert_allclose(holomorphic, np.cos(0.3 + 0.4j) * (0.3 + 0.4j) + np.sin(0.3 + 0.4j), rtol=1e-6)
