"""Optimizers: optax's protocol, names, arguments and defaults, so that both mix. Use ops, and `@jit`.

An optimizer is a `GradientTransformation`, a pair of functions: `init(params)` returns its state, a pytree of
arrays, and `update(grads, state, params)` returns what to add to the parameters, and the next state. They work
on any pytree, eagerly (as one compiled call), under `@jit`, and in a recording, where they are differentiable.
`chain` makes one of several. Optimizers and their states can be pickled, if schedules and masks given to them can.

Example:
  >>> import numpy as np, tracegrad as tg
  >>> from tracegrad import optimizers
  >>> optimizer = optimizers.adam(0.1)
  >>> params = {"w": np.array([1.0, -2.0], np.float32)}
  >>> state = optimizer.init(params)
  >>> @tg.jit
  ... def step(params, state):
  ...     grads = tg.grad(lambda params: (params["w"] ** 2).sum())(params)
  ...     updates, state = optimizer.update(grads, state, params)
  ...     return optimizers.apply_updates(params, updates), state
  >>> for _ in range(200):
  ...     params, state = step(params, state)
  >>> bool(abs(params["w"]).max() < 0.01)
  True
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from . import ops
from .compile import jit
from .errors import describe, here
from .names import listed
from .ops import abs_, add, astype, div, expm1, log, maximum, minimum, mul, neg, reduce_sum, sqrt, square, sub
from .pickling import pickled_as_call
from .recording import state as recording_state
from .tape import aval_of
from .tracer import literal

Params = Any
State = Any
Rate = Any


class GradientTransformation(NamedTuple):
    """A pair of functions.

    Attributes:
      init: `init(params) -> state`.
      update: `update(grads, state, params=None) -> (updates, state)`.
    """

    init: Callable[[Params], State]
    update: Callable[..., tuple[Any, State]]


class EmptyState(NamedTuple):
    """The state of a transformation that needs none."""


class TraceState(NamedTuple):
    """trace: the momentum, like the parameters."""

    trace: Any


class ScaleByAdamState(NamedTuple):
    """count: int32, the steps taken; mu, nu: the first and second moments, like the parameters."""

    count: Any
    mu: Any
    nu: Any


class ScaleByScheduleState(NamedTuple):
    """count: int32, the steps taken."""

    count: Any


# -- what they are made of


def _compiled_when_eager(fun: Callable[..., Any]) -> Callable[..., Any]:
    """`fun`, which runs as one compiled call when nothing is recording, rather than op by op."""
    jitted: list[Any] = []

    @functools.wraps(fun)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if recording_state.tape is not None:
            return fun(*args, **kwargs)
        if not jitted:
            jitted.append(jit(fun))
        return jitted[0](*args, **kwargs)

    return wrapper


def _transformation(init: Callable[[Params], State], update: Callable[..., Any]) -> GradientTransformation:
    return GradientTransformation(_compiled_when_eager(init), _compiled_when_eager(update))


def _stateless(fun: Callable[[Any, Params], Any]) -> GradientTransformation:
    def update(grads: Any, state: State, params: Params = None) -> tuple[Any, State]:
        return fun(grads, params), state

    return GradientTransformation(lambda params: EmptyState(), _compiled_when_eager(update))


def _zeros_like(x: Any, dtype: Any = None) -> Any:
    aval = aval_of(x)
    return _full(0, aval.shape, aval.dtype if dtype is None else jax.dtypes.canonicalize_dtype(dtype))


def _full(value: int, shape: tuple[int, ...], dtype: Any) -> Any:
    return astype(ops.broadcast_to(literal(value), shape), dtype=np.dtype(dtype))


def _leaves(tree: Any, like: Any, what: str, remedy: str) -> list[Any]:
    """The leaves of `tree`, which must have the structure of `like`."""
    leaves, found = jax.tree.flatten(tree)
    expected: Any = jax.tree.structure(like)
    if found != expected:
        raise ValueError(f"{what} differ in structure {here()}: {found} and {expected}. {remedy}.")
    return list(leaves)


_INIT = (
    "Make the state with init(params) for the parameters that the gradients are of; call update(grads, state, params)"
)


def _need(params: Params, name: str) -> Params:
    if params is None:
        raise ValueError(f"{name} needs the parameters {here()}: call update(grads, state, params)")
    return params


class _Cast:
    """A number in the dtype of each leaf, cast once a dtype: 16-bit parameters stay so beside a 32-bit rate."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.cast: dict[Any, Any] = {}

    def like(self, leaf: Any) -> Any:
        if isinstance(self.value, (int, float)):
            return self.value
        dtype = aval_of(leaf).dtype
        real = np.dtype(np.finfo(dtype).dtype) if dtype.kind == "c" else dtype
        if real not in self.cast:
            self.cast[real] = astype(self.value, dtype=real)
        return self.cast[real]


