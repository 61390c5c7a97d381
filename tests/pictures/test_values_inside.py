"""The values in the bodies of loops, branches, maps and calls, beside the same written out in NumPy."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tracegrad import inside as inside_module
from tracegrad import inspection
from tracegrad.control import scan_op

X = np.linspace(-1.0, 1.5, 12, dtype=np.float32).reshape(4, 3)
W = np.linspace(-0.5, 0.5, 9, dtype=np.float32).reshape(3, 3)


def inside(tape: Any, *ops: str, body: int = 0) -> inspection.Inside:
    """What was found in a step, or in a step of its body, and so on."""
    kept = inspection.Values.of(tape)
    for i, op in enumerate(ops):
        assert kept is not None
        node = next(node for node in kept.bodies if node.op.name == op)
        found = kept.bodies[node][body if i == len(ops) - 1 else 0]
        kept = found.values
    return found


def has(found: inspection.Inside, *wanted: Any) -> None:
    """These arrays are among the values."""
    arrays = [np.asarray(x) for x in found.values.values.values()]
    for x in wanted:
        x = np.asarray(x)
        near = [a for a in arrays if a.shape == x.shape and np.allclose(a, x, rtol=1e-5, atol=1e-6)]
        assert near, (x, arrays)


def doubled(x: Any) -> Any:
    return tnp.tanh(x) * 2.0


@tg.custom_vjp
def custom(x: Any) -> Any:
    return tnp.tanh(x) * 2.0


custom.defvjp(lambda x: (custom(x), None), lambda saved, ct: (ct,))

CALLS: dict[str, Any] = {
    "call": tg.jit(doubled), "checkpoint": tg.checkpoint(doubled), "custom_vjp": custom,
    "named": tg.named_call(doubled, name="twice"), "from_jax": tg.from_jax(lambda x: jax.numpy.tanh(x) * 2.0),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_a_call_has_one_value_each(name: str) -> None:
    tape = tg.trace(lambda x: CALLS[name](x) + 1.0, values=True)(X)
    found = inside(tape, {"named": "call", "from_jax": "call"}.get(name, name))
    assert found.note == ""
    has(found, X, np.tanh(X), 2 * np.tanh(X))


def turn(h: Any, row: Any) -> Any:
    return tnp.tanh(h @ W + row), h * 2.0


def turns(x: Any, rows: Any) -> list[Any]:
    """What is carried into each turn."""
    hs = [x]
    for row in rows:
        hs.append(np.tanh(hs[-1] @ W + row))
    return hs


@pytest.mark.parametrize("reverse", [False, True])
def test_a_scan_has_those_of_all_turns(reverse: bool) -> None:
    tape = tg.trace(lambda x: tg.scan(turn, x[0], x, reverse=reverse)[1], values=True)(X)
    found = inside(tape, "scan")
    assert found.note == "all 4 turns"
    order = slice(None, None, -1 if reverse else 1)
    hs = np.stack(turns(X[0], X[order]))
    has(found, X, hs[:-1][order], hs[1:][order], W)
    name = next(name for name in tape.values() if name.endswith(".row"))
    np.testing.assert_array_equal(tape.values()[name], X)
    assert "turn(h:f32[3], row:f32[3], a:f32[3,3])  # values: all 4 turns" in tape.text(values=True)
    for picture in (tape.to_svg(), tape.to_html(), tape.to_dot()):
        assert "run 4 times; values: all 4 turns" in picture
    low, high = hs[1:].min(), hs[1:].max()
    assert f"{low:.3g} to {high:.3g}" in tape.to_svg()


def test_a_loop_that_makes_much_has_those_of_the_last_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inside_module, "MOST_BYTES", 100)
    found = inside(tg.trace(lambda x: tg.scan(turn, x[0], x)[1], values=True)(X), "scan")
    assert found.note == "the last of 4 turns"
    hs = turns(X[0], X)
    has(found, X[3], hs[3], hs[4])
    assert all(np.shape(x) in ((3,), (3, 3)) for x in found.values.values.values())


def test_the_gradient_of_a_loop_has_values_too() -> None:
    tape = tg.trace(tg.grad(lambda w: tg.scan(lambda h, x: (tnp.sin(h * w + x), None), w, X[0])[0]), values=True)(0.5)
    kept = inspection.Values.of(tape)
    assert kept is not None
    (found,) = [kept.bodies[node][0] for node in kept.bodies if node.grad]
    hs = [np.float32(0.5)]
    for x in X[0]:
        hs.append(np.sin(hs[-1] * np.float32(0.5) + x))
    slopes = np.cos(np.array(hs[:-1]) * 0.5 + X[0])
    has(found, slopes)
    picture = tape.to_svg()
    assert picture.count("values: all 3 turns") == 1 and "\N{NABLA}" in picture


def test_the_branch_that_was_taken() -> None:
    def f(x: Any) -> Any:
        return tg.cond(x.sum() > 100.0, lambda x: tnp.sin(x), lambda x: tnp.cos(x) * 3.0, x)

    tape = tg.trace(f, values=True)(X)
    taken, other = inside(tape, "cond", body=0), inside(tape, "cond", body=1)
    assert (taken.note, other.note) == ("taken", "not taken") and not other.values.values
    has(taken, X, np.cos(X), 3 * np.cos(X))
    assert [name for name in tape.values() if "[0]." in name] and not [name for name in tape.values() if "[1]." in name]
    assert "; values: not taken<" in tape.to_svg() and "# values: not taken" in tape.text(values=True)
    second = inside(tg.trace(lambda i: tg.switch(i, [tnp.sin, tnp.cos, tnp.exp], X), values=True)(7), "cond", body=2)
    assert second.note == "taken"
    has(second, np.exp(X))


def test_a_branch_in_a_loop_and_in_a_map() -> None:
    def f(row: Any) -> Any:
        return tg.cond(row.sum() > 0, lambda r: tnp.sin(r), lambda r: tnp.exp(r), row)

    some = X[X.sum(1) > 0]
    for fun, op in ((tg.vmap(f), "vmap"), (lambda x: tg.map(f, x), "scan")):
        tape = tg.trace(fun, values=True)(X)
        found = inside(tape, op, "cond", body=1)
        assert found.note == f"all 4 {'turns' if op == 'scan' else 'elements'}, taken in {len(some)} of 4"
        has(found, some, np.sin(some))
        has(inside(tape, op, "cond"), np.exp(X[X.sum(1) <= 0]))


def test_what_all_turns_share_is_whole_in_a_branch() -> None:
    """A matrix with as many rows as there are turns."""
    rows = np.linspace(-1, 1, 9, dtype=np.float32).reshape(3, 3)

    def f(w: Any, x: Any) -> Any:
        return tg.map(lambda row: tg.cond(row.sum() > 0, lambda r: (r @ w).sum(), lambda r: r.sum(), row), x)

    tape = tg.trace(f, values=True)(W, rows)
    has(inside(tape, "scan", "cond", body=1), W, rows[2:], (rows[2:] @ W).sum(1))


def test_a_shard_map_over_two_axes() -> None:
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]).reshape(2, 2), ("a", "b"))
    spec = jax.sharding.PartitionSpec

    def f(x: Any, w: Any) -> Any:
        return tg.parallel.psum(x @ w, "b")

    x = np.arange(16, dtype=np.float32).reshape(4, 4)
    w = np.arange(8, dtype=np.float32).reshape(4, 2)
    fun = tg.parallel.shard_map(f, mesh=mesh, in_specs=(spec("a", "b"), spec("b")), out_specs=spec("a"))
    tape = tg.trace(fun, values=True)(x, w)
    found = inside(tape, "shard_map")
    assert found.note == "all 4 devices"
    parts = x.reshape(2, 2, 2, 2).transpose(0, 2, 1, 3) @ w.reshape(1, 2, 2, 2)
    has(found, parts, np.broadcast_to(parts.sum(1, keepdims=True), parts.shape))
    assert any(np.allclose(value, x @ w) for value in tape.values().values() if np.shape(value) == (4, 2))


def test_loops_in_branches_in_maps() -> None:
    def f(row: Any) -> Any:
        return tg.cond(row.sum() > 0, lambda r: tg.scan(turn, r, X)[0], lambda r: r, row)

    kept = inspection.Values.of(tg.trace(tg.vmap(f), values=True)(X))
    assert kept is not None
    (mapped,) = next(iter(kept.bodies.values()))
    _, taken = next(iter(mapped.values.bodies.values()))
    (loop,) = next(iter(taken.values.bodies.values()))
    some = X[X.sum(1) > 0]
    assert loop.note == f"all 4 elements, taken in {len(some)} of 4, all 4 turns"
    has(loop, np.stack([turns(row, X)[1:] for row in some]))


def test_a_while_loop_has_those_of_the_last_turn_and_needs_no_derivative() -> None:
    def f(x: Any) -> Any:
        return tg.while_loop(lambda v: v.sum() < 50.0, lambda v: v * 2.0 + 1.0, x).sum()

    tape = tg.trace(f, values=True)(X)
    v, before, count = X, X, 0
    while v.sum() < 50.0:
        v, before, count = v * 2 + 1, v, count + 1
    ended, last = inside(tape, "while"), inside(tape, "while", body=1)
    assert (ended.note, last.note) == ("when it ended", f"the last of {count} turns")
    has(last, before, before * 2, v)
    has(ended, v, v.sum())
    assert tape.gradients() == {}
    assert inside(tg.trace(f, values=True)(X + 99), "while", body=1).note == "never run"
    bounds = np.array([1, 3], np.int32)
    many = tg.trace(lambda n: tg.vmap(lambda k: tg.fori_loop(0, k, lambda i, v: v * 2.0, 1.0))(n), values=True)(bounds)
    assert inside(many, "vmap", "while", body=1).note == "all 2 elements, the last of 1 to 3 turns"


def test_a_map_has_those_of_all_elements_and_devices() -> None:
    x = np.arange(8, dtype=np.float32)

    def f(x: Any, scale: Any) -> Any:
        total = tg.psum(x * scale, "i")
        return x / total

    scaled = x * 2.0
    for fun, note in (
        (tg.vmap(f, in_axes=(0, None), axis_name="i"), "all 8 elements"),
        (tg.pmap(f, in_axes=(0, None), axis_name="i"), "all 8 devices"),
    ):
        tape = tg.trace(fun, values=True)(x, 2.0)
        found = inside(tape, "pmap" if "devices" in note else "vmap")
        assert found.note == note
        has(found, x, scaled, np.full(8, scaled.sum()), x / scaled.sum())
        np.testing.assert_allclose(next(v for k, v in tape.values().items() if k == "a"), x / scaled.sum(), rtol=1e-6)


def test_random_keys_and_a_loop_of_no_turn() -> None:
    def f(key: Any) -> Any:
        def draw(key: Any, _: Any) -> Any:
            key, own = tg.random.split(key)
            return key, tg.random.normal(own, (2,))

        return tg.scan(draw, key, None, length=3)[1]

    tape = tg.trace(f, values=True)(tg.random.key(0))
    key, drawn = jax.random.key(0), []
    for _ in range(3):
        key, own = jax.random.split(key)
        drawn.append(jax.random.normal(own, (2,)))
    has(inside(tape, "scan"), np.stack(drawn))
    assert "values: all 3 turns" in tape.to_svg()
    empty = tg.trace(lambda x: tg.scan(turn, x[0], x[:0])[0], values=True)(X)
    assert "empty" in empty.text(values=True)


def test_what_cannot_be_shown_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(inspection.RUNNERS, scan_op)
    tape = tg.trace(lambda x: tg.scan(turn, x[0], x)[1], values=True)(X)
    assert inside(tape, "scan").note == "not kept inside scan"
    for text in (tape.to_svg(), tape.to_html(), tape.to_dot(), tape.text(values=True)):
        assert "values: not kept inside scan" in text
    assert any(np.allclose(v, 2 * np.stack(turns(X[0], X)[:-1])) for v in tape.values().values() if v.shape == X.shape)
