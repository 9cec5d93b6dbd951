"""``scipy.special`` compiled, against SciPy; derivatives to order two; edges."""

import numpy as np
import pytest
import scipy.special as sp
from scipy import stats

import dflow
import dflow.scipy.special as ours
from dflow.ir.builder import Builder
from dflow.ir.evaluator import evaluate
from dflow.ir.types import F64, TensorType
from dflow.scipy.beta_rules import BETA_RULES
from dflow.scipy.incomplete_gamma import GAMMA_RULES

X = np.array([-30.0, -11.0, -3.2, -0.7, -0.01, 0.3, 1.0, 2.5, 6.0, 19.0, 33.0, 140.0])
P = np.array([1e-300, 1e-20, 1e-3, 0.05, 0.2, 0.4, 0.5, 0.6, 0.9, 0.999, 1 - 1e-12])
POSITIVE = np.array([1e-5, 0.1, 0.7, 1.0, 2.5, 8.0, 30.0, 120.0])
PAIR = (POSITIVE, POSITIVE[::-1].copy())
ROWS, WEIGHTS = np.random.default_rng(0).normal(size=(2, 3, 4))

# name: arguments, and the largest relative error that the last places allow
UFUNCS = {
    **{name: ((X,), 1e-15) for name in ("gamma", "gammaln", "psi", "erf", "expit", "i0", "i0e", "i1", "i1e")},
    **{name: ((X,), 1e-15) for name in ("expm1", "exp2", "cbrt", "log_expit")},
    **{name: ((X,), 1e-14) for name in ("j0", "j1", "cosm1", "log_ndtr")},
    **{name: ((POSITIVE,), 1e-15) for name in ("loggamma", "log1p", "entr")},
    **{name: (PAIR, 1e-14) for name in ("beta", "betaln", "xlogy", "xlog1py", "rel_entr", "kl_div")},
    **{name: (PAIR, 1e-13) for name in ("gammainc", "gammaincc")},
    **{name: (PAIR, 1e-13) for name in ("boxcox", "boxcox1p")},
    "poch": (PAIR, 1e-12),
    **{name: ((*PAIR, np.linspace(0.02, 0.98, 8)), 1e-12) for name in ("betainc", "betaincc")},
    "gammasgn": ((X,), 1e-15),
    "exp1": ((POSITIVE,), 2e-14),
    "expi": ((X,), 2e-14),
    "erfcx": ((X[1:],), 1e-14),
    "erfc": ((X[:-1],), 1e-15),
    "ndtr": ((X,), 5e-14),
    "erfinv": ((2 * P - 1,), 2e-15),
    "erfcinv": ((2 * P,), 2e-15),
    "ndtri": ((P,), 2e-15),
    "logit": ((P,), 1e-15),
    "exp10": ((X[1:],), 1e-15),
    **{name: ((POSITIVE,), 2e-15) for name in ("k0", "k1", "k0e", "k1e")},
    **{name: ((POSITIVE,), 3e-14) for name in ("y0", "y1")},
    **{name: ((X[1:-1],), 2e-14) for name in ("dawsn", "exprel", "rgamma")},
    **{name: ((1 - POSITIVE,), 5e-15) for name in ("ellipk", "ellipe")},
    **{name: ((POSITIVE[:6], X[3:9]), 2e-15) for name in ("huber", "pseudo_huber", "inv_boxcox", "inv_boxcox1p")},
    **{name: ((POSITIVE[1:-1], POSITIVE[1:-1]), 1e-12) for name in ("chdtr", "chdtrc")},
    "fdtr": ((POSITIVE[1:-1], POSITIVE[1:-1], POSITIVE[1:-1]), 1e-12),
    "gdtrc": ((POSITIVE[1:-1], POSITIVE[1:-1], POSITIVE[1:-1] / 4), 1e-12),
    "binom": ((3 * POSITIVE, POSITIVE), 1e-12),
}
FUNCTIONS = {
    "polygamma": (lambda x: sp.polygamma(1, x), (np.array([-2.5, -0.3, 0.1, 1.0, 7.0, 50.0]),)),
    "polygamma 3": (lambda x: sp.polygamma(3, x), (np.array([0.1, 1.0, 7.0, 50.0]),)),
    "polygamma 0": (lambda x: sp.polygamma(0, x), (POSITIVE[1:],)),
    "zeta": (sp.zeta, (np.array([1.1, 2.0, 5.0, 20.0]), np.array([0.1, 1.0, 4.0, 30.0]))),
    "Riemann's zeta": (sp.zeta, (np.array([1.1, 2.0, 5.0, 20.0]),)),
    "expn": (lambda x: sp.expn(3, x), (POSITIVE[1:-1],)),
    "expn 0": (lambda x: sp.expn(0, x), (POSITIVE[1:-1],)),
    "multigammaln": (lambda x: sp.multigammaln(x, 3), (4.5,)),
    "comb": (sp.comb, (np.array([5.0, 10.0, 7.5]), np.array([2.0, 3.0, 1.0]))),
    "comb with repetition": (lambda n, k: sp.comb(n, k, repetition=True), (5.0, 2.0)),
    "sici": (sp.sici, (np.array([0.3, 3.9, 4.1, 50.0]),)),
    "fresnel": (sp.fresnel, (np.array([-3.0, 0.01, 1.9, 2.1]),)),
    "factorial": (sp.factorial, (np.array([0.5, 1.0, 5.0, 20.0]),)),
    "logsumexp": (sp.logsumexp, (ROWS,)),
    "logsumexp with weights": (lambda x, b: sp.logsumexp(x, 1, np.abs(b), True), (ROWS, WEIGHTS)),
    "logsumexp with sign": (lambda x, b: sp.logsumexp(x, axis=0, b=b, return_sign=True), (ROWS, WEIGHTS)),
    "softmax": (lambda x: sp.softmax(x, axis=0), (ROWS,)),
    "log_softmax": (lambda x: sp.log_softmax(x, 1), (ROWS,)),
}


