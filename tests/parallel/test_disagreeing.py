"""Several processes that do not do the same: each is told, in each process, by which of them and in what it differs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tracegrad import optimizers, train
from tracegrad.parallel import Ordered

from .running import Running

pytestmark = pytest.mark.xdist_group("processes")

CASES = """
import sys, time
import jax, numpy as np
import tracegrad as tg
from tracegrad import optimizers, parallel, train

own = parallel.initialize(heartbeat_seconds=20, timeout_seconds=60)
i = own.process_id
rng = np.random.default_rng(0)
x, w = rng.normal(size=(4, 3)).astype(np.float32), np.ones(3, np.float32)
sgd = optimizers.sgd(0.1)

def loss(w, x):
    return ((x @ w - 1) ** 2).mean()

def other(w, x):
    return ((x @ w - 1) ** 2).mean() * (1 + i)

def trained(fun=loss, w=w, x=x, optimizer=sgd, steps=1, **options):
    step = train.data_parallel(fun, optimizer, **options)
    state = step.place(train.TrainState.create(w, optimizer))
    for _ in range(steps):
        state, value = step(state, *(x if isinstance(x, tuple) else (x,)))
    return state, value

def fitted(fun=loss, w=w, x=x, optimizer=sgd, **options):
    return train.fit(fun, w, [(x,)] * 3, optimizer, progress=False, parallel={"gradients": "ordered"}, **options)

mapped = tg.pmap(lambda w, x: (w * x).sum(), "i", in_axes=(None, 0))
cases = {
    "seeds": lambda: trained(w=w + i),
    "seeds in fit": lambda: fitted(w={"layer": {"w": w + i}}, fun=lambda p, x: loss(p["layer"]["w"], x)),
    "one value in pmap": lambda: mapped(w + (i == 1) * np.float32(2) ** -23, x[:2]),
    "shapes": lambda: trained(x=x[: 4 - i]),
    "dtypes": lambda: trained(x=x.astype([np.float32, np.float16][i])),
    "parameters": lambda: trained(w=np.ones(3 + i, np.float32)),
    "loss": lambda: trained(other),
    "strict loss": lambda: trained(other, gradients="ordered"),
    "loss in pmap": lambda: tg.pmap(lambda w, x: (w * x).sum() * (1 + i), "i", in_axes=(None, 0))(w, x[:2]),
    "learning rate": lambda: trained(optimizer=optimizers.sgd(0.1 * (1 + i)), steps=2, gradients="ordered"),
    "given whole": lambda: trained(lambda w, x, c: loss(w, x) * c, x=(x, np.float32(i))),
    "a mesh of 0": lambda: trained(devices=jax.devices()[:2]),
    "pmap on 0": lambda: tg.pmap(lambda x: x, devices=jax.devices()[:2])(x[:2]),
    "pmap on few": lambda: tg.pmap(lambda x: x)(jax.device_put(x[:1], jax.local_devices()[0])),
    "too many": lambda: trained(devices=8),
    "alike": lambda: trained(x=x[: 1])[1].addressable_data(0).item() == np.float32(((x[:1] @ w - 1) ** 2).mean()),
}
for name, case in cases.items():
    begun = time.monotonic()
    try:
        said = case()
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    print(f"{name}: {time.monotonic() - begun:.1f} s: {said}".replace("\\n", " "), flush=True)
"""

SAID = {
    "seeds": r"process 1 differs from process 0: the values of params differ",
    "seeds in fit": r"process 1 differs from process 0: the values of params\.layer\.w differ",
    "one value in pmap": r"process 1 differs from process 0: the values of .* differ",
    "shapes": r"the shapes and dtypes of the batch.*in process 1 and .*in process 0",
    "dtypes": r"the shapes and dtypes of the batch.*float16.*in process 1 and .*float32.*in process 0",
    "parameters": r"params is float32\[4\].* in process 1 and float32\[3\].* in process 0",
    "loss": r"the program of a step.*process 1 differs from process 0",
    "strict loss": r"the program of a step.*process 1 differs from process 0",
    "loss in pmap": r"the program of .*process 1 differs from process 0",
    "learning rate": r"the state before step 2 of this run.*the values of params differ",
    "given whole": r"what of the batch is given whole.*process 1 differs from process 0",
    "a mesh of 0": r"the mesh of 2 devices has none of process 1",
    "pmap on 0": r"the mesh of 2 devices has none of process 1",
    "pmap on few": r"the mesh of 1 devices has none of process 1",
    "too many": r"devices=8, and there are 4 cpu devices",
    "alike": r"True",
}


def test_who_differs_is_named(tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_text(CASES)
    with Running(["--processes", 2, "--devices-per-process", 2, "--max-restarts", 0], [path]) as run:
        assert run.end(100) == 0, run.text()
    for i in range(2):
        said = dict(re.findall(rf"^\[{i}\] (.*?): [\d.]+ s: (.*)$", "\n".join(line for _, line in run.lines), re.M))
        assert said.keys() == SAID.keys()
        for name, pattern in SAID.items():
            assert re.search(pattern, said[name]), (name, said[name])


TERMS: dict[str, tuple[Any, str, str]] = {
    "the same": ({"gradients": Ordered(4)}, "", ""),
    "other devices": ({"gradients": Ordered(4), "devices": 4}, "", ""),
    "other shards": ({"gradients": Ordered(8)}, r"shards: 4 then, 8 now.*Give the gradients= that", ""),
    "fused": ({"gradients": Ordered(4, "fused")}, r"Ordered\(.*strict.* then, .*Ordered\(.*fused.* now", ""),
    "threads": ({"gradients": Ordered(4)}, "", r"\(threads: \d+ then, 77 now\).*the bits are not those"),
    "no promise": ({"gradients": "all_reduce"}, "", ""),
    "without": (None, "", r"was trained with parallel=.*Ordered.*the bits are not those"),
    "another model": ({"gradients": Ordered(4)}, r"w is float32\[3\] in the checkpoint, and float32\[2\] here", ""),
}


@pytest.mark.parametrize("case", TERMS)
def test_a_checkpoint_of_other_terms(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    parallel, error, said = TERMS[case]
    batches = [(np.arange(24, dtype=np.float32).reshape(8, 3) / 24,)] * 2

    def fit(parallel: Any, w: Any, batches: Any, **options: Any) -> train.FitResult:
        def loss(params: Any, x: Any) -> Any:
            return ((x @ params["w"] - 1) ** 2).mean()

        sgd = optimizers.sgd(0.1)
        return train.fit(loss, {"w": w}, batches, sgd, progress=False, parallel=parallel, **options)

    ones = np.ones(3, np.float32)
    fit({"gradients": Ordered(4), "devices": 2}, ones, batches, checkpoints=tmp_path)
    capsys.readouterr()
    if case == "threads":
        monkeypatch.setenv("NPROC", "77")
    w, more = (ones[:2], [(x[:, :2],) for (x,) in batches]) if case == "another model" else (ones, batches)
    options = {"checkpoints": tmp_path, "resume": True, "epochs": 2}
    if error:
        with pytest.raises(train.CheckpointError, match=error):
            fit(parallel, w, more, **options)
        return
    result = fit(parallel, w, more, **options)
    assert int(result.state.step) == 4
    err = capsys.readouterr().err
    assert re.search(said, err) if said else not err
    if case in ("the same", "other devices"):
        whole = fit({"gradients": Ordered(4), "devices": 1}, ones, batches, epochs=2)
        np.testing.assert_array_equal(result.params["w"], whole.params["w"])
