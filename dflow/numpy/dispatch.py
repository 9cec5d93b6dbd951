"""Which of NumPy's functions have a meaning on traced arrays: the tables that the array protocols look up.

Implementations stand in the other modules of this package and enter the tables by decorator. ``implements`` gives back
the public function: it calls NumPy when nothing is traced.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from dflow.errors import AxisError, DflowError, MatrixError, ShapeError, TraceError, TraceIndexError, failure
from dflow.numpy import eager
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import Placeholder
from dflow.tracing.context import tracing

Implementation = Callable[..., Any]

UFUNCS: dict[np.ufunc, Implementation] = {}
UFUNC_METHODS: dict[tuple[np.ufunc, str], Implementation] = {}
FUNCTIONS: dict[Callable[..., Any], Implementation] = {}
CALLABLES: dict[type, Implementation] = {}  # of objects that are called: the object comes first
INDEXED: dict[type, Implementation] = {}  # of objects that make arrays when they are indexed, as np.mgrid
CREATION: dict[Callable[..., Any], Implementation] = {}  # those that are traced without a traced argument, too

DATA_DEPENDENT = "whether its result is real depends on the data; give it complex numbers: np.sqrt(x + 0j)"
UNSUPPORTED: dict[str, str] = {
    "save": "a compiled function does no input or output",
    "savetxt": "a compiled function does no input or output",
    **dict.fromkeys(("odeint", "solve_ivp"), "dflow.odeint solves differential equations, with derivatives"),
    **dict.fromkeys(
        ("quad", "quad_vec", "fixed_quad"), "take a sum at nodes, of np.polynomial.legendre.leggauss, or np.trapezoid"
    ),
    **dict.fromkeys(
        ("root", "root_scalar", "brentq", "bisect", "newton", "fsolve"),
        "write the iteration as a loop, or take dflow.custom_root or dflow.fixed_point, which have derivatives",
    ),
    **dict.fromkeys(
        ("minimize", "minimize_scalar", "least_squares", "curve_fit"),
        "call it outside, with dflow.value_and_grad(f) and jac=True; inside, write its steps as a loop",
    ),
}


def holds_traced(x: Any) -> bool:
    """Whether a traced array stands in an argument (a list or tuple is searched)."""
    if isinstance(x, Array | Placeholder):
        return True
    return isinstance(x, list | tuple) and any(map(holds_traced, x))


def any_traced(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    return any(map(holds_traced, args)) or any(map(holds_traced, kwargs.values()))


def located(f: Implementation) -> Implementation:
    """``f`` with errors that name the user's line."""

    @functools.wraps(f)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return f(*args, **kwargs)
        except DflowError:
            raise
        except np.linalg.LinAlgError as e:
            raise failure(MatrixError, str(e)) from e
        except np.exceptions.AxisError as e:
            raise failure(AxisError, str(e)) from e
        except ValueError as e:
            raise failure(ShapeError, str(e)) from e
        except IndexError as e:
            raise failure(TraceIndexError, str(e)) from e
        except TypeError as e:
            raise failure(TraceError, str(e)) from e

    return call


def implements(*functions: Any, extra: Sequence[str] = ()) -> Callable[[Implementation], Any]:
    """Registers an implementation for NumPy functions; gives the public function. ``extra`` names arguments that
    NumPy's do not have. None stands for what this version of NumPy lacks."""

    def register(f: Implementation) -> Any:
        traced = located(f)
        for function in functions:
            if function is None:
                continue
            if isinstance(function, np.ufunc):
                UFUNCS[function] = traced
            else:
                FUNCTIONS[function] = traced
        return public(functions[0], f, extra)

    return register


def public(function: Callable[..., Any] | None, f: Implementation, extra: Sequence[str] = ()) -> Any:
    """``f`` when an argument is traced, otherwise NumPy's own function. ``__wrapped__`` is ``f`` itself."""
    traced = located(f)
    compiles = not f.__module__.endswith("introspection")  # questions have answers that are no arrays

    @functools.wraps(f)
    def call(*args: Any, **kwargs: Any) -> Any:
        if any_traced(args, kwargs):
            return traced(*args, **kwargs)
        if function is None:
            return traced(*args, **kwargs) if tracing() else eager.compiled(traced, args, kwargs)
        if compiles and eager.compiles(args, kwargs):
            kwargs = {**kwargs, **eager.size(function, f, extra, args, kwargs)}
        if (compiles and eager.compiles(args, kwargs)) or not kwargs.keys().isdisjoint(extra):
            found = eager.compiled(traced, args, kwargs)
            return eager.as_array(found) if f.__module__ == "dflow.numpy.shapes" else found
        try:
            return function(*args, **kwargs)
        except (TypeError, ValueError):  # as NumPy's functions that are no ufuncs answer to bfloat16
            if tracing() or not eager.holds_bfloat16(args, kwargs):
                raise
        return eager.compiled(traced, args, kwargs)

    return call


