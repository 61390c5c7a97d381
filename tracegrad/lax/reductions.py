"""Reductions, of whole axes and of windows, by any operation; running ones; and sorting."""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax as _lax

from .. import numpy as tnp
from .. import ops
from ..borrow import borrow
from ..errors import called, here
from ..numpy.arguments import axes_of, axis_of, dtype_of, type_of
from ..ops.arraylike import unsharded
from ..ops.conv import dilated, explicit_padding, per_axis
from .elementwise import add, bitwise_and, bitwise_not, bitwise_or, bitwise_xor, max, min, mul, neg
from .shapes import broadcast, full, pad, slice, slice_in_dim, transpose


def _along_axes(op: Any, name: str, what: str) -> Callable[..., Any]:
    def function(operand: Any, axes: Sequence[int], *, out_sharding: Any = None) -> Any:
        unsharded(out_sharding)
        return op(operand, axes=axes_of(tuple(axes), type_of(operand).ndim))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"The {what} along these axes."
    return function


reduce_sum = _along_axes(ops.reduce_sum, "reduce_sum", "sum")
reduce_prod = _along_axes(ops.reduce_prod, "reduce_prod", "product")
reduce_max = _along_axes(ops.reduce_max, "reduce_max", "largest element")
reduce_min = _along_axes(ops.reduce_min, "reduce_min", "smallest element")


def _bits(theirs: Callable[..., Any], what: str) -> Callable[..., Any]:
    @functools.wraps(theirs)
    def function(operand: Any, axes: Sequence[int]) -> Any:
        return theirs(operand, axes_of(tuple(axes), np.ndim(operand)))

    return borrow(function, f"The elements along these axes, combined by a {what} of bits, or of booleans.", "axes")


reduce_and, reduce_or = _bits(_lax.reduce_and, "conjunction"), _bits(_lax.reduce_or, "disjunction")
reduce_xor = _bits(_lax.reduce_xor, "exclusive disjunction")


class _Monoid(NamedTuple):
    """An operation that `reduce` knows: itself, its neutral element for a dtype, and the reduction it makes."""

    combine: Any
    neutral: Callable[[Any], Any]
    reduce: Any


def _bound(dtype: Any, top: bool) -> Any:
    if jnp.issubdtype(dtype, jnp.inexact):
        return math.inf if top else -math.inf
    if dtype == np.bool_:
        return top
    return int(jnp.iinfo(dtype).max if top else jnp.iinfo(dtype).min)


_SUM = _Monoid(add, lambda dtype: 0, ops.reduce_sum)
_PRODUCT = _Monoid(mul, lambda dtype: 1, ops.reduce_prod)
_MAX = _Monoid(max, lambda dtype: _bound(dtype, False), ops.reduce_max)
_MIN = _Monoid(min, lambda dtype: _bound(dtype, True), ops.reduce_min)
_MONOIDS: dict[Any, _Monoid] = {
    **dict.fromkeys([add, _lax.add, jnp.add, np.add, operator.add], _SUM),
    **dict.fromkeys([mul, _lax.mul, jnp.multiply, np.multiply, operator.mul], _PRODUCT),
    **dict.fromkeys([max, _lax.max, jnp.maximum, np.maximum], _MAX),
    **dict.fromkeys([min, _lax.min, jnp.minimum, np.minimum], _MIN),
}
_OURS: dict[Any, Any] = {
    **dict.fromkeys([_lax.bitwise_and, jnp.bitwise_and], bitwise_and),
    **dict.fromkeys([_lax.bitwise_or, jnp.bitwise_or], bitwise_or),
    **dict.fromkeys([_lax.bitwise_xor, jnp.bitwise_xor], bitwise_xor),
    jnp.logical_and: tnp.logical_and,
    jnp.logical_or: tnp.logical_or,
}


def _flat(tree: Any) -> tuple[list[Any], Any]:
    return jax.tree.flatten(tree)


