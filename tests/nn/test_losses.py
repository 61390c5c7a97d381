"""Losses against their formulas in NumPy and JAX, and their derivatives at extreme and at special arguments."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import tracegrad as tg
import tracegrad.numpy as tnp
from tests.reference import check_grads, x64
from tracegrad import nn

rng = np.random.default_rng(0)
LOGITS = rng.standard_normal((3, 4)) * 2
P = special.softmax(LOGITS, -1)
Q = special.expit(LOGITS)
T = special.softmax(rng.standard_normal((3, 4)), -1)
OTHER = rng.standard_normal((3, 4))
LABELS = np.array([2, 0, 3])
ONE_HOT = np.eye(4)[LABELS]
SIGNS = np.sign(rng.standard_normal((3, 4)))
BITS = (SIGNS > 0) * 1.0
COUNTS = rng.integers(1, 5, (3, 4)) * 1.0
RATES = np.exp(LOGITS)
WEIGHTS = np.array([0.5, 0.0, 2.0])
CE = {"from_logits": True}


def smooth(t: Any, a: float, k: int) -> Any:
    return (1 - a) * t + a / k


def log_softmax(xp: Any, z: Any) -> Any:
    z = z - z.max(-1, keepdims=True)
    return z - xp.log(xp.exp(z).sum(-1, keepdims=True))


def ce(xp: Any, log_p: Any, t: Any, a: float = 0.0) -> Any:
    return -(smooth(t, a, 4) * log_p).sum(-1)


def bce(xp: Any, p: Any, t: Any) -> Any:
    return -(t * xp.log(p) + (1 - t) * xp.log(1 - p))


def sigmoid(xp: Any, z: Any) -> Any:
    return 1 / (1 + xp.exp(-z))


def huber(xp: Any, e: Any, delta: float) -> Any:
    return xp.where(abs(e) <= delta, e**2 / 2, delta * (abs(e) - delta / 2))


def focal(xp: Any, p: Any, t: Any, gamma: float, alpha: float) -> Any:
    right = t * p + (1 - t) * (1 - p)
    return (t * alpha + (1 - t) * (1 - alpha)) * (1 - right) ** gamma * bce(xp, p, t)


def svm(xp: Any, s: Any, y: Any, margin: float) -> Any:
    others = xp.maximum(0, s - s[np.arange(3), y][:, None] + margin)
    return (others * (1 - ONE_HOT)).sum(-1)


def cosine(xp: Any, p: Any, t: Any, axis: int = -1) -> Any:
    return 1 - (p * t).sum(axis) / xp.sqrt((p * p).sum(axis) * (t * t).sum(axis))


# The loss, its predictions and targets, its options, and its formula before the reduction, over NumPy or jax.numpy.
CASES: list[tuple[Any, Any, Any, dict[str, Any], Any]] = [
    (nn.categorical_cross_entropy, P, T, {}, lambda xp, p, t: ce(xp, xp.log(p), t)),
    (nn.categorical_cross_entropy, LOGITS, T, CE, lambda xp, z, t: ce(xp, log_softmax(xp, z), t)),
    (
        nn.categorical_cross_entropy,
        LOGITS,
        T,
        {**CE, "label_smoothing": 0.2},
        lambda xp, z, t: ce(xp, log_softmax(xp, z), t, 0.2),
    ),
    (nn.categorical_cross_entropy, P, T, {"label_smoothing": 0.2}, lambda xp, p, t: ce(xp, xp.log(p), t, 0.2)),
    (nn.sparse_categorical_cross_entropy, P, LABELS, {}, lambda xp, p, y: ce(xp, xp.log(p), ONE_HOT)),
    (nn.sparse_categorical_cross_entropy, LOGITS, LABELS, CE, lambda xp, z, y: ce(xp, log_softmax(xp, z), ONE_HOT)),
    (
        nn.sparse_categorical_cross_entropy,
        LOGITS,
        LABELS,
        {**CE, "label_smoothing": 0.3},
        lambda xp, z, y: ce(xp, log_softmax(xp, z), ONE_HOT, 0.3),
    ),
    (
        nn.sparse_categorical_cross_entropy,
        P,
        LABELS,
        {"label_smoothing": 0.3},
        lambda xp, p, y: ce(xp, xp.log(p), ONE_HOT, 0.3),
    ),
    (nn.binary_cross_entropy, Q, T, {}, bce),
    (nn.binary_cross_entropy, LOGITS, T, CE, lambda xp, z, t: bce(xp, sigmoid(xp, z), t)),
    (
        nn.binary_cross_entropy,
        LOGITS,
        BITS,
        {**CE, "label_smoothing": 0.1},
        lambda xp, z, t: bce(xp, sigmoid(xp, z), smooth(t, 0.1, 2)),
    ),
    (nn.focal, Q, T, {"gamma": 1.5, "alpha": 0.3}, lambda xp, p, t: focal(xp, p, t, 1.5, 0.3)),
    (nn.focal, LOGITS, T, CE, lambda xp, z, t: 2 * focal(xp, sigmoid(xp, z), t, 2.0, 0.5)),
    (nn.kl_divergence, P, T, {}, lambda xp, p, t: (t * (xp.log(t) - xp.log(p))).sum(-1)),
    (nn.kl_divergence, LOGITS, T, CE, lambda xp, z, t: (t * (xp.log(t) - log_softmax(xp, z))).sum(-1)),
    (nn.nll, np.log(P), LABELS, {}, lambda xp, p, y: ce(xp, p, ONE_HOT)),
    (nn.squared_error, LOGITS, T, {}, lambda xp, p, t: (p - t) ** 2),
    (nn.absolute_error, LOGITS, T, {}, lambda xp, p, t: abs(p - t)),
    (nn.huber, LOGITS, T, {}, lambda xp, p, t: huber(xp, p - t, 1.0)),
    (nn.huber, LOGITS, T, {"delta": 0.4}, lambda xp, p, t: huber(xp, p - t, 0.4)),
    (nn.cosine_distance, LOGITS, OTHER, {}, cosine),
    (nn.poisson_nll, RATES, COUNTS, {}, lambda xp, r, t: r - t * xp.log(r)),
    (nn.poisson_nll, LOGITS, COUNTS, {"log_input": True}, lambda xp, r, t: xp.exp(r) - t * r),
    (
        nn.gaussian_nll,
        LOGITS,
        OTHER,
        {"variance": RATES, "full": True},
        lambda xp, p, t: ((p - t) ** 2 / RATES + np.log(2 * np.pi * RATES)) / 2,
    ),
    (nn.hinge, LOGITS, SIGNS, {}, lambda xp, p, t: xp.maximum(0, 1 - p * t)),
    (nn.squared_hinge, LOGITS, SIGNS, {}, lambda xp, p, t: xp.maximum(0, 1 - p * t) ** 2),
    (nn.max_margin, LOGITS, OTHER, {"margin": 0.5}, lambda xp, p, t: xp.maximum(0, 0.5 + t - p)),
    (nn.multiclass_svm, LOGITS, LABELS, {"margin": 0.7}, lambda xp, s, y: svm(xp, s, y, 0.7)),
]
IDS = [f"{i}-{c[0].__name__}" for i, c in enumerate(CASES)]
FIXED = (nn.hinge, nn.squared_hinge)
"""Whose targets are -1 or 1, not numbers near these."""


@pytest.mark.parametrize(("loss", "predictions", "targets", "options", "formula"), CASES, ids=IDS)
def test_formula(loss: Any, predictions: Any, targets: Any, options: Any, formula: Any) -> None:
    def each(p: Any, t: Any) -> Any:
        return [
            loss(p, t, **options, reduction="none"),
            loss(p, t, **options, reduction="sum"),
            loss(p, t, **options),
            loss(p, t, **options, weights=WEIGHTS, reduction="none"),
            loss(p, t, **options, weights=WEIGHTS),
        ]

    def reference(p: Any, t: Any) -> Any:
        plain = formula(np, p, t)
        w = WEIGHTS.reshape(3, *[1] * (plain.ndim - 1))
        return [plain, plain.sum(), plain.mean(), plain * w, (plain * w).mean()]

    with x64():
        for run in (each, tg.jit(each)):
            for actual, expected in zip(run(predictions, targets), reference(predictions, targets), strict=True):
                assert actual.dtype == expected.dtype
                np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("part", range(3))
def test_gradients(part: int) -> None:
    """First and second, in predictions and targets, in float64, undecorated and jitted."""
    cases = CASES[part::3]
    given = [(p, np.asarray(t, int) if loss in FIXED else t) for loss, p, t, _, _ in cases]
    scale = np.array([0.5, 1.0, 2.0])

    def every(pairs: Any) -> Any:
        return [loss(*xs, **c, weights=scale) for xs, (loss, _, _, c, _) in zip(pairs, cases, strict=True)]

    def reference(pairs: Any) -> Any:
        plain = [formula(jnp, *xs) for xs, (*_, formula) in zip(pairs, cases, strict=True)]
        return [(x * scale.reshape(3, *[1] * (x.ndim - 1))).mean() for x in plain]

    check_grads(every, given, jax_fn=reference)


def test_triplet() -> None:
    a, p, n = (rng.standard_normal((5, 3)) for _ in range(3))

    def reference(xp: Any) -> Any:
        def loss(a: Any, p: Any, n: Any) -> Any:
            near, far = (xp.sqrt(((a - x) ** 2).sum(-1)) for x in (p, n))
            return [xp.maximum(0, near - far + 0.4), xp.maximum(0, near**2 - far**2 + 1).mean()]

        return loss

    def ours(a: Any, p: Any, n: Any) -> Any:
        return [nn.triplet(a, p, n, margin=0.4, reduction="none"), nn.triplet(a, p, n, squared=True)]

    with x64():
        for actual, expected in zip(ours(a, p, n), reference(np)(a, p, n), strict=True):
            np.testing.assert_allclose(actual, expected, rtol=1e-12)
    check_grads(ours, a, p, n, jax_fn=reference(jnp))


def test_likelihoods_are_those_of_scipy() -> None:
    with x64():
        poisson = nn.poisson_nll(RATES, COUNTS, full=True, reduction="none")
        np.testing.assert_allclose(poisson, -stats.poisson.logpmf(COUNTS, RATES), rtol=1e-12)
        np.testing.assert_allclose(
            nn.poisson_nll(LOGITS, COUNTS, log_input=True, full=True, reduction="none"), poisson, rtol=1e-12
        )
        normal = nn.gaussian_nll(LOGITS, OTHER, RATES, full=True, reduction="none")
        np.testing.assert_allclose(normal, -stats.norm.logpdf(OTHER, LOGITS, np.sqrt(RATES)), rtol=1e-12)
        row = RATES[:1]
        check_grads(lambda v: nn.gaussian_nll(LOGITS, OTHER, v), row)


def test_entropies_are_those_of_scipy() -> None:
    with x64():
        np.testing.assert_allclose(nn.kl_divergence(P, T), stats.entropy(T, P, axis=-1).mean(), rtol=1e-12)
        hard = nn.kl_divergence(P, ONE_HOT, reduction="none")
        np.testing.assert_allclose(hard, stats.entropy(ONE_HOT, P, axis=-1), rtol=1e-12)


# -- the gradient of logits


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_gradient_of_logits_is_prediction_minus_target(scale: float) -> None:
    z = (np.array([[1.0, -1.0, 0.5, 0.0], [-1.0, 1.0, -1.0, 1.0]]) * scale).astype(np.float32)
    t = np.eye(4, dtype=np.float32)[[0, 2]]
    expected = special.softmax(z.astype(np.float64), -1) - t
    value_of = -(special.log_softmax(z.astype(np.float64), -1) * t).sum()
    for loss, targets in (
        (nn.categorical_cross_entropy, t),
        (nn.sparse_categorical_cross_entropy, np.array([0, 2])),
        (nn.kl_divergence, t),
    ):

        def total(z: Any) -> Any:
            return loss(z, targets, from_logits=True, reduction="sum")  # noqa: B023

        value, grad = tg.value_and_grad(total)(z)
        np.testing.assert_allclose(grad, expected, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(value, value_of, rtol=1e-6)
        p = special.softmax(z.astype(np.float64), -1)
        second = np.einsum("ij,jk->ijk", p, np.eye(4)) - np.einsum("ij,ik->ijk", p, p)
        for i in range(2):
            np.testing.assert_allclose(tg.hessian(total)(z)[i, :, i], second[i], rtol=1e-5, atol=1e-6)
    value, grad = tg.value_and_grad(lambda z: nn.binary_cross_entropy(z, t, from_logits=True, reduction="sum"))(z)
    np.testing.assert_allclose(grad, special.expit(z.astype(np.float64)) - t, rtol=1e-6, atol=1e-7)
    exact = np.logaddexp(0, z.astype(np.float64)) - z.astype(np.float64) * t
    np.testing.assert_allclose(value, exact.sum(), rtol=1e-6)


@pytest.mark.parametrize(
    ("loss", "targets", "node"),
    [
        (nn.sparse_categorical_cross_entropy, LABELS, "softmax_minus_label"),
        (nn.categorical_cross_entropy, ONE_HOT, "softmax_minus_target"),
        (nn.binary_cross_entropy, BITS, "sigmoid_minus_target"),
    ],
)
def test_prediction_minus_target_is_one_node(loss: Any, targets: Any, node: str) -> None:
    def total(z: Any, t: Any) -> Any:
        return loss(z, t, from_logits=True, reduction="sum")

    tape = str(tg.trace(tg.grad(total))(LOGITS, targets))
    names = re.findall(r"= (\w+)", tape)
    assert names.count(node) == 1 and not {"exp", "softmax", "logistic", "sub"} & set(names), tape


# -- extreme arguments: value, gradient and second derivative


def derivatives(f: Any, x: Any) -> tuple[Any, Any, Any]:
    """Value, gradient, and the product of the Hessian with ones; undecorated and jitted are the same."""

    def all_of(x: Any) -> Any:
        return (*tg.value_and_grad(f)(x), tg.hvp(f, (x,), (np.ones_like(x),)))

    plain, jitted = all_of(x), tg.jit(all_of)(x)
    for a, b in zip(plain, jitted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-100)
    return plain


BIG = np.array([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4]])
TWO = np.array([0, 2])
HOT = np.eye(3)[TWO]
# At the points, what the value, the gradient and the Hessian times ones are, by hand.
EXTREMES: dict[str, tuple[Any, Any, Any, Any, Any]] = {
    "binary": (
        lambda z: nn.binary_cross_entropy(z, np.ones(3), **CE, reduction="sum"),
        [1e4, -1e4, 0.0], 1e4 + np.log(2), [0, -1, -0.5], [0, 0, 0.25],
    ),
    "focal": (
        lambda z: nn.focal(z, np.ones(2), **CE, reduction="sum"), [1e4, -1e4], 1e4, [0, -1], [0, 0],
    ),
    "focal, a root": (
        lambda z: nn.focal(z, np.ones(2), gamma=0.5, **CE, reduction="sum"), [1e4, -1e4], 1e4, [0, -1], [0, 0],
    ),
    "focal of certain probabilities": (
        lambda p: nn.focal(p, np.array([1.0, 0.0]), reduction="sum"), [1.0, 0.0], 0.0, [0, 0], [0, 0],
    ),
    "binary of certain probabilities": (
        lambda p: nn.binary_cross_entropy(p, np.array([1.0, 0.0]), reduction="sum"), [1.0, 0.0], 0.0, [-1, 1], [1, 1],
    ),
    "categorical of certain probabilities": (
        lambda p: nn.categorical_cross_entropy(p, np.array([1.0, 0.0])), [1.0, 0.0], 0.0, [-1, 0], [1, 0],
    ),
    "sparse of certain probabilities": (
        lambda p: nn.sparse_categorical_cross_entropy(p, np.array(0)), [1.0, 0.0], 0.0, [-1, 0], [1, 0],
    ),
    "kl of certain probabilities": (
        lambda p: nn.kl_divergence(p, np.array([1.0, 0.0])), [1.0, 0.0], 0.0, [-1, 0], [1, 0],
    ),
    "a class that cannot be": (
        lambda z: nn.categorical_cross_entropy(z, np.array([0.5, 0.5, 0.0]), **CE, reduction="sum"),
        [0.0, 0.0, -np.inf], np.log(2), [0, 0, 0], [0, 0, 0],
    ),
    "a class that cannot be, by label": (
        lambda z: nn.sparse_categorical_cross_entropy(z, np.array(0), **CE),
        [0.0, 0.0, -np.inf], np.log(2), [-0.5, 0.5, 0], [0, 0, 0],
    ),
    "hinge": (
        lambda s: nn.hinge(s, np.ones(3), reduction="sum"), [1e4, -1e4, 1.0], 1e4 + 1, [0, -1, 0], [0, 0, 0],
    ),
    "squared hinge": (
        lambda s: nn.squared_hinge(s, np.ones(3), reduction="sum"),
        [1e4, -1e4, 1.0], (1e4 + 1) ** 2, [0, -2 * (1e4 + 1), 0], [0, 2, 0],
    ),
    "max margin": (
        lambda s: nn.max_margin(s, np.zeros(3), reduction="sum"), [1e4, -1e4, 1.0], 1e4 + 1, [0, -1, 0], [0, 0, 0],
    ),
    "multiclass svm": (
        lambda s: nn.multiclass_svm(s, np.array(0)), [1e4, 1e4, -1e4], 1.0, [-1, 1, 0], [0, 0, 0],
    ),
    "squared error": (lambda x: nn.squared_error(x, np.zeros(2), reduction="sum"), [1e4, 0.0], 1e8, [2e4, 0], [2, 2]),
    "absolute error": (lambda x: nn.absolute_error(x, np.zeros(2), reduction="sum"), [-1e4, 0.0], 1e4, [-1, 0], [0, 0]),
    "huber": (lambda x: nn.huber(x, np.zeros(3), reduction="sum"), [1e4, 0.0, 0.5], 9999.625, [1, 0, 0.5], [0, 1, 1]),
    "poisson at 0": (lambda r: nn.poisson_nll(r, np.zeros(2), reduction="sum"), [0.0, 1e4], 1e4, [1, 1], [0, 0]),
    "poisson, logarithms": (
        lambda r: nn.poisson_nll(r, np.ones(2), log_input=True, reduction="sum"), [-1e4, 0.0], 1e4 + 1, [-1, 0], [0, 1],
    ),
    "gaussian": (
        lambda x: nn.gaussian_nll(x, np.zeros(2), 2.0, reduction="sum"),
        [1e4, 0.0], 1e8 / 4 + np.log(2), [5e3, 0], [0.5, 0.5],
    ),
    "cosine of nothing": (lambda x: nn.cosine_distance(x, np.ones(2)), [0.0, 0.0], 1.0, [0, 0], [0, 0]),
    "cosine of what is large and small": (
        lambda x: nn.cosine_distance(x[0], x[1]), [[1e200, 0.0], [0.0, 1e-100]], 1.0,
        [[0, -1e-200], [-1e100, 0]], [[0, 0], [1e200, 1e200]],
    ),
    "triplet, all the same": (
        lambda x: nn.triplet(x, np.zeros((1, 2)), np.zeros((1, 2))), np.zeros((1, 2)), 1.0, [[0, 0]], [[0, 0]],
    ),
    "triplet, far away": (
        lambda x: nn.triplet(x, np.zeros((1, 2)), np.zeros((1, 2))), [[3e200, 4e200]], 1.0, [[0, 0]], [[0, 0]],
    ),
    "l1 at 0": (lambda x: nn.l1([x]), [0.0, -2.0], 2.0, [0, -1], [0, 0]),
    "l2 at 0": (lambda x: nn.l2([x]), [0.0, -2.0], 4.0, [0, -4], [2, 2]),
}  # fmt: skip


@pytest.mark.parametrize("name", EXTREMES)
def test_extremes(name: str) -> None:
    f, x, value, grad, second = EXTREMES[name]
    with x64():
        found = derivatives(f, np.array(x))
        for actual, expected, atol in zip(found, (value, grad, second), (0, 1e-300, 1e-100), strict=True):
            np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=atol)


def test_small_losses_keep_their_digits() -> None:
    z = np.array([20.0], np.float32)
    np.testing.assert_allclose(nn.binary_cross_entropy(z, np.ones(1), from_logits=True), np.exp(-20.0), rtol=1e-5)
    np.testing.assert_allclose(nn.focal(z, np.ones(1), from_logits=True), np.exp(-60.0), rtol=1e-5)


EMPTY = np.zeros((0, 4))


def test_empty_batch() -> None:
    """Nothing sums to 0, with derivatives of its shape; it has no mean."""
    cases = [
        (loss, t[:0], {k: v[:0] if isinstance(v, np.ndarray) else v for k, v in options.items()})
        for loss, _, t, options, _ in CASES
    ]

    def total(x: Any) -> Any:
        return sum(loss(x, t, **options, reduction="sum") for loss, t, options in cases)

    with x64():
        value, grad, second = derivatives(total, EMPTY)
        assert float(value) == 0 and grad.shape == second.shape == EMPTY.shape
        for loss, t, options in cases:
            with pytest.raises(ValueError, match=r"the mean of no losses: .* at .*test_losses.py.* reduction='sum'"):
                tg.jit(lambda x: loss(x, t, **options))(EMPTY)  # noqa: B023


# -- weights, and rows that are left out


def test_a_weight_of_0_counts_nothing() -> None:
    zero = np.zeros(3, np.float32)
    value, grad = tg.value_and_grad(lambda z: nn.sparse_categorical_cross_entropy(z, LABELS, weights=zero, **CE))(
        LOGITS.astype(np.float32)
    )
    assert float(value) == 0 and (np.asarray(grad) == 0).all()
    p, t = np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([[0.0, 1.0], [1.0, 0.0]])
    value, grad = tg.value_and_grad(lambda p: nn.categorical_cross_entropy(p, t, weights=np.array([0.0, 1.0])))(p)
    np.testing.assert_allclose(value, np.log(2) / 2, rtol=1e-6)
    np.testing.assert_allclose(grad, [[0, 0], [-1, 0]], rtol=1e-6)


LABELLED: dict[str, tuple[Any, Any]] = {
    "sparse, logits": (lambda z, y, **o: nn.sparse_categorical_cross_entropy(z, y, **CE, **o), LOGITS),
    "sparse, smoothed": (
        lambda z, y, **o: nn.sparse_categorical_cross_entropy(z, y, **CE, label_smoothing=0.1, **o), LOGITS,
    ),
    "sparse, probabilities": (nn.sparse_categorical_cross_entropy, P),
    "nll": (nn.nll, np.log(P)),
    "multiclass svm": (nn.multiclass_svm, LOGITS),
}  # fmt: skip


@pytest.mark.parametrize("name", LABELLED)
def test_ignored_rows_are_not_there(name: str) -> None:
    """Value, gradient, second derivative and divisor are those of the other rows alone, whatever stands in the row."""
    loss, x = LABELLED[name]
    with x64():
        kept, w = np.array([0, 1, 3]), np.array([1.0, 2.0, 3.0, 0.5])
        for bad, label, options, scale in ((0.0, -1, {}, None), (np.nan, 1, {"ignore_index": 1}, w)):
            spoiled = np.concatenate([x[:2], np.full((1, 4), bad), x[2:]])
            y = np.array([2, 0, label, 3])
            few = None if scale is None else scale[kept]
            actual = derivatives(lambda x: loss(x, y, weights=scale, **options), spoiled)  # noqa: B023
            expected = derivatives(lambda x: loss(x, y[kept], weights=few), x)  # noqa: B023
            np.testing.assert_allclose(actual[0], expected[0], rtol=1e-14)
            for a, e in zip(actual[1:], expected[1:], strict=True):
                assert (np.asarray(a)[2] == 0).all()
                np.testing.assert_allclose(np.asarray(a)[kept], e, rtol=1e-13, atol=1e-16)
        value, grad, second = derivatives(lambda x: loss(x, np.full(3, -1)), x)
        assert float(value) == 0 and not np.any(grad) and not np.any(second)


@pytest.mark.parametrize("name", LABELLED)
def test_labels_out_of_range_are_nan_under_jit(name: str) -> None:
    loss, x = LABELLED[name]

    @tg.jit
    def run(x: Any, y: Any) -> Any:
        return (*tg.value_and_grad(lambda x: loss(x, y, reduction="sum"))(x), loss(x, y, reduction="none"))

    for dtype, label in ((np.int32, 4), (np.int8, -2), (np.uint8, 255), (np.int64, 2**31 - 1)):
        value, grad, each = run(x, np.array([2, label, 3]).astype(dtype))
        assert np.isnan(value) and np.isnan(each).tolist() == [False, True, False], dtype
        assert np.isnan(grad[1]).any() and np.isfinite(np.asarray(grad)[[0, 2]]).all()
        with pytest.raises(ValueError, match=rf"targets\[1\] is {label}.* from 0 to 3 at .*test_losses.py"):
            loss(x, np.array([2, label, 3]).astype(dtype))


def test_many_classes_and_narrow_labels() -> None:
    z = rng.standard_normal((2, 300)).astype(np.float32)
    y = np.array([5, 100], np.int8)
    expected = -special.log_softmax(z, -1)[[0, 1], y]
    for loss, x, options in (
        (nn.sparse_categorical_cross_entropy, z, CE),
        (nn.sparse_categorical_cross_entropy, special.softmax(z, -1), {}),
        (nn.nll, special.log_softmax(z, -1), {}),
    ):
        np.testing.assert_allclose(loss(x, y, **options, reduction="none"), expected, rtol=1e-5)
    assert nn.one_hot(y, 300).sum() == 2


def test_numbers_that_are_no_probabilities_are_nan_under_jit() -> None:
    z = LOGITS
    cases = [
        (nn.categorical_cross_entropy, T), (nn.sparse_categorical_cross_entropy, LABELS), (nn.kl_divergence, T),
        (nn.binary_cross_entropy, T), (nn.focal, T), (nn.nll, LABELS),
    ]  # fmt: skip
    for loss, targets in cases:
        value, grad = tg.jit(tg.value_and_grad(loss))(z, targets)
        assert np.isnan(value) and np.isnan(grad).any(), loss
    for f, x in (
        (lambda r: nn.poisson_nll(r, COUNTS), -RATES),
        (lambda v: nn.gaussian_nll(LOGITS, T, v), -RATES),
        (lambda v: nn.gaussian_nll(LOGITS, LOGITS, v), 0 * RATES),
    ):
        value, grad = tg.jit(tg.value_and_grad(f))(x)
        assert np.isnan(value) and np.isnan(grad).any()
    value, grad = tg.jit(tg.value_and_grad(nn.hinge))(LOGITS, BITS)
    assert np.isnan(value) and np.isnan(grad).any()


# -- what may be given


def test_sequences_and_half_precision() -> None:
    z = rng.standard_normal((2, 3, 5)).astype(jnp.bfloat16)
    labels = rng.integers(0, 5, (2, 3))
    out, grad = tg.jit(
        tg.value_and_grad(
            lambda z: nn.sparse_categorical_cross_entropy(z, labels, from_logits=True, weights=labels > 1)
        )
    )(z)
    assert out.dtype == grad.dtype == jnp.bfloat16 and grad.shape == z.shape
    reference = -np.take_along_axis(np.asarray(jax.nn.log_softmax(z.astype(np.float32))), labels[..., None], -1)[..., 0]
    np.testing.assert_allclose(float(out), (reference * (labels > 1)).mean(), rtol=2e-2)
    # More losses than half precision can count, of a sum that it cannot hold.
    many = nn.squared_error(np.full((300, 300), 4, np.float16), np.zeros((300, 300), np.float16))
    assert many.dtype == np.float16 and float(many) == 16


def test_lists_and_integers() -> None:
    assert float(nn.squared_error([1, 2], [1, 4])) == 2
    assert float(nn.squared_error([1.0, 2.0], [1.0, 4.0], weights=[1.0, 0.5])) == 1
    assert float(nn.sparse_categorical_cross_entropy([[0.5, 0.5]], [0])) == pytest.approx(np.log(2))
    grad = tg.grad(lambda x: nn.categorical_cross_entropy([x, 1 - x], [1, 0]))(0.25)
    assert float(grad) == -4


def test_axis_of_cosine_distance() -> None:
    with x64():
        actual = nn.cosine_distance(LOGITS, OTHER, axis=0, reduction="none")
        np.testing.assert_allclose(actual, cosine(np, LOGITS, OTHER, 0), rtol=1e-12)


def test_regularizers() -> None:
    params: Any = {
        "layers": [{"w": np.array([[1.0, -2.0]]), "b": np.array([3.0])},
                   {"kernel": np.array([4.0]), "bias": np.ones(1)}],
        "w1": np.array([5.0]), "b1": np.array([6.0]), "count": np.array([7]), "norm": {"scale": np.array([8.0])},
    }  # fmt: skip
    with x64():
        assert float(nn.l2(params, 0.5)) == 0.5 * (1 + 4 + 16 + 25 + 64)
        assert float(nn.l1(params, 2.0)) == 2 * (1 + 2 + 4 + 5 + 8)
        assert float(nn.l2(params, where=lambda path: path.startswith("layers/0/"))) == 1 + 4 + 9
        assert float(nn.l2({"in_bias": np.ones(1), "embedding": np.ones(1), "beta": np.ones(1)})) == 1
        del params["count"]
        grad = tg.grad(nn.l2)(params, 0.5)
        assert grad["layers"][0]["w"].tolist() == [[1, -2]] and grad["layers"][0]["b"].tolist() == [0]
        assert tg.grad(nn.l1)(params, 0.5)["layers"][0]["w"].tolist() == [[0.5, -0.5]]
        check_grads(lambda p, lam: [nn.l2(p, lam), nn.l1(p, lam)], params, 0.3)
    with pytest.raises(ValueError, match=r"l2: none of the parameters \['b'\] is penalized at .*test_losses.py"):
        nn.l2({"b": np.ones(2)})
    with pytest.raises(TypeError, match=r"l1: the parameter 'w' is str 'a'.* at .*test_losses.py"):
        nn.l1({"w": "a"})
    with pytest.raises(TypeError, match=r"where is str 'w'"):
        nn.l1({"w": np.ones(1)}, where="w")


# -- errors


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: nn.squared_error(np.ones((3, 1)), np.ones(3)), ["squared_error", "(3, 1)", "(3,)", "every example"]),
        (lambda: nn.categorical_cross_entropy(LOGITS, LABELS, **CE), ["(3, 4)", "(3,)", "sparse_categorical"]),
        (lambda: nn.categorical_cross_entropy(P, T[:2]), ["(3, 4)", "(2, 4)"]),
        (lambda: nn.categorical_cross_entropy(P, T, label_smoothing=2), ["label_smoothing", "0 to 1"]),
        (lambda: nn.categorical_cross_entropy(T, LOGITS, **CE), ["targets[", "(predictions, targets)"]),
        (lambda: nn.categorical_cross_entropy(LOGITS, T), ["predictions[", "from_logits=True"]),
        (lambda: nn.categorical_cross_entropy(np.ones(()), np.ones(())), ["()", "last axis"]),
        (lambda: nn.kl_divergence(LOGITS, T), ["predictions[", "from_logits=True"]),
        (lambda: nn.binary_cross_entropy(LOGITS, BITS), ["predictions[", "from_logits=True"]),
        (lambda: nn.binary_cross_entropy(LOGITS, SIGNS, **CE), ["targets[", "is -1.0", "at least 0 and at most 1"]),
        (lambda: nn.focal(LOGITS, BITS), ["focal", "predictions[", "from_logits=True"]),
        (lambda: nn.sparse_categorical_cross_entropy(LOGITS, LABELS), ["predictions[", "from_logits=True"]),
        (lambda: nn.sparse_categorical_cross_entropy(np.zeros((1, 2)), [7]), ["targets[0] is 7", "0 to 1", "leaves a"]),
        (lambda: nn.sparse_categorical_cross_entropy(LOGITS, T, **CE), ["integers", "categorical_cross_entropy"]),
        (
            lambda: nn.sparse_categorical_cross_entropy(LOGITS, ONE_HOT.astype(int), **CE),
            ["(3, 4)", "(3,)", "argmax", "categorical_cross_entropy"],
        ),
        (lambda: nn.sparse_categorical_cross_entropy(LOGITS, LABELS[:, None], **CE), ["(3, 1)", "labels[..., 0]"]),
        (lambda: nn.sparse_categorical_cross_entropy(LOGITS, LABELS[:2], **CE), ["(3, 4)", "(3,)", "(2,)"]),
        (lambda: nn.sparse_categorical_cross_entropy(np.ones(()), 0, **CE), ["()", "last axis"]),
        (lambda: nn.sparse_categorical_cross_entropy(LOGITS, [0, 1, -1], ignore_index=None, **CE), ["[2] is -1"]),
        (lambda: nn.sparse_categorical_cross_entropy(LOGITS, LABELS, ignore_index="a", **CE), ["ignore_index", "'a'"]),
        (lambda: nn.sparse_categorical_cross_entropy(LOGITS, "a", **CE), ["targets is str 'a'"]),
        (lambda: nn.sparse_categorical_cross_entropy("a", LABELS, **CE), ["predictions is str 'a'"]),
        (lambda: nn.nll(LOGITS, LABELS[:2]), ["(3, 4)", "(3,)", "(2,)"]),
        (lambda: nn.nll(LOGITS, LABELS), ["predictions[", "log_softmax", "sparse_categorical_cross_entropy"]),
        (lambda: nn.multiclass_svm(LOGITS, ONE_HOT), ["integers", "number of the class"]),
        (lambda: nn.hinge(LOGITS, BITS), ["hinge", "-1 or 1", "2 * t - 1"]),
        (lambda: nn.hinge(LOGITS, SIGNS, reduction="avg"), ["hinge", "'avg'", "'mean'"]),
        (lambda: nn.squared_error(LOGITS, T, weights=np.ones(4)), ["(4,)", "(3, 4)", "(3,)"]),
        (lambda: nn.squared_error(LOGITS, T, weights=np.ones((3, 1))), ["(3, 1)", "(3, 4)", "(3,)"]),
        (lambda: nn.squared_error(LOGITS, T, weights="a"), ["weights is str 'a'"]),
        (lambda: nn.poisson_nll(LOGITS, COUNTS), ["predictions[", "log_input=True"]),
        (lambda: nn.poisson_nll(RATES, LOGITS), ["targets[", "counts"]),
        (lambda: nn.gaussian_nll(LOGITS, T, 0.0), ["variance is 0.0", "exp"]),
        (lambda: nn.gaussian_nll(LOGITS, T, np.ones(3)), ["variance of shape (3,)", "(3, 4)"]),
        (lambda: nn.triplet(LOGITS, T, T[:2]), ["anchors", "negatives", "(2, 4)"]),
        (lambda: nn.max_margin(LOGITS, T[:, :1]), ["(3, 4)", "(3, 1)"]),
        (lambda: nn.cosine_distance(LOGITS, T, axis=2), ["axis 2", "2 axes"]),
    ],
)  # fmt: skip
def test_errors(call: Any, words: list[str]) -> None:
    with pytest.raises((ValueError, TypeError)) as info:
        call()
    for word in [*words, "test_losses.py"]:
        assert word in str(info.value), str(info.value)


def test_values_are_looked_at_where_they_are_known_only() -> None:
    bad = np.array([2, 9, 3])
    with pytest.raises(ValueError, match=r"targets\[1\] is 9"):  # An argument of an undecorated function has a value,
        tg.grad(lambda z, y: nn.sparse_categorical_cross_entropy(z, y, **CE))(LOGITS, bad)

    def computed(z: Any, y: Any) -> Any:  # and what it computes has none until something asks for it.
        return nn.sparse_categorical_cross_entropy(z, y + 0, **CE)

    assert np.isnan(tg.grad(computed)(LOGITS, bad)).any()
    with pytest.raises(ValueError, match=r"targets\[1\] is 9"):
        tg.jit(lambda z: nn.sparse_categorical_cross_entropy(z, bad, **CE))(LOGITS)
    tape = tg.trace(tg.grad(lambda z, y: nn.sparse_categorical_cross_entropy(z, y, **CE)))(LOGITS, LABELS)
    assert len(tape) <= 10, tape


def test_under_vmap_and_scan() -> None:
    z, y = LOGITS, np.array([2, -1, 3])
    with x64():
        each = tg.vmap(lambda z, y: nn.sparse_categorical_cross_entropy(z, y, **CE))(z, y)
        whole = nn.sparse_categorical_cross_entropy(z, y, **CE, reduction="none")
        np.testing.assert_allclose(each, whole, rtol=1e-12)
        total, _ = tg.scan(
            lambda c, x: (c + nn.sparse_categorical_cross_entropy(*x, **CE), None), 0.0, (z, tnp.array(y))
        )
        np.testing.assert_allclose(total, whole.sum(), rtol=1e-12)
