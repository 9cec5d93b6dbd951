"""What native code must know about CPython and NumPy: struct layouts, constants, and the addresses behind symbols.

Generated entry points read ``float``, ``int`` and ``ndarray`` objects straight from memory. Each offset below is
checked against live objects by `available`; where one does not hold (another interpreter, a free-threaded or 32-bit
build, a future layout) it answers False and callers stay on the Python path.

Sources: CPython ``Include/object.h``, ``Include/cpython/longintrepr.h``, ``Include/cpython/object.h``; NumPy
``ndarraytypes.h`` (``PyArrayObject_fields``, ``_PyArray_Descr``), ``arrayscalars.h`` and ``__multiarray_api.h``.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import struct
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir

from dflow.ir.types import bfloat16_dtype

PTR = ir.PointerType()
VOID = ir.VoidType()
I1, I8, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))

# PyObject and its built-in kin.
OB_TYPE = 8
FLOAT_VALUE = COMPLEX_VALUE = 16
LONG_TAG = 16  # ob_size up to 3.11, lv_tag from 3.12 on
LONG_DIGIT = 24
LONG_HAS_TAG = sys.version_info >= (3, 12)
HEAD_SIZE = 16
TYPE_FLAGS = 168

# PyArrayObject, PyArray_Descr, NumPy scalars.
ARRAY_DATA = 16
ARRAY_NDIM = 24
ARRAY_DIMS = 32
ARRAY_STRIDES = 40
ARRAY_DESCR = 56
ARRAY_FLAGS = 64
ARRAY_PLAIN = 0x0001 | 0x0100  # NPY_ARRAY_C_CONTIGUOUS | NPY_ARRAY_ALIGNED
ARRAY_WRITEABLE = 0x0400
DESCR_BYTEORDER = 26
SCALAR_VALUE = 16

# Places in NumPy's table of C functions and types; the table only ever grows at its end.
_API_VERSION, _API_NDARRAY, _API_RESIZE, _API_NEW_FROM_DESCR = 0, 2, 80, 94

HAVE_VECTORCALL = 1 << 11  # Py_TPFLAGS_HAVE_VECTORCALL
ARGUMENTS_OFFSET = 1 << 63  # PY_VECTORCALL_ARGUMENTS_OFFSET
_SLOT_ALLOC = 47  # Py_tp_alloc

VECTORCALL = ir.FunctionType(PTR, [PTR, PTR, I64, PTR])


@dataclass(frozen=True)
class Element:
    """An element type: its NumPy scalar type, and the LLVM type of a rank-0 value (None: in arrays only)."""

    scalar: type
    llvm: ir.Type | None

    @property
    def name(self) -> str:
        return np.dtype(self.scalar).name


ELEMENTS = {
    "f64": Element(np.float64, ir.DoubleType()),
    "f32": Element(np.float32, ir.FloatType()),
    "f16": Element(np.float16, ir.HalfType()),
    "i64": Element(np.int64, I64),
    "i32": Element(np.int32, I32),
    "i16": Element(np.int16, I16),
    "i8": Element(np.int8, I8),
    "u64": Element(np.uint64, I64),
    "u32": Element(np.uint32, I32),
    "u16": Element(np.uint16, I16),
    "u8": Element(np.uint8, I8),
    "bool": Element(np.bool_, I8),
    "c64": Element(np.complex64, ir.LiteralStructType([ir.FloatType()] * 2)),
    "c128": Element(np.complex128, ir.LiteralStructType([ir.DoubleType()] * 2)),
}

_FUNCTIONS = {
    "PyEval_RestoreThread": ir.FunctionType(VOID, [PTR]),
    "PyEval_SaveThread": ir.FunctionType(PTR, []),
    "PyFloat_FromDouble": ir.FunctionType(PTR, [ir.DoubleType()]),
    "PyLong_AsLongLongAndOverflow": ir.FunctionType(I64, [PTR, PTR]),
    "PyLong_FromLongLong": ir.FunctionType(PTR, [I64]),
    "PyObject_CallMethod": ir.FunctionType(PTR, [PTR, PTR, PTR], var_arg=True),
    "PyObject_GetAttr": ir.FunctionType(PTR, [PTR, PTR]),
    "PyObject_Vectorcall": VECTORCALL,
    "PyTuple_New": ir.FunctionType(PTR, [I64]),
    "PyTuple_SetItem": ir.FunctionType(I32, [PTR, I64, PTR]),
    # The functions, not the macros: right for immortal objects and in every version. Py_DecRef accepts NULL.
    "Py_DecRef": ir.FunctionType(VOID, [PTR]),
    "Py_IncRef": ir.FunctionType(VOID, [PTR]),
    # array, dims, whether others may refer to it, order
    "dflow_np_resize": ir.FunctionType(PTR, [PTR, PTR, I32, I32]),
    "memmove": ir.FunctionType(PTR, [PTR, PTR, I64]),
    # type, descr (reference stolen), nd, dims, strides, data, flags, obj
    "dflow_np_new_from_descr": ir.FunctionType(PTR, [PTR, PTR, I32, PTR, PTR, PTR, I32, PTR]),
}

# The name of the Python-level slow path, as the object that PyObject_GetAttr wants.
_FALLBACK_NAME = sys.intern("_fallback")

_OBJECTS: dict[str, Any] = {
    "PyFloat_Type": float,
    "PyLong_Type": int,
    "PyComplex_Type": complex,
    "_Py_TrueStruct": True,
    "_Py_FalseStruct": False,
    "_Py_NoneStruct": None,
    "dflow_fallback_name": _FALLBACK_NAME,
    "dflow_np_ndarray": np.ndarray,
    "dflow_np_true": np.True_,
    "dflow_np_false": np.False_,
}


def _know(element: Element) -> None:
    _OBJECTS[f"dflow_np_{element.name}"] = element.scalar
    _OBJECTS[f"dflow_np_{element.name}_descr"] = np.dtype(element.scalar)


for _element in ELEMENTS.values():
    _know(_element)


def element(dtype: str) -> Element | None:
    """The element type of this name. That of bfloat16 is made when it is first asked for: it needs a package."""
    if dtype == "bf16" and dtype not in ELEMENTS:
        scalar = bfloat16_dtype().type
        made = Element(scalar, I16)
        holds = _has_layout(made) and _is_allocated(scalar)
        ELEMENTS[dtype] = made if holds else Element(scalar, None)
        _know(made)
    return ELEMENTS.get(dtype)


def function(module: ir.Module, name: str, signature: ir.FunctionType | None = None) -> ir.Function:
    """The external function `name`, declared in `module` when first asked for."""
    known = module.globals.get(name)
    return known if known is not None else ir.Function(module, signature or _FUNCTIONS[name], name)


def data(module: ir.Module, name: str) -> ir.GlobalVariable:
    """The address of the external object `name` as a symbol of `module`."""
    known = module.globals.get(name)
    return known if known is not None else ir.GlobalVariable(module, I8, name)


def at(builder: ir.IRBuilder, base: ir.Value, offset: int) -> ir.Value:
    """The address `offset` bytes past `base`."""
    return builder.gep(base, [ir.Constant(I64, offset)], inbounds=True, source_etype=I8)


def field(builder: ir.IRBuilder, base: ir.Value, offset: int, typ: ir.Type) -> ir.Value:
    """Load the field of type `typ` that lies `offset` bytes into the struct at `base`."""
    return builder.load(at(builder, base, offset), typ=typ)


def symbols() -> dict[str, int]:
    """Symbol name to address in this process, for everything that `function` and `data` declare."""
    table = {name: id(thing) for name, thing in _OBJECTS.items()}
    table |= {name: _address(name) for name in _FUNCTIONS if not name.startswith("dflow_")}
    table["dflow_np_resize"] = _numpy_api()[_API_RESIZE]
    table["dflow_np_new_from_descr"] = _numpy_api()[_API_NEW_FROM_DESCR]
    for element in ELEMENTS.values():
        table[f"dflow_np_{element.name}_alloc"] = _alloc_slot(element.scalar)
    return table


def abi_key() -> str:
    """Names the layouts that generated code relies on: a part of the key of any cache of machine code."""
    return f"{sys.implementation.cache_tag}-numpy{_numpy_abi_version():x}-{sys.platform}-entry3"


@functools.cache
def available() -> bool:
    """Whether this process has the layouts that generated code relies on."""
    try:
        return _is_known_build() and all(check() for check in (_floats, _ints, _types, _arrays, _scalars, _allocation))
    except Exception:  # any surprise while poking means: not the layout we know
        return False


def _is_known_build() -> bool:
    """A 64-bit little-endian CPython with the lock and without debug headers, and NumPy 2."""
    return (
        sys.implementation.name == "cpython"
        and sys.version_info >= (3, 11)
        and struct.calcsize("P") == 8
        and sys.byteorder == "little"
        and "t" not in sys.abiflags
        and object.__basicsize__ == HEAD_SIZE
        and sys.int_info.bits_per_digit == 30
        and _numpy_abi_version() >> 24 == 2
    )


def _floats() -> bool:
    x = 1.5
    z = complex(x, 2.5)
    parts = tuple(_peek(z, COMPLEX_VALUE + k, ctypes.c_double) for k in (0, 8))
    is_float = _peek(x, OB_TYPE, ctypes.c_size_t) == id(float) and _peek(x, FLOAT_VALUE, ctypes.c_double) == x
    return is_float and parts == (z.real, z.imag)


def _ints() -> bool:
    """One-digit ints decode to themselves; every longer one is seen to be longer. Mirrors `entry`'s code."""

    def decode(n: int) -> int | None:
        tag, digit = _peek(n, LONG_TAG, ctypes.c_ssize_t), _peek(n, LONG_DIGIT, ctypes.c_uint32)
        if LONG_HAS_TAG:
            return (1 - (tag & 3)) * digit if 0 <= tag < 16 else None
        return tag * digit if -1 <= tag <= 1 else None

    short = (0, 1, -1, 7, -300, 2**29, 2**30 - 1, 1 - 2**30)
    longer = (2**30, -(2**30), 2**60, -(2**62), 2**63, 2**100)
    return all(decode(n) == n for n in short) and all(decode(n) is None for n in longer)


