"""Several models as one: parameters with one axis more, in front."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from .. import numpy as tnp
from .. import ops
from ..batching import vmap
from ..errors import called, describe, here, need_function
from ..names import listed
from ..numpy.arguments import is_known
from .results import Mode


def stack(trees: Sequence[Any]) -> Any:
    """Pytrees of one structure as one, whose leaves have a new axis in front.

    Args:
      trees: a list of them.

    Raises:
      ValueError: if there is none, or they differ in structure or in a shape.

    Example:
      >>> import numpy as np
      >>> from tracegrad import train
      >>> stacked = train.stack([{"w": np.zeros(3)}, {"w": np.ones(3)}])
      >>> stacked["w"].shape
      (2, 3)
      >>> train.unstack(stacked)[1]["w"].tolist()
      [1.0, 1.0, 1.0]
    """
    trees = list(trees)
    if not trees:
        raise ValueError(f"{called()}: there are no pytrees to stack {here()}. Give one at least.")
    paths: list[tuple[Any, Any]] = [jax.tree_util.tree_flatten_with_path(tree) for tree in trees]
    for i, (leaves, tree) in enumerate(paths):
        if tree != paths[0][1]:
            raise ValueError(
                f"{called()}: pytree {i} has the structure {tree}, and the first one has {paths[0][1]} {here()}."
            )
        for (path, leaf), (_, first) in zip(leaves, paths[0][0], strict=True):
            if np.shape(leaf) != np.shape(first):
                raise ValueError(
                    f"{called()}: the leaf {jax.tree_util.keystr(path) or 'itself'} of pytree {i} is {describe(leaf)}, "
                    f"and that of the first one is {describe(first)} {here()}."
                )
    return jax.tree.map(lambda *leaves: tnp.stack(leaves), *trees)


def unstack(stacked: Any) -> list[Any]:
    """The pytrees that a stacked one consists of.

    Raises:
      ValueError: if the leaves have no axis in front, or differ in its size.
    """
    n = _size(stacked)
    return [jax.tree.map(lambda a: a[i], stacked) for i in range(n)]  # noqa: B023


def best_of(stacked: Any, values: Any, mode: Mode = "min") -> Any:
    """Of stacked pytrees the one with the best value: for random restarts. NaN is worse than any number.

    Args:
      stacked: of n pytrees.
      values: shape `(n,)`.
      mode: `"min"` if the least value is the best, `"max"` if the greatest is. The first one of equals is taken.

    Raises:
      ValueError: if there are not n values, or the values are known and all NaN.

    Example:
      >>> import numpy as np
      >>> import tracegrad as tg
      >>> from tracegrad import train
      >>> def descend(seed):  # into one of the two minima of x^4 - x^2 + x/4
      ...     slope = tg.grad(lambda x: x**4 - x**2 + x / 4)
      ...     x = tg.random.uniform(tg.random.key(seed), (), minval=-1.0, maxval=1.0)
      ...     x = tg.fori_loop(0, 200, lambda i, x: x - 0.05 * slope(x), x)
      ...     return x, x**4 - x**2 + x / 4
      >>> ends, values = tg.vmap(descend)(np.arange(8))
      >>> round(float(train.best_of(ends, values)), 2)
      -0.76
    """
    if mode not in ("min", "max"):
        raise ValueError(f"{called()}: mode={mode!r} {here()}. Choose 'min' or 'max'.")
    n = _size(stacked)
    values = tnp.asarray(values)
    if values.shape != (n,):
        raise ValueError(f"{called()}: values is {describe(values)}, and {n} pytrees are stacked {here()}.")
    if is_known(values) and np.isnan(np.asarray(values)).all():
        raise ValueError(f"{called()}: all {n} values are NaN, and none is the best {here()}.")
    worst = np.inf if mode == "min" else -np.inf
    ranked = ops.where(tnp.isnan(values), worst, values)
    best = tnp.argmin(ranked) if mode == "min" else tnp.argmax(ranked)
    return jax.tree.map(lambda a: tnp.take(a, best, axis=0), stacked)


def ensemble_average(fun: Callable[..., Any]) -> Callable[..., Any]:
    """A function like `fun` of stacked parameters: the mean of what the models give.

    Args:
      fun: `fun(params, *args)`, which gives a pytree of arrays. Where it gives probabilities, their mean is one too.

    Returns:
      A function of the stacked parameters and the same `*args`.

    Raises:
      TypeError: if `fun` is not a function.
      ValueError: if the parameters are not stacked.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn, train
      >>> predict = train.ensemble_average(lambda scale, x: nn.softmax(scale * x))
      >>> predict(np.array([0.0, 1e4]), np.array([1.0, 2.0])).tolist()
      [0.25, 0.75]
    """
    need_function(fun, "ensemble_average")

    def averaged(stacked: Any, *args: Any) -> Any:
        return jax.tree.map(lambda a: tnp.mean(a, axis=0), _each(fun, stacked, args))

    return averaged


def ensemble_vote(fun: Callable[..., Any]) -> Callable[..., Any]:
    """A function like `fun` of stacked parameters: the class that most models choose.

    Args:
      fun: `fun(params, *args)`, which gives scores of classes, `(..., classes)`. A model votes for the highest.

    Returns:
      A function of the stacked parameters and the same `*args`, which gives integers, `(...)`: of classes with equally
      many votes the first one.

    Raises:
      TypeError: if `fun` is not a function.
      ValueError: if the parameters are not stacked, or `fun` gives no axis of classes.

    Example:
      >>> import numpy as np
      >>> from tracegrad import train
      >>> vote = train.ensemble_vote(lambda scale, x: scale * x)
      >>> vote(np.array([1.0, 2.0, -1.0]), np.array([[1.0, 2.0, 3.0], [5.0, 4.0, 3.0]])).tolist()
      [2, 0]
    """
    need_function(fun, "ensemble_vote")

    def voted(stacked: Any, *args: Any) -> Any:
        scores = _each(fun, stacked, args)
        if not isinstance(scores, jax.Array) or scores.ndim < 2:
            raise ValueError(
                f"ensemble_vote: the models give {describe(scores)}, stacked {here()}. Give scores with classes along "
                "the last axis."
            )
        classes = scores.shape[-1]
        votes = tnp.argmax(scores, axis=-1)[..., None] == tnp.arange(classes)
        return tnp.argmax(tnp.sum(votes, axis=0), axis=-1)

    return voted


def _each(fun: Callable[..., Any], stacked: Any, args: tuple[Any, ...]) -> Any:
    _size(stacked)
    return vmap(fun, in_axes=(0, *[None] * len(args)))(stacked, *args)


def _size(stacked: Any) -> int:
    """How many pytrees are stacked."""
    leaves = jax.tree_util.tree_leaves_with_path(stacked)
    if not leaves:
        raise ValueError(f"{called()}: the parameters have no leaves {here()}. Give those of several models, stacked.")
    shapes = {jax.tree_util.keystr(path) or "itself": np.shape(leaf) for path, leaf in leaves}
    sizes = {shape[0] if shape else None for shape in shapes.values()}
    if len(sizes) > 1 or None in sizes or 0 in sizes:
        some = dict(list(shapes.items())[:4])
        raise ValueError(
            f"{called()}: the leaves have shapes {some} {here()}. Stacked parameters have one axis more, in front, of "
            "one size: make them by train.stack(list_of_params), or by tg.vmap of what makes one."
        )
    return int(sizes.pop() or 0)


__all__ = ["best_of", "ensemble_average", "ensemble_vote", "stack", "unstack"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
