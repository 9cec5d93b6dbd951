"""GradBench's ba, ht and gmm for other libraries, written for whole arrays, as these libraries want it.

``ba(xp)``, ``ht(xp, put, ...)`` and ``gmm(xp, put, ...)`` give the cost of one problem as a function of its parameters,
where ``xp`` is ``jax.numpy``, ``torch`` or NumPy, and ``put`` brings the data to it. ``in_jax`` and ``in_torch`` batch
such a function.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

Cost = Callable[..., Any]
Call = Callable[[], Any]
Put = Callable[[np.ndarray], Any]


def ba(xp: Any) -> Cost:
    def cross(a: Any, b: Any) -> Any:
        return xp.stack([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])

    def cost(camera: Any, x: Any, w: Any, seen: Any) -> Any:
        """The cameras are turned, so that no angle is zero."""
        r = camera[:3]
        angle = xp.sqrt(xp.sum(r * r))
        axis, moved, cos, sin = r / angle, x - camera[3:6], xp.cos(angle), xp.sin(angle)
        y = moved * cos + cross(axis, moved) * sin + axis * (xp.sum(axis * moved) * (1.0 - cos))
        p = y[:2] / y[2]
        square = xp.sum(p * p)
        p = p * (1.0 + camera[9] * square + camera[10] * square * square)
        e = w * (p * camera[6] + camera[7:9] - seen)
        return xp.sum(e * e) + (1.0 - w * w) ** 2

    return cost


def _matrix(xp: Any, rows: list[list[Any]]) -> Any:
    return xp.stack([xp.stack(row) for row in rows])


def ht(xp: Any, put: Put, model: dict[str, Any], seen: np.ndarray, points: np.ndarray) -> Cost:
    base, inverse, corners, weights = (put(model[k]) for k in ("base", "inverse", "vertices", "weights"))
    parents, seen, points = [int(p) for p in model["parents"]], put(seen), put(points)

    def around(r: Any) -> Any:
        angle = xp.sqrt(xp.sum(r * r))
        (x, y, z), s, c = r / angle, xp.sin(angle), xp.cos(angle)
        rows = [
            [x * x + (1 - x * x) * c, x * y * (1 - c) - z * s, x * z * (1 - c) + y * s],
            [x * y * (1 - c) + z * s, y * y + (1 - y * y) * c, y * z * (1 - c) - x * s],
            [x * z * (1 - c) - y * s, z * y * (1 - c) + x * s, z * z + (1 - z * z) * c],
        ]
        return _matrix(xp, rows)

    def bend(a: Any, c: Any, zero: Any) -> Any:
        """The middle angle of a joint is always zero."""
        sa, ca, sc, cc = xp.sin(a), xp.cos(a), xp.sin(c), xp.cos(c)
        last = [zero, zero, zero, zero + 1.0]
        return _matrix(xp, [[cc, -sc * ca, sc * sa, zero], [sc, cc * ca, -cc * sa, zero], [zero, sa, ca, zero], last])

    def cost(theta: Any) -> Any:
        zero, joints = theta[0] * 0.0, dict[int, tuple[Any, Any]]()
        at = 6
        for finger in range(5):
            for joint in range(3):
                joints[2 + 4 * finger + joint] = theta[at], zero if joint else theta[at + 1]
                at += 1 if joint else 2
        absolute, total = list[Any](), 0.0
        for i, parent in enumerate(parents):
            relative = base[i] @ bend(*joints.get(i, (zero, zero)), zero)
            absolute.append(relative if parent == -1 else absolute[parent] @ relative)
            moved = corners @ (absolute[i] @ inverse[i])[:3].T
            total = total + moved * weights[:, i][:, None]
        e = points - (total @ around(theta[:3]).T + theta[3:6])[seen]
        return xp.sum(e * e)

    return cost


def gmm(xp: Any, put: Put, x: np.ndarray, gamma: float, m: int, constant: float) -> Cost:
    n, d = x.shape
    below = np.zeros((d, d), np.int64)
    below.T[np.triu_indices(d, 1)] = np.arange(d * (d - 1) // 2)
    x, at, mask = put(x), put(below), put(np.tril(np.ones((d, d)), -1))

    def log_sum_exp(t: Any) -> Any:
        most = xp.amax(t, -1)
        return xp.log(xp.sum(xp.exp(t - most[..., None]), -1)) + most

    def posterior(alpha: Any, mu: Any, q: Any, l: Any) -> Any:
        diagonal, sums = xp.exp(q), xp.sum(q, -1)
        apart = x[:, None] - mu
        factors = l[:, at] * mask
        y = diagonal * apart + (factors @ apart[..., None])[..., 0]
        terms = alpha + sums - 0.5 * xp.sum(y * y, -1)
        prior = 0.5 * gamma * gamma * (xp.sum(diagonal**2) + xp.sum(l**2)) - m * xp.sum(sums)
        return constant + xp.sum(log_sum_exp(terms)) - n * log_sum_exp(alpha) - prior

    return posterior


def in_jax(jax: Any, make: Callable[[Any, Put], Cost], args: tuple[np.ndarray, ...]) -> dict[str, Call]:
    """Calls for the values, and for the values with their gradients."""
    jax.config.update("jax_enable_x64", True)
    cost, there = make(jax.numpy, jax.numpy.asarray), [jax.numpy.asarray(a) for a in args]
    both = jax.value_and_grad(cost, tuple(range(len(args))))
    value, slope = (jax.jit(jax.vmap(f)) for f in (cost, both))
    return {"JAX": lambda: jax.block_until_ready(value(*there)), "JAX's": lambda: jax.block_until_ready(slope(*there))}


def in_torch(torch: Any, make: Callable[[Any, Put], Cost], args: tuple[np.ndarray, ...]) -> dict[str, Call]:
    """As ``in_jax``, for what PyTorch runs at once."""
    place = "cuda" if torch.cuda.is_available() else "cpu"

    def put(a: np.ndarray) -> Any:
        return torch.from_numpy(np.ascontiguousarray(a)).to(place)

    cost, there = make(torch, put), [put(a) for a in args]
    both = torch.func.grad_and_value(cost, tuple(range(len(args))))

    def wait(result: Any) -> Any:
        if place == "cuda":
            torch.cuda.synchronize()
        return result

    def slope() -> Any:
        gradient, value = torch.func.vmap(both)(*there)
        return wait((value, gradient))

    return {"PyTorch": lambda: wait(torch.func.vmap(cost)(*there)), "PyTorch's": slope}
