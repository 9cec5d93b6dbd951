"""Minimizers and solvers, with what they call inside."""

import math

import numpy as np

from programs.registry import program

RNG = np.random.default_rng(5)
SPD = RNG.normal(size=(6, 6))
SPD = SPD @ SPD.T + 6 * np.eye(6)


def rosenbrock(x, a):
    total = 0.0
    for i in range(len(x) - 1):
        total += a * (x[i + 1] - x[i] ** 2) ** 2 + (1 - x[i]) ** 2
    return total


def rosenbrock_gradient(x, a):
    g = np.zeros_like(x)
    for i in range(len(x) - 1):
        g[i] += -4 * a * x[i] * (x[i + 1] - x[i] ** 2) - 2 * (1 - x[i])
        g[i + 1] += 2 * a * (x[i + 1] - x[i] ** 2)
    return g


@program(np.array([-1.0, 1.2, 0.8]), 5.0, wrt=(0, 1), derivative_rtol=1e-5)
def descent_with_line_search(x, a):
    """Steepest descent; each step is halved until it goes down far enough."""
    halvings = 0
    for _ in range(15):
        g = rosenbrock_gradient(x, a)
        now = rosenbrock(x, a)
        t = 1.0
        while rosenbrock(x - t * g, a) > now - 1e-4 * t * (g @ g):
            t *= 0.5
            halvings += 1
            if t < 1e-10:
                break
        x = x - t * g
    return x, halvings


@program(2.5, 0.7, wrt=(0, 1), order=2)
def newton_with_line_search(x, c):
    """Solves x exp(c x) = 3 by damped Newton steps."""

    def f(x):
        return x * math.exp(c * x) - 3.0

    for _ in range(30):
        value = f(x)
        if abs(value) < 1e-13:
            break
        step = value / (math.exp(c * x) * (1 + c * x))
        scale = 1.0
        while abs(f(x - scale * step)) > abs(value) and scale > 1e-6:
            scale /= 2
        x -= scale * step
    return x


@program(RNG.normal(size=(6, 6)), RNG.normal(size=6), wrt=(0, 1))
def conjugate_gradient(m, b):
    """Solves (m m' + 6) x = b; stops when the residual is small."""
    a = m @ m.T + 6.0 * np.eye(6)
    x = np.zeros_like(b)
    r = b - a @ x
    p = r.copy()
    rr = r @ r
    for k in range(20):
        if rr < 1e-20:
            break
        ap = a @ p
        alpha = rr / (p @ ap)
        x += alpha * p
        r -= alpha * ap
        new = r @ r
        p = r + new / rr * p
        rr = new
    return x


@program(np.array([1.0, -2.0, 0.5]), 0.05, 0.9, 40, wrt=(0, 1, 2))
def momentum(w, rate, friction, steps):
    """Gradient descent with momentum on a quartic, state in a dict."""
    state = {"w": w.copy(), "v": np.zeros_like(w)}
    for _ in range(steps):
        g = state["w"] ** 3 - state["w"] + 0.1
        state["v"] = friction * state["v"] - rate * g
        state["w"] = state["w"] + state["v"]
    return state["w"]


@program(RNG.normal(size=5), RNG.normal(size=(8, 5)), RNG.normal(size=8), 30, wrt=(1, 2))
def adam(w, x, y, steps):
    """Least squares by Adam, in place."""
    w = w.copy()
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t in range(1, steps + 1):
        g = x.T @ (x @ w - y) / len(y)
        m *= 0.9
        m += 0.1 * g
        v *= 0.999
        v += 0.001 * g * g
        w -= 0.1 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return w


@program(SPD, RNG.normal(size=6) * 4, 25, wrt=(0, 1))
def projected_gradient(q, c, steps):
    """A quadratic over a box."""
    x = np.zeros(len(c))
    step = 1.0 / np.trace(q)
    for _ in range(steps):
        x = np.clip(x - step * (q @ x + c), -0.5, 0.5)
    active = 0
    for v in x:
        if not -0.5 < v < 0.5:
            active += 1
    return x, active


