"""Fitted transforms against scikit-learn's, and augmentation against SciPy's images and written-out formulas."""

from __future__ import annotations

import pickle
from typing import Any

import jax
import numpy as np
import pytest
from scipy import ndimage, stats
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

import tracegrad as tg
from tracegrad.train import data

RNG = np.random.default_rng(5)
TRAIN = RNG.normal(size=(60, 4)) @ RNG.normal(size=(4, 4)) + [1, -20, 3, 0]
TEST = RNG.normal(size=(9, 4)) * 3
IMAGES = RNG.uniform(size=(6, 9, 12, 3)).astype(np.float32)
KEY = tg.random.key(3)

# -- fitted transforms


def test_agree_with_scikit_learn_in_double_precision() -> None:
    with jax.enable_x64(True):
        scaled, reference = data.normalize(TRAIN), StandardScaler().fit(TRAIN)
        np.testing.assert_allclose(scaled(TEST), reference.transform(TEST), rtol=1e-13)
        np.testing.assert_allclose(scaled.inverse(scaled(TEST)), TEST, rtol=1e-12, atol=1e-13)
        white, pca = data.whiten(TRAIN), PCA(whiten=True, svd_solver="full").fit(TRAIN)
        np.testing.assert_allclose(white(TEST), pca.transform(TEST), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(white.inverse(white(TEST)), TEST, rtol=1e-11, atol=1e-12)
        zca = data.whiten(TRAIN, "zca")
        np.testing.assert_allclose(zca(TEST), pca.transform(TEST) @ pca.components_, rtol=1e-10, atol=1e-11)
        np.testing.assert_allclose(zca.inverse(zca(TEST)), TEST, rtol=1e-11, atol=1e-12)
        np.testing.assert_allclose(data.mean_subtract(TRAIN)(TEST), TEST - TRAIN.mean(0), rtol=1e-13)


def test_features_that_do_not_vary() -> None:
    x = np.column_stack([TRAIN[:, 0], np.full(60, 0.1), np.zeros(60), np.full(60, 1e6 + 0.1)])
    scaled = data.normalize(x)
    assert scaled.scale.tolist()[0][1:] == [1, 1, 1]
    assert np.isfinite(scaled(x)).all() and np.isfinite(scaled(TEST)).all()
    # Rank 2 in 4 dimensions, and fewer examples than features: what is left is whitened, the rest is 0.
    flat = TRAIN[:, :2] @ RNG.normal(size=(2, 4))
    for x, rank in ((flat, 2), (TRAIN[:3], 2), (np.ones((5, 4)), 0)):
        white = data.whiten(x)(x)
        assert white.shape == x.shape
        np.testing.assert_allclose(np.cov(white.T), np.diag([1.0] * rank + [0] * (4 - rank)), atol=2e-5)
        zca = data.whiten(x, "zca")(x)
        np.testing.assert_allclose(np.linalg.eigvalsh(np.cov(zca.T)), [0] * (4 - rank) + [1.0] * rank, atol=2e-5)
        back = data.whiten(x).inverse(white)
        np.testing.assert_allclose(back, x, atol=1e-4)


def test_images_by_channel_in_jit_and_pickled() -> None:
    scaled = data.normalize(IMAGES, axis=(0, 1, 2))
    expected = (IMAGES - IMAGES.mean((0, 1, 2))) / IMAGES.std((0, 1, 2))
    np.testing.assert_allclose(tg.jit(lambda f, x: f(x))(scaled, IMAGES), expected, rtol=1e-4, atol=1e-5)
    again = pickle.loads(pickle.dumps(scaled))
    np.testing.assert_array_equal(again(IMAGES), scaled(IMAGES))
    gradient = tg.grad(lambda x: (data.whiten(TRAIN)(x) ** 2).sum())(TEST.astype(np.float32))
    white = PCA(whiten=True, svd_solver="full").fit(TRAIN)
    matrix = white.components_.T / np.sqrt(white.explained_variance_)
    np.testing.assert_allclose(gradient, 2 * white.transform(TEST) @ matrix.T, rtol=2e-4, atol=1e-4)


# -- mixup


def test_mixup() -> None:
    x, y = RNG.normal(size=(1_500, 2)).astype(np.float32), np.eye(5, dtype=np.float32)[RNG.integers(0, 5, 1_500)]
    number = np.arange(1_500, dtype=np.float32)
    for run in (data.mixup, tg.jit(data.mixup, static_argnums=3)):
        (mixed, where), labels = run(KEY, (x, number), y, 0.4)
        np.testing.assert_allclose(labels.sum(1), 1, rtol=1e-6)
        # The share of each: from what its label lost to that of another.
        full = np.eye(1_500, dtype=np.float32)
        _, shares = run(KEY, (x, number), full, 0.4)
        shares = np.asarray(shares)
        np.testing.assert_allclose(shares @ x, mixed, atol=1e-5)
        np.testing.assert_allclose(shares @ y, labels, atol=1e-5)
        np.testing.assert_allclose(shares @ number, where, rtol=1e-4, atol=1e-2)
        own = shares.diagonal()
        assert ((shares > 0).sum(1) <= 2).all() and stats.kstest(own[own < 1], stats.beta(0.4, 0.4).cdf).pvalue > 1e-3
        partners = (shares - np.diag(own)).argmax(1)[own < 1]
        assert len(set(partners)) == len(partners), "a permutation"


# -- images


def identity(x: Any) -> Any:
    return x


def test_flip() -> None:
    images = np.tile(IMAGES[:1], (200, 1, 1, 1))
    out = np.asarray(data.flip(KEY, images, horizontal=0.5, vertical=0.25))
    kinds = [IMAGES[0], IMAGES[0, :, ::-1], IMAGES[0, ::-1], IMAGES[0, ::-1, ::-1]]
    counts = [sum(bool((o == k).all()) for o in out) for k in kinds]
    assert sum(counts) == 200
    assert stats.chisquare(counts, [75, 75, 25, 25]).pvalue > 1e-3
    np.testing.assert_array_equal(data.flip(KEY, IMAGES, horizontal=0.0), IMAGES)
    assert data.flip(KEY, (IMAGES * 255).astype(np.uint8), horizontal=1.0).dtype == np.uint8


def test_translate() -> None:
    images = np.tile(IMAGES[:1], (300, 1, 1, 1))
    out = np.asarray(data.translate(KEY, images, (1, 2), fill=-1.0))
    expected = {
        (dy, dx): ndimage.shift(IMAGES[0], (dy, dx, 0), order=0, cval=-1.0) for dy in (-1, 0, 1) for dx in range(-2, 3)
    }
    counts = [sum(bool((o == e).all()) for o in out) for e in expected.values()]
    assert sum(counts) == 300
    assert stats.chisquare(counts).pvalue > 1e-3
    small = (IMAGES * 255).astype(np.uint8)
    assert data.translate(KEY, small, 20).dtype == np.uint8  # farther than the image is wide


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.0, 1.7])
def test_scale(factor: float) -> None:
    out = data.scale(KEY, IMAGES, (factor, factor), fill=0.25)
    centre = (np.array(IMAGES.shape[1:3]) - 1) / 2
    matrix = np.diag([1 / factor, 1 / factor])
    for image, o in zip(IMAGES, np.asarray(out), strict=True):
        for c in range(3):
            expected = ndimage.affine_transform(
                image[..., c], matrix, centre - matrix @ centre, order=1, mode="grid-constant", cval=0.25
            )
            np.testing.assert_allclose(o[..., c], expected, atol=2e-5)


