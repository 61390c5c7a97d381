"""Ops that move elements without changing them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..inference import TYPED
from ..op import Op
from ..tape import Aval, Node, aval_of, make_aval, varying_in_jax
from ..tracer import Literal
from .elementwise import astype, sub


def _reshape_shape(x: Aval, *, shape: tuple[int, ...]) -> Aval:
    if math.prod(x.shape) != math.prod(shape):
        raise ValueError(
            f"cannot reshape {x.shape} ({math.prod(x.shape)} elements) to {shape} ({math.prod(shape)} elements)"
        )
    return make_aval(shape, x.dtype, x.weak_type)


reshape: Op = Op(
    "reshape",
    lambda x, *, shape: lax.reshape(x, shape),
    (lambda ct, out, x, *, shape: reshape(ct, shape=x.shape),),
    shape=_reshape_shape,
)


weak_op: Op = Op(
    "weak",
    lambda x, *, dtype: lax.convert_element_type_p.bind(x, new_dtype=dtype, weak_type=True, sharding=None),
    (lambda ct, out, x, *, dtype: ct,),
    shape=lambda x, *, dtype: make_aval(x.shape, dtype, True),
)
"""The operand in a dtype that gives way to others, as that of a Python number does."""


def _transpose_shape(x: Aval, *, axes: tuple[int, ...]) -> Aval:
    if sorted(axes) != list(range(x.ndim)):
        raise ValueError(f"axes {axes} are not a permutation of the {x.ndim} axes of shape {x.shape}")
    return make_aval(tuple(x.shape[a] for a in axes), x.dtype, x.weak_type)


transpose: Op = Op(
    "transpose",
    lambda x, *, axes: lax.transpose(x, axes),
    (lambda ct, out, x, *, axes: transpose(ct, axes=tuple(int(i) for i in np.argsort(axes))),),
    shape=_transpose_shape,
)


def _broadcast_shape(x: Aval, *, shape: tuple[int, ...], dims: tuple[int, ...]) -> Aval:
    if len(dims) != x.ndim or any(n not in (1, shape[d]) for n, d in zip(x.shape, dims, strict=True)):
        raise ValueError(f"cannot broadcast shape {x.shape} to shape {shape}")
    return make_aval(shape, x.dtype, x.weak_type)


def _broadcast_vjp(ct: Any, out: Any, x: Any, *, shape: tuple[int, ...], dims: tuple[int, ...]) -> Any:
    # The axes of size 1 are summed by `backward`, as for every op that broadcasts.
    new = tuple(d for d in range(len(shape)) if d not in dims)
    if all(shape[d] == 1 for d in new):
        return reshape(ct, shape=tuple(shape[d] for d in dims)) if new else ct
    return reduce_sum(ct, axes=new)


broadcast_in_dim: Op = Op(
    "broadcast_in_dim",
    lambda x, *, shape, dims: lax.broadcast_in_dim(x, shape, dims),
    (_broadcast_vjp,),
    shape=_broadcast_shape,
)


def broadcast_to(x: Any, shape: tuple[int, ...]) -> Any:
    """`x` in this shape, as NumPy broadcasts: axes are matched from the right."""
    ndim = aval_of(x).ndim
    if ndim > len(shape):
        raise ValueError(f"cannot broadcast an array of shape {aval_of(x).shape} to {shape}: it has more axes")
    return broadcast_in_dim(x, shape=shape, dims=tuple(range(len(shape) - ndim, len(shape))))


def unbroadcast(ct: Any, aval: Aval) -> Any:
    """The cotangent of an operand of type `aval` from one of the broadcast shape and promoted dtype."""
    shape = aval.shape
    if ct.aval.shape != shape:
        extra = ct.aval.ndim - len(shape)
        ones = tuple(extra + i for i, n in enumerate(shape) if n == 1 and ct.aval.shape[extra + i] != 1)
        ct = reduce_sum(ct, axes=tuple(range(extra)) + ones)
        if ones:
            ct = reshape(ct, shape=shape)
    if ct.aval.dtype != aval.dtype:
        ct = astype(ct, dtype=aval.dtype)
    return ct


def _sum(x: Any, *, axes: tuple[int, ...]) -> Any:
    # Half-precision sums are taken in float32, as jax.numpy does.
    if x.dtype in (np.float16, jnp.bfloat16):
        return lax.convert_element_type(lax.reduce_sum(lax.convert_element_type(x, np.float32), axes), x.dtype)
    return lax.reduce_sum(x, axes)


def reduced_shape(x: Aval, axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for i, n in enumerate(x.shape) if i not in axes)


reduce_sum: Op = Op(
    "sum",
    _sum,
    (lambda ct, out, x, *, axes: restore_axes(ct, x.shape, axes),),
    shape=lambda x, *, axes: make_aval(reduced_shape(x, axes), x.dtype, x.weak_type),
)


def restore_axes(ct: Any, shape: tuple[int, ...], axes: tuple[int, ...]) -> Any:
    """Broadcasts the result of a reduction over `axes` back to the shape it was taken from."""
    return broadcast_in_dim(ct, shape=shape, dims=tuple(i for i in range(len(shape)) if i not in axes))


# -- slices and padding


def _slice_shape(x: Aval, *, start: tuple[int, ...], limit: tuple[int, ...], strides: tuple[int, ...]) -> Aval:
    if any(
        not 0 <= lo <= max(lo, hi) <= n or s < 1 for lo, hi, s, n in zip(start, limit, strides, x.shape, strict=True)
    ):
        raise ValueError(
            f"the slice from {start} to {limit} in steps of {strides} leaves the array, of shape {x.shape}"
        )
    shape = tuple(max(0, -(-(hi - lo) // s)) for lo, hi, s in zip(start, limit, strides, strict=True))
    return make_aval(shape, x.dtype, x.weak_type)


def _slice_vjp(ct: Any, out: Any, x: Any, *, start: Any, limit: Any, strides: Any) -> Any:
    config = []
    for n, size, lo, s in zip(x.shape, ct.shape, start, strides, strict=True):
        covered = (size - 1) * s + 1 if size else 0
        config.append((lo, n - lo - covered, s - 1))
    return pad(ct, 0.0, config=tuple(config))


slice_: Op = Op(
    "slice",
    lambda x, *, start, limit, strides: lax.slice(x, start, limit, strides if any(s != 1 for s in strides) else None),
    (_slice_vjp,),
    shape=_slice_shape,
)


def _unpad(ct: Any, config: tuple[tuple[int, int, int], ...], shape: tuple[int, ...]) -> Any:
    if any(lo < 0 or hi < 0 for lo, hi, _ in config):
        ct = pad(ct, 0.0, config=tuple((max(-lo, 0), max(-hi, 0), 0) for lo, hi, _ in config))
        config = tuple((max(lo, 0), max(hi, 0), inner) for lo, hi, inner in config)
    start = tuple(lo for lo, _, _ in config)
    limit = tuple(lo + ((n - 1) * (inner + 1) + 1 if n else 0) for n, (lo, _, inner) in zip(shape, config, strict=True))
    return slice_(ct, start=start, limit=limit, strides=tuple(inner + 1 for _, _, inner in config))


def _all_sum(x: Any) -> Any:
    return reduce_sum(x, axes=tuple(range(x.ndim)))


def _pad_shape(x: Aval, value: Aval, *, config: tuple[tuple[int, int, int], ...]) -> Aval:
    shape = tuple(lo + hi + n + max(0, n - 1) * inner for n, (lo, hi, inner) in zip(x.shape, config, strict=True))
    if min(shape, default=0) < 0:
        raise ValueError(f"padding {config} takes away more than shape {x.shape} has")
    return make_aval(shape, x.dtype, x.weak_type)


pad: Op = Op(
    "pad",
    lambda x, value, *, config: lax.pad(x, lax.convert_element_type(value, x.dtype), config),
    (
        lambda ct, out, x, value, *, config: _unpad(ct, config, x.shape),
        lambda ct, out, x, value, *, config: sub(_all_sum(ct), _all_sum(_unpad(ct, config, x.shape))),
    ),
    shape=_pad_shape,
)
rev: Op = Op(
    "rev",
    lambda x, *, axes: lax.rev(x, axes),
    (lambda ct, out, x, *, axes: rev(ct, axes=axes),),
    shape=lambda x, *, axes: x,
)


def splat(shape: tuple[int, ...], value: bool | int | float, dtype: Any) -> Any:
    """An array of one number that is part of the program, while a tape records."""
    number = Literal(make_aval((), dtype), None, value)
    return broadcast_in_dim(number, shape=shape, dims=()) if shape else number


def zeros_of(v: Any) -> Any:
    """Zeros of the type of a value, while a tape records."""
    return splat(v.aval.shape, 0.0, v.aval.dtype)


def _dynamic_slice_shape(x: Aval, *starts: Aval, sizes: tuple[int, ...]) -> Aval:
    _check_window(x, starts, sizes)
    return make_aval(sizes, x.dtype, x.weak_type)


def _check_window(x: Aval, starts: Sequence[Aval], sizes: tuple[int, ...]) -> None:
    if len(starts) != x.ndim or len(sizes) != x.ndim:
        raise ValueError(f"{len(starts)} starts and a window of {len(sizes)} axes for an array of shape {x.shape}")
    if any(size > n for size, n in zip(sizes, x.shape, strict=True)):
        raise ValueError(f"a window of shape {sizes} is larger than the array, of shape {x.shape}")
    if any(s.ndim or s.dtype.kind not in "iu" for s in starts):
        raise TypeError(f"starts are {', '.join(map(repr, starts))}: they must be integer scalars")


def _dynamic_slice_vjp(node: Node, cts: Sequence[Any], needs: Sequence[bool]) -> list[Any]:
    x, *starts = node.inputs
    return [dynamic_update_slice_op(zeros_of(x), cts[0], *starts)] + [None] * len(starts)


def _one_type(starts: Sequence[Any]) -> list[Any]:
    """Integers of one type, as XLA wants them."""
    if len({s.dtype for s in starts}) < 2:
        return list(starts)
    return [lax.convert_element_type(s, jax.dtypes.canonicalize_dtype(np.int64)) for s in starts]


dynamic_slice_op: Op = Op(
    "dynamic_slice",
    lambda x, *starts, sizes: lax.dynamic_slice(x, _one_type(starts), sizes),
    _dynamic_slice_vjp,
    shape=_dynamic_slice_shape,
)


def _dynamic_update_slice(x: Any, update: Any, *unlike: Any, adds: bool = False) -> Any:
    starts = _one_type(unlike)
    if adds:
        update = lax.add(lax.dynamic_slice(x, starts, update.shape), update)
    return lax.dynamic_update_slice(x, update, starts)


def _dynamic_update_slice_shape(x: Aval, update: Aval, *starts: Aval, adds: bool = False) -> Aval:
    _check_window(x, starts, update.shape)
    if update.dtype != x.dtype:
        raise TypeError(f"the update has dtype {update.dtype}, the array {x.dtype}: convert one with .astype")
    return x


def _dynamic_update_slice_vjp(node: Node, cts: Sequence[Any], needs: Sequence[bool]) -> list[Any]:
    (ct,) = cts
    update, *starts = node.inputs[1:]
    ct_x = ct if node.params.get("adds") or not needs[0] else dynamic_update_slice_op(ct, zeros_of(update), *starts)
    ct_update = dynamic_slice_op(ct, *starts, sizes=update.aval.shape) if needs[1] else None
    return [ct_x, ct_update] + [None] * len(starts)


dynamic_update_slice_op: Op = Op(
    "dynamic_update_slice", _dynamic_update_slice, _dynamic_update_slice_vjp, shape=_dynamic_update_slice_shape
)


def dynamic_slice(x: Any, starts: Sequence[Any], sizes: Sequence[int]) -> Any:
    """The window of shape `sizes` that begins at `starts`, which may be traced.

    A negative start counts from the end; a window that would stick out is moved inside, as in `jax.lax`.

    Args:
      x: an array.
      starts: an integer scalar for each axis.
      sizes: an int for each axis.

    Raises:
      ValueError: if the numbers of axes differ, or the window is larger than the array.

    Example:
      >>> import numpy as np, tracegrad as tg
      >>> tg.ops.dynamic_slice(np.arange(5.0), [3], [2]).tolist()
      [3.0, 4.0]
    """
    return dynamic_slice_op(x, *starts, sizes=tuple(map(int, sizes)))


def dynamic_update_slice(x: Any, update: Any, starts: Sequence[Any]) -> Any:
    """A copy of `x` with `update` in the place of the window that begins at `starts`, which may be traced.

    A negative start counts from the end; a window that would stick out is moved inside, as in `jax.lax`.

    Args:
      x: an array.
      update: an array of the dtype of `x`, with as many axes.
      starts: an integer scalar for each axis.

    Raises:
      ValueError: if the numbers of axes differ, or the window is larger than the array.
      TypeError: if the dtypes differ.
    """
    return dynamic_update_slice_op(x, update, *starts)


# -- joining and splitting


def _concatenate_shape(*xs: Aval, axis: int) -> Aval:
    first = xs[0]
    for x in xs[1:]:
        if x.ndim != first.ndim or any(i != axis and n != m for i, (n, m) in enumerate(zip(first.shape, x.shape))):  # noqa: B905
            shapes = ", ".join(str(x.shape) for x in xs)
            raise ValueError(f"arrays of shapes {shapes} differ along another axis than the joined one, axis {axis}")
        if x.dtype != first.dtype:
            raise TypeError(f"arrays of dtypes {first.dtype} and {x.dtype}: convert them to one dtype with astype")
    size = sum(x.shape[axis] for x in xs)
    shape = (*first.shape[:axis], size, *first.shape[axis + 1 :])
    return make_aval(shape, first.dtype, all(x.weak_type for x in xs))


def _concatenate_vjp(node: Node, cts: Sequence[Any], needs: Sequence[bool]) -> list[Any]:
    (ct,), axis = cts, node.params["axis"]
    result: list[Any] = []
    start = 0
    for v, need in zip(node.inputs, needs, strict=True):
        end = start + v.aval.shape[axis]
        lo = tuple(start if i == axis else 0 for i in range(ct.ndim))
        hi = tuple(end if i == axis else n for i, n in enumerate(ct.shape))
        result.append(slice_(ct, start=lo, limit=hi, strides=(1,) * ct.ndim) if need else None)
        start = end
    return result


concatenate: Op = Op(
    "concatenate",
    lambda *xs, axis: lax.concatenate(xs, axis) if len(xs) > 1 else xs[0],
    _concatenate_vjp,
    shape=_concatenate_shape,
)


def _split_shape(x: Aval, *, sizes: tuple[int, ...], axis: int) -> list[Aval]:
    if sum(sizes) != x.shape[axis]:
        raise ValueError(f"parts of {sizes} do not add up to the {x.shape[axis]} of axis {axis} of shape {x.shape}")
    shape = x.shape
    return [make_aval((*shape[:axis], n, *shape[axis + 1 :]), x.dtype, x.weak_type) for n in sizes]


def _split_vjp(node: Node, cts: Sequence[Any], needs: Sequence[bool]) -> list[Any]:
    parts = [zeros_of(v) if ct is None else ct for v, ct in zip(node.outputs, cts, strict=True)]
    return [concatenate(*parts, axis=node.params["axis"])]


# Not one slice a part: their gradients would be as many padded arrays, and a sum of them.
split_op: Op = Op(
    "split", lambda x, *, sizes, axis: lax.split(x, sizes, axis), _split_vjp, shape=_split_shape, multiple=True
)

# -- what changes no bit


def _barrier_vjp(node: Node, cts: Sequence[Any], needs: Sequence[bool]) -> list[Any]:
    given = iter(optimization_barrier_op(*[ct for ct in cts if ct is not None]))
    return [None if ct is None else next(given) for ct in cts]


def _barrier(*xs: Any) -> tuple[Any, ...]:
    # JAX takes all that one barrier passes on for varying where a part of it is.
    groups: dict[frozenset[str], list[int]] = {}
    for i, x in enumerate(xs):
        groups.setdefault(varying_in_jax(x), []).append(i)
    passed: dict[int, Any] = {}
    for group in groups.values():
        passed.update(zip(group, lax.optimization_barrier([xs[i] for i in group]), strict=True))
    return tuple(passed[i] for i in range(len(xs)))


optimization_barrier_op: Op = Op(
    "optimization_barrier",
    _barrier,
    _barrier_vjp,
    shape=lambda *xs: xs,
    multiple=True,
    axes=TYPED,
)
"""Its operands: what reads a result is not computed together with what made an operand."""

bitcast: Op = Op("bitcast", lambda x, *, dtype: lax.bitcast_convert_type(x, dtype), None)
"""The bits of the operand, read as another dtype."""


def move_axis(x: Any, source: int, destination: int) -> Any:
    """`x` with one axis, counted from the front, put at another place, counted from the front or the back."""
    ndim = aval_of(x).ndim
    order = [a for a in range(ndim) if a != source]
    order.insert(destination % ndim, source)
    return transpose(x, axes=tuple(order))


# -- creation: recorded like everything else


iota: Op = Op(
    "iota",
    lambda *, dtype, shape, axis: lax.broadcasted_iota(dtype, shape, axis),
    None,
    shape=lambda *, dtype, shape, axis: make_aval(shape, np.dtype(dtype)),
)