@program(0.5, 0.0, 3.0, wrt=0)
def bisection(c, lo, hi):
    """A root of cos(x) - c x, and one step of Newton from it to give it a derivative."""
    f = lambda x: math.cos(x) - c * x  # noqa: E731
    while hi - lo > 1e-9:
        mid = 0.5 * (lo + hi)
        if f(lo) * f(mid) <= 0:
            hi = mid
        else:
            lo = mid
    x = 0.5 * (lo + hi)
    return x - f(x) / (-math.sin(x) - c)


@program(0.3, 1.7, wrt=(0, 1))
def golden_section(a, b):
    """The minimum of a function of one variable; keeps the better inner point."""

    def f(x):
        return math.exp(a * x) + (x - b) ** 2

    ratio = (math.sqrt(5) - 1) / 2
    lo, hi = -3.0, 3.0
    x, y = hi - ratio * (hi - lo), lo + ratio * (hi - lo)
    fx, fy = f(x), f(y)
    for _ in range(40):
        if fx < fy:
            hi, y, fy = y, x, fx
            x = hi - ratio * (hi - lo)
            fx = f(x)
        else:
            lo, x, fx = x, y, fy
            y = lo + ratio * (hi - lo)
            fy = f(y)
    return min(fx, fy)


@program(np.array([-1.2, 1.0]), 3.0, 40, wrt=(0, 1), derivative_rtol=1e-5)
def nelder_mead(start, a, rounds):
    """The simplex method of Nelder and Mead, sorting the corners by insertion."""
    n = len(start)
    x = np.zeros((n + 1, n))
    x[0] = start
    for k in range(n):
        x[k + 1] = start
        x[k + 1, k] += 0.5
    f = np.array([rosenbrock(x[k], a) for k in range(n + 1)])
    for _ in range(rounds):
        for i in range(1, n + 1):
            fi, xi = f[i], x[i].copy()
            j = i - 1
            while j >= 0 and f[j] > fi:
                f[j + 1], x[j + 1] = f[j], x[j]
                j -= 1
            f[j + 1], x[j + 1] = fi, xi
        center = x[:n].mean(axis=0)
        reflected = center + (center - x[n])
        fr = rosenbrock(reflected, a)
        if fr < f[0]:
            further = center + 2 * (center - x[n])
            fe = rosenbrock(further, a)
            if fe < fr:
                x[n], f[n] = further, fe
            else:
                x[n], f[n] = reflected, fr
        elif fr < f[n - 1]:
            x[n], f[n] = reflected, fr
        else:
            inner = center + 0.5 * (x[n] - center)
            fc = rosenbrock(inner, a)
            if fc < f[n]:
                x[n], f[n] = inner, fc
            else:
                for k in range(1, n + 1):
                    x[k] = x[0] + 0.5 * (x[k] - x[0])
                    f[k] = rosenbrock(x[k], a)
    return f.min()


@program(np.linspace(0, 2, 10), 2 * np.exp(-1.3 * np.linspace(0, 2, 10)) + 0.1, np.array([1.0, 0.5]), wrt=(0, 1))
def levenberg_marquardt(t, y, p):
    """Fits a decay; the damping follows success and failure."""

    def residual(p):
        return p[0] * np.exp(-p[1] * t) - y

    damping = 1e-2
    r = residual(p)
    cost = r @ r
    tries = 0
    while tries < 25:
        e = np.exp(-p[1] * t)
        j0, j1 = e, -p[0] * t * e
        a, b, d = j0 @ j0 + damping, j0 @ j1, j1 @ j1 + damping
        g0, g1 = j0 @ r, j1 @ r
        det = a * d - b * b
        step = np.array([(d * g0 - b * g1) / det, (a * g1 - b * g0) / det])
        trial = residual(p - step)
        new = trial @ trial
        if new < cost:
            p, r, cost = p - step, trial, new
            damping /= 3
            if np.max(np.abs(step)) < 1e-9:
                break
        else:
            damping *= 2
        tries += 1
    return p


