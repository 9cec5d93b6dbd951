"""Programs on a GPU: memory-bound kernels against the bandwidth of a copy, and what a call costs.

Without a device the group says so and writes nothing.
"""

from collections.abc import Callable, Iterator
from functools import partial
from types import FunctionType
from typing import Any

import numpy as np

import dflow
from benchmarks.arrays import (
    chain,
    copy,
    in_jax,
    layer_norm,
    monte_carlo,
    rewired,
    softmax,
    sum_all,
    sum_first,
    sum_last,
)
from benchmarks.measure import Table, Time, measure, peer
from dflow.backends.cuda import driver

PEERS = ("JAX", "CuPy", "PyTorch")


def transcendental(x):
    return np.exp(-(np.sin(x) ** 2)) * np.tanh(x) + np.log(1.0 + x * x)


def transpose(x):
    return x.T.copy()


def add_transposed(x, y):
    return x.T + y


def histogram(i, w):
    """The sums of the weights by number."""
    y = np.zeros(1 << 16)
    np.add.at(y, i, w)
    return y


def cases(scale: int) -> Iterator[tuple[str, FunctionType, tuple[Any, ...], int]]:
    """Title, function, arguments, and the bytes that must at least be moved. ``scale``: elements of a large array."""
    r = np.random.default_rng(0)
    x, y, z = r.normal(size=(3, scale))
    side = int(scale**0.5)
    matrix = x[: side * side].reshape(side, side)
    cube = x[: side * side].reshape(side, -1, 4) if side % 4 == 0 else matrix[:, :, None]
    paths = r.normal(size=(10, scale // 10))
    for name, dtype in (("f64", np.float64), ("f32", np.float32)):
        n = np.dtype(dtype).itemsize
        to = partial(np.asarray, dtype=dtype)
        yield f"copy, {name}", copy, (to(x),), 2 * n * scale
        yield f"chain of seven, {name}", chain, (to(x), to(y), to(z)), 4 * n * scale
        yield f"transcendental, {name}", transcendental, (to(x),), 2 * n * scale
        yield f"transpose, {name}", transpose, (to(matrix),), 2 * n * matrix.size
        yield f"sum with a transpose, {name}", add_transposed, (to(matrix), to(matrix)), 3 * n * matrix.size
        yield f"sum of squares, all, {name}", sum_all, (to(cube),), n * cube.size
        yield f"sum of squares, first axis, {name}", sum_first, (to(cube),), n * cube.size
        yield f"sum of squares, last axis, {name}", sum_last, (to(cube),), n * cube.size
        yield f"softmax, {name}", softmax, (to(matrix),), 2 * n * matrix.size
        yield f"layer norm, {name}", layer_norm, (to(matrix), to(x[:side]), to(y[:side])), 2 * n * matrix.size
        yield f"Monte Carlo, {name}", monte_carlo, (to(paths),), n * paths.size


def run(scale: int = 1 << 25) -> Iterator[Table]:
    """Nothing without a device."""
    try:
        device = driver.device()
    except driver.DeviceError as e:
        print(f"no figures for a GPU: {e}", flush=True)
        return
    where = f"On {device.name}, {device.target}, driver for CUDA {driver.version_text(device.driver.version)}."
    yield arrays(scale, where)
    yield products(where)
    yield additions(scale, where)
    yield calls(where)


def arrays(scale: int, where: str) -> Table:
    table = Table("Arrays on a GPU", ["what", "dflow", "GB/s", "of the copy", *PEERS, "gradient / value"])
    speed = 0.0
    for title, function, args, size in cases(scale):
        times = measure(contestants(function, args), rounds=5)
        mine = size / times["dflow"].median / 1e9
        if function is copy:
            speed = mine
        slower = gradient(function, args, times["dflow"])
        peers = [times.get(name, "-") for name in PEERS]
        table.rows.append((title, times["dflow"], f"{mine:.4g}", f"{mine / speed:.3g}", *peers, slower))
    table.note = f"Bytes are what must at least be moved; ratios are of medians. {where}"
    return table


def products(where: str) -> Table:
    """Products of matrices and vectors, in 10^9 additions and multiplications a second."""
    table = Table("Products on a GPU", ["what", "dflow", "GFLOP/s", *PEERS])
    r = np.random.default_rng(0)
    shapes = [(1, n, n, n) for n in (128, 256, 512, 1024, 2048)]
    shapes += [(1, 64, 64, 1 << 18), (512, 64, 64, 64), (1, 4096, 1, 4096), (1, 1, 4096, 4096)]
    for dtype in (np.float32, np.float64):
        for batch, m, n, k in shapes:
            x, y = r.normal(size=(batch, m, k)).astype(dtype), r.normal(size=(batch, k, n)).astype(dtype)
            times = measure(contestants(multiply, (x, y)), rounds=5)
            speed = f"{2 * batch * m * n * k / times['dflow'].median / 1e9:.4g}"
            title = f"{batch} times {m} x {k} x {n}, {np.dtype(dtype).name}"
            table.rows.append((title, times["dflow"], speed, *(times.get(name, "-") for name in PEERS)))
    table.note = where
    return table


def multiply(x, y):
    return np.matmul(x, y)


def additions(scale: int, where: str) -> Table:
    """Additions at computed places: by atomics, and in a fixed order."""
    table = Table("Additions at computed places on a GPU", ["what", "dflow", "10^9 / s"])
    r = np.random.default_rng(0)
    weights = r.normal(size=scale)
    for title, places in (
        ("anywhere", r.integers(0, 1 << 16, scale)),
        ("in order", np.sort(r.integers(0, 1 << 16, scale))),
    ):
        args = dflow.device_put((places, weights))
        for how, deterministic in (("", False), (", deterministic", True)):
            run = waiting(dflow.jit(histogram, device="cuda", deterministic=deterministic), args)
            np.testing.assert_allclose(np.asarray(run()), histogram(places, weights), rtol=1e-9, atol=1e-9)
            took = measure({"dflow": run}, rounds=5)["dflow"]
            table.rows.append((f"{title}{how}", took, f"{scale / took.median / 1e9:.4g}"))
    table.note = f"{scale} additions to {1 << 16} places, f64. {where}"
    return table


def calls(where: str) -> Table:
    """What a call costs beside its work: of one kernel, and of a chain of them that is replayed as a graph."""
    table = Table("Calls of programs on a GPU", ["what", "dflow"])
    small = dflow.device_put(np.ones(1000))
    one = dflow.jit(copy, device="cuda")
    count = 64

    def several(x):
        for _ in range(count):
            x = np.cumsum(x) * 0.5
        return x

    many = dflow.jit(several, device="cuda")
    launches = len(many.lower(small).launches().launches)
    times = measure({"one": lambda: one(small), "many": waiting(many, (small,))}, rounds=9)
    table.rows.append(("one kernel, not waited for", times["one"]))
    table.rows.append((f"{launches} kernels, waited for", times["many"]))
    table.note = where
    return table


def waiting(function: Callable[..., Any], args: tuple[Any, ...]) -> Callable[[], Any]:
    return lambda: function(*args).block_until_ready()


def contestants(function: FunctionType, args: tuple[Any, ...]) -> dict[str, Callable[[], Any]]:
    """Calls of the function by all that can run it on the device, which give the same."""
    found = {"dflow": waiting(dflow.jit(function, device="cuda"), dflow.device_put(args))}
    jax, cupy, torch = (peer(name) for name in ("jax", "cupy", "torch"))
    if jax and jax.default_backend() == "gpu":
        found["JAX"] = in_jax(jax, jax.jit(rewired(function, jax)), args)
    if cupy:
        found["CuPy"] = in_cupy(cupy, function, args)
    if torch and torch.cuda.is_available() and function in _TORCH:
        found["PyTorch"] = in_torch(torch, _TORCH[function](torch), args)
    expected = function(*args)
    close, scale = 1e-9 if args[0].dtype == np.float64 else 2e-4, max(1.0, float(np.max(np.abs(expected))))
    for call in found.values():
        result = call()
        result = result.cpu().numpy() if hasattr(result, "cpu") else result.get() if hasattr(result, "get") else result
        np.testing.assert_allclose(np.asarray(result), expected, rtol=close, atol=close * scale)
    return found


def in_cupy(cupy: Any, function: FunctionType, args: tuple[Any, ...]) -> Callable[[], Any]:
    there = [cupy.asarray(x) for x in args]
    run = FunctionType(function.__code__, {"np": cupy}, function.__name__)

    def call() -> Any:
        result = run(*there)
        cupy.cuda.get_current_stream().synchronize()
        return result

    return call


def in_torch(torch: Any, function: Callable[..., Any], args: tuple[Any, ...]) -> Callable[[], Any]:
    there = [torch.from_numpy(x).cuda() for x in args]
    compiled = torch.compile(function)

    def call() -> Any:
        result = compiled(*there)
        torch.cuda.synchronize()
        return result

    return call


def _normalized(torch: Any) -> Callable[..., Any]:
    return lambda x, scale, shift: torch.nn.functional.layer_norm(x, x.shape[-1:], scale, shift, 1e-5)


# The same in PyTorch's words, where NumPy's do not do.
_TORCH: dict[Any, Callable[[Any], Callable[..., Any]]] = {
    copy: lambda torch: copy,
    transpose: lambda torch: lambda x: x.T.contiguous(),
    add_transposed: lambda torch: add_transposed,
    multiply: lambda torch: torch.matmul,
    chain: lambda torch: chain,
    sum_all: lambda torch: lambda x: (x * x).sum(),
    sum_first: lambda torch: lambda x: (x * x).sum(0),
    sum_last: lambda torch: lambda x: (x * x).sum(-1),
    softmax: lambda torch: lambda x: torch.softmax(x, 1),
    layer_norm: _normalized,
}


def gradient(function: FunctionType, args: tuple[Any, ...], value: Time) -> str:
    """The time of the gradient of the mean of the result by the first argument, over that of the value."""
    mean = lambda *args: np.mean(function(*args))  # noqa: E731
    call = waiting(dflow.jit(dflow.grad(mean), device="cuda"), dflow.device_put(args))
    return f"{measure({'gradient': call}, rounds=5)['gradient'].median / value.median:.3g}"
