"""Which values `checkpoint` keeps for the backward pass: pass one as `policy`. Uses ops, and taps.

A policy is a function from a node of the tape to whether the values it computes are kept, and may be the user's own.

Example:
  >>> import tracegrad as tg, tracegrad.numpy as np
  >>> layer = tg.checkpoint(lambda w, x: np.tanh(x @ w), policy=tg.checkpoint_policies.dots_saveable)
  >>> tg.grad(lambda w, x: layer(w, x).sum())(np.zeros((2, 2)), np.ones(2)).tolist()
  [[1.0, 1.0], [1.0, 1.0]]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .capture import tap_op
from .names import listed
from .ops import conv_op, dot_general
from .tape import Node

Policy = Callable[[Node], bool]


def everything_saveable(node: Node) -> bool:
    """Keeps every value that the backward pass reads: as without `checkpoint`."""
    return True


def nothing_saveable(node: Node) -> bool:
    """Keeps none."""
    return False


def dots_saveable(node: Node) -> bool:
    """Keeps the results of matrix products and convolutions."""
    return node.op is dot_general or node.op is conv_op


def dots_with_no_batch_dims_saveable(node: Node) -> bool:
    """Keeps the results of matrix products without batch axes: those with weights, not those of attention."""
    return node.op is dot_general and not node.params["dims"][1][0]


@dataclass(frozen=True)
class _Names:
    names: frozenset[str]
    saved: bool
    others: bool

    def __call__(self, node: Node) -> bool:
        if node.op is not tap_op:
            return self.others
        return self.saved if node.params["name"] in self.names else not self.saved


def save_only_these_names(*names: str) -> Policy:
    """Keeps the values that `tap(name, x)` names, and no others."""
    return _Names(frozenset(names), True, False)


def save_any_names_but_these(*names: str) -> Policy:
    """Keeps every value that `tap` names, but for these."""
    return _Names(frozenset(names), False, False)


def save_anything_except_these_names(*names: str) -> Policy:
    """Keeps every value, but for those that `tap` gives one of these names."""
    return _Names(frozenset(names), False, True)


@dataclass(frozen=True)
class _Either:
    first: Policy
    second: Policy

    def __call__(self, node: Node) -> bool:
        return self.first(node) or self.second(node)


def save_from_both_policies(first: Policy, second: Policy) -> Policy:
    """Keeps what either of two policies keeps."""
    return _Either(first, second)


__all__ = [
    "Policy", "dots_saveable", "dots_with_no_batch_dims_saveable", "everything_saveable", "nothing_saveable",
    "save_any_names_but_these", "save_anything_except_these_names", "save_from_both_policies", "save_only_these_names",
]  # fmt: skip

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
