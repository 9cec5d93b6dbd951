"""The problems particle and saddle: gradient descent over functions that are computed with derivatives themselves."""

import numpy as np

import dflow


def descend(f, x, derivative):
    """The place of a minimum of ``f`` by gradient descent from ``x``, whose step grows while it goes well."""
    value, slope = f(x), derivative(f)(x)
    step, streak = 1e-5, 0
    while np.sqrt(np.sum(slope**2)) > 1e-5:
        if streak == 10:
            step, streak = 2.0 * step, 0
        else:
            moved = x - step * slope
            if np.sqrt(np.sum((moved - x) ** 2)) <= 1e-5:
                break
            after = f(moved)
            if after < value:
                x, value, slope, streak = moved, after, derivative(f)(moved), streak + 1
            else:
                step, streak = step / 2.0, 0
    return x


def potential(x, w):
    """Of two charges, at (10, 0) and (10, 10 - w)."""
    return 1.0 / np.hypot(x[0] - 10.0, x[1]) + 1.0 / np.hypot(x[0] - 10.0, x[1] - 10.0 + w)


def crossing(w, derivative):
    """The square of where a particle crosses the axis y = 0, by Euler's method."""
    x, v, h = np.array([0.0, 8.0]), np.array([0.75, 0.0]), 0.1
    force = derivative(lambda x: potential(x, w))
    after = x + h * v
    while after[1] >= 0.0:
        x, v = after, v - h * force(x)
        after = x + h * v
    return (x[0] - x[1] / v[1] * v[0]) ** 2


def particle(w, outer, inner):
    """The ``w`` for which the particle meets the origin; ``outer`` and ``inner`` give derivatives."""
    return descend(lambda w: crossing(w[0], inner), np.array([w]), outer)[0]


def height(x, y):
    return np.sum(x**2) - np.sum(y**2)


def saddle(start, outer, inner):
    """The saddle point: the minimum over ``x`` of the maximum over ``y``."""

    def highest(x, derivative):
        return descend(lambda y: -height(x, y), start, derivative)

    x = descend(lambda x: height(x, highest(x, inner)), start, outer)
    return np.concatenate([x, highest(x, outer)])


MODES = {"f": dflow.jacfwd, "r": dflow.grad}


def variants(function):
    """``function`` with each pair of modes, outer and inner: ff, fr, rf, rr."""

    def variant(outer, inner):
        return lambda x: function(x, MODES[outer], MODES[inner])

    return {a + b: variant(a, b) for a in MODES for b in MODES}
