"""`tracegrad.scipy.signal`, `fft`, `integrate`, `ndimage` and `cluster.vq` against SciPy and `jax.grad`."""

from __future__ import annotations

from typing import Any

import jax
import jax.scipy as jscipy
import numpy as np
import pytest
import scipy
import scipy.cluster
import scipy.ndimage

import tracegrad as tg
import tracegrad.numpy as tnp
from tests.reference import check_grads, check_message, check_value

RNG = np.random.default_rng(5)
X, Y = RNG.normal(size=32), RNG.normal(size=32)
Z = RNG.normal(size=12) + 1j * RNG.normal(size=12)
A, B = RNG.normal(size=(4, 5)), RNG.normal(size=(3, 2))
IMAGE, AT = RNG.normal(size=(4, 5)), RNG.uniform(-2, 6, size=(2, 7))
OBS, CODES = RNG.normal(size=(6, 3)), RNG.normal(size=(4, 3))
STFT = scipy.signal.stft(X, nperseg=8)[2]
WINDOW = RNG.uniform(0.5, 1.5, 8)
QUARTER: dict[str, Any] = {"nperseg": 8, "noverlap": 6}

# A name, a function over a package `scipy`, and its arguments.
CASES: list[tuple[str, Any, tuple[Any, ...]]] = [
    ("convolve", lambda m, x, y: [m.signal.convolve(x, y, mode) for mode in ("full", "same", "valid")], (A, B)),
    ("convolve fft", lambda m, x, y: m.signal.convolve(x, y, "same", "fft"), (A, B)),
    ("convolve complex", lambda m, x, y: (m.signal.convolve(x, y), m.signal.correlate(x, y, "same")), (Z, Z[:5])),
    ("fftconvolve", lambda m, x, y: m.signal.fftconvolve(x, y, "same"), (A, B)),
    ("fftconvolve axes", lambda m, x, y: m.signal.fftconvolve(x, y, axes=[1]), (A, A[:, :2])),
    ("convolve2d", lambda m, x, y: [m.signal.convolve2d(x, y, mode) for mode in ("full", "same", "valid")], (A, B)),
    ("correlate", lambda m, x, y: [m.signal.correlate(x, y, mode) for mode in ("full", "same", "valid")], (A, B)),
    ("correlate2d", lambda m, x, y: [m.signal.correlate2d(x, y, mode) for mode in ("full", "valid")], (A, B)),
    ("detrend", lambda m, x: (m.signal.detrend(x), m.signal.detrend(x, 0, "constant")), (A,)),
    ("detrend bends", lambda m, x: m.signal.detrend(x, bp=[8, 20]), (X,)),
    ("stft", lambda m, x: m.signal.stft(x, 2.0, nperseg=8), (X,)),
    ("stft kaiser", lambda m, x: m.signal.stft(x, window=("kaiser", 4.0), boundary="even", **QUARTER), (X,)),
    ("stft of a window", lambda m, x, w: m.signal.stft(x, window=w, detrend="linear", nperseg=8), (X, WINDOW)),
    ("istft", lambda m, x: m.signal.istft(x, 2.0), (STFT,)),
    ("csd", lambda m, x, y: m.signal.csd(x, y, nperseg=8, scaling="spectrum"), (X, Y)),
    ("welch", lambda m, x: m.signal.welch(x, 2.0, nperseg=8, average="median"), (X,)),
    ("welch function", lambda m, x: m.signal.welch(x, detrend=lambda d: d - d[:1], nperseg=8, axis=0), (X,)),
    ("dct", lambda m, x: (m.fft.dct(x), m.fft.dct(x, n=7, axis=0), m.fft.dct(x, norm="ortho")), (A,)),
    ("idct", lambda m, x: (m.fft.idct(x), m.fft.idct(x, n=3, axis=0), m.fft.idct(x, norm="ortho")), (A,)),
    ("dctn", lambda m, x: (m.fft.dctn(x), m.fft.dctn(x, s=[3, 6], axes=[0, 1]), m.fft.dctn(x, norm="ortho")), (A,)),
    ("idctn", lambda m, x: (m.fft.idctn(x), m.fft.idctn(x, axes=[1], norm="ortho")), (A,)),
    ("trapezoid", lambda m, x, y: (m.integrate.trapezoid(x, dx=0.5), m.integrate.trapezoid(y, x[0], axis=1)), (A, A)),
    ("vq", lambda m, x, y: m.cluster.vq.vq(x, y), (OBS, CODES)),
    ("vq of numbers", lambda m, x, y: m.cluster.vq.vq(x, y), (OBS[:, 0], CODES[:, 0])),
] + [
    (
        f"map_coordinates {mode}",
        lambda m, x, y, mode=mode: [m.ndimage.map_coordinates(x, y, order=order, mode=mode) for order in (0, 1)],
        (IMAGE, AT),
    )
    for mode in ("nearest", "mirror", "reflect")
]  # fmt: skip


