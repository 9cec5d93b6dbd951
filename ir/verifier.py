"""Checks that a function obeys the rules of the IR. Run at every pass boundary under test.

Checked are: types against what the definitions infer, dominance (sizes in types included), that each value is defined
once, the signatures of regions, what a kernel may contain, calls against their callees, and linearity
(``dflow.ir.linearity``). An error shows the line of the printed function:

    @f does not verify, line 2:
      %y = sin %n : f64
           ^^^ does not take i64; it takes f16, bf16, f32, f64
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from dflow.ir.builder import if_types, infer
from dflow.ir.core import Block, Function, Module, Op, Value, attribute_values, free_values, substitute
from dflow.ir.linearity import check_linearity
from dflow.ir.ops.reduction import KINDS
from dflow.ir.printer import Printer
from dflow.ir.registry import OPS, OpTypeError
from dflow.ir.rules import Rule
from dflow.ir.types import BOOL, GROWS, I64, Size, TensorType, scalar

REGIONS = {"if": 2, "for": 1, "while": 2, "kernel": 1, "custom": 1}
WIDEST = 120  # longer lines are cut around the caret


class VerificationError(Exception):
    """The program breaks a rule of the IR; that is a mistake of whoever built it, not of dflow's user."""


def verify(f: Function, module: Module | None = None, after: str | None = None) -> None:
    """Raises ``VerificationError`` unless ``f`` is well formed.

    ``module`` holds the functions that it may call; without one, calls are not compared with their callees. ``after``
    names the pass that made ``f``, for the message.
    """
    _Verifier(f, module, after).run()


def verify_module(m: Module, after: str | None = None) -> None:
    """Verifies every function, and the calls between them."""
    for name, f in m.functions.items():
        if f.name != name:
            raise VerificationError(f"the module has @{f.name} under the name @{name}")
        verify(f, m, after)


