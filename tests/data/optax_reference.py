"""Makes `optax.npz`: what optax gives for the cases below. Run it by hand where optax is installed; no test imports it.

Each case is an expression in the names that optax and tracegrad share. `tests/test_optax.py` reads the file and
evaluates the same expressions with tracegrad's names. The problems are written out there and here in the same way.

    python tests/data/optax_reference.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

jax.config.update("jax_enable_x64", True)

STEPS, SCHEDULED = 50, 60
MASK = "{'w': True, 'b': False, 's': False}"
FINITE = "lambda g, step, params: skip_not_finite(g, step, params)"

REAL = [
    "sgd(0.05)",
    "sgd(0.02, momentum=0.9)",
    "sgd(0.02, momentum=0.9, nesterov=True)",
    "sgd(polynomial_schedule(0.1, 0.01, 2, 30, 5), momentum=0.5)",
    "adagrad(0.3)",
    "adagrad(0.3, 0.0, 1e-3)",
    "rmsprop(0.02)",
    "rmsprop(0.02, 0.8, 1e-3, 0.5, eps_in_sqrt=False)",
    "rmsprop(0.02, centered=True, momentum=0.9, nesterov=True)",
    "rmsprop(0.02, initial_scale=10.0, centered=True, eps_in_sqrt=False)",
    "rmsprop(0.02, momentum=0.5, bias_correction=True)",
    "adam(0.1)",
    "adam(0.1, 0.8, 0.95, 1e-3, 1e-2)",
    "adam(exponential_decay(0.1, 10, 0.5), nesterov=True)",
    "nadam(0.1)",
    "nadamw(0.1, weight_decay=0.1)",
    "adamw(0.1, weight_decay=0.05)",
    f"adamw(0.1, weight_decay=0.2, mask={MASK})",
    "adamw(0.1, weight_decay=linear_schedule(0.5, 0.0, 25))",
    "radam(0.05)",
    "radam(0.05, b2=0.9, nesterov=True)",
    "adafactor(0.05, min_dim_size_to_factor=2)",
    "adafactor(0.05, min_dim_size_to_factor=2, momentum=0.9, dtype_momentum='float64', weight_decay_rate=0.01)",
    "adafactor(min_dim_size_to_factor=128, multiply_by_parameter_scale=False, clipping_threshold=0.01)",
    "lamb(0.05)",
    f"lamb(0.05, weight_decay=0.1, mask={MASK})",
    "lion(0.02)",
    "lion(0.02, 0.8, 0.95, weight_decay=0.1)",
    "muon(0.05)",
    "muon(0.05, weight_decay=0.1, nesterov=False, adaptive=True, consistent_rms=0.2)",
    "muon(0.05, 'dion', preconditioning='spectral')",
    "muon(0.05, preconditioning='aol', adam_learning_rate=0.02)",
    "muon(0.05, preconditioning='schatten', adam_weight_decay=0.1)",
    "chain(clip_by_global_norm(0.5), sgd(0.1))",
    "chain(clip(0.3), sgd(0.1))",
    "chain(clip_by_block_rms(0.3), sgd(0.1))",
    "chain(ema(0.8), scale(-0.1))",
    "chain(ema(0.8, debias=False), scale_by_learning_rate(0.1))",
    "chain(scale_by_trust_ratio(0.1, 0.5, 0.01), scale(-0.1))",
    "chain(scale_by_param_block_rms(0.5), scale_by_schedule(cosine_decay_schedule(-0.1, 40)))",
    "chain(identity(), trace(0.9), scale(-0.01))",
    "MultiSteps(adam(0.1), 4, accumulator_dtype='float64')",
    "MultiSteps(sgd(0.1, momentum=0.9), lambda step: 1 + step // 4, use_grad_mean=False, accumulator_dtype='float64')",
    f"MultiSteps(sgd(0.1), 3, should_skip_update_fn={FINITE}, accumulator_dtype='float64')",
    "MultiSteps(adam(0.1), 2)",
    f"chain(masked(scale(0.5), {MASK}), sgd(0.1))",
    "multi_transform({1: adam(0.1), 2: sgd(0.05)}, {'w': 1, 'b': 2, 's': 2})",
    "apply_if_finite(adam(0.1), 10)",
    "schedule_free(sgd(0.1), 0.1)",
    "schedule_free(rmsprop(0.05), linear_schedule(0.01, 0.05, 10), b1=0.8, weight_lr_power=1.0)",
    "schedule_free_sgd(warmup_constant_schedule(0, 0.1, 10), weight_decay=0.01)",
    "schedule_free_adamw(warmup_constant_schedule(0, 0.1, 5), weight_decay=0.01)",
    "chain(sgd(0.1), reduce_on_plateau(0.5, patience=2, cooldown=2, rtol=1e-2, min_scale=0.05))",
    "chain(adam(0.3), reduce_on_plateau(0.5, patience=1, accumulation_size=3, atol=1e-3))",
    "inject_hyperparams(adam)(learning_rate=linear_schedule(0.1, 0.01, 40), b1=0.8)",
    "sam(sgd(0.05), chain(normalize(), sgd(0.05)))",
    "sam(adam(0.05), sgd(0.02, momentum=0.5), sync_period=3, reset_state=False)",
    "sam(sgd(0.05), chain(normalize(), sgd(0.05)), opaque_mode=True, sync_period=3)",
]
PAIRS = ["lookahead(sgd(0.1), 5, 0.5)", "lookahead(adam(0.1), 6, 0.3, reset_state=True)"]
COMPLEX = [
    "sgd(0.02, momentum=0.9)",
    "adam(0.1)",
    "adamw(0.1, weight_decay=0.1, nesterov=True)",
    "rmsprop(0.02, centered=True)",
    "adagrad(0.3)",
    "radam(0.05)",
    "lamb(0.05)",
    "chain(clip_by_global_norm(0.5), clip_by_block_rms(0.2), sgd(0.1))",
    "muon(0.05)",
]
SEARCHES = [
    "lbfgs()",
    "lbfgs(0.1, memory_size=3, linesearch=None)",
    "lbfgs(0.005, scale_init_precond=False, linesearch=None)",
    "lbfgs(memory_size=3, linesearch=scale_by_zoom_linesearch(15, max_learning_rate=0.5))",
    "lbfgs(linesearch=scale_by_zoom_linesearch(10, approx_dec_rtol=None, curv_rtol=0.1, tol=1e-6))",
    "chain(sgd(0.5), scale_by_zoom_linesearch(4))",
    "chain(sgd(1.0), scale_by_backtracking_linesearch(15))",
    "lbfgs(linesearch=scale_by_backtracking_linesearch(10, slope_rtol=0.1, decrease_factor=0.5, store_grad=True))",
]
SCHEDULES = [
    "constant_schedule(0.3)",
    "polynomial_schedule(1.0, 0.1, 3, 40)",
    "polynomial_schedule(0.1, 1.0, 0.5, 20, 10)",
    "polynomial_schedule(0.1, 1.0, 0.5, 0)",
    "linear_schedule(1.0, 0.1, 40, 5)",
    "exponential_decay(1.0, 10, 0.5)",
    "exponential_decay(1.0, 10, 0.5, 7, staircase=True)",
    "exponential_decay(1.0, 10, 0.5, 7, end_value=0.2)",
    "exponential_decay(1.0, 10, 1.5, end_value=3.0)",
    "cosine_decay_schedule(1.0, 40)",
    "cosine_decay_schedule(1.0, 40, 0.1, 1.5)",
    "warmup_cosine_decay_schedule(0.1, 1.0, 10, 50, 0.05)",
    "warmup_cosine_decay_schedule(0.1, 1.0, 10, 50, exponent=2.0)",
    "warmup_constant_schedule(0.0, 1.0, 20)",
    "warmup_exponential_decay_schedule(0.0, 1.0, 10, 5, 0.8, staircase=True, end_value=0.3)",
    "piecewise_constant_schedule(1.0, {10: 0.5, 30: 0.1})",
    "piecewise_interpolate_schedule('linear', 1.0, {10: 2.0, 30: 0.25, 50: 0.5})",
    "piecewise_interpolate_schedule('cosine', 1.0, {10: 2.0, 30: 0.25, 50: 0.5})",
    "linear_onecycle_schedule(50, 1.0)",
    "linear_onecycle_schedule(40, 0.5, 0.2, 0.9, 10.0, 100.0)",
    "cosine_onecycle_schedule(50, 1.0)",
    "cosine_onecycle_schedule(40, 0.5, 0.5, 10.0, 100.0)",
    "join_schedules([linear_schedule(0.0, 1.0, 10), exponential_decay(1.0, 5, 0.5), constant_schedule(0.2)], [10, 30])",
    "sgdr_schedule([dict(init_value=0.1, peak_value=1.0, warmup_steps=5, decay_steps=20),"
    " dict(init_value=0.1, peak_value=0.5, warmup_steps=5, decay_steps=30)])",
]

NAMES = {**vars(optax.contrib), **vars(optax)}


def in_float64(make: Any) -> Any:
    """A schedule of optax's that is given its count as float64: of an int32 it computes in float32, x64 or not."""

    def made(*args: Any, **kwargs: Any) -> Any:
        schedule = make(*args, **kwargs)
        return lambda count: schedule(jnp.asarray(count, jnp.float64))

    return made


