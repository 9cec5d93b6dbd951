"""A Python function to a ``Function`` of the IR."""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dflow.errors import TraceError, UndefinedError, failure
from dflow.ir.core import Function, Location
from dflow.ir.types import TensorType
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import lift
from dflow.tracing.context import TRACE, Cell, Region, current, entered
from dflow.tracing.control.state import Undefined
from dflow.tracing.facts import LearningBuilder
from dflow.tracing.lists.earlier import Earlier
from dflow.tracing.python.choice import Choice
from dflow.tracing.python.objects import Snapshot, check_watched
from dflow.tracing.python.optional import Optional, settled
from dflow.tracing.python.printing import Text
from dflow.tracing.source.rewrite import is_user_code, return_of, rewritten


@dataclass(frozen=True)
class ArgSpec:
    """One argument: its type, whether it is a Python number, the user's name for it."""

    type: TensorType
    weak: bool | None = False
    hint: str | None = None


@dataclass(frozen=True)
class Traced:
    """A traced function.

    Its arguments are those given, then the ``captured`` arrays of enclosing traces. Its results are the leaves that
    ``call`` returned, then the final contents of updated arguments: ``mutated`` lists (argument, result) positions.
    """

    function: Function
    outputs: tuple[TensorType, ...]
    weak: tuple[bool | None, ...]
    mutated: tuple[tuple[int, int], ...]
    captured: tuple[Array, ...]


def trace(
    fn: Callable[..., Any],
    args: Sequence[ArgSpec],
    call: Callable[[list[Array]], Sequence[Any]] | None = None,
    closure: Sequence[Array] = (),
) -> Traced:
    """Traces ``call(arrays)``, which calls ``convert(fn)`` and returns the leaves of its result.

    ``closure``: arrays of other traces (which may have ended) whose contents are the last of ``args``. They are not
    among ``arrays``, but the function may close over them.
    """
    name = getattr(fn, "__name__", type(fn).__name__)
    made = LearningBuilder([a.type for a in args], [a.hint for a in args], _place(fn))
    root = Region(TRACE, current(), made, name)
    if root.parent is not None:
        root.unrolled = root.parent.unrolled
    for v in root.builder.args:
        v.type = root.own_type(v.type)
    given = len(args) - len(closure)
    arrays = [Array(Cell(v, root), v.type, weak=a.weak) for v, a in zip(root.builder.args[:given], args)]
    root.given = frozenset(a.cell for a in arrays)
    known = dict(zip((a.cell for a in closure), root.builder.args[given:]))
    root.entry.update(known)
    root.local.update(known)
    starts = [a.cell.value for a in arrays]
    root.outside = outside = Snapshot([fn])
    with entered(root):
        try:
            leaves = call(arrays) if call else _leaves(convert(fn)(*arrays))
            outside.require_unchanged(_place(fn))
            check_watched(root, _place(fn))
        except RecursionError:
            outside.restore()
            raise failure(
                TraceError,
                f"the recursion of {name} has no end that is known while tracing",
                mend="write it as a loop, or let it end by a static argument",
                location=_place(fn),
            ) from None
        except BaseException:
            outside.restore()  # nothing traced stays in objects from outside
            raise
        try:
            results = [_result(x) for x in leaves]
            values = [r.value for r in results]
        except UndefinedError:
            raise
        except TraceError as e:  # no line is being run: name that of the `return`, or else the function
            raise failure(type(e), **e.facts, location=return_of(fn) or _place(fn)) from None
        for a, spec in zip(arrays, args):
            if len(a.type.shape) != len(spec.type.shape) or a.steps:
                raise failure(
                    TraceError,
                    f"the shape of the argument {spec.hint} is assigned",
                    mend="make a view: x = x.reshape(shape)",
                    location=_place(fn),
                )
        updated = [k for k, a in enumerate(arrays) if a.cell.value is not starts[k] or a.cell.poison]
        finals = [arrays[k].value for k in updated]
        _refuse_outer_updates(root)
        mutated = tuple((k, len(values) + i) for i, k in enumerate(updated))
        further = {cell: value for cell, value in root.entry.items() if cell not in known}
        root.builder.args = (*root.builder.args, *further.values())
        function = root.builder.function(_identifier(name), [*values, *finals], loc=_place(fn))
    captured = tuple(Array(cell, cell.value.type) for cell in further)
    return Traced(function, tuple(v.type for v in values), tuple(r.weak for r in results), mutated, captured)


def convert(fn: Callable[..., Any]) -> Callable[..., Any]:
    """``fn`` rewritten, so that control flow in it can be traced."""
    from dflow.tracing.python.calls import call as run

    if isinstance(fn, types.FunctionType) and is_user_code(fn):
        return rewritten(fn)
    return lambda *args, **kwargs: run(fn, *args, **kwargs)


def _leaves(result: Any) -> list[Any]:
    from dflow.tracing.control.state import flatten

    return [x for x in flatten(result)[0] if x is not None]


def _result(x: Any) -> Array:
    x = settled(x)
    if isinstance(x, Undefined):
        raise x.error()
    if isinstance(x, Array | bool | int | float | complex | np.ndarray | np.generic):
        return lift(x)
    if isinstance(x, Optional | Choice):
        raise x.refused()
    if isinstance(x, Earlier):
        raise x.growing.refused()
    kind = "str" if isinstance(x, Text) else type(x).__name__
    raise failure(
        TraceError,
        f"the function returns a {kind}, which is not an array or a number",
        seen=None if isinstance(x, types.GeneratorType) or callable(x) else f"{x!r}"[:200],
        mend="return its values, list(...)" if isinstance(x, types.GeneratorType) else "return arrays and numbers only",
    )


def _refuse_outer_updates(root: Region) -> None:
    if root.changed():
        raise failure(
            TraceError,
            "updating an array of an enclosing function inside a function that is transformed",
            mend="return the new value instead",
        )


def _place(fn: Any) -> Location | None:
    code = getattr(getattr(fn, "__func__", fn), "__code__", None)
    return Location(code.co_filename, code.co_firstlineno, 0, 0, code.co_name) if code else None


def _identifier(name: str) -> str:
    return "".join(c if c.isalnum() or c == "_" else "_" for c in name).strip("_") or "function"
