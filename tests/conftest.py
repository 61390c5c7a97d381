"""What every test runs under: eight CPU devices, no help from JAX's autodiff, and verified tapes."""

from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jaxlib.version
import pytest

_FLAGS = {
    "--xla_force_host_platform_device_count": "8",
    # Each program of a test runs a few times on small arrays: what it costs is its compilation.
    # At this level XLA may round one value differently in two fusions: the derivative of a maximum then finds nothing
    # that equals it (so does jax.grad of jnp.max: inf). Nobody trains with it; what trains a model with MaxPool here
    # runs in a process of its own with XLA's defaults.
    "--xla_backend_optimization_level": "0",
    "--xla_cpu_parallel_codegen_split_count": "1",
}
if jaxlib.version.__version_info__ < (0, 11):
    _FLAGS["--xla_cpu_use_fusion_emitters"] = "false"
os.environ["XLA_FLAGS"] = " ".join(
    [flag for flag in os.environ.get("XLA_FLAGS", "").split() if flag.partition("=")[0] not in _FLAGS]
    + [f"{name}={value}" for name, value in _FLAGS.items()]
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax  # noqa: E402

_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_PACKAGE = os.path.join(_ROOT, "tracegrad") + os.sep
_TESTS = os.path.join(_ROOT, "tests") + os.sep
_JAX = os.path.dirname(os.path.abspath(jax.__file__)) + os.sep


class JaxAutodiffError(AssertionError):
    """The package called JAX's autodiff."""


def _caller(depth: int = 2) -> str:
    """Who asks: the file of the nearest frame of the package or of a test."""
    frame: Any = sys._getframe(depth)
    while frame is not None:
        filename = frame.f_code.co_filename
        if filename != __file__ and filename.startswith((_PACKAGE, _TESTS, "<doctest")):
            return str(filename)
        frame = frame.f_back
    return ""


def _forbid(owner: Any, name: str) -> Iterator[None]:
    """Makes `owner.name` raise for the package, and for nobody else."""
    original: Callable[..., Any] = getattr(owner, name)

    def guarded(*args: Any, **kwargs: Any) -> Any:
        if _caller().startswith(_PACKAGE):
            raise JaxAutodiffError(f"{getattr(owner, '__name__', owner)}.{name} was called from {_caller()}")
        return original(*args, **kwargs)

    guarded.__wrapped__ = original  # type: ignore[attr-defined]
    setattr(owner, name, guarded)
    yield
    setattr(owner, name, original)


def _forbid_construction(cls: type) -> Iterator[None]:
    """Makes `cls(...)` raise when a file of the package constructs one itself; JAX's own modules may."""
    original = cls.__init__  # type: ignore[misc]

    def guarded(self: Any, *args: Any, **kwargs: Any) -> None:
        frame: Any = sys._getframe(1)
        while frame is not None and "functools" in frame.f_code.co_filename:
            frame = frame.f_back
        if frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
            raise JaxAutodiffError(f"jax.{cls.__name__} was made at {frame.f_code.co_filename}:{frame.f_lineno}")
        original(self, *args, **kwargs)

    cls.__init__ = guarded  # type: ignore[misc]
    yield
    cls.__init__ = original  # type: ignore[misc]


def forbid_jax_autodiff() -> Iterator[None]:
    """JAX's autodiff raises when the package calls it, by its public names and by what these go through."""
    from jax._src.interpreters import ad

    names = ["grad", "value_and_grad", "vjp", "jvp", "linearize", "linear_transpose", "jacfwd", "jacrev", "hessian"]
    guards = [_forbid(jax, name) for name in names if hasattr(jax, name)]
    inner = [name for name in ("jvp", "vjp", "linearize", "backward_pass", "backward_pass3") if hasattr(ad, name)]
    assert {"jvp", "linearize"} <= set(inner), "this version of JAX differentiates by other functions: name them here"
    guards += [_forbid(ad, name) for name in inner]
    guards += [_forbid_construction(jax.custom_jvp), _forbid_construction(jax.custom_vjp)]
    for guard in guards:
        next(guard)
    yield
    for guard in reversed(guards):
        next(guard, None)


# From here on, so that what the package does when it is imported is watched too.
_watch = forbid_jax_autodiff()
next(_watch)


def share_ir_contexts(programs: int = 256) -> None:
    """Lets the programs that a thread lowers share an MLIR context, `programs` of them each.

    JAX 0.10 makes one for each: that takes longer than to lower most of the tests' programs, and its 1 MB lives as long
    as the program does. (JAX 0.11 shares one between ten.) Constants live as long as their context: hence a new one
    now and then.
    """
    from jax._src.interpreters import mlir

    make = mlir.make_ir_context
    # Loading a dialect into a context is not safe while another thread uses it.
    own = threading.local()

    def shared() -> Any:
        used = getattr(own, "used", 0)
        if used % programs == 0:
            own.context = make()
        own.used = used + 1
        return own.context

    mlir.make_ir_context = shared


share_ir_contexts()
# Collecting cycles after every 700 objects takes a twentieth of the time, and memory grows as little with this.
gc.set_threshold(20_000, 20, 50)

import tracegrad.verify  # noqa: E402

# Every pass and transform checks the tape that it returns.
tracegrad.verify.VERIFY = True


class Compiles:
    """How often XLA has compiled a program in this process."""

    count = 0


def _listen(event: str, duration_secs: float, **kwargs: Any) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
        Compiles.count += 1


jax.monitoring.register_event_duration_secs_listener(_listen)


@pytest.fixture
def compiles() -> Callable[[], int]:
    """A function that returns how many programs XLA has compiled since it was last called."""
    last = Compiles.count

    def since() -> int:
        nonlocal last
        before, last = last, Compiles.count
        return last - before

    return since


@pytest.fixture(autouse=True)
def no_tape_left_open() -> Iterator[None]:
    """No test leaves a recording open behind it."""
    from tracegrad.recording import state

    yield
    left, state.tape = state.tape, None
    assert left is None, "a tape was left recording"
