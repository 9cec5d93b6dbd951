"""Filters, chains, samplers with given noise, mixtures, time series."""

import math

import numpy as np

from programs.registry import program

RNG = np.random.default_rng(2)


@program(RNG.normal(size=12), 0.3, 0.8, 0.95, wrt=(0, 1, 2, 3))
def kalman_scalar(data, q, r, phi):
    """The negative log likelihood of an autoregression that is observed with noise."""
    mean, variance = 0.0, 1.0
    loss = 0.0
    for y in data:
        mean, variance = phi * mean, phi * phi * variance + q
        s = variance + r
        gain = variance / s
        innovation = y - mean
        loss += 0.5 * (math.log(2 * math.pi * s) + innovation**2 / s)
        mean += gain * innovation
        variance *= 1 - gain
    return loss


@program(
    RNG.normal(size=(8, 2)), np.array([[1.0, 0.1], [0.0, 0.9]]), np.eye(2) * 0.1, np.eye(2) * 0.5, wrt=(0, 1, 2, 3)
)
def kalman_matrix(ys, f, q, r):
    """The filtered means of a linear system with two states; 2 x 2 inverses by hand."""
    x = np.zeros(2)
    p = np.eye(2)
    means = np.zeros((len(ys), 2))
    for t, y in enumerate(ys):
        x = f @ x
        p = f @ p @ f.T + q
        s = p + r
        det = s[0, 0] * s[1, 1] - s[0, 1] * s[1, 0]
        inverse = np.array([[s[1, 1], -s[0, 1]], [-s[1, 0], s[0, 0]]]) / det
        k = p @ inverse
        x = x + k @ (y - x)
        p = (np.eye(2) - k) @ p
        means[t] = x
    return means


A = RNG.uniform(0.1, 1, (4, 4))
B = RNG.uniform(0.1, 1, (4, 3))
A, B = A / A.sum(1, keepdims=True), B / B.sum(1, keepdims=True)
SEEN = RNG.integers(0, 3, 15)


@program(A, B, np.full(4, 0.25), SEEN, wrt=(0, 1, 2))
def hmm_forward(transition, emission, start, seen):
    """The log likelihood of a hidden Markov model, scaled at each step."""
    alpha = start * emission[:, seen[0]]
    total = 0.0
    for t in range(1, len(seen)):
        scale = alpha.sum()
        total += np.log(scale)
        alpha = (alpha / scale) @ transition * emission[:, seen[t]]
    return total + np.log(alpha.sum())


@program(np.log(A), np.log(B), SEEN, wrt=(0, 1))
def hmm_forward_log(log_a, log_b, seen):
    """The same in logarithms, with loops and a running maximum."""
    n = log_a.shape[0]
    alpha = log_b[:, seen[0]] - math.log(n)
    new = np.zeros(n)
    for t in range(1, len(seen)):
        for j in range(n):
            best = -np.inf
            for i in range(n):
                best = max(best, alpha[i] + log_a[i, j])
            total = 0.0
            for i in range(n):
                total += math.exp(alpha[i] + log_a[i, j] - best)
            new[j] = best + math.log(total) + log_b[j, seen[t]]
        alpha[:] = new
    return np.log(np.sum(np.exp(alpha)))


@program(np.log(A), np.log(B), SEEN, wrt=(0, 1))
def viterbi(log_a, log_b, seen):
    """The most likely path and its score."""
    n, length = log_a.shape[0], len(seen)
    score = log_b[:, seen[0]].copy()
    back = np.zeros((length, n), dtype=np.int64)
    for t in range(1, length):
        previous = score.copy()
        for j in range(n):
            ways = previous + log_a[:, j]
            back[t, j] = np.argmax(ways)
            score[j] = ways[back[t, j]] + log_b[j, seen[t]]
    path = np.zeros(length, dtype=np.int64)
    path[-1] = np.argmax(score)
    for t in range(length - 1, 0, -1):
        path[t - 1] = back[t, path[t]]
    return path, score.max()


