"""docs/numpy.md lists what is covered. ``DFLOW_UPDATE=1`` writes the lists anew and tries functions that are new;
``DFLOW_UPDATE=all`` tries all of them again, which takes minutes."""

import os
import re
import textwrap
from pathlib import Path

import numpy as np
from surface import features

import dflow.numpy as dnp

PAGE = Path(__file__).parents[2] / "docs" / "numpy.md"
COVERED = "that works on traced arrays, by the file that defines it:"
HEADER = "| file | derivatives | `vmap` | complex | functions |"
REFUSED = "Functions that refuse traced arrays, each with an error that says so:"
ABOUT_OTHER_THINGS = re.compile(
    "busday|datetime|is_busday|isnat|printoptions|err|buf|load|save|from|txt|string|_repr|_str$|format_float|test|show_"
    "|info|include|typename|isfortran|nested_iters|bmat|asmatrix|base_repr|isdtype|issubdtype|iterable|promote_types"
    "|mintypecode|broadcast_shapes|einsum_path|get_"
)


def listed(names) -> str:
    text = ", ".join(f"`{n}`" for n in sorted(names))
    return "\n".join(textwrap.wrap(text, 118, break_on_hyphens=False))


def covered() -> dict[str, set[str]]:
    files: dict[str, set[str]] = {}
    for name in dir(dnp):
        f = getattr(dnp, name)
        if callable(f) and hasattr(f, "__wrapped__"):
            files.setdefault(f.__wrapped__.__module__.rpartition(".")[2], set()).add(name)
    return files


def refused() -> set[str]:
    known = {*dir(dnp), *(u.__name__ for u in dnp.dispatch.UFUNCS)}
    found = {n for n in dir(np) if not n.startswith("_") and callable(getattr(np, n)) and n not in known}
    return {n for n in found if not isinstance(getattr(np, n), type) and not ABOUT_OTHER_THINGS.search(n)}


def known(text: str) -> dict[str, tuple[str, ...]]:
    """What the page says of each function."""
    rows = (
        line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ") and line.count("`") > 1
    )
    return {n: tuple(row[1:4]) for row in rows if len(row) == 5 for n in re.findall(r"`(\w+)`", row[4])}


def tried(text: str, update: str | None) -> dict[str, tuple[str, ...]]:
    old = {} if update == "all" else known(text)
    names = sorted(set().union(*covered().values()))
    return {n: old[n] if n in old else features(n) if update else ("?", "?", "?") for n in names}


def table(found: dict[str, tuple[str, ...]]) -> str:
    rows = [HEADER, "|---|---|---|---|---|"]
    for file, names in sorted(covered().items()):
        groups: dict[tuple[str, ...], list[str]] = {}
        for n in sorted(names):
            groups.setdefault(found[n], []).append(n)
        for marks, group in sorted(groups.items(), key=lambda pair: -len(pair[1])):
            rows.append(f"| {file} | {' | '.join(marks)} | {', '.join(f'`{n}`' for n in group)} |")
    return "\n".join(rows)


def page(text: str, update: str | None = None) -> str:
    head, _, _ = text.partition(COVERED)
    return f"{head}{COVERED}\n\n{table(tried(text, update))}\n\n{REFUSED}\n\n{listed(refused())}\n"


def test_the_page_lists_what_is_covered():
    text, update = PAGE.read_text(), os.environ.get("DFLOW_UPDATE")
    if update:
        PAGE.write_text(page(text, update))
    text = PAGE.read_text()
    assert text == page(text), "run this test with DFLOW_UPDATE=1"
    assert not any("wrong" in marks or "?" in marks for marks in known(text).values())


def test_what_the_page_says_is_so():
    """A few of the functions, tried again."""
    said = known(PAGE.read_text())
    for name in ("multiply", "unique"):
        assert said[name] == features(name)
