"""What processes agree on: here each is a thread, and the store of JAX's coordination service a dict."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tests.parallel.several import ROOT
from tracegrad import optimizers, train
from tracegrad.parallel import ProcessesError
from tracegrad.parallel import store as texts
from tracegrad.train import agreement, together
from tracegrad.train.signals import INTERRUPTED, TERMINATED, heard
from tracegrad.train.sources import Source
from tracegrad.train.together import Together


class Store:
    """A store of texts by key, as JAX's client has it (jaxlib 0.10)."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.changed = threading.Condition()

    def key_value_set(self, key: str, value: str, allow_overwrite: bool = False) -> None:
        with self.changed:
            if key in self.texts and not allow_overwrite:
                raise jax.errors.JaxRuntimeError("ALREADY_EXISTS")
            self.texts[key] = value
            self.changed.notify_all()

    def blocking_key_value_get(self, key: str, timeout_in_ms: int) -> str:
        with self.changed:
            if not self.changed.wait_for(lambda: key in self.texts, timeout_in_ms / 1000):
                raise jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED: no such key")
            return self.texts[key]

    def key_value_increment(self, key: str, by: int) -> int:
        with self.changed:
            self.texts[key] = str(int(self.texts.get(key, "0")) + by)
            return int(self.texts[key])

    def key_value_delete(self, key: str) -> None:
        with self.changed:
            self.texts = {k: v for k, v in self.texts.items() if k != key and not k.startswith(f"{key}/")}

    def key_value_dir_get(self, key: str) -> list[tuple[str, str]]:
        with self.changed:
            return [(k, v) for k, v in self.texts.items() if k.startswith(key)]


