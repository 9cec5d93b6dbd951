"""The programs in C, with derivatives by hand, as callables. They need a C compiler, ``cc``."""

import ctypes
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-shared", "-fPIC", "-lm")


def library() -> ctypes.CDLL | None:
    """The compiled file, or None where there is no compiler."""
    folder = tempfile.mkdtemp()
    try:
        source = Path(__file__).with_name("by_hand.c")
        subprocess.run(["cc", str(source), *FLAGS, "-o", f"{folder}/by_hand.so"], check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return ctypes.CDLL(f"{folder}/by_hand.so")


def functions(
    name: str, args: tuple[Any, ...], compiled: ctypes.CDLL
) -> tuple[Callable[[], Any], Callable[[], Any]] | None:
    """Calls of ``name`` on ``args``: the value, and the derivative by the first; None when it is not in the library.

    Arrays become pointers, and the shape of the first array follows the arrays. The times have in them what Python adds
    to a call, some 0.3 us.
    """
    if not hasattr(compiled, name):
        return None
    value, gradient = getattr(compiled, name), getattr(compiled, f"{name}_gradient")
    value.restype = gradient.restype = ctypes.c_double
    passed = [_passed(x) for x in args]
    arrays = sum(isinstance(x, np.ndarray) for x in args)
    passed[arrays:arrays] = [ctypes.c_long(n) for n in _sizes(name, args)]
    bar = np.empty_like(args[0])

    def derivative() -> np.ndarray:
        gradient(*passed, pointer)
        return bar

    pointer = _passed(bar)
    return lambda: value(*passed), derivative


def _sizes(name: str, args: tuple[Any, ...]) -> tuple[int, ...]:
    if name in ("double_pendulum", "mandelbrot"):
        return ()
    if name == "sparse_product":
        return (len(args[-1]) - 1,)
    return args[0].shape[:1] if name == "particles" else args[0].shape


def _passed(x: Any) -> Any:
    if isinstance(x, np.ndarray):
        return ctypes.c_void_p(x.ctypes.data)
    return ctypes.c_double(x) if isinstance(x, float) else ctypes.c_long(x)
