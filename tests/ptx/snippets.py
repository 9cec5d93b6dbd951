"""Short kernels for the interpreter's own tests."""

from __future__ import annotations

import numpy as np

from ptx.machine import Machine
from ptx.memory import Heap

_HEAD = ".version 7.0\n.target sm_80\n.address_size 64\n"
_CLASS = {1: "b16", 2: "b16", 4: "b32", 8: "b64"}


def kernel(body: str, params: int = 1, declarations: str = "", outside: str = "") -> str:
    """A kernel ``k`` with addresses in ``%rd0``, ``%rd1``, ...; ``%r0`` is the thread, ``%rd9`` eight times that."""
    names = ",\n".join(f".param .u64 k_param_{i}" for i in range(params))
    loads = "\n".join(f"ld.param.b64 %rd{i}, [k_param_{i}];" for i in range(params))
    return f"""{_HEAD}{outside}
.visible .entry k(
{names}
)
{{
.reg .pred %p<9>;
.reg .b16 %rs<9>;
.reg .b32 %r<19>;
.reg .b64 %rd<19>;
{declarations}
{loads}
mov.u32 %r0, %tid.x;
mul.wide.u32 %rd9, %r0, 8;
{body}
ret;
}}
"""


def run(text: str, *buffers: np.ndarray | int, grid: int = 1, block: int = 1, shared: int = 0) -> list[np.ndarray]:
    """Launches ``k`` on copies of arrays (or on as many unwritten bytes); what the buffers hold afterwards, as bytes
    or as the array's dtype. Bytes that are still unwritten are zero."""
    heap = Heap(1 << 20)
    machine = Machine(text, heap, max_steps=10000)
    at = []
    for k, b in enumerate(buffers):
        name = f"buffer {k}"
        at.append(heap.allocate(b, name) if isinstance(b, int) else heap.place(b.tobytes(), name))
    machine.launch("k", grid, block, [np.uint64(a).tobytes() for a in at], shared)
    out = []
    for a, b in zip(at, buffers):
        if isinstance(b, int):
            out.append(heap.read(a, b, written=False))
        else:
            out.append(heap.read(a, b.nbytes, written=False).view(b.dtype))
    return out


def compute(opcode: str, result: np.dtype, *inputs: np.ndarray | str, to: str = "%d", before: str = "") -> np.ndarray:
    """One instruction on arrays, one element a thread; strings are operands as they stand. Predicates are bytes."""
    arrays = [x for x in inputs if not isinstance(x, str)]
    result = np.dtype(result)
    count = len(arrays[0])
    lines, names = [], []
    declared = [f".reg .{'pred' if result.kind == 'b' else _CLASS[result.itemsize]} %d;"]
    for x in inputs:
        if isinstance(x, str):
            names.append(x)
            continue
        k = len(declared)
        kind = _CLASS[x.dtype.itemsize]
        declared.append(f".reg .{kind} %x{k};\n.reg .b64 %a{k};\n.reg .pred %q{k};")
        lines.append(f"mad.wide.u32 %a{k}, %r0, {x.dtype.itemsize}, %rd{k};")
        lines.append(f"ld.global.b{8 * x.dtype.itemsize} %x{k}, [%a{k}];")
        if x.dtype.kind == "b":
            lines.append(f"setp.ne.b16 %q{k}, %x{k}, 0;")
        names.append(f"%q{k}" if x.dtype.kind == "b" else f"%x{k}")
    lines.append(before)
    lines.append(f"{opcode} {to}, {', '.join(names)};")
    lines.append(f"mad.wide.u32 %rd9, %r0, {result.itemsize}, %rd0;")
    if result.kind == "b":
        lines.append("selp.b16 %rs0, 1, 0, %d;\nst.global.b8 [%rd9], %rs0;")
    else:
        lines.append(f"st.global.b{8 * result.itemsize} [%rd9], %d;")
    text = kernel("\n".join(lines), len(arrays) + 1, "\n".join(declared))
    out = run(text, count * result.itemsize, *arrays, block=count)
    return out[0].view(result)
