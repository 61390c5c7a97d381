"""Control flow: loops and branches whose bodies are tapes of their own. Uses bodies, ops and backward."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax

from . import numpy as tnp
from .backward import active_path, linearize, settled
from .body import BodyOp, leaf_aval, put, put_gradients, record_body, taken
from .errors import describe, describe_source, here, name_of, need_function
from .inference import TYPED
from .lower import replay
from .op import Op, more_outputs
from .ops import add, astype, zeros_of
from .ops.collectives import communicates, vary
from .passes import dead_code, optimize, program
from .recording import Recording, state
from .tape import NOWHERE, Aval, Node, Tape, Var, aval_of, make_aval, with_axes
from .tracer import Tracer, new_input, operand
from .varying import marked
from .verify import verified

tree_flatten, tree_unflatten = jax.tree.flatten, jax.tree.unflatten


# -- scan


def _run_scan(
    *operands: Any, body: Tape, carried: int, scanned: int, length: int, reverse: bool, unroll: int | bool
) -> Any:
    init, xs, consts = operands[:carried], operands[carried : carried + scanned], operands[carried + scanned :]
    run = program(body)

    def step(carry: Any, x: Any) -> Any:
        outs = run(*carry, *x, *consts)
        return _retyped(outs[:carried], body), tuple(outs[carried:])

    start = _marked(init, body)
    final, ys = lax.scan(step, start, tuple(xs), length=length, reverse=reverse, unroll=unroll)
    return (*final, *ys)


def _retyped(outs: Sequence[Any], body: Tape) -> tuple[Any, ...]:
    """The values that go round a loop, no more weakly typed than those that went in."""
    typed = [
        x if v.aval.weak_type else lax.convert_element_type(x, v.aval.dtype)
        for x, v in zip(outs, body.inputs, strict=False)
    ]
    return _marked(typed, body)


def _marked(carry: Sequence[Any], body: Tape) -> tuple[Any, ...]:
    return tuple([marked(x, v.aval.varying) for x, v in zip(carry, body.inputs, strict=False)])


def _scan_types(*avals: Aval, body: Tape, carried: int, length: int, **params: Any) -> list[Aval]:
    ys = [v.aval for v in body.outputs[carried:]]
    return [v.aval for v in body.inputs[:carried]] + [
        make_aval((length, *y.shape), y.dtype, y.weak_type, y.varying) for y in ys
    ]


def _scan_vjp(node: Node, cts: Sequence[Any], needs: Sequence[bool]) -> list[Any]:
    params = node.params
    body, carried, length = params["body"], params["carried"], params["length"]
    consts_at = carried + params["scanned"]
    # What a step passes on depends on what the step before passed on, and so do the cotangents: both to a fixed point.
    need = _varying_carry(body, carried, needs)
    given = [ct is not None for ct in cts]
    given[:carried] = [g and n for g, n in zip(given[:carried], need[:carried], strict=True)]
    while True:
        lin = linearize(body, need, given)
        missing = [i for i in lin.grads if i < carried and not given[i]]
        if not missing:
            break
        for i in missing:
            given[i] = True

    # A step's residuals are stacked; a constant is the same for every step.
    extras: list[Var] = []
    position: dict[tuple[str, int], int] = {}
    for kind, i in lin.saved:
        if (kind == "input" and i < carried) or (kind == "output" and i < carried):
            position[kind, i] = len(lin.forward.outputs) - len(body.outputs) + len(extras)
            extras.append((lin.forward.inputs if kind == "input" else lin.forward.outputs)[i])
    forward = lin.forward
    if extras:
        forward = forward.replace(outputs=(*forward.outputs, *extras))
    stacked = more_outputs(node, body=forward)

    def saved(kind: str, i: int) -> Any:
        if kind == "residual":
            return stacked[i]
        if (kind, i) in position:
            return stacked[position[kind, i]]
        return (node.inputs if kind == "input" else node.outputs)[i]

    loop = [i for i in range(carried) if given[i]]
    sums = [i for i in lin.grads if i >= consts_at]
    grads_of_xs = [i for i in lin.grads if carried <= i < consts_at]
    once = [s for s in lin.saved if s[0] == "input" and s[1] >= consts_at]
    each = [s for s in lin.saved if s not in once]
    given_ys = [i for i in range(carried, len(cts)) if given[i]]

    summed = {
        i: g.aval.varying | body.inputs[i].aval.varying for i, g in zip(lin.grads, lin.backward.outputs, strict=False)
    }
    with Recording(f"{body.name}_backward", axes=body.axes, blame=node) as tape:
        values: dict[Any, Any] = {("ct", i): new_input(tape, body.inputs[i].aval) for i in loop}
        # Over the devices they are summed once the loop is done, not in each step.
        totals = [new_input(tape, with_axes(body.inputs[i].aval, summed[i])) for i in sums]
        operands = dict(zip(lin.saved, lin.backward.inputs, strict=False))
        values.update((s, new_input(tape, operands[s].aval)) for s in each)
        values.update((("ct", i), new_input(tape, body.outputs[i].aval)) for i in given_ys)
        values.update((s, new_input(tape, operands[s].aval)) for s in once)
        returned = replay(tape, lin.backward, [values[s] for s in lin.saved] + [values["ct", i] for i in lin.cts])
        grads = dict(zip(lin.grads, returned, strict=False))
        taps = returned[len(lin.grads) :]
        passed = [
            settled(grads[i] if i in grads else zeros_of(values["ct", i]), body.inputs[i].aval.varying) for i in loop
        ]
        added = [add(total, grads[i]) for total, i in zip(totals, sums, strict=True)]
        results = (*passed, *added, *[grads[i] for i in grads_of_xs], *taps)
        step = tape.finished([operand(tape, v) for v in results])
    outs = scan_op(
        *[vary(zeros_of(node.inputs[i]), body.inputs[i].aval.varying) if cts[i] is None else cts[i] for i in loop],
        *[vary(zeros_of(node.inputs[i]), summed[i]) for i in sums],
        *[saved(*s) for s in each],
        *[cts[i] for i in given_ys],
        *[saved(*s) for s in once],
        body=optimize(step),
        carried=len(loop) + len(sums),
        scanned=len(each) + len(given_ys),
        length=length,
        reverse=not params["reverse"],
        unroll=params["unroll"],
    )
    wanted = [*loop, *sums, *grads_of_xs]
    put_gradients(lin, [None] * len(lin.grads) + list(outs[len(wanted) :]))
    result: list[Any] = [None] * len(node.inputs)
    for i, ct in zip(wanted, outs, strict=False):
        if needs[i]:
            result[i] = ct
    return result


def _varying_carry(body: Tape, carried: int, needs: Sequence[bool]) -> list[bool]:
    """Which inputs of a loop's body depend on those that need a cotangent, once values have gone round."""
    need = list(needs)
    while True:
        active = {v for v, n in zip(body.inputs, need, strict=True) if n}
        active_path(body.nodes, active)
        new = [i for i in range(carried) if not need[i] and body.outputs[i] in active]
        if not new:
            return need
        for i in new:
            need[i] = True


