"""Traced arrays: operators, indices, views, dtypes and sizes."""
