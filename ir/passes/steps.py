"""Where a derivative is lost: ``Function -> Op``, the first operation through which a result depends on an argument
only in steps, such as a comparison, a cast to integers or ``floor``."""

from __future__ import annotations

from collections.abc import Iterable

from dflow.ir.core import Block, Function, Op, Value, walk

STEPS = frozenset({"floor", "ceil", "trunc", "round", "sign"})  # functions whose derivative is zero


def depends(f: Function, argument: int, results: Iterable[Value]) -> bool:
    """Whether any of the results depends on the argument, in whatever way."""
    found = {f.args[argument]}
    while _spread(f.body, found, steps=True):
        pass
    return any(r in found for r in results)


def lost(f: Function, argument: int) -> Op | None:
    """The first operation that takes what varies smoothly with the argument to what does not; None if there is none."""
    smooth = {f.args[argument]}
    while _spread(f.body, smooth, steps=False):
        pass
    for op in walk(f.body):
        ends = op.results and not op.regions and not any(r in smooth for r in op.results)
        if ends and any(v in smooth for v in op.operands):
            return op
    return None


def _spread(block: Block, found: set[Value], steps: bool) -> bool:
    """Adds the values that depend on those found; whether there were new ones. Regions count as a whole."""
    before = len(found)
    for op in block.ops:
        inner = [v for r in op.regions for v in r.results]
        if op.regions:
            skip = 1 if op.name == "for" else 0  # the count; regions begin with the counter
            for r in op.regions:
                found.update(a for a, v in zip(r.args[skip:], op.operands[skip:]) if v in found)
                _spread(r, found, steps)
            if op.name in ("for", "while"):
                body = op.regions[-1]
                for r in op.regions:
                    found.update(a for a, v in zip(r.args[skip:], body.results) if v in found)
                found.update(o for o, v in zip(op.results, body.results) if v in found)
            elif any(v in found for v in inner):
                found.update(r for r in op.results if steps or r.type.dtype.is_inexact)
        chosen = any(v in found for v in (op.uses() if steps else () if op.regions else op.operands))
        decided = steps and any(v in found for v in inner)  # also a condition that chooses or repeats
        if decided or (chosen and (steps or op.name not in STEPS)):
            found.update(r for r in op.results if steps or r.type.dtype.is_inexact)
    return len(found) > before
