"""The feed-forward layers beside flax's with the same weights: values, gradients, second derivatives, averages."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tests.reference import check_grads, check_message, check_value, in_groups, together, x64
from tracegrad import initializers, nn

RNG = np.random.default_rng(0)
KEY = tg.random.key(0)
F64 = np.float64


def normal(*shape: int) -> Any:
    return RNG.normal(size=shape)


def drawn(layer: Any) -> Any:
    """A layer of this structure with other, float64, parameters."""
    return jax.tree.map(lambda p: normal(*p.shape) + 0.5, layer)


def flax_of(module: Any, **state: Any) -> Any:
    """A flax module as a function of a layer, by the names of its fields, and an input."""

    def call(layer: Any, x: Any) -> Any:
        own = {name: getattr(layer, name, None) for name in ("kernel", "bias", "scale")}
        params = {name: value for name, value in own.items() if value is not None}
        return module.apply({"params": params, **state}, x)

    return call


L = flax.linen
PLAIN: list[tuple[str, Any]] = [
    ("linear", (nn.Linear.init(KEY, 3, 2), L.Dense(2), normal(4, 3))),
    ("linear without bias", (nn.Linear.init(KEY, 3, 2, use_bias=False), L.Dense(2, use_bias=False), normal(2, 2, 3))),
    ("conv 1d", (nn.Conv.init(KEY, 2, 4, (3,), groups=2), L.Conv(4, (3,), feature_group_count=2), normal(2, 5, 2))),
    (
        "conv 2d",
        (
            nn.Conv.init(KEY, 2, 3, [3, 2], stride=[2, 1], padding=[(1, 0), 1]),
            L.Conv(3, (3, 2), strides=(2, 1), padding=[(1, 0), (1, 1)]),
            normal(1, 4, 3, 2),
        ),
    ),
    (
        "conv 3d",
        (
            nn.Conv.init(KEY, 1, 2, (2, 2, 2), 1, "VALID", 2, use_bias=False),
            L.Conv(2, (2, 2, 2), padding="VALID", kernel_dilation=2, use_bias=False),
            normal(1, 3, 3, 3, 1),
        ),
    ),
    (
        "conv transpose 1d",
        (nn.ConvTranspose.init(KEY, 2, 3, (3,), 2), L.ConvTranspose(3, (3,), strides=(2,)), normal(2, 3, 2)),
    ),
    (
        "conv transpose 2d",
        (
            nn.ConvTranspose.init(KEY, 1, 2, (3, 2), (2, 1), "VALID", use_bias=False),
            L.ConvTranspose(2, (3, 2), strides=(2, 1), padding="VALID", use_bias=False),
            normal(1, 2, 2, 1),
        ),
    ),
    (
        "conv transpose 3d",
        (nn.ConvTranspose.init(KEY, 1, 1, (2, 1, 2), padding=1), L.ConvTranspose(1, (2, 1, 2), padding=1),
         normal(1, 2, 3, 2, 1)),
    ),
    ("layer norm", (nn.LayerNorm.init(4), L.LayerNorm(), normal(2, 3, 4))),
    ("layer norm alone", (nn.LayerNorm.init(4, use_scale=False, use_bias=False, epsilon=0.1),
                          L.LayerNorm(use_scale=False, use_bias=False, epsilon=0.1), normal(3, 4))),
    ("rms norm", (nn.RMSNorm.init(4), L.RMSNorm(), normal(3, 4))),
    ("group norm", (nn.GroupNorm.init(4, 2), L.GroupNorm(2), normal(2, 3, 2, 4))),
    ("group norm of rows", (nn.GroupNorm.init(6, 2, use_bias=False), L.GroupNorm(2, use_bias=False), normal(2, 6))),
]  # fmt: skip


@in_groups(PLAIN, 7)
def test_values_and_derivatives_are_those_of_flax(group: Any) -> None:
    def check(cases: list[Any]) -> None:
        args = [(drawn(layer), x) for layer, _, x in cases]
        check_value(
            lambda args: [layer(x) for layer, x in args],
            lambda args: [flax_of(m)(*arg) for (_, m, _), arg in zip(cases, args, strict=True)],
            args,
            rtol=1e-9,
        )
        check_grads(
            lambda *args: [layer(x) for layer, x in args],
            *args,
            jax_fn=lambda *args: [flax_of(m)(*arg) for (_, m, _), arg in zip(cases, args, strict=True)],
        )

    together(check, group)


@pytest.mark.parametrize("parts", [{}, {"use_scale": False, "use_bias": False}], ids=["learned", "plain"])
def test_batch_norm_is_that_of_flax(parts: Any) -> None:
    momentum, x = 0.9, normal(3, 2, 4)
    model = drawn(nn.BatchNorm.init(4, momentum=momentum, **parts))
    state = {"mean": normal(4), "var": normal(4) ** 2 + 0.5}

    def ours(model: Any, state: Any, x: Any, training: bool) -> Any:
        run = nn.Run(model, state, training=training)
        return model(x, run), jax.tree.map(tnp.asarray, run.state)

    def flax_norm(model: Any, state: Any, x: Any, training: bool) -> Any:
        module = L.BatchNorm(not training, momentum=momentum, use_fast_variance=False, **parts)
        params = {} if parts else {"scale": model.scale, "bias": model.bias}
        out, new = module.apply({"params": params, "batch_stats": state}, x, mutable=["batch_stats"])
        return out, new["batch_stats"]

    for training in (True, False):
        f, g = (functools.partial(f, training=training) for f in (ours, flax_norm))
        check_value(f, g, model, state, x, rtol=1e-9)
        first = lambda f: lambda m, s, x: f(m, s, x)[0]  # noqa: E731
        check_grads(first(f), model, state, x, jax_fn=first(g))
    with x64():
        grads = tg.grad(lambda x: ours(model, state, x, True)[1]["mean"].sum())(x)
        assert (np.asarray(grads) == 0).all()


def test_averages_after_some_steps_are_those_of_flax() -> None:
    model = nn.BatchNorm.init(3)
    state, module = nn.init_state(model), L.BatchNorm(False)
    theirs = module.init(jax.random.key(0), jnp.ones((1, 3)))

    @tg.jit
    def step(state: Any, x: Any) -> Any:
        run = nn.Run(model, state, training=True)
        model(x, run)
        return run.state

    for _ in range(5):
        x = normal(8, 3).astype(np.float32) * 3 + 1
        state = step(state, x)
        _, new = module.apply(theirs, x, mutable=["batch_stats"])
        theirs = {**theirs, **new}
    for name in ("mean", "var"):
        np.testing.assert_allclose(state[name], theirs["batch_stats"][name], rtol=1e-5)


def test_embedding() -> None:
    model = drawn(nn.Embedding.init(KEY, 5, 3))
    ids = np.array([[0, 4], [2, 2]])
    check_value(lambda m: m(ids), lambda m: np.asarray(m.table)[ids], model)
    module = L.Embed(5, 3)
    check_grads(
        lambda m, q: (m(ids) ** 2, m.attend(q)),
        model,
        normal(2, 3),
        jax_fn=lambda m, q: (
            module.apply({"params": {"embedding": m.table}}, ids) ** 2,
            module.apply({"params": {"embedding": m.table}}, q, method="attend"),
        ),
    )
    check_message(lambda: model(np.array([1, 5])), IndexError, r"^Embedding: there is no row 5 .* from 0 to 4")
    check_message(lambda: model(np.array([-1])), IndexError, r"^Embedding: there is no row -1")
    check_message(lambda: model(np.ones((2, 5))), TypeError, r"^Embedding takes integers, not f.*rows @ layer\.table")
    for f in (tg.jit(lambda i: model(i)), tg.vmap(lambda i: model(i))):
        out = np.asarray(f(np.array([1, 5, -1])))
        assert np.isfinite(out[0]).all() and np.isnan(out[1:]).all()
    out = tg.jit(model)(np.array([1, 200, 255], np.uint8))
    assert np.isfinite(out[0]).all() and np.isnan(out[1:]).all()


@pytest.mark.parametrize("padding", ["VALID", "SAME", 1])
def test_pooling(padding: Any) -> None:
    x = RNG.permutation(2 * 5 * 4 * 3).reshape(2, 5, 4, 3).astype(F64)
    pad = [(1, 1), (1, 1)] if padding == 1 else padding

    def ours(x: Any) -> Any:
        return nn.MaxPool(3, 2, padding)(x), nn.AvgPool((2, 3), 1, padding)(x), nn.AvgPool(2, padding=padding)(x)

    def theirs(x: Any) -> Any:
        pools = L.max_pool(x, (3, 3), (2, 2), pad), L.avg_pool(x, (2, 3), (1, 1), pad)
        return *pools, L.avg_pool(x, (2, 2), (2, 2), pad)

    check_value(ours, theirs, x)
    check_grads(ours, x, jax_fn=theirs, order=1)


def test_weight_standardize() -> None:
    kernel = normal(3, 2, 4) * 3 + 1

    def reference(kernel: Any) -> Any:
        mean = kernel.mean((0, 1))
        return (kernel - mean) / jnp.sqrt(((kernel - mean) ** 2).mean((0, 1)) + 1e-5)

    check_value(nn.weight_standardize, reference, kernel, rtol=1e-9)
    check_grads(nn.weight_standardize, kernel, jax_fn=reference)
    layer = nn.WeightStandardize(drawn(nn.Conv.init(KEY, 2, 4, (3,))))
    module = L.Conv(4, (3,))

    def theirs(layer: Any, x: Any) -> Any:
        params = {"kernel": reference(layer.layer.kernel), "bias": layer.layer.bias}
        return module.apply({"params": params}, x)

    check_value(lambda m, x: m(x), theirs, layer, normal(1, 4, 2), rtol=1e-9)
    check_message(lambda: nn.weight_standardize(np.ones(3)), ValueError, r"^weight_standardize: the kernel is f")
    check_message(lambda: nn.WeightStandardize(nn.relu), TypeError, r"^WeightStandardize: .*no layer with a kernel")


def test_dropout() -> None:
    x = normal(8, 4, 6)
    for f in (lambda x, run: nn.Dropout(0.5)(x, run), lambda x, run: nn.Sequential([nn.Dropout(0.0)])(x, run)):
        assert f(x, nn.Run(nn.Dropout(0.5), key=KEY)) is x
    drop = nn.Dropout(0.25, broadcast_dims=(1,))
    call = lambda x: drop(x, nn.Run(drop, key=KEY, training=True))  # noqa: E731
    with x64():
        mask = np.asarray(call(np.ones_like(x)))
    assert (mask == mask[:, :1]).all() and set(np.unique(mask)) == {0.0, 1 / 0.75}
    check_value(call, lambda x: x * (mask != 0) / 0.75, x)
    check_grads(lambda x: call(x) ** 2, x, jax_fn=lambda x: (x * (mask != 0) / 0.75) ** 2)
    kept = nn.Dropout(0.3)
    many = kept(np.ones(200_000, np.float32), nn.Run(kept, key=KEY, training=True))
    assert abs(float((many == 0).mean()) - 0.3) < 0.005 and abs(float(many.mean()) - 1) < 0.01
    gone = nn.Dropout(1.0)
    assert (np.asarray(gone(x, nn.Run(gone, key=KEY, training=True))) == 0).all()


def test_residual_and_mlp() -> None:
    mlp = drawn(nn.MLP.init(KEY, [3, 4, 2], activation=nn.tanh))
    wide = nn.Residual(mlp, drawn(nn.Linear.init(KEY, 3, 2)))

    def theirs(wide: Any, x: Any) -> Any:
        first, second = wide.layer.layers
        h = jnp.tanh(x @ first.kernel + first.bias) @ second.kernel + second.bias
        return h + x @ wide.shortcut.kernel + wide.shortcut.bias

    x = normal(5, 3)
    check_value(lambda m, x: m(x), theirs, wide, x)
    check_grads(lambda m, x: m(x), wide, x, jax_fn=theirs)
    check_message(
        lambda: nn.Residual(mlp)(x),
        ValueError,
        r"^Residual: its layer makes f.*\[5,2\] of the input .* Give a shortcut",
    )
    final = nn.MLP.init(KEY, (3, 4), dropout=0.5, activate_final=True)
    out = final(x, nn.Run(final, key=KEY, training=True))
    assert out.shape == (5, 4) and (np.asarray(out) >= 0).all() and (np.asarray(out) == 0).any()
    check_message(lambda: nn.MLP.init(KEY, (3,)), ValueError, r"^MLP\.init: sizes is tuple \(3,\)")


# -- Stack


def block(key: Any) -> Any:
    k1, k2 = tg.random.split(key)
    inner = [nn.BatchNorm.init(4), nn.Linear.init(k1, 4, 8), nn.tanh, nn.Dropout(0.25), nn.Linear.init(k2, 8, 4)]
    return nn.Residual(nn.Sequential(inner))


@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_stack_is_its_layers_one_after_the_other(checkpoint: bool) -> None:
    stack = nn.Stack.init(KEY, 3, block, checkpoint=checkpoint)
    state = nn.init_state(stack)
    assert state["layer"]["layer"]["layers[0]"]["mean"].shape == (3, 4)
    x = normal(6, 4).astype(np.float32)

    def scanned(stack: Any, state: Any, x: Any) -> Any:
        run = nn.Run(stack, state, key=KEY, training=True)
        return (stack(x, run) ** 2).mean(), run.state

    def unrolled(stack: Any, state: Any, x: Any) -> Any:
        keys = tg.random.split(nn.Run(stack, state, key=KEY, training=True).key(stack.layer), 3)
        states = []
        for i in range(3):
            layer, part = jax.tree.map(lambda p, i=i: p[i], (stack.layer, state["layer"]))
            run = nn.Run(layer, part, key=keys[i], training=True)
            x = layer(x, run)
            states.append(run.state)
        return (x**2).mean(), {"layer": jax.tree.map(lambda *xs: tnp.stack(xs), *states)}

    ours = tg.jit(tg.value_and_grad(scanned, has_aux=True))(stack, state, x)
    expected = tg.jit(tg.value_and_grad(unrolled, has_aux=True))(stack, state, x)
    for a, e in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, rtol=2e-5, atol=1e-6)
    (_, new), _ = tg.value_and_grad(scanned, has_aux=True)(stack, state, x)
    assert new["layer"]["layer"]["layers[0]"]["mean"].shape == (3, 4)
    out = stack(x, nn.Run(stack, new))
    assert out.shape == x.shape and np.isfinite(out).all()


def test_a_stack_without_state_beside_jax_and_in_an_ensemble() -> None:
    stack = drawn(nn.Stack.init(KEY, 3, lambda k: nn.MLP.init(k, (2, 3, 2), activation=nn.tanh)))

    def theirs(stack: Any, x: Any) -> Any:
        first, second = stack.layer.layers
        for i in range(3):
            x = jnp.tanh(x @ first.kernel[i] + first.bias[i]) @ second.kernel[i] + second.bias[i]
        return x

    x = normal(4, 2)
    check_value(lambda m, x: m(x), theirs, stack, x)
    check_grads(lambda m, x: m(x, nn.Run(m)), stack, x, jax_fn=theirs)
    make = lambda key: nn.Stack.init(key, 2, block)  # noqa: E731
    models = tg.vmap(make)(tg.random.split(KEY, 3))
    states = tg.vmap(nn.init_state)(models)
    assert jax.tree.leaves(states)[0].shape == (3, 2, 4)
    out = tg.vmap(lambda m, s, x: m(x, nn.Run(m, s)), in_axes=(0, 0, None))(models, states, np.ones((5, 4), np.float32))
    assert out.shape == (3, 5, 4)


def test_what_a_stack_refuses() -> None:
    made = iter([nn.Linear.init(KEY, 2, 2), nn.Linear.init(KEY, 2, 3)])
    check_message(
        lambda: nn.Stack.init(KEY, 2, lambda k: next(made)), ValueError, r"^Stack\.init: layers 0 and 1 differ"
    )
    check_message(
        lambda: nn.Stack.init(KEY, 2, lambda k: nn.relu), TypeError, r"^Stack\.init: make\(key\) gave function"
    )
    check_message(lambda: nn.Stack.init(KEY, 0, block), ValueError, r"^Stack\.init: length=0")
    stack = nn.Stack.init(KEY, 2, block)
    x = np.ones((2, 4), np.float32)
    check_message(lambda: stack(x), ValueError, r"^BatchNorm keeps running averages and needs a run")
    run = lambda: nn.Run(stack, nn.init_state(stack), training=True)  # noqa: E731
    check_message(
        lambda: stack(x, run()), ValueError, r"^Dropout at model\.layer\.layer\.layers\[3\] needs a random key"
    )
    check_message(
        lambda: stack(x[:, :3], run()), ValueError, r"^BatchNorm at model\.layer\.layer\.layers\[0\]: the input"
    )
    narrow = nn.Stack.init(KEY, 2, lambda k: nn.Linear.init(k, 4, 3))
    check_message(lambda: narrow(x), (TypeError, ValueError), r"Stack: .*f32\[2,3\].*f32\[2,4\]|f32\[2,4\].*f32\[2,3\]")


# -- extremes, empty batches, dtypes


LAYERS: list[tuple[Any, Any]] = [
    (nn.Linear.init(KEY, 4, 3), (4,)),
    (nn.Conv.init(KEY, 4, 3, (3,)), (6, 4)),
    (nn.Conv.init(KEY, 4, 3, (3, 3), stride=2), (6, 6, 4)),
    (nn.ConvTranspose.init(KEY, 4, 3, (3, 3), stride=2), (3, 3, 4)),
    (nn.MaxPool(2), (4, 4)),
    (nn.AvgPool(2), (4, 4)),
    (nn.Dropout(0.5), (4,)),
    (nn.BatchNorm.init(4), (2, 4)),
    (nn.LayerNorm.init(4), (4,)),
    (nn.RMSNorm.init(4), (4,)),
    (nn.GroupNorm.init(4, 2), (5, 4)),
    (nn.WeightStandardize(nn.Linear.init(KEY, 4, 3)), (4,)),
    (nn.MLP.init(KEY, (4, 5, 3), dropout=0.5), (4,)),
    (nn.Stack.init(KEY, 2, lambda k: nn.Residual(nn.Linear.init(k, 4, 4))), (4,)),
]


def total(model: Any, state: Any, x: Any, training: bool) -> Any:
    run = nn.Run(model, state, key=KEY, training=training)
    out = model(x, run)
    return (out * out).sum(), (out, run.state)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("case", LAYERS, ids=[f"{i} {type(m).__name__}" for i, (m, _) in enumerate(LAYERS)])
def test_an_empty_batch(case: Any, training: bool) -> None:
    model, shape = case
    x = np.ones((0, *shape), np.float32)
    state = nn.init_state(model)
    (value, (out, new)), grads = tg.value_and_grad(lambda m, x: total(m, state, x, training), (0, 1), has_aux=True)(
        model, x
    )
    one = total(model, state, np.ones((1, *shape), np.float32), False)[1][0]
    assert float(value) == 0 and out.shape == (0, *one.shape[1:])
    assert all((np.asarray(g) == 0).all() for g in jax.tree.leaves(grads))
    assert all((np.asarray(a) == b).all() for a, b in zip(jax.tree.leaves(new), jax.tree.leaves(state), strict=True))


def test_extreme_inputs_have_finite_derivatives_twice() -> None:
    cases = [(model, shape) for model, shape in LAYERS if shape in ((4,), (2, 4), (5, 4))]

    def second(models: Any, xs: Any) -> Any:
        def first(models: Any, xs: Any) -> Any:
            values = [total(m, nn.init_state(m), x, True)[0] for m, x in zip(models, xs, strict=True)]
            return sum(values[1:], values[0])

        def norm(models: Any, xs: Any) -> Any:
            value, grads = tg.value_and_grad(first, (0, 1))(models, xs)
            leaves = [(g * g).sum() for g in jax.tree.leaves(grads)]
            return sum(leaves[1:], leaves[0]), (value, grads)

        return tg.grad(norm, (0, 1), has_aux=True)(models, xs)

    with x64():
        models = jax.tree.map(lambda p: np.asarray(p, F64), [model for model, _ in cases])
        run = tg.jit(second)
        for scale in (0.0, 1e4, -1e4, 1e-30):
            xs = [scale * np.ones((3, *shape), F64) for _, shape in cases]
            xs = [np.where(np.arange(x.size).reshape(x.shape) % 3 == 0, x, -x / 2) for x in xs]
            for path, leaf in jax.tree_util.tree_leaves_with_path(run(models, xs)):
                assert np.isfinite(leaf).all(), (scale, jax.tree_util.keystr(path))


def test_a_constant_batch_has_variance_zero_and_finite_derivatives() -> None:
    x, weights = np.full((4, 3), 7.0), normal(4, 3)
    for model in (nn.BatchNorm.init(3), nn.LayerNorm.init(3), nn.GroupNorm.init(3, 1)):
        model = drawn(model)

        def ours(m: Any, x: Any) -> Any:
            return total(m, nn.init_state(m), x, True)[1][0]

        def theirs(m: Any, x: Any, norm: Any = model) -> Any:
            axis = 0 if isinstance(norm, nn.BatchNorm) else -1
            mean = x.mean(axis, keepdims=True)
            var = ((x - mean) ** 2).mean(axis, keepdims=True)
            return (x - mean) / jnp.sqrt(var + norm.epsilon) * m.scale + m.bias

        with x64():
            actual = tg.jit(tg.grad(lambda m, x, f=ours: (f(m, x) * weights).sum(), (0, 1)))(model, x)
            expected = jax.grad(lambda m, x, f=theirs: (f(m, x) * weights).sum(), (0, 1))(model, x)
            for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
                np.testing.assert_allclose(a, e, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("case", LAYERS, ids=[f"{i} {type(m).__name__}" for i, (m, _) in enumerate(LAYERS)])
def test_low_precision_stays_low_and_statistics_are_wide(case: Any) -> None:
    model, shape = case
    model = jax.tree.map(lambda p: p.astype(jnp.bfloat16), model)
    x = jnp.ones((2, *shape), jnp.bfloat16)
    _, (out, new) = tg.jit(lambda m, x: total(m, nn.init_state(m), x, True))(model, x)
    assert out.dtype == jnp.bfloat16
    assert all(s.dtype == np.float32 for s in jax.tree.leaves(new))


def test_layers_are_made_as_asked() -> None:
    layer = nn.Linear.init(KEY, 400, 300)
    assert abs(float(layer.kernel.std()) - 400**-0.5) < 1e-3 and (np.asarray(layer.bias) == 0).all()
    assert layer.kernel.tolist() == initializers.lecun_normal()(KEY, (400, 300)).tolist()
    other = nn.Conv.init(
        KEY, 2, 3, (3,), kernel_init=initializers.ones, bias_init=initializers.constant(2.0), dtype=jnp.bfloat16
    )
    assert other.kernel.dtype == jnp.bfloat16 and (np.asarray(other.bias, np.float32) == 2).all()
    embed = nn.Embedding.init(KEY, 1000, 64)
    assert abs(float(embed.table.std()) - 1 / 8) < 2e-3
    assert nn.BatchNorm.init(3, use_bias=False).bias is None


def test_wrong_inputs_say_what_and_where() -> None:
    images = nn.Sequential([nn.Conv.init(KEY, 3, 8, (3, 3)), nn.GroupNorm.init(8, 4), nn.LayerNorm.init(4)])
    x = np.ones((1, 8, 8, 3), np.float32)
    run = nn.Run(images)
    at = r"^{} at model\.layers\[{}\]: the input .* has {} features in its last axis, and the layer takes {}"
    check_message(lambda: images(x, run), ValueError, at.format("LayerNorm", 2, 8, 4))
    check_message(lambda: images(x[..., :2], run), ValueError, at.format("Conv", 0, 2, 3))
    check_message(lambda: images(x[0], run), ValueError, r"^Conv at model\.layers\[0\]: .* 2 spatial axes .*x\[None\]")
    check_message(lambda: nn.RMSNorm.init(3)(x[..., :2]), ValueError, r"^RMSNorm: the input f32\[1,8,8,2\]")
    check_message(lambda: nn.ConvTranspose.init(KEY, 3, 2, (3,))(x), ValueError, r"^ConvTranspose: .* 1 spatial axis")
    check_message(
        lambda: nn.Conv.init(KEY, 3, 8, 3), TypeError, r"^Conv\.init: kernel_size is i32.*\(3, 3\) for images"
    )
    check_message(lambda: nn.Conv.init(KEY, 3, 8, (3,), groups=2), ValueError, r"^Conv\.init: groups=2 does not divide")
    check_message(lambda: nn.GroupNorm.init(6, 4), ValueError, r"^GroupNorm\.init: num_groups=4 does not divide")
    check_message(lambda: nn.MaxPool(9)(x), ValueError, r"^MaxPool: the window \(9, 9\) does not fit")
    check_message(lambda: nn.Embedding.init(KEY, 3, 0), ValueError, r"^Embedding\.init: features=0")
    check_message(lambda: tg.jit(lambda x: images(x, nn.Run(images)))(x[0]), ValueError, r"^Conv at model\.layers\[0\]")


def test_parameters_and_states_of_an_ensemble_outside_of_vmap() -> None:
    keys, x = tg.random.split(KEY, 3), np.ones((3, 2, 4), np.float32)
    rows = r"its {} is f32\[3,.*\], with {} axes in place of {} .*vmap"
    check_message(
        lambda: tg.vmap(lambda k: nn.Linear.init(k, 4, 2))(keys)(x),
        ValueError,
        "^Linear: " + rows.format("kernel", 3, 2),
    )
    check_message(
        lambda: tg.vmap(lambda k: nn.Embedding.init(k, 4, 2))(keys)(np.zeros(3, int)),
        ValueError,
        "^Embedding: " + rows.format("table", 3, 2),
    )
    for make in (nn.LayerNorm.init, nn.RMSNorm.init, lambda n: nn.GroupNorm.init(n, 2)):
        norms = jax.tree.map(lambda p: tnp.stack([p] * 3), make(4))
        check_message(lambda norms=norms: norms(x), ValueError, "Norm: " + rows.format("scale", 2, 1))
    norm, state = nn.BatchNorm.init(4), nn.init_state(nn.BatchNorm.init(3))
    check_message(
        lambda: norm(x, nn.Run(norm, state)),
        ValueError,
        r"^BatchNorm at model: the running mean in the state is f32\[3\]",
    )
    convs = tg.vmap(lambda k: nn.Conv.init(k, 4, 2, (3,)))(keys)
    check_message(lambda: convs(x), ValueError, "^Conv: " + rows.format("bias", 2, 1))
