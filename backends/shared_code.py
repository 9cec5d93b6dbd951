"""Code that all compiled functions of a process share instead of compiling it each for itself.

The slow ways of sin, cos and tan (`mathlib.guard`) are not inlined, and would take longer to compile than a small
program that calls them. So a program has only their declarations; they are compiled, once per process, when the first
program needs them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

from llvmlite import ir

from dflow.backends.mathlib.trigonometry import define_guards

TOGETHER = (("sin", "cos"), ("tan",))  # in one module: the derivative of one is the other


def shared_names(module: ir.Module) -> list[str]:
    """The functions of the module that are shared code."""
    return [f.name for f in module.functions if f.name.startswith("dflow.") and ".guard." in f.name]


class SharedCode:
    """The addresses of shared functions. ``load(key, make)`` loads, for good, the functions of the module that
    ``make`` gives with their names; ``key`` says which module that is."""

    def __init__(self, load: Callable[[str, Callable[[], tuple[ir.Module, list[str]]]], Mapping[str, int]]):
        self._load = functools.cache(lambda *which: load(".".join(which), functools.partial(_guards, *which)))

    def addresses(self, names: Sequence[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for name in names:
            _, function, _, dtype, *_ = name.split(".")
            found[name] = self._load(dtype, *next(group for group in TOGETHER if function in group))[name]
        return found


def _guards(dtype: str, *functions: str) -> tuple[ir.Module, list[str]]:
    module = ir.Module(f"dflow.guards.{dtype}")
    names = [f.name for f in define_guards(module, dtype, functions)]
    module.globals.pop("llvm.compiler.used")
    return module, names
