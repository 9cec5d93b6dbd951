"""Products of matrices by the function that programs share, for the registers of several processors."""

import ctypes
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pytest

import dflow
from dflow.backends.emit import gemm
from dflow.backends.emit.gemm_tile import Tile
from dflow.backends.native import engine
from dflow.backends.native.machine import machine, optimize

TILES = (Tile(8, 3, 64), Tile(4, 3, 32), Tile(4, 2, 16))
SHAPES = [(1, 1, 1), (3, 50, 0), (8, 24, 512), (9, 25, 513), (97, 49, 1100), (530, 60, 33)]
SHAPES += [(2, 700, 9), (5, 131, 71), (31, 130, 0), (3, 128, 4099), (70, 3, 600)]  # read as they lie


@cache
def gemm_of(dtype, tile, **symbols):
    name = f"dflow_gemm_{dtype}"
    code = machine().emit_object(optimize(gemm.module(name, tile), machine(), straight=True))
    code = engine.load(code, [name], engine._pool() | symbols)
    types = [ctypes.c_int64] * 3 + [ctypes.c_void_p, ctypes.c_int64, ctypes.c_bool] * 3
    return ctypes.CFUNCTYPE(None, *types)(int(code[name])), code


def product(dtype, tile, x, y, turned=(False, False), symmetric=False, **symbols):
    f, _ = gemm_of(dtype, tile, **symbols)
    z = np.full((len(x), y.shape[1]), np.nan, x.dtype)
    given = [np.ascontiguousarray(v.T if t else v) for v, t in zip((x, y), turned)]
    places = [p for v, t in zip((*given, z), (*turned, symmetric)) for p in (v.ctypes.data, v.shape[1], t)]
    f(*x.shape[:1], y.shape[1], x.shape[1], *places)
    return z


@pytest.mark.parametrize("tile", TILES, ids=lambda t: str(8 * t.bytes))
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_shapes(dtype, tile):
    rng = np.random.default_rng(0)
    for m, n, k in SHAPES:
        x, y = (rng.integers(-4, 5, s).astype(f"f{int(dtype[1:]) // 8}") for s in ((m, k), (k, n)))
        for turned in ((False, False), (True, False), (False, True), (True, True)):
            np.testing.assert_array_equal(product(dtype, tile, x, y, turned), x @ y)


@pytest.mark.parametrize("tile", TILES, ids=lambda t: str(8 * t.bytes))
@pytest.mark.parametrize("n", [1, 40, 131])
def test_symmetric_products(tile, n):
    x = np.random.default_rng(1).integers(-4, 5, (n, 70)).astype(float)
    np.testing.assert_array_equal(product("f64", tile, x, x.T, (False, True), True), x @ x.T)


def test_nothing_reaches_other_elements():
    x, y = np.ones((11, 13)), np.ones((13, 27))
    x[4, 5], y[7, 26] = np.nan, np.inf
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(product("f64", TILES[0], x, y), x @ y)


@pytest.mark.parametrize("turned", [(False, False), (False, True)])
def test_rows_that_are_not_there_add_nothing(turned):
    x, y = np.ones((5, 13)), np.ones((13, 133))
    x[4, 12], y[12, 132] = np.nan, np.inf
    np.testing.assert_array_equal(product("f64", TILES[0], x, y, turned), x @ y)


def test_without_memory():
    asked = []
    malloc = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t)(asked.append)
    x = np.random.default_rng(3).integers(-4, 5, (90, 90)).astype(float)
    for _ in range(2):
        found = product("f64", TILES[0], x, x, malloc=ctypes.cast(malloc, ctypes.c_void_p).value)
        np.testing.assert_array_equal(found, x @ x)
    assert len(asked) >= 2


def test_threads_at_the_same_time_and_after_a_fork():
    x = np.random.default_rng(4).normal(size=(150, 150))
    f = dflow.jit(np.matmul)
    wanted = f(x, x)
    with ThreadPoolExecutor(20) as threads:
        for found in threads.map(lambda _: f(x, x), range(60)):
            np.testing.assert_array_equal(found, wanted)
    if hasattr(os, "fork"):
        pid = os.fork()
        if pid == 0:
            os._exit(0 if np.array_equal(f(x, x), wanted) else 1)
        assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.parametrize("m", [9, 301])
@pytest.mark.parametrize("f", [lambda x, y: x @ y, lambda x, y: x @ y.T])
def test_results_are_the_same_for_every_number_of_threads(f, m):
    x, y = np.random.default_rng(2).normal(size=(2, 601, 601))
    x = x[:m]
    before = dflow.threads()
    try:
        found = [(dflow.set_threads(n), dflow.jit(f)(x, y))[1] for n in (1, 2, 5)]
    finally:
        dflow.set_threads(before)
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)
    np.testing.assert_allclose(found[0], f(x, y), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("tile", TILES, ids=lambda t: str(8 * t.bytes))
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_few_rows_and_columns_for_many_threads(dtype, tile):
    before = dflow.threads()
    try:
        dflow.set_threads(8)
        for m, n in ((20, 24), (24, 20), (40, 48), (96, 40)):
            x, y = np.ones((m, 1100), f"f{int(dtype[1:]) // 8}"), np.ones((1100, n), f"f{int(dtype[1:]) // 8}")
            np.testing.assert_array_equal(product(dtype, tile, x, y), x @ y)
    finally:
        dflow.set_threads(before)
