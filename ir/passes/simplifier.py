"""The builder behind ``canonicalize``: what it is asked to append, it first tries to do without.

A rule is a function ``(builder, attrs, *operands) -> Value | None``: an equal value, or None where it does not apply.
What a rule emits is simplified in turn, so the result is a fixed point of the rules after one walk over a program.
Rules stand in tables by the name of the operation (``folding``, ``algebra``, ``structure``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dflow.ir.builder import Builder
from dflow.ir.core import Block, Location, Value

Rule = Callable[..., "Value | None"]
Rules = dict[str, tuple[Rule, ...]]


@dataclass
class Facts:
    """What the rules may ask about the values of the new program beyond their definitions."""

    overwritten: set[Value] = field(default_factory=set)  # will be updated in place: give them no further use
    single: set[Value] = field(default_factory=set)  # updates with one use


class Simplifier(Builder):
    """A builder that applies ``rules``, and ``every`` (tried for each operation before its own rules)."""

    def __init__(self, rules: Rules, every: Sequence[Rule], facts: Facts, loc: Location | None = None):
        super().__init__(loc=loc)
        self.rules, self.every, self.facts = rules, every, facts

    def inner(self) -> Simplifier:
        return Simplifier(self.rules, self.every, self.facts, self.loc)

    def simplify(self, name: str, operands: Sequence[Value], attrs: Mapping[str, Any]) -> Value | None:
        """A value equal to the operation's result, found or made; None when the operation has to be appended."""
        for rule in self.every:
            found = rule(self, name, attrs, operands)
            if found is not None:
                return found
        for rule in self.rules.get(name, ()):
            found = rule(self, attrs, *operands)
            if found is not None:
                return found
        return None

    def append(
        self,
        name: str,
        operands: Sequence[Value],
        attrs: Mapping[str, Any] | None = None,
        regions: Sequence[Block] = (),
        hints: Sequence[str | None] = (),
        loc: Location | None = None,
    ) -> tuple[Value, ...]:
        if not regions:
            found = self.simplify(name, operands, attrs or {})
            if found is not None:
                return (found,)
        return super().append(name, operands, attrs, regions, hints, loc)

    def keep(self, name: str, *operands: Value, **attrs: Any) -> Value:
        """Appends the operation as it is."""
        return super().append(name, operands, attrs)[0]
