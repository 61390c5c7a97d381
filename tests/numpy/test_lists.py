"""Lists of numbers, of arrays and of traced values, wherever NumPy's functions take an array."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tracegrad.errors import NotRecordedError, TracerError

from .test_values import CASES

NOT_AN_ARRAY = {"block": "the lists say how the blocks lie"}
"""Functions to which a nested list is not the array of its elements."""


class Listed:
    """A namespace whose functions are given, for each array, what `listed` makes of it."""

    def __init__(self, space: Any, listed: Callable[[Any], Any]) -> None:
        self.space, self.listed = space, listed

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.space, name)
        if name in ("linalg", "fft"):
            return Listed(found, self.listed)
        if not callable(found) or isinstance(found, type) or name in ("asarray", "array"):
            return found
        return lambda *args, **kwargs: found(*map(self.lists, args), **{k: self.lists(v) for k, v in kwargs.items()})

    def lists(self, value: Any) -> Any:
        if (
            not isinstance(value, tg.Tracer)
            and isinstance(value, (np.ndarray, jax.Array))
            and value.ndim
            and value.size
        ):
            return self.listed(np.asarray(value))
        return type(value)(map(self.lists, value)) if type(value) in (list, tuple) else value


def same(got: Any, want: Any, name: str) -> None:
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(np.asarray(a, complex), np.asarray(b, complex), 1e-4, 1e-5, err_msg=name)


ARRAYS = [(name, case) for name, case in CASES if name.split()[0] not in NOT_AN_ARRAY]


@pytest.mark.parametrize("group", range(8))
def test_a_list_is_the_array_of_its_elements(group: int) -> None:
    for name, case in ARRAYS[group::8]:
        same(case(Listed(tnp, lambda v: v.tolist())), case(tnp), name)


@pytest.mark.parametrize("group", range(8))
def test_so_is_a_list_of_traced_values(group: int) -> None:
    """Of rows through which a derivative flows, so that none may become an array of NumPy's on the way."""
    results: list[Any] = []

    def run(t: Any) -> Any:
        rows = lambda v: [tnp.asarray(r) * t if v.dtype.kind in "fc" else tnp.asarray(r) for r in v]  # noqa: E731
        found = [case(Listed(tnp, rows)) for _, case in ARRAYS[group::8]]
        results.append(jax.tree.map(lambda x: np.asarray(tg.stop_gradient(x)), found))
        return t

    tg.grad(run)(1.0)
    for (name, case), got in zip(ARRAYS[group::8], results[0], strict=True):
        same(got, case(tnp), name)


DERIVATIVES: dict[str, tuple[Callable[[Any], Any], float]] = {
    "mean": (lambda x: tnp.mean([x, x + 2]), 1.0),
    "std": (lambda x: tnp.std([x, 3 * x]), 1.0),
    "append": (lambda x: tnp.append([x], [x, 2 * x]).sum(), 4.0),
    "where": (lambda x: tnp.where([True, False], [x, x], [0.0, 5 * x]).sum(), 6.0),
    "concatenate": (lambda x: tnp.concatenate([[x, 1.0], [x]]).sum(), 2.0),
    "add": (lambda x: tnp.add([x, 2 * x], 1.0).sum(), 3.0),
    "operator": (lambda x: (x * [1.0, 2.0]).sum(), 3.0),
    "norm": (lambda x: tnp.linalg.norm([3 * x, 4 * x]), 5.0),
    "nested": (lambda x: tnp.sum([[x, 1.0], [2.0, x]]), 2.0),
    "dot": (lambda x: tnp.dot([x, 1.0], [2.0, x]), 3.0),
    "one traced argument": (lambda x: np.append(x, [x, 2.0]).sum(), 2.0),
}


@pytest.mark.parametrize("name", DERIVATIVES)
def test_derivatives(name: str) -> None:
    f, want = DERIVATIVES[name]
    for g in (tg.grad(f), tg.jit(tg.grad(f)), tg.grad(tg.jit(f))):
        np.testing.assert_allclose(g(1.5), want, rtol=1e-6)


def test_the_derivative_of_a_variance() -> None:
    f = lambda x: tnp.var([x, 3 * x, 2.0])  # noqa: E731
    step = 1e-2
    np.testing.assert_allclose(tg.grad(f)(1.5), (f(1.5 + step) - f(1.5 - step)) / (2 * step), rtol=1e-3)


