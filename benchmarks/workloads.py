"""The formulas, each written once for both sides, and the arguments they are run with."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import jax
import numpy

Array = Any
Params = dict[str, Any]
Function = Callable[..., Array]


@dataclass(frozen=True)
class Side:
    """What differs between the two sides: the namespaces that a formula is written against, and the transforms."""

    name: str
    np: Any
    nn: Any
    value_and_grad: Callable[[Function], Function]
    jit: Callable[[Function], Any]
    scan: Callable[..., Any]
    vmap: Callable[..., Function]
    hvp: Callable[..., Any]
    random: Any


def activations(module: Any) -> dict[str, Function]:
    return {name: getattr(module, name) for name in ("relu", "gelu", "sigmoid", "softplus", "softmax", "log_softmax")}


@functools.cache
def jax_side() -> Side:
    import jax.numpy as jnp

    def conv(x: Array, w: Array) -> Array:
        return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def max_pool(x: Array) -> Array:
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")

    def paths(tree: Any, labels: Array) -> Any:
        nodes, signs = (jnp.asarray(x)[labels] for x in (tree.nodes, tree.signs))
        return nodes.reshape(-1), SimpleNamespace(nodes=jnp.arange(nodes.size).reshape(nodes.shape), signs=signs)

    def hierarchical_softmax(hidden: Array, labels: Array, params: Params, tree: Any) -> Array:
        nodes, signs = (jnp.asarray(x)[labels] for x in (tree.nodes, tree.signs))
        scores = jnp.sum(params["w"][nodes] * hidden[:, None], -1) + params["b"][nodes]
        return jnp.mean(jnp.sum(jnp.where(signs == 0, 0, jax.nn.softplus(-scores * signs)), -1))

    nn = SimpleNamespace(conv=conv, max_pool=max_pool, paths=paths, hierarchical_softmax=hierarchical_softmax,
                         **activations(jax.nn))  # fmt: skip

    def hvp(f: Function, primals: Any, tangents: Any) -> Any:
        return jax.jvp(jax.grad(f), primals, tangents)[1]

    return Side("jax", jnp, nn, jax.value_and_grad, jax.jit, jax.lax.scan, jax.vmap, hvp, jax.random)


@functools.cache
def tracegrad_side() -> Side:
    import tracegrad as tg
    import tracegrad.nn
    import tracegrad.numpy as tnp

    layers = {name: getattr(tg.nn, name) for name in ("LSTM", "LSTMCell", "Linear", "MultiHeadAttention")}
    nn = SimpleNamespace(
        conv=tg.nn.conv,
        max_pool=tg.nn.max_pool,
        paths=tg.nn.losses.ClassTree.paths,
        hierarchical_softmax=tg.nn.losses.hierarchical_softmax,
        **activations(tg.nn),
        **layers,
    )
    return Side("tracegrad", tnp, nn, tg.value_and_grad, tg.jit, tg.scan, tg.vmap, tg.hvp, tg.random)


SIDES: dict[str, Callable[[], Side]] = {"tracegrad": tracegrad_side, "jax": jax_side}


@dataclass(frozen=True)
class Workload:
    """A formula, its arguments, and the figures that are taken of it.

    Attributes:
      build: makes a new function of the formula for a side, so that no cache knows it.
      arguments: makes its arguments, which stay the same at every call.
      figures: the names of the figures, as in `measure.FIGURES`.
      calls: where each call has arguments of its own, makes those of one round of calls from the round's number.
      quick: whether `--quick` includes it.
      gradient: what is differentiated of the formula, and how.
      rival: another formula for the same purpose, and its arguments, for the figure that holds ours against it in JAX.
    """

    name: str
    build: Callable[[Side], Function]
    arguments: Callable[[], tuple[Any, ...]]
    figures: tuple[str, ...]
    calls: Callable[[int], list[tuple[Any, ...]]] | None = None
    quick: bool = False
    gradient: Callable[[Side, Function], Function] = lambda side, f: side.value_and_grad(f)
    rival: tuple[Callable[[Side], Function], Callable[[], tuple[Any, ...]]] | None = None

    def rounds(self, number: int) -> list[tuple[Any, ...]]:
        """The arguments of the calls that make up one round: one call, or as `calls` says."""
        return [self.arguments()] if self.calls is None else self.calls(number)


def dense(rng: numpy.random.Generator, *shape: int, fan_in: int | None = None) -> Array:
    """A weight array, scaled by its fan-in."""
    scale = 1 / math.sqrt(fan_in or math.prod(shape[:-1]))
    return jax.device_put(rng.normal(0, scale, shape).astype(numpy.float32))


def zeros(*shape: int) -> Array:
    return jax.device_put(numpy.zeros(shape, numpy.float32))


def integers(rng: numpy.random.Generator, high: int, *shape: int) -> Array:
    return jax.device_put(rng.integers(0, high, shape).astype(numpy.int32))


def cross_entropy(np: Any, nn: Any, logits: Array, labels: Array) -> Array:
    return -np.mean(np.take_along_axis(nn.log_softmax(logits), labels[..., None], axis=-1))


# -- MLP


def mlp(side: Side) -> Function:
    np, nn = side.np, side.nn

    def loss(params: list[Params], x: Array, labels: Array) -> Array:
        *hidden, last = params
        for layer in hidden:
            x = nn.relu(np.matmul(x, layer["w"]) + layer["b"])
        return cross_entropy(np, nn, np.matmul(x, last["w"]) + last["b"], labels)

    return loss


@functools.cache
def mlp_arguments() -> tuple[Any, ...]:
    rng = numpy.random.default_rng(0)
    sizes = (256, 256, 256, 10)
    params = [{"w": dense(rng, n, m), "b": zeros(m)} for n, m in itertools.pairwise(sizes)]
    return params, dense(rng, 128, 256), integers(rng, 10, 128)


# -- convolutions


def cnn(side: Side) -> Function:
    np, nn = side.np, side.nn

    def loss(params: Params, x: Array, labels: Array) -> Array:
        x = nn.max_pool(nn.relu(nn.conv(x, params["conv1"]) + params["bias1"]))
        x = nn.max_pool(nn.relu(nn.conv(x, params["conv2"]) + params["bias2"]))
        x = np.reshape(x, (x.shape[0], -1))
        return cross_entropy(np, nn, np.matmul(x, params["dense"]) + params["bias3"], labels)

    return loss


@functools.cache
def cnn_arguments() -> tuple[Any, ...]:
    rng = numpy.random.default_rng(1)
    params = {"conv1": dense(rng, 3, 3, 1, 16), "bias1": zeros(16), "conv2": dense(rng, 3, 3, 16, 32)}
    params |= {"bias2": zeros(32), "dense": dense(rng, 7 * 7 * 32, 10), "bias3": zeros(10)}
    return params, dense(rng, 32, 28, 28, 1), integers(rng, 10, 32)


# -- a variational autoencoder, which draws its own normal numbers, with several samples of the latent variables: Kingma
# and Welling, "Auto-encoding variational Bayes" (2013)


def vae(side: Side, samples: int = 4) -> Function:
    np, nn = side.np, side.nn

    def dense(x: Array, layer: Params) -> Array:
        return np.matmul(x, layer["w"]) + layer["b"]

    def loss(params: Params, x: Array, key: Array) -> Array:
        hidden = nn.relu(dense(x, params["encoder"]))
        mean, log_variance = np.split(dense(hidden, params["latent"]), 2, axis=-1)
        reconstruction = 0.0
        for k in side.random.split(key, samples):
            z = mean + np.exp(0.5 * log_variance) * side.random.normal(k, mean.shape)
            logits = dense(nn.relu(dense(z, params["decoder"])), params["pixels"])
            reconstruction = reconstruction + np.mean(np.sum(np.logaddexp(0.0, logits) - logits * x, axis=-1))
        divergence = 0.5 * np.mean(np.sum(np.exp(log_variance) + mean * mean - 1 - log_variance, axis=-1))
        return reconstruction / samples + divergence

    return loss


@functools.cache
def vae_arguments(pixels: int = 784, hidden: int = 400, latent: int = 32, batch: int = 128) -> tuple[Any, ...]:
    rng = numpy.random.default_rng(7)
    sizes = {"encoder": (pixels, hidden), "latent": (hidden, 2 * latent), "decoder": (latent, hidden)}
    sizes |= {"pixels": (hidden, pixels)}
    params = {name: {"w": dense(rng, n, m), "b": zeros(m)} for name, (n, m) in sizes.items()}
    return params, jax.device_put(rng.random((batch, pixels)).astype(numpy.float32)), jax.random.key(0)


# -- transformer: pre-norm, causal


def in_turn(block: Function, x: Array, blocks: list[Params]) -> Array:
    for p in blocks:
        x = block(x, p)
    return x


def transformer(side: Side, layers: Function = in_turn) -> Function:
    np, nn = side.np, side.nn

    def layer_norm(x: Array, p: Params) -> Array:
        centred = x - np.mean(x, axis=-1, keepdims=True)
        variance = np.mean(centred * centred, axis=-1, keepdims=True)
        return centred / np.sqrt(variance + 1e-5) * p["scale"] + p["shift"]

    def attention(x: Array, p: Params) -> Array:
        n, t, d = x.shape
        heads = p["q"].shape[1]
        q, k, v = (np.einsum("ntd,dhe->nthe", x, p[name]) for name in "qkv")
        scores = np.einsum("nqhe,nkhe->nhqk", q, k) / math.sqrt(d / heads)
        scores = np.where(np.tril(np.ones((t, t), bool)), scores, -1e9)
        mixed = np.einsum("nhqk,nkhe->nqhe", nn.softmax(scores), v)
        return np.matmul(np.reshape(mixed, (n, t, d)), p["o"])

    def block(x: Array, p: Params) -> Array:
        x = x + attention(layer_norm(x, p["norm1"]), p)
        hidden = nn.gelu(np.matmul(layer_norm(x, p["norm2"]), p["up"]) + p["up_bias"])
        return x + np.matmul(hidden, p["down"]) + p["down_bias"]

    def loss(params: Params, tokens: Array, labels: Array) -> Array:
        x = params["embedding"][tokens] + params["position"]
        x = layers(block, x, params["blocks"])
        return cross_entropy(np, nn, np.matmul(layer_norm(x, params["norm"]), params["logits"]), labels)

    return loss


@functools.cache
def transformer_arguments(layers: int, d: int = 128, heads: int = 4, t: int = 64, n: int = 8) -> tuple[Any, ...]:
    rng = numpy.random.default_rng(2)
    vocabulary = 256

    def norm() -> Params:
        return {"scale": jax.device_put(numpy.ones(d, numpy.float32)), "shift": zeros(d)}

    def block() -> Params:
        p = {name: dense(rng, d, heads, d // heads, fan_in=d) for name in "qkv"}
        p |= {"o": dense(rng, d, d), "up": dense(rng, d, 4 * d), "up_bias": zeros(4 * d)}
        return p | {"down": dense(rng, 4 * d, d), "down_bias": zeros(d), "norm1": norm(), "norm2": norm()}

    params = {"embedding": dense(rng, vocabulary, d), "position": dense(rng, t, d), "norm": norm()}
    params |= {"blocks": [block() for _ in range(layers)], "logits": dense(rng, d, vocabulary)}
    return params, integers(rng, vocabulary, n, t), integers(rng, vocabulary, n, t)


# -- LSTM, unrolled


def lstm(side: Side) -> Function:
    np, nn = side.np, side.nn

    def loss(params: Params, xs: Array, target: Array) -> Array:
        h = c = np.zeros((xs.shape[1], params["u"].shape[0]), xs.dtype)
        for t in range(xs.shape[0]):
            z = np.matmul(xs[t], params["w"]) + np.matmul(h, params["u"]) + params["b"]
            i, f, g, o = np.split(z, 4, axis=-1)
            c = nn.sigmoid(f) * c + nn.sigmoid(i) * np.tanh(g)
            h = nn.sigmoid(o) * np.tanh(c)
        error = np.matmul(h, params["out"]) - target
        return np.mean(error * error)

    return loss


@functools.cache
def lstm_arguments() -> tuple[Any, ...]:
    rng = numpy.random.default_rng(3)
    steps, batch, inputs, hidden = 32, 16, 64, 128
    params = {"w": dense(rng, inputs, 4 * hidden), "u": dense(rng, hidden, 4 * hidden), "b": zeros(4 * hidden)}
    params["out"] = dense(rng, hidden, 16)
    return params, dense(rng, steps, batch, inputs), dense(rng, batch, 16)


def scan_lstm(side: Side) -> Function:
    np, nn = side.np, side.nn

    def loss(params: Params, xs: Array, target: Array) -> Array:
        def step(carry: tuple[Array, Array], x: Array) -> Any:
            h, c = carry
            z = np.matmul(x, params["w"]) + np.matmul(h, params["u"]) + params["b"]
            i, f, g, o = np.split(z, 4, axis=-1)
            c = nn.sigmoid(f) * c + nn.sigmoid(i) * np.tanh(g)
            return (nn.sigmoid(o) * np.tanh(c), c), None

        start = np.zeros((xs.shape[1], params["u"].shape[0]), xs.dtype)
        (h, _), _ = side.scan(step, (start, start), xs)
        error = np.matmul(h, params["out"]) - target
        return np.mean(error * error)

    return loss


# -- layers, beside flax's with the same weights


def lstm_layer(side: Side) -> Function:
    """The layers over time themselves: `nn.LSTM`, and flax's `RNN` of its `OptimizedLSTMCell`."""
    if side.name == "tracegrad":

        def run(params: Params, x: Array) -> Array:
            cell = side.nn.LSTMCell(params["kernel"], params["recurrent"], params["bias"])
            return side.nn.LSTM(cell)(x)[1][1]

    else:
        from flax import nnx

        def run(params: Params, x: Array) -> Array:
            hidden = params["recurrent"].shape[0]
            cell = nnx.OptimizedLSTMCell(x.shape[-1], hidden, rngs=nnx.Rngs(0))
            structure, own, rest = nnx.split(nnx.RNN(cell, return_carry=True), nnx.Param, ...)
            # In the order of the names: dense_h.bias, dense_h.kernel, dense_i.kernel.
            leaves = [params["bias"], params["recurrent"], params["kernel"]]
            own = jax.tree.unflatten(jax.tree.structure(own), leaves)
            start = jax.numpy.zeros((x.shape[0], hidden), x.dtype)
            carry, _ = nnx.merge(structure, own, rest)(x, initial_carry=(start, start))
            return carry[1]

    def loss(params: Params, x: Array, target: Array) -> Array:
        error = side.np.matmul(run(params, x), params["out"]) - target
        return side.np.mean(error * error)

    return loss


