"""Transformations of the IR, one a file, and the pipeline that optimizes a program.

A pass is a function ``Function -> Function`` that edits nothing in place. ``PASSES`` has them by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import dflow.ir.ops  # noqa: F401  (fills the table of operations)
from dflow.ir.core import Function
from dflow.ir.passes.accumulate import accumulate
from dflow.ir.passes.canonicalize import canonicalize
from dflow.ir.passes.counted import counted
from dflow.ir.passes.cse import cse
from dflow.ir.passes.dce import dce
from dflow.ir.passes.forwards import forwards
from dflow.ir.passes.induction import induction
from dflow.ir.passes.inline import inline_calls
from dflow.ir.passes.licm import licm
from dflow.ir.passes.overwrite import overwrite
from dflow.ir.passes.ranges import ranges
from dflow.ir.passes.slices import slices
from dflow.ir.passes.unchecked import unchecked
from dflow.ir.passes.unroll import unroll

Pass = Callable[[Function], Function]

PASSES: dict[str, Pass] = {
    "accumulate": accumulate,
    "canonicalize": canonicalize,
    "counted": counted,
    "cse": cse,
    "dce": dce,
    "forwards": forwards,
    "induction": induction,
    "licm": licm,
    "overwrite": overwrite,
    "ranges": ranges,
    "slices": slices,
    "unchecked": unchecked,
    "unroll": unroll,
}

PIPELINE = (
    "canonicalize",
    "counted",  # after constants stand in additions, before anything asks what is carried
    "induction",
    "cse",
    "dce",  # fewer carried values for the range analysis, and fewer uses for the rules that ask for a single one
    "ranges",
    "forwards",
    "slices",  # after checks are gone and loops walk forwards
    "overwrite",  # after loops walk forwards, and before what they fill leaves the loops around
    "canonicalize",  # branches and selections that the range analysis has decided
    "unroll",  # after checks are gone, and before what loops do not change leaves them
    "licm",
    "accumulate",  # after what loops do not change stands outside of them
    "cse",  # what left several loops, or was repeated outside of them, may be the same
    "dce",
)


Check = bool | Literal["last"]


def optimize(f: Function, *, check: Check = False, observe: Callable[[str, Function], None] | None = None) -> Function:
    """``f`` optimized for running. ``check`` verifies after each pass, or after the ``"last"``; ``observe`` is shown
    what each pass made."""
    for k, name in enumerate(PIPELINE):
        f = PASSES[name](f)
        if check is True or (check and k == len(PIPELINE) - 1):
            from dflow.ir.verifier import verify

            verify(f, after=name)
        if observe is not None:
            observe(name, f)
    return f


__all__ = [
    "PASSES",
    "PIPELINE",
    "Check",
    "Pass",
    "accumulate",
    "canonicalize",
    "counted",
    "cse",
    "dce",
    "forwards",
    "induction",
    "inline_calls",
    "licm",
    "optimize",
    "ranges",
    "unroll",
]