def _abs_square(x: Any) -> Any:
    return square(abs_(x)) if aval_of(x).dtype.kind == "c" else square(x)


def _map(
    fun: Callable[..., Any], tree: Any, *rest: Any, what: str = "the state and the gradients", remedy: str = _INIT
) -> Any:
    leaves, structure = jax.tree.flatten(tree)
    others = [_leaves(other, tree, what, remedy) for other in rest]
    return jax.tree.unflatten(structure, [fun(*xs) for xs in zip(leaves, *others, strict=True)])


# -- applying and chaining


@_compiled_when_eager
def apply_updates(params: Params, updates: Any) -> Params:
    """`params + updates`, leaf by leaf, in the dtypes of the parameters.

    Args:
      params: a pytree of arrays.
      updates: a pytree of the same structure.

    Example:
      >>> import numpy as np
      >>> from tracegrad import optimizers
      >>> optimizers.apply_updates({"w": np.array([1.0])}, {"w": np.array([0.5])})["w"].tolist()
      [1.5]
    """

    def apply(p: Any, u: Any) -> Any:
        out = add(p, u)
        dtype = aval_of(p).dtype
        aval = aval_of(out)
        return out if aval.dtype == dtype and not aval.weak_type else astype(out, dtype=dtype)

    remedy = "Pass the first of the two results of update"
    return _map(apply, params, updates, what="the updates and the parameters", remedy=remedy)


@pickled_as_call
def chain(*transformations: GradientTransformation) -> GradientTransformation:
    """One transformation of several, each applied to what the one before returns; the state is a tuple of theirs.

    Example:
      >>> from tracegrad import optimizers
      >>> optimizer = optimizers.chain(optimizers.clip_by_global_norm(1.0), optimizers.adam(1e-3))
    """

    for i, t in enumerate(transformations):
        if not hasattr(t, "init") or not hasattr(t, "update"):
            raise TypeError(
                f"chain: transformation {i} is {describe(t)}, not an optimizer {here()}. Write chain(first, second)."
            )

    def init(params: Params) -> State:
        return tuple(t.init(params) for t in transformations)

    def update(grads: Any, state: State, params: Params = None) -> tuple[Any, State]:
        if not isinstance(state, tuple) or len(state) != len(transformations):
            parts = f"has {len(state)} parts" if isinstance(state, tuple) else f"is {type(state).__name__}, not a tuple"
            raise ValueError(
                f"chain: the state {parts}, there are {len(transformations)} transformations {here()}. Make it with "
                "the init of this chain, and call update(grads, state, params)."
            )
        new = []
        for transformation, part in zip(transformations, state, strict=True):
            grads, part = transformation.update(grads, part, params)
            new.append(part)
        return grads, tuple(new)

    return _transformation(init, update)


# -- building blocks


@pickled_as_call
def identity() -> GradientTransformation:
    """Returns the gradients as they are."""
    return _stateless(lambda grads, params: grads)


@pickled_as_call
def scale(step_size: Any) -> GradientTransformation:
    """Multiplies the gradients by a number."""

    def apply(grads: Any, params: Params) -> Any:
        factor = _Cast(step_size)
        return _map(lambda g: mul(g, factor.like(g)), grads)

    return _stateless(apply)


