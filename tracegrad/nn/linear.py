"""Layers of a product with a matrix, or of a choice of its rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from .. import initializers, ops
from .. import numpy as tnp
from ..errors import describe, here
from ..names import listed
from ..numpy.arguments import is_known
from ..tape import aval_of
from .layers import Run, check_init, check_parameters, input_features, layer, name_in


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
        check_parameters(self, run, kernel=2, bias=1)
        wanted = self.kernel.shape[0]
        input_features(self, x, wanted, run, f"Give {wanted} features, or make the layer for those that there are.")
        out = tnp.matmul(x, self.kernel)
        return out if self.bias is None else out + self.bias


@layer
class Embedding:
    """The rows of a table, by integers: a vector for each word, user or position.

    Attributes:
      table: shape `(num_embeddings, features)`.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn, random
      >>> embed = nn.Embedding.init(random.key(0), 100, 16)
      >>> embed(np.array([[3, 1, 4], [1, 5, 9]])).shape
      (2, 3, 16)
    """

    table: Any

    @classmethod
    def init(
        cls, key: Any, num_embeddings: int, features: int, *, embedding_init: Any = None, dtype: Any = None
    ) -> Embedding:
        """A layer with a drawn table.

        Args:
          key: a random key.
          num_embeddings: how many there are.
          features: the size of each.
          embedding_init: an initializer; by default normal numbers of variance `1 / features`, as in flax.
          dtype: of the table.

        Raises:
          TypeError, ValueError: if the key is none, or a size is not a positive number.
        """
        check_init(key, num_embeddings=num_embeddings, features=features)
        draw = embedding_init
        if draw is None:
            draw = initializers.variance_scaling(1.0, "fan_in", "normal", in_axis=-1, out_axis=-2)
        return cls(draw(key, (num_embeddings, features), dtype))

    def __call__(self, ids: Any, run: Run | None = None) -> Any:
        """Shape `(...)`, of integers, to `(..., features)`.

        An integer that has no row is an error where it is known, and gives NaN under `@jit` and in bodies.

        Raises:
          TypeError: if `ids` are not integers.
          IndexError: if one that is known is not in `[0, num_embeddings)`.
        """
        check_parameters(self, run, table=2)
        count = self.table.shape[0]
        try:
            aval = aval_of(ids)
        except TypeError:
            aval = None
        if aval is None or not jnp.issubdtype(aval.dtype, np.integer):
            raise TypeError(
                f"{name_in(self, run)} takes integers, not {describe(ids)} {here()}. Convert them with "
                "ids.astype(int); for one-hot rows or weights of the rows use rows @ layer.table."
            )
        if is_known(ids):
            values = np.asarray(ids)
            wrong = values[(values < 0) | (values >= count)]
            if wrong.size:
                raise IndexError(
                    f"{name_in(self, run)}: there is no row {wrong.flat[0]} {here()}. The table has {count}: give "
                    f"integers from 0 to {count - 1}, or make it with more rows."
                )
            return ops.take(self.table, ids, 0)
        # A negative integer would count from the end.
        return ops.take(self.table, ops.where(ops.less(ids, 0), np.asarray(count, aval.dtype), ids), 0, "fill")

    def attend(self, x: Any) -> Any:
        """The product with each row, shape `(..., features)` to `(..., num_embeddings)`: logits from a shared table.

        Press and Wolf, "Using the output embedding to improve language models" (2017).

        Raises:
          TypeError, ValueError: if the last axis of `x` is not `features` long.
        """
        check_parameters(self, None, table=2)
        input_features(self, x, self.table.shape[-1], None, "Give the features of its rows.")
        return tnp.matmul(x, self.table.T)


__all__ = ["Embedding", "Linear"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
