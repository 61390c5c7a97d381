"""Indexing as NumPy does it: slices where the index is static, a gather or a scatter where it is an array."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..errors import LeakedTracerError, TracerError, called, describe, here
from ..op import Op
from ..recording import state
from ..tape import Aval, Node, aval_of, make_aval
from ..tracer import Tracer, literal, operand
from .elementwise import add, astype, div, equal, maximum, minimum, mul, neg, pow_, sub, where
from .shape import (
    broadcast_to,
    concatenate,
    dynamic_slice_op,
    dynamic_update_slice_op,
    iota,
    pad,
    reshape,
    rev,
    slice_,
    splat,
    zeros_of,
)

# -- the two ops: read the elements at arrays of indices, and write them


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

# -- from an index expression to a static window, then arrays of indices


class _Plan(NamedTuple):
    """An index expression for arrays of one shape.

    Attributes:
      window: for each axis, (first, step, size) of what is read of it.
      kept: the shape of the window without the axes that an integer took.
      indices: arrays of indices into that; none if the index is basic.
      spec: what they mean.
      gathered: the shape of the result without the axes that `None` adds.
      shape: the shape of the result.
      expression: the index, with lists made arrays.
    """

    window: tuple[tuple[int, int, int], ...]
    kept: tuple[int, ...]
    indices: list[Any]
    spec: Spec | None
    gathered: tuple[int, ...]
    shape: tuple[int, ...]
    expression: tuple[Any, ...]


_REMEDY = "Indices are integers, slices, `...`, None, and arrays of integers or booleans"


def _entry(value: Any) -> Any:
    """One part of an index expression: None, `...`, a slice, an int, a bool, or an array of integers or booleans."""
    if value is None or value is Ellipsis or isinstance(value, (slice, int)):
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, (list, tuple)):
        value = _from_list(value)
    if isinstance(value, (np.ndarray, np.generic, jax.Array, Tracer)):
        kind = value.dtype.kind if isinstance(value.dtype, np.dtype) else "V"
        if kind == "b" or kind in "iu":
            return value[()] if isinstance(value, np.ndarray) and not value.ndim else value
        raise TypeError(f"an index has type {describe(value)} {here()}. {_REMEDY}: convert it with .astype(int).")
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"an index is {describe(value)} {here()}. {_REMEDY}.") from None


def _from_list(value: Any) -> Any:
    if any(isinstance(e, Tracer) for e in value):
        if any(isinstance(e, Tracer) and e.dtype == np.bool_ for e in value):
            return np.asarray([bool(_concrete_mask(e)) for e in value])
        return concatenate(*[reshape(astype(e, dtype=np.int32), shape=(1,)) for e in value], axis=0)
    try:
        array = np.asarray(value)
    except ValueError:
        raise IndexError(f"an index is {value}, whose rows differ in length {here()}") from None
    return array if array.size else array.astype(np.int32)


def _concrete_mask(mask: Any) -> Any:
    """The value of a boolean index: the shape of the result depends on it."""
    return concrete(mask, lambda: (
        f"an array was indexed with a boolean one ({describe(mask)}) {here()}, so that the shape of the result "
        "depends on data, which under @jit and vmap has no value yet. Use tracegrad.numpy.where(mask, x, 0) or "
        "x.at[mask].set(number), whose shapes do not, or take @jit away."
    ))  # fmt: skip


def concrete(value: Any, message: Callable[[], str]) -> Any:
    """The value itself, computed now if it is define-by-run; if it has none yet, an error with this message."""
    try:
        return np.asarray(value._concrete("its value") if isinstance(value, Tracer) else value)
    except LeakedTracerError:
        raise
    except (TracerError, jax.errors.TracerArrayConversionError):
        raise TracerError(message()) from None


def _bounds(s: slice, size: int) -> tuple[int, int, int]:
    """The first index, the step and the number of what a slice takes."""
    try:
        start, stop, step = s.indices(size)
    except LeakedTracerError:
        raise
    except TracerError:
        raise TracerError(
            f"a slice has a traced bound {here()}, so that the shape of the result depends on data, which under @jit "
            "and vmap has no value yet. For a slice of known length use dynamic_slice(x, starts, sizes), or index with "
            "start + arange(length); or take @jit away."
        ) from None
    except TypeError:
        bounds = ", ".join(map(describe, (s.start, s.stop, s.step)))
        raise TypeError(f"the bounds of a slice are {bounds} {here()}: they must be integers") from None
    except ValueError:
        raise ValueError(f"a slice has step 0 {here()}") from None
    return start, step, len(range(start, stop, step))


def _out_of_bounds(index: Any, axis: int, shape: tuple[int, ...]) -> IndexError:
    return IndexError(
        f"index {index} is out of bounds for axis {axis} of size {shape[axis]}, in an array of shape {shape}, "
        f"{here()}. Indices go from {-shape[axis]} to {shape[axis] - 1}."
    )


def checked(index: np.ndarray[Any, Any], axis: int, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Indices of known value, counted from the start.

    Raises:
      IndexError: if one is out of bounds.
    """
    n = shape[axis]
    if not index.size:
        return index
    low, high = int(index.min()), int(index.max())
    if low < -n or high >= n:
        raise _out_of_bounds(low if low < -n else high, axis, shape)
    return np.where(index < 0, index.astype(np.int64) + n, index) if low < 0 else index


