"""Reverse mode: what is appended to the tape, and what is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tests.reference import check_grads
from tracegrad.backward import linearize
from tracegrad.ops import stop_gradient
from tracegrad.passes import optimize
from tracegrad.verify import check

X = np.array([0.5, 1.5, -0.7], np.float32)


def ops_of(f: Callable[..., Any], *args: Any, grad: bool | None = None) -> list[str]:
    """The ops of a function's tape, after the passes; only those of the gradient with `grad=True`."""
    tape = optimize(tg.trace(f)(*args))
    return [node.op.name for node in tape.nodes if grad is None or node.grad == grad]


# -- alias semantics: a gradient is with respect to the argument, not to the value


def test_the_argument_is_told_from_other_uses_of_its_value() -> None:
    x = jnp.float32(3.0)
    assert float(tg.grad(lambda y: x * y)(x)) == 3.0
    assert float(tg.grad(lambda x: tg.grad(lambda y: x * y)(x))(3.0)) == 1.0
    assert float(tg.grad(lambda x: tg.grad(lambda y: x * x * y)(x))(3.0)) == 6.0
    assert [float(g) for g in tg.grad(lambda a, b: a * a * b, (0, 1))(x, x)] == [18.0, 9.0]


def test_perturbations_are_not_confused() -> None:
    # Siskind and Pearlmutter's example: d/dx (x d/dy (x + y)) = 1.
    assert float(tg.grad(lambda x: x * tg.grad(lambda y: x + y)(1.0))(1.0)) == 1.0


# -- zeros


@pytest.mark.parametrize(
    "f, names",
    [
        (lambda x, y: tnp.sum(tnp.sin(x)), ["cos"]),
        (lambda x, y: tnp.sum(stop_gradient(tnp.exp(y)) * x), []),
        (lambda x, y: tnp.sum(x + tnp.exp(y)), ["exp"]),
        (lambda x, y: tnp.sum(y), []),
    ],
)
def test_no_node_is_built_for_what_nothing_needs(f: Any, names: list[str]) -> None:
    """A gradient with respect to `x` alone differentiates nothing that only `y` reaches."""
    tape = tg.trace(tg.grad(f))(X, X)
    assert "exp" not in [node.op.name for node in tape.nodes if node.grad]
    made = {"cos", "exp", "mul", "sin"} & {node.op.name for node in optimize(tape).nodes if node.grad}
    assert made <= {*names, "mul"}


def test_a_linear_function_needs_no_multiplication() -> None:
    assert set(ops_of(tg.grad(lambda x: tnp.sum(x + x)), X)) <= {"broadcast_in_dim", "add"}


def test_unused_arguments_have_gradient_zero() -> None:
    tree = {"used": X, "unused": np.ones((2, 2), np.float32), "scalar": 2.0}
    grads = tg.grad(lambda p: tnp.sum(p["used"]))(tree)
    assert grads["unused"].shape == (2, 2)
    assert not grads["unused"].any()
    assert grads["scalar"].shape == ()
    assert float(grads["scalar"]) == 0.0
    np.testing.assert_array_equal(grads["used"], np.ones(3))
    value, grads = tg.value_and_grad(lambda x: 5.0, argnums=0)(X)
    assert float(value) == 5.0
    assert not grads.any()


def test_a_value_that_no_gradient_can_reach() -> None:
    assert float(tg.grad(lambda x: tnp.floor(x) * 3.0)(1.5)) == 0.0
    assert float(tg.grad(lambda x: tnp.where(x > 0, 1.0, 2.0))(1.5)) == 0.0
    assert not tg.grad(lambda x: tnp.sum(tnp.sign(x)))(X).any()


# -- sums over uses, broadcasting, dtypes


def test_cotangents_of_several_uses_add_up() -> None:
    check_grads(lambda x: x * tnp.sin(x) + x * x, X, jax_fn=lambda x: x * jnp.sin(x) + x * x)

    def tower(x: Any, np_: Any) -> Any:
        a = np_.exp(x)
        return a * a + a / (1.0 + a) + np_.sum(a) * x

    check_grads(lambda x: tower(x, tnp), X, jax_fn=lambda x: tower(x, jnp))


@pytest.mark.parametrize("shapes", [((3,), ()), ((), (2, 3)), ((2, 1), (1, 3)), ((1, 1, 3), (2, 1)), ((0, 3), (3,))])
def test_broadcasting_is_undone(shapes: Any) -> None:
    rng = np.random.default_rng(0)
    args = [rng.normal(size=s) for s in shapes]
    check_grads(lambda x, y: x * y + y, *args, jax_fn=lambda x, y: x * y + y)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("other", ["float16", "bfloat16", "float32", "int32", "bool"])