@program(SPD, np.ones(6), wrt=0)
def power_iteration(a, v):
    """The largest eigenvalue."""
    value = 0.0
    while True:
        w = a @ v
        new = np.linalg.norm(w)
        v = w / new
        if abs(new - value) < 1e-13 * new:
            return new
        value = new


@program(SPD + RNG.normal(size=(6, 6)), RNG.normal(size=6), wrt=(0, 1))
def elimination_with_pivots(a, b):
    """Solves a x = b with row exchanges."""
    a, b = a.copy(), b.copy()
    n = len(b)
    for k in range(n):
        pivot = k
        for i in range(k + 1, n):
            if abs(a[i, k]) > abs(a[pivot, k]):
                pivot = i
        if pivot != k:
            for j in range(n):
                a[k, j], a[pivot, j] = a[pivot, j], a[k, j]
            b[k], b[pivot] = b[pivot], b[k]
        for i in range(k + 1, n):
            factor = a[i, k] / a[k, k]
            for j in range(k, n):
                a[i, j] -= factor * a[k, j]
            b[i] -= factor * b[k]
    x = np.zeros(n)
    for i in range(n - 1, -1, -1):
        total = b[i]
        for j in range(i + 1, n):
            total -= a[i, j] * x[j]
        x[i] = total / a[i, i]
    return x


@program(SPD, 30, wrt=0)
def jacobi_eigenvalues(a, rotations):
    """Eigenvalues of a symmetric matrix by rotations that each remove the largest element outside the diagonal."""
    a = a.copy()
    n = a.shape[0]
    for _ in range(rotations):
        p, q, largest = 0, 1, 0.0
        for i in range(n):
            for j in range(i + 1, n):
                if abs(a[i, j]) > largest:
                    p, q, largest = i, j, abs(a[i, j])
        if largest < 1e-9:
            break
        theta = 0.5 * math.atan2(2 * a[p, q], a[q, q] - a[p, p])
        c, s = math.cos(theta), math.sin(theta)
        row_p, row_q = c * a[p] - s * a[q], s * a[p] + c * a[q]
        a[p], a[q] = row_p, row_q
        column_p, column_q = c * a[:, p] - s * a[:, q], s * a[:, p] + c * a[:, q]
        a[:, p], a[:, q] = column_p, column_q
    return np.sum(np.diag(a) ** 3), np.max(np.diag(a))


@program(RNG.uniform(1, 5, (5, 5)), 0.5, 60, wrt=(0, 1))
def sinkhorn(cost, sharpness, rounds):
    """The entropic transport between two even distributions."""
    n, m = cost.shape
    k = np.exp(-cost * sharpness)
    u, v = np.ones(n), np.ones(m)
    for _ in range(rounds):
        u = (1.0 / n) / (k @ v)
        v = (1.0 / m) / (k.T @ u)
    return np.sum(u[:, None] * k * v * cost)


@program(RNG.normal(size=(10, 4)), RNG.normal(size=10), 0.8, 20, wrt=(0, 1, 2))
def lasso(x, y, penalty, sweeps):
    """Coordinate descent with soft thresholds."""
    n, p = x.shape
    w = np.zeros(p)
    r = y.copy()
    for _ in range(sweeps):
        for j in range(p):
            column = x[:, j]
            size = column @ column
            rho = column @ r + size * w[j]
            if rho > penalty:
                new = (rho - penalty) / size
            elif rho < -penalty:
                new = (rho + penalty) / size
            else:
                new = 0.0
            r += column * (w[j] - new)
            w[j] = new
    return w


@program(
    np.array([4.0, 3.0, 2.0]), np.array([[1.0, 2.0, 1.0], [3.0, 1.0, 2.0]]), np.array([10.0, 15.0]), 30, wrt=(0, 1, 2)
)
def primal_dual(c, a, b, rounds):
    """A linear program by steps in the primal and the dual variables."""
    x, y = np.zeros(3), np.zeros(2)
    tau = sigma = 0.2
    for _ in range(rounds):
        old = x
        x = np.maximum(0.0, x + tau * (c - a.T @ y))
        y = np.maximum(0.0, y + sigma * (a @ (2 * x - old) - b))
    return c @ x, b @ y
