"""What goes wrong names the op or argument, the types, the user's line and the remedy; and the remedy works."""

from __future__ import annotations

import array
import cmath
import copy
import functools
import inspect
import math
import re
from collections.abc import Callable
from math import sin as sine
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

import tracegrad as tg
import tracegrad.numpy as tnp
from tracegrad import initializers, nn, optimizers
from tracegrad.errors import LeakedTracerError, NotRecordedError, TracerError
from tracegrad.recording import state
from tracegrad.tape import make_aval

X = np.arange(3, dtype=np.float32)
W = np.ones((2, 3), np.float32)


def fails(call: Callable[[], Any], kind: type[Exception], *words: str, line: str = "") -> str:
    """The message of `call()`, which must name this file, the line marked `# <- line` and every word."""
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    for word in words:
        assert word in message, f"{word!r} is not in: {message}"
    number = line_of(line or call)
    assert f"test_errors.py:{number}" in message, f"not at line {number}: {message}"
    assert state.tape is None
    return message


def line_of(mark: Any) -> int:
    """The number of the line of this file that holds the mark, or on which a function starts."""
    if callable(mark):
        return inspect.getsourcelines(mark)[1]
    lines = inspect.getsource(inspect.getmodule(line_of)).splitlines()  # type: ignore[arg-type]
    found = [i for i, text in enumerate(lines, 1) if text.endswith(f"# <- {mark}")]
    assert len(found) == 1, mark
    return found[0]


# -- what grad is given


def test_the_output_is_not_a_scalar() -> None:
    f = lambda x: x * x  # noqa: E731
    fails(lambda: tg.grad(f)(X), TypeError, "grad", "must return a scalar", "f32[3]", ".sum()", "jacobian")
    np.testing.assert_array_equal(tg.grad(lambda x: f(x).sum())(X), 2 * X)
    np.testing.assert_array_equal(tg.jacobian(f)(X), np.diag(2 * X))


def test_the_output_is_several_values() -> None:
    f = lambda x: (x.sum(), x)  # noqa: E731
    fails(lambda: tg.value_and_grad(f)(X), TypeError, "value_and_grad", "tuple", "has_aux=True")
    np.testing.assert_array_equal(tg.grad(f, has_aux=True)(X)[0], np.ones(3))
    fails(lambda: tg.grad(lambda x: x.sum(), has_aux=True)(X), TypeError, "has_aux=True", "(value, aux)", "f32[]")


def test_the_output_is_none() -> None:
    def forgot(x: Any) -> Any:
        x.sum()

    fails(lambda: tg.grad(forgot)(X), TypeError, "forgot", "returned None", "Did you forget `return`")
    fails(lambda: tg.vmap(lambda x: {"a": "text"})(X), TypeError, "text", "not an array")


def test_the_output_has_no_gradient() -> None:
    fails(lambda: tg.grad(lambda x: x.sum() > 0)(X), TypeError, "must return a float", "bool[]")
    message = fails(
        lambda: tg.grad(lambda z: (z * z).sum())(X + 1j), TypeError, "complex scalar", "c64[]", "holomorphic"
    )
    assert "real part" in message
    assert tg.grad(lambda z: (z * z).real.sum())(X + 1j).dtype == np.complex64
    assert tg.grad(lambda z: (z * z).sum(), holomorphic=True)(X + 1j).dtype == np.complex64


def test_an_argument_has_no_gradient() -> None:
    def loss(params: Any, n: Any) -> Any:
        return tnp.sum(params["w"] * n)

    fails(lambda: tg.grad(loss)({"w": np.arange(3)}, 2), TypeError, "params['w']", "i32[3]", "astype(float)", "argnums")
    fails(lambda: tg.grad(loss, argnums=1)({"w": X}, 2), TypeError, "argument n of loss", "`2.0` for `2`")
    fails(lambda: tg.grad(loss)({"w": "text"}, 2), TypeError, "params['w']", "str 'text'")
    assert float(tg.grad(loss, argnums=1)({"w": X}, 2.0)) == 3.0
    assert tg.grad(loss)({"w": np.arange(3).astype(float)}, 2)["w"].shape == (3,)


def test_argnums_out_of_range() -> None:
    def f(x: Any, y: Any) -> Any:
        return x * y

    fails(lambda: tg.grad(f, argnums=2)(1.0, 2.0), TypeError, "argnums=2", "2 positional arguments")
    fails(lambda: tg.grad(f, argnums=1)(1.0, y=2.0), TypeError, "argnums=1", "1 positional argument", "by position")
    fails(lambda: tg.jacobian(f, argnums=2)(1.0, 2.0), TypeError, "argnums=2", "2 positional arguments")
    assert float(tg.grad(f, argnums=1)(1.0, 2.0)) == 1.0


