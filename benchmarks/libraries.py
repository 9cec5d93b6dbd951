"""JAX, PyTorch and autograd: libraries that run what is written for NumPy when they are given a NumPy of their own.

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

from benchmarks.contest import Call, Case, Entry


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
        home = function.__globals__  # type: ignore[attr-defined]
        space = {**home, **self.names, **self.derivatives}
        for name, f in home.items():
            if isinstance(f, FunctionType) and name not in self.names and name not in self.derivatives:
                space[name] = FunctionType(f.__code__, space, name, f.__defaults__, f.__closure__)
        return space[function.__name__]

    def moved(self, args: Any) -> Any:
        return optree.tree_map(lambda x: self.array(x) if isinstance(x, np.ndarray) else x, args)

    def entry(self, case: Case, value: Callable[..., Any] | None, gradient: Callable[..., Any] | None) -> Entry:
        """Calls of functions of the case's arguments; numbers among them are constants."""
        arrays, numbers = split(case.args)
        moved = self.moved(arrays)

        def call(f: Callable[..., Any]) -> Call:
            compiled = self.jit(lambda *a: f(*a, *numbers))
            return lambda: self.wait(compiled(*moved))

        return Entry(*(None if f is None else functools.partial(call, f) for f in (value, gradient)))


def split(args: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The leading arrays, and the numbers behind them."""
    n = next((k for k, x in enumerate(args) if isinstance(x, int | float)), len(args))
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
        wait=lambda result: optree.tree_map(lambda x: x.detach(), result),
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
