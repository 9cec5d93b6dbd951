"""Running sums and products: loops along an axis, so that their derivatives are those of loops."""

from __future__ import annotations

from typing import Any

import numpy as np

from dflow.ir.core import Value
from dflow.numpy import support as s
from dflow.numpy.dispatch import UFUNC_METHODS, implements
from dflow.numpy.reductions import accumulator
from dflow.numpy.ufunc_rules import rule_for
from dflow.tracing.array import Array
from dflow.tracing.context import builder
from dflow.tracing.lift import lift


def _running(ufunc: np.ufunc) -> Any:
    """A loop along the axis that carries the running value and the results so far."""

    def call(a: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Array:
        x = lift(a)
        v = s.cast(x.value, accumulator(x, dtype))
        if axis is None:
            v = s.reshaped(v, (int(np.prod(s.static(v.type.shape, "a running sum over the flattened array"))),))
        return s.result(_scan(ufunc, v, 0 if axis is None else s.one_axis(axis, v.type.rank)), out)

    return call


def _scan(ufunc: np.ufunc, v: Value, axis: int) -> Value:
    b, rule = builder(), rule_for(ufunc.__name__, v.type.dtype)
    index = tuple("at" if k == axis else "all" for k in range(v.type.rank))
    first = b.full(1 if ufunc is np.multiply else 0, v.type.with_shape(_dropped(v.type.shape, axis)))

    def body(b: Any, k: Value, so_far: Value, results: Value) -> list[Value]:
        so_far = rule(b, so_far, b.extract(v, k, index=index))
        return [so_far, b.update(results, so_far, k, index=index)]

    return b.for_loop(b.size(v.type.shape[axis]), [first, b.zeros(v.type)], body)[1]


def _dropped(shape: s.Shape, axis: int) -> s.Shape:
    return tuple(d for k, d in enumerate(shape) if k != axis)


cumsum = implements(np.cumsum)(_running(np.add))
cumprod = implements(np.cumprod)(_running(np.multiply))


def _accumulate(scan: Any) -> Any:
    return lambda array, axis=0, dtype=None, out=None: scan(array, axis, dtype, out)


UFUNC_METHODS[np.add, "accumulate"] = _accumulate(_running(np.add))
UFUNC_METHODS[np.multiply, "accumulate"] = _accumulate(_running(np.multiply))


def _cumulative(ufunc: np.ufunc) -> Any:
    scan = _running(ufunc)

    def call(
        x: Any, /, *, axis: Any = None, dtype: Any = None, out: Any = None, include_initial: bool = False
    ) -> Array:
        x = lift(x)
        if include_initial or (axis is None and x.ndim != 1):
            raise ValueError("cumulative sums and products take one axis here, without include_initial")
        return scan(x, 0 if axis is None else axis, dtype, out)

    return call


# NumPy has them since 2.1.
for _name, _ufunc in (("cumulative_sum", np.add), ("cumulative_prod", np.multiply)):
    if hasattr(np, _name):
        implements(getattr(np, _name))(_cumulative(_ufunc))
