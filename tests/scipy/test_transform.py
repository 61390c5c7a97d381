"""`tracegrad.scipy.spatial.transform` against SciPy in value, and `jax.grad` and differences in derivatives."""

from __future__ import annotations

from typing import Any

import jax
import jax.scipy.spatial.transform as jtransform
import numpy as np
import pytest
import scipy.spatial.transform

import tracegrad as tg
from tests.reference import check_grads, check_message, check_value, x64
from tracegrad.scipy.spatial import transform
from tracegrad.scipy.spatial.transform import Rotation, Slerp

RNG = np.random.default_rng(9)
Q, V = RNG.normal(size=(3, 4)), RNG.normal(size=(3, 3))
MATRICES = scipy.spatial.transform.Rotation.from_quat(Q).as_matrix()
WEIGHTS = np.array([1.0, 2.0, 3.0])

# A name, a function over a module `transform`, and its arguments.
CASES: list[tuple[str, Any, tuple[Any, ...]]] = [
    ("quat", lambda m, q: (_q(m, q).as_quat(), _q(m, q).as_quat(canonical=True)), (Q,)),
    ("matrix", lambda m, q: _q(m, q).as_matrix(), (Q,)),
    ("one", lambda m, q: (_q(m, q).as_matrix(), _q(m, q).as_rotvec(), _q(m, q).magnitude()), (Q[0],)),
    ("mrp", lambda m, q: _q(m, q).as_mrp(), (Q,)),
    ("rotvec", lambda m, q: (_q(m, q).as_rotvec(), _q(m, q).as_rotvec(degrees=True)), (Q,)),
    ("magnitude", lambda m, q: _q(m, q).magnitude(), (Q,)),
    ("euler", lambda m, q: (_q(m, q).as_euler("xyz"), _q(m, q).as_euler("ZXZ", degrees=True)), (Q,)),
    ("apply", lambda m, q, v: (_q(m, q).apply(v), _q(m, q).apply(v, inverse=True)), (Q, V)),
    ("apply to all", lambda m, q, v: _q(m, q).apply(v), (Q[0], V)),
    ("inv", lambda m, q: _q(m, q).inv().as_matrix(), (Q,)),
    ("product", lambda m, q, p: (_q(m, q) * _q(m, p)).as_matrix(), (Q, Q[::-1])),
    ("mean", lambda m, q: (_q(m, q).mean().as_matrix(), _q(m, q).mean(WEIGHTS).as_matrix()), (Q,)),
    ("element", lambda m, q: _q(m, q)[1:].as_matrix(), (Q,)),
    ("concatenate", lambda m, q: m.Rotation.concatenate([_q(m, q), _q(m, q)[:1]]).as_matrix(), (Q,)),
    ("from euler", lambda m, v: m.Rotation.from_euler("xyx", v).as_matrix(), (V,)),
    ("from euler degrees", lambda m, v: m.Rotation.from_euler("ZX", v[:, :2], degrees=True).as_matrix(), (V,)),
    ("from one angle", lambda m, v: m.Rotation.from_euler("y", v[0, 0]).as_matrix(), (V,)),
    ("from rotvec", lambda m, v: m.Rotation.from_rotvec(v).as_matrix(), (V,)),
    ("from rotvec degrees", lambda m, v: m.Rotation.from_rotvec(v, degrees=True).as_matrix(), (V,)),
    ("from mrp", lambda m, v: m.Rotation.from_mrp(v).as_matrix(), (V,)),
    ("from matrix", lambda m, v: m.Rotation.from_matrix(v).as_matrix(), (MATRICES,)),
]


def _q(m: Any, q: Any) -> Any:
    return m.Rotation.from_quat(q)


@pytest.mark.parametrize(("name", "fn", "args"), CASES, ids=[c[0] for c in CASES])
def test_values_and_derivatives(name: str, fn: Any, args: tuple[Any, ...]) -> None:
    ours = lambda *xs: fn(transform, *xs)  # noqa: E731
    if name != "from matrix":  # SciPy makes its argument orthogonal first
        check_value(ours, lambda *xs: fn(scipy.spatial.transform, *xs), *args, only=("eager", "jit"))
    theirs = None if name == "concatenate" else lambda *xs: fn(jtransform, *xs)
    check_grads(ours, *args, jax_fn=theirs)


# Where a rotation turns nothing, or so little that a series is taken.
SMALL = [np.zeros(3), np.array([3e-4, -2e-4, 1e-4]), np.array([9.999e-4, 0.0, 0.0]), np.array([1.0001e-3, 0.0, 0.0])]


@pytest.mark.parametrize("vector", SMALL)
@pytest.mark.parametrize("degrees", [False, True])
def test_small_angles(vector: np.ndarray, degrees: bool) -> None:
    def there(m: Any, v: Any) -> Any:
        return m.Rotation.from_rotvec(v, degrees=degrees).as_quat()

    def and_back(v: Any) -> Any:
        return Rotation.from_rotvec(v, degrees=degrees).as_rotvec(degrees=degrees)

    check_value(lambda v: there(transform, v), lambda v: there(scipy.spatial.transform, v), vector)
    check_grads(lambda v: there(transform, v), vector)
    check_value(and_back, lambda v: v, vector)
    with x64():
        np.testing.assert_allclose(tg.jacobian(and_back)(vector), np.eye(3), atol=1e-9)
        np.testing.assert_allclose(tg.hessian(lambda v: and_back(v).sum())(vector), 0, atol=1e-6)


