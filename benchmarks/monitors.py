"""`python -m benchmarks.monitors`: what `train.Monitor` costs: a loop with it, against the same loop without it.

Both loops take the same jitted steps, in turns, and wait for the last one. The ratio of the medians is that of the
whole loop; what a look costs, in steps, is the time that it adds, divided by the looks and by the time of a step.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import jax
import numpy as np

import tracegrad as tg
from tracegrad import nn, optimizers, train


def convolutional(key: Any) -> Any:
    keys = tg.random.split(key, 3)
    blocks = [
        nn.Sequential([nn.Conv.init(k, a, b, (3, 3)), nn.relu])
        for k, a, b in zip(keys, (1, 32), (32, 64), strict=False)
    ]
    return nn.Sequential([*blocks, lambda x: x.reshape(x.shape[0], -1), nn.Linear.init(keys[2], 8 * 8 * 64, 10)])


def perceptron(key: Any) -> Any:
    return nn.Sequential([lambda x: x.reshape(x.shape[0], -1), nn.MLP.init(key, (64, 512, 512, 512, 10))])


def transformer(key: Any) -> Any:
    k1, k2, k3 = tg.random.split(key, 3)
    return nn.Sequential(
        [
            lambda x: x.reshape(x.shape[0], 8, 8),
            nn.Linear.init(k1, 8, 128),
            nn.Stack.init(k2, 4, lambda k: nn.TransformerBlock.init(k, 128, 4)),
            lambda x: x.mean(1),
            nn.Linear.init(k3, 128, 10),
        ]
    )


MODELS = {"convolutional": convolutional, "perceptron": perceptron, "transformer": transformer}


def loss(model: Any, x: Any, y: Any) -> Any:
    return nn.losses.sparse_categorical_cross_entropy(model(x), y, from_logits=True)


def seconds(step: Any, model: Any, optimizer: Any, batch: Any, steps: int, monitor: train.Monitor | None) -> float:
    """How long a loop takes, from parameters and a state of its own, which the steps take the memory of."""
    model, state = jax.tree.map(jax.numpy.copy, (model, optimizer.init(model)))
    jax.block_until_ready((model, state))
    start = time.perf_counter()
    for i in range(steps):
        if monitor is not None:
            monitor(i, model, *batch)
        model, state, _ = step(model, state, *batch)
    jax.block_until_ready(model)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.monitors", description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=50, help="steps from look to look (default: 50)")
    parser.add_argument("--batch", type=int, default=128, help="examples a step (default: 128)")
    parser.add_argument("--looks", type=int, default=4, help="looks in a loop (default: 4)")
    parser.add_argument("--repeat", type=int, default=7, help="times that each loop runs (default: 7)")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    batch = (rng.normal(size=(options.batch, 8, 8, 1)).astype(np.float32), rng.integers(0, 10, options.batch))
    steps = options.looks * options.every
    for name, make in MODELS.items():
        model, optimizer = make(tg.random.key(0)), optimizers.adam(1e-3)

        def step(model: Any, state: Any, x: Any, y: Any, optimizer: Any = optimizer) -> Any:
            value, grads = tg.value_and_grad(loss)(model, x, y)
            updates, state = optimizer.update(grads, state, model)
            return optimizers.apply_updates(model, updates), state, value

        compiled = tg.jit(step, donate_argnums=(0, 1))
        monitor = train.Monitor(loss, every=options.every)
        times: dict[bool, list[float]] = {False: [], True: []}
        for turn in range(-1, options.repeat):
            for watched in (False, True):
                taken = seconds(compiled, model, optimizer, batch, steps, monitor if watched else None)
                times[watched] += [taken] if turn >= 0 else []
        plain, watched_time = (statistics.median(times[w]) for w in (False, True))
        each = (watched_time - plain) / options.looks / (plain / steps)
        ratios = sorted(b / a for a, b in zip(times[False], times[True], strict=True))
        print(
            f"{name:>15}: {1e3 * plain / steps:.2f} ms a step; every {options.every}: {watched_time / plain:.3f}x "
            f"({ratios[0]:.3f} to {ratios[-1]:.3f}); a look costs {each:.1f} steps",
            flush=True,
        )


if __name__ == "__main__":
    main()
