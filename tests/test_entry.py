"""Native entry points: every kind of leaf, all ways off the fast path, reference counts, and the callable type."""

import contextlib
import gc
import itertools
import pickle
import sys
import threading
import tracemalloc

import llvmlite.binding as llvm
import numpy as np
import pytest
from llvmlite import ir
from native_probe import (
    BOOL,
    FLOAT,
    I32,
    INT,
    PTR,
    Probe,
    compile_module,
    compiled,
    copy_kernel,
    identity,
    same,
    went_slow,
)

import dflow
from dflow.backends.native import entry, pyabi, trampoline
from dflow.backends.native.callable import NativeCallable
from dflow.backends.native.entry import EntrySpec, Leaf, add_entry

ELEMENTS = list(dict.fromkeys([*pyabi.ELEMENTS, "bf16"]))
NUMERIC = [name for name in ELEMENTS if entry.passes(name)]

pytestmark = pytest.mark.skipif(not entry.available(), reason="this interpreter's layouts are not known")


def test_layouts_are_known_here():
    assert pyabi.available()
    assert "numpy2" in pyabi.abi_key()


# --- leaves


@pytest.mark.parametrize("z", [1 - 2j, complex("nan"), np.complex128(3j), np.array(2 + 1j)], ids=repr)
def test_complex_numbers(z):
    got = compiled(identity(Leaf("c128", python=type(z) is complex)))(z)
    assert type(got) is np.complex128 and np.array_equal(got, z, equal_nan=True)


@pytest.mark.parametrize("x", [0.0, -0.0, 1.5, 1e308, float("inf")])
def test_python_float(x):
    got = compiled(identity(FLOAT))(x)
    assert type(got) is float and str(got) == str(x)


@pytest.mark.parametrize("n", [0, 1, -1, 2**30 - 1, 2**30, 1 - 2**30, -(2**30), 2**60 + 7, 2**63 - 1, -(2**63)])
def test_python_int(n):
    got = compiled(identity(INT))(n)
    assert type(got) is int and got == n


@pytest.mark.parametrize("n", [2**63, -(2**63) - 1, 2**200])
def test_int_beyond_64_bits_falls_back(n):
    assert went_slow(compiled(identity(INT))(n))


def test_python_bool():
    f = compiled(identity(BOOL))
    assert f(True) is True and f(False) is False


@pytest.mark.parametrize("dtype", NUMERIC)
def test_numpy_scalar_and_rank_0_array(dtype):
    f, scalar = compiled(identity(Leaf(dtype))), pyabi.ELEMENTS[dtype].scalar
    for value in (0, 1, 100):
        assert same(f(scalar(value)), scalar(value))
        assert same(f(np.array(value, scalar)), scalar(value))


@pytest.mark.parametrize("dtype", ELEMENTS)
@pytest.mark.parametrize("shape", [(3,), (2, 3), (0,), (2, 1, 2)])
def test_array(dtype, shape):
    x = (np.arange(np.prod(shape)).reshape(shape) % 2).astype(pyabi.ELEMENTS[dtype].scalar)
    got = compiled(identity(Leaf(dtype, shape)))(x)
    assert same(got, x) and got is not x
    assert got.flags.owndata and got.flags.writeable and got.flags.c_contiguous


def test_bool_views_of_other_bytes_are_normalised():
    twos = np.full((), 2, np.uint8).view(np.bool_)
    assert compiled(identity(Leaf("bool")))(twos) is np.True_


def test_unpickled_array_is_taken():
    """It carries a copy of the built-in dtype."""
    x = pickle.loads(pickle.dumps(np.arange(3.0)))
    assert x.dtype is not np.dtype(float)
    assert same(compiled(identity(Leaf("f64", (3,))))(x), np.arange(3.0))


def test_results_as_tuple_single_and_none():
    x = np.arange(3.0)
    got = compiled(identity(Leaf("f64", (3,)), FLOAT, Leaf("i32"), single=False))(x, 2.0, np.int32(3))
    assert type(got) is tuple and same(got[0], x) and got[1:] == (2.0, 3) and type(got[2]) is np.int32
    assert compiled(identity(FLOAT, single=False))(2.0) == (2.0,)
    assert compiled(EntrySpec((FLOAT,), ()))(2.0) is None
    assert compiled(EntrySpec((), ()))() is None


@pytest.mark.parametrize("dtype", ["f64", "i8"])
def test_results_are_cut_to_sizes_among_them(dtype):
    given = Leaf(dtype, (4, 5, 2))
    spec = EntrySpec(
        (given, INT, INT), (given, Leaf("i64"), Leaf("i64")), single=True, cuts=((0, (1, 2, None)),), hidden=(1, 2)
    )
    f, x = compiled(spec), np.arange(40).reshape(4, 5, 2).astype(pyabi.ELEMENTS[dtype].scalar)
    for n, m in itertools.product((4, 3, 1, 0), (5, 2, 0)):
        got = f(x, n, m)
        assert same(got, x[:n, :m])
        assert got.flags.owndata and got.flags.writeable and got.flags.c_contiguous


