"""Binary trees over classes, for `hierarchical_softmax`: random, given, by frequency, and learned."""

from __future__ import annotations

import heapq
import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ... import numpy as tnp
from ... import random
from ...errors import called, describe, here
from ...names import listed


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class ClassTree:
    """A binary tree whose leaves are classes, as the path from each leaf to the root.

    A pytree of arrays, so that it can be an argument of a jitted function. It is hashable too, and equal to a tree of
    the same numbers, so that it can be a setting of a layer.

    Attributes:
      nodes: shape `(K, L)`: the inner nodes on the path of each class, from 0 to `inner - 1`; 0 beyond its end.
      signs: shape `(K, L)`: 1 where the path goes left at the node, -1 where it goes right, 0 beyond its end.
      inner: the number of inner nodes, K - 1.
    """

    nodes: Any
    signs: Any
    inner: int = field(metadata={"static": True})

    @property
    def classes(self) -> int:
        """The number of classes, K."""
        return int(self.nodes.shape[0])

    @property
    def depth(self) -> int:
        """The length of the longest path, L."""
        return int(self.nodes.shape[1])

    def __eq__(self, other: object) -> bool:
        if self is other or not isinstance(other, ClassTree):
            return self is other
        pairs = ((self.nodes, other.nodes), (self.signs, other.signs))
        return self.inner == other.inner and all(np.array_equal(a, b) for a, b in pairs)

    def __hash__(self) -> int:
        # Once: a call of a jitted function asks for it, and the arrays may have millions of numbers.
        if "_hash" not in self.__dict__:
            numbers = [np.asarray(x, np.int64).tobytes() for x in (self.nodes, self.signs)]
            object.__setattr__(self, "_hash", hash((*numbers, self.inner)))
        return int(self.__dict__["_hash"])

    def __getstate__(self) -> dict[str, Any]:
        # Hashes of bytes differ from process to process.
        return {name: value for name, value in self.__dict__.items() if name != "_hash"}

    def __repr__(self) -> str:
        return f"ClassTree(classes={self.classes}, inner={self.inner}, depth={self.depth})"

    def paths(self, labels: Any) -> tuple[Any, ClassTree]:
        """The nodes on the paths of these labels alone, and the tree of these paths.

        With the parameters of these nodes for all parameters, and `arange` for the labels, a loss is the same, and
        its gradient is that of the rows used: nothing has the size of all classes.

        Args:
          labels: integers of shape `(N,)`.

        Returns:
          The nodes, shape `(N * L,)`, and a tree of N classes with as many inner nodes.

        Example:
          >>> import numpy as np
          >>> from tracegrad.nn import losses
          >>> tree = losses.tree_of_pairs(((0, 1), (2, 3)))
          >>> nodes, part = tree.paths(np.array([3, 3, 0]))
          >>> nodes.tolist(), part
          ([2, 0, 2, 0, 1, 0], ClassTree(classes=3, inner=6, depth=2))
        """
        nodes, signs = (tnp.take(tnp.asarray(x), labels, axis=0, mode="clip") for x in (self.nodes, self.signs))
        size = nodes.shape[0] * nodes.shape[1]
        return nodes.reshape(size), ClassTree(tnp.arange(size).reshape(nodes.shape), signs, size)


def _of_children(children: np.ndarray[Any, Any]) -> ClassTree:
    """The tree of which inner node i has these two children: an inner node j > 0, or ~k for the class k. 0 is the root.

    Each inner node but the root, and each class, is a child once.
    """
    inner = len(children)
    nodes, sides = np.repeat(np.arange(inner), 2), np.tile([1, -1], inner)
    flat = children.reshape(-1)
    leaf = flat < 0
    parent = np.full((2, inner + 1), -1)  # Of inner nodes, and of classes.
    side = np.zeros((2, inner + 1), np.int8)
    for row, where, which in ((0, ~leaf, flat[~leaf]), (1, leaf, ~flat[leaf])):
        parent[row, which], side[row, which] = nodes[where], sides[where]
    at, turn = parent[1], side[1]
    path, signs = [], []
    while (at >= 0).any():
        there = at >= 0
        path.append(np.where(there, at, 0))
        signs.append(np.where(there, turn, 0))
        at, turn = np.where(there, parent[0, at], -1), side[0, at]
    shape = (inner + 1, 0)
    return ClassTree(
        np.stack(path, 1).astype(np.int32) if path else np.zeros(shape, np.int32),
        np.stack(signs, 1).astype(np.int8) if path else np.zeros(shape, np.int8),
        inner,
    )


def _count(classes: Any) -> int:
    try:
        k = operator.index(classes)
    except TypeError:
        raise TypeError(f"{called()}: classes is {describe(classes)}, which is not an integer {here()}") from None
    if k < 1:
        raise ValueError(f"{called()}: classes={k} {here()}. A tree has at least one class.")
    return k


