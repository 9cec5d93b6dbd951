"""The operations of the IR, one table a file. Importing this package fills ``dflow.ir.registry.OPS``."""

from importlib import import_module

from dflow.ir.registry import OPS

# The names of the operations in each table, in the order of definition.
TABLES: dict[str, tuple[str, ...]] = {}
_NAMES = (
    "control",
    "creation",
    "elementwise",
    "complex",
    "math",
    "special",
    "reduction",
    "shape",
    "indexing",
    "sorting",
    "linalg",
    "factorizations",
    "spectra",
    "fourier",
    "solutions",
    "rules",
    "printing",
    "slices",
)
for _table in _NAMES:
    _before = len(OPS)
    import_module(f"{__name__}.{_table}")
    TABLES[_table] = tuple(OPS)[_before:]