def test_many_results_of_a_kind():
    row, pair = np.arange(2.0), np.complex64(1 - 2j)
    args = [*map(float, range(9)), row, *range(10), *[True, False] * 5, *[pair + k for k in range(9)], *[row] * 9]
    kinds = {float: FLOAT, int: INT, bool: BOOL, np.complex64: Leaf("c64"), np.ndarray: Leaf("f64", (2,))}
    got = compiled(identity(*(kinds[type(x)] for x in args), single=False))(*args)
    assert all(type(x) is type(y) and np.array_equal(x, y) for x, y in zip(got, args, strict=True))


# --- mismatches


class Float(float):
    pass


@pytest.mark.parametrize("x", [1, True, None, np.float64(1.0), Float(1.0), "1.0", np.array(1.0)])
def test_not_exactly_a_python_float(x):
    assert compiled(identity(FLOAT))(x) == ("slow", (x,), {})


@pytest.mark.parametrize("x", [1.0, True, np.int64(1)])
def test_not_exactly_a_python_int(x):
    assert went_slow(compiled(identity(INT))(x))


@pytest.mark.parametrize("x", [1.0, 1, np.float32(1), np.array(1, np.float32), np.ones(1), np.array(1.0, ">f8")])
def test_not_a_float64_scalar(x):
    assert went_slow(compiled(identity(Leaf("f64")))(x))


class Array(np.ndarray):
    pass


def misaligned():
    return np.zeros(25, np.uint8)[1:].view(np.float64)


@pytest.mark.parametrize(
    "x",
    [
        np.zeros(6)[::2],
        np.zeros(4),
        np.zeros((3, 1)),
        np.array(0.0),
        np.zeros(3, np.float32),
        np.zeros(3, np.int64),
        np.zeros(3, ">f8"),
        np.zeros(3).view(Array),
        misaligned(),
        [0.0, 0.0, 0.0],
        None,
    ],
)
def test_not_such_an_array(x):
    assert went_slow(compiled(identity(Leaf("f64", (3,))))(x))


def test_transposed_array_falls_back():
    assert went_slow(compiled(identity(Leaf("f64", (3, 3))))(np.zeros((3, 3)).T))


def test_wrong_count_and_keywords():
    f = compiled(identity(FLOAT))
    assert f() == ("slow", (), {})
    assert f(1.0, 2.0) == ("slow", (1.0, 2.0), {})
    assert f(x=1.0) == ("slow", (), {"x": 1.0})
    assert f(1.0, *[2.0], k=3, **{"m": 4}) == ("slow", (1.0, 2.0), {"k": 3, "m": 4})
    assert f(*[1.0], **{}) == 1.0


def test_exception_of_the_fallback_passes():
    class Raising(Probe):
        def _fallback(self, *args, **kwargs):
            raise KeyError("no")

    with pytest.raises(KeyError):
        Raising()(1.0)


def test_entries_are_tried_in_turn():
    x = np.arange(3.0)
    f = compiled(*(identity(leaf) for leaf in (FLOAT, Leaf("f64", (3,)), INT, Leaf("f64", (3,), False), BOOL)))
    for _ in range(3):
        assert f(2.0) == 2.0 and same(f(x), x) and f(5) == 5 and f(True) is True
        assert went_slow(f("text")) and went_slow(f(1.0, 2.0))


def test_entries_can_be_replaced_and_taken_out():
    f, g = compiled(identity(FLOAT)), compiled(identity(INT))
    fields = trampoline.Fields.from_address(id(g) + pyabi.HEAD_SIZE)
    f._set_entries([fields.entries[0]] * 3, keep=g)
    assert f(3) == 3 and went_slow(f(3.0))
    f._set_entry(None)
    assert went_slow(f(3))


# --- errors


def test_kernel_error_reaches_the_hook():
    x = np.arange(3.0)
    f = compiled(identity(Leaf("f64", (3,)), FLOAT, single=False), status=7)
    before = sys.getrefcount(x)
    with pytest.raises(ArithmeticError) as caught:
        f(x, 2.5)
    address, status, record, args = caught.value.args
    assert address == trampoline.Fields.from_address(id(f) + pyabi.HEAD_SIZE).entries[0]
    assert status == 7 and record == (7, 20, -30, 40)
    assert args[0] is x and args[1] == 2.5
    del caught, args
    gc.collect()
    assert sys.getrefcount(x) == before


def test_error_hook_may_return_a_value():
    f = compiled(identity(FLOAT, release_gil=True), status=3)
    f._on_error = lambda entry, status, record, args: (status, args)
    assert f(1.0) == (3, (1.0,))


