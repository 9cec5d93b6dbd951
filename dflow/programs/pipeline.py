"""The stages of one program, each made from the one before and readable by itself.

traced -> optimized -> lowered -> LLVM -> machine code. Derivatives are taken while tracing. With ``DFLOW_DUMP=folder``
every stage of everything that is compiled is written there, numbered, one file a pass; with ``DFLOW_CHECK=1`` the
verifier runs after each pass.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dflow.errors import DerivativeError, failure
from dflow.ir.core import Function
from dflow.ir.passes import PASSES, Check, optimize
from dflow.ir.passes.expand import expand, expand_late, has_late
from dflow.ir.registry import NoDerivativeError
from dflow.programs.collecting import fewer_collections

if TYPE_CHECKING:
    from dflow.backends.lowering.plan import Plan
    from dflow.backends.native.generation import Generated
    from dflow.programs.trimming import Trimming

STAGES = ("traced", "optimized", "lowered")
_numbers = itertools.count(1)


class Stages:
    """All stages of a program, each made when it is asked for.

    ``in_place`` maps results to the arguments whose memory they are left in, ``trim`` says which results are cut by
    others that are their sizes; those who run the program do that. Of a program that was found on disk
    ``signature`` has the types alone, and ``remake`` traces it.
    """

    def __init__(
        self,
        signature: Function,
        dump: Dump,
        in_place: Mapping[int, int] | None = None,
        remake: Callable[[], Function] | None = None,
        trim: Trimming | None = None,
    ):
        self.signature = signature
        self.in_place = in_place or {}
        self.trim = trim
        self.dump = dump
        self._remake = remake
        dump.write("traced", signature)

    @cached_property
    def traced(self) -> Function:
        return self._remake() if self._remake else self.signature

    @cached_property
    def optimized(self) -> Function:
        with fewer_collections():
            return self._optimized()

    def _optimized(self) -> Function:
        simple = optimize(expand(self.traced), check=checking(), observe=self.dump.write)
        if not has_late(simple):
            return simple
        try:
            plain = expand_late(simple)
        except NoDerivativeError as e:
            mend = "use dflow.grad, vjp or jacrev, or give the function a rule by custom_jvp"
            raise failure(DerivativeError, str(e), mend=mend, location=e.loc) from None
        for name in ("canonicalize", "dce"):  # no cse: what a checkpoint computes again stays apart
            plain = PASSES[name](plain)
            self.dump.write(name, plain)
        return plain

    @cached_property
    def plan(self) -> Plan:
        """For this process, which has BLAS."""
        with fewer_collections():
            return self.lower(self.in_place, blas=True)

    @cached_property
    def device_plan(self) -> Plan:
        """The plan for a GPU, with fewer and larger kernels."""
        return self.lower(self.in_place, for_device=True)

    def forget(self) -> None:
        """Keeps what was traced alone: the other stages are made again when they are asked for."""
        for stage in ("optimized", "plan"):
            self.__dict__.pop(stage, None)

    def lower(self, in_place: Mapping[int, int], blas: bool = False, for_device: bool = False) -> Plan:
        """The plan with just these results left in the memory of arguments."""
        from dflow.backends.lowering.bufferize import bufferize  # where no program on disk does
        from dflow.backends.lowering.fusion import fuse

        fused = fuse(self.optimized, blas, for_device)
        self.dump.write("fuse", fused)
        if for_device:
            from dflow.backends.cuda.planning.merge import merge  # as in `DeviceProgram`

            fused = merge(fused)
            self.dump.write("merge", fused)
        plan = bufferize(fused, in_place)
        self.dump.write("lowered", plan.function)
        return plan

    def dump_machine_code(self, made: Generated) -> None:
        self.dump.write_text("llvm", ".ll", lambda: made.llvm)
        self.dump.write_text("machine", ".s", lambda: made.asm)

    def function(self, stage: str) -> Function:
        """The IR at a stage. Raises ValueError for an unknown one."""
        if stage not in STAGES:
            raise ValueError(f"stage must be one of {', '.join(STAGES)}; got {stage!r}")
        return self.plan.function if stage == "lowered" else getattr(self, stage)


def checking() -> Check:
    """Whether the verifier runs after each pass, or after the last."""
    wanted = os.environ.get("DFLOW_CHECK", "")
    return "last" if wanted == "last" else wanted not in ("", "0")


class Dump:
    """Writes stages to a folder, or nowhere. As a context manager: the dump of the program that is being traced."""

    def __init__(self, folder: Path | None):
        self.folder = folder
        self.active = folder is not None
        self.steps = itertools.count()

    @staticmethod
    def wanted() -> str | None:
        """The folder of all dumps."""
        return os.environ.get("DFLOW_DUMP")

    @staticmethod
    def of(name: str) -> Dump:
        """The dump of a new program, in its own numbered folder under ``DFLOW_DUMP``."""
        root = Dump.wanted()
        if not root:
            return Dump(None)
        folder = Path(root) / f"{next(_numbers):03d}-{re.sub(r'[^A-Za-z0-9_.-]+', '_', name)}"
        folder.mkdir(parents=True, exist_ok=True)
        return Dump(folder)

    def __enter__(self) -> Dump:
        self._token = _current.set(self)
        return self

    def __exit__(self, *error: object) -> None:
        _current.reset(self._token)

    def write(self, stage: str, function: Function) -> None:
        self.write_text(stage, ".ir", lambda: f"{function}\n")

    def write_text(self, stage: str, suffix: str, text: Callable[[], Any]) -> None:
        if self.folder is not None:
            (self.folder / f"{next(self.steps):02d}-{stage}{suffix}").write_text(str(text()))


_current: ContextVar[Dump | None] = ContextVar("dflow_dump", default=None)


def differentiate(f: Function, derivative: Callable[[Function], Function]) -> Function:
    """Applies a differentiation to the optimized function; both are dumped as steps of the current program.

    It is optimized before, so that neither dead nor loop-invariant code is differentiated or kept for each iteration.
    """
    dump = _current.get() or Dump(None)
    simple = optimize(f, check=checking())
    dump.write(f"before-{simple.name}", simple)
    made = derivative(simple)
    dump.write(f"after-{made.name}", made)
    return made
