"""Numerical programs as one writes them in NumPy. Each takes what it is differentiated by first, and gives a float."""

import numpy as np


def total(x):
    """The least of programs."""
    return np.sum(x)


def pendulum_slope(z):
    a, b, v, w = z[0], z[1], z[2], z[3]
    d = a - b
    sin, cos = np.sin(d), np.cos(d)
    below = 2.0 - cos * cos
    dv = (-w * w * sin - 2.0 * 9.81 * np.sin(a) - cos * (v * v * sin - 9.81 * np.sin(b))) / below
    dw = (2.0 * v * v * sin - 2.0 * 9.81 * np.sin(b) + cos * (w * w * sin + 2.0 * 9.81 * np.sin(a))) / below
    return np.array([v, w, dv, dw])


def double_pendulum(z, steps):
    """A double pendulum: steps of the classical method of Runge and Kutta."""
    h = 0.01
    for _ in range(steps):
        k1 = pendulum_slope(z)
        k2 = pendulum_slope(z + h / 2 * k1)
        k3 = pendulum_slope(z + h / 2 * k2)
        k4 = pendulum_slope(z + h * k3)
        z = z + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return np.sum(z**2)


def van_der_pol(z, mu):
    return np.array([z[1], mu * (1.0 - z[0] * z[0]) * z[1] - z[0]])


def adaptive(z, mu, end):
    """Van der Pol's oscillator by the pair of Bogacki and Shampine, orders 3 and 2, whose step follows the error."""
    t, h = 0.0, 0.01
    k1 = van_der_pol(z, mu)
    while t < end:
        h = min(h, end - t)
        k2 = van_der_pol(z + h / 2 * k1, mu)
        k3 = van_der_pol(z + 3 * h / 4 * k2, mu)
        new = z + h / 9 * (2 * k1 + 3 * k2 + 4 * k3)
        k4 = van_der_pol(new, mu)
        error = np.sqrt(np.sum((h * (-5 / 72 * k1 + k2 / 12 + k3 / 9 - k4 / 8)) ** 2)) + 1e-16
        if error < 1e-6:
            t, z, k1 = t + h, new, k4
        h = h * min(5.0, max(0.2, 0.9 * (1e-6 / error) ** (1 / 3)))
    return np.sum(z**2)


def kalman(theta, seen):
    """The log-likelihood of a filter of Kalman: four states of constant velocity, of which two are seen."""
    q, r = np.exp(theta[0]), np.exp(theta[1])
    step = np.eye(4)
    step[0, 2] = step[1, 3] = 0.1
    noise = q * np.eye(4)
    m, p = np.zeros(4), np.eye(4)
    total = 0.0
    for t in range(len(seen)):
        m = step @ m
        p = step @ p @ step.T + noise
        s = p[:2, :2] + r * np.eye(2)
        det = s[0, 0] * s[1, 1] - s[0, 1] * s[1, 0]
        inverse = np.array([[s[1, 1], -s[0, 1]], [-s[1, 0], s[0, 0]]]) / det
        v = seen[t] - m[:2]
        total -= 0.5 * (v @ inverse @ v + np.log(det))
        gain = p[:, :2] @ inverse
        m = m + gain @ v
        p = p - gain @ p[:2, :]
    return total


def hidden_markov(logits, emission, seen):
    """The log-likelihood of a hidden Markov model, by the forward recursion with scaling."""
    weight = np.exp(logits)
    move = weight / np.sum(weight, axis=1)[:, None]
    a = np.ones(len(logits)) / len(logits)
    total = 0.0
    for t in range(len(seen)):
        a = (a @ move) * emission[:, seen[t]]
        s = np.sum(a)
        a = a / s
        total += np.log(s)
    return total


def soft_dtw(cost):
    """Dynamic time warping with a soft minimum."""
    n, m = cost.shape
    r = np.full((n + 1, m + 1), 1e10)
    r[0, 0] = 0.0
    for i in range(1, n + 1):
        for j in range(1, m + 1):
            a, b, c = r[i - 1, j - 1], r[i - 1, j], r[i, j - 1]
            least = min(a, min(b, c))
            soft = least - np.log(np.exp(least - a) + np.exp(least - b) + np.exp(least - c))
            r[i, j] = cost[i - 1, j - 1] + soft
    return r[n, m]


def gauss_seidel(f, sweeps):
    """Sweeps of Gauss and Seidel over the equation of Poisson on a square."""
    u = np.zeros_like(f)
    n, m = f.shape
    for _ in range(sweeps):
        for i in range(1, n - 1):
            for j in range(1, m - 1):
                u[i, j] = 0.25 * (u[i - 1, j] + u[i + 1, j] + u[i, j - 1] + u[i, j + 1] - f[i, j])
    return np.sum(u**2)


def tridiagonal(b, a, c, d):
    """A tridiagonal system by the algorithm of Thomas: ``a`` below the diagonal ``b``, ``c`` above it."""
    n = len(b)
    p, q = np.zeros(n), np.zeros(n)
    p[0], q[0] = c[0] / b[0], d[0] / b[0]
    for i in range(1, n):
        m = 1.0 / (b[i] - a[i] * p[i - 1])
        p[i] = c[i] * m
        q[i] = (d[i] - a[i] * q[i - 1]) * m
    x = np.zeros(n)
    x[n - 1] = q[n - 1]
    for i in range(n - 2, -1, -1):
        x[i] = q[i] - p[i] * x[i + 1]
    return np.sum(x**2)


def particles(x, cut):
    """The energy of Lennard and Jones of particles in space, of pairs nearer than ``cut``."""
    n = len(x)
    total = 0.0
    for i in range(n):
        for j in range(i):
            d = 0.0
            for k in range(3):
                d += (x[i, k] - x[j, k]) ** 2
            if d < cut * cut:
                s = 1.0 / (d * d * d)
                total += 4.0 * (s * s - s)
    return total


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def lstm(weights, x):
    """Cells of long short-term memory over a sequence; ``weights`` by what they act on: input, state, and one."""
    w, v, bias = weights
    n = len(bias) // 4
    h, c = np.zeros(n), np.zeros(n)
    total = 0.0
    for t in range(len(x)):
        gates = w @ x[t] + v @ h + bias
        keep, take, give = sigmoid(gates[:n]), sigmoid(gates[n : 2 * n]), sigmoid(gates[2 * n : 3 * n])
        c = keep * c + take * np.tanh(gates[3 * n :])
        h = give * np.tanh(c)
        total += np.sum(h**2)
    return total


def sparse_product(values, x, columns, starts):
    """The squared length of a matrix in compressed rows times a vector."""
    total = 0.0
    for i in range(len(starts) - 1):
        s = 0.0
        for k in range(starts[i], starts[i + 1]):
            s += values[k] * x[columns[k]]
        total += s * s
    return total


def mandelbrot(centre, width, points, limit):
    """The squared distance to 2 at which points of the plane leave the set of Mandelbrot, for those that do."""
    total = 0.0
    for i in range(points):
        for j in range(points):
            re = centre[0] + width * (i / points - 0.5)
            im = centre[1] + width * (j / points - 0.5)
            x, y, n = re, im, 0
            while n < limit and x * x + y * y < 4.0:
                x, y = x * x - y * y + re, 2.0 * x * y + im
                n += 1
            if n < limit:
                total += (x * x + y * y - 4.0) ** 2
    return total