@pytest.mark.parametrize("name", UFUNCS)
def test_ufuncs(name):
    args, tolerance = UFUNCS[name]
    f = getattr(sp, name)
    np.testing.assert_allclose(dflow.jit(f)(*args), f(*args), rtol=tolerance)
    single = tuple(np.float32(a[4:8]) for a in args)
    np.testing.assert_allclose(dflow.jit(f)(*single), f(*single), rtol=1e-5)
    assert dflow.jit(f)(*single).dtype == np.float32


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name):
    f, args = FUNCTIONS[name]
    np.testing.assert_allclose(dflow.jit(f)(*args), f(*args), rtol=1e-13)
    dflow.check_grads(f, args)


POINTS = {
    **{name: [(-0.7, 0.3, 2.5)] for name in ("gamma", "psi", "gammaln")},
    **{name: [(-0.9, 0.01, 0.6)] for name in ("erfinv",)},
    **{name: [(0.01, 0.35, 0.8)] for name in ("erfcinv", "ndtri", "logit")},
    **{name: [(-25.0, -2.0, 0.0, 3.0)] for name in ("ndtr", "log_ndtr", "expit", "log_expit")},
    **{name: [(-3.0, 0.02, 0.7, 9.0)] for name in ("i0", "i1", "i0e", "i1e", "j0", "j1")},
    **{name: [(0.2, 1.5)] for name in ("entr", "cosm1")},
    **{name: [(2.5, 7.1, 3.0), (0.4, 1.0, 2.2)] for name in ("beta", "betaln", "binom")},
    **{name: [(0.4, 1.0, 2.2), (2.5, 0.1, 3.0)] for name in ("xlogy", "xlog1py", "rel_entr", "kl_div")},
    **{name: [(0.4, 1.0, 5.0), (2.5, 0.1, 3.0)] for name in ("gammainc", "gammaincc")},
    **{name: [(0.4, 1.5, 5.0), (0.5, -2.0, 3.0)] for name in ("boxcox", "boxcox1p", "poch")},
    "erfcx": [(-1.5, 0.2, 30.0)],
    **{name: [(0.3, 3.0, 11.0)] for name in ("y0", "y1", "k0", "k1", "k0e", "k1e")},
    **{name: [(-3.0, 0.0, 0.9)] for name in ("ellipk", "ellipe", "exprel", "rgamma")},
    **{name: [(1.0, 1.0, 0.5), (-0.3, 2.0, 1.0)] for name in ("huber", "pseudo_huber")},
    "inv_boxcox": [(1.0, 2.0, 0.5), (0.3, 1e-9, 1.0)],
    "dawsn": [(-3.0, 0.0, 0.3)],
    "exp1": [(0.3, 1.7, 4.0)],
    "expi": [(-4.0, 0.3, 50.0)],
}


# programs whose second derivatives take long to compile
LONG = ("beta", "betaln", "binom", "dawsn", "ellipe", "ellipk", "gammainc", "gammaincc", "poch")


