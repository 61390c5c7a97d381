"""What to write instead: told by what the user's line does with a traced value. Uses types and messages."""

from __future__ import annotations

import ast
import itertools
import linecache
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

import jax
import numpy as np

from .errors import INTERNAL, describe, describe_source, here
from .tape import Aval, Var

_STATIC = "mark the argument static (static_argnums)"

_ANY = (
    "Use functions of tracegrad.numpy, tracegrad.numpy.where(condition, a, b) in place of `if`, tracegrad.while_loop "
    f"in place of `while`, or {_STATIC}"
)

_NUMBER = (
    "Work with the traced value itself, with functions of tracegrad.numpy in place of those of math, and take its "
    f"number outside of the compiled function, or {_STATIC}"
)

_KNOWN = (
    "Shapes, axes and counts are part of the compiled program: take the number from a shape (x.shape[0]), close over a "
    f"Python integer, or {_STATIC}"
)

_REMEDIES = {
    "`while`": "Write tracegrad.while_loop(cond_fun, body_fun, init) in place of `while`, or tracegrad.fori_loop(0, n, "
    f"body_fun, init), which has a gradient, for a known number of steps, or {_STATIC}",
    "`for`": "Write tracegrad.fori_loop(0, n, body_fun, init) in place of `for i in range(n)`, or "
    f"{_STATIC}: the loop is then unrolled",
    "`if`": "Write tracegrad.numpy.where(condition, a, b) in place of `if`, or tracegrad.cond(condition, f, g, x) "
    f"where only one branch is to run, or {_STATIC}",
    "`assert`": "Leave the assertion out, check what the compiled function returns, or return the condition too",
    "`and`": "Write tracegrad.numpy.logical_and(a, b), or (a) & (b), in place of `a and b`",
    "`or`": "Write tracegrad.numpy.logical_or(a, b), or (a) | (b), in place of `a or b`",
    "`not`": "Write tracegrad.numpy.logical_not(a) in place of `not a`",
    "a chain of comparisons": "Write (a < x) & (x < b) in place of `a < x < b`",
    "`if` in a comprehension": "Keep every element and choose with tracegrad.numpy.where: their number must be known",
    "`[]`": "Write tracegrad.numpy.asarray(a)[i] in place of a[i] for a list or a NumPy array, or tracegrad.switch(i, "
    f"functions) to choose a function, or {_STATIC}",
    "max": "Write tracegrad.numpy.maximum(a, b), or x.max() for an array, in place of max",
    "min": "Write tracegrad.numpy.minimum(a, b), or x.min() for an array, in place of min",
    "sorted": "Write tracegrad.numpy.sort(x) in place of sorted",
    "any": "Write x.any() in place of any(x)",
    "all": "Write x.all() in place of all(x)",
    "a NumPy array": "Use functions of tracegrad.numpy, and tracegrad.numpy.array or stack to put values together",
    "a formatted number": "Return the value, and print it outside of the compiled function",
    "numpy.vectorize": "Write tracegrad.numpy.vectorize(f) in place of numpy.vectorize(f)",
}
"""By what a value is wanted for."""

IN_PLACE_OF_JAX = (
    "Use the function of the same name in tracegrad.numpy (`import tracegrad.numpy as np`), tracegrad.lax or "
    "tracegrad.nn, or wrap JAX's with tracegrad.from_jax(function)"
)

_PROTOCOLS = ("Tracer.__array_function__", "Tracer.__array_ufunc__")


def remedy(wanted: str) -> tuple[str, str]:
    """What was asked of a traced value and what for, as "its truth value for `while`", and what to write instead."""
    frames, user = _frames()
    if vectorized():
        return f"{wanted} for numpy.vectorize", _REMEDIES["numpy.vectorize"]
    path = _path(user) if user is not None else []
    outermost = frames[-1]
    function = outermost.f_code.co_qualname
    if _in_package(outermost) and (not function.startswith(("Tracer.", "Concrete.")) or function in _PROTOCOLS):
        name = ast.unparse(path[-1].func) if path and isinstance(path[-1], ast.Call) else ""
        name = name if 0 < len(name) < 30 else outermost.f_code.co_name
        return f"a number known beforehand for {name}", _KNOWN
    use = _use(path)
    if use is not None:
        return f"{wanted} for {use}", _REMEDIES[use]
    return wanted, _REMEDIES.get(wanted, _NUMBER if wanted.endswith("()") else _ANY)


