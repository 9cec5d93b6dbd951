"""The programs of ``tests/programs`` on the device, and their gradients: a few always, all with ``-m slow``."""

import numpy as np
import pytest
from programs import PROGRAMS

import dflow
from dflow import trees
from dflow.backends.cuda.planning import work

QUICK = {"algorithms.prefix_sums", "finance.option_price", "semantics.updates_of_arguments"}


def chosen(programs):
    return [pytest.param(p, id=p.name, marks=[] if p.name in QUICK else pytest.mark.slow) for p in programs]


ZERO = 1e-15  # of what cancels out


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Kernels with many threads for small arrays too."""
    monkeypatch.setattr(work, "WIDE", 4)
    monkeypatch.setattr(work, "MANY", 4)


def compare(got, wanted, rtol):
    """Equal structures and integers; floats within ``rtol`` of the largest of each result, or zero but for rounding."""
    (got, structure), (wanted, other) = trees.flatten(got), trees.flatten(wanted)
    assert structure == other
    for g, w in zip(got, wanted):
        if not isinstance(w, int | float | np.ndarray | np.generic):
            assert g == w
            continue
        g, w = np.asarray(g), np.asarray(w)
        assert (g.dtype, g.shape) == (w.dtype, w.shape)
        scale = np.max(np.abs(w), initial=0.0, where=np.isfinite(w)) if w.dtype.kind in "fc" else 0.0
        np.testing.assert_allclose(g, w, rtol=rtol if scale else 0.0, atol=max(rtol * scale, ZERO))


@pytest.mark.parametrize("p", chosen(PROGRAMS))
def test_values(gpu, p):
    mine, plain = p.fresh(), p.fresh()
    wanted = dflow.jit(p.function, static_argnames=p.static)(*plain)
    got = dflow.jit(p.function, static_argnames=p.static, device="cuda")(*mine)
    compare(got, wanted, max(p.rtol, 1e-12))
    compare(mine, plain, max(p.rtol, 1e-12))


@pytest.mark.parametrize("p", chosen([p for p in PROGRAMS if p.wrt]))
def test_gradients(gpu, p):
    trees.flatten(p.args)  # from now on dataclasses are trees

    def whole(*moving):
        args = p.fresh()
        for k, x in zip(p.wrt, moving):
            args[k] = x
        result = p.function(*args)
        return (result, [args[k] for k in p.updates]) if p.updates else result

    primals = tuple(p.fresh()[k] for k in p.wrt)
    bars = trees.map_leaves(lambda x: np.ones_like(x) if np.asarray(x).dtype.kind == "f" else None, whole(*primals))

    def reverse(*xs):
        return dflow.vjp(whole, *xs)[1](bars)

    compare(dflow.jit(reverse, device="cuda")(*primals), dflow.jit(reverse)(*primals), 1e-9)
