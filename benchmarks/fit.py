"""`fit` against a loop written by hand over the same compiled step: `python -m benchmarks.fit`.

The network is a perceptron 64-128-128-10 with Adam and batches of 64, a step of about half a millisecond on a CPU. Both
go through the same batches and end with the loss of each step as a number of Python's; `fit` shows its progress in a
terminal that goes nowhere, and keeps its history.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from tracegrad import initializers, nn, optimizers, random, train


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def loss(model: Any, x: Any, y: Any) -> Any:
    """Mean cross-entropy."""
    return nn.losses.sparse_categorical_cross_entropy(model(x), y, from_logits=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeat", type=int, default=20, help="pairs of samples (default: 20)")
    parser.add_argument("--steps", type=int, default=300, help="steps a sample (default: 300)")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="(default: wall)")
    options = parser.parse_args()
    clock = time.perf_counter if options.clock == "wall" else time.process_time

    rng = np.random.default_rng(0)
    batch = jax.device_put(
        (rng.normal(size=(64, 64)).astype(np.float32), rng.integers(0, 10, 64).astype(np.int32)),
    )
    batches = [batch] * options.steps
    model = nn.MLP.init(random.key(0), [64, 128, 128, 10], kernel_init=initializers.he_normal())
    optimizer = optimizers.adam(1e-3)
    step = train.make_step(loss, optimizer, donate=False)
    state = train.TrainState.create(model, optimizer)

    def by_hand() -> Any:
        at, values = state, []
        for batch in batches:
            at, value = step(at, *batch)
            values.append(value)
        return [float(value) for value in values]

    def by_fit() -> Any:
        progress = train.Progress(options.steps, file=_Terminal())
        return train.fit(step, state, batches, progress=progress).history["loss"].tolist()

    assert by_hand() == by_fit()
    ways: tuple[Callable[[], Any], ...] = (by_hand, by_fit)
    samples = []
    for i in range(options.repeat):
        times = {}
        for way in ways if i % 2 else ways[::-1]:
            begin = clock()
            way()
            times[way] = (clock() - begin) / options.steps * 1e6
        samples.append([times[way] for way in ways])
    ratios = [b / a for a, b in samples]
    hand, fit = (statistics.median(column) for column in zip(*samples, strict=True))
    print(f"by hand {hand:.0f} µs a step, fit {fit:.0f}: ratio, median of {options.repeat} pairs,", end=" ")
    print(f"{statistics.median(ratios):.3f} ({min(ratios):.3f}–{max(ratios):.3f}), {options.clock} clock")


if __name__ == "__main__":
    main()
