"""Collectives: what the devices of a `pmap` tell each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax import lax

from ..errors import called, here
from ..ops import axis_index_op, div, pmax_op, pmin_op, psum_op
from ..recording import Recording, state
from ..tape import Var, aval_of
from ..tracer import Tracer, literal


def axis_size(axis_name: str) -> int:
    """The number of devices along a mapped axis, a Python integer.

    Raises:
      NameError: if no enclosing `pmap` has an axis of this name.
    """
    tape = state.tape
    if tape is not None and axis_name in tape.axes:
        return tape.axes[axis_name]
    try:
        return int(lax.axis_size(axis_name))
    except NameError:
        bound = list(tape.axes) if tape is not None else []
        raise NameError(
            f"no mapped axis is named {axis_name!r} {here()}; "
            + (f"the mapped axes here are {bound}." if bound else "collectives work inside a function given to pmap.")
            + f" Write pmap(f, axis_name={axis_name!r}), or vmap."
        ) from None


def _names(axis_name: str | Sequence[str], groups: Any = None) -> tuple[str, ...]:
    if groups is not None:
        raise NotImplementedError(
            f"{called()}: axis_index_groups={groups} {here()}. Collectives are over all of an axis: map over two axes, "
            "one of the groups and one of what is in them, and name one."
        )
    names = (axis_name,) if isinstance(axis_name, str) else tuple(axis_name)
    for name in names:
        axis_size(name)
    return names


def _tracked(tape: Recording | None, names: tuple[str, ...]) -> bool:
    return tape is not None and all(name in tape.axes for name in names)


def psum(x: Any, axis_name: str | Sequence[str], *, axis_index_groups: None = None) -> Any:
    """The sum of `x` over the devices along a mapped axis, on each of them.

    Args:
      x: a pytree of arrays or numbers.
      axis_name: the axis, or several.

    Its derivative is that of the sum: when all devices go on to the same scalar, the gradient of it
    counts it once.

    Raises:
      NameError: if no enclosing `pmap` has an axis of this name.
      ValueError: if `x` is a gradient that is already summed over the axis.
    """
    names = _names(axis_name, axis_index_groups)
    tape = state.tape

    def one(leaf: Any) -> Any:
        if isinstance(leaf, (int, float, complex)):
            size = int(np.prod([axis_size(name) for name in names]))
            return leaf * size
        if isinstance(leaf, Tracer) and tape is not None and _tracked(tape, names) and _summed(tape, leaf, names):
            raise ValueError(
                f"psum over {axis_name!r} of a gradient ({leaf.aval}) that is already summed over it {here()}: the "
                "argument is replicated (in_axes=None), so its gradient is that of all devices' losses together. Leave "
                "the psum or pmean out, and divide by axis_size for a mean; or use sum_gradients, which knows."
            )
        return psum_op(leaf, axis_name=names)

    return jax.tree.map(one, x)


def _summed(tape: Recording, v: Var, names: tuple[str, ...]) -> bool:
    if v.aval.varying & set(names):
        return False
    return any(node.grad and any(o is v for o in node.outputs) for node in tape.nodes)


def pmean(x: Any, axis_name: str | Sequence[str], *, axis_index_groups: None = None) -> Any:
    """The mean of `x`, a pytree of arrays, over the devices along a mapped axis, on each of them.

    Raises:
      NameError: if no enclosing `pmap` has an axis of this name.
      ValueError: if `x` is a gradient that is already summed over the axis.
    """
    names = _names(axis_name, axis_index_groups)
    size = int(np.prod([axis_size(name) for name in names]))
    return jax.tree.map(lambda total: div(total, literal(size)), psum(x, names))


def pmax(x: Any, axis_name: str | Sequence[str], *, axis_index_groups: None = None) -> Any:
    """The largest `x`, elementwise, over the devices along a mapped axis. It has no gradient."""
    names = _names(axis_name, axis_index_groups)
    return jax.tree.map(lambda leaf: pmax_op(leaf, axis_name=names), x)


def pmin(x: Any, axis_name: str | Sequence[str], *, axis_index_groups: None = None) -> Any:
    """The smallest `x`, elementwise, over the devices along a mapped axis. It has no gradient."""
    names = _names(axis_name, axis_index_groups)
    return jax.tree.map(lambda leaf: pmin_op(leaf, axis_name=names), x)


def axis_index(axis_name: str) -> Any:
    """The position of this device along a mapped axis, an int32 scalar."""
    return axis_index_op(axis_name=_names(axis_name))


def sum_gradients(grads: Any, axis_name: str, *, mean: bool) -> Any:
    """The gradient of all devices' losses together, from each device's own.

    This is where data-parallel code decides between sum and mean. With a local loss that is a *mean* over
    the device's share of the batch, `mean=True` gives the gradient of the mean over the whole batch; with
    a local loss that is a *sum*, `mean=False` gives the gradient of the sum.

    Args:
      grads: a pytree of gradients inside `pmap`. Those of a replicated argument (`in_axes=None`) are
        summed by differentiation already and are not summed again.
      axis_name: the mapped axis.
      mean: whether to divide by the number of devices.

    Raises:
      NameError: if no enclosing `pmap` has an axis of this name.
    """
    names = _names(axis_name)
    tape = state.tape

    def one(g: Any) -> Any:
        if tape is None or not _tracked(tape, names) or aval_of(g).varying & set(names):
            g = psum_op(g, axis_name=names)
        return div(g, literal(axis_size(axis_name))) if mean else g

    return jax.tree.map(one, grads)