def _plan(shape: tuple[int, ...], index: Any, check: bool = True) -> _Plan:
    """Reads an index expression. Without `check`, indices out of bounds are left to the mode of the op."""
    entries = [_entry(e) for e in index] if type(index) is tuple else [_entry(index)]
    count = sum(map(_axes_of, entries))
    if sum(e is Ellipsis for e in entries) > 1:
        raise IndexError(f"an index has more than one `...` {here()}: leave one")
    if count > len(shape):
        raise IndexError(f"{count} indices for an array of shape {shape}, which has {len(shape)} axes, {here()}")
    if not any(e is Ellipsis for e in entries):
        entries.append(Ellipsis)
    advanced = [e for e in entries if _is_advanced(e)]
    # The true elements of one mask are found in order, each once.
    ordered = len(advanced) == 1 and _is_mask(advanced[0])
    entries = _without_masks(entries, shape, len(shape) - count) if any(map(_is_mask, advanced)) else entries
    # A NumPy integer comes from data: where Python numbers are lifted to inputs, so is it.
    lifts = state.tape is not None and state.tape.lazy

    window: list[tuple[int, int, int]] = []
    kept: list[int] = []
    sliced: list[int] = []  # the axes of the result that slices and None give
    axes: list[int] = []
    arrays: list[Any] = []
    place = at = last = -1  # where the arrays of indices stand among `sliced`, and among what slices give
    apart, known = False, True
    for position, e in enumerate(entries):
        axis = len(window)
        if e is None:
            sliced.append(1)
        elif e is Ellipsis or isinstance(e, slice):
            unnamed = shape[axis : axis + len(shape) - count]
            new = [(0, 1, n) for n in unnamed] if e is Ellipsis else [_bounds(e, shape[axis])]
            window += new
            kept += [n for _, _, n in new]
            sliced += [n for _, _, n in new]
        else:
            # Integers among arrays of indices count as such, for where the result has their axes.
            if place < 0:
                place, at = len(sliced), len(kept) - len(axes)
            elif last != position - 1:
                apart = True
            last = position
            if isinstance(e, bool):
                axes.append(len(kept))
                arrays.append(np.zeros(int(e), np.int32))
                kept.append(1)
                continue
            n = shape[axis]
            if isinstance(e, (int, np.integer)) and -n <= e < n:
                if not (lifts and isinstance(e, np.integer)):
                    window.append((int(e) % n, 1, 1))
                    continue
                e = np.int64(int(e) % n) if n > 2**31 else np.int32(int(e) % n)
            elif isinstance(e, (int, np.integer, np.ndarray)) and check:
                e = checked(np.asarray(e), axis, shape)
            elif isinstance(e, int):
                e, known = np.asarray(e), False
            else:
                known = False
            window.append((0, 1, n))
            axes.append(len(kept))
            arrays.append(e)
            kept.append(n)
    if not arrays:
        return _Plan(tuple(window), tuple(kept), [], None, tuple(kept), tuple(sliced), tuple(entries))
    if apart and advanced:
        place = at = 0
    mode = "promise_in_bounds" if known else "clip"
    spec = Spec(tuple(axes), at, mode=mode, unique=ordered or not advanced, sorted=ordered)
    try:
        gathered = spec.result(kept, arrays)
    except ValueError:
        shapes = ", ".join(str(a.shape) for a in arrays)
        raise IndexError(f"indices of shapes {shapes} do not broadcast together {here()}") from None
    wide = gathered[at : at + len(gathered) - len(kept) + len(axes)]
    result = (*sliced[:place], *wide, *sliced[place:])
    return _Plan(tuple(window), tuple(kept), arrays, spec, gathered, result, tuple(entries))


