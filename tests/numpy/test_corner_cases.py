"""Corners of NumPy's interface, against NumPy: what its own test suite asks for."""

import warnings

import numpy as np
import pytest
import scipy.signal
import scipy.special

import dflow
from dflow.errors import DflowError

A = np.arange(9.0).reshape(3, 3)
BOX = np.array([[0, 0, 0, 0], [0, 2, 0, 0], [0, 0, 3, 0], [0, 0, 0, 0.0]])
Z = np.array([complex(0, np.nan), 1 + 1j, np.inf, complex(1, np.inf), 0])


def stored(x, holds):
    x[holds] = 5.0
    return x


def filled(x):
    np.fill_diagonal(x, 4.0, wrap=True)
    return x


CASES = {
    "truth values as indices": (
        lambda x, yes, no: (x[yes], x[no], x[0, yes], x[..., yes], x[1, True, :2], x[True, [0, 1]], x[None, True, 1]),
        (A, np.True_, np.False_),
    ),
    "truth value of a number": (lambda x, yes: x[yes], (np.float64(3), True)),
    "storing where it holds": (lambda x, yes: stored(x, yes), (A, np.True_)),
    "storing where it does not": (lambda x, no: stored(x, no), (A, np.False_)),
    "cross products in a plane": (lambda x: (np.cross(x[:, :2], x[:, 1:]), np.cross(x[:, :2], x)), (A,)),
    "bounds beyond the dtype": (lambda x: np.clip(x, -5, 300), (np.arange(5, dtype=np.uint8),)),
    "dtype of multigammaln": (lambda x: 0 * scipy.special.multigammaln(x, 2), (np.float32([4.5, 3.0]),)),
    "Python's numbers in lists": (
        lambda x, y: (np.sum([x[0], y]), np.sin([x[0], 0.5]), np.maximum.reduce([x[1], 2]), np.dot([x[0], y], x)),
        (np.float32([1.5, 0.3]), 2.1),
    ),
    "small integers in lists": (lambda x: np.multiply.outer([x[0], 100], x), (np.int8([3, 7]),)),
    "close in single precision": (
        lambda x: (np.isclose(x, 2, atol=0, rtol=0.4999999999999999), np.isclose(x, 2.0, rtol=0.4999999999999999)),
        (np.float32([1.0, 3.0]),),
    ),
    "all bits of nothing": (
        lambda x, y: (np.bitwise_and.reduce(x), np.bitwise_and.reduce(y)),
        (np.uint8([]), np.int8([])),
    ),
    "truth values in arithmetic": (
        lambda x, y: (x // y, x % y, x << y, x >> y, x[0] // y[0], np.convolve(x, y), np.correlate(x, y, "full")),
        (np.array([True, False]), np.array([True, True])),
    ),
    "a narrow quantile": (lambda x, q: np.quantile(x, q), (np.int8([3, 7, 9]), np.float32(0.3))),
    "weak choices": (lambda x: np.choose(x, (np.arange(3, dtype=np.int32), -2, 4)), (np.array([0, 1, 2]),)),
    "complex order and signs": (lambda z: (z < 1, z >= 0, np.sign(z), np.nan_to_num(z)), (Z,)),
    "powers of complex zero": (lambda z, w: z**w, (np.zeros(4, complex), np.array([1, 0, 2, 1j]))),
    "complex NaN passed over": (
        lambda z: (np.nansum(z[:2]), np.nanmin(z[:2]), np.nanargmax(z[:2]), np.nanmax(z[:1], initial=3)),
        (Z,),
    ),
    "out of another dtype under a mask": (
        lambda x: np.add(x, x, out=np.full(3, 1.5), where=[1, 0, 1]),
        (np.arange(3),),
    ),
    "out of a larger shape": (lambda x: np.add(x, x, out=np.zeros((2, 3))), (np.arange(3.0),)),
    "an axis of a number": (lambda x: (np.sum(x, axis=0), np.max(x, axis=-1)), (np.float64(2.0),)),
    "correction": (lambda x: (np.nanvar(x, correction=1), np.nanstd(x, axis=0, correction=2)), (A,)),
    "vecmat conjugates": (lambda x: np.vecmat(x[0] * 1j, x * (1 + 1j)), (A,)),
    "condition of nothing": (lambda x: np.linalg.cond(0 * x), (A,)),
    "kinds of sorting": (lambda x: np.sort(-x, kind="heap"), (A,)),
    "places in a number": (lambda x: (np.argwhere(x), np.argwhere(0 * x)), (np.float64(2.0),)),
    "trimmed box": (lambda x: np.trim_zeros(x), (BOX,)),
    "trimmed rows": (lambda x: np.trim_zeros(x, axis=0, trim="f"), (BOX,)),
    "a diagonal that wraps": (filled, (np.zeros((9, 2)),)),
    "numbers in products": (
        lambda x: (
            *(f(x, 0.1) for f in (np.kron, np.dot, np.inner, np.outer)),
            np.tensordot(x, 0.1, 0),
            np.einsum("i,->i", x, 0.1),
            np.searchsorted(x, 0.1, side="right"),
        ),
        (np.full(2, 0.1, np.float32),),
    ),
    "convolution with a number": (lambda x: np.convolve(x, 3.0), (A[1],)),
    "rounding to tens": (lambda x: (np.round(x, -1), np.round(x.astype(np.int8), -1)), (np.array([15, 25, -7, 96]),)),
    "rounding into a wider array": (lambda x: np.round(x, 1, np.zeros(2)), (np.float32([2.25, 2.35]),)),
    "numbers cut to integers": (lambda x: (np.array([x[0, 1] + 0.5, -x[1, 0]], np.int8), np.array([x], int)), (A,)),
    "truth values as numbers": (lambda x: (np.angle(x), abs(x), abs(x[0])), (np.array([True, False]),)),
    "Python's sum of small integers": (lambda x: sum(x), (np.array([100, 100], np.int8),)),
    "the rank of float32": (
        lambda x: np.linalg.lstsq(x, x[0], rcond=None)[2],
        (np.float32([[1, 1], [1, 1 + 1e-7]]),),
    ),
    "sizes in an int32": (lambda n, m: np.ones((n, m)), (np.int16(2), np.int32(3))),
}


VERSION = np.lib.NumpyVersion(np.__version__)
if VERSION >= "2.5.0":
    del CASES["cross products in a plane"]  # NumPy has them no more
if VERSION < "2.2.0":
    for name in ("bounds beyond the dtype", "vecmat conjugates", "trimmed box", "trimmed rows"):
        del CASES[name]  # not yet


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore")
def test_as_numpy_has_it(case):
    function, arguments = CASES[case]

    def copies():
        return [np.copy(x) if np.ndim(x) else x for x in arguments]

    wanted, found = function(*copies()), dflow.jit(function, backend="reference")(*copies())
    both = zip(wanted, found) if isinstance(wanted, tuple) else [(wanted, found)]
    for a, b in both:
        assert np.asarray(a).dtype == np.asarray(b).dtype
        np.testing.assert_allclose(b, a, rtol=1e-13, strict=np.ndim(a) > 0)


REFUSED = {
    "two ellipses": (lambda x: x[..., ...], A, "single ellipsis"),
    "an axis twice": (lambda x: np.tensordot(x, x, ([0, 0], [1, 1])), A, "duplicate axes"),
    "a condition of nothing": (lambda x: np.linalg.cond(x[:0]), A, "not defined on empty arrays"),
    "slopes of truth values": (lambda x: np.gradient(x > 1), A[0], "truth values"),
    "negative bins": (lambda x: np.bincount(x, minlength=-1), np.arange(3), "must not be negative"),
    "a ramp from nothing": (lambda x: np.pad(x, 2, mode="linear_ramp"), np.zeros(0), "can't extend empty axis"),
    "nothing to place": (lambda x: np.place(x, x > 3, []), np.arange(9.0), "empty array"),
    "a mask of another shape": (lambda x: x[np.ones((1, 9), bool)], A, "does not fit"),
    "index arrays that do not fit": (lambda x: x[np.arange(2), np.arange(3)], A, "could not be broadcast"),
    "floats for integers": (lambda x: np.ediff1d(x, to_end=0.5), np.arange(3), "same_kind"),
    "floats for positions": (lambda x: np.ravel_multi_index((x, x), (3, 3)), A[0], "only int indices"),
    "complex places": (lambda x: np.interp(x, [0, 1], [0, 1]), 1j * A, "complex to float64"),
    "complex places among bins": (lambda x: np.digitize(x, [0, 1]), 1j * A, "may not be complex"),
    "differences of truth values": (lambda x: np.ediff1d(x > 1), A, "boolean subtract"),
    "floats to choose by": (lambda x: np.choose(x, [x, -x, x]), A[0], "'safe'"),
    "complex weights": (lambda x: np.bincount(x, 1j * x, minlength=3), np.arange(3), "'safe'"),
    "half a degree of freedom": (lambda x: np.cov(x, ddof=0.5), A, "ddof must be integer"),
    "numbers that are not finite": (lambda x: np.asarray_chkfinite(x / 0.0), A, "infs or NaNs"),
    "a circle of length zero": (lambda x: np.interp(x, x, x, period=x[0]), A[0], "non-zero"),
    "strings": (lambda x: np.add(np.array(["a"]), x), A, "dtype <U1"),
    "an option of few": (lambda x: np.matvec(x, x, axes=[(0, 1)]), A, "axes"),
}


if VERSION < "2.2.0":
    del REFUSED["an option of few"]


@pytest.mark.parametrize("case", REFUSED)
def test_what_numpy_refuses(case):
    function, x, message = REFUSED[case]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises((IndexError, ValueError, TypeError)):
            function(x.copy())
    with pytest.raises(DflowError, match=message):
        dflow.jit(function)(x.copy())


def test_weights_that_sum_to_zero():
    average = dflow.jit(lambda x, w: np.average(x, axis=1, weights=w))
    np.testing.assert_allclose(average(A, np.array([1.0, -1.0, 2.0])), np.average(A, axis=1, weights=[1.0, -1.0, 2.0]))
    with pytest.raises(ZeroDivisionError, match="Weights sum to zero"):
        average(A, np.array([1.0, -1.0, 0.0]))
    with pytest.raises(ZeroDivisionError, match="Weights sum to zero"):
        dflow.grad(lambda w: np.average(A[0], weights=w))(np.array([1.0, -1.0, 0.0]))


def test_functions_of_scipy_are_named_as_they_are_imported():
    for function, name in (
        (scipy.special.hyp2f1, "scipy.special.hyp2f1"),
        (scipy.signal.lfilter, "scipy.signal.lfilter"),
    ):
        with pytest.raises(DflowError, match=rf"{name} is not supported(.|\n)*dflow.scipy.special"):
            dflow.jit(lambda x, function=function: function(x, x, x))(A)


OF_ODD_ARGUMENTS = [
    lambda x: np.eye(3, k=-(2**100)) * x[0] + np.eye(3, k=2**100),
    lambda x: np.roll(x, np.array([1, 3])) + np.roll(x, [2, 2]),
    lambda x: np.polyval(np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]) * x[0], x),
    lambda x: np.argpartition(np.zeros((2, 0)) * x[0], 5, axis=1) + np.partition(np.zeros((2, 0)), 0),
    lambda x: getattr(np, "row_stack", np.vstack)((x, x)),
    lambda x: [x == None, x != None, x[:0] == None],  # noqa: E711
    lambda x: np.array([np.median(x[x > t]) for t in (0.5, 1.5)]),
    lambda x: np.median((10 * x).astype(int)[x > 0.5]) + np.nanmedian(np.where(x > 1.5, x, np.nan)[x > 0.5]),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("f", OF_ODD_ARGUMENTS)
