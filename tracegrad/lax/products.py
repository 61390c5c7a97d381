"""Products of matrices, and convolutions."""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax import lax as _lax

from .. import ops
from ..borrow import borrow, written
from ..errors import called, here
from ..numpy.arguments import dtype_of, order_of, promoted, type_of
from ..ops.arraylike import unsharded
from ..ops.conv import conv_general_dilated, explicit_padding, per_axis


def _index_tuple(value: Any) -> tuple[int, ...]:
    return tuple(map(int, value)) if isinstance(value, (Sequence, np.ndarray)) else (operator.index(value),)


def dot(
    lhs: Any,
    rhs: Any,
    *,
    dimension_numbers: Any = None,
    precision: Any = None,
    preferred_element_type: Any = None,
    out_sharding: Any = None,
) -> Any:
    """The product of vectors and matrices, or with `dimension_numbers` any contraction.

    Args:
      lhs, rhs: arrays; without `dimension_numbers` of one or two axes.
      dimension_numbers: `((lhs_contracting, rhs_contracting), (lhs_batch, rhs_batch))`, each a sequence of axes.
      precision: as in `jax.lax.dot`.
      preferred_element_type: the dtype to accumulate in and to return.

    Returns:
      The batch axes first, then what is left of `lhs`, then of `rhs`.

    Raises:
      ValueError: if the sizes of contracted or batch axes differ.
    """
    unsharded(out_sharding)
    x, y = type_of(lhs), type_of(rhs)
    if dimension_numbers is None:
        if not (x.ndim in (1, 2) and y.ndim in (1, 2) and x.shape[-1] == y.shape[0]):
            raise ValueError(
                f"{called()}: {x} and {y} {here()} are no matrices or vectors with a common size in the middle. "
                "Give dimension_numbers, or use tracegrad.numpy.matmul."
            )
        dimension_numbers = (((x.ndim - 1,), (0,)), ((), ()))
    (xc, yc), (xb, yb) = dimension_numbers
    dims = ((_index_tuple(xc), _index_tuple(yc)), (_index_tuple(xb), _index_tuple(yb)))
    for what, left, right in (("contracted", *dims[0]), ("batch", *dims[1])):
        if len(left) != len(right):
            raise ValueError(f"{called()}: {what} axes {left} of {x} and {right} of {y} {here()}: give as many of each")
    dims = tuple(  # type: ignore[assignment]
        tuple(order_of(axes, a.ndim) for axes, a in zip(pair, (x, y), strict=True)) for pair in dims
    )
    wide = None if preferred_element_type is None else dtype_of(preferred_element_type)
    return ops.dot_general(lhs, rhs, dims=dims, precision=_precision(precision), dtype=wide)


def _precision(precision: Any) -> Any:
    return tuple(precision) if isinstance(precision, list) else precision


def dot_general(
    lhs: Any,
    rhs: Any,
    dimension_numbers: Any,
    precision: Any = None,
    preferred_element_type: Any = None,
    *,
    out_sharding: Any = None,
) -> Any:
    """The contraction that `dimension_numbers` says; see `dot`.

    Example:
      >>> import numpy as np, tracegrad as tg
      >>> x = np.ones((5, 2, 3), np.float32)
      >>> tg.lax.dot_general(x, x, (((2,), (2,)), ((0,), (0,)))).shape
      (5, 2, 2)
    """
    unsharded(out_sharding)
    return dot(
        lhs,
        rhs,
        dimension_numbers=dimension_numbers,
        precision=precision,
        preferred_element_type=preferred_element_type,
    )


def batch_matmul(lhs: Any, rhs: Any, precision: Any = None) -> Any:
    """Products of matrices, one for each position along all axes but the last two, which must be the same in both."""
    x, y = type_of(lhs), type_of(rhs)
    if x.ndim < 2 or x.ndim != y.ndim:
        raise ValueError(f"{called()}: {x} and {y} {here()} must have the same number of axes, two at least")
    batch = tuple(range(x.ndim - 2))
    return dot_general(lhs, rhs, (((x.ndim - 1,), (x.ndim - 2,)), (batch, batch)), precision)


def conv(
    lhs: Any,
    rhs: Any,
    window_strides: Sequence[int],
    padding: str,
    precision: Any = None,
    preferred_element_type: Any = None,
) -> Any:
    """Convolution of `(N, C, ...)` with a kernel `(O, C, ...)`."""
    return conv_general_dilated(
        lhs, rhs, window_strides, padding, precision=precision, preferred_element_type=preferred_element_type
    )


