"""Whole matrices of derivatives: ``jacfwd``, ``jacrev``, ``jacobian``, ``hessian``, and products with Hessians.

The function is linearized once. Then a loop of the program runs the linear part on one basis vector after the other,
and each result becomes a column (forward mode) or, transposed, a row (reverse mode) of the matrix. So neither the
program nor the time of compiling grows with the sizes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dflow import trees
from dflow.api import grad, jvp, require_tuples
from dflow.errors import DerivativeError, failure, function_location, user_frames_only
from dflow.ir.builder import Builder
from dflow.ir.core import Function, Location, Value
from dflow.ir.passes.expand import reverse_only
from dflow.ir.passes.linearize import linearize as linearize_pass
from dflow.ir.passes.transpose import transpose_block
from dflow.ir.types import TensorType
from dflow.programs.methods import after_self, taken_apart
from dflow.programs.program import Program, trace_program
from dflow.programs.sharing import shared
from dflow.programs.signature import Arguments, leaf_type
from dflow.programs.transform import Jit
from dflow.tracing.arrays.lift import wrap
from dflow.tracing.context import builder
from dflow.transforms.derivatives import derive, inline, operands, pure
from dflow.transforms.selection import Argnums, Selection, chosen_numbers


def jacfwd(
    function: Callable[..., Any] | None = None, argnums: Argnums = 0, has_aux: bool = False, holomorphic: bool = False
) -> Any:
    """The Jacobian of a function by forward mode: its time grows with the number of inputs.

    ``jacfwd(f)(x, ...)`` has the tree of ``f``'s result; in place of each leaf stands a tree like ``x`` (the argument
    that ``argnums`` numbers; a tuple for several), whose leaves have the shape of the result's leaf followed by that of
    the argument's. Integers vary with nothing: they give None. With ``has_aux`` the function returns ``(value, aux)``,
    and this ``(jacobian, aux)``.

    With ``holomorphic`` arguments and results are complex, and the function must be holomorphic. Without it the
    derivatives by a complex argument are refused, for there are two; those of complex results by real ones are complex.

    Raises DerivativeError where it refuses, and when an argument holds no floats.
    """
    return _matrix("jacfwd", function, argnums, has_aux, holomorphic)


def jacrev(
    function: Callable[..., Any] | None = None, argnums: Argnums = 0, has_aux: bool = False, holomorphic: bool = False
) -> Any:
    """As ``jacfwd``, by reverse mode: its time grows with the number of results.

    By a complex argument ``x + iy`` the derivative of a real result is ``d/dx - i d/dy``, as in ``grad``; complex
    results need ``holomorphic``.
    """
    return _matrix("jacrev", function, argnums, has_aux, holomorphic)


def jacobian(
    function: Callable[..., Any] | None = None, argnums: Argnums = 0, has_aux: bool = False, holomorphic: bool = False
) -> Any:
    """As ``jacfwd`` or ``jacrev``, whichever has fewer basis vectors to go through."""
    return _matrix("jacobian", function, argnums, has_aux, holomorphic)


def hessian(
    function: Callable[..., Any] | None = None, argnums: Argnums = 0, has_aux: bool = False, holomorphic: bool = False
) -> Any:
    """The second derivatives of a function: ``jacfwd(jacrev(f))``."""
    if function is None:
        return functools.partial(hessian, argnums=argnums, has_aux=has_aux, holomorphic=holomorphic)
    return jacfwd(jacrev(function, argnums, has_aux, holomorphic), argnums, has_aux, holomorphic)


def hvp(function: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, ...]:
    """The Hessian of a function that returns one float, times ``tangents``, without the Hessian.

    ``tangents`` and the result have the structure of ``primals``, with None for what cannot vary (integers).
    """
    with user_frames_only():
        require_tuples("hvp", primals, tangents)
        nums = tuple(i for i, p in enumerate(primals) if _holds_floats(p)) or (0,)
        along = iter(jvp(grad(function, nums), primals, tangents)[1])
        return tuple(next(along) if i in nums else None for i in range(len(primals)))


def _holds_floats(tree: Any) -> bool:
    types = (leaf_type(x) for x in trees.flatten(tree)[0])
    return any(t is not None and t.type.dtype.is_inexact for t in types)


def _matrix(verb: str, function: Any, argnums: Any, has_aux: bool, holomorphic: bool) -> Any:
    if function is None:
        return functools.partial(_matrix, verb, argnums=argnums, has_aux=has_aux, holomorphic=holomorphic)
    nums = chosen_numbers(argnums, None)
    bound = taken_apart(function)
    if bound is not None:
        return _matrix(verb, bound[0], after_self(nums), has_aux, holomorphic).__get__(bound[1])

    def inner(*args: Any, **kwargs: Any) -> Any:
        program = trace_program(function, Arguments(function, args, kwargs, keep_known=True))
        selection = Selection(program.arguments, nums, None, verb)
        spec = _value_spec(program, has_aux)
        split = _Split.of(program, selection, spec.num_leaves)
        _check_complex(verb, split, holomorphic, function_location(program.arguments.function))
        results = inline(split.primal, operands(program))
        values = results[: program.result_count]
        rows = split.matrices(verb, [r.value for r in results[program.result_count :]])
        blocks = [None if row is None else selection.rebuild([wrap(m) for m in row]) for row in rows]
        tree = trees.unflatten(spec, blocks)
        return (tree, trees.unflatten(program.out_spec, values)[1]) if has_aux else tree

    recipe = (_BY_VERB[verb], nums, has_aux, holomorphic)
    return shared(lambda: Jit(function, inner, verb, recipe=recipe), function, recipe)


_BY_VERB = {"jacfwd": jacfwd, "jacrev": jacrev, "jacobian": jacobian}


def _check_complex(verb: str, split: _Split, holomorphic: bool, location: Location | None) -> None:
    """Refuses what one complex number cannot tell: how a complex result varies with a complex argument, and what a mode
    would see but half of."""
    varying = [t for t in split.outputs if t.dtype.is_inexact]
    inputs, results = ([t for t in types if t.dtype.kind == "c"] for types in (split.inputs, varying))
    if holomorphic:
        bad = [t for t in (*split.inputs, *varying) if t.dtype.kind != "c"]
        what, mend = "with holomorphic=True takes complex arguments and gives complex numbers", "leave holomorphic out"
    elif inputs and (results or verb == "jacfwd"):
        bad = [*inputs, *results]
        what = "by complex arguments has no one derivative for each element"
        mend = "holomorphic=True for a function that is; or pass and return real and imaginary parts"
    else:
        bad = results if verb == "jacrev" else []
        what, mend = "of complex results sees their real parts alone", "use dflow.jacfwd"
    if bad:
        raise failure(DerivativeError, f"{verb} {what}", seen=", ".join(map(str, bad)), mend=mend, location=location)


def _value_spec(program: Program, has_aux: bool) -> trees.Spec:
    """The structure of what is differentiated: the function's result, or the first of a pair."""
    if not has_aux:
        return program.out_spec
    children = program.out_spec.children()
    if len(children) == 2:
        return children[0]
    raise failure(
        DerivativeError,
        "with has_aux=True the function returns a pair: the value and anything else",
        seen=f"{program.out_spec}",
        location=function_location(program.arguments.function),
    )


