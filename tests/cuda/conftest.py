"""The device that tests run on: the PTX interpreter, and with ``-m device`` a GPU."""

import pytest
from ptx.driver import FakeDriver

from dflow.backends.cuda.launch import driver
from dflow.backends.cuda.launch.runtime import Program
from dflow.backends.cuda.planning import dense as dense_steps


def opened(fake):
    run = Program.run

    def run_in_fresh_memory(self, *args, **kwargs):
        """What an earlier run left behind is not to be read."""
        with self._lock:
            for work in self._loaded.workspaces.values() if self._loaded else ():
                for k, memory in work.memory.items():
                    if self.plan.buffers[k].kind == "workspace" and memory.generation == self.device.generation:
                        fake.heap.forget(memory.pointer)
            return run(self, *args, **kwargs)

    with fake.installed(), pytest.MonkeyPatch.context() as patch:
        driver.forget()
        patch.setattr(Program, "run", run_in_fresh_memory)
        yield fake
    driver.forget()


@pytest.fixture
def fake(request):
    """A fake driver of its own for a test that spoils it; the parameter is the device's memory in bytes."""
    yield from opened(FakeDriver(memory=getattr(request, "param", 1 << 22)))


@pytest.fixture
def driver_version(request):
    """A fake driver of a version, which is the parameter."""
    yield from opened(FakeDriver(version=request.param))


def small_matrices(monkeypatch):
    """The libraries get small matrices too."""
    monkeypatch.setattr(dense_steps, "SMALL", 0)
    monkeypatch.setattr(dense_steps, "THIN", 1)
    monkeypatch.setattr(dense_steps, "PRODUCT", 1)


@pytest.fixture
def fake_dense(monkeypatch):
    """A fake driver with cuBLAS and cuSOLVER, to which small matrices are left too."""
    small_matrices(monkeypatch)
    yield from opened(FakeDriver(libraries=True))


INTERPRETER_OR_DEVICE = ["interpreter", pytest.param("device", marks=pytest.mark.device)]


@pytest.fixture(params=INTERPRETER_OR_DEVICE)
def dense(request, monkeypatch):
    """The same, or None on a GPU, where the libraries must be installed."""
    small_matrices(monkeypatch)
    if request.param == "interpreter":
        yield from opened(FakeDriver(libraries=True))
        return
    pytest.importorskip("nvmath.bindings.cublas")
    opened_device()
    yield None


@pytest.fixture(scope="module", params=INTERPRETER_OR_DEVICE)
def gpu(request):
    """The fake driver, or None on a GPU."""
    if request.param == "interpreter":
        yield from opened(FakeDriver())
        return
    opened_device()
    yield None


def opened_device():
    driver.forget()
    try:
        driver.device()
    except driver.DeviceError as e:
        pytest.skip(str(e))
