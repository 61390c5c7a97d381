"""Optimizers of a part of the parameters, and by group."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.tree_util import keystr, tree_map_with_path

from .. import numpy as tnp
from ..errors import called, here
from ..pickling import pickled_as_call
from .base import (
    GradientTransformation,
    Mask,
    Params,
    State,
    Update,
    is_ours,
    same_structure,
    spread,
    transformation,
    unwrapped,
)

# -- of a part of the parameters


class MaskedNode(NamedTuple):
    """What stands for an array that is left out: a node without leaves."""


class MaskedState(NamedTuple):
    """inner_state: that of the optimizer, for the arrays that it is of."""

    inner_state: Any


class PartitionState(NamedTuple):
    """inner_states: by label, the `MaskedState` of each optimizer."""

    inner_states: Any


@pickled_as_call
def by_path(function: Callable[[str], Any]) -> Callable[[Params], Any]:
    """A function from parameters to the tree of `function(path)`: masks and labels by name.

    Args:
      function: takes the path of an array, such as "layers/0/bias".

    Example:
      >>> import numpy as np
      >>> from tracegrad import optimizers
      >>> mask = optimizers.by_path(lambda path: not path.endswith("bias"))
      >>> mask({"dense": {"bias": np.zeros(2), "kernel": np.zeros((2, 2))}})
      {'dense': {'bias': False, 'kernel': True}}
    """
    return lambda params: tree_map_with_path(
        lambda path, leaf: function(keystr(path, simple=True, separator="/")), params
    )


def _only(chosen: Any, tree: Any) -> Any:
    return jax.tree.map(lambda take, leaf: leaf if take else MaskedNode(), chosen, tree)


def _masked_update(
    update: Update, chosen: Any, grads: Any, state: MaskedState, params: Params, extra: dict[str, Any], alike: bool
) -> tuple[Any, MaskedState]:
    extra = {k: _only(chosen, v) if alike and same_structure(v, grads) else v for k, v in extra.items()}
    params = None if params is None else _only(chosen, params)
    updates, new = update(_only(chosen, grads), state.inner_state, params, **extra)
    return jax.tree.map(lambda take, u, g: u if take else g, chosen, updates, grads), MaskedState(new)


@pickled_as_call
def masked(
    inner: GradientTransformation, mask: Mask, *, mask_compatible_extra_args: bool = False
) -> GradientTransformation:
    """`inner` for the arrays that the mask chooses; the gradients of the others stay as they are.

    Args:
      inner: an optimizer.
      mask: a pytree of booleans like the parameters or the start of one, or a function from the parameters to it.
      mask_compatible_extra_args: whether extra arguments like the gradients are masked too.

    Example:
      >>> import numpy as np
      >>> from tracegrad import optimizers
      >>> decay = optimizers.masked(optimizers.scale(0.0), {"w": False, "b": True})
      >>> grads = {"w": np.ones(1), "b": np.ones(1)}
      >>> {k: float(v[0]) for k, v in decay.update(grads, decay.init(grads))[0].items()}
      {'b': 0.0, 'w': 1.0}
    """
    start, update = unwrapped(inner, "masked(optimizer, mask)")

    def init(params: Params) -> State:
        return MaskedState(start(_only(spread("mask", mask, params), params)))

    def masked_update(grads: Any, state: MaskedState, params: Params, **extra: Any) -> tuple[Any, State]:
        chosen = spread("mask", mask, grads)
        return _masked_update(update, chosen, grads, state, params, extra, mask_compatible_extra_args)

    return transformation(init, masked_update, is_ours(inner))


@pickled_as_call
def lazy(inner: GradientTransformation) -> GradientTransformation:
    """`inner`, for tables of which a step uses a few rows: the others, and their moments, stay as they are.

    Without it the moments of Adam decay in each step, and the parameters of all rows move. With it a step under `@jit`
    whose gradient comes from `table[ids]` costs what the rows cost, and no array of the table's size is computed. `sgd`
    and `adagrad` leave those rows alone by themselves.

    A row is what an array has at an index of its first axis; one of no axis always takes part. Of `adam` it makes what
    TensorFlow Addons call `LazyAdam` and PyTorch `SparseAdam`: steps are counted for all rows together.

    Args:
      inner: an optimizer.

    Example:
      >>> import numpy as np
      >>> from tracegrad import optimizers
      >>> optimizer = optimizers.lazy(optimizers.adam(0.1))
      >>> table, grads = np.ones((3, 2), np.float32), np.array([[1, 1], [0, 0], [0, 0]], np.float32)
      >>> updates, state = optimizer.update(grads, optimizer.init(table), table)
      >>> updates, state = optimizer.update(grads[::-1], state, table)
      >>> print(updates[:2])
      [[0. 0.]
       [0. 0.]]
    """
    start, update = unwrapped(inner, "lazy(optimizer)")

    def lazy_update(grads: Any, state: State, params: Params, **extra: Any) -> tuple[Any, State]:
        touched = jax.tree.map(_touched, grads)
        updates, new = update(grads, state, params, **extra)

        def like_params(tree: Any) -> bool:
            # Where the parameters are one array, a number of the state is as much a tree like them.
            return same_structure(tree, grads) and all(
                np.shape(x) == np.shape(g) for x, g in zip(jax.tree.leaves(tree), jax.tree.leaves(grads), strict=True)
            )

        def kept(old: Any, new: Any) -> Any:
            if not like_params(old) or not same_structure(new, old):
                return new
            return jax.tree.map(tnp.where, touched, new, old)

        return (
            jax.tree.map(lambda t, u: tnp.where(t, u, 0), touched, updates),
            jax.tree.map(kept, state, new, is_leaf=like_params),
        )

    return transformation(start, lazy_update, is_ours(inner))


def _touched(grad: Any) -> Any:
    """Which rows have a gradient, with all axes; the whole, if there are none."""
    axes = tuple(range(1, np.ndim(grad)))
    return tnp.any(grad != 0, axes, keepdims=True) if np.ndim(grad) else True


@pickled_as_call
def multi_transform(
    transforms: Mapping[Hashable, GradientTransformation],
    param_labels: Any,
    *,
    mask_compatible_extra_args: bool = False,
) -> GradientTransformation:
    """An optimizer for each group of parameters; optax's `partition`.

    Args:
      transforms: the optimizers, by label.
      param_labels: a pytree of labels like the parameters or the start of one, or a function from the parameters to
        it, such as `by_path` makes.
      mask_compatible_extra_args: whether extra arguments like the gradients are split too.

    Raises:
      ValueError: from `init`, for a label that has no optimizer; the message names the path.

    Example:
      >>> import numpy as np
      >>> from tracegrad import optimizers
      >>> groups = optimizers.by_path(lambda path: "slow" if path.startswith("embedding") else "fast")
      >>> optimizer = optimizers.multi_transform({"slow": optimizers.sgd(0.1), "fast": optimizers.sgd(1.0)}, groups)
      >>> grads = {"embedding": np.ones(1), "output": np.ones(1)}
      >>> {k: round(float(v[0]), 2) for k, v in optimizer.update(grads, optimizer.init(grads))[0].items()}
      {'embedding': -0.1, 'output': -1.0}
    """
    wrapped = {
        label: unwrapped(part, "multi_transform({'label': optimizer}, labels)") for label, part in transforms.items()
    }

    def groups(tree: Any) -> dict[Hashable, Any]:
        labels = spread("param_labels", param_labels, tree)

        def known(path: Any, label: Any) -> None:
            if label not in wrapped:
                raise ValueError(
                    f"{called()}: the label of the parameter {keystr(path)} is {label!r}, and there are optimizers for "
                    f"{', '.join(map(repr, wrapped))} {here()}."
                )

        tree_map_with_path(known, labels)
        return {name: jax.tree.map(lambda label, name=name: label == name, labels) for name in wrapped}  # type: ignore[misc]

    def init(params: Params) -> State:
        chosen = groups(params)
        return PartitionState({k: MaskedState(start(_only(chosen[k], params))) for k, (start, _) in wrapped.items()})

    def update(grads: Any, state: PartitionState, params: Params, **extra: Any) -> tuple[Any, State]:
        new, chosen = {}, groups(grads)
        for label, (_, part) in wrapped.items():
            grads, new[label] = _masked_update(
                part, chosen[label], grads, state.inner_states[label], params, extra, mask_compatible_extra_args
            )
        return grads, PartitionState(new)

    return transformation(init, update, all(map(is_ours, transforms.values())))


partition = multi_transform


__all__ = ["MaskedNode", "MaskedState", "PartitionState", "by_path", "lazy", "masked", "multi_transform", "partition"]
