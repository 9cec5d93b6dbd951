"""Operations of whole arrays: against NumPy, Numba and JAX, on functions written once."""

from collections.abc import Callable, Iterator
from functools import partial
from types import FunctionType
from typing import Any

import numpy as np

import dflow
from benchmarks.measure import Table, Time, measure, peer

SIZES_OF_MATMUL = (2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


def chain(x, y, z):
    """Seven operations for each 32 bytes: bound by memory."""
    return (x * 2.0 + y) * z - x * y + (z - 1.0)


def copy(x):
    return x + 0.0


def transcendental(x):
    """Bound by arithmetic."""
    return np.exp(-(np.sin(x) ** 2)) * np.tanh(x) + np.log(1.0 + x * x)


def sum_all(x):
    return np.sum(x * x)


def sum_first(x):
    return np.sum(x * x, axis=0)


def sum_middle(x):
    return np.sum(x * x, axis=1)


def sum_last(x):
    return np.sum(x * x, axis=2)


def softmax(x):
    e = np.exp(x - np.max(x, axis=1)[:, None])
    return e / np.sum(e, axis=1)[:, None]


def layer_norm(x, scale, shift):
    centred = x - np.mean(x, axis=1)[:, None]
    return centred / np.sqrt(np.mean(centred**2, axis=1) + 1e-5)[:, None] * scale + shift


def stencil(u):
    return u[1:-1, 1:-1] + 0.1 * (u[:-2, 1:-1] + u[2:, 1:-1] + u[1:-1, :-2] + u[1:-1, 2:] - 4.0 * u[1:-1, 1:-1])


def transposed(x):
    return x.T + x


def gather(x, i):
    return x[i] * 2.0


def monte_carlo(shocks):
    """The price of an Asian option: the mean of a path in ten steps."""
    price, total = np.ones(shocks.shape[1]), np.zeros(shocks.shape[1])
    for k in range(10):
        price = price * np.exp(-0.005 + 0.1 * shocks[k])
        total = total + price
    return np.mean(np.maximum(total / 10.0 - 1.0, 0.0))


def product(a, b):
    return a @ b


def cases() -> Iterator[tuple[str, FunctionType, tuple[Any, ...]]]:
    r = np.random.default_rng(0)
    big, cube, matrix = r.normal(size=(3, 2_000_000)), r.normal(size=(128, 128, 128)), r.normal(size=(1024, 1024))
    yield "copy, 2M", copy, (big[0],)
    yield "chain of seven, 2M", chain, tuple(big)
    yield "chain of seven, 1000", chain, tuple(x[:1000].copy() for x in big)
    yield "transcendental, 100k", transcendental, (big[0, :100_000].copy(),)
    yield "sum of squares, all, 2M", sum_all, (cube,)
    yield "sum of squares, axis 0 of 3", sum_first, (cube,)
    yield "sum of squares, axis 1 of 3", sum_middle, (cube,)
    yield "sum of squares, axis 2 of 3", sum_last, (cube,)
    yield "softmax, 1024 x 1024", softmax, (matrix,)
    yield "layer norm, 1024 x 1024", layer_norm, (matrix, matrix[0].copy(), matrix[1].copy())
    yield "stencil, 1024 x 1024", stencil, (matrix,)
    yield "transpose and add, 1024 x 1024", transposed, (matrix,)
    yield "gather, 1M of 2M", gather, (big[0], r.integers(2_000_000, size=1_000_000))
    yield "Monte Carlo, 100k paths", monte_carlo, (big.reshape(-1)[:1_000_000].reshape(10, -1).copy(),)
    for n in SIZES_OF_MATMUL:
        yield f"matmul, {n}", product, (r.normal(size=(n, n)), r.normal(size=(n, n)))


def run() -> Iterator[Table]:
    table = Table("Arrays", ["what", "dflow", "NumPy", "Numba", "JAX", "dflow / best"])
    gradients = Table("Gradients", ["what", "dflow", "JAX", "dflow / JAX", "gradient / value"])
    for title, function, args in cases():
        times = measure(contestants(function, args), rounds=5)
        best = min(t.median for name, t in times.items() if name != "dflow")
        shown = [times.get(name, "-") for name in ("dflow", "NumPy", "Numba", "JAX")]
        table.rows.append((title, *shown, f"{times['dflow'].median / best:.3g}"))
        gradients.rows.append((title, *gradient(function, args, times["dflow"])))
    table.note = gradients.note = (
        "Ratios are of medians; the best is that of the others. dflow and Numba have one thread."
    )
    yield table
    yield gradients


def contestants(function: FunctionType, args: tuple[Any, ...]) -> dict[str, Callable[[], Any]]:
    """Calls of the function by all that can run it, which give the same."""
    found: dict[str, Callable[[], Any]] = {
        "dflow": partial(dflow.jit(function), *args),
        "NumPy": partial(function, *args),
    }
    if numba := peer("numba"):
        found["Numba"] = partial(numba.njit(function), *args)
    if jax := peer("jax"):
        found["JAX"] = in_jax(jax, jax.jit(rewired(function, jax)), args)
    expected = found["NumPy"]()
    lacks = (numba.errors.NumbaError,) if numba else ()  # Numba has not all of NumPy
    for name in list(found):
        try:
            result = found[name]()
        except lacks:
            del found[name]
            continue
        np.testing.assert_allclose(result, expected, rtol=1e-9, atol=1e-12)
    return found


def gradient(function: FunctionType, args: tuple[Any, ...], value: Time) -> tuple[Any, ...]:
    """The gradient of the mean of the result by the first argument."""
    mean = lambda *args: np.mean(function(*args))  # noqa: E731
    runs = {"dflow": partial(dflow.grad(mean), *args)}
    if jax := peer("jax"):
        f = rewired(function, jax)
        runs["JAX"] = in_jax(jax, jax.jit(jax.grad(lambda *args: jax.numpy.mean(f(*args)))), args)
        np.testing.assert_allclose(runs["JAX"](), runs["dflow"](), rtol=1e-8, atol=1e-14)
    times = measure(runs, rounds=5)
    mine, other = times["dflow"], times.get("JAX")
    ratio = f"{mine.median / other.median:.3g}" if other else "-"
    return mine, other or "-", ratio, f"{mine.median / value.median:.3g}"


def rewired(function: FunctionType, jax: Any) -> FunctionType:
    """The function on JAX's NumPy."""
    jax.config.update("jax_enable_x64", True)
    return FunctionType(function.__code__, {"np": jax.numpy}, function.__name__)


def in_jax(jax: Any, compiled: Callable[..., Any], args: tuple[Any, ...]) -> Callable[[], Any]:
    there = [jax.numpy.asarray(x) for x in args]
    return lambda: compiled(*there).block_until_ready()
