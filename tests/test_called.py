"""An error names the public function as the user called it, whatever it is made of, and however it was reached."""

from __future__ import annotations

import ast
import functools
import inspect
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tracegrad import lax, nn
from tracegrad.errors import called

X = np.ones((2, 3), np.float32)
V = np.ones(3, np.float32)
S = tg.scipy

CASES: list[tuple[str, Callable[[Any], Any]]] = [
    # tracegrad.numpy: a wrong axis
    ("cross", lambda x: tnp.cross(x, x, axis=5)),
    ("std", lambda x: tnp.std(x, axis=5)),
    ("var", lambda x: tnp.var(x, axis=5)),
    ("mean", lambda x: tnp.mean(x, axis=(0, 5))),
    ("amax", lambda x: tnp.amax(x, axis=5)),
    ("max", lambda x: tnp.max(x, axis=5)),
    ("ptp", lambda x: tnp.ptp(x, axis=5)),
    ("median", lambda x: tnp.median(x, axis=5)),
    ("nanstd", lambda x: tnp.nanstd(x, axis=5)),
    ("cumsum", lambda x: tnp.cumsum(x, axis=5)),
    ("count_nonzero", lambda x: tnp.count_nonzero(x, axis=5)),
    ("flip", lambda x: tnp.flip(x, axis=5)),
    ("rot90", lambda x: tnp.rot90(x, axes=(0, 5))),
    ("gradient", lambda x: tnp.gradient(x, axis=5)[0]),
    ("swapaxes", lambda x: tnp.swapaxes(x, 0, 5)),
    ("stack", lambda x: tnp.stack([x, x], axis=5)),
    ("take", lambda x: tnp.take(x, np.array([0]), axis=5)),
    ("sort", lambda x: tnp.sort(x, axis=5)),
    ("argmax", lambda x: tnp.argmax(x, axis=5)),
    ("roll", lambda x: tnp.roll(x, 1, axis=5)),
    # a wrong shape
    ("trace", lambda x: tnp.trace(x[0])),
    ("subtract", lambda x: tnp.subtract(x, X[:, :2])),
    ("divide", lambda x: tnp.divide(x, X[:, :2])),
    ("true_divide", lambda x: tnp.true_divide(x, X[:, :2])),
    ("hypot", lambda x: tnp.hypot(x, X[:, :2])),
    ("matmul", lambda x: tnp.matmul(x, X)),
    ("vander", lambda x: tnp.vander(x)),
    ("reshape", lambda x: tnp.reshape(x, (5,))),
    ("einsum", lambda x: tnp.einsum("ij,jk", x, X)),
    ("inner", lambda x: tnp.inner(x, V[:2])),
    ("convolve", lambda x: tnp.convolve(x, V)),
    ("polyval", lambda x: tnp.polyval(x, V)),
    ("cov", lambda x: tnp.cov(x[None])),
    ("histogram", lambda x: tnp.histogram(x, bins=np.ones((2, 2)))),
    ("interp", lambda x: tnp.interp(x, V, V[:2])),
    # a wrong dtype, a string, a list with a string in it
    ("arctan2", lambda x: tnp.arctan2(x, "a")),
    ("logical_and", lambda x: tnp.logical_and(x, "a")),
    ("average", lambda x: tnp.average(x, weights="a")),
    ("clip", lambda x: tnp.clip(x, "a", 1.0)),
    ("bitwise_count", lambda x: tnp.bitwise_count(x)),
    ("packbits", lambda x: tnp.packbits(x)),
    ("norm", lambda x: tnp.linalg.norm([x, "a"])),
    ("inv", lambda x: tnp.linalg.inv(x)),
    ("slogdet", lambda x: tnp.linalg.slogdet(x)),
    ("cond", lambda x: tnp.linalg.cond(x[0])),
    ("rfft", lambda x: tnp.fft.rfft(x, axis=5)),
    ("ifftshift", lambda x: tnp.fft.ifftshift(x, axes=5)),
    # an option
    ("quantile", lambda x: tnp.quantile(x, 0.5, method="middle")),
    ("pad", lambda x: tnp.pad(x, 1, mode="mirror")),
    ("meshgrid", lambda x: tnp.meshgrid(x[0], x[0], indexing="uv")),
    ("searchsorted", lambda x: tnp.searchsorted(V, x, side="middle")),
    # tracegrad.lax, with functions that are made by one function
    ("cumprod", lambda x: lax.cumprod(x, axis=5)),
    ("cummax", lambda x: lax.cummax(x, axis=5)),
    ("reduce_prod", lambda x: lax.reduce_prod(x, (5,))),
    ("scatter_add", lambda x: lax.scatter_add(x, np.zeros((1, 1), int), V, lax.ScatterDimensionNumbers((), (), (0,)))),
    ("dynamic_slice_in_dim", lambda x: lax.dynamic_slice_in_dim(x, 0, 1, axis=5)),
    ("batch_matmul", lambda x: lax.batch_matmul(x, V)),
    ("conv", lambda x: lax.conv(x, V, (1,), "SAME")),
    ("sort_key_val", lambda x: lax.sort_key_val(x, V)),
    ("sin", lambda x: lax.sin("a")),
    # the other namespaces
    ("softmax", lambda x: nn.softmax(x, axis=5)),
    ("glu", lambda x: nn.glu(x)),
    ("huber", lambda x: nn.losses.huber(x, V[:2])),
    ("squared_error", lambda x: nn.losses.squared_error(x, X, reduction="middle")),
    ("max_pool", lambda x: nn.max_pool(x)),
    ("gammaln", lambda x: S.special.gammaln("a")),
    ("logsumexp", lambda x: S.special.logsumexp(x, axis=5)),
    ("cho_factor", lambda x: S.linalg.cho_factor(x)),
    ("expm", lambda x: S.linalg.expm(x)),
]


