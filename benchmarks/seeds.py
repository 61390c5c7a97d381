"""`python -m benchmarks.seeds`: many seeds of a training as one program, against one seed.

A multilayer perceptron learns the 1,797 digits of scikit-learn, in minibatches, by Adam. It is written in two ways.
`loop`: Python goes through a `DataLoader` and calls a compiled step, `tg.vmap` of it for several seeds, which then see
the same batches. `program`: all of the training is one compiled program, and each seed draws its own batches, as
`train.random_search(..., num_seeds=16, vmap=True)` has it. The first time is from nothing, with compilation.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from sklearn.datasets import load_digits

import tracegrad as tg
from tracegrad import nn, optimizers
from tracegrad.train import data


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.seeds", description=__doc__)
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--repeat", type=int, default=9)
    options = parser.parse_args()
    pixels, labels = load_digits(return_X_y=True)
    x, y = (pixels / 16).astype(np.float32), labels.astype(np.int32)
    batches = len(x) // options.batch_size
    seeds = np.arange(options.seeds)
    optimizer = optimizers.adam(3e-3)

    def init(seed: Any) -> Any:
        k1, k2 = tg.random.split(tg.random.key(seed))
        hidden, out = nn.Linear.init(k1, 64, options.width), nn.Linear.init(k2, options.width, 10)
        model = nn.Sequential([hidden, nn.relu, out])
        return model, optimizer.init(model)

    def step(carry: Any, x: Any, y: Any) -> Any:
        model, state = carry

        def loss(model: Any) -> Any:
            return nn.losses.sparse_categorical_cross_entropy(model(x), y, from_logits=True)

        value, grads = tg.value_and_grad(loss)(model)
        updates, state = optimizer.update(grads, state, model)
        return (optimizers.apply_updates(model, updates), state), value

    def loop(start: Callable[[], Any], step: Callable[..., Any]) -> Callable[[], Any]:
        def run() -> Any:
            carry = start()
            for _ in range(options.epochs):
                for batch in data.DataLoader((x, y), options.batch_size, seed=0, last="drop"):
                    carry, value = step(carry, *batch)
            return carry, value

        return run

    def whole(seed: Any) -> Any:
        images, classes = tg.numpy.asarray(x), tg.numpy.asarray(y)

        def epoch(carry: Any, key: Any) -> Any:
            order = tg.random.permutation(key, len(x))[: batches * options.batch_size]
            parts = order.reshape(batches, options.batch_size)
            return tg.scan(lambda carry, ids: step(carry, images[ids], classes[ids]), carry, parts)

        carry, values = tg.scan(epoch, init(seed), tg.random.split(tg.random.key(seed), options.epochs))
        return carry, values[-1, -1]

    start, starts = tg.jit(init), tg.jit(tg.vmap(init))
    alone, together = tg.jit(whole), tg.jit(tg.vmap(whole))
    ways: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "loop": (
            loop(lambda: start(0), tg.jit(step)),
            loop(lambda: starts(seeds), tg.jit(tg.vmap(step, in_axes=(0, None, None)))),
        ),
        "program": (lambda: alone(0), lambda: together(seeds)),
    }
    steps = batches * options.epochs
    print(
        f"{options.seeds} seeds, {steps} steps of {options.batch_size}, width {options.width}, {jax.default_backend()}"
    )
    print(f"| written as | one (µs a step) | {options.seeds} | ratio: median (least–greatest) | first time: ratio |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, both in ways.items():
        times, results = [], []
        for i in range(options.repeat + 1):
            pair = []
            for run in both:
                begin = time.perf_counter()
                result = jax.block_until_ready(run())
                pair.append(time.perf_counter() - begin)
                if i == 0:
                    results.append(result)
            times.append(pair)
        # The first of the seeds learns what it does alone.
        np.testing.assert_allclose(results[1][1][0], results[0][1], rtol=0.05, atol=1e-3)
        first, *rest = times
        one, many = (statistics.median(t) / steps * 1e6 for t in zip(*rest, strict=True))
        ratios = [b / a for a, b in rest]
        print(
            f"| {name:<7} | {one:.0f} | {many:.0f} | {statistics.median(ratios):.1f} "
            f"({min(ratios):.1f}–{max(ratios):.1f}) | {first[1] / first[0]:.1f} ({first[0]:.1f} s, {first[1]:.1f} s) |"
        )


if __name__ == "__main__":
    main()