class _Verifier:
    def __init__(self, f: Function, module: Module | None, after: str | None):
        self.f = f
        self.module = module
        self.after = after
        self.visible: set[Value] = set()
        self.defined: set[Value] = set()

    def run(self) -> None:
        f = self.f
        for k in f.linear:
            if not 0 <= k < len(f.args):
                self.fail(f, f"has no parameter {k} to be linear in")
            if not f.args[k].type.dtype.is_inexact:
                self.fail(f, f"cannot be linear in a {f.args[k].type}", f.args[k])
        self.block(f.body, f)
        check_linearity(f, self.module, self.fail)

    def fail(self, where: Op | Block | Function, reason: str, value: Value | None = None) -> NoReturn:
        """Raises, with the caret under ``value``, or under the name of the operation."""
        printer = Printer(self.f)
        number = printer.line_of.get(where, 0)
        line = printer.lines[number].strip()
        word = printer.name(value) if value is not None else _word(where)
        loc = self.f.loc if isinstance(where, Block) else where.loc
        after = f" after {self.after}" if self.after else ""
        place = f", line {number + 1}" + (f" ({loc})" if loc else "")
        raise VerificationError(f"@{self.f.name} does not verify{after}{place}:\n{_pointed(line, word, reason)}")

    # -- values and types ----------------------------------------------------------------------------------------

    def define(self, values: Sequence[Value], where: Op | Block | Function) -> None:
        for v in values:
            if v in self.defined:
                self.fail(where, "is defined a second time", v)
            self.defined.add(v)
        self.visible.update(values)

    def use(self, v: Value, where: Op | Block | Function) -> None:
        if v not in self.visible:
            self.fail(where, "is used here and not defined before", v)

    def type(self, v: Value, where: Op | Block | Function) -> None:
        """Checks that a type makes sense where it stands."""
        for k, d in enumerate(v.type.shape):
            if isinstance(d, Size):
                self.use(d.value, where)
                if d.value.type != scalar(I64):
                    self.fail(where, f"is a size and must be i64, not {d.value.type}", d.value)
            elif d is GROWS:
                if k:
                    self.fail(where, f"has type {v.type}; only the leading axis may grow", v)
            elif not isinstance(d, int) or d < 0:
                self.fail(where, f"has type {v.type}, whose size {d} is not a size", v)

    # -- structure -----------------------------------------------------------------------------------------------

    def block(self, block: Block, holder: Op | Function) -> None:
        outside = set(self.visible)
        self.define(block.args, holder)
        for a in block.args:
            self.type(a, holder)
        for op in block.ops:
            self.op(op)
        for v in block.results:
            self.use(v, block)
        self.visible = outside

    def op(self, op: Op) -> None:
        if op.name not in OPS:
            self.fail(op, "is not an operation")
        for v in op.operands:
            self.use(v, op)
        for a in op.attrs.values():
            for v in attribute_values(a):
                self.use(v, op)
        self.attributes(op)
        if len(op.regions) != REGIONS.get(op.name, 0):
            self.fail(op, f"has {len(op.regions)} regions, expected {REGIONS.get(op.name, 0)}")
        for region in op.regions:
            self.block(region, op)
        check = getattr(self, f"_{op.name}", None)
        if check is not None:
            check(op)
        self.define(op.results, op)
        self.results(op)
        for r in op.results:
            self.type(r, op)

    def attributes(self, op: Op) -> None:
        known = OPS[op.name].attribute_names
        for name in op.attrs:
            if name not in known:
                self.fail(op, f"has no attribute {name!r}" + (f"; it has {', '.join(known)}" if known else ""))
        for name in known:
            if name not in op.attrs:
                self.fail(op, f"lacks the attribute {name!r}")

    def results(self, op: Op) -> None:
        """Compares result types with the inferred ones."""
        try:
            types = list(infer(op.name, op.operands, op.attrs, op.regions))
        except OpTypeError as e:
            self.fail(op, str(e))
        except Exception as e:
            self.fail(op, f"has operands or attributes that do not fit ({type(e).__name__}: {e})")
        if op.name == "if" and len(types) == len(op.results):
            types = if_types(op.regions, op.results)
        if op.name == "custom":
            types = [substitute(t, dict(zip(op.regions[0].results, op.results))) for t in types]
        if len(types) != len(op.results):
            self.fail(op, f"has {len(op.results)} results, expected {len(types)}")
        for r, t in zip(op.results, types):
            if r.type != t:
                self.fail(op, f"has type {r.type}, expected {t}", r)
        self.sequences(op)

    def sequences(self, op: Op) -> None:
        """A sequence is zero beyond its end, so only operations that take zero to zero apply to one."""
        growing = [v for v in op.operands if v.type.grows]
        definition = OPS[op.name]
        if growing and definition.elementwise and not definition.linear_groups(len(op.operands)):
            self.fail(op, "does not apply to a sequence: it may give other than zero for zero", growing[0])
        if op.name == "broadcast" and op.result.type.grows and not growing:
            self.fail(op, "cannot make a sequence")

    # -- operations with rules of their own, by name -----------------------------------------------------------------

    def signature(self, op: Op, what: str, values: Sequence[Value], types: Sequence[TensorType], at: Any) -> None:
        """Compares what a region takes or yields with what the operation needs."""
        if len(values) != len(types):
            self.fail(at, f"{what} {len(values)} values, expected {len(types)}")
        for v, t in zip(values, types):
            if v.type != t:
                self.fail(at, f"{what} {v.type}, expected {t}", v)

    def _if(self, op: Op) -> None:
        then, orelse = op.regions
        if [v.type for v in op.operands] != [scalar(BOOL)]:
            self.fail(op, "takes one bool scalar")
        for r in op.regions:
            self.signature(op, "takes", r.args, [], op)
        same = dict(zip(orelse.results, then.results))
        types = [v.type for v in then.results]
        if len(types) != len(orelse.results):
            self.fail(orelse, f"yields {len(orelse.results)} values, expected {len(types)}")
        for v, t in zip(orelse.results, types):
            if v.type != t and substitute(v.type, same) != t:
                self.fail(orelse, f"yields {v.type}, expected {t}", v)

    def _for(self, op: Op) -> None:
        if not op.operands or op.operands[0].type != scalar(I64):
            self.fail(op, "takes an i64 count first")
        carried = [v.type for v in op.operands[1:]]
        self.signature(op, "takes", op.regions[0].args, [scalar(I64), *carried], op)
        self.signature(op, "yields", op.regions[0].results, carried, op.regions[0])

    def _while(self, op: Op) -> None:
        carried = [v.type for v in op.operands]
        condition, body = op.regions
        for r in op.regions:
            self.signature(op, "takes", r.args, carried, op)
        self.signature(op, "yields", condition.results, [scalar(BOOL)], condition)
        self.signature(op, "yields", body.results, carried, body)

    def _constant(self, op: Op) -> None:
        shape = np.shape(op.attrs["value"])
        if shape != op.attrs["type"].shape:
            self.fail(op, f"has a value of shape {list(shape)} and the type {op.attrs['type']}")

    def _call(self, op: Op) -> None:
        if self.module is None:
            return
        callee = self.module.functions.get(op.attrs["callee"])
        if callee is None:
            self.fail(op, f"calls @{op.attrs['callee']}, which the module does not have")
        names = dict(zip(callee.args, op.operands)) | dict(zip(callee.results, op.results))
        arguments = [substitute(t, names) for t in callee.arg_types]
        self.signature(op, f"calls @{callee.name} with", op.operands, arguments, op)
        results = [substitute(t, names) for t in callee.result_types]
        self.signature(op, f"calls @{callee.name} for", op.results, results, op)

    def _custom(self, op: Op) -> None:
        (region,) = op.regions
        self.ruled(op)
        inside = dict(zip(op.operands, region.args))
        self.signature(op, "takes", region.args, [substitute(v.type, inside) for v in op.operands], op)
        for v in free_values(region):
            self.fail(op, "is used in the region, which sees its arguments alone", v)

    def _reverse_only(self, op: Op) -> None:
        self.ruled(op)

    def ruled(self, op: Op) -> None:
        if not isinstance(op.attrs["rule"], Rule):
            self.fail(op, "needs a rule: rule = @name")
        k = op.attrs["linear"]
        if not isinstance(k, int) or not 0 <= k <= len(op.operands):
            self.fail(op, f"cannot be linear in its last {k} operands of {len(op.operands)}")

    def _kernel(self, op: Op) -> None:
        domain, reduced, combine = (op.attrs[k] for k in ("domain", "reduced", "combine"))
        (region,) = op.regions
        if op.operands:
            self.fail(op, "takes no operands: its region uses values from around it")
        if not 0 <= reduced <= len(domain):
            self.fail(op, f"reduces {reduced} of {len(domain)} axes")
        self.signature(op, "takes", region.args, [scalar(I64)] * len(domain), op)
        for inner in region.ops:
            self.scalar_code(inner)
        if len(combine) != len(region.results):
            self.fail(op, f"has {len(combine)} kinds in combine for {len(region.results)} results")
        for v, kind in zip(region.results, combine):
            if not v.type.is_scalar:
                self.fail(region, f"yields {v.type}, expected a scalar", v)
            self.combines(op, region, v, kind, reduced)

    def combines(self, op: Op, region: Block, v: Value, kind: str, reduced: int) -> None:
        if kind == "":
            return
        if not reduced:
            self.fail(op, f'combines by {kind!r}, expected "" since it reduces no axis')
        elif kind not in KINDS:
            self.fail(op, f"combines by {kind!r}, expected one of {', '.join(KINDS)}")
        elif (v.type.dtype == BOOL) != (kind in ("any", "all")):
            self.fail(region, f"is {v.type}, which {kind} does not take", v)

    def scalar_code(self, op: Op) -> None:
        """What may stand in a kernel: operations on scalars, and reading one element of a tensor."""
        if op.regions or op.name == "call" or OPS[op.name].effect:
            self.fail(op, "cannot stand in a kernel")
        reads = op.name == "extract" and all(e == "at" for e in op.attrs["index"])
        for v in op.operands[1:] if reads else op.operands:
            if not v.type.is_scalar:
                self.fail(op, f"is {v.type}; a kernel reads one element of a tensor at a time", v)
        for r in op.results:
            if not r.type.is_scalar:
                self.fail(op, f"is {r.type}; a kernel has only scalars inside", r)


# -- messages ----------------------------------------------------------------------------------------------------------


def _word(where: Op | Block | Function) -> str:
    if isinstance(where, Op):
        return where.name
    return f"@{where.name}" if isinstance(where, Function) else ""


def _pointed(line: str, word: str, reason: str) -> str:
    """The line with a caret line below, cut to a readable width around ``word``."""
    column = _find(line, word)
    if len(line) > WIDEST:
        start = max(0, min(column - WIDEST // 2, len(line) - WIDEST))
        end = start + WIDEST
        line = ("..." if start else "") + line[start:end] + ("..." if end < len(line) else "")
        column += (3 if start else 0) - start
    return f"  {line}\n  {' ' * column}{'^' * max(1, len(word))} {reason}"


def _find(line: str, word: str) -> int:
    """Where ``word`` first stands in ``line`` by itself."""
    found = re.search(rf"(?<![\w.%]){re.escape(word)}(?![\w.])", line) if word else None
    return found.start() if found else 0
