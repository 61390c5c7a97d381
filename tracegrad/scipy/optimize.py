"""Minimization, with the signatures of `jax.scipy.optimize`.

Example:
  >>> import tracegrad.numpy as np
  >>> from tracegrad.scipy.optimize import minimize
  >>> found = minimize(lambda x: ((x - np.array([1.0, 2.0])) ** 2).sum(), np.zeros(2), method="BFGS")
  >>> print(found.x.round(3), bool(found.success))
  [1. 2.] True
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from .. import numpy as tnp
from ..body import call, record_body
from ..control import while_loop
from ..custom import custom_vjp
from ..derivatives import hessian
from ..errors import called, describe, describe_source, here, name_of, need_function
from ..names import listed
from ..numpy.arguments import from_list, inexact, type_of
from ..op import Op
from ..passes import optimize
from ..tape import Node, Tape
from ..tools import stop_gradient
from ..tracer import Tracer
from ..transforms import grad, value_and_grad

__all__ = ["OptimizeResults", "minimize"]


class OptimizeResults(NamedTuple):
    """What `minimize` has found.

    x: the minimum, shape (n,). success: whether it converged. status: 0 if it did, 1 after too many iterations, 3 if a
    line search found no better place. fun: the value there. jac: the gradient there, shape (n,). hess_inv: an estimate
    of the inverse of the Hessian, shape (n, n). nfev, njev: how often value and gradient were computed. nit: how many
    iterations there were.

    Example:
      >>> from tracegrad.scipy.optimize import OptimizeResults
      >>> OptimizeResults._fields[:2]
      ('x', 'success')
    """

    x: Any
    success: Any
    status: Any
    fun: Any
    jac: Any
    hess_inv: Any
    nfev: Any
    njev: Any
    nit: Any


def minimize(
    fun: Callable[..., Any],
    x0: Any,
    args: tuple[Any, ...] = (),
    *,
    method: str,
    tol: float | None = None,
    options: Mapping[str, Any] | None = None,
) -> OptimizeResults:
    """A local minimum of a function of a vector, by the method of Broyden, Fletcher, Goldfarb and Shanno (BFGS).

    Where it has converged, the minimum and the value there have derivatives in `args` and in what `fun` closes over,
    of any order, by the implicit function theorem: they cost a Hessian and a linear system. They do not depend on `x0`.

    Args:
      fun: `fun(x, *args)`, a real scalar.
      x0: where to begin, shape (n,), real.
      args: more arguments; arrays and floats in them are traced, others are Python values.
      method: "BFGS".
      tol: `gtol`, unless `options` have it.
      options: `gtol` (1e-5): it has converged when the norm of the gradient is less; `norm` (infinity): of which
        order that norm is; `maxiter` (200 n); `line_search_maxiter` (20): how often one line search may compute `fun`.

    Raises:
      TypeError: if an argument is not what it has to be, and for an option that there is not.
      ValueError: if `x0` is no vector.
      NotImplementedError: for another method, and for a derivative of `hess_inv`.

    Source: Nocedal and Wright, Numerical Optimization (2006), algorithms 6.1, 3.5 and 3.6.

    Example:
      >>> import tracegrad as tg, tracegrad.numpy as np
      >>> from tracegrad.scipy.optimize import minimize
      >>> def lowest(a):
      ...     return minimize(lambda x, a: ((x - a) ** 2).sum(), np.zeros(2), (a,), method="BFGS").x[0]
      >>> print(tg.grad(lowest)(np.array([3.0, 4.0])).round(3))
      [1. 0.]
    """
    need_function(fun, "minimize", form="minimize(fun, x0, args, method='BFGS')")
    if not isinstance(args, tuple):
        raise TypeError(f"{called()}: args is {describe(args)}, which is no tuple {here()}. Write args=(a,).")
    if not isinstance(method, str) or method.lower() != "bfgs":
        raise NotImplementedError(
            f"{called()}: method is {describe(method)} {here()}. Use 'BFGS'; for many variables, where its matrix is "
            "too large, use an optimizer of tracegrad.optimizers, or of optax, in a loop."
        )
    chosen = {"gtol": 1e-5 if tol is None else tol, "norm": np.inf, "maxiter": None, "line_search_maxiter": 20}
    for name, value in (options or {}).items():
        if name not in chosen:
            raise TypeError(f"{called()}: options has {name!r} {here()}. There are {', '.join(chosen)}.")
        chosen[name] = value
    x0 = from_list(x0)
    x0 = inexact(x0, type_of(x0))
    aval = type_of(x0)
    if aval.ndim != 1 or not aval.shape[0] or aval.dtype.kind == "c":
        raise ValueError(
            f"{called()}: x0 is {describe(x0)} {here()}, and has to be a real vector, of shape (n,), n > 0. Reshape "
            "in the function that is minimized; for a complex variable, pass its real and imaginary parts."
        )
    if chosen["maxiter"] is None:
        chosen["maxiter"] = 200 * aval.shape[0]
    raw, captured = record_body(fun, (x0, *args), {}, name_of(fun), static=lambda leaf: not _is_value(leaf))
    if [v.aval.shape for v in raw.outputs] != [()] or raw.outputs[0].aval.dtype.kind != "f":
        found = ", ".join(repr(v.aval) for v in raw.outputs) or "nothing"
        raise TypeError(f"{called()}: {name_of(fun)} returned {found} {here()}. It must return a real scalar.")
    norm = chosen.pop("norm")
    limits = (chosen["gtol"], chosen["maxiter"], chosen["line_search_maxiter"])
    rest = [x for x in jax.tree.leaves(args) if _is_value(x)] + captured
    result: OptimizeResults = _minimum(optimize(raw), norm, x0, limits, rest)
    # The gradient is 0 at the minimum, wherever that is.
    return result._replace(jac=stop_gradient(result.jac), hess_inv=_estimate(result.hess_inv))


@functools.partial(custom_vjp, nondiff_argnums=(0, 1))
def _minimum(body: Tape, norm: Any, x0: Any, limits: Any, rest: Any) -> OptimizeResults:
    """The minimum of the function that is `body`, of x and `rest`."""
    return _bfgs(value_and_grad(lambda x: call(x, *rest, body=body)[0]), x0, norm, *limits)


def _minimum_forward(body: Tape, norm: Any, x0: Any, limits: Any, rest: Any) -> Any:
    result = _minimum(body, norm, x0, limits, rest)
    return result, (result.x, rest)


def _minimum_backward(body: Tape, norm: Any, residuals: Any, ct: OptimizeResults) -> Any:
    """Where the gradient in x stays 0, x changes by -(its Hessian)⁻¹ (the change of the gradient)."""
    x, rest = residuals

    def value(x: Any, rest: Any) -> Any:
        return call(x, *rest, body=body)[0]

    change = tnp.linalg.solve(hessian(value)(x, rest), ct.x)
    which = [i for i, v in enumerate(rest) if type_of(v).differentiable]

    def along(some: Any) -> Any:
        full = list(rest)
        for i, v in zip(which, some, strict=True):
            full[i] = v
        return ct.fun * value(x, full) - tnp.vdot(change, grad(value)(x, full))

    grads: list[Any] = [None] * len(rest)
    if which:
        for i, g in zip(which, grad(along)([rest[i] for i in which]), strict=True):
            grads[i] = g
    return None, None, grads


_minimum.defvjp(_minimum_forward, _minimum_backward)


def _is_value(x: Any) -> bool:
    return isinstance(x, (Tracer, jax.Array, np.ndarray, np.generic, float))


def _no_derivative(node: Node, cts: Any, needs: Any) -> Any:
    raise NotImplementedError(
        f"a gradient goes through the hess_inv of a minimum, computed at {describe_source(node.source)}: it is an "
        "estimate, which depends on the way to the minimum, and has no derivative. Compute tracegrad.hessian of "
        "the function at the minimum, and invert it."
    )


_estimate: Op = Op("inverse_hessian", lambda x: x, _no_derivative, shape=lambda x: x)


def _bfgs(
    value_and_gradient: Callable[[Any], tuple[Any, Any]],
    x0: Any,
    norm: Any,
    gtol: Any,
    maxiter: Any,
    line_search_maxiter: Any,
) -> OptimizeResults:
    dtype, n = type_of(x0).dtype, type_of(x0).shape[0]
    unit = tnp.eye(n, dtype=dtype)

    def small(g: Any) -> Any:
        return tnp.linalg.norm(g, ord=norm) < gtol

    def goes_on(state: Any) -> Any:
        result, _ = state
        return ~result.success & (result.status == 0) & (result.nit < maxiter)

    def step(state: Any) -> Any:
        old, before = state
        p = -_product(old.hess_inv, old.jac)
        first = 2.02 * (old.fun - before) / _product(old.jac, p)
        first = tnp.where((first > 0) & (first < 1), first, 1).astype(dtype)
        x, f, g, found, evaluations = _line_search(
            value_and_gradient, old.x, p, old.fun, old.jac, first, line_search_maxiter
        )
        s, y = x - old.x, g - old.jac
        curvature = _product(s, y)
        rho = 1 / tnp.where(curvature > 0, curvature, 1)
        left = unit - rho * tnp.outer(s, y)
        inverse = _product(_product(left, old.hess_inv), left.T) + rho * tnp.outer(s, s)
        result = OptimizeResults(
            x=x,
            success=small(g),
            status=tnp.where(found | small(g), 0, 3).astype(np.int32),
            fun=f,
            jac=g,
            hess_inv=tnp.where(curvature > 0, inverse, old.hess_inv),
            nfev=old.nfev + evaluations,
            njev=old.njev + evaluations,
            nit=old.nit + 1,
        )
        return result, old.fun

    f, g = value_and_gradient(x0)
    none, one = tnp.zeros((), np.int32), tnp.ones((), np.int32)
    start = OptimizeResults(x0, small(g), none, f, g, unit, one, one, none)
    result, _ = while_loop(goes_on, step, (start, f + (tnp.linalg.norm(g) / 2).astype(type_of(f).dtype)))
    stopped = ~result.success & (result.status == 0)
    return result._replace(status=tnp.where(stopped, 1, result.status).astype(np.int32))  # type: ignore[no-any-return]


class _Point(NamedTuple):
    """A place on the line: the step, the value, its derivative along the line, the gradient."""

    a: Any
    f: Any
    d: Any
    g: Any


def _line_search(
    value_and_gradient: Callable[[Any], tuple[Any, Any]], x: Any, p: Any, f0: Any, g0: Any, first: Any, limit: Any
) -> tuple[Any, Any, Any, Any, Any]:
    """A place along `p` with the strong Wolfe conditions: where it is, value, gradient, whether there is, evaluations.

    Bracketing and zooming are one loop, with one evaluation in it: while nothing is bracketed, `high` is at infinity.
    Else the best place that was found.
    """
    d0 = _product(g0, p)
    # Below this, a difference of values is rounding.
    slack = 4 * float(np.finfo(type_of(f0).dtype).eps) * abs(f0)

    def goes_on(state: Any) -> Any:
        *_, found, k = state
        return ~found & (k < limit)

    def step(state: Any) -> Any:
        low, high, a, _, k = state
        f, g = value_and_gradient(x + a * p)
        here = _Point(a, f, _product(g, p), g)
        # Written so that a NaN is too high.
        decreases = (f <= f0 + 1e-4 * a * d0 + slack) & (f <= low.f + slack)
        found = decreases & (abs(here.d) <= -0.9 * d0)
        beyond = here.d * tnp.where(tnp.isinf(high.a), 1, high.a - low.a) >= 0
        high = _choose(decreases, _choose(beyond, low, high), here)
        low = _choose(decreases, here, low)
        width = high.a - low.a
        # The minimum of the cubic through both ends, with their derivatives: equation 3.59.
        slope = low.d + high.d - 3 * (low.f - high.f) / (low.a - high.a)
        root = tnp.sign(width) * tnp.sqrt(slope * slope - low.d * high.d)
        part = 1 - (high.d + root - slope) / (high.d - low.d + 2 * root)
        part = tnp.where((part > 0.1) & (part < 0.9), part, 0.5)
        following = tnp.where(tnp.isinf(high.a), 2 * a, low.a + part * width).astype(a.dtype)
        return low, high, following, found, k + 1

    start = _Point(tnp.zeros_like(d0), f0, d0, g0)
    far = start._replace(a=tnp.full_like(d0, np.inf))
    low, _, _, found, k = while_loop(goes_on, step, (start, far, first, np.False_, np.int32(0)))
    return x + low.a * p, low.f, low.g, found, k


def _choose(condition: Any, a: _Point, b: _Point) -> _Point:
    return _Point(*[tnp.where(condition, x, y) for x, y in zip(a, b, strict=True)])


def _product(x: Any, y: Any) -> Any:
    return tnp.matmul(x, y, precision="highest")


if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
