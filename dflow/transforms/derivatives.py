"""Gradients and Jacobian products of Python functions.

All of them trace the user's function into IR of its own, apply a differentiation pass, and make the result part of the
program that is being traced (``grad``, ``value_and_grad``, ``jvp``) or run it at once (``vjp``, ``linearize``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from dflow import trees
from dflow.errors import DerivativeError, failure, function_location
from dflow.ir.core import Function, Location, Value
from dflow.ir.passes.dce import dce
from dflow.ir.passes.jvp import differentiable
from dflow.ir.passes.transpose import NotLinearError
from dflow.ir.registry import NoDerivativeError
from dflow.programs.pipeline import differentiate
from dflow.programs.program import Program, trace_program
from dflow.programs.signature import leaf_names
from dflow.tracing.arrays import sizes
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import convert, lift, wrap
from dflow.tracing.context import builder


def pure(program: Program) -> Function:
    """The traced function without what it writes back to its arguments: a derivative leaves those alone."""
    f = program.traced.function
    if program.returns_all:
        return f
    kept = type(f.body)(f.args, f.body.ops, f.results[: program.result_count])
    return dce(Function(f.name, kept, f.linear, f.loc))


def derive(f: Function, derivative: Callable[[Function], Function]) -> Function:
    """Applies a differentiation pass to the optimized function; what it refuses names the user's line."""
    with refusals():
        return differentiate(f, derivative)


@contextmanager
def refusals() -> Iterator[None]:
    """What the passes refuse, as errors with the user's line."""
    try:
        yield
    except NoDerivativeError as e:
        raise failure(
            DerivativeError,
            str(e),
            mend="keep it out of what you differentiate, or write it with functions that have a derivative",
            location=e.loc,
        ) from None
    except NotLinearError as e:
        raise failure(
            DerivativeError,
            str(e),
            wanted="a linear function: sums of its arguments times values that do not depend on them",
            mend="dflow.vjp transposes the derivative of any function; a rule must be linear in its tangents",
            location=e.loc,
        ) from None


def operands(program: Program, extra: Sequence[Value] = ()) -> list[Value]:
    """The values for the parameters of a traced function."""
    return [*(lift(x).value for x in (*program.arguments.leaves, *program.traced.captured)), *extra]


def inline(f: Function, values: Sequence[Value]) -> list[Array]:
    """Makes a function part of the program that is being traced."""
    return [wrap(v) for v in builder().inline(f.body, list(values))]


def check_scalar(program: Program, has_aux: bool, verb: str, holomorphic: bool = False) -> None:
    """Refuses a function whose (first) result is not a float scalar."""
    children = program.out_spec.children() if has_aux else []
    if has_aux and len(children) != 2:
        raise failure(
            DerivativeError,
            "with has_aux=True the function returns a pair: the value and anything else",
            seen=f"{program.out_spec}",
            location=function_location(program.arguments.function),
        )
    leaf = children[0] if has_aux else program.out_spec
    value = program.traced.function.results[0] if program.result_count else None
    if leaf.is_leaf() and value is not None and value.type.is_scalar and value.type.dtype.is_inexact:
        if value.type.dtype.kind == "f" or holomorphic:
            return
        raise failure(
            DerivativeError,
            f"{verb} of a function that returns a complex number",
            seen=f"{value.type}",
            wanted="a float",
            mend="return np.abs, np.real or np.imag of it, or say holomorphic=True for a function that is",
            location=_made_at(value) or function_location(program.arguments.function),
        )
    name = getattr(program.arguments.function, "__name__", "the function")
    many = leaf.is_leaf() and value is not None
    seen = f"{value.type}" if many and value is not None else f"{leaf.num_leaves} values in {leaf}"
    seen = seen if program.result_count else "nothing is returned"
    mend = (
        "return a float"
        if many and value is not None and value.type.is_scalar
        else "return a sum, a mean or one element"
        if program.result_count
        else "end it with `return` and the value"
    )
    raise failure(
        DerivativeError,
        f"{verb} needs a function that returns one float; {name} does not",
        seen=seen,
        wanted="a scalar, f64 or f32",
        mend=f"{mend}; for all derivatives of several results use dflow.jvp or dflow.vjp",
        location=_made_at(value) or function_location(program.arguments.function),
    )


def check_holomorphic(program: Program, wrt: Sequence[int], verb: str) -> None:
    """Refuses real arguments or results where a complex derivative is asked for."""
    f = program.traced.function
    real = [v.type for v in (*(f.args[i] for i in wrt), f.results[0]) if v.type.dtype.kind != "c"]
    if real:
        raise failure(
            DerivativeError,
            f"{verb} with holomorphic=True takes complex arguments and gives a complex number",
            seen=", ".join(map(str, real)),
            mend="convert them with astype(complex), or leave holomorphic out",
            location=function_location(program.arguments.function),
        )


def _made_at(v: Value | None) -> Location | None:
    return v.op.loc if v is not None and v.op is not None else None


def matching(tree: Any, like: Any, types: Sequence[Any], what: str, name: str) -> list[Value | None]:
    """The leaves of a tree of tangents or cotangents as values of the types of what they belong to.

    None for what cannot vary, or must not (fields that are not differentiable). Raises DerivativeError when structure
    or shapes differ.
    """
    flat, spec = trees.flatten(trees.map_leaves(lambda x: x, tree))
    wanted_leaves, wanted = trees.flatten(like)
    leaves = flat if spec == wanted else _with_none(tree, like)
    if leaves is None or len(leaves) != len(wanted_leaves):
        raise failure(DerivativeError, f"{what} must have the structure of {name}", seen=f"{spec}", wanted=f"{wanted}")
    values: list[Value | None] = []
    fixed = trees.constants(like)
    for k, (x, t) in enumerate(zip(leaves, types)):
        if t is None or not t.dtype.is_inexact or x is None or k in fixed:
            values.append(None)
            continue
        a = lift(x)
        if len(a.type.shape) != t.rank or not all(map(sizes.same, a.type.shape, t.shape)):
            raise failure(
                DerivativeError,
                f"{what} must have the shapes of {name}",
                seen=f"shape {sizes.show(a.type.shape)}",
                wanted=f"shape {sizes.show(t.shape)}",
            )
        values.append(convert(sizes.recast(a.value, t.shape), t.dtype.numpy))
    return values


def _with_none(tree: Any, like: Any) -> list[Any] | None:
    """The leaves of ``tree``, where None stands for any part of ``like``; None when it does not fit."""
    import optree

    leaves: list[Any] = []
    try:
        parts, spec = optree.tree_flatten(tree, none_is_leaf=True, namespace=trees.NAMESPACE)
        wholes = spec.flatten_up_to(like)
    except (TypeError, ValueError):
        return None
    for x, whole in zip(parts, wholes):
        below, structure = trees.flatten(whole)
        if x is not None and below and not structure.is_leaf():
            return None
        leaves += [x] * len(below)
    return leaves


__all__ = [
    "check_holomorphic",
    "check_scalar",
    "derive",
    "differentiable",
    "inline",
    "leaf_names",
    "matching",
    "operands",
    "pure",
    "refusals",
    "trace_program",
]
