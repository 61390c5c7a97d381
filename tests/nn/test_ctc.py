"""ctc against the sum over all alignments, one by one."""

from __future__ import annotations

import itertools
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import tracegrad as tg
from tests.reference import check_grads, x64
from tracegrad import nn

rng = np.random.default_rng(0)


def read(alignment: tuple[int, ...], blank: int) -> list[int]:
    """Without repeats, then without blanks."""
    return [k for k, _ in itertools.groupby(alignment) if k != blank]


def brute_force(xp: Any, logits: Any, labels: list[int], blank: int = 0) -> Any:
    """-log of the sum of the probabilities of all alignments that are read as the labels, for one sequence."""
    frames, classes = logits.shape
    log_p = logits - xp.log(xp.exp(logits).sum(-1, keepdims=True))
    every = itertools.product(range(classes), repeat=frames)
    found = np.array([a for a in every if read(a, blank) == labels], int).reshape(-1, frames)
    if not len(found):
        return np.inf
    return -xp.log(xp.exp(log_p[np.arange(frames), found].sum(-1)).sum())


# Labels: with repeats, without, all the same, none, as many as fit, and more than fit.
CASES = [[1, 2], [1, 1], [2, 2, 2], [], [1, 2, 1, 2, 1], [1, 1, 1, 1], [2]]
LOGITS = rng.standard_normal((len(CASES), 5, 3)) * 2
PADDED = np.array([labels + [-1] * (5 - len(labels)) for labels in CASES])
COUNTS = np.array([len(labels) for labels in CASES])
FITS = np.array([len(labels) < 4 or labels[0] != labels[1] for labels in CASES])


def test_brute_force() -> None:
    expected = [brute_force(np, z, labels) for z, labels in zip(LOGITS, CASES, strict=True)]
    assert np.isinf(expected).tolist() == [False, False, False, False, False, True, False]
    with x64():
        for run in (nn.ctc, tg.jit(nn.ctc, static_argnames="reduction")):
            np.testing.assert_allclose(run(LOGITS, PADDED, reduction="none"), expected, rtol=1e-12)
            by_length = run(LOGITS, np.where(PADDED < 0, 1, PADDED), label_lengths=COUNTS, reduction="none")
            np.testing.assert_allclose(by_length, expected, rtol=1e-12)
        log_p = special.log_softmax(LOGITS, -1)
        np.testing.assert_allclose(nn.ctc(log_p, PADDED, reduction="none"), expected, rtol=1e-12)
        np.testing.assert_allclose(nn.ctc(LOGITS[FITS], PADDED[FITS]), np.mean(np.array(expected)[FITS]), rtol=1e-12)


def test_lengths_and_blank() -> None:
    lengths = np.array([5, 4, 5, 3, 5, 2, 1])
    expected = [brute_force(np, z[:t], labels) for z, labels, t in zip(LOGITS, CASES, lengths, strict=True)]
    with x64():
        actual = nn.ctc(LOGITS, PADDED, logit_lengths=lengths, reduction="none")
        np.testing.assert_allclose(actual, expected, rtol=1e-12)
        labels = [[0, 1], [1, 1, 0]]
        expected = [brute_force(np, z, y, 2) for z, y in zip(LOGITS, labels, strict=False)]
        padded = np.array([[0, 1, -1], [1, 1, 0]], np.int8)
        np.testing.assert_allclose(nn.ctc(LOGITS[:2], padded, blank=2, reduction="none"), expected, rtol=1e-12)


def test_gradients() -> None:
    labels = [labels for labels, fits in zip(CASES, FITS, strict=True) if fits]

    def reference(z: Any) -> Any:
        return jnp.stack([brute_force(jnp, x, y) for x, y in zip(z, labels, strict=True)])

    check_grads(lambda z: nn.ctc(z, PADDED[FITS], reduction="none"), LOGITS[FITS], jax_fn=reference)


