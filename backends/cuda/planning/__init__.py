"""Which operations make a kernel together, and what the host does between kernels."""