NAMES.update(
    {name: in_float64(f) for name, f in vars(optax.schedules).items() if name.endswith(("schedule", "_decay"))}
)

rng = np.random.default_rng(0)
START = {"w": rng.standard_normal((3, 2)), "b": rng.standard_normal(2), "s": rng.standard_normal()}
CENTRE = {"w": rng.standard_normal((3, 2)), "b": rng.standard_normal(2), "s": rng.standard_normal()}
NOISE = [
    {"w": rng.standard_normal((3, 2)), "b": rng.standard_normal(2), "s": rng.standard_normal()} for _ in range(STEPS)
]
TURN = np.exp(1j * np.arange(6)).reshape(3, 2)


def value(params: Any) -> Any:
    """A bowl, steeper in some directions, and further out."""
    distance = {k: params[k] - CENTRE[k] for k in params}
    return (
        sum((abs(d) ** 2).sum() + 0.1 * (abs(d) ** 4).sum() for d in distance.values()) + distance["w"][0, 0].real ** 2
    )


def valley(params: Any) -> Any:
    """Rosenbrock's function of five numbers."""
    x = params["w"].reshape(-1)[:5]
    return ((1 - x[:-1]) ** 2).sum() + 10 * ((x[1:] - x[:-1] ** 2) ** 2).sum() + (params["b"] ** 2).sum()


