"""``print`` in compiled functions, the reference backend, and what ``dflow.debug`` looks into."""

import sys
import warnings
from dataclasses import dataclass

import numpy as np
import pytest

import dflow
from dflow.backends.native.library import LibraryError
from dflow.ir.evaluator import evaluate
from dflow.ir.parser import parse_function

X = np.array([1.0, 2.0, 3.0])


@dataclass
class Point:
    x: float
    y: float


def talks(x):
    print("start", len(x))
    total = 0.0
    for i in range(int(x[0]) + 5):
        total += x[i % 3] ** 2
        if i % 3 == 0:
            print(f"i={i} total={total:.3f} {x[0]!r} {{}}", end=";\n")
    shown = {"total": total, "point": Point(total, 2.0)}
    print(shown, x, x > 0, sep="|")
    some, none = (total if total > 4 else None), ((total, 1) if total < 4 else None)
    print(some, [none, 1], f"{some} {none} {hasattr(some, 'real')}")
    dflow.print("end", int(total), total > 3, str(total) + "!", None)
    return total


RUNS = {
    "jit": lambda: dflow.jit(talks)(X),
    "reference": lambda: dflow.jit(talks, backend="reference")(X),
    "grad": lambda: dflow.grad(talks)(X),
    "jvp": lambda: dflow.jvp(talks, (X,), (X,)),
    "vjp": lambda: dflow.vjp(talks, X)[1](1.0),
    "hessian": lambda: dflow.hessian(talks)(X),
    "text": lambda: evaluate(parse_function(str(dflow.jit(talks).lower(X).stages.traced)), [X]),
}


@pytest.mark.parametrize("name", RUNS)
def test_prints_what_python_prints_and_once(capsys, name):
    talks(X)
    expected = capsys.readouterr().out
    for _ in range(2):
        RUNS[name]()
        assert capsys.readouterr().out == expected


def test_a_text_that_is_not_known(capsys):
    f = dflow.jit(lambda x: {f"{x}": 1.0})
    with pytest.raises(
        dflow.errors.NeedsStatic, match="a text is used as a key that is known only when the program runs"
    ):
        f(np.array(1.0))


def test_a_library_cannot_print(tmp_path):
    with pytest.raises(LibraryError, match="cannot print; leave it out"):
        dflow.compile_library(talks, "f64[3]", tmp_path / "libtalks.so")


def slope_at_zero(x):
    y = x - 1.0
    best = np.inf
    for k in range(3):
        best = min(best, y + k)
    return np.sqrt(best) * np.log(y)


def test_reference_backend():
    f = dflow.jit(slope_at_zero, backend="reference")
    assert f(3.0) == slope_at_zero(3.0)
    g = dflow.jit(dflow.grad(slope_at_zero), backend="reference")
    assert g(3.0) == pytest.approx(dflow.grad(slope_at_zero)(3.0))
    with pytest.raises(IndexError, match=r"test_printing.py:.*index 7 is out of bounds"):
        dflow.jit(lambda x, i: x[i], backend="reference")(X, 7)
    with pytest.raises(ValueError, match="backend must be one of native, reference; got 'cuda'"):
        dflow.jit(slope_at_zero, backend="cuda")


def test_the_first_operation_that_makes_no_number():
    assert dflow.debug.check_finite(slope_at_zero)(2.0) == slope_at_zero(2.0)
    with pytest.raises(FloatingPointError) as e:
        dflow.debug.check_finite(slope_at_zero)(1.0)
    first, line, caret = str(e.value).splitlines()
    assert first.endswith(": log makes infinity of finite numbers: log of 0.0")
    assert line.strip() == "return np.sqrt(best) * np.log(y)" and caret.strip() == "^" * len("np.log(y)")
    with pytest.raises(FloatingPointError, match="makes infinity"):
        dflow.debug.check_finite(dflow.grad(lambda x: np.sqrt(x)))(0.0)


def test_breakpoint(monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "breakpointhook", lambda: seen.append(dict(sys._getframe(1).f_locals)))

    def f(x):
        total = 0.0
        for v in x:
            total += v
            dflow.debug.breakpoint()
        return total

    assert dflow.jit(f, backend="reference")(np.arange(6.0)) == 15.0
    assert [s["total"] for s in seen] == [0.0, 1.0, 3.0, 6.0, 10.0, 15.0] and seen[-1]["v"] == 5.0
    with pytest.raises(dflow.errors.TraceError, match="a breakpoint stops in the reference backend only"):
        dflow.jit(f)(np.arange(6.0))


def test_warnings_are_given_when_the_program_runs():
    @dflow.jit
    def f(x):
        if x > 1:
            warnings.warn(f"x is {x:.2f}", RuntimeWarning, stacklevel=1)
        return x * 2

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert (f(0.5), len(caught)) == (1.0, 0)
        assert (f(2.5), len(caught)) == (5.0, 1)
        dflow.grad(f)(3.0)
    assert [(str(w.message), w.category) for w in caught] == [(f"x is {n}", RuntimeWarning) for n in ("2.50", "3.00")]
    assert caught[0].filename == __file__
