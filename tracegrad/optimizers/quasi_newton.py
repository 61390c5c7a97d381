"""L-BFGS, and the line searches that go with it: optimizers that are given the value and the function too."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from .. import numpy as tnp
from ..control import cond, scan, while_loop
from ..errors import called, describe, here
from ..pickling import pickled_as_call
from ..tape import aval_of
from ..tools import stop_gradient
from ..transforms import value_and_grad
from .base import (
    GradientTransformation,
    Params,
    Rate,
    State,
    chain,
    each,
    identity,
    increment,
    need,
    need_params,
    real_dtype,
    transformation,
    typed_like,
    zero_count,
    zeros_like,
)
from .scaling import scale, scale_by_learning_rate

_FORM = "grads, state, params, value=value, grad=grads, value_fn=f"


def vdot(x: Any, y: Any) -> Any:
    """The real part of the inner product of two trees."""
    products = each(lambda a, b: tnp.sum(tnp.real(tnp.conj(a) * b)), [], x, y)
    return functools.reduce(lambda a, b: a + b, jax.tree.leaves(products), 0.0)


def _along(params: Params, step: Any, direction: Any) -> Params:
    return each(lambda t, p, d: typed_like(p + t * d, p), [step], params, direction)


# -- the direction


class ScaleByLBFGSState(NamedTuple):
    """count: int32, the steps taken; params, updates: the last ones; the memories: their differences, and weights."""

    count: Any
    params: Any
    updates: Any
    diff_params_memory: Any
    diff_updates_memory: Any
    weights_memory: Any


@pickled_as_call
def scale_by_lbfgs(memory_size: int = 10, scale_init_precond: bool = True) -> GradientTransformation:
    """The gradient times an approximation of the inverse Hessian, from the last steps and differences of gradients.

    Nocedal and Wright, "Numerical optimization" (2006), algorithm 7.4.

    Args:
      memory_size: how many differences are kept.
      scale_init_precond: whether the approximation starts from s^T y / y^T y times the identity, for the last
        differences s and y, and in the first step from 1 / ||g|| at most; or else from the identity.
    """
    if memory_size < 1:
        raise ValueError(f"{called()}: memory_size is {memory_size} {here()}. Give a number of at least 1.")

    def init(params: Params) -> State:
        memory = jax.tree.map(lambda p: tnp.zeros((memory_size, *aval_of(p).shape), aval_of(p).dtype), params)
        weights, zeros = tnp.zeros((memory_size,)), zeros_like(params)
        return ScaleByLBFGSState(zero_count(), zeros, zeros, memory, memory, weights)

    def update(grads: Any, state: ScaleByLBFGSState, params: Params, **extra: Any) -> tuple[Any, State]:
        index, before, started = state.count % memory_size, (state.count - 1) % memory_size, state.count > 0

        def difference(new: Any, old: Any) -> Any:
            return tnp.where(started, new - old, 0)

        s = each(difference, [], need_params(params), state.params)
        y = each(difference, [], grads, state.updates)
        curvature = vdot(y, s)
        weight = tnp.where(curvature == 0, 0, 1 / tnp.where(curvature == 0, 1, curvature))

        def remember(memory: Any, new: Any) -> Any:
            return memory.at[before].set(tnp.astype(new, memory.dtype))

        steps = each(remember, [], state.diff_params_memory, s)
        slopes = each(remember, [], state.diff_updates_memory, y)
        weights = remember(state.weights_memory, weight)

        def at(i: Any) -> tuple[Any, Any, Any]:
            return each(lambda m: m[i], [], steps), each(lambda m: m[i], [], slopes), weights[i]

        def back(g: Any, i: Any) -> tuple[Any, Any]:
            s, y, weight = at(i)
            alpha = weight * vdot(s, g)
            return _along(g, -alpha, y), alpha

        def forth(g: Any, i_alpha: Any) -> tuple[Any, None]:
            i, alpha = i_alpha
            s, y, weight = at(i)
            return _along(g, alpha - weight * vdot(y, g), s), None

        order = (index + tnp.arange(memory_size)) % memory_size
        direction, alphas = scan(back, grads, order, reverse=True)
        if scale_init_precond:
            size, norm = vdot(y, y), tnp.sqrt(vdot(*[stop_gradient(grads)] * 2))
            first = 1 / tnp.maximum(norm, 1)
            curved = tnp.where(size > 0, curvature / tnp.where(size > 0, size, 1), 1)
            direction = each(lambda a, g: a * g, [tnp.where(started, curved, first)], direction)
        direction, _ = scan(forth, typed_like(direction, grads), (order, alphas))
        return direction, ScaleByLBFGSState(increment(state.count), params, grads, steps, slopes, weights)

    return transformation(init, update)


# -- how far to go along it


def _function(extra: dict[str, Any]) -> tuple[Callable[[Params], Any], Any, Any]:
    """The function of the parameters alone, its value and its gradient at them."""
    value, grad = need(extra, "value", _FORM), need(extra, "grad", _FORM)
    function = need(extra, "value_fn", _FORM)
    known = inspect.signature(function).parameters
    rest = {k: v for k, v in extra.items() if k not in ("value", "grad", "value_fn")}
    for name in rest:
        if name not in known:
            raise TypeError(
                f"{called()}: {name} is no argument of value_fn {here()}. What is given besides value, grad and "
                "value_fn is for it."
            )
    return functools.partial(function, **rest), value, grad


def _value_dtype(params: Params) -> Any:
    leaves = jax.tree.leaves(params)
    return real_dtype(*leaves) if leaves else jax.dtypes.canonicalize_dtype(float)


def _infinite_if_nan(x: Any) -> Any:
    return tnp.where(tnp.isnan(x), np.inf, tnp.maximum(x, 0))


class ScaleByBacktrackingLinesearchState(NamedTuple):
    """learning_rate, value: of the last step; grad: at its end, or `None`; num_linesearch_steps: int32."""

    learning_rate: Any
    value: Any
    grad: Any
    num_linesearch_steps: Any


@pickled_as_call
def scale_by_backtracking_linesearch(
    max_backtracking_steps: Any,
    slope_rtol: Any = 1e-4,
    decrease_factor: Any = 0.8,
    increase_factor: Any = 1.5,
    max_learning_rate: Any = 1.0,
    atol: Any = 0.0,
    rtol: Any = 0.0,
    store_grad: bool = False,
) -> GradientTransformation:
    """The step along the updates, shortened until the value falls enough. Armijo (1966).

    It comes last in a `chain`, after the learning rate, and needs `update(grads, state, params, value=value,
    grad=grads, value_fn=f)`, with what else `f` takes by name.

    Args:
      max_backtracking_steps: how often it is shortened at most.
      slope_rtol: enough is this part of what the slope promises.
      decrease_factor, increase_factor: of the step in a search, and from the last step to the next search.
      max_learning_rate: of the step.
      atol, rtol: what may be missing of enough, absolutely and in parts of the value.
      store_grad: whether the gradient at the end is computed and kept, for `value_and_grad_from_state`.
    """

    def init(params: Params) -> State:
        one = tnp.ones((), _value_dtype(params))
        grad = zeros_like(params) if store_grad else None
        return ScaleByBacktrackingLinesearchState(one, one * np.inf, grad, zero_count())

    def update(
        updates: Any, state: ScaleByBacktrackingLinesearchState, params: Params, **extra: Any
    ) -> tuple[Any, State]:
        function, value, grad = _function(extra)
        need_params(params)
        slope = vdot(grad, updates)
        dtype = state.value.dtype

        def more(search: Any) -> Any:
            _, _, error, count = search
            return ~(error <= atol) & (count <= max_backtracking_steps)

        def shorten(search: Any) -> Any:
            rate, _, _, count = search
            rate = tnp.where(count > 0, decrease_factor * rate, rate)
            new = function(_along(params, rate, updates))
            error = _infinite_if_nan(new - (1 + rtol) * value - rate * slope_rtol * slope)
            return tnp.astype(rate, dtype), tnp.astype(new, dtype), tnp.astype(error, dtype), increment(count)

        first = tnp.minimum(increase_factor * state.learning_rate, max_learning_rate)
        start = (tnp.astype(first, dtype), tnp.asarray(value, dtype), tnp.asarray(np.inf, dtype), zero_count())
        rate, new, error, count = while_loop(more, shorten, start)
        stuck = tnp.isinf(error)
        rate, new = tnp.where(stuck, 0, rate), tnp.where(stuck, value, new)
        grad = value_and_grad(function)(_along(params, rate, updates))[1] if store_grad else None
        updates = each(lambda rate, u: rate * u, [rate], updates)
        return updates, ScaleByBacktrackingLinesearchState(rate, new, grad, count)

    return transformation(init, update)


class ZoomLinesearchInfo(NamedTuple):
    """num_linesearch_steps: int32; decrease_error, curvature_error: what is missing of the two conditions."""

    num_linesearch_steps: Any
    decrease_error: Any
    curvature_error: Any


class ScaleByZoomLinesearchState(NamedTuple):
    """learning_rate: of the last step; value, grad: at its end; info: on the search for it."""

    learning_rate: Any
    value: Any
    grad: Any
    info: Any


class _Point(NamedTuple):
    """A place on the line."""

    step: Any
    value: Any
    slope: Any


class _Search(NamedTuple):
    """What goes round the loop: the last point, the ends of the interval, the last end left, the best safe point."""

    count: Any
    found: Any
    done: Any
    failed: Any
    point: _Point
    grad: Any
    low: _Point
    high: _Point
    left: _Point
    safe: _Point
    safe_grad: Any
    decrease_error: Any
    curvature_error: Any


def _choose(condition: Any, this: Any, that: Any) -> Any:
    return jax.tree.map(lambda x, y: tnp.where(condition, x, y), this, that)


def _cubic(low: _Point, high: _Point, other: _Point) -> Any:
    """Where the cubic of the value and slope at the low end, and the values at the two others, is least."""
    b, c = high.step - low.step, other.step - low.step
    over = (b * c) ** 2 * (b - c)
    at_b = high.value - low.value - low.slope * b
    at_c = other.value - low.value - low.slope * c
    cube, square = (c**2 * at_b - b**2 * at_c) / over, (-(c**3) * at_b + b**3 * at_c) / over
    return low.step + (-square + tnp.sqrt(square**2 - 3 * cube * low.slope)) / (3 * cube)


def _parabola(low: _Point, high: _Point) -> Any:
    """Where the parabola of the value and slope at the low end, and the value at the other, is least."""
    b = high.step - low.step
    return low.step - low.slope / (2 * (high.value - low.value - low.slope * b) / b**2)


def _middle(low: _Point, high: _Point, other: _Point) -> Any:
    """A point well inside the interval: by the cubic, or the parabola, or halfway. What is NaN is not inside."""
    begin, end, length = tnp.minimum(low.step, high.step), tnp.maximum(low.step, high.step), abs(high.step - low.step)
    middle = (low.step + high.step) / 2
    for point, margin in ((_parabola(low, high), 0.1), (_cubic(low, high, other), 0.2)):
        middle = tnp.where((point > begin + margin * length) & (point < end - margin * length), point, middle)
    return middle


@pickled_as_call
def scale_by_zoom_linesearch(
    max_linesearch_steps: Any,
    max_learning_rate: Any = None,
    tol: Any = 0.0,
    increase_factor: Any = 2.0,
    slope_rtol: Any = 1e-4,
    curv_rtol: Any = 0.9,
    approx_dec_rtol: Any = 1e-6,
    stepsize_precision: Any = 1e-5,
    initial_guess_strategy: str = "keep",
) -> GradientTransformation:
    """The step along the updates at which the value has fallen and the slope has flattened: strong Wolfe conditions.

    Steps grow until an interval holds one, which is then found by interpolation: Nocedal and Wright, "Numerical
    optimization" (2006), algorithms 3.5 and 3.6; where values are too near to compare, the decrease is judged by
    slopes: Hager and Zhang (2005). It comes last in a `chain`, after the learning rate, and needs `update(grads, state,
    params, value=value, grad=grads, value_fn=f)`, with what else `f` takes by name.

    Args:
      max_linesearch_steps: how many points are tried at most.
      max_learning_rate: of the step; `None` for any.
      tol: what may be missing of the two conditions.
      increase_factor: from one step to the next while there is no interval.
      slope_rtol: the value has fallen by this part of what the slope promises.
      curv_rtol: the slope is this part of the first, in size.
      approx_dec_rtol: values this near, in parts of the value, are judged by slopes; `None` for never.
      stepsize_precision: the length of an interval that is searched no further.
      initial_guess_strategy: "one", or "keep" to begin with the last step.
    """
    if initial_guess_strategy not in ("one", "keep"):
        raise ValueError(
            f"{called()}: initial_guess_strategy is {describe(initial_guess_strategy)} {here()}. Give 'one' or 'keep'."
        )

    def init(params: Params) -> State:
        one = tnp.ones((), _value_dtype(params))
        info = ZoomLinesearchInfo(zero_count(), one * np.inf, one * np.inf)
        return ScaleByZoomLinesearchState(one, one * np.inf, zeros_like(params), info)

    def update(updates: Any, state: ScaleByZoomLinesearchState, params: Params, **extra: Any) -> tuple[Any, State]:
        function, value, grad = _function(extra)
        slope_and_value = value_and_grad(function)
        dtype = state.value.dtype
        number = functools.partial(tnp.asarray, dtype=dtype)
        start = _Point(number(0.0), number(value), number(vdot(grad, updates)))
        guess = number(1.0) if initial_guess_strategy == "one" else state.learning_rate

        def decrease_error(point: _Point) -> Any:
            error = point.value - start.value - slope_rtol * point.step * start.slope
            if approx_dec_rtol is not None:
                by_slope = point.slope - (2 * slope_rtol - 1) * start.slope
                near = point.value - start.value - approx_dec_rtol * abs(start.value)
                error = tnp.minimum(tnp.maximum(by_slope, near), error)
            return _infinite_if_nan(error)

        def more(search: _Search) -> Any:
            return ~(search.done | search.failed)

        def step(search: _Search) -> _Search:
            count, found, last, low, high, safe = (
                search.count, search.found, search.point, search.low, search.high, search.safe,
            )  # fmt: skip
            farther = tnp.where(count == 0, guess, increase_factor * last.step)
            farthest = np.False_
            if max_learning_rate is not None:
                farthest = ~found & (farther >= max_learning_rate)
                farther = tnp.minimum(farther, max_learning_rate)
            at = tnp.where(found, _middle(low, high, search.left), farther)
            new_value, new_grad = slope_and_value(_along(params, at, updates))
            point = typed_like(_Point(at, new_value, vdot(new_grad, updates)), last)
            decrease = decrease_error(point)
            curvature = _infinite_if_nan(abs(point.slope) - curv_rtol * abs(start.slope))
            error = tnp.maximum(decrease, curvature)
            # While there is no interval: it lies between the last point and this one, if this one is too high or has
            # passed a minimum.
            high_here = (decrease > 0) | ((point.value >= last.value) & (count > 0))
            low_here = (point.slope >= 0) & ~high_here
            outer = (_choose(low_here, point, last), _choose(low_here, last, point))
            # In an interval: this point replaces the high end, or the low one, which then is the high one if the
            # minimum lies between the two.
            too_high = (decrease > 0) | (point.value >= low.value)
            turned = ~too_high & (point.slope * (high.step - low.step) >= 0)
            inner = (_choose(too_high, low, point), _choose(too_high, point, _choose(turned, low, high)))
            new_low, new_high = _choose(found, inner, outer)
            left = _choose(found, _choose(too_high | turned, high, low), new_low)
            interval = found | high_here | low_here | (error <= tol)
            done = (error <= tol) | (farthest & ~interval)
            keep = (decrease <= tol) & (~found | (point.value < safe.value))
            safe, safe_grad = _choose(keep, (point, new_grad), (safe, search.safe_grad))
            short = found & (abs(high.step - low.step) <= stepsize_precision) & (safe.step > 0)
            failed = ((count + 1 >= max_linesearch_steps) | short) & ~done
            new = _Search(
                increment(count), interval, done, failed, point, new_grad, new_low, new_high, left, safe, safe_grad,
                decrease, curvature,
            )  # fmt: skip
            return typed_like(new, search)  # type: ignore[no-any-return]

        no, far, grad = tnp.asarray(False), number(np.inf), typed_like(grad, params)
        search = _Search(zero_count(), no, no, no, start, grad, start, start, start, start, grad, far, far)
        search = while_loop(more, step, search)
        use_safe = search.failed & ((search.safe.step > 0) | tnp.isinf(search.decrease_error))
        point, grad = _choose(use_safe, (search.safe, search.safe_grad), (search.point, search.grad))
        info = ZoomLinesearchInfo(search.count, search.decrease_error, search.curvature_error)
        new = ScaleByZoomLinesearchState(point.step, point.value, grad, info)
        return each(lambda rate, u: rate * u, [point.step], updates), new

    return transformation(init, update)


@pickled_as_call
def lbfgs(
    learning_rate: Rate | None = None,
    memory_size: int = 10,
    scale_init_precond: bool = True,
    linesearch: GradientTransformation | None = scale_by_zoom_linesearch(20, initial_guess_strategy="one"),  # noqa: B008
) -> GradientTransformation:
    """L-BFGS with a line search: `update(grads, state, params, value=value, grad=grads, value_fn=f)`.

    Liu and Nocedal (1989).

    Args:
      learning_rate: of the step that the line search begins with; `None` for 1.
      memory_size, scale_init_precond: as in `scale_by_lbfgs`.
      linesearch: what makes the step, or `None` for the learning rate alone.

    Example:
      >>> import numpy as np
      >>> from tracegrad import optimizers
      >>> f = lambda x: ((x - np.array([1.0, 2.0])) ** 2).sum()
      >>> optimizer = optimizers.lbfgs()
      >>> slope = optimizers.value_and_grad_from_state(f)
      >>> x = np.zeros(2)
      >>> state = optimizer.init(x)
      >>> for _ in range(3):
      ...     value, grads = slope(x, state=state)
      ...     updates, state = optimizer.update(grads, state, x, value=value, grad=grads, value_fn=f)
      ...     x = optimizers.apply_updates(x, updates)
      >>> x.round(3).tolist()
      [1.0, 2.0]
    """
    rate = scale(-1.0) if learning_rate is None else scale_by_learning_rate(learning_rate)
    search = identity() if linesearch is None else linesearch
    return chain(scale_by_lbfgs(memory_size, scale_init_precond), rate, search)


def value_and_grad_from_state(value_fn: Callable[..., Any]) -> Callable[..., tuple[Any, Any]]:
    """`value_and_grad(value_fn)(params, ..., state=state)`, which a line search has left in the state.

    At the first step, where there are none, they are computed.

    Raises:
      ValueError: if no line search's value and gradient are in the state.
    """

    def value_and_gradient(params: Params, *args: Any, state: State, **kwargs: Any) -> tuple[Any, Any]:
        kept = _search_state(state)
        if kept is None or kept.grad is None:
            raise ValueError(
                f"{called()}: the state has no value and gradient {here()}. Give the state of an optimizer with "
                "scale_by_zoom_linesearch, or with scale_by_backtracking_linesearch(..., store_grad=True)."
            )

        def compute() -> tuple[Any, Any]:
            value, grad = value_and_grad(value_fn)(params, *args, **kwargs)
            return typed_like((value, grad), (kept.value, kept.grad))  # type: ignore[no-any-return]

        return cond(tnp.isfinite(kept.value), lambda: (kept.value, kept.grad), compute)  # type: ignore[no-any-return]

    return value_and_gradient


def _search_state(state: Any) -> Any:
    if isinstance(state, (ScaleByZoomLinesearchState, ScaleByBacktrackingLinesearchState)):
        return state
    parts = state.values() if isinstance(state, dict) else state if isinstance(state, tuple) else ()
    return next((found for part in parts if (found := _search_state(part)) is not None), None)


__all__ = [
    "ScaleByBacktrackingLinesearchState", "ScaleByLBFGSState", "ScaleByZoomLinesearchState", "ZoomLinesearchInfo",
    "lbfgs", "scale_by_backtracking_linesearch", "scale_by_lbfgs", "scale_by_zoom_linesearch",
    "value_and_grad_from_state",
]  # fmt: skip
