"""Many devices against one: every gradient is that of the full batch on a single device."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from jax import lax

import tracegrad as tg
import tracegrad.numpy as tnp
from tracegrad.parallel import axis_index, axis_size, pmap, pmax, pmean, pmin, psum, split_batch, sum_gradients

RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 5)).astype(np.float32)
Y = RNG.normal(size=(16,)).astype(np.float32)
W = RNG.normal(size=(5,)).astype(np.float32)


def mean_loss(w, x, y):
    return tnp.mean((tnp.tanh(x @ w) - y) ** 2)


def sum_loss(w, x, y):
    return tnp.sum((tnp.tanh(x @ w) - y) ** 2)


def full_gradient(loss):
    reduce = {mean_loss: jax.numpy.mean, sum_loss: jax.numpy.sum}[loss]
    return jax.grad(lambda w: reduce((jax.numpy.tanh(X @ w) - Y) ** 2))(W)


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
@pytest.mark.parametrize("replicated", [True, False], ids=["replicated", "stacked"])
@pytest.mark.parametrize(("loss", "mean"), [(mean_loss, True), (sum_loss, False)], ids=["mean", "sum"])
def test_sum_gradients_gives_the_full_batch_gradient(devices, replicated, loss, mean):
    def local(w, x, y):
        return sum_gradients(tg.grad(loss)(w, x, y), "i", mean=mean)

    x, y = split_batch((X, Y), devices)
    w = W if replicated else np.stack([W] * devices)
    grads = pmap(local, "i", in_axes=(None if replicated else 0, 0, 0))(w, x, y)
    assert grads.shape == (devices, 5)
    for g in grads:
        close(g, full_gradient(loss))


@pytest.mark.parametrize("devices", [4, 8])
def test_the_gradient_of_a_loss_that_is_summed_over_devices_is_complete(devices):
    x, y = split_batch((X, Y), devices)
    for reduce, loss in ((pmean, mean_loss), (psum, sum_loss)):
        total = lambda w, x, y, loss=loss, reduce=reduce: reduce(loss(w, x, y), "i")  # noqa: E731
        value, grads = pmap(tg.value_and_grad(total), "i", in_axes=(None, 0, 0))(W, x, y)
        close(value[0], loss(W, X, Y))
        for g in grads:
            close(g, full_gradient(loss))


@pytest.mark.parametrize("devices", [2, 8])
def test_psum_inside_a_function_of_mapped_values(devices):
    x = X[:devices]
    cases = [
        (lambda x: ((x * psum(x, "i")) ** 2).sum(), lambda xs: ((xs * xs.sum(0)) ** 2).sum()),
        (lambda x: (tnp.tanh(x - pmean(x, "i")) ** 2).sum(), lambda xs: (jax.numpy.tanh(xs - xs.mean(0)) ** 2).sum()),
        # The same scalar on every device counts once.
        (lambda x: psum((x**2).sum(), "i"), lambda xs: (xs**2).sum()),
        (lambda x: psum(x, "i").sum() ** 2, lambda xs: xs.sum() ** 2),
        # Used both on its own and with what varies.
        (
            lambda x: (psum(x, "i") * x).sum() + psum(x.sum(), "i") ** 2 / axis_size("i"),
            lambda xs: (xs.sum(0) * xs).sum() + xs.sum() ** 2,
        ),
    ]
    for f, full in cases:
        close(pmap(tg.grad(f), "i")(x), jax.grad(full)(x))
        close(tg.jit(pmap(tg.grad(f), "i"))(x), jax.grad(full)(x))


def test_second_derivatives_through_psum():
    f = lambda x: (tnp.sin(x) * psum(x, "i")).sum()  # noqa: E731
    full = lambda xs: (jax.numpy.sin(xs) * xs.sum(0)).sum()  # noqa: E731
    x = X[:4]
    second = pmap(lambda x: tg.grad(lambda x: (tg.grad(f)(x) ** 2).sum())(x), "i")(x)
    close(second, jax.grad(lambda xs: (jax.grad(full)(xs) ** 2).sum())(x))


@pytest.mark.parametrize("wrap", [lambda f: f, tg.jit], ids=["undecorated", "jit"])
def test_gradient_of_a_function_that_contains_pmap(wrap):
    x, y = split_batch((X, Y), 8)

    def loss(w):
        return tnp.mean(pmap(mean_loss, "i", in_axes=(None, 0, 0))(w, x, y))

    close(wrap(tg.grad(loss))(W), full_gradient(mean_loss))
    second = jax.grad(lambda w: (jax.grad(lambda w: ((jax.numpy.tanh(X @ w) - Y) ** 2).mean())(w) ** 2).sum())(W)
    close(wrap(tg.grad(lambda w: (tg.grad(loss)(w) ** 2).sum()))(W), second)


def test_collectives_and_axes():
    xs = np.arange(8.0, dtype=np.float32)
    everything = pmap(
        lambda x: (psum(x, "i"), pmean(x, "i"), pmax(x, "i"), pmin(x, "i"), axis_index("i"), psum(1, "i")), "i"
    )(xs)
    for got, expected in zip(everything, (28.0, 3.5, 7.0, 0.0, np.arange(8), 8), strict=True):
        np.testing.assert_array_equal(got, np.broadcast_to(expected, 8))
    out = pmap(lambda x: {"a": x * 2, "b": psum(x, "i")}, "i", out_axes={"a": 1, "b": None})(
        np.ones((8, 3), np.float32)
    )
    assert out["a"].shape == (3, 8) and out["b"].tolist() == [8.0] * 3
    moved = pmap(lambda x, y: x + y, in_axes=(1, None))(np.ones((3, 8), np.float32), np.float32(1))
    assert moved.shape == (8, 3)


def test_a_body_is_recorded_once_and_reads_closed_over_arrays_anew():
    calls = []
    scale = np.float32(2) * np.ones(3, np.float32)

    @pmap
    def f(x):
        calls.append(1)
        return x * scale

    x = np.ones((8, 3), np.float32)
    np.testing.assert_array_equal(f(x), 2 * x)
    scale = 5 * np.ones(3, np.float32)
    np.testing.assert_array_equal(f(x), 5 * x)
    assert len(calls) == 1


def test_inside_a_mapping_of_jax():
    f = lambda x: ((x * psum(x, "i")) ** 2).sum()  # noqa: E731
    reference = jax.pmap(jax.grad(lambda x: ((x * lax.psum(x, "i")) ** 2).sum()), "i")(X[:8])
    close(jax.pmap(tg.grad(f), "i")(X[:8]), reference)


def test_gradient_through_results_that_are_one_for_all_devices():
    x, y = split_batch((X, Y), 4)

    def loss(w):
        mapped = pmap(lambda w, x, y: pmean(mean_loss(w, x, y), "i"), "i", in_axes=(None, 0, 0), out_axes=None)
        return mapped(w, x, y)

    close(tg.grad(loss)(W), full_gradient(mean_loss))
    second = jax.grad(lambda w: (jax.grad(lambda w: ((jax.numpy.tanh(X @ w) - Y) ** 2).mean())(w) ** 2).sum())(W)
    close(tg.grad(lambda w: (tg.grad(loss)(w) ** 2).sum())(W), second)


def test_many_steps_in_a_row_with_more_devices_than_cores():
    step = pmap(lambda w, x: w - 1e-3 * sum_gradients(tg.grad(sum_loss)(w, x, 0.0), "i", mean=False), "i",
                in_axes=(None, 0), out_axes=None)  # fmt: skip
    w, x = W, split_batch(X, 8)
    for _ in range(200):
        w = step(w, x)
    assert np.isfinite(w).all()


ERRORS = [
    (
        lambda: pmap(lambda x: x * 2, "i", out_axes=None)(np.ones((8, 3))),
        ValueError,
        ["result 0", "out_axes=None", "differs from device to device", "psum"],
    ),
    (lambda: split_batch(np.zeros((10, 3)), 4), ValueError, ["(10, 3)", "4 devices", "multiple of 4"]),
    (
        lambda: split_batch({"x": [np.zeros((10, 3))]}, 4),
        ValueError,
        ["split_batch: batch['x'][0] has 10 examples", "(10, 3)", "do not divide over 4 devices", "(such as 8)"],
    ),
    (lambda: split_batch((X, 1.0), 4), ValueError, ["batch[1] is f32[]", "no axis to split", "in_axes=None"]),
    (lambda: split_batch(X, 0), ValueError, ["split_batch: devices=0", "1 at least"]),
    (lambda: pmap(lambda x, mode: x)(X, "sum"), TypeError, ["argument mode of pmap's function", "str 'sum'"]),
    (lambda: pmap(lambda x: x)(np.zeros((9, 3))), ValueError, ["size 9", "8 devices", "split_batch(batch, 8)"]),
    (
        lambda: pmap(lambda x, y: x)(np.zeros((8, 3)), np.zeros((4, 3))),
        ValueError,
        ["8 (x, of shape (8, 3))", "4 (y, of shape (4, 3))", "in_axes"],
    ),
    (lambda: pmap(lambda x: x)(1.0), ValueError, ["shape ()", "no axis 0", "in_axes=None"]),
    (lambda: pmap(lambda x: x, in_axes=None)(np.zeros(3)), ValueError, ["no argument is mapped"]),
    (lambda: psum(np.zeros(3), "q"), NameError, ["'q'", "pmap(f, axis_name='q')"]),
    (
        lambda: pmap(lambda x: psum(x, "q"), "i")(np.zeros((8, 3))),
        NameError,
        ["'q'", "['i']"],
    ),
    (
        lambda: pmap(lambda w, x: pmean(tg.grad(lambda w, x: (w * x).sum())(w, x), "i"), "i", in_axes=(None, 0))(
            np.ones(3, np.float32), np.ones((8, 3), np.float32)
        ),
        ValueError,
        ["already summed", "in_axes=None", "sum_gradients"],
    ),
]


@pytest.mark.parametrize(("call", "kind", "parts"), ERRORS)
def test_errors_name_the_fact_the_line_and_the_remedy(call, kind, parts):
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    for part in [*parts, __file__]:
        assert part in message, message


# -- the arguments of jax.pmap


def test_static_arguments_are_python_values():
    recorded = []

    def f(x, how, scale):
        recorded.append(how)
        return (x + scale if how == "add" else x * scale) / axis_size("i")

    xs = np.arange(8.0, dtype=np.float32)
    for axes in (0, (0, None, 0), (0, None, None)):
        scale = np.float32(3) if axes == (0, None, None) else np.full(8, 3, np.float32)
        mapped = pmap(f, "i", in_axes=axes if axes != 0 else (0, None, 0), static_broadcasted_argnums=1)
        np.testing.assert_allclose(mapped(xs, "add", scale), (xs + 3) / 8)
        np.testing.assert_allclose(mapped(xs, "mul", scale), xs * 3 / 8)
        np.testing.assert_allclose(tg.jit(lambda x: mapped(x, "mul", scale))(xs), xs * 3 / 8)  # noqa: B023
        count = len(recorded)
        mapped(xs + 1, "mul", scale)
        assert len(recorded) == count
    everywhere = pmap(lambda x, n: x * n, static_broadcasted_argnums=(1,))
    np.testing.assert_allclose(everywhere(xs, 2), 2 * xs)
    with pytest.raises(TypeError, match=r"static argument n .* not hashable.*test_pmap"):
        everywhere(xs, [2])


def test_donated_arguments_are_gone():
    import warnings

    xs = jax.numpy.arange(8.0)
    step = pmap(lambda x, y: x + y, donate_argnums=0)
    placed = step(xs, np.ones(8, np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = step(placed, np.ones(8, np.float32))
    assert placed.is_deleted()
    np.testing.assert_array_equal(again, np.arange(8) + 2)


def test_size_backend_and_devices():
    assert pmap(lambda: axis_index("i"), "i", axis_size=4)().tolist() == [0, 1, 2, 3]
    assert pmap(lambda x: x * 2, backend="cpu")(np.ones(8)).tolist() == [2.0] * 8
    some = jax.devices()[4:6]
    out = pmap(lambda x: psum(x, "i"), "i", devices=some)(np.ones(2, np.float32))
    assert out.devices() == set(some) and out.tolist() == [2.0, 2.0]
    with pytest.raises(ValueError, match="devices and backend are both given"):
        pmap(lambda x: x, devices=some, backend="cpu")
    with pytest.raises(ValueError, match="axis_size=4, and the mapped axes have size 8"):
        pmap(lambda x: x, axis_size=4)(np.ones(8))
    text = pmap(lambda x: psum(x, "i"), "i").lower(np.ones(8, np.float32)).as_text()
    assert "all_reduce" in text


def test_a_warm_call_is_one_compiled_call():
    import sys

    step = pmap(lambda w, x: w - 0.1 * psum(x, "i"), "i", in_axes=(None, 0), out_axes=None)
    w, x = jax.numpy.ones(3), np.ones((8, 3), np.float32)
    w = step(step(w, x), x)
    calls = []
    sys.setprofile(lambda frame, event, argument: calls.append(1) if event == "call" else None)
    try:
        step(w, x)
    finally:
        sys.setprofile(None)
    assert len(calls) <= 100
