"""Reductions over axes. ``max`` and ``min`` share the derivative between equal extrema; ``argmax`` takes the first."""

from __future__ import annotations

from typing import Any

import numpy as np

from dflow.ir.ops.tables import in_single
from dflow.ir.registry import OpDef, Sample, define, require
from dflow.ir.types import BOOL, COMPLEXES, I64, NUMERIC, REAL, TensorType

KINDS: dict[str, Any] = {"sum": np.sum, "prod": np.prod, "max": np.max, "min": np.min, "any": np.any, "all": np.all}
M = [[1.0, 5.0, 3.0], [4.0, 2.0, 6.0]]
TIES = [[1.0, 5.0, 5.0], [4.0, 4.0, 4.0]]


def _kept(x: TensorType, axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(k for k in range(x.rank) if k not in axes)


def _reduce_infer(attrs: Any, types: Any) -> list[TensorType]:
    (x,) = types
    kind, axes = attrs["kind"], attrs["axes"]
    require(kind in KINDS, f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    require(list(axes) == sorted(set(axes)) and all(0 <= a < x.rank for a in axes), f"axes {axes} do not fit {x}")
    require(x.dtype not in COMPLEXES or kind in ("sum", "prod"), f"{kind} does not take {x.dtype}")
    require((x.dtype == BOOL) == (kind in ("any", "all")), f"{kind} does not take {x.dtype}")
    require(not x.grows, f"cannot reduce the sequence {x}")
    if kind in ("max", "min"):
        require(all(x.shape[a] != 0 for a in axes), f"{kind} of no elements: {x} over axes {axes}")
    return [x.with_shape(tuple(x.shape[k] for k in _kept(x, axes)))]


def _reduce(attrs: Any, x: Any) -> Any:
    if attrs["kind"] in ("sum", "prod"):
        return in_single(lambda x: KINDS[attrs["kind"]](x, axis=attrs["axes"], dtype=np.asarray(x).dtype), x)
    return KINDS[attrs["kind"]](x, axis=attrs["axes"])


def _reduce_jvp(b: Any, attrs: Any, xs: Any, ys: Any, ts: Any) -> list[Any]:
    (x,), (y,), (t,), kind, axes = xs, ys, ts, attrs["kind"], attrs["axes"]
    if t is None:
        return [None]
    if kind == "sum":
        return [b.reduce(t, kind="sum", axes=axes)]
    if kind == "prod":
        return [_prod_tangent(b, x, t, axes)]
    # The tangents at the extrema, over their number.
    spread = b.broadcast(y, shape=x.type.shape, dims=_kept(x.type, axes))
    extreme = b.eq(x, spread)
    count = b.reduce(b.convert(extreme, dtype=x.type.dtype), kind="sum", axes=axes)
    return [b.div(b.reduce(b.select(extreme, t, b.zeros(t.type)), kind="sum", axes=axes), count)]


def _prod_tangent(b: Any, x: Any, t: Any, axes: tuple[int, ...]) -> Any:
    """The product rule, factor by factor and axis by axis, so that zeros among the factors are right to every order."""
    *others, axis = axes
    if others:
        t = _prod_tangent(b, x, t, (axis,))
        return _prod_tangent(b, b.reduce(x, kind="prod", axes=(axis,)), t, tuple(others))
    shape = tuple(x.type.shape[k] for k in _kept(x.type, axes))
    index = tuple("at" if k == axis else "all" for k in range(x.type.rank))

    def body(b: Any, k: Any, p: Any, p_dot: Any) -> list[Any]:
        f, f_dot = b.extract(x, k, index=index), b.extract(t, k, index=index)
        return [b.mul(p, f), b.add(b.mul(p_dot, f), b.mul(p, f_dot))]

    one = x.type.with_shape(shape)
    return b.for_loop(b.size(x.type.shape[axis]), [b.full(1, one), b.zeros(one)], body)[1]


define(
    OpDef(
        "reduce",
        "sum, prod, max, min, any or all over axes (linear for sum alone)",
        _reduce_infer,
        _reduce,
        _reduce_jvp,
        lambda b, attrs, xs, cts: [b.broadcast(cts[0], shape=xs[0].type.shape, dims=_kept(xs[0].type, attrs["axes"]))],
        ((0,),),
        NUMERIC,
        samples=tuple(
            Sample((M,), {"kind": kind, "axes": axes})
            for kind in ("sum", "prod", "max", "min")
            for axes in ((0, 1), (0,), (1,))
        )
        + (
            Sample((TIES,), {"kind": "max", "axes": (1,)}, smooth=False),
            Sample(([[0.0, 2.0], [0.0, 0.0]],), {"kind": "prod", "axes": (1,)}),
            Sample(([[True, False], [True, True]],), {"kind": "any", "axes": (1,)}, integer=(0,), smooth=False),
            Sample(([[True, False], [True, True]],), {"kind": "all", "axes": (0, 1)}, integer=(0,), smooth=False),
        ),
    )
)


def _arg_infer(attrs: Any, types: Any) -> list[TensorType]:
    (x,) = types
    axis = attrs["axis"]
    require(0 <= axis < x.rank, f"{x} has no axis {axis}")
    require(x.dtype in REAL, f"does not take {x.dtype}")
    require(x.shape[axis] != 0, f"{x} has no elements along axis {axis}")
    return [TensorType(I64, tuple(s for k, s in enumerate(x.shape) if k != axis))]


for _name, _doc, _reference in (("argmax", "largest", np.argmax), ("argmin", "smallest", np.argmin)):
    define(
        OpDef(
            _name,
            f"the position of the first {_doc} element (or NaN) along an axis",
            _arg_infer,
            lambda attrs, x, f=_reference: f(x, axis=attrs["axis"]),
            dtypes=REAL,
            no_derivative="its result is an index",
            samples=(Sample((M,), {"axis": 1}), Sample((TIES,), {"axis": 0})),
        )
    )
