"""Iterators: what has been taken from one cannot be put back.

A block that is traced stands for many runs of it, and tracing may begin it anew: so it takes only from iterators that
it has made itself.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Iterator
from types import GeneratorType
from typing import Any

from dflow.errors import OnceError, TraceError, failure
from dflow.tracing.context import TRACE, region
from dflow.tracing.python.objects import Snapshot, unchanged

UNKNOWN = -1


def take_from(iterator: Any) -> None:
    """Takes note that items are taken; raises OnceError for an iterator from outside of a traced block."""
    if any(r.kind != TRACE and r.reach.reaches(iterator) for r in region().around()):
        raise failure(
            OnceError,
            "an item is taken from an iterator in a branch or loop that is traced, where that would happen once only",
            seen=f"a {type(iterator).__name__} from outside of it",
            mend="loop over the sequence itself with `for`, or take its items by an index",
        )
    held, count = region().root().taken.get(id(iterator), (None, 0))
    if count == UNKNOWN and held is not None and held() is iterator:
        raise failure(
            OnceError,
            "an item is taken from an iterator after a loop over it whose end is known only when the program runs",
            mend="loop over the sequence itself with `for`, or take its items by an index",
        )
    _note(iterator, max(count, 0) + 1)


def leave_alone(iterator: Any) -> None:
    """How many items are taken is known only when the program runs: no more can be."""
    _note(iterator, UNKNOWN)


def _note(iterator: Any, count: int) -> None:
    region().root().taken[id(iterator)] = (_held(iterator), count)


def _held(iterator: Any) -> Callable[[], Any]:
    """What gives the iterator. A generator ends, and runs its `finally`, when the program lets go of it."""
    return weakref.ref(iterator) if isinstance(iterator, GeneratorType) else lambda: iterator


def taken_from(snapshot: Snapshot) -> dict[int, int]:
    """How often items were taken from the iterators that a snapshot reaches."""
    return {k: count for k, (held, count) in region().root().taken.items() if snapshot.reaches(held())}


def perhaps_next(iterator: Iterator[Any], owner: Any) -> Any:
    """The next item where Python might take none any more: it may change nothing that others see.

    ``owner`` is what the program loops over. Raises StopIteration, and TraceError for changes.
    """
    before, here = _held_by(owner), region()
    objects, mark = Snapshot(before.values()), here.mark()
    try:
        return next(iterator)
    finally:
        now = _held_by(owner)
        outer = owner.gi_code.co_freevars if isinstance(owner, GeneratorType) else ()
        names = any(n in before and n in now and not unchanged(before[n], now[n]) for n in outer)
        if names or objects.changes() or here.has_updated(mark):
            raise failure(
                TraceError,
                "an iterator changes something when it is asked for an item, after a `break` or `return` that is known "
                "only when the program runs",
                seen=f"a {type(owner).__name__}",
                mend="loop over a range or an array, and make these changes in the loop's body",
            )


def _held_by(owner: Any) -> dict[str, Any]:
    """The variables of a generator, now; or the object itself."""
    return dict(inspect.getgeneratorlocals(owner)) if isinstance(owner, GeneratorType) else {"": owner}
