"""Trains a network that lies in parts on the devices, and measures what each of them holds.

The same step runs in three layouts, which differ in annotations alone:

- `replicated`: every device has all parameters, gradients and optimizer state.
- `fsdp`: of each array every device has a part, along the axis that `parallel.shard_axis` says, and the batch is split
  over all devices. XLA decides what travels, a matrix or what it is multiplied with. Zhao et al., PyTorch FSDP (2023);
  Rajbhandari et al., ZeRO (2020), stage 3.
- `2d`: the devices are a grid of "data" and "model". Each block's first matrix is split by columns along "model", its
  second by rows, so that one sum makes the block whole (Shoeybi et al., Megatron-LM, 2019), and both along "data" too.

Then one such block alone, on matrices that are split along "model" only: by hand, with `parallel.shard_map` and one
`psum`, and by `parallel.with_sharding_constraint`, each with its gradients against those of one device.

The network is a residual MLP on the handwritten digits of `tracegrad.examples.digits`. All figures are measured: the
parts of arrays are those that the first device holds, and the rest is XLA's account of the compiled step, by
`tg.memory`. Beside the collectives is how many bytes of their results a device has.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import tracegrad as tg
from tracegrad import initializers, nn, optimizers, parallel
from tracegrad.examples import digits, running

LAYOUTS = ("replicated", "fsdp", "2d")
COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")


def network(key: Any, width: int, layers: int) -> dict[str, Any]:
    """Parameters: images of 64 pixels to `width` features, so many blocks, and scores of ten digits."""
    first, last, *keys = tg.random.split(key, layers + 2)
    he, zeros = initializers.he_normal(), np.zeros

    def one(key: Any) -> dict[str, Any]:
        up, down = tg.random.split(key)
        return {
            "up": he(up, (width, 4 * width)),
            "up_bias": zeros(4 * width, np.float32),
            "down": he(down, (4 * width, width)) / layers,
            "down_bias": zeros(width, np.float32),
        }

    return {"first": he(first, (64, width)), "blocks": [one(key) for key in keys], "last": he(last, (width, 10))}


def block(p: dict[str, Any], x: Any) -> Any:
    return nn.silu(x @ p["up"] + p["up_bias"]) @ p["down"] + p["down_bias"]


def loss(params: dict[str, Any], x: Any, y: Any, rows: Any = None) -> Any:
    """Mean cross-entropy. `rows`: a sharding of what has the batch along its first axis, which keeps it split so."""

    def kept(x: Any) -> Any:
        return x if rows is None else parallel.with_sharding_constraint(x, rows)

    x = kept(x @ params["first"])
    for p in params["blocks"]:
        x = kept(x + block(p, x))
    return nn.losses.sparse_categorical_cross_entropy(kept(x @ params["last"]), y, from_logits=True)


# -- layouts


def specs_of(layout: str, params: dict[str, Any], mesh: Any) -> Any:
    """A `PartitionSpec` for each parameter."""
    if layout == "replicated":
        return jax.tree.map(lambda x: P(), params)
    names = mesh.axis_names if layout == "fsdp" else "data"
    size = mesh.size if layout == "fsdp" else mesh.shape["data"]

    def split(x: Any) -> P:
        axis = parallel.shard_axis(x.shape, size)
        return P() if axis is None else P(*[None] * axis, names)

    specs = jax.tree.map(split, params)
    if layout == "2d":
        grid = {"up": P("data", "model"), "up_bias": P("model"), "down": P("model", "data"), "down_bias": P("data")}
        specs["blocks"] = [grid for _ in params["blocks"]]
    return specs


def places_of(specs: Any, mesh: Any) -> Any:
    return jax.tree.map(lambda s: NamedSharding(mesh, s), specs, is_leaf=lambda s: isinstance(s, P))


def training(layout: str, params: dict[str, Any], optimizer: Any, mesh: Any) -> dict[str, Any]:
    """Functions whose arrays lie as the layout says: "init", "grad" and "step"."""
    whole, places = NamedSharding(mesh, P()), places_of(specs_of(layout, params, mesh), mesh)
    rows = NamedSharding(mesh, P("data") if layout == "2d" else P(mesh.axis_names))
    structure: Any = jax.tree.structure(params)

    def is_like_params(tree: Any) -> bool:
        return structure == jax.tree.structure(tree)  # type: ignore[no-any-return]

    # What an optimizer keeps for each parameter lies as that parameter does.
    states = jax.tree.map(
        lambda part: places if is_like_params(part) else whole,
        jax.eval_shape(optimizer.init, params),
        is_leaf=is_like_params,
    )

    def gradient(params: Any, x: Any, y: Any) -> Any:
        value, grads = tg.value_and_grad(lambda params: loss(params, x, y, rows))(params)
        return value, parallel.with_sharding_constraint(grads, places)

    def step(params: Any, state: Any, x: Any, y: Any) -> Any:
        value, grads = gradient(params, x, y)
        updates, state = optimizer.update(grads, state, params)
        return optimizers.apply_updates(params, updates), state, value

    given = (places, rows, rows)
    return {
        "init": tg.jit(lambda params: (params, optimizer.init(params)), out_shardings=(places, states)),
        "grad": tg.jit(gradient, in_shardings=given, out_shardings=(whole, places)),
        "step": tg.jit(
            step,
            donate_argnums=(0, 1),
            in_shardings=(places, states, rows, rows),
            out_shardings=(places, states, whole),
        ),
    }


def held(tree: Any) -> int:
    """How many bytes of these arrays the first device has."""
    return sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(tree))


def collectives(jitted: Any, *args: Any) -> dict[str, list[int]]:
    """Of the compiled program's collectives, by kind, how many bytes the results of each one have on a device."""
    found: dict[str, list[int]] = {}
    for types, name in re.findall(rf"= (.*?) ({'|'.join(COLLECTIVES)})(?:-start)?\(", compiled_text(jitted, *args)):
        arrays = re.findall(r"[a-z]+(\d+)\[([\d,]*)\]", types)
        sizes = [int(bits) // 8 * math.prod(int(n) for n in shape.split(",") if n) for bits, shape in arrays]
        found.setdefault(name, []).append(sum(sizes))
    return found


def compiled_text(jitted: Any, *args: Any) -> str:
    return str(jitted.lower(*args).compile().as_text())


def measure(layout: str, params: dict[str, Any], optimizer: Any, batches: list[Any], mesh: Any) -> dict[str, Any]:
    """Trains on the batches, and says what one device held."""
    made = training(layout, params, optimizer, mesh)
    params, state = made["init"](params)
    memory = tg.memory(made["step"])(params, state, *batches[0])
    _, grads = made["grad"](params, *batches[0])
    found: dict[str, Any] = {
        "parameters": held(params),
        "gradients": held(grads),
        "optimizer state": held(state),
        "arguments of a step": memory.arguments,
        "temporaries of a step": memory.temporaries,
        "peak of a step": memory.peak,
        "collectives": collectives(made["step"], params, state, *batches[0]),
    }
    values = []
    for x, y in batches:
        params, state, value = made["step"](params, state, x, y)
        values.append(float(value))
    return found | {"losses": values, "params": params, "first gradients": grads}


def apart(a: Any, b: Any) -> float:
    """How far arrays are from those of one device, as a part of the largest number in each."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(abs(np.asarray(x) - y).max() / abs(y).max()) for x, y in pairs)


# -- one block


def block_by_hand(mesh: Any) -> Callable[..., Any]:
    """The block by `shard_map`: each device has some columns of the first matrix, and the same rows of the second."""
    specs = {"up": P(None, "model"), "up_bias": P("model"), "down": P("model", None), "down_bias": P()}

    def part(p: dict[str, Any], x: Any) -> Any:
        hidden = nn.silu(x @ p["up"] + p["up_bias"])
        return parallel.psum(hidden @ p["down"], "model") + p["down_bias"]

    return parallel.shard_map(part, mesh=mesh, in_specs=(specs, P("data")), out_specs=P("data"))


def block_by_annotation(mesh: Any) -> Callable[..., Any]:
    """The block as one device has it, with its values put on the devices: XLA finds the sum."""

    def put(x: Any, *spec: Any) -> Any:
        return parallel.with_sharding_constraint(x, NamedSharding(mesh, P(*spec)))

    def whole(p: dict[str, Any], x: Any) -> Any:
        up, down = put(p["up"], None, "model"), put(p["down"], "model", None)
        hidden = put(nn.silu(put(x, "data") @ up + put(p["up_bias"], "model")), "data", "model")
        return put(hidden @ down, "data") + put(p["down_bias"])

    return whole


def compare(p: dict[str, Any], x: Any, mesh: Any) -> dict[str, dict[str, Any]]:
    """Each of the two: the weights on a device, its collectives, and how far its gradients are from one device's."""

    def of(block: Callable[..., Any]) -> Any:
        # Weighted, so that no output's gradient is that of another.
        weights = np.cos(np.arange(x.size, dtype=x.dtype)).reshape(x.shape)
        return tg.jit(tg.grad(lambda p, x: (block(p, x) * weights).sum(), argnums=(0, 1)))

    specs = {"up": P(None, "model"), "up_bias": P("model"), "down": P("model", None), "down_bias": P()}
    placed = jax.device_put((p, x), places_of((specs, P("data")), mesh))
    one = jax.device_get(of(block)(p, x))
    found = {}
    for name, made in (("shard_map", block_by_hand(mesh)), ("annotations", block_by_annotation(mesh))):
        found[name] = {
            "weights": held(placed[0]),
            "forward": collectives(tg.jit(made), *placed),
            "gradients differ by": apart(of(made)(*placed), one),
        }
    return found


# -- the program


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tracegrad.examples.sharded",
        description="Train a network that lies in parts on the devices, and measure what each holds.",
    )
    parser.add_argument("--devices", type=int, default=8, help="on a CPU, that many virtual ones are made (default: 8)")
    parser.add_argument(
        "--model-axis", type=int, default=2, metavar="M", help="of them, over how many a block is split (default: 2)"
    )
    parser.add_argument("--width", type=int, default=512, help="features between the blocks (default: 512)")
    parser.add_argument("--layers", type=int, default=4, help="blocks (default: 4)")
    parser.add_argument("--batch-size", type=int, default=64, help="images a step, over all devices (default: 64)")
    parser.add_argument("--steps", type=int, default=10, help="of training, in each layout (default: 10)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and the data (default: 0)")
    args = parser.parse_args(arguments)
    for name in ("devices", "model_axis", "width", "layers", "batch_size", "steps"):
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, not {getattr(args, name)}")
    if args.seed < 0:
        parser.error(f"--seed must be 0 or more, not {args.seed}")
    if args.devices % args.model_axis:
        parser.error(f"--model-axis {args.model_axis} does not divide --devices {args.devices}")
    for name in ("width", "batch_size"):
        if getattr(args, name) % args.devices:
            parser.error(
                f"--{name.replace('_', '-')} {getattr(args, name)} does not divide over --devices {args.devices}: "
                f"choose a multiple of {args.devices}"
            )
    return args


