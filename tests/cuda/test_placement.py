"""Where programs run: ``jit(device=...)``, ``default_device``, and where the arguments are."""

import numpy as np
import pytest

import dflow
from dflow.backends.cuda.launch import driver

X = np.linspace(0.1, 1.0, 5)


def f(x, a):
    return np.sin(x).sum() * a, x * a


def test_results_are_where_the_arguments_were(gpu):
    run = dflow.jit(f, device="cuda")
    wanted = f(X, 2.0)
    host = run(X, 2.0)
    assert isinstance(host[0], np.float64) and type(host[1]) is np.ndarray
    there = run(dflow.device_put(X), 2.0)
    assert all(isinstance(r, dflow.Array) for r in there)
    for got in (host, there, run(dflow.device_put(X), dflow.device_put(np.float64(2)))):
        np.testing.assert_allclose(got[0], wanted[0], rtol=1e-14)
        np.testing.assert_allclose(got[1], wanted[1], rtol=1e-14)


def test_functions_go_to_the_arguments(gpu):
    count = dflow.jit(f)
    assert type(count(X, 2.0)[1]) is np.ndarray
    x = dflow.device_put(X)
    assert isinstance(count(x, 2.0)[1], dflow.Array)
    assert type(count(X, 2.0)[1]) is np.ndarray
    g = dflow.grad(lambda x: (np.sin(x) ** 2).sum())
    assert isinstance(g(x), dflow.Array)
    np.testing.assert_allclose(g(x), np.sin(2 * X), rtol=1e-14)
    value, pull = dflow.vjp(np.exp, x)
    np.testing.assert_allclose(pull(np.ones(5))[0], np.exp(X), rtol=1e-14)
    assert isinstance(value, dflow.Array)
    assert isinstance(dflow.vmap(lambda v: v * v)(x), dflow.Array)


def test_arrays_that_a_function_closes_over(gpu):
    w = dflow.device_put(X)
    np.testing.assert_allclose(dflow.jit(lambda x: x + w, device="cuda")(X), 2 * X)


def test_the_default_device(gpu):
    run = dflow.jit(lambda x: x * 2 + 1)
    assert type(run(X)) is np.ndarray
    with dflow.default_device("cuda"):
        assert isinstance(run(X), dflow.Array)
        assert isinstance(dflow.jit(lambda x: x * 3)(X), dflow.Array)
        with dflow.default_device("cpu"):
            assert type(run(X)) is np.ndarray
        assert isinstance(run(X), dflow.Array)
    assert type(run(X)) is np.ndarray
    with pytest.raises(ValueError, match='"cpu", "cuda" or'), dflow.default_device("tpu"):
        pass


def test_trees_are_put_on_the_device_and_back(gpu):
    tree = {"w": X, "n": 3, "name": "layer"}
    there = dflow.device_put(tree)
    assert isinstance(there["w"], dflow.Array) and isinstance(there["n"], dflow.Array) and there["name"] == "layer"
    assert dflow.device_put(there)["w"] is there["w"]
    back = dflow.device_put(there, "cpu")
    assert type(back["w"]) is np.ndarray and back["n"] == 3


@pytest.mark.parametrize("x", [1 + 2j, np.complex64(1j), True, 7, np.float16(1.5), np.zeros((0, 3)), np.int8([3, -4])])
def test_arguments_of_all_types(gpu, x):
    got, wanted = dflow.jit(lambda x: x + x, device="cuda")(x), dflow.jit(lambda x: x + x)(x)
    assert np.asarray(got).dtype == np.asarray(wanted).dtype
    np.testing.assert_array_equal(got, wanted)


def increase(x, k):
    x[k] = 7
    for i in range(k):
        x[i] += 1.5


def test_updates_reach_the_caller(gpu):
    run = dflow.jit(increase, device="cuda")
    host, there = np.arange(5.0), dflow.device_put(np.arange(5.0))
    run(host, 3)
    run(there, 3)
    np.testing.assert_array_equal(host, [1.5, 2.5, 3.5, 7, 4])
    np.testing.assert_array_equal(there, host)


def test_errors_name_the_line_when_somebody_looks(gpu):
    run = dflow.jit(increase, device="cuda")
    with pytest.raises(IndexError, match=r"test_placement.py:\d+: index 11 is out of bounds for axis 0 with size 5"):
        run(np.arange(5.0), 11)
    x = dflow.device_put(np.arange(5.0))
    run(x, 11)
    y = x + 1
    for z in (x, y):
        with pytest.raises(IndexError, match="index 11"):
            z.block_until_ready()


def test_a_long_chain_of_runs_is_waited_for_now_and_then(gpu):
    run = dflow.jit(lambda x, k: x[k] + np.zeros(3), device="cuda")
    x = dflow.device_put(np.ones(3))
    for _ in range(200):
        x = run(x, 1)
    np.testing.assert_array_equal(x, np.ones(3))


def test_arguments_that_share_memory(gpu):
    def shift(x, y):
        x[:] = y + 1

    x = dflow.device_put(X)
    with pytest.raises(ValueError, match=r"arguments x and y share memory.*pass y\.copy\(\)"):
        dflow.jit(shift, device="cuda")(x, x.reshape(5))


def test_without_a_device_the_error_says_so(monkeypatch):
    from ptx.driver import FakeDriver

    with FakeDriver(devices=0).installed():
        driver.forget()
        for use in (lambda: dflow.device_put(X), lambda: dflow.jit(f, device="cuda")(X, 1.0)):
            with pytest.raises(driver.DeviceUnavailable, match="no GPU was found"):
                use()
    driver.forget()
