"""Convolution on a CPU: the forms in which XLA's is fast there.

Products that are written out are faster where features are few, and wrong: XLA computes them again in whatever reads
them, and rounds them differently, so that a pooling does not find its maximum when it takes the gradient.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jax import lax

Numbers = lax.ConvDimensionNumbers

UNROLLED = 64
"""Products of a window beyond which they are not written out one by one, so that programs stay short."""

SPLIT = 16
"""Groups up to which each is convolved on its own."""


def lowering(x: Any, kernel: Any, params: dict[str, Any]) -> Callable[..., Any] | None:
    """How to convolve arrays of these types, or None if `lax.conv_general_dilated` as it stands is best.

    The limits are measured: `python -m benchmarks.convolutions`.
    """
    if x.ndim < 3 or x.dtype != kernel.dtype or x.dtype not in (np.float32, np.float64):
        return None
    lhs, rhs, _ = params["dimension_numbers"]
    outs = kernel.shape[rhs[0]]
    window = [kernel.shape[i] for i in rhs[2:]]
    batches = params["batch_group_count"]
    if batches > 1:
        counts = _counts(_padded_sizes([x.shape[i] for i in lhs[2:]], params), window, params)
        products = x.shape[lhs[0]] // batches * (outs // batches) * math.prod(counts)
        return _summed if products <= UNROLLED else _split if batches <= SPLIT else _canonical
    groups = params["feature_group_count"]
    if 1 < groups <= SPLIT:
        return _split
    return None if params["dimension_numbers"] == canonical(x.ndim) else _canonical


def canonical(ndim: int) -> Numbers:
    """Features last: the layout that XLA's convolution on a CPU is written for.

    It moves the axes of others itself, but not inside loops and branches, where others are many times slower.
    """
    space = range(1, ndim - 1)
    image = (0, ndim - 1, *space)
    return Numbers(image, (ndim - 1, ndim - 2, *range(ndim - 2)), image)


def _moved(x: Any, source: Sequence[int], target: Sequence[int]) -> Any:
    """`x`, whose axes mean what they do in the layout `source`, in the layout `target`."""
    order = [source[target.index(i)] for i in range(len(source))]
    return x if order == sorted(order) else lax.transpose(x, order)


def _canonical(x: Any, kernel: Any, *, dimension_numbers: Numbers, **params: Any) -> Any:
    lhs, rhs, out = dimension_numbers
    last = canonical(x.ndim)
    x, kernel = _moved(x, lhs, last.lhs_spec), _moved(kernel, rhs, last.rhs_spec)
    made = lax.conv_general_dilated(x, kernel, dimension_numbers=last, **params)
    return _moved(made, last.out_spec, out)


def _split(x: Any, kernel: Any, **params: Any) -> Any:
    """Group by group: XLA's convolution of groups is slower than that of each."""
    lhs, rhs, out = params["dimension_numbers"]
    groups, batches = params["feature_group_count"], params["batch_group_count"]
    params |= {"feature_group_count": 1, "batch_group_count": 1}
    count = max(groups, batches)
    xs = _parts(x, lhs[1] if groups > 1 else lhs[0], count)
    kernels = _parts(kernel, rhs[0], count)
    one = lowering(xs[0], kernels[0], params) or lax.conv_general_dilated
    return lax.concatenate([one(a, k, **params) for a, k in zip(xs, kernels, strict=True)], out[1])


def _parts(x: Any, axis: int, count: int) -> list[Any]:
    size = x.shape[axis] // count
    return [lax.slice_in_dim(x, i * size, (i + 1) * size, axis=axis) for i in range(count)]


def _padded_sizes(sizes: list[int], params: dict[str, Any]) -> list[int]:
    pads = zip(sizes, params["padding"], params["lhs_dilation"], strict=True)
    return [(n - 1) * a + 1 + lo + hi for n, (lo, hi), a in pads]


def _padded(x: Any, axes: Sequence[int], params: dict[str, Any]) -> Any:
    """The input with its padding, and with the zeros between its elements, along its spatial axes."""
    config = [(0, 0, 0)] * x.ndim
    for axis, (lo, hi), a in zip(axes, params["padding"], params["lhs_dilation"], strict=True):
        config[axis] = lo, hi, a - 1
    return lax.pad(x, np.asarray(0, x.dtype), config) if any(map(any, config)) else x


def _places(axes: Sequence[int], counts: Sequence[int], steps: Sequence[int]) -> Iterator[dict[int, int]]:
    """Where each of `counts` places a step apart lies, an axis each."""
    for at in itertools.product(*[range(0, n * s, s) for n, s in zip(counts, steps, strict=True)]):
        yield dict(zip(axes, at, strict=True))


def _from(x: Any, at: dict[int, int], counts: Sequence[int], steps: Sequence[int]) -> Any:
    """As many elements of `x` from a place on, as far apart, as these say, in the order of the axes of the place."""
    start, limit, stride = [0] * x.ndim, list(x.shape), [1] * x.ndim
    for (axis, i), n, s in zip(at.items(), counts, steps, strict=True):
        start[axis], limit[axis], stride[axis] = i, i + (n - 1) * s + 1, s
    return lax.slice(x, start, limit, stride)


def _counts(sizes: Sequence[int], window: list[int], params: dict[str, Any]) -> list[int]:
    """How many windows fit into an input that is padded to these sizes."""
    steps, dilations = params["window_strides"], params["rhs_dilation"]
    return [(n - (k - 1) * b - 1) // s + 1 for n, k, s, b in zip(sizes, window, steps, dilations, strict=True)]


def _add_each(xs: Sequence[Any], ys: Sequence[Any]) -> list[Any]:
    return [lax.add(x, y) for x, y in zip(xs, ys, strict=True)]


def _summed(x: Any, kernel: Any, **params: Any) -> Any:
    """For each place of the result, here the gradient of a small kernel of many groups, a sum of products."""
    lhs, rhs, out = params["dimension_numbers"]
    groups, axis, space = params["batch_group_count"], lhs[0], lhs[2:]
    window = [kernel.shape[i] for i in rhs[2:]]
    examples, outs = x.shape[axis] // groups, kernel.shape[rhs[0]] // groups
    x, kernel = _padded(x, space, params), _moved(kernel, rhs, lhs)
    counts = _counts([x.shape[i] for i in space], window, params)

    def grouped(a: Any, examples: int, outs: int) -> Any:
        return lax.reshape(a, (*a.shape[:axis], groups, examples, outs, *a.shape[axis + 1 :]))

    shape = [*x.shape[:axis], groups, examples, outs, *x.shape[axis + 1 :]]
    for i, n in zip(space, window, strict=True):
        shape[i if i < axis else i + 2] = n
    kernel = lax.broadcast_in_dim(grouped(kernel, 1, outs), shape, range(len(shape)))
    products = []
    for at in _places(space, counts, params["window_strides"]):
        part = grouped(_from(x, at, window, params["rhs_dilation"]), examples, 1)
        products.append(lax.mul(lax.broadcast_in_dim(part, shape, range(len(shape))), kernel))
    axes = [i for i in range(len(shape)) if i not in (axis, axis + 1, axis + 2)]
    # All at once: one by one, XLA would keep a copy of the input for each.
    sums = lax.reduce(products, [np.asarray(0, x.dtype)] * len(products), _add_each, axes)
    made = lax.concatenate([lax.expand_dims(s, (0,)) for s in sums], 0)
    made = lax.reshape(lax.transpose(made, (2, 0, 1, 3)), (examples, *counts, groups * outs))
    return _moved(made, canonical(x.ndim).out_spec, out)
