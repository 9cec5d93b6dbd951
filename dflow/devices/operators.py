"""Operators, methods, indexing and NumPy's functions of arrays on a device: each a compiled function there."""

from __future__ import annotations

import math
import operator
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np

from dflow.tracing.arrays.array import Array as Traced

MAX_FUNCTIONS = 1024  # compiled ones that are kept
_functions: OrderedDict[Hashable, Any] = OrderedDict()


def compiled(key: Hashable, make: Callable[[], Callable[..., Any]]) -> Any:
    """The function that ``make`` gives, compiled for the device; made once for a key."""
    from dflow.api import jit  # which needs arrays itself

    found = _functions.get(key)
    if found is None:
        found = _functions[key] = jit(make(), device="cuda")
        if len(_functions) > MAX_FUNCTIONS:
            _functions.popitem(last=False)
    return found


def is_operand(x: Any) -> bool:
    """Whether an operator takes it beside an array on the device."""
    return isinstance(x, int | float | complex | np.generic | np.ndarray | DeviceOperators)


def _binary(function: Callable[..., Any]) -> tuple[Any, Any]:
    def forward(self: Any, other: Any) -> Any:
        if isinstance(other, Traced):  # the array is closed over
            return function(np.asarray(self), other)
        return compiled(function, lambda: function)(self, other) if is_operand(other) else NotImplemented

    def backward(self: Any, other: Any) -> Any:
        if isinstance(other, Traced):
            return function(other, np.asarray(self))
        return compiled(function, lambda: function)(other, self) if is_operand(other) else NotImplemented

    return forward, backward


def _in_place(function: Callable[..., Any]) -> Any:
    def update(x: Any, y: Any) -> None:
        function(x, y)

    def run(self: Any, other: Any) -> Any:
        if not is_operand(other):
            return NotImplemented
        compiled(function, lambda: update)(self, _apart(self, other))
        return self

    return run