WORDS: dict[str, Callable[[Any], Any]] = {
    "mean": lambda x: tnp.mean([x, "a"]),
    "amax": lambda x: tnp.amax([1.0, "a"]),
    "subtract": lambda x: tnp.subtract(x, [1.0, "a"]),
    "std": lambda x: tnp.std(["a"]),
    "concatenate": lambda x: tnp.concatenate([[x], ["a"]]),
    "norm": lambda x: tnp.linalg.norm(["a", 1.0]),
    "fft": lambda x: tnp.fft.fft(["a", 1.0]),
    "where": lambda x: tnp.where(True, [x, "a"], 0.0),
    "gammaln": lambda x: tg.scipy.special.gammaln(["a"]),
    "relu": lambda x: tg.nn.relu(["a", x]),
}


@pytest.mark.parametrize("name", WORDS)
def test_a_list_with_a_string_in_it(name: str) -> None:
    for run in (tg.grad(WORDS[name]), tg.jit(WORDS[name]), WORDS[name]):
        with pytest.raises(TypeError) as caught:
            run(1.5)
        message = str(caught.value)
        assert message.startswith(f"{name}: ") and "'a'" in message and "test_lists.py" in message, message


UNSEEN: dict[str, Callable[[Any], Any]] = {
    "numpy.mean": lambda x: np.mean([x, x + 2]),
    "numpy.append": lambda x: np.append([x], [x]).sum(),
    "numpy.where": lambda x: np.where([True], [x], [0.0]).sum(),
    "numpy.std": lambda x: np.std([x, 2 * x]),
    "numpy.add": lambda x: np.add([x, 1.0], 2.0).sum(),
    "numpy.linalg.norm": lambda x: np.linalg.norm([x, x]),
}


@pytest.mark.parametrize("name", UNSEEN)
def test_what_numpy_does_not_see_is_said(name: str) -> None:
    """NumPy looks for its protocol among the arguments, and not in lists."""
    for run, kind in ((tg.grad(UNSEEN[name]), NotRecordedError), (tg.jit(UNSEEN[name]), TracerError)):
        with pytest.raises(kind, match=f"use tracegrad.{name}, which takes such lists"):
            run(1.5)


# -- scalar types

SCALARS = "bool bool_ complex64 float16 float32 int8 int32 uint8 bfloat16 single csingle"


@pytest.mark.parametrize("name", SCALARS.split())
def test_a_scalar_type_is_a_cast(name: str) -> None:
    ours, theirs = getattr(tnp, name), getattr(jnp, name)
    for x in (2.7, np.array([1.5, -2.0], np.float32), 3):
        if not (name == "uint8" and np.ndim(x)):
            got, want = ours(x), theirs(x)
            assert got.dtype == want.dtype and isinstance(got, jax.Array)
            np.testing.assert_array_equal(got, want)
            np.testing.assert_array_equal(tg.jit(ours)(x), want)
    assert ours == theirs and theirs == ours and hash(ours) == hash(theirs) and np.dtype(ours) == np.dtype(theirs)
    assert jnp.zeros(2, ours).dtype == tnp.zeros(2, ours).dtype == np.ones(2).astype(ours).dtype


def test_a_scalar_type_has_a_derivative() -> None:
    assert float(tg.grad(lambda x: tnp.float32(x) * 3)(2.0)) == 3.0
    assert tg.grad(lambda x: tnp.float32([x, 2 * x]).sum())(np.float16(2.0)) == 3.0
    assert tg.grad(lambda x: (tnp.complex64(x) * (2 + 3j)).real)(2.0) == 2.0


@pytest.mark.parametrize("name", ["float32", "float64", "int64", "bool_", "complex64"])
def test_a_scalar_type_of_numpys_says_what_to_write(name: str) -> None:
    scalar = getattr(np, name)
    cast: Any = {"float32": lambda x: np.float32(x), "float64": lambda x: np.float64(x), "int64": lambda x: np.int64(x),
                 "bool_": lambda x: np.bool_(x), "complex64": lambda x: np.complex64(x)}[name]  # fmt: skip
    for run, kind in ((tg.grad(cast), NotRecordedError), (tg.jit(cast), TracerError)):
        with pytest.raises(kind, match=rf"write x.astype\(numpy.{name}\) or tracegrad.numpy.{name}\(x\)"):
            run(1.5)
    kept: list[Any] = []
    tg.grad(lambda x: (kept.append(scalar(tg.stop_gradient(x))), x)[1])(1.5)
    assert type(kept[0]) is scalar