@functools.cache
def lstm_layer_arguments() -> tuple[Any, ...]:
    params, xs, target = lstm_arguments()
    names = {"kernel": "w", "recurrent": "u", "bias": "b", "out": "out"}
    return {ours: params[theirs] for ours, theirs in names.items()}, jax.device_put(xs.swapaxes(0, 1)), target


def attention_layer(side: Side, heads: int = 4) -> Function:
    """`nn.MultiHeadAttention`, causal, and flax's. Without biases: the gradient of the keys' is 0 but for rounding."""
    if side.name == "tracegrad":

        def run(params: Params, x: Array) -> Array:
            linear = {name: side.nn.Linear(kernel) for name, kernel in params.items()}
            return side.nn.MultiHeadAttention(**linear, num_heads=heads, num_kv_heads=heads, is_causal=True)(x)

    else:
        from flax import nnx

        def run(params: Params, x: Array) -> Array:
            options = {"decode": False, "deterministic": True, "use_bias": False, "rngs": nnx.Rngs(0)}
            layer = nnx.MultiHeadAttention(heads, x.shape[-1], **options)
            structure, own, rest = nnx.split(layer, nnx.Param, ...)
            shapes = [leaf.shape for leaf in jax.tree.leaves(own)]
            leaves = [p.reshape(s) for p, s in zip(jax.tree.leaves(params), shapes, strict=True)]
            own = jax.tree.unflatten(jax.tree.structure(own), leaves)
            return nnx.merge(structure, own, rest)(x, is_causal=True)

    def loss(params: Params, x: Array) -> Array:
        out = run(params, x)
        return side.np.mean(out * out)

    return loss


