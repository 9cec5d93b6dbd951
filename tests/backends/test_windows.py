"""Updates of large parts of tensors in the pass that makes the whole, and rows whose edges stand apart."""

from __future__ import annotations

import numpy as np
import pytest

import dflow
from dflow.backends.lowering.bufferize import bufferize
from dflow.backends.lowering.check_plan import check_plan
from dflow.backends.lowering.fusion import fuse
from dflow.backends.native.generation import compile_plan
from dflow.ir.builder import Builder
from dflow.ir.core import walk
from dflow.ir.evaluator import evaluate
from dflow.ir.parser import parse_function
from dflow.ir.types import C128, F32, F64, I64, TensorType
from dflow.ir.verifier import verify


def updates(f):
    return sum(op.name in ("update", "update_add") for op in walk(f.body))


def assert_agrees(f, *args):
    """Fused, in planned memory and compiled, ``f`` gives what the evaluator says, signs of zeros included."""
    verify(f)
    g = fuse(f)
    verify(g, after="fuse")
    plan = bufferize(g)
    check_plan(plan)
    for got, wanted in zip(compile_plan(plan)(*args), evaluate(f, args), strict=True):
        np.testing.assert_array_equal(got, wanted)
        np.testing.assert_array_equal(np.signbit(np.real(got)), np.signbit(np.real(wanted)))
    return g


def sample(rng, t):
    x = rng.integers(-3, 4, t.static_shape)
    x = x * (1 + 1j) if t.dtype.kind == "c" else x
    return np.where(x == 0, -x.astype(t.dtype.numpy), x).astype(t.dtype.numpy)  # with zeros of both signs


