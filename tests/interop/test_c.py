"""C function pointers, SciPy's low-level callables, and pickles."""

import functools
import gc
import os
import runpy
import subprocess
import sys

import numpy as np
import pytest
from scipy import integrate

import dflow
from dflow.errors import TraceError
from dflow.interop import c_function


def bump(x):
    total = 0.0
    for k in range(1, 5):
        total += np.exp(-k * x * x) if x < 1 else 0.0
    return total


def test_a_pointer_can_be_called():
    f = c_function(bump)
    assert f.pointer(0.5) == pytest.approx(bump(0.5))
    assert f.address
    pointer = c_function(lambda x, y: x**y, 2).pointer
    gc.collect()
    assert pointer(2.0, 3.0) == 8.0
    assert c_function(dflow.grad(lambda x: x**3)).pointer(2.0) == 12.0


def test_low_level_callables():
    got = integrate.quad(c_function(bump).low_level_callable(), 0, 2)[0]
    assert got == pytest.approx(integrate.quad(bump, 0, 2)[0])
    wave = c_function(lambda x, a, b: a * np.sin(b * x), 3, packed=True).low_level_callable()
    assert integrate.quad(wave, 0, 1, args=(2.0, 3.0))[0] == pytest.approx(2 * (1 - np.cos(3)) / 3)
    plane = c_function(lambda x, y: x * y + 1, 2, packed=True, user_data=True).low_level_callable()
    assert integrate.nquad(plane, [[0, 1], [0, 2]])[0] == pytest.approx(3.0)


def test_errors_become_nan():
    def positive(x):
        assert x > 0
        return x

    f = c_function(positive)
    assert f.pointer(2.0) == 2.0
    assert np.isnan(f.pointer(-1.0))


def test_what_returns_no_float_is_refused():
    with pytest.raises(TraceError, match="returns one float"):
        c_function(lambda x: (x, x))
    with pytest.raises(TraceError, match="returns one float"):
        c_function(lambda x: 3)


# -- pickles -------------------------------------------------------------------------------------------------------

PROGRAM = """
import pickle, sys
import numpy as np
for f in pickle.load(open(sys.argv[1], "rb")):
    print(np.asarray(f(np.arange(3.0))).tolist())
"""


VANISHED = """
import dflow


def rectified(v):
    return v if v > 0 else 0.0 * v


@dflow.jit
def f(x):
    total = 0.0
    for v in x:
        if v > 1:
            total += rectified(v)
    return total
"""


def test_transformed_functions_travel_to_other_processes(tmp_path):
    cloudpickle = pytest.importorskip("cloudpickle")

    @dflow.custom_jvp
    def scaled(x):
        return 2 * x

    @scaled.defjvp
    def rule(primals, tangents):
        return scaled(*primals), 5 * tangents[0]

    def loss(x):
        return np.sum(dflow.vmap(dflow.jit(scaled))(x) ** 2)

    functions = [loss, dflow.grad(loss), dflow.jit(scaled), dflow.vmap(dflow.grad(scaled)), dflow.checkpoint(loss)]
    functions.append(dflow.hessian(loss))
    script = tmp_path / "script.py"
    script.write_text(VANISHED)
    of_script = runpy.run_path(str(script))["f"]
    functions += [of_script, dflow.grad(functools.partial(of_script))]
    want = [np.asarray(f(np.arange(3.0))).tolist() for f in functions]
    (tmp_path / "functions").write_bytes(cloudpickle.dumps(functions))
    script.write_text("x = 1\n" + VANISHED.replace("v > 1", "v < 1"))  # another version, where they arrive
    os.utime(script, (1, 1))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "functions")], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.splitlines() == [str(w) for w in want], done.stderr


# -- DLPack --------------------------------------------------------------------------------------------------------


class Foreign:
    """An array of some other library, which speaks DLPack alone."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def test_arrays_of_other_libraries():
    f = dflow.jit(lambda x, y: np.sum(x * y))
    x = np.arange(3.0)
    assert f(Foreign(x), x) == 5.0
    assert f(Foreign(x), Foreign(x)) == 5.0
    np.testing.assert_array_equal(dflow.grad(f)(Foreign(x), x), x)
    np.testing.assert_array_equal(np.from_dlpack(dflow.jit(np.sin)(Foreign(x))), np.sin(x))
