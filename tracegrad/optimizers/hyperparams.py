"""Optimizers whose numbers are in the state."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.tree_util import DictKey, register_pytree_with_keys

from .. import numpy as tnp
from ..errors import called, describe, here
from ..pickling import pickled_as_call
from ..tape import aval_of
from ..tracer import Tracer
from .base import (
    GradientTransformation,
    Params,
    State,
    increment,
    init_of,
    is_ours,
    real_dtype,
    transformation,
    typed_like,
    update_of,
    zero_count,
)

# -- with other numbers


class Hyperparams(dict[str, Any]):
    """Numbers by name. One that is set takes the dtype of the old one, so that nothing is compiled again."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name not in self:
            raise ValueError(f"there is no hyperparameter {name!r}, but {', '.join(self)} {here()}")
        old = aval_of(self[name])
        new = tnp.asarray(value, old.dtype)
        if new.shape != old.shape:
            raise ValueError(f"the hyperparameter {name} is {old}, and is set to {describe(value)} {here()}")
        super().__setitem__(name, new if isinstance(new, Tracer) else jax.numpy.asarray(new, old.dtype))

    def __reduce__(self) -> Any:
        return Hyperparams, (dict(self),)


register_pytree_with_keys(
    Hyperparams,
    lambda tree: ([(DictKey(k), tree[k]) for k in sorted(tree)], tuple(sorted(tree))),
    lambda names, leaves: Hyperparams(zip(names, leaves, strict=True)),
    lambda tree: ([tree[k] for k in sorted(tree)], tuple(sorted(tree))),
)


class InjectHyperparamsState(NamedTuple):
    """count: int32, the steps taken; hyperparams: the last step's numbers, by name; inner_state: the optimizer's."""

    count: Any
    hyperparams: Any
    inner_state: Any


def inject_hyperparams(
    inner_factory: Callable[..., GradientTransformation],
    static_args: str | Iterable[str] = (),
    hyperparam_dtype: Any = None,
) -> Callable[..., GradientTransformation]:
    """A function like `inner_factory` whose optimizers have their numbers in the state, to be seen and to be set.

    `state.hyperparams["learning_rate"]` is the rate of the last step; setting it compiles nothing again. Schedules are
    followed, and what is set in their place lasts until the next step.

    Args:
      inner_factory: what makes the optimizer, such as `adam`.
      static_args: names of arguments that stay Python's. Booleans, and those whose default is an int, do so anyway.
      hyperparam_dtype: the dtype of the numbers; by default the parameters', or float32 if that has more bits.

    Example:
      >>> import numpy as np
      >>> from tracegrad import optimizers
      >>> optimizer = optimizers.inject_hyperparams(optimizers.sgd)(learning_rate=0.5)
      >>> params = np.zeros(1, np.float32)
      >>> state = optimizer.init(params)
      >>> float(state.hyperparams["learning_rate"])
      0.5
      >>> state.hyperparams["learning_rate"] = 0.25
      >>> optimizer.update(np.ones(1, np.float32), state, params)[0].tolist()
      [-0.25]
    """
    static = (static_args,) if isinstance(static_args, str) else tuple(static_args)
    known = inspect.signature(inner_factory).parameters
    for name in static:
        if name not in known:
            raise ValueError(
                f"{called()}: static_args has {name!r}, which is no argument of {inner_factory.__name__} {here()}. It "
                f"has {', '.join(known)}."
            )

    @functools.wraps(inner_factory)
    def make(*args: Any, **kwargs: Any) -> GradientTransformation:
        return _injected(inner_factory, static, hyperparam_dtype, args, kwargs)

    return make


@pickled_as_call
def _injected(
    factory: Callable[..., GradientTransformation], static: tuple[str, ...], dtype: Any, args: Any, kwargs: Any
) -> GradientTransformation:
    signature = inspect.signature(factory)
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    schedules, numbers, others = {}, {}, {}
    for name, value in bound.arguments.items():
        default = signature.parameters[name].default
        if name in static or isinstance(value, bool) or (isinstance(default, int) and isinstance(value, int)):
            others[name] = value
        elif isinstance(value, (int, float, jax.Array, np.ndarray, np.generic)):
            numbers[name] = value
        elif callable(value):
            schedules[name] = value
        else:
            others[name] = value
    ours = is_ours(factory(*args, **kwargs))

    def made(hyperparams: Hyperparams) -> GradientTransformation:
        return factory(**others, **hyperparams)

    def init(params: Params) -> State:
        leaves = jax.tree.leaves(params)
        # In 16 bits 0.999 is 1.
        kind = dtype or (np.promote_types(real_dtype(*leaves), np.float32) if leaves else None)
        count = zero_count()
        values = numbers | {name: schedule(count) for name, schedule in schedules.items()}
        hyperparams = Hyperparams({k: tnp.asarray(v, kind if _is_float(v) else None) for k, v in values.items()})
        return InjectHyperparamsState(count, hyperparams, init_of(made(hyperparams))(params))

    def update(grads: Any, state: InjectHyperparamsState, params: Params, **extra: Any) -> tuple[Any, State]:
        now = {name: schedule(state.count) for name, schedule in schedules.items()}
        hyperparams = Hyperparams(typed_like(state.hyperparams | now, dict(state.hyperparams)))
        updates, inner = update_of(made(hyperparams))(grads, state.inner_state, params, **extra)
        return updates, InjectHyperparamsState(increment(state.count), hyperparams, inner)

    return transformation(init, update, ours)


def _is_float(x: Any) -> bool:
    return bool(aval_of(x).dtype.kind in "fV")


__all__ = ["Hyperparams", "InjectHyperparamsState", "inject_hyperparams"]
