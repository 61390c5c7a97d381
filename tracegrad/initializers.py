"""Initial values of parameters: functions that return one, `init(key, shape, dtype=...)`. Use ops.

This is the protocol of `jax.nn.initializers`, whose names, arguments and values these follow. The fan-in of a
kernel is the number of inputs to each of its outputs: for a dense kernel of shape `(in, out)` it is `in`, for
a convolution's of shape `(..., in, out)` it is `in` times the size of its window; the fan-out likewise. Initializers
can be pickled. What looks at a whole model and a batch is with the layers: `nn.lsuv` scales each kernel so that its
layer's output has variance 1, and `nn.layer_statistics` shows how the outputs are spread.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from . import ops, random
from .errors import called, describe, here
from .names import listed
from .op import Op
from .pickling import pickled_as_call
from .tape import aval_of, make_aval
from .tracer import literal

Initializer = Callable[..., Any]
Axes = int | Sequence[int]


def _floats(dtype: Any) -> Any:
    return jax.dtypes.canonicalize_dtype(float if dtype is None else dtype)


def _full(value: Any, shape: Sequence[int], dtype: Any) -> Any:
    scalar = literal(value) if isinstance(value, (bool, int, float, complex)) else value
    return ops.astype(ops.broadcast_to(scalar, tuple(int(n) for n in shape)), dtype=_floats(dtype))


def _scaled(x: Any, scale: Any, dtype: Any) -> Any:
    return x * np.asarray(scale, dtype)[()] if isinstance(scale, (int, float)) else x * ops.astype(scale, dtype=dtype)


def _settings(integers: bool = False, **values: Any) -> None:
    """Raises unless these are numbers: an initializer's own arguments are often given to what makes it."""
    kinds, what = ((np.integer,), "an axis") if integers else ((np.integer, np.floating), "a number")
    for name, value in values.items():
        for x in value if integers and isinstance(value, (tuple, list)) else (value,):
            try:
                known = any(jnp.issubdtype(aval_of(x).dtype, kind) for kind in kinds)
            except TypeError:
                known = False
            if not known:
                raise TypeError(
                    f"{name} is {describe(value)}, not {what} {here()}. An initializer is made first, and called then: "
                    "he_normal()(key, shape)."
                )


def _drawing(default: Any, draw: Callable[[Any, tuple[int, ...], Any], Any]) -> Initializer:
    """The initializer that draws numbers by `draw(key, shape, dtype)`, of this dtype by default."""

    def init(key: Any, shape: Sequence[int], dtype: Any = None) -> Any:
        return draw(key, tuple(int(n) for n in shape), _floats(default if dtype is None else dtype))

    return init


def zeros(key: Any, shape: Sequence[int], dtype: Any = None) -> Any:
    """An initializer itself: all 0.

    Example:
      >>> from tracegrad import initializers
      >>> initializers.zeros(None, (2,)).tolist()
      [0.0, 0.0]
    """
    return _full(0, shape, dtype)


def ones(key: Any, shape: Sequence[int], dtype: Any = None) -> Any:
    """An initializer itself: all 1."""
    return _full(1, shape, dtype)


@pickled_as_call
def constant(value: Any, dtype: Any = None) -> Initializer:
    """All `value`, a number or an array that broadcasts to the shape.

    Example:
      >>> from tracegrad import initializers
      >>> initializers.constant(0.5)(None, (2,)).tolist()
      [0.5, 0.5]
    """
    return _drawing(dtype, lambda key, shape, dtype: _full(value, shape, dtype))


@pickled_as_call
def uniform(scale: Any = 1e-2, dtype: Any = None) -> Initializer:
    """Uniform in [0, scale).

    Example:
      >>> from tracegrad import initializers, random
      >>> initializers.uniform(2.0)(random.key(0), (3, 4)).shape
      (3, 4)
    """
    _settings(scale=scale)
    return _drawing(dtype, lambda key, shape, dtype: _scaled(random.uniform(key, shape, dtype), scale, dtype))


@pickled_as_call
def normal(stddev: Any = 1e-2, dtype: Any = None) -> Initializer:
    """Normal of mean 0 and this standard deviation."""
    _settings(stddev=stddev)
    return _drawing(dtype, lambda key, shape, dtype: _scaled(random.normal(key, shape, dtype), stddev, dtype))


@pickled_as_call
def truncated_normal(stddev: Any = 1e-2, dtype: Any = None, lower: Any = -2.0, upper: Any = 2.0) -> Initializer:
    """`stddev` times a standard normal number between `lower` and `upper`, whose own deviation is below 1."""
    _settings(stddev=stddev, lower=lower, upper=upper)
    return _drawing(
        dtype,
        lambda key, shape, dtype: _scaled(random.truncated_normal(key, lower, upper, shape, dtype), stddev, dtype),
    )


