"""Kernels that are written in a way of their own: transposes, products, scatters, reductions."""

import numpy as np
import pytest
from on_device import compare, numbers

from dflow.backends.cuda import product_kernel, work


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Kernels for small arrays too."""
    monkeypatch.setattr(work, "WIDE", 4)
    monkeypatch.setattr(work, "MANY", 4)


# --- transposes: tiles of 32 by 32, so that both sides have edges


@pytest.mark.parametrize(
    ("axes", "shape"), [((2, 0, 1), (17, 18, 33)), ((2, 1, 0), (17, 3, 40)), ((0, 2, 1), (2, 33, 70))]
)
def test_transposes(gpu, axes, shape):
    assert compare(lambda x: np.transpose(x, axes).copy(), numbers(*shape)) == ["tiles"]


def test_transposes_that_tiles_are_not_for(gpu):
    assert compare(lambda x: np.transpose(x, (1, 0, 2)).copy(), numbers(17, 3, 40)) == ["kernel"]
    assert compare(lambda x: x.T + 1, numbers(40, 3)) == ["kernel"]


@pytest.mark.parametrize("dtype", ["?", "f2", "c16"])
def test_transposed_operands(gpu, dtype):
    """One operand across, one along; parts of them; one that varies in size."""
    x = numbers(34, 45).astype(dtype)
    assert compare(lambda x, y: (y * x.T, (x.T[2:, 1:] + y[2:, 1:])), x, x.T.copy(), rtol=1e-3) == ["tiles", "tiles"]
    assert compare(lambda x, n: x[:n].T * x[0, 0], x, 31)[0] == "tiles"


# --- products


@pytest.mark.parametrize(("dtype", "rtol"), [("f2", 2e-2), ("f4", 1e-5), ("f8", 1e-12), ("i4", 0), ("c16", 1e-12)])
def test_products(gpu, dtype, rtol):
    """Tiles of 32 by 32 by 16, with edges on all sides."""
    x, y = (3 * numbers(2, 33, 19)).astype(dtype), (3 * numbers(2, 19, 40)).astype(dtype)
    assert compare(np.matmul, x, y, rtol=rtol) == ["matmul"]


def test_products_that_share_the_inner_axis(gpu):
    assert compare(np.matmul, numbers(33, 300), numbers(300, 20)) == ["matmul", "combine"]


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_products_in_larger_tiles(gpu, dtype, monkeypatch):
    monkeypatch.setattr(product_kernel, "ENOUGH", 4)
    assert compare(np.matmul, numbers(130, 9, dtype=dtype), numbers(9, 140, dtype=dtype), rtol=1e-4) == ["matmul"]