def test_odd_arguments(f):
    x = np.array([3.0, 1.0, 2.0])
    for found, wanted in zip(dflow.jit(f)(x), f(x)) if isinstance(f(x), list) else [(dflow.jit(f)(x), f(x))]:
        np.testing.assert_array_equal(found, wanted)


def test_median_of_unknown_number():
    def median(x):
        return np.median([v for v in x if v > 0.5])

    x = np.array([3.0, 1.0, 0.1, 2.0, np.nan])
    assert dflow.jit(median)(x) == median(x) == 2.0
    np.testing.assert_array_equal(dflow.grad(median)(x), [0, 0, 0, 1, 0])
    assert np.isnan(dflow.jit(lambda x: np.median(x[x < 0]))(x))
    assert np.isnan(dflow.jit(lambda x: np.median(x[~(x < 2)]))(x))


@pytest.mark.parametrize("method", ["linear", "hazen", "lower", "midpoint"])
def test_quantiles_of_unknown_number(method):
    def found(x):
        y = x[x > 0]
        whole = (10 * y).astype(np.int64)
        return np.quantile(y, [0.2, 0.9], method=method), np.percentile(whole, 30, method=method)

    def lowest(x):
        return np.nanquantile(x[~(x < 1)], 0.3, method=method)

    x = np.array([3.0, -1.0, 0.5, 2.0, 1.5])
    with_nan = np.append(x, np.nan)
    for wanted, got in zip(found(x), dflow.jit(found, backend="reference")(x), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-14)
    assert dflow.jit(lowest, backend="reference")(with_nan) == lowest(with_nan)


