"""The example graphs: what its graphs say, and that it trains."""

from __future__ import annotations

import numpy as np
import pytest

import tracegrad as tg
from tracegrad.examples import graphs, treelstm

RUN = {0: lambda x: x, 1: lambda x, a: not a, 2: lambda x, a, b: (a and b, a or b, a != b)[x]}


@pytest.mark.parametrize("shared", [False, True])
def test_a_graph_says_what_its_expression_says(shared: bool) -> None:
    for expression in treelstm.drawn(np.random.default_rng(0), 40, (1, 5), 24):
        states: list[bool] = []
        for cell, children, *row in graphs.nodes_of(expression, shared):
            states.append(bool(RUN[cell](*(row or [None]), *[states[c] for c in children])))
        assert states[-1] == treelstm.value(expression)
        assert shared or len(states) == treelstm.size(expression)


def test_few_programs() -> None:
    rng = np.random.default_rng(0)
    known = treelstm.drawn(rng, 500, (1, 5), 24)
    some = [[graphs.nodes_of(known[i]) for i in rng.integers(500, size=50)] for _ in range(64)]
    assert len({tg.graph_plan(g).form for g in some}) <= 5


def test_it_trains(capsys: pytest.CaptureFixture[str]) -> None:
    graphs.main(["--epochs", "2", "--expressions", "60", "--batch-size", "30", "--width", "4"])
    out = capsys.readouterr().out
    assert "epoch 2: loss" in out
    assert "differs by at most" in out
    with pytest.raises(SystemExit):
        graphs.parse(["--expressions", "3"])
