"""Define-by-run: what compiles and when, values on demand, and what is never stale."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tracegrad import execute
from tracegrad.recording import state

Since = Callable[[], int]
X = np.linspace(0.1, 1.0, 4, dtype=np.float32)


@pytest.fixture(autouse=True)
def no_programs() -> None:
    """Each test starts with nothing compiled."""
    for cache in (execute._programs, execute._compiled_alone, execute._wanted):
        cache.clear()


# -- one compiled call for each structure


def test_a_structure_compiles_once(compiles: Since) -> None:
    def f(x: Any) -> Any:
        return tnp.sum(tnp.sin(x) * x)

    gradient = tg.grad(f)
    on_device = jnp.asarray(X)
    gradient(X)
    compiles()
    for i in range(5):
        gradient(X + np.float32(i))
        gradient(on_device)
    assert compiles() == 0
    assert tg.explain(f).startswith("f: calls: 11, compiled: 1")
    gradient(X[:2])
    assert compiles() > 0


def test_functions_made_anew_are_found_by_structure(compiles: Since) -> None:
    def step(x: Any, rate: float) -> Any:
        return tg.grad(lambda x: tnp.sum(x * x) * rate)(x)

    step(X, 0.1)
    compiles()
    for rate in (0.2, 0.3):
        np.testing.assert_allclose(step(X, rate), 2 * rate * X, rtol=1e-6)
    assert compiles() == 0


def test_changing_python_numbers_are_never_stale_and_compile_nothing(compiles: Since) -> None:
    def f(x: Any, rate: float) -> Any:
        return tnp.sum(x * rate + rate**2)

    value_and_grad = tg.value_and_grad(f)
    value_and_grad(X, 0.5)
    compiles()
    for rate in (0.25, 3.0, -2.5, 1e-3):
        value, gradient = value_and_grad(X, rate)
        np.testing.assert_allclose(value, np.sum(X * rate + rate**2), rtol=1e-5)
        np.testing.assert_allclose(gradient, np.full(4, rate, np.float32), rtol=1e-6)
    assert compiles() == 0
    for rate in (0, 1, 0.0, 1.0, True):
        value, gradient = value_and_grad(X, rate)
        np.testing.assert_allclose(value, np.sum(X * rate + rate**2), rtol=1e-5)


def test_changing_closed_over_arrays_are_never_stale_and_compile_nothing(compiles: Since) -> None:
    held = {"w": X}
    array = np.array(X)
    on_device = jnp.asarray(3 * X)

    def f(x: Any) -> Any:
        return tnp.sum(x * held["w"] + array)

    tg.value_and_grad(f)(X)
    compiles()
    held["w"] = 2 * X
    array[:] = 7.0
    value, gradient = tg.value_and_grad(f)(X)
    np.testing.assert_allclose(value, np.sum(X * 2 * X + 7), rtol=1e-6)
    np.testing.assert_array_equal(gradient, 2 * X)
    held["w"] = on_device
    np.testing.assert_allclose(tg.value_and_grad(f)(X)[1], 3 * X, rtol=1e-6)
    assert compiles() == 0


def test_an_array_changed_while_the_function_runs_counts_as_it_was() -> None:
    array = np.array(X)

    def f(x: Any) -> Any:
        y = x * array
        array[:] = 0.0
        return tnp.sum(y + array)

    np.testing.assert_array_equal(tg.grad(f)(X), X)


def test_structures_differ_by_dtype_shape_parameters_and_x64() -> None:
    f = tg.grad(lambda x: tnp.sum(x * x))
    assert f(X).dtype == np.float32
    assert f(X.astype(np.float16)).dtype == np.float16
    with jax.enable_x64(True):
        assert f(X.astype(np.float64)).dtype == np.float64
        assert f(2.0).dtype == np.float64
    assert f(2.0).dtype == np.float32
    axes = tg.grad(lambda x, axis: tnp.sum(tnp.sum(x, axis=axis) ** 2))
    square = np.arange(4, dtype=np.float32).reshape(2, 2)
    assert not np.array_equal(axes(square, 0), axes(square, 1))


def test_explain_names_the_field_that_differed() -> None:
    def f(x: Any, n: int) -> Any:
        for _ in range(n):
            x = tnp.sin(x)
        return tnp.sum(x)

    tg.grad(f)(X, 1)
    tg.grad(f)(X[:2], 1)
    tg.grad(f)(X[:2], 2)
    text = tg.explain(f)
    assert "first recording" in text
    assert "(alias) took (f32[4],), takes (f32[2],) at" in text
    assert "was sum, is sin at" in text
    assert "test_execute.py" in text


# -- values on demand


def test_branches_and_loops_may_follow_values() -> None:
    def f(x: Any) -> Any:
        n = 0
        while tnp.sum(x) < 100.0:
            x = x * 2.0
            n += 1
        return tnp.sum(x) if x[0] > 1.0 else tnp.sum(x * x), n

    for point in (X, 30 * X):
        (_, n), gradient = tg.value_and_grad(f, has_aux=True)(point)
        doubled = point * 2.0**n
        expected = np.full(4, 2.0**n) if doubled[0] > 1 else 2 * doubled * 2.0**n
        np.testing.assert_allclose(gradient, expected, rtol=1e-5)
        assert type(n) is int


def test_each_piece_runs_once_and_compiles_once(monkeypatch: pytest.MonkeyPatch, compiles: Since) -> None:
    ran: list[int] = []
    original = execute.find_program

    def counting(key: Any, nodes: Any, *rest: Any) -> Any:
        ran.append(len(nodes))
        return original(key, nodes, *rest)

    monkeypatch.setattr(execute, "find_program", counting)

    def f(x: Any) -> Any:
        y = tnp.sin(x)
        assert float(tnp.sum(y)) > 0
        z = tnp.exp(y)
        assert z[0] > 0
        return tnp.sum(z * y)

    gradient = tg.grad(f)(X)
    np.testing.assert_allclose(gradient, jax.grad(lambda x: jnp.sum(jnp.exp(jnp.sin(x)) * jnp.sin(x)))(X), rtol=1e-5)
    pieces = len(ran)
    assert pieces == 3
    total = sum(ran)
    tape = tg.trace(tg.grad(lambda x: tnp.sum(tnp.exp(tnp.sin(x)) * tnp.sin(x))))(X)
    assert total <= len(tape) + 8, "a piece ran what an earlier one had run"
    compiles()
    tg.grad(f)(X + np.float32(0.01))
    assert compiles() == 0
    assert ran[pieces:] == ran[:pieces]


@pytest.mark.parametrize(
    "get, expected",
    [
        (float, 0.5),
        (int, 0),
        (bool, True),
        (complex, 0.5 + 0j),
        (lambda v: v.item(), 0.5),
        (lambda v: v.tolist(), 0.5),
        (lambda v: f"{v:.2f}", "0.50"),
        (str, "0.5"),
        (lambda v: np.asarray(tg.stop_gradient(v)).dtype.name, "float32"),
    ],
)
def test_values_are_given_on_demand(get: Any, expected: Any) -> None:
    seen = []

    def f(x: Any) -> Any:
        y = x * 0.5
        seen.append(get(y))
        return y * y

    gradient = tg.grad(f)(1.0)
    assert seen == [expected]
    assert float(gradient) == 0.5


def test_integers_index_and_count() -> None:
    def f(x: Any) -> Any:
        i = tnp.argmax(x)
        return sum(x[int(i)] for _ in range(tnp.asarray(2) + 1))

    np.testing.assert_array_equal(tg.grad(f)(X), [0, 0, 0, 3])


# -- long and restless programs


@pytest.mark.parametrize("limit", ["LONG", "LONG_TINY"])
def test_very_long_programs_run_op_by_op(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setattr(execute, limit, 20)

    def f(x: Any) -> Any:
        for _ in range(20):
            x = tnp.sin(x) * 1.5
        return tnp.sum(x)

    reference: Any = jnp.asarray(X)
    for _ in range(20):
        reference = jnp.sin(reference) * 1.5
    value, gradient = tg.value_and_grad(f)(X)
    np.testing.assert_allclose(value, jnp.sum(reference), rtol=1e-5)
    assert gradient.shape == X.shape
    tg.value_and_grad(f)(X)
    assert "(run op by op)" in tg.explain(f)
    assert "compiled: 0" in tg.explain(f)


def test_a_restless_function_stops_compiling_whole_programs(compiles: Since) -> None:
    def f(x: Any, n: int) -> Any:
        for _ in range(n):
            x = tnp.sin(x)
        return tnp.sum(x)

    for n in range(1, 12):
        np.testing.assert_allclose(tg.grad(f)(X, n), jax.grad(lambda x, n=n: _tower(x, n))(X), rtol=1e-5)
    compiles()
    for n in range(12, 18):
        tg.grad(f)(X, n)
    assert compiles() == 0
    assert tg.explain(f).count("(run op by op)") > 6
    tg.grad(f)(X, 17)
    assert compiles() == 1, "a structure that comes a second time is compiled whole"


def _tower(x: Any, n: int) -> Any:
    for _ in range(n):
        x = jnp.sin(x)
    return jnp.sum(x)


def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute._programs, "size", 3)
    for n in range(1, 6):
        tg.grad(lambda x: tnp.sum(x * x))(np.ones(n, np.float32))
    assert len(execute._programs) == 3


# -- exceptions, threads, memory


@pytest.mark.parametrize("transform", [tg.grad, tg.jit, tg.vmap, tg.jacobian, lambda f: tg.grad(tg.jit(f)), tg.trace])
def test_an_exception_leaves_no_tape_open(transform: Any) -> None:
    def f(x: Any) -> Any:
        tnp.sin(x)
        raise RuntimeError("the user's own")

    with pytest.raises(RuntimeError, match="the user's own"):
        transform(f)(X)
    assert state.tape is None
    assert float(tg.grad(lambda x: x * x)(3.0)) == 6.0


def test_threads_record_independently() -> None:
    results: dict[int, Any] = {}
    barrier = threading.Barrier(4)

    def work(k: int) -> None:
        def f(x: Any) -> Any:
            barrier.wait(timeout=30)
            y = x * (k + 2.0)
            barrier.wait(timeout=30)
            return tnp.sum(y * y)

        results[k] = tg.grad(f)(X)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(timeout=60)
    for k in range(4):
        np.testing.assert_allclose(results[k], 2 * (k + 2.0) ** 2 * X, rtol=1e-5)


def test_arrays_are_freed_after_the_call() -> None:
    def f(x: Any) -> Any:
        h = tnp.sin(x)
        assert float(tnp.sum(h)) > 0
        alive.append(weakref.ref(h.value))
        return tnp.sum(h * h)

    alive: list[Any] = []
    gc.disable()
    try:
        x = jnp.asarray(X) + 0.0
        alive.append(weakref.ref(x))
        gradient = tg.grad(f)(x)
        del x
        left = [ref() for ref in alive if ref() is not None]
    finally:
        gc.enable()
    assert not left, "kept without a garbage collection"
    assert gradient.shape == (4,)


# -- inside JAX


def test_inside_jax_jit_and_vmap() -> None:
    def f(x: Any) -> Any:
        return tnp.sum(tnp.sin(x) * x)

    expected = np.cos(X) * X + np.sin(X)
    np.testing.assert_allclose(jax.jit(tg.grad(f))(X), expected, rtol=1e-5)
    batch = np.stack([X, 2 * X])
    rows = np.stack([np.cos(r) * r + np.sin(r) for r in batch])
    np.testing.assert_allclose(jax.vmap(tg.grad(f))(batch), rows, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(jax.vmap(tg.jit(tg.grad(f))))(batch), rows, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(lambda x: tnp.sin(x))(X), np.sin(X), rtol=1e-6)
    np.testing.assert_allclose(jax.jacfwd(tg.grad(f))(X), jax.hessian(lambda x: jnp.sum(jnp.sin(x) * x))(X), rtol=1e-5)


def test_inside_jax_scan() -> None:
    def step(x: Any, _: Any) -> Any:
        return x - 0.1 * tg.grad(lambda x: tnp.sum(x * x))(x), None

    np.testing.assert_allclose(jax.lax.scan(step, jnp.asarray(X), None, 5)[0], X * 0.8**5, rtol=1e-5)


def test_an_argument_that_jax_traces_has_no_value() -> None:
    def f(x: Any) -> Any:
        return x if x > 0 else -x

    with pytest.raises(TypeError, match=r"truth value.*was asked of a traced value"):
        jax.jit(tg.grad(f))(1.0)


def test_the_same_text_in_two_files_is_two_functions() -> None:
    functions = []
    for name in ("one.py", "two.py"):
        space: dict[str, Any] = {}
        exec(compile("def f(x): return x * x", name, "exec"), space)
        functions.append(space["f"])
    tg.grad(functions[0])(2.0)
    assert tg.explain(functions[0]).startswith("f: calls: 1,")
    assert tg.explain(functions[1]).startswith("f: calls: 0,")
