"""The functions of `jax.lax`, under its names and with its argument order, recorded and differentiable.

For what NumPy has no name for: general convolutions, gathers, scatters and windows, sorting by several keys, running
extrema, bits. Operands of different dtypes promote and broadcast as in `jax.numpy`, where `jax.lax` would refuse them.

Example:
  >>> import numpy as np, tracegrad as tg
  >>> f = lambda x: tg.lax.cummax(x).sum()
  >>> tg.grad(f)(np.array([1.0, 3.0, 2.0], np.float32)).tolist()
  [1.0, 2.0, 0.0]
"""

from __future__ import annotations

import builtins
import itertools
import math
import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# Types, names of options, and functions of shapes: nothing of these is computed on arrays.
from jax import lax as _lax
from jax.lax import (
    AccuracyMode,
    ConvDimensionNumbers,
    ConvGeneralDilatedDimensionNumbers,
    DotAlgorithm,
    DotAlgorithmPreset,
    DotDimensionNumbers,
    FftType,
    GatherDimensionNumbers,
    GatherScatterMode,
    Precision,
    PrecisionLike,
    RoundingMethod,
    ScatterDimensionNumbers,
    broadcast_shapes,
    conv_dimension_numbers,
    conv_general_permutations,
    conv_general_shape_tuple,
    conv_shape_tuple,
    conv_transpose_shape_tuple,
    padtype_to_pads,
    reduce_window_shape_tuple,
)

from . import numpy as tnp
from . import ops
from .control import associative_scan, cond, fori_loop, map, scan, switch, while_loop
from .errors import called, describe, here
from .names import listed
from .numpy.arguments import axes_of, axis_of, dtype_of, inexact, order_of, type_of
from .numpy.creation import placed
from .op import Op
from .ops import (
    add,
    betainc,
    bitwise_and,
    bitwise_not,
    bitwise_or,
    bitwise_xor,
    ceil,
    clz,
    cosh,
    digamma,
    erf,
    erf_inv,
    erfc,
    floor,
    imag,
    lgamma,
    neg,
    nextafter,
    polygamma,
    population_count,
    real,
    reciprocal,
    shift_right_arithmetic,
    shift_right_logical,
    sign,
    sinh,
    square,
    sub,
    zeta,
)
from .ops.conv import dilated, explicit_padding, per_axis
from .ops.gather import Windows, fill_of, mode_of
from .parallel.collectives import axis_index, axis_size, pmax, pmean, pmin, psum
from .tape import aval_of
from .tracer import literal
from .transforms import stop_gradient

# -- elementwise: most are the ops themselves

abs = ops.abs_
acos, acosh, asin, asinh, atan, atan2, atanh = (
    ops.arccos, ops.arccosh, ops.arcsin, ops.arcsinh, ops.arctan, ops.arctan2, ops.arctanh,
)  # fmt: skip
bessel_i0e, bessel_i1e = ops.i0e, ops.i1e
igamma, igammac, igamma_grad_a = ops.gammainc, ops.gammaincc, ops.gammainc_grad_a
complex = ops.complex_
eq, ne, lt, le, gt, ge = ops.equal, ops.not_equal, ops.less, ops.less_equal, ops.greater, ops.greater_equal
is_finite = ops.isfinite
max, min = ops.maximum, ops.minimum
rem = ops.fmod
shift_left = ops.left_shift


def _unsharded(out_sharding: Any) -> None:
    """Raises for an option of `jax.lax` that means nothing on a tape, unless it is `None`."""
    if out_sharding is not None:
        raise NotImplementedError(
            f"{called()}: out_sharding={describe(out_sharding)} {here()}. Leave it out: programs are sharded by "
            "tracegrad.jit(f, in_shardings=..., out_shardings=...)."
        )


def _log2(x: Any, accuracy: Any) -> Any:
    """For versions of JAX whose `jax.lax` has none."""
    return _lax.log(x, accuracy=accuracy) / np.asarray(math.log(2.0), x.dtype)


def _accurate(name: str) -> Callable[..., Any]:
    op, theirs = getattr(ops, name), getattr(_lax, name, _log2)
    chosen: Op = Op(
        name,
        lambda x, *, accuracy: theirs(x, accuracy=accuracy),
        (lambda ct, out, x, *, accuracy: op.vjp[0](ct, out, x),),
        poles=op.poles,
    )

    def function(x: Any, *, accuracy: Any = None) -> Any:
        return op(x) if accuracy is None else chosen(inexact(x, type_of(x)), accuracy=accuracy)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"""The op `{name}`; with `accuracy`, in the implementation that XLA has for it, as in `jax.lax`.

    Most backends have one implementation. The derivative is that of the op.
    """
    return function


