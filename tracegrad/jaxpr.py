"""From JAX: a jaxpr's equations are recorded as ops and differentiated by their rules. Uses bodies, and ops."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import jax
import numpy as np

from .body import call, record_body
from .caches import Cache
from .closures import arrays_in, find_references
from .errors import LeakedTracerError, NotRecordedError, TracerError, describe, describe_source, here
from .op import Op
from .passes import optimize
from .recording import state
from .tape import Aval, Node, Tape, aval_of, make_aval, with_axes
from .tracer import Literal, Tracer

if TYPE_CHECKING:
    from collections.abc import Iterator

INLINE = 24
"""Equations up to which a nested jaxpr is recorded in its place, rather than as a call of a body of its own."""


_KEPT = 128
"""For how many sets of argument types a function of JAX keeps what it was traced to."""


def from_jax(fun: Callable[..., Any]) -> Callable[..., Any]:
    """A function of JAX (plain `jax.numpy`, Flax, Equinox, ...) as one that tracegrad records and differentiates.

    It is traced to a jaxpr once for each set of argument types, and the equations become ops. Make it once, outside of
    the function that is differentiated, so that it is traced once. `fun` itself may be a pytree that can be called,
    such as an Equinox module.

    Derivatives are those of our ops; where JAX code brings its own (`jax.custom_jvp`, `jax.custom_vjp`,
    `jax.lax.custom_linear_solve`), it is used, and differentiated again for higher orders. What cannot be
    differentiated (a callback, a primitive without a rule) can still be computed.

    Args:
      fun: takes pytrees; arrays and floats among their leaves are traced, anything else (an int, a bool, a string, a
        function) is a static Python value, which must be hashable for the trace to be kept. It must be pure, and it
        returns a pytree of arrays; a static leaf of an argument may be returned as it is.

    Returns:
      A function of the same arguments, which may be values that a tape records. Without a tape it computes with
      `jax.Array`s, compiled.

    Raises:
      TypeError: if `fun` is no function, needs the value of a traced array, closes over a value that a tape records
        (pass it as an argument), or returns something else than arrays.
      NotImplementedError: when the gradient goes through a primitive of JAX without a rule here; the message names it.

    Example:
      >>> import jax, tracegrad as tg
      >>> f = tg.from_jax(lambda x: jax.nn.relu(x).sum())
      >>> tg.grad(f)(jax.numpy.array([-1.0, 0.0, 2.0])).tolist()
      [0.0, 0.0, 1.0]
    """
    if not callable(fun):
        raise TypeError(f"from_jax: fun is {describe(fun)}, which is not a function {here()}")
    name = getattr(fun, "__name__", None) or type(fun).__name__
    traced = Cache(_KEPT)
    references: list[Any] | None = None

    @functools.wraps(fun)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal references
        leaves, tree = jax.tree.flatten((fun, args, kwargs))
        static = [not is_traced(x) for x in leaves]
        inputs = [x for x, s in zip(leaves, static, strict=True) if not s]
        avals = [aval_of(x) for x in inputs]
        if references is None:
            references = find_references(fun)
        closed = [a for reference in references for a in arrays_in(reference())]
        fixed = [x for x, s in zip(leaves, static, strict=True) if s]
        key: Any = (tree, tuple(static), tuple(avals), tuple((type(x), x) for x in fixed), tuple(map(id, closed)))
        key = (*key, jax.config.jax_enable_x64)  # type: ignore[attr-defined]
        try:
            known = traced.get(key)
        except TypeError:  # a static value that is not hashable
            key = known = None
        if known is None:
            known = _trace(fun, name, leaves, static, tree, avals)
            if key is not None and not known.bound:
                known.closed = closed  # kept, so that no other array takes its id
                traced.keep(key, known)
        outs = known.run(inputs)
        return known.result(outs, fixed)

    return wrapped


def is_traced(x: Any) -> bool:
    return isinstance(x, (jax.Array, np.ndarray, np.generic, Tracer, float, complex))


class Traced:
    """What a function of JAX has become for arguments of some types."""

    def __init__(self, jaxpr: Any, name: str, out_tree: Any, outs: list[int | None]) -> None:
        self.jaxpr = jaxpr
        self.name = name
        self.out_tree = out_tree
        self.outs = outs  # for each leaf of the result, the static leaf of the arguments that it is
        self.closed: list[Any] = []
        self.bound = any(isinstance(c, jax.core.Tracer) for c in jaxpr.consts)

    def run(self, inputs: Sequence[Any]) -> Sequence[Any]:
        body, captured = record_jaxpr(self.jaxpr, self.name, [aval_of(x) for x in inputs])
        return call(*inputs, *captured, body=body)  # type: ignore[no-any-return]

    def result(self, outs: Sequence[Any], fixed: list[Any]) -> Any:
        arrays = iter(outs)
        return jax.tree.unflatten(self.out_tree, [next(arrays) if i is None else fixed[i] for i in self.outs])


def _trace(fun: Any, name: str, leaves: list[Any], static: list[bool], tree: Any, avals: list[Aval]) -> Traced:
    fixed = [x for x, s in zip(leaves, static, strict=True) if s]
    found: list[Any] = []

    def flat(*arrays: Any) -> list[Any]:
        values = iter(arrays)
        f, args, kwargs = jax.tree.unflatten(
            tree, [x if s else next(values) for x, s in zip(leaves, static, strict=True)]
        )
        paths, out_tree = jax.tree_util.tree_flatten_with_path(f(*args, **kwargs))
        which = [next((i for i, y in enumerate(fixed) if y is x), None) for _, x in paths]
        found[:] = [out_tree, which]
        outs = []
        for (path, x), i in zip(paths, which, strict=True):
            if i is not None:
                continue
            if not isinstance(x, (jax.Array, np.ndarray, np.generic, bool, int, float, complex)):
                raise TypeError(
                    f"from_jax: {name} returned {describe(x)}{' at ' if path else ''}{jax.tree_util.keystr(path)}, "
                    f"which is not an array {here()}. Return arrays, or a static leaf of an argument as it is."
                )
            outs.append(x)
        return outs

    try:
        jaxpr = make_jaxpr(flat, avals)
    except (jax.errors.JAXTypeError, jax.errors.JAXIndexError) as error:
        first = str(error).partition("\n")[0]
        raise TypeError(
            f"from_jax: {name} could not be traced by JAX {here()}: {first} from_jax traces a function once for all "
            "values of its arguments: use jax.lax.cond or jax.numpy.where in place of `if`, pass an int or a bool as "
            "a Python value (a static argument), or write this part with tracegrad.numpy, undecorated."
        ) from error
    except (NotRecordedError, LeakedTracerError):
        raise TracerError(
            f"from_jax: {name} uses a value that tracegrad records and that is not among its arguments {here()}: its "
            "gradient would be lost. Pass it to the function as an argument."
        ) from None
    return Traced(jaxpr, name, *found)


@contextmanager
def not_recording() -> Iterator[None]:
    """Lets JAX trace: functions of the package called inside lower inline."""
    outer, state.tape = state.tape, None
    try:
        yield
    finally:
        state.tape = outer


def make_jaxpr(fun: Callable[..., Any], avals: Sequence[Aval]) -> Any:
    with not_recording():
        return jax.make_jaxpr(fun)(*[a.struct() for a in avals])


# -- equations


def import_jaxpr(jaxpr: Any, args: Sequence[Any], consts: Sequence[Any] | None = None) -> list[Any]:
    """Records the equations of a jaxpr on the tape that is recording, and returns its outputs.

    Args:
      jaxpr: a jaxpr, open or closed.
      args: a value for each of its inputs.
      consts: those of its constants, where it does not hold them itself.
    """
    if not consts:
        consts = getattr(jaxpr, "consts", ())
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    env = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))

    def read(atom: Any) -> Any:
        return _literal(atom) if hasattr(atom, "val") else env[atom]

    for eqn in jaxpr.eqns:
        xs = [read(v) for v in eqn.invars]
        if eqn.effects and eqn.primitive.name not in HIGHER_ORDER:
            # What reads a value after the effect reads it as the effect passed it on; without operands, any will do.
            carriers = [v for v in eqn.invars if not hasattr(v, "val")] or list(env)[-1:]
            outs = effect_op(*xs, *[env[v] for v in carriers], eqn=Equation(eqn), operands=len(xs))
            env.update(zip(carriers, outs[len(eqn.outvars) :], strict=True))
            outs = outs[: len(eqn.outvars)]
        else:
            outs = record_equation(eqn, xs)
        env.update(zip(eqn.outvars, outs, strict=True))
    return [read(v) for v in jaxpr.outvars]


def record_equation(eqn: Any, xs: Sequence[Any]) -> Sequence[Any]:
    name = eqn.primitive.name
    rule = PRIMITIVES.get(name.replace("-", "_"))
    out = rule(*xs, **eqn.params) if rule is not None else NotImplemented
    if out is NotImplemented:
        return _bind(eqn, xs)
    outs = out if eqn.primitive.multiple_results else (out,)
    for x, v in zip(outs, eqn.outvars, strict=True):
        aval = aval_of(x)
        if (aval.shape, aval.dtype) != (v.aval.shape, v.aval.dtype):
            raise AssertionError(f"from_jax: {name} was recorded as {aval}, JAX has {v.aval} for it: {eqn}")
    return outs


def _literal(atom: Any) -> Any:
    aval, value = atom.aval, atom.val
    if aval.shape:
        return value
    return Literal(to_aval(aval), None, value.item() if hasattr(value, "item") else value)


def to_aval(aval: Any) -> Aval:
    return make_aval(tuple(aval.shape), aval.dtype, bool(getattr(aval, "weak_type", False)))


_bodies: WeakKeyDictionary[Any, dict[Any, tuple[Tape, list[Any]]]] = WeakKeyDictionary()


def record_jaxpr(jaxpr: Any, name: str, avals: Sequence[Aval]) -> tuple[Tape, list[Any]]:
    """A jaxpr as a body for arguments of these types, and the constants that it takes after them.

    It is recorded once for each set of mapped axes along which the arguments vary.
    """
    tape = state.tape
    varying = tuple([a.varying for a in avals])
    axes = tuple(tape.axes.items()) if tape is not None else ()
    bodies = _bodies.setdefault(jaxpr, {})
    known = bodies.get((varying, axes))
    if known is not None:
        return known
    inner = getattr(jaxpr, "jaxpr", jaxpr)
    types = [with_axes(to_aval(v.aval), a) for v, a in zip(inner.invars, varying, strict=True)]
    body, consts = record_function(lambda *xs: import_jaxpr(jaxpr, xs), types, name)
    # What another recording made is that recording's alone.
    if not any(isinstance(c, (jax.core.Tracer, Tracer)) for c in consts):
        bodies[varying, axes] = (body, consts)
    return body, consts


def record_function(fun: Callable[..., Any], avals: Sequence[Aval], name: str) -> tuple[Tape, list[Any]]:
    raw, captured = record_body(fun, tuple(avals), {}, name, imported=True)
    return optimize(raw), captured


def run_jaxpr(jaxpr: Any, xs: Sequence[Any], name: str) -> Sequence[Any]:
    """A nested jaxpr: a short one in its place, a long one as a call of a body, which is recorded once."""
    if _weight(jaxpr) <= INLINE:
        return import_jaxpr(jaxpr, xs)
    body, consts = record_jaxpr(jaxpr, name, [aval_of(x) for x in xs])
    return call(*xs, *consts, body=body)  # type: ignore[no-any-return]


def _weight(jaxpr: Any) -> int:
    inner = getattr(jaxpr, "jaxpr", jaxpr)
    return len(inner.eqns) + sum(_weight(eqn.params["jaxpr"]) for eqn in inner.eqns if "jaxpr" in eqn.params)


# -- primitives that are bound as they are


class Equation:
    """A primitive of JAX with its parameters: a static parameter that compares by what it does."""

    __slots__ = ("avals", "key", "params", "primitive", "source_info")

    def __init__(self, eqn: Any) -> None:
        self.primitive = eqn.primitive
        self.params = eqn.params
        self.avals = tuple(to_aval(v.aval) for v in eqn.outvars)
        self.source_info = eqn.source_info
        key = (eqn.primitive, tuple(sorted(eqn.params.items(), key=lambda item: item[0])), self.avals)
        try:
            hash(key)
        except TypeError:
            key = (id(eqn.params),)  # type: ignore[assignment]
        self.key: Any = key

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Equation) and self.key == other.key

    def __repr__(self) -> str:
        return str(self.primitive.name)

    def bind(self, *xs: Any) -> tuple[Any, ...]:
        out = self.primitive.bind(*xs, **self.primitive.get_bind_params(self.params))
        return tuple(out) if self.primitive.multiple_results else (out,)


def _bind(eqn: Any, xs: Sequence[Any]) -> Sequence[Any]:
    equation, name = Equation(eqn), eqn.primitive.name
    if name == "name":
        return (name_op(*xs, eqn=equation),)
    op = constant_op if name in PIECEWISE_CONSTANT else self_transposed_op if name in SELF_TRANSPOSED else jax_op
    return op(*xs, eqn=equation)  # type: ignore[no-any-return]


def _no_rule(node: Node, cts: Sequence[Any], needs: Sequence[bool]) -> list[Any]:
    from jax.extend import source_info_util

    eqn = node.params["eqn"]
    types = ", ".join(repr(v.aval) for v in node.inputs)
    raise NotImplementedError(
        f"from_jax: the gradient goes through {eqn.primitive.name}({types}), a primitive of JAX that has no derivative "
        f"here; it was recorded at {describe_source(node.source)}, from "
        f"{source_info_util.summarize(eqn.source_info)}. Put jax.lax.stop_gradient around it if it needs none, give "
        "the function around it a derivative with jax.custom_vjp, or write that part with tracegrad.numpy."
    )


def _self_transposed(node: Node, cts: Sequence[Any], needs: Sequence[bool]) -> list[Any]:
    return [self_transposed_op(ct, eqn=node.params["eqn"])[0] for ct in cts]


def _effect_vjp(node: Node, cts: Sequence[Any], needs: Sequence[bool]) -> list[Any]:
    count, operands = len(node.params["eqn"].avals), node.params["operands"]
    if any(ct is not None for ct in cts[:count]):
        return _no_rule(node, cts, needs)
    return [None] * operands + list(cts[count:])


def _run(*xs: Any, eqn: Equation) -> tuple[Any, ...]:
    return eqn.bind(*xs)


def _types(*avals: Aval, eqn: Equation) -> tuple[Aval, ...]:
    return eqn.avals


jax_op: Op = Op("jax", _run, _no_rule, shape=_types, multiple=True)
"""A primitive of JAX without a derivative: an error if a gradient goes through it."""

constant_op: Op = Op("jax_constant", _run, None, shape=_types, multiple=True)
"""A primitive of JAX whose derivative is 0."""

self_transposed_op: Op = Op("jax_linear", _run, _self_transposed, shape=_types, multiple=True)
"""A linear primitive of JAX that is its own transpose."""

effect_op: Op = Op(
    "jax_effect",
    lambda *xs, eqn, operands: (*eqn.bind(*xs[:operands]), *xs[operands:]),
    _effect_vjp,
    shape=lambda *avals, eqn, operands: (*eqn.avals, *avals[operands:]),
    multiple=True,
)
"""A primitive of JAX with an effect, such as printing. It passes values on, so that what reads them comes after."""

name_op: Op = Op("checkpoint_name", lambda x, *, eqn: x, (lambda ct, out, x, *, eqn: ct,), shape=lambda x, *, eqn: x)
"""The operand, under a name that policies of `jax.checkpoint` know."""

PIECEWISE_CONSTANT = frozenset(
    {"round", "random_bits", "nextafter", "bitcast_convert_type", "rng_uniform", "stop_gradient"}
)
SELF_TRANSPOSED = frozenset({"sharding_constraint", "copy", "copy_p", "layout_constraint"})
HIGHER_ORDER = frozenset(
    {"jit", "pjit", "closed_call", "core_call", "remat2", "checkpoint", "custom_jvp_call", "custom_vjp_call", "scan",
     "while", "cond"}
)  # fmt: skip

PRIMITIVES: dict[str, Callable[..., Any]] = {}
"""How each primitive of JAX is recorded, from its operands and parameters: `interop/primitives.py` fills it."""
