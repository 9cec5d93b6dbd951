"""The reference evaluator on programs whose results are known."""

import numpy as np
import pytest

from dflow.ir.core import Location
from dflow.ir.evaluator import EvaluationError, evaluate
from dflow.ir.parser import parse_function, parse_module


def run(text: str, *args):
    return [r.tolist() for r in evaluate(parse_function(text), args)]


def test_loop_and_branch() -> None:
    """Collatz: how many steps to 1, and the largest number on the way."""
    text = """
    func @collatz(%n: i64) -> (i64, i64) {
      %zero = constant {value = 0} : i64
      %one = constant {value = 1} : i64
      %two = constant {value = 2} : i64
      %three = constant {value = 3} : i64
      %last, %steps, %top = while %n, %zero, %n { (%x: i64, %s: i64, %m: i64)
        %go_on = ne %x, %one : bool
        yield %go_on
      } do { (%x: i64, %s: i64, %m: i64)
        %r = rem %x, %two : i64
        %even = eq %r, %zero : bool
        %next = if %even {
          %h = floordiv %x, %two : i64
          yield %h
        } else {
          %t = mul %x, %three : i64
          %u = add %t, %one : i64
          yield %u
        } : i64
        %s2 = add %s, %one : i64
        %m2 = max %m, %next : i64
        yield %next, %s2, %m2
      } : i64, i64, i64
      return %steps, %top
    }
    """
    assert run(text, 6) == [8, 16]
    assert run(text, 27) == [111, 9232]
    assert run(text, 1) == [0, 1]


def test_for_counts_from_zero_and_may_not_run() -> None:
    text = """
    func @f(%n: i64, %x: f64[4]) -> (f64[4]) {
      %y = for %n, %x { (%k: i64, %a: f64[4])
        %v = convert %k {dtype = f64} : f64
        %b = update %a, %v, %k {index = ("at",)} : f64[4]
        yield %b
      } : f64[4]
      return %y
    }
    """
    x = np.full(4, 9.0)
    assert run(text, 3, x) == [[0.0, 1.0, 2.0, 9.0]]
    assert run(text, 0, x) == [[9.0] * 4]
    assert run(text, -2, x) == [[9.0] * 4]
    assert x.tolist() == [9.0] * 4


PREFIX = """
func @prefix(%x: f64[5], %n: i64) -> (f64[%n<=5], f64) {
  %zero = constant {value = 0} : i64
  %part = extract %x, %zero {index = (("slice", %n<=5, 1),)} : f64[%n<=5]
  %ones = constant {value = 1.0} : f64
  %row = broadcast %ones {shape = (%n<=5,), dims = ()} : f64[%n<=5]
  %y = add %part, %row : f64[%n<=5]
  %s = reduce %y {kind = "sum", axes = (0,)} : f64
  return %y, %s
}
"""


def test_sizes_at_run_time() -> None:
    x = np.arange(5.0)
    assert run(PREFIX, x, 3) == [[1.0, 2.0, 3.0], 6.0]
    assert run(PREFIX, x, 0) == [[], 0.0]


@pytest.mark.parametrize("n", [6, -1])
def test_size_outside_its_bound(n: int) -> None:
    with pytest.raises(EvaluationError, match=f"the size %n<=5 is {n}"):
        run(PREFIX, np.arange(5.0), n)


def test_sequences_grow_and_are_zero_beyond() -> None:
    text = """
    func @f(%x: f64[2]) -> (f64[*, 2], f64[2], f64[2]) {
      %s = sequence : f64[*, 2]
      %one = constant {value = 1} : i64
      %three = constant {value = 3} : i64
      %nine = constant {value = 9} : i64
      %a = update %s, %x, %one {index = ("at", "all")} : f64[*, 2]
      %b = update_add %a, %x, %three {index = ("at", "all")} : f64[*, 2]
      %c = add %a, %b : f64[*, 2]
      %read = extract %c, %one {index = ("at", "all")} : f64[2]
      %beyond = extract %a, %nine {index = ("at", "all")} : f64[2]
      return %c, %read, %beyond
    }
    """
    assert run(text, np.array([1.0, 2.0])) == [[[0, 0], [2, 4], [0, 0], [1, 2]], [2, 4], [0, 0]]


def test_sequence_gather_beyond_the_end() -> None:
    text = """
    func @f(%i: i64[3]) -> (f64[3], f64[*]) {
      %s = sequence : f64[*]
      %one = constant {value = 1.0} : f64
      %two = constant {value = 2} : i64
      %a = update %s, %one, %two {index = ("at",)} : f64[*]
      %g = gather %a, %i : f64[3]
      %n = neg %a : f64[*]
      return %g, %n
    }
    """
    assert run(text, np.array([7, 2, 0])) == [[0.0, 1.0, 0.0], [0.0, 0.0, -1.0]]


def test_kernel_with_reduction() -> None:
    text = """
    func @f(%x: f64[2, 3]) -> (f64[2], f64[2]) {
      %s, %m = kernel {domain = (2, 3), reduced = 1, combine = ("sum", "max")} { (%i: i64, %j: i64)
        %e = extract %x, %i, %j {index = ("at", "at")} : f64
        %q = mul %e, %e : f64
        yield %q, %e
      } : f64[2], f64[2]
      return %s, %m
    }
    """
    assert run(text, np.array([[1.0, 2.0, 3.0], [0.0, -1.0, 4.0]])) == [[14.0, 17.0], [3.0, 4.0]]