@pytest.mark.parametrize("transform", [tg.grad, tg.jit, tg.value_and_grad])
def test_something_else_than_a_function(transform: Any) -> None:
    fails(lambda: transform(3.0), TypeError, "not a function", "f32[]")  # <- transform
    assert line_of("transform")


# -- shapes and dtypes that do not fit: the line is the one inside the user's function

MODES = {"eager": lambda f: f, "undecorated": tg.grad, "jit": tg.jit, "jit of grad": lambda f: tg.jit(tg.grad(f))}


@pytest.mark.parametrize("mode", MODES)
def test_shapes_that_do_not_broadcast(mode: str) -> None:
    def f(x: Any) -> Any:
        return tnp.sum(tnp.add(x, W[:, :2]))  # <- broadcast

    run = MODES[mode](f)
    fails(lambda: run(X), ValueError, "add(f32[3], f32[2,2]", "(3,) and (2, 2)", "x[:, None]", line="broadcast")
    assert MODES[mode](lambda x: tnp.sum(tnp.add(x[:, None], W[:1, :2])))(X) is not None


@pytest.mark.parametrize("mode", MODES)
def test_matrices_that_do_not_fit(mode: str) -> None:
    def f(x: Any) -> Any:
        return tnp.sum(tnp.matmul(x, W))  # <- matmul

    run = MODES[mode](f)
    message = fails(lambda: run(X), ValueError, "(3,)", "(2, 3)", line="matmul")
    assert "Transpose" in message or "transpose" in message or "fit" in message
    assert MODES[mode](lambda x: tnp.sum(tnp.matmul(x, W.T)))(X) is not None


@pytest.mark.parametrize("mode", MODES)
def test_a_shape_that_does_not_hold_the_elements(mode: str) -> None:
    def f(x: Any) -> Any:
        return tnp.sum(tnp.reshape(x, (2, 2)))  # <- reshape

    run = MODES[mode](f)
    fails(lambda: run(X), ValueError, "reshape", "(3,)", "(2, 2)", line="reshape")


@pytest.mark.parametrize("mode", MODES)
def test_a_dtype_that_an_op_does_not_take(mode: str) -> None:
    def f(x: Any) -> Any:
        return tnp.sum(tnp.bitwise_and(x, x))  # <- dtype

    run = MODES[mode](f)
    fails(lambda: run(X), TypeError, "bitwise_and(f32[3], f32[3])", line="dtype")


def test_an_operand_that_is_no_array() -> None:
    def f(x: Any) -> Any:
        return tnp.sum(x * "text")  # <- text

    fails(lambda: tg.grad(f)(X), TypeError, "mul", "str 'text'", "not an array", line="text")
    fails(lambda: tg.grad(lambda x: tnp.sin(None))(X), TypeError, "sin", "NoneType None", "not an array")


# -- values that are not there


def test_a_branch_on_a_traced_value() -> None:
    def f(x: Any) -> Any:
        y = x * 2.0
        if y > 0:  # <- branch
            return y
        return -y

    words = ["its truth value", "bool[]", "It was computed by greater at", "where(condition, a, b)", "static_argnums"]
    for run, point in (
        (tg.jit(f), 1.0),
        (tg.jit(tg.grad(f)), 1.0),
        (tg.grad(tg.jit(f)), 1.0),
        (tg.vmap(f), X),
        (tg.vmap(tg.grad(f)), X),
    ):
        fails(functools.partial(run, point), TracerError, *words, "take @jit away", line="branch")
    assert float(tg.grad(f)(-1.0)) == -2.0
    assert float(tg.jit(lambda x: tnp.where(x * 2 > 0, x * 2, -x * 2))(-1.0)) == 2.0


