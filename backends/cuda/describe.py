"""A launch plan as text, and what the assembler says of its kernels."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dflow.backends.cuda.launch.occupancy import WARP, occupancy
from dflow.backends.cuda.plan import (
    Argument,
    Choice,
    Counter,
    Dense,
    HostCall,
    If,
    Launch,
    LaunchPlan,
    Loop,
    Place,
    Pointer,
    Read,
    Rows,
    Scalar,
    Step,
)
from dflow.ir.core import Location


def describe(plan: LaunchPlan) -> str:
    """The buffers and the steps, a line each."""
    lines = [f"{plan.name} for {plan.target}"]
    for k, b in enumerate(plan.buffers):
        index = f" {b.index}" if b.kind in ("argument", "result") else ""
        grows = f" a row, {b.rows} rows at first" if b.kind == "sequence" else ""
        lines.append(f"  b{k}: {b.kind}{index}, {b.size} bytes{grows}")
    return "\n".join([*lines, *_steps(plan, plan.steps, "  ")])


def _steps(plan: LaunchPlan, steps: Sequence[Step], indent: str) -> Iterator[str]:
    inner = indent + "  "
    for s in steps:
        if isinstance(s, Launch):
            place = next((_line(k.location) for k in plan.kernels if k.name == s.kernel and k.location), "")
            args = ", ".join(map(_argument, s.args))
            yield f"{indent}{s.kernel}<<<{s.grid}, {s.block}>>>({args}){place}"
        elif isinstance(s, Loop):
            yield f"{indent}for c{s.number} below {_value(s.count)}:"
            yield from _steps(plan, s.body, inner)
        elif isinstance(s, If):
            yield f"{indent}if {_value(s.condition)}:"
            yield from _steps(plan, s.then, inner)
            yield f"{indent}else:"
            yield from _steps(plan, s.otherwise, inner)
        elif isinstance(s, HostCall):
            inputs, outputs = (", ".join(map(_place, p)) for p in (s.inputs, s.outputs))
            yield f"{indent}on the host: {outputs} = {s.function.name}({inputs})"
        elif isinstance(s, Dense):
            memory = ", ".join(map(_argument, s.memory))
            place = _line(s.location) if s.location else ""
            yield f"{indent}{s.routine} {s.dtype}{list(s.sizes)} ({memory}){place}"
        elif isinstance(s, Choice):
            yield f"{indent}with cuBLAS and cuSOLVER:"
            yield from _steps(plan, s.library, inner)
            yield f"{indent}without:"
            yield from _steps(plan, s.otherwise, inner)
        else:
            yield f"{indent}while:"
            yield from _steps(plan, s.before, inner)
            yield f"{indent}is {_value(s.condition)}, do:"
            yield from _steps(plan, s.body, inner)


def _line(location: Location) -> str:
    return f"  # {Path(location.file).name}:{location.line}"


def _argument(a: Argument) -> str:
    if isinstance(a, Pointer):
        return f"b{a.buffer}" + (f" + {a.offset}" if a.offset else "")
    if isinstance(a, Rows):
        return f"rows of b{a.buffer}"
    return _value(a)


def _value(x: int | Read | Scalar | Counter) -> str:
    if isinstance(x, int):
        return str(x)
    if isinstance(x, Counter):
        return f"c{x.loop}"
    return f"argument {x.index}" if isinstance(x, Scalar) else f"{x.dtype} at b{x.buffer} + {x.offset}"


def _place(x: Place | Scalar | Counter) -> str:
    return f"{x.type} at b{x.buffer} + {x.offset}" if isinstance(x, Place) else _value(x)


@dataclass(frozen=True)
class Resources:
    """What one kernel takes: registers of a thread, and bytes: of its stack, spilled, of the block's memory.

    ``occupancy`` is the part of the threads that a processor has room for which run at a time.
    """

    registers: int
    stack: int
    spilled: int
    shared: int
    occupancy: float


def resources(plan: LaunchPlan) -> dict[str, Resources]:
    """What every kernel takes on the processor of the plan. Raises FileNotFoundError without an assembler."""
    ptxas = shutil.which("ptxas")
    if ptxas is None:
        raise FileNotFoundError(
            "ptxas, the assembler of the CUDA toolkit, is not on the PATH: install it to see registers"
        )
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "program.ptx"
        source.write_text(plan.ptx)
        command = [ptxas, "-v", f"-arch={plan.target}", "-o", str(Path(folder) / "program"), str(source)]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    found, blocks = {}, {launch.kernel: launch.block for launch in plan.launches}
    for part in said.split("Compiling entry function")[1:]:
        name = part.split("'")[1]
        registers, shared = _number(part, r"(\d+) registers"), _number(part, r"(\d+) bytes smem")
        found[name] = Resources(
            registers=registers,
            stack=_number(part, r"(\d+) bytes stack"),
            spilled=_number(part, r"(\d+) bytes spill stores"),
            shared=shared,
            occupancy=occupancy(plan.target, blocks.get(name, WARP), registers, shared),
        )
    return found


def _number(text: str, pattern: str) -> int:
    match = re.search(pattern, text)
    return int(match[1]) if match else 0
