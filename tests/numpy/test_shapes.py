"""Rearranging, joining, splitting, repeating and selecting against NumPy, and views that write through."""

import numpy as np
import pytest
from traced_numpy import agrees, traced

KINDS = ["f8", "f4", "i8", "?"]
M = np.arange(6.0).reshape(2, 3)
C = np.arange(24.0).reshape(2, 3, 4)
V = np.array([1.0, 2.0, 3.0, 4.0, 5.0])

CASES = {
    "reshape": [(C, lambda x: np.reshape(x, (4, -1))), (C, lambda x: x.reshape(-1)), (C, lambda x: x.reshape(6, 4))],
    "reshape order": [(C, lambda x: np.reshape(x, (4, 6), order="F")), (M, lambda x: np.ravel(x, order="F"))],
    "reshape one": [(V[:1], lambda x: x.reshape(())), (V[:0], lambda x: x.reshape(0, 3))],
    "ravel": [(C, np.ravel), (C, lambda x: x.ravel()), (C, lambda x: x.flatten())],
    "transpose": [(C, np.transpose), (C, lambda x: np.transpose(x, (1, 0, -1))), (C, lambda x: x.T)],
    "swapaxes": [(C, lambda x: np.swapaxes(x, 0, -1)), (C, lambda x: x.swapaxes(1, 2))],
    "matrix_transpose": [(C, np.matrix_transpose), (C, np.linalg.matrix_transpose)],
    "moveaxis": [(C, lambda x: np.moveaxis(x, 0, -1)), (C, lambda x: np.moveaxis(x, (0, 2), (1, 0)))],
    "rollaxis": [(C, lambda x: np.rollaxis(x, 2)), (C, lambda x: np.rollaxis(x, 0, 3))],
    "expand_dims": [(M, lambda x: np.expand_dims(x, 1)), (M, lambda x: np.expand_dims(x, (0, -1)))],
    "squeeze": [(M[:, :1], np.squeeze), (M[:1, None], lambda x: np.squeeze(x, (0, 1)))],
    "broadcast": [(V, lambda x: np.broadcast_to(x, (2, 5))), (M[:, :1], lambda x: np.broadcast_to(x, (2, 4)))],
    "broadcast_arrays": [(V, lambda x: np.broadcast_arrays(x, np.zeros((2, 1))))],
    "atleast": [(V, np.atleast_2d), (V, np.atleast_3d), (M, np.atleast_1d), (V[0], np.atleast_1d), (M, np.atleast_3d)],
    "flip": [(C, np.flip), (C, lambda x: np.flip(x, (0, -1))), (M, np.flipud), (M, np.fliplr)],
    "rot90": [(M, np.rot90), (M, lambda x: np.rot90(x, 2)), (C, lambda x: np.rot90(x, 3, (1, 2)))],
    "roll": [(V, lambda x: np.roll(x, 2)), (M, lambda x: np.roll(x, -1)), (C, lambda x: np.roll(x, (1, 2), (0, 2)))],
    "triangles": [(M, np.tril), (C, lambda x: np.triu(x, 1)), (M, lambda x: np.tril(x, -1)), (V, np.triu)],
    "diagonal": [(M, np.diagonal), (C, lambda x: np.diagonal(x, 1, 1, 2)), (M, lambda x: x.diagonal(-1))],
    "diag": [(V, np.diag), (V, lambda x: np.diag(x, -2)), (M, lambda x: np.diag(x, 1)), (M, np.diagflat)],
    "trace": [(M, np.trace), (C, lambda x: np.trace(x, 1, 0, 2)), (C, lambda x: x.trace())],
    "concatenate": [
        (M, lambda x: np.concatenate([x, x])),
        (M, lambda x: np.concatenate((x, np.ones((2, 1), "f4")), axis=-1)),
        (M, lambda x: np.concatenate([x, x], axis=None)),
        (M, lambda x: np.concatenate([x, x], dtype="f4", casting="unsafe")),
    ],
    "stack": [(M, lambda x: np.stack([x, x * 2])), (M, lambda x: np.stack([x, x], axis=-1))],
    "stacks": [
        (V, lambda x: np.vstack([x, x])),
        (V, lambda x: np.hstack([x, x[:2]])),
        (M, lambda x: np.hstack([x, x[:, :1]])),
        (V, lambda x: np.column_stack([x, x, np.ones((5, 2))])),
        (M, lambda x: np.dstack([x, x])),
        (V, lambda x: np.dstack([x, x])),
        (V, lambda x: np.append(x, [7, 8])),
        (M, lambda x: np.block([[x, x], [x[:1], np.ones((1, 3))]])),
    ],
    "split": [
        (V, lambda x: np.array_split(x, 3)),
        (C, lambda x: np.split(x, 2, axis=2)),
        (V, lambda x: np.split(x, [1, 3])),
        (C, lambda x: np.vsplit(x, 2)),
        (C, lambda x: np.hsplit(x, 3)),
        (C, lambda x: np.unstack(x, axis=1)),
    ],
    "repeat": [
        (M, lambda x: np.repeat(x, 2)),
        (M, lambda x: np.repeat(x, 3, axis=0)),
        (M, lambda x: np.repeat(x, [1, 0, 2], axis=1)),
        (M, lambda x: x.repeat(2, axis=1)),
    ],
    "tile": [(V, lambda x: np.tile(x, 2)), (M, lambda x: np.tile(x, (2, 1))), (M, lambda x: np.tile(x, (2, 1, 2)))],
    "meshgrid": [
        (V, lambda x: np.meshgrid(x, x[:2])),
        (V, lambda x: np.meshgrid(x, x[:2], x[:3], indexing="ij")),
        (V, lambda x: np.meshgrid(x, x[:2], sparse=True)),
    ],
    "take": [
        (V, lambda x: np.take(x, [0, -1, 2])),
        (C, lambda x: np.take(x, [[0, 1], [1, 0]], axis=1)),
        (C, lambda x: np.take(x, 1, axis=-1)),
        (M, lambda x: x.take([5, 0])),
        (V, lambda x: np.take(x, [7, -8], mode="clip")),
        (V, lambda x: np.take(x, [7, -8], mode="wrap")),
    ],
    "take_along_axis": [
        (M, lambda x: np.take_along_axis(x, np.array([[2], [0]]), axis=1)),
        (C, lambda x: np.take_along_axis(x, np.array([[[1], [2], [3]]]), 2)),
        (M, lambda x: np.take_along_axis(x, np.argmax(x, axis=1, keepdims=True), axis=1)),
        (M, lambda x: np.take_along_axis(x, np.array([1, 5]), None)),
    ],
    "diff": [
        (V, np.diff),
        (C, lambda x: np.diff(x, axis=1)),
        (V, lambda x: np.diff(x, 2)),
        (M, lambda x: np.diff(x, prepend=0, append=x)),
    ],
    "ediff1d": [(M, lambda x: np.ediff1d(x * 1.0))],
    "pad": [
        (V, lambda x: np.pad(x, 2)),
        (M, lambda x: np.pad(x, ((1, 0), (2, 3)), constant_values=7)),
        (M, lambda x: np.pad(x, (1, 2), constant_values=((1, 2), (3, 4)))),
        *((M, lambda x, mode=mode: np.pad(x, (1, 2), mode)) for mode in ("edge", "symmetric", "wrap")),
        (V, lambda x: np.pad(x, 3, "reflect")),
    ],
    "vander": [(V, np.vander), (V, lambda x: np.vander(x, 3, increasing=True))],
    "asks": [(C, lambda x: (np.ndim(x), np.size(x), np.size(x, 1), *np.shape(x)))],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CASES)