@functools.cache
def attention_layer_arguments(d: int = 128, t: int = 64, n: int = 8) -> tuple[Any, ...]:
    rng = numpy.random.default_rng(6)
    params = {name: dense(rng, d, d) for name in ("query", "key", "value", "out")}
    return params, dense(rng, n, t, d, fan_in=1)


# -- gradients of other kinds


def per_example(side: Side, f: Function) -> Function:
    """The gradient for each example of the batch by itself."""

    def one(params: Any, x: Array, label: Array) -> Any:
        return side.value_and_grad(f)(params, x[None], label[None])

    return side.vmap(one, in_axes=(None, 0, 0))


def hessian_vector(side: Side, f: Function) -> Function:
    """The product of the Hessian with the parameters themselves."""

    def product(params: Any, *batch: Any) -> Any:
        return side.hvp(lambda p: f(p, *batch), (params,), (params,))

    return product


# -- chains of elementwise operations


def chain(side: Side, length: int) -> Function:
    np = side.np

    def loss(x: Array) -> Array:
        for i in range(length):
            if i % 3 == 0:
                x = np.sin(x)
            elif i % 3 == 1:
                x = x * 0.9
            else:
                x = x + 0.1
        return np.sum(x)

    return loss


@functools.cache
def chain_arguments(size: int) -> tuple[Any, ...]:
    return (jax.device_put(numpy.linspace(-2, 2, size, dtype=numpy.float32)),)