@program(RNG.normal(size=6), RNG.normal(size=(6, 16)), RNG.uniform(size=6), 0.7, wrt=(0, 1, 3))
def particle_filter(data, noise, uniform, phi):
    """A bootstrap filter with systematic resampling from given random numbers."""
    n = noise.shape[1]
    x = np.zeros(n)
    loss = 0.0
    for t in range(len(data)):
        x = phi * x + noise[t]
        w = np.exp(-0.5 * (data[t] - x) ** 2)
        loss -= math.log(np.mean(w))
        w = w / np.sum(w)
        chosen = np.zeros(n, dtype=int)
        total = w[0]
        j = 0
        for i in range(n):
            u = (i + uniform[t]) / n
            while total < u and j < n - 1:
                j += 1
                total += w[j]
            chosen[i] = j
        x = x[chosen]
    return loss, x


@program(np.array([0.5, -0.3]), RNG.normal(size=(40, 2)), RNG.uniform(size=40), 0.6, wrt=(0, 1, 3))
def metropolis(x, noise, uniform, size):
    """A random walk through a banana-shaped density with given random numbers."""

    def log_density(x):
        return -0.5 * (x[0] ** 2 + 5.0 * (x[1] - x[0] ** 2) ** 2)

    chain = np.empty((len(noise), 2))
    now = log_density(x)
    accepted = 0
    for t in range(len(noise)):
        proposal = x + size * noise[t]
        then = log_density(proposal)
        if math.log(uniform[t]) < then - now:
            x, now = proposal, then
            accepted += 1
        chain[t] = x
    return chain.mean(axis=0), accepted


@program(RNG.normal(size=20) + np.repeat([0.0, 4.0], 10), np.array([-1.0, 1.0]), 8, wrt=(0, 1))
def mixture_by_em(x, centers, rounds):
    """A mixture of two normal densities."""
    k = len(centers)
    mu, sigma, weight = centers.copy(), np.ones(k), np.full(k, 1 / k)
    for _ in range(rounds):
        density = weight * np.exp(-0.5 * ((x[:, None] - mu) / sigma) ** 2) / sigma
        share = density / density.sum(axis=1, keepdims=True)
        mass = share.sum(axis=0)
        mu = share.T @ x / mass
        sigma = np.sqrt((share * (x[:, None] - mu) ** 2).sum(axis=0) / mass)
        weight = mass / len(x)
    return mu, sigma, weight


@program(RNG.normal(size=(20, 2)), RNG.normal(size=(3, 2)), 6, wrt=(0, 1))
def k_means(points, centers, rounds):
    """Lloyd's algorithm with loops; an empty cluster stays where it is."""
    centers = centers.copy()
    label = np.zeros(len(points), dtype=np.int64)
    for _ in range(rounds):
        sums = np.zeros_like(centers)
        counts = np.zeros(len(centers))
        for i, p in enumerate(points):
            best, nearest = np.inf, -1
            for c in range(len(centers)):
                d = np.sum((p - centers[c]) ** 2)
                if d < best:
                    best, nearest = d, c
            label[i] = nearest
            sums[nearest] += p
            counts[nearest] += 1
        for c in range(len(centers)):
            if counts[c] > 0:
                centers[c] = sums[c] / counts[c]
    return centers, label


@program(RNG.normal(size=6), RNG.normal(size=8), 0.5, wrt=(0, 1, 2))
def soft_dtw(a, b, gamma):
    """The soft distance of two series under time warping, over a full table."""
    n, m = len(a), len(b)
    r = np.full((n + 1, m + 1), 1e10)
    r[0, 0] = 0.0
    for i in range(1, n + 1):
        for j in range(1, m + 1):
            x, y, z = r[i - 1, j - 1], r[i - 1, j], r[i, j - 1]
            low = min(x, y, z)
            total = np.exp((low - x) / gamma) + np.exp((low - y) / gamma) + np.exp((low - z) / gamma)
            r[i, j] = (a[i - 1] - b[j - 1]) ** 2 + low - gamma * np.log(total)
    return r[n, m]


@program(RNG.normal(size=25), np.array([0.4, -0.2]), np.array([0.3]), wrt=(0, 1, 2), order=2)
def arma(y, ar, ma):
    """The conditional sum of squares of an ARMA(2, 1) model."""
    e = np.zeros(len(y))
    for t in range(len(y)):
        guess = 0.0
        for k, a in enumerate(ar):
            if t - k - 1 >= 0:
                guess += a * y[t - k - 1]
        for k, m in enumerate(ma):
            if t > k:
                guess += m * e[t - k - 1]
        e[t] = y[t] - guess
    return 0.5 * np.sum(e**2)


