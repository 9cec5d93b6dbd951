"""Control flow, calls, kernels and checks: operations with regions or effects.

The passes and the evaluator know these by name; their definitions here hold the type rules that regions must meet.

- ``if %pred {then} {else}``: both regions yield the results.
- ``for %count, %inits... {(k, carried...) -> carried}``: ``k`` runs over 0 .. count-1; results are the last carried.
- ``while %inits... {(carried...) -> bool} {(carried...) -> carried}``.
- ``call %args... {callee = "name"}``: a function of the same module.
- ``kernel {domain = (sizes...), reduced = r, combine = (...)} {(indices...) -> elements}``: for every index of the
  domain the region gives one scalar for each result, from scalars and single elements (``extract``) of tensors around
  it. The last ``r`` axes of the domain are reduced, each result by its ``combine`` (a kind of ``reduce``; a result
  with ``""`` is not: it has all axes).
- ``check %ok, %details... {error, message}``: raises unless ``%ok``; details (``i64``) fill ``{0}``, ``{1}``, ``{2}``.
- ``guard %x, %ok {error, message}``: ``%x``; raises unless ``%ok``. Where the result is not used it is not there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dflow.ir.failures import ERRORS, is_error_name, made
from dflow.ir.registry import OpDef, Sample, define, linear_jvp, require
from dflow.ir.types import ALL, BOOL, I64, TensorType, scalar


def _by_region(attrs: Any, types: Any) -> list[TensorType]:
    raise AssertionError("typed from its regions, see dflow.ir.builder.infer")


def _call_infer(attrs: Any, types: Any) -> list[TensorType]:
    return list(attrs["types"])


def _check_infer(attrs: Any, types: Any) -> list[TensorType]:
    require(types and types[0] == scalar(BOOL), "the first operand is a bool scalar")
    require(len(types) <= 4 and all(t == scalar(I64) for t in types[1:]), "takes at most 3 details of type i64")
    require(is_error_name(attrs["error"]), f"error must be one of {', '.join(ERRORS)}")
    return []


for _name, _doc, _attributes in (
    ("if", "one of two regions, by a bool scalar", ()),
    ("for", "a region repeated a number of times that is known on entry", ()),
    ("while", "a region repeated as long as a condition holds", ()),
    ("kernel", "scalar code for every index of a domain, with optional reduction", ("domain", "reduced", "combine")),
):
    define(OpDef(_name, _doc, _by_region, attributes=_attributes))
define(OpDef("call", "calls a function of the module", _call_infer, attributes=("callee", "types")))
define(
    OpDef(
        "check",
        "raises an error unless a condition holds",
        _check_infer,
        jvp=lambda b, a, xs, ys, ts: [],
        effect=True,
        attributes=("error", "message"),
    )
)


def _guard_infer(attrs: Any, types: Any) -> list[TensorType]:
    require(len(types) == 2 and types[1] == scalar(BOOL), "takes a value and a bool scalar")
    require(not types[0].grows, "does not take a sequence")
    require(is_error_name(attrs["error"]), f"error must be one of {', '.join(ERRORS)}")
    return [types[0]]


def _guard(attrs: Any, x: Any, ok: Any) -> Any:
    if not ok:
        raise made(attrs["error"], attrs["message"])
    return np.array(x)


define(
    OpDef(
        "guard",
        "x, which is only right when a condition holds: raises an error otherwise, unless nothing uses the result",
        _guard_infer,
        _guard,
        linear_jvp("guard", lambda n: ((0,),)),
        lambda b, attrs, xs, cts: [b.guard(cts[0], xs[1], **attrs), None],
        ((0,),),
        ALL,
        samples=(Sample(([1.0, 2.0], True), {"error": "ValueError", "message": "not right"}, integer=(1,)),),
    )
)
