"""What went wrong, in one message."""

from __future__ import annotations

import traceback
from types import TracebackType


class UsageError(Exception):
    """The command cannot be carried out; the message says all there is to say."""


def _speaks(e: BaseException) -> bool:
    """Whether its message is written for the user, and needs no class in front."""
    from dflow.backends.native.library import LibraryError  # `--help` needs none of these
    from dflow.errors import DflowError
    from dflow.ir.evaluator import EvaluationError
    from dflow.ir.passes.transpose import NotLinearError
    from dflow.ir.registry import NoDerivativeError
    from dflow.ir.verifier import VerificationError
    from dflow.programs.signature_text import SignatureError

    language = UsageError, DflowError, SignatureError, LibraryError
    return isinstance(e, (*language, EvaluationError, NoDerivativeError, NotLinearError, VerificationError))


def message(e: BaseException) -> str:
    """The message of an exception, with its class where the message does not speak for itself."""
    lines = [_text(e), *getattr(e, "__notes__", ())]
    place = getattr(e, "loc", None)
    if not isinstance(e, OSError) and not _speaks(e):
        place = _user_line(e.__traceback__)
    return "\n".join([*lines, f"at {place}"] if place else lines)


def _text(e: BaseException) -> str:
    if _speaks(e):
        return str(e)
    if isinstance(e, OSError) and e.strerror:
        return f"{e.filename}: {e.strerror}" if e.filename else e.strerror
    return "".join(traceback.format_exception_only(type(e), e)[:1]).strip()


def _user_line(found: TracebackType | None) -> str | None:
    """The innermost place outside of dflow that an exception came through."""
    from dflow.errors import is_user_frame

    place = None
    while found is not None:
        if is_user_frame(found.tb_frame):
            place = f"{found.tb_frame.f_code.co_filename}:{found.tb_lineno}"
        found = found.tb_next
    return place