def fails(name: str, call: Callable[[], Any]) -> None:
    with pytest.raises((TypeError, ValueError, NotImplementedError, IndexError)) as caught:
        call()
    message = str(caught.value)
    begins = message.startswith((f"{name}: ", f"{name}(", f"{name} takes"))
    assert begins and "test_called.py" in message, f"{name} is not the first word of: {message}"


@pytest.mark.parametrize("case", CASES, ids=[f"{i} {name}" for i, (name, _) in enumerate(CASES)])
def test_the_function_as_it_was_called(case: tuple[str, Callable[[Any], Any]]) -> None:
    name, call = case
    for run in (call, tg.grad(lambda x: call(x).sum()), tg.jit(call)):
        fails(name, functools.partial(run, X))


OF_TRACED_VALUES: list[tuple[str, Callable[[Any], Any]]] = [
    ("sum", lambda x: x.sum(axis=5)),
    ("reshape", lambda x: x.reshape(5)),
    ("trace", lambda x: x[0].trace()),
    ("matmul", lambda x: x @ X),
    ("power", lambda x: x ** X[:, :2]),
    ("add", lambda x: x + X[:, :2]),
    ("mul", lambda x: "a" * x),
    ("std", lambda x: np.std(x, axis=5)),
    ("trace", lambda x: np.trace(x[0])),
    ("cross", lambda x: np.cross(x, x, axis=5)),
    ("amin", lambda x: np.amin(x, axis=5)),
    ("subtract", lambda x: np.subtract(x, X[:, :2])),
    ("hypot", lambda x: np.hypot(X[:, :2], x)),
    ("cov", lambda x: np.cov(x[None])),
    ("norm", lambda x: np.linalg.norm(x, axis=(0, 5))),
    ("rfft", lambda x: np.fft.rfft(x, axis=5)),
    ("sum", lambda x: np.add.reduce(x, axis=5)),
    ("pad", lambda x: np.pad(x, 1, mode="mirror")),
]


@pytest.mark.parametrize("case", OF_TRACED_VALUES, ids=[name for name, _ in OF_TRACED_VALUES])
def test_methods_operators_and_functions_of_numpys(case: tuple[str, Callable[[Any], Any]]) -> None:
    name, call = case
    for run in (tg.grad(lambda x: call(x).sum()), tg.jit(call), tg.vmap(lambda x: call(x), in_axes=None, axis_size=2)):
        fails(name, functools.partial(run, X))


def test_however_it_is_reached() -> None:
    assert tg.train  # whose files use functions of the package that are no public ones

    def wrapper(f: Any) -> Any:
        @functools.wraps(f)
        def inner(*args: Any, **kwargs: Any) -> Any:
            return f(*args, **kwargs)

        return inner

    half = functools.partial(tnp.std, axis=5)
    for name, call in (
        ("std", lambda: wrapper(tnp.std)(X, axis=5)),
        ("std", lambda: half(X)),
        ("std", lambda: tg.jit(half)(X)),
        ("std", lambda: tg.grad(half)(X)),
        ("std", lambda: tg.jit(tnp.std, static_argnames="axis")(X, axis=5)),
        ("cross", lambda: tg.vmap(tnp.cross)(X, X[:, :1])),
        ("cross", lambda: jax.tree.map(tnp.cross, {"a": X}, {"a": X[:, :1]})),
        ("cross", lambda: tg.scan(lambda c, x: (c, tnp.cross(x, V[:1])), 0.0, X)),
        ("cross", lambda: tg.checkpoint(lambda x: tnp.cross(x, V[:1]))(V)),
        ("cross", lambda: tnp.apply_along_axis(lambda x: tnp.cross(x, V[:1]), 0, X.T)),
        ("cumprod", lambda: next(map(lax.cumprod, [X], [5]))),
        ("subtract", lambda: next(iter([tnp.subtract(X, "a")]))),
    ):  # fmt: skip
        fails(name, call)


