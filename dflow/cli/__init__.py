"""The command line: ``dflow COMMAND ...``. Each command is a module with ``describe(parser)`` and ``run(arguments)``.

Whatever goes wrong is one message on standard error and exit status 2; ``--traceback`` shows where it came from.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from dflow.cli.messages import UsageError, message

COMMANDS = {
    "compile": "write a function and its gradient as a C library",
    "show": "print a function at one stage of its way to machine code",
    "opt": "run passes on a program of the IR",
    "run": "evaluate a program of the IR",
    "doctor": "say what this installation consists of, and test it",
}
FAILED = 2
INTERRUPTED = 130  # 128 + the number of the signal, as shells have it
PIPE_CLOSED = 141


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        status = _run(argv)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        _silence_stdout()
        return PIPE_CLOSED
    except KeyboardInterrupt:
        print("dflow: interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as e:
        if "--traceback" in argv:
            raise
        print(f"dflow: error: {message(e)}", file=sys.stderr)
        return FAILED


def _run(argv: Sequence[str]) -> int:
    try:
        chosen = _top().parse_args(argv)
        command = importlib.import_module(f"dflow.cli.{chosen.command}")
        parser = _Parser(prog=f"dflow {chosen.command}", formatter_class=argparse.RawDescriptionHelpFormatter)
        command.describe(parser)
        parser.add_argument("--traceback", action="store_true", help="on an error, show where in Python it was raised")
        arguments = parser.parse_args(chosen.rest)
    except SystemExit as e:  # after --help and --version
        return int(e.code or 0)
    return int(command.run(arguments))


def _top() -> argparse.ArgumentParser:
    from dflow import __version__

    listed = "\n".join(f"  {name:<10}{what}" for name, what in COMMANDS.items())
    parser = _Parser(
        prog="dflow",
        description="A compiler for differentiable programming in Python.",
        epilog=f"commands:\n{listed}\n\n`dflow COMMAND --help` has the options of a command, with examples.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"dflow {__version__}")
    parser.add_argument("--traceback", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of those below")
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="its arguments")
    return parser


class _Parser(argparse.ArgumentParser):
    """Raises what argparse would print, so that all errors look alike."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}\n`{self.prog} --help` shows how it is used")


def _silence_stdout() -> None:
    """Whoever read our output is gone: what is still buffered must not raise again when Python exits."""
    with contextlib.suppress(OSError, ValueError):  # where standard output is no real file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


__all__ = ["COMMANDS", "main"]
