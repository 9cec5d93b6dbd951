"""A compiled program with its native entry: takes and returns flat leaves, checks nothing that the entry checks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dflow.backends import entry, object_cache
from dflow.backends.callable import NativeCallable
from dflow.backends.engine import CompiledFunction, Generated, generate, raise_error
from dflow.backends.entry import EntrySpec, Leaf
from dflow.backends.object_code import ObjectCode
from dflow.errors import run_time_error
from dflow.ir.core import Function, walk
from dflow.ir.printer import print_function
from dflow.ir.registry import definition
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
        results = stages.traced.result_types
        spec = EntrySpec(
            tuple(_leaf(t.type, t.weak or (t.type.dtype.kind == "b" and t.type.is_scalar)) for t in types),
            tuple(_leaf(t, False) for t in results),
            single,
        )
        self.compiled = _compiled(stages, spec)
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


def _compiled(stages: Stages, spec: EntrySpec) -> CompiledFunction:
    """Machine code with a native entry beside it, where the process has the layout that the entry needs.

    It comes from the disk when it was made before; while stages are dumped, all of them are made.
    """
    extended = entry.available() and not any(t.dtype.name == "f16" and t.is_scalar for t in stages.traced.arg_types)

    def extend(module: Any, kernel: Any) -> list[str]:
        entry.add_entry(module, kernel, spec, _ENTRY)
        return [_ENTRY]

    def make() -> Generated:
        return generate(stages.plan, name="dflow_program", extend=extend if extended else None)

    symbols = entry.symbols() if extended else {}
    key = None if stages.dump.active else _key(stages.traced, spec if extended else None)
    data = key and object_cache.read(key)
    if data:
        return CompiledFunction(ObjectCode.from_bytes(data), stages.traced, make, symbols)
    made = make()
    stages.dump_machine_code(made)
    if key:
        object_cache.write(key, made.object.to_bytes())
    return CompiledFunction(made.object, stages.traced, lambda: made, symbols)


def _key(f: Function, spec: EntrySpec | None) -> str | None:
    """What the machine code is kept under: the whole traced program, with places that errors name.

    None when something in it means nothing to another process.
    """
    if object_cache.folder() is None or any(definition(op).effect and op.name != "check" for op in walk(f.body)):
        return None
    text = print_function(f, locations=True)
    return None if " at 0x" in text else object_cache.digest(text, repr(spec))
