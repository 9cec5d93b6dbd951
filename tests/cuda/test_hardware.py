"""What a GPU does that an interpreter does not: blocks that run side by side, work that goes on after a call, graphs of
the driver, memory of more than 2^31 elements. The interpreter runs the same tests on small arrays."""

import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from on_device import numbers, settle
from ptx.snippets import kernel

import dflow
from dflow.backends.cuda.launch import driver
from dflow.backends.cuda.launch.driver import DeviceError, DeviceOutOfMemory, KernelFault
from dflow.backends.cuda.launch.memory import allocate
from dflow.backends.cuda.launch.runtime import Program
from dflow.backends.cuda.plan import Buffer, Launch, LaunchPlan, Pointer
from dflow.backends.cuda.planning import work


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Kernels of their own for small arrays too."""
    monkeypatch.setattr(work, "WIDE", 100)


def by_size(gpu, interpreted, real):
    return real if gpu is None else interpreted


def chain(x, n):
    for _ in range(n):
        x = np.cumsum(x) * 0.5 + np.mean(x)
    return x


def test_blocks_that_meet_do_so_in_every_run(gpu):
    """Sums that many blocks share are the same to the last bit, in launches and in replays, on several streams."""
    x = numbers(by_size(gpu, 5000, 3_000_000))
    f = dflow.jit(lambda x, y: (np.sum(np.sin(x)), np.max(x), np.sum(x * y), np.argmax(x)), device="cuda")
    on_device = dflow.device_put((x, x[::-1].copy()))
    wanted = [np.asarray(r) for r in f(*on_device)]
    np.testing.assert_allclose(wanted[0], np.sum(np.sin(x)))
    streams = [dflow.Stream() for _ in range(3)]
    for k in range(by_size(gpu, 4, 300)):
        with streams[k % 3]:
            found = f(*on_device)
        for got, w in zip(found, wanted):
            np.testing.assert_array_equal(np.asarray(got), w)


def test_one_program_on_several_streams_at_once(gpu):
    run, count = dflow.jit(chain, device="cuda"), by_size(gpu, 2, 50)
    xs = [numbers(by_size(gpu, 600, 200_000), seed=k) for k in range(3)]
    wanted = [np.asarray(run(dflow.device_put(x), 3)) for x in xs]

    def work(k):
        with dflow.Stream():
            x = dflow.device_put(xs[k])
            return [np.asarray(run(x, 3)) for _ in range(count)]

    with ThreadPoolExecutor(3) as pool:
        for found, w in zip(pool.map(work, range(3)), wanted):
            for got in found:
                np.testing.assert_array_equal(got, w)


def test_graphs_take_other_arguments(gpu):
    run, n = dflow.jit(chain, device="cuda"), by_size(gpu, 600, 100_000)
    kept = []
    for k in range(6):
        x = numbers(n, seed=k)
        kept.append((run(dflow.device_put(x), 2 + k % 2), chain(x, 2 + k % 2)))
    for got, wanted in kept:
        np.testing.assert_allclose(np.asarray(got), wanted)


def test_conditions_stay_on_the_device(gpu):
    n = by_size(gpu, 600, 60_000)
    run = dflow.jit(settle, device="cuda")
    for k in range(3):
        x = np.linspace(0.9, 1.1 + k / 10, n)
        wanted, rounds = settle(x, 0.55 * n)
        for _ in range(2):
            got, count = run(dflow.device_put(x), 0.55 * n)
            np.testing.assert_allclose(np.asarray(got), wanted)
            assert int(np.asarray(count)) == rounds


def test_arguments_may_change_as_soon_as_a_call_returns(gpu):
    """They have been copied by then."""
    n, run = by_size(gpu, 600, 4_000_000), dflow.jit(lambda x: x + 1, device="cuda")
    for k in range(by_size(gpu, 2, 20)):
        x = np.full(n, float(k))
        with dflow.default_device("cuda"):
            y = run(x)
        x[:] = -1
        np.testing.assert_array_equal(np.asarray(y), np.full(n, k + 1.0))


def test_memory_that_is_given_back_is_not_used_too_early(gpu):
    """Temporaries of several streams, whose memory the pool hands on at once."""
    n, run = by_size(gpu, 600, 1_000_000), dflow.jit(lambda x, k: x * 2 + k, device="cuda")
    x, streams = dflow.device_put(np.ones(n)), [dflow.Stream() for _ in range(3)]
    found = []
    for k in range(by_size(gpu, 6, 60)):
        with streams[k % 3]:
            y = run(run(x, k), k)
        found.append(run(y, 0))
        if k % 7 == 0:
            gc.collect()
    for k, y in enumerate(found):
        np.testing.assert_array_equal(np.asarray(y), np.full(n, 2 * (2 * (2 + k) + k)))


def test_lines_of_a_block_each(gpu):
    """What a thread of the block writes to memory, the others read."""

    def softmax(x):
        e = np.exp(x - np.max(x, axis=1)[:, None])
        return e / np.sum(e, axis=1)[:, None]

    x = numbers(*by_size(gpu, (4, 60), (3000, 5000)))
    made = dflow.jit(softmax, device="cuda")
    for _ in range(by_size(gpu, 1, 20)):
        np.testing.assert_allclose(np.asarray(made(x)), softmax(x))
    if gpu is None:
        assert [k.what for k in made.lower(x).launches().kernels] == ["lines"]


def test_tapes_that_many_lanes_lengthen(gpu):
    def rounds(x):
        n = 0.0
        while x > 0.1:
            x, n = x * (1 - 0.1 * x), n + x * x
        return n

    slope, x = dflow.vmap(dflow.grad(rounds)), np.linspace(0.1, 5.0, by_size(gpu, 70, 200_000))
    for _ in range(2):
        np.testing.assert_allclose(np.asarray(dflow.jit(slope, device="cuda")(x)), dflow.jit(slope)(x), rtol=1e-9)


def test_arrays_of_more_elements_than_32_bits_count(gpu):
    n = by_size(gpu, 5000, (1 << 31) + 5000)
    x = dflow.jit(lambda: np.arange(n) % 251 > 125, device="cuda")() if gpu is None else None
    x = dflow.device_put(np.arange(n) % 251 > 125) if x is None else x

    def f(x):
        y = x[::-1]
        return np.sum(x), y[:3], x[n - 4 :], np.sum(y[n - 100 :])

    f = dflow.jit(f, device="cuda")
    last = (np.arange(n - 4, n) % 251) > 125
    total, first, end, some = (np.asarray(r) for r in f(x))
    whole, rest = divmod(n, 251)
    assert total == 125 * whole + max(0, rest - 126)
    np.testing.assert_array_equal(first, last[::-1][:3])
    np.testing.assert_array_equal(end, last)
    assert some == 0


def test_other_libraries_share_memory(gpu):
    """No copy is made, and both see what the other has written."""
    if gpu is not None:
        pytest.skip("they need a GPU")
    torch = pytest.importorskip("torch")
    t = torch.arange(1000, dtype=torch.float64, device="cuda")
    run = dflow.jit(lambda x: x * 2, device="cuda")
    for given in (t, dflow.from_dlpack(t)):
        made = torch.from_dlpack(run(given))
        assert torch.equal(made, t * 2)
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        parts = [run(dflow.from_dlpack(t + k)) for k in range(50)]  # each tensor is let go of at once
    for k, part in enumerate(parts):
        np.testing.assert_array_equal(np.asarray(part), 2.0 * (np.arange(1000) + k))


def test_running_out_of_memory(gpu):
    device = driver.device()
    x = dflow.device_put(np.ones(100))
    with pytest.raises(DeviceOutOfMemory, match="were asked for"):
        allocate(device, 1 << 46)
    np.testing.assert_array_equal(np.asarray(x + 1), np.full(100, 2.0))


def test_a_failed_check_leaves_the_device_as_it_was(gpu):
    run, n = dflow.jit(lambda x, i: np.cumsum(x[i]), device="cuda"), by_size(gpu, 600, 300_000)
    x, i = numbers(100), np.arange(n) % 100
    for _ in range(3):
        i[n // 2] = 100
        with pytest.raises(IndexError, match="index 100 is out of bounds"):
            run(x, i)
        i[n // 2] = 0
        np.testing.assert_allclose(run(x, i), np.cumsum(x[i]))


def test_a_timeline(gpu):
    run, x = dflow.jit(chain, device="cuda"), dflow.device_put(np.ones(by_size(gpu, 600, 100_000)))
    with dflow.debug.timeline() as t:
        run(x, 2)
    assert len(t.launches) >= 4 and all(a.end >= a.start for a in t.launches)


def test_programs_end_in_any_thread(gpu):
    """What is collected there is given back, and the thread has no context."""
    made = [dflow.jit(chain, device="cuda")]
    x = dflow.device_put(np.ones(by_size(gpu, 600, 100_000)))
    for _ in range(3):
        made[0](x, 2)
    thread = threading.Thread(target=lambda: (made.clear(), gc.collect()))
    thread.start()
    thread.join()
    np.testing.assert_array_equal(np.asarray(x + 1)[:2], [2.0, 2.0])


def test_z_a_fault_loses_the_arrays_but_not_the_device(gpu):
    """The last, for it may take the device away from this process."""
    if gpu is not None:
        gpu.hardware_faults = True
    device, x = driver.device(), dflow.device_put(np.ones(8))
    buffers, ptx = (Buffer("argument", 64, 0),), kernel("mov.b64 %rd0, 64; st.global.b64 [%rd0], 1;")
    plan = LaunchPlan("broken", ptx, "sm_80", (), (), buffers, (Launch("k", 1, 1, (Pointer(0),)),))
    Program(plan, device).run({0: x.pointer}, {})
    with pytest.raises(KernelFault, match=r"are lost; the device can be used again"):
        device.synchronize()
    with pytest.raises(DeviceError, match="this array was lost"):
        x.numpy()
    np.testing.assert_allclose(dflow.jit(chain, device="cuda")(np.ones(600), 2), chain(np.ones(600), 2))
