"""From a plan of tensors to a plan of launches: ``compile_plan``."""

from __future__ import annotations

import os
from collections.abc import Sequence

from llvmlite import ir

from dflow.backends.cuda.context import Context
from dflow.backends.cuda.plan import LaunchPlan, Step
from dflow.backends.cuda.planning.schedule import Scheduler
from dflow.backends.cuda.ptx import DEFAULT, TRIPLE, check_target, to_ptx
from dflow.backends.lowering.plan import Plan
from dflow.backends.native.generation import lower
from dflow.ir.core import Function


def compile_function(f: Function, target: str = DEFAULT) -> LaunchPlan:
    """Lowers and compiles ``f`` for a processor such as ``"sm_80"``, or any later one."""
    return compile_plan(lower(f), target)


def compile_plan(plan: Plan, target: str = DEFAULT, deterministic: bool = False) -> LaunchPlan:
    """The kernels of ``plan``, as PTX, with the steps of a run. Raises TargetError for an unknown processor.

    ``deterministic``: every run gives the same bits. So it is, too, when ``DFLOW_DETERMINISTIC`` is set.
    """
    (made,) = compile_plans([(plan.function.name, plan)], target, deterministic)
    return made


def compile_plans(
    plans: Sequence[tuple[str, Plan]], target: str = DEFAULT, deterministic: bool = False
) -> list[LaunchPlan]:
    """Several programs, with names of their own, in one module of PTX, which all results have."""
    check_target(target)
    module = ir.Module(plans[0][0])
    module.triple = TRIPLE
    deterministic = deterministic or os.environ.get("DFLOW_DETERMINISTIC", "0") not in ("", "0")
    contexts = [Context(plan, name, module, deterministic) for name, plan in plans]
    steps = [Scheduler(context).program() for context in contexts]
    ptx = to_ptx(module, target)
    return [_launch_plan(context, s, ptx, target) for context, s in zip(contexts, steps)]


def _launch_plan(context: Context, steps: tuple[Step, ...], ptx: str, target: str) -> LaunchPlan:
    f = context.plan.function
    return LaunchPlan(
        context.name,
        ptx,
        target,
        f.arg_types,
        f.result_types,
        context.places.buffers,
        steps,
        tuple(context.checks),
        tuple(context.kernels),
        dict(context.plan.in_place),
    )
