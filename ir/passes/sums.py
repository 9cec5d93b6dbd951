"""What loops only add to: the rounds add in any order, and none of them sees what the others have added."""

from __future__ import annotations

from dflow.ir.core import Block, Op, Value, attribute_values, walk

PASSING = frozenset({"for", "while", "if"})


class Sum:
    """Follows a carried number or tensor: all that may be done with it is to add to it (what does not depend on it)."""

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
        adds |= op.name == "update_add" and used[0] and not any(used[1:])
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