@pytest.mark.parametrize(("fn", "args"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_values_and_derivatives(fn: Any, args: tuple[Any, ...]) -> None:
    check_value(lambda *xs: fn(tg.scipy, *xs), lambda *xs: fn(scipy, *xs), *args, rtol=1e-9, only=("eager", "jit"))
    check_grads(lambda *xs: fn(tg.scipy, *xs), *args, jax_fn=lambda *xs: fn(jscipy, *xs))


def test_what_scipy_has_no_twin_of() -> None:
    """JAX's "wrap" and "constant" interpolate beyond the edges, as SciPy's "grid-wrap" and "grid-constant" do."""
    for mode in ("wrap", "constant"):
        ours = lambda x, y, mode=mode: tg.scipy.ndimage.map_coordinates(x, y, 1, mode, 2.0)  # noqa: E731
        theirs = lambda x, y, mode=mode: scipy.ndimage.map_coordinates(  # noqa: E731
            x, y, order=1, mode=f"grid-{mode}", cval=2.0
        )
        check_value(ours, theirs, IMAGE, AT, only=("jit",))
        check_grads(ours, IMAGE, AT)
    check_grads(lambda fs: tg.scipy.signal.welch(X, fs, nperseg=8), 2.0)


def test_lists() -> None:
    assert tg.scipy.signal.convolve([1.0, 2.0], [1.0, 10.0]).tolist() == [1.0, 12.0, 20.0]
    assert tg.grad(lambda x: tg.scipy.signal.convolve([x, 2.0], [1.0, 10.0]).sum())(3.0) == 11.0
    assert tg.grad(lambda x: tg.scipy.ndimage.map_coordinates([0.0, 1.0, 4.0], [[x]], 1)[0])(1.5) == 3.0
    assert tg.scipy.cluster.vq.vq([[0.0, 1.0]], [[0.0, 3.0], [0.0, 2.0]])[0].tolist() == [1]


def test_a_distance_of_zero() -> None:
    """JAX's derivative is NaN where an observation is a code."""
    assert tg.grad(lambda x: tg.scipy.cluster.vq.vq(x, CODES)[1].sum())(CODES).tolist() == np.zeros((4, 3)).tolist()


def test_recorded_once(compiles: Any) -> None:
    f = tg.jit(tg.grad(lambda x: tg.scipy.fft.dct(x).sum()))
    f(np.ones(4, np.float32))
    compiles()
    f(np.zeros(4, np.float32))
    assert compiles() == 0
    text = str(tg.trace(lambda x: tg.scipy.fft.dct(x) + tg.scipy.fft.dct(x))(np.ones(4, np.float32)))
    assert text.count("call") == 2


def test_shapes_without_elements() -> None:
    assert tg.scipy.signal.welch(np.zeros(0))[1].shape == (0,)
    assert tg.scipy.ndimage.map_coordinates(IMAGE, np.zeros((2, 0)), 1).shape == (0,)


BAD: list[tuple[Any, type[Exception], str]] = [
    (lambda s: s.convolve(X, A), ValueError, r"^convolve\(f32\[32\], f32\[4,5\]\): "),
    (lambda s: s.convolve(X, Y, "middle"), ValueError, r"^convolve\(f32\[32\], f32\[32\], 'middle'\): "),
    (lambda s: s.convolve("x", X), TypeError, r"^convolve\('x', f32\[32\]\): "),
    (lambda s: s.convolve2d(A, B, boundary="wrap"), NotImplementedError, r"^convolve2d\(.*boundary='fill'"),
    (lambda s: s.fftconvolve(X, X, axes=4), ValueError, r"^fftconvolve\(.*axes=4\): axis 4"),
    (lambda s: s.detrend(X, type="middle"), ValueError, r"^detrend\(f32\[32\], type='middle'\): "),
    (lambda s: s.stft(X, window="middle", nperseg=8), ValueError, r"^stft\(.*middle"),
    (lambda s: s.stft(X, axis=3), ValueError, r"^stft\(f32\[32\], axis=3\): axis 3"),
    (lambda s: s.istft(X), ValueError, r"^istft\(f32\[32\]\): "),
    (lambda s: s.csd(X, Y, nperseg=8, average="middle"), ValueError, r"^csd\(.*average"),
    (lambda s: tg.scipy.fft.dct(X, 3), NotImplementedError, r"^dct\(f32\[32\], 3\): "),
    (lambda s: tg.scipy.ndimage.map_coordinates(IMAGE, AT, 3), NotImplementedError, r"^map_coordinates\(.*, 3\): "),
    (lambda s: tg.scipy.ndimage.map_coordinates(X, AT, 1), ValueError, r"^map_coordinates\("),
    (lambda s: tg.scipy.cluster.vq.vq(OBS, CODES[:, :2]), ValueError, r"^vq: observations f32\[6,3\] and codes"),
    (lambda s: tg.scipy.integrate.trapezoid(A, axis=3), ValueError, r"^trapezoid: axis 3"),
]


@pytest.mark.parametrize(("call", "kind", "pattern"), BAD)
def test_bad_arguments(call: Any, kind: type[Exception], pattern: str) -> None:
    check_message(lambda: call(tg.scipy.signal), kind, pattern)
    check_message(lambda: tg.grad(lambda one: (one, call(tg.scipy.signal)), has_aux=True)(1.0), kind, pattern)


def test_an_axis_must_be_known() -> None:
    pattern = r"^dct\(f32\[3\], axis=i32\[\]~\): .*traced value"
    check_message(lambda: tg.jit(lambda k: tg.scipy.fft.dct(tnp.ones(3), axis=k))(0), TypeError, pattern)


NAMES = "cluster.vq fft integrate interpolate ndimage optimize signal sparse.linalg spatial.transform"


@pytest.mark.parametrize("path", NAMES.split())
def test_every_name_of_jax(path: str) -> None:
    __import__(f"jax.scipy.{path}")
    ours: Any = tg.scipy
    theirs: Any = jax.scipy
    for part in path.split("."):
        ours, theirs = getattr(ours, part), getattr(theirs, part)
    names = {name for name in dir(theirs) if not name.startswith("_")}
    assert names == set(dir(ours))
    assert all(value.__doc__ and value.__module__.startswith("tracegrad") for value in map(vars(ours).get, names))
