"""The tape in the DOT language, which Graphviz and many editors draw."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from ..tape import Tape
from .model import Box, Drawing, Row, drawing
from .still import noted
from .values import add_values


def dot(tape: Tape) -> str:
    """See `Tape.to_dot`."""
    made = drawing(tape)
    add_values(made, tape)
    lines = [
        f"digraph {_quoted(made.title)} {{",
        '  node [shape=box, fontname="monospace", fontsize=10];',
        "  edge [arrowsize=0.6];",
        *_inside(made, "  ", itertools.count(), ""),
        "}",
    ]
    return "\n".join(lines)


def _inside(made: Drawing, indent: str, clusters: Iterator[int], name: str) -> Iterator[str]:
    """A cluster a line of the user's, one a body inside it, then the inputs, the lines and the results."""
    read = {v for box in made.boxes for v in box.node.inputs}
    for v, given in made.given.items():
        if v in read and v not in made.made:
            label = _quoted("\n".join([f"{given} {v.aval}", *made.values.get(v, [])]))
            yield f"{indent}{_quoted(f'{name}in {given}')} [shape=ellipse, label={label}];"
    for row in made.rows:
        yield from _row(row, indent, clusters)
    for box in made.boxes:
        for v in dict.fromkeys(box.node.inputs):
            source = made.made.get(v)
            if source is not None and source is not box:
                style = "dotted" if source.backward != box.backward else "dashed" if box.backward else "solid"
                yield f"{indent}n{source.number} -> n{box.number} [style={style}];"
            elif v in made.given:
                yield f"{indent}{_quoted(f'{name}in {made.given[v]}')} -> n{box.number};"
        for v in box.node.outputs:
            for path in made.returned.get(v, ()):
                result, label = _quoted(f"{name}out {path}"), _quoted(f"out{path}")
                yield f"{indent}{result} [shape=ellipse, peripheries=2, label={label}];"
                yield f"{indent}n{box.number} -> {result};"


def _row(row: Row, indent: str, clusters: Iterator[int]) -> Iterator[str]:
    number = next(clusters)
    yield f"{indent}subgraph cluster_{number} {{"
    yield f'{indent}  label={_quoted(f"{row.where}  {row.code}")}; labeljust=l; fontname="monospace"; fontsize=9;'
    for group in row.groups:
        for box in group.boxes:
            yield f"{indent}  {_node(box)}"
        if group.forward is not None and group.backward:
            beside = " ".join(f"n{box.number};" for box in group.boxes[:2])
            yield f"{indent}  {{ rank=same; {beside} }}"
    for box in row.boxes:
        for body in box.bodies:
            inner = next(clusters)
            yield f"{indent}  subgraph cluster_{inner} {{"
            yield f"{indent}    label={_quoted(f'{body.role} {body.title}{box.runs}{noted(body)}')};"
            yield from _inside(body, f"{indent}    ", clusters, f"{inner} ")
            yield f"{indent}  }}"
    yield f"{indent}}}"


def _node(box: Box) -> str:
    nabla = "\N{NABLA} " if box.backward else ""
    label = "\n".join([f"{nabla}{box.op}", f"{box.names}:{box.type}", *box.values])
    tip = f"{box.text}\n{box.where}  {box.code}"
    style = "dashed" if box.backward else "rounded"
    return f"n{box.number} [label={_quoted(label)}, tooltip={_quoted(tip)}, style={style}];"


def _quoted(text: str) -> str:
    """Text as DOT has it in quotes, where a backslash begins an escape."""
    text = re.sub(r"[^\n -\ud7ff\ue000-\U0010ffff]", " ", text)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
