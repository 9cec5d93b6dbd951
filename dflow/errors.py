"""What dflow raises: every message names the user's line, what was seen, what was wanted and how to mend it."""

from __future__ import annotations

import linecache
import os
import sys
from collections.abc import Sequence
from functools import lru_cache
from types import CodeType, FrameType, TracebackType
from typing import Any, ClassVar

import numpy as np

from dflow.ir.core import Location


class DflowError(Exception):
    """The base of all errors of dflow.

    ``unroll`` says that the same code may well work when the loop around it is unrolled, its index known.
    """

    unroll = False
    table: Any = None  # a list that a loop is to take for an array (``tracing.lists.tables``)
    appended: Sequence[Any] = ()  # lists that become longer in a branch, with what is appended and the condition
    facts: ClassVar[dict[str, Any]] = {}  # the parts of the message, to tell it again with another line


class TraceError(DflowError, TypeError):
    """The program cannot be traced as it is written."""


class NeedsStatic(TraceError):
    """Python needs to know a value while the program is traced, and it is known only when the program runs."""

    unroll = True


class CarriedError(TraceError):
    """What a loop carries from one iteration to the next changes its type or its structure."""

    unroll = True


class OnceError(TraceError):
    """Something would happen once, while tracing, that is to happen in every run of a loop or branch."""

    unroll = True


class TraceIndexError(TraceError, IndexError):
    """An index that is known while tracing lies outside."""


class ShapeError(TraceError, ValueError):
    """Shapes do not fit."""


class AxisError(ShapeError, np.exceptions.AxisError):
    """An axis that the array does not have."""

    axis = ndim = None  # NumPy's error has them, where it makes the message of them
    __str__ = Exception.__str__


class RangeError(TraceError, OverflowError):
    """A Python integer does not fit the type that it is to have."""


class TraceAttributeError(TraceError, AttributeError):
    """What NumPy's arrays have and traced arrays have not."""


class NoAttributeError(TraceAttributeError):
    """What NumPy's arrays and numbers do not have either."""


class MatrixError(ShapeError, np.linalg.LinAlgError):
    """What should be a matrix, or a square one, is not."""


class UndefinedError(TraceError, NameError):
    """A variable is used that has no value, or only one in some of the ways that lead here."""


def failure(
    kind: Any,
    what: str,
    *,
    seen: str | None = None,
    wanted: str | None = None,
    mend: str | None = None,
    location: Location | None = None,
) -> DflowError:
    """An error of class ``kind`` with the whole message; ``location`` is the user's current line when not given."""
    location = location or user_location()
    lines = [f"{location}: {what}" if location else what, *_excerpt(location)]
    for label, text in (("seen", seen), ("wanted", wanted), ("mend", mend)):
        if text:
            lines.append(f"{label}: {text}")
    error = kind("\n".join(lines))
    error.__dict__["facts"] = {"what": what, "seen": seen, "wanted": wanted, "mend": mend}
    return error


def _excerpt(location: Location | None) -> list[str]:
    """The source line, with carets under the expression where its columns are known."""
    text = linecache.getline(location.file, location.line).rstrip("\n") if location else ""
    if not text.strip() or location is None:
        return []
    indent = len(text) - len(text.lstrip())
    lines = ["    " + text[indent:]]
    if location.end_column > location.column >= indent:
        lines.append("    " + " " * (location.column - indent) + "^" * (location.end_column - location.column))
    return lines


def is_user_frame(frame: FrameType) -> bool:
    return _is_users_module(frame.f_globals.get("__name__", ""))


@lru_cache(maxsize=4096)
def _is_users_module(module: str) -> bool:
    package = module.partition(".")[0]
    return package not in ("dflow", "numpy", "scipy", "optree") and package not in sys.stdlib_module_names


def user_location() -> Location | None:
    """Where the user's code is now: the innermost frame outside dflow. None when the command line called dflow."""
    frame = _user_frame()
    return None if frame is None else location_of(frame.f_code, frame.f_lasti)


