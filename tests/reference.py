"""Comparison of values and derivatives with references from outside the package."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp

_TOLERANCE = {"float64": 1e-10, "complex128": 1e-10, "float32": 2e-5, "complex64": 2e-5, "float16": 2e-2}
_EPS = 1e-5


def in_groups(cases: Sequence[tuple[str, Any]], size: int = 24) -> Any:
    """Parametrizes a test by lists of named cases, as `group`."""
    groups = [cases[i : i + size] for i in range(0, len(cases), size)]
    names = [f"{group[0][0]}..{group[-1][0]}".replace(" ", "_") for group in groups]
    return pytest.mark.parametrize("group", groups, ids=names)


def together(check: Callable[[list[Any]], None], cases: Sequence[tuple[str, Any]]) -> None:
    """Checks named cases at once, so that they compile once; if that fails, one by one, to tell which is wrong."""
    try:
        check([case for _, case in cases])
    except Exception as error:
        for name, case in cases:
            try:
                check([case])
            except Exception as alone:
                raise AssertionError(f"{name}: {alone}") from alone
        raise AssertionError("no case fails by itself, all together do") from error


def check_group(group: Sequence[tuple[str, Any]], one: Any, **options: Any) -> None:
    """Compares named cases, functions of an array namespace, over tracegrad.numpy with the same over NumPy."""

    def check(cases: list[Any]) -> None:
        check_value(lambda one: [c(tnp) for c in cases], lambda one: [c(np) for c in cases], one, **options)

    together(check, group)


def check_message(call: Callable[[], Any], kind: type[Exception], pattern: str) -> None:
    """`call` raises an error of this kind, whose message contains the pattern and names a line of the caller's file."""
    with pytest.raises(kind) as caught:
        call()
    text = str(caught.value).replace("\n", " ")
    assert re.search(pattern, text), text
    file = os.path.basename(sys._getframe(1).f_code.co_filename)
    assert re.search(rf"{re.escape(file)}:\d+", text), text


def x64(on: bool = True) -> Any:
    """A context in which JAX keeps 64-bit types (or not)."""
    return jax.enable_x64(on)


