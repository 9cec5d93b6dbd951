"""A contest: each case of a group is run by all who can, after a check that they agree.

A group names its cases and, for each contestant, how it enters: a function from a case to an `Entry`, which may raise
ImportError (not installed) or `Unsupported` (cannot run it); then it is left out, and everything else goes on.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optree

from benchmarks.footprint import Footprint, footprints
from benchmarks.measure import Memory, Once, Ratio, Table, Time, measure

Call = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """A function of ``args``, differentiated by the first of them."""

    title: str
    function: Callable[..., Any]
    args: tuple[Any, ...]

    @property
    def name(self) -> str:
        return self.function.__name__


class Unsupported(Exception):
    """Raised where a contestant cannot run a case."""


@dataclass(frozen=True)
class Entry:
    """What makes a call of the value and of the gradient; a first call compiles, in the making or then.

    Results are anything that NumPy makes arrays of, or tuples and dicts of them.
    """

    value: Callable[[], Call] | None = None
    gradient: Callable[[], Call] | None = None
    compiles: bool = True  # whether a first call differs from others


Column = Callable[[Case, str, Mapping[str, Time]], Any]


@dataclass(frozen=True)
class Group:
    """``module`` is where the group is the global GROUP, for other processes to find it.

    ``warm`` is a small case that runs before a first call is measured, which then has not in it what comes but once.
    """

    module: str
    cases: Callable[[], Sequence[Case]]
    warm: Case
    contestants: Mapping[str, Callable[[Case], Entry]]
    columns: Mapping[str, Column] = field(default_factory=dict)
    tolerance: float = 1e-8  # of the relative difference of results from dflow's
    note: str = ""


def over(a: str, b: str) -> Column:
    """The ratio of the medians of two contestants."""
    return lambda case, what, times: Ratio(times[a].median / times[b].median) if a in times and b in times else "-"


def over_best(name: str) -> Column:
    """The ratio of the median of one over the least of the others'."""

    def ratio(case: Case, what: str, times: Mapping[str, Time]) -> Any:
        others = [t.median for other, t in times.items() if other != name]
        return Ratio(times[name].median / min(others)) if others and name in times else "-"

    return ratio


def tables(group: Group) -> Iterator[Table]:
    """The times of values and of gradients, their ratio, first calls, and peaks of memory."""
    names, cases = list(group.contestants), group.cases()
    times = [timed(group, case) for case in cases]
    for what in ("value", "gradient"):
        if any(t[what] for t in times):
            yield comparison(group, cases, what, [t[what] for t in times])
    costs = [{n: Ratio(t["gradient"][n].median / t["value"][n].median) for n in _both(t)} for t in times]
    yield _means(_table("Gradient / value", names, cases, costs))
    found = footprints(group.module, names, len(cases))
    for title, cell in CELLS.items():
        yield _table(title, names, cases, [{n: cell(f[k]) for n, f in found.items()} for k in range(len(cases))])


CELLS: dict[str, Callable[[Footprint], Any]] = {
    "First call of the value": lambda f: "-" if f.value is None else Once(f.value),
    "First call of the gradient": lambda f: "-" if f.gradient is None else Once(f.gradient),
    "Peak of memory": lambda f: "-" if f.memory is None else Memory(f.memory),
}


def timed(group: Group, case: Case) -> dict[str, dict[str, Time]]:
    """The times of value and gradient by contestant."""
    entries = {name: entry for name, enter in group.contestants.items() if (entry := entered(enter, case))}
    times = {}
    for what in ("value", "gradient"):
        makers = {name: make for name, entry in entries.items() if (make := getattr(entry, what))}
        times[what] = measure(agreeing(makers, f"the {what} of {case.title}", group.tolerance), rounds=7)
    return times


def entered(enter: Callable[[Case], Entry], case: Case) -> Entry | None:
    try:
        return enter(case)
    except (ImportError, Unsupported):
        return None


def agreeing(makers: Mapping[str, Callable[[], Call]], what: str, tolerance: float) -> dict[str, Call]:
    """Calls of those who can; raises AssertionError when results differ."""
    runs, results = {}, {}
    for name, make in makers.items():
        with contextlib.suppress(Unsupported):
            runs[name] = make()
            results[name] = flat(runs[name]())
            size = np.linalg.norm(results["dflow"]) or 1.0
            error = np.linalg.norm(results[name] - results["dflow"]) / size
            assert error < tolerance, f"{name} disagrees with dflow on {what} by {error:.1e}"
    return {name: runs[name] for name in results}


def flat(result: Any) -> np.ndarray:
    return np.concatenate([np.ravel(np.asarray(x)) for x in optree.tree_leaves(result)])


def comparison(group: Group, cases: Sequence[Case], what: str, times: Sequence[Mapping[str, Time]]) -> Table:
    """The contestants that take part, and the columns of the group."""
    names = [n for n in group.contestants if any(n in t for t in times)]
    table = _table(what.capitalize(), names, cases, times)
    table.columns = [*table.columns, *group.columns]
    table.rows = [
        (*row, *(column(c, what, t) for column in group.columns.values()))
        for row, c, t in zip(table.rows, cases, times)
    ]
    return _means(table, group.note)


def _table(title: str, names: Sequence[str], cases: Sequence[Case], cells: Sequence[Mapping[str, Any]]) -> Table:
    shown = [n for n in names if any(c.get(n, "-") != "-" for c in cells)]
    rows = [(case.title, *(c.get(n, "-") for n in shown)) for case, c in zip(cases, cells)]
    return Table(title, ["case", *shown], list(rows))


def _both(times: Mapping[str, Mapping[str, Time]]) -> list[str]:
    return [name for name in times["gradient"] if name in times["value"]]


def _means(table: Table, note: str = "") -> Table:
    """Adds the geometric means of the ratios."""
    means = []
    for k, column in enumerate(table.columns):
        if found := [row[k].times for row in table.rows if isinstance(row[k], Ratio)]:
            means.append(f"{column}: {statistics.geometric_mean(found):.3g}")
    table.note = " ".join([f"Ratios are of medians. Geometric means: {'; '.join(means)}.", note]).strip()
    return table
