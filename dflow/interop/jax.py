"""A function of dflow's inside JAX programs, with its derivatives.

    import jax
    from dflow.interop.jax import wrap

    f = wrap(simulate)                       # simulate: plain NumPy with loops and branches
    jax.grad(lambda x: jax.numpy.sum(f(x) ** 2))(x)

The function runs on the host, through ``jax.pure_callback``; reverse mode runs its compiled reverse, wrapped in the
same way, so that it nests. Arrays have JAX's dtypes: ``jax_enable_x64`` decides whether floats are double.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from dflow import trees
from dflow.api import jit, vjp
from dflow.programs.signature import ShapeDtypeStruct
from dflow.shapes import eval_shape


def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` as a JAX function of arrays, or trees of arrays, with a derivative in reverse mode.

    It can be compiled by ``jax.jit`` and mapped by ``jax.vmap`` (one call after the other). Integer arguments have no
    derivative. Raises what tracing by dflow raises.
    """
    run = jit(function)

    def result_types(args: Any) -> Any:
        stand_ins = jax.tree.map(lambda x: ShapeDtypeStruct(x.shape, x.dtype), args)
        made = eval_shape(function, *stand_ins)
        return trees.map_leaves(lambda t: jax.ShapeDtypeStruct(t.shape, jax.dtypes.canonicalize_dtype(t.dtype)), made)

    def on_host(types: Any, call: Callable[..., Any], *args: Any) -> Any:
        def plain(*arrays: Any) -> Any:
            results = call(*jax.tree.map(np.asarray, arrays))
            return jax.tree.map(lambda t, x: np.asarray(x, t.dtype).reshape(t.shape), types, results)

        return jax.pure_callback(plain, types, *args, vmap_method="sequential")

    @jax.custom_vjp
    def wrapped(*args: Any) -> Any:
        return on_host(result_types(args), run, *args)

    def forward(*args: Any) -> Any:
        return wrapped(*args), args

    def pull(args: Any, bars: Any) -> Any:
        made = vjp(function, *args)[1](bars)
        return trees.map_leaves(lambda x, d: np.zeros_like(x) if d is None else d, args, tuple(made))

    def backward(args: Any, bars: Any) -> Any:
        floats = jax.tree.map(lambda b: b if b.dtype != jax.dtypes.float0 else np.zeros(b.shape), bars)
        return jax.tree.map(_tangent, args, wrap(pull)(args, floats))

    wrapped.defvjp(forward, backward)
    return lambda *args: wrapped(*jax.tree.map(jax.numpy.asarray, args))


def _tangent(x: Any, d: Any) -> Any:
    """A cotangent as JAX wants it: of a type without values for integers."""
    return d if jax.numpy.issubdtype(x.dtype, jax.numpy.inexact) else np.zeros(x.shape, jax.dtypes.float0)


__all__ = ["wrap"]