# -- scaled to the size of the layer


def _size(shape: Sequence[int], axes: Axes) -> int:
    return math.prod(shape[i] for i in ((axes,) if isinstance(axes, int) else axes))


def fans(shape: Sequence[int], in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = ()) -> tuple[float, float]:
    """The fan-in and fan-out of a kernel of this shape.

    Args:
      shape: of the kernel.
      in_axis, out_axis: the axis, or axes, of inputs and of outputs.
      batch_axis: axes along which there are kernels of their own, such as those of an ensemble.

    Example:
      >>> from tracegrad import initializers
      >>> initializers.fans((3, 3, 16, 32))
      (144, 288)
    """
    shape = tuple(int(n) for n in shape)
    try:
        inputs, outputs, batch = _size(shape, in_axis), _size(shape, out_axis), _size(shape, batch_axis)
    except IndexError:
        raise ValueError(
            f"a parameter of shape {shape} has no fan-in and fan-out along in_axis={in_axis} and out_axis={out_axis} "
            f"{here()}. A kernel has at least two axes; for a bias use zeros or normal."
        ) from None
    window = math.prod(shape) // max(1, inputs * outputs * batch)
    return inputs * window, outputs * window


@pickled_as_call
def variance_scaling(
    scale: float,
    mode: str,
    distribution: str,
    in_axis: Axes = -2,
    out_axis: Axes = -1,
    batch_axis: Axes = (),
    dtype: Any = None,
) -> Initializer:
    """Numbers of mean 0 and variance `scale / n`, for n the fan-in, the fan-out or their mean.

    Args:
      scale: a positive number.
      mode: what n is: "fan_in", "fan_out", "fan_avg" or "fan_geo_avg".
      distribution: "uniform", "normal", or "truncated_normal" (cut at two standard deviations).
      in_axis, out_axis, batch_axis: as in `fans`.
      dtype: of the result, unless `init` is given one; by default float32, float64 with JAX's x64 flag.

    Raises:
      ValueError: for an unknown mode or distribution; from `init`, if the shape has not enough axes.

    Example:
      >>> from tracegrad import initializers, random
      >>> init = initializers.variance_scaling(1.0, "fan_in", "normal")
      >>> round(float(init(random.key(0), (100, 1000)).std()), 2)
      0.1
    """
    _settings(integers=True, in_axis=in_axis, out_axis=out_axis, batch_axis=batch_axis)
    modes = ("fan_in", "fan_out", "fan_avg", "fan_geo_avg")
    if mode not in modes:
        raise ValueError(f"{called()}: mode={mode!r} {here()}: choose one of {', '.join(modes)}")
    if distribution not in ("uniform", "normal", "truncated_normal"):
        raise ValueError(
            f"{called()}: distribution={distribution!r} {here()}: choose uniform, normal or truncated_normal"
        )

    def draw(key: Any, shape: tuple[int, ...], dtype: Any) -> Any:
        fan_in, fan_out = fans(shape, in_axis, out_axis, batch_axis)
        average, geometric = (fan_in + fan_out) / 2, math.sqrt(fan_in * fan_out)
        n = dict(zip(modes, (fan_in, fan_out, average, geometric), strict=True))[mode]
        variance = np.asarray(scale / max(n, 1), dtype)
        if distribution == "uniform":
            return random.uniform(key, shape, dtype, -1.0) * np.sqrt(np.asarray(3, dtype) * variance)
        if distribution == "normal":
            return random.normal(key, shape, dtype) * np.sqrt(variance)
        # The standard deviation of a standard normal number cut at -2 and 2.
        stddev = np.sqrt(variance) / np.asarray(0.87962566103423978, dtype)
        return random.truncated_normal(key, -2.0, 2.0, shape, dtype) * stddev

    return _drawing(dtype, draw)


def glorot_uniform(in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), dtype: Any = None) -> Initializer:
    """Uniform in +-sqrt(6 / (fan_in + fan_out)), also `xavier_uniform`. Glorot and Bengio (2010).

    Example:
      >>> from tracegrad import initializers, random
      >>> initializers.glorot_uniform()(random.key(0), (784, 256)).shape
      (784, 256)
    """
    return variance_scaling(1.0, "fan_avg", "uniform", in_axis, out_axis, batch_axis, dtype)


def glorot_normal(in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), dtype: Any = None) -> Initializer:
    """Truncated normal of variance 2 / (fan_in + fan_out), also `xavier_normal`. Glorot and Bengio (2010)."""
    return variance_scaling(1.0, "fan_avg", "truncated_normal", in_axis, out_axis, batch_axis, dtype)