def _called(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """A function with arrays among its arguments; all else is a part of what is compiled."""
    from dflow.numpy.eager import compiled  # which needs compiled functions, and these need arrays

    return compiled(function, args, kwargs)


def _unbound(name: str) -> Callable[..., Any]:
    def method(x: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(x, name)(*args, **kwargs)

    return method


def _method(name: str) -> Any:
    """A method of NumPy's arrays whose arguments, but for arrays, are known while compiling."""

    function = _unbound(name)

    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        return _called(function, (self, *args), kwargs)

    run.__name__ = name
    return run


def _view_method(name: str) -> Any:
    """A method that gives a view in NumPy."""
    function = _unbound(name)

    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self.derived(lambda x: _called(function, (x, *args), kwargs))

    run.__name__ = name
    return run


def _updating_method(name: str) -> Any:
    """A method that changes the array and gives nothing."""
    function = _unbound(name)

    def run(self: Any, *args: Any, **kwargs: Any) -> None:
        self.check_writable("this array")
        _called(function, (self, *args), kwargs)

    run.__name__ = name
    return run


class DeviceOperators:
    """What an array on a device can do because compiled functions do it."""

    __add__, __radd__ = _binary(operator.add)
    __sub__, __rsub__ = _binary(operator.sub)
    __mul__, __rmul__ = _binary(operator.mul)
    __truediv__, __rtruediv__ = _binary(operator.truediv)
    __floordiv__, __rfloordiv__ = _binary(operator.floordiv)
    __mod__, __rmod__ = _binary(operator.mod)
    __pow__, __rpow__ = _binary(operator.pow)
    __matmul__, __rmatmul__ = _binary(operator.matmul)
    __and__, __rand__ = _binary(operator.and_)
    __or__, __ror__ = _binary(operator.or_)
    __xor__, __rxor__ = _binary(operator.xor)
    __lshift__, __rlshift__ = _binary(operator.lshift)
    __rshift__, __rrshift__ = _binary(operator.rshift)
    __lt__, __gt__ = _binary(operator.lt)[0], _binary(operator.gt)[0]
    __le__, __ge__ = _binary(operator.le)[0], _binary(operator.ge)[0]
    __eq__, __ne__ = _binary(operator.eq)[0], _binary(operator.ne)[0]
    __hash__ = None  # type: ignore[assignment]

    __iadd__ = _in_place(operator.iadd)
    __isub__ = _in_place(operator.isub)
    __imul__ = _in_place(operator.imul)
    __itruediv__ = _in_place(operator.itruediv)
    __ifloordiv__ = _in_place(operator.ifloordiv)
    __imod__ = _in_place(operator.imod)
    __ipow__ = _in_place(operator.ipow)

    __neg__ = lambda self: compiled(operator.neg, lambda: operator.neg)(self)  # noqa: E731
    __pos__ = lambda self: self.copy()  # noqa: E731
    __abs__ = lambda self: compiled(operator.abs, lambda: operator.abs)(self)  # noqa: E731
    __invert__ = lambda self: compiled(operator.invert, lambda: operator.invert)(self)  # noqa: E731

    all, any = _method("all"), _method("any")
    argmax, argmin = _method("argmax"), _method("argmin")
    astype, clip, conj, cumsum = _method("astype"), _method("clip"), _method("conj"), _method("cumsum")
    argpartition, argsort, choose, compress = map(_method, ("argpartition", "argsort", "choose", "compress"))
    conjugate, cumprod, nonzero, repeat = map(_method, ("conjugate", "cumprod", "nonzero", "repeat"))
    searchsorted = _method("searchsorted")
    partition, put, sort = _updating_method("partition"), _updating_method("put"), _updating_method("sort")
    dot, max, mean, min, prod = _method("dot"), _method("max"), _method("mean"), _method("min"), _method("prod")
    round, std, sum = _method("round"), _method("std"), _method("sum")
    take, trace, var = _method("take"), _method("trace"), _method("var")
    swapaxes, transpose, diagonal = _view_method("swapaxes"), _view_method("transpose"), _view_method("diagonal")
    mT = property(lambda self: self.swapaxes(-1, -2))
    T = property(lambda self: self.transpose())
    real = property(lambda self: self.derived(compiled(np.real, lambda: lambda x: x.real)))
    imag = property(lambda self: self.derived(compiled(np.imag, lambda: lambda x: x.imag)))

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **kwargs: Any) -> Any:
        run = ufunc if method == "__call__" else getattr(ufunc, method)
        if not kwargs and method == "__call__":
            result = compiled(ufunc, lambda: run)(*inputs)
        else:
            result = _called(run, inputs, kwargs)
        if out is None:
            return result
        targets = out if isinstance(out, tuple) else (out,)
        for target, value in zip(targets, result if isinstance(result, tuple) else (result,)):
            target[...] = value
        return targets[0] if len(targets) == 1 else targets

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        plain = _FACTS.get(function)
        if plain:
            return plain(*args, **kwargs)
        if args and args[0] is self and function in _VIEWS:
            return self.derived(lambda x: _called(function, (x, *args[1:]), kwargs))
        if args and args[0] is self and function in _SPLITS:
            count = len(_called(function, args, kwargs))
            part = lambda k: lambda x: _called(function, (x, *args[1:]), kwargs)[k]  # noqa: E731
            return [self.derived(part(k)) for k in range(count)]
        return _called(function, args, kwargs)

    # --- parts

    def reordered(self, shape: Any, order: str) -> Any:
        """The elements in another order than that of rows, as another shape."""
        return self.derived(lambda x: _called(np.reshape, (x, shape), {"order": order}))  # type: ignore[attr-defined]

    def __getitem__(self, key: Any) -> Any:
        part = None if self._source else _contiguous_part(self, key)  # type: ignore[attr-defined]
        if part is not None:
            return self.view(*part)  # type: ignore[attr-defined]
        if _is_advanced(key):
            return call_indexed("get", _get, self, key)
        return self.derived(  # type: ignore[attr-defined]
            lambda x: call_indexed("get", _get, x, key), lambda x, part: x.__setitem__(key, part.copy())
        )

    def __setitem__(self, key: Any, value: Any) -> None:
        self.check_writable("this array")  # type: ignore[attr-defined]
        part = None if self._source else _contiguous_part(self, key)  # type: ignore[attr-defined]
        target = self if part is None else self.view(*part)  # type: ignore[attr-defined]
        if _is_same(target, value):  # what `x[0] += 1` ends with
            return
        value = _apart(self, value)
        if part is None:
            call_indexed("set", _set, self, key, value)
        else:
            compiled("assign", lambda: _assign)(target, value)


def _apart(x: Any, other: Any) -> Any:
    """``other``, copied when it shares memory with ``x``, which is about to change."""
    if isinstance(other, DeviceOperators) and x.overlaps(other):
        return other.copy()  # type: ignore[attr-defined]
    return other


def _is_same(x: Any, other: Any) -> bool:
    return (
        isinstance(other, DeviceOperators)
        and (x.shape, x.dtype) == (other.shape, other.dtype)  # type: ignore[attr-defined]
        and x.pointer == other.pointer  # type: ignore[attr-defined]
    )


def _assign(x: Any, value: Any) -> None:
    x[...] = value


def _get(x: Any, key: Any) -> Any:
    return x[key]


def _set(x: Any, key: Any, value: Any) -> None:
    x[key] = value


_FACTS: dict[Any, Callable[..., Any]] = {
    np.shape: lambda x: x.shape,
    np.ndim: lambda x: x.ndim,
    np.size: lambda x, axis=None: x.size if axis is None else x.shape[axis],
    np.iscomplexobj: lambda x: x.dtype.kind == "c",
    np.isrealobj: lambda x: x.dtype.kind != "c",
    np.copy: lambda x, **options: x.copy(),
    np.reshape: lambda x, shape=None, order="C", newshape=None, copy=None: x.reshape(
        shape if newshape is None else newshape, order=order, copy=copy
    ),
    np.ravel: lambda x, order="C": x.ravel(order),
    np.array_repr: lambda x, **options: repr(x),
    np.array_str: lambda x, **options: str(x),
}


# Functions that give views in NumPy.
_VIEWS = {
    *(np.transpose, np.swapaxes, np.moveaxis, np.rollaxis, np.broadcast_to, np.expand_dims, np.squeeze, np.diagonal),
    *(np.flip, np.fliplr, np.flipud, np.rot90, np.real, np.imag, np.atleast_1d, np.atleast_2d, np.atleast_3d),
}
_SPLITS = {np.split, np.array_split, np.hsplit, np.vsplit, np.dsplit}  # those that give several


# --- indices


def _contiguous_part(x: Any, key: Any) -> tuple[tuple[int, ...], int] | None:
    """Shape and byte offset of ``x[key]`` when its elements lie side by side; None when they do not, or are picked.

    Raises IndexError as NumPy does.
    """
    keys = key if isinstance(key, tuple) else (key,)
    if any(
        isinstance(k, bool | np.bool_) or not isinstance(k, int | np.integer | slice | type(...) | None) for k in keys
    ):
        return None
    probe = np.broadcast_to(np.empty((), f"V{x.dtype.itemsize}"), x.shape)  # takes no memory
    steps = np.lib.stride_tricks.as_strided(probe, x.shape, _steps(x.shape, x.dtype.itemsize))
    part = steps[key]
    if isinstance(part, np.void) or part.ndim == 0:
        position = np.ravel_multi_index(_integers(x, keys), x.shape) if x.ndim else 0
        return (), int(position) * x.dtype.itemsize
    if part.size and any(
        n != 1 and s != w for n, s, w in zip(part.shape, part.strides, _steps(part.shape, x.itemsize))
    ):
        return None
    offset = part.__array_interface__["data"][0] - steps.__array_interface__["data"][0] if part.size else 0
    return part.shape, offset


def _integers(x: Any, keys: Any) -> list[int]:
    plain = [int(k) for k in keys if isinstance(k, int | np.integer)]
    return [k % n for k, n in zip(plain, x.shape)]


def _steps(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    return tuple(math.prod(shape[k + 1 :]) * itemsize for k in range(len(shape)))


def _is_advanced(key: Any) -> bool:
    """Whether an index picks elements, so that what it gives is a copy in NumPy too."""
    keys = key if isinstance(key, tuple) else (key,)
    return any(isinstance(k, list | np.ndarray | DeviceOperators) for k in keys)


def call_indexed(name: str, function: Callable[..., Any], x: Any, key: Any, *value: Any) -> Any:
    """Runs ``function(x, key, ...)``; integers and arrays in the key may vary from call to call, slices may not.

    Masks become positions, since the shape of what they pick must be known before.
    """
    keys = [_plain_key(k) for k in (key if isinstance(key, tuple) else (key,))]
    _check_range(x, keys)
    varying = [k for k, part in enumerate(keys) if isinstance(part, int | np.integer | np.ndarray | DeviceOperators)]
    fixed = tuple(None if k in varying else part for k, part in enumerate(keys))

    def make() -> Callable[..., Any]:
        def run(x: Any, given: list[Any], *value: Any) -> Any:
            everything = list(fixed)
            for k, part in zip(varying, given):
                everything[k] = part
            return function(x, tuple(everything), *value)

        return run

    return compiled((name, repr(fixed), tuple(varying)), make)(x, [keys[k] for k in varying], *value)


def _plain_key(part: Any) -> Any:
    if isinstance(part, list):
        part = np.asarray(part)
    return part


def _check_range(x: Any, keys: list[Any]) -> None:
    """Raises IndexError for an integer that is outside, as NumPy does."""
    used = sum(1 if getattr(k, "dtype", None) != np.bool_ else k.ndim for k in keys if k is not None and k is not ...)
    axis = 0
    for k in keys:
        if k is ...:
            axis += x.ndim - used
        elif k is not None:
            if isinstance(k, int | np.integer) and not -x.shape[axis] <= k < x.shape[axis]:
                raise IndexError(f"index {k} is out of bounds for axis {axis} with size {x.shape[axis]}")
            axis += k.ndim if getattr(k, "dtype", None) == np.bool_ else 1
