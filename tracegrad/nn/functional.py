"""Functions over images, sequences and volumes, features last, and dropout."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jax import lax

from .. import random
from ..errors import called, describe, here
from ..names import listed
from ..numpy.arguments import order_of
from ..ops import conv_op, div, maximum, where, window_max, window_sum
from ..ops.conv import Padding, dilated, explicit_padding, per_axis
from ..tape import aval_of
from ..tracer import literal


def conv(
    x: Any,
    kernel: Any,
    stride: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Any:
    """Convolution with features last, in 1, 2 or 3 spatial dimensions.

    Args:
      x: shape `(N, ..., C)`.
      kernel: shape `(..., C // groups, O)`, with as many spatial axes.
      stride: the step of the window, or one for each spatial axis.
      padding: "SAME", "SAME_LOWER", "VALID", a number, or a number or `(low, high)` for each spatial axis.
      dilation: the spacing of the kernel's elements, or one for each spatial axis.
      groups: in how many groups the features are convolved on their own; `C` for a depthwise convolution.

    Returns:
      Shape `(N, ..., O)`.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn
      >>> nn.conv(np.ones((8, 28, 28, 3), np.float32), np.ones((3, 3, 3, 16), np.float32), stride=2).shape
      (8, 14, 14, 16)
    """
    a, k = aval_of(x), aval_of(kernel)
    rank = a.ndim - 2
    if rank < 1 or k.ndim != a.ndim:
        raise ValueError(
            f"{called()}: the input {a} must have shape (N, ..., C) and the kernel {k} shape (..., C // groups, O), "
            f"with the same number of spatial axes {here()}"
        )
    space = tuple(range(1, rank + 1))
    layout = (0, rank + 1, *space)
    numbers = lax.ConvDimensionNumbers(layout, (rank + 1, rank, *range(rank)), layout)
    strides, dilations = per_axis(stride, rank, "stride"), per_axis(dilation, rank, "dilation")
    window = [dilated(n, d) for n, d in zip(k.shape[:rank], dilations, strict=True)]
    return conv_op(
        x,
        kernel,
        window_strides=strides,
        padding=explicit_padding(padding, a.shape[1:-1], window, strides),
        lhs_dilation=(1,) * rank,
        rhs_dilation=dilations,
        dimension_numbers=numbers,
        feature_group_count=int(groups),
        batch_group_count=1,
        precision=None,
        dtype=None,
    )


def _full_window(x: Any, window: Any, stride: Any, padding: Padding) -> dict[str, Any]:
    """Window, strides and padding for every axis of an input with batch first and features last."""
    try:
        aval = aval_of(x)
    except TypeError:
        raise TypeError(f"{called()}: the input is {describe(x)}, which is not an array {here()}") from None
    rank = aval.ndim - 2
    if rank < 1:
        raise ValueError(
            f"{called()}: the input {aval} must have a batch axis, spatial axes and a feature axis, (N, ..., C) "
            f"{here()}. Add the missing axis with x[None] or x[..., None]."
        )
    sizes = per_axis(window, rank, "window")
    strides = sizes if stride is None else per_axis(stride, rank, "stride")
    pads = explicit_padding(padding, aval.shape[1:-1], sizes, strides)
    if any(n and n + lo + hi < k for n, k, (lo, hi) in zip(aval.shape[1:-1], sizes, pads, strict=True)):
        raise ValueError(
            f"{called()}: the window {sizes} does not fit into shape {aval.shape} with padding {pads} {here()}. "
            "Give a smaller window, or more padding."
        )
    return {"window": (1, *sizes, 1), "strides": (1, *strides, 1), "padding": ((0, 0), *pads, (0, 0))}


def max_pool(
    x: Any, window: int | Sequence[int] = 2, stride: int | Sequence[int] | None = None, padding: Padding = "VALID"
) -> Any:
    """The maximum over windows of the spatial axes.

    Elements that tie for the maximum of a window share its gradient equally (frameworks that scatter give
    it all to the first); padding counts as minus infinity.

    Args:
      x: shape `(N, ..., C)` with 1 to 3 spatial axes.
      window: its size, or one for each spatial axis.
      stride: from window to window, or one for each spatial axis; by default the window, so that none overlap.
      padding: "VALID", "SAME", "SAME_LOWER", a number, or a number or `(low, high)` for each spatial axis.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn
      >>> x = np.arange(16.0, dtype=np.float32).reshape(1, 4, 4, 1)
      >>> nn.max_pool(x, 2)[0, :, :, 0].tolist()
      [[5.0, 7.0], [13.0, 15.0]]
    """
    return window_max(x, **_full_window(x, window, stride, padding))


def avg_pool(
    x: Any,
    window: int | Sequence[int] = 2,
    stride: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    count_include_pad: bool = True,
) -> Any:
    """The mean over windows of the spatial axes.

    Args:
      x: shape `(N, ..., C)`, of float dtype, with 1 to 3 spatial axes.
      window, stride, padding: as in `max_pool`.
      count_include_pad: whether padding counts, as zeros, in the mean.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn
      >>> x = np.arange(16.0, dtype=np.float32).reshape(1, 4, 4, 1)
      >>> nn.avg_pool(x, 2)[0, :, :, 0].tolist()
      [[2.5, 4.5], [10.5, 12.5]]
    """
    params = _full_window(x, window, stride, padding)
    total = window_sum(x, **params)
    if count_include_pad or not any(lo or hi for lo, hi in params["padding"]):
        return div(total, literal(float(math.prod(params["window"]))))
    shape = (1, *aval_of(x).shape[1:-1], 1)
    # A window of nothing but padding has mean 0.
    return div(total, maximum(window_sum(np.ones(shape, total.dtype), **params), 1))


def dropout(key: Any, x: Any, rate: Any, deterministic: bool = False, broadcast_dims: Sequence[int] = ()) -> Any:
    """Zeroes elements at random and scales the rest by `1 / (1 - rate)`, so that the mean stays.

    Srivastava et al., "Dropout" (2014), in its inverted form: nothing is left to do in inference.

    Args:
      key: a random key.
      x: any shape, of float dtype.
      rate: the probability of a zero, from 0 to 1.
      deterministic: whether to return `x` as it is (inference).
      broadcast_dims: axes along which all elements are kept or zeroed together.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn, random
      >>> sorted(set(nn.dropout(random.key(0), np.ones(100, np.float32), 0.5).tolist()))
      [0.0, 2.0]
    """
    if isinstance(rate, (int, float)):
        if not 0 <= rate <= 1:
            raise ValueError(
                f"{called()}: rate={rate} {here()} is the probability of a zero: give a number from 0 to 1"
            )
        if rate == 0:
            return x
    if deterministic:
        return x
    keep, shape = 1.0 - rate, aval_of(x).shape
    together = order_of(broadcast_dims, len(shape))
    mask = random.bernoulli(key, keep, tuple([1 if i in together else n for i, n in enumerate(shape)]))
    return where(mask, div(x, keep), 0)


__all__ = ["avg_pool", "conv", "dropout", "max_pool"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
