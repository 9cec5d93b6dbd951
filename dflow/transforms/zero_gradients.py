"""Warns of a gradient that is zero whatever the arguments: nothing depends on the argument, or only in steps."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from types import FrameType

import numpy as np

from dflow.errors import ZeroGradientWarning, failure, is_user_frame
from dflow.ir.core import Function, Location, Value
from dflow.ir.passes import optimize
from dflow.ir.passes.steps import depends, lost


def warn_of_zeros(f: Function, made: Function, wrt: Sequence[int], names: Sequence[str], count: int, name: str) -> None:
    """``made`` is the gradient of ``f`` by its parameters ``wrt``, its first ``count`` results being those of ``f``."""
    zero = [i for i, r in zip(wrt, made.results[count:]) if _is_zero(r)]
    if not zero:
        return
    simple = optimize(f)
    for i in zero:
        if not depends(simple, i, simple.results[:1]):
            why = f"the result does not depend on {names[i]}"
            _warn(f"the gradient of {name} by {names[i]} is zero: {why}", "choose other arguments by argnums", None)
            continue
        step = lost(simple, i)
        if step is not None and step.name != "custom":
            what = f"convert to {step.result.type.dtype}" if step.name == "convert" else step.name
            why = f"the result depends on {names[i]} only in steps ({what})"
            mend = "use a smooth function there, or choose other arguments by argnums"
            _warn(f"the gradient of {name} by {names[i]} is zero: {why}", mend, step.loc)


def _is_zero(v: Value) -> bool:
    while v.op is not None and v.op.name == "broadcast":
        v = v.op.operands[0]
    return v.op is not None and v.op.name == "constant" and not np.any(v.op.attrs["value"])


given = 0  # how many warnings there have been


def _warn(what: str, mend: str, location: Location | None) -> None:
    global given
    given += 1
    message = failure(ZeroGradientWarning, what, mend=mend, location=location)
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not is_user_frame(frame):
        frame = frame.f_back
    place = (frame.f_code.co_filename, frame.f_lineno) if frame else ("dflow", 1)
    warnings.warn_explicit(str(message), ZeroGradientWarning, *place)
