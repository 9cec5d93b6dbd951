"""Code that all compiled functions of a process share instead of compiling it each for itself.

The slow ways of sin, cos and tan (`mathlib.guard`) are large, and take most of the time to compile a small program that
calls one. They are not inlined anyhow. So `externalize` leaves only their declarations in a module, and they are
compiled, once per process, when the first program needs them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from llvmlite import ir

from dflow.backends.mathlib import math_function

_KEPT = "llvm.compiler.used"


def externalize(module: ir.Module) -> list[str]:
    """Turns guards into declarations; their names. The list of what the optimizer must keep stays: only an attribute
    refers to the vector forms."""
    names = [f.name for f in module.functions if _is_guard(f.name) and f.blocks]
    for name in names:
        function = module.globals[name]
        function.blocks.clear()
        function.linkage = "external"
    return names


def _is_guard(name: str) -> bool:
    return name.startswith("dflow.") and ".guard." in name


class SharedCode:
    """The addresses of externalized functions. ``load(key, make)`` loads, for good, the functions of the module that
    ``make`` gives with their names; ``key`` says which module that is."""

    def __init__(self, load: Callable[[str, Callable[[], tuple[ir.Module, list[str]]]], Mapping[str, int]]):
        self._load = functools.cache(lambda *which: load(".".join(which), functools.partial(_module, *which)))

    def addresses(self, names: list[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for name in names:
            _, function, _, dtype, *_ = name.split(".")
            found[name] = self._load(function, dtype)[name]
        return found


def _module(function: str, dtype: str) -> tuple[ir.Module, list[str]]:
    module = ir.Module(f"dflow.{function}.{dtype}")
    math_function(module, function, dtype)
    names = [f.name for f in module.functions if _is_guard(f.name)]
    for name in names:
        module.globals[name].linkage = "external"
    module.globals.pop(_KEPT, None)
    return module, names
