"""Metrics agree with scikit-learn's and with written-out formulas, however the examples are divided."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from sklearn import metrics as sk

import tracegrad as tg
import tracegrad.numpy as tnp
from tracegrad import metrics as m

RNG = np.random.default_rng(7)
N, K = 24, 4
WEIGHTS = RNG.integers(0, 4, N) / 2  # exact in float32, and with zeros among them
LOGITS = RNG.normal(size=(N, K))
LOGITS[:6, 0] = LOGITS[:6, 1]  # ties
P = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
Y = RNG.integers(0, K, N)
Y3 = np.where(Y == 2, 1, Y)  # a class that is never the target
HOT = np.eye(K)[Y]
BINARY = RNG.integers(0, 2, N)
SCORES = np.round(np.clip(BINARY * 0.3 + RNG.uniform(size=N) * 0.7, 0, 1), 1) + 0.02  # ties, and none on a threshold
GUESS = np.where(RNG.uniform(size=N) < 0.5, Y, RNG.integers(0, K, N))


def mean(values: Any, w: Any) -> Any:
    w = np.broadcast_to(np.reshape(w, (-1, *[1] * (values.ndim - 1))), values.shape)
    return (values * w).sum() / w.sum()


def by_class(score: Any, average: Any, zero: float = 0.0) -> Callable[..., Any]:
    def reference(p: Any, t: Any, w: Any) -> Any:
        predicted = p if p.dtype.kind == "i" else p.argmax(-1) if p.ndim > t.ndim else (p > 0.5).astype(int)
        return score(t, predicted, average=average, sample_weight=w, zero_division=zero)

    return reference


def confusion(normalize: Any) -> Callable[..., Any]:
    return lambda p, t, w: sk.confusion_matrix(t, p.argmax(-1), labels=range(K), sample_weight=w, normalize=normalize)


def in_top(k: int) -> Callable[..., Any]:
    # scikit-learn's takes the last of equal scores: given backwards, the first.
    return lambda p, t, w: sk.top_k_accuracy_score(K - 1 - t, p[:, ::-1], k=k, labels=range(K), sample_weight=w)


def cross_entropy(p: Any, t: Any, w: Any) -> Any:
    return sk.log_loss(t, p / p.sum(-1, keepdims=True), labels=range(K), sample_weight=w)


def binary_cross_entropy(p: Any, t: Any, w: Any) -> Any:
    return mean(-t * np.log(p) - (1 - t) * np.log1p(-p), w)


def roc(p: Any, t: Any, w: Any) -> Any:
    return sk.roc_auc_score(t, p, sample_weight=w)


def average_precision(p: Any, t: Any, w: Any) -> Any:
    return sk.average_precision_score(t, p, sample_weight=w)


def smooth(p: Any, t: Any, w: Any) -> Any:
    targets = 0.8 * t + 0.2 / K
    return mean(-(targets * np.log(p)).sum(-1), w)


CASES: list[tuple[m.Metric, Any, Any, Callable[..., Any]]] = [
    (m.MeanSquaredError(), LOGITS, HOT, lambda p, t, w: sk.mean_squared_error(t, p, sample_weight=w)),
    (m.BinaryCrossentropy(), SCORES * 0.9, BINARY, binary_cross_entropy),
    (m.BinaryCrossentropy(from_logits=True), LOGITS, HOT,
     lambda z, t, w: binary_cross_entropy(1 / (1 + np.exp(-z)), t, w)),
    (m.CategoricalCrossentropy(), P, HOT, lambda p, t, w: cross_entropy(p, t.argmax(-1), w)),
    (m.CategoricalCrossentropy(from_logits=True), LOGITS, P, lambda z, t, w: mean(-(t * np.log(P)).sum(-1), w)),
    (m.CategoricalCrossentropy(label_smoothing=0.2), P, HOT, smooth),
    (m.SparseCategoricalCrossentropy(), P, Y, cross_entropy),
    (m.SparseCategoricalCrossentropy(from_logits=True), LOGITS, Y, lambda z, t, w: cross_entropy(P, t, w)),
    (m.SparseCategoricalCrossentropy(label_smoothing=0.2), P, Y, lambda p, t, w: smooth(p, np.eye(K)[t], w)),
    (m.Perplexity(from_logits=True), LOGITS, Y, lambda z, t, w: np.exp(cross_entropy(P, t, w))),
    (m.Accuracy(), GUESS, Y, lambda p, t, w: sk.accuracy_score(t, p, sample_weight=w)),
    (m.BinaryAccuracy(), SCORES, BINARY, lambda p, t, w: sk.accuracy_score(t, p > 0.5, sample_weight=w)),
    (m.BinaryAccuracy(0.3), SCORES, BINARY, lambda p, t, w: sk.accuracy_score(t, p > 0.3, sample_weight=w)),
    (m.CategoricalAccuracy(), P, HOT, lambda p, t, w: sk.accuracy_score(t.argmax(-1), p.argmax(-1), sample_weight=w)),
    (m.SparseCategoricalAccuracy(), LOGITS, Y, lambda p, t, w: sk.accuracy_score(t, p.argmax(-1), sample_weight=w)),
    (m.TopK(1), LOGITS, Y, in_top(1)),
    (m.TopK(2), LOGITS, Y, in_top(2)),
    (m.TopK(3), LOGITS, Y, in_top(3)),
    (m.ConfusionMatrix(K), LOGITS, Y, confusion(None)),
    (m.ConfusionMatrix(K, "true"), LOGITS, Y3, confusion("true")),
    (m.ConfusionMatrix(K, "pred"), LOGITS, Y, confusion("pred")),
    (m.ConfusionMatrix(K, "all"), LOGITS, Y, confusion("all")),
    *[
        (metric(K, average), p, t, by_class(score, average))
        for metric, score in ((m.Precision, sk.precision_score), (m.Recall, sk.recall_score), (m.F1, sk.f1_score))
        for average, p, t in (("micro", LOGITS, Y), ("macro", GUESS, Y3), ("weighted", GUESS, Y3))
    ],
    (m.F1(), SCORES, BINARY, by_class(sk.f1_score, "binary")),
    (m.Precision(), SCORES, BINARY, by_class(sk.precision_score, "binary")),
    (m.Recall(), BINARY, (SCORES > 0.4).astype(int), by_class(sk.recall_score, "binary")),
    (m.F1(K, None), GUESS, Y, by_class(sk.f1_score, None)),
    (m.AUC(), SCORES * 0.9, BINARY, roc),
    (m.AUC(curve="PR"), SCORES * 0.9, BINARY, average_precision),
    (m.AUC(capacity=100), SCORES, BINARY, roc),
    (m.AUC(capacity=N, curve="PR"), SCORES, BINARY, average_precision),
]  # fmt: skip


ONE_OF_A_KIND = list({(type(c[0]), getattr(c[0], "capacity", None)): c for c in CASES}.values())


def name(case: Any) -> str:
    return str(case[0] if isinstance(case, tuple) else case)


def prepared(case: Any, weighted: bool) -> tuple[Any, Any, Any, Any]:
    """The metric, its arguments in float32, and what it should be of those."""
    metric, p, t, reference = case
    p, t = (x.astype(np.float32) if x.dtype.kind == "f" else x.astype(np.int32) for x in (p, t))
    w = (WEIGHTS if weighted else np.ones(N)).astype(np.float32)
    expected = reference(*[np.asarray(x, np.float64 if x.dtype.kind == "f" else np.int64) for x in (p, t)], w)
    return metric, (p, t), w if weighted else None, expected


def close(actual: Any, expected: Any) -> None:
    np.testing.assert_allclose(actual, expected, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("case", "weighted"), [(c, True) for c in CASES] + [(c, False) for c in ONE_OF_A_KIND], ids=name
)
def test_agrees_with_scikit_learn_and_does_not_depend_on_the_batches(case: Any, weighted: bool) -> None:
    metric, (p, t), w, expected = prepared(case, weighted)
    state, value = metric(metric.reset(), p, t, w)
    close(value, expected)
    # Two states, of an even and an odd part, merged; and one after the other.
    parts = [slice(0, 7), slice(7, N)]
    states = [metric.update(metric.reset(), p[i], t[i], None if w is None else w[i]) for i in parts]
    merged = metric.result(metric.merge(*states))
    after = metric.update(states[0], p[7:], t[7:], None if w is None else w[7:])
    np.testing.assert_array_equal(merged, metric.result(after))
    np.testing.assert_array_equal(merged, value)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(metric.reset()), strict=True):
        assert (a.shape, a.dtype, a.weak_type) == (b.shape, b.dtype, b.weak_type)


@pytest.mark.parametrize("case", ONE_OF_A_KIND, ids=name)
def test_in_jit_scan_and_on_devices(case: Any) -> None:
    metric, (p, t), w, expected = prepared(case, True)
    chunks = jax.tree.map(lambda x: x.reshape(4, N // 4, *x.shape[1:]), (p, t, w))

    @tg.jit
    def scanned(chunks: Any) -> Any:
        state, _ = tg.scan(lambda state, xs: (metric.update(state, *xs), None), metric.reset(), chunks)
        return metric.result(state), metric.result(metric.reset())

    value, empty = scanned(chunks)
    close(value, expected)
    assert np.isnan(empty).all()

    def on_device(before: Any, p: Any, t: Any, w: Any) -> Any:
        mine = metric.update(metric.reset(), p, t, w)
        return metric.merge(before, metric.all_reduce(mine, "data"))

    first, rest = jax.tree.map(lambda x: x[0], chunks), jax.tree.map(lambda x: x[1:], chunks)
    before = metric.update(metric.reset(), *first)
    state = tg.pmap(on_device, "data", in_axes=(None, 0, 0, 0), out_axes=None)(before, *rest)
    close(metric.result(state), expected)


def test_under_jax_jit_and_shard_map() -> None:
    metric = m.F1(K, "macro")
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]), ("data",))
    spec = jax.sharding.PartitionSpec("data")

    def local(p: Any, t: Any) -> Any:
        return metric.all_reduce(metric.update(metric.reset(), p, t), "data")

    state = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=(spec, spec), out_specs=jax.sharding.PartitionSpec()))(
        GUESS.astype(np.int32), Y.astype(np.int32)
    )
    close(metric.result(state), sk.f1_score(Y, GUESS, average="macro"))


@pytest.mark.parametrize("zero", [0.0, 1.0, np.nan])
def test_zero_division(zero: float) -> None:
    t, p = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 0, 0])
    for metric, score, average in (
        (m.Precision(4, "macro", zero_division=zero), sk.precision_score, "macro"),
        (m.Recall(4, None, zero_division=zero), sk.recall_score, None),
        (m.F1(4, "weighted", zero_division=zero), sk.f1_score, "weighted"),
    ):
        expected = score(t, p, average=average, labels=None if average else range(4), zero_division=zero)
        close(metric(metric.reset(), p, t)[1], expected)


# -- exactness


def test_counts_beyond_what_a_float_counts() -> None:
    metric = m.Mean()
    values = np.ones(1 << 12, np.float32)

    @tg.jit
    def many(state: Any) -> Any:
        return tg.fori_loop(0, 5_000, lambda _, s: metric.update(s, values), state)

    state = many(many(metric.reset()))
    assert int(state.weight.high) + int(state.weight.low) == 10_000 * 4096 > 2**24
    state = metric.update(state, np.zeros(3, np.float32))
    assert int(state.weight.high) + int(state.weight.low) == 10_000 * 4096 + 3
    confusion = m.ConfusionMatrix(2)
    state = confusion.update(confusion.reset(), np.zeros(1, int), np.zeros(1, int), np.array([2.0**24]))
    for _ in range(3):
        state = confusion.update(state, np.zeros(1, int), np.zeros(1, int))
    assert int(state.counts.high[0]) + int(state.counts.low[0]) == 2**24 + 3


def test_a_mean_of_numbers_of_all_sizes_is_rounded_once() -> None:
    values = (RNG.normal(size=40_000) * 10.0 ** RNG.integers(-6, 6, 40_000)).astype(np.float32)
    exact = np.float32(values.astype(np.float64).mean())
    metric = m.Mean()
    whole = metric.update(metric.reset(), values)
    state = metric.reset()
    for part in np.array_split(values, 7):
        state = metric.merge(metric.update(metric.reset(), part), state)
    for s in (whole, state):
        np.testing.assert_allclose(metric.result(s), exact, rtol=1.2e-7)
    np.testing.assert_array_equal(metric.result(whole), metric.result(state))
    assert abs(float(np.add.reduce(values.reshape(-1, 1), 0)[0] / np.float32(40_000)) / exact - 1) > 1.2e-7


def test_in_double_precision() -> None:
    with jax.enable_x64(True):
        metric = m.SparseCategoricalCrossentropy()
        value = metric(metric.reset(), P, Y, WEIGHTS)[1]
        assert value.dtype == np.float64
        np.testing.assert_allclose(value, cross_entropy(P, Y, WEIGHTS), rtol=1e-14)


def test_infinite_losses() -> None:
    metric = m.Mean()
    assert float(metric(metric.reset(), [1.0, np.inf, 2.0])[1]) == np.inf
    assert np.isnan(metric(metric.reset(), [np.inf, -np.inf])[1])
    assert np.isnan(metric(metric.reset(), [1.0, np.nan])[1])
    assert float(metric(metric.reset(), [1.0, np.nan, 4.0], [1, 0, 2])[1]) == 3.0


def test_sequences() -> None:
    z = RNG.normal(size=(3, 5, K)).astype(np.float32)
    y = RNG.integers(-1, K, (3, 5))
    keep = y >= 0
    perplexity = m.Perplexity(from_logits=True)
    lp = z - np.log(np.exp(z.astype(np.float64)).sum(-1, keepdims=True))
    expected = np.exp(-np.take_along_axis(lp, np.maximum(y, 0)[..., None], -1)[..., 0][keep].mean())
    for update in (perplexity.update, tg.jit(perplexity.update)):
        close(perplexity.result(update(perplexity.reset(), z, y, keep)), expected)


def test_labels_of_sequences_as_long_as_there_are_classes() -> None:
    labels, guess = Y.reshape(6, K), GUESS.reshape(6, K)
    metric = m.F1(K, "macro")
    close(metric(metric.reset(), guess, labels)[1], sk.f1_score(Y, GUESS, average="macro"))


def test_no_gradient_flows() -> None:
    def loss(p: Any) -> Any:
        values = []
        for metric, _, t, _ in CASES[:21]:
            if np.shape(t) in ((N,), (N, K)) and not isinstance(metric, (m.Accuracy, m.BinaryAccuracy)):
                q = p if metric.name != "BinaryCrossentropy" or np.ndim(t) == 2 else p[:, 0]
                values.append(tnp.sum(metric(metric.reset(), q, t.astype(int) if np.ndim(t) == 1 else t)[1]))
        return sum(values) + 0 * p.sum()

    gradient = tg.grad(loss)(P.astype(np.float32))
    assert (np.asarray(gradient) == 0).all()


def test_a_step_returns_the_state() -> None:
    """As it is used in training: the state goes in and out of a step, beside the gradient."""
    metric = m.SparseCategoricalAccuracy()

    @tg.jit
    def step(w: Any, state: Any, x: Any, y: Any) -> Any:
        def loss(w: Any) -> Any:
            logits = x @ w
            value = tg.nn.sparse_categorical_cross_entropy(logits, y, from_logits=True)
            return value, metric.update(state, logits, y)

        (_, state_), grads = tg.value_and_grad(loss, has_aux=True)(w)
        return w - 0.1 * grads, state_

    x = RNG.normal(size=(N, 3)).astype(np.float32)
    w, state, hits = np.zeros((3, K), np.float32), metric.reset(), 0.0
    for _ in range(3):
        hits += ((x @ np.asarray(w)).argmax(-1) == Y).mean()
        w, state = step(w, state, x, Y)
    close(metric.result(state), hits / 3)


# -- bad input

Z = LOGITS.astype(np.float32)
ACC = m.SparseCategoricalAccuracy()
BAD: list[tuple[type[Exception], list[str], Callable[[], Any]]] = [
    (ValueError, ["SparseCategoricalAccuracy.result", "no example", "update"], lambda: ACC.result(ACC.reset())),
    (ValueError, ["F1.result", "no example"], lambda: m.F1().result(m.F1().reset())),
    (ValueError, ["AUC.result"], lambda: m.AUC(capacity=3).result(m.AUC(capacity=3).reset())),
    (ValueError, ["Mean.result", "weights"], lambda: m.Mean()(m.Mean().reset(), [1.0], [0.0])),
    (ValueError, ["SparseCategoricalAccuracy.update", "(5,)", "(24,)"],
     lambda: ACC.update(ACC.reset(), Z, Y, np.ones(5))),
    (ValueError, ["targets[3] is 7", "4 classes", "weight of 0"], lambda: ACC.update(ACC.reset(), Z[:4], [0, 1, 2, 7])),
    (ValueError, ["targets[0] is -1"], lambda: m.Perplexity().update(ACC.reset(), P, Y - 1)),
    (ValueError, ["targets[0] is 2", "2 classes"], lambda: m.BinaryAccuracy().update(ACC.reset(), [0.5], [2])),
    (ValueError, ["predictions[0] is 9"], lambda: m.F1(3, "macro").update(m.F1(3, "macro").reset(), [9], [2])),
    (ValueError, ["one-hot", "CategoricalAccuracy", "argmax"], lambda: ACC.update(ACC.reset(), Z, HOT)),
    (ValueError, ["one-hot", "counts labels", "argmax(-1)"],
     lambda: m.F1(K, "macro").update(m.F1(K, None).reset(), HOT.astype(int), HOT.astype(int))),
    (ValueError, ["one-hot", "counts labels"],
     lambda: m.F1().update(m.F1().reset(), P[:, :2], np.eye(2, dtype=int)[BINARY])),
    (ValueError, ["integer predictions are labels"],
     lambda: m.F1(K, None).update(m.F1(K, None).reset(), HOT.astype(int), Y)),
    (ValueError, ["one-hot", "argmax(-1)"], lambda: m.F1(K, "macro").update(m.F1(K, None).reset(), Z, HOT.astype(int))),
    (ValueError, ["labels", "SparseCategoricalAccuracy", "one_hot"],
     lambda: m.CategoricalAccuracy().update(ACC.reset(), Z, Y)),
    (ValueError, ["SparseCategoricalCrossentropy"], lambda: m.CategoricalCrossentropy().update(ACC.reset(), P, Y)),
    (TypeError, ["f32[24]", "integers", "astype(int)"], lambda: ACC.update(ACC.reset(), Z, Y.astype(np.float32))),
    (ValueError, ["from_logits=True", "no probability"],
     lambda: m.SparseCategoricalCrossentropy().update(ACC.reset(), Z, Y)),
    (ValueError, ["from_logits=True"], lambda: m.AUC().update(m.AUC().reset(), Z[:, 0], BINARY)),
    (ValueError, ["(24, 1)", "(24,)", "every example"],
     lambda: m.MeanSquaredError().update(ACC.reset(), np.ones((24, 1)), np.ones(24))),
    (TypeError, ["Accuracy.update", "BinaryAccuracy"], lambda: m.Accuracy().update(ACC.reset(), SCORES, BINARY)),
    (ValueError, ["num_classes=4"], lambda: m.F1(3, "macro").update(m.F1(3, "macro").reset(), Z, Y)),
    (ValueError, ["binary", "macro"], lambda: m.F1(3)),
    (ValueError, ["average='mean'", "'macro'"], lambda: m.F1(3, "mean")),  # type: ignore[arg-type]
    (ValueError, ["k=0"], lambda: m.TopK(0)),
    (ValueError, ["capacity=20", "24 scores"],
     lambda: m.AUC(capacity=20).update(m.AUC(capacity=20).reset(), SCORES, BINARY)),
    (ValueError, ["the state is", "reset"], lambda: ACC.update(m.F1().reset(), Z, Y)),
    (ValueError, ["[(3,)", "num_classes=4"], lambda: m.F1(4, None).merge(m.F1(4, None).reset(), m.F1(3, None).reset())),
    (ValueError, ["state", "reset"], lambda: ACC.update(Z, Y, Y)),
    (ValueError, ["same on all devices"], lambda: tg.pmap(
        lambda x: ACC.all_reduce(ACC.reset(), "i"), "i")(np.ones(2))),
    (TypeError, ["Accuracy.update", "metric.update(state, prediction, target)", "reset"],
     lambda: ACC.update(Z, Y)),  # type: ignore[call-arg]
    (ValueError, ["normalize='rows'"], lambda: m.ConfusionMatrix(3, "rows")),  # type: ignore[arg-type]
]  # fmt: skip


@pytest.mark.parametrize("case", BAD, ids=lambda case: case[1][0])
def test_errors(case: Any) -> None:
    kind, words, call = case
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert "test_metrics.py" in message
    for word in words:
        assert word in message, message


@pytest.mark.parametrize(
    ("metric", "p", "t"),
    [
        (ACC, Z[:2], [0, 7]),
        (ACC, Z[:2] * np.nan, [0, 1]),
        (m.TopK(2), Z[:2], [0, -1]),
        (m.SparseCategoricalCrossentropy(), P[:2], [0, 4]),
        (m.SparseCategoricalCrossentropy(), Z[:2], [0, 1]),
        (m.BinaryAccuracy(), [0.1, 0.2], [0, 3]),
        (m.BinaryAccuracy(), [np.nan, 0.2], [0, 1]),
        (m.CategoricalAccuracy(), P[:2], np.array([[3, 0, 0, 0], [1, 0, 0, 0]])),
        (m.F1(K, "macro"), Z[:2], [0, 7]),
        (m.ConfusionMatrix(K), [0, 1], [0, -2]),
        (m.AUC(), [0.1, 0.2, 0.3], [0, 1, 7]),
        (m.AUC(), [0.1, 0.2, 1.3], [0, 1, 1]),
        (m.AUC(capacity=9), [0.1, 0.2, 0.3], [0, 1, 7]),
        (m.AUC(capacity=2), [0.1, 0.2, 0.3], [0, 1, 1]),
    ],
    ids=str,
)
def test_under_jit_what_cannot_be_is_nan(metric: Any, p: Any, t: Any) -> None:
    @tg.jit
    def measured(p: Any, t: Any, w: Any) -> Any:
        return metric.result(metric.update(metric.reset(), p, t, w))

    p, t = np.asarray(p, np.float32 if np.asarray(p).dtype.kind == "f" else np.int32), np.asarray(t)
    assert np.isnan(measured(p, t, np.ones(len(t)))).all()


@pytest.mark.parametrize("case", ONE_OF_A_KIND, ids=name)
def test_an_empty_batch_changes_nothing(case: Any) -> None:
    metric, (p, t), _, _ = prepared(case, False)
    state = metric.update(metric.reset(), p, t)
    same = metric.update(metric.update(metric.reset(), p[:0], t[:0]), p, t, np.ones(N, np.float32))
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(metric.update(same, p[:0], t[:0])), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="no example"):
        metric.result(metric.update(metric.reset(), p[:0], t[:0], np.ones(0)))


def test_an_ensemble() -> None:
    """Several models' predictions, with a state each."""
    for metric in (m.F1(K, "macro"), m.AUC(capacity=50), m.Mean()):
        p = {"F1": np.stack([GUESS, Y]), "AUC": np.stack([SCORES, 1 - SCORES]), "Mean": LOGITS[:2]}[metric.name]
        rest = {"F1": (Y,), "AUC": (BINARY,), "Mean": ()}[metric.name]
        one = lambda p, metric=metric, rest=rest: metric(metric.reset(), p, *rest)[1]  # noqa: E731
        np.testing.assert_array_equal(tg.vmap(one)(p), [one(row) for row in p])
