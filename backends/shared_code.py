"""Code that all compiled functions of a process share instead of compiling it each for itself.

The slow ways of sin, cos and tan (`mathlib.guard`) are not inlined, and would take longer to compile than a small
program that calls them. So a program has only their declarations; they are compiled, once per process, when the first
program needs them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

from llvmlite import ir

from dflow.backends.mathlib.trigonometry import define_guard, define_vector_forms

TOGETHER = (("sin", "cos"), ("tan",))  # in one module: the derivative of one is the other

# (key, a module with the names of its functions, addresses that these refer to) -> addresses of the functions
Load = Callable[[str, Callable[[], tuple[ir.Module | str, Sequence[str]]], Mapping[str, int]], Mapping[str, int]]


def shared_names(module: ir.Module) -> list[str]:
    """The functions of the module that are shared code."""
    return [f.name for f in module.functions if f.name.startswith("dflow.") and ".guard." in f.name]


class SharedCode:
    """The addresses of shared functions. ``load(key, make, symbols)`` loads, for good, the functions of the module that
    ``make`` gives with their names; ``key`` says which module that is."""

    def __init__(self, load: Load):
        self._load = load
        self._guards = functools.cache(self._load_guards)

    def addresses(self, names: Sequence[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for name in names:
            _, function, _, dtype, *vector = name.split(".")
            together = next(group for group in TOGETHER if function in group)
            found[name] = self._guards(dtype, together, bool(vector))[name]
        return found

    def _load_guards(self, dtype: str, functions: tuple[str, ...], vector: bool) -> Mapping[str, int]:
        """Vector forms apart: straight code has no use for them."""
        scalar = self._guards(dtype, functions, False) if vector else {}
        key = ".".join(("vectors" if vector else "guards", dtype, *functions))
        return self._load(key, lambda: _module(dtype, functions, vector), scalar)


def _module(dtype: str, functions: Sequence[str], vector: bool) -> tuple[ir.Module, list[str]]:
    module = ir.Module(f"dflow.guards.{dtype}")
    define = define_vector_forms if vector else define_guard
    names = [f.name for name in functions for f in define(module, name, dtype)]
    module.globals.pop("llvm.compiler.used")
    for f in module.functions:
        if f.blocks and f.name not in names:  # what is long waits for each of its operations, however it is compiled
            f.attributes.add("optnone")
    return module, names
