"""Minimization, with the signatures of `jax.scipy.optimize`.

Example:
  >>> import tracegrad as tg, tracegrad.numpy as np
  >>> def lowest(a):
  ...     return tg.scipy.optimize.minimize(lambda x: ((x - a) ** 4 + x ** 2).sum(), np.zeros(1), method="BFGS").x[0]
  >>> round(float(lowest(1.5)), 2), round(float(tg.grad(lowest)(1.5)), 2)
  (0.71, 0.79)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from .. import numpy as tnp
from ..body import call, record_body
from ..control import while_loop
from ..custom import custom_vjp
from ..errors import called, describe, here, need_function
from ..names import listed
from ..numpy.arguments import inexact, integer, type_of
from ..numpy.creation import from_list
from ..op import Op
from ..passes import optimize
from ..tape import Node, describe_source
from ..tracer import literal
from ..transforms import grad, hessian, stop_gradient, value_and_grad


class OptimizeResults(NamedTuple):
    """What a minimization found.

    Attributes:
      x: where the minimum is.
      success: whether the gradient is small enough there.
      status: 0 if so, 1 if there were too many iterations, 3 or 5 if the search along a line failed (its interval
        became too small; it took too many steps).
      fun, jac: the value and the gradient there.
      hess_inv: the estimate of the inverse of the Hessian, which has no derivative.
      nfev, njev, nit: how often the function and its gradient were computed, and how many iterations there were.
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


_OPTIONS = ("gtol", "line_search_maxiter", "maxiter", "norm")


def minimize(
    fun: Callable[..., Any],
    x0: Any,
    args: tuple[Any, ...] = (),
    *,
    method: str,
    tol: Any = None,
    options: Mapping[str, Any] | None = None,
) -> OptimizeResults:
    """A local minimum of a function, by the method of Broyden, Fletcher, Goldfarb and Shanno.

    The minimum is differentiable in `args` and in the values that `fun` closes over, by the implicit function theorem:
    the gradient stays 0 there. That is right only where it was found (`success`) and the Hessian is not singular. It
    does not depend on `x0`.

    Args:
      fun: takes `(x, *args)` and returns a real number.
      x0: where to begin, an array of one axis.
      args: a tuple of pytrees of arrays.
      method: "BFGS", the only one there is.
      tol: what `gtol` is by default.
      options: `gtol`, the norm of the gradient below which it ends (1e-5); `norm`, the order of that norm (inf);
        `maxiter`, how many iterations there are at most (200 for each element of `x0`); `line_search_maxiter`, how many
        steps along a line (10 to find an interval; 30 within it).

    Raises:
      TypeError: if `fun` is no function or returns no real number, or `args` is no tuple.
      ValueError: for another method or option, or if `x0` has other than one axis.

    Source: Nocedal and Wright, Numerical Optimization, algorithms 3.5, 3.6 and 6.1.
    """
    need_function(fun, "minimize", form="minimize(fun, x0, method='BFGS')")
    if not isinstance(args, tuple):
        raise TypeError(f"{called()}: args is {describe(args)} {here()}, and must be a tuple. Write args=(value,).")
    if not isinstance(method, str) or method.upper() != "BFGS":
        raise ValueError(f"{called()}: method={method!r} {here()}. Use 'BFGS'.")
    options = dict(options or {})
    unknown = options.keys() - set(_OPTIONS)
    if unknown:
        raise ValueError(f"{called()}: options {sorted(unknown)} {here()}. There are {', '.join(_OPTIONS)}.")
    x0 = from_list(x0)
    x0 = inexact(x0, type_of(x0))
    aval = type_of(x0)
    if aval.ndim != 1 or aval.dtype.kind == "c":
        raise ValueError(f"{called()}: x0 is {aval} {here()}, and must be real and have one axis. Reshape within fun.")
    gtol = options.get("gtol", 1e-5 if tol is None else tol)
    steps = integer(options.get("line_search_maxiter", 10), "line_search_maxiter")
    maxiter = options.get("maxiter", 200 * aval.shape[0])
    order = options.get("norm", math.inf)

    def objective(x: Any, args: Any) -> Any:
        value = fun(x, *args)
        found = type_of(value)
        if found.shape != () or found.dtype.kind == "c" or not found.differentiable:
            raise TypeError(f"{called()}: fun returns {found} {here()}, and must return one real number: sum it.")
        return value

    raw, closed = record_body(objective, (x0, args), {}, getattr(fun, "__name__", "fun"))
    body = optimize(raw)
    leaves: list[Any] = [*jax.tree.leaves(args), *closed]

    def of(values: Any) -> Callable[[Any], Any]:
        return lambda x: call(x, *values, body=body)[0]

    def run(x0: Any, values: Any, limits: Any) -> Any:
        return _minimum(of(values), x0, *limits, order, steps)

    def forward(x0: Any, values: Any, limits: Any) -> Any:
        result = solve(x0, values, limits)
        return result, (result.x, values)

    def backward(residuals: Any, ct: OptimizeResults) -> Any:
        x, values = residuals
        # At the minimum g(x, values) = 0, so that H dx = -dg.
        direction = -tnp.linalg.solve(hessian(of(values))(x), ct.x)
        which = [i for i, v in enumerate(values) if type_of(v).differentiable]
        grads: list[Any] = [None] * len(values)

        def along(some: Any) -> Any:
            full = list(values)
            for i, v in zip(which, some, strict=True):
                full[i] = v
            value, slope = value_and_grad(of(full))(x)
            return ct.fun * value + tnp.vdot(direction, slope)

        if which:
            for i, g in zip(which, grad(along)([values[i] for i in which]), strict=True):
                grads[i] = g
        return None, grads, None

    solve = custom_vjp(run)
    solve.defvjp(forward, backward)
    result = solve(x0, leaves, (gtol, maxiter))
    return result._replace(jac=stop_gradient(result.jac), hess_inv=estimate_op(result.hess_inv))  # type: ignore[no-any-return]