def _without_masks(entries: list[Any], shape: tuple[int, ...], unnamed: int) -> list[Any]:
    """The entries with the indices of its true elements for each boolean array; `...` is for `unnamed` axes."""
    result: list[Any] = []
    axis = 0
    for e in entries:
        if _is_mask(e):
            mask = _concrete_mask(e)
            for i, (m, n) in enumerate(zip(mask.shape, shape[axis:], strict=False)):
                if m != n:
                    raise IndexError(
                        f"a boolean index of shape {mask.shape} does not fit an array of shape {shape}: axis "
                        f"{axis + i} has size {n}, the index {m} {here()}"
                    )
            result += np.nonzero(mask) if mask.ndim else [bool(mask)]
        else:
            result.append(e)
        axis += unnamed if e is Ellipsis else _axes_of(e)
    return result


def _axes_of(entry: Any) -> int:
    """How many axes of the array a part of an index takes."""
    if entry is None or entry is Ellipsis or isinstance(entry, bool):
        return 0
    return entry.ndim if _is_mask(entry) else 1


def _is_mask(entry: Any) -> bool:
    return hasattr(entry, "dtype") and entry.dtype == np.bool_


def _is_advanced(entry: Any) -> bool:
    return isinstance(entry, bool) or (hasattr(entry, "dtype") and (entry.ndim > 0 or _is_mask(entry)))


def _read_window(x: Any, window: tuple[tuple[int, int, int], ...]) -> Any:
    part, backwards = _slices(x.shape, window)
    if part is not None:
        x = slice_(x, start=part[0], limit=part[1], strides=part[2])
    return rev(x, axes=backwards) if backwards else x


@functools.lru_cache(4096)
def _slices(shape: tuple[int, ...], window: tuple[tuple[int, int, int], ...]) -> tuple[Any, tuple[int, ...]]:
    """The arguments of `slice_` that read a window, None for all of the array, and the axes to reverse then."""
    spans = [_span(*w) for w in window]
    strides = tuple(abs(step) for _, step, _ in window)
    whole = all(span == (0, n) for span, n in zip(spans, shape, strict=True)) and set(strides) <= {1}
    return None if whole else (*zip(*spans, strict=True), strides), _backwards(window)


def _span(first: int, step: int, size: int) -> tuple[int, int]:
    """The range of indices, from the smallest to behind the largest, that a slice reads."""
    if not size:
        return 0, 0
    end = first + (size - 1) * step
    return min(first, end), max(first, end) + 1


def _backwards(window: tuple[tuple[int, int, int], ...]) -> tuple[int, ...]:
    return tuple(i for i, (_, step, n) in enumerate(window) if step < 0 and n > 1)


def _write_window(x: Any, new: Any, window: tuple[tuple[int, int, int], ...], adds: bool = False) -> Any:
    """`x` with `new` in the place of a window, or added to it."""
    backwards = _backwards(window)
    if backwards:
        new = rev(new, axes=backwards)
    if 0 in new.shape:
        return x
    if new.shape == x.shape:
        return add(x, new) if adds else new
    spans = [_span(*w) for w in window]
    if all(abs(step) == 1 or n == 1 for _, step, n in window):
        return dynamic_update_slice_op(x, new, *[literal(lo) for lo, _ in spans], adds=adds)
    config = tuple(
        (lo, size - hi, abs(step) - 1 if n > 1 else 0)
        for (lo, hi), size, (_, step, n) in zip(spans, x.shape, window, strict=True)
    )
    padded = pad(new, literal(0), config=config)
    if adds:
        return add(x, padded)
    inside = pad(splat(new.shape, True, np.dtype(np.bool_)), literal(False), config=config)
    return where(inside, padded, x)


def _reshaped(x: Any, shape: tuple[int, ...]) -> Any:
    return x if x.shape == shape else reshape(x, shape=shape)


def _read(x: Any, plan: _Plan, spec: Spec | None) -> Any:
    x = _read_window(x, plan.window)
    if spec is not None:
        x = gather(_reshaped(x, plan.kept), *plan.indices, spec=spec)
    return _reshaped(x, plan.shape)


