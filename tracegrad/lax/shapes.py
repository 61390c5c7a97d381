"""Arrays of a shape, shapes, slices, gathers and scatters."""

from __future__ import annotations

import builtins
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

from jax.lax import GatherDimensionNumbers, ScatterDimensionNumbers

from .. import numpy as tnp
from .. import ops
from ..errors import called, here
from ..numpy.arguments import axis_of, dtype_of, order_of, type_of
from ..numpy.creation import placed
from ..ops.arraylike import unsharded
from ..ops.gather import Windows, fill_of, mode_of
from ..tracer import literal


def iota(dtype: Any, size: int) -> Any:
    """The numbers from 0 up to but without `size`."""
    return broadcasted_iota(dtype, (size,), 0)


def broadcasted_iota(dtype: Any, shape: Sequence[int], dimension: int, *, out_sharding: Any = None) -> Any:
    """An array of this shape that counts from 0 along one axis.

    Example:
      >>> import numpy as np, tracegrad as tg
      >>> tg.lax.broadcasted_iota(np.int32, (2, 2), 0).tolist()
      [[0, 0], [1, 1]]
    """
    unsharded(out_sharding)
    shape = tuple(map(int, shape))
    return ops.iota(dtype=dtype_of(dtype), shape=shape, axis=axis_of(dimension, len(shape)))


def full(shape: Sequence[int], fill_value: Any, dtype: Any = None, *, sharding: Any = None) -> Any:
    """An array of this shape with every element `fill_value`, a scalar; with `sharding`, laid out over devices so.

    Raises:
      ValueError: if `sharding` is given while a function is recorded.
    """
    return placed(tnp.full(shape, fill_value, dtype), sharding, "sharding")


def full_like(x: Any, fill_value: Any, dtype: Any = None, shape: Any = None, sharding: Any = None) -> Any:
    """An array of the shape and dtype of `x`, unless others are given, with every element `fill_value`.

    Raises:
      ValueError: if `sharding`, over devices, is given while a function is recorded.
    """
    return placed(tnp.full_like(x, fill_value, dtype, shape), sharding, "sharding")


def empty(shape: Sequence[int], dtype: Any, *, out_sharding: Any = None) -> Any:
    """An array of this shape, of zeros."""
    unsharded(out_sharding)
    return tnp.zeros(shape, dtype)


def zeros_like_array(x: Any) -> Any:
    """Zeros of the shape and dtype of `x`."""
    return tnp.zeros_like(x)


# -- shapes


def broadcast(operand: Any, sizes: Sequence[int], *, out_sharding: Any = None) -> Any:
    """`operand`, repeated along new leading axes of these sizes."""
    unsharded(out_sharding)
    return tnp.broadcast_to(operand, (*map(int, sizes), *type_of(operand).shape))


def broadcast_in_dim(
    operand: Any, shape: Sequence[int], broadcast_dimensions: Sequence[int], *, out_sharding: Any = None
) -> Any:
    """`operand` in a larger shape, its axes standing where `broadcast_dimensions` says.

    Raises:
      ValueError: if an axis has neither size 1 nor the size it is broadcast to.
    """
    unsharded(out_sharding)
    shape = tuple(map(int, shape))
    dims = order_of(broadcast_dimensions, len(shape))
    return ops.broadcast_in_dim(operand, shape=shape, dims=dims)


def broadcast_to_rank(x: Any, rank: int) -> Any:
    """`x` with as many leading axes of size 1 as make `rank` of them."""
    return broadcast(x, (1,) * (rank - type_of(x).ndim))


def broadcast_like(arr: Any, like_arr: Any) -> Any:
    """`arr` in the shape of `like_arr`."""
    return tnp.broadcast_to(arr, type_of(like_arr).shape)


def reshape(
    operand: Any, new_sizes: Sequence[int], dimensions: Sequence[int] | None = None, *, out_sharding: Any = None
) -> Any:
    """`operand` in another shape, its axes first put in the order `dimensions`."""
    unsharded(out_sharding)
    return tnp.reshape(operand if dimensions is None else transpose(operand, dimensions), new_sizes)


def transpose(operand: Any, permutation: Sequence[int]) -> Any:
    """`operand` with its axes in this order."""
    return tnp.transpose(operand, tuple(map(int, permutation)))


def squeeze(array: Any, dimensions: Sequence[int]) -> Any:
    """`array` without these axes, of size 1."""
    return tnp.squeeze(array, tuple(dimensions))


