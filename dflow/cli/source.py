"""The function that ``FILE.py:FUNCTION`` names."""

from __future__ import annotations

import argparse
import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from dflow.cli.messages import UsageError

SIGNATURE_HELP = (
    "types of the arguments, comma-separated: f64, f32[3], i64[10,2], bool; float and int for Python numbers"
)


def describe_function(parser: argparse.ArgumentParser) -> None:
    """The arguments of commands that work on a Python function."""
    parser.add_argument("function", metavar="FILE.py:FUNCTION", help="a Python file and a function in it")
    parser.add_argument("--signature", "-s", required=True, metavar="TYPES", help=SIGNATURE_HELP)
    parser.add_argument(
        "--wrt",
        metavar="ARGUMENTS",
        help="differentiate by these arguments: numbers (from 0) or names, comma-separated; by default the first",
    )


def selected(text: str | None, derivative: bool) -> int | str | tuple[int | str, ...]:
    """What ``--wrt`` says. Without a derivative it must say nothing."""
    if text is None:
        return 0
    if not derivative:
        raise UsageError("--wrt goes with --grad or --value-and-grad")
    parts = tuple(int(p) if p.lstrip("-").isdigit() else p for p in (p.strip() for p in text.split(",")))
    if "" in parts:
        raise UsageError(f"--wrt {text}: expected numbers or names of arguments, such as 0,1 or x,y")
    return parts[0] if len(parts) == 1 else parts


def load_function(target: str) -> Callable[..., Any]:
    """Imports the file, with its folder on ``sys.path``, and finds the function (or ``Class.function``) in it."""
    file, colon, name = target.rpartition(":")
    if not colon or not file or not name:
        raise UsageError(f"{target}: expected FILE.py:FUNCTION, such as model.py:loss")
    module = _import(Path(file))
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise UsageError(f"{file} has no function {name}{_listed(module)}")
        found = getattr(found, part)
    if not callable(found):
        raise UsageError(f"{name} in {file} is no function but {type(found).__name__}")
    return found


def _listed(module: ModuleType) -> str:
    own = [
        n
        for n, f in vars(module).items()
        if callable(f) and not n.startswith("_") and getattr(f, "__module__", None) == module.__name__
    ]
    return f"; there are {', '.join(own)}" if own else ""


def _import(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(f"{path}: there is no such file" if not path.exists() else f"{path}: not a file")
    if path.suffix != ".py":
        raise UsageError(f"{path}: not a Python file")
    sys.path.insert(0, str(path.parent.resolve()))
    # Under its own name, so that other files of its folder import the same module; not in place of another module.
    name = path.stem if path.stem not in sys.modules else f"{path.stem}__file"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as e:
        del sys.modules[name]
        raise UsageError(f"importing {path} failed: {_raised(e)}") from e
    return module


def _raised(e: BaseException) -> str:
    """The exception and the innermost line of a file of the user's that it came through."""
    if isinstance(e, SyntaxError):
        return "".join(traceback.format_exception_only(e)).strip()
    if isinstance(e, SystemExit):
        what = f"it calls sys.exit({e.code!r})"
    else:
        what = "".join(traceback.format_exception_only(e)).strip()
    frames = [f for f in traceback.extract_tb(e.__traceback__) if not f.filename.startswith("<frozen")]
    frames = [f for f in frames if f.name != "_import"]
    return f"{what}\n  at {frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line}" if frames else what
