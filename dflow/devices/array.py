"""Arrays in the memory of a GPU, and what runs there.

    x = dflow.device_put(a)            a `dflow.Array` on the first device
    y = np.sin(x) + 1                  runs there; so does jit(f, device="cuda")(x)
    np.asarray(y)                      waits, and copies to the host

Work is done in the order of a stream, and a call returns before it is done: what goes wrong on the device is raised by
the first thing that looks at the numbers (`numpy`, `float`, ``block_until_ready``).
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from dflow.backends.cuda.launch import driver
from dflow.backends.cuda.launch.memory import Allocation, allocate
from dflow.devices import dlpack
from dflow.devices.operators import DeviceOperators
from dflow.devices.streams import current_device, current_stream, ordinal_of, wait
from dflow.programs.signature import LeafType, OnDevice, array_leaf
from dflow.records import in_gpu_memory


class Later:
    """The error that a run may end with, raised when somebody looks at what came of it."""

    DEPTH = 64  # runs on each other's results that nobody has waited for

    def __init__(self, run: Any, earlier: Sequence[Later], told: Callable[[Exception], BaseException]):
        self._run, self._earlier, self._told = run, earlier, told
        self._depth: int = 1 + max((before._depth for before in earlier), default=0)
        if self._depth > self.DEPTH:
            for before in earlier:
                before.check()
            self._earlier, self._depth = (), 1

    def check(self) -> None:
        """Waits for the run, and for those whose results it was given. Raises their error, each time again."""
        for before in self._earlier:
            before.check()
        self._earlier = ()
        try:
            self._run.check()
        except Exception as e:
            raise self._told(e) from None


class Array(DeviceOperators, OnDevice):
    """An array on a device, with the interface of NumPy's.

    It is made by ``device_put`` and by compiled functions. Operators, NumPy's functions and methods run on the device.
    Parts and other shapes are views, as in NumPy: slices along the first axes share memory, others are kept up to date
    from the array that they belong to, and write back to it. Looking at the numbers waits for them.
    """

    __array_priority__ = 1000

    def __init__(
        self,
        memory: Allocation,
        offset: int,
        dtype: Any,
        shape: tuple[int, ...],
        later: Later | None = None,
        writable: bool = True,
    ):
        self._memory, self._offset = memory, offset
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.shape = shape
        self.later, self._writable = later, writable
        self._source: View | None = None

    @functools.cached_property
    def leaf(self) -> LeafType:  # type: ignore[override]
        """What a program knows of it. Raises TypeError for a dtype that programs do not have."""
        found = array_leaf(self.dtype, self.shape)
        if found is None:
            raise TypeError(f"programs have no arrays of dtype {self.dtype}")
        return found

    # --- what it is

    ndim = property(lambda self: len(self.shape))
    size = property(lambda self: math.prod(self.shape))
    itemsize = property(lambda self: self.dtype.itemsize)
    nbytes = property(lambda self: math.prod(self.shape) * self.dtype.itemsize)

    @property
    def memory(self) -> Allocation:
        """The memory that it is in, up to date."""
        if self._source is not None:
            self._source.refresh(self)
        return self._memory

    @property
    def pointer(self) -> int:
        """The address of the first element. Raises DeviceError when a fault of the device has lost it."""
        self.memory.check()
        return self._memory.pointer + self._offset

    @property
    def device(self) -> str:
        return f"cuda:{self.memory.device.ordinal}"

    def overlaps(self, other: Array) -> bool:
        """Whether they share memory."""
        if self._source is not None:
            return self._source.base.overlaps(other)
        if other._source is not None:
            return self.overlaps(other._source.base)
        return self.pointer < other.pointer + other.nbytes and other.pointer < self.pointer + self.nbytes

    def check_writable(self, name: str) -> None:
        """Raises ValueError for what may not be updated."""
        if not self._writable:
            raise ValueError(f"{name} may only be read; pass a .copy()")

    def updated(self, later: Later | None = None) -> None:
        """To be called when the contents have changed in place; ``later`` is what changed them."""
        self._memory.version += 1
        self.later = later or self.later
        if self._source is not None:
            self._source.write_back(self)

    def view(self, shape: tuple[int, ...], offset: int = 0) -> Array:
        """The same memory from byte ``offset`` on, as another shape."""
        made = Array(self.memory, self._offset + offset, self.dtype, shape, self.later, self._writable)
        if self._source is not None:  # a view of a view that has memory of its own
            made._source = View(self, lambda x: x.view(shape, offset).copy(), None)
            made._writable = False
        return made

    def derived(self, get: Callable[[Any], Any], put: Callable[[Any, Any], None] | None = None) -> Array:
        """``get(self)``, a new array, as a view: computed anew after updates; ``put(self, view)`` writes it back."""
        made: Array = get(self)
        made._source, made._writable = View(self, get, put), put is not None and self._writable
        return made

    # --- to the host

    def block_until_ready(self) -> Array:
        """Waits for the array. Raises what went wrong while it was computed."""
        self.memory.device.activate()
        if self.later is not None:
            self.later.check()
            self.later = None
        self.memory.check()
        self.memory.device.synchronize(self.memory.stream)
        return self

    def numpy(self) -> np.ndarray[Any, Any]:
        """A copy on the host."""
        self.block_until_ready()
        out = np.empty(self.shape, self.dtype)
        if out.nbytes:
            device = self.memory.device
            device.call("cuMemcpyDtoHAsync", out.ctypes.data, self.pointer, out.nbytes, self.memory.stream)
            device.synchronize(self.memory.stream)
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        if copy is False:
            raise ValueError("an array on a device cannot be seen as a NumPy array without a copy")
        return self.numpy() if dtype is None else self.numpy().astype(dtype)

    def item(self, *index: Any) -> Any:
        return self.numpy().item(*index)

    def tolist(self) -> Any:
        return self.numpy().tolist()

    __float__ = lambda self: float(self.numpy())  # noqa: E731
    __int__ = lambda self: int(self.numpy())  # noqa: E731
    __complex__ = lambda self: complex(self.numpy())  # noqa: E731
    __bool__ = lambda self: bool(self.numpy())  # noqa: E731
    __index__ = lambda self: operator.index(self.numpy())  # noqa: E731

    def __repr__(self) -> str:
        text = np.array2string(self.numpy(), separator=", ", prefix="dflow.Array(")
        return f"dflow.Array({text}, dtype={self.dtype.name}, device={self.device!r})"

    def __str__(self) -> str:
        return str(self.numpy())

    def __format__(self, spec: str) -> str:
        return format(self.numpy()[()] if self.ndim == 0 else self.numpy(), spec)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of an array without axes")
        return self.shape[0]

    def __iter__(self) -> Iterator[Array]:
        return (self[k] for k in range(len(self)))

    # --- to other libraries

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.pointer if self.size else 0, not self._writable),
            "strides": None,
            "stream": self.memory.stream,
            "version": 3,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CUDA, self.memory.device.ordinal

    def __dlpack__(
        self, *, stream: Any = None, max_version: Any = None, dl_device: Any = None, copy: Any = None
    ) -> Any:
        """A capsule for another library, whose work on ``stream`` comes after what makes this array. Raises BufferError
        where that is not possible without a copy, and one is not wanted."""
        if dl_device is not None and tuple(dl_device) != self.__dlpack_device__():
            if tuple(dl_device) != (dlpack.CPU, 0) or copy is False:
                raise BufferError(f"this array is on {self.device!r}, and not on DLPack device {tuple(dl_device)}")
            return self.numpy().__dlpack__()
        if self.later is not None:
            self.block_until_ready()
        self.memory.check()
        versioned = max_version is not None and tuple(max_version) >= dlpack.VERSION
        if copy or not (versioned or self._writable):
            if copy is False:
                raise BufferError("this view may only be read, which the older version of DLPack cannot say")
            return self.copy().__dlpack__(stream=stream, max_version=max_version)
        if stream not in (None, -1):
            wait(self.memory.device, stream, self.memory.stream)
        ordinal = self.memory.device.ordinal
        return dlpack.capsule(self.pointer, self.shape, self.dtype, ordinal, self.memory, versioned, self._writable)

    # --- streams

    def order(self, stream: int) -> None:
        """Lets later work on ``stream`` wait for what makes this array."""
        if stream != self.memory.stream:
            self.memory.check()
            wait(self.memory.device, stream, self.memory.stream)

    def used(self, stream: int) -> None:
        """Lets the memory be given back only after the work that ``stream`` has so far."""
        if stream != self.memory.stream:
            self.memory.check()
            wait(self.memory.device, self.memory.stream, stream)

    # --- contents

    def copy(self) -> Array:
        device, stream = self.memory.device, self.memory.stream
        self.memory.check()
        device.activate()
        made = Array(allocate(device, self.nbytes, stream), 0, self.dtype, self.shape, self.later)
        made.fill(self)
        return made

    __copy__ = copy

    def __deepcopy__(self, memo: Any) -> Array:
        return self.copy()

    def __reduce__(self) -> Any:
        """By its contents."""
        return _put_back, (self.numpy(), self.device)

    def fill(self, value: Any) -> None:
        """Sets all elements, to a number or to an array of the same shape."""
        if isinstance(value, Array) and (value.shape, value.dtype) == (self.shape, self.dtype):
            device, stream = self.memory.device, self.memory.stream
            device.activate()
            value.order(stream)
            if self.nbytes:
                device.call("cuMemcpyDtoDAsync", self.pointer, value.pointer, self.nbytes, stream)
            value.used(stream)
            self.updated(value.later)
        else:
            self[...] = value

    def reshape(self, *shape: Any, order: str = "C", copy: Any = None) -> Array:
        wanted = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
        x = self.copy() if copy else self
        if order != "C":
            return x.reordered(wanted, order)
        return x.view(np.empty(self.shape, np.bool_).reshape(wanted).shape)

    def ravel(self, order: str = "C") -> Array:
        return self.reshape(-1 if self.size else 0, order=order)

    def flatten(self, order: str = "C") -> Array:
        return self.copy().ravel(order)

    def squeeze(self, axis: Any = None) -> Array:
        return self.view(np.empty(self.shape, np.bool_).squeeze(axis).shape)


class View:
    """What an array with memory of its own is a view of. ``get`` makes it from ``base``, ``put`` writes it back."""

    def __init__(self, base: Array, get: Callable[[Any], Any], put: Callable[[Any, Any], None] | None):
        self.base, self._get, self._put = base, get, put
        self._seen = base.memory, base.memory.version

    def refresh(self, view: Array) -> None:
        """Brings the view up to date."""
        memory, seen = self.base.memory, self._seen
        if seen[0] is not memory or seen[1] != memory.version:
            fresh = self._get(self.base)
            self._seen = memory, memory.version
            view._memory, view._offset, view.later = fresh.memory, fresh._offset, fresh.later

    def write_back(self, view: Array) -> None:
        """Tells the base of an update of the view."""
        assert self._put is not None
        self._seen = self.base.memory, self.base.memory.version  # the view is newer, so it is not to be refreshed
        self._put(self.base, view)
        self._seen = self.base.memory, self.base.memory.version


def _put_back(x: np.ndarray[Any, Any], device: str) -> Array:
    there = current_device(ordinal_of(device))
    return moved(x, there, current_stream(there))


# --- what is on the device


def is_on_device(x: Any) -> bool:
    """Whether an array is in the memory of a GPU, ours or another library's."""
    return isinstance(x, Array) or (not isinstance(x, np.ndarray | np.generic) and in_gpu_memory(x))


