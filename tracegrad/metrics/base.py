"""What every metric is: settings, and pure functions from state to state."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import numpy as np

from .. import numpy as tnp
from .. import ops
from ..compile import jit
from ..errors import describe, here
from ..numpy.arguments import is_known
from ..ops.arraylike import from_list
from ..recording import state as recording_state
from ..tape import aval_of
from ..tools import eval_shape
from .sums import Sum, gathered, plus, summed

State = Any


def _with_state(update: Callable[..., State]) -> Callable[..., State]:
    """The `update` of a metric, which says how it is called where the state is forgotten."""
    signature = inspect.signature(update)

    @functools.wraps(update)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> State:
        try:
            signature.bind(self, *args, **kwargs)
        except TypeError as error:
            names = [n for n, p in signature.parameters.items() if p.default is p.empty and n != "self"]
            raise TypeError(
                f"{self.name}.update: {error} {here()}. A metric holds no numbers itself: write "
                f"state = metric.update({', '.join(names)}), from state = metric.reset() on."
            ) from None
        return update(self, *args, **kwargs)

    return wrapped


@dataclass(frozen=True)
class Metric:
    """Settings of something that is measured over many batches. What was seen is a state, passed in and returned.

    A state is a pytree of arrays. It is updated under `jit`, in the body of a `scan`, and on each device of a `pmap`,
    and two of them merge into what one would be that had seen all the examples. No gradient flows through a metric.
    """

    name: ClassVar[str]
    update: ClassVar[Callable[..., State]]

    def __init_subclass__(cls) -> None:
        cls.name = cls.__name__
        if "update" in vars(cls):
            cls.update = _with_state(cls.update)

    def reset(self) -> State:
        """The state that has seen nothing."""
        raise NotImplementedError(f"{self.name}.reset: a metric says what its empty state is")

    def result(self, state: State) -> Any:
        """The metric, of all that the state has seen.

        Raises:
          ValueError: if it has seen nothing. Where that is not known, as under `jit`, the result is NaN.
        """
        self._check_state("result", state)
        if all(map(is_known, jax.tree.leaves(state))) and not np.any(np.asarray(self._seen(state)) != 0):
            raise ValueError(
                f"{self.name}.result: the state has seen no example {here()}, so there is nothing to measure. Call "
                "state = metric.update(state, ...) before; weights must not all be 0."
            )
        return self._result(state) if recording_state.tape is not None else _compiled_result(self, state)

    def merge(self, a: State, b: State) -> State:
        """The state that has seen what two have seen, in this order."""
        for state in (a, b):
            self._check_state("merge", state)
        return self._merge(a, b) if recording_state.tape is not None else _compiled_merge(self, a, b)

    def all_reduce(self, state: State, axis_name: str) -> State:
        """The state that has seen what all devices along a mapped axis have seen; on each of them.

        What a state has seen before it came to the devices, each of them would count. So reduce that of one batch:
        `metric.merge(state, metric.all_reduce(metric.update(metric.reset(), ...), axis_name))`.

        Raises:
          NameError: if no enclosing `pmap` has an axis of this name.
          ValueError: if the state is the same on all devices.
        """
        self._check_state("all_reduce", state)
        return self._all_reduce(gathered(state, axis_name))

    def __call__(self, state: State, *args: Any, **kwargs: Any) -> tuple[State, Any]:
        """`update` with the other arguments, then `result`: the new state, and the metric of all that it has seen."""
        state = self.update(state, *args, **kwargs)
        return state, self.result(state)

    # -- what a metric defines

    _check: ClassVar[Callable[..., tuple[int, ...]]]
    """Raises for arguments of wrong shapes and dtypes; returns the shape that that of weights begins."""

    def _check_values(self, counted: Any, *arguments: Any) -> None:
        """Raises for known values that there cannot be, where they are counted; all are arrays of NumPy's."""

    _update: ClassVar[Callable[..., State]]
    """`_update(state, weights, *arguments)`; weights are `None` or have as many axes as what `_check` returns."""

    def _seen(self, state: State) -> Any:
        """What is not 0 when examples were seen."""
        raise NotImplementedError

    def _result(self, state: State) -> Any:
        raise NotImplementedError

    def _merge(self, a: State, b: State) -> State:
        return jax.tree.map(plus, a, b, is_leaf=_is_sum)

    def _all_reduce(self, parts: State) -> State:
        return jax.tree.map(summed, parts, is_leaf=_is_sum)

    # -- and what is done with it

    def _run(self, how: str, state: State, arguments: tuple[Any, ...], weights: Any) -> State:
        self._check_state(how, state)
        arguments = tuple(map(_array, arguments))
        try:
            shape = self._check(*arguments)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{self.name}.{how}: {error} {here()}") from None
        if weights is not None:
            weights = _array(weights)
            w = aval_of(weights).shape
            if w != shape[: len(w)]:
                raise ValueError(
                    f"{self.name}.{how}: weights of shape {w} for examples of shape {shape} {here()}. Give one "
                    f"weight an example: shape {shape[:1]}, or any that this one begins with."
                )
            weights = tnp.reshape(weights, (*w, *[1] * (len(shape) - len(w))))
        if all(map(is_known, (*arguments, weights))):
            counted = np.broadcast_to(np.ones(shape, bool) if weights is None else np.asarray(weights) != 0, shape)
            try:
                self._check_values(counted, *map(np.asarray, arguments))
            except ValueError as error:
                raise ValueError(f"{self.name}.{how}: {error} {here()}") from None
        if recording_state.tape is None:
            return _compiled_update(self, state, weights, *arguments)
        arguments = tuple(map(ops.stop_gradient, arguments))
        return self._update(state, None if weights is None else ops.stop_gradient(weights), *arguments)

    def _check_state(self, how: str, state: State) -> None:
        expected = _empty(self)
        leaves, tree = jax.tree.flatten(state)
        wanted = jax.tree.leaves(expected)
        try:
            wanted_tree: Any = jax.tree.structure(expected)
            same = tree == wanted_tree and [aval_of(x).shape for x in leaves] == [x.shape for x in wanted]
        except TypeError:
            same = False
        if not same:
            given = describe(state) if not isinstance(state, tuple) else type(state).__name__
            shapes = f" with arrays of shapes {[aval_of(x).shape for x in leaves]}" if _arrays(leaves) else ""
            raise ValueError(
                f"{self.name}.{how}: the state is {given}{shapes}, and not one of {self} {here()}. Begin with state = "
                f"metric.reset() of the same metric, and write state = metric.update(state, ...)."
            )


