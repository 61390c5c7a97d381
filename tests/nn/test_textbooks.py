"""The programs of textbooks: their values and gradients beside NumPy written out, jax.grad, and printed numbers."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tests.reference import x64
from tracegrad import initializers, nn, optimizers

RNG = np.random.default_rng(0)
WORDS, TAGS = np.array([[1, 2], [3, 4], [5, 5]]), np.array([0, 2, 4])
PARAMS = {
    "embed": 0.5 * RNG.normal(size=(7, 4)),
    "w1": RNG.normal(size=(8, 10)) / 8**0.5,
    "b1": 0.1 * RNG.normal(size=10),
    "w2": RNG.normal(size=(10, 5)) / 10**0.5,
    "b2": 0.1 * RNG.normal(size=5),
}


def probabilities(p: Any, features: Any) -> Any:
    return nn.softmax(tnp.tanh(features @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"])


def tagging_loss(p: Any, words: Any, tag: Any) -> Any:
    features = tnp.concatenate([p["embed"][word] for word in words.T], -1)
    return -tnp.log(tnp.pick(probabilities(p, features), tag))


def written_out(p: Any, words: Any, tag: Any) -> tuple[float, Any]:
    """The loss of one example and its gradient, backwards by hand: d(scores) = softmax(scores) - onehot."""
    x = np.concatenate([p["embed"][word] for word in words])
    h = np.tanh(x @ p["w1"] + p["b1"])
    scores = h @ p["w2"] + p["b2"]
    y = np.exp(scores) / np.exp(scores).sum()
    d2 = y - np.eye(5)[tag]
    d1 = (p["w2"] @ d2) * (1 - h * h)
    dx = p["w1"] @ d1
    embed = np.zeros_like(p["embed"])
    for i, word in enumerate(words):
        embed[word] += dx[4 * i : 4 * i + 4]
    return -np.log(y[tag]), {"embed": embed, "w1": np.outer(x, d1), "b1": d1, "w2": np.outer(h, d2), "b2": d2}


def close(actual: Any, expected: Any, rtol: float = 1e-10, atol: float = 1e-14) -> None:
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, rtol=rtol, atol=atol)


def trained_by_hand(p: Any, epochs: int) -> Any:
    for _ in range(epochs):
        for words, tag in zip(WORDS, TAGS, strict=True):
            p = jax.tree.map(lambda v, g: v - 0.5 * g, p, written_out(p, words, tag)[1])
    return p


@pytest.mark.parametrize("static", [False, True])
def test_the_tagger_of_lookups_and_pick(static: bool) -> None:
    """Goldberg, Neural Network Methods for NLP (2017), 5.1: a graph for each example, or one that is compiled once."""
    trainer, built = optimizers.sgd(0.5), []

    def update(p: Any, state: Any, words: Any, tag: Any) -> Any:
        built.append(0)
        grads = tg.grad(tagging_loss)(p, words, tag)
        updates, state = trainer.update(grads, state, p)
        return optimizers.apply_updates(p, updates), state

    with x64():
        for words, tag in zip(WORDS, TAGS, strict=True):
            close(tg.value_and_grad(tagging_loss)(PARAMS, words, tag), written_out(PARAMS, words, tag))
        step = tg.jit(update) if static else update
        p, state = PARAMS, trainer.init(PARAMS)
        for _ in range(10):
            for words, tag in zip(WORDS, TAGS, strict=True):
                p, state = step(p, state, words, tag)
        close(p, trained_by_hand(PARAMS, 10), rtol=1e-9, atol=1e-12)
        final = [float(tagging_loss(p, words, tag)) for words, tag in zip(WORDS, TAGS, strict=True)]
        assert max(final) < 0.2 < 1.0 < float(tagging_loss(PARAMS, WORDS[0], TAGS[0]))
    assert len(built) == (1 if static else 30)


def test_graphs_joined_under_an_averaging_node_are_the_batch() -> None:
    def joined(p: Any) -> Any:
        each = [tagging_loss(p, words, tag) for words, tag in zip(WORDS, TAGS, strict=True)]
        return sum(each) / len(each)

    by_hand = [written_out(PARAMS, words, tag) for words, tag in zip(WORDS, TAGS, strict=True)]
    expected = jax.tree.map(lambda *xs: sum(xs) / 3, *by_hand)
    with x64():
        for f in (joined, lambda p: tagging_loss(p, WORDS, TAGS).mean()):
            close(tg.value_and_grad(f)(PARAMS), expected)
            close(tg.jit(tg.value_and_grad(f))(PARAMS), expected)


def test_networks_compose_over_a_tree() -> None:
    """The graph follows the data: the gradient goes through both networks, and to the words that the tree has."""
    composed = {"encoder": {"words": PARAMS["embed"], "join": RNG.normal(size=(8, 4)) / 2}, "tagger": PARAMS}

    def loss(np_: Any, softmax: Any, p: Any, pair: Any) -> Any:
        def encode(tree: Any) -> Any:
            if isinstance(tree, int):
                return p["encoder"]["words"][tree]
            return np_.tanh(np_.concatenate([encode(part) for part in tree]) @ p["encoder"]["join"])

        tagger = p["tagger"]
        h = np_.tanh(np_.concatenate([encode(tree) for tree in pair]) @ tagger["w1"] + tagger["b1"])
        return -np_.log(softmax(h @ tagger["w2"] + tagger["b2"])[3])

    with x64():
        for pair in ((0, 1), (((0, 1), 2), (3, (4, 4))), ((((5, 1), 1), 1), 0)):
            ours = tg.value_and_grad(lambda p: loss(tnp, nn.softmax, p, pair))(composed)  # noqa: B023
            close(ours, jax.value_and_grad(lambda p: loss(jnp, jax.nn.softmax, p, pair))(composed))  # noqa: B023


def test_the_multiply_gate() -> None:
    """Stanford's CS231n, "Backpropagation, intuitions": (x + y) z at -2, 5, -4 is -12, of gradient -4, -4, 3."""
    multiply = tg.Op(
        "multiply", lambda x, y: x * y, vjp=(lambda dz, z, x, y: dz * y, lambda dz, z, x, y: dz * x)
    )  # fmt: skip

    def circuit(x: Any, y: Any, z: Any) -> Any:
        return multiply(x + y, z)

    for run in (lambda f: f, tg.jit):
        value, grads = run(tg.value_and_grad(circuit, argnums=(0, 1, 2)))(-2.0, 5.0, -4.0)
        assert (float(value), [float(g) for g in grads]) == (-12.0, [-4.0, -4.0, 3.0])
    assert float(tg.grad(tg.grad(lambda x: multiply(multiply(x, x), x)))(2.0)) == 12.0


@pytest.mark.parametrize("classes", [2, 4, 10])
def test_the_first_loss_and_20_examples_by_heart(classes: int) -> None:
    """With small weights the loss is log K; a network of two layers learns 20 examples of random labels by heart."""
    k1, k2 = tg.random.split(tg.random.key(classes))
    x, labels = RNG.normal(size=(20, 8)).astype(np.float32), RNG.integers(0, classes, 20)
    out = nn.Linear.init(k2, 64, classes, kernel_init=initializers.normal(1e-4))
    model = nn.Sequential([nn.Linear.init(k1, 8, 64), nn.relu, out])
    optimizer = optimizers.adam(1e-2)

    def loss(model: Any) -> Any:
        return nn.losses.sparse_categorical_cross_entropy(model(x), labels, from_logits=True)

    @tg.jit
    def learn(model: Any, state: Any) -> Any:
        updates, state = optimizer.update(tg.grad(loss)(model), state, model)
        return optimizers.apply_updates(model, updates), state

    np.testing.assert_allclose(loss(model), np.log(classes), atol=1e-3)
    state = optimizer.init(model)
    for _ in range(150):
        model, state = learn(model, state)
    assert float(loss(model)) < 0.1 and (np.argmax(model(x), -1) == labels).all()