def _no_derivative(node: Node, cts: Any, needs: Any) -> Any:
    raise NotImplementedError(
        f"minimize, called at {describe_source(node.source)}: hess_inv is an estimate that has no derivative. Use "
        "tracegrad.stop_gradient(result.hess_inv), or tracegrad.numpy.linalg.inv(tracegrad.hessian(fun)(result.x))."
    )


estimate_op: Op = Op("bfgs_estimate", lambda x: x, _no_derivative, shape=lambda x: x)


# -- the method


def _minimum(
    fun: Callable[[Any], Any], x0: Any, gtol: Any, maxiter: Any, order: Any, steps: int
) -> OptimizeResults:  # fmt: skip
    at = value_and_grad(fun)
    one = tnp.eye(x0.size, dtype=x0.dtype)

    def small(g: Any) -> Any:
        return tnp.linalg.norm(g, ord=order) < gtol

    def goes_on(state: Any) -> Any:
        result, _, line = state
        return ~result.success & (line == 0) & (result.nit < maxiter)

    def step(state: Any) -> Any:
        old, before, _ = state
        direction = -_product(old.hess_inv, old.jac)
        alpha, f, g, count, line = _line_search(at, old.x, direction, old.fun, old.jac, before, steps)
        s, y = alpha * direction, g - old.jac
        curvature = tnp.vdot(y, s)
        rho = tnp.where(curvature == 0, 0, 1 / tnp.where(curvature == 0, 1, curvature))
        left = one - rho * s[:, None] * y[None, :]
        inverse = _product(_product(left, old.hess_inv), left.T) + rho * s[:, None] * s[None, :]
        new = OptimizeResults(
            x=old.x + s,
            success=small(g),
            status=old.status,
            fun=f,
            jac=g,
            hess_inv=tnp.where(tnp.isfinite(inverse).all() & (curvature != 0), inverse, old.hess_inv),
            nfev=old.nfev + count,
            njev=old.njev + count,
            nit=old.nit + 1,
        )
        return new, old.fun, line

    f, g = at(x0)
    start = OptimizeResults(x0, small(g), 0, f, g, one, 1, 1, 0)
    result, _, line = while_loop(goes_on, step, (start, f + tnp.linalg.norm(g) / 2, 0))
    failed = tnp.where(line != 0, 2 + line, literal(1))
    return result._replace(status=tnp.where(result.success, literal(0), failed))  # type: ignore[no-any-return]


