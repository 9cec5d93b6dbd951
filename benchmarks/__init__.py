"""Benchmarks: ``python -m benchmarks [group ...]``. Each group is a module with ``run()``, which yields tables."""
