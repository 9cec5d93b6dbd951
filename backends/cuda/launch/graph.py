"""A run as a CUDA graph: one launch for many kernels, and loops whose conditions never leave the device.

    segments(steps, device)         what is recorded together, and what cannot be recorded
    graph = Graph(run, segment)     the steps as a chain of nodes, with the arguments of this run
    graph.launch(stream)            those of the table as it is now: nodes whose values have changed get the new ones
    Captured(run, segment)          by capturing, for steps that call libraries; it keeps its arguments

``While``, and an ``If`` whose condition is in device memory, become conditional nodes, which a kernel of one thread
sets through ``cudaGraphSetConditional``, a function of the driver's own. Drivers know them from CUDA 12.4 on. What is
inside of one is not given other arguments: such a graph is for one table, as a captured one is.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from dflow.backends.cuda.launch.driver import Device, DeviceError
from dflow.backends.cuda.launch.libraries import RECORDABLE
from dflow.backends.cuda.launch.table import SLOT
from dflow.backends.cuda.plan import Counter, Dense, ErrorRecord, If, Launch, Loop, Read, Scalar, Step, While, each_step

if TYPE_CHECKING:
    from dflow.backends.cuda.launch.execution import Execution

FIRST_DRIVER = 12040  # with conditional nodes
NON_BLOCKING = 1  # a stream that does not keep in step with the default stream
WORDS = SLOT // 8
SET_CONDITION = """\
.version 7.0
.target sm_80
.address_size 64
.extern .func cudaGraphSetConditional (.param .b64 handle, .param .b32 value);
.visible .entry set_condition(
    .param .u64 handle, .param .u64 condition, .param .u64 error, .param .u64 turned
)
{
    .reg .pred %p<3>;
    .reg .b16 %rs<2>;
    .reg .b32 %r<4>;
    .reg .b64 %rd<6>;
    ld.param.u64 %rd1, [handle];
    ld.param.u64 %rd2, [condition];
    ld.param.u64 %rd3, [error];
    ld.param.u64 %rd4, [turned];
    ld.global.u8 %rs1, [%rd2];
    cvt.u32.u16 %r1, %rs1;
    cvt.u32.u64 %r2, %rd4;
    xor.b32 %r1, %r1, %r2;
    setp.eq.u64 %p1, %rd3, 0;
    @%p1 bra $set;
    ld.global.u64 %rd5, [%rd3];
    setp.eq.u64 %p2, %rd5, 0;
    selp.b32 %r1, %r1, 0, %p2;
$set:
    {
    .param .b64 given;
    .param .b32 value;
    st.param.b64 [given], %rd1;
    st.param.b32 [value], %r1;
    call.uni cudaGraphSetConditional, (given, value);
    }
    ret;
}
"""

_setters: weakref.WeakKeyDictionary[Device, tuple[int, Any]] = weakref.WeakKeyDictionary()


def condition_setter(device: Device) -> Any:
    """The kernel that sets a condition; None where the driver has no conditional nodes."""
    generation, found = _setters.get(device, (-1, None))
    if generation != device.generation:
        found = None
        if device.driver.version >= FIRST_DRIVER and hasattr(device.cu, "cuGraphConditionalHandleCreate"):
            try:
                found = device.call("cuModuleGetFunction", device.load(SET_CONDITION), b"set_condition")
            except DeviceError:
                found = None
        _setters[device] = device.generation, found
    return found


def recordable(steps: Sequence[Step], conditions: bool = False) -> bool:
    """Whether the host reads nothing from the device while the steps run; with ``conditions``, where conditional nodes
    read the conditions."""
    for s in steps:
        if isinstance(s, While):
            if not conditions or not recordable((*s.before, *s.body), True):
                return False
        elif isinstance(s, If):
            if (isinstance(s.condition, Read) and not conditions) or not recordable(
                (*s.then, *s.otherwise), conditions
            ):
                return False
        elif isinstance(s, Loop):
            if isinstance(s.count, Read) or not recordable(s.body, conditions):
                return False
        elif not isinstance(s, Launch | Dense):
            return False
    return True


@dataclass
class Segment:
    """Steps that are recorded together, or that are not recorded."""

    number: int
    steps: tuple[Step, ...]
    is_recorded: bool
    has_conditions: bool = False  # in device memory, for conditional nodes
    has_routines: bool = False
    counted: tuple[bytes, int] | None = None  # what decides, and how many nodes there are then

    @property
    def is_fixed(self) -> bool:
        """Whether its graphs cannot be given other arguments."""
        return self.has_conditions or self.has_routines

    @cached_property
    def deciding(self) -> list[int]:
        """The scalar arguments that counts and conditions are."""
        loops = [s.count for s in each_step(self.steps) if isinstance(s, Loop)]
        branches = [s.condition for s in each_step(self.steps) if isinstance(s, If)]
        return sorted({x.index for x in (*loops, *branches) if isinstance(x, Scalar)})


def segments(steps: Sequence[Step], device: Device) -> list[Segment]:
    """Cuts steps into what can be recorded and what cannot. Libraries and conditional nodes do not go together."""
    made: list[Segment] = []
    for s in steps:
        plain = recordable((s,))
        routines = [r for r in each_step((s,)) if isinstance(r, Dense)]
        conditions = not plain and not routines and recordable((s,), True) and condition_setter(device) is not None
        good = conditions or (plain and all(r.routine in RECORDABLE for r in routines))
        last = made[-1] if made else None
        clash = last and ((last.has_conditions and routines) or (last.has_routines and conditions))
        if last is None or last.is_recorded != good or clash:
            last = Segment(len(made), (), good)
            made.append(last)
        last.steps += (s,)
        last.has_conditions |= conditions
        last.has_routines |= bool(routines)
    return made


@dataclass(slots=True)
class _Node:
    """A kernel in a graph: where its values stand in the table, and the counters of the loops around it."""

    handle: Any
    params: Any
    slots: frozenset[int]
    counters: dict[int, int]


class Graph:
    """A chain of nodes."""

    def __init__(self, run: Execution, segment: Segment):
        self.device, self.table, self.name = run.device, run.table, run.program.plan.name
        self.generation = self.device.generation
        self.nodes: list[_Node] = []
        self.kept: list[Any] = []  # memory that parameters lie in
        self._seen: bytes | None = self.table.key()
        self.graph = self.device.call("cuGraphCreate", 0)
        self.executable: Any = None
        try:
            chain = _Chain(self, self.graph, run)
            if run.clears(segment):
                chain.clear_error()
            chain.steps(segment.steps)
            self.executable = self.device.call("cuGraphInstantiate", self.graph, 0)
        except BaseException:
            self.destroy()
            raise
        self.table.key()  # the counters are where they began

    def launch(self, stream: int) -> None:
        """Starts it with the values of the table."""
        key = self.table.key()
        if key != self._seen:
            self._update(key)
        code = self.device.cu.cuGraphLaunch(self.executable, stream)[0]
        if code:
            raise self.device.failed(code, self.name)

    def _update(self, key: bytes) -> None:
        new, before, self._seen = np.frombuffer(key, np.int64), self._seen, None  # unknown until all is up to date
        words = np.ones(len(new), bool) if before is None else new != np.frombuffer(before, np.int64)
        changed = {k // WORDS for k in np.flatnonzero(words).tolist()}
        set_params, table = self.device.cu.cuGraphExecKernelNodeSetParams, self.table
        for node in self.nodes:
            if changed.isdisjoint(node.slots):
                continue
            for loop, k in node.counters.items():
                table.set_counter(loop, k)
            code = set_params(self.executable, node.handle, node.params)[0]
            if code:
                raise self.device.failed(code, f"new arguments for the graph of {self.name}")
        self._seen = key
        table.key()

    def destroy(self) -> None:
        if self.executable is not None:
            self.device.give_back(self.generation, "cuGraphExecDestroy", self.executable)
        self.device.give_back(self.generation, "cuGraphDestroy", self.graph)


class _Chain:
    """Adds nodes to a graph, or to the body of a conditional node, each behind the last."""

    def __init__(self, owner: Graph, graph: Any, run: Execution):
        self.owner, self.graph, self.run = owner, graph, run
        self.device, self.cu = owner.device, owner.device.cu
        self.last: list[Any] = []

    def clear_error(self) -> None:
        p = self.cu.CUDA_MEMSET_NODE_PARAMS()
        p.dst, p.value, p.elementSize = self.run.addresses[self.run.program.error], 0, 1
        p.width, p.height, p.pitch = ErrorRecord.SIZE, 1, ErrorRecord.SIZE
        call, context = self.device.call, self.device.context
        self.last = [call("cuGraphAddMemsetNode", self.graph, self.last, len(self.last), p, context)]

    def steps(self, steps: Sequence[Step]) -> None:
        for s in steps:
            if isinstance(s, Launch):
                self._launch(s)
            elif isinstance(s, Loop):
                for k in range(self.run.value(s.count)):
                    self.run.count(s.number, k)
                    self.steps(s.body)
            elif isinstance(s, While):
                self.steps(s.before)
                handle = self._condition(s.condition)
                inside = self._conditional(handle, "WHILE")
                inside.steps((*s.body, *s.before))
                inside.set(handle, s.condition)
            else:
                assert isinstance(s, If)
                self._if(s)

    def _if(self, s: If) -> None:
        if not isinstance(s.condition, Read):
            self.steps(s.then if self.run.value(s.condition) else s.otherwise)
            return
        parts = [(part, turned) for part, turned in ((s.then, 0), (s.otherwise, 1)) if part]
        handles = [self._condition(s.condition, turned) for _, turned in parts]  # all, before a part changes it
        for handle, (part, _) in zip(handles, parts):
            self._conditional(handle, "IF").steps(part)

    def _launch(self, s: Launch) -> None:
        table, counters = self.run.table, self.run.counters
        around = {a.loop: counters[a.loop] for a in s.args if isinstance(a, Counter)}
        loaded = self.run.loaded
        p = self._kernel(loaded.functions[s.kernel], *loaded.shape(s), s.shared, table.params(s))
        slots = frozenset(table.slots[a] for a in s.args if not isinstance(a, Counter))
        self.owner.nodes.append(_Node(self.last[0], p, slots, around))

    def _kernel(self, function: Any, grid: int, block: int, shared: int, params: int) -> Any:
        p = self.cu.CUDA_KERNEL_NODE_PARAMS()
        p.func, p.gridDimX, p.gridDimY, p.gridDimZ = function, grid, 1, 1
        p.blockDimX, p.blockDimY, p.blockDimZ, p.sharedMemBytes = block, 1, 1, shared
        p.kernelParams = params
        self.last = [self.device.call("cuGraphAddKernelNode", self.graph, self.last, len(self.last), p)]
        return p

    # --- conditions

    def _condition(self, read: Read, turned: int = 0) -> Any:
        """A handle that is set from device memory; ``turned``: to the contrary."""
        handle = self.device.call("cuGraphConditionalHandleCreate", self.graph, self.device.context, 0, 0)
        self.set(handle, read, turned)
        return handle

    def set(self, handle: Any, read: Read, turned: int = 0) -> None:
        program, addresses = self.run.program, self.run.addresses
        error = addresses[program.error] if program.fails else 0
        values = np.array([int(handle), addresses[read.buffer] + read.offset, error, turned], np.uint64)
        pointers = values.ctypes.data + np.arange(len(values), dtype=np.uint64) * np.uint64(8)
        self.owner.kept += [values, pointers]
        self._kernel(condition_setter(self.device), 1, 1, 0, pointers.ctypes.data)

    def _conditional(self, handle: Any, kind: str) -> _Chain:
        """The body of a new conditional node."""
        p = self.cu.CUgraphNodeParams()
        p.type = self.cu.CUgraphNodeType.CU_GRAPH_NODE_TYPE_CONDITIONAL
        conditional = p.conditional
        conditional.handle, conditional.size, conditional.ctx = handle, 1, self.device.context
        conditional.type = getattr(self.cu.CUgraphConditionalNodeType, f"CU_GRAPH_COND_TYPE_{kind}")
        # The package for CUDA 12 has an older function by the plain name.
        add = "cuGraphAddNode_v2" if hasattr(self.cu, "cuGraphAddNode_v2") else "cuGraphAddNode"
        self.last = [self.device.call(add, self.graph, self.last, None, len(self.last), p)]
        self.owner.kept.append(p)
        return _Chain(self.owner, p.conditional.phGraph_out[0], self.run)


class Captured:
    """What a stream was given, as a graph.

    The stream is one of its own that nothing else is done on, and that the default stream does not wait for. So other
    threads may go on meanwhile, and so may memory be given back at any time.
    """

    def __init__(self, run: Execution, segment: Segment):
        self.device, self.name = run.device, run.program.plan.name
        self.generation = generation = self.device.generation
        call, mode = run.device.call, run.cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
        stream = int(call("cuStreamCreate", NON_BLOCKING))
        try:
            graph = self._capture(run, segment, stream, mode)
            try:
                self.executable = call("cuGraphInstantiate", graph, 0)
            finally:
                run.device.give_back(generation, "cuGraphDestroy", graph)
        finally:
            run.device.give_back(generation, "cuStreamDestroy", stream)

    def _capture(self, run: Execution, segment: Segment, stream: int, mode: Any) -> Any:
        usual, call = run.stream, run.device.call
        with run.libraries.elsewhere(stream):
            call("cuStreamBeginCapture", stream, mode)
            run.stream = stream
            try:
                run.enqueue(segment)
            except BaseException:
                run.device.give_back(self.generation, "cuStreamEndCapture", stream)
                raise
            finally:
                run.stream = usual
            return call("cuStreamEndCapture", stream)

    def launch(self, stream: int) -> None:
        code = self.device.cu.cuGraphLaunch(self.executable, stream)[0]
        if code:
            raise self.device.failed(code, self.name)

    def destroy(self) -> None:
        self.device.give_back(self.generation, "cuGraphExecDestroy", self.executable)
