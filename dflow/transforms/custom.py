"""Functions with derivative rules of the user's: ``custom_jvp``, ``custom_vjp``, and rules for functions not ours.

A call inside a trace becomes a ``custom`` operation (``dflow.ir.rules``): the function's own program in its region, and
the rule as a Python object that is traced when a derivative is taken. Outside of traces the function is just called.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

from dflow import trees
from dflow.errors import DerivativeError, failure, function_location, user_frames_only
from dflow.ir.builder import Builder
from dflow.ir.core import Op, Value
from dflow.ir.registry import Linear, NoDerivativeError
from dflow.ir.rules import STOP_GRADIENT, Rule, Tangents, apply, unused_name
from dflow.ir.types import TensorType, kind_of
from dflow.programs.methods import Method
from dflow.programs.signature import Arguments
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import convert, lift, wrap
from dflow.tracing.context import builder, tracing
from dflow.tracing.python.calls import call
from dflow.tracing.python.functions import BUILTINS
from dflow.tracing.source.rewrite import rewritten
from dflow.tracing.trace import ArgSpec
from dflow.transforms.call_records import CallRecord
from dflow.transforms.derivatives import matching
from dflow.transforms.selection import argument_names


def stop_gradient(x: Any) -> Any:
    """``x`` itself, which counts as a constant where a derivative is taken, of any order. ``x`` is a tree."""

    def one(leaf: Any) -> Any:
        if not isinstance(leaf, Array) or kind_of(leaf.dtype) not in "fc":
            return leaf
        same = Builder([leaf.value.type])
        return wrap(apply(builder(), STOP_GRADIENT, [leaf.value], same.finish(same.args))[0], leaf.weak)

    return trees.map_leaves(one, x)


class WithRule(Method):
    """A function with a derivative rule; a callable that tracing meets."""

    verb = ""

    def __init__(
        self,
        function: Callable[..., Any],
        nondiff_argnums: int | Sequence[int] = (),
        nondiff_argnames: str | Sequence[str] = (),
    ):
        functools.update_wrapper(self, function, updated=())
        self.function = function
        given = (nondiff_argnums,) if isinstance(nondiff_argnums, int) else tuple(nondiff_argnums)
        names = argument_names("nondiff_argnames", nondiff_argnames, DerivativeError)
        self.nondiff_argnums = (*given, *(_position(function, n) for n in names))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not tracing():
            return self.function(*args, **kwargs)
        with user_frames_only():
            args = self._positional(args, kwargs)
            nondiff = [i % len(args) for i in self.nondiff_argnums]
            record = CallRecord(self.function, Arguments(self.function, args, {}, nondiff), nondiff, self.rules())
            values = apply(builder(), self.rule(record), record.operands(), record.function.body)
            return record.results(values)

    def rules(self) -> tuple[Callable[..., Any], ...]:
        """The functions that make up the rule."""
        raise self.missing()

    def rule(self, record: CallRecord) -> Rule:
        """The rule of one call."""
        raise self.missing()

    def missing(self) -> Exception:
        name = getattr(self.function, "__name__", "the function")
        return failure(
            DerivativeError,
            f"{name} is a {type(self).__name__} without a rule",
            mend=f"define it by @{name}.{self.verb}",
            location=function_location(self.function),
        )

    def _positional(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        if not kwargs:
            return args
        bound = inspect.signature(self.function).bind(*args, **kwargs)
        bound.apply_defaults()
        if not bound.kwargs:
            return bound.args
        raise failure(
            DerivativeError,
            f"{getattr(self.function, '__name__', 'the function')} has a derivative rule, and keyword-only arguments",
            seen=", ".join(bound.kwargs),
            mend="make them positional, so that the rule can be given them",
        )


def _position(function: Callable[..., Any], name: str) -> int:
    names = list(inspect.signature(function).parameters)
    if name in names:
        return names.index(name)
    raise failure(
        DerivativeError,
        f"nondiff_argnames has {name!r}, which {getattr(function, '__name__', 'the function')} does not take",
        seen=", ".join(names) or "no arguments",
        location=function_location(function),
    )


class custom_jvp(WithRule):
    """A function with a forward-mode rule; what reverse mode needs follows from it.

    ``@f.defjvp`` takes ``rule(primals, tangents) -> (f(*primals), tangent of that)``; the tangent must be linear in
    ``tangents``. Integer leaves have the tangent None. Arguments that ``nondiff_argnums`` (or, by name,
    ``nondiff_argnames``) chooses come first, before ``primals``, which lacks them; they are known while tracing. The
    rule may call ``f``, and is differentiated for higher orders. As in JAX.

    Raises DerivativeError when a tangent does not fit, and when ``f`` closes over a value that is differentiated.
    """

    verb = "defjvp"
    jvp: Callable[..., Any] | None = None

    def defjvp(self, jvp: Callable[..., Any]) -> Callable[..., Any]:
        """Sets the rule."""
        self.jvp = jvp
        return jvp

    def defjvps(self, *rules: Callable[..., Any] | None) -> None:
        """Sets a rule for each argument: ``rule(tangent, value, *primals) -> tangent of the value``; None for zero."""

        def jvp(primals: Any, tangents: Any) -> Any:
            value = self(*primals)
            terms = [call(r, t, value, *primals) for r, t in zip(rules, tangents, strict=True) if r is not None]
            total = trees.map_leaves(lambda *ts: sum(ts[1:], ts[0]), *terms) if terms else None
            return value, trees.map_leaves(lambda v: 0 * v, value) if total is None else total

        self.jvp = jvp

    def rules(self) -> tuple[Callable[..., Any], ...]:
        if self.jvp is None:
            raise self.missing()
        return (self.jvp,)

    def rule(self, record: CallRecord) -> Rule:
        return _JvpRule(record, *self.rules())


class _JvpRule(Rule):
    def __init__(self, record: CallRecord, rule: Callable[..., Any]):
        super().__init__(unused_name(record.name))
        self.record = record
        self.function = rule

    def jvp(self, b: Builder, op: Op, dots: Tangents) -> tuple[Sequence[Value], Tangents]:
        record, n = self.record, self.record.count
        record.require_constant_closure(op, dots[n:])
        moving = [i for i in range(n) if op.operands[i].type.dtype.is_inexact]
        specs = record.specs()
        made = record.trace(self.function, [*specs, *(ArgSpec(specs[i].type) for i in moving)], self._run)
        given = [b.zeros(op.operands[i].type) if (d := dots[i]) is None else d for i in moving]
        outs = b.inline(made.body, [*op.operands[:n], *given, *op.operands[n:]])
        ys, rest = outs[: len(op.results)], iter(outs[len(op.results) :])
        return ys, [next(rest) if r.type.dtype.is_inexact else None for r in op.results]

    def _run(self, arrays: Sequence[Array]) -> Sequence[Any]:
        """Calls the rule; its values, and the tangents of those that vary."""
        record = self.record
        primals, rest = arrays[: record.count], iter(arrays[record.count :])
        tangents = [next(rest) if kind_of(p.dtype) in "fc" else None for p in primals]
        made = call(self.function, *record.fixed_args(), record.args(primals), record.tangent_args(tangents))
        if not (isinstance(made, tuple | list) and len(made) == 2):
            raise _shape_of_rule(self.function, "a pair: the value and its tangent", made)
        types = list(record.program.traced.outputs)
        values = checked_values(made[0], record, self.function)
        dots = matching(made[1], made[0], types, "tangents", "the value")
        b = builder()
        dense = [b.zeros(t) if d is None else d for d, t in zip(dots, types) if t.dtype.is_inexact]
        return [*values, *map(wrap, dense)]


def checked_values(tree: Any, record: CallRecord, rule: Callable[..., Any]) -> list[Array]:
    """What a rule returns for the value of the function, which must be of its structure and types."""
    leaves, spec = trees.flatten(tree)
    if spec != record.program.out_spec:
        raise _shape_of_rule(
            rule, f"a value of the structure that {record.name} returns: {record.program.out_spec}", spec
        )
    out = []
    for leaf, t in zip(map(lift, leaves), record.program.traced.outputs):
        if leaf.shape != t.shape or (kind_of(leaf.dtype) == "f") != (kind_of(t.dtype) == "f"):
            raise _shape_of_rule(rule, f"a value of the type that {record.name} returns: {t}", leaf.type)
        out.append(wrap(convert(leaf.value, t.dtype.numpy)))
    return out


def _shape_of_rule(rule: Callable[..., Any], wanted: str, seen: Any) -> Exception:
    name = getattr(rule, "__name__", "the rule")
    place = function_location(rule)
    return failure(
        DerivativeError, f"{name} does not return what it should", seen=f"{seen}", wanted=wanted, location=place
    )


class custom_vjp(WithRule):
    """A function with a reverse-mode rule. Forward mode is refused.

    ``f.defvjp(fwd, bwd)``: ``fwd(*args) -> (f(*args), residuals)``, where residuals are any tree, and ``bwd(residuals,
    cotangent) -> (cotangent, ...)``, one for each argument, None for zero. Arguments that ``nondiff_argnums`` (or, by
    name, ``nondiff_argnames``) chooses are known while tracing; ``bwd`` takes them first. As in JAX.
    """

    verb = "defvjp"
    pair: tuple[Callable[..., Any], Callable[..., Any]] | None = None

    def defvjp(self, fwd: Callable[..., Any], bwd: Callable[..., Any]) -> None:
        """Sets the rule."""
        self.pair = fwd, bwd

    def rules(self) -> tuple[Callable[..., Any], ...]:
        if self.pair is None:
            raise self.missing()
        return self.pair

    def rule(self, record: CallRecord) -> Rule:
        return _VjpRule(record, *self.rules())


class _VjpRule(Rule):
    """Runs ``fwd``, and leaves the tangents to an operation that has a transpose alone."""

    def __init__(self, record: CallRecord, fwd: Callable[..., Any], bwd: Callable[..., Any]):
        super().__init__(unused_name(record.name))
        self.record = record
        self.fwd, self.bwd = fwd, bwd
        self.residuals: tuple[list[Any], trees.Spec] | None = None

    def jvp(self, b: Builder, op: Op, dots: Tangents) -> tuple[Sequence[Value], Tangents]:
        record, n = self.record, self.record.count
        record.require_constant_closure(op, dots[n:])
        made = record.trace(self.fwd, record.specs(), self._run)
        outs = b.inline(made.body, op.operands)
        ys, kept = outs[: len(op.results)], outs[len(op.results) :]
        given = [b.zeros(v.type) if d is None else d for v, d in zip(op.operands[:n], dots) if v.type.dtype.is_inexact]
        assert self.residuals is not None
        pull = _Pull(record, self.bwd, *self.residuals)
        attrs = {"rule": pull, "linear": len(given), "types": tuple(y.type for y in ys if y.type.dtype.is_inexact)}
        tangents = iter(b.append("reverse_only", [*kept, *op.operands[n:], *given], attrs, loc=op.loc))
        return ys, [next(tangents) if y.type.dtype.is_inexact else None for y in ys]

    def _run(self, arrays: Sequence[Array]) -> Sequence[Any]:
        made = call(self.fwd, *self.record.all_args(arrays))
        if not (isinstance(made, tuple | list) and len(made) == 2):
            raise _shape_of_rule(self.fwd, "a pair: the value and the residuals", made)
        leaves, spec = trees.flatten(made[1])
        self.residuals = [None if isinstance(x, Array) else x for x in leaves], spec
        return [*checked_values(made[0], self.record, self.fwd), *(x for x in leaves if isinstance(x, Array))]


class _Pull(Rule):
    """The transposed derivative of one call. ``known``: the residuals that are no traced arrays, None for those."""

    def __init__(self, record: CallRecord, bwd: Callable[..., Any], known: list[Any], spec: trees.Spec):
        super().__init__(unused_name(record.name))
        self.record = record
        self.bwd = bwd
        self.known, self.spec = known, spec

    def jvp(self, b: Builder, op: Op, dots: Tangents) -> tuple[Sequence[Value], Tangents]:
        """Linear as it is, it is its own derivative by its last operands."""
        n = len(op.operands) - op.attrs["linear"]
        if any(d is not None for d in dots[:n]):
            raise NoDerivativeError(f"{self.name} has a rule for reverse mode alone, and no forward mode", op.loc)
        given = [b.zeros(v.type) if d is None else d for v, d in zip(op.operands[n:], dots[n:])]
        outs = b.append("reverse_only", [*op.operands[:n], *given], op.attrs)
        return b.append("reverse_only", op.operands, op.attrs), outs

    def transpose(self, b: Builder, op: Op, known: Sequence[Value | Linear], bars: Tangents) -> Tangents:
        record = self.record
        kept = len(op.operands) - op.attrs["linear"] - len(record.closure)
        n = kept + len(record.closure)
        types = [v.type for v in op.operands[:kept]] + [r.type for r in op.results]
        made = record.trace(self.bwd, [ArgSpec(t) for t in types], self._run)
        seeds = [b.zeros(r.type) if c is None else c for r, c in zip(op.results, bars)]
        return [*[None] * n, *b.inline(made.body, [*op.operands[:kept], *seeds, *op.operands[kept:n]])]

    def _run(self, arrays: Sequence[Array]) -> Sequence[Any]:
        """Calls ``bwd``; the cotangents of the arguments that vary."""
        record, rest = self.record, iter(arrays)
        residuals = trees.unflatten(self.spec, [next(rest) if x is None else x for x in self.known])
        outputs = record.program.traced.outputs
        bars = trees.unflatten(record.program.out_spec, [next(rest) if t.dtype.is_inexact else None for t in outputs])
        made = call(self.bwd, *record.fixed_args(), residuals, bars)
        like = record.tangent_args(list(record.arguments.leaves))
        if not (isinstance(made, tuple | list) and len(made) == len(like)):
            raise _shape_of_rule(self.bwd, f"a tuple of {len(like)}, the cotangents of the arguments", made)
        types: list[TensorType] = [t.type for t in record.arguments.types]
        found = matching(tuple(made), like, types, "cotangents", "the arguments")
        b = builder()
        return [wrap(b.zeros(t) if d is None else d) for d, t in zip(found, types) if t.dtype.is_inexact]


# -- functions not ours --------------------------------------------------------------------------------------------


def custom_gradient(function: Callable[..., Any]) -> custom_vjp:
    """A function with its reverse mode in one: ``function(*args)`` returns the value and a function that takes the
    cotangent of the value to those of ``args`` (a tuple; of one argument, itself). As in JAX.

    The second is made anew when the derivative is taken: what it needs of the first is computed again.
    """

    @functools.wraps(function)
    def value(*args: Any) -> Any:
        return call(function, *args)[0]

    def forward(*args: Any) -> Any:
        return call(function, *args)[0], args

    def backward(args: Any, bar: Any) -> Any:
        bars = call(call(function, *args)[1], bar)
        return bars if isinstance(bars, tuple) else (bars,)

    ruled = custom_vjp(value)
    ruled.defvjp(forward, backward)
    return ruled


def register_jvp(
    function: Callable[..., Any], rule: Callable[..., Any], primal: Callable[..., Any] | None = None
) -> None:
    """Gives a function that is not ours (a library's, a helper's) the rule of ``custom_jvp.defjvp`` in traced code.

    ``primal`` stands in for the function there, where it cannot be traced itself. To be called before the function is
    first traced; a later call replaces the rule for what is traced from then on.
    """
    custom_jvp_of = custom_jvp(_as_traced(function, primal))
    custom_jvp_of.defjvp(rule)
    _register(function, custom_jvp_of)


def register_vjp(
    function: Callable[..., Any],
    fwd: Callable[..., Any],
    bwd: Callable[..., Any],
    primal: Callable[..., Any] | None = None,
) -> None:
    """As ``register_jvp``, with the rules of ``custom_vjp.defvjp``."""
    custom_vjp_of = custom_vjp(_as_traced(function, primal))
    custom_vjp_of.defvjp(fwd, bwd)
    _register(function, custom_vjp_of)


registered: list[Any] = []  # the functions that have got rules


def _register(function: Callable[..., Any], rule: WithRule) -> None:
    BUILTINS[function] = rule
    registered.append(function)


def _as_traced(function: Callable[..., Any], primal: Callable[..., Any] | None) -> Callable[..., Any]:
    """What a function does in traced code, were it not for its rule."""

    @functools.wraps(function)
    def traced(*args: Any, **kwargs: Any) -> Any:
        if primal is not None:
            return call(primal, *args, **kwargs)
        return (rewritten(function) if isinstance(function, FunctionType) else function)(*args, **kwargs)

    traced.__module__ = __name__  # ours, so it is called as it stands
    return traced


__all__ = ["custom_jvp", "custom_vjp", "register_jvp", "register_vjp", "stop_gradient"]