def _types() -> bool:
    class Heap:
        pass

    return all(
        _peek(t, TYPE_FLAGS, ctypes.c_ulong) == t.__flags__ for t in (int, float, complex, type, np.ndarray, Heap)
    )


def _arrays() -> bool:
    def right(a: np.ndarray[Any, Any]) -> bool:
        dims = (ctypes.c_ssize_t * a.ndim).from_address(_peek(a, ARRAY_DIMS, ctypes.c_size_t))
        strides = (ctypes.c_ssize_t * a.ndim).from_address(_peek(a, ARRAY_STRIDES, ctypes.c_size_t))
        return (
            _peek(a, OB_TYPE, ctypes.c_size_t) == id(np.ndarray)
            and _peek(a, ARRAY_DATA, ctypes.c_size_t) == a.ctypes.data
            and _peek(a, ARRAY_NDIM, ctypes.c_int) == a.ndim
            and tuple(dims) == a.shape
            and tuple(strides) == a.strides
            and _peek(a, ARRAY_DESCR, ctypes.c_size_t) == id(a.dtype)
            and _peek(a, ARRAY_FLAGS, ctypes.c_int) == a.flags.num
        )

    a = np.arange(24.0).reshape(2, 3, 4)
    swapped = np.dtype("f8").newbyteorder()
    return (
        all(right(x) for x in (a, a[:, ::2], a.T, np.zeros((2, 0), np.int8), np.zeros(5, swapped)))
        and a.flags.num & ARRAY_PLAIN == ARRAY_PLAIN
        and not a.T.flags.num & 1
        and _peek(a.dtype, DESCR_BYTEORDER, ctypes.c_char) == b"="
        and _peek(np.dtype("i1"), DESCR_BYTEORDER, ctypes.c_char) == b"|"
        and _peek(swapped, DESCR_BYTEORDER, ctypes.c_char) not in (b"=", b"|")
    )


