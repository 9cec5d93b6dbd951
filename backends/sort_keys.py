"""What sorting is written with: functions in LLVM's language, and keys, which are numbers without sign in the order of
the elements; NaN last, 0.0 and -0.0 alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from dflow.backends.emit_core import untyped
from dflow.backends.emit_scalar import is_nan
from dflow.backends.emit_types import I32, I64, ONE, VOID, from_storage, index, storage_type
from dflow.ir.types import DType


def new_function(module: ir.Module, name: str, args: Sequence[ir.Type]) -> tuple[ir.Function, bool]:
    """The function of that name, and whether it is new and has no body yet."""
    if name in module.globals:
        return module.globals[name], False
    f = ir.Function(module, ir.FunctionType(VOID, args), name)
    f.linkage = "internal"
    for attribute in ("noinline", "nounwind"):
        f.attributes.add(attribute)
    return f, True


class Writer:
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

    def splat(self, value: ir.Value, t: ir.VectorType) -> ir.Value:
        undefined = t(ir.Undefined)
        first = self.b.insert_element(undefined, value, I32(0))
        return self.b.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(I32, t.count), [0] * t.count))

    def count(self, start: ir.Value, stop: ir.Value, body: Callable[[ir.Value], Any], step: int = 1) -> None:
        """``body(k)`` for k = start, start + step, ... below ``stop``."""
        k = self.slot(start)

        def once() -> None:
            body(self.read(k))
            self.increase(k, index(step))

        self.repeat(lambda: self.b.icmp_signed("<", self.read(k), stop), once)


class Keys(Writer):
    """A function of rows of one dtype, whose elements have keys."""

    def __init__(self, f: ir.Function, dtype: DType):
        super().__init__(f)
        self.dtype = dtype

    def key_in(self, row: ir.Value, k: ir.Value, lanes: int = 1) -> ir.Value:
        """The key of element ``k`` of a row, or a vector of the keys from there on."""
        b, item = self.b, storage_type(self.dtype)
        t = item if lanes == 1 else ir.VectorType(item, lanes)
        stored = b.load(self.at(row, k, item), typ=t, align=self.dtype.itemsize)
        v = from_storage(b, self.dtype, stored)
        if self.dtype.is_float:
            return self.float_key(v)
        width = 8 * self.dtype.itemsize
        if self.dtype.kind == "i":
            v = b.xor(v, same(v.type, 1 << (width - 1)))
        return v if width == 64 else b.zext(v, like(v.type, I64))

    def float_key(self, v: ir.Value) -> ir.Value:
        b, width = self.b, 8 * self.dtype.itemsize
        missing = is_nan(b, v)
        if width == 16 and v.type != ir.FloatType():  # where bf16 is in a register
            v = b.fpext(v, ir.FloatType())
        width = max(width, 32)
        t = like(v.type, ir.IntType(width))
        pattern = b.bitcast(b.fadd(v, same(v.type, 0.0)), t)  # -0.0 + 0.0 is 0.0
        sign = b.ashr(pattern, same(t, width - 1))
        found = b.select(missing, same(t, -1), b.xor(pattern, b.or_(sign, same(t, 1 << (width - 1)))))
        return found if width == 64 else b.zext(found, like(v.type, I64))


def like(t: ir.Type, item: ir.Type) -> ir.Type:
    """The type of as many elements."""
    return ir.VectorType(item, t.count) if isinstance(t, ir.VectorType) else item


def same(t: ir.Type, number: float) -> ir.Constant:
    """A constant, in all lanes of a vector."""
    return t([number] * t.count) if isinstance(t, ir.VectorType) else t(number)
