"""The problem gmm: the log posterior of a mixture of Gaussians, with a Wishart prior on the precision matrices."""

from math import lgamma, log, pi

import numpy as np

from benchmarks.gradbench.basic import log_sum_exp


def posterior(parameters, x, gamma, m, constant):
    """``parameters``: alpha [k], mu [k, d], q [k, d], l [k, d (d - 1) / 2]; ``constant`` does not depend on them."""
    alpha, mu, q, l = parameters
    n, d = x.shape
    k = len(alpha)
    diagonal = np.exp(q)
    sums = np.sum(q, axis=1)
    total = 0.0
    terms = np.empty(k)
    y = np.empty(d)
    for i in range(n):
        for c in range(k):
            for a in range(d):
                y[a] = diagonal[c, a] * (x[i, a] - mu[c, a])
            at = 0
            for a in range(d):
                for b in range(a + 1, d):
                    y[b] += l[c, at] * (x[i, a] - mu[c, a])
                    at += 1
            terms[c] = alpha[c] + sums[c] - 0.5 * np.sum(y * y)
        total += log_sum_exp(terms)
    prior = 0.5 * gamma * gamma * (np.sum(diagonal**2) + np.sum(l**2)) - m * np.sum(sums)
    return constant + total - n * log_sum_exp(alpha) - prior


def constant(n, d, k, gamma, m):
    f = d + m + 1
    log_gamma = 0.25 * d * (d - 1) * log(pi) + sum(lgamma(0.5 * f + 0.5 * (1 - j)) for j in range(1, d + 1))
    return -n * d * 0.5 * log(2 * pi) + k * (f * d * (log(gamma) - 0.5 * log(2)) - log_gamma)
