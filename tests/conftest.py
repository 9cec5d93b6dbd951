"""Set up for all tests."""

import gc
import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# The helpers beside the tests are importable (``from programs_ir import ...``) however pytest is started.
sys.path.insert(0, str(Path(__file__).parent))

# The verifier runs after each pass.
os.environ["DFLOW_CHECK"] = "1"

# Tests compile what they run.
os.environ["DFLOW_CACHE"] = "off"

# The same examples every time: a failure is seen again, and a test run on a busy machine does not fail for slowness.
settings.register_profile("dflow", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("dflow")


@pytest.fixture(autouse=True, scope="module")
def _frozen():
    """Collections do not go through what the files before have left: the programs of thousands of tests."""
    gc.freeze()
