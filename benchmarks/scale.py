"""`python -m benchmarks.scale`: what share of its time a data-parallel step computes, on 8 to 4,096 devices.

A model of a step, for each way in which the gradients of the devices become one, and what limits it. Devices stand in
nodes: `g` of them in each of `m` nodes. Of `N` parameters and `b` tokens a device,

    T = 6 N b / F                                        computes forward (a third) and backward (two thirds),
    C(n) = n (g-1)/g / B_in + n/g (m-1)/m / B_out        is one pass of a ring over n bytes, in and between nodes,
    X(n) = n (g-1)/D / B_in + n (m-1)/m / B_out          is one all-to-all of n bytes,
    a log2 D                                             is the latency of one of them.

An all-reduce is two passes. What is sent in k buckets while T goes on has the last bucket left over at least, and what
is longer than T: of A seconds, max(A/k, A - T' (1 - 1/k)) are seen, where T' is the part of T that runs meanwhile.

`T = 6 N b / F`: Kaplan et al., Scaling laws for neural language models (2020). Rings: Patarasu and Yuan, Bandwidth
optimal all-reduce algorithms (2009). Not in the model: activations, stragglers, congestion, pipelines.

`--gloo` measures what real processes on this machine reach with Gloo, and holds the model with these constants against
a step that they take.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

import tracegrad as tg

BACKWARD, FORWARD = 2 / 3, 1 / 3
"""Of the time of a step that computes."""


@dataclass(frozen=True)
class Machine:
    """What a device and its links do at best, and what share of it a program gets.

    Attributes:
      flops: operations a second, of which `utilisation` are reached.
      inner, outer: bytes a second and direction, of a device in its node, and of a device between nodes.
      node: devices in a node; 0 if all are in one.
      hbm: bytes a second between a device and its memory.
      link_efficiency: the part that is reached of `inner`, `outer` and `hbm`.
      latency: seconds of one message.
      memory: bytes.
    """

    flops: float
    utilisation: float
    inner: float
    outer: float
    node: int
    hbm: float
    memory: float
    latency: float
    link_efficiency: float = 0.8


MACHINES = {
    "h100": Machine(989e12, 0.4, 450e9, 50e9, 8, 3.35e12, 80e9, 5e-6),
    "v5p": Machine(459e12, 0.5, 600e9, math.inf, 0, 2.765e12, 95e9, 1e-6),
}
"""NVIDIA, "H100 Tensor Core GPU" (data sheet, SXM): dense bfloat16, NVLink of 900 GB/s both ways together, and one NDR
port of 400 Gbit/s a GPU. Google, "Cloud TPU v5p" (documentation): bfloat16, 1,200 GB/s of links both ways together; all
devices are taken as one node. `utilisation`, `link_efficiency` and `latency` are assumed, from no measurement."""


class Pass(NamedTuple):
    """What each device sends once: bytes a parameter, as "ring" (a pass of one) or "exchange" (an all-to-all)."""

    bytes: float
    kind: str = "ring"


@dataclass(frozen=True)
class Module:
    """A way to sum gradients: passes, each group behind a part of the computation, and what it costs otherwise.

    Attributes:
      groups: passes, and the part of the step behind which they may go, in buckets; 0 if they wait for all gradients.
      hbm: bytes a parameter between the device and its memory, besides.
      memory: bytes a parameter of parameters, gradients and Adam's two moments, all float32.
      split: bytes a parameter that are divided by the number of devices.
      what: in words.
    """

    groups: tuple[tuple[tuple[Pass, ...], float], ...]
    memory: float
    what: str
    split: float = 0.0
    hbm: float = 0.0


def modules(gathered: float = 2, block: int = 256, held: int = 1) -> dict[str, Module]:
    """Those of the table.

    Args:
      gathered: bytes of a parameter as it is gathered after a sharded update: 2 in bfloat16, beside the master copy.
      block: elements with one scale in int8.
      held: shards a device in the ordered sum.
    """
    both = (Pass(4), Pass(4))
    code = 1 + 4 / block
    return {
        "all_reduce": Module(((both, 0.0),), 16, "one all-reduce when all gradients are there"),
        "bucketed": Module(((both, BACKWARD),), 16, "all-reduce in buckets, behind the backward pass"),
        "sharded": Module(
            (((Pass(4),), BACKWARD), ((Pass(gathered),), FORWARD)), gathered + 4, "reduce-scatter, update of a part, "
            "all-gather", split=8 + 4 * (gathered < 4),
        ),
        "bfloat16, ring": Module(
            (((Pass(2), Pass(2)), BACKWARD),), 20, "all-reduce in bfloat16 with error feedback, in buckets", hbm=16
        ),
        "bfloat16": Module(
            (((Pass(2, "exchange"), Pass(2)), 0.0),), 20, "all-to-all of bfloat16, sum in float32, all-gather", 4, 16
        ),
        "int8": Module(
            (((Pass(code, "exchange"), Pass(code)), 0.0),), 20, f"the same in int8, a scale for each {block}", 4, 14
        ),
        "ordered": Module(
            (((Pass(4, "exchange"), Pass(4)), 0.0),), 12 + 4 * held, f"one order, {held} shard{'s' * (held > 1)} a "
            "device: all-to-all, all-gather", hbm=12 * (held - 1),
        ),
    }  # fmt: skip


class Step(NamedTuple):
    """The seconds of a step: what is computed, and what is seen of the rest.

    `memory` is in bytes a device.
    """

    compute: float
    inner: float
    outer: float
    latency: float
    hbm: float
    memory: float

    @property
    def seconds(self) -> float:
        return self.compute + self.inner + self.outer + self.latency + self.hbm

    @property
    def efficiency(self) -> float:
        return self.compute / self.seconds

    @property
    def limit(self) -> str:
        """What takes most besides computing, if that is more than a twentieth of the step."""
        if self.efficiency >= 0.95:
            return "compute"
        rest = {"inner": self.inner, "outer": self.outer, "latency": self.latency, "hbm": self.hbm}
        return max(rest, key=lambda name: rest[name])


def wire(one: Pass, parameters: float, devices: int, node: int) -> tuple[float, float]:
    """The bytes that a device sends in a pass: to devices in its node, and to others."""
    n, g, m = one.bytes * parameters, node, devices / node
    if one.kind == "exchange":
        return n * (g - 1) / devices, n * (m - 1) / m
    return n * (g - 1) / g, n / g * (m - 1) / m


def step(
    module: Module,
    machine: Machine,
    parameters: float,
    tokens: float,
    devices: int,
    buckets: int = 16,
    messages: int = 1,
) -> Step:
    """What the model says of a step. What waits for all gradients goes in so many `messages`.

    Example:
      >>> from benchmarks.scale import MACHINES, modules, step
      >>> found = step(modules()["all_reduce"], MACHINES["h100"], 100e6, 4096, 64)
      >>> round(100 * found.efficiency), found.limit
      (60, 'outer')
    """
    compute = 6 * parameters * tokens / (machine.flops * machine.utilisation)
    node = min(machine.node or devices, devices)
    seen = np.zeros(3)
    for passes, part in module.groups:
        count = buckets if part else messages
        sent = np.array([wire(one, parameters, devices, node) for one in passes]).sum(0)
        latency = count * len(passes) * machine.latency * math.log2(devices)
        whole = np.array([*(sent / machine.link_efficiency / (machine.inner, machine.outer)), latency])
        total = whole.sum()
        left = max(total / count, total - part * compute * (1 - 1 / count)) if part else total
        seen += whole * (left / total if total else 0.0)
    hbm = module.hbm * parameters / (machine.hbm * machine.link_efficiency)
    memory = parameters * (module.memory + module.split / devices)
    return Step(compute, *seen.tolist(), hbm, memory)


def table(
    machine: Machine, parameters: float, tokens: float, devices: Sequence[int], buckets: int, ways: dict[str, Module]
) -> str:
    """A row a module: the efficiency and what limits it on so many devices, and the memory of a device."""
    lines = [
        "| % of the time computes | " + " | ".join(f"{d:,}" for d in devices) + " | GB a device |",
        "| --- |" + " ---: |" * (len(devices) + 1),
    ]
    for name, module in ways.items():
        found = [step(module, machine, parameters, tokens, d, buckets) for d in devices]
        cells = [f"{100 * s.efficiency:.0f} {s.limit}" for s in found]
        sizes = [f"{s.memory / 1e9:.3g}" + "!" * (s.memory > machine.memory) for s in found]
        size = sizes[0] if len(set(sizes)) == 1 else f"{sizes[0]} to {sizes[-1]}"
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {size} |")
    return "\n".join(lines)


# -- what compiled programs send

_KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_SIZES = {
    "pred": 1,
    "s8": 1,
    "u8": 1,
    "bf16": 2,
    "f16": 2,
    "s16": 2,
    "u16": 2,
    "f32": 4,
    "s32": 4,
    "u32": 4,
    "f64": 8,
    "s64": 8,
    "u64": 8,
}


def collectives(text: str) -> list[tuple[str, int]]:
    """The arrays in the collectives of a compiled program, `compiled.as_text()`: which, and its bytes on a device."""
    found = []
    for types, kind in re.findall(rf"= (.+?) ({'|'.join(_KINDS)})(?:-start)?\(", text):
        for dtype, shape in re.findall(r"(\w+)\[([\d,]*)\]", types):
            found.append((kind, _SIZES[dtype] * math.prod(int(n) for n in shape.split(",") if n)))
    return found


def sent(text: str, devices: int) -> float:
    """The bytes that each of so many devices sends in a compiled program, with rings."""
    parts = {
        "all-reduce": 2 * (devices - 1) / devices,
        "all-gather": (devices - 1) / devices,
        "reduce-scatter": devices - 1,
        "all-to-all": (devices - 1) / devices,
        "collective-permute": 1,
    }
    return sum(parts[kind] * size for kind, size in collectives(text))


# -- Gloo between processes of this machine


def gloo(processes: int, width: int, repeat: int) -> str:
    """Starts processes, and returns what the first of them has to say."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flags = os.environ.get("XLA_FLAGS", "")
    flags = re.sub(r"--xla_force_host_platform_device_count=\d+", "", flags)
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    command = [sys.executable, "-m", "benchmarks.scale", "--width", str(width), "--repeat", str(repeat), "--worker"]
    started: list[subprocess.Popen[str]] = []
    try:
        for rank in range(processes):
            worker = [*command, f"{rank},{processes},{port}"]
            pipe = subprocess.PIPE
            started.append(subprocess.Popen(worker, env=environment, stdout=pipe, stderr=pipe, text=True))
        outs = [process.communicate(timeout=240) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    bad = [f"process {i}:\n{err}" for i, (p, (_, err)) in enumerate(zip(started, outs, strict=True)) if p.returncode]
    if bad:
        raise RuntimeError("\n".join(bad))
    return outs[0][0]


def _seconds(run: Any, repeat: int) -> float:
    """The median time of a call."""
    times = []
    for _ in range(repeat + 1):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:]))


