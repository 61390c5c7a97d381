"""The tape as text. Uses ops, taps and passes."""

from __future__ import annotations

import itertools
import linecache
import os
import re
from collections.abc import Iterator, Sequence
from string import ascii_lowercase
from types import CodeType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .capture import tap_op
from .errors import cell_of, here
from .inspection import Values
from .ops import alias
from .passes import dead_code
from .tape import Node, Tape, Var


def format_tape(tape: Tape, whole: bool = False, kept: Values | None = None, note: str = "") -> str:
    """The tape as text: a line a step, with shapes, dtypes and the user's line; `∇` marks gradient steps.

    What the results need is shown, which is what will run; a last line counts the steps that no result needs. Values
    are called after the user's arguments and taps, or by letters. An alias, which tells the differentiated use of an
    argument from its other uses, is shown as what it is an alias of.

    Args:
      tape: a tape, finished or not.
      whole: whether to show every step all the same.
      kept: what to show in place of the user's lines: the values of the tape.
      note: of which runs of it these are.
    """
    nodes = tape.nodes if whole else shown(tape)
    names = Names(tape, {} if whole else aliases(tape))
    places = Places()
    rows = []
    for node in nodes:
        rows.append((step(node, names), _line(node, places) if kept is None else _worth(kept, node.outputs)))
        inside = kept.bodies.get(node, []) if kept is not None else []
        for body, own in itertools.zip_longest(bodies(node), inside):
            text = format_tape(body, whole) if own is None else format_tape(body, whole, own.values, own.note)
            rows += [(f"  | {row}", "") for row in text.splitlines()]
    if kept is not None and kept.values:
        # After the steps, which name them in the same order without values.
        rows = [(f"{names[v]}:{v.aval}", _worth(kept, [v])) for v in tape.inputs] + rows
    width = min(max((len(code) for code, where in rows if where), default=0), 72)
    head = ", ".join(f"{names[v]}:{v.aval}" for v in tape.inputs)
    lines = [f"{tape.name or 'tape'}({head})" + f"  # values: {note}" * bool(note)]
    lines += [f"  {code.ljust(width)}  # {where}" if where else f"  {code}" for code, where in rows]
    lines.append("  return " + ", ".join(f"{names[v]}:{v.aval}" for v in tape.outputs))
    idle = len(tape.nodes) - len(nodes) - sum(node.op is alias for node in tape.nodes) * (not whole)
    if idle:
        lines.append(f"  # not shown: {idle} step{'s' if idle > 1 else ''} that no result needs")
    return "\n".join(lines)


def shown(tape: Tape) -> list[Node]:
    """The steps that the results need, but for aliases."""
    return [node for node in dead_code(tape).nodes if node.op is not alias]


def aliases(tape: Tape) -> dict[Var, Var]:
    """What each alias is an alias of."""
    return {n.outputs[0]: n.inputs[0] for n in tape.nodes if n.op is alias}


def step(node: Node, names: Names) -> str:
    """One step as text, whose results now have names."""
    inputs = "".join(f" {names[v]}" for v in node.inputs)
    if node.op is tap_op:
        names.suggest(node.outputs[0], node.params["name"])
    left = ", ".join(f"{names[v]}:{v.aval}" for v in node.outputs)
    params = ", ".join(f"{k}={_shown(v)}" for k, v in node.params.items())
    return f"{left} = {node.op.name}" + (f"[{params}]" if params else "") + inputs


def bodies(node: Node) -> list[Tape]:
    """The tapes that a step runs."""
    values = [x for value in node.params.values() for x in (value if isinstance(value, tuple) else (value,))]
    return [value for value in values if isinstance(value, Tape)]


def _roles(node: Node) -> list[tuple[str, Tape]]:
    """The tapes that a step runs, and what stands before the names of what is in them."""
    found = []
    for key, value in node.params.items():
        several = isinstance(value, tuple)
        for i, x in enumerate(value if isinstance(value, tuple) else (value,)):
            if isinstance(x, Tape):
                found.append((f"{key}[{i}]." if several else "" if key == "body" else f"{key}.", x))
    return found


