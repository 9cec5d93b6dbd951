"""A compiled program on a GPU: takes and returns flat leaves, as `Executable` does on the processor.

Leaves may be on the device (`dflow.Array`, or an array of another library, which is taken without a copy) or on the
host, from where they are moved. When one of the arrays was on the device, the results are `dflow.Array`s; else they
come back as NumPy arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dflow.backends.cuda.launch import driver
from dflow.backends.interface import by_value
from dflow.devices.array import Array, Later, is_on_device, moved, taken
from dflow.devices.placement import default_ordinal
from dflow.devices.streams import current_stream
from dflow.errors import run_time_error
from dflow.ir.types import TensorType
from dflow.programs.executable import Executable, Mismatch, Updated, check_apart, check_writable
from dflow.programs.pipeline import Stages
from dflow.programs.signature import LeafType, as_array, leaf_type

if TYPE_CHECKING:
    from dflow.backends.cuda.launch.runtime import Program


class DeviceProgram:
    """One program for one signature, on the GPU that is current when it is called; see `Executable`."""

    address = None
    is_deterministic = False
    is_inherited = True  # by derivatives and batched versions of a function that is compiled for the device

    def __init__(
        self, stages: Stages, types: Sequence[LeafType], single: bool, updated: Updated = (), names: Sequence[str] = ()
    ):
        self.stages, self.types, self.single = stages, types, single
        self.updated, self.names = updated, names
        from dflow.backends.cuda.compiler import compile_plan  # code generation for GPUs is a tenth of dflow's import

        self.plan = compile_plan(stages.device_plan, deterministic=self.is_deterministic)
        f = stages.device_plan.function
        self._in_memory = [(k, t) for k, t in enumerate(f.arg_types) if not by_value(t)]
        self._by_value = [(k, t.dtype.numpy) for k, t in enumerate(f.arg_types) if by_value(t)]
        self._result_facts = [(t.dtype.numpy, t.bound) for t in f.result_types]
        self._programs: dict[int, Program] = {}

    def program(self, ordinal: int) -> Program:
        """The program on one device."""
        device = driver.device(ordinal)
        found = self._programs.get(ordinal)
        if found is None or found.device is not device:
            from dflow.backends.cuda.launch.runtime import Program

            found = self._programs[ordinal] = Program(self.plan, device)
        return found

    def __call__(self, *leaves: Any) -> Any:
        types = self.types
        if len(leaves) != len(types):
            raise Mismatch(types, leaves)
        for x, t in zip(leaves, types):
            found = x.leaf if type(x) is Array else leaf_type(x)
            if found is not t and found != t:
                raise Mismatch(types, leaves)
        return self.convert_and_call(leaves)

    def convert_and_call(self, leaves: Sequence[Any]) -> Any:
        """Calls with leaves of the right dtypes and shapes."""
        arrays = [x if type(x) is Array else taken(x) if is_on_device(x) else None for x in leaves]
        for position, _ in self.updated:
            self._check_update(leaves, arrays, position)
        here = [a for a in arrays if a is not None]
        default = default_ordinal()
        ordinal = here[0].memory.device.ordinal if here else default or 0
        for a in here:
            if a.memory.device.ordinal != ordinal:
                raise ValueError("the arguments are on several devices; move them with dflow.device_put")
        program = self.program(ordinal)
        program.device.activate()
        stream = current_stream(program.device)
        scalars = {}
        for k, dtype in self._by_value:
            x = leaves[k]
            scalars[k] = np.array(x if type(x) is float else as_array(x), dtype).tobytes()
        for k, t in self._in_memory:
            if arrays[k] is None:
                arrays[k] = self._moved(leaves[k], t, program, stream)
        return self._run(program, leaves, arrays, bool(here) or default is not None, scalars, stream)

    def _moved(self, x: Any, t: TensorType, program: Program, stream: int) -> Array:
        return moved(np.asarray(as_array(x), t.dtype.numpy), program.device, stream)

    def _check_update(self, leaves: Sequence[Any], arrays: Sequence[Array | None], position: int) -> None:
        """Refuses an update that cannot be made, or that another argument would have to see."""
        target, name = arrays[position], self.names[position]
        if target is None:
            check_writable(leaves[position], name)
            check_apart(leaves, position, self.names)
            return
        target.check_writable(f"argument {name}")
        for k, other in enumerate(arrays):
            if k != position and other is not None and other.overlaps(target):
                raise ValueError(
                    f"arguments {name} and {self.names[k]} share memory, and the function updates {name}; "
                    f"pass {self.names[k]}.copy()"
                )

    def _run(
        self,
        program: Program,
        leaves: Sequence[Any],
        arrays: Sequence[Any],
        stays: bool,
        scalars: dict[int, bytes],
        stream: int,
    ) -> Any:
        addresses, earlier = {}, []
        for k, _ in self._in_memory:
            a = arrays[k]
            addresses[k] = a.pointer
            if a.memory.stream != stream:
                a.order(stream)
            if a.later is not None:
                earlier.append(a.later)
        try:
            run = program.run(addresses, scalars, stream)
        except Exception as e:
            raise self._told(e) from None
        later = Later(run, earlier, self._told) if earlier or run.may_fail else None
        results: list[Any] = []
        for k, (dtype, shape) in enumerate(self._result_facts):
            if k in self.plan.in_place:
                results.append(arrays[self.plan.in_place[k]])
            else:  # the run lives on in ``later``, without what came of it
                results.append(Array(run.results.pop(k), 0, dtype, shape, later))
        for position, k in self.updated:
            self._put_back(leaves[position], arrays[position], results[k], later)
        for k, _ in self._in_memory:
            if arrays[k].memory.stream != stream:
                arrays[k].used(stream)
        shown = results[: len(results) - len(self.updated)]
        if not stays:
            if later is not None:
                later.check()
            shown = [r.numpy()[()] if r.ndim == 0 else r.numpy() for r in shown]
        if self.stages.trim:
            shown = self.stages.trim(shown)
        return shown[0] if self.single else tuple(shown)

    def _put_back(self, leaf: Any, given: Array, result: Array, later: Later | None) -> None:
        """Gives an updated argument its new contents."""
        if not is_on_device(leaf):
            if later is not None:
                later.check()
            np.copyto(leaf, result.numpy())
        elif result is not given:
            given.fill(result)
        else:
            given.updated(later)

    def _told(self, e: Exception) -> BaseException:
        location = getattr(e, "location", None)
        return e if location is None else run_time_error(e, location)


class DeterministicProgram(DeviceProgram):
    """One of which every run gives the same bits."""

    is_deterministic = True


DEVICES: dict[str, Any] = {"cpu": Executable, "cuda": DeviceProgram}
