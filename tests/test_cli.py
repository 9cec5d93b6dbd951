"""The command line: each command, and each way in which it refuses."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import dflow
from dflow.backends.library import LibraryError
from dflow.cli import COMMANDS, doctor, main
from dflow.export import compile_library
from dflow.signature_text import SignatureError, parse_signature

ROOT = Path(__file__).parent.parent
needs_cc = pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")

PROGRAM = """
import dflow
import numpy as np

VALUE = 3

def loss(x, k):
    total = 0.0
    for i in range(len(x)):
        total += (x[i] - k) ** 2 * np.sin(x[i])
    return total

def doubled(x):
    return x * 2

def several(x, n):
    return x.sum(), {"a": x * n, "b": n}

def update(x, double):
    x[0] = double
    return x.sum()

def undefined(x):
    y = 2 * x
    return y + missing

def text(x):
    return "a"

def product(*xs):
    return xs[0] * xs[1]

@dflow.jit
def jitted(x):
    return np.sum(x * x)

gradient = dflow.grad(jitted)

@dflow.jit(static_argnums=1)
def static(x, n):
    return x ** n

class Model:
    @staticmethod
    def square(x):
        return x * x
"""

NORM = """\
func @norm(%x: f64[3], %k: f64) -> (f64) {
  %a = mul %x, %x : f64[3]
  %b = mul %x, %x : f64[3]
  %c = add %a, %b : f64[3]
  %s = reduce %c {kind = "sum", axes = (0,)} : f64
  %r = mul %s, %k : f64
  return %r
}
"""

CALLS = """\
func @f(%x: f64) -> (f64) {
  %y = call %x {callee = "g"} : f64
  return %y
}

func @g(%x: f64) -> (f64) {
  %y = sin %x : f64
  return %y
}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder with ``sample.py`` and some programs, which is the current one."""
    (tmp_path / "sample.py").write_text(PROGRAM)
    (tmp_path / "norm.ir").write_text(NORM)
    (tmp_path / "calls.ir").write_text(CALLS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in {"sample", "broken"} & (set(sys.modules) - before):
        del sys.modules[name]


@pytest.fixture
def dflow_says(capsys):
    """What a command prints; it must succeed."""

    def run(*argv: str) -> str:
        status = main(argv)
        out, err = capsys.readouterr()
        assert (status, err) == (0, "")
        return out

    return run


@pytest.fixture
def refused(capsys):
    """The message of a command that must fail."""

    def run(*argv: str) -> str:
        status = main(argv)
        out, err = capsys.readouterr()
        assert (status, out) == (2, "")
        assert err.startswith("dflow: error: ") and "Traceback" not in err
        return err.removeprefix("dflow: error: ").rstrip("\n")

    return run


# -- signatures --------------------------------------------------------------------------------------------------------


def test_signature():
    a, b, c, d, e = parse_signature(" f64[21,2], f32 ,float,int, bool[3]")
    assert (a.shape, a.dtype) == ((21, 2), np.float64)
    assert isinstance(b, np.float32) and type(c) is float and type(d) is int
    assert (e.shape, e.dtype) == ((3,), np.bool_)
    assert parse_signature("  ") == ()
    assert parse_signature("f64[1000000, 1000000]")[0].shape == (1000000, 1000000)  # takes no memory


KNOWN = "known are bool, i8, i16, i32, i64, u8, u16, u32, u64, f16, f32, f64, float, int"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("f64, f65", f"unknown type f65; {KNOWN}\n  f64, f65\n       ^"),
        ("float64", f"unknown type float64 (write f64); {KNOWN}\n  float64\n  ^"),
        ("c128", f"unknown type c128; {KNOWN}\n  c128\n  ^"),
        ("complex64", f"unknown type complex64 (complex arguments are not supported); {KNOWN}\n  complex64\n  ^"),
        ("f64 f64", "expected a comma or the end\n  f64 f64\n      ^"),
        ("f64,", "expected a type, such as f64, f32[3] or float\n  f64,\n      ^"),
        ("f64[3 4]", "expected a comma or ]\n  f64[3 4]\n        ^"),
        ("f64[]", "expected a size, a number such as 3: machine code is made for fixed shapes\n  f64[]\n      ^"),
        ("f64[n]", "expected a size, a number such as 3: machine code is made for fixed shapes\n  f64[n]\n      ^"),
        ("float[3]", "float is a Python number; an array of such is f64[...]\n  float[3]\n       ^"),
        (
            "f64, {f64}",
            "a signature holds numbers and arrays only; for dicts, tuples and other trees pass example arguments to "
            "dflow.compile_library\n  f64, {f64}\n       ^",
        ),
    ],
)
def test_signature_errors(text, message):
    with pytest.raises(SignatureError) as e:
        parse_signature(text)
    assert str(e.value) == f"signature: {message}"


# -- compile -----------------------------------------------------------------------------------------------------------


def pointer(a: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(a.ctypes.data)


@needs_cc
def test_compile(dflow_says, folder):
    said = dflow_says(
        "compile", "sample.py:loss", "-s", "f64[30], f64", "--value-and-grad", "--grad", "-o", "libloss.so"
    )
    assert said == "libloss.so\nlibloss.h\n"
    library = ctypes.CDLL(str(folder / "libloss.so"))
    x, k = np.linspace(0, 1, 30), 0.3
    value, again, slope, slope_again = np.zeros(()), np.zeros(()), np.zeros(30), np.zeros(30)
    assert library.loss(pointer(x), ctypes.c_double(k), pointer(value), None) == 0
    assert library.loss_grad(pointer(x), ctypes.c_double(k), pointer(slope), None) == 0
    assert library.loss_value_and_grad(pointer(x), ctypes.c_double(k), pointer(again), pointer(slope_again), None) == 0
    np.testing.assert_allclose(value, np.sum((x - k) ** 2 * np.sin(x)), rtol=1e-13)
    np.testing.assert_allclose(slope, 2 * (x - k) * np.sin(x) + (x - k) ** 2 * np.cos(x), rtol=1e-13, atol=1e-15)
    assert value == again
    np.testing.assert_array_equal(slope, slope_again)


MAIN = r"""
#include <stdio.h>
#include "libloss.h"