def _product(x: Any, y: Any) -> Any:
    return tnp.matmul(x, y, precision="highest")


class _Line(NamedTuple):
    """A search along a line: `low` is the best step of the interval so far, with its value and slope."""

    within: Any  # whether an interval was found that has a step as wanted
    done: Any
    k: Any
    trial: Any
    low: Any
    f_low: Any
    slope_low: Any
    g_low: Any
    high: Any
    f_high: Any
    f: Any
    g: Any


_DECREASE, _CURVATURE = 1e-4, 0.9
_WITHIN = 30
"""How many steps are tried within an interval."""


def _line_search(at: Any, x: Any, direction: Any, f0: Any, g0: Any, before: Any, steps: int) -> tuple[Any, ...]:
    """A step that satisfies the strong Wolfe conditions: it, the value and the gradient there, how often these were
    computed, and 0, or 1 if the interval became too small, or 3 if none was found."""
    slope0 = tnp.vdot(g0, direction)
    dtype = x.dtype
    tiny = 1e-5 if np.finfo(dtype).bits < 64 else 1e-10

    def goes_on(s: _Line) -> Any:
        few = tnp.where(s.within, s.k < steps + _WITHIN, s.k < steps)
        wide = ~s.within | (abs(s.high - s.low) > tiny * tnp.maximum(abs(s.low), abs(s.high)))
        return ~s.done & few & wide

    def step(s: _Line) -> _Line:
        f, g = at(x + s.trial * direction)
        slope = tnp.vdot(g, direction)
        # NaN is no decrease either.
        above = ~(f <= f0 + _DECREASE * s.trial * slope0) | ((f >= s.f_low) & (s.within | (s.k > 0)))
        good = ~above & (abs(slope) <= -_CURVATURE * slope0)
        past = ~above & (tnp.where(s.within, slope * (s.high - s.low), slope) >= 0)
        # The new interval: from the better end to the trial, or from the trial to the end beyond the minimum.
        high = tnp.where(above, s.trial, tnp.where(past, s.low, s.high))
        f_high = tnp.where(above, f, tnp.where(past, s.f_low, s.f_high))
        low, f_low, slope_low, g_low = (
            tnp.where(above, old, new)
            for old, new in ((s.low, s.trial), (s.f_low, f), (s.slope_low, slope), (s.g_low, g))
        )
        within = s.within | above | past
        # Where a parabola through the low end, its slope and the value at the high end is lowest.
        width = high - low
        bend = f_high - f_low - slope_low * width
        share = -slope_low * width / (2 * tnp.where(bend == 0, 1, bend))
        share = tnp.where((share >= 0.1) & (share <= 0.9), share, 0.5)
        trial = tnp.where(good, s.trial, tnp.where(within, low + share * width, 2 * s.trial))
        return _Line(within, good, s.k + 1, trial, low, f_low, slope_low, g_low, high, f_high, f, g)

    guess = 1.01 * 2 * (f0 - before) / slope0
    first = tnp.where((guess > 0) & (guess < 1), guess, 1).astype(dtype)
    zero = tnp.zeros((), dtype)
    start = _Line(np.False_, np.False_, 0, first, zero, f0, slope0, g0, zero, f0, f0, g0)
    s = while_loop(goes_on, step, start)
    # Without a step as wanted, the best of the interval is taken, where it is lower than the beginning.
    alpha, f, g = (tnp.where(s.done, *two) for two in ((s.trial, s.low), (s.f, s.f_low), (s.g, s.g_low)))
    line = tnp.where(s.done, literal(0), tnp.where(s.within, literal(1), literal(3)))
    return alpha, f, g, s.k, line


__all__ = ["OptimizeResults", "minimize"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
