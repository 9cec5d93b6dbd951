"""Objects that a list has in another order now, which only the run knows: they are to be had from the list alone.

``xs.sort()`` by traced numbers makes new objects of the parts of the old ones, each of which may be any of those. What
is read by an old name would be what the object was before the sort, also where it has been updated through the list
since. So the parts of the old objects are *forgotten*: whoever reads one gets an error. A loop takes the objects of the
list apart, and each iteration begins with objects of its own in their place; where it forgets those, it forgets the
objects on entry too, in its body and after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from dflow.tracing.context import region
from dflow.tracing.control.state import Forgotten
from dflow.tracing.python.objects import is_mutable, parts, put_parts, watch


def forget(objects: Iterable[Any], holder: Any) -> None:
    """Forgets objects of which ``holder``, a list, has others in their place.

    A loop that sees them both from outside is to be traced once more, with objects of its own in their place."""
    loops = [r.loop.outside for r in region().around() if r.loop is not None and holder in r.loop.outside]
    forgotten = [x for x in objects if is_mutable(x) and not any(x in outside for outside in loops)]
    for x in forgotten:
        _hide(x)
    watch(region(), forgotten)


def is_forgotten(x: Any) -> bool:
    return any(isinstance(p, Forgotten) for p in parts(x).values())


@contextmanager
def hidden(objects: Iterable[Any]) -> Iterator[None]:
    """The objects are forgotten meanwhile."""
    before = [(x, parts(x)) for x in objects]
    for x, _ in before:
        _hide(x)
    try:
        yield
    finally:
        for x, contents in before:
            put_parts(x, contents)


def _hide(x: Any) -> None:
    reason = "this object has been sorted by traced numbers: which item of the list it is, is not known"
    put_parts(x, {k: Forgotten(str(k), was, reason, "take it from the list") for k, was in parts(x).items()})