def concrete_message(tracer: Var, wanted: str) -> str:
    """The message for a value that is not there yet: what was asked of it and what for, who made it, what to write."""
    tape = tracer.tape
    assert tape is not None
    made = next((node for node in tape.nodes if any(v is tracer for v in node.outputs)), None)
    origin = (
        f"It was computed by {made.op.name} at {describe_source(made.source)}"
        if made is not None
        else "It is an argument of the function"
    )
    wanted, instead = remedy(wanted)
    return (
        f"{wanted} was asked of a traced value ({tracer.aval}) {here()}. {origin}. Under @jit, vmap and pmap, and in a "
        f"jax transformation, {tape.name or 'a function'} is recorded before its values are known. {instead}; or take "
        "@jit away: an undecorated function sees values."
    )


def leaked_message(value: Var, op: Any = None) -> str:
    used = f"was used by {op.name}" if op is not None else "was used"
    owner = value.tape.name if value.tape is not None else ""
    return (
        f"a traced value ({value.aval}) {used} {here()} after the recording it belongs to, of "
        f"{owner or 'a function'}, had ended. It was probably stored in a global, a list or an attribute from "
        "inside that function. Return it from the function instead (with `has_aux=True` under `grad`)."
    )


def of_another_recording(value: Var, tape: Any) -> str:
    """The message for a value of a recording that does not enclose this one."""
    return (
        f"a value that another recording traced ({value.aval}) was used in {tape.name or 'a function'} {here()}, "
        "which records separately (in another thread, or inside a jax transformation). Pass it as an argument."
    )


def of_an_inner_trace(aval: Aval) -> str:
    """The message for a value of a transformation of JAX's, entered since the recording began."""
    return (
        f"a value that JAX traces ({aval}), in a function of JAX's such as jax.lax.scan or jax.vmap, was used {here()} "
        "by a function of tracegrad that records. Use tracegrad's scan, vmap, ... there, or functions of jax.numpy "
        "inside."
    )


def wrong_rule(node: Any, wanted: str, found: Any) -> str:
    """The message for what the rule of an op returned, or for what was given as the cotangent of an output."""
    if node is None:
        return f"the cotangent of an output is {describe(found)}, not {wanted} {here()}"
    types = ", ".join(repr(v.aval) for v in node.inputs)
    returned = f"a {type(found).__name__} of {len(found)}" if isinstance(found, (list, tuple)) else describe(found)
    return (
        f"the rule (vjp) of the op {node.op.name}({types}) at {describe_source(node.source)} returned {returned}, and "
        f"must return {wanted}. It was differentiated {here()}."
    )


def vectorized() -> bool:
    """Whether `numpy.vectorize` has led here: it makes arrays of what it is given, and asks nobody."""
    return any(isinstance(frame.f_locals.get("self"), np.vectorize) for frame in _frames()[0])


def given_to_jax(aval: Aval) -> str:
    """The message for a value of this type, through which derivatives flow, that was given to a function of JAX."""
    frames, user = _frames()
    function = next(filter(None, map(_jax_name, reversed(frames))), "a function of JAX")
    transform = next((f.f_locals["name"] for f in (*frames, *_outward(user)) if _differentiates(f)), None)
    wrapped = f"{function}(f)" if function.count(".") == 1 else function if "." in function else "function"
    return (
        f"a traced value ({aval}){f' that tracegrad.{transform} differentiates' if transform else ''} was given to "
        f"{function} {here()}. That function would not be recorded, so its gradient would be lost. Use the function of "
        f"the same name in tracegrad, tracegrad.numpy, tracegrad.lax or tracegrad.nn, or wrap JAX's: "
        f"tracegrad.from_jax({wrapped})"
    )


