"""Ops: the primitives. A record of name, lowering, shape rule and derivative. Uses recordings, and inference."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax

from .caches import Cache, Nothing
from .errors import INTERNAL, LeakedTracerError, called, describe, here, user_source
from .inference import TYPED, infer, infer_or_explain
from .recording import state
from .remedies import leaked_message
from .tape import Node, aval_of
from .tracer import Literal, Tracer, record

_TYPES, _COMPILED = 4_096, 256
"""For how many types and parameters of operands an op knows those of its outputs, and is compiled by itself."""

Cotangents = Sequence[Any]
JointRule = Callable[[Node, Cotangents, Sequence[bool]], Cotangents]


class Op:
    """One primitive of the tape.

    Args:
      name: what tapes and messages call it.
      lower: its value, a function over `jax.lax` and `jax.numpy`: `lower(*operands, **params)`. It
        defines the op's shape and dtype too, through `jax.eval_shape`, where no `shape` rule is given.
      vjp: its derivative, written with ops, so that it is differentiable in turn. Either a tuple with a
        function an operand, `rule(ct, out, *operands, **params) -> cotangent` (`None` for an operand
        that has no derivative), or, for ops with several outputs or any number of operands, one function
        `rule(node, cts, needs) -> cotangents` where `needs` says which operands want one. A cotangent
        may have the broadcast shape and promoted dtype of the output: the sum over broadcast axes is
        taken in one place, in `backward`. `None` for an op without derivative, such as a comparison.
      shape: optional fast rule from operand avals to output avals, `shape(*avals, **params)`.
      multiple: whether it has a tuple of outputs.
      numbers: whether `lower` accepts Python numbers as they are among its operands.
      axes: how it changes the mapped axes along which values vary: from those of all operands together, and the
        parameters, to those of the outputs. By default they are the same. `TYPED` where the shape rule says it itself.
      poles: whether its value may be infinite or NaN where its operands are finite. A product with such a value has
        derivative 0 where its cotangent is 0.

    Raises:
      TypeError: if the tuple of rules and the operands of `lower` differ in number.

    Example:
      >>> import jax, tracegrad as tg
      >>> cube = tg.Op("cube", lambda x: x * x * x, vjp=(lambda ct, out, x: ct * 3.0 * x * x,))
      >>> float(tg.grad(cube)(2.0))
      12.0
    """

    __slots__ = (
        "_compiled", "avals", "axes", "lower", "multiple", "name", "numbers", "ours", "poles", "shape",
        "trusted", "vjp",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        lower: Callable[..., Any],
        vjp: tuple[Callable[..., Any] | None, ...] | JointRule | None = None,
        *,
        shape: Callable[..., Any] | None = None,
        multiple: bool = False,
        numbers: bool = False,
        poles: bool = False,
        axes: Callable[..., frozenset[str]] | None = None,
    ) -> None:
        if isinstance(vjp, tuple):
            parameters = inspect.signature(lower).parameters.values()
            if not any(p.kind is p.VAR_POSITIONAL for p in parameters):
                arity = sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
                if arity != len(vjp):
                    raise TypeError(
                        f"op {name!r}: lower takes {arity} operands and vjp has {len(vjp)} rules. "
                        "Give one rule an operand (None where there is no derivative), and make parameters "
                        "keyword-only."
                    )
            if multiple:
                raise TypeError(f"op {name!r} has several outputs: give vjp as one function (node, cts, needs)")
        self.name = name
        self.lower = lower
        self.vjp = vjp
        self.shape = shape
        self.multiple = multiple
        self.numbers = numbers
        self.poles = poles
        self.axes = axes
        # Whether the shape rule need not be held against `lower`: those of the package are tested.
        self.trusted = shape is None or INTERNAL[getattr(getattr(lower, "__code__", None), "co_filename", __file__)]
        # Whether its derivative is known from its node alone: a rule of the user's may be another each time.
        rules = [rule for rule in (vjp if isinstance(vjp, tuple) else (vjp,)) if rule is not None]
        self.ours = all(INTERNAL[getattr(getattr(rule, "__code__", None), "co_filename", "")] for rule in rules)
        # With and without 64-bit types: they decide what integers and Python numbers become.
        self.avals: tuple[Any, ...] = (Nothing(), Nothing()) if axes is TYPED else (Cache(_TYPES), Cache(_TYPES))
        self._compiled = Cache(_COMPILED)

    infer = infer
    __name__ = property(lambda self: self.name)

    def __repr__(self) -> str:
        return f"Op({self.name})"

    def __call__(self, *args: Any, **params: Any) -> Any:
        """Records a node if a tape is recording in this thread; otherwise computes the value."""
        tape = state.tape
        if tape is not None:
            return record(tape, self, args, params)
        return self.run(args, params)

    def run(self, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
        """The value, computed now: as one compiled call, or inline under a transformation of JAX's."""
        inline = False
        for i, a in enumerate(args):
            if isinstance(a, Tracer):
                if type(a) is not Literal:
                    raise LeakedTracerError(leaked_message(a, self))
                args = (*args[:i], a.value, *args[i + 1 :])
            elif isinstance(a, jax.core.Tracer):
                inline = True
            elif type(a) is list or type(a) is tuple:
                array = Tracer.of_list(a)
                inline |= isinstance(array, jax.core.Tracer)
                args = (*args[:i], array, *args[i + 1 :])
        try:
            return self._checked(params, args) if inline else self.compiled(params)(*args)
        except (TypeError, ValueError, NotImplementedError, IndexError):
            try:
                avals = tuple(map(aval_of, args))
            except TypeError:
                bad = next(a for a in args if not _is_array(a))
                raise TypeError(f"{called()}: an operand is {describe(bad)}, which is not an array {here()}") from None
            infer_or_explain(self, avals, params, user_source())
            raise

    def _checked(self, params: dict[str, Any], args: tuple[Any, ...]) -> Any:
        """`lower`, after the shape rule has had its say."""
        if self.shape is not None:
            self.infer(tuple(map(aval_of, args)), params)
        return self.lower(*args, **params)

    def compiled(self, params: dict[str, Any]) -> Callable[..., Any]:
        """`lower` with these parameters under `jax.jit`, made once."""
        key = tuple(params.items()) if params else ()
        fn = self._compiled.get(key)
        if fn is None:

            def call(*args: Any) -> Any:
                return self._checked(params, args)

            call.__name__ = call.__qualname__ = self.name
            fn = self._compiled.keep(key, jax.jit(call))
        return fn  # type: ignore[no-any-return]


def more_outputs(node: Node, **params: Any) -> tuple[Any, ...]:
    """Makes `node` run with these parameters, with which it has more outputs, and returns what they add.

    The node keeps its outputs and its place, so that nothing runs twice: unless it has run already, in an earlier call
    of a define-by-run recording.
    """
    full, tape = {**node.params, **params}, node.outputs[0].tape
    avals = node.op.infer(tuple([v.aval for v in node.inputs]), full)[len(node.outputs) :]
    if not avals:
        return ()
    if tape is None or not tape.open or node.outputs[0].value is not None:
        return tuple(node.op(*node.inputs, **full)[len(node.outputs) :])
    extra = tuple([Tracer(aval, tape) for aval in avals])
    node.extend(full, extra)
    return extra


def _is_array(value: Any) -> bool:
    try:
        aval_of(value)
    except TypeError:
        return False
    return True