def _work(rank: int, processes: int, port: int, width: int, repeat: int) -> None:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")  # type: ignore[no-untyped-call]
    jax.distributed.initialize(f"127.0.0.1:{port}", processes, rank)
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    spec, whole = jax.sharding.PartitionSpec("data"), jax.sharding.PartitionSpec()

    def mapped(f: Any, in_specs: Any, out_specs: Any) -> Any:
        return jax.jit(jax.shard_map(f, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False))

    def given(x: Any, spec: Any) -> Any:
        return jax.make_array_from_process_local_data(jax.sharding.NamedSharding(mesh, spec), x)

    total = mapped(lambda x: jax.lax.psum(x, "data"), whole, whole)
    little, much = (given(np.ones(n, np.float32), whole) for n in (256, 1 << 22))
    rng = np.random.default_rng(0)
    model = tg.nn.MLP.init(tg.random.key(0), (64, width, width, 10))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(model))
    model = jax.tree.map(lambda leaf: given(np.asarray(leaf), whole), model)
    x, y = given(rng.normal(size=(64, 64)).astype(np.float32), spec), given(rng.integers(0, 10, 64), spec)

    def loss(model: Any, x: Any, y: Any) -> Any:
        return tg.nn.losses.sparse_categorical_cross_entropy(model(x), y, from_logits=True)

    def update(summed: bool) -> Any:
        def run(model: Any, x: Any, y: Any) -> Any:
            grads = tg.grad(loss)(model, x, y)
            grads = jax.lax.psum(grads, "data") if summed else grads
            return jax.tree.map(lambda w, g: w - 0.01 * g, model, grads)

        return mapped(run, (whole, spec, spec), whole).lower(model, x, y).compile()

    alone, together = update(False), update(True)
    runs = [
        lambda: total(little), lambda: total(much), lambda: alone(model, x, y), lambda: together(model, x, y),
    ]  # fmt: skip
    for run in runs:
        jax.block_until_ready(run())
    # In turns, so that what else the machine does is the same for all.
    few, many, compute, measured = np.median([[_seconds(run, 3) for run in runs] for _ in range(repeat)], 0)
    latency = few / (2 * math.log2(processes))
    bandwidth = 2 * 4 * (much.size - little.size) * (processes - 1) / processes / (many - few)
    machine = Machine(6 * parameters * 64 / compute, 1.0, math.inf, bandwidth, 1, math.inf, math.inf, latency, 1.0)
    # Gloo sends one array after the other, also those that XLA has put into one all-reduce.
    messages = len(collectives(together.as_text()))
    said = step(modules()["all_reduce"], machine, parameters, 64, processes, messages=messages).seconds
    if rank == 0:
        print(f"{processes} processes on 127.0.0.1, Gloo: {bandwidth / 1e9:.2f} GB/s, {1e3 * latency:.2f} ms a message")
        print("| parameters | arrays | computes | step, measured | step, model | model / measured |")
        print("| ---: | ---: | ---: | ---: | ---: | ---: |")
        print(
            f"| {parameters:,} | {messages} | {1e3 * compute:.1f} ms | {1e3 * measured:.1f} ms | {1e3 * said:.1f} ms | "
            f"{said / measured:.2f} |"
        )
    jax.distributed.shutdown()


