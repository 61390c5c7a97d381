"""Trains on graphs of three kinds of nodes, with `graph_map`: whether a logical expression is true.

The expressions are those of `treelstm`: words, negations, and pairs joined by `and`, `or` and `xor`, each a kind of
node with a cell of its own. Each minibatch has other trees, and all run in a few compiled programs. At the end the same
parameters go over expressions that are deeper than all in training, and over graphs in which equal parts are one node
that many read, which gives the same.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

import tracegrad as tg
import tracegrad.numpy as tnp
from tracegrad import nn, optimizers
from tracegrad.examples import running
from tracegrad.examples.treelstm import Expression, drawn, text, value

JOINS = ("and", "or", "xor")


def nodes_of(expression: Expression, shared: bool = False) -> list[Any]:
    """An expression as a list of nodes; where they are shared, equal parts are one node."""
    nodes: list[Any] = []
    known: dict[Any, int] = {}

    def put(part: Expression) -> int:
        if shared and part in known:
            return known[part]
        word, *parts = part
        children = [put(p) for p in parts]
        if not parts:
            nodes.append((0, (), ("false", "true").index(word)))
        else:
            nodes.append((1, children) if word == "not" else (2, children, JOINS.index(word)))
        known[part] = len(nodes) - 1
        return known[part]

    put(expression)
    return nodes


@nn.layer
class Reader:
    """The states of the two words; a layer for negations; for pairs a layer, of both states and the word that joins."""

    words: Any
    joins: Any
    negate: nn.Linear
    join: nn.Linear
    out: nn.Linear

    @classmethod
    def init(cls, key: Any, width: int) -> Reader:
        keys = tg.random.split(key, 5)
        words, joins = (tg.random.normal(k, (n, width)) for k, n in zip(keys[:2], (2, len(JOINS)), strict=True))
        sizes = (width, 3 * width, width), (width, width, 2)
        return cls(words, joins, *[nn.Linear.init(k, n, m) for k, n, m in zip(keys[2:], *sizes, strict=True)])

    def __call__(self, plan: Any) -> Any:
        def word(model: Reader, x: Any) -> Any:
            return x

        def negation(model: Reader, part: Any) -> Any:
            return tnp.tanh(model.negate(part))

        def pair(model: Reader, x: Any, left: Any, right: Any) -> Any:
            return tnp.tanh(model.join(tnp.concatenate([x, left, right])))

        return self.out(tg.graph_map((word, negation, pair), self, plan, (self.words, None, self.joins)))


def loss(model: Any, plan: Any, values: Any) -> Any:
    return nn.losses.sparse_categorical_cross_entropy(model(plan), values, from_logits=True)


def accuracy(scores: Any, expressions: list[Expression]) -> float:
    return float((np.asarray(scores).argmax(-1) == [value(e) for e in expressions]).mean())


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tracegrad.examples.graphs", description="Train cells on graphs whether an expression is true."
    )
    parser.add_argument("--epochs", type=int, default=12, help="passes over the expressions in all (default: 12)")
    parser.add_argument("--expressions", type=int, default=2000, help="to train on (default: 2000)")
    parser.add_argument("--batch-size", type=int, default=50, help="expressions a step (default: 50)")
    parser.add_argument("--width", type=int, default=32, help="of the state of a node (default: 32)")
    parser.add_argument("--learning-rate", type=float, default=3e-3, help="of Adam (default: 0.003)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights, the data and the batches (default: 0)")
    args = parser.parse_args(arguments)
    for name in ("epochs", "expressions", "batch_size", "width"):
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, not {getattr(args, name)}")
    if args.expressions < args.batch_size:
        parser.error(f"--expressions {args.expressions} and --batch-size {args.batch_size}: give one batch at least")
    return args


def main(arguments: list[str] | None = None) -> None:
    args = parse(arguments)
    rng = np.random.default_rng(args.seed)
    known = drawn(rng, args.expressions + 500, (1, 5), 24)
    training, test, deep = known[:-500], known[-500:], drawn(rng, 100, (6, 8), 40)
    optimizer = optimizers.adam(args.learning_rate)
    model = Reader.init(tg.random.key(args.seed), args.width)
    state = optimizer.init(model)
    forms = set()

    @tg.jit
    def step(model: Any, state: Any, plan: Any, values: Any) -> Any:
        found, grads = tg.value_and_grad(loss)(model, plan, values)
        updates, state = optimizer.update(grads, state, model)
        return optimizers.apply_updates(model, updates), state, found

    print(f"{len(training):,} expressions, such as {text(known[0])}; {running.count(model):,} parameters")
    for epoch in range(args.epochs):
        order = rng.permutation(len(training))
        losses = []
        for start in range(0, len(order) - args.batch_size + 1, args.batch_size):
            some = [training[i] for i in order[start : start + args.batch_size]]
            plan = tg.graph_plan([nodes_of(e) for e in some])
            forms.add(plan.form)
            model, state, found = step(model, state, plan, np.array([value(e) for e in some], np.int32))
            losses.append(found)
        print(f"epoch {epoch + 1}: loss {np.mean(losses):.3f}")
    print(f"programs for {args.epochs * (len(order) // args.batch_size)} minibatches: {len(forms)}")
    for name, some in (("test", test), ("deeper than in training", deep)):
        print(f"{name}: {accuracy(model(tg.graph_plan([nodes_of(e) for e in some])), some):.1%}")
    trees, graphs = (tg.graph_plan([nodes_of(e, shared) for e in deep]) for shared in (False, True))
    difference = abs(model(trees) - model(graphs)).max()
    print(f"with equal parts as one node, {graphs.nodes} nodes for {trees.nodes}: differs by at most {difference:.0e}")


if __name__ == "__main__":
    main()
