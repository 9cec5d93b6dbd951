"""`NativeCallable`: the base class of objects whose call goes straight to machine code, without a Python frame.

CPython calls an object through the function pointer that its type names by ``__vectorcalloffset__`` (PEP 590). The C
struct behind `NativeCallable` holds that pointer and a list of entry points (see `entry.add_entry`)::

    vectorcall  -> entries[0], or dflow_fallback when there are none
    entries[]   -> tried in turn: an entry that does not match the arguments passes the call on to the next,
                   the last one to dflow_fallback, which calls the method `_fallback`

so that a function with several signatures does not thrash, and the first one pays nothing for the others.
"""

from __future__ import annotations

import ctypes
import sys
import types
from collections.abc import Sequence
from typing import Any

from dflow.backends.native import pyabi, trampoline

_PY_TP_CALL, _PY_TP_MEMBERS = 50, 72  # slot numbers, a part of the stable ABI
_T_PYSSIZET, _READONLY = 19, 1
_TPFLAGS_DEFAULT, _TPFLAGS_BASETYPE = 0, 1 << 10  # "default" adds flags by itself since Python 3


class _Member(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("type", ctypes.c_int),
        ("offset", ctypes.c_ssize_t),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


class _Slot(ctypes.Structure):
    _fields_ = (("slot", ctypes.c_int), ("value", ctypes.c_void_p))


class _Spec(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("basicsize", ctypes.c_int),
        ("itemsize", ctypes.c_int),
        ("flags", ctypes.c_uint),
        ("slots", ctypes.POINTER(_Slot)),
    )


def _make_base() -> Any:
    """The type with the vectorcall pointer, made by ``PyType_FromSpec`` as a C extension would.

    It owns no reference, so it needs neither traverse nor clear; ``__dict__``, weak references and garbage collection
    come with the Python class below.
    """
    members = (_Member * 2)(_Member(b"__vectorcalloffset__", _T_PYSSIZET, pyabi.HEAD_SIZE, _READONLY, None))
    call = ctypes.cast(ctypes.pythonapi.PyVectorcall_Call, ctypes.c_void_p)
    slots = (_Slot * 3)(
        _Slot(_PY_TP_CALL, call.value),
        _Slot(_PY_TP_MEMBERS, ctypes.addressof(members)),
    )
    size = pyabi.HEAD_SIZE + ctypes.sizeof(trampoline.Fields)
    flags = _TPFLAGS_DEFAULT | _TPFLAGS_BASETYPE | pyabi.HAVE_VECTORCALL
    spec = _Spec(b"dflow.backends.native.callable._Vectorcall", size, 0, flags, slots)
    from_spec = ctypes.pythonapi.PyType_FromSpec
    from_spec.restype, from_spec.argtypes = ctypes.py_object, [ctypes.c_void_p]
    _KEPT.extend([members, slots, spec])
    return from_spec(ctypes.addressof(spec))


class _PlainCall:
    """The base where native entries are not available: every call takes the Python path."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._fallback(*args, **kwargs)  # type: ignore[attr-defined]


_KEPT: list[Any] = []  # the type may point into its spec
_NATIVE = pyabi.available()
_Base: Any = _make_base() if _NATIVE else _PlainCall


class NativeCallable(_Base):
    """A callable that runs its entry points, and `_fallback` when none of them takes the arguments.

    Subclasses override `_fallback` and `_on_error`, and install machine code with `_set_entries`.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> NativeCallable:
        self: NativeCallable = super().__new__(cls)
        self._kept = []
        self._set_entries([])
        return self

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _inherit_vectorcall(cls)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """Bind as a function does, so that an instance can decorate a method."""
        return self if instance is None else types.MethodType(self, instance)

    def _fallback(self, *args: Any, **kwargs: Any) -> Any:
        """The Python path, taken when no entry matches the arguments."""
        raise NotImplementedError(f"{type(self).__name__} defines no _fallback")

    def _on_error(self, entry: int, status: int, record: tuple[int, int, int, int], args: tuple[Any, ...]) -> Any:
        """The kernel behind the entry at address `entry` returned `status`, not 0. `record` is its error record.

        To raise is the rule; what is returned instead becomes the result of the call.
        """
        raise RuntimeError(f"native code reported error {status}: {record}")

    def _set_entry(self, address: int | None, keep: object = None) -> None:
        """Call the entry at `address`, or with None only `_fallback`. See `_set_entries` for `keep`."""
        self._set_entries([] if address is None else [address], keep)

    def _set_entries(self, addresses: Sequence[int], keep: object = None) -> None:
        """Try the entries at `addresses` in this order; those past the first `MAX_ENTRIES` are left out.

        `keep` owns the new machine code (a JIT engine). It lives as long as this object, even when its entry is taken
        out: a thread, or a caller further up the stack, may be inside of it.
        """
        if keep is not None:
            self._kept.append(keep)
        if not _NATIVE:
            return
        distinct = list(dict.fromkeys(addresses))[: trampoline.MAX_ENTRIES]
        fields = trampoline.Fields.from_address(id(self) + pyabi.HEAD_SIZE)
        # A call between these two lines finds its entry missing in the list, and takes the Python path.
        fields.entries[:] = distinct + [None] * (trampoline.MAX_ENTRIES + 1 - len(distinct))
        fields.vectorcall = distinct[0] if distinct else trampoline.addresses()["dflow_fallback"]


def _inherit_vectorcall(cls: type) -> None:
    """Let calls of `cls` use the vectorcall pointer, as long as it does not define ``__call__`` itself.

    Since 3.12 CPython does so by itself; in 3.11 only immutable types inherit the flag. Without it calls still arrive,
    through a tuple of the arguments.
    """
    inherits = sys.version_info < (3, 12) and cls.__call__ is _Base.__call__
    if _NATIVE and inherits and not cls.__flags__ & pyabi.HAVE_VECTORCALL:
        flags = ctypes.c_ulong.from_address(id(cls) + pyabi.TYPE_FLAGS)
        flags.value |= pyabi.HAVE_VECTORCALL


_inherit_vectorcall(NativeCallable)
