"""A `LaunchPlan` on a device: memory for its buffers, its steps in order, errors afterwards.

    program = Program(plan, device)
    run = program.run({0: pointer}, {1: raw bytes})
    run.results[k]                 an `Allocation` for each result that is not left in an argument
    run.check()                    waits, and raises what a check of the program asks for

A run waits for the device only where a step reads from it, or where a sequence may be too short; else it returns at
once and `check` comes later. All values that kernels are passed lie in one table; the parameters of every launch point
into it, so that a run fills the table and starts the kernels. A run of many launches that depend on nothing but the
table is recorded as a graph when its table comes a second time, and replayed from then on.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dflow.backends.cuda.launch.driver import Device, DeviceError, DeviceOutOfMemory
from dflow.backends.cuda.launch.execution import Execution
from dflow.backends.cuda.launch.graph import recordable, segments
from dflow.backends.cuda.launch.libraries import Libraries
from dflow.backends.cuda.launch.memory import Allocation, allocate, register_cache
from dflow.backends.cuda.launch.occupancy import block_size
from dflow.backends.cuda.launch.table import Table
from dflow.backends.cuda.plan import Dense, ErrorRecord, Launch, LaunchPlan, chosen, each_step
from dflow.backends.native.engine import raise_error


@dataclass
class Workspace:
    """Memory that a program keeps for its runs on one stream: by the number of the buffer."""

    memory: dict[int, Allocation]
    rows: dict[int, int]
    addresses: list[int]  # of all buffers; those of arguments and results are set for each run
    graphs: OrderedDict[tuple[int, bytes], Any] = field(default_factory=OrderedDict)
    room: Allocation | None = None  # for routines of libraries to work in

    def locate(self) -> None:
        """Brings ``addresses`` up to date."""
        for k, memory in self.memory.items():
            self.addresses[k] = memory.pointer


@dataclass
class Loaded:
    """What belongs to one context: the module, the kernels' functions and the sizes of their blocks."""

    generation: int
    module: Any
    functions: dict[str, Any]
    blocks: dict[str, int]
    workspaces: dict[int, Workspace] = field(default_factory=dict)

    def shape(self, s: Launch) -> tuple[int, int]:
        """The blocks of a launch, and their threads."""
        block = self.blocks[s.kernel]
        return s.grid * s.block // block, block


class Run:
    """The results of a run, and its error when it is known."""

    def __init__(self, program: Program, results: dict[int, Allocation], record: Any = None):
        self.program, self.results, self._record = program, results, record
        self._error: Exception | None = None

    @property
    def may_fail(self) -> bool:
        """Whether the end of the run may still bring an error."""
        return self._record is not None or self._error is not None

    def check(self) -> None:
        """Waits for the end of the run. Raises what a failed check asks for, each time again."""
        record, self._record = self._record, None
        if record is not None:
            try:
                self.program.raise_from(record.wait())
            except Exception as e:
                self._error = e
        if self._error is not None:
            raise self._error


