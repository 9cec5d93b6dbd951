"""Sparse Jacobians and Hessians by colouring.

Columns of a Jacobian that have no row in common can be had together: one product with the sum of their basis vectors
has the entries of all, each in a row of its own. So as many products suffice as there are colours, where columns that
share a row differ in colour (Curtis, Powell and Reid 1974; greedy colouring, the densest first). Rows are coloured in
the same way for reverse mode; the mode with fewer colours is taken.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dflow import trees
from dflow.api import grad, jit, jvp, vjp
from dflow.errors import DerivativeError, failure, function_location, user_frames_only
from dflow.ir.passes import optimize
from dflow.ir.passes.sparsity import sparsity
from dflow.programs.program import trace_program
from dflow.programs.signature import Arguments, leaf_type
from dflow.tracing.context import tracing
from dflow.tracing.python.calls import call
from dflow.transforms.batching import vmap
from dflow.tree import ravel_pytree

MOST_DETECTED = 20_000  # inputs and results for which a pattern is looked for


def sparse_jacobian(function: Callable[..., Any], argnums: int = 0, pattern: Any = None) -> Callable[..., Any]:
    """The Jacobian by the argument ``argnums`` as a ``scipy.sparse.csr_array`` of shape (results, inputs).

    Argument and result may be trees; their numbers count in the order of ``ravel_pytree``. ``pattern`` is a matrix
    (dense or sparse) that is not zero where the Jacobian may not be; without one it is detected from the program, for
    each new shape of the arguments and each new value of the integers among the others. Entries outside of a pattern
    that is too small are not computed, and spoil others.

    It is called on concrete arrays, outside of traces. Raises DerivativeError when the pattern does not fit, or when
    the sizes are too large to detect one.
    """
    return _Sparse(function, argnums, pattern, symmetric=False)


def sparse_hessian(function: Callable[..., Any], argnums: int = 0, pattern: Any = None) -> Callable[..., Any]:
    """The Hessian of a function that returns one float, as ``sparse_jacobian`` of its gradient."""
    gradient = grad(function, argnums)
    return _Sparse(gradient, argnums, pattern, symmetric=True)


@dataclass
class _Plan:
    """What is to be computed: ``seeds``, forward (columns together) or reverse, and where the entries are found."""

    forward: bool
    seeds: np.ndarray[Any, Any]
    rows: np.ndarray[Any, Any]
    columns: np.ndarray[Any, Any]
    colors: np.ndarray[Any, Any]
    shape: tuple[int, int]

    def matrix(self, products: np.ndarray[Any, Any]) -> Any:
        along = self.columns if self.forward else self.rows
        across = self.rows if self.forward else self.columns
        entries = products[self.colors[along], across]
        return _csr_array((entries, (self.rows, self.columns)), shape=self.shape)


class _Sparse:
    def __init__(self, function: Callable[..., Any], argnums: int, pattern: Any, symmetric: bool):
        functools.update_wrapper(self, function, updated=())
        self.function = function
        self.argnums = argnums
        self.pattern = None if pattern is None else _csr_array(pattern)
        self.symmetric = symmetric  # columns are as good as rows
        self._plans: dict[Any, _Plan] = {}
        # Not the methods themselves, whose `self` would be an argument.
        self._forward = jit(lambda *args: self._columns(*args))
        self._reverse = jit(lambda *args: self._rows(*args))

    def __call__(self, *args: Any) -> Any:
        with user_frames_only():
            if tracing():
                raise failure(
                    DerivativeError,
                    "a sparse matrix cannot be part of a traced program",
                    mend="call it outside, or use dflow.jacobian",
                )
            plan = self.plan(args)
            run = self._forward if plan.forward else self._reverse
            return plan.matrix(run(plan.seeds, *args))

    def plan(self, args: tuple[Any, ...]) -> _Plan:
        """The plan for arguments of these types."""
        types = Arguments(self.function, args, {}).key
        key = (types, *(self._value(i, a) for i, a in enumerate(args)))
        if key not in self._plans:
            self._plans[key] = _plan(
                self._detected(args) if self.pattern is None else self._given(args), self.symmetric
            )
        return self._plans[key]

    def _value(self, i: int, x: Any) -> Any:
        """The value of an argument, where the pattern is found for just this."""
        t = leaf_type(x)
        if i == self.argnums or t is None or t.type.dtype.is_inexact:
            return None
        return np.asarray(x).tobytes()

    def _flat(self, args: tuple[Any, ...]) -> tuple[Callable[[Any], Any], Any]:
        """The function of the flat argument, with a flat result."""
        flat, unravel = ravel_pytree(args[self.argnums])

        def function(x: Any) -> Any:
            given = [unravel(x) if i == self.argnums else a for i, a in enumerate(args)]
            return ravel_pytree(call(self.function, *given))[0]

        return function, flat

    def _columns(self, seeds: Any, *args: Any) -> Any:
        f, x = self._flat(args)
        return vmap(lambda seed: jvp(f, (x,), (seed,))[1])(seeds)

    def _rows(self, seeds: Any, *args: Any) -> Any:
        f, x = self._flat(args)
        return vmap(lambda seed: vjp(f, x)[1](seed)[0])(seeds)

    def _given(self, args: tuple[Any, ...]) -> Any:
        assert self.pattern is not None
        shape = self._shape(args)
        if self.pattern.shape != shape:
            raise failure(
                DerivativeError,
                "the pattern must have the shape of the matrix: results by inputs",
                seen=f"{self.pattern.shape}",
                wanted=f"{shape}",
                location=function_location(self.function),
            )
        return self.pattern

    def _shape(self, args: tuple[Any, ...]) -> tuple[int, int]:
        program = trace_program(self.function, Arguments(self.function, args, {}))
        inputs = [t.type for x in trees.flatten(args[self.argnums])[0] if (t := leaf_type(x)) is not None]
        if any(t.dtype.kind == "c" for t in (*inputs, *program.traced.outputs)):
            raise failure(
                DerivativeError,
                "a sparse matrix of derivatives by complex arguments, or of complex results",
                mend="take real and imaginary parts apart, or use dflow.jacobian",
                location=function_location(self.function),
            )
        results = sum(int(np.prod(t.static_shape, dtype=np.int64)) for t in program.traced.outputs)
        return results, len(ravel_pytree(args[self.argnums])[0])

    def _detected(self, args: tuple[Any, ...]) -> Any:
        """The pattern that the program shows."""
        if max(self._shape(args)) > MOST_DETECTED:
            raise failure(
                DerivativeError,
                f"the pattern of a matrix of shape {self._shape(args)} is too large to be detected",
                mend="give it: pattern=...",
                location=function_location(self.function),
            )
        flat = ravel_pytree(args[self.argnums])[0]
        others = [a for i, a in enumerate(args) if i != self.argnums]

        def function(x: Any, *rest: Any) -> Any:
            given = list(rest)
            given.insert(self.argnums, ravel_pytree(args[self.argnums])[1](x))
            return ravel_pytree(call(self.function, *given))[0]

        arguments = Arguments(function, (flat, *others), {})
        program = trace_program(function, arguments)
        known = {
            k: np.asarray(x, t.type.dtype.numpy)
            for k, (x, t) in enumerate(zip(arguments.leaves, arguments.types))
            if k and not t.type.dtype.is_inexact
        }
        return _csr_array(sparsity(optimize(program.traced.function), 0, known)[0])


def _plan(pattern: Any, symmetric: bool) -> _Plan:
    """Colours the columns and the rows, and takes what needs fewer colours."""
    pattern = _csr_array(pattern != 0)
    entries = pattern.tocoo()
    by_column = colored(pattern)
    by_row = None if symmetric else colored(_csr_array(pattern.T))
    forward = by_row is None or by_column.max(initial=-1) <= by_row.max(initial=-1)
    colors = by_column if forward or by_row is None else by_row
    seeds = np.zeros((int(colors.max(initial=-1)) + 1, len(colors)))
    seeds[colors, np.arange(len(colors))] = 1.0
    return _Plan(forward, seeds, entries.coords[0], entries.coords[1], colors, pattern.shape)


def colored(pattern: Any) -> np.ndarray[Any, Any]:
    """A colour for each column, such that columns with an entry in the same row differ. Greedy, the densest first."""
    counts = _csr_array(pattern, dtype=np.int64)
    neighbours = _csr_array(counts.T @ counts)
    degrees = np.diff(neighbours.indptr)
    colors = np.full(pattern.shape[1], -1)
    for j in np.argsort(-degrees, kind="stable"):
        taken = set(colors[neighbours.indices[neighbours.indptr[j] : neighbours.indptr[j + 1]]])
        colors[j] = next(c for c in range(len(taken) + 1) if c not in taken)
    return colors


__all__ = ["sparse_hessian", "sparse_jacobian"]


def _csr_array(*args: Any, **kwargs: Any) -> Any:
    from scipy.sparse import csr_array  # here, as it takes a fifth of the time that it takes to import dflow

    return csr_array(*args, **kwargs)
