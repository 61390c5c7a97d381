"""Trees over classes, and the softmax over their leaves, against probabilities multiplied along paths."""

from __future__ import annotations

import itertools
import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import tracegrad as tg
from tests.reference import check_grads, check_message, x64
from tracegrad import nn, random
from tracegrad.nn import losses

rng = np.random.default_rng(0)
H = 5
PAIRS = ((3, (0, 6)), ((1, 5), (4, 2)))
TREES = {
    "random": losses.random_tree(random.key(1), 11),
    "given": losses.tree_of_pairs(PAIRS),
    "by frequency": losses.huffman_tree([20, 1, 1, 2, 9, 4]),
    "learned": losses.learned_tree(random.key(2), rng.standard_normal((9, 3))),
    "learned, unbalanced": losses.learned_tree(random.key(2), rng.standard_normal((9, 3)), balanced=False),
    "of two": losses.random_tree(random.key(0), 2),
    "of one": losses.tree_of_pairs(0),
}


def params_of(tree: Any, scale: float = 1.0) -> Any:
    return {"w": scale * rng.standard_normal((tree.inner, H)), "b": scale * rng.standard_normal(tree.inner)}


def paths(tree: Any) -> dict[int, tuple[tuple[int, int], ...]]:
    """From the root to each class."""
    return {
        k: tuple((int(n), int(s)) for n, s in zip(tree.nodes[k], tree.signs[k], strict=True) if s)[::-1]
        for k in range(tree.classes)
    }


def log_probabilities(xp: Any, h: Any, params: Any, tree: Any) -> Any:
    """Multiplied along the paths, one by one; scores are those of all nodes."""
    p = 1 / (1 + xp.exp(-(h @ params["w"].T + params["b"])))
    columns = []
    for path in paths(tree).values():
        column = xp.zeros(h.shape[:-1])
        for node, sign in path:
            column = column + xp.log(p[..., node] if sign > 0 else 1 - p[..., node])
        columns.append(column)
    return xp.stack(columns, -1)


def check_tree(tree: Any) -> None:
    """A binary tree: paths are all different, and both ways of each inner node are taken by someone."""
    assert tree.nodes.shape == tree.signs.shape == (tree.classes, tree.depth) and tree.inner == tree.classes - 1
    found = paths(tree)
    turns = {path[:i] for path in found.values() for i in range(1, len(path) + 1)}
    assert len(set(found.values())) == tree.classes
    assert {(*t[:-1], (t[-1][0], -t[-1][1])) for t in turns} == turns
    # Each inner node has one place.
    places = {(t[-1][0], t[:-1]) for t in turns}
    assert len(places) == len({node for node, _ in places}) == tree.inner


@pytest.mark.parametrize("name", TREES)
def test_trees(name: str) -> None:
    check_tree(TREES[name])


def test_sizes_of_trees() -> None:
    for k in (1, 2, 3, 7, 8, 9, 1000):
        expected = int(np.ceil(np.log2(k)))
        tree = losses.random_tree(random.key(k), k)
        check_tree(tree)
        assert tree.depth == expected and losses.learned_tree(random.key(k), np.ones((k, 2))).depth == expected
    assert losses.random_tree(random.key(0), 64).nodes.tolist() != losses.random_tree(random.key(1), 64).nodes.tolist()


def test_tree_of_pairs() -> None:
    found = paths(TREES["given"])
    assert [len(found[k]) for k in range(7)] == [3, 3, 3, 2, 3, 3, 3]
    assert found[0][:2] == found[6][:2] and found[4][:2] == found[2][:2] and found[3][0] == found[6][0]


def test_huffman_tree_has_the_shortest_paths() -> None:
    counts = np.array([20, 1, 1, 2, 9, 4])

    def best(weights: tuple[int, ...]) -> int:
        """The least total over all binary trees, by trying each pair to join first."""
        if len(weights) == 1:
            return 0
        pairs = itertools.combinations(range(len(weights)), 2)
        joined = [(weights[i] + weights[j], [w for k, w in enumerate(weights) if k not in (i, j)]) for i, j in pairs]
        return min(total + best((*rest, total)) for total, rest in joined)

    lengths = np.abs(TREES["by frequency"].signs).sum(1)
    assert (lengths * counts).sum() == best(tuple(counts.tolist()))


