"""What went wrong, in one message."""

from __future__ import annotations

import traceback
from types import TracebackType

from dflow.backends.library import LibraryError
from dflow.errors import DflowError, is_user_frame
from dflow.ir.evaluator import EvaluationError
from dflow.ir.passes.transpose import NotLinearError
from dflow.ir.registry import NoDerivativeError
from dflow.ir.verifier import VerificationError
from dflow.signature_text import SignatureError


class UsageError(Exception):
    """The command cannot be carried out; the message says all there is to say."""


# Written for the user: they need no class in front.
_SPEAKING = (
    UsageError,
    DflowError,
    SignatureError,
    LibraryError,
    EvaluationError,
    NoDerivativeError,
    NotLinearError,
    VerificationError,
)


def message(e: BaseException) -> str:
    """The message of an exception, with its class where the message does not speak for itself."""
    lines = [_text(e), *getattr(e, "__notes__", ())]
    place = getattr(e, "loc", None)
    if not isinstance(e, (*_SPEAKING, OSError)):
        place = _user_line(e.__traceback__)
    return "\n".join([*lines, f"at {place}"] if place else lines)


def _text(e: BaseException) -> str:
    if isinstance(e, _SPEAKING):
        return str(e)
    if isinstance(e, OSError) and e.strerror:
        return f"{e.filename}: {e.strerror}" if e.filename else e.strerror
    return "".join(traceback.format_exception_only(type(e), e)[:1]).strip()


def _user_line(found: TracebackType | None) -> str | None:
    """The innermost place outside of dflow that an exception came through."""
    place = None
    while found is not None:
        if is_user_frame(found.tb_frame):
            place = f"{found.tb_frame.f_code.co_filename}:{found.tb_lineno}"
        found = found.tb_next
    return place
