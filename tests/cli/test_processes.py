"""``dflow doctor``, help, and the command line as a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from programs_cli import NORM

import dflow
from dflow.cli import COMMANDS, doctor, main

ROOT = Path(__file__).parent.parent.parent


def test_doctor(dflow_says):
    said = dflow_says("doctor")
    assert [line[:14].strip() for line in said.splitlines()] == list(doctor.REPORT)
    assert "\nself-test      ok: x*sin(x)" in said


def test_doctor_that_finds_a_fault(monkeypatch, capsys):
    monkeypatch.setattr(dflow, "value_and_grad", lambda f: lambda x: (1.0, 2.0))
    assert main(["doctor"]) == 1
    assert "\nself-test      FAILED: ArithmeticError: x*sin(x) and its derivative at 0.7 are" in capsys.readouterr().out


def test_help(dflow_says):
    said = dflow_says("--help")
    for command, what in COMMANDS.items():
        assert f"  {command:<10}{what}\n" in said
        assert "\nexample" in dflow_says(command, "--help")
    assert dflow_says("--version") == f"dflow {dflow.__version__}\n"


def test_unknown_commands(refused):
    told = refused("compil")  # Python's versions differ in how the choices are listed
    assert told.startswith("argument COMMAND: invalid choice: 'compil'") and "doctor" in told
    assert told.endswith(")\n`dflow --help` shows how it is used")
    assert refused().endswith("`dflow --help` shows how it is used")
    assert refused("opt", "norm.ir", "--nope") == (
        "unrecognized arguments: --nope\n`dflow opt --help` shows how it is used"
    )


def test_traceback():
    with pytest.raises(FileNotFoundError):
        main(["opt", "missing.ir", "--traceback"])


def started(*argv: str, **how) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-m", "dflow", *argv], env=environment, **{**pipes, **how})


def test_as_a_process():
    with started("opt", "-", "--passes", "cse,dce", stdin=subprocess.PIPE) as p:
        out, err = p.communicate(NORM)
    assert (p.returncode, err) == (0, "") and "%b" not in out
    with started("run", "missing.ir") as p:
        out, err = p.communicate()
    assert (p.returncode, out, err) == (2, "", "dflow: error: missing.ir: No such file or directory\n")


def test_a_reader_that_leaves():
    reading, writing = os.pipe()
    os.close(reading)
    with started("opt", "norm.ir", stdout=writing) as p:
        os.close(writing)
        assert p.stderr.read() == ""
    assert p.returncode == 141


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_interrupt(folder):
    os.mkfifo(folder / "never.ir")
    # Where the tests run in the background of a script, interrupts are ignored, and children inherit that.
    with started("opt", "never.ir", preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)) as p:
        writer = os.open(folder / "never.ir", os.O_WRONLY)  # waits until the command reads
        p.send_signal(signal.SIGINT)
        assert p.stderr.read() == "dflow: interrupted\n"
        os.close(writer)
    assert p.returncode == 130