@pickled_as_call
def scale_by_schedule(step_size_fn: Callable[[Any], Any]) -> GradientTransformation:
    """Multiplies the gradients by a function of the number of steps taken before."""

    def init(params: Params) -> State:
        return ScaleByScheduleState(_full(0, (), np.int32))

    def update(grads: Any, state: State, params: Params = None) -> tuple[Any, State]:
        factor = _Cast(step_size_fn(state.count))
        return _map(lambda g: mul(g, factor.like(g)), grads), ScaleByScheduleState(add(state.count, 1))

    return _transformation(init, update)


@pickled_as_call
def scale_by_learning_rate(learning_rate: Rate, *, flip_sign: bool = True) -> GradientTransformation:
    """Multiplies the gradients by minus the learning rate.

    Args:
      learning_rate: a number, a scalar array, or a schedule: a function from the step count to one of these.
      flip_sign: whether to multiply by minus the rate (descent) or the rate.
    """
    if callable(learning_rate):
        schedule = learning_rate
        return scale_by_schedule((lambda count: neg(schedule(count))) if flip_sign else schedule)
    return scale(_negative(learning_rate) if flip_sign else learning_rate)


def _negative(rate: Any) -> Any:
    if isinstance(rate, (int, float)):
        return -rate
    try:
        aval_of(rate)
    except TypeError:
        raise TypeError(
            f"learning_rate is {describe(rate)} {here()}: give a number, a scalar array or a function of the step count"
        ) from None
    return neg(rate)


@pickled_as_call
def trace(decay: Any, nesterov: bool = False, accumulator_dtype: Any = None) -> GradientTransformation:
    """Momentum: t = g + decay t; returns t, or g + decay t once more with `nesterov`.

    Polyak (1964); Nesterov (1983), in the form of Sutskever et al. (2013).
    """

    def init(params: Params) -> State:
        return TraceState(_map(lambda p: _zeros_like(p, accumulator_dtype), params))

    def update(grads: Any, state: State, params: Params = None) -> tuple[Any, State]:
        rate = _Cast(decay)
        new = _map(lambda g, t: add(g, mul(t, rate.like(t))), grads, state.trace)
        updates = _map(lambda g, t: add(g, mul(t, rate.like(t))), grads, new) if nesterov else new
        if accumulator_dtype is not None:
            new = _map(lambda t: astype(t, dtype=jax.dtypes.canonicalize_dtype(accumulator_dtype)), new)
        return updates, TraceState(new)

    return _transformation(init, update)


@pickled_as_call
def scale_by_adam(
    b1: Any = 0.9, b2: Any = 0.999, eps: Any = 1e-8, eps_root: Any = 0.0, mu_dtype: Any = None
) -> GradientTransformation:
    """m / (sqrt(v) + eps), for m and v the unbiased running means of the gradient and of its square.

    With mu = b1 mu + (1 - b1) g and nu = b2 nu + (1 - b2) g^2, at step t = 1, 2, ...:
    m = mu / (1 - b1^t) and v = nu / (1 - b2^t) + eps_root. Kingma and Ba, "Adam" (2014).
    """

    def init(params: Params) -> State:
        def second(p: Any) -> Any:
            dtype = aval_of(p).dtype
            return _zeros_like(p, np.finfo(dtype).dtype if dtype.kind == "c" else None)

        return ScaleByAdamState(
            _full(0, (), np.int32), _map(lambda p: _zeros_like(p, mu_dtype), params), _map(second, params)
        )

    def update(grads: Any, state: State, params: Params = None) -> tuple[Any, State]:
        count = add(state.count, 1)
        mean, mean_square = _running_mean(b1), _running_mean(b2)
        mu = _map(mean, grads, state.mu)
        nu = _map(lambda g, n: mean_square(_abs_square(g), n), grads, state.nu)
        steps = astype(count, dtype=jax.dtypes.canonicalize_dtype(float))
        c1, c2 = _Cast(_debias(b1, steps)), _Cast(_debias(b2, steps))
        small, small_root = _Cast(eps), _Cast(eps_root)

        def step(m: Any, n: Any) -> Any:
            v = div(n, c2.like(n))
            root = sqrt(v if _is_zero(eps_root) else add(v, small_root.like(n)))
            return div(div(m, c1.like(m)), add(root, small.like(n)))

        updates = _map(step, mu, nu)
        if mu_dtype is not None:
            mu = _map(lambda m: astype(m, dtype=jax.dtypes.canonicalize_dtype(mu_dtype)), mu)
        return updates, ScaleByAdamState(count, mu, nu)

    return _transformation(init, update)