class Names:
    """The names of the values of one tape."""

    def __init__(self, tape: Tape, same: dict[Var, Var]) -> None:
        self.same = same
        self.names: dict[Var, str] = {}
        self.taken: set[str] = set()
        self.letters = _letters()
        arguments, values = tape.arguments or (None, ())
        for v, name in zip(values, arguments.names() if arguments else (), strict=True):
            self.suggest(v, name)

    def suggest(self, v: Any, name: str) -> None:
        """`v` is called after `name`, such as `params['w']`, if that makes an identifier: `params_w`."""
        name = re.sub(r"\W+", "_", name).strip("_")
        if isinstance(v, Var) and name.isidentifier():
            self._take(v, itertools.chain([name], (f"{name}_{k}" for k in itertools.count(2))))

    def __getitem__(self, v: Var) -> str:
        while v in self.same:
            v = self.same[v]
        if v.tape is None:
            return repr(v.value)
        if v not in self.names:
            self._take(v, self.letters)
        return self.names[v]

    def _take(self, v: Var, choices: Iterator[str]) -> None:
        self.names[v] = next(n for n in choices if n not in self.taken)
        self.taken.add(self.names[v])


def _letters() -> Iterator[str]:
    """a, b, ..., z, aa, ab, ..."""
    for length in itertools.count(1):
        yield from map("".join, itertools.product(ascii_lowercase, repeat=length))


def _shown(value: Any) -> str:
    if isinstance(value, Tape):
        return value.name or "tape"
    if isinstance(value, tuple) and any(isinstance(x, Tape) for x in value):
        return f"({', '.join(map(_shown, value))})"
    return getattr(value, "__name__", None) or str(value)


class Places:
    """The user's lines of steps: for each, where it is, and its text."""

    def __init__(self) -> None:
        # To find one line of a long function takes as long as to find them all.
        self.lines: dict[CodeType, list[int | None]] = {}
        self.known: dict[tuple[str, int], tuple[str, str]] = {}

    def __getitem__(self, node: Node) -> tuple[str, str]:
        code, filename, line = node.code, "<unknown>", 0
        if code is not None:
            if code not in self.lines:
                self.lines[code] = [position[0] for position in code.co_positions()]
            lines, i = self.lines[code], node.offset // 2
            filename, line = code.co_filename, (lines[i] if i < len(lines) else None) or code.co_firstlineno
        if (filename, line) not in self.known:
            where = f"{cell_of(filename) or os.path.basename(filename)}:{line}"
            self.known[filename, line] = where, linecache.getline(filename, line).strip()
        return self.known[filename, line]


def _worth(kept: Values, outputs: Sequence[Var]) -> str:
    return "; ".join(", ".join(in_words(kept, v)) for v in outputs)


def _line(node: Node, places: Places) -> str:
    where, text = places[node]
    return ("∇ " if node.grad else "  ") + where + (f"  {text}" if text else "")


def in_words(kept: Values, v: Var) -> list[str]:
    """What a value was, and its gradient, if they were kept."""
    lines = [described(as_array(kept.values[v]))] if v in kept.values else []
    return [*lines, f"\N{NABLA} {described(as_array(kept.gradients[v]))}"] if v in kept.gradients else lines


def as_array(value: Any) -> np.ndarray[Any, Any]:
    """A value as a NumPy array that prints and compares: of a random key, its data."""
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype.kind == "V" else array


def described(array: np.ndarray[Any, Any]) -> str:
    """The range of an array, its mean, and how many elements are not finite or, being many, zero."""
    if not array.size:
        return "empty"
    real = np.abs(array) if array.dtype.kind == "c" else array
    real = real.astype(np.float64)
    finite = real[np.isfinite(real)]
    size = "|z| " if array.dtype.kind == "c" else ""
    bad = {"NaN": int(np.isnan(real).sum()), "inf": int(np.isinf(real).sum())}
    notes = [f"{count} {name}" for name, count in bad.items() if count]
    if array.size == 1:
        return f"{size}{_short(real.ravel()[0])}"
    if not finite.size:
        return ", ".join(notes)
    low, high = float(finite.min()), float(finite.max())
    zeros = float((finite == 0).mean())
    notes += [f"{zeros:.0%} zero"] if 0.25 <= zeros < 1 else []
    notes += [f"mean {_short(float(finite.mean()))}"] if low != high else []
    text = f"{_short(low)} to {_short(high)}" if low != high else f"all {_short(low)}"
    return size + ", ".join([text, *notes])


