"""Types of results without computing them: ``eval_shape``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dflow import trees
from dflow.errors import TraceError, user_frames_only
from dflow.programs.program import trace_program, traced_before
from dflow.programs.signature import Arguments, ShapeDtypeStruct
from dflow.programs.specialized import Specialized
from dflow.tracing.context import tracing


def eval_shape(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The tree that ``function(*args, **kwargs)`` returns, with a ``ShapeDtypeStruct`` for each leaf.

    The function is traced and not run. Arguments may be ``ShapeDtypeStruct`` too.
    """

    def arguments() -> Arguments:
        return Arguments(function, args, kwargs, keep_known=tracing())

    with user_frames_only():
        given = arguments()
        try:
            program = trace_program(function, given)
        except TraceError as e:
            if not Specialized().help(e, given, arguments, lambda a: trace_program(function, a)):
                raise
            program = traced_before(given) or trace_program(function, given)
    outputs = program.traced.outputs
    return trees.unflatten(program.out_spec, [ShapeDtypeStruct(t.static_shape, t.dtype.numpy) for t in outputs])


def shape_of(x: Any, axis: int | None = None) -> ShapeDtypeStruct:
    """The type of an array, or of its slices along ``axis``."""
    shape = np.shape(x)
    kept = shape if axis is None else shape[:axis] + shape[axis + 1 :]
    return ShapeDtypeStruct(kept, x.dtype if hasattr(x, "dtype") else np.asarray(x).dtype)


__all__ = ["ShapeDtypeStruct", "eval_shape", "shape_of"]
