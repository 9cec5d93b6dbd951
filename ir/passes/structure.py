"""Rules for operations that move elements: broadcasts, reshapes, reads and writes of parts, checks.

A tensor that an update writes in place (``Facts.overwritten``) gets no further reader, for the update would then have
to copy it; so reads are forwarded past updates only when they end at a value, or when the tensor is small.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dflow.ir.core import Op, Value
from dflow.ir.passes.algebra import made_by
from dflow.ir.passes.rewrite import constant_of, elements, same, splat_of, splat_source
from dflow.ir.passes.simplifier import Rules, Simplifier

Attrs = Mapping[str, Any]
Found = Value | None

SMALL = 64  # elements that are copied for next to nothing
FAR = 32  # updates that a read is followed through


# -- shapes ----------------------------------------------------------------------------------------------------------


def _broadcast(b: Simplifier, attrs: Attrs, x: Value) -> Found:
    shape, dims = attrs["shape"], attrs["dims"]
    if len(dims) == len(shape):
        return x
    if inner := made_by(x, "broadcast"):
        return b.broadcast(inner.operands[0], shape=shape, dims=tuple(dims[d] for d in inner.attrs["dims"]))
    return None


def _reshape(b: Simplifier, attrs: Attrs, x: Value) -> Found:
    shape = attrs["shape"]
    if x.type.shape == shape:
        return x
    if inner := made_by(x, "reshape"):
        return b.reshape(inner.operands[0], shape=shape)
    return _repeated(b, x, shape)


def _repeated(b: Simplifier, x: Value, shape: tuple[Any, ...]) -> Found:
    """A rearranged tensor of one repeated scalar."""
    if not x.type.shape or (source := splat_source(x)) is None:
        return None
    return b.broadcast_scalar(source, shape)


def _transpose(b: Simplifier, attrs: Attrs, x: Value) -> Found:
    perm = attrs["perm"]
    if perm == tuple(range(len(perm))):
        return x
    if inner := made_by(x, "transpose"):
        first = inner.attrs["perm"]
        return b.transpose(inner.operands[0], perm=tuple(first[p] for p in perm))
    return _repeated(b, x, tuple(x.type.shape[p] for p in perm))


def _reduce(b: Simplifier, attrs: Attrs, x: Value) -> Found:
    if not attrs["axes"]:
        return x
    left = _all_but_one_zero(x) if attrs["kind"] == "sum" else None
    return b.extract(left[0], b.index(left[1]), index=("at",)) if left else None


def _all_but_one_zero(x: Value) -> tuple[Value, int] | None:
    """Where the one element stands that is left of a vector, the others being overwritten by zeros."""
    op = made_by(x, "update")
    if op is None or x.type.rank != 1 or not x.type.is_static:
        return None
    size, (old, part, *starts) = x.type.static_shape[0], op.operands
    if op.attrs["index"] != (("slice", size - 1, 1),) or splat_of(part) != 0:
        return None
    first = constant_of(starts[0])
    return (old, 0 if first else size - 1) if first in (0, 1) else None


def _concatenate(b: Simplifier, attrs: Attrs, *xs: Value) -> Found:
    return xs[0] if len(xs) == 1 else None


# -- reading ---------------------------------------------------------------------------------------------------------


def entries(index: Sequence[Any], starts: Sequence[Value]) -> Iterator[tuple[Any, Value | None]]:
    """Each index entry with its operand."""
    it = iter(starts)
    for e in index:
        yield e, None if e == "all" else next(it)


def _split(pairs: Sequence[tuple[Any, Value | None]]) -> tuple[list[Value], tuple[Any, ...]]:
    return [s for _, s in pairs if s is not None], tuple(e for e, _ in pairs)


def _whole_axes(x: Value, index: Any, starts: Sequence[Value]) -> list[tuple[Any, Value | None]] | None:
    """The entries with slices over a whole axis made ``"all"``; None when there are none such."""
    found = False
    out: list[tuple[Any, Value | None]] = []
    for size, (e, s) in zip(x.type.shape, entries(index, starts)):
        whole = isinstance(e, tuple) and e[1] == size and e[2] == 1 and s is not None and constant_of(s) == 0
        out.append(("all", None) if whole else (e, s))
        found |= whole
    return out if found else None


def _extract(b: Simplifier, attrs: Attrs, x: Value, *starts: Value) -> Found:
    index = attrs["index"]
    if all(e == "all" for e in index):
        return x
    if (pairs := _whole_axes(x, index, starts)) is not None:
        where, index = _split(pairs)
        return b.extract(x, *where, index=index)
    op = x.op
    if op is None or x.type.grows:
        return None
    if op.name in _READS:
        return _READS[op.name](b, op, list(entries(index, starts)))
    return _follow(b, x, index, starts) if op.name == "update" else None


def _unwritten(b: Simplifier, x: Value) -> bool:
    """Whether another reader of ``x`` costs nothing."""
    count = elements(x.type.shape)
    return x not in b.facts.overwritten or (count is not None and count <= SMALL)


def _read_broadcast(b: Simplifier, op: Op, pairs: list[tuple[Any, Value | None]]) -> Found:
    (x,), dims = op.operands, op.attrs["dims"]
    if not _unwritten(b, x):
        return None
    shape: list[Any] = []
    kept: list[Any] = []
    for axis, (e, _) in enumerate(pairs):
        if e == "at":
            continue
        if axis in dims:
            kept.append(len(shape))
        shape.append(op.attrs["shape"][axis] if e == "all" else e[1])
    where, index = _split([pairs[d] for d in dims])
    part = b.extract(x, *where, index=index) if index else x
    return b.broadcast(part, shape=tuple(shape), dims=tuple(kept)) if shape else part


def _read_iota(b: Simplifier, op: Op, pairs: list[tuple[Any, Value | None]]) -> Found:
    ((e, start),) = pairs
    return start if e == "at" else None


def _read_transpose(b: Simplifier, op: Op, pairs: list[tuple[Any, Value | None]]) -> Found:
    (x,), perm = op.operands, op.attrs["perm"]
    if not _unwritten(b, x) or any(e != "at" for e, _ in pairs):
        return None
    where, index = _split([pairs[perm.index(k)] for k in range(len(perm))])
    return b.extract(x, *where, index=index)


def _read_concatenate(b: Simplifier, op: Op, pairs: list[tuple[Any, Value | None]]) -> Found:
    """A read at known places, all inside of one part."""
    axis = op.attrs["axis"]
    e, start = pairs[axis]
    first = None if start is None else constant_of(start)
    if first is None or (e != "at" and not isinstance(e[1], int)):
        return None
    last = first if e == "at" else first + (e[1] - 1) * e[2]
    for part in op.operands:
        size = part.type.shape[axis]
        assert isinstance(size, int)
        if min(first, last) >= 0 and max(first, last) < size and _unwritten(b, part):
            where, index = _split([*pairs[:axis], (e, b.index(first)), *pairs[axis + 1 :]])
            return b.extract(part, *where, index=index)
        first, last = first - size, last - size
    return None


def _read_extract(b: Simplifier, op: Op, pairs: list[tuple[Any, Value | None]]) -> Found:
    """A part of a part."""
    x, *inner_starts = op.operands
    if not _unwritten(b, x) or x.type.grows:
        return None
    outer = iter(pairs)
    out: list[tuple[Any, Value | None]] = []
    for e, s in entries(op.attrs["index"], inner_starts):
        if e == "at":
            out.append((e, s))
            continue
        f, t = next(outer)
        if e == "all":
            out.append((f, t))
        elif f == "all":
            out.append((e, s))
        else:
            start = b.add(s, b.mul(t, b.index(e[2])))
            out.append((f if f == "at" else ("slice", f[1], e[2] * f[2]), start))
    where, index = _split(out)
    return b.extract(x, *where, index=index)


_READS = {
    "broadcast": _read_broadcast,
    "iota": _read_iota,
    "transpose": _read_transpose,
    "concatenate": _read_concatenate,
    "extract": _read_extract,
}


def _same_place(index: Any, starts: Sequence[Value], other: Op) -> bool:
    return index == other.attrs["index"] and all(same(s, t) for s, t in zip(starts, other.operands[-len(starts) :]))


def _apart(index: Any, starts: Sequence[Value], update: Op) -> bool:
    """Whether no element is in both places: on some axis the positions never meet."""
    pairs = zip(entries(index, starts), entries(update.attrs["index"], update.operands[2:]))
    for (e, s), (f, t) in pairs:
        if s is None or t is None:
            continue
        if e == "at" and f == "at":
            if (d := _distance(s, t)) is not None and d != 0:
                return True
        elif (p := span(e, s)) and (q := span(f, t)) and (p[1] < q[0] or q[1] < p[0]):
            return True
    return False


def _distance(s: Value, t: Value) -> int | None:
    """``s - t`` where that is a constant."""
    (p, c), (q, d) = _offset(s), _offset(t)
    return c - d if p is q else None


def _offset(s: Value) -> tuple[Value | None, int]:
    c = constant_of(s)
    if c is not None:
        return None, c
    if op := made_by(s, "add"):
        c = constant_of(op.operands[1])
        if c is not None:
            return op.operands[0], c
    return s, 0


def span(e: Any, start: Value) -> tuple[int, int] | None:
    """The first and last position of an index entry, where they are known."""
    first = constant_of(start)
    if first is None or (e != "at" and not isinstance(e[1], int)):
        return None
    last = first if e == "at" else first + (e[1] - 1) * e[2]
    return min(first, last), max(first, last)


def _follow(b: Simplifier, x: Value, index: Any, starts: Sequence[Value]) -> Found:
    """A read after writes elsewhere."""
    base = x
    for _ in range(FAR):
        op = made_by(base, "update")
        if op is None:
            break
        if _same_place(index, starts, op):
            return op.operands[1]
        if not _apart(index, starts, op):
            break
        base = op.operands[0]
    if base is x:
        return None
    count = elements(base.type.shape)
    free = splat_of(base) is not None or made_by(base, "constant", "iota")
    if free or (count is not None and count <= SMALL):
        # Beyond FAR updates nothing is followed, so that long chains cost no more than their length.
        return (
            b.keep("extract", base, *starts, index=index)
            if made_by(base, "update")
            else b.extract(base, *starts, index=index)
        )
    return None


# -- writing ---------------------------------------------------------------------------------------------------------


def _update(b: Simplifier, attrs: Attrs, x: Value, v: Value, *starts: Value) -> Found:
    index = attrs["index"]
    if all(e == "all" for e in index):
        return v
    if (pairs := _whole_axes(x, index, starts)) is not None:
        where, index = _split(pairs)
        return b.update(x, v, *where, index=index)
    read = made_by(v, "extract")
    if read and read.operands[0] is x and _same_place(index, starts, read):
        return x
    if (corner := _specified(x, index, starts, v)) is not None:
        part, pairs = corner
        where, index = _split(pairs)
        return b.update(x, part, *where, index=index)
    before = made_by(x, "update")
    if before and x in b.facts.single and _same_place(index, starts, before):
        return b.update(before.operands[0], v, *starts, **attrs)
    return None


def _specified(
    x: Value, index: Any, starts: Sequence[Value], v: Value
) -> tuple[Value, list[tuple[Any, Value | None]]] | None:
    """A tensor of which only a part is specified (a value whose size depends on the run, kept in its bounds): that part
    alone needs to be written. Returns it and where it goes."""
    update = made_by(v, "update")
    if update is None or made_by(update.operands[0], "empty") is None:
        return None
    _, part, *inner_starts = update.operands
    inner = list(entries(update.attrs["index"], inner_starts))
    if any(e not in ("at", "all") for e in index):
        return None
    rest = iter(inner)
    return part, [(e, s) if e == "at" else next(rest) for e, s in entries(index, starts)]


STRUCTURE: Rules = {
    "broadcast": (_broadcast,),
    "reshape": (_reshape,),
    "transpose": (_transpose,),
    "reduce": (_reduce,),
    "concatenate": (_concatenate,),
    "extract": (_extract,),
    "update": (_update,),
}