Run = Callable[[int, Callable[[int], Any]], list[Any]]


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a function in so many threads that take themselves for processes: what each returns or raises."""
    here = threading.local()
    ended: list[int] = []

    def run(count: int, fun: Callable[[int], Any]) -> list[Any]:
        store = Store()
        for module in (texts, agreement, together):
            monkeypatch.setattr(module, "store", lambda: store)
        monkeypatch.setattr(agreement, "count", lambda: count)
        monkeypatch.setattr(agreement, "index", lambda: here.index)
        monkeypatch.setattr(Together, "_end_process", lambda self: ended.append(self._index))
        found: list[Any] = [None] * count

        def process(index: int) -> None:
            here.index = index
            try:
                found[index] = fun(index)
            except BaseException as error:
                found[index] = error

        threads = [threading.Thread(target=process, args=(i,), daemon=True) for i in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in threads), "one waits for ever"
        assert ended == []
        return found

    return run


def test_the_first_decides_for_all(processes: Run) -> None:
    assert processes(3, lambda i: agreement.first("a", lambda: [i, {"b": "c"}])) == [[0, {"b": "c"}]] * 3
    assert processes(3, lambda i: agreement.gather("a", i * 1.5)) == [[0, 1.5, 3]] * 3
    assert processes(3, lambda i: agreement.all_well("a", lambda: i)) == [0, 1, 2]

    def fail(i: int) -> Any:
        raise (FileNotFoundError if i == 0 else KeyError)("none there")

    found = processes(2, lambda i: agreement.first("a", lambda: fail(i), errors=(FileNotFoundError,)))
    assert [type(e) for e in found] == [FileNotFoundError] * 2 and str(found[1]) == "process 0 of 2: none there"
    found = processes(2, lambda i: agreement.first("a", lambda: fail(i)))
    assert type(found[1]) is ProcessesError and "FileNotFoundError: none there" in str(found[1])
    found = processes(3, lambda i: agreement.all_well("a", lambda: fail(1) if i == 1 else i, error=OSError))
    assert [type(e) for e in found] == [OSError, KeyError, OSError] and "process 1 of 3: KeyError" in str(found[0])
    found = processes(2, lambda i: agreement.gather(f"saving step {i}", i))
    assert "process 1 of 2 is at: saving step 1; and process 0 at: saving step 0" in str(found[0])


def test_what_was_agreed_on_is_not_kept(processes: Run) -> None:
    def many(i: int) -> None:
        for step in range(50):
            agreement.first("a", lambda step=step: step)
            assert agreement.gather("b", step) == [step, step]

    assert processes(2, many) == [None, None]
    assert len(agreement.store().texts) <= 6


def test_who_is_waited_for_is_said(processes: Run, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(agreement, "_LONG", 0.2)
    monkeypatch.setattr(agreement, "_PATIENCE", 0.05)
    assert processes(2, lambda i: (time.sleep(0.6 * i), agreement.gather("the end", i))[1]) == [[0, 1]] * 2
    assert capsys.readouterr().err == "process 0 of 2 waits for process 1 at: the end. All have to come there.\n"


def training(index: int, until: int, pause: float, script: Callable[[Together, int], None]) -> tuple[int, str]:
    """Steps, as `fit` has them: which was the last, and why."""
    step, why = 0, ""
    begun = [0]
    with Together(lambda: begun[0], lambda: None) as others:
        while step < until and not why:
            begun[0] = step + 1
            time.sleep(pause)
            step += 1
            script(others, step)
            why = others.reached(step)
        others.end(step)
    return step, why


@pytest.mark.parametrize("seed", range(4))
def test_all_stop_after_the_same_step_as_soon_as_they_can(processes: Run, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pauses, asking, at = rng.uniform(0.0005, 0.004, 3), rng.integers(0, 3, 2), int(rng.integers(1, 200))

    def script(others: Together, step: int) -> None:
        if step == at and others._index in asking:
            others.ask(f"asked by {others._index}")

    found = processes(3, lambda i: training(i, 100_000, pauses[i], script))
    assert len(set(found)) == 1 and found[0][1].startswith("asked by ") and found[0][0] >= at


def test_nobody_asks(processes: Run) -> None:
    assert processes(3, lambda i: training(i, 50, 0.001 * i, lambda *_: None)) == [(50, "")] * 3


def test_an_error_in_one_is_that_of_all(processes: Run) -> None:
    def script(others: Together, step: int) -> None:
        if others._index == 1 and step == 20:
            raise OSError("the disk is gone")

    found = processes(3, lambda i: training(i, 100_000, 0.001, script))
    assert [type(e) for e in found] == [ProcessesError, OSError, ProcessesError]
    assert str(found[0]) == "process 1 of 3 has failed: OSError: the disk is gone"


def test_the_same_error_in_all_stays_that(processes: Run) -> None:
    def script(others: Together, step: int) -> None:
        if step == 20:
            time.sleep(0.2 * others._index)
            raise ArithmeticError("not finite")

    assert [type(e) for e in processes(3, lambda i: training(i, 100, 0.001, script))] == [ArithmeticError] * 3


def test_epochs_and_ends_that_differ(processes: Run) -> None:
    def epochs(others: Together, step: int) -> None:
        if step % (20 + others._index) == 0:
            others.end_epoch(step // (20 + others._index), step)

    found = processes(2, lambda i: training(i, 100_000, 0.002, epochs))
    for error in found:
        assert (
            type(error) is ProcessesError
            and "ended after " in str(error)
            and "the same number of batches" in str(error)
        )
    found = processes(2, lambda i: training(i, 100 + 50 * i, 0.01, lambda *_: None))
    for error in found:
        assert type(error) is ProcessesError and "the training ended after 1" in str(error)


def test_what_is_measured_is_that_of_the_first(processes: Run) -> None:
    def measure(i: int, values: list[dict[str, float]], losses: list[float]) -> Any:
        with Together(lambda: 0, lambda: None) as others:
            return others.alike(3, values[i], {"loss": losses[i]})

    def run(values: list[dict[str, float]], losses: list[float]) -> list[Any]:
        return processes(2, lambda i: measure(i, values, losses))

    nan = float("nan")
    alike = [{"a": 1.0, "b": nan}, {"a": 1 + 1e-7, "b": nan}]
    assert str(run(alike, [2.0, 2.0])) == "[{'a': 1.0, 'b': nan}, {'a': 1.0, 'b': nan}]"
    for error in run([{"a": 1.0}, {"a": 1.1}], [2.0, 2.0]):
        assert "after step 3, validate gave a = 1 in process 0, and 1.1 in process 1 of 2" in str(error)
        assert "train.evaluate" in str(error)
    for error in run([{}, {}], [2.0, 2.5]):
        assert "the step gave loss = 2 in process 0" in str(error) and "give parallel=" in str(error)
    for error in run([{"a": 1.0}, {}], [2.0, 2.0]):
        assert "validate gave a = 1 in process 0, and nan in process 1" in str(error)


def test_evaluating_is_over_the_batches_of_all(processes: Run) -> None:
    x = np.arange(10.0)

    def evaluate(i: int) -> Any:
        return train.evaluate(lambda x: {"mean": x.mean(), "square": (x**2).mean()}, [x[:3], x[3:4]] if i else [x[4:]])

    expected = {"mean": x.mean(), "square": (x**2).mean()}
    for found in processes(2, evaluate):
        assert found == pytest.approx(expected, rel=1e-15)
    for error in processes(2, lambda i: train.evaluate(lambda x: x.mean(), [x] if i else [])):
        assert "evaluate: there is no batch" in str(error)


def test_positions_of_all(processes: Run) -> None:
    def position(i: int, of: Any) -> Any:
        with Together(lambda: 0, lambda: None) as others:
            return others.positions(4, of(i))

    assert processes(2, lambda i: position(i, lambda i: {"kind": "count"})) == [{"kind": "count"}] * 2
    own = processes(2, lambda i: position(i, lambda i: {"kind": "count", "count": i, "batch": None}))
    assert own[0] == {"kind": "each", "of": [{"kind": "count", "count": i, "batch": None} for i in (0, 1)]}
    (error, _) = processes(2, lambda i: position(i, lambda i: {"kind": b""}))
    assert "more than numbers and texts" in str(error)

    def go_to(i: int) -> int:
        source = Source([(np.zeros(2),)] * 3, lambda: None)
        source.go_to(own[0])
        return len(list(source.epoch()))

    assert processes(2, go_to) == [3, 2]
    for error in processes(3, go_to):
        assert "a position in the data of each of 2 processes, and there are 3" in str(error)


def test_batches_are_compared_as_those_of_all(processes: Run) -> None:
    """A part is another one with other processes."""
    x = np.zeros((24, 3), np.float32)

    def positions(i: int) -> Any:
        source = Source(train.data.DataLoader((x,), 12, processes=(i, 2)), lambda: None)
        next(source.epoch())
        return source.position()

    saved = json.loads(json.dumps(processes(2, positions)[1]))
    assert saved["batch"][1] == [[[12, 3], "float32"]]

    def go_on(i: int, size: int) -> list[Any]:
        source = Source(train.data.DataLoader((x,), size, processes=(i, 3)), lambda: None)
        source.go_to(saved)
        return [batch[0].shape for batch in source.epoch()]

    assert processes(3, lambda i: go_on(i, 12)) == [[(4, 3)]] * 3
    for error in processes(3, lambda i: go_on(i, 6)):
        assert "batches of (float32[12,3]), and these are of (float32[6,3])" in str(error)


# -- signals, in one process


def test_signals_are_heard_and_given_back() -> None:
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    asked: list[str] = []
    theirs: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: theirs.append(number))
    try:
        with heard(asked.append, quiet=True):
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(1)
        assert asked == [TERMINATED, INTERRUPTED] and theirs == [signal.SIGTERM]
        os.kill(os.getpid(), signal.SIGTERM)
        assert len(theirs) == 2
    finally:
        signal.signal(signal.SIGTERM, before[1])
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with heard(lambda why: pytest.fail(why)):
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


TERMINATING = """
import os, signal, sys
import numpy as np
from tracegrad import optimizers, train

