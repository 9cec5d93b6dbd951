"""Libraries: a C program calls them, and they need and show nothing that they should not."""

from __future__ import annotations

import ctypes
import shutil
import subprocess

import numpy as np
import pytest

from dflow.backends.emit.types import strides
from dflow.backends.lowering.bufferize import bufferize
from dflow.backends.native import library
from dflow.backends.native.library import LibraryError, write_library
from dflow.ir.builder import Builder
from dflow.ir.core import Location
from dflow.ir.evaluator import evaluate
from dflow.ir.types import BF16, BOOL, C128, F16, F32, F64, GROWS, I32, I64, TensorType, scalar

needs_cc = pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")
FLAGS = ["-Wall", "-Wextra", "-Werror", "-std=c11", "-pedantic"]


def model():
    """Uses a large arena, a sequence, math functions and a check."""
    b = Builder([scalar(F64), TensorType(F64, (3,)), scalar(I64)], loc=Location("model.py", 7))
    a, x, n = b.args
    b.append("check", [b.ge(n, 0), n], {"error": "ValueError", "message": 'n must not be "negative", got {0}'})
    wide = b.broadcast(b.sin(b.mul(x, b.broadcast_scalar(a, (3,)))), shape=(1000, 3), dims=(1,))
    s = b.for_loop(
        n,
        [b.sequence(type=TensorType(F64, (GROWS,)))],
        lambda b, k, s: [b.update(s, b.exp(b.neg(b.convert(k, dtype=F64))), k, index=("at",))],
    )[0]
    total = b.for_loop(n, [a], lambda b, k, t: [b.add(t, b.extract(s, k, index=("at",)))])[0]
    wide = b.update(wide, b.broadcast_scalar(total, (3,)), b.index(1), index=("at", "all"))
    return b.function(
        "model", [total, b.reduce(wide, kind="sum", axes=(0,)), b.matmul(wide, b.transpose(wide, perm=(1, 0)))]
    )


def types():
    b = Builder([*map(scalar, (BOOL, F16, BF16, F32, I32, C128)), TensorType(F16, (2,))])
    p, h, t, f, i, c, hs = b.args
    return b.function("types", [b.not_(p), b.add(h, 1.0), b.neg(t), b.mul(f, 2.0), b.neg(i), c, b.add(hs, hs)])


PROGRAM = r"""
#include <stdio.h>
#include "libmodel.h"
#include "libmodel.h"
static double gram[1000000];
int main(void) {
    double x[3] = {0.1, 0.2, 0.3}, total, sums[3];
    dflow_error error;
    if (model(2.0, x, 5, &total, sums, gram, &error)) return 1;
    printf("%.17g %.17g %.17g %.17g %.17g\n", total, sums[0], sums[1], sums[2], gram[1001]);
    if (model(2.0, x, -3, &total, sums, gram, NULL) != 1) return 2;
    if (model(2.0, x, -3, &total, sums, gram, &error) != 1) return 3;
    printf("%s %lld\n", model_error_message(error.code), (long long)error.details[0]);
    printf("%s\n", model_error_message(99));
    return 0;
}
"""


def build(tmp_path, **options):
    return write_library(
        [("model", bufferize(model()), ["a", "x", "n"]), ("types", bufferize(types()), list("phtficv"))],
        tmp_path / "libmodel.so",
        **options,
    )