def expand_dims(array: Any, dimensions: Sequence[int]) -> Any:
    """`array` with new axes of size 1, at these places of the result."""
    return tnp.expand_dims(array, tuple(dimensions))


def collapse(operand: Any, start_dimension: int, stop_dimension: int | None = None) -> Any:
    """`operand` with the axes from one up to another (all that follow, by default) made one."""
    shape = type_of(operand).shape
    lo, hi, _ = builtins.slice(start_dimension, stop_dimension).indices(len(shape))
    if hi < lo:
        raise ValueError(f"{called()}: axes {start_dimension} to {stop_dimension} of shape {shape} {here()}")
    return ops.reshape(operand, shape=(*shape[:lo], math.prod(shape[lo:hi]), *shape[hi:]))


def rev(operand: Any, dimensions: Sequence[int]) -> Any:
    """`operand`, reversed along these axes."""
    return tnp.flip(operand, tuple(dimensions))


def concatenate(operands: Any, dimension: int) -> Any:
    """Arrays joined along an axis."""
    return tnp.concatenate(operands, dimension)


def stack(operands: Any, axis: int = 0) -> Any:
    """Arrays joined along a new axis."""
    return tnp.stack(operands, axis)


def unstack(x: Any, axis: int = 0) -> tuple[Any, ...]:
    """The slices of `x` along an axis."""
    return tnp.unstack(x, axis=axis)


def tile(operand: Any, reps: Sequence[int]) -> Any:
    """`operand`, repeated this often along each axis."""
    return tnp.tile(operand, tuple(reps))


def split(operand: Any, sizes: Sequence[int], axis: int = 0) -> list[Any]:
    """Parts of these sizes along an axis.

    Raises:
      ValueError: if the sizes do not add up to that of the axis.
    """
    aval = type_of(operand)
    return list(ops.split_op(operand, sizes=tuple(map(int, sizes)), axis=axis_of(axis, aval.ndim)))


def pad(operand: Any, padding_value: Any, padding_config: Sequence[tuple[int, int, int]]) -> Any:
    """`operand` with `padding_value` around and between its elements.

    Args:
      operand: an array.
      padding_value: a scalar, which may be differentiated.
      padding_config: `(low, high, interior)` for each axis; a negative low or high takes elements away.

    Raises:
      ValueError: if it is not given for each axis, or takes away more than there is.

    Example:
      >>> import numpy as np, tracegrad as tg
      >>> tg.lax.pad(np.array([1.0, 2.0]), 0.0, [(1, -1, 1)]).tolist()
      [0.0, 1.0, 0.0]
    """
    config = tuple((int(lo), int(hi), int(inner)) for lo, hi, inner in padding_config)
    aval = type_of(operand)
    if len(config) != aval.ndim or any(inner < 0 for *_, inner in config):
        raise ValueError(
            f"{called()}: padding_config={config} for {aval} {here()}. Give (low, high, interior) for each axis, "
            "with interior at least 0."
        )
    return ops.pad(operand, padding_value, config=config)


# -- slices


def slice(
    operand: Any, start_indices: Sequence[int], limit_indices: Sequence[int], strides: Sequence[int] | None = None
) -> Any:
    """The elements from `start_indices` up to `limit_indices`, in steps of `strides`, all static.

    Raises:
      ValueError: if they leave the array, or are not given for each axis.
    """
    aval = type_of(operand)
    start, limit = tuple(map(int, start_indices)), tuple(map(int, limit_indices))
    steps = (1,) * aval.ndim if strides is None else tuple(map(int, strides))
    if not len(start) == len(limit) == len(steps) == aval.ndim:
        raise ValueError(
            f"{called()}: from {start} to {limit} in steps of {steps}, of {aval} {here()}. Give a number for each axis."
        )
    return ops.slice_(operand, start=start, limit=limit, strides=steps)


def slice_in_dim(operand: Any, start_index: int | None, limit_index: int | None, stride: int = 1, axis: int = 0) -> Any:
    """The elements from one index up to another along an axis; negative ones count from the end."""
    shape = type_of(operand).shape
    axis = axis_of(axis, len(shape))
    start, limit, strides = [0] * len(shape), list(shape), [1] * len(shape)
    for bounds, index in ((start, start_index), (limit, limit_index)):
        if index is not None:
            bounds[axis] = index + shape[axis] if index < 0 else index
    strides[axis] = stride
    return slice(operand, start, limit, strides)