def own(f: Implementation) -> Any:
    """The public function of an implementation that NumPy has no counterpart of."""
    return public(None, f)


def name_of(function: Any) -> str:
    """``np.sum``, ``np.linalg.norm``, ``scipy.signal.convolve``: how a user writes it."""
    if isinstance(function, np.ufunc):
        special = sys.modules.get("scipy.special")
        ours = getattr(np, function.__name__, None) is not function and hasattr(special, function.__name__)
        return f"{'scipy.special' if ours else 'np'}.{function.__name__}"
    module = (getattr(function, "__module__", None) or "numpy").replace("numpy", "np", 1)
    if module.startswith("scipy."):
        public = ".".join(part for part in module.split(".") if not part.startswith("_"))
        return f"{public}.{getattr(function, '__qualname__', getattr(function, 'name', function))}"
    return f"{module}.{getattr(function, '__name__', function)}"


def refuse(name: str) -> NoReturn:
    """Raises the error for a function that is not supported, with the reason or names like it."""
    short = name.rpartition(".")[2]
    fill()
    known = {full.rpartition(".")[2]: full for full in sorted(map(name_of, (*FUNCTIONS, *UFUNCS)), reverse=True)}
    near = [known[n] for n in difflib.get_close_matches(short, known, 3, 0.75)]
    hint = (
        DATA_DEPENDENT
        if name.startswith(("np.lib.scimath.", "np.lib._scimath_impl."))  # NumPy 2.0's name of the module
        else UNSUPPORTED.get(short) or (f"did you mean {' or '.join(near)}?" if near else "")
    )
    scipys = "dir(dflow.scipy.special), dir(dflow.scipy.linalg) and dir(dflow.scipy.stats) list"
    lists = scipys if name.startswith("scipy.") else None
    raise failure(
        TraceError,
        f"{name} is not supported on traced arrays; {hint or 'write it with functions that are'}",
        mend=f"{lists or 'dir(dflow.numpy) lists'} the supported functions",
    )


class TracedUfunc:
    """A ufunc on traced arrays, with those of its methods that are supported (reduce, outer, accumulate)."""

    def __init__(self, ufunc: np.ufunc):
        self.ufunc = ufunc

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return UFUNCS[self.ufunc](*args, **kwargs)

    def __getattr__(self, method: str) -> Implementation:
        fill()
        found = UFUNC_METHODS.get((self.ufunc, method))
        if found is None:
            raise AttributeError(method)
        return located(found)


# What fills the tables: always, and where a module has been imported whose functions may be meant.
_PARTS = {
    "numpy": "dflow.numpy.namespace",
    "numpy.fft": "dflow.numpy.fft",
    "numpy.polynomial": "dflow.numpy.series",
    "scipy": "dflow.scipy",
    "scipy.interpolate": "dflow.scipy.interpolate",
    "scipy.ndimage": "dflow.scipy.ndimage",
    "scipy.signal": "dflow.scipy.signal",
    "scipy.stats": "dflow.scipy.stats",
}


def fill() -> None:
    """Fills the tables, which have what has been imported until then."""
    for theirs, ours in _PARTS.items():
        if theirs in sys.modules and ours not in sys.modules:
            importlib.import_module(ours)


def get(function: Any) -> Any:
    """What stands for a NumPy function or ufunc on traced arrays; one that is not supported raises when called."""
    if function is None:
        return None
    if isinstance(function, np.ufunc):  # most are in one module
        importlib.import_module("dflow.numpy.elementwise")
    found = _find(function)
    if found is None:
        fill()
        found = _find(function)
    return found or (lambda *args, **kwargs: refuse(name_of(function)))


def _find(function: Any) -> Any:
    if isinstance(function, np.ufunc):
        return TracedUfunc(function) if function in UFUNCS else None
    if type(function) in CALLABLES:
        return functools.partial(located(CALLABLES[type(function)]), function)
    return FUNCTIONS.get(function)


def refusing(function: Callable[..., Any]) -> Callable[..., Any]:
    """NumPy's function, which refuses traced arguments."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return refuse(name_of(function)) if any_traced(args, kwargs) else function(*args, **kwargs)

    return call
