"""The callable type: which way its calls go, subclasses, methods, attributes, copies."""

import copy
import gc
import importlib.util
import types
import weakref

import pytest
from llvmlite import ir
from native_probe import FLOAT, Probe, compile_module, compiled, copy_kernel, identity, went_slow

from dflow.backends.native import callable as callable_module
from dflow.backends.native import entry, pyabi
from dflow.backends.native.callable import NativeCallable
from dflow.backends.native.entry import add_entry

pytestmark = pytest.mark.skipif(not entry.available(), reason="this interpreter's layouts are not known")


def test_subclasses_dispatch_by_vectorcall():
    class Deeper(Probe):
        pass

    for cls in (NativeCallable, Probe, Deeper):
        assert cls.__flags__ & pyabi.HAVE_VECTORCALL


def test_subclass_with_its_own_call():
    class Own(Probe):
        def __call__(self, *args):
            return ("own", args)

    class Child(Own):
        pass

    assert Own()(1.0) == ("own", (1.0,)) and Child()(1.0) == ("own", (1.0,))


def test_bound_as_a_method():
    class Model:
        step = Probe()

    model = Model()
    assert isinstance(model.step, types.MethodType)
    assert model.step(1.0, k=2) == ("slow", (model, 1.0), {"k": 2})
    assert Model.step is Model.__dict__["step"]


def test_fast_method_call():
    f = compiled(identity(FLOAT))
    assert types.MethodType(f, 2.0)() == 2.0
    assert f.__call__(2.0) == 2.0 and list(map(f, [1.0, 2.0])) == [1.0, 2.0]


def test_attributes_weak_references_and_cycles():
    f = compiled(identity(FLOAT))
    f.myself, f.note = f, "kept"
    assert f.__dict__["note"] == "kept"
    ref = weakref.ref(f)
    del f
    gc.collect()
    assert ref() is None


def test_copying_is_left_to_subclasses():
    class Copied(Probe):
        def __reduce__(self):
            return Copied, ()

    assert went_slow(copy.deepcopy(Copied())(1.0))


def test_created_with_arguments():
    class Jit(Probe):
        def __init__(self, fun, *, name):
            self.fun, self.name = fun, name

        def _fallback(self, *args, **kwargs):
            return self.fun(*args)

    assert Jit(abs, name="abs")(-2) == 2


def test_fallback_may_install_code_for_its_caller():
    spec = identity(FLOAT)
    module = ir.Module()
    add_entry(module, copy_kernel(module, "kernel", spec), spec, "entry")
    engine = compile_module(module)

    class Lazy(Probe):
        def _fallback(self, *args, **kwargs):
            self._set_entry(engine.get_function_address("entry"), keep=engine)
            return "compiled"

    f = Lazy()
    assert [f(1.0), f(2.0)] == ["compiled", 2.0]


def test_without_native_layouts_calls_still_work(monkeypatch):
    """The module as it comes out where the layouts are not known."""
    monkeypatch.setattr(pyabi, "available", lambda: False)
    found = importlib.util.spec_from_file_location("plain_callable", callable_module.__file__)
    plain = importlib.util.module_from_spec(found)
    found.loader.exec_module(plain)

    class Plain(plain.NativeCallable):
        _fallback = Probe._fallback

    f = Plain()
    f._set_entry(0xBAD, keep="engine")
    assert f(1, k=2) == ("slow", (1,), {"k": 2})
    assert not Plain.__flags__ & pyabi.HAVE_VECTORCALL
