"""Devices: what is said when there is none, when memory runs out, and when a kernel stops with a fault."""

import os
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from ptx.driver import FakeDriver
from ptx.snippets import kernel

import dflow
from dflow.backends.cuda.launch import driver
from dflow.backends.cuda.launch.driver import DeviceError, DeviceOutOfMemory, DeviceUnavailable, KernelFault
from dflow.backends.cuda.launch.memory import allocate
from dflow.backends.cuda.launch.runtime import Program
from dflow.backends.cuda.plan import Buffer, Launch, LaunchPlan, Pointer


def refused(match, **options):
    with FakeDriver(**options).installed():
        driver.forget()
        with pytest.raises(DeviceUnavailable, match=match):
            driver.device()
        assert not driver.available()
    driver.forget()


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", None)
    driver.forget()
    with pytest.raises(DeviceUnavailable, match=r"cuda\.bindings is not installed.*pip install 'dflow\[cuda\]'"):
        driver.device()
    driver.forget()


def test_no_driver_no_device_old_driver():
    refused("driver was not found.*libcuda", missing=True)
    refused("it sees no device.*CUDA_VISIBLE_DEVICES", devices=0)
    refused(r"too old: it supports CUDA 10\.2.*11\.2 or later", version=10020)


def test_a_device_that_is_not_there(fake):
    with pytest.raises(DeviceUnavailable, match="no device cuda:3: 1 device is there"):
        driver.device(3)
    assert driver.device().target == "sm_90"


def test_code_that_is_too_new_for_the_driver(fake):
    fake.version = 11020
    text = kernel("").replace(".version 7.0", ".version 8.4")
    with pytest.raises(DeviceError, match=r"PTX 8\.4 for sm_80; the device is sm_90, .* CUDA 11\.2"):
        driver.device().load(text)


@pytest.mark.parametrize("fake", [1 << 16], indirect=True)
def test_running_out_of_memory_frees_caches_first(fake):
    device = driver.device()
    big = allocate(device, 39 << 10)
    program = Program(plan(kernel(""), size=20 << 10), device)
    program.run({0: big.pointer}, {})  # keeps 20 KiB for its next run
    again = allocate(device, 20 << 10)
    with pytest.raises(DeviceOutOfMemory, match=r"20\.0 KiB were asked for, .* of 64\.0 KiB are free"):
        allocate(device, 20 << 10)
    del big, again
    assert allocate(device, 50 << 10).size == 50 << 10
    assert isinstance(DeviceOutOfMemory(""), MemoryError)


def test_memory_is_given_back(fake):
    device = driver.device()
    before = fake.heap.used
    made = allocate(device, 1000)
    assert fake.heap.used == before + 1000
    del made
    assert fake.heap.used == before


def growing(n):
    """A loop whose derivative keeps as many rows as it takes rounds."""

    def f(x):
        k = 0.0
        while k < n:
            x, k = np.sin(x), k + 1
        return np.sum(x)

    return f


@pytest.mark.parametrize("fake", [100 << 10], indirect=True)
def test_running_out_of_memory_in_the_middle_of_a_run(fake):
    """Everything goes back, and the same program runs when it needs less."""
    slope = dflow.jit(lambda x, n: dflow.grad(growing(n))(x), device="cuda")
    x = np.full(50, 0.5)
    wanted = slope(x, 5.0)
    used = fake.heap.used
    with pytest.raises(DeviceOutOfMemory, match="were asked for"):
        slope(x, 70.0)
    assert fake.heap.used <= used
    np.testing.assert_array_equal(slope(x, 5.0), wanted)


@pytest.mark.parametrize("fake", [9 << 16], indirect=True)
def test_tapes_grow_by_less_where_memory_is_short(fake):
    """There is room for the 95 rows of the longest lane, one for four rounds, not for four times the 64 at first."""

    def rounds(x):
        n = 0.0
        while x > 0.1:
            x, n = x * (1 - 0.025 * x), n + x * x
        return n

    slope, x = dflow.vmap(dflow.grad(rounds)), np.linspace(0.1, 2.0, 256)
    made, wanted = dflow.jit(slope, device="cuda"), dflow.jit(slope)(x)
    for _ in range(2):
        np.testing.assert_array_equal(made(x), wanted)
    assert fake.heap.used > 128 * 8 * 256  # the tape is kept for the next run


def test_threads_take_turns(fake):
    """One program and others, from several threads at once."""
    same = dflow.jit(lambda x: np.cumsum(x) * 2, device="cuda")

    def work(k):
        own = dflow.jit(lambda x: np.sum(x * k), device="cuda")
        x = np.arange(100.0) + k
        return [(same(x)[-1], own(x)) for _ in range(3)]

    with ThreadPoolExecutor(4) as pool:
        for k, results in enumerate(pool.map(work, range(4))):
            total = np.sum(np.arange(100.0) + k)
            np.testing.assert_allclose(results, [(2 * total, k * total)] * 3)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_is_told(fake):
    """What it inherits, and what it asks for anew."""
    run, there = dflow.jit(lambda x: x + 1, device="cuda"), dflow.device_put(np.ones(8))
    run(there)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        fake.fail("cuCtxSetCurrent", "CUDA_ERROR_NOT_INITIALIZED", 100)
        for call in (lambda: run(np.ones(8)), lambda: run(there), there.numpy, driver.device):
            try:
                call()
                os.write(writing, b"nothing raised\n")
            except DeviceUnavailable as e:
                os.write(writing, f"{e}\n".encode())
            except BaseException as e:
                os.write(writing, f"another error: {e!r}\n".encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading) as told:
        lines = told.read().splitlines()
    assert len(lines) == 4 and all("forked from one that had used CUDA" in line for line in lines), lines
    np.testing.assert_array_equal(np.asarray(run(there)), np.full(8, 2.0))


