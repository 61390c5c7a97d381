"""Attention: beside flax's and written-out formulas, masked and in blocks, as a layer, cached, and in a transformer."""

from __future__ import annotations

import re
from typing import Any

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tracegrad as tg
from tests.reference import check_grads, check_message, check_value, x64
from tracegrad import nn

RNG = np.random.default_rng(0)
KEY = tg.random.key(0)
F64, F32 = np.float64, np.float32
B, T, S, N, K, H = 2, 4, 5, 4, 2, 6


def normal(*shape: int) -> Any:
    return RNG.normal(size=shape)


def drawn(layer: Any) -> Any:
    """A layer of this structure with other, float64, parameters."""
    return jax.tree.map(lambda p: normal(*p.shape) / 2, layer)


def formula(q: Any, k: Any, v: Any, bias: Any = 0.0, seen: Any = True, scale: Any = None) -> Any:
    """Written out, over repeated heads; a row that sees nothing is 0. JAX's own takes its scores in float32."""
    k, v = (jnp.repeat(x, q.shape[2] // x.shape[2], 2) for x in (k, v))
    s = jnp.einsum("btnh,bsnh->bnts", q, k) * (q.shape[-1] ** -0.5 if scale is None else scale) + bias
    seen = jnp.broadcast_to(seen, s.shape)
    e = jnp.where(seen, jnp.exp(jnp.where(seen, s, 0)), 0)
    total = e.sum(-1, keepdims=True)
    return jnp.einsum("bnts,bsnh->btnh", e / jnp.where(total == 0, 1, total), v)


MASK = RNG.uniform(size=(B, 1, T, S)) < 0.6
MASK[0, 0, 1] = False
MASK[1, 0, 3] = False
CAUSAL, WINDOW = np.tril(np.ones((T, S), bool)), np.abs(np.arange(T)[:, None] - np.arange(S)) <= 1
WINDOW_LEFT = (np.arange(T)[:, None] - np.arange(S) <= 2) & (np.arange(S) - np.arange(T)[:, None] <= 0)
Q_LENGTHS, K_LENGTHS = np.array([4, 2], np.int32), np.array([3, 0], np.int32)
INSIDE = (np.arange(T)[:, None] < Q_LENGTHS[:, None, None, None]) & (np.arange(S) < K_LENGTHS[:, None, None, None])
CASES: dict[str, tuple[dict[str, Any], Any, Any]] = {
    "plain": ({}, True, None),
    "mask": ({"mask": MASK}, MASK, normal(N, 1, S)),
    "causal": ({"is_causal": True, "mask": MASK[:, :, :1], "scale": 0.3}, CAUSAL & MASK[:, :, :1], normal(B, 1, T, 1)),
    "window": ({"local_window_size": 1}, WINDOW, normal(B, N, T, S)),
    "lengths": (
        {"local_window_size": (2, 0), "query_seq_lengths": Q_LENGTHS, "key_value_seq_lengths": K_LENGTHS},
        WINDOW_LEFT & INSIDE,
        normal(1, 1, 1, 1),
    ),
}


@pytest.mark.parametrize("block_size", [None, 2], ids=["plain", "blocks"])
def test_values_and_derivatives_are_those_of_the_formula(block_size: Any) -> None:
    q, k, v = normal(B, T, N, H), normal(B, S, K, H), normal(B, S, K, H)
    biases = {name: bias for name, (_, _, bias) in CASES.items() if bias is not None}

    def ours(q: Any, k: Any, v: Any, biases: Any) -> Any:
        return [
            nn.dot_product_attention(q, k, v, biases.get(name), **options, block_size=block_size)
            for name, (options, _, _) in CASES.items()
        ]

    def theirs(q: Any, k: Any, v: Any, biases: Any) -> Any:
        return [
            formula(q, k, v, biases.get(name, 0.0), seen, options.get("scale"))
            for name, (options, seen, _) in CASES.items()
        ]

    check_value(ours, theirs, q, k, v, biases, only=("eager", "jit"))
    check_grads(ours, q, k, v, biases, jax_fn=theirs)


def test_arguments_are_those_of_jax() -> None:
    q, k, v = (normal(*s).astype(F32) for s in ((B, T, N, H), (B, S, K, H), (B, S, K, H)))
    for name, (options, seen, bias) in CASES.items():
        rows = np.broadcast_to(seen, (B, N, T, S)).any(-1).swapaxes(1, 2)[..., None]
        bias = None if bias is None else bias.reshape((1,) * (4 - bias.ndim) + bias.shape).astype(F32)
        theirs = jax.nn.dot_product_attention(q, k, v, bias, **options)
        ours = nn.dot_product_attention(q, k, v, bias, **options)
        np.testing.assert_allclose(ours, np.where(rows, theirs, 0), rtol=2e-5, atol=2e-6, err_msg=name)
    np.testing.assert_allclose(
        nn.dot_product_attention(q[0], k[0], v[0]), jax.nn.dot_product_attention(q, k, v)[0], 2e-5, 2e-6
    )
    low = [x.astype(jnp.bfloat16) for x in (q, k, v)]
    for block in (None, 2, 100):
        wide = nn.dot_product_attention(q, k, v, block_size=block)
        np.testing.assert_allclose(wide, jax.nn.dot_product_attention(q, k, v), rtol=2e-5, atol=2e-6)
        out = nn.dot_product_attention(*low, block_size=block)
        assert out.dtype == jnp.bfloat16
        np.testing.assert_allclose(out.astype(F32), jax.nn.dot_product_attention(q, k, v), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("block_size", [None, 2])
@pytest.mark.parametrize("scale", [0.0, 1e4, -1e4])
def test_extremes_and_rows_that_see_nothing_have_finite_derivatives_twice(block_size: Any, scale: float) -> None:
    def first(q: Any, k: Any, v: Any) -> Any:
        options = {"mask": MASK, "block_size": block_size}
        return (nn.dot_product_attention(q, k, v, **options) ** 2).sum()

    def second(q: Any, k: Any, v: Any) -> Any:
        return sum((g * g).sum() for g in tg.grad(first, (0, 1, 2))(q, k, v))

    with x64():
        q, k, v = (scale * normal(*s) for s in ((B, T, N, H), (B, S, K, H), (B, S, K, H)))
        for f in (first, second):
            grads = tg.jit(tg.grad(f, (0, 1, 2)))(q, k, v)
            assert all(np.isfinite(g).all() for g in grads)
            assert (np.asarray(grads[0])[0, 1] == 0).all() and (np.asarray(grads[0])[1, 3] == 0).all()
        out = nn.dot_product_attention(q, k, v, mask=MASK, block_size=block_size)
        assert (np.asarray(out)[0, 1] == 0).all()


@pytest.mark.parametrize("block_size", [None, 2])
def test_empty(block_size: Any) -> None:
    for b, t, s in ((0, 3, 3), (2, 0, 3), (2, 3, 0)):
        args = np.ones((b, t, 2, 4), F32), np.ones((b, s, 2, 4), F32), np.ones((b, s, 2, 4), F32)
        f = lambda *args: (nn.dot_product_attention(*args, is_causal=True, block_size=block_size) ** 2).sum()  # noqa: E731
        value, grads = tg.value_and_grad(f, (0, 1, 2))(*args)
        assert float(value) == 0 and all((np.asarray(g) == 0).all() for g in grads)


def test_blocks_never_hold_the_matrix() -> None:
    t, block = 1024, 64
    q = np.zeros((1, t, 2, 8), F32)

    def loss(block_size: Any) -> Any:
        return lambda q, k, v: (nn.dot_product_attention(q, k, v, is_causal=True, block_size=block_size) ** 2).sum()

    def largest(f: Any) -> tuple[int, int]:
        compiled = tg.jit(f).lower(q, q, q).compile()
        shapes = re.findall(r"[a-z]+\d*\[([\d,]+)\]", compiled.as_text())
        sizes = [np.prod([int(n) for n in shape.split(",")]) for shape in shapes]
        return int(max(sizes)), compiled.memory_analysis().temp_size_in_bytes

    for transform in (lambda f: f, lambda f: tg.value_and_grad(f, (0, 1, 2))):
        elements, memory = largest(transform(loss(block)))
        assert elements < t * t and memory < 4 * t * t
        elements, memory = largest(transform(loss(None)))
        assert elements >= t * t and memory >= 4 * t * t


def test_dropout_of_weights() -> None:
    q, k = normal(2, 40, 2, 4).astype(F32), normal(2, 50, 2, 4).astype(F32)
    v = np.ones((2, 50, 2, 4), F32)
    for block in (None, 16):
        drop = lambda v, block=block, **o: nn.dot_product_attention(  # noqa: E731
            q * 0, k, v, dropout_rate=0.25, dropout_key=KEY, block_size=block
        )
        out = np.asarray(drop(v))
        assert 0.9 < out.mean() < 1.1 and out.std() > 0.03
        counts = out * 50 * 0.75
        np.testing.assert_allclose(counts, counts.round(), atol=1e-3)
        # What was dropped is the same in the backward pass: the function is linear in the values.
        w = normal(*out.shape).astype(F32)
        grad = tg.jit(tg.grad(lambda v, w=w, drop=drop: (drop(v) * w).sum()))(v)
        u = normal(*v.shape).astype(F32)
        np.testing.assert_allclose((grad * u).sum(), (np.asarray(drop(u)) * w).sum(), rtol=1e-3)
    check_message(
        lambda: nn.dot_product_attention(q, k, v, dropout_rate=0.5),
        ValueError,
        r"^dot_product_attention: dropout_rate=0\.5",
    )


def test_blocks_with_dropout_have_the_derivatives_of_differences() -> None:
    q, k, v = normal(1, 3, 2, 4), normal(1, 5, 2, 4), normal(1, 5, 2, 4)
    options = {"dropout_rate": 0.4, "dropout_key": KEY, "block_size": 2}
    check_grads(lambda q, k, v: nn.dot_product_attention(q, k, v, **options), q, k, v, order=1)


def test_what_the_function_refuses() -> None:
    x = np.ones((2, 3, 4, 8), F32)
    refuse = lambda pattern, *args, kind=ValueError, **options: check_message(  # noqa: E731
        lambda: nn.dot_product_attention(*args, **options), kind, "^dot_product_attention: " + pattern
    )
    refuse(r"query f32\[2,3,4,8\], key f32\[2,3,4,4\]", x, x[..., :4], x[..., :4])
    refuse(r"3 heads of keys do not divide the 4", x, x[:, :, :3], x[:, :, :3])
    refuse(r"query is f32\[8\]", x[0, 0, 0], x, x)
    refuse(r"query is i", x.astype(int), x, x)
    refuse(
        r"the mask bool\[2,3\] does not broadcast .* \(2, 4, 3, 3\) .*mask\[:, None, None, :\]",
        x,
        x,
        x,
        mask=np.ones((2, 3), bool),
    )
    refuse(r"the mask is f32", x, x, x, mask=np.ones((3, 3), F32), kind=TypeError)
    refuse(r"the bias f32\[5\]", x, x, x, np.ones(5, F32))
    refuse(r"key_value_seq_lengths has 4, and the sequences are 3", x, x, x, key_value_seq_lengths=np.array([1, 4]))
    refuse(r"query_seq_lengths is", x, x, x, query_seq_lengths=np.array([1, 2, 3]))
    refuse(r"block_size=0", x, x, x, block_size=0)
    refuse(r"dropout_rate=2", x, x, x, dropout_rate=2, dropout_key=KEY)


# -- positions


def test_rotary_embedding_turns_pairs() -> None:
    x, positions = normal(2, 5, 3, 8), np.array([0, 1, 5, 100, 3])
    rate = 10000.0 ** (-np.arange(4) / 4)

    def turned(x: Any) -> Any:
        z = (x[..., :4] + 1j * x[..., 4:]) * np.exp(1j * positions[:, None, None] * rate)
        return np.concatenate([z.real, z.imag], -1)

    check_value(lambda x: nn.rotary_embedding(x, positions), turned, x)
    check_grads(lambda x: nn.rotary_embedding(x, positions) ** 2, x)
    with x64():
        q, k = normal(1, 1, 8), normal(1, 1, 8)
        at = lambda x, p: np.asarray(nn.rotary_embedding(x, np.array([p])))[0, 0]  # noqa: E731
        assert abs(at(q, 7) @ at(k, 3) - at(q, 104) @ at(k, 100)) < 1e-10
    check_message(lambda: nn.rotary_embedding(x[..., :3]), ValueError, r"^rotary_embedding: .* even number")


def test_sinusoidal_embedding_is_that_of_the_paper() -> None:
    out = np.asarray(nn.sinusoidal_embedding(np.arange(50), 6))
    for p in (0, 3, 49):
        for i in range(3):
            angle = p / 10000 ** (2 * i / 6)
            np.testing.assert_allclose(out[p, 2 * i : 2 * i + 2], [np.sin(angle), np.cos(angle)], atol=1e-5)
    check_message(lambda: nn.sinusoidal_embedding(np.arange(3), 5), ValueError, r"^sinusoidal_embedding: features=5")


# -- the layer


def flax_attention(layer: Any, x: Any, kv: Any = None, **options: Any) -> Any:
    heads = {"query": layer.num_heads, "key": layer.num_kv_heads, "value": layer.num_kv_heads}
    size = layer.query.kernel.shape[1] // layer.num_heads
    params = {
        name: {
            "kernel": getattr(layer, name).kernel.reshape(-1, n, size),
            "bias": getattr(layer, name).bias.reshape(n, size),
        }
        for name, n in heads.items()
    }
    out = layer.out
    params["out"] = {"kernel": out.kernel.reshape(layer.num_heads, size, -1), "bias": out.bias}
    features = {"qkv_features": layer.num_heads * size, "out_features": out.kernel.shape[1]}
    module = flax.linen.MultiHeadDotProductAttention(layer.num_heads, deterministic=True, **features)
    return module.apply({"params": params}, x, x if kv is None else kv, **options)


def test_the_layer_is_that_of_flax() -> None:
    own = drawn(nn.MultiHeadAttention.init(KEY, 2, 4, is_causal=True))
    cross = drawn(nn.MultiHeadAttention.init(KEY, 2, 4, 6, 5, 3))
    x, kv = normal(2, 3, 4), normal(2, 5, 3)
    seen = np.array([[1, 1, 0, 1, 0], [1, 0, 0, 0, 0]], bool)

    def ours(own: Any, cross: Any, x: Any, kv: Any) -> Any:
        return own(x, nn.Run(own)), cross(x, inputs_kv=kv, key_mask=seen), cross(x[0], inputs_kv=kv[0])

    def theirs(own: Any, cross: Any, x: Any, kv: Any) -> Any:
        return (
            flax_attention(own, x, mask=np.tril(np.ones((3, 3), bool))),
            flax_attention(cross, x, kv, mask=seen[:, None, None]),
            flax_attention(cross, x, kv)[0],
        )

    check_value(ours, theirs, own, cross, x, kv, rtol=1e-9, only=("eager", "jit"))
    check_grads(ours, own, cross, x, kv, jax_fn=theirs)


def test_grouped_heads_are_heads_that_are_repeated() -> None:
    grouped = drawn(nn.MultiHeadAttention.init(KEY, 4, 8, num_kv_heads=2))
    repeat = lambda p: np.repeat(p.reshape(*p.shape[:-1], 2, 2), 2, -2).reshape(*p.shape[:-1], 8)  # noqa: E731
    full = nn.MultiHeadAttention(
        grouped.query, jax.tree.map(repeat, grouped.key), jax.tree.map(repeat, grouped.value), grouped.out, 4, 4
    )
    x = normal(2, 3, 8)
    with x64():
        np.testing.assert_allclose(grouped(x), flax_attention(full, x), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    "options", [{}, {"rotary_base": 100.0, "num_kv_heads": 1, "block_size": 2}], ids=["plain", "all"]
)
def test_a_cache_gives_what_all_at_once_gives(options: Any) -> None:
    make = lambda key: nn.TransformerBlock.init(key, 8, 2, is_causal=True, **options)  # noqa: E731
    model = drawn(nn.Sequential([nn.Linear.init(KEY, 3, 8), nn.Stack.init(KEY, 2, make), make(KEY)]))
    x = normal(2, 5, 3)
    with x64():
        expected = model(x)
        state = nn.init_cache(model, 2, 6)
        assert state["layers[1]"]["layer"]["attention"]["keys"].shape == (2, 2, 6, options.get("num_kv_heads", 2), 4)

        @tg.jit
        def step(model: Any, state: Any, x: Any) -> Any:
            run = nn.Run(model, state)
            return model(x, run), run.state

        first, state = step(model, state, x[:, :2])
        outs = [first]
        for t in range(2, 5):
            out, state = step(model, state, x[:, t : t + 1])
            outs.append(out)
        np.testing.assert_allclose(np.concatenate(outs, 1), expected, rtol=1e-9, atol=1e-10)
        assert int(state["layers[2]"]["attention"]["index"]) == 5
        _, state = step(model, state, x[:, :1])
        late, _ = step(model, state, x[:, :1])
        assert np.isnan(late).all()
        last = model[2]
        run = nn.Run(last, state["layers[2]"])
        check_message(
            lambda: last(normal(2, 1, 8), run),
            ValueError,
            r"^MultiHeadAttention at model\.attention: the cache is full: it has 6 of 6",
        )
        run = nn.Run(last, nn.init_cache(last, 3, 6))
        check_message(lambda: last(normal(2, 1, 8), run), ValueError, r"batch of 2, and the cache is for 3")


def test_dropout_goes_through_the_run() -> None:
    layer = nn.MultiHeadAttention.init(KEY, 2, 8, dropout_rate=0.5)
    x = normal(2, 6, 8).astype(F32)
    np.testing.assert_array_equal(layer(x), layer(x, nn.Run(layer, key=KEY)))
    call = lambda key: np.asarray(layer(x, nn.Run(layer, key=key, training=True)))  # noqa: E731
    np.testing.assert_array_equal(call(KEY), call(KEY))
    assert not np.allclose(call(KEY), call(tg.random.key(1))) and not np.allclose(call(KEY), layer(x))
    check_message(
        lambda: layer(x, nn.Run(layer, training=True)), ValueError, r"^MultiHeadAttention at model needs a random key"
    )


def test_a_block_is_its_formula_and_a_stack_of_them_its_blocks() -> None:
    stack = drawn(
        nn.Stack.init(KEY, 2, lambda k: nn.TransformerBlock.init(k, 4, 2, mlp_features=6, norm=nn.RMSNorm.init))
    )
    x = normal(2, 3, 4)

    def theirs(stack: Any, x: Any) -> Any:
        norm = lambda x, scale: x / jnp.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * scale  # noqa: E731
        for i in range(2):
            p = jax.tree.map(lambda p, i=i: p[i], stack.layer)
            x = x + flax_attention(p.attention, norm(x, p.norm1.scale))
            up, down = p.mlp.layers
            hidden = jax.nn.gelu(norm(x, p.norm2.scale) @ up.kernel + up.bias)
            x = x + hidden @ down.kernel + down.bias
        return x

    check_value(lambda m, x: m(x), theirs, stack, x, rtol=1e-9, only=("eager", "jit"))
    check_grads(lambda m, x: m(x), stack, x, jax_fn=theirs, order=1)
    dropped = nn.Stack.init(KEY, 2, lambda k: nn.TransformerBlock.init(k, 4, 2, dropout_rate=0.3), checkpoint=True)
    loss = lambda m, x, key: (m(x, nn.Run(m, key=key, training=True)) ** 2).sum()  # noqa: E731
    value, grads = tg.jit(tg.value_and_grad(loss))(dropped, x.astype(F32), KEY)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves((value, grads)))
    assert float(value) != float(loss(dropped, x.astype(F32), tg.random.key(1)))


@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_stack_passes_masks_on_to_its_blocks(checkpoint: bool) -> None:
    make = lambda k: nn.TransformerBlock.init(k, 4, 2, mlp_features=6)  # noqa: E731
    stack = drawn(nn.Stack.init(KEY, 3, make, checkpoint=checkpoint))
    seen = np.array([[True, True, False, True], [True, False, False, False]])
    x = normal(2, 4, 4)

    def unrolled(stack: Any, x: Any, seen: Any) -> Any:
        for i in range(3):
            x = jax.tree.map(lambda p, i=i: p[i], stack.layer)(x, key_mask=seen)
        return x

    scanned = lambda m, x, seen: m(x, nn.Run(m), key_mask=seen)  # noqa: E731
    loss = lambda f: lambda m, x, seen: (f(m, x, seen) ** 2).sum()  # noqa: E731
    with x64():
        expected = tg.jit(tg.value_and_grad(loss(unrolled), argnums=(0, 1)))(stack, x, seen)
        for f in (scanned, lambda m, x, seen: m(x, key_mask=seen, mask=None)):
            for run in (tg.value_and_grad(loss(f), argnums=(0, 1)), tg.jit(tg.value_and_grad(loss(f), argnums=(0, 1)))):
                for a, e in zip(jax.tree.leaves(run(stack, x, seen)), jax.tree.leaves(expected), strict=True):
                    np.testing.assert_allclose(a, e, rtol=1e-9, atol=1e-11)
        # What is hidden changes nothing of what is seen, through all the blocks.
        other = np.where(seen[..., None], x, 7.0)
        a, b = (np.asarray(scanned(stack, z, seen))[seen] for z in (x, other))
        np.testing.assert_allclose(a, b, rtol=1e-12)
        assert not np.allclose(a, np.asarray(stack(x))[seen])
    with pytest.raises(TypeError, match="key_masks"):
        stack(x, key_masks=seen)


def test_what_the_layer_refuses() -> None:
    model = nn.Sequential([nn.MultiHeadAttention.init(KEY, 2, 8)])
    layer, x = model[0], np.ones((2, 3, 8), F32)
    check_message(
        lambda: nn.MultiHeadAttention.init(KEY, 3, 8), ValueError, r"^MultiHeadAttention\.init: num_heads=3 does not"
    )
    check_message(
        lambda: nn.MultiHeadAttention.init(KEY, 4, 8, num_kv_heads=3), ValueError, r"num_kv_heads=3 does not divide"
    )
    check_message(
        lambda: nn.MultiHeadAttention.init(KEY, 8, 8, rotary_base=1e4), ValueError, r"rotary_base=10000.0 pairs"
    )
    check_message(lambda: nn.TransformerBlock.init(KEY, 8, 0), ValueError, r"^TransformerBlock\.init: num_heads=0")
    check_message(
        lambda: model(x[..., :5], nn.Run(model)),
        ValueError,
        r"^Linear at model\.layers\[0\]\.query: the input f32\[2,3,5\]",
    )
    check_message(
        lambda: model(x[0, 0], nn.Run(model)),
        ValueError,
        r"^MultiHeadAttention at model\.layers\[0\]: the input is f32\[8\]",
    )
    run = nn.Run(model)
    at = r"^MultiHeadAttention at model\.layers\[0\]: "
    check_message(
        lambda: layer(x, run, mask=np.ones((2, 3), bool)), ValueError, at + r"the mask bool\[2,3\] does not .* key_mask"
    )
    check_message(lambda: layer(x, run, key_mask=np.ones((3, 2), bool)), ValueError, at + r"key_mask is bool\[3,2\]")
    check_message(lambda: layer(x, run, key_mask=np.ones((2, 3))), TypeError, at + r"the key_mask is f")
    check_message(lambda: nn.init_cache(nn.relu, 1, 2), TypeError, r"^init_cache: the model is function")
    check_message(lambda: nn.init_cache(layer, 0, 2), ValueError, r"^init_cache: batch_size=0")
    out = layer(x, key_mask=np.array([[True, False, True], [False] * 3]))
    np.testing.assert_allclose(out[1], np.zeros((3, 8)) + np.asarray(layer.out.bias))