@pytest.mark.parametrize("degrees", [-90.0, 0.0, 30.0, 90.0, 180.0])
def test_rotate(degrees: float) -> None:
    out = np.asarray(data.rotate(KEY, IMAGES, (degrees, degrees)))
    for image, o in zip(IMAGES, out, strict=True):
        expected = ndimage.rotate(image, degrees, axes=(0, 1), reshape=False, order=1, mode="grid-constant")
        np.testing.assert_allclose(o, expected, atol=2e-5)
    square = IMAGES[:, :, :9]
    np.testing.assert_allclose(data.rotate(KEY, square, (90, 90)), np.rot90(square, axes=(1, 2)), atol=2e-5)


def test_each_image_has_a_number_of_its_own_in_the_range() -> None:
    white = np.ones((400, 41, 41, 1), np.float32)
    sizes = np.sqrt(np.asarray(data.scale(KEY, white, (0.3, 0.9))).sum((1, 2, 3))) / 41
    assert stats.kstest(sizes, stats.uniform(0.3, 0.6).cdf).statistic < 0.1
    line = np.zeros((400, 41, 41, 1), np.float32)
    line[:, 20, 21:] = 1
    turned = np.asarray(data.rotate(KEY, line, 40.0))[..., 0]
    y, x = np.mgrid[20:-21:-1, -20:21]
    angles = np.degrees(np.arctan2((turned * y).sum((1, 2)), (turned * x).sum((1, 2))))
    assert stats.kstest(angles, stats.uniform(-40, 80).cdf).pvalue > 1e-3


def test_colour() -> None:
    grey = IMAGES @ np.array([0.299, 0.587, 0.114], np.float32)
    only = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0}
    for name, f, expected in (
        ("brightness", 1.5, np.clip(IMAGES * 1.5, 0, 1)),
        ("contrast", 0.5, 0.5 * IMAGES + 0.5 * grey.mean((1, 2))[:, None, None, None]),
        ("contrast", 0.0, np.broadcast_to(grey.mean((1, 2))[:, None, None, None], IMAGES.shape)),
        ("saturation", 1.8, np.clip(1.8 * IMAGES - 0.8 * grey[..., None], 0, 1)),
        ("saturation", 0.0, np.repeat(grey[..., None], 3, -1)),
    ):
        out = data.colour(KEY, IMAGES, **{**only, name: (f, f)})
        np.testing.assert_allclose(out, expected, atol=1e-6)
    np.testing.assert_array_equal(data.colour(KEY, IMAGES, **only), IMAGES)
    flat = np.full((500, 2, 2, 1), 0.5, np.float32)
    factors = np.asarray(data.colour(KEY, flat, **{**only, "brightness": 0.4}, bounds=None))[:, 0, 0, 0] / 0.5
    assert stats.kstest(factors, stats.uniform(0.6, 0.8).cdf).pvalue > 1e-3


