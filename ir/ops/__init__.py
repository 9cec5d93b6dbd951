"""The operations of the IR, one table a file. Importing this package fills ``dflow.ir.registry.OPS``."""

from dflow.ir.ops import control, creation, elementwise, indexing, linalg, math, reduction, shape

__all__ = ["control", "creation", "elementwise", "indexing", "linalg", "math", "reduction", "shape"]
