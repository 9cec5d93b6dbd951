"""Programs run by the reference evaluator, one operation after the other: slow, simple, and open to be looked into."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dflow.errors import run_time_error
from dflow.ir.core import Op
from dflow.ir.evaluator import evaluate
from dflow.ir.passes.rewrite import has_effect
from dflow.ir.types import kind_of
from dflow.programs.executable import Executable, Mismatch, Updated, check_apart, check_writable
from dflow.programs.pipeline import Stages
from dflow.programs.signature import LeafType


class Reference:
    """One traced program for one signature; called as ``Executable`` is."""

    address = None
    on_op: Callable[..., None] | None = None

    def __init__(
        self, stages: Stages, types: Sequence[LeafType], single: bool, updated: Updated = (), names: Sequence[str] = ()
    ):
        self.stages = stages
        self.types = types
        self.single = single
        self.updated, self.names = updated, names

    def __call__(self, *leaves: Any) -> Any:
        raise Mismatch(self.types, leaves)

    def convert_and_call(self, leaves: Sequence[Any]) -> Any:
        """Calls with leaves of the right dtypes and shapes."""
        for position, _ in self.updated:
            check_writable(leaves[position], self.names[position])
            check_apart(leaves, position, self.names)
        try:
            results = evaluate(self.stages.traced, [np.asarray(x) for x in leaves], on_op=self.on_op)
        except Exception as e:
            location = getattr(e, "location", None)
            if location is None:
                raise
            raise run_time_error(e, location) from None
        for position, k in self.updated:
            np.copyto(leaves[position], results[k])
        shown = [r if r.ndim else r[()] for r in results[: len(results) - len(self.updated)]]
        if self.stages.trim:
            shown = self.stages.trim(shown)
        return shown[0] if self.single else tuple(shown)


class Finite(Reference):
    """Stops at the first operation that makes NaN or infinity of finite numbers."""

    @staticmethod
    def on_op(op: Op, results: Sequence[Any], operands: Sequence[Any]) -> None:
        if (
            op.regions
            or has_effect(op)
            or not op.operands
            or all(map(_finite, results))
            or not all(map(_finite, operands))
        ):
            return
        seen = ", ".join(_shown(x) for x in operands)
        error = FloatingPointError(f"{op.name} makes {_worst(results)} of finite numbers: {op.name} of {seen}")
        error.location = op.loc  # type: ignore[attr-defined]
        raise error


def _finite(x: Any) -> bool:
    return kind_of(x.dtype) not in "fc" or bool(np.isfinite(x).all())


def _worst(results: Sequence[Any]) -> str:
    bad = next(x for x in results if not _finite(x))
    return "NaN" if np.isnan(bad).any() else "infinity"


def _shown(x: Any) -> str:
    return str(x) if x.ndim == 0 else f"an array {list(x.shape)} from {x.min()} to {x.max()}" if x.size else "nothing"


BACKENDS: dict[str, Any] = {"native": Executable, "reference": Reference}
