"""Layers over images, sequences and volumes, features last: convolutions and pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .. import initializers, lax
from ..errors import called, describe, here
from ..names import listed
from ..ops.conv import Padding
from . import functional
from .layers import Run, check_init, check_parameters, check_sizes, hashable, input_features, layer, name_in, static

Numbers = int | Sequence[int]


def _kernel_size(kernel_size: Any) -> tuple[int, ...]:
    if not isinstance(kernel_size, (tuple, list)) or not kernel_size:
        raise TypeError(
            f"{called()}: kernel_size is {describe(kernel_size)} {here()}. Give a size for each spatial axis: (3,) for "
            "sequences, (3, 3) for images, (3, 3, 3) for volumes."
        )
    for n in kernel_size:
        check_sizes(kernel_size=n)
    return tuple([int(n) for n in kernel_size])


def _check_input(layer: Any, x: Any, run: Run | None, features: int) -> None:
    check_parameters(layer, run, bias=1)
    rank = layer.kernel.ndim - 2
    shape: tuple[int, ...] = getattr(x, "shape", ())
    remedy = ""
    if len(shape) == rank + 2 and shape[1] == features:
        remedy = " Move them there: numpy.moveaxis(x, 1, -1)."
    elif len(shape) == rank + 1 and features == 1:
        remedy = " One feature needs an axis too: x[..., None]."
    remedy = f"Its kernel is {describe(layer.kernel)}; features come last.{remedy}"
    aval = input_features(layer, x, features, run, remedy)
    if aval.ndim != rank + 2:
        raise ValueError(
            f"{name_in(layer, run)}: the input {aval} must have a batch axis, {rank} spatial "
            f"{'axes' if rank > 1 else 'axis'} and a feature axis {here()}. Add a missing axis with x[None] or "
            "x[..., None], or make the layer with a kernel_size of as many numbers as there are spatial axes."
        )


@layer
class Conv:
    """Convolution in 1, 2 or 3 spatial dimensions, features last, plus a bias.

    Attributes:
      kernel: shape `(*kernel_size, in_features // groups, out_features)`.
      bias: shape `(out_features,)`, or `None`.
      stride, padding, dilation, groups: as in `nn.conv`.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn, random
      >>> images = nn.Conv.init(random.key(0), 3, 16, (3, 3), stride=2)
      >>> images(np.ones((8, 28, 28, 3), np.float32)).shape
      (8, 14, 14, 16)
      >>> nn.Conv.init(random.key(0), 3, 16, (5,))(np.ones((8, 100, 3), np.float32)).shape
      (8, 100, 16)
    """

    kernel: Any
    bias: Any = None
    stride: Numbers = static(default=1)
    padding: Padding = static(default="SAME")
    dilation: Numbers = static(default=1)
    groups: int = static(default=1)

    @classmethod
    def init(
        cls,
        key: Any,
        in_features: int,
        out_features: int,
        kernel_size: Sequence[int],
        stride: Numbers = 1,
        padding: Padding = "SAME",
        dilation: Numbers = 1,
        groups: int = 1,
        *,
        use_bias: bool = True,
        kernel_init: Any = None,
        bias_init: Any = initializers.zeros,
        dtype: Any = None,
    ) -> Conv:
        """A layer with a drawn kernel and a bias of zeros.

        Args:
          key: a random key.
          in_features, out_features: the sizes of the last axis of input and output.
          kernel_size: a number for each spatial axis.
          stride, padding, dilation, groups: as in `nn.conv`; `groups` divides both numbers of features.
          use_bias: whether there is a bias.
          kernel_init, bias_init: initializers; by default `lecun_normal()`, as in flax, and `zeros`.
          dtype: of the parameters.

        Raises:
          TypeError, ValueError: if the key is none, a size is not a positive number, or `groups` does not divide.
        """
        check_init(key, in_features=in_features, out_features=out_features, groups=groups)
        if in_features % groups or out_features % groups:
            raise ValueError(
                f"{called()}: groups={groups} does not divide in_features={in_features} and "
                f"out_features={out_features} {here()}. Give a divisor of both."
            )
        shape = (*_kernel_size(kernel_size), in_features // groups, out_features)
        draw = initializers.lecun_normal() if kernel_init is None else kernel_init
        bias = bias_init(key, (out_features,), dtype) if use_bias else None
        settings = hashable(stride), hashable(padding), hashable(dilation), groups
        return cls(draw(key, shape, dtype), bias, *settings)

    def __call__(self, x: Any, run: Run | None = None) -> Any:
        """Shape `(N, ..., in_features)` to `(N, ..., out_features)`.

        Raises:
          TypeError, ValueError: if the input has another number of features or of axes.
        """
        _check_input(self, x, run, self.kernel.shape[-2] * self.groups)
        out = functional.conv(x, self.kernel, self.stride, self.padding, self.dilation, self.groups)
        return out if self.bias is None else out + self.bias


@layer
class ConvTranspose:
    """Transposed convolution in 1, 2 or 3 spatial dimensions, features last, plus a bias: axes grow by their stride.

    Attributes:
      kernel: shape `(*kernel_size, in_features, out_features)`.
      bias: shape `(out_features,)`, or `None`.
      stride, padding, dilation: as `strides`, `padding` and `rhs_dilation` of `lax.conv_transpose`.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn, random
      >>> up = nn.ConvTranspose.init(random.key(0), 16, 3, (2, 2), stride=2)
      >>> up(np.ones((8, 14, 14, 16), np.float32)).shape
      (8, 28, 28, 3)
    """

    kernel: Any
    bias: Any = None
    stride: Numbers = static(default=1)
    padding: Padding = static(default="SAME")
    dilation: Numbers = static(default=1)

    @classmethod
    def init(
        cls,
        key: Any,
        in_features: int,
        out_features: int,
        kernel_size: Sequence[int],
        stride: Numbers = 1,
        padding: Padding = "SAME",
        dilation: Numbers = 1,
        *,
        use_bias: bool = True,
        kernel_init: Any = None,
        bias_init: Any = initializers.zeros,
        dtype: Any = None,
    ) -> ConvTranspose:
        """A layer with a drawn kernel and a bias of zeros; the arguments are those of `Conv.init`.

        Raises:
          TypeError, ValueError: if the key is none, or a size is not a positive number.
        """
        check_init(key, in_features=in_features, out_features=out_features)
        shape = (*_kernel_size(kernel_size), in_features, out_features)
        draw = initializers.lecun_normal() if kernel_init is None else kernel_init
        bias = bias_init(key, (out_features,), dtype) if use_bias else None
        return cls(draw(key, shape, dtype), bias, hashable(stride), hashable(padding), hashable(dilation))

    def __call__(self, x: Any, run: Run | None = None) -> Any:
        """Shape `(N, ..., in_features)` to `(N, ..., out_features)`.

        Raises:
          TypeError, ValueError: if the input has another number of features or of axes.
        """
        _check_input(self, x, run, self.kernel.shape[-2])
        rank = self.kernel.ndim - 2
        strides, dilation = [(n,) * rank if isinstance(n, int) else n for n in (self.stride, self.dilation)]
        out = lax.conv_transpose(x, self.kernel, strides, self.padding, dilation)
        return out if self.bias is None else out + self.bias


@layer
class MaxPool:
    """The maximum over windows of the spatial axes: `nn.max_pool`, whose arguments are the attributes.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn
      >>> nn.MaxPool(2)(np.ones((8, 28, 28, 3), np.float32)).shape
      (8, 14, 14, 3)
    """

    window: Numbers = static(default=2)
    stride: Numbers | None = static(default=None)
    padding: Padding = static(default="VALID")

    def __call__(self, x: Any, run: Run | None = None) -> Any:
        """Shape `(N, ..., C)`, with 1 to 3 spatial axes."""
        return functional.max_pool(x, self.window, self.stride, self.padding)


@layer
class AvgPool:
    """The mean over windows of the spatial axes: `nn.avg_pool`, whose arguments are the attributes."""

    window: Numbers = static(default=2)
    stride: Numbers | None = static(default=None)
    padding: Padding = static(default="VALID")
    count_include_pad: bool = static(default=True)

    def __call__(self, x: Any, run: Run | None = None) -> Any:
        """Shape `(N, ..., C)`, of float dtype, with 1 to 3 spatial axes."""
        return functional.avg_pool(x, self.window, self.stride, self.padding, self.count_include_pad)


__all__ = ["AvgPool", "Conv", "ConvTranspose", "MaxPool"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
