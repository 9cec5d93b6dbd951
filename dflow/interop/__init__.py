"""Compiled functions where other software expects its own kind: C function pointers, PyTorch, JAX."""

from dflow.interop.c import CFunction, c_function

__all__ = ["CFunction", "c_function"]