# -- trees: a structure of its own for every example

TREES = 30
Tree = Any
"""A word's number, or a pair of trees."""


def tree(side: Side) -> Function:
    np = side.np

    def loss(params: Params, example: Tree) -> Array:
        def encode(node: Tree) -> Array:
            if isinstance(node, int):
                return params["words"][node]
            pair = np.concatenate([encode(child) for child in node])
            return np.tanh(np.matmul(pair, params["w"]) + params["b"])

        root = encode(example)
        return np.sum(root * root)

    return loss


@functools.cache
def tree_params() -> Params:
    rng = numpy.random.default_rng(4)
    return {"words": dense(rng, 32, 32), "w": dense(rng, 64, 32), "b": zeros(32)}


def random_tree(rng: numpy.random.Generator, leaves: int) -> Tree:
    if leaves == 1:
        return int(rng.integers(32))
    left = int(rng.integers(1, leaves))
    return random_tree(rng, left), random_tree(rng, leaves - left)


def random_trees(number: int) -> list[tuple[Any, ...]]:
    rng = numpy.random.default_rng([5, number])
    return [(tree_params(), random_tree(rng, int(rng.integers(8, 24)))) for _ in range(TREES)]


# -- the softmax over 100,000 classes, by a tree and in full: the gradient of hidden vectors, and of the parameters used

