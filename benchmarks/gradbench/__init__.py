"""The problems of GradBench (github.com/gradbench/gradbench) as plain NumPy with Python loops, differentiated by dflow.

``python -m benchmarks.gradbench.adapter`` is a tool of GradBench: its own harness can drive and validate it.
"""

from benchmarks.gradbench.run import run as run
