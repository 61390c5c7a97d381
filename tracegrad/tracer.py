"""Recording: what is recording now, how a step is recorded, and the handle that user code holds."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import numpy as np
from jax.extend.core import find_top_trace

from .errors import (
    HINTS,
    INTERNAL,
    InnerTraceError,
    LeakedTracerError,
    NotRecordedError,
    TracerError,
    called,
    describe,
    here,
    numpy_remedy,
    taker,
)
from .remedies import IN_PLACE_OF_JAX, concrete_message, given_to_jax, vectorized
from .tape import Aval, Node, Tape, Var, aval_of, make_aval, no_full_collections, with_axes

if TYPE_CHECKING:
    from .op import Op


class _State(threading.local):
    """What is recording in this thread, and how: nothing else in the package is global."""

    tape: Tape | None = None
    no_nan: bool = True
    capture: Any = None
    wrt: tuple[Var, ...] = ()


state = _State()


@contextmanager
def recording(tape: Tape) -> Iterator[Tape]:
    """Records on `tape` until the block ends, however it ends."""
    outer = state.tape
    state.tape = tape
    try:
        with no_full_collections():
            yield tape
    finally:
        state.tape = outer


def is_recording() -> bool:
    """Whether a tape records what is done now: not what is done inside a transformation of JAX's, entered since."""
    tape = state.tape
    return tape is not None and (tape.run is None or find_top_trace(()) is tape.trace)


@contextmanager
def nan_safe(enabled: bool) -> Iterator[None]:
    """Says whether gradients recorded in the block are 0 where the incoming cotangent is 0, whatever the derivative.

    They are, unless this is turned off: that is what keeps the branch of a `where` that was not taken from
    making NaN. Without it a rule with a pole (of `sqrt`, `log`, `/`, `**`, ...) costs a comparison and a selection
    less, and gives NaN for 0 times infinity, as JAX does.

    Example:
      >>> import tracegrad as tg, tracegrad.numpy as np
      >>> f = lambda x: np.where(x > 0, np.sqrt(x), 0.0)
      >>> float(tg.grad(f)(0.0))
      0.0
      >>> with tg.nan_safe(False):
      ...     float(tg.grad(f)(0.0))
      nan
    """
    outer = state.no_nan
    state.no_nan = enabled
    try:
        yield
    finally:
        state.no_nan = outer


def _in_operator_of_jax(frame: FrameType) -> bool:
    """Whether this is a binary operator of JAX's, which must not take a traced value for an array of its own.

    It then gives the right-hand operand its turn, so that `jax_array + tracer` reaches `Tracer.__radd__`.
    """
    return frame.f_code.co_name.startswith(("_operator_", "deferring_binary_op"))


