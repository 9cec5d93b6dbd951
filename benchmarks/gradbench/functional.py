"""The problems by operations of whole arrays and without assignment, as one writes them for JAX and PyTorch.

The arguments are those of the plain programs. ``np``, ``scan`` and the derivatives are those of the library that runs
them (`benchmarks.libraries`).
"""

from typing import Any

import numpy
import numpy as np

scan = grad = jvp = vmap = jacfwd = jacrev = None


def hello(x: Any) -> Any:
    return x * x


def log_sum_exp(x: Any, axis: int = 0) -> Any:
    largest = np.max(x, axis=axis)
    return largest + np.log(np.sum(np.exp(x - np.max(x, axis=axis, keepdims=True)), axis=axis))


def lse(x: Any) -> Any:
    return log_sum_exp(x)


def llsq(x: Any, n: int) -> Any:
    """The polynomial by Horner's rule, at all points at once."""
    t = -1.0 + np.arange(n) * (2.0 / (n - 1.0))
    error = np.sign(t) - scan(lambda total, c: (total * t + c, None), 0.0 * t, x, reverse=True)[0]
    return np.sum(error * error) / 2.0


def ode(x: Any, steps: int) -> Any:
    def slope(y: Any) -> Any:
        return np.concatenate([x[:1], x[1:] * y[:-1]])

    h, y = 2.0 / steps, np.zeros_like(x)
    for _ in range(steps):
        k1 = slope(y)
        k2 = slope(y + h * k1 / 2)
        k3 = slope(y + h * k2 / 2)
        k4 = slope(y + h * k3)
        y = y + h * (k1 + 2 * k2 + 2 * k3 + k4) / 6
    return y


def ode_last(x: Any, steps: int) -> Any:
    return ode(x, steps)[-1]


def kmeans(centroids: Any, points: Any) -> Any:
    products = points @ centroids.T
    near = np.sum(points * points, axis=1)[:, None] - 2.0 * products + np.sum(centroids * centroids, axis=1)
    return np.sum(np.min(near, axis=1))


def kmeans_direction(centroids: Any, points: Any) -> Any:
    slope = grad(lambda c: kmeans(c, points))
    gradient, diagonal = jvp(slope, (centroids,), (np.ones_like(centroids),))
    return gradient / diagonal