def index_in_dim(operand: Any, index: int, axis: int = 0, keepdims: bool = True) -> Any:
    """What is at an index along an axis.

    Raises:
      IndexError: if there is no such index.
    """
    shape = type_of(operand).shape
    axis, index = axis_of(axis, len(shape)), operator.index(index)
    if not -shape[axis] <= index < shape[axis]:
        raise IndexError(f"{called()}: index {index} along axis {axis} of shape {shape} {here()}")
    index %= shape[axis]
    out = slice_in_dim(operand, index, index + 1, axis=axis)
    return out if keepdims else squeeze(out, (axis,))


def _starts(operand: Any, starts: Any, allow_negative: bool | Sequence[bool]) -> list[Any]:
    """A start for each axis; where negative ones are not allowed, they are clamped to 0."""
    if not isinstance(starts, (list, tuple)):
        aval = type_of(starts)
        if aval.ndim != 1:
            raise ValueError(f"{called()}: the starts are {aval} {here()}. Give a vector, or a scalar for each axis.")
        starts = [starts[i] for i in range(aval.shape[0])]
    allowed = [allow_negative] * len(starts) if isinstance(allow_negative, bool) else allow_negative
    return [i if a else ops.maximum(i, literal(0)) for i, a in zip(starts, allowed, strict=True)]


def dynamic_slice(
    operand: Any, start_indices: Any, slice_sizes: Sequence[int], *, allow_negative_indices: Any = True
) -> Any:
    """The window of shape `slice_sizes` that begins at `start_indices`, which may be traced.

    Negative starts count from the end; a window that would stick out is moved inside.

    Raises:
      ValueError: if the numbers of axes differ, or the window is larger than the array.

    Example:
      >>> import numpy as np, tracegrad as tg
      >>> tg.lax.dynamic_slice(np.arange(5.0), (4,), (2,)).tolist()
      [3.0, 4.0]
    """
    return ops.dynamic_slice(operand, _starts(operand, start_indices, allow_negative_indices), slice_sizes)


def dynamic_update_slice(operand: Any, update: Any, start_indices: Any, *, allow_negative_indices: Any = True) -> Any:
    """A copy of `operand` with `update` in the place of the window that begins at `start_indices`.

    Raises:
      ValueError: if the numbers of axes differ, or the window is larger than the array.
      TypeError: if the dtypes differ.
    """
    starts = _starts(operand, start_indices, allow_negative_indices)
    return ops.dynamic_update_slice(operand, update, starts)


def _along(operand: Any, start: Any, axis: int) -> tuple[list[Any], list[int], int]:
    """A start for each axis, 0 but along one, and the shape of the array."""
    shape = type_of(operand).shape
    axis = axis_of(axis, len(shape))
    starts: list[Any] = [literal(0)] * len(shape)
    starts[axis] = start
    return starts, list(shape), axis


def dynamic_slice_in_dim(
    operand: Any, start_index: Any, slice_size: int, axis: int = 0, *, allow_negative_indices: bool = True
) -> Any:
    """`slice_size` elements along an axis, from `start_index` on, which may be traced."""
    starts, sizes, axis = _along(operand, start_index, axis)
    sizes[axis] = slice_size
    return dynamic_slice(operand, starts, sizes, allow_negative_indices=allow_negative_indices)


def dynamic_index_in_dim(
    operand: Any, index: Any, axis: int = 0, keepdims: bool = True, *, allow_negative_indices: bool = True
) -> Any:
    """What is at an index, which may be traced, along an axis."""
    axis = axis_of(axis, type_of(operand).ndim)
    out = dynamic_slice_in_dim(operand, index, 1, axis, allow_negative_indices=allow_negative_indices)
    return out if keepdims else squeeze(out, (axis,))


def dynamic_update_slice_in_dim(
    operand: Any, update: Any, start_index: Any, axis: int, *, allow_negative_indices: bool = True
) -> Any:
    """A copy of `operand` with `update` in place of as many elements along an axis, from `start_index` on."""
    starts, _, _ = _along(operand, start_index, axis)
    return dynamic_update_slice(operand, update, starts, allow_negative_indices=allow_negative_indices)


def dynamic_update_index_in_dim(
    operand: Any, update: Any, index: Any, axis: int, *, allow_negative_indices: bool = True
) -> Any:
    """A copy of `operand` with `update`, which may lack that axis, at an index along an axis."""
    ndim = type_of(operand).ndim
    axis = axis_of(axis, ndim)
    if type_of(update).ndim == ndim - 1:
        update = expand_dims(update, (axis,))
    return dynamic_update_slice_in_dim(operand, update, index, axis, allow_negative_indices=allow_negative_indices)


