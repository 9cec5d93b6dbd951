"""What the tables of elementwise operations share: one row gives name, meaning, partial derivatives and samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dflow.ir.registry import Attrs, JvpRule, OpDef, OpTypeError, Sample, TransposeRule, Types, define, linear_jvp
from dflow.ir.types import BF16, BOOL, DType, TensorType, is_bfloat16

# partial(b, y, *xs): the derivative of the result `y` by one operand, as an expression.
Partial = Callable[..., Any]
ZERO = "zero"  # a partial derivative that is zero wherever it exists


def in_single(reference: Callable[..., Any], *xs: Any) -> Any:
    """``reference`` of arrays; of bfloat16 in f32, and rounded."""
    dtypes = [np.asarray(x).dtype for x in xs]
    if not any(map(is_bfloat16, dtypes)):
        return reference(*xs)
    y = np.asarray(reference(*(np.asarray(x, np.float32) if is_bfloat16(d) else x for x, d in zip(xs, dtypes))))
    return y.astype(BF16.numpy) if y.dtype == np.float32 else y


def same_type(dtypes: tuple[DType, ...], result: DType | None = None) -> Callable[[Attrs, Types], list[TensorType]]:
    """Operands of one type; the result has it too, or the dtype ``result``."""

    def infer(attrs: Attrs, types: Types) -> list[TensorType]:
        first = types[0]
        if any(t is not first and t != first for t in types):
            raise OpTypeError(f"operands must have one type, got {', '.join(map(str, types))}")
        if first.dtype not in dtypes:
            raise OpTypeError(f"does not take {first.dtype}; it takes {', '.join(d.name for d in dtypes)}")
        return [first if result is None else first.with_dtype(result)]

    return infer


def partials_jvp(partials: Sequence[Partial | str]) -> JvpRule:
    """The tangent as the sum of partial derivatives times tangents."""

    def jvp(b: Any, attrs: Attrs, xs: Sequence[Any], ys: Sequence[Any], ts: Sequence[Any]) -> list[Any]:
        total = None
        for partial, t in zip(partials, ts):
            if t is None or isinstance(partial, str):
                continue
            term = b.mul(partial(b, ys[0], *xs), t)
            total = term if total is None else b.add(total, term)
        return [total]

    return jvp


def elementwise(
    name: str,
    doc: str,
    reference: Callable[..., Any],
    dtypes: tuple[DType, ...],
    *,
    arity: int = 1,
    partials: Sequence[Partial | str] | None = None,
    jvp: JvpRule | None = None,
    linear: tuple[tuple[int, ...], ...] = (),
    transpose: TransposeRule | None = None,
    result: DType | None = None,
    samples: Sequence[Any] = (),
    kinks: Sequence[Any] = (),
    cheap: bool = False,
    no_derivative: str | None = None,
) -> OpDef:
    """Defines an elementwise operation. ``samples`` and ``kinks`` hold one array-like for each operand."""
    rule = jvp
    if rule is None and partials is not None:
        rule = partials_jvp(partials)
    if rule is None and linear:
        rule = linear_jvp(name, lambda n: linear)
    points: tuple[Sample, ...] = ()
    if samples:
        points += (Sample(tuple(samples)),)
    if kinks:
        points += (Sample(tuple(kinks), smooth=False),)
    count = same_type(dtypes, result)

    def infer(attrs: Attrs, types: Types) -> list[TensorType]:
        if len(types) != arity:
            raise OpTypeError(f"takes {arity} operands, got {len(types)}")
        return count(attrs, types)

    def evaluate(attrs: Attrs, *xs: Any) -> Any:
        with np.errstate(all="ignore"):
            return in_single(reference, *xs)

    if rule is None and no_derivative is None:
        no_derivative = "its result is not a number that varies continuously" if result is BOOL else None
    return define(
        OpDef(
            name,
            doc,
            infer,
            evaluate,
            rule,
            transpose,
            linear,
            dtypes,
            elementwise=True,
            cheap=cheap,
            no_derivative=no_derivative,
            samples=points,
        )
    )