def test_learned_tree_finds_groups() -> None:
    """Two groups, each of two: a class and its neighbours share the upper part of their paths."""
    centres = np.array([[0.0, 0.0], [0.0, 3.0], [40.0, 0.0], [40.0, 3.0]])
    group = rng.permutation(np.repeat(np.arange(4), 8))
    features = centres[group] + 0.1 * rng.standard_normal((32, 2))
    for balanced in (True, False):
        tree = losses.learned_tree(random.key(0), features, balanced=balanced)
        check_tree(tree)
        found = paths(tree)
        for level, groups in ((1, group // 2), (2, group)):
            prefixes = [found[k][:level] for k in range(32)]
            for i, j in itertools.combinations(range(32), 2):
                assert (prefixes[i] == prefixes[j]) == (groups[i] == groups[j]), (balanced, level)
    again = losses.learned_tree(random.key(0), features)
    assert (again.nodes == losses.learned_tree(random.key(0), features).nodes).all()


@pytest.mark.parametrize("name", TREES)
def test_values(name: str) -> None:
    tree = TREES[name]
    params, h = params_of(tree), rng.standard_normal((2, 3, H))
    labels = rng.integers(0, tree.classes, (2, 3))
    weights = np.array([0.5, 2.0])
    with x64():
        expected = log_probabilities(np, h, params, tree)
        for run in (losses.hierarchical_log_probabilities, tg.jit(losses.hierarchical_log_probabilities)):
            np.testing.assert_allclose(run(h, params, tree), expected, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(np.exp(run(h, params, tree)).sum(-1), 1, rtol=1e-12)
        chosen = -np.take_along_axis(expected, labels[..., None], -1)[..., 0]
        loss = tg.jit(losses.hierarchical_softmax, static_argnames="reduction")
        for run in (losses.hierarchical_softmax, loss):
            np.testing.assert_allclose(run(h, labels, params, tree), chosen.mean(), rtol=1e-12, atol=1e-15)
            each = run(h, labels, params, tree, weights=weights, reduction="none")
            np.testing.assert_allclose(each, chosen * weights[:, None], rtol=1e-12, atol=1e-15)


def test_gradients() -> None:
    tree = TREES["by frequency"]
    labels = np.array([5, 0, 1, 1])

    def reference(h: Any, params: Any) -> Any:
        return -log_probabilities(jnp, h, params, tree)[np.arange(4), labels]

    h, params = rng.standard_normal((4, H)), params_of(tree)
    check_grads(
        lambda h, params: losses.hierarchical_softmax(h, labels, params, tree, reduction="none"), h, params,
        jax_fn=reference,
    )  # fmt: skip
    check_grads(
        lambda h, params: losses.hierarchical_log_probabilities(h, params, tree), h, params,
        jax_fn=lambda h, params: log_probabilities(jnp, h, params, tree),
    )  # fmt: skip


def test_extremes() -> None:
    """Scores of 1e4: the loss is their sum where the turn is against them, and the gradient prediction minus target."""
    tree = losses.tree_of_pairs(((0, 1), (2, 3)))
    params = {"w": np.array([[1.0], [-1.0], [1.0]]), "b": np.zeros(3)}
    for scale in (1.0, 1e4):
        h = np.array([[scale], [-scale]])
        labels = np.array([3, 0])
        scores = h @ params["w"].T
        turns, s = np.asarray(tree.signs)[labels], np.take_along_axis(scores, np.asarray(tree.nodes)[labels], 1)
        with x64():
            loss = lambda h: losses.hierarchical_softmax(h, labels, params, tree, reduction="sum")  # noqa: B023, E731
            value, grad = tg.value_and_grad(loss)(h)
            np.testing.assert_allclose(value, np.logaddexp(0, -turns * s).sum(), rtol=1e-12)
            w = params["w"][np.asarray(tree.nodes)[labels], 0]
            slope = special.expit(s) - (turns > 0)
            np.testing.assert_allclose(np.asarray(grad)[:, 0], (slope * w).sum(1), rtol=1e-12, atol=1e-15)
            second = (special.expit(s) * special.expit(-s) * w * w).sum(1)
            hvp = tg.jit(lambda h: tg.hvp(loss, (h,), (np.ones_like(h),)))(h)  # noqa: B023
            np.testing.assert_allclose(np.asarray(hvp)[:, 0], second, rtol=1e-12, atol=1e-15)
            probabilities = np.exp(losses.hierarchical_log_probabilities(h, params, tree))
            np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-12)


def test_ignored_rows_are_not_there() -> None:
    tree = TREES["random"]
    params, h = params_of(tree), rng.standard_normal((3, H))
    y = np.array([4, 10, 0])
    spoiled = np.concatenate([h, np.full((1, H), np.nan)])
    with x64():
        for label, options in ((-1, {}), (7, {"ignore_index": 7})):

            def loss(h: Any, params: Any) -> Any:
                return losses.hierarchical_softmax(h, np.append(y, label), params, tree, **options)  # noqa: B023

            actual = tg.value_and_grad(loss, argnums=(0, 1))(spoiled, params)
            expected = tg.value_and_grad(lambda h, p: losses.hierarchical_softmax(h, y, p, tree), argnums=(0, 1))(
                h, params
            )
            assert (np.asarray(actual[1][0])[3] == 0).all()
            np.testing.assert_allclose(actual[0], expected[0], rtol=1e-14)
            np.testing.assert_allclose(np.asarray(actual[1][0])[:3], expected[1][0], rtol=1e-14)
            for a, e in zip(actual[1][1].values(), expected[1][1].values(), strict=True):
                np.testing.assert_allclose(a, e, rtol=1e-13, atol=1e-16)


def test_labels_out_of_range() -> None:
    tree = TREES["random"]
    params, h = params_of(tree), rng.standard_normal((2, H))
    for bad in (11, -2):
        with pytest.raises(ValueError, match=rf"hierarchical_softmax: targets\[1\] is {bad}.* 0 to 10 at .*test_hier"):
            losses.hierarchical_softmax(h, np.array([1, bad]), params, tree)
        run = tg.jit(lambda h, y: tg.value_and_grad(lambda h: losses.hierarchical_softmax(h, y, params, tree))(h))
        value, grad = run(h, np.array([1, bad]))
        assert np.isnan(value) and np.isnan(grad[1]).any() and np.isfinite(grad[0]).all()


def test_empty_batch() -> None:
    tree = TREES["random"]
    none, labels, params = np.zeros((0, H)), np.zeros(0, int), params_of(tree)
    with x64():
        value, grads = tg.value_and_grad(
            lambda p: losses.hierarchical_softmax(none, labels, p, tree, reduction="sum")
        )(params)  # fmt: skip
        assert float(value) == 0 and not any(np.any(g) for g in grads.values())
        assert losses.hierarchical_log_probabilities(none, params, tree).shape == (0, 11)
        with pytest.raises(ValueError, match="the mean of no losses"):
            losses.hierarchical_softmax(none, labels, params, tree)


def test_rows_used_alone() -> None:
    """With the nodes on the paths alone: the same value, and the gradient's rows, repeats among them."""
    tree = TREES["random"]
    params, h, labels = params_of(tree), rng.standard_normal((4, H)), np.array([3, 3, 10, 0])
    with x64():
        value, whole = tg.value_and_grad(lambda p: losses.hierarchical_softmax(h, labels, p, tree))(params)

        @tg.jit
        def rows(params: Any, labels: Any, tree: Any) -> Any:
            nodes, part = tree.paths(labels)
            used = {name: p[nodes] for name, p in params.items()}
            value, grads = tg.value_and_grad(lambda r: losses.hierarchical_softmax(h, np.arange(4), r, part))(used)
            return value, {name: (0 * p).at[nodes].add(grads[name]) for name, p in params.items()}

        for a, e in zip(jax.tree.leaves(rows(params, labels, tree)), jax.tree.leaves((value, whole)), strict=True):
            np.testing.assert_allclose(a, e, rtol=1e-12, atol=1e-15)
        plain = tg.jit(lambda p, tree: losses.hierarchical_softmax(h, labels, p, tree))(params, tree)
        np.testing.assert_allclose(plain, value, rtol=1e-12)


def layer_of(tree: Any) -> Any:
    """The layer of this tree with other, float64, parameters."""
    rng = np.random.default_rng(1)
    return nn.HierarchicalSoftmax(rng.standard_normal((tree.inner, H)), rng.standard_normal(tree.inner), tree)


@pytest.mark.parametrize("name", ["random", "given", "of one"])
def test_the_layer(name: str) -> None:
    rng = np.random.default_rng(2)
    layer, h = layer_of(TREES[name]), rng.standard_normal((2, 3, H))
    labels, weights = rng.integers(0, layer.tree.classes, (2, 3)), np.array([0.5, 2.0])
    with x64():
        expected = log_probabilities(np, h, {"w": layer.kernel, "b": layer.bias}, layer.tree)
        chosen = np.take_along_axis(expected, labels[..., None], -1)[..., 0]
        every = lambda m, h: (m(h), m.loss(h, labels), m.loss(h, labels, weights=weights, reduction="none"))  # noqa: E731
        for f in (every, tg.jit(every), lambda m, h: every(m, h)):
            for a, e in zip(f(layer, h), (expected, -chosen.mean(), -chosen * weights[:, None]), strict=True):
                # 1 - p of the reference cancels where p is near 1.
                np.testing.assert_allclose(a, e, rtol=1e-10, atol=1e-12)
        labels[0, 1] = -1
        np.testing.assert_allclose(layer.loss(h, labels), -chosen[labels >= 0].mean(), rtol=1e-10, atol=1e-12)


def test_derivatives_of_the_layer() -> None:
    layer, h, y = (
        layer_of(TREES["by frequency"]),
        np.random.default_rng(3).standard_normal((4, H)),
        np.array([5, 0, 1, 1]),
    )
    theirs = lambda m, h: log_probabilities(jnp, h, {"w": m.kernel, "b": m.bias}, m.tree)  # noqa: E731
    check_grads(lambda m, h: m(h), layer, h, jax_fn=theirs)
    check_grads(
        lambda m, h: m.loss(h, y, reduction="none"), layer, h, jax_fn=lambda m, h: -theirs(m, h)[np.arange(4), y]
    )


def test_the_layer_in_a_model() -> None:
    """As it is made, trained under jit, kept and loaded, and in an ensemble."""

    @nn.layer
    class Model:
        embed: nn.Embedding
        out: nn.HierarchicalSoftmax

        def loss(self, x: Any, y: Any, run: Any = None) -> Any:
            return self.out.loss(self.embed(x, run), y, run)

    tree = TREES["random"]
    make = lambda key: Model(nn.Embedding.init(key, 11, 8), nn.HierarchicalSoftmax.init(key, 8, tree))  # noqa: E731
    model, x = make(random.key(0)), np.arange(11)
    assert model.out.kernel.shape == (10, 8) and not np.any(model.out.bias)
    assert "out: HierarchicalSoftmax(tree=ClassTree(classes=11, inner=10, depth=4)): 90 parameters" in str(model)

    traced = []

    @tg.jit
    def step(model: Any) -> Any:
        traced.append(model)
        value, grads = tg.value_and_grad(lambda model: model.loss(x, x[::-1]))(model)
        return jax.tree.map(lambda p, g: p - 3.0 * g, model, grads), value

    for _ in range(60):
        model, value = step(model)
    assert float(value) < 0.1 and (np.argmax(model.out(model.embed(x)), -1) == x[::-1]).all()
    # A tree is equal to one of the same numbers: what was loaded is no other program, and fits an optimizer's state.
    loaded = pickle.loads(pickle.dumps(model.out))
    assert loaded.tree is not tree and loaded.tree == tree and hash(loaded.tree) == hash(tree)
    assert loaded.tree not in (TREES["given"], losses.random_tree(random.key(7), 11), None)
    step(Model(model.embed, loaded))
    assert len(traced) == 1
    assert jax.tree.structure(loaded) == jax.tree.structure(model.out)
    models = tg.vmap(make)(random.split(random.key(1), 3))
    each = tg.vmap(lambda m: m.loss(x, x))(models)
    np.testing.assert_allclose(
        each, [jax.tree.map(lambda p, i=i: p[i], models).loss(x, x) for i in range(3)], rtol=1e-5
    )
    first, other = (nn.HierarchicalSoftmax.init(random.key(i), 8, 40, dtype=np.float16) for i in (0, 1))
    assert first.tree != other.tree and first.kernel.dtype == first.bias.dtype == np.float16
    wide = nn.HierarchicalSoftmax.init(random.key(0), 400, 500)
    np.testing.assert_allclose(np.std(wide.kernel), 400**-0.5, rtol=0.02)


def test_what_the_layer_refuses() -> None:
    layer, h, key = layer_of(TREES["random"]), np.zeros((2, H)), random.key(0)
    name = r"^HierarchicalSoftmax"
    init = nn.HierarchicalSoftmax.init
    check_message(lambda: init(H, 11, key), TypeError, name + r"\.init: key is .*, which is not a random key")
    check_message(lambda: init(key, 0, 11), ValueError, name + r"\.init: features=0")
    check_message(lambda: init(key, H, 0), ValueError, name + r"\.init: classes=0")
    check_message(lambda: init(key, H, 2.0), TypeError, name + r"\.init: classes is 2\.0, not a whole number")
    check_message(
        lambda: tg.vmap(lambda k: init(k, H, 11))(random.split(key, 2)),
        TypeError, name + r"\.init: classes=11 asks for a random tree.* nn\.random_tree\(key, 11\)",
    )  # fmt: skip
    check_message(
        lambda: tg.jit(lambda tree: init(key, H, tree).loss(h, np.zeros(2, int)))(layer.tree),
        TypeError, name + r".*the tree is traced .*Make the layer outside",
    )  # fmt: skip
    check_message(
        lambda: nn.HierarchicalSoftmax(layer.kernel, layer.bias, 11), TypeError, name + r".*tree is int 11.*random_tree"
    )
    check_message(
        lambda: layer(h[:, 1:]), ValueError, name + r": the input f32\[2,4\] has 4 features .* the layer takes 5"
    )
    model = nn.Sequential([layer])
    check_message(
        lambda: layer.loss(h[:, 1:], np.zeros(2, int), nn.Run(model)),
        ValueError,
        name + r" at model\.layers\[0\]: the input",
    )
    check_message(lambda: layer.loss(h, [1, 11]), ValueError, name + r"\.loss: targets\[1\] is 11.* 0 to 10")
    check_message(
        lambda: layer.loss(h, np.eye(11)[:2]), TypeError, name + r"\.loss: labels must be integers.*number of the class"
    )
    check_message(lambda: layer.loss(h, [1, 2, 3]), ValueError, name + r"\.loss: .*need labels of shape .2,.")
    stacked = jax.tree.map(lambda p: np.stack([p, p]), layer)
    check_message(lambda: stacked(h), ValueError, name + r": its kernel is .*ensemble")


def test_training() -> None:
    """Mnih and Hinton's recipe: a random tree first, then one of the features that the model with it learned."""
    k, rng = 16, np.random.default_rng(0)
    table = np.repeat(np.arange(4), 4)  # Of the 16 classes four groups; a context gives a group away, less so a class.
    contexts = np.eye(4)[table] * 2 + 0.3 * rng.standard_normal((k, 4))
    y = np.tile(np.arange(k), 20)
    x = contexts[y] + 0.2 * rng.standard_normal((len(y), 4))

    def trained(tree: Any) -> tuple[Any, float]:
        params = {"h": np.eye(4), **losses.init_hierarchical_softmax(random.key(3), tree, 4)}

        @tg.jit
        def step(params: Any) -> Any:
            def loss(params: Any) -> Any:
                own = {name: params[name] for name in ("w", "b")}
                return losses.hierarchical_softmax(x @ params["h"], y, own, tree)

            value, grads = tg.value_and_grad(loss)(params)
            return jax.tree.map(lambda p, g: p - 1.0 * g, params, grads), value

        for _ in range(60):
            params, value = step(params)
        return params, float(value)

    params, first = trained(losses.random_tree(random.key(0), k))
    hidden = np.asarray(x @ params["h"])
    features = np.stack([hidden[y == c].mean(0) for c in range(k)])
    tree = losses.learned_tree(random.key(1), features)
    _, second = trained(tree)
    upper = [paths(tree)[c][:2] for c in range(k)]
    assert all((upper[i] == upper[j]) == (table[i] == table[j]) for i in range(k) for j in range(k))
    assert second < first < np.log(k), (first, second)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: losses.tree_of_pairs((0, (1, 2, 3))), ["tree_of_pairs", "3 parts"]),
        (lambda: losses.tree_of_pairs((0, "a")), ["str 'a'", "neither"]),
        (lambda: losses.tree_of_pairs((0, (1, 1))), ["3 leaves", "class 1", "at 2"]),
        (lambda: losses.random_tree(random.key(0), 0), ["classes=0"]),
        (lambda: losses.random_tree(random.key(0), "a"), ["classes is str 'a'"]),
        (lambda: losses.huffman_tree([1, -1]), ["frequencies"]),
        (lambda: losses.learned_tree(random.key(0), np.ones(3)), ["features is f32[3]"]),
        (lambda: loss_of(TREES["random"], np.zeros((2, H + 1))), ["(10, 5)", "(10, 6)"]),
        (lambda: loss_of(TREES["random"], np.zeros(())), ["()", "features"]),
        (lambda: loss_of("a", np.zeros((2, H))), ["tree is str 'a'", "random_tree"]),
        (lambda: loss_of(TREES["random"], np.zeros((2, H)), {"w": 1.0}), ["params is", "init_hierarchical_softmax"]),
        (
            lambda: loss_of(TREES["random"], np.zeros((2, H)), labels=np.eye(11)[:2]),
            ["integers", "number of the class"],
        ),
    ],
)
def test_errors(call: Any, words: list[str]) -> None:
    with pytest.raises((ValueError, TypeError)) as info:
        call()
    for word in [*words, "test_hierarchical_softmax.py"]:
        assert word in str(info.value), str(info.value)


def loss_of(tree: Any, h: Any, params: Any = None, labels: Any = (1, 2)) -> Any:
    params = {"w": np.zeros((10, H)), "b": np.zeros(10)} if params is None else params
    return nn.hierarchical_softmax(h, np.asarray(labels), params, tree)
