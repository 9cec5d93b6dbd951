"""Distributions of vectors and matrices."""

from __future__ import annotations

from typing import Any

import numpy

import dflow.random.threefry as generator
from dflow.random.continuous import _as, exponential, normal, sampler
from dflow.random.threefry import shape_of

np: Any = numpy


@sampler
def multivariate_normal(
    key: Any, mean: Any, cov: Any, shape: Any = None, dtype: Any = float, method: str = "cholesky"
) -> Any:
    """Normal vectors along the last axis; ``shape`` is that of their collection. ``cov`` is the covariance matrix, or a
    stack of them. By its Cholesky factor (LinAlgError where it has none); ``method`` "eigh" takes those that are
    singular too, and has derivatives where no eigenvalues are equal."""
    mean, cov = _as(dtype, mean, cov)
    n = mean.shape[-1]
    if cov.shape[-2:] != (n, n):
        raise ValueError(f"a covariance matrix of shape {cov.shape} does not fit a mean of shape {mean.shape}")
    if method not in ("cholesky", "eigh"):
        raise ValueError(f"method must be 'cholesky' or 'eigh', got {method!r}")
    given = np.broadcast_shapes(mean.shape[:-1], cov.shape[:-2])
    z = normal.__wrapped__(key, (*(given if shape is None else shape_of(shape)), n), dtype)
    if method == "cholesky":
        factor = np.linalg.cholesky(cov)
    else:
        w, v = np.linalg.eigh(cov)
        factor = v * np.sqrt(np.maximum(w, 0.0))[..., None, :]
    return mean + (factor @ z[..., None])[..., 0]


@sampler
def orthogonal(key: Any, n: int, shape: Any = (), dtype: Any = float) -> Any:
    """Orthogonal n by n matrices, evenly distributed (Mezzadri 2007)."""
    q, r = np.linalg.qr(normal.__wrapped__(key, (*shape_of(shape), n, n), dtype))
    return q * np.sign(np.diagonal(r, axis1=-2, axis2=-1))[..., None, :]


@sampler
def ball(key: Any, d: int, shape: Any = (), dtype: Any = float) -> Any:
    """Points evenly in the unit ball of ``d`` dimensions, along the last axis."""
    first, second = generator.split.__wrapped__(key)
    wanted = shape_of(shape)
    z = normal.__wrapped__(first, (*wanted, d), dtype)
    rest = 2.0 * exponential.__wrapped__(second, wanted, dtype)
    return z / np.sqrt(np.sum(z**2, axis=-1) + rest)[..., None]
