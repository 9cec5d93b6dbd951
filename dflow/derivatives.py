"""Gradients and Jacobian products of Python functions.

All of them trace the user's function into IR of its own, apply a differentiation pass, and make the result part of the
program that is being traced (``grad``, ``value_and_grad``, ``jvp``) or run it at once (``vjp``, ``linearize``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dflow import trees
from dflow.errors import DerivativeError, failure, function_location
from dflow.ir.core import Function, Location, Value
from dflow.ir.passes.dce import dce
from dflow.ir.passes.jvp import differentiable
from dflow.ir.passes.transpose import NotLinearError
from dflow.ir.registry import NoDerivativeError
from dflow.pipeline import differentiate
from dflow.signature import Arguments, leaf_names, parameter_names
from dflow.tracing import sizes
from dflow.tracing.array import Array
from dflow.tracing.context import builder
from dflow.tracing.lift import convert, lift, wrap
from dflow.transform import Program, trace_program

Argnums = int | Sequence[int]


class Selection:
    """The arguments to differentiate by: their trees, and which leaves among them can carry a derivative."""

    def __init__(self, arguments: Arguments, argnums: Argnums | None, argnames: str | Sequence[str] | None, verb: str):
        self.arguments = arguments
        self.single = isinstance(argnums, int) and not argnames
        count = len(arguments.args)
        numbers = () if argnums is None else (argnums,) if isinstance(argnums, int) else tuple(argnums)
        for i in numbers:
            if not -count <= i < count:
                raise failure(
                    DerivativeError,
                    f"{verb} by argument {i}, but the call has {count} positional arguments",
                    mend="pass it by position, or name it in argnames",
                )
        self.numbers = [i % count for i in numbers]
        self.names = [argnames] if isinstance(argnames, str) else list(argnames or ())
        missing = [n for n in self.names if n not in arguments.kwargs]
        if missing:
            raise failure(
                DerivativeError,
                f"{verb} by argument {missing[0]!r}, which the call does not give by name",
                mend=f"call with {missing[0]}=..., or give its position in argnums",
            )
        self.parts = [self._part(start, tree, verb, name) for start, tree, name in self._chosen()]

    def _chosen(self) -> list[tuple[int, Any, str]]:
        """Where the leaves of each chosen argument begin, the argument, and its name."""
        a = self.arguments
        labels = parameter_names(a.function, len(a.args))
        entries: list[tuple[Any, Any, str]] = [(i, x, n) for i, (x, n) in enumerate(zip(a.args, labels))]
        entries += [(k, a.kwargs[k], k) for k in sorted(a.kwargs)]
        starts, total = {}, 0
        for key, tree, name in entries:
            starts[key] = (total, tree, name)
            total += len(trees.flatten(tree)[0])
        return [starts[k] for k in (*self.numbers, *self.names)]

    def _part(self, start: int, tree: Any, verb: str, name: str) -> tuple[trees.Spec, list[int]]:
        leaves, spec = trees.flatten(tree)
        types = self.arguments.all_types[start : start + len(leaves)]
        inexact = [start + i for i, t in enumerate(types) if t is not None and t.type.dtype.is_inexact]
        if not inexact:
            seen = ", ".join(f"{n}: {t}" for n, t in zip(trees.paths(tree, name), types)) or "nothing"
            raise failure(
                DerivativeError,
                f"{verb} by argument {name}, which holds no floats",
                seen=seen,
                wanted="floating-point numbers: integers do not vary continuously",
                mend=f"pass {name} as float (3.0 for 3, {name}.astype(float)), or choose other arguments by argnums",
            )
        return spec, [p if p in inexact else -1 for p in range(start, start + len(leaves))]

    @property
    def wrt(self) -> list[int]:
        """The chosen leaves that can carry a derivative, as positions among the numeric leaves."""
        numeric = [i for i, t in enumerate(self.arguments.all_types) if t is not None]
        place = {p: k for k, p in enumerate(numeric)}
        return [place[p] for _, positions in self.parts for p in positions if p >= 0]

    def rebuild(self, derivatives: Sequence[Any]) -> Any:
        """Derivatives in the structure of the arguments; None where there is none."""
        rest = iter(derivatives)
        made = [trees.unflatten(spec, [next(rest) if p >= 0 else None for p in at]) for spec, at in self.parts]
        return made[0] if self.single else tuple(made)


def pure(program: Program) -> Function:
    """The traced function without what it writes back to its arguments: a derivative leaves those alone."""
    f = program.traced.function
    if not program.traced.mutated:
        return f
    kept = type(f.body)(f.args, f.body.ops, f.results[: program.result_count])
    return dce(Function(f.name, kept, f.linear, f.loc))


def derive(f: Function, derivative: Callable[[Function], Function]) -> Function:
    """Applies a differentiation pass; what it refuses names the user's line."""
    try:
        return differentiate(f, derivative)
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
            location=e.loc,
        ) from None


def operands(program: Program, extra: Sequence[Value] = ()) -> list[Value]:
    """The values for the parameters of a traced function."""
    return [*(lift(x).value for x in (*program.arguments.leaves, *program.traced.captured)), *extra]


def inline(f: Function, values: Sequence[Value]) -> list[Array]:
    """Makes a function part of the program that is being traced."""
    return [wrap(v) for v in builder().inline(f.body, list(values))]


def check_scalar(program: Program, has_aux: bool, verb: str) -> None:
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
        return
    name = getattr(program.arguments.function, "__name__", "the function")
    many = leaf.is_leaf() and value is not None
    seen = f"{value.type}" if many and value is not None else f"{leaf.num_leaves} values in {leaf}"
    mend = (
        "return a float"
        if many and value is not None and value.type.is_scalar
        else "return a sum, a mean or one element"
    )
    raise failure(
        DerivativeError,
        f"{verb} needs a function that returns one float; {name} does not",
        seen=seen,
        wanted="a scalar, f64 or f32",
        mend=f"{mend}; for all derivatives of several results use dflow.jvp or dflow.vjp",
        location=_made_at(value) or function_location(program.arguments.function),
    )


def _made_at(v: Value | None) -> Location | None:
    return v.op.loc if v is not None and v.op is not None else None


def matching(tree: Any, like: Any, types: Sequence[Any], what: str, name: str) -> list[Value | None]:
    """The leaves of a tree of tangents or cotangents as values of the types of what they belong to.

    None for what cannot vary. Raises DerivativeError when structure or shapes differ.
    """
    flat, spec = trees.flatten(trees.map_leaves(lambda x: x, tree))
    wanted_leaves, wanted = trees.flatten(like)
    leaves = flat if spec == wanted else _with_none(tree, like)
    if leaves is None or len(leaves) != len(wanted_leaves):
        raise failure(DerivativeError, f"{what} must have the structure of {name}", seen=f"{spec}", wanted=f"{wanted}")
    values: list[Value | None] = []
    for x, t in zip(leaves, types):
        if not t.dtype.is_inexact or x is None:
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
        parts = optree.tree_flatten(tree, none_is_leaf=True, namespace=trees.NAMESPACE)
        whole = optree.tree_flatten(like, none_is_leaf=True, namespace=trees.NAMESPACE)
    except Exception:
        return None
    if parts[1] != whole[1]:
        return None
    leaves = [x for x, y in zip(parts[0], whole[0]) if y is not None]
    return leaves


__all__ = [
    "Selection",
    "check_scalar",
    "derive",
    "differentiable",
    "inline",
    "leaf_names",
    "matching",
    "operands",
    "pure",
    "trace_program",
]
