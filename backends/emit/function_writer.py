"""Functions in LLVM's language that kernels call, written with variables and loops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from dflow.backends.emit.core import untyped
from dflow.backends.emit.types import I32, I64, ONE, PTR, VOID, declare


def internal_function(module: ir.Module, name: str, args: Sequence[ir.Type]) -> tuple[ir.Function, bool]:
    """The function of that name, and whether it is new and has no body yet."""
    if name in module.globals:
        return module.globals[name], False
    f = ir.Function(module, ir.FunctionType(VOID, args), name)
    f.linkage = "internal"
    for attribute in ("noinline", "nounwind"):
        f.attributes.add(attribute)
    return f, True


class FunctionWriter:
    """Writes one function, with variables and loops."""

    def __init__(self, f: ir.Function):
        self.f, self.module = f, f.module
        self.b = ir.IRBuilder(f.append_basic_block("entry"))

    def room(self, t: ir.Type) -> Any:
        """A variable; its place is in the entry block, so that LLVM makes it a register."""
        with self.b.goto_entry_block():
            return untyped(self.b.alloca(t))

    def slot(self, value: ir.Value) -> Any:
        made = self.room(value.type)
        self.b.store(value, made)
        return made

    def read(self, slot: ir.Value, t: ir.Type = I64) -> ir.Value:
        return self.b.load(slot, typ=t)

    def increase(self, slot: ir.Value, by: ir.Value = ONE) -> None:
        self.b.store(self.b.add(self.read(slot), by), slot)

    def at(self, base: ir.Value, k: ir.Value, t: ir.Type = I64) -> ir.Value:
        return self.b.gep(base, [k], source_etype=t)

    def repeat(self, test: Callable[[], ir.Value], body: Callable[[], Any]) -> None:
        head, inside, done = (self.f.append_basic_block(name) for name in ("head", "body", "done"))
        self.b.branch(head)
        self.b.position_at_end(head)
        self.b.cbranch(test(), inside, done)
        self.b.position_at_end(inside)
        body()
        self.b.branch(head)
        self.b.position_at_end(done)

    def count(self, start: ir.Value, stop: ir.Value, body: Callable[[ir.Value], Any], step: ir.Value = ONE) -> None:
        """``body(k)`` for k = start, start + step, ... below ``stop``."""
        k = self.slot(start)

        def once() -> None:
            body(self.read(k))
            self.increase(k, step)

        self.repeat(lambda: self.b.icmp_signed("<", self.read(k), stop), once)

    # --- vectors

    def compressed(self, v: ir.Value, mask: ir.Value) -> ir.Value:
        """The lanes of integers that a mask names, at the front; anything behind them."""
        t = v.type
        name = f"llvm.experimental.vector.compress.v{t.count}i{t.element.width}"
        known = declare(self.module, name, ir.FunctionType(t, [t, mask.type, t]))
        return self.b.call(known, [v, mask, t(ir.Undefined)])

    def lanes_in(self, mask: ir.Value) -> ir.Value:
        """How many lanes of a mask are set."""
        t = ir.IntType(mask.type.count)
        count = self.module.declare_intrinsic("llvm.ctpop", [t], ir.FunctionType(t, [t]))
        return self.b.zext(self.b.call(count, [self.b.bitcast(mask, t)]), I64)

    def store_where(self, v: ir.Value, place: ir.Value, mask: ir.Value) -> None:
        """Stores those lanes of integers."""
        t = v.type
        name = f"llvm.masked.store.v{t.count}i{t.element.width}.p0"
        known = declare(self.module, name, ir.FunctionType(VOID, [t, PTR, I32, mask.type]))
        self.b.call(known, [v, place, I32(t.element.width // 8), mask])
