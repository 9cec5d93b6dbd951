"""Memory of sequences is kept between calls: a call must not see what an earlier one has left in it."""

import threading

import numpy as np
import pytest

import dflow
import dflow.ir.ops
from dflow.backends.native.generation import compile_function
from dflow.ir.evaluator import evaluate
from dflow.ir.parser import parse_function

# Writes positions 0, 2, 4, ... of a sequence and sums up those below 2 n, of which every other one was not written.
EVERY_OTHER = """
func @every_other(%n: i64, %m: i64) -> (f64) {
  %one = constant {value = 1.0} : f64
  %zero = constant {value = 0.0} : f64
  %two = constant {value = 2} : i64
  %s = sequence : f64[*]
  %t = for %n, %s { (%k: i64, %u: f64[*])
    %at = mul %k, %two : i64
    %v = update %u, %one, %at {index = ("at",)} : f64[*]
    yield %v
  } : f64[*]
  %sum = for %m, %zero { (%k: i64, %a: f64)
    %e = extract %t, %k {index = ("at",)} : f64
    %b = add %a, %e : f64
    yield %b
  } : f64
  return %sum
}
"""


def test_what_was_not_written_is_zero_in_later_calls():
    f = parse_function(EVERY_OTHER)
    compiled = compile_function(f)
    assert evaluate(f, (3, 9)) == (3.0,)
    for n in (3, 1000, 2, 70000, 0, 5, 70001, 1):
        for m in (0, 2 * n, 2 * n + 100, 140000):
            assert compiled(np.int64(n), np.int64(m)) == (min(n, (m + 1) // 2),)


def test_threads_do_not_share_kept_memory():
    compiled = compile_function(parse_function(EVERY_OTHER))
    wrong = []

    def calls(n):
        for _ in range(200):
            if compiled(np.int64(n), np.int64(2 * n)) != (n,):
                wrong.append(n)

    threads = [threading.Thread(target=calls, args=(n,)) for n in (10, 500, 3000)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_memory_that_is_not_to_be_had_is_an_error_and_leaves_the_function_usable():
    source = EVERY_OTHER.replace("constant {value = 2}", f"constant {{value = {2**44}}}")
    compiled = compile_function(parse_function(source))
    for _ in range(2):
        assert compiled(np.int64(1), np.int64(1)) == (1.0,)
        with pytest.raises(MemoryError):
            compiled(np.int64(2), np.int64(1))


# Writes n rows up and reads them down; %shift moves what is written.
UP_AND_DOWN = """
func @up_and_down(%n: i64) -> (f64) {
  %one = constant {value = 1} : i64
  %minus = constant {value = -1} : i64
  %zero = constant {value = 0.0} : f64
  %s = sequence %n : f64[*]
  %t = for %n, %s { (%k: i64, %u: f64[*])
    %x = convert %k {dtype = f64} : f64
    %moved = add %k, %one : i64
    %v = update %u, %x, POSITION {index = ("at",)} : f64[*]
    yield %v
  } : f64[*]
  %last = add %n, %minus : i64
  %sum = for %n, %zero { (%j: i64, %a: f64)
    %i = sub %last, %j : i64
    %e = extract %t, %i {index = ("at",)} : f64
    %b = sub %e, %a : f64
    yield %b
  } : f64
  return %sum
}
"""


@pytest.mark.parametrize(("position", "grows"), [("%k", 1), ("%moved", 2)])
def test_room_that_was_made_is_not_asked_for_again(position, grows):
    f = parse_function(UP_AND_DOWN.replace("POSITION", position))
    compiled = compile_function(f)
    assert compiled.unoptimized.count('call {ptr, i64} @"dflow.grow"') == grows
    for n in (0, 1, 7, 5000, 3):
        assert compiled(np.int64(n)) == evaluate(f, (n,))


def turned(x):
    return x + 0.1 * np.sin(x[::-1])


def turned_often(x):
    return turned(turned(turned(turned(turned(x)))))


def many_rows(x):
    total = 0.0
    while total < 20.0:
        x = turned_often(turned_often(x)) * 0.8
        total = total + np.sum(x * x)
    return total


def test_rows_in_functions_of_their_own():
    x = np.linspace(0.1, 0.4, 80)
    gradient = dflow.grad(many_rows)
    lowered = gradient.lower(x)
    assert "f64[*, 80]" in lowered.ir("lowered")
    assert 'call void @"dflow_program.kernel' in lowered.compile().compiled.unoptimized
    slope = dflow.jvp(many_rows, (x,), (np.cos(x),))[1]
    assert np.sum(gradient(x) * np.cos(x)) == pytest.approx(slope, rel=1e-12)


def three_loops(x, n):
    for _ in range(n):
        x = np.sin(x)
    for _ in range(2 * n):
        x = np.sin(x)
    for _ in range(3 * n):
        x = np.sin(x)
    return x


def test_ways_out_do_not_merge_sequences():
    made = dflow.grad(three_loops)
    body = made.lower(0.5, 2).llvm().split("@dflow_program(")[1].split("\n}")[0]
    merges = [line.count("[") for line in body.splitlines() if " = phi ptr" in line]
    assert max(merges) == 2  # room made or not; at the exit there would be one more for each loop
    assert made(0.5, 3) == pytest.approx(dflow.jvp(three_loops, (0.5, 3), (1.0, 0))[1], rel=1e-14)