scan_op: Op = BodyOp("scan", _run_scan, _scan_vjp, shape=_scan_types, multiple=True, axes=TYPED)


def scan(
    f: Callable[..., Any],
    init: Any,
    xs: Any = None,
    length: int | None = None,
    reverse: bool = False,
    unroll: int | bool = 1,
    _split_transpose: bool = False,
) -> tuple[Any, Any]:
    """A loop that carries a value along, over the first axis of `xs`.

    Args:
      f: takes `(carry, x)` and returns `(carry, y)`, pytrees of arrays; it is recorded once.
      init: the carry of the first step; `f` must return a carry of its structure, shapes and dtypes. Python's numbers
        in it take the dtype that they are promoted to in a step, as in JAX: 0 becomes a float where floats are added.
      xs: a pytree of arrays with one first axis, a step for each element; `None` for none.
      length: the number of steps, needed where `xs` is `None`.
      reverse: whether to go from the last element to the first.
      unroll: how many steps are compiled together; `True` for all.

    Returns:
      `(carry, ys)`: the last carry, and the `y` of all steps, stacked in the order of `xs`.

    Differentiation keeps, for each step, the values that the backward pass reads, and no others.

    Raises:
      TypeError: if `f` does not return a pair, or the carries differ; the message names the leaf.
      ValueError: if the lengths of `xs` differ, or there is none.

    Example:
      >>> import tracegrad as tg, tracegrad.numpy as np
      >>> total, running = tg.scan(lambda c, x: (c + x, c + x), 0.0, np.array([1.0, 2.0, 3.0]))
      >>> float(total), running.tolist()
      (6.0, [1.0, 3.0, 6.0])
    """
    return _scan("scan", f, init, xs, length, reverse, unroll)


