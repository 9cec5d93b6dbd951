"""Kernels and reductions as loop nests around scalar code.

A reduction keeps its accumulators in registers, one reduced nest for each kept index; only their additions and products
may be reassociated, which is what lets LLVM vectorise them. Where that would read memory in strides (the sum over the
rows of a matrix), whole rows of results are accumulated in their buffer instead:

    for each kept index but the last axis:                 out[i, :] = identity
        for each reduced index: for j in the last axis:    out[i, j] += element(i, j, reduced)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from llvmlite import ir

from dflow.backends.emit.collapse import collapsed_kernel
from dflow.backends.emit.core import Domain, Emitter, emits, point_count, unrolls
from dflow.backends.emit.loop_hints import nest_hints
from dflow.backends.emit.moves import cleared
from dflow.backends.emit.outline import outlined
from dflow.backends.emit.parts import fold_in_parts, in_parts
from dflow.backends.emit.rows import held_rows
from dflow.backends.emit.scalar import convert, emit_scalar, intrinsic, is_nan
from dflow.backends.emit.split import row_split, split_nest
from dflow.backends.emit.tiles import TILE, reads_across, tiled_nest
from dflow.backends.emit.types import I1, ZERO, constant, index, value_type
from dflow.ir.core import Op, Value
from dflow.ir.passes.rewrite import constant_of
from dflow.ir.types import BF16, F32, F64, HALVES, DType

At = list[ir.Value]
Element = Callable[[At], Sequence[ir.Value]]
REASSOCIATE = ("reassoc", "contract")
UNROLL = 256  # more than is written out
ROWS = 4  # that a reduction adds to a row of results at a time
SHORT_ROW = 12  # results that stay in registers
SIMPLE = 24  # operations of an element of which several are computed at a time
UNWATCHED = 16  # elements of which an extreme is taken one by one
FEW = 8  # a reduction over no more elements is unrolled by LLVM, so that the loop around it vectorises


@emits("kernel")
@outlined
def _kernel(e: Emitter, op: Op) -> None:
    (region,) = op.regions
    if not region.ops and not op.attrs["reduced"] and cleared(e, op.results, region.results):
        return
    domain, reduced = collapsed_kernel(e, op), op.attrs["reduced"]

    def element(at: At, known: Mapping[Op, ir.Value] | None = None) -> list[ir.Value]:
        e.env.update(zip(region.args, at))
        for inner in region.ops:
            if known and inner in known:
                e.env[inner.result] = known[inner]
            elif inner.name == "select" and extremes:
                _select(e, inner)
            else:
                e.op(inner)
        return [e.env[v] for v in region.results]

    def put(at: At, known: Mapping[Op, ir.Value] | None = None) -> None:
        write(e, op.results, at, element(at, known))

    extremes = e.vectorizes and not {"max", "min"}.isdisjoint(op.attrs["combine"])
    ops = e.length(region)
    split = row_split(region, domain) if e.vectorizes and not reduced and not unrolls(domain, ops) else None

    across = None if reduced or split else reads_across(e, op, domain)

    def nest(domain: Domain) -> None:
        hints = nest_hints(e, region, domain)
        if split is not None:
            split_nest(e, split, domain, put, hints)
        elif across is not None:
            tiled_nest(e, across, region, domain, put, ops)
        else:
            e.nest(domain, put, ops, hints)

    with held_rows(e, region, domain):
        if reduced:
            # Of many short sums LLVM computes several at a time.
            alone = reduced == len(domain) and set(op.attrs["combine"]) == {"sum"}
            hints = nest_hints(e, region, domain) if alone else None
            rows = _reads_in_strides(e, op)
            fold(e, op, domain, reduced, op.attrs["combine"], element, rows=rows, ops=ops, hints=hints)
        else:
            in_parts(e, op, domain, ops, nest, TILE if across else 1)


def _select(e: Emitter, op: Op) -> None:
    """An element of an extreme. LLVM must not know of an infinity here: where it is chosen the extreme stays as it is,
    and of a loop that sometimes leaves it alone LLVM makes no vectors."""
    infinite = [v for v in op.operands[1:] if v.type.dtype in (F32, F64) and constant_of(v) in (np.inf, -np.inf)]
    before = {v: e.env[v] for v in infinite}
    e.env.update((v, _unknown(e, x)) for v, x in before.items())
    e.op(op)
    e.env.update(before)


def _unknown(e: Emitter, x: ir.Value) -> ir.Value:
    """The number, of which LLVM does not know which it is."""
    with e.builder.goto_block(e.entry):
        bits = ir.IntType(32 if x.type == ir.FloatType() else 64)
        made = e.builder.asm(ir.FunctionType(bits, [bits]), "", "=r,0", [e.builder.bitcast(x, bits)], False)
        return e.builder.bitcast(made, x.type)


@emits("reduce")
def _reduce(e: Emitter, op: Op) -> None:
    (x,), axes = op.operands, op.attrs["axes"]
    order = [k for k in range(x.type.rank) if k not in axes] + list(axes)

    def element(at: At) -> list[ir.Value]:
        return [e.load(x, [at[order.index(k)] for k in range(x.type.rank)])]

    domain = [x.type.shape[k] for k in order]
    if not axes:
        in_parts(e, op, domain, 1, lambda d: e.nest(d, lambda at: write(e, op.results, at, element(at))))
        return
    rows = len(axes) < x.type.rank and x.type.rank - 1 not in axes and not e.memory.same(x, op.result)
    fold(e, op, domain, len(axes), (op.attrs["kind"],), element, rows=rows)


def write(e: Emitter, results: Sequence[Value], at: At, values: Sequence[ir.Value]) -> None:
    for result, value in zip(results, values):
        if result.type.is_scalar:
            e.env[result] = value
        else:
            e.store(result, at, value)


def fold(
    e: Emitter,
    op: Op,
    domain: Domain,
    reduced: int,
    combine: Sequence[str],
    element: Element,
    *,
    rows: bool,
    ops: int = 1,
    hints: ir.MDValue | None = None,
) -> None:
    """Reduces the last ``reduced`` axes of ``domain``, which gives the results of ``op`` that are combined; the others
    are written on the way. ``hints`` are for the innermost loop."""
    results = [r for r, kind in zip(op.results, combine) if kind]
    whole = [r for r, kind in zip(op.results, combine) if not kind]
    kinds = [kind for kind in combine if kind]

    def combined(at: At) -> Sequence[ir.Value]:
        values = element(at)
        write(e, whole, at, [v for v, kind in zip(values, combine) if not kind])
        return [v for v, kind in zip(values, combine) if kind]

    found = op.regions[0].results if op.regions else op.results
    sure = [
        d.is_float and never_nan(v) for v, kind, d in zip(found, combine, (r.type.dtype for r in op.results)) if kind
    ]
    pairs = [partial(accumulate, e, kind, r.type.dtype) for kind, r in zip(kinds, results)]
    nest = partial(_fold, e, results, reduced, kinds, combined if whole else element, rows, ops, hints, sure)
    fold_in_parts(e, op, results, domain, reduced, ops, nest, pairs, rows)


def _fold(
    e: Emitter,
    results: Sequence[Value],
    reduced: int,
    combine: Sequence[str],
    element: Element,
    rows: bool,
    ops: int,
    hints: ir.MDValue | None,
    sure: Sequence[bool],
    domain: Domain,
) -> None:
    kept, inner = domain[: len(domain) - reduced], domain[len(domain) - reduced :]
    dtypes = [r.type.dtype for r in results]
    many = point_count(inner)
    if rows and kept and (many is None or many > FEW) and not any(d in HALVES for d in dtypes):
        _fold_rows(e, results, kept, inner, combine, element, ROWS if ops <= SIMPLE else 1, sure)
        return
    wide = [F32 if d in HALVES else d for d in dtypes]  # sums of many f16 need the room
    start = [identity(kind, d) for kind, d in zip(combine, wide)]
    # Sums of complex numbers are two, as LLVM makes no vectors of pairs; extremes of many too: one tells of NaN.
    sums = [kind == "sum" and d.kind == "c" for kind, d in zip(combine, wide)]
    is_long = e.vectorizes and (many is None or many > UNWATCHED)
    watched = [is_long and kind in ("max", "min") and d.is_float and not k for kind, d, k in zip(combine, wide, sure)]

    def step(at: At, totals: Sequence[ir.Value]) -> list[ir.Value]:
        found = [convert(e.builder, d, w, v) for d, w, v in zip(dtypes, wide, element(at))]
        rest, values = iter(totals), []
        for kind, d, v, split, watch, known in zip(combine, wide, found, sums, watched, sure):
            total = next(rest)
            if split:
                values += parts_of(e.builder, accumulate(e, kind, d, pair(e.builder, d, total, next(rest)), v))
            else:
                values.append(accumulate(e, kind, d, total, v, watch or known))
            if watch:
                values.append(e.builder.or_(next(rest), is_nan(e.builder, v)))
        return values

    def apart(values: Sequence[ir.Value]) -> list[ir.Value]:
        pairs = (
            [v, I1(0)] if watch else parts_of(e.builder, v) if split else [v]
            for v, split, watch in zip(values, sums, watched)
        )
        return [x for parts in pairs for x in parts]

    def joined(values: Sequence[ir.Value]) -> list[ir.Value]:
        rest, whole = iter(values), []
        for d, split, watch in zip(wide, sums, watched):
            v = next(rest)
            if watch:
                v = e.builder.select(next(rest), constant(d, np.nan), v)
            whole.append(pair(e.builder, d, v, next(rest)) if split else v)
        return whole

    def one(at: At) -> None:
        totals = reduce_nest(e, inner, apart(start), lambda rest, values: step([*at, *rest], values), ops, hints)
        write(e, results, at, [convert(e.builder, w, d, v) for d, w, v in zip(dtypes, wide, joined(totals))])

    points = int(np.prod([d if isinstance(d, int) else UNROLL for d in inner]))
    e.nest(kept, one, ops=max(1, points) * ops)


def _fold_rows(
    e: Emitter,
    results: Sequence[Value],
    kept: Domain,
    inner: Domain,
    combine: Sequence[str],
    element: Element,
    together: int,
    sure: Sequence[bool],
) -> None:
    """``together``: so many rows are added at a time, so that the row of results is not always in memory."""
    *outer, last = kept
    *around, along = inner
    if short := isinstance(last, int) and last <= SHORT_ROW:
        together = 1

    def clear(at: At) -> None:
        write(e, results, at, [identity(k, r.type.dtype) for k, r in zip(combine, results)])

    def add_to(at: At, rests: Sequence[At]) -> None:
        found = [element([*at, *rest]) for rest in rests]
        for k, (kind, result) in enumerate(zip(combine, results)):
            address = e.address(result, at, write=True)
            total = e.load_at(result, address)
            for values in found:
                total = accumulate(e, kind, result.type.dtype, total, values[k], sure[k])
            e.store_at(result, address, total)

    def add_rows(at: At, rest: At, first: ir.Value, count: int) -> None:
        rests = [[*rest, e.position(along, e.add(first, index(u)))] for u in range(count)]
        e.nest((last,), lambda j: add_to([*at, *j], rests), ops=1 if short else UNROLL)

    def sweep(at: At, rest: At) -> None:
        size = e.size(along)
        blocks = (
            e.builder.and_(size, index(-together)) if not isinstance(along, int) else index(along - along % together)
        )
        e.steps(ZERO, blocks, together, lambda k: add_rows(at, rest, k, together))
        if not isinstance(along, int) or along % together:
            e.steps(blocks, size, 1, lambda k: add_rows(at, rest, k, 1))

    def one(at: At) -> None:
        e.nest((last,), lambda j: clear([*at, *j]))
        e.nest(around, lambda rest: sweep(at, rest), ops=UNROLL)

    e.nest(outer, one, ops=UNROLL)


def reduce_nest(
    e: Emitter,
    shape: Domain,
    start: Sequence[ir.Value],
    step: Callable[[At, Sequence[ir.Value]], Sequence[ir.Value]],
    ops: int = 1,
    hints: ir.MDValue | None = None,
) -> Sequence[ir.Value]:
    """``values = step(index, values)`` for every index of ``shape``; the last values. ``hints`` are for the innermost
    loop."""
    unroll = unrolls(shape, ops)

    def level(axis: int, at: At, values: Sequence[ir.Value]) -> Sequence[ir.Value]:
        if axis == len(shape):
            return step(at, values)
        dim = shape[axis]
        if dim == 1 or (unroll and isinstance(dim, int)):
            for k in range(int(dim)):
                values = level(axis + 1, [*at, index(k)], values)
            return values
        innermost = hints if axis == len(shape) - 1 else None
        return e.loop(
            e.size(dim), values, lambda k, *inner: level(axis + 1, [*at, e.position(dim, k)], inner), hints=innermost
        )

    return start if 0 in shape else level(0, [], start)


def _reads_in_strides(e: Emitter, op: Op) -> bool:
    """Whether rows of results are better: some read strides along the innermost reduced axis, all are contiguous (or
    fixed) along the last kept one, and the results are not read meanwhile."""
    (region,) = op.regions
    n_kept = len(op.attrs["domain"]) - op.attrs["reduced"]
    if n_kept == 0:
        return False
    along, across = region.args[n_kept - 1], region.args[-1]
    strided = False
    for inner in region.ops:
        if inner.regions:
            return False
        if inner.name != "extract":
            continue
        x, *starts = inner.operands
        if along in starts[:-1] or any(e.memory.same(x, r) for r in op.results):
            return False
        strided |= across in starts[:-1]
    return strided


# --- what a reduction does with two elements

_INTEGER_RANGE = {"i": lambda n: (-(2 ** (n - 1)), 2 ** (n - 1) - 1), "u": lambda n: (0, 2**n - 1)}


def identity(kind: str, dtype: DType) -> ir.Constant:
    if kind in ("max", "min"):
        low, high = (-np.inf, np.inf) if dtype.is_float else _INTEGER_RANGE[dtype.kind](dtype.bits)
        return constant(dtype, low if kind == "max" else high)
    return constant(dtype, kind in ("prod", "all"))


def never_nan(v: Value) -> bool:
    """Whether a number is another one, or a constant where that is NaN."""
    op = v.op
    if op is None or op.name != "select":
        return False
    test, instead, x = op.operands
    known = constant_of(instead)
    return (
        test.op is not None
        and test.op.name == "isnan"
        and test.op.operands[0] is x
        and known is not None
        and known == known
    )


def accumulate(e: Emitter, kind: str, dtype: DType, total: ir.Value, value: ir.Value, number: bool = False) -> ir.Value:
    """``number``: of the two, none is NaN, or somebody else sees to that. Then processors have extremes at once."""
    b = e.builder
    if dtype == BF16:
        return convert(b, F32, BF16, accumulate(e, kind, F32, total, value, number))
    if dtype.is_float:
        if kind in ("sum", "prod"):
            return (b.fadd if kind == "sum" else b.fmul)(total, value, flags=REASSOCIATE)
        if number:
            return intrinsic(b, f"llvm.{kind}num", total, value, flags=("nnan", "nsz"))
        return intrinsic(b, {"max": "llvm.maximum", "min": "llvm.minimum"}[kind], total, value)
    if dtype.kind == "c" and kind == "sum":
        both = zip(parts_of(b, total), parts_of(b, value))
        return pair(b, dtype, *(b.fadd(x, y, flags=REASSOCIATE) for x, y in both))
    name = {"sum": "add", "prod": "mul", "any": "or", "all": "and"}.get(kind, kind)
    return emit_scalar(b, name, {}, [dtype, dtype], [total, value])


def parts_of(b: ir.IRBuilder, z: ir.Value) -> list[ir.Value]:
    """The real and the imaginary part of a complex number."""
    return [b.extract_value(z, k) for k in (0, 1)]


def pair(b: ir.IRBuilder, dtype: DType, real: ir.Value, imaginary: ir.Value) -> ir.Value:
    first = b.insert_value(ir.Constant(value_type(dtype), ir.Undefined), real, 0)
    return b.insert_value(first, imaginary, 1)
