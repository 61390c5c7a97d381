"""Padding."""

from __future__ import annotations

import builtins
from typing import Any

import jax.numpy as jnp
import numpy as np

from .. import ops
from ..borrow import borrow
from ..errors import called, here
from .arguments import integer, type_of
from .creation import array_like
from .manipulation import part_along


def _pairs(value: Any, n: int, what: str) -> list[tuple[Any, Any]]:
    """A number, a pair, or a pair an axis, as a pair an axis."""
    if not isinstance(value, (tuple, list, np.ndarray)):
        return [(value, value)] * n
    rows = [tuple(v) if isinstance(v, (tuple, list, np.ndarray)) else v for v in value]
    if len(rows) == 1:
        rows = [rows[0] if isinstance(rows[0], tuple) else (rows[0], rows[0])] * n
    elif len(rows) == 2 and not isinstance(rows[0], tuple):
        rows = [(rows[0], rows[1])] * n
    rows = [row * 2 if isinstance(row, tuple) and len(row) == 1 else row for row in rows]
    if len(rows) != n or any(not isinstance(row, tuple) or len(row) != 2 for row in rows):
        raise ValueError(f"{called()}: {what}={value} for {n} axes {here()}. Give a number, a pair, or a pair an axis.")
    return rows


_STATISTICS = ("maximum", "minimum", "mean", "median")
_MODES = ("constant", "empty", "edge", "reflect", "symmetric", "wrap", "linear_ramp", *_STATISTICS)
_ARGUMENTS = {
    "constant": {"constant_values"}, "reflect": {"reflect_type"}, "symmetric": {"reflect_type"},
    "linear_ramp": {"end_values"}, **{mode: {"stat_length"} for mode in _STATISTICS},
}  # fmt: skip


def pad(array: Any, pad_width: Any, mode: str = "constant", **kwargs: Any) -> Any:
    """The array with elements added before and after, along each axis.

    Args:
      pad_width: how many: a number, a pair `(before, after)`, or a pair an axis.
      mode: "constant" (`constant_values`, 0 by default), "empty" (zeros), "edge" (the last value), "reflect" (mirrored
        at the last value), "symmetric" (mirrored after it), "wrap" (from the other end), "linear_ramp" (in even steps
        from the last value to `end_values`, 0 by default), or "maximum", "minimum", "mean" or "median" (of the
        `stat_length` values at that end, by default of all).

    Raises:
      ValueError: if a width is negative, there is nothing to repeat, or the mode is another, such as a function.

    Example:
      >>> import tracegrad.numpy as np
      >>> np.pad(np.array([1, 2, 3]), (1, 2), "reflect").tolist()
      [2, 1, 2, 3, 2, 1]
    """
    s = type_of(array).shape
    if not isinstance(mode, str) or mode not in _MODES:
        raise ValueError(f"{called()}: mode={mode!r} {here()}. Use one of {', '.join(_MODES)}.")
    unknown = set(kwargs) - _ARGUMENTS.get(mode, set())
    if unknown or kwargs.get("reflect_type", "even") != "even":
        raise TypeError(
            f"{called()}: {', '.join(f'{k}={v!r}' for k, v in kwargs.items())} is not supported with mode={mode!r} "
            f"{here()}"
        )
    widths = [
        (integer(lo, "each width"), integer(hi, "each width")) for lo, hi in _pairs(pad_width, len(s), "pad_width")
    ]
    if any(w < 0 for pair in widths for w in pair):
        raise ValueError(f"{called()}: a width of {pad_width} is negative {here()}. Take a slice instead.")
    if mode in ("constant", "empty"):
        values = _pairs(kwargs.get("constant_values", 0), len(s), "constant_values")
        first = values[0][0] if values else 0
        if all(v is first or (type(v) is type(first) is int and v == first) for pair in values for v in pair):
            return ops.pad(array, first, config=tuple((lo, hi, 0) for lo, hi in widths))
        for i, (pair, ends) in enumerate(zip(widths, values, strict=True)):
            for config, value in (((pair[0], 0, 0), ends[0]), ((0, pair[1], 0), ends[1])):
                array = ops.pad(array, value, config=tuple(config if j == i else (0, 0, 0) for j in range(len(s))))
        return array
    empty = [i for i, pair in enumerate(widths) if any(pair) and not s[i]]
    if empty:
        raise ValueError(
            f"{called()}: axis {empty[0]} of shape {s} is empty, mode={mode!r} has nothing to repeat {here()}"
        )
    if mode != "linear_ramp":
        stat_length = kwargs.get("stat_length")
        for pair in [] if stat_length is None else _pairs(stat_length, len(s), "stat_length"):
            if any(integer(n, "stat_length") < 1 for n in pair):
                raise ValueError(f"{called()}: stat_length={stat_length} {here()}. Give 1 or more.")
        return _repeated(array, widths, mode, stat_length)
    array = array_like(array)
    for i, (pair, ends) in enumerate(
        zip(widths, _pairs(kwargs.get("end_values", 0), len(s), "end_values"), strict=True)
    ):
        array = _ramp(array, i, pair, ends)
    return array


def _ramp(x: Any, axis: int, widths: tuple[int, int], ends: Any) -> Any:
    work = ops.inexact_dtype(x.dtype)
    ramps = []
    for k, (width, end) in enumerate(zip(widths, ends, strict=True)):
        at = k * (x.shape[axis] - 1)
        edge = ops.astype(part_along(x, x.shape, axis, at, at + 1), dtype=work)
        # From the end value at the far side to one step before the edge.
        share = np.arange(width) / builtins.max(width, 1)
        share = (share[::-1] if k else share).reshape([width if i == axis else 1 for i in range(x.ndim)]).astype(work)
        ramp = ops.add(ops.mul(edge, share), ops.mul(ops.astype(end, dtype=work), 1 - share))
        ramps.append(ramp if work == x.dtype else ops.astype(ops.floor(ramp), dtype=x.dtype))
    return ops.concatenate(ramps[0], x, ramps[1], axis=axis)


def _repeat_ends(array: Any, pad_width: Any, mode: str, stat_length: Any) -> Any:
    return jnp.pad(array, pad_width, mode, **({} if stat_length is None else {"stat_length": stat_length}))


_repeated = borrow(_repeat_ends, "", "pad_width", "stat_length")


__all__ = ["pad"]