def _short(x: float) -> str:
    return f"{x:.3g}"


def _kept(tape: Tape, what: str) -> Values:
    kept = Values.of(tape)
    if kept is None:
        raise ValueError(
            f"Tape.{what}: this tape of {tape.name or 'a function'} was recorded without values {here()}. "
            "Record it with tg.trace(f, values=True)(*args)."
        )
    return kept


def _printed_values(tape: Tape, kept: Values) -> dict[str, Any]:
    """Those of these that printing shows, by the names that it gives them."""
    same = aliases(tape)
    names, nodes = Names(tape, same), shown(tape)
    for node in nodes:
        step(node, names)
    order = [*tape.inputs, *same, *(v for node in nodes for v in node.outputs)]
    found = {names[v]: kept.values[v] for v in order if v in kept.values}
    for node in nodes:
        inside = kept.bodies.get(node, [])
        for (role, body), own in zip(_roles(node), inside, strict=False):
            for name, value in _printed_values(body, own.values).items():
                found[f"{names[node.outputs[0]]}.{role}{name}"] = value
    return found


def _values(tape: Tape) -> dict[str, jax.Array]:
    """What the arguments and each step were when the tape was recorded with values, by the names that it prints.

    What is in the body of a step has the name of the step before its own: `b.a`, and in a branch `b.branches[0].a`. Of
    a loop or a map it is an array with an axis in front, for the turns or the elements; of a `while_loop`, and of a
    loop whose turns make more than 256 MiB, it is that of the last turn.

    Raises:
      ValueError: if it was recorded without.

    Example:
      >>> import tracegrad as tg
      >>> tape = tg.trace(lambda x: x * x + x, values=True)(3.0)
      >>> {name: float(value) for name, value in tape.values().items()}
      {'x': 3.0, 'a': 9.0, 'b': 12.0}
    """
    return _printed_values(tape, _kept(tape, "values"))


def _gradients(tape: Tape) -> dict[str, jax.Array]:
    """The gradients of the result with respect to what `values` returns, where there are such.

    Raises:
      ValueError: if the tape was recorded without values.

    Example:
      >>> import tracegrad as tg
      >>> tape = tg.trace(lambda x: x * x + x, values=True)(3.0)
      >>> {name: float(value) for name, value in tape.gradients().items()}
      {'x': 7.0, 'a': 1.0, 'b': 1.0}
    """
    return _printed_values(tape, Values(_kept(tape, "gradients").gradients, {}))


def _text(tape: Tape, whole: bool = False, values: bool = False) -> str:
    """A line a step, as printing shows it.

    Args:
      whole: whether to show the steps that no result needs too.
      values: whether to show, in place of the user's lines, what each value was, and its gradient.

    Raises:
      ValueError: with `values`, if the tape was recorded without.

    Example:
      >>> import tracegrad as tg
      >>> print(tg.trace(lambda x: x * x, values=True)(3.0).text(values=True))
      <lambda>(x:f32[]~)
        x:f32[]~            # 3, ∇ 6
        a:f32[]~ = mul x x  # 9, ∇ 1
        return a:f32[]~
    """
    return format_tape(tape, whole, _kept(tape, "text") if values else None)


def _printed(tape: Tape) -> str:
    return format_tape(tape)


Tape.text, Tape.values, Tape.gradients = _text, _values, _gradients  # type: ignore[method-assign, assignment]
Tape.__str__ = Tape.__repr__ = _printed  # type: ignore[method-assign, assignment]
