"""How contestants take functions as they are written: Numba and NumPy, and libraries with a NumPy of their own.

Programs that assign to nothing (``functional.py`` of a group) name what they need besides ``np``: ``scan``, with the
arguments of ``jax.lax.scan``, and ``segment_sum``. `Library.rewired` puts a library's own in their places. PyTorch and
autograd run eagerly, operation by operation: their loops are Python's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

import numpy as np
import optree

from benchmarks.contest import Call, Case, Entry, Unsupported


@dataclass(frozen=True)
class Library:
    """``names`` are the globals of rewired functions; ``array`` moves one in, ``wait`` returns when a result is there.

    ``gradient`` is by the first argument; ``derivatives`` are transformations by name, as JAX calls them.
    """

    names: Mapping[str, Any]
    array: Callable[[np.ndarray], Any]
    gradient: Callable[[Callable[..., Any]], Callable[..., Any]]
    jit: Callable[[Callable[..., Any]], Callable[..., Any]] = lambda f: f
    wait: Callable[[Any], Any] = lambda x: x
    derivatives: Mapping[str, Any] = field(default_factory=dict)

    def rewired(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with all functions of its module, in the library's names."""
        return rewired(function, {**self.names, **self.derivatives})

    def moved(self, args: Any) -> Any:
        return optree.tree_map(lambda x: self.array(x) if isinstance(x, np.ndarray | float) else x, args)

    def entry(self, case: Case, value: Callable[..., Any] | None, gradient: Callable[..., Any] | None) -> Entry:
        """Calls of functions of the case's arguments; numbers among them are constants."""
        arrays, numbers = split(case.args)
        moved = self.moved(arrays)

        def call(f: Callable[..., Any]) -> Call:
            compiled = self.jit(lambda *a: f(*a, *numbers))
            return lambda: self.wait(compiled(*moved))

        return Entry(*(None if f is None else functools.partial(call, f) for f in (value, gradient)))


def rewired(function: Any, names: Mapping[str, Any], through: Callable[[Any], Any] = lambda f: f) -> Any:
    """The function with other globals: ``names``, and the functions of its module, rewired and ``through`` alike."""
    home = function.__globals__
    space = {**home, **names}
    for name, f in home.items():
        if isinstance(f, FunctionType) and name not in names:
            space[name] = through(FunctionType(f.__code__, space, name, f.__defaults__, f.__closure__))
    return space[function.__name__]


def in_numba(case: Case) -> Entry:
    """The value by Numba, of the case's function as it stands and of those that it calls."""
    import numba

    def make() -> Call:
        call = functools.partial(rewired(case.function, {}, numba.njit), *case.args)
        try:
            call()
        except numba.errors.NumbaError as error:  # Numba has not all of NumPy
            raise Unsupported(case.title) from error
        return call

    return Entry(make)


def in_numpy(case: Case) -> Entry:
    """The value by NumPy and Python's loops."""
    return Entry(lambda: functools.partial(case.function, *case.args), compiles=False)


def split(args: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The first argument and the arrays behind it, and the numbers behind them."""
    n = next((k for k, x in enumerate(args) if k and isinstance(x, int | float)), len(args))
    return args[:n], args[n:]


@functools.cache
def jax() -> Library:
    import jax
    from jax import numpy

    jax.config.update("jax_enable_x64", True)
    return Library(
        {"np": numpy, "scan": jax.lax.scan, "segment_sum": jax.ops.segment_sum},
        numpy.asarray,
        jax.grad,
        jax.jit,
        jax.block_until_ready,
        {name: getattr(jax, name) for name in ("grad", "jvp", "vmap", "jacfwd", "jacrev")},
    )


@functools.cache
def pytorch() -> Library:
    import torch

    from benchmarks.torch_numpy import TorchNumpy

    torch.set_default_dtype(torch.float64)

    def segment_sum(x: Any, segments: Any, count: int) -> Any:
        return torch.zeros(count).index_add(0, segments, x)

    def gradient(f: Callable[..., Any]) -> Callable[..., Any]:
        """By the tape of PyTorch, which costs less than ``torch.func.grad``."""

        def of(x: Any, *args: Any) -> Any:
            leaves, tree = optree.tree_flatten(x)
            leaves = [leaf.detach().requires_grad_() for leaf in leaves]
            found = torch.autograd.grad(f(optree.tree_unflatten(tree, leaves), *args), leaves)
            return optree.tree_unflatten(tree, found)

        return of

    numpy = TorchNumpy()
    return Library(
        {"np": numpy, "scan": functools.partial(loop, numpy.stack), "segment_sum": segment_sum},
        torch.asarray,
        gradient,
        wait=lambda result: optree.tree_map(lambda x: torch.as_tensor(x).detach(), result),
        derivatives={name: getattr(torch.func, name) for name in ("grad", "jvp", "vmap", "jacfwd", "jacrev")},
    )


@functools.cache
def autograd() -> Library:
    import autograd
    from autograd import numpy

    return Library(
        {"np": numpy, "scan": functools.partial(loop, numpy.stack)},
        lambda x: x,
        autograd.grad,
        derivatives={"grad": autograd.grad},
    )


def loop(stack: Callable[..., Any], step: Any, carry: Any, xs: Any, length: int | None = None, reverse: bool = False):
    """``jax.lax.scan`` as a loop of Python."""
    count = length if length is not None else len(optree.tree_leaves(xs)[0])
    found = []
    for k in reversed(range(count)) if reverse else range(count):
        carry, y = step(carry, optree.tree_map(lambda x, k=k: x[k], xs))
        found.append(y)
    if reverse:
        found.reverse()
    return carry, optree.tree_map(lambda *y: stack(y), *found)