def _array(x: Any) -> Any:
    """`x`, a sequence of numbers too, as a value of the tape that is recording."""
    if type(x) is Tracer and state.tape is not None:
        return x
    x = Tracer.of_list(x) if isinstance(x, (list, tuple)) else x
    if state.tape is None:
        return x if hasattr(x, "shape") else np.asarray(x)
    return operand(state.tape, x)


def getitem(x: Any, index: Any) -> Any:
    """`x[index]`, by NumPy's rules.

    Integers, slices, `...` and None become slices; arrays of integers a gather; a boolean array stands for the
    indices of its true elements, so its value must be known (it is, except under `@jit` and in bodies). An undecorated
    function does not compile anew for another integer `i` in `x[i]`, or another array of integers. An index whose
    value is not known is clamped to the bounds, as in `jax.numpy`.

    Raises:
      IndexError: if an index of known value is out of bounds, or there are more indices than axes.
      TypeError: if an index is no integer, or if it is a boolean array without value.

    Example:
      >>> import numpy as np, tracegrad as tg
      >>> tg.grad(lambda x: x[1:, 0].sum())(np.ones((3, 2))).tolist()
      [[0.0, 0.0], [1.0, 0.0], [1.0, 0.0]]
    """
    if state.tape is None and not isinstance(x, Tracer):
        x = jnp.asarray(x)
        if any(isinstance(e, jax.core.Tracer) for e in (index if type(index) is tuple else (index,))):
            return x[index]
        return x[_plan(x.shape, index).expression]
    x = _array(x)
    if type(index) is int and x.ndim and state.tape is not None:
        return _row(x, index, state.tape.lazy)
    wider = _with_new_axes(x.shape, index)
    if wider is not None:
        return _reshaped(x, wider)
    plan = _plan(x.shape, index)
    return _read(x, plan, plan.spec)


def _with_new_axes(shape: tuple[int, ...], index: Any) -> tuple[int, ...] | None:
    """The shape of `x[index]` where the index is made of `None` and `:` alone, the commonest kind."""
    wider: list[int] = []
    axis = 0
    for e in index if type(index) is tuple else (index,):
        if e is None:
            wider.append(1)
        elif type(e) is slice and e.start is e.stop is e.step is None and axis < len(shape):
            wider.append(shape[axis])
            axis += 1
        else:
            return None
    return (*wider, *shape[axis:])


def _row(x: Any, index: int, lift: bool) -> Any:
    """`x[index]`; with `lift`, by an index that is an input of the program, so that another one recompiles nothing."""
    size, *rest = shape = x.shape
    if not -size <= index < size:
        raise _out_of_bounds(index, 0, shape)
    index %= size
    if lift:
        row = dynamic_slice_op(x, index, *[literal(0)] * len(rest), sizes=(1, *rest))
    else:
        row = slice_(x, start=(index,) + (0,) * len(rest), limit=(index + 1, *rest), strides=(1,) * len(shape))
    return reshape(row, shape=tuple(rest))


# -- updated copies


class At:
    """`x.at[index].set(value)` and friends: copies of `x` with elements replaced, as in `jax.numpy`.

    The index is anything that `x[index]` takes. An index of unknown value that is out of bounds is dropped by the
    updates, and clamped by `get`; `mode` ("drop" or "fill", "clip", "promise_in_bounds") says otherwise, also
    for known ones, which raise `IndexError` without it.

    Example:
      >>> import numpy as np, tracegrad as tg
      >>> tg.jit(lambda x: x.at[1].set(7.0))(np.zeros(3)).tolist()
      [0.0, 7.0, 0.0]
      >>> tg.grad(lambda x: x.at[1].multiply(7.0).sum())(np.ones(3)).tolist()
      [1.0, 7.0, 1.0]
    """

    __slots__ = ("x",)

    def __init__(self, x: Any) -> None:
        self.x = x

    def __getitem__(self, index: Any) -> _Place:
        return _Place(self.x, index)

    def __repr__(self) -> str:
        return f"At({describe(self.x)})"


def at(x: Any) -> Any:
    """`x.at`, also for NumPy arrays and numbers; what JAX has for its arrays, unless a tape is recording."""
    return At(x) if state.tape is not None or isinstance(x, Tracer) else jnp.asarray(x).at


