"""Code that all compiled functions of a process share instead of compiling it each for itself.

The slow ways of sin, cos and tan (`mathlib.guard`) are not inlined, and would take longer to compile than a small
program that calls them. So a program has only their declarations; they are compiled, once per process, when the first
program needs them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

from llvmlite import ir

from dflow.backends.mathlib.trigonometry import define_guard, define_long_way, define_vector_forms

TOGETHER = (("sin", "cos"), ("tan",))  # in one module: the derivative of one is the other

# (key, a module with the names of its functions, addresses that these refer to, level) -> addresses of the functions
Load = Callable[[str, Callable[[], tuple[ir.Module | str, Sequence[str]]], Mapping[str, int], int], Mapping[str, int]]
Define = Callable[[ir.Module, str, str], Sequence[ir.Function]]


def shared_names(module: ir.Module) -> list[str]:
    """The functions of the module that are shared code."""
    return [f.name for f in module.functions if f.name.startswith("dflow.") and ".guard." in f.name]


class SharedCode:
    """The addresses of shared functions. ``load(key, make, symbols, level)`` loads, for good, the functions of the
    module that ``make`` gives with their names; ``key`` says which module that is."""

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
        """Vector forms apart: straight code has no use for them. The long ways apart: a long block waits for each of
        its operations however it is compiled, and compiles in half of the time where little is asked for."""

        def load(kind: str, define: Define, symbols: Mapping[str, int], level: int) -> Mapping[str, int]:
            key = ".".join((kind, dtype, *functions))
            return self._load(key, lambda: _module(dtype, functions, define), symbols, level)

        if vector:
            return load("vectors", define_vector_forms, self._guards(dtype, functions, False), 2)
        long_ways = load("long ways", lambda *which: [define_long_way(*which)], {}, 0)
        return load("guards", define_guard, long_ways, 2)


def _module(dtype: str, functions: Sequence[str], define: Define) -> tuple[ir.Module, list[str]]:
    module = ir.Module(f"dflow.guards.{dtype}")
    made = [f for name in functions for f in define(module, name, dtype)]
    module.globals.pop("llvm.compiler.used", None)
    return module, [f.name for f in made if f.blocks]
