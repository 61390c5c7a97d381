"""Metrics: what is measured over many batches, as pure functions of a state. Use array namespaces, and losses.

A metric holds settings alone. Its state is a pytree of arrays, so that it is updated under `jit`, in a `scan` and on
the devices of a `pmap`, and saved like parameters. Sums are kept in twice the digits of their dtype, as pairs of
numbers: counts are exact up to 2**48, and what was measured does not depend on how the examples were divided into
batches, or over devices. What is counted by class or by threshold with weights is rounded once a batch, unless the
weights are such as 0, 1 or 2.5, whose sums need no rounding.

Example:
  >>> import numpy as np, tracegrad as tg
  >>> accuracy = tg.metrics.SparseCategoricalAccuracy()
  >>> @tg.jit
  ... def evaluate(state, logits, labels):
  ...     return accuracy.update(state, logits, labels)
  >>> state = accuracy.reset()
  >>> for labels in ([0, 1], [1, 1]):
  ...     state = evaluate(state, np.eye(2), np.array(labels))
  >>> float(accuracy.result(state))
  0.75
"""

# ruff: noqa: F403
from typing import TYPE_CHECKING

from ..names import listed
from . import counts, means, ranking, translation
from .base import Metric as Metric
from .counts import *
from .means import *
from .ranking import *
from .translation import *

__all__ = ["Metric"]
__all__ += counts.__all__
__all__ += means.__all__
__all__ += ranking.__all__
__all__ += translation.__all__

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
