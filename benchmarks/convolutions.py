"""`python -m benchmarks.convolutions`: convolutions and their gradients beside `jax.lax`'s, shape by shape.

What decides in `tracegrad/ops/conv_cpu.py` how a CPU convolves was read off these figures. Where XLA makes the same
program of both, "=" stands in place of a ratio of two equal times. A ratio counts as slower where both the median of
the pairs and that of the least times are.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import re
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

import tracegrad as tg
from tracegrad import ops

from .measure import Effort, in_turns, seconds, wait

LAYOUTS = {1: ("NHC", "HIO", "NHC"), 2: ("NHWC", "HWIO", "NHWC")}
KINDS = ("forward", "x", "kernel")
SLOWER = 1.05


@dataclass(frozen=True)
class Case:
    """A convolution with padding "SAME": `rank` spatial axes of `size`, windows of `window`."""

    batch: int
    size: int
    inputs: int
    outputs: int
    window: int
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    rank: int = 2

    def arrays(self) -> tuple[Any, Any]:
        rng = np.random.default_rng(0)
        shapes = (
            (self.batch, *(self.size,) * self.rank, self.inputs),
            (*(self.window,) * self.rank, self.inputs // self.groups, self.outputs),
        )
        x, kernel = (jax.device_put(rng.normal(size=shape).astype(np.float32)) for shape in shapes)
        return x, kernel

    def convolution(self, conv: Callable[..., Any]) -> Callable[[Any, Any], Any]:
        options = {
            "rhs_dilation": (self.dilation,) * self.rank,
            "feature_group_count": self.groups,
            "dimension_numbers": LAYOUTS[self.rank],
        }
        return lambda x, kernel: conv(x, kernel, (self.stride,) * self.rank, "SAME", **options)


def cases(quick: bool) -> Iterator[Case]:
    for size, batch, (inputs, outputs) in itertools.product(
        (8, 28, 64), (1, 32, 128), ((1, 16), (1, 64), (3, 16), (3, 64), (16, 32), (32, 64))
    ):
        if size * size * batch * inputs <= 32 * 28 * 28 * 32 and size * size * batch * outputs <= 32 * 28 * 28 * 64:
            yield Case(batch, size, inputs, outputs, 3)
    if quick:
        return
    for inputs, outputs in (
        (1, 8),
        (1, 32),
        (2, 8),
        (2, 32),
        (3, 8),
        (3, 32),
        (4, 8),
        (4, 16),
        (4, 32),
        (8, 1),
        (16, 4),
    ):
        yield Case(32, 16, inputs, outputs, 3)
    for window, stride in ((1, 1), (1, 2), (2, 2), (4, 4), (5, 1), (5, 2), (7, 2)):
        for inputs, outputs in ((1, 16), (3, 32), (16, 32)):
            yield Case(8, 32, inputs, outputs, window, stride)
    for inputs, outputs, groups in ((32, 32, 32), (32, 64, 32), (64, 64, 16), (32, 32, 8), (32, 64, 2), (128, 128, 16)):
        for stride in (1, 2):
            yield Case(8, 16, inputs, outputs, 3, stride, groups=groups)
    for inputs, outputs, groups in ((3, 16, 1), (16, 32, 1), (32, 32, 32)):
        yield Case(8, 32, inputs, outputs, 3, dilation=2, groups=groups)
    for inputs, outputs, groups in ((1, 16, 1), (4, 64, 1), (32, 32, 1), (64, 64, 64), (64, 64, 4)):
        for dilation in (1, 4):
            yield Case(16, 128, inputs, outputs, 5, dilation=dilation, groups=groups, rank=1)


def functions(case: Case, kind: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The value, or one gradient, of tracegrad's convolution and of JAX's."""
    ours, theirs = case.convolution(ops.conv_general_dilated), case.convolution(jax.lax.conv_general_dilated)
    if kind == "forward":
        return ours, theirs
    which = KINDS.index(kind) - 1

    def gradient(vjp: Any, conv: Callable[..., Any]) -> Callable[..., Any]:
        def of(x: Any, kernel: Any, ct: Any) -> Any:
            part = (lambda x: conv(x, kernel)) if which == 0 else (lambda kernel: conv(x, kernel))
            return vjp(part, (x, kernel)[which])[1](ct)[0]

        return of

    return gradient(tg.vjp, ours), gradient(jax.vjp, theirs)


def in_a_loop(fun: Callable[..., Any], steps: int = 2) -> Callable[..., Any]:
    """`fun` for each step of a `scan` over its arguments, repeated."""

    def run(*args: Any) -> Any:
        stacked = [jax.numpy.stack([a] * steps) for a in args]
        return jax.lax.scan(lambda carry, xs: (carry, fun(*xs)), 0.0, stacked)[1]

    return run


def instructions(compiled: Any) -> list[str]:
    """What a compiled program consists of, without the names of its parts and where they come from."""
    text = re.sub(r", (metadata|backend_config|frontend_attributes)=.*", "", compiled.as_text())
    return [re.sub(r"%[\w.-]+", "%", line).strip() for line in text.splitlines() if " = " in line]


def compare(case: Case, kind: str, effort: Effort, loop: bool) -> tuple[str, bool]:
    """A cell of the table, and whether tracegrad is slower."""
    pair = functions(case, kind)
    args = case.arrays()
    if kind != "forward":
        args = (*args, case.convolution(jax.lax.conv_general_dilated)(*args))
    made = [jax.jit(in_a_loop(f) if loop else f).lower(*args).compile() for f in pair]
    if sorted(instructions(made[0])) == sorted(instructions(made[1])):
        return "=", False
    outs = [wait(f(*args)) for f in made]
    np.testing.assert_allclose(outs[0], outs[1], rtol=1e-3, atol=1e-4 * float(abs(outs[1]).max()))
    once = seconds(lambda: made[0](*args), time.perf_counter)
    count = max(1, min(1_000, int(0.005 / max(once, 1e-6))))
    ours, theirs = in_turns(
        *[functools.partial(seconds, functools.partial(f, *args), effort.clock, count) for f in made], effort
    )
    memory = [f.memory_analysis().temp_size_in_bytes / 1e6 for f in made]
    median = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    least = min(ours) / min(theirs)
    text = f"{median:.2f} ({least:.2f}), {min(ours) * 1e3:.3f} ms, {memory[0]:.2f} / {memory[1]:.2f} MB"
    slow = min(median, least) > SLOWER
    return (f"**{text}**" if slow else text), slow


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.convolutions", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="windows of 3 × 3 alone")
    parser.add_argument("--loop", action="store_true", help="inside a scan")
    parser.add_argument("--repeat", type=int, default=8)
    options = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)  # type: ignore[no-untyped-call]
    effort = Effort(options.repeat, 10.0, time.process_time)
    print("| batch, size, features, window, stride, dilation, groups, axes | " + " | ".join(KINDS) + " |")
    print("| --- |" + " ---: |" * len(KINDS))
    slower = 0
    for case in cases(options.quick):
        cells = []
        for kind in KINDS:
            text, slow = compare(case, kind, effort, options.loop)
            slower += slow
            cells.append(text)
        c = case
        what = (
            f"{c.batch}, {c.size}, {c.inputs} → {c.outputs}, {c.window}, {c.stride}, {c.dilation}, {c.groups}, {c.rank}"
        )
        print(f"| {what} | " + " | ".join(cells) + " |", flush=True)
    print(f"\nTime of the processor ÷ JAX's, median (of the least times); temporary memory. Slower: {slower}.")


if __name__ == "__main__":
    main()
