"""Runs one function as plain Python and as a traced program, and compares."""

from __future__ import annotations

import copy
import linecache
import types

import numpy as np
import pytest

from dflow.errors import DflowError
from dflow.ir.evaluator import evaluate
from dflow.ir.types import F64, I64, scalar, type_of_array
from dflow.ir.verifier import verify
from dflow.tracing.control.state import flatten
from dflow.tracing.trace import ArgSpec, trace


def spec(x, hint=None):
    if isinstance(x, bool) or not isinstance(x, int | float):
        return ArgSpec(type_of_array(x), False, hint)
    return ArgSpec(scalar(I64 if isinstance(x, int) else F64), True, hint)


def traced(fn, *args):
    return trace(fn, [spec(a) for a in args])


def run(fn, *args):
    """The leaves of the result, and the arguments after the call, of the traced function."""
    t = traced(fn, *args)
    verify(t.function)
    assert not t.captured
    results = evaluate(t.function, copy.deepcopy(args))
    after = list(copy.deepcopy(args))
    for k, r in t.mutated:
        after[k] = results[r]
    return results[: len(t.outputs)], after


def compare(fn, *args, like=None):
    """Holds the traced function to what Python does, results and updated arguments alike."""
    mine = list(copy.deepcopy(args))
    expected = [x for x in flatten((like or fn)(*mine))[0] if x is not None]
    got, after = run(fn, *args)
    assert len(got) == len(expected)
    for g, e in zip([*got, *after], [*expected, *mine]):
        np.testing.assert_allclose(np.asarray(g), np.asarray(e), rtol=1e-13)
        assert np.shape(g) == np.shape(e)
        if not isinstance(e, int | float) or isinstance(e, np.generic):
            assert np.asarray(g).dtype == np.asarray(e).dtype


@pytest.fixture
def check():
    return compare


@pytest.fixture
def ops():
    """The names of the operations of a traced function, with those inside."""
    from dflow.ir.core import walk

    return lambda fn, *args: [op.name for op in walk(traced(fn, *args).function.body)]


@pytest.fixture
def fails():
    """The message of the error that tracing raises."""

    def message(fn, *args, kind=DflowError):
        with pytest.raises(kind) as e:
            traced(fn, *args)
        return str(e.value)

    return message


@pytest.fixture
def module():
    """A module from source text, as if it came from the file ``case.py``."""

    def make(source, name="case.py"):
        lines = source.splitlines(keepends=True)
        linecache.cache[name] = (len(source), None, lines, name)
        m = types.ModuleType("case")
        exec(compile(source, name, "exec"), m.__dict__)
        return m

    return make