def _frames() -> tuple[list[FrameType], FrameType | None]:
    """The frames of the package and of the libraries under it, innermost first, and the user's that led there."""
    inner = list(itertools.takewhile(lambda f: INTERNAL[f.f_code.co_filename], _outward(sys._getframe(1))))
    return inner, inner[-1].f_back


def _outward(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _in_package(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).startswith(__name__.partition(".")[0] + ".")


def _differentiates(frame: FrameType) -> bool:
    return frame.f_code.co_name == "run_differentiated" and _in_package(frame)


def _jax_name(frame: FrameType) -> str | None:
    """The public function of JAX that this frame runs, or the wrapper that it returned."""
    module = str(frame.f_globals.get("__name__"))
    name = frame.f_code.co_qualname.partition(".")[0]
    if not module.startswith("jax.") or module.endswith("traceback_util"):
        return None
    compiled: Any = frame.f_locals.get("fun") if name == "_cpp_pjit" else None
    if compiled is not None:
        name = str(getattr(compiled, "__name__", ""))
        if not str(getattr(compiled, "__module__", "")).startswith("jax."):
            return "jax.jit"
    return next((f"{m.__name__}.{name}" for m in (jax, jax.numpy, jax.lax, jax.nn) if hasattr(m, name)), None)


# -- the syntax of the user's line


def _path(frame: FrameType) -> list[ast.AST]:
    """The syntax around what runs in this frame, from the whole file inwards; empty without its source."""
    first, last, start, end = next(itertools.islice(frame.f_code.co_positions(), frame.f_lasti // 2, None))
    if first is None or last is None or start is None or end is None:
        return []
    try:
        path: list[ast.AST] = [ast.parse("".join(linecache.getlines(frame.f_code.co_filename, frame.f_globals)))]
    except SyntaxError:
        return []

    def covers(node: Any) -> bool:
        if not hasattr(node, "lineno"):
            return any(map(covers, ast.iter_child_nodes(node)))
        return (node.lineno, node.col_offset) <= (first, start) and (last, end) <= (
            node.end_lineno,
            node.end_col_offset,
        )

    while child := next(filter(covers, ast.iter_child_nodes(path[-1])), None):
        path.append(child)
    return path


_TESTS: dict[Any, str] = {ast.While: "`while`", ast.If: "`if`", ast.IfExp: "`if`", ast.Assert: "`assert`"}


def _use(path: list[ast.AST]) -> str | None:
    """What the innermost expression is evaluated for, if it is one of `_REMEDIES`."""
    innermost = path[-1] if path else None
    called = innermost.func.id if isinstance(innermost, ast.Call) and isinstance(innermost.func, ast.Name) else ""
    if called in _REMEDIES:
        return called
    if isinstance(innermost, ast.Subscript):
        return "`[]`"
    if type(innermost) in _TESTS:
        return _TESTS[type(innermost)]
    operators: list[str] = []
    for node, parent in itertools.pairwise(reversed(path)):
        operators += _operator(node)
        if type(parent) in _TESTS and node is getattr(parent, "test", None):
            return _TESTS[type(parent)]
        if isinstance(parent, ast.comprehension) and node in parent.ifs:
            return "`if` in a comprehension"
        if isinstance(parent, ast.For | ast.comprehension) and parent.iter is node and called == "range":
            return "`for`"
        of_bool = isinstance(parent, ast.Call) and getattr(parent.func, "id", None) == "bool"
        if not of_bool and not _operator(parent):
            break
    return operators[0] if operators else None


def _operator(node: ast.AST) -> list[str]:
    """What this expression asks of its operands, if it wants to know whether they are true."""
    if isinstance(node, ast.BoolOp):
        return ["`and`" if isinstance(node.op, ast.And) else "`or`"]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return ["`not`"]
    return ["a chain of comparisons"] if isinstance(node, ast.Compare) and len(node.ops) > 1 else []
