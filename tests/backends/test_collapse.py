"""Axes that are one behind the other in memory, in kernels, copies and updates of parts; many buffers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from dflow.backends.native.generation import compile_function
from dflow.ir.builder import Builder
from dflow.ir.evaluator import evaluate
from dflow.ir.types import F64, GROWS, I64, Size, TensorType, scalar


def assert_agrees(f, *args):
    compiled = compile_function(f)
    for got, wanted in zip(compiled(*args), evaluate(f, args), strict=True):
        np.testing.assert_allclose(got, wanted, 1e-13, 1e-13)
    return compiled


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape)


SHAPE = (2, 3, 4, 5)


@pytest.mark.parametrize("dims", [d for n in range(5) for d in itertools.combinations(range(4), n)], ids=str)
def test_kernels_with_what_is_repeated_along_some_axes(dims):
    """And reductions of them over the same axes."""
    small = TensorType(F64, tuple(SHAPE[d] for d in dims))
    b = Builder([TensorType(F64, SHAPE), small])
    x, y = b.args
    z = b.mul(x, b.broadcast(y, shape=SHAPE, dims=dims))
    total = b.reduce(z, kind="sum", axes=dims) if dims else z
    assert_agrees(b.function("f", [z, total]), normal(*SHAPE), normal(*small.shape))


def test_transposed_and_cut():
    b = Builder([TensorType(F64, SHAPE)])
    (x,) = b.args
    turned = b.transpose(x, perm=(2, 3, 0, 1))
    part = b.extract(x, b.index(1), b.index(1), index=("all", ("slice", 2, 1), "all", ("slice", 4, 1)))
    assert_agrees(b.function("f", [b.neg(turned), b.neg(part)]), normal(*SHAPE))


@pytest.mark.parametrize(
    "index",
    [("all", "all"), ("at", "all"), (("slice", 3, 1), "all"), ("all", ("slice", 3, 1)), (("slice", 2, 2), "all")],
    ids=str,
)
def test_parts_of_tensors_and_sequences(index):
    """Written and added to, in a tensor and in a row of a sequence."""
    shape = tuple(n if entry == "all" else entry[1] for n, entry in zip((4, 5), index) if entry != "at")
    whole = TensorType(F64, (4, 5))
    b = Builder([whole, TensorType(F64, shape)])
    x, part = b.args
    starts = [b.index(1) for entry in index if entry != "all"]
    y = b.update_add(b.update(x, part, *starts, index=index), part, *starts, index=index)
    tape = b.emit("sequence", type=TensorType(F64, (GROWS, 4, 5)))
    tape = b.update(tape, y, b.index(3), index=("at", "all", "all"))
    tape = b.update(tape, part, b.index(2), *starts, index=("at", *index))
    rows = [b.extract(tape, b.index(k), index=("at", "all", "all")) for k in (2, 3)]
    assert_agrees(b.function("f", [y, *rows]), normal(4, 5), normal(*shape))


def test_a_program_with_many_buffers_and_loops():
    """More than LLVM is told of at a time, inside of a loop and outside; so they become functions of their own, which
    use numbers and sizes from around them."""
    t = TensorType(F64, (80,))
    b = Builder([t])

    def chain(b, x, length):
        made = [x]
        for _ in range(length):
            turned = b.extract(made[-1], b.index(79), index=(("slice", 80, -1),))
            made.append(b.sub(b.mul(made[-1], made[0]), turned))
        return made

    made = chain(b, b.args[0], 30)
    first = b.extract(made[3], b.index(0), index=("at",))
    n = b.emit("convert", b.add(b.mul(first, 0.0), 9.0), dtype=I64)
    part = b.extract(made[4], b.index(0), index=(("slice", Size(n, 80), 1),))
    part = b.update(part, b.mul(part, b.broadcast(first, shape=(Size(n, 80),), dims=())), index=("all",))
    inner = Builder([scalar(I64), t])
    inside = chain(inner, inner.args[1], 20)
    y = inner.update(inside[-1], inside[3], inner.args[0], index=(("slice", 80, 1),))
    (y,) = b.append("for", [b.index(1), made[-1]], regions=[inner.finish([y])])
    whole = b.update(b.neg(y), part, b.index(0), index=(("slice", Size(n, 80), 1),))
    compiled = assert_agrees(b.function("f", [y, whole, *made[5:9]]), np.linspace(0.5, 1, 80))
    made, called = (compiled.unoptimized.count(f'{what} void @"dflow.f.kernel') for what in ("define internal", "call"))
    assert 2 < made < 10 < 20 < called, "those that are alike are one function"
