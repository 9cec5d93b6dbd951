"""The reference evaluator: runs a function on NumPy arrays, one operation after the other.

It is the oracle of every pass and every backend, so it is simple rather than fast, and checks all it can: each result
has exactly the dtype and shape that its type says, sizes stay within their bounds, positions lie inside their tensor.
Integers wrap around and floats follow IEEE, without warnings.

A sequence (``T[*, ...]``) is an array as long as what has been written of it; beyond its end all elements are zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import dflow.ir.ops  # noqa: F401  (fills the table of operations)
from dflow.ir.core import Block, Function, Module, Op, Value
from dflow.ir.failures import made
from dflow.ir.registry import OPS
from dflow.ir.types import GROWS, Size, TensorType

Array = np.ndarray[Any, Any]
Environment = dict[Value, Array]
OnOp = Callable[[Op, tuple[Array, ...], tuple[Array, ...]], None]


class EvaluationError(Exception):
    """The program, its arguments or the definition of an operation break the rules of the IR."""


def evaluate(
    f: Function, args: Sequence[Any], module: Module | None = None, on_op: OnOp | None = None
) -> tuple[Array, ...]:
    """The results of ``f`` as new arrays.

    Arguments are arrays of exactly the parameter types, or Python numbers. ``module`` holds the functions that ``f``
    calls. ``on_op(op, results, operands)`` is called after every operation, those in regions included.
    """
    with np.errstate(all="ignore"):
        return tuple(np.array(r) for r in _Evaluator(module or Module.of(f), on_op).function(f, args))


class _Evaluator:
    def __init__(self, module: Module, on_op: OnOp | None):
        self.module = module
        self.on_op = on_op

    def function(self, f: Function, args: Sequence[Any]) -> list[Array]:
        if len(args) != len(f.args):
            raise EvaluationError(f"@{f.name} takes {len(f.args)} arguments, got {len(args)}")
        return self.block(f.body, [_argument(a, v) for a, v in zip(args, f.args)], {})

    def block(self, block: Block, args: Sequence[Array], env: Environment) -> list[Array]:
        _bind(block.args, args, env, "argument")
        for op in block.ops:
            try:
                results = self.op(op, env)
                _bind(op.results, results, env, op.name)
            except Exception as e:
                if not hasattr(e, "location"):
                    e.location = op.loc  # type: ignore[attr-defined]
                if op.loc and not getattr(e, "__notes__", None):  # the innermost operation says where
                    e.add_note(f"at {op.loc}")
                raise
            if self.on_op:
                self.on_op(op, tuple(env[r] for r in op.results), tuple(env[v] for v in op.operands))
        return [env[v] for v in block.results]

    def op(self, op: Op, env: Environment) -> Sequence[Any]:
        operands = [env[v] for v in op.operands]
        control = getattr(self, f"_{op.name}", None)
        if control is not None:
            return control(op, operands, env)
        attrs = {k: _concrete(a, env) for k, a in op.attrs.items()}
        if any(v.type.grows for v in op.operands):
            attrs, operands = _lengthen(op, attrs, operands)
        reference = OPS[op.name].reference
        assert reference is not None, f"{op.name} has no reference"
        results = reference(attrs, *operands)
        return results if isinstance(results, tuple) else (results,)

    # -- operations with regions or effects, by name -----------------------------------------------------------------

    def _if(self, op: Op, operands: list[Array], env: Environment) -> Sequence[Any]:
        return self.block(op.regions[0 if operands[0] else 1], [], env)

    def _for(self, op: Op, operands: list[Array], env: Environment) -> Sequence[Any]:
        count, *carried = operands
        for k in range(int(count)):
            carried = self.block(op.regions[0], [np.array(k, np.int64), *carried], env)
        return carried

    def _while(self, op: Op, carried: list[Array], env: Environment) -> Sequence[Any]:
        condition, body = op.regions
        while self.block(condition, carried, env)[0]:
            carried = self.block(body, carried, env)
        return carried

    def _call(self, op: Op, operands: list[Array], env: Environment) -> Sequence[Any]:
        callee = self.module.functions.get(op.attrs["callee"])
        if callee is None:
            raise EvaluationError(f"there is no function @{op.attrs['callee']} in the module")
        return self.function(callee, operands)

    def _custom(self, op: Op, operands: list[Array], env: Environment) -> Sequence[Any]:
        return self.block(op.regions[0], operands, env)

    def _reverse_only(self, op: Op, operands: list[Array], env: Environment) -> Sequence[Any]:
        raise EvaluationError(f"@{op.attrs['rule'].name} has a transpose alone, and no values")

    def _check(self, op: Op, operands: list[Array], env: Environment) -> Sequence[Any]:
        ok, *details = operands
        if not ok:
            raise made(op.attrs["error"], op.attrs["message"], map(int, details))
        return ()

    def _kernel(self, op: Op, operands: list[Array], env: Environment) -> Sequence[Any]:
        domain = _concrete(op.attrs["domain"], env)
        (region,) = op.regions
        outs = [np.zeros(domain, r.type.dtype.numpy) for r in region.results]
        for index in np.ndindex(*domain):
            elements = self.block(region, [np.array(i, np.int64) for i in index], env)
            for out, element in zip(outs, elements):
                out[index] = element
        reduced = op.attrs["reduced"]
        if not reduced:
            return outs
        axes = tuple(range(len(domain) - reduced, len(domain)))
        reduce = OPS["reduce"].reference
        assert reduce is not None
        combine = op.attrs["combine"]
        return [reduce({"kind": kind, "axes": axes}, out) if kind else out for kind, out in zip(combine, outs)]


# -- types at run time -------------------------------------------------------------------------------------------------


def _concrete(attr: Any, env: Environment) -> Any:
    """An attribute or a type with the run-time sizes in place of ``Size``s."""
    if isinstance(attr, Size):
        if attr.value not in env:
            raise EvaluationError(f"the size {attr} is used before it is defined")
        size = int(env[attr.value])
        if not 0 <= size <= attr.bound:
            raise EvaluationError(f"the size {attr} is {size}")
        return size
    if isinstance(attr, TensorType):
        return attr.with_shape(_concrete(attr.shape, env))
    if isinstance(attr, tuple):
        return tuple(_concrete(a, env) for a in attr)
    return attr


def _bind(values: Sequence[Value], arrays: Sequence[Any], env: Environment, what: str) -> None:
    """Puts results (or arguments) in the environment, and checks each against its type."""
    if len(values) != len(arrays):
        raise EvaluationError(f"{what}: expected {len(values)} values, got {len(arrays)}")
    # All first, for a size may be a result beside the tensor that it bounds.
    env.update(zip(values, (np.asarray(a) for a in arrays)))
    for v in values:
        array = env[v]
        if not _has_type(array, _concrete(v.type, env)):
            raise EvaluationError(f"{what}: expected {v}, got {array.dtype}{list(array.shape)}")


def _has_type(array: Array, t: TensorType) -> bool:
    skip = 1 if t.grows else 0
    return array.dtype == t.dtype.numpy and array.ndim == t.rank and array.shape[skip:] == t.shape[skip:]


_KINDS = {bool: "b", int: "iufc", float: "fc", complex: "c"}


def _argument(a: Any, v: Value) -> Array:
    """An argument as an array; Python numbers take the dtype of the parameter where that keeps their value."""
    if type(a) in _KINDS and v.type.dtype.kind in _KINDS[type(a)]:
        return np.asarray(a, v.type.dtype.numpy)
    return np.asarray(a)


# -- sequences ---------------------------------------------------------------------------------------------------------


def _lengthen(op: Op, attrs: dict[str, Any], operands: list[Array]) -> tuple[dict[str, Any], list[Array]]:
    """What a reference needs that knows nothing of sequences: arrays long enough for all that the operation touches."""
    if "index" in attrs:  # the references of `extract` and `update` lengthen by themselves
        return {**attrs, "grows": True}, operands
    length = max(len(x) for v, x in zip(op.operands, operands) if v.type.grows)
    if op.name in ("gather", "scatter", "scatter_add"):
        leading = operands[1 if op.name == "gather" else 2]
        length = max(length, int(leading.max(initial=-1)) + 1)
    attrs = {k: _with_length(a, length) for k, a in attrs.items()}
    return attrs, [_padded(x, length) if v.type.grows else x for v, x in zip(op.operands, operands)]


def _with_length(attr: Any, length: int) -> Any:
    if isinstance(attr, tuple):
        return tuple(_with_length(a, length) for a in attr)
    return length if attr is GROWS else attr


def _padded(x: Array, length: int) -> Array:
    return np.concatenate([x, np.zeros((length - len(x), *x.shape[1:]), x.dtype)])
