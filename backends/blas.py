"""Addresses of BLAS functions, from SciPy. Importing it takes 190 ms, so this is done when a program needs one."""

from __future__ import annotations

import ctypes
import functools
from typing import Any


@functools.cache
def address(name: str) -> int:
    """The address of a BLAS function with the Fortran interface (integers are 32 bits)."""
    from scipy.linalg import cython_blas

    capsule = cython_blas.__pyx_capi__[name]
    api: Any = ctypes.pythonapi
    get_name, get_pointer = api.PyCapsule_GetName, api.PyCapsule_GetPointer
    get_name.restype, get_name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    get_pointer.restype, get_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return int(get_pointer(capsule, get_name(capsule)))
