"""Variables of a traced loop that hold texts, functions or the like: it carries a number that says which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dflow.tracing.context import entered
from dflow.tracing.control.option_index import replaced
from dflow.tracing.control.slots import Again, Node, Path
from dflow.tracing.python.choice import Choice, is_fixed, is_option, joined, options_of, position

if TYPE_CHECKING:
    from dflow.tracing.control.traced_loop import TracedLoop


def as_choice(x: Any, options: Sequence[Any]) -> Choice:
    """``x`` as one of ``options``."""
    return Choice(replaced(x, options) if isinstance(x, Choice) else position(x, options), options)


def is_choice(x: Any) -> bool:
    """Whether ``x`` is one of several values without parts, or can be."""
    return is_option(x) and all(map(is_fixed, options_of(x)))


def left(traced: TracedLoop, path: Path, old: Any, new: Any) -> Any:
    """What the body leaves in a part of a variable, as a ``Choice`` where it is one of several things."""
    known = traced.learnt.choices.get(path)
    before = old.origin if isinstance(old, Node) else old
    if not is_choice(new) or not (known or is_choice(before)):
        return new
    if known is None and (before is new or (not isinstance(new, Choice) and position(new, (before,)) is not None)):
        return new
    options = joined(known or options_of(before), options_of(new))
    if known is None or len(options) > len(known):
        traced.learnt.choices[path] = options
        raise Again
    with entered(traced.region):
        return as_choice(new, options)