def tree_of_pairs(pairs: Any) -> ClassTree:
    """The tree that nested pairs describe: a pair is an inner node, a number a class.

    Args:
      pairs: a class, or a pair (tuple or list) of such; each class from 0 to K - 1 stands in it once.

    Raises:
      TypeError: for something that is neither a pair nor an integer.
      ValueError: for a class that is missing or stands there twice.

    Example:
      >>> from tracegrad.nn import losses
      >>> tree = losses.tree_of_pairs((0, (1, 2)))
      >>> tree.nodes.tolist(), tree.signs.tolist()
      ([[0, 0], [1, 0], [1, 0]], [[1, 0], [1, -1], [-1, -1]])
    """
    children: list[list[int]] = []
    found: list[int] = []

    def number(part: Any) -> int:
        """What stands for a part of the tree; an inner node gets its children later."""
        if isinstance(part, (tuple, list)):
            if len(part) != 2:
                raise TypeError(
                    f"{called()}: {describe(part)} has {len(part)} parts {here()}. The tree is binary: give pairs."
                )
            waiting.append((len(children), part))
            children.append([0, 0])
            return len(children) - 1
        try:
            found.append(operator.index(part))
        except TypeError:
            raise TypeError(f"{called()}: {describe(part)} is neither a pair nor a class {here()}") from None
        return ~found[-1]

    waiting: list[tuple[int, Any]] = []
    number(pairs)
    while waiting:
        node, (left, right) = waiting.pop()
        children[node] = [number(left), number(right)]
    if sorted(found) != list(range(len(found))):
        wrong = next(k for k in range(len(found)) if found.count(k) != 1)
        raise ValueError(
            f"{called()}: the tree has {len(found)} leaves, and class {wrong} stands at {found.count(wrong)} of them "
            f"{here()}. Each class from 0 to {len(found) - 1} stands at one."
        )
    return _of_children(np.array(children, np.int64).reshape(-1, 2))


def huffman_tree(frequencies: Any) -> ClassTree:
    """The tree of the shortest paths on average: frequent classes are near the root.

    Huffman, "A method for the construction of minimum-redundancy codes" (1952); for language models Mikolov et al.,
    "Efficient estimation of word representations in vector space" (2013).

    Args:
      frequencies: how often each class comes; numbers of shape `(K,)`, at least 0.

    Example:
      >>> from tracegrad.nn import losses
      >>> abs(losses.huffman_tree([5, 1, 1, 2]).signs).sum(1).tolist()  # the lengths of the paths
      [1, 3, 3, 2]
    """
    counts = np.asarray(frequencies)
    if counts.ndim != 1 or not counts.size or counts.dtype.kind not in "iufb" or not (counts >= 0).all():
        raise ValueError(
            f"{called()}: frequencies is {describe(frequencies)} {here()}. Give a number of at least 0 a class."
        )
    classes = len(counts)
    heap = [(c, i) for i, c in enumerate(counts.tolist())]
    heapq.heapify(heap)
    # Parts in the order in which they are joined; the last is the root, and gets number 0.
    merged: list[tuple[int, int]] = []
    while len(heap) > 1:
        (a, i), (b, j) = heapq.heappop(heap), heapq.heappop(heap)
        heapq.heappush(heap, (a + b, classes + len(merged)))
        merged.append((i, j))
    parts = np.array(merged[::-1], np.int64).reshape(-1, 2)
    return _of_children(np.where(parts < classes, ~parts, 2 * classes - 2 - parts))


def _divided(order: np.ndarray[Any, Any], cut: Callable[..., tuple[Any, Any]] | None = None) -> ClassTree:
    """The tree of all classes, cut in two, each part cut in two, and so on, all parts of one depth at a time.

    Args:
      order: the classes, in an order in which parts are in one piece.
      cut: from the classes in parts, where these start and how many they have, to a new order within each part and the
        number of the first ones that go left; by default the order that they have, and half of them.
    """
    children = np.zeros((len(order) - 1, 2), np.int64)
    inner = np.zeros(min(1, len(children)), np.int64)  # The inner node of each part.
    sizes = np.array([len(order)] * len(inner))
    order = order if len(inner) else order[:0]
    used = 1
    while len(inner):
        starts = np.cumsum(sizes) - sizes
        left = (sizes + 1) // 2
        if cut is not None:
            order, left = cut(order, starts, sizes)
        sizes = np.stack([left, sizes - left], 1).reshape(-1)
        starts = np.cumsum(sizes) - sizes
        parents, sides = np.repeat(inner, 2), np.tile([0, 1], len(inner))
        single = sizes == 1
        inner = used + np.arange((~single).sum())
        used += len(inner)
        children[parents[single], sides[single]] = ~order[starts[single]]
        children[parents[~single], sides[~single]] = inner
        order, sizes = order[np.repeat(~single, sizes)], sizes[~single]
    return _of_children(children)


