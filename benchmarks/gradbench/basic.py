"""The problems hello, lse, llsq, det, ode and kmeans."""

import numpy as np

import dflow


def square(x):
    return x * x


def log_sum_exp(x):
    largest = np.max(x)
    return largest + np.log(np.sum(np.exp(x - largest)))


def least_squares(x, n):
    """Half the squared error of the polynomial with coefficients ``x`` against the sign, at ``n`` points of [-1, 1]."""
    total = 0.0
    for i in range(n):
        t = -1.0 + i * 2.0 / (n - 1.0)
        error, power = np.sign(t), 1.0
        for j in range(len(x)):
            error -= x[j] * power
            power *= t
        total += error * error
    return total / 2.0


def determinant(a):
    """By expansion by minors. ``after[j]`` is the next of the columns that remain, ``after[n]`` the first."""
    n = len(a)
    after = np.arange(1, n + 2)
    after[n] = 0
    return minor(a, after, n)


def minor(a, after, size):
    n = len(a)
    row, before, column = n - size, n, after[n]
    if size == 1:
        return a[row, column]
    total, sign = 0.0, 1.0
    for _ in range(size):
        after[before] = after[column]
        total += sign * a[row, column] * minor(a, after, size - 1)
        after[before] = column
        before, column, sign = column, after[column], -sign
    return total


def slope(x, y):
    z = np.empty_like(y)
    z[0] = x[0]
    for i in range(1, len(x)):
        z[i] = x[i] * y[i - 1]
    return z


def runge_kutta(x, steps):
    """Solves y' = slope(x, y) from 0 to time 2."""
    h = 2.0 / steps
    y = np.zeros_like(x)
    for _ in range(steps):
        k1 = slope(x, y)
        k2 = slope(x, y + h * k1 / 2)
        k3 = slope(x, y + h * k2 / 2)
        k4 = slope(x, y + h * k3)
        y = y + h * (k1 + 2 * k2 + 2 * k3 + k4) / 6
    return y


def last_of_runge_kutta(x, steps):
    return runge_kutta(x, steps)[-1]


def k_means(centroids, points):
    """The sum of the squared distances of points to the nearest centroid."""
    total = 0.0
    for i in range(len(points)):
        nearest = np.inf
        for j in range(len(centroids)):
            d = 0.0
            for k in range(points.shape[1]):
                d += (points[i, k] - centroids[j, k]) ** 2
            nearest = min(nearest, d)
        total += nearest
    return total


def k_means_direction(centroids, points):
    """The step of Newton: the gradient over the second derivatives, which are zero off the diagonal."""
    gradient, diagonal = dflow.jvp(dflow.grad(k_means), (centroids, points), (np.ones_like(centroids), None))
    return gradient / diagonal
