"""What is kept stays within bounds, whatever a user defines again, and is right from any thread."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tracegrad import execute
from tracegrad.caches import Cache, Nothing
from tracegrad.errors import InnerTraceError, TracerError
from tracegrad.ops import sin
from tracegrad.recording import Recording, state
from tracegrad.tape import Node, Tape

# -- the cache itself


def test_the_oldest_goes_first_unless_it_was_used() -> None:
    cache = Cache(3)
    for i in range(3):
        assert cache.keep(i, str(i)) == str(i)
    assert cache.use(0) == "0"
    cache.keep(3, "3")
    assert list(cache) == [2, 0, 3]
    assert cache.use(1) is None
    assert cache.get(2) == "2"


def test_a_value_of_nothing_is_not_kept() -> None:
    nothing = Nothing()
    assert nothing.keep([], "not hashable") == "not hashable"
    assert nothing.get([]) is None


def test_threads_share_a_cache() -> None:
    cache = Cache(16)

    def work(seed: int) -> None:
        for i in np.random.default_rng(seed).integers(0, 64, 2_000).tolist():
            found = cache.use(i)
            assert found in (None, i * i)
            if found is None:
                cache.keep(i, i * i)

    in_threads([lambda seed=seed: work(seed) for seed in range(8)])
    assert len(cache) == 16
    assert all(value == key * key for key, value in cache.items())


def in_threads(calls: list[Callable[[], Any]]) -> list[Any]:
    """The results of the calls, each in a thread of its own, all at once; what one raises is raised."""
    results: list[Any] = [None] * len(calls)
    errors: list[BaseException] = []
    start = threading.Barrier(len(calls))

    def run(i: int) -> None:
        start.wait()
        try:
            results[i] = calls[i]()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


# -- what a user defines again and again, as by running a cell


def custom_vjp(call: Callable[..., Any]) -> Any:
    @tg.custom_vjp
    def doubled(x: Any) -> Any:
        return x * 2.0

    doubled.defvjp(lambda x: (x * 2.0, x), lambda x, ct: (ct * x,))
    return call(tg.grad(lambda x: doubled(x) * 3.0))(5.0)


def own_op(call: Callable[..., Any]) -> Any:
    cube = tg.Op("cube", lambda x: x * x * x, vjp=(lambda ct, out, x: ct * 3.0 * x * x,))
    return call(tg.grad(cube))(5.0)


def jitted(call: Callable[..., Any]) -> Any:
    return call(tg.grad(tg.jit(lambda x: tnp.sin(x) * x)))(5.0)


def undecorated(call: Callable[..., Any]) -> Any:
    space: dict[str, Any] = {}
    exec("def f(x): return x * x", space)
    return call(tg.grad(space["f"]))(5.0)


def held() -> dict[str, int]:
    """How many of our objects are alive, and how full the fullest cache is."""
    gc.collect()
    objects = gc.get_objects()
    counts = {kind.__name__: sum(type(o) is kind for o in objects) for kind in (Tape, Node, Recording, tg.Op)}
    return counts | {"cache": max(len(o) for o in objects if type(o) is Cache)}


@pytest.mark.parametrize("define", [custom_vjp, own_op, jitted, undecorated])
def test_a_definition_that_is_recorded_a_thousand_times_leaves_nothing(define: Callable[..., Any]) -> None:
    for _ in range(10):
        define(tg.trace)
    before = held()
    for _ in range(1_000):
        define(tg.trace)
    after = held()
    # A little is left between two collections, by whatever else runs; a thousand would be seen.
    assert all(after[kind] <= before[kind] + 20 for kind in before), (before, after)


@pytest.mark.parametrize("define", [custom_vjp, own_op, undecorated])
def test_a_definition_that_runs_again_and_again_keeps_a_bounded_number(
    define: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for cache in (execute._programs, execute._compiled_alone, execute._wanted):
        cache.clear()
        monkeypatch.setattr(cache, "size", 8)
    expected = {custom_vjp: 15.0, own_op: 75.0, undecorated: 10.0}[define]
    for _ in range(12):
        assert float(define(lambda f: f)) == expected
    before = held()
    for _ in range(24):
        assert float(define(lambda f: f)) == expected
    after = held()
    assert all(after[kind] <= before[kind] + 4 for kind in before), (before, after)
    assert len(execute._programs) <= 8


def test_every_shape_is_kept_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    op = tg.Op("same", lambda x: x, vjp=(lambda ct, out, x: ct,))
    for cache in (*op.avals, op._compiled):
        monkeypatch.setattr(cache, "size", 16)
    for n in range(1, 100):
        tg.trace(op)(np.ones(n, np.float32))
    assert [len(cache) for cache in op.avals] in ([16, 0], [0, 16])


# -- threads


def test_threads_differentiate_different_and_equal_functions() -> None:
    def equal(x: Any) -> Any:
        return tnp.sum(tnp.sin(x) * x)

    def different(k: int) -> Callable[[Any], Any]:
        return lambda x: tnp.sum(x ** (k + 2)) + k

    jitted_equal = tg.jit(tg.grad(equal))
    x = np.linspace(0.5, 1.5, 5)

    def work(k: int) -> None:
        f = different(k)
        for i in range(125):
            y = (x + i).astype(np.float32)
            transform, by_hand = [
                (tg.grad(equal), lambda y: np.cos(y) * y + np.sin(y)),
                (tg.grad(f), lambda y: (k + 2) * y ** (k + 1)),
                (jitted_equal, lambda y: np.cos(y) * y + np.sin(y)),
            ][i % 3]
            np.testing.assert_allclose(transform(y), by_hand(y.astype(np.float64)), rtol=2e-4, atol=1e-4)

    in_threads([lambda k=k: work(k) for k in range(8)])


def test_threads_that_record_at_the_same_time_know_nothing_of_each_other() -> None:
    kept: list[Any] = []
    recorded, used = threading.Event(), threading.Event()

    def keeps(x: Any) -> Any:
        kept.append(tnp.exp(x))
        recorded.set()
        assert used.wait(60)
        return kept[0] * x

    def uses(x: Any) -> Any:
        assert recorded.wait(60)
        return kept[0] * x

    def expect_an_error() -> str:
        try:
            with pytest.raises(TracerError, match=r"another recording.*test_caches\.py.*Pass it as an argument") as e:
                tg.grad(uses)(2.0)
            assert not isinstance(e.value, InnerTraceError)
            assert state.tape is None
            return str(e.value)
        finally:
            used.set()

    value, message = in_threads([lambda: float(tg.grad(keeps)(1.0)), expect_an_error])
    assert value == pytest.approx(2 * np.e, rel=1e-6)
    assert "uses" in message


@pytest.mark.parametrize(
    "wrap", [tg.jit, tg.checkpoint, tg.vmap, lambda f: lambda x: tg.scan(lambda c, y: (f(y), y), x[0], x)[0], tg.grad]
)
def test_an_exception_in_a_body_leaves_nothing_open(wrap: Callable[..., Any]) -> None:
    class Stop(Exception):
        pass

    values: list[Any] = []

    def body(x: Any) -> Any:
        values.append(sin(x))
        raise Stop

    with pytest.raises(Stop):
        tg.grad(lambda x: tnp.sum(wrap(body)(x)))(np.ones(2, np.float32))
    assert state.tape is None
    assert not values[0].tape.open
    with pytest.raises(TracerError, match="had ended"):
        tnp.exp(values[0])
    assert float(tg.grad(lambda x: x * x)(3.0)) == 6.0
