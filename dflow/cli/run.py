"""``dflow run``: evaluates a program of the IR."""

from __future__ import annotations

import argparse
import ast
import re
from typing import Any

import numpy as np

from dflow.cli.messages import UsageError
from dflow.cli.program import FILE_HELP, read_program
from dflow.ir.core import Function, Module, Value
from dflow.ir.evaluator import evaluate
from dflow.ir.passes.inline import inline_calls
from dflow.ir.types import dtype_of, is_bfloat16
from dflow.tracing.arrays.dtypes import can_cast
from dflow.tracing.arrays.lift import supported

EXAMPLES = """\
examples:
  dflow run f.ir --args 1.5 "[1.0, 2.0]" weights.npy
  dflow run f.ir --args "[[1, 2], [3, 4]]" --backend cpu
  dflow opt f.ir --passes vjp | dflow run - --args 1.5 1.0
"""


def describe(parser: argparse.ArgumentParser) -> None:
    parser.description = "Evaluates the first function of a program of the IR and prints its results, one a line."
    parser.epilog = EXAMPLES
    parser.add_argument("file", metavar="FILE.ir", help=FILE_HELP)
    parser.add_argument(
        "--args",
        nargs="*",
        default=[],
        metavar="VALUE",
        help="the arguments: numbers, nested lists (inf and nan are numbers too), or files in NumPy's format (x.npy)",
    )
    parser.add_argument(
        "--backend",
        choices=("reference", "cpu"),
        default="reference",
        help="reference (default): one operation after the other, by NumPy; cpu: machine code",
    )


def run(arguments: argparse.Namespace) -> int:
    module = read_program(arguments.file)
    entry = module.entry
    if len(arguments.args) != len(entry.args):
        wanted = ", ".join(map(repr, entry.args)) or "no arguments"
        raise UsageError(f"@{entry.name} takes {wanted}; got {len(arguments.args)} values")
    values = [argument(text, parameter) for text, parameter in zip(arguments.args, entry.args)]
    for result in _compiled(module, values) if arguments.backend == "cpu" else evaluate(entry, values, module):
        print(line(result))
    return 0


def _compiled(module: Module, values: list[Any]) -> tuple[Any, ...]:
    from dflow.backends.native.generation import compile_function  # the reference evaluator needs no LLVM

    f = inline_calls(module)
    for v in (*f.args, *f.results):
        if not v.type.is_static:
            raise UsageError(f"{v} of @{f.name} has a size known only at run time; use --backend reference")
    return compile_function(_named(f))(*values)


def _named(f: Function) -> Function:
    """The function under a name that libc does not have."""
    return Function(f"dflow_run_{f.name}", f.body, f.linear, f.loc)


def argument(text: str, parameter: Value) -> np.ndarray[Any, Any]:
    """The array that ``text`` stands for, of the dtype of the parameter. Raises UsageError."""
    text = text.strip()
    dtype = parameter.type.dtype.numpy
    found = _load(text) if text.endswith(".npy") else _literal(text, parameter)
    if found.dtype == "V2" and is_bfloat16(dtype):  # what NumPy writes of them
        found = found.view(dtype)
    if not can_cast(found.dtype, dtype, "same_kind") or not _same_shape(found, parameter):
        raise UsageError(f"{text}: expected {parameter}, got {line(found).partition(':')[0]}")
    return found.astype(dtype)


def _same_shape(found: np.ndarray[Any, Any], parameter: Value) -> bool:
    """As far as it is known; the evaluator compares sizes that are arguments."""
    shape = parameter.type.shape
    return found.ndim == len(shape) and all(n == d for n, d in zip(found.shape, shape) if isinstance(d, int))


def _load(name: str) -> np.ndarray[Any, Any]:
    try:
        return np.load(name, allow_pickle=False)
    except (ValueError, EOFError) as e:
        raise UsageError(f"{name}: not an array in NumPy's format ({e})") from None


def _literal(text: str, parameter: Value) -> np.ndarray[Any, Any]:
    """A number or a nested list in Python's notation, where inf and nan are numbers too."""
    dtype = parameter.type.dtype.numpy
    readable = re.sub(r"\bnan\b", "None", re.sub(r"\binf\b", "1e999", text))
    try:
        value = ast.literal_eval(readable)
        natural = np.asarray(value)
        if natural.dtype.kind in "SU":
            raise ValueError("text")
        if natural.dtype.kind in ("iuO" if dtype.kind in "iu" else "O") or natural.size == 0:
            return np.asarray(value, dtype)  # refuses integers that do not fit; makes nan of None
        return natural
    except OverflowError:
        raise UsageError(f"{text}: does not fit {parameter}") from None
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise UsageError(f"{text}: expected {parameter} as a number, a nested list of numbers or a .npy file") from None


def line(x: Any) -> str:
    """A result with its type: ``f64[2]: [1.0, 2.0]``, in digits that give the same number again."""
    x = np.asarray(x)
    kind = dtype_of(x.dtype).name if supported(x.dtype) else f"{x.dtype.kind}{x.dtype.itemsize * 8}"
    shape = f"[{', '.join(map(str, x.shape))}]" if x.ndim else ""
    text = np.array2string(x, separator=", ", max_line_width=10**9, formatter={"all": str})
    return f"{kind}{shape}: {' '.join(text.split())}"
