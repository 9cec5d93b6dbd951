"""Iterators: what has been taken from one cannot be put back.

A block that is traced stands for many runs of it, and tracing may begin it anew: so it takes only from iterators that
it has made itself.
"""

from __future__ import annotations

from typing import Any

from dflow.errors import OnceError, failure
from dflow.tracing.context import TRACE, region
from dflow.tracing.objects import Snapshot

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
    taken = region().root().taken
    count = taken.get(id(iterator), (None, 0))[1]
    if count == UNKNOWN:
        raise failure(
            OnceError,
            "an item is taken from an iterator after a loop over it whose end is known only when the program runs",
            mend="loop over the sequence itself with `for`, or take its items by an index",
        )
    taken[id(iterator)] = (iterator, count + 1)


def leave_alone(iterator: Any) -> None:
    """How many items are taken is known only when the program runs: no more can be."""
    region().root().taken[id(iterator)] = (iterator, UNKNOWN)


def taken_from(snapshot: Snapshot) -> dict[int, int]:
    """How often items were taken from the iterators that a snapshot reaches."""
    return {k: count for k, (x, count) in region().root().taken.items() if snapshot.reaches(x)}
