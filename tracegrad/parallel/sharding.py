"""`shard_map`: one program on all devices of a mesh, each with its parts of the arrays; and where arrays are put."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, Sharding
from jax.sharding import PartitionSpec as P

from ..arguments import arguments_of
from ..backward import body_cotangents
from ..body import BodyCache, BodyOp, leaf_aval, put, put_gradients, taken
from ..errors import called, describe, here, need_function
from ..inference import TYPED
from ..lower import evaluate
from ..op import Op
from ..ops import vary
from ..recording import state
from ..tape import Aval, Node, Tape, Var, make_aval
from ..tracer import Tracer

Spec = P | None
"""Along which axes of a mesh each axis of an array is split; `None` for what is each device's own, along a new axis."""

STACKED: Spec = None


class OverDevices(int):
    """The size of a mapped axis, as any, along which it is devices that are mapped over."""


def not_nested(transform: str) -> None:
    """Raises inside a mapping over devices."""
    tape = state.tape
    outer = [name for name, size in tape.axes.items() if isinstance(size, OverDevices)] if tape is not None else []
    outer = outer or list(jax.sharding.get_abstract_mesh().manual_axes)
    if outer:
        raise NotImplementedError(
            f"{transform}: it is inside a mapping over devices, along {outer} {here()}. Devices are mapped over once: "
            "use one shard_map over a mesh with an axis for each, or vmap for the inner mapping."
        )


# -- the op


def _axes_of(spec: Spec) -> list[tuple[str, ...]]:
    """The axes of the mesh along which each axis of an array is split."""
    return [() if part is None else (part,) if isinstance(part, str) else tuple(part) for part in spec or ()]


def axis_sizes(mesh: Mesh) -> dict[str, int]:
    """The axes that a body may use which all devices of the mesh run."""
    return {name: OverDevices(size) for name, size in mesh.shape.items()}


def axes_in(spec: Spec, mesh: Mesh) -> frozenset[str]:
    """The axes of the mesh along which an array is split."""
    if spec is STACKED:
        return frozenset(mesh.axis_names)
    return frozenset(name for names in _axes_of(spec) for name in names)


def local_type(aval: Aval, spec: Spec, mesh: Mesh) -> Aval:
    """The type of each device's part."""
    shape = list(aval.shape[1:] if spec is STACKED else aval.shape)
    for i, names in enumerate(_axes_of(spec)):
        for name in names:
            shape[i] //= mesh.shape[name]
    return make_aval(tuple(shape), aval.dtype, aval.weak_type, aval.varying | axes_in(spec, mesh))


def _whole_type(aval: Aval, spec: Spec, mesh: Mesh) -> Aval:
    """The type of the array whose parts these are."""
    shape = [mesh.size, *aval.shape] if spec is STACKED else [*aval.shape]
    for i, names in enumerate(_axes_of(spec)):
        for name in names:
            shape[i] *= mesh.shape[name]
    return make_aval(tuple(shape), aval.dtype, aval.weak_type, aval.varying - set(mesh.axis_names))


def all_specs(body: Tape, specs: tuple[Spec, ...]) -> list[Spec]:
    """Of each output; the residuals, after the others, are each device's own."""
    return [*specs, *[STACKED] * (len(body.outputs) - len(specs))]


