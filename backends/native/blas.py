"""Addresses of BLAS and LAPACK functions, which have the Fortran interface.

They are NumPy's own where its extension modules reach a whole library with integers of 64 bits, as those of its wheels
do. Two libraries in one process have two pools of threads, whose idle threads spin for milliseconds on the cores that
the others need. NumPy's is also there already: SciPy, which has all functions (of 32 bits) for everybody else, takes
190 ms to import, so that this is done when a program needs one.
"""

from __future__ import annotations

import ctypes
import functools
from importlib import import_module
from typing import Any

PREFIXES = ("dflow_blas_", "dflow_lapack_")  # of symbols in machine code; what follows is a name: dflow_blas_dgemm
_WHOLE = ("dgemm", "ztrsm", "dgetrf", "zgesdd", "dsyevd", "zgeev", "cungqr")  # who has these has all
_NAMES = ("scipy_{}_64_", "{}_64_")


@functools.cache
def _numpys() -> tuple[Any, str] | None:
    """The module of NumPy through which its library is reached, and how that calls its functions."""
    try:
        library = ctypes.CDLL(import_module("numpy.linalg._umath_linalg").__file__)
    except (ImportError, OSError, TypeError):
        return None
    return next(((library, n) for n in _NAMES if all(hasattr(library, n.format(f)) for f in _WHOLE)), None)


def integer_bits() -> int:
    """How long the integers are that the functions take."""
    return 64 if _numpys() else 32


def source() -> str:
    return "NumPy" if _numpys() else "SciPy"


@functools.cache
def address(symbol: str) -> int:
    """The address of what a symbol stands for."""
    library, _, name = symbol.removeprefix("dflow_").partition("_")
    if found := _numpys():
        function = getattr(found[0], found[1].format(name))
        return ctypes.cast(function, ctypes.c_void_p).value or 0
    capsule = import_module(f"scipy.linalg.cython_{library}").__pyx_capi__[name]
    api: Any = ctypes.pythonapi
    get_name, get_pointer = api.PyCapsule_GetName, api.PyCapsule_GetPointer
    get_name.restype, get_name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    get_pointer.restype, get_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return int(get_pointer(capsule, get_name(capsule)))