@needs_cc
@pytest.mark.parametrize("cpu", ["generic", "host"])
def test_a_c_program_calls_the_library(tmp_path, cpu):
    path, _ = build(tmp_path, cpu=cpu)
    (tmp_path / "main.c").write_text(PROGRAM)
    command = ["cc", *FLAGS, "main.c", "-o", "main", f"./{path.name}", "-Wl,-rpath,."]
    subprocess.run(command, cwd=tmp_path, check=True)
    out = subprocess.run(["./main"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout.splitlines()
    total, sums, gram = evaluate(model(), [2.0, np.array([0.1, 0.2, 0.3]), np.int64(5)])
    np.testing.assert_allclose([float(v) for v in out[0].split()], [total, *sums, gram[1, 1]], 1e-13)
    assert out[1] == 'ValueError: n must not be "negative", got {0} -3'
    assert out[2] == "no error has this code"


@needs_cc
def test_scalars_of_all_types_in_c(tmp_path):
    path, _ = build(tmp_path)
    (tmp_path / "main.c").write_text(r"""
#include <stdio.h>
#include "libmodel.h"
int main(void) {
    uint8_t p; dflow_f16 h, v[2] = {1.5, 2}, w[2]; float f; int32_t i; double c[2] = {3, 4}, d[2];
    dflow_bf16 t;
    if (types(1, 2.5, 0x3FC0, 1.25f, 7, c, v, &p, &h, &t, &f, &i, d, w, NULL)) return 1;
    printf("%d %g %x %g %d %g %g %g %g\n", p, (double)h, t, f, i, d[0], d[1], (double)w[0], (double)w[1]);
    return 0;
}""")
    subprocess.run(["cc", *FLAGS, "main.c", "-o", "main", f"./{path.name}", "-Wl,-rpath,."], cwd=tmp_path, check=True)
    out = subprocess.run(["./main"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert out == "0 3.5 bfc0 2.5 -7 3 4 3 4\n"


@needs_cc
def test_header_is_cpp_too(tmp_path):
    if not shutil.which("c++"):
        pytest.skip("needs a C++ compiler")
    build(tmp_path)
    (tmp_path / "main.cpp").write_text(
        '#include "libmodel.h"\nint main() { return model_error_message(0) == nullptr; }'
    )
    subprocess.run(["c++", "-Wall", "-Wextra", "-fsyntax-only", "main.cpp"], cwd=tmp_path, check=True)


@needs_cc
def test_library_needs_libc_alone_and_exports_what_is_asked_for(tmp_path):
    path, _ = build(tmp_path)
    dynamic = subprocess.run(["readelf", "-d", str(path)], capture_output=True, text=True, check=True).stdout
    needed = {line.split("[")[1].rstrip("]") for line in dynamic.splitlines() if "NEEDED" in line}
    assert needed <= {"libc.so.6", "libm.so.6"}
    symbols = subprocess.run(
        ["nm", "-D", "--defined-only", str(path)], capture_output=True, text=True, check=True
    ).stdout
    exported = {line.split()[-1] for line in symbols.splitlines()}
    assert exported == {"model", "model_error_message", "types", "types_error_message"}


def test_header_tells_layouts(tmp_path):
    if not shutil.which("cc"):
        pytest.skip("needs a C compiler")
    text = build(tmp_path)[1].read_text()
    assert "result2  out  f64[1000, 1000]: 1000000 elements, strides 1000, 1" in text
    assert "a        in   f64\n" in text
    assert "error 0: ValueError: n must not be" in text
    assert strides(TensorType(F64, (2, 3, 4))) == (12, 4, 1)


@pytest.mark.parametrize(
    "kind, triple, expected",
    [("object", None, b"ELF"), ("asm", "aarch64-linux-gnu", b"ldr"), ("llvm", None, b"define")],
)
def test_other_kinds_of_output(tmp_path, kind, triple, expected):
    path, made_header = write_library(
        [("model", bufferize(model()), "axn", ["total", "sums", "gram"])],
        tmp_path / "model.out",
        emit=kind,
        triple=triple,
    )
    assert expected in path.read_bytes()
    assert "double *gram" in made_header.read_text()


def test_impossible_combinations(tmp_path):
    with pytest.raises(LibraryError, match="emit must be one of"):
        build(tmp_path, emit="fortran")
    with pytest.raises(LibraryError, match="link it there"):
        build(tmp_path, triple="aarch64-linux-gnu")


@pytest.mark.parametrize("name", ["two words", "double", "1st", ""])
def test_names_must_be_c_names(tmp_path, name):
    with pytest.raises(LibraryError, match="not a name"):
        write_library([("f", bufferize(types()), [name, *"abcdeg"])], tmp_path / "lib.so")


def test_names_of_the_c_library_are_taken(tmp_path):
    with pytest.raises(LibraryError, match="choose another name"):
        write_library([("floor", bufferize(types()), list("phtficv"))], tmp_path / "lib.so")


def test_number_of_names(tmp_path):
    with pytest.raises(LibraryError, match="7 arguments, but 1 names"):
        write_library([("f", bufferize(types()), ["x"])], tmp_path / "lib.so")


def test_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(library, "linker", lambda: ["false"])
    with pytest.raises(LibraryError, match="linking failed"):
        build(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_no_compiler_is_said_clearly(monkeypatch):
    monkeypatch.setattr(library.shutil, "which", lambda name: None)
    monkeypatch.setattr(library.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LibraryError, match="pip install ziglang"):
        library.linker()


@needs_cc
def test_library_loads_in_python(tmp_path):
    path, _ = build(tmp_path)
    loaded = ctypes.CDLL(str(path))
    x, out = (ctypes.c_double * 3)(1, 2, 3), (ctypes.c_double * 1_000_000)()
    total, sums = ctypes.c_double(), (ctypes.c_double * 3)()
    call = loaded.model
    call.argtypes = [ctypes.c_double, ctypes.c_void_p, ctypes.c_int64] + [ctypes.c_void_p] * 4
    assert call(1.0, x, 100, ctypes.byref(total), sums, out, None) == 0
    assert total.value == pytest.approx(1 + 1 / (1 - np.exp(-1)))


@needs_cc
def test_unloading_gives_memory_back(tmp_path):
    functions = [(name, bufferize(model()), "axn") for name in ("model", "second")]
    write_library(functions, tmp_path / "libmodel.so")
    (tmp_path / "main.c").write_text(r"""
#include <dlfcn.h>
#include <malloc.h>
#include <stdint.h>
static double x[3], total, sums[3], gram[1000000];
typedef int32_t model(double, const double *, int64_t, double *, double *, double *, void *);
int main(void) {
    size_t before = 0;
    for (int round = 0; round < 100; round++) {
        void *library = dlopen("./libmodel.so", RTLD_NOW);
        if (!library) return 1;
        for (int i = 0; i < 2; i++) {
            model *f; *(void **)&f = dlsym(library, i ? "second" : "model");
            if (f(1.0, x, 9, &total, sums, gram, 0)) return 2;
        }
        dlclose(library);
        if (round == 9) before = mallinfo2().uordblks;
    }
    return mallinfo2().uordblks > before + 10000 ? 3 : 0;
}""")
    subprocess.run(["cc", "main.c", "-o", "main", "-ldl"], cwd=tmp_path, check=True)
    assert subprocess.run(["./main"], cwd=tmp_path).returncode == 0