def test_jitted_over_devices_with_gradients_and_half_precision() -> None:
    def augmented(key: Any, x: Any) -> Any:
        keys = tg.random.split(key, 5)
        x = data.flip(keys[0], x)
        x = data.translate(keys[1], x, 2)
        x = data.scale(keys[2], x)
        return data.colour(keys[3], data.rotate(keys[4], x))

    plain = augmented(KEY, IMAGES)
    np.testing.assert_allclose(tg.jit(augmented)(KEY, IMAGES), plain, atol=1e-5)
    keys = tg.random.split(KEY, 2)
    halves = tg.pmap(augmented, "i")(keys, IMAGES.reshape(2, 3, 9, 12, 3))
    for half, key, images in zip(halves, keys, (IMAGES[:3], IMAGES[3:]), strict=True):
        np.testing.assert_allclose(half, augmented(key, images), atol=1e-5)
    assert augmented(KEY, IMAGES.astype(jax.numpy.bfloat16)).dtype == jax.numpy.bfloat16
    cotangent = RNG.normal(size=IMAGES.shape).astype(np.float32)

    def linear(x: Any) -> Any:
        return (data.rotate(KEY, data.scale(KEY, data.translate(KEY, x))) * cotangent).sum()

    # It is linear in the images, so that its gradient times another image is its value there.
    np.testing.assert_allclose((tg.grad(linear)(IMAGES) * cotangent).sum(), linear(cotangent), rtol=1e-3)


BAD: list[tuple[type[Exception], str, Any]] = [
    (TypeError, r"mixup: y is i(32|64)\[6\].*one_hot", lambda: data.mixup(KEY, IMAGES, np.arange(6))),
    (TypeError, "mixup: x is u8", lambda: data.mixup(KEY, (IMAGES * 9).astype(np.uint8), np.eye(6))),
    (ValueError, r"\(6, 9, 12, 3\) and y of shape \(5, 5\)", lambda: data.mixup(KEY, IMAGES, np.eye(5))),
    (ValueError, "mixup: alpha=0", lambda: data.mixup(KEY, IMAGES, np.eye(6), 0)),
    (TypeError, "flip: key", lambda: data.flip(3, IMAGES)),
    (ValueError, "flip: images of shape", lambda: data.flip(KEY, IMAGES[0])),
    (ValueError, "flip: horizontal=2", lambda: data.flip(KEY, IMAGES, horizontal=2)),
    (ValueError, "translate: pixels=-1", lambda: data.translate(KEY, IMAGES, -1)),
    (TypeError, "rotate: the images are u8", lambda: data.rotate(KEY, (IMAGES * 255).astype(np.uint8))),
    (ValueError, "scale: factor=.*positive", lambda: data.scale(KEY, IMAGES, (0, 1))),
    (ValueError, "scale: factor=.*least and the greatest", lambda: data.scale(KEY, IMAGES, (2, 1))),
    (ValueError, "colour: images of shape", lambda: data.colour(KEY, IMAGES[..., :2])),
    (ValueError, "colour: contrast=3", lambda: data.colour(KEY, IMAGES, contrast=3)),
    (ValueError, "whiten: method='PCA'", lambda: data.whiten(TRAIN, "PCA")),  # type: ignore[arg-type]
    (ValueError, r"whiten: data of shape \(6, 9, 12, 3\).*reshape", lambda: data.whiten(IMAGES)),
    (ValueError, "whiten: data of shape", lambda: data.whiten(TRAIN[:1])),
    (ValueError, "normalize: data of shape", lambda: data.normalize(TRAIN[:0])),
    (ValueError, "normalize: axis 4", lambda: data.normalize(TRAIN, 4)),
    (ValueError, "mean_subtract: .*1 numbers that are NaN", lambda: data.mean_subtract(np.array([1.0, np.nan]))),
    (TypeError, "normalize: .*traced value.*pytree", lambda: tg.jit(lambda x: data.normalize(x)(x))(TRAIN)),
    (ValueError, r"data of shape \(9, 3\).*\(any, 4\)", lambda: data.normalize(TRAIN)(TEST[:, :3])),
    (ValueError, r"data of shape \(9, 3\).*4 features", lambda: data.whiten(TRAIN)(TEST[:, :3])),
]


@pytest.mark.parametrize("case", BAD, ids=lambda case: case[1])
def test_errors(case: Any) -> None:
    kind, words, call = case
    with pytest.raises(kind, match=words) as caught:
        call()
    assert "test_transforms.py" in str(caught.value)
