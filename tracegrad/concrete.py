"""The value of a traced one, computed on demand, and who may have it. Uses recordings and messages."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any, Self

import jax
import numpy as np

from .errors import LeakedTracerError, NotRecordedError, TracerError, here, numpy_remedy, taker
from .recording import state
from .remedies import IN_PLACE_OF_JAX, concrete_message, given_to_jax, leaked_message, vectorized
from .tape import Var


def in_operator_of_jax(frame: FrameType) -> bool:
    """Whether this is a binary operator of JAX's, which must not take a traced value for an array of its own.

    It then gives the right-hand operand its turn, so that `jax_array + tracer` reaches `Tracer.__radd__`.
    """
    return frame.f_code.co_name.startswith(("_operator_", "deferring_binary_op"))


def depends(value: Var, variables: Sequence[Var]) -> bool:
    """Whether a derivative flows from `value` back to one of `variables`, on the tape of `value`."""
    wanted: set[Var] = {value}
    if value.tape is not None:
        for node in reversed(value.tape.nodes):
            if node.op.vjp is not None and not wanted.isdisjoint(node.outputs):
                wanted.update([v for v in node.inputs if v.aval.differentiable])
    return not wanted.isdisjoint(variables)


class Concrete(Var):
    """What Python, NumPy and JAX ask of an array that they are to have the numbers of."""

    __slots__ = ()

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

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
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
        if in_operator_of_jax(sys._getframe(1)):
            raise AttributeError("__jax_array__")
        value = jax_value(self)
        return lambda: value

    def __dlpack__(self, **options: Any) -> Any:
        return self._concrete("its memory (__dlpack__)").__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._concrete("its device (__dlpack_device__)").__dlpack_device__()


def jax_value(tracer: Var) -> Any:
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
