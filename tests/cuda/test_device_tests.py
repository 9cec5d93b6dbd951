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
    files = [tmp_path / "test_some.py", tmp_path / "test_unreadable.py"]
    files[0].write_text(TESTS)
    files[1].write_text("import a_package_that_is_not_installed")
    out = tmp_path / "out"
    command = [sys.executable, str(SCRIPT), "--interpreter", "--out", str(out), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1 and "3 failed, 1 passed, 1 skipped" in done.stdout
    lines = (out / "results.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["passed", "failed", "failed", "skipped", "failed"]
    assert "for a reason" in lines[-2]
    told = (out / "failures.txt").read_text()
    assert 'assert not "here"' in told and "its process ended with 3" in told and "a_package_that_is_not" in told
