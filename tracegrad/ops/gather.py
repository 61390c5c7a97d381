"""Gathers and scatters: the elements of an array at arrays of indices, and its windows at coordinates."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax

from ..errors import here
from ..op import Op
from ..tape import Aval, Node, make_aval
from .elementwise import add, astype, div, equal, mul, sub, where
from .shape import iota, reshape, splat, zeros_of


class Spec(NamedTuple):
    """What arrays of indices mean: the static part of a gather, and of the scatter that undoes it.

    Attributes:
      axes: the indexed axes of the array, one for each array of indices; these broadcast together.
      at: where the axes of the indices stand in the result, among the axes of the array that are left.
      batch: pairs (axis of the array, axis of the indices) that are walked together, in order.
      mode: what an index out of bounds does: "clip", "fill" (a scatter drops it), "wrap", or
        "promise_in_bounds" (there is none).
      fill: what "fill" reads; None for NaN, or an extreme integer, as `jax.lax.gather` has it.
      unique, sorted: what is known of the indices.
    """

    axes: tuple[int, ...]
    at: int = 0
    batch: tuple[tuple[int, int], ...] = ()
    mode: str = "clip"
    fill: int | float | None = None
    unique: bool = False
    sorted: bool = False

    def layout(self, shape: Sequence[int], indices: Sequence[Any]) -> tuple[tuple[int, ...], list[int], list[int]]:
        """The shape the indices broadcast to, the axes of the array that are not indexed, and the sizes read."""
        wide = np.broadcast_shapes(*[i.shape for i in indices])
        batch = [a for a, _ in self.batch]
        rest = [a for a in range(len(shape)) if a not in self.axes and a not in batch]
        return wide, rest, [n if a in rest else 1 for a, n in enumerate(shape)]

    def result(self, shape: Sequence[int], indices: Sequence[Any]) -> tuple[int, ...]:
        wide, rest, _ = self.layout(shape, indices)
        left = [shape[a] for a in rest]
        return (*left[: self.at], *wide, *left[self.at :])

    def never_twice(self, ndim: int) -> bool:
        """Whether no element can be met twice: known, or one index for each position along `batch`."""
        return self.unique or len(self.batch) == ndim


def _counted(x: Any, indices: Sequence[Any], spec: Spec, clamp: bool) -> list[Any]:
    """The indices in one integer type, counted from the start."""
    wide = any(i.dtype.itemsize == 8 or i.dtype == np.uint32 for i in indices)
    dtype = jax.dtypes.canonicalize_dtype(np.int64 if wide else np.int32)
    result = []
    for axis, i in zip(spec.axes, indices, strict=True):
        i = lax.convert_element_type(i, dtype)
        if spec.mode == "wrap":
            i = lax.rem(i, np.asarray(x.shape[axis], dtype))
        if spec.mode != "promise_in_bounds":
            zero = np.asarray(0, dtype)
            i = lax.select(lax.lt(i, zero), lax.add(i, np.asarray(x.shape[axis], dtype)), i)
            if clamp and spec.mode == "clip":
                i = lax.clamp(zero, i, np.asarray(x.shape[axis] - 1, dtype))
        result.append(i)
    return result


def _numbers(x: Any, indices: list[Any], spec: Spec) -> tuple[Any, lax.GatherDimensionNumbers]:
    """The coordinates of what is read, along a last axis, and how XLA is to read them."""
    wide, rest, _ = spec.layout(x.shape, indices)
    columns = [lax.broadcast_in_dim(i, (*wide, 1), range(len(wide) - i.ndim, len(wide))) for i in indices]
    return lax.concatenate(columns, len(wide)) if len(columns) > 1 else columns[0], lax.GatherDimensionNumbers(
        offset_dims=(*range(spec.at), *range(spec.at + len(wide), len(rest) + len(wide))),
        collapsed_slice_dims=tuple(sorted(spec.axes)),
        start_index_map=spec.axes,
        operand_batching_dims=tuple(a for a, _ in spec.batch),
        start_indices_batching_dims=tuple(i for _, i in spec.batch),
    )


def _starts(x: Any, indices: list[Any], spec: Spec) -> list[Any]:
    zero = np.zeros((), indices[0].dtype)
    return [indices[spec.axes.index(a)] if a in spec.axes else zero for a in range(x.ndim)]


def _gather(x: Any, *indices: Any, spec: Spec) -> Any:
    wide, _, sizes = spec.layout(x.shape, indices)
    shape = spec.result(x.shape, indices)
    if 0 in shape:
        return lax.full(shape, 0, x.dtype)
    found = _counted(x, indices, spec, clamp=False)
    if not wide and spec.mode != "fill":
        window = lax.dynamic_slice(x, _starts(x, found, spec), sizes, allow_negative_indices=False)
        return lax.reshape(window, shape)
    coordinates, numbers = _numbers(x, found, spec)
    # XLA clamps what a gather reads, so "clip" costs nothing here.
    read = lax.gather(
        x, coordinates, numbers, tuple(sizes), unique_indices=spec.unique, indices_are_sorted=spec.sorted,
        mode="promise_in_bounds",
    )  # fmt: skip
    return read if spec.mode != "fill" else _filled(x, read, found, wide, spec)


def _filled(x: Any, read: Any, indices: list[Any], wide: tuple[int, ...], spec: Spec) -> Any:
    """What was read, with a filling where an index is out of bounds: by default NaN, or the least integer."""
    inside: Any = None
    for axis, i in zip(spec.axes, indices, strict=True):
        # A negative index is a large one among the unsigned integers: one comparison does for both ends.
        unsigned = lax.convert_element_type(i, np.dtype(f"uint{8 * i.dtype.itemsize}"))
        here_inside = lax.lt(unsigned, np.asarray(x.shape[axis], unsigned.dtype))
        here_inside = lax.broadcast_in_dim(here_inside, wide, range(len(wide) - i.ndim, len(wide)))
        inside = here_inside if inside is None else lax.bitwise_and(inside, here_inside)
    inside = lax.broadcast_in_dim(inside, read.shape, range(spec.at, spec.at + len(wide)))
    fill = spec.fill
    if fill is None:
        kind = x.dtype.kind
        fill = np.iinfo(x.dtype).min if kind == "i" else np.iinfo(x.dtype).max if kind == "u" else kind == "b" or np.nan
    return lax.select(inside, read, lax.full(read.shape, fill, read.dtype))


def _gather_shape(x: Aval, *indices: Aval, spec: Spec) -> Aval:
    _check_indices(x, indices, spec)
    return make_aval(spec.result(x.shape, indices), x.dtype, x.weak_type)


def _check_indices(x: Aval, indices: Sequence[Aval], spec: Spec) -> None:
    for axis, i in zip(spec.axes, indices, strict=True):
        if i.dtype.kind not in "iu":
            raise TypeError(f"indices have dtype {i.dtype}: convert them with .astype(int)")
        if x.shape[axis] == 0 and 0 not in i.shape:
            raise IndexError(f"axis {axis} of shape {x.shape} has no element to index")


def _gather_vjp(node: Node, cts: Sequence[Any], needs: Sequence[bool]) -> list[Any]:
    (x, *indices), spec = node.inputs, node.params["spec"]
    kind = "set" if spec.never_twice(max(i.aval.ndim for i in indices)) else "add"
    return [scatter(zeros_of(x), cts[0], *indices, kind=kind, spec=spec)] + [None] * len(indices)


gather = Op("gather", _gather, _gather_vjp, shape=_gather_shape)
"""The elements of an array at arrays of indices: `gather(x, *indices, spec=...)`."""

_COMBINE: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "set": (lambda x, u: u, lax.scatter),
    "add": (lax.add, lax.scatter_add),
    "multiply": (lax.mul, lax.scatter_mul),
    "min": (lax.min, lax.scatter_min),
    "max": (lax.max, lax.scatter_max),
}


def _scatter(x: Any, updates: Any, *indices: Any, kind: str, spec: Spec) -> Any:
    if math.prod(updates.shape) == 0:
        return x
    combine, lax_scatter = _COMBINE[kind]
    wide, rest, sizes = spec.layout(x.shape, indices)
    found = _counted(x, indices, spec, clamp=True)
    if not wide and spec.mode != "fill" and kind in ("set", "add"):
        starts, new = _starts(x, found, spec), lax.reshape(updates, sizes)
        if kind == "add":
            new = lax.add(lax.dynamic_slice(x, starts, sizes, allow_negative_indices=False), new)
        return lax.dynamic_update_slice(x, new, starts, allow_negative_indices=False)
    order = [*rest[: spec.at], *[a for a, _ in spec.batch], *rest[spec.at :]]
    if wide and len(spec.batch) == len(wide) and order == sorted(order):
        # One element in each row: a comparison, which fuses with its neighbours, where a scatter would not.
        hot = lax.eq(
            lax.broadcasted_iota(found[0].dtype, x.shape, spec.axes[0]),
            lax.broadcast_in_dim(found[0], x.shape, [a for a, _ in spec.batch]),
        )
        return lax.select(hot, combine(x, lax.broadcast_in_dim(updates, x.shape, order)), x)
    coordinates, numbers = _numbers(x, found, spec)
    return lax_scatter(
        x,
        coordinates,
        updates,
        lax.ScatterDimensionNumbers(
            update_window_dims=numbers.offset_dims,
            inserted_window_dims=numbers.collapsed_slice_dims,
            scatter_dims_to_operand_dims=numbers.start_index_map,
            operand_batching_dims=numbers.operand_batching_dims,
            scatter_indices_batching_dims=numbers.start_indices_batching_dims,
        ),
        indices_are_sorted=spec.sorted,
        unique_indices=spec.unique,
        mode="drop" if spec.mode == "fill" else "promise_in_bounds",
    )


def _scatter_shape(x: Aval, updates: Aval, *indices: Aval, kind: str, spec: Spec) -> Aval:
    _check_indices(x, indices, spec)
    expected = spec.result(x.shape, indices)
    if updates.shape != expected or updates.dtype != x.dtype:
        raise ValueError(f"updates are {updates}: they must have shape {expected} and dtype {x.dtype}")
    return x


def _scatter_vjp(node: Node, cts: Sequence[Any], needs: Sequence[bool]) -> list[Any]:
    indices, spec = node.inputs[2:], node.params["spec"]
    back = spec._replace(fill=0)  # what was dropped has no cotangent

    def read(a: Any) -> Any:
        return gather(a, *indices, spec=back)

    def write(a: Any, b: Any, kind: str) -> Any:
        return scatter(a, b, *indices, kind=kind, spec=spec)

    return _updated(node, cts[0], needs, read, write, spec.never_twice(max(i.aval.ndim for i in indices)))


def _updated(
    node: Node,
    ct: Any,
    needs: Sequence[bool],
    read: Callable[[Any], Any],
    write: Callable[[Any, Any, str], Any],
    unique: bool,
) -> list[Any]:
    """The cotangents of an array and of its updates, with the ways to read and to write at their places.

    `unique` says whether no element is updated twice.
    """
    x, u, *indices = node.inputs
    y, kind = node.outputs[0], node.params["kind"]
    ct_x = ct_u = None
    if kind == "add":
        ct_x, ct_u = ct, read(ct) if needs[1] else None
    elif kind == "set":
        ct_x = write(ct, zeros_of(u), "set") if needs[0] else None
        ct_u = read(ct) if needs[1] else None
        if needs[1] and not unique:
            # Of several updates of one element only the one that stayed has a cotangent: each leaves its number.
            count = math.prod(u.aval.shape)
            numbers = add(reshape(iota(dtype=np.int32, shape=(count,), axis=0), shape=u.aval.shape), 1)
            won = equal(read(write(splat(x.aval.shape, 0, numbers.aval.dtype), numbers, "set")), numbers)
            ct_u = where(won, ct_u, 0.0)
    elif kind == "multiply":
        ct_x = write(ct, u, "multiply") if needs[0] else None
        if needs[1]:
            ct_u = read(mul(ct, x))
            ct_u = ct_u if unique else mul(ct_u, _product_of_others(x, u, read, write))
    else:
        # Ties share the cotangent equally.
        kept, hit = equal(x, y), equal(u, read(y))
        one, none = splat((), 1, ct.dtype), splat((), 0, ct.dtype)
        share = div(ct, write(where(kept, one, none), where(hit, one, none), "add"))
        ct_x = where(kept, share, 0.0)
        ct_u = where(hit, read(share), 0.0)
    return [ct_x, ct_u] + [None] * len(indices)


def _product_of_others(x: Any, u: Any, read: Callable[..., Any], write: Callable[..., Any]) -> Any:
    """For each update, the product of the others of the same element.

    Exact with zeros among them, and differentiated again too.
    """
    zero = equal(u, 0)
    safe = where(zero, 1.0, u)
    ones = splat(x.aval.shape, 1, x.aval.dtype)
    zeros = read(write(zeros_of(x), astype(zero, dtype=x.aval.dtype), "add"))
    nonzero = read(write(ones, safe, "multiply"))
    # Of two that are 0, each has the other as a factor: their sum less itself.
    other = sub(read(write(zeros_of(x), where(zero, u, 0.0), "add")), u)
    alone = where(equal(zeros, 1), nonzero, where(equal(zeros, 2), mul(other, nonzero), 0.0))
    return where(zero, alone, div(read(write(ones, u, "multiply")), safe))


scatter = Op("scatter", _scatter, _scatter_vjp, shape=_scatter_shape)
"""A copy of an array with updates at arrays of indices: `scatter(x, updates, *indices, kind=..., spec=...)`."""

# -- windows at arrays of indices, as XLA has them: for what no index expression says


class Windows(NamedTuple):
    """What coordinates mean to XLA: the static part of a gather of windows, and of the scatter that undoes it.

    Attributes:
      numbers: which axes are which.
      sizes: the shape of a window.
      mode, fill, unique, sorted: as in `Spec`, without "wrap"; a window that sticks out counts as out of bounds.
    """

    numbers: lax.GatherDimensionNumbers
    sizes: tuple[int, ...]
    mode: str = "fill"
    fill: int | float | None = None
    unique: bool = False
    sorted: bool = False

    def options(self, mode: str) -> dict[str, Any]:
        return {"unique_indices": self.unique, "indices_are_sorted": self.sorted, "mode": mode}


def _gather_windows(x: Any, indices: Any, *, windows: Windows) -> Any:
    numbers, sizes, mode, fill, *_ = windows
    return lax.gather(x, indices, numbers, sizes, fill_value=fill, **windows.options(mode))


def _gather_windows_vjp(node: Node, cts: Sequence[Any], needs: Sequence[bool]) -> list[Any]:
    x, indices = node.inputs
    return [scatter_windows(zeros_of(x), cts[0], indices, kind="add", windows=node.params["windows"]), None]


gather_windows = Op("gather_windows", _gather_windows, _gather_windows_vjp)
"""Windows of an array at coordinates: `gather_windows(x, indices, windows=...)`."""


def _scatter_windows(x: Any, updates: Any, indices: Any, *, kind: str, windows: Windows) -> Any:
    offset, collapsed, index_map, batch, indices_batch = windows.numbers
    numbers = lax.ScatterDimensionNumbers(offset, collapsed, index_map, batch, indices_batch)
    mode = "drop" if windows.mode == "fill" else windows.mode
    return _COMBINE[kind][1](x, indices, updates, numbers, **windows.options(mode))


def _scatter_windows_vjp(node: Node, cts: Sequence[Any], needs: Sequence[bool]) -> list[Any]:
    indices, windows = node.inputs[2], node.params["windows"]
    back = windows._replace(fill=0)

    def read(a: Any) -> Any:
        return gather_windows(a, indices, windows=back)

    def write(a: Any, b: Any, kind: str) -> Any:
        return scatter_windows(a, b, indices, kind=kind, windows=windows)

    return _updated(node, cts[0], needs, read, write, windows.unique)


scatter_windows = Op("scatter_windows", _scatter_windows, _scatter_windows_vjp)
"""A copy of an array with windows updated: `scatter_windows(x, updates, indices, kind=..., windows=...)`."""


# -- what the modes and the fillings are called


_MODES = {
    "clip": "clip",
    "fill": "fill",
    "drop": "fill",
    "fill_or_drop": "fill",
    "promise_in_bounds": "promise_in_bounds",
}


def mode_of(mode: Any) -> str | None:
    """The name of a mode, given as a string or as `jax.lax.GatherScatterMode`; None for the default."""
    if mode is None:
        return None
    name = mode.name.lower() if isinstance(mode, lax.GatherScatterMode) else mode
    if name not in _MODES:
        raise ValueError(f"unknown mode {mode!r} {here()}: the modes are {', '.join(_MODES)}")
    return _MODES[name]


def fill_of(value: Any) -> int | float | None:
    """A fill value as a static parameter: None for NaN, which does not equal itself."""
    if value is None or value != value:
        return None
    return operator.index(value) if isinstance(value, (int, np.integer)) else float(value)


__all__ = ["Spec", "Windows", "gather", "gather_windows", "scatter", "scatter_windows"]
