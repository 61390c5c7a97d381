"""What holds of every tape, checked after each pass if `VERIFY` is on. Uses the tape, and messages."""

from __future__ import annotations

from .errors import describe_source
from .tape import Node, Tape, Var

VERIFY = False
"""Whether every pass and transform checks the tape that it returns; the tests turn it on."""


def verified(tape: Tape) -> Tape:
    """`tape`, checked if `VERIFY` is on."""
    if VERIFY:
        check(tape)
    return tape


def check(tape: Tape) -> None:
    """Checks that every value is bound once and before its use, with the type its op's rule gives.

    Raises:
      AssertionError: if not; the message names the node.
    """
    bound: set[Var] = set(tape.inputs)
    if len(bound) != len(tape.inputs):
        raise AssertionError(f"an input of {tape.name or 'the tape'} is bound twice")
    made = {v for node in tape.nodes for v in node.outputs}
    for node in tape.nodes:

        def fail(what: str, node: Node = node) -> AssertionError:
            return AssertionError(f"{node.op.name} at {describe_source(node.source)}: {what}")

        for v in node.inputs:
            if v in made and v not in bound:
                raise fail(f"an operand of type {v.aval} is used before it is bound\n{tape.text(whole=True)}")
            if v not in bound and v.value is None:
                raise fail(f"an operand of type {v.aval} belongs to no node and no input\n{tape.text(whole=True)}")
        body = node.params.get("body")
        ended = {node.params.get("axis_name"), *getattr(node.params.get("mesh"), "axis_names", ())}
        # A loop with a condition has operands of that too: its body's are not at the same places.
        into = body.inputs if isinstance(body, Tape) else ()
        for v, taken in zip(node.inputs, into if len(into) == len(node.inputs) else (), strict=False):
            if taken.aval.varying - ended != v.aval.varying:
                raise fail(f"an operand of type {v.aval} goes into its body as {taken.aval}")
        expected = node.op.infer(tuple(v.aval for v in node.inputs), node.params)
        actual = tuple(v.aval for v in node.outputs)
        if actual != expected:
            raise fail(f"outputs are {actual}, the op's rule says {expected}")
        for v in node.outputs:
            if v in bound:
                raise fail(f"its output of type {v.aval} is bound twice")
            bound.add(v)
    for v in tape.outputs:
        if v not in bound and v.value is None:
            raise AssertionError(f"an output of type {v.aval} is never computed")
