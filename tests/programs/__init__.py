"""Programs as users of NumPy and Numba write them, with arguments to run them on; ``tests/test_programs.py`` does."""

from programs import (
    algorithms,
    arrays,
    biology,
    finance,
    optimisation,
    physics,
    semantics,
    statistics,
)
from programs.registry import PROGRAMS, Program

__all__ = [
    "PROGRAMS",
    "Program",
    "algorithms",
    "arrays",
    "biology",
    "finance",
    "optimisation",
    "physics",
    "semantics",
    "statistics",
]
