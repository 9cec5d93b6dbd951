"""Calls of functions that a rule or a way of differentiating belongs to, noted while tracing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dflow import trees
from dflow.errors import DerivativeError, failure, function_location
from dflow.ir.core import Function, Op, Value
from dflow.ir.passes import optimize
from dflow.ir.registry import NoDerivativeError
from dflow.ir.rules import Tangents
from dflow.programs.program import Program, trace_program
from dflow.programs.signature import Arguments
from dflow.tracing.arrays.lift import wrap
from dflow.tracing.python.objects import Snapshot
from dflow.tracing.trace import ArgSpec, trace
from dflow.transforms.derivatives import operands


class CallRecord:
    """One call of a function with a rule: what its rule needs to be traced for just this call.

    That happens later, when variables that ``rules`` close over may have other values: the next round of a loop has
    begun, say. So the values of now are noted, and are put back for that time.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        arguments: Arguments,
        nondiff: Sequence[int] = (),
        rules: Sequence[Callable[..., Any]] = (),
    ):
        self.closures = Snapshot([function, *rules])
        self.name = getattr(function, "__name__", "function")
        self.arguments = arguments
        self.nondiff = tuple(nondiff)
        self.program: Program = trace_program(function, arguments)
        if not self.program.returns_all:
            arrays = [arguments.names()[k] for k, _ in self.program.traced.mutated]
            names = ", ".join([*arrays, *(str(u.key) for u in self.program.updates)])
            raise failure(
                DerivativeError,
                f"{self.name} has a derivative rule, and updates its argument {names}",
                mend="update a copy (x = x.copy()) and return it",
                location=function_location(function),
            )
        self.count = len(arguments.leaves)
        self.closure = self.program.traced.captured

    @property
    def function(self) -> Function:
        return self.program.traced.function

    def operands(self) -> list[Value]:
        return operands(self.program)

    def results(self, values: Sequence[Value]) -> Any:
        """What the call returns."""
        leaves = [wrap(v, weak) for v, weak in zip(values, self.program.traced.weak)]
        return trees.unflatten(self.program.out_spec, leaves)

    def all_args(self, leaves: Sequence[Any]) -> list[Any]:
        return self.arguments.rebuild(leaves)[0]

    def args(self, leaves: Sequence[Any]) -> tuple[Any, ...]:
        """The differentiable arguments with other leaves."""
        return tuple(a for i, a in enumerate(self.all_args(leaves)) if i not in self.nondiff)

    def tangent_args(self, leaves: Sequence[Any]) -> tuple[Any, ...]:
        """A tree like ``args``, with None for what is no number."""
        rest = iter(leaves)
        a = self.arguments
        everything = [None if i in a.fixed else next(rest) for i in range(len(a.all_leaves))]
        args = trees.unflatten(a.spec, everything)[0]
        return tuple(x for i, x in enumerate(args) if i not in self.nondiff)

    def fixed_args(self) -> list[Any]:
        """The arguments by which nothing is differentiated."""
        args = self.all_args(self.arguments.leaves)
        return [args[i] for i in sorted(self.nondiff)]

    def specs(self) -> list[ArgSpec]:
        return [ArgSpec(t.type, t.weak, n) for t, n in zip(self.arguments.types, self.arguments.names())]

    def trace(self, rule: Callable[..., Any], specs: Sequence[ArgSpec], run: Callable[..., Sequence[Any]]) -> Function:
        """Traces ``run(arrays)``, which calls ``rule``. The function takes ``specs``, then the closure's contents."""
        with self.closures.in_force():
            traced = trace(rule, [*specs, *(ArgSpec(a.type) for a in self._contents())], run, self.closure)
        if traced.captured:
            raise failure(
                DerivativeError,
                f"the rule of {self.name} uses a traced value that {self.name} itself does not use",
                seen=", ".join(map(repr, traced.captured)),
                mend=f"make it an argument of {self.name}",
                location=function_location(rule),
            )
        return optimize(traced.function)

    def _contents(self) -> tuple[Value, ...]:
        return self.function.args[self.count :]

    def require_constant_closure(self, op: Op, dots: Tangents) -> None:
        """A value that the function closes over must not vary: the rule says nothing of it."""
        if any(d is not None for d in dots):
            raise NoDerivativeError(
                f"{self.name} has a derivative rule, and closes over a value that is differentiated; "
                f"make it an argument of {self.name}",
                op.loc,
            )