def _is_zero(x: Any) -> bool:
    return isinstance(x, (int, float)) and x == 0


def _running_mean(decay: Any) -> Callable[[Any, Any], Any]:
    old, new = _Cast(decay), _Cast(1 - decay if isinstance(decay, (int, float)) else sub(1, decay))
    return lambda x, mean: add(mul(x, new.like(x)), mul(mean, old.like(mean)))


def _debias(decay: Any, steps: Any) -> Any:
    """1 - decay**steps, which is small, without the cancellation."""
    if isinstance(decay, (int, float)):
        return neg(expm1(mul(steps, math.log(decay)))) if decay > 0 else 1.0
    return neg(expm1(mul(steps, log(decay))))


@pickled_as_call
def add_decayed_weights(weight_decay: Any = 0.0, mask: Any = None) -> GradientTransformation:
    """g + weight_decay * p: decoupled weight decay, when it comes after the scaling of the gradient.

    Args:
      weight_decay: a number.
      mask: which parameters to decay: a pytree of booleans like the parameters, or a function from them to one.

    Raises:
      ValueError: from `update`, if it is not given the parameters.
    """

    def apply(grads: Any, params: Params) -> Any:
        params = _need(params, "add_decayed_weights")
        rate = _Cast(weight_decay)
        chosen = mask(params) if callable(mask) else mask
        if chosen is None:
            chosen = _map(lambda g: True, grads)

        def decay(g: Any, p: Any, chosen: bool) -> Any:
            return add(g, mul(p, rate.like(p))) if chosen else g

        return _map(decay, grads, params, chosen, what="the parameters, or the mask, and the gradients")

    return _stateless(apply)


# -- clipping


def global_norm(tree: Any) -> Any:
    """The Euclidean norm of all the elements of a pytree, taken in float32 at least; 0 of an empty one.

    Example:
      >>> import numpy as np
      >>> from tracegrad import optimizers
      >>> float(optimizers.global_norm({"a": np.array([3.0]), "b": np.array([4.0])}))
      5.0
    """
    total: Any = None
    for leaf in jax.tree.leaves(tree):
        aval = aval_of(leaf)
        if aval.dtype.itemsize < 4:
            leaf = astype(leaf, dtype=np.dtype(np.float32))
        part = reduce_sum(_abs_square(leaf), axes=tuple(range(aval.ndim)))
        total = part if total is None else add(total, part)
    return _full(0, (), jax.dtypes.canonicalize_dtype(float)) if total is None else ops.root(total)


def _clipped(norm: Any, max_norm: Any) -> _Cast:
    # max_norm / max(norm, max_norm): 1 below it, and no division by 0.
    return _Cast(div(max_norm, maximum(norm, max_norm)))


@pickled_as_call
def clip_by_global_norm(max_norm: Any) -> GradientTransformation:
    """g min(1, max_norm / ||g||), with the norm of all the gradients together. Pascanu, Mikolov and Bengio (2012).

    Example:
      >>> import numpy as np
      >>> from tracegrad import optimizers
      >>> clip = optimizers.clip_by_global_norm(1.0)
      >>> clip.update(np.array([3.0, 4.0], np.float32), clip.init(None))[0].round(3).tolist()
      [0.6000000238418579, 0.800000011920929]
    """

    def apply(grads: Any, params: Params) -> Any:
        factor = _clipped(global_norm(grads), max_norm)
        return _map(lambda g: mul(g, factor.like(g)), grads)

    return _stateless(apply)