@pytest.mark.parametrize(
    "use, words",
    [
        (lambda x: float(x), ["float()"]),
        (lambda x: int(x), ["int()"]),
        (lambda x: x.item(), ["item()"]),
        (lambda x: x.tolist(), ["tolist()"]),
        (lambda x: f"{x:.2f}", ["a formatted number"]),
        (lambda x: np.asarray(x), ["a NumPy array"]),
        (lambda x: range(x.astype(int)), ["a Python integer"]),
        (lambda x: complex(x), ["complex()"]),
        (lambda x: bool(x), ["truth value"]),
    ],
)
def test_a_value_that_is_asked_for_under_jit(use: Any, words: list[str]) -> None:
    with pytest.raises(TracerError) as caught:
        tg.jit(lambda x: use(x) and x)(1.0)
    message = str(caught.value)
    for word in [
        *words,
        "test_errors.py",
        "@jit",
        "It is an argument of the function" if "integer" not in words[0] else "",
    ]:
        assert word in message
    use(np.float32(1.0) if "integer" not in words[0] else np.array(1))
    tg.capture(lambda x: (use(x), x)[1])(np.ones((), np.float32))


def filled(x: Any) -> Any:
    y = np.zeros(3, np.float32)
    for i in range(3):
        y[i] = x[i] ** 2  # filled
    return y.sum()


def in_parts(x: Any) -> Any:
    return x * math.exp(  # in parts
        x
    )


LOST: dict[str, tuple[Any, Any, list[str]]] = {
    "numpy.asarray": (lambda x: np.asarray(x).sum(), X, ["f32[3]", "a NumPy array", "tracegrad.stop_gradient(x)"]),
    "numpy.array": (lambda x: np.array([x[0], 2 * x[1]]).sum(), X, ["f32[]", "numpy.stack or tracegrad.numpy.array"]),
    "scipy": (lambda x: scipy.special.logsumexp(x), X, ["f32[3]", "use tracegrad.scipy"]),
    "math": (lambda x: math.sin(x), 0.5, ["math.sin", "numpy.sin", "pass float(x)"]),
    "another module": (lambda x: array.array("d", [x[0]])[0] * x[0], X, ["array.array", "tracegrad.numpy.stack"]),
    "from math": (lambda x: x * sine(x), 0.5, ["math.sin"]),
    "cmath": (lambda x: abs(cmath.exp(x)), 0.5, ["cmath.exp", "numpy.exp"]),
    "in parts": (in_parts, 0.5, ["math.exp"]),
}


@pytest.mark.parametrize("name", LOST)
@pytest.mark.parametrize("transform", [tg.grad, tg.hessian, lambda f: lambda x: tg.jvp(f, (x,), (x,))])
def test_a_gradient_is_not_lost_without_a_word(name: str, transform: Any) -> None:
    f, x, words = LOST[name]
    with pytest.raises(NotRecordedError) as caught:
        transform(f)(x)
    for word in [*words, "its gradient would be lost", f"test_errors.py:{line_of(f) + (name == 'in parts')}"]:
        assert word in str(caught.value)
    assert f(x) is not None, "it runs where nothing is differentiated"


def test_a_numpy_array_is_not_filled_with_traced_values() -> None:
    with pytest.raises(ValueError, match="setting an array element") as caught:
        tg.grad(filled)(X)
    cause = str(caught.value.__cause__)
    assert "an element of an array at" in cause and "y = y.at[i].set(value)" in cause and "# filled" in cause

    def remedy(x: Any) -> Any:
        y = tnp.zeros(3)
        for i in range(3):
            y = y.at[i].set(x[i] ** 2)
        return y.sum()

    np.testing.assert_allclose(tg.grad(remedy)(X), 2 * X)


def test_a_copy_of_a_traced_value_is_the_value() -> None:
    for duplicate in (copy.copy, copy.deepcopy):
        f = tg.grad(lambda p, d=duplicate: (d(p)["a"] * p["a"]).sum())
        for g in (f, tg.jit(f)):
            np.testing.assert_array_equal(g({"a": X})["a"], 2 * X)


def test_numbers_that_need_no_gradient_are_given() -> None:
    history: dict[str, Any] = {}

    def f(x: Any, data: Any) -> Any:
        history["x"] = x
        history["float"] = float(x)
        history["text"] = "%.1f" % x + f"{x:.1f}"  # noqa: UP031
        history["array"] = np.asarray(tg.stop_gradient(x))
        history["floor"] = math.floor(x)
        return x * math.sin(data) * np.asarray(data) * math.sin(tg.stop_gradient(x)) * (np.asarray(x > 0) + 1.0)

    np.testing.assert_allclose(tg.grad(f)(0.5, 0.7), math.sin(0.7) * 0.7 * math.sin(0.5) * 2, rtol=1e-6)
    assert (history["float"], history["text"], history["array"], history["floor"]) == (0.5, "0.50.5", 0.5, 0)
    # A gradient that has been taken is a value like any other.
    assert tg.capture(lambda x: np.asarray(tg.grad(lambda y: y * y)(x)))(2.0)[0] == 4.0