def _scan(
    name: str, f: Callable[..., Any], init: Any, xs: Any, length: int | None, reverse: bool, unroll: int | bool
) -> tuple[Any, Any]:
    """`scan` on behalf of the loop of this name."""
    need_function(f, name, "f", "scan(f, init, xs)")
    leaves, xs_tree = tree_flatten(xs)
    count = common_length(leaves, length)
    avals = [leaf_aval(x, "scan") for x in leaves]
    x = tree_unflatten(xs_tree, [make_aval(a.shape[1:], a.dtype, a.weak_type, a.varying) for a in avals])
    if not isinstance(unroll, (bool, int)) or unroll < 0:
        raise ValueError(f"scan: unroll is {describe(unroll)} {here()}. Give a number of steps, or True for all.")

    def step(carry: Any, x: Any) -> Any:
        out = f(carry, x)
        if not (isinstance(out, (tuple, list)) and len(out) == 2):
            raise TypeError(
                f"scan: {name_of(f)} must return a pair (carry, y), it returned {describe(out)} {here()}. Write "
                "`return carry, None` if there is nothing to stack."
            )
        return out[0], (out[1], taken())

    step.__wrapped__ = f  # type: ignore[attr-defined]
    init_leaves, body, consts = _looped(name, f, step, init, (x,), lambda tree: tree.children()[0])
    carried = len(init_leaves)
    outs = scan_op(
        *init_leaves, *leaves, *consts,
        body=body, carried=carried, scanned=len(leaves), length=count, reverse=bool(reverse), unroll=unroll,
    )  # fmt: skip
    carry, (ys, taps) = tree_unflatten(body.out_tree, outs)
    put(taps)
    return carry, ys


def common_length(leaves: Sequence[Any], length: int | None) -> int:
    sizes = {}
    for i, x in enumerate(leaves):
        shape = leaf_aval(x, "scan").shape
        if not shape:
            raise ValueError(
                f"scan: array {i} of xs is {describe(x)}, which has no axis to go along {here()}. Close over it."
            )
        sizes[i] = shape[0]
    found = set(sizes.values()) | ({int(length)} if length is not None else set())
    if not found:
        raise ValueError(f"scan: neither xs nor length says how many steps there are {here()}. Pass length=n.")
    if len(found) > 1:
        arrays = ", ".join(f"{n} (array {i} of xs)" for i, n in sizes.items())
        said = f", and length={length}" if length is not None else ""
        raise ValueError(f"scan: the lengths differ: {arrays}{said} {here()}.")
    return found.pop()


def _looped(
    name: str,
    f: Any,
    step: Callable[..., Any],
    init: Any,
    rest: tuple[Any, ...],
    carry_of: Callable[[Any], Any],
    varying: frozenset[str] = NOWHERE,
) -> tuple[list[Any], Tape, list[Any]]:
    """The body of a loop, recorded for a carry that comes out as it goes in; the first carry; the outer values.

    All of the carry varies along the axes in `varying`.
    """
    leaves, tree = tree_flatten(init)
    avals = [leaf_aval(x, name) for x in leaves]
    avals = [with_axes(a, a.varying | varying) for a in avals]
    # The counter of a fori_loop is no concern of the user's.
    hidden = name == "fori_loop"
    what = "value" if hidden else "carry"
    while True:
        raw, captured = record_body(step, (tree_unflatten(tree, avals), *rest), {}, name_of(f), lifts=True)
        out_tree = carry_of(raw.out_tree)
        outs = [v.aval for v in raw.outputs[: out_tree.num_leaves]]
        if out_tree != tree:
            shown = [t.children()[1] if hidden else t for t in (out_tree, tree)]
            if shown[0] == jax.tree.structure(None):
                raise TypeError(f"{name}: {name_of(f)} returned None as its {what} {here()}. Did you forget `return`?")
            raise TypeError(
                f"{name}: the {what} that {name_of(f)} returns has structure {shown[0]}, the {what} it takes has "
                f"{shown[1]} {here()}. Return the structure that goes in: what differs from step to step, and nothing "
                "else."
            )
        promoted = [_met(a, o) for a, o in zip(avals, outs, strict=True)]
        if promoted == avals:
            break
        # A number that becomes an array's dtype in the first step has it from the start; what varies once a step is
        # taken does so from the start.
        avals = promoted
    for (path, x), a, o in zip(jax.tree_util.tree_flatten_with_path(init)[0], avals, outs, strict=True):
        if (a.shape, a.dtype) != (o.shape, o.dtype):
            where = jax.tree_util.keystr(path[1:] if hidden else path) or f"the {what}"
            raise TypeError(
                f"{name}: {where} is {aval_of(x)} when it goes into {name_of(f)} and {o} when it comes out {here()}. A "
                f"loop needs the same shape and dtype: give the first {what} those of the result, or convert what is "
                "returned with .astype."
            )
    first = [
        vary(x if aval_of(x).weak_type is a.weak_type else astype(x, dtype=a.dtype), a.varying)
        for x, a in zip(leaves, avals, strict=True)
    ]
    raw = varied(raw, [a.varying for a in avals])
    body, consts = hoisted(optimize(raw), len(raw.inputs) - len(captured), captured)
    return first, body, consts


