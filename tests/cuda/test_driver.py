"""Devices: what is said when there is none, when memory runs out, and when a kernel stops with a fault."""

import sys

import numpy as np
import pytest
from ptx.driver import FakeDriver
from ptx.snippets import kernel

from dflow.backends.cuda import driver
from dflow.backends.cuda.driver import DeviceError, DeviceOutOfMemory, DeviceUnavailable, KernelFault
from dflow.backends.cuda.memory import allocate
from dflow.backends.cuda.plan import Buffer, Launch, LaunchPlan, Pointer
from dflow.backends.cuda.runtime import Program


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


def test_a_fault_that_cannot_be_recovered(fake):
    device = driver.device()
    fake.fail("cuStreamSynchronize", "CUDA_ERROR_LAUNCH_FAILED")
    fake.fail("cuDevicePrimaryCtxReset", "CUDA_ERROR_INVALID_CONTEXT")
    with pytest.raises(KernelFault, match=r"launch failed.*cannot use the device any more"):
        device.synchronize()


def test_errors_of_the_driver_name_the_call(fake):
    device = driver.device()
    fake.fail("cuLaunchKernel", "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES")
    memory = allocate(device, 64)
    with pytest.raises(DeviceError, match="the kernel k: launch out of resources"):
        Program(plan(kernel("")), device).run({0: memory.pointer}, {})
