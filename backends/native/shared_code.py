"""Code that all compiled functions of a process share instead of compiling it each for itself.

The slow ways of sin, cos and tan (`mathlib.guard`) are not inlined, and would take longer to compile than a small
program that calls them. So a program has only their declarations; they are compiled, once per process, when the first
program needs them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llvmlite import ir

TOGETHER = (("sin", "cos"), ("tan",))  # in one module: the derivative of one is the other

# (key, a module with the names of its functions, addresses that these refer to, level) -> addresses of the functions
Load = Callable[[str, Callable[[], tuple[Any, Sequence[str]]], Mapping[str, int], int], Mapping[str, int]]


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

        def load(kind: str, symbols: Mapping[str, int], level: int) -> Mapping[str, int]:
            key = ".".join((kind, dtype, *functions))
            return self._load(key, lambda: _module(kind, dtype, functions), symbols, level)

        if vector:
            return load("vectors", self._guards(dtype, functions, False), 2)
        return load("guards", load("long ways", {}, 0), 1)


def _module(kind: str, dtype: str, functions: Sequence[str]) -> tuple[ir.Module, list[str]]:
    from llvmlite import ir  # where it is not found on disk

    from dflow.backends.mathlib.trigonometry import DEFINITIONS

    module = ir.Module(f"dflow.guards.{dtype}")
    made = [f for name in functions for f in DEFINITIONS[kind](module, name, dtype)]
    module.globals.pop("llvm.compiler.used", None)
    return module, [f.name for f in made if f.blocks]
