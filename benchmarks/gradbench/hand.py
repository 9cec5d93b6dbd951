"""The problem ht: the errors of a model of a hand against points, and their Jacobian."""

import numpy as np

import dflow


def around(r):
    """The rotation by the length of ``r`` around ``r``."""
    angle = np.sqrt(np.sum(r * r))
    if angle < 0.0001:
        return np.eye(3)
    x, y, z = r[0] / angle, r[1] / angle, r[2] / angle
    s, c = np.sin(angle), np.cos(angle)
    return np.array(
        [
            [x * x + (1 - x * x) * c, x * y * (1 - c) - z * s, x * z * (1 - c) + y * s],
            [x * y * (1 - c) + z * s, y * y + (1 - y * y) * c, y * z * (1 - c) - x * s],
            [x * z * (1 - c) - y * s, z * y * (1 - c) + x * s, z * z + (1 - z * z) * c],
        ]
    )


def bend(angles):
    """The transformation of a joint: rotations about the axes x, then y, then z by the first, last and middle angle."""
    a, c, b = angles[0], angles[1], angles[2]
    sa, ca, sb, cb, sc, cc = np.sin(a), np.cos(a), np.sin(b), np.cos(b), np.sin(c), np.cos(c)
    return np.array(
        [
            [cc * cb, cc * sb * sa - sc * ca, cc * sb * ca + sc * sa, 0.0],
            [sc * cb, sc * sb * sa + cc * ca, sc * sb * ca - cc * sa, 0.0],
            [-sb, cb * sa, cb * ca, 0.0],
            [0.0, 0.0, 0.0, 1.0],
        ]
    )


def pose(theta, bones):
    """The angles of each joint: of a finger's four, the first three bend, and the first turns, too."""
    angles = np.zeros((bones, 3))
    at = 6
    for finger in range(5):
        for joint in range(3):
            angles[2 + 4 * finger + joint, 0] = theta[at]
            at += 1
            if joint == 0:
                angles[2 + 4 * finger, 1] = theta[at]
                at += 1
    return angles


def vertices(theta, model):
    """The positions [v, 3] of the vertices: each follows the bones by its weights."""
    bones = len(model["base"])
    angles = pose(theta, bones)
    absolute = np.empty((bones, 4, 4))
    positions = np.zeros((len(model["vertices"]), 3))
    for i in range(bones):
        relative = model["base"][i] @ bend(angles[i])
        if model["parents"][i] == -1:
            absolute[i] = relative
        else:
            absolute[i] = absolute[model["parents"][i]] @ relative
        moved = model["vertices"] @ (absolute[i] @ model["inverse"][i])[:3].T
        positions += moved * model["weights"][:, i][:, None]
    return positions @ around(theta[:3]).T + theta[3:6]


def simple(theta, model, seen, points):
    """The errors [c, 3] of ``points`` against the vertices ``seen``."""
    return points - vertices(theta, model)[seen]


def complicated(theta, u, model, seen, points):
    """The errors of ``points`` against those at the coordinates ``u`` [c, 2] in the triangles ``seen``."""
    corners = vertices(theta, model)[model["triangles"][seen]]
    a, b = u[:, :1], u[:, 1:]
    return points - (a * corners[:, 0] + b * corners[:, 1] + (1.0 - a - b) * corners[:, 2])


def simple_jacobian(theta, model, seen, points):
    """The Jacobian [3 c, 26]."""
    return dflow.jacfwd(simple)(theta, model, seen, points).reshape(3 * len(seen), len(theta))


def complicated_jacobian(theta, u, model, seen, points):
    """The Jacobian [3 c, 28]: by the point's own two coordinates, the only ones that matter to it, and by theta."""
    result = np.empty((3 * len(seen), 2 + len(theta)))
    for k in range(2):
        direction = np.zeros_like(u)
        direction[:, k] = 1.0
        result[:, k] = dflow.jvp(lambda u: complicated(theta, u, model, seen, points), (u,), (direction,))[1].reshape(
            -1
        )
    result[:, 2:] = dflow.jacfwd(complicated)(theta, u, model, seen, points).reshape(3 * len(seen), len(theta))
    return result
