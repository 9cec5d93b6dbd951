"""Derivatives kept as linear maps: ``vjp``, ``linearize``, and the transpose of linear functions.

Outside a trace, the nonlinear part is compiled to a program that returns the residuals, and the linear part (or its
transpose) to one that takes them. Where a residual has no static size (a loop whose trip count is data), the linear
program takes the primals instead and runs the nonlinear part again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dflow import trees
from dflow.errors import DerivativeError, TraceError, failure, function_location, user_frames_only
from dflow.ir.builder import Builder
from dflow.ir.core import Function, Value, substitute
from dflow.ir.passes.dce import dce
from dflow.ir.passes.jvp import jvp as jvp_pass
from dflow.ir.passes.linearize import linearize as linearize_pass
from dflow.ir.passes.transpose import transpose as transpose_pass
from dflow.ir.passes.vjp import vjp as vjp_pass
from dflow.ir.types import TensorType
from dflow.programs.executable import Executable
from dflow.programs.pipeline import Dump, Stages
from dflow.programs.program import Program, trace_program, traced_before
from dflow.programs.sharing import PROGRAMS
from dflow.programs.signature import Arguments
from dflow.programs.specialized import Specialized
from dflow.programs.transform import Jit, maker
from dflow.tracing.arrays.lift import lift, wrap
from dflow.tracing.arrays.sizes import recast
from dflow.tracing.context import builder, tracing
from dflow.transforms.derivatives import derive, differentiable, inline, matching, operands, pure, refusals


@dataclass
class Parts:
    """The programs for one signature. ``linear`` and ``reverse`` take the residuals first."""

    program: Program
    wrt: list[int]
    primal: Function
    linear: Function
    reverse: Function
    residual_types: list[TensorType]
    maps: dict[Any, Jit] = field(default_factory=dict)  # the compiled linear programs

    @property
    def result_types(self) -> list[TensorType]:
        return list(self.primal.result_types[: self.program.result_count])


def require_pair(result: Any) -> None:
    """Raises DerivativeError where a function with ``has_aux`` does not return two things."""
    if not (isinstance(result, tuple | list) and len(result) == 2):
        raise failure(DerivativeError, "with has_aux=True the function returns a pair: the value and anything else")


class LinearMap:
    """A derivative as a function: a tree, whose leaves are the residuals, so it may be an argument or a result."""

    def __init__(self, apply: Callable[..., Any], residuals: Sequence[Any]):
        self.apply = apply
        self.residuals = list(residuals)

    def __call__(self, *moving: Any) -> Any:
        with user_frames_only():
            return self.apply(self.residuals, *moving)


trees.register(LinearMap, lambda m: (m.residuals, m.apply), LinearMap)


class Linearized:
    """The derivative of one function as a linear map, compiled for each signature."""

    def __init__(self, function: Callable[..., Any], has_aux: bool):
        self.function = function
        self.has_aux = has_aux
        self._parts: dict[Any, tuple[Parts, Executable]] = {}
        self._specialized = Specialized()

    def vjp(self, arguments: Arguments) -> Any:
        value, aux, parts, residuals = self._run(arguments)

        def pull(residuals: list[Any], bars: Any) -> Any:
            outputs = parts.result_types[: len(trees.flatten(value)[0])]
            results = _apply(parts, "vjp", residuals, bars, value, outputs)
            return _in_structure(parts, arguments, results)

        back = LinearMap(pull, residuals)
        return (value, back, aux) if self.has_aux else (value, back)

    def linearize(self, arguments: Arguments) -> Any:
        value, aux, parts, residuals = self._run(arguments)

        def push(residuals: list[Any], *tangents: Any) -> Any:
            inputs = [t.type for t in arguments.types]
            results = _apply(parts, "linearize", residuals, tangents, arguments.args, inputs)
            rest = iter(results)
            moving = [next(rest) if t.dtype.is_inexact else None for t in parts.result_types]
            out = trees.unflatten(parts.program.out_spec, moving)
            return out[0] if self.has_aux else out

        forward = LinearMap(push, residuals)
        return (value, forward, aux) if self.has_aux else (value, forward)

    def _run(self, arguments: Arguments) -> tuple[Any, Any, Parts, list[Any]]:
        """Runs the nonlinear part: the value, what comes with it, and the residuals."""
        if tracing():
            parts = self._split(trace_program(self.function, arguments), allow_sequences=True)
            results: Sequence[Any] = inline(parts.primal, operands(parts.program))
        else:
            parts, executable = self._compiled(arguments)
            results = executable.convert_and_call(arguments.leaves) or ()
        n = parts.program.result_count
        value = trees.unflatten(parts.program.out_spec, results[:n])
        residuals = list(results[n:])
        if not self.has_aux:
            return value, None, parts, residuals
        require_pair(value)
        return value[0], value[1], parts, residuals

    def _compiled(self, arguments: Arguments) -> tuple[Parts, Executable]:
        self._specialized.apply(arguments)
        make = maker(self.function.make if isinstance(self.function, Jit) else Executable, arguments.leaves)
        key = arguments.key, make
        if key not in self._parts:
            recipe = ("linearize", self.has_aux)
            try:
                self._parts[key] = PROGRAMS.get(self.function, recipe, key, lambda: self._compile(arguments, make))
            except TraceError as e:
                if not self._specialize(arguments, e):
                    raise
                return self._compiled(arguments)
        return self._parts[key]

    def _specialize(self, arguments: Arguments, error: TraceError) -> bool:
        given = arguments.rebuild(arguments.leaves)
        return self._specialized.help(
            error,
            arguments,
            lambda: Arguments(self.function, *given),
            lambda a: trace_program(self.function, a),
        )

    def _compile(self, arguments: Arguments, make: Callable[..., Any]) -> tuple[Parts, Executable]:
        name = getattr(self.function, "__name__", "function")
        with Dump.of(f"linearize_{name}") as dump:
            program = traced_before(arguments) or trace_program(self.function, arguments)
            parts = self._split(program, allow_sequences=False)
            return parts, make(Stages(parts.primal, dump), program.types, single=False)

    def _split(self, program: Program, allow_sequences: bool) -> Parts:
        f = pure(program)
        _refuse_sizes(program)
        count = len(program.arguments.types)
        wrt = [i for i in differentiable(f.args) if i < count]
        made: list[Function] = []

        def split(f: Function) -> Function:
            made.extend(linearize_pass(f, wrt))
            return made[0]

        primal = derive(f, split)
        n = program.result_count
        residual_types = list(primal.result_types[n:])
        linear = made[1]
        if allow_sequences or not any(t.grows for t in residual_types):
            return Parts(program, wrt, primal, linear, self._reverse(program, linear), residual_types)
        # Everything again: the arguments stand in for the residuals.
        back, forward = (
            dce(derive(f, lambda f: vjp_pass(f, wrt)), quiet=True),
            dce(derive(f, lambda f: jvp_pass(f, wrt)), quiet=True),
        )
        again = _extended(f)
        return Parts(
            program, wrt, again, _results(forward, n), self._first_only(program, _results(back, n)), list(f.arg_types)
        )

    def _reverse(self, program: Program, linear: Function) -> Function:
        with refusals():
            return self._first_only(program, transpose_pass(linear))

    def _first_only(self, program: Program, reverse: Function) -> Function:
        """With ``has_aux``: the reverse for cotangents of the value alone, those of the rest being zero."""
        if not self.has_aux or program.out_spec.num_children != 2:
            return reverse
        results = program.traced.function.results[: program.result_count]
        value = len(differentiable(results[: program.out_spec.children()[0].num_leaves]))
        zeros = len(differentiable(results)) - value
        kept = len(reverse.args) - zeros
        b = Builder.like(reverse.args[:kept])
        rest = [b.zeros(a.type) for a in reverse.args[kept:]]
        return b.function(reverse.name, b.inline(reverse.body, [*b.args, *rest]), loc=reverse.loc)


def _refuse_sizes(program: Program) -> None:
    """Cotangents and tangents of a result need its size before the function has run."""
    for v in program.traced.function.results[: program.result_count]:
        if not v.type.is_static:
            raise failure(
                DerivativeError,
                "a linear map of a function whose result has a size that depends on the run",
                seen=str(v.type),
                mend="return an array of the full size, or a number and take dflow.grad",
                location=function_location(program.arguments.function),
            )


def _under_sizes(f: Function, values: Sequence[Value]) -> list[Value]:
    """Values kept in arrays of full size, as the parameters whose sizes other parameters tell."""
    env = dict(zip(f.args, values))
    return [recast(v, substitute(a.type.shape, env)) for a, v in zip(f.args, values)]


def _extended(f: Function) -> Function:
    """``(x) -> y`` becomes ``(x) -> (y, x)``."""
    return Function(f.name, type(f.body)(f.args, f.body.ops, (*f.results, *f.args)), f.linear, f.loc)


def _results(f: Function, start: int) -> Function:
    """``f`` without its first results."""
    return Function(f.name, type(f.body)(f.args, f.body.ops, f.results[start:]), f.linear, f.loc)


def _apply(
    parts: Parts, what: str, residuals: list[Any], tree: Any, like: Any, like_types: Sequence[TensorType]
) -> list[Any]:
    """Applies a linear program to a tree of tangents or cotangents: in the trace if there is one, or compiled."""
    f = parts.reverse if what == "vjp" else parts.linear
    types = f.arg_types

    def inner(residuals: Any, tree: Any) -> Any:
        names = ("cotangents", "the value") if what == "vjp" else ("tangents", "the arguments")
        values = matching(tree, like, like_types, *names)
        b = builder()
        given = iter(types[len(residuals) :])
        dense = [
            (b.zeros(next(given)) if v is None else (next(given), v)[1])
            for v, t in zip(values, like_types)
            if t.dtype.is_inexact
        ]
        return tuple(inline(f, _under_sizes(f, [*(lift(r).value for r in residuals), *dense])))

    if tracing():
        return list(inner(residuals, tree))
    run = parts.maps.setdefault((what, _structure(tree)), Jit(_named(f), inner, what))
    return list(run(tuple(residuals), tree))


def _structure(tree: Any) -> Any:
    leaves, spec = trees.flatten(tree)
    return spec, tuple((np.shape(x), getattr(x, "dtype", type(x))) for x in leaves)


def _named(f: Function) -> Callable[..., Any]:
    def function(residuals: Any, bars: Any) -> None: ...

    function.__name__ = f.name
    return function


def _in_structure(parts: Parts, arguments: Arguments, bars: Sequence[Any]) -> Any:
    """Cotangents in the structure of the arguments, None where there are none."""
    rest = iter(bars)
    by_leaf = iter([next(rest) if i in parts.wrt else None for i in range(len(arguments.leaves))])
    everything = [None if i in arguments.fixed else next(by_leaf) for i in range(len(arguments.all_leaves))]
    for i in trees.constants((arguments.args, arguments.kwargs)):
        everything[i] = None
    return trees.unflatten(arguments.spec, everything)[0]


def transposed(program: Program, bars: Any) -> Any:
    """The transpose of a traced linear function, applied to cotangents while tracing."""
    f = pure(program)
    count = len(program.arguments.types)
    linear = [i for i in differentiable(f.args) if i < count]
    made = derive(f, lambda f: transpose_pass(f, linear, strict=True))
    value = trees.unflatten(program.out_spec, [wrap(v) for v in _zeros(f, program.result_count)])
    types = list(f.result_types)
    values = matching(bars, value, types, "cotangents", "the result")
    b = builder()
    dense = [b.zeros(t) if v is None else v for v, t in zip(values, types) if t.dtype.is_inexact]
    kept = [v for i, v in enumerate(operands(program)) if i not in linear]
    rest = iter(inline(made, [*kept, *dense]))
    out = [next(rest) if i in linear else None for i in range(count)]
    return trees.unflatten(program.arguments.spec, out)[0]


def _zeros(f: Function, count: int) -> list[Any]:
    b = builder()
    return [b.zeros(t) for t in f.result_types[:count]]
