"""Linear functions with transposes of their own: ``custom_transpose``, ``custom_linear_solve``.

A call becomes a ``custom`` operation that is linear in its last operands (``dflow.ir.rules``): its tangent by these is
the operation itself, and its transpose is the rule's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dflow import trees
from dflow.api import linear_transpose
from dflow.errors import DerivativeError, failure, function_location, user_frames_only
from dflow.ir.builder import Builder, clone_block
from dflow.ir.core import Block, Function, Op, Value
from dflow.ir.passes import jvp as jvp_pass
from dflow.ir.registry import Linear
from dflow.ir.rules import Rule, Tangents, apply, unused_name
from dflow.programs.program import Program, trace_program
from dflow.programs.signature import Arguments
from dflow.shapes import shape_of
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import convert, lift, wrap
from dflow.tracing.context import builder, tracing
from dflow.tracing.python.calls import call
from dflow.tracing.trace import ArgSpec
from dflow.transforms.call_records import CallRecord
from dflow.transforms.custom import stop_gradient
from dflow.transforms.derivatives import inline, matching


def closure_convert(function: Callable[..., Any], *args: Any) -> tuple[Callable[..., Any], list[Any]]:
    """A function without a closure, and what it takes instead: ``converted(*args, *consts)`` is ``function(*args)``.

    ``consts`` are the traced arrays that ``function`` closes over when it is called with arguments like ``args``.
    Outside of traces nothing is traced, so there are none.
    """
    if not tracing():
        return function, []
    program = trace_program(function, Arguments(function, args, {}))

    def converted(*given: Any) -> Any:
        count = len(given) - len(program.traced.captured)
        return run_program(program, given[:count], given[count:])

    return converted, list(program.traced.captured)


def run_program(program: Program, args: Sequence[Any], consts: Sequence[Any]) -> Any:
    """Makes a traced function part of the current trace, with other arguments and captured arrays."""
    arguments = Arguments(program.arguments.function, args, {})
    leaves = [*arguments.leaves, *consts]
    wanted = program.traced.function.args
    values = [convert(lift(x).value, a.type.dtype.numpy) for x, a in zip(leaves, wanted)]
    if len(leaves) != len(wanted) or any(v.type.shape != a.type.shape for v, a in zip(values, wanted)):
        raise failure(
            DerivativeError,
            "a converted function takes arguments of the shapes that it was converted for",
            seen=", ".join(str(v.type) for v in values),
            wanted=", ".join(str(a.type) for a in wanted),
        )
    results = inline(program.traced.function, values)
    return trees.unflatten(program.out_spec, results[: program.result_count])


class LinearRule(Rule):
    """``f(known, x)``, linear in ``x``. Operands: the leaves of ``known``, the closure's contents, those of ``x``."""

    def __init__(
        self,
        name: str,
        function: Callable[..., Any],
        known: Any,
        x: Any,
        back: Callable[..., Any],
        rules: Sequence[Any] = (),
    ):
        super().__init__(unused_name(name))
        self.record = CallRecord(function, Arguments(function, (known, x), {}), rules=rules or (back,))
        self.back = back  # (known, cotangent) -> cotangent of x
        self.known = len(trees.flatten(known)[0])
        self.linear = self.record.count - self.known
        self.like = x
        self.spec = self.record.program.out_spec  # of the results that are linear, the first ones
        if any(not a.type.dtype.is_inexact for a in self.record.function.args[self.known : self.record.count]):
            raise failure(
                DerivativeError,
                f"{name} is linear in an argument that holds integers",
                mend="convert it to float",
                location=function_location(function),
            )

    def _reordered(self, values: Sequence[Value]) -> list[Value]:
        return [*values[: self.known], *values[self.record.count :], *values[self.known : self.record.count]]

    def call(self) -> Any:
        f = self.record.function
        region = Block(self._reordered(f.args), f.body.ops, f.results)
        return self.record.results(apply(builder(), self, self._reordered(self.record.operands()), region, self.linear))

    def jvp(self, b: Builder, op: Op, dots: Tangents) -> tuple[Sequence[Value], Tangents]:
        n = len(op.operands) - self.linear
        (region,) = op.regions
        ys = apply(b, self, op.operands, clone_block(region, {}), self.linear)
        along: list[Value | None] = list(dots[n:])
        further: list[Value] | None = None
        if any(d is not None for d in dots[:n]):
            along, further = self.by_known(b, op, ys, dots)
        outs: Sequence[Value] | None = None
        count = self.spec.num_leaves
        if any(d is not None for d in along):
            given = [b.zeros(v.type) if d is None else d for v, d in zip(op.operands[n:], along)]
            solution = Block(region.args, region.ops, region.results[:count])
            outs = apply(b, self, [*op.operands[:n], *given], solution, self.linear)
        if outs is not None and further is not None:
            outs = [b.add(x, y) for x, y in zip(outs, further)]
        found: Sequence[Value | None] = outs or further or [None] * count
        return ys, [*found, *[None] * (len(ys) - count)]

    def by_known(
        self, b: Builder, op: Op, ys: Sequence[Value], dots: Tangents
    ) -> tuple[list[Value | None], list[Value] | None]:
        """When what is known varies: the tangents to apply the function to, and what is to be added to the result."""
        n = len(op.operands) - self.linear
        wrt = [i for i, d in enumerate(dots[:n]) if d is not None]
        f = jvp_pass.jvp(Function(self.name, op.regions[0]), wrt)
        outs = b.inline(f.body, [*op.operands, *(d for d in dots[:n] if d is not None)])
        return list(dots[n:]), outs[len(ys) :]

    def transpose(self, b: Builder, op: Op, known: Sequence[Value | Linear], bars: Tangents) -> Tangents:
        n = len(op.operands) - self.linear
        results = op.results[: self.spec.num_leaves]
        types = [v.type for v in (*op.operands[: self.known], *results)]
        made = self.record.trace(self.back, [ArgSpec(t) for t in types], self._run_back)
        seeds = [b.zeros(r.type) if c is None else c for r, c in zip(results, bars)]
        return [*[None] * n, *b.inline(made.body, [*op.operands[: self.known], *seeds, *op.operands[self.known : n]])]

    def _run_back(self, arrays: Sequence[Array]) -> Sequence[Any]:
        a = self.record.arguments
        known = a.rebuild([*arrays[: self.known], *a.leaves[self.known :]])[0][0]
        bars = trees.unflatten(self.spec, arrays[self.known :])
        made = call(self.back, known, bars)
        types = [t.type for t in a.types[self.known :]]
        found = matching(made, self.like, types, "cotangents", "the linear argument")
        b = builder()
        return [wrap(b.zeros(t) if d is None else d) for d, t in zip(found, types)]


