"""Lorenz systems for other libraries on a GPU: each function takes ``rho`` and says how to call it.

``by_hand`` is CUDA as one would write it, a thread a system; it is the limit.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

Call = Callable[[], Any]
THREADS = 128

CUDA = r"""
__device__ void slope(double x, double y, double z, double rho, double *d) {
    d[0] = 10.0 * (y - x);
    d[1] = x * (rho - z) - y;
    d[2] = x * y - 8.0 / 3.0 * z;
}

extern "C" __global__ void fixed(const double *rhos, double *out, int n, int steps) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    double rho = rhos[i], x = 1.0, y = 0.0, z = 0.0, a[3], b[3], c[3], d[3];
    const double h = 0.001;
    for (int k = 0; k < steps; k++) {
        slope(x, y, z, rho, a);
        slope(x + h / 2 * a[0], y + h / 2 * a[1], z + h / 2 * a[2], rho, b);
        slope(x + h / 2 * b[0], y + h / 2 * b[1], z + h / 2 * b[2], rho, c);
        slope(x + h * c[0], y + h * c[1], z + h * c[2], rho, d);
        x += h / 6 * (a[0] + 2 * b[0] + 2 * c[0] + d[0]);
        y += h / 6 * (a[1] + 2 * b[1] + 2 * c[1] + d[1]);
        z += h / 6 * (a[2] + 2 * b[2] + 2 * c[2] + d[2]);
    }
    out[i] = x + y + z;
}

extern "C" __global__ void adaptive(const double *rhos, double *out, int n, double until) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    double rho = rhos[i], x = 1.0, y = 0.0, z = 0.0, t = 0.0, h = 1e-3, a[3], b[3], c[3], d[3];
    while (t < until) {
        h = fmin(h, until - t);
        slope(x, y, z, rho, a);
        slope(x + h / 2 * a[0], y + h / 2 * a[1], z + h / 2 * a[2], rho, b);
        slope(x + 0.75 * h * b[0], y + 0.75 * h * b[1], z + 0.75 * h * b[2], rho, c);
        double u = x + h / 9 * (2 * a[0] + 3 * b[0] + 4 * c[0]);
        double v = y + h / 9 * (2 * a[1] + 3 * b[1] + 4 * c[1]);
        double w = z + h / 9 * (2 * a[2] + 3 * b[2] + 4 * c[2]);
        slope(u, v, w, rho, d);
        double square = 0.0;
        for (int k = 0; k < 3; k++) {
            double e = (-5 * a[k] + 6 * b[k] + 8 * c[k] - 9 * d[k]) / 72;
            square += e * e;
        }
        double error = h * sqrt(square);
        if (error < 1e-6) { x = u; y = v; z = w; t += h; }
        h *= fmin(5.0, fmax(0.2, 0.9 * pow(1e-6 / (error + 1e-30), 1.0 / 3.0)));
    }
    out[i] = x + y + z;
}
"""


def by_hand(cupy: Any, kind: str, rho: np.ndarray, amount: Any) -> Call:
    kernel = cupy.RawModule(code=CUDA, options=("--std=c++11",)).get_function(kind)
    there, out = cupy.asarray(rho), cupy.empty(len(rho))
    last = np.int32(amount) if kind == "fixed" else np.float64(amount)

    def call() -> Any:
        kernel((-(-len(rho) // THREADS),), (THREADS,), (there, out, np.int32(len(rho)), last))
        cupy.cuda.get_current_stream().synchronize()
        return out.get

    return call


def in_numba(cuda: Any, solve: Callable[..., float], rho: np.ndarray, amount: Any) -> Call:
    """The function that dflow has, as a device function of Numba."""
    device = cuda.jit(solve, device=True)

    @cuda.jit
    def kernel(rhos: Any, out: Any) -> None:
        i = cuda.grid(1)
        if i < len(rhos):
            out[i] = device(rhos[i], amount)

    there, out = cuda.to_device(rho), cuda.device_array(len(rho))

    def call() -> Any:
        kernel[-(-len(rho) // THREADS), THREADS](there, out)
        cuda.synchronize()
        return out.copy_to_host

    return call


def in_jax(jax: Any, kind: str, rho: np.ndarray, amount: Any, slope: bool = False) -> Call:
    """``vmap`` of a loop of JAX's; with ``slope``, of its derivative."""
    jax.config.update("jax_enable_x64", True)
    solve = (_jax_fixed if kind == "fixed" else _jax_adaptive)(jax, amount)
    # Backwards through a loop that ends when it likes JAX has no derivative: forwards it is as good for one number.
    run = jax.jit(jax.vmap(lambda r: jax.jvp(solve, (r,), (1.0,))[1] if slope else solve(r)))
    there = jax.numpy.asarray(rho)
    return lambda: run(there).block_until_ready().__array__


