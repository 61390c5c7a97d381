"""Rotations in three dimensions, with the signatures of `jax.scipy.spatial.transform`.

Example:
  >>> import tracegrad as tg, tracegrad.numpy as np
  >>> def turned(angle):
  ...     rotation = tg.scipy.spatial.transform.Rotation.from_euler("z", angle)
  ...     return rotation.apply(np.array([1.0, 0.0, 0.0]))
  >>> tg.jacobian(turned)(0.0).tolist()
  [0.0, 1.0, 0.0]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax.scipy.spatial.transform as jtransform

from ... import numpy as tnp
from ... import random
from ...borrow import borrow
from ...errors import called, describe, here
from ...names import listed
from ...numpy.arguments import dtype_of, from_list, inexact, type_of
from ...numpy.creation import asarray


def _of_quaternions(name: str) -> Callable[..., Any]:
    """A method of JAX's, as a function of the quaternions; what it returns, as quaternions or another array."""
    method = getattr(jtransform.Rotation, name)

    def run(quat: Any, *args: Any) -> Any:
        result = method(jtransform.Rotation(quat), *args)
        return result.quat if isinstance(result, jtransform.Rotation) else result

    run.__name__ = name
    return borrow(run, f"`Rotation.{name}` of quaternions.", module=__name__)


def _to_quaternions(name: str) -> Callable[..., Any]:
    """A class method of JAX's, with the quaternions as its result."""
    make = getattr(jtransform.Rotation, name)

    def run(*args: Any) -> Any:
        return make(*args).quat

    run.__name__ = name
    return borrow(run, f"The quaternions of `Rotation.{name}`.", module=__name__)


_apply, _as_euler, _as_matrix, _as_mrp, _as_quat, _inv, _mean = (
    _of_quaternions(name) for name in ("apply", "as_euler", "as_matrix", "as_mrp", "as_quat", "inv", "mean")
)
_from_euler, _from_matrix, _from_mrp, _from_quat = (
    _to_quaternions(name) for name in ("from_euler", "from_matrix", "from_mrp", "from_quat")
)


def _product(p: Any, q: Any) -> Any:
    return (jtransform.Rotation(p) * jtransform.Rotation(q)).quat


_composed = borrow(_product, "The product of two quaternions.", module=__name__)

_SMALL = 1e-3
"""Up to this angle a series stands for a quotient with the angle, whose derivative is NaN at 0."""