cbrt, cos, exp, exp2, expm1, log, log1p, log2, logistic, rsqrt, sin, sqrt, tan, tanh = builtins.map(
    _accurate,
    ["cbrt", "cos", "exp", "exp2", "expm1", "log", "log1p", "log2", "logistic", "rsqrt", "sin", "sqrt", "tan", "tanh"],
)


def mul(x: Any, y: Any, *, out_dtype: Any = None) -> Any:
    """`x * y`; with `out_dtype`, of operands converted to that dtype."""
    if out_dtype is not None:
        x, y = convert_element_type(x, out_dtype), convert_element_type(y, out_dtype)
    return ops.mul(x, y)


def conj(x: Any) -> Any:
    """The complex conjugate. Of a real number too, it is complex, unlike that of `tracegrad.numpy`.

    Example:
      >>> import numpy as np, tracegrad as tg
      >>> tg.lax.conj(np.float32(2.0)).item(), tg.numpy.conj(np.float32(2.0)).item()
      ((2+0j), 2.0)
    """
    aval = type_of(x)
    return ops.conj(x) if aval.dtype.kind == "c" else ops.complex_(inexact(x, aval), literal(0.0))


def pow(x: Any, y: Any) -> Any:
    """`x ** y`; see `tracegrad.numpy.power`."""
    return tnp.power(x, y)


def div(x: Any, y: Any) -> Any:
    """`x / y`; for integers, rounded towards 0."""
    whole = builtins.all(type_of(v).dtype.kind in "iub" for v in (x, y))
    return ops.trunc_divide(x, y) if whole else ops.div(x, y)


def one_minus_square(x: Any) -> Any:
    """`1 - x * x`, exact where `x` is near 1 in magnitude; its derivative is `-2 x`."""
    one = literal(1)
    return mul(sub(one, x), add(x, one))


def integer_pow(x: Any, y: int) -> Any:
    """`x ** y` for a Python integer `y`, as a product of factors."""
    return tnp.power(x, operator.index(y))


def round(x: Any, rounding_method: Any = RoundingMethod.AWAY_FROM_ZERO) -> Any:
    """The nearest whole number; a half goes away from zero, or to the even neighbour, as the method says."""
    nearest_even = RoundingMethod(rounding_method) is RoundingMethod.TO_NEAREST_EVEN
    return ops.rint(x) if nearest_even else ops.round_away(x)


def reduce_precision(operand: Any, exponent_bits: int, mantissa_bits: int) -> Any:
    """`operand` rounded to what a float of these many bits holds; its cotangent too."""
    return ops.reduce_precision(operand, exponent_bits=int(exponent_bits), mantissa_bits=int(mantissa_bits))


def clamp(min: Any, x: Any, max: Any) -> Any:
    """`x`, or `min` or `max` where it is beyond them. The derivative is shared equally at a bound."""
    return ops.minimum(ops.maximum(x, min), max)


def select(pred: Any, on_true: Any, on_false: Any) -> Any:
    """`on_true` where `pred` holds, else `on_false`."""
    return ops.where(pred, on_true, on_false)


def select_n(which: Any, *cases: Any) -> Any:
    """The case that `which` says: a boolean chooses between two, an integer among any number, from 0.

    Raises:
      ValueError: if there is no case, or a boolean has not one or two.
      TypeError: if `which` is neither.
    """
    kind = type_of(which).dtype
    if not cases or (kind == np.bool_ and len(cases) > 2):
        raise ValueError(f"{called()}: {len(cases)} cases for a choice of type {kind} {here()}")
    if kind.kind not in "bi":
        raise TypeError(f"{called()}: which is {describe(which)} {here()}: it must be a boolean or an int32")
    if kind == np.bool_ and len(cases) == 2:
        return ops.where(which, cases[1], cases[0])
    out = cases[-1]
    for i in reversed(range(len(cases) - 1)):
        out = ops.where(ops.less(which, literal(i + 1)), cases[i], out)
    return out


# -- dtypes and creation