@pickled_as_call
def clip_by_norm(max_norm: Any) -> GradientTransformation:
    """g min(1, max_norm / ||g||), with the norm of each array on its own."""
    return _stateless(lambda grads, params: _map(lambda g: mul(g, _clipped(global_norm(g), max_norm).like(g)), grads))


@pickled_as_call
def clip_by_value(max_delta: Any) -> GradientTransformation:
    """Each element clipped to [-max_delta, max_delta]; optax's `clip`."""

    def apply(grads: Any, params: Params) -> Any:
        high = _Cast(max_delta)
        low = _Cast(_negative(max_delta))
        return _map(lambda g: minimum(maximum(g, low.like(g)), high.like(g)), grads)

    return _stateless(apply)


clip = clip_by_value


# -- optimizers


def sgd(
    learning_rate: Rate, momentum: Any = None, nesterov: bool = False, accumulator_dtype: Any = None
) -> GradientTransformation:
    """Gradient descent, p - a g, with momentum if given: t = g + momentum t; p - a t.

    Robbins and Monro (1951); for momentum see `trace`.

    Args:
      learning_rate: a number, a scalar array, or a schedule: a function from the step count to one of these.
      momentum: the decay of the momentum; `None` for none.
      nesterov: whether to look ahead by one more step of momentum.
      accumulator_dtype: the dtype of the momentum; by default the parameters'.

    Example:
      >>> import numpy as np
      >>> from tracegrad import optimizers
      >>> optimizer = optimizers.sgd(0.5)
      >>> updates, state = optimizer.update(np.array([1.0]), optimizer.init(np.array([3.0])))
      >>> updates.tolist()
      [-0.5]
    """
    rate = scale_by_learning_rate(learning_rate)
    return chain(identity() if momentum is None else trace(momentum, nesterov, accumulator_dtype), rate)


def adam(
    learning_rate: Rate, b1: Any = 0.9, b2: Any = 0.999, eps: Any = 1e-8, eps_root: Any = 0.0, mu_dtype: Any = None
) -> GradientTransformation:
    """Adam: p - a m / (sqrt(v) + eps), for m and v as in `scale_by_adam`. Kingma and Ba (2014).

    Args:
      learning_rate: a number, a scalar array, or a schedule: a function from the step count to one of these.
      b1, b2: the decay of the running means of the gradient and of its square.
      eps: added to the root, against division by 0.
      eps_root: added under the root, for gradients through the optimizer.
      mu_dtype: the dtype of the first moment; by default the parameters'.
    """
    return chain(scale_by_adam(b1, b2, eps, eps_root, mu_dtype), scale_by_learning_rate(learning_rate))


def adamw(
    learning_rate: Rate,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    eps_root: Any = 0.0,
    mu_dtype: Any = None,
    weight_decay: Any = 1e-4,
    mask: Any = None,
) -> GradientTransformation:
    """Adam with decoupled weight decay: p - a (m / (sqrt(v) + eps) + weight_decay p).

    Loshchilov and Hutter, "Decoupled weight decay regularization" (2017).

    Args:
      learning_rate, b1, b2, eps, eps_root, mu_dtype: as in `adam`.
      weight_decay: a number.
      mask: which parameters to decay, as in `add_decayed_weights`.
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )


__all__ = [
    "EmptyState", "GradientTransformation", "ScaleByAdamState", "ScaleByScheduleState", "TraceState",
    "add_decayed_weights", "adam", "adamw", "apply_updates", "chain", "clip", "clip_by_global_norm", "clip_by_norm",
    "clip_by_value", "global_norm", "identity", "scale", "scale_by_adam", "scale_by_learning_rate",
    "scale_by_schedule", "sgd", "trace",
]  # fmt: skip

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
