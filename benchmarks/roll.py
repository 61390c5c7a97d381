"""What the rule of re-rolling rests on: programs rolled and unrolled, side by side, over body, size, turns and unroll.

    python -m benchmarks.roll [--quick]

Each program is a value and its gradient. "first" is the time of the processor for lowering and compiling, "step" the
least of the times of a call, taken in turns, and "memory" the temporary memory: all rolled ÷ unrolled. The last column
says what the rule does.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy

import tracegrad as tg
import tracegrad.numpy as tnp
from tracegrad.lower import lower
from tracegrad.passes import optimize, outline, reroll
from tracegrad.tape import Tape

UNROLLS = (1, 2, 4, 8)
SIZES = ((1, 8), (16, 32), (16, 128), (64, 256))
"""Batch and features."""

TURNS = (4, 8, 16, 64)


def recurrent(turns: int, batch: int, features: int) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """One weight, another input at each turn."""

    def f(w: Any, xs: Any) -> Any:
        h = tnp.zeros((batch, features))
        for t in range(turns):
            h = tnp.tanh(h @ w + xs[t])
        return tnp.sum(h * h)

    return f, (arrays(features, features), arrays(turns, batch, features))


def gated(turns: int, batch: int, features: int) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The turn of a gated network: some 40 steps with its gradient."""

    def f(w: Any, xs: Any) -> Any:
        h = tnp.zeros((batch, features))
        for t in range(turns):
            a, b, c = tnp.split(xs[t] @ w + h @ w, 3, axis=-1)
            gate = 1 / (1 + tnp.exp(-a))
            h = gate * h + (1 - gate) * tnp.tanh(b + tnp.exp(-c * c) * h)
        return tnp.sum(h * h)

    return f, (arrays(features, 3 * features), arrays(turns, batch, features))


def layers(turns: int, batch: int, features: int) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Layers with weights of their own."""

    def f(weights: Any, x: Any) -> Any:
        for w, b in weights:
            y = tnp.tanh(x @ w + b)
            x = x + y / tnp.sqrt(1.0 + tnp.mean(y * y, axis=-1, keepdims=True))
        return tnp.sum(x * x)

    return f, ([(arrays(features, features), arrays(features)) for _ in range(turns)], arrays(batch, features))


def elementwise(turns: int, batch: int, features: int) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """What XLA makes one function of."""

    def f(x: Any) -> Any:
        for _ in range(4 * turns):
            x = tnp.sin(x) * 0.9 + 0.1
        return tnp.sum(x)

    return f, (arrays(batch, features),)


BODIES = {f.__name__: f for f in (recurrent, gated, layers, elementwise)}


def arrays(*shape: int) -> Any:
    rng = numpy.random.default_rng(sum(shape))
    return jax.device_put(rng.normal(0, 0.5 / max(1, shape[0]) ** 0.5, shape).astype(numpy.float32))


def with_unroll(tape: Tape, unroll: int) -> Tape:
    """The program, so many turns of its loops compiled together."""
    nodes = []
    for node in tape.nodes:
        node = node.with_inputs(node.inputs)
        if node.op.name == "loop":
            node.params = node.params | {"unroll": min(unroll, node.params["length"])}
        nodes.append(node)
    return tape.replace(nodes=tuple(nodes))


def compiled(tape: Tape, args: Any) -> tuple[Callable[[], Any], float, int]:
    """A program's call, the seconds of the processor that its compilation took, and its temporary bytes."""
    leaves = jax.tree.leaves(args)
    start = time.process_time()
    program = jax.jit(lower(outline(tape))).lower(*leaves).compile()
    seconds = time.process_time() - start
    return lambda: program(*leaves), seconds, program.memory_analysis().temp_size_in_bytes


def least(calls: list[Callable[[], Any]], rounds: int) -> list[float]:
    """The least time of each call, in turns with the others."""
    best = [float("inf")] * len(calls)
    for call in calls:
        jax.block_until_ready(call())
    for _ in range(rounds):
        for i, call in enumerate(calls):
            start = time.perf_counter()
            jax.block_until_ready(call())
            best[i] = min(best[i], time.perf_counter() - start)
    return best


def rows(quick: bool, only: list[str]) -> Iterator[str]:
    yield (
        "| body | turns | batch × features | first | memory | "
        + " | ".join(f"step, unroll {u}" for u in UNROLLS)
        + " | rule |"
    )
    yield "|" + " --- |" * (6 + len(UNROLLS))
    for name in only:
        for batch, features in SIZES[1:3] if quick else SIZES:
            for turns in TURNS[1:3] if quick else TURNS:
                f, args = BODIES[name](turns, batch, features)
                plain = optimize(tg.trace(tg.value_and_grad(f))(*args))
                loops = reroll(plain, rule=lambda region, traffic, size: True)
                said: list[str] = []
                reroll(plain, said)
                call, first, memory = compiled(plain, args)
                others = [compiled(with_unroll(loops, u), args) for u in UNROLLS]
                base, *steps = least([call, *[c for c, _, _ in others]], 20 if quick else 60)
                cells = [f"{others[0][1] / first:.2f}", f"{others[0][2] / max(1, memory):.2f}"]
                cells += [f"{s / base:.2f}" for s in steps] + [f"rolls {len(said)}" if said else "leaves"]
                yield f"| {name} | {turns} | {batch} × {features} | " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two sizes, and 8 and 16 turns")
    parser.add_argument("--only", nargs="*", choices=BODIES, default=list(BODIES))
    options = parser.parse_args()
    for row in rows(options.quick, options.only):
        print(row)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
