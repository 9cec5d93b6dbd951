"""Derivatives of every operation and of control flow: against numeric ones, reverse against forward, order two."""

import numpy as np
import pytest

import dflow.ir.ops  # noqa: F401
from dflow.ir.builder import Builder
from dflow.ir.core import Function
from dflow.ir.evaluator import evaluate
from dflow.ir.passes.dce import dce
from dflow.ir.passes.jvp import differentiable, jvp
from dflow.ir.passes.linearize import linearize
from dflow.ir.passes.transpose import transpose
from dflow.ir.passes.vjp import value_and_grad, vjp
from dflow.ir.registry import OPS, NoDerivativeError, OpTypeError, Sample
from dflow.ir.types import BOOL, F64, FLOATS, I64, TensorType, scalar, type_of_array

AT = ("at",)
REAL = scalar(F64)
INDEX = scalar(I64)


# -- the checks ----------------------------------------------------------------------------------------------------


def directions(f: Function, args, wrt, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=np.shape(args[i])).astype(np.asarray(args[i]).dtype) for i in wrt]


def numeric_tangents(f, args, wrt, dots, step=1e-6):
    def at(sign):
        moved = [np.array(a) for a in args]
        for i, d in zip(wrt, dots):
            moved[i] = moved[i] + sign * step * d
        return evaluate(f, moved)

    ys = differentiable(f.results)
    high, low = at(1), at(-1)
    return [(high[i] - low[i]) / (2 * step) for i in ys]


def check_first(f, args, wrt, rtol=1e-6):
    """Forward against numeric, reverse against forward, linearize and its transpose against both."""
    dots = directions(f, args, wrt)
    ys = differentiable(f.results)
    forward = evaluate(jvp(f, wrt), [*args, *dots])
    plain = evaluate(f, args)
    for a, b in zip(forward, plain):
        np.testing.assert_array_equal(a, b)
    tangents = forward[len(f.results) :]
    for t, n in zip(tangents, numeric_tangents(f, args, wrt, dots)):
        np.testing.assert_allclose(t, n, rtol=rtol, atol=1e-7)
    bars = directions(f, list(plain), ys, seed=1)
    back = evaluate(vjp(f, wrt), [*args, *bars])[len(f.results) :]
    inner = sum(np.sum(x * d) for x, d in zip(back, dots))
    np.testing.assert_allclose(inner, sum(np.sum(t * b) for t, b in zip(tangents, bars)), rtol=1e-9, atol=1e-12)
    primal, linear = linearize(f, wrt)
    residuals = evaluate(primal, args)[len(f.results) :]
    for a, b in zip(evaluate(linear, [*residuals, *dots]), tangents):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
    for a, b in zip(evaluate(transpose(linear), [*residuals, *bars]), back):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def gradient_of(f: Function, wrt) -> Function:
    """A scalar function of the gradient of ``f`` (summed over its results), for checks of the second order."""
    b = Builder(f.arg_types)
    total = None
    for r in [b.inline(f.body, b.args)[i] for i in differentiable(f.results)]:
        s = b.reduce(b.sin(r), kind="sum", axes=tuple(range(r.type.rank))) if r.type.rank else b.sin(r)
        total = s if total is None else b.add(total, s)
    g = value_and_grad(b.function("scalar", [total]), wrt)
    return dce(Function("gradient", type(g.body)(g.body.args, g.body.ops, g.body.results[1:])))


def check_both_orders(f, args, wrt, rtol=1e-5):
    check_first(f, args, wrt, rtol)
    check_first(gradient_of(f, wrt), args, wrt, rtol)


# -- every operation -------------------------------------------------------------------------------------------------


def one_op(name: str, sample: Sample, dtype):
    """A function of one operation, and its arguments at the sample."""
    args = [np.asarray(x) for x in sample.operands]
    args = [
        a.astype(np.bool_ if a.dtype == bool else np.int64) if i in sample.integer else a.astype(dtype.numpy)
        for i, a in enumerate(args)
    ]
    b = Builder([type_of_array(a) for a in args])
    return b.function(name, b.append(name, b.args, sample.attrs)), args


def rows():
    for name, op in OPS.items():
        for k, sample in enumerate(op.samples):
            yield pytest.param(name, sample, id=f"{name}-{k}")


@pytest.mark.parametrize("name, sample", list(rows()))
def test_operation(name, sample):
    op = OPS[name]
    if not any(d in FLOATS for d in op.dtypes):
        return
    try:
        f, args = one_op(name, sample, F64)
    except OpTypeError:  # a sample of other dtypes
        return
    wrt = differentiable(f.args)
    if not differentiable(f.results):
        jvp(f)  # a result that cannot vary has no tangent, and asking for the others is no error
        return
    if op.jvp is None:
        assert op.no_derivative, f"{name} has neither a derivative nor a reason"
        with pytest.raises(NoDerivativeError, match=name):
            jvp(f)
        return
    if not sample.smooth or not wrt or sample.attrs.get("dtype", F64) != F64:
        return  # numeric derivatives need smooth functions and 64 bits
    check_first(f, args, wrt)
    check_both_orders(f, args, wrt)


