"""Where a sequence repeats itself, part after part, as the layers of a network do."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

PERIODS = 64
"""The longest part that is looked for."""


def repetitions(keys: Sequence[Hashable]) -> list[tuple[int, int, int]]:
    """Where equal parts follow one another: (start, length of a part, how many), none overlapping.

    Of those that begin at a place, the one that covers most is taken, and of equally long ones that of the shortest
    part. One row three times is the least, or several rows twice.
    """
    numbers: dict[Hashable, int] = {}
    symbols = np.array([numbers.setdefault(key, len(numbers)) for key in keys])
    n = len(symbols)
    if len(numbers) == n:
        return []
    covered = np.zeros((min(PERIODS, n // 2) + 1, n), np.int64)
    for period in range(1, len(covered)):
        same = symbols[:-period] == symbols[period:]
        ends = np.where(same, len(same), np.arange(len(same)))
        runs = np.minimum.accumulate(ends[::-1])[::-1] - np.arange(len(same))
        counts = runs // period + 1
        enough = counts >= (3 if period == 1 else 2)
        covered[period, : len(same)] = np.where(enough, counts * period, 0)
    best = covered.argmax(0)
    found = []
    i = 0
    while i < n:
        period = int(best[i])
        total = int(covered[period, i])
        if not total:
            i += 1
            continue
        found.append((i, period, total // period))
        i += total
    return found