class Rotation(NamedTuple):
    """A rotation, or an array of them, as unit quaternions. A pytree, so that it goes through every transform.

    Make it with one of the class methods that begin with `from_`, and compose two with `*`: `p * q` is first `q`,
    then `p`.

    Attributes:
      quat: an array `(..., 4)`, the scalar part last.
    """

    quat: Any

    @classmethod
    def concatenate(cls, rotations: Sequence[Rotation]) -> Rotation:
        """Several arrays of rotations as one."""
        return cls(tnp.concatenate([tnp.atleast_2d(rotation.quat) for rotation in rotations]))

    @classmethod
    def from_euler(cls, seq: str, angles: Any, degrees: bool = False) -> Rotation:
        """Rotations about one to three axes, one after the other.

        Args:
          seq: the axes: "x", "y", "z" where they are at rest, "X", "Y", "Z" where they turn along.
          angles: in the last axis, an angle for each; for one axis, an angle or an array of them.
          degrees: whether these are degrees.
        """
        return cls(_from_euler(seq, _floats(angles), bool(degrees)))

    @classmethod
    def from_matrix(cls, matrix: Any) -> Rotation:
        """Rotations from their matrices, `(..., 3, 3)`."""
        return cls(_from_matrix(_vectors(matrix, (3, 3), "matrix")))

    @classmethod
    def from_mrp(cls, mrp: Any) -> Rotation:
        """Rotations from their modified Rodrigues parameters, `(..., 3)`: the axis times the tangent of angle / 4."""
        return cls(_from_mrp(_vectors(mrp, (3,), "mrp")))

    @classmethod
    def from_quat(cls, quat: Any) -> Rotation:
        """Rotations from quaternions of any length but 0, `(..., 4)`, the scalar part last."""
        return cls(_from_quat(_vectors(quat, (4,), "quat")))

    @classmethod
    def from_rotvec(cls, rotvec: Any, degrees: bool = False) -> Rotation:
        """Rotations from vectors along the axis, as long as the angle, `(..., 3)`."""
        vector = _vectors(rotvec, (3,), "rotvec")
        if degrees:
            vector = tnp.deg2rad(vector)
        square = tnp.sum(vector * vector, -1, keepdims=True)
        small = square <= _SMALL**2
        angle = tnp.sqrt(tnp.where(small, 1.0, square))
        scale = tnp.where(small, 0.5 - square / 48 + square * square / 3840, tnp.sin(angle / 2) / angle)
        near = 1 - square / 8 + square * square / 384
        return cls(tnp.concatenate([scale * vector, tnp.where(small, near, tnp.cos(angle / 2))], -1))

    @classmethod
    def identity(cls, num: int | None = None, dtype: Any = float) -> Rotation:
        """The rotation that turns nothing, or `num` of them."""
        quat = tnp.array([0.0, 0.0, 0.0, 1.0], dtype_of(dtype))
        return cls(quat if num is None else tnp.tile(quat, (num, 1)))

    @classmethod
    def random(cls, random_key: Any, num: int | None = None) -> Rotation:
        """A random rotation, or `num` of them, each as likely as any other."""
        return cls.from_quat(random.normal(random_key, (4,) if num is None else (num, 4)))

    def __getitem__(self, indexer: Any) -> Rotation:  # type: ignore[override]
        if self.single:
            raise TypeError(f"{called()}: a single rotation has no elements {here()}")
        return Rotation(self.quat[indexer])

    def __len__(self) -> int:
        if self.single:
            raise TypeError(f"{called()}: a single rotation has no length {here()}")
        return int(self.quat.shape[0])

    def __mul__(self, other: Rotation) -> Rotation:  # type: ignore[override]
        if not isinstance(other, Rotation):
            return NotImplemented
        return Rotation(_from_quat(_composed(self.quat, other.quat)))

    def apply(self, vectors: Any, inverse: bool = False) -> Any:
        """Vectors `(..., 3)`, turned, or turned back."""
        return _apply(self.quat, _vectors(vectors, (3,), "vectors"), bool(inverse))

    def as_euler(self, seq: str, degrees: bool = False) -> Any:
        """The angles about three axes; see `from_euler`. Without derivative at a gimbal lock, where two axes agree."""
        return _as_euler(self.quat, seq, bool(degrees))

    def as_matrix(self) -> Any:
        """The matrices, `(..., 3, 3)`."""
        return _as_matrix(self.quat)

    def as_mrp(self) -> Any:
        """The modified Rodrigues parameters, `(..., 3)`."""
        return _as_mrp(self.quat)

    def as_rotvec(self, degrees: bool = False) -> Any:
        """The vectors along the axis, as long as the angle, at most half a turn."""
        quat = tnp.where(self.quat[..., 3:] < 0, -self.quat, self.quat)
        part, real = quat[..., :3], quat[..., 3:]
        square = tnp.sum(part * part, -1, keepdims=True)
        # The angle is 2 atan2(sine, real); near 0 by the series of 2 atan(sine / real) / sine.
        small = square <= _SMALL**2 / 4
        sine, cosine = tnp.sqrt(tnp.where(small, 1.0, square)), tnp.where(small, real, 1.0)
        tangent = square / (cosine * cosine)
        near = (2 - tangent * (2 / 3 - tangent * 2 / 5)) / cosine
        scale = tnp.where(small, near, 2 * tnp.arctan2(sine, real) / sine)
        return tnp.rad2deg(scale * part) if degrees else scale * part

    def as_quat(self, canonical: bool = False, scalar_first: bool = False) -> Any:
        """The quaternions.

        Args:
          canonical: whether to take of the two of a rotation the one whose scalar part is positive.
          scalar_first: whether to put that part first.
        """
        return _as_quat(self.quat, bool(canonical), bool(scalar_first))

    def inv(self) -> Rotation:
        """The rotations back."""
        return Rotation(_inv(self.quat))

    def magnitude(self) -> Any:
        """The angles, at most half a turn. The derivative is 0 where the angle is."""
        part, real = self.quat[..., :3], self.quat[..., 3]
        return 2 * tnp.arctan2(tnp.linalg.norm(part, axis=-1), tnp.abs(real))

    def mean(self, weights: Any = None) -> Rotation:
        """The rotation that is nearest to all.

        Args:
          weights: a number for each; 1 by default.
        """
        return Rotation(_mean(self.quat) if weights is None else _mean(self.quat, weights))

    @property
    def single(self) -> bool:
        """Whether this is one rotation, not an array."""
        return len(self.quat.shape) == 1


class Slerp(NamedTuple):
    """Rotations between given ones: at a steady speed along the shortest way from each to the next. A pytree.

    Make it with `Slerp.init(times, rotations)` and call it with times.
    """

    times: Any
    timedelta: Any
    rotations: Rotation
    rotvecs: Any

    @classmethod
    def init(cls, times: Any, rotations: Rotation) -> Slerp:
        """From times that increase and a rotation for each, two at least.

        Raises:
          TypeError: if `rotations` is no `Rotation`.
          ValueError: if there are not as many times, or fewer than two.
        """
        if not isinstance(rotations, Rotation):
            raise TypeError(f"{called()}: rotations is {describe(rotations)} {here()}. Give a Rotation.")
        times = asarray(from_list(times), rotations.quat.dtype)
        if rotations.single or len(rotations) < 2 or times.shape != (len(rotations),):
            raise ValueError(
                f"{called()}: times {describe(times)} for rotations {describe(rotations.quat)} {here()}. Give a time "
                "for each rotation, two at least."
            )
        first, last = Rotation(rotations.quat[:-1]), Rotation(rotations.quat[1:])
        return cls(times, times[1:] - times[:-1], first, (first.inv() * last).as_rotvec())

    def __call__(self, times: Any) -> Rotation:
        """The rotations at these times, a number or an array of one axis."""
        at = asarray(from_list(times), self.times.dtype)
        if len(at.shape) > 1:
            raise ValueError(f"{called()}: times {describe(at)} {here()} have more than one axis")
        where = tnp.clip(tnp.searchsorted(self.times, at) - 1, 0, len(self.rotations) - 1)
        share = (at - self.times[where]) / self.timedelta[where]
        start: Rotation = self.rotations[where]
        return start * Rotation.from_rotvec(self.rotvecs[where] * share[..., None])


def _floats(x: Any) -> Any:
    x = from_list(x)
    return inexact(x, type_of(x))


def _vectors(x: Any, shape: tuple[int, ...], name: str) -> Any:
    x = _floats(x)
    if type_of(x).shape[-len(shape) :] != shape:
        raise ValueError(
            f"{called()}: {name} is {describe(x)} {here()}, and must have a shape (..., {', '.join(map(str, shape))})."
        )
    return x


__all__ = ["Rotation", "Slerp"]

if not TYPE_CHECKING:
    __getattr__, __dir__ = listed(__name__)
