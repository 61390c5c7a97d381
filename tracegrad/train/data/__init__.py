"""Data: shuffled minibatches that are found again, prefetching, buckets, fitted transforms, augmentation.

Example:
  >>> import numpy as np
  >>> from tracegrad.train import data
  >>> x, y = np.random.default_rng(0).normal(3, 2, (100, 4)), np.arange(100) % 3
  >>> loader = data.DataLoader((data.normalize(x)(x), y), 32, last="pad", prefetch=2)
  >>> [(batch[0].shape, int(weights.sum())) for batch, weights in loader]
  [((32, 4), 32), ((32, 4), 32), ((32, 4), 32), ((32, 4), 4)]
"""

from typing import TYPE_CHECKING

from ...names import listed
from .augmenting import colour, flip, mixup, rotate, scale, translate
from .fitted import Scaled, Whitened, mean_subtract, normalize, whiten
from .loading import BucketLoader, DataLoader, LoaderState, bucket_by_length
from .prefetching import prefetch

__all__ = [
    "BucketLoader", "DataLoader", "LoaderState", "Scaled", "Whitened", "bucket_by_length", "colour", "flip",
    "mean_subtract", "mixup", "normalize", "prefetch", "rotate", "scale", "translate", "whiten",
]  # fmt: skip

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
