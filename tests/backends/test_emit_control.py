"""Control flow, sequences and checks: machine code agrees with the reference evaluator."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest

import dflow.ir.ops  # noqa: F401
from dflow.backends.lowering.bufferize import bufferize
from dflow.backends.native.engine import CompiledFunction
from dflow.backends.native.generation import compile_plan, lower
from dflow.ir.builder import Builder
from dflow.ir.core import Function, Location, Value
from dflow.ir.evaluator import evaluate
from dflow.ir.types import BOOL, F32, F64, GROWS, I64, Size, TensorType, scalar

SEQUENCE = TensorType(F64, (GROWS,))
ROWS = TensorType(F64, (GROWS, 3))
AT, ROW = ("at",), ("at", "all")


def compiled(f: Function) -> CompiledFunction:
    return compile_plan(bufferize(f))


def assert_agrees(f: Function, *args, tolerance: float = 1e-14) -> None:
    wanted = evaluate(f, args)
    for plan in (bufferize(f), lower(f)):
        for got, want in zip(compile_plan(plan)(*args), wanted, strict=True):
            assert np.asarray(got).dtype == want.dtype
            np.testing.assert_allclose(got, want, tolerance, tolerance)


# --- loops and branches


@pytest.mark.parametrize("count", [-2, 0, 1, 7])
def test_for_carries_scalars_of_several_types(count):
    b = Builder([scalar(I64), scalar(F64), scalar(F32), scalar(BOOL)])
    n, *inits = b.args

    def body(b, k, x, y, flag):
        return [b.add(x, b.convert(k, dtype=F64)), b.mul(y, 1.5), b.not_(flag)]

    assert_agrees(b.function("f", b.for_loop(n, inits, body)), np.int64(count), 0.5, np.float32(2), np.True_)


def test_swapped_carried_values():
    b = Builder([scalar(F64), scalar(F64)])
    out = b.for_loop(b.index(3), b.args, lambda b, k, x, y: [y, x])
    assert_agrees(b.function("f", out), 1.0, 2.0)


def test_swapped_carried_tensors():
    t = TensorType(F64, (4,))
    b = Builder([t, t])
    out = b.for_loop(b.index(3), b.args, lambda b, k, x, y: [y, b.add(x, y)])
    assert_agrees(b.function("f", out), np.arange(4.0), np.ones(4))


def test_while_with_several_values():
    b = Builder([scalar(F64)])
    out = b.while_loop(
        [b.args[0], b.index(0)],
        lambda b, x, n: b.and_(b.gt(x, 1.0), b.lt(n, 50)),
        lambda b, x, n: [b.mul(x, 0.5), b.add(n, 1)],
    )
    f = b.function("f", out)
    for x in (0.0, 1e6, np.inf, np.nan):
        assert_agrees(f, x)


@pytest.mark.parametrize("flag", [True, False])
def test_if_yields_scalars_and_tensors(flag):
    b = Builder([scalar(BOOL), TensorType(F64, (3,)), scalar(F64)])
    p, x, y = b.args
    out = b.if_(p, lambda b: [b.add(x, x), b.mul(y, 2.0)], lambda b: [x, y])
    assert_agrees(b.function("f", [*out, x]), np.bool_(flag), np.arange(3.0), 4.0)


def test_nested_loops_update_in_place():
    t = TensorType(F64, (6, 5))
    b = Builder([t])

    def inner(i):
        def body(b, j, a):
            v = b.mul(b.extract(a, i, j, index=("at", "at")), b.convert(b.add(i, j), dtype=F64))
            return [b.update(a, v, i, j, index=("at", "at"))]

        return body

    out = b.for_loop(b.index(6), b.args, lambda b, i, a: b.for_loop(b.index(5), [a], inner(i)))
    f = b.function("f", out)
    assert_agrees(f, np.arange(30.0).reshape(6, 5))
    assert bufferize(f).arena_bytes == 0


def test_loop_in_branch_in_loop():
    b = Builder([scalar(I64), scalar(F64)])

    def body(b, k, s):
        even = b.eq(b.rem(k, 2), 0)
        grow = lambda b: b.for_loop(k, [s], lambda b, j, t: [b.add(t, 1.0)])  # noqa: E731
        return b.if_(even, grow, lambda b: [b.mul(s, 0.5)])

    assert_agrees(b.function("f", b.for_loop(b.args[0], [b.args[1]], body)), np.int64(9), 3.0)


# --- sizes known at run time


@pytest.mark.parametrize("n", [0, 3, 7])
def test_bounded_sizes(n):
    b = Builder([scalar(I64), TensorType(F64, (7, 4))])
    count, x = b.args
    part = b.extract(x, b.index(0), index=(("slice", Size(count, 7), 1), "all"))
    doubled = b.reshape(b.transpose(b.mul(part, part), perm=(1, 0)), shape=(2, 2, Size(count, 7)))
    total = b.reduce(doubled, kind="sum", axes=(2,))
    whole = b.update(x, b.neg(part), b.index(0), index=(("slice", Size(count, 7), 1), "all"))
    assert_agrees(b.function("f", [total, whole]), np.int64(n), np.random.default_rng(0).normal(size=(7, 4)))


def test_reshape_that_moves_elements():
    b = Builder([scalar(I64), TensorType(F64, (2, 7, 3))])
    n, x = b.args
    part = b.extract(x, b.index(0), index=("all", ("slice", Size(n, 7), 1), "all"))
    flat = b.reshape(part, shape=(Size(n, 7), 6))
    total = b.for_loop(
        n,
        [b.full(0, TensorType(F64, (6,)))],
        lambda b, k, s: [b.add(b.mul(s, 0.5), b.extract(flat, k, index=("at", "all")))],
    )
    assert_agrees(b.function("f", total), np.int64(5), np.arange(42.0).reshape(2, 7, 3))


# --- sequences


def squares(b: Builder, n, type_=SEQUENCE):
    def body(b, k, s):
        return [b.update(s, b.convert(b.mul(k, k), dtype=F64), k, index=AT)]

    return b.for_loop(n, [b.sequence(type=type_)], body)[0]


def total(b: Builder, s, n):
    return b.for_loop(n, [b.constant(0.0)], lambda b, k, t: [b.add(t, b.extract(s, k, index=AT))])[0]


@pytest.mark.parametrize("written", [0, 1, 5, 1000])
def test_sequence_grows_and_reads_zero_beyond_its_end(written):
    b = Builder([scalar(I64), scalar(I64)])
    f = b.function("f", [total(b, squares(b, b.args[0]), b.args[1])])
    for read in (0, written, written + 3, 3000):
        assert_agrees(f, np.int64(written), np.int64(read))


def test_sequence_starts_anew_in_every_round():
    b = Builder([scalar(I64)])

    def body(b, k, t):
        return [b.add(b.mul(t, 0.5), total(b, squares(b, b.sub(10, k)), b.index(12)))]

    assert_agrees(b.function("f", b.for_loop(b.args[0], [b.constant(0.0)], body)), np.int64(8))


def test_sequence_grows_in_nested_loops_and_branches():
    b = Builder([scalar(I64)])
    n = b.args[0]

    def inner(i):
        def body(b, j, s):
            at = b.add(b.mul(i, 7), j)
            write = lambda b: [b.update_add(s, b.convert(at, dtype=F64), at, index=AT)]  # noqa: E731
            return b.if_(b.eq(b.rem(at, 3), 0), write, lambda b: [s])

        return body

    outer = b.for_loop(n, [b.sequence(type=SEQUENCE)], lambda b, i, s: b.for_loop(i, [s], inner(i)))
    assert_agrees(b.function("f", [total(b, outer[0], b.index(500))]), np.int64(40))


def test_sequence_of_rows_in_while():
    b = Builder([TensorType(F64, (3,))])

    def step(b, n, x, s):
        return [b.add(n, 1), b.mul(x, 0.5), b.update(s, x, n, index=ROW)]

    n, x, s = b.while_loop(
        [b.index(0), b.args[0], b.sequence(type=ROWS)],
        lambda b, n, x, s: b.gt(b.reduce(x, kind="max", axes=(0,)), 1e-3),
        step,
    )

    def back(b, k, t):
        row = b.extract(s, b.sub(b.sub(n, 1), k), index=ROW)
        one = b.extract(s, b.add(k, 5), b.index(1), index=("at", "at"))
        return [b.add(b.mul(t, b.broadcast_scalar(one, (3,))), row)]

    out = b.for_loop(n, [b.full(0, TensorType(F64, (3,)))], back)
    assert_agrees(b.function("f", [n, x, *out]), np.array([1.0, 20.0, 3.0]))


def test_copied_sequence_is_apart():
    b = Builder([scalar(I64)])
    s = squares(b, b.args[0])
    longer = b.update(s, b.constant(-1.0), b.index(60), index=AT)
    other = b.update(s, b.constant(-2.0), b.index(1), index=AT)
    count = b.index(70)
    f = b.function("f", [total(b, v, count) for v in (s, longer, other)])
    for n in (0, 2, 65):
        assert_agrees(f, np.int64(n))


def test_sequences_add_element_by_element():
    b = Builder([scalar(I64), scalar(I64)])
    s, t = (squares(b, n) for n in b.args)
    f = b.function("f", [total(b, b.add(s, b.neg(b.add(t, t))), b.index(50))])
    for m, n in ((3, 9), (9, 3), (0, 0), (0, 4)):
        assert_agrees(f, np.int64(m), np.int64(n))


def test_reserved_capacity():
    b = Builder([scalar(I64)])
    s = b.append("sequence", [b.args[0]], {"type": SEQUENCE})[0]
    s = b.update(s, b.constant(2.0), b.index(5), index=AT)
    f = b.function("f", [total(b, s, b.index(20))])
    for n in (-1, 0, 3, 100):
        assert_agrees(f, np.int64(n))


def test_more_memory_than_there_is():
    b = Builder([scalar(I64)])
    s = b.update(b.sequence(type=ROWS), b.full(1, TensorType(F64, (3,))), b.args[0], index=ROW)
    f = compiled(b.function("f", [b.extract(s, b.index(0), b.index(0), index=("at", "at"))]))
    assert f(2)[0] == 0
    with pytest.raises(MemoryError):
        f(2**60)


# --- checks


def checked_sum() -> CompiledFunction:
    """Sums a sequence and a large tensor, and checks on the way: all memory kinds are held when it fails."""
    b = Builder([scalar(I64), scalar(I64)])
    n, limit = b.args

    def body(b, k, s, big):
        b.append("check", [b.lt(k, limit), k, limit], {"error": "IndexError", "message": "{0} is not below {1}"})
        v = b.extract(big, k, index=AT)
        return [b.update(s, v, k, index=AT), b.update(big, b.add(v, 1.0), b.add(k, 1), index=AT)]

    b.loc = Location("user.py", 12)
    s, big = b.for_loop(n, [b.sequence(type=SEQUENCE), b.full(1, TensorType(F64, (4000,)))], body)
    return compiled(b.function("f", [b.add(total(b, s, n), b.extract(big, b.index(3), index=AT))]))


def test_failed_check_raises_with_details_and_location():
    f = checked_sum()
    assert f(3, 5) == (1 + 2 + 3 + 4,)
    with pytest.raises(IndexError, match="5 is not below 5") as caught:
        f(7, 5)
    assert caught.value.location == Location("user.py", 12)
    assert f(3, 5) == (10,)


def test_error_record_may_be_null():
    f = checked_sum()
    result = np.zeros(1)
    assert f._call(7, 5, result.ctypes.data, None) == 1


def resident_kilobytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4


def test_errors_do_not_leak():
    f = checked_sum()

    def rounds(count):
        for _ in range(count):
            with pytest.raises(IndexError):
                f(3000, 2000)

    rounds(200)
    before = resident_kilobytes()
    rounds(2000)  # 16 kB of sequence and 32 kB of arena each
    assert resident_kilobytes() - before < 8000


def test_threads_have_arenas_of_their_own():
    f = checked_sum()
    wanted, seen = f(3000, 5000), []

    def work():
        seen.extend(f(3000, 5000) for _ in range(200))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert set(seen) == {wanted}


def test_arena_goes_with_its_function():
    def rounds(count):
        for _ in range(count):
            assert checked_sum()(3, 5) == (10,)
            gc.collect()

    rounds(3)
    wide = TensorType(F64, (1000, 1000))

    def large():
        b = Builder([scalar(F64)])
        x = b.full(1, wide)
        for k in range(2):
            x = b.add(b.transpose(b.update(x, b.args[0], b.index(k), b.index(k), index=("at", "at")), perm=(1, 0)), x)
        return compiled(b.function("f", [b.reduce(x, kind="sum", axes=(0, 1))]))

    large()(1.0)
    before = resident_kilobytes()
    for _ in range(10):
        large()(1.0)
        gc.collect()
    assert resident_kilobytes() - before < 80_000  # one arena is 24 MB; the C library may keep some


@pytest.mark.parametrize("name", ["lt", "le", "gt", "ge", "eq", "ne"])
@pytest.mark.parametrize("dtype", [F32, F64])
def test_choices_of_several_numbers(name, dtype):
    """One comparison chooses two floats and an integer in each round; NaN is like no number."""
    x = np.array([1.0, np.nan, 2.0, -0.0, 0.0, 2.0, np.inf, -np.inf, 3.0], dtype.numpy)
    b = Builder([TensorType(dtype, (9,)), scalar(dtype)])
    values, start = b.args

    def step(b: Builder, k: Value, u: Value, v: Value, n: Value) -> list[Value]:
        x = b.extract(values, k, index=AT)
        chosen = getattr(b, name)(x, v)
        twice = b.add(n, n)
        return [b.add(k, 1), b.select(chosen, x, u), b.select(chosen, b.add(v, x), v), b.select(chosen, n, twice)]

    inits = [b.index(0), start, start, b.index(1)]
    made = b.while_loop(inits, lambda b, k, *_: b.lt(k, b.index(9)), step)
    for first in (0.0, 2.0, np.nan):
        assert_agrees(b.function("f", made), x, dtype.numpy.type(first))


def test_large_rows_of_a_sequence():
    t = TensorType(F64, (GROWS, 700))
    b = Builder([scalar(I64), TensorType(F64, (700,))])
    n, x = b.args
    s = b.for_loop(n, [b.sequence(type=t)], lambda b, k, s: [b.update(s, b.add(x, x), k, index=ROW)])[0]
    out = b.for_loop(b.index(9), [x], lambda b, k, t: [b.add(t, b.extract(s, k, index=ROW))])
    assert_agrees(b.function("f", out), np.int64(4), np.arange(700.0))


def test_code_lives_as_long_as_its_object():
    for k in range(20):
        b = Builder([scalar(F64)])
        f = compiled(b.function("f", [b.add(b.args[0], float(k))]))
        assert f(1.0) == (1.0 + k,)
        del f
        gc.collect()
