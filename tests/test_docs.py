"""The examples in README.md and under docs/: their code runs, and does what the text says.

- ```python blocks of a page run in order, in one namespace.
- In ``expression  # result``, the result is what Python prints for the expression, at four digits.
- ```python needs=package blocks run where the package is installed.
- A ```text block right after a ```python block is what the code prints. ``DFLOW_UPDATE=1`` writes it anew.
"""

import ast
import importlib.util
import os
import re
import runpy
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
OWN_TEST = {"command-line.md"}  # its blocks are files and shell sessions: tests/test_command_line_docs.py
PAGES = sorted(p for p in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")] if p.name not in OWN_TEST)
BLOCK = re.compile(r"^```(\w*)(?: needs=(\w+))?\n(.*?)^```$", re.M | re.S)
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def run(code: str, offset: int, file: Path, names: dict) -> None:
    """Runs a block with the line numbers of the page, and checks what comments say of results."""
    lines = code.splitlines()
    for statement in ast.parse(code).body:
        last = lines[statement.end_lineno - 1]
        said = last[statement.end_col_offset :].strip()
        ast.increment_lineno(statement, offset)
        where = f"line {statement.lineno}: {last}"
        if isinstance(statement, ast.Expr) and said.startswith("# "):
            value = eval(compile(ast.Expression(statement.value), file, "eval"), names)
            assert shown(value) == said[2:], where
        else:
            exec(compile(ast.Module([statement], []), file, "exec"), names)


def shown(value) -> str:
    """A value as the page shows it, on one line."""
    if isinstance(value, tuple | list):
        inner = ", ".join(map(shown, value))
        return f"[{inner}]" if isinstance(value, list) else f"({inner}{',' * (len(value) == 1)})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k!r}: {shown(v)}" for k, v in value.items()) + "}"
    if isinstance(value, float):
        return f"{value:.1f}" if float(value).is_integer() else f"{value:.4g}"
    return " ".join(str(value).split()).replace("[ ", "[")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_examples(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = page.read_text()
    file = tmp_path / f"{page.stem}.py"  # dflow reads the source of functions from files
    blocks = list(BLOCK.finditer(text))
    file.write_text("".join(_padded(text, [b for b in blocks if _runs(b)])))
    names: dict = {"__name__": "__main__", "__file__": str(file)}
    new, done, printed, after = "", 0, "", -1
    with np.printoptions(precision=4, suppress=True):
        for block in blocks:
            if _runs(block):
                capsys.readouterr()
                run(block[3], text[: block.start(3)].count("\n"), file, names)
                printed, after = capsys.readouterr().out, block.end()
            elif block[1] == "text" and not text[after : block.start()].strip() and after >= 0:
                new += text[done : block.start(3)] + printed.rstrip() + "\n"
                done = block.end(3)
    new += text[done:]
    if os.environ.get("DFLOW_UPDATE") and new != text:
        page.write_text(new)
    else:
        assert new == text, "run the test with DFLOW_UPDATE=1 to write what is printed, and look at the difference"


def _runs(block: re.Match) -> bool:
    return block[1] == "python" and (block[2] is None or importlib.util.find_spec(block[2]) is not None)


def _padded(text: str, blocks: list[re.Match]) -> list[str]:
    """The lines of the page, those outside the blocks empty, so that line numbers agree."""
    inside = {n for b in blocks for n in range(text[: b.start(3)].count("\n"), text[: b.end(3)].count("\n"))}
    return [line if n in inside else "\n" for n, line in enumerate(text.splitlines(keepends=True))]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = re.sub(r"`[^`\n]*`", "", BLOCK.sub("", page.read_text()))
    missing = [link for link in LINK.findall(text) if not (page.parent / link).exists()]
    assert not missing


def test_the_reference_is_that_of_the_docstrings():
    page = ROOT / "docs" / "api.md"
    text = runpy.run_path(str(ROOT / "docs" / "api.py"))["document"]()
    if os.environ.get("DFLOW_UPDATE"):
        page.write_text(text)
    assert page.read_text() == text, "run: python docs/api.py > docs/api.md"