int main(void) {
    double x[40], k = 0.3, value, again, grad_x[40], grad_k;
    dflow_error error;
    for (int i = 0; i < 40; i++) x[i] = 0.05 * i;
    if (loss(x, k, &value, &error)) return 1;
    if (loss_value_and_grad(x, k, &again, grad_x, &grad_k, NULL)) return 2;
    printf("%.17g %.17g %.17g %.17g %.17g\n", value, again, grad_x[0], grad_x[39], grad_k);
    return 0;
}
"""


@needs_cc
def test_a_c_program_calls_value_and_gradient(dflow_says, folder):
    argv = ["compile", "sample.py:loss", "-s", "f64[40], f64", "--value-and-grad", "--wrt", "x,k", "-o", "libloss.so"]
    dflow_says(*argv)
    (folder / "main.c").write_text(MAIN)
    flags = ["-Wall", "-Wextra", "-Werror", "-std=c11", "-pedantic"]
    subprocess.run(["cc", *flags, "main.c", "./libloss.so", "-o", "main"], check=True)
    said = subprocess.run(["./main"], check=True, capture_output=True, text=True).stdout
    x, k = 0.05 * np.arange(40), 0.3
    slope = 2 * (x - k) * np.sin(x) + (x - k) ** 2 * np.cos(x)
    value = np.sum((x - k) ** 2 * np.sin(x))
    wanted = [value, value, slope[0], slope[39], -np.sum(2 * (x - k) * np.sin(x))]
    np.testing.assert_allclose([float(t) for t in said.split()], wanted, rtol=1e-12)


def declared(header: str, name: str) -> list[str]:
    """The parameters of a function, as a header declares them."""
    inside = Path(header).read_text().partition(f"int32_t {name}(\n")[2].partition(");")[0]
    return [" ".join(p.split()) for p in inside.split(",")]


@needs_cc
def test_names_of_parameters(dflow_says):
    dflow_says("compile", "sample.py:several", "-s", "f64[3], f64", "--name", "f", "-o", "l.so")
    assert declared("l.h", "f") == [
        "const double *x", "double n", "double *result_0", "double *result_1_a", "double *result_1_b",
        "dflow_error *error",
    ]  # fmt: skip
    dflow_says("compile", "sample.py:update", "-s", "f32[3], float", "--grad", "--wrt", "1", "-o", "l.so")
    assert declared("l.h", "update") == [
        "const float *x", "double double_", "float *result", "float *x_out", "dflow_error *error",
    ]  # fmt: skip
    assert declared("l.h", "update_grad")[2:] == ["double *grad_double", "dflow_error *error"]
    dflow_says("compile", "sample.py:product", "-s", "f64, f64", "--value-and-grad", "--wrt", "1,0", "-o", "l.so")
    assert declared("l.h", "product_value_and_grad") == [
        "double xs_0", "double xs_1", "double *value", "double *grad_xs_1", "double *grad_xs_0", "dflow_error *error",
    ]  # fmt: skip


@needs_cc
def test_example_arguments_may_be_trees(folder):
    def model(p, x):
        return p["w"] @ x + p["b"]

    example = ({"w": np.zeros(3), "b": 0.0}, np.zeros(3))
    library, header = compile_library(model, example, folder / "m.so", value_and_grad=True)
    assert dflow.compile_library is compile_library
    assert (library, header) == (folder / "m.so", folder / "m.h")
    assert declared("m.h", "model_value_and_grad") == [
        "double p_b", "const double *p_w", "const double *x", "double *value", "double *grad_p_b", "double *grad_p_w",
        "dflow_error *error",
    ]  # fmt: skip
    w, x, value, b_bar, w_bar = np.arange(3.0), np.ones(3), np.zeros(()), np.zeros(()), np.zeros(3)
    call = ctypes.CDLL(str(library)).model_value_and_grad
    assert call(ctypes.c_double(2.0), pointer(w), pointer(x), pointer(value), pointer(b_bar), pointer(w_bar), None) == 0
    assert (value, b_bar, w_bar.tolist()) == (5.0, 1.0, [1.0, 1.0, 1.0])


def test_emit(dflow_says, folder):
    base = ["compile", "sample.py:Model.square", "-s", "f64"]
    assert dflow_says(*base, "--emit", "llvm", "-o", "s.ll") == "s.ll\ns.h\n"
    assert re.search(r"^define .*i32 @square\(", (folder / "s.ll").read_text(), re.MULTILINE)
    dflow_says(*base, "--emit", "asm", "--cpu", "host", "-o", "s.s")
    assert "square:" in (folder / "s.s").read_text()
    dflow_says(*base, "--emit", "object", "--target", "aarch64-linux-gnu", "-o", "s.o")
    code = (folder / "s.o").read_bytes()
    assert code[:4] == b"\x7fELF" and code[18] == 183  # the number of that architecture


def test_any_file_name_will_do(dflow_says, folder):
    for name in ("square", "square.o", "code.o"):
        dflow_says("compile", "sample.py:Model.square", "-s", "f64", "-o", name)
        assert ctypes.CDLL(str(folder / name)).square


def test_compile_errors(refused, folder):
    base = ["compile", "sample.py:Model.square", "-s", "f64", "-o"]
    assert refused(*base, "nowhere/x.so") == "cannot write 'nowhere/x.so': no such folder"
    (folder / "taken").mkdir()
    assert refused(*base, "taken", "--emit", "llvm") == "cannot write taken: it is a folder"
    assert refused(*base, "") == "cannot write '.': no file name"
    os.mkfifo(folder / "pipe")
    assert refused(*base, "pipe") == "cannot write pipe: it is no ordinary file"
    assert (folder / "pipe").is_fifo()
    assert refused(*base, "x.h") == "x.h: the header will have this name; give the library another, such as libx.so"
    assert refused(*base, "x.so", "--name", "a-b") == "'a-b' is not a name that C allows; choose another name"
    assert refused(*base, "x.so", "--cpu", "nonesuch") == "LLVM knows no processor 'nonesuch' of this architecture"
    assert refused(*base, "x.so", "--target", "aarch64-linux-gnu") == (
        "for the target aarch64-linux-gnu, emit an object for a named cpu, and link it there"
    )
    assert refused(*base, "x.o", "--target", "nonesuch", "--emit", "object") == "LLVM knows no target 'nonesuch'"
    assert refused(*base, "x.o", "--target", "aarch64-linux-gnu", "--cpu", "znver4", "--emit", "object") == (
        "LLVM knows no processor 'znver4' of aarch64-linux-gnu"
    )
    assert refused("compile", "sample.py:loss", "-s", "f64") == (
        "the following arguments are required: -o/--output\n`dflow compile --help` shows how it is used"
    )
    with pytest.raises(LibraryError, match=r"^emit must be one of shared, object, asm, llvm, not 'wasm'$"):
        compile_library(lambda x: x, "f64", "x.so", emit="wasm")
    with pytest.raises(TypeError, match=r"^signature: expected text or a tuple of example arguments, got float$"):
        compile_library(abs, 1.0, "x.so")
    assert [p.name for p in folder.glob("x*")] == []


# -- functions ---------------------------------------------------------------------------------------------------------


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


# -- show --------------------------------------------------------------------------------------------------------------


def test_show(dflow_says):
    base = ["show", "sample.py:doubled", "-s", "f64[3]", "--stage"]
    for stage in ("traced", "optimized", "lowered"):
        assert dflow_says(*base, stage).startswith("func @doubled(%x: f64[3]) -> (f64[3]) {\n")
    assert re.search(r"^define .*i32 @", dflow_says(*base, "llvm"), re.MULTILINE)
    assert "dflow_program:" in dflow_says(*base, "asm")


def test_show_derivatives(dflow_says):
    gradient = "func @jitted(%x: f64[2]) -> (f64[2]) {\n  %x_bar = add %x, %x : f64[2]\n  return %x_bar\n}\n"
    assert dflow_says("show", "sample.py:jitted", "-s", "f64[2]", "--grad") == gradient
    assert dflow_says("show", "sample.py:gradient", "-s", "f64[2]") == gradient
    several = dflow_says("show", "sample.py:loss", "-s", "f64[2], f64", "--value-and-grad", "--wrt", "k,x")
    assert several.startswith("func @loss(%x: f64[2], %k: f64) -> (f64, f64, f64[2]) {\n")


# -- opt ---------------------------------------------------------------------------------------------------------------


def test_opt(dflow_says):
    assert dflow_says("opt", "norm.ir") == NORM
    cleaned = dflow_says("opt", "norm.ir", "--passes", "cse,dce", "--verify")
    assert cleaned == NORM.replace("  %b = mul %x, %x : f64[3]\n", "").replace("%a, %b", "%a, %a")
    heads = {
        "jvp": "func @jvp_norm(%x: f64[3], %k: f64, %x_dot: f64[3], %k_dot: f64) -> (f64, f64) {",
        "vjp": "func @vjp_norm(%x: f64[3], %k: f64, %r_bar: f64) -> (f64, f64[3], f64) {",
        "value_and_grad": "func @grad_norm(%x: f64[3], %k: f64) -> (f64, f64[3], f64) {",
        "fuse,bufferize": "func @norm(%x: f64[3], %k: f64) -> (f64) {",
    }
    for passes, head in heads.items():
        assert dflow_says("opt", "norm.ir", "-p", passes, "--verify").splitlines()[0] == head
    both = dflow_says("opt", "norm.ir", "-p", "linearize,optimize", "--verify")
    assert both.count("func @") == 2 and "%x_dot: lin f64[3]" in both


def test_opt_on_modules(dflow_says):
    assert dflow_says("opt", "calls.ir", "-p", "cse", "--verify") == CALLS
    inlined = "func @f(%x: f64) -> (f64) {\n  %y = sin %x : f64\n  return %y\n}\n"
    assert dflow_says("opt", "calls.ir", "-p", "inline") == inlined
    assert dflow_says("opt", "calls.ir", "-p", "vjp").startswith("func @vjp_f(%x: f64, %y_bar: f64) -> (f64, f64) {")


def test_transpose(dflow_says, refused, folder):
    (folder / "linear.ir").write_text(
        "func @f(%c: f64, %x: lin f64) -> (f64) {\n  %y = mul %c, %x : f64\n  return %y\n}\n"
    )
    said = dflow_says("opt", "linear.ir", "-p", "transpose", "--verify")
    assert said.startswith("func @f_transpose(%c: f64, %y_bar: lin f64) -> (f64) {")
    assert refused("opt", "norm.ir", "-p", "transpose").startswith("mul")


def test_opt_errors(refused, monkeypatch, folder):
    assert refused("opt", "norm.ir", "-p", "cse,nope").startswith("there is no pass nope; there are bufferize, canon")
    assert refused("opt", "missing.ir") == "missing.ir: No such file or directory"
    (folder / "bad.ir").write_text("func @f(%x: f64) -> (f64) {\n  return %y\n}\n")
    assert refused("opt", "bad.ir") == "bad.ir, line 2, column 10: %y is not defined here\n    return %y\n           ^"
    (folder / "wrong.ir").write_text("func @f(%x: i64) -> (i64) {\n  %y = sin %x : i64\n  return %y\n}\n")
    assert refused("opt", "wrong.ir", "--verify").startswith("@f does not verify, line 2:\n")
    (folder / "binary.ir").write_bytes(b"\xff\xfe\x00")
    assert refused("opt", "binary.ir") == "binary.ir: not a text file"


# -- run ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_run(dflow_says, folder, backend):
    np.save("x.npy", np.array([1.0, 2.0, 3.0]))
    for x in ("[1, 2.0, 3]", "x.npy"):
        assert dflow_says("run", "norm.ir", "--args", x, "-2", "--backend", backend) == "f64: -56.0\n"
    assert dflow_says("run", "calls.ir", "--args", "nan", "--backend", backend) == "f64: nan\n"
    assert dflow_says("run", "norm.ir", "--args", "[0, 0, -inf]", "1", "--backend", backend) == "f64: inf\n"
    (folder / "types.ir").write_text(
        "func @f(%p: bool, %i: u8[2, 1], %h: f32) -> (bool, u8[2, 1], f32, f64[0]) {\n"
        "  %e = constant {value = []} : f64[0]\n  return %p, %i, %h, %e\n}\n"
    )
    said = dflow_says("run", "types.ir", "--args", "True", "[[1], [255]]", "0.1", "--backend", backend)
    assert said == "bool: True\nu8[2, 1]: [[1], [255]]\nf32: 0.1\nf64[0]: []\n"


def test_run_errors(refused, folder):
    wanted = "expected %k: f64 as a number, a nested list of numbers or a .npy file"
    assert refused("run", "norm.ir", "--args", "[1, 2, 3]") == "@norm takes %x: f64[3], %k: f64; got 1 values"
    assert refused("run", "norm.ir", "--args", "[1, 2, 3]", "two") == f"two: {wanted}"
    assert refused("run", "norm.ir", "--args", "[1, 2, 3]", "__import__('os')") == f"__import__('os'): {wanted}"
    assert refused("run", "norm.ir", "--args", "[1, 2]", "1") == "[1, 2]: expected %x: f64[3], got i64[2]"
    assert refused("run", "norm.ir", "--args", "x.npy", "1") == "x.npy: No such file or directory"
    (folder / "x.npy").write_text("no array")
    assert refused("run", "norm.ir", "--args", "x.npy", "1").startswith("x.npy: not an array in NumPy's format (")
    (folder / "small.ir").write_text("func @f(%i: i8) -> (i8) {\n  return %i\n}\n")
    assert refused("run", "small.ir", "--args", "300") == "300: does not fit %i: i8"
    assert refused("run", "small.ir", "--args", "1.5") == "1.5: expected %i: i8, got f64"


def test_checks_that_fail(refused, folder):
    (folder / "check.ir").write_text(
        "func @f(%p: bool, %n: i64) -> () {\n"
        '  check %p, %n {error = "ValueError", message = "bad n: {0}"} @ "user.py":7\n  return\n}\n'
    )
    for backend in ("reference", "cpu"):
        said = refused("run", "check.ir", "--args", "False", "5", "--backend", backend)
        assert said == "ValueError: bad n: 5\nat user.py:7"


# -- doctor, help, processes -------------------------------------------------------------------------------------------


def test_doctor(dflow_says):
    said = dflow_says("doctor")
    assert [line[:14].strip() for line in said.splitlines()] == list(doctor.REPORT)
    assert "\nself-test      ok: x*sin(x)" in said


def test_doctor_that_finds_a_fault(monkeypatch, capsys):
    monkeypatch.setattr(dflow, "value_and_grad", lambda f: lambda x: (1.0, 2.0))
    assert main(["doctor"]) == 1
    assert "\nself-test      FAILED: ArithmeticError: x*sin(x) and its derivative at 0.7 are" in capsys.readouterr().out


def test_help(dflow_says):
    said = dflow_says("--help")
    for command, what in COMMANDS.items():
        assert f"  {command:<10}{what}\n" in said
        assert "\nexample" in dflow_says(command, "--help")
    assert dflow_says("--version") == f"dflow {dflow.__version__}\n"


def test_unknown_commands(refused):
    assert refused("compil") == (
        "argument COMMAND: invalid choice: 'compil' (choose from 'compile', 'show', 'opt', 'run', 'doctor')\n"
        "`dflow --help` shows how it is used"
    )
    assert refused().endswith("`dflow --help` shows how it is used")
    assert refused("opt", "norm.ir", "--nope") == (
        "unrecognized arguments: --nope\n`dflow opt --help` shows how it is used"
    )


def test_linearize_then_transpose(dflow_says, folder):
    text = dflow_says("opt", "norm.ir", "--passes", "linearize,transpose,optimize", "--verify")
    nonlinear, linear = text.split("\n\n")
    assert nonlinear.startswith("func @norm_primal(")
    assert re.match(r"func @.*norm_linear.*_bar: lin f64\) -> \(f64\[3\], f64\)", linear)


def test_text_is_no_argument(refused):
    assert refused("run", "norm.ir", "--args", "[1, 2, 'a']", "1").endswith(
        "expected %x: f64[3] as a number, a nested list of numbers or a .npy file"
    )


def test_traceback():
    with pytest.raises(FileNotFoundError):
        main(["opt", "missing.ir", "--traceback"])


def started(*argv: str, **how) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-m", "dflow", *argv], env=environment, **{**pipes, **how})


def test_as_a_process():
    with started("opt", "-", "--passes", "cse,dce", stdin=subprocess.PIPE) as p:
        out, err = p.communicate(NORM)
    assert (p.returncode, err) == (0, "") and "%b" not in out
    with started("run", "missing.ir") as p:
        out, err = p.communicate()
    assert (p.returncode, out, err) == (2, "", "dflow: error: missing.ir: No such file or directory\n")


def test_a_reader_that_leaves():
    reading, writing = os.pipe()
    os.close(reading)
    with started("opt", "norm.ir", stdout=writing) as p:
        os.close(writing)
        assert p.stderr.read() == ""
    assert p.returncode == 141


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_interrupt(folder):
    os.mkfifo(folder / "never.ir")
    with started("opt", "never.ir") as p:
        writer = os.open(folder / "never.ir", os.O_WRONLY)  # waits until the command reads
        p.send_signal(signal.SIGINT)
        assert p.stderr.read() == "dflow: interrupted\n"
        os.close(writer)
    assert p.returncode == 130
