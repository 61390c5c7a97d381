"""Dtypes: promotion and weak types are those of `jax.numpy`, over all pairs; a gradient has its argument's dtype."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tests.reference import x64

FLOATS = ["float8_e4m3fn", "float8_e5m2", "float16", "bfloat16", "float32", "float64", "complex64", "complex128"]
INTEGERS = ["bool_", "int4", "uint4", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
WIDE = ("int64", "uint64", "float64", "complex128")
NUMBERS = {"Python bool": True, "Python int": 2, "Python float": 0.5, "Python complex": 0.5j}
FEW = ["bool_", "int4", "int8", "int32", "uint64", "float8_e4m3fn", "bfloat16", "float16", "float32", "float64"]
FEW += ["complex64", "Python int", "Python float"]

Function = Callable[[Any, Any, Any], Any]


def _named(name: str) -> Function:
    return lambda numpy, x, y: getattr(numpy, name)(x, y)


ALL_PAIRS: dict[str, Function] = {
    "add": _named("add"),
    "divide": _named("divide"),
    "power": _named("power"),
    "where": lambda numpy, x, y: numpy.where(True, x, y),
    "matmul": _named("matmul"),
}
SOME_PAIRS = {
    name: _named(name)
    for name in ("subtract", "multiply", "maximum", "floor_divide", "remainder", "equal", "arctan2", "hypot", "less")
}
OPERATORS: dict[str, Function] = {
    name: lambda _, x, y, name=name: getattr(operator, name)(x, y)
    for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow")
}


def _operands(names: list[str], wide: bool) -> dict[str, Any]:
    kept = [n for n in names if n not in NUMBERS and (wide or n not in WIDE)]
    numbers = {n: NUMBERS[n] for n in names if n in NUMBERS}
    return {n: jnp.ones((2,), getattr(jnp, n)) for n in kept} | numbers


def _type(out: Any) -> Any:
    return out.shape, out.dtype, out.weak_type


def _attempt(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except (TypeError, ValueError):
        return "an error"


def _types(fn: Function, numpy: Any, operands: dict[str, Any], run: Callable[..., Any]) -> dict[Any, Any]:
    """What `fn` gives for each pair of operands, arrays being traced and Python's numbers not."""
    arrays = {k: v for k, v in operands.items() if isinstance(v, jax.Array)}
    pairs = [p for p in itertools.product(operands, operands) if p[0] in arrays or p[1] in arrays]
    found: dict[Any, Any] = {}

    def program(arrays: dict[str, Any]) -> None:
        values = operands | arrays
        for a, b in pairs:
            found[a, b] = _attempt(lambda a=a, b=b: _type(fn(numpy, values[a], values[b])))

    run(program, arrays)
    return found


def _record(program: Callable[..., Any], arrays: Any) -> None:
    tg.trace(lambda arrays: program(arrays) or 0)(arrays)


def _differences(actual: dict[Any, Any], expected: dict[Any, Any], name: str) -> list[str]:
    if name == "matmul":
        # Products of uint64 with signed integers are floats: weakly typed there, not here.
        mixed = [p for p in actual if "uint64" in p and (p[0] + p[1]).replace("uint64", "", 1).startswith("int")]
        actual = {p: v[:2] if p in mixed else v for p, v in actual.items()}
        expected = {p: v[:2] if p in mixed else v for p, v in expected.items()}
    return [f"{p}: {actual[p]}, in jax.numpy {expected[p]}" for p in expected if actual[p] != expected[p]]


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("name", [*ALL_PAIRS, *SOME_PAIRS])
def test_promotion_of_all_pairs(name: str, wide: bool) -> None:
    # With 64 bits all pairs; without, those of a few dtypes, of which the wide ones are cut.
    every = name in ALL_PAIRS and wide
    fn = ALL_PAIRS.get(name) or SOME_PAIRS[name]
    with x64(wide):
        operands = _operands([*INTEGERS, *FLOATS, *NUMBERS] if every else FEW, wide)
        if name == "matmul":
            operands = {n: v for n, v in operands.items() if n not in NUMBERS}
        expected = _types(fn, jnp, operands, _shapes)
        recorded = _types(fn, tnp, operands, _record)
        assert not _differences(recorded, expected, name)
        if name in ("add", "divide", "maximum"):
            assert not _differences(_types(fn, tnp, operands, _shapes), expected, name)


def _shapes(program: Callable[..., Any], arrays: Any) -> None:
    jax.eval_shape(lambda arrays: program(arrays), arrays)


@pytest.mark.parametrize("wide", [False, True])
def test_promotion_by_operators(wide: bool) -> None:
    with x64(wide):
        operands = _operands(FEW, wide)
        for name, fn in OPERATORS.items():
            expected = _types(fn, None, operands, _shapes)
            assert not _differences(_types(fn, None, operands, _record), expected, name), name


