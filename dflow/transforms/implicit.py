"""``custom_root``: solutions of equations, differentiated by the equation and not by the way to its solution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dflow import trees
from dflow.api import linearize
from dflow.errors import DerivativeError, failure, function_location, user_frames_only
from dflow.ir.builder import Builder
from dflow.ir.core import Op, Value
from dflow.ir.passes import jvp as jvp_pass
from dflow.ir.rules import Rule, Tangents, apply, unused_name
from dflow.programs.program import Program, trace_program
from dflow.programs.signature import Arguments
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import wrap
from dflow.tracing.context import builder, tracing
from dflow.tracing.python.calls import call
from dflow.tracing.trace import ArgSpec
from dflow.transforms.call_records import CallRecord
from dflow.transforms.derivatives import matching
from dflow.transforms.linear_rules import run_program, spec_of_solution

Solver = Callable[[Callable[[Any], Any], Any], Any]


def custom_root(
    f: Callable[[Any], Any], initial_guess: Any, solve: Solver, tangent_solve: Solver, has_aux: bool = False
) -> Any:
    """The ``x`` with ``f(x) == 0``, as ``solve(f, initial_guess)`` finds it.

    Its derivatives, by what ``f`` closes over, follow from the implicit function theorem: ``tangent_solve(g, y)``
    returns the ``t`` with ``g(t) == y``, where ``g`` is the (linear) derivative of ``f`` at the root. Nothing of
    ``solve`` is differentiated, and the guess counts as constant. ``f`` returns a tree like ``x``. With ``has_aux``
    ``solve`` returns a pair, the solution and whatever else, which counts as constant; so does ``custom_root``. As in
    JAX.
    """
    if not tracing():
        return solve(f, initial_guess)
    with user_frames_only():
        return _RootRule(f, initial_guess, solve, tangent_solve, has_aux).call()


class _RootRule(Rule):
    """Operands: what the equation closes over, the guess, what the solver closes over."""

    def __init__(self, f: Callable[[Any], Any], guess: Any, solve: Solver, tangent_solve: Solver, has_aux: bool):
        super().__init__(unused_name("root"))
        self.equation = trace_program(f, Arguments(f, (guess,), {}))
        self.tangent_solve = tangent_solve
        consts = tuple(self.equation.traced.captured)
        self.known = len(consts)

        def solved(consts: Any, guess: Any) -> Any:
            return call(solve, lambda x: run_program(self.equation, (x,), consts), guess)

        self._require_like(guess, "the equation", f, self.equation, self.equation.out_spec)
        self.record = CallRecord(solved, Arguments(solved, (consts, guess), {}), rules=(solve, tangent_solve))
        self.spec = spec_of_solution(self.record, solve, has_aux)
        self._require_like(guess, "solve", solve, self.record.program, self.spec)

    def _require_like(self, guess: Any, what: str, function: Any, program: Program, own: trees.Spec) -> None:
        outputs, spec = program.traced.outputs[: own.num_leaves], trees.flatten(guess)[1]
        wanted = [t.type for t in self.equation.arguments.types]
        if own == spec and [t.shape for t in outputs] == [t.shape for t in wanted]:
            return
        raise failure(
            DerivativeError,
            f"{what} of custom_root must return what has the structure and the shapes of the guess",
            seen=f"{own}: {', '.join(map(str, outputs))}",
            wanted=f"{spec}: {', '.join(map(str, wanted))}",
            location=function_location(function),
        )

    def call(self) -> Any:
        values = apply(builder(), self, self.record.operands(), self.record.function.body)
        return self.record.results(values)

    def jvp(self, b: Builder, op: Op, dots: Tangents) -> tuple[Sequence[Value], Tangents]:
        values = apply(b, self, op.operands, op.regions[0])
        moving = [i for i in range(self.known) if dots[i] is not None]
        if not moving:
            return values, [None] * len(values)
        consts, n = op.operands[: self.known], self.spec.num_leaves
        ys = values[:n]
        f = jvp_pass.jvp(self.equation.traced.function, [n + i for i in moving])
        shifts = b.inline(f.body, [*ys, *consts, *(d for d in dots[: self.known] if d is not None)])[n:]
        types = [v.type for v in (*consts, *ys, *shifts)]
        made = self.record.trace(self.tangent_solve, [ArgSpec(t) for t in types], self._run)
        given = [*consts, *ys, *(b.neg(s) for s in shifts), *op.operands[self.record.count :]]
        return values, [*b.inline(made.body, given), *[None] * (len(values) - n)]

    def _run(self, arrays: Sequence[Array]) -> Sequence[Any]:
        """Calls ``tangent_solve``; the tangents of the root."""
        consts, rest = arrays[: self.known], arrays[self.known :]
        n = len(rest) // 2
        x, y = trees.unflatten(self.spec, rest[:n]), trees.unflatten(self.spec, rest[n:])

        # The linear part by itself, which can be transposed: a loop of jvp mixes it with the rest.
        _, g = linearize(lambda x: run_program(self.equation, (x,), consts), x)
        made = call(self.tangent_solve, g, y)
        types = list(self.record.program.traced.outputs[:n])
        found = matching(made, x, types, "tangents", "the root")
        b = builder()
        return [wrap(b.zeros(t) if d is None else d) for d, t in zip(found, types)]


__all__ = ["custom_root"]
