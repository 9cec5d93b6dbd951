"""Programs of whole arrays: views, masks, swapped rows, sizes that depend on indices and data."""

import numpy as np

from programs.registry import program

RNG = np.random.default_rng(8)


@program(-2.0, 0.5, -1.25, 1.25, 5, 6, 9, static=("columns", "rows"))
def mandelbrot(left, right, low, high, columns, rows, rounds):
    """When points escape; those that have are taken out of the arrays."""
    i, j = np.mgrid[0:columns, 0:rows]
    c = np.linspace(left, right, columns)[i] + 1j * np.linspace(low, high, rows)[j]
    escaped = np.zeros(c.shape, int)
    i.shape = j.shape = c.shape = columns * rows
    z = np.zeros(c.shape, complex)
    for k in range(rounds):
        if not len(z):
            break
        np.multiply(z, z, z)
        np.add(z, c, z)
        gone = abs(z) > 2.0
        escaped[i[gone], j[gone]] = k + 1
        np.logical_not(gone, gone)
        z, c = z[gone], c[gone]
        i, j = i[gone], j[gone]
    return escaped.T


@program(RNG.integers(0, 2, (5, 6)), 3, updates=0)
def life(board, rounds):
    """The game of life on views."""
    for _ in range(rounds):
        near = board[:-2, :-2] + board[:-2, 1:-1] + board[:-2, 2:] + board[1:-1, :-2]
        near = near + board[1:-1, 2:] + board[2:, :-2] + board[2:, 1:-1] + board[2:, 2:]
        birth = (near == 3) & (board[1:-1, 1:-1] == 0)
        stays = ((near == 2) | (near == 3)) & (board[1:-1, 1:-1] == 1)
        board[...] = 0
        board[1:-1, 1:-1][birth | stays] = 1


@program(RNG.uniform(size=(5, 6)), RNG.uniform(size=(5, 6)), 3, wrt=(0, 1))
def gray_scott(u, v, rounds):
    """Two substances that diffuse and react, updated through views of their inner parts."""

    def spread(a):
        return a[:-2, 1:-1] + a[1:-1, :-2] - 4 * a[1:-1, 1:-1] + a[1:-1, 2:] + a[2:, 1:-1]

    u, v = u.copy(), v.copy()
    inner_u, inner_v = u[1:-1, 1:-1], v[1:-1, 1:-1]
    for _ in range(rounds):
        change_u, change_v, reaction = spread(u), spread(v), inner_u * inner_v**2
        inner_u += 0.16 * change_u - reaction + 0.035 * (1 - inner_u)
        inner_v += 0.08 * change_v + reaction - 0.1 * inner_v
    return v


@program(RNG.uniform(size=(5, 5)), RNG.normal(size=(3, 3)), RNG.normal(size=(3, 3)), wrt=(0, 1, 2))
def advect(density, along, across):
    """Follows the flow back, and takes the density between four cells there."""
    n = len(density) - 2
    x = np.arange(1, n + 1)[:, None] - 0.3 * along
    y = np.arange(1, n + 1) - 0.3 * across
    x[x < 0.5] = 0.5
    x[x > n + 0.5] = n + 0.5
    y = np.minimum(np.maximum(y, 0.5), n + 0.5)
    i, j = x.astype(int), y.astype(int)
    s, t = x - i, y - j
    moved = np.zeros_like(density)
    moved[1:-1, 1:-1] = (1 - s) * ((1 - t) * density[i, j] + t * density[i, j + 1])
    moved[1:-1, 1:-1] += s * ((1 - t) * density[i + 1, j] + t * density[i + 1, j + 1])
    return moved


@program(RNG.normal(size=(5, 5)), RNG.normal(size=5), wrt=(0, 1))
def pivoted_elimination(a, b):
    """Factors with row exchanges, then solves."""
    a, n, order = a.copy(), len(b), np.arange(len(b))
    for k in range(n - 1):
        p = np.argmax(np.abs(a[k:, k])) + k
        if p != k:
            a[[k, p]] = a[[p, k]]
            order[[k, p]] = order[[p, k]]
        a[k + 1 :, k] /= a[k, k]
        a[k + 1 :, k + 1 :] -= np.outer(a[k + 1 :, k], a[k, k + 1 :])
    x = b[order]
    for i in range(1, n):
        x[i] -= a[i, :i] @ x[:i]
    for i in range(n - 1, -1, -1):
        x[i] = (x[i] - a[i, i + 1 :] @ x[i + 1 :]) / a[i, i]
    return x, order


@program(RNG.normal(size=(6, 5)), RNG.normal(size=6), wrt=(0, 1))
def least_squares(a, b):
    """Householder's reflections."""
    a, b = map(np.array, (a, b))
    n = a.shape[1]
    for k in range(n):
        v = a[k:, k].copy()
        v[0] += np.copysign(np.linalg.norm(v), v[0])
        v /= np.linalg.norm(v)
        a[k:, k:] -= 2 * np.outer(v, v @ a[k:, k:])
        b[k:] -= 2 * v * (v @ b[k:])
    x = np.zeros(n)
    for k in reversed(range(n)):
        x[k] = (b[k] - np.dot(a[k, k + 1 :], x[k + 1 :])) / a[k, k]
    return x


@program(RNG.normal(size=8), wrt=0)
def power_spectrum(x):
    """The fast Fourier transform by halves, in complex numbers."""

    def transform(x):
        n = len(x)
        if n == 1:
            return x
        even, odd = transform(x[::2]), transform(x[1::2])
        turned = np.exp(-2j * np.pi * np.arange(n // 2) / n) * odd
        return np.concatenate([even + turned, even - turned])

    return np.abs(transform(x)) ** 2


@program(0.0, 1.5, 1.3, 6, wrt=(0, 1, 2), static="steps")
def romberg(a, b, k, steps):
    """An integral by halving the step, until it settles."""
    table = np.zeros((steps, steps))
    h = b - a
    table[0, 0] = 0.5 * h * (np.exp(-k * a * a) + np.exp(-k * b * b))
    points = 1
    for i in range(1, steps):
        h *= 0.5
        points *= 2
        total = 0.0
        for j in range(1, points, 2):
            total += np.exp(-k * (a + j * h) ** 2)
        table[i, 0] = 0.5 * table[i - 1, 0] + total * h
        for j in range(1, i + 1):
            table[i, j] = (4**j * table[i, j - 1] - table[i - 1, j - 1]) / (4**j - 1)
        if i > 1 and abs(table[i, i] - table[i - 1, i - 1]) < 1e-6:
            return table[i, i]
    return table[steps - 1, steps - 1]


@program(RNG.normal(size=9), wrt=0)
def median_filter(x):
    """The middle of up to five neighbours."""
    y, n = x.copy(), len(x)
    for i in range(n):
        near = np.sort(x[max(0, i - 2) : min(n, i + 3)])
        m = len(near)
        y[i] = near[m // 2] if m % 2 else 0.5 * (near[m // 2 - 1] + near[m // 2])
    return y


@program(RNG.normal(size=(4, 2)), RNG.normal(size=(4, 2)), wrt=(0, 1))
def haar(a, b):
    """Wavelets: means and differences, again of the means."""
    x = np.c_[a, b].ravel()
    n, rest = len(x), np.empty(a.size + b.size)
    while n > 1:
        half = n // 2
        rest[:half] = (x[:n:2] + x[1:n:2]) / np.sqrt(2)
        rest[half:n] = (x[:n:2] - x[1:n:2]) / np.sqrt(2)
        x[:n] = rest[:n]
        n = half
    return x