def convert_element_type(operand: Any, new_dtype: Any) -> Any:
    """`operand` in another dtype; of a complex number, the real part, if that is real."""
    return ops.astype(operand, dtype=dtype_of(new_dtype))


def bitcast_convert_type(operand: Any, new_dtype: Any) -> Any:
    """The bits of `operand` as another dtype; a last axis appears, or goes, for the difference in width."""
    return ops.bitcast(operand, dtype=dtype_of(new_dtype))


def dtype(x: Any) -> Any:
    """The dtype of an array or a number."""
    return aval_of(x).dtype


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
    _unsharded(out_sharding)
    shape = tuple(builtins.map(int, shape))
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
    _unsharded(out_sharding)
    return tnp.zeros(shape, dtype)


def zeros_like_array(x: Any) -> Any:
    """Zeros of the shape and dtype of `x`."""
    return tnp.zeros_like(x)


# -- shapes


def broadcast(operand: Any, sizes: Sequence[int], *, out_sharding: Any = None) -> Any:
    """`operand`, repeated along new leading axes of these sizes."""
    _unsharded(out_sharding)
    return tnp.broadcast_to(operand, (*builtins.map(int, sizes), *type_of(operand).shape))


def broadcast_in_dim(
    operand: Any, shape: Sequence[int], broadcast_dimensions: Sequence[int], *, out_sharding: Any = None
) -> Any:
    """`operand` in a larger shape, its axes standing where `broadcast_dimensions` says.

    Raises:
      ValueError: if an axis has neither size 1 nor the size it is broadcast to.
    """
    _unsharded(out_sharding)
    shape = tuple(builtins.map(int, shape))
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
    _unsharded(out_sharding)
    return tnp.reshape(operand if dimensions is None else transpose(operand, dimensions), new_sizes)


def transpose(operand: Any, permutation: Sequence[int]) -> Any:
    """`operand` with its axes in this order."""
    return tnp.transpose(operand, tuple(builtins.map(int, permutation)))


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
    return list(ops.split_op(operand, sizes=tuple(builtins.map(int, sizes)), axis=axis_of(axis, aval.ndim)))


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
    if len(config) != aval.ndim or builtins.any(inner < 0 for *_, inner in config):
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
    start, limit = tuple(builtins.map(int, start_indices)), tuple(builtins.map(int, limit_indices))
    steps = (1,) * aval.ndim if strides is None else tuple(builtins.map(int, strides))
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
    return tuple(tuple(builtins.map(int, v)) for v in values)


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
        tuple(builtins.map(int, slice_sizes)),
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
            updates = neg(updates)
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


# -- products and convolutions


def _index_tuple(value: Any) -> tuple[int, ...]:
    return tuple(builtins.map(int, value)) if isinstance(value, (Sequence, np.ndarray)) else (operator.index(value),)


def dot(
    lhs: Any,
    rhs: Any,
    *,
    dimension_numbers: Any = None,
    precision: Any = None,
    preferred_element_type: Any = None,
    out_sharding: Any = None,
) -> Any:
    """The product of vectors and matrices, or with `dimension_numbers` any contraction.

    Args:
      lhs, rhs: arrays; without `dimension_numbers` of one or two axes.
      dimension_numbers: `((lhs_contracting, rhs_contracting), (lhs_batch, rhs_batch))`, each a sequence of axes.
      precision: as in `jax.lax.dot`.
      preferred_element_type: the dtype to accumulate in and to return.

    Returns:
      The batch axes first, then what is left of `lhs`, then of `rhs`.

    Raises:
      ValueError: if the sizes of contracted or batch axes differ.
    """
    _unsharded(out_sharding)
    x, y = type_of(lhs), type_of(rhs)
    if dimension_numbers is None:
        if not (x.ndim in (1, 2) and y.ndim in (1, 2) and x.shape[-1] == y.shape[0]):
            raise ValueError(
                f"{called()}: {x} and {y} {here()} are no matrices or vectors with a common size in the middle. "
                "Give dimension_numbers, or use tracegrad.numpy.matmul."
            )
        dimension_numbers = (((x.ndim - 1,), (0,)), ((), ()))
    (xc, yc), (xb, yb) = dimension_numbers
    dims = ((_index_tuple(xc), _index_tuple(yc)), (_index_tuple(xb), _index_tuple(yb)))
    for what, left, right in (("contracted", *dims[0]), ("batch", *dims[1])):
        if len(left) != len(right):
            raise ValueError(f"{called()}: {what} axes {left} of {x} and {right} of {y} {here()}: give as many of each")
    dims = tuple(  # type: ignore[assignment]
        tuple(order_of(axes, a.ndim) for axes, a in zip(pair, (x, y), strict=True)) for pair in dims
    )
    wide = None if preferred_element_type is None else dtype_of(preferred_element_type)
    return ops.dot_general(lhs, rhs, dims=dims, precision=_precision(precision), dtype=wide)


