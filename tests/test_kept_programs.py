"""Programs on disk: found by other processes without tracing, as long as nothing that tracing looks at has changed."""

import dataclasses
import os
import sys
import types
import warnings

import numpy as np
import pytest

import dflow
import dflow.numpy as dnp
from dflow import trees
from dflow.backends.native import object_cache
from dflow.numpy import eager
from dflow.programs import sharing, transform
from dflow.transforms import custom

X = np.linspace(0.5, 2.0, 4)


@pytest.fixture
def traced(tmp_path, monkeypatch):
    """The names of the functions that are traced, with a cache of their own."""
    monkeypatch.setenv("DFLOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DFLOW_CHECK", raising=False)  # which wants to see all stages
    monkeypatch.setattr(custom, "registered", [])  # by other tests of this process
    seen = []
    plain = transform.trace_program

    def trace_program(function, arguments):
        seen.append(arguments.function.__name__)
        return plain(function, arguments)

    monkeypatch.setattr(transform, "trace_program", trace_program)
    return seen


def in_new_process(source, **names):
    """The functions of a script, made anew, as a process does that has just begun; names beside them."""
    sharing.PROGRAMS.clear()
    path = os.path.join(os.path.dirname(os.environ["DFLOW_CACHE"]), "script.py")
    with open(path, "w") as file:
        file.write(source)
    module = types.ModuleType("__main__")
    vars(module).update(np=np, dflow=dflow, __file__=path, **names)
    exec(compile(source, path, "exec"), vars(module))
    return module


LOSS = """
def loss(p, x):
    total = 0.0
    for v in x:
        if v > p["shift"]:
            total += np.sin(v * p["scale"])
    return total
"""
P = {"scale": 2.0, "shift": 1.0}


TRANSFORMED = {
    "jit": dflow.jit,
    "grad": lambda f: dflow.grad(f, argnums=1),
    "value_and_grad": lambda f: dflow.value_and_grad(f, argnums=1),
    "jit of hessian": lambda f: dflow.jit(dflow.hessian(f, argnums=1)),
}


@pytest.mark.parametrize("name", TRANSFORMED)
def test_the_next_process_does_not_trace(traced, name):
    found = [TRANSFORMED[name](in_new_process(LOSS).loss)(P, X) for _ in range(3)]
    for again in found[1:]:
        for a, b in zip(trees.flatten(found[0])[0], trees.flatten(again)[0]):
            np.testing.assert_array_equal(a, b)
    assert len(traced) == len(found) - 2


