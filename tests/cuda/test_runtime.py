"""Plans made by hand, run step by step: loops and branches of the host, sequences, errors, graphs."""

import numpy as np
import pytest
from ptx.machine import Machine
from ptx.snippets import kernel

import dflow
from dflow.backends.cuda.launch import driver
from dflow.backends.cuda.launch.memory import allocate
from dflow.backends.cuda.launch.runtime import Program
from dflow.backends.cuda.plan import (
    Buffer,
    Counter,
    HostCall,
    If,
    Launch,
    LaunchPlan,
    Loop,
    Place,
    Pointer,
    Read,
    Rows,
    Scalar,
    While,
)
from dflow.backends.interface import Check
from dflow.ir.builder import Builder
from dflow.ir.types import BOOL, F64, I64, TensorType

# Adds its second parameter (a number, behind the address) to the first; k2 adds the number itself.
ADD = kernel(
    "ld.global.b64 %rd3, [%rd0]; add.s64 %rd3, %rd3, %rd1; st.global.b64 [%rd0], %rd3;"
    "setp.lt.s64 %p0, %rd3, 10; selp.b16 %rs0, 1, 0, %p0; st.global.b8 [%rd0+8], %rs0;",
    2,
)
TOTAL = Pointer(0)


def launch(*args, kernel="k"):
    return Launch(kernel, 1, 1, args)


def execute(steps, total=0, scalars=None, ptx=ADD, buffers=(), checks=(), times=1):
    """The argument (two int64) after running steps on it."""
    device = driver.device()
    memory = allocate(device, 16)
    given = np.array([total, total < 10], np.int64)
    all_buffers = (Buffer("argument", 16, 0, writable=True), *buffers)
    program = Program(LaunchPlan("program", ptx, "sm_80", (), (), all_buffers, tuple(steps), tuple(checks)), device)
    scalars = {k: np.int64(v).tobytes() for k, v in (scalars or {}).items()}
    out = np.zeros(2, np.int64)
    for _ in range(times):
        device.driver.call("cuMemcpyHtoDAsync", memory.pointer, given.ctypes.data, 16, device.stream)
        program.run({0: memory.pointer}, scalars).check()
        device.driver.call("cuMemcpyDtoHAsync", out.ctypes.data, memory.pointer, 16, device.stream)
    device.synchronize()
    return out[0]


def test_loops_and_counters(gpu):
    inner = Loop(1, Counter(0), (launch(TOTAL, Counter(1)),))
    assert execute([Loop(0, 4, (inner, launch(TOTAL, Counter(0))))]) == 0 + 0 + 1 + 0 + 1 + 3 - 1 + 6
    assert execute([Loop(0, Scalar(3, I64), (launch(TOTAL, Scalar(5, I64)),))], scalars={3: 4, 5: 2}) == 8
    assert execute([Loop(0, Read(0, 0, I64), (launch(TOTAL, Counter(0)),))], total=3) == 6
    assert execute([Loop(0, -2, (launch(TOTAL, Counter(0)),))], total=3) == 3


def test_conditions_of_the_host(gpu):
    add = launch(TOTAL, Scalar(1, I64))
    assert execute([While((), Read(0, 8, BOOL), (add,))], total=1, scalars={1: 4}) == 13
    both = If(Read(0, 8, BOOL), (add,), (add, add))
    assert execute([both], total=1, scalars={1: 4}) == 5
    assert execute([both], total=11, scalars={1: 4}) == 19
    assert execute([If(Scalar(1, I64), (add,), ())], scalars={1: 4}) == 4


def test_what_the_host_computes(gpu):
    b = Builder([TensorType(I64, (2,))])
    f = b.function("double", [b.emit("add", b.args[0], b.args[0])])
    place = Place(0, 0, TensorType(I64, (2,)))
    assert execute([HostCall(f, (place,), (place,)), launch(TOTAL, Scalar(1, I64))], total=5, scalars={1: 3}) == 13


def test_a_run_is_recorded_the_second_time(gpu):
    if gpu is None:
        pytest.skip("the calls are seen in the fake driver only")
    del gpu.calls[:]
    assert execute([launch(TOTAL, Scalar(1, I64))] * 3, scalars={1: 2}, times=5) == 6
    count = gpu.calls.count
    assert (count("cuLaunchKernel"), count("cuGraphInstantiate"), count("cuGraphLaunch")) == (3, 1, 4)
    assert count("cuGraphExecDestroy") == count("cuModuleUnload") == 1  # with the program
    assert execute([launch(TOTAL, Scalar(1, I64))], scalars={1: 2}, times=5) == 2
    assert count("cuGraphInstantiate") == 1