class Tracer(Var):
    """A value of a tape that is recording: an array to the code that holds it.

    It has the operators and methods of an array, and NumPy's functions accept it. Under `@jit`, and in
    the body of `vmap` or `pmap`, it has no concrete value; elsewhere `float(x)`, `if x > 0`, `print(x)`
    and `x.item()` run what was recorded so far and give it.
    """

    __slots__ = ()

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """What `isinstance` believes: JAX's libraries tell arrays from other leaves by `isinstance(x, jax.Array)`."""
        return Tracer if _in_operator_of_jax(sys._getframe(1)) else jax.Array

    def __init__(self, aval: Aval, tape: Tape | None, value: Any = None) -> None:
        self.aval = aval
        self.tape = tape
        self.value = value

    # -- what it is

    @property
    def shape(self) -> tuple[int, ...]:
        return self.aval.shape

    @property
    def dtype(self) -> Any:
        return self.aval.dtype

    @property
    def weak_type(self) -> bool:
        return self.aval.weak_type

    @property
    def ndim(self) -> int:
        return len(self.aval.shape)

    @property
    def size(self) -> int:
        size = 1
        for n in self.aval.shape:
            size *= n
        return size

    @property
    def itemsize(self) -> int:
        return int(self.aval.dtype.itemsize)

    @property
    def nbytes(self) -> int:
        return self.size * self.itemsize

    def __len__(self) -> int:
        if not self.aval.shape:
            raise TypeError(f"len() of a scalar {self.aval} {here()}")
        return self.aval.shape[0]

    def __iter__(self) -> Iterator[Any]:
        if not self.aval.shape:
            raise TypeError(f"cannot iterate over a scalar {self.aval} {here()}")
        return (self[i] for i in range(self.aval.shape[0]))

    __hash__ = object.__hash__

    # -- its value, on demand

    def _concrete(self, wanted: str) -> Any:
        """The concrete value, computed now if the recording is define-by-run.

        Raises:
          TracerError: under `@jit` and in bodies, where there is no value; the message says whose line made it.
        """
        tape = self.tape
        if tape is None:
            return np.asarray(self.value, self.aval.dtype)
        if not tape.open:
            raise LeakedTracerError(leaked_message(self))
        if self.value is None and tape.lazy:
            assert tape.run is not None
            tape.run(tape)
        if not tape.lazy or isinstance(self.value, jax.core.Tracer):
            raise TracerError(concrete_message(self, wanted))
        return np.asarray(self.value) if not isinstance(self.value, jax.Array) else self.value

    def __copy__(self) -> Tracer:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Tracer:
        return self

    def __bool__(self) -> bool:
        return bool(self._concrete("its truth value"))

    def __int__(self) -> int:
        return int(self._concrete("int()"))

    def __float__(self) -> float:
        if state.wrt:
            self._check_taker(sys._getframe(1))
        return float(self._concrete("float()"))

    def __complex__(self) -> complex:
        if state.wrt:
            self._check_taker(sys._getframe(1))
        return complex(self._concrete("complex()"))

    def _check_taker(self, frame: FrameType) -> None:
        """Raises where a number is taken that derivatives flow through, by something that cannot record it."""
        name = taker(frame)
        if name is not None and depends(self, state.wrt):
            module, _, function = name.partition(".")
            if module in ("math", "cmath"):
                remedy = f"Use the function of numpy or tracegrad.numpy instead, as numpy.{function}"
            elif name.startswith(("an ", "numpy.ndarray")):
                remedy = "Write `y = y.at[i].set(value)` on a tracegrad.numpy array for `y[i] = value`"
            else:
                remedy = "Use functions of tracegrad.numpy, and tracegrad.numpy.stack to put values together"
            raise NotRecordedError(
                f"a traced value ({self.aval}) became a plain number for {name} {here()}. What is computed from that "
                f"would not be recorded, so its gradient would be lost. {remedy}. Where no gradient is wanted, pass "
                "float(x)."
            )

    def __index__(self) -> int:
        if self.aval.shape or not np.issubdtype(self.aval.dtype, np.integer):
            raise TypeError(f"only an integer scalar can be an index or a count, not {self.aval} {here()}")
        return int(self._concrete("a Python integer"))

    def item(self, *args: int) -> Any:
        return np.asarray(self._concrete("item()")).item(*args)

    def tolist(self) -> Any:
        return np.asarray(self._concrete("tolist()")).tolist()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        if state.wrt and self.aval.differentiable and depends(self, state.wrt):
            instead = (
                "Put values together with numpy.stack or tracegrad.numpy.array, write `y = y.at[i].set(value)` on a "
                "tracegrad.numpy array for `y[i] = value`, and use tracegrad.scipy"
            )
            if vectorized():
                instead = "Write tracegrad.numpy.vectorize(f) in place of numpy.vectorize(f)"
            raise NotRecordedError(
                f"a traced value ({self.aval}) was to become a NumPy array {here()}, as for numpy.array, an element of "
                "an array, or a function of SciPy. What is computed from that array would not be recorded, so its "
                f"gradient would be lost. {numpy_remedy()}{instead}. Where no gradient is wanted, as in a plot, pass "
                "tracegrad.stop_gradient(x)."
            )
        try:
            return np.array(self._concrete("a NumPy array"), dtype=dtype)
        except LeakedTracerError:
            raise
        except TracerError as error:
            raise TracerError(f"{error} {numpy_remedy()}".strip()) from None

    def __format__(self, spec: str) -> str:
        return format(self._concrete("a formatted number").item(), spec) if spec else str(self)

    def __str__(self) -> str:
        tape = self.tape
        return str(self._concrete("str()")) if tape is not None and tape.open and tape.lazy else repr(self)

    def __repr__(self) -> str:
        tape = self.tape
        ended = "" if tape is None or tape.open else ", recording ended"
        return f"Tracer({self.aval}{ended})" if self.value is None else f"Tracer({self.aval}, {self.value}{ended})"

    @property
    def __jax_array__(self) -> Any:
        if _in_operator_of_jax(sys._getframe(1)):
            raise AttributeError("__jax_array__")
        value = jax_value(self)
        return lambda: value

    def __setitem__(self, index: Any, value: Any) -> None:
        raise TypeError(
            f"a traced array ({self.aval}) cannot be changed in place {here()}. "
            "Write `x = x.at[index].set(value)` instead of `x[index] = value`."
        )

    def __dlpack__(self, **options: Any) -> Any:
        return self._concrete("its memory (__dlpack__)").__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._concrete("its device (__dlpack_device__)").__dlpack_device__()

    __array_priority__ = 1000

    if TYPE_CHECKING:
        # `tracegrad.array` installs the operators, the methods of an array, and NumPy's protocols.
        def __getattr__(self, name: str) -> Any: ...

        of_list: ClassVar[Callable[..., Any]]

        def __neg__(self) -> Any: ...
        def __add__(self, other: Any) -> Any: ...
        def __eq__(self, other: object) -> Any: ...

        __pos__ = __abs__ = __invert__ = __neg__
        __getitem__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __add__
        __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __divmod__ = __rdivmod__ = __pow__ = __rpow__ = __add__
        __matmul__ = __rmatmul__ = __and__ = __rand__ = __or__ = __ror__ = __xor__ = __rxor__ = __add__
        __lshift__ = __rlshift__ = __rshift__ = __rrshift__ = __lt__ = __le__ = __gt__ = __ge__ = __add__
    else:

        def __getattr__(self, name: str) -> Any:
            if name.startswith("__") or name in Tracer.__slots__ or name in Var.__slots__:
                raise AttributeError(name)
            hint = HINTS.get(name)
            raise AttributeError(
                f"a traced value ({self.aval}) has no attribute {name!r}"
                + (f" {here()}. Write {hint}." if hint else ""),
                name=name,
                obj=self,
            )


