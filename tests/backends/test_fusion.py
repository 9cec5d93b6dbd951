"""Fusion: which kernels there are, what is in them, and that programs mean what they meant."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs_aliasing import copies, random_aliasing, run_plan
from programs_ir import OpCase, Program, one_op, op_cases, random_functions

from dflow.backends.lowering.bufferize import bufferize
from dflow.backends.lowering.check_plan import check_plan
from dflow.backends.lowering.fusion import fuse
from dflow.ir.builder import Builder
from dflow.ir.core import walk
from dflow.ir.evaluator import evaluate
from dflow.ir.passes.decompose import decompose
from dflow.ir.types import F64, GROWS, I64, Size, TensorType
from dflow.ir.verifier import verify

N = 12
X = TensorType(F64, (N,))
M = TensorType(F64, (3, 4))
SCALAR = TensorType(F64)
SUM = {"kind": "sum", "axes": (0,)}


def fused(f, *args, exact=True):
    """``f`` fused and checked; with arguments, run before and after fusion and in planned memory."""
    g = fuse(f)
    verify(g, after="fuse")
    plan = bufferize(g)
    verify(plan.function, after="bufferize")
    check_plan(plan)
    if args:
        compare = np.testing.assert_array_equal if exact else np.testing.assert_allclose
        want = evaluate(decompose(f), args)
        for got in (evaluate(g, args), run_plan(plan, args)):
            for a, b in zip(want, got):
                compare(b, a)
    return g


def names(f):
    return [op.name for op in f.body.ops]


def kernels(f):
    return sum(op.name == "kernel" for op in walk(f.body))


def vector(n=N):
    return np.linspace(-1.0, 2.0, n)


def matrix():
    return vector().reshape(3, 4)


# -- typical expressions -----------------------------------------------------------------------------------------------


def test_text_of_a_kernel():
    b = Builder([X, X, SCALAR], ["x", "y", "a"])
    x, y, a = b.args
    g = fused(b.function("f", [b.add(b.mul(b.broadcast_scalar(a, (N,)), x), y)]), vector(), vector(), 2.0)
    assert str(g).splitlines()[1:] == [
        '  %0 = kernel {domain = (12,), reduced = 0, combine = ("",)} { (%1: i64)',
        '    %2 = extract %x, %1 {index = ("at",)} : f64',
        "    %3 = mul %a, %2 : f64",
        '    %4 = extract %y, %1 {index = ("at",)} : f64',
        "    %5 = add %3, %4 : f64",
        "    yield %5",
        "  } : f64[12]",
        "  return %0",
        "}",
    ]


def test_mean_of_squares():
    b = Builder([X])
    (x,) = b.args
    g = fused(b.function("f", [b.div(b.reduce(b.mul(x, x), **SUM), float(N))]), vector())
    assert names(g) == ["kernel", "constant", "div"] or names(g) == ["constant", "kernel", "div"]


def test_softmax():
    b = Builder([X])
    (x,) = b.args
    top = b.reduce(x, kind="max", axes=(0,))
    e = b.exp(b.sub(x, b.broadcast_scalar(top, (N,))))
    total = b.reduce(e, **SUM)
    g = fused(b.function("f", [b.div(e, b.broadcast_scalar(total, (N,)))]), vector())
    assert names(g) == ["kernel"] * 3  # the powers and their sum are one


def test_layer_norm():
    b = Builder([M, TensorType(F64, (4,))])
    x, gain = b.args
    spread = {"shape": (3, 4), "dims": (0,)}
    mean = b.div(b.reduce(x, kind="sum", axes=(1,)), 4.0)
    centred = b.sub(x, b.broadcast(mean, **spread))
    variance = b.div(b.reduce(b.mul(centred, centred), kind="sum", axes=(1,)), 4.0)
    y = b.mul(b.div(centred, b.broadcast(b.sqrt(variance), **spread)), b.broadcast(gain, shape=(3, 4), dims=(1,)))
    g = fused(b.function("f", [y]), matrix(), vector(4))
    assert kernels(g) == 5  # sum, mean, sum of squares, deviation, result; a difference is as cheap as reading it


def test_stencil_by_slices():
    b = Builder([TensorType(F64, (6, 6))])
    u = b.sin(b.args[0])

    def shifted(i, j):
        return b.extract(u, b.index(i), b.index(j), index=(("slice", 4, 1), ("slice", 4, 1)))

    total = shifted(1, 1)
    for i, j in ((0, 1), (2, 1), (1, 0), (1, 2)):
        total = b.add(total, shifted(i, j))
    g = fused(b.function("f", [total]), np.linspace(0, 1, 36).reshape(6, 6))
    assert kernels(g) == 2  # the sines once, not five times


def test_column_sums_reduce_the_last_axis_of_the_domain():
    b = Builder([M])
    g = fused(b.function("f", [b.reduce(b.exp(b.args[0]), kind="sum", axes=(0,))]), matrix())
    (kernel,) = g.body.ops
    assert kernel.attrs["domain"] == (4, 3) and kernel.attrs["reduced"] == 1


def test_one_element_of_an_expression_is_a_scalar():
    b = Builder([X, TensorType(I64)])
    y = b.sin(b.mul(b.args[0], 2.0))
    g = fused(b.function("f", [b.extract(y, b.args[1], index=("at",))]), vector(), 3)
    assert kernels(g) == 0


# -- what is not recomputed --------------------------------------------------------------------------------------------


def test_no_computation_moves_into_a_loop():
    b = Builder([X])
    y = b.sin(b.args[0])
    z = b.emit("broadcast", b.constant(2.0), shape=(N,), dims=())

    def body(b, k, t):
        return [b.add(t, b.mul(y, z))]

    g = fused(b.function("f", b.for_loop(b.index(3), [b.full(0.0, X)], body)), vector())
    (loop,) = [op for op in g.body.ops if op.name == "for"]
    inside = [op.name for op in walk(loop.regions[0])]
    assert inside.count("kernel") == 1 and "sin" not in inside


def test_broadcast_does_not_repeat_a_computation():
    b = Builder([TensorType(F64, (4,))])
    y = b.broadcast(b.exp(b.args[0]), shape=(3, 4), dims=(1,))
    assert kernels(fused(b.function("f", [b.mul(y, y)]), vector(4))) == 2


def test_value_of_two_kernels_is_stored():
    b = Builder([X])
    y = b.exp(b.args[0])
    backwards = b.extract(y, b.index(N - 1), index=(("slice", N, -1),))
    g = fused(b.function("f", [b.sin(y), b.sin(backwards)]), vector())
    assert kernels(g) == 2 and sum(op.name == "exp" for op in walk(g.body)) == 1


def test_tensors_and_sums_of_them_are_one_kernel():
    b = Builder([M])
    y = b.exp(b.args[0])
    z = b.sin(y)
    total = b.reduce(b.mul(y, z), kind="sum", axes=(0, 1))
    g = fused(b.function("f", [z, total, b.reduce(y, kind="max", axes=(0, 1))]), matrix())
    (kernel,) = g.body.ops
    assert kernel.attrs["combine"] == ("", "sum", "max")  # nobody wants y itself


def test_tensors_and_sums_of_rows_are_apart():
    b = Builder([M])
    y = b.exp(b.args[0])
    g = fused(b.function("f", [b.sin(y), b.reduce(y, kind="sum", axes=(1,))]), matrix())
    assert [op.attrs["combine"] for op in g.body.ops] == [("", ""), ("sum",)]


def test_a_kernel_with_a_sum_writes_in_place():
    """What is summed is read at other places, so that the other kernel goes on alone."""
    b = Builder([X])

    def body(b, k, x, total):
        back = b.extract(x, b.index(N - 1), index=(("slice", N, -1),))
        total = b.add(total, b.reduce(b.mul(back, x), **SUM))
        return [b.add(b.mul(x, 0.5), 1.0), total]

    g = fused(b.function("f", b.for_loop(b.index(3), [b.args[0], b.constant(0.0)], body)), vector())
    inside = [op.name for op in walk(g.body) if op.name == "for" for op in op.regions[0].ops]
    assert inside.count("kernel") == 2 and len(copies(bufferize(g))) == 1  # the argument


def test_a_kernel_does_not_move_past_an_update_of_what_it_reads():
    b = Builder([X, X])

    def body(b, k, x, y):
        e = b.exp(x)
        x = b.update(x, b.constant(7.0), k, index=("at",))
        total = b.add(b.reduce(b.mul(e, y), **SUM), b.reduce(b.mul(e, x), **SUM))
        return [x, b.add(y, b.mul(e, b.broadcast_scalar(total, (N,))))]

    fused(b.function("f", b.for_loop(b.index(2), list(b.args), body)), vector(), vector() ** 2, exact=False)


def test_slices_of_cheap_tensors_are_computed_where_they_are_read():
    b = Builder([TensorType(F64, (24,))] * 2)
    x, y = b.args
    halves = b.mul(b.neg(x), 0.5)
    inner = (("slice", 23, 1),)
    y = b.update_add(y, b.extract(halves, b.index(1), index=inner), b.index(0), index=inner)
    y = b.update_add(y, b.extract(halves, b.index(0), index=inner), b.index(1), index=inner)
    assert kernels(fused(b.function("f", [y]), vector(24), vector(24) ** 2)) == 1


def test_what_a_stencil_changes_in_place_is_not_read_elsewhere():
    inner = (("slice", 23, 1),)
    b = Builder([TensorType(F64, (24,))])

    def body(b, k, x):
        part = b.mul(b.extract(x, b.index(1), index=inner), 0.5)
        return [b.update_add(b.update_add(x, part, b.index(0), index=inner), part, b.index(1), index=inner)]

    g = fused(b.function("f", b.for_loop(b.index(3), [b.args[0]], body)), vector(24))
    assert kernels(g) == 2 and len(copies(bufferize(g))) == 1  # the argument


def test_diamond_is_one_kernel():
    b = Builder([X])
    s = b.exp(b.args[0])
    g = fused(b.function("f", [b.mul(s, b.sub(b.full(1.0, X), s))]), vector())
    assert kernels(g) == 1 and sum(op.name == "exp" for op in walk(g.body)) == 1


def test_read_before_an_update_stays_before_it():
    """Were ``y`` computed after the update, the update would have to copy."""
    b = Builder([X])
    x = b.sin(b.args[0])
    x = b.update(x, b.constant(1.0), b.index(0), index=("at",))
    y = b.extract(x, b.index(2), index=(("slice", 4, 1),))
    x2 = b.update(x, b.constant(5.0), b.index(3), index=("at",))
    f = b.function("f", [b.neg(y), x2])
    g = fused(f, vector())
    assert copies(bufferize(g)) == []


def test_update_of_the_whole_is_the_value():
    b = Builder([X])
    y = b.update(b.full(0.0, X), b.sin(b.args[0]), b.index(0), index=(("slice", N, 1),))
    g = fused(b.function("f", [b.neg(y)]), vector())
    assert [n for n in names(g) if n != "constant"] == ["kernel"]


# -- several results ---------------------------------------------------------------------------------------------------


def test_reductions_of_one_tensor_share_a_kernel():
    b = Builder([X])
    (x,) = b.args
    total, squares, top = b.reduce(x, **SUM), b.reduce(b.mul(x, x), **SUM), b.reduce(x, kind="max", axes=(0,))
    g = fused(b.function("f", [total, squares, top]), vector())
    (kernel,) = g.body.ops
    assert kernel.attrs["combine"] == ("sum", "sum", "max")
    assert [op.name for op in kernel.regions[0].ops] == ["extract", "mul"]


def test_kernels_that_depend_on_each_other_stay_apart():
    b = Builder([X])
    (x,) = b.args
    total = b.reduce(x, **SUM)
    g = fused(b.function("f", [b.reduce(b.sub(x, b.broadcast_scalar(total, (N,))), **SUM)]), vector())
    assert kernels(g) == 2


def test_no_kernel_moves_past_a_check():
    b = Builder([X, TensorType(I64)])
    x, k = b.args
    window = (("slice", 4, 1),)
    first = b.sin(b.extract(x, b.index(0), index=window))
    b.append("check", [b.lt(k, N - 3)], {"error": "IndexError", "message": "outside"})
    second = b.cos(b.extract(x, k, index=window))
    g = fused(b.function("f", [first, second]), vector(), 2)
    assert names(g).count("kernel") == 2


# -- moving elements ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ((12,), (3, 4)),
        ((3, 4), (12,)),
        ((2, 6), (3, 4)),
        ((1, 12), (12, 1, 1)),
        ((2, 3, 4), (6, 4)),
        ((2, 3, 4), (2, 12)),
        ((6, 4, 5), (2, 3, 20)),
        ((1,), (1, 1)),
        ((0, 3), (3, 0)),
        ((1, 1), (1,)),
    ],
)
def test_reshape(old, new):
    x = np.arange(np.prod(old), dtype=float).reshape(old)
    b = Builder([TensorType(F64, old)])
    y = b.neg(b.reshape(b.transpose(b.args[0], perm=tuple(range(len(old)))), shape=new))
    fused(b.function("f", [y]), x)


def test_reshape_keeps_axes_apart():
    """Axes that a reshape leaves alone need no division."""
    b = Builder([TensorType(F64, (5, 6, 7))])
    y = b.neg(b.reshape(b.args[0], shape=(5, 2, 3, 7)))
    g = fused(b.function("f", [y]), np.arange(210.0).reshape(5, 6, 7))
    assert not {"floordiv", "rem"} & {op.name for op in walk(g.body)}


@pytest.mark.parametrize("n", [0, 3, 5])
def test_sizes_that_vary(n):
    b = Builder([M, TensorType(I64)])
    size = Size(b.args[1], 5)
    rows = b.emit("broadcast", b.iota(size=size), shape=(size, 4), dims=(0,))
    moved = b.reshape(b.add(rows, rows), shape=(2, size, 2))
    r = b.reduce(b.mul(moved, moved), kind="sum", axes=(0, 1))
    fused(b.function("f", [r]), matrix(), n)


def test_concatenate_writes_parts_into_one_buffer():
    b = Builder([X, SCALAR])
    x, a = b.args
    g = fused(b.function("f", [b.concatenate(b.sin(x), b.reshape(a, shape=(1,)), axis=0)]), vector(), 3.0)
    assert [n for n in names(g) if n != "constant"] == ["empty", "kernel", "update", "update"]
    assert copies(bufferize(g)) == []


def test_sequences_are_read_in_kernels():
    b = Builder()
    seq = b.emit("sequence", type=TensorType(F64, (GROWS, 3)))

    def body(b, k, s):
        return [b.update(s, b.broadcast_scalar(b.convert(k, dtype=F64), (3,)), k, index=("at", "all"))]

    (seq,) = b.for_loop(b.index(4), [seq], body)
    fused(b.function("f", [b.exp(b.extract(seq, b.index(2), index=("at", "all")))]))


def test_long_chains_are_cut():
    b = Builder([X])
    y = b.args[0]
    for _ in range(2000):
        y = b.sin(y)
    g = fused(b.function("f", [y]), vector())
    assert 2000 / 200 < kernels(g) < 2000 / 30


# -- agreement ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", op_cases(dtypes=[F64]) + op_cases(dtypes=[I64]), ids=str)
def test_every_operation(case: OpCase):
    f, args = one_op(case.name, case.sample, case.dtype)
    fused(f, *args)


@settings(max_examples=150, deadline=None)
@given(random_functions(kinks=True))
def test_random_programs(p: Program):
    # A sum in a kernel may add in another order.
    fused(p.function, *p.args, exact=False)


@settings(max_examples=100, deadline=None)
@given(st.randoms(use_true_random=False))
def test_random_aliasing(rng: random.Random):
    f = random_aliasing(rng, 4)
    for c in (0.25, 2.0):
        fused(f, vector(36), vector(36) ** 2, c)


def test_slices_of_a_flat_tensor_need_no_divisions():
    b = Builder([M])
    (x,) = b.args
    flat = b.reshape(x, shape=(x.type.static_shape[0] * x.type.static_shape[1],))
    part = b.extract(flat, b.index(1), index=(("slice", 5, 1),))
    g = fused(b.function("f", [b.mul(part, part)]), matrix())
    assert not {"floordiv", "rem"} & {op.name for op in walk(g.body)}
    assert copies(bufferize(g)) == []