KINKS = [
    ("abs", [0.0], [0.0]),
    ("max", [1.0, 1.0], [0.5, 0.5]),
    ("min", [2.0, 2.0], [0.5, 0.5]),
    ("pow", [0.0, 2.0], [0.0, 0.0]),
    ("pow", [3.0, 0.0], [0.0, np.log(3.0)]),
    ("pow", [0.0, 0.0], [0.0, 0.0]),
    ("pow", [-2.0, 3.0], [12.0, np.nan]),
    ("sign", [0.0], [0.0]),
    ("floor", [2.0], [0.0]),
    ("sqrt", [0.0], [np.inf]),
    ("rem", [5.0, 2.0], [1.0, -2.0]),
]


@pytest.mark.parametrize("name, point, slopes", KINKS)
def test_kink(name, point, slopes):
    b = Builder([REAL] * len(point))
    f = b.function(name, [b.emit(name, *b.args)])
    grads = evaluate(value_and_grad(f), [np.float64(p) for p in point])[1:]
    np.testing.assert_allclose(grads, slopes)


def test_extrema_share_the_derivative():
    b = Builder([TensorType(F64, (4,))])
    f = b.function("f", [b.reduce(b.args[0], kind="max", axes=(0,))])
    np.testing.assert_allclose(evaluate(value_and_grad(f), [np.array([3.0, 1.0, 3.0, 2.0])])[1], [0.5, 0, 0.5, 0])


def test_product_with_zeros_to_order_two():
    b = Builder([TensorType(F64, (3,))])
    f = b.function("f", [b.reduce(b.args[0], kind="prod", axes=(0,))])
    check_both_orders(f, [np.array([0.0, 2.0, 0.0])], [0])
    check_both_orders(f, [np.array([0.0, 2.0, 3.0])], [0])


def test_the_derivative_of_a_square_is_one_product():
    b = Builder([REAL])
    (x,) = b.args
    f = b.function("f", [b.mul(x, x)])
    check_both_orders(f, [np.float64(-1.5)], [0])
    assert str(dce(jvp(f, [0]))).count(" mul ") == 3
    assert " add " not in str(vjp(f, [0]))


@pytest.mark.parametrize(("numerator", "divisions"), [(1.0, 1), (2.0, 2)])
def test_the_derivative_of_a_reciprocal_divides_no_more(numerator, divisions):
    b = Builder([TensorType(F64, (3,))])
    f = b.function("f", [b.div(b.full(numerator, b.args[0].type), b.args[0])])
    check_both_orders(f, [np.array([-0.5, 2.0, 3.0])], [0])
    assert str(jvp(f, [0])).count(" div ") == divisions


def test_scatter_gives_the_cotangent_to_the_last_writer():
    b = Builder([TensorType(F64, (3,)), TensorType(F64, (2,)), TensorType(I64, (2,))])
    x, v, i = b.args
    f = b.function("f", [b.reduce(b.scatter(x, v, i), kind="sum", axes=(0,))])
    out = evaluate(value_and_grad(f, [0, 1]), [np.ones(3), np.ones(2), np.array([1, 1])])
    np.testing.assert_array_equal(out[1], [1, 0, 1])
    np.testing.assert_array_equal(out[2], [0, 1])


# -- control flow ----------------------------------------------------------------------------------------------------

N = 5
VECTOR = TensorType(F64, (N,))
POINT = np.random.default_rng(1).normal(size=N) * 0.5


def recurrence(kind: str) -> Function:
    """y[i+1] = sin(y[i]) + x[i+1] * x[n-2-i], written element by element."""
    b = Builder([VECTOR, INDEX], ["x", "n"])
    x, n = b.args
    y = b.update(b.zeros(VECTOR), b.extract(x, b.index(0), index=AT), b.index(0), index=AT)
    count = n if kind != "static" else b.index(N - 1)

    def body(b, k, y):
        i = b.add(k, 1)
        product = b.mul(b.extract(x, i, index=AT), b.extract(x, b.sub(N - 1, i), index=AT))
        return [b.update(y, b.add(b.sin(b.extract(y, k, index=AT)), product), i, index=AT)]

    if kind == "while":
        _, y = b.while_loop(
            [b.index(0), y], lambda b, k, y: b.lt(k, count), lambda b, k, y: [b.add(k, 1), *body(b, k, y)]
        )
    else:
        (y,) = b.for_loop(count, [y], body)
    return b.function("recurrence", [b.reduce(b.mul(y, y), kind="sum", axes=(0,))])


@pytest.mark.parametrize("kind", ["static", "traced", "while"])
@pytest.mark.parametrize("n", [0, 1, N - 1])
def test_recurrence(kind, n):
    check_both_orders(recurrence(kind), [POINT, np.int64(n)], [0])


