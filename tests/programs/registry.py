"""The list of programs, and what is known of each."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Program:
    """A function with arguments.

    ``wrt``: the arguments to differentiate by. ``static``: names of static arguments. ``rtol``: how far results may be
    from those of plain Python, relative to the largest number of each result (integers are always equal).
    ``derivative_rtol``: the same for forward mode against central differences of plain Python with ``step``.
    ``order``: the highest order of derivatives to compare. ``updates``: arguments that are updated in place.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    wrt: tuple[int, ...]
    static: tuple[str, ...]
    updates: tuple[int, ...]
    rtol: float
    derivative_rtol: float
    step: float
    order: int

    @property
    def name(self) -> str:
        return f"{self.function.__module__.rpartition('.')[2]}.{self.function.__name__}"

    def fresh(self) -> list[Any]:
        return copy.deepcopy(list(self.args))


PROGRAMS: list[Program] = []


def program(
    *args: Any,
    wrt: int | Sequence[int] = (),
    static: str | Sequence[str] = (),
    updates: int | Sequence[int] = (),
    rtol: float = 1e-12,
    derivative_rtol: float = 1e-6,
    step: float = 1e-6,
    order: int = 1,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enters a function in the list; see ``Program``."""

    def numbers(x: int | Sequence[int]) -> tuple[int, ...]:
        return (x,) if isinstance(x, int) else tuple(x)

    names = (static,) if isinstance(static, str) else tuple(static)

    def enter(function: Callable[..., Any]) -> Callable[..., Any]:
        made = Program(function, args, numbers(wrt), names, numbers(updates), rtol, derivative_rtol, step, order)
        PROGRAMS.append(made)
        return function

    return enter
