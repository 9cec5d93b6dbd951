"""The problems at the sizes that are measured, with what was published of GradBench's tools."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.contest import Case
from benchmarks.gradbench import inputs
from benchmarks.gradbench.problems import PROBLEMS
from benchmarks.measure import Once, Ratio, Time

TOOLS = ("C++ by hand", "Tapenade", "Enzyme", "CoDiPack", "JAX", "PyTorch")


@dataclass(frozen=True)
class ProblemCase(Case):
    """A problem at a size.

    ``published``: milliseconds of the value in C++ by hand, and of the derivative by ``TOOLS``, on one thread of
    another machine of the kind; None where a tool does not offer the problem.
    """

    problem: str
    published: tuple[float | None, ...] = (None,) * 7

    @property
    def name(self) -> str:
        return self.problem


def case(problem: str, size: str, given: Any, *published: float | None) -> ProblemCase:
    known = PROBLEMS[problem]
    title = f"{problem}, {size}" if size else problem
    return ProblemCase(title, known.value or known.functions["rr"], known.prepare(given), problem, published)


def cases() -> list[Case]:
    return list(_cases())


def _cases() -> Iterator[Case]:
    yield case("hello", "", 3.0)
    yield case("lse", "n=1280000", inputs.lse(1_280_000), 7.1, 5.0, None, 9.2, 18.8, 3.8, 6.7)
    yield case("llsq", "n=16392 m=1024", inputs.llsq(16392, 1024), 15, 31, None, 79, 117, 243, None)
    yield case("det", "10", inputs.det(10), 22, 227, None, 747, 64, None, None)
    yield case("ode", "n=1000 s=10", inputs.ode(1000, 10), 0.008, None, None, 0.029, 0.173, 0.084, None)
    yield case("kmeans", "k=1000 n=10000 d=16", inputs.kmeans(1000, 10000, 16), 43, 48, None, 100, None, 215, 596)
    yield case("gmm", "d=32 k=50 n=1000", inputs.gmm(32, 50), 9.8, 26.5, 30.5, 135, 205, 53, 28)
    yield case("lstm", "l=2 c=1024", inputs.lstm(2, 1024), 1.2, 7.9, 4.2, 2.6, 3.4, None, 515)
    yield case("lstm", "l=4 c=4096", inputs.lstm(4, 4096), 10, 104, 35, 21, 27, None, 4270)
    yield case("ba", "1", inputs.ba(1), 0.72, 4.2, 10.3, 6.1, 13.2, None, 22800)
    yield case("ht", "simple 1", inputs.ht("simple", 1), 1.6, 7.9, 135, 73, 87, None, 4900)
    yield case("ht", "complicated 1", inputs.ht("complicated", 1))
    yield case("particle", "w=0", {"w": 0.0})
    yield case("saddle", "", {"start": [1.0, 1.0]})


def published(of: Case, what: str, times: Mapping[str, Time]) -> Any:
    found = _best(of, what)
    return f"{Once(found[1] / 1e3)} ({found[0]})" if found else "-"


def over_published(of: Case, what: str, times: Mapping[str, Time]) -> Any:
    found = _best(of, what)
    return Ratio(times["dflow"].median / (found[1] / 1e3)) if found else "-"


def _best(of: Any, what: str) -> tuple[str, float] | None:
    given = of.published or (None,)
    named = zip(TOOLS, given[1:]) if what == "gradient" else zip(TOOLS, given[:1])
    known = [(tool, ms) for tool, ms in named if ms is not None]
    return min(known, key=lambda pair: pair[1], default=None)
