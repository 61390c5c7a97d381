"""Sorting, and what is found by it. The derivative of an order is the permutation that it found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from ..errors import called, here
from ..op import Op
from ..tape import Aval, Node, aval_of, make_aval
from ..tracer import Tracer
from .gather import Spec, scatter
from .indexing import normalize_axis
from .shape import reshape, transpose, zeros_of


def _sort(*xs: Any, axis: int, descending: bool, stable: bool, keys: int = 1) -> Any:
    columns = [*xs, lax.broadcasted_iota(np.int32, xs[0].shape, axis)]
    if not descending:
        return tuple(lax.sort(columns, dimension=axis, is_stable=stable, num_keys=keys))
    # Sorted backwards from the end, so that equal elements keep their order.
    columns = [lax.rev(x, (axis,)) for x in columns]
    return tuple(lax.rev(x, (axis,)) for x in lax.sort(columns, dimension=axis, is_stable=stable, num_keys=keys))


def _sort_shape(*xs: Aval, axis: int, descending: bool, stable: bool, keys: int = 1) -> tuple[Aval, ...]:
    if any(x.shape != xs[0].shape for x in xs):
        raise ValueError(f"arrays of shapes {', '.join(str(x.shape) for x in xs)} are sorted together: give them one")
    if not 1 <= keys <= len(xs):
        raise ValueError(f"sorted by the first {keys} of {len(xs)} arrays: there must be one key at least")
    return (*xs, make_aval(xs[0].shape, np.dtype(np.int32)))


def _sort_vjp(node: Node, cts: Sequence[Any], needs: Sequence[bool]) -> list[Any]:
    axis = node.params.get("axis", node.inputs[0].aval.ndim - 1)
    return [
        None if ct is None or not need else _put_back(ct, x, node.outputs[-1], axis)
        for x, ct, need in zip(node.inputs, cts, needs, strict=False)
    ]


def _put_back(ct: Any, x: Any, order: Any, axis: int) -> Any:
    """The cotangent of elements of `x` that were moved along an axis, where they came from."""
    batch = tuple((a, a) for a in range(x.aval.ndim) if a != axis)
    spec = Spec((axis,), batch=batch, mode="promise_in_bounds", unique=True)
    return scatter(zeros_of(x), ct, order, kind="add", spec=spec)


sort_op: Op = Op("sort", _sort, _sort_vjp, shape=_sort_shape, multiple=True)
"""Arrays sorted together along an axis, by the first `keys` of them, and where each element came from."""


def _top_k_shape(x: Aval, *, k: int) -> tuple[Aval, Aval]:
    if not x.ndim or not 0 <= k <= x.shape[-1]:
        raise ValueError(f"cannot take the {k} largest along the last axis of shape {x.shape}")
    shape = (*x.shape[:-1], k)
    return make_aval(shape, x.dtype, x.weak_type), make_aval(shape, np.dtype(np.int32))


top_k_op: Op = Op("top_k", lambda x, *, k: tuple(lax.top_k(x, k)), _sort_vjp, shape=_top_k_shape, multiple=True)


def _approximate(x: Any, *, k: int, axis: int, largest: bool, **options: Any) -> Any:
    return tuple((lax.approx_max_k if largest else lax.approx_min_k)(x, k, axis, **options))


approx_top_k_op: Op = Op("approx_top_k", _approximate, _sort_vjp, multiple=True)
"""The `k` largest or smallest elements along an axis, or most of them, and their indices, fast on TPU."""

searchsorted_op: Op = Op("searchsorted", lambda a, v, *, side: jnp.searchsorted(a, v, side=side), None)


def sort(x: Any, axis: int | None = -1, *, descending: bool = False, stable: bool = True) -> Any:
    """The elements of `x` in order along an axis; NaN comes last (first, descending).

    Args:
      x: an array.
      axis: which axis; None for the flattened array.
      descending: whether the largest comes first.
      stable: whether equal elements keep their order, which the derivative sees.

    Raises:
      ValueError: if `x` has no such axis.

    Example:
      >>> import numpy as np, tracegrad as tg
      >>> tg.grad(lambda x: tg.ops.sort(x)[0])(np.array([3.0, 1.0, 2.0])).tolist()
      [0.0, 1.0, 0.0]
    """
    x, axis = _along(x, axis)
    return sort_op(x, axis=axis, descending=bool(descending), stable=bool(stable))[0]


def argsort(x: Any, axis: int | None = -1, *, descending: bool = False, stable: bool = True) -> Any:
    """The indices, int32, that put `x` in order along an axis. The arguments are those of `sort`.

    Example:
      >>> import tracegrad as tg, numpy as np
      >>> tg.ops.argsort(np.array([3.0, 1.0, 2.0])).tolist()
      [1, 2, 0]
    """
    x, axis = _along(x, axis)
    return sort_op(x, axis=axis, descending=bool(descending), stable=bool(stable))[1]


def top_k(x: Any, k: int, *, axis: int = -1) -> tuple[Any, Any]:
    """The `k` largest elements of `x` along an axis, the largest first, and their indices, int32.

    Raises:
      ValueError: if the axis has fewer than `k` elements.

    Example:
      >>> import numpy as np, tracegrad as tg
      >>> values, indices = tg.ops.top_k(np.array([3.0, 1.0, 2.0]), 2)
      >>> values.tolist(), indices.tolist()
      ([3.0, 2.0], [0, 2])
    """
    x, axis = _along(x, axis)
    last = x.ndim - 1
    if axis == last:
        return top_k_op(x, k=int(k))  # type: ignore[no-any-return]
    swap = tuple({axis: last, last: axis}.get(a, a) for a in range(x.ndim))
    values, indices = top_k_op(transpose(x, axes=swap), k=int(k))
    return transpose(values, axes=swap), transpose(indices, axes=swap)


def searchsorted(a: Any, v: Any, side: str = "left") -> Any:
    """Where the elements of `v` would go in the sorted vector `a` to keep it sorted, int32.

    Args:
      a: a sorted vector.
      v: an array.
      side: "left" for the first such place, "right" for the last.

    Raises:
      ValueError: if `a` is not a vector, or `side` is neither.
    """
    if side not in ("left", "right"):
        raise ValueError(f"{called()}: side is {side!r} {here()}: it must be 'left' or 'right'")
    if aval_of(a).ndim != 1:
        raise ValueError(f"{called()}: a is {aval_of(a)} {here()}: it must be a sorted vector")
    return searchsorted_op(a, v, side=side)


def _along(x: Any, axis: int | None) -> tuple[Any, int]:
    x = x if hasattr(x, "shape") else Tracer.of_list(x)
    if axis is None:
        return reshape(x, shape=(math.prod(x.shape),)), 0
    return x, normalize_axis(axis, x.ndim)


__all__ = ["approx_top_k_op", "argsort", "searchsorted", "sort", "sort_op", "top_k", "top_k_op"]
