"""CPython entry points in LLVM IR: from ``PyObject *`` arguments to a kernel and back, without a Python frame.

`add_entry` puts beside a kernel

    i32 @kernel(args..., results..., ptr err)

a function with CPython's vectorcall signature (PEP 590) for use by `callable.NativeCallable`. In C it would read::

    PyObject *entry(PyObject *callable, PyObject *const *args, size_t nargsf, PyObject *kwnames) {
        if (the number or a type, dtype, shape or layout of the arguments differs from the spec)
            return dflow_next(callable, args, nargsf, kwnames, entry);
        if (an argument to be updated is read-only or overlaps another array)
            return dflow_next(callable, args, nargsf, kwnames, entry);
        allocate the array results;                           on failure: release them, return NULL
        status = kernel(values and data pointers..., err);
        if (status != 0) { release the results; return dflow_error(callable, args, nargs, entry, status, err); }
        cut the array results whose sizes the kernel has found;
        box the rank-0 results;
        return the only result, a tuple of them, or None;
    }

Arguments stay borrowed: the caller holds them for the time of the call. Types are compared exactly; what could be
converted is left to the Python path, which knows the rules. Addresses of the running process are symbols (`symbols`),
so the object code can be cached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import groupby

from llvmlite import ir

from dflow.backends.native import pyabi, result_memory, trampoline
from dflow.backends.native.entry_spec import EntrySpec, Leaf
from dflow.backends.native.pyabi import I8, I32, I64, PTR, at, data, field, function

NULL = ir.Constant(PTR, None)
FEW = 8  # results that are not worth a loop


def available() -> bool:
    """Whether entries work in this process; where not, `NativeCallable` takes the Python path for every call."""
    return pyabi.available()


def passes(dtype: str) -> bool:
    """Whether a rank-0 value of this dtype can be an argument or a result of a kernel."""
    found = pyabi.element(dtype)
    return found is not None and found.llvm is not None


def symbols(dtypes: Iterable[str] = ()) -> dict[str, int]:
    """Symbol name to address, for all symbols that entries refer to, those with leaves of ``dtypes`` too. To be handed
    to the JIT before it links."""
    for dtype in dtypes:
        pyabi.element(dtype)
    return pyabi.symbols() | trampoline.addresses()


def add_entry(module: ir.Module, kernel: ir.Function, spec: EntrySpec, name: str) -> ir.Function:
    """Add to `module` the entry `name` of `kernel`, as described at the top of this file."""
    wanted = [leaf.llvm if leaf.by_value else PTR for leaf in spec.args] + [PTR] * (len(spec.results) + 1)
    signature = ir.FunctionType(I32, wanted)
    if kernel.function_type != signature:
        raise TypeError(f"kernel {kernel.name} is {kernel.function_type}, but its spec wants {signature}")
    entry = ir.Function(module, pyabi.VECTORCALL, name)
    # An entry is a chain of tests and calls: optimizing it gains a nanosecond and doubles the time to compile it.
    entry.attributes.add("noinline")
    entry.attributes.add("optnone")
    _Writer(entry, spec).write(kernel)
    return entry


class _Writer:
    """Writes the body of one entry. The exits are shared blocks; `self.builder` moves along the fast path."""

    def __init__(self, entry: ir.Function, spec: EntrySpec) -> None:
        self.module, self.entry, self.spec = entry.module, entry, spec
        self.callable, self.args, self.nargsf, self.kwnames = entry.args
        self.builder = ir.IRBuilder(entry.append_basic_block("start"))
        self.mismatch, self.failed = (entry.append_basic_block(n) for n in ("mismatch", "failed"))
        # The new references, which the exits must release; NULL until made.
        self.order = {k: n for n, k in enumerate(spec.returned)}
        self.objects, self.count = self.builder.alloca(PTR, len(self.order)), ir.Constant(I64, len(self.order))

    def write(self, kernel: ir.Function) -> None:
        runs = [list(run) for _, run in groupby(self.spec.returned, lambda k: self.spec.results[k])]  # alike, in a row
        numbers = self.make_numbers(runs)
        self.sizes = self.builder.alloca(I64, max((len(sizes) for _, sizes in self.spec.cuts), default=0))
        err = self.builder.alloca(ir.ArrayType(I64, 4))
        self.builder.store(ir.Constant(ir.ArrayType(I64, 4), None), err)
        # Made at the very start: a slot elsewhere would grow the stack each time it is reached.
        self.overflow = self.builder.alloca(I32)
        self.repeat(len(self.order), lambda k: self.builder.store(NULL, self.element(self.objects, PTR, k)))

        self.check_call()
        values = [self.read(i, leaf) for i, leaf in enumerate(self.spec.args)]
        for _, i in self.spec.in_place:
            self.require_own(i, values)
        left = dict(self.spec.in_place)
        places = [
            values[left[k]] if k in left else numbers[k] if k in numbers else self.make_array(leaf, self.slot(k))
            for k, leaf in enumerate(self.spec.results)
        ]
        status = self.run(kernel, [*values, *places, err])
        self.write_error(status, err)
        for k, sizes in self.spec.cuts:
            shape = self.spec.results[k].shape
            self.cut(self.slot(k), [shape[n] if i is None else numbers[i] for n, i in enumerate(sizes)])
        for run in runs:
            if run[0] in numbers:
                self.repeat(len(run), partial(self.box_one, run[0], numbers[run[0]]))
        self.builder.ret(self.collect())
        self.write_exits()

    # --- arguments

    def check_call(self) -> None:
        """No keywords, and the right number of arguments."""
        self.require(self.equal(self.kwnames, NULL))
        count = self.builder.and_(self.nargsf, ir.Constant(I64, pyabi.ARGUMENTS_OFFSET - 1))
        self.require(self.equal(count, ir.Constant(I64, len(self.spec.args))))

    def read(self, i: int, leaf: Leaf) -> ir.Value:
        """The kernel's argument `i`: a value at rank 0 (but for complex numbers), else a data pointer."""
        arg = field(self.builder, self.args, 8 * i, PTR)
        if leaf.shape:
            return self.read_array(arg, leaf)
        if not leaf.python:
            return self.read_scalar(arg, leaf)
        readers = {"f64": self.read_float, "i64": self.read_int, "bool": self.read_bool, "c128": self.read_complex}
        return readers[leaf.dtype](arg)

    def read_float(self, arg: ir.Value) -> ir.Value:
        self.require_type(arg, "PyFloat_Type")
        return field(self.builder, arg, pyabi.FLOAT_VALUE, ir.DoubleType())

    def read_complex(self, arg: ir.Value) -> ir.Value:
        self.require_type(arg, "PyComplex_Type")
        return at(self.builder, arg, pyabi.COMPLEX_VALUE)

    def read_bool(self, arg: ir.Value) -> ir.Value:
        is_true = self.equal(arg, data(self.module, "_Py_TrueStruct"))
        is_false = self.equal(arg, data(self.module, "_Py_FalseStruct"))
        self.require(self.builder.or_(is_true, is_false))
        return self.builder.zext(is_true, I8)

    def read_int(self, arg: ir.Value) -> ir.Value:
        """An int of one digit is decoded in place; a longer one by the C API, and beyond 64 bits it is no match."""
        self.require_type(arg, "PyLong_Type")
        b = self.builder
        tag = field(b, arg, pyabi.LONG_TAG, I64)
        if pyabi.LONG_HAS_TAG:
            is_short = b.icmp_unsigned("<", tag, ir.Constant(I64, 16))
            sign = b.sub(ir.Constant(I64, 1), b.and_(tag, ir.Constant(I64, 3)))
        else:
            is_short = b.icmp_unsigned("<=", b.add(tag, ir.Constant(I64, 1)), ir.Constant(I64, 2))
            sign = tag

        def decode() -> ir.Value:
            return b.mul(sign, b.zext(field(b, arg, pyabi.LONG_DIGIT, I32), I64))

        def convert() -> ir.Value:
            value = b.call(function(self.module, "PyLong_AsLongLongAndOverflow"), [arg, self.overflow])
            self.require(self.equal(b.load(self.overflow, typ=I32), ir.Constant(I32, 0)))
            return value

        return self.either(is_short, decode, convert)

    def read_scalar(self, arg: ir.Value, leaf: Leaf) -> ir.Value:
        """The value of a NumPy scalar or a rank-0 array, or where it is."""
        is_scalar = self.equal(self.type_of(arg), data(self.module, leaf.symbol))
        place = self.either(
            is_scalar, lambda: at(self.builder, arg, pyabi.SCALAR_VALUE), lambda: self.read_array(arg, leaf)
        )
        if not leaf.by_value:
            return place
        value = self.builder.load(place, typ=leaf.llvm)
        if leaf.dtype == "bool":  # a view of other bytes can hold more than 0 and 1
            value = self.builder.zext(self.builder.icmp_unsigned("!=", value, ir.Constant(I8, 0)), I8)
        return value

    def read_array(self, arg: ir.Value, leaf: Leaf) -> ir.Value:
        """The data of the ndarray `arg`, which must have the dtype and shape of `leaf` and a plain layout."""
        found = self.builder.call(self.shared("dflow_array_data"), [arg, *self.describe(leaf)])
        self.require(self.builder.icmp_unsigned("!=", found, NULL))
        return found

    def require_own(self, i: int, values: list[ir.Value]) -> None:
        """Argument `i`, an array, may be written, and shares no memory with another array."""
        b = self.builder
        flags = field(b, field(b, self.args, 8 * i, PTR), pyabi.ARRAY_FLAGS, I32)
        writeable = ir.Constant(I32, pyabi.ARRAY_WRITEABLE)
        self.require(self.equal(b.and_(flags, writeable), writeable))
        starts = {k: b.ptrtoint(values[k], I64) for k, leaf in enumerate(self.spec.args) if leaf.shape}
        ends = {k: b.add(start, ir.Constant(I64, self.spec.args[k].bytes)) for k, start in starts.items()}
        for k in starts.keys() - {i}:
            before, after = (b.icmp_unsigned("<=", ends[x], starts[y]) for x, y in ((i, k), (k, i)))
            self.require(b.or_(before, after))

    # --- the kernel

    def run(self, kernel: ir.Function, args: list[ir.Value]) -> ir.Value:
        if not self.spec.release_gil:
            return self.builder.call(kernel, args)
        thread = self.builder.call(function(self.module, "PyEval_SaveThread"), [])
        status = self.builder.call(kernel, args)
        self.builder.call(function(self.module, "PyEval_RestoreThread"), [thread])
        return status

    def write_error(self, status: ir.Value, err: ir.Value) -> None:
        """The way out when the kernel reports an error."""
        good, bad = (self.entry.append_basic_block(n) for n in ("good", "bad"))
        self.builder.cbranch(self.equal(status, ir.Constant(I32, 0)), good, bad)
        self.builder.position_at_end(bad)
        self.release_objects()
        nargs = ir.Constant(I64, len(self.spec.args))
        arguments = [self.callable, self.args, nargs, self.entry, status, err]
        self.builder.ret(self.builder.call(self.shared("dflow_error"), arguments))
        self.builder.position_at_end(good)

    # --- results

    def make_numbers(self, runs: Sequence[Sequence[int]]) -> dict[int, ir.Value]:
        """Where the kernel leaves each rank-0 result: those of a run one behind the other."""
        made: dict[int, ir.Value] = {}
        for run in [*runs, *([k] for k in self.spec.hidden)]:
            leaf = self.spec.results[run[0]]
            if not leaf.shape:
                start = self.builder.alloca(leaf.llvm, len(run))
                made.update((k, self.element(start, leaf.llvm, n)) for n, k in enumerate(run))
        return made

    def slot(self, k: int) -> ir.Value:
        """Where the object for result `k` stands."""
        return self.element(self.objects, PTR, self.order[k])

    def box_one(self, first: int, values: ir.Value, n: ir.Value) -> None:
        """Make the object for number `n` of the run that begins with result `first`."""
        leaf = self.spec.results[first]
        self.box(leaf, self.element(self.slot(first), PTR, n), self.element(values, leaf.llvm, n))

    def make_array(self, leaf: Leaf, slot: ir.Value) -> ir.Value:
        """Allocate the ndarray for a result; its data pointer."""
        if result_memory.is_large(leaf.bytes):
            new = function(self.module, result_memory.SYMBOL, trampoline.SIGNATURES["dflow_new_array"])
        else:
            new = self.shared("dflow_new_array")
        made = self.hold(self.builder.call(new, self.describe(leaf)), slot)
        return field(self.builder, made, pyabi.ARRAY_DATA, PTR)

    def cut(self, slot: ir.Value, sizes: list[int | ir.Value]) -> None:
        """Make the array in ``slot`` as large as the sizes say: ints, or where the kernel left them."""
        for n, size in enumerate(sizes):
            number = ir.Constant(I64, size) if isinstance(size, int) else self.builder.load(size, typ=I64)
            self.builder.store(number, at(self.builder, self.sizes, 8 * n))
        done = self.builder.call(self.shared("dflow_cut"), [self.builder.load(slot, typ=PTR), self.sizes])
        self.require(self.builder.icmp_unsigned("!=", done, NULL), self.failed)

    def box(self, leaf: Leaf, slot: ir.Value, place: ir.Value) -> None:
        """Make the object for a rank-0 result from the value that the kernel left in `place`."""
        value = self.builder.load(place, typ=leaf.llvm)
        if leaf.dtype == "bool":
            names = ("_Py_TrueStruct", "_Py_FalseStruct") if leaf.python else ("dflow_np_true", "dflow_np_false")
            is_true = self.builder.icmp_unsigned("!=", value, ir.Constant(I8, 0))
            chosen = self.builder.select(is_true, *(data(self.module, name) for name in names))
            self.builder.call(function(self.module, "Py_IncRef"), [chosen])
            self.builder.store(chosen, slot)
        elif leaf.python and leaf.dtype != "c128":
            name = "PyFloat_FromDouble" if leaf.dtype == "f64" else "PyLong_FromLongLong"
            self.hold(self.builder.call(function(self.module, name), [value]), slot)
        else:
            alloc = function(self.module, f"{leaf.symbol}_alloc", ir.FunctionType(PTR, [PTR, I64]))
            made = self.builder.call(alloc, [data(self.module, leaf.symbol), ir.Constant(I64, 0)])
            self.hold(made, slot)
            self.builder.store(value, at(self.builder, made, pyabi.SCALAR_VALUE))

    def collect(self) -> ir.Value:
        """The object to return. It takes over the references in `self.objects`."""
        if self.spec.single:
            return self.builder.load(self.objects, typ=PTR)
        if not self.spec.returned:
            none = data(self.module, "_Py_NoneStruct")
            self.builder.call(function(self.module, "Py_IncRef"), [none])
            return none
        return self.builder.call(self.shared("dflow_collect"), [self.objects, self.count])

    # --- the other exits

    def write_exits(self) -> None:
        self.builder.position_at_end(self.failed)  # out of memory: the exception is set
        self.builder.ret(self.release_objects())
        self.builder.position_at_end(self.mismatch)
        arguments = [self.callable, self.args, self.nargsf, self.kwnames, self.entry]
        self.builder.ret(self.builder.call(self.shared("dflow_next"), arguments, tail=True))

    def release_objects(self) -> ir.Value:
        return self.builder.call(self.shared("dflow_release"), [self.objects, self.count])

    # --- small words

    def shared(self, name: str) -> ir.Function:
        return trampoline.shared(self.module, name)

    def describe(self, leaf: Leaf) -> list[ir.Value]:
        """NumPy's words for the type of an array: dtype, rank, and the shape as a constant in memory."""
        descr, rank = data(self.module, f"{leaf.symbol}_descr"), ir.Constant(I32, len(leaf.shape))
        if not leaf.shape:
            return [descr, rank, NULL]
        name = "dflow_dims_" + "x".join(map(str, leaf.shape))
        dims = self.module.globals.get(name)
        if dims is None:
            typ = ir.ArrayType(I64, len(leaf.shape))
            dims = ir.GlobalVariable(self.module, typ, name)
            dims.initializer, dims.global_constant, dims.linkage = ir.Constant(typ, list(leaf.shape)), True, "internal"
        return [descr, rank, dims]

    def element(self, start: ir.Value, t: ir.Type | None, k: int | ir.Value) -> ir.Value:
        """The address of element ``k`` of memory for elements of type ``t``."""
        return self.builder.gep(start, [ir.Constant(I64, k) if isinstance(k, int) else k], True, source_etype=t)

    def repeat(self, count: int, body: Callable[[ir.Value], object]) -> None:
        """``body(k)`` for k = 0 ... count - 1, written out where these are few."""
        if count <= FEW:
            for n in range(count):
                body(ir.Constant(I64, n))
            return
        b, before = self.builder, self.builder.block
        round_, done = (self.entry.append_basic_block(name) for name in ("round", "done"))
        b.branch(round_)
        b.position_at_end(round_)
        k = b.phi(I64)
        body(k)
        following = b.add(k, ir.Constant(I64, 1))
        for v, block in ((ir.Constant(I64, 0), before), (following, b.block)):
            k.add_incoming(v, block)
        b.cbranch(b.icmp_unsigned("<", following, ir.Constant(I64, count)), round_, done)
        b.position_at_end(done)

    def equal(self, a: ir.Value, b: ir.Value) -> ir.Value:
        return self.builder.icmp_unsigned("==", a, b)

    def type_of(self, arg: ir.Value) -> ir.Value:
        return field(self.builder, arg, pyabi.OB_TYPE, PTR)

    def require_type(self, arg: ir.Value, symbol: str) -> None:
        self.require(self.equal(self.type_of(arg), data(self.module, symbol)))

    def require(self, condition: ir.Value, otherwise: ir.Block | None = None) -> None:
        """Go on where `condition` holds, else leave through `otherwise` (the mismatch)."""
        going_on = self.entry.append_basic_block("then")
        self.builder.cbranch(condition, going_on, otherwise or self.mismatch)
        self.builder.position_at_end(going_on)

    def hold(self, made: ir.Value, slot: ir.Value) -> ir.Value:
        """Keep the new reference `made`, or leave when it could not be made."""
        self.builder.store(made, slot)
        self.require(self.builder.icmp_unsigned("!=", made, NULL), self.failed)
        return made

    def either(
        self, condition: ir.Value, if_true: Callable[[], ir.Value], if_false: Callable[[], ir.Value]
    ) -> ir.Value:
        """The value of one of two pieces of code."""
        blocks = [self.entry.append_basic_block(name) for name in ("yes", "no")]
        after = self.entry.append_basic_block("after")
        self.builder.cbranch(condition, *blocks)
        ways = []
        for block, write in zip(blocks, (if_true, if_false)):
            self.builder.position_at_end(block)
            ways.append((write(), self.builder.block))
            self.builder.branch(after)
        self.builder.position_at_end(after)
        chosen = self.builder.phi(ways[0][0].type)
        for value, block in ways:
            chosen.add_incoming(value, block)
        return chosen
