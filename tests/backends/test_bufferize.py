"""Bufferization: where copies stay, what is in place, and that no update is seen through another name."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from programs_aliasing import copies, random_aliasing, run_plan

from dflow.backends.lowering.bufferize import bufferize
from dflow.backends.lowering.check_plan import PlanError, check_plan
from dflow.backends.lowering.fusion import fuse
from dflow.backends.lowering.plan import Buffer
from dflow.backends.native.generation import compile_plan
from dflow.ir.builder import Builder
from dflow.ir.core import Op, walk
from dflow.ir.evaluator import evaluate
from dflow.ir.types import F64, GROWS, I64, Size, TensorType

N = 40
X = TensorType(F64, (N,))
SCALAR = TensorType(F64)
AT = ("at",)


def planned(f, *args, in_place=None):
    """The plan of ``f``, checked, and run against the evaluator when there are arguments."""
    plan = bufferize(f, in_place)
    check_plan(plan)
    if args:
        for want, got in zip(evaluate(f, args), run_plan(plan, args)):
            np.testing.assert_array_equal(got, want)
    return plan


def depths(plan):
    return sorted(depth for depth, _ in copies(plan))


def vector():
    return np.linspace(1.0, 2.0, N)


def test_scalar_functions_have_no_buffers():
    b = Builder([SCALAR])
    assert planned(b.function("f", [b.sin(b.args[0])])).buffers == {}


def test_update_of_a_fresh_tensor_is_in_the_result():
    b = Builder([SCALAR])
    y = b.update(b.full(0.0, X), b.args[0], b.index(3), index=AT)
    plan = planned(b.function("f", [y]), 2.0)
    assert depths(plan) == []
    assert {p.space for p in plan.buffers.values()} == {"result"}


def test_update_of_an_argument_copies_once():
    b = Builder([X])
    y = b.args[0]
    for k in range(5):
        y = b.update(y, b.constant(1.0), b.index(k), index=AT)
    assert depths(planned(b.function("f", [y]), vector())) == [0]


def test_value_used_after_its_update_is_copied():
    b = Builder([SCALAR])
    x = b.full(1.0, X)
    y = b.update(x, b.args[0], b.index(3), index=AT)
    plan = planned(b.function("f", [x, y]), 2.0)
    assert depths(plan) == [0]


@pytest.mark.parametrize("used_after", [False, True])
def test_update_carried_through_nested_loops(used_after):
    """``for i: for j: if c: y[j] = ...``: no copy in a loop, and none at all when the first value is dead."""
    b = Builder([SCALAR])
    start = b.full(0.0, X)

    def inner(i):
        def body(b, j, y):
            old = b.extract(y, j, index=AT)
            taken = b.lt(old, 1.5)
            new = b.if_(taken, lambda b: [b.update(y, b.add(old, 1.0), j, index=AT)], lambda b: [y])
            return new

        return body

    def outer(b, i, y):
        return b.for_loop(b.index(N), [y], inner(i))

    (y,) = b.for_loop(b.index(3), [start], outer)
    plan = planned(b.function("f", [y, start] if used_after else [y]), 0.0)
    assert depths(plan) == ([0] if used_after else [])


def test_while_loop_updates_in_place():
    b = Builder()
    k, y = b.while_loop(
        [b.index(0), b.full(0.0, X)],
        lambda b, k, y: b.lt(b.extract(y, k, index=AT), 0.5),
        lambda b, k, y: [b.add(k, 1), b.update(y, b.constant(1.0), b.sub(b.index(N - 1), k), index=AT)],
    )
    assert depths(planned(b.function("f", [k, y]))) == []


def test_swap_in_a_loop():
    """``a, b = b, a`` after an update of one of them."""
    b = Builder([X, X])
    r = b.for_loop(b.index(3), b.args, lambda b, k, x, y: [y, b.update(x, b.convert(k, dtype=F64), k, index=AT)])
    plan = planned(b.function("f", r), vector(), -vector())
    assert depths(plan).count(1) <= 3


def test_elementwise_chain_needs_no_memory_but_the_result():
    b = Builder([X])
    y = b.sin(b.add(b.mul(b.args[0], b.args[0]), b.args[0]))
    plan = planned(b.function("f", [y]), vector())
    assert plan.arena_bytes == 0
    assert {p.space for p in plan.buffers.values()} == {"argument", "result"}


def test_arguments_and_results_returned_twice():
    b = Builder([X])
    y = b.neg(b.args[0])
    plan = planned(b.function("f", [b.args[0], y, y]), vector())
    assert depths(plan) == [0, 0]


def test_reshape_is_no_copy():
    b = Builder([X])
    square = b.reshape(b.neg(b.args[0]), shape=(4, 10))
    square = b.update(square, b.constant(5.0), b.index(1), b.index(1), index=("at", "at"))
    plan = planned(b.function("f", [b.reshape(square, shape=(N,))]), vector())
    assert depths(plan) == []


def test_reshape_that_moves_elements_is_a_copy():
    """A size that varies has the room of its bound, so merging it with other axes moves elements."""
    b = Builder([TensorType(I64)])
    n = Size(b.args[0], 7)
    x = b.emit("broadcast", b.iota(size=n), shape=(n, 8), dims=(0,))
    y = b.neg(b.reshape(x, shape=(2, n, 4)))
    z = b.reshape(b.neg(x), shape=(n, 4, 2))
    plan = bufferize(
        b.function("f", [b.reduce(y, kind="sum", axes=(0, 1, 2)), b.reduce(z, kind="sum", axes=(0, 1, 2))])
    )
    check_plan(plan)
    assert len(copies(plan)) == 1


def test_sequences_lie_on_the_heap_and_grow_in_place():
    b = Builder([SCALAR])
    seq = b.emit("sequence", type=TensorType(F64, (GROWS,)))
    (seq,) = b.for_loop(b.index(9), [seq], lambda b, k, s: [b.update(s, b.convert(k, dtype=F64), k, index=AT)])
    plan = planned(b.function("f", [b.extract(seq, b.index(5), index=AT)]), 1.0)
    assert depths(plan) == []
    assert {p.space for p in plan.buffers.values()} == {"heap"}


def test_small_tensors_lie_on_the_stack():
    b = Builder([TensorType(F64, (3,))])
    y = b.matmul(b.reshape(b.sin(b.args[0]), shape=(1, 3)), b.reshape(b.args[0], shape=(3, 1)))
    plan = planned(b.function("f", [b.reshape(y, shape=())]), [1.0, 2.0, 3.0])
    assert {p.space for p in plan.buffers.values()} == {"argument", "stack"}


def test_memory_of_dead_tensors_is_used_again():
    b = Builder([TensorType(F64, (8, 8))])
    y = b.args[0]
    for _ in range(20):
        y = b.matmul(y, y)
    plan = planned(b.function("f", [b.reduce(y, kind="sum", axes=(0, 1))]), np.eye(8))
    assert plan.arena_bytes == 2 * 512


def test_copy_of_empty_is_empty():
    b = Builder([SCALAR])
    e = b.emit("empty", type=X)
    ones = b.full(1.0, X)
    fill = [b.update(e, v, b.index(0), index=(("slice", N, 1),)) for v in (ones, b.neg(ones))]
    plan = planned(b.function("f", fill), 1.0)
    assert depths(plan) == []
    assert sum(op.name == "empty" for op in walk(plan.function.body)) == 2


def test_planning_a_long_program():
    def program(n):
        b = Builder([X])
        y, z = b.args[0], b.full(0.0, X)
        for k in range(n // 2):
            y = b.update(y, b.extract(z, b.index(k % N), index=AT), b.index(k % N), index=AT)
            z = b.sin(b.add(y, z)) if k % 3 else z
        return b.function("f", [y, z])

    plan = bufferize(program(10_000))
    assert depths(plan) == [0]


@settings(max_examples=150, deadline=None)
@given(st.randoms(use_true_random=False))
def test_random_programs(rng: random.Random):
    f = random_aliasing(rng, 4)
    for c in (0.25, 2.0):
        planned(f, vector()[:36], vector()[:36] ** 2, c)


# -- results in the memory of arguments --------------------------------------------------------------------------------


def test_update_in_place_copies_nothing():
    b = Builder([X, SCALAR])

    def body(b, k, x):
        return [b.update(x, b.mul(b.extract(x, k, index=AT), b_scale), k, index=AT)]

    b_scale = b.args[1]
    (y,) = b.for_loop(b.index(N), [b.args[0]], body)
    plan = planned(b.function("f", [y]), vector(), 3.0, in_place={0: 0})
    assert depths(plan) == []
    assert {p.space for p in plan.buffers.values()} == {"argument"}


def test_the_old_contents_are_kept_where_they_are_needed():
    b = Builder([X])
    x = b.args[0]
    y = b.update(x, b.constant(0.0), b.index(0), index=AT)
    planned(b.function("f", [x, b.add(x, y), y]), vector(), in_place={2: 0})


def test_arguments_change_places():
    b = Builder([X, X])
    x, y = b.args
    planned(b.function("f", [y, x]), vector(), -vector(), in_place={0: 0, 1: 1})
    planned(b.function("f", [x, y]), vector(), -vector(), in_place={0: 1, 1: 0})


@settings(max_examples=60, deadline=None)
@given(st.randoms(use_true_random=False))
def test_random_programs_in_place(rng: random.Random):
    f = random_aliasing(rng, 4)
    tensors = [k for k, t in enumerate(f.result_types) if t == f.args[0].type]
    in_place = dict(zip(tensors, rng.sample([0, 1], 2)))
    args = vector()[:36], vector()[:36] ** 2, 0.25
    planned(f, *args, in_place=in_place)
    kept = [np.array(a) for a in args]
    compiled = compile_plan(bufferize(fuse(f), in_place))
    for want, got in zip(evaluate(f, args), compiled(*args)):
        np.testing.assert_allclose(got, want, rtol=1e-12)
    for before, after in zip(kept, args):
        np.testing.assert_array_equal(after, before)


# -- the checker sees broken plans -------------------------------------------------------------------------------------


def test_checker_sees_an_overwritten_value():
    b = Builder([SCALAR])
    x = b.full(1.0, X)
    y = b.update(x, b.args[0], b.index(3), index=AT)
    plan = bufferize(b.function("f", [x, y]))
    copy = next(op for _, op in copies(plan))
    plan.buffers[copy.result] = plan.buffers[copy.operands[0]]
    with pytest.raises(PlanError):
        check_plan(plan)


def test_checker_sees_a_write_to_an_argument():
    b = Builder([X])
    plan = bufferize(b.function("f", [b.neg(b.args[0])]))
    (neg,) = plan.function.body.ops
    assert isinstance(neg, Op)
    plan.buffers[neg.result] = plan.buffers[plan.function.args[0]]
    with pytest.raises(PlanError):
        check_plan(plan)


def test_checker_sees_overlap_in_the_arena():
    b = Builder([X, X])
    x, y = b.sin(b.args[0]), b.cos(b.args[1])
    plan = bufferize(b.function("f", [b.reduce(b.mul(x, y), kind="sum", axes=(0,))]))
    check_plan(plan)
    for v, p in plan.buffers.items():
        if p.space == "arena":
            plan.buffers[v] = Buffer(v.type, "arena", offset=64)
    plan.arena_bytes = 4096
    with pytest.raises(PlanError):
        check_plan(plan)
