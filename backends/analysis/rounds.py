"""What the rounds of a loop do with the numbers that go round, and with memory, for proofs that they are independent:
those for threads (`independent.py`) and those for a GPU (`cuda/planning/lanes.py`)."""

from __future__ import annotations

from collections.abc import Sequence

from dflow.backends.analysis.affine import Form, Forms
from dflow.backends.lowering.plan import Buffer, Plan
from dflow.ir.core import Block, Op, Value
from dflow.ir.passes.sums import PASSING

SUMMED = frozenset({"f32", "f64", "i32", "i64", "u32", "u64", "c64", "c128"})


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
