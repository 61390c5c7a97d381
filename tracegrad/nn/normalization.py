"""Layers that give features mean 0 and variance 1, and then a scale and a shift that are learned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .. import initializers, ops
from .. import numpy as tnp
from ..errors import here
from ..names import listed
from ..parallel import pmean
from ..tools import stop_gradient
from .layers import Run, check_sizes, input_features, layer, name_in, static


def _scaled(x: Any, scale: Any, bias: Any) -> Any:
    x = x if scale is None else x * scale
    return x if bias is None else x + bias


def _at_least_float32(dtype: Any) -> Any:
    return np.promote_types(dtype, np.float32)


@layer
class BatchNorm:
    """(x - mean) / sqrt(var + epsilon) * scale + bias, of each feature over the batch. Ioffe and Szegedy (2015).

    In training `mean` and `var` (the biased variance) are those of the batch, over all axes but the last, and the
    running averages become `momentum * average + (1 - momentum) * batch`: flax's convention, in which a momentum
    near 1 is slow. In inference `mean` and `var` are the running averages. An empty batch leaves them as they are.

    Attributes:
      scale, bias: shape `(features,)`, or `None`.
      features: the size of the last axis.
      momentum: of the running averages.
      epsilon: added to the variance.
      axis_name: a mapped axis, such as that of a `pmap`, over all of whose devices a batch is taken in training.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn
      >>> norm = nn.BatchNorm.init(1, epsilon=0.0)
      >>> run = nn.Run(norm, nn.init_state(norm), training=True)
      >>> print(norm(np.array([[1.0], [3.0]], np.float32), run)[:, 0])
      [-1.  1.]
      >>> print(run.state["mean"], run.state["var"])
      [0.02] [1.]
    """

    scale: Any
    bias: Any
    features: int = static()
    momentum: float = static(0.99)
    epsilon: float = static(1e-5)
    axis_name: str | None = static(None)

    @classmethod
    def init(
        cls,
        features: int,
        *,
        momentum: float = 0.99,
        epsilon: float = 1e-5,
        axis_name: str | None = None,
        use_scale: bool = True,
        use_bias: bool = True,
        dtype: Any = None,
    ) -> BatchNorm:
        """A layer with scale 1 and bias 0; there is nothing to draw.

        Raises:
          TypeError, ValueError: if `features` is not a positive number.
        """
        check_sizes(features=features)
        scale = initializers.ones(None, (features,), dtype) if use_scale else None
        bias = initializers.zeros(None, (features,), dtype) if use_bias else None
        return cls(scale, bias, features, momentum, epsilon, axis_name)

    def init_state(self) -> dict[str, Any]:
        """The running averages as they are at first, for `features` of mean 0 and variance 1."""
        like = self.bias if self.scale is None else self.scale
        dtype = None if like is None else _at_least_float32(like.dtype)
        shape = (self.features,)
        return {"mean": initializers.zeros(None, shape, dtype), "var": initializers.ones(None, shape, dtype)}

    def __call__(self, x: Any, run: Run | None = None) -> Any:
        """Shape `(..., features)`.

        Raises:
          TypeError, ValueError: if the last axis of `x` is not `features` long, or there is no run, or the run
            has no state.
        """
        if run is None:
            raise ValueError(
                f"{name_in(self, run)} keeps running averages and needs a run {here()}. Write model(x, run) with "
                "run = nn.Run(model, state), training=True in training, and pass run on to the layers inside."
            )
        aval = input_features(
            self,
            x,
            self.features,
            run,
            f"Make it with nn.BatchNorm.init(features), features last: (..., {self.features}).",
        )
        old = run.get(self)
        axes = tuple(range(aval.ndim - 1))
        mean, var = old["mean"], old["var"]
        wide = ops.astype(x, dtype=_at_least_float32(aval.dtype))
        if run.training and 0 not in aval.shape:
            mean = tnp.mean(wide, axis=axes)
            if self.axis_name is None:
                var = tnp.var(wide, axis=axes)
            else:
                mean = pmean(mean, self.axis_name)
                var = pmean(tnp.mean(tnp.square(wide - mean), axis=axes), self.axis_name)
            batch = {"mean": stop_gradient(mean), "var": stop_gradient(var)}
            run.set(self, {
                name: ops.astype(self.momentum * old[name] + (1 - self.momentum) * value, dtype=old[name].dtype)
                for name, value in batch.items()
            })  # fmt: skip
        out = (wide - mean) * ops.rsqrt(var + self.epsilon)
        return ops.astype(_scaled(out, self.scale, self.bias), dtype=_result(aval, self.scale, self.bias))


def _result(aval: Any, *parameters: Any) -> Any:
    """The dtype of the result: that of the input and of the parameters together."""
    return ops.inexact_dtype(tnp.result_type(aval.promoting(), *[p.dtype for p in parameters if p is not None]))


__all__ = ["BatchNorm"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
