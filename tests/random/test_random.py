"""Random bits against published vectors; distributions by their moments; derivatives of samples by parameters."""

import numpy as np
import pytest

import dflow
import dflow.random as random
from dflow.random.threefry import threefry

KEY = random.key(42)
COUNT = 20_000


@pytest.mark.parametrize(
    "key, counter, wanted",
    [  # the known answers of Random123 for threefry2x32 with 20 rounds
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_published_vectors(key, counter, wanted):
    got = dflow.jit(lambda k, c: threefry(k, c[0], c[1]))(np.array(key, np.uint32), np.array(counter, np.uint32))
    assert tuple(map(int, got)) == wanted


def test_keys():
    assert KEY.tolist() == [0, 42]
    first, second = random.split(KEY)
    assert first.tolist() != second.tolist()
    assert random.split(KEY, (2, 3)).shape == (2, 3, 2)
    assert random.fold_in(KEY, 1).tolist() != random.fold_in(KEY, 2).tolist()
    assert random.key(-1).tolist() == [0xFFFFFFFF, 0xFFFFFFFF]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64])
def test_bits(dtype):
    drawn = random.bits(KEY, (4000,), dtype)
    assert drawn.dtype == dtype
    ones = np.bitwise_count(drawn).mean() / (8 * drawn.itemsize)
    assert abs(ones - 0.5) < 0.02


