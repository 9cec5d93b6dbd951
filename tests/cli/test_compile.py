"""``dflow compile``, and the signatures that it takes."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import dflow
from dflow.backends.native.library import LibraryError
from dflow.export import compile_library
from dflow.programs.signature_text import SignatureError, parse_signature

needs_cc = pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")


def test_signature():
    a, b, c, d, e = parse_signature(" f64[21,2], f32 ,float,int, bool[3]")
    assert (a.shape, a.dtype) == ((21, 2), np.float64)
    assert isinstance(b, np.float32) and type(c) is float and type(d) is int
    assert (e.shape, e.dtype) == ((3,), np.bool_)
    assert parse_signature("  ") == ()
    assert parse_signature("f64[1000000, 1000000]")[0].shape == (1000000, 1000000)  # takes no memory


KNOWN = "known are bool, i8, i16, i32, i64, u8, u16, u32, u64, f16, bf16, f32, f64, float, int"


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
