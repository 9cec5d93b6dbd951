"""Calls in traced code: NumPy's and math's functions on traced values."""

from __future__ import annotations

from typing import Any

from dflow.errors import TraceError, failure
from dflow.tracing import array as _array


def dispatch_table() -> dict[Any, Any]:
    """From NumPy's functions to dflow's."""
    import dflow.numpy

    return dflow.numpy.dispatch


def numpy_name(function: Any) -> str:
    module = (getattr(function, "__module__", None) or "numpy").replace("numpy", "np", 1)
    return f"{'np' if module.startswith('np._') else module}.{getattr(function, '__name__', function)}"


def unsupported(name: str) -> TraceError:
    return failure(  # type: ignore[return-value]
        TraceError,
        f"{name} is not supported under dflow; write it with functions that are (see dflow.numpy)",
        mend="dir(dflow.numpy) lists the supported functions",
    )


def call_numpy(function: Any, args: Any, kwargs: Any) -> Any:
    """A NumPy function on traced arrays."""
    ours = dispatch_table().get(function)
    if ours is None:
        raise unsupported(numpy_name(function))
    return ours(*args, **kwargs)


def call_ufunc(ufunc: Any, method: str, inputs: Any, kwargs: Any) -> Any:
    """A ufunc, or a method of one, on traced arrays."""
    if method == "at":
        return _at(ufunc, *inputs)
    ours = dispatch_table().get(ufunc)
    run = ours if method == "__call__" else getattr(ours, method, None)
    if run is None:
        raise unsupported(f"np.{ufunc.__name__}" + ("" if method == "__call__" else f".{method}"))
    out = kwargs.pop("out", None)
    if out is None:
        return run(*inputs, **kwargs)
    target = out[0] if isinstance(out, tuple) else out
    return assign_out(target, run(*inputs, **kwargs))


def assign_out(target: Any, result: Any) -> Any:
    """``out=target``."""
    if not isinstance(target, _array.Array):
        raise captured_update(target)
    _array._same_kind(result.dtype, target.dtype)
    target[...] = result
    return target


def captured_update(target: Any) -> TraceError:
    return failure(  # type: ignore[return-value]
        TraceError,
        "updating a captured array: it was made outside of the traced function, where the update would not be seen",
        seen=f"an array of shape {getattr(target, 'shape', ())}",
        mend="pass it as an argument and return it, or update a copy (x = x.copy()) in the function",
    )


def _at(ufunc: Any, target: Any, index: Any, value: Any = None) -> None:
    """``np.add.at`` and ``np.subtract.at``: repeated positions add up."""
    from dflow.tracing.index import resolve
    from dflow.tracing.scatter import add_at

    if not isinstance(target, _array.Array):
        raise captured_update(target)
    if ufunc.__name__ not in ("add", "subtract"):
        raise unsupported(f"np.{ufunc.__name__}.at")
    add_at(target, resolve(target.shape, index), value if ufunc.__name__ == "add" else -value)