def test_a_quantile_of_unknown_number():
    def low(x):
        return np.quantile(x[~(x < 1)], 0.3)

    x = np.array([3.0, -1.0, 0.5, 2.0, 1.5])
    np.testing.assert_allclose(dflow.grad(low)(x), [0, 0, 0, 0.6, 0.4], rtol=1e-14)
    assert np.isnan(dflow.jit(low)(np.append(x, np.nan)))
    with pytest.raises(ValueError, match="quantile of no elements"):
        dflow.jit(low)(-np.abs(x))


def test_quantiles_between_infinities():
    x = np.array([np.inf, np.inf, -np.inf, -np.inf, 0.5, -2.0, 4.0, 1.0])
    q = np.array([0.0, 5.0, 50.0, 60.0, 90.0])
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(dflow.jit(np.percentile)(x, q), np.percentile(x, q))
        assert dflow.jit(np.median)(x) == np.median(x)


def test_lists_of_traced_numbers():
    def of_lists(x):
        a, b = [x[0], 1.0], [x[1], 2.0, x[2]]
        joined = np.concatenate([a, b, x]), np.append(a, 3.0), np.convolve(a, b)
        folded = np.add.reduce(a), np.maximum.accumulate(b), np.multiply.outer(a, b)
        return *joined, *folded, np.histogram(b, [0.0, x[0], 9.0])[0], np.argwhere(np.array([0.0, 2.0]))

    def counted(x):
        return np.bincount(np.array([1, 2, 1]), x), np.bincount(np.array([0, 2]), minlength=5)

    x = np.array([3.0, 2.5, 4.0])
    for f in (of_lists, counted):
        for wanted, got in zip(f(x), dflow.jit(f, backend="reference")(x), strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-14)
