"""What changed between two recordings, as text."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from ..show import Names, Places, aliases, shown, step
from ..tape import Node, Tape, Var

MOST = 50
"""How many changes are listed."""


class _Side:
    """One of the two tapes, as its text shows it."""

    def __init__(self, tape: Tape) -> None:
        self.same = aliases(tape)
        self.names = Names(tape, self.same)
        self.nodes = shown(tape)
        self.text = {node: step(node, self.names) for node in self.nodes}
        self.places = Places()
        self.keys = [self.key(node) for node in self.nodes]

    def key(self, node: Node) -> Any:
        """What a step does, but for which values it does it with."""
        types = tuple(v.aval for v in node.inputs), tuple(v.aval for v in node.outputs)
        return node.op, tuple(node.params.items()), *types, tuple(repr(v.value) for v in node.inputs if v.tape is None)

    def root(self, v: Var) -> Var:
        while v in self.same:
            v = self.same[v]
        return v

    def at(self, node: Node) -> str:
        where, code = self.places[node]
        nabla = "\N{NABLA} " if node.grad else ""
        return f"  # {nabla}{where}" + (f"  {code}" if code else "")

    def typed(self, v: Var) -> str:
        return f"{self.names[v]}:{v.aval}"


def difference(old: Tape, new: Tape) -> str:
    """See `Tape.diff`."""
    a, b = _Side(old), _Side(new)
    changes = _types("argument", a, old.inputs, b, new.inputs)
    match: dict[Node, Node] = {}
    for kind, i, j, k, m in difflib.SequenceMatcher(None, a.keys, b.keys, autojunk=False).get_opcodes():
        was, now = a.nodes[i:j], b.nodes[k:m]
        if len(was) == len(now):  # one stands for the other
            match.update(zip(was, now, strict=True))
        if kind == "replace" and [node.op for node in was] == [node.op for node in now]:
            pairs = zip(was, now, strict=True)
            changes += [f"~ {a.text[x]}{a.at(x)}\n      became {b.text[y]}{b.at(y)}" for x, y in pairs]
        elif kind != "equal":
            changes += [f"- {a.text[node]}{a.at(node)}" for node in was]
            changes += [f"+ {b.text[node]}{b.at(node)}" for node in now]
    same = dict(zip(old.inputs, new.inputs, strict=False))
    known = set(same.values())
    for x, y in match.items():
        reads = [
            "another array from outside"
            if v.value is not None and w.value is not None
            else f"{b.names[w]}, not {a.names[v]}"
            for v, w in zip(x.inputs, y.inputs, strict=False)
            if not _equal(a.root(v), b.root(w), same, known)
        ]
        if reads and a.key(x) == b.key(y):
            changes.append(f"~ {b.text[y]} reads {', '.join(dict.fromkeys(reads))}{b.at(y)}")
        same.update(zip(x.outputs, y.outputs, strict=False))
        known.update(y.outputs)
    changes += _types("result", a, old.outputs, b, new.outputs)
    if not changes and not all(map(lambda v, w: _equal(a.root(v), b.root(w), same, known), old.outputs, new.outputs)):
        changes.append("the steps are the same, and others of their values are returned")
    sides = ((old, len(a.nodes)), (new, len(b.nodes)))
    first, second = (f"{tape.name or 'tape'}: {count} step{'s' * (count != 1)}" for tape, count in sides)
    if not changes:
        return f"{first}, and nothing differs"
    more = [f"and {len(changes) - MOST} more changes"] * (len(changes) > MOST)
    return "\n".join([f"{first}; {second}", *[f"  {change}" for change in changes[:MOST] + more]])


def _equal(v: Var, w: Var, same: dict[Var, Var], known: set[Var]) -> bool:
    if v.tape is None or w.tape is None:
        return v.tape is w.tape and repr(v.value) == repr(w.value)
    # What neither tape makes nor takes is an array from outside: the same one, or another of its type.
    return same.get(v) is w if v in same or w in known else v.value is w.value


def _types(what: str, a: _Side, old: Sequence[Var], b: _Side, new: Sequence[Var]) -> list[str]:
    pairs = zip(old, new, strict=False)
    found = [f"~ {what} {a.typed(v)} became {b.typed(w)}" for v, w in pairs if v.aval is not w.aval]
    found += [f"- {what} {a.typed(v)}" for v in old[len(new) :]]
    return found + [f"+ {what} {b.typed(w)}" for w in new[len(old) :]]
