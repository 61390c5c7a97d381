"""Making arrays. While a tape records, these are recorded too; otherwise they return `jax.Array`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import ops
from ..borrow import borrow
from ..errors import called, describe, here
from ..recording import state
from ..tape import Var, make_aval
from ..tracer import Literal, Tracer, literal, operand
from .arguments import (
    common_type,
    dtype_of,
    holds_arrays,
    inexact,
    integer,
    is_inexact,
    known,
    promoted,
    shape_of,
    type_of,
)

_NUMBERS = (bool, int, float, complex)


def number_of(value: Any, dtype: Any) -> Any:
    """A Python number as an operand of this dtype: part of the program, or lifted where others of its kind are."""
    tape = state.tape
    if tape is None or (tape.lazy and value not in (0, 1)):
        return np.asarray(value, dtype)
    return Literal(make_aval((), dtype), None, np.asarray(value, dtype).item())


def placed(x: Any, device: Any, argument: str = "device") -> Any:
    """`x` on a device, which is the value of this argument, or as it is if that is `None`.

    Raises:
      ValueError: for a traced value: a program runs where its arguments are.
    """
    if device is None:
        return x
    if isinstance(x, (Tracer, jax.core.Tracer)):
        raise ValueError(
            f"{called()}: {argument}={device} while a function is recorded {here()}. Leave it out: a program runs "
            "where its arguments are; put them there with jax.device_put."
        )
    return jax.device_put(x, device)


def full(shape: Any, fill_value: Any, dtype: Any = None, *, device: Any = None) -> Any:
    """An array of this shape with every element `fill_value`, which broadcasts.

    Example:
      >>> import tracegrad.numpy as np
      >>> np.full((2, 2), 7).tolist()
      [[7, 7], [7, 7]]
    """
    if device is not None:
        return placed(full(shape, fill_value, dtype), device)
    shape = shape_of(shape)
    if dtype is not None and type(fill_value) in _NUMBERS:
        return ops.broadcast_in_dim(number_of(fill_value, dtype_of(dtype)), shape=shape, dims=())
    aval = type_of(fill_value)
    if dtype is not None:
        dtype = dtype_of(dtype)
        if aval.dtype != dtype:
            fill_value = ops.astype(fill_value, dtype=dtype)
    elif not shape:
        return asarray(fill_value)
    if aval.ndim:
        return ops.broadcast_to(asarray(fill_value), shape)
    return ops.broadcast_in_dim(fill_value, shape=shape, dims=())


def zeros(shape: Any, dtype: Any = None, *, device: Any = None) -> Any:
    """An array of zeros, of the default float type by default."""
    return full(shape, 0, float if dtype is None else dtype, device=device)


def ones(shape: Any, dtype: Any = None, *, device: Any = None) -> Any:
    """An array of ones, of the default float type by default."""
    return full(shape, 1, float if dtype is None else dtype, device=device)


empty = zeros


def full_like(a: Any, fill_value: Any, dtype: Any = None, shape: Any = None, *, device: Any = None) -> Any:
    """An array of the shape and dtype of `a`, unless others are given, with every element `fill_value`."""
    aval = type_of(a)
    shape, dtype = aval.shape if shape is None else shape, aval.dtype if dtype is None else dtype
    return full(shape, fill_value, dtype, device=device)


def zeros_like(a: Any, dtype: Any = None, shape: Any = None, *, device: Any = None) -> Any:
    """Zeros of the shape and dtype of `a`, unless others are given."""
    return full_like(a, 0, dtype, shape, device=device)


def ones_like(a: Any, dtype: Any = None, shape: Any = None, *, device: Any = None) -> Any:
    """Ones of the shape and dtype of `a`, unless others are given."""
    return full_like(a, 1, dtype, shape, device=device)


def empty_like(prototype: Any, dtype: Any = None, shape: Any = None, *, device: Any = None) -> Any:
    """Zeros of the shape and dtype of `prototype`, unless others are given."""
    return full_like(prototype, 0, dtype, shape, device=device)


def asarray(
    a: Any, dtype: Any = None, order: None = None, *, copy: bool | None = None, device: Any = None
) -> Any:  # fmt: skip
    """An array from a number, an array, or nested lists of them, which may hold traced values.

    Raises:
      TypeError: for anything else.
      ValueError: if the lists are ragged.

    Example:
      >>> import tracegrad as tg, tracegrad.numpy as np
      >>> tg.grad(lambda x: np.asarray([x, 2 * x]).sum())(1.0).item()
      3.0
    """
    if device is not None:
        return placed(asarray(a, dtype), device)
    tape = state.tape
    if isinstance(a, (list, tuple)):
        if holds_arrays(a):
            x = _stacked(a)
        else:
            try:
                x = np.asarray(a)
            except ValueError:
                raise ValueError(
                    f"{called()}: {describe(a)} {here()}: its rows differ in length. Pad them to one length."
                ) from None
            if x.dtype == object or x.dtype.kind not in "biufcV":
                raise TypeError(
                    f"{called()}: {describe(a)} is no nested list of numbers {here()}. Give numbers or arrays."
                )
            x = x.astype(jax.dtypes.canonicalize_dtype(x.dtype) if dtype is None else dtype_of(dtype))
    else:
        type_of(a)
        x = a
    if tape is None:
        if isinstance(x, Var):
            # A number of a formula; any other traced value has outlived its recording, and the op says so.
            x = x.value if x.tape is None else ops.alias(x)
        return jnp.asarray(x, None if dtype is None else dtype_of(dtype))
    if type(x) in _NUMBERS and dtype is not None:
        x = number_of(x, dtype_of(dtype))
    v = operand(tape, x)
    return v if dtype is None or v.aval.dtype == dtype_of(dtype) else ops.astype(v, dtype=dtype_of(dtype))


def array(
    object: Any, dtype: Any = None, copy: bool = True, order: None = None, ndmin: int = 0, *, device: Any = None
) -> Any:  # fmt: skip
    """An array from a number, an array, or nested lists of them; at least of `ndmin` axes."""
    x = asarray(object, dtype, device=device)
    ndim = x.ndim
    return x if ndim >= ndmin else ops.reshape(x, shape=(1,) * (ndmin - ndim) + x.shape)


# Of arrays that lie in memory as XLA likes, and are of one class.
asanyarray = ascontiguousarray = asfortranarray = asarray


def array_like(x: Any) -> Any:
    """`x` as something with a shape that is recorded if a tape is recording: numbers become arrays."""
    return x if type(x) is Tracer or (isinstance(x, jax.Array) and state.tape is None) else asarray(x)


def asarray_chkfinite(a: Any, dtype: Any = None, order: None = None) -> Any:
    """`asarray`, of what is finite.

    Raises:
      ValueError: if an element is NaN or infinite.
      TracerError: under `@jit` and in bodies, where that is not known yet.
    """
    x = asarray(a, dtype)
    if is_inexact(x.dtype) and not known(ops.isfinite(x), "Use asarray").all():
        raise ValueError(f"{called()}: {describe(x)} has an element that is NaN or infinite {here()}")
    return x


def _stacked(a: Sequence[Any]) -> Any:
    parts = [asarray(x) if isinstance(x, (list, tuple)) else x for x in a]
    avals = [type_of(x) for x in parts]
    for aval in avals:
        if aval.shape != avals[0].shape:
            raise ValueError(f"{called()}: elements of shapes {avals[0].shape} and {aval.shape} in one list {here()}")
    parts = [ops.reshape(x, shape=(1, *aval.shape)) for x, aval in zip(promoted(parts, avals), avals, strict=True)]
    return ops.concatenate(*parts, axis=0)


def astype(x: Any, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Any:
    """`x` in another dtype."""
    wanted = dtype_of(dtype)
    aval = type_of(x)
    same = aval.dtype == wanted and not aval.weak_type
    return placed(asarray(x) if same else ops.astype(x, dtype=wanted), device)


def copy(a: Any, order: None = None) -> Any:
    """`a` itself: arrays never change."""
    return asarray(a)


# -- ranges


def _concrete(value: Any) -> Any:
    """A Python number from a concrete scalar."""
    if type(value) in (int, float):
        return value
    aval = type_of(value)
    if aval.shape or aval.dtype.kind not in "biuf":
        raise TypeError(f"{called()}: {describe(value)} is not a real scalar {here()}")
    return np.asarray(value).item()


def arange(start: Any, stop: Any = None, step: Any = None, dtype: Any = None, *, device: Any = None) -> Any:
    """`start`, `start + step`, ... up to but without `stop`. The arguments have concrete values.

    Example:
      >>> import tracegrad.numpy as np
      >>> np.arange(2, 8, 3).tolist()
      [2, 5]
    """
    if device is not None:
        return placed(arange(start, stop, step, dtype), device)
    if stop is None:
        start, stop = 0, start
    numbers = [_concrete(x) for x in (start, stop, 1 if step is None else step)]
    if dtype is None:
        given = [type_of(x) for x in (start, stop, step) if x is not None]
        dtype = jax.dtypes.canonicalize_dtype(common_type(given)[0])
    dtype = dtype_of(dtype)
    first, last, by = numbers
    if by == 0:
        raise ValueError(f"{called()}: step is 0 {here()}")
    size = max(0, math.ceil((last - first) / by))
    work = _wide(dtype)
    out = ops.iota(dtype=work, shape=(size,), axis=0)
    if by != 1:
        out = ops.mul(out, number_of(by, work))
    if first != 0:
        out = ops.add(out, number_of(first, work))
    return out if work == dtype else ops.astype(out, dtype=dtype)


def _wide(dtype: Any) -> Any:
    """The dtype in which a range is computed: half precision has no room for its indices."""
    return np.dtype(np.float32) if dtype.itemsize < 4 and is_inexact(dtype) else dtype


def linspace(
    start: Any, stop: Any, num: int = 50, endpoint: bool = True, retstep: bool = False, dtype: Any = None,
    axis: int = 0, *, device: Any = None,
) -> Any:  # fmt: skip
    """`num` evenly spaced numbers from `start` to `stop`, which broadcast and may be differentiated.

    Example:
      >>> import tracegrad.numpy as np
      >>> np.linspace(0, 1, 3).tolist()
      [0.0, 0.5, 1.0]
    """
    num = integer(num, "num")
    if num < 0:
        raise ValueError(f"{called()}: num={num} is negative {here()}")
    a, b = type_of(start), type_of(stop)
    common, _ = common_type([a, b])
    kind = _wide(common if is_inexact(common) else dtype_of(float))
    ndim = max(a.ndim, b.ndim)
    parts = max(num - 1 if endpoint else num, 1)
    step = ops.iota(dtype=kind if kind.kind != "c" else np.finfo(kind).dtype, shape=(num, *[1] * ndim), axis=0)
    t = ops.div(step, literal(parts))
    out = ops.add(ops.mul(inexact(start, a), ops.sub(1, t)), ops.mul(inexact(stop, b), t))
    if endpoint and num > 1:
        # Exactly `stop`, which what is computed may miss by a rounding.
        out = ops.where(ops.equal(step, literal(parts)), inexact(stop, b), out)
    if axis not in (0, -ndim - 1):
        out = ops.move_axis(out, 0, axis)
    wanted = (common if is_inexact(common) else kind) if dtype is None else dtype_of(dtype)
    if not is_inexact(wanted):
        out = ops.floor(out)
    if out.dtype != wanted:
        out = ops.astype(out, dtype=wanted)
    out = placed(out, device)
    return (out, ops.div(ops.sub(stop, start), literal(parts))) if retstep else out


def logspace(
    start: Any, stop: Any, num: int = 50, endpoint: bool = True, base: Any = 10.0, dtype: Any = None, axis: int = 0
) -> Any:
    """`base` to evenly spaced powers from `start` to `stop`."""
    out = ops.pow_(base, linspace(start, stop, num, endpoint, axis=axis))
    return out if dtype is None else ops.astype(out, dtype=dtype_of(dtype))


def geomspace(start: Any, stop: Any, num: int = 50, endpoint: bool = True, dtype: Any = None, axis: int = 0) -> Any:
    """Numbers from `start` to `stop` in geometric progression; both have one sign."""
    sign = ops.sign(inexact(start, type_of(start)))
    logs = linspace(ops.log(ops.mul(start, sign)), ops.log(ops.mul(stop, sign)), num, endpoint, axis=axis)
    out = ops.mul(ops.exp(logs), sign)
    return out if dtype is None else ops.astype(out, dtype=dtype_of(dtype))


# -- matrices


def _band(N: int, M: int | None, k: int, dtype: Any, compare: Any) -> Any:
    """Ones where the row index plus `k` compares with the column index, zeros elsewhere."""
    n, k = integer(N, "N"), integer(k, "k")
    shape = (n, n if M is None else integer(M, "M"))
    rows, columns = (ops.iota(dtype=np.dtype(np.int32), shape=shape, axis=i) for i in (0, 1))
    mask = compare(rows if k == 0 else ops.add(rows, literal(k)), columns)
    return ops.astype(mask, dtype=dtype_of(float if dtype is None else dtype))


def eye(N: int, M: int | None = None, k: int = 0, dtype: Any = None, *, device: Any = None) -> Any:
    """Ones on the `k`-th diagonal, zeros elsewhere.

    Example:
      >>> import tracegrad.numpy as np
      >>> np.eye(2).tolist()
      [[1.0, 0.0], [0.0, 1.0]]
    """
    return placed(_band(N, M, k, dtype, ops.equal), device)


def identity(n: int, dtype: Any = None) -> Any:
    """The identity matrix."""
    return eye(n, dtype=dtype)


def tri(N: int, M: int | None = None, k: int = 0, dtype: Any = None) -> Any:
    """Ones on and below the `k`-th diagonal, zeros above."""
    return _band(N, M, k, dtype, ops.greater_equal)


tril = borrow(jnp.tril, "The lower triangle of matrices, with zeros above the `k`-th diagonal.", "k")

triu = borrow(jnp.triu, "The upper triangle of matrices, with zeros below the `k`-th diagonal.", "k")


def tril_indices(n: int, k: int = 0, m: int | None = None) -> tuple[Any, ...]:
    """The indices of the lower triangle of an `n` by `m` matrix."""
    return tuple(asarray(i) for i in np.tril_indices(n, k, m))


def triu_indices(n: int, k: int = 0, m: int | None = None) -> tuple[Any, ...]:
    """The indices of the upper triangle of an `n` by `m` matrix."""
    return tuple(asarray(i) for i in np.triu_indices(n, k, m))


_meshgrid = borrow(jnp.meshgrid, "")


def meshgrid(*xi: Any, copy: bool = True, sparse: bool = False, indexing: str = "xy") -> list[Any]:
    """The coordinates of a grid from those along each axis; `indexing="ij"` for matrix order."""
    axes = [x if type_of(x).shape else ops.reshape(x, shape=(1,)) for x in xi]
    return _meshgrid(*axes, sparse=sparse, indexing=indexing)  # type: ignore[no-any-return]


def indices(dimensions: Sequence[int], dtype: Any = None, sparse: bool = False) -> Any:
    """The indices of a grid: an array of them along each axis, stacked (a tuple if `sparse`)."""
    dtype, n = dtype_of(int if dtype is None else dtype), len(dimensions)
    if sparse:
        shapes = [tuple(d if j == i else 1 for j in range(n)) for i, d in enumerate(dimensions)]
        return tuple(ops.iota(dtype=dtype, shape=s, axis=i) for i, s in enumerate(shapes))
    grids = [ops.iota(dtype=dtype, shape=(1, *dimensions), axis=i + 1) for i in range(n)]
    return ops.concatenate(*grids, axis=0) if grids else zeros((0,), dtype)


# -- from other libraries and from bytes


def from_dlpack(x: Any, /, *, device: Any = None, copy: bool | None = None) -> Any:
    """An array of what another library holds (NumPy, PyTorch, CuPy, ...), without a copy where that is possible.

    Args:
      x: what has `__dlpack__`. A traced value stays as it is.
      device: where to put it.
      copy: `True` for a copy in any case, `False` for none in any case.

    Example:
      >>> import numpy, tracegrad.numpy as np
      >>> np.from_dlpack(numpy.arange(3.0)).tolist()
      [0.0, 1.0, 2.0]
    """
    if isinstance(x, Tracer):
        return placed(x, device)
    if not hasattr(x, "__dlpack__"):
        raise TypeError(f"{called()}: {describe(x)} has no __dlpack__ {here()}. Use asarray.")
    return asarray(jnp.from_dlpack(x, device=device, copy=copy))


def frombuffer(buffer: Any, dtype: Any = float, count: int = -1, offset: int = 0) -> Any:
    """A vector of the numbers in a buffer of bytes, which are of this dtype; see `numpy.frombuffer`."""
    return asarray(np.frombuffer(buffer, dtype_of(dtype), count, offset))


def fromstring(string: str, dtype: Any = float, count: int = -1, *, sep: str) -> Any:
    """A vector of the numbers in a text, with `sep` between them; see `numpy.fromstring`."""
    return asarray(np.fromstring(string, dtype_of(dtype), count, sep=sep))


__all__ = [
    "arange", "array", "asanyarray", "asarray", "asarray_chkfinite", "ascontiguousarray", "asfortranarray", "astype",
    "copy", "empty", "empty_like", "eye", "from_dlpack", "frombuffer", "fromstring", "full", "full_like", "geomspace",
    "identity", "indices", "linspace", "logspace", "meshgrid", "ones", "ones_like", "tri", "tril", "tril_indices",
    "triu", "triu_indices", "zeros", "zeros_like",
]  # fmt: skip
