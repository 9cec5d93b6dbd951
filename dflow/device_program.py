"""A compiled program on a GPU: takes and returns flat leaves, as `Executable` does on the processor.

Leaves may be on the device (`dflow.Array`, or an array of another library, which is taken without a copy) or on the
host, from where they are moved. When one of the arrays was on the device, the results are `dflow.Array`s; else they
come back as NumPy arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dflow.backends.cuda.compiler import compile_plan
from dflow.backends.cuda.runtime import Program
from dflow.backends.emit import by_value
from dflow.device import Array, Later, current_device, current_stream, is_on_device, moved, taken
from dflow.errors import run_time_error
from dflow.executable import Executable, Mismatch, Updated, check_apart, check_writable
from dflow.ir.types import TensorType
from dflow.pipeline import Stages
from dflow.placement import default_ordinal
from dflow.signature import LeafType, as_array, leaf_type


class DeviceProgram:
    """One program for one signature, on the GPU that is current when it is called; see `Executable`."""

    address = None
    is_inherited = True  # by derivatives and batched versions of a function that is compiled for the device

    def __init__(
        self, stages: Stages, types: Sequence[LeafType], single: bool, updated: Updated = (), names: Sequence[str] = ()
    ):
        self.stages, self.types, self.single = stages, types, single
        self.updated, self.names = updated, names
        self.plan = compile_plan(stages.plan)
        f = stages.plan.function
        self.arg_types, self.result_types = f.arg_types, f.result_types
        self._in_memory = [k for k, t in enumerate(self.arg_types) if not by_value(t)]
        self._by_value = [k for k, t in enumerate(self.arg_types) if by_value(t)]
        self._programs: dict[int, Program] = {}

    def program(self, ordinal: int) -> Program:
        """The program on one device."""
        device = current_device(ordinal)
        found = self._programs.get(ordinal)
        if found is None or found.device is not device:
            found = self._programs[ordinal] = Program(self.plan, device)
        return found

    def __call__(self, *leaves: Any) -> Any:
        if len(leaves) != len(self.types) or any(leaf_type(x) != t for x, t in zip(leaves, self.types)):
            raise Mismatch(self.types, leaves)
        return self.convert_and_call(leaves)

    def convert_and_call(self, leaves: Sequence[Any]) -> Any:
        """Calls with leaves of the right dtypes and shapes."""
        arrays = [taken(x) if is_on_device(x) else None for x in leaves]
        for position, _ in self.updated:
            self._check_update(leaves, arrays, position)
        ordinals = {a.memory.device.ordinal for a in arrays if a is not None}
        if len(ordinals) > 1:
            raise ValueError(
                f"the arguments are on several devices: {sorted(ordinals)}; move them with dflow.device_put"
            )
        program = self.program(ordinals.pop() if ordinals else default_ordinal() or 0)
        stays = default_ordinal() is not None or any(a is not None for a in arrays)
        stream = current_stream(program.device)
        given = [
            self._moved(x, t, program, stream) if a is None and not by_value(t) else a
            for a, x, t in zip(arrays, leaves, self.arg_types)
        ]
        return self._run(program, leaves, given, stays, stream)

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

    def _run(self, program: Program, leaves: Sequence[Any], given: Sequence[Any], stays: bool, stream: int) -> Any:
        f = self.stages.plan.function
        scalars = {}
        for k in self._by_value:
            x = given[k].numpy() if given[k] is not None else as_array(leaves[k])
            scalars[k] = np.asarray(x, self.arg_types[k].dtype.numpy).tobytes()
        for a in given:
            if a is not None:
                a.order(stream)
        addresses = {k: given[k].pointer for k in self._in_memory}
        earlier = [a.later for a in given if a is not None and a.later is not None]
        try:
            run = program.run(addresses, scalars, stream)
        except Exception as e:
            raise self._told(e) from None
        later = Later(run, earlier, self._told)
        results: list[Any] = []
        for k, t in enumerate(f.result_types):
            if k in self.plan.in_place:
                results.append(given[self.plan.in_place[k]])
            else:
                results.append(Array(run.results[k], 0, t.dtype.numpy, t.bound, later))
        for position, k in self.updated:
            self._put_back(leaves[position], given[position], results[k], later)
        for a in given:
            if a is not None:
                a.used(stream)
        shown = results[: len(results) - len(self.updated)]
        if not stays:
            later.check()
            shown = [r.numpy()[()] if r.ndim == 0 else r.numpy() for r in shown]
        return shown[0] if self.single else tuple(shown)

    def _put_back(self, leaf: Any, given: Array, result: Array, later: Later) -> None:
        """Gives an updated argument its new contents."""
        if not is_on_device(leaf):
            later.check()
            np.copyto(leaf, result.numpy())
        elif result is not given:
            given.fill(result)
        else:
            given.updated(later)

    def _told(self, e: Exception) -> BaseException:
        location = getattr(e, "location", None)
        return e if location is None else run_time_error(e, location)


DEVICES: dict[str, Any] = {"cpu": Executable, "cuda": DeviceProgram}