class custom_transpose:
    """A function ``f(known, x)`` that is linear in ``x``, with a transpose of its own.

    ``@f.def_transpose`` takes ``rule(known, cotangent) -> cotangent of x``. Both arguments are trees. The derivative by
    ``known`` is that of the function's own code.
    """

    def __init__(self, function: Callable[..., Any]):
        functools.update_wrapper(self, function, updated=())
        self.function = function
        self.rule: Callable[..., Any] | None = None

    def def_transpose(self, rule: Callable[..., Any]) -> Callable[..., Any]:
        """Sets the rule."""
        self.rule = rule
        return rule

    def __call__(self, known: Any, x: Any) -> Any:
        if not tracing():
            return self.function(known, x)
        name = getattr(self.function, "__name__", "function")
        with user_frames_only():
            if self.rule is None:
                raise failure(
                    DerivativeError,
                    f"{name} is a custom_transpose without a rule",
                    mend=f"define it by @{name}.def_transpose",
                    location=function_location(self.function),
                )
            return LinearRule(name, self.function, known, x, self.rule).call()


Solver = Callable[[Callable[[Any], Any], Any], Any]


def spec_of_solution(record: CallRecord, solve: Solver, has_aux: bool) -> trees.Spec:
    """The structure of what a solver returns, or of the first of the two that it returns."""
    spec = record.program.out_spec
    if not has_aux:
        return spec
    if spec.type is tuple and spec.num_children == 2:
        return spec.child(0)
    raise failure(
        DerivativeError,
        "with has_aux, solve must return a pair: the solution and what else there is",
        seen=f"{spec}",
        location=function_location(solve),
    )


