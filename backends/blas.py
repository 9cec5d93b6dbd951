"""Addresses of BLAS and LAPACK functions, from SciPy. Importing it takes 190 ms, so this is done when a program needs
one."""

from __future__ import annotations

import ctypes
import functools
from importlib import import_module
from typing import Any

PREFIX = "dflow_"  # of the symbols in machine code, then the library's name: dflow_blas_dgemm, dflow_lapack_dgetrf


@functools.cache
def address(symbol: str) -> int:
    """The address of what a symbol stands for: a function with the Fortran interface (integers are 32 bits)."""
    library, _, name = symbol.removeprefix(PREFIX).partition("_")
    capsule = import_module(f"scipy.linalg.cython_{library}").__pyx_capi__[name]
    api: Any = ctypes.pythonapi
    get_name, get_pointer = api.PyCapsule_GetName, api.PyCapsule_GetPointer
    get_name.restype, get_name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    get_pointer.restype, get_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return int(get_pointer(capsule, get_name(capsule)))
