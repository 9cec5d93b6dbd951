"""The programs in CasADi: a step is a function of scalars, and loops are ``mapaccum``, which carries, or ``map``.

Loops have to end after a number of steps that is known, and nothing can be looked up by what is computed.
"""

from typing import Any

import casadi as c
import numpy as np

from benchmarks.symbols import function


def total(x: Any) -> Any:
    return c.sum1(x)


def double_pendulum(z: Any, steps: int) -> Any:
    h = 0.01

    def slope(z: Any) -> Any:
        a, b, v, w = (z[k] for k in range(4))
        d = a - b
        sin, cos = c.sin(d), c.cos(d)
        below = 2.0 - cos * cos
        dv = (-w * w * sin - 2.0 * 9.81 * c.sin(a) - cos * (v * v * sin - 9.81 * c.sin(b))) / below
        dw = (2.0 * v * v * sin - 2.0 * 9.81 * c.sin(b) + cos * (w * w * sin + 2.0 * 9.81 * c.sin(a))) / below
        return c.vertcat(v, w, dv, dw)

    def step(z: Any) -> Any:
        k1 = slope(z)
        k2 = slope(z + h / 2 * k1)
        k3 = slope(z + h / 2 * k2)
        k4 = slope(z + h * k3)
        return z + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)

    return c.sumsqr(function(step, (4,)).mapaccum(steps)(z)[:, -1])


def adaptive(z: Any, mu: float, end: float) -> Any:
    """A thousand tries, more than are needed: after the end they change nothing."""

    def slope(z: Any) -> Any:
        return c.vertcat(z[1], mu * (1.0 - z[0] * z[0]) * z[1] - z[0])

    def attempt(state: Any) -> Any:
        z, k1, t, h = state[:2], state[2:4], state[4], state[5]
        going = t < end
        h = c.if_else(going, c.fmin(h, end - t), 0.01)
        k2 = slope(z + h / 2 * k1)
        k3 = slope(z + 3 * h / 4 * k2)
        new = z + h / 9 * (2 * k1 + 3 * k2 + 4 * k3)
        k4 = slope(new)
        error = c.norm_2(h * (-5 / 72 * k1 + k2 / 12 + k3 / 9 - k4 / 8)) + 1e-16
        after = h * c.fmin(5.0, c.fmax(0.2, 0.9 * (1e-6 / error) ** (1 / 3)))
        taken = c.logic_and(going, error < 1e-6)
        kept = c.if_else(taken, c.vertcat(new, k4, t + h), state[:5])
        return c.vertcat(kept, c.if_else(going, after, state[5]))

    start = c.vertcat(z, slope(z), 0.0, 0.01)
    return c.sumsqr(function(attempt, (6,)).mapaccum(1000)(start)[:2, -1])


def kalman(theta: Any, seen: Any) -> Any:
    move = np.eye(4)
    move[0, 2] = move[1, 3] = 0.1

    def step(state: Any, z: Any, theta: Any) -> Any:
        q, r = theta[0], theta[1]
        m, p, total = state[:4], c.reshape(state[4:20], 4, 4), state[20]
        m = c.mtimes(move, m)
        p = c.mtimes(c.mtimes(move, p), move.T) + q * c.SX.eye(4)
        s = p[:2, :2] + r * c.SX.eye(2)
        det = s[0, 0] * s[1, 1] - s[0, 1] * s[1, 0]
        inverse = c.vertcat(c.horzcat(s[1, 1], -s[0, 1]), c.horzcat(-s[1, 0], s[0, 0])) / det
        v = z - m[:2]
        total -= 0.5 * (c.mtimes(c.mtimes(v.T, inverse), v) + c.log(det))
        gain = c.mtimes(p[:, :2], inverse)
        return c.vertcat(m + c.mtimes(gain, v), c.vec(p - c.mtimes(gain, p[:2, :])), total)

    start = np.concatenate([np.zeros(4), np.eye(4).ravel(), [0.0]])
    steps = function(step, (21,), (2,), (2,)).mapaccum(seen.shape[0])
    return steps(start, seen.T, c.repmat(c.exp(theta), 1, seen.shape[0]))[20, -1]


def hidden_markov(logits: Any, emission: Any, seen: Any) -> Any:
    """What is seen is made numbers of 0 and 1 by symbol, whose product with the emissions looks them up."""
    n, kinds, steps = logits.shape[0], emission.shape[1], seen.shape[0]
    weight = c.exp(logits)
    move = weight / c.repmat(c.sum2(weight), 1, n)

    def step(state: Any, emitted: Any, move: Any) -> Any:
        a = c.mtimes(c.reshape(move, n, n).T, state[:n]) * emitted
        s = c.sum1(a)
        return c.vertcat(a / s, state[n] + c.log(s))

    chosen = c.vertcat(*(k == seen.T for k in range(kinds)))
    start = np.concatenate([np.ones(n) / n, [0.0]])
    run = function(step, (n + 1,), (n,), (n * n,)).mapaccum(steps)
    return run(start, c.mtimes(emission, chosen), c.repmat(c.vec(move), 1, steps))[n, -1]


