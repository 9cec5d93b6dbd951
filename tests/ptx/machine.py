"""Kernels run: all threads of a launch in lock-step, by groups of threads that are at one place.

The group furthest behind in the program goes first, so that threads that parted at a branch meet again where the ways
join. Threads at a barrier, or at an instruction for a whole warp, wait until all that belong to it are there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ptx import collectives
from ptx.access import WINDOWS, MemoryOfThreads
from ptx.collectives import Waiting
from ptx.faults import Deadlock, IllegalInstruction, PtxFault
from ptx.frames import Frame, Operands, garbage
from ptx.instructions import compiled
from ptx.memory import WRITTEN, Heap, Space
from ptx.parser import Block, Function, Instruction, Module, Variable, parse
from ptx.races import Races, Threads
from ptx.values import Array, type_named

MAX_LANES = 1 << 15  # blocks beyond run afterwards
_TERMINATORS = ("bra", "brx", "ret", "exit")


class Code:
    """A function whose instructions are functions of a frame. ``symbols``: addresses of what has a name."""

    def __init__(self, function: Function, symbols: dict[str, int]):
        self.function = function
        self.symbols = dict(symbols)
        self.param_bytes = 0
        self.is_caller = any(v.space == "param" for v in function.variables.values())
        for v in (*function.params, *function.returns, *function.variables.values()):
            if v.space == "param":
                self.param_bytes = -(-self.param_bytes // v.align) * v.align
                self.symbols[v.name] = self.param_bytes
                self.param_bytes += v.bytes
        self.register_types = list(function.registers.values())
        operands = Operands(function, self.symbols)
        self.blocks = [_CodeBlock(b, operands, k) for k, b in enumerate(function.blocks)]


class _CodeBlock:
    def __init__(self, block: Block, o: Operands, position: int):
        self.sources = list(block.body)
        self.body = []
        self.end: Any = lambda run, flow, f: flow.go(position + 1, f.active)
        for i in block.body:
            if i.parts[0] in _TERMINATORS:
                self.end = _terminator(i, o, position)
            elif i.parts[0] in collectives.NAMES:
                self.end = collectives.compiled(i, o, position)
            else:
                self.body.append(compiled(i, o))


def _terminator(i: Instruction, o: Operands, position: int) -> Any:
    if i.parts[0] == "brx":
        get = o.get(i.operands[0], type_named("u32"))
        targets = [o.function.labels[t] for t in o.function.tables[i.operands[1]]]

        def by_table(run: Run, flow: Flow, f: Frame) -> None:
            index, lanes = get(f), f.threads()
            for k in np.unique(index):
                flow.go(targets[k], lanes[index == k])

        return by_table
    target = o.function.labels[i.operands[0]] if i.parts[0] == "bra" else None
    if i.guard is None:
        return lambda run, flow, f: flow.go(target, f.active)
    guard = o.get(i.guard, type_named("pred"))

    def branch(run: Run, flow: Flow, f: Frame) -> None:
        taken = guard(f)
        count = np.count_nonzero(taken)
        if count == len(taken):
            flow.go(target, f.active)
        elif count == 0:
            flow.go(position + 1, f.active)
        else:
            lanes = f.threads()
            flow.go(target, lanes[taken])
            flow.go(position + 1, lanes[~taken])

    return branch


class Flow:
    """Which threads are at which block of a function. None stands for all threads of the run."""

    def __init__(self, lanes: Array | None, count: int):
        self.groups: dict[int, Array | None] = {0: lanes}
        self.count = count
        self.waiting: dict[int, Waiting] = {}
        self.left: list[Array | None] = []  # threads that returned

    def go(self, position: int | None, lanes: Array | None) -> None:
        """Sends threads to a block; None is the end."""
        if position is None:
            self.left.append(lanes)
            return
        if position not in self.groups:
            self.groups[position] = lanes
            return
        other = self.groups[position]
        assert lanes is not None and other is not None
        merged = np.sort(np.concatenate([lanes, other]))
        self.groups[position] = None if len(merged) == self.count else merged


class Run(MemoryOfThreads):
    """One launch of (some of) the blocks of a grid."""

    def __init__(self, machine: Machine, threads: Threads, dynamic_shared: int, granules: dict[str, int]):
        self.machine, self.heap, self.threads = machine, machine.heap, threads
        self.all_lanes = np.arange(threads.count)
        blocks = len(threads.barrier_time)
        self.shared = Space("shared", machine.shared_bytes + dynamic_shared, blocks)
        self.local = Space("local", machine.local_bytes, threads.count, garbage=True)
        self.races: dict[str, Any] = {}
        if threads.count > 1 and machine.check_races:
            for name, size in (("global", machine.heap.high), ("shared", len(self.shared.data))):
                granule = granules[name]
                self.races[name] = Races(name, -(-size // granule) + 1, threads, granule)
        self._garbage: dict[str, Array] = {}

    def garbage(self, kind: str) -> Array:
        if kind not in self._garbage:
            self._garbage[kind] = garbage(self.threads.count, kind)
        return self._garbage[kind]

    def execute(self, code: Code, f: Frame, lanes: Array | None) -> None:
        """Runs the threads ``lanes`` through a function."""
        flow = Flow(lanes, self.threads.count)
        machine = self.machine
        while flow.groups or flow.waiting:
            if not flow.groups:
                self._stuck(code, flow)
            position = min(flow.groups)
            f.active = flow.groups.pop(position)
            block = code.blocks[position]
            step: Any = None
            try:
                for step in block.body:
                    step(f)
                step = None
                block.end(self, flow, f)
            except PtxFault as e:
                raise self._located(e, code, block, step, f) from None
            machine.steps += 1
            if machine.steps > machine.max_steps:
                raise Deadlock(f"{code.function.name} does not end: {machine.steps} blocks of code were run")

    def _located(self, e: PtxFault, code: Code, block: _CodeBlock, step: Any, f: Frame) -> PtxFault:
        k = len(block.body) if step is None else block.body.index(step)
        i = block.sources[min(k, len(block.sources) - 1)]
        lanes = f.threads()
        who = "" if e.lane is None or e.lane >= len(lanes) else f", {self.threads.name(int(lanes[e.lane]))}"
        return e.locate(f"{code.function.name}, line {i.line}: `{i.text}`{who}")

    def _stuck(self, code: Code, flow: Flow) -> None:
        for position, waiting in flow.waiting.items():
            lanes = waiting.lanes
            i = code.blocks[position].sources[-1]
            raise Deadlock(
                f"{code.function.name}, line {i.line}: `{i.text}`, {self.threads.name(int(lanes[0]))} and "
                f"{len(lanes) - 1} others wait for threads that never come there"
            )


class Machine:
    """A loaded module. ``max_steps`` bounds the blocks of code that all launches together may run."""

    def __init__(self, text: str, heap: Heap | None = None, *, check_races: bool = True, max_steps: int = 50_000_000):
        self.module: Module = parse(text)
        self.heap = heap or Heap()
        self.check_races, self.max_steps = check_races, max_steps
        self.steps = 0
        self.shared_bytes = self.local_bytes = 0
        self.symbols: dict[str, int] = {}
        for v in (*self.module.variables.values(), *_inner(self.module)):
            self._place(v)
        self.dynamic = [v.name for v in self.module.variables.values() if v.space == "shared" and not v.count]
        self._codes: dict[str, Code] = {}
        self.granules = _granules(self.module)
        self.external: dict[str, Callable[..., None]] = {}  # of numbers, one thread

    def code(self, name: str) -> Code:
        if name not in self._codes:
            function = self.module.functions.get(name)
            if function is None or not function.blocks:
                raise IllegalInstruction(f"there is no code of {name}")
            self._codes[name] = Code(function, self.symbols)
        return self._codes[name]

    @property
    def most_shared(self) -> int:
        """The most bytes of the memory of a block that a kernel names, with the functions that it calls."""
        sizes = {v.name: v.bytes for v in self.module.variables.values() if v.space == "shared"}
        sizes |= {v.name: v.bytes for v in _inner(self.module) if v.space == "shared"}
        names = {f.name: _names(f) for f in self.module.functions.values()}
        most = 0
        for f in self.module.functions.values():
            seen = set(names[f.name])
            while more := {n for g in seen & names.keys() for n in names[g]} - seen:
                seen |= more
            most = max(most, sum(sizes[n] for n in seen & sizes.keys()) if f.is_entry else 0)
        return most

    def unload(self) -> None:
        """Gives back the memory of the module's variables."""
        for v in self.module.variables.values():
            if v.space in ("global", "const"):
                self.heap.free(self.symbols[v.name])

    def launch(
        self,
        kernel: str,
        grid: int | tuple[int, int, int],
        block: int | tuple[int, int, int],
        args: Sequence[bytes],
        shared: int = 0,
    ) -> None:
        """Runs a kernel to its end. ``args`` are the parameters as bytes. Raises PtxFault."""
        code = self.code(kernel)
        function = code.function
        grid, block = _three(grid), _three(block)
        if not function.is_entry:
            raise IllegalInstruction(f"{kernel} is no kernel")
        if len(args) != len(function.params):
            raise IllegalInstruction(f"{kernel} takes {len(function.params)} parameters, got {len(args)}")
        size = int(np.prod(block))
        if function.max_threads is not None and size > function.max_threads:
            raise IllegalInstruction(f"{kernel} takes at most {function.max_threads} threads a block, got {size}")
        blocks = np.arange(int(np.prod(grid)))
        per_run = max(1, MAX_LANES // size)
        for start in range(0, len(blocks), per_run):
            threads = Threads(grid, block, blocks[start : start + per_run])
            run = Run(self, threads, shared, self.granules)
            f = Frame(code, run, None)
            for v, arg in zip(function.params, args):
                if len(arg) != v.bytes:
                    raise IllegalInstruction(f"{kernel}: parameter {v.name} has {v.bytes} bytes, got {len(arg)}")
                at = slice(code.symbols[v.name], code.symbols[v.name] + v.bytes)
                f.params.rows(f.params.data)[:, at] = np.frombuffer(arg, np.uint8)
                f.params.rows(f.params.state)[:, at] |= WRITTEN
            with np.errstate(all="ignore"):
                run.execute(code, f, None)

    def _place(self, v: Variable) -> None:
        if v.space == "shared":
            self.shared_bytes = -(-self.shared_bytes // v.align) * v.align
            self.symbols[v.name] = self.shared_bytes
            self.shared_bytes += v.bytes
        elif v.space == "local":
            self.local_bytes = -(-self.local_bytes // v.align) * v.align
            self.symbols[v.name] = self.local_bytes
            self.local_bytes += v.bytes
        elif v.space in ("global", "const"):
            zeros = ("0",) * (v.count - len(v.values))
            values = np.array([self._value(x, v) for x in (*v.values, *zeros)], np.uint64)
            content = values.astype(type_named(f"u{8 * v.width}").raw).tobytes()
            self.symbols[v.name] = self.heap.place(content, v.name, constant=v.space == "const")

    def _value(self, text: str, v: Variable) -> int:
        name = text.removeprefix("generic(").rstrip(")")
        if name in self.symbols:
            of = self.module.variables[name]
            return self.symbols[name] + WINDOWS.get(of.space, 0)
        return int(text, 0) % (1 << 8 * v.width)


def _inner(module: Module) -> list[Variable]:
    """Variables declared within functions, which have one place each: nothing here is recursive."""
    found = [v for f in module.functions.values() for v in f.variables.values() if v.space != "param"]
    module.variables.update({v.name: v for v in found if v.space in ("global", "const")})
    return found


def _names(f: Function) -> set[str]:
    """The names in the code of a function."""
    return {n for b in f.blocks for i in b.body for o in i.operands for n in re.findall(r"[\w$.]+", o)}


def _granules(module: Module) -> dict[str, int]:
    """The smallest access to each space, in bytes."""
    out = {"global": 8, "shared": 8}
    for f in module.functions.values():
        for i in (i for b in f.blocks for i in b.body):
            if i.parts[0] in ("ld", "st", "atom", "red", "ldu"):
                width = max(1, type_named(i.parts[-1]).bytes)
                for name in out:
                    if name in i.parts or not {"global", "shared", "local", "param", "const"} & set(i.parts):
                        out[name] = min(out[name], width)
    return out


def _three(x: int | tuple[int, int, int]) -> tuple[int, int, int]:
    return (x, 1, 1) if isinstance(x, int) else x
