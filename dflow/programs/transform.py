"""Compiled functions: traced and compiled for each signature, when they are first called with it.

``Jit`` is the one class behind all transformations: ``grad(f)`` is a ``Jit`` of a function that traces ``f``,
differentiates the IR and makes it part of the program that is being traced (``dflow.transforms.derivatives``). Called
with NumPy values, a ``Jit`` runs machine code; called while another function is being traced, it traces its function
into that one. So transformations nest in any order.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from dflow import trees
from dflow.backends.native import object_cache
from dflow.backends.native.callable import NativeCallable
from dflow.devices.placement import default_ordinal, entries_are_open, runs_on_device
from dflow.devices.program import DeviceProgram
from dflow.errors import TraceError, failure, shortened, user_frames_only
from dflow.ir.printer import print_function
from dflow.programs.carrying import name_of, remade, sources
from dflow.programs.collecting import fewer_collections
from dflow.programs.executable import Executable, Mismatch
from dflow.programs.kept_programs import keep, recall
from dflow.programs.lasting import lasting_key
from dflow.programs.methods import BoundMethod
from dflow.programs.pipeline import STAGES, Dump, Stages, checking
from dflow.programs.program import Program, trace_program, traced_before, with_sizes
from dflow.programs.sharing import PROGRAMS
from dflow.programs.signature import Arguments, Key, completed
from dflow.programs.specialized import Specialized
from dflow.programs.treecode import Different, assembler, extractor
from dflow.programs.updates import apply
from dflow.tracing.context import tracing
from dflow.tracing.python.calls import call
from dflow.transforms import zero_gradients

if TYPE_CHECKING:
    from dflow.backends.cuda.describe import Resources
    from dflow.backends.cuda.plan import LaunchPlan

MAX_PROGRAMS = 512  # signatures kept for one function


def maker(make: Callable[..., Any], leaves: Sequence[Any]) -> Callable[..., Any]:
    """What makes a program for these arguments: ``make``, but that the processor gives way to a device."""
    return DeviceProgram if make is Executable and runs_on_device(leaves) else make


class Jit(NativeCallable):
    """A function that is compiled for each signature; calls of known ones go straight to machine code.

    ``inner`` is what is traced; ``function`` is the user's, which names and errors speak of. ``recipe`` says how it was
    made, ``recipe[0](function, *recipe[1:])``: equal recipes of equal functions give equal programs.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        inner: Callable[..., Any] | None = None,
        kind: str = "jit",
        static_argnums: Sequence[int] = (),
        static_argnames: Sequence[str] = (),
        recipe: Sequence[Any] = (),
        make: Callable[..., Any] | None = None,
    ):
        if not callable(function):
            raise failure(
                TraceError,
                f"dflow.{kind} takes a function",
                seen=f"{type(function).__name__}: {function!r}"[:100],
                mend="pass the function itself: f, not f(x)",
            )
        functools.update_wrapper(self, function, updated=())
        self.function = function
        self.inner = inner or function
        self.kind = kind
        self.recipe = tuple(recipe) or (kind, inner)
        self.static_argnums, self.static_argnames = completed(function, static_argnums, static_argnames)
        inherited: Any = function.make if isinstance(function, Jit) else None
        if make is None and getattr(inherited, "is_inherited", False):
            make = inherited
        # What runs a program: machine code, a device, the reference evaluator.
        self.make: Callable[..., Any] = make or Executable
        self._programs: dict[tuple[Key, Any], Runner] = {}
        self._direct: dict[int, Executable] = {}  # by the address of the native entry
        self._specialized = Specialized()
        self._latest: Runner | None = None  # what to try first when no native entry takes the arguments

    def _fallback(self, *args: Any, **kwargs: Any) -> Any:
        if tracing():
            return call(self.inner, *args, **kwargs)
        latest = self._latest
        if latest is not None and not kwargs and default_ordinal() is None:
            # The program that served the last call checks the leaves itself, so types need not be looked at here.
            try:
                leaves = latest.extract(args)  # type: ignore[misc]
                results = latest.executable(*leaves)
            except (Different, KeyError, Mismatch):
                pass
            else:
                return latest.finish(results, args, kwargs)
        try:
            return self._find_and_call(args, kwargs)
        except Exception as e:
            raise shortened(e)  # noqa: B904 (it is the same exception)

    def _find_and_call(self, args: Sequence[Any], kwargs: dict[str, Any], arguments: Arguments | None = None) -> Any:
        """The way of a call whose types are not those of the last one."""
        arguments = arguments or self.arguments(args, kwargs)
        make = maker(self.make, arguments.leaves)
        key = arguments.key, make
        runner = self._programs.get(key)
        if runner is None:
            try:
                runner = PROGRAMS.get(self.function, self.recipe, key, lambda: self._compiled(arguments, make))
            except TraceError as e:
                if not self._specialize(arguments, e):
                    raise
                return self._find_and_call(args, kwargs, arguments)
            self._add(key, runner)
            self._specialized.count(arguments, getattr(self.function, "__name__", "the function"))
        self._latest = runner if runner.extract and make is self.make else None
        return runner.finish(runner.executable.convert_and_call(arguments.leaves), args, kwargs)

    def _on_error(self, entry: int, status: int, record: tuple[int, int, int, int], args: tuple[Any, ...]) -> Any:
        with user_frames_only():
            return self._direct[entry]._on_error(entry, status, record, args)

    @property
    def py_func(self) -> Callable[..., Any]:
        """The function as it was written, under Numba's name for it."""
        return self.function

    def close_entries(self) -> None:
        """Lets every call take the way through Python, which knows of default devices."""
        self._set_entries([])

    def open_entries(self) -> None:
        """Lets calls go to machine code again."""
        self._set_entries(list(self._direct)[::-1])

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        if not isinstance(instance, type):  # of a class method
            trees.register_attributes(type(instance))
        return BoundMethod(self, instance)

    def __reduce__(self) -> Any:
        """By name where the name leads here, as for functions; else by the recipe, without what is compiled."""
        return name_of(self) or (remade, (sources(self.function), self.function, *self.recipe))

    def __repr__(self) -> str:
        return f"<dflow {self.kind} of {getattr(self.function, '__qualname__', self.function)!s}>"

    def arguments(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Arguments:
        arguments = self._plain_arguments(args, kwargs)
        self._specialized.apply(arguments)
        return arguments

    def _plain_arguments(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Arguments:
        return Arguments(self.function, args, kwargs, self.static_argnums, self.static_argnames)

    def _specialize(self, arguments: Arguments, error: TraceError) -> bool:
        """Whether the function can be traced when numbers among the arguments are known: then these will be."""
        given = arguments.rebuild(arguments.leaves)
        return self._specialized.help(
            error,
            arguments,
            lambda: self._plain_arguments(*given),
            lambda a: trace_program(self.inner, a),
            floats=self.kind == "jit",
        )

    def lower(self, *args: Any, **kwargs: Any) -> Lowered:
        """The stages of the program for these arguments, without running it."""
        with user_frames_only(), fewer_collections():
            arguments = self.arguments(args, kwargs)
            try:
                stages = self._stages(arguments)
            except TraceError as e:
                if not self._specialize(arguments, e):
                    raise
                stages = self._stages(arguments)
        return Lowered(stages, getattr(self.make, "is_deterministic", False))

    def _stages(self, arguments: Arguments) -> tuple[Program, Stages]:
        name = getattr(self.function, "__name__", "function")
        with Dump.of(name if self.kind == "jit" else f"{self.kind}_{name}") as dump:
            program = with_sizes(traced_before(arguments) or trace_program(self.inner, arguments))
            return program, Stages(program.traced.function, dump, program.in_place, trim=program.trim)

    def _compiled(self, arguments: Arguments, make: Callable[..., Any]) -> Runner:
        key = self._lasting_key(arguments) if make is Executable else None
        found = recall(key, arguments, lambda: self._stages(arguments)[1].traced) if key else None
        if found:
            make, program = found
            return Runner(make(*_facts(program)), program)
        warned = zero_gradients.given
        with fewer_collections():
            program, stages = self._stages(arguments)
            runner = Runner(make(stages, *_facts(program)), program)
        if isinstance(runner.executable, Executable):
            runner.executable.forget()
        if key and warned == zero_gradients.given:  # a warning is given in every process
            keep(key, runner.executable, program)
        return runner

    def _lasting_key(self, arguments: Arguments) -> str | None:
        """What another process finds the program by; None where programs are not kept."""
        if object_cache.folder() is None or Dump.wanted() or checking():
            return None
        return lasting_key(self.function, self.recipe, arguments)

    def _add(self, key: Any, runner: Runner) -> None:
        """Makes the program of a new signature one of those of this function."""
        executable = runner.executable
        if runner.is_flat and executable.address is not None:
            self._direct[executable.address] = executable
            self._set_entries(list(self._direct)[::-1] if entries_are_open(self) else [], keep=executable)
        if len(self._programs) >= MAX_PROGRAMS:
            self._programs.pop(next(iter(self._programs)))
        self._programs[key] = runner


def _facts(program: Program) -> tuple[Any, ...]:
    """What an executable is made with: types, whether its only result is returned itself, updated arguments, names."""
    single = program.returns_leaf and not program.updates
    return program.types, single, program.traced.mutated, program.arguments.names()


class Runner:
    """The way through Python: from leaves to the tree of results."""

    def __init__(self, executable: Executable, program: Program):
        self.executable = executable
        self.is_flat = program.is_flat
        self.assemble = assembler(program.out_spec)
        a = program.arguments
        self.extract = None
        if not a.kwargs and len(a.static) == len(a.fixed):
            self.extract = extractor(trees.flatten(a.args)[1], a.fixed)
        self.updates = program.updates
        self.count = program.result_count

    def finish(self, results: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Updates the caller's objects, and puts the results together."""
        if self.executable.single:
            return results
        if results is None:  # what native code gives for no results
            results = ()
        if self.updates:
            apply(self.updates, (tuple(args), kwargs), results[self.count :])
        return self.assemble(results[: self.count])


class Lowered:
    """The readable stages of one program. ``deterministic``: what it is on a GPU gives the same bits in every run."""

    def __init__(self, made: tuple[Program, Stages], deterministic: bool = False):
        self.program, self.stages = made
        self.deterministic = deterministic

    def ir(self, stage: str = "optimized", *, full: bool = False) -> str:
        """The IR as text: ``"traced"``, ``"optimized"`` or ``"lowered"``. Raises ValueError for another stage.

        Of constant arrays with more than a thousand elements a few are shown, as NumPy does; ``full`` writes all of
        them, so that the text parses back and ``dflow run`` takes it.
        """
        return print_function(self.stages.function(stage), full=full)

    @functools.cached_property
    def _executable(self) -> Executable:
        types, _, updated, names = _facts(self.program)
        with fewer_collections():
            return Executable(self.stages, types, False, updated, names)

    def llvm(self) -> str:
        """LLVM's assembly language after optimization."""
        return self._executable.compiled.llvm

    def asm(self) -> str:
        """The processor's assembly language."""
        return self._executable.compiled.asm

    def ptx(self, target: str = "sm_80") -> str:
        """The program for NVIDIA GPUs: PTX for a processor and all later ones. It needs neither a GPU nor a driver.

        Raises ValueError for a processor that is not known.
        """
        return self.launches(target).ptx

    def launches(self, target: str = "sm_80") -> LaunchPlan:
        """The kernels of the program on a GPU, with the steps in which they run; ``print`` shows them.

        Raises ValueError for a processor that is not known.
        """
        from dflow.backends.cuda.compiler import compile_plan  # as in `DeviceProgram`

        if target not in self._launches:
            self._launches[target] = compile_plan(self.stages.device_plan, target, self.deterministic)
        return self._launches[target]

    def resources(self, target: str = "sm_80") -> dict[str, Resources]:
        """Registers, stack and spills of every kernel on a GPU. Raises FileNotFoundError when there is no ``ptxas``."""
        from dflow.backends.cuda.describe import resources

        return resources(self.launches(target))

    @functools.cached_property
    def _launches(self) -> dict[str, LaunchPlan]:
        return {}

    def compile(self) -> Executable:
        """The machine code: a callable on leaves (in the order of the tree) that returns the tuple of results.

        It takes just the types that it was compiled for, and raises TypeError for others.
        """
        return self._executable

    def __repr__(self) -> str:
        return f"<dflow program {self.stages.traced.name}; stages {', '.join(STAGES)}, llvm, asm, ptx>"