def test_against_numpy(name, kind):
    for x, f in CASES[name]:
        agrees(f, x.astype(kind))


def test_choice_by_traced_positions():
    agrees(lambda x, i: np.take(x, i), V, np.array([0, -1, 2]))
    agrees(lambda x, i: np.take(x, i, axis=1), M, np.array([[0, -1]]))
    agrees(lambda x, i: np.take(x, i, mode="wrap"), V, np.array([9, -7]))
    agrees(lambda x, i: np.take_along_axis(x, i, 1), M, np.array([[0, 2], [1, 1]]))


def test_views_write_through():
    def f(x):
        np.reshape(x, (3, 2))[1] = 10.0
        x.T[0, 1] = 20.0
        np.ravel(x)[-1] += 5.0
        np.squeeze(x[None])[0, 0] = -1.0
        np.flip(x, 1)[0, 0] = 7.0
        np.split(x, 2)[1][0, 1] = 8.0
        np.swapaxes(x, 0, 1)[2] *= 2.0
        return x

    agrees(f, M)


def test_writing_functions():
    def fill(x):
        np.fill_diagonal(x, 9.0)
        return x

    def put(x):
        np.put_along_axis(x, np.array([[1], [2]]), 5.0, axis=1)
        return x

    def copy(x):
        np.copyto(x, 3, where=x > 2)
        np.copyto(x[0], [4.0, 5.0, 6.0])
        return x

    for f in (fill, put, copy):
        agrees(f, M)


