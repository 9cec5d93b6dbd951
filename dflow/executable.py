"""A compiled program with its native entry: takes and returns flat leaves, checks nothing that the entry checks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dflow.backends import entry
from dflow.backends.callable import NativeCallable
from dflow.backends.engine import CompiledFunction, compile_plan, raise_error
from dflow.backends.entry import EntrySpec, Leaf
from dflow.backends.plan import Plan
from dflow.errors import run_time_error
from dflow.ir.types import TensorType
from dflow.pipeline import Stages
from dflow.signature import LeafType

_ENTRY = "dflow_entry"


class Mismatch(Exception):
    """The leaves of a call are not just what the program was compiled for."""


class Executable(NativeCallable):
    """One program for one signature, called with leaves: ``executable(*leaves)``.

    It returns the only result itself when ``single``, otherwise a tuple. Raises Mismatch for leaves of other types or
    layouts; ``convert_and_call`` takes those too.
    """

    def __init__(self, stages: Stages, types: Sequence[LeafType], single: bool):
        self.stages = stages
        self.single = single
        results = stages.optimized.result_types
        spec = EntrySpec(
            tuple(_leaf(t.type, t.weak or (t.type.dtype.kind == "b" and t.type.is_scalar)) for t in types),
            tuple(_leaf(t, False) for t in results),
            single,
        )
        self.compiled = stages.compile(lambda plan: _build(plan, spec))
        self.address = self.compiled.addresses.get(_ENTRY)
        self._set_entry(self.address, keep=self.compiled)

    def _fallback(self, *leaves: Any) -> Any:
        raise Mismatch

    def convert_and_call(self, leaves: Sequence[Any]) -> Any:
        """Calls with leaves of the right dtypes and shapes, whatever their layout in memory."""
        try:
            return self(*leaves)
        except Mismatch:
            pass
        try:
            results = self.compiled(*(np.asarray(x) for x in leaves))
        except Exception as e:
            location = getattr(e, "location", None)
            if location is None:
                raise
            raise run_time_error(e, location) from None
        return results[0] if self.single else results

    def _on_error(self, entry: int, status: int, record: tuple[int, int, int, int], args: tuple[Any, ...]) -> Any:
        try:
            raise_error(self.compiled.checks, record[0], record[1:])
        except Exception as e:
            raise run_time_error(e, getattr(e, "location", None)) from None


def _leaf(t: TensorType, python: bool) -> Leaf:
    return Leaf(t.dtype.name, t.static_shape, python)


def _build(plan: Plan, spec: EntrySpec) -> CompiledFunction:
    """Machine code with a native entry beside it, where the process has the layout that the entry needs."""
    if not entry.available() or any(t.dtype.name == "f16" and t.is_scalar for t in plan.function.arg_types):
        return compile_plan(plan, name="dflow_program")

    def extend(module: Any, kernel: Any) -> list[str]:
        entry.add_entry(module, kernel, spec, _ENTRY)
        return [_ENTRY]

    return compile_plan(plan, name="dflow_program", extend=extend, symbols=entry.symbols())