def _reduction(
    operands: Any, init_values: Any, computation: Any
) -> tuple[list[Any], list[Any], Any, _Monoid | None, Callable[..., list[Any]]]:
    """The arrays, their first values, the tree they are in, what is known of the computation, and it over lists."""
    xs, tree = _flat(operands)
    firsts, first_tree = _flat(init_values)
    if tree != first_tree or not xs:
        raise ValueError(f"{called()}: operands {tree} and init_values {first_tree} {here()} must be the same pytree")
    avals = [type_of(x) for x in xs]
    shapes = [a.shape for a in avals]
    if any(shape != shapes[0] for shape in shapes):
        raise ValueError(f"{called()}: operands of shapes {', '.join(map(str, shapes))} {here()}: give them one shape")
    firsts = [
        v if type_of(v).dtype == a.dtype else ops.astype(v, dtype=a.dtype) for v, a in zip(firsts, avals, strict=True)
    ]
    monoid = _MONOIDS.get(computation) if len(xs) == 1 else None
    fn = monoid.combine if monoid is not None else _OURS.get(computation, computation)

    def combine(left: list[Any], right: list[Any]) -> list[Any]:
        out, out_tree = _flat(fn(tree.unflatten(left), tree.unflatten(right)))
        found = [type_of(v).dtype for v in out]
        if out_tree != tree or found != [a.dtype for a in avals]:
            expected = ", ".join(str(a.dtype) for a in avals)
            raise TypeError(
                f"{called()}: the computation makes {out_tree} of {', '.join(map(str, found))} out of "
                f"{tree} of {expected} {here()}. It must return what it takes."
            )
        return out

    return xs, firsts, tree, monoid, combine


def _is_neutral(value: Any, monoid: _Monoid, dtype: Any) -> bool:
    """Whether a value is known to change nothing."""
    return isinstance(value, (int, float, np.generic, np.ndarray)) and bool(value == monoid.neutral(dtype))


def reduce(
    operands: Any, init_values: Any, computation: Any, dimensions: Sequence[int], out_sharding: Any = None
) -> Any:
    """Arrays reduced along axes by an operation, from a first value.

    Args:
      operands: an array, or a pytree of arrays of one shape.
      init_values: a scalar for each, with which the operation begins.
      computation: an associative operation `(a, b) -> c` of such pytrees. It is called with arrays, halves of the
        operands, so it must act element by element; `add`, `mul`, `max` and `min` (ours, JAX's or NumPy's) are
        recognised.
      dimensions: the axes to reduce.

    Raises:
      ValueError: if the pytrees or the shapes differ.
      TypeError: if the operation returns something of another type.

    Example:
      >>> import numpy as np, tracegrad as tg
      >>> norm = lambda x: tg.lax.reduce(x, np.float32(0), lambda a, b: np.sqrt(a * a + b * b), (0,))
      >>> norm(np.array([3.0, 4.0], np.float32)).item()
      5.0
    """
    unsharded(out_sharding)
    xs, firsts, tree, monoid, combine = _reduction(operands, init_values, computation)
    aval = type_of(xs[0])
    axes = axes_of(tuple(dimensions), aval.ndim)
    kept = tuple(a for a in range(aval.ndim) if a not in axes)
    rest = tuple(aval.shape[a] for a in kept)
    count = math.prod(aval.shape[a] for a in axes)
    if not count:
        return tree.unflatten([broadcast(v, rest) for v in firsts])
    if monoid is not None:
        total = monoid.reduce(xs[0], axes=axes)
        neutral = _is_neutral(_flat(init_values)[0][0], monoid, aval.dtype)
        return tree.unflatten([total if neutral else monoid.combine(firsts[0], total)])
    xs = [tnp.reshape(transpose(x, (*axes, *kept)), (count, *rest)) for x in xs]
    while count > 1:
        # Neighbours are combined, so that the order stays; an odd one out waits.
        half = count // 2
        xs, last = (
            combine([slice_in_dim(x, 0, 2 * half, 2) for x in xs], [slice_in_dim(x, 1, 2 * half, 2) for x in xs]),
            [slice_in_dim(x, 2 * half, count) for x in xs],
        )
        if count % 2:
            xs = [ops.concatenate(x, e, axis=0) for x, e in zip(xs, last, strict=True)]
        count -= half
    xs = [ops.reshape(x, shape=rest) for x in xs]
    return tree.unflatten(combine([broadcast(v, rest) for v in firsts], xs))


