"""Bodies: functions recorded on a tape of their own, and the ops that run them. Uses ops, passes and backward."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax

from .arguments import Arguments, arguments_of
from .backward import Linearized, body_cotangents
from .caches import Cache
from .closures import Reference, arrays_in, find_references
from .errors import describe, here
from .inference import TYPED, output_types
from .op import Op
from .passes import compiled, optimize
from .recording import Recording, state
from .tape import NOWHERE, Aval, Node, Tape, Var, aval_of, make_aval, with_axes
from .tracer import Tracer, new_input, operand
from .verify import verified


def record_body(
    fun: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    name: str,
    *,
    axes: dict[str, int] | None = None,
    ambient: frozenset[str] = NOWHERE,
    given: Sequence[Any] = (),
    static: Callable[[Any], bool] = lambda x: False,
    lifts: bool = False,
    imported: bool = False,
) -> tuple[Tape, list[Any]]:
    """Records `fun` for arguments of these types on a tape of its own.

    Args:
      args, kwargs: pytrees whose leaves say the types of the inputs (arrays, numbers, avals); those for
        which `static` holds are passed as they are.
      axes: names and sizes of mapped axes that the body may use.
      ambient: the axes along which it varies whether the body runs at all: along them all that goes in varies too.
      given: outer values that are inputs too, after the arguments, whether `fun` turns out to use them or not.
      lifts: whether numbers are inputs as well where they are on the enclosing tape: not for a body that is kept.
      imported: whether the lines of its nodes are those of whoever runs it.

    Returns:
      The finished tape, with the structure of the result as `out_tree`, and the outer values that it closes
      over: inputs of the tape, after those of the arguments and `given`.
    """
    outer = state.tape
    lifts = lifts and outer is not None and outer.lifts
    tape = Recording(name, parent=outer, captures=True, lifts=lifts, axes=axes, ambient=ambient, imported=imported)
    leaves, tree = jax.tree.flatten((args, kwargs))
    ins = []
    arguments = arguments_of(fun, tree)
    for i, leaf in enumerate(leaves):
        if static(leaf):
            ins.append(leaf)
            continue
        aval = leaf_aval(leaf, name, arguments, i)
        ins.append(new_input(tape, with_axes(aval, aval.varying | tape.ambient)))
    tape.arguments = (arguments, ins)
    for value in given:
        tape.constants[id(value)] = new_input(tape, aval_of(value))
    with tape:
        args, kwargs = jax.tree.unflatten(tree, ins)
        out, out_tree = jax.tree.flatten(fun(*args, **kwargs))
        body = tape.finished([_output(tape, v, name) for v in out], out_tree)
        captured = [value for _, value in tape.captured or ()]
    return verified(body), captured


def leaf_aval(leaf: Any, name: str, arguments: Arguments | None = None, i: int = 0) -> Aval:
    """The type of an argument of the function of this name: its leaf `i`, if it is known what the leaves are called."""
    if isinstance(leaf, Aval):
        return leaf
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return make_aval(leaf.shape, leaf.dtype, bool(leaf.weak_type))
    try:
        return aval_of(leaf)
    except TypeError:
        which = f"argument {arguments.names()[i]}" if arguments is not None else "an argument"
        raise TypeError(
            f"{which} of {name} is {describe(leaf)}, which is not an array {here()}. Give arrays and numbers; "
            "under @jit, mark anything else static with static_argnums or static_argnames, or close over it."
        ) from None


def _output(tape: Recording, value: Any, name: str) -> Var:
    try:
        return operand(tape, value)
    except TypeError as error:
        if isinstance(value, Tracer):
            raise
        raise TypeError(f"{name} returned {describe(value)}, which is not an array {here()}: return arrays") from error


def without_static(
    fun: Callable[..., Any], args: Sequence[Any], static: Collection[int]
) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """`fun` as a function of the arguments that are not at `static`, and these arguments."""
    if not static:
        return fun, tuple(args)
    count, fixed = len(args), {i: args[i] for i in static}

    def merged(*others: Any, **kwargs: Any) -> Any:
        values = iter(others)
        return fun(*[fixed[i] if i in fixed else next(values) for i in range(count)], **kwargs)

    return merged, tuple(x for i, x in enumerate(args) if i not in fixed)


class Taps:
    """What one `capture` has found: values and gradients ("value", "gradient"), each with its name and its tape."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, str, Any, Recording | None]] = []

    def add(self, kind: str, name: str, value: Any) -> None:
        self.entries.append((kind, name, value, state.tape))

    def take(self, tape: Recording | None) -> dict[tuple[str, str], list[Any]]:
        """What is on `tape`, which leaves the list: whoever runs it as a body returns it too."""
        taken: dict[tuple[str, str], list[Any]] = {}
        for kind, name, value, where in self.entries:
            if where is tape:
                taken.setdefault((kind, name), []).append(value)
        self.entries = [entry for entry in self.entries if entry[3] is not tape]
        return taken


