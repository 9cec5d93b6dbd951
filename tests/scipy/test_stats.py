"""``scipy.stats`` compiled, against SciPy, with derivatives."""

import numpy as np
import pytest
import scipy.integrate
import scipy.optimize
import scipy.stats as st

import dflow
from dflow.ir.evaluator import evaluate
from dflow.scipy import families, stats

SHAPES = {
    "t": (3.5,),
    "gamma": (2.5,),
    "chi2": (3.0,),
    "beta": (1.5, 2.5),
    "lognorm": (0.7,),
    "truncnorm": (-1.2, 0.9),
    "weibull_min": (1.7,),
    "pareto": (2.3,),
    "poisson": (2.5,),
    "binom": (5, 0.3),
    "bernoulli": (0.3,),
    "geom": (0.3,),
    "nbinom": (2.5, 0.4),
}
POINTS = np.array([-1.5, 0.1, 0.3, 0.75, 2.0, 7.0, 8.0])  # an eighth: 1 is an end of quantiles
COUNTS = np.array([-1.0, 0.0, 1.0, 2.5, 5.0, 6.0])
INSIDE = np.array([0.55, 0.8, 1.1])
UNDERFLOWS = ("gamma", "chi2", "poisson", "t", "beta", "binom", "nbinom")  # theirs are the logarithms of cdf and sf


def methods(name):
    logs = () if name in UNDERFLOWS else ("logcdf", "logsf")
    densities = ("pdf", "logpdf") if name in families.CONTINUOUS else ("pmf", "logpmf")
    return [*densities, "cdf", "sf", *logs]


def of_points(x):
    found = {}
    for name in families.CONTINUOUS:
        dist, shapes = getattr(st, name), SHAPES.get(name, ())
        for method in methods(name):
            found[name, method] = getattr(dist, method)(x, *shapes, 0.1, scale=1.5)
        if families.FAMILIES[name].ppf:
            found[name, "ppf"] = dist.ppf(x / 8, *shapes, loc=0.5)
    return found


def of_counts(k):
    return {(d, m): getattr(getattr(st, d), m)(k, *SHAPES[d], loc=0) for d in families.DISCRETE for m in methods(d)}


def evaluated(f, *args):
    """What the traced program gives, in the evaluator: so many formulas take a while to compile."""
    return evaluate(dflow.jit(f).lower(*args).stages.traced, [np.asarray(a) for a in args])


def same(f, *args):
    with np.errstate(all="ignore"):
        wanted = f(*args)
    found = evaluated(lambda *args: list(f(*args).values()), *args)
    assert len(found) == len(wanted)
    for key, value in zip(wanted, found):
        np.testing.assert_allclose(value, wanted[key], rtol=1e-12, atol=1e-15, err_msg=key)


def test_values():
    same(of_points, POINTS)
    same(of_counts, COUNTS)


def of_ends(x):
    """Tails, infinite ends, and logarithms where plain functions have underflow."""
    logs = {(d, m): getattr(getattr(st, d), m)(x) for d in ("norm", "laplace", "logistic") for m in ("logcdf", "logsf")}
    far = {d: getattr(st, d).logsf(abs(x), *SHAPES.get(d, ())) for d in ("lognorm", "weibull_min", "expon")}
    return {**logs, **far, "t": st.t.cdf(x, 3.5), "t above": st.t.sf(x, 3.5), "gumbel_r": st.gumbel_r.logcdf(x)}


def test_ends():
    same(of_ends, np.array([-np.inf, -60.0, -1e-7, 0.0, 60.0, np.inf, np.nan]))


def likelihood(x, shape, loc, scale):
    total = 0.0
    for name in families.CONTINUOUS.keys() - {"truncnorm"}:  # whose shapes are the ends of its support
        dist, shapes = getattr(st, name), [shape + 0.3 * k for k in range(len(SHAPES.get(name, ())))]
        place = loc - 1.7 if name == "pareto" else loc
        total += np.sum(dist.logpdf(x, *shapes, place, scale))
        if name not in UNDERFLOWS:
            total += np.sum(dist.cdf(x, *shapes, loc=place, scale=scale))
    counts, p = COUNTS[2:3], shape / 9
    total += sum(np.sum(d.logpmf(counts, p)) for d in (st.geom, st.bernoulli, st.poisson))
    return total + np.sum(st.binom.logpmf(counts, 5, p)) + np.sum(st.nbinom.logpmf(counts, scale, p))


