"""Products: `matmul`, `einsum` and their relatives, each made of as few `dot_general` nodes as there are pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from opt_einsum.parser import parse_einsum_input  # type: ignore[import-untyped]

from .. import ops
from ..borrow import borrow, written
from ..errors import called, describe, here
from ..tracer import Tracer
from .arguments import Aval, dtype_of, integer, order_of, promoted, refuse, type_of
from .creation import array_like
from .manipulation import diagonal, moveaxis, ravel
from .reductions import sum as sum_

Labels = tuple[Any, ...]

# -- one contraction, planned once for its labels and shapes


class Prepare(NamedTuple):
    """What is done to one operand first: axes of size 1 dropped, pairs of axes made diagonals, axes summed."""

    operand: int
    shape: tuple[int, ...] | None
    diagonals: tuple[tuple[int, int], ...]
    summed: tuple[int, ...]


class Pair(NamedTuple):
    """The product of two operands: a `dot_general`, or, without `dims`, element by element."""

    left: int
    right: int
    dims: Any


class Plan(NamedTuple):
    prepare: tuple[Prepare, ...]
    pairs: tuple[Pair, ...]
    order: tuple[int, ...] | None


@lru_cache(maxsize=4096)
def plan(
    terms: tuple[Labels, ...], output: Labels, shapes: tuple[tuple[int, ...], ...], optimize: Any = "greedy"
) -> Plan:
    """How to sum the product of operands, whose axes are labelled `terms`, over the labels not in `output`."""
    sizes: dict[Any, int] = {}
    for term, shape in zip(terms, shapes, strict=True):
        if len(term) != len(shape):
            raise ValueError(f"{''.join(term)!r} labels {len(term)} axes of an operand that has {len(shape)}")
        for label, n in zip(term, shape, strict=True):
            if sizes.setdefault(label, n) != n:
                if n != 1 and sizes[label] != 1:
                    raise ValueError(f"an axis has size {sizes[label]} in one operand and {n} in another")
                sizes[label] = n if sizes[label] == 1 else sizes[label]
    # A size of 1 where others have more broadcasts, in a product as if the axis were not there.
    kept = [tuple(x for x, n in zip(t, s, strict=True) if n == sizes[x]) for t, s in zip(terms, shapes, strict=True)]
    prepare: list[Prepare] = []
    labels: list[Labels] = []
    for k, term in enumerate(terms):
        left = list(kept[k])
        reshaped = tuple(sizes[label] for label in left) if len(left) != len(term) else None
        diagonals = []
        for label in dict.fromkeys(left):
            while left.count(label) > 1:
                i = left.index(label)
                j = left.index(label, i + 1)
                diagonals.append((i, j))
                left = [x for n, x in enumerate(left) if n not in (i, j)] + [label]
        others = {label for n, other in enumerate(kept) if n != k for label in other}
        summed = tuple(i for i, label in enumerate(left) if label not in output and label not in others)
        labels.append(tuple(label for i, label in enumerate(left) if i not in summed))
        if reshaped is not None or diagonals or summed:
            prepare.append(Prepare(k, reshaped, tuple(diagonals), summed))

    pairs = []
    for left_index, right_index in _path(labels, output, sizes, optimize):
        x, y = labels[left_index], labels[right_index]
        rest = [term for n, term in enumerate(labels) if n not in (left_index, right_index)]
        needed = set(output).union(*rest)
        # With both orders tried, most results come out as they are wanted, with no transposition.
        pair, result = _pair(left_index, right_index, x, y, needed, output)
        if not rest and result != output:
            swapped, other = _pair(right_index, left_index, y, x, needed, output)
            if other == output:
                pair, result = swapped, other
        pairs.append(pair)
        labels = [*rest, result]
    final = labels[0]
    order = tuple(final.index(label) for label in output)
    return Plan(tuple(prepare), tuple(pairs), order if order != tuple(range(len(order))) else None)


def _pair(i: int, j: int, x: Labels, y: Labels, needed: set[Any], output: Labels) -> tuple[Pair, Labels]:
    contracted = [label for label in x if label in y and label not in needed]
    batch = sorted((label for label in x if label in y and label in needed), key=_place(output))
    if not contracted:
        # Broadcasting does it: one has the last axes of the other.
        if x[len(x) - len(y) :] == y:
            return Pair(i, j, None), x
        if y[len(y) - len(x) :] == x:
            return Pair(i, j, None), y
    dims = (
        (tuple(map(x.index, contracted)), tuple(map(y.index, contracted))),
        (tuple(map(x.index, batch)), tuple(map(y.index, batch))),
    )
    free = [label for label in (*x, *y) if label not in contracted and label not in batch]
    return Pair(i, j, dims), (*batch, *free)


def _place(output: Labels) -> Any:
    return lambda label: output.index(label) if label in output else len(output)


def _path(labels: Sequence[Labels], output: Labels, sizes: dict[Any, int], optimize: Any) -> list[tuple[int, int]]:
    """Which two operands to multiply at each step; the product takes the last place."""
    n = len(labels)
    if n < 3:
        return [(0, 1)] if n == 2 else []
    if isinstance(optimize, tuple):
        steps = [step for step in optimize if step != "einsum_path"]
    elif optimize is False:
        steps = []
    else:
        spelled = ",".join(map("".join, labels)) + "->"
        spelled += "".join(x for x in output if any(x in term for term in labels))
        shells = [np.broadcast_to(np.zeros(()), [sizes[x] for x in term]) for term in labels]
        method = "optimal" if n <= 4 else "greedy"
        steps = np.einsum_path(spelled, *shells, optimize=(method, 2**62))[0][1:]
    path = []
    for step in steps:
        # A step of more than two operands is taken from the left.
        chosen = sorted(step)
        if len(chosen) < 2:
            continue
        path.append((chosen[0], chosen[1]))
        n -= 1
        for _ in chosen[2:]:
            path.append((chosen[2] - 2, n - 1))
            chosen = [chosen[0], chosen[1], *[c - 1 for c in chosen[3:]]]
            n -= 1
    while n > 1:
        path.append((0, 1))
        n -= 1
    return path


def contract(p: Plan, operands: Sequence[Any], avals: Sequence[Aval], precision: Any = None, dtype: Any = None) -> Any:
    """Carries out a plan."""
    xs = list(operands)
    for aval in avals:
        if aval.dtype != avals[0].dtype:
            xs = promoted(xs, avals)
            break
    keywords: dict[str, Any] = {}
    if precision is not None:
        keywords["precision"] = tuple(precision) if isinstance(precision, list) else precision
    if dtype is not None:
        keywords["dtype"] = dtype_of(dtype)
    for k, shape, diagonals, summed in p.prepare:
        x = xs[k] if shape is None else ops.reshape(xs[k], shape=shape)
        for i, j in diagonals:
            x = diagonal(x, 0, i, j)
        xs[k] = ops.reduce_sum(x, axes=summed) if summed else x
    for i, j, dims in p.pairs:
        x, y = xs[i], xs[j]
        if dims is not None:
            out = ops.dot_general(x, y, dims=dims, **keywords)
        else:
            if dtype is not None:
                x, y = ops.astype(x, dtype=keywords["dtype"]), ops.astype(y, dtype=keywords["dtype"])
            out = ops.mul(x, y)
        xs = [v for n, v in enumerate(xs) if n not in (i, j)] if len(xs) > 2 else []
        xs.append(out)
    out = xs[0]
    return out if p.order is None else ops.transpose(out, axes=p.order)


# -- the products


_MATRICES = (((1,), (0,)), ((), ()))


def matmul(a: Any, b: Any, *, precision: Any = None, preferred_element_type: Any = None) -> Any:
    """The product of matrices in the last two axes; the axes before them broadcast.

    A one-dimensional `a` is a row, a one-dimensional `b` a column, and that axis is missing in the result.

    Args:
      precision: as `jax.lax.dot_general` has it.
      preferred_element_type: the dtype to accumulate in and return.

    Raises:
      ValueError: for scalars, and where sizes do not fit.

    Example:
      >>> import tracegrad.numpy as np
      >>> np.matmul(np.ones((5, 2, 3)), np.ones((3, 4))).shape
      (5, 2, 4)
    """
    x = a.aval if type(a) is Tracer else type_of(a)
    y = b.aval if type(b) is Tracer else type_of(b)
    n, m = len(x.shape), len(y.shape)
    if not n or not m:
        raise ValueError(f"{called()}: {x} and {y} {here()}: a scalar is no matrix. Use `*`.")
    if x.dtype != y.dtype:
        a, b = promoted((a, b), (x, y))
    keywords: dict[str, Any] = {}
    if precision is not None:
        keywords["precision"] = tuple(precision) if isinstance(precision, list) else precision
    if preferred_element_type is not None:
        keywords["dtype"] = dtype_of(preferred_element_type)
    if m <= 2:
        dims = _MATRICES if n == 2 else (((n - 1,), (0,)), ((), ()))
        return ops.dot_general(a, b, dims=dims, **keywords)
    if n == m and x.shape[:-2] == y.shape[:-2]:
        batch = tuple(range(n - 2))
        return ops.dot_general(a, b, dims=(((n - 1,), (n - 2,)), (batch, batch)), **keywords)
    if x.shape[-1] != y.shape[-2]:
        raise ValueError(
            f"{called()}: shapes {x.shape} and {y.shape} do not fit {here()}: the last size of the first, "
            f"{x.shape[-1]}, must be the last but one of the second, {y.shape[-2]}. Transpose or reshape one of them."
        )
    subscripts = "...ij,...jk->...ik" if n > 1 else "j,...jk->...k"
    return einsum(subscripts, a, b, precision=precision, preferred_element_type=preferred_element_type)


def dot(a: Any, b: Any, *, precision: Any = None, preferred_element_type: Any = None, out: None = None) -> Any:
    """The sum of products over the last axis of `a` and the last but one of `b`; of scalars, the product."""
    refuse(out=out)
    x, y = type_of(a), type_of(b)
    if not x.ndim or not y.ndim:
        return ops.mul(a, b)
    dims = (((x.ndim - 1,), (max(y.ndim - 2, 0),)), ((), ()))
    return _dot_general(a, b, x, y, dims, precision, preferred_element_type)


def _dot_general(a: Any, b: Any, x: Aval, y: Aval, dims: Any, precision: Any, dtype: Any) -> Any:
    if x.dtype != y.dtype:
        a, b = promoted((a, b), (x, y))
    keywords = {} if precision is None else {"precision": precision}
    if dtype is not None:
        keywords["dtype"] = dtype_of(dtype)
    return ops.dot_general(a, b, dims=dims, **keywords)


def inner(a: Any, b: Any, *, precision: Any = None, preferred_element_type: Any = None) -> Any:
    """The sum of products over the last axes."""
    x, y = type_of(a), type_of(b)
    if not x.ndim or not y.ndim:
        return ops.mul(a, b)
    return _dot_general(a, b, x, y, (((x.ndim - 1,), (y.ndim - 1,)), ((), ())), precision, preferred_element_type)


def vdot(a: Any, b: Any, *, precision: Any = None, preferred_element_type: Any = None) -> Any:
    """The sum of the products of all elements, the conjugate of the first with the second."""
    return dot(ops.conj(ravel(a)), ravel(b), precision=precision, preferred_element_type=preferred_element_type)


def vecdot(x1: Any, x2: Any, /, *, axis: int = -1, precision: Any = None, preferred_element_type: Any = None) -> Any:
    """The sum over an axis of products, the conjugate of the first with the second; the other axes broadcast."""
    if axis != -1 or not type_of(x1).ndim or not type_of(x2).ndim:
        x1, x2 = moveaxis(x1, axis, -1), moveaxis(x2, axis, -1)
    x1, x2 = array_like(x1), array_like(x2)
    n, m = x1.shape[-1], x2.shape[-1]
    if n != m:
        raise ValueError(f"{called()}: {describe(x1)} and {describe(x2)} have {n} and {m} along axis {axis} {here()}")
    x1 = ops.conj(x1) if x1.dtype.kind == "c" else x1
    return einsum("...i,...i->...", x1, x2, precision=precision, preferred_element_type=preferred_element_type)


def matvec(x1: Any, x2: Any, /) -> Any:
    """The products of matrices in the last two axes with vectors in the last one; the axes before them broadcast."""
    if type_of(x2).ndim < 1 or type_of(x1).ndim < 2:
        raise ValueError(f"{called()}: {describe(x1)} and {describe(x2)} {here()}. Give matrices and vectors.")
    return einsum("...ij,...j->...i", x1, x2)


def vecmat(x1: Any, x2: Any, /) -> Any:
    """The products of conjugated vectors in the last axis with matrices in the last two; the axes before broadcast."""
    if type_of(x1).ndim < 1 or type_of(x2).ndim < 2:
        raise ValueError(f"{called()}: {describe(x1)} and {describe(x2)} {here()}. Give vectors and matrices.")
    return einsum("...i,...ij->...j", ops.conj(x1), x2)


def outer(a: Any, b: Any, out: None = None) -> Any:
    """The products of each element of one with each of the other."""
    refuse(out=out)
    return ops.mul(ops.reshape(a, shape=(math.prod(type_of(a).shape), 1)), ravel(b))


def tensordot(a: Any, b: Any, axes: Any = 2, *, precision: Any = None, preferred_element_type: Any = None) -> Any:
    """The sum of products over several axes: the last of `a` and the first of `b`, or a pair of lists of axes."""
    x, y = type_of(a), type_of(b)
    if isinstance(axes, (tuple, list)):
        first, second = (p if isinstance(p, (tuple, list)) else (p,) for p in axes)
        left, right = order_of(first, x.ndim), order_of(second, y.ndim)
        if len(left) != len(right):
            raise ValueError(
                f"{called()}: axes {axes} name {len(left)} and {len(right)} axes {here()}. Name as many of each."
            )
    else:
        k = integer(axes, "axes")
        if k > min(x.ndim, y.ndim):
            raise ValueError(f"{called()}: axes={k}, but the arrays have shapes {x.shape} and {y.shape} {here()}")
        left, right = tuple(range(x.ndim - k, x.ndim)), tuple(range(k))
    return _dot_general(a, b, x, y, ((left, right), ((), ())), precision, preferred_element_type)


kron = borrow(jnp.kron, "The Kronecker product: blocks of `b`, each multiplied by an element of `a`.")


@written("axisa", "axisb", "axisc", "axis")
def cross(a: Any, b: Any, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: int | None = None) -> Any:
    """The vector product along an axis of size 3; for vectors of size 2, its third component."""
    axes = (axisa, axisb) if axis is None else (axis, axis)
    sizes = [jnp.moveaxis(x, i, -1).shape[-1] for x, i in zip((a, b), axes, strict=True)]
    if sizes not in ([2, 2], [3, 3]):
        raise ValueError(
            f"{called()}: the vectors have {sizes[0]} and {sizes[1]} elements {here()}. Give both 3, or both 2."
        )
    return jnp.cross(a, b, axisa, axisb, axisc, axis)


def trace(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1, dtype: Any = None, out: None = None) -> Any:
    """The sum of the diagonals along two axes."""
    refuse(out=out)
    return sum_(diagonal(a, offset, axis1, axis2), -1, dtype)


# -- einsum


def einsum(
    subscripts: Any, /, *operands: Any, out: None = None, optimize: Any = True, precision: Any = None,
    preferred_element_type: Any = None,
) -> Any:  # fmt: skip
    """The sum of products that Einstein's notation describes.

    Each pair of operands becomes one `dot_general`, in an order that costs few multiplications. A label twice in one
    operand is its diagonal; `...` stands for axes that broadcast; without `->` the result has the labels that occur
    once, in alphabetical order. The form with lists of integers, `einsum(x, [0, 1], y, [1, 2])`, is NumPy's.

    Args:
      optimize: `False` for the order given, or a path from `numpy.einsum_path`.

    Raises:
      ValueError: if labels do not fit the operands.

    Example:
      >>> import tracegrad.numpy as np
      >>> np.einsum("bij,bjk->bik", np.ones((2, 3, 4)), np.ones((2, 4, 5))).shape
      (2, 3, 5)
    """
    refuse(out=out)
    if not isinstance(subscripts, str):
        subscripts, operands = _with_lists((subscripts, *operands))
    avals = tuple([x.aval if type(x) is Tracer else type_of(x) for x in operands])
    if isinstance(optimize, list):
        optimize = tuple(x if isinstance(x, str) else tuple(x) for x in optimize)
    elif optimize is not False:
        optimize = "greedy"
    try:
        p = einsum_plan(subscripts, tuple([a.shape for a in avals]), optimize)
    except ValueError as error:
        shapes = ", ".join(str(a.shape) for a in avals)
        raise ValueError(f"{called()}: {subscripts!r} does not fit shapes {shapes} {here()}: {error}") from None
    result = contract(p, operands, avals, precision, preferred_element_type)
    if not p.pairs and len(operands) == 1 and not p.prepare and p.order is None:
        result = array_like(result)
    return result


def einsum_path(subscripts: Any, /, *operands: Any, optimize: Any = "greedy") -> tuple[Any, str]:
    """The order in which `numpy.einsum_path` would multiply the operands, for `einsum(optimize=...)`, and a report."""
    given = [subscripts, *operands]
    for i in range(1, len(given)) if isinstance(subscripts, str) else range(0, len(given) - 1, 2):
        given[i] = np.broadcast_to(np.zeros(()), type_of(given[i]).shape)
    try:
        path, report = np.einsum_path(*given, optimize="greedy" if optimize == "auto" else optimize)
    except ValueError as error:
        raise ValueError(f"{called()}({subscripts!r}) {here()}: {error}") from None
    return path, str(report)


@lru_cache(maxsize=4096)
def einsum_plan(subscripts: Any, shapes: tuple[tuple[int, ...], ...], optimize: Any) -> Plan:
    """The plan for operands of these shapes; subscripts are a string, or tuples, of each operand and of the result."""
    if isinstance(subscripts, str):
        arguments: list[Any] = [subscripts, *shapes]
        left, arrow, right = subscripts.partition("->")
    else:
        arguments = [x for pair in zip(shapes, subscripts, strict=False) for x in pair]
        arguments += subscripts[len(shapes) :]
        left, arrow, right = "", "", ""
    written, output, _ = parse_einsum_input(arguments, shapes=True)
    if not written.replace(",", "x").isalpha():
        raise ValueError("there is something other than letters and '...'")
    if arrow and "..." not in right and set(written) - set(left) - set(output):
        raise ValueError("the operands have '...' and the result has not. Add it after '->'.")
    return plan(tuple(map(tuple, written.split(","))), tuple(output), shapes, optimize)


def _with_lists(arguments: Sequence[Any]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """NumPy's other form of `einsum`, operands each followed by a list of integers, as the lists and the operands."""
    pairs = len(arguments) // 2 * 2
    lists = [*arguments[1:pairs:2], *arguments[pairs:]]
    for labels in lists:
        if not isinstance(labels, (tuple, list)):
            raise TypeError(
                f"{called()}: {describe(labels)} stands where labels are expected {here()}. Give a string first."
            )
    return tuple(map(tuple, lists)), tuple(arguments[0:pairs:2])


__all__ = [
    "cross", "dot", "einsum", "einsum_path", "inner", "kron", "matmul", "matvec", "outer", "tensordot", "trace", "vdot",
    "vecdot", "vecmat",
]  # fmt: skip
