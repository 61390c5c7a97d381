"""`custom_vjp` and `checkpoint` against JAX's, and what they keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tests.reference import check_message
from tracegrad import checkpoint_policies as policies

RNG = np.random.default_rng(0)
X = np.array([0.1, 0.5, 0.9], np.float32)
A = np.array([1.0, 2.0, 3.0], np.float32)


def close(actual: Any, expected: Any, rtol: float = 2e-5) -> None:
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, rtol=rtol, atol=1e-5)


# -- custom_vjp


def scaled(lib: Any, np: Any) -> Callable[..., Any]:
    """A derivative that is not that of the function, so that it shows which one was used."""

    def f(n: Any, x: Any, y: Any) -> Any:
        return np.sin(x) * y["a"] * n

    f = lib.custom_vjp(f, nondiff_argnums=(0,))
    f.defvjp(
        lambda n, x, y: (f(n, x, y), (np.cos(x), x, y)),
        lambda n, r, ct: (ct * r[0] * r[2]["a"] * n * 2, {"a": ct * np.sin(r[1]) * 3}),
    )
    return lambda x, a: np.sum(f(2.0, x, {"a": a}) ** 2)


TRANSFORMS: dict[str, Callable[[Any, Any, Any], Callable[..., Any]]] = {
    "value": lambda t, np, f: f,
    "grad": lambda t, np, f: t.value_and_grad(f, (0, 1)),
    "jit of grad": lambda t, np, f: t.jit(t.value_and_grad(f, (0, 1))),
    "grad of jit": lambda t, np, f: t.grad(t.jit(f), (0, 1)),
    "grad of grad": lambda t, np, f: t.grad(lambda x, a: np.sum(t.grad(f)(x, a) ** 3), (0, 1)),
    "jacobian": lambda t, np, f: t.jacrev(lambda x, a: np.stack([f(x, a), f(a, x)])),
    "vmap of grad": lambda t, np, f: lambda x, a: t.vmap(t.grad(f), in_axes=(0, None))(np.stack([x, a]), a),
    "grad of vmap": lambda t, np, f: t.grad(lambda x, a: np.sum(t.vmap(f, in_axes=(0, None))(np.stack([x, a]), a))),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_custom_vjp(name: str) -> None:
    build = TRANSFORMS[name]
    close(build(tg, tnp, scaled(tg, tnp))(X, A), build(jax, jnp, scaled(jax, jnp))(X, A))


def test_custom_vjp_with_keywords_none_and_no_residuals() -> None:
    @tg.custom_vjp
    def f(x: Any, y: Any, power: Any = 2.0) -> Any:
        return x**power + y

    f.defvjp(lambda x, y, power: (f(x, y, power), None), lambda _, ct: (ct * 5.0, None, None))
    assert f(2.0, 1.0) == 5.0
    assert [float(g) for g in tg.grad(lambda x, y: f(x, y, power=3.0), (0, 1))(2.0, 1.0)] == [5.0, 0.0]
    assert f.__name__ == "f"


def test_the_rule_serves_every_pullback_of_one_call() -> None:
    calls = []

    @tg.custom_vjp
    def f(x: Any) -> Any:
        return x * x

    def forward(x: Any) -> Any:
        calls.append("forward")
        return x * x, x

    f.defvjp(forward, lambda x, ct: (3.0 * x * ct,))

    def both(x: Any) -> Any:
        _, pullback = tg.vjp(f, x)
        return pullback(np.float32(1.0))[0], pullback(np.float32(2.0))[0]

    assert [float(g) for g in tg.jit(both)(2.0)] == [6.0, 12.0]
    assert calls == ["forward"]


def bad(fwd: Any, bwd: Any) -> Callable[[], Any]:
    def call() -> Any:
        f = tg.custom_vjp(lambda x: {"y": x["a"] * 2.0})
        f.defvjp(fwd, bwd)
        return tg.grad(lambda x: tnp.sum(f(x)["y"]))({"a": X})

    return call


def closing() -> Any:
    def loss(x: Any) -> Any:
        f = tg.custom_vjp(lambda y: y * x)
        f.defvjp(lambda y: (y * x, None), lambda _, ct: (ct,))
        return f(2.0)

    return tg.grad(loss)(3.0)


def fine(x: Any) -> Any:
    return {"y": x["a"] * 2.0}, None


ERRORS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "shape": (
        bad(fine, lambda r, ct: ({"a": tnp.zeros(2)},)), TypeError, r"returned f32\[2\] for argument 0\['a'\].*f32",
    ),
    "structure": (bad(fine, lambda r, ct: (ct["y"],)), TypeError, r"returned structure .* for argument 0 of <lambda>"),
    "count": (bad(fine, lambda r, ct: (ct, ct)), TypeError, r"a cotangent for each of the 1 arguments"),
    "no tuple": (bad(fine, lambda r, ct: ct["y"]), TypeError, r"must return a tuple.*it returned f32\[3\]"),
    "no residuals": (bad(lambda x: x["a"], lambda r, ct: ct), TypeError, r"must return \(value, residuals\)"),
    "other value": (
        bad(lambda x: ({"y": x["a"][:1]}, 0), lambda r, ct: (ct,)), TypeError, r"returns f32\[1\] for value\['y'\]",
    ),
    "not callable": (bad(fine, None), TypeError, r"bwd is NoneType None"),
    "no rule": (lambda: tg.custom_vjp(tnp.sin)(1.0), AttributeError, r"has no derivative yet .*defvjp"),
    "closes over": (closing, TypeError, r"closes over a value that is differentiated. Pass that value as an argument"),
    "symbolic zeros": (
        lambda: tg.custom_vjp(tnp.sin).defvjp(tnp.sin, tnp.sin, symbolic_zeros=True), NotImplementedError, "Leave it",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_custom_vjp_messages(name: str) -> None:
    check_message(*ERRORS[name])


def test_arguments_that_hold_none() -> None:
    f = tg.custom_vjp(lambda d: d["a"] * 2.0)
    f.defvjp(lambda d: (d["a"] * 2.0, None), lambda _, ct: ({"a": ct * 2.0, "n": None},))
    np.testing.assert_array_equal(tg.grad(lambda x: f({"a": x, "n": None}).sum())(X), np.full(3, 2.0))
    f.defvjp(lambda d: (d["a"] * 2.0, None), lambda _, ct: (None,))
    np.testing.assert_array_equal(tg.grad(lambda x: f({"a": x, "n": None}).sum())(X), np.zeros(3))


# -- checkpoint

W = (RNG.normal(size=(5, 8, 8)) * 0.4).astype(np.float32)
Z = np.ones((4, 8), np.float32)


def network(np: Any, checkpoint: Any) -> Callable[..., Any]:
    layer = checkpoint(lambda w, x: np.tanh(np.exp(-(np.sin(x @ w) ** 2)) @ w))

    def loss(w: Any, z: Any) -> Any:
        for i in range(5):
            z = layer(w[i], z)
        return np.sum(z**2)

    return loss


KEPT: dict[str, tuple[Any, int]] = {
    "none": (None, 0),
    "nothing": (policies.nothing_saveable, 0),
    "everything": (policies.everything_saveable, 4),
    "dots": (policies.dots_saveable, 2),
    "dots without batch": (policies.dots_with_no_batch_dims_saveable, 2),
    "either": (policies.save_from_both_policies(policies.nothing_saveable, policies.dots_saveable), 2),
}


@pytest.mark.parametrize("name", KEPT)
def test_checkpoint(name: str) -> None:
    policy, kept = KEPT[name]
    ours = tg.value_and_grad(network(tnp, tg.checkpoint(policy=policy)), (0, 1))
    expected = jax.value_and_grad(network(jnp, jax.checkpoint), (0, 1))(W, Z)
    close(ours(W, Z), expected)
    close(tg.jit(ours)(W, Z), expected)
    layers = [node for node in tg.trace(ours)(W, Z).nodes if node.op.name == "checkpoint"]
    assert len(layers) == 5
    assert [len(node.outputs) - 1 for node in layers] == [kept] * 5


def test_checkpoint_by_name_and_second_derivative() -> None:
    def layer(w: Any, x: Any) -> Any:
        hidden = tg.tap("hidden", tnp.sin(x @ w))
        return tnp.tanh(tg.tap("other", hidden * hidden) @ w)

    def loss(policy: Any) -> Any:
        return lambda w, z: tnp.sum(tg.checkpoint(layer, policy=policy)(w, z))

    for policy, kept in (
        (policies.save_only_these_names("hidden"), 1),
        (policies.save_any_names_but_these("hidden"), 1),
        (policies.save_anything_except_these_names("hidden", "other"), 4),
    ):
        (node,) = [n for n in tg.trace(tg.grad(loss(policy)))(W[0], Z).nodes if n.op.name == "checkpoint"]
        assert len(node.outputs) - 1 == kept
    close(
        tg.grad(loss(policies.save_only_these_names("hidden")))(W[0], Z),
        tg.grad(lambda w, z: tnp.sum(layer(w, z)))(W[0], Z),
    )

    def second(t: Any, np: Any) -> Any:
        return t.grad(lambda w: np.sum(t.grad(network(np, t.checkpoint))(w, Z) ** 2))

    close(second(tg, tnp)(W), second(jax, jnp)(W), 1e-3)


def test_checkpoint_needs_less_memory() -> None:
    w = jnp.ones((20, 32, 32), jnp.float32) / 32
    z = jnp.ones((256, 32), jnp.float32)

    def loss(wrap: Any) -> Any:
        layer = wrap(lambda w, x: tnp.sin(tnp.tanh(tnp.exp(-((x @ w) ** 2)) @ w) * x))
        return tg.jit(tg.grad(lambda w, z: tnp.sum(tg.scan(lambda z, w: (layer(w, z), None), z, w)[0])))

    def temporary(f: Any) -> int:
        return int(f.lower(w, z).compile().memory_analysis().temp_size_in_bytes)

    assert temporary(loss(tg.checkpoint)) < 0.6 * temporary(loss(lambda f: f))


def test_checkpoint_arguments() -> None:
    double = tg.checkpoint(lambda n, x, *, shift=0.0: tnp.sin(x) * n + shift, static_argnums=(0,))
    assert float(tg.grad(lambda x: double(2, x, shift=1.0))(0.0)) == 2.0
    with pytest.raises(TypeError, match=r"policy is str 'dots' at .*test_custom.py"):
        tg.checkpoint(lambda x: x, policy="dots")  # type: ignore[arg-type]
