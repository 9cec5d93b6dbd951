"""docs/numpy.md lists what is covered. ``DFLOW_UPDATE=1`` writes the lists anew."""

import os
import re
import textwrap
from pathlib import Path

import numpy as np

import dflow.numpy as dnp

PAGE = Path(__file__).parents[2] / "docs" / "numpy.md"
COVERED = "that works on traced arrays, by the file that defines it:"
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


def page(text: str) -> str:
    head, _, _ = text.partition(COVERED)
    files = "\n\n".join(f"**{file}**: {listed(names)}" for file, names in sorted(covered().items()))
    return f"{head}{COVERED}\n\n{files}\n\n{REFUSED}\n\n{listed(refused())}\n"


def test_the_page_lists_what_is_covered():
    text = PAGE.read_text()
    if os.environ.get("DFLOW_UPDATE"):
        PAGE.write_text(page(text))
    assert PAGE.read_text() == page(text), "run this test with DFLOW_UPDATE=1"
