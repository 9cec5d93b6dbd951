"""Large loops in parts, and the pool of threads that they run on."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

import dflow
from dflow.backends.emit import parts as emit_parts
from dflow.backends.native import engine, thread_pool, threads

COUNTS = (1, 2, 3, 5)
random = np.random.default_rng(0).normal


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    """Small loops are cut too, and the number of threads stays as it was."""
    for name, value in {"LEAST": 256, "GRAIN": 32, "MANY": 4, "ALIGNED": 4, "WIDE": 8}.items():
        monkeypatch.setattr(emit_parts, name, value)
    monkeypatch.setenv("DFLOW_CACHE", "off")
    before = threads.threads()
    yield
    threads.set_threads(before)


# --- programs


def tall(x):
    return x.reshape(-1, 4).sum(0)


def stencil(x):
    return ((x[2:] - 2 * x[1:-1] + x[:-2]) ** 2).sum()


def rows(x):
    total = np.zeros(x.shape)
    for k in range(3):
        total[k:] += np.tanh(x[: len(x) - k] * k)
    return total


def added(x):
    total = np.ones((7, 3))
    np.add.at(total, np.arange(len(x)) * 5 % 7, x)
    return total


PROGRAMS = {
    "elements": (lambda x, y: np.exp(x) * y + x, (1003,), (1003,)),
    "in two axes": (lambda x, y: x + y.T, (40, 30), (30, 40)),
    "transposed": (lambda x, y: np.sin(x.T) + y, (130, 200), (200, 130)),
    "sum": (lambda x: (x * x).sum(), (1003,)),
    "two results": (lambda x: (x.max(), x.min(), (x * x).sum()), (1003,)),
    "sums of rows": (lambda x: (x * x).sum(1), (60, 30)),
    "sums of columns": (lambda x: (x * x).sum(0), (60, 30)),
    "sums of long columns": (tall, (1200,)),
    "any": (lambda x: (x > 2.5).any(), (1003,)),
    "position": (lambda x: x.argmax(1), (60, 30)),
    "position in a vector": (lambda x: x.argmin(), (1003,)),
    "counts": (lambda x: np.bincount((x * x).astype(int), minlength=40), (1003,)),
    "added rows": (added, (400, 3)),
    "decompositions": (lambda x: np.linalg.slogdet(x), (300, 3, 3)),
    "product with a vector": (lambda x, y: x @ y, (60, 30), (30,)),
    "small matrices": (lambda x: x @ x, (20, 5, 5)),
    "joined": (lambda x, y: np.concatenate([x, y, x]), (500,), (503,)),
    "updates": (rows, (700,)),
    "windows": (dflow.grad(stencil), (1003,)),
    "windows in two axes": (dflow.grad(stencil), (50, 20)),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_results_do_not_depend_on_the_number_of_threads(name):
    f, *shapes = PROGRAMS[name]
    args = [random(size=s) for s in shapes]
    compiled = dflow.jit(f)
    assert "@dflow_parallel(" in compiled.lower(*args).llvm()
    found = []
    for count in COUNTS:
        threads.set_threads(count)
        found.append(compiled(*args))
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])
    np.testing.assert_allclose(found[0], f(*args), 1e-12, 1e-12)


@pytest.mark.parametrize("n", [0, 1, 7, 50])
def test_sizes_known_when_it_runs(n):
    @dflow.jit
    def f(x, n):
        part = x[:n]
        return (part * part).sum(), (part * part).sum(1).sum(), part.sum(0).sum()

    x = random(size=(50, 40))
    expected = ((x[:n] ** 2).sum(), (x[:n] ** 2).sum(), x[:n].sum())
    threads.set_threads(3)
    np.testing.assert_allclose(f(x, n), expected, 1e-12, 1e-12)


def test_rows_of_tapes():
    """Of a sequence the row that a loop reads is known before it is cut."""

    def f(x, n):
        y = x
        for _ in range(n):
            y = np.sin(y) * x
        return y.sum()

    x = random(size=1003)
    gradient = dflow.grad(f)
    threads.set_threads(3)
    np.testing.assert_allclose(gradient(x, 3) @ x, dflow.jvp(f, (x, 3), (x, 0))[1], 1e-12)
    assert gradient.lower(x, 3).llvm().count("@dflow_parallel(") > 1


def test_small_loops_are_not_cut():
    assert "dflow_parallel" not in dflow.jit(np.exp).lower(np.ones(6)).llvm()


def test_libraries_need_no_threads(tmp_path):
    path = tmp_path / "lib.ll"
    dflow.compile_library(PROGRAMS["sum"][0], "f64[1003]", path, name="total", emit="llvm")
    assert "dflow_parallel" not in path.read_text()


# --- the pool

Body = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)
Parallel = ctypes.CFUNCTYPE(None, Body, ctypes.c_void_p, ctypes.c_int64)


def parallel():
    return Parallel(engine._pool()["dflow_parallel"])


def test_every_part_runs_once():
    threads.set_threads(3)
    counts = np.zeros(100, int)

    def part(_context, k):
        counts[k] += 1

    for _ in range(50):
        parallel()(Body(part), None, len(counts))
    assert (counts == 50).all()


def test_parts_run_at_once():
    """Wherever the system wakes a worker."""
    names = (thread_pool.SYMBOL, thread_pool.LIMIT)
    found = engine.load_for_good("workers anywhere", lambda: (thread_pool.text(tells_core=False), names), {})
    ctypes.c_int32.from_address(found[thread_pool.LIMIT]).value = 2
    both, met = threading.Barrier(2), []

    def part(_context, k):
        both.wait(60)
        met.append(threading.get_ident())

    for _ in range(20):
        Parallel(found[thread_pool.SYMBOL])(Body(part), None, 2)
    assert len(met) == 40
    assert len(set(met)) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="this system does not say where a thread is")
def test_workers_leave_the_core_of_the_caller_alone():
    threads.set_threads(3)
    pid = os.fork()
    if not pid:
        os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1])
        seen = set()
        for _ in range(20):
            parallel()(Body(lambda _context, k: seen.add(threading.get_ident())), None, 9)
        os._exit(len(seen))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1


def test_systems_without_posix_threads(monkeypatch):
    """One thread runs the parts, in their order."""
    monkeypatch.delattr(signal, "pthread_sigmask")
    names = (thread_pool.SYMBOL, thread_pool.LIMIT)
    found = engine.load_for_good("one thread", lambda: (thread_pool.text(), names), {})
    order = []
    Parallel(found[thread_pool.SYMBOL])(Body(lambda _context, k: order.append(k)), None, 5)
    assert order == [0, 1, 2, 3, 4]


def test_a_busy_pool_is_not_waited_for():
    """Regions inside of regions, and of several threads of Python at once."""
    threads.set_threads(2)
    counts = np.zeros((4, 5, 6), int)

    def of_thread(t):
        def outer(_context, i):
            def inner(_context, j):
                counts[t, i, j] += 1

            parallel()(Body(inner), None, 6)

        for _ in range(20):
            parallel()(Body(outer), None, 5)

    workers = [threading.Thread(target=of_thread, args=(t,)) for t in range(4)]
    for w in workers:
        w.start()
    for w in workers:
        w.join(60)
    assert (counts == 20).all()


def test_calls_from_many_threads_of_python():
    f = dflow.jit(PROGRAMS["sum"][0])
    x = random(size=(4, 1003))
    threads.set_threads(2)
    expected, found = [f(row) for row in x], [set() for _ in x]

    def call(k):
        for _ in range(200):
            found[k].add(float(f(x[k])))

    workers = [threading.Thread(target=call, args=(k,)) for k in range(len(x))]
    for w in workers:
        w.start()
    for w in workers:
        w.join(60)
    assert found == [{float(e)} for e in expected]


def _total(x):
    return float(dflow.jit(PROGRAMS["sum"][0])(x))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_children_have_a_pool_of_their_own():
    x = random(size=1003)
    threads.set_threads(2)
    f = dflow.jit(PROGRAMS["sum"][0])
    expected = f(x)
    pid = os.fork()
    if not pid:
        os._exit(0 if f(x) == expected and f(x) == expected else 1)
    assert os.waitpid(pid, 0)[1] == 0
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(_total, [x] * 4) == [expected] * 4
    assert f(x) == expected


DAEMON = """
import threading, time
import numpy as np
import dflow