def taken(x: Any) -> Array:
    """An array that is on the device, without a copy. Raises ValueError when its layout is not row-major."""
    if isinstance(x, Array):
        return x
    facts = x.__cuda_array_interface__
    dtype, shape = np.dtype(facts["typestr"]), tuple(facts["shape"])
    pointer, read_only = facts["data"]
    steps = facts.get("strides")
    if steps is not None and math.prod(shape) and tuple(steps) != np.empty(shape, dtype).strides:
        raise ValueError(
            f"an array of {type(x).__module__.partition('.')[0]} has its elements in another order than row by row "
            f"(shape {shape}, strides {tuple(steps)}); pass a contiguous copy"
        )
    at = getattr(x, "device", None)
    device = current_device(getattr(at, "index", None) or getattr(at, "id", None) or 0)
    stream = facts.get("stream")
    if stream is not None:
        wait(device, device.stream, stream)
    _check_address(pointer, dtype)
    memory = Allocation(device, math.prod(shape) * dtype.itemsize, device.stream, pointer, owner=x)
    return Array(memory, 0, dtype, shape, writable=not read_only)


def _check_address(pointer: int, dtype: np.dtype[Any]) -> None:
    """A GPU reads a number at multiples of its size alone."""
    size = dtype.itemsize // (2 if dtype.kind == "c" else 1)
    if pointer % size:
        raise ValueError(f"an array of {dtype} begins at the address {pointer:#x}, no multiple of {size}; pass a copy")


def from_dlpack(x: Any) -> Array:
    """An array of another library that is on a GPU, without a copy. Raises ValueError for another place or layout."""
    kind, ordinal = x.__dlpack_device__()
    if kind != dlpack.CUDA:
        raise ValueError(f"the array is not in the memory of a GPU (DLPack device {kind}); use dflow.device_put")
    device = current_device(ordinal)
    given = dlpack.adopt(x, device.stream)
    if not given.is_contiguous:
        raise ValueError(
            f"the array has its elements in another order than row by row (shape {given.shape}, strides "
            f"{given.strides}); pass a contiguous copy"
        )
    _check_address(given.pointer, given.dtype)
    size = math.prod(given.shape) * given.dtype.itemsize
    memory = Allocation(device, size, device.stream, given.pointer, owner=given)
    return Array(memory, 0, given.dtype, given.shape, writable=given.is_writable)


def moved(x: np.ndarray[Any, Any], device: driver.Device, stream: int) -> Array:
    """A copy of an array of the host."""
    shape = x.shape
    x = np.ascontiguousarray(x)
    made = Array(allocate(device, x.nbytes, stream), 0, x.dtype, shape)
    if x.nbytes:
        device.upload(made.pointer, x.ctypes.data, x.nbytes, stream)
    return made
