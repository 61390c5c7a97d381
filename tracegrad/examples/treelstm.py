"""Trains a TreeLSTM to tell whether a logical expression is true. Its graph follows the expression.

The expressions are drawn: `and`, `or`, `xor` and `not` over `true` and `false`, such as
`not (true xor (false or true))`. Half of them are true. A bag of words, which knows how often each word comes and not
where, is the baseline. The second test has expressions that are deeper than all in training.

A tree is an array of words and one of children, so that trees of all shapes train in one compiled program, by a loop
over the nodes. At the end the program goes through some trees of the test by recursion in plain Python too, which gives
the same.
"""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

import numpy as np

import tracegrad as tg
from tracegrad import nn, optimizers, schedules, train
from tracegrad.examples import running

WORDS = ("", "false", "true", "not", "and", "or", "xor")


class Trees(NamedTuple):
    """words: `(N, nodes)`, 0 where there is no node; children: `(N, nodes, 2)`, -1 for none; values: `(N,)`, 0 or 1.

    The nodes stand children first, so that the root is the last; what a tree has too few is in front.
    """

    words: Any
    children: Any
    values: Any


Expression = tuple[Any, ...]


def draw(rng: np.random.Generator, depth: int) -> Expression:
    """An expression of this depth: a word, and the expressions that it joins."""
    if depth == 0:
        return (("false", "true")[rng.integers(2)],)
    word = ("not", "and", "or", "xor")[rng.integers(4)]
    deep = draw(rng, depth - 1)
    if word == "not":
        return word, deep
    other = draw(rng, int(rng.integers(depth)))
    return (word, deep, other) if rng.integers(2) else (word, other, deep)


def value(expression: Expression) -> bool:
    word, *parts = expression
    values = [value(part) for part in parts]
    if not values:
        return bool(word == "true")
    if word == "not":
        return not values[0]
    return bool({"and": values[0] and values[-1], "or": values[0] or values[-1], "xor": values[0] != values[-1]}[word])


def text(expression: Expression, inner: bool = False) -> str:
    word, *parts = expression
    if not parts:
        return str(word)
    words = [text(part, True) for part in parts]
    whole = f"not {words[0]}" if word == "not" else f"{words[0]} {word} {words[1]}"
    return f"({whole})" if inner else whole


def size(expression: Expression) -> int:
    return 1 + sum(size(part) for part in expression[1:])


def drawn(rng: np.random.Generator, num: int, depths: tuple[int, int], most: int) -> list[Expression]:
    """Different expressions of at most `most` nodes, half of them true, of depths from one to the other."""
    found: dict[bool, dict[Expression, None]] = {False: {}, True: {}}
    while min(map(len, found.values())) < num // 2:
        expression = draw(rng, int(rng.integers(depths[0], depths[1] + 1)))
        kind = found[value(expression)]
        if size(expression) <= most and len(kind) < num // 2:
            kind[expression] = None
    both = [*found[False], *found[True]]
    return [both[i] for i in rng.permutation(len(both))]


def trees(expressions: list[Expression], nodes: int) -> Trees:
    """The expressions as arrays."""
    words = np.zeros((len(expressions), nodes), np.int32)
    children = np.full((len(expressions), nodes, 2), -1, np.int32)
    for i, expression in enumerate(expressions):
        place = nodes - size(expression)

        def put(expression: Expression) -> int:
            nonlocal place
            places = [put(part) for part in expression[1:]]
            words[i, place] = WORDS.index(expression[0])  # noqa: B023
            children[i, place, : len(places)] = places  # noqa: B023
            place += 1
            return place - 1

        put(expression)
    return Trees(words, children, np.array([value(e) for e in expressions], np.int32))


@nn.layer
class Reader:
    """A TreeLSTM over embedded words, and two scores of its root."""

    embed: nn.Embedding
    tree: nn.TreeLSTM
    out: nn.Linear

    @classmethod
    def init(cls, key: Any, width: int) -> Reader:
        k1, k2, k3 = tg.random.split(key, 3)
        tree = nn.TreeLSTM.init(k2, width, width, arity=2)
        return cls(nn.Embedding.init(k1, len(WORDS), width), tree, nn.Linear.init(k3, width, 2))

    def __call__(self, words: Any, children: Any) -> Any:
        _, (_, h) = tg.vmap(self.tree)(self.embed(words), children)
        return self.out(h)

    def recursive(self, expression: Expression) -> Any:
        """The scores of one expression, by recursion."""

        def encode(expression: Expression) -> Any:
            word, *parts = expression
            return self.tree.node(self.embed(np.int32(WORDS.index(word))), [encode(part) for part in parts])

        return self.out(encode(expression)[1])


