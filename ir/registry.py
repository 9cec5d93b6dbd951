"""Definitions of operations: everything that is known of one operation stands in one ``OpDef``.

The tables in ``dflow.ir.ops`` make them. A definition gives the type rule, the meaning (on NumPy arrays), the
derivative, documentation and test samples; tests and passes read nothing else, so an operation is added in one place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dflow.ir.types import DType, TensorType

if TYPE_CHECKING:
    from dflow.ir.builder import Builder
    from dflow.ir.core import Location, Op, Value

Attrs = Mapping[str, Any]
Types = Sequence[TensorType]


class OpTypeError(TypeError):
    """An operation was given operands or attributes that its definition does not allow."""


class NoDerivativeError(TypeError):
    """Something that the result depends on cannot be differentiated. ``loc`` is the user's line."""

    def __init__(self, message: str, loc: Location | None):
        super().__init__(message)
        self.loc = loc


@dataclass(frozen=True)
class Linear:
    """Stands for a linear operand (whose value does not exist) in a call of a transpose rule."""

    type: TensorType


@dataclass(frozen=True)
class Accumulate:
    """A cotangent contribution that is best added in place: ``add(running) -> running + contribution``."""

    add: Callable[[Value], Value]


Cotangent = "Value | Accumulate | None"

# (attrs, operand types) -> result types; raises OpTypeError.
TypeRule = Callable[[Attrs, Types], Sequence[TensorType]]
# (attrs, *arrays) -> array, or a tuple for several results.
Reference = Callable[..., Any]
# (builder, attrs, operands, results, tangents of operands) -> tangents of results. None is a zero tangent.
JvpRule = Callable[
    ["Builder", Attrs, "Sequence[Value]", "Sequence[Value]", "Sequence[Value | None]"], "Sequence[Value | None]"
]
# (builder, attrs, operands) -> results, in terms of other operations.
Decomposition = Callable[["Builder", Attrs, "Sequence[Value]"], "Sequence[Value]"]
# (builder, attrs, operands with Linear in place of linear ones, cotangents of results) -> contributions to operands.
TransposeRule = Callable[["Builder", Attrs, "Sequence[Any]", "Sequence[Value | None]"], "Sequence[Any]"]


@dataclass(frozen=True)
class Sample:
    """One test point: operand arrays (array-likes, cast to the dtype under test) and attributes.

    ``integer`` lists operand positions that keep an integer dtype (indices). ``smooth`` is False where the function has
    a kink or a pole, so that numeric derivatives do not apply.
    """

    operands: tuple[Any, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    integer: tuple[int, ...] = ()
    smooth: bool = True


@dataclass(frozen=True)
class OpDef:
    """The definition of an operation.

    ``linear`` names the groups of operand positions in which the operation is (jointly) linear: ``((0, 1),)`` for
    addition, ``((0,), (1,))`` for multiplication; a function of the operand count where that varies.
    ``elementwise`` operations take and give tensors of one shape. ``no_derivative`` is the reason why there is none.
    ``cheap`` operations may be recomputed in a reverse pass rather than their results kept. ``attributes`` names the
    attributes where the samples do not show them. An operation with a ``decomposition`` is written in terms of others
    before machine code is made: it is there for the sake of its derivative.
    """

    name: str
    doc: str
    infer: TypeRule
    reference: Reference | None = None
    jvp: JvpRule | None = None
    transpose: TransposeRule | None = None
    linear: tuple[tuple[int, ...], ...] | Callable[[int], tuple[tuple[int, ...], ...]] = ()
    dtypes: tuple[DType, ...] = ()
    elementwise: bool = False
    effect: bool = False
    cheap: bool = False
    no_derivative: str | None = None
    samples: tuple[Sample, ...] = ()
    attributes: tuple[str, ...] = ()
    decomposition: Decomposition | None = None

    @property
    def attribute_names(self) -> tuple[str, ...]:
        """All attributes of the operation; each is required."""
        return tuple(dict.fromkeys((*self.attributes, *(k for s in self.samples for k in s.attrs))))

    def linear_groups(self, operand_count: int) -> tuple[tuple[int, ...], ...]:
        return self.linear(operand_count) if callable(self.linear) else self.linear


OPS: dict[str, OpDef] = {}


def define(op: OpDef) -> OpDef:
    """Adds a definition to the table of operations."""
    assert op.name not in OPS, f"operation {op.name} is defined twice"
    OPS[op.name] = op
    return op


def definition(op: Op | str) -> OpDef:
    return OPS[op if isinstance(op, str) else op.name]


def require(condition: object, message: str) -> None:
    """Raises OpTypeError with ``message`` unless ``condition`` holds. For type rules."""
    if not condition:
        raise OpTypeError(message)


def linear_jvp(op: str, groups: Callable[[int], tuple[tuple[int, ...], ...]]) -> JvpRule:
    """The tangent of a (multi-)linear operation: the sum over its groups of itself with tangents for operands."""

    def jvp(
        b: Builder, attrs: Attrs, xs: Sequence[Value], ys: Sequence[Value], ts: Sequence[Value | None]
    ) -> list[Any]:
        total: Value | None = None
        for group in groups(len(xs)):
            if all(ts[i] is None for i in group):
                continue
            args = list(xs)
            for i in group:
                t = ts[i]
                args[i] = b.zeros(xs[i].type) if t is None else t
            term = b.emit(op, *args, **attrs)
            total = term if total is None else b.emit("add", total, term)
        return [total]

    return jvp
