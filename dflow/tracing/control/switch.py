"""What is done with a value that is chosen when the program runs (``Choice``): the same with each option."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from dflow.errors import DflowError
from dflow.tracing.arrays import lift as _lift
from dflow.tracing.arrays.array import Array
from dflow.tracing.context import builder, region
from dflow.tracing.control.branches import choose, raised
from dflow.tracing.control.option_index import equal
from dflow.tracing.python.choice import Choice

Run = Callable[[Any], Any]


def switch(x: Choice, run: Run) -> Any:
    """``run`` of the option that is chosen; a ``functools.partial``, whose objects a branch sees."""
    return _switch(x.index, possible(x), run)


def _switch(index: Any, options: Sequence[tuple[int, Any]], run: Run) -> Any:
    (k, option), *rest = options
    if not rest:
        return _tried(run, option)
    return choose(equal(index, k), partial(_tried, run, option), partial(_switch, index, tuple(rest), run))


def _tried(run: Run, option: Any) -> Any:
    """What cannot be done with an option is an error only where that is chosen, when the program runs."""
    try:
        return run(option)
    except (AttributeError, LookupError) as e:
        raise e if isinstance(e, DflowError) else raised(e) from None


def possible(x: Choice) -> list[tuple[int, Any]]:
    """The options that may be chosen here, with their positions."""
    if not isinstance(x.index, Array):
        return [(x.index, x.options[x.index])]
    known = region().known
    low, high = known.interval(x.index.value)
    if low < 0 or high >= len(x.options):
        low, high = max(low, 0), min(high, len(x.options) - 1)
        known.define(x.index.value, (low, high))
    return [(k, option) for k, option in enumerate(x.options) if low <= k <= high] or [*enumerate(x.options)]


def asked(x: Choice, ask: Run) -> Any:
    """A question that has a known answer for each option and changes nothing."""
    answers = [(k, ask(option)) for k, option in possible(x)]
    if any(type(a) is not bool for _, a in answers):
        return switch(x, partial(_answered, dict(answers), x))
    yes = [k for k, a in answers if a]
    if len(yes) in (0, len(answers)):
        return bool(yes)
    no = [k for k, a in answers if not a]
    few, op = (yes, "eq") if len(yes) <= len(no) else (no, "ne")
    tests = [equal(x.index, k, op) for k in few]
    found = tests[0]
    for t in tests[1:]:
        found = _lift.wrap(builder().emit("or" if op == "eq" else "and", found.value, t.value), weak=True)
    return found


def _answered(answers: dict[int, Any], x: Choice, option: Any) -> Any:
    return next(a for k, a in answers.items() if x.options[k] is option)