@dataclass
class _Split:
    """A traced function in two parts: ``(x) -> (y, residuals)`` and ``(residuals, x_dot) -> y_dot``."""

    primal: Function
    linear: Function
    inputs: list[TensorType]
    outputs: list[TensorType]

    @staticmethod
    def of(program: Program, selection: Selection, count: int) -> _Split:
        """Of the first ``count`` results by the selected arguments."""
        made: list[Function] = []

        def split(f: Function) -> Function:
            made.extend(linearize_pass(f, selection.wrt))
            return made[0]

        f = pure(program)
        primal = derive(f, split)
        inputs, outputs = [f.args[i].type for i in selection.wrt], list(f.result_types[:count])
        for t in (*inputs, *outputs):
            if not t.is_static:
                raise failure(
                    DerivativeError,
                    "a Jacobian needs arguments and results whose sizes are known while tracing",
                    seen=f"{t}",
                    mend="return an array of the full size, with zeros in the rest",
                )
        return _Split(primal, made[1], inputs, outputs)

    def matrices(self, verb: str, residuals: Sequence[Value]) -> list[list[Value] | None]:
        """For each result the derivatives by each input; None for a result that cannot vary."""
        varying = [t for t in self.outputs if t.dtype.is_inexact]
        forward = verb == "jacfwd" or (verb == "jacobian" and self.better_forward(varying))
        rows = iter(self.forward(residuals, varying) if forward else self.reverse(residuals, varying))
        return [next(rows) if t.dtype.is_inexact else None for t in self.outputs]

    def better_forward(self, varying: list[TensorType]) -> bool:
        """Complex results of real arguments vary by complex numbers, real ones of complex arguments in two ways."""
        of_complex, complex_ones = (any(t.dtype.kind == "c" for t in types) for types in (self.inputs, varying))
        if of_complex != complex_ones:
            return complex_ones
        return _elements(self.inputs) <= _elements(varying) and not reverse_only(self.linear)

    def forward(self, residuals: Sequence[Value], outputs: list[TensorType]) -> list[list[Value]]:
        """Columns: the linear part on each basis vector of each input."""
        b = builder()
        columns = []
        for i, x in enumerate(self.inputs):

            def column(inner: Builder, e: Value, i: int = i) -> list[Value]:
                dots = [e if j == i else inner.zeros(t) for j, t in enumerate(self.inputs)]
                return inner.inline(self.linear.body, [*residuals, *dots])[: len(outputs)]

            columns.append(_along_basis(b, x, outputs, column, last=True))
        return [list(row) for row in zip(*columns)] if columns else [[] for _ in outputs]

    def reverse(self, residuals: Sequence[Value], outputs: list[TensorType]) -> list[list[Value]]:
        """Rows: the transposed linear part on each basis vector of each result."""
        b = builder()
        body = self.linear.body
        known, dots = body.args[: len(residuals)], body.args[len(residuals) :]
        rows = []
        for i, y in enumerate(outputs):

            def row(inner: Builder, e: Value, i: int = i) -> list[Value]:
                bars = [e if j == i else None for j in range(len(body.results))]
                return transpose_block(inner, body, dots, bars, dict(zip(known, residuals)))

            rows.append(_along_basis(b, y, self.inputs, row, last=False))
        return rows


