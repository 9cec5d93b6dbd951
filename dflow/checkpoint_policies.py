"""What ``checkpoint(policy=...)`` keeps besides the arguments, under JAX's names.

A policy chooses among the values that the function computes outside of loops and branches of its own; what has no
fixed shape is computed again. It changes no value and no derivative.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from dflow.ir.core import Block, Op, Value
from dflow.ir.rules import Checkpoint, Named


class Policy(NamedTuple):
    """``rule`` is that of the checkpoint; None stands for no checkpoint at all."""

    rule: Checkpoint | None

    def kept(self, region: Block) -> Sequence[Value]:
        """The values that are kept."""
        if self.rule is None:
            return _all(region)
        return self.rule.keeps(region) if self.rule.keeps else []


def _policy(keeps: Callable[[Block], Sequence[Value]] | None) -> Policy:
    return Policy(Checkpoint("checkpoint", keeps))


def _all(region: Block) -> list[Value]:
    return [r for op in region.ops for r in op.results]


def _label(op: Op) -> str | None:
    rule = op.attrs["rule"] if op.name == "custom" else None
    return rule.label if isinstance(rule, Named) else None


def _named(region: Block, wanted: Callable[[str], bool]) -> list[Value]:
    """What is given a name, before it is: rules that use a function's own value find it there."""
    return [op.operands[0] for op in region.ops if (label := _label(op)) is not None and wanted(label)]


def _products(region: Block, rank: int | None = None) -> list[Value]:
    return [op.result for op in region.ops if op.name == "matmul" and rank in (None, op.result.type.rank)]


everything_saveable = Policy(None)
nothing_saveable = _policy(None)
dots_saveable = checkpoint_dots = _policy(_products)
dots_with_no_batch_dims_saveable = checkpoint_dots_with_no_batch_dims = _policy(lambda r: _products(r, rank=2))


def save_only_these_names(*names: str) -> Policy:
    """Values that ``checkpoint_name`` gave one of the names."""
    return _policy(lambda region: _named(region, lambda label: label in names))


def save_any_names_but_these(*names: str) -> Policy:
    """Values that ``checkpoint_name`` gave another name."""
    return _policy(lambda region: _named(region, lambda label: label not in names))


def save_anything_except_these_names(*names: str) -> Policy:
    """All values but those that ``checkpoint_name`` gave one of the names."""

    def keeps(region: Block) -> list[Value]:
        left_out = {v for v in _named(region, lambda label: label in names)}
        left_out.update(r for op in region.ops if _label(op) in names for r in op.results)
        return [v for v in _all(region) if v not in left_out]

    return _policy(keeps)


def save_from_both_policies(first: Policy, second: Policy) -> Policy:
    """What either of the two keeps."""
    return _policy(lambda region: [*first.kept(region), *second.kept(region)])


__all__ = [
    "checkpoint_dots",
    "checkpoint_dots_with_no_batch_dims",
    "dots_saveable",
    "dots_with_no_batch_dims_saveable",
    "everything_saveable",
    "nothing_saveable",
    "save_any_names_but_these",
    "save_anything_except_these_names",
    "save_from_both_policies",
    "save_only_these_names",
]