def _met(carried: Aval, out: Aval) -> Aval:
    """The type that a carried value has from the start, if it leaves a step with another: a number's is promoted."""
    if carried.weak_type and carried.shape == out.shape and (carried.dtype, True) != (out.dtype, out.weak_type):
        carried = make_aval(carried.shape, jax.dtypes.result_type(carried.promoting(), out.promoting()))
    return with_axes(carried, carried.varying | out.varying)


def varied(body: Tape, axes: Sequence[frozenset[str]]) -> Tape:
    """`body`, whose first outputs vary along these axes too."""
    outputs = body.outputs
    if all(a <= v.aval.varying for v, a in zip(outputs, axes, strict=False)):
        return body
    with Recording(body.name, axes=body.axes) as tape:
        outs = replay(tape, body, [new_input(tape, v.aval) for v in body.inputs])
        spread = [operand(tape, vary(o, a)) for o, a in zip(outs, axes, strict=False)]
        return verified(tape.finished(spread + outs[len(axes) :], body.out_tree))


def hoisted(body: Tape, first: int, captured: list[Any]) -> tuple[Tape, list[Any]]:
    """A loop's body without the nodes that depend on outer values alone: those are recorded outside, once.

    Their values would else be saved anew for every step.
    """
    outer = state.tape
    if outer is None:
        return body, captured
    fixed, free = set(body.inputs[first:]), set[Var]()
    literals: list[Node] = []
    moved: list[Node] = []
    rest: list[Node] = []
    for node in body.nodes:
        if all(v.tape is None or v in free for v in node.inputs):
            free.update(node.outputs)
            literals.append(node)
            rest.append(node)
        elif all(v.tape is None or v in free or v in fixed for v in node.inputs):
            fixed.update(node.outputs)
            moved.append(node)
        else:
            rest.append(node)
    if not moved:
        return body, captured
    wanted = {v for node in moved for v in node.inputs} & free
    copies = dead_code(body.replace(inputs=(), nodes=tuple(literals), outputs=tuple(wanted))).nodes
    read = {v for node in rest for v in node.inputs} | set(body.outputs)
    computed = [v for node in moved for v in node.outputs if v in read]
    outside = body.replace(inputs=body.inputs[first:], nodes=(*copies, *moved), outputs=tuple(computed))
    values = replay(outer, outside, captured)
    kept = [(v, x) for v, x in zip(body.inputs[first:], captured, strict=True) if v in read]
    inner = body.replace(inputs=(*body.inputs[:first], *[v for v, _ in kept], *computed), nodes=tuple(rest))
    return verified(dead_code(inner)), [x for _, x in kept] + values


# -- branches


def _run_switch(index: Any, *operands: Any, branches: tuple[Tape, ...]) -> Any:
    types = _switch_types(None, branches=branches)

    def typed(branch: Tape) -> Callable[..., Any]:
        run = program(branch)
        return lambda *xs: tuple(
            marked(o if a.weak_type else lax.convert_element_type(o, a.dtype), a.varying)
            for o, a in zip(run(*xs), types, strict=True)
        )

    if len(branches) == 2:
        return lax.cond(lax.gt(index, np.asarray(0, index.dtype)), typed(branches[1]), typed(branches[0]), *operands)
    return lax.switch(index, [typed(b) for b in branches], *operands)


