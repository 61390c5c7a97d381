"""The values of a tape, each with its gradient, computed once for whoever looks at them. Uses backward, and lower."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .backward import backward, ones
from .inference import output_types
from .lower import evaluate, replay
from .op import Op
from .ops import alias
from .passes import dead_code
from .recording import Recording, state
from .tape import Node, Tape, Var
from .tracer import new_input


@dataclass(frozen=True, eq=False, slots=True)
class Values:
    """What the values of a tape were in one run, and the gradients of its scalar result with respect to them.

    Attributes:
      values, gradients: by value.
      bodies: for each step that runs tapes, the values of these, in the order in which they are among its parameters.
    """

    values: dict[Var, Any]
    gradients: dict[Var, Any]
    bodies: dict[Node, list[Inside]] = field(default_factory=dict)

    @staticmethod
    def of(tape: Tape) -> Values | None:
        """Those that were kept with a tape."""
        return tape.made.get(Values)


class Inside(NamedTuple):
    """What the values of a body were, and in which of its runs: `note` is empty if there was one run.

    Those of several runs are one array, with an axis in front for the runs.
    """

    values: Values
    note: str = ""


def keep_values(target: Tape, tape: Tape, given: Sequence[Any], cotangents: dict[Var, Any]) -> None:
    """Runs a tape for these inputs, step by step, and keeps with `target` all values and their gradients.

    Args:
      target: the tape, with fewer inputs.
      tape: with all that it takes among its inputs.
      given: a value for each input.
      cotangents: for values of the tape, the values of it that are their gradients, where it computes them. If there
        are none and the tape returns one real scalar, its gradient is taken, unless there is none: of a
        `while_loop`.
    """
    given = [x if isinstance(x, jax.Array) else jnp.asarray(x) for x in given]
    values: dict[Var, Any] = dict(zip(tape.inputs, given, strict=True))
    kept = Values(values, {})
    for node in tape.nodes:
        run, operands = _runner(node), evaluate([], node.inputs, values)
        # What other processes have is not here to be looked at.
        if run is None or not all(x.is_fully_addressable for x in operands if isinstance(x, jax.Array)):
            evaluate([node], [], values)
            _without(kept, node)
            continue
        operands = [gathered(x) for x in operands]
        outs, parts = jax.jit(functools.partial(run, node))(*operands)
        values.update(zip(node.outputs, outs, strict=True))
        _add(kept, node, parts, (), (), frozenset())
    found = {v: ct for v, ct in cotangents.items() if v in values and ct is not None}
    if found or len(tape.outputs) != 1 or not _real_scalar(tape.outputs[0]) or _without_derivative(tape):
        kept.gradients.update((v, x) for v, ct in found.items() if (x := _number(ct, values)) is not None)
    else:
        kept.gradients.update((v, x) for v, x in _gradients(tape, given).items() if x is not None)
    inputs = set(tape.inputs)
    for node in tape.nodes:
        if node.op is alias and node.outputs[0] in kept.gradients and node.inputs[0] in inputs:
            # The differentiated use of an argument.
            kept.gradients.setdefault(node.inputs[0], kept.gradients[node.outputs[0]])
    target.made[Values] = kept


def _real_scalar(v: Var) -> bool:
    return v.aval.differentiable and not v.aval.shape and v.aval.dtype.kind != "c"


def _without_derivative(tape: Tape) -> bool:
    """Whether the results need what a step without a derivative makes."""
    for node in _live(tape):
        runner = RUNNERS.get(node.op)
        if runner is not None and not runner.derivative and any(v.aval.differentiable for v in node.outputs):
            return True
        if any(_without_derivative(body) for _, body in _bodies(node)):
            return True
    return False


def _number(ct: Var, values: dict[Var, Any]) -> Any:
    return ct.value if ct.tape is None else values.get(ct)


def _gradients(tape: Tape, given: Sequence[Any]) -> dict[Var, Any]:
    """The gradient of the one result with respect to every value, from a copy of the tape."""
    outer, state.cotangents = state.cotangents, {}
    try:
        with Recording(tape.name, axes=tape.axes) as copy:
            inputs = [new_input(copy, v.aval) for v in tape.inputs]
            (result,) = replay(copy, tape, inputs)
            own = [v for node in tape.nodes for v in node.outputs]
            copied = [v for node in copy.nodes for v in node.outputs]
            wanted = [v for v in inputs if v.aval.differentiable]
            backward(copy, [result], [ones(result)], wanted, 0)
            cotangents, nodes = state.cotangents, list(copy.nodes)
    finally:
        state.cotangents = outer
    values: dict[Var, Any] = dict(zip(inputs, given, strict=True))
    evaluate(nodes, [], values)
    pairs = zip([*tape.inputs, *own], [*inputs, *copied], strict=False)
    return {v: _number(cotangents[c], values) for v, c in pairs if cotangents.get(c) is not None}


# -- bodies: run as their steps run them, with all values among what they return


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["steps", "carried", "inner", "count"],
    meta_fields=["kind", "size", "shared"],
)
@dataclass(frozen=True)
class Part:
    """What was found in a body: `kind` says in which of its runs, of which there are `size` or `count`.

    `steps` has the outputs of each step, `carried` the first inputs of the body, `inner` the parts of steps with
    bodies. An axis stands in front of all for each loop and each map around it; `shared` are the inputs of the body
    that are the same in all of its runs.
    """

    steps: list[list[Any]]
    carried: list[Any]
    inner: dict[int, list[Part]]
    kind: str
    size: int = 1
    shared: tuple[int, ...] = ()
    count: Any = None


Found = tuple[Sequence[Any], list[Part]]


def _live(body: Tape) -> tuple[Node, ...]:
    return dead_code(body).nodes


def run_body(
    body: Tape, inputs: Sequence[Any], kind: str = "once", size: int = 1, shared: Sequence[int] = ()
) -> tuple[list[Any], Part]:
    """The outputs of a body, and all its values."""
    env: dict[Var, Any] = dict(zip(body.inputs, inputs, strict=True))
    steps: list[list[Any]] = []
    inner: dict[int, list[Part]] = {}
    for i, node in enumerate(_live(body)):
        run = _runner(node)
        if run is None:
            evaluate([node], [], env)
        else:
            outs, inner[i] = run(node, *evaluate([], node.inputs, env))
            env.update(zip(node.outputs, outs, strict=True))
        steps.append([_plain(env[v]) for v in node.outputs])
    return evaluate([], body.outputs, env), Part(steps, [], inner, kind, size, tuple(shared))


def _plain(x: Any) -> Any:
    """A value as an array that is not weakly typed: of a random key, its data."""
    x = jnp.asarray(x)
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return jax.random.key_data(x)
    return lax.convert_element_type(x, x.dtype)


def with_carried(part: Part, carried: Sequence[Any]) -> Part:
    """What was found in a body, and its first inputs."""
    return replace(part, carried=[_plain(x) for x in carried])


def _once(node: Node, *operands: Any) -> Found:
    outs, part = run_body(node.params["body"], operands)
    return outs, [part]


class Runner(NamedTuple):
    """How a step runs its bodies, if otherwise than once with its operands: with all values among what it returns.

    Without a `derivative`, no gradient is taken of what needs what it makes.
    """

    run: Callable[..., Found]
    derivative: bool = True


RUNNERS: dict[Op, Runner] = {}
"""Those of the loops, branches and maps, which stand above."""


def _runner(node: Node) -> Callable[..., Found] | None:
    """How a step with bodies runs them, if the values in them are to be had."""
    runner = RUNNERS.get(node.op)
    return runner.run if runner is not None else _once if node.op.shape is output_types else None


def _bodies(node: Node) -> Iterator[tuple[str, Tape]]:
    for name, value in node.params.items():
        for x in value if isinstance(value, tuple) else (value,):
            if isinstance(x, Tape):
                yield name, x


def gathered(x: Any) -> Any:
    """An array in one place: those that are spread over devices do not mix with those that are not."""
    return jnp.asarray(np.asarray(x)) if isinstance(x, jax.Array) and len(x.devices()) > 1 else x


# -- what was found, as records


def _add(
    outer: Values,
    node: Node,
    parts: list[Part],
    masks: tuple[Any, ...],
    around: tuple[str, ...],
    shared: frozenset[Var],
) -> None:
    """Gives the values around a step those of its bodies.

    `masks` say for which turns and elements the branches around were taken; `around`, in which runs they were. Those
    that are `shared` are the same in all turns or elements, and have no axis for these.
    """
    outer.bodies[node] = found = []
    for (name, body), part in zip(_bodies(node), parts, strict=True):
        taken, notes, more = masks, around, part.count
        if part.kind == "branch":
            mask = np.asarray(_masked(more, masks))
            if not mask.any():
                found.append(Inside(Values({}, {}), "not taken"))
                continue
            notes = (*around, f"taken in {mask.sum()} of {mask.size}" if mask.ndim else "taken")
            # With all of them there is nothing to choose.
            taken = masks if mask.all() else (*masks, mask)
        elif part.kind == "last turn":
            count = np.full((), part.size) if more is None else np.asarray(_masked(more, masks))
            if not count.any():
                found.append(Inside(Values({}, {}), "never run"))
                continue
            low, high = int(count.min()), int(count.max())
            turns = f"the last of {high} turns" if low == high else f"the last of {low} to {high} turns"
            notes = (*around, turns if high > 1 else "the one turn")
        elif part.kind == "end":
            notes = (*around, "when it ended")
        elif part.kind != "once":
            notes = (*around, f"all {part.size} {part.kind}")
        inside = Values({}, {})
        operands = node.inputs[max(0, len(node.inputs) - len(body.inputs)) :]
        if name == "cond":
            operands = node.inputs[: len(body.inputs)]
        alike = {body.inputs[i] for i in part.shared}
        alike |= {v for u, v in zip(operands, body.inputs, strict=False) if u in shared or u.tape is None}
        for u, v in zip(operands, body.inputs, strict=False):
            value = outer.values.get(u, u.value if u.tape is None else None)
            if value is not None:
                inside.values[v] = value if v in alike else _masked(value, taken[len(masks) :])
        own = list(zip(body.inputs, part.carried, strict=False))
        inside.values.update((v, _masked(x, taken)) for v, x in own)
        alike -= {v for v, _ in own}
        for i, (step, outs) in enumerate(zip(_live(body), part.steps, strict=True)):
            inside.values.update((v, _masked(x, taken)) for v, x in zip(step.outputs, outs, strict=True))
            if i in part.inner:
                _add(inside, step, part.inner[i], taken, notes, frozenset(alike))
            else:
                _without(inside, step)
        found.append(Inside(inside, ", ".join(notes)))


def _without(kept: Values, node: Node) -> None:
    """Says of the bodies of a step, if it has any, that what is in them was not kept."""
    if found := [Inside(Values({}, {}), f"not kept inside {node.op.name}") for _ in _bodies(node)]:
        kept.bodies[node] = found


def _masked(x: Any, masks: Sequence[Any]) -> Any:
    """The elements of the turns in which these branches were taken, one after the other."""
    for mask in masks:
        x = x[mask]
    return x


__all__ = [
    "RUNNERS",
    "Found",
    "Inside",
    "Part",
    "Runner",
    "Values",
    "gathered",
    "keep_values",
    "run_body",
    "with_carried",
]