def conv_with_general_padding(
    lhs: Any,
    rhs: Any,
    window_strides: Sequence[int],
    padding: Any,
    lhs_dilation: Sequence[int] | None,
    rhs_dilation: Sequence[int] | None,
    precision: Any = None,
    preferred_element_type: Any = None,
) -> Any:
    """Convolution of `(N, C, ...)` with a kernel `(O, C, ...)`, both of which may be dilated."""
    return conv_general_dilated(
        lhs, rhs, window_strides, padding, lhs_dilation, rhs_dilation, None, 1, 1, precision, preferred_element_type
    )


@written("strides", "padding", "rhs_dilation", "dimension_numbers", "precision", "preferred_element_type")
def conv_transpose(
    lhs: Any,
    rhs: Any,
    strides: Sequence[int],
    padding: Any,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    transpose_kernel: bool = False,
    precision: Any = None,
    preferred_element_type: Any = None,
    use_consistent_padding: bool = False,
) -> Any:
    """Transposed convolution: it makes spatial axes larger by their stride.

    Args:
      lhs: the input, features last unless `dimension_numbers` says otherwise.
      rhs: the kernel, `(..., I, O)`, likewise.
      strides: by how much each spatial axis grows.
      padding: "SAME" or "VALID", or `(low, high)` for each spatial axis, of this convolution, or with
        `use_consistent_padding` of the one that it transposes.
      rhs_dilation: the spacing of the kernel's elements along each spatial axis.
      dimension_numbers, precision, preferred_element_type: as for `conv_general_dilated`.
      transpose_kernel: whether to flip the kernel and swap its features: the transpose of the convolution with it.

    Raises:
      ValueError: if shapes, strides and padding do not fit together.

    Example:
      >>> import numpy as np, tracegrad as tg
      >>> x, kernel = np.ones((1, 4, 3), np.float32), np.ones((3, 3, 2), np.float32)
      >>> tg.lax.conv_transpose(x, kernel, (2,), "SAME").shape
      (1, 8, 2)
    """
    x, kernel = type_of(lhs), type_of(rhs)
    rank = x.ndim - 2
    if dimension_numbers is None and not 0 <= rank <= 3:
        raise ValueError(f"{called()}: there is no default layout for {x} {here()}. Give dimension_numbers.")
    if isinstance(padding, str) and padding not in ("SAME", "VALID"):
        raise ValueError(f"{called()}: padding={padding!r} {here()}. Use 'SAME', 'VALID', or (low, high) pairs.")
    strides = per_axis(strides, rank, "strides")
    if not isinstance(padding, str):
        padding = explicit_padding(padding, strides, strides, strides)
    lhs, rhs = promoted([lhs, rhs], [x, kernel])
    return _lax.conv_transpose(
        lhs, rhs, strides, padding,
        per_axis(1 if rhs_dilation is None else rhs_dilation, rank, "rhs_dilation"), dimension_numbers,
        transpose_kernel, precision, preferred_element_type, use_consistent_padding,
    )  # fmt: skip


def _padded(fun: Callable[..., Any]) -> Callable[..., Any]:
    """A function of JAX's of a convolution, which refuses the name of a padding that there is not."""
    signature = inspect.signature(fun)

    @functools.wraps(fun)
    def padded(*args: Any, **kwargs: Any) -> Any:
        padding = signature.bind(*args, **kwargs).arguments["padding"]
        if isinstance(padding, str):
            explicit_padding(padding, (), (), ())
        return fun(*args, **kwargs)

    return padded


_STATIC = [
    "filter_shape", "window_strides", "padding", "lhs_dilation", "rhs_dilation", "dimension_numbers", "precision",
]  # fmt: skip

conv_general_dilated_patches = borrow(
    _padded(_lax.conv_general_dilated_patches),
    """The windows that a convolution would see: its features are the elements of a window, for each input feature.

    Raises:
      TypeError, ValueError: if shapes, strides and padding do not fit together.
    """,
    *_STATIC,
    "preferred_element_type",
    module=__name__,
)
conv_general_dilated_local = borrow(
    _padded(_lax.conv_general_dilated_local),
    """A convolution with a kernel of its own at each place of the result.

    `rhs` has the spatial axes of the result, and as input features the elements of a window for each feature of `lhs`.

    Raises:
      TypeError, ValueError: if shapes, strides and padding do not fit together.
    """,
    *_STATIC,
    module=__name__,
)


__all__ = [
    "batch_matmul", "conv", "conv_general_dilated", "conv_general_dilated_local", "conv_general_dilated_patches",
    "conv_transpose", "conv_with_general_padding", "dot", "dot_general",
]  # fmt: skip