def test_derivatives():
    args = INSIDE, 1.4, 0.2, 1.7
    slopes = evaluated(dflow.grad(likelihood, argnums=(0, 1, 2, 3)), *args)
    for k, slope in enumerate(slopes):
        step = [1e-5 * (j == k) for j in range(4)]
        ahead, behind = (likelihood(*(a + sign * s for a, s in zip(args, step))) for sign in (1, -1))
        np.testing.assert_allclose(np.sum(slope), (ahead - behind) / 2e-5, rtol=1e-6)


def test_slope_of_a_distribution_function_is_the_density():
    def slopes(x):
        of_t = dflow.grad(lambda x: np.sum(st.t.cdf(x, 3.5)))
        of_laplace = dflow.grad(lambda x: np.sum(st.laplace.cdf(x) - st.laplace.sf(x)))
        of_logistic = dflow.grad(lambda x: np.sum(dflow.grad(lambda y: np.sum(st.logistic.logpdf(y)))(x)))
        of_beta = dflow.grad(lambda x: np.sum(st.beta.cdf(x, 1.5, 2.5)))
        return of_t(x), of_laplace(x), of_logistic(x), of_beta(x)

    x = np.array([-1.5, 0.0, 1e-5, 0.5, 2.0])
    wanted = (st.t.pdf(x, 3.5), 2 * st.laplace.pdf(x), -2 * st.logistic.pdf(x), st.beta.pdf(x, 1.5, 2.5))
    for found, expected in zip(evaluated(slopes, x), wanted):
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-15)


def test_truncated_normal_distribution():
    """Far out, and its slopes by everything."""

    def f(x, a, b):
        return [getattr(st.truncnorm, m)(x, a, b) for m in ("logpdf", "logcdf", "logsf")]

    for x, a, b in ((9.5, 9.0, np.inf), (-30.5, -31.0, -30.0), (0.1, -np.inf, 0.3), (1.0, 2.0, 3.0)):
        for found, wanted in zip(evaluated(f, x, a, b), f(x, a, b)):
            np.testing.assert_allclose(found, wanted, rtol=1e-9)
    at = (0.3, -0.5, 1.5, 0.1, 1.3)
    for method in ("logpdf", "cdf", "logsf"):
        dflow.check_grads(getattr(st.truncnorm, method), at)


NORMAL, BINOMIAL = st.norm(1.0, 2.0), st.binom(5, 0.3)


def of_frozen(x, mu, sigma):
    ours, counts = st.norm(mu, scale=sigma), st.poisson(mu, loc=1)
    return {
        **{m: getattr(ours, m)(0.3) for m in methods("norm")},
        **{("x", m): getattr(NORMAL, m)(x) for m in ("logpdf", "pdf", "cdf", "sf", "logcdf", "logsf")},
        **{("k", m): getattr(BINOMIAL, m)(k=x + 0.7) for m in ("pmf", "logpmf")},
        "ppf": ours.ppf(q=0.3) + NORMAL.ppf(x / 4),
        "counts": (counts.pmf(3), counts.logpmf(3), BINOMIAL.sf(0.0)),
        "moments": (ours.mean(), ours.var(), ours.std(), counts.std(), NORMAL.mean() * x, NORMAL.entropy() * x),
        "frozen": st.gamma.freeze(sigma).pdf(x),
    }


def of_moments(shape, loc):
    dists = [getattr(st, name) for name in stats.FAMILIES]
    given = [[shape * s for s in SHAPES.get(d.name, ())] for d in dists]
    return {(d.name, m): getattr(d, m)(*s, loc=loc) for d, s in zip(dists, given) for m in ("mean", "var", "std")}