def test_an_op_inside_a_function_is_named_too() -> None:
    for run in (lambda x: tnp.trapezoid(x, x=np.ones(5)), tg.jit(lambda x: tnp.trapezoid(x, x=np.ones(5)))):
        with pytest.raises(ValueError, match=r"^trapezoid: mul\(f32\[.*\) at .*test_called.py"):
            run(X)
    with pytest.raises(ValueError, match=r"^sub\(f32\[2,3\], f32\[2,2\]\)"):
        tg.jit(lambda x: x - X[:, :2])(X)


def test_no_function_says_its_own_name() -> None:
    """A name in a message is found, not written: what a function says of itself is wrong in a function made of it."""
    package = pathlib.Path(inspect.getfile(tg)).parent
    files = [file for folder in ("lax", "nn", "numpy", "scipy") for file in package.glob(f"{folder}/*.py")]
    written = []
    for file in files:
        tree = ast.parse(file.read_text())
        names = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")}
        for raised in (n for n in ast.walk(tree) if isinstance(n, ast.Raise)):
            for text in (n.value for n in ast.walk(raised) if isinstance(n, ast.Constant)):
                if isinstance(text, str) and text.partition(":")[0] in names and ":" in text:
                    written.append((file.name, raised.lineno, text))
    assert written == []
    assert len(files) > 20 and called.__doc__


# -- a string where an array or another string is expected: the message names the parameter

L, A = nn.losses, np.eye(3, dtype=np.float32)
OPTIONS: list[tuple[str, str, Callable[[Any], Any]]] = [
    ("mode", "'clip'", lambda x: tnp.choose(x.astype(int), [x, x], mode="foo")),
    ("mode", "'same'", lambda x: tnp.convolve(V, V, mode="foo")),
    ("mode", "'same'", lambda x: tnp.correlate(V, V, mode="foo")),
    ("indexing", "'ij'", lambda x: tnp.meshgrid(V, V, indexing="foo")),
    ("method", "nearest", lambda x: tnp.quantile(x, 0.5, method="foo")),
    ("method", "nearest", lambda x: tnp.nanpercentile(x, 50, method="foo")),
    ("method", "", lambda x: tnp.searchsorted(V, x, method="foo")),
    ("bitorder", "'little'", lambda x: tnp.packbits(x > 0, bitorder="foo")),
    ("mode", "reflect", lambda x: tnp.pad(x, 1, mode="foo")),
    ("order", "'C'", lambda x: tnp.reshape(x, (6,), order="foo")),
    ("order", "'C'", lambda x: tnp.ravel(x, order="foo")),
    ("mode", "clip", lambda x: tnp.take(x, np.array([0]), axis=0, mode="foo")),
    ("mode", "clip", lambda x: tnp.take_along_axis(x, np.zeros((2, 1), int), 1, mode="foo")),
    ("side", "'left'", lambda x: tnp.searchsorted(V, x, side="foo")),
    ("mode", "'largest'", lambda x: tnp.top_k(x, 1, mode="foo")),
    ("mode", "'wrap'", lambda x: tnp.ravel_multi_index((V.astype(int),), (3,), mode="foo")),
    ("trim", "'f'", lambda x: tnp.trim_zeros(V, trim="foo")),
    ("UPLO", "'L'", lambda x: tnp.linalg.eigh(A, UPLO="foo")),
    ("ord", "'fro'", lambda x: tnp.linalg.norm(x, ord="foo")),
    ("ord", "'nuc'", lambda x: tnp.linalg.matrix_norm(x, ord="foo")),
    ("mode", "'reduced'", lambda x: tnp.linalg.qr(x, mode="foo")),
    ("method", "'lu'", lambda x: tnp.linalg.slogdet(A, method="foo")),
    ("norm", '"ortho"', lambda x: tnp.fft.rfft(x, norm="foo")),
    ("mode", "clip", lambda x: lax.scatter_add(x, np.zeros((1, 1), int), x, lax.ScatterDimensionNumbers(
        (0, 1), (), (0,)), mode="foo")),
    ("padding", "'SAME'", lambda x: lax.reduce_window(x, 0.0, lax.add, (1, 1), padding="foo")),
    ("padding", "'SAME'", lambda x: nn.avg_pool(x[None], padding="foo")),
    ("padding", "'SAME'", lambda x: nn.conv(x[None], np.ones((1, 3, 2), np.float32), padding="foo")),
    ("reduction", "'sum'", lambda x: L.huber(x, X, reduction="foo")),
    ("reduction", "'none'", lambda x: L.sparse_categorical_cross_entropy(x, np.array([0, 1]), reduction="foo")),
    ("side", "'left'", lambda x: S.linalg.polar(A, side="foo")),
    ("mode", "'economic'", lambda x: S.linalg.qr(x, mode="foo")),
    ("assume_a", "'pos'", lambda x: S.linalg.solve(A, A, assume_a="foo")),
    ("output", "'complex'", lambda x: S.linalg.schur(A, output="foo")),
    ("mode", "fan_in", lambda x: tg.initializers.variance_scaling(1.0, "foo", "normal")),
    ("distribution", "normal", lambda x: tg.initializers.variance_scaling(1.0, "fan_in", "foo")),
]  # fmt: skip


