"""Memory of large results, kept for the next ones: the system clears fresh pages, which costs more than many a program.

NumPy gets the memory of an array from a *handler* (NEP 49), which the array remembers. A large result is made while
the handler below is the current one; in all else it is an array like any other, that owns its data. In C:

    void *take(size) {
        for (each kept block b) if (b has size bytes, or at most an eighth more) { keep b no longer; return b; }
        return aligned_alloc(64, ...) with a header for its size, in large pages where there are such;
    }
    void put(block) { keep it, and free others until all that is kept is at most LIMIT; }

Both run under Python's lock. A block larger than the limit is not kept; ``DFLOW_RESULT_CACHE`` is the limit in MiB.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from typing import Any

import llvmlite.binding as llvm

from dflow.backends.native import object_cache, pyabi

LEAST = 1 << 17  # bytes of a large result
SYMBOL = "dflow_new_large_array"
_SET_HANDLER = 304  # place of PyDataMem_SetHandler in NumPy's table of C functions
_HUGE = 1 << 22  # bytes from which large pages pay


def is_large(count: int) -> bool:
    """Whether an array of so many bytes gets its memory from here."""
    return count >= LEAST and limit() > 0


@functools.cache
def limit() -> int:
    """The most bytes that are kept."""
    if sys.platform == "win32":  # has no aligned_alloc
        return 0
    try:
        return int(float(os.environ.get("DFLOW_RESULT_CACHE", "128")) * 2**20)
    except ValueError:
        return 128 * 2**20


class _Handler(ctypes.Structure):
    """NumPy's ``PyDataMem_Handler``."""

    _fields_ = (
        ("name", ctypes.c_char * 127),
        ("version", ctypes.c_uint8),
        ("context", ctypes.c_void_p),
        ("malloc", ctypes.c_void_p),
        ("calloc", ctypes.c_void_p),
        ("realloc", ctypes.c_void_p),
        ("free", ctypes.c_void_p),
    )


_NAME = b"mem_handler"  # of a capsule with a handler, as NumPy wants it
_KEPT: list[Any] = []  # for as long as the process lives: arrays may outlive this module


@functools.cache
def address() -> int:
    """The address of ``dflow_new_large_array(dtype, rank, shape)``, which returns a new array."""
    from dflow.backends.native.engine import load
    from dflow.backends.native.machine import machine

    key = object_cache.digest("result memory", str(limit()))
    code = object_cache.read(key)
    if code is None:
        module = llvm.parse_assembly(_CODE.replace("LIMIT", str(limit())).replace("LEAST", str(LEAST)))
        module.verify()
        code = machine().emit_object(module)
        object_cache.write(key, code)
    made = pyabi.symbols()
    handler = _Handler(b"dflow", 1)
    new_capsule = ctypes.pythonapi.PyCapsule_New
    new_capsule.restype, new_capsule.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    capsule = new_capsule(ctypes.addressof(handler), _NAME, None)
    wanted = ("dflow_results_malloc", "dflow_results_calloc", "dflow_results_realloc", "dflow_results_free", SYMBOL)
    symbols = {name: made[name] for name in ("Py_IncRef", "Py_DecRef", "dflow_np_ndarray", "dflow_np_new_from_descr")}
    symbols |= {"dflow_np_set_handler": pyabi.numpy_function(_SET_HANDLER), "dflow_handler": id(capsule)}
    tracker = load(code, wanted, symbols)
    handler.malloc, handler.calloc, handler.realloc, handler.free, found = (int(tracker[name]) for name in wanted)
    _KEPT.extend((handler, capsule, tracker))
    return found


