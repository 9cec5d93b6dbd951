"""What all kernels of one program share, and what one kernel needs of the program around it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from llvmlite import ir

from dflow.backends.cuda.kernels.tails import Tail
from dflow.backends.cuda.plan import Kernel, Pointer
from dflow.backends.cuda.planning.places import Places
from dflow.backends.interface import Check, by_value
from dflow.backends.lowering import plan as tensors
from dflow.ir.core import Block, Op, Value, free_values, walk
from dflow.ir.registry import OPS

FAILING = frozenset({"check", "guard", "sequence", "tape"})


class Context:
    """The compilation of one plan into ``module``, where the names of its kernels begin with ``name``. With
    ``deterministic``, floats are never added up in an order that differs from run to run.

    ``counters`` numbers the loops that the host runs, by the value that counts; ``ways`` says how operations are done.
    """

    def __init__(self, plan: tensors.Plan, name: str, module: ir.Module, deterministic: bool = False):
        self.deterministic = deterministic
        self.plan, self.places, self.name, self.module = plan, Places(plan), name, module
        self.checks: list[Check] = []
        self.kernels: list[Kernel] = []
        self.counters: dict[Value, int] = {}
        self.ways: dict[Op, object] = {}
        self.dead: set[Op] = set()  # what fills tensors that parallel loops write whole
        self.direct: dict[Value, list[Pointer]] = {}  # results that are written where they are computed
        self.spared: dict[Op, list[Op]] = {}  # by the product that needs it where there is no library
        self.lanes: dict[Op, Any] = {}  # the proofs that were tried
        self.rows: dict[Op, tuple[int, ...] | None] = {}
        self.row_scans: dict[Op, Any] = {}
        self.tails: dict[Op, Tail] = {}  # what is done with the numbers that reductions give, by their kernels
        self.position = {v: k for k, v in enumerate(plan.function.args)}
        self.fails = any(op.name in FAILING for op in walk(plan.function.body))
        self.values: dict[tensors.Buffer, set[Value]] = {}
        for v, b in plan.buffers.items():
            self.values.setdefault(b, set()).add(v)
        self._users: dict[Value, set[object]] = {}
        self._collect_users(plan.function.body)

    def _collect_users(self, block: Block) -> None:
        for op in block.ops:
            for v in (*op.uses(), *operand_sizes(op)):
                self._users.setdefault(v, set()).add(op)
            for r in op.regions:
                for a in r.args:
                    for v in a.type.size_values:
                        self._users.setdefault(v, set()).add(op)
                self._collect_users(r)
        for v in block.results:
            self._users.setdefault(v, set()).add(block)

    def needs(self, op: Op) -> Needs:
        """What the kernel that has the results of an operation reads and writes."""
        return Needs(self, [op], self.tails[op].values if op in self.tails else ())

    def escapes(self, v: Value, inside: set[object]) -> bool:
        """Whether something but the operations and blocks ``inside`` uses ``v``."""
        return not self._users.get(v, set()) <= inside

    def used_by(self, v: Value) -> set[object]:
        """The operations (and blocks, that yield it) that use ``v``."""
        return self._users.get(v, set())

    def is_read_only(self, x: Value) -> bool:
        """Whether nothing writes the memory of a tensor during a run."""
        buffer = self.plan.buffers.get(x)
        return buffer is None or (buffer.space == "argument" and not buffer.writable)

    def is_repeated(self, v: Value) -> bool:
        """Whether a scalar costs next to nothing, so that each kernel that needs it computes it anew."""
        op = v.op
        if op is None or not v.type.is_scalar:
            return False
        if op.name == "constant":
            return True
        if op.name == "extract":
            return self.is_read_only(op.operands[0]) and _is_inside(op)
        definition = OPS.get(op.name)
        return bool(definition and definition.elementwise) and all(self.is_known(x) for x in op.operands)

    def is_known(self, v: Value) -> bool:
        """Whether a kernel gets a scalar without memory that another kernel wrote."""
        if not v.type.is_scalar:
            return False
        return v in self.position or v in self.counters or self.is_stable(v) or self.is_repeated(v)

    def is_stable(self, v: Value) -> bool:
        """Whether a scalar is in a slot that nothing else is written to while ``v`` is in sight."""
        return v.op is not None and self.ways.get(v.op) == "fold"


def operand_sizes(op: Op) -> list[Value]:
    """The sizes of the tensors that an operation reads, over which its loops go."""
    return [size for v in op.operands for size in v.type.size_values]


def outer_values(ops: Sequence[Op], extra: Iterable[Value] = ()) -> dict[Value, None]:
    """What operations use and do not compute, the sizes of what they read among it."""
    inner = list(walk(Block((), ops, ())))
    inside = {r for op in inner for r in op.results} | {a for op in inner for r in op.regions for a in r.args}
    sizes = dict.fromkeys(size for op in inner for size in operand_sizes(op) if size not in inside)
    return {**dict.fromkeys(free_values(Block((), ops, tuple(extra)))), **sizes}


def _is_inside(op: Op) -> bool:
    """Whether an ``extract`` reads at places that are known to exist: others may only be read after their check."""
    for entry, start, size in zip(op.attrs["index"], op.operands[1:], op.operands[0].type.shape):
        if entry != "at" or not isinstance(size, int) or start.op is None or start.op.name != "constant":
            return False
        if not 0 <= int(start.op.attrs["value"]) < size:
            return False
    return True


class Needs:
    """What a kernel of some operations reads and writes. ``extra`` are further values that it uses."""

    def __init__(self, context: Context, ops: Sequence[Op], extra: Iterable[Value] = ()):
        self.ops = set(walk(Block((), ops, ())))
        self.blocks: set[object] = {*self.ops, *(r for op in self.ops for r in op.regions)}
        self.inside: set[Value] = {r for op in self.ops for r in op.results}
        self.inside |= {a for op in self.ops for r in op.regions for a in r.args}
        self.tensors: dict[Value, None] = {}
        self.scalars: dict[Value, None] = {}  # those that no other kernel computes: arguments, counters, slots
        for op in ops:
            for inner in walk(Block((), [op], ())):
                for v in (*inner.operands, *inner.results, *(a for r in inner.regions for a in r.args)):
                    if v.type.rank:
                        self.tensors[v] = None
        for v in outer_values(ops, extra):
            if v.type.rank:
                self.tensors[v] = None
            else:
                self._scalar(context, v)

    def _scalar(self, context: Context, v: Value) -> None:
        if v in self.inside:
            return
        if context.is_repeated(v):
            assert v.op is not None
            for x in v.op.operands:
                if x.type.rank:
                    self.tensors[x] = None
                else:
                    self._scalar(context, x)
        else:
            self.scalars[v] = None

    def buffers(self, context: Context) -> list[tensors.Buffer]:
        found = (context.plan.buffers.get(v) for v in self.tensors)
        return list(dict.fromkeys(b for b in found if b is not None))

    def is_local(self, context: Context, b: tensors.Buffer) -> bool:
        """Whether all values of a buffer are made and used up inside."""
        if b.space not in ("stack", "arena", "heap") or not context.values[b] <= self.inside:
            return False
        return not any(context.escapes(v, self.blocks) for v in context.values[b])


__all__ = ["Context", "Needs", "by_value"]