def taken() -> dict[tuple[str, str], list[Any]]:
    """What was tapped on the body that is recording, for the enclosing recording to return."""
    return state.capture.take(state.tape) if state.capture is not None else {}


def put(taps: dict[tuple[str, str], list[Any]]) -> None:
    """Notes what a body has returned of its taps."""
    for (kind, name), values in taps.items():
        for value in values:
            state.capture.add(kind, name, value)


def put_gradients(lin: Linearized, outs: Sequence[Any]) -> None:
    """Notes the gradients of taps among what the backward part of a body has returned."""
    for name, value in zip(lin.taps, outs[len(lin.grads) :], strict=True):
        state.capture.add("gradient", name, value)


_KEPT = 256
"""For how many sets of argument types a function keeps its bodies."""


class BodyCache:
    """The bodies that a function has become, one for each set of argument types.

    The arrays that the function closes over are inputs of its bodies, read anew for each use, so that a
    body kept from before never runs with an old one.
    """

    def __init__(self, fun: Callable[..., Any]) -> None:
        self.fun = fun
        self.name: str = getattr(fun, "__name__", None) or type(fun).__name__
        self.references: list[Reference] | None = None
        self.bodies = Cache(_KEPT)
        self.version = 0
        self.watched: dict[int, Any] = {}

    def closed_over(self) -> list[Any]:
        """The arrays that the function closes over, as they are now."""
        if self.references is None:
            self.references = find_references(self.fun)
        arrays = [array for reference in self.references for array in arrays_in(reference())]
        if any(i >= len(arrays) or arrays[i] is not array for i, array in self.watched.items()):
            self.version += 1
            self.watched = {}
        return arrays

    def watch(self, arrays: list[Any], inputs: Sequence[Var], tape: Tape) -> None:
        """Remembers the arrays that no node reads: if one changes, `version` does, for all to be recorded anew.

        Arithmetic of one such array with another is JAX's or NumPy's own, and its result a part of the program.
        """
        read = {v for node in tape.nodes for v in node.inputs} | set(tape.outputs)
        self.watched |= {i: a for i, (a, v) in enumerate(zip(arrays, inputs, strict=True)) if v not in read}

    def get(
        self, fun: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], static: Any = (), **options: Any
    ) -> tuple[Tape, list[Any]]:
        """The body for arguments of these types, and the outer values that it takes after them."""
        leaves, tree = jax.tree.flatten((args, kwargs))
        arrays = self.closed_over()
        arguments = arguments_of(fun, tree)
        types = tuple([leaf_aval(x, self.name, arguments, i) for i, x in enumerate(leaves)])
        closed = tuple([aval_of(x) for x in arrays])
        outer = state.tape
        axes = options.get("axes") or (outer.axes if outer is not None else {})
        how = (tuple(axes.items()), outer and outer.ambient, state.no_nan, state.capture is not None)
        key = (tree, static, types, closed, how, self.version)
        known = self.bodies.get(key)
        if known is not None:
            return known[0], arrays + known[1]
        raw, captured = record_body(fun, args, kwargs, self.name, given=arrays, **options)
        count = len(raw.inputs) - len(captured)
        self.watch(arrays, raw.inputs[count - len(arrays) : count], raw)
        body = optimize(raw)
        # What another recording made is that recording's alone; and what looks at results asks to anew for each.
        if (outer is None or outer.examine is None) and not any(
            isinstance(value, (Tracer, jax.core.Tracer)) for value in captured
        ):
            self.bodies.keep(key, (body, captured))
        return body, arrays + captured


class BodyOp(Op):
    """An op that runs bodies. Where no tape records it, its results are looked at as those of a whole program."""

    __slots__ = ()

    def run(self, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
        return super().run(args, params) if state.examine is None else state.examine.op(self, args, params)


def _call_vjp(node: Node, cts: Sequence[Any], needs: Sequence[bool]) -> list[Any]:
    return called_backward(node, *body_cotangents(node, cts, needs))


def called_backward(node: Node, lin: Linearized, operands: Sequence[Any]) -> list[Any]:
    """A cotangent for each operand of `node`, from one call of the backward part of its body."""
    grads: list[Any] = [None] * len(node.inputs)
    outs = call(*operands, body=lin.backward)
    put_gradients(lin, outs)
    for i, g in zip(lin.grads, outs, strict=False):
        grads[i] = g
    return grads


call: Op = Op(
    "call", lambda *xs, body: compiled(body)(*xs), _call_vjp, shape=output_types, multiple=True, axes=TYPED
)  # fmt: skip
"""Runs a body once: what a `@jit` function becomes while a tape records."""
