"""``dflow compile``: a function and its derivatives as a C library."""

from __future__ import annotations

import argparse
from pathlib import Path

from dflow.backends.native.library import WRITERS
from dflow.cli.source import describe_function, load_function, selected
from dflow.export import compile_library

EXAMPLES = """\
examples:
  dflow compile model.py:loss -s "f64[3], f64" -o libloss.so
      loss() in libloss.so, declared in libloss.h

  dflow compile model.py:loss -s "f64[3], f64" --value-and-grad --wrt 0,1 -o libloss.so
      loss() and loss_value_and_grad(), which gives the gradients by both arguments too

  dflow compile model.py:loss -s "f64[3], f64" --grad --emit object --target aarch64-linux-gnu -o loss.o
      an object file for another system

  dflow compile model.py:loss -s "f64[100000]" --target ptx --cpu sm_90 -o loss.ptx
      for NVIDIA GPUs: PTX, and loss.h, which loads and launches it

A C program includes the header and is linked with the library: cc main.c ./libloss.so
"""


def describe(parser: argparse.ArgumentParser) -> None:
    parser.description = "Writes a Python function, and on request its gradient, as a C library with a header."
    parser.epilog = EXAMPLES
    describe_function(parser)
    parser.add_argument("--grad", action="store_true", help="also write NAME_grad: the gradient")
    parser.add_argument(
        "--value-and-grad", action="store_true", help="also write NAME_value_and_grad: the value and the gradient"
    )
    parser.add_argument("--name", help="the name in C; by default that of the function")
    parser.add_argument(
        "--cpu",
        default="generic",
        metavar="NAME",
        help="generic (default): every processor of the architecture; host: this machine's; or a name that LLVM knows",
    )
    parser.add_argument(
        "--target", metavar="TRIPLE", help="another system, as LLVM names it, for --emit object; or ptx"
    )
    parser.add_argument("--emit", choices=tuple(WRITERS), default="shared", help="what to write (default: %(default)s)")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the library, libx.so")


def run(arguments: argparse.Namespace) -> int:
    files = compile_library(
        load_function(arguments.function),
        arguments.signature,
        arguments.output,
        grad=arguments.grad,
        value_and_grad=arguments.value_and_grad,
        wrt=selected(arguments.wrt, arguments.grad or arguments.value_and_grad),
        name=arguments.name,
        cpu=arguments.cpu,
        target=arguments.target,
        emit=arguments.emit,
    )
    for file in files:
        print(file)
    return 0
