"""``dflow opt``: passes on a program of the IR."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from dflow.backends.lowering.bufferize import bufferize
from dflow.backends.lowering.fusion import fuse
from dflow.cli.messages import UsageError
from dflow.cli.program import FILE_HELP, read_program
from dflow.ir.core import Function, Module
from dflow.ir.passes import PASSES, inline_calls, optimize
from dflow.ir.passes.expand import expand
from dflow.ir.passes.jvp import differentiable, jvp
from dflow.ir.passes.linearize import linearize
from dflow.ir.passes.transpose import transpose
from dflow.ir.passes.vjp import value_and_grad, vjp
from dflow.ir.printer import print_module
from dflow.ir.verifier import verify_module


def describe(parser: argparse.ArgumentParser) -> None:
    parser.description = "Runs passes on a program of the IR, one after the other, and prints what they make of it."
    parser.epilog = f"""\
passes that keep the meaning of each function:
  {", ".join([*EACH])}
passes that make another function of the first one, after the calls in it are replaced by what they call:
  {", ".join(ENTRY)}
Derivatives are taken by all floating-point parameters. transpose takes all functions with parameters marked lin, such
as the second one that linearize makes; where there is none, the first function, if it is linear.

examples:
  dflow opt f.ir --passes cse,dce
  dflow opt f.ir --passes vjp,optimize --verify
  dflow opt f.ir --passes linearize,transpose,optimize
  dflow show model.py:loss -s "f64[3]" --stage traced | dflow opt - --passes value_and_grad
"""
    parser.add_argument("file", metavar="FILE.ir", help=FILE_HELP)
    parser.add_argument("--passes", "-p", default="", metavar="A,B", help="the passes, in order; none: just print")
    parser.add_argument("--verify", action="store_true", help="check the program before and after each pass")
    parser.add_argument("--locations", action="store_true", help="print source locations")


def run(arguments: argparse.Namespace) -> int:
    names = [n.strip() for n in arguments.passes.split(",") if n.strip()]
    unknown = [n for n in names if n not in EACH and n not in ENTRY]
    if unknown:
        raise UsageError(f"there is no pass {unknown[0]}; there are {', '.join(sorted([*EACH, *ENTRY]))}")
    module = read_program(arguments.file, verify=arguments.verify)
    for name in names:
        module = applied(name, module)
        if arguments.verify:
            verify_module(module, after=name)
    sys.stdout.write(print_module(module, locations=arguments.locations))
    return 0


def applied(name: str, module: Module) -> Module:
    """The module after the pass ``name``."""
    if name in EACH:
        return Module.of(*(EACH[name](f) for f in module.functions.values()))
    linear = [f for f in module.functions.values() if f.linear]
    if name == "transpose" and linear:  # what linearize made, say, beside the nonlinear part
        return Module.of(*(transpose(f) if f.linear else f for f in module.functions.values()))
    return Module.of(*ENTRY[name](inline_calls(module)))


EACH: dict[str, Callable[[Function], Function]] = {**PASSES, "expand": expand, "optimize": optimize, "fuse": fuse}
ENTRY: dict[str, Callable[[Function], Sequence[Function]]] = {
    "inline": lambda f: [f],
    "jvp": lambda f: [jvp(f)],
    "vjp": lambda f: [vjp(f)],
    "value_and_grad": lambda f: [value_and_grad(f)],
    "linearize": lambda f: linearize(f, differentiable(f.args)),
    "transpose": lambda f: [transpose(f, differentiable(f.args), strict=True)],
    "bufferize": lambda f: [bufferize(f).function],
}
