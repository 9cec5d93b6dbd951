"""Ahead of time: functions as a file of PTX and a C header that loads and launches them through the CUDA driver.

    write_ptx([("loss", f, ["x"])], "loss.ptx")

writes ``loss.ptx`` and ``loss.h``. The header has all that is needed: the buffers that a function works in, the order
of its kernels, loops and branches around them. A C program includes it, and links with the driver (``-lcuda``) alone.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dflow.backends.cuda.compiler import compile_plans
from dflow.backends.cuda.plan import (
    Argument,
    Counter,
    HostCall,
    If,
    Launch,
    LaunchPlan,
    Loop,
    Pointer,
    Read,
    Rows,
    Scalar,
    Step,
    While,
    chosen,
)
from dflow.backends.cuda.ptx import DEFAULT
from dflow.backends.interface import by_value
from dflow.backends.lowering.plan import Plan
from dflow.backends.native.c_header import C_TYPES, layout, typedefs
from dflow.backends.native.library import LibraryError, check_names

RESERVED = ("dflow_p", "dflow_stream")

PREFACE = """\
/* Made by dflow, for NVIDIA GPUs from {target} on. Link with the CUDA driver (-lcuda).
 *
 *     NAME_program p;
 *     NAME_load(&p, text)      loads the kernels (text: the contents of {file}) and takes memory to work in
 *     NAME_run(&p, stream, ...)  starts the function: arrays are device memory, contiguous and row-major
 *     NAME_wait(&p, stream, error)  waits for it; error[0] is 0, or tells of an error: see NAME_error_message
 *     NAME_unload(&p)          gives everything back
 *
 * All of them return what the driver returned: CUDA_SUCCESS, or the first error. A program runs on one stream at a
 * time.
 * Arguments are only read; results overlap nothing. In messages, {{0}}, {{1}} and {{2}} stand for error[1..3].
 */"""


@dataclass(frozen=True)
class Exported:
    """A function in C: ``names`` of the arguments, then of the results."""

    name: str
    plan: LaunchPlan
    names: tuple[str, ...]


def write_ptx(
    functions: Sequence[tuple[str, Plan, Sequence[str], Sequence[str]]],
    path: str | os.PathLike[str],
    cpu: str = DEFAULT,
) -> tuple[Path, Path]:
    """Writes the functions (name, plan, names of arguments, names of results) as PTX for the processor ``cpu``, and the
    header beside it; returns both paths. Raises LibraryError, also for what only the host can do."""
    path = Path(path)
    check_names([f[0] for f in functions])
    try:
        made = compile_plans([(name, plan) for name, plan, _, _ in functions], cpu)
    except ValueError as e:
        raise LibraryError(str(e)) from None
    plans = [replace(plan, steps=chosen(plan.steps, library=False)) for plan in made]
    exported = []
    for (name, _, args, results), plan in zip(functions, plans):
        check_names([*args, *results, *RESERVED])
        _refuse_host_calls(plan.steps)
        exported.append(Exported(name, plan, (*args, *results)))
    if not path.name or not path.parent.is_dir():
        raise LibraryError(f"cannot write {str(path)!r}: " + ("no file name" if not path.name else "no such folder"))
    with tempfile.TemporaryDirectory(prefix=".dflow-", dir=path.parent) as folder:
        files = [Path(folder) / "ptx", Path(folder) / "header"]
        files[0].write_text(plans[0].ptx, encoding="utf-8")
        files[1].write_text(header(path.name, exported), encoding="utf-8")
        os.replace(files[1], path.with_suffix(".h"))
        os.replace(files[0], path)
    return path, path.with_suffix(".h")


def _refuse_host_calls(steps: Sequence[Step]) -> None:
    for s in steps:
        if isinstance(s, HostCall):
            where = f"{s.function.loc}: " if s.function.loc else ""
            raise LibraryError(f"{where}{s.function.name} is done by the host, and a C program has none of it")
        for inner in ("then", "otherwise", "before", "body"):
            _refuse_host_calls(getattr(s, inner, ()))


def header(file: str, functions: Sequence[Exported]) -> str:
    guard = f"DFLOW_{re.sub('[^A-Za-z0-9]', '_', Path(file).stem).upper()}_H"
    parts = [
        PREFACE.format(target=functions[0].plan.target, file=file),
        f"#ifndef {guard}\n#define {guard}\n\n#include <stddef.h>\n#include <stdint.h>\n\n#include <cuda.h>",
        *typedefs([t for f in functions for t in f.plan.args if t.is_scalar]),
        *("\n\n".join(_Header(f).parts()) for f in functions),
        f"#endif /* {guard} */\n",
    ]
    return "\n\n".join(parts)


class _Header:
    """The C code of one function."""

    def __init__(self, f: Exported):
        self.name, self.plan, self.names = f.name, f.plan, f.names
        self.kernels = list(dict.fromkeys(launch.kernel for launch in f.plan.launches))
        count = len(f.plan.args)
        self.args, self.results = list(zip(f.names, f.plan.args)), list(zip(f.names[count:], f.plan.results))
        self.kept = [k for k, b in enumerate(f.plan.buffers) if b.kind not in ("argument", "result")]
        self.sequences = [k for k in self.kept if f.plan.buffers[k].kind == "sequence"]

    def parts(self) -> Iterator[str]:
        yield self._comment()
        yield self._struct()
        yield from self._constants()
        yield self._messages()
        yield self._unload()
        yield self._load()
        yield self._run()
        yield self._wait()

    def _comment(self) -> str:
        width = max((len(n) for n in self.names), default=0)
        lines = [f" *   {n:{width}}  in   {layout(t)}" for n, t in self.args]
        lines += [f" *   {n:{width}}  out  {layout(t)}" for n, t in self.results]
        return "\n".join([f"/* {self.name}", *lines, " */"])

    def _struct(self) -> str:
        return (
            f"typedef struct {self.name}_program {{\n    CUmodule module;\n"
            f"    CUfunction kernels[{max(1, len(self.kernels))}];\n"
            f"    CUdeviceptr buffers[{len(self.plan.buffers)}];\n"
            f"    int64_t rows[{len(self.plan.buffers)}]; /* of the buffers that grow */\n}} {self.name}_program;"
        )

    def _constants(self) -> Iterator[str]:
        for k in self.kept:
            data = self.plan.buffers[k].data
            if data:
                yield f"static const unsigned char {self.name}_data_{k}[] = {{{', '.join(map(str, data))}}};"

    def _messages(self) -> str:
        cases = [
            f'        case {k + 1}: return "{_quoted(f"{c.error}: {c.message}")}";'
            for k, c in enumerate(self.plan.checks)
        ]
        return (
            f"static inline const char *{self.name}_error_message(int64_t code) {{\n    switch (code) {{\n"
            + "\n".join([*cases, '        case 0: return "no error";', '        default: return "unknown error";'])
            + "\n    }\n}"
        )

    def _unload(self) -> str:
        kept = ", ".join(map(str, self.kept))
        return (
            f"static inline CUresult {self.name}_unload({self.name}_program *p) {{\n"
            f"    static const int kept[] = {{{kept}}};\n"
            "    for (size_t k = 0; k < sizeof kept / sizeof *kept; k++)\n"
            "        if (p->buffers[kept[k]]) cuMemFree(p->buffers[kept[k]]);\n"
            "    return p->module ? cuModuleUnload(p->module) : CUDA_SUCCESS;\n}"
        )

    def _load(self) -> str:
        lines = [f"    {self.name}_program empty = {{0}};", "    CUresult r;", "    *p = empty;"]
        lines.append("    if ((r = cuModuleLoadData(&p->module, ptx))) return r;")
        for k, kernel in enumerate(self.kernels):
            lines.append(f'    if ((r = cuModuleGetFunction(&p->kernels[{k}], p->module, "{kernel}"))) goto failed;')
        for k in self.kept:
            b = self.plan.buffers[k]
            lines.append(f"    p->rows[{k}] = {b.rows};")
            lines.append(f"    if ((r = cuMemAlloc(&p->buffers[{k}], {b.size * b.rows}u))) goto failed;")
            if b.data:
                copy = f"cuMemcpyHtoD(p->buffers[{k}], {self.name}_data_{k}, {len(b.data)}u)"
                lines.append(f"    if ((r = {copy})) goto failed;")
        lines += ["    return CUDA_SUCCESS;", "failed:", f"    {self.name}_unload(p);", "    return r;"]
        body = "\n".join(lines)
        return f"static inline CUresult {self.name}_load({self.name}_program *p, const char *ptx) {{\n{body}\n}}"

    def _wait(self) -> str:
        lines = ["    CUresult r = cuStreamSynchronize(stream);"]
        lines.append("    return r ? r : cuMemcpyDtoH(error, p->buffers[0], 32);")
        body = "\n".join(lines)
        head = f"{self.name}_program *p, CUstream stream, int64_t error[4]"
        return f"static inline CUresult {self.name}_wait({head}) {{\n{body}\n}}"

    # --- a run

    def _run(self) -> str:
        parameters = [f"{self.name}_program *dflow_p", "CUstream dflow_stream"]
        for n, t in self.args:
            parameters.append(f"{C_TYPES[t.dtype.name]} {n}" if by_value(t) else f"CUdeviceptr {n}")
        parameters += [f"CUdeviceptr {n}" for n, _ in self.results]
        lines = ["CUresult dflow_r;"]
        for k, b in enumerate(self.plan.buffers):
            if b.kind in ("argument", "result"):
                lines.append(f"dflow_p->buffers[{k}] = {self.names[b.index + (b.kind == 'result') * len(self.args)]};")
        if self.sequences:
            lines.append("again:")
        lines.append(_do("cuMemsetD8Async(dflow_p->buffers[0], 0, 32, dflow_stream)"))
        lines += self._steps(self.plan.steps)
        if any("goto finish" in line for line in lines):
            lines.append("finish:")
        lines += self._lengthen() if self.sequences else ["return CUDA_SUCCESS;"]
        if any("dflow_error" in line for line in lines):
            lines.insert(0, "int64_t dflow_error[4];")
        body = "\n".join("" if line == "" else f"    {line}" for line in lines)
        signature = ",\n    ".join(parameters)
        return f"static inline CUresult {self.name}_run(\n    {signature}) {{\n{body}\n}}"

    def _lengthen(self) -> list[str]:
        """What is too short for this run is made longer, and all is done again."""
        return [
            *self._read_error(),
            "if (dflow_error[0] < 0) {",
            "    int64_t dflow_k = -1 - dflow_error[0];",
            f"    static const size_t dflow_sizes[] = {{{', '.join(str(b.size) for b in self.plan.buffers)}}};",
            "    size_t dflow_size = dflow_sizes[dflow_k];",
            "    while (dflow_p->rows[dflow_k] < dflow_error[1]) dflow_p->rows[dflow_k] *= 2;",
            "    if ((dflow_r = cuMemFree(dflow_p->buffers[dflow_k]))) return dflow_r;",
            "    dflow_p->buffers[dflow_k] = 0;",
            "    dflow_size *= (size_t)dflow_p->rows[dflow_k];",
            "    if ((dflow_r = cuMemAlloc(&dflow_p->buffers[dflow_k], dflow_size))) return dflow_r;",
            "    goto again;",
            "}",
            "return CUDA_SUCCESS;",
        ]

    def _read_error(self) -> list[str]:
        return [
            _do("cuMemcpyDtoHAsync(dflow_error, dflow_p->buffers[0], 32, dflow_stream)"),
            _do("cuStreamSynchronize(dflow_stream)"),
        ]

    def _steps(self, steps: Sequence[Step]) -> list[str]:
        return [line for s in steps for line in self._step(s)]

    def _step(self, s: Step) -> list[str]:
        if isinstance(s, Launch):
            return self._launch(s)
        if isinstance(s, Loop):
            count, read = self._value(s.count, "int64_t")
            c = f"dflow_c{s.number}"
            loop = f"for (int64_t {c} = 0, dflow_n{s.number} = {count}; {c} < dflow_n{s.number}; {c}++) {{"
            return ["{", *_inside([*read, loop, *_inside(self._steps(s.body)), "}"]), "}"]
        if isinstance(s, If):
            condition, read = self._value(s.condition, "uint8_t")
            then, other = (_inside(self._steps(part)) for part in (s.then, s.otherwise))
            return ["{", *_inside([*read, f"if ({condition}) {{", *then, "} else {", *other, "}"]), "}"]
        assert isinstance(s, While)
        condition, read = self._value(s.condition, "uint8_t")
        test = [*self._steps(s.before), *read, f"if (!{condition}) break;"]
        return ["for (;;) {", *_inside([*test, *self._steps(s.body)]), "}"]

    def _value(self, x: int | Read | Scalar | Counter, c_type: str) -> tuple[str, list[str]]:
        """A condition or a count, and how to get it."""
        if isinstance(x, int):
            return str(x), []
        if isinstance(x, Counter):
            return f"dflow_c{x.loop}", []
        if isinstance(x, Scalar):
            return self.names[x.index], []
        source = f"dflow_p->buffers[{x.buffer}] + {x.offset}"
        copy = f"cuMemcpyDtoHAsync(&dflow_value, {source}, sizeof dflow_value, dflow_stream)"
        return "dflow_value", [
            f"{c_type} dflow_value;",
            _do(copy),
            *self._read_error(),
            "if (dflow_error[0]) goto finish;",
        ]

    def _launch(self, s: Launch) -> list[str]:
        values = [self._argument(a) for a in s.args]
        declared = [f"{t} dflow_a{k} = {v};" for k, (t, v) in enumerate(values)]
        table = ", ".join(f"&dflow_a{k}" for k in range(len(values))) or "0"
        shape = f"{s.grid}, 1, 1, {s.block}, 1, 1, {s.shared}"
        call = f"cuLaunchKernel(dflow_p->kernels[{self.kernels.index(s.kernel)}], {shape}, dflow_stream, dflow_args, 0)"
        return ["{", *_inside([*declared, f"void *dflow_args[] = {{{table}}};", _do(call)]), "}"]

    def _argument(self, a: Argument) -> tuple[str, str]:
        if isinstance(a, Pointer):
            return "CUdeviceptr", f"dflow_p->buffers[{a.buffer}]" + (f" + {a.offset}" if a.offset else "")
        if isinstance(a, Scalar):
            return C_TYPES[a.dtype.name], self.names[a.index]
        if isinstance(a, Rows):
            return "int64_t", f"dflow_p->rows[{a.buffer}]"
        return "int64_t", f"dflow_c{a.loop}"


def _do(call: str) -> str:
    return f"if ((dflow_r = {call})) return dflow_r;"


def _inside(lines: Sequence[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("??", "?\\?")
