"""Sorting, and what is found by it. The derivative of an order is the permutation that it found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from ..errors import here
from ..op import Op
from ..tape import Aval, Node, aval_of, make_aval
from .indexing import Spec, normalize_axis, scatter
from .shape import reshape, transpose, zeros_of


def _sort(x: Any, *, axis: int, descending: bool, stable: bool) -> Any:
    order = lax.broadcasted_iota(np.int32, x.shape, axis)
    if descending:
        # Sorted backwards from the end, so that equal elements keep their order.
        x, order = lax.rev(x, (axis,)), lax.rev(order, (axis,))
    values, order = lax.sort((x, order), dimension=axis, is_stable=stable, num_keys=1)
    return (lax.rev(values, (axis,)), lax.rev(order, (axis,))) if descending else (values, order)


def _sort_vjp(node: Node, cts: Sequence[Any], needs: Sequence[bool]) -> list[Any]:
    return [None if cts[0] is None else _put_back(cts[0], node, node.params.get("axis", node.inputs[0].aval.ndim - 1))]


def _put_back(ct: Any, node: Node, axis: int) -> Any:
    """The cotangent of elements that were moved along an axis, where they came from."""
    x = node.inputs[0]
    batch = tuple((a, a) for a in range(x.aval.ndim) if a != axis)
    spec = Spec((axis,), batch=batch, mode="promise_in_bounds", unique=True)
    return scatter(zeros_of(x), ct, node.outputs[1], kind="add", spec=spec)


sort_op: Op = Op(
    "sort",
    _sort,
    _sort_vjp,
    shape=lambda x, *, axis, descending, stable: (x, make_aval(x.shape, np.dtype(np.int32))),
    multiple=True,
)
"""The sorted elements along an axis, and where each came from."""


def _top_k_shape(x: Aval, *, k: int) -> tuple[Aval, Aval]:
    if not x.ndim or not 0 <= k <= x.shape[-1]:
        raise ValueError(f"cannot take the {k} largest along the last axis of shape {x.shape}")
    shape = (*x.shape[:-1], k)
    return make_aval(shape, x.dtype, x.weak_type), make_aval(shape, np.dtype(np.int32))


top_k_op: Op = Op("top_k", lambda x, *, k: tuple(lax.top_k(x, k)), _sort_vjp, shape=_top_k_shape, multiple=True)
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
    x, axis = _along(x, axis, "sort")
    return sort_op(x, axis=axis, descending=bool(descending), stable=bool(stable))[0]


def argsort(x: Any, axis: int | None = -1, *, descending: bool = False, stable: bool = True) -> Any:
    """The indices, int32, that put `x` in order along an axis. The arguments are those of `sort`.

    Example:
      >>> import tracegrad as tg, numpy as np
      >>> tg.ops.argsort(np.array([3.0, 1.0, 2.0])).tolist()
      [1, 2, 0]
    """
    x, axis = _along(x, axis, "argsort")
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
    x, axis = _along(x, axis, "top_k")
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
        raise ValueError(f"searchsorted: side is {side!r} {here()}: it must be 'left' or 'right'")
    if aval_of(a).ndim != 1:
        raise ValueError(f"searchsorted: a is {aval_of(a)} {here()}: it must be a sorted vector")
    return searchsorted_op(a, v, side=side)


def _along(x: Any, axis: int | None, name: str) -> tuple[Any, int]:
    x = x if hasattr(x, "shape") else np.asarray(x)
    if axis is None:
        return reshape(x, shape=(math.prod(x.shape),)), 0
    return x, normalize_axis(axis, x.ndim, name)


__all__ = ["argsort", "searchsorted", "sort", "sort_op", "top_k", "top_k_op"]
