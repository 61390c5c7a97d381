"""Losses: functions of predictions and targets, in this order, and penalties on parameters.

Each loss is computed per example and then reduced. `weights` has the leading part of the shape of the unreduced loss:
one weight an example, for example; where a weight is 0, nothing counts. `reduction` is

- "mean": the sum of weight times loss, divided by the number of losses: the batch size, or batch size times length.
  Weights do not change the divisor, as in Keras (`sum_over_batch_size`); rows that `ignore_index` leaves out do. If
  none is left, the mean is 0. For a mean by weights, write `loss(..., weights=w, reduction="sum") / w.sum()`.
- "sum": of weight times loss.
- "none": weight times loss, for each.

What does not fit is a `ValueError`, and the mean of an empty batch is one. Values are looked at where they are known,
in calls outside `@jit`; inside, a label out of range, or a number that is no probability, makes the loss NaN.
"""

# ruff: noqa: F403
from typing import TYPE_CHECKING

from ...names import listed
from . import crossentropy, hierarchical, margins, regression, regularizers, sequence, trees
from .crossentropy import *
from .hierarchical import *
from .margins import *
from .regression import *
from .regularizers import *
from .sequence import *
from .trees import *

__all__: list[str] = [
    *crossentropy.__all__, *hierarchical.__all__, *margins.__all__, *regression.__all__, *regularizers.__all__,
    *sequence.__all__, *trees.__all__,
]  # fmt: skip

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
