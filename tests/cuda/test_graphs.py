"""Runs as graphs: replayed with other arguments, and with loops and branches whose conditions stay on the device."""

import inspect
import re

import numpy as np
import pytest
from on_device import settle
from ptx.graphs import Fields, Graphs, node_types

import dflow
from dflow.backends.cuda.launch import driver
from dflow.backends.cuda.planning import work


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Kernels of their own for small arrays too."""
    monkeypatch.setattr(work, "WIDE", 100)


def chain(x, n):
    for _ in range(n):
        x = np.cumsum(x) * 0.5
    return x


def test_a_graph_takes_other_arguments(fake):
    run, n = dflow.jit(chain, device="cuda"), 3
    kept = []
    for k in range(5):
        x = np.arange(700.0) + k
        kept.append(run(dflow.device_put(x), n))  # so that all results are elsewhere
        np.testing.assert_allclose(np.asarray(kept[-1]), chain(x, n))
    launches = len(run.lower(x, n).launches().launches)
    count = fake.calls.count
    assert (count("cuGraphInstantiate"), count("cuGraphLaunch")) == (1, 4)
    assert 0 < count("cuGraphExecKernelNodeSetParams") < 3 * launches * n
    x = np.arange(700.0)
    for _ in range(2):
        np.testing.assert_allclose(run(x, 2), chain(x, 2))  # another number of launches
    assert count("cuGraphInstantiate") == 2


@pytest.mark.parametrize("driver_version", [13000, 12030], indirect=True)
def test_conditions_stay_on_the_device(driver_version):
    fake = driver_version
    x = np.linspace(0.9, 1.1, 600)
    wanted, rounds = settle(x, 320.0)
    on_device, run = dflow.device_put(x), dflow.jit(settle, device="cuda")
    for _ in range(2):
        fake.calls.clear()
        got, count = run(on_device, 320.0)
        waits = fake.calls.count("cuStreamSynchronize")
        np.testing.assert_allclose(np.asarray(got), wanted)
        assert int(np.asarray(count)) == rounds > 1
        assert waits == 0 if fake.version == 13000 else waits > rounds


def failing(x):
    while np.sum(x) > 1.0:
        x = x * 0.5
        if np.max(x) < 0.4:
            raise ValueError("too small")
    return x


def test_a_loop_ends_with_an_error(fake):
    run = dflow.jit(failing, device="cuda")
    with pytest.raises(ValueError, match="too small"):
        np.asarray(run(np.ones(600)))
    np.testing.assert_array_equal(run(np.full(600, 1e-5)), np.full(600, 1e-5))


def test_what_cannot_be_a_graph_is_run_step_by_step(fake):
    run, x = dflow.jit(settle, device="cuda"), np.linspace(0.9, 1.1, 600)
    fake.fail("cuGraphAddNode", "CUDA_ERROR_NOT_SUPPORTED")
    got, _ = run(x, 560.0)
    np.testing.assert_allclose(got, settle(x, 560.0)[0])
    assert "cuGraphLaunch" not in fake.calls


def test_graphs_that_fail(fake):
    run, x = dflow.jit(chain, device="cuda"), np.arange(700.0)
    run(x, 2)
    fake.fail("cuGraphInstantiate", "CUDA_ERROR_OUT_OF_MEMORY")
    for launched in (0, 1):  # there is none, then there is
        np.testing.assert_allclose(run(x, 2), chain(x, 2))
        assert fake.calls.count("cuGraphLaunch") == launched
    fake.fail("cuGraphLaunch", "CUDA_ERROR_ILLEGAL_ADDRESS")
    with pytest.raises(driver.KernelFault, match=r"chain stopped with a fault.*can be used again"):
        run(x, 2)
    for _ in range(3):
        np.testing.assert_allclose(run(x, 2), chain(x, 2))


def test_the_package_has_these_structures():
    real = pytest.importorskip("cuda.bindings.driver")
    for name, kind in node_types().items():
        there = getattr(real, name)
        if issubclass(kind, Fields):
            assert set(kind.names) <= set(dir(there())), name
        else:
            assert all(int(getattr(there, member.name)) == member for member in kind), name
    for name in ("cuGraphAddNode", "cuGraphAddKernelNode", "cuGraphAddMemsetNode", "cuGraphExecKernelNodeSetParams"):
        given = getattr(real, name).__doc__.splitlines()[0].partition("(")[2].rpartition(")")[0]
        wanted = inspect.signature(getattr(Graphs, name)).parameters
        assert len(re.sub(r"\[[^]]*\]", "", given).split(",")) == len(wanted) - 1, name
