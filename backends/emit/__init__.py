"""A `Plan` as LLVM's assembly language."""