def test_a_gradient_has_the_dtype_of_its_argument(dtype: str, other: str) -> None:
    x, y = jnp.ones(3, dtype), jnp.ones(3, other)
    f = lambda np_: lambda x: np_.sum(np_.sin(x) * y)  # noqa: E731
    ours, theirs = tg.grad(f(tnp))(x), jax.grad(f(jnp))(x)
    assert (ours.dtype, ours.shape, ours.weak_type) == (theirs.dtype, theirs.shape, theirs.weak_type)
    np.testing.assert_allclose(np.asarray(ours, np.float32), np.asarray(theirs, np.float32), rtol=1e-2)


@pytest.mark.parametrize("argument", [2.0, np.float32(2.0), jnp.float16(2.0), np.float64(2.0), 1 + 2j], ids=repr)
def test_gradient_types_of_scalars(argument: Any) -> None:
    f = lambda x: (x * x).real  # noqa: E731
    ours, theirs = tg.grad(f)(argument), jax.grad(f)(jnp.asarray(argument) if type(argument) is complex else argument)
    assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
    np.testing.assert_allclose(ours, theirs)


# -- splitting a body


def test_linearize_splits_a_body_into_forward_and_backward() -> None:
    body = optimize(tg.trace(lambda x, y: tnp.sin(x) * y)(X, X))
    lin = linearize(body, (True, False), (True,))
    check(lin.forward)
    check(lin.backward)
    assert lin.cts == (0,)
    assert lin.grads == (0,)
    assert [v.aval for v in lin.forward.outputs[:1]] == [v.aval for v in body.outputs]
    kinds = [kind for kind, _ in lin.saved]
    assert set(kinds) <= {"input", "output", "residual"}
    assert len(lin.backward.inputs) == len(lin.saved) + 1
    assert linearize(body, (True, False), (True,)) is lin


def test_linearize_returns_nothing_where_there_is_no_gradient() -> None:
    body = optimize(tg.trace(lambda x, y: tnp.exp(x))(X, X))
    assert linearize(body, (True, True), (True,)).grads == (0,)


# -- ops of one's own


def test_an_op_needs_a_rule_an_operand() -> None:
    with pytest.raises(TypeError, match="op 'two': lower takes 2 operands and vjp has 1 rules"):
        tg.Op("two", lambda x, y: x + y, (lambda ct, out, x, y: ct,))
    with pytest.raises(TypeError, match="several outputs"):
        tg.Op("several", lambda x: (x, x), (lambda ct, out, x: ct,), multiple=True)


def test_an_op_with_several_outputs() -> None:
    def rule(node: Any, cts: Any, needs: Any) -> list[Any]:
        (x,) = node.inputs
        s, c = (0.0 if ct is None else ct for ct in cts)
        return [s * tnp.cos(x) - c * tnp.sin(x)]

    sincos = tg.Op("sincos", lambda x: (jnp.sin(x), jnp.cos(x)), rule, multiple=True)
    check_grads(lambda x: sincos(x)[0], X, jax_fn=jnp.sin)
    check_grads(sincos, X, jax_fn=lambda x: (jnp.sin(x), jnp.cos(x)))


def test_an_operand_without_derivative() -> None:
    scale = tg.Op("scale", lambda x, n: x * n, (lambda ct, out, x, n: ct * n, None))
    assert float(tg.grad(scale)(2.0, 3.0)) == 3.0
    assert float(tg.grad(scale, argnums=1)(2.0, 3.0)) == 0.0


def test_an_op_that_takes_any_number_of_operands() -> None:
    def rule(node: Any, cts: Any, needs: Any) -> list[Any]:
        return [cts[0] if need else None for need in needs]

    total = tg.Op("total", lambda *xs: sum(xs[1:], xs[0]), rule)
    grads = tg.grad(lambda a, b, c: total(a, b, c) * 2.0, (0, 2))(1.0, 2.0, 3.0)
    assert [float(g) for g in grads] == [2.0, 2.0]


def test_what_a_constant_depends_on_is_not_differentiated() -> None:
    """A rule that would raise is not asked for what only `stop_gradient` reaches."""

    def refuse(*args: Any, **params: Any) -> Any:
        raise AssertionError("differentiated")

    strict = tg.Op("strict", lambda x, y: x * y, (refuse, lambda ct, out, x, y: ct * x))
    assert float(tg.grad(lambda x: strict(tg.stop_gradient(x), 2.0) * x)(3.0)) == 6.0