# name -> (arguments, mean, variance)
DISTRIBUTIONS = {
    "uniform": (((COUNT,),), 1 / 2, 1 / 12),
    "normal": (((COUNT,),), 0.0, 1.0),
    "exponential": (((COUNT,),), 1.0, 1.0),
    "gumbel": (((COUNT,),), 0.5772, np.pi**2 / 6),
    "laplace": (((COUNT,),), 0.0, 2.0),
    "logistic": (((COUNT,),), 0.0, np.pi**2 / 3),
    "lognormal": ((0.5, (COUNT,)), np.exp(0.125), (np.exp(0.25) - 1) * np.exp(0.25)),
    "gamma": ((0.7, (COUNT,)), 0.7, 0.7),
    "poisson": ((4.0, (COUNT,)), 4.0, 4.0),
    "bernoulli": ((0.3, (COUNT,)), 0.3, 0.21),
    "rademacher": (((COUNT,),), 0.0, 1.0),
    "randint": (((COUNT,), 2, 9), 5.0, 4.0),
    "categorical": ((np.log([0.2, 0.3, 0.5]), -1, (COUNT,)), 1.3, 0.61),
    "choice": ((5, (COUNT,)), 2.0, 2.0),
    "truncated_normal": ((-1.0, 2.0, (COUNT,)), 0.229637, 0.517496),
    "pareto": ((8.0, (COUNT,)), 8 / 7, 8 / (49 * 6)),
    "rayleigh": ((2.0, (COUNT,)), 2 * np.sqrt(np.pi / 2), 4 * (2 - np.pi / 2)),
    "weibull_min": ((2.0, 1.5, (COUNT,)), 2 * 0.902745, 4 * 0.375690),
    "maxwell": (((COUNT,),), 2 * np.sqrt(2 / np.pi), 3 - 8 / np.pi),
    "triangular": ((0.0, 1.0, 3.0, (COUNT,)), 4 / 3, 7 / 18),
    "wald": ((0.5, (COUNT,)), 0.5, 0.125),
    "loggamma": ((2.0, (COUNT,)), 0.4227843, 0.6449341),
    "f": ((3.0, 20.0, (COUNT,)), 20 / 18, 2 * 400 * 21 / (3 * 324 * 16)),
    "geometric": ((0.3, (COUNT,)), 1 / 0.3, 0.7 / 0.09),
    "binomial": ((9, 0.7, (COUNT,)), 6.3, 1.89),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_moments(name):
    args, mean, variance = DISTRIBUTIONS[name]
    x = getattr(random, name)(KEY, *args).astype(float)
    assert x.shape == (COUNT,)
    assert abs(x.mean() - mean) < 5 * np.sqrt(variance / COUNT)
    assert abs(x.var() / variance - 1) < 0.12


def test_orders_and_subsets():
    assert sorted(random.permutation(KEY, 8).tolist()) == list(range(8))
    x = np.arange(12.0).reshape(3, 4)
    assert sorted(random.permutation(KEY, x, 1)[0].tolist()) == [0, 1, 2, 3]
    assert len(set(random.choice(KEY, 6, (4,), False).tolist())) == 4
    assert len(set(random.choice(KEY, 6, (4,), False, np.arange(1.0, 7.0)).tolist())) == 4
    often = random.choice(KEY, np.array([3, 4, 5]), (2000,), True, np.array([0.1, 0.1, 0.8]))
    assert abs((often == 5).mean() - 0.8) < 0.05


def test_samples_are_functions_of_their_parameters():
    def sample(scale, shift):
        return np.mean(shift + scale * random.normal(random.key(0), (50,)))

    z = random.normal(random.key(0), (50,))
    by_scale, by_shift = dflow.grad(sample, (0, 1))(2.0, 1.0)
    np.testing.assert_allclose([by_scale, by_shift], [z.mean(), 1.0], rtol=1e-12)
    low, high = dflow.grad(lambda a, b: random.uniform(random.key(0), (), float, a, b), (0, 1))(1.0, 3.0)
    np.testing.assert_allclose(low + high, 1.0)


def test_traced_and_concrete_keys_agree():
    got = dflow.jit(lambda k: random.normal(random.fold_in(k, 7), (3,), np.float32))(KEY)
    np.testing.assert_array_equal(got, random.normal(random.fold_in(KEY, 7), (3,), np.float32))
    assert got.dtype == np.float32


def test_vmap_over_keys():
    keys = random.split(KEY, 3)
    got = dflow.vmap(lambda k: random.uniform(k, (2,)))(keys)
    np.testing.assert_array_equal(got, [random.uniform(k, (2,)) for k in keys])


@pytest.mark.parametrize(
    "f, error, message",
    [
        (lambda: random.multivariate_normal(KEY, np.ones(2), np.eye(3)), ValueError, "does not fit"),
        (lambda: random.normal(KEY, (2,), int), TypeError, "are floats"),
        (lambda: random.choice(KEY, 3, (4,), False), ValueError, "cannot be taken"),
        (lambda: random.bernoulli(KEY, np.ones(3), (2,)), ValueError, "do not broadcast"),
    ],
)
def test_errors_tell(f, error, message):
    with pytest.raises(error, match=message):
        f()


def test_gamma_samples_follow_the_shape_parameter():
    """The distribution function at the sample stays as it is, to the second order."""
    special = pytest.importorskip("scipy.special")

    def sample(a):
        return random.gamma(KEY, a)

    a = np.array([0.05, 0.7, 3.0, 40.0])
    x = sample(a)
    level, h = special.gammainc(a, x), 1e-5 * a
    moved = [special.gammaincinv(a + s * h, level) for s in (1, -1)]
    first = dflow.grad(lambda a: np.sum(sample(a)))(a)
    np.testing.assert_allclose(first, (moved[0] - moved[1]) / (2 * h), rtol=1e-6)
    second = dflow.grad(lambda a: np.sum(dflow.grad(lambda a: np.sum(sample(a)))(a)))(a)
    h = 1e-3 * a
    moved = [special.gammaincinv(a + s * h, level) for s in (1, 0, -1)]
    np.testing.assert_allclose(second, (moved[0] - 2 * moved[1] + moved[2]) / h**2, rtol=2e-4, atol=1e-7)


def test_vectors_and_matrices():
    cov = np.array([[2.0, 0.6], [0.6, 0.5]])
    for method in ("cholesky", "eigh"):
        x = random.multivariate_normal(KEY, np.array([1.0, -1.0]), cov, (COUNT,), method=method)
        np.testing.assert_allclose(np.cov(x.T), cov, atol=0.06)
        np.testing.assert_allclose(x.mean(0), [1, -1], atol=0.04)
    q = random.orthogonal(KEY, 3, (2,))
    np.testing.assert_allclose(q @ q.mT, np.broadcast_to(np.eye(3), (2, 3, 3)), atol=1e-12)
    lengths = np.sum(random.ball(KEY, 2, (COUNT,)) ** 2, -1)
    assert abs(lengths.mean() - 0.5) < 0.01 and lengths.max() < 1
    counts = random.multinomial(KEY, 10, np.array([0.2, 0.5, 0.3]), (2000,))
    assert (counts.sum(-1) == 10).all()
    np.testing.assert_allclose(counts.mean(0), [2, 5, 3], atol=0.15)


def test_normal_numbers_far_out():
    x = random.truncated_normal(KEY, np.array([10.0, -31.0]), np.array([11.0, -30.0]), (1000, 2))
    assert (x[:, 0] > 10).all() and (x[:, 0] < 11).all() and (x[:, 1] < -30).all()
    np.testing.assert_allclose(x.mean(0), [10.0981, -30.0333], atol=0.02)
    dflow.check_grads(lambda a, b: random.truncated_normal(KEY, a, b), (0.5, 2.0))


def test_counters_are_no_table_of_constants():
    text = dflow.jit(lambda seed: random.uniform(random.key(seed), (1000,))).lower(3).ir("traced")
    assert "iota" in text and "999]" not in text
