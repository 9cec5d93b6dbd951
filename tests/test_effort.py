"""Programs that take long let other threads of Python run meanwhile; short ones do not."""

import threading

import numpy as np
import pytest

import dflow
from dflow.ir.parser import parse_function
from dflow.programs.effort import is_long

COUNTING = """
func @f(%n: i64) -> (i64) {{
  %zero = constant {{value = 0}} : i64
  %m = constant {{value = {trips}}} : i64
  %s = for {count}, %zero {{ (%k: i64, %u: i64)
{body}    yield %a{last}
  }} : i64
  return %s
}}
"""


def counting(trips, length, count="%m"):
    lines = (f"    %a{k + 1} = add {f'%a{k}' if k else '%u'}, %k : i64\n" for k in range(length))
    return parse_function(COUNTING.format(trips=trips, body="".join(lines), last=length, count=count))


@pytest.mark.parametrize(
    "f, long",
    [
        (counting(10, 3), False),
        (counting(100_000, 3), True),
        (counting(1, 3, "%n"), False),
        (counting(1, 300, "%n"), True),
        (
            parse_function("func @f(%x: f64[300, 300]) -> (f64[300, 300]) { %y = sin %x : f64[300, 300]\n return %y }"),
            True,
        ),
        (parse_function("func @f(%x: f64[9, 9]) -> (f64[9, 9]) { %y = matmul %x, %x : f64[9, 9]\n return %y }"), False),
    ],
)
def test_long_programs(f, long):
    assert is_long(f) is long


def test_threads_in_a_long_program():
    """They share the compiled function, and errors reach the thread that made them."""

    @dflow.jit
    def total(x, n):
        s = 0.0
        for k in range(n):
            s += np.sin(x[k]) * x[k]
        return s

    x = np.linspace(0.0, 1.0, 3000)
    want, found = total(x, 3000), []

    def work():
        for _ in range(20):
            found.append(total(x, 3000))
            with pytest.raises(IndexError, match="index 3000 is out of bounds"):
                total(x, 3001)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert found == [want] * 60
