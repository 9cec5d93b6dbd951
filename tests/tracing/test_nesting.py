"""A trace inside a trace: values of the enclosing function become arguments."""

import numpy as np
import pytest

from dflow.errors import TraceError
from dflow.ir.core import walk
from dflow.ir.evaluator import evaluate
from dflow.ir.types import F64, TensorType, scalar
from dflow.ir.verifier import verify
from dflow.tracing.trace import ArgSpec, trace

V = TensorType(F64, (3,))


def trace_inside(inner, kept):
    """A function that traces ``inner(x[0], ...)`` while it is traced itself."""

    def outer(x, y):
        f = lambda a: inner(a, y)  # noqa: E731
        kept["inner"] = trace(f, [ArgSpec(scalar(F64))])
        return x

    return outer


def test_values_of_the_enclosing_trace_are_captured():
    kept = {}
    outer = trace_inside(lambda a, y: a * y + (y[0] if a > 0 else y[1]), kept)
    t = trace(outer, [ArgSpec(V), ArgSpec(V)])
    verify(t.function)
    inner = kept["inner"]
    verify(inner.function)
    (array,) = inner.captured
    assert array.shape == (3,)
    y = np.array([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(evaluate(inner.function, [2.0, y])[0], 2 * y + 1)


def test_updates_of_the_enclosing_trace_are_refused():
    def poke(a, y):
        y[0] = a
        return a

    with pytest.raises(TraceError, match="updating an array of an enclosing function"):
        trace(trace_inside(poke, {}), [ArgSpec(V), ArgSpec(V)])


class Kept:
    last = None


def test_inside_a_loop():
    def inner(a, x, i):
        type.__setattr__(Kept, "last", trace(lambda b: b * x[i], [ArgSpec(scalar(F64))]))
        return a + x[i]

    def outer(x):
        s = 0.0
        for i in range(10):
            s = inner(s, x, i)
        return s

    t = trace(outer, [ArgSpec(TensorType(F64, (10,)))])
    assert [op.name for op in walk(t.function.body)].count("for") == 1
    assert {a.shape for a in Kept.last.captured} == {(10,), ()}


def test_arguments_and_results_of_the_function():
    def f(x, n):
        x[0] = n
        return 2, x * n, np.float64(3.0)

    t = trace(f, [ArgSpec(V, hint="x"), ArgSpec(scalar(F64), True, "n")])
    assert t.mutated == ((0, 3),)
    assert t.weak == (True, False, False)
    assert [a.hint for a in t.function.args] == ["x", "n"]
    assert t.function.name == "f"
    assert all(op.loc is not None and op.loc.file == __file__ for op in t.function.body.ops)
