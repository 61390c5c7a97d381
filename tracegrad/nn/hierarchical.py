"""The last layer of a classifier of very many classes. Uses the loss of the same name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import random
from ..errors import called, describe, here
from ..names import listed
from ..numpy.arguments import is_known
from .layers import Run, check_init, check_parameters, input_features, layer, static
from .losses import (
    ClassTree,
    hierarchical_log_probabilities,
    hierarchical_softmax,
    init_hierarchical_softmax,
    random_tree,
)

_REMEDY = "Give the hidden vectors, or make the layer for the features that there are."


@layer
class HierarchicalSoftmax:
    """The softmax over the leaves of a tree of classes: `loss` costs O(H log K) for each example, not O(H K).

    It takes the place of the last `Linear` and its loss. Morin and Bengio, "Hierarchical probabilistic neural network
    language model" (2005).

    Attributes:
      kernel: shape `(inner, features)`: a vector for each inner node of the tree.
      bias: shape `(inner,)`.
      tree: a `ClassTree`, a setting.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn, random
      >>> out = nn.HierarchicalSoftmax.init(random.key(0), 4, 1000)
      >>> print(out)
      HierarchicalSoftmax(tree=ClassTree(classes=1000, inner=999, depth=10)): 4,995 parameters
        kernel: f32[999,4]
        bias: f32[999]
      >>> hidden = random.normal(random.key(1), (2, 4))
      >>> loss, all_classes = out.loss(hidden, np.array([7, 999]), reduction="none"), out(hidden)
      >>> all_classes.shape, bool(np.allclose(-loss, [all_classes[0, 7], all_classes[1, 999]], rtol=1e-5))
      ((2, 1000), True)
    """

    kernel: Any
    bias: Any
    tree: ClassTree = static()

    def __post_init__(self) -> None:
        if not isinstance(self.tree, ClassTree):
            raise TypeError(
                f"{called()}: tree is {describe(self.tree)} {here()}. Make one with nn.random_tree(key, classes), "
                "tree_of_pairs, huffman_tree or learned_tree."
            )
        if not (is_known(self.tree.nodes) and is_known(self.tree.signs)):
            raise TypeError(
                f"{called()}: the tree is traced {here()}, and as a setting of the layer it is part of the program. "
                "Make the layer outside, and give that to the jitted function."
            )

    @classmethod
    def init(cls, key: Any, features: int, classes: int | ClassTree, *, dtype: Any = None) -> HierarchicalSoftmax:
        """A layer with a drawn kernel, normal of variance 1 / features, and a bias of zeros.

        Args:
          key: a random key.
          features: the size of the hidden vectors.
          classes: how many, for a random tree; or a tree of them. Under `vmap`, for an ensemble, give a tree.
          dtype: of the parameters.

        Raises:
          TypeError, ValueError: if the key is none, or a size is not a positive number.
        """
        check_init(key, features=features)
        if not isinstance(classes, ClassTree):
            check_init(key, classes=classes)
            if not is_known(key):
                raise TypeError(
                    f"{called()}: classes={classes} asks for a random tree, which is part of the program, and the key "
                    f"is traced {here()}. Give a tree made outside: nn.random_tree(key, {classes})."
                )
            of_tree, key = random.split(key)
            classes = random_tree(of_tree, classes)
        params = init_hierarchical_softmax(key, classes, features, dtype)
        return cls(params["w"], params["b"], classes)

    def __call__(self, x: Any, run: Run | None = None) -> Any:
        """The logarithms of the probabilities of all classes: shape `(..., features)` to `(..., K)`.

        Raises:
          TypeError, ValueError: if the last axis of `x` is not `features` long.
        """
        return hierarchical_log_probabilities(x, self._parameters(x, run), self.tree)

    def loss(
        self,
        x: Any,
        targets: Any,
        run: Run | None = None,
        *,
        weights: Any = None,
        reduction: str = "mean",
        ignore_index: int | None = -1,
    ) -> Any:
        """-log p_y: the negative log-likelihood of `targets`, of which only the paths to them are computed.

        Args:
          x: the hidden vectors; shape `(..., features)`.
          targets: integer labels from 0 to K - 1; shape `(...)`.
          run: what the layer is called in.
          weights, reduction, ignore_index: as in `nn.losses.hierarchical_softmax`.

        Raises:
          TypeError, ValueError: for shapes that do not fit, and for a known label out of range. Under `@jit` the loss
            and the gradient of a row with such a label are NaN.
        """
        params = self._parameters(x, run)
        return hierarchical_softmax(
            x, targets, params, self.tree, weights=weights, reduction=reduction, ignore_index=ignore_index
        )

    def _parameters(self, x: Any, run: Run | None) -> dict[str, Any]:
        check_parameters(self, run, kernel=2, bias=1)
        input_features(self, x, self.kernel.shape[-1], run, _REMEDY)
        return {"w": self.kernel, "b": self.bias}


__all__ = ["HierarchicalSoftmax"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
