"""``checkpoint``: functions whose derivative keeps nothing but their arguments."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from dflow.errors import TraceError, failure, user_frames_only
from dflow.ir.rules import CHECKPOINT, apply
from dflow.programs.methods import Method
from dflow.programs.signature import Arguments
from dflow.tracing.context import builder, tracing
from dflow.transforms.call_records import CallRecord


class checkpoint(Method):
    """A function of which the reverse pass keeps the arguments alone, and computes the rest again.

    Memory for time: calls in a loop keep the arguments of each iteration instead of all that its derivative needs. It
    changes no value and no derivative. ``static_argnums`` are arguments that are known while tracing. Works as a
    decorator; ``dflow.lax.scan(..., checkpoint=True)`` arranges a loop for it. ``prevent_cse`` is there for programs
    of JAX, and changes nothing; a ``policy`` is refused.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        static_argnums: int | Sequence[int] = (),
        *,
        policy: Any = None,
        prevent_cse: bool = True,
    ):
        if policy is not None:
            raise failure(
                TraceError,
                "checkpoint keeps the arguments alone, and takes no policy",
                seen=f"policy={getattr(policy, '__name__', policy)!r}",
                mend="leave policy out; without checkpoint a minimum cut chooses what is kept",
            )
        functools.update_wrapper(self, function, updated=())
        self.function = function
        self.static_argnums = (static_argnums,) if isinstance(static_argnums, int) else tuple(static_argnums)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not tracing():
            return self.function(*args, **kwargs)
        with user_frames_only():
            record = CallRecord(
                self.function, Arguments(self.function, args, kwargs, self.static_argnums, keep_known=True)
            )
            return record.results(apply(builder(), CHECKPOINT, record.operands(), record.function.body))


__all__ = ["checkpoint", "remat"]


remat = checkpoint  # JAX's name for it
