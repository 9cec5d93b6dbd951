"""Splitting a function with tangents into its nonlinear and its linear part.

``(x, x_dot) -> (y, y_dot)`` becomes ``(x) -> (y, residuals)`` and ``(residuals, x_dot) -> y_dot``.

    %y = sin %x                       nonlinear: %y = sin %x; %c = cos %x
    %c = cos %x                 ->
    %y_dot = mul %c, %x_dot           linear:    %y_dot = mul %c, %x_dot

Control flow is split too. An ``if`` becomes two, by the same predicate. A ``for`` becomes two with the same count; a
``while`` becomes a ``while`` that counts and a linear ``for`` with that count. What the linear body needs from the
nonlinear one (``dflow.ir.passes.residuals`` chooses) is written to a *tape* at the iteration's position and read back
there. Tapes are created before the outermost loop and threaded through all loops around, so that no loop allocates
and nothing is copied; in nested loops, position = base + counter, where the base is the outer position times the inner
count when that is static, and a running total otherwise. A tape is a tensor with room for as many iterations as there
can be (memory that is not touched costs nothing), and a sequence when that is not known, or too much. Residuals whose
length differs between iterations lie on their tape one behind the other.

Where tapes of a nested loop would leave the caches, the loop *runs again*: its tapes have room for one iteration of the
loop around, whose linear body repeats the nonlinear loop before it reads them. Memory is slower than arithmetic, and
what only the tapes needed of the first run is not computed there. So does a nested loop of a length that is not known,
where the iterations around are apart (``dflow.ir.passes.apart``).

Where they are, and all tapes are local, reverse mode can do both parts of an iteration together: see
``dflow.ir.passes.together``, which takes the *rounds* of the outermost loops.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dflow.ir.builder import Builder, clone_block
from dflow.ir.core import Block, Function, Op, Value, free_values, substitute, walk
from dflow.ir.passes.apart import apart
from dflow.ir.passes.carried import Carried, less_in_parts
from dflow.ir.passes.dce import dce
from dflow.ir.passes.dependence import carried_values, dependents
from dflow.ir.passes.jvp import jvp
from dflow.ir.passes.packing import pack, packed_type, unpack, unspecified
from dflow.ir.passes.ranges import trip_bounds
from dflow.ir.passes.residuals import NESTED, choose, leaves_sequences
from dflow.ir.passes.rewrite import has_effect
from dflow.ir.passes.settled import Place, settled
from dflow.ir.passes.tapes import INDEX, LARGEST, Cell, Frame
from dflow.ir.types import TensorType

LONG = 1 << 17  # so many iterations in all: a tape of one float each is a megabyte
UNKNOWN = 1000  # iterations that are supposed of an outermost loop where the count is not static


@dataclass
class LinearParts:
    """The nonlinear part, still open in ``b`` so that more can be appended, and the linear part.

    ``linear`` has the tangents for arguments and uses values of ``b`` directly. ``rounds``: of loops in ``linear``.
    """

    b: Builder
    results: list[Value]
    linear: Block
    rounds: dict[Op, Rounds]


@dataclass
class Rounds:
    """The nonlinear loop of a linear one, and the latter's body with the values of the nonlinear body, not of tapes."""

    nonlinear: Op
    body: Block


def linearize_parts(f: Function, wrt: Sequence[int], *, selecting: bool = False) -> LinearParts:
    """Splits the derivative of ``f`` by the parameters ``wrt``. ``selecting``: as for ``jvp``. Raises
    NoDerivativeError."""
    forward = dce(jvp(f, wrt, selecting=selecting))
    n = len(f.args)
    return split(forward.body, forward.args[n:], len(f.results))


