"""Where an error is the user's, and how its message says so. Uses types alone."""

from __future__ import annotations

import ast
import dis
import itertools
import linecache
import os
import sys
import sysconfig
from types import CodeType, FrameType
from typing import Any

import numpy as np

from .names import Namespace
from .tape import Source, Var, aval_of

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_EXAMPLES = os.path.join(_PACKAGE, "examples") + os.sep

_LIBRARIES = ("site-packages/numpy", "site-packages/scipy", "jax/_src")


class _Internal(dict[str, bool]):
    """Whether code of this file is the package's own, or of a library under it; the examples count as a user's."""

    def __missing__(self, filename: str) -> bool:
        internal = filename.startswith(_PACKAGE) and not filename.startswith(_EXAMPLES)
        internal = internal or any(f"/{part}/" in filename.replace(os.sep, "/") for part in _LIBRARIES)
        self[filename] = internal
        return internal


INTERNAL = _Internal()


def source_position(source: Source | None) -> tuple[str, int, str]:
    """File name, line number and function name of a place in the user's code."""
    if source is None:
        return "<unknown>", 0, "<unknown>"
    code, offset = source
    lines = list(code.co_positions())
    line = lines[offset // 2][0] if offset // 2 < len(lines) else code.co_firstlineno
    return code.co_filename, line or code.co_firstlineno, code.co_name


def cell_of(filename: str) -> str | None:
    """`In [3]`, if that is the cell of a notebook or of an IPython session that code of this file name was typed in."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    named = shell.compile.format_code_name(filename) if shell is not None else None
    return named[1].replace("In[", "In [") if named is not None else None


def describe_source(source: Source | None) -> str:
    """File, line, function and the text of the line, for messages."""
    filename, line, function = source_position(source)
    text = linecache.getline(filename, line).strip()
    return f"{cell_of(filename) or filename}:{line} ({function})" + (f" `{text}`" if text else "")


_INSTALLED = tuple(os.path.join(sysconfig.get_path(name), "") for name in ("stdlib", "platlib", "purelib"))


def user_source(frame: FrameType | None = None) -> Source | None:
    """The place in the user's code that led here: past installed packages, where there is any beyond them."""
    nearest = None
    f = frame if frame is not None else sys._getframe(1)
    while f is not None:
        filename = f.f_code.co_filename
        # The `__init__` that a dataclass is given has no file.
        if not INTERNAL[filename] and (filename, f.f_code.co_name) != ("<string>", "__init__"):
            nearest = nearest or (f.f_code, f.f_lasti)
            if not filename.startswith(_INSTALLED) and not filename.startswith("<frozen "):
                return (f.f_code, f.f_lasti)
        f = f.f_back  # type: ignore[assignment]
    return nearest


def here() -> str:
    """`at file:line (function): text`, for the user's line that led here."""
    return "at " + describe_source(user_source(sys._getframe(1)))


_NAMESPACES = (
    "activations", "initializers", "lax", "metrics", "nn", "numpy", "optimizers", "parallel", "random", "schedules",
    "scipy", "train",
)  # fmt: skip
_PRIVATE = ("errors", "nn.losses.arguments", "numpy.arguments", "numpy.protocols")


def called() -> str:
    """The public function through which the user's line led here, by the name under which it was called.

    It is found in the frames between here and there, so that no function says its own name: of those that a public
    namespace has, the one next to the user. An operator has none; then it is what the frame there is called.
    """
    return caller()[0]


def caller() -> tuple[str, Any]:
    """`called()`, and the function or the op itself; `None` if no public one is on the way."""
    frames: list[FrameType] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and INTERNAL[frame.f_code.co_filename]:
        frames.append(frame)
        frame = frame.f_back
    functions = _public()
    for f in reversed(frames):
        names = [(name, value) for name, value in functions.get(f.f_code, ()) if _runs(value, f)]
        if not names and f.f_code.co_qualname == "Op.__call__":
            op = f.f_locals["self"]
            names = [(op.name, op)] + [(name, op) for name, value in functions.get(None, ()) if value is op]
        if not names and f.f_code.co_qualname == "_Made.__call__":
            names = [(f.f_locals["self"].name, f.f_locals["self"])]
        if names:
            text = (
                _callee(frame).rpartition(".")[2] if len({name for name, _ in names}) > 1 and frame is not None else ""
            )
            own = getattr(names[0][1], "__name__", names[0][0])
            return next((n for wanted in (text, own) for n in names if n[0] == wanted), names[0])
    outermost = next(f for f in reversed(frames) if f.f_code.co_filename.startswith(_PACKAGE))
    return outermost.f_code.co_name.strip("_"), None


def _public() -> dict[CodeType | None, list[tuple[str, Any]]]:
    """The names and functions of the public namespaces, by their code; the ops among them under `None`."""
    package = __package__ or ""
    private = [f"{package}.{name}" for name in _PRIVATE]
    found: dict[CodeType | None, list[tuple[str, Any]]] = {}
    for name, module in sorted(sys.modules.items()):
        part = name.removeprefix(f"{package}.")
        if part == name or part.partition(".")[0] not in _NAMESPACES:
            continue
        listed = getattr(module, "__all__", None)
        for key in listed or list(vars(module)):
            value = vars(module).get(key)  # No `getattr`, which imports modules.
            if isinstance(value, Namespace):
                for part in dir(value):
                    function = getattr(value, part)
                    found.setdefault(function.__code__, []).append((f"{key}.{part}", function))
                continue
            code = getattr(value, "__code__", None)
            if getattr(value, "__module__", None) in private:
                continue
            if not listed and code is not None and value.__module__ != name:
                continue  # It is only used there.
            if not key.startswith("_") and (code is not None or hasattr(value, "lower")):
                found.setdefault(code, []).append((key, value))
            if isinstance(value, type) and value.__module__ == name:
                for method, function in vars(value).items():
                    function = getattr(function, "__func__", function)
                    if hasattr(function, "__code__"):
                        own = key if method in ("__init__", "__call__") else f"{key}.{method}"
                        found.setdefault(function.__code__, []).append((own, function))
    tracer = sys.modules[f"{package}.tracer"]
    for key, value in (item for kind in tracer.Tracer.__mro__[:2] for item in vars(kind).items()):
        if not key.startswith("_") and hasattr(value, "__code__"):
            found.setdefault(value.__code__, []).append((key, value))
    return found


def _runs(function: Any, frame: FrameType) -> bool:
    """Whether this is the function that runs in a frame of its code: several may share it, and differ in closures."""
    cells = getattr(function, "__closure__", None) or ()
    names = frame.f_code.co_freevars
    return all(c.cell_contents is frame.f_locals.get(n) for n, c in zip(names, cells, strict=True))


def numpy_remedy() -> str:
    """A sentence that says what to write instead of what the user's line calls, if that is a function of NumPy's."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and INTERNAL[frame.f_code.co_filename]:
        frame = frame.f_back
    if frame is None:
        return ""
    path = _callee(frame).split(".")
    function = frame.f_locals.get(path[0], frame.f_globals.get(path[0]))
    for part in path[1:]:
        function = getattr(function, part, None)
    if isinstance(function, type) and issubclass(function, np.generic):
        return f"For numpy.{path[-1]}(x) write x.astype(numpy.{path[-1]}) or tracegrad.numpy.{path[-1]}(x). "
    module = "numpy" if isinstance(function, np.ufunc) else getattr(function, "__module__", None)
    name = getattr(function, "__name__", "")
    ours = sys.modules.get(f"{__package__}.{module}")
    if "numpy" not in str(module) or "array" in name or not callable(getattr(ours, name, None)):
        return ""
    return (
        f"{module}.{name} sees traced values among its arguments, not in lists: use tracegrad.{module}.{name}, which "
        "takes such lists, or put numpy.stack around the list. "
    )


def _callee(frame: FrameType) -> str:
    """The name that the user's line calls in this frame, such as `np.subtract`."""
    first, last, start, end = next(itertools.islice(frame.f_code.co_positions(), frame.f_lasti // 2, None))
    if first is None or last is None or start is None:
        return ""
    lines = [linecache.getline(frame.f_code.co_filename, n, frame.f_globals) for n in range(first, last + 1)]
    if not all(lines):
        return ""
    lines[-1] = lines[-1].encode()[:end].decode(errors="replace")
    lines[0] = lines[0].encode()[start:].decode(errors="replace")
    try:
        call = ast.parse(f"({''.join(lines)})", mode="eval").body
    except SyntaxError:
        return ""
    return ast.unparse(call.func) if isinstance(call, ast.Call) else ""


def taker(frame: FrameType) -> str | None:
    """What is taking a Python number in this frame, where that is a compiled function, as those of `math`, or an array.

    They ask a value for its number without a word, and what they compute with it is not recorded. `None` for Python's
    own `float(x)` and the like, which say what they do, and for functions of `math` that have no derivative.
    """
    code = frame.f_code
    if dis.opname[code.co_code[frame.f_lasti]] == "STORE_SUBSCR":
        return "an element of an array"
    line, _, start, _ = next(itertools.islice(code.co_positions(), frame.f_lasti // 2, None))
    if line is None or start is None:
        return None
    text = linecache.getline(code.co_filename, line, frame.f_globals).encode()[start:].decode(errors="replace")
    first, *rest = text.partition("(")[0].split(".")
    function = frame.f_locals.get(first, frame.f_globals.get(first))
    for name in rest:
        function = getattr(function, name, None)
    owner, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
    if isinstance(owner, np.ndarray):
        return f"numpy.ndarray.{name}"
    module = getattr(function, "__module__", None)
    return f"{module}.{name}" if name and name not in _STEPS and module not in (None, "builtins") else None


_STEPS = ("ceil", "floor", "isclose", "isfinite", "isinf", "isnan", "trunc")


HINTS = {
    **{
        name: f"numpy.{name}(x)"
        for name in ("abs", "cos", "exp", "log", "log1p", "maximum", "minimum", "sin", "sqrt", "tanh")
    },
    "backward": "tracegrad.grad(f)(x), of the function that computes this",
    "detach": "tracegrad.stop_gradient(x)",
    "grad": "tracegrad.grad(f)(x), of the function that computes this",
    "numpy": "numpy.asarray(tracegrad.stop_gradient(x))",
    "permute": "x.transpose(axes)",
    "pow": "x ** n",
    "relu": "tracegrad.nn.relu(x)",
    "sigmoid": "tracegrad.nn.sigmoid(x)",
    "softmax": "tracegrad.nn.softmax(x, axis)",
    "unsqueeze": "x[:, None], or numpy.expand_dims(x, axis)",
    "view": "x.reshape(shape)",
}
"""What stands here for the methods of other libraries' arrays."""


def describe(value: Any) -> str:
    """A value as a message names it: its type for an array, its type and text for anything else."""
    if isinstance(value, Var):
        return repr(value.aval)
    try:
        return repr(aval_of(value))
    except TypeError:
        text = repr(value).partition("\n")[0].removeprefix(f"{type(value).__name__}: ")
        return f"{type(value).__name__} {text if len(text) <= 40 else text[:37] + '...'}"


def name_of(fun: Any) -> str:
    """What a message calls a function of the user's."""
    return getattr(fun, "__name__", None) or type(fun).__name__


def need_function(fun: Any, where: str, name: str = "fun", form: str | None = None) -> None:
    """Raises unless `fun`, the argument of this name of this function, can be called."""
    if not callable(fun):
        form = form or f"{where}(f)(x), with the function itself, not {where}(f(x))"
        raise TypeError(f"{where}: {name} is {describe(fun)}, which is not a function {here()}. Write {form}.")


class TracerError(TypeError):
    """A traced value was used where only a concrete one can be."""


class NotRecordedError(RuntimeError):
    """A traced value was given to a function of JAX, or to NumPy as an array, which would not record it.

    Not a `TypeError`: JAX replaces those by its own.
    """


class InnerTraceError(TracerError):
    """A value of a transformation of JAX's, entered while a tape records, was to be recorded on that tape."""


class LeakedTracerError(TracerError):
    """A traced value was used after its recording had ended."""