def _precision(precision: Any) -> Any:
    return tuple(precision) if isinstance(precision, list) else precision


def dot_general(
    lhs: Any,
    rhs: Any,
    dimension_numbers: Any,
    precision: Any = None,
    preferred_element_type: Any = None,
    *,
    out_sharding: Any = None,
) -> Any:
    """The contraction that `dimension_numbers` says; see `dot`.

    Example:
      >>> import numpy as np, tracegrad as tg
      >>> x = np.ones((5, 2, 3), np.float32)
      >>> tg.lax.dot_general(x, x, (((2,), (2,)), ((0,), (0,)))).shape
      (5, 2, 2)
    """
    _unsharded(out_sharding)
    return dot(
        lhs,
        rhs,
        dimension_numbers=dimension_numbers,
        precision=precision,
        preferred_element_type=preferred_element_type,
    )


def batch_matmul(lhs: Any, rhs: Any, precision: Any = None) -> Any:
    """Products of matrices, one for each position along all axes but the last two, which must be the same in both."""
    x, y = type_of(lhs), type_of(rhs)
    if x.ndim < 2 or x.ndim != y.ndim:
        raise ValueError(f"{called()}: {x} and {y} {here()} must have the same number of axes, two at least")
    batch = tuple(range(x.ndim - 2))
    return dot_general(lhs, rhs, (((x.ndim - 1,), (x.ndim - 2,)), (batch, batch)), precision)


def conv_general_dilated(
    lhs: Any,
    rhs: Any,
    window_strides: Sequence[int],
    padding: Any,
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: Any = None,
    preferred_element_type: Any = None,
    out_sharding: Any = None,
) -> Any:
    _unsharded(out_sharding)
    return ops.conv_general_dilated(
        lhs,
        rhs,
        window_strides,
        padding,
        lhs_dilation,
        rhs_dilation,
        dimension_numbers,
        feature_group_count,
        batch_group_count,
        precision,
        preferred_element_type,
    )


conv_general_dilated.__doc__ = ops.conv_general_dilated.__doc__


def conv(
    lhs: Any,
    rhs: Any,
    window_strides: Sequence[int],
    padding: str,
    precision: Any = None,
    preferred_element_type: Any = None,
) -> Any:
    """Convolution of `(N, C, ...)` with a kernel `(O, C, ...)`."""
    return conv_general_dilated(
        lhs, rhs, window_strides, padding, precision=precision, preferred_element_type=preferred_element_type
    )


def conv_with_general_padding(
    lhs: Any,
    rhs: Any,
    window_strides: Sequence[int],
    padding: Any,
    lhs_dilation: Sequence[int] | None,
    rhs_dilation: Sequence[int] | None,
    precision: Any = None,
    preferred_element_type: Any = None,
) -> Any:
    """Convolution of `(N, C, ...)` with a kernel `(O, C, ...)`, both of which may be dilated."""
    return conv_general_dilated(
        lhs, rhs, window_strides, padding, lhs_dilation, rhs_dilation, None, 1, 1, precision, preferred_element_type
    )


