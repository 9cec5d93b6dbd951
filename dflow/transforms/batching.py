"""``vmap``: a function of slices made a function of whole arrays.

The function is traced once, on one slice. Straight-line array code is then batched (``dflow.ir.passes.batch``), so that
products with one matrix become one product; everything else runs in a loop of the program over the slices, which
writes the results into arrays. Both are plain programs to every other transformation.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import optree

from dflow import trees
from dflow.errors import ShapeError, TraceError, failure, function_location
from dflow.ir.builder import Builder
from dflow.ir.core import Function, Op, Value, free_values
from dflow.ir.passes import optimize
from dflow.ir.passes.batch import batch
from dflow.ir.passes.batch_slices import NotBatchedError, meets, numbered
from dflow.ir.types import TensorType
from dflow.programs.methods import taken_apart
from dflow.programs.program import Program, trace_program
from dflow.programs.sharing import shared
from dflow.programs.signature import Arguments, leaf_names, leaf_type
from dflow.programs.transform import Jit
from dflow.shapes import shape_of
from dflow.tracing.arrays.array import Array
from dflow.tracing.arrays.lift import lift
from dflow.tracing.context import builder
from dflow.transforms.collectives import MappedAxis, over_axis
from dflow.transforms.derivatives import inline


def vmap(
    function: Callable[..., Any] | None = None,
    in_axes: Any = 0,
    out_axes: Any = 0,
    axis_size: int | None = None,
    axis_name: str | None = None,
) -> Any:
    """Maps a function over an axis of its arguments: ``vmap(f)(xs)[k]`` is ``f(xs[k])``.

    ``in_axes`` says which axis of each argument is mapped, None for none: an int for all, or a tuple with an entry for
    each positional argument, which may be a tree over the argument. Arguments by name are mapped along axis 0.
    ``out_axes`` says, in the same way for the result, where the mapped axis goes; None for results that are the same
    for all slices. ``axis_size`` is needed when nothing is mapped.

    With an ``axis_name``, the slices may meet: in the function, ``lax.psum(x, axis_name)`` and its like are sums over
    all slices.

    An argument that ``f`` updates in place must be mapped, and is updated for the caller.
    Raises ShapeError when the sizes of the mapped axes differ, TraceError when axes and arguments do not fit.
    """
    if function is None:
        return functools.partial(vmap, in_axes=in_axes, out_axes=out_axes, axis_size=axis_size, axis_name=axis_name)
    bound = taken_apart(function)
    if bound is not None:
        axes = _Axes(in_axes, out_axes, axis_size, axis_name, first=1)
        return _mapped(bound[0], axes).__get__(bound[1])
    return _mapped(function, _Axes(in_axes, out_axes, axis_size, axis_name))


class _Axes:
    """What is mapped. ``first``: positional arguments before those that ``inputs`` speaks of."""

    def __init__(self, inputs: Any, outputs: Any, size: int | None, name: str | None, first: int = 0):
        self.inputs = tuple(inputs) if isinstance(inputs, list) else inputs
        self.outputs, self.size, self.name, self.first = outputs, size, name, first

    @property
    def key(self) -> Any:
        inputs, spec = optree.tree_flatten(self.inputs, none_is_leaf=True)  # type: ignore[arg-type]
        outputs, other = optree.tree_flatten(self.outputs, none_is_leaf=True)
        return tuple(inputs), spec, tuple(outputs), other, self.size, self.name, self.first

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Axes) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def of_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        """The axis of every leaf."""
        inputs = self.inputs
        if isinstance(inputs, tuple):
            if len(inputs) != len(args) - self.first:
                raise failure(
                    TraceError,
                    f"in_axes has {len(inputs)} entries for {len(args) - self.first} positional arguments",
                    mend="give one for each, None for arguments that are not mapped",
                )
            inputs = (*[None] * self.first, *inputs)
        elif self.first:
            inputs = (*[None] * self.first, *[inputs] * (len(args) - self.first))
        return [*_spread(inputs, args, "in_axes", "the arguments"), *_spread(0, kwargs, "in_axes", "the arguments")]


def _spread(prefix: Any, tree: Any, what: str, of: str) -> list[Any]:
    """An entry for each leaf of ``tree``."""
    wanted = "an int or None, or a tree of them that fits"
    spec = trees.flatten(tree)[1]
    whole = trees.unflatten(spec, [0] * spec.num_leaves)  # without the arrays: they would be compared
    try:
        entries = optree.broadcast_prefix(prefix, whole, none_is_leaf=True, namespace=trees.NAMESPACE)
        leaves = optree.tree_leaves(whole, none_is_leaf=True, namespace=trees.NAMESPACE)
    except ValueError:
        raise failure(
            TraceError, f"{what} must have the structure of {of}", seen=repr(prefix), wanted=f"{wanted} {spec}"
        ) from None
    found = [e for e, x in zip(entries, leaves) if x is not None]
    for e in found:
        if not (e is None or (isinstance(e, int) and not isinstance(e, bool))):
            raise failure(TraceError, f"{what} must hold ints and None", seen=repr(e), wanted=wanted)
    return found


def _mapped(function: Callable[..., Any], axes: _Axes) -> Jit:
    def inner(*args: Any, **kwargs: Any) -> Any:
        return _Map(function, axes, args, kwargs).run()

    recipe = (_mapped, axes)
    return shared(lambda: Jit(function, inner, "vmap", recipe=recipe), function, recipe)


class _Map:
    """One call."""

    def __init__(self, function: Callable[..., Any], axes: _Axes, args: tuple[Any, ...], kwargs: dict[str, Any]):
        self.function = function
        leaves, spec = trees.flatten((args, kwargs))
        names = leaf_names(function, args, kwargs)
        self.axes = [
            None if a is None or leaf_type(x) is None else _axis(a, len(shape_of(x).shape), f"argument {n}", function)
            for a, x, n in zip(axes.of_arguments(args, kwargs), leaves, names)
        ]
        self.size = self._size(leaves, names, axes.size)
        self.outputs = axes.outputs
        slices = [x if a is None else shape_of(x, a) for x, a in zip(leaves, self.axes)]
        call_args, call_kwargs = trees.unflatten(spec, slices)
        arguments = Arguments(function, call_args, call_kwargs, keep_known=True)
        self.name = axes.name
        with over_axis(axes.name and MappedAxis(axes.name, self.size)):
            self.program: Program = trace_program(function, arguments)
        numeric = [i for i in range(len(leaves)) if i not in arguments.fixed]
        self.leaves = [leaves[i] for i in numeric]
        self.in_axes = [self.axes[i] for i in numeric]
        self.names = arguments.names()

    def _size(self, leaves: Sequence[Any], names: Sequence[str], given: int | None) -> int:
        sizes = {n: shape_of(x).shape[a] for x, a, n in zip(leaves, self.axes, names) if a is not None}
        if given is not None:
            sizes["axis_size"] = given
        if len(set(sizes.values())) == 1:
            return next(iter(sizes.values()))
        name = getattr(self.function, "__name__", "the function")
        if not sizes:
            raise failure(
                TraceError,
                f"vmap of {name} maps no argument",
                mend="name an axis in in_axes, or give axis_size",
                location=function_location(self.function),
            )
        raise failure(
            ShapeError,
            f"vmap of {name} maps axes of different sizes",
            seen=", ".join(f"{n}: {s}" for n, s in sizes.items()),
            mend="pass what is not mapped with None in in_axes",
        )

    def run(self) -> Any:
        program = self.program
        f = optimize(program.traced.function)
        n = program.result_count
        out = self._out_axes()
        mutated = [position for position, _ in program.traced.mutated]
        for k in mutated:
            self._require_mapped(k)
        axes = [*out, *(self.in_axes[k] for k in mutated)]
        operands = [lift(x).value for x in (*self.leaves, *program.traced.captured)]
        mapped = [*self.in_axes, *[None] * len(program.traced.captured)]
        for t in f.result_types:
            if not t.is_static:
                raise failure(
                    TraceError,
                    "vmap needs results whose sizes are known while tracing",
                    seen=f"{t}",
                    mend="return an array of the full size, with zeros in the rest",
                )
        if self.name is not None and meets(f, self.name):
            values = self._together(f, operands, mapped, axes)
        else:
            self._require_same(f, mapped, axes)
            values = self._batched(f, operands, mapped, axes) or self._loop(f, operands, mapped, axes)
        results = inline(Function(f.name, _identity(values)), values)
        for k, new in zip(mutated, results[n:]):
            leaf = self.leaves[k]
            assert isinstance(leaf, Array)
            leaf[...] = new
        return trees.unflatten(program.out_spec, results[:n])

    def _out_axes(self) -> list[int | None]:
        spec = self.program.out_spec
        tree = trees.unflatten(spec, [0.0] * spec.num_leaves)
        entries = _spread(self.outputs, tree, "out_axes", "the result")
        types = self.program.traced.outputs
        return [
            None if a is None else _axis(a, t.rank + 1, "the result", self.function) for a, t in zip(entries, types)
        ]

    def _require_mapped(self, k: int) -> None:
        if self.in_axes[k] is None or not isinstance(self.leaves[k], Array):
            raise failure(
                TraceError,
                f"the function updates its argument {self.names[k]}, which all slices share",
                mend="map it (in_axes), or update a copy",
                location=function_location(self.function),
            )

    def _require_same(self, f: Function, mapped: Sequence[int | None], axes: Sequence[int | None]) -> None:
        """Results without a mapped axis must not depend on what is mapped."""
        reached = _reached(f, [a for a, m in zip(f.args, mapped) if m is not None])
        self._require_axes([r in reached for r in f.results], axes)

    def _require_axes(self, varies: Sequence[bool], axes: Sequence[int | None]) -> None:
        for k, (varying, axis) in enumerate(zip(varies, axes)):
            if axis is None and varying:
                raise failure(
                    TraceError,
                    f"result {k} differs from slice to slice, and out_axes gives it no axis",
                    mend="name an axis for it in out_axes",
                    location=function_location(self.function),
                )

    # -- the two ways ----------------------------------------------------------------------------------------------

    def _batched(
        self, f: Function, operands: Sequence[Value], mapped: Sequence[int | None], axes: Sequence[int | None]
    ) -> list[Value] | None:
        made = batch(f, [m is not None for m in mapped], self.size)
        if made is None:
            return None
        whole, varies = made
        return self._placed(builder().inline(whole.body, self._leading(operands, mapped)), varies, axes)

    def _leading(self, operands: Sequence[Value], mapped: Sequence[int | None]) -> list[Value]:
        """The operands with their mapped axes first."""
        b = builder()
        return [v if m is None else _moved(b, v, m, 0) for v, m in zip(operands, mapped)]

    def _placed(self, values: Sequence[Value], varies: Sequence[bool], axes: Sequence[int | None]) -> list[Value]:
        """The results with their mapped axes where they are wanted."""
        b = builder()
        out = []
        for v, varying, axis in zip(values, varies, axes):
            if axis is not None and not varying:
                v = b.broadcast(v, shape=(self.size, *v.type.shape), dims=tuple(range(1, v.type.rank + 1)))
            out.append(v if axis is None else _moved(b, v, 0, axis))
        return out

    def _together(
        self, f: Function, operands: Sequence[Value], mapped: Sequence[int | None], axes: Sequence[int | None]
    ) -> list[Value]:
        """Slices that meet go on side by side."""
        assert self.name is not None
        try:
            made = batch(numbered(f, self.name), [*(m is not None for m in mapped), True], self.size, self.name)
        except NotBatchedError as e:
            raise failure(
                TraceError,
                f"{e}; not all may come there alike",
                mend="take the sum over the axis before it, and use np.where for a branch",
                location=e.loc,
            ) from None
        if made is None:
            raise failure(
                TraceError,
                f"a function with sums over the axis {self.name!r} has arrays whose size depends on the run",
                mend="use arrays of the full size, with zeros in the rest",
                location=function_location(self.function),
            )
        whole, varies = made
        self._require_axes(varies, axes)
        number = builder().iota(size=self.size)
        return self._placed(builder().inline(whole.body, [*self._leading(operands, mapped), number]), varies, axes)

    def _loop(
        self, f: Function, operands: Sequence[Value], mapped: Sequence[int | None], axes: Sequence[int | None]
    ) -> list[Value]:
        b = builder()

        def body(inner: Builder, k: Value, *tables: Value) -> list[Value]:
            given = [
                v if m is None else inner.extract(v, k, index=_place(v.type.rank, m)) for v, m in zip(operands, mapped)
            ]
            parts = inner.inline(f.body, given)
            return [
                part if axis is None else inner.update(table, part, k, index=_place(table.type.rank, axis))
                for table, part, axis in zip(tables, parts, axes)
            ]

        tables = [b.zeros(_with_axis(t, axis, self.size)) for t, axis in zip(f.result_types, axes)]
        return list(b.for_loop(b.index(self.size), tables, body))


def _axis(axis: int, rank: int, what: str, function: Callable[..., Any]) -> int:
    if -rank <= axis < rank:
        return axis % rank
    raise failure(
        ShapeError,
        f"vmap along axis {axis} of {what}, which has {rank} axes",
        mend="name another axis, or None for what is not mapped",
        location=function_location(function),
    )


def _place(rank: int, axis: int) -> tuple[str, ...]:
    return tuple("at" if k == axis else "all" for k in range(rank))


def _with_axis(t: TensorType, axis: int | None, size: int) -> TensorType:
    return t if axis is None else t.with_shape((*t.shape[:axis], size, *t.shape[axis:]))


def _moved(b: Builder, v: Value, source: int, target: int) -> Value:
    if source == target:
        return v
    perm = [k for k in range(v.type.rank) if k != source]
    perm.insert(target, source)
    return b.transpose(v, perm=tuple(perm))


def _reached(f: Function, seeds: Sequence[Value]) -> set[Value]:
    """The values of the function's block that depend on ``seeds`` in any way."""
    found = set(seeds)

    def uses(op: Op) -> list[Value]:
        return [*op.uses(), *free_values(*op.regions)]

    for op in f.body.ops:
        if any(v in found for v in uses(op)):
            found.update(op.results)
    return found


def _identity(values: Sequence[Value]) -> Any:
    b = Builder([v.type for v in values])
    return b.finish(b.args)


__all__ = ["vmap"]