CLASSES, FEATURES, BATCH = 100_000, 128, 32


def hierarchical(side: Side) -> Function:
    nn = side.nn

    def loss(used: Params, tree: Any) -> Array:
        return nn.hierarchical_softmax(used["hidden"], numpy.arange(BATCH), {k: used[k] for k in ("w", "b")}, tree)

    return loss


def of_paths(side: Side, f: Function) -> Function:
    def gradient(params: Params, hidden: Array, labels: Array, tree: Any) -> Any:
        nodes, part = side.nn.paths(tree, labels)
        rows = {name: p[nodes] for name, p in params.items()}
        return side.value_and_grad(f)({"hidden": hidden, **rows}, part)

    return gradient


@functools.cache
def hierarchical_arguments() -> tuple[Any, ...]:
    from tracegrad import random
    from tracegrad.nn import losses

    rng = numpy.random.default_rng(5)
    params = {"w": dense(rng, CLASSES - 1, FEATURES, fan_in=FEATURES), "b": zeros(CLASSES - 1)}
    tree = jax.device_put(losses.random_tree(random.key(0), CLASSES))
    return params, dense(rng, BATCH, FEATURES, fan_in=1), integers(rng, CLASSES, BATCH), tree


def full_softmax(side: Side) -> Function:
    np, nn = side.np, side.nn

    def loss(params: Params, labels: Array) -> Array:
        return cross_entropy(np, nn, np.matmul(params["hidden"], params["w"]) + params["b"], labels)

    return loss


@functools.cache
def full_softmax_arguments() -> tuple[Any, ...]:
    _, hidden, labels, _ = hierarchical_arguments()
    rng = numpy.random.default_rng(6)
    return {"w": dense(rng, FEATURES, CLASSES), "b": zeros(CLASSES), "hidden": hidden}, labels


# -- a call that does nearly nothing


def trivial(side: Side) -> Function:
    def add(x: Array, y: Array, z: Array) -> Array:
        return x * y + z

    return add


