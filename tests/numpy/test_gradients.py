"""Derivatives of the array namespace, first and second, against central differences and `jax.grad`."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp

from ..reference import check_grads, together, x64

RNG = np.random.default_rng(1)


class Arrays(NamedTuple):
    """What the cases are functions of."""

    a: Any = RNG.normal(size=(3, 4))
    b: Any = RNG.normal(size=4)
    p: Any = RNG.uniform(0.5, 2.0, (3, 4))
    u: Any = RNG.uniform(-0.8, 0.8, (3, 4))
    z: Any = np.array([[0.0, 2.0, -1.0, 0.5], [0.0, 0.0, 1.5, 3.0], [-1.0, 2.0, 0.7, 0.0]])
    t: Any = RNG.normal(size=(2, 3, 4))
    c: Any = RNG.normal(size=(3, 2)) + 1j * RNG.normal(size=(3, 2))


M = RNG.normal(size=(3, 4)) > 0
K = np.array([[0, 2], [1, 1]])

CASES: dict[str, list[Any]] = {
    "elementwise": [
        lambda np, v: np.power(v.p, 3),
        lambda np, v: np.power(v.p, -2),
        lambda np, v: np.power(v.p, 2.0),
        lambda np, v: np.power(v.p, 0.5),
        lambda np, v: np.power(v.p, v.b),
        lambda np, v: np.power(v.z, 2),
        lambda np, v: np.float_power(v.p, 1.5),
        lambda np, v: np.clip(v.a, -0.4, 0.6),
        lambda np, v: np.where(M, v.a, v.b),
        lambda np, v: np.sinc(v.a),
        lambda np, v: np.deg2rad(v.a),
        lambda np, v: np.rad2deg(v.a),
        lambda np, v: np.modf(v.a * 2)[0],
        lambda np, v: np.ldexp(v.a, np.asarray([1, 2, 3, -1])),
        lambda np, v: np.nan_to_num(v.a),
    ],
    "elementwise, complex": [
        lambda np, v: np.angle(v.c),
        lambda np, v: np.conj(v.c) * v.c,
        lambda np, v: np.mean(v.c, axis=0),
        lambda np, v: np.prod(v.c, axis=0),
        lambda np, v: np.cumprod(v.c, axis=0),
        lambda np, v: np.var(v.c, axis=0),
        lambda np, v: np.linalg.norm(v.c, axis=1),
        lambda np, v: np.vdot(v.c, v.c * 2),
        lambda np, v: np.einsum("ij,ik->jk", v.c, v.c),
    ],
    "reductions": [
        lambda np, v: np.sum(v.t, axis=(0, 2)),
        lambda np, v: np.sum(v.a, axis=1, keepdims=True, where=M, initial=2.0),
        lambda np, v: np.mean(v.t, axis=-1),
        lambda np, v: np.mean(v.a, where=M),
        lambda np, v: np.max(v.t, axis=1),
        lambda np, v: np.min(v.t, axis=(0, 2), keepdims=True),
        lambda np, v: np.ptp(v.a, axis=0),
        lambda np, v: np.var(v.t, axis=(0, 2)),
        lambda np, v: np.var(v.a, axis=1, ddof=1, keepdims=True),
        lambda np, v: np.std(v.t, axis=1),
        lambda np, v: np.var(v.a, where=M),
        lambda np, v: np.std(v.a, where=M),
        lambda np, v: np.average(v.a, axis=1, weights=v.p[0]),
        lambda np, v: np.median(v.a, axis=1),
        lambda np, v: np.quantile(v.a, 0.3, axis=0),
        lambda np, v: np.nansum(v.a, axis=0),
        lambda np, v: np.nanmean(v.a, axis=0),
        lambda np, v: np.nanmax(v.a, axis=0),
    ],
    "products with zeros": [
        lambda np, v: np.prod(v.z, axis=1),
        lambda np, v: np.prod(v.z),
        lambda np, v: np.prod(v.t, axis=(0, 2)),
        lambda np, v: np.prod(v.t, axis=1, keepdims=True),
        lambda np, v: np.cumprod(v.z, axis=1),
        lambda np, v: np.cumprod(v.z, axis=0),
        lambda np, v: np.cumprod(v.z),
        lambda np, v: np.cumsum(v.t, axis=1),
        lambda np, v: np.cumulative_sum(v.a, axis=1, include_initial=True),
    ],
    "norms": [
        lambda np, v: np.linalg.norm(v.t),
        lambda np, v: np.linalg.norm(v.t, axis=1),
        lambda np, v: np.linalg.norm(v.t, 1, axis=1),
        lambda np, v: np.linalg.norm(v.t, 3, axis=1),
        lambda np, v: np.linalg.norm(v.t, np.inf, axis=1),
        lambda np, v: np.linalg.norm(v.t, -np.inf, axis=-1),
        lambda np, v: np.linalg.norm(v.t, "fro", axis=(0, 2)),
        lambda np, v: np.linalg.norm(v.t, 1, axis=(0, 2)),
        lambda np, v: np.linalg.norm(v.t, np.inf, axis=(2, 0)),
        lambda np, v: np.linalg.matrix_power(v.a[:, :3], 3),
    ],
    "shapes": [
        lambda np, v: np.reshape(v.t, (4, -1)) ** 2,
        lambda np, v: np.reshape(v.t, (4, -1), order="F") ** 3,
        lambda np, v: np.transpose(v.t, (2, 0, 1)) ** 2,
        lambda np, v: np.moveaxis(v.t, 0, -1) ** 2,
        lambda np, v: np.swapaxes(v.t, 0, 1) ** 3,
        lambda np, v: np.squeeze(np.expand_dims(v.t, (0, -1)), 0) ** 2,
        lambda np, v: np.broadcast_to(v.b, (3, 2, 4)) ** 2,
        lambda np, v: np.atleast_3d(v.a) ** 2,
        lambda np, v: np.concatenate([v.a, v.p**2], axis=1) ** 2,
        lambda np, v: np.stack([v.a, v.p * v.a], axis=-1) ** 2,
        lambda np, v: np.vstack([v.a, v.b]) ** 2,
        lambda np, v: [x**3 for x in np.array_split(v.b, 3)],
        lambda np, v: [x**n for n, x in enumerate(np.unstack(v.t, axis=1), 1)],
        lambda np, v: np.flip(v.t, (0, 2)) ** 2,
        lambda np, v: np.roll(v.a, (1, -2), (0, 1)) ** 2,
        lambda np, v: np.roll(v.a, 3) ** 3,
        lambda np, v: np.rot90(v.t, 1, (0, 2)) ** 2,
        lambda np, v: np.diff(v.a, axis=1) ** 2,
        lambda np, v: np.trapezoid(v.a, v.b),
    ],
    "statistics": [
        lambda np, v: np.cov(v.a, v.p),
        lambda np, v: np.cov(v.a, aweights=v.p[0], ddof=0),
        lambda np, v: np.corrcoef(v.a),
        lambda np, v: np.cov(v.c),
        lambda np, v: np.convolve(v.b, v.a[0], "same"),
        lambda np, v: np.correlate(v.a[0], v.b[:2]),
        lambda np, v: np.correlate(v.c[:, 0], v.c[:2, 1], "full"),
        lambda np, v: np.histogram(v.a, 3, (-1.0, 1.0), weights=v.p)[0],
        lambda np, v: np.bincount(np.asarray([0, 2, 1, 2]), v.b, length=4) ** 2,
        lambda np, v: np.interp(v.a, np.cumsum(v.p[0]), v.b),
        lambda np, v: np.interp(v.a, v.p[0], v.b, period=1.7),
        lambda np, v: np.gradient(v.t, axis=1) ** 2,
        lambda np, v: [x**2 for x in np.gradient(v.a, 0.5)],
        lambda np, v: np.ediff1d(v.a) ** 2,
        lambda np, v: np.unwrap(v.a * 9, axis=1) ** 2,
        lambda np, v: np.quantile(v.a, v.u[0] ** 2, axis=1),
        lambda np, v: np.nanquantile(v.a, 0.3, axis=0),
        lambda np, v: np.quantile(v.a, 0.4, axis=1, method="inverted_cdf", weights=np.abs(v.u[0])),
        lambda np, v: np.nanmedian(v.a, axis=1),
        lambda np, v: [np.pad(v.a, 2, mode) for mode in ("linear_ramp", "maximum", "mean", "median")],
        lambda np, v: np.nancumprod(v.p, axis=1),
        lambda np, v: np.var(v.a, mean=v.b[None], axis=0, keepdims=True),
    ],
    "polynomials": [
        lambda np, v: np.polyval(v.b, v.a),
        lambda np, v: np.polymul(v.b, v.p[0]),
        lambda np, v: np.polyadd(v.b, v.a[0, :2]) ** 2,
        lambda np, v: np.polydiv(v.b, v.p[0, :2]),
        lambda np, v: np.polyder(v.b) ** 2,
        lambda np, v: np.polyint(v.b, k=v.b[0]) ** 2,
        lambda np, v: np.poly(v.b),
        lambda np, v: np.vander(v.b, 3),
        lambda np, v: np.polyfit(v.b, v.a[0], 1),
    ],
    "choice and sets": [
        lambda np, v: np.unique(v.a, size=14) ** 2,
        lambda np, v: np.unique(v.a, axis=0, size=3) ** 2,
        lambda np, v: np.union1d(v.b, v.a, size=17) ** 2,
        lambda np, v: np.setdiff1d(v.a, v.b, size=6) ** 2,
        lambda np, v: np.extract(M, v.a, size=5) ** 2,
        lambda np, v: np.compress(M[:, 0], v.a, axis=0, size=2) ** 2,
        lambda np, v: np.choose(M.astype(int), [v.a, v.p], mode="clip") ** 2,
        lambda np, v: np.select([M, v.a > 1], [v.a, v.b**3], 2.0) ** 2,
        lambda np, v: np.piecewise(v.a, [v.a > 0.1], [np.exp, np.sin]),
        lambda np, v: np.insert(v.a, 1, v.b, axis=0) ** 2,
        lambda np, v: np.delete(v.a, 1, axis=1) ** 2,
        lambda np, v: np.place(v.a, M, v.b, inplace=False) ** 2,
        lambda np, v: np.put(v.a, np.asarray([1, 7]), v.b[:2], inplace=False) ** 2,
        lambda np, v: np.put_along_axis(v.a, K[:, :1][:1].repeat(3, 0), v.b[:1], 1, inplace=False) ** 2,
        lambda np, v: np.fill_diagonal(v.a, v.b[:3], inplace=False) ** 2,
        lambda np, v: np.resize(v.a, (5, 3)) ** 2,
        lambda np, v: np.repeat(v.a, np.asarray([1, 0, 2]), axis=0, total_repeat_length=4) ** 2,
        lambda np, v: np.partition(v.a, 2, axis=1)[:, 2] ** 2,
        lambda np, v: np.frexp(v.a)[0] ** 2,
    ],
    "functions of functions": [
        lambda np, v: np.vectorize(lambda x, y: x**2 * y)(v.a, v.b),
        lambda np, v: np.vectorize(lambda x, y: x @ y, signature="(n),(n)->()")(v.t, v.b),
        lambda np, v: np.apply_along_axis(lambda x: x * x.sum(), 1, v.t),
        lambda np, v: np.apply_over_axes(np.sum, v.t, (0, 2)) ** 2,
        lambda np, v: np.matvec(v.t, v.b),
        lambda np, v: np.vecmat(v.c[:, 0], v.c),
        lambda np, v: np.kaiser(5, v.p[0, 0]),
        lambda np, v: np.r_[v.b, 1.0, v.b] ** 2,
        lambda np, v: np.roll(v.a, np.asarray(2), 1) ** 2,
    ],
    "repeated": [
        lambda np, v: np.tile(v.a, (2, 1, 2)) ** 2,
        lambda np, v: np.repeat(v.a, 3, axis=0) ** 2,
        lambda np, v: np.tril(v.t, -1) ** 2,
        lambda np, v: np.triu(v.t, 1) ** 2,
        lambda np, v: np.diagonal(v.t, 1, 2, 0) ** 2,
        lambda np, v: np.diagonal(v.a, -1) ** 2,
        lambda np, v: np.diag(v.b, 1) ** 2,
        lambda np, v: np.diag(v.b, -2) ** 2,
        lambda np, v: np.trace(v.t, 0, 1, 2) ** 2,
        lambda np, v: [x**2 for x in np.meshgrid(v.b, v.a[0])],
        lambda np, v: np.pad(v.a, ((1, 2), (0, 3))) ** 2,
        lambda np, v: np.pad(v.a, ((5, 2), (4, 3)), "reflect") ** 2,
        lambda np, v: np.pad(v.a, ((1, 6), (0, 3)), "symmetric") ** 2,
        lambda np, v: np.pad(v.a, ((1, 2), (5, 3)), "wrap") ** 2,
        lambda np, v: np.pad(v.a, ((1, 2), (0, 3)), "edge") ** 2,
        lambda np, v: np.take(v.a, K, axis=0) ** 2,
        lambda np, v: np.sort(v.a, axis=0) ** 2,
        lambda np, v: np.linspace(v.a[0], v.b, 5) ** 2,
        lambda np, v: np.full((2, 4), v.b) ** 2,
        lambda np, v: np.asarray([v.b, v.b * 2]) ** 2,
    ],
    "products": [
        lambda np, v: np.matmul(v.t, v.a.T),
        lambda np, v: np.matmul(v.a.T, v.t[:, None]),
        lambda np, v: np.matmul(v.t, np.swapaxes(v.t, 1, 2)),
        lambda np, v: np.matmul(v.t, v.b),
        lambda np, v: np.matmul(v.b, v.b),
        lambda np, v: np.dot(v.t, v.a.T),
        lambda np, v: np.inner(v.t, v.a),
        lambda np, v: np.outer(v.b, v.a),
        lambda np, v: np.kron(v.a, v.b[:, None]),
        lambda np, v: np.cross(v.t[..., :3], v.a[:, :3]),
        lambda np, v: np.vecdot(v.t, v.a),
        lambda np, v: np.tensordot(v.t, v.a, axes=([2, 1], [1, 0])),
        lambda np, v: np.tensordot(v.t, v.t, axes=([0, 2], [0, 2])),
    ],
    "einsum": [
        lambda np, v: np.einsum("bij,bkj->bik", v.t, v.t),
        lambda np, v: np.einsum("bij,bkj->kbi", v.t, v.t),
        lambda np, v: np.einsum("ii->i", v.a[:, :3]) ** 2,
        lambda np, v: np.einsum("ij,j->", v.a, v.b),
        lambda np, v: np.einsum("ij,kj,bkj->bi", v.a, v.p, v.t),
        lambda np, v: np.einsum("i,j->ji", v.b, v.b),
        lambda np, v: np.einsum("...ij,j->...i", v.t, v.b),
        lambda np, v: np.einsum("bij,ij->bij", v.t, v.a),
    ],
}


COMPOSED = ("statistics", "polynomials", "choice and sets", "functions of functions")
"""Kinds whose functions are made of ops only, so that their first derivatives say that they are made right."""


@pytest.mark.parametrize("kind", CASES)
def test_gradients(kind: str) -> None:
    cases, order = CASES[kind], 1 if kind in COMPOSED else 2

    def check(cases: list[Any]) -> None:
        def all_of(np: Any) -> Any:
            return lambda arrays: [case(np, arrays) for case in cases]

        check_grads(all_of(tnp), Arrays(), jax_fn=all_of(jnp), order=order, rtol=1e-4, atol=1e-5)

    together(check, [(f"{kind} {i}", case) for i, case in enumerate(cases)])


ON_VALUES: dict[str, Any] = {
    "nonzero": lambda np, x: x[np.nonzero(x)],
    "where": lambda np, x: x[np.where(x)],
    "argwhere": lambda np, x: x[np.argwhere(x)],
    "mask": lambda np, x: x[x > 0.2],
    "extract": lambda np, x: np.extract(x > 0.2, x),
    "unique": lambda np, x: np.unique(x),
    "trim_zeros": lambda np, x: np.trim_zeros(x),
    "roots": lambda np, x: np.abs(np.roots(x)),
    "histogram": lambda np, x: np.histogram(x)[1],
}


@pytest.mark.parametrize("name", ON_VALUES)
@pytest.mark.parametrize("module", [np, tnp], ids=["numpy", "tracegrad.numpy"])
def test_shapes_that_differentiated_values_decide(name: str, module: Any) -> None:
    x = np.array([0.3, 0.1, 0.0, 0.35, 0.9])
    case = ON_VALUES[name]
    with x64():
        actual = tg.grad(lambda x: (case(module, x) ** 2).sum())(x)
    step = 1e-6 * np.eye(5)
    alike = [i for i in range(5) if x[i] != 0]  # a zero that moves is one no more
    for i in alike:
        up, down = ((case(np, x + s * step[i]) ** 2).sum() for s in (1, -1))
        np.testing.assert_allclose(actual[i], (up - down) / 2e-6, rtol=1e-5, atol=1e-7)


def test_logsumexp() -> None:
    x = RNG.normal(size=(2, 3, 4))

    def function(sum_: Any) -> Any:
        return lambda x: (sum_(x, axis=(0, 2)), sum_(x), sum_(x, axis=1, keepdims=True))

    check_grads(function(tnp.logsumexp), x, jax_fn=function(jax.nn.logsumexp))


ZERO: list[tuple[str, Any, Any, Any]] = [
    ("std of equal numbers", lambda x: tnp.std(x), np.full(3, 2.0), np.zeros(3)),
    ("norm", lambda x: tnp.linalg.norm(x), np.zeros(3), np.zeros(3)),
    ("norm of order 3", lambda x: tnp.linalg.norm(x, 3), np.zeros(3), np.zeros(3)),
    ("norm of order 1", lambda x: tnp.linalg.norm(x, 1), np.zeros(3), np.zeros(3)),
    ("max of ties", lambda x: tnp.max(x), np.array([1.0, 1.0, 0.0]), np.array([0.5, 0.5, 0.0])),
    ("maximum at a tie", lambda x: tnp.clip(x, 1.0, None).sum(), np.array([1.0, 2.0]), np.array([0.5, 1.0])),
    ("logsumexp of -inf", lambda x: tnp.logsumexp(x), np.full(3, -np.inf), np.zeros(3)),
    ("logsumexp with -inf", lambda x: tnp.logsumexp(x), np.array([-np.inf, 0.0]), np.array([0.0, 1.0])),
    ("prod of zeros", lambda x: tnp.prod(x), np.array([0.0, 2.0, 3.0]), np.array([6.0, 0.0, 0.0])),
    ("prod of two zeros", lambda x: tnp.prod(x), np.array([0.0, 2.0, 0.0]), np.zeros(3)),
    ("sinc at 0", lambda x: tnp.sinc(x).sum(), np.zeros(2), np.zeros(2)),
    ("x ** 0 at NaN", lambda x: (x**0).sum(), np.array([np.nan, 1.0]), None),
    ("sqrt not taken", lambda x: tnp.where(x > 0, x**0.5, 0.0).sum(), np.array([-1.0, 4.0]), np.array([0.0, 0.25])),
    ("nansum", lambda x: tnp.nansum(x * x), np.array([np.nan, 3.0]), None),
    ("round", lambda x: tnp.round(x, 1).sum(), np.array([0.123]), np.zeros(1)),
]


@pytest.mark.parametrize(("fn", "x", "expected"), [case[1:] for case in ZERO], ids=[case[0] for case in ZERO])
def test_at_corners(fn: Any, x: Any, expected: Any) -> None:
    for gradient in (tg.grad(fn), tg.jit(tg.grad(fn))):
        found = np.asarray(gradient(x.astype(np.float32)))
        if expected is None:
            assert np.isfinite(found[-1])
        else:
            np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_second_derivative_of_sinc_at_0() -> None:
    assert np.isclose(float(tg.grad(tg.grad(tnp.sinc))(0.0)), -(np.pi**2) / 3)