def nest(outer: str, inner: str) -> Function:
    """Loops within loops with a branch inside; counts static, traced, or different in each outer iteration."""
    b = Builder([VECTOR, REAL, INDEX], ["x", "a", "n"])
    x, a, n = b.args

    def step(b, j, t):
        u = b.extract(x, j, index=AT)
        (w,) = b.if_(
            b.gt(b.mul(u, t), 0.05),
            lambda b: [b.mul(b.sin(t), b.exp(b.mul(0.1, u)))],
            lambda b: [b.add(b.cos(u), b.mul(a, t))],
        )
        return [b.tanh(b.add(w, b.mul(t, 0.5)))]

    def row(b, i, s):
        t = b.mul(s, a)
        if inner == "while":
            _, t = b.while_loop(
                [b.index(0), t],
                lambda b, j, t: b.and_(b.lt(j, 4), b.lt(b.mul(t, t), 0.7)),
                lambda b, j, t: [b.add(j, 1), *step(b, j, t)],
            )
        else:
            count = b.index(3) if inner == "static" else b.rem(b.add(i, 2), 4)
            (t,) = b.for_loop(count, [t], step)
        return [b.add(t, b.mul(s, s))]

    count = b.index(3) if outer == "static" else n
    (r,) = b.for_loop(count, [b.extract(x, b.index(0), index=AT)], row)
    return b.function("nest", [b.mul(r, r)])


@pytest.mark.parametrize("outer", ["static", "traced"])
@pytest.mark.parametrize("inner", ["static", "traced", "while"])
def test_nest(outer, inner):
    check_both_orders(nest(outer, inner), [POINT, np.float64(0.8), np.int64(3)], [0, 1])


def test_loop_in_a_branch_in_a_loop():
    b = Builder([REAL, INDEX], ["x", "n"])
    x, n = b.args

    def row(b, i, s):
        return b.if_(
            b.eq(b.rem(i, 2), 0),
            lambda b: b.for_loop(i, [s], lambda b, j, t: [b.add(b.sin(t), x)]),
            lambda b: [b.mul(s, x)],
        )

    (r,) = b.for_loop(n, [x], row)
    check_both_orders(b.function("f", [r]), [np.float64(0.7), np.int64(5)], [0])


def test_three_loops_deep():
    b = Builder([REAL, INDEX], ["x", "n"])
    x, n = b.args

    def loop(b, depth, s):
        count = n if depth == 1 else b.index(2)
        if depth == 0:
            return b.mul(b.sin(s), x)
        return b.for_loop(count, [s], lambda b, k, t: [b.add(loop(b, depth - 1, t), b.cos(t))])[0]

    check_both_orders(b.function("f", [loop(b, 3, x)]), [np.float64(0.4), np.int64(2)], [0])


def test_carried_values_that_swap():
    b = Builder([REAL, REAL, INDEX])
    x, y, n = b.args
    p, q = b.for_loop(n, [x, y], lambda b, k, p, q: [b.mul(q, q), b.sin(p)])
    check_both_orders(b.function("f", [b.mul(p, q)]), [np.float64(0.7), np.float64(1.2), np.int64(3)], [0, 1])


def test_overwritten_values():
    b = Builder([VECTOR])
    (x,) = b.args
    i = b.index(2)
    a = b.extract(x, i, index=AT)
    y = b.update(x, b.mul(a, a), i, index=AT)
    z = b.update(y, b.sin(b.extract(y, i, index=AT)), i, index=AT)
    check_both_orders(b.function("f", [b.reduce(b.mul(z, x), kind="sum", axes=(0,))]), [POINT], [0])


def test_third_order():
    b = Builder([REAL, INDEX])
    x, n = b.args
    (r,) = b.for_loop(n, [x], lambda b, k, t: [b.mul(b.sin(t), x)])
    f = b.function("f", [r])
    check_both_orders(gradient_of(f, [0]), [np.float64(0.9), np.int64(3)], [0])


def test_inactive_code_gets_no_tangents():
    b = Builder([REAL, REAL])
    x, y = b.args
    f = b.function("f", [b.add(b.mul(x, 2.0), b.exp(b.sin(y)))])
    text = str(jvp(f, [0]))
    assert text.count("exp") == 1
    assert "cos" not in text


def test_a_run_of_products_under_a_mask_is_selected_once():
    """What ``where`` did not choose stays zero beside infinite factors: the last product is selected, not each."""
    b = Builder([scalar(BOOL), REAL, REAL, REAL], ["p", "x", "c", "d"])
    p, x, c, d = b.args
    y = b.select(p, b.mul(c, b.neg(b.mul(d, x))), b.mul(x, x))
    f = Function("f", b.finish([y]))
    g = dce(vjp(f, [1]))
    assert [op.name for op in g.body.ops].count("select") == 3  # of y, and of each choice's cotangent
    for holds, factor, slope in ((True, 2.0, -6.0), (False, 2.0, 10.0), (False, np.inf, 10.0)):
        assert evaluate(g, [np.bool_(holds), 5.0, factor, 3.0, 1.0])[1] == slope