def custom_linear_solve(
    matvec: Callable[[Any], Any],
    b: Any,
    solve: Solver,
    transpose_solve: Solver | None = None,
    symmetric: bool = False,
    has_aux: bool = False,
) -> Any:
    """The ``x`` with ``matvec(x) == b``, as ``solve(matvec, b)`` finds it, with derivatives by what defines it.

    Nothing of ``solve`` is differentiated: tangents and cotangents solve linear systems too, the latter by
    ``transpose_solve(vecmat, b)``, or by ``solve`` itself when the system is ``symmetric``. ``matvec`` is linear, and
    may close over whatever the system depends on. ``b`` and ``x`` are trees of one structure. With ``has_aux`` solvers
    return a pair, the solution and whatever else, which counts as constant; so does ``custom_linear_solve``.

    Raises DerivativeError where reverse mode is asked for and neither is given.
    """
    if not tracing():
        return solve(matvec, b)
    with user_frames_only():
        return _SolveRule(matvec, b, solve, solve if symmetric else transpose_solve, symmetric, has_aux).call()


class _SolveRule(LinearRule):
    def __init__(
        self,
        matvec: Callable[[Any], Any],
        b: Any,
        solve: Solver,
        transpose_solve: Solver | None,
        symmetric: bool,
        has_aux: bool,
    ):
        matrix = trace_program(matvec, Arguments(matvec, (b,), {}))
        consts = tuple(matrix.traced.captured)

        def product(consts: Any) -> Callable[[Any], Any]:
            return lambda x: run_program(matrix, (x,), consts)

        def solved(consts: Any, b: Any) -> Any:
            return call(solve, product(consts), b)

        def back(consts: Any, bar: Any) -> Any:
            if transpose_solve is None:
                raise failure(
                    DerivativeError,
                    "the transpose of a linear solve is needed, and there is no transpose_solve",
                    mend="give transpose_solve, or symmetric=True, to custom_linear_solve",
                )
            matrix, solvers = product(consts), (transpose_solve, solve)
            if not symmetric:
                vecmat = linear_transpose(matrix, zeros)
                matrix = lambda y: vecmat(y)[0]  # noqa: E731
            found = custom_linear_solve(matrix, bar, *solvers, symmetric, has_aux)
            return found[0] if has_aux else found

        zeros = trees.map_leaves(lambda t: np.zeros(t.shape, t.dtype), trees.map_leaves(shape_of, b))
        self.matrix = matrix.traced.function
        super().__init__("linear_solve", solved, consts, b, back, (matvec, solve, transpose_solve))
        self.has_aux = has_aux
        self.spec = spec_of_solution(self.record, solve, has_aux)

    def call(self) -> Any:
        found = super().call()
        return (found[0], stop_gradient(found[1])) if self.has_aux else found

    def by_known(
        self, b: Builder, op: Op, ys: Sequence[Value], dots: Tangents
    ) -> tuple[list[Value | None], list[Value] | None]:
        """``A x = b`` gives ``A x_dot = b_dot - A_dot x``. What the solver closes over does not change the solution."""
        n = len(op.operands) - self.linear
        moving = [i for i in range(self.known) if dots[i] is not None]
        along: list[Value | None] = list(dots[n:])
        if moving:
            x = ys[: self.spec.num_leaves]
            f = jvp_pass.jvp(self.matrix, [len(x) + i for i in moving])
            given = [*x, *op.operands[: self.known], *(d for d in dots[: self.known] if d is not None)]
            shifts = b.inline(f.body, given)[len(x) :]
            along = [b.neg(s) if d is None else b.sub(d, s) for d, s in zip(along, shifts)]
        return along, None


__all__ = [
    "LinearRule",
    "closure_convert",
    "custom_linear_solve",
    "custom_transpose",
    "run_program",
    "spec_of_solution",
]
