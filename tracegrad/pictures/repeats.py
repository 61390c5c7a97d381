"""Where a sequence repeats itself, part after part, as the layers of a network do."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

PERIODS = 512
"""The longest part that is looked for."""

LEAST = 6
"""How much repetitions cover at least: fewer are read faster than folded."""


def repetitions(keys: Sequence[Hashable]) -> list[tuple[int, int, int]]:
    """Where equal parts follow one another: (start, length of a part, how many), none overlapping.

    Of those that begin at a place, the one that covers most is taken, and of equally long ones that of the shortest
    part. Parts of one or two come three times at least, longer ones twice.
    """
    numbers: dict[Hashable, int] = {}
    symbols = np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int32)
    n = len(symbols)
    total, period = np.zeros(n, np.int32), np.ones(n, np.int32)
    place = np.arange(n, dtype=np.int32)
    for p in range(1, min(PERIODS, n // 2) + 1):
        same = symbols[:-p] == symbols[p:]
        if not same.any():
            continue
        ends = np.where(same, np.int32(n - p), place[: n - p])
        counts = (np.minimum.accumulate(ends[::-1])[::-1] - place[: n - p]) // p + 1
        covers = np.where((counts >= (2 if p > 2 else 3)) & (counts * p >= LEAST), counts * p, 0)
        better = covers > total[: n - p]
        total[: n - p][better] = covers[better]
        period[: n - p][better] = p
    found = []
    i = 0
    while i < n:
        covered, size = int(total[i]), int(period[i])
        if covered:
            found.append((i, size, covered // size))
        i += covered or 1
    return found