@pytest.mark.parametrize("wide", [False, True])
def test_compiled_values_have_the_recorded_types(wide: bool) -> None:
    """Each dtype with each Python number, compiled: where what is recorded and what runs could part."""
    with x64(wide):
        names = ["int8", "uint32", "float8_e4m3fn", "bfloat16", "float16", "float32", "complex64"]
        operands = _operands([*names, *WIDE], wide)

        def program(numpy: Any, xs: dict[str, Any]) -> dict[str, Any]:
            out = {}
            for name, x in xs.items():
                for number in (2, 0.5):
                    out[f"{name} + {number}"] = x + number
                    out[f"{number} / {name}"] = number / x
                    out[f"where {name} {number}"] = numpy.where(x == 1, x, number)
                    out[f"maximum {name} {number}"] = numpy.maximum(number, x)
            return out

        with np.errstate(all="ignore"):
            ours, theirs = tg.jit(lambda xs: program(tnp, xs))(operands), jax.jit(lambda xs: program(jnp, xs))(operands)
        for name, a in ours.items():
            assert a.dtype == theirs[name].dtype, name
            np.testing.assert_array_equal(np.asarray(a, complex), np.asarray(theirs[name], complex), err_msg=name)


STEPS: dict[str, Callable[[Any], Any]] = {
    "arithmetic": lambda x: x * x / 2 + x,
    "where": lambda x: tnp.where(x > 0.5, x, 0.0),
    "exp": lambda x: tnp.exp(x),
    "matmul": lambda x: x @ x,
    "wide product": lambda x: tg.lax.dot(x, x, preferred_element_type=_wider(x.dtype)),
    "sum": lambda x: tnp.sum(x),
    "mean": lambda x: tnp.mean(x),
    "var": lambda x: tnp.var(x),
    "prod": lambda x: tnp.prod(x),
    "max": lambda x: tnp.max(x),
    "cumsum": lambda x: tnp.cumsum(x),
    "logsumexp": lambda x: tnp.logsumexp(x),
    "sort": lambda x: tnp.sort(x),
    "getitem": lambda x: x[np.array([0, 1, 1])],
    "concatenate": lambda x: tnp.concatenate([x, x]),
    "astype": lambda x: x.astype(_wider(x.dtype)),
    "sum of two dtypes": lambda x: x.astype(_wider(x.dtype)) + x.astype(_wider(x.dtype)),
}


def _wider(dtype: Any) -> Any:
    return np.dtype(np.complex64 if dtype.kind == "c" else np.float32)


@pytest.mark.parametrize("dtype", [n for n in FLOATS if n not in WIDE])
def test_gradients_have_the_dtype_of_the_argument(dtype: str) -> None:
    """In each float type, through each kind of function, compiled and with the type that was recorded."""
    x = jnp.asarray([0.5, 1.0], getattr(jnp, dtype))
    steps = {k: f for k, f in STEPS.items() if k != "where" or dtype != "complex64"}

    def loss(f: Callable[[Any], Any], x: Any) -> Any:
        return tnp.sum(tnp.real(f(x)).astype(np.float32))

    def gradients(x: Any) -> dict[str, Any]:
        return {name: tg.grad(lambda x, f=f: loss(f, x))(x) for name, f in steps.items()}

    assert {name: g.dtype for name, g in tg.jit(gradients)(x).items()} == dict.fromkeys(steps, x.dtype)
    second = tg.grad(
        lambda x: tnp.sum(tnp.real(tg.grad(lambda x: loss(STEPS["arithmetic"], x))(x)).astype(np.float32))
    )(x)
    assert second.dtype == x.dtype
    assert np.asarray(second, complex).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_narrow_gradients_stay_narrow_where_64_bits_are_on(dtype: str) -> None:
    with x64():
        x = np.array([0.3, 0.7], dtype)
        grads = tg.jit(
            tg.grad(
                lambda x: tnp.sum(tnp.real(tnp.exp(x) * 2 + x / 3 - 0.5) + tnp.abs(x) ** 1.5) + tnp.mean(tnp.abs(x))
            )
        )(x)
        assert grads.dtype == x.dtype
        theirs = jax.grad(
            lambda x: jnp.sum(jnp.real(jnp.exp(x) * 2 + x / 3 - 0.5) + jnp.abs(x) ** 1.5) + jnp.mean(jnp.abs(x))
        )(jnp.asarray(x))
        np.testing.assert_allclose(grads, theirs, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["int32", "uint8", "int4", "bool_"])
def test_integers_have_no_gradient(dtype: str) -> None:
    x = jnp.ones((2,), getattr(jnp, dtype))
    with pytest.raises(TypeError, match="only float or complex values have a gradient"):
        tg.grad(lambda x: tnp.sum(x * 1.0))(x)


