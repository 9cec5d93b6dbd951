"""Solvers as plain programs: ``fixed_point`` and ``odeint``. They are traced like a user's code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dflow.errors import ShapeError, TraceError, failure
from dflow.transforms.custom import stop_gradient
from dflow.transforms.implicit import custom_root
from dflow.transforms.linear_rules import custom_linear_solve
from dflow.tree import ravel_pytree


def fixed_point(f: Callable[[Any], Any], init: Any, tol: float = 1e-10, max_steps: int = 10_000) -> Any:
    """The ``x`` with ``x == f(x)`` that iteration from ``init`` leads to.

    It ends when a step is smaller than ``tol``, relative to ``x`` where that is large. Derivatives, by what ``f``
    closes over, are those of the fixed point, whatever the way to it: tangents and cotangents are fixed points too, of
    the derivative of ``f`` there. ``init`` is a tree of floats. Raises ValueError after ``max_steps``.
    """
    start, unravel = ravel_pytree(init)

    def residual(x: Any) -> Any:
        return x - ravel_pytree(f(unravel(x)))[0]

    def solve(residual: Any, x: Any) -> Any:
        return _iterate(lambda x: x - residual(x), x, tol, max_steps)

    def solve_linear(matvec: Any, b: Any) -> Any:
        return _iterate(lambda v: b + v - matvec(v), b, tol, max_steps)

    def tangent_solve(g: Any, y: Any) -> Any:
        return custom_linear_solve(g, y, solve_linear, solve_linear)

    return unravel(custom_root(residual, start, solve, tangent_solve))


def _iterate(step: Callable[[Any], Any], x: Any, tol: float, max_steps: int) -> Any:
    y = step(x)
    count = 1
    while not _is_close(x, y, tol):
        if count >= max_steps:
            raise ValueError("the iteration for a fixed point does not converge")
        x = y
        y = step(x)
        count += 1
    return y


def _is_close(x: Any, y: Any, tol: float) -> Any:
    """Not when anything is infinite or NaN."""
    change = np.max(np.abs(y - x))
    return change < np.inf and change <= tol * (1.0 + np.max(np.abs(y)))


# The method of Dormand and Prince, of order 5(4), with its continuous extension of order 4 (Hairer, Norsett and Wanner,
# Solving Ordinary Differential Equations I, section II.6).
NODES = (0.2, 0.3, 0.8, 8 / 9, 1.0)
STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
)
LAST = (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84)
ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
DENSE = (
    -12715105075 / 11282082432,
    0.0,
    87487479700 / 32700410799,
    -10690763975 / 1880347072,
    701980252875 / 199316789632,
    -1453857185 / 822651844,
    69997945 / 29380423,
)


def odeint(
    func: Callable[..., Any],
    y0: Any,
    t: Any,
    *args: Any,
    rtol: float = 1.4e-8,
    atol: float = 1.4e-8,
    mxstep: int = 100_000,
    hmax: float = np.inf,
) -> Any:
    """The solution of ``dy/dt = func(y, t, *args)`` from ``y0`` at ``t[0]``, at all times ``t`` (monotonic).

    ``y0`` is a tree of floats or complex numbers; the result has its structure, with the times along a new axis 0.
    Steps adapt to the tolerances (Dormand-Prince). Derivatives by ``y0``, ``args``, ``t`` and what ``func`` closes over
    are those of the steps taken, which count as constant. Raises ValueError when more than ``mxstep`` steps lie between
    two times, and when the times go back and forth.
    """
    if np.ndim(t) != 1 or len(t) == 0:
        raise failure(ShapeError, "odeint needs the times in an array of one axis", seen=f"shape {np.shape(t)}")
    y, unravel = ravel_pytree(y0)
    y = y * 1.0
    sign = np.where(t[len(t) - 1] < t[0], -1.0, 1.0)

    def slope(y: Any, s: Any) -> Any:
        """By ``s = sign * t``, which grows."""
        return sign * ravel_pytree(func(unravel(y), sign * s, *args))[0]

    now = sign * t[0]
    k = slope(y, now)
    if np.shape(k) != np.shape(y):
        raise failure(
            ShapeError,
            "odeint needs func(y, t, *args) to return dy/dt, which has the structure of y",
            seen=f"{len(k)} numbers for the {len(y)} of y",
            mend="take the state as the first argument, the time as the second",
        )
    if np.iscomplexobj(k) and not np.iscomplexobj(y):
        raise failure(
            TraceError, "odeint has a real state whose derivative is complex", mend="make the state complex: y0 + 0j"
        )
    h = stop_gradient(np.minimum(_first_step(slope, y, now, k, rtol, atol), hmax))
    start, length = now, h
    dense = np.zeros((5, len(y)), (y + k).dtype)
    dense[0] = y
    rows = np.zeros((len(t), len(y)), y.dtype)
    rows[0] = y
    for i in range(1, len(t)):
        target = sign * t[i]
        if target < sign * t[i - 1]:
            raise ValueError("odeint needs times that increase, or that decrease")
        steps = 0
        while now < target:
            if steps >= mxstep:
                raise ValueError("odeint takes more than mxstep steps between two times")
            steps += 1
            new, last, error, continued = _step(slope, y, now, k, h)
            ratio = stop_gradient(_norm(error, y, new, rtol, atol))
            if ratio <= 1.0:
                dense = continued
                start, length = now, h
                y, k, now = new, last, now + h
            h = np.minimum(h * np.clip(0.9 * np.maximum(ratio, 1e-10) ** -0.2, 0.2, 10.0), hmax)
        rows[i] = _between(dense, (target - start) / length)
    return _unstacked(unravel, rows)


def _unstacked(unravel: Callable[[Any], Any], rows: Any) -> Any:
    from dflow.transforms.batching import vmap

    return vmap(unravel)(rows)


def _first_step(slope: Any, y: Any, now: Any, k: Any, rtol: float, atol: float) -> Any:
    """A step of the right size, from the first two derivatives (Hairer et al., section II.4)."""
    scale = atol + rtol * np.abs(y)
    d0, d1 = _rms(y / scale), _rms(k / scale)
    h0 = np.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6, 0.01 * d0 / np.maximum(d1, 1e-15))
    d2 = _rms((slope(y + h0 * k, now + h0) - k) / scale) / h0
    steepest = np.maximum(d1, d2)
    h1 = np.where(steepest <= 1e-15, np.maximum(1e-6, h0 * 1e-3), (0.01 / np.maximum(steepest, 1e-15)) ** 0.2)
    return np.minimum(100 * h0, h1)


def _step(slope: Any, y: Any, now: Any, k: Any, h: Any) -> tuple[Any, Any, Any, Any]:
    """One step: the new value, the slope there, the estimated error, and the polynomial between."""
    ks = [k]
    for node, row in zip(NODES, STAGES):
        ks.append(slope(y + h * _combined(row, ks), now + node * h))
    new = y + h * _combined(LAST, ks)
    ks.append(slope(new, now + h))
    rise = new - y
    bend = h * ks[0] - rise
    dense = np.stack([y, rise, bend, rise - h * ks[6] - bend, h * _combined(DENSE, ks)])
    return new, ks[6], h * _combined(ERROR, ks), dense


def _combined(weights: tuple[float, ...], ks: list[Any]) -> Any:
    total = weights[0] * ks[0]
    for w, k in list(zip(weights, ks))[1:]:
        if w:
            total = total + w * k
    return total


def _between(dense: Any, x: Any) -> Any:
    """The continuous extension at the part ``x`` of the step."""
    return dense[0] + x * (dense[1] + (1 - x) * (dense[2] + x * (dense[3] + (1 - x) * dense[4])))


def _norm(error: Any, y: Any, new: Any, rtol: float, atol: float) -> Any:
    return _rms(error / (atol + rtol * np.maximum(np.abs(y), np.abs(new))))


def _rms(x: Any) -> Any:
    return np.sqrt(np.mean(np.real(x * np.conj(x))))


__all__ = ["fixed_point", "odeint"]