def he_uniform(in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), dtype: Any = None) -> Initializer:
    """Uniform in +-sqrt(6 / fan_in), also `kaiming_uniform`, for relu. He et al. (2015)."""
    return variance_scaling(2.0, "fan_in", "uniform", in_axis, out_axis, batch_axis, dtype)


def he_normal(in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), dtype: Any = None) -> Initializer:
    """Truncated normal of variance 2 / fan_in, also `kaiming_normal`, for relu. He et al. (2015)."""
    return variance_scaling(2.0, "fan_in", "truncated_normal", in_axis, out_axis, batch_axis, dtype)


def lecun_uniform(in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), dtype: Any = None) -> Initializer:
    """Uniform in +-sqrt(3 / fan_in). LeCun et al., "Efficient backprop" (1998)."""
    return variance_scaling(1.0, "fan_in", "uniform", in_axis, out_axis, batch_axis, dtype)


def lecun_normal(in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), dtype: Any = None) -> Initializer:
    """Truncated normal of variance 1 / fan_in. LeCun et al., "Efficient backprop" (1998)."""
    return variance_scaling(1.0, "fan_in", "truncated_normal", in_axis, out_axis, batch_axis, dtype)


def uniform_fan_in(in_axis: Axes = -2, out_axis: Axes = -1, batch_axis: Axes = (), dtype: Any = None) -> Initializer:
    """Uniform in +-1 / sqrt(fan_in). Straka, "Training neural networks II" (2022)."""
    return variance_scaling(1 / 3, "fan_in", "uniform", in_axis, out_axis, batch_axis, dtype)


xavier_uniform, xavier_normal = glorot_uniform, glorot_normal
kaiming_uniform, kaiming_normal = he_uniform, he_normal


# -- orthogonal


def _orthogonal_matrix(key: Any, *, rows: int, columns: int, dtype: Any) -> Any:
    """The orthogonal factor of a matrix of normal numbers, with the signs that make it uniform.

    Mezzadri, "How to generate random matrices from the classical compact groups" (2007).
    """
    tall, wide = max(rows, columns), min(rows, columns)
    working = np.promote_types(dtype, np.float32)
    q, r = jnp.linalg.qr(jax.random.normal(key, (tall, wide), working))
    diagonal = jnp.diagonal(r)
    # sign(0) = 1, whatever the sign of the zero.
    q = q * jnp.where(diagonal < 0, -1, 1).astype(working)
    return (q if rows >= columns else q.T).astype(dtype)


_orthogonal = Op(
    "random_orthogonal",
    _orthogonal_matrix,
    shape=lambda key, *, rows, columns, dtype: make_aval((rows, columns), dtype),
)


@pickled_as_call
def orthogonal(scale: float = 1.0, column_axis: int = -1, dtype: Any = None) -> Initializer:
    """`scale` times a matrix with orthonormal columns, or rows where there are fewer of these.

    Saxe, McClelland and Ganguli, "Exact solutions to the nonlinear dynamics of learning" (2013). Of more than
    two axes, all but `column_axis` count the rows.

    Raises:
      ValueError: from `init`, if the shape has fewer than two axes.

    Example:
      >>> import numpy as np
      >>> from tracegrad import initializers, random
      >>> q = initializers.orthogonal()(random.key(0), (5, 3))
      >>> bool(np.allclose(q.T @ q, np.eye(3), atol=1e-5))
      True
    """
    _settings(scale=scale)

    def draw(key: Any, shape: tuple[int, ...], dtype: Any) -> Any:
        if len(shape) < 2:
            raise ValueError(f"an orthogonal parameter of shape {shape} {here()} needs at least two axes")
        if 0 in shape:
            return _full(0, shape, dtype)
        axis = column_axis % len(shape)
        columns = shape[axis]
        q = _orthogonal(key, rows=math.prod(shape) // columns, columns=columns, dtype=dtype)
        rest = shape[:axis] + shape[axis + 1 :]
        last = len(shape) - 1
        order = tuple(last if i == axis else i - (i > axis) for i in range(len(shape)))
        return ops.transpose(ops.reshape(q, shape=(*rest, columns)), axes=order) * np.asarray(scale, dtype)

    return _drawing(dtype, draw)


__all__ = [
    "Initializer", "constant", "fans", "glorot_normal", "glorot_uniform", "he_normal", "he_uniform", "kaiming_normal",
    "kaiming_uniform", "lecun_normal", "lecun_uniform", "normal", "ones", "orthogonal", "truncated_normal", "uniform",
    "uniform_fan_in", "variance_scaling", "xavier_normal", "xavier_uniform", "zeros",
]  # fmt: skip

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