def _switch_types(*avals: Any, branches: tuple[Tape, ...]) -> list[Aval]:
    return [
        make_aval(
            outs[0].aval.shape,
            outs[0].aval.dtype,
            all(v.aval.weak_type for v in outs),
            NOWHERE.union(*[v.aval.varying for v in outs]),
        )
        for outs in zip(*[b.outputs for b in branches], strict=True)
    ]


def _switch_vjp(node: Node, cts: Sequence[Any], needs: Sequence[bool]) -> list[Any]:
    branches = node.params["branches"]
    given = [ct is not None for ct in cts]
    lins = [linearize(b, needs[1:], given) for b in branches]
    # The branches' residuals share places, type by type; where a branch has none for a place it returns zeros.
    places: list[Aval] = []
    taken: list[dict[int, int]] = []
    for lin, b in zip(lins, branches, strict=True):
        at: dict[int, int] = {}
        used: set[int] = set()
        for r, v in enumerate(lin.forward.outputs[len(b.outputs) :]):
            p = next((p for p, a in enumerate(places) if p not in used and a is v.aval), None)
            if p is None:
                p = len(places)
                places.append(v.aval)
            used.add(p)
            at[r] = p
        taken.append(at)
    forwards = tuple(
        _with_places(lin.forward, len(b.outputs), at, places) for lin, b, at in zip(lins, branches, taken, strict=True)
    )
    residuals = more_outputs(node, branches=forwards)
    read = list(dict.fromkeys((kind, i) for lin in lins for kind, i in lin.saved if kind != "residual"))
    wanted = sorted({i for lin in lins for i in lin.grads})
    given_at = [i for i, g in enumerate(given) if g]
    operands = [(node.inputs[1:] if kind == "input" else node.outputs)[i] for kind, i in read]
    # If all branches that owe something owe it device by device, it is summed over the devices once, outside.
    owing: dict[int, set[frozenset[str]]] = {i: set() for i in wanted}
    for lin in lins:
        for i, g in zip(lin.grads, lin.backward.outputs, strict=False):
            owing[i].add(g.aval.varying)
    varying = {i: next(iter(v)) if len(v) == 1 else branches[0].inputs[i].aval.varying for i, v in owing.items()}

    back = []
    for lin, b, at in zip(lins, branches, taken, strict=True):
        with Recording(f"{b.name}_backward", axes=b.axes, blame=node) as tape:
            values: dict[Any, Any] = {key: new_input(tape, v.aval) for key, v in zip(read, operands, strict=True)}
            held = [new_input(tape, a) for a in places]
            values.update((("residual", r), held[p]) for r, p in at.items())
            values.update((("ct", i), new_input(tape, node.outputs[i].aval)) for i in given_at)
            inputs = [values[s] for s in lin.saved] + [values["ct", i] for i in lin.cts]
            grads = dict(zip(lin.grads, replay(tape, lin.backward, inputs), strict=False))
            found = [
                settled(grads[i], varying[i]) if i in grads else vary(zeros_of(b.inputs[i]), varying[i]) for i in wanted
            ]
            branch = tape.finished([operand(tape, v) for v in found])
        back.append(optimize(branch))
    outs = switch_op(
        node.inputs[0], *operands, *residuals, *[cts[i] for i in given_at], branches=tuple(back)
    ) if wanted else ()  # fmt: skip
    result: list[Any] = [None] * len(node.inputs)
    for i, ct in zip(wanted, outs, strict=True):
        result[i + 1] = ct
    return result


def _with_places(forward: Tape, count: int, at: dict[int, int], places: list[Aval]) -> Tape:
    with Recording(forward.name, axes=forward.axes) as tape:
        outs = replay(tape, forward, [new_input(tape, v.aval) for v in forward.inputs])
        held = {p: outs[count + r] for r, p in at.items()}
        rest = [held[p] if p in held else vary(zeros_of(Tracer(a, tape)), a.varying) for p, a in enumerate(places)]
        return verified(tape.finished([operand(tape, v) for v in outs[:count] + rest], forward.out_tree))


