"""`python -m benchmarks.trees`: a training step of a tree-LSTM on random trees, against DyNet with autobatching.

A step is all from a minibatch of new trees to new parameters: for tracegrad the plan of the trees and one compiled
call, for DyNet the graph, node by node, its value, its gradient and the update. Both compute the same loss of the same
parameters, with Adam. DyNet's side has a matrix for each gate, as its users write it, or, with --joined, one for all.
Without DyNet (`pip install dynet38`) there is nothing to compare with, and only tracegrad's times are taken.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

import tracegrad as tg
import tracegrad.numpy as tnp
from tracegrad import nn, optimizers

CLASSES = 5
RATE = 1e-3


def random_tree(rng: np.random.Generator, leaves: int, words: int) -> Any:
    if leaves == 1:
        return int(rng.integers(words))
    left = int(rng.integers(1, leaves))
    return random_tree(rng, left, words), random_tree(rng, leaves - left, words)


def minibatches(rng: np.random.Generator, count: int, trees: int, words: int) -> list[tuple[list[Any], Any]]:
    """Trees of 4 to 20 words, and a class for each."""
    return [
        (
            [random_tree(rng, int(rng.integers(4, 21)), words) for _ in range(trees)],
            rng.integers(CLASSES, size=trees).astype(np.int32),
        )
        for _ in range(count)
    ]


def parameters(rng: np.random.Generator, words: int, width: int) -> dict[str, Any]:
    def weights(n: int, m: int) -> Any:
        return (rng.normal(size=(n, m)) / np.sqrt(n)).astype(np.float32)

    return {
        "words": weights(words, width),
        "leaf": weights(width, 3 * width),
        "leaf_bias": np.zeros(3 * width, np.float32),
        "node": weights(2 * width, 5 * width),
        "node_bias": np.zeros(5 * width, np.float32),
        "out": weights(width, CLASSES),
    }


# -- tracegrad


def leaf(p: Any, x: Any) -> Any:
    i, o, u = tnp.split(x @ p["leaf"] + p["leaf_bias"], 3)
    c = nn.sigmoid(i) * tnp.tanh(u)
    return nn.sigmoid(o) * tnp.tanh(c), c


def node(p: Any, left: Any, right: Any) -> Any:
    i, f, g, o, u = tnp.split(tnp.concatenate([left[0], right[0]]) @ p["node"] + p["node_bias"], 5)
    c = nn.sigmoid(i) * tnp.tanh(u) + nn.sigmoid(f) * left[1] + nn.sigmoid(g) * right[1]
    return nn.sigmoid(o) * tnp.tanh(c), c


def loss(p: Any, plan: Any, classes: Any) -> Any:
    h, _ = tg.graph_map((leaf, node), p, plan, streams=(p["words"], None))
    return nn.losses.sparse_categorical_cross_entropy(h @ p["out"], classes, from_logits=True)


class Ours:
    def __init__(self, start: dict[str, Any]) -> None:
        optimizer = optimizers.adam(RATE)
        self.compiled = 0

        def step(params: Any, state: Any, plan: Any, classes: Any) -> Any:
            self.compiled += 1
            value, grads = tg.value_and_grad(loss)(params, plan, classes)
            updates, state = optimizer.update(grads, state, params)
            return optimizers.apply_updates(params, updates), state, value

        self.step = tg.jit(step, donate_argnums=(0, 1))
        self.params = jax.tree.map(jax.numpy.array, start)
        self.state = optimizer.init(self.params)

    def __call__(self, trees: list[Any], classes: Any) -> float:
        self.params, self.state, value = self.step(self.params, self.state, tg.graph_plan(trees), classes)
        return float(jax.block_until_ready((self.params, value))[1])


# -- DyNet


def dynet_step(start: dict[str, Any], joined: bool) -> Callable[[list[Any], Any], float]:
    import dynet_config  # type: ignore[import-not-found]

    dynet_config.set(autobatch=1)
    import dynet as dy  # type: ignore[import-not-found]

    collection = dy.ParameterCollection()
    embedding = collection.lookup_parameters_from_numpy(start["words"])
    out = collection.parameters_from_numpy(start["out"].T.copy())

    def gates(name: str, count: int) -> list[tuple[Any, Any]]:
        """The weights and biases, one for each gate or one for all."""
        n = 1 if joined else count
        weights, biases = (np.split(start[k], n, axis=-1) for k in (name, f"{name}_bias"))
        return [
            (collection.parameters_from_numpy(w.T.copy()), collection.parameters_from_numpy(b.copy()))
            for w, b in zip(weights, biases, strict=True)
        ]

    leaf_gates, node_gates = gates("leaf", 3), gates("node", 5)
    trainer = dy.AdamTrainer(collection, RATE)
    width = start["words"].shape[1]

    def affine(own: list[tuple[Any, Any]], x: Any, count: int) -> Iterator[Any]:
        found = [dy.affine_transform([b, w, x]) for w, b in own]
        return iter([dy.pick_range(found[0], k * width, (k + 1) * width) for k in range(count)] if joined else found)

    def state(tree: Any) -> tuple[Any, Any]:
        if isinstance(tree, int):
            i, o, u = affine(leaf_gates, embedding[tree], 3)
            c = dy.cmult(dy.logistic(i), dy.tanh(u))
        else:
            (h1, c1), (h2, c2) = state(tree[0]), state(tree[1])
            i, f, g, o, u = affine(node_gates, dy.concatenate([h1, h2]), 5)
            c = dy.cmult(dy.logistic(i), dy.tanh(u)) + dy.cmult(dy.logistic(f), c1) + dy.cmult(dy.logistic(g), c2)
        return dy.cmult(dy.logistic(o), dy.tanh(c)), c

    def step(trees: list[Any], classes: Any) -> float:
        dy.renew_cg()
        losses = [dy.pickneglogsoftmax(out * state(t)[0], int(c)) for t, c in zip(trees, classes, strict=True)]
        total = dy.average(losses)
        value = total.value()
        total.backward()
        trainer.update()
        return float(value)

    step.collection = collection  # type: ignore[attr-defined]  # DyNet keeps its parameters no longer than this
    return step


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trees", description=__doc__)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--words", type=int, default=500)
    parser.add_argument("--trees", type=int, default=16)
    parser.add_argument("--minibatches", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=4)
    parser.add_argument("--joined", action="store_true", help="one matrix for all gates on DyNet's side too")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    batches = minibatches(rng, options.minibatches, options.trees, options.words)
    start = parameters(rng, options.words, options.width)
    sides: dict[str, Any] = {"tracegrad": Ours(start)}
    try:
        sides["DyNet"] = dynet_step(start, options.joined)
    except ImportError:
        print("DyNet is not installed: pip install dynet38 to compare with it", file=sys.stderr)
    wall: dict[str, list[float]] = {name: [] for name in sides}
    cpu: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(options.repeat + 1):
        for trees, classes in batches:
            values = []
            for name, step in sides.items():
                times = time.perf_counter(), time.process_time()
                values.append(step(trees, classes))
                if turn:  # in the first turn, programs are compiled
                    wall[name].append(time.perf_counter() - times[0])
                    cpu[name].append(time.process_time() - times[1])
            if not turn:
                np.testing.assert_allclose(values, values[0], rtol=1e-3)
    print("| a step, ms | least | median | least, CPU time | median, CPU time |\n| --- | ---: | ---: | ---: | ---: |")
    for name in sides:
        figures = [f(t[name]) * 1e3 for t in (wall, cpu) for f in (min, statistics.median)]
        print(f"| {name} | {' | '.join(f'{x:.1f}' for x in figures)} |")
    if len(sides) == 2:
        ratios = [
            [f(a / b for a, b in zip(t["tracegrad"], t["DyNet"], strict=True)) for f in (min, statistics.median)]
            for t in (wall, cpu)
        ]
        print(f"| tracegrad ÷ DyNet | {' | '.join(f'{x:.2f}' for pair in ratios for x in pair)} |")
    print(f"\nprograms compiled for {len(batches)} minibatches: {sides['tracegrad'].compiled}")


if __name__ == "__main__":
    main()