def table(rows: dict[str, list[str]], columns: tuple[str, ...]) -> str:
    """Numbers under names, in columns."""
    cells = [["", *columns], *[[name, *values] for name, values in rows.items()]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *[c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)]]).rstrip()
        for row in cells
    )


def megabytes(count: int) -> str:
    return f"{count / 2**20:.2f} MB"


def told(sizes: list[int]) -> str:
    return f"{len(sizes)}: {megabytes(sum(sizes))}" if sizes else "0"


def main(arguments: list[str] | None = None) -> None:
    args = parse(arguments)
    running.make_devices(args.devices)
    shape = (args.devices // args.model_axis, args.model_axis)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[: args.devices]).reshape(shape), ("data", "model"))
    images, labels, _, _ = digits.load(args.seed)
    order = np.random.default_rng(args.seed).integers(0, len(labels), (args.steps, args.batch_size))
    batches = [(images[i].reshape(-1, 64), labels[i]) for i in order]
    params = network(tg.random.key(args.seed), args.width, args.layers)
    optimizer = optimizers.adam(1e-3)
    print(f"{running.count(params):,} parameters, Adam, {shape[0]} x {shape[1]} devices (data x model). On each:\n")

    found = {layout: measure(layout, params, optimizer, batches, mesh) for layout in LAYOUTS}
    one = jax.device_get(tg.jit(tg.grad(loss))(params, *batches[0]))
    rows = {
        name: [megabytes(found[layout][name]) for layout in LAYOUTS]
        for name, size in found["fsdp"].items()
        if isinstance(size, int)
    }
    for name in COLLECTIVES:
        if any(name in found[layout]["collectives"] for layout in LAYOUTS):
            rows[f"{name}s"] = [told(found[layout]["collectives"].get(name, [])) for layout in LAYOUTS]
    rows["loss at first"], rows["loss at last"] = (
        [f"{found[layout]['losses'][i]:.4f}" for layout in LAYOUTS] for i in (0, -1)
    )
    rows["gradients differ from one device's by"] = [
        f"{apart(found[layout]['first gradients'], one):.0e}" for layout in LAYOUTS
    ]
    print(table(rows, LAYOUTS))

    p = params["blocks"][0]
    x = np.asarray(tg.random.normal(tg.random.key(args.seed + 1), (args.batch_size, args.width)))
    blocks = compare(p, x, mesh)
    print(f"\nOne block over {args.model_axis} devices, its weights {megabytes(sum(w.nbytes for w in p.values()))}:\n")
    rows = {
        "weights a device": [megabytes(b["weights"]) for b in blocks.values()],
        "collectives of its forward pass": [
            ", ".join(f"{len(sizes)} {name}" for name, sizes in b["forward"].items()) or "none" for b in blocks.values()
        ],
        "gradients differ from one device's by": [f"{b['gradients differ by']:.0e}" for b in blocks.values()],
    }
    print(table(rows, tuple(blocks)))


if __name__ == "__main__":
    main()
