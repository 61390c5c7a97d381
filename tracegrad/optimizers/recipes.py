"""The optimizers by name: chains of what the other files have."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..pickling import pickled_as_call
from .averages import ema
from .base import GradientTransformation, Mask, Rate, chain, identity
from .clipping import clip_by_block_rms
from .scaling import (
    add_decayed_weights,
    add_l1_step,
    scale,
    scale_by_adam,
    scale_by_factored_rms,
    scale_by_learning_rate,
    scale_by_lion,
    scale_by_param_block_rms,
    scale_by_radam,
    scale_by_rms,
    scale_by_rss,
    scale_by_stddev,
    scale_by_trust_ratio,
    trace,
)

# -- gradient descent


def _momentum(momentum: Any, nesterov: bool, accumulator_dtype: Any = None) -> GradientTransformation:
    return identity() if momentum is None else trace(momentum, nesterov, accumulator_dtype)


@pickled_as_call
def sgd(
    learning_rate: Rate, momentum: Any = None, nesterov: bool = False, accumulator_dtype: Any = None
) -> GradientTransformation:
    """Gradient descent, p - a g, with momentum if given: t = g + momentum t; p - a t.

    Robbins and Monro (1951); for momentum see `trace`.

    Args:
      learning_rate: a number, a scalar array, or a schedule: a function from the step count to one of these.
      momentum: the decay of the momentum; `None` for none.
      nesterov: whether to look ahead by one more step of momentum.
      accumulator_dtype: the dtype of the momentum; by default the parameters'.

    Example:
      >>> import numpy as np
      >>> from tracegrad import optimizers
      >>> optimizer = optimizers.sgd(0.5)
      >>> updates, state = optimizer.update(np.array([1.0]), optimizer.init(np.array([3.0])))
      >>> updates.tolist()
      [-0.5]
    """
    return chain(_momentum(momentum, nesterov, accumulator_dtype), scale_by_learning_rate(learning_rate))


@pickled_as_call
def momentum(learning_rate: Rate, momentum: Any = 0.9, accumulator_dtype: Any = None) -> GradientTransformation:
    """v = momentum v - a g; p + v. Polyak (1964), as CS231n (2016) has it.

    `sgd` with momentum keeps the rate outside of v: the two differ where the rate changes.

    Args:
      learning_rate: a number, a scalar array, or a schedule.
      momentum: the decay of the velocity v.
      accumulator_dtype: the dtype of v; by default the parameters'.
    """
    return chain(scale_by_learning_rate(learning_rate), trace(momentum, False, accumulator_dtype))


@pickled_as_call
def nesterov(learning_rate: Rate, momentum: Any = 0.9, accumulator_dtype: Any = None) -> GradientTransformation:
    """`momentum` with the gradient taken ahead, at p + momentum v. Nesterov (1983), Bengio et al. (2012).

    The parameters that it is given, and updates, are those points ahead: q = p + momentum v moves by
    momentum v - a g, for the new v.

    Args:
      learning_rate, momentum, accumulator_dtype: as in `momentum`.
    """
    return chain(scale_by_learning_rate(learning_rate), trace(momentum, True, accumulator_dtype))


@pickled_as_call
def sgdw(
    learning_rate: Rate,
    momentum: Any = None,
    nesterov: bool = False,
    accumulator_dtype: Any = None,
    weight_decay: Rate = 1e-4,
    mask: Mask = None,
) -> GradientTransformation:
    """`sgd` with decoupled weight decay: p - a (t + weight_decay p). Loshchilov and Hutter (2017), algorithm 1.

    Args:
      learning_rate, momentum, nesterov, accumulator_dtype: as in `sgd`.
      weight_decay, mask: as in `add_decayed_weights`.
    """
    return chain(
        _momentum(momentum, nesterov, accumulator_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )


@pickled_as_call
def sgd_l1(
    learning_rate: Rate, l1: Any, momentum: Any = None, nesterov: bool = False, mask: Mask = None
) -> GradientTransformation:
    """`sgd` with an L1 step that ends at 0: p - a t - min(a l1, |p|) sign(p). Straka, "Deep learning" (2023).

    Args:
      learning_rate, momentum, nesterov: as in `sgd`.
      l1, mask: as in `add_l1_step`.
    """
    return chain(sgd(learning_rate, momentum, nesterov), add_l1_step(learning_rate, l1, mask))


@pickled_as_call
def lion(
    learning_rate: Rate,
    b1: Any = 0.9,
    b2: Any = 0.99,
    mu_dtype: Any = None,
    weight_decay: Rate = 1e-3,
    mask: Mask = None,
) -> GradientTransformation:
    """p - a (sign(b1 mu + (1 - b1) g) + weight_decay p). Chen et al., "Symbolic discovery of optimizers" (2023).

    Args:
      learning_rate: a number, a scalar array, or a schedule; a third to a tenth of Adam's.
      b1: between the gradient and its running mean.
      b2: the decay of the mean.
      mu_dtype: the dtype of the mean; by default the parameters'.
      weight_decay, mask: as in `add_decayed_weights`.
    """
    return chain(
        scale_by_lion(b1, b2, mu_dtype), add_decayed_weights(weight_decay, mask), scale_by_learning_rate(learning_rate)
    )


# -- by running means of squares


@pickled_as_call
def adagrad(learning_rate: Rate, initial_accumulator_value: Any = 0.1, eps: Any = 1e-7) -> GradientTransformation:
    """s = s + g^2; p - a g / sqrt(s + eps). Duchi, Hazan and Singer (2011).

    Args:
      learning_rate: a number, a scalar array, or a schedule.
      initial_accumulator_value: what s starts from.
      eps: against division by 0.
    """
    return chain(scale_by_rss(initial_accumulator_value, eps), scale_by_learning_rate(learning_rate))


@pickled_as_call
def rmsprop(
    learning_rate: Rate,
    decay: Any = 0.9,
    eps: Any = 1e-8,
    initial_scale: Any = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: Any = None,
    nesterov: bool = False,
    bias_correction: bool = False,
) -> GradientTransformation:
    """p - a g / sqrt(v + eps), for v the running mean of the square. Tieleman and Hinton (2012).

    Args:
      learning_rate: a number, a scalar array, or a schedule.
      decay, eps, initial_scale, eps_in_sqrt, bias_correction: as in `scale_by_rms`.
      centered: whether v is the variance. Graves (2013).
      momentum, nesterov: as in `sgd`, of what is scaled already.
    """
    by = scale_by_stddev if centered else scale_by_rms
    return chain(
        by(decay, eps, initial_scale, eps_in_sqrt, bias_correction),
        scale_by_learning_rate(learning_rate),
        _momentum(momentum, nesterov),
    )


@pickled_as_call
def adam(
    learning_rate: Rate,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    eps_root: Any = 0.0,
    mu_dtype: Any = None,
    *,
    nesterov: bool = False,
) -> GradientTransformation:
    """Adam: p - a m / (sqrt(v) + eps), for m and v as in `scale_by_adam`. Kingma and Ba (2014).

    Args:
      learning_rate: a number, a scalar array, or a schedule: a function from the step count to one of these.
      b1, b2: the decay of the running means of the gradient and of its square.
      eps: added to the root, against division by 0.
      eps_root: added under the root, for gradients through the optimizer.
      mu_dtype: the dtype of the first moment; by default the parameters'.
      nesterov: whether the first moment looks ahead by one step. Dozat (2016).
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov), scale_by_learning_rate(learning_rate)
    )