def split(block: Block, dots: Sequence[Value], count: int) -> LinearParts:
    """Splits a block that is linear in its arguments ``dots``, but for its first ``count`` results.

    The block uses nothing from around it.
    """
    linear_values = dependents(block, dots)
    unknown = any(op.name == "for" and _static_count(op) is None for op in walk(block))
    free = apart(block, linear_values) if unknown else set()
    pass_ = _Split(linear_values, _trips(block), settled(block, linear_values), free)
    root = Frame()
    root.b = Builder.like([a for a in block.args if a not in dots], pass_.env)
    linear_builder = Builder.like(dots, pass_.env)
    pass_.block(root, linear_builder, block)
    linear = linear_builder.finish([pass_.env[v] for v in block.results[count:]])
    finals = {cell.final: value for cell, value in root.current.items()}
    closed = Builder.like(linear.args)
    names = dict(finals)
    results = closed.inline(linear, closed.args, names)
    rounds = {
        new: Rounds(pass_.rounds[old].nonlinear, clone_block(pass_.rounds[old].body, names))
        for old, new in zip(linear.ops, closed.ops)
        if old in pass_.rounds
    }
    return LinearParts(root.b, [pass_.env[v] for v in block.results[:count]], closed.finish(results), rounds)


def linearize(f: Function, wrt: Sequence[int]) -> tuple[Function, Function]:
    """``(x) -> (y..., residuals...)`` and ``(residuals..., x_dot for wrt...) -> y_dot for inexact y...``.

    The second is linear in its last parameters. Raises NoDerivativeError.
    """
    parts = linearize_parts(f, wrt, selecting=True)
    dots = parts.linear.args
    choice = choose(parts.b.ops, parts.b.args, free_values(parts.linear))
    residuals = list(dict.fromkeys([*(s for d in dots for s in d.type.size_values), *choice.saved]))
    primal = parts.b.function(f"{f.name}_primal", parts.results + residuals, loc=f.loc)
    env: dict[Value, Value] = {}
    b = Builder.like((*residuals, *dots), env)
    n = len(residuals)
    for a in b.args[:n]:
        a.hint = "res"
    for op, results in choice.recomputed:
        if not all(r in env for r in results):
            b.clone(op, env)
    tangents = b.inline(parts.linear, b.args[n:], env)
    linear = frozenset(range(n, n + len(dots)))
    return primal, b.function(f"{f.name}_linear", tangents, linear=linear, loc=f.loc)


