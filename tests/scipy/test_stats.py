"""``scipy.stats`` compiled, against SciPy, with derivatives."""

import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import scipy.stats as st

import dflow
from dflow.scipy import stats

SHAPES = {"t": (3.5,), "gamma": (2.5,), "chi2": (3.0,), "beta": (1.5, 2.5), "lognorm": (0.7,), "weibull_min": (1.7,)}
DISCRETE = {"poisson": (2.5,), "binom": (5, 0.3), "bernoulli": (0.3,)}
POINTS = np.array([-1.5, 0.3, 0.75, 2.0, 7.0])
COUNTS = np.array([-1.0, 0.0, 1.0, 2.5, 3.0, 6.0])
INSIDE = np.array([0.55, 0.8, 1.1])
CONTINUOUS = [name for name in stats.FAMILIES if name not in DISCRETE]


def methods(name):
    named = ("cdf", "sf") if name in ("gamma", "chi2", "poisson") else ("cdf", "sf", "logcdf", "logsf")
    return [m for m in named if stats.FAMILIES[name].formula(m)]


def of_points(x):
    found = {}
    for name in CONTINUOUS:
        dist, shapes = getattr(st, name), SHAPES.get(name, ())
        for method in ["pdf", "logpdf", *methods(name)]:
            found[name, method] = getattr(dist, method)(x, *shapes, 0.1, scale=1.5)
        if stats.FAMILIES[name].ppf:
            found[name, "ppf"] = dist.ppf(x / 8, *shapes, loc=0.5)
    return found


def of_counts(k):
    return {
        (name, m): getattr(getattr(st, name), m)(k, *shapes, loc=0)
        for name, shapes in DISCRETE.items()
        for m in ["pmf", "logpmf", *methods(name)]
    }


@pytest.mark.parametrize("f, x", [(of_points, POINTS), (of_counts, COUNTS)], ids=["points", "counts"])
def test_values(f, x):
    with np.errstate(all="ignore"):
        found, wanted = dflow.jit(f)(x), f(x)
    assert found.keys() == wanted.keys()
    for key in wanted:
        np.testing.assert_allclose(found[key], wanted[key], rtol=1e-12, atol=1e-15, err_msg=key)


def likelihood(x, shape, loc, scale):
    total = 0.0
    for name in CONTINUOUS:
        dist, shapes = getattr(st, name), [shape + 0.3 * k for k in range(len(SHAPES.get(name, ())))]
        total += np.sum(dist.logpdf(x, *shapes, loc, scale))
        if name not in ("gamma", "chi2", "t", "beta"):
            total += np.sum(dist.cdf(x, *shapes, loc=loc, scale=scale))
    return total + np.sum(st.poisson.logpmf(COUNTS[1:3], scale)) + np.sum(st.binom.logpmf(COUNTS[1:3], 5, shape / 9))


def test_derivatives():
    dflow.check_grads(likelihood, (INSIDE, 1.4, 0.2, 1.7), order=1, atol=1e-4, rtol=1e-4)
    slope = dflow.grad(lambda x: np.sum(st.gamma.pdf(x, 2.0) + st.uniform.cdf(x)))(np.array([-1.0, 0.5, 2.0]))
    np.testing.assert_allclose(slope, [0.0, 1 + 0.5 * np.exp(-0.5), -np.exp(-2.0)])


M, C = np.array([0.5, -1.0]), np.array([[2.0, 0.3], [0.3, 1.0]])
X = np.array([[1.0, 2.0], [0.0, -1.0], [3.0, 0.5]])


def of_several(x, m, c, a):
    normal = st.multivariate_normal
    shares = abs(x[0]) / np.sum(abs(x[0]))
    return (
        normal.logpdf(x, m, c),
        normal.pdf(x[0], m, c),
        normal.logpdf(x[0], cov=2.0, mean=m),
        normal.logpdf(x, m, c[0]),
        normal.logpdf(x[:, 0], 0.5, c[0, 0]),
        normal.entropy(m, c),
        st.dirichlet.logpdf(shares, a),
        st.dirichlet.pdf(shares[:1], a),
    )


def test_several_variables():
    a = np.array([1.5, 2.5])
    for found, wanted in zip(dflow.jit(of_several)(X, M, C, a), of_several(X, M, C, a)):
        np.testing.assert_allclose(found, wanted, rtol=1e-12)
    dflow.check_grads(lambda x, m, c, a: of_several(x, m, c + c.T, a)[0], (X, M, C, a), order=1)
    with pytest.raises(ValueError, match="shares that sum to 1"):
        dflow.jit(lambda x: st.dirichlet.pdf(x, a))(np.array([0.5, 0.6]))


KNOWN = st.beta(1.5, b=2.5), st.multivariate_normal([0.5, 0.2], [[2.0, 0.3], [0.3, 1.0]])


def of_frozen(m, x):
    own = st.norm(m, scale=2.0)
    several = st.multivariate_normal(m * np.ones(2), np.eye(2)).logpdf(x)
    counts = st.poisson(mu=m).logpmf(np.array([0, 2]))
    return np.sum(own.logpdf(x) + own.cdf(x) + counts + KNOWN[0].logpdf(x)) + several + KNOWN[1].pdf(x)


def test_frozen():
    m, x = 0.7, np.array([0.3, 0.6])
    np.testing.assert_allclose(dflow.jit(of_frozen)(m, x), of_frozen(m, x), rtol=1e-12)
    dflow.check_grads(of_frozen, (m, x), order=1)
    with pytest.raises(AttributeError, match="frozen norm_gen has no attribute 'density'"):
        dflow.jit(lambda m: st.norm(m).density(0.5))(m)
    with pytest.raises(dflow.errors.TraceError, match=r"scipy\.stats\.skewnorm is not supported"):
        dflow.jit(lambda m: st.skewnorm(m).pdf(0.5))(m)


@pytest.mark.parametrize(
    "solve, mend",
    [
        (lambda a: scipy.integrate.quad(lambda t: np.exp(-a * t), 0, 1)[0], "leggauss"),
        (lambda a: scipy.optimize.minimize(lambda t: (t[0] - a) ** 2, [0.0]).x[0], "call it outside"),
        (lambda a: scipy.optimize.brentq(lambda t: t - a, 0, 1), r"dflow\.custom_root"),
    ],
)
def test_solvers_of_functions_of_traced_values(solve, mend):
    """They run on known values; there is no derivative, and the error names the line and a way."""
    assert dflow.jit(solve)(0.3) == solve(0.3)
    with pytest.raises(dflow.errors.NeedsStatic, match=rf"test_stats\.py:\d+: scipy\..* not supported .*{mend}"):
        dflow.grad(solve)(0.3)


def test_refused():
    with pytest.raises(dflow.errors.TraceError, match=r"scipy\.stats\.t\.cdf is not supported .* write its formula"):
        dflow.jit(lambda x: st.t.cdf(x, 3))(POINTS)
    with pytest.raises(dflow.errors.TraceError, match=r"scipy\.stats\.gamma takes a, loc"):
        dflow.jit(lambda x: st.gamma.pdf(x, shape=2.0))(POINTS)
    with pytest.raises(dflow.errors.TraceError, match=r"scipy\.integrate\.odeint .* dflow\.odeint solves"):
        dflow.jit(lambda y: scipy.integrate.odeint(lambda u, t: -u, y, [0.0, 1.0]))(POINTS)
