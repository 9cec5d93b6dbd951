"""Arrays in the memory of a GPU, and programs that run there."""