def _transposed_padding(k: int, stride: int, padding: Any) -> tuple[int, int]:
    """The padding of a transposed convolution, from that of the convolution with this kernel and stride.

    Where it leaves the size open, the result is as large as the input times the stride ("SAME"), or the largest
    that the convolution would take ("VALID").
    """
    if padding == "SAME":
        total = k + stride - 2
        low = k - 1 if stride > k - 1 else -(-total // 2)
        return low, total - low
    if padding == "VALID":
        return k - 1, builtins.max(k, stride) - 1
    return k - 1 - padding[0], k - 1 - padding[1]


_LAYOUTS = {
    2: ("NC", "IO", "NC"),
    3: ("NHC", "HIO", "NHC"),
    4: ("NHWC", "HWIO", "NHWC"),
    5: ("NHWDC", "HWDIO", "NHWDC"),
}


def conv_transpose(
    lhs: Any,
    rhs: Any,
    strides: Sequence[int],
    padding: Any,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    transpose_kernel: bool = False,
    precision: Any = None,
    preferred_element_type: Any = None,
    use_consistent_padding: bool = False,
) -> Any:
    """Transposed convolution: it makes spatial axes larger by their stride.

    Args:
      lhs: the input, features last unless `dimension_numbers` says otherwise.
      rhs: the kernel, `(..., I, O)`, likewise.
      strides: by how much each spatial axis grows.
      padding: "SAME" or "VALID", or `(low, high)` for each spatial axis, of this convolution, or with
        `use_consistent_padding` of the one that it transposes.
      rhs_dilation: the spacing of the kernel's elements along each spatial axis.
      dimension_numbers, precision, preferred_element_type: as for `conv_general_dilated`.
      transpose_kernel: whether to flip the kernel and swap its features: the transpose of the convolution with it.

    Raises:
      ValueError: if shapes, strides and padding do not fit together.

    Example:
      >>> import numpy as np, tracegrad as tg
      >>> x, kernel = np.ones((1, 4, 3), np.float32), np.ones((3, 3, 2), np.float32)
      >>> tg.lax.conv_transpose(x, kernel, (2,), "SAME").shape
      (1, 8, 2)
    """
    x, kernel = type_of(lhs), type_of(rhs)
    if dimension_numbers is None:
        if x.ndim not in _LAYOUTS:
            raise ValueError(f"{called()}: there is no default layout for {x} {here()}. Give dimension_numbers.")
        dimension_numbers = _LAYOUTS[x.ndim]
    numbers = conv_dimension_numbers(x.shape, kernel.shape, dimension_numbers)
    space = numbers.rhs_spec[2:]
    strides = per_axis(strides, len(space), "strides")
    dilation = per_axis(1 if rhs_dilation is None else rhs_dilation, len(space), "rhs_dilation")
    if isinstance(padding, str) and padding not in ("SAME", "VALID"):
        raise ValueError(f"{called()}: padding={padding!r} {here()}. Use 'SAME', 'VALID', or (low, high) pairs.")
    if isinstance(padding, str) or use_consistent_padding:
        forward = [padding] * len(space) if isinstance(padding, str) else list(padding)
        sizes = [dilated(kernel.shape[a], d) for a, d in zip(space, dilation, strict=True)]
        padding = [_transposed_padding(k, s, p) for k, s, p in zip(sizes, strides, forward, strict=True)]
    if transpose_kernel:
        rhs = tnp.swapaxes(rev(rhs, space), numbers.rhs_spec[0], numbers.rhs_spec[1])
    return conv_general_dilated(
        lhs, rhs, (1,) * len(space), padding, strides, dilation, numbers,
        precision=precision, preferred_element_type=preferred_element_type,
    )  # fmt: skip


def conv_general_dilated_patches(
    lhs: Any,
    filter_shape: Sequence[int],
    window_strides: Sequence[int],
    padding: Any,
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    precision: Any = None,
    preferred_element_type: Any = None,
) -> Any:
    """The windows that a convolution would see: its features are the elements of a window, for each input feature."""
    x = type_of(lhs)
    window = tuple(builtins.map(int, filter_shape))
    numbers = conv_dimension_numbers(x.shape, (1, 1, *window), dimension_numbers)
    features, size = x.shape[numbers.lhs_spec[1]], math.prod(window)
    # A kernel for each element of the window that picks it.
    picks = tnp.reshape(tnp.tile(tnp.eye(size, dtype=x.dtype), (features, 1)), (features * size, 1, *window))
    kernel = tnp.moveaxis(picks, (0, 1, *range(2, x.ndim)), numbers.rhs_spec)
    return conv_general_dilated(
        lhs, kernel, window_strides, padding, lhs_dilation, rhs_dilation, numbers, features,
        precision=precision, preferred_element_type=preferred_element_type,
    )  # fmt: skip


def conv_general_dilated_local(
    lhs: Any,
    rhs: Any,
    window_strides: Sequence[int],
    padding: Any,
    filter_shape: Sequence[int],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    precision: Any = None,
) -> Any:
    """A convolution with a kernel of its own at each place of the result.

    `rhs` has the spatial axes of the result, and as input features the elements of a window for each feature of `lhs`.
    """
    x = type_of(lhs)
    _, kernel, out = conv_dimension_numbers(x.shape, (1, 1, *builtins.map(int, filter_shape)), dimension_numbers)
    patches = conv_general_dilated_patches(
        lhs, filter_shape, window_strides, padding, lhs_dilation, rhs_dilation, dimension_numbers, precision
    )
    space = sorted(range(2, x.ndim), key=lambda i: out[i])
    batch = [out[i] for i in space], [kernel[i] for i in space]
    product = dot_general(patches, rhs, (((out[1],), (kernel[1],)), batch), precision)
    return tnp.moveaxis(product, (-2, -1), (out[0], out[1]))


# -- reductions


def _whole(op: Any, name: str) -> Callable[..., Any]:
    def function(operand: Any, axes: Sequence[int], *, out_sharding: Any = None) -> Any:
        _unsharded(out_sharding)
        return op(operand, axes=axes_of(tuple(axes), type_of(operand).ndim))

    function.__name__ = function.__qualname__ = name
    return function


reduce_sum = _whole(ops.reduce_sum, "reduce_sum")
reduce_prod = _whole(ops.reduce_prod, "reduce_prod")
reduce_max = _whole(ops.reduce_max, "reduce_max")
reduce_min = _whole(ops.reduce_min, "reduce_min")


def _bits(op: Any, name: str) -> Callable[..., Any]:
    def function(operand: Any, axes: Sequence[int]) -> Any:
        aval = type_of(operand)
        start = np.asarray(-1 if op is bitwise_and else 0).astype(aval.dtype)[()]
        return reduce(operand, start, op, axes)

    function.__name__ = function.__qualname__ = name
    return function


reduce_and = _bits(bitwise_and, "reduce_and")
reduce_or = _bits(bitwise_or, "reduce_or")
reduce_xor = _bits(bitwise_xor, "reduce_xor")


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
    _lax.bitwise_and: bitwise_and,
    _lax.bitwise_or: bitwise_or,
    _lax.bitwise_xor: bitwise_xor,
    jnp.bitwise_and: bitwise_and,
    jnp.bitwise_or: bitwise_or,
    jnp.bitwise_xor: bitwise_xor,
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
        raise ValueError(
            f"{called()}: operands of shapes {', '.join(builtins.map(str, shapes))} {here()}: give them one shape"
        )
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
                f"{called()}: the computation makes {out_tree} of {', '.join(builtins.map(str, found))} out of "
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
    _unsharded(out_sharding)
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
    if builtins.any(n is not None and n < k for n, k in zip(sizes, extent, strict=True)):
        raise ValueError(
            f"{called()}: the window {window} does not fit into shape {aval.shape}, padded {pads}, {here()}"
        )
    if monoid not in (_SUM, _MAX, _MIN):
        return tree.unflatten(_windows_combined(xs, firsts, config, window, strides, spacing, combine))
    x = xs[0]
    if builtins.any(d > 1 for d in base) or builtins.any(p < 0 for pair in pads for p in pair):
        x, pads = pad(x, monoid.neutral(aval.dtype), config), ((0, 0),) * aval.ndim
    params: dict[str, Any] = {"window": window, "strides": strides, "padding": pads}
    if builtins.any(d > 1 for d in spacing):
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
    if builtins.any(n for axis in config for n in axis):
        inside = pad(full(type_of(xs[0]).shape, True), False, config)
        xs = [pad(x, v, config) for x, v in zip(xs, firsts, strict=True)]
    shape = type_of(xs[0]).shape
    extent = [dilated(k, d) for k, d in zip(window, spacing, strict=True)]
    counts = [builtins.max(0, (n - k) // s + 1) for n, k, s in zip(shape, extent, strides, strict=True)]
    total = [broadcast(v, counts) for v in firsts]
    if 0 in counts:
        return total
    for place in itertools.product(*builtins.map(range, window)):
        start = [i * d for i, d in zip(place, spacing, strict=True)]
        limit = [i + (m - 1) * s + 1 for i, m, s in zip(start, counts, strides, strict=True)]
        new = combine(total, [slice(x, start, limit, strides) for x in xs])
        if inside is not None:
            taken = slice(inside, start, limit, strides)
            new = [ops.where(taken, n, t) for n, t in zip(new, total, strict=True)]
        total = new
    return total


def argmax(operand: Any, axis: int, index_dtype: Any) -> Any:
    """The index of the first largest element along an axis."""
    axis = axis_of(axis, type_of(operand).ndim)
    return ops.astype(ops.argmax(operand, axis=axis), dtype=dtype_of(index_dtype))


def argmin(operand: Any, axis: int, index_dtype: Any) -> Any:
    """The index of the first smallest element along an axis."""
    axis = axis_of(axis, type_of(operand).ndim)
    return ops.astype(ops.argmin(operand, axis=axis), dtype=dtype_of(index_dtype))


def _running(op: Any, name: str, what: str) -> Callable[..., Any]:
    def function(operand: Any, axis: int = 0, reverse: bool = False) -> Any:
        axis = axis_of(axis, type_of(operand).ndim)
        return op(operand, axis=axis, reverse=True) if reverse else op(operand, axis=axis)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"The running {what} along an axis, from the end with `reverse`."
    return function


cumsum = _running(ops.cumsum, "cumsum", "sum")
cumprod = _running(ops.cumprod, "cumprod", "product")
cummax = _running(ops.cummax, "cummax", "maximum")
cummin = _running(ops.cummin, "cummin", "minimum")
cumlogsumexp = _running(ops.cumlogsumexp, "cumlogsumexp", "logarithm of the sum of exponentials")


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
    "AccuracyMode", "ConvDimensionNumbers", "ConvGeneralDilatedDimensionNumbers", "DotAlgorithm",
    "DotAlgorithmPreset", "DotDimensionNumbers", "FftType", "GatherDimensionNumbers", "GatherScatterMode",
    "Precision", "PrecisionLike", "RoundingMethod", "ScatterDimensionNumbers", "abs", "acos", "acosh", "add",
    "approx_max_k", "approx_min_k", "argmax", "argmin", "asin", "asinh", "associative_scan", "atan", "atan2", "atanh",
    "axis_index", "axis_size", "batch_matmul", "bessel_i0e", "bessel_i1e", "betainc", "bitcast_convert_type",
    "bitwise_and", "bitwise_not", "bitwise_or", "bitwise_xor", "broadcast", "broadcast_in_dim", "broadcast_like",
    "broadcast_shapes", "broadcast_to_rank", "broadcasted_iota", "cbrt", "ceil", "clamp", "clz", "collapse",
    "complex", "concatenate", "cond", "conj", "conv", "conv_dimension_numbers", "conv_general_dilated",
    "conv_general_dilated_local", "conv_general_dilated_patches", "conv_general_permutations",
    "conv_general_shape_tuple", "conv_shape_tuple", "conv_transpose", "conv_transpose_shape_tuple",
    "conv_with_general_padding", "convert_element_type", "cos", "cosh", "cumlogsumexp", "cummax", "cummin", "cumprod",
    "cumsum", "digamma", "div", "dot", "dot_general", "dtype", "dynamic_index_in_dim", "dynamic_slice",
    "dynamic_slice_in_dim", "dynamic_update_index_in_dim", "dynamic_update_slice", "dynamic_update_slice_in_dim",
    "empty", "eq", "erf", "erf_inv", "erfc", "exp", "exp2", "expand_dims", "expm1", "floor", "fori_loop", "full",
    "full_like", "gather", "ge", "gt", "igamma", "igamma_grad_a", "igammac", "imag", "index_in_dim", "integer_pow",
    "iota", "is_finite", "le", "lgamma", "log", "log1p", "log2", "logistic", "lt", "map", "max", "min", "mul", "ne",
    "neg", "nextafter", "one_minus_square", "optimization_barrier", "pad", "padtype_to_pads", "pmax", "pmean", "pmin",
    "polygamma", "population_count", "pow", "psum", "real", "reciprocal", "reduce", "reduce_and", "reduce_max",
    "reduce_min", "reduce_or", "reduce_precision", "reduce_prod", "reduce_sum", "reduce_window",
    "reduce_window_shape_tuple", "reduce_xor", "rem", "reshape", "rev", "round", "rsqrt", "scan", "scatter",
    "scatter_add", "scatter_max", "scatter_min", "scatter_mul", "scatter_sub", "select", "select_n", "shift_left",
    "shift_right_arithmetic", "shift_right_logical", "sign", "sin", "sinh", "slice", "slice_in_dim", "sort",
    "sort_key_val", "split", "sqrt", "square", "squeeze", "stack", "stop_gradient", "sub", "switch", "tan", "tanh",
    "tile", "top_k", "transpose", "unstack", "while_loop", "zeros_like_array", "zeta",
]  # fmt: skip

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
