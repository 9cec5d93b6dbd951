"""The script that runs the tests on a GPU: what fails, and what ends its process, is written down, and it goes on."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent.parent / "device_tests.py"
TESTS = """
import os, pytest
@pytest.fixture(params=["interpreter"])
def gpu(request): return None
def test_passes(gpu): pass
def test_fails(gpu): assert not "here"
def test_ends_all(gpu): os._exit(3)
def test_comes_after(gpu): pytest.skip("for a reason")
"""


def test_every_result_is_written_down(tmp_path):
    (tmp_path / "test_some.py").write_text(TESTS)
    out = tmp_path / "out"
    command = [sys.executable, str(SCRIPT), "--interpreter", "--out", str(out), str(tmp_path / "test_some.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1 and "2 failed, 1 passed, 1 skipped" in done.stdout
    lines = (out / "results.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["passed", "failed", "failed", "skipped"]
    assert "for a reason" in lines[-1]
    told = (out / "failures.txt").read_text()
    assert 'assert not "here"' in told and "its process ended" in told
