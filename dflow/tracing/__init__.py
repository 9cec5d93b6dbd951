"""Python functions to IR: rewritten source, run on traced arrays."""

from dflow.tracing.arrays import array as array  # before those that are built on it and that it uses