class _Place:
    """A place in an array, whose methods return a copy of the array that differs there.

    Every method takes `mode`, `indices_are_sorted` and `unique_indices` as `jax.numpy.ndarray.at` does. Of several
    updates of one element by `set`, one stays, and only that one has a derivative.
    """

    __slots__ = ("index", "x")

    def __init__(self, x: Any, index: Any) -> None:
        self.x = _array(x)
        self.index = index

    def set(self, values: Any, **options: Any) -> Any:
        """`x[index] = values`."""
        return self._update("set", values, options)

    def add(self, values: Any, **options: Any) -> Any:
        """`x[index] += values`; indices that occur twice add twice."""
        return self._update("max" if self.x.dtype == np.bool_ else "add", values, options)

    def subtract(self, values: Any, **options: Any) -> Any:
        """`x[index] -= values`."""
        return self._update("add", neg(self._cast(values)), options)

    def multiply(self, values: Any, **options: Any) -> Any:
        """`x[index] *= values`."""
        return self._update("min" if self.x.dtype == np.bool_ else "multiply", values, options)

    mul = multiply

    def divide(self, values: Any, **options: Any) -> Any:
        """`x[index] /= values`."""
        return div(self.x, self._ones().multiply(values, **options))

    def power(self, values: Any, **options: Any) -> Any:
        """`x[index] **= values`."""
        return pow_(self.x, self._ones().multiply(values, **options))

    def min(self, values: Any, **options: Any) -> Any:
        """`x[index] = minimum(x[index], values)`; at a tie the two share the derivative equally."""
        return self._update("min", values, options)

    def max(self, values: Any, **options: Any) -> Any:
        """`x[index] = maximum(x[index], values)`; at a tie the two share the derivative equally."""
        return self._update("max", values, options)

    def apply(self, func: Callable[[Any], Any], **options: Any) -> Any:
        """`x[index] = func(x[index])`, once for each element even if its index occurs twice."""
        return self.set(func(self.get(**options)), **options)

    def get(self, *, fill_value: Any = None, **options: Any) -> Any:
        """`x[index]`; with `mode="fill"`, `fill_value` (NaN by default) where the index is out of bounds."""
        plan, spec = self._plan(_options(options), "clip")
        if spec is not None and spec.mode == "fill":
            spec = spec._replace(fill=fill_of(fill_value))
        return _read(self.x, plan, spec)

    def _ones(self) -> _Place:
        return _Place(splat(self.x.shape, 1, aval_of(self.x).dtype), self.index)

    def _plan(self, options: tuple[str | None, bool, bool], default: str) -> tuple[_Plan, Spec | None]:
        mode, is_sorted, unique = options
        plan = _plan(self.x.shape, self.index, check=mode is None)
        spec = plan.spec
        if spec is None:
            return plan, None
        return plan, spec._replace(
            mode=mode or (spec.mode if spec.mode != "clip" else default),
            sorted=spec.sorted or is_sorted,
            unique=spec.unique or unique,
        )

    def _update(self, kind: str, values: Any, given: dict[str, Any]) -> Any:
        x, options = self.x, _options(given)
        values = self._cast(values)
        mask = self.index[0] if type(self.index) is tuple and len(self.index) == 1 else self.index
        if isinstance(mask, (np.ndarray, jax.Array, Tracer)) and mask.dtype == np.bool_:
            rest = x.ndim - mask.ndim
            if mask.shape == x.shape[: mask.ndim] and values.ndim <= rest:
                # The same values everywhere: no indices, so nothing depends on how many there are.
                values = broadcast_to(values, x.shape[mask.ndim :])
                chosen = reshape(mask, shape=(*mask.shape, *(1,) * rest)) if rest else mask
                return where(chosen, _BINARY[kind](x, values), x)
        plan, spec = self._plan(options, "fill")
        try:
            np.broadcast_shapes(values.shape, plan.shape)
            values = broadcast_to(values, plan.shape) if values.shape != plan.shape else values
        except ValueError:
            raise ValueError(
                f"values of shape {values.shape} do not broadcast to {plan.shape}, the shape of what is indexed in an "
                f"array of shape {x.shape}, {here()}"
            ) from None
        values = _reshaped(values, plan.gathered)
        if 0 in plan.shape:
            return x
        shape = tuple(n for _, _, n in plan.window)
        if spec is None and kind in ("set", "add"):
            return _write_window(x, _reshaped(values, shape), plan.window, kind == "add")
        old = _reshaped(_read_window(x, plan.window), plan.kept)
        new = _BINARY[kind](old, values) if spec is None else scatter(old, values, *plan.indices, kind=kind, spec=spec)
        return _write_window(x, _reshaped(new, shape), plan.window)

    def _cast(self, values: Any) -> Any:
        """The values in the dtype of the array, which may not change kind on the way."""
        values = _array(values)
        to, aval = aval_of(self.x), aval_of(values)
        if aval.dtype == to.dtype:
            return values
        if _KINDS.index(_kind(aval.dtype)) > _KINDS.index(_kind(to.dtype)):
            raise TypeError(
                f"values of dtype {aval.dtype} were put into an array of dtype {to.dtype} {here()}: "
                "convert one of them with .astype"
            )
        return astype(values, dtype=to.dtype)


