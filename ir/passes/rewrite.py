"""What passes share: rebuilding blocks and asking small questions about values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from math import prod
from typing import Any

from dflow.ir.builder import Builder
from dflow.ir.core import HOLDERS, Block, Function, Op, Value, substitute, walk
from dflow.ir.registry import OPS
from dflow.ir.types import Size, TensorType

Env = MutableMapping[Value, Value]

UPDATES = frozenset({"update", "update_add", "scatter", "scatter_add"})
LOOPS = frozenset({"for", "while"})
SEQUENCES = frozenset({"sequence", "tape"})  # what makes them
# A call is taken to have an effect, since its callee may check something.
EFFECTS = frozenset({"call"})


def has_effect(op: Op) -> bool:
    """Whether the operation itself (not its regions) does more than give results."""
    return op.name in EFFECTS or OPS[op.name].effect


def has(f: Function, *names: str) -> bool:
    """Whether there are operations of one of these names; most passes are about few of them."""
    return any(op.name in names for op in walk(f.body))


def rename(values: Sequence[Value], env: Mapping[Value, Value]) -> list[Value]:
    return [env.get(v, v) for v in values]


def open_block(args: Sequence[Value], env: Env, make: Callable[[], Builder] = Builder) -> Builder:
    """A builder for a block with copies of the arguments ``args``, which ``env`` gains."""
    b = make()
    copies = [Value(a.type, a.hint) for a in args]
    env.update(zip(args, copies))
    for a in copies:
        if has_sizes(a.type):
            a.type = substitute(a.type, env)
    b.args = tuple(copies)
    return b


def append_copy(
    b: Builder,
    op: Op,
    env: Env,
    regions: Sequence[Block] = (),
    operands: Sequence[Value] | None = None,
    results: Sequence[Value] | None = None,
) -> Op:
    """Appends ``op`` with values renamed, around new regions; ``operands`` and ``results`` (old values) select."""
    old = op.results if results is None else results
    new = [Value(r.type, r.hint) for r in old]
    env.update(zip(old, new))
    if op.name == "if":
        _merge(old, new, regions, env)
    for v in new:  # a size in a type may be another result
        if v.type.size_values:
            v.type = substitute(v.type, env)
    attrs = op.attrs
    if attrs and any([isinstance(a, HOLDERS) and has_sizes(a) for a in attrs.values()]):
        attrs = {k: substitute(a, env) for k, a in attrs.items()}
    copy = Op(op.name, rename(op.operands if operands is None else operands, env), new, attrs, regions, op.loc)
    b.ops.append(copy)
    return copy


def _merge(old: Sequence[Value], new: Sequence[Value], regions: Sequence[Block], env: Env) -> None:
    """Names results of an ``if`` that have become equal by one value, as the types of tensors beside them do."""
    first: dict[tuple[Value, Value], Value] = {}
    for r, v, x, y in zip(old, new, regions[0].results, regions[1].results):
        env[r] = x if x is y else first.setdefault((x, y), v)


def has_sizes(a: Any) -> bool:
    """Whether an attribute or a type depends on values."""
    if isinstance(a, TensorType):
        return bool(a.size_values)
    if isinstance(a, tuple):
        return bool(a) and any(has_sizes(part) for part in a if not isinstance(part, int | str))
    return isinstance(a, Size)


def rebuild(
    f: Function, fill: Callable[[Builder, Block, Env], None], make: Callable[[], Builder] = Builder
) -> Function:
    """``f`` with its body written by ``fill``: (builder, old block, names)."""
    env: dict[Value, Value] = {}
    b = open_block(f.args, env, make)
    fill(b, f.body, env)
    return Function(f.name, b.finish(rename(f.results, env)), f.linear, f.loc)


def rebuild_region(block: Block, env: Env, fill: Callable[[Builder, Block, Env], None]) -> Block:
    """A region with its operations written by ``fill``, as those of the function are."""
    b = open_block(block.args, env)
    fill(b, block, env)
    return b.finish(rename(block.results, env))


def rebuild_loops(f: Function, write: Callable[[Builder, Op, Block, Env], bool]) -> Function:
    """``f`` with its ``for`` loops written by ``write``: (builder, old loop, its new body, names). Those for which it
    gives False stay. Inner loops come first."""

    def fill(b: Builder, block: Block, env: Env) -> None:
        for op in block.ops:
            b.loc = op.loc
            regions = [rebuild_region(r, env, fill) for r in op.regions]
            if op.name != "for" or not write(b, op, regions[0], env):
                append_copy(b, op, env, regions)

    return rebuild(f, fill)


def constant_of(v: Value) -> Any:
    """The Python value of a scalar constant; None for everything else."""
    op = v.op
    return op.attrs["value"] if op is not None and op.name == "constant" and not v.type.shape else None


def splat_of(v: Value) -> Any:
    """The Python value of a scalar constant, or of a tensor that repeats one; None for everything else."""
    source = splat_source(v)
    return None if source is None else constant_of(source)


def splat_source(v: Value) -> Value | None:
    """The scalar that ``v`` is, or repeats."""
    if not v.type.shape:
        return v
    op = v.op
    return op.operands[0] if op is not None and op.name == "broadcast" and not op.operands[0].type.shape else None


def same(x: Value, y: Value) -> bool:
    """Whether two scalars are certainly equal: one value, or two integer constants."""
    if x is y:
        return True
    c = constant_of(x)
    return c is not None and not isinstance(c, float | complex) and x.type == y.type and c == constant_of(y)


def elements(shape: Sequence[Any]) -> int | None:
    """How many elements a tensor of this shape has; None when that depends on the run."""
    return prod(shape) if all(isinstance(d, int) for d in shape) else None


def overwritten(f: Function) -> set[Value]:
    """Tensors that an update, or a loop that carries them, would like to write in place.

    Another use of such a tensor costs a copy, so passes do not give it one.
    """
    found: set[Value] = set()
    for op in walk(f.body):
        if op.name in UPDATES:
            found.add(op.operands[0])
        elif op.name in LOOPS:
            found.update(v for v in op.operands if v.type.shape)
            for r in op.regions:
                found.update(v for v in r.results if v.type.shape)
    return found
