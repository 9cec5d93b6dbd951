"""The examples of docs/command-line.md: the files in it are written, the commands run, and their output compared."""

from __future__ import annotations

import doctest
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dflow.cli import main

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
# A block is a file when the text before it ends with the file's name.
FILES = re.findall(r"`(\w+\.(?:py|c|ir))`[:,]\n\n```\w*\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = [
    (command, output)
    for block in re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL)
    for command, output in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
]


@pytest.fixture
def shell(tmp_path, monkeypatch):
    """A folder with the files, where ``dflow`` is a command."""
    for name, text in FILES:
        (tmp_path / name).write_text(text)
    command = tmp_path / "bin" / "dflow"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m dflow "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("model", None)


@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")
def test_examples(shell, capfd):
    assert {name for name, _ in FILES} == {"model.py", "main.c", "norm.ir"} and len(COMMANDS) > 10
    for command, wanted in COMMANDS:
        if re.search(r"[|&]", command):
            subprocess.run(command, shell=True, check=True)
        else:
            main(shlex.split(command)[1:])  # in this process, which is quicker
        out, err = capfd.readouterr()
        flags = doctest.ELLIPSIS
        assert doctest.OutputChecker().check_output(wanted, out + err, flags), f"$ {command}\n{out}{err}"


def test_the_header_is_as_shown(shell, capfd):
    main(shlex.split(COMMANDS[0][0])[1:])
    shown = re.search(r"```c\n(/\* energy_value_and_grad.*?)```", TEXT, re.DOTALL)
    assert shown and shown[1] in Path("libenergy.h").read_text()


@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")
def test_commands_of_the_readme(shell, tmp_path, capfd):
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    commands = re.findall(
        r"^(dflow (?:show|opt|run|compile|doctor).*)$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    printed = ""
    for command in commands:
        words, _, target = command.partition("#")[0].partition(" > ")
        assert not main(shlex.split(words)[1:]), command
        out = capfd.readouterr().out
        printed += out
        if target:
            (tmp_path / target.strip()).write_text(out)
    assert len(commands) == 6 and "[12.9" in printed and (tmp_path / "libloss.so").exists()
