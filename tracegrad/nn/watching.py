"""Who is asked to call each layer, and taps what it makes under the path that the layer has in the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..capture import tap
from ..recording import Recording
from ..recording import state as recording
from ..tape import Var, aval_of
from .containers import Stack
from .layers import named, sublayers, walk


class Made(NamedTuple):
    """An array of floats that a call of a layer has made.

    Attributes:
      path: where the layer is, and where in its output this array is, if that is a pytree. Of a layer in a `Stack`,
        which is a loop, `[*]` stands for its number; what `capture` finds has a first axis of these.
      kind: its class.
      weighted: whether the layer has parameters of its own.
    """

    path: str
    kind: str
    weighted: bool


class Span(NamedTuple):
    """The nodes, from `start` to `end` of a tape, of a call of the layer at `path`."""

    tape: Recording | None
    start: int
    end: int
    path: str


class _Part(NamedTuple):
    path: str
    layer: Any


class Outputs:
    """Taps the output of each layer of a model while it runs: `made` has what is under the name of each tap.

    Args:
      roots: the layers that a program is called with, each with its path.
      inside: whether to follow layers into loops and transforms, where other objects with the same structure stand for
        them, and to leave out a layer that returns what a layer in it made.
      wanted: the names of the taps that are made, as in an earlier run; by default all.
      left: is told, with the tape and the first node, when the outermost layer of a body has been called.
    """

    def __init__(
        self,
        roots: Iterable[tuple[str, Any]],
        *,
        inside: bool = False,
        wanted: Iterable[str] | None = None,
        left: Callable[[Recording, int], None] | None = None,
    ) -> None:
        self.made: dict[str, Made] = {}
        self.spans: list[Span] = []
        self._roots = [_Part(path, layer) for path, layer in roots]
        self._inside, self._left = inside, left
        self._wanted = None if wanted is None else set(wanted)
        self._parts: dict[int, _Part] = {}
        self._calls: dict[str, int] = {}
        self._within: list[tuple[_Part, Recording | None, dict[str, int]]] = []
        self._tapped: dict[int, Var] = {}
        for root in self._roots:
            self._add(root)

    def _add(self, part: _Part) -> None:
        for names, layer in reversed([*walk(part.layer)]):
            self._parts[id(layer)] = _Part(".".join((part.path, *names)), layer)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """The block runs the layers."""
        before, recording.watch = recording.watch, self
        try:
            yield
        finally:
            recording.watch = before

    def _find(self, layer: Any) -> _Part | None:
        part = self._parts.get(id(layer))
        if part is not None and part.layer is layer:
            return part
        if not self._inside:
            return None
        # A transform has made it anew: it stands for a part, of the layer that is being called, of this structure.
        outer, _, seen = self._within[-1] if self._within else (None, None, {})
        inside = (
            self._roots
            if outer is None
            else [
                _Part(f"{outer.path}.{name}" + "[*]" * isinstance(outer.layer, Stack), value)
                for name, value in sublayers(outer.layer)
            ]
        )
        structure: Any = jax.tree.structure(layer)
        inside = [p for p in inside if type(p.layer) is type(layer) and jax.tree.structure(p.layer) == structure]
        if not inside:
            return None
        # Of several, in the order of the calls.
        key = inside[0].path
        count = seen[key] = seen.get(key, -1) + 1
        part = inside[count % len(inside)]
        part = _Part(part.path, layer)
        self._add(part)
        return part

    def __call__(self, call: Any, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        part, tape = self._find(layer), recording.tape
        if part is None:
            return call(layer, *args, **kwargs)
        start = 0 if tape is None else len(tape.nodes)
        outermost = tape is not (self._within[-1][1] if self._within else None)
        self._within.append((part, tape, {}))
        try:
            out = call(layer, *args, **kwargs)
        finally:
            self._within.pop()
        out = jax.tree_util.tree_map_with_path(lambda where, x: self._tap(part, where, x), out)
        if tape is not None:
            self.spans.append(Span(tape, start, len(tape.nodes), part.path))
            if outermost and self._left is not None:
                self._left(tape, start)
        return out

    def _tap(self, part: _Part, where: Any, x: Any) -> Any:
        if not jnp.issubdtype(aval_of(x).dtype, jnp.floating) or (self._inside and id(x) in self._tapped):
            return x
        path = part.path + named(where)
        weighted = len(jax.tree.leaves(part.layer)) > sum(len(jax.tree.leaves(p)) for _, p in sublayers(part.layer))
        name = self.name(path)
        self.made[name] = Made(path, type(part.layer).__name__, weighted)
        if self._wanted is not None and name not in self._wanted:
            return x
        out = tap(name, x)
        self._tapped[id(out)] = out
        return out

    def name(self, path: str) -> str:
        """The name of a tap of this path, another each time."""
        count = self._calls[path] = self._calls.get(path, -1) + 1
        return f"{path} (output {count})"


__all__ = ["Made", "Outputs", "Span"]
