"""``scipy.optimize.minimize`` in programs, by the method of Broyden, Fletcher, Goldfarb and Shanno; a plain program,
which is traced like a user's code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from dflow.api import value_and_grad
from dflow.errors import ShapeError, TraceError, failure


class OptimizeResults(NamedTuple):
    """What ``minimize`` found: the point ``x``, the value ``fun``, the gradient ``jac`` and the approximate inverse of
    the Hessian there. ``status`` is 0 where the gradient is small enough, 1 after too many iterations, 2 where the line
    search finds no better point (often at the limit of precision), 3 where numbers are not finite."""

    x: Any
    success: Any
    status: Any
    fun: Any
    jac: Any
    hess_inv: Any
    nfev: Any
    njev: Any
    nit: Any


OPTIONS = {"gtol": 1e-5, "maxiter": None, "norm": np.inf, "line_search_maxiter": 30}


def minimize(
    fun: Callable[..., Any],
    x0: Any,
    args: tuple[Any, ...] = (),
    *,
    method: str = "BFGS",
    tol: float | None = None,
    options: Mapping[str, Any] | None = None,
) -> OptimizeResults:
    """A minimum of ``fun(x, *args)``, a function of a vector of floats, near ``x0``: as ``jax.scipy.optimize`` has it.

    ``method`` is "BFGS". It ends where the gradient is no larger than ``gtol`` (``tol``) by the ``norm``, after
    ``maxiter`` iterations, or where no step leads down (Nocedal and Wright, Numerical Optimization, algorithm 6.1,
    steps by the strong Wolfe conditions, algorithms 3.5 and 3.6). Derivatives are those of the iterations; for the
    derivative of the minimum itself, give it to ``dflow.custom_root`` with the gradient. Raises TraceError for other
    methods and options.
    """
    given = {**OPTIONS, **({} if tol is None else {"gtol": tol}), **(options or {})}
    if str(method).upper() != "BFGS" or given.keys() != OPTIONS.keys():
        seen = f"method={method!r}, options={sorted(options or ())}"
        raise failure(TraceError, f"minimize has the method BFGS, and the options {sorted(OPTIONS)}", seen=seen)
    if np.ndim(x0) != 1:
        raise failure(ShapeError, "minimize needs a vector to start from", seen=f"shape {np.shape(x0)}")
    n = len(x0)
    most = 200 * n if given["maxiter"] is None else given["maxiter"]
    slope_at = value_and_grad(lambda x: fun(x, *args))

    x = x0 * 1.0
    value, gradient = slope_at(x)
    inverse = np.eye(n, dtype=gradient.dtype)
    nit, evaluations, status = 0, 1, 1
    before = value + 0.5 * np.sqrt(np.sum(gradient * gradient))
    size = np.linalg.norm(gradient, ord=given["norm"])
    while status == 1 and nit < most and size > given["gtol"]:
        direction = -inverse @ gradient
        found, step, new_value, new_gradient, count = _line_search(
            slope_at, x, direction, value, gradient, before, given["line_search_maxiter"]
        )
        evaluations += count
        nit += 1
        if not found:
            status = 2
        else:
            s = step * direction
            y = new_gradient - gradient
            inverse = _updated(inverse, s, y)
            before = value
            x, value, gradient = x + s, new_value, new_gradient
            size = np.linalg.norm(gradient, ord=given["norm"])
    finite = np.isfinite(value) & np.all(np.isfinite(gradient))
    end = np.where(finite, np.where(size <= given["gtol"], 0, status), 3)
    return OptimizeResults(x, end == 0, end, value, gradient, inverse, evaluations, evaluations, nit)


def _updated(inverse: Any, s: Any, y: Any) -> Any:
    """The next approximation of the inverse of the Hessian, (6.17); the same where the curvature is not positive."""
    product = y @ s
    usable = product > 0
    rho = np.where(usable, 1.0, 0.0) / np.where(usable, product, 1.0)
    turned = inverse @ y
    return (
        inverse + (rho + rho * rho * (y @ turned)) * np.outer(s, s) - rho * (np.outer(turned, s) + np.outer(s, turned))
    )


SUFFICIENT, CURVATURE = 1e-4, 0.9  # the constants of the strong Wolfe conditions


def _line_search(
    slope_at: Any, x: Any, direction: Any, value: Any, gradient: Any, before: Any, most: int
) -> tuple[Any, Any, Any, Any, Any]:
    """Whether there is a step that fulfils the strong Wolfe conditions; the step, the value and the gradient there, and
    how often they were computed.

    An interval with such a step is first looked for by doubling, and then made smaller: ``low`` is its end with the
    least value, ``high`` the other one.
    """
    descent = gradient @ direction
    step = np.where(before > value, np.minimum(1.0, 2.02 * (before - value) / np.maximum(-descent, 1e-30)), 1.0)
    step = np.where(step > 0, step, 1.0)
    low, low_value, low_slope = 0.0 * step, value, descent
    high, high_value = 0.0 * step, value
    enclosed, found, count = False, False, 0
    new_value, new_gradient = value, gradient
    taken = 0.0 * step
    while not found and count < most and descent < 0:
        if enclosed:
            step = _between(low, low_value, low_slope, high, high_value)
        new_value, new_gradient = slope_at(x + step * direction)
        count += 1
        slope = new_gradient @ direction
        rises = not (new_value <= value + SUFFICIENT * step * descent) or (new_value >= low_value and count > 1)
        if rises:
            high, high_value, enclosed = step, new_value, True
        elif np.abs(slope) <= -CURVATURE * descent:
            found, taken = True, step
        else:
            turns = slope * (high - low) >= 0 if enclosed else slope >= 0
            if turns:
                high, high_value, enclosed = low, low_value, True
            low, low_value, low_slope = step, new_value, slope
            if not enclosed:
                step = 2.0 * step
    return found, taken, new_value, new_gradient, count


def _between(low: Any, low_value: Any, low_slope: Any, high: Any, high_value: Any) -> Any:
    """Where the parabola through both ends, with the slope at the lower one, is least; the middle, where that is close
    to an end."""
    width = high - low
    bend = high_value - low_value - low_slope * width
    usable = np.isfinite(bend) & (bend > 0)
    part = np.where(usable, -0.5 * low_slope * width, 0.5) / np.where(usable, bend, 1.0)
    return low + width * np.where((part > 0.1) & (part < 0.9), part, 0.5)


__all__ = ["OptimizeResults", "minimize"]
