"""``dflow doctor``: what this installation consists of, and whether it works."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

import llvmlite.binding as llvm
import numpy as np

import dflow
from dflow.backends.cuda.launch.driver import DeviceError, device
from dflow.backends.native import blas, entry, object_cache
from dflow.backends.native.library import LibraryError, linker
from dflow.cli.messages import message

FEATURES = ("avx2", "fma", "avx512f", "neon", "sve")  # those that matter for speed


def describe(parser: argparse.ArgumentParser) -> None:
    parser.description = "Prints what dflow finds here, and tests itself. The exit status is 1 when a test fails."
    parser.epilog = "example:\n  dflow doctor\n"


def run(arguments: argparse.Namespace) -> int:
    failed = False
    for label, find in REPORT.items():
        try:
            found = find()
        except Exception as e:
            found, failed = f"FAILED: {message(e)}", True
        print(f"{label:<14} {found}", flush=True)
    return 1 if failed else 0


def _package(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _python() -> str:
    return f"{platform.python_version()} ({platform.python_implementation()}, {platform.system()} {platform.machine()})"


def _llvm() -> str:
    return f"{_package('llvmlite')} (LLVM {'.'.join(map(str, llvm.llvm_version_info))})"


def _processor() -> str:
    features = llvm.get_host_cpu_features()
    present = [f for f in FEATURES if features.get(f)]
    return f"{llvm.get_host_cpu_name()}, with {', '.join(present) or 'no vector extensions'}"


def _cores() -> str:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{usable} usable of {os.cpu_count()}"


def _entries() -> str:
    if entry.available():
        return "yes"
    return "no: calls from Python take a slower path, for this Python or NumPy lays out its objects in another way"


def _blas() -> str:
    if blas.source() == "SciPy" and importlib.util.find_spec("scipy") is None:
        return "none: NumPy hides its own, and SciPy is not installed"
    return f"that of {blas.source()}"


def _linker() -> str:
    try:
        return " ".join(linker())
    except LibraryError as e:
        return f"none: {e}"


def _gpu() -> str:
    """The first device, or what is missing."""
    try:
        return str(device())
    except DeviceError as e:
        return f"none: {e}"


def _gpu_libraries() -> str:
    """Whether matrices on a GPU are left to NVIDIA's libraries."""
    if importlib.util.find_spec("nvmath") is None:
        return "none: nvmath-python is not installed, so kernels of dflow do their work"
    blas, solver = (importlib.import_module(f"nvmath.bindings.{name}") for name in ("cublas", "cusolverDn"))
    try:
        device().activate()
        for library in (blas, solver):
            library.destroy(library.create())
    except Exception as e:
        return f"none: {message(e)}"
    return f"cuBLAS and cuSOLVER, through nvmath-python {_package('nvmath-python')}"


def _cache() -> str:
    place = object_cache.folder()
    if place is None:
        return "off: functions are compiled anew in each process"
    count, size = object_cache.size()
    return f"{place} ({count} programs, {size / 2**20:.1f} of {object_cache.limit() / 2**20:.0f} MiB)"


def _self_test() -> str:
    """Compiles and differentiates x*sin(x)."""
    x = 0.7
    value, slope = dflow.value_and_grad(_x_sin_x)(x)
    wanted = x * np.sin(x), np.sin(x) + x * np.cos(x)
    if not np.allclose((value, slope), wanted, rtol=1e-14):
        raise ArithmeticError(f"x*sin(x) and its derivative at {x} are {wanted}, but came out as {(value, slope)}")
    return f"ok: x*sin(x) and its derivative at {x} are {value:.12g} and {slope:.12g}"


def _x_sin_x(x: float) -> float:
    return x * np.sin(x)


REPORT: dict[str, Callable[[], str]] = {
    "dflow": lambda: dflow.__version__,
    "Python": _python,
    "NumPy": lambda: _package("numpy"),
    "llvmlite": _llvm,
    "SciPy": lambda: _package("scipy"),
    "optree": lambda: _package("optree"),
    "ml_dtypes": lambda: f"{_package('ml_dtypes')}, for bfloat16",
    "processor": _processor,
    "cores": _cores,
    "native calls": _entries,
    "BLAS": _blas,
    "C compiler": _linker,
    "GPU": _gpu,
    "GPU matrices": _gpu_libraries,
    "cache": _cache,
    "self-test": _self_test,
}
