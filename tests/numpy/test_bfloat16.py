"""bfloat16 in programs: every function, promotion, derivatives, loops and updates, what leaves the process."""

from __future__ import annotations

import builtins
import ctypes
import pickle
import shutil

import ml_dtypes
import numpy as np
import pytest
import surface

import dflow
import dflow.numpy as dnp
from dflow import lax, random
from dflow.backends.native import pyabi
from dflow.ir import types
from dflow.ir.types import is_bfloat16, kind_of
from dflow.programs import sharing

B = ml_dtypes.bfloat16
X = np.linspace(0.3, 0.9, 8).astype(B)
EPS = 2.0**-8  # half of the distance between neighbours, relative


def single(x):
    return np.asarray(x, np.float32)


def codes(x):
    """Integers that count the numbers of bfloat16 in their order."""
    bits = np.asarray(x, B).view(np.int16).astype(int)
    return np.where(bits < 0, -(bits & 0x7FFF), bits)


# -- every function --------------------------------------------------------------------------------------------------

FUNCTIONS = [n for n in sorted(dnp.__all__) if callable(getattr(dnp, n)) and n not in ("poly", "polyfit", "roots")]
WIDENED = ("polyder", "vander")  # by their int64, which leaves a bfloat16 as it is


def parts(f, x):
    try:
        with np.errstate(all="ignore"):
            return list(surface.leaves(f(x)))
    except Exception as e:
        return e


@pytest.mark.filterwarnings("ignore")
def test_every_function_is_that_of_float32_rounded():
    x, tried = surface.X.astype(B), 0
    for name in FUNCTIONS:
        own = getattr(dnp, name)
        for way in (surface.SPECIAL[name],) if name in surface.SPECIAL else surface.ARGUMENTS:
            run = dflow.jit(lambda x, way=way, own=own: way(own, x), backend="reference")
            wanted = parts(run, single(x))
            if isinstance(wanted, Exception):
                continue
            found = parts(run, x)
            assert not isinstance(found, Exception), (name, found)
            for p, q in zip(found, wanted, strict=True):
                assert p.dtype == (B if q.dtype == np.float32 or name in WIDENED else q.dtype), name
                assert p.shape == q.shape, name
                if kind_of(p.dtype) not in "fc":
                    np.testing.assert_array_equal(p, q, name)
                elif name != "spacing":
                    wide = (np.asarray(v, complex) for v in (p, q))
                    np.testing.assert_allclose(*wide, 8 * EPS, 8 * EPS, err_msg=name)
            tried += 1
            break
    assert tried > 280


EXACT = ("sqrt", "square", "floor", "ceil", "trunc", "rint", "absolute", "negative", "sign", "reciprocal", "fabs")
NEAR = ("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "arcsin", "arccos", "arctan")
NEAR += ("sinh", "cosh", "tanh", "arcsinh", "arctanh", "cbrt")
BINARY = ("add", "subtract", "multiply", "divide", "maximum", "minimum", "copysign", "fmod", "fmax", "less", "equal")
BINARY += ("greater_equal", "not_equal")


def test_machine_code_of_ufuncs():
    """Exact where one operation is rounded; elsewhere the neighbour at most."""
    x = np.concatenate([X, -X, [0.0, np.inf, np.nan]]).astype(B)
    y = x[::-1].copy()
    unary = dflow.jit(lambda x: [getattr(np, n)(x) for n in (*EXACT, *NEAR)])(x)
    binary = dflow.jit(lambda x, y: [getattr(np, n)(x, y) for n in BINARY])(x, y)
    with np.errstate(all="ignore"):
        for name, found in zip((*EXACT, *NEAR), unary):
            wanted = getattr(np, name)(single(x)).astype(B)
            difference = np.abs(codes(found) - codes(wanted))[~np.isnan(wanted)]
            assert found.dtype == B and (np.isnan(found) == np.isnan(wanted)).all(), name
            assert difference.max() <= (name in NEAR), name
        for name, found in zip(BINARY, binary):
            wanted = getattr(np, name)(single(x), single(y))
            np.testing.assert_array_equal(single(found), single(wanted.astype(found.dtype)), name)


def test_sums_and_products_are_accumulated_in_float32():
    x = np.ones(1000, B)
    total, mean, dot, product = dflow.jit(
        lambda x: (x.sum(), x.mean(), x @ x, np.outer(x[:40], x[:50]) @ np.outer(x[:50], x[:40]))
    )(x)
    assert [float(v) for v in (total, mean, dot)] == [1000.0, 1.0, 1000.0]
    assert product.dtype == B and (product == B(50)).all()


# -- dtypes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "wanted"),
    [
        *((d, B) for d in (2, 2.5, True, np.int8(1), np.int64(1), np.uint32(1), np.bool_(True), B(1))),
        *((d, np.float32) for d in (np.float16(1), np.float32(1))),
        *((d, np.float64) for d in (np.float64(1),)),
        *((d, np.complex64) for d in (1j, np.complex64(1))),
        (np.complex128(1), np.complex128),
    ],
    ids=repr,
)
def test_promotion(other, wanted):
    def f(x, y):
        assert (x + y).dtype == np.multiply(y, x).dtype == np.where(True, x, y).dtype == wanted
        assert np.result_type(x, y) == np.concatenate([x, np.reshape(y * x[0], 1)]).dtype == wanted
        return x

    dflow.jit(f, backend="reference")(X, other)
    if isinstance(other, np.generic) and kind_of(other.dtype) in "bf" and other.dtype != np.float16:
        assert np.result_type(B, other.dtype) == wanted  # NumPy's answer, where it has one


