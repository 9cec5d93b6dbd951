"""A folder to work in, and ways to call the command line."""

from __future__ import annotations

import sys

import pytest
from programs_cli import CALLS, NORM, PROGRAM

from dflow.cli import main


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder with ``sample.py`` and some programs, which is the current one."""
    (tmp_path / "sample.py").write_text(PROGRAM)
    (tmp_path / "norm.ir").write_text(NORM)
    (tmp_path / "calls.ir").write_text(CALLS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in {"sample", "broken"} & (set(sys.modules) - before):
        del sys.modules[name]


@pytest.fixture
def dflow_says(capsys):
    """What a command prints; it must succeed."""

    def run(*argv: str) -> str:
        status = main(argv)
        out, err = capsys.readouterr()
        assert (status, err) == (0, "")
        return out

    return run


@pytest.fixture
def refused(capsys):
    """The message of a command that must fail."""

    def run(*argv: str) -> str:
        status = main(argv)
        out, err = capsys.readouterr()
        assert (status, out) == (2, "")
        assert err.startswith("dflow: error: ") and "Traceback" not in err
        return err.removeprefix("dflow: error: ").rstrip("\n")

    return run