class Terminate(train.Callback):
    def on_step(self, loop):
        if loop.step == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGTERM)

x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
result = train.fit(lambda w, x: ((w - x) ** 2).mean(), np.zeros(3, np.float32), train.data.DataLoader((x,), 8),
    optimizers.adam(0.1), epochs=3, callbacks=[Terminate()], checkpoints=sys.argv[1], resume=True, progress=False)
print(repr(result.stopped), int(result.state.step), result.params.tolist())
"""


def test_sigterm_saves_and_ends_cleanly(tmp_path: Path) -> None:
    def go(folder: Path, at: int) -> tuple[str, str]:
        command = [sys.executable, "-c", TERMINATING, str(folder), str(at)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        ended = subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout, ended.stderr

    out, err = go(tmp_path / "run", 7)
    assert (
        out.startswith("'terminated by SIGTERM' 7 ") and "terminated by SIGTERM: the step that runs is the last" in err
    )
    assert train.Checkpoints(tmp_path / "run").latest() == 7
    assert go(tmp_path / "run", -1)[0] == go(tmp_path / "whole", -1)[0]


def test_early_stopping_does_not_put_weights_back_that_are_gone_on_with() -> None:
    class Terminate(train.Callback):
        def on_epoch(self, loop: Any) -> None:
            if loop.epoch == 2:
                os.kill(os.getpid(), signal.SIGTERM)

    stopping = train.EarlyStopping("loss", mode="max", patience=9, restore_best_weights=True)
    batches = train.data.DataLoader((np.ones((4, 2), np.float32),), 4)
    result = train.fit(
        lambda w, x: ((w - x) ** 2).mean(), np.zeros(2, np.float32), batches, optimizers.sgd(0.1), epochs=5,
        callbacks=[stopping, Terminate()], progress=False,
    )  # fmt: skip
    assert result.stopped == TERMINATED and result.history["loss"].shape == (2,)
    np.testing.assert_allclose(result.params, 1 - 0.9**2, rtol=1e-6)