def loss(model: Any, words: Any, children: Any, values: Any) -> Any:
    logits = model(words, children)
    return nn.losses.sparse_categorical_cross_entropy(logits, values, from_logits=True)


def bag(words: Any) -> Any:
    """How often each word comes, `(N, 6)`; what is padded counts for nothing."""
    return (words[:, :, None] == np.arange(1, len(WORDS))).sum(1).astype(np.float32)


def bag_loss(model: Any, words: Any, children: Any, values: Any) -> Any:
    return nn.losses.sparse_categorical_cross_entropy(model(bag(words)), values, from_logits=True)


def accuracy(scores: Any, values: Any) -> float:
    return float((np.asarray(scores).argmax(-1) == values).mean())


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tracegrad.examples.treelstm",
        description="Train a TreeLSTM to tell whether a logical expression is true.",
    )
    parser.add_argument("--epochs", type=int, default=30, help="passes over the expressions in all (default: 30)")
    parser.add_argument("--trees", type=int, default=4000, help="expressions to train on (default: 4000)")
    parser.add_argument("--batch-size", type=int, default=64, help="expressions a step (default: 64)")
    parser.add_argument("--width", type=int, default=32, help="of the state of a node (default: 32)")
    parser.add_argument("--learning-rate", type=float, default=1e-2, help="of Adam at its peak (default: 0.01)")
    running.add_options(parser, "treelstm.png")
    args = parser.parse_args(arguments)
    running.check(parser, args, "epochs", "trees", "batch_size", "width")
    if args.trees < args.batch_size or args.batch_size < 2:
        parser.error(
            f"--trees {args.trees} and --batch-size {args.batch_size}: give 2 at least, and one batch of trees"
        )
    return args


def main(arguments: list[str] | None = None) -> None:
    args = parse(arguments)
    rng = np.random.default_rng(args.seed)
    known = drawn(rng, args.trees + 1000, (1, 5), 24)
    deep = drawn(rng, 500, (6, 8), 40)
    train_x, test_x = trees(known[:-1000], 24), trees(known[-1000:], 24)
    deep_x = trees(deep, 40)
    loader = train.data.DataLoader(tuple(train_x), args.batch_size, seed=args.seed, last="drop")
    steps = args.epochs * len(loader)
    optimizer = optimizers.chain(
        optimizers.clip_by_global_norm(1.0),
        optimizers.adam(schedules.warmup_cosine(args.learning_rate, max(1, steps // 10), steps)),
    )
    model = Reader.init(tg.random.key(args.seed), args.width)
    print(
        f"{len(train_x.words):,} expressions to train on, such as {text(known[0])}; {running.count(model):,} parameters"
    )
    measure = tg.jit(loss)
    result = train.fit(
        loss,
        model,
        loader,
        optimizer,
        epochs=args.epochs,
        validate=lambda state: float(measure(state.params, *test_x)),
        checkpoints=running.checkpoints(args, every=len(loader)),
        resume=args.resume,
    )
    reader = result.params

    words = nn.Linear.init(tg.random.key(args.seed), len(WORDS) - 1, 2)
    fitted = train.fit(bag_loss, words, loader, optimizers.adam(1e-2), epochs=10, progress=False).params
    scores = tg.jit(reader)(test_x.words, test_x.children)
    by_tree, by_bag = accuracy(scores, test_x.values), accuracy(fitted(bag(test_x.words)), test_x.values)
    print(f"test accuracy: {by_tree:.1%} (TreeLSTM), {by_bag:.1%} (bag of words)")
    by_tree = accuracy(tg.jit(reader)(deep_x.words, deep_x.children), deep_x.values)
    by_bag = accuracy(fitted(bag(deep_x.words)), deep_x.values)
    print(f"deeper than in training: {by_tree:.1%} (TreeLSTM), {by_bag:.1%} (bag of words)")
    some = known[-1000:][:50]
    each = np.stack([reader.recursive(expression) for expression in some])
    print(f"by recursion in plain Python the scores differ by at most {abs(each - scores[: len(some)]).max():.0e}")
    running.finish(args, result)


if __name__ == "__main__":
    main()