class Comparison(Metric):
    """A metric of predictions and targets."""

    def update(self, state: State, prediction: Any, target: Any, weights: Any = None) -> State:
        """The state that has seen this batch too.

        Args:
          state: of this metric, from `reset`, `update`, `merge` or `all_reduce`.
          prediction, target: arrays, as the metric says.
          weights: what each example counts, any numbers of a shape that the targets' begins with; what counts 0 is
            ignored whatever it is.

        Raises:
          ValueError, TypeError: if shapes or dtypes do not fit, or values are known and are none that there can be,
            such as labels out of range. Where they are not known, as under `jit`, the result is NaN.
        """
        return self._run("update", state, (prediction, target), weights)


def _arrays(leaves: list[Any]) -> bool:
    return bool(leaves) and all(hasattr(x, "shape") for x in leaves)


def _is_sum(x: Any) -> bool:
    return isinstance(x, Sum)


def _array(x: Any) -> Any:
    x = from_list(x)
    return np.asarray(x) if isinstance(x, (bool, int, float)) else x


@functools.lru_cache(256)
def _empty(metric: Metric) -> Any:
    """The shapes of a metric's state."""
    return eval_shape(metric.reset)


def _update(metric: Metric, state: State, weights: Any, *arguments: Any) -> State:
    arguments = tuple(map(ops.stop_gradient, arguments))
    return metric._update(state, None if weights is None else ops.stop_gradient(weights), *arguments)


_compiled_update = jit(_update, static_argnums=0)
_compiled_result = jit(lambda metric, state: metric._result(state), static_argnums=0)
_compiled_merge = jit(lambda metric, a, b: metric._merge(a, b), static_argnums=0)
