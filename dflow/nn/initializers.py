"""Initial weights: functions that give ``init(key, shape, dtype)``, under the names of ``jax.nn.initializers``."""

from __future__ import annotations

from collections.abc import Callable
from math import prod, sqrt
from typing import Any

import numpy as np

from dflow import random

Initializer = Callable[..., Any]

_CUT = 0.87962566103423978  # the standard deviation of the normal distribution between -2 and 2


def zeros(key: Any, shape: Any, dtype: Any = float) -> Any:
    """0 everywhere."""
    return np.zeros(shape, dtype)


def ones(key: Any, shape: Any, dtype: Any = float) -> Any:
    """1 everywhere."""
    return np.ones(shape, dtype)


def constant(value: Any, dtype: Any = float) -> Initializer:
    """One value everywhere."""

    def init(key: Any, shape: Any, dtype: Any = dtype) -> Any:
        return np.full(shape, value).astype(dtype)

    return init


def uniform(scale: Any = 1e-2, dtype: Any = float) -> Initializer:
    """Evenly in [0, scale)."""

    def init(key: Any, shape: Any, dtype: Any = dtype) -> Any:
        return random.uniform(key, shape, dtype) * np.asarray(scale, dtype)

    return init


def normal(stddev: Any = 1e-2, dtype: Any = float) -> Initializer:
    """Normal with this standard deviation."""

    def init(key: Any, shape: Any, dtype: Any = dtype) -> Any:
        return random.normal(key, shape, dtype) * np.asarray(stddev, dtype)

    return init


def truncated_normal(stddev: Any = 1e-2, dtype: Any = float, lower: Any = -2.0, upper: Any = 2.0) -> Initializer:
    """Normal between ``lower`` and ``upper``, times ``stddev``."""

    def init(key: Any, shape: Any, dtype: Any = dtype) -> Any:
        return random.truncated_normal(key, lower, upper, shape, dtype) * np.asarray(stddev, dtype)

    return init


def orthogonal(scale: Any = 1.0, column_axis: int = -1, dtype: Any = float) -> Initializer:
    """Orthogonal columns (or rows, where there are more columns) along ``column_axis``, times ``scale``."""

    def init(key: Any, shape: Any, dtype: Any = dtype) -> Any:
        if len(shape) < 2:
            raise ValueError(f"orthogonal weights need two axes or more, got shape {tuple(shape)}")
        columns = shape[column_axis]
        rows = prod(shape) // columns
        q = random.orthogonal(key, max(rows, columns), dtype=dtype)[:rows, :columns]
        rest = tuple(np.delete(shape, column_axis).tolist())
        return np.asarray(scale, dtype) * np.moveaxis(q.reshape((*rest, columns)), -1, column_axis)

    return init


def delta_orthogonal(scale: Any = 1.0, column_axis: int = -1, dtype: Any = float) -> Initializer:
    """Kernels (window, in, out) that are an orthogonal matrix in the middle of the window, and 0 around it (Xiao et al.
    2018)."""
    square = orthogonal(scale, column_axis, dtype)

    def init(key: Any, shape: Any, dtype: Any = dtype) -> Any:
        *window, inputs, outputs = shape
        if not window or outputs < inputs:
            raise ValueError(f"kernels need a window, and at least as many outputs as inputs, got shape {tuple(shape)}")
        middle = square(key, (outputs, outputs), dtype)[:inputs]
        widths = [((n - 1) // 2, n // 2) for n in window]
        return np.pad(middle.reshape((*[1] * len(window), inputs, outputs)), [*widths, (0, 0), (0, 0)])

    return init


def variance_scaling(
    scale: Any,
    mode: str,
    distribution: str,
    in_axis: Any = -2,
    out_axis: Any = -1,
    batch_axis: Any = (),
    dtype: Any = float,
) -> Initializer:
    """The variance ``scale / fan``: the number of inputs ("fan_in"), of outputs ("fan_out"), their mean ("fan_avg") or
    their geometric mean ("fan_geo_avg"). The distribution is "normal", "truncated_normal" or "uniform"."""
    drawn = {
        "normal": lambda key, shape, dtype: random.normal(key, shape, dtype),
        "truncated_normal": lambda key, shape, dtype: random.truncated_normal(key, -2.0, 2.0, shape, dtype) / _CUT,
        "uniform": lambda key, shape, dtype: random.uniform(key, shape, dtype, -1.0, 1.0) * sqrt(3.0),
    }
    if distribution not in drawn:
        raise ValueError(f"the distribution is one of {', '.join(drawn)}, got {distribution!r}")

    def init(key: Any, shape: Any, dtype: Any = dtype) -> Any:
        deviation = np.sqrt(scale / _fan(shape, mode, in_axis, out_axis, batch_axis))
        return (drawn[distribution](key, shape, dtype) * np.asarray(deviation, dtype)).astype(dtype)

    return init


def _fan(shape: Any, mode: str, in_axis: Any, out_axis: Any, batch_axis: Any) -> float:
    def size(axes: Any) -> int:
        return prod(shape[a] for a in ((axes,) if isinstance(axes, int) else axes))

    if len(shape) < 2:
        raise ValueError(f"weights with inputs and outputs need two axes or more, got shape {tuple(shape)}")
    inputs, outputs = size(in_axis), size(out_axis)
    field = prod(shape) / (inputs * outputs * size(batch_axis))
    ways = {
        "fan_in": inputs,
        "fan_out": outputs,
        "fan_avg": (inputs + outputs) / 2,
        "fan_geo_avg": sqrt(inputs * outputs),
    }
    if mode not in ways:
        raise ValueError(f"the mode is one of {', '.join(ways)}, got {mode!r}")
    return ways[mode] * field


def _named(name: str, scale: float, mode: str, distribution: str, doc: str) -> Callable[..., Initializer]:
    def make(in_axis: Any = -2, out_axis: Any = -1, batch_axis: Any = (), dtype: Any = float) -> Initializer:
        return variance_scaling(scale, mode, distribution, in_axis, out_axis, batch_axis, dtype)

    make.__name__ = make.__qualname__ = name
    make.__doc__ = f"{doc}: ``variance_scaling({scale}, {mode!r}, {distribution!r})``."
    return make


glorot_normal = _named("glorot_normal", 1.0, "fan_avg", "truncated_normal", "Glorot and Bengio 2010")
glorot_uniform = _named("glorot_uniform", 1.0, "fan_avg", "uniform", "Glorot and Bengio 2010")
he_normal = _named("he_normal", 2.0, "fan_in", "truncated_normal", "He, Zhang, Ren and Sun 2015")
he_uniform = _named("he_uniform", 2.0, "fan_in", "uniform", "He, Zhang, Ren and Sun 2015")
lecun_normal = _named("lecun_normal", 1.0, "fan_in", "truncated_normal", "LeCun, Bottou, Orr and Mueller 1998")
lecun_uniform = _named("lecun_uniform", 1.0, "fan_in", "uniform", "LeCun, Bottou, Orr and Mueller 1998")
xavier_normal, xavier_uniform, kaiming_normal, kaiming_uniform = glorot_normal, glorot_uniform, he_normal, he_uniform
