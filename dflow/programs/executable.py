"""A compiled program with its native entry: takes and returns flat leaves, checks nothing that the entry checks."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from dflow.backends.native import entry, object_cache
from dflow.backends.native.callable import NativeCallable
from dflow.backends.native.engine import CompiledFunction, raise_error
from dflow.backends.native.entry import EntrySpec, Leaf
from dflow.backends.native.object_code import ObjectCode
from dflow.errors import TraceError, failure, run_time_error
from dflow.ir.core import Function, Op, walk
from dflow.ir.printer import Printer
from dflow.ir.registry import definition
from dflow.ir.types import TensorType
from dflow.programs.effort import is_long
from dflow.programs.pipeline import Stages
from dflow.programs.signature import LeafType, as_array, leaf_type

if TYPE_CHECKING:
    from dflow.backends.native.generation import Generated

_ENTRY = "dflow_entry"
Updated = Sequence[tuple[int, int]]


class Mismatch(TypeError):
    """The leaves of a call are not just what the program was compiled for."""

    def __init__(self, wanted: Sequence[LeafType], leaves: Sequence[Any]):
        self.wanted, self.leaves = wanted, leaves

    def __str__(self) -> str:
        wanted, got = ", ".join(map(str, self.wanted)), ", ".join(map(_described, self.leaves))
        return f"this program takes ({wanted}), got ({got})"


def _described(x: Any) -> str:
    found = leaf_type(x)
    return type(x).__name__ if found is None else f"{found}{_layout(x)}"


def _layout(x: Any) -> str:
    plain = not isinstance(x, np.ndarray) or (x.flags.c_contiguous and x.flags.aligned and x.dtype.isnative)
    return "" if plain else " in another layout"


class Executable(NativeCallable):
    """One program for one signature, called with leaves: ``executable(*leaves)``.

    It returns the only result itself when ``single``, otherwise a tuple. ``updated`` lists (argument, result) for
    arguments that are given new contents, which come last among the program's results and are not returned. Raises
    Mismatch for leaves of other types or layouts; ``convert_and_call`` takes those too.
    """

    def __init__(
        self,
        stages: Stages,
        types: Sequence[LeafType],
        single: bool,
        updated: Updated = (),
        names: Sequence[str] = (),
        object: ObjectCode | None = None,
    ):
        self.stages = stages
        self.single = single
        self.updated, self.names = updated, names
        self.types = types
        self.key: str | None = None  # what the machine code is kept under
        if object:
            symbols = entry.symbols(t.dtype.name for t in (*stages.signature.arg_types, *stages.signature.result_types))
            self.compiled = self._load(object, lambda: _generated(stages, self._spec()), symbols)
        else:
            _refuse_breakpoints(stages.traced)
            self.compiled = self._compile(self._spec())
        self.address = self.compiled.addresses.get(_ENTRY)
        self._set_entry(self.address, keep=self.compiled)

    def _spec(self) -> EntrySpec | None:
        """What the native entry takes and returns; None where the process has not the layout for one."""
        signature, stages = self.stages.signature, self.stages
        # An update that is not left in place needs the way through Python.
        enterable = entry.available() and len(stages.in_place) == len(self.updated)
        if not enterable or _has_other_scalars(signature.arg_types, signature.result_types):
            return None
        return EntrySpec(
            tuple(_leaf(t.type, bool(t.weak)) for t in self.types),
            tuple(_leaf(t, False) for t in signature.result_types),
            self.single,
            release_gil=is_long(stages.traced),
            in_place=tuple(stages.in_place.items()),
            cuts=stages.trim.cuts if stages.trim else (),
            hidden=stages.trim.hidden if stages.trim else (),
        )

    def _compile(self, spec: EntrySpec | None) -> CompiledFunction:
        """Machine code with a native entry beside it, if there is a ``spec``.

        It comes from the disk when it was made before; while stages are dumped, all of them are made.
        """
        stages, symbols = self.stages, entry.symbols() if spec else {}
        self.key = None if stages.dump.active else _key(stages, spec)
        data = self.key and object_cache.read(self.key)
        if data:
            return self._load(ObjectCode.from_bytes(data), partial(_generated, stages, spec), symbols)
        made = _generated(stages, spec)
        stages.dump_machine_code(made)
        if self.key:
            object_cache.write(self.key, made.object.to_bytes())
        return self._load(made.object, lambda: made, symbols)

    def _load(self, object: ObjectCode, make: Callable[[], Generated], symbols: Mapping[str, int]) -> CompiledFunction:
        return CompiledFunction(object, self.stages.signature, make, symbols, self.stages.in_place)

    def forget(self) -> None:
        """Keeps what was traced and the machine code alone: what was made on the way is made again when it is asked
        for. It takes a megabyte."""
        self.stages.forget()
        self.compiled.forget(partial(_generated, self.stages, self._spec()))

    def _fallback(self, *leaves: Any) -> Any:
        """Arrays that lie otherwise in memory are copied, where nothing is written to them."""
        kept = {position for position, _ in self.updated}
        plain = [x if k in kept else _plain(x) for k, x in enumerate(leaves)]
        if all(map(operator.is_, plain, leaves)):
            raise Mismatch(self.types, leaves)
        return self(*plain)

    def __repr__(self) -> str:
        return f"<dflow machine code of {self.stages.signature.name}({', '.join(map(str, self.types))})>"

    def convert_and_call(self, leaves: Sequence[Any]) -> Any:
        """Calls with leaves of the right dtypes and shapes, whatever their layout in memory."""
        try:
            return self(*leaves)
        except Mismatch:
            pass
        for position, _ in self.updated:
            check_writable(leaves[position], self.names[position])
            check_apart(leaves, position, self.names)
        try:
            results = self.compiled(*map(as_array, leaves))
        except Exception as e:
            location = getattr(e, "location", None)
            if location is None:
                raise
            raise run_time_error(e, location) from None
        for position, k in self.updated:
            np.copyto(leaves[position], results[k])
        shown = results[: len(results) - len(self.updated)]
        if self.stages.trim:
            shown = tuple(self.stages.trim(shown))
        return shown[0] if self.single else shown

    def _on_error(self, entry: int, status: int, record: tuple[int, int, int, int], args: tuple[Any, ...]) -> Any:
        try:
            raise_error(self.compiled.checks, record[0], record[1:])
        except Exception as e:
            raise run_time_error(e, getattr(e, "location", None)) from None


def _plain(x: Any) -> Any:
    """An array of the same elements, one behind the other in memory."""
    return x.copy("C") if type(x) is np.ndarray and not x.flags.c_contiguous else x


def _leaf(t: TensorType, python: bool) -> Leaf:
    return Leaf(t.dtype.name, t.bound, python)


def _refuse_breakpoints(f: Function) -> None:
    for op in walk(f.body):
        if op.name == "breakpoint":
            raise failure(
                TraceError,
                "a breakpoint stops in the reference backend only",
                mend='dflow.jit(f, backend="reference"), also around a derivative',
                location=op.loc,
            )


def check_writable(leaf: Any, name: str) -> None:
    """Refuses to update what is not an array, or may not be written."""
    if not isinstance(leaf, np.ndarray) or not leaf.flags.writeable:
        raise ValueError(
            f"argument {name} is updated by the function, but it is not a writable NumPy array; pass {name}.copy()"
        )


def check_apart(leaves: Sequence[Any], position: int, names: Sequence[str]) -> None:
    """Refuses an updated argument that is part of another: the compiled function would not see the update there."""
    target = leaves[position]
    for k, other in enumerate(leaves):
        if k == position or not isinstance(other, np.ndarray):
            continue
        if np.may_share_memory(target, other) and np.shares_memory(target, other):
            raise ValueError(
                f"arguments {names[position]} and {names[k]} share memory, and the function updates {names[position]}; "
                f"pass {names[k]}.copy()"
            )


def _has_other_scalars(args: Sequence[TensorType], results: Sequence[TensorType]) -> bool:
    """Whether there are scalars that the native entry does not take (f16) or does not pass (bf16, in some versions)."""
    halves = any(t.is_scalar and t.dtype.name == "f16" for t in args)
    return halves or not all(entry.passes(t.dtype.name) for t in (*args, *results) if t.is_scalar)


class _KeyPrinter(Printer):
    """The text of a program with digests of large arrays, whose numbers would take a second a million to write."""

    def attribute(self, a: Any) -> str:
        if isinstance(a, np.ndarray) and a.size > 64:
            return f"{a.dtype}{a.shape} {hashlib.sha256(a.tobytes()).hexdigest()}"
        return super().attribute(a)

    def _value(self, op: Op, a: Any) -> str:
        return self.attribute(a) if isinstance(a, np.ndarray) else super()._value(op, a)


def _generated(stages: Stages, spec: EntrySpec | None) -> Generated:
    """Machine code of the last stage, with a native entry if there is a ``spec``."""
    from dflow.backends.native.generation import generate  # where no program on disk does

    def extend(module: Any, kernel: Any) -> list[str]:
        assert spec is not None
        entry.add_entry(module, kernel, spec, _ENTRY)
        return [_ENTRY]

    return generate(stages.plan, name="dflow_program", extend=extend if spec else None)


def _key(stages: Stages, spec: EntrySpec | None) -> str | None:
    """What the machine code is kept under: the whole traced program, with places that errors name.

    None when something in it means nothing to another process.
    """
    f = stages.traced
    if object_cache.folder() is None or any(definition(op).effect and op.name != "check" for op in walk(f.body)):
        return None
    text = "\n".join(_KeyPrinter(f, locations=True).lines)
    return None if " at 0x" in text else object_cache.digest(text, repr(spec), repr(stages.in_place))
