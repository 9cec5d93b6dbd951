"""``dflow show``: a function at one stage of its way to machine code."""

from __future__ import annotations

import argparse
import sys

from dflow.cli.source import describe_function, load_function, selected
from dflow.export import example_arguments, lower
from dflow.programs.pipeline import STAGES

EXAMPLES = """\
stages:
  traced      the IR as the Python function gave it
  optimized   after the passes of the pipeline
  lowered     after fusion and bufferization
  llvm        LLVM's assembly language, optimized for this machine
  asm         this machine's assembly language

examples:
  dflow show model.py:loss -s "f64[3], f64"
  dflow show model.py:loss -s "f64[3], f64" --grad --wrt x --stage traced
  dflow show model.py:loss -s "f64[3], f64" --stage traced | dflow opt - --passes cse,vjp
"""


def describe(parser: argparse.ArgumentParser) -> None:
    parser.description = "Prints a Python function, or a derivative of it, at one stage of its way to machine code."
    parser.epilog = EXAMPLES
    describe_function(parser)
    parser.add_argument(
        "--stage", choices=(*STAGES, "llvm", "asm"), default="optimized", help="the stage (default: %(default)s)"
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--grad", dest="kind", action="store_const", const="grad", default="value", help="the gradient")
    kind.add_argument(
        "--value-and-grad", dest="kind", action="store_const", const="value_and_grad", help="value and gradient"
    )


def run(arguments: argparse.Namespace) -> int:
    function = load_function(arguments.function)
    examples = example_arguments(function, arguments.signature)
    lowered = lower(function, examples, arguments.kind, selected(arguments.wrt, arguments.kind != "value"))
    stage = arguments.stage
    text = lowered.ir(stage, full=True) if stage in STAGES else lowered.llvm() if stage == "llvm" else lowered.asm()
    sys.stdout.write(text.rstrip("\n") + "\n")
    return 0
