"""What the rounds of a loop do with the numbers that go round, and with memory, for proofs that they are independent:
those for threads (`independent.py`) and those for a GPU (`cuda/planning/lanes.py`)."""

from __future__ import annotations

from collections.abc import Sequence

from dflow.backends.analysis.affine import Form, Forms
from dflow.backends.lowering.plan import Buffer, Plan
from dflow.ir.core import Block, Op, Value, attribute_values, walk

SUMMED = frozenset({"f32", "f64", "i32", "i64", "u32", "u64", "c64", "c128"})
PASSING = frozenset({"for", "while", "if"})


def step_of(forms: Forms, body: Block, a: Value, yielded: Value) -> int | None:
    """c, where the value that is yielded for ``a`` is ``a + c``."""
    op = yielded.op
    if op is None or op.name not in ("add", "sub") or not a.type.dtype.is_integer or op not in body.ops:
        return None
    x, y = op.operands
    if op.name == "add" and y is a:
        x, y = y, x
    c = forms.of(y)
    if x is not a or c is None or c.constant is None:
        return None
    return c.constant if op.name == "add" else -c.constant


class Sum:
    """Follows a carried scalar: all that may be done with it is to add to it (values that do not depend on it)."""

    def __init__(self, a: Value):
        self.reached = {a}

    def reaches(self, block: Block, yielded: Value) -> bool:
        return self._block(block) and yielded in self.reached

    def _block(self, block: Block) -> bool:
        return all(self._op(op) for op in block.ops)

    def _op(self, op: Op) -> bool:
        used = [v in self.reached for v in op.operands]
        if not self.reached.isdisjoint(attribute_values(tuple(op.attrs.values()))):
            return False
        if op.name in PASSING:
            return self._regions(op, used)
        if any(v in self.reached for r in op.regions for o in walk(r) for v in o.operands):
            return False
        if not any(used):
            return True
        adds = (op.name == "add" and used.count(True) == 1) or (op.name == "sub" and used == [True, False])
        adds |= op.name == "select" and used == [False, True, True]
        if adds:
            self.reached.add(op.result)
        return adds

    def _regions(self, op: Op, used: list[bool]) -> bool:
        if op.name == "if":
            if used[0] or not all(self._block(r) for r in op.regions):
                return False
            groups = list(zip(op.results, *(r.results for r in op.regions)))
        else:
            first = 1 if op.name == "for" else 0
            if any(used[:first]):
                return False
            body = op.regions[-1]
            for i, is_used in enumerate(used[first:]):
                if is_used:
                    self.reached.add(body.args[first + i])
                    self.reached |= {op.regions[0].args[i]} if op.name == "while" else set()
            if not all(self._block(r) for r in op.regions) or (
                op.name == "while" and op.regions[0].results[0] in self.reached
            ):
                return False
            groups = list(zip(op.results, body.results, body.args[first:]))
        for result, *others in groups:
            known = [v in self.reached for v in others]
            if any(known) and not all(known):
                return False
            if all(known):
                self.reached.add(result)
        return True


class Accesses:
    """How a loop body touches one buffer."""

    def __init__(self, plan: Plan, b: Buffer, forms: Forms):
        self.plan, self.b, self.forms = plan, b, forms
        self.written = False
        self.only_added = True
        self.whole = False  # some access has no known place
        self.indices: list[tuple[Form | None, ...]] = []
        self.whole_sums: set[Op] = set()  # kernels that add to all of it, and what they read of it

    def visit(self, op: Op) -> None:
        here = [v.type.rank > 0 and self.plan.buffers.get(v) is self.b for v in op.operands]
        made = any(self.plan.buffers.get(r) is self.b for r in op.results)
        if op.name in PASSING or not (any(here) or made):
            return
        if op.name == "copy" and all(here) and made:
            return
        self.written |= made
        if op in self.whole_sums:
            self.whole = True
            return
        if op.name in ("update", "update_add", "extract"):
            count = 1 if op.name == "extract" else 2
            if here != [True, *[False] * (len(here) - 1)]:
                self._anywhere()
                return
            self.only_added &= op.name == "update_add"
            self.indices.append(self._index(op, op.operands[count:]))
        elif op.name == "scatter_add" and here == [True, *[False] * (len(here) - 1)]:
            self.whole = True
        else:
            self._anywhere()

    def _anywhere(self) -> None:
        self.whole, self.only_added = True, False

    def _index(self, op: Op, starts: tuple[Value, ...]) -> tuple[Form | None, ...]:
        """The form of the index along each axis."""
        start, found = iter(starts), list[Form | None]()
        for entry in op.attrs["index"]:
            if entry == "all":
                found.append(None)
                continue
            form = self.forms.of(next(start))
            if entry != "at" and form is not None:
                _, size, step = entry
                reach = [0, (size - 1) * step] if isinstance(size, int) else None
                form = None if reach is None else Form(form.terms, form.low + min(reach), form.high + max(reach))
            found.append(form)
        return tuple(found)

    def are_own(self, k: Value) -> bool:
        """Whether along one axis no two rounds meet."""
        return not self.whole and apart(k, self.indices)


def apart(k: Value, indices: Sequence[Sequence[Form | None]]) -> bool:
    """Whether accesses at ``indices`` never meet in two rounds, which ``k`` counts: along one axis, they do not."""
    return len({len(i) for i in indices}) == 1 and any(_apart(k, forms) for forms in zip(*indices))


def _apart(k: Value, forms: tuple[Form | None, ...]) -> bool:
    first = forms[0]
    if first is None or any(f is None or f.terms != first.terms for f in forms):
        return False
    known = [f for f in forms if f is not None]
    return max(f.high for f in known) - min(f.low for f in known) < abs(first.of(k))
