"""Numbers among the arguments that a function cannot be traced without: sizes, axes, switches, keys of dicts.

A number is traced, and one program serves all its values, wherever that is possible. Where tracing fails, it is tried
again with Python's integers and truth values as they are (and, where that does not help, its floats): they are part
of the program then, as if ``static_argnums`` had named them, and each of their values has a program of its own. Of
those numbers only the ones that are needed are kept so.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from dflow.errors import (
    CarriedError,
    NeedsStatic,
    ShapeError,
    SpecializationWarning,
    TraceError,
    TraceIndexError,
    failure,
    function_location,
)
from dflow.programs.signature import WHOLE, Arguments
from dflow.tracing.arrays.array import Array

MANY = 32  # programs of one function, from which on it is told that they differ in a number alone
SLOW = 0.5  # seconds of tracing, from which on it is not tried which of the numbers are needed


def helps(error: TraceError) -> bool:
    """Whether known numbers may help: a value was needed, a loop could be unrolled, or NumPy's own function would
    serve. They do not where shapes do not fit, a name is missing or a number is too large."""
    return isinstance(error, NeedsStatic | CarriedError | TraceIndexError) or type(error) is TraceError


class Specialized:
    """What has been found out about the arguments of one function."""

    def __init__(self) -> None:
        self.known: dict[Any, frozenset[int]] = {}  # by signature: positions among the leaves
        self.counts: dict[Any, int] = {}

    def apply(self, arguments: Arguments) -> None:
        """Sets the numbers aside that programs for such arguments are known to need."""
        if self.known:
            positions = self.known.get((arguments.spec, arguments.types))
            if positions:
                arguments.set_aside(positions)

    def learn(
        self,
        error: TraceError,
        arguments: Arguments,
        anew: Callable[[], Arguments],
        trace: Callable[[Arguments], Any],
        floats: bool,
    ) -> TraceError | None:
        """Finds out which numbers must be known for the function to be traced, which failed with ``error``. If none
        help, what went wrong when all integers were known. ``anew`` makes the arguments once more, ``trace`` raises
        TraceError where they will not do. What it made of the arguments that do is left with ``arguments``, unless
        there were warnings, which are given when it is traced again."""
        failures: list[TraceError] = []

        def works(positions: frozenset[int]) -> bool:
            again = anew()
            again.set_aside(positions)
            try:
                with warnings.catch_warnings(record=True) as told:
                    warnings.simplefilter("always")
                    made = trace(again)
            except TraceError as e:
                failures.append(e)
                return False
            arguments.traced = None if told else made
            return True

        for kinds in (WHOLE, (*WHOLE, float, np.floating))[: 1 + floats]:
            positions = frozenset(
                i
                for i, x in enumerate(arguments.all_leaves)
                if isinstance(x, kinds) and not isinstance(x, Array) and i not in arguments.fixed
            )
            began = time.perf_counter()
            if positions and works(positions):
                if time.perf_counter() - began < SLOW:
                    positions = _needed(positions, works)
                elif kinds is not WHOLE:
                    break
                self.known[arguments.spec, arguments.types] = positions
                return None
        return failures[0] if failures else error

    def help(
        self,
        error: TraceError,
        arguments: Arguments,
        anew: Callable[[], Arguments],
        trace: Callable[[Arguments], Any],
        floats: bool = False,
    ) -> bool:
        """Whether the function can be traced after all: then the numbers that it needs are set aside.

        Raises ShapeError where a number is needed, and is no size, axis or whatever it is used for.
        """
        if arguments.numbers or not helps(error):
            return False
        needed = isinstance(error, NeedsStatic)
        failed = self.learn(error, arguments, anew, trace, floats and needed)
        if needed and isinstance(failed, ShapeError):
            raise failed from None
        if failed:
            return False
        self.apply(arguments)
        return True

    def count(self, arguments: Arguments, name: str) -> None:
        """Tells once that a number is met with ever new values."""
        if not arguments.numbers:
            return
        key = arguments.spec, tuple(arguments.all_types)
        self.counts[key] = self.counts.get(key, 0) + 1
        if self.counts[key] == MANY:
            numbers = ", ".join(arguments.names_of(arguments.numbers))
            message = failure(
                SpecializationWarning,
                f"{name} is compiled anew for each value of {numbers}: {MANY} programs so far",
                mend="say how large it can become (assert n <= 1000), or take it from the shape of an array",
                location=function_location(arguments.function),
            )
            warnings.warn(str(message), SpecializationWarning, stacklevel=2)


def _needed(positions: frozenset[int], works: Callable[[frozenset[int]], bool]) -> frozenset[int]:
    """The positions without those that can be left out, one after the other."""
    for i in sorted(positions):
        if len(positions) > 1 and works(positions - {i}):
            positions -= {i}
    return positions
