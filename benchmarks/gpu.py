"""Programs on a GPU: memory-bound kernels against the bandwidth of a copy, and what a call costs.

Without a device the group says so and writes nothing.
"""

from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any

import numpy as np

import dflow
from benchmarks.arrays.programs import (
    chain,
    copy,
    layer_norm,
    monte_carlo,
    softmax,
    sum_all,
    sum_first,
    sum_last,
    transcendental,
)
from benchmarks.libraries import rewired
from benchmarks.measure import Budget, Queued, Table, Time, attempt, duration, going_on, measure, peer
from dflow.backends.cuda.launch import driver

PEERS = ("JAX", "CuPy", "PyTorch")


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
    x, y, z = numbers(3, scale)
    side = int(scale**0.5)
    matrix = x[: side * side].reshape(side, side)
    cube = x[: side * side].reshape(side, -1, 4) if side % 4 == 0 else matrix[:, :, None]
    paths = x[: scale // 10 * 10].reshape(10, -1)
    # What is moved: so many times the first argument. Those that matter most come first.
    found: list[tuple[str, FunctionType, tuple[Any, ...], int]] = [
        ("copy", copy, (x,), 2),
        ("sum of squares, all", sum_all, (cube,), 1),
        ("softmax", softmax, (matrix,), 2),
        ("layer norm", layer_norm, (matrix, x[:side], y[:side]), 2),
        ("chain of seven", chain, (x, y, z), 4),
        ("transcendental", transcendental, (x,), 2),
        ("Monte Carlo", monte_carlo, (paths,), 1),
        ("transpose", transpose, (matrix,), 2),
        ("sum of squares, first axis", sum_first, (cube,), 1),
        ("sum of squares, last axis", sum_last, (cube,), 1),
        ("sum with a transpose", add_transposed, (matrix, matrix), 3),
    ]
    for title, function, args, times in found:
        for name, dtype in (("f64", np.float64), ("f32", np.float32)):
            given = tuple(np.asarray(a, dtype) for a in args)
            yield f"{title}, {name}", function, given, times * given[0].nbytes


def numbers(rows: int, count: int) -> np.ndarray:
    """Random numbers, again and again the same: to draw all would take longer than what is measured."""
    drawn = np.random.default_rng(0).normal(size=(rows, min(count, 1 << 18)))
    return np.tile(drawn, -(-count // drawn.shape[1]))[:, :count]


def run(scale: int = 1 << 25, seconds: float = float("inf")) -> Iterator[Table]:
    """Tables, each after every row. Nothing without a device; no more rows after so many seconds."""
    where = opened()
    if where is None:
        return
    budget = Budget(seconds)
    yield from going_on("calls", calls(where))
    for part, share in ((arrays, 0.7), (products, 0.6), (additions, 1.0)):  # of what is left then
        own = budget.part(share)
        yield from going_on(part.__name__, part(scale, where, own))
        if own.left_out:
            print(f"the time was up: {own.left_out} rows of {part.__name__} are left out", flush=True)


def opened() -> str | None:
    """What figures depend on; None, and that is told, without a device."""
    try:
        device = driver.device()
    except driver.DeviceError as e:
        print(f"no figures for a GPU: {e}", flush=True)
        return None
    return f"On {device.name}, {device.target}, driver for CUDA {driver.version_text(device.driver.version)}."


def arrays(scale: int, where: str, budget: Budget) -> Iterator[Table]:
    table = Table("Arrays on a GPU", ["what", "dflow", "GB/s", "of the driver's copy", *PEERS, "gradient / value"])
    table.note = f"Bytes are what must at least be moved; ratios are of medians. {where}"
    speed, title = attempt("the driver's copy", lambda: driver_copy(scale)), "copy by the driver, f64"
    if speed is not None:
        table.rows.append((title, speed, f"{16 * scale / speed.median / 1e9:.4g}", "1", *["-"] * (len(PEERS) + 1)))
    for title, function, args, size in cases(scale):
        if budget.is_spent():
            continue
        times = attempt(title, lambda f=function, a=args: measure(contestants(f, a), rounds=5))
        if not times:
            continue
        mine = size / times["dflow"].median / 1e9
        part = f"{mine / (16 * scale / speed.median / 1e9):.3g}" if speed is not None else "-"
        slower = attempt(f"gradient of {title}", lambda f=function, a=args, t=times: gradient(f, a, t["dflow"])) or "-"
        peers = [times.get(name, "-") for name in PEERS]
        table.rows.append((title, times["dflow"], f"{mine:.4g}", part, *peers, slower))
        yield table


def driver_copy(scale: int) -> Time:
    """As many f64 as an array has, from one place on the device to another."""
    x = dflow.device_put(numbers(1, scale)[0])
    y = x.copy()
    return measure({"copy": Queued(lambda: y.fill(x), lambda result: y.block_until_ready())}, rounds=5)["copy"]


def products(scale: int, where: str, budget: Budget) -> Iterator[Table]:
    """Products of matrices and vectors, in 10^9 additions and multiplications a second.

    No matrix has more than ``scale`` elements."""
    table = Table("Products on a GPU", ["what", "dflow", "GFLOP/s", *PEERS], note=where)
    shapes = [(1, n, n, n) for n in (16, 128, 256, 512, 1024, 2048)]
    shapes += [(1, 64, 64, 1 << 18), (512, 64, 64, 64), (1, 4096, 1, 4096), (1, 1, 4096, 4096)]
    for dtype in (np.float32, np.float64):
        for batch, m, n, k in (s for s in shapes if s[0] * max(s[1] * s[3], s[3] * s[2], s[1] * s[2]) <= scale):
            if budget.is_spent():
                continue
            x, y = (numbers(1, batch * a * b).astype(dtype).reshape(batch, a, b) for a, b in ((m, k), (k, n)))
            title = f"{batch} times {m} x {k} x {n}, {np.dtype(dtype).name}"
            times = attempt(title, lambda x=x, y=y: measure(contestants(multiply, (x, y)), rounds=5))
            if times:
                speed = f"{2 * batch * m * n * k / times['dflow'].median / 1e9:.4g}"
                table.rows.append((title, times["dflow"], speed, *(times.get(name, "-") for name in PEERS)))
                yield table


def multiply(x, y):
    return np.matmul(x, y)


def additions(scale: int, where: str, budget: Budget) -> Iterator[Table]:
    """Additions at computed places: by atomics, and in a fixed order."""
    table = Table("Additions at computed places on a GPU", ["what", "dflow", "10^9 / s"])
    table.note = f"{scale} additions to {1 << 16} places, f64. {where}"
    r = np.random.default_rng(0)
    weights = r.normal(size=scale)
    for title, places in (
        ("anywhere", r.integers(0, 1 << 16, scale)),
        ("in order", np.sort(r.integers(0, 1 << 16, scale))),
    ):
        args = dflow.device_put((places, weights))
        expected = histogram(places, weights)
        for how, deterministic in (("", False), (", deterministic", True)):
            if budget.is_spent():
                continue
            run = waiting(dflow.jit(histogram, device="cuda", deterministic=deterministic), args)
            took = attempt(f"{title}{how}", lambda run=run, expected=expected: checked(run, expected))
            if took is not None:
                table.rows.append((f"{title}{how}", took, f"{scale / took.median / 1e9:.4g}"))
                yield table


def checked(run: Callable[[], Any], expected: np.ndarray) -> Time:
    np.testing.assert_allclose(np.asarray(run()), expected, rtol=1e-9, atol=1e-9)
    return measure({"dflow": run}, rounds=5)["dflow"]


def calls(where: str) -> Iterator[Table]:
    """What a call costs beside its work: of one kernel, and of a chain of them that is replayed as a graph."""
    table = Table("Calls of programs on a GPU", ["what", "dflow", "for each kernel"], note=where)
    small = dflow.device_put(np.ones(1000))
    count = 64

    def several(x):
        for _ in range(count):
            x = np.cumsum(x) * 0.5
        return x

    for title, function in (("one kernel", copy), ("a chain", several)):
        run = dflow.jit(function, device="cuda")
        launches = len(run.lower(small).launches().launches) * (count if function is several else 1)
        for how, call in (("not waited for", waiting(run, (small,))), ("waited for", waiting(run, (small,)).__call__)):
            took = attempt(title, lambda call=call: measure({"dflow": call}, rounds=9)["dflow"])
            if took is not None:
                table.rows.append((f"{title}, {how}", took, duration(took.median / launches)))
                yield table


def waiting(function: Callable[..., Any], args: tuple[Any, ...]) -> Queued:
    return Queued(lambda: function(*args), lambda result: result.block_until_ready())


def contestants(function: FunctionType, args: tuple[Any, ...]) -> dict[str, Callable[[], Any]]:
    """Calls of the function by all that can run it on the device, which give the same.

    Raises AssertionError where dflow gives something else; others are left out then, and it is told."""
    expected = np.asarray(function(*args))
    close, scale = 1e-9 if args[0].dtype == np.float64 else 2e-4, max(1.0, float(np.max(np.abs(expected))))

    def agrees(call: Callable[[], Any]) -> bool:
        result = call()
        result = result.cpu().numpy() if hasattr(result, "cpu") else result.get() if hasattr(result, "get") else result
        result = np.asarray(result)
        assert result.shape == expected.shape
        some = slice(None, None, max(1, expected.size // 10**6 | 1))  # all would take longer than all else
        np.testing.assert_allclose(result.ravel()[some], expected.ravel()[some], rtol=close, atol=close * scale)
        return True

    found: dict[str, Callable[[], Any]] = {"dflow": waiting(dflow.jit(function, device="cuda"), dflow.device_put(args))}
    agrees(found["dflow"])
    for name, make in _PEERS.items():
        call = attempt(f"{name}, {function.__name__}", lambda make=make: make(function, args))
        if call is not None and attempt(f"{name}, {function.__name__}", lambda call=call: agrees(call)):
            found[name] = call
    return found


def in_jax(function: FunctionType, args: tuple[Any, ...]) -> Queued | None:
    jax = peer("jax")
    if not jax or jax.default_backend() != "gpu":
        return None
    jax.config.update("jax_enable_x64", True)
    there, compiled = [jax.numpy.asarray(x) for x in args], jax.jit(rewired(function, {"np": jax.numpy}))
    return Queued(lambda: compiled(*there), lambda result: result.block_until_ready())


def in_cupy(function: FunctionType, args: tuple[Any, ...]) -> Queued | None:
    cupy = peer("cupy")
    if not cupy:
        return None
    there = [cupy.asarray(x) for x in args]
    run = FunctionType(function.__code__, {"np": cupy}, function.__name__)
    return Queued(lambda: run(*there), lambda result: cupy.cuda.get_current_stream().synchronize())


def in_torch(function: FunctionType, args: tuple[Any, ...]) -> Queued | None:
    torch = peer("torch")
    if not torch or not torch.cuda.is_available() or function not in _TORCH:
        return None
    there, run = [torch.from_numpy(x).cuda() for x in args], _TORCH[function](torch)
    compiled = run if run is torch.matmul else torch.compile(run)
    return Queued(lambda: compiled(*there), lambda result: torch.cuda.synchronize())


_PEERS = {"JAX": in_jax, "CuPy": in_cupy, "PyTorch": in_torch}


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