SCRIPTS = {
    "results": "def f(x):\n    return {'a': x[0], 'b': [x * 2, (x,)]}",
    "nothing": "def f(x):\n    x[0] = 7.0",
    "update": "def f(x):\n    x *= 2.0\n    return x.sum()",
    "sizes": "def f(x):\n    return x[x > 1.0], 1.0",
    "solve": "def f(x):\n    return np.linalg.solve(np.diag(x) + 1.0, x)",
    "error": "def f(x):\n    return x[int(x[3] * 4)]",
    "keyword": "def f(x, *, n=3):\n    return x * n",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_comes_back(traced, name):
    def run(f):
        x = X.copy()
        try:
            return f(x), x
        except IndexError as e:
            return str(e), x

    plain = in_new_process(SCRIPTS[name]).f
    first, again = (run(dflow.jit(in_new_process(SCRIPTS[name]).f)) for _ in range(2))
    for mine in (first, again):
        wanted = first if name == "error" else run(plain)
        assert trees.flatten(mine)[1] == trees.flatten(wanted)[1]
        for m, w in zip(trees.flatten(mine)[0], trees.flatten(wanted)[0]):
            assert m == w if isinstance(w, str) else np.allclose(m, w)
    assert len(traced) == 1


CHANGES = {
    "code": ("def f(x):\n    return x * 2.0", "def f(x):\n    return x * 3.0"),
    "a called function": (
        "def g(x): return x + 1\ndef f(x): return g(x)",
        "def g(x): return x + 2\ndef f(x): return g(x)",
    ),
    "a global": ("k = 2.0\ndef f(x): return k * x", "k = 2\ndef f(x): return k * x"),
    "a sign of zero": ("k = 0.0\ndef f(x): return k * x", "k = -0.0\ndef f(x): return k * x"),
    "an array": ("k = np.arange(4.0)\ndef f(x): return k * x", "k = np.arange(1.0, 5)\ndef f(x): return k * x"),
    "an attribute": ("def f(x): return f.k * x\nf.k = 2.0", "def f(x): return f.k * x\nf.k = 3.0"),
    "a default": ("def f(x, k=2.0): return k * x", "def f(x, k=3.0): return k * x"),
    "a method": (
        "class A:\n    def g(self, x): return x * 2\na = A()\ndef f(x): return a.g(x)",
        "class A:\n    def g(self, x): return x * 3\na = A()\ndef f(x): return a.g(x)",
    ),
    "an object": (
        "class A: pass\na = A()\na.k = 2.0\ndef f(x): return a.k * x",
        "class A: pass\na = A()\na.k = 3.0\ndef f(x): return a.k * x",
    ),
    "the line": ("def f(x): return x[7]", "\ndef f(x): return x[7]"),
    "a rule of a derivative": tuple(
        "@dflow.custom_jvp\ndef g(x): return x * 2.0\n"
        f"@g.defjvp\ndef rule(p, t): return g(*p), t[0] * {k}\ndef f(x): return dflow.grad(g)(x)"
        for k in (2.0, 3.0)
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_has_changed_is_traced_again(traced, name):
    for source in CHANGES[name]:
        f = in_new_process(source).f
        x = 1.5 if name != "the line" else X
        try:
            assert repr(np.asarray(dflow.jit(f)(x))) == repr(np.asarray(f(x)))
        except IndexError as e:
            assert f"script.py:{source.count(chr(10)) + 1}" in str(e)
    assert traced.count("f") == 2


OUTSIDE = {
    "a file": "def f(x): return np.loadtxt(place) * x",
    "the environment": "import os\ndef f(x): return float(os.environ['SCALE']) * x",
    "a module found by its name": "def f(x):\n    import my_settings\n    return my_settings.scale * x",
    "a name made while running": "import my_settings as s\ndef f(x): return getattr(s, 'sc' + 'ale') * x",
    "an enumeration": "import enum\nclass A(enum.Enum):\n    K = 2.0\ndef f(x): return scale_of(A.K) * x",
    "an argument's class": "def f(x): return x.scale * scale",
}


@dataclasses.dataclass
class Scaled:
    scale: float


@pytest.mark.parametrize("name", OUTSIDE)
def test_what_is_not_known_by_value_is_traced_always(traced, name, tmp_path, monkeypatch):
    for scale in (2.0, 3.0):
        (tmp_path / "table.txt").write_text(f"{scale}")
        monkeypatch.setenv("SCALE", f"{scale}")
        settings = types.ModuleType("my_settings")
        settings.scale = scale
        monkeypatch.setitem(sys.modules, "my_settings", settings)
        names = {"place": str(tmp_path / "table.txt"), "scale_of": lambda k, scale=scale: scale, "scale": 1.0}
        f = in_new_process(OUTSIDE[name], **names).f
        x = 1.5 if name != "an argument's class" else Scaled(scale * 1.5)
        assert dflow.jit(f)(x) == scale * 1.5


def test_a_module_of_the_users_counts_by_what_is_used_of_it(traced, monkeypatch):
    for scale, other in ((2.0, 1.0), (2.0, 2.0), (3.0, 2.0)):
        settings = types.ModuleType("my_settings")
        settings.scale, settings.other = scale, other
        monkeypatch.setitem(sys.modules, "my_settings", settings)
        f = in_new_process("import my_settings as s\ndef f(x): return s.scale * x").f
        assert dflow.jit(f)(1.5) == scale * 1.5
    assert len(traced) == 2


def test_a_warning_is_given_in_every_process(traced):
    for _ in range(2):
        with pytest.warns(dflow.errors.ZeroGradientWarning):
            dflow.grad(in_new_process("def f(x): return np.floor(x) + 1.0").f)(1.5)


def test_a_rule_for_a_function_not_ours_counts(traced, monkeypatch):
    source = "def g(x): return x * 2.0\ndef f(x): return g(x)"
    assert dflow.grad(in_new_process(source).f)(1.5) == 2.0
    module = in_new_process(source)
    dflow.register_jvp(module.g, lambda p, t: (p[0] * 2.0, t[0] * 5.0))
    try:
        assert dflow.grad(module.f)(1.5) == 5.0
    finally:
        custom.registered.clear()


def test_stages_are_traced_when_asked_for(traced):
    for _ in range(2):
        f = dflow.jit(in_new_process(LOSS).loss)
        f(P, X)
    assert len(traced) == 1
    assert "sin" in f.lower(P, X).ir() and len(traced) == 2


def test_an_entry_without_its_machine_code(traced):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            dflow.jit(in_new_process(LOSS).loss)(P, X)
            for path in object_cache.folder().iterdir():
                if b'"code"' not in path.read_bytes():
                    path.unlink()
    assert len(traced) == 2


def test_calls_that_are_compiled_one_by_one(traced, monkeypatch):
    """What is made for a call has the name of NumPy's function, and is not that."""
    monkeypatch.setenv("DFLOW_EAGER", "compile")
    for value in (1.5, 2.5):
        sharing.PROGRAMS.clear()
        eager._programs.clear()
        assert dnp.full((2,), value).tolist() == [value, value]
