"""Padding."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np

from .. import ops
from ..errors import called, here
from . import reductions
from .arguments import (
    integer,
    type_of,
)
from .creation import array_like
from .manipulation import broadcast_to, part_along


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
    array = array_like(array)
    for i, (lo, hi) in enumerate(widths):
        if lo or hi:
            if not s[i]:
                raise ValueError(
                    f"{called()}: axis {i} of shape {s} is empty, mode={mode!r} has nothing to repeat {here()}"
                )
            if mode == "linear_ramp":
                array = _ramp(array, i, (lo, hi), _pairs(kwargs.get("end_values", 0), len(s), "end_values")[i])
            elif mode in _STATISTICS:
                lengths = _pairs(kwargs.get("stat_length") or s[i], len(s), "stat_length")[i]
                array = _statistic(array, i, (lo, hi), lengths, mode)
            else:
                array = _pad_axis(array, i, lo, hi, mode)
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


def _statistic(x: Any, axis: int, widths: tuple[int, int], lengths: Any, mode: str) -> Any:
    n, parts = x.shape[axis], []
    for k, (width, length) in enumerate(zip(widths, lengths, strict=True)):
        length = builtins.min(integer(length, "stat_length"), n)
        if length < 1:
            raise ValueError(f"{called()}: stat_length={length} {here()}. Give 1 or more.")
        part = part_along(x, x.shape, axis, n - length if k else 0, n if k else length)
        value = getattr(reductions, {"maximum": "max", "minimum": "min"}.get(mode, mode))(part, axis, keepdims=True)
        if value.dtype != x.dtype:
            value = ops.astype(ops.rint(value) if x.dtype.kind in "iu" else value, dtype=x.dtype)
        parts.append(broadcast_to(value, tuple(width if i == axis else m for i, m in enumerate(x.shape))))
    return ops.concatenate(parts[0], x, parts[1], axis=axis)


def _pad_axis(x: Any, axis: int, lo: int, hi: int, mode: str) -> Any:
    s = x.shape
    n = s[axis]
    if mode == "edge" or (mode == "reflect" and n == 1):
        ends = []
        for at, width in ((0, lo), (n - 1, hi)):
            wide = tuple(width if i == axis else m for i, m in enumerate(s))
            ends.append(ops.broadcast_in_dim(part_along(x, s, axis, at, at + 1), shape=wide, dims=tuple(range(len(s)))))
        return ops.concatenate(ends[0], x, ends[1], axis=axis)
    # Copies side by side, every second one mirrored, then a slice of them. The copies of "reflect" share an end.
    mirrored = x if mode == "wrap" else ops.rev(x, axes=(axis,))
    shared = 1 if mode == "reflect" else 0
    n -= shared

    def copy(k: int) -> Any:
        one = mirrored if k % 2 else x
        return one if k == 0 or not shared else part_along(one, s, axis, int(k > 0), n + int(k > 0))

    before, after = -(-lo // n), -(-hi // n)
    joined = ops.concatenate(*[copy(k) for k in range(-before, after + 1)], axis=axis)
    start = before * n - lo
    return part_along(joined, joined.shape, axis, start, start + lo + s[axis] + hi)


__all__ = ["pad"]