@pytest.mark.parametrize("name", LONG)
def test_derivatives_of_long_programs(name):
    dflow.check_grads(getattr(sp, name), tuple(map(np.array, POINTS[name])), eps=1e-5)


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in LONG else n for n in POINTS])
def test_derivatives_to_order_two(name):
    dflow.check_grads(getattr(sp, name), tuple(map(np.array, POINTS[name])), order=2, eps=1e-5)


def test_scalars_and_our_own_names():
    assert abs(dflow.grad(sp.gammaln)(1.0) + np.euler_gamma) < 1e-15
    np.testing.assert_allclose(dflow.grad(dflow.grad(ours.digamma))(1.0), -2 * sp.zeta(3))
    assert ours.erfinv(0.5) == sp.erfinv(0.5) and ours.airy(0.0) == sp.airy(0.0)
    assert "logsumexp" in dir(ours)


EDGES = np.array([0.0, -0.0, 1.0, -1.0, 0.5, 2.0, np.inf, -np.inf, np.nan])


@pytest.mark.parametrize(
    "name",
    [
        "gamma",
        "erfinv",
        "erfcinv",
        "ndtri",
        "expit",
        "logit",
        "entr",
        "i0e",
        "i1e",
        "j0",
        "j1",
        "log_ndtr",
        "psi",
        "exp1",
        "expi",
    ],
)
def test_edges(name):
    f = getattr(sp, name)
    np.testing.assert_allclose(dflow.jit(f)(EDGES), f(EDGES), rtol=1e-14, atol=1e-300)


@pytest.mark.parametrize("name", ["xlogy", "xlog1py", "rel_entr", "kl_div", "gammainc", "gammaincc"])
def test_edges_of_pairs(name):
    x, y = (v.ravel() for v in np.meshgrid([0.0, 1.0, 3.0, np.inf], [0.0, 0.5, 3.0, 1e300]))
    f = getattr(sp, name)
    np.testing.assert_allclose(dflow.jit(f)(x, y), f(x, y), rtol=1e-13)


def test_where_nothing_is_left():
    chosen = ROWS > -0.5
    want = np.log(np.sum(np.exp(ROWS) * chosen, 1))
    for f in (lambda x: ours.logsumexp(x, 1, where=chosen), lambda x: ours.logsumexp(x, 1, where=x > -0.5)):
        np.testing.assert_allclose(f(ROWS), want)
        np.testing.assert_allclose(dflow.jit(f)(ROWS), want)
    np.testing.assert_array_equal(dflow.jit(sp.logsumexp)(np.full(3, -np.inf)), -np.inf)
    np.testing.assert_allclose(dflow.grad(sp.logsumexp)(np.array([-np.inf, 2.0])), [0.0, 1.0])
    np.testing.assert_allclose(dflow.grad(lambda x: sp.xlogy(x, x))(0.0), 0.0)
    np.testing.assert_allclose(dflow.grad(sp.gammainc, argnums=1)(1.0, 0.0), 1.0)


@pytest.mark.parametrize(
    "f, message",
    [
        (lambda x: sp.airy(x), "airy is not supported"),
        (lambda x: sp.polygamma(x, 1.0), "order n of polygamma"),
        (lambda x: sp.comb(x, 2, exact=True), "exact=True"),
        (lambda x: sp.expn(-1, x), "must not be negative"),
        (lambda x: sp.exp1(x + 1j), "takes real numbers"),
    ],
)
def test_refusals(f, message):
    with pytest.raises(dflow.errors.DflowError, match=message):
        dflow.jit(f)(np.array(1.5))


def test_incomplete_gamma_far_beyond_its_parameter():
    a, x = np.array([92.0, 92.0, 42.0, 72.0, 27.5]), np.array([3000.0, 1000.0, 667.0, 720.0, 769.0])
    np.testing.assert_allclose(dflow.jit(sp.gammaincc)(a, x), sp.gammaincc(a, x), rtol=1e-12)
    assert np.all(dflow.jit(sp.gammainc)(a, x) == 1.0)
    slope = dflow.jit(dflow.grad(lambda x: np.sum(sp.gammaincc(a, x))))(x)
    log_slope = (a - 1) * np.log(x) - x - sp.gammaln(a)
    np.testing.assert_allclose(slope, -np.exp(log_slope), rtol=1e-11)


