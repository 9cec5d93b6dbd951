"""Long straight code in pieces: functions of some hundred operations, called one after the other.

LLVM's time grows with the square of a block, for what it asks about pairs of accesses and for its choice of registers.
What one piece computes and another uses is in the *frame*, memory on the stack that all share; arrays that one piece
alone uses are its own, and become registers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from math import prod

from llvmlite import ir

from dflow.backends.emit.core import Emitter
from dflow.backends.emit.direct import direct
from dflow.backends.emit.outline import needs
from dflow.backends.emit.types import I8, I32, PTR, index
from dflow.backends.lowering.plan import Buffer
from dflow.ir.core import Op, Value

LENGTH = 2000  # about how many operations on numbers are a piece
SEVERAL = 10  # pieces, from which on they save time
ALIGNMENT, NUMBER = 32, 8  # bytes to which arrays and numbers are aligned
MAIN = -1  # the piece, as it were, that calls the others


def is_long(e: Emitter) -> bool:
    """Whether the program is straight code of several pieces, with arrays: numbers alone are in registers anyway."""
    if not e.straight or not e.plan.buffers or any(b.space in ("arena", "heap") for b in e.plan.buffers.values()):
        return False
    return sum(map(_length, e.plan.function.body.ops)) > SEVERAL * LENGTH


def in_pieces(e: Emitter) -> list[ir.Value | None]:
    """Writes the program, one piece after the other, and calls of them; its results as `Emitter.block` gives them."""
    return _Pieces(e, _divided(direct(e, e.plan.function.body))).write()


def _divided(ops: Sequence[Op]) -> list[list[Op]]:
    found, length = [list[Op]()], 0
    for op in ops:
        if length > LENGTH:
            found.append([])
            length = 0
        found[-1].append(op)
        length += _length(op)
    return found


def _length(op: Op) -> int:
    """About how many operations on numbers an operation is."""
    if op.regions:
        return len(op.regions[0].ops) * prod(op.attrs["domain"])
    return prod(op.results[0].type.static_shape) if op.results else 1


def _values(op: Op) -> list[Value]:
    return [*needs(op), *op.results]


class _Pieces:
    """``offsets`` says where in the frame numbers and arrays are that more than one piece uses, ``own`` has the arrays
    that one alone uses."""

    def __init__(self, e: Emitter, found: list[list[Op]]):
        self.e, self.found = e, found
        users = self._users()
        self.offsets: dict[Value | Buffer, int] = {}
        self.own: defaultdict[int, list[Buffer]] = defaultdict(list)
        size = 0
        for x, pieces in users.items():
            if len(pieces) > 1:
                step = ALIGNMENT if isinstance(x, Buffer) else NUMBER
                self.offsets[x] = size = -(-size // step) * step
                size += x.bytes if isinstance(x, Buffer) else x.type.dtype.itemsize
            elif isinstance(x, Buffer):
                self.own[pieces.pop()].append(x)
        self.frame = e.slot(ir.ArrayType(I8, size), "frame")
        self.frame.align = ALIGNMENT

    def _users(self) -> Mapping[Value | Buffer, set[int]]:
        """Which pieces use the numbers, and the arrays on the stack."""
        f, buffers = self.e.plan.function, self.e.memory.buffers
        users: defaultdict[Value | Buffer, set[int]] = defaultdict(set)
        inside = ((n, v) for n, ops in enumerate(self.found) for op in ops for v in _values(op))
        for n, v in chain(((MAIN, v) for v in (*f.args, *f.results)), inside):
            if v.type.is_scalar:
                users[v].add(n)
            elif v in buffers and buffers[v].space == "stack":
                users[buffers[v]].add(n)
        return users

    def write(self) -> list[ir.Value | None]:
        e = self.e
        self._leave(e.plan.function.args)
        for n, ops in enumerate(self.found):
            with self._piece(n):
                for op in ops:
                    self._fetch(needs(op))
                    e.op(op)
                    self._leave(op.results)
        results = e.plan.function.results
        self._fetch(results)
        return [e.env[v] if v.type.is_scalar else None for v in results]

    @contextmanager
    def _piece(self, n: int) -> Iterator[None]:
        """A function of the arguments of the program and the frame is written while this lasts, and called then."""
        e, main = self.e, self.e.function
        outside = e.builder, e.env, e.memory.bases, self.frame, e.entry, e.exit, e.status, e.error
        name = e.module.get_unique_name(f"{main.name}.piece")
        function = ir.Function(e.module, ir.FunctionType(I32, [*(a.type for a in main.args), PTR]), name)
        function.linkage = "internal"
        for attribute in ("noinline", "nounwind"):
            function.attributes.add(attribute)
        e.begin(function)
        *arguments, self.frame = function.args
        e.error = arguments[-1]
        e.env = {v: x for v, x in e.env.items() if isinstance(x, ir.Constant)}
        e.memory.bases = dict(zip(outside[2], map(dict(zip(main.args, arguments)).get, outside[2].values())))
        e.memory.bases |= {x: self._address(x) for x in self.offsets if isinstance(x, Buffer)}
        e.memory.bases |= {x: e.memory.place(x) for x in self.own[n]}
        yield
        e.end()
        constants = {v: x for v, x in e.env.items() if isinstance(x, ir.Constant)}
        may_fail = len(e.status.incomings) > 1
        e.builder, e.env, e.memory.bases, self.frame, e.entry, e.exit, e.status, e.error = outside
        e.function = main
        e.env.update(constants)
        failed = e.builder.call(function, [*main.args, self.frame])
        if may_fail:
            with e.builder.if_then(e.builder.icmp_signed("!=", failed, I32(0)), likely=False):
                e.branch_out(1)

    def _address(self, x: Value | Buffer) -> ir.Value:
        return self.e.builder.gep(self.frame, [index(self.offsets[x])], inbounds=True, source_etype=I8)

    def _fetch(self, values: Iterable[Value]) -> None:
        """Numbers of other pieces into registers."""
        for v in values:
            if v.type.is_scalar and v not in self.e.env:
                self.e.env[v] = self.e.load_at(v, self._address(v))

    def _leave(self, values: Iterable[Value]) -> None:
        """Numbers that other pieces use into the frame."""
        for v in values:
            if v in self.offsets and not isinstance(self.e.env[v], ir.Constant):
                self.e.store_at(v, self._address(v), self.e.env[v])
