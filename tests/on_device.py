"""The device against the processor."""

import numpy as np

import dflow
from dflow import trees


def numbers(*shape, dtype=float, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def compare(f, *args, rtol=1e-9, **options):
    """The kernels of ``f`` by what they do, after a run on both."""
    wanted, on_device = dflow.jit(f)(*args), dflow.jit(f, device="cuda", **options)
    got = on_device(*args)
    assert trees.flatten(got)[1] == trees.flatten(wanted)[1]
    for g, w in zip(trees.flatten(got)[0], trees.flatten(wanted)[0]):
        w = np.asarray(w)
        assert (np.asarray(g).dtype, np.shape(g)) == (w.dtype, w.shape)
        scale = np.max(np.abs(w), initial=0.0, where=np.isfinite(w))
        np.testing.assert_allclose(np.asarray(g), w, rtol=rtol, atol=rtol * scale)
    return [k.what for k in on_device.lower(*args).launches().kernels]


def settle(x, goal):
    """Loops in loops, and a branch, around an array that is too large for one block."""
    rounds = 0
    while np.sum(x) > goal:
        y = np.sin(x)
        while np.max(y) > 0.5:
            y = y * 0.75
        if np.min(x) > 0.8:
            x = 0.5 * (x + y)
        else:
            x = x * 0.9
        rounds += 1
    return x, rounds