@pytest.mark.parametrize("case", OPTIONS, ids=[f"{i} {name}" for i, (name, *_) in enumerate(OPTIONS)])
def test_a_wrong_option_is_named_with_those_that_there_are(case: tuple[str, str, Callable[[Any], Any]]) -> None:
    parameter, valid, call = case
    for run in (call, tg.jit(call)):
        with pytest.raises((TypeError, ValueError, NotImplementedError)) as caught:
            run(X)
        message = str(caught.value)
        said = message.partition("`")[0] + message.rpartition("`")[2]
        assert parameter in said and valid in said and "foo" in said and "test_called.py" in said, message


def with_mode(x: Any, mode: Any, *rest: Any, scale: Any = 1.0) -> Any:
    return (x * 2).sum()


STRINGS: list[tuple[str, Callable[[], Any]]] = [
    ("argument mode of with_mode", lambda: tg.jit(with_mode)(X, "a")),
    ("argument scale of with_mode", lambda: tg.jit(with_mode)(X, 1.0, scale="a")),
    ("argument rest[1] of with_mode", lambda: tg.jit(with_mode)(X, 1.0, 2.0, "a")),
    ("argument mode['k'][1] of with_mode", lambda: tg.jit(with_mode)(X, {"k": [1.0, "a"]})),
    ("argument mode of with_mode", lambda: tg.grad(tg.jit(with_mode))(X, "a")),
    ("argument scale of with_mode", lambda: tg.grad(tg.jit(with_mode))(X, 1.0, scale="a")),
    ("argument rest[0] of with_mode", lambda: tg.jit(with_mode, static_argnums=1)(X, "a", "a")),
    ("argument mode of with_mode", lambda: tg.jit(with_mode).lower(X, "a")),
    ("argument mode of with_mode", lambda: tg.grad(with_mode, argnums=1)(X, "a")),
    ("argument mode of with_mode", lambda: tg.vmap(with_mode)(X, "a")),
    ("argument mode of with_mode", lambda: tg.pmap(with_mode)(X, "a")),
    ("argument mode of with_mode", lambda: tg.grad(tg.checkpoint(with_mode))(X, "a")),
    ("argument mode of with_mode", lambda: tg.eval_shape(with_mode, X, "a")),
    ("argument mode of with_mode", lambda: tg.trace(with_mode)(X, "a")),
]


@pytest.mark.parametrize("case", STRINGS, ids=[f"{i} {name}" for i, (name, _) in enumerate(STRINGS)])
def test_a_string_argument_is_named_by_its_parameter(case: tuple[str, Callable[[], Any]]) -> None:
    words, call = case
    with pytest.raises(TypeError) as caught:
        call()
    message = str(caught.value)
    assert words in message and "str 'a'" in message and "test_called.py" in message, message


def test_a_static_argument_that_is_not_hashable() -> None:
    for call in (
        lambda: tg.jit(with_mode, static_argnums=1)(X, [1]),
        lambda: tg.jit(with_mode, static_argnames="mode")(X, mode=[1]),
    ):
        with pytest.raises(TypeError, match=r"jit: the static argument mode of with_mode is list .* not hashable"):
            call()
