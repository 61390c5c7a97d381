"""The figures: how each is sampled, on both sides in turns, and what it may be at most."""

from __future__ import annotations

import functools
import gc
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import numpy

from . import pytorch
from .workloads import SIDES, Function, Side, Workload, workloads

BATCH_SECONDS = 0.05
"""How long a batch of short calls is meant to take."""

CALLS = 2_000
"""How many calls of a trivial function one sample of the call overhead consists of."""

RECORDED = 100_000
"""How many nodes a sample of recording has at least, so that each bears its share of garbage collection."""

FIRST_ROUNDS = 5
"""At most how many fresh processes a side are started for a first call."""


@dataclass(frozen=True)
class Figure:
    """What one column of the table shows.

    Attributes:
      unit: of the samples of a side.
      budget: what the ratio tracegrad/JAX may be at most, on every workload; for a figure of tracegrad alone, what
        the figure itself may be.
      mean_budget: what the geometric mean of the ratios may be at most.
      budgets: the budgets of those workloads that have another.
    """

    title: str
    unit: str
    budget: float
    mean_budget: float | None = None
    budgets: dict[str, float] = field(default_factory=dict)
    absolute: bool = False


FIGURES = {
    "record_forward": Figure("record, forward (µs/node)", "µs/node", 5.0, absolute=True),
    "record": Figure("record, forward and backward (µs/node)", "µs/node", 5.0, absolute=True),
    "lower": Figure("trace + lower", "s", 0.5),
    "compile": Figure("compile", "s", 0.9),
    "step": Figure("step", "s", 1.0, mean_budget=0.9),
    # The product of the inputs of all steps is one, and so is its gradient's: it is held for all of them.
    "memory": Figure("temporary memory", "bytes", 1.0, budgets={"lstm-layer": 1.5}),
    "call": Figure("call overhead", "s", 1.1),
    "undecorated": Figure("undecorated", "s", 0.1),
    "first": Figure("undecorated, first call", "s", 0.3, budgets={"loop-10000": 1.0, "trees": 1.0}),
    "new_structure": Figure("undecorated, long or new structure", "s", 1.0),
    # Bresson, "Training neural networks" (2017), has the full softmax take 258 times as long.
    "rival": Figure("step, against the full softmax", "s", 1 / 258),
    "pytorch": Figure("step, against PyTorch eager", "s", 1.0),
}


@dataclass(frozen=True)
class Result:
    """The samples of one figure of one workload: of tracegrad and, pair by pair, of JAX."""

    workload: str
    figure: str
    tracegrad: list[float]
    jax: list[float]
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def values(self) -> list[float]:
        """What is held against the budget: the ratio of each pair, or the samples themselves."""
        if FIGURES[self.figure].absolute:
            return self.tracegrad
        return [ratio(ours, theirs) for ours, theirs in zip(self.tracegrad, self.jax, strict=True)]

    @property
    def value(self) -> float:
        return statistics.median(self.values)

    @property
    def budget(self) -> float:
        figure = FIGURES[self.figure]
        return figure.budgets.get(self.workload, figure.budget)

    @property
    def over(self) -> bool:
        return self.value > self.budget

    def as_json(self) -> dict[str, Any]:
        figure = FIGURES[self.figure]
        sides = {"tracegrad": summary(self.tracegrad)} | ({} if figure.absolute else {"jax": summary(self.jax)})
        return {
            "workload": self.workload, "figure": self.figure, "unit": figure.unit, **sides,
            "value" if figure.absolute else "ratio": summary(self.values),
            "budget": self.budget, "over": self.over, **self.notes,
        }  # fmt: skip


def ratio(ours: float, theirs: float) -> float:
    if theirs == 0:
        return 1.0 if ours == 0 else math.inf
    return ours / theirs


def summary(samples: list[float]) -> dict[str, Any]:
    return {
        "median": statistics.median(samples), "min": min(samples), "max": max(samples), "samples": samples,
    }  # fmt: skip


@dataclass(frozen=True)
class Effort:
    """How many pairs of samples a figure gets, the seconds after which four are enough, and the clock."""

    repeat: int
    seconds: float = 30.0
    clock: Callable[[], float] = time.perf_counter

    def more(self) -> Effort:
        """For figures whose samples are short and scatter."""
        return replace(self, repeat=3 * self.repeat)


Sampler = Callable[[], float]
wait: Callable[[Any], Any] = jax.block_until_ready