CO_GENERATOR = 0x20  # as in `inspect`, which takes long to import


def in_generator() -> bool:
    """Whether the user's code is now in a generator."""
    frame = _user_frame()
    return frame is not None and bool(frame.f_code.co_flags & CO_GENERATOR)


def _user_frame() -> FrameType | None:
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and not is_user_frame(frame):
        frame = None if frame.f_globals.get("__name__") == "dflow.cli" else frame.f_back
    return frame


def location_of(code: CodeType, instruction: int) -> Location:
    """The place of an instruction (by its offset) in the source."""
    return _location(code, code.co_filename, instruction)


@lru_cache(maxsize=65536)
def _location(code: CodeType, file: str, instruction: int) -> Location:
    """``file`` is there for the cache: code objects of two files with the same text are equal."""
    line, end_line, column, end_column = _positions(code)[instruction // 2]
    line = line or code.co_firstlineno
    if end_line != line or column is None or end_column is None:
        return Location(code.co_filename, line, 0, 0, code.co_name)
    return Location(code.co_filename, line, column, end_column, code.co_name)


@lru_cache(maxsize=4096)
def _positions(code: CodeType) -> list[tuple[Any, ...]]:
    return list(code.co_positions())


class DerivativeError(DflowError, TypeError):
    """What is asked to be differentiated cannot be."""


class SpecializationWarning(UserWarning):
    """A function is compiled again and again because a number among its arguments is part of the program."""


class ZeroGradientWarning(UserWarning):
    """A gradient is zero whatever the arguments are."""


class RunTimeError(DflowError):
    """A check of compiled code failed; what is raised is also of the builtin class (IndexError, ...)."""


@lru_cache(maxsize=64)
def _run_time_class(builtin: Any) -> type[RunTimeError]:
    plain = {"__module__": __name__, "__init__": lambda self, *args: None, "__str__": lambda self: self.args[0]}
    return type(f"RunTime{builtin.__name__}", (RunTimeError, builtin), plain)


def run_time_error(error: BaseException, location: Location | None) -> BaseException:
    """An error of compiled code as the user sees it: with the line that it came from."""
    if location is None:
        return error
    builtin: Any = type(error)
    return _run_time_class(builtin)("\n".join([f"{location}: {str(error) or builtin.__name__}", *_excerpt(location)]))


def function_location(function: Any) -> Location | None:
    """Where a function is defined, if it has Python code."""
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    if code is None and getattr(function, "function", None) is not None:
        return function_location(function.function)
    return None if code is None else Location(code.co_filename, code.co_firstlineno, function=code.co_name)


class user_frames_only:
    """Cuts the frames of dflow out of tracebacks, as ``shortened`` does it."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is not None:
            shortened(error)


def shortened(error: BaseException) -> BaseException:
    """The error without the frames of dflow, if it is dflow's own or the user's code raised it.

    ``DFLOW_TRACEBACK=full`` leaves them.
    """
    trace = error.__traceback__
    if os.environ.get("DFLOW_TRACEBACK") == "full" or trace is None:
        return error
    if isinstance(error, DflowError):
        error.__suppress_context__ = True
        if error.__cause__ is not None and not _is_users(error.__cause__.__traceback__):
            error.__cause__ = None
    elif not _is_users(trace):
        return error
    error.__traceback__ = _cut(trace)
    return error


def _is_users(trace: TracebackType | None) -> bool:
    """Whether an error was raised by the user's code, or by an operation that was carried out for it."""
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    return is_user_frame(trace.tb_frame) or trace.tb_frame.f_globals.get("__name__") == "dflow.tracing.runtime"


def _cut(trace: TracebackType | None) -> TracebackType | None:
    if trace is None:
        return None
    rest = _cut(trace.tb_next)
    if not is_user_frame(trace.tb_frame):
        return rest
    return TracebackType(rest, trace.tb_frame, trace.tb_lasti, trace.tb_lineno)