@pytest.mark.parametrize("seed", range(12))
def test_chains_of_windows(seed):
    """Parts of every place and size, small ones between, on bases of every kind."""
    rng = np.random.default_rng(seed)
    rank = int(rng.integers(1, 4))
    shape = (*rng.integers(1, 9, rank - 1).tolist(), int(rng.integers(30, 60)))
    whole = TensorType([F64, F32, I64, C128][seed % 4], shape)
    b = Builder([whole, TensorType(whole.dtype, ())])
    y = (b.args[0], b.add(b.args[0], b.args[0]), b.broadcast(b.args[1], shape=shape, dims=()))[seed % 3]
    args = [sample(rng, whole), sample(rng, TensorType(whole.dtype, ()))]
    parts = []
    for _ in range(int(rng.integers(1, 7))):
        sizes = [int(rng.integers(max(1, n - 1 - min(n // 5, 1) - 40 * (rng.random() < 0.1)), n + 1)) for n in shape]
        starts = [int(rng.integers(0, n - s + 1)) for n, s in zip(shape, sizes)]
        parts.append((sizes, starts))
    for k, (sizes, starts) in enumerate(parts):
        index = tuple(
            "all" if s == n and rng.random() < 0.7 else ("slice", s, 1) for n, s in zip(shape, sizes, strict=True)
        )
        at = [b.index(s) for s, entry in zip(starts, index) if entry != "all"]
        part = b.extract(b.args[0], *(b.index(0) for _ in shape), index=tuple(("slice", s, 1) for s in sizes))
        part = part if k % 2 else b.mul(part, part)
        y = b.emit("update" if rng.random() < 0.4 else "update_add", y, part, *at, index=index)
    inner = b.extract(y, *(b.index(0) for _ in shape), index=tuple(("slice", n, 1) for n in shape))
    total = b.reduce(b.mul(y, y), kind="sum", axes=(0,))
    assert_agrees(b.function("f", [b.add(inner, inner), total]), *args)


def test_the_cotangent_of_a_stencil_is_one_pass():
    b = Builder([TensorType(F64, (6, 38))])
    y = b.zeros(TensorType(F64, (8, 40)))
    for i, j in ((0, 1), (2, 1), (1, 0), (1, 2), (1, 1)):
        y = b.update_add(y, b.args[0], b.index(i), b.index(j), index=(("slice", 6, 1), ("slice", 38, 1)))
    g = assert_agrees(b.function("f", [y]), np.random.default_rng(0).normal(size=(6, 38)))
    assert [op.name for op in g.body.ops if op.name != "constant"] == ["kernel"]


def test_a_window_in_what_is_there_stays_in_place():
    b = Builder([TensorType(F64, (40,)), TensorType(F64, (38,))])
    y = b.update(b.args[0], b.args[1], b.index(1), index=(("slice", 38, 1),))
    g = assert_agrees(b.function("f", [y]), np.arange(40.0), np.ones(38))
    assert updates(g) == 1


def test_parts_of_what_else_is_read():
    """The old tensor is read after the update, and the part is of the tensor itself."""
    b = Builder([TensorType(F64, (40,))])
    x = b.mul(b.args[0], b.args[0])
    y = b.update(x, b.extract(x, b.index(0), index=(("slice", 39, 1),)), b.index(1), index=(("slice", 39, 1),))
    z = b.update_add(y, b.extract(y, b.index(1), index=(("slice", 39, 1),)), b.index(0), index=(("slice", 39, 1),))
    assert_agrees(b.function("f", [z, b.add(x, z)]), np.arange(40.0))


@pytest.mark.parametrize("limits", [(-3, 90), (5, 90), (-3, 35), (60, 80), (38, 40), (2, 37)], ids=str)
def test_rows_are_split_where_their_index_is_compared(limits):
    b = Builder([TensorType(F64, (2, 40))])
    i = b.emit("iota", size=40)
    asked = [b.emit(n, i, b.broadcast(b.index(c), shape=(40,), dims=())) for n, c in zip(("ge", "lt"), limits)]
    inside = b.broadcast(b.emit("and", *asked), shape=(2, 40), dims=(1,))
    y = b.select(inside, b.args[0], b.neg(b.args[0]))
    assert_agrees(b.function("f", [y]), np.random.default_rng(0).normal(size=(2, 40)))


def heat(u):
    for _ in range(3):
        u[1:-1] = u[1:-1] + 0.1 * (u[:-2] + u[2:] - 2.0 * u[1:-1])
    return u


def masked(u):
    """An infinite derivative that is not taken, in the part that a window adds."""
    inside = np.where(u[1:] > 0, np.sqrt(np.where(u[1:] > 0, u[1:], 1.0)), 0.0)
    return inside + u[:-1] * u[1:]


@pytest.mark.parametrize("f", [heat, masked])
def test_derivatives(f):
    rng = np.random.default_rng(1)
    u, d, w = rng.normal(size=(3, 40))
    u[7] = 0.0
    _, forward = dflow.jvp(f, (u,), (d,))
    w = w[: len(forward)]
    grad = dflow.jit(dflow.grad(lambda u: np.sum(f(u) * w)))
    np.testing.assert_allclose(np.dot(grad(u), d), np.dot(forward, w), rtol=1e-12)
    batch = dflow.jit(dflow.vmap(dflow.grad(lambda u: np.sum(f(u) * w))))(np.stack([u, 2 * u, -u]))
    np.testing.assert_allclose(batch, [grad(u), grad(2 * u), grad(-u)], rtol=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_parts_put_together_are_read_where_they_lie(seed):
    """Slices of one tensor or of several, turned round, along every axis and at every place."""
    rng = np.random.default_rng(seed)
    shape = (*rng.integers(1, 6, seed % 3).tolist(), int(rng.integers(40, 60)))
    whole = TensorType([F64, I64][seed % 2], shape)
    b = Builder([whole, whole])
    x, other = b.args
    y = x
    for axis in (*range(len(shape)), len(shape) - 1):
        n = shape[axis]
        cuts = sorted(rng.integers(0, n + 1, int(rng.integers(1, 3))).tolist()) if axis < len(shape) - 1 else [n - 3]
        pieces = list(zip([0, *cuts], [*cuts, n]))
        parts = []
        for k in rng.permutation(len(pieces)):
            start, stop = pieces[k]
            index = tuple(("slice", stop - start, 1) if a == axis else "all" for a in range(len(shape)))
            parts.append(b.extract(x, b.index(start), index=index))
            if seed % 4 == 3:
                parts[-1] = b.mul(parts[-1], parts[-1])
        y = b.add(y, b.mul(b.concatenate(*parts, axis=axis), other))
    inner = b.extract(y, b.index(shape[-1] - 9), index=("all",) * (len(shape) - 1) + (("slice", 9, 1),))
    assert_agrees(b.function("f", [b.neg(y), b.neg(inner)]), sample(rng, whole), sample(rng, whole))


def test_a_stencil_of_turned_tensors_is_one_pass():
    b = Builder([TensorType(F64, (8, 40))])
    (x,) = y, *_ = b.args
    for axis, n in ((0, 8), (1, 40)):
        for cut in (1, n - 1):
            first, last = (tuple(("slice", m, 1) if a == axis else "all" for a in (0, 1)) for m in (n - cut, cut))
            parts = b.extract(x, b.index(cut), index=first), b.extract(x, b.index(0), index=last)
            y = b.add(y, b.concatenate(*parts, axis=axis))
    g = assert_agrees(b.function("f", [y]), np.random.default_rng(0).normal(size=(8, 40)))
    assert [op.name for op in g.body.ops if op.name != "constant"] == ["kernel"]


@pytest.mark.parametrize("dtype", [F64, I64, C128])
def test_parts_added_side_by_side_are_one_addition(dtype):
    """What the transposes of concatenations are; chains with gaps, overlaps or other readers stay what they were."""
    whole = TensorType(dtype, (5, 40))
    rng = np.random.default_rng(0)
    for axis, n, pieces, kernels in (
        (0, 5, [(4, 1), (0, 4)], 1),
        (1, 40, [(38, 2), (0, 36), (36, 2)], 1),
        (0, 5, [(0, 4), (3, 2)], 2),
        (1, 40, [(0, 3), (4, 36)], 2),
    ):
        b = Builder([whole, whole])
        y, x = b.args
        for start, size in pieces:
            index = tuple(("slice", size, 1) if a == axis else "all" for a in (0, 1))
            y = b.update_add(y, b.extract(x, b.index(n - start - size), index=index), b.index(start), index=index)
        g = assert_agrees(b.function("f", [b.mul(y, x)]), sample(rng, whole), sample(rng, whole))
        assert (updates(g) == 0) == (kernels == 1)
    b = Builder([whole, whole])
    y, x = b.args
    index = (("slice", 1, 1), "all"), (("slice", 4, 1), "all")
    first = b.update_add(y, b.extract(x, b.index(4), index=index[0]), b.index(0), index=index[0])
    last = b.update_add(first, b.extract(x, b.index(0), index=index[1]), b.index(1), index=index[1])
    assert_agrees(b.function("f", [first, last]), sample(rng, whole), sample(rng, whole))


@pytest.mark.parametrize("shape", [(90,), (9, 40)])
def test_a_stencil_in_place_is_one_pass(shape):
    """The new state is made beside the old one, and the two change places."""
    inner = (slice(1, -1),) * len(shape)

    def f(u, c, n):
        for _ in range(n):
            around = sum(np.roll(u, 1, axis)[inner] + np.roll(u, -1, axis)[inner] for axis in range(len(shape)))
            u[inner] = u[inner] + c * (around - 2 * len(shape) * u[inner])
            u[0] = 0.5 * u[1]
        return u

    u = np.cos(np.arange(np.prod(shape))).reshape(shape)
    program = parse_function(dflow.jit(lambda u, c, n: f(u.copy(), c, n)).lower(u, 0.1, 3).ir("optimized"))
    plan = bufferize(fuse(program))
    check_plan(plan)
    (loop,) = plan.moves
    assert next(op.attrs["domain"] for op in loop.regions[0].ops if op.name == "kernel") == shape
    assert sum(op.name == "copy" for op in walk(loop.regions[0])) == len(plan.moves[loop]) == 1
    for n in range(4):
        np.testing.assert_allclose(compile_plan(plan)(u, 0.1, n)[0], f(u.copy(), 0.1, n), rtol=1e-13)
    dflow.check_grads(lambda u, c: f(u.copy(), c, 3), (u, 0.1))
