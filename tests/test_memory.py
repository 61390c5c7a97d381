"""What memory a compiled program takes: XLA's figures, and the lines whose values make up the peak."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from benchmarks import workloads
from tracegrad import nn
from tracegrad.buffers import Memory, size

N = 256
MATRIX = N * N * 4
W = np.ones((N, N), np.float32)


def _mlp(params: Any, x: Any) -> Any:
    for w in params:
        x = tnp.tanh(x @ w)
    return (x * x).mean()


def _rnn(w: Any, xs: Any) -> Any:
    def step(h: Any, x: Any) -> Any:
        h = tnp.tanh(h @ w + x)  # kept for each step
        return h, h.sum()

    return tg.scan(step, tnp.zeros((8, N)), xs)[1].sum()


def _branch(x: Any) -> Any:
    return tg.cond(x.sum() > 0, lambda x: tnp.sin(x @ x).sum(), lambda x: (x @ x @ x).sum(), x)


def _norms(x: Any, w: Any) -> Any:
    return tg.vmap(lambda row: (row @ w).sum())(x)


CASES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "mlp": (tg.value_and_grad(_mlp), ([W] * 4, np.ones((1024, N), np.float32))),
    "rnn": (tg.grad(_rnn), (W, np.ones((100, 8, N), np.float32))),
    "branch": (tg.grad(_branch), (W,)),
    "vmap": (_norms, (W, W)),
    "checkpoint": (tg.grad(tg.checkpoint(lambda w: tnp.sin(w @ w).sum())), (W,)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_figures_are_those_of_the_program_itself(name: str) -> None:
    f, args = CASES[name]
    found = tg.memory(f)(*args)
    # The same program, compiled by JAX without a mark on it.
    expected: Any = tg.jit(f).lower(*args).compile().memory_analysis()
    assert found.arguments == expected.argument_size_in_bytes
    assert found.results == expected.output_size_in_bytes
    assert found.temporaries == pytest.approx(expected.temp_size_in_bytes, rel=0.02, abs=1024)
    assert found.held == sum(row.size for row in found.rows)
    assert found.peak == found.arguments + found.results + found.temporaries
    # The estimate counts what is held at one moment; XLA reserves for all moments.
    assert 0.6 * found.peak < found.held < 1.2 * found.peak, str(found)


def test_arguments_and_results_by_hand() -> None:
    found = tg.memory(tg.value_and_grad(_mlp))([W] * 4, np.ones((1024, N), np.float32))
    assert found.arguments == 4 * MATRIX + 1024 * N * 4
    assert found.results >= 4 * MATRIX + 4
    named = {row.line: row.size for row in found.rows}
    assert named["the argument x"] == 1024 * N * 4
    assert [named[f"the argument params[{i}]"] for i in range(4)] == [MATRIX] * 4


def test_the_line_that_takes_most_is_first() -> None:
    def f(x: Any) -> Any:
        small = x * 2.0
        table = tnp.sort(x[:, None] * x[None, :], axis=0)  # large
        return table[0].sum() + small.sum()

    found = tg.memory(tg.jit(f))(np.ones(1024, np.float32))
    assert found.rows[0].line.endswith("`table = tnp.sort(x[:, None] * x[None, :], axis=0)  # large`")
    assert found.rows[0].size >= 1024 * 1024 * 4
    assert any("f32[1024,1024]" in text for text in found.rows[0].values)


def test_what_a_loop_keeps_has_its_line() -> None:
    found = tg.memory(tg.grad(_rnn))(W, np.ones((100, 8, N), np.float32))
    stacked = 100 * 8 * N * 4
    kept = [row for row in found.rows if any("f32[100,8,256]" in text for text in row.values)]
    lines = {row.line for row in kept if not row.line.startswith("the argument")}
    assert lines and all("kept for each step" in line or "tg.scan" in line for line in lines), str(found)
    assert found.rows[0].size >= stacked


def test_shapes_will_do() -> None:
    x = jax.ShapeDtypeStruct((1 << 20, 1 << 10), np.float32)
    found = tg.memory(lambda x: tnp.sin(x).sum())(x)
    assert found.arguments == 1 << 32


def test_static_and_donated_arguments_and_closures() -> None:
    scale = tnp.ones((N, N))

    def f(x: Any, kind: str, *, y: Any) -> Any:
        return getattr(tnp, kind)(x) * scale * y

    found = tg.memory(tg.jit(f, static_argnums=1, donate_argnums=0))(tnp.asarray(W), "sin", y=2.0)
    assert found.reused == MATRIX and found.peak == found.arguments + found.results - MATRIX + found.temporaries
    named = {row.line for row in found.rows}
    assert {"the argument x", "an array that f closes over"} <= named
    assert "less 256.0 KiB of donated arguments" in str(found)


def test_the_function_is_not_changed_and_does_not_run() -> None:
    calls = []

    @tg.jit
    def f(x: Any) -> Any:
        calls.append(x)
        return x * 2.0

    assert isinstance(tg.memory(f)(W), Memory) and len(calls) == 1
    text = f.lower(W).as_text(debug_info=True)
    assert "tracegrad_step" not in text
    assert float(f(1.0)) == 2.0


def test_the_table() -> None:
    text = str(tg.memory(tg.grad(_mlp))([W], np.ones((1024, N), np.float32)))
    first, second, *rows = text.splitlines()
    assert re.fullmatch(
        r"_mlp takes [\d.]+ MiB at its peak, by XLA: arguments 1.2 MiB, results 256.0 KiB, temporaries [\d.]+ MiB.",
        first,
    ), first
    assert second.startswith("Most is held in ") and "an estimate from XLA's schedule" in second
    assert all(re.match(r" *[\d.]+ (B|KiB|MiB) +\d+ %  \S", row) for row in rows), text


def test_sizes() -> None:
    cases = {
        0: "0 B",
        1023: "1023 B",
        1024: "1.0 KiB",
        1536: "1.5 KiB",
        1 << 20: "1.0 MiB",
        3 << 50: "3.0 PiB",
        1 << 61: "2048.0 PiB",
    }
    assert {n: size(n) for n in cases} == cases


def _too_much(x: Any) -> Any:
    rows = x * tnp.ones(1 << 20)
    return tnp.outer(rows, x * tnp.ones(1 << 21))  # far too large


@pytest.mark.parametrize("debugging", [False, True])
@pytest.mark.parametrize("how", [tg.jit, tg.vmap], ids=["jit", "undecorated"])
def test_an_error_that_there_is_no_memory_is_followed_by_the_table(how: Any, debugging: bool) -> None:
    x = np.float32(1.0) if how is tg.jit else np.ones(1, np.float32)
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED") as caught, tg.debug_nans(debugging):
        how(_too_much)(x)
    (note,) = [note for note in caught.value.__notes__ if "takes" in note]
    assert note.startswith("_too_much takes 8.0 TiB at its peak"), note
    assert "`return tnp.outer(rows, x * tnp.ones(1 << 21))  # far too large`" in note


def test_other_errors_have_no_table() -> None:
    def f(x: Any) -> Any:
        def fail(x: Any) -> Any:
            raise KeyError("no")

        return jax.pure_callback(fail, jax.ShapeDtypeStruct((), np.float32), x)

    imported = tg.from_jax(f)
    with pytest.raises(jax.errors.JaxRuntimeError) as caught:
        jax.block_until_ready(tg.jit(imported)(1.0))
    assert not any("takes" in note for note in getattr(caught.value, "__notes__", ()))


def _temporary(run: Any, args: Any) -> int:
    return int(run.lower(*args).compile().memory_analysis().temp_size_in_bytes)


@pytest.mark.parametrize("samples", [1, 4])
def test_a_loss_that_draws_its_own_numbers_takes_no_more_than_jax(samples: int) -> None:
    args = workloads.vae_arguments(256, 64, 8, 64)
    ours, theirs = (
        side.jit(side.value_and_grad(workloads.vae(side, samples)))
        for side in (workloads.tracegrad_side(), workloads.jax_side())
    )
    assert _temporary(ours, args) <= _temporary(theirs, args)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda z, t: tnp.logaddexp(0.0, z) - z * t, lambda z, t: jnp.logaddexp(0.0, z) - z * t),
        (lambda z, t: nn.softplus(z) - z * t, lambda z, t: jax.nn.softplus(z) - z * t),
    ],
)
def test_a_loss_is_done_with_before_its_gradient_begins(ours: Any, theirs: Any) -> None:
    """XLA runs what is ready first on a CPU: the gradient waits for the loss, and what went into that is let go of."""

    def loss(f: Any) -> Any:
        return lambda w, x, t: f(x @ w, t).sum()

    args = W, np.ones((512, N), np.float32), np.ones((512, N), np.float32)
    found = _temporary(tg.jit(tg.value_and_grad(loss(ours))), args)
    assert found <= _temporary(jax.jit(jax.value_and_grad(loss(theirs))), args)


def test_what_it_refuses() -> None:
    with pytest.raises(TypeError, match=r"memory: fun is .* not a function"):
        tg.memory(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"memory: argument params of _mlp is str .*not an array"):
        tg.memory(tg.jit(_mlp))("text", W)