def split_by(x: Any, spec: Spec, mesh: Mesh, at: int = 0) -> Any:
    """The parts of the devices: with an axis for each axis of the mesh along which it is split, from `at` on."""
    sizes, x = mesh.shape, jnp.asarray(x)
    if spec is STACKED:
        return x.reshape(*x.shape[:at], *sizes.values(), *x.shape[at + 1 :])
    parts = _axes_of(spec)
    shape: list[int] = list(x.shape[:at])
    where: dict[str, int] = {}
    for i, size in enumerate(x.shape[at:]):
        names = parts[i] if i < len(parts) else ()
        where |= {name: len(shape) + k for k, name in enumerate(names)}
        shape += [sizes[name] for name in names]
        shape.append(size // math.prod([sizes[name] for name in names]))
    front = [where[name] for name in mesh.axis_names if name in where]
    return jnp.moveaxis(x.reshape(shape), front, list(range(at, at + len(front))))


def joined_by(x: Any, spec: Spec, mesh: Mesh, at: int = 0) -> Any:
    """The inverse of `split_by`: the array whose parts these are."""
    sizes, x = mesh.shape, jnp.asarray(x)
    if spec is STACKED:
        return x.reshape(*x.shape[:at], mesh.size, *x.shape[at + len(sizes) :])
    parts = _axes_of(spec)
    there = [name for name in mesh.axis_names if any(name in names for names in parts)]
    order, shape, own = list(range(at)), list(x.shape[:at]), x.shape[at + len(there) :]
    for i, size in enumerate(own):
        names = parts[i] if i < len(parts) else ()
        order += [*[at + there.index(name) for name in names], at + len(there) + i]
        shape.append(size * math.prod([sizes[name] for name in names]))
    return x.transpose(order).reshape(shape)


def _run(*xs: Any, body: Tape, mesh: Mesh, in_specs: tuple[Spec, ...], out_specs: tuple[Spec, ...]) -> Any:
    not_nested(body.name)
    specs = all_specs(body, out_specs)

    def run(*parts: Any) -> list[Any]:
        values = [lax.squeeze(x, (0,)) if s is STACKED else x for x, s in zip(parts, in_specs, strict=True)]
        outs = evaluate(body.nodes, body.outputs, dict(zip(body.inputs, values, strict=True)))
        return [lax.expand_dims(o, (0,)) if s is STACKED else o for o, s in zip(outs, specs, strict=True)]

    def given(spec: Spec) -> P:
        return P(mesh.axis_names) if spec is None else spec

    options: dict[str, Any] = {"in_specs": tuple(map(given, in_specs)), "out_specs": list(map(given, specs))}
    if AxisType.Explicit in mesh.axis_types:
        # On such a mesh the types of arrays say where they are, and have to be what is asked for.
        xs = tuple(_put(x, NamedSharding(mesh, given(spec))) for x, spec in zip(xs, in_specs, strict=True))
    return jax.shard_map(run, mesh=mesh, **options, check_vma=False)(*xs)


def _untyped(mesh: Any) -> Any:
    """The mesh of these devices whose arrays do not say in their types where they are: a tape does not keep track."""
    if isinstance(mesh, Mesh) and AxisType.Explicit in mesh.axis_types and jax.sharding.get_abstract_mesh().empty:
        return Mesh(mesh.devices, mesh.axis_names)
    return mesh


def _put(x: Any, sharding: Any) -> Any:
    """`x`, put on the devices in this way."""
    mesh = sharding.mesh if isinstance(sharding, NamedSharding) else jax.sharding.get_abstract_mesh()
    explicit = AxisType.Explicit in mesh.axis_types
    return jax.sharding.reshard(x, sharding) if explicit else lax.with_sharding_constraint(x, sharding)


def _types(*avals: Aval, body: Tape, mesh: Mesh, in_specs: tuple[Spec, ...], out_specs: tuple[Spec, ...]) -> list[Aval]:
    specs = all_specs(body, out_specs)
    return [_whole_type(v.aval, spec, mesh) for v, spec in zip(body.outputs, specs, strict=True)]


def _vjp(node: Node, cts: Sequence[Any], needs: Sequence[bool]) -> list[Any]:
    mesh, in_specs = node.params["mesh"], node.params["in_specs"]
    out_specs = all_specs(node.params["body"], node.params["out_specs"])
    lin, operands = body_cotangents(node, cts, needs, frozenset(mesh.axis_names))
    read = lin.read(in_specs, out_specs, [STACKED] * len(operands))
    outs = node.op(
        *operands,
        body=lin.backward,
        mesh=mesh,
        in_specs=(*read, *[out_specs[i] for i in lin.cts]),
        # The gradient of what several devices have is summed over them, and is one for all.
        out_specs=(*[in_specs[i] for i in lin.grads], *[STACKED] * len(lin.taps)),
    )
    put_gradients(lin, outs)
    grads: list[Any] = [None] * len(node.inputs)
    for i, g in zip(lin.grads, outs, strict=False):
        grads[i] = g
    return grads


def mapped_op(name: str) -> Op:
    """An op that runs a body on all devices of a mesh."""
    return BodyOp(name, _run, _vjp, shape=_types, multiple=True, axes=TYPED)


shard_map_op = mapped_op("shard_map")


def told_apart(results: Sequence[Any], specs: Sequence[Spec], mesh: Mesh, complain: Callable[[int, Var], None]) -> Any:
    """A body's results, each with a cotangent of its own on each of the devices that have a part of it.

    `complain` is called with each result that differs between devices that are to have the same.
    """
    spread = []
    for i, (v, spec) in enumerate(zip(results, specs, strict=True)):
        axes = axes_in(spec, mesh)
        if isinstance(v, Tracer):
            if (v.aval.varying & set(mesh.axis_names)) - axes:
                complain(i, v)
            v = vary(v, axes)
        spread.append(v)
    return spread


# -- shard_map


def shard_map(
    fun: Callable[..., Any] | None = None, *, mesh: Mesh | None = None, in_specs: Any, out_specs: Any
) -> Callable[..., Any]:
    """A function that runs `fun` on all devices of a mesh at once, each with its parts of the arguments.

    Args:
      fun: takes and returns pytrees of arrays, the parts of one device; inside it the collectives of `parallel` speak
        of the devices by the names of the mesh's axes.
      mesh: the devices, such as `jax.make_mesh((4, 2), ("data", "model"))`; by default that of `jax.set_mesh`.
      in_specs: for each positional argument, or each leaf, a `PartitionSpec`: along which axes of the mesh each of its
        axes is split. `PartitionSpec()` is for what every device gets whole.
      out_specs: how the parts that the devices return are put together. What a spec does not name has to be the same
        along that axis: it is returned once.

    Returns:
      A function of the same arguments, whole arrays. It runs under `jit`, `grad` and `vmap`; its gradient is that of
      what it returns, and that of an argument which several devices have is the sum over them.

    Raises:
      ValueError: if an axis does not divide, a spec names an axis that is not there, or a result differs along an axis
        that its spec leaves out.

    Example:
      >>> import jax, tracegrad as tg, tracegrad.numpy as np
      >>> from jax.sharding import PartitionSpec as P
      >>> mesh = jax.make_mesh((jax.device_count(),), ("data",))
      >>> def mean(x):
      ...     return tg.parallel.pmean(x.mean(), "data")
      >>> x = np.arange(4.0 * mesh.size)
      >>> float(tg.parallel.shard_map(mean, mesh=mesh, in_specs=P("data"), out_specs=P())(x)) == float(x.mean())
      True
    """
    if fun is None:
        return functools.partial(shard_map, mesh=mesh, in_specs=in_specs, out_specs=out_specs)
    need_function(fun, "shard_map")
    given, bodies = mesh, BodyCache(fun)
    if given is not None:
        _check_mesh(given)

    @functools.wraps(fun)
    def wrapped(*args: Any) -> Any:
        not_nested("shard_map")
        mesh = _untyped(given) if given is not None else _mesh_around("shard_map")
        leaves, tree = jax.tree.flatten(args)
        specs = _leaf_specs(tree, in_specs, "in_specs", mesh)
        arguments = arguments_of(fun, jax.tree.structure((args, {})))
        inner = []
        for i, (x, spec) in enumerate(zip(leaves, specs, strict=True)):
            aval = leaf_aval(x, bodies.name, arguments, i)
            _check_divides(aval, spec, mesh, lambda i=i: f"argument {arguments.names()[i]}")  # type: ignore[misc]
            inner.append(local_type(aval, spec, mesh))

        def complain(i: int, v: Var) -> None:
            spec, axes = results[i], sorted((v.aval.varying & set(mesh.axis_names)) - axes_in(results[i], mesh))
            raise ValueError(
                f"shard_map: result {i} of {bodies.name} ({v.aval}) differs along {axes}, which its spec {spec} does "
                f"not name {here()}. Combine the devices' values with psum or pmean, or name the axis in out_specs."
            )

        results: list[P] = []

        @functools.wraps(fun)
        def checked(*args: Any) -> Any:
            outs, out_tree = jax.tree.flatten(fun(*args))
            results[:] = _leaf_specs(out_tree, out_specs, "out_specs", mesh)
            for i, (v, spec) in enumerate(zip(outs, results, strict=True)):
                if len(spec) > leaf_aval(v, bodies.name).ndim:
                    raise ValueError(
                        f"shard_map: result {i} of {bodies.name} is {describe(v)}, and its spec {spec} has "
                        f"{len(spec)} entries {here()}. Give one for each axis, at most."
                    )
            return jax.tree.unflatten(out_tree, told_apart(outs, results, mesh, complain)), taken()

        body, extra = bodies.get(checked, jax.tree.unflatten(tree, inner), {}, mesh, axes=axis_sizes(mesh))
        out_tree, taps = body.out_tree.children()
        outs = shard_map_op(
            *leaves,
            *extra,
            body=body,
            mesh=mesh,
            in_specs=(*specs, *[P()] * len(extra)),
            out_specs=(*_leaf_specs(out_tree, out_specs, "out_specs", mesh), *[STACKED] * taps.num_leaves),
        )
        out, found = jax.tree.unflatten(body.out_tree, outs)
        put(found)
        return out

    return wrapped


def _check_mesh(mesh: Any) -> None:
    if not isinstance(mesh, Mesh):
        raise TypeError(
            f"{called()}: mesh is {describe(mesh)} {here()}. Give the devices, such as "
            f'jax.make_mesh(({jax.device_count()},), ("data",)).'
        )


def _mesh_around(transform: str) -> Any:
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        raise ValueError(
            f"{transform}: there is no mesh {here()}. Give one, such as "
            f'jax.make_mesh(({jax.device_count()},), ("data",)), or call it inside jax.set_mesh(mesh).'
        )
    return mesh


def _leaf_specs(tree: Any, specs: Any, name: str, mesh: Mesh) -> list[P]:
    """One spec a leaf of `tree`, from a prefix of it."""
    is_spec = lambda s: s is None or isinstance(s, P)  # noqa: E731
    for spec in jax.tree.leaves(specs, is_leaf=is_spec):
        if not is_spec(spec):
            raise TypeError(
                f"shard_map: {describe(spec)} in {name} {here()}. Give a jax.sharding.PartitionSpec for each array, "
                "PartitionSpec() for one that every device has whole."
            )
        missing = [] if spec is None else [n for names in _axes_of(spec) for n in names if n not in mesh.shape]
        if missing:
            raise ValueError(
                f"shard_map: {spec} in {name} names {missing[0]!r}, and the axes of the mesh are "
                f"{list(mesh.axis_names)} {here()}."
            )
    whole = jax.tree.unflatten(tree, list(range(tree.num_leaves)))
    try:
        full = jax.tree.map(lambda s, part: [s] * len(jax.tree.leaves(part)), specs, whole, is_leaf=is_spec)
    except ValueError as error:
        raise ValueError(f"shard_map: {name} do not fit the structure of what they split {here()}: {error}") from None
    return [P() if s is None else s for s in jax.tree.leaves(full, is_leaf=is_spec)]


def _check_divides(aval: Aval, spec: P, mesh: Mesh, which: Callable[[], str]) -> None:
    if len(spec) > aval.ndim:
        raise ValueError(
            f"shard_map: {which()} is {aval}, and its spec {spec} has {len(spec)} entries {here()}. Give one for each "
            "axis, at most."
        )
    for i, names in enumerate(_axes_of(spec)):
        size = 1
        for name in names:
            size *= mesh.shape[name]
        if aval.shape[i] % size:
            raise ValueError(
                f"shard_map: axis {i} of {which()}, {aval}, does not divide over the {size} devices of {list(names)} "
                f"{here()}. Pad it to a multiple, or leave the axis out of its spec."
            )


# -- where arrays are put


constraint_op: Op = Op(
    "with_sharding_constraint",
    lambda x, *, sharding: _put(x, sharding),
    (lambda ct, out, x, *, sharding: constraint_op(ct, sharding=sharding),),
    shape=lambda x, *, sharding: x,
)


def with_sharding_constraint(x: Any, shardings: Any) -> Any:
    """`x`, put on the devices in this way, wherever it was; its cotangent is put there in the same way.

    Args:
      x: a pytree of arrays.
      shardings: a `NamedSharding` for all of it, or a tree of them; or `PartitionSpec`s, inside `jax.set_mesh`.

    Example:
      >>> import jax, tracegrad as tg, tracegrad.numpy as np
      >>> from jax.sharding import NamedSharding, PartitionSpec as P
      >>> mesh = jax.make_mesh((jax.device_count(),), ("data",))
      >>> rows = NamedSharding(mesh, P("data"))
      >>> y = tg.jit(lambda x: tg.parallel.with_sharding_constraint(2 * x, rows))(np.ones((mesh.size, 3)))
      >>> y.sharding.is_equivalent_to(rows, 2)
      True
    """
    is_sharding = lambda s: s is None or isinstance(s, (P, Sharding))  # noqa: E731
    for sharding in jax.tree.leaves(shardings, is_leaf=is_sharding):
        if not is_sharding(sharding):
            raise TypeError(
                f"{called()}: {describe(sharding)} is no sharding {here()}. Give a jax.sharding.NamedSharding(mesh, "
                "PartitionSpec(...)), or a tree of them."
            )

    def one(sharding: Any, part: Any) -> Any:
        if sharding is None:
            return part
        if isinstance(sharding, P):
            _mesh_around("with_sharding_constraint")
        elif isinstance(sharding, NamedSharding):
            sharding = NamedSharding(_untyped(sharding.mesh), sharding.spec)
        return jax.tree.map(lambda leaf: constraint_op(leaf, sharding=sharding), part)

    return jax.tree.map(one, shardings, x, is_leaf=is_sharding)


__all__ = ["Mesh", "NamedSharding", "P", "shard_map", "with_sharding_constraint"]