@contextmanager
def differentiating(variables: Sequence[Var]) -> Iterator[None]:
    """The block runs a function whose derivative with respect to these values is wanted."""
    outer = state.wrt
    state.wrt = (*outer, *variables)
    try:
        yield
    finally:
        state.wrt = outer


def depends(value: Var, variables: Sequence[Var]) -> bool:
    """Whether a derivative flows from `value` back to one of `variables`, on the tape of `value`."""
    wanted: set[Var] = {value}
    if value.tape is not None:
        for node in reversed(value.tape.nodes):
            if node.op.vjp is not None and not wanted.isdisjoint(node.outputs):
                wanted.update([v for v in node.inputs if v.aval.differentiable])
    return not wanted.isdisjoint(variables)


class Literal(Tracer):
    """A Python number that is part of the program itself."""

    __slots__ = ()


_SCALARS: dict[type, bool] = {bool: False, int: False, float: False, complex: False}
_literal_avals: dict[tuple[type, bool], Aval] = {}


def literal(value: bool | int | float | complex) -> Literal:
    """A constant of the program, weakly typed as JAX's Python scalars are."""
    key = (value.__class__, jax.config.jax_enable_x64)  # type: ignore[attr-defined]
    aval = _literal_avals.get(key)
    if aval is None:
        aval = _literal_avals[key] = aval_of(value)
    return Literal(aval, None, value)


