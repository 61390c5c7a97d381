"""Distributions and statistics, with the signatures of `jax.scipy.stats`.

A distribution is a name with functions: `norm.logpdf(x, loc, scale)`. Their arguments broadcast, and may be lists;
integers become floats. A derivative that has no closed form (in a parameter of the distribution function of `beta`)
raises `NotImplementedError` when it is asked for.

Example:
  >>> import tracegrad as tg
  >>> from tracegrad.scipy.stats import norm
  >>> float(tg.grad(norm.logpdf)(2.0, 0.0, 1.0))
  -2.0
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import jax.scipy.stats as jstats

from .. import numpy as tnp
from .. import random
from ..borrow import borrow
from ..errors import called, describe, here
from ..names import Namespace, listed
from ..numpy.arguments import from_list, inexact, promoted, type_of, types_of
from ..numpy.creation import array_like
from . import linalg, special

_WHAT = {
    "pdf": "The density",
    "logpdf": "The logarithm of the density",
    "pmf": "The probability",
    "logpmf": "The logarithm of the probability",
    "cdf": "The distribution function, the probability of at most this,",
    "logcdf": "The logarithm of the distribution function, of the probability of at most this,",
    "sf": "The survival function, the probability of more than this,",
    "logsf": "The logarithm of the survival function, of the probability of more than this,",
    "ppf": "The quantile function, the inverse of `cdf`,",
    "isf": "The inverse of `sf`",
    "entropy": "The entropy, in nats,",
}


def _distribution(module: ModuleType, about: str) -> Namespace:
    """The functions that a module of JAX's has of a distribution.

    In a formula y is (x - loc) / scale, and a density in y stands for that in x times scale.
    """
    if re.search(r"\by\b", about):
        about = about.removesuffix(".") + ", `y = (x - loc) / scale`."
    name = module.__name__.rpartition(".")[2]
    functions: dict[str, Any] = {}
    for key in dir(module):
        if key.startswith("_"):
            continue
        function = getattr(module, key)
        if key in ("logcdf", "logsf") and name in ("beta", "chi2", "gamma"):
            function = _log(getattr(module, key.removeprefix("log")))
        if key == "cdf" and name == "gennorm":
            function = _straight_at_0(function, module.pdf)
        function = borrow(function, f"{_WHAT[key]} of {about}", module=__name__)
        function.__name__, function.__qualname__ = key, f"{name}.{key}"
        functions[key] = function
    return Namespace(name, __name__, about[0].upper() + about[1:], functions)


def _straight_at_0(cdf: Callable[..., Any], pdf: Callable[..., Any]) -> Callable[..., Any]:
    """The distribution function of a symmetric density; at 0, where JAX's is made of a sign, as its tangent."""

    @functools.wraps(cdf)
    def probability(x: Any, beta: Any) -> Any:
        zero = jnp.equal(x, 0)
        return jnp.where(zero, 0.5 + x * pdf(jnp.zeros_like(x), beta), cdf(jnp.where(zero, 1.0, x), beta))

    return probability


def _log(probability: Callable[..., Any]) -> Callable[..., Any]:
    """The logarithm of this function of JAX's: constant, with derivative 0, where the probability is 0."""

    @functools.wraps(probability)
    def log(*args: Any, **kwargs: Any) -> Any:
        p = probability(*args, **kwargs)
        none = p == 0
        return jnp.where(none, -jnp.inf, jnp.log(jnp.where(none, 1, p)))

    return log


