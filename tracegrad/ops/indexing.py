"""Indexing as NumPy does it: slices where the index is static, a gather where it is an array."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..errors import LeakedTracerError, TracerError, called, describe, here
from ..recording import state
from ..tape import aval_of
from ..tracer import Tracer, literal, operand
from .elementwise import add, astype, where
from .gather import Spec, fill_of, gather, mode_of
from .shape import (
    broadcast_to,
    concatenate,
    dynamic_slice_op,
    dynamic_update_slice_op,
    pad,
    reshape,
    rev,
    slice_,
    splat,
)

# -- from an index expression to a static window, then arrays of indices


class Plan(NamedTuple):
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


def plan_of(shape: tuple[int, ...], index: Any, check: bool = True) -> Plan:
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
        return Plan(tuple(window), tuple(kept), [], None, tuple(kept), tuple(sliced), tuple(entries))
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
    return Plan(tuple(window), tuple(kept), arrays, spec, gathered, result, tuple(entries))


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


def read_window(x: Any, window: tuple[tuple[int, int, int], ...]) -> Any:
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


def write_window(x: Any, new: Any, window: tuple[tuple[int, int, int], ...], adds: bool = False) -> Any:
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


def reshaped(x: Any, shape: tuple[int, ...]) -> Any:
    return x if x.shape == shape else reshape(x, shape=shape)


def read(x: Any, plan: Plan, spec: Spec | None) -> Any:
    x = read_window(x, plan.window)
    if spec is not None:
        x = gather(reshaped(x, plan.kept), *plan.indices, spec=spec)
    return reshaped(x, plan.shape)


def to_array(x: Any) -> Any:
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
        return x[plan_of(x.shape, index).expression]
    x = to_array(x)
    if type(index) is int and x.ndim and state.tape is not None:
        return _row(x, index, state.tape.lazy)
    wider = _with_new_axes(x.shape, index)
    if wider is not None:
        return reshaped(x, wider)
    plan = plan_of(x.shape, index)
    return read(x, plan, plan.spec)


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
    x = to_array(x)
    if axis is None:
        x, axis = reshaped(x, (math.prod(x.shape),)), 0
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
    x = to_array(x)
    if axis is None:
        x, axis = reshaped(x, (math.prod(x.shape),)), 0
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
    return reshaped(gather(x, reshaped(indices, tuple(common)), spec=spec), tuple(wide))


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
    x = to_array(x)
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


__all__ = ["getitem", "pick", "take", "take_along_axis"]