def test_a_timeline_lists_the_launches(gpu):
    with dflow.debug.timeline() as t:
        execute([launch(TOTAL, Scalar(1, I64))] * 3, scalars={1: 2}, times=3)
    assert [x.kernel for x in t.launches] == ["k"] * 9
    assert all(0 <= x.start <= x.end for x in t.launches)
    assert "in 9 launches of k" in str(t)


FAILING = kernel("st.global.b64 [%rd1], 1; st.global.b64 [%rd1+8], 7;", 2)


def test_checks_are_raised_when_somebody_looks(gpu):
    device = driver.device()
    check = Check("ValueError", "got {0}", None)
    steps = (launch(TOTAL, Pointer(1)),)
    buffers = (Buffer("argument", 16, 0), Buffer("error", 32))
    program = Program(LaunchPlan("program", FAILING, "sm_80", (), (), buffers, steps, (check,)), device)
    memory = allocate(device, 16)
    run = program.run({0: memory.pointer}, {})
    other = program.run({0: memory.pointer}, {})
    for each in (run, run, other):
        with pytest.raises(ValueError, match="got 7"):
            each.check()


# Fills as many rows as its third parameter says, or asks for them; the last row is then added to the argument.
GROWING = kernel(
    """
    setp.gt.s64 %p0, %rd3, %rd4;
    @!%p0 bra $fits;
    st.global.b64 [%rd2], -2;
    st.global.b64 [%rd2+8], %rd3;
    ret;
$fits:
    mad.lo.s64 %rd5, %rd3, 8, %rd1;
    st.global.b64 [%rd5+-8], %rd3;
    ld.global.b64 %rd6, [%rd5+-8];
    ld.global.b64 %rd7, [%rd0];
    add.s64 %rd7, %rd7, %rd6;
    st.global.b64 [%rd0], %rd7;
    """,
    5,
)


def test_sequences_grow_and_the_run_begins_anew(gpu):
    buffers = (Buffer("sequence", 8, rows=4), Buffer("error", 32))
    grow = launch(TOTAL, Pointer(1), Pointer(2), Scalar(1, I64), Rows(1))
    first = launch(TOTAL, Pointer(1), Pointer(2), Scalar(2, I64), Rows(1))
    if gpu is not None:
        gpu.calls.clear()
    assert execute([first, grow], total=1, scalars={1: 100, 2: 3}, ptx=GROWING, buffers=buffers, times=4) == 104
    assert gpu is None or gpu.calls.count("cuGraphLaunch") == 3  # not while the sequence was too short


def test_constants_and_offsets(gpu):
    data = np.array([5.0, 6.0]).tobytes()
    text = kernel("ld.global.b64 %rd3, [%rd1]; st.global.b64 [%rd0], %rd3;", 2)
    got = execute([launch(TOTAL, Pointer(1, 8))], ptx=text, buffers=[Buffer("constant", 16, data=data)])
    assert got == np.float64(6).view(np.int64)
    assert F64.itemsize == 8


@pytest.mark.parametrize(("registers", "size"), [(32, 256), (168, 128)])
def test_blocks_are_as_large_as_does_most_good(fake, registers, size, monkeypatch):
    fake.registers = registers
    on_device = dflow.jit(lambda x: x * 2, device="cuda")
    x, sizes = np.arange(5000.0), []
    launch = Machine.launch
    monkeypatch.setattr(Machine, "launch", lambda *args: (sizes.append(args[2:4]), launch(*args)))
    np.testing.assert_array_equal(on_device(x), 2 * x)
    ((grid, block),) = sizes
    assert block[0] == size and grid[0] * block[0] == 5120


def test_blocks_are_those_of_the_plan_when_the_driver_does_not_say(fake):
    fake.registers = 168
    fake.fail("cuOccupancyMaxActiveBlocksPerMultiprocessor", "CUDA_ERROR_INVALID_VALUE")
    np.testing.assert_array_equal(dflow.jit(lambda x: x * 3, device="cuda")(np.ones(5000)), 3)