class Program:
    """A compiled program on one device. Threads take turns."""

    def __init__(self, plan: LaunchPlan, device: Device):
        self.plan, self.device = plan, device
        self._lock = threading.RLock()
        self.table = Table(plan)
        self._loaded: Loaded | None = None
        self.steps, self.routines = plan.steps, [s for s in each_step(plan.steps) if isinstance(s, Dense)]
        device.activate()
        if self.routines:
            with_library = Libraries.of(device, device.stream) is not None
            self.steps = chosen(plan.steps, with_library)
            self.routines = self.routines if with_library else []
        self.segments = segments(self.steps, device)
        self.lengthens = any(b.kind == "sequence" for b in plan.buffers)
        self.fails = bool(plan.checks) or self.lengthens
        self.error = next((k for k, b in enumerate(plan.buffers) if b.kind == "error"), -1)
        self._arguments = [(k, b.index) for k, b in enumerate(plan.buffers) if b.kind == "argument"]
        self._results = [(k, b.index, b.size) for k, b in enumerate(plan.buffers) if b.kind == "result"]
        only = self.steps[0] if len(self.steps) == 1 else None
        self._only = only if isinstance(only, Launch) and not self.fails else None  # the short way of one kernel
        register_cache(self)

    def run(self, arrays: Mapping[int, int], scalars: Mapping[int, bytes], stream: int | None = None) -> Run:
        """Starts the program. ``arrays``: addresses of the arguments in memory; ``scalars``: the others, as bytes.

        The device's context must be current.
        """
        with self._lock:
            device = self.device
            loaded = self._load()
            stream = device.stream if stream is None else stream
            work = loaded.workspaces.get(stream) or self._workspace(loaded, stream)
            table = self.table
            for index, raw in scalars.items():
                table.set_scalar(index, raw)
            addresses = work.addresses.copy()
            for k, index in self._arguments:
                addresses[k] = arrays[index]
            results = {}
            for k, index, size in self._results:
                made = results[index] = allocate(device, size, stream)
                addresses[k] = made.pointer
            table.set_pointers(addresses)
            table.set_rows(work.rows)
            if self._only is not None:
                Execution(self, loaded, work, addresses, scalars, stream).launch(self._only)
                return Run(self, results)
            before = self._save(arrays, stream) if self.lengthens else {}
            while True:
                execution = Execution(self, loaded, work, addresses, scalars, stream)
                record = execution.start()
                if record is None or not self.waits:
                    return Run(self, results, record)
                what, *details = record.wait()
                short = ErrorRecord.short_sequence(what)
                if short is None:
                    run = Run(self, results)
                    self.raise_from((what, *details))
                    return run
                try:
                    self._lengthen(work, short, details[0], stream)
                except BaseException:
                    loaded.workspaces.pop(stream, None)  # a part of its memory is not there any more
                    raise
                loaded.workspaces[stream] = work  # where it was given up for the memory of others
                for k in work.memory:
                    addresses[k] = work.addresses[k]
                table.set_pointers(addresses)
                table.set_rows(work.rows)
                for index, copy in before.items():
                    self._copy(arrays[index], copy.pointer, copy.size, stream)

    @property
    def waits(self) -> bool:
        """Whether a run waits for the device before it returns."""
        return self.lengthens or not all(s.is_recorded or recordable(s.steps) for s in self.segments)

    def release(self) -> None:
        """Gives back the memory that is kept between runs, unless another thread is in one: that may wait for us."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._loaded is not None:
                if self._loaded.generation == self.device.generation:
                    for work in self._loaded.workspaces.values():
                        drop_graphs(work)
                self._loaded.workspaces.clear()
        finally:
            self._lock.release()

    def raise_from(self, record: Sequence[int]) -> None:
        """Raises the error that a record tells of, if it tells of one."""
        what, *details = record
        failed = ErrorRecord.failed_check(what)
        if failed is not None:
            raise_error(self.plan.checks, failed, tuple(details))
        if what:
            raise DeviceError(f"a run on {self.device} ended with the unknown error {what}")

    # --- loading

    def _load(self) -> Loaded:
        device = self.device
        if self._loaded is None or self._loaded.generation != device.generation:
            module = device.load(self.plan.ptx)
            names = dict.fromkeys(launch.kernel for launch in self.plan.launches)
            functions = {n: device.call("cuModuleGetFunction", module, n.encode()) for n in names}
            blocks = {s.kernel: block_size(device, functions[s.kernel], s) for s in self.plan.launches}
            self._loaded = Loaded(device.generation, module, functions, blocks)
        return self._loaded

    def __del__(self) -> None:
        loaded = getattr(self, "_loaded", None)
        if loaded is None or loaded.generation != self.device.generation:
            return
        cu = self.device.cu
        try:
            with self.device.current():  # unless there was a fault, which others shall hear of
                for stream, work in loaded.workspaces.items():
                    cu.cuStreamSynchronize(stream)
                    drop_graphs(work)
                cu.cuModuleUnload(loaded.module)
        except Exception:  # so too when the interpreter goes down, and the driver with it
            pass

    def libraries(self, stream: int) -> Libraries:
        """Those that do the routines. Raises DeviceError when they were there and are not any more."""
        found = Libraries.of(self.device, stream)
        if found is None:
            raise DeviceError(f"cuBLAS and cuSOLVER cannot be used any more on {self.device}")
        return found

    @property
    def functions(self) -> dict[str, Any]:
        """The driver's handles of the kernels."""
        self.device.activate()
        return self._load().functions

    def _workspace(self, loaded: Loaded, stream: int) -> Workspace:
        memory, rows = {}, {}
        for k, b in enumerate(self.plan.buffers):
            if b.kind in ("argument", "result"):
                continue
            rows[k] = b.rows
            memory[k] = allocate(self.device, b.size * b.rows, stream)
            if b.kind == "constant":
                self.device.call("cuMemcpyHtoDAsync", memory[k].pointer, b.data, len(b.data), stream)
            elif b.kind == "error":
                self.device.call("cuMemsetD8Async", memory[k].pointer, 0, b.size, stream)
        work = loaded.workspaces[stream] = Workspace(memory, rows, [0] * len(self.plan.buffers))
        if self.routines:
            libraries = self.libraries(stream)
            work.room = allocate(self.device, max(libraries.bytes(s) for s in self.routines), stream)
        work.locate()
        return work

    # --- sequences

    def _save(self, arrays: Mapping[int, int], stream: int) -> dict[int, Allocation]:
        """Copies of the arguments that a run writes, for a second run from the start."""
        saved = {}
        for b in self.plan.buffers:
            if b.kind == "argument" and b.writable:
                copy = saved[b.index] = allocate(self.device, b.size, stream)
                self._copy(copy.pointer, arrays[b.index], b.size, stream)
        return saved

    def _copy(self, to: int, source: int, size: int, stream: int) -> None:
        code = self.device.cu.cuMemcpyDtoDAsync(to, source, size, stream)[0]
        if code:
            raise self.device.failed(code, "a copy")

    def _lengthen(self, work: Workspace, k: int, rows: int, stream: int) -> None:
        """Makes room for ``rows`` rows (a power of two), and as many in the other sequences that take no more memory:
        most often they belong to one loop, and would be too short next. There is more room than that, for each time the
        run begins anew, unless there is no memory for more."""
        drop_graphs(work)
        buffers, least = self.plan.buffers, 1 << (rows - 1).bit_length()
        wanted = max(4 * work.rows[k], least)
        short = {
            other: work.rows[other]
            for other, b in enumerate(buffers)
            if b.kind == "sequence" and b.size <= buffers[k].size and work.rows[other] < wanted
        }
        for most in (wanted, least):
            for other, before in short.items():
                work.memory.pop(other, None)
                work.rows[other] = max(before, most)
            try:
                for other in short:
                    work.memory[other] = allocate(self.device, buffers[other].size * work.rows[other], stream)
                break
            except DeviceOutOfMemory:
                if most == least:
                    raise
        work.locate()


def drop_graphs(work: Workspace) -> None:
    for graph in work.graphs.values():
        if graph is not None:
            graph.destroy()
    work.graphs.clear()
