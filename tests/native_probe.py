"""Native entry points of kernels that copy, behind a callable that says which way a call went."""

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir

from dflow.backends.native import entry, pyabi, result_memory
from dflow.backends.native.callable import NativeCallable
from dflow.backends.native.entry import EntrySpec, Leaf, add_entry

PTR, I32, I64 = ir.PointerType(), ir.IntType(32), ir.IntType(64)
FLOAT, INT, BOOL = (Leaf(dtype, (), True) for dtype in ("f64", "i64", "bool"))


class Probe(NativeCallable):
    """Says which way a call went."""

    def _fallback(self, *args, **kwargs):
        return ("slow", args, kwargs)

    def _on_error(self, entry, status, record, args):
        raise ArithmeticError(entry, status, record, args)


def copy_kernel(module, name, spec, status=0):
    """A kernel that copies argument i to result i, leaves `status` in the error record, and returns it."""
    leaves = [leaf.llvm if leaf.by_value else PTR for leaf in spec.args]
    signature = ir.FunctionType(I32, [*leaves, *[PTR] * (len(spec.results) + 1)])
    kernel = ir.Function(module, signature, name)
    builder = ir.IRBuilder(kernel.append_basic_block())
    for leaf, source, place in zip(spec.args, kernel.args, kernel.args[len(spec.args) :]):
        if not leaf.by_value:
            itemsize = np.dtype(pyabi.ELEMENTS[leaf.dtype].scalar).itemsize
            whole = ir.ArrayType(ir.IntType(8), itemsize * int(np.prod(leaf.shape)))
            source = builder.load(source, typ=whole, align=1)
            builder.store(source, place, align=1)
        else:
            builder.store(source, place)
    if status:
        builder.store(ir.Constant(ir.ArrayType(I64, 4), [status, 20, -30, 40]), kernel.args[-1])
    builder.ret(ir.Constant(I32, status))
    return kernel


def compile_module(module):
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    found = {**entry.symbols(), result_memory.SYMBOL: result_memory.address()}
    for name, address in found.items():
        llvm.add_symbol(name, address)
    parsed = llvm.parse_assembly(str(module))
    parsed.verify()
    engine = llvm.create_mcjit_compiler(parsed, llvm.Target.from_default_triple().create_target_machine())
    engine.finalize_object()
    return engine


def compiled(*specs, status=0):
    """A callable with one copying entry for each spec."""
    module = ir.Module()
    for k, spec in enumerate(specs):
        add_entry(module, copy_kernel(module, f"kernel{k}", spec, status), spec, f"entry{k}")
    engine = compile_module(module)
    made = Probe()
    made._set_entries([engine.get_function_address(f"entry{k}") for k in range(len(specs))], keep=engine)
    return made


def identity(*leaves, single=True, **options):
    return EntrySpec(leaves, leaves, single, **options)


def went_slow(result):
    return isinstance(result, tuple) and len(result) == 3 and result[0] == "slow"


def same(got, want):
    return type(got) is type(want) and got.dtype == want.dtype and np.array_equal(got, want)
