"""The graphs of a `FakeDriver`: nodes with what they depend on, and conditional nodes with graphs of their own."""

from __future__ import annotations

import enum
import threading
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ptx.driver_types import CUresult, CUstreamCaptureMode

INVALID = CUresult.CUDA_ERROR_INVALID_VALUE
NON_BLOCKING = 1
MOST_ROUNDS = 100_000


class CUgraphNodeType(enum.IntEnum):
    CU_GRAPH_NODE_TYPE_CONDITIONAL = 13


class CUgraphConditionalNodeType(enum.IntEnum):
    CU_GRAPH_COND_TYPE_IF = 0
    CU_GRAPH_COND_TYPE_WHILE = 1


class Fields:
    """A structure: only the fields that it has can be set."""

    names: tuple[str, ...] = ()

    def __init__(self) -> None:
        for name in self.names:
            object.__setattr__(self, name, 0)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.names:
            raise AttributeError(f"{type(self).__name__} has no field {name}")
        object.__setattr__(self, name, value)


class CUDA_KERNEL_NODE_PARAMS(Fields):
    names = (
        *("func", "gridDimX", "gridDimY", "gridDimZ", "blockDimX", "blockDimY", "blockDimZ", "sharedMemBytes"),
        *("kernelParams", "extra", "kern", "ctx"),
    )


class CUDA_MEMSET_NODE_PARAMS(Fields):
    names = ("dst", "pitch", "value", "elementSize", "width", "height")


class CUDA_CONDITIONAL_NODE_PARAMS(Fields):
    names = ("handle", "type", "size", "phGraph_out", "ctx")


class CUgraphNodeParams(Fields):
    names = ("type", "conditional")

    def __init__(self) -> None:
        super().__init__()
        self.conditional = CUDA_CONDITIONAL_NODE_PARAMS()


def node_types() -> dict[str, Any]:
    found = (
        *(CUgraphNodeType, CUgraphConditionalNodeType, CUDA_KERNEL_NODE_PARAMS, CUDA_MEMSET_NODE_PARAMS),
        *(CUDA_CONDITIONAL_NODE_PARAMS, CUgraphNodeParams),
    )
    return {kind.__name__: kind for kind in found}


@dataclass
class Node:
    step: Callable[[], Any]
    function: Any = None
    body: Body | None = None
    kind: Any = None
    handle: int = 0


@dataclass
class Body:
    """A graph. ``nodes`` by their handles, in the order in which they run."""

    nodes: dict[int, Node] = field(default_factory=dict)
    handles: set[int] = field(default_factory=set)

    def copied(self) -> Body:
        """As an executable has it: later changes of the graph are not seen."""
        made = {
            k: Node(n.step, n.function, n.body and n.body.copied(), n.kind, n.handle) for k, n in self.nodes.items()
        }
        return Body(made)


class Graphs:
    """The functions of graphs."""

    heap: Any
    _handles: dict[int, Any]
    _captures: dict[int, list[Callable[[], None]]]
    _strict: dict[int, int]
    _handle: Callable[[Any], int]
    _do: Callable[..., Any]
    kernel: Callable[..., Any]
    version: int

    def cuStreamBeginCapture(self, stream: int, mode: Any) -> Any:
        kind = self._handles[int(stream)]
        assert kind == ("stream", NON_BLOCKING), "another library that uses the default stream would spoil this"
        self._captures[int(stream)] = []
        if mode != CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED:
            self._strict[int(stream)] = threading.get_ident()

    def cuStreamEndCapture(self, stream: int) -> Any:
        steps = self._captures.pop(int(stream))
        self._strict.pop(int(stream), None)
        return self._handle(Body({-1 - k: Node(step) for k, step in enumerate(steps)}))

    def cuGraphCreate(self, flags: int) -> Any:
        return self._handle(Body())

    def cuGraphInstantiate(self, graph: int, flags: int) -> Any:
        return self._handle(self._handles[int(graph)].copied())

    def cuGraphDestroy(self, graph: int) -> Any:
        del self._handles[int(graph)]

    def cuGraphExecDestroy(self, graph: int) -> Any:
        del self._handles[int(graph)]

    def cuGraphLaunch(self, graph: int, stream: int) -> Any:
        assert int(stream) not in self._captures
        return self._launch(self._handles[int(graph)], stream)

    def _launch(self, body: Body, stream: int) -> Any:
        for node in body.nodes.values():
            if node.body is None:
                code = self._do(stream, node.step)
                if code is not None:
                    return code
                continue
            rounds = 0
            while self._handles[node.handle].value:
                code = self._launch(node.body, stream)
                rounds += 1
                if code is not None:
                    return code
                if node.kind == CUgraphConditionalNodeType.CU_GRAPH_COND_TYPE_IF:
                    break
                assert rounds < MOST_ROUNDS, "a loop in a graph does not end"
        return None

    # --- nodes

    def _add(self, graph: Any, dependencies: Sequence[int], count: int, node: Node) -> Any:
        """A chain is all that is modelled: a node depends on the last one."""
        body = self._handles[int(graph)]
        if list(dependencies) != list(body.nodes)[-1:] or count != len(dependencies):
            return INVALID
        handle = self._handle(node)
        body.nodes[handle] = node
        return handle

    def _kernel_step(self, p: Any) -> Any:
        shape = (p.gridDimX, p.gridDimY, p.gridDimZ), (p.blockDimX, p.blockDimY, p.blockDimZ)
        return self.kernel(p.func, *shape, p.sharedMemBytes, p.kernelParams)

    def cuGraphAddKernelNode(self, graph: Any, dependencies: Any, count: int, p: Any) -> Any:
        step = self._kernel_step(p)
        return step if isinstance(step, CUresult) else self._add(graph, dependencies, count, Node(step, p.func))

    def cuGraphAddMemsetNode(self, graph: Any, dependencies: Any, count: int, p: Any, context: Any) -> Any:
        if p.elementSize != 1 or p.height != 1 or not context:
            return INVALID
        to, content = int(p.dst), np.full(p.width, p.value, np.uint8)
        return self._add(graph, dependencies, count, Node(lambda: self.heap.write(to, content)))

    def cuGraphExecKernelNodeSetParams(self, executable: Any, node: Any, p: Any) -> Any:
        found, step = self._handles[int(executable)].nodes.get(int(node)), self._kernel_step(p)
        if found is None or found.function != p.func:  # bodies of conditional nodes are not reached
            return INVALID
        found.step = step
        return None

    # --- conditions

    def cuGraphConditionalHandleCreate(self, graph: Any, context: Any, default: int, flags: int) -> Any:
        made = self._handle(types.SimpleNamespace(value=default))
        self._handles[int(graph)].handles.add(made)
        return made

    def set_conditional(self, handle: int, value: int) -> None:
        self._handles[handle].value = value

    def cuGraphAddNode(self, graph: Any, dependencies: Any, data: Any, count: int, p: Any) -> Any:
        c = p.conditional
        known = p.type == CUgraphNodeType.CU_GRAPH_NODE_TYPE_CONDITIONAL and c.size == 1 and c.ctx and data is None
        if not known or c.handle not in self._handles[int(graph)].handles:
            return INVALID
        body = Body()
        c.phGraph_out = [self._handle(body)]
        return self._add(graph, dependencies, count, Node(lambda: None, None, body, c.type, int(c.handle)))
