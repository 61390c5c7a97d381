"""How a step is recorded, and the handle that user code holds. Uses recordings, and the messages of what goes wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import numpy as np

from .concrete import Concrete, in_operator_of_jax, jax_value
from .errors import HINTS, INTERNAL, InnerTraceError, LeakedTracerError, TracerError, called, describe, here
from .inference import infer_or_explain
from .recording import Recording, top_trace
from .remedies import leaked_message, of_an_inner_trace, of_another_recording
from .tape import Aval, Node, Var, aval_of, with_axes

if TYPE_CHECKING:
    from .op import Op


class Tracer(Concrete):
    """A value of a tape that is recording: an array to the code that holds it.

    It has the operators and methods of an array, and NumPy's functions accept it. Under `@jit`, and in
    the body of `vmap` or `pmap`, it has no concrete value; elsewhere `float(x)`, `if x > 0`, `print(x)`
    and `x.item()` run what was recorded so far and give it.
    """

    __slots__ = ()

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """What `isinstance` believes: JAX's libraries tell arrays from other leaves by `isinstance(x, jax.Array)`."""
        return Tracer if in_operator_of_jax(sys._getframe(1)) else jax.Array

    def __init__(self, aval: Aval, tape: Recording | None, value: Any = None) -> None:
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

    def __setitem__(self, index: Any, value: Any) -> None:
        raise TypeError(
            f"a traced array ({self.aval}) cannot be changed in place {here()}. "
            "Write `x = x.at[index].set(value)` instead of `x[index] = value`."
        )

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


def record(tape: Recording, op: Op, args: tuple[Any, ...], params: dict[str, Any]) -> Any:
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
        out_avals = infer_or_explain(op, avals, params, (code, offset))
    if op.multiple:
        outputs = tuple([Tracer(aval, tape) for aval in out_avals])
        tape.nodes.append(Node(op, inputs, params, outputs, code, offset, blame is not None))
        return outputs
    output = Tracer(out_avals[0], tape)
    tape.nodes.append(Node(op, inputs, params, (output,), code, offset, blame is not None))
    if op.poles and inputs[-1].tape is not None:
        tape.poles.add(output)
    return output


def operand(tape: Recording, value: Any, op: Op | None = None) -> Var:
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
            inner = new_input(tape, literal(value).aval)
            tape.captured.append((inner, value))
            return inner
        return literal(value)
    if kind is Tracer and value.tape is tape:
        return value  # type: ignore[no-any-return]
    if kind is list or kind is tuple:
        return Tracer.of_list(value)  # type: ignore[no-any-return]
    known = tape.constants.get(key := id(value))
    if known is not None:
        return known
    if kind is Tracer and not value.tape.open:
        raise LeakedTracerError(leaked_message(value, op))
    if tape.captured is not None:
        aval = aval_or_explain(value)
        inner = new_input(tape, with_axes(aval, aval.varying | tape.ambient) if tape.ambient else aval)
        tape.captured.append((inner, value))
        tape.constants[id(value)] = inner
        return inner
    if kind is Tracer:
        outer = tape.parent
        while outer is not None and outer is not value.tape:
            outer = outer.parent
        if outer is not None:
            return operand(tape, jax_value(value), op)
        raise TracerError(of_another_recording(value, tape))
    if tape.run is not None and isinstance(value, jax.core.Tracer) and top_trace() is not tape.trace:
        raise InnerTraceError(of_an_inner_trace(aval_of(value)))
    aval = aval_or_explain(value)
    if isinstance(value, (np.ndarray, np.generic)):
        # A copy: the caller may change the array before the recorded program runs. Unchanged, it is one constant.
        value, key = np.array(value, aval.dtype), -key
        known = None if tape.lazy else tape.constants.get(key)
    if known is None or known.aval is not aval or known.value.tobytes() != value.tobytes():
        known = tape.constants[key] = Tracer(aval, tape, value)
    return known


def new_input(tape: Recording, aval: Aval) -> Tracer:
    """A further input of the program that `tape` records."""
    v = Tracer(aval, tape)
    tape.inputs.append(v)
    return v


def aval_or_explain(value: Any) -> Aval:
    try:
        return aval_of(value)
    except TypeError:
        raise TypeError(
            f"{called()}: an operand is {describe(value)}, which is not an array {here()}. Pass a number, an array, a "
            "traced value, or a list of these."
        ) from None