def record(tape: Tape, op: Op, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
    """Appends `op(*args, **params)` to `tape` and returns its output, or a tuple of them."""
    inputs: list[Var] = []
    try:
        for a in args:
            if type(a) is Tracer and a.tape is tape:
                inputs.append(a)
            else:
                inputs.append(operand(tape, a, op))
    except InnerTraceError:
        return op.run(tuple([jax_value(a) if isinstance(a, Tracer) else a for a in args]), params)
    avals = tuple([v.aval for v in inputs])
    out_avals = op.avals[tape.x64].get((avals, *params.items()) if params else avals)
    blame = tape.blame
    if blame is None:
        f = sys._getframe(2)
        while INTERNAL[(code := f.f_code).co_filename]:
            f = f.f_back  # type: ignore[assignment]
        offset = f.f_lasti
    else:
        code, offset = blame.code, blame.offset  # type: ignore[assignment]
    if out_avals is None:
        out_avals = op.infer_or_explain(avals, params, (code, offset))
    if op.multiple:
        outputs = tuple([Tracer(aval, tape) for aval in out_avals])
        tape.nodes.append(Node(op, inputs, params, outputs, code, offset, blame is not None))
        return outputs
    output = Tracer(out_avals[0], tape)
    tape.nodes.append(Node(op, inputs, params, (output,), code, offset, blame is not None))
    if op.poles and inputs[-1].tape is not None:
        tape.poles.add(output)
    return output


def operand(tape: Tape, value: Any, op: Op | None = None) -> Var:
    """`value` as something a node of `tape` can read."""
    kind = type(value)
    if kind is Literal:
        return value  # type: ignore[no-any-return]
    if kind in _SCALARS:
        # Lifted to an input of the compiled call, so that a changing number never recompiles; 0 and 1
        # stay, since the simplifications that they allow are worth more.
        if tape.lifts and tape.blame is None and value not in (0, 1):
            if tape.captured is None:
                return Tracer(literal(value).aval, tape, value)
            inner = Tracer(literal(value).aval, tape)
            tape.inputs.append(inner)
            tape.captured.append((inner, value))
            return inner
        return literal(value)
    if kind is Tracer and value.tape is tape:
        return value  # type: ignore[no-any-return]
    if kind is list or kind is tuple:
        return Tracer.of_list(value)  # type: ignore[no-any-return]
    known = tape.constants.get(id(value))
    if known is not None:
        return known
    if kind is Tracer and not value.tape.open:
        raise LeakedTracerError(leaked_message(value, op))
    if tape.captured is not None:
        aval = aval_or_explain(value)
        inner = Tracer(with_axes(aval, aval.varying | tape.ambient) if tape.ambient else aval, tape)
        tape.inputs.append(inner)
        tape.captured.append((inner, value))
        tape.constants[id(value)] = inner
        return inner
    if kind is Tracer:
        outer = tape.parent
        while outer is not None and outer is not value.tape:
            outer = outer.parent
        if outer is not None:
            return operand(tape, jax_value(value), op)
        raise TracerError(
            f"a value that another recording traced ({value.aval}) was used in {tape.name or 'a function'} {here()}, "
            "which records separately (in another thread, or inside a jax transformation). Pass it as an argument."
        )
    if tape.run is not None and isinstance(value, jax.core.Tracer) and find_top_trace(()) is not tape.trace:
        raise InnerTraceError(
            f"a value that JAX traces ({aval_or_explain(value)}), in a function of JAX's such as jax.lax.scan or "
            f"jax.vmap, was used {here()} by a function of tracegrad that records. Use tracegrad's scan, vmap, ... "
            "there, or functions of jax.numpy inside."
        )
    aval = aval_or_explain(value)
    if isinstance(value, (np.ndarray, np.generic)):
        # A copy: the caller may change the array before the recorded program runs.
        return Tracer(aval, tape, np.array(value, aval.dtype))
    constant = Tracer(aval, tape, value)
    tape.constants[id(value)] = constant
    return constant


def aval_or_explain(value: Any) -> Aval:
    try:
        return aval_of(value)
    except TypeError:
        raise TypeError(
            f"{called()}: an operand is {describe(value)}, which is not an array {here()}. Pass a number, an array, a "
            "traced value, or a list of these."
        ) from None


def jax_value(tracer: Tracer) -> Any:
    """The value of a traced one for a function of JAX: an array, or under `@jit` a tracer of the enclosing JAX trace.

    Raises:
      NotRecordedError: where a derivative would flow through that function, which is not recorded, and in bodies, where
        there is no value.
    """
    tape = tracer.tape
    if tape is None:
        return np.asarray(tracer.value, tracer.aval.dtype)
    if not tape.open:
        raise LeakedTracerError(leaked_message(tracer))
    if tracer.aval.differentiable and depends(tracer, state.wrt):
        raise NotRecordedError(
            f"{given_to_jax(tracer.aval)}. Where no gradient is wanted, pass tracegrad.stop_gradient(x)."
        )
    if tracer.value is None:
        if tape.run is None:
            raise NotRecordedError(
                f"a traced value ({tracer.aval}) was given to a function of JAX {here()}, in "
                f"{tape.name or 'a function'}, which is recorded as the body of a loop, a branch or a transform: there "
                f"it has no value yet. {IN_PLACE_OF_JAX}; to index or update a JAX array `a` with a traced value, "
                "write tracegrad.numpy.asarray(a)[i]."
            )
        tape.run(tape)
    return tracer.value


def leaked_message(value: Tracer, op: Op | None = None) -> str:
    used = f"was used by {op.name}" if op is not None else "was used"
    owner = value.tape.name if value.tape is not None else ""
    return (
        f"a traced value ({value.aval}) {used} {here()} after the recording it belongs to, of "
        f"{owner or 'a function'}, had ended. It was probably stored in a global, a list or an attribute from "
        "inside that function. Return it from the function instead (with `has_aux=True` under `grad`)."
    )


__all__ = [
    "Literal", "Tracer", "differentiating", "jax_value", "literal", "make_aval", "nan_safe", "operand", "record",
    "recording", "state",
]  # fmt: skip
