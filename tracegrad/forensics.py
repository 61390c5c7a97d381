"""Results that are not finite, explained: `debug_nans`, `explain_nonfinite`. Uses reruns, and recordings."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from .arguments import arguments_of
from .errors import describe, here, name_of, need_function, user_source
from .execute import run_pending
from .explain import History
from .op import Op
from .passes import dead_code
from .recording import Recording, is_recording, state
from .rerun import FINITE, INFINITE, NAN, Frame, Record, Rerun, Step, describe_range, is_inexact, severities, shortly
from .tape import Node, Tape, Var, aval_of
from .tracer import Tracer, operand

tree_flatten, tree_unflatten = jax.tree.flatten, jax.tree.unflatten

_WORDS = ("finite", "infinite", "NaN")

_SHOWN = 8
"""How many steps of a way are shown from its start, and as many from its end."""


# -- what is found


@dataclass(frozen=True)
class NonFinite:
    """What `explain_nonfinite` found. It prints as a text for people, and is false where there is nothing to explain.

    Attributes:
      name: the function.
      results: the results that are not finite, with their ranges.
      severity: "finite", "infinite" or "NaN": the worst of them.
      step: the first step whose output is not finite while its operands are, on the way to the worst result; of a NaN
        that came of infinities that were given, the step that made NaN of them. `None` where a NaN or an infinity was
        given, or where the steps one by one give finite results.
      then: the step that made NaN of an infinity that `step` made; `None` if `step` made the NaN.
      given: the arguments and constants with a NaN or an infinity that the result comes from.
      way: the steps from `step` to the result, a line each.
      arguments: the way from the arguments to `step`, a line a step, first the arguments.
      discarded: steps that made a NaN or an infinity which no result shows, such as one that a `where` left out.
      deliberate: whether the infinities of the results are those that were given, so that nothing went wrong.
      note: what else there is to say.
    """

    name: str
    results: tuple[str, ...] = ()
    severity: str = _WORDS[0]
    step: Step | None = None
    then: Step | None = None
    given: tuple[str, ...] = ()
    way: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    discarded: tuple[Step, ...] = ()
    deliberate: bool = False
    note: str = ""

    def __bool__(self) -> bool:
        return bool(self.results or self.discarded)

    def __str__(self) -> str:
        if not self:
            return f"{self.name}: all results are finite, and no step made a NaN or an infinity."
        lines = []
        if self.results:
            lines.append(f"{self.name} gave a result that is {'NaN' if self.severity == 'NaN' else 'infinite'}: ")
            lines[-1] += "; ".join(self.results)
        else:
            lines.append(f"{self.name}: all results are finite.")
        if self.step is not None:
            lines += ["it was first not finite in", *_indented(str(self.step))]
        if self.then is not None:
            lines += ["which became NaN in", *_indented(str(self.then))]
        if self.given:
            lines += ["what was given is not finite itself:", *_indented("\n".join(self.given))]
        if self.arguments:
            lines += ["which comes from the arguments by", *_indented("\n".join(self.arguments))]
        if self.way:
            lines += ["and reaches the result by", *_indented("\n".join(self.way))]
        if self.discarded:
            count = len(self.discarded)
            text = f"{count} other step{'s' if count > 1 else ''} made a NaN or an infinity"
            text += ", which is not what a result comes from:"
            lines += [text, *_indented("\n".join(map(str, self.discarded[:_SHOWN])))]
            if count > _SHOWN:
                lines.append(f"  and {count - _SHOWN} more")
        if self.note:
            lines.append(self.note)
        return "\n".join(lines)


class NonFiniteError(FloatingPointError):
    """A result is not finite; `explanation` is the `NonFinite` that says why."""

    def __init__(self, explanation: NonFinite, message: str) -> None:
        super().__init__(message)
        self.explanation = explanation


def _indented(text: str) -> list[str]:
    return ["  " + line for line in text.splitlines()]


# -- from a run to an explanation


def _explained(
    name: str,
    tape: Tape,
    names: dict[Var, str],
    labels: Sequence[str],
    results: Sequence[Any] | None,
    thorough: bool,
) -> NonFinite:
    """Runs a tape node by node, and says where what is not finite comes from.

    `labels` are what the outputs are called; `results`, their values as they were computed before, if they were.
    """
    outer = state.tape, state.examine
    state.tape = state.examine = None
    try:
        run = Rerun(names, thorough)
        outs = run.run(Frame(dead_code(tape)), [])
        values = [v.array for v in outs] if results is None else list(results)
        bad = severities(values)
        worst = max(bad, default=FINITE)
        again = [v.record for v, s in zip(outs, bad, strict=True) if s == worst and v.record is not None]
        reaching = _behind([v.record for v in outs if v.record is not None])
        dropped = [r.step for r in run.found if r.step is not None and r not in reaching]
        shown = tuple(f"{label}, {describe_range(x)}" for label, x, s in zip(labels, values, bad, strict=True) if s)
        found = NonFinite(name, shown, _WORDS[worst], discarded=tuple(dropped))
        if not worst:
            return found
        if not any(r.severity >= worst for r in again):
            return _with(found, note=_DIFFERENT)
        return _traced(found, run, again, worst)
    finally:
        state.tape, state.examine = outer


_DIFFERENT = (
    "The same steps, run one at a time, give finite results: what the compiled program rounds otherwise, such as a "
    "product and a sum that it fuses, decides. Look for a difference of nearly equal numbers, or one near the bounds "
    "of its dtype, or run in float64."
)


def _with(found: NonFinite, **changes: Any) -> NonFinite:
    return NonFinite(**{**vars(found), **changes})


def _behind(records: Iterable[Record]) -> set[Record]:
    """These records and all that they come from."""
    found: set[Record] = set()
    waiting = list(records)
    while waiting:
        r = waiting.pop()
        if r not in found:
            found.add(r)
            waiting += r.causes
    return found


def _traced(found: NonFinite, run: Rerun, ends: list[Record], worst: int) -> NonFinite:
    """The explanation with the step where it began, and the ways from the arguments to it and from it to the result."""
    # What made it so bad: behind a NaN, not the infinities that were there as well.
    behind, waiting = set[Record](), [r for r in ends if r.severity >= worst]
    while waiting:
        r = waiting.pop()
        if r not in behind:
            behind.add(r)
            waiting += [c for c in r.causes if c.severity >= worst]
    births = sorted([r for r in behind if not any(c.severity >= worst for c in r.causes)], key=lambda r: r.order)
    birth = min(births, key=lambda r: (r.kind == "given", r.order))
    given = [r for r in _behind([birth]) if r.kind == "given"]
    first = birth
    if birth.kind == "became":
        first = min((r for r in _behind([birth]) if r.kind == "made"), key=lambda r: r.order, default=birth)
    texts = tuple(r.text for r in sorted(given, key=lambda r: r.order))
    if first is not birth:
        texts = ()
    way = _way(first, [r for r in ends if r.severity >= worst])
    lines = _elided([run.line_of(r) for r in way if r is not first and r.node is not None])
    found = _with(found, given=texts, way=lines, deliberate=worst == INFINITE and birth.kind == "given")
    if first.kind == "given":
        return found
    return _with(
        found, step=first.step, then=birth.step if first is not birth else None, arguments=_origins(run, first)
    )


def _way(first: Record, ends: list[Record]) -> list[Record]:
    """The shortest way from a record to one of those that come from it."""
    after: dict[Record, Record | None] = dict.fromkeys(ends)
    waiting = list(ends)
    for r in waiting:
        for c in r.causes:
            if c not in after:
                after[c] = r
                waiting.append(c)
    path: list[Record] = []
    at: Record | None = first
    while at is not None:
        path.append(at)
        at = after.get(at)
    return path


def _elided(lines: Sequence[str]) -> tuple[str, ...]:
    """Lines, of which those that repeat the one before are left out, and the middle of many."""
    kept = [line for i, line in enumerate(lines) if i == 0 or line != lines[i - 1]]
    if len(kept) > 2 * _SHOWN + 1:
        kept = [*kept[:_SHOWN], f"... {len(kept) - 2 * _SHOWN} more ...", *kept[-_SHOWN:]]
    return tuple(kept)


def _origins(run: Rerun, record: Record) -> tuple[str, ...]:
    """The shortest way from an argument to a step, and what other arguments it depends on."""
    node, frame = record.node, record.frame
    assert node is not None and frame is not None
    before: dict[tuple[Frame, Var], tuple[Frame, Var] | None] = {(frame, v): None for v in node.inputs}
    makers: dict[tuple[Frame, Var], Node] = {}
    waiting = list(before)
    leaves: list[tuple[Frame, Var]] = []
    for place in waiting:
        at, v = place
        maker = at.maker(v)
        if maker is not None:
            makers[place] = maker
            nexts = [(at, x) for x in maker.inputs]
        elif v in at.operands and at.parent is not None:
            nexts = [(at.parent, at.operands[v])]
        else:
            nexts = []
            if v.tape is not None:
                leaves.append(place)
        for further in nexts:
            if further not in before:
                before[further] = place
                waiting.append(further)
    if not leaves:
        return ()
    leaves.sort(key=lambda place: (place[1] not in run.names, isinstance(place[1].value, (int, float, complex))))
    first, *others = leaves
    lines = [_leaf_line(run, first[1])]
    at_place: tuple[Frame, Var] | None = first
    steps = []
    while at_place is not None:
        if at_place in makers:
            maker = makers[at_place]
            steps.append(f"-> {shortly(maker, run.line(at_place[0], maker), maker.outputs)}")
        at_place = before[at_place]
    lines += _elided([s for s in steps if not s.startswith("-> alias")])
    names = list(
        dict.fromkeys(run.names[v] for _, v in others if v in run.names and run.names[v] != run.names.get(first[1]))
    )
    if names:
        lines.append(f"it depends on {', '.join(names[:_SHOWN])}{' and more' if len(names) > _SHOWN else ''} too")
    return tuple(lines)


def _leaf_line(run: Rerun, v: Var) -> str:
    leaf = run.leaves.get(v)
    return f"{run.leaf(v)}, {describe_range(leaf.array) if leaf is not None else v.aval}"


# -- who looks


class Examiner:
    """What is asked to look at results while `debug_nans` is on: `state.examine`."""

    def __init__(self, infs: bool, discarded: bool) -> None:
        self.infs = infs
        self.discarded = discarded

    def judge(self, explanation: NonFinite) -> None:
        """Raises if the explanation is of something that went wrong."""
        nan = explanation.severity == _WORDS[NAN]
        infinite = explanation.severity == _WORDS[INFINITE] and self.infs and not explanation.deliberate
        dropped = self.discarded and any(
            "nan" in step.element or "NaN" in step.output for step in explanation.discarded
        )
        if nan or infinite or dropped:
            raise NonFiniteError(explanation, f"debug_nans: {explanation}")

    def wanted(self, values: Sequence[Any]) -> bool:
        """Whether these results are to be explained."""
        if any(isinstance(x, jax.core.Tracer) for x in values):
            return False  # inside a transformation of JAX's nothing has a value
        return self.discarded or max(severities(values), default=FINITE) >= (INFINITE if self.infs else NAN)

    def recorded(self, fun: Any, args: Any, kwargs: Any, tape: Recording, out: Sequence[Any]) -> None:
        """Looks at the results of a recording that has run."""
        outputs = [v for v in out if isinstance(v, Tracer) and v.tape is not None]
        results = [v.value for v in outputs]
        if self.wanted(results):
            self.judge(_of_recording(fun, args, kwargs, tape, outputs, results, self.discarded))

    def called(self, fun: Any, args: Any, kwargs: Any, out: Any) -> None:
        """Looks at the results of a function that was called: it is called again, and recorded, to explain them."""
        leaves = jax.tree.leaves(out)
        if not self.wanted(leaves):
            return
        if any(isinstance(x, jax.Array) and x.is_deleted() for x in jax.tree.leaves((args, kwargs))):
            raise NonFiniteError(
                NonFinite(name_of(fun), (describe_range(leaves[0]),), _WORDS[max(severities(leaves))]),
                f"debug_nans: {name_of(fun)} gave a result that is not finite {here()}, and its arguments were "
                "donated: it cannot be run again. Call it in `with debug_nans():`, where they are copied first.",
            )
        try:
            explanation = _of_call(fun, args, kwargs, self.discarded, leaves)
        except Exception as error:
            worst = max(severities(leaves))
            found = NonFinite(name_of(fun), tuple(describe_range(x) for x in leaves if is_inexact(x)), _WORDS[worst])
            raise NonFiniteError(
                found,
                f"debug_nans: {name_of(fun)} gave a result that is {found.severity} {here()}, and it could not be "
                f"recorded again to say why: {type(error).__name__}: {error}",
            ) from error
        self.judge(explanation)

    def op(self, op: Op, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
        """The value of an op with bodies that no tape records, such as a loop, which is looked at."""
        out = Op.run(op, args, params)
        bodies = [b for p in params.values() for b in (p if isinstance(p, tuple) else (p,)) if isinstance(b, Tape)]
        leaves = list(out) if op.multiple else [out]
        if not self.wanted(leaves):
            return out
        recording = Recording(bodies[0].name)
        ins = [a if isinstance(a, Var) else Tracer(aval_of(a), recording, a) for a in args]
        outputs = tuple([Tracer(aval_of(x), recording) for x in leaves])
        code, offset = user_source() or (None, 0)
        node = Node(op, ins, params, outputs, code, offset, False)
        names = dict(zip(ins, _body_names(bodies[0], len(ins)), strict=True))
        tape = Tape((), (node,), outputs, bodies[0].name)
        labels = [f"result {i}" for i in range(len(leaves))] if len(leaves) > 1 else ["the result"]
        self.judge(_explained(bodies[0].name, tape, names, labels, leaves, self.discarded))
        return out


def _body_names(body: Tape, count: int) -> list[str]:
    """What the operands of a body are called, if its arguments are all that it takes."""
    names = body.arguments[0].names() if body.arguments is not None else []
    return [names[i] if i < len(names) else f"operand {i}" for i in range(count)]


def _of_recording(
    fun: Any,
    args: Any,
    kwargs: Any,
    tape: Recording,
    outputs: Sequence[Var],
    results: Sequence[Any] | None,
    thorough: bool,
    labels: Sequence[str] | None = None,
) -> NonFinite:
    leaves, tree = tree_flatten((args, kwargs))
    names = dict(zip(map(id, leaves), arguments_of(fun, tree).names(), strict=True))
    read = [v for node in tape.nodes for v in node.inputs]
    named = {v: names[key] for v in read for key in (id(v), id(v.value)) if key in names}
    if labels is None:
        labels = [f"result {i}" for i in range(len(outputs))] if len(outputs) > 1 else ["the result"]
    return _explained(name_of(fun), tape.part(tape.nodes, outputs), named, labels, results, thorough)


def _of_call(fun: Any, args: Any, kwargs: Any, thorough: bool, results: Sequence[Any] | None = None) -> NonFinite:
    """The explanation of what a function gives, which is recorded for it and runs node by node alone."""
    how = functools.partial(run_pending, history=History())
    outer, state.examine = state.examine, None
    try:
        with Recording(name_of(fun), run=how, lazy=True) as tape:
            leaves, tree = tree_flatten((args, kwargs))
            leaves = [operand(tape, x) if isinstance(x, (jax.Array, np.ndarray)) else x for x in leaves]
            args, kwargs = tree_unflatten(tree, leaves)
            found = jax.tree_util.tree_flatten_with_path(fun(*args, **kwargs))[0]
            kept = [i for i, (_, v) in enumerate(found) if isinstance(v, Tracer) and v.tape is tape]
            labels = [f"result{jax.tree_util.keystr(found[i][0])}" for i in kept]
            if results is not None:
                results = [results[i] for i in kept] if len(results) == len(found) else None
            outputs = [found[i][1] for i in kept]
            return _of_recording(fun, args, kwargs, tape, outputs, results, thorough, labels)
    finally:
        state.examine = outer


def explain_nonfinite(fun: Callable[..., Any], *, discarded: bool = False) -> Callable[..., NonFinite]:
    """A function of the same arguments as `fun` that says where its results are not finite from, and raises nothing.

    `fun` is recorded and its tape runs one node at a time, down into loops, branches and mapped functions: that is
    slow, and what it does in Python happens once more. A function under `@jit` donates nothing.

    Args:
      fun: any function of pytrees of arrays: a loss, a gradient, a whole step, under `@jit` or not.
      discarded: whether to look also in loops and branches whose results are finite for steps that made a NaN or an
        infinity that reached no result.

    Returns:
      A function that returns a `NonFinite`: false where all is finite, and its text is the explanation; `step` is the
      first step whose output is not finite while its operands are. What it knows is in its attributes.

    Raises:
      TypeError: if `fun` is no function, or this is called while a tape records, where nothing has a value yet.

    Example:
      >>> import tracegrad as tg, tracegrad.numpy as np
      >>> found = tg.explain_nonfinite(lambda x: np.log(x - 1.0).sum())(np.array([3.0, 0.5]))
      >>> found.severity, found.step.op, found.step.element
      ('NaN', 'log', 'at [1]: log(-0.5) = nan')
      >>> bool(tg.explain_nonfinite(np.log)(np.array([3.0, 0.5])))
      False
    """
    need_function(fun, "explain_nonfinite")

    @functools.wraps(fun)
    def wrapped(*args: Any, **kwargs: Any) -> NonFinite:
        if is_recording() or any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((args, kwargs))):
            raise TypeError(
                f"explain_nonfinite: {name_of(fun)} is called while it is recorded or traced {here()}, where nothing "
                "has a value. Call it outside of @jit, grad and the like, around the whole function."
            )
        return _of_call(fun, args, kwargs, discarded)

    return wrapped


class debug_nans(contextlib.AbstractContextManager["debug_nans"]):
    """Explains each result that is not finite: a context manager, and a decorator.

    Looked at are the results of what is called in the block (or in the decorated function): of `grad` and the other
    transforms, undecorated or under `@jit`, of `pmap`, and of loops and branches; and those of a decorated function
    itself. If one is not finite, the program runs again, one node at a time, and the error says which step made it so:
    the first, forward or backward, whose output is not finite while its operands are, with the user's line, the ranges
    of its operands, and the ways from the arguments to it and from it to the result. In a loop it says which step, in a
    mapped function which element or device.

    The rule. *A result that has a NaN is an error. A result that has an infinity is one if a step of the program made
    that infinity of finite operands, and not if all infinities that it comes from were given*, as arguments or as
    numbers of the program, such as a mask of -inf. What happens on the way does not matter: a `log(0)` that ends as a
    finite `exp(log(0))`, an overflow under a `where` that selects the other branch and a NaN in a branch that is not
    taken raise nothing. They are mentioned where something else is explained, and `discarded=True` asks for them.

    A program under `@jit` runs compiled, as ever, and only its results are looked at, which waits for them; it is
    recorded again when it is to be explained. Arguments that it donates are copied first, which takes their memory once
    more. While this is off, it costs nothing.

    A single operation such as `tracegrad.numpy.log(x)` outside of any of these is not looked at: whether its result
    is meant cannot be known. Put it in a function with this decorator, or use `explain_nonfinite`. Inside a function
    that is being recorded, this is about the whole of that function. Inside `jax.jit` and other transformations of
    JAX's nothing has a value, and nothing is looked at.

    Args:
      enabled: whether it is on in the block: `debug_nans(False)` is off inside one that is on.
      infs: whether infinities are errors, by the rule above; NaN always are.
      discarded: whether a NaN that reaches no result is an error too. Then each program runs node by node at each call.

    Raises:
      NonFiniteError: a `FloatingPointError`; its `explanation` is the `NonFinite` that its message prints.

    Example:
      >>> import tracegrad as tg, tracegrad.numpy as np
      >>> loss = lambda w: np.sqrt(w - 1.0).sum()
      >>> with tg.debug_nans():
      ...     try:
      ...         tg.grad(loss)(np.array([2.0, 0.5]))
      ...     except FloatingPointError as error:
      ...         print(error.explanation.step.element)
      at [1]: sqrt(-0.5) = nan
    """

    def __init__(self, enabled: bool = True, *, infs: bool = True, discarded: bool = False) -> None:
        for name, value in (("enabled", enabled), ("infs", infs), ("discarded", discarded)):
            if not isinstance(value, bool):
                form = "@debug_nans(), with parentheses" if callable(value) else f"{name}=True or {name}=False"
                raise TypeError(f"debug_nans: {name} is {describe(value)} {here()}. Write {form}.")
        self.examiner = Examiner(infs, discarded) if enabled else None
        self.outer: list[Any] = []

    def __enter__(self) -> debug_nans:
        self.outer.append(state.examine)
        state.examine = self.examiner
        recording = state.tape
        # What is being recorded has its results when this block has long ended.
        while recording is not None and self.examiner is not None:
            recording.examine = self.examiner
            recording = recording.parent
        return self

    def __exit__(self, *error: Any) -> None:
        state.examine = self.outer.pop()

    def __call__(self, fun: Callable[..., Any]) -> Callable[..., Any]:
        need_function(fun, "debug_nans", form="@debug_nans() above a function")

        @functools.wraps(fun)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with self:
                out = fun(*args, **kwargs)
            if self.examiner is not None and state.tape is None and not hasattr(fun, "jitted"):
                self.examiner.called(fun, args, kwargs, out)
            return out

        return wrapped


__all__ = ["NonFinite", "NonFiniteError", "Step", "debug_nans", "explain_nonfinite"]