def reduce_window(
    operand: Any,
    init_value: Any,
    computation: Any,
    window_dimensions: Sequence[int],
    window_strides: Sequence[int] | None = None,
    padding: Any = "VALID",
    base_dilation: Sequence[int] | None = None,
    window_dilation: Sequence[int] | None = None,
) -> Any:
    """The windows of arrays, each reduced by an operation; padding is left out.

    Args:
      operand: an array, or a pytree of arrays of one shape.
      init_value: a scalar for each, with which the operation begins.
      computation: an operation as `reduce` takes it; any that is not recognised makes a program as long as the window
        has elements.
      window_dimensions: the size of the window along each axis.
      window_strides: the step from window to window along each axis, 1 by default.
      padding: "VALID", "SAME", "SAME_LOWER", or `(low, high)` for each axis.
      base_dilation: the spacing of the array's elements along each axis, 1 by default.
      window_dilation: the spacing of a window's elements along each axis, 1 by default.

    Raises:
      ValueError: if numbers of axes differ, or a window does not fit along an axis that is not empty.

    Example:
      >>> import numpy as np, tracegrad as tg
      >>> x = np.arange(6, dtype=np.float32)
      >>> tg.lax.reduce_window(x, -np.inf, tg.lax.max, (3,), (2,)).tolist()
      [2.0, 4.0]
    """
    xs, firsts, tree, monoid, combine = _reduction(operand, init_value, computation)
    aval = type_of(xs[0])
    window = per_axis(window_dimensions, aval.ndim, "window_dimensions")
    strides, base, spacing = (
        per_axis(1 if v is None else v, aval.ndim, what)
        for v, what in (
            (window_strides, "window_strides"), (base_dilation, "base_dilation"), (window_dilation, "window_dilation"),
        )
    )  # fmt: skip
    extent = [dilated(k, d) for k, d in zip(window, spacing, strict=True)]
    pads = explicit_padding(padding, aval.shape, extent, strides)
    config = [(lo, hi, d - 1) for (lo, hi), d in zip(pads, base, strict=True)]
    sizes = [dilated(n, d) + lo + hi if n else None for n, d, (lo, hi) in zip(aval.shape, base, pads, strict=True)]
    if any(n is not None and n < k for n, k in zip(sizes, extent, strict=True)):
        raise ValueError(
            f"{called()}: the window {window} does not fit into shape {aval.shape}, padded {pads}, {here()}"
        )
    if monoid not in (_SUM, _MAX, _MIN):
        return tree.unflatten(_windows_combined(xs, firsts, config, window, strides, spacing, combine))
    x = xs[0]
    if any(d > 1 for d in base) or any(p < 0 for pair in pads for p in pair):
        x, pads = pad(x, monoid.neutral(aval.dtype), config), ((0, 0),) * aval.ndim
    params: dict[str, Any] = {"window": window, "strides": strides, "padding": pads}
    if any(d > 1 for d in spacing):
        params["dilation"] = spacing
    if monoid is _MIN:
        # The smallest is the largest of what is ordered the other way.
        flip = neg if jnp.issubdtype(aval.dtype, jnp.inexact) else bitwise_not
        out = flip(ops.window_max(flip(x), **params))
    else:
        out = (ops.window_sum if monoid is _SUM else ops.window_max)(x, **params)
    neutral = _is_neutral(_flat(init_value)[0][0], monoid, aval.dtype)
    return tree.unflatten([out if neutral else monoid.combine(firsts[0], out)])


