"""One compiled program for one function and transformation, however often the transformation is asked for.

So ``dflow.grad(f)(x)`` inside a loop compiles once. There are two steps:

- what was made of a function object is kept on it, and found again as long as the names in the function refer to the
  same things;
- a function that is made anew each time (a lambda in the loop) shares its compiled programs with earlier ones that mean
  the same (``dflow.programs.identity``), down to the contents of the arrays that it closes over.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from types import FunctionType
from typing import Any

from dflow.programs.identity import Bindings, identity, is_transformed

MAX_SHARED = 1024

_ATTRIBUTE = "__dflow__"  # on a function: what was made of it, so that both go away together


class _Made(dict[Hashable, Any]):
    """What was made of a function, by recipe. It does not travel in a pickle of the function."""

    def __reduce__(self) -> Any:
        return _Made, ()


def shared(make: Callable[[], Any], function: Any, recipe: Hashable) -> Any:
    """``make()``, or what it made before for just this function object and recipe."""
    if not (isinstance(function, FunctionType) or is_transformed(function)):
        return make()
    table = vars(function).setdefault(_ATTRIBUTE, _Made())
    found = table.get(recipe)
    if found is not None and found[1].hold():
        return found[0]
    made = make()
    table[recipe] = made, Bindings(function)
    return made


class Programs:
    """Compiled programs by what they mean; those that were used last are kept."""

    def __init__(self) -> None:
        self._made: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, function: Any, recipe: Hashable, signature: Hashable, make: Callable[[], Any]) -> Any:
        """The program of ``function`` as it is now, transformed by ``recipe``, for ``signature``."""
        meaning = identity(function)
        if meaning is None:
            return make()
        key = meaning, recipe, signature
        with self._lock:
            if key in self._made:
                self._made.move_to_end(key)
                return self._made[key]
        made = make()
        with self._lock:
            self._made[key] = made
            while len(self._made) > MAX_SHARED:
                self._made.popitem(last=False)
        return made

    def clear(self) -> None:
        """Forgets all programs; functions that have them keep theirs."""
        with self._lock:
            self._made.clear()


PROGRAMS = Programs()
