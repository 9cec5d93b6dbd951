"""What textual cases do not show: numbers, errors, locations, and how the work of the passes grows."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from dflow.ir.builder import Builder
from dflow.ir.core import Block, Function, Value
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
