"""The benchmarks for GPUs run, on arrays of a few elements, so that they do when there is a device."""

import numpy as np
import pytest

from benchmarks import gpu, gpu_ensembles, gpu_gradbench, gpu_lorenz, measure


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    """Everything is called once, and no other library is asked."""
    once = measure.measure
    for module in (gpu, gpu_ensembles, gpu_gradbench):
        monkeypatch.setattr(module, "measure", lambda runs, rounds: once(runs, rounds=1, seconds=0.0))
    for module in (gpu, gpu_ensembles, gpu_gradbench):
        monkeypatch.setattr(module, "peer", lambda name: None)


def test_ensembles(fake):
    tables = list(gpu_ensembles.run(systems=64, steps=2, until=2e-3))  # one row each
    assert [len(t.rows) for t in tables] == [1, 1]
    assert "gradient / value" in str(tables[0])
    assert all(isinstance(t.rows[0][3], measure.Time) for t in tables)  # gradients that are right


def test_the_same_system_for_other_libraries():
    state = (1.0, 0.0, 0.0)
    for _ in range(3):
        state = gpu_lorenz.step(state, 20.0)
    np.testing.assert_allclose(sum(state), gpu_ensembles.fixed(20.0, 3), rtol=1e-14)


@pytest.mark.parametrize("make", [gpu_gradbench.ba, gpu_gradbench.ht, gpu_gradbench.gmm])
def test_the_same_problems_for_other_libraries(make):
    cost, args, other = make(3, small=True)
    there = other(np, np.asarray)
    for k in range(3):
        mine = [x[k] for x in args]
        np.testing.assert_allclose(there(*mine), cost(*mine), rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("fake", [1 << 26], indirect=True)
def test_gradbench(fake):
    *_, table = gpu_gradbench.run(batches=(64,), small=True)
    assert [row[0] for row in table.rows] == ["ba", "ht", "gmm"]
    assert all(isinstance(row[3], measure.Time) for row in table.rows)  # gradients that are right


@pytest.mark.slow
@pytest.mark.parametrize("fake", [1 << 26], indirect=True)
def test_arrays(fake):
    for part in (gpu.arrays, gpu.products, gpu.additions):
        *_, table = part(256, "", measure.Budget())
        assert table.rows
    *_, table = gpu.calls("")
    assert [row[0] for row in table.rows][:2] == ["one kernel, not waited for", "one kernel, waited for"]


def test_what_fails_is_told_and_the_rest_goes_on(fake, monkeypatch, capsys):
    real = gpu_ensembles.row
    monkeypatch.setattr(gpu_ensembles, "row", lambda kind, *rest: real(kind, *rest) if kind == "fixed" else 1 / 0)
    (table,) = gpu_ensembles.run(systems=64, steps=2, until=2e-3)
    assert len(table.rows) == 1
    assert "64 systems, to time 0.002: ZeroDivisionError: division by zero" in capsys.readouterr().out
    assert not list(gpu_ensembles.run(systems=64, seconds=-1.0))
    assert "the time was up: 2 rows are left out" in capsys.readouterr().out


def test_a_part_that_fails_does_not_take_the_others_along(monkeypatch, capsys):
    def fails(*args):
        yield measure.Table("calls", [])
        raise RuntimeError("a kernel stopped")

    monkeypatch.setattr(gpu, "opened", lambda: "")
    monkeypatch.setattr(gpu, "calls", fails)
    for name in ("arrays", "products", "additions"):
        made = lambda scale, where, budget, name=name: iter([measure.Table(name, [])])  # noqa: E731
        made.__name__ = name
        monkeypatch.setattr(gpu, name, made)
    assert [t.title for t in gpu.run(seconds=60.0)] == ["calls", "arrays", "products", "additions"]
    assert "calls: RuntimeError: a kernel stopped" in capsys.readouterr().out
    assert 29 < measure.Budget(60.0).part(0.5)._until - measure.time.monotonic() <= 30
