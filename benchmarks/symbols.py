"""CasADi: programs over symbols, from which it writes C, compiled by ``cc``. Calls pass buffers, not its own arrays."""

import functools
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optree

from benchmarks.contest import Call, Case, Entry
from benchmarks.libraries import split

FLAGS = ["-O2", "-march=native", "-fno-math-errno"]  # -O3 takes minutes on some


def entry(case: Case, program: Callable[..., Any]) -> Entry:
    """Calls of ``program``, which takes matrices of symbols for the leading arrays, columns for vectors."""
    import casadi

    arrays, numbers = split(case.args)
    leaves, tree = optree.tree_flatten(arrays)
    leaves = [np.asarray(x) for x in leaves]
    count = len(optree.tree_leaves(arrays[0]))

    def make(gradient: bool) -> Call:
        symbols = [casadi.MX.sym(f"x{k}", *_matrix(x)) for k, x in enumerate(leaves)]
        result = program(*optree.tree_unflatten(tree, symbols), *numbers)
        outputs = [casadi.densify(casadi.gradient(result, x)) for x in symbols[:count]] if gradient else [result]
        shapes = [x.shape for x in leaves[:count]] if gradient else [() if result.is_scalar() else result.shape]
        return called(symbols, outputs, leaves, shapes)

    return Entry(functools.partial(make, False), functools.partial(make, True))


def called(symbols: Sequence[Any], outputs: Sequence[Any], args: Sequence[np.ndarray], shapes: Sequence[Any]) -> Call:
    """A call of the compiled function of ``symbols`` on ``args``; its results are those of ``shapes``."""
    import casadi

    compiler = {"flags": FLAGS, "directory": f"{folder().name}/", "cleanup": False}
    options = {"jit": True, "compiler": "shell", "jit_cleanup": False, "jit_options": compiler}
    buffer, trigger = casadi.Function("program", symbols, outputs, options).buffer()
    given = [np.array(x, dtype=float).ravel(order="F") for x in args]
    results = [np.zeros(int(np.prod(shape))) for shape in shapes]
    for k, x in enumerate(given):
        buffer.set_arg(k, memoryview(x))
    for k, x in enumerate(results):
        buffer.set_res(k, memoryview(x))
    shaped = tuple(x.reshape(shape, order="F") for x, shape in zip(results, shapes))

    def call(kept: Any = (buffer, given)) -> Any:
        trigger()
        return shaped

    return call


@functools.cache
def folder() -> Any:
    """Where its C is compiled; it goes in the end."""
    return tempfile.TemporaryDirectory()


def function(step: Callable[..., Any], *shapes: tuple[int, ...]) -> Any:
    """``step`` over scalars as a function of CasADi of matrices of these shapes."""
    import casadi

    symbols = [casadi.SX.sym(f"s{k}", *shape) for k, shape in enumerate(shapes)]
    found = step(*symbols)
    return casadi.Function("step", symbols, list(found) if isinstance(found, tuple) else [found])


def _matrix(x: np.ndarray) -> tuple[int, int]:
    return (x.shape + (1, 1))[:2]
