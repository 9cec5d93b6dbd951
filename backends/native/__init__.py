"""Machine code: made, kept on disk, loaded, and called from Python and from C."""
