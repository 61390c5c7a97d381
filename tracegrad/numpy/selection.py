"""Reading at indices, and order: NumPy's signatures over the ops."""

from __future__ import annotations

from typing import Any

from .. import ops
from ..ops import pick, top_k
from .arguments import array_like, refuse, type_of


def take(
    a: Any,
    indices: Any,
    axis: int | None = None,
    out: None = None,
    mode: str | None = None,
    unique_indices: bool = False,
    indices_are_sorted: bool = False,
    fill_value: Any = None,
) -> Any:
    """The slices of `a` at `indices` along an axis, or elements of the flattened array; see `tracegrad.ops.take`."""
    refuse("take", out=out)
    type_of(a, "take")
    if mode == "raise":
        mode = None
    return ops.take(a, indices, axis, mode, unique_indices, indices_are_sorted, fill_value)


def take_along_axis(arr: Any, indices: Any, axis: int | None = -1, mode: Any = None, fill_value: Any = None) -> Any:
    """The elements of `arr` at `indices` along an axis, the other axes of the two walked together."""
    type_of(arr, "take_along_axis")
    return ops.take_along_axis(arr, indices, axis, mode, fill_value)


def sort(
    a: Any,
    axis: int | None = -1,
    kind: None = None,
    order: None = None,
    *,
    stable: bool = True,
    descending: bool = False,
) -> Any:
    """The elements in order along an axis, or of the flattened array; NaN comes last."""
    refuse("sort", kind=kind, order=order)
    type_of(a, "sort")
    return ops.sort(a, axis, descending=descending, stable=stable)


def argsort(
    a: Any,
    axis: int | None = -1,
    kind: None = None,
    order: None = None,
    *,
    stable: bool = True,
    descending: bool = False,
) -> Any:
    """The indices that put the elements in order along an axis."""
    refuse("argsort", kind=kind, order=order)
    type_of(a, "argsort")
    return ops.argsort(a, axis, descending=descending, stable=stable)


def searchsorted(a: Any, v: Any, side: str = "left", sorter: None = None) -> Any:
    """Where the elements of `v` would go in the sorted vector `a` to keep it sorted."""
    refuse("searchsorted", sorter=sorter)
    type_of(a, "searchsorted"), type_of(v, "searchsorted")
    return ops.searchsorted(a, v, side)


def digitize(x: Any, bins: Any, right: bool = False) -> Any:
    """The number of the bin of each element, for bins with increasing edges, each closed below (above, if `right`)."""
    return searchsorted(bins, array_like(x, "digitize"), "left" if right else "right")


__all__ = [
    "argsort", "digitize", "pick", "searchsorted", "sort", "take", "take_along_axis", "top_k",
]  # fmt: skip