def modes(fn: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    """`fn` as it runs eagerly, inside an undecorated recording, and under `@jit`.

    Arguments that are not arrays or floats (an axis, a name) are static.
    """

    def undecorated(*args: Any, **kwargs: Any) -> Any:
        return tg.grad(lambda one: (one, fn(*args, **kwargs)), has_aux=True)(1.0)[1]

    def recorded_arguments(*args: Any) -> Any:
        leaves, rest = _split(args)
        return tg.grad(lambda one, leaves: (one, fn(*rest(leaves))), has_aux=True)(1.0, leaves)[1]

    def jitted(*args: Any) -> Any:
        leaves, rest = _split(args)
        return tg.jit(lambda leaves: fn(*rest(leaves)))(leaves)

    return {"eager": fn, "undecorated": recorded_arguments, "closed over": undecorated, "jit": jitted}


def _is_array(x: Any) -> bool:
    return isinstance(x, np.ndarray | np.generic | jax.Array)


def _split(args: Any, variable: Callable[[Any], bool] = lambda x: _is_array(x) or type(x) is float) -> Any:
    """The leaves that vary, and a function that puts others in their place."""
    leaves, tree = jax.tree.flatten(args)
    which = [i for i, x in enumerate(leaves) if variable(x)]

    def rest(values: Any) -> Any:
        new = list(leaves)
        for i, value in zip(which, values, strict=True):
            new[i] = value
        return jax.tree.unflatten(tree, new)

    return [leaves[i] for i in which], rest


def _wide(args: Any) -> bool:
    return any(_is_array(x) and x.dtype in (np.float64, np.complex128) for x in jax.tree.leaves(args))


def _close(actual: Any, expected: Any, rtol: float | None, atol: float | None, what: str) -> None:
    actual, expected = jax.tree.leaves(actual), jax.tree.leaves(expected)
    assert len(actual) == len(expected), f"{what}: {len(actual)} arrays, expected {len(expected)}"
    for i, (a, e) in enumerate(zip(actual, expected, strict=True)):
        a = np.asarray(a)
        e = np.asarray(e)
        assert a.shape == e.shape, f"{what}: result {i} has shape {a.shape}, expected {e.shape}"
        tolerance = _TOLERANCE.get(a.dtype.name, 2e-2 if a.dtype.name == "bfloat16" else 0)
        if a.dtype.kind == "V" or e.dtype.kind == "V":
            a, e = a.astype(np.float32), e.astype(np.float32)
        relative = tolerance if rtol is None else rtol
        np.testing.assert_allclose(
            a, e, rtol=relative, atol=relative if atol is None else atol, err_msg=f"{what}, result {i}"
        )


def check_value(
    fn: Callable[..., Any],
    ref: Callable[..., Any],
    *args: Any,
    rtol: float | None = None,
    atol: float | None = None,
    dtype: bool = False,
    only: Sequence[str] = ("eager", "undecorated", "closed over", "jit"),
) -> None:
    """Compares `fn(*args)`, run eagerly, undecorated and under `@jit`, with `ref(*args)`.

    Args:
      fn: a function of the package; returns a pytree of arrays.
      ref: the same over NumPy (or anything else that returns arrays).
      args: pytrees; float64 and complex128 arrays among them turn on JAX's 64-bit mode.
      rtol, atol: by default they follow the dtype of the result: 1e-10 for float64, 2e-5 for float32.
      dtype: whether the dtypes must be those of `ref` too.
      only: the ways of running `fn` to try.
    """
    with x64(_wide(args)):
        expected = ref(*args)
        types: list[Any] = []
        for mode, run in modes(fn).items():
            if mode not in only:
                continue
            actual = run(*args)
            _close(actual, expected, rtol, atol, f"{mode} value")
            leaves = jax.tree.leaves(actual)
            for x in leaves:
                assert isinstance(x, jax.Array), f"{mode} value is {type(x).__name__}, not a jax.Array"
            types = types or [x.dtype for x in leaves]
            assert [x.dtype for x in leaves] == types, f"{mode} has dtypes {[x.dtype for x in leaves]}, eager {types}"
            if dtype:
                expected_types = [x.dtype for x in jax.tree.leaves(expected)]
                assert types == expected_types, f"dtypes are {types}, expected {expected_types}"


def _widen(x: Any) -> Any:
    x = np.asarray(x)
    return x.astype(np.complex128 if x.dtype.kind == "c" else np.float64)


def _differentiable(x: Any) -> bool:
    return type(x) is float or (_is_array(x) and jnp.issubdtype(x.dtype, jnp.inexact))


def _scalar(outputs: Any, np_: Any) -> Any:
    """A fixed weighted sum of everything a function returns, so that no part of its derivative cancels."""
    rng = np.random.default_rng(7)
    total: Any = 0.0
    for out in jax.tree.leaves(outputs):
        if not hasattr(out, "dtype") or not jnp.issubdtype(out.dtype, jnp.inexact):
            continue
        weights = rng.uniform(0.5, 1.5, (2, *out.shape))
        if jnp.issubdtype(out.dtype, jnp.complexfloating):
            total = total + np_.sum(np_.real(out) * weights[0]) + np_.sum(np_.imag(out) * weights[1])
        else:
            total = total + np_.sum(out * weights[0])
    return total


def check_grads(
    fn: Callable[..., Any],
    *args: Any,
    jax_fn: Callable[..., Any] | None = None,
    order: int = 2,
    rtol: float = 1e-5,
    atol: float = 1e-6,
    eps: float = _EPS,
) -> None:
    """Compares the first and second derivatives of `fn` with central differences and with `jax.grad`.

    All is done in float64, undecorated and under `@jit`. Every float or complex array and Python float in
    `args` is differentiated; outputs that are not scalars enter through a fixed weighted sum.

    Args:
      fn: a function of the package; takes and returns pytrees of arrays.
      args: pytrees, away from points where the derivative jumps.
      jax_fn: the same formula over `jax.numpy`; agreement with it must be a thousand times closer.
      order: 1 for the gradient, 2 for the product of the Hessian with a random direction too.
      rtol, atol: against central differences, relative to the largest entry of the array.
    """
    rng = np.random.default_rng(3)
    leaves, rest = _split(args, _differentiable)
    assert leaves, "nothing to differentiate"
    _check_types(fn, rest, leaves)
    xs = [_widen(x) for x in leaves]
    direction = [_random_like(rng, x) for x in xs]

    def derivatives(f: Callable[..., Any], value_and_grad: Any, grad: Any, np_: Any) -> Callable[..., Any]:
        """`xs -> (second derivative along `direction`, (value, gradient))`."""

        def loss(xs: Any) -> Any:
            return _scalar(f(*rest(xs)), np_)

        def along(xs: Any) -> Any:
            value, grads = value_and_grad(loss)(xs)
            total = _total(np_.sum(np_.real(g * v)) for g, v in zip(grads, direction, strict=True))
            return total, (value, grads)

        if order == 1:
            return lambda xs: ((), value_and_grad(loss)(xs))
        second: Callable[..., Any] = grad(along, has_aux=True)
        return second

    with x64():
        ours = derivatives(fn, tg.value_and_grad, tg.grad, tnp)
        jitted = tg.jit(ours)
        results = {"undecorated": ours(xs), "jit": jitted(xs)}
        for mode, (second, (_, first)) in results.items():
            for g, x in zip([*first, *second], [*xs, *xs], strict=False):
                assert g.shape == x.shape and g.dtype == x.dtype, (
                    f"{mode}: gradient {g.dtype}{g.shape} of {x.dtype}{x.shape}"
                )
        _same(results["undecorated"], results["jit"], 1e-3 * rtol, 1e-3 * atol, "undecorated against jit")
        if jax_fn is not None:
            theirs = jax.jit(derivatives(jax_fn, jax.value_and_grad, jax.grad, jnp))(xs)
            _same(results["jit"], theirs, 1e-3 * rtol, 1e-3 * atol, "against JAX")
        second, (_, first) = results["jit"]
        _compare_with_differences(lambda xs: jitted(xs)[1][0], xs, first, rng, rtol, atol, eps)
        if order == 2:
            up = [x + eps * v for x, v in zip(xs, direction, strict=True)]
            down = [x - eps * v for x, v in zip(xs, direction, strict=True)]
            difference = [
                (np.asarray(a) - np.asarray(b)) / (2 * eps)
                for a, b in zip(jitted(up)[1][1], jitted(down)[1][1], strict=True)
            ]
            # The gradient is df/dx - i df/dy, and so is that of its product with a real number.
            _same(second, difference, rtol, atol, "second derivative against differences of the gradient")


def _total(terms: Any) -> Any:
    total: Any = None
    for term in terms:
        total = term if total is None else total + term
    return total


def _random_like(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    v = rng.uniform(0.5, 1.5, x.shape) * rng.choice([-1.0, 1.0], x.shape)
    return np.asarray(v + 1j * rng.uniform(0.5, 1.5, x.shape) if x.dtype.kind == "c" else v)


def _check_types(fn: Callable[..., Any], rest: Any, leaves: list[Any]) -> None:
    """A gradient has the shape and dtype of its argument, in 32 bits too: read off the tape, nothing compiles."""
    with x64(False):
        narrow = [np.asarray(x, np.complex64 if np.asarray(x).dtype.kind == "c" else np.float32) for x in leaves]
        tape = tg.trace(tg.grad(lambda xs: _scalar(fn(*rest(xs)), tnp)))(narrow)
        for v, x in zip(tape.outputs, narrow, strict=True):
            assert (v.aval.shape, v.aval.dtype) == (x.shape, x.dtype), f"the gradient of {x.dtype}{x.shape} is {v.aval}"


def _same(actual: Any, expected: Any, rtol: float, atol: float, what: str) -> None:
    leaves, _ = jax.tree_util.tree_flatten_with_path(actual)
    for (path, a), e in zip(leaves, jax.tree.leaves(expected), strict=True):
        a, e = np.asarray(a), np.asarray(e)
        scale = max(np.max(np.abs(e), initial=0.0, where=np.isfinite(e)), 1.0)
        np.testing.assert_allclose(a, e, rtol=rtol, atol=atol * scale, err_msg=f"{what}, {jax.tree_util.keystr(path)}")


def _compare_with_differences(
    value: Callable[..., Any], xs: list[Any], grads: Any, rng: np.random.Generator, rtol: float, atol: float, eps: float
) -> None:
    for k, (x, g) in enumerate(zip(xs, grads, strict=True)):
        g = np.asarray(g)
        for step, where in _steps(x, rng):
            moved = [list(xs), list(xs)]
            moved[0][k], moved[1][k] = x + eps * step, x - eps * step
            expected = (float(value(moved[0])) - float(value(moved[1]))) / (2 * eps)
            actual = float(np.sum(np.real(g * step)))
            scale = max(float(np.max(np.abs(g), initial=0.0)), 1.0)
            assert abs(actual - expected) <= atol * scale + rtol * abs(expected), (
                f"variable {k}, {where}: the gradient is {actual}, central differences give {expected}"
            )


def _steps(x: np.ndarray, rng: np.random.Generator, limit: int = 40) -> Any:
    """Unit steps along each element of a small array, random ones for a large one."""
    if x.size > limit:
        for i in range(8):
            yield _random_like(rng, x), f"random direction {i}"
        return
    for index in np.ndindex(x.shape):
        for unit in (1.0, 1j) if x.dtype.kind == "c" else (1.0,):
            step = np.zeros_like(x)
            step[index] = unit
            yield step, f"element {index}"