f = dflow.jit(lambda x: np.sin(x).sum())
x = np.ones(100_000)
expected = f(x)

def forever():
    while True:
        f(x)

for _ in range(2):
    threading.Thread(target=forever, daemon=True).start()
time.sleep(0.05)
print(dflow.threads(), f(x) == expected)
"""


def test_a_process_ends_while_threads_compute():
    environment = {**os.environ, "DFLOW_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", DAEMON], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "2 True\n"), done.stderr


def test_the_environment_says_how_many(monkeypatch):
    monkeypatch.setattr(threads, "_chosen", None)
    monkeypatch.setenv("DFLOW_THREADS", " 3 ")
    assert threads.threads() == 3
    monkeypatch.setenv("DFLOW_THREADS", "")
    assert 1 <= threads.threads() <= (os.cpu_count() or 1)
    for wrong in ("many", "0", "-2", "1.5"):
        monkeypatch.setenv("DFLOW_THREADS", wrong)
        with pytest.raises(ValueError, match="DFLOW_THREADS must be a number of threads"):
            threads.threads()


def test_numbers_of_threads():
    threads.set_threads(np.int64(3))
    assert threads.threads() == 3
    for wrong in (0, -1, 100_000):
        with pytest.raises(ValueError, match="must be from 1 to 1024"):
            threads.set_threads(wrong)
    with pytest.raises(TypeError):
        threads.set_threads(2.5)
    assert threads.threads() == 3
