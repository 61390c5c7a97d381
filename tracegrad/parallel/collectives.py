"""Collectives: what the devices of a `pmap` tell each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax

from ..errors import called, describe, here
from ..ops import (
    all_gather_alike_op,
    all_gather_op,
    all_to_all_op,
    axis_index_op,
    div,
    pmax_op,
    pmin_op,
    ppermute_op,
    psum_op,
    psum_scatter_op,
    reshape,
    transpose,
    vary,
)
from ..recording import Recording, state
from ..tape import Aval, Var, aval_of
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


def _one(axis_name: Any, groups: Any = None) -> tuple[str, ...]:
    if not isinstance(axis_name, str):
        raise TypeError(
            f"{called()}: axis_name is {describe(axis_name)} {here()}. It goes along one axis: give its name."
        )
    return _names(axis_name, groups)


def _size(names: tuple[str, ...]) -> int:
    return math.prod(axis_size(name) for name in names)


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
            size = _size(names)
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
    size = _size(names)
    return jax.tree.map(lambda total: div(total, literal(size)), psum(x, names))


def pmax(x: Any, axis_name: str | Sequence[str], *, axis_index_groups: None = None) -> Any:
    """The largest `x`, elementwise, over the devices along a mapped axis.

    Its gradient goes to those devices that have it, in equal parts.
    """
    names = _names(axis_name, axis_index_groups)
    return _moved(x, names, lambda leaf, aval, size: pmax_op(leaf, axis_name=names))


def pmin(x: Any, axis_name: str | Sequence[str], *, axis_index_groups: None = None) -> Any:
    """The smallest `x`, elementwise, over the devices along a mapped axis, with a gradient as that of `pmax`."""
    names = _names(axis_name, axis_index_groups)
    return _moved(x, names, lambda leaf, aval, size: pmin_op(leaf, axis_name=names))


def _moved(x: Any, names: tuple[str, ...], one: Callable[[Any, Aval, int], Any]) -> Any:
    """What each device makes of its arrays, which are made its own first: `one(leaf, its type, how many devices)`."""
    size = _size(names)
    tape = state.tape
    axes = frozenset(names) if _tracked(tape, names) else frozenset()

    def move(leaf: Any) -> Any:
        leaf = vary(literal(leaf) if isinstance(leaf, (bool, int, float, complex)) else leaf, axes)
        return one(leaf, aval_of(leaf), size)

    return jax.tree.map(move, x)


def _axis(name: str, axis: int, ndim: int) -> int:
    """An axis of an array with so many, counted from its front."""
    if not -ndim <= axis < ndim:
        raise ValueError(f"{called()}: {name}={axis}, and there are {ndim} axes {here()}. Use {-ndim} to {ndim - 1}.")
    return axis % ndim


def _divided(name: str, axis: int, aval: Aval, size: int, tiled: bool) -> None:
    """Raises unless this axis can be given in parts to so many devices."""
    there = aval.shape[axis]
    if tiled and there % size:
        raise ValueError(
            f"{called()}: {name}={axis} of {aval} has size {there}, which does not divide over {size} devices "
            f"{here()}. Pad it to a multiple."
        )
    if not tiled and there != size:
        raise ValueError(
            f"{called()}: {name}={axis} of {aval} has size {there}, and there are {size} devices {here()}. It has one "
            "element for each; with tiled=True, a share."
        )


def all_gather(
    x: Any,
    axis_name: str | Sequence[str],
    *,
    axis_index_groups: None = None,
    axis: int = 0,
    tiled: bool = False,
    to: str = "varying",
) -> Any:
    """The `x` of all devices along a mapped axis, on each of them. Its derivative is `psum_scatter`.

    Args:
      x: a pytree of arrays.
      axis_name: the mapped axis, or several.
      axis: where the devices are put in the result.
      tiled: whether they are concatenated along an axis that is there, instead of along a new one.
      to: what the result is: "varying", each device's own, with a cotangent on each; or "invarying", one value that
        all devices have, with one cotangent, of which each takes its part. `pmap` returns it with `out_axes=None`.

    Raises:
      ValueError: if there is no such axis, or `to` is neither.

    Example:
      >>> import jax, tracegrad as tg, tracegrad.numpy as np
      >>> n = jax.device_count()
      >>> tg.pmap(lambda x: tg.parallel.all_gather(x, "i"), axis_name="i")(np.arange(n)).shape == (n, n)
      True
    """
    names = _names(axis_name, axis_index_groups)
    if to not in ("varying", "invarying"):
        raise ValueError(f"{called()}: to={to!r} {here()}. It is 'varying' or 'invarying'.")
    gather = all_gather_op if to == "varying" else all_gather_alike_op

    def one(leaf: Any, aval: Aval, size: int) -> Any:
        at = _axis("axis", axis, aval.ndim if tiled else aval.ndim + 1)
        if not tiled:
            leaf = reshape(leaf, shape=(*aval.shape[:at], 1, *aval.shape[at:]))
        for name in reversed(names):
            leaf = gather(leaf, axis_name=(name,), size=axis_size(name), axis=at)
        return leaf

    return _moved(x, names, one)


def psum_scatter(
    x: Any,
    axis_name: str | Sequence[str],
    *,
    scatter_dimension: int = 0,
    axis_index_groups: None = None,
    tiled: bool = False,
) -> Any:
    """The sum of `x` over the devices along a mapped axis, of which each gets a part. Its derivative is `all_gather`.

    Args:
      x: a pytree of arrays.
      axis_name: the mapped axis, or several.
      scatter_dimension: which axis of the sum is given in parts: it has one element for each device.
      tiled: whether it has a share for each device, and stays.

    Raises:
      ValueError: if that axis does not divide.

    Example:
      >>> import jax, tracegrad as tg, tracegrad.numpy as np
      >>> n = jax.device_count()
      >>> scattered = tg.pmap(lambda x: tg.parallel.psum_scatter(x, "i"), axis_name="i")(np.ones((n, n)))
      >>> scattered.tolist() == [n] * n
      True
    """
    names = _names(axis_name, axis_index_groups)

    def one(leaf: Any, aval: Aval, size: int) -> Any:
        at = _axis("scatter_dimension", scatter_dimension, aval.ndim)
        _divided("scatter_dimension", at, aval, size, tiled)
        for name in names:
            leaf = psum_scatter_op(leaf, axis_name=(name,), size=axis_size(name), axis=at)
        return leaf if tiled else reshape(leaf, shape=(*aval.shape[:at], *aval.shape[at + 1 :]))

    return _moved(x, names, one)


def all_to_all(
    x: Any,
    axis_name: str,
    split_axis: int,
    concat_axis: int,
    *,
    axis_index_groups: None = None,
    tiled: bool = False,
) -> Any:
    """Each device gives each other a part of `x`, and puts together what it is given.

    Args:
      x: a pytree of arrays.
      axis_name: the mapped axis.
      split_axis: along which `x` is split. It has one element for each device, and is gone from the result.
      concat_axis: where the devices are in the result.
      tiled: whether `split_axis` has a share for each device and stays, and `concat_axis` grows.

    Raises:
      ValueError: if the axis does not divide.
    """
    names = _one(axis_name, axis_index_groups)

    def one(leaf: Any, aval: Aval, size: int) -> Any:
        split, concat = _axis("split_axis", split_axis, aval.ndim), _axis("concat_axis", concat_axis, aval.ndim)
        _divided("split_axis", split, aval, size, tiled)
        params = {"axis_name": names, "size": size}
        if tiled:
            return all_to_all_op(leaf, **params, split_axis=split, concat_axis=concat)
        # The axis that is split moves to where the devices are: of size 1 there, and grown by the exchange.
        rest = [a for a in range(aval.ndim) if a != split]
        shape = [aval.shape[a] for a in rest]
        shape.insert(concat, 1)
        parts = all_to_all_op(leaf, **params, split_axis=split, concat_axis=split)
        order = list(rest)
        order.insert(concat, split)
        return transpose(parts, axes=tuple(order))

    return _moved(x, names, one)


def ppermute(x: Any, axis_name: str, perm: Sequence[tuple[int, int]]) -> Any:
    """Sends the `x` of devices along a mapped axis to others; where none is sent to, there are zeros.

    Args:
      x: a pytree of arrays.
      axis_name: the mapped axis.
      perm: pairs `(source, destination)` of positions along the axis; none may be twice a source or a destination.

    Raises:
      ValueError: if a position is not there, or is there twice.

    Example:
      >>> import jax, tracegrad as tg, tracegrad.numpy as np
      >>> n = jax.device_count()
      >>> ring = [(i, (i + 1) % n) for i in range(n)]
      >>> sent = tg.pmap(lambda x: tg.parallel.ppermute(x, "i", ring), axis_name="i")(np.arange(n))
      >>> sent.tolist() == [(i - 1) % n for i in range(n)]
      True
    """
    names = _one(axis_name)
    pairs = tuple((int(source), int(to)) for source, to in perm)
    size = axis_size(axis_name)
    for which, ends in (("source", [pair[0] for pair in pairs]), ("destination", [pair[1] for pair in pairs])):
        wrong = [i for i in ends if not 0 <= i < size] + [i for i in ends if ends.count(i) > 1]
        if wrong:
            raise ValueError(
                f"{called()}: {wrong[0]} as a {which} in perm={list(pairs)} {here()}. There are {size} devices, from 0 "
                f"to {size - 1}, and each is a {which} once at most."
            )
    return _moved(x, names, lambda leaf, aval, size: ppermute_op(leaf, axis_name=names, perm=pairs))


def pshuffle(x: Any, axis_name: str, perm: Sequence[int]) -> Any:
    """The `x` of the device at position `perm[i]` along a mapped axis, on that at position i.

    Raises:
      ValueError: if `perm` is no order of all positions.
    """
    size = axis_size(axis_name)
    order = [int(i) for i in perm]
    if sorted(order) != list(range(size)):
        raise ValueError(
            f"{called()}: perm={order} is no order of the {size} devices {here()}. Give each position from 0 to "
            f"{size - 1} once."
        )
    return ppermute(x, axis_name, [(source, to) for to, source in enumerate(order)])


def pcast(x: Any, axis_name: str | Sequence[str], *, to: str) -> Any:
    """`x`, which all devices have alike, as each device's own: its gradient is then each device's own too.

    Args:
      x: a pytree of arrays or numbers. What differs from device to device already stays as it is.
      axis_name: the mapped axis, or several.
      to: "varying".

    Raises:
      ValueError: if `to` is something else: `psum`, `pmax` or `all_gather(..., to="invarying")` make one value of
        the devices' own.

    Example:
      >>> import jax, tracegrad as tg, tracegrad.numpy as np
      >>> def f(w, x):
      ...     own = tg.parallel.pcast(w, "i", to="varying")
      ...     return tg.grad(lambda w: w * x)(own), tg.grad(lambda w: w * x)(w)
      >>> n = jax.device_count()
      >>> own, summed = tg.pmap(f, "i", in_axes=(None, 0))(2.0, np.arange(n, dtype=float))
      >>> own.tolist() == list(range(n)), summed.tolist() == [sum(range(n))] * n
      (True, True)
    """
    names = _names(axis_name)
    if to != "varying":
        raise ValueError(
            f"{called()}: to={to!r} {here()}. It is 'varying'; the other way goes by psum, pmax or "
            "all_gather(..., to='invarying'), which make one value of the devices' own."
        )
    return _moved(x, names, lambda leaf, aval, size: leaf)


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
