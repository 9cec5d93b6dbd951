"""Makes the helpers beside the tests importable (``from programs_ir import ...``) however pytest is started."""

import sys
from pathlib import Path

from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))

# The same examples every time: a failure is seen again, and a test run on a busy machine does not fail for slowness.
settings.register_profile("dflow", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("dflow")
