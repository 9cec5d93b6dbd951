"""Products against NumPy: every combination of ranks, and einsum's subscripts."""

import numpy as np
import pytest
from traced_numpy import agrees, traced

RNG = np.random.default_rng(0)


def draw(shape, kind="f8"):
    x = RNG.integers(-4, 5, shape)
    return (x + 0.5 * (kind[0] == "f")).astype(kind) if kind != "?" else x > 0


@pytest.mark.parametrize("kind", ["f8", "f4", "i8", "i4", "?"])
@pytest.mark.parametrize(
    "left, right",
    [
        ((3,), (3,)),
        ((2, 3), (3,)),
        ((3,), (3, 4)),
        ((2, 3), (3, 4)),
        ((5, 2, 3), (3, 4)),
        ((2, 3), (5, 3, 4)),
        ((5, 1, 2, 3), (6, 3, 4)),
        ((5, 2, 3), (3,)),
        ((3,), (5, 3, 4)),
        ((2, 0), (0, 3)),
    ],
)
def test_matmul_and_dot(left, right, kind):
    x, y = draw(left, kind), draw(right, kind)
    agrees(np.matmul, x, y)
    agrees(lambda x, y: x @ y, x, y)
    agrees(np.dot, x, y)
    agrees(lambda x: x.dot(y), x)
    agrees(lambda y: x @ y, y)


@pytest.mark.parametrize("kind", ["f8", "f4", "i8"])
def test_named_products(kind):
    v, w, m, n = draw(3, kind), draw(3, kind), draw((2, 3), kind), draw((4, 3), kind)
    c = draw((2, 5, 3), kind)
    agrees(np.vdot, m, draw((2, 3), kind))
    agrees(np.inner, v, w)
    agrees(np.inner, m, n)
    agrees(np.inner, c, n)
    agrees(np.outer, m, n)
    agrees(np.dot, v, np.array(2, kind))
    agrees(np.vecdot, m, w)
    agrees(np.kron, m, n)
    agrees(np.kron, v, n)
    agrees(np.cross, v, w)
    agrees(np.cross, m, w)
    agrees(lambda a, b: np.cross(a, b, axis=0), draw((3, 2), kind), draw((3, 2), kind))
    agrees(lambda a, b: np.linalg.multi_dot([a, b.T, b, a.T]), m, n)
    agrees(lambda a: np.linalg.matrix_power(a, 5), draw((3, 3), kind))
    agrees(np.matvec, c, v)
    agrees(np.vecmat, v, draw((2, 3, 5), kind))
    agrees(lambda a: a @ np.eye(3, dtype=kind), m)


@pytest.mark.parametrize("axes", [2, 1, 0, ((0, 1), (1, 0)), (1, 0), ([2], [2])])
def test_tensordot(axes):
    shapes = {2: ((2, 3, 4), (3, 4, 5)), 1: ((2, 3), (3, 4)), 0: ((2,), (3, 2)), (1, 0): ((2, 3), (3, 4))}
    named = {"((0, 1), (1, 0))": ((2, 3, 4), (3, 2, 5)), "([2], [2])": ((2, 3, 4), (5, 3, 4))}
    left, right = named.get(str(axes)) or shapes[axes]
    agrees(lambda x, y: np.tensordot(x, y, axes), draw(left), draw(right))


@pytest.mark.parametrize(
    "subscripts, shapes",
    [
        ("ij,jk->ik", [(2, 3), (3, 4)]),
        ("ij,jk", [(2, 3), (3, 4)]),
        ("ij,jk->ki", [(2, 3), (3, 4)]),
        ("bij,bjk->bik", [(5, 2, 3), (5, 3, 4)]),
        ("ii", [(3, 3)]),
        ("ii->i", [(3, 3)]),
        ("ij->ji", [(2, 3)]),
        ("ij->", [(2, 3)]),
        ("ijk->k", [(2, 3, 4)]),
        ("i,i->", [(3,), (3,)]),
        ("i,j->ij", [(3,), (2,)]),
        ("i,i->i", [(3,), (3,)]),
        ("ij,ij->i", [(2, 3), (2, 3)]),
        ("iij,j->i", [(3, 3, 2), (2,)]),
        ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 5)]),
        ("i,ij,j->", [(2,), (2, 3), (3,)]),
        ("i,i,i->i", [(3,), (3,), (3,)]),
        ("...ij,...jk->...ik", [(5, 2, 3), (3, 4)]),
        ("...i,...i->...", [(2, 5, 3), (5, 3)]),
        ("i...->...", [(2, 3, 4)]),
        ("...ij,jk", [(5, 2, 3), (3, 4)]),
        ("abc,abd->bcd", [(2, 3, 4), (2, 3, 5)]),
        ("ab,cd->", [(2, 3), (4, 5)]),
        ("ij,kj->ik", [(1, 3), (2, 3)]),
        ("bi,bi->b", [(1, 3), (4, 3)]),
        ("pqrs,pi,qj,rk->ijks", [(2, 2, 2, 2), (2, 3), (2, 3), (2, 3)]),
    ],
)
@pytest.mark.parametrize("kind", ["f8", "f4", "i8"])
def test_einsum(subscripts, shapes, kind):
    agrees(lambda *xs: np.einsum(subscripts, *xs), *(draw(s, kind) for s in shapes))


@pytest.mark.parametrize(
    "f, message",
    [
        (lambda x: x @ x, r"shapes \(2,3\) and \(2,3\)"),
        (lambda x: np.dot(x, x), r"shapes \(2,3\) and \(2,3\) not aligned: 3 \(dim 1\) != 2 \(dim 0\)"),
        (lambda x: np.matmul(x, 2.0), "does not have enough dimensions"),
        (lambda x: np.cross(x[:, :1], x[:, :2]), "must be 2 or 3"),
        (lambda x: np.einsum("ij,jk->ik", x, x), "size 2 in one operand and 3 in another"),
        (lambda x: np.einsum("ijk->i", x), "do not fit an operand with 2 axes"),
        (lambda x: np.einsum("ij->ik", x), "'k' of the result"),
        (lambda x: np.tensordot(x, x, 1), "shape-mismatch"),
    ],
)
def test_errors_tell(f, message):
    with pytest.raises((TypeError, ValueError), match=message):
        traced(f, np.ones((2, 3)))


def test_einsum_of_one_array_twice():
    agrees(lambda x: np.einsum("ij,kj->ik", x, x), np.arange(6.0).reshape(2, 3))
    agrees(lambda x: np.einsum("ij,ij,kj->k", x, x, x), np.arange(6.0).reshape(2, 3))