norm = _distribution(jstats.norm, "the normal distribution: density `exp(-y**2 / 2) / sqrt(2 pi)`.")
uniform = _distribution(jstats.uniform, "the uniform distribution: density `1 / scale` from `loc` to `loc + scale`.")
expon = _distribution(jstats.expon, "the exponential distribution: density `exp(-y)` for `y >= 0`.")
gamma = _distribution(jstats.gamma, "the gamma distribution: density `y**(a - 1) exp(-y) / gamma(a)` for `y >= 0`.")
chi2 = _distribution(
    jstats.chi2,
    "the chi-squared distribution: the sum of `df` squares of standard normal numbers, times `scale`, plus `loc`.",
)
beta = _distribution(
    jstats.beta, "the beta distribution: density `y**(a - 1) (1 - y)**(b - 1) / beta(a, b)` for `0 <= y <= 1`."
)
cauchy = _distribution(jstats.cauchy, "the Cauchy distribution: density `1 / (pi (1 + y**2))`.")
laplace = _distribution(jstats.laplace, "the Laplace distribution: density `exp(-|y|) / 2`.")
logistic = _distribution(jstats.logistic, "the logistic distribution: density `exp(-y) / (1 + exp(-y))**2`.")
gennorm = _distribution(
    jstats.gennorm, "the generalised normal distribution: density `beta exp(-|y|**beta) / (2 gamma(1 / beta))`."
)
gumbel_l = _distribution(jstats.gumbel_l, "the Gumbel distribution of a minimum: density `exp(y - exp(y))`.")
gumbel_r = _distribution(jstats.gumbel_r, "the Gumbel distribution of a maximum: density `exp(-y - exp(-y))`.")
pareto = _distribution(jstats.pareto, "the Pareto distribution: density `b / y**(b + 1)` for `y >= 1`.")
t = _distribution(jstats.t, "Student's t distribution: density proportional to `(1 + y**2 / df)**(-(df + 1) / 2)`.")
truncnorm = _distribution(
    jstats.truncnorm,
    "the truncated normal distribution: the normal distribution given that `y` is between `a` and `b`.",
)
vonmises = _distribution(
    jstats.vonmises, "the von Mises distribution: density `exp(kappa cos(x)) / (2 pi i0(kappa))` of an angle."
)
wrapcauchy = _distribution(
    jstats.wrapcauchy,
    "the wrapped Cauchy distribution: "
    "density `(1 - c**2) / (2 pi (1 + c**2 - 2 c cos(x)))` of an angle from 0 to 2 pi.",
)
dirichlet = _distribution(
    jstats.dirichlet,
    "the Dirichlet distribution: "
    "density proportional to the product of `x**(alpha - 1)`, where `x` sums to 1 along its first axis.",
)
multivariate_normal = _distribution(
    jstats.multivariate_normal,
    "the normal distribution of vectors: "
    "`x` and `mean` have shapes `(..., n)`, `cov` `(..., n, n)`, or `()` for a multiple of the identity.",
)
bernoulli = _distribution(jstats.bernoulli, "the Bernoulli distribution: `k - loc` is 1 with probability `p`, else 0.")
binom = _distribution(
    jstats.binom, "the binomial distribution: `comb(n, k) p**k (1 - p)**(n - k)` for `k - loc` successes in `n` trials."
)
betabinom = _distribution(
    jstats.betabinom,
    "the beta-binomial distribution: "
    "`comb(n, k) beta(k + a, n - k + b) / beta(a, b)` for `k - loc` successes in `n` trials.",
)
geom = _distribution(
    jstats.geom, "the geometric distribution: `p (1 - p)**(k - 1)`: the first success is the trial `k - loc`."
)
nbinom = _distribution(
    jstats.nbinom,
    "the negative binomial distribution: "
    "`comb(k + n - 1, n - 1) p**n (1 - p)**k` for `k - loc` failures before `n` successes.",
)
poisson = _distribution(jstats.poisson, "the Poisson distribution: `mu**k exp(-mu) / k!` for `k - loc` events.")
multinomial = _distribution(
    jstats.multinomial,
    "the multinomial distribution: `n! / prod(x!) prod(p**x)` for counts `x` along the last axis, which sum to `n`.",
)

mode = borrow(
    jstats.mode,
    """The most frequent value along an axis, the smallest of several, and how often it occurs: `(mode, count)`.

    Args:
      a: an array.
      axis: an axis, or `None` for all elements.
      nan_policy: "propagate".
      keepdims: whether the axis stays, with size 1.

    Raises:
      NotImplementedError, ValueError: for another `nan_policy`.

    Example:
      >>> from tracegrad.scipy import stats
      >>> [x.item() for x in stats.mode([2, 4, 1, 4])]
      [4, 2]
    """,
    "axis",
    module=__name__,
)
rankdata = borrow(
    jstats.rankdata,
    """The ranks of the elements, from 1: floats, constant under differentiation.

    Args:
      a: an array.
      method: what equal elements get: "average", "min", "max", "dense" (ranks without gaps) or "ordinal" (their order).
      axis: an axis, or `None` for all elements, flat.
      nan_policy: "propagate".

    Raises:
      NotImplementedError, ValueError: for another method or `nan_policy`.

    Example:
      >>> from tracegrad.scipy import stats
      >>> stats.rankdata([0.0, 2.0, 3.0, 2.0]).tolist()
      [1.0, 2.5, 4.0, 2.5]
    """,
    "axis",
    module=__name__,
)
sem = borrow(
    jstats.sem,
    """The standard error of the mean: `std(a, ddof=ddof) / sqrt(n)`.

    Args:
      a: an array.
      axis: an axis, or `None` for all elements.
      ddof: what is subtracted from the number of elements for the variance.
      nan_policy: "propagate", or "omit" to leave NaN out.
      keepdims: whether the axis stays, with size 1.

    Example:
      >>> from tracegrad.scipy import stats
      >>> round(stats.sem([1.0, 2.0, 3.0]).item(), 4)  # 1 / sqrt(3)
      0.5774
    """,
    "axis",
    "ddof",
    module=__name__,
)