def test_the_mean_of_equal_rotations() -> None:
    """The other eigenvalues are equal, and the derivative of the greatest one's vector exists."""
    check_grads(lambda v: Rotation.from_rotvec(v).mean().as_matrix(), np.zeros((2, 3)), order=1)


def test_no_angle_has_a_derivative_of_zero() -> None:
    assert tg.grad(lambda v: Rotation.from_rotvec(v).magnitude())(np.zeros(3)).tolist() == [0.0, 0.0, 0.0]


KEYS = np.array([[90.0, 0.0, 0.0], [0.0, 45.0, 0.0], [0.0, 0.0, -30.0]])
TIMES = np.array([0.0, 0.25, 1.0, 1.5, 2.0])


def _between(m: Any, start: Any, keys: Any, times: Any) -> Any:
    rotations = m.Rotation.from_euler("zxy", keys, degrees=True)
    return getattr(m.Slerp, start)([0, 1, 2], rotations)(times).as_matrix()


def test_slerp() -> None:
    reference = lambda keys, times: scipy.spatial.transform.Slerp(  # noqa: E731
        [0, 1, 2], scipy.spatial.transform.Rotation.from_euler("zxy", keys, degrees=True)
    )(times).as_matrix()
    check_value(lambda *xs: _between(transform, "init", *xs), reference, KEYS, TIMES)
    ours, theirs = (lambda *xs, m=m: _between(m, "init", *xs) for m in (transform, jtransform))
    check_grads(ours, KEYS, TIMES[1:4:2], jax_fn=theirs)
    assert Slerp.init([0, 1, 2], Rotation.from_euler("zxy", KEYS))(0.5).single


def test_they_are_pytrees() -> None:
    r = Rotation.from_quat(Q)
    expected = scipy.spatial.transform.Rotation.from_quat(Q)
    squared = tg.jit(lambda r: r * r)(r)
    assert isinstance(squared, Rotation) and len(squared) == 3
    np.testing.assert_allclose(squared.as_matrix(), (expected * expected).as_matrix(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(tg.vmap(lambda r: r.as_rotvec())(r), expected.as_rotvec(), rtol=1e-5)
    slope = tg.grad(lambda r: r.as_matrix().sum())(r)
    assert isinstance(slope, Rotation) and slope.quat.shape == (3, 4)
    _, states = tg.scan(lambda c, v: (c * Rotation.from_rotvec(v), c.quat), Rotation.identity(), V.astype(np.float32))
    assert states.shape == (3, 4)


def test_identity_and_random() -> None:
    assert Rotation.identity().quat.tolist() == [0, 0, 0, 1] and Rotation.identity(2).quat.shape == (2, 4)
    vectors = Rotation.random(jax.random.key(0), 4000).apply(np.array([0.0, 0.0, 1.0]))
    np.testing.assert_allclose(np.mean(vectors, 0), 0, atol=0.04)
    np.testing.assert_allclose(np.cov(np.asarray(vectors).T), np.eye(3) / 3, atol=0.03)
    assert Rotation.random(jax.random.key(0)).single


R = Rotation.from_quat(Q)
BAD: list[tuple[Any, type[Exception], str]] = [
    (lambda: Rotation.from_euler("xxy", V), ValueError, r"Rotation.from_euler\('xxy'.*consecutive"),
    (lambda: Rotation.from_euler("abc", V), ValueError, r"Rotation.from_euler\('abc'"),
    (lambda: Rotation.from_euler("xyz", V[:, :2]), ValueError, r"Rotation.from_euler\('xyz', f32\[3,2\]"),
    (lambda: Rotation.from_quat(V), ValueError, r"Rotation.from_quat: quat is f32\[3,3\]"),
    (lambda: Rotation.from_matrix(Q), ValueError, r"Rotation.from_matrix: matrix is f32\[3,4\].*3, 3"),
    (lambda: Rotation.from_rotvec("v"), TypeError, "Rotation.from_rotvec: .*str 'v'"),
    (lambda: R.apply(Q), ValueError, r"Rotation.apply: vectors is f32\[3,4\]"),
    (lambda: R.apply(V[:2]), ValueError, r"Rotation.apply\(f32\[3,4\], f32\[2,3\]"),
    (lambda: R.as_euler("xy"), ValueError, r"Rotation.as_euler\(.*'xy'"),
    (lambda: R.mean(WEIGHTS[:2]), ValueError, r"Rotation.mean\("),
    (lambda: R[0][0], TypeError, "Rotation.__getitem__: a single rotation"),
    (lambda: len(R[0]), TypeError, "Rotation.__len__: a single rotation"),
    (lambda: Slerp.init([0, 1], R), ValueError, r"Slerp.init: times f32\[2\]"),
    (lambda: Slerp.init([0, 1], Q), TypeError, r"Slerp.init: rotations is f32\[3,4\]"),
    (lambda: Slerp.init([0, 1, 2], R)(V), ValueError, r"Slerp: times f32\[3,3\]"),
]


@pytest.mark.parametrize(("call", "kind", "pattern"), BAD)
def test_bad_arguments(call: Any, kind: type[Exception], pattern: str) -> None:
    check_message(call, kind, f"^{pattern}")
