"""DLPack: arrays on a device, and those of bfloat16, handed over without a copy.

``capsule(...)`` gives memory of ours to another library, ``adopt(x)`` takes memory of another. The structures are those
of ``dlpack.h``: of version 0, which every library understands, and of version 1, which says whether the memory may be
written; that is used where both sides know it.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from dflow.ir.types import bfloat16_dtype, is_bfloat16

CPU, CUDA = 1, 2  # kDLCPU, kDLCUDA
_CODES = {"i": 0, "u": 1, "f": 2, "c": 5, "b": 6}
_KINDS = {code: kind for kind, code in _CODES.items()}
_BFLOAT = 4


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    _fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p))


class _Versioned(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    )


VERSION = (1, 0)
_READ_ONLY = 1
_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_api = ctypes.pythonapi
_new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(("PyCapsule_New", _api))
_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_GetPointer", _api))
_raw_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_GetPointer", _api))
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", _api))
_set_name = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_SetName", _api))
_names = [b"dltensor", b"used_dltensor", b"dltensor_versioned", b"used_dltensor_versioned"]
_NAME, _USED, _VERSIONED, _VERSIONED_USED = (ctypes.create_string_buffer(name) for name in _names)
_lent: dict[int, Any] = {}  # by the address of the structure: what must live until the other library is done


@_Deleter
def _give_back(address: int) -> None:
    _lent.pop(address, None)


@_Deleter
def _unused(capsule: int) -> None:
    """The destructor of a capsule: nobody took what is in it, unless it was renamed."""
    for name in (_NAME, _VERSIONED):
        if _is_valid(capsule, name):
            _give_back(_raw_pointer(capsule, name))


def capsule(
    pointer: int,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    ordinal: int,
    owner: Any,
    versioned: bool = False,
    writable: bool = True,
) -> Any:
    """A capsule with an array in device memory; ``owner`` is kept alive until the receiver is done. One that is not
    ``writable`` must be ``versioned``."""
    managed = _Versioned(*VERSION, flags=0 if writable else _READ_ONLY) if versioned else _Managed()
    t = managed.tensor
    sizes = (ctypes.c_int64 * max(1, len(shape)))(*shape)
    steps = (ctypes.c_int64 * max(1, len(shape)))(*_strides(shape))
    t.data, t.device_type, t.device_id, t.ndim = pointer, CUDA, ordinal, len(shape)
    code = _BFLOAT if is_bfloat16(dtype) else _CODES[dtype.kind]
    t.code, t.bits, t.lanes = code, 8 * dtype.itemsize, 1
    t.shape, t.strides, t.byte_offset = sizes, steps, 0
    managed.deleter = ctypes.cast(_give_back, ctypes.c_void_p).value
    address = ctypes.addressof(managed)
    _lent[address] = managed, sizes, steps, owner
    return _new(address, _VERSIONED if versioned else _NAME, ctypes.cast(_unused, ctypes.c_void_p).value)


class Adopted:
    """Memory of another library: gives it back when it goes."""

    def __init__(self, managed: _Managed | _Versioned, address: int):
        self.address = address
        self.is_writable = not (isinstance(managed, _Versioned) and managed.flags & _READ_ONLY)
        t = managed.tensor
        self.pointer = (t.data or 0) + t.byte_offset
        self.shape = tuple(t.shape[: t.ndim])
        self.strides = tuple(t.strides[: t.ndim]) if t.strides else _strides(self.shape)
        self.device_type, self.ordinal = t.device_type, t.device_id
        self.type = (t.code, t.bits, t.lanes)
        self._deleter = managed.deleter

    @property
    def dtype(self) -> np.dtype[Any]:
        """Raises TypeError for a type that NumPy does not have."""
        code, bits, lanes = self.type
        if self.type == (_BFLOAT, 16, 1):
            return bfloat16_dtype()
        if code not in _KINDS or lanes != 1:
            raise TypeError(f"an array of DLPack type {self.type} has no NumPy dtype")
        return np.dtype(f"{_KINDS[code]}{bits // 8}") if _KINDS[code] != "b" else np.dtype(bool)

    @property
    def is_contiguous(self) -> bool:
        rows = [(n, s) for n, s in zip(self.shape, self.strides) if n != 1]
        wanted = [(n, s) for n, s in zip(self.shape, _strides(self.shape)) if n != 1]
        return rows == wanted or 0 in self.shape

    def __del__(self) -> None:
        if self._deleter:
            _Deleter(self._deleter)(self.address)


def adopt(x: Any, stream: int | None = None) -> Adopted:
    """Takes over the memory of ``x``, whose work on it is done before later work on ``stream``. Raises BufferError for
    a version of DLPack that is not known."""
    options = {} if stream is None else {"stream": stream}
    try:
        given = x.__dlpack__(**options, max_version=VERSION)
    except TypeError:  # from a time before there were versions
        given = x.__dlpack__(**options)
    if not _is_valid(id(given), _VERSIONED):
        address = _pointer(given, _NAME)
        made = Adopted(_Managed.from_address(address), address)
        _set_name(given, _USED)
        return made
    address = _pointer(given, _VERSIONED)
    managed = _Versioned.from_address(address)
    if managed.major != VERSION[0]:
        raise BufferError(f"the array is given by version {managed.major} of DLPack; dflow takes {VERSION[0]}")
    made = Adopted(managed, address)
    _set_name(given, _VERSIONED_USED)
    return made


def bfloat16_on_host(x: Any) -> np.ndarray[Any, Any]:
    """An array of bfloat16 in the memory of the processor, which NumPy does not take; read-only, without a copy. Raises
    TypeError for others."""
    found = adopt(x)
    if found.device_type != CPU or found.type != (_BFLOAT, 16, 1):
        raise TypeError(f"an array of DLPack type {found.type} on device {found.device_type} cannot be read by NumPy")
    facts = {"version": 3, "typestr": "<u2", "data": (found.pointer, True), "shape": found.shape}
    facts["strides"] = tuple(2 * s for s in found.strides)
    holder = type("Lent", (), {"__array_interface__": facts, "memory": found})()
    return np.asarray(holder).view(bfloat16_dtype())


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    out, step = [], 1
    for n in reversed(shape):
        out.append(step)
        step *= n
    return tuple(reversed(out))
