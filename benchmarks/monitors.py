"""`python -m benchmarks.monitors`: what `train.Monitor` costs: a loop with it, against the same loop without it.

The loops take the same jitted steps, in turns, and wait for the last one. The ratio is the median of those of turns,
by the clock and by the processor's time, which other programs on the machine disturb less. What a look costs, in steps,
is taken from loops that look at every fifth step, where it can be told from the noise: what they add, divided by the
looks and by the time of a step.
"""

from __future__ import annotations

import argparse
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


OFTEN = 5
"""Steps from look to look in the loops that tell what a look costs."""

MODELS = {"convolutional": convolutional, "perceptron": perceptron, "transformer": transformer}


def loss(model: Any, x: Any, y: Any) -> Any:
    return nn.losses.sparse_categorical_cross_entropy(model(x), y, from_logits=True)


def seconds(
    step: Any, model: Any, optimizer: Any, batch: Any, steps: int, monitor: train.Monitor | None
) -> tuple[float, float]:
    """How long a loop takes, and how much of the processors, from parameters and a state whose memory it takes."""
    model, state = jax.tree.map(jax.numpy.copy, (model, optimizer.init(model)))
    jax.block_until_ready((model, state))
    start, used = time.perf_counter(), time.process_time()
    for i in range(steps):
        if monitor is not None:
            monitor(i, model, *batch)
        model, state, _ = step(model, state, *batch)
    jax.block_until_ready(model)
    return time.perf_counter() - start, time.process_time() - used


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.monitors", description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=50, help="steps from look to look (default: 50)")
    parser.add_argument("--batch", type=int, default=128, help="examples a step (default: 128)")
    parser.add_argument("--looks", type=int, default=4, help="looks in a loop (default: 4)")
    parser.add_argument("--repeat", type=int, default=7, help="times that each loop runs (default: 7)")
    parser.add_argument("--only", choices=MODELS, help="one model alone")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    batch = (rng.normal(size=(options.batch, 8, 8, 1)).astype(np.float32), rng.integers(0, 10, options.batch))
    steps = options.looks * options.every
    for name, make in MODELS.items():
        if options.only not in (None, name):
            continue
        model, optimizer = make(tg.random.key(0)), optimizers.adam(1e-3)

        def step(model: Any, state: Any, x: Any, y: Any, optimizer: Any = optimizer) -> Any:
            value, grads = tg.value_and_grad(loss)(model, x, y)
            updates, state = optimizer.update(grads, state, model)
            return optimizers.apply_updates(model, updates), state, value

        compiled = tg.jit(step, donate_argnums=(0, 1))
        loops = [(steps, None), (steps, options.every), (OFTEN * options.looks, OFTEN)]
        monitors = [every and train.Monitor(loss, every=every) for _, every in loops]
        turns = []
        for turn in range(-1, options.repeat):
            found = [
                seconds(compiled, model, optimizer, batch, number, monitor)
                for (number, _), monitor in zip(loops, monitors, strict=True)
            ]
            turns += [found] if turn >= 0 else []
        plain, watched, often = np.array(turns).transpose(1, 0, 2)
        of_step = plain / steps
        ratios = watched / plain
        looks = (often / options.looks - OFTEN * of_step) / of_step
        by_clock, by_processor = np.median(ratios, 0)
        print(
            f"{name:>15}: {1e3 * np.median(of_step[:, 0]):.2f} ms a step; every {options.every}: {by_clock:.3f}x "
            f"({ratios[:, 0].min():.3f} to {ratios[:, 0].max():.3f}), by processor {by_processor:.3f}x; a look costs "
            "{:.1f} steps, by processor {:.1f}".format(*np.median(looks, 0)),
            flush=True,
        )


if __name__ == "__main__":
    main()