_CODE = f"""
@kept = internal global [16 x ptr] zeroinitializer
@total = internal global i64 0
@oldest = internal global i64 0
@dflow_handler = external global i8
@dflow_np_ndarray = external global i8

declare ptr @aligned_alloc(i64, i64)
declare void @free(ptr)
declare i32 @madvise(ptr, i64, i32)
declare void @Py_IncRef(ptr)
declare void @Py_DecRef(ptr)
declare ptr @dflow_np_new_from_descr(ptr, ptr, i32, ptr, ptr, ptr, i32, ptr)
declare ptr @dflow_np_set_handler(ptr)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
declare i64 @llvm.umin.i64(i64, i64)

define i64 @size_of(ptr %block) {{
  %header = getelementptr i8, ptr %block, i64 -64
  %size = load i64, ptr %header
  ret i64 %size
}}

define void @release(ptr %block) {{
  %header = getelementptr i8, ptr %block, i64 -64
  call void @free(ptr %header)
  ret void
}}

; Frees what is kept in a slot.
define void @empty(i64 %k) {{
  %slot = getelementptr [16 x ptr], ptr @kept, i64 0, i64 %k
  %block = load ptr, ptr %slot
  %nothing = icmp eq ptr %block, null
  br i1 %nothing, label %done, label %drop
drop:
  %size = call i64 @size_of(ptr %block)
  %before = load i64, ptr @total
  %after = sub i64 %before, %size
  store i64 %after, ptr @total
  store ptr null, ptr %slot
  call void @release(ptr %block)
  br label %done
done:
  ret void
}}

define ptr @fresh(i64 %size) {{
  %whole = add i64 %size, 64
  %first = call ptr @aligned_alloc(i64 64, i64 %whole)
  %failed = icmp eq ptr %first, null
  br i1 %failed, label %drop, label %got
drop:
  %k = phi i64 [ 0, %0 ], [ %following, %drop ]
  call void @empty(i64 %k)
  %following = add i64 %k, 1
  %more = icmp ult i64 %following, 16
  br i1 %more, label %drop, label %again
again:
  %second = call ptr @aligned_alloc(i64 64, i64 %whole)
  %out = icmp eq ptr %second, null
  br i1 %out, label %none, label %got
none:
  ret ptr null
got:
  %header = phi ptr [ %first, %0 ], [ %second, %again ]
  store i64 %size, ptr %header
  %block = getelementptr i8, ptr %header, i64 64
  %is_huge = icmp uge i64 %size, {_HUGE}
  br i1 %is_huge, label %advise, label %done
advise:
  %start = ptrtoint ptr %block to i64
  %up = add i64 %start, 4095
  %page = and i64 %up, -4096
  %at = inttoptr i64 %page to ptr
  %rest = sub i64 %size, 4096
  %ignored = call i32 @madvise(ptr %at, i64 %rest, i32 14)
  br label %done
done:
  ret ptr %block
}}

define ptr @dflow_results_malloc(ptr %context, i64 %wanted) {{
  %up = add i64 %wanted, 4095
  %size = and i64 %up, -4096
  %slack = lshr i64 %size, 3
  br label %search
search:
  %k = phi i64 [ 0, %0 ], [ %following, %next ]
  %slot = getelementptr [16 x ptr], ptr @kept, i64 0, i64 %k
  %block = load ptr, ptr %slot
  %nothing = icmp eq ptr %block, null
  br i1 %nothing, label %next, label %compare
compare:
  %has = call i64 @size_of(ptr %block)
  %over = sub i64 %has, %size
  %fits = icmp ule i64 %over, %slack
  br i1 %fits, label %take, label %next
take:
  %before = load i64, ptr @total
  %after = sub i64 %before, %has
  store i64 %after, ptr @total
  store ptr null, ptr %slot
  ret ptr %block
next:
  %following = add i64 %k, 1
  %more = icmp ult i64 %following, 16
  br i1 %more, label %search, label %make
make:
  %made = call ptr @fresh(i64 %size)
  ret ptr %made
}}

define void @dflow_results_free(ptr %context, ptr %block, i64 %ignored) {{
  %nothing = icmp eq ptr %block, null
  br i1 %nothing, label %done, label %ask
ask:
  %size = call i64 @size_of(ptr %block)
  %small = icmp ult i64 %size, LEAST
  %large = icmp ugt i64 %size, LIMIT
  %unfit = or i1 %small, %large
  br i1 %unfit, label %drop, label %room
drop:
  call void @release(ptr %block)
  br label %done
room:
  %round = phi i64 [ 0, %ask ], [ %later, %evict ]
  %total = load i64, ptr @total
  %sum = add i64 %total, %size
  %full = icmp ugt i64 %sum, LIMIT
  br i1 %full, label %evict, label %search
evict:
  %old = load i64, ptr @oldest
  call void @empty(i64 %old)
  %newer = add i64 %old, 1
  %wrapped = and i64 %newer, 15
  store i64 %wrapped, ptr @oldest
  %later = add i64 %round, 1
  br label %room
search:
  %k = phi i64 [ 0, %room ], [ %following, %next ]
  %slot = getelementptr [16 x ptr], ptr @kept, i64 0, i64 %k
  %there = load ptr, ptr %slot
  %free = icmp eq ptr %there, null
  br i1 %free, label %keep, label %next
next:
  %following = add i64 %k, 1
  %more = icmp ult i64 %following, 16
  br i1 %more, label %search, label %evict
keep:
  store ptr %block, ptr %slot
  store i64 %sum, ptr @total
  br label %done
done:
  ret void
}}

define ptr @dflow_results_calloc(ptr %context, i64 %count, i64 %each) {{
  %size = mul i64 %count, %each
  %block = call ptr @dflow_results_malloc(ptr %context, i64 %size)
  %failed = icmp eq ptr %block, null
  br i1 %failed, label %done, label %clear
clear:
  call void @llvm.memset.p0.i64(ptr %block, i8 0, i64 %size, i1 false)
  br label %done
done:
  ret ptr %block
}}

; A block of which half stays is left as it is.
define ptr @dflow_results_realloc(ptr %context, ptr %block, i64 %size) {{
  %absent = icmp eq ptr %block, null
  br i1 %absent, label %new, label %compare
compare:
  %whole = call i64 @size_of(ptr %block)
  %half = lshr i64 %whole, 1
  %fits = icmp ule i64 %size, %whole
  %fills = icmp uge i64 %size, %half
  %stays = and i1 %fits, %fills
  br i1 %stays, label %leave, label %new
leave:
  ret ptr %block
new:
  %made = call ptr @dflow_results_malloc(ptr %context, i64 %size)
  %failed = icmp eq ptr %made, null
  %first = icmp eq ptr %block, null
  %either = or i1 %failed, %first
  br i1 %either, label %done, label %move
move:
  %has = call i64 @size_of(ptr %block)
  %least = call i64 @llvm.umin.i64(i64 %has, i64 %size)
  call void @llvm.memcpy.p0.p0.i64(ptr %made, ptr %block, i64 %least, i1 false)
  call void @dflow_results_free(ptr %context, ptr %block, i64 %has)
  br label %done
done:
  ret ptr %made
}}

define ptr @dflow_new_large_array(ptr %dtype, i32 %rank, ptr %shape) {{
  %before = call ptr @dflow_np_set_handler(ptr @dflow_handler)
  %failed = icmp eq ptr %before, null
  br i1 %failed, label %leave, label %make
leave:
  ret ptr null
make:
  call void @Py_IncRef(ptr %dtype)  ; PyArray_NewFromDescr steals it
  %made = call ptr @dflow_np_new_from_descr(
    ptr @dflow_np_ndarray, ptr %dtype, i32 %rank, ptr %shape, ptr null, ptr null, i32 0, ptr null)
  %mine = call ptr @dflow_np_set_handler(ptr %before)
  call void @Py_DecRef(ptr %mine)
  call void @Py_DecRef(ptr %before)
  ret ptr %made
}}
"""
