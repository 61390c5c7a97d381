"""`python -m benchmarks.memory`: a transformer's gradient under memory budgets, beside JAX's policies of `checkpoint`.

The formula is that of the workload "transformer", with its layers in a scan over stacked parameters, and one after
another. Memory is what XLA says of the compiled program beside its arguments and results; steps are taken in turns.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import tracegrad as tg

from .workloads import Side, in_turn, jax_side, tracegrad_side, transformer, transformer_arguments

SHARES = (0.6, 0.4, 0.2)
"""Budgets, as parts of what tracegrad takes without one."""


def loss(side: Side, scanned: bool, wrap: Callable[..., Any] = lambda block: block) -> Callable[..., Any]:
    def layers(block: Any, x: Any, blocks: Any) -> Any:
        block = wrap(block)
        if scanned:
            return side.scan(lambda x, p: (block(x, p), None), x, blocks)[0]
        return in_turn(block, x, blocks)

    return transformer(side, layers)


def temporaries(step: Any, args: Any) -> tuple[int, float]:
    """What a step's program takes, and the seconds until that is known."""
    start = time.perf_counter()
    size = step.lower(*args).compile().memory_analysis().temp_size_in_bytes
    return int(size), time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--repeat", type=int, default=11)
    parser.add_argument("--only", choices=("scan", "unrolled"))
    options = parser.parse_args()
    listed, tokens, labels = transformer_arguments(options.layers, options.width)
    stacked = {**listed, "blocks": jax.tree.map(lambda *xs: jnp.stack(xs), *listed["blocks"])}
    print("| layers | program | first (s) | temporaries (MiB) | ÷ tracegrad | step (ms) | ÷ tracegrad, wall | CPU |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for form, params in (("scan", stacked), ("unrolled", listed)):
        if options.only in (None, form):
            rows(form, (params, tokens, labels), options.repeat)


def rows(form: str, args: Any, repeat: int) -> None:
    theirs, ours, scanned = jax_side(), tracegrad_side(), form == "scan"
    policies = jax.checkpoint_policies
    steps: dict[str, Any] = {"tracegrad": tg.jit(tg.value_and_grad(loss(ours, scanned)))}
    steps["JAX"] = jax.jit(jax.value_and_grad(loss(theirs, scanned)))
    for name in ("dots_saveable", "nothing_saveable"):
        wrap = functools.partial(jax.checkpoint, policy=getattr(policies, name))
        steps[f"JAX, {name}"] = jax.jit(jax.value_and_grad(loss(theirs, scanned, wrap)))
    sizes = {name: temporaries(step, args) for name, step in steps.items()}
    plain, _ = sizes["tracegrad"]
    budgets = {f"{share} of its own": int(share * plain) for share in SHARES}
    budgets |= {f"of {name[5:]}": size for name, (size, _) in sizes.items() if "_" in name and scanned}
    for name, size in budgets.items():
        fitting = tg.jit(tg.value_and_grad(loss(ours, scanned)), memory_budget=size)
        try:
            sizes[f"tracegrad, budget {name}"] = temporaries(fitting, args)
        except ValueError as error:
            print(f"| {form} | tracegrad, budget {name}: {str(error).partition(' at ')[0]} | | | | | | |")
        else:
            steps[f"tracegrad, budget {name}"] = fitting
    expected = None
    wall: dict[str, list[float]] = {name: [] for name in steps}
    cpu: dict[str, list[float]] = {name: [] for name in steps}
    for i in range(repeat + 1):
        for name in steps if i % 2 else reversed(steps):
            start = time.perf_counter(), time.process_time()
            out = jax.block_until_ready(steps[name](*args))
            if i:
                wall[name].append(time.perf_counter() - start[0])
                cpu[name].append(time.process_time() - start[1])
            else:
                expected = out if expected is None else expected
                for a, b in zip(jax.tree.leaves(out), jax.tree.leaves(expected), strict=True):
                    np.testing.assert_allclose(a, b, rtol=0, atol=1e-4 * float(np.abs(b).max()))
    for name in steps:
        size, first = sizes[name]
        ratios = [
            statistics.median(a / b for a, b in zip(times[name], times["tracegrad"], strict=True))
            for times in (wall, cpu)
        ]
        print(
            f"| {form} | {name} | {first:.1f} | {size / 2**20:.1f} | {size / plain:.2f} | "
            f"{statistics.median(wall[name]) * 1e3:.0f} | {ratios[0]:.2f} | {ratios[1]:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