def test_a_tracer_kept_after_its_recording() -> None:
    kept: list[Any] = []

    def f(x: Any) -> Any:
        kept.append(x * 2.0)
        return x

    for run in (tg.grad(f), tg.jit(f)):
        kept.clear()
        run(1.0)
        fails(lambda: tnp.sin(kept[0]), LeakedTracerError, "f32[]", "used by sin", "has_aux", "Return it")
        fails(lambda: float(kept[0]), LeakedTracerError, "had ended", "f")
        fails(lambda: tg.grad(lambda x: x * kept[0])(1.0), LeakedTracerError, "mul", "had ended")
        fails(lambda: tg.jit(lambda x: x + 1)(kept[0]), LeakedTracerError, "had ended")
        assert "recording ended" in repr(kept[0])
    gradient, aux = tg.grad(lambda x: (x, x * 2.0), has_aux=True)(1.0)
    assert (float(gradient), float(aux)) == (1.0, 2.0)


def test_a_change_in_place() -> None:
    def f(x: Any) -> Any:
        x[0] = 1.0  # <- assignment
        return x.sum()

    fails(lambda: tg.grad(f)(X), TypeError, "f32[3]", "in place", "x.at[index].set(value)", line="assignment")
    np.testing.assert_array_equal(tg.grad(lambda x: x.at[0].set(1.0).sum())(X), [0, 1, 1])


@pytest.mark.parametrize("name", ["sin", "sum", "asarray"])
def test_a_tracer_given_to_jax_numpy(name: str) -> None:
    def f(x: Any) -> Any:
        return getattr(jnp, name)(x).sum()  # <- jax.numpy

    fails(lambda: tg.grad(f)(X), NotRecordedError, "f32[3]", "jax.numpy", "tracegrad.numpy", line="jax.numpy")
    assert tg.grad(lambda x: getattr(tnp, name)(x).sum())(X).shape == (3,)


# -- jit's and vmap's arguments


def test_a_static_argument_that_is_not_hashable() -> None:
    f = tg.jit(lambda x, sizes: x * len(sizes), static_argnums=1)
    for call in (lambda: f(1.0, [1, 2]), lambda: tg.grad(f)(1.0, [1, 2])):
        fails(call, TypeError, "static argument sizes of", "list [1, 2]", "not hashable", "tuple")
    assert float(f(1.0, (1, 2))) == 2.0
    assert float(tg.grad(f)(1.0, (1, 2))) == 2.0


def test_an_argument_of_jit_that_is_no_array() -> None:
    f = tg.jit(lambda x, mode: x * (2 if mode == "double" else 1))
    for call in (lambda: f(1.0, "double"), lambda: tg.grad(f)(1.0, "double")):
        fails(call, TypeError, "str 'double'", "static_argnums")
    assert float(tg.jit(lambda x, mode: x * 2 if mode == "double" else x, static_argnums=1)(1.0, "double")) == 2.0


def test_arguments_of_transforms() -> None:
    f = lambda x, y: (x * y).sum()  # noqa: E731
    fails(lambda: tg.grad(f, argnums=(0, 0))(X, X), ValueError, "argnums=(0, 0)", "an argument twice")
    fails(lambda: tg.grad(f, argnums="y")(X, X), TypeError, "argnums='y'", "positions of arguments")  # type: ignore[arg-type]
    for call in (
        lambda: tg.vjp(lambda x: x, X, has_aux=True),
        lambda: tg.jvp(lambda x: x, (X,), (X,), has_aux=True),
        lambda: tg.jacobian(lambda x: x, has_aux=True)(X),
    ):
        with pytest.raises(
            TypeError, match=r"has_aux=True, <lambda> must return \(value, aux\), not f32\[3\] at .*errors"
        ):
            call()
    fails(lambda: tg.hvp(lambda x: x.sum(), X, X), TypeError, "hvp(f, (x,), (t,))", "f32[3]")
    fails(lambda: tg.jacfwd(lambda x: x)(np.arange(3)), TypeError, "jacfwd", "argument x of", "i32[3]")
    fails(lambda: tg.cond(lambda x: x, True, lambda x: x, 1.0), TypeError, "pred is function", "cond(pred, true_fun")
    fails(lambda: tg.cond(True, X, lambda: X), TypeError, "a branch is f32[3]", "cond(pred, true_fun")


# -- a beginner's mistakes, one of each kind, against the topics of the README