switch_op: Op = BodyOp("cond", _run_switch, _switch_vjp, shape=_switch_types, multiple=True, axes=TYPED)


_NOTHING = object()
"""What says that an argument is not given, where `None` may be."""


def cond(
    pred: Any, true_fun: Callable[..., Any], false_fun: Callable[..., Any], *operands: Any, operand: Any = _NOTHING
) -> Any:
    """`true_fun(*operands)` if `pred`, else `false_fun(*operands)`; only one of them runs.

    Args:
      pred: a scalar, true where it is not 0.
      true_fun, false_fun: take the operands, and return the same structure, shapes and dtypes. What they close over
        is differentiated too.
      operand: the only operand, if it is given by name.

    Raises:
      TypeError: if `pred` is no scalar, or the results differ; the message names the leaf.

    Example:
      >>> import tracegrad as tg, tracegrad.numpy as np
      >>> f = tg.jit(lambda x: tg.cond(x > 0, np.sin, np.cos, x))
      >>> float(f(0.0))
      1.0
    """
    if callable(pred):
        raise TypeError(
            f"cond: pred is {describe(pred)}, a function {here()}. Write cond(pred, true_fun, false_fun, *operands)."
        )
    aval = leaf_aval(pred, "cond")
    if aval.shape != () or aval.dtype.kind == "c":
        raise TypeError(
            f"cond: pred is {describe(pred)}, not a scalar {here()}. Reduce it with .any() or .all(), or choose "
            "element by element with tracegrad.numpy.where."
        )
    taken = astype(pred, dtype=np.dtype(bool)) if aval.dtype != np.bool_ else pred
    operands = _operands("cond", operands, operand)
    return _branch("cond", astype(taken, dtype=np.dtype(np.int32)), (false_fun, true_fun), operands)


def _operands(name: str, operands: tuple[Any, ...], operand: Any) -> tuple[Any, ...]:
    """The operands of a branch, or the one that is given by name instead."""
    if operand is _NOTHING:
        return operands
    if operands:
        raise TypeError(f"{name}: {len(operands)} operands, and operand={describe(operand)} {here()}. Leave it out.")
    return (operand,)


def switch(index: Any, branches: Sequence[Callable[..., Any]], *operands: Any, operand: Any = _NOTHING) -> Any:
    """`branches[index](*operands)`; only that branch runs. An index out of range is clamped into it.

    Args:
      index: an integer scalar.
      branches: functions of the operands that return the same structure, shapes and dtypes.
      operand: the only operand, if it is given by name.

    Raises:
      TypeError: if `index` is no integer scalar, or the results differ; the message names the leaf.
      ValueError: if there are no branches.

    Example:
      >>> import tracegrad as tg, tracegrad.numpy as np
      >>> float(tg.switch(2, [np.sin, np.cos, np.exp], 0.0))
      1.0
    """
    aval = leaf_aval(index, "switch")
    if aval.shape != () or aval.dtype.kind not in "iu":
        raise TypeError(f"switch: index is {describe(index)}, not an integer scalar {here()}.")
    if not branches:
        raise ValueError(f"switch: there are no branches {here()}. Give a list of functions of the operands.")
    operands = _operands("switch", operands, operand)
    if len(branches) == 1:
        return branches[0](*operands)
    index = tnp.clip(index, 0, len(branches) - 1)
    return _branch("switch", astype(index, dtype=np.dtype(np.int32)), tuple(branches), operands)


def _told_apart(values: Sequence[Any]) -> list[tuple[tuple[int, int], Any]]:
    """Each value with its identity and how many of that identity came before: a number may be taken twice."""
    count: dict[int, int] = {}
    keys = []
    for x in values:
        count[id(x)] = count.get(id(x), 0) + 1
        keys.append(((id(x), count[id(x)]), x))
    return keys