@program(RNG.normal(size=30), 0.1, 0.15, 0.7, wrt=(0, 1, 2, 3))
def garch(returns, omega, alpha, beta):
    """The negative log likelihood of GARCH(1, 1)."""
    if not (alpha >= 0 and beta >= 0 and alpha + beta < 1):
        return np.inf
    h = np.empty_like(returns)
    h[0] = np.var(returns)
    for t in range(1, len(returns)):
        h[t] = omega + alpha * returns[t - 1] ** 2 + beta * h[t - 1]
    return 0.5 * np.sum(np.log(h) + returns**2 / h)


@program(RNG.normal(size=(15, 3)), RNG.integers(0, 2, 15), 5, wrt=0)
def logistic_regression(x, y, rounds):
    """Iteratively reweighted least squares; the normal equations are solved by elimination."""
    p = x.shape[1]
    w = np.zeros(p)
    for _ in range(rounds):
        mu = 1.0 / (1.0 + np.exp(-(x @ w)))
        h = x.T @ (x * (mu * (1 - mu))[:, None]) + 0.1 * np.eye(p)
        g = x.T @ (y - mu) - 0.1 * w
        for k in range(p):
            g[k] /= h[k, k]
            h[k] /= h[k, k]
            for i in range(p):
                if i != k:
                    g[i] -= h[i, k] * g[k]
                    h[i] -= h[i, k] * h[k]
        w += g
    return w


@program(RNG.normal(size=18), 4, wrt=0)
def moving_statistics(x, width):
    """Mean and deviation of a window that slides, updated as it goes."""
    n = len(x)
    means = np.zeros(n)
    deviations = np.zeros(n)
    total = squares = 0.0
    for i in range(n):
        total += x[i]
        squares += x[i] * x[i]
        if i >= width:
            total -= x[i - width]
            squares -= x[i - width] ** 2
        count = min(i + 1, width)
        means[i] = total / count
        deviations[i] = math.sqrt(max(squares / count - means[i] ** 2, 0.0) + 1e-3)
    return means, deviations


@program(RNG.normal(size=10), RNG.normal(size=10), wrt=(0, 1))
def kendall(x, y):
    """Kendall's rank correlation (without derivative), and a smooth relative of it."""
    agree = 0
    smooth = 0.0
    for i in range(len(x) - 1):
        for j in range(i + 1, len(x)):
            a, b = x[i] - x[j], y[i] - y[j]
            if a * b > 0:
                agree += 1
            elif a * b < 0:
                agree -= 1
            smooth += np.tanh(a) * np.tanh(b)
    pairs = len(x) * (len(x) - 1) / 2
    return agree / pairs, smooth / pairs


@program(RNG.normal(size=(9, 2)), RNG.normal(size=9), np.array([0.5, 1.2]), 0.3, wrt=(0, 1, 2, 3), derivative_rtol=1e-5)
def gaussian_process(x, y, scales, noise):
    """The log likelihood of a Gaussian process: Cholesky's factor and a forward substitution by hand."""
    n = len(y)
    k = np.zeros((n, n))
    for i in range(n):
        for j in range(i + 1):
            d = (x[i] - x[j]) / scales
            k[i, j] = k[j, i] = np.exp(-0.5 * np.dot(d, d))
        k[i, i] += noise**2
    loss = 0.0
    z = np.zeros(n)
    for j in range(n):
        for q in range(j):
            k[j, j] -= k[j, q] ** 2
        k[j, j] = math.sqrt(k[j, j])
        for i in range(j + 1, n):
            for q in range(j):
                k[i, j] -= k[i, q] * k[j, q]
            k[i, j] /= k[j, j]
        z[j] = y[j]
        for q in range(j):
            z[j] -= k[j, q] * z[q]
        z[j] /= k[j, j]
        loss += 0.5 * z[j] ** 2 + math.log(k[j, j])
    return loss
