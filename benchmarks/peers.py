"""Undecorated gradients beside other define-by-run libraries: `python -m benchmarks.peers`.

PyTorch, eager on a CPU, and HIPS autograd compute the value and the gradient of the same formula on the same numbers;
each Python call runs the user's function again. They run in turns, in one process, each as often as takes a tenth of a
second. A library that is not installed is left out: `python -m pip install -e '.[peers]'`.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import jax
import numpy as np

import tracegrad as tg
import tracegrad.nn
import tracegrad.numpy as tnp
import tracegrad.optimizers

from .__main__ import describe, environment
from .parallel import table

SAMPLE = 0.1
"""Seconds that a sample takes, about."""

BUDGET = {
    "mlp, against PyTorch": 0.7,
    "mlp with SGD, against PyTorch": 0.7,
    "chain of 1,000, against autograd": 0.6,
    "Rosenbrock, against autograd": 1.2,
}
"""What is asked for: the time of a call, as a part of the other library's."""

Call = Callable[[], Any]
Pair = tuple[Call, Call]


def numbers(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


SIZES = (64, 64, 64, 10)


def mlp_data() -> Any:
    """Weights and biases of three layers; 16 examples and their labels."""
    weights = [(numbers(n, m) / n**0.5, np.zeros(m, np.float32)) for n, m in itertools.pairwise(SIZES)]
    return weights, numbers(16, 64), np.arange(16) % 10


def cross_entropy(params: Any, x: Any, y: Any) -> Any:
    for w, b in params[:-1]:
        x = tg.nn.relu(x @ w + b)
    w, b = params[-1]
    log_p = tg.nn.log_softmax(x @ w + b)
    return -tnp.mean(tnp.take_along_axis(log_p, y[:, None], axis=1))


def mlp() -> Pair:
    """The value and the gradient, of functions alone."""
    import torch

    weights, x, labels = mlp_data()
    params, batch = [tuple(map(tnp.asarray, layer)) for layer in weights], (tnp.asarray(x), tnp.asarray(labels))
    gradient = tg.value_and_grad(cross_entropy)

    leaves = [torch.tensor(a, requires_grad=True) for layer in weights for a in layer]
    theirs_x, theirs_y = torch.tensor(x), torch.tensor(labels)

    def theirs() -> Any:
        h = theirs_x
        for w, b in zip(leaves[:-2:2], leaves[1:-2:2], strict=True):
            h = torch.relu(h @ w + b)
        log_p = torch.log_softmax(h @ leaves[-2] + leaves[-1], 1)
        value = -torch.mean(torch.take_along_dim(log_p, theirs_y[:, None], 1))
        return value, torch.autograd.grad(value, leaves)

    return (lambda: gradient(params, *batch)), theirs


def mlp_step() -> Pair:
    """A whole step of gradient descent, as either library's users write it; ours compiles the optimizer alone."""
    import torch
    from torch import nn

    weights, x, labels = mlp_data()
    params: Any = [tuple(map(tnp.asarray, layer)) for layer in weights]
    batch = tnp.asarray(x), tnp.asarray(labels)
    gradient, optimizer = tg.value_and_grad(cross_entropy), tg.optimizers.sgd(1e-3)
    state = optimizer.init(params)

    @tg.jit
    def update(grads: Any, state: Any, params: Any) -> Any:
        updates, state = optimizer.update(grads, state, params)
        return tg.optimizers.apply_updates(params, updates), state

    def ours() -> Any:
        nonlocal params, state
        value, grads = gradient(params, *batch)
        params, state = update(grads, state, params)
        return value, params

    layers = [layer for n, m in itertools.pairwise(SIZES) for layer in (nn.Linear(n, m), nn.ReLU())][:-1]
    model = nn.Sequential(*layers)
    descent = torch.optim.SGD(model.parameters(), 1e-3)
    theirs_x, theirs_y = torch.tensor(x), torch.tensor(labels)

    def theirs() -> Any:
        descent.zero_grad()
        value = nn.functional.cross_entropy(model(theirs_x), theirs_y)
        value.backward()
        descent.step()
        return value

    return ours, theirs


def chain() -> Pair:
    """A thousand steps on a vector of ten numbers."""
    import autograd
    import autograd.numpy as anp

    x = numbers(10)

    def of(np: Any) -> Any:
        def f(x: Any) -> Any:
            for _ in range(500):
                x = np.sin(x) * 1.01
            return np.sum(x)

        return f

    ours, theirs, placed = tg.value_and_grad(of(tnp)), autograd.value_and_grad(of(anp)), tnp.asarray(x)
    return (lambda: ours(placed)), (lambda: theirs(x))


def rosenbrock() -> Pair:
    """The function of two numbers, as a user writes it."""
    import autograd

    def f(x: Any) -> Any:
        return 100.0 * (x[1] - x[0] ** 2) ** 2 + (1.0 - x[0]) ** 2

    x = np.array([-1.2, 1.0], np.float32)
    ours, theirs, placed = tg.value_and_grad(f), autograd.value_and_grad(f), tnp.asarray(x)
    return (lambda: ours(placed)), (lambda: theirs(x))


CASES: dict[str, tuple[str, Callable[[], Pair]]] = {
    "mlp, against PyTorch": ("torch", mlp),
    "mlp with SGD, against PyTorch": ("torch", mlp_step),
    "chain of 1,000, against autograd": ("autograd", chain),
    "Rosenbrock, against autograd": ("autograd", rosenbrock),
}


def sample(call: Call, count: int) -> tuple[float, float]:
    """Microseconds a call, by the clock and of the processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(count):
        out = call()
    jax.block_until_ready([x for x in jax.tree.leaves(out) if isinstance(x, jax.Array)])
    return (time.perf_counter() - wall) / count * 1e6, (time.process_time() - cpu) / count * 1e6


def compare(pair: Pair, repeat: int) -> list[list[float]]:
    """Of both: medians of microseconds by the clock and of the processor; then the ratios of both, and the least."""
    counts = []
    for call in pair:
        for _ in range(3):
            call()
        counts.append(max(1, int(SAMPLE / (sample(call, 3)[0] * 1e-6))))
    found: list[list[tuple[float, float]]] = [[], []]
    for turn in range(repeat):
        for i in (0, 1) if turn % 2 else (1, 0):
            found[i].append(sample(pair[i], counts[i]))
    medians = [[statistics.median(column) for column in zip(*one, strict=True)] for one in found]
    ratios = [[a[k] / b[k] for a, b in zip(*found, strict=True)] for k in (0, 1)]
    least = [min(a[0] for a in one) for one in found]
    return [*medians, [statistics.median(r) for r in ratios], [least[0] / least[1]]]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=(__doc__ or "").split(":")[0])
    parser.add_argument("--repeat", type=int, default=20, help="samples of each")
    options = parser.parse_args(argv)
    if find_spec("torch") is not None:
        import torch

        torch.set_num_threads(1)  # The arrays are small: more threads would only wait for each other.
    print(describe(environment()), "\n", sep="")
    rows = [["", "tracegrad (µs)", "other (µs)", "ratio, clock / processor", "of the least", "at most"]]
    for name, (module, case) in CASES.items():
        if find_spec(module) is None:
            print(f"{name}: left out, {module} is not installed", file=sys.stderr)
            continue
        ours, theirs, ratios, least = compare(case(), options.repeat)
        rows.append([name, f"{ours[0]:.0f}", f"{theirs[0]:.0f}", " / ".join(f"{r:.2f}" for r in ratios),
                     f"{least[0]:.2f}", str(BUDGET[name])])  # fmt: skip
    print(table(rows))


if __name__ == "__main__":
    main()