def _branch(name: str, index: Any, funs: tuple[Callable[..., Any], ...], operands: tuple[Any, ...]) -> Any:
    for f in funs:
        if not callable(f):
            raise TypeError(
                f"{name}: a branch is {describe(f)}, which is not a function {here()}. Write cond(pred, true_fun, "
                "false_fun, *operands), or switch(index, [f, g], *operands)."
            )
    leaves, tree = tree_flatten(operands)
    args = tree_unflatten(tree, [leaf_aval(x, name) for x in leaves])
    # Where it varies which branch runs, all that goes into one varies, and so no branch needs a sum over the devices,
    # in which not all of them would take part.
    varying = aval_of(index).varying
    recorded = [record_body(f, args, {}, name_of(f), ambient=varying, lifts=True) for f in funs]
    for f, (body, _) in zip(funs, recorded, strict=True):
        _refuse_to_wait(name, name_of(f), varying & communicates(body), "the predicate" if name == "cond" else "index")
    # Every branch takes what any of them closes over.
    outer = {key: x for _, captured in recorded for key, x in _told_apart(captured)}
    types = {i: aval_of(x) for i, x in outer.items()}
    bodies, unread = [], Recording()
    for body, captured in recorded:
        own = {key: v for (key, _), v in zip(_told_apart(captured), body.inputs[len(leaves) :], strict=True)}
        inputs = [own[i] if i in own else Tracer(with_axes(a, a.varying | varying), unread) for i, a in types.items()]
        bodies.append(optimize(body.replace(inputs=(*body.inputs[: len(leaves)], *inputs))))
    first = bodies[0]
    for k, body in enumerate(bodies[1:], 1):
        if body.out_tree != first.out_tree:
            raise TypeError(
                f"{name}: {name_of(funs[k])} returns {body.out_tree}, {name_of(funs[0])} returns {first.out_tree} "
                f"{here()}. All branches must return the same structure."
            )
        paths = jax.tree_util.tree_flatten_with_path(tree_unflatten(first.out_tree, first.outputs))[0]
        for (path, a), b in zip(paths, body.outputs, strict=True):
            if (a.aval.shape, a.aval.dtype) != (b.aval.shape, b.aval.dtype):
                where = jax.tree_util.keystr(path) or "the result"
                raise TypeError(
                    f"{name}: {where} is {a.aval} from {name_of(funs[0])} and {b.aval} from {name_of(funs[k])} "
                    f"{here()}. All branches must return the same shapes and dtypes: convert with .astype, or "
                    "broadcast."
                )
    summed = [varying.union(*[v.aval.varying for v in outs]) for outs in zip(*[b.outputs for b in bodies], strict=True)]
    given = [vary(x, aval_of(x).varying | varying) for x in (*leaves, *outer.values())]
    outs = switch_op(index, *given, branches=tuple(varied(b, summed) for b in bodies))
    return tree_unflatten(first.out_tree, outs)


def _refuse_to_wait(name: str, body: str, axes: frozenset[str], what: str) -> None:
    """Raises if a body has collectives over axes along which it varies whether it runs."""
    if axes:
        axis = sorted(axes)[0]
        raise ValueError(
            f"{name}: {what} varies along {axis!r}, and {body} communicates over it {here()}: devices that do not run "
            f"it would be waited for for ever. Decide alike on all of them, with psum, pmax or pmin of {what} over "
            f"{axis!r}, or communicate outside."
        )


# -- while


def _run_while(*operands: Any, cond: Tape, body: Tape, carried: int, tested: int) -> Any:
    init, for_cond, for_body = operands[:carried], operands[carried : carried + tested], operands[carried + tested :]
    test, step = program(cond), program(body)
    return lax.while_loop(
        lambda carry: test(*carry, *for_cond)[0],
        lambda carry: _retyped(step(*carry, *for_body), body),
        _marked(init, body),
    )


def _while_vjp(node: Node, cts: Sequence[Any], needs: Sequence[bool]) -> list[Any]:
    raise TypeError(
        f"the while_loop at {describe_source(node.source)} has no reverse-mode derivative: the number of its steps is "
        "not known before it runs, and the backward pass would need what each of them computed. Use scan, or fori_loop "
        "with Python integers as bounds (with a step that changes nothing once it is done: "
        "tracegrad.numpy.where(done, x, step(x))); an undecorated function may use a Python `while`; or give the loop "
        "a derivative of its own with custom_vjp."
    )


def _while_types(*avals: Aval, body: Tape, carried: int, **params: Any) -> list[Aval]:
    return [v.aval for v in body.inputs[:carried]]


while_op: Op = BodyOp("while", _run_while, _while_vjp, shape=_while_types, multiple=True, axes=TYPED)


