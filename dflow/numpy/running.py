"""Running sums and products: loops along an axis, so that their derivatives are those of loops."""

from __future__ import annotations

from typing import Any

import numpy

from dflow.ir.core import Value
from dflow.ir.types import kind_of
from dflow.numpy import support as s
from dflow.numpy.dispatch import UFUNC_METHODS, implements
from dflow.numpy.reductions import accumulator
from dflow.numpy.shapes import flat
from dflow.numpy.ufunc_rules import rule_for
from dflow.tracing.arrays import layouts
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import lift, wrap
from dflow.tracing.context import builder

np: Any = numpy  # its functions on traced arrays; the types of its own would be in the way


def _running(ufunc: numpy.ufunc) -> Any:
    """A loop along the axis that carries the running value and the results so far."""

    def call(a: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Array:
        x = lift(a)
        v = s.cast(x.value, accumulator(x, dtype))
        if axis is None:
            v = flat(v)
        new = s.result(scan(ufunc, v, 0 if axis is None else s.one_axis(axis, v.type.rank)), out)
        if out is None:
            layouts.lies_like(new.cell, v)
        return new

    return call


def scan(ufunc: numpy.ufunc, v: Value, axis: int) -> Value:
    """The running value along an axis, from the ufunc's neutral element or else from the first element on."""
    b, rule = builder(), rule_for(ufunc.__name__, v.type.dtype)
    index = tuple("at" if k == axis else "all" for k in range(v.type.rank))
    skip = 1 if ufunc.identity is None else 0
    if skip and v.type.shape[axis] == 0:
        return v
    if skip:
        first = b.extract(v, b.index(0), index=index)
        results = b.update(b.zeros(v.type), first, b.index(0), index=index)
    else:
        first = b.full(ufunc.identity, v.type.with_shape(_dropped(v.type.shape, axis)))
        results = b.zeros(v.type)

    def body(b: Any, k: Value, so_far: Value, results: Value) -> list[Value]:
        at = b.add(k, skip) if skip else k
        so_far = rule(b, so_far, b.extract(v, at, index=index))
        return [so_far, b.update(results, so_far, at, index=index)]

    count = b.size(v.type.shape[axis])
    return b.for_loop(b.sub(count, skip) if skip else count, [first, results], body)[1]


def _dropped(shape: s.Shape, axis: int) -> s.Shape:
    return tuple(d for k, d in enumerate(shape) if k != axis)


cumsum = implements(np.cumsum)(_running(np.add))
cumprod = implements(np.cumprod)(_running(np.multiply))


def _accumulate(scan: Any) -> Any:
    return lambda array, axis=0, dtype=None, out=None: scan(array, axis, dtype, out)


UFUNC_METHODS[np.add, "accumulate"] = _accumulate(_running(np.add))
UFUNC_METHODS[np.multiply, "accumulate"] = _accumulate(_running(np.multiply))


def _cumulative(ufunc: numpy.ufunc) -> Any:
    running = _running(ufunc)

    def call(
        x: Any, /, *, axis: Any = None, dtype: Any = None, out: Any = None, include_initial: bool = False
    ) -> Array:
        x = lift(x)
        if axis is None and x.ndim != 1:
            raise ValueError("For arrays which have more than one dimension ``axis`` argument is required.")
        at = 0 if axis is None else s.one_axis(axis, x.ndim)
        found = running(x, at, dtype)
        if include_initial:
            first = s.full(tuple(1 if k == at else d for k, d in enumerate(s.dims(x))), ufunc.identity, found.dtype)
            found = wrap(s.join([first, found.value], at))
        return s.result(found.value, out)

    return call


for _name, _ufunc in (("cumulative_sum", np.add), ("cumulative_prod", np.multiply)):  # NumPy has them since 2.1
    _call = _cumulative(_ufunc)
    _call.__name__ = _call.__qualname__ = _name
    globals()[_name] = implements(getattr(np, _name, None))(_call)


def _without_nan(ufunc: numpy.ufunc) -> Any:
    running = _running(ufunc)

    def call(a: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Array:
        x = lift(a)
        if kind_of(x.dtype) in "fc":
            x = np.where(np.isnan(x), np.asarray(ufunc.identity, x.dtype), x)
        return running(x, axis, dtype, out)

    return call


nancumsum = implements(np.nancumsum)(_without_nan(np.add))
nancumprod = implements(np.nancumprod)(_without_nan(np.multiply))