def soft_dtw(cost: Any) -> Any:
    n, m = cost.shape

    def row(above: Any, costs: Any) -> Any:
        found = [c.SX(1e10)]
        for j in range(m):
            a, b, left = above[j], above[j + 1], found[-1]
            least = c.fmin(a, c.fmin(b, left))
            soft = least - c.log(c.exp(least - a) + c.exp(least - b) + c.exp(least - left))
            found.append(costs[j] + soft)
        return c.vertcat(*found)

    start = np.concatenate([[0.0], np.full(m, 1e10)])
    return function(row, (m + 1,), (m,)).mapaccum(n)(start, cost.T)[m, -1]


def gauss_seidel(f: Any, sweeps: int) -> Any:
    n, m = f.shape

    def sweep(u: Any, f: Any) -> Any:
        u, f = c.SX(c.reshape(u, n, m)), c.reshape(f, n, m)
        for i in range(1, n - 1):
            for j in range(1, m - 1):
                u[i, j] = 0.25 * (u[i - 1, j] + u[i + 1, j] + u[i, j - 1] + u[i, j + 1] - f[i, j])
        return c.vec(u)

    run = function(sweep, (n * m,), (n * m,)).mapaccum(sweeps)
    return c.sumsqr(run(np.zeros(n * m), c.repmat(c.vec(f), 1, sweeps))[:, -1])


def tridiagonal(b: Any, a: Any, upper: Any, d: Any) -> Any:
    def forward(state: Any, x: Any) -> Any:
        p, q = state[0], state[1]
        m = 1.0 / (x[0] - x[1] * p)
        return c.vertcat(x[2] * m, (x[3] - x[1] * q) * m)

    n = b.shape[0]
    found = function(forward, (2,), (4,)).mapaccum(n)(np.zeros(2), c.horzcat(b, a, upper, d).T)
    backward = function(lambda x, pq: pq[1] - pq[0] * x, (1,), (2,)).mapaccum(n)
    return c.sumsqr(backward(0.0, found[:, ::-1]))


def particles(x: Any, cut: float) -> Any:
    def pair(a: Any, b: Any) -> Any:
        d = c.sumsqr(a - b)
        s = 1.0 / (d * d * d)
        return c.if_else(d < cut * cut, 4.0 * (s * s - s), 0.0)

    i, j = np.tril_indices(x.shape[0], -1)
    columns = x.T
    return c.sum2(function(pair, (3,), (3,)).map(len(i))(columns[:, i.tolist()], columns[:, j.tolist()]))


def lstm(weights: Any, x: Any) -> Any:
    w, v, bias = weights
    n, steps = bias.shape[0] // 4, x.shape[0]

    def step(state: Any, driven: Any, v: Any) -> Any:
        h, cell, total = state[:n], state[n : 2 * n], state[2 * n]
        gates = driven + c.mtimes(c.reshape(v, 4 * n, n), h)
        keep, take, give = (1.0 / (1.0 + c.exp(-gates[k * n : (k + 1) * n])) for k in range(3))
        cell = keep * cell + take * c.tanh(gates[3 * n :])
        h = give * c.tanh(cell)
        return c.vertcat(h, cell, total + c.sumsqr(h))

    run = function(step, (2 * n + 1,), (4 * n,), (4 * n * n,)).mapaccum(steps)
    driven = c.mtimes(w, x.T) + c.repmat(bias, 1, steps)
    return run(np.zeros(2 * n + 1), driven, c.repmat(c.vec(v), 1, steps))[2 * n, -1]


def mandelbrot(centre: Any, width: float, points: int, limit: int) -> Any:
    """All steps of a point are made, after it has left to no effect."""

    def step(z: Any, at: Any) -> Any:
        x, y = z[0], z[1]
        inside = x * x + y * y < 4.0
        return c.if_else(inside, c.vertcat(x * x - y * y, 2.0 * x * y) + at, z)

    offset = width * (np.arange(points) / points - 0.5)
    at = np.stack([np.repeat(offset, points), np.tile(offset, points)])
    start = c.repmat(centre, 1, points * points) + at
    all_points = function(step, (2,), (2,)).map(points * points)
    z = all_points.fold(limit - 1)(start, c.repmat(start, 1, limit - 1))
    d = c.sum1(z**2)
    return c.sum2(c.if_else(d >= 4.0, (d - 4.0) ** 2, 0.0))