def _slope(x: Any, y: Any, z: Any, rho: Any) -> tuple[Any, Any, Any]:
    return 10.0 * (y - x), x * (rho - z) - y, x * y - 8.0 / 3.0 * z


def step(state: Any, rho: Any, h: float = 0.001) -> Any:
    """One step of Runge and Kutta's method."""
    x, y, z = state
    a, b, c = _slope(x, y, z, rho)
    d, e, f = _slope(x + h / 2 * a, y + h / 2 * b, z + h / 2 * c, rho)
    g, i, j = _slope(x + h / 2 * d, y + h / 2 * e, z + h / 2 * f, rho)
    k, l, m = _slope(x + h * g, y + h * i, z + h * j, rho)
    of_x, of_y, of_z = a + 2 * d + 2 * g + k, b + 2 * e + 2 * i + l, c + 2 * f + 2 * j + m
    return x + h / 6 * of_x, y + h / 6 * of_y, z + h / 6 * of_z


def _jax_fixed(jax: Any, steps: int) -> Callable[[Any], Any]:
    def solve(rho: Any) -> Any:
        return sum(jax.lax.fori_loop(0, steps, lambda k, state: step(state, rho), (1.0, 0.0, 0.0)))

    return solve


def _jax_adaptive(jax: Any, until: float) -> Callable[[Any], Any]:
    np_ = jax.numpy

    def solve(rho: Any) -> Any:
        def body(carry: Any) -> Any:
            x, y, z, t, h = carry
            h = np_.minimum(h, until - t)
            a, b, c = _slope(x, y, z, rho)
            d, e, f = _slope(x + h / 2 * a, y + h / 2 * b, z + h / 2 * c, rho)
            g, i, j = _slope(x + 0.75 * h * d, y + 0.75 * h * e, z + 0.75 * h * f, rho)
            u, v = x + h / 9 * (2 * a + 3 * d + 4 * g), y + h / 9 * (2 * b + 3 * e + 4 * i)
            w = z + h / 9 * (2 * c + 3 * f + 4 * j)
            k, l, m = _slope(u, v, w, rho)
            errors = (-5 * a + 6 * d + 8 * g - 9 * k, -5 * b + 6 * e + 8 * i - 9 * l, -5 * c + 6 * f + 8 * j - 9 * m)
            error = h * np_.sqrt(sum((p / 72) ** 2 for p in errors))
            good = error < 1e-6
            x, y, z, t = (np_.where(good, new, old) for new, old in ((u, x), (v, y), (w, z), (t + h, t)))
            return x, y, z, t, h * np_.clip(0.9 * (1e-6 / (error + 1e-30)) ** (1.0 / 3.0), 0.2, 5.0)

        start = (1.0, 0.0, 0.0, 0.0, 1e-3)
        return sum(jax.lax.while_loop(lambda carry: carry[3] < until, body, start)[:3])

    return solve


def in_torch(torch: Any, rho: np.ndarray, steps: int) -> Call:
    """``vmap`` of steps of fixed length; loops that end where they like it has none."""

    def solve(r: Any) -> Any:
        state = (torch.ones_like(r), torch.zeros_like(r), torch.zeros_like(r))
        for _ in range(steps):
            state = step(state, r)
        return sum(state)

    run, there = torch.vmap(solve), torch.from_numpy(rho).cuda()

    def call() -> Any:
        result = run(there)
        torch.cuda.synchronize()
        return lambda: result.cpu().numpy()

    return call
