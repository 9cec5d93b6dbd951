"""Ahead of time: functions as a shared library with a C header.

    write_library([("rosenbrock", f, ["x"]), ("rosenbrock_grad", g, ["x"])], "librosenbrock.so")

writes ``librosenbrock.so`` and ``librosenbrock.h``. The library needs nothing but the C library (and its libm). It is
made for every processor of the architecture; ``cpu="x86-64-v3"`` asks for AVX2 and fused multiply-add (what most
machines since 2013 have), ``cpu="host"`` for all that this machine has: faster, but it may not run elsewhere.

Both files appear when everything has succeeded, and not at all otherwise.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llvmlite import ir

from dflow.backends.emit.core import untyped
from dflow.backends.emit.function import Options, emit
from dflow.backends.emit.lapack import Unavailable
from dflow.backends.emit.types import I8, I32, I64, PTR
from dflow.backends.interface import OUT_OF_MEMORY, Check
from dflow.backends.lowering.plan import Plan
from dflow.backends.mathlib import complete
from dflow.backends.native.c_header import header
from dflow.backends.native.generation import lower
from dflow.backends.native.machine import COMPILING, machine, optimize
from dflow.ir.core import Function, walk
from dflow.ir.passes.dce import SHOWING

C_KEYWORDS = frozenset(
    """
    auto break case char const continue default do double else enum extern float for goto if inline int long register
    restrict return short signed sizeof static struct switch typedef union unsigned void volatile while
    asm bool class delete explicit export false friend mutable namespace new operator private protected public template
    this throw true try typename using virtual and or not xor
    """.split()  # noqa: SIM905  (a list of words reads better as words)
)


EMIT = ("shared", "object", "llvm", "asm")

Source = (
    tuple[str, Function | Plan, Sequence[str]] | tuple[str, Function | Plan, Sequence[str], Sequence[str]]
)  # a function to export


# A function of such a name would be called by its own code, in place of the one of the C library.
LIBC_NAMES = frozenset(
    [
        *("memcpy", "memmove", "memset", "malloc", "calloc", "realloc", "free", "aligned_alloc"),
        *(
            name + suffix
            for suffix in ("", "f", "l")
            for name in (
                *("fabs", "floor", "ceil", "trunc", "rint", "round", "roundeven", "nearbyint", "copysign", "fma"),
                *("sqrt", "fmod", "fmin", "fmax", "exp", "exp2", "log", "log2", "log10", "pow", "sin", "cos", "tan"),
                *("ldexp", "frexp"),
            )
        ),
    ]
)


class LibraryError(Exception):
    """A library could not be made."""


@dataclass(frozen=True)
class Export:
    """One function of a library. ``result_names`` are ``result0``, ``result1``, ... when not given."""

    name: str
    plan: Plan
    arg_names: tuple[str, ...]
    result_names: tuple[str, ...]
    checks: tuple[Check, ...] = ()


def write_library(
    functions: Sequence[tuple[Any, ...]],
    path: str | os.PathLike[str],
    *,
    cpu: str = "generic",
    triple: str | None = None,
    emit: str = "shared",
    optimize_level: int = 3,
) -> tuple[Path, Path]:
    """Writes the shared library ``path`` and its header beside it; returns both paths.

    Each function comes as its name in C, itself (a `Function` or a `Plan`), the names of its arguments and, if wanted,
    of its results. ``emit`` may also be ``"object"``, ``"asm"`` or ``"llvm"``; these can be had for another system, as
    LLVM's ``triple`` names it.
    """
    path = Path(path)
    if emit not in WRITERS:
        raise LibraryError(f"emit must be one of {', '.join(WRITERS)}, not {emit!r}")
    if triple is not None and (emit == "shared" or cpu == "host"):
        raise LibraryError(f"for the target {triple}, emit an object for a named cpu, and link it there")
    for file in (path, path.with_suffix(".h")) if path.name else ():
        if file.exists() and not file.is_file():
            raise LibraryError(f"cannot write {file}: it is {'a folder' if file.is_dir() else 'no ordinary file'}")
    if not path.name or not path.parent.is_dir():
        raise LibraryError(f"cannot write {str(path)!r}: " + ("no file name" if not path.name else "no such folder"))
    module, exports = _build(path.stem, functions)
    target = machine(cpu=cpu, triple=triple, optimize_level=optimize_level)
    with COMPILING:
        optimized = optimize(module, target, optimize_level)
        with tempfile.TemporaryDirectory(prefix=".dflow-", dir=path.parent) as folder:
            made = Path(folder) / path.name
            WRITERS[emit](target, optimized, made)
            made_header = Path(folder) / "header"
            made_header.write_text(header(path.stem, exports), encoding="utf-8")
            os.replace(made_header, path.with_suffix(".h"))
            os.replace(made, path)
    return path, path.with_suffix(".h")


def _refuse_prints(f: Function) -> None:
    for op in walk(f.body):
        if op.name in SHOWING:
            raise LibraryError(f"{op.loc}: a library needs no Python, and so cannot {op.name}; leave it out")


def _build(name: str, functions: Sequence[tuple[Any, ...]]) -> tuple[ir.Module, list[Export]]:
    names = [f[0] for f in functions]
    check_names([*names, *(f"{n}_error_message" for n in names)])
    for n in LIBC_NAMES.intersection(names):
        raise LibraryError(f"{n!r} is a function of the C library; choose another name")
    for f in functions:
        _refuse_prints(getattr(f[1], "function", f[1]))
    module, releases = ir.Module(name), list[ir.Function]()
    exports = [_add(module, _export(*f), releases) for f in functions]
    if releases:
        _at_unload(module, releases)
    complete(module)
    return module, exports


def _export(
    name: str, f: Function | Plan, arg_names: Sequence[str], result_names: Sequence[str] | None = None
) -> Export:
    plan = f if isinstance(f, Plan) else lower(f)
    if result_names is None:
        result_names = [f"result{k}" for k in range(len(plan.function.results))]
    for what, given, values in (
        ("arguments", arg_names, plan.function.args),
        ("results", result_names, plan.function.results),
    ):
        if len(given) != len(values):
            raise LibraryError(f"{name} has {len(values)} {what}, but {len(given)} names were given")
    check_names([*arg_names, *result_names, "error"])
    return Export(name, plan, tuple(arg_names), tuple(result_names))


def check_names(names: Sequence[str]) -> None:
    """Refuses what C does not take for names, and two of one name."""
    for k, name in enumerate(names):
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or name in C_KEYWORDS:
            raise LibraryError(f"{name!r} is not a name that C allows; choose another name")
        if name in names[:k]:
            raise LibraryError(f"there are two things of the name {name!r}")


def _add(module: ir.Module, export: Export, releases: list[ir.Function]) -> Export:
    try:
        emitted = emit(export.plan, export.name, module, Options(blas=False, threads=False, masks=False))
    except Unavailable as e:
        raise LibraryError(str(e)) from None
    _add_messages(module, export.name, emitted.checks)
    if emitted.release:
        emitted.release.linkage = "internal"
        releases.append(emitted.release)
    return Export(export.name, export.plan, export.arg_names, export.result_names, emitted.checks)


def _at_unload(module: ir.Module, functions: Sequence[ir.Function]) -> None:
    """Has ``functions`` called when the library is unloaded."""
    t = ir.LiteralStructType([I32, PTR, PTR])
    members = [ir.Constant(t, [I32(65535), f, PTR(None)]) for f in functions]
    made = ir.GlobalVariable(module, ir.ArrayType(t, len(members)), "llvm.global_dtors")
    made.linkage, made.initializer = "appending", ir.Constant(made.value_type, members)


def _add_messages(module: ir.Module, name: str, checks: Sequence[Check]) -> None:
    """``const char *NAME_error_message(int64_t code)``."""
    function = ir.Function(module, ir.FunctionType(PTR, [I64]), f"{name}_error_message")
    b = ir.IRBuilder(function.append_basic_block("entry"))
    otherwise = function.append_basic_block("otherwise")
    choice = b.switch(function.args[0], otherwise)
    texts = {OUT_OF_MEMORY: "MemoryError: out of memory"}
    texts |= {code: f"{c.error}: {c.message}" for code, c in enumerate(checks)}
    for code, text in texts.items():
        block = function.append_basic_block("message")
        choice.add_case(I64(code), block)
        b.position_at_end(block)
        b.ret(_text(module, text))
    b.position_at_end(otherwise)
    b.ret(_text(module, "no error has this code"))


def _text(module: ir.Module, text: str) -> ir.GlobalVariable:
    raw = bytearray(text.encode() + b"\0")
    made = untyped(ir.GlobalVariable(module, ir.ArrayType(I8, len(raw)), module.get_unique_name("dflow.text")))
    made.initializer, made.linkage, made.global_constant = ir.Constant(made.value_type, raw), "internal", True
    return made


def linker() -> list[str]:
    """The command of a C compiler, which knows how to link for this system."""
    for name in ("cc", "gcc", "clang"):
        if found := shutil.which(name):
            return [found]
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc"]
    raise LibraryError("there is no C compiler to link with: install one (gcc, clang), or `pip install ziglang`")


def _link(compiled: Path, made: Path) -> None:
    command = [*linker(), "-shared", "-fPIC", "-o", str(made), str(compiled), "-Wl,--as-needed", "-lm"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise LibraryError(f"linking failed: {' '.join(command)}\n{done.stderr}")


def _write_shared(target: Any, module: Any, path: Path) -> None:
    compiled = path.with_name("code.o" if path.name != "code.o" else "object.o")
    compiled.write_bytes(target.emit_object(module))
    _link(compiled, path)


WRITERS: dict[str, Callable[[Any, Any, Path], object]] = {
    "shared": _write_shared,
    "object": lambda target, module, path: path.write_bytes(target.emit_object(module)),
    "asm": lambda target, module, path: path.write_text(target.emit_assembly(module), encoding="utf-8"),
    "llvm": lambda target, module, path: path.write_text(str(module), encoding="utf-8"),
}