@pytest.mark.parametrize("number", [True, 2, 0.5, 0.5j])
def test_weak_types_last_until_they_meet_a_strong_one(number: Any) -> None:
    def types(a: Any, numpy: Any) -> list[Any]:
        return [
            a + 1, numpy.sin(a * 1.0), numpy.where(True, a, 2), numpy.multiply(a, numpy.ones(2, jnp.bfloat16)),
            numpy.add(a, np.int8(1)), -(a * 2),
        ]  # fmt: skip

    tape = tg.trace(lambda number: types(number, tnp))(number)
    theirs = jax.eval_shape(lambda number: types(number, jnp), number)
    ours = [v.aval for v in tape.outputs]
    assert [(v.dtype, v.weak_type) for v in ours] == [(v.dtype, v.weak_type) for v in theirs]


WEAK: dict[str, Callable[[Any, Any, Any], Any]] = {
    "fori_loop": lambda t, np, b: t.fori_loop(0, 3, lambda i, c: c + 1.0, 0.0),
    "integer loop": lambda t, np, b: t.fori_loop(0, 3, lambda i, c: c + 1, 0),
    "scan": lambda t, np, b: t.scan(lambda c, _: (c + 1.0, c), 0.0, None, length=2)[1],
    "while_loop": lambda t, np, b: t.while_loop(lambda c: c < 3, lambda c: c + 1.0, 0.0),
    "cond": lambda t, np, b: t.cond(b[0] > 0, lambda: 1.0, lambda: 2.0),
    "map": lambda t, np, b: t.map(lambda a: 2.0, b),
    "vmap": lambda t, np, b: t.vmap(lambda a: 2.0)(b),
    "checkpoint": lambda t, np, b: t.checkpoint(lambda a: 2.0 * np.sin(a))(1.0),
    "jit": lambda t, np, b: t.jit(np.sin)(2.0),
    "a constant": lambda t, np, b: t.jit(lambda a: 2.0)(b),
    "gradient": lambda t, np, b: t.grad(lambda a: (a * np.ones(3)).sum())(1.0),
    "value": lambda t, np, b: t.value_and_grad(lambda a: a * 3.0)(2.0)[0],
    "reshape": lambda t, np, b: np.reshape(2.0, (1,)),
}
_LOOPS = ("fori_loop", "scan", "while_loop", "cond", "map")
JAX = SimpleNamespace(**{**vars(jax), **{name: getattr(jax.lax, name) for name in _LOOPS}})


@pytest.mark.parametrize("dtype", ["bfloat16", "int8", "float32"])
def test_numbers_in_bodies_and_results_of_transforms_give_way(dtype: str) -> None:
    b = jnp.ones(2, dtype)

    def every(t: Any, np: Any) -> Any:
        return lambda b: [(case(t, np, b), case(t, np, b) * b) for case in WEAK.values()]

    def types(results: Any) -> list[Any]:
        pairs = zip(WEAK, results, strict=True)
        return [(name, x.dtype, x.weak_type, y.dtype) for name, (x, y) in pairs]

    expected = types(every(JAX, jnp)(b))
    ours = every(tg, tnp)
    assert types(ours(b)) == expected
    assert types(tg.grad(lambda one: (one, ours(b)), has_aux=True)(1.0)[1]) == expected
    assert types(tg.jit(ours)(b)) == types(jax.jit(every(JAX, jnp))(b))
    assert types(jax.jit(ours)(b)) == types(jax.jit(every(JAX, jnp))(b))
    joined = tg.jit(lambda b: [tnp.concatenate([tnp.ravel(case(tg, tnp, b) * b), b]) for case in WEAK.values()])(b)
    assert len(joined) == len(WEAK)


JOINED: dict[str, Function] = {
    "stack": lambda np, a, b: np.stack([a, b]),
    "concatenate": lambda np, a, b: np.concatenate([np.reshape(a, (1,)), np.reshape(b, (1,))]),
    "result_type": lambda np, a, b: np.zeros(2, np.result_type(a, b)),
    "average": lambda np, a, b: np.average(np.stack([a, a]), weights=np.stack([b, b])),
    "polydiv": lambda np, a, b: np.polydiv(np.stack([a, a]), np.stack([b, b]))[0],
}


@pytest.mark.parametrize("name", JOINED)
def test_weak_values_do_not_widen_what_they_are_joined_with(name: str) -> None:
    fn = JOINED[name]
    for number in (2, 2.0):
        for other in (jnp.int8(1), jnp.uint8(1), jnp.float16(1), jnp.bfloat16(1)):
            expected = jax.jit(lambda a, b: fn(jnp, a, b))(number, other).dtype
            assert tg.jit(lambda a, b: fn(tnp, a, b))(number, other).dtype == expected
            assert fn(tnp, jnp.asarray(number), other).dtype == expected
