"""Functions and their gradients as a C library: ``compile_library``."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from dflow import trees
from dflow.api import grad as gradient
from dflow.api import jit
from dflow.api import value_and_grad as value_and_gradient
from dflow.backends.native.library import C_KEYWORDS, LibraryError, write_library
from dflow.errors import TraceError, failure, function_location
from dflow.programs.signature import leaf_type, parameter_names
from dflow.programs.signature_text import parse_signature
from dflow.programs.transform import Jit, Lowered

Wrt = int | str | Sequence[int | str]

KINDS = ("value", "grad", "value_and_grad")
ASK = """
import sys
from dflow.backends.native.machine import machine

machine(cpu=sys.argv[1], triple=sys.argv[2] or None)
"""


def compile_library(
    function: Callable[..., Any],
    signature: str | Sequence[Any],
    path: str | os.PathLike[str],
    *,
    grad: bool = False,
    value_and_grad: bool = False,
    wrt: Wrt = 0,
    name: str | None = None,
    cpu: str = "generic",
    target: str | None = None,
    emit: str = "shared",
) -> tuple[Path, Path]:
    """Writes ``function`` as the C library ``path`` and its header beside it, and returns both paths.

    ``signature`` are the types of the arguments as text (``"f64[21, 2], float"``), or example arguments in a tuple,
    which may be trees; each leaf becomes a parameter of the C function. The results come in the order of the tree that
    ``function`` returns, then the new contents of arrays that it updates.

    The library has ``NAME`` (by default the name of the function); with ``grad`` also ``NAME_grad``, with
    ``value_and_grad`` ``NAME_value_and_grad``, with derivatives by the arguments ``wrt``: positions or names.

    ``cpu="generic"`` runs on every processor of the architecture, ``"host"`` uses all that this one can; others are
    named as LLVM names them. ``target`` is LLVM's triple of another system, for ``emit="object"``; ``emit`` may also be
    ``"llvm"`` or ``"asm"``. ``target="ptx"`` writes PTX for NVIDIA GPUs, from ``cpu`` on (``"sm_90"``, by default
    ``"sm_80"``), and a header that loads and launches it.

    Raises SignatureError, LibraryError, and what tracing and differentiation raise.
    """
    if Path(path).suffix == ".h":
        raise LibraryError(f"{path}: the header will have this name; give the library another, such as libx.so")
    arguments = example_arguments(function, signature)
    base = name or _c_name(getattr(function, "__name__", "function"))
    functions = []
    for kind in ["value", *["grad"] * grad, *["value_and_grad"] * value_and_grad]:
        lowered = lower(function, arguments, kind, wrt)
        names = _distinct(_argument_names(lowered), _result_names(lowered, kind, _positions(function, wrt)))
        count = len(lowered.program.types)
        c_name = base if kind == "value" else f"{base}_{kind}"
        functions.append((c_name, lowered.stages.lower({}, for_device=target == "ptx"), names[:count], names[count:]))
    if target != "ptx" and (cpu not in ("generic", "host") or target is not None):
        _check_target(cpu, target)
    try:
        if target == "ptx":
            from dflow.backends.cuda.c_launch import write_ptx
            from dflow.backends.cuda.ptx import DEFAULT

            return write_ptx(functions, path, DEFAULT if cpu == "generic" else cpu)
        return write_library(functions, path, cpu=cpu, triple=target, emit=emit)
    except OSError as e:
        raise LibraryError(f"cannot write {path}: {e.strerror}") from e


def _check_target(cpu: str, triple: str | None) -> None:
    """Refuses what LLVM does not know, for which it would end the process. It says so on standard error only, so
    another process asks."""
    command = [sys.executable, "-c", ASK, cpu, triple or ""]
    # dflow may have been found through sys.path rather than by installation.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    said = subprocess.run(command, capture_output=True, text=True, env=environment).stderr
    if "No available targets" in said:
        raise LibraryError(f"LLVM knows no target {triple!r}")
    if "not a recognized processor" in said:
        raise LibraryError(f"LLVM knows no processor {cpu!r} of {triple or 'this architecture'}")


def example_arguments(function: Callable[..., Any], signature: str | Sequence[Any]) -> tuple[Any, ...]:
    """Arguments of the types that ``signature`` gives, after checking that ``function`` takes so many."""
    if not isinstance(signature, str | tuple | list):
        raise TypeError(f"signature: expected text or a tuple of example arguments, got {type(signature).__name__}")
    arguments = parse_signature(signature) if isinstance(signature, str) else tuple(signature)
    if getattr(function, "static_argnums", ()) or getattr(function, "static_argnames", ()):
        raise failure(
            TraceError,
            f"{_named(function)} has static arguments, whose values a signature does not hold",
            mend="write a function that calls it with these values, and compile that",
            location=function_location(function),
        )
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError as e:
        raise failure(
            TraceError,
            f"the arguments do not fit {_named(function)}: {e}",
            seen=", ".join(str(leaf_type(x) or type(x).__name__) for x in arguments) or "no arguments",
            location=function_location(function),
        ) from None
    except ValueError:  # a callable that hides its parameters
        pass
    return arguments


def lower(function: Callable[..., Any], arguments: Sequence[Any], kind: str = "value", wrt: Wrt = 0) -> Lowered:
    """The stages of ``function`` or of a derivative of it: ``kind`` is one of ``KINDS``."""
    if kind == "value":
        made = function if isinstance(function, Jit) else jit(function)
    else:
        positions = _positions(function, wrt)
        argnums = positions[0] if isinstance(wrt, int | str) else positions
        made = (gradient if kind == "grad" else value_and_gradient)(function, argnums)
    lowered = made.lower(*arguments)
    known = lowered.program.arguments
    if known.numbers:
        raise failure(
            TraceError,
            f"{_named(function)} cannot be compiled before {', '.join(known.names_of(known.numbers))} is known",
            mend="say how large it can become (assert n <= 1000), or compile a function that calls it with the values",
            location=function_location(function),
        )
    return lowered


def _positions(function: Callable[..., Any], wrt: Wrt) -> tuple[int, ...]:
    """``wrt`` as positions of arguments."""
    names = _parameters(function)
    found = []
    for w in (wrt,) if isinstance(wrt, int | str) else wrt:
        if isinstance(w, str) and w not in names:
            raise failure(
                TraceError,
                f"{_named(function)} has no argument {w} to differentiate by; it has {', '.join(names) or 'none'}",
                location=function_location(function),
            )
        found.append(names.index(w) if isinstance(w, str) else w)
    return tuple(found)


def _parameters(function: Callable[..., Any]) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return []


def _named(function: Callable[..., Any]) -> str:
    name = getattr(function, "__name__", "the function")
    try:
        return f"{name}{inspect.signature(function)}"
    except (TypeError, ValueError):
        return str(name)


# -- names in C --------------------------------------------------------------------------------------------------------


def _argument_names(lowered: Lowered) -> list[str]:
    return list(lowered.program.arguments.names())


def _result_names(lowered: Lowered, kind: str, wrt: Sequence[int]) -> Iterator[str]:
    """Names that say what a result is: ``result``, ``value``, ``grad_x``, and ``x_out`` for an updated argument."""
    program = lowered.program
    tree = trees.unflatten(program.out_spec, range(program.result_count))
    if kind == "value":
        yield from trees.paths(tree, "result")
    else:
        value, slopes = tree if kind == "value_and_grad" else (None, tree)
        yield from trees.paths(value, "value")
        names = parameter_names(program.arguments.function, len(program.arguments.args))
        several = isinstance(slopes, tuple) and len(wrt) > 1
        for k, part in zip(wrt, slopes if several else [slopes]):
            yield from trees.paths(part, f"grad_{names[k]}")
    for update in program.updates:
        place = "_".join(map(str, (*update.path[1:], update.key)))
        yield from trees.paths(update.value(range(len(program.traced.function.results))), f"{place}_out")
    if program.trim:
        yield from (f"size_{k}" for k in range(program.trim.sizes))
    for position, _ in program.traced.mutated:
        yield f"{program.arguments.names()[position]}_out"


def _distinct(*groups: Iterator[str] | Sequence[str]) -> list[str]:
    """Names that C allows and that differ from each other and from ``error``, which every function has."""
    taken: list[str] = ["error"]
    for text in (text for group in groups for text in group):
        name = _c_name(text)
        while name in taken or name in C_KEYWORDS:
            name += "_"
        taken.append(name)
    return taken[1:]


def _c_name(text: str) -> str:
    """``p['w'][0]`` becomes ``p_w_0``."""
    name = re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_") or "x"
    return name if not name[0].isdigit() else f"x{name}"