def turned(tree: Any) -> Any:
    return {"w": tree["w"] * TURN, "b": tree["b"] * 1j, "s": tree["s"] + 0j}


def trajectory(call: str, kind: str) -> np.ndarray:
    optimizer = eval(call, dict(NAMES))
    if isinstance(optimizer, optax.MultiSteps):
        optimizer = optimizer.gradient_transformation()
    update = optax.with_extra_args_support(optimizer).update
    broken = "finite" in call
    start: Any = turned(START) if kind == "complex" else START
    start = jax.tree.map(jnp.asarray, start)
    if kind == "pair":
        start = optax.LookaheadParams.init_synced(start)

    @jax.jit
    def step(params: Any, state: Any, noise: Any) -> Any:
        at = params.fast if kind == "pair" else params
        if kind == "search":
            now, grads = jax.value_and_grad(valley)(at)
            updates, state = update(grads, state, params, value=now, grad=grads, value_fn=valley)
        else:
            now, grads = jax.value_and_grad(value)(at)
            # JAX's gradient of a complex number points along its conjugate.
            grads = jax.tree.map(lambda g, n: jnp.conj(g) + n, grads, noise)
            extra = {"value": now} if "plateau" in call else {}
            if "opaque" in call:
                extra["grad_fn"] = lambda p, i: jax.grad(value)(p)
            updates, state = update(grads, state, params, **extra)
        return optax.apply_updates(params, updates), state

    params, state, rows = start, optimizer.init(start), []
    for i in range(STEPS):
        noise = turned(NOISE[i]) if kind == "complex" else NOISE[i]
        noise = jax.tree.map(lambda n, i=i: np.nan * n if broken and i in (3, 8, 9, 20, 21, 22, 23, 24) else n, noise)
        params, state = step(params, state, noise)
        rows.append(np.concatenate([np.ravel(x) for x in jax.tree.leaves(params)]))
    if "schedule_free" in call:
        mean = optax.contrib.schedule_free_eval_params(state, params)
        rows.append(np.concatenate([np.ravel(x) for x in jax.tree.leaves(mean)]))
    return np.stack(rows)


def main() -> None:
    found: dict[str, Any] = {"version": np.array(optax.__version__)}
    for kind, calls in (("real", REAL), ("pair", PAIRS), ("complex", COMPLEX), ("search", SEARCHES)):
        for call in calls:
            found[f"{kind}|{call}"] = trajectory(call, kind)
            print(kind, call, found[f"{kind}|{call}"][-1][:3])
    for call in SCHEDULES:
        schedule = eval(call, dict(NAMES))
        found[f"schedule|{call}"] = np.array([schedule(jnp.int32(step)) for step in range(SCHEDULED)])
    np.savez_compressed(Path(__file__).with_name("optax.npz"), **found)


if __name__ == "__main__":
    main()
