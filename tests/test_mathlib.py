"""The inline math library against mpmath, in units in the last place, and against C99 at the edges."""

import ctypes
import functools
import math

import llvmlite.binding as llvm
import mpmath
import numpy as np
import pytest
from llvmlite import ir

from dflow.backends.mathlib import IN_HARDWARE, MATH_FUNCTIONS, WITHOUT_SINGLE, complete, math_function

INF, NAN = math.inf, math.nan
GPU = "nvptx64-nvidia-cuda"
TYPES = {"f64": (ir.DoubleType(), np.float64), "f32": (ir.FloatType(), np.float32)}

# The largest error allowed, in ulps, as (f64, f32).
BOUNDS = {
    "exp": (0.8, 0.8),
    "exp2": (0.8, 0.7),
    "expm1": (1.0, 1.0),
    "log": (1.0, 1.0),
    "log2": (1.5, 1.8),
    "log10": (2.0, 2.0),
    "log1p": (0.9, 0.9),
    "sin": (0.8, 1.5),
    "cos": (0.8, 1.5),
    "tan": (0.9, 1.8),
    "asin": (1.2, 1.2),
    "acos": (1.2, 1.2),
    "atan": (1.8, 1.8),
    "atan2": (1.8, 1.9),
    "sinh": (1.6, 1.7),
    "cosh": (1.2, 1.2),
    "tanh": (1.0, 2.0),
    "asinh": (1.6, 1.6),
    "acosh": (2.0, 2.2),
    "atanh": (1.8, 1.8),
    "pow": (1.0, 0.9),
    "cbrt": (0.6, 0.6),
    "hypot": (1.0, 0.8),
    "erf": (1.0, 1.0),
    "erfc": (4.0, 4.0),
    "tgamma": (1.0, 0.51),
    "lgamma": (4.0, 0.51),
    "digamma": (4.0, 0.51),
}


def add_loop(module: ir.Module, name: str, dtype: str) -> None:
    """void loop(n, out, in...): out[i] = name(in[i]...)."""
    llvm_type, _ = TYPES[dtype]
    pointer = llvm_type.as_pointer()
    signature = ir.FunctionType(ir.VoidType(), [ir.IntType(64)] + [pointer] * (1 + MATH_FUNCTIONS[name]))
    function = ir.Function(module, signature, f"loop.{name}.{dtype}")
    count, out, *inputs = function.args
    for array in (out, *inputs):
        array.add_attribute("noalias")
    entry, loop, done = (function.append_basic_block(block) for block in ("entry", "loop", "done"))
    builder = ir.IRBuilder(entry)
    builder.branch(loop)
    builder.position_at_end(loop)
    i = builder.phi(ir.IntType(64))
    values = [builder.load(builder.gep(array, [i])) for array in inputs]
    builder.store(builder.call(math_function(module, name, dtype), values), builder.gep(out, [i]))
    following = builder.add(i, ir.IntType(64)(1))
    i.add_incoming(ir.IntType(64)(0), entry)
    i.add_incoming(following, loop)
    builder.cbranch(builder.icmp_signed("<", following, count), loop, done)
    builder.position_at_end(done)
    builder.ret_void()


def target_machine():
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    features = llvm.get_host_cpu_features().flatten()
    target = llvm.Target.from_default_triple()
    return target.create_target_machine(cpu=llvm.get_host_cpu_name(), features=features, opt=3)


def optimised(name: str, dtype: str, triple: str = ""):
    module = ir.Module()
    module.triple = triple or module.triple  # the processor is this one all the same
    add_loop(module, name, dtype)
    complete(module)
    parsed = llvm.parse_assembly(str(module))
    parsed.verify()
    machine = target_machine()
    parsed.triple = machine.triple
    parsed.data_layout = str(machine.target_data)
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = options.slp_vectorization = True
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(parsed, builder)
    return parsed


@functools.cache
def compiled(name: str, dtype: str, triple: str = ""):
    """The function over arrays; the engine lives as long as the function."""
    engine = llvm.create_mcjit_compiler(optimised(name, dtype, triple), target_machine())
    engine.finalize_object()
    address = engine.get_function_address(f"loop.{name}.{dtype}")
    pointers = [ctypes.c_void_p] * (1 + MATH_FUNCTIONS[name])
    entry = ctypes.CFUNCTYPE(None, ctypes.c_int64, *pointers)(address)
    numpy_type = TYPES[dtype][1]

    def call(*inputs, engine=engine):
        arrays = [np.ascontiguousarray(x, numpy_type) for x in inputs]
        out = np.empty_like(arrays[0])
        entry(len(out), out.ctypes.data, *[x.ctypes.data for x in arrays])
        return out

    return call


def log_uniform(rng, low: float, high: float, n: int):
    return np.exp2(rng.uniform(low, high, n)) * rng.choice([-1.0, 1.0], n)


