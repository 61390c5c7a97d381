"""What an error proposes depends on what the user's line does; and what it proposes works."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tracegrad import nn
from tracegrad.errors import NotRecordedError, TracerError

X = np.arange(1, 4, dtype=np.float32)


def message(f: Callable[..., Any], *args: Any, kind: type[Exception] = TracerError) -> str:
    with pytest.raises(kind) as caught:
        tg.jit(f)(*args)
    assert "test_remedies.py" in str(caught.value)
    return str(caught.value)


def while_(x: Any) -> Any:
    while x < 10:
        x = x * 2
    return x


def while_not(x: Any) -> Any:
    while not (x > 10 and x > 3):
        x = x * 2
    return x


def if_(x: Any) -> Any:
    if x > 0:
        return x
    return -x


def if_of_many_lines(x: Any) -> Any:
    if (
        x.sum() > 0
        and x.max() < 9
    ):  # fmt: skip
        return x
    return -x


def if_in_while(x: Any) -> Any:
    while True:
        if bool(x > 0):
            return x


def for_(n: Any) -> Any:
    total = 0
    for i in range(n):
        total += i
    return total


def assert_(x: Any) -> Any:
    assert x > 0, "positive"
    return x


TRUTH: dict[str, tuple[Callable[[Any], Any], list[str]]] = {
    "while": (while_, ["for `while`", "while_loop(cond_fun, body_fun, init)", "fori_loop"]),
    "while not": (while_not, ["for `while`", "while_loop"]),
    "if": (if_, ["for `if`", "tracegrad.numpy.where(condition, a, b)", "tracegrad.cond"]),
    "if of many lines": (if_of_many_lines, ["for `if`", "tracegrad.numpy.where"]),
    "if in while": (if_in_while, ["for `if`", "tracegrad.numpy.where"]),
    "conditional expression": (lambda x: x if x > 0 else -x, ["for `if`", "tracegrad.numpy.where"]),
    "assert": (assert_, ["for `assert`", "check what the compiled function returns"]),
    "and": (lambda x: x > 0 and x < 1, ["for `and`", "logical_and"]),
    "or": (lambda x: x > 0 or x < -1, ["for `or`", "logical_or"]),
    "not": (lambda x: not x, ["for `not`", "logical_not"]),
    "chain": (lambda x: 0 < x < 1, ["a chain of comparisons", "(a < x) & (x < b)"]),
    "comprehension": (lambda x: [v for v in (x, -x) if v > 0], ["`if` in a comprehension", "tracegrad.numpy.where"]),
    "max": (lambda x: max(x, 0.0), ["for max", "tracegrad.numpy.maximum"]),
    "min": (lambda x: min([x, 0.0]), ["for min", "tracegrad.numpy.minimum"]),
    "sorted": (lambda x: sorted([x, 2 * x]), ["for sorted", "tracegrad.numpy.sort(x)"]),
    "any": (lambda x: any([x > 0, x > 1]), ["for any", "x.any()"]),
    "bool": (lambda x: bool(x), ["its truth value was asked", "tracegrad.numpy.where", "while_loop"]),
}


@pytest.mark.parametrize("case", TRUTH)
def test_a_truth_value(case: str) -> None:
    f, words = TRUTH[case]
    text = message(f, X if "many" in case else 1.0)
    for word in ["its truth value", *words, "take @jit away", "is recorded before its values are known"]:
        assert word in text, f"{word!r} is not in: {text}"
    if "while_loop" not in "".join(words):
        assert "while_loop" not in text
    assert f(np.float32(1.5)) is not None if "many" not in case else f(X) is not None


COUNTS: dict[str, tuple[Callable[[Any, Any], Any], list[str]]] = {
    "for": (lambda x, n: for_(n), ["for `for`", "fori_loop(0, n, body_fun, init)", "static_argnums"]),
    "comprehension": (lambda x, n: [x for _ in range(n)], ["for `for`", "fori_loop"]),
    "list": (lambda x, n: [1, 2, 3][n], ["for `[]`", "tracegrad.numpy.asarray(a)[i]", "switch"]),
    "NumPy array": (lambda x, n: X[n], ["for `[]`", "tracegrad.numpy.asarray(a)[i]"]),
    "zeros": (lambda x, n: tnp.zeros(n), ["tnp.zeros"]),
    "zeros of several": (lambda x, n: tnp.zeros((2, n)), ["tnp.zeros"]),
    "ones": (lambda x, n: tnp.ones(shape=n), ["tnp.ones"]),
    "full": (lambda x, n: tnp.full((n,), 1.0), ["tnp.full"]),
    "eye": (lambda x, n: tnp.eye(n), ["tnp.eye"]),
    "arange": (lambda x, n: tnp.arange(n), ["tnp.arange"]),
    "linspace": (lambda x, n: tnp.linspace(0, 1, n), ["tnp.linspace"]),
    "broadcast_to": (lambda x, n: tnp.broadcast_to(x, (n, 3)), ["tnp.broadcast_to"]),
    "reshape": (lambda x, n: x.reshape(n, -1), ["x.reshape"]),
    "tnp.reshape": (lambda x, n: tnp.reshape(x, (n, -1)), ["tnp.reshape"]),
    "NumPy's": (lambda x, n: np.tile(x, n), ["np.tile"]),
    "one_hot": (lambda x, n: nn.one_hot(tnp.asarray([0, 1]), n), ["nn.one_hot"]),
}


@pytest.mark.parametrize("case", COUNTS)
def test_a_number_that_must_be_known(case: str) -> None:
    f, words = COUNTS[case]
    text = message(f, X, 3)
    if case not in ("for", "comprehension", "list", "NumPy array"):
        words = [f"a number known beforehand for {words[0]}", "Shapes, axes and counts", "x.shape[0]"]
        assert "`if`" not in text
    for word in [*words, "static_argnums"]:
        assert word in text, f"{word!r} is not in: {text}"
    tg.jit(lambda x: f(x, 1))(X)
    if not isinstance(f(X, 1), list):
        tg.jit(f, static_argnums=1)(X, 1)


def test_without_the_source() -> None:
    space: dict[str, Any] = {}
    exec("def f(x):\n    while x > 0:\n        x = x - 1\n    return x", space)
    with pytest.raises(TracerError, match=r"its truth value was asked of .*<string>:2.*where.*while_loop"):
        tg.jit(space["f"])(1.0)


# -- functions of JAX, where derivatives flow

OVER_JAX: dict[str, tuple[Callable[[Any], Any], list[str]]] = {
    "of jax.grad": (tg.grad(lambda x: jax.grad(jnp.sin)(x)), ["tracegrad.grad", "jax.grad", "from_jax(jax.grad(f))"]),
    "grad(jax.grad)": (tg.grad(jax.grad(jnp.sin)), ["tracegrad.grad", "jax.grad", "from_jax(jax.grad(f))"]),
    "value_and_grad": (
        tg.value_and_grad(lambda x: jax.value_and_grad(jnp.sin)(x)[1]),
        ["tracegrad.value_and_grad", "jax.value_and_grad", "from_jax(jax.value_and_grad(f))"],
    ),
    "vmap": (tg.grad(lambda x: jax.vmap(jnp.sin)(x[None]).sum()), ["tracegrad.grad", "jax.vmap"]),
    "jit": (tg.grad(jax.jit(lambda x: jnp.sin(x))), ["tracegrad.grad", "jax.jit", "from_jax(jax.jit(f))"]),
    "scan": (tg.jacobian(lambda x: jax.lax.scan(lambda c, _: (c, c), x, None, 2)), ["tracegrad.jacobian", "lax.scan"]),
    "jnp": (lambda x: tg.vjp(lambda x: jnp.sin(x), x), ["tracegrad.vjp", "jax.numpy.sin", "from_jax(jax.numpy.sin)"]),
    "nn": (tg.grad(lambda x: jax.nn.softplus(x)), ["tracegrad.grad", "jax.nn.softplus", "tracegrad.nn"]),
}  # fmt: skip


@pytest.mark.parametrize("case", OVER_JAX)
def test_a_function_of_jax(case: str) -> None:
    f, words = OVER_JAX[case]
    with pytest.raises(NotRecordedError) as caught:
        f(1.0)
    for word in [*words, "gradient would be lost", "tracegrad.from_jax(", "test_remedies.py"]:
        assert word in str(caught.value), f"{word!r} is not in: {caught.value}"


def test_the_remedy_of_jax_functions() -> None:
    np.testing.assert_allclose(tg.grad(lambda x: tg.from_jax(jax.vmap(jnp.sin))(x).sum())(X), np.cos(X), rtol=1e-6)
    np.testing.assert_allclose(tg.grad(lambda x: tg.from_jax(jax.nn.softplus)(x))(0.0), 0.5)


# -- numpy.vectorize


def test_numpy_vectorize() -> None:
    square = lambda t: t * t  # noqa: E731
    words = "Write tracegrad.numpy.vectorize(f) in place of numpy.vectorize(f)"
    with pytest.raises(NotRecordedError) as caught:
        tg.grad(lambda x: np.vectorize(square)(x).sum())(X)
    assert words in str(caught.value) and "test_remedies.py" in str(caught.value)
    assert words in message(lambda x: np.vectorize(square)(x), X)
    np.testing.assert_array_equal(tg.grad(lambda x: tnp.vectorize(square)(x).sum())(X), 2 * X)
    np.testing.assert_array_equal(tg.jit(lambda x: tnp.vectorize(square)(x))(X), X * X)
    # Where no derivative flows there are values, and NumPy's works.
    seen: list[Any] = []
    tg.grad(lambda x, y: (seen.append(np.vectorize(square)(y)), x)[1])(1.0, X)
    np.testing.assert_array_equal(seen[0], X * X)