def random_tree(key: Any, classes: int) -> ClassTree:
    """A tree of least depth, with the classes in random order.

    Args:
      key: a random key.
      classes: how many.

    Example:
      >>> from tracegrad import random
      >>> from tracegrad.nn import losses
      >>> losses.random_tree(random.key(0), 1000)
      ClassTree(classes=1000, inner=999, depth=10)
    """
    return _divided(np.asarray(random.permutation(key, _count(classes))))


def learned_tree(key: Any, features: Any, *, balanced: bool = True, steps: int = 10) -> ClassTree:
    """A tree in which classes of like features are near each other: the classes are cut in two, and so is each part.

    To cut, a mixture of two normal distributions, of one variance in all directions, is fitted to the features of the
    part by expectation and maximization, and each class goes to the side that it is more likely of; if balanced, the
    half of the classes that is more likely of one side goes there. Mnih and Hinton, "A scalable hierarchical
    distributed language model" (2008), whose features of a word are the mean of what a model with a random tree
    predicts where the word comes next.

    Args:
      key: a random key, for where a fit starts.
      features: shape `(K, F)`, a row for each class.
      balanced: whether both sides get the same number, so that the depth is log2 K; otherwise it depends on features.
      steps: of each fit.

    Example:
      >>> import numpy as np
      >>> from tracegrad import random
      >>> from tracegrad.nn import losses
      >>> tree = losses.learned_tree(random.key(0), np.array([[0.0], [9.0], [0.1], [9.1]]))
      >>> (tree.nodes[0] == tree.nodes[2]).all(), (tree.nodes[0] == tree.nodes[1]).all()
      (np.True_, np.False_)
    """
    x = np.asarray(features)
    if x.ndim != 2 or not len(x) or x.dtype.kind not in "iufb" or not np.isfinite(x).all():
        raise ValueError(
            f"{called()}: features is {describe(features)} {here()}. Give a row of finite numbers a class."
        )
    x = x.astype(np.promote_types(x.dtype, np.float32), copy=False)
    rng = np.random.default_rng(np.asarray(random.randint(key, (4,), 0, 2**31 - 1)).tolist())

    def cut(order: Any, starts: Any, sizes: Any) -> tuple[Any, Any]:
        part = np.repeat(np.arange(len(sizes)), sizes)
        odds = _log_odds(x[order], part, starts, sizes, rng, steps)
        order = order[np.lexsort((-odds, part))]
        half = (sizes + 1) // 2
        if balanced:
            return order, half
        left = np.add.reduceat((odds > 0).astype(np.int64), starts)
        return order, np.where((left == 0) | (left == sizes), half, left)

    return _divided(np.arange(len(x)), cut)


def _log_odds(x: Any, part: Any, starts: Any, sizes: Any, rng: np.random.Generator, steps: int) -> Any:
    """For each row, by how much it is more likely of the first than of the second component of its part's mixture."""
    n = sizes[:, None].astype(x.dtype)
    centre = np.add.reduceat(x, starts) / n
    x = x - centre[part]
    # The variances of the axes; a start at a distance of one standard deviation, in a random direction.
    spread = np.sqrt(np.add.reduceat(x * x, starts) / n)
    means = spread * rng.standard_normal(spread.shape).astype(x.dtype) / max(1, x.shape[1]) ** 0.5
    means = np.stack([means, -means])
    total = np.add.reduceat(np.sum(x * x, 1), starts)
    share = np.full((2, len(sizes)), 0.5, x.dtype)
    tiny = np.finfo(x.dtype).tiny
    variance = np.maximum(total / (sizes * max(1, x.shape[1])), tiny)
    for step in range(steps + 1):
        # |x - a|^2 - |x - b|^2 is linear in x.
        weight = np.einsum("ij,ij->i", x, (means[0] - means[1])[part])
        offset = 0.5 * np.sum(means[1] ** 2 - means[0] ** 2, 1)
        prior = np.log(np.maximum(share[0], tiny)) - np.log(np.maximum(share[1], tiny))
        odds = (weight + offset[part]) / variance[part] + prior[part]
        if step == steps:
            return odds
        first = 0.5 * (1 + np.tanh(0.5 * odds))
        mass = np.add.reduceat(first, starts)
        sums = np.add.reduceat(first[:, None] * x, starts)
        counts = np.maximum(np.stack([mass, sizes - mass]), tiny)
        # The features are centred, so that the two sums cancel.
        means = np.stack([sums, -sums]) / counts[..., None]
        share = (counts / sizes).astype(x.dtype)
        between = np.sum(counts * np.sum(means**2, 2), 0)
        variance = np.maximum((total - between) / (sizes * max(1, x.shape[1])), tiny).astype(x.dtype)
    raise AssertionError


__all__ = ["ClassTree", "huffman_tree", "learned_tree", "random_tree", "tree_of_pairs"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
