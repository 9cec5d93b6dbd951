"""Looking into compiled functions while they run: ``check_finite``, ``breakpoint`` and ``print``."""

from __future__ import annotations

import builtins
import string
import sys
from collections.abc import Callable
from typing import Any

from dflow.backends.cuda.launch.timeline import Timeline
from dflow.errors import is_user_frame
from dflow.programs.reference import Finite
from dflow.programs.transform import Jit
from dflow.tracing.arrays.array import Array
from dflow.tracing.context import builder, tracing
from dflow.tracing.python import printing
from dflow.tracing.python.functions import BUILTINS


def check_finite(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, run step by step; stops at the first operation that makes NaN or infinity of finite numbers.

    Raises FloatingPointError with the operation, its operands and the user's line. ``function`` may be compiled or
    a derivative (``check_finite(dflow.grad(f))``). It is slow: the reference evaluator runs it.
    """
    if not isinstance(function, Jit):
        return Jit(function, recipe=(check_finite,), make=Finite)
    nums, names = function.static_argnums, function.static_argnames
    recipe = (_checked, *function.recipe)
    return Jit(function.function, function.inner, function.kind, nums, names, recipe, Finite)


def _checked(function: Callable[..., Any], make: Callable[..., Any], *options: Any) -> Callable[..., Any]:
    return check_finite(make(function, *options))


def breakpoint() -> None:
    """Stops in Python's debugger with the values of the variables around; in a trace it needs ``backend="reference"``.

    The variables are those that the surrounding function, branch or loop uses. So does Python's own ``breakpoint()``.
    """
    if not tracing():
        builtins.breakpoint()
        return
    frame = sys._getframe(1)
    while not is_user_frame(frame) and frame.f_back is not None:
        frame = frame.f_back
    found = {n: v for n, v in frame.f_locals.items() if isinstance(v, Array) and not n.startswith("_dflow")}
    builder().append("breakpoint", [v.value for v in found.values()], {"names": tuple(found)})


BUILTINS[builtins.breakpoint] = breakpoint


def print(fmt: str, *args: Any, ordered: bool = False, **kwargs: Any) -> None:
    """Prints ``fmt.format(*args, **kwargs)`` when the program runs, as ``jax.debug.print`` does.

    Python's ``print`` with an f-string does the same. ``ordered`` changes nothing: texts come in the order of the
    program.
    """
    formatter = string.Formatter()
    parts: list[Any] = []
    count = 0
    for text, field, spec, conversion in formatter.parse(fmt):
        parts.append(text)
        if field is not None:
            automatic = field[:1] in ("", ".", "[")
            name = f"{count}{field}" if automatic else field
            count += automatic
            value = formatter.get_field(name, args, kwargs)[0]
            parts.append((value, conversion or "", formatter.vformat(spec or "", args, kwargs)))
    printing.print(printing.joined(*parts))


def timeline() -> Timeline:
    """When each kernel ran on a GPU: ``with dflow.debug.timeline() as t: f(x)``, then ``print(t)``.

    Afterwards ``t.launches`` has for each launch the kernel, what it computes with the user's line, and when it began
    and ended, in microseconds. Programs run kernel by kernel meanwhile, not as recorded graphs.
    """
    return Timeline()


__all__ = ["breakpoint", "check_finite", "print", "timeline"]
