"""One pass through the steps of a plan: launches, graphs, loops and branches of the host."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dflow.backends.cuda.launch.driver import DeviceError, DeviceOutOfMemory, KernelFault
from dflow.backends.cuda.launch.graph import Captured, Graph, Segment
from dflow.backends.cuda.launch.libraries import Libraries
from dflow.backends.cuda.launch.records import Records
from dflow.backends.cuda.launch.timeline import active
from dflow.backends.cuda.plan import (
    Counter,
    Dense,
    ErrorRecord,
    HostCall,
    If,
    Launch,
    Loop,
    Place,
    Read,
    Scalar,
    Step,
    While,
    buffer_bytes,
)
from dflow.backends.native.generation import compile_function
from dflow.ir.core import Function

if TYPE_CHECKING:
    from dflow.backends.cuda.launch.runtime import Loaded, Program, Workspace

GRAPHS = 8  # kept for one program
LONGEST_GRAPH = 4096  # launches
MANY = 1 << 20  # stands for a number that is not looked into


class _Failed(Exception):
    """A step read memory after an error."""


class Execution:
    """One pass through the steps."""

    def __init__(
        self,
        program: Program,
        loaded: Loaded,
        work: Workspace,
        addresses: Sequence[int],
        scalars: Mapping[int, bytes],
        stream: int,
    ):
        self.program, self.device, self.cu = program, program.device, program.device.cu
        self.loaded, self.work, self.addresses, self.scalars = loaded, work, addresses, scalars
        self.stream = stream
        self.table = program.table
        self.counters: dict[int, int] = {}

    @functools.cached_property
    def libraries(self) -> Libraries:
        """Those that do the routines, with the handles of the stream that this pass began with."""
        return self.program.libraries(self.stream)

    def start(self) -> Any:
        """Enqueues all work; the record that will hold the error, or None when there can be none."""
        program = self.program
        try:
            for segment in program.segments:
                if segment.is_recorded and active() is None and 2 <= self._nodes(segment) <= LONGEST_GRAPH:
                    self._replay(segment)
                else:
                    self.enqueue(segment)
        except _Failed:
            pass
        if not program.fails:
            return None
        record = Records.of(self.device).take(self.stream)
        self._do("cuMemcpyDtoHAsync", record.address, self.addresses[program.error], ErrorRecord.SIZE, self.stream)
        return record

    def clears(self, segment: Segment) -> bool:
        """Whether the error is cleared first."""
        return self.program.fails and segment.number == 0

    def enqueue(self, segment: Segment) -> None:
        """Gives the stream one step after the other."""
        if self.clears(segment):
            self._do("cuMemsetD8Async", self.addresses[self.program.error], 0, ErrorRecord.SIZE, self.stream)
        self._steps(segment.steps)

    def _do(self, name: str, *args: Any) -> None:
        code = getattr(self.cu, name)(*args)[0]
        if code:
            raise self.device.failed(code, self.program.plan.name)

    # --- graphs

    def _nodes(self, segment: Segment) -> int:
        """How many nodes there are at least; as many as last time where the same numbers decide."""
        deciding = self._deciding(segment)
        if segment.counted is None or segment.counted[0] != deciding:
            segment.counted = deciding, self._count(segment.steps)
        return segment.counted[1]

    def _deciding(self, segment: Segment) -> bytes:
        return b"".join([self.scalars[k] for k in segment.deciding])

    def _count(self, steps: Sequence[Step]) -> int:
        """How many nodes there are at least; loops count each round."""
        total = 0
        for s in steps:
            if isinstance(s, Loop):
                assert not isinstance(s.count, Read)
                total += max(0, self.value(s.count)) * self._count(s.body) if not isinstance(s.count, Counter) else MANY
            elif isinstance(s, If) and not isinstance(s.condition, Read):
                total += self._count(s.then if self.value(s.condition) else s.otherwise)
            elif isinstance(s, While | If):
                total += 2 + self._count((*s.then, *s.otherwise) if isinstance(s, If) else (*s.before, *s.body))
            else:
                total += 1
        return total

    def _replay(self, segment: Segment) -> None:
        """Launches the graph of such a run. The first run only leaves a note, for most programs run once; the second
        makes the graph. Where the device decides, a run without a graph would wait for it, so there is one at once."""
        graphs, key = self.work.graphs, (segment.number, self._kind(segment))
        graph = graphs.get(key)
        if graph is None:
            first = key not in graphs
            graphs[key] = None
            if len(graphs) > GRAPHS * len(self.program.segments):
                old = graphs.popitem(last=False)[1]
                if old is not None:
                    old.destroy()
            if first and not segment.has_conditions:
                self.enqueue(segment)
                return
            try:
                graph = graphs[key] = (Captured if segment.has_routines else Graph)(self, segment)
            except KernelFault:
                raise
            except DeviceError as e:
                # There is no memory for it now, or it has something that cannot be recorded.
                segment.is_recorded = isinstance(e, DeviceOutOfMemory)
                self.enqueue(segment)
                return
        graphs.move_to_end(key)
        graph.launch(self.stream)

    def _kind(self, segment: Segment) -> bytes:
        """What runs have in common that one graph does."""
        if segment.is_fixed:
            return self.table.key() + np.array(self.addresses, np.uint64).tobytes()
        return self._deciding(segment)

    # --- steps

    def _steps(self, steps: Sequence[Step]) -> None:
        for step in steps:
            _STEPS[type(step)](self, step)

    def launch(self, s: Launch) -> None:
        timeline = active()
        before = timeline.begin(self.device, self.stream) if timeline else None
        f = self.loaded.functions[s.kernel]
        params, (grid, block) = self.table.params(s), self.loaded.shape(s)
        code = self.cu.cuLaunchKernel(f, grid, 1, 1, block, 1, 1, s.shared, self.stream, params, 0)[0]
        if code:
            raise self.device.failed(code, self._what(s))
        if timeline:
            timeline.end(self.device, self.stream, before, s.kernel, self._what(s))

    def _dense(self, s: Dense) -> None:
        timeline = active()
        before = timeline.begin(self.device, self.stream) if timeline else None
        room = self.work.room
        assert room is not None
        addresses = [self.addresses[p.buffer] + p.offset for p in s.memory]
        self.libraries.run(s, addresses, room.pointer, room.size)
        if timeline:
            timeline.end(self.device, self.stream, before, s.routine, f"{s.dtype}{list(s.sizes)}")

    def _what(self, s: Launch) -> str:
        for k in self.program.plan.kernels:
            if k.name == s.kernel:
                place = f" at {k.location}" if k.location else ""
                return f"the kernel {k.name} of {self.program.plan.name} ({k.what}{place})"
        return f"the kernel {s.kernel}"

    def _if(self, s: If) -> None:
        self._steps(s.then if self.value(s.condition) else s.otherwise)

    def _loop(self, s: Loop) -> None:
        for k in range(int(self.value(s.count))):
            self.count(s.number, k)
            self._steps(s.body)

    def count(self, loop: int, k: int) -> None:
        """Begins round ``k`` of a loop."""
        self.counters[loop] = k
        self.table.set_counter(loop, k)

    def _while(self, s: While) -> None:
        self._steps(s.before)
        while self.value(s.condition):
            self._steps(s.body)
            self._steps(s.before)

    def value(self, x: Any) -> int:
        """A condition or a count."""
        if isinstance(x, int):
            return x
        if isinstance(x, Counter):
            return self.counters[x.loop]
        if isinstance(x, Scalar):
            return int(np.frombuffer(self.scalars[x.index], x.dtype.numpy)[0])
        found = self._fetch(x.buffer, x.offset, x.dtype.numpy, 1)
        return int(found[0])

    def _fetch(self, buffer: int, offset: int, dtype: Any, count: int) -> np.ndarray[Any, Any]:
        """Numbers in device memory. Raises _Failed when there was an error before."""
        program = self.program
        out = np.empty(count, dtype)
        if out.nbytes:
            source = self.addresses[buffer] + offset
            self._do("cuMemcpyDtoHAsync", out.ctypes.data, source, out.nbytes, self.stream)
        error = np.zeros(4, np.int64)
        if program.fails:
            at = self.addresses[program.error]
            self._do("cuMemcpyDtoHAsync", error.ctypes.data, at, ErrorRecord.SIZE, self.stream)
        self._do("cuStreamSynchronize", self.stream)
        if error[0]:
            raise _Failed
        return out

    def _host_call(self, s: HostCall) -> None:
        inputs: list[Any] = []
        for x in s.inputs:
            if isinstance(x, Place):
                flat = self._fetch(x.buffer, x.offset, x.type.dtype.numpy, int(np.prod(x.type.bound, dtype=np.int64)))
                inputs.append(flat.reshape(x.type.bound))
            elif isinstance(x, Scalar):
                inputs.append(np.frombuffer(self.scalars[x.index], x.dtype.numpy)[0])
            else:
                inputs.append(np.int64(self.value(x)))
        results = _on_host(s.function)(*inputs)
        for place, value in zip(s.outputs, results):
            array = np.ascontiguousarray(value, place.type.dtype.numpy)
            assert array.nbytes <= buffer_bytes(place.type)
            if array.nbytes:
                to = self.addresses[place.buffer] + place.offset
                self._do("cuMemcpyHtoDAsync", to, array.ctypes.data, array.nbytes, self.stream)
        self._do("cuStreamSynchronize", self.stream)  # the results live no longer than this


@functools.lru_cache(maxsize=256)
def _on_host(f: Function) -> Callable[..., tuple[Any, ...]]:
    return compile_function(f)


_STEPS: dict[type, Callable[[Execution, Any], None]] = {
    Launch: Execution.launch,
    If: Execution._if,
    Loop: Execution._loop,
    While: Execution._while,
    HostCall: Execution._host_call,
    Dense: Execution._dense,
}
