"""Vector quantization, with the signatures of `jax.scipy.cluster.vq`.

Example:
  >>> import tracegrad as tg, tracegrad.numpy as np
  >>> codes, distances = tg.scipy.cluster.vq.vq(np.array([[1.0, 0.0], [3.0, 8.0]]), np.array([[0.0, 0.0], [3.0, 4.0]]))
  >>> codes.tolist(), distances.tolist()
  ([0, 1], [1.0, 4.0])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ... import numpy as tnp
from ...errors import called, here
from ...names import listed
from ...numpy.arguments import from_list, inexact, promoted, type_of


def vq(obs: Any, code_book: Any, check_finite: bool = True) -> tuple[Any, Any]:
    """For each observation the nearest of some codes, and the Euclidean distance to it.

    The derivative of a distance is 0 where it is 0.

    Args:
      obs: observations, `(m, n)`, or `(m,)` for those of one number.
      code_book: codes, `(k, n)` or `(k,)`.
      check_finite: changes nothing here.

    Returns:
      The places of the codes and the distances, both `(m,)`.
    """
    obs, code_book = from_list(obs), from_list(code_book)
    avals = [type_of(obs), type_of(code_book)]
    if avals[0].ndim not in (1, 2) or avals[0].ndim != avals[1].ndim or avals[0].shape[1:] != avals[1].shape[1:]:
        raise ValueError(
            f"{called()}: observations {avals[0]} and codes {avals[1]} {here()}. Both have one row for each, of one "
            "length."
        )
    obs, code_book = (inexact(x, type_of(x)) for x in promoted((obs, code_book), avals))
    if avals[0].ndim == 1:
        obs, code_book = obs[:, None], code_book[:, None]
    distances = tnp.linalg.norm(obs[:, None, :] - code_book[None, :, :], axis=-1)
    codes = tnp.argmin(distances, axis=-1).astype(np.int32)
    return codes, tnp.take_along_axis(distances, codes[:, None], axis=-1)[:, 0]


__all__ = ["vq"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