def net(params: Any, x: Any, labels: Any) -> Any:
    logits = nn.relu(x @ params["w1"]) @ params["w2"]
    return nn.losses.sparse_categorical_cross_entropy(logits, labels, from_logits=True)


PARAMS = {"w1": np.ones((4, 5), np.float32), "w2": np.ones((5, 3), np.float32)}
BATCH, LABELS = np.ones((6, 4), np.float32), np.arange(6) % 3
ADAM = optimizers.adam(0.1)
STATE = ADAM.init(PARAMS)
GRADS = tg.grad(net)(PARAMS, BATCH, LABELS)


def in_place(x: Any) -> Any:
    y = np.zeros(3, np.float32)
    y += x
    return y.sum()


def to_list(x: Any) -> Any:
    return np.array([v * 2 for v in x])


MISTAKES: dict[str, tuple[Callable[[], Any], type[Exception], list[str]]] = {
    "grad of a value": (lambda: tg.grad(net(PARAMS, BATCH, LABELS)), TypeError, ["grad(f)(x)", "not grad(f(x))"]),
    "jit of a value": (lambda: tg.jit(tnp.sin(X)), TypeError, ["jit(f)(x)", "f32[3]"]),
    "vmap of a value": (lambda: tg.vmap(X), TypeError, ["vmap(f)(x)", "f32[3]"]),
    "arguments in the wrong order": (lambda: tg.grad(net)(BATCH, PARAMS, LABELS), TypeError, ["an index is str 'w1'"]),
    "labels that are floats": (
        lambda: tg.grad(net)(PARAMS, BATCH, LABELS * 1.0),
        TypeError,
        ["must be integers", "categorical_cross_entropy"],
    ),
    "one-hot labels": (
        lambda: tg.grad(net)(PARAMS, BATCH, nn.one_hot(LABELS, 3)),
        TypeError,
        ["f32[6,3]", "categorical_cross_entropy"],
    ),
    "a transposed batch": (lambda: tg.grad(net)(PARAMS, BATCH.T, LABELS), ValueError, ["(4, 6) and (4, 5) do not fit"]),
    "too few labels": (lambda: tg.grad(net)(PARAMS, BATCH, LABELS[:2]), ValueError, ["labels of shape (6,)", "(2,)"]),
    "parameters for the state": (
        lambda: ADAM.update(GRADS, PARAMS),
        ValueError,
        ["adam.update: state is dict of 2 arrays", "tuple of 5 arrays", "update(grads, state, params)"],
    ),
    "the state for the updates": (
        lambda: optimizers.apply_updates(PARAMS, STATE),
        ValueError,
        ["apply_updates: updates is a pair", "updates, state = optimizer.update"],
    ),
    "the value for the gradients": (
        lambda: ADAM.update(tnp.ones(()), STATE),
        ValueError,
        ["adam.update: state[0].mu is dict of 2 arrays, where init(grads)[0].mu is f32[]"],
    ),
    "updates for some parameters": (
        lambda: optimizers.apply_updates(PARAMS, {"w1": 1.0}),
        ValueError,
        ["updates['w2'] is missing, which is in params"],
    ),
    "a learning rate that is text": (lambda: optimizers.adam("0.1"), TypeError, ["learning_rate is str '0.1'"]),
    "a list of optimizers": (
        lambda: optimizers.chain([optimizers.clip(1.0), ADAM]),
        TypeError,
        ["transformation 0 is list", "chain(first, second)"],
    ),
    "an initializer's key for its settings": (
        lambda: initializers.he_normal(tg.random.key(0), (4, 5)),
        TypeError,
        ["in_axis is key", "he_normal()(key, shape)"],
    ),
    "a normal initializer's key": (
        lambda: initializers.normal(tg.random.key(0), (4, 5)),
        TypeError,
        ["stddev is key", "not a number"],
    ),
    "a seed for a key": (
        lambda: tg.random.normal(0, (3,)),
        TypeError,
        ["i32[]~, not a random key", "random.key(seed)"],
    ),
    "a shape for a key": (
        lambda: tg.random.normal((3, 2)),
        TypeError,
        ["normal: key", "tuple (3, 2), not a random key", "random.key(seed)"],
    ),
    "arrays without a list": (
        lambda: tnp.concatenate(X, X),
        TypeError,
        ["concatenate: arrays is one array", "concatenate([a, b])"],
    ),
    "a number of keys that is a float": (lambda: tg.random.split(tg.random.key(0), 2.5), TypeError, ["split: num is"]),
    "an array filled in place": (lambda: tg.grad(in_place)(X), TypeError, ["cannot be changed in place", "a = a + x"]),
    "a list made an array": (
        lambda: tg.jit(to_list)(X),
        TracerError,
        ["a NumPy array", "tracegrad.numpy.array or stack"],
    ),
    "a number printed under jit": (
        lambda: tg.jit(lambda x: f"{x:.2f}" and x)(1.0),
        TracerError,
        ["print it outside of the compiled function"],
    ),
    "a number taken under jit": (
        lambda: tg.jit(lambda x: x.item())(1.0),
        TracerError,
        ["outside of the compiled function"],
    ),
    "a shape without brackets": (lambda: tnp.zeros(3, 4), TypeError, ["4 is no dtype", "zeros((2, 3))"]),
    "a dtype misspelt": (lambda: tnp.ones(3, "flaot32"), TypeError, ["'flaot32' is no dtype"]),
    "too few in_axes": (
        lambda: tg.vmap(net, in_axes=(None, 0))(PARAMS, BATCH, LABELS),
        ValueError,
        ["in_axes has 2 entries", "3 positional"],
    ),
    "in_axes left out": (
        lambda: tg.vmap(net)(PARAMS, BATCH, LABELS),
        ValueError,
        ["4 (params['w1'], of shape (4, 5))", "in_axes=None"],
    ),
    "a step that returns its carry alone": (
        lambda: tg.scan(lambda c, x: c + x, 0.0, X),
        TypeError,
        ["a pair (carry, y)", "return carry, None"],
    ),
    "a step that returns nothing": (
        lambda: tg.while_loop(lambda x: x < 9, lambda x: None, 1.0),
        TypeError,
        ["returned None", "forget `return`"],
    ),
    "a loop's arguments in the wrong order": (
        lambda: tg.fori_loop(0, 3, 1.0, lambda i, x: x),
        TypeError,
        ["body_fun is f32[]~", "fori_loop(lower, upper, body_fun"],
    ),
    "scan's": (lambda: tg.scan(0.0, lambda c, x: (c, x), X), TypeError, ["scan: f is f32[]~", "scan(f, init, xs)"]),
    "while_loop's": (
        lambda: tg.while_loop(1.0, lambda x: x < 9, lambda x: x),
        TypeError,
        ["cond_fun is f32[]~", "body_fun, init_val)"],
    ),
    "the gradient of an integer": (lambda: tg.grad(lambda x: x * x)(3), TypeError, ["argument x", "`2.0` for `2`"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(mistake: str) -> None:
    call, kind, words = MISTAKES[mistake]
    with pytest.raises(kind) as caught:
        call()
    for word in [*words, "test_errors.py"]:
        assert word in str(caught.value), f"{word!r} is not in: {caught.value}"


def keyword(x: Any, mode: Any = "sum") -> Any:
    return x.sum() if mode == "sum" else x


class Scaled:
    def __call__(self, x: Any, mode: Any) -> Any:
        return x


STRINGS: dict[str, Callable[[Any], Any]] = {
    "vmap": lambda f: tg.vmap(f)(X, "sum"),
    "vmap by name": lambda f: tg.vmap(f)(X, mode="sum"),
    "vjp": lambda f: tg.vjp(f, X, "sum"),
    "jvp": lambda f: tg.jvp(f, (X, "sum"), (X, "sum")),
    "hvp": lambda f: tg.hvp(f, (X, "sum"), (X, "sum")),
    "grad": lambda f: tg.grad(f, argnums=(0, 1))(X, "sum"),
    "jacobian": lambda f: tg.jacobian(f, argnums=1)(X, "sum"),
    "trace": lambda f: tg.trace(f)(X, "sum"),
    "eval_shape": lambda f: tg.eval_shape(f, X, "sum"),
    "checkpoint": lambda f: tg.grad(tg.checkpoint(f))(X, "sum"),
    "named_call": lambda f: tg.grad(tg.named_call(f))(X, "sum"),
}


@pytest.mark.parametrize("transform", STRINGS)
def test_an_argument_that_is_no_array_is_called_by_its_name(transform: str) -> None:
    for f in (keyword, lambda x, mode: x, Scaled(), functools.partial(lambda a, x, mode: x, 1.0)):
        with pytest.raises(TypeError, match=r"argument mode of .*str 'sum'.* at .*test_errors"):
            STRINGS[transform](f)


def test_methods_of_other_libraries() -> None:
    uses = {
        "x ** n": lambda x: x.pow(2),
        "tracegrad.stop_gradient(x)": lambda x: x.detach(),
        "x.reshape(shape)": lambda x: x.view(-1),
        "numpy.exp(x)": lambda x: x.exp(),
        "tracegrad.grad(f)(x)": lambda x: x.backward(),
    }
    for remedy, use in uses.items():
        with pytest.raises(AttributeError, match=rf"has no attribute .* at .*test_errors.*Write {re.escape(remedy)}"):
            tg.grad(lambda x, use=use: use(x).sum())(X)
    seen: list[Any] = []
    tg.grad(lambda x: (seen.append((hasattr(x, "foo"), hasattr(x, "__foo__"), getattr(x, "pow", 1))), x.sum())[1])(X)
    assert seen == [(False, False, 1)]


def test_pullbacks_and_axes() -> None:
    fails(lambda: tg.vjp(lambda x: x, X)[1](X, X), TypeError, "takes one cotangent", "2 were given", "pullback(ct)")
    fails(lambda: tg.vmap(lambda x: x, in_axes=1.5)(X), TypeError, "vmap", "is no axis", "Give integers")
    fails(lambda: tg.vmap(lambda x: x, out_axes="a")(X), TypeError, "vmap", "str 'a' is no axis")


def test_a_jax_array_at_a_traced_index() -> None:
    array = jnp.arange(3.0)
    fails(lambda: tg.fori_loop(0, 3, lambda i, c: c + array[i], 0.0), NotRecordedError, "tracegrad.numpy.asarray(a)[i]")
    assert float(tg.jit(lambda i: array[i])(1)) == 1.0
    assert float(tg.fori_loop(0, 3, lambda i, c: c + tnp.asarray(array)[i], 0.0)) == 3.0


def test_vmap_of_arrays_that_do_not_fit() -> None:
    add = tg.vmap(lambda x, y: x + y)
    fails(lambda: add(X, X[:2]), ValueError, "vmap", "differ in size", "3 (x, of shape (3,))", "2 (y, of shape (2,))")
    fails(lambda: tg.vmap(add, (None, 0), axis_size=2)(1.0, X), ValueError, "axis_size=2", "have size 3")
    fails(lambda: add({"a": X}, {"a": 1.0}), ValueError, "vmap", "argument y['a'] has shape ()", "no axis 0")
    fails(lambda: tg.vmap(add, out_axes=2)(X, X), ValueError, "out_axes", "result 0 at 2", "f32[3]", "from -1 to 0")
    fails(lambda: tg.vmap(lambda x: x, out_axes=None)(X), ValueError, "result 0 has out_axes=None", "f32[3]")
    assert tg.vmap(lambda x, y: y, in_axes=(0, None), out_axes=None)(X, 2.0) == 2.0
    fails(lambda: tg.vmap(lambda x: x, out_axes=2)(X), ValueError, "result 0 at 2", "f32[3]", "from -1 to 0")
    fails(lambda: tg.vmap(lambda x: x, in_axes=None)(X), ValueError, "no argument is mapped")
    fails(lambda: tg.vmap(lambda x: x, in_axes=1)(X), ValueError, "(3,)", "no axis 1")
    fails(lambda: tg.vmap(lambda x: x)(1.0), ValueError, "()", "no axis 0")
    fails(lambda: tg.vmap(lambda x, y: x, in_axes=(0, 0, 0))(X, X), ValueError, "in_axes")


def test_a_cotangent_that_does_not_match() -> None:
    _, pullback = tg.vjp(lambda x: {"y": x * 2.0}, X)
    fails(lambda: pullback({"z": X}), TypeError, "structure", "'z'", "'y'")
    fails(lambda: pullback({"y": X[:2]}), TypeError, "f32[2]", "f32[3]", "same shape and dtype")
    fails(lambda: pullback({"y": np.arange(3)}), TypeError, "i32[3]", "f32[3]")
    np.testing.assert_array_equal(pullback({"y": X})[0], 2 * X)


def test_hvp_of_structures_that_differ() -> None:
    fails(lambda: tg.hvp(lambda p: p["a"].sum(), ({"a": X},), (X,)), TypeError, "hvp", "primals", "tangents")


def test_errors_of_derivative_rules_name_the_line_they_are_the_gradient_of() -> None:
    wrong = tg.Op("wrong", lambda x: x, (lambda ct, out, x: tnp.matmul(ct, W),))

    def f(x: Any) -> Any:
        y = wrong(x)  # <- rule
        return tnp.sum(y)

    fails(lambda: tg.grad(f)(X), ValueError, "(3,)", "(2, 3)", line="rule")


def test_the_users_own_exceptions_pass_unchanged() -> None:
    def f(x: Any) -> Any:
        raise KeyError("mine")

    for run in (tg.grad(f), tg.jit(f), tg.vmap(f), tg.jit(tg.grad(f))):
        with pytest.raises(KeyError) as caught:
            run(X)
        assert caught.value.args == ("mine",)


def test_messages_are_short() -> None:
    message = fails(lambda: tg.grad(lambda x: x)(np.zeros(1000, np.float32)), TypeError, "f32[1000]")
    assert len(message) < 600
    assert not re.search(r"0\. +0\.", message), "no values in messages"


# -- an op of the user's with a wrong rule


def an_op(rule: Any, lower: Any = lambda x: x * x, **options: Any) -> Any:
    return tg.Op("mine", lower, vjp=rule, **options)


MINE = "the rule (vjp) of the op mine(f32[3]) at"
HALF = np.dtype(np.float16)
WRONG_RULES: dict[str, tuple[Any, type[Exception], list[str]]] = {
    "shape": (an_op((lambda ct, out, x: ct[:2],)), ValueError, [MINE, "returned f32[2]", "cotangent for f32[3]"]),
    "fewer axes": (an_op((lambda ct, out, x: ct.sum(),)), ValueError, [MINE, "returned f32[]", "broadcasts to"]),
    "number": (an_op((lambda ct, out, x: 0.0,)), ValueError, [MINE, "returned f32[]~"]),
    "None": (an_op((lambda ct, out, x: None,)), TypeError, [MINE, "returned NoneType None"]),
    "text": (an_op((lambda ct, out, x: "a",)), TypeError, [MINE, "returned str 'a'"]),
    "tuple": (an_op((lambda ct, out, x: (ct,),)), TypeError, [MINE, "returned a tuple of 1"]),
    "too many": (an_op(lambda node, cts, needs: [*cts, *cts]), TypeError, [MINE, "a list of 2", "a list of 1"]),
    "no list": (an_op(lambda node, cts, needs: cts[0]), TypeError, [MINE, "returned f32[3]", "a list of 1"]),
    "nothing": (an_op(lambda node, cts, needs: None), TypeError, [MINE, "returned NoneType None"]),
    "shape in a list": (an_op(lambda node, cts, needs: [cts[0][:2]]), ValueError, [MINE, "returned f32[2]"]),
    "shape rule": (
        an_op((lambda ct, out, x: ct * x,), shape=lambda x: make_aval((2,), x.dtype)),
        TypeError, ["mine(f32[3])", "lower computes f32[3], and its shape rule says f32[2]", "leave the shape"],
    ),
    "dtype of the shape rule": (
        an_op((lambda ct, out, x: ct,), shape=lambda x: make_aval(x.shape, HALF)),
        TypeError, ["lower computes f32[3]", "says f16[3]"],
    ),
    "no shape": (an_op((lambda ct, out, x: ct,), shape=lambda x: None), TypeError, ["its shape rule says None"]),
    "no value": (an_op((lambda ct, out, x: ct,), lambda x: None), TypeError, ["mine(f32[3])", "lower computes None"]),
    "two values": (an_op((lambda ct, out, x: ct,), lambda x: (x, x)), TypeError, ["mine(f32[3])", "multiple=True"]),
    "one value": (an_op(lambda n, cts, needs: cts, lambda x: x, multiple=True), TypeError, ["must be a tuple"]),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_RULES)
def test_a_wrong_rule_of_an_op_of_the_users(name: str) -> None:
    op, kind, words = WRONG_RULES[name]

    def loss(x: Any) -> Any:
        y = op(x)  # <- the op
        return (y[0] if isinstance(y, tuple) else y).sum()

    for run in (tg.grad(loss), tg.jit(tg.grad(loss)), lambda x: tg.vjp(loss, x)[1](1.0), tg.hessian(loss)):
        fails(functools.partial(run, X), kind, *words, line="the op")


def test_a_rule_may_return_any_array_that_broadcasts() -> None:
    for found in (np.ones(3, np.float32), jnp.ones(3), np.ones(3, np.int32), np.ones((2, 3), np.float32) / 2):
        op = an_op((lambda ct, out, x, found=found: found,))
        np.testing.assert_array_equal(tg.grad(lambda x, op=op: op(x).sum())(X), np.ones(3))
