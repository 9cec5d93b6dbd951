"""Large results: arrays like any other, in memory that the next ones get."""

import pickle
import threading

import numpy as np

import dflow
from dflow.backends.native import result_memory

X = np.random.default_rng(0).normal(size=(200, 100))


@dflow.jit
def both(x):
    return x + 1.0, 2.0 * x


def test_results_own_their_data():
    for got, wanted in zip(both(X), (X + 1.0, 2.0 * X)):
        assert got.flags.owndata
        assert got.base is None
        assert got.ctypes.data % 64 == 0
        np.testing.assert_array_equal(got, wanted)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(got)), wanted)


def test_memory_is_used_again():
    first = both(X)
    places = {a.ctypes.data for a in first}
    del first
    second = both(X)
    assert {a.ctypes.data for a in second} == places
    third = both(X)  # the second is in use
    assert not places & {a.ctypes.data for a in third}
    np.testing.assert_array_equal(second[0], X + 1.0)


def test_results_can_be_resized():
    y, _ = both(X)
    y.resize((50, 100), refcheck=False)
    np.testing.assert_array_equal(y, X[:50] + 1.0)
    y.resize((400, 100), refcheck=False)
    np.testing.assert_array_equal(y[:50], X[:50] + 1.0)
    assert not y[50:].any()
    y.resize((2, 3), refcheck=False)
    np.testing.assert_array_equal(y.ravel(), X[0, :6] + 1.0)


def test_what_is_kept_is_bounded():
    wrong = []
    double = dflow.jit(lambda x: 2.0 * x)
    sizes = [1 << 15, 1 << 16, 1 << 18, 1 << 20, 1 << 21]  # one of 16 MiB

    def work(seed):
        random, alive = np.random.default_rng(seed), []
        for k in range(40):
            alive.append((k, double(np.full(random.choice(sizes), float(k)))))
            if len(alive) > 3:
                n, found = alive.pop(random.integers(3))
                if not (found[0] == found[-1] == 2.0 * n):
                    wrong.append(n)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong
    assert result_memory.limit() == 128 * 2**20


def test_small_results_are_left_to_numpy():
    assert not result_memory.is_large(1000)
