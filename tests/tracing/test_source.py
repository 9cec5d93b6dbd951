"""Where the source of a function comes from, and what happens when it is not what runs."""

from __future__ import annotations

import functools
import importlib.util
import linecache
import sys

import numpy as np
import pytest

import dflow
from dflow.errors import TraceError

SOURCE = """\
def positive(x):
    total = 0.0
    for v in x:
        if v > 0:
            total += v
    return total


signs = lambda x: 1.0 if x > 0 else -1.0


def element(x, i):
    return x[i]
"""


def load(path, text):
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_file_that_changes_after_the_import(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    path = tmp_path / "changing.py"
    old = load(path, SOURCE)
    x = np.array([1.0, -2.0, 0.0])
    path.write_text(SOURCE.replace("> 0", "< 0"))
    for run in (lambda: dflow.jit(old.positive)(x), lambda: dflow.grad(old.signs)(1.0)):
        with pytest.raises(TraceError, match=r"changing\.py:\d+: the source of .* is not what Python runs"):
            run()
    new = load(path, SOURCE.replace("> 0", "< 0"))
    assert dflow.jit(new.positive)(x) == -2.0
    path.write_text(SOURCE)
    assert dflow.jit(load(path, SOURCE).positive)(x) == 1.0


def test_a_file_that_is_no_longer_python(tmp_path):
    path = tmp_path / "broken.py"
    module = load(path, SOURCE)
    path.write_text("def positive(x:\n")
    with pytest.raises(TraceError, match="has changed since it was imported"):
        dflow.jit(module.positive)(np.ones(2))


def test_two_files_with_the_same_text(tmp_path):
    first, second = (load(tmp_path / f"{name}.py", SOURCE) for name in ("first", "second"))
    for module in (first, second):
        assert dflow.jit(module.positive)(np.array([1.0, -2.0])) == 1.0
        with pytest.raises(IndexError, match=rf"/{module.__name__}\.py:13"):
            dflow.jit(module.element)(np.ones(2), 5)
        with pytest.raises(IndexError, match=rf"/{module.__name__}\.py:13"):
            dflow.jit(lambda x, module=module: module.element(x, 5))(np.ones(2))


def test_cells_of_a_notebook():
    x = np.array([1.0, -2.0, 3.0])
    for name, text, result in (
        ("<ipython-input-1-abc>", SOURCE, 4.0),
        ("/tmp/ipykernel_12/345.py", SOURCE.replace("> 0", "< 0"), -2.0),
        ("<string without source>", SOURCE, None),
    ):
        if result is not None:
            linecache.cache[name] = (len(text), None, text.splitlines(True), name)
        cell = {}
        exec(compile(text, name, "exec"), cell)
        if result is None:
            with pytest.raises(TraceError, match="a function whose source is a file"):
                dflow.jit(cell["positive"])(x)
        else:
            assert dflow.jit(cell["positive"])(x) == result
            del linecache.cache[name]


def test_functions_that_wrap_others():
    def doubled(f):
        @functools.wraps(f)
        def wrapper(*args, **kwargs):
            return 2.0 * f(*args, **kwargs)

        return wrapper

    @dflow.jit
    @doubled
    @doubled
    def f(x, limit=2.0):
        return x if x > limit else -x

    assert (f(3.0), f(1.0), f(1.0, limit=0.0)) == (12.0, -4.0, 4.0)
    assert (f.__name__, f.__wrapped__(3.0)) == ("f", 12.0)


@functools.lru_cache
def cached(x):
    return 3.0 * x


def test_functions_with_a_cache():
    assert dflow.grad(lambda x: cached(x) * cached(2.0))(1.0) == 18.0
