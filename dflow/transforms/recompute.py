"""``checkpoint``: functions whose derivative keeps nothing but their arguments, and what a policy chooses."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from dflow import trees
from dflow.checkpoint_policies import Policy, nothing_saveable
from dflow.errors import TraceError, failure, user_frames_only
from dflow.ir.builder import Builder
from dflow.ir.rules import Named, apply
from dflow.ir.types import kind_of
from dflow.programs.methods import Method
from dflow.programs.signature import Arguments
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import wrap
from dflow.tracing.context import builder, tracing
from dflow.tracing.python.calls import call
from dflow.transforms.call_records import CallRecord


class checkpoint(Method):
    """A function of which the reverse pass keeps the arguments alone, and computes the rest again.

    Memory for time: calls in a loop keep the arguments of each iteration instead of all that its derivative needs. It
    changes no value and no derivative. ``static_argnums`` are arguments that are known while tracing. Works as a
    decorator; ``dflow.lax.scan(..., checkpoint=True)`` arranges a loop for it. ``policy``, one of
    ``dflow.checkpoint_policies``, says what else is kept. ``prevent_cse`` is there for programs of JAX, and changes
    nothing.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        static_argnums: int | Sequence[int] = (),
        *,
        policy: Policy | None = None,
        prevent_cse: bool = True,
    ):
        if not isinstance(policy, Policy | None):
            raise failure(
                TraceError,
                "checkpoint takes a policy of dflow.checkpoint_policies",
                seen=f"policy={getattr(policy, '__name__', policy)!r}",
                mend="name what is to be kept by dflow.checkpoint_name, and take save_only_these_names(...)",
            )
        functools.update_wrapper(self, function, updated=())
        self.function = function
        self.policy = nothing_saveable if policy is None else policy
        self.static_argnums = (static_argnums,) if isinstance(static_argnums, int) else tuple(static_argnums)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        rule = self.policy.rule
        if not tracing() or rule is None:
            return call(self.function, *args, **kwargs) if tracing() else self.function(*args, **kwargs)
        with user_frames_only():
            record = CallRecord(
                self.function, Arguments(self.function, args, kwargs, self.static_argnums, keep_known=True)
            )
            return record.results(apply(builder(), rule, record.operands(), record.function.body))


@functools.cache
def _rule_of(name: str) -> Named:
    return Named(name)


def checkpoint_name(x: Any, name: str) -> Any:
    """``x``, a tree, under a name by which policies of ``checkpoint`` choose it."""

    def one(leaf: Any) -> Any:
        if not isinstance(leaf, Array) or kind_of(leaf.dtype) not in "fc":
            return leaf
        same = Builder([leaf.value.type])
        return wrap(apply(builder(), _rule_of(name), [leaf.value], same.finish(same.args))[0], leaf.weak)

    return trees.map_leaves(one, x)


__all__ = ["checkpoint", "checkpoint_name", "remat"]


remat = checkpoint  # JAX's name for it
