"""From IR to machine code: fusion, bufferization, LLVM emission, the CPU engine, ahead-of-time libraries."""

if __name__ != "dflow.backends":
    raise ImportError(f"this package is imported as 'dflow.backends', not as {__name__!r}")
