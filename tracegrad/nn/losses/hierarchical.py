"""The softmax over the leaves of a tree: what one class costs grows as the logarithm of their number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ... import initializers
from ... import numpy as tnp
from ...control import scan
from ...errors import called, describe, here
from ...names import listed
from ...ops import softplus
from ...ops.arraylike import type_of
from .arguments import array, by_label, labels_of, matches, reduced, without
from .trees import ClassTree

Parameters = dict[str, Any]


def init_hierarchical_softmax(key: Any, tree: ClassTree, features: int, dtype: Any = None) -> Parameters:
    """Parameters of `hierarchical_softmax`: for each inner node of the tree a vector and a bias.

    Args:
      key: a random key.
      tree: of the classes.
      features: H, the size of the hidden vectors.
      dtype: of the parameters; float by default.

    Returns:
      `{"w": shape (inner, H), normal with variance 1 / H, "b": shape (inner,), zeros}`.

    Example:
      >>> from tracegrad import random
      >>> from tracegrad.nn import losses
      >>> tree = losses.random_tree(random.key(0), 8)
      >>> params = losses.init_hierarchical_softmax(random.key(1), tree, 4)
      >>> params["w"].shape, params["b"].shape
      ((7, 4), (7,))
    """
    w = initializers.normal(features**-0.5)(key, (tree.inner, features), dtype)
    return {"w": w, "b": tnp.zeros(tree.inner, w.dtype)}


def hierarchical_softmax(
    predictions: Any,
    targets: Any,
    params: Parameters,
    tree: ClassTree,
    *,
    weights: Any = None,
    reduction: str = "mean",
    ignore_index: int | None = -1,
) -> Any:
    """-log p_y, with p_y the product over the path from the root to the leaf y of the probabilities of its turns.

    At the inner node i the path goes left with probability sigmoid(w_i . h + b_i), and right with the rest. So the
    probabilities of all classes sum to 1, and one costs O(H log K), not O(H K). Morin and Bengio, "Hierarchical
    probabilistic neural network language model" (2005).

    Args:
      predictions: the hidden vectors h that the classes are predicted from; shape `(..., H)`.
      targets: integer labels from 0 to K - 1; shape `(...)`.
      params: `{"w": shape (inner, H), "b": shape (inner,)}`, as `init_hierarchical_softmax` makes them.
      tree: of the classes: `random_tree`, `tree_of_pairs`, `huffman_tree` or `learned_tree`.
      weights, reduction, ignore_index: as in `sparse_categorical_cross_entropy`.

    The gradient of `params` has their size. That of the rows used alone is had with `tree.paths`:

        nodes, part = tree.paths(labels)
        rows = {name: p[nodes] for name, p in params.items()}
        grads = tg.grad(lambda rows: losses.hierarchical_softmax(h, np.arange(len(labels)), rows, part))(rows)
        params = {name: p.at[nodes].add(-rate * grads[name]) for name, p in params.items()}

    Raises:
      TypeError, ValueError: for shapes that do not fit, and for a known label out of range. Under `@jit` the loss and
        the gradient of a row with such a label are NaN.

    Example:
      >>> import numpy as np
      >>> from tracegrad.nn import losses
      >>> tree = losses.tree_of_pairs((0, (1, 2)))
      >>> params = {"w": np.zeros((2, 4), np.float32), "b": np.zeros(2, np.float32)}
      >>> loss = losses.hierarchical_softmax(np.ones((3, 4), np.float32), np.arange(3), params, tree, reduction="none")
      >>> np.exp(-loss).round(4).tolist()
      [0.5, 0.25, 0.25]
    """
    hidden = array("predictions", predictions)
    shape = type_of(hidden).shape
    if not shape:
        raise ValueError(f"{called()}: predictions of shape () {here()}: the last axis has the features")
    w, b = _parameters(params, tree, shape[-1])
    instead = "Give the number of the class, not a row of numbers"
    targets = labels_of((*shape[:-1], tree.classes), targets, ignore_index, instead)
    hidden = without(hidden, matches(targets, ignore_index))
    nodes, signs = (tnp.take(tnp.asarray(x), targets, axis=0, mode="clip") for x in (tree.nodes, tree.signs))
    scores = tnp.sum(tnp.take(w, nodes, axis=0) * hidden[..., None, :], -1) + tnp.take(b, nodes, axis=0)
    turns = tnp.where(signs == 0, 0, softplus(-scores * signs))
    loss = by_label(tnp.sum(turns, -1), targets, tree.classes, ignore_index)
    return reduced(loss, weights, reduction, targets, ignore_index)


def hierarchical_log_probabilities(predictions: Any, params: Parameters, tree: ClassTree) -> Any:
    """The logarithms of the probabilities of all classes, as `hierarchical_softmax` has them: O(H K).

    Args:
      predictions, params, tree: as in `hierarchical_softmax`.

    Returns:
      Shape `(..., K)`; their exponentials sum to 1.

    Example:
      >>> import numpy as np
      >>> from tracegrad.nn import losses
      >>> tree = losses.tree_of_pairs((0, (1, 2)))
      >>> params = {"w": np.zeros((2, 4), np.float32), "b": np.zeros(2, np.float32)}
      >>> np.exp(losses.hierarchical_log_probabilities(np.ones(4, np.float32), params, tree)).round(4).tolist()
      [0.5, 0.25, 0.25]
    """
    hidden = array("predictions", predictions)
    shape = type_of(hidden).shape
    if not shape:
        raise ValueError(f"{called()}: predictions of shape () {here()}: the last axis has the features")
    w, b = _parameters(params, tree, shape[-1])
    scores = tnp.matmul(hidden, tnp.asarray(w).T) + b
    nothing = tnp.zeros((*scores.shape[:-1], 1), scores.dtype)
    # The logarithms of all turns: left, right, and beyond the end of a path.
    turns = tnp.concatenate([-softplus(-scores), -softplus(scores), nothing], -1)
    nodes, signs = tnp.asarray(tree.nodes), tnp.asarray(tree.signs)
    which = tnp.where(signs > 0, nodes, tnp.where(signs < 0, nodes + tree.inner, 2 * tree.inner))
    start = tnp.zeros((*scores.shape[:-1], tree.classes), scores.dtype)
    return scan(lambda total, level: (total + tnp.take(turns, level, axis=-1), None), start, which.T)[0]


def _parameters(params: Any, tree: Any, features: int) -> tuple[Any, Any]:
    if not isinstance(tree, ClassTree):
        raise TypeError(f"{called()}: tree is {describe(tree)} {here()}. Make one with random_tree(key, classes).")
    if not isinstance(params, dict) or set(params) != {"w", "b"}:
        raise TypeError(
            f"{called()}: params is {describe(params)} {here()}. Give {{'w': ..., 'b': ...}}, as "
            "init_hierarchical_softmax makes them."
        )
    w, b = (array(f"params[{name!r}]", params[name]) for name in ("w", "b"))
    found, wanted = (type_of(w).shape, type_of(b).shape), ((tree.inner, features), (tree.inner,))
    if found != wanted:
        raise ValueError(
            f"{called()}: params of shapes {found[0]} and {found[1]} {here()}. For {tree.inner} inner nodes and "
            f"predictions of {features} features they have shapes {wanted[0]} and {wanted[1]}."
        )
    return w, b


__all__ = ["hierarchical_log_probabilities", "hierarchical_softmax", "init_hierarchical_softmax"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