@pytest.mark.parametrize("name", ["gammainc", "gammaincc"])
def test_incomplete_gamma_functions_of_large_a(name):
    """There a sum of terms would have to be as long as the root of a."""
    f = getattr(sp, name)
    a = np.repeat([9.9e4, 1e5, 3e7, 1e9, 1e15], 5)
    x = a + np.tile([-3.0, -1.0, 0.0, 1.0, 3.0], 5) * np.sqrt(a)
    got, expected = dflow.jit(f)(a, x), f(a, x)
    np.testing.assert_allclose(got[5:], expected[5:], rtol=1e-12)
    np.testing.assert_allclose(got[:5], expected[:5], rtol=1e-9)
    far = dflow.jit(f)(1e15, 1e15 + (20 if name == "gammaincc" else -20) * 1e15**0.5)
    np.testing.assert_allclose(far, stats.norm.sf(20), rtol=1e-4)  # SciPy loses the lower one
    at = np.array([2e5, 1e6, 1e6]), np.array([2e5, 1.001e6, 0.9985e6])
    by_a, by_x = dflow.vmap(dflow.grad(f, argnums=(0, 1)))(*at)
    sign = 1 if name == "gammainc" else -1
    np.testing.assert_allclose(by_x, sign * np.exp(stats.gamma.logpdf(at[1], at[0])), rtol=1e-8)
    np.testing.assert_allclose(by_a, f(at[0] + 0.5, at[1]) - f(at[0] - 0.5, at[1]), rtol=1e-5)


def test_incomplete_beta_function_of_huge_parameters_is_not_cut_off():
    assert np.isnan(dflow.jit(sp.betainc)(1e14, 1e14, 0.5))


def test_signs_of_large_arguments():
    """They come from the gamma functions; logarithms do not have them."""
    n, k = np.array([200.5, 200.5, -150.5]), np.array([203.2, 204.2, 3.2])
    np.testing.assert_allclose(dflow.jit(sp.binom)(n, k), sp.binom(n, k), rtol=1e-10)
    assert dflow.jit(sp.xlogy)(0.0, np.inf) == 0.0
    np.testing.assert_allclose(dflow.grad(np.expm1)(-40.0), np.exp(-40.0))


def _pairs(xs, ys):
    return [g.ravel() for g in np.meshgrid(np.array(xs, float), np.array(ys, float))]


WHOLE = [-4, -3, -1.5, -1, 0, 0.5, 1, 2, 5, 9]
CORNERS = {
    "binom": (
        _pairs([-4, -1.5, -0.3, 0, 1, 4, 5.2, 30, 150, 1e10, 1e90], [-4, -1.5, 0, 0.4, 1, 7, 29, 100, 160.5]),
        2e-11,
    ),
    "beta": (_pairs([x for x in WHOLE if x > -1.5], WHOLE), 1e-12),
    "betaln": (_pairs(WHOLE, [x for x in WHOLE if x > -1.5]), 1e-12),
    "poch": (_pairs(WHOLE, WHOLE), 1e-11),
    "betainc": ((*map(np.ravel, np.meshgrid([0, 2.5, np.inf], [0, 1.0, np.inf], [0, 0.5, 1])),), 1e-14),
    "betaincc": ((*map(np.ravel, np.meshgrid([0, 2.5, np.inf], [0, 1.0, np.inf], [0, 0.5, 1])),), 1e-14),
    "rel_entr": (_pairs([1e-200, 4, 1e300], [2.2e-308, 1, 1e200]), 1e-12),
    "boxcox": (_pairs([0, 2, np.inf], [-1, -1e-300, 0, 1e-300, 1]), 1e-14),
}


@pytest.mark.parametrize("name", CORNERS)
def test_poles_zeros_and_limits(name):
    args, tolerance = CORNERS[name]
    f = getattr(sp, name)
    np.testing.assert_allclose(dflow.jit(f)(*args), f(*args), rtol=tolerance)


def test_slopes_at_the_zeros_of_binom_and_poch():
    """There the reciprocal of a gamma function passes through 0."""
    for f, point, i in ((sp.binom, (4.0, 6.0), 1), (sp.binom, (90.0, 95.0), 1), (sp.poch, (-3.0, 4.5), 0)):
        lower, upper = (f(*(v + e * (j == i) for j, v in enumerate(point))) for e in (-1e-5, 1e-5))
        slope = dflow.grad(f, argnums=i)(*point)
        np.testing.assert_allclose(slope, (upper - lower) / 2e-5, rtol=1e-4)


