"""One row's order, by one thread: a merge sort of positions, bottom up, in as little memory as can be.

One function for each dtype; every sort of the module calls it. It merges runs of 1, 2, 4, ... positions
to and fro between the result and a second array of its size, without a branch that depends on the data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from dflow.backends.emit_once import copy_bytes
from dflow.backends.emit_scalar import int_compare, is_nan
from dflow.backends.emit_types import I1, I64, ONE, PTR, VOID, ZERO, from_storage, index, storage_type
from dflow.ir.types import DType

MERGE_COST = 16


def sorter(module: ir.Module, dtype: DType) -> ir.Function:
    """``void f(row of x, positions, scratch, count)``."""
    name = f"dflow.argsort.{dtype.name}"
    if name in module.globals:
        return module.globals[name]
    f = ir.Function(module, ir.FunctionType(VOID, [PTR, PTR, PTR, I64]), name)
    f.linkage = "internal"
    for attribute in ("noinline", "nounwind"):
        f.attributes.add(attribute)
    for arg in f.args[1:3]:
        arg.add_attribute("noalias")
    _Sorter(f, dtype).write()
    return f


class _Sorter:
    def __init__(self, f: ir.Function, dtype: DType):
        self.x, self.positions, self.scratch, self.count = f.args
        self.f, self.dtype = f, dtype
        self.b = ir.IRBuilder(f.append_basic_block("entry"))

    def write(self) -> None:
        b = self.b
        self.loop(ZERO, lambda k: b.icmp_signed("<", k, self.count), self.number)
        source, target, width = (self.slot(v) for v in (self.positions, self.scratch, ONE))

        def narrow() -> ir.Value:
            return b.icmp_signed("<", b.load(width, typ=I64), self.count)

        def merge_all() -> None:
            one, other = b.load(source, typ=PTR), b.load(target, typ=PTR)
            step = b.load(width, typ=I64)
            pair = b.shl(step, ONE)

            def merge_next(low: ir.Value) -> ir.Value:
                self.merge(one, other, low, step)
                return b.add(low, pair)

            self.loop(ZERO, lambda low: b.icmp_signed("<", low, self.count), merge_next)
            b.store(other, source)
            b.store(one, target)
            b.store(pair, width)

        self.repeat(narrow, merge_all)
        with b.if_then(b.icmp_unsigned("!=", b.load(source, typ=PTR), self.positions)):
            size = b.mul(self.count, index(8))
            b.call(copy_bytes(self.f.module), [self.positions, self.scratch, size, I1(0)])
        b.ret_void()

    def number(self, k: ir.Value) -> ir.Value:
        self.b.store(k, self.at(self.positions, k))
        return self.b.add(k, ONE)

    def merge(self, source: ir.Value, target: ir.Value, low: ir.Value, width: ir.Value) -> None:
        """Merges the runs ``low .. middle`` and ``middle .. high``."""
        b = self.b
        middle = self.least(b.add(low, width), self.count)
        high = self.least(b.add(middle, width), self.count)
        last = b.sub(self.count, ONE)
        left, right = self.slot(low), self.slot(middle)

        def take(k: ir.Value) -> ir.Value:
            i, j = b.load(left, typ=I64), b.load(right, typ=I64)
            one = b.load(self.at(source, self.least(i, last)), typ=I64)
            other = b.load(self.at(source, self.least(j, last)), typ=I64)
            sooner = b.or_(b.icmp_signed(">=", i, middle), self.before(other, one))
            from_right = b.and_(b.icmp_signed("<", j, high), sooner)
            b.store(b.select(from_right, other, one), self.at(target, k))
            moved = b.zext(from_right, I64)
            b.store(b.add(j, moved), right)
            b.store(b.add(i, b.sub(ONE, moved)), left)
            return b.add(k, ONE)

        self.loop(low, lambda k: b.icmp_signed("<", k, high), take)

    def before(self, i: ir.Value, j: ir.Value) -> ir.Value:
        """Whether element i comes before element j, which stands first."""
        b, t = self.b, storage_type(self.dtype)
        stored = (b.load(b.gep(self.x, [k], source_etype=t), typ=t) for k in (i, j))
        x, y = (from_storage(b, self.dtype, v) for v in stored)
        if not self.dtype.is_float:
            return int_compare(b, self.dtype, "<", x, y)
        return b.or_(b.fcmp_ordered("<", x, y), b.and_(is_nan(b, y), b.not_(is_nan(b, x))))

    # -- small parts

    def at(self, base: ir.Value, k: ir.Value) -> ir.Value:
        return self.b.gep(base, [k], source_etype=I64)

    def least(self, x: ir.Value, y: ir.Value) -> ir.Value:
        return self.b.select(self.b.icmp_signed("<", x, y), x, y)

    def slot(self, value: ir.Value) -> Any:
        """A variable; its place is in the entry block, so that LLVM makes it a register."""
        entry = self.f.entry_basic_block
        with self.b.goto_block(entry) if entry.is_terminated else self.b.goto_block(self.b.block):
            made = self.b.alloca(value.type)
            made.type = PTR
        self.b.store(value, made)
        return made

    def loop(self, start: ir.Value, test: Callable[[ir.Value], ir.Value], body: Callable[[ir.Value], ir.Value]) -> None:
        """``body(k)`` gives the next k, for as long as ``test(k)`` holds."""
        k = self.slot(start)
        self.repeat(
            lambda: test(self.b.load(k, typ=I64)),
            lambda: self.b.store(body(self.b.load(k, typ=I64)), k),
        )

    def repeat(self, test: Callable[[], ir.Value], body: Callable[[], Any]) -> None:
        head, inside, done = (self.f.append_basic_block(name) for name in ("head", "body", "done"))
        self.b.branch(head)
        self.b.position_at_end(head)
        self.b.cbranch(test(), inside, done)
        self.b.position_at_end(inside)
        body()
        self.b.branch(head)
        self.b.position_at_end(done)
