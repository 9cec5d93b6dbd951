"""Random numbers from keys: every function is a function of its key, traced, compiled and repeatable like any other.

A key comes from ``key(seed)``; ``split`` makes new ones, and each is used once.
"""

from dflow.random.continuous import (
    beta,
    cauchy,
    chisquare,
    dirichlet,
    exponential,
    gamma,
    gumbel,
    laplace,
    logistic,
    lognormal,
    normal,
    t,
    uniform,
)
from dflow.random.discrete import bernoulli, categorical, choice, permutation, poisson, rademacher, randint
from dflow.random.threefry import bits, fold_in, key, split

__all__ = [
    "bernoulli",
    "beta",
    "bits",
    "categorical",
    "cauchy",
    "chisquare",
    "choice",
    "dirichlet",
    "exponential",
    "fold_in",
    "gamma",
    "gumbel",
    "key",
    "laplace",
    "logistic",
    "lognormal",
    "normal",
    "permutation",
    "poisson",
    "rademacher",
    "randint",
    "split",
    "t",
    "uniform",
]
