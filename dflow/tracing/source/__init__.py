"""A function's source, rewritten so that its control flow, calls and updates can be traced."""
