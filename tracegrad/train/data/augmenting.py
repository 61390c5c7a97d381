"""Training examples made of others, at random from a key: pure functions of arrays, for `jit`, `vmap` and `pmap`.

Images have shape `(N, H, W, C)`, and each is changed on its own; what is beyond the edge of one is `fill`. Values
between pixels are interpolated linearly, and have gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ... import numpy as tnp
from ... import random
from ...batching import vmap
from ...errors import called, describe, here
from ...op import Op
from ...scipy.ndimage import map_coordinates
from ...tape import aval_of

Range = float | tuple[float, float]

_beta = Op(
    "random_beta",
    lambda key, *, a, b, shape, dtype: jax.random.beta(key, a, b, shape, dtype),
    None,
)


def mixup(key: Any, x: Any, y: Any, alpha: float = 0.2) -> tuple[Any, Any]:
    """Each example mixed with another of the batch: l x_i + (1 - l) x_j, and their labels likewise.

    With l from Beta(alpha, alpha), one an example, and j a permutation of the batch. Zhang et al., "mixup" (2018).

    Args:
      key: a random key.
      x: a pytree of float arrays, the examples along their first axis.
      y: one-hot labels or probabilities, of shape `(N, K)`.
      alpha: more than 0; how much is mixed.

    Returns:
      The mixed `x` and `y`.

    Raises:
      TypeError: if the labels are integers.
      ValueError: if `x` and `y` differ in how many examples they have, or `alpha` is not positive.

    Example:
      >>> import numpy as np, tracegrad as tg
      >>> from tracegrad.train import data
      >>> x, y = data.mixup(tg.random.key(0), np.eye(4), np.eye(4))
      >>> bool((x == y).all()), np.allclose(y.sum(1), 1)
      (True, True)
    """
    labels = aval_of(y)
    if not jnp.issubdtype(labels.dtype, jnp.floating):
        raise TypeError(
            f"{called()}: y is {describe(y)}, and a mixture of labels is no integer {here()}. Make them one-hot: "
            "nn.one_hot(y, num_classes)."
        )
    if isinstance(alpha, (int, float)) and not alpha > 0:
        raise ValueError(f"{called()}: alpha={alpha} {here()}. Give a positive number.")
    leaves = [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(x)]
    for path, leaf in leaves:
        if aval_of(leaf).shape[:1] != labels.shape[:1] or not labels.shape:
            raise ValueError(
                f"{called()}: x{path} of shape {aval_of(leaf).shape} and y of shape {labels.shape} {here()}. Give one "
                "label an example, along the first axis."
            )
        if not jnp.issubdtype(aval_of(leaf).dtype, jnp.floating):
            raise TypeError(
                f"{called()}: x{path} is {describe(leaf)}, and a mixture is no integer {here()}. Convert it with "
                ".astype(float)."
            )
    n = labels.shape[0]
    of_share, of_partner = random.split(key)
    share = _beta(of_share, a=float(alpha), b=float(alpha), shape=(n,), dtype=jax.dtypes.canonicalize_dtype(float))
    partner = random.permutation(of_partner, n)

    def mixed(a: Any) -> Any:
        a = tnp.asarray(a)
        part = tnp.astype(share, a.dtype).reshape(n, *[1] * (a.ndim - 1))
        return part * a + (1 - part) * a[partner]

    return jax.tree.map(mixed, x), mixed(y)


def flip(key: Any, images: Any, *, horizontal: float = 0.5, vertical: float = 0.0) -> Any:
    """Each image mirrored or not.

    Args:
      key: a random key.
      images: shape `(N, H, W, C)`, of any dtype.
      horizontal, vertical: with which probability left and right, top and bottom, are exchanged.

    Example:
      >>> import numpy as np, tracegrad as tg
      >>> from tracegrad.train import data
      >>> image = np.arange(4.0).reshape(1, 2, 2, 1)
      >>> data.flip(tg.random.key(0), image, horizontal=1.0)[0, :, :, 0].tolist()
      [[1.0, 0.0], [3.0, 2.0]]
    """
    images = _images(images)
    for what, p in (("horizontal", horizontal), ("vertical", vertical)):
        if isinstance(p, (int, float)) and not 0 <= p <= 1:
            raise ValueError(f"{called()}: {what}={p} {here()} is a probability: give a number from 0 to 1.")
    for k, p, axis in zip(random.split(key), (horizontal, vertical), (2, 1), strict=True):
        if p is not False and not (isinstance(p, (int, float)) and p == 0):
            images = tnp.where(random.bernoulli(k, p, (images.shape[0], 1, 1, 1)), tnp.flip(images, axis), images)
    return images


def translate(key: Any, images: Any, pixels: int | tuple[int, int] = 2, *, fill: float = 0.0) -> Any:
    """Each image moved by whole pixels, as far as `pixels` up or down and left or right.

    Args:
      key: a random key.
      images: shape `(N, H, W, C)`, of any dtype.
      pixels: how far at most; or how far along the height and along the width.
      fill: what comes in from beyond the edge.

    Example:
      >>> import numpy as np, tracegrad as tg
      >>> from tracegrad.train import data
      >>> data.translate(tg.random.key(0), np.ones((8, 28, 28, 1)), 3).shape
      (8, 28, 28, 1)
    """
    images = _images(images)
    n, height, width, _ = images.shape
    reach = (pixels, pixels) if isinstance(pixels, int) else tuple(pixels)
    if len(reach) != 2 or any(not isinstance(p, (int, np.integer)) or p < 0 for p in reach):
        raise ValueError(f"{called()}: pixels={pixels!r} {here()}. Give an integer, 0 or more, or a pair of them.")
    y, x = (random.randint(k, (n,), -p, p + 1) for k, p in zip(random.split(key), reach, strict=True))
    rows, columns = (tnp.arange(size) - shift[:, None] for size, shift in ((height, y), (width, x)))
    inside = ((rows >= 0) & (rows < height))[:, :, None, None] & ((columns >= 0) & (columns < width))[:, None, :, None]
    rows, columns = tnp.clip(rows, 0, max(height - 1, 0)), tnp.clip(columns, 0, max(width - 1, 0))
    moved = images[tnp.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return tnp.where(inside, moved, tnp.asarray(fill, images.dtype))


def scale(key: Any, images: Any, factor: Range = (0.8, 1.2), *, fill: float = 0.0) -> Any:
    """Each image made larger or smaller about its centre.

    Args:
      key: a random key.
      images: shape `(N, H, W, C)`, of float dtype.
      factor: the least and the greatest; above 1 is larger. A number f is (1 - f, 1 + f).
      fill: what comes in from beyond the edge.

    Example:
      >>> import numpy as np, tracegrad as tg
      >>> from tracegrad.train import data
      >>> image = np.ones((1, 4, 4, 1))
      >>> data.scale(tg.random.key(0), image, (0.5, 0.5))[0, :, :, 0].tolist()[0]
      [0.0, 0.0, 0.0, 0.0]
    """
    low, high = _range(factor, "factor", 1.0)
    if low <= 0:
        raise ValueError(f"{called()}: factor={factor} {here()}. Give positive numbers.")
    images = _images(images, floats=True)
    size = random.uniform(key, (images.shape[0],), minval=low, maxval=high) if low < high else _same(images, low)
    zero = tnp.zeros_like(size)
    return _resampled(images, 1 / size, zero, fill)


def rotate(key: Any, images: Any, degrees: Range = 15.0, *, fill: float = 0.0) -> Any:
    """Each image turned about its centre.

    Args:
      key: a random key.
      images: shape `(N, H, W, C)`, of float dtype.
      degrees: the least and the greatest angle, counter-clockwise. A number d is (-d, d).
      fill: what comes in from beyond the edge.

    Example:
      >>> import numpy as np, tracegrad as tg
      >>> from tracegrad.train import data
      >>> image = np.arange(4.0, dtype=np.float32).reshape(1, 2, 2, 1)
      >>> data.rotate(tg.random.key(0), image, (90, 90))[0, :, :, 0].round().tolist()
      [[1.0, 3.0], [0.0, 2.0]]
    """
    low, high = _range(degrees, "degrees", 0.0)
    images = _images(images, floats=True)
    n = images.shape[0]
    turn = random.uniform(key, (n,), minval=low, maxval=high) if low < high else _same(images, low)
    angle = turn * (math.pi / 180)
    return _resampled(images, tnp.cos(angle), tnp.sin(angle), fill)


def colour(
    key: Any,
    images: Any,
    *,
    brightness: Range = 0.2,
    contrast: Range = 0.2,
    saturation: Range = 0.2,
    bounds: tuple[float, float] | None = (0.0, 1.0),
) -> Any:
    """Each image brighter or darker, with more or less contrast, and more or less colourful; in this order.

    By factors f, each at random: the brightness is f x, the contrast f x + (1 - f) m for the mean m of the image's
    grey, and the saturation f x + (1 - f) g for the grey g of each pixel, 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601).

    Args:
      key: a random key.
      images: shape `(N, H, W, C)`, of float dtype, with 3 colours or 1.
      brightness, contrast, saturation: the least and the greatest factor. A number f is (1 - f, 1 + f); 0 leaves it as
        it is.
      bounds: what each step's values are clipped to, or `None`.

    Example:
      >>> import numpy as np, tracegrad as tg
      >>> from tracegrad.train import data
      >>> data.colour(tg.random.key(0), np.full((2, 8, 8, 3), 0.5)).shape
      (2, 8, 8, 3)
    """
    images = _images(images, floats=True)
    channels = images.shape[-1]
    if channels not in (1, 3):
        raise ValueError(
            f"{called()}: images of shape {images.shape} have {channels} colours {here()}. Give 3, or 1 for grey."
        )
    weights = np.asarray([0.299, 0.587, 0.114] if channels == 3 else [1.0], images.dtype)

    def grey(x: Any) -> Any:
        return tnp.sum(x * weights, -1, keepdims=True)

    steps: tuple[tuple[str, Range, Callable[[Any], Any]], ...] = (
        ("brightness", brightness, tnp.zeros_like),
        ("contrast", contrast, lambda x: tnp.mean(grey(x), (1, 2, 3), keepdims=True)),
        ("saturation", saturation, grey),
    )
    for k, (what, factor, towards) in zip(random.split(key, 3), steps, strict=True):
        low, high = _range(factor, what, 1.0)
        if low < 0:
            raise ValueError(f"{called()}: {what}={factor} {here()}. Give factors of 0 or more.")
        if low == high == 1:
            continue
        f = random.uniform(k, (images.shape[0],), minval=low, maxval=high) if low < high else _same(images, low)
        f = tnp.astype(f, images.dtype)[:, None, None, None]
        images = f * images + (1 - f) * towards(images)
        if bounds is not None:
            images = tnp.clip(images, bounds[0], bounds[1])
    return images


def _images(images: Any, floats: bool = False) -> Any:
    aval = aval_of(images)
    if aval.ndim != 4:
        raise ValueError(
            f"{called()}: images of shape {aval.shape} {here()}. Give (N, H, W, C): add an axis with images[None] for "
            "one image, or images[..., None] for grey ones."
        )
    if floats and not jnp.issubdtype(aval.dtype, jnp.floating):
        raise TypeError(
            f"{called()}: the images are {describe(images)}, and what is between pixels is no integer {here()}. "
            "Convert them: images.astype(float) / 255."
        )
    return tnp.asarray(images)


def _range(given: Range, what: str, centre: float) -> tuple[float, float]:
    try:
        low, high = (centre - given, centre + given) if isinstance(given, (int, float)) else map(float, given)
    except (TypeError, ValueError):
        low, high = 1.0, 0.0
    if not low <= high:
        raise ValueError(f"{called()}: {what}={given!r} {here()}. Give the least and the greatest, or one number.")
    return float(low), float(high)


def _same(images: Any, value: float) -> Any:
    return tnp.full((images.shape[0],), value, jax.dtypes.canonicalize_dtype(float))


def _resampled(images: Any, cos: Any, sin: Any, fill: float) -> Any:
    """Each image where its pixels are turned by a matrix [[cos, sin], [-sin, cos]] about its centre."""
    _, height, width, channels = images.shape
    y = tnp.arange(height)[:, None] - (height - 1) / 2
    x = tnp.arange(width)[None, :] - (width - 1) / 2

    def one(image: Any, cos: Any, sin: Any) -> Any:
        rows = cos * y + sin * x + (height - 1) / 2
        columns = cos * x - sin * y + (width - 1) / 2
        planes = [
            map_coordinates(image[..., c], [rows, columns], order=1, mode="constant", cval=fill)
            for c in range(channels)
        ]
        return tnp.astype(tnp.stack(planes, -1), image.dtype)

    return vmap(one)(images, cos, sin)


__all__ = ["colour", "flip", "mixup", "rotate", "scale", "translate"]