# -- the command


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__.splitlines()[0])
    found.add_argument("--machine", choices=MACHINES, help="whose constants to begin with (default: h100, then v5p)")
    for field in dataclasses.fields(Machine):
        name = field.name.replace("_", "-")
        found.add_argument(f"--{name}", type=int if field.name == "node" else float, help=f"in place of its {name}")
    found.add_argument("--parameters", type=float, nargs="+", default=[100e6, 10e9], help="(default: 1e8 1e10)")
    found.add_argument("--tokens", type=float, nargs="+", default=[4096, 1024], help="a device (default: 4096 1024)")
    found.add_argument("--devices", type=int, nargs="+", default=[8, 64, 512, 4096], help="(default: 8 64 512 4096)")
    found.add_argument("--buckets", type=int, default=16, help="of a sum behind the computation (default: 16)")
    found.add_argument("--gathered", type=float, default=2, help="bytes of a parameter that is gathered (default: 2)")
    found.add_argument("--block", type=int, default=256, help="elements with one scale in int8 (default: 256)")
    found.add_argument("--held", type=int, default=1, help="shards a device of the ordered sum (default: 1)")
    found.add_argument("--gloo", action="store_true", help="measure Gloo between processes of this machine instead")
    found.add_argument("--processes", type=int, default=2, help="of --gloo (default: 2)")
    found.add_argument("--width", type=int, default=1024, help="of the perceptron of --gloo (default: 1024)")
    found.add_argument("--repeat", type=int, default=7, help="times that --gloo measures (default: 7)")
    found.add_argument("--worker", help=argparse.SUPPRESS)
    return found


def main(argv: Sequence[str] | None = None) -> None:
    options = parser().parse_args(argv)
    if options.worker:
        _work(*map(int, options.worker.split(",")), options.width, options.repeat)
        return
    if options.gloo:
        print(gloo(options.processes, options.width, options.repeat), end="")
        return
    ways = modules(options.gathered, options.block, options.held)
    for name in [options.machine] if options.machine else MACHINES:
        given = {f.name: getattr(options, f.name) for f in dataclasses.fields(Machine)}
        machine = dataclasses.replace(MACHINES[name], **{k: v for k, v in given.items() if v is not None})
        for parameters in options.parameters:
            for tokens in options.tokens:
                size = f"{parameters / 1e9:g}B" if parameters >= 1e9 else f"{parameters / 1e6:g}M"
                print(f"**{name}, {size} parameters, {tokens:,.0f} tokens a device**\n")
                print(table(machine, parameters, tokens, options.devices, options.buckets, ways) + "\n")


if __name__ == "__main__":
    main()
