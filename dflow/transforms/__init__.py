"""Transformations of programs: derivatives, batching, rules of the user's."""
