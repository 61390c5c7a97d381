"""The tape as text: what is shown, under which names, and whose lines it cites."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tests.test_errors import line_of

X = np.arange(6, dtype=np.float32).reshape(2, 3)


def loss(x: Any, w: Any) -> Any:
    h = x @ w  # the product
    return tnp.sum(h * h)


def test_a_line_a_node_with_shapes_dtypes_and_source() -> None:
    tape = tg.trace(loss)(X, X.T)
    lines = str(tape).splitlines()
    assert lines[0] == "loss(x:f32[2,3], w:f32[3,2])"
    assert len(lines) == len(tape) + 2
    first = line_of(loss)
    assert re.fullmatch(
        rf"  a:f32\[2,2\] = dot_general\[.*\] x w +#   test_show.py:{first + 1}  h = x @ w  # the product", lines[1]
    )
    assert re.match(rf"  b:f32\[2,2\] = mul a a +#   test_show.py:{first + 2}  return tnp.sum", lines[2])
    assert lines[-1] == "  return c:f32[]"


def test_gradient_nodes_are_marked_and_carry_the_line_they_are_the_gradient_of() -> None:
    lines = str(tg.trace(tg.grad(loss))(X, X.T)).splitlines()
    marked = [line for line in lines if "∇" in line]
    assert marked
    assert all("test_show.py" in line for line in marked)
    assert any("∇ test_show.py" in line and "h = x @ w" in line for line in marked)


def test_literals_bodies_and_weak_types_are_shown() -> None:
    @tg.jit
    def block(x: Any) -> Any:
        return x * 2.5

    tape = tg.trace(lambda y: block(y) + 1)(2.0)
    text = str(tape)
    assert "a:f32[]~ = call[body=block] y" in text
    assert "    | block(x:f32[]~)" in text
    assert re.search(r"add a 1 ", text)


def test_an_op_is_called_as_a_function_is() -> None:
    assert (tnp.tanh.__name__, tg.Op.__name__) == (np.tanh.__name__, "Op")
    assert "call[body=tanh] " in str(tg.trace(tg.jit(tnp.tanh))(1.0))


def test_many_values_have_names_of_several_letters() -> None:
    def long(x: Any) -> Any:
        for _ in range(30):
            x = x + x
        return x

    assert re.search(r"  ae:f32\[\]~? = add ad ad", str(tg.trace(long)(1.0))), "x is taken"


# -- what is shown


def test_what_no_result_needs_is_counted_and_not_shown() -> None:
    tape = tg.trace(tg.grad(loss))(X, X.T)
    text, whole = str(tape), tape.text(whole=True)
    assert "alias x" not in text and " = sum[" not in text
    assert text.splitlines()[-1] == "  # not shown: 2 steps that no result needs"
    assert "alias x" in whole and " sum[" in whole and "not shown" not in whole
    assert len(whole.splitlines()) == len(tape) + 2
    # With the value, there is a use for the loss.
    both = str(tg.trace(tg.value_and_grad(loss))(X, X.T))
    assert " sum[" in both and "not shown" not in both
    assert str(tg.trace(lambda x: (tnp.sin(x), x)[1])(1.0)).endswith(
        "return x:f32[]~\n  # not shown: 1 step that no result needs"
    )


def test_an_alias_is_shown_as_what_it_is_an_alias_of() -> None:
    lines = str(tg.trace(tg.grad(tg.grad(lambda x: x**3)))(2.0)).splitlines()
    assert lines[0] == "<lambda>(x:f32[]~)" and "alias" not in "".join(lines)
    assert re.match(r"  \w+:f32\[\]~? = .* x", lines[1])
    assert str(tg.trace(lambda x: tnp.array(x))(X)).splitlines()[1] == "  return x:f32[2,3]"


# -- names


class Model:
    def __call__(self, x: Any) -> Any:
        return x * 2

    def method(self, x: Any, y: Any = 1.0) -> Any:
        return x * y


def varied(params: Any, *xs: Any, scale: Any = 1.0, **others: Any) -> Any:
    return params["w"] * params["layers"][0][1] + xs[0] + xs[1] * scale + others["b"]


def hidden(params: Any) -> Any:
    a = tg.tap("hidden", params)
    return tg.tap("hidden", a) + a


def shadowed(a: Any, b: Any) -> Any:
    return (a + b) * b


PARAMS = {"w": 1.0, "layers": [(2.0, 3.0)]}

HEADS: dict[str, tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], str]] = {
    "pytrees, *args and **kwargs": (
        varied, (PARAMS, 1.0, 2.0), {"b": 1.0, "scale": 2.0},
        "params_layers_0_0 params_layers_0_1 params_w xs_0 xs_1 b scale",
    ),
    "transformed": (tg.vmap(tg.grad(lambda x, y: x * y)), (X[0], X[1]), {}, "x y"),
    "jit": (tg.jit(loss), (X, X.T), {}, "x w"),
    "a method": (Model().method, (1.0, 2.0), {}, "x y"),
    "an object": (Model(), (1.0,), {}, "x"),
    "a partial": (functools.partial(loss, X), (X.T,), {}, "w"),
    "a transformed partial": (tg.grad(functools.partial(loss, X)), (X.T,), {}, "w"),
    "not Python": (np.add, (1.0, 2.0), {}, "a b"),
    "two of a name": (lambda a, a_0: a[0] + a_0, ([1.0], 2.0), {}, "a_0 a_0_2"),
    "keys that are no identifiers": (lambda p: p["1 + 1"] + p["é"], ({"1 + 1": 1.0, "é": 2.0},), {}, "p_1_1 p_é"),
}  # fmt: skip


@pytest.mark.parametrize("case", HEADS)
def test_inputs_are_called_after_the_arguments(case: str) -> None:
    fun, args, kwargs, names = HEADS[case]
    tape = tg.trace(fun)(*args, **kwargs)
    head = str(tape).splitlines()[0]
    assert [part.partition(":")[0] for part in re.findall(r"[^\s(,]+:", head)] == names.split()
    assert len(set(names.split())) == len(tape.inputs)


def test_letters_avoid_the_names_of_arguments() -> None:
    lines = str(tg.trace(shadowed)(1.0, 2.0)).splitlines()
    assert lines[1].startswith("  c:f32[]~ = add a b") and lines[2].startswith("  d:f32[]~ = mul c b")


def test_taps_are_called_by_their_names() -> None:
    text = str(tg.trace(hidden)(1.0))
    assert "hidden:f32[]~ = tap[name=hidden] params " in text
    assert "hidden_2:f32[]~ = tap[name=hidden] hidden " in text
    assert "add hidden_2 hidden " in text


def test_bodies_have_names_of_their_own() -> None:
    def run(w: Any, xs: Any) -> Any:
        def step(h: Any, row: Any) -> Any:
            return h * w + row, None

        return tg.scan(step, xs[0], xs)[0].sum()

    assert re.search(r"\| step\(h:f32\[3\], row:f32\[3\], \w:f32\[\]~?\)", str(tg.trace(run)(2.0, X)))
    remat = str(tg.trace(tg.checkpoint(loss))(X, X.T))
    assert "| loss(x:f32[2,3], w:f32[3,2])" in remat
    loop = tg.trace(lambda v: tg.while_loop(lambda v: v < 9.0, lambda value: value * v, v))(2.0)
    assert re.search(r"\| <lambda>\(value:f32\[\]~?, \w:f32", str(loop))


def test_names_hold_nothing_of_the_function() -> None:
    import gc
    import weakref

    def make() -> tuple[Any, Any]:
        big = np.ones(10)
        fun = lambda x: x * big.size  # noqa: E731
        return tg.trace(fun)(1.0), weakref.ref(fun)

    tape, fun = make()
    gc.collect()
    assert fun() is None
    assert str(tape).startswith("<lambda>(x:f32")


# -- cells of a notebook

CELLS = [
    "def loss(w):\n    y = np.sin(w)\n    return (y * y).sum()",
    "print(tg.trace(tg.grad(loss))(1.0))",
    "try:\n    tg.jit(lambda x: float(loss(x)))(1.0)\nexcept TypeError as error:\n    print(error)",
]


def test_a_cell_is_cited_by_its_number(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shells = pytest.importorskip("IPython.core.interactiveshell")
    config = pytest.importorskip("traitlets.config").Config({"HistoryManager": {"enabled": False}})
    shell = shells.InteractiveShell.instance(config=config, ipython_dir=str(tmp_path))
    try:
        shell.push({"np": np, "tg": tg})
        for cell in CELLS:
            shell.run_cell(cell, store_history=True).raise_error()
    finally:
        shells.InteractiveShell.clear_instance()
    tape, _, message = capsys.readouterr().out.partition("not shown")
    assert "#   In [1]:2  y = np.sin(w)" in tape
    assert "# ∇ In [1]:3  return (y * y).sum()" in tape
    assert "at In [3]:2 (<lambda>)" in message
    assert "It was computed by sum at In [1]:3 (loss)" in message
