"""Python functions to IR: rewritten source, run on traced arrays."""
