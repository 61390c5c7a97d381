"""Second derivatives at special points: where a rule selects a case (a tie, 0, a pole), or a formula has one.

A special case that is a constant is right as a number and wrong as a function. Each is held, in all pairs of operands,
against differences of the gradient around the point where these have a limit, and against formulas.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tests.ops.test_elementwise import OPS as ELEMENTWISE
from tests.ops.test_elementwise import ROWS
from tests.reference import x64
from tracegrad import nn, ops
from tracegrad.op import Op
from tracegrad.scipy import linalg as sl
from tracegrad.scipy import special as ts

INF, LOG2 = math.inf, math.log(2)
linalg: Any = tnp.linalg

# -- every elementwise op, at special values of its operands

_MODULES = [import_module(f"tracegrad.ops.{name}") for name in ("special", "bessel")]
SPECIAL_FUNCTIONS = {name: getattr(module, name) for module in _MODULES for name in module.__all__}
OPS = {n: op for n, op in (SPECIAL_FUNCTIONS | ELEMENTWISE).items() if isinstance(op, Op) and op.vjp is not None}


class Sweep(NamedTuple):
    """An op as a function of real numbers, and the values that its operands take in all combinations.

    It has no derivative, or none that is implemented, in the first `fixed` of them.
    """

    values: tuple[Sequence[float], ...]
    fn: Callable[..., Any] | None = None
    fixed: int = 0


ALONE = (0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 3.0, 0.5)
PAIR = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, 3.0)
FEW = (0.0, 1.0, 2.0, 0.5)
SIDES = (*ALONE, INF, -INF)
SWEEPS: dict[str, Sweep] = {
    **dict.fromkeys(
        (
            "alias", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctanh", "astype", "cbrt", "conj", "cos",
            "cosh", "dawsn", "digamma", "erf", "erf_inv", "erfc", "erfcx", "exp2", "expi", "expm1", "gamma", "i0",
            "i0e", "i1", "i1e", "imag", "integer_pow", "lgamma", "log", "log10", "log1p", "log2", "log_ndtr", "logit",
            "ndtri", "neg", "one_minus_square", "real", "reciprocal", "reduce_precision", "rsqrt", "sin", "sinh",
            "spence", "sqrt", "square", "tan",
        ),
        Sweep((ALONE,)),
    ),
    **dict.fromkeys(("abs_", "exp", "logistic", "nan_to_num", "relu", "sign", "softplus", "tanh"), Sweep((SIDES,))),
    **dict.fromkeys(
        (
            "add", "arctan2", "beta", "betaln", "boxcox", "boxcox1p", "copysign", "difference", "div", "div_no_nan_op",
            "fmax", "fmin", "fmod", "hypot", "maximum", "minimum", "mul", "mul_either_op", "mul_no_nan_op", "owens_t",
            "pow_", "power_log", "rel_entr", "remainder", "sub", "xlog1py", "xlogy",
        ),
        Sweep((PAIR, PAIR)),
    ),
    **dict.fromkeys(("logaddexp", "logaddexp2"), Sweep((PAIR, (*PAIR, -INF)))),
    "where": Sweep((FEW, FEW), lambda x, y: ops.where(ops.greater(x, y), ops.mul(x, y), ops.add(y, y))),
    "complex_": Sweep((PAIR, PAIR), lambda x, y: tnp.real(ops.complex_(x, y) ** 3)),
    "wofz": Sweep((PAIR, PAIR), lambda x, y: tnp.imag(ops.wofz(ops.complex_(x, y)))),
    "polygamma": Sweep(((0, 1, 2), PAIR), fixed=1),
    "zeta": Sweep(((2.0, 3.0), PAIR), fixed=1),
    "gammainc": Sweep((FEW, PAIR), fixed=1),
    "gammaincc": Sweep((FEW, PAIR), fixed=1),
    "gammainc_grad_a": Sweep(((1.0, 2.0, 0.5), PAIR), fixed=1),
    "expn": Sweep(((0.0, 1.0, 2.0, 4.0), PAIR), fixed=1),
    "betainc": Sweep(((1.0, 2.0, 3.0), (1.0, 2.0, 3.0), (0.0, 0.5, 1.0)), fixed=2),
    "gamma_density": Sweep(((*FEW, -1.0), FEW, FEW)),
    "beta_density": Sweep((FEW, FEW, FEW, (0.0, 1.0))),
    "fresnel": Sweep((ALONE,), lambda x: ops.add(*ops.fresnel(x))),
    "sici": Sweep((ALONE,), lambda x: ops.add(*ops.sici(x))),
    **dict.fromkeys(("jn", "iv", "ive"), Sweep(((0.0, 1.0, 2.0, 3.0), ALONE), fixed=1)),
    "yn": Sweep(((0.0, 1.0, 2.0, 3.0), (1.0, 2.0, 3.0, 0.5)), fixed=1),
    "hyp1f1": Sweep(((1.0, 2.0), (1.0, 2.0), (0.0, 1.0, -1.0)), fixed=2),
    "hyp2f1": Sweep(((1.0, 2.0), (1.0, 2.0), (2.0, 3.0), (0.0, 0.5, -0.5)), fixed=3),
}  # fmt: skip
KEPT = {"reduce_precision": {"exponent_bits": 11, "mantissa_bits": 52}, "astype": {"dtype": np.dtype("d")}}
"""Parameters with which an op is smooth to rounding, in place of those of its row."""


def test_every_elementwise_op_with_a_derivative_is_swept() -> None:
    assert sorted(SWEEPS) == sorted(OPS)


def function(name: str) -> Callable[..., Any]:
    params = KEPT.get(name) or (ROWS[name].params if name in ROWS else {})
    return SWEEPS[name].fn or functools.partial(OPS[name], **params)


def grid(name: str, dtype: Any = np.float64) -> list[np.ndarray]:
    columns = np.array(list(itertools.product(*SWEEPS[name].values)), dtype).T
    return [x.astype(int) if name == "polygamma" and not k else x for k, x in enumerate(columns)]


Points = dict[str, list[Any]]


def split(points: Points) -> tuple[Points, Points]:
    """The operands in which there is no derivative, and the others."""
    return (
        {n: xs[: SWEEPS[n].fixed] for n, xs in points.items()},
        {n: xs[SWEEPS[n].fixed :] for n, xs in points.items()},
    )


def gradients(fixed: Points) -> Callable[[Points], Points]:
    return tg.grad(lambda points: sum(tnp.sum(function(n)(*fixed[n], *xs)) for n, xs in points.items()))


def tangents(points: Points, k: int) -> Points:
    return {n: [np.full_like(x, float(i == k)) for i, x in enumerate(xs)] for n, xs in points.items()}


def reverse(fixed: Points, points: Points) -> list[Points]:
    """The derivatives of the `k`-th elements of the gradients, for each `k`."""
    count = max(map(len, points.values()))
    return [
        tg.grad(lambda p, k=k: sum((tnp.sum(g[k]) for g in gradients(fixed)(p).values() if k < len(g)), 0.0))(points)
        for k in range(count)
    ]


def forward(fixed: Points, points: Points) -> list[Points]:
    count = max(map(len, points.values()))
    return [tg.jvp(gradients(fixed), (points,), (tangents(points, k),))[1] for k in range(count)]


def mixed(fixed: Points, points: Points) -> list[Points]:
    """Gradients of directional derivatives."""

    def along(p: Points, k: int) -> Any:
        def value(p: Points) -> Any:
            return {n: function(n)(*fixed[n], *xs) for n, xs in p.items()}

        pushed = tg.jvp(value, (p,), (tangents(points, k),))[1]
        return sum(tnp.sum(t) for t in pushed.values())

    count = max(map(len, points.values()))
    return [tg.grad(lambda p, k=k: along(p, k))(points) for k in range(count)]


STEP = 1e-4


def limits(gradient: Callable[[Any], Any], moved: Callable[[float], Any]) -> tuple[np.ndarray, np.ndarray]:
    """The derivative of the gradient where it is moved by a small number, and where there is one.

    There is one where the differences to both sides have one limit.
    """
    centre = np.asarray(gradient(moved(0.0)))
    with np.errstate(all="ignore"):
        up, up2, down, down2 = [
            (np.asarray(gradient(moved(h))) - centre) / h for h in (STEP, STEP / 2, -STEP, -STEP / 2)
        ]
        # Richardson's extrapolation: the error of a difference to one side is proportional to the step.
        above, below = 2 * up2 - up, 2 * down2 - down
        value = (above + below) / 2
        size = 1 + np.abs(value)
        steady = np.maximum(np.abs(up - up2), np.abs(down - down2)) < 5e-3 * size
        return value, steady & (np.abs(above - below) < 5e-5 * size)


def differences(name: str) -> tuple[np.ndarray, np.ndarray]:
    """The second derivatives of an op on its grid (operand of the gradient, operand, point), and where they exist."""
    fixed, points = split({name: grid(name)})
    first = tg.jit(lambda points: tnp.stack(gradients(fixed)(points)[name]))
    each = [
        limits(first, lambda h, k=k: {name: [x + h * (i == k) for i, x in enumerate(points[name])]})
        for k in range(len(points[name]))
    ]
    return np.stack([v for v, _ in each], 1), np.stack([e for _, e in each], 1)


def wrong_ones(name: str, found: Any, expected: np.ndarray, exists: np.ndarray, how: str, rtol: float) -> list[str]:
    with np.errstate(all="ignore"):
        wrong = exists & ~(np.abs(found - expected) <= rtol * (1 + np.abs(expected)))
    points = grid(name)
    return [
        f"{name}{tuple(float(x[p]) for x in points)}, operands {i} and {k}, {how}: {found[i, k, p]}, differences of "
        f"the gradient give {expected[i, k, p]:.6g}"
        for i, k, p in np.argwhere(wrong)
    ]


@pytest.mark.parametrize("name", SWEEPS)
def test_second_derivatives_at_special_values(name: str) -> None:
    with x64():
        expected, exists = differences(name)
        assert exists.any()
        fixed, points = split({name: grid(name)})
        ways = {"grad of grad": reverse, "jvp of grad": forward, "grad of jvp": mixed}
        found = tg.jit(lambda points: {how: way(fixed, points) for how, way in ways.items()})(points)
    wrong: list[str] = []
    for how, rows in found.items():
        hessian = np.stack([np.stack(row[name]) for row in rows], 0 if how != "jvp of grad" else 1)
        wrong += wrong_ones(name, hessian, expected, exists, how, 1e-4)
    assert not wrong, "\n".join(wrong)


GROUPS = [list(SWEEPS)[i::12] for i in range(12)]


@pytest.mark.parametrize("names", GROUPS, ids=lambda names: names[0])
def test_second_derivatives_undecorated_and_in_float32(names: list[str]) -> None:
    """Those of several ops in one recording, against the same under `@jit` in float64, where they are finite."""
    with x64():
        fixed, points = split({n: grid(n) for n in names})
        wide = tg.jit(lambda points: reverse(fixed, points))(points)
        undecorated = reverse(fixed, points)
    fixed, points = (
        {n: [x.astype(x.dtype.char.replace("d", "f")) for x in xs] for n, xs in part.items()}
        for part in (fixed, points)
    )
    narrow = tg.jit(lambda points: reverse(fixed, points))(points)
    wrong = []
    for k, row in enumerate(wide):
        for n, columns in row.items():
            for i, e in enumerate(map(np.asarray, columns)):
                use = np.isfinite(e)
                if not np.allclose(undecorated[k][n][i][use], e[use], rtol=1e-9, atol=1e-9):
                    wrong.append(f"{n}, operands {k} and {i}: {undecorated[k][n][i]}, under @jit {e}")
                use &= np.abs(e) < 1e6
                if not np.allclose(narrow[k][n][i][use], e[use], rtol=2e-3, atol=2e-4):
                    wrong.append(f"{n}, operands {k} and {i}, in float32: {narrow[k][n][i]}, in float64 {e}")
    assert not wrong, "\n".join(wrong)


# -- formulas: Hessians that are known


class Point(NamedTuple):
    """A function of a vector or a matrix, where it is taken, and its Hessian there, if a formula is known."""

    fn: Callable[[Any], Any]
    at: Any
    hessian: Any = None


def two(fn: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    return lambda x: fn(x[0], x[1])


def symmetric(xx: float, xy: float, yy: float) -> list[list[float]]:
    return [[xx, xy], [xy, yy]]


def spectral(fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda a: fn(linalg.eigvalsh(a + a.T))


def of_trace(kind: Callable[[np.ndarray, np.ndarray], float], at: Any) -> np.ndarray:
    """The Hessian of a function of `s = a + a.T` whose second derivative in two directions is `kind`."""
    n = len(at)
    units = np.eye(n * n).reshape(n, n, n, n)
    return np.array([[[[kind(u + u.T, v + v.T) for v in vs] for vs in units] for u in us] for us in units])


def inverse(at: Any) -> np.ndarray:
    return np.linalg.inv(np.asarray(at) + np.asarray(at).T)


TURN = np.linalg.qr(np.arange(9.0).reshape(3, 3) ** 2 - 5)[0]
TIED = TURN @ np.diag([1.0, 1.0, 3.0]) @ TURN.T
"""A matrix whose two equal eigenvalues are equal up to rounding."""
RANK_3 = np.diag([0.0, 1.0, 2.0, 3.0]) + np.array([0.0, 1.0, 0.0, 0.0]) * np.arange(4.0)[:, None]


def hessian_of_determinant(at: Any) -> np.ndarray:
    """Of the polynomial: minors without two rows and two columns, with their signs."""
    n, at = len(at), np.asarray(at)
    out = np.zeros((n, n, n, n))
    for (i, k), (j, m) in itertools.product(itertools.permutations(range(n), 2), repeat=2):
        rows = [r for r in range(n) if r not in (i, k)]
        columns = [c for c in range(n) if c not in (j, m)]
        sign = (-1.0) ** (i + j + k + m) * (1 if (i < k) == (j < m) else -1)
        out[i, j, k, m] = sign * np.linalg.det(at[np.ix_(rows, columns)])
    return out


POINTS: dict[str, Point] = {
    # power and its relatives
    "power(x, 0)": Point(two(tnp.power), [2.0, 0.0], symmetric(0.0, 0.5, LOG2**2)),
    "power(1, 0)": Point(two(tnp.power), [1.0, 0.0], symmetric(0.0, 1.0, 0.0)),
    "power(1, 1)": Point(two(tnp.power), [1.0, 1.0], symmetric(0.0, 1.0, 0.0)),
    "power(x, 1)": Point(two(tnp.power), [2.0, 1.0], symmetric(0.0, 1 + LOG2, 2 * LOG2**2)),
    "power(0, 2)": Point(two(tnp.power), [0.0, 2.0], symmetric(2.0, 0.0, 0.0)),
    "power(0, 3)": Point(two(tnp.power), [0.0, 3.0], symmetric(0.0, 0.0, 0.0)),
    "x ** 0 * y": Point(two(lambda x, y: x**0 * y), [0.0, 1.0], symmetric(0.0, 0.0, 0.0)),
    "x ** 1 * y": Point(two(lambda x, y: x**1 * y), [0.0, 1.0], symmetric(0.0, 1.0, 0.0)),
    "x ** 2 * y": Point(two(lambda x, y: x**2 * y), [0.0, 1.0], symmetric(2.0, 0.0, 0.0)),
    "power(-1, 2)": Point(lambda x: tnp.power(x[0], 2.0), [-1.0], [[2.0]]),
    "boxcox(x, 0)": Point(two(ts.boxcox), [2.0, 0.0], symmetric(-0.25, LOG2 / 2, LOG2**3 / 3)),
    "boxcox(1, 0)": Point(two(ts.boxcox), [1.0, 0.0], symmetric(-1.0, 0.0, 0.0)),
    "boxcox1p(0, 0)": Point(two(ts.boxcox1p), [0.0, 0.0], symmetric(-1.0, 0.0, 0.0)),
    "poch(x, 0)": Point(
        two(ts.poch), [1.0, 0.0], symmetric(0.0, math.pi**2 / 6, float(np.euler_gamma) ** 2 + math.pi**2 / 6)
    ),
    # logarithms
    "xlogy(0, y)": Point(two(ts.xlogy), [0.0, 2.0], symmetric(0.0, 0.5, 0.0)),
    "xlogy(0, 1)": Point(two(ts.xlogy), [0.0, 1.0], symmetric(0.0, 1.0, 0.0)),
    "xlog1py(0, y)": Point(two(ts.xlog1py), [0.0, 1.0], symmetric(0.0, 0.5, 0.0)),
    "rel_entr at a tie": Point(two(ts.rel_entr), [2.0, 2.0], symmetric(0.5, -0.5, 0.5)),
    "kl_div at a tie": Point(two(ts.kl_div), [2.0, 2.0], symmetric(0.5, -0.5, 0.5)),
    "logaddexp at a tie": Point(two(tnp.logaddexp), [1.0, 1.0], symmetric(0.25, -0.25, 0.25)),
    "logaddexp(x, -inf)": Point(two(tnp.logaddexp), [1.0, -INF], symmetric(0.0, 0.0, 0.0)),
    "logaddexp(x, 0)": Point(
        lambda x: tnp.sum(tnp.logaddexp(x, 0.0)), [0.0, 1e4, -1e4, INF, -INF], np.diag([0.25, 0.0, 0.0, 0.0, 0.0])
    ),
    "logaddexp(0, x)": Point(lambda x: tnp.sum(tnp.logaddexp(0, x)), [0.0, 1e4, -1e4], np.diag([0.25, 0.0, 0.0])),
    "log_sigmoid": Point(
        lambda x: tnp.sum(tg.nn.log_sigmoid(x)), [0.0, 1e4, -1e4, INF], np.diag([-0.25, 0.0, 0.0, 0.0])
    ),
    "logaddexp2 at a tie": Point(
        two(tnp.logaddexp2), [1.0, 1.0], symmetric(LOG2 / 4, -LOG2 / 4, LOG2 / 4)
    ),
    "logsumexp at a tie": Point(tnp.logsumexp, [3.0, 3.0], symmetric(0.25, -0.25, 0.25)),
    "logsumexp(x, -inf)": Point(tnp.logsumexp, [3.0, -INF], symmetric(0.0, 0.0, 0.0)),
    "cumlogsumexp at a tie": Point(
        lambda x: tnp.sum(tg.lax.cumlogsumexp(x)), [3.0, 3.0], symmetric(0.25, -0.25, 0.25)
    ),
    # a branch that is not taken
    "where(x > 0, x * log(x), 0)": Point(
        lambda x: tnp.where(x[0] > 0, x[0] * tnp.log(x[0]), 0), [0.0], [[0.0]]
    ),
    "where(x > 0, x * log(x) * y, y ** 2)": Point(
        two(lambda x, y: tnp.where(x > 0, x * tnp.log(x) * y, y**2)), [0.0, 1.0], symmetric(0.0, 0.0, 2.0)
    ),
    "where(x > 0, sqrt(x) * y, y ** 2)": Point(
        two(lambda x, y: tnp.where(x > 0, tnp.sqrt(x) * y, y**2)), [0.0, 1.0], symmetric(0.0, 0.0, 2.0)
    ),
    "where(x != 0, y / x, y ** 2)": Point(
        two(lambda x, y: tnp.where(x != 0, y / x, y**2)), [0.0, 1.0], symmetric(0.0, 0.0, 2.0)
    ),
    "where(x > 0, x ** y, x * y)": Point(
        two(lambda x, y: tnp.where(x > 0, x**y, x * y)), [0.0, 0.5], symmetric(0.0, 1.0, 0.0)
    ),
    # 0 / 0 in a formula
    "sinc": Point(lambda x: tnp.sinc(x[0]), [0.0], [[-(math.pi**2) / 3]]),
    "sine integral": Point(lambda x: ts.sici(x[0])[0] * x[0], [0.0], [[2.0]]),
    "i1": Point(lambda x: ts.i1(x[0]) * x[0], [0.0], [[1.0]]),
    "bessel_jn": Point(lambda x: tnp.sum(ts.bessel_jn(x[0], v=2)), [0.0], [[-0.25]]),
    "spence": Point(lambda x: ts.spence(x[0]), [1.0], [[0.5]]),
    "hypot(0, y)": Point(two(tnp.hypot), [0.0, 2.0], symmetric(0.5, 0.0, 0.0)),
    "arctan2(y, 0)": Point(two(tnp.arctan2), [2.0, 0.0], symmetric(0.0, 0.25, 0.0)),
    "angle": Point(two(lambda x, y: tnp.angle(x + 1j * y)), [2.0, 0.0], symmetric(0.0, -0.25, 0.0)),
    "abs of a complex number": Point(two(lambda x, y: tnp.abs(x + 1j * y)), [0.0, 2.0], symmetric(0.5, 0.0, 0.0)),
    "norm": Point(linalg.norm, [0.0, 2.0], symmetric(0.5, 0.0, 0.0)),
    "norm(x, 4)": Point(lambda x: linalg.norm(x, 4), [0.0, 2.0], symmetric(0.0, 0.0, 0.0)),
    "gelu": Point(lambda x: nn.gelu(x[0], approximate=False), [0.0], [[2 / math.sqrt(2 * math.pi)]]),
    "betainc at 0": Point(lambda x: ts.betainc(2.0, 3.0, x[0]), [0.0], [[12.0]]),
    "betainc at 1": Point(lambda x: ts.betainc(3.0, 2.0, x[0]), [1.0], [[-12.0]]),
    "gammainc at 0": Point(lambda x: ts.gammainc(2.0, x[0]), [0.0], [[1.0]]),
    # ties share the gradient, and their shares are constant
    "max * x at a tie": Point(lambda x: tnp.max(x) * x[0], [1.0, 1.0], symmetric(1.0, 0.5, 0.0)),
    "maximum(x, y) ** 2 at a tie": Point(two(lambda x, y: tnp.maximum(x, y) ** 2), [1.0, 1.0], symmetric(.5, .5, .5)),
    "clip(x, y, 2) * x at a tie": Point(two(lambda x, y: tnp.clip(x, y, 2) * x), [1.0, 1.0], symmetric(1.0, 0.5, 0.0)),
    "sum of cubes, sorted": Point(lambda x: tnp.sum(tnp.sort(x) ** 3), [1.0, 1.0], symmetric(6.0, 0.0, 6.0)),
    # products with zeros among the factors
    "prod, one zero": Point(tnp.prod, [0.0, 2.0], symmetric(0.0, 1.0, 0.0)),
    "prod, two zeros": Point(tnp.prod, [0.0, 0.0, 3.0], [[0.0, 3.0, 0.0], [3.0, 0.0, 0.0], [0.0, 0.0, 0.0]]),
    "cumprod": Point(lambda x: tnp.sum(tnp.cumprod(x)), [0.0, 0.0], symmetric(0.0, 1.0, 0.0)),
    "scatter_multiply": Point(
        lambda x: tnp.sum(tnp.asarray(x).at[0].multiply(x[1])), [0.0, 0.0], symmetric(0.0, 1.0, 0.0)
    ),
    "var": Point(tnp.var, [1.0, 1.0], symmetric(0.5, -0.5, 0.5)),
    # the spectrum: tr(s s), tr(s s s), log det s and tr exp(s), of s = a + a.T
    "sum(eigvalsh ** 2)": Point(
        spectral(lambda w: (w**2).sum()), np.eye(3), of_trace(lambda u, v: 2 * np.trace(u @ v), np.eye(3))
    ),
    "sum(eigvalsh ** 2) at 0": Point(
        spectral(lambda w: (w**2).sum()), np.zeros((3, 3)), of_trace(lambda u, v: 2 * np.trace(u @ v), np.eye(3))
    ),
    "sum(eigvalsh ** 3)": Point(
        spectral(lambda w: (w**3).sum()), TIED,
        of_trace(lambda u, v: 6 * np.trace(TIED @ (u @ v + v @ u)), TIED),
    ),
    "sum(log(eigvalsh)), one pair tied": Point(
        spectral(lambda w: tnp.log(w).sum()), TIED,
        of_trace(lambda u, v: -np.trace(inverse(TIED) @ u @ inverse(TIED) @ v), TIED),
    ),
    "sum(log(eigvalsh))": Point(
        spectral(lambda w: tnp.log(w).sum()), np.eye(3), of_trace(lambda u, v: -np.trace(u @ v) / 4, np.eye(3))
    ),
    "sum(exp(eigvalsh))": Point(
        spectral(lambda w: tnp.exp(w).sum()), np.eye(2), of_trace(lambda u, v: math.e**2 * np.trace(u @ v), np.eye(2))
    ),
    "sum(eigvalsh) ** 2": Point(
        spectral(lambda w: w.sum() ** 2), np.eye(2), of_trace(lambda u, v: 2 * np.trace(u) * np.trace(v), np.eye(2))
    ),
    "det of a zero matrix": Point(linalg.det, np.zeros((3, 3)), hessian_of_determinant(np.zeros((3, 3)))),
    "det of one of rank 2": Point(
        linalg.det, np.diag([0.0, 0.0, 2.0, 3.0]), hessian_of_determinant(np.diag([0.0, 0.0, 2.0, 3.0]))
    ),
    "det of one of rank 3": Point(linalg.det, RANK_3, hessian_of_determinant(RANK_3)),
    # more of the rules that select a case, held against differences
    "cumprod, squared": Point(lambda x: tnp.sum(tnp.cumprod(x) ** 2), [0.0, 2.0, 3.0]),
    "cumprod, reversed": Point(
        lambda x: tnp.sum(tg.lax.cumprod(x, reverse=True) * np.arange(1.0, 4.0)), [2.0, 0.0, 0.0]
    ),
    "scatter_multiply, twice": Point(
        lambda x: tnp.sum(tnp.asarray(x).at[np.array([0, 0])].multiply(x[1:]) ** 2), [2.0, 0.0, 0.0]
    ),
    "scatter_max": Point(lambda x: tnp.sum(tnp.asarray(x).at[np.array([0, 1])].max(x[1:]) ** 3), [0.0, 2.0, 1.0]),
    "softmax": Point(lambda x: nn.softmax(x)[0] ** 2, [1.0, 1.0, 1.0]),
    "log_softmax": Point(lambda x: nn.log_softmax(x)[0] ** 2, [1.0, 1.0, 1.0]),
    "linear_recurrence": Point(lambda x: tnp.sum(ops.linear_recurrence(x, x * x, axis=0) ** 2), [0.0, 0.0, 1.0]),
    "norm(x, inf)": Point(lambda x: linalg.norm(x, np.inf) * x[1], [2.0, 1.0]),
    "logit loss": Point(
        lambda x: nn.losses.binary_cross_entropy(x, np.array([1.0, 0.0]), from_logits=True), [0.0, 0.0]
    ),
    "huber at a hit": Point(lambda x: nn.losses.huber(x, np.array([1.0, 0.0])), [1.0, 0.5]),
    "slogdet": Point(lambda a: linalg.slogdet(a)[1], np.eye(3)),
    "inv": Point(lambda a: tnp.sum(linalg.inv(a) * np.arange(9.0).reshape(3, 3)), np.eye(3)),
    "cholesky": Point(lambda a: tnp.sum(linalg.cholesky(a) * np.arange(9.0).reshape(3, 3)), np.eye(3)),
    "qr": Point(lambda a: tnp.sum(linalg.qr(a)[1] ** 2 * np.arange(9.0).reshape(3, 3)), np.eye(3)),
    "pinv": Point(lambda a: tnp.sum(linalg.pinv(a) * np.arange(6.0).reshape(3, 2)), np.eye(2, 3)),
    "expm": Point(lambda a: tnp.sum(sl.expm(a) * np.arange(4.0).reshape(2, 2)), np.zeros((2, 2))),
    "sqrtm": Point(lambda a: tnp.sum(tnp.real(sl.sqrtm(a)) * np.arange(4.0).reshape(2, 2)), np.eye(2)),
    "polar": Point(lambda a: tnp.sum(sl.polar(a)[0] * np.arange(4.0).reshape(2, 2)), np.eye(2)),
    "matrix_power": Point(lambda a: tnp.sum(linalg.matrix_power(a, 3)), np.zeros((2, 2))),
}  # fmt: skip


WAYS: dict[str, Callable[[Any], Any]] = {
    "grad of grad": tg.hessian,
    "jvp of grad": lambda fn: tg.jacfwd(tg.grad(fn)),
    "of a @jit function": lambda fn: tg.hessian(tg.jit(fn)),
}


@pytest.mark.parametrize("name", POINTS)
def test_hessian(name: str) -> None:
    """Against its formula, and against differences of the gradient where these have a limit."""
    point = POINTS[name]
    at = np.asarray(point.at, np.float64)

    def fn(x: Any) -> Any:
        return tnp.sum(point.fn(x))

    with x64():
        found = tg.jit(lambda x: {how: way(fn)(x) for how, way in WAYS.items()})(at)
        found["undecorated"] = tg.hessian(fn)(at)
        first = tg.jit(tg.grad(fn))
        units = np.eye(at.size).reshape(at.size, *at.shape)
        columns = [limits(first, lambda h, u=u: at + h * u) for u in units]
    value, exists = (np.stack([c[k].ravel() for c in columns], 1) for k in (0, 1))
    expected = np.reshape(point.hessian, (at.size, at.size)) if point.hessian is not None else None
    assert expected is not None or exists.all(), "no formula, and no limit of the differences"
    for how, hessian in found.items():
        hessian = np.asarray(hessian).reshape(at.size, at.size)
        np.testing.assert_allclose(hessian[exists], value[exists], rtol=1e-4, atol=1e-4, err_msg=how)
        if expected is not None:
            np.testing.assert_allclose(hessian, expected, rtol=1e-10, atol=1e-10, err_msg=how)
    wide = np.asarray(found["undecorated"])
    size = np.max(np.abs(wide), initial=1.0)
    np.testing.assert_allclose(tg.jit(tg.hessian(fn))(at.astype(np.float32)), wide, rtol=1e-3, atol=1e-3 * size)