# -- gather and scatter


def _ints(values: Any) -> tuple[Any, ...]:
    return tuple(tuple(map(int, v)) for v in values)


def gather(
    operand: Any,
    start_indices: Any,
    dimension_numbers: GatherDimensionNumbers,
    slice_sizes: Sequence[int],
    *,
    unique_indices: bool = False,
    indices_are_sorted: bool = False,
    mode: Any = None,
    fill_value: Any = None,
) -> Any:
    """Windows of `operand` at coordinates, as XLA's Gather has it; mostly `x[index]` says the same.

    Args:
      operand: an array.
      start_indices: integers; along the last axis, where a window begins.
      dimension_numbers: which axes are which.
      slice_sizes: the shape of a window.
      unique_indices, indices_are_sorted: promises that may make it faster.
      mode: for windows that stick out: "promise_in_bounds", the default, "clip" or "fill".
      fill_value: what "fill" reads; NaN, or an extreme integer, by default.

    Raises:
      ValueError, TypeError: if shapes, sizes and numbers do not fit together.
    """
    windows = Windows(
        GatherDimensionNumbers(*_ints(dimension_numbers)),
        tuple(map(int, slice_sizes)),
        mode_of(mode) or "promise_in_bounds",
        fill_of(fill_value),
        bool(unique_indices),
        bool(indices_are_sorted),
    )
    return ops.gather_windows(operand, start_indices, windows=windows)


def _scattered(kind: str, name: str) -> Callable[..., Any]:
    def function(
        operand: Any,
        scatter_indices: Any,
        updates: Any,
        dimension_numbers: ScatterDimensionNumbers,
        *,
        indices_are_sorted: bool = False,
        unique_indices: bool = False,
        mode: Any = None,
    ) -> Any:
        window, inserted, *rest = _ints(dimension_numbers)
        numbers = GatherDimensionNumbers(window, inserted, *rest)
        shape = list(type_of(updates).shape)
        single, left, aval = {*inserted, *numbers.operand_batching_dims}, iter(window), type_of(operand)
        if len(single) + len(window) != aval.ndim:
            raise ValueError(
                f"{called()}: {len(window)} update_window_dims, and {len(single)} inserted or batching ones, for "
                f"{aval} {here()}. Together they must be its axes."
            )
        sizes = tuple(1 if a in single else shape[next(left)] for a in range(aval.ndim))
        windows = Windows(numbers, sizes, mode_of(mode) or "fill", None, bool(unique_indices), bool(indices_are_sorted))
        if name == "scatter_sub":
            updates = ops.neg(updates)
        return ops.scatter_windows(operand, updates, scatter_indices, kind=kind, windows=windows)

    does = {
        "set": "replaced by",
        "add": "increased by",
        "multiply": "multiplied by",
        "min": "lowered to",
        "max": "raised to",
    }
    verb = "decreased by" if name == "scatter_sub" else does[kind]
    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"""A copy of `operand` with windows {verb} `updates`, as XLA's Scatter has it.

    Mostly `x.at[index]` says the same. `scatter_indices` holds, along its last axis, where a window begins; a window
    that sticks out is dropped, or moved inside with `mode="clip"`. Of several updates that replace one element, the
    one that stays has a derivative; ties for a smallest or largest share it equally.
    """
    return function


scatter = _scattered("set", "scatter")
scatter_add = _scattered("add", "scatter_add")
scatter_sub = _scattered("add", "scatter_sub")
scatter_mul = _scattered("multiply", "scatter_mul")
scatter_min = _scattered("min", "scatter_min")
scatter_max = _scattered("max", "scatter_max")


__all__ = [
    "broadcast", "broadcast_in_dim", "broadcast_like", "broadcast_to_rank", "broadcasted_iota", "collapse",
    "concatenate", "dynamic_index_in_dim", "dynamic_slice", "dynamic_slice_in_dim", "dynamic_update_index_in_dim",
    "dynamic_update_slice", "dynamic_update_slice_in_dim", "empty", "expand_dims", "full", "full_like", "gather",
    "index_in_dim", "iota", "pad", "reshape", "rev", "scatter", "scatter_add", "scatter_max", "scatter_min",
    "scatter_mul", "scatter_sub", "slice", "slice_in_dim", "split", "squeeze", "stack", "tile", "transpose", "unstack",
    "zeros_like_array",
]  # fmt: skip
