"""Layers of a product with a matrix, or of a choice of its rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import initializers
from .. import numpy as tnp
from ..names import listed
from .layers import Run, check_init, input_features, layer


@layer
class Linear:
    """x @ kernel + bias.

    Attributes:
      kernel: shape `(in_features, out_features)`.
      bias: shape `(out_features,)`, or `None`.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn, random
      >>> dense = nn.Linear.init(random.key(0), 4, 3)
      >>> dense(np.ones((8, 4), np.float32)).shape
      (8, 3)
    """

    kernel: Any
    bias: Any = None

    @classmethod
    def init(
        cls,
        key: Any,
        in_features: int,
        out_features: int,
        *,
        use_bias: bool = True,
        kernel_init: Any = None,
        bias_init: Any = initializers.zeros,
        dtype: Any = None,
    ) -> Linear:
        """A layer with a drawn kernel and a bias of zeros.

        Args:
          key: a random key.
          in_features, out_features: the sizes of the last axis of input and output.
          use_bias: whether there is a bias.
          kernel_init, bias_init: initializers; by default `lecun_normal()`, as in flax, and `zeros`.
          dtype: of the parameters.

        Raises:
          TypeError, ValueError: if the key is none, or a size is not a positive number.
        """
        check_init(key, in_features=in_features, out_features=out_features)
        draw = initializers.lecun_normal() if kernel_init is None else kernel_init
        bias = bias_init(key, (out_features,), dtype) if use_bias else None
        return cls(draw(key, (in_features, out_features), dtype), bias)

    def __call__(self, x: Any, run: Run | None = None) -> Any:
        """Shape `(..., in_features)` to `(..., out_features)`.

        Raises:
          TypeError, ValueError: if the last axis of `x` is not `in_features` long.
        """
        wanted = self.kernel.shape[-2]
        input_features(self, x, wanted, run, f"Give {wanted} features, or make the layer for those that there are.")
        out = tnp.matmul(x, self.kernel)
        return out if self.bias is None else out + self.bias


__all__ = ["Linear"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