def _options(given: dict[str, Any]) -> tuple[str | None, bool, bool]:
    names = ("mode", "indices_are_sorted", "unique_indices")
    unknown = [name for name in given if name not in names]
    if unknown:
        raise TypeError(f"unknown option {unknown[0]!r} of x.at[...] {here()}: there are {', '.join(names)}")
    return mode_of(given.get(names[0])), bool(given.get(names[1])), bool(given.get(names[2]))


_BINARY: dict[str, Callable[..., Any]] = {
    "set": lambda x, u: u,
    "add": add,
    "multiply": mul,
    "min": minimum,
    "max": maximum,
}
_KINDS = (np.bool_, np.integer, np.floating, np.complexfloating)


def _kind(dtype: Any) -> Any:
    return next(kind for kind in _KINDS if jnp.issubdtype(dtype, kind))


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


# -- reading along an axis


def normalize_axis(axis: int, ndim: int) -> int:
    axis = operator.index(axis)
    if not -ndim <= axis < ndim:
        raise ValueError(f"{called()}: axis {axis} of an array of {ndim} axes {here()}")
    return axis % ndim


def _shape(x: Any) -> tuple[int, ...]:
    return aval_of(x).shape


def _indices(x: Any, indices: Any, axis: int, mode: Any) -> tuple[Any, str]:
    """Indices as an array, with the mode; those of known value are checked where no mode is given."""
    if isinstance(indices, (list, tuple)):
        indices = _from_list(indices)
    aval = aval_of(indices)
    if aval.dtype.kind not in "iu":
        raise TypeError(f"{called()}: the indices are {aval} {here()}: convert them with .astype(int)")
    host = isinstance(indices, (np.ndarray, np.generic, int))
    if mode is None and host:
        array = checked(np.asarray(indices), axis, x.shape)
        # A number of Python's stays one: it is lifted to an input, so that another one is no other program.
        return int(array) if isinstance(indices, int) else array, "promise_in_bounds"
    return indices, "wrap" if mode == "wrap" else mode_of(mode) or "fill"


def take(
    x: Any,
    indices: Any,
    axis: int | None = None,
    mode: str | None = None,
    unique_indices: bool = False,
    indices_are_sorted: bool = False,
    fill_value: Any = None,
) -> Any:
    """The slices of `x` at `indices` along an axis, in the shape of the indices: a lookup in a table.

    Its gradient adds into the slices that were read.

    Args:
      x: an array.
      indices: integers of any shape; negative ones count from the end.
      axis: which axis; None for the flattened array.
      mode: what an index out of bounds does. "fill", the default: `fill_value`, NaN (for integers the
        smallest), as in `jax.numpy`; "clip"; "wrap".
      unique_indices, indices_are_sorted: promises that may make it faster.

    Raises:
      IndexError: if no mode is given and an index of known value is out of bounds.

    Example:
      >>> import numpy as np, tracegrad as tg
      >>> table = np.arange(6.0).reshape(3, 2)
      >>> tg.ops.take(table, [2, 0, 2], axis=0).tolist()
      [[4.0, 5.0], [0.0, 1.0], [4.0, 5.0]]
      >>> tg.grad(lambda t: tg.ops.take(t, [2, 0, 2], axis=0).sum())(table).tolist()
      [[1.0, 1.0], [0.0, 0.0], [2.0, 2.0]]
    """
    x = _array(x)
    if axis is None:
        x, axis = _reshaped(x, (math.prod(x.shape),)), 0
    axis = normalize_axis(axis, x.ndim)
    indices, mode = _indices(x, indices, axis, mode)
    spec = Spec((axis,), axis, mode=mode, fill=fill_of(fill_value), unique=unique_indices, sorted=indices_are_sorted)
    return gather(x, indices, spec=spec)


