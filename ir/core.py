"""The program itself: values, operations, blocks, functions, modules.

A region is one ``Block``: arguments, operations in order, and the values that it yields. Control flow is structured, so
there is no other edge between blocks than an operation holding them, and a block may use every value that is defined
before it in the blocks around it. Nothing here is edited in place once built: a pass makes a new function.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dflow.ir.types import Size, TensorType


@dataclass(frozen=True)
class Location:
    """A place in the user's source. ``caller`` is where the enclosing function was called from."""

    file: str
    line: int
    column: int = 0
    end_column: int = 0
    function: str = ""
    caller: Location | None = None

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Value:
    """An SSA value: the result of one operation, or an argument of one block. Compared by identity."""

    __slots__ = ("hint", "owner", "type")

    def __init__(self, type: TensorType, hint: str | None = None):
        self.type = type
        self.hint = hint  # the user's name for it, for printing
        self.owner: Op | Block | None = None

    @property
    def op(self) -> Op | None:
        """The operation that defines it; None for a block argument."""
        return self.owner if isinstance(self.owner, Op) else None

    def __repr__(self) -> str:
        return f"%{self.hint or '?'}: {self.type}"


class Op:
    """One operation. ``attrs`` holds compile-time facts (immutable Python values)."""

    __slots__ = ("attrs", "loc", "name", "operands", "regions", "results")

    def __init__(
        self,
        name: str,
        operands: Sequence[Value],
        results: Sequence[Value],
        attrs: Mapping[str, Any] | None = None,
        regions: Sequence[Block] = (),
        loc: Location | None = None,
    ):
        self.name = name
        self.operands = tuple(operands)
        self.results = tuple(results)
        self.attrs: dict[str, Any] = dict(attrs or {})
        self.regions = tuple(regions)
        self.loc = loc
        for r in self.results:
            r.owner = self

    @property
    def result(self) -> Value:
        (r,) = self.results
        return r

    def uses(self) -> list[Value]:
        """Every value that this operation itself needs: operands, and sizes in its attributes and result types."""
        found = list(self.operands)
        for a in self.attrs.values():
            if isinstance(a, HOLDERS):
                found += attribute_values(a)
        for r in self.results:
            found += r.type.size_values
        return found

    def __repr__(self) -> str:
        return f"<{self.name} {self.operands} -> {self.results}>"


class Block:
    """A region: arguments, operations, yielded values."""

    __slots__ = ("args", "ops", "results")

    def __init__(self, args: Sequence[Value] = (), ops: Sequence[Op] = (), results: Sequence[Value] = ()):
        self.args = tuple(args)
        self.ops = list(ops)
        self.results = tuple(results)
        for a in self.args:
            a.owner = self


@dataclass(eq=False)
class Function:
    """A function: its body's arguments are its parameters, what the body yields are its results.

    ``linear`` lists the parameters (by position) in which the function is linear; the verifier holds it to that.
    """

    name: str
    body: Block
    linear: frozenset[int] = frozenset()
    loc: Location | None = None

    @property
    def args(self) -> tuple[Value, ...]:
        return self.body.args

    @property
    def results(self) -> tuple[Value, ...]:
        return self.body.results

    @property
    def arg_types(self) -> tuple[TensorType, ...]:
        return tuple(a.type for a in self.args)

    @property
    def result_types(self) -> tuple[TensorType, ...]:
        return tuple(r.type for r in self.results)

    def __str__(self) -> str:
        from dflow.ir.printer import print_function

        return print_function(self)


@dataclass(eq=False)
class Module:
    """Functions by name. The first is the entry."""

    functions: dict[str, Function] = field(default_factory=dict)

    @staticmethod
    def of(*functions: Function) -> Module:
        return Module({f.name: f for f in functions})

    @property
    def entry(self) -> Function:
        return next(iter(self.functions.values()))

    def __str__(self) -> str:
        return "\n\n".join(str(f) for f in self.functions.values()) + "\n"


HOLDERS = (tuple, TensorType, Size)  # the attributes in which there may be values


def attribute_values(attr: Any) -> Iterator[Value]:
    """The SSA values inside an attribute (sizes of types and of domains)."""
    if isinstance(attr, Size):
        yield attr.value
    elif isinstance(attr, TensorType):
        yield from attr.size_values
    elif isinstance(attr, tuple):
        for a in attr:
            if isinstance(a, HOLDERS):
                yield from attribute_values(a)


def substitute(attr: Any, env: Mapping[Value, Value]) -> Any:
    """``attr`` (an attribute or a type) with the sizes in it renamed by ``env``."""
    if isinstance(attr, TensorType):
        return attr if attr.is_static else attr.with_shape(substitute(attr.shape, env))
    if isinstance(attr, Size):
        return Size(env.get(attr.value, attr.value), attr.bound)
    if isinstance(attr, tuple):
        return tuple([substitute(a, env) if isinstance(a, HOLDERS) else a for a in attr])
    return attr


def walk(block: Block) -> Iterator[Op]:
    """All operations of a block and of the regions inside, in order, an operation before its regions."""
    for op in block.ops:
        yield op
        for r in op.regions:
            yield from walk(r)


def free_values(*blocks: Block) -> list[Value]:
    """Values used in the blocks (or in regions inside) that are defined outside of them, in order of first use."""
    defined: set[Value] = set()
    free: dict[Value, None] = {}

    def use(values: Iterable[Value]) -> None:
        for v in values:
            if v not in defined:
                free[v] = None

    def visit(block: Block) -> None:
        defined.update(block.args)
        for a in block.args:
            use(a.type.size_values)
        for op in block.ops:
            # Sizes in result types may be results of the same operation (a count and what it bounds).
            defined.update(op.results)
            use(op.uses())
            for r in op.regions:
                visit(r)
        use(block.results)

    for b in blocks:
        visit(b)
    return list(free)
