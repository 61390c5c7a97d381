"""Reverse mode: append the gradient to the tape, split a body with its gradient in two. Uses ops, and passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .collecting import long_lived
from .lower import replay
from .op import more_outputs
from .ops import add, unbroadcast
from .ops.collectives import psum_op, vary
from .passes import dead_code, optimize
from .recording import Recording, current, state
from .remedies import wrong_rule
from .tape import NOWHERE, Node, Tape, Var, aval_of, make_aval
from .tracer import Literal, Tracer, new_input, operand


def backward(
    tape: Recording, outputs: Sequence[Var], cts: Sequence[Any], wrt: Sequence[Var], start: int, end: int | None = None
) -> list[Any]:
    """Appends the cotangents of `wrt`, given those of `outputs`, to the tape that is recording.

    Args:
      tape: the tape whose nodes from `start` to `end` computed `outputs` from `wrt`.
      outputs: values of the tape.
      cts: a cotangent an output, of its shape; `None` for zero.
      wrt: values of the tape that no node before `start` reads.
      start, end: the range of nodes to walk; `end=None` for all that there are now.

    Returns:
      A cotangent for each of `wrt`, `None` where it is zero: no node is built for a value that nothing needs.
    """
    with long_lived():
        return _backward(tape.nodes[start:end], outputs, cts, wrt, None)


def active_path(nodes: Sequence[Node], active: set[Var]) -> list[Node]:
    """The nodes through which derivatives flow from the values in `active`, which grows by what they compute."""
    path = []
    for node in nodes:
        if node.op.vjp is None:
            continue
        for v in node.inputs:
            if v in active:
                path.append(node)
                active.update([o for o in node.outputs if o.aval.differentiable])
                break
    return path


def _backward(
    nodes: list[Node], outputs: Sequence[Var], cts: Sequence[Any], wrt: Sequence[Var], over: frozenset[str] | None
) -> list[Any]:
    """`backward` through these nodes; over the axes `over`, `None` for all, the results are summed as they have to."""
    active = set(wrt)
    path = active_path(nodes, active)
    pending: dict[Var, Any] = {}
    target = current()
    mapped = bool(target.axes)
    noted: dict[Var, Any] = {} if state.cotangents is None else state.cotangents

    def accumulate(v: Var, ct: Any, node: Node | None) -> None:
        try:
            fits = ct.aval is v.aval
        except AttributeError:
            fits = False
        if not fits:
            ct = _fitted(ct, v, node)
        known = pending.get(v)
        if known is not None and mapped and known.aval.varying != ct.aval.varying:
            # One of them is each device's part, the other the sum of all.
            known, ct = settled(known, v.aval.varying), settled(ct, v.aval.varying)
        pending[v] = noted[v] = ct if known is None else add(ct, known)

    for v, ct in zip(outputs, cts, strict=True):
        if ct is not None and v in active:
            accumulate(v, ct, None)

    outer = target.blame
    try:
        for node in reversed(path):
            out_cts = [pending.pop(o, None) for o in node.outputs]
            if all(ct is None for ct in out_cts):
                continue
            rules: Any = node.op.vjp
            target.blame, before = node, len(target.nodes)
            if mapped:
                out_cts = [
                    None if ct is None else settled(ct, o.aval.varying)
                    for ct, o in zip(out_cts, node.outputs, strict=True)
                ]
            inputs = node.inputs
            if type(rules) is tuple:
                out, ct, params = node.outputs[0], out_cts[0], node.params
                for v, rule in zip(inputs, rules, strict=True):
                    if rule is not None and v in active:
                        accumulate(v, rule(ct, out, *inputs, **params), node)
            else:
                needs = [v in active for v in inputs]
                found = rules(node, out_cts, needs)
                if (type(found) is not list and type(found) is not tuple) or len(found) != len(inputs):
                    wanted = f"a list of {len(inputs)} cotangents, one an operand, None for zero"
                    raise TypeError(wrong_rule(node, wanted, found))
                for v, need, ct in zip(inputs, needs, found, strict=True):
                    if need and ct is not None:
                        accumulate(v, ct, node)
            for appended in target.nodes[before:]:
                appended.of = node.outputs[0]
        results = [pending.get(v) for v in wrt]
        if mapped:
            results = [
                None if ct is None else settled(ct, v.aval.varying, over) for ct, v in zip(results, wrt, strict=True)
            ]
    finally:
        target.blame = outer
    return results


def settled(ct: Any, axes: frozenset[str], over: frozenset[str] | None = None) -> Any:
    """The cotangent of a value that varies along `axes`, varying along these too, and along no others in `over`.

    What is the same on all devices and used on each owes its cotangent to all of them. This is the one place where
    that sum is taken.
    """
    extra = aval_of(ct).varying - axes
    extra = extra if over is None else extra & over
    return vary(psum_op(ct, axis_name=tuple(sorted(extra))) if extra else ct, axes)


def _fitted(ct: Any, v: Var, node: Node | None) -> Any:
    """What a rule returned for an operand, as a cotangent of the operand's type.

    Raises:
      TypeError, ValueError: if it is no array, or of a shape from which that of the operand does not broadcast.
    """
    if ct is None or isinstance(ct, (list, tuple)):
        raise TypeError(wrong_rule(node, f"a cotangent for {v.aval}", ct))
    if not isinstance(ct, Var):
        try:
            ct = operand(state.tape, ct)  # type: ignore[arg-type]
        except TypeError:
            raise TypeError(wrong_rule(node, f"a cotangent for {v.aval}", ct)) from None
    shape, given = v.aval.shape, ct.aval.shape
    if given != shape:
        kept = given[max(0, len(given) - len(shape)) :]
        if len(kept) < len(shape) or any(n != m and n != 1 for n, m in zip(shape, kept, strict=True)):
            raise ValueError(
                wrong_rule(node, f"a cotangent for {v.aval}, of its shape or of one that it broadcasts to", ct)
            )
    return unbroadcast(ct, v.aval)


def ones(v: Var) -> Any:
    """The cotangent of a scalar output with itself."""
    return Literal(make_aval((), v.aval.dtype, v.aval.weak_type), None, 1.0)


@dataclass(frozen=True, slots=True)
class Linearized:
    """A body split with its gradient in two.

    `forward` takes the body's inputs and returns its outputs, then the residuals it computes. `backward`
    takes the values named by `saved` ("input", "output" or "residual", and which), then a cotangent for
    each output in `cts`, and returns a cotangent for each input in `grads`, then those of `taps` for `capture`.
    """

    forward: Tape
    backward: Tape
    saved: tuple[tuple[str, int], ...]
    cts: tuple[int, ...]
    grads: tuple[int, ...]
    taps: tuple[str, ...] = ()

    def read(self, inputs: Sequence[Any], outputs: Sequence[Any], residuals: Sequence[Any]) -> list[Any]:
        """Those of these that `saved` names, in its order."""
        values = {"input": inputs, "output": outputs, "residual": residuals}
        return [values[kind][i] for kind, i in self.saved]


def body_cotangents(
    node: Node, cts: Sequence[Any], needs: Sequence[bool], over: frozenset[str] = NOWHERE
) -> tuple[Linearized, list[Any]]:
    """For a node that runs a body: its linearized form, and the operands of the backward part."""
    lin = linearize(node.params["body"], needs, [ct is not None for ct in cts], over)
    outputs = node.outputs
    saved = lin.read(node.inputs, outputs, more_outputs(node, body=lin.forward))
    return lin, saved + [cts[i] for i in lin.cts]


def linearize(
    body: Tape,
    needs: Sequence[bool],
    given: Sequence[bool],
    over: frozenset[str] = NOWHERE,
    keep: Callable[[Node], bool] | None = None,
) -> Linearized:
    """Differentiates a finished body once for these needed inputs and given output cotangents.

    What the backward part reads and `keep` does not keep, it computes again from the inputs. By default that is
    what depends on no input at all.

    A cotangent that it returns may vary where the input does not: it is summed over the mapped axes where the body is
    run, but over the axes `over`, which end with the body, in it.
    """
    capturing = state.capture is not None
    key = (Linearized, tuple(needs), tuple(given), over, keep, state.no_nan, capturing)
    known: Linearized | None = body.made.get(key)
    if known is not None:
        return known
    runs = state.tape.blame if state.tape is not None else None
    with Recording(body.name, axes=body.axes, imported=body.imported) as tape:
        ins = [new_input(tape, v.aval) for v in body.inputs]
        outs = replay(tape, body, ins)
        if body.imported and runs is not None:
            for node in tape.nodes:
                node.code, node.offset = runs.code, runs.offset
        count = len(tape.nodes)
        cts = [Tracer(v.aval, tape) if g else None for v, g in zip(body.outputs, given, strict=True)]
        wanted = [v for v, need in zip(ins, needs, strict=True) if need]
        with long_lived():
            grads = _backward(tape.nodes[:count], outs, cts, wanted, over)
        taps = state.capture.take(tape) if capturing else {}
        nodes, part = tuple(tape.nodes), tape.part
    kept = [(i, g) for i, g in zip([i for i, need in enumerate(needs) if need], grads, strict=True) if g is not None]
    given_cts = [ct for ct in cts if ct is not None]
    results = [g for _, g in kept] + [ct for cts in taps.values() for ct in cts]
    back = dead_code(part(nodes[count:], results, [*ins, *given_cts]))

    again = _recomputed(nodes[:count], back, keep)
    made = {v for node in [*again, *back.nodes] for v in node.outputs} | set(given_cts)
    read = [*[v for node in [*again, *back.nodes] for v in node.inputs], *back.outputs]
    free = dict.fromkeys(v for v in read if v not in made and v.tape is not None)
    saved: list[tuple[str, int]] = []
    residuals: list[Var] = []
    origin = {v: ("output", i) for i, v in enumerate(outs) if keep is None} | {
        v: ("input", i) for i, v in enumerate(ins)
    }
    for v in free:
        if v in origin:
            saved.append(origin[v])
        else:
            saved.append(("residual", len(residuals)))
            residuals.append(v)
    forward = optimize(part(nodes[:count], [*outs, *residuals], ins).replace(out_tree=body.out_tree))
    back = part([*again, *back.nodes], back.outputs, [*free, *given_cts]).replace(name=f"{body.name}_backward")
    result = Linearized(
        forward, optimize(back), tuple(saved), tuple(i for i, g in enumerate(given) if g), tuple(i for i, _ in kept),
        tuple(name for (_, name), cts in taps.items() for _ in cts),
    )  # fmt: skip
    body.made[key] = result
    return result


def _recomputed(nodes: Sequence[Node], back: Tape, keep: Callable[[Node], bool] | None) -> list[Node]:
    """The nodes of the forward part that the backward part runs again, in order."""
    free: set[Var] = set()
    for node in nodes:
        if keep is None and all(v.tape is None or v in free for v in node.inputs):
            free.update(node.outputs)
    wanted = {v for node in back.nodes for v in node.inputs} | set(back.outputs)
    again = []
    for node in reversed(nodes):
        saved = node.outputs[0] not in free if keep is None else keep(node)
        if not saved and any(v in wanted for v in node.outputs):
            again.append(node)
            wanted.update(node.inputs)
    return again[::-1]