class _Split:
    """The pass. ``env`` maps old values to new ones of either part; linear code refers to nonlinear values freely."""

    def __init__(self, linear: set[Value], trips: dict[Op, int], settled: dict[Op, Place], apart: set[Op]):
        self.linear = linear
        self.trips = trips
        self.settled = settled
        self.apart = apart
        self.rounds: dict[Op, Rounds] = {}
        self.finished: dict[Op, tuple[float, dict[int, Value]]] = {}  # loops around: how often they run, their results
        self.instead: dict[Value, Op] = {}  # values that are elements of tensors under way: reads of finished ones
        self.env: dict[Value, Value] = {}
        self.again: set[Op] = set()  # nonlinear loops that run again in the linear part
        self.carried = Carried()

    def block(self, frame: Frame, lb: Builder, block: Block) -> None:
        for op in block.ops:
            frame.b.loc = lb.loc = op.loc
            if not any(r in self.linear for r in op.results):
                frame.b.clone(op, self.env)
                if op in self.settled:
                    self.find_later(frame, *self.settled[op])
            elif op.name == "if":
                self.if_(frame, lb, op)
            elif self.runs_again(frame, op):
                self.loop_again(frame, lb, op)
            elif op.name in ("for", "while"):
                self.loop(frame, lb, op)
            else:
                lb.clone(op, self.env)

    def parts(self, values: Sequence[Value]) -> tuple[list[int], list[int]]:
        """Positions of the nonlinear and of the linear values."""
        linear = [i for i, v in enumerate(values) if v in self.linear]
        return [i for i in range(len(values)) if values[i] not in self.linear], linear

    def find_later(self, frame: Frame, loop: Op, position: int) -> None:
        """What the last operation reads or writes is in a result of ``loop`` too, where the linear part finds it."""
        op = frame.b.ops[-1]
        whole, *starts = op.operands
        part = starts.pop(0) if op.name == "update" else op.result
        runs, results = self.finished[loop]
        made_elsewhere = part.op is None or all(part.op is not each for each in frame.b.ops)
        if made_elsewhere or less_in_parts(whole.type, runs, part.type, frame.runs):
            return
        final = results.setdefault(position, Value(whole.type))
        index = {"index": op.attrs["index"]}
        self.instead.setdefault(part, Op("extract", [final, *starts], [Value(part.type)], index, loc=op.loc))

    # -- if --------------------------------------------------------------------------------------------------------

    def if_(self, frame: Frame, lb: Builder, op: Op) -> None:
        plain, linear = self.parts(op.results)
        pred = self.env[op.operands[0]]
        frames, blocks, saved = [], [], []
        for region in op.regions:
            inner, inner_lb = Frame(frame, trips=frame.trips, exact=frame.exact), Builder(loc=op.loc)
            self.block(inner, inner_lb, region)
            block = inner_lb.finish([self.env[region.results[i]] for i in linear])
            choice = choose(inner.b.ops, [], free_values(block), self.again, self.once(inner), self.instead)
            frames.append(inner)
            saved.append(choice.saved)
            blocks.append((block, choice.recomputed))
        results = self.nonlinear_if(frame, op, pred, plain, frames, saved)
        regions: list[Block] = []
        for (block, recomputed), names in zip(blocks, (results[: len(saved[0])], results[len(saved[0]) :])):
            env: dict[Value, Value] = {}
            b = Builder(loc=op.loc)
            for v, packed in zip(saved[len(regions)], names):
                env[v] = unpack(b, packed, v.type, env)
            regions.append(_close(b, recomputed, block, (), env))
        outs = lb.append("if", [pred], regions=regions, hints=[op.results[i].hint for i in linear])
        self.env.update(zip((op.results[i] for i in linear), outs))

    def nonlinear_if(
        self, frame: Frame, op: Op, pred: Value, plain: list[int], frames: list[Frame], saved: list[list[Value]]
    ) -> tuple[Value, ...]:
        """Emits the nonlinear ``if``; returns what stands for the saved values of both regions, in order."""
        cells = list(dict.fromkeys(c for fr in frames for c in fr.current))
        # A saved value of one region is unspecified after the other.
        types = [[packed_type(v.type) for v in vs] for vs in saved]
        regions = []
        for k, (fr, region) in enumerate(zip(frames, op.regions)):
            yields = [self.env[region.results[i]] for i in plain]
            for j, vs in enumerate(saved):
                yields += [pack(fr.b, v) if j == k else unspecified(fr.b, t) for v, t in zip(vs, types[j])]
            yields += [fr.get(c) for c in cells]
            regions.append(fr.b.finish(yields))
        hints = [op.results[i].hint for i in plain] + [v.hint for vs in saved for v in vs]
        outs = frame.b.append("if", [pred], regions=regions, hints=hints)
        self.env.update(zip((op.results[i] for i in plain), outs))
        n, m = len(plain), len(saved[0]) + len(saved[1])
        frame.current.update(zip(cells, outs[n + m :]))
        return outs[n : n + m]

    # -- loops -----------------------------------------------------------------------------------------------------

    def loop(self, frame: Frame, lb: Builder, op: Op) -> None:
        carried, inits = carried_values(op)
        plain, linear = self.parts(carried)
        static = _static_count(op)
        inner = Frame(frame, loop=True)
        inner.exact = frame.exact and static is not None
        most = self.trips.get(op) if static is None else static
        inner.trips = None if most is None or frame.trips is None else frame.trips * most
        if static is not None:
            inner.runs *= static
        else:
            inner.runs *= 0.5 * most if most is not None else UNKNOWN if frame.nearest_loop() is None else NESTED
        inner.counter = Value(INDEX, "k")
        args = [Value(_renamed(carried[i].type, self.env), carried[i].hint) for i in plain]
        for arg in args:
            self.carried.add(arg, inner.runs)
        total, inner.base = self.base(frame, static)
        self.env.update(zip((carried[i] for i in plain), args))
        linear_types = [_renamed(carried[i].type, self.env) for i in linear]
        inner_lb = Builder(linear_types, [carried[i].hint for i in linear], op.loc)
        self.env.update(zip((carried[i] for i in linear), inner_lb.args))
        body = op.regions[-1]
        if op.name == "for":
            self.env[body.args[0]] = inner.counter
        self.finished[op] = frame.runs, {}
        self.block(inner, inner_lb, body)
        block = inner_lb.finish([self.env[body.results[i]] for i in linear])
        is_local = not inner.current  # the tapes of the loops inside
        capacity = self.env[op.operands[0]] if op.name == "for" else None
        linear_body = self.linear_body(inner, block, args, capacity if frame.parent is None else None)
        yields = [self.env[body.results[i]] for i in plain]
        operands = [self.env[inits[i]] for i in plain]
        emit = self.nonlinear_for if op.name == "for" else self.nonlinear_while
        count, outs = emit(frame, inner, op, args, operands, yields)
        self.env.update(zip((op.results[i] for i in plain), outs))
        _, results = self.finished.pop(op)
        if results:
            linear_body = clone_block(linear_body, {v: self.env[op.results[i]] for i, v in results.items()})
        if total is not None:
            frame.current[total] = frame.b.add(frame.get(total), count)
        starts = [self.env[inits[i]] for i in linear]
        outs = lb.append("for", [count, *starts], regions=[linear_body], hints=[op.results[i].hint for i in linear])
        self.env.update(zip((op.results[i] for i in linear), outs))
        if op.name == "for" and frame.parent is None and is_local and not results:
            self.rounds[lb.ops[-1]] = Rounds(frame.b.ops[-1], block)

    def loop_again(self, frame: Frame, lb: Builder, op: Op) -> None:
        """A nested loop with tapes that are values of ``frame`` like others, which come from running it again."""
        local, inner_lb = Frame(runs=frame.runs), Builder(loc=op.loc)
        local.b = frame.b
        before = len(frame.b.ops)
        self.loop(local, inner_lb, op)
        self.again.update(frame.b.ops[before:])
        linear = [r for r in op.results if r in self.linear]
        finals = {cell.final: value for cell, value in local.current.items()}
        outs = lb.inline(inner_lb.finish([self.env[r] for r in linear]), (), finals)
        self.env.update(zip(linear, outs))

    def runs_again(self, frame: Frame, op: Op) -> bool:
        """Whether a loop in ``frame`` is nested, and its tapes would be long, where all is static in it or it is apart;
        or it leaves a sequence, as a derivative of a ``while`` does, of which no tape can have one for each round of
        the loop around."""
        if frame.nearest_loop() is None:
            return False
        if leaves_sequences(op):
            return True
        inside = list(walk(Block((), [op], ())))
        if op.name != "for" or any(inner.name == "while" or has_effect(inner) for inner in inside):
            return False
        most: float | None = _static_count(op)
        if any(inner.name == "for" and _static_count(inner) is None for inner in inside):
            if op not in self.apart or frame.begun > 1:
                return False
            most = self.trips.get(op, LONG) if most is None else most
        return frame.runs / frame.begun * (most or 0) >= LONG

    def once(self, frame: Frame) -> Callable[[Op], bool]:
        """Which operations of a region are not repeated in the linear part."""
        return lambda op: self.carried.better_in_parts(op, frame.runs)

    def base(self, frame: Frame, static: int | None) -> tuple[Cell | None, Value | None]:
        """Where the positions of a loop in ``frame`` begin, and the running total that must be kept for it, if any."""
        if frame.nearest_loop() is None:
            return None, None
        if static is not None:
            position = frame.position()
            assert position is not None
            return None, frame.b.mul(position, static)
        total = Cell(INDEX, Value(INDEX))
        return total, frame.get(total)

    def linear_body(self, inner: Frame, block: Block, args: list[Value], count: Value | None) -> Block:
        """Saves residuals in the nonlinear body ``inner``, and returns the linear body with the residuals read back."""
        assert inner.counter is not None
        b = Builder([INDEX, *(a.type for a in block.args)], ["k", *(a.hint for a in block.args)])
        env = {inner.counter: b.args[0]}
        known = [*args, *inner.entry.values()]
        needed = [v for v in free_values(block) if v is not inner.counter]
        choice = choose(inner.b.ops, known, needed, self.again, self.once(inner), self.instead)
        if choice.saved:
            b.loc = inner.b.loc
            before = len(inner.b.ops)
            position = inner.position()
            assert position is not None
            there = b.args[0] if inner.base is None else b.add(inner.base, b.args[0])
            for v in choice.saved:
                env[v] = inner.save(v, position, count)(b, there, env)
                env[v].hint = v.hint
            inner.b.ops = _early(inner.b.ops[:before], inner.b.ops[before:])
        return _close(b, choice.recomputed, block, b.args[1:], env)

    def nonlinear_for(
        self, frame: Frame, inner: Frame, op: Op, args: list[Value], inits: list[Value], yields: list[Value]
    ) -> tuple[Value, tuple[Value, ...]]:
        count = self.env[op.operands[0]]
        cells = list(inner.entry)
        assert inner.counter is not None
        region = Block(
            [inner.counter, *args, *(inner.entry[c] for c in cells)],
            inner.b.ops,
            yields + [inner.current[c] for c in cells],
        )
        operands = [count, *inits, *(frame.get(c) for c in cells)]
        outs = frame.b.append("for", operands, regions=[region], hints=[a.hint for a in args])
        frame.current.update(zip(cells, outs[len(args) :]))
        return count, outs[: len(args)]

    def nonlinear_while(
        self, frame: Frame, inner: Frame, op: Op, args: list[Value], inits: list[Value], yields: list[Value]
    ) -> tuple[Value, tuple[Value, ...]]:
        cells = list(inner.entry)
        assert inner.counter is not None
        one_more = inner.b.add(inner.counter, 1)
        region = Block(
            [inner.counter, *args, *(inner.entry[c] for c in cells)],
            inner.b.ops,
            [one_more, *yields, *(inner.current[c] for c in cells)],
        )
        cond = Builder([a.type for a in region.args], [a.hint for a in region.args], op.loc)
        plain, _ = self.parts(op.regions[1].args)
        env = dict(self.env)
        env.update(zip((op.regions[0].args[i] for i in plain), cond.args[1:]))
        for each in op.regions[0].ops:
            cond.clone(each, env)
        cond_block = cond.finish([env.get(v, v) for v in op.regions[0].results])
        operands = [frame.b.index(0), *inits, *(frame.get(c) for c in cells)]
        outs = frame.b.append("while", operands, regions=[cond_block, region], hints=[a.hint for a in region.args])
        frame.current.update(zip(cells, outs[1 + len(args) :]))
        return outs[0], outs[1 : 1 + len(args)]