def samples(name: str, dtype: str, n: int):
    """Arguments over the whole range of the format and, more densely, where the function has its shape."""
    rng = np.random.default_rng(7)
    lowest, highest = (-1074, 1024) if dtype == "f64" else (-149, 128)
    exp_range = 746 if dtype == "f64" else 104
    wide = log_uniform(rng, lowest, highest, n)
    x = np.concatenate([wide, log_uniform(rng, -6, 6, n), log_uniform(rng, -3, 2, n)])
    near_one = 1 + log_uniform(rng, -40, -1, n)
    if name == "pow":
        base = np.abs(np.concatenate([x, near_one]))
        logs = np.log(base)
        return base, rng.uniform(-1, 1, base.size) * exp_range / np.where(logs == 0, 1e-9, logs)
    if MATH_FUNCTIONS[name] == 2:
        tiny = log_uniform(rng, lowest, lowest + 60, 2 * n)
        y = np.concatenate([log_uniform(rng, lowest, highest, n), log_uniform(rng, -6, 6, 2 * n), tiny[:n]])
        return np.concatenate([x, tiny[n:]]), y
    if name in ("exp", "exp2", "expm1", "sinh", "cosh"):
        return (np.concatenate([x, rng.uniform(-exp_range, exp_range, n)]),)
    if name in ("log", "log2", "log10"):
        return (np.abs(np.concatenate([x, near_one])),)
    if name == "log1p":
        return (x[x > -1],)
    if name == "acosh":
        x = np.abs(np.concatenate([x, near_one]))
        return (x[x >= 1],)
    if name in ("asin", "acos", "atanh"):
        return (np.concatenate([log_uniform(rng, lowest, -1, n), rng.uniform(-1, 1, n), near_one[near_one < 1]]),)
    if name in ("sin", "cos", "tan"):
        return (np.concatenate([x, np.rint(log_uniform(rng, 0, 40, n)) * (np.pi / 2)]),)
    if name in ("tgamma", "lgamma", "digamma"):
        # Between negative integers lgamma and digamma have zeros, beside which no bound in ulps holds.
        negative = rng.uniform(-12, 0, n) if name == "tgamma" else []
        near_zeros = [near_one, 1 + np.abs(near_one)]
        return (np.concatenate([np.abs(log_uniform(rng, -60, 7.4, n)), rng.uniform(0, 12, n), negative, *near_zeros]),)
    if name == "erfc":
        return (np.concatenate([log_uniform(rng, -60, 3, n), rng.uniform(-6, 28, n)]),)
    return (x,)


EXACT = {
    "log2": lambda x: mpmath.log(x) / mpmath.log(2),
    "exp2": lambda x: mpmath.power(2, x),
    "pow": mpmath.power,
    "cbrt": lambda x: mpmath.sign(x) * mpmath.cbrt(abs(x)),
    "hypot": lambda x, y: mpmath.sqrt(x * x + y * y),
    "tgamma": mpmath.gamma,
    "lgamma": lambda x: mpmath.log(abs(mpmath.gamma(x))),
}


def ulps(got: float, exact, dtype: str) -> float:
    """The error in units of the last place that the exact value would have."""
    digits, lowest, overflow = (53, -1074, 1024) if dtype == "f64" else (24, -149, 128)
    if math.isinf(got):
        limit = mpmath.mpf(2) ** overflow * (1 - mpmath.mpf(2) ** -(digits + 1))
        return 0.0 if abs(exact) >= limit and (exact > 0) == (got > 0) else INF
    if math.isnan(got) or exact == 0:
        return 0.0 if got == 0 else INF
    exponent = max(mpmath.frexp(exact)[1] - digits, lowest)
    return float(abs(mpmath.mpf(got) - exact) / mpmath.mpf(2) ** exponent)


def worst_error(name: str, dtype: str, n: int, triple: str = "") -> tuple[float, list[float]]:
    inputs = [x.astype(TYPES[dtype][1]) for x in samples(name, dtype, n)]
    results = compiled(name, dtype, triple)(*inputs)
    exact = EXACT.get(name) or getattr(mpmath, name)
    worst, where = 0.0, []
    with mpmath.workprec(250):
        for *arguments, got in zip(*inputs, results, strict=True):
            error = ulps(float(got), exact(*[mpmath.mpf(float(a)) for a in arguments]), dtype)
            if error > worst:
                worst, where = error, [float(a) for a in arguments]
    return worst, where


@pytest.mark.parametrize("dtype", ["f64", "f32"])
@pytest.mark.parametrize("name", BOUNDS)
def test_accuracy(name, dtype):
    with np.errstate(all="ignore"):
        worst, where = worst_error(name, dtype, 100)
    assert worst <= BOUNDS[name][dtype == "f32"], where