def test_a_complex_beside_three_dtypes():
    assert types.dtype_of("bfloat16") == types.BF16 == types.dtype_of(B)
    dtypes = dflow.jit(lambda x, h, n: (x + n + h, x + (h + n)), backend="reference")(X, np.float16(1), np.int64(2))
    assert [d.dtype for d in dtypes] == [np.float32, np.float64]  # as NumPy's, promotion goes by pairs


def test_casting():
    @dflow.jit
    def f(x, n, h):
        h += x  # float32 to float16, as NumPy has it
        n[...] = x.astype(np.int32)
        return x.astype(np.float64), x.astype("bfloat16"), x.view(np.int16), h, np.finfo(x.dtype).eps + x * 0

    n, h = np.zeros(8, np.int32), np.zeros(8, np.float16)
    wide, same, bits, half, eps = f(X * B(4), n, h)
    np.testing.assert_array_equal(wide, (X * B(4)).astype(float))
    assert same.dtype == B and (bits == same.view(np.int16)).all() and half.dtype == np.float16
    assert (n == wide.astype(int)).all() and (h == wide).all() and (eps == 2.0**-7).all()


def test_what_is_refused():
    with pytest.raises(TypeError, match="bfloat16 is unsupported in linalg"):
        dflow.jit(np.linalg.inv)(np.eye(2, dtype=B))
    with pytest.raises(TypeError, match="does not take bf16"):
        dflow.jit(lambda x: x & x)(X)


# -- programs --------------------------------------------------------------------------------------------------------


