"""PTX with a C header: it compiles as C and C++, loads every kernel and launches what the plan says."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import dflow
from dflow.backends.native.library import LibraryError

needs_cc = pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")

MAIN = """
#include <stdio.h>
#include "f.h"
static char text[1 << 20];
int main(void) {
    f_program p;
    f_grad_program q;
    int64_t error[4];
    static double x[10000], out[10000];
    FILE *file = fopen("f.ptx", "r");
    text[fread(text, 1, sizeof text - 1, file)] = 0;
    if (f_load(&p, text) || f_grad_load(&q, text)) return 1;
    if (f_run(&p, 0, (CUdeviceptr)(uintptr_t)x, 3, (CUdeviceptr)(uintptr_t)out)) return 2;
    if (f_wait(&p, 0, error) || error[0]) return 3;
    printf("%d %s\\n", launches, f_error_message(1));
    return f_unload(&p) || f_grad_unload(&q);
}
"""


def f(x, n):
    if n < 0:
        raise ValueError("n is negative")
    for k in range(n):
        x = np.sin(x) + k
    return np.sum(x)


@needs_cc
def test_a_c_program_launches_it(tmp_path):
    files = dflow.compile_library(f, "f64[10000], int", tmp_path / "f.ptx", grad=True, target="ptx", cpu="sm_90")
    assert [p.name for p in files] == ["f.ptx", "f.h"]
    assert ".target sm_90" in files[0].read_text()
    (tmp_path / "main.c").write_text(MAIN)
    include = f"-I{Path(__file__).parent}"
    for command in (
        ["cc", include, "-Wall", "-Wextra", "-Werror", "-o", "main", "main.c"],
        ["cc", include, "-x", "c++", "-Wall", "-Werror", "-Wno-unused-function", "-fsyntax-only", "main.c"],
    ):
        if command[2] == "-x" and not shutil.which("c++"):
            continue
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    done = subprocess.run(["./main"], cwd=tmp_path, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0
    count, message = done.stdout.split(maxsplit=1)
    assert message == "ValueError: n is negative\n"
    assert int(count) >= 3  # the check, the sum in two stages; the count that is read back is 0


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(LibraryError, match="eigh is done by the host"):
        dflow.compile_library(
            lambda a: np.linalg.eigvalsh(a), "f64[20, 20]", tmp_path / "f.ptx", target="ptx", name="f"
        )
    with pytest.raises(LibraryError, match="cannot compile for 'sm_1'"):
        dflow.compile_library(f, "f64[3], int", tmp_path / "f.ptx", target="ptx", cpu="sm_1")
    assert not list(tmp_path.iterdir())
