"""``if`` on a traced condition: both branches are traced, and what they leave behind is merged."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dflow.ir.core import Value
from dflow.ir.failures import register
from dflow.ir.passes.transfer import assume
from dflow.ir.registry import definition
from dflow.tracing.arrays import lift as _lift
from dflow.tracing.arrays import sizes
from dflow.tracing.arrays.array import Array
from dflow.tracing.context import BRANCH, Region, builder, entered, region, tracing
from dflow.tracing.control.merging import Arm, Merge
from dflow.tracing.control.state import Forgotten, Undefined, load
from dflow.tracing.python.objects import MISSING, Snapshot, resized
from dflow.tracing.python.optional import settled
from dflow.tracing.python.printing import bits, message_of

Block = Callable[[], Any]
Get = Callable[[], tuple[Any, ...]]
Set = Callable[[Sequence[Any]], None]


def traced_condition(test: Any) -> bool:
    """Whether ``test`` is a condition that is known only when the program runs."""
    return isinstance(test, Array) and _lift.static_value(test) is None


def truth(test: Array) -> Value:
    """A condition as a bool scalar."""
    if not sizes.is_one(test.type.shape):
        bool(test)  # raises
    value = test.value
    if value.type.rank:
        value = builder().reshape(value, shape=())
    if value.type.dtype.kind == "b":
        return value
    b = builder()
    return b.ne(value, 0)


@dataclass(frozen=True)
class Assigned:
    """What the rewritten source says of an ``if``: how the variables that it assigns are read and written, ``names`` of
    these, ``live`` those used later; ``uses`` gives the values of all variables that the branches read."""

    get: Get
    put: Set
    names: Sequence[str]
    live: Sequence[str]
    uses: Callable[[], Sequence[Any]] = tuple


def if_(test: Any, then: Block, orelse: Block, assigned: Assigned) -> None:
    """An ``if`` statement."""
    if not traced_condition(test):
        then() if test else orelse()
        return
    get, put, names = assigned.get, assigned.put, assigned.names
    pred = truth(test)
    before = get()
    snapshot = Snapshot([*before, *assigned.uses()], names)
    arms: list[Arm] = []
    for block, holds in ((then, True), (orelse, False)):
        put(before)
        try:
            arm = _traced_arm(pred, holds, block, get, snapshot)
        finally:
            snapshot.restore()
        if arm.raised is not None:
            _check(pred, holds, arm)
            put(before)
            (orelse if holds else then)()
            return
        arms.append(arm)
    places = list({**arms[0].places, **arms[1].places})
    for p in places:
        if snapshot.then(p) is MISSING and not all(p in arm.places for arm in arms):
            error = resized(p, "branch")
            error.appended = _appended(arms, snapshot, test)
            raise error
    for arm in arms:
        arm.after += tuple(arm.places.get(p, snapshot.then(p)) for p in places)
    merge = Merge(pred, arms[0], arms[1], snapshot)
    values = merge.variables([*names, *(p.name for p in places)], {*assigned.live, *(p.name for p in places)})
    put(values[: len(names)])
    for place, value in zip(places, values[len(names) :]):
        place.put(value if isinstance(value, Forgotten) else load(value))


def _appended(arms: Sequence[Arm], snapshot: Snapshot, test: Array) -> list[Any]:
    """The lists that become longer in a branch: what is appended there, and the condition."""
    found: dict[int, Any] = {}
    for arm in arms:
        for place, value in arm.places.items():
            if type(place.owner) is list and snapshot.then(place) is MISSING:
                found.setdefault(id(place.owner), (place.owner, [], test))[1].append(value)
    return list(found.values())


def _traced_arm(pred: Value, holds: bool, block: Block, get: Get, snapshot: Snapshot) -> Arm:
    """Traces one branch in a region of its own."""
    inner = Region(BRANCH, region(), reach=snapshot)
    with entered(inner):
        assume(inner.known, pred, holds)
        try:
            block()
        except Exception as e:
            if getattr(e, "_dflow_raised", None) is not inner:
                raise
            return Arm(inner, raised=e)
        snapshot.new_places("branch", growing=True)
        places = {place: settled(x) for place, x in snapshot.changes().items()}
        after = tuple(map(settled, get()))
        return Arm(inner, after, places, Snapshot([*after, *places.values()]))


def raised(error: Any) -> Any:
    """The operand of a ``raise`` statement, marked with the region that it is raised in."""
    if isinstance(error, type) and issubclass(error, BaseException):
        error = error()
    if isinstance(error, BaseException):
        error._dflow_raised = region() if tracing() else None  # type: ignore[attr-defined]
    return error


def _check(pred: Value, holds: bool, arm: Arm) -> None:
    """A branch that raises becomes a check that it is not taken."""
    error = arm.raised
    assert error is not None
    text, details = message_of(
        error.args[0] if len(error.args) == 1 else str(error) if error.args else "", lambda x: _hoisted(arm.region, x)
    )
    b = builder()
    name = register(type(error))
    b.check(b.not_(pred) if holds else pred, *details, error=name, message=text)


def _hoisted(inner: Region, x: Array) -> Value | None:
    """A number of a branch as a detail of a check before it, if what makes it may be computed anyway."""
    with entered(inner):
        value = bits(x)
    needed, ops = {value}, []
    for op in reversed(inner.builder.ops):
        if needed.isdisjoint(op.results):
            continue
        outside = op.name == "extract" and not all(v.op and v.op.name == "constant" for v in op.operands[1:])
        if op.regions or definition(op).effect or outside or not all(r.type.is_scalar for r in op.results):
            return None
        needed.update(op.operands)
        ops.append(op)
    here = region().builder
    here.ops.extend(op for op in reversed(ops) if not any(op is o for o in here.ops))
    return value


def given(x: Any) -> Block:
    """A block of ``choose`` that has a value already."""
    return functools.partial(_same, x)


def _same(x: Any) -> Any:
    return x


def choose(test: Any, then: Block, orelse: Block) -> Any:
    """A conditional expression. The blocks are the user's functions, ``given`` or ``functools.partial``: objects in
    these are seen, those in functions of dflow are not."""
    if not traced_condition(test):
        return then() if test else orelse()
    box: list[Any] = [Undefined("expression")]

    def put(values: Sequence[Any]) -> None:
        box[0] = values[0]

    def run(block: Block) -> Block:
        return lambda: put([block()])

    name = ("_dflow_expression",)
    if_(test, run(then), run(orelse), Assigned(lambda: (box[0],), put, name, name, lambda: (then, orelse)))
    if isinstance(box[0], Undefined):
        raise box[0].error()
    return box[0]