def in_turns(ours: Sampler, theirs: Sampler, effort: Effort) -> tuple[list[float], list[float]]:
    """Pairs of samples of two sides, each side first in every other pair, so that an even number of pairs is fair."""
    pairs: tuple[list[float], list[float]] = [], []
    start = time.perf_counter()
    for i in range(effort.repeat):
        if i >= 4 and i % 2 == 0 and time.perf_counter() - start > effort.seconds:
            break
        for side in (0, 1) if i % 2 == 0 else (1, 0):
            pairs[side].append((ours, theirs)[side]())
    return pairs


def seconds(fun: Callable[[], Any], clock: Callable[[], float], count: int = 1) -> float:
    """How long a call takes until all that it computes is there: the mean of `count` calls."""
    start = clock()
    for _ in range(count):
        wait(fun())
    return (clock() - start) / count


def batch_size(fun: Callable[[], Any]) -> int:
    """How many calls fill a batch, from one call that is warm."""
    wait(fun())
    return max(1, min(10_000, int(BATCH_SECONDS / max(seconds(fun, time.perf_counter), 1e-6))))


class Bench:
    """Takes the figures of one workload. Each method named as a figure yields its results."""

    def __init__(self, workload: Workload, effort: Effort) -> None:
        self.workload = workload
        self.effort = effort
        self.clock = effort.clock
        self.sides: tuple[Side, Side] = SIDES["tracegrad"](), SIDES["jax"]()
        self.args = workload.arguments()

    def run(self, figures: list[str]) -> Iterator[Result]:
        yield from (getattr(self, name)() for name in figures)

    def gradient(self, side: Side) -> Function:
        """The value and gradient of a new function of the formula."""
        return self.workload.gradient(side, self.workload.build(side))

    def jitted(self, side: Side) -> Any:
        build, scalar = self.workload.build, self.workload.name != "call"
        return side.jit(self.gradient(side) if scalar else build(side))

    def result(self, figure: str, ours: list[float], theirs: list[float], **notes: Any) -> Result:
        return Result(self.workload.name, figure, ours, theirs, notes)

    def paired(self, figure: str, sample: Callable[[Side], float], effort: Effort | None = None) -> Result:
        ours, theirs = self.sides
        return self.result(figure, *in_turns(lambda: sample(ours), lambda: sample(theirs), effort or self.effort))

    # -- agreement

    def check(self, tolerance: float = 1e-4) -> None:
        """Raises `AssertionError` unless both sides give the same values and gradients."""
        ours, theirs = self.sides
        for args in self.workload.rounds(0)[:3]:
            expected = self.jitted(theirs)(*args) if self.compilable else self.gradient(theirs)(*args)
            if self.compilable:
                assert_close(f"{self.workload.name}, compiled", self.jitted(ours)(*args), expected, tolerance)
            if self.workload.name != "call":
                assert_close(f"{self.workload.name}, undecorated", self.gradient(ours)(*args), expected, tolerance)

    @property
    def compilable(self) -> bool:
        return bool({"lower", "compile", "step", "memory", "call"} & set(self.workload.figures))

    # -- recording

    def record_forward(self) -> Result:
        return self.recording("record_forward", self.workload.build(self.sides[0]))

    def record(self) -> Result:
        return self.recording("record", self.gradient(self.sides[0]))

    def recording(self, figure: str, fun: Function) -> Result:
        import tracegrad as tg

        trace = tg.trace(fun)
        nodes = len(trace(*self.args))
        count = max(1, RECORDED // nodes)

        def sample() -> float:
            gc.collect()
            start = self.clock()
            for _ in range(count):
                trace(*self.args)
            return (self.clock() - start) / count / nodes * 1e6

        return self.result(figure, [sample() for _ in range(self.effort.repeat)], [], nodes=nodes)

    # -- compilation

    def lower(self) -> Result:
        def sample(side: Side) -> float:
            fun = self.jitted(side)
            gc.collect()
            start = self.clock()
            fun.lower(*self.args)
            return self.clock() - start

        for side in self.sides:
            sample(side)
        return self.paired("lower", sample)

    def compile(self) -> Result:
        def sample(side: Side) -> float:
            lowered = self.jitted(side).lower(*self.args)
            gc.collect()
            start = self.clock()
            lowered.compile()
            return self.clock() - start

        return self.paired("compile", sample)

    def memory(self) -> Result:
        sizes = []
        for side in self.sides:
            analysis = self.jitted(side).lower(*self.args).compile().memory_analysis()
            sizes.append(float(analysis.temp_size_in_bytes))
        return self.result("memory", sizes[:1], sizes[1:])

    # -- execution

    def step(self) -> Result:
        return self.steady("step", self.jitted)

    def undecorated(self) -> Result:
        return self.steady("undecorated", self.gradient)

    def steady(self, figure: str, make: Callable[[Side], Function]) -> Result:
        return self.timed(figure, {side.name: functools.partial(make(side), *self.args) for side in self.sides})

    def rival(self) -> Result:
        """Ours against another formula for the same purpose, in JAX."""
        ours, theirs = self.sides
        assert self.workload.rival is not None
        build, arguments = self.workload.rival
        other = theirs.jit(theirs.value_and_grad(build(theirs)))
        steps = {ours.name: functools.partial(self.jitted(ours), *self.args)}
        return self.timed("rival", steps | {theirs.name: functools.partial(other, *arguments())})

    def pytorch(self) -> Result:
        """Ours against the same formula in PyTorch, which must give the same value."""
        ours, other = self.sides
        steps = {ours.name: functools.partial(self.jitted(ours), *self.args)}
        steps[other.name] = pytorch.step(self.workload.name, self.args)
        values = [numpy.asarray(step()[0]) for step in steps.values()]
        # oneDNN's convolutions round more than XLA's.
        assert_close(f"{self.workload.name}, against PyTorch", *values, tolerance=1e-3)
        return self.timed("pytorch", steps)

    def timed(self, figure: str, steps: dict[str, Callable[[], Any]]) -> Result:
        counts = {name: batch_size(step) for name, step in steps.items()}

        def sample(side: Side) -> float:
            return seconds(steps[side.name], self.clock, counts[side.name])

        return self.paired(figure, sample, self.effort.more())

    def call(self) -> Result:
        """Calls of a compiled function that does nearly nothing; only the last is waited for."""
        functions = {side.name: self.jitted(side) for side in self.sides}
        x, y, z = self.args
        for fun in functions.values():
            wait(fun(x, y, z))

        def sample(side: Side) -> float:
            fun = functions[side.name]
            start = self.clock()
            for _ in range(CALLS):
                out = fun(x, y, z)
            wait(out)
            return (self.clock() - start) / CALLS

        return self.paired("call", sample, self.effort.more())

    def new_structure(self) -> Result:
        """Rounds of undecorated calls; where the workload has trees, each call has one that no call had before."""
        rounds = {side.name: 0 for side in self.sides}
        functions = {side.name: self.gradient(side) for side in self.sides}

        def sample(side: Side) -> float:
            fun = functions[side.name]
            rounds[side.name] += 1
            calls = self.workload.rounds(rounds[side.name])
            gc.collect()
            return seconds(lambda: [fun(*args) for args in calls], self.clock)

        for side in self.sides:
            sample(side)
        return self.paired("new_structure", sample)

    def first(self) -> Result:
        """The first round of undecorated calls in a fresh process, always by the wall clock."""
        effort = Effort(min(self.effort.repeat, FIRST_ROUNDS), math.inf)
        name = self.workload.name
        ours, theirs = (functools.partial(in_fresh_process, side.name, name) for side in self.sides)
        return self.result("first", *in_turns(ours, theirs, effort))


def assert_close(what: str, ours: Any, theirs: Any, tolerance: float) -> None:
    """Raises `AssertionError` unless each array differs by at most `tolerance` of its largest element."""
    tree: Any
    leaves, tree = jax.tree.flatten(ours)
    expected, expected_tree = jax.tree.flatten(theirs)
    if tree != expected_tree:
        raise AssertionError(f"{what}: the result has structure {tree}, JAX's has {expected_tree}")
    for i, (a, b) in enumerate(zip(map(numpy.asarray, leaves), map(numpy.asarray, expected), strict=True)):
        if a.shape != b.shape or a.dtype != b.dtype:
            raise AssertionError(f"{what}: result {i} is {a.dtype}{a.shape}, JAX's is {b.dtype}{b.shape}")
        error, scale = numpy.max(numpy.abs(a - b), initial=0), numpy.max(numpy.abs(b), initial=0)
        if not error <= tolerance * scale + 1e-30:
            raise AssertionError(f"{what}: result {i} differs from JAX's by {error}, its largest element is {scale}")


def in_fresh_process(side: str, workload: str) -> float:
    code = f"from benchmarks.measure import first_call; print(first_call({side!r}, {workload!r}))"
    root = Path(__file__).resolve().parent.parent
    environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=root, env=environment, stdout=subprocess.PIPE, check=True)
    return float(done.stdout.split()[-1])


def first_call(side_name: str, workload_name: str) -> float:
    """Seconds that the first round of undecorated calls takes in this process."""
    workload = next(w for w in workloads() if w.name == workload_name)
    side = SIDES[side_name]()
    calls = workload.rounds(0)
    fun = side.value_and_grad(workload.build(side))
    wait(calls)
    return seconds(lambda: [fun(*args) for args in calls], time.perf_counter)
