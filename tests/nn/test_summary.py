"""`nn.summary`: the rows of every call, and multiply-adds counted by hand."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

import tracegrad as tg
from tests.reference import check_message
from tracegrad import nn
from tracegrad.recording import state

KEY = tg.random.key(0)


@nn.layer
class Net:
    conv: nn.Conv
    norm: nn.BatchNorm
    blocks: nn.Stack
    head: dict[str, Any]

    def __call__(self, x: Any, run: Any = None) -> Any:
        # Convolved without a run: a row all the same.
        h = self.norm(nn.relu(self.conv(x)), run)
        h = self.blocks(h.reshape(h.shape[0], -1), run)
        return self.head["a"](h, run), self.head["a"](h, run)


def model() -> Net:
    return Net(
        nn.Conv.init(KEY, 3, 2, (3, 3), stride=2, groups=1),
        nn.BatchNorm.init(2),
        nn.Stack.init(KEY, 5, lambda k: nn.Residual(nn.Linear.init(k, 8, 8))),
        {"a": nn.Linear.init(KEY, 8, 3)},
    )


def test_rows() -> None:
    conv, stack, head = 4 * (2 * 2 * 2) * 27, 5 * 4 * 8 * 8, 4 * 8 * 3
    expected = [
        ("model", "Net", "f32[4,3], f32[4,3]", 56 + 4 + 5 * 72 + 27, conv + stack + 2 * head),
        ("model.conv", "Conv", "f32[4,2,2,2]", 3 * 3 * 3 * 2 + 2, conv),
        ("model.norm", "BatchNorm", "f32[4,2,2,2]", 4, 0),
        ("model.blocks", "Stack", "f32[4,8]", 5 * 72, stack),
        ("model.head['a']", "Linear", "f32[4,3]", 27, head),
        ("model.head['a']", "Linear", "f32[4,3]", 27, head),
    ]
    for x in (np.ones((4, 4, 4, 3), np.float32), jax.ShapeDtypeStruct((4, 4, 4, 3), np.float32)):
        rows = nn.summary(model(), x)
        assert [tuple(row) for row in rows] == expected
    assert state.watch is None and state.tape is None
    lines = repr(rows).splitlines()
    assert len(lines) == 2 + len(expected) and len({len(line) for line in lines}) == 1
    assert lines[2].split() == ["model", "Net", "f32[4,3],", "f32[4,3]", "447", f"{expected[0][-1]:,}"]


def test_multiply_adds_of_convolutions_and_branches() -> None:
    x = np.ones((2, 6, 4), np.float32)
    cost = lambda layer, x=x: nn.summary(layer, x)[0].multiply_adds  # noqa: E731
    assert cost(nn.Conv.init(KEY, 4, 6, (3,), groups=2)) == 2 * 6 * 6 * 3 * 2
    assert cost(nn.ConvTranspose.init(KEY, 4, 6, (3,), stride=2)) == 2 * 6 * 4 * 3 * 6
    one, two = np.ones((4, 4), np.float32), np.ones((4, 40), np.float32)
    branch = lambda x: tg.cond(x.sum() > 0, lambda x: x @ one, lambda x: (x @ two) @ two.T, x)  # noqa: E731
    assert cost(nn.Function(branch)) == 12 * 4 * 40 * 2
    assert cost(nn.Function(tg.jit(lambda x: x @ one))) == 12 * 4 * 4
    assert cost(nn.Function(lambda x: tg.fori_loop(0, 7, lambda i, x: x @ one, x))) == 7 * 12 * 4 * 4
    attention = lambda q: tg.numpy.einsum("bqd,bkd->bqk", q, q)  # noqa: E731
    assert cost(nn.Function(attention)) == 2 * 6 * 6 * 4


def test_what_is_refused() -> None:
    check_message(lambda: nn.summary({"a": 1}, np.ones(3)), TypeError, r"^summary: the model is dict")
    check_message(
        lambda: nn.summary(nn.Linear.init(KEY, 3, 2), np.ones(4)),
        ValueError,
        r"^Linear at model: .*takes 3|^summary.*takes 3",
    )
    assert state.watch is None
