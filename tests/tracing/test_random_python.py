"""Programs of Python made at random: right or refused, forward as reverse."""

import linecache

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from random_python import N, Writer, function

import dflow
from dflow.errors import DflowError
from dflow.ir.evaluator import evaluate
from dflow.ir.types import F64, I64, TensorType, scalar
from dflow.tracing.trace import ArgSpec, trace

VECTOR = TensorType(F64, (N,))
ARGS = [ArgSpec(VECTOR), ArgSpec(VECTOR), ArgSpec(scalar(I64), True)]
programs = st.randoms(use_true_random=False).map(lambda rng: function(Writer(rng, 2).source()))


@settings(max_examples=12)
@given(programs, st.integers(0, 1000))
def test_values(f, seed):
    try:
        traced = trace(f, ARGS)
    except DflowError as e:
        assert "mend: " in str(e), linecache.cache[f.__code__.co_filename]
        return
    rng = np.random.default_rng(seed)
    for n in (0, 3):
        x, y = rng.normal(size=(2, N))
        np.testing.assert_allclose(evaluate(traced.function, [x, y, n])[0], f(x, y, n), rtol=1e-9, atol=1e-9)


@settings(max_examples=2)
@given(programs, st.integers(0, 1000))
def test_derivatives(f, seed):
    x, y, dx, dy = np.random.default_rng(seed).normal(size=(4, N))
    try:
        slope = dflow.jvp(lambda x, y: f(x, y, 3), (x, y), (dx, dy))[1]
    except DflowError as e:
        assert "mend: " in str(e)
        return
    x_bar, y_bar = dflow.grad(lambda x, y: f(x, y, 3), argnums=(0, 1))(x, y)
    np.testing.assert_allclose(x_bar @ dx + y_bar @ dy, slope, rtol=1e-6, atol=1e-8)