def test_extremes() -> None:
    with x64():
        z = np.where(np.eye(3)[[1, 0, 2]] > 0, 1e4, -1e4)[None]  # the frames say 1, blank, 2
        for labels, value in (([1, 2], 0.0), ([2, 1], 4e4), ([1, -1], 2e4)):

            def loss(z: Any) -> Any:
                return nn.ctc(z, np.array([labels]))  # noqa: B023

            got, grad = tg.value_and_grad(loss)(z)
            assert float(got) == pytest.approx(value, abs=1e-12)
            assert np.isfinite(grad).all() and np.isfinite(tg.hvp(loss, (z,), (np.ones_like(z),))).all()
            np.testing.assert_allclose(np.sum(grad, -1), 0, atol=1e-12)
        # Too few frames: infinite, and nothing to learn from; the other sequences are as they would be alone.
        value, grad = tg.value_and_grad(lambda z: nn.ctc(z, PADDED, reduction="sum"))(LOGITS)
        alone = tg.grad(lambda z: nn.ctc(z, PADDED[FITS], reduction="sum"))(LOGITS[FITS])
        assert np.isinf(value) and (np.asarray(grad)[~FITS] == 0).all()
        np.testing.assert_allclose(np.asarray(grad)[FITS], alone, rtol=1e-12, atol=1e-15)
        # A class that cannot be.
        z = LOGITS[:1].copy()
        z[..., 2] = -np.inf
        value, grad = tg.value_and_grad(lambda z: nn.ctc(z, np.array([[1]])))(z)
        assert np.isfinite(value) and np.isfinite(grad).all()


def test_empty() -> None:
    with x64():
        none = np.zeros((0, 5, 3))
        value, grad = tg.value_and_grad(lambda z: nn.ctc(z, PADDED[:0], reduction="sum"))(none)
        assert float(value) == 0 and grad.shape == none.shape
        with pytest.raises(ValueError, match=r"ctc: the mean of no losses"):
            nn.ctc(none, PADDED[:0])
        assert nn.ctc(np.zeros((2, 0, 3)), np.array([[-1], [1]]), reduction="none").tolist() == [0, np.inf]
        expected = -special.log_softmax(LOGITS[0], -1)[:, 0].sum()
        np.testing.assert_allclose(nn.ctc(LOGITS[:1], np.zeros((1, 0), int)), expected, rtol=1e-12)


def test_half_precision() -> None:
    z = LOGITS[:1].astype(np.float16)
    loss, grad = tg.value_and_grad(lambda z: nn.ctc(z, PADDED[:1]))(z)
    assert loss.dtype == grad.dtype == np.float16
    np.testing.assert_allclose(float(loss), brute_force(np, LOGITS[0], CASES[0]), rtol=5e-3)


BAD: list[tuple[str, Any, dict[str, Any]]] = [
    (r"targets\[0, 1\] is 3", [[1, 3]], {}),
    (r"targets\[0, 1\] is 0", [[1, 0]], {}),
    (r"targets\[0, 1\] is 1", [[-1, 1]], {}),
    (r"targets\[0, 1\] is -1", [[1, -1]], {"label_lengths": np.array([2])}),
    (r"logit_lengths\[0\] is 9", [[1, 2]], {"logit_lengths": np.array([9])}),
    (r"label_lengths\[0\] is -1", [[1, 2]], {"label_lengths": np.array([-1])}),
]


@pytest.mark.parametrize(("pattern", "labels", "options"), BAD, ids=[b[0] for b in BAD])
def test_bad_values_are_an_error_and_nan_under_jit(pattern: str, labels: Any, options: Any) -> None:
    z, y = LOGITS[:1].astype(np.float32), np.array(labels)
    with pytest.raises(ValueError, match=rf"ctc: {pattern}.* at .*test_ctc.py.*\."):
        nn.ctc(z, y, **options)
    with pytest.raises(ValueError, match=rf"ctc: {pattern}"):
        tg.grad(lambda z, y: nn.ctc(z, y, **options))(z, y)
    value, grad = tg.jit(lambda z, y, o: tg.value_and_grad(lambda z: nn.ctc(z, y, **o))(z))(z, y, options)
    assert np.isnan(value) and np.isnan(grad).any()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: nn.ctc(LOGITS[0], PADDED), ["(5, 3)", "(N, T, K)"]),
        (lambda: nn.ctc(LOGITS, PADDED[0]), ["(5,)", "(N, S)"]),
        (lambda: nn.ctc(LOGITS, PADDED * 1.0), ["integers", "f32"]),
        (lambda: nn.ctc(LOGITS, "a"), ["targets is str 'a'"]),
        (lambda: nn.ctc(LOGITS, PADDED, blank=3), ["blank=3", "0 to 2"]),
        (lambda: nn.ctc(LOGITS, PADDED, logit_lengths=np.ones(3, int)), ["logit_lengths", "shape (7,)"]),
        (lambda: nn.ctc(LOGITS, PADDED, weights=np.ones(5)), ["weights", "(5,)", "(7,)"]),
    ],
)
def test_errors(call: Any, words: list[str]) -> None:
    with pytest.raises((ValueError, TypeError), match=r"^ctc: ") as info:
        call()
    for word in [*words, "test_ctc.py"]:
        assert word in str(info.value), str(info.value)
