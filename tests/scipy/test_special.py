"""Special functions against SciPy in value, and against jax.grad and central differences in derivatives."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import pytest
import scipy.special as sp
from jax.scipy import special as jsp

import tracegrad as tg
import tracegrad.numpy as tnp
from tests.reference import check_grads, check_value, x64
from tracegrad.scipy import special as ts

ANY = np.array([-2.3, -0.6, 0.4, 1.7, 6.5])
POSITIVE = np.array([0.2, 0.9, 1.3, 4.5])
GAMMA = np.array([-2.6, -0.4, 0.7, 3.5])
UNIT = np.array([0.02, 0.3, 0.6, 0.95])
EDGES = np.array([0.0, -0.0, -1.0, -0.5, 1.0, 1e-10, 30.0, np.inf, -np.inf, np.nan])
UNIT_EDGES = np.array([0.0, 1.0, 0.5, 1e-10, -0.1, 1.1, np.nan])


@dataclass
class Case:
    """Operands at which a function is smooth, and others at its edges; `jax` is False where JAX is less precise.

    `variable` counts the operands, from the last, in which it has a derivative.
    """

    points: tuple[np.ndarray, ...]
    edges: tuple[np.ndarray, ...] = ()
    jax: bool = True
    order: int = 2
    variable: int = 9
    options: Any = None
    reference: Callable[..., Any] | None = None

    def call(self, function: Callable[..., Any], *xs: Any) -> Any:
        return function(*xs, **(self.options or {}))


def one(points: np.ndarray, edges: np.ndarray = EDGES, **kwargs: Any) -> Case:
    return Case((points,), (edges,), **kwargs)


def pairs(*values: float) -> tuple[np.ndarray, ...]:
    x, y = np.meshgrid(np.array(values), np.array(values))
    return x, y


A, B, X = np.array([0.5, 2.5, 30.0, 2.0]), np.array([1.5, 40.0, 12.5, 2.0]), np.array([0.3, 0.8, 0.2, 0.6])
ORDERS = np.array([0.0, 1.0, 2.0, 50.0])
SMALL = pairs(0.0, 0.4, 1.0, 3.0, np.inf)
SIGNED = pairs(0.0, -1.5, 0.4, 1.0, np.inf, np.nan)

BESSEL_EDGES = np.array([0.0, -0.0, -3.0, 1e-12, 24.9, 25.1, 300.0, np.nan])
BESSEL_ORDERS = np.array([0.0, 1.0, 2.0, 7.0, 0.5, 2.5, 0.3, -2.0, -0.5, -3.3, 40.0])
BESSEL_POINTS = np.array([0.3, -2.0, 3.5, -4.0, 3.0, 2.8, 4.0, 1.5, 5.0, 4.0, 35.0])

CASES: dict[str, Case] = {
    "erf": one(ANY),
    "erfc": one(ANY),
    "erfcx": one(ANY, np.array([-30.0, -1.0, 0.0, 4.9, 5.1, 1e5, np.inf, np.nan])),
    "erfinv": one(UNIT, UNIT_EDGES),
    "dawsn": one(ANY),
    "ndtr": one(ANY),
    "ndtri": one(UNIT, UNIT_EDGES),
    "log_ndtr": one(ANY, np.array([-1e5, -40.0, -7.2, -7.0, -1.0, 0.0, 9.0, 40.0, np.inf, -np.inf, np.nan]), jax=False),
    "expit": one(ANY),
    "logit": one(UNIT, UNIT_EDGES),
    "entr": one(POSITIVE),
    "gammaln": one(GAMMA, EDGES[-np.inf != EDGES]),
    "loggamma": one(POSITIVE),
    "gamma": one(GAMMA),
    "gammasgn": one(GAMMA),
    "digamma": one(GAMMA, jax=False),
    "factorial": one(POSITIVE),
    "expi": one(np.array([-3.0, -0.3, 0.7, 5.0]), np.append(EDGES, 45.0), jax=False),
    "exp1": one(np.array([0.2, 0.9, 1.3, 4.5]), jax=False),
    "spence": one(np.array([0.3, 0.999, 1.004, 3.0]), np.append(EDGES, 1.0), jax=False),
    "sici": one(np.array([0.2, 2.5, 6.0])),
    "fresnel": one(np.array([-1.2, 0.2, 2.5])),
    "i0": one(ANY),
    "i0e": one(ANY),
    "i1": one(ANY),
    "i1e": one(ANY),
    "bessel_jn": one(
        POSITIVE,
        np.array([0.0, -1.0, 10.0]),
        options={"v": 3},
        reference=lambda z, v: np.stack([sp.jn(k, z) for k in range(v + 1)]),
    ),
    "j0": one(ANY, BESSEL_EDGES, jax=False),
    "j1": one(ANY, BESSEL_EDGES, jax=False),
    "y0": one(POSITIVE, BESSEL_EDGES, jax=False),
    "y1": one(POSITIVE, BESSEL_EDGES, jax=False),
    "jn": Case((BESSEL_ORDERS, BESSEL_POINTS), jax=False, variable=1),
    "iv": Case((BESSEL_ORDERS, BESSEL_POINTS), jax=False, variable=1),
    "ive": Case((BESSEL_ORDERS, BESSEL_POINTS), jax=False, variable=1),
    "yn": Case((np.array([0, 1, 2, 5, -3]), np.array([0.3, 7.5, 2.5, 30.0, 4.0])), jax=False, variable=1),
    "rgamma": one(GAMMA, EDGES[-np.inf != EDGES], jax=False),
    "erfcinv": one(
        np.array([0.05, 0.3, 1.2, 1.9]), np.array([0.0, 1e-8, 1.0, 2.0, 1e-30, -0.1, 2.1, np.nan]), jax=False
    ),
    "multigammaln": one(POSITIVE + 1, np.array([1.5, 30.0]), options={"d": 3}),
    "xlogy": Case((POSITIVE, POSITIVE[::-1]), SIGNED),
    "xlog1py": Case((POSITIVE, POSITIVE[::-1]), SIGNED),
    "rel_entr": Case((POSITIVE, POSITIVE[::-1]), SIGNED),
    "kl_div": Case((POSITIVE, POSITIVE[::-1]), SIGNED),
    "boxcox": Case((POSITIVE, np.array([0.5, 0.0, 0.07, -1.3])), SIGNED, jax=False),
    "boxcox1p": Case((POSITIVE, np.array([0.5, 0.0, 0.07, -1.3])), SIGNED, jax=False),
    "betaln": Case((A, B), tuple(x[:4, :4] for x in SMALL), jax=False),
    "beta": Case((A, B), jax=False, order=1),
    "comb": Case(
        (np.array([5.0, 10.0, 2.5]), np.array([2.0, 3.3, 1.2])), pairs(-1.0, 0.0, 1.0, 5.0), jax=False, order=1
    ),
    "poch": Case((np.array([2.5, -0.7, 0.4]), np.array([1.5, 2.2, -0.3])), pairs(-3.0, -1.0, 0.0, 0.5, 2.0)),
    "gammainc": Case((A, np.array([0.3, 4.5, 27.0, 0.9])), SMALL),
    "gammaincc": Case((A, np.array([0.3, 4.5, 27.0, 0.9])), SMALL),
    "owens_t": Case((ANY, np.array([0.3, -1.2, 0.8, 3.0, 1.0])), SIGNED),
    "zeta": Case(
        (POSITIVE + 1, POSITIVE[::-1]),
        (np.array([2.0, 1.0, 0.5, 2.0, 3.0]), np.array([0.0, 1.0, 1.0, -1.0, np.inf])),
        variable=1,
    ),
    "polygamma": Case(
        (np.arange(4), POSITIVE), (np.array([1, 1, 2]), np.array([0.0, -1.5, -0.5])), variable=1, jax=False
    ),
    "expn": Case(
        (np.array([0.0, 1.0, 2.0, 7.0, 3.0]), np.array([0.3, 0.9, 1.2, 0.4, 30.0])),
        tuple(x.ravel() for x in np.meshgrid(ORDERS, [-1, 0, 1e-10, 0.9, 1.01, 700, np.inf, np.nan])),
        variable=1,
        jax=False,
    ),
    "betainc": Case(
        (A, B, X), (np.array([1.0, 0.5, 2.0]), np.array([2.0, 1.5, 0.7]), np.array([0.0, 1.0, np.nan])), variable=1
    ),
    "hyp1f1": Case((A[:2], POSITIVE[1:3], X[:2]), variable=1, jax=False),
    "hyp2f1": Case((A[:2], POSITIVE[1:3], X[:2] + 2, X[2:]), variable=1, jax=False),
}


APART = ("gammasgn", "gammainc", "gammaincc", "hyp1f1", "hyp2f1")
"""Functions with tests of their own, and one that is constant where it is smooth."""


def test_every_function_has_a_case() -> None:
    others = {"logsumexp", "softmax", "log_softmax", "bernoulli", "sph_harm_y", "wofz", "psi"}
    assert set(ts.__all__) == set(CASES) | others
    assert all(callable(getattr(ts, name)) for name in ts.__all__)
    missing = {name for name in dir(jsp) if not name.startswith("_")} - set(ts.__all__) - {"lpmn", "lpmn_values"}
    assert not missing


@pytest.mark.parametrize("name", CASES)
def test_value(name: str) -> None:
    case, run = CASES[name], tg.jit(lambda *xs: CASES[name].call(getattr(ts, name), *xs))
    reference = case.reference or getattr(sp, name)
    for dtype, rtol in (("float64", 2e-10), ("float32", 1e-4)):
        both = [np.append(x, y) for x, y in zip(case.points, case.edges or case.points, strict=True)]
        xs = both if dtype == "float64" else case.points
        xs = [x.astype(dtype) if x.dtype.kind == "f" else x for x in xs]
        with x64(dtype == "float64"), np.errstate(all="ignore"):
            actual = jax.tree.leaves(run(*xs))
            expected = jax.tree.leaves(case.call(reference, *xs))
        for a, e in zip(actual, expected, strict=True):
            assert a.dtype == dtype
            np.testing.assert_allclose(a, e, rtol=rtol, atol=1e-2 * rtol, err_msg=dtype)


@pytest.mark.parametrize("name", CASES)
def test_dtypes(name: str) -> None:
    """Read off the tape: integers become floats, half precision stays."""
    for given, expected in (("int32", "float32"), ("float16", "float16")):
        xs = [np.ones(3, given) if x.dtype.kind == "f" else np.ones(3, np.int32) for x in CASES[name].points]
        tape = tg.trace(lambda *xs: CASES[name].call(getattr(ts, name), *xs))(*xs)
        assert {str(v.aval.dtype) for v in tape.outputs} == {expected}


GROUPS = [
    alike[i : i + 4]
    for kind in ((True, 2), (False, 2), (False, 1))
    for alike in [[n for n, c in CASES.items() if (c.jax, c.order) == kind and n not in APART]]
    for i in range(0, len(alike), 4)
]


@pytest.mark.parametrize("names", GROUPS, ids=", ".join)
def test_derivatives(names: list[str]) -> None:
    """Those of several functions, each at points of its own, in one program."""
    first = CASES[names[0]]
    fixed = {n: CASES[n].points[: -CASES[n].variable] for n in names}
    variable = {n: CASES[n].points[-CASES[n].variable :] for n in names}

    def each(module: Any) -> Callable[[Any], Any]:
        return lambda xs: {n: CASES[n].call(getattr(module, n), *fixed[n], *xs[n]) for n in names}

    check_grads(each(ts), variable, jax_fn=each(jsp) if first.jax else None, order=first.order)


def test_derivatives_of_hypergeometric_functions() -> None:
    for name in ("hyp1f1", "hyp2f1"):
        *parameters, x = CASES[name].points
        f = getattr(ts, name)
        with x64():
            actual = tg.jit(tg.grad(lambda x, f=f, p=parameters: tnp.sum(f(*p, x))))(x)
        difference = (getattr(sp, name)(*parameters, x + 1e-5) - getattr(sp, name)(*parameters, x - 1e-5)) / 2e-5
        np.testing.assert_allclose(actual, difference, rtol=1e-7)


def test_derivatives_of_the_incomplete_gamma_functions() -> None:
    """In both operands, and again in the second: no more is known."""
    a, x = CASES["gammainc"].points
    check_grads(ts.gammainc, a, x, jax_fn=jsp.gammainc, order=1)
    check_grads(lambda x: ts.gammaincc(a, x), x)
    np.testing.assert_allclose(tg.grad(ts.gammainc)(2.5, 1.0), -tg.grad(ts.gammaincc)(2.5, 1.0), rtol=1e-6)
    slope = tg.jit(lambda a, x: tg.grad(lambda a: tnp.sum(ts.gammainc(a, x)))(a))
    with x64():
        mixed = tg.jit(tg.grad(lambda x: tnp.sum(slope(a, x))))(x)
        difference = np.asarray(slope(a, x + 1e-5) - slope(a, x - 1e-5)) / 2e-5
    np.testing.assert_allclose(mixed, difference, rtol=1e-5, atol=1e-7)


# -- complex numbers, and what takes other arguments

Z = np.array([0.3 + 0.2j, 2 + 1j, -1.5 + 0.3j, -7.2 - 4j, -0.5 - 1e-2j, 4 - 3j, 0.5 + 0j, 9.5 + 0j])


@pytest.mark.parametrize("name", ["loggamma", "gamma", "wofz", "xlogy"])
def test_complex(name: str) -> None:
    f, ref, theirs = getattr(ts, name), getattr(sp, name), getattr(jsp, name)
    if name == "xlogy":
        check_value(f, ref, Z, Z[::-1].copy(), only=("jit",))
        check_grads(f, Z[:3], Z[3:6], jax_fn=theirs)
    else:
        check_value(f, ref, Z, only=("jit",))
        check_grads(f, Z[:6], jax_fn=theirs if name == "wofz" else None)


@pytest.mark.parametrize("name", ["jn", "yn", "iv", "ive"])
def test_bessel_functions_over_a_wide_range(name: str) -> None:
    orders = [0, 1, 3, 10, 50, 100, 0.5, 1.5, 7.25, 0.999, 33.3, -1, -7, -0.5, -1.5, -3.7, -10.5, -20.5]
    orders = [v for v in orders if name != "yn" or v == int(v)]
    points = np.concatenate([np.logspace(-3, 4, 40), -np.logspace(-2, 2, 6), [1e-12, 1e-5, 24.999, 25.0, np.nan]])
    v, x = map(np.ravel, np.meshgrid(np.array(orders), points))
    for dtype, rtol in (("float64", 2e-11), ("float32", 4e-5)):
        given = x.astype(dtype)
        with x64(dtype == "float64"), np.errstate(all="ignore"):
            order = v.astype(dtype)
            actual = np.asarray(tg.jit(getattr(ts, name))(order, given), np.float64)
            exact = order.astype(int) if name == "yn" else order.astype(float)
            expected = getattr(sp, name)(exact, given.astype(float))
        # Near a zero the error is in proportion to the amplitude; numbers that underflow or overflow do so in SciPy
        # a little sooner, and in JAX without subnormal ones.
        amplitude = (
            np.where(np.abs(given) > np.abs(v), 0.5 / np.sqrt(np.abs(given)), 0.0) if name in ("jn", "yn") else 0
        )
        with np.errstate(all="ignore"):
            error = np.abs(actual - expected) / np.maximum(np.abs(expected), amplitude)
        limit = np.finfo(dtype)
        tiny = np.maximum(np.abs(actual), np.abs(expected)) < 1e20 * float(limit.tiny)
        huge = np.minimum(np.abs(actual), np.abs(expected)) > 1e-10 * float(limit.max)
        fine = tiny | huge | (error <= rtol) | (np.isnan(actual) & np.isnan(expected))
        assert fine.all(), [(v[i], x[i], actual[i], expected[i]) for i in np.flatnonzero(~fine)]
        assert (error <= rtol).sum() > 0.5 * len(v)


def test_bessel_functions_at_infinity_and_of_unusable_orders() -> None:
    at = np.array([np.inf, -np.inf])
    assert ts.jn(2, at).tolist() == [0.0, 0.0]
    assert ts.iv(3, at).tolist() == [np.inf, -np.inf]
    assert ts.ive(3, at).tolist() == [0.0, 0.0]
    assert ts.y1(np.inf).item() == 0.0
    assert np.isnan([f(v, 1.0).item() for f in (ts.jn, ts.yn, ts.iv) for v in (np.inf, np.nan, 1e10)]).all()
    assert np.isnan([ts.yn(0.5, 1.0).item(), ts.jn(0.5, -1.0).item(), ts.y0(-1.0).item()]).all()
    assert ts.jn(np.zeros((0, 2)), 1.0).shape == (0, 2)


def test_spherical_harmonics() -> None:
    n, m = np.array([0, 1, 1, 2, 3, 5]), np.array([0, -1, 1, -2, 3, 0])
    theta, phi = np.linspace(0.2, 2.9, 6), np.linspace(0.1, 6, 6)
    check_value(lambda *xs: ts.sph_harm_y(n, m, *xs), lambda *xs: sp.sph_harm_y(n, m, *xs), theta, phi, only=("jit",))
    check_value(lambda t: ts.sph_harm_y(3, -2, 0.3, t), lambda t: sp.sph_harm_y(3, -2, 0.3, t), phi, only=("jit",))
    check_grads(lambda *xs: ts.sph_harm_y(n[2:5], m[2:5], *xs), theta[2:5], phi[2:5])
    pole = tg.grad(lambda t: ts.sph_harm_y(2, 0, t, 0.0).real)(0.0)
    assert float(pole) == 0.0


def test_sums_of_exponentials() -> None:
    x, b = np.array([[1.0, 2.0, -1.0], [0.5, 0.0, 3.0]]), np.array([1.0, 2.0, -0.5])
    for f in (
        lambda x, m: m.softmax(x),
        lambda x, m: m.softmax(x, axis=0),
        lambda x, m: m.log_softmax(x, axis=(0, 1)),
        lambda x, m: m.logsumexp(x, axis=1, b=b, keepdims=True),
        lambda x, m: m.logsumexp(-x, axis=0, b=b, return_sign=True),
    ):
        check_value(lambda x, f=f: f(x, ts), lambda x, f=f: f(x, sp), x, only=("jit",))


def test_bernoulli_numbers() -> None:
    check_value(lambda: ts.bernoulli(40), lambda: sp.bernoulli(40).astype(np.float32), only=("eager",))
    assert ts.bernoulli(0).tolist() == [1.0]
    assert ts.bernoulli(1).tolist() == [1.0, -0.5]


def test_numbers_and_broadcasting() -> None:
    x = np.array([[0.2], [0.7]], np.float32)
    check_value(
        lambda x: [ts.betainc(2.0, 3, x), ts.betaln(x, 1.5), ts.hyp1f1(1.0, x, 0.5), ts.xlogy(x, x[:, 0])],
        lambda x: [sp.betainc(2, 3, x), sp.betaln(x, 1.5), sp.hyp1f1(1, x, 0.5), sp.xlogy(x, x[:, 0])],
        x,
        rtol=1e-4,
        only=("undecorated",),
    )
    assert float(ts.comb(5, 2, repetition=True)) == pytest.approx(15, rel=1e-5)
    assert float(ts.zeta(2.0)) == pytest.approx(math.pi**2 / 6)


# -- edges


POLES = {
    "gammaln": lambda x: ts.gammaln(x),
    "digamma": lambda x: ts.digamma(x),
    "polygamma": lambda x: ts.polygamma(1, x),
    "gamma": lambda x: ts.gamma(x),
    "betaln": lambda x: ts.betaln(x, 1.0),
    "betainc": lambda x: ts.betainc(0.5, 2.0, x),
    "gammainc": lambda x: ts.gammainc(0.5, x),
    "logit": lambda x: ts.logit(x),
    "ndtri": lambda x: ts.ndtri(x),
    "erfinv": lambda x: ts.erfinv(1 - x),
    "xlogy": lambda x: ts.xlogy(1.0, x),
    "entr": lambda x: ts.entr(x),
    "rel_entr": lambda x: ts.rel_entr(x, 1.0),
    "expi": lambda x: ts.expi(x),
    "expn": lambda x: ts.expn(2, x),
    "sici": lambda x: ts.sici(x)[1],
    "y0": lambda x: ts.y0(x),
    "jn": lambda x: ts.jn(0.5, x),
    "erfcinv": lambda x: ts.erfcinv(x),
    "spence": lambda x: ts.spence(x),
    "zeta": lambda x: ts.zeta(2.0, x),
    "boxcox": lambda x: ts.boxcox(x, 0.0),
}


def test_no_nan_from_a_path_that_was_not_taken() -> None:
    safe = {name: tg.grad(lambda x, f=f: tnp.where(x > 0, f(x), 0.0)) for name, f in POLES.items()}
    slopes = tg.jit(lambda x: {name: g(x) for name, g in safe.items()})
    assert {name: float(v) for name, v in slopes(0.0).items()} == dict.fromkeys(POLES, 0.0)
    assert all(np.isfinite(v) and v != 0 for v in slopes(0.4).values())


@pytest.mark.parametrize(
    "f, points, expected",
    [
        (lambda x: ts.xlogy(x, 2.0), [0.0, 1.0], [math.log(2), math.log(2)]),
        (lambda x: ts.xlogy(0.0, x), [0.0, 1.0], [0.0, 0.0]),
        (lambda x: ts.i0e(x), [0.0], [0.0]),
        (lambda x: ts.i1e(x), [0.0], [0.5]),
        (lambda x: ts.i1(x), [0.0], [0.5]),
        (lambda x: ts.spence(x), [1.0], [-1.0]),
        (lambda x: ts.sici(x)[0], [0.0], [1.0]),
        (lambda x: ts.log_ndtr(x), [-1e4, -1e10, 40.0], [1e4, 1e10, 0.0]),
        (lambda x: ts.boxcox(3.0, x), [0.0], [math.log(3) ** 2 / 2]),
        (lambda x: ts.boxcox(0.0, x), [2.0], [0.25]),
        (lambda x: ts.bessel_jn(x, v=1)[1], [0.0], [0.5]),
        (lambda x: ts.j0(x), [0.0], [0.0]),
        (lambda x: ts.j1(x), [0.0], [0.5]),
        (lambda x: ts.jn(2.5, x), [0.0], [0.0]),
        (lambda x: ts.iv(1, x), [0.0], [0.5]),
        (lambda x: tg.grad(lambda x: tnp.sum(ts.j1(x)))(x), [0.0], [0.0]),
        (lambda x: tg.grad(lambda x: tnp.sum(ts.jn(2, x)))(x), [0.0], [0.25]),
        (lambda x: tg.grad(lambda x: tnp.sum(ts.iv(2, x)))(x), [0.0], [0.25]),
        (lambda x: ts.rgamma(x), [0.0, -1.0, -2.0, -3.0], [1.0, -1.0, 2.0, -6.0]),
        (lambda x: ts.logsumexp(tnp.stack([x, x - np.inf]), axis=0), [1.0, -np.inf], [1.0, 0.0]),
    ],
)
def test_derivatives_at_edges(f: Any, points: list[float], expected: list[float]) -> None:
    grads = tg.grad(lambda x: tnp.sum(f(x)))(np.array(points, np.float32))
    np.testing.assert_allclose(grads, expected, rtol=1e-5)


# -- bad input


@pytest.mark.parametrize(
    "f, argument",
    [
        (lambda a: ts.betainc(a, 2.0, 0.3), "betainc .* in a "),
        (lambda a: ts.betainc(2.0, a, 0.3), "betainc .* in b "),
        (lambda a: ts.zeta(a, 2.0), "zeta .* in x "),
        (lambda a: ts.polygamma(a, 2.0), "polygamma .* in n "),
        (lambda a: ts.expn(a, 2.0), "expn .* in n "),
        (lambda a: ts.hyp1f1(a, 2.0, 0.3), "hyp1f1 .* in a "),
        (lambda a: ts.jn(a, 2.0), "jn .* in v "),
        (lambda a: ts.iv(a, 2.0), "iv .* in v "),
        (lambda a: ts.ive(a, 2.0), "ive .* in v "),
        (lambda a: ts.yn(a, 2.0), "yn .* in n "),
        (lambda a: ts.hyp2f1(1.0, 2.0, a, 0.3), "hyp2f1 .* in c "),
        (lambda a: tg.grad(lambda b: ts.gammainc(b, 2.0))(a), "gammainc .* in a "),
    ],
)
def test_no_derivative_in_a_parameter(f: Any, argument: str) -> None:
    for transform in (tg.grad, lambda f: tg.jit(tg.grad(f))):
        with pytest.raises(NotImplementedError, match=f"(?s){argument}.*stop_gradient") as info:
            transform(f)(1.5)
        assert "test_special.py" in str(info.value)


@pytest.mark.parametrize(
    "call, error, parts",
    [
        (lambda x: ts.gammainc(x, 1j), TypeError, ["gammainc", "real", "complex64"]),
        (lambda x: ts.erf(["a"]), TypeError, ["erf", "list", "no nested list of numbers"]),
        (lambda x: ts.betaln(x, x[:2]), ValueError, ["betaln", "(3,)", "(2,)"]),
        (lambda x: ts.factorial(x, exact=True), NotImplementedError, ["factorial", "math.factorial"]),
        (lambda x: ts.comb(x, x, exact=True), NotImplementedError, ["comb", "math.comb"]),
        (lambda x: ts.multigammaln(x, 1.5), TypeError, ["multigammaln", "d must be an integer", "1.5"]),
        (lambda x: ts.bernoulli(-1), ValueError, ["bernoulli: n=-1"]),
        (lambda x: ts.bessel_jn(x, v=-1), ValueError, ["bessel_jn: v=-1"]),
        (lambda x: ts.sph_harm_y(1, 2, x, x), ValueError, ["sph_harm_y: n=1, m=2"]),
        (lambda x: ts.sph_harm_y(1.0, 0, x, x), TypeError, ["sph_harm_y: n must be of integers"]),
        (lambda x: ts.sph_harm_y(1, 0, x, x, diff_n=1), NotImplementedError, ["diff_n"]),
        (lambda x: ts.jn(x, x[:2]), ValueError, ["jn", "(3,)", "(2,)"]),
        (lambda x: ts.iv(1, 1j * x), TypeError, ["iv", "real", "complex64"]),
        (lambda x: ts.rgamma(1j * x), TypeError, ["rgamma", "complex64"]),
        (lambda x: ts.softmax(x, axis=2), ValueError, ["softmax", "axis 2"]),
    ],
)
def test_bad_arguments(call: Any, error: type[Exception], parts: list[str]) -> None:
    with pytest.raises(error) as info:
        tg.jit(call)(np.ones(3, np.float32))
    for part in [*parts, "test_special.py"]:
        assert part in str(info.value), str(info.value)