def _trips(block: Block) -> dict[Op, int]:
    """How often loops run at most, where that is known but not the count."""
    if all(op.name != "for" or _static_count(op) is not None for op in walk(block)):
        return {}
    return {op: n for op, n in trip_bounds(block).items() if n <= LARGEST}


def _static_count(op: Op) -> int | None:
    if op.name == "for":
        source = op.operands[0].op
        if source is not None and source.name == "constant":
            return max(0, int(source.attrs["value"]))
    return None


def _renamed(t: TensorType, env: dict[Value, Value]) -> TensorType:
    return substitute(t, env)


def _early(ops: list[Op], saving: list[Op]) -> list[Op]:
    """``ops`` with each of the operations ``saving`` as soon as there is what it takes: before that is updated in
    place, which would have to copy it."""
    place = {r: n for n, op in enumerate(ops, 1) for r in op.results}
    after: dict[int, list[Op]] = {}
    for op in saving:
        n = max((place.get(v, 0) for v in op.uses()), default=0)
        place.update(dict.fromkeys(op.results, n))
        after.setdefault(n, []).append(op)
    return [each for n, op in enumerate([None, *ops]) for each in (*([op] if op else []), *after.get(n, ()))]


def _close(
    b: Builder,
    recomputed: Sequence[tuple[Op, Sequence[Value]]],
    block: Block,
    args: Sequence[Value],
    env: dict[Value, Value],
) -> Block:
    """A linear region: recomputed operations, then ``block``."""
    for op, results in recomputed:
        env.update(zip(results, b.clone(op, env)))
    return b.finish(b.inline(block, args, env))