@pickled_as_call
def adamw(
    learning_rate: Rate,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    eps_root: Any = 0.0,
    mu_dtype: Any = None,
    weight_decay: Rate = 1e-4,
    mask: Mask = None,
    *,
    nesterov: bool = False,
) -> GradientTransformation:
    """Adam with decoupled weight decay: p - a (m / (sqrt(v) + eps) + weight_decay p).

    Loshchilov and Hutter, "Decoupled weight decay regularization" (2017).

    Args:
      learning_rate, b1, b2, eps, eps_root, mu_dtype, nesterov: as in `adam`.
      weight_decay: a number, or a schedule.
      mask: which parameters to decay, as in `add_decayed_weights`.
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )


@pickled_as_call
def nadam(
    learning_rate: Rate, b1: Any = 0.9, b2: Any = 0.999, eps: Any = 1e-8, eps_root: Any = 0.0, mu_dtype: Any = None
) -> GradientTransformation:
    """`adam` with Nesterov's momentum, `adam(..., nesterov=True)`. Dozat (2016)."""
    return adam(learning_rate, b1, b2, eps, eps_root, mu_dtype, nesterov=True)


@pickled_as_call
def nadamw(
    learning_rate: Rate,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    eps_root: Any = 0.0,
    mu_dtype: Any = None,
    weight_decay: Rate = 1e-4,
    mask: Mask = None,
) -> GradientTransformation:
    """`adamw` with Nesterov's momentum, `adamw(..., nesterov=True)`. Dozat (2016)."""
    return adamw(learning_rate, b1, b2, eps, eps_root, mu_dtype, weight_decay, mask, nesterov=True)