def take_along_axis(
    x: Any, indices: Any, axis: int | None = -1, mode: str | None = None, fill_value: Any = None
) -> Any:
    """The elements of `x` at `indices` along an axis, the other axes of the two walked together.

    Args:
      x: an array.
      indices: integers, with as many axes as `x`; the axes other than `axis` broadcast with those of `x`.
      axis: which axis; None for the flattened array and a vector of indices.
      mode, fill_value: as for `take`.

    Raises:
      ValueError: if the shapes do not fit.
      IndexError: if no mode is given and an index of known value is out of bounds.
    """
    x = _array(x)
    if axis is None:
        x, axis = _reshaped(x, (math.prod(x.shape),)), 0
    axis = normalize_axis(axis, x.ndim)
    indices, mode = _indices(x, indices, axis, mode)
    shape = _shape(indices)
    if len(shape) != x.ndim:
        raise ValueError(
            f"{called()}: indices of shape {shape} for an array of shape {x.shape} {here()}: "
            "they must have as many axes. Add one with indices[..., None], or use pick."
        )
    others = [a for a in range(x.ndim) if a != axis]
    common = [x.shape[a] for a in others]
    theirs = [shape[a] for a in others]
    try:
        common = common if common == theirs else list(np.broadcast_shapes(common, theirs))
    except ValueError:
        raise ValueError(
            f"{called()}: indices of shape {shape} and an array of shape {x.shape} do not broadcast along the "
            f"axes other than {axis} {here()}"
        ) from None
    wide = list(common)
    wide.insert(axis, x.shape[axis])
    x = broadcast_to(x, tuple(wide)) if tuple(wide) != x.shape else x
    wide[axis] = shape[axis]
    indices = broadcast_to(indices, tuple(wide)) if tuple(wide) != shape else indices
    one = wide[axis] == 1
    # One element for each position along the other axes needs no axis of its own among the indices.
    batch = tuple((a, a - (one and a > axis)) for a in others)
    spec = Spec((axis,), at=0, batch=batch, mode=mode, fill=fill_of(fill_value))
    if not one:
        return gather(x, indices, spec=spec)
    return _reshaped(gather(x, _reshaped(indices, tuple(common)), spec=spec), tuple(wide))


def pick(x: Any, index: Any, axis: int = -1) -> Any:
    """The element of `x` at `index` along an axis: one for each position along the other axes.

    Its gradient is the cotangent at the element that was picked and zero elsewhere (Goldberg, *Neural Network
    Methods for NLP*, 2017, 5.1). An index of unknown value that is out of bounds gives NaN.

    Args:
      x: an array.
      index: integers, of the shape of `x` without `axis`, or one that broadcasts to it.
      axis: which axis.

    Raises:
      ValueError: if the shapes do not fit.
      IndexError: if an index of known value is out of bounds.

    Example:
      >>> import numpy as np, tracegrad as tg
      >>> scores = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
      >>> tg.ops.pick(scores, [2, 0]).tolist()
      [3.0, 4.0]
      >>> tg.grad(lambda s: tg.ops.pick(s, [2, 0]).sum())(scores).tolist()
      [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """
    x = _array(x)
    axis = normalize_axis(axis, x.ndim)
    index, mode = _indices(x, index, axis, None)
    others = [a for a in range(x.ndim) if a != axis]
    wide = tuple(x.shape[a] for a in others)
    if _shape(index) != wide:
        try:
            index = broadcast_to(index, wide)
        except ValueError:
            raise ValueError(
                f"{called()}: an index of shape {_shape(index)} does not fit an array of shape {x.shape} without axis "
                f"{axis}, {wide}, {here()}"
            ) from None
    return gather(x, index, spec=Spec((axis,), batch=tuple((a, i) for i, a in enumerate(others)), mode=mode))


__all__ = [
    "At", "Spec", "Windows", "at", "gather", "gather_windows", "getitem", "pick", "scatter", "scatter_windows", "take",
    "take_along_axis",
]  # fmt: skip
