"""Steps on eight devices beside one written by hand: `python -m benchmarks.parallel`.

By hand it is `jax.jit(jax.shard_map(...))` with `psum`. All take the same arrays, which lie on the devices already, sum
the gradients of the same formula, and end with the new parameters of gradient descent, the number of steps and
the loss. Each step waits for its own; the old arrays are donated. They run in turns, in one process. The devices are
eight of XLA on a CPU: their threads share its cores, so that what another thread waits for is in the time by the clock,
and not in that of the processor.

Then: how many functions of Python a step calls; what a device keeps with `"sharded"`; what each module sends.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import tracegrad as tg
from tracegrad import optimizers, train
from tracegrad.parallel import Bucketed, Compressed, Ordered, gradient_sum

from .__main__ import describe, environment
from .scale import collectives, sent
from .workloads import (
    Side,
    cnn,
    cnn_arguments,
    dense,
    integers,
    jax_side,
    mlp,
    mlp_arguments,
    tracegrad_side,
    transformer,
    transformer_arguments,
    zeros,
)

DEVICES = 8
RATE = 0.1
SAMPLE = 0.1
"""Seconds that a sample takes, about."""

Step = Callable[[], Any]
Model = tuple[Callable[[Side], Any], Callable[[], tuple[Any, ...]]]

FUSED = Ordered(DEVICES, "fused")
WAYS = {
    "own": "by hand, with tracegrad's gradient",
    "pmap": "`pmap`",
    "data_parallel": "`data_parallel`",
    "guarded": "with `stop_on_nonfinite`",
    "fused": '`Ordered(mode="fused")`',
}
MODULES = {
    "all_reduce": gradient_sum("all_reduce"),
    "bucketed": Bucketed(0.5),
    "bfloat16": Compressed("bfloat16"),
    "int8": Compressed("int8"),
    "sharded": gradient_sum("sharded"),
    "ordered, fused": FUSED,
}


@functools.cache
def perceptron(sizes: tuple[int, ...], batch: int = 256) -> tuple[Any, ...]:
    rng = np.random.default_rng(0)
    params = [{"w": dense(rng, n, m), "b": zeros(m)} for n, m in itertools.pairwise(sizes)]
    return params, dense(rng, batch, sizes[0], fan_in=1), integers(rng, 10, batch)


MODELS: dict[str, Model] = {
    "mlp": (mlp, mlp_arguments),
    "cnn": (cnn, cnn_arguments),
    "transformer-2": (transformer, functools.partial(transformer_arguments, 2)),
    "mlp-small": (mlp, functools.partial(perceptron, (784, 128, 10))),
    "mlp-wide": (mlp, functools.partial(perceptron, (784, 1024, 1024, 10))),
}
QUICK: dict[str, Model] = {"mlp": (mlp, functools.partial(perceptron, (64, 16, 10), 16))}


class Steps:
    """The steps of one model: each takes no arguments, waits for its result, and returns the loss."""

    def __init__(self, model: Model) -> None:
        build, arguments = model
        self.build = build
        self.params, *batch = jax.tree.map(np.asarray, arguments())
        self.host = tuple(batch)
        mesh = Mesh(np.array(jax.devices()[:DEVICES]), ("data",))
        self.mesh, self.rows, self.whole = mesh, NamedSharding(mesh, P("data")), NamedSharding(mesh, P())

    def running(self, step: Callable[..., Any], state: Any, batch: tuple[Any, ...]) -> Step:
        def run() -> Any:
            nonlocal state
            state, value = jax.block_until_ready(step(state, *batch))
            return value

        return run

    def placed(self) -> Any:
        """The parameters and the number of steps."""
        return jax.device_put((jax.tree.map(np.array, self.params), np.int32(0)), self.whole)

    def by_hand(self, side: Side, host: bool = False) -> Step:
        loss, gradient = self.build(side), side.value_and_grad

        def step(state: Any, *batch: Any) -> Any:
            params, count = state
            value, grads = jax.lax.psum(gradient(loss)(params, *batch), "data")
            return (jax.tree.map(lambda p, g: p - RATE * (g / DEVICES), params, grads), count + 1), value / DEVICES

        specs = (P(), *[P("data")] * len(self.host))
        mapped = jax.shard_map(step, mesh=self.mesh, in_specs=specs, out_specs=(P(), P()), check_vma=False)
        return self.running(jax.jit(mapped, donate_argnums=0), self.placed(), self.batch(host))

    def pmap(self, host: bool = False) -> Step:
        loss = self.build(tracegrad_side())

        def step(state: Any, *batch: Any) -> Any:
            params, count = state
            own = tg.parallel.pcast(params, "data", to="varying")
            value, grads = tg.psum(tg.value_and_grad(loss)(own, *batch), "data")
            return (jax.tree.map(lambda p, g: p - RATE * (g / DEVICES), params, grads), count + 1), value / DEVICES

        axes = (None, *[0] * len(self.host))
        mapped = tg.pmap(step, "data", in_axes=axes, out_axes=None, donate_argnums=0)
        split = jax.tree.map(np.asarray, tg.parallel.split_batch(self.host, DEVICES))
        return self.running(mapped, self.placed(), split if host else jax.device_put(split, self.rows))

    def data_parallel(self, host: bool = False, **options: Any) -> Step:
        optimizer = optimizers.sgd(RATE)
        step = train.data_parallel(self.build(tracegrad_side()), optimizer, devices=DEVICES, **options)
        state = step.place(train.TrainState.create(self.params, optimizer))
        return self.running(step, state, self.batch(host))

    def batch(self, host: bool) -> tuple[Any, ...]:
        return self.host if host else jax.device_put(self.host, self.rows)

    def all(self) -> dict[str, Step]:
        return {
            "hand": self.by_hand(jax_side()),
            "own": self.by_hand(tracegrad_side()),
            "pmap": self.pmap(),
            "data_parallel": self.data_parallel(stop_on_nonfinite=False),
            "guarded": self.data_parallel(),
            "fused": self.data_parallel(stop_on_nonfinite=False, gradients=FUSED),
        }


def in_turns(steps: dict[str, Step], repeat: int) -> dict[str, list[tuple[float, float]]]:
    """Samples of each: seconds a step by the clock, and of the processor. Those of one number were taken together."""
    start = time.perf_counter()
    steps["hand"]()
    count = max(1, int(SAMPLE / (time.perf_counter() - start)))
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    names = list(steps)
    for i in range(repeat):
        turn = names[i % len(names) :] + names[: i % len(names)]
        for name in turn if i % 2 else turn[::-1]:
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(count):
                steps[name]()
            samples[name].append(((time.perf_counter() - wall) / count, (time.process_time() - cpu) / count))
    return samples


def agree(steps: dict[str, Step], number: int = 3) -> None:
    """Raises `AssertionError` unless all lose the same, step after step."""
    for _ in range(number):
        values = {name: float(step()) for name, step in steps.items()}
        for name, value in values.items():
            if not abs(value - values["hand"]) <= 1e-4 * abs(values["hand"]):
                raise AssertionError(f"{name} has the loss {value}, by hand it is {values['hand']}")


def table(rows: Sequence[Sequence[str]]) -> str:
    head, *rest = rows
    line = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, line, *rest))


def speed(models: dict[str, Model], repeat: int) -> str:
    rows = [["model", "by hand (ms)", *WAYS.values()]]
    for name, model in models.items():
        steps = Steps(model).all()
        agree(steps)
        samples = in_turns(steps, repeat)
        hand = samples["hand"]
        milliseconds = [statistics.median(column) * 1e3 for column in zip(*hand, strict=True)]
        row = [name, " / ".join(f"{t:.3g}" for t in milliseconds)]
        for way in WAYS:
            pairs = list(zip(samples[way], hand, strict=True))
            medians = [statistics.median(a[clock] / b[clock] for a, b in pairs) for clock in (0, 1)]
            row.append(" / ".join(f"{ratio:.2f}" for ratio in medians))
        rows.append(row)
        print(" | ".join(row), file=sys.stderr, flush=True)
    return table(rows)


def python_calls(step: Step) -> int:
    """How many functions that are written in Python a warm step calls, itself included: the least of five.

    Now and then others are called, such as those that JAX runs after garbage was collected.
    """
    counts: list[int] = []

    def seen(frame: Any, event: str, arg: Any) -> None:
        counts[-1] += event == "call"

    step()
    step()
    for _ in range(5):
        counts.append(0)
        sys.setprofile(seen)
        try:
            step()
        finally:
            sys.setprofile(None)
    return min(counts)


def calls(model: Model) -> str:
    steps = Steps(model)
    ways: dict[str, Callable[[bool], Step]] = {
        "by hand": functools.partial(steps.by_hand, jax_side()),
        "`pmap`": steps.pmap,
        "`data_parallel`": steps.data_parallel,
        '`Ordered(mode="fused")`': functools.partial(steps.data_parallel, gradients=FUSED),
    }
    rows = [["arrays", *ways]]
    for host in (False, True):
        name = "of NumPy" if host else "on the devices"
        rows.append([name, *[str(python_calls(way(host))) for way in ways.values()]])
    return table(rows)


def memory(model: Model) -> str:
    """What a device has of the state of Adam, and what the compiled step takes there."""
    build, arguments = model
    params, *batch = jax.tree.map(np.asarray, arguments())
    optimizer = optimizers.adam(1e-3)
    rows = [["devices", "parameters", "state of Adam", "arguments of the step", "temporary"]]
    for devices in (1, 2, 4, 8):
        step = train.data_parallel(build(tracegrad_side()), optimizer, devices=devices, gradients="sharded")
        state = step.place(train.TrainState.create(params, optimizer))
        plan = step.lower(state, *batch).compile().memory_analysis()
        sizes = [held(state.params), held(state.opt_state), plan.argument_size_in_bytes, plan.temp_size_in_bytes]
        rows.append([str(devices), *[f"{size / 1e6:.3f}" for size in sizes]])
    return table(rows)


def held(tree: Any) -> int:
    """The bytes of these arrays on the first device."""
    return sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(tree))


def traffic(model: Model) -> str:
    """What the compiled step of each module sends."""
    build, arguments = model
    params, *batch = jax.tree.map(np.asarray, arguments())
    optimizer = optimizers.sgd(RATE)
    rows = [["module", "collectives of the compiled step", "sent by a device"]]
    for name, module in MODULES.items():
        step = train.data_parallel(build(tracegrad_side()), optimizer, devices=DEVICES, gradients=module)
        state = step.place(train.TrainState.create(params, optimizer))
        text = step.lower(state, *batch).compile().as_text()
        count, size = Counter[str](), Counter[str]()
        for kind, nbytes in collectives(text):
            count[kind] += 1
            size[kind] += nbytes
        parts = [f"{kind} of {size[kind] / 1e6:.3f} in {n}" for kind, n in count.items()]
        rows.append([name, ", ".join(parts), f"{sent(text, DEVICES) / 1e6:.3f}"])
    return table(rows)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parallel", description=(__doc__ or "").split(":")[0])
    parser.add_argument("--quick", action="store_true", help="one small model, few samples")
    parser.add_argument("--only", nargs="+", choices=list(MODELS), default=list(MODELS), metavar="MODEL",
                        help=f"these models: {', '.join(MODELS)}")  # fmt: skip
    parser.add_argument("--repeat", type=int, help="samples of each (default: 30, or 2 with --quick)")
    options = parser.parse_args(argv)
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", DEVICES)  # type: ignore[no-untyped-call]
    models = QUICK if options.quick else {name: MODELS[name] for name in options.only}
    first = next(iter(models.values()))
    print(describe(environment()), "\n", sep="")
    print("A step against one by hand, by the clock / of the processor, medians:\n")
    print(speed(models, options.repeat or (2 if options.quick else 30)))
    print("\nFunctions of Python that a step calls:\n")
    print(calls(first))
    print('\nMegabytes of a device with `"sharded"`:\n')
    print(memory(first))
    print(f"\nMegabytes that a step on {DEVICES} devices sends:\n")
    print(traffic(first))


if __name__ == "__main__":
    main()