@pickled_as_call
def radam(
    learning_rate: Rate,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    eps_root: Any = 0.0,
    threshold: Any = 5.0,
    *,
    nesterov: bool = False,
) -> GradientTransformation:
    """Rectified Adam: small steps while the second moment is hardly known. Liu et al. (2019).

    Args:
      learning_rate, b1, b2, eps, eps_root, nesterov: as in `adam`.
      threshold: of the length of the average from which on the second moment is used.
    """
    return chain(
        scale_by_radam(b1, b2, eps, eps_root, threshold, nesterov=nesterov), scale_by_learning_rate(learning_rate)
    )


@pickled_as_call
def lamb(
    learning_rate: Rate,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-6,
    eps_root: Any = 0.0,
    weight_decay: Rate = 0.0,
    mask: Mask = None,
) -> GradientTransformation:
    """Adam's step, in each array as long as the array is: for large batches. You et al. (2019).

    Args:
      learning_rate, b1, b2, eps, eps_root: as in `adam`.
      weight_decay, mask: as in `add_decayed_weights`.
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root),
        add_decayed_weights(weight_decay, mask),
        scale_by_trust_ratio(),
        scale_by_learning_rate(learning_rate),
    )


@pickled_as_call
def adafactor(
    learning_rate: Rate | None = None,
    min_dim_size_to_factor: int = 128,
    decay_rate: Any = 0.8,
    decay_offset: Any = 0,
    multiply_by_parameter_scale: bool = True,
    clipping_threshold: Any = 1.0,
    momentum: Any = None,
    dtype_momentum: Any = np.float32,
    weight_decay_rate: Rate | None = None,
    eps: Any = 1e-30,
    factored: bool = True,
    weight_decay_mask: Mask = None,
) -> GradientTransformation:
    """Adam's second moment by rows and columns, and no first: little memory. Shazeer and Stern (2018).

    Args:
      learning_rate: a number, a scalar array, or a schedule; `None` for 1.
      min_dim_size_to_factor, decay_rate, decay_offset, eps, factored: as in `scale_by_factored_rms`.
      multiply_by_parameter_scale: whether steps are relative to the size of the parameters.
      clipping_threshold: of the root mean square of each array's step; `None` for none.
      momentum, dtype_momentum: the decay of a running mean of the steps, and its dtype; `None` for none.
      weight_decay_rate, weight_decay_mask: as in `add_decayed_weights`, not times the learning rate.
    """
    steps = [scale_by_factored_rms(factored, decay_rate, decay_offset, min_dim_size_to_factor, eps)]
    if clipping_threshold is not None:
        steps.append(clip_by_block_rms(clipping_threshold))
    if learning_rate is not None:
        steps.append(scale_by_learning_rate(learning_rate, flip_sign=False))
    if multiply_by_parameter_scale:
        steps.append(scale_by_param_block_rms())
    if momentum is not None:
        steps.append(ema(momentum, False, dtype_momentum))
    if weight_decay_rate is not None:
        steps.append(add_decayed_weights(weight_decay_rate, weight_decay_mask))
    return chain(*steps, scale(-1.0))


__all__ = [
    "adafactor", "adagrad", "adam", "adamw", "lamb", "lion", "momentum", "nadam", "nadamw", "nesterov", "radam",
    "rmsprop", "sgd", "sgd_l1", "sgdw",
]  # fmt: skip
