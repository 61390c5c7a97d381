"""The watch over JAX's autodiff works, and tells the package from a test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import tracegrad as tg
import tracegrad.verify
from tests.conftest import _PACKAGE, JaxAutodiffError


def in_package(source: str) -> Callable[..., Any]:
    """A function `f` of this source, as if it stood in a file of the package."""
    space: dict[str, Any] = {}
    exec(compile(source, _PACKAGE + "planted.py", "exec"), space)
    return space["f"]  # type: ignore[no-any-return]


CALLS = {
    "grad": "import jax\ndef f(g, x): return jax.grad(g)(x)",
    "value_and_grad": "import jax\ndef f(g, x): return jax.value_and_grad(g)(x)",
    "vjp": "import jax\ndef f(g, x): return jax.vjp(g, x)",
    "jvp": "import jax\ndef f(g, x): return jax.jvp(g, (x,), (x,))",
    "linearize": "import jax\ndef f(g, x): return jax.linearize(g, x)",
    "linear_transpose": "import jax\ndef f(g, x): return jax.linear_transpose(g, x)(x)",
    "jacfwd": "import jax\ndef f(g, x): return jax.jacfwd(g)(x)",
    "hessian": "import jax\ndef f(g, x): return jax.hessian(g)(x)",
    "custom_jvp": "import jax\ndef f(g, x): return jax.custom_jvp(g)(x)",
    "custom_vjp": "import jax\ndef f(g, x): return jax.custom_vjp(g)(x)",
    "a name bound before the watch": "from jax._src.api import grad\ndef f(g, x): return grad(g)(x)",
    "the interpreter": "from jax._src import api\ndef f(g, x): return api.jvp(g, (x,), (x,))",
}


@pytest.mark.parametrize("source", CALLS.values(), ids=CALLS)
def test_autodiff_of_jax_raises_in_the_package(source: str) -> None:
    with pytest.raises(JaxAutodiffError):
        in_package(source)(lambda x: 2.0 * x, 1.0)


def test_a_test_may_use_it() -> None:
    assert jax.grad(jnp.sin)(0.0) == 1.0
    assert jax.jit(jax.grad(lambda x: jax.nn.relu(x) * x))(2.0) == 4.0


def test_functions_with_a_custom_derivative_may_be_evaluated_by_the_package() -> None:
    f = in_package("import jax\ndef f(x): return jax.nn.relu(x) + jax.nn.silu(x)")
    assert f(1.0) > 1.0


def test_jax_may_differentiate_a_function_of_the_package() -> None:
    def f(x: Any) -> Any:
        return tg.grad(lambda y: y * y * y)(x)

    assert jax.grad(f)(2.0) == 12.0
    assert jax.jit(jax.grad(f))(2.0) == 12.0


def test_tapes_are_verified() -> None:
    assert tracegrad.verify.VERIFY


def test_compiles_are_counted(compiles: Callable[[], int]) -> None:
    jax.jit(lambda x: x * 3.25)(1.5)
    assert compiles() > 0
    assert compiles() == 0