def plan(ptx, size=8):
    """A plan of one kernel that is passed its argument and some workspace."""
    buffers = (Buffer("argument", 64, 0), Buffer("workspace", size))
    return LaunchPlan("program", ptx, "sm_80", (), (), buffers, (Launch("k", 1, 1, (Pointer(0), Pointer(1))[:1]),))


def test_a_fault_loses_the_arrays_but_not_the_device(fake):
    fake.hardware_faults = True
    device = driver.device()
    memory = allocate(device, 64)
    program = Program(plan(kernel("st.global.b64 [%rd0+64], 1;")), device)
    program.run({0: memory.pointer}, {})
    with pytest.raises(KernelFault, match=r"illegal address.*arrays that were on the device are lost.*used again"):
        device.synchronize()
    with pytest.raises(DeviceError, match="this array was lost"):
        memory.check()
    memory = allocate(device, 64)
    program = Program(plan(kernel("st.global.b64 [%rd0+8], 1;")), device)
    program.run({0: memory.pointer}, {})
    device.synchronize()
    assert fake.heap.read(memory.pointer + 8, 8).view(np.int64) == 1


def test_a_fault_is_told_by_whatever_comes_next(fake):
    fake.hardware_faults = True
    device = driver.device()
    lost = dflow.device_put(np.ones(8))
    Program(plan(kernel("st.global.b64 [%rd0+4], 1;")), device).run({0: lost.pointer}, {})
    with pytest.raises(KernelFault, match="misaligned address"):
        dflow.device_put(np.ones(8))
    np.testing.assert_array_equal(dflow.device_put(np.ones(8)) + 1, np.full(8, 2.0))
    with pytest.raises(DeviceError, match="this array was lost"):
        lost.numpy()


def test_a_fault_that_cannot_be_recovered(fake):
    device = driver.device()
    fake.fail("cuStreamSynchronize", "CUDA_ERROR_LAUNCH_FAILED")
    fake.fail("cuDevicePrimaryCtxRetain", "CUDA_ERROR_INVALID_CONTEXT")
    with pytest.raises(KernelFault, match=r"launch failed.*cannot use the device any more"):
        device.synchronize()


def test_a_stream_outlives_a_fault(fake):
    """Its handle belongs to the context that is lost; and a reset may report the fault once more."""
    stream = dflow.Stream()
    run = dflow.jit(lambda x: x + 1, device="cuda")
    with stream:
        lost = run(dflow.device_put(np.ones(8)))
    fake.fail("cuStreamSynchronize", "CUDA_ERROR_LAUNCH_FAILED")
    fake.fail("cuDevicePrimaryCtxReset", "CUDA_ERROR_LAUNCH_FAILED")
    with pytest.raises(KernelFault, match="can be used again"):
        driver.device().synchronize()
    for use in (lost.copy, lost.numpy, lost.__dlpack__, lambda: run(lost), lambda: lost.order(1), lambda: lost.used(1)):
        with pytest.raises(DeviceError, match="this array was lost"):
            use()
    with stream:
        np.testing.assert_array_equal(run(np.ones(8)), np.full(8, 2.0))


def test_other_threads_have_no_context_of_their_own(fake):
    """What they use makes the device's current; what is given back there needs none."""
    x, programs = dflow.device_put(np.ones(8)), []

    def run():
        programs.append(dflow.jit(np.cumsum, device="cuda"))
        programs[0](x)

    stream = dflow.Stream()
    for use in (x.copy, lambda: x.order(stream.handle), stream.synchronize, run):
        with ThreadPoolExecutor(1) as pool:
            pool.submit(use).result()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(programs.clear).result()
    np.testing.assert_array_equal(x.numpy(), np.ones(8))


class Foreign:
    """An array of another library, in memory that is not ours."""

    def __init__(self, x, pointer=None):
        self.facts = {**x.__cuda_array_interface__, "data": (pointer or x.pointer, False)}

    __cuda_array_interface__ = property(lambda self: self.facts)


def test_memory_of_others_is_kept_while_it_is_used(fake):
    x, run = dflow.device_put(np.ones(8)), dflow.jit(lambda x: x * 2, device="cuda")
    fake.fail("cuEventQuery", "CUDA_ERROR_NOT_READY")
    given = Foreign(x)
    seen = weakref.ref(given)
    np.testing.assert_array_equal(run(given).numpy(), np.full(8, 2.0))
    del given
    assert seen() is not None  # the kernel may still run
    run(Foreign(x))
    assert seen() is None


def test_memory_of_others_that_lies_askew_is_refused(fake):
    x = dflow.device_put(np.ones(8))
    with pytest.raises(ValueError, match=r"float64 begins at the address 0x\w+, no multiple of 8; pass a copy"):
        dflow.jit(lambda x: x * 2, device="cuda")(Foreign(x, x.pointer + 4))


def test_a_device_that_reads_memory_of_the_host_is_waited_for(fake):
    """Else the host's array could be changed before it is copied."""
    fake.attributes["CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS_USES_HOST_PAGE_TABLES"] = 1
    driver.forget()
    kept = dflow.device_put(np.ones(8))
    assert fake.calls[-1] == "cuStreamSynchronize" and kept.shape == (8,)


def test_errors_of_the_driver_name_the_call(fake):
    device = driver.device()
    fake.fail("cuLaunchKernel", "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES")
    memory = allocate(device, 64)
    with pytest.raises(DeviceError, match="the kernel k: launch out of resources"):
        Program(plan(kernel("")), device).run({0: memory.pointer}, {})
