"""The native functions that all entry points of a process share: work on arrays, and the ways out of an entry.

Written in LLVM IR and compiled once, so that the code of each entry stays small. In C they would read::

    dflow_array_data(arg, builtin, nd, dims)                the data of `arg`, NULL when not such a plain ndarray
    dflow_new_array(builtin, nd, dims)                      return PyArray_NewFromDescr(...);
    dflow_cut(array, dims)                                  `array`, with the elements within `dims` alone
    dflow_collect(objects, n)                               the tuple of them, taking over the references
    dflow_release(objects, n)                               drop the references, and return NULL
    dflow_fallback(callable, args, nargsf, kwnames)         return callable._fallback(*args, **kwargs);
    dflow_next(callable, args, nargsf, kwnames, current)    jump to the entry after `current`, else dflow_fallback
    dflow_error(callable, args, nargs, entry, status, err)  return callable._on_error(entry, status, err[0:4], args);

`dflow_fallback` has CPython's vectorcall signature, so a callable without entries points straight at it.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Callable, Iterator

from llvmlite import ir

from dflow.backends.native.pyabi import (
    ARRAY_DATA,
    ARRAY_DESCR,
    ARRAY_DIMS,
    ARRAY_FLAGS,
    ARRAY_NDIM,
    ARRAY_PLAIN,
    ARRAY_STRIDES,
    DESCR_BYTEORDER,
    HEAD_SIZE,
    I8,
    I32,
    I64,
    OB_TYPE,
    PTR,
    VECTORCALL,
    at,
    data,
    field,
    function,
    symbols,
)

MAX_ENTRIES = 8
NULL = ir.Constant(PTR, None)

SIGNATURES = {
    "dflow_array_data": ir.FunctionType(PTR, [PTR, PTR, I32, PTR]),
    "dflow_new_array": ir.FunctionType(PTR, [PTR, I32, PTR]),
    "dflow_cut": ir.FunctionType(PTR, [PTR, PTR]),
    "dflow_collect": ir.FunctionType(PTR, [PTR, I64]),
    "dflow_release": ir.FunctionType(PTR, [PTR, I64]),
    "dflow_fallback": VECTORCALL,
    "dflow_next": ir.FunctionType(PTR, [*VECTORCALL.args, PTR]),
    "dflow_error": ir.FunctionType(PTR, [PTR, PTR, I64, PTR, I32, PTR]),
}


class Fields(ctypes.Structure):
    """What `NativeCallable` keeps behind the object head. The last entry stays NULL and ends the list."""

    _fields_ = (("vectorcall", ctypes.c_void_p), ("entries", ctypes.c_void_p * (MAX_ENTRIES + 1)))


@functools.cache
def addresses() -> dict[str, int]:
    """Compile the shared functions; name to address. They are never freed: an object that outlives this module at
    interpreter exit may still be called."""
    from dflow.backends.native.engine import load_for_good  # which loads programs, whose entries call these

    # Without optimization: 1 ns more for each array of a call, 5 ms less before the first call.
    return load_for_good("trampoline", lambda: (_build_module(), list(SIGNATURES)), symbols(), 0)


def _build_module() -> ir.Module:
    module = ir.Module("dflow_trampoline")
    bodies: dict[str, Callable[[ir.IRBuilder, ir.Function], None]] = {
        "dflow_array_data": _array_data,
        "dflow_new_array": _new_array,
        "dflow_cut": _cut,
        "dflow_collect": _collect,
        "dflow_release": _release,
        "dflow_fallback": _fallback,
        "dflow_next": _next,
        "dflow_error": _error,
    }
    for name, write_body in bodies.items():
        defined = shared(module, name)
        write_body(ir.IRBuilder(defined.append_basic_block("start")), defined)
    return module


def shared(module: ir.Module, name: str) -> ir.Function:
    """The function `name` of this file, declared in `module`."""
    return function(module, name, SIGNATURES[name])


def _array_data(builder: ir.IRBuilder, defined: ir.Function) -> None:
    arg, builtin, rank, dims = defined.args
    module = defined.module
    no_match = defined.append_basic_block("no_match")

    def require(condition: ir.Value) -> None:
        going_on = defined.append_basic_block("then")
        builder.cbranch(condition, going_on, no_match)
        builder.position_at_end(going_on)

    require(equal(builder, field(builder, arg, OB_TYPE, PTR), data(module, "dflow_np_ndarray")))
    flags = builder.and_(field(builder, arg, ARRAY_FLAGS, I32), ir.Constant(I32, ARRAY_PLAIN))
    require(equal(builder, flags, ir.Constant(I32, ARRAY_PLAIN)))
    require(equal(builder, field(builder, arg, ARRAY_NDIM, I32), rank))

    own_dims = field(builder, arg, ARRAY_DIMS, PTR)
    with loop(builder, builder.zext(rank, I64)) as k:
        require(equal(builder, element(builder, own_dims, k, I64), element(builder, dims, k, I64)))

    # Unpickled arrays carry a copy of the built-in dtype, so a pointer that differs is not the last word.
    descr = field(builder, arg, ARRAY_DESCR, PTR)
    with builder.if_then(builder.icmp_unsigned("!=", descr, builtin), likely=False):
        # NumPy's own dtype classes have the struct with the byte order, so the class comes first.
        require(equal(builder, field(builder, descr, OB_TYPE, PTR), field(builder, builtin, OB_TYPE, PTR)))
        order = field(builder, descr, DESCR_BYTEORDER, I8)
        require(builder.or_(*(equal(builder, order, ir.Constant(I8, ord(sign))) for sign in "=|")))
    builder.ret(field(builder, arg, ARRAY_DATA, PTR))

    builder.position_at_end(no_match)
    builder.ret(NULL)


def _new_array(builder: ir.IRBuilder, defined: ir.Function) -> None:
    builtin, rank, dims = defined.args
    module = defined.module
    builder.call(function(module, "Py_IncRef"), [builtin])  # PyArray_NewFromDescr steals it
    flags = ir.Constant(I32, 0)
    arguments = [data(module, "dflow_np_ndarray"), builtin, rank, dims, NULL, NULL, flags, NULL]
    builder.ret(builder.call(function(module, "dflow_np_new_from_descr"), arguments, tail=True))


def _cut(builder: ir.IRBuilder, defined: ir.Function) -> None:
    """What stays is moved to the front, axis by axis; what is then behind it, `PyArray_Resize` takes away."""
    array, dims = defined.args
    module = defined.module
    shape = builder.alloca(I64, 2)  # PyArray_Dims
    lines = builder.alloca(I64)  # as many as there are of the axes so far
    changed = builder.alloca(I8)
    builder.store(ir.Constant(I64, 1), lines)
    builder.store(ir.Constant(I8, 0), changed)
    rank = builder.zext(field(builder, array, ARRAY_NDIM, I32), I64)
    start, own, strides = (field(builder, array, place, PTR) for place in (ARRAY_DATA, ARRAY_DIMS, ARRAY_STRIDES))
    with loop(builder, rank) as k:
        had, wanted = element(builder, own, k, I64), element(builder, dims, k, I64)
        stride, before = element(builder, strides, k, I64), builder.load(lines, typ=I64)
        builder.store(builder.mul(before, wanted), lines)
        with builder.if_then(builder.icmp_unsigned("!=", had, wanted)):
            builder.store(ir.Constant(I8, 1), changed)
            old, new = builder.mul(had, stride), builder.mul(wanted, stride)
            with loop(builder, builder.sub(before, ir.Constant(I64, 1))) as i:  # the first line stays
                n = builder.add(i, ir.Constant(I64, 1))
                places = [builder.gep(start, [builder.mul(n, size)], source_etype=I8) for size in (new, old)]
                builder.call(function(module, "memmove"), [*places, new])
    with builder.if_then(equal(builder, builder.load(changed, typ=I8), ir.Constant(I8, 0))):
        builder.ret(array)
    builder.store(builder.ptrtoint(dims, I64), shape)
    builder.store(rank, at(builder, shape, 8))
    zero = ir.Constant(I32, 0)  # no look at who refers to it, and C order
    done = builder.call(function(module, "dflow_np_resize"), [array, shape, zero, zero])
    with builder.if_then(equal(builder, done, NULL), likely=False):
        builder.ret(NULL)
    builder.call(function(module, "Py_DecRef"), [done])  # None
    builder.ret(array)


def _collect(builder: ir.IRBuilder, defined: ir.Function) -> None:
    objects, count = defined.args
    module = defined.module
    made = builder.call(function(module, "PyTuple_New"), [count])
    with builder.if_then(equal(builder, made, NULL), likely=False):
        builder.ret(builder.call(shared(module, "dflow_release"), [objects, count]))
    with loop(builder, count) as i:
        item = element(builder, objects, i, PTR)
        builder.call(function(module, "PyTuple_SetItem"), [made, i, item])  # steals the reference
    builder.ret(made)


def _release(builder: ir.IRBuilder, defined: ir.Function) -> None:
    objects, count = defined.args
    with loop(builder, count) as i:
        builder.call(function(defined.module, "Py_DecRef"), [element(builder, objects, i, PTR)])
    builder.ret(NULL)


def _fallback(builder: ir.IRBuilder, defined: ir.Function) -> None:
    callable_, args, nargsf, kwnames = defined.args
    module = defined.module
    method = builder.call(function(module, "PyObject_GetAttr"), [callable_, data(module, "dflow_fallback_name")])
    with builder.if_then(equal(builder, method, NULL), likely=False):
        builder.ret(NULL)
    result = builder.call(function(module, "PyObject_Vectorcall"), [method, args, nargsf, kwnames])
    builder.call(function(module, "Py_DecRef"), [method])
    builder.ret(result)


def _next(builder: ir.IRBuilder, defined: ir.Function) -> None:
    callable_, args, nargsf, kwnames, current = defined.args
    start = builder.block
    scan, step, found, slow = (builder.append_basic_block(name) for name in ("scan", "step", "found", "slow"))
    first = at(builder, callable_, HEAD_SIZE + Fields.entries.offset)
    builder.branch(scan)

    builder.position_at_end(scan)
    place = builder.phi(PTR)
    place.add_incoming(first, start)
    entry = field(builder, place, 0, PTR)
    following = at(builder, place, ctypes.sizeof(ctypes.c_void_p))
    place.add_incoming(following, step)
    # The list may have been replaced since `current` was called; then it is not in it, and the slow path is right.
    builder.cbranch(equal(builder, entry, NULL), slow, step)

    builder.position_at_end(step)
    builder.cbranch(equal(builder, entry, current), found, scan)

    builder.position_at_end(found)
    target = field(builder, following, 0, VECTORCALL.as_pointer())
    with builder.if_then(builder.icmp_unsigned("!=", target, NULL)):
        builder.ret(builder.call(target, [callable_, args, nargsf, kwnames], tail=True))
    builder.branch(slow)

    builder.position_at_end(slow)
    fallback = function(defined.module, "dflow_fallback")
    builder.ret(builder.call(fallback, [callable_, args, nargsf, kwnames], tail=True))


def _error(builder: ir.IRBuilder, defined: ir.Function) -> None:
    callable_, args, nargs, entry, status, err = defined.args
    module = defined.module
    as_tuple = builder.call(function(module, "PyTuple_New"), [nargs])
    with builder.if_then(equal(builder, as_tuple, NULL), likely=False):
        builder.ret(NULL)
    with loop(builder, nargs) as i:
        item = element(builder, args, i, PTR)
        builder.call(function(module, "Py_IncRef"), [item])
        builder.call(function(module, "PyTuple_SetItem"), [as_tuple, i, item])  # steals the reference
    record = [field(builder, err, 8 * k, I64) for k in range(4)]
    name, form = _text(module, "_on_error"), _text(module, "Ki(LLLL)N")  # "N" hands our tuple over
    call = [callable_, name, form, entry, status, *record, as_tuple]
    builder.ret(builder.call(function(module, "PyObject_CallMethod"), call))


def equal(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    return builder.icmp_unsigned("==", a, b)


def element(builder: ir.IRBuilder, base: ir.Value, i: ir.Value, typ: ir.Type) -> ir.Value:
    return builder.load(builder.gep(base, [i], source_etype=typ), typ=typ)


@contextlib.contextmanager
def loop(builder: ir.IRBuilder, count: ir.Value) -> Iterator[ir.Value]:
    """Write a loop around the body of the ``with``, which gets the index, from 0 up to `count`."""
    before = builder.block
    head, body, done = (builder.append_basic_block(name) for name in ("head", "body", "done"))
    builder.branch(head)
    builder.position_at_end(head)
    i = builder.phi(I64)
    i.add_incoming(ir.Constant(I64, 0), before)
    builder.cbranch(builder.icmp_signed("<", i, count), body, done)
    builder.position_at_end(body)
    yield i
    i.add_incoming(builder.add(i, ir.Constant(I64, 1)), builder.block)
    builder.branch(head)
    builder.position_at_end(done)


def _text(module: ir.Module, text: str) -> ir.GlobalVariable:
    raw = bytearray(text.encode() + b"\0")
    constant = ir.GlobalVariable(module, ir.ArrayType(I8, len(raw)), module.get_unique_name("text"))
    constant.initializer = ir.Constant(constant.value_type, raw)
    constant.global_constant = True
    constant.linkage = "internal"
    return constant
