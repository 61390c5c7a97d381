"""Penalties on parameters, to be added to a loss."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from ...errors import called, describe, here, need_function
from ...names import listed
from ...ops import abs_, add, mul, reduce_sum, square
from ...ops.arraylike import type_of

_BIAS = re.compile(r"(b|bias|beta|shift|offset)_?\d*|.*_(b|bias)\d*")


def is_weight(path: str) -> bool:
    """Whether a parameter of this path is no bias: its name is not b, bias, beta, shift or offset.

    Args:
      path: the keys, indices and fields that lead to the parameter, joined by "/": "layers/0/bias". Numbers at the end
        of a name do not count: b1 is a bias; nor does what stands before "_b" and "_bias".

    Example:
      >>> from tracegrad.nn import losses
      >>> [path for path in ("0/w", "0/b", "w2", "b2", "out/bias", "out_bias") if losses.is_weight(path)]
      ['0/w', 'w2']
    """
    return _BIAS.fullmatch(path.rpartition("/")[2]) is None


def _penalty(params: Any, scale: Any, where: Callable[[str], bool], of: Callable[[Any], Any]) -> Any:
    need_function(where, called(), "where", "where=lambda path: ..., a function of the path of a parameter")
    total, paths = None, []
    for keys, x in jax.tree_util.tree_flatten_with_path(params)[0]:
        path = jax.tree_util.keystr(keys, simple=True, separator="/")
        try:
            dtype = type_of(x).dtype
        except TypeError:
            raise TypeError(
                f"{called()}: the parameter {path!r} is {describe(x)}, which is not an array {here()}"
            ) from None
        if not jnp.issubdtype(dtype, jnp.inexact):
            continue
        paths.append(path)
        if where(path):
            term = of(x)
            axes = tuple(range(type_of(x).ndim))
            term = reduce_sum(term, axes=axes) if axes else term
            total = term if total is None else add(total, term)
    if total is None:
        raise ValueError(
            f"{called()}: none of the parameters {paths} is penalized {here()}. Say which are with where=lambda path: "
            "..., of such paths; by default all are but biases, told by their names."
        )
    return mul(scale, total)


def l2(params: Any, lam: Any = 1.0, *, where: Callable[[str], bool] = is_weight) -> Any:
    """lam times the sum of the squares of all parameters but biases; its gradient is 2 lam t.

    Args:
      params: a pytree of arrays. Integers in it, and keys, are no parameters.
      lam: the strength.
      where: which parameters are penalized, by their path, such as "layers/0/w": by default `is_weight`. What is
        known by a number alone, as in a list, is no bias.

    Raises:
      ValueError: if no parameter is penalized.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn
      >>> params = {"w": np.array([1.0, -2.0]), "b": np.array([5.0])}
      >>> float(nn.l2(params, 0.5)), float(nn.l2(params, where=lambda path: path == "b"))
      (2.5, 25.0)
    """
    return _penalty(params, lam, where, square)


def l1(params: Any, lam: Any = 1.0, *, where: Callable[[str], bool] = is_weight) -> Any:
    """lam times the sum of the absolute values of all parameters but biases; its gradient is lam sign(t), 0 at 0.

    Arguments and errors as of `l2`.

    Example:
      >>> import numpy as np
      >>> from tracegrad import nn
      >>> float(nn.l1({"w": np.array([1.0, -2.0]), "b": np.array([5.0])}, 0.5))
      1.5
    """
    return _penalty(params, lam, where, abs_)


__all__ = ["is_weight", "l1", "l2"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