@pytest.mark.parametrize("name", sorted(BOUNDS.keys() - WITHOUT_SINGLE - IN_HARDWARE.keys()))
def test_accuracy_in_single_precision(name):
    """What a GPU computes for f32 by formulas."""
    with np.errstate(all="ignore"):
        worst, where = worst_error(name, "f32", 30, GPU)
    assert worst <= BOUNDS[name][1], where


@pytest.mark.parametrize("name", ["pow", "atan2", "hypot", "log1p", "expm1", "cbrt", "tan"])
def test_edges_in_single_precision(name):
    edges = [0.0, -0.0, 1.0, -1.0, 2.0, 3.0, 0.5, INF, -INF, NAN, 1e-45, -1e-45, 1e-38, 3e38, 1e5, 1e9]
    inputs = [np.array(edges, np.float32)]
    if MATH_FUNCTIONS[name] == 2:
        inputs = [x.ravel() for x in np.meshgrid(*inputs, *inputs)]
    with np.errstate(all="ignore"):
        expected = getattr(np, name)(*(x.astype(float) for x in inputs)).astype(np.float32)
    got = compiled(name, "f32", GPU)(*inputs)
    np.testing.assert_allclose(got, expected, rtol=3e-7, atol=2e-45)
    number = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(got)[number], np.signbit(expected)[number])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["f64", "f32"])
@pytest.mark.parametrize("name", BOUNDS)
def test_accuracy_on_many_samples(name, dtype):
    with np.errstate(all="ignore"):
        worst, where = worst_error(name, dtype, 5000)
    assert worst <= BOUNDS[name][dtype == "f32"], where


EDGES = [0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 3.0, -3.0, 0.5, -0.5, 2.5, INF, -INF, NAN, 5e-324, -5e-324, 1e-300, 1.7e308]
IN_NUMPY = sorted(name for name in MATH_FUNCTIONS if hasattr(np, name))


@pytest.mark.parametrize("name", IN_NUMPY)
def test_edges_as_in_numpy(name):
    """The same NaNs, infinities and signs of zero, and otherwise nearly the same numbers."""
    inputs = [np.array(EDGES)]
    if MATH_FUNCTIONS[name] == 2:
        inputs = [x.ravel() for x in np.meshgrid(EDGES, EDGES)]
    with np.errstate(all="ignore"):
        expected = getattr(np, name)(*inputs)
    got = compiled(name, "f64")(*inputs)
    np.testing.assert_allclose(got, expected, rtol=1e-15, atol=0)
    number = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(got)[number], np.signbit(expected)[number])


@pytest.mark.parametrize(
    ("name", "x", "expected"),
    [
        ("erf", [0.0, -0.0, INF, -INF, NAN], [0.0, -0.0, 1.0, -1.0, NAN]),
        ("erfc", [0.0, -0.0, INF, -INF, NAN, 30.0], [1.0, 1.0, 0.0, 2.0, NAN, 0.0]),
        ("tgamma", [0.0, -0.0, INF, -INF, NAN, -3.0, 5.0, 172.0, -200.5, -201.5],
         [INF, -INF, INF, NAN, NAN, NAN, 24.0, INF, -0.0, 0.0]),
        ("lgamma", [0.0, -0.0, INF, -INF, NAN, -3.0, 1.0, 2.0, 1e306], [INF, INF, INF, INF, NAN, INF, 0.0, 0.0, INF]),
        ("digamma", [0.0, -0.0, INF, NAN, -3.0], [-INF, INF, INF, NAN, NAN]),
    ],
)  # fmt: skip
def test_edges_of_special_functions(name, x, expected):
    got = compiled(name, "f64")(x)
    np.testing.assert_array_equal(got, expected)
    number = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(got)[number], np.signbit(expected)[number])


@pytest.mark.parametrize("name", ["lgamma", "digamma"])
def test_absolute_error_between_negative_integers(name):
    x = np.random.default_rng(3).uniform(-30, 0, 200)
    exact = EXACT.get(name) or getattr(mpmath, name)
    with mpmath.workprec(250):
        expected = np.array([float(exact(mpmath.mpf(v))) for v in x])
    np.testing.assert_allclose(compiled(name, "f64")(x), expected, rtol=2**-52, atol=2**-52)


@pytest.mark.parametrize("dtype", ["f64", "f32"])
def test_fmod_is_exact(dtype):
    inputs = [x.astype(TYPES[dtype][1]) for x in samples("fmod", dtype, 300)]
    inputs[1][inputs[1] == 0] = 1
    np.testing.assert_array_equal(compiled("fmod", dtype)(*inputs), np.fmod(*inputs))


@pytest.mark.parametrize("name", sorted(set(MATH_FUNCTIONS) - {"fmod"}))
def test_loops_vectorise(name):
    """A vector store in the optimised loop; on every host that has vectors of f64 at all."""
    assert "x double> " in next(line for line in str(optimised(name, "f64")).splitlines() if "store <" in line)


def test_one_definition_per_module():
    module = ir.Module()
    assert math_function(module, "exp", "f64") is math_function(module, "exp", "f64")