def while_loop(cond_fun: Callable[..., Any], body_fun: Callable[..., Any], init_val: Any) -> Any:
    """A loop that goes on while a condition on its value holds. It has no reverse-mode derivative.

    Args:
      cond_fun: from the value to a boolean scalar.
      body_fun: from the value to the next, of the same structure, shapes and dtypes.
      init_val: the first value, a pytree of arrays. Python's numbers in it are promoted as `scan`'s are.

    Raises:
      TypeError: if `cond_fun` returns no boolean scalar, or the values differ; when it is differentiated.

    Example:
      >>> import tracegrad as tg
      >>> int(tg.while_loop(lambda n: n < 100, lambda n: n * 2, 1))
      128
    """
    need_function(cond_fun, "while_loop", "cond_fun", "while_loop(cond_fun, body_fun, init_val)")
    need_function(body_fun, "while_loop", "body_fun", "while_loop(cond_fun, body_fun, init_val)")
    varying = NOWHERE
    while True:
        leaves, body, consts = _looped("while_loop", body_fun, body_fun, init_val, (), lambda tree: tree, varying)
        carry = tree_unflatten(body.out_tree, [v.aval for v in body.inputs[: len(leaves)]])
        test, for_test = record_body(cond_fun, (carry,), {}, name_of(cond_fun), lifts=True)
        found = [v.aval for v in test.outputs]
        if len(found) != 1 or found[0].shape != () or found[0].dtype != np.bool_:
            raise TypeError(
                f"while_loop: {name_of(cond_fun)} must return a boolean scalar, it returned {found} {here()}. Compare, "
                "or reduce with .any() or .all()."
            )
        # Where the number of steps varies, what comes out of them does.
        if found[0].varying <= varying:
            break
        varying = found[0].varying
    for f, part in ((cond_fun, test), (body_fun, body)):
        _refuse_to_wait("while_loop", name_of(f), varying & communicates(part), "the condition")
    outs = while_op(
        *leaves, *for_test, *consts, cond=optimize(test), body=body, carried=len(leaves), tested=len(for_test)
    )
    return tree_unflatten(body.out_tree, outs)


def fori_loop(lower: Any, upper: Any, body_fun: Callable[..., Any], init_val: Any, *, unroll: int | bool = 1) -> Any:
    """`for i in range(lower, upper): val = body_fun(i, val)`, recorded once.

    Args:
      lower, upper: the bounds. If both are known integers the loop is a `scan` and can be differentiated; traced bounds
        make it a `while_loop`.
      body_fun: takes `(i, val)` and returns the next value, of the same structure, shapes and dtypes.
      init_val: the first value, a pytree of arrays. Python's numbers in it are promoted as `scan`'s are.
      unroll: how many steps are compiled together, if the bounds are known.

    Raises:
      TypeError: if the values differ; or, with traced bounds, when it is differentiated.

    Example:
      >>> import tracegrad as tg
      >>> float(tg.grad(lambda x: tg.fori_loop(0, 3, lambda i, y: y * x, 1.0))(2.0))
      12.0
    """
    need_function(body_fun, "fori_loop", "body_fun", "fori_loop(lower, upper, body_fun, init_val)")
    for name, bound in (("lower", lower), ("upper", upper)):
        aval = leaf_aval(bound, "fori_loop")
        if aval.shape != () or aval.dtype.kind not in "iu":
            raise TypeError(f"fori_loop: {name} is {describe(bound)}, not an integer {here()}. Pass int(...) of it.")
    dtype = jax.numpy.promote_types(aval_of(lower).dtype, aval_of(upper).dtype)
    if not any(isinstance(bound, (Tracer, jax.core.Tracer)) for bound in (lower, upper)):

        def counted(carry: Any, _: Any) -> Any:
            i, value = carry
            return (i + 1, body_fun(i, value)), None

        start = np.asarray(lower, dtype)
        counted.__name__ = name_of(body_fun)
        count = max(int(upper) - int(lower), 0)
        (_, value), _ = _scan("fori_loop", counted, (start, init_val), None, count, False, unroll)
        return value
    upper = astype(upper, dtype=dtype)

    def step(carry: Any) -> Any:
        i, value = carry
        return i + 1, body_fun(i, value)

    step.__name__ = name_of(body_fun)
    return while_loop(lambda carry: carry[0] < upper, step, (astype(lower, dtype=dtype), init_val))[1]


__all__ = ["cond", "fori_loop", "scan", "switch", "while_loop"]
