"""Convolution and pooling: ops that slide a window over the spatial axes."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..errors import called, here
from ..op import Op
from ..tape import Aval, aval_of, make_aval
from . import conv_cpu
from .arraylike import unsharded
from .shape import reshape, rev, transpose

Pads = tuple[tuple[int, int], ...]
Padding = str | int | Sequence[int | tuple[int, int]]

# -- convolution


def _conv(x: Any, kernel: Any, **params: Any) -> Any:
    made = _conv_shape(aval_of(x), aval_of(kernel), **params)
    if 0 in (*x.shape, *kernel.shape, *made.shape):
        # A sum of no products, which XLA refuses to take over a window of no elements.
        return lax.full(made.shape, 0, made.dtype)
    dtype = params.pop("dtype")
    if x.dtype != kernel.dtype:
        common = jnp.promote_types(x.dtype, kernel.dtype)
        x, kernel = lax.convert_element_type(x, common), lax.convert_element_type(kernel, common)
    everywhere: Any = functools.partial(lax.conv_general_dilated, **params, preferred_element_type=dtype)
    on_cpu = conv_cpu.lowering(x, kernel, params) if dtype in (None, x.dtype) else None
    if on_cpu is None:
        return everywhere(x, kernel)
    return lax.platform_dependent(x, kernel, cpu=functools.partial(on_cpu, **params), default=everywhere)


def dilated(size: int, dilation: int) -> int:
    """The extent of `size` elements this far apart."""
    return (size - 1) * dilation + 1 if size else 0


def _spatial(sizes: Sequence[int], spec: Sequence[int]) -> list[int]:
    return [sizes[i] for i in spec[2:]]


def _conv_shape(
    x: Aval,
    kernel: Aval,
    *,
    window_strides: tuple[int, ...],
    padding: Pads,
    lhs_dilation: tuple[int, ...],
    rhs_dilation: tuple[int, ...],
    dimension_numbers: lax.ConvDimensionNumbers,
    feature_group_count: int,
    batch_group_count: int,
    precision: Any,
    dtype: Any,
) -> Aval:
    lhs, rhs, out = dimension_numbers
    batch, features, per_group, outs = x.shape[lhs[0]], x.shape[lhs[1]], kernel.shape[rhs[1]], kernel.shape[rhs[0]]
    if features != per_group * feature_group_count:
        raise ValueError(
            f"the input {x.shape} has {features} features along axis {lhs[1]}, the kernel {kernel.shape} takes "
            f"{per_group} a group along axis {rhs[1]}, and there are {feature_group_count} feature groups: "
            f"{features} != {per_group} * {feature_group_count}. Check dimension_numbers and the kernel's shape."
        )
    for name, count, size in (
        ("feature_group_count", feature_group_count, outs),
        ("batch_group_count", batch_group_count, outs),
        ("batch_group_count", batch_group_count, batch),
    ):
        if size % count:
            what = "output features" if size is outs else "examples"
            raise ValueError(f"{name}={count} does not divide the {size} {what}: {x} convolved with {kernel}")
    shape = [0] * x.ndim
    shape[out[0]], shape[out[1]] = batch // batch_group_count, outs
    sizes = _spatial(x.shape, lhs), _spatial(kernel.shape, rhs)
    for n, k, axis, stride, (lo, hi), a, b in zip(
        *sizes, out[2:], window_strides, padding, lhs_dilation, rhs_dilation, strict=True
    ):
        shape[axis] = max(0, (dilated(n, a) + lo + hi - dilated(k, b)) // stride + 1)
    if dtype is None:
        dtype = jnp.promote_types(x.dtype, kernel.dtype)
    return make_aval(tuple(shape), np.dtype(dtype), x.weak_type and kernel.weak_type)


# Both derivatives of a convolution are convolutions, as in Dumoulin and Visin, "A guide to convolution arithmetic for
# deep learning" (2016): strides and dilations trade places, and so do groups of features and groups of examples.


def _spatial_axes(x: Any, kernel: Any, ct: Any, params: dict[str, Any]) -> Any:
    """For each spatial axis, the sizes of input, kernel and output, the stride, the padding and the dilations."""
    lhs, rhs, out = params["dimension_numbers"]
    sizes = _spatial(x.shape, lhs), _spatial(kernel.shape, rhs), _spatial(ct.shape, out)
    names = "window_strides", "padding", "lhs_dilation", "rhs_dilation"
    return zip(*sizes, *(params[name] for name in names), strict=True)


def _conv_x(ct: Any, out: Any, x: Any, kernel: Any, **params: Any) -> Any:
    lhs, rhs, result = params["dimension_numbers"]
    batch_groups = params["batch_group_count"]
    padding = []
    for n, k, m, stride, (lo, _), a, b in _spatial_axes(x, kernel, ct, params):
        before = dilated(k, b) - lo - 1
        padding.append((before, dilated(n, a) + dilated(k, b) - 1 - dilated(m, stride) - before))
    groups = max(params["feature_group_count"], batch_groups)
    if groups > 1:
        kernel = _move_groups(kernel, rhs[0], rhs[1], groups)
    flipped = rev(kernel, axes=tuple(rhs[2:])) if any(n > 1 for n in _spatial(kernel.shape, rhs)) else kernel
    grad = conv_op(
        ct,
        flipped,
        window_strides=params["lhs_dilation"],
        padding=tuple(padding),
        lhs_dilation=params["window_strides"],
        rhs_dilation=params["rhs_dilation"],
        dimension_numbers=lax.ConvDimensionNumbers(result, (rhs[1], rhs[0], *rhs[2:]), lhs),
        feature_group_count=groups,
        batch_group_count=1,
        precision=params["precision"],
        dtype=None,
    )
    return _move_groups(grad, lhs[1], lhs[0], batch_groups) if batch_groups > 1 else grad


def _conv_kernel(ct: Any, out: Any, x: Any, kernel: Any, **params: Any) -> Any:
    lhs, rhs, result = params["dimension_numbers"]
    padding = tuple(
        (lo, dilated(m, stride) - dilated(n, a) + dilated(k, b) - lo - 1)
        for n, k, m, stride, (lo, _), a, b in _spatial_axes(x, kernel, ct, params)
    )
    return conv_op(
        x,
        ct,
        window_strides=params["rhs_dilation"],
        padding=padding,
        lhs_dilation=params["lhs_dilation"],
        rhs_dilation=params["window_strides"],
        dimension_numbers=lax.ConvDimensionNumbers(*((s[1], s[0], *s[2:]) for s in (lhs, result, rhs))),
        feature_group_count=params["batch_group_count"],
        batch_group_count=params["feature_group_count"],
        precision=params["precision"],
        dtype=None,
    )


def _move_groups(x: Any, source: int, target: int, count: int) -> Any:
    """`x` whose groups, `count` blocks along the axis `source`, become blocks along `target`."""
    shape = list(x.shape)
    shape[source] //= count
    x = reshape(x, shape=(*shape[:source], count, *shape[source:]))
    rest = [i if i < source else i + 1 for i in range(len(shape))]
    order = [*rest[:target], source, *rest[target:]]
    shape[target] *= count
    return reshape(transpose(x, axes=tuple(order)), shape=tuple(shape))


conv_op: Op = Op("conv_general_dilated", _conv, (_conv_x, _conv_kernel), shape=_conv_shape)


def conv_general_dilated(
    lhs: Any,
    rhs: Any,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: Any = None,
    preferred_element_type: Any = None,
    out_sharding: Any = None,
) -> Any:
    """Convolution in any layout, with strides, dilations and groups, as `jax.lax.conv_general_dilated`.

    Args:
      lhs: the input, with a batch axis, a feature axis and any number of spatial axes.
      rhs: the kernel, with an output-feature axis, an input-feature axis and as many spatial axes.
      window_strides: the stride along each spatial axis.
      padding: "SAME", "SAME_LOWER", "VALID", or `(low, high)` for each spatial axis.
      lhs_dilation: the spacing of the input's elements along each spatial axis; more than 1 makes a
        transposed convolution.
      rhs_dilation: the spacing of the kernel's elements along each spatial axis.
      dimension_numbers: the layouts of input, kernel and output, such as `("NHWC", "HWIO", "NHWC")`;
        `None` for `("NCHW", "OIHW", "NCHW")`.
      feature_group_count: in how many groups the features are convolved on their own; the kernel has
        `features // groups` input features.
      batch_group_count: in how many groups the examples are, each with its share of the output features.
      precision: as in `jax.lax.dot_general`.
      preferred_element_type: the dtype to accumulate in and to return; by default the promoted one.
      out_sharding: None.

    Raises:
      ValueError: if the shapes, groups, strides and padding do not fit together.

    Example:
      >>> import numpy as np
      >>> from tracegrad.ops import conv_general_dilated
      >>> x, kernel = np.ones((1, 1, 5), np.float32), np.ones((1, 1, 3), np.float32)
      >>> conv_general_dilated(x, kernel, (1,), "SAME").tolist()
      [[[2.0, 3.0, 3.0, 3.0, 2.0]]]
    """
    unsharded(out_sharding)
    x, kernel = aval_of(lhs), aval_of(rhs)
    if x.ndim != kernel.ndim or x.ndim < 2:
        raise ValueError(
            f"{called()}: the input {x} and the kernel {kernel} must have the same number of axes {here()}: "
            "batch, features and space, and input features, output features and space"
        )
    numbers = lax.conv_dimension_numbers(x.shape, kernel.shape, dimension_numbers)
    rank = x.ndim - 2
    strides = per_axis(window_strides, rank, "window_strides")
    a = per_axis(1 if lhs_dilation is None else lhs_dilation, rank, "lhs_dilation")
    b = per_axis(1 if rhs_dilation is None else rhs_dilation, rank, "rhs_dilation")
    if isinstance(padding, str) and any(d != 1 for d in a):
        raise ValueError(
            f"{called()}: padding={padding!r} with lhs_dilation={a} {here()}. Give the padding in numbers, "
            "(low, high) for each spatial axis."
        )
    window = [dilated(k, d) for k, d in zip(_spatial(kernel.shape, numbers.rhs_spec), b, strict=True)]
    return conv_op(
        lhs,
        rhs,
        window_strides=strides,
        padding=explicit_padding(padding, _spatial(x.shape, numbers.lhs_spec), window, strides),
        lhs_dilation=a,
        rhs_dilation=b,
        dimension_numbers=numbers,
        feature_group_count=int(feature_group_count),
        batch_group_count=int(batch_group_count),
        precision=tuple(precision) if isinstance(precision, list) else precision,
        dtype=None if preferred_element_type is None else jax.dtypes.canonicalize_dtype(preferred_element_type),
    )


def per_axis(value: int | Sequence[int], rank: int, name: str) -> tuple[int, ...]:
    """One number for each of the `rank` spatial axes.

    Raises:
      ValueError: if there are more or fewer, or one is less than 1.
    """
    values = tuple(int(v) for v in value) if isinstance(value, Sequence) else (int(value),) * rank
    if len(values) != rank:
        raise ValueError(f"{name}={value} has {len(values)} numbers, there are {rank} spatial axes {here()}")
    if any(v < 1 for v in values):
        raise ValueError(f"{name}={value} must be at least 1 along every axis {here()}")
    return values


def explicit_padding(padding: Padding, sizes: Sequence[int], window: Sequence[int], strides: Sequence[int]) -> Pads:
    """Low and high padding for each spatial axis, from a name, a number, or numbers or pairs for each axis."""
    if isinstance(padding, str):
        name = padding.upper()
        if name not in ("SAME", "SAME_LOWER", "VALID"):
            raise ValueError(
                f"padding={padding!r} {here()}: choose 'SAME', 'SAME_LOWER', 'VALID', or give numbers, (low, high) for "
                "each axis"
            )
        return _named_padding(tuple(sizes), tuple(window), tuple(strides), name)
    pads = [padding] * len(sizes) if isinstance(padding, int) else list(padding)
    if len(pads) != len(sizes):
        raise ValueError(f"padding={padding} has {len(pads)} entries, there are {len(sizes)} spatial axes {here()}")
    return tuple((int(p), int(p)) if isinstance(p, int) else (int(p[0]), int(p[1])) for p in pads)


@functools.lru_cache(maxsize=1024)
def _named_padding(sizes: tuple[int, ...], window: tuple[int, ...], strides: tuple[int, ...], name: str) -> Pads:
    return tuple((int(lo), int(hi)) for lo, hi in lax.padtype_to_pads(sizes, window, strides, name))


# -- pooling: an op takes a window size, a stride and a padding for every axis of its operand

# A window is unrolled into one strided slice of the operand for each of its positions. XLA fuses these into one
# loop that it can vectorise; its own window reduction and select-and-scatter are several times slower on a CPU.
UNROLLED = 64
"""Positions of a window beyond which it is not unrolled, so that programs stay short."""


Dilation = tuple[int, ...] | None
"""How far apart the elements of a window are along each axis; None for next to each other."""


def _extent(window: tuple[int, ...], dilation: Dilation) -> tuple[int, ...]:
    return window if dilation is None else tuple(map(dilated, window, dilation))


def _window_shape(
    x: Aval, *, window: tuple[int, ...], strides: tuple[int, ...], padding: Pads, dilation: Dilation = None
) -> Aval:
    sizes = zip(x.shape, _extent(window, dilation), strides, padding, strict=True)
    shape = tuple(max(0, (n + lo + hi - k) // s + 1) for n, k, s, (lo, hi) in sizes)
    return make_aval(shape, x.dtype, x.weak_type)


def _windowed(
    name: str,
    fn: Callable[..., Any],
    *vjp: Callable[..., Any] | None,
    shape: Callable[..., Aval],
    spreads: bool = False,
) -> Op:
    """An op over windows. Where there is none, as in an empty array, it makes no slices, which would leave the array.

    With `spreads` its first operand has an element a window, otherwise its result has.
    """

    def lower(x: Any, *others: Any, **params: Any) -> Any:
        made = shape(aval_of(x), *map(aval_of, others), **params)
        if 0 in made.shape or (spreads and 0 in x.shape):
            return lax.full(made.shape, 0, made.dtype)
        return fn(x, *others, **params)

    return Op(name, lower, vjp, shape=shape)


def _padded(x: Any, padding: Pads, value: Any) -> Any:
    if not any(lo or hi for lo, hi in padding):
        return x
    return lax.pad(x, np.asarray(value, x.dtype), [(lo, hi, 0) for lo, hi in padding])


def _offsets(window: tuple[int, ...], dilation: Dilation) -> Iterator[tuple[int, ...]]:
    """Where each position of the window is, counted from its first."""
    extent = _extent(window, dilation)
    return itertools.product(*map(range, itertools.repeat(0), extent, dilation or (1,) * len(window)))


def _positions(
    x: Any, window: tuple[int, ...], strides: tuple[int, ...], dilation: Dilation
) -> list[tuple[tuple[int, ...], Any]]:
    """For each position in the window, its offset and what the padded `x` holds there, for every window at once."""
    counts = [(n - k) // s + 1 for n, k, s in zip(x.shape, _extent(window, dilation), strides, strict=True)]
    found = []
    for offset in _offsets(window, dilation):
        limit = [i + (m - 1) * s + 1 for i, m, s in zip(offset, counts, strides, strict=True)]
        found.append((offset, lax.slice(x, offset, limit, strides)))
    return found


def _place(parts: list[tuple[tuple[int, ...], Any]], shape: Sequence[int], strides: tuple[int, ...]) -> Any:
    """The reverse of `_positions`: each part back at its offset, summed where windows overlap."""
    total = None
    for offset, part in parts:
        config = [
            (i, n - i - (m - 1) * s - 1, s - 1) for i, n, m, s in zip(offset, shape, part.shape, strides, strict=True)
        ]
        placed = lax.pad(part, np.asarray(0, part.dtype), config)
        total = placed if total is None else lax.add(total, placed)
    return total


def _repeat(x: Any, window: tuple[int, ...]) -> Any:
    """Each element of `x` as a block of the size of the window."""
    shape = [n for pair in zip(x.shape, window, strict=True) for n in pair]
    blocks = lax.broadcast_in_dim(x, shape, range(0, 2 * x.ndim, 2))
    return lax.reshape(blocks, [n * k for n, k in zip(x.shape, window, strict=True)])


def _unpadded(grad: Any, padded: Sequence[int], padding: Pads) -> Any:
    """The cotangent of the operand from one of its padded form, which may lack what no window reached."""
    config = [(-lo, n - m - hi, 0) for n, m, (lo, hi) in zip(padded, grad.shape, padding, strict=True)]
    if not any(lo or hi for lo, hi, _ in config):
        return grad
    return lax.pad(grad, np.asarray(0, grad.dtype), config)


def _padded_shape(shape: Sequence[int], padding: Pads) -> list[int]:
    return [n + lo + hi for n, (lo, hi) in zip(shape, padding, strict=True)]


def _lowest(dtype: Any) -> Any:
    if jnp.issubdtype(dtype, jnp.inexact):
        return -math.inf
    return False if dtype == np.bool_ else np.iinfo(dtype).min


def _reduce(
    x: Any,
    window: Any,
    strides: Any,
    padding: Pads,
    dilation: Dilation,
    initial: Any,
    combine: Callable[[Any, Any], Any],
) -> Any:
    if math.prod(window) > UNROLLED:
        return lax.reduce_window(
            x, np.asarray(initial, x.dtype)[()], combine, window, strides, padding, window_dilation=dilation
        )
    parts = [part for _, part in _positions(_padded(x, padding, initial), window, strides, dilation)]
    total = parts[0]
    for part in parts[1:]:
        total = combine(total, part)
    return total


def _wide(x: Any) -> Any:
    return lax.convert_element_type(x, np.float32) if x.dtype in (np.float16, jnp.bfloat16) else x


def _window_sum(
    x: Any, *, window: tuple[int, ...], strides: tuple[int, ...], padding: Pads, dilation: Dilation = None
) -> Any:
    # Half-precision sums are taken in float32, as every sum is.
    return lax.convert_element_type(_reduce(_wide(x), window, strides, padding, dilation, 0, lax.add), x.dtype)


def _window_spread(
    ct: Any, *, shape: tuple[int, ...], window: Any, strides: Any, padding: Pads, dilation: Dilation = None
) -> Any:
    padded = _padded_shape(shape, padding)
    if window == strides and dilation is None:
        return _unpadded(_repeat(ct, window), padded, padding)
    if math.prod(window) > UNROLLED:
        # The sum over the windows that hold an element is itself a sum over windows, of the spread-out cotangent.
        config = [
            (k - 1 - lo, n + lo - (m - 1) * s - 1, s - 1)
            for n, m, k, s, (lo, _) in zip(shape, ct.shape, _extent(window, dilation), strides, padding, strict=True)
        ]
        spread = lax.pad(_wide(ct), np.asarray(0, _wide(ct).dtype), config)
        return lax.convert_element_type(
            _reduce(spread, window, (1,) * ct.ndim, ((0, 0),) * ct.ndim, dilation, 0, lax.add), ct.dtype
        )
    parts = [(offset, _wide(ct)) for offset in _offsets(window, dilation)]
    return lax.convert_element_type(_unpadded(_place(parts, padded, strides), padded, padding), ct.dtype)


window_sum: Op = _windowed(
    "window_sum",
    _window_sum,
    lambda ct, out, x, **params: window_spread(ct, shape=x.shape, **params),
    shape=_window_shape,
)
"""The sum over each window of the operand."""

window_spread: Op = _windowed(
    "window_spread",
    _window_spread,
    lambda ct, out, x, *, shape, **params: window_sum(ct, **params),
    shape=lambda ct, *, shape, **params: make_aval(shape, ct.dtype, ct.weak_type),
    spreads=True,
)
"""The transpose of `window_sum`: each value is added to every element of its window."""


def _window_max(
    x: Any, *, window: tuple[int, ...], strides: tuple[int, ...], padding: Pads, dilation: Dilation = None
) -> Any:
    return _reduce(x, window, strides, padding, dilation, _lowest(x.dtype), lax.max)


def _count(hit: Any, dtype: Any) -> Any:
    return lax.convert_element_type(hit, dtype)


def _ties(x: Any, out: Any, window: Any, strides: Any, dilation: Dilation) -> Any:
    """How many elements of each window of the padded `x` are its maximum."""
    if math.prod(window) > UNROLLED and window == strides and dilation is None:
        covered = lax.slice(x, (0,) * x.ndim, [n * k for n, k in zip(out.shape, window, strict=True)])
        hits = _count(lax.eq(covered, _repeat(out, window)), out.dtype)
        return _reduce(hits, window, strides, ((0, 0),) * x.ndim, None, 0, lax.add)
    total = None
    for _, part in _positions(x, window, strides, dilation):
        hit = _count(lax.eq(part, out), out.dtype)
        total = hit if total is None else lax.add(total, hit)
    return total


def _window_max_spread(
    ct: Any, x: Any, out: Any, *, window: Any, strides: Any, padding: Pads, dilation: Dilation = None
) -> Any:
    xp = _padded(x, padding, _lowest(x.dtype))
    share = lax.div(ct, _ties(xp, out, window, strides, dilation))
    zero = np.asarray(0, ct.dtype)
    if window == strides and dilation is None:
        share = _repeat(share, window)
        covered = lax.slice(xp, (0,) * x.ndim, share.shape)
        grad = lax.select(lax.eq(covered, _repeat(out, window)), share, lax.broadcast(zero, share.shape))
        return _unpadded(grad, xp.shape, padding)
    zeros = lax.broadcast(zero, share.shape)
    found = _positions(xp, window, strides, dilation)
    parts = [(offset, lax.select(lax.eq(part, out), share, zeros)) for offset, part in found]
    return _unpadded(_place(parts, xp.shape, strides), xp.shape, padding)


def _window_max_pick(
    t: Any, x: Any, out: Any, *, window: Any, strides: Any, padding: Pads, dilation: Dilation = None
) -> Any:
    padded = _padded(x, padding, _lowest(x.dtype)), _padded(t, padding, 0)
    zeros = lax.full(out.shape, 0, t.dtype)
    total = zeros
    for (_, part), (_, value) in zip(*(_positions(p, window, strides, dilation) for p in padded), strict=True):
        total = lax.add(total, lax.select(lax.eq(part, out), value, zeros))
    return lax.div(total, _ties(padded[0], out, window, strides, dilation))


window_max: Op = _windowed(
    "window_max",
    _window_max,
    lambda ct, out, x, **params: window_max_spread(ct, x, out, **params),
    shape=_window_shape,
)
"""The largest element of each window of the operand; padding never wins."""

window_max_spread: Op = _windowed(
    "window_max_spread",
    _window_max_spread,
    lambda ct, out, g, x, y, **params: window_max_pick(ct, x, y, **params),
    None,
    None,
    shape=lambda ct, x, out, **params: make_aval(x.shape, ct.dtype, ct.weak_type),
    spreads=True,
)
"""The derivative of `window_max`: each cotangent to the largest element of its window, equal shares to ties."""

window_max_pick: Op = _windowed(
    "window_max_pick",
    _window_max_pick,
    lambda ct, out, t, x, y, **params: window_max_spread(ct, x, y, **params),
    None,
    None,
    shape=lambda t, x, out, **params: make_aval(out.shape, t.dtype, t.weak_type),
)
"""The transpose of `window_max_spread`: the mean of `t` over the largest elements of each window of `x`."""


__all__ = [
    "Padding", "conv_op", "conv_general_dilated", "dilated", "explicit_padding", "per_axis", "window_max",
    "window_max_pick", "window_max_spread", "window_spread", "window_sum",
]  # fmt: skip
