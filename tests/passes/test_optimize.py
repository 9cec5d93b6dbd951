"""What textual cases do not show: numbers, errors, locations, and how the work of the passes grows."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from dflow.ir.builder import Builder
from dflow.ir.core import Block, Function, Value, walk
from dflow.ir.evaluator import evaluate
from dflow.ir.parser import parse_function, parse_module
from dflow.ir.passes import PASSES, PIPELINE, Pass, inline_calls, optimize
from dflow.ir.types import F64, TensorType, scalar, type_of_array
from dflow.ir.verifier import VerificationError


@pytest.mark.parametrize("exponent", [-8.0, -3.0, -2.0, -1.0, 0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 9.0, float("nan")])
def test_powers_are_those_of_numpy(exponent: float) -> None:
    bases = [0.0, -0.0, 1.5, -2.0, 1e-200, 1e155, -1e155, 3e-155, np.inf, -np.inf, np.nan]
    x = np.array(bases)
    b = Builder([type_of_array(x)])
    f = b.function("f", [b.pow(b.args[0], exponent)])
    (expected,), (found,) = evaluate(f, [x]), evaluate(PASSES["canonicalize"](f), [x])
    np.testing.assert_allclose(found, expected, rtol=1e-14)
    np.testing.assert_array_equal(np.signbit(found), np.signbit(expected))


def test_inlining_refuses_recursion() -> None:
    text = 'func @{0}(%x: f64) -> (f64) {{\n  %y = call %x {{callee = "{1}"}} : f64\n  return %y\n}}\n'
    module = parse_module(text.format("f", "g") + text.format("g", "h") + text.format("h", "g"))
    with pytest.raises(ValueError, match=r"'g' calls itself.*g -> h -> g"):
        inline_calls(module)


def test_inlined_locations_say_who_called() -> None:
    text = """
    func @f(%x: f64) -> (f64) {
      %y = call %x {callee = "g"} : f64  @ "a.py":1
      return %y
    }
    func @g(%x: f64) -> (f64) {
      %y = call %x {callee = "h"} : f64  @ "b.py":2
      return %y
    }
    func @h(%x: f64) -> (f64) {
      %y = sin %x : f64  @ "c.py":3
      return %y
    }
    """
    (op,) = inline_calls(parse_module(text)).body.ops
    assert [str(loc) for loc in (op.loc, op.loc.caller, op.loc.caller.caller)] == ["c.py:3", "b.py:2", "a.py:1"]


def test_optimize_names_the_pass_that_broke_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    f = parse_function("func @f(%x: f64) -> (f64) {\n  %y = sin %x : f64\n  return %y\n}")
    monkeypatch.setitem(PASSES, "licm", lambda f: Function(f.name, Block(f.args, [], f.results)))
    with pytest.raises(VerificationError, match="licm"):
        optimize(f, check=True)


@pytest.mark.parametrize("name", [*dict.fromkeys(PIPELINE)])
def test_work_grows_with_the_program_and_no_faster(name: str) -> None:
    """Counted in calls of Python functions, on straight-line code and on loops in loops."""
    small, large = calls(PASSES[name], chain(100)), calls(PASSES[name], chain(400))
    assert large < 5 * small
    assert calls(PASSES[name], nest(16)) < 12 * calls(PASSES[name], nest(4))


def chain(n: int) -> Function:
    """Reads, arithmetic and updates, one after the other."""
    b = Builder([TensorType(F64, (10,)), scalar(F64)], ["x", "a"])
    x, v = b.args
    for i in range(n):
        e = b.extract(x, b.index(i % 10), index=("at",))
        v = b.add(b.mul(v, e), b.sin(e))
        x = b.update(x, v, b.index(3 * i % 10), index=("at",))
    return b.function("f", [v, x])


def nest(depth: int) -> Function:
    """Loops in loops."""

    def level(b: Builder, v: Value, left: int) -> list[Value]:
        v = b.mul(v, b.sin(b.args[-1]))
        if not left:
            return [v]
        return list(b.for_loop(b.index(3), [v], lambda inner, k, u: level(inner, u, left - 1)))

    b = Builder([scalar(F64)])
    return b.function("f", level(b, b.args[0], depth))


def calls(optimization: Pass, f: Function) -> int:
    count = 0

    def profile(frame: Any, event: str, arg: Any) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(profile)
    try:
        optimization(f)
    finally:
        sys.setprofile(None)
    return count


def python_range(b: Builder, start: Any, stop: Any, step: int, inits: list[Value], body: Any) -> tuple[Value, ...]:
    """``for i in range(start, stop, step)``."""
    start, stop = b.index(start), b.index(stop)
    low, high = (start, stop) if step > 0 else (stop, start)
    count = b.floordiv(b.add(b.sub(high, low), b.index(abs(step) - 1)), b.index(abs(step)))

    def counted(inner: Builder, k: Value, *args: Value) -> list[Value]:
        return list(body(inner, inner.add(start, inner.mul(k, inner.index(step))), *args))

    return b.for_loop(b.max(count, b.index(0)), inits, counted)


def read(b: Builder, x: Value, *positions: Value) -> Value:
    """``x[positions]`` as Python has it: from the end when negative, checked."""
    found = []
    for i, n in zip(positions, x.type.static_shape):
        wrapped = b.select(b.lt(i, b.index(0)), b.add(i, b.index(n)), i)
        ok = b.and_(b.ge(wrapped, b.index(0)), b.lt(wrapped, b.index(n)))
        b.append("check", [ok, i], {"error": "IndexError", "message": "{0}"})
        found.append(wrapped)
    return b.extract(x, *found, index=("at",) * len(found))


def elimination(b: Builder, x: Value, s: Value) -> Any:
    """``for k: for i in range(k + 1, n): for j in range(k, n): x[i, j], x[k, j]``."""

    def over_k(b: Builder, k: Value, s: Value) -> Any:
        def over_i(b: Builder, i: Value, s: Value) -> Any:
            def over_j(b: Builder, j: Value, s: Value) -> Any:
                return [b.add(s, b.mul(read(b, x, i, j), read(b, x, k, j)))]

            return python_range(b, k, 10, 1, [s], over_j)

        return python_range(b, b.add(k, b.index(1)), 10, 1, [s], over_i)

    return python_range(b, 0, 10, 1, [s], over_k)


def backwards(b: Builder, x: Value, s: Value) -> Any:
    """``for i in range(8, -1, -2): x[i, i + 1]``."""
    return python_range(b, 8, -1, -2, [s], lambda b, i, s: [b.add(s, read(b, x, i, b.add(i, b.index(1))))])


def below_diagonal(b: Builder, x: Value, s: Value) -> Any:
    """``for i in range(10): for j in range(i - 1, -1, -1): x[i, j], x[i - j - 1, j]``."""

    def over_i(b: Builder, i: Value, s: Value) -> Any:
        def over_j(b: Builder, j: Value, s: Value) -> Any:
            return [b.add(read(b, x, i, j), b.add(s, read(b, x, b.sub(b.sub(i, j), b.index(1)), j)))]

        return python_range(b, b.sub(i, b.index(1)), -1, -1, [s], over_j)

    return python_range(b, 0, 10, 1, [s], over_i)


def halves(b: Builder, x: Value, s: Value) -> Any:
    """``for i in range(10): x[i // 2, i % 3]``."""

    def body(b: Builder, i: Value, s: Value) -> Any:
        return [b.add(s, read(b, x, b.floordiv(i, b.index(2)), b.rem(i, b.index(3))))]

    return python_range(b, 0, 10, 1, [s], body)


def search(b: Builder, x: Value, s: Value) -> Any:
    """``while i < 10 and not found: found = x[i, 9 - i] > s; i += 1``."""

    def cond(b: Builder, i: Value, found: Value) -> Value:
        return b.and_(b.lt(i, b.index(10)), b.not_(found))

    def body(b: Builder, i: Value, found: Value) -> Any:
        return [b.add(i, b.index(1)), b.gt(read(b, x, i, b.sub(b.index(9), i)), s)]

    return b.while_loop([b.index(0), b.constant(False)], cond, body)


@pytest.mark.parametrize("program", [elimination, backwards, below_diagonal, halves, search])
def test_indices_of_loops_are_not_checked(program: Any) -> None:
    b = Builder([TensorType(F64, (10, 10)), scalar(F64)], ["x", "s"])
    f = b.function("f", program(b, *b.args))
    g = optimize(f, check=True)
    assert not [op for op in walk(g.body) if op.name in ("check", "select")], str(g)
    args = [np.random.default_rng(0).standard_normal((10, 10)), 1.0]
    np.testing.assert_allclose(evaluate(g, args), evaluate(f, args))