def test_betaln_of_large_numbers():
    x = np.geomspace(1.0, 1e30, 61)
    value, slope = dflow.jvp(lambda x: sp.betaln(x, 1.0), (x,), (np.ones(61),))
    np.testing.assert_allclose(value, -np.log(x), atol=2e-14)
    np.testing.assert_allclose(slope, -1 / x, rtol=1e-12)
    slopes = dflow.jit(dflow.grad(sp.betaln, argnums=(0, 1)))
    for x, y in ((12.0, 0.5), (40.0, 40.0), (3.0, 40.0)):
        np.testing.assert_allclose(slopes(x, y), sp.psi([x, y]) - sp.psi(x + y), rtol=1e-12)
    second = dflow.grad(dflow.grad(sp.betaln), 1)(40.0, 40.0)
    np.testing.assert_allclose(second, -sp.polygamma(1, 80.0), rtol=1e-11)
    np.testing.assert_array_equal(dflow.jit(sp.betaln)(np.array([np.inf, 2.0]), np.array([1.0, np.inf])), -np.inf)


def test_one_choice_of_nothing():
    n, k = np.array([0, 0, 3]), np.array([0, 4, 0])
    found = dflow.jit(lambda n, k: sp.comb(n, k, repetition=True))(n, k)
    np.testing.assert_array_equal(found, [1.0, 0.0, 1.0])


def test_slopes_of_betainc_and_of_transformations_near_the_logarithm():
    slopes = dflow.jit(dflow.grad(sp.betainc, argnums=(0, 1, 2)))
    at_bounds = [slopes(*p)[2] for p in ((1.0, 3.0, 0.0), (0.5, 3.0, 0.0), (2.0, 3.0, 1.0))]
    np.testing.assert_allclose(at_bounds, [3.0, np.inf, 0.0])
    for p in ((0.4, 2.5, 0.1), (2.0, 0.7, 0.5), (5.0, 3.0, 0.9), (90.0, 70.0, 0.6)):
        steps = 1e-5 * np.eye(3)
        numeric = [(sp.betainc(*(p + h)) - sp.betainc(*(p - h))) / 2e-5 for h in steps]
        np.testing.assert_allclose(slopes(*p), numeric, rtol=2e-6)
    ends = np.array([0.0, 1.0, -0.1, 1.1, np.nan])
    np.testing.assert_array_equal(dflow.jit(lambda x: sp.betainc(2.0, 3.0, x))(ends), sp.betainc(2.0, 3.0, ends))
    first, second = dflow.grad(lambda p: sp.boxcox(2.5, p)), dflow.grad(dflow.grad(lambda p: sp.boxcox(2.5, p)))
    np.testing.assert_allclose([first(0.0), second(0.0)], [np.log(2.5) ** 2 / 2, np.log(2.5) ** 3 / 3])


@pytest.mark.parametrize("name", ["gammainc", "betainc"])
def test_rounding_keeps_no_fraction_going(name):
    """Of many elements some have factors that stay beside 1 for ever."""
    args = np.random.default_rng(0).uniform(
        0.1, 0.9 if name == "betainc" else 3.0, (3 if name == "betainc" else 2, 4000)
    )
    b = Builder([TensorType(F64, (4000,))] * len(args))
    f = b.function(name, [{**BETA_RULES, **GAMMA_RULES}[name](b, *b.args)])
    operations = 0

    def count(*_: object) -> None:
        nonlocal operations
        operations += 1

    (found,) = evaluate(f, list(args), on_op=count)
    np.testing.assert_allclose(found, getattr(sp, name)(*args), rtol=1e-13)
    assert operations < 10_000


def test_the_incomplete_beta_function_of_large_parameters():
    """Where the logarithms of powers and beta functions cancel. At x = 1/2 with equal parameters it is 1/2."""
    p = np.array([1e2, 1e4, 1e8, 1e10])
    np.testing.assert_allclose(dflow.jit(sp.betainc)(p, p, 0.5 + 0 * p), 0.5, rtol=1e-10)
    args = (p[:3], 2 * p[:3], (1 + 1 / np.sqrt(p[:3])) / 3)
    np.testing.assert_allclose(dflow.jit(sp.betainc)(*args), sp.betainc(*args), rtol=1e-10)
    dflow.check_grads(sp.betainc, (np.array([30.0, 1e3]), np.array([90.0, 2e3]), np.array([0.25, 0.33])), rtol=1e-5)