def test_kernel_over_a_size() -> None:
    text = """
    func @f(%n: i64) -> (i64[%n<=4]) {
      %r = kernel {domain = (%n<=4,), reduced = 0, combine = ("",)} { (%i: i64)
        %q = mul %i, %i : i64
        yield %q
      } : i64[%n<=4]
      return %r
    }
    """
    assert run(text, 3) == [[0, 1, 4]]
    assert run(text, 0) == [[]]


def test_calls_recursion_included() -> None:
    m = parse_module("""
    func @main(%n: i64) -> (i64) {
      %r = call %n {callee = "factorial"} : i64
      return %r
    }
    func @factorial(%n: i64) -> (i64) {
      %one = constant {value = 1} : i64
      %stop = le %n, %one : bool
      %r = if %stop {
        yield %one
      } else {
        %m = sub %n, %one : i64
        %f = call %m {callee = "factorial"} : i64
        %g = mul %n, %f : i64
        yield %g
      } : i64
      return %r
    }
    """)
    assert evaluate(m.entry, [10], m)[0] == 3628800
    with pytest.raises(EvaluationError, match="no function @factorial"):
        evaluate(m.entry, [3])


CHECK = """
func @f(%i: i64, %n: i64) -> () {
  %ok = lt %i, %n : bool
  check %ok, %i, %n {error = "IndexError", message = "index {0} is out of bounds for axis of size {1}"}  @ "model.py":7
  return
}
"""


def test_check_raises_the_named_error_with_its_place() -> None:
    assert run(CHECK, 2, 3) == []
    with pytest.raises(IndexError, match="index 5 is out of bounds for axis of size 3") as e:
        run(CHECK, 5, 3)
    assert e.value.__notes__ == ["at model.py:7"]


def test_position_outside_is_an_error() -> None:
    text = """
    func @f(%x: f64[3], %i: i64) -> (f64) {
      %e = extract %x, %i {index = ("at",)} : f64  @ "model.py":3
      return %e
    }
    """
    with pytest.raises(IndexError, match="position 3 is outside an axis of size 3") as e:
        run(text, np.zeros(3), 3)
    assert e.value.__notes__ == ["at model.py:3"]
    with pytest.raises(IndexError):
        run(text, np.zeros(3), -1)


@pytest.mark.filterwarnings("error")
def test_integers_wrap_around_and_floats_follow_ieee() -> None:
    text = """
    func @f(%x: i8, %y: f16, %z: u64) -> (i8, f16, f16, u64) {
      %a = add %x, %x : i8
      %b = mul %y, %y : f16
      %zero = constant {value = 0.0} : f16
      %c = div %zero, %zero : f16
      %d = neg %z : u64
      return %a, %b, %c, %d
    }
    """
    a, b, c, d = evaluate(parse_function(text), [np.int8(100), np.float16(60000), np.uint64(1)])
    assert (a, b, d) == (-56, np.inf, 2**64 - 1) and np.isnan(c)
    assert [r.dtype.name for r in (a, b, c, d)] == ["int8", "float16", "float16", "uint64"]


IDENTITY = "func @f(%x: f32[2]) -> (f32[2]) {\n  return %x\n}"


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        ([], "takes 1 arguments, got 0"),
        ([np.zeros(2)], r"expected %x: f32\[2\], got float64\[2\]"),
        ([np.zeros(3, np.float32)], r"expected %x: f32\[2\], got float32\[3\]"),
        ([1.0], r"expected %x: f32\[2\], got float32\[\]"),
    ],
)
def test_arguments_have_exactly_the_parameter_types(args, reason) -> None:
    with pytest.raises(EvaluationError, match=reason):
        evaluate(parse_function(IDENTITY), args)


def test_results_are_new_arrays() -> None:
    x = np.zeros(2, np.float32)
    (y,) = evaluate(parse_function(IDENTITY), [x])
    y[0] = 1
    assert x[0] == 0


def test_a_reference_with_the_wrong_type_is_caught() -> None:
    f = parse_function("func @f(%x: f64) -> (f32) {\n  %y = sin %x : f32\n  return %y\n}")
    f.body.ops[0].loc = Location("model.py", 2)
    with pytest.raises(EvaluationError, match=r"sin: expected %y: f32, got float64\[\]") as e:
        evaluate(f, [1.0])
    assert e.value.__notes__ == ["at model.py:2"]


def test_every_operation_can_be_observed() -> None:
    seen = []
    f = parse_function("""
    func @f(%x: f64, %n: i64) -> (f64) {
      %y = for %n, %x { (%k: i64, %a: f64)
        %b = log %a : f64
        yield %b
      } : f64
      return %y
    }
    """)
    evaluate(f, [2.0, 3], on_op=lambda op, results, _: seen.append((op.name, bool(np.isnan(results[0])))))
    assert seen == [("log", False), ("log", False), ("log", True), ("for", True)]
