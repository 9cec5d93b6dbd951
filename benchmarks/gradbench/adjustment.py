"""The problem ba: the errors of projecting points by cameras, and their sparse Jacobian."""

import numpy as np

import dflow


def cross(a, b):
    return np.array([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


def rotate(r, x):
    """Rotates ``x`` by the length of ``r`` around ``r``."""
    square = np.sum(r * r)
    if square == 0.0:
        return x + cross(r, x)
    angle = np.sqrt(square)
    axis = r / angle
    cos, sin = np.cos(angle), np.sin(angle)
    return x * cos + cross(axis, x) * sin + axis * (np.sum(axis * x) * (1.0 - cos))


def error(camera, x, w, seen):
    """Two weighted errors. ``camera``: rotation, centre, focal length, principal point, two distortions."""
    y = rotate(camera[:3], x - camera[3:6])
    p = y[:2] / y[2]
    r = np.sum(p * p)
    p = p * (1.0 + camera[9] * r + camera[10] * r * r)
    return w * (p * camera[6] + camera[7:9] - seen)


def objective(cameras, points, weights, seen, observed):
    """The errors of observations of a camera and a point each, and those of the weights."""
    errors = np.empty((len(observed), 2))
    for i in range(len(observed)):
        errors[i] = error(cameras[observed[i, 0]], points[observed[i, 1]], weights[i], seen[i])
    return errors, 1.0 - weights * weights


def jacobian(cameras, points, weights, seen, observed):
    """The values of the sparse Jacobian, row by row: by camera, point and weight; at the end by the weight alone."""
    n = len(observed)
    values = np.empty((n, 2, 15))
    row = dflow.jacrev(error, argnums=(0, 1, 2))
    for i in range(n):
        camera, x, w = row(cameras[observed[i, 0]], points[observed[i, 1]], weights[i], seen[i])
        values[i, :, :11] = camera
        values[i, :, 11:14] = x
        values[i, :, 14] = w
    return values, -2.0 * weights


def structure(n, m, observed):
    """Where the rows of the sparse Jacobian begin, and the columns of its values."""
    p = len(observed)
    index = np.arange(p)
    columns = np.empty((p, 2, 15), dtype=np.int64)
    columns[:, :, :11] = (11 * observed[:, :1] + np.arange(11))[:, None]
    columns[:, :, 11:14] = (11 * n + 3 * observed[:, 1:] + np.arange(3))[:, None]
    columns[:, :, 14] = (11 * n + 3 * m + index)[:, None]
    starts = np.concatenate([15 * np.arange(2 * p + 1), 30 * p + 1 + index])
    return starts, np.concatenate([columns.ravel(), 11 * n + 3 * m + index])
