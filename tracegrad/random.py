"""Random keys and numbers: `jax.random`'s names, arguments and bits, recorded like the rest. Use ops.

Every function takes a key first, a typed one (from `key`) or a raw one of two or more uint32 (from
`PRNGKey`), and returns the same numbers as the function of that name in `jax.random` for the same key.
Shapes (of the result) and dtypes are static; keys, bounds and probabilities may be traced. A key has no gradient.
Floats are float32 and integers int32 by default, or of 64 bits with JAX's x64 flag; another kind is a `TypeError`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from . import numpy as tnp
from .errors import called, describe, here
from .names import listed
from .op import Op
from .ops import exp, mul, sub
from .tape import Aval, aval_of, make_aval

Shape = int | Sequence[int]


def _shape(shape: Shape, name: str = "shape") -> tuple[int, ...]:
    try:
        return (int(shape),) if isinstance(shape, (int, np.integer)) else tuple(int(n) for n in shape)
    except (TypeError, ValueError):
        raise TypeError(f"{called()}: {name} is {describe(shape)}, not a tuple of integers {here()}") from None


def _dtype(dtype: Any, kind: Any = np.floating) -> Any:
    default = int if kind is np.integer else float
    dtype = jax.dtypes.canonicalize_dtype(default if dtype is None else dtype)
    if not jnp.issubdtype(dtype, kind):
        raise TypeError(f"{called()}: dtype={dtype} {here()} is not a dtype of kind {kind.__name__}")
    return dtype


def _drawn(key: Aval, *others: Aval, shape: tuple[int, ...], dtype: Any, **params: Any) -> Aval:
    """The shape rule of an op that draws numbers of a given shape and dtype."""
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    if key.ndim != (0 if typed else 1) or not (typed or key.dtype == np.uint32):
        raise TypeError(
            f"the first argument is {key}, not a random key. Make one with tracegrad.random.key(seed), or one of "
            "several with tracegrad.random.split(key)."
        )
    for other in others:
        if np.broadcast_shapes(other.shape, shape) != shape:
            raise ValueError(
                f"an argument of shape {other.shape} does not broadcast to the shape {shape} of the result"
            )
    return make_aval(shape, dtype)


# -- keys


_key = Op("random_key", jax.random.key)
_raw_key = Op("random_raw_key", jax.random.PRNGKey)
_split = Op("random_split", jax.random.split)
_fold_in = Op("random_fold_in", jax.random.fold_in)


def _as_key(key: Any) -> Any:
    """`key`, if it is an array: a seed or a shape in its place is named before an op takes it for one."""
    if not hasattr(key, "dtype"):
        raise TypeError(
            f"{called()}: key, the first argument, is {describe(key)}, not a random key {here()}. Make one with "
            "tracegrad.random.key(seed), or one of several with tracegrad.random.split(key)."
        )
    return key


def _seed(seed: Any) -> Any:
    """A Python integer of any size as JAX takes it: 64 bits of it, or its lowest 32 without the x64 flag."""
    if not isinstance(seed, int):
        return seed
    wide = seed & 0xFFFF_FFFF_FFFF_FFFF
    if not jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        return np.uint32(wide & 0xFFFF_FFFF)
    return np.uint64(wide).astype(np.int64)


def key(seed: Any, *, impl: str | None = None) -> Any:
    """A random key from an integer.

    Args:
      seed: an integer, or an integer scalar array.
      impl: the generator, by default "threefry2x32".

    Example:
      >>> from tracegrad import random
      >>> random.key(0).dtype
      key<fry>
    """
    return _key(_seed(seed), impl=impl)


def PRNGKey(seed: Any, *, impl: str | None = None) -> Any:
    """A raw random key, an array of uint32, from an integer; prefer `key`.

    Example:
      >>> from tracegrad import random
      >>> random.PRNGKey(7).tolist()
      [0, 7]
    """
    return _raw_key(_seed(seed), impl=impl)


def split(key: Any, num: int | tuple[int, ...] = 2) -> Any:
    """`num` new keys from one: an array of them, which can be unpacked. Use each key once.

    Example:
      >>> from tracegrad import random
      >>> key, subkey = random.split(random.key(0))
      >>> random.split(key, 3).shape
      (3,)
    """
    shape = _shape(num, "num")
    return _split(_as_key(key), num=shape if isinstance(num, Sequence) else shape[0])


def fold_in(key: Any, data: Any) -> Any:
    """A new key from a key and an integer, such as the number of the step or of the device.

    Example:
      >>> from tracegrad import random
      >>> random.fold_in(random.key(0), 3).shape
      ()
    """
    return _fold_in(_as_key(key), data)


# -- floats


def _share(key: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """The uniform number in [0, 1) that `uniform` and `truncated_normal` scaled to their bounds."""
    return _uniform(key, 0.0, 1.0, shape=shape, dtype=dtype)


def _to_lower(x: Any, bound: Any) -> Any:
    return exp(mul(sub(mul(x, x), mul(bound, bound)), 0.5))


_uniform: Op = Op(
    "random_uniform",
    lambda key, minval, maxval, *, shape, dtype: jax.random.uniform(key, shape, dtype, minval, maxval),
    (
        None,
        lambda ct, out, key, lo, hi, *, shape, dtype: mul(ct, sub(1.0, _share(key, shape, dtype))),
        lambda ct, out, key, lo, hi, *, shape, dtype: mul(ct, _share(key, shape, dtype)),
    ),
    shape=_drawn,
)
# With F the normal distribution function, x solves F(x) = (1 - u) F(lower) + u F(upper): differentiate that.
_truncated_normal = Op(
    "random_truncated_normal",
    lambda key, lower, upper, *, shape, dtype: jax.random.truncated_normal(key, lower, upper, shape, dtype),
    (
        None,
        lambda ct, out, key, lo, hi, *, shape, dtype: mul(
            ct, mul(sub(1.0, _share(key, out.shape, dtype)), _to_lower(out, lo))
        ),
        lambda ct, out, key, lo, hi, *, shape, dtype: mul(ct, mul(_share(key, out.shape, dtype), _to_lower(out, hi))),
    ),
)
_normal = Op("random_normal", jax.random.normal, shape=_drawn)
_exponential = Op("random_exponential", jax.random.exponential, shape=_drawn)
_gumbel = Op("random_gumbel", jax.random.gumbel, shape=_drawn)


def uniform(key: Any, shape: Shape = (), dtype: Any = None, minval: Any = 0.0, maxval: Any = 1.0) -> Any:
    """Uniform numbers in [minval, maxval); the bounds broadcast to `shape` and have gradients.

    Example:
      >>> from tracegrad import random
      >>> x = random.uniform(random.key(0), (1000,), minval=2.0, maxval=4.0)
      >>> bool((x >= 2).all() and (x < 4).all())
      True
    """
    return _uniform(_as_key(key), minval, maxval, shape=_shape(shape), dtype=_dtype(dtype))


def normal(key: Any, shape: Shape = (), dtype: Any = None) -> Any:
    """Standard normal numbers; `mean + std * normal(...)` has the gradients of mean and std.

    The dtype may be complex.

    Example:
      >>> from tracegrad import random
      >>> random.normal(random.key(0), (2, 3)).shape
      (2, 3)
    """
    return _normal(_as_key(key), shape=_shape(shape), dtype=_dtype(dtype, np.inexact))


def truncated_normal(key: Any, lower: Any, upper: Any, shape: Shape | None = None, dtype: Any = None) -> Any:
    """Standard normal numbers between `lower` and `upper`, which have gradients, and their shape by default.

    Example:
      >>> from tracegrad import random
      >>> x = random.truncated_normal(random.key(0), -1.0, 2.0, (1000,))
      >>> bool((x > -1).all() and (x < 2).all())
      True
    """
    shape = None if shape is None else _shape(shape)
    return _truncated_normal(_as_key(key), lower, upper, shape=shape, dtype=_dtype(dtype))


def exponential(key: Any, shape: Shape = (), dtype: Any = None) -> Any:
    """Numbers of the exponential distribution of mean 1.

    Example:
      >>> from tracegrad import random
      >>> bool(random.exponential(random.key(0)) >= 0)
      True
    """
    return _exponential(_as_key(key), shape=_shape(shape), dtype=_dtype(dtype))


def gumbel(key: Any, shape: Shape = (), dtype: Any = None, mode: str | None = None) -> Any:
    """Numbers of the standard Gumbel distribution: `argmax(logits + gumbel(...))` is a categorical sample.

    Args:
      mode: "high" to resolve the tails finely, at twice the random bits; "low" by default.

    Example:
      >>> from tracegrad import random
      >>> random.gumbel(random.key(0), (2, 3)).shape
      (2, 3)
    """
    return _gumbel(_as_key(key), shape=_shape(shape), dtype=_dtype(dtype), mode=mode)


# -- booleans and integers


_bernoulli = Op("random_bernoulli", jax.random.bernoulli)
_categorical = Op("random_categorical", jax.random.categorical)
_randint = Op(
    "random_randint",
    lambda key, minval, maxval, *, shape, dtype: jax.random.randint(key, shape, minval, maxval, dtype),
    shape=_drawn,
)
_choice = Op(
    "random_choice",
    lambda key, p=None, *, n, shape, replace, mode: jax.random.choice(key, n, shape, replace, p, mode=mode),
)


def bernoulli(key: Any, p: Any = 0.5, shape: Shape | None = None, mode: str = "low") -> Any:
    """Booleans that are True with probability `p`, which has no gradient: its effect is a jump.

    Args:
      p: a number or array, which gives the shape by default.
      mode: "high" to resolve very small `p` finely.

    Example:
      >>> from tracegrad import random
      >>> random.bernoulli(random.key(0), 1.0, (2,)).tolist()
      [True, True]
    """
    return _bernoulli(_as_key(key), p, shape=None if shape is None else _shape(shape), mode=mode)


def categorical(
    key: Any, logits: Any, axis: int = -1, shape: Shape | None = None, replace: bool = True, mode: str | None = None
) -> Any:
    """Indices along `axis`, drawn with the probabilities `softmax(logits, axis)`.

    Args:
      logits: unnormalised log-probabilities.
      axis: the axis of the categories.
      shape: of the result; it ends in the shape of `logits` without `axis`, which is the default.
      replace: whether one category may be drawn again for the same distribution.
      mode: as in `gumbel`.

    Example:
      >>> import numpy as np
      >>> from tracegrad import random
      >>> random.categorical(random.key(0), np.array([[0.0, -np.inf], [-np.inf, 0.0]])).tolist()
      [0, 1]
    """
    shape = None if shape is None else _shape(shape)
    return _categorical(_as_key(key), logits, axis=int(axis), shape=shape, replace=bool(replace), mode=mode)


def randint(key: Any, shape: Shape, minval: Any, maxval: Any, dtype: Any = None) -> Any:
    """Uniform integers in [minval, maxval); the bounds broadcast to `shape`.

    Example:
      >>> from tracegrad import random
      >>> sorted(set(random.randint(random.key(0), (100,), 0, 3).tolist()))
      [0, 1, 2]
    """
    return _randint(_as_key(key), minval, maxval, shape=_shape(shape), dtype=_dtype(dtype, np.integer))


def choice(
    key: Any,
    a: Any,
    shape: Shape = (),
    replace: bool = True,
    p: Any = None,
    axis: int = 0,
    mode: str | None = None,
) -> Any:
    """A sample of the elements of `a`, or of `range(a)`.

    Args:
      a: an array, or an integer.
      shape: of the sample.
      replace: whether an element may be drawn again.
      p: the probability of each element; by default all are equal. It has no gradient, `a` has.
      axis: the axis of `a` to draw along.
      mode: as in `gumbel`.

    Returns:
      The shape of `a` with `axis` replaced by `shape`.

    Example:
      >>> from tracegrad import random
      >>> sorted(random.choice(random.key(0), 4, (4,), replace=False).tolist())
      [0, 1, 2, 3]
    """
    alone = isinstance(a, (int, np.integer))
    aval = aval_of(a)
    if not alone and not -aval.ndim <= axis < aval.ndim:
        raise ValueError(f"{called()}: a is {aval}, which has no axis {axis} to draw along {here()}")
    n = int(a) if alone else aval.shape[axis]
    shape = _shape(shape)
    if n <= 0 < math.prod(shape):
        raise ValueError(f"{called()}: there are no elements to draw from {here()}")
    if not replace and math.prod(shape) > n:
        raise ValueError(
            f"{called()}: {math.prod(shape)} of {n} elements without replacement {here()}. Pass replace=True, or a "
            "smaller shape."
        )
    index = _choice(_as_key(key), *(() if p is None else (p,)), n=n, shape=shape, replace=bool(replace), mode=mode)
    return index if alone else tnp.take(a, index, axis=axis)


# -- permutations


def _permute(key: Any, x: Any, *, axis: int, independent: bool, inverse: bool) -> Any:
    if not inverse:
        return jax.random.permutation(key, x, axis, independent)
    # The same permutation of positions says where each element went.
    if independent or x.ndim == 1:
        order = jax.random.permutation(key, jax.lax.broadcasted_iota(np.int32, x.shape, axis), axis, independent)
        return jnp.take_along_axis(x, jnp.argsort(order, axis), axis)
    return jnp.take(x, jnp.argsort(jax.random.permutation(key, x.shape[axis])), axis)


_permutation_of_range = Op("random_permutation_of_range", lambda key, *, n: jax.random.permutation(key, n))
_permutation: Op = Op(
    "random_permutation",
    _permute,
    (
        None,
        lambda ct, out, key, x, *, axis, independent, inverse: _permutation(
            key, ct, axis=axis, independent=independent, inverse=not inverse
        ),
    ),
    shape=lambda key, x, **params: x,
)


def permutation(key: Any, x: Any, axis: int = 0, independent: bool = False) -> Any:
    """`x` in a random order along an axis, or the numbers below `x` in a random order.

    Args:
      x: an array, or an integer.
      axis: the axis to shuffle along.
      independent: whether each vector along `axis` has an order of its own.

    Example:
      >>> from tracegrad import random
      >>> sorted(random.permutation(random.key(0), 5).tolist())
      [0, 1, 2, 3, 4]
    """
    if isinstance(x, (int, np.integer)):
        return _permutation_of_range(_as_key(key), n=int(x))
    aval = aval_of(x)
    if not -aval.ndim <= axis < aval.ndim:
        raise ValueError(f"{called()}: x is {aval}, which has no axis {axis} {here()}")
    return _permutation(_as_key(key), x, axis=axis % aval.ndim, independent=bool(independent), inverse=False)


__all__ = [
    "PRNGKey", "bernoulli", "categorical", "choice", "exponential", "fold_in", "gumbel", "key", "normal",
    "permutation", "randint", "split", "truncated_normal", "uniform",
]  # fmt: skip

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
