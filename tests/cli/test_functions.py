"""Functions of files, and ``dflow show``."""

from __future__ import annotations

import re
import textwrap

import pytest
from programs_cli import PROGRAM


def test_functions_that_are_not_there(refused, folder):
    assert refused("show", "nofile.py:f", "-s", "") == "nofile.py: there is no such file"
    assert refused("show", "norm.ir:f", "-s", "") == "norm.ir: not a Python file"
    assert refused("show", f"{folder}:f", "-s", "") == f"{folder}: not a file"
    assert refused("show", "sample.py", "-s", "") == "sample.py: expected FILE.py:FUNCTION, such as model.py:loss"
    assert refused("show", "sample.py:VALUE", "-s", "") == "VALUE in sample.py is no function but int"
    assert refused("show", "sample.py:lss", "-s", "").startswith(
        "sample.py has no function lss; there are loss, doubled, several, "
    )


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "import nothing_there",
            "ModuleNotFoundError: No module named 'nothing_there'\n  at {0}:1: import nothing_there",
        ),
        ("def f():\n    1 / 0\nf()", "ZeroDivisionError: division by zero\n  at {0}:2: 1 / 0"),
        ("import sys\nsys.exit(3)", "it calls sys.exit(3)\n  at {0}:2: sys.exit(3)"),
        ("x = = 1", 'File "{0}", line 1\n    x = = 1\n        ^\nSyntaxError: invalid syntax'),
    ],
)
def test_files_that_cannot_be_imported(refused, folder, source, message):
    file = folder / "broken.py"
    file.write_text(source)
    assert refused("show", "broken.py:f", "-s", "f64") == f"importing broken.py failed: {message.format(file)}"


def test_functions_that_cannot_be_traced(refused, folder):
    file = folder / "sample.py"
    line = {text: k for k, text in enumerate(PROGRAM.split("\n"), 1)}
    assert refused("show", "sample.py:undefined", "-s", "f64") == (
        f"NameError: name 'missing' is not defined\nat {file}:{line['    return y + missing']}"
    )
    assert refused("show", "sample.py:doubled", "-s", "f64[3]", "--grad") == textwrap.dedent(f"""\
        {file}:{line["    return x * 2"]}: grad needs a function that returns one float; doubled does not
            return x * 2
                   ^^^^^
        seen: f64[3]
        wanted: a scalar, f64 or f32
        mend: return a sum, a mean or one element; for all derivatives of several results use dflow.jvp or dflow.vjp""")
    assert refused("show", "sample.py:several", "-s", "f64[3]") == textwrap.dedent(f"""\
        {file}:{line["def several(x, n):"]}: the arguments do not fit several(x, n): missing a required argument: 'n'
            def several(x, n):
        seen: f64[3]""")
    said = refused("show", "sample.py:static", "-s", "f64, int")
    assert said.partition(": ")[2] == textwrap.dedent("""\
        static(x, n) has static arguments, whose values a signature does not hold
            @dflow.jit(static_argnums=1)
        mend: write a function that calls it with these values, and compile that""")
    assert "returns a str" in refused("show", "sample.py:text", "-s", "f64")


def test_arguments_to_differentiate_by(refused):
    base = ["show", "sample.py:doubled", "--grad", "-s"]
    assert (
        refused(*base, "f64", "--wrt", "y")
        .partition(": ")[2]
        .startswith("doubled(x) has no argument y to differentiate by; it has x")
    )
    assert refused(*base, "f64", "--wrt", "3") == (
        "grad by argument 3, but the call has 1 positional arguments\n"
        "mend: call it with that argument, or choose others by argnums or argnames"
    )
    assert refused(*base, "i64").startswith("grad by argument x, which holds no floats\nseen: x: i64\n")
    assert refused("show", "sample.py:doubled", "-s", "f64", "--wrt", "x") == (
        "--wrt goes with --grad or --value-and-grad"
    )
    assert refused(*base, "f64", "--wrt", ",") == "--wrt ,: expected numbers or names of arguments, such as 0,1 or x,y"


def test_show(dflow_says):
    base = ["show", "sample.py:doubled", "-s", "f64[3]", "--stage"]
    for stage in ("traced", "optimized", "lowered"):
        assert dflow_says(*base, stage).startswith("func @doubled(%x: f64[3]) -> (f64[3]) {\n")
    assert re.search(r"^define .*i32 @", dflow_says(*base, "llvm"), re.MULTILINE)
    assert "dflow_program:" in dflow_says(*base, "asm")


def test_show_derivatives(dflow_says):
    gradient = """func @jitted(%x: f64[2]) -> (f64[2]) {
  %0 = constant {value = 2.0} : f64
  %1 = broadcast %0 {shape = (2,), dims = ()} : f64[2]
  %x_bar = mul %x, %1 : f64[2]
  return %x_bar
}
"""
    assert dflow_says("show", "sample.py:jitted", "-s", "f64[2]", "--grad") == gradient
    assert dflow_says("show", "sample.py:gradient", "-s", "f64[2]") == gradient
    several = dflow_says("show", "sample.py:loss", "-s", "f64[2], f64", "--value-and-grad", "--wrt", "k,x")
    assert several.startswith("func @loss(%x: f64[2], %k: f64) -> (f64, f64, f64[2]) {\n")
