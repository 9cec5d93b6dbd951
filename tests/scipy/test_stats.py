"""Densities and distribution functions, against ``scipy.stats``; derivatives by numbers and parameters."""

import numpy as np
import pytest
import scipy.stats

import dflow
from dflow.scipy import stats

X = np.array([-1.5, 0.0, 0.3, 0.9, 1.0, 2.0, 7.5, np.nan])
K = np.array([-1, 0, 1, 2, 5, 9])
CONTINUOUS = {
    **dict.fromkeys(("norm", "uniform", "expon", "laplace", "logistic", "cauchy", "gumbel_r", "halfnorm"), ()),
    **{"gamma": (2.5,), "chi2": (3.0,), "beta": (2.0, 3.5), "t": (4.0,)},
    **{"lognorm": (0.7,), "weibull_min": (1.5,), "pareto": (2.5,)},
}
DISCRETE = {"bernoulli": (0.3,), "poisson": (2.5,), "geom": (0.4,), "binom": (7, 0.3), "nbinom": (3.0, 0.4)}
INNER = {"pareto": 2.7}  # a place inside the support


@pytest.mark.parametrize("name", [*CONTINUOUS, *DISCRETE])
def test_values(name):
    ours, theirs = getattr(stats, name), getattr(scipy.stats, name)
    parameters = CONTINUOUS.get(name) or DISCRETE.get(name) or ()
    x = K if name in DISCRETE else X
    places = (0.5, 1.5) if name in CONTINUOUS else (1,)
    methods = [m for m in ("logpdf", "pdf", "logpmf", "pmf", "cdf", "sf") if hasattr(ours, m)]
    found = dflow.jit(lambda x: [getattr(ours, m)(x, *parameters, *places) for m in methods])(x)
    for method, values in zip(methods, found):
        with np.errstate(all="ignore"):
            want = getattr(theirs, method)(x, *parameters, *places)
        np.testing.assert_allclose(values, want, rtol=2e-12, atol=1e-14, err_msg=method)


@pytest.mark.parametrize("name", ["norm", "laplace", *(n for n, p in CONTINUOUS.items() if p)])
def test_the_density_is_the_slope_of_the_distribution(name):
    d, shapes = getattr(stats, name), np.array(CONTINUOUS[name])
    x = INNER.get(name, 0.4)

    def slopes(x, p):
        slope = d.pdf(x, *p) if name == "t" else dflow.grad(d.cdf)(x, *p)
        return slope, dflow.grad(lambda p: d.logpdf(x, *p))(p)

    slope, by_shapes = dflow.jit(slopes)(x, shapes) if len(shapes) else (dflow.grad(d.cdf)(x), [])
    logpdf = getattr(scipy.stats, name).logpdf
    np.testing.assert_allclose(slope, np.exp(logpdf(x, *shapes)), rtol=1e-10)
    h = 1e-6 * np.eye(len(shapes))
    numeric = [(logpdf(x, *(shapes + e)) - logpdf(x, *(shapes - e))) / 2e-6 for e in h]
    np.testing.assert_allclose(by_shapes, numeric, rtol=1e-6)


def test_outside_of_the_support_nothing_varies():
    def total(x, a, scale):
        return np.sum(stats.weibull_min.pdf(x, a, scale=scale)) + np.sum(stats.poisson.pmf(x, a))

    outside = np.array([-2.0, -0.5])
    for derivative in dflow.grad(total, argnums=(0, 1, 2))(outside, 2.5, 3.0):
        np.testing.assert_array_equal(derivative, 0.0)
    assert np.isnan(stats.weibull_min.pdf(2.0, 2.5, scale=-1.0)) and np.isnan(stats.poisson.pmf(2, -1.0))
    assert stats.norm.logpdf(np.float32(0.5)).dtype == np.float32 and stats.norm.logpdf(np.inf) == -np.inf
    with pytest.raises(TypeError, match="logpdf takes x, a, loc, scale"):
        stats.gamma.logpdf(1.0)