def _windows_combined(
    xs: list[Any], firsts: list[Any], config: Any, window: Any, strides: Any, spacing: Any, combine: Any
) -> list[Any]:
    """The first values, combined with one strided slice of the arrays for each position of the window in turn."""
    inside: Any = None
    if any(n for axis in config for n in axis):
        inside = pad(full(type_of(xs[0]).shape, True), False, config)
        xs = [pad(x, v, config) for x, v in zip(xs, firsts, strict=True)]
    shape = type_of(xs[0]).shape
    extent = [dilated(k, d) for k, d in zip(window, spacing, strict=True)]
    counts = [(n - k) // s + 1 if n >= k else 0 for n, k, s in zip(shape, extent, strides, strict=True)]
    total = [broadcast(v, counts) for v in firsts]
    if 0 in counts:
        return total
    for place in itertools.product(*map(range, window)):
        start = [i * d for i, d in zip(place, spacing, strict=True)]
        limit = [i + (m - 1) * s + 1 for i, m, s in zip(start, counts, strides, strict=True)]
        new = combine(total, [slice(x, start, limit, strides) for x in xs])
        if inside is not None:
            taken = slice(inside, start, limit, strides)
            new = [ops.where(taken, n, t) for n, t in zip(new, total, strict=True)]
        total = new
    return total


def _extreme(op: Any, name: str, what: str) -> Callable[..., Any]:
    def function(operand: Any, axis: int, index_dtype: Any) -> Any:
        return ops.astype(op(operand, axis=axis_of(axis, type_of(operand).ndim)), dtype=dtype_of(index_dtype))

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"The index of the first {what} element along an axis."
    return function


argmax, argmin = _extreme(ops.argmax, "argmax", "largest"), _extreme(ops.argmin, "argmin", "smallest")


def _cumulative(op: Any, name: str, what: str) -> Callable[..., Any]:
    def function(operand: Any, axis: int = 0, reverse: bool = False) -> Any:
        axis = axis_of(axis, type_of(operand).ndim)
        return op(operand, axis=axis, reverse=True) if reverse else op(operand, axis=axis)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"The running {what} along an axis, from the end with `reverse`."
    return function


cumsum = _cumulative(ops.cumsum, "cumsum", "sum")
cumprod = _cumulative(ops.cumprod, "cumprod", "product")
cummax = _cumulative(ops.cummax, "cummax", "maximum")
cummin = _cumulative(ops.cummin, "cummin", "minimum")
cumlogsumexp = _cumulative(ops.cumlogsumexp, "cumlogsumexp", "logarithm of the sum of exponentials")


# -- order


def sort(operand: Any, dimension: int = -1, is_stable: bool = True, num_keys: int = 1) -> Any:
    """Arrays sorted together along an axis: by the first, ties by the next, up to `num_keys` of them.

    Args:
      operand: an array, or a tuple or list of arrays of one shape.
      dimension: which axis.
      is_stable: whether equal elements keep their order, which the derivative sees.
      num_keys: how many of the arrays decide the order; the others follow.

    Returns:
      An array, or a tuple of arrays.

    Raises:
      ValueError: if the shapes differ, or there are fewer arrays than keys.

    Example:
      >>> import numpy as np, tracegrad as tg
      >>> keys, values = tg.lax.sort((np.array([2, 1]), np.array([0.5, 1.5])))
      >>> values.tolist()
      [1.5, 0.5]
    """
    several = isinstance(operand, (tuple, list))
    xs = list(operand) if several else [operand]
    if not xs:
        raise ValueError(f"{called()}: no array to sort {here()}")
    axis = axis_of(dimension, type_of(xs[0]).ndim)
    keys = {"keys": int(num_keys)} if num_keys != 1 else {}
    *out, _ = ops.sort_op(*xs, axis=axis, descending=False, stable=bool(is_stable), **keys)
    return tuple(out) if several else out[0]


def sort_key_val(keys: Any, values: Any, dimension: int = -1, is_stable: bool = True) -> tuple[Any, Any]:
    """`keys` in order along an axis, and `values` in the order that sorts them."""
    keys, values = sort((keys, values), dimension, is_stable)
    return keys, values


def top_k(operand: Any, k: int, *, axis: int = -1, is_stable: bool = True) -> tuple[Any, Any]:
    """The `k` largest elements along an axis, the largest first, and their indices.

    Equal elements keep their order, whether `is_stable` asks for it or not.
    """
    return ops.top_k(operand, k, axis=axis)


def _approximate(name: str, largest: bool) -> Callable[..., tuple[Any, Any]]:
    def function(
        operand: Any,
        k: int,
        reduction_dimension: int = -1,
        recall_target: float = 0.95,
        reduction_input_size_override: int = -1,
        aggregate_to_topk: bool = True,
    ) -> tuple[Any, Any]:
        axis = axis_of(reduction_dimension, type_of(operand).ndim)
        out = ops.approx_top_k_op(
            operand,
            k=int(k),
            axis=axis,
            largest=largest,
            recall_target=float(recall_target),
            reduction_input_size_override=int(reduction_input_size_override),
            aggregate_to_topk=bool(aggregate_to_topk),
        )
        return out[0], out[1]

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"""The `k` {"largest" if largest else "smallest"} elements along an axis, and their indices.

    On TPU some may be missing, about `1 - recall_target` of them, and it is fast; elsewhere it is exact (Chern et
    al., "TPU-KNN: K Nearest Neighbor Search at Peak FLOP/s", 2022).
    """
    return function


approx_max_k = _approximate("approx_max_k", True)
approx_min_k = _approximate("approx_min_k", False)


def optimization_barrier(operand: Any, /) -> Any:
    """`operand`, a pytree of arrays, kept apart: XLA fuses or moves nothing across, also in the backward pass."""
    leaves, tree = _flat(operand)
    return tree.unflatten(ops.optimization_barrier_op(*leaves)) if leaves else operand


__all__ = [
    "approx_max_k", "approx_min_k", "argmax", "argmin", "cumlogsumexp", "cummax", "cummin", "cumprod", "cumsum",
    "optimization_barrier", "reduce", "reduce_and", "reduce_max", "reduce_min", "reduce_or", "reduce_prod",
    "reduce_sum", "reduce_window", "reduce_xor", "sort", "sort_key_val", "top_k",
]  # fmt: skip
