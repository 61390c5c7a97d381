"""Distributions and statistics against SciPy in value, and against jax.grad and central differences in derivatives."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import pytest
import scipy.stats as sst
from jax.scipy import stats as jstats

import tracegrad as tg
import tracegrad.numpy as tnp
from tests.reference import check_grads, check_message, check_value, x64
from tracegrad.names import Namespace
from tracegrad.scipy import stats as ts

ANY = np.array([-2.3, -0.6, 0.4, 1.7])
POSITIVE = np.array([0.2, 0.9, 1.3, 4.5])
UNIT = np.array([0.05, 0.3, 0.6, 0.95])
COUNTS = np.array([0.0, 1.0, 3.0, 5.0])
LOC, SCALE = np.array([0.3, -0.1, 0.2, 0.05]), np.array([0.7, 1.5, 2.0, 3.0])
OUT = np.array([-np.inf, -30.0, -1.0, 0.0, 1.0, 2.0, 30.0, np.inf])


@dataclass
class Case:
    """Points inside of the support, parameters, and points at and beyond its edges (for the same parameters).

    `fixed` counts the first operands that are not differentiated, `probability` those of the distribution function and
    of what is made of it, whose derivatives are not known.
    """

    x: np.ndarray
    parameters: tuple[Any, ...] = ()
    edges: Any = tuple(OUT)
    fixed: int = 0
    probability: tuple[int, ...] = ()
    order: int = 2


def scaled(x: np.ndarray, *parameters: Any, **kwargs: Any) -> Case:
    return Case(x * SCALE + LOC, (*parameters, LOC, SCALE), **kwargs)


CASES = {
    "norm": scaled(ANY),
    "uniform": scaled(UNIT),
    "expon": scaled(POSITIVE),
    "gamma": scaled(POSITIVE, np.array([0.5, 2.5, 1.5, 4.0]), probability=(1,)),
    "chi2": scaled(POSITIVE, np.array([1.0, 2.5, 3.0, 4.0]), probability=(1,)),
    "beta": scaled(UNIT, np.array([0.5, 2.5, 1.5, 4.0]), np.array([1.5, 0.7, 2.0, 3.0]), probability=(1, 2)),
    "cauchy": scaled(ANY),
    "laplace": scaled(ANY),
    "logistic": Case(ANY, (LOC, SCALE)),
    "gennorm": Case(ANY, (np.array([1.5, 2.5, 3.0, 2.0]),), probability=(1,)),
    "gumbel_l": scaled(ANY),
    "gumbel_r": scaled(ANY),
    "pareto": scaled(POSITIVE + 1, np.array([0.5, 2.5, 1.5, 4.0])),
    "t": scaled(ANY, np.array([1.0, 2.5, 3.0, 4.0])),
    "truncnorm": scaled(ANY * 0.4, np.full(4, -1.5), np.array([0.8, 1.5, 2.0, 3.0])),
    "vonmises": Case(ANY, (np.array([0.5, 2.5, 1.5, 4.0]),), edges=np.array([-3.0, 0.0, 3.0])),
    "wrapcauchy": Case(POSITIVE, (np.array([0.2, 0.5, 0.3, 0.7]),), edges=np.array([0.0, 1.0, 6.0])),
    "bernoulli": Case(np.array([0.0, 1.0, 1.0, 0.0]), (UNIT,), edges=np.array([-1.0, 2.0, 30.0]), fixed=1),
    "binom": Case(COUNTS, (np.full(4, 5.0), UNIT), edges=np.array([-1.0, 6.0, 30.0]), fixed=2),
    "betabinom": Case(COUNTS, (np.full(4, 5.0), POSITIVE, SCALE), edges=np.array([-1.0, 6.0, 30.0]), fixed=2),
    "geom": Case(COUNTS + 1, (UNIT,), edges=np.array([-1.0, 0.0, 30.0]), fixed=1),
    "nbinom": Case(COUNTS, (np.full(4, 4.0), UNIT), edges=np.array([-1.0, 30.0]), fixed=2),
    "poisson": Case(COUNTS, (POSITIVE,), edges=np.array([-1.0, 30.0]), fixed=1),
}
QUANTILES = ("ppf", "isf")
PROBABILITIES = ("cdf", "sf", "logcdf", "logsf")
VECTORS = ("dirichlet", "multinomial", "multivariate_normal")
FUNCTIONS = [(name, key) for name in CASES for key in dir(getattr(ts, name)) if key != "entropy"]


def operands(name: str, key: str) -> tuple[Any, ...]:
    case = CASES[name]
    return (UNIT if key in QUANTILES else case.x, *case.parameters)


def test_every_name_is_here() -> None:
    theirs = {n: v for n, v in vars(jstats).items() if not n.startswith("_")}
    assert set(theirs) == set(ts.__all__)
    for name, value in theirs.items():
        if inspect.ismodule(value):
            ours = getattr(ts, name)
            assert isinstance(ours, Namespace) and ours.__doc__
            assert dir(ours) == sorted(n for n in dir(value) if not n.startswith("_"))
            for key in dir(ours):
                function = getattr(ours, key)
                assert (function.__module__, function.__qualname__) == (ts.__name__, f"{name}.{key}")
                assert function.__doc__
                assert list(inspect.signature(function).parameters) == list(
                    inspect.signature(getattr(value, key)).parameters
                )
        elif inspect.isclass(value):
            public = {n for n in dir(value) if not n.startswith("_") and callable(getattr(value, n))}
            assert public <= set(dir(getattr(ts, name))), name
        else:
            assert inspect.signature(getattr(ts, name)).parameters.keys() == inspect.signature(value).parameters.keys()
    assert {*CASES, *VECTORS} == {n for n, v in theirs.items() if inspect.ismodule(v)}


@pytest.mark.parametrize("name", CASES)
def test_value(name: str) -> None:
    """In and out of the support, in one program."""
    case = CASES[name]
    keys = [key for n, key in FUNCTIONS if n == name]

    def each(module: Any) -> Callable[[], Any]:
        def values() -> Any:
            out = {}
            for key in keys:
                function = getattr(getattr(module, name), key)
                out[key] = function(*operands(name, key))
                if key not in QUANTILES:
                    out[f"{key} at edges"] = function(np.array(case.edges)[:, None], *case.parameters)
            return out

        return values

    with x64(), np.errstate(all="ignore"):
        actual, expected = tg.jit(each(ts))(), each(sst)()
    for key, value in expected.items():
        np.testing.assert_allclose(
            actual[key], value, rtol=1e-6 if name == "betabinom" else 1e-9, atol=1e-12, err_msg=key
        )


@pytest.mark.parametrize("name", CASES)
def test_derivatives(name: str) -> None:
    case = CASES[name]
    unknown = bool(case.probability)
    for group in (QUANTILES, PROBABILITIES, ("pdf", "logpdf", "pmf", "logpmf")):
        keys = [k for n, k in FUNCTIONS if n == name and k in group and (n, k) != ("bernoulli", "ppf")]
        if not keys:
            continue
        xs = operands(name, keys[0])
        fixed = {*range(case.fixed), *(case.probability if unknown and group is PROBABILITIES else ())}
        variable = [x for i, x in enumerate(xs) if i not in fixed]

        def each(module: Any, keys: Any = keys, xs: Any = xs, fixed: Any = fixed) -> Callable[..., Any]:
            def f(*given: Any) -> Any:
                values = iter(given)
                merged = [x if i in fixed else next(values) for i, x in enumerate(xs)]
                return [getattr(getattr(module, name), key)(*merged) for key in keys]

            return f

        # JAX cannot differentiate its own gumbel_l and gumbel_r: a number in them is an integer.
        theirs = None if name.startswith("gumbel") else each(jstats)
        check_grads(each(ts), *variable, jax_fn=theirs, order=case.order)


def test_derivatives_that_are_not_known() -> None:
    message = r"betainc at .*no derivative in [ab]"
    check_message(lambda: tg.grad(lambda a: ts.beta.cdf(0.3, a, 1.0))(2.0), NotImplementedError, message)
    check_message(lambda: tg.grad(lambda a: ts.beta.logsf(0.3, a, 1.0))(2.0), NotImplementedError, message)


def test_vectors() -> None:
    alpha, x = np.array([0.5, 2.0, 3.0]), np.array([0.2, 0.3, 0.5])
    mean, half = np.array([0.1, -0.3, 0.2]), np.array([[1.0, 0.2, 0.0], [0.0, 1.5, 0.3], [0.0, 0.0, 0.8]])
    points = np.array([[0.4, 0.0, 1.0], [-1.0, 2.0, 0.5]])
    counts = np.array([1, 0, 3])

    def each(m: Any) -> Callable[..., Any]:
        return lambda points, mean, half, p: [
            m.multivariate_normal.pdf(points, mean, half @ half.T),
            m.multivariate_normal.logpdf(points, mean, half @ half.T),
            m.dirichlet.pdf(x, p),
            m.dirichlet.logpdf(x, p),
            m.multinomial.pmf(counts, 4, p / p.sum()),
            m.multinomial.logpmf(counts, 4, p / p.sum()),
        ]

    check_value(each(ts), each(sst), points, mean, half, alpha, only=("jit",))
    check_grads(each(ts), points, mean, half, alpha, jax_fn=each(jstats))


def test_entropy_of_the_poisson_distribution() -> None:
    mu = np.array([0.5, 5.0, 30.0])
    check_value(lambda mu: ts.poisson.entropy(mu), lambda mu: sst.poisson.entropy(mu), mu, rtol=1e-4, only=("eager",))


def test_statistics() -> None:
    x = np.array([[2.0, 1.0, 2.0, 4.0], [3.0, 1.0, 0.5, 0.5], [2.0, 7.0, 0.5, 3.0]])
    for f in (
        lambda x, m: m.rankdata(x),
        lambda x, m: [m.rankdata(x, k, axis=1) for k in ("average", "min", "max", "dense", "ordinal")],
        lambda x, m: list(m.mode(x)),
        lambda x, m: list(m.mode(x, axis=1, keepdims=True)),
        lambda x, m: [m.sem(x), m.sem(x, 1), m.sem(x, axis=None, ddof=0)],
    ):
        check_value(lambda x, f=f: f(x, ts), lambda x, f=f: f(x, sst), x, only=("undecorated", "jit"))
    check_grads(lambda x: [ts.sem(x), ts.sem(x, 1), ts.sem(x, None, 0)], x, jax_fn=lambda x: [
        jstats.sem(x), jstats.sem(x, 1), jstats.sem(x, None, 0),
    ])  # fmt: skip
    assert tg.grad(lambda x: tnp.sum(ts.rankdata(x)))(x).tolist() == np.zeros_like(x).tolist()


def test_lists_numbers_broadcasting_and_nothing() -> None:
    with_lists = tg.grad(lambda a: tnp.sum(ts.norm.logpdf([a, 1, 2.0], 0, [1.0, 2.0, 4.0])))
    assert float(with_lists(3.0)) == -3.0
    assert ts.norm.pdf(np.ones((2, 1)), np.ones(3), 1).shape == (2, 3)
    both = tg.grad(lambda x, loc: tnp.sum(ts.norm.logpdf(x, loc)), argnums=(0, 1))(np.ones((2, 1)), np.zeros(3))
    assert [g.shape for g in both] == [(2, 1), (3,)]
    empty = tg.grad(lambda x: tnp.sum(ts.gamma.logpdf(x, 2.0)))(np.zeros((0, 2)))
    assert empty.shape == (0, 2)
    assert tg.trace(lambda k: ts.poisson.logpmf(k, 2))(np.arange(3)).outputs[0].aval.dtype == np.float32


def test_derivatives_at_special_points() -> None:
    """By hand: out of the support, where a logarithm is constant, and far out."""
    for f, x, slope in (
        (lambda x: ts.beta.logcdf(x, 2.5, 1.5), -1.0, 0.0),
        (lambda x: ts.gamma.logsf(x, 2.5), -1.0, 0.0),
        (lambda x: ts.norm.logpdf(x), 100.0, -100.0),
    ):
        assert float(tg.grad(f)(x)) == pytest.approx(slope, abs=1e-6), inspect.getsource(f)


def test_messages() -> None:
    three, two = np.ones(3, np.float32), np.ones(2, np.float32)
    wrong = (ValueError, TypeError, IndexError)
    for grad in (False, True):

        def at(f: Callable[[Any], Any], grad: bool = grad) -> Callable[[], Any]:
            return lambda: tg.grad(lambda x: tnp.sum(f(x)))(three) if grad else f(three)

        check_message(at(lambda x: ts.norm.logpdf(x, two)), wrong, r"norm\.logpdf\(f32\[3\].*f32\[2\]")
        check_message(at(lambda x: ts.beta.cdf(x, "text", two)), wrong, r"beta\.cdf\(f32\[3\]")
        check_message(at(lambda x: ts.sem(x, axis=3)), wrong, r"sem\(f32\[3\].*axis=")
        check_message(at(lambda x: ts.rankdata(x, "best")), ValueError, r"rankdata\(f32\[3\]")
    check_message(lambda: tg.grad(lambda x: ts.sem(three, axis=x))(1.0), TypeError, r"sem: axis is")
    with pytest.raises(AttributeError, match=r"norm has no 'cfd'\. It has cdf"):
        ts.norm.cfd  # noqa: B018
    assert pickle.loads(pickle.dumps(ts.norm)) is ts.norm is copy.deepcopy(ts.norm)


# -- density estimation

DATA, PLANE = np.array([0.2, 1.0, 2.5, 2.7, 4.0]), np.random.default_rng(0).normal(size=(2, 6))
WEIGHTS = np.array([1.0, 2.0, 0.5, 1.0, 1.5])


def test_density_estimation() -> None:
    at, box = np.array([0.0, 1.0, 2.2]), (0.5, 2.0)

    def line(m: Any) -> Callable[..., Any]:
        def f(data: Any, weights: Any, at: Any) -> Any:
            kde, other = m.gaussian_kde(data, "silverman", weights), m.gaussian_kde(data, 0.4)
            parts = [kde(at), kde.logpdf(at), kde.integrate_box_1d(*box), kde.integrate_kde(other), kde.neff]
            return [*parts, kde.integrate_gaussian(at[0], at[1])]

        return f

    def plane(m: Any) -> Callable[..., Any]:
        return lambda data: [m.gaussian_kde(data).pdf(data[:, :3] / 2), m.gaussian_kde(data, 0.5).logpdf(data[:, 0])]

    check_value(line(ts), line(sst), DATA, WEIGHTS, at, only=("jit",))
    check_grads(line(ts), DATA, WEIGHTS, at, jax_fn=line(jstats))
    check_value(plane(ts), plane(sst), PLANE, only=("jit",))
    check_grads(plane(ts), PLANE, jax_fn=plane(jstats))


def test_samples_of_an_estimated_density() -> None:
    kde = ts.gaussian_kde(DATA, weights=WEIGHTS)
    draws = np.asarray(kde.resample(tg.random.key(0), (20000,)))
    assert draws.shape == (1, 20000)
    variance = np.asarray(kde.covariance)[0, 0] + np.cov(DATA, aweights=WEIGHTS, ddof=0)
    np.testing.assert_allclose([draws.mean(), draws.var()], [np.average(DATA, weights=WEIGHTS), variance], rtol=0.03)


def test_an_estimated_density_is_a_pytree() -> None:
    kde = ts.gaussian_kde(DATA)
    slope = tg.jit(tg.grad(lambda kde: tnp.sum(kde.pdf([1.0, 2.0]))))(kde)
    assert isinstance(slope, ts.gaussian_kde)
    assert slope.dataset.shape == (1, 5)
    assert len(jax.tree.leaves(kde)) == 5


def test_messages_of_density_estimation() -> None:
    kde = ts.gaussian_kde(PLANE)
    for call, pattern in (
        (lambda: ts.gaussian_kde([1.0]), "gaussian_kde: dataset is"),
        (lambda: ts.gaussian_kde(DATA, "best"), "gaussian_kde: bw_method is"),
        (lambda: ts.gaussian_kde(DATA, weights=[1.0]), "gaussian_kde: weights is"),
        (lambda: kde(np.ones((3, 2))), r"the points are f\d\d\[3,2\]"),
        (lambda: kde.integrate_box_1d(0.0, 1.0), "low is"),
        (lambda: kde.integrate_kde(ts.gaussian_kde(DATA)), "other is not"),
    ):
        check_message(call, ValueError, pattern)
    check_message(lambda: ts.gaussian_kde(DATA * 1j), TypeError, "gaussian_kde: dataset is .*complex")
    check_message(lambda: kde.set_bandwidth(1.0), NotImplementedError, "cannot be changed")


def test_the_distribution_function_of_gennorm_has_its_density_as_derivative_at_0():
    with x64():
        slope = tg.grad(lambda x: ts.gennorm.cdf(x, 1.5))
        np.testing.assert_allclose(slope(0.0), sst.gennorm.pdf(0.0, 1.5), rtol=1e-12)
        assert float(tg.grad(slope)(0.0)) == 0.0
        x = np.array([-1.0, 0.0, 2.0])
        np.testing.assert_allclose(ts.gennorm.cdf(x, 1.5), sst.gennorm.cdf(x, 1.5), rtol=1e-10)