@pytest.mark.parametrize(
    "f, message",
    [
        (lambda x: x.reshape(4, 2), r"cannot reshape array of size 6 and shape \(2,3\) into shape \(4,2\)"),
        (lambda x: x.reshape(-1, -1), "only specify one unknown dimension"),
        (lambda x: np.transpose(x, (0,)), "axes don't match array"),
        (lambda x: np.transpose(x, (0, 0)), "repeated axis"),
        (lambda x: np.concatenate([x, np.ones((2, 2))]), "along dimension 1"),
        (lambda x: np.stack([x, x[0]]), r"must have the same shape, got \(2,3\), \(3,\)"),
        (lambda x: np.squeeze(x, 0), "not equal to one"),
        (lambda x: np.broadcast_to(x, (2, 4)), r"from shape \(2,3\) into shape \(2,4\)"),
        (lambda x: np.split(x, 2, axis=1), "equal division"),
        (lambda x: np.expand_dims(x, 5), "out of bounds"),
        (lambda x: np.take(x, 9), "out of bounds"),
        (lambda x: np.pad(x, 1, "median", stat_length=0), "stat_length of 0"),
        (lambda x: np.tile(x, x[0, 0].astype(int)), "known when the function is compiled"),
    ],
)
def test_errors_tell(f, message):
    with pytest.raises((TypeError, ValueError, IndexError), match=message):
        traced(f, M)


def test_methods_in_columns_first_order_and_single_elements():
    x = np.arange(12.0).reshape(3, 4)
    agrees(lambda x: (x.ravel("F"), x.flatten("F"), x.reshape((4, 3), order="F"), x.ravel("A")), x)
    agrees(lambda x: (x.item(2), x.item(-1), x.item(1, 2), x.item((1, 2)), x[0, 0].item()), x)
    agrees(lambda x, c: (x.compress(c, axis=0), x.compress([True, False], 1)), x, np.array([True, True, True]))


def test_roll_by_traced_shifts():
    x = np.arange(12.0).reshape(3, 4)
    for k in (0, 1, -5):
        agrees(lambda x, k: (np.roll(x, k), np.roll(x, k, 1), np.roll(x, (k, 1), (0, 1))), x, np.array(k))
    agrees(lambda x, k: np.roll(x, k, axis=(0, 1)), x, np.array([2, -1]))
    agrees(lambda x, k: np.roll(x, k), np.zeros((0, 2)), np.array(1))