def test_frozen():
    found, wanted = dflow.jit(of_frozen)(0.3, 1.5, 0.8), of_frozen(0.3, 1.5, 0.8)
    for key in wanted:
        np.testing.assert_allclose(found[key], wanted[key], rtol=1e-12, err_msg=key)
    slope = dflow.grad(lambda mu: st.norm(mu, 2.0).logpdf(0.3) + NORMAL.logpdf(mu))(1.5)
    np.testing.assert_allclose(slope, (0.3 - 1.5) / 4 + (1.0 - 1.5) / 4)
    same(of_moments, np.float64(1.0), np.float64(0.5))


M, C = np.array([0.5, -1.0]), np.array([[2.0, 0.3], [0.3, 1.0]])
X = np.array([[1.0, 2.0], [0.0, -1.0], [3.0, 0.5]])
FROZEN = st.multivariate_normal(M, C)


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
        normal(m, c).logpdf(x),
        normal(m, cov=c).entropy() + FROZEN.entropy(),
        FROZEN.pdf(x),
        st.dirichlet.logpdf(shares, a),
        st.dirichlet.pdf(shares[:1], a),
    )


def test_several_variables():
    a = np.array([1.5, 2.5])
    for found, wanted in zip(dflow.jit(of_several)(X, M, C, a), of_several(X, M, C, a)):
        np.testing.assert_allclose(found, wanted, rtol=1e-12)
    dflow.check_grads(lambda m, c: np.sum(st.multivariate_normal(m, c + c.T).logpdf(X)), (M, C), order=1)
    with pytest.raises(ValueError, match="shares that sum to 1"):
        dflow.jit(lambda x: st.dirichlet.pdf(x, a))(np.array([0.5, 0.6]))


class Norm(st.rv_continuous):
    """A distribution of the user's with the name of another."""

    def _pdf(self, x):
        return x


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


FLAT = st.multivariate_normal([0.0, 0.0], np.ones((2, 2)), allow_singular=True)


def test_refused():
    cases = [
        (lambda x: st.t.ppf(x, 3), r"scipy\.stats\.t\.ppf is not supported"),
        (lambda x: st.gamma.pdf(x, shape=2.0), r"scipy\.stats\.gamma takes a, loc"),
        (lambda x: st.poisson(x, scale=2.0), r"scipy\.stats\.poisson takes mu, loc, got mu, scale"),
        (lambda x: st.skewnorm(x).pdf(1.0), r"scipy\.stats\.skewnorm\.pdf is not supported"),
        (lambda x: Norm(name="norm").pdf(x), r"scipy\.stats\.norm\.pdf is not supported"),
        (lambda x: st.norm(x).entropy(), r"scipy\.stats\.norm\.entropy is not supported (?s:.*)write its formula"),
        (lambda x: st.gamma.fit(x), r"scipy\.stats\.gamma\.fit is not supported (?s:.*)sum of logpdf"),
        (lambda x: x * NORMAL.rvs(), r"scipy\.stats\.norm\.rvs would be drawn once(?s:.*)dflow\.random"),
        (lambda x: x * st.norm.rvs(), r"scipy\.stats\.norm\.rvs would be drawn once"),
        (lambda x: x * FROZEN.rvs()[0], r"scipy\.stats\.multivariate_normal\.rvs would be drawn once"),
        (lambda x: FLAT.logpdf(x[:2]), r"covariance that may be singular"),
        (lambda y: scipy.integrate.odeint(lambda u, t: -u, y, [0.0, 1.0]), r"odeint .* dflow\.odeint solves"),
    ]
    for f, message in cases:
        with pytest.raises(dflow.errors.TraceError, match=message):
            dflow.jit(f)(POINTS)


def test_tails_of_t_with_many_degrees_of_freedom():
    y = np.array([-50.0, -7.0, -1.0, 0.0, 3.0, 40.0])
    for method in ("logpdf", "cdf", "sf"):
        f = getattr(st.t, method)
        np.testing.assert_allclose(dflow.jit(lambda y, f=f: f(y, 1e6))(y), f(y, 1e6), rtol=1e-9)
