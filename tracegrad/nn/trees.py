"""Recurrent layers over trees."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from .. import initializers, ops, random
from .. import numpy as tnp
from ..control import scan
from ..errors import describe, here
from ..names import listed
from ..numpy.arguments import is_known
from ..tape import aval_of
from .layers import Run, check_init, check_parameters, check_sizes, input_features, layer, name_in


@layer
class TreeLSTM:
    """An LSTM whose steps follow a tree. Tai, Socher and Manning, "Tree-structured long short-term memory" (2015).

    With h_k, c_k of the children of a node, and x its input:

        i, o = sigmoid(W x + sum_k U_k h_k + b)     g = tanh(W x + sum_k U_k h_k + b)
        f_k = sigmoid(W x + sum_l V_kl h_l + b)     c = i g + sum_k f_k c_k     h = o tanh(c)

    In the child-sum form (their section 3.1) the children have no order and there may be any number: all U_k are one,
    V_kk is one, and V_kl = 0 for other l. In the N-ary form (3.2) each place among N children has its own.

    Attributes:
      kernel: W of i, g, o, f side by side, shape `(in_features, 4 * hidden_features)`.
      recurrent_kernel: U of i, g, o, shape `(hidden_features, 3 * hidden_features)`, for each of N places if N-ary.
      forget_kernel: V, shape `(hidden_features, hidden_features)`; N-ary `(N, hidden_features, N * hidden_features)`.
      bias: shape `(4 * hidden_features,)`, or `None`.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn, random
      >>> tree = nn.TreeLSTM.init(random.key(0), 3, 4)
      >>> x = np.ones((3, 3), np.float32)
      >>> outputs, (c, h) = tree(x, np.array([[-1, -1], [-1, -1], [0, 1]]))  # two leaves and their parent
      >>> outputs.shape, h.shape
      ((3, 4), (4,))
      >>> leaf = tree.node(x[0], [])
      >>> c, h = tree.node(x[2], [leaf, leaf])
      >>> bool(np.allclose(h, outputs[2], atol=1e-6))
      True
    """

    kernel: Any
    recurrent_kernel: Any
    forget_kernel: Any
    bias: Any = None

    @classmethod
    def init(
        cls,
        key: Any,
        in_features: int,
        hidden_features: int,
        arity: int | None = None,
        *,
        use_bias: bool = True,
        kernel_init: Any = None,
        recurrent_kernel_init: Any = None,
        bias_init: Any = initializers.zeros,
        dtype: Any = None,
    ) -> TreeLSTM:
        """A layer with drawn kernels and a bias of zeros.

        Args:
          key: a random key.
          in_features, hidden_features: the sizes of a node's input and of its state.
          arity: N of the N-ary form, 2 for binary trees; by default the child-sum form.
          use_bias: whether there is a bias.
          kernel_init, recurrent_kernel_init, bias_init: initializers; by default `lecun_normal()`, `orthogonal()` for
            each matrix, and `zeros`.
          dtype: of the parameters.

        Raises:
          TypeError, ValueError: if the key is none, or a size is not a positive number.
        """
        check_init(key, in_features=in_features, hidden_features=hidden_features)
        if arity is not None:
            check_sizes(arity=arity)
        draw = initializers.lecun_normal() if kernel_init is None else kernel_init
        recur = initializers.orthogonal() if recurrent_kernel_init is None else recurrent_kernel_init
        n, size = 1 if arity is None else arity, hidden_features
        keys = random.split(key, 1 + n * (3 + n))
        square = [recur(k, (size, size), dtype) for k in keys[1:]]
        recurrent = tnp.stack([tnp.concatenate(square[3 * k : 3 * k + 3], -1) for k in range(n)])
        rest = square[3 * n :]
        forget = tnp.stack([tnp.concatenate(rest[n * k : n * k + n], -1) for k in range(n)])
        kernel = draw(keys[0], (in_features, 4 * size), dtype)
        bias = bias_init(key, (4 * size,), dtype) if use_bias else None
        return cls(kernel, *((recurrent[0], forget[0]) if arity is None else (recurrent, forget)), bias)

    def __call__(self, x: Any, children: Any, run: Run | None = None) -> tuple[Any, tuple[Any, Any]]:
        """The outputs h of all nodes, `(nodes, hidden_features)`, and the state `(c, h)` of the last, the root.

        A batch of trees is `tg.vmap(tree)(x, children)`, with trees padded in front by nodes without children.

        Args:
          x: shape `(nodes, in_features)`, children before their parents.
          children: integers of shape `(nodes, places)`: which nodes are a node's children, -1 for a place that is
            empty.
          run: what the layer is called in.

        Raises:
          TypeError, ValueError: if a shape is wrong, or a child that is known is not before its parent. One that is not
            known, under `@jit`, gives NaN.
        """
        z = self._projected(x, run)
        nodes = self._check_children(x, children, run)
        known, children = is_known(children), tnp.asarray(children)
        size = self.kernel.shape[-1] // 4
        present = ops.greater_equal(children, 0)
        own = tnp.arange(nodes)
        wrong = tnp.logical_or(ops.less(children, -1), ops.greater_equal(children, own[:, None]))
        z = z if known else ops.where(tnp.any(wrong, axis=-1, keepdims=True), math.nan, z)
        empty = tnp.zeros((nodes, size), z.dtype)

        def step(carry: Any, each: Any) -> tuple[Any, Any]:
            cs, hs = carry
            i, z, ids, there = each
            ids = tnp.maximum(ids, 0)
            c, h = (ops.where(there[:, None], ops.take(a, ids, 0), 0) for a in (cs, hs))
            c, h = self._joined(z, c, h)
            return (cs.at[i].set(c), hs.at[i].set(h)), None

        (cs, hs), _ = scan(step, (empty, empty), (own, z, children, present), length=nodes)
        return hs, (cs[-1], hs[-1])

    def node(self, x: Any, children: Sequence[tuple[Any, Any]], run: Run | None = None) -> tuple[Any, Any]:
        """The state `(c, h)` of one node, of its input and the states of its children: for recursion in plain Python.

            def encode(node):
                return tree.node(node.x, [encode(child) for child in node.children])

        Args:
          x: shape `(in_features,)`.
          children: a list of states; empty for a leaf. In the N-ary form those that are given come first.
          run: what the layer is called in.

        Raises:
          TypeError, ValueError: if the last axis of `x` is not `in_features` long, or there are more than N children.
        """
        z = self._projected(x, run)
        n, size = self._places(), self.kernel.shape[-1] // 4
        if n is not None and len(children) > n:
            raise ValueError(
                f"{name_in(self, run)}: {len(children)} children, and the layer is for {n} {here()}. Make it with "
                "that arity, or by arity=None for any number."
            )
        states = list(children)
        if not states or n is not None:
            zeros = tnp.zeros((size,), z.dtype)
            states += [(zeros, zeros)] * (max(n or 1, 1) - len(states))
        return self._joined(z, *(tnp.stack([state[i] for state in states]) for i in (0, 1)))

    def _places(self) -> int | None:
        return self.recurrent_kernel.shape[0] if self.recurrent_kernel.ndim == 3 else None

    def _projected(self, x: Any, run: Run | None) -> Any:
        check_parameters(self, run, kernel=2, bias=1)
        wanted = self.kernel.shape[0]
        input_features(self, x, wanted, run, f"Give {wanted} features, or make it for those that there are.")
        z = tnp.matmul(x, self.kernel)
        z = z if self.bias is None else z + self.bias
        return ops.astype(z, dtype=tnp.result_type(z, self.recurrent_kernel, self.forget_kernel))

    def _joined(self, z: Any, c: Any, h: Any) -> tuple[Any, Any]:
        """The state of a node, of those of its children, `(places, hidden_features)`: zeros where there is none."""
        size = c.shape[-1]
        if self._places() is None:
            recurrent = tnp.matmul(tnp.sum(h, axis=0), self.recurrent_kernel)
            forget = tnp.matmul(h, self.forget_kernel)
        else:
            recurrent = tnp.einsum("kh,kho->o", h, self.recurrent_kernel)
            forget = tnp.reshape(tnp.einsum("kh,kho->o", h, self.forget_kernel), c.shape)
        i, g, o = tnp.split(z[: 3 * size] + recurrent, 3)
        f = ops.logistic(z[3 * size :] + forget)
        c = ops.logistic(i) * ops.tanh(g) + tnp.sum(f * c, axis=0)
        return c, ops.logistic(o) * ops.tanh(c)

    def _check_children(self, x: Any, children: Any, run: Run | None) -> int:
        """The number of nodes."""
        aval = aval_of(np.asarray(children) if isinstance(children, (list, tuple)) else children)
        shape, n = np.shape(x), self._places()
        fits = aval.ndim == 2 and len(shape) == 2 and aval.shape[0] == shape[0] and n in (None, aval.shape[1])
        if not fits or not jnp.issubdtype(aval.dtype, np.integer) or not shape[0]:
            raise ValueError(
                f"{name_in(self, run)}: the inputs are {describe(x)} and the children {describe(children)} {here()}. "
                f"Give (nodes, features), of one node at least, and integers (nodes, {n or 'places'}), -1 for no "
                "child; a batch of trees goes through tracegrad.vmap."
            )
        if is_known(children):
            values = np.asarray(children)
            wrong = np.argwhere((values < -1) | (values >= np.arange(shape[0])[:, None]))
            if len(wrong):
                node, place = wrong[0]
                raise ValueError(
                    f"{name_in(self, run)}: node {node} has the child {values[node, place]} {here()}. Children come "
                    "before their parents: give numbers below the node's own, and -1 for no child."
                )
        return int(shape[0])


__all__ = ["TreeLSTM"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
