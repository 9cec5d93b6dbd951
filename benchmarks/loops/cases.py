"""The programs with their arguments."""

from typing import Any

import numpy as np

from benchmarks.contest import Case
from benchmarks.loops import programs


def cases() -> list[Case]:
    r = np.random.default_rng(0)
    return [
        Case("double pendulum, 200 steps", programs.double_pendulum, (np.array([1.0, 2.0, 0.1, -0.1]), 200)),
        Case("adaptive integrator", programs.adaptive, (np.array([2.0, 0.0]), 1.5, 10.0)),
        Case(
            "filter of Kalman, 100 steps", programs.kalman, (np.array([-2.0, -1.0]), r.normal(size=(100, 2)).cumsum(0))
        ),
        Case("hidden Markov model, 12 states, 200 steps", programs.hidden_markov, _markov(r)),
        Case("soft-DTW, 40 x 35", programs.soft_dtw, (r.uniform(size=(40, 35)),)),
        Case("Gauss-Seidel, 24 x 24, 10 sweeps", programs.gauss_seidel, (r.normal(size=(24, 24)), 10)),
        Case("tridiagonal system of 1000", programs.tridiagonal, _tridiagonal(r)),
        Case("particles with a cut-off, 100", programs.particles, (r.uniform(0.0, 5.0, size=(100, 3)), 2.0)),
        Case("cells of an LSTM, 16 by 50 steps", programs.lstm, _lstm(r)),
        Case("sparse product, 500 x 500, 5000 entries", programs.sparse_product, _sparse(r)),
        Case("Mandelbrot, 64 x 64, 100 steps", programs.mandelbrot, (np.array([-0.5, 0.1]), 2.5, 64, 100)),
    ]


def _markov(r: np.random.Generator) -> tuple[Any, ...]:
    return r.normal(size=(12, 12)), r.uniform(0.1, 1.0, size=(12, 6)), r.integers(6, size=200)


def _tridiagonal(r: np.random.Generator) -> tuple[Any, ...]:
    a, b, c, d = r.uniform(size=(4, 1000))
    return b + 3.0, a, c, d


def _lstm(r: np.random.Generator) -> tuple[Any, ...]:
    n, inputs = 16, 8
    weights = r.normal(size=(4 * n, inputs)), r.normal(size=(4 * n, n)) * 0.3, r.normal(size=4 * n)
    return weights, r.normal(size=(50, inputs))


def _sparse(r: np.random.Generator) -> tuple[Any, ...]:
    n, entries = 500, 5000
    rows = np.sort(r.integers(n, size=entries))
    starts = np.searchsorted(rows, np.arange(n + 1))
    return r.normal(size=entries), r.normal(size=n), r.integers(n, size=entries), starts
