"""The loss of docs/examples/lynx_hare.py in JAX, which has no in-place writes: the loops become ``scan``."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)


def functions(model: Any, pelts: np.ndarray) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The compiled loss and its gradient."""

    def growth(z: Any, rates: Any) -> Any:
        alpha, beta, gamma, delta = rates
        return jnp.array([(alpha - beta * z[1]) * z[0], (delta * z[0] - gamma) * z[1]])

    def runge_kutta(z: Any, rates: Any, h: float) -> Any:
        k1 = growth(z, rates)
        k2 = growth(z + h / 2 * k1, rates)
        k3 = growth(z + h / 2 * k2, rates)
        k4 = growth(z + h * k3, rates)
        return z + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)

    def year(rates: Any, z: Any) -> Any:
        def step(z: Any, _: None) -> Any:
            return runge_kutta(z, rates, 1.0 / model.STEPS), None

        return jax.lax.scan(step, z, None, length=model.STEPS)[0]

    def loss(theta: Any) -> Any:
        p = jnp.exp(theta)
        rates, start, scatter = p[:4], p[4:6], p[6:]
        _, later = jax.lax.scan(lambda z, _: (year(rates, z),) * 2, start, None, length=len(pelts) - 1)
        expected = jnp.concatenate([start[None], later])
        residuals = (jnp.log(pelts) - jnp.log(expected)) / scatter
        likelihood = -0.5 * jnp.sum(residuals**2) - len(pelts) * jnp.sum(jnp.log(scatter))
        centre, width = np.array([1.0, 0.05, 1.0, 0.05]), np.array([0.5, 0.05, 0.5, 0.05])
        prior = -0.5 * jnp.sum(((rates - centre) / width) ** 2) + jnp.sum(theta[:4])
        prior -= 0.5 * jnp.sum((theta[4:6] - np.log(10.0)) ** 2) + 0.5 * jnp.sum((theta[6:] + 1.0) ** 2)
        return -(likelihood + prior)

    return jax.jit(loss), jax.jit(jax.grad(loss))
