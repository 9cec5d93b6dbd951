"""Textual cases, one file a pass: ``cases/PASS.ir`` holds functions and what the pass makes of them.

A case is a line ``## what it shows``, a function, ``# becomes``, and the function that is expected. To write the
expected functions anew (and then to read the difference): ``DFLOW_UPDATE_CASES=1 pytest tests/passes/test_cases.py``.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dflow.ir.parser import parse_function, parse_module
from dflow.ir.passes import PASSES, inline_calls
from dflow.ir.printer import print_function
from dflow.ir.verifier import verify_module

FOLDER = Path(__file__).parent / "cases"
UPDATE = bool(os.environ.get("DFLOW_UPDATE_CASES"))


def cases() -> list[tuple[str, str, str, str]]:
    """Pass, title, before, after."""
    found = []
    for file in sorted(FOLDER.glob("*.ir")):
        for case in file.read_text().split("## ")[1:]:
            title, text = case.split("\n", 1)
            before, _, after = text.partition("# becomes\n")
            found.append((file.stem, title, before.strip(), after.strip()))
    return found


def transform(name: str, before: str) -> str:
    module = parse_module(before)
    verify_module(module)
    f = inline_calls(module) if name == "inline" else PASSES[name](module.entry)
    return print_function(f)


@pytest.mark.parametrize("name, title, before, after", cases(), ids=lambda text: text[:60] if "\n" not in text else "")
def test_case(name: str, title: str, before: str, after: str) -> None:
    became = transform(name, before)
    if not UPDATE:
        assert became == after
        assert print_function(parse_function(after)) == after


@pytest.mark.skipif(not UPDATE, reason="rewrites the expected functions")
def test_update() -> None:
    for file in FOLDER.glob("*.ir"):
        head = file.read_text().split("## ")[0]
        own = [c for c in cases() if c[0] == file.stem]
        texts = (f"## {title}\n{before}\n# becomes\n{transform(name, before)}\n" for name, title, before, _ in own)
        file.write_text(head + "\n".join(texts))