@jax.tree_util.register_pytree_node_class
class gaussian_kde:
    """A density estimated from data: the mean of normal densities around the points, which share a covariance.

    It is a pytree: it may be an argument of a transformation, and is differentiable in `dataset` and `weights`.

    Args:
      dataset: the points, `(n,)` numbers or `(d, n)` vectors in its columns.
      bw_method: the factor that the standard deviations of the data are multiplied with: a number, "scott"
        (`neff**(-1 / (d + 4))`), "silverman" (`(neff (d + 2) / 4)**(-1 / (d + 4))`), or a function of this object.
      weights: of the points, `(n,)`; equal by default.

    Raises:
      ValueError: for fewer than two points, weights of another shape, or another `bw_method`.
      TypeError: for complex points.

    Example:
      >>> from tracegrad.scipy import stats
      >>> kde = stats.gaussian_kde([1.0, 2.0, 4.0])
      >>> kde([2.0]).shape
      (1,)
    """

    def __init__(self, dataset: Any, bw_method: Any = None, weights: Any = None) -> None:
        dataset = _real(dataset, "dataset")
        if dataset.ndim > 2 or dataset.size < 2:
            raise ValueError(f"{called()}: dataset is {describe(dataset)} {here()}. Give two points or more.")
        dataset = tnp.atleast_2d(dataset)
        n = dataset.shape[1]
        if weights is None:
            weights = tnp.full(n, 1.0 / n, dtype=dataset.dtype)
        else:
            weights = _real(weights, "weights")
            if weights.shape != (n,):
                raise ValueError(f"{called()}: weights is {describe(weights)} {here()}. Its shape must be ({n},).")
            dataset, weights = promoted((dataset, weights), types_of((dataset, weights)))
            weights = weights / weights.sum()
        self.dataset, self.weights = dataset, weights
        self.neff = 1 / (weights**2).sum()
        factor = self._factor("scott" if bw_method is None else bw_method)
        centred = dataset - (dataset * weights).sum(axis=1, keepdims=True)
        covariance = (centred * weights) @ centred.T / (1 - (weights**2).sum())
        self.covariance = covariance * factor**2
        self.inv_cov = tnp.linalg.inv(covariance) / factor**2

    def _factor(self, method: Any) -> Any:
        if isinstance(method, str) and method == "scott":
            return self.neff ** (-1 / (self.d + 4))
        if isinstance(method, str) and method == "silverman":
            return (self.neff * ((self.d + 2) / 4)) ** (-1 / (self.d + 4))
        if callable(method):
            return method(self)
        if isinstance(method, str) or type_of(method).ndim:
            raise ValueError(
                f"{called()}: bw_method is {describe(method)} {here()}. "
                "Use 'scott', 'silverman', a number or a function."
            )
        return method

    def tree_flatten(self) -> tuple[tuple[Any, ...], None]:
        return (self.neff, self.dataset, self.weights, self.covariance, self.inv_cov), None

    @classmethod
    def tree_unflatten(cls, aux: None, children: Any) -> gaussian_kde:
        out = cls.__new__(cls)
        out.neff, out.dataset, out.weights, out.covariance, out.inv_cov = children
        return out

    @property
    def d(self) -> int:
        """The number of dimensions."""
        return int(self.dataset.shape[0])

    @property
    def n(self) -> int:
        """The number of points."""
        return int(self.dataset.shape[1])

    def evaluate(self, points: Any) -> Any:
        """The density at points, `(m,)` or `(d, m)`, or one of `d` elements."""
        return tnp.exp(self.logpdf(points))

    def __call__(self, points: Any) -> Any:
        """The density at points; see `evaluate`."""
        return self.evaluate(points)

    def pdf(self, x: Any) -> Any:
        """The density at points; see `evaluate`."""
        return self.evaluate(x)

    def logpdf(self, x: Any) -> Any:
        """The logarithm of the density at points, `(m,)` or `(d, m)`, or one of `d` elements."""
        given = _real(x, "points")
        points = tnp.atleast_2d(given)
        if points.shape[0] == 1 and points.shape[1] == self.d:
            points = points.reshape(self.d, 1)
        if points.ndim != 2 or points.shape[0] != self.d:
            raise ValueError(
                f"{called()}: the points are {describe(given)} {here()}. The dataset has {self.d} dimensions: "
                f"their shape must be ({self.d}, m)."
            )
        root = linalg.cholesky(self.inv_cov, lower=True).T
        apart = (root @ points)[:, :, None] - (root @ self.dataset)[:, None, :]
        log_norm = tnp.log(tnp.diagonal(root)).sum() - 0.5 * self.d * math.log(2 * math.pi)
        return log_norm + special.logsumexp(-0.5 * (apart**2).sum(axis=0), axis=1, b=self.weights)

    def integrate_gaussian(self, mean: Any, cov: Any) -> Any:
        """The integral of the density times a normal density of this mean `(d,)` and covariance `(d, d)`."""
        mean, cov = tnp.atleast_1d(tnp.squeeze(_real(mean, "mean"))), tnp.atleast_2d(_real(cov, "cov"))
        if mean.shape != (self.d,) or cov.shape != (self.d, self.d):
            raise ValueError(
                f"{called()}: mean is {describe(mean)} and cov is {describe(cov)} {here()}. Their shapes must be "
                f"({self.d},) and ({self.d}, {self.d})."
            )
        return (self._overlaps(mean[:, None], self.covariance + cov)[0] * self.weights).sum()

    def _overlaps(self, means: Any, covariance: Any) -> Any:
        """The normal densities of this covariance between means in columns, rows of the result, and the points."""
        root = linalg.cholesky(covariance, lower=True)
        apart = means[:, :, None] - self.dataset[:, None, :]
        apart = linalg.solve_triangular(root, apart.reshape(self.d, -1), lower=True).reshape(apart.shape)
        norm = (2 * math.pi) ** (self.d / 2) * tnp.diagonal(root).prod()
        return tnp.exp(-0.5 * (apart**2).sum(axis=0)) / norm

    def integrate_box_1d(self, low: Any, high: Any) -> Any:
        """The probability of numbers between `low` and `high`."""
        low, high = _real(low, "low"), _real(high, "high")
        if self.d != 1 or low.ndim or high.ndim:
            raise ValueError(
                f"{called()}: low is {describe(low)} and high {describe(high)}, for {self.d} dimensions {here()}. "
                "Give two numbers, for a density of one dimension."
            )
        scale = tnp.sqrt(self.covariance[0, 0])
        inside = special.ndtr((high - self.dataset[0]) / scale) - special.ndtr((low - self.dataset[0]) / scale)
        return (self.weights * inside).sum()

    def integrate_kde(self, other: Any) -> Any:
        """The integral of the product with another estimated density."""
        if not isinstance(other, gaussian_kde) or other.d != self.d:
            raise ValueError(f"{called()}: other is not a gaussian_kde of {self.d} dimensions {here()}.")
        overlaps = self._overlaps(other.dataset, self.covariance + other.covariance)
        return (overlaps * self.weights * other.weights[:, None]).sum()

    def resample(self, key: Any, shape: Any = ()) -> Any:
        """Random numbers from the density, `(d, *shape)`: those of a key of `tracegrad.random`."""
        which, noise = random.split(key)
        at = random.choice(which, self.n, shape=shape, p=self.weights)
        normal = random.normal(noise, (self.d, *shape), self.dataset.dtype)
        root = linalg.cholesky(self.covariance, lower=True)
        return self.dataset[:, at] + (root @ normal.reshape(self.d, -1)).reshape(normal.shape)

    def integrate_box(self, low_bounds: Any, high_bounds: Any, maxpts: Any = None) -> Any:
        """Not supported, as in JAX."""
        raise NotImplementedError(f"{called()}: boxes are not supported {here()}. Use integrate_box_1d.")

    def set_bandwidth(self, bw_method: Any = None) -> Any:
        """Not supported, as in JAX."""
        raise NotImplementedError(f"{called()}: it cannot be changed {here()}. Make another gaussian_kde.")


def _real(x: Any, name: str) -> Any:
    x = from_list(x)
    aval = type_of(x)
    if aval.dtype.kind == "c":
        raise TypeError(f"{called()}: {name} is {describe(x)}, which is complex, {here()}. Give real numbers.")
    return array_like(inexact(x, aval))


__all__ = [
    "bernoulli", "beta", "betabinom", "binom", "cauchy", "chi2", "dirichlet", "expon", "gamma", "gaussian_kde",
    "gennorm", "geom", "gumbel_l", "gumbel_r", "laplace", "logistic", "mode", "multinomial", "multivariate_normal",
    "nbinom", "norm", "pareto", "poisson", "rankdata", "sem", "t", "truncnorm", "uniform", "vonmises", "wrapcauchy",
]  # fmt: skip

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