def trivial_arguments() -> tuple[Any, ...]:
    return tuple(jax.device_put(numpy.float32(i)) for i in range(3))


RECORD: tuple[str, ...] = ("record_forward", "record")
COMPILED = (*RECORD, "lower", "compile", "step", "memory", "undecorated")
DERIVED = COMPILED[2:]
LARGE = 4_096
"""Elements of a chain's array, so many that a step of a short chain is more than its call."""


# -- an optimizer's step, of which nothing is differentiated


def adam(side: Side) -> Function:
    """Adam's step: tracegrad's optimizer, and for JAX the formula written out by hand."""
    rate, b1, b2, eps = 1e-3, 0.9, 0.999, 1e-8
    if side.name == "tracegrad":
        from tracegrad import optimizers

        optimizer = optimizers.adam(rate, b1, b2, eps)

        def step(params: Params, grads: Params, count: Array, mu: Params, nu: Params) -> Any:
            state = (optimizers.ScaleByAdamState(count, mu, nu), optimizers.EmptyState())
            updates, (new, _) = optimizer.update(grads, state, params)
            return optimizers.apply_updates(params, updates), *new

    else:

        def step(params: Params, grads: Params, count: Array, mu: Params, nu: Params) -> Any:
            count = count + 1
            mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, mu, grads)
            nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, nu, grads)
            c1, c2 = 1 - b1**count, 1 - b2**count
            moved = jax.tree.map(lambda p, m, v: p - rate * (m / c1) / (side.np.sqrt(v / c2) + eps), params, mu, nu)
            return moved, count, mu, nu

    return step


@functools.cache
def adam_arguments() -> tuple[Any, ...]:
    """Parameters and gradients of 10 million numbers in 200 arrays, after 100 steps."""
    rng = numpy.random.default_rng(0)
    params, grads, mu = ({f"w{i}": dense(rng, 250, 200) for i in range(200)} for _ in range(3))
    return params, grads, jax.device_put(numpy.int32(100)), mu, jax.tree.map(lambda m: m * m, mu)


def itself(side: Side, f: Function) -> Function:
    return f


def workloads() -> Iterator[Workload]:
    yield Workload("mlp", mlp, mlp_arguments, (*COMPILED, "first", "pytorch"), quick=True)
    yield Workload("cnn", cnn, cnn_arguments, (*COMPILED, "pytorch"), quick=True)
    yield Workload("vae", vae, vae_arguments, COMPILED)
    for layers in (2, 6, 12):
        arguments = functools.partial(transformer_arguments, layers)
        figures = COMPILED + (("first",) if layers == 2 else ())
        yield Workload(f"transformer-{layers}", transformer, arguments, figures, quick=layers == 2)
    yield Workload("lstm", lstm, lstm_arguments, COMPILED)
    yield Workload("scan-lstm", scan_lstm, lstm_arguments, (*DERIVED, "pytorch"))
    yield Workload("lstm-layer", lstm_layer, lstm_layer_arguments, DERIVED[:-1])
    yield Workload("attention-layer", attention_layer, attention_layer_arguments, DERIVED[:-1])
    yield Workload("per-example", mlp, mlp_arguments, DERIVED, gradient=per_example)
    yield Workload("hvp", mlp, mlp_arguments, DERIVED, gradient=hessian_vector)
    for n in (10, 100, 1_000, 10_000, 100_000):
        build, arguments = functools.partial(chain, length=n), functools.partial(chain_arguments, LARGE)
        yield Workload(f"chain-{n}", build, arguments, COMPILED if n <= 1_000 else RECORD, quick=n < 1_000)
    loop = functools.partial(chain, length=10_000)
    yield Workload("loop-10000", loop, functools.partial(chain_arguments, 64), ("first", "new_structure"))
    yield Workload("trees", tree, lambda: random_trees(0)[0], ("first", "new_structure"), random_trees, quick=True)
    rival = full_softmax, full_softmax_arguments
    yield Workload("hierarchical-softmax", hierarchical, hierarchical_arguments, ("step", "memory", "rival"),
                   gradient=of_paths, rival=rival)  # fmt: skip
    yield Workload("call", trivial, trivial_arguments, ("call",), quick=True)
    yield Workload("adam-200", adam, adam_arguments, ("step", "memory"), gradient=itself)
