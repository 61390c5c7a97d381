"""`python -m benchmarks.lookup`: a training step of a large lookup table, against the same step written with JAX.

Both steps are compiled, and take the table and the optimizer's state as buffers to write the new ones into. JAX's
computes gradient and update of the whole table; tracegrad's, of the rows that were looked up.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import tracegrad as tg
from tracegrad import optimizers

Step = Callable[[Any, Any, Any], tuple[Any, Any]]


def loss(table: Any, weights: Any, ids: Any) -> Any:
    return ((table[ids] @ weights) ** 2).mean()


def sgd(table: Any, state: Any, grads: Any) -> Any:
    return table - 0.1 * grads, state


def adagrad(table: Any, squares: Any, grads: Any) -> Any:
    squares = squares + grads**2
    return table - 0.1 * grads * jax.lax.rsqrt(squares + 1e-7), squares


def lazy_adam(table: Any, state: Any, grads: Any) -> Any:
    count, mu, nu = state
    count, used = count + 1, (grads != 0).any(1, keepdims=True)
    mu, nu = jnp.where(used, 0.9 * mu + 0.1 * grads, mu), jnp.where(used, 0.999 * nu + 0.001 * grads**2, nu)
    step = (mu / (1 - 0.9**count)) / (jnp.sqrt(nu / (1 - 0.999**count)) + 1e-8)
    return jnp.where(used, table - 0.1 * step, table), (count, mu, nu)


RULES: dict[str, tuple[Any, Callable[..., Any], Callable[[Any], Any]]] = {
    "sgd": (optimizers.sgd(0.1), sgd, lambda table: ()),
    "adagrad": (optimizers.adagrad(0.1), adagrad, lambda table: jnp.full_like(table, 0.1)),
    "adam, lazy": (
        optimizers.lazy(optimizers.adam(0.1)),
        lazy_adam,
        lambda table: (jnp.zeros((), jnp.int32), jnp.zeros_like(table), jnp.zeros_like(table)),
    ),
}


def steps(name: str, weights: Any) -> tuple[Any, Any]:
    optimizer, rule, _ = RULES[name]

    def ours(table: Any, state: Any, ids: Any) -> Any:
        updates, state = optimizer.update(tg.grad(loss)(table, weights, ids), state, table)
        return optimizers.apply_updates(table, updates), state

    def theirs(table: Any, state: Any, ids: Any) -> Any:
        return rule(table, state, jax.grad(loss)(table, weights, ids))

    return tg.jit(ours, donate_argnums=(0, 1)), jax.jit(theirs, donate_argnums=(0, 1))


def seconds(step: Step, table: Any, state: Any, ids: Any) -> tuple[float, Any, Any]:
    start = time.perf_counter()
    table, state = jax.block_until_ready(step(table, state, ids))
    return time.perf_counter() - start, table, state


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lookup", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--ids", type=int, default=512)
    parser.add_argument("--repeat", type=int, default=10)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    start = rng.standard_normal((options.rows, options.width), np.float32)
    ids = rng.integers(0, options.rows // 2, options.ids).astype(np.int32)
    ids[: options.ids // 8] = ids[options.ids // 8 : 2 * (options.ids // 8)]
    weights = rng.standard_normal((options.width, 8), np.float32)
    print("| optimizer | JAX, whole (ms) | tracegrad, rows (ms) | ratio: median (least–greatest) | temporary memory |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, (optimizer, _, init) in RULES.items():
        ours, theirs = steps(name, weights)
        a, b = (jnp.asarray(start), optimizer.init(start)), (jnp.asarray(start), init(start))
        memory = ours.lower(*a, ids).compile().memory_analysis().temp_size_in_bytes
        times = []
        for i in range(options.repeat + 1):
            (s, *a), (t, *b) = seconds(ours, *a, ids), seconds(theirs, *b, ids)
            if i:
                times.append((s, t))
            else:
                np.testing.assert_allclose(a[0], b[0], rtol=1e-5, atol=1e-6)
        ratios = [t / s for s, t in times]
        mine, whole = (statistics.median(t) * 1e3 for t in zip(*times, strict=True))
        print(
            f"| {name:<10} | {whole:.1f} | {mine:.2f} | {statistics.median(ratios):.0f} ({min(ratios):.0f}–"
            f"{max(ratios):.0f}) | {memory / 1e6:.1f} MB of {start.nbytes / 1e6:.0f} MB |"
        )


if __name__ == "__main__":
    main()