def gmm(parameters: Any, x: Any, gamma: float, m: int, constant: float) -> Any:
    alpha, mu, q, l = parameters
    (n, d), k = x.shape, len(alpha)
    order = numpy.zeros((d, d), dtype=int)
    order.T[numpy.triu_indices(d, 1)] = numpy.arange(d * (d - 1) // 2)  # columns below the diagonal, one by one
    below = l[:, np.array(order.ravel())].reshape(k, d, d) * np.array(numpy.tri(d, k=-1))
    centred = x.T[None] - mu[:, :, None]
    y = np.exp(q)[:, :, None] * centred + below @ centred
    terms = (alpha + np.sum(q, axis=1))[:, None] - 0.5 * np.sum(y * y, axis=1)
    prior = 0.5 * gamma * gamma * (np.sum(np.exp(q) ** 2) + np.sum(l**2)) - m * np.sum(q)
    return constant + np.sum(log_sum_exp(terms)) - n * log_sum_exp(alpha) - prior


def lstm(main: Any, extra: Any, state: Any, sequence: Any) -> Any:
    c, b = sequence.shape
    layers = len(main) // 2

    def sigmoid(x: Any) -> Any:
        return 1.0 / (1.0 + np.exp(-x))

    def step(carry: Any, pair: Any) -> Any:
        (state, total), (x, wanted) = carry, pair
        x, after = x * extra[0], []
        for k in range(layers):
            hidden, cell = state[2 * k], state[2 * k + 1]
            gates = np.concatenate([x, hidden, x, hidden]) * main[2 * k] + main[2 * k + 1]
            cell = cell * sigmoid(gates[:b]) + sigmoid(gates[b : 2 * b]) * np.tanh(gates[3 * b :])
            x = sigmoid(gates[2 * b : 3 * b]) * np.tanh(cell)
            after += [x, cell]
        predicted = x * extra[1] + extra[2]
        return (tuple(after), total + np.sum(wanted * (predicted - np.log(2.0 + np.sum(np.exp(predicted)))))), None

    start = tuple(state[k] for k in range(2 * layers)), 0.0
    return -scan(step, start, (sequence[:-1], sequence[1:]))[0][1] / ((c - 1) * b)


def cross(a: Any, b: Any) -> Any:
    return np.stack([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


def error(camera: Any, x: Any, w: Any, seen: Any) -> Any:
    """For rotations that are not zero."""
    x, angle = x - camera[3:6], np.sqrt(np.sum(camera[:3] ** 2))
    axis, cos, sin = camera[:3] / angle, np.cos(angle), np.sin(angle)
    y = x * cos + cross(axis, x) * sin + axis * (np.sum(axis * x) * (1.0 - cos))
    p = y[:2] / y[2]
    r = np.sum(p * p)
    return w * (p * (1.0 + camera[9] * r + camera[10] * r * r) * camera[6] + camera[7:9] - seen)


def ba(cameras: Any, points: Any, weights: Any, seen: Any, observed: Any) -> Any:
    errors = vmap(error)(cameras[observed[:, 0]], points[observed[:, 1]], weights, seen)
    return errors, 1.0 - weights * weights


def ba_jacobian(cameras: Any, points: Any, weights: Any, seen: Any, observed: Any) -> Any:
    each = vmap(jacrev(error, argnums=(0, 1, 2)))
    camera, x, w = each(cameras[observed[:, 0]], points[observed[:, 1]], weights, seen)
    return np.concatenate([camera, x, w[:, :, None]], axis=2), -2.0 * weights


def around(r: Any) -> Any:
    """The rotation by the length of ``r``, which is not zero, around ``r``."""
    angle = np.sqrt(np.sum(r * r))
    x, y, z = r[0] / angle, r[1] / angle, r[2] / angle
    zero = 0.0 * x
    turn = np.stack([zero, -z, y, z, zero, -x, -y, x, zero]).reshape(3, 3)
    return np.eye(3) + np.sin(angle) * turn + (1.0 - np.cos(angle)) * (turn @ turn)


def bend(a: Any, c: Any) -> Any:
    """The transformation of a joint: rotations about the axes x and z."""
    sa, ca, sc, cc = np.sin(a), np.cos(a), np.sin(c), np.cos(c)
    zero, one = 0.0 * a, 1.0 + 0.0 * a
    parts = [cc, -sc * ca, sc * sa, zero, sc, cc * ca, -cc * sa, zero, zero, sa, ca, zero, zero, zero, zero, one]
    return np.stack(parts).reshape(4, 4)


def vertices(theta: Any, model: Any) -> Any:
    absolute: list[Any] = []
    total = 0.0
    for i in range(len(model["base"])):
        relative = model["base"][i]
        finger, joint = divmod(i - 2, 4)
        if i >= 2 and joint < 3:
            at = 6 + 4 * finger + joint + (joint > 0)
            relative = relative @ bend(theta[at], theta[at + 1] if joint == 0 else 0.0 * theta[at])
        parent = int(model["parents"][i])
        absolute.append(relative if parent == -1 else absolute[parent] @ relative)
        moved = model["vertices"] @ (absolute[i] @ model["inverse"][i])[:3].T
        total = total + moved * model["weights"][:, i][:, None]
    return total @ around(theta[:3]).T + theta[3:6]


def ht(theta: Any, *given: Any) -> Any:
    """``given``: coordinates in triangles in the complicated kind, then the model, what is seen, and the points."""
    model, seen, points = given[-3:]
    if len(given) == 3:
        return points - vertices(theta, model)[seen]
    corners = vertices(theta, model)[model["triangles"][seen]]
    a, b = given[0][:, :1], given[0][:, 1:]
    return points - (a * corners[:, 0] + b * corners[:, 1] + (1.0 - a - b) * corners[:, 2])


def ht_jacobian(theta: Any, *given: Any) -> Any:
    columns = [jacfwd(lambda theta: ht(theta, *given))(theta).reshape(-1, len(theta))]
    if len(given) > 3:
        u, *rest = given
        along = jacfwd(lambda d: ht(theta, u + d, *rest))(np.zeros_like(u[0]))
        columns.insert(0, along.reshape(-1, 2))
    return np.concatenate(columns, axis=1)
