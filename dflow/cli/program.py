"""Reading a program of the IR from a file or from standard input."""

from __future__ import annotations

import sys
from pathlib import Path

from dflow.cli.messages import UsageError
from dflow.ir.core import Module
from dflow.ir.parser import ParseError, parse_module
from dflow.ir.verifier import verify_module

FILE_HELP = "a program in the text format of the IR (docs/ir.md); - reads standard input"


def read_program(name: str, *, verify: bool = True) -> Module:
    """The parsed program. Errors name the file and the place in it."""
    text = _read(name)
    try:
        module = parse_module(text)
    except ParseError as e:
        raise UsageError(f"{'standard input' if name == '-' else name}, {e}") from e
    if verify:
        verify_module(module)
    return module


def _read(name: str) -> str:
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UsageError(f"{name}: not a text file") from None
