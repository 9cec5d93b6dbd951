"""Programs that are loops: value and gradient in dflow, its peers, and C with derivatives written by hand."""

from benchmarks.loops.run import run as run
