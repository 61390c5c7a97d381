"""Layers that give features mean 0 and variance 1, and then a scale and a shift that are learned."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import initializers, ops
from .. import numpy as tnp
from ..activations import standardize
from ..errors import called, describe, here
from ..names import listed
from ..parallel import pmean
from ..tape import aval_of
from ..tools import stop_gradient
from .layers import Run, check_parameters, check_sizes, input_features, is_layer, layer, name_in, static


def _at_least_float32(dtype: Any) -> Any:
    return np.promote_types(dtype, np.float32)


def _wide(x: Any, aval: Any) -> Any:
    """`x` in the precision that means and variances are taken in."""
    dtype = _at_least_float32(aval.dtype)
    return x if aval.dtype == dtype else ops.astype(x, dtype=dtype)


def _scaled(x: Any, aval: Any, scale: Any, bias: Any) -> Any:
    """`x * scale + bias`, in the dtype that the input, of type `aval`, and these have together."""
    parameters = [p for p in (scale, bias) if p is not None]
    x = x if scale is None else x * scale
    x = x if bias is None else x + bias
    dtype = ops.inexact_dtype(tnp.result_type(aval.promoting(), *[p.dtype for p in parameters]))
    return x if aval_of(x).dtype == dtype else ops.astype(x, dtype=dtype)


def _scale_and_bias(features: int, use_scale: bool, use_bias: bool, dtype: Any) -> tuple[Any, Any]:
    scale = initializers.ones(None, (features,), dtype) if use_scale else None
    return scale, initializers.zeros(None, (features,), dtype) if use_bias else None


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
    momentum: float = static(default=0.99)
    epsilon: float = static(default=1e-5)
    axis_name: str | None = static(default=None)

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
        return cls(*_scale_and_bias(features, use_scale, use_bias, dtype), features, momentum, epsilon, axis_name)

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
        check_parameters(self, run, scale=1, bias=1)
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
        for name, value in old.items():
            if aval_of(value).shape != (self.features,):
                raise ValueError(
                    f"{name_in(self, run)}: the running {name} in the state is {describe(value)}, and the layer has "
                    f"{self.features} features {here()}. The state is of another model, or of an ensemble, which is "
                    "called through vmap: make it by nn.init_state(model)."
                )
        wide = _wide(x, aval)
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
        return _scaled(out, aval, self.scale, self.bias)


@layer
class LayerNorm:
    """(x - mean) / sqrt(var + epsilon) * scale + bias, over the features of each example. Ba et al. (2016).

    Attributes:
      scale, bias: shape `(features,)`, or `None`.
      features: the size of the last axis.
      epsilon: added to the variance.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn
      >>> print(nn.LayerNorm.init(2, epsilon=0.0)(np.array([1.0, 3.0], np.float32)))
      [-1.  1.]
    """

    scale: Any
    bias: Any
    features: int = static()
    epsilon: float = static(default=1e-6)

    @classmethod
    def init(
        cls,
        features: int,
        *,
        epsilon: float = 1e-6,
        use_scale: bool = True,
        use_bias: bool = True,
        dtype: Any = None,
    ) -> LayerNorm:
        """A layer with scale 1 and bias 0; there is nothing to draw.

        Raises:
          TypeError, ValueError: if `features` is not a positive number.
        """
        check_sizes(features=features)
        return cls(*_scale_and_bias(features, use_scale, use_bias, dtype), features, epsilon)

    def __call__(self, x: Any, run: Run | None = None) -> Any:
        """Shape `(..., features)`.

        Raises:
          TypeError, ValueError: if the last axis of `x` is not `features` long.
        """
        check_parameters(self, run, scale=1, bias=1)
        aval = input_features(self, x, self.features, run, "The features that it was made for come last.")
        out = standardize(_wide(x, aval), epsilon=self.epsilon)
        return _scaled(out, aval, self.scale, self.bias)


@layer
class RMSNorm:
    """x / sqrt(mean(x^2) + epsilon) * scale, over the features of each example. Zhang and Sennrich (2019).

    Attributes:
      scale: shape `(features,)`, or `None`.
      features: the size of the last axis.
      epsilon: added to the mean square.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn
      >>> print(nn.RMSNorm.init(2, epsilon=0.0)(np.array([3.0, 3.0], np.float32)))
      [1. 1.]
    """

    scale: Any
    features: int = static()
    epsilon: float = static(default=1e-6)

    @classmethod
    def init(cls, features: int, *, epsilon: float = 1e-6, use_scale: bool = True, dtype: Any = None) -> RMSNorm:
        """A layer with scale 1; there is nothing to draw.

        Raises:
          TypeError, ValueError: if `features` is not a positive number.
        """
        check_sizes(features=features)
        return cls(_scale_and_bias(features, use_scale, False, dtype)[0], features, epsilon)

    def __call__(self, x: Any, run: Run | None = None) -> Any:
        """Shape `(..., features)`.

        Raises:
          TypeError, ValueError: if the last axis of `x` is not `features` long.
        """
        check_parameters(self, run, scale=1)
        aval = input_features(self, x, self.features, run, "The features that it was made for come last.")
        wide = _wide(x, aval)
        out = wide * ops.rsqrt(tnp.mean(tnp.square(wide), axis=-1, keepdims=True) + self.epsilon)
        return _scaled(out, aval, self.scale, None)


@layer
class GroupNorm:
    """(x - mean) / sqrt(var + epsilon) * scale + bias, over groups of features. Wu and He (2018).

    The statistics of an example are taken over its spatial axes and the features of a group.

    Attributes:
      scale, bias: shape `(features,)`, or `None`.
      features: the size of the last axis.
      num_groups: how many groups these make; with 1 of all features, with `features` of one each (instance norm).
      epsilon: added to the variance.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn
      >>> print(nn.GroupNorm.init(4, 2, epsilon=0.0)(np.array([[1.0, 3.0, 10.0, 30.0]], np.float32)))
      [[-1.  1. -1.  1.]]
    """

    scale: Any
    bias: Any
    features: int = static()
    num_groups: int = static(default=32)
    epsilon: float = static(default=1e-6)

    @classmethod
    def init(
        cls,
        features: int,
        num_groups: int = 32,
        *,
        epsilon: float = 1e-6,
        use_scale: bool = True,
        use_bias: bool = True,
        dtype: Any = None,
    ) -> GroupNorm:
        """A layer with scale 1 and bias 0; there is nothing to draw.

        Raises:
          TypeError, ValueError: if a number is not positive, or `num_groups` does not divide `features`.
        """
        check_sizes(features=features, num_groups=num_groups)
        if features % num_groups:
            raise ValueError(
                f"{called()}: num_groups={num_groups} does not divide features={features} {here()}. Give a divisor."
            )
        return cls(*_scale_and_bias(features, use_scale, use_bias, dtype), features, num_groups, epsilon)

    def __call__(self, x: Any, run: Run | None = None) -> Any:
        """Shape `(N, ..., features)`.

        Raises:
          TypeError, ValueError: if the last axis of `x` is not `features` long.
        """
        check_parameters(self, run, scale=1, bias=1)
        aval = input_features(self, x, self.features, run, "The features that it was made for come last.")
        groups = ops.reshape(
            _wide(x, aval), shape=(*aval.shape[:-1], self.num_groups, self.features // self.num_groups)
        )
        out = standardize(groups, axis=(*range(1, aval.ndim - 1), aval.ndim), epsilon=self.epsilon)
        return _scaled(ops.reshape(out, shape=aval.shape), aval, self.scale, self.bias)


def weight_standardize(kernel: Any, epsilon: float = 1e-5) -> Any:
    """A kernel with mean 0 and variance 1 (with `epsilon`) of the inputs of each output, its last axis.

    Qiao et al., "Micro-batch training with batch-channel normalization and weight standardization" (2019).

    Args:
      kernel: shape `(..., in, out)`.
      epsilon: added to the variance.

    Raises:
      ValueError: if the kernel has fewer than two axes.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn
      >>> print(nn.weight_standardize(np.array([[1.0, 2.0], [3.0, 6.0]], np.float32), epsilon=0.0))
      [[-1. -1.]
       [ 1.  1.]]
    """
    ndim = aval_of(kernel).ndim
    if ndim < 2:
        raise ValueError(
            f"{called()}: the kernel is {describe(kernel)} {here()}. Give one whose last axis is that of the outputs, "
            "after one of inputs at least."
        )
    return standardize(kernel, axis=tuple(range(ndim - 1)), epsilon=epsilon)


@layer
class WeightStandardize:
    """A layer whose kernel is standardized before it is used: `weight_standardize`.

    Qiao et al. (2019), who put it around the convolutions before a `GroupNorm`.

    Attributes:
      layer: a layer with a `kernel`, such as `Linear` or `Conv`.
      epsilon: added to the variance.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn, random
      >>> layer = nn.WeightStandardize(nn.Conv.init(random.key(0), 3, 8, (3, 3)))
      >>> layer(np.ones((1, 8, 8, 3), np.float32)).shape
      (1, 8, 8, 8)
    """

    layer: Any
    epsilon: float = static(default=1e-5)

    def __post_init__(self) -> None:
        if not is_layer(self.layer) or not hasattr(self.layer, "kernel"):
            raise TypeError(
                f"{called()}: {describe(self.layer)} is no layer with a kernel {here()}. Give a Linear or a Conv."
            )

    def __call__(self, x: Any, run: Run | None = None) -> Any:
        """What the layer takes and gives."""
        kernel = weight_standardize(self.layer.kernel, self.epsilon)
        return dataclasses.replace(self.layer, kernel=kernel)(x, run)


__all__ = [
    "BatchNorm", "GroupNorm", "LayerNorm", "RMSNorm", "WeightStandardize", "weight_standardize",
]  # fmt: skip

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
