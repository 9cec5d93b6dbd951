"""A traced function with all that it takes to call it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from dflow import trees
from dflow.ir.core import Block, Function
from dflow.programs.pipeline import Dump
from dflow.programs.signature import Arguments, LeafType
from dflow.programs.trimming import Trimming, sizes_of
from dflow.programs.updates import Update, changed, paths
from dflow.tracing.arrays.array import Array
from dflow.tracing.python.calls import call
from dflow.tracing.python.objects import Snapshot
from dflow.tracing.trace import ArgSpec, Traced, trace


@dataclass
class Program:
    """A traced function with what it takes to call it and to put its results together."""

    traced: Traced
    out_spec: trees.Spec  # the tree of what the user's function returned
    types: tuple[LeafType, ...]
    arguments: Arguments
    updates: list[Update]  # what changes in objects among the arguments; their results come after those of the call
    result_count: int  # the number of results, without those that are written back to arguments, and without sizes
    trim: Trimming | None = None  # set when the program is compiled

    @property
    def returns_all(self) -> bool:
        """Whether nothing is written back to the arguments."""
        return not self.traced.mutated and not self.updates

    @property
    def is_flat(self) -> bool:
        """Whether the call's positional arguments are just the leaves, and what it returns just the results."""
        a = self.arguments
        flat_in = not a.kwargs and not a.static and a.spec == _flat_spec(len(a.leaves))
        flat_out = self.returns_nothing or self.returns_leaf or (self.returns_tuple and self.result_count > 0)
        return flat_in and flat_out and not self.updates

    @property
    def in_place(self) -> dict[int, int]:
        """The results that can be left in the memory of the arguments whose new contents they are."""
        f = self.traced.function
        same = {k: i for i, k in self.traced.mutated if f.args[i].type == f.results[k].type}
        return {k: i for k, i in same.items() if f.args[i].type.is_static and f.args[i].type.rank}

    @property
    def returns_leaf(self) -> bool:
        return bool(self.out_spec.is_leaf())

    @property
    def returns_nothing(self) -> bool:
        return self.out_spec.type is type(None)

    @property
    def returns_tuple(self) -> bool:
        return self.out_spec == _flat_tuple_spec(self.result_count)


def with_sizes(program: Program) -> Program:
    """The program with the sizes of its results as further results, behind the others; those that are written back to
    arguments stay last."""
    traced = program.traced
    count = len(traced.function.results) - len(traced.mutated)
    results, trim = sizes_of(traced.function.results[:count])
    if trim is None:
        return program
    f = traced.function
    body = Block(f.args, f.body.ops, (*results, *f.results[count:]))
    mutated = tuple((i, k + trim.sizes) for i, k in traced.mutated)
    extended = replace(traced, function=Function(f.name, body, f.linear, f.loc), mutated=mutated)
    return replace(program, traced=extended, trim=trim)


@functools.lru_cache
def _flat_tuple_spec(count: int) -> trees.Spec:
    return trees.flatten((0.0,) * count)[1]


@functools.lru_cache
def _flat_spec(count: int) -> trees.Spec:
    return trees.flatten(((0.0,) * count, {}))[1]


def trace_program(function: Callable[..., Any], arguments: Arguments) -> Program:
    """Traces ``function`` for the types of the arguments."""
    specs = [ArgSpec(t.type, t.weak, n) for t, n in zip(arguments.types, arguments.names())]
    made: list[Any] = []

    def run(leaves: list[Array]) -> list[Any]:
        args, kwargs = arguments.rebuild(leaves)
        before, where = Snapshot([args, kwargs]), paths((tuple(args), kwargs))
        try:
            results, spec = trees.flatten(call(function, *args, **kwargs))
            updates, arrays = changed(before, where)
        finally:
            before.restore()
        made[:] = spec, updates, len(results)
        return [*results, *arrays]

    traced = trace(arguments.function, specs, run)
    captured = tuple(LeafType(v.value.type, v.weak) for v in traced.captured)
    spec, updates, count = made
    return Program(traced, spec, (*arguments.types, *captured), arguments, updates, count)


def traced_before(arguments: Arguments) -> Program | None:
    """The program that was traced to find out which numbers must be known, once; not where its steps are dumped."""
    program, arguments.traced = arguments.traced, None
    return None if program is None or Dump.wanted() else replace(program, arguments=arguments)
