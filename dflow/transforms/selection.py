"""Which arguments are meant: by number or by name, to differentiate by or to keep static."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Sequence
from typing import Any

from dflow import trees
from dflow.errors import DerivativeError, DflowError, TraceError, failure
from dflow.programs.signature import Arguments, parameter_names

Argnums = int | Sequence[int]


def argument_numbers(option: str, given: Any, kind: type[DflowError] = TraceError) -> tuple[int, ...]:
    """A number or several as a tuple. Raises an error of class ``kind`` for anything else, and for repetitions."""
    try:
        return _distinct(option, (operator.index(given),) if _is_number(given) else map(_number, given), kind)
    except TypeError as e:
        raise _refused(option, given, kind, "the position of an argument, or a tuple of positions", e) from None


def argument_names(option: str, given: Any, kind: type[DflowError] = TraceError) -> tuple[str, ...]:
    """A name or several as a tuple. Raises an error of class ``kind`` for anything else, and for repetitions."""
    try:
        names = (given,) if isinstance(given, str) else tuple(given)
        if not all(isinstance(n, str) for n in names):
            raise TypeError(f"not all of {names} are names")
        return _distinct(option, names, kind)
    except TypeError as e:
        raise _refused(option, given, kind, "the name of an argument, or a tuple of names", e) from None


def _is_number(x: Any) -> bool:
    return hasattr(x, "__index__") and not isinstance(x, bool)


def _number(x: Any) -> int:
    if not _is_number(x):
        raise TypeError(f"{x!r} is not the position of an argument")
    return operator.index(x)


def _distinct(option: str, given: Any, kind: type[DflowError]) -> tuple[Any, ...]:
    found = tuple(given)
    if len(set(found)) < len(found):
        raise failure(kind, f"{option} names an argument twice", seen=f"{found}")
    return found


def _refused(option: str, given: Any, kind: type[DflowError], wanted: str, error: TypeError) -> Exception:
    return error if isinstance(error, DflowError) else failure(kind, f"{option} is {given!r}", wanted=wanted)


def chosen_numbers(argnums: Any, argnames: Any) -> int | tuple[int, ...] | None:
    """``argnums`` of a derivative: the first argument when nothing is chosen; a tuple for a sequence."""
    if argnums is None:
        return 0 if argnames is None else None
    numbers = argument_numbers("argnums", argnums, DerivativeError)
    return numbers[0] if _is_number(argnums) else numbers


def require_parameters(function: Callable[..., Any], nums: tuple[int, ...], names: tuple[str, ...]) -> None:
    """Raises TraceError where a static argument, by position or by name, is no parameter of ``function``."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return
    kinds = {p.kind for p in parameters}
    positional = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    by_name = [p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    called = getattr(function, "__name__", "the function")
    for n in nums:
        if not -len(positional) <= n < len(positional) and inspect.Parameter.VAR_POSITIONAL not in kinds:
            raise failure(
                TraceError,
                f"static_argnums has {n}, but {called} takes {len(positional)} positional arguments",
                seen=", ".join(positional) or "none",
            )
    for name in names:
        if name not in by_name and inspect.Parameter.VAR_KEYWORD not in kinds:
            raise failure(
                TraceError,
                f"static_argnames has {name!r}, but {called} has no such argument",
                seen=", ".join(by_name) or "none",
            )


class Selection:
    """The arguments to differentiate by: their trees, and which leaves among them can carry a derivative."""

    def __init__(
        self,
        arguments: Arguments,
        argnums: Argnums | None,
        argnames: str | Sequence[str] | None,
        verb: str,
        allow_int: bool = False,
    ):
        self.arguments = arguments
        self.verb = verb
        self.allow_int = allow_int
        self.single = (isinstance(argnums, int) and not argnames) or (isinstance(argnames, str) and argnums is None)
        numbers = () if argnums is None else (argnums,) if isinstance(argnums, int) else tuple(argnums)
        names = (argnames,) if isinstance(argnames, str) else tuple(argnames or ())
        keys = [*map(self._by_number, numbers), *map(self._by_name, names)]
        if len(set(keys)) < len(keys):
            raise failure(
                DerivativeError, f"{verb} by one argument twice", seen=f"argnums {argnums}, argnames {argnames}"
            )
        self.parts = [self._part(*found) for found in self._chosen(keys)]

    def _by_number(self, i: int) -> int | str:
        """What tells the argument with the number ``i`` of this call: its position, or its name if it came by name."""
        count = len(self.arguments.args)
        if -count <= i < count:
            return i % count
        name = parameter_names(self.arguments.function, i + 1)[i] if i >= 0 else None
        if name in self.arguments.kwargs:
            return str(name)
        raise failure(
            DerivativeError,
            f"{self.verb} by argument {i}, but the call has {count} positional arguments",
            mend="call it with that argument, or choose others by argnums or argnames",
        )

    def _by_name(self, name: str) -> int | str:
        if name in self.arguments.kwargs:
            return name
        positional = parameter_names(self.arguments.function, len(self.arguments.args))
        if name in positional:
            return positional.index(name)
        raise failure(
            DerivativeError,
            f"{self.verb} by argument {name!r}, which the call does not give",
            seen=", ".join([*positional, *self.arguments.kwargs]) or "no arguments",
            mend=f"call with {name}=..., or choose others by argnums or argnames",
        )

    def _chosen(self, keys: Sequence[int | str]) -> list[tuple[int, Any, str]]:
        """Where the leaves of each chosen argument begin, the argument, and its name."""
        a = self.arguments
        labels = parameter_names(a.function, len(a.args))
        entries: list[tuple[Any, Any, str]] = [(i, x, n) for i, (x, n) in enumerate(zip(a.args, labels))]
        entries += [(k, a.kwargs[k], k) for k in sorted(a.kwargs)]
        starts, total = {}, 0
        for key, tree, name in entries:
            starts[key] = (total, tree, name)
            total += len(trees.flatten(tree)[0])
        return [starts[k] for k in keys]

    def _part(self, start: int, tree: Any, name: str) -> tuple[trees.Spec, list[int]]:
        leaves, spec = trees.flatten(tree)
        types = self.arguments.all_types[start : start + len(leaves)]
        fixed = trees.constants(tree)
        varying = [t is not None and t.type.dtype.is_inexact and i not in fixed for i, t in enumerate(types)]
        inexact = [start + i for i, varies in enumerate(varying) if varies]
        if not (inexact or self.allow_int):
            kinds = [t or type(leaf).__name__ for t, leaf in zip(types, leaves)]
            seen = ", ".join(f"{n}: {kind}" for n, kind in zip(trees.paths(tree, name), kinds)) or "nothing"
            raise failure(
                DerivativeError,
                f"{self.verb} by argument {name}, which holds no floats",
                seen=seen,
                wanted="floating-point numbers: integers do not vary continuously",
                mend=f"pass {name} as float (3.0 for 3, {name}.astype(float)), or choose other arguments by argnums"
                + ("; allow_int=True gives None for integers" if self.verb.endswith("grad") else ""),
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
