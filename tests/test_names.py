"""Public modules show their public names and no others, and suggest the nearest to a name that is not there."""

from __future__ import annotations

import importlib
import inspect
import pickle
import re
import subprocess
import sys
from types import ModuleType

import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tracegrad import nn, optimizers


def public(module: ModuleType, found: dict[str, ModuleType]) -> dict[str, ModuleType]:
    """The module, and those that it names among its public names."""
    if module.__name__ not in found:
        found[module.__name__] = module
        for name in dir(module):
            if isinstance(value := getattr(module, name), ModuleType):
                public(value, found)
    return found


MODULES = public(tg, {}) | {m.__name__: m for m in (nn.functional,)}


def test_which_modules_are_public() -> None:
    paths = "numpy numpy.linalg numpy.fft lax nn nn.losses nn.functional optimizers initializers random scipy"
    paths += " scipy.special scipy.linalg parallel testing checkpoint_policies"
    assert {"tracegrad", *(f"tracegrad.{path}" for path in paths.split())} <= MODULES.keys()
    assert all(name.startswith("tracegrad") for name in MODULES), "a module of another package is shown"


@pytest.mark.parametrize("path", MODULES)
def test_what_dir_shows(path: str) -> None:
    module = MODULES[path]
    names = dir(module)
    assert names == sorted(set(module.__all__)) and len(module.__all__) == len(names)
    everything: dict[str, object] = {}
    exec(f"from {path} import *", everything)
    assert sorted(everything.keys() - {"__builtins__"}) == names
    for name in names:
        owner = getattr(getattr(module, name), "__module__", None) or ""
        assert not owner.startswith(("tracegrad.names", "functools", "inspect")), name
    # What its own functions are called is shown: nothing public is lost.
    for name, value in vars(module).items():
        if inspect.isfunction(value) and value.__module__ == path and not name.startswith("_") and value.__doc__:
            assert name in names or not re.search(r"Example:", value.__doc__), name


def test_private_names_do_not_leak() -> None:
    for module in MODULES.values():
        leaked = {"Any", "Callable", "Sequence", "abs_", "annotations", "aval_of", "describe", "here", "jnp", "literal"}
        assert not leaked & set(dir(module)), module.__name__


NEAREST = {
    "tracegrad.gard": "tracegrad.grad",
    "tracegrad.relu": "tracegrad.nn.relu",
    "tracegrad.sin": "tracegrad.numpy.sin",
    "tracegrad.Adam": "tracegrad.optimizers.adam",
    "tracegrad.numpy.soft_max": "tracegrad.nn.softmax",
    "tracegrad.numpy.cumlogsumexp": "tracegrad.lax.cumlogsumexp",
    "tracegrad.numpy.arrange": "tracegrad.numpy.arange",
    "tracegrad.numpy.linalg.cholesky_": "tracegrad.numpy.linalg.cholesky",
    "tracegrad.nn.losses.mean_squared_error": "tracegrad.nn.losses.squared_error",
    "tracegrad.nn.losses.cross_entropy": "tracegrad.nn.losses.categorical_cross_entropy",
    "tracegrad.optimizers.SGD": "tracegrad.optimizers.sgd",
    "tracegrad.random.normla": "tracegrad.random.normal",
    "tracegrad.lax.sigmoid": "tracegrad.nn.sigmoid",
}


@pytest.mark.parametrize("path", NEAREST)
def test_the_nearest_name_is_suggested(path: str) -> None:
    place, _, name = path.rpartition(".")
    with pytest.raises(AttributeError) as caught:
        getattr(MODULES[place], name)
    message = str(caught.value)
    assert message.startswith(f"module '{place}' has no attribute '{name}'. Did you mean ")
    assert NEAREST[path] in re.findall(r"[\w.]+\w", message.partition("Did you mean")[2])


def test_where_nothing_is_near() -> None:
    with pytest.raises(AttributeError, match=r"'mse'\. It has absolute_error, .*, squared_error\.$"):
        nn.losses.regression.mse  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(AttributeError, match=r"dir\(tracegrad.numpy\) lists what it has"):
        tnp.qqqqqq  # type: ignore[attr-defined]  # noqa: B018


def test_probes_find_what_they_did() -> None:
    for module in MODULES.values():
        for name in ("__path_of_no_module__", "_private", "__wrapped__", "__file_of_nothing__"):
            assert not hasattr(module, name)
            with pytest.raises(AttributeError, match=rf"has no attribute '{name}'$"):
                getattr(module, name)
        assert inspect.getdoc(module) and inspect.getsourcefile(module)
        assert pickle.loads(pickle.dumps(module.__name__)) in sys.modules
    assert pickle.loads(pickle.dumps(tg.grad)) is tg.grad
    assert pickle.loads(pickle.dumps(optimizers.adam)) is optimizers.adam
    with pytest.raises(ImportError):
        importlib.import_module("tracegrad.nothing")
    with pytest.raises(ImportError, match="gard"):
        exec("from tracegrad import gard")


def test_numpy_still_finds_its_functions() -> None:
    """The protocols look for a name that may be missing."""
    assert float(tg.grad(lambda x: np.tanh(x))(0.0)) == 1.0
    with pytest.raises(TypeError, match=r"tracegrad.numpy has no abs \(vectorized\)"):
        tg.grad(lambda x: np.frompyfunc(abs, 1, 1)(x))(1.0)


def test_type_checkers_know_the_names(tmp_path) -> None:
    pytest.importorskip("mypy")
    program = tmp_path / "program.py"
    program.write_text(
        "import tracegrad as tg\nimport tracegrad.numpy as tnp\nfrom tracegrad import nn, optimizers\n"
        "tg.grad; tnp.sin; tnp.linalg.solve; nn.relu; nn.losses.huber; optimizers.adam; tg.scipy.special.erf\n"
        "tg.gard\ntnp.soft_max\nnn.losses.mean_squared_error\n"
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), str(program)]
    out = subprocess.run(command, capture_output=True, text=True).stdout
    wrong = re.findall(r"program.py:(\d+): error: Module has no attribute \"(\w+)\"", out)
    assert wrong == [("5", "gard"), ("6", "soft_max"), ("7", "mean_squared_error")], out