def _elements(types: Sequence[TensorType]) -> int:
    return sum(int(np.prod(t.static_shape, dtype=np.int64)) for t in types)


def _along_basis(
    b: Builder,
    space: TensorType,
    types: Sequence[TensorType],
    apply: Callable[[Builder, Value], Sequence[Value]],
    last: bool,
) -> list[Value]:
    """``apply``, which gives ``types``, on every basis vector of ``space``, whose axes become the last or the first."""
    if space.is_scalar:
        return list(apply(b, b.full(1, space)))
    n = _elements([space])

    def shape(t: TensorType, axes: tuple[int, ...]) -> tuple[int, ...]:
        return (*t.static_shape, *axes) if last else (*axes, *t.static_shape)

    def body(inner: Builder, k: Value, *tables: Value) -> list[Value]:
        line = inner.zeros(TensorType(space.dtype, (n,)))
        e = inner.reshape(
            inner.update(line, inner.full(1, TensorType(space.dtype)), k, index=("at",)), shape=space.shape
        )
        parts = apply(inner, e)
        everywhere = [("all",) * t.rank for t in types]
        at = [(*a, "at") if last else ("at", *a) for a in everywhere]
        return [inner.update(table, part, k, index=i) for table, part, i in zip(tables, parts, at)]

    tables = [b.zeros(TensorType(t.dtype, shape(t, (n,)))) for t in types]
    full = b.for_loop(b.index(n), tables, body)
    return [b.reshape(v, shape=shape(t, space.static_shape)) for v, t in zip(full, types)]


__all__ = ["hessian", "hvp", "jacfwd", "jacobian", "jacrev"]
