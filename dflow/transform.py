"""Compiled functions: traced and compiled for each signature, when they are first called with it.

``Jit`` is the one class behind all transformations: ``grad(f)`` is a ``Jit`` of a function that traces ``f``,
differentiates the IR and makes it part of the program that is being traced (``dflow.derivatives``). Called with NumPy
values, a ``Jit`` runs machine code; called while another function is being traced, it traces its function into that
one. So transformations nest in any order.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dflow import trees
from dflow.backends.callable import NativeCallable
from dflow.errors import user_frames_only
from dflow.executable import Executable, Mismatch
from dflow.ir.core import Block, Function
from dflow.pipeline import STAGES, Dump, Stages
from dflow.signature import Arguments, Key, LeafType, completed
from dflow.tracing.array import Array
from dflow.tracing.calls import call
from dflow.tracing.context import tracing
from dflow.tracing.trace import ArgSpec, Traced, trace
from dflow.treecode import Different, assembler, extractor
from dflow.trimming import Trimming, sizes_of

MAX_PROGRAMS = 512  # signatures kept for one function


@dataclass
class Program:
    """A traced function with what it takes to call it and to put its results together."""

    traced: Traced
    out_spec: trees.Spec  # the tree of what the user's function returned
    types: tuple[LeafType, ...]
    arguments: Arguments
    trim: Trimming | None = None  # set when the program is compiled

    @property
    def result_count(self) -> int:
        """The number of results, without those that are written back to arguments, and without sizes."""
        sizes = self.trim.sizes if self.trim else 0
        return len(self.traced.function.results) - len(self.traced.mutated) - sizes

    @property
    def is_flat(self) -> bool:
        """Whether the call's positional arguments are just the leaves, and what it returns just the results."""
        a = self.arguments
        flat_in = not a.kwargs and not a.static and a.spec == _flat_spec(len(a.leaves))
        flat_out = self.returns_nothing or self.returns_leaf or (self.returns_tuple and self.result_count > 0)
        return flat_in and flat_out and not self.trim

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
    traced, count = program.traced, program.result_count
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
    out: list[trees.Spec] = []

    def run(leaves: list[Array]) -> list[Any]:
        args, kwargs = arguments.rebuild(leaves)
        results, spec = trees.flatten(call(function, *args, **kwargs))
        out.append(spec)
        return results

    traced = trace(arguments.function, specs, run)
    captured = tuple(LeafType(v.value.type, v.weak) for v in traced.captured)
    return Program(traced, out[-1], (*arguments.types, *captured), arguments)


class Jit(NativeCallable):
    """A function that is compiled for each signature; calls of known ones go straight to machine code.

    ``inner`` is what is traced; ``function`` is the user's, which names and errors speak of.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        inner: Callable[..., Any] | None = None,
        kind: str = "jit",
        static_argnums: Sequence[int] = (),
        static_argnames: Sequence[str] = (),
    ):
        functools.update_wrapper(self, function, updated=())
        self.function = function
        self.inner = inner or function
        self.kind = kind
        self.static_argnums, self.static_argnames = completed(function, static_argnums, static_argnames)
        self._programs: dict[Key, Runner] = {}
        self._direct: dict[int, Executable] = {}  # by the address of the native entry
        self._latest: Runner | None = None  # what to try first when no native entry takes the arguments

    def _fallback(self, *args: Any, **kwargs: Any) -> Any:
        if tracing():
            return call(self.inner, *args, **kwargs)
        latest = self._latest
        if latest is not None and not kwargs:
            # The program that served the last call checks the leaves itself, so types need not be looked at here.
            try:
                leaves = latest.extract(args)  # type: ignore[misc]
                results = latest.executable(*leaves)
            except (Different, KeyError, Mismatch):
                return self._find_and_call(args, kwargs)
            return latest.finish(results)
        return self._find_and_call(args, kwargs)

    def _find_and_call(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """The way of a call whose types are not those of the last one."""
        with user_frames_only():
            arguments = self.arguments(args, kwargs)
            key = arguments.key
            runner = self._programs.get(key) or self._prepare(key, arguments)
            self._latest = runner if runner.extract else None
            return runner.finish(runner.executable.convert_and_call(arguments.leaves))

    def _on_error(self, entry: int, status: int, record: tuple[int, int, int, int], args: tuple[Any, ...]) -> Any:
        with user_frames_only():
            return self._direct[entry]._on_error(entry, status, record, args)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is not None:
            trees.register_attributes(type(instance))
        return super().__get__(instance, owner)

    def __reduce__(self) -> Any:
        return Jit, (self.function, self.inner, self.kind, self.static_argnums, self.static_argnames)

    def __repr__(self) -> str:
        return f"<dflow {self.kind} of {getattr(self.function, '__qualname__', self.function)!s}>"

    def arguments(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Arguments:
        return Arguments(self.function, args, kwargs, self.static_argnums, self.static_argnames)

    def lower(self, *args: Any, **kwargs: Any) -> Lowered:
        """The stages of the program for these arguments, without running it."""
        with user_frames_only():
            return Lowered(self._stages(self.arguments(args, kwargs)))

    def _stages(self, arguments: Arguments) -> tuple[Program, Stages]:
        name = getattr(self.function, "__name__", "function")
        with Dump.of(name if self.kind == "jit" else f"{self.kind}_{name}") as dump:
            program = with_sizes(trace_program(self.inner, arguments))
            return program, Stages(program.traced.function, dump, program.in_place)

    def _prepare(self, key: Key, arguments: Arguments) -> Runner:
        """Compiles for a new signature."""
        program, stages = self._stages(arguments)
        names = program.arguments.names()
        executable = Executable(
            stages, program.types, program.returns_leaf and not program.trim, program.traced.mutated, names
        )
        if program.is_flat and executable.address is not None:
            self._direct[executable.address] = executable
            self._set_entries(list(self._direct)[::-1], keep=executable)
        if len(self._programs) >= MAX_PROGRAMS:
            self._programs.pop(next(iter(self._programs)))
        runner = self._programs[key] = Runner(executable, program)
        return runner


class Runner:
    """The way through Python: from leaves to the tree of results."""

    def __init__(self, executable: Executable, program: Program):
        self.executable = executable
        self.assemble = assembler(program.out_spec)
        a = program.arguments
        self.extract = None if a.static or a.kwargs else extractor(trees.flatten(a.args)[1])
        self.trim = program.trim

    def finish(self, results: Any) -> Any:
        """Puts the results together."""
        if self.executable.single:
            return results
        if results is None:  # what native code gives for no results
            results = ()
        if self.trim:
            results = self.trim(results)
        return self.assemble(results)


class Lowered:
    """The readable stages of one program."""

    def __init__(self, made: tuple[Program, Stages]):
        self.program, self.stages = made

    def ir(self, stage: str = "optimized") -> str:
        """The IR as text: ``"traced"``, ``"optimized"`` or ``"lowered"``. Raises ValueError for another stage."""
        return f"{self.stages.function(stage)}"

    @functools.cached_property
    def _executable(self) -> Executable:
        p = self.program
        return Executable(self.stages, p.types, False, p.traced.mutated, p.arguments.names())

    def llvm(self) -> str:
        """LLVM's assembly language after optimization."""
        return self._executable.compiled.llvm

    def asm(self) -> str:
        """The processor's assembly language."""
        return self._executable.compiled.asm

    def compile(self) -> Executable:
        """The machine code: a callable on leaves (in the order of the tree) that returns the tuple of results."""
        return self._executable

    def __repr__(self) -> str:
        return f"<dflow program {self.stages.traced.name}; stages {', '.join(STAGES)}, llvm, asm>"