def recurrence(x, y):
    """A loop with a branch and updates in place."""
    out = np.zeros_like(x)
    total = x[0] * 0
    for k in range(len(x)):
        total += x[k] * y
        if total > 1:
            total -= 0.75
        out[k] = np.sin(total) * x[k]
        out[k // 2] += total
    return out


def test_a_loop_with_updates():
    found = dflow.jit(recurrence)(X, B(0.5))
    assert found.dtype == B
    np.testing.assert_allclose(single(found), recurrence(single(X), np.float32(0.5)), 4 * EPS)
    np.testing.assert_array_equal(single(found), single(dflow.jit(recurrence, backend="reference")(X, B(0.5))))


def test_derivatives_of_a_loop():
    f, y = (lambda x, y: np.sum(recurrence(x, y))), B(0.5)
    gradient = dflow.grad(f, (0, 1))
    by_x, by_y = gradient(X, y)
    wanted_x, wanted_y = gradient(single(X), np.float32(y))
    assert by_x.dtype == by_y.dtype == B
    np.testing.assert_allclose(single(by_x), wanted_x, 8 * EPS, 4 * EPS)
    np.testing.assert_allclose(float(by_y), wanted_y, 8 * EPS)
    value, tangent = dflow.jvp(f, (X, y), (X, B(1)))
    assert tangent.dtype == value.dtype == B
    np.testing.assert_allclose(float(tangent), float(np.sum(single(by_x) * single(X)) + single(by_y)), 8 * EPS)
    second = dflow.jvp(dflow.grad(f), (X, y), (X, B(0)))[1]
    wanted = dflow.jvp(dflow.grad(f), (single(X), np.float32(y)), (single(X), np.float32(0)))[1]
    assert second.dtype == B
    np.testing.assert_allclose(single(second), wanted, 16 * EPS, 8 * EPS)


@pytest.mark.parametrize("dtype", [B, np.float16], ids=["bfloat16", "float16"])
def test_checks_of_derivatives(dtype):
    x = X.astype(dtype)
    dflow.check_grads(lambda x: np.sum(np.sin(x) * x), (x,))
    with pytest.raises(AssertionError, match="against central differences"):
        dflow.check_grads(wrong, (x,), modes=("fwd",))


@dflow.custom_jvp
def wrong(x):
    return np.sin(x)


wrong.defjvp(lambda primals, tangents: (np.sin(primals[0]), 2 * np.cos(primals[0]) * tangents[0]))


def test_vmap_and_linearize():
    rows = np.stack([X, X[::-1], X * B(2)])
    found = dflow.vmap(recurrence, (0, None))(rows, B(0.5))
    run = dflow.jit(recurrence)
    np.testing.assert_array_equal(single(found), [single(run(r, B(0.5))) for r in rows])
    value, linear = dflow.linearize(np.tanh, X)
    assert linear(X).dtype == value.dtype == B
    np.testing.assert_allclose(single(linear(X)), single(X) / np.cosh(single(X)) ** 2, 3 * EPS)


def test_control_flow_functions_and_rules():
    def f(x):
        last, sums = lax.scan(lambda c, v: (c + v, c * v), x[0], x)
        return dflow.checkpoint(np.exp)(last) + lax.cond(sums[1] > 0, np.sum, np.max, sums)

    found = dflow.grad(f)(X)
    assert found.dtype == B
    np.testing.assert_allclose(single(found), dflow.grad(f)(single(X)), 8 * EPS)


def test_sorting_with_nan_and_positions():
    x = np.array([2.0, np.nan, -1.0, 0.5, -0.0, 0.5], B)
    ordered, order, largest = dflow.jit(lambda x: (np.sort(x), np.argsort(x), np.nanargmax(x)))(x)
    np.testing.assert_array_equal(single(ordered), np.sort(single(x)))
    np.testing.assert_array_equal(order, np.argsort(single(x), stable=True))
    assert largest == 0


def test_random_numbers():
    draws = (random.uniform, random.normal, random.gumbel)

    def f(key):
        return [d(key, (2000,), dtype=t) for d in draws for t in (B, np.float32)]

    found = dflow.jit(f, backend="reference")(random.key(3))
    for narrow, wide in zip(found[::2], found[1::2]):
        assert narrow.dtype == B and len(np.unique(narrow)) > 200
        np.testing.assert_allclose(single(narrow).mean(), wide.mean(), atol=0.01)
    assert (found[0] >= B(0)).all() and (found[0] < B(1)).all()


def test_trees_and_records():
    class Layer:
        def __init__(self, w, b):
            self.w, self.b = w, b

    layer = Layer(np.ones((2, 8), B), B(0.5))
    found = dflow.grad(lambda p, x: np.sum(np.tanh(p["l"].w @ x + p["l"].b)))({"l": layer}, X)
    assert found["l"].w.dtype == B and isinstance(found["l"].b, B)


def test_printing(capfd):
    def f(x):
        print(x, f"{x[0]:.2f}")
        return x

    dflow.jit(f)(X[:2])
    assert capfd.readouterr().out == "[0.300781 0.384766] 0.30\n"


# -- outside of programs ---------------------------------------------------------------------------------------------


def test_calls_on_concrete_arrays_are_those_of_numpy():
    assert dnp.bfloat16 is B and dnp.zeros(3, dnp.bfloat16).dtype == B and dnp.finfo(B).eps == 2.0**-7
    assert (dnp.sin(X) == np.sin(X)).all() and dnp.add(X, 0.5).dtype == np.add(X, 0.5).dtype
    assert dnp.isdtype(B, "real floating") and dnp.isdtype(B, ("bool", B)) and not dnp.isdtype(B, "integral")
    assert dnp.isdtype(np.float32, "numeric") and not dnp.isdtype(np.float32, B)
    found = dnp.einsum("i,i->", X, X)  # which NumPy refuses
    assert is_bfloat16(found.dtype) and abs(float(found) - float(single(X) @ single(X))) < 0.02
    assert dnp.add(X, np.float16(1)).dtype == np.float32
    with pytest.raises(TypeError, match="bitwise_and"):
        dnp.bitwise_and(X, X)


def test_pickles_and_the_cache_on_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("DFLOW_CACHE", str(tmp_path))
    f = dflow.jit(scaled)
    wanted = f(X, B(3))
    monkeypatch.setattr(
        "dflow.backends.native.generation.generate", lambda *args, **options: pytest.fail("compiled again")
    )
    sharing.PROGRAMS.clear()
    for table, names in (
        (pyabi.ELEMENTS, ["bf16"]),
        (pyabi._OBJECTS, ["dflow_np_bfloat16", "dflow_np_bfloat16_descr"]),
    ):
        for name in names:  # as in a new process
            monkeypatch.delitem(table, name)
    again = pickle.loads(pickle.dumps(f))(*pickle.loads(pickle.dumps((X, B(3)))))
    for a, b in zip(again, wanted):
        np.testing.assert_array_equal(single(a), single(b))


def scaled(x, s):
    return x * s + np.array([0.1, 0.2] * 4, B), s * s


@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")
def test_a_library(tmp_path):
    path, header = dflow.compile_library(lambda x, s: (x * s, s), "bf16[3], bf16", tmp_path / "libb.so", name="scale")
    text = header.read_text()
    assert "typedef uint16_t dflow_bf16;" in text and "const dflow_bf16 *x" in text
    x, out, last = np.array([1, 2, 3], B), np.zeros(3, B), ctypes.c_uint16()
    scale = ctypes.CDLL(str(path)).scale
    assert not scale(
        ctypes.c_void_p(x.ctypes.data),
        ctypes.c_uint16(0x4000),
        ctypes.c_void_p(out.ctypes.data),
        ctypes.byref(last),
        None,
    )
    assert out.tolist() == [2.0, 4.0, 6.0] and last.value == 0x4000


def test_without_the_package(monkeypatch):
    plain = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "ml_dtypes":
            raise ImportError(name)
        return plain(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.delitem(types._NUMPY, "bf16")
    with pytest.raises(ImportError, match=r"pip install 'dflow\[bf16\]'"):
        _ = dnp.bfloat16