def test_default_hooks():
    with pytest.raises(NotImplementedError, match="NativeCallable defines no _fallback"):
        NativeCallable()(1.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Leaf("f80"), "no element type"),
        (lambda: Leaf("f32", (), True), "a Python object has rank 0"),
        (lambda: Leaf("f64", (2,), True), "a Python object has rank 0"),
        (lambda: EntrySpec((), (), single=True), "single result"),
    ],
)
def test_specs_that_make_no_sense(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_kernel_must_fit_its_spec():
    module = ir.Module()
    kernel = copy_kernel(module, "kernel", identity(FLOAT))
    with pytest.raises(TypeError, match="but its spec wants"):
        add_entry(module, kernel, identity(INT), "entry")


# --- references and memory


def test_arguments_and_results_have_the_right_reference_counts():
    x, s = np.arange(3.0), np.float64(1e9)
    f = compiled(identity(Leaf("f64", (3,)), Leaf("f64"), FLOAT, BOOL, Leaf("bool"), single=False))
    args = (x, s, 1e9, True, np.False_)
    watched = [*args, np.dtype(float), np.ndarray, np.float64]
    before = [sys.getrefcount(w) for w in watched]
    got = f(*args)
    fresh = float("1e9"), np.float64(5.0)  # what a new object counts
    assert [sys.getrefcount(got[i]) for i in (0, 1, 2)] == [sys.getrefcount(fresh[1])] * 3
    del got
    for _ in range(50):
        f(*args), f(x), f(*args, k=1)
    assert [sys.getrefcount(w) for w in watched] == before


def test_no_memory_for_a_result():
    """What was allocated before is given back, and the kernel is not called."""
    spec = EntrySpec((FLOAT,), (Leaf("f64", (3,)), Leaf("f32", (2**50,)), FLOAT))
    module = ir.Module()
    kernel = ir.Function(module, ir.FunctionType(I32, [ir.DoubleType(), *[PTR] * 4]), "kernel")
    ir.IRBuilder(kernel.append_basic_block()).unreachable()
    add_entry(module, kernel, spec, "entry")
    engine, f = compile_module(module), Probe()
    f._set_entry(engine.get_function_address("entry"), keep=engine)
    before = sys.getrefcount(np.dtype("f8")), sys.getrefcount(np.dtype("f4"))
    with pytest.raises(MemoryError):
        f(1.0)
    assert (sys.getrefcount(np.dtype("f8")), sys.getrefcount(np.dtype("f4"))) == before


@pytest.mark.parametrize("status", [0, 7])
def test_calls_do_not_leak(status):
    f = compiled(identity(Leaf("f64", (64,)), Leaf("f32"), INT, single=False, release_gil=True), status=status)
    args = (np.zeros(64), np.float32(1), 2**40)

    def calls():
        for _ in range(2000):
            with contextlib.suppress(ArithmeticError):
                f(*args)
            f(None), f(*args, key=1)

    calls()
    gc.collect()
    tracemalloc.start()
    try:
        calls()
        gc.collect()
        start = tracemalloc.get_traced_memory()[0]
        for _ in range(3):
            calls()
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - start
    finally:
        tracemalloc.stop()
    assert grown < 20_000  # free lists fill up by some kB; one leaked object a call would be ten times that at least


def test_threads():
    f = compiled(identity(Leaf("f64", (100,)), FLOAT, single=False, release_gil=True), identity(INT))
    wrong = []

    def work(k):
        x = np.full(100, float(k))
        for i in range(2000):
            y, z = f(x, float(k))
            if y[-1] != k or z != k or f(i) != i or not went_slow(f("x")):
                wrong.append((k, i))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


# --- the callable type


def test_works_linked_by_orc():
    """With the small code model and position-independent code, as an object from a cache would have."""
    spec = identity(Leaf("f64", (3,)), INT, single=False)
    module = ir.Module()
    add_entry(module, copy_kernel(module, "kernel", spec), spec, "entry")
    machine = llvm.Target.from_default_triple().create_target_machine(reloc="pic", codemodel="small")
    code = machine.emit_object(llvm.parse_assembly(str(module)))
    jit = llvm.create_lljit_compiler(llvm.Target.from_default_triple().create_target_machine(jit=True))
    library = llvm.JITLibraryBuilder().add_object_img(code).export_symbol("entry")
    for name, address in entry.symbols().items():
        library.import_symbol(name, address)
    tracker = library.link(jit, "entry_test")
    f = Probe()
    f._set_entry(tracker["entry"], keep=(jit, tracker))
    x = np.arange(3.0)
    got = f(x, 2**40)
    assert same(got[0], x) and got[1] == 2**40 and went_slow(f(x, 1.0))


def test_a_called_program_keeps_only_what_it_needs():
    f = dflow.jit(lambda x: np.sum(np.sin(x) * x) + 0.125)
    x = np.ones(3)
    wanted = f(x)
    (runner,) = f._programs.values()
    made, stages = runner.executable.compiled, runner.executable.stages
    assert "_generated" not in vars(made) and not {"optimized", "plan"} & vars(stages).keys()
    assert "sin" in str(stages.optimized) and "@dflow_program(" in made.llvm  # made again
    assert f(x) == wanted
