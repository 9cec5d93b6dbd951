"""From a plan of tensors to a plan of launches: ``compile_plan``."""

from __future__ import annotations

from dflow.backends.cuda.context import Context
from dflow.backends.cuda.plan import LaunchPlan
from dflow.backends.cuda.ptx import DEFAULT, check_target, to_ptx
from dflow.backends.cuda.schedule import Scheduler
from dflow.backends.engine import lower
from dflow.backends.plan import Plan
from dflow.ir.core import Function


def compile_function(f: Function, target: str = DEFAULT) -> LaunchPlan:
    """Lowers and compiles ``f`` for a processor such as ``"sm_80"``, or any later one."""
    return compile_plan(lower(f), target)


def compile_plan(plan: Plan, target: str = DEFAULT) -> LaunchPlan:
    """The kernels of ``plan``, as PTX, with the steps of a run. Raises TargetError for an unknown processor."""
    check_target(target)
    context = Context(plan)
    steps = Scheduler(context).program()
    f = plan.function
    return LaunchPlan(
        f.name,
        to_ptx(context.module, target),
        target,
        f.arg_types,
        f.result_types,
        context.places.buffers,
        steps,
        tuple(context.checks),
        tuple(context.kernels),
        dict(plan.in_place),
    )