def _scalars() -> bool:
    """A NumPy scalar's value follows the object head."""
    bools = all(np.bool_(b) is (np.True_ if b else np.False_) for b in (False, True))
    return bools and all(map(_has_layout, ELEMENTS.values()))


def _has_layout(element: Element) -> bool:
    value = element.scalar(1)
    size = np.dtype(element.scalar).itemsize
    return ctypes.string_at(id(value) + SCALAR_VALUE, size) == value.tobytes()


def _allocation() -> bool:
    """Arrays and scalars made through the addresses that generated code will call."""
    make = ctypes.PYFUNCTYPE(
        ctypes.py_object, *[ctypes.c_void_p] * 2, ctypes.c_int, *[ctypes.c_void_p] * 3, ctypes.c_int, ctypes.c_void_p
    )(_numpy_api()[_API_NEW_FROM_DESCR])
    descr, dims = np.dtype(np.float32), (ctypes.c_ssize_t * 2)(2, 3)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(descr))  # the call below steals this reference
    made = make(id(np.ndarray), id(descr), 2, ctypes.addressof(dims), None, None, 0, None)
    if not (type(made) is np.ndarray and made.shape == (2, 3) and made.dtype is descr and made.flags.owndata):
        return False
    shape = (ctypes.c_ssize_t * 2)(1, 3)
    wanted = (ctypes.c_size_t * 2)(ctypes.addressof(shape), 2)
    resize = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object, ctypes.c_void_p, ctypes.c_int, ctypes.c_int)
    resize(_numpy_api()[_API_RESIZE])(made, ctypes.addressof(wanted), 0, 0)
    if made.shape != (1, 3):
        return False
    scalars = {e.scalar for e in ELEMENTS.values() if e.scalar is not np.bool_}
    return _numpy_api()[_API_NDARRAY] == id(np.ndarray) and all(map(_is_allocated, scalars))


def _is_allocated(scalar: type) -> bool:
    alloc = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object, ctypes.c_ssize_t)
    return type(alloc(_alloc_slot(scalar))(scalar, 0)) is scalar


def _peek(thing: object, offset: int, ctype: Any) -> Any:
    return ctype.from_address(id(thing) + offset).value


def _address(name: str) -> int:
    address = ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value
    assert address is not None
    return address


def _alloc_slot(scalar: type) -> int:
    get_slot = ctypes.pythonapi.PyType_GetSlot
    get_slot.restype, get_slot.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_int]
    return int(get_slot(scalar, _SLOT_ALLOC) or 0)


@functools.cache
def _numpy_api() -> Any:
    """NumPy's table of C functions, as an indexable of addresses."""
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype, get_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    capsule = importlib.import_module("numpy._core._multiarray_umath")._ARRAY_API
    return ctypes.cast(get_pointer(capsule, None), ctypes.POINTER(ctypes.c_size_t))


def numpy_function(place: int) -> int:
    """The address of the function at a place of NumPy's table."""
    return int(_numpy_api()[place])


def _numpy_abi_version() -> int:
    return int(ctypes.CFUNCTYPE(ctypes.c_uint)(_numpy_api()[_API_VERSION])())
