"""Losses against their formulas in NumPy, and their gradients at extreme logits."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import tracegrad as tg
from tests.reference import check_grads, x64
from tracegrad import nn

rng = np.random.default_rng(0)
LOGITS = rng.standard_normal((3, 4)) * 2
P = special.softmax(LOGITS, -1)
T = special.softmax(rng.standard_normal((3, 4)), -1)
LABELS = np.array([2, 0, 3])
ONE_HOT = np.eye(4)[LABELS]
SIGNS = np.sign(rng.standard_normal((3, 4)))
BITS = (SIGNS > 0) * 1.0
WEIGHTS = np.array([0.5, 0.0, 2.0])
CE = {"from_logits": True}


def smooth(t: Any, a: float, k: int) -> Any:
    return (1 - a) * t + a / k


def ce(p: Any, t: Any, a: float = 0.0) -> Any:
    return -(smooth(t, a, 4) * np.log(p)).sum(-1)


def softmax_ce(z: Any, t: Any, a: float = 0.0) -> Any:
    return -(smooth(t, a, 4) * special.log_softmax(z, -1)).sum(-1)


def pick(x: Any, labels: Any) -> Any:
    return x[np.arange(3), labels]


def bce(p: Any, t: Any) -> Any:
    return -(t * np.log(p) + (1 - t) * np.log(1 - p))


# The loss, its predictions and targets, its options, and its formula before the reduction.
CASES: list[tuple[Any, Any, Any, dict[str, Any], Any]] = [
    (nn.categorical_cross_entropy, P, T, {}, ce),
    (nn.categorical_cross_entropy, LOGITS, T, CE, softmax_ce),
    (nn.categorical_cross_entropy, LOGITS, T, {**CE, "label_smoothing": 0.2}, lambda z, t: softmax_ce(z, t, 0.2)),
    (nn.categorical_cross_entropy, P, T, {"label_smoothing": 0.2}, lambda p, t: ce(p, t, 0.2)),
    (nn.sparse_categorical_cross_entropy, P, LABELS, {}, lambda p, y: -np.log(pick(p, y))),
    (nn.sparse_categorical_cross_entropy, LOGITS, LABELS, CE, lambda z, y: softmax_ce(z, ONE_HOT)),
    (
        nn.sparse_categorical_cross_entropy,
        LOGITS,
        LABELS,
        {**CE, "label_smoothing": 0.3},
        lambda z, y: softmax_ce(z, ONE_HOT, 0.3),
    ),
    (nn.binary_cross_entropy, P, BITS, {}, bce),
    (nn.binary_cross_entropy, LOGITS, T, CE, lambda z, t: bce(special.expit(z), t)),
    (
        nn.binary_cross_entropy,
        LOGITS,
        BITS,
        {**CE, "label_smoothing": 0.1},
        lambda z, t: bce(special.expit(z), smooth(t, 0.1, 2)),
    ),
    (nn.nll, np.log(P), LABELS, {}, lambda p, y: -pick(p, y)),
    (nn.squared_error, LOGITS, T, {}, lambda p, t: (p - t) ** 2),
    (nn.absolute_error, LOGITS, T, {}, lambda p, t: np.abs(p - t)),
    (nn.huber, LOGITS, T, {}, lambda p, t: special.huber(1.0, p - t)),
    (nn.huber, LOGITS, T, {"delta": 0.4}, lambda p, t: special.huber(0.4, p - t)),
    (nn.hinge, LOGITS, SIGNS, {}, lambda p, t: np.maximum(0, 1 - p * t)),
]
IDS = [f"{i}-{c[0].__name__}" for i, c in enumerate(CASES)]


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
        plain = formula(p, t)
        w = np.broadcast_to(WEIGHTS.reshape(3, *[1] * (plain.ndim - 1)), plain.shape)
        return [plain, plain.sum(), plain.mean(), plain * w, (plain * w).sum() / w.sum()]

    with x64():
        for run in (each, tg.jit(each)):
            for actual, expected in zip(run(predictions, targets), reference(predictions, targets), strict=True):
                assert actual.dtype == expected.dtype
                np.testing.assert_allclose(actual, expected, rtol=1e-12)


def test_gradients() -> None:
    def every(pairs: Any) -> Any:
        return [loss(*xs, **c, weights=WEIGHTS) for xs, (loss, _, _, c, _) in zip(pairs, CASES, strict=True)]

    check_grads(every, [(p, t) for _, p, t, _, _ in CASES])


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_gradient_of_logits_is_prediction_minus_target(scale: float) -> None:
    z = (np.array([[1.0, -1.0, 0.5, 0.0], [-1.0, 1.0, -1.0, 1.0]]) * scale).astype(np.float32)
    t = np.eye(4, dtype=np.float32)[[0, 2]]
    expected = special.softmax(z.astype(np.float64), -1) - t
    for loss, targets in ((nn.categorical_cross_entropy, t), (nn.sparse_categorical_cross_entropy, np.array([0, 2]))):
        value, grad = tg.value_and_grad(lambda z: loss(z, targets, from_logits=True, reduction="sum"))(z)  # noqa: B023
        np.testing.assert_allclose(grad, expected, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(value, -(special.log_softmax(z.astype(np.float64), -1) * t).sum(), rtol=1e-6)
        second = tg.hessian(lambda z: loss(z, targets, from_logits=True, reduction="sum"))(z)  # noqa: B023
        assert np.isfinite(second).all()
    value, grad = tg.value_and_grad(lambda z: nn.binary_cross_entropy(z, t, from_logits=True, reduction="sum"))(z)
    np.testing.assert_allclose(grad, special.expit(z.astype(np.float64)) - t, rtol=1e-6, atol=1e-7)
    exact = np.logaddexp(0, z.astype(np.float64)) - z.astype(np.float64) * t
    np.testing.assert_allclose(value, exact.sum(), rtol=1e-6)


def test_small_losses_keep_their_digits() -> None:
    z = np.array([20.0], np.float32)
    np.testing.assert_allclose(nn.binary_cross_entropy(z, np.ones(1), from_logits=True), np.exp(-20.0), rtol=1e-5)


def test_zero_probability_of_a_class_that_is_not_the_target() -> None:
    p, t = np.array([[1.0, 0.0]], np.float32), np.array([[1.0, 0.0]], np.float32)
    value, grad = tg.value_and_grad(nn.categorical_cross_entropy)(p, t)
    assert float(value) == 0 and grad.tolist() == [[-1.0, 0.0]]
    value, grad = tg.value_and_grad(nn.binary_cross_entropy)(p, t)
    assert float(value) == 0 and np.isfinite(grad).all()
    z = np.array([[0.0, -np.inf]], np.float32)
    value, grad = tg.value_and_grad(lambda z: nn.categorical_cross_entropy(z, t, from_logits=True))(z)
    assert float(value) == 0 and grad.tolist() == [[0.0, 0.0]]


def test_all_weights_zero() -> None:
    zero = np.zeros(3, np.float32)
    value, grad = tg.value_and_grad(lambda z: nn.sparse_categorical_cross_entropy(z, LABELS, weights=zero, **CE))(
        LOGITS.astype(np.float32)
    )
    assert float(value) == 0 and (np.asarray(grad) == 0).all()


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
    np.testing.assert_allclose(float(out), reference[labels > 1].mean(), rtol=2e-2)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: nn.squared_error(np.ones((3, 1)), np.ones(3)),
            ["squared_error", "(3, 1)", "(3,)", "every example", "test_losses.py"],
        ),
        (lambda: nn.categorical_cross_entropy(LOGITS, LABELS, **CE), ["(3, 4)", "(3,)", "sparse_categorical"]),
        (lambda: nn.categorical_cross_entropy(P, T[:2]), ["(3, 4)", "(2, 4)", "test_losses.py"]),
        (lambda: nn.sparse_categorical_cross_entropy(LOGITS, T, **CE), ["integers", "categorical_cross_entropy"]),
        (lambda: nn.sparse_categorical_cross_entropy(LOGITS, LABELS[:2], **CE), ["(3, 4)", "(3,)", "(2,)"]),
        (lambda: nn.nll(LOGITS, LABELS[:2]), ["(3, 4)", "(3,)", "(2,)"]),
        (lambda: nn.hinge(LOGITS, SIGNS, reduction="avg"), ["hinge", "'avg'", "'mean'", "test_losses.py"]),
        (lambda: nn.squared_error(LOGITS, T, weights=np.ones(4)), ["(4,)", "(3, 4)", "(3,)", "test_losses.py"]),
    ],
)
def test_errors(call: Any, words: list[str]) -> None:
    with pytest.raises((ValueError, TypeError)) as info:
        call()
    for word in words:
        assert word in str(info.value)
