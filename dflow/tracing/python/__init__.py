"""Python's functions, objects and texts with traced values in them."""
