"""Python's numbers beside NumPy's: truth values that are counted, powers of complex numbers."""

import math
import warnings

import numpy as np
import pytest

import dflow
from dflow.errors import TraceError


def counted(x, y, b, c, a):
    """Truth values of Python's numbers are 0 and 1; those of arrays are truth values."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        inverted = ~b
    total, last = 0, False
    for k in range(20):
        last = k * x > 9
        total += last
    both = (x > 0) + (y > 0) + (x > y), (x > 0) * (y < 9) + b, b + c + True, b - c, -b, +c + abs(b), inverted
    more = (not b) + (not c), (b and c) + b, (0 < x < 2) + (0 < x < 3), (x in (1.5, 2)) + b, bool(x) + bool(y), b == c
    whole = b**c, divmod(b, True), b << c, b / True, total, last + last
    bits = (x > 0) & b | c, b ^ c, (b & c) + 0, np.array([True, False]) + b, np.array([1, 2], np.int8) * b
    numpy = (a[0] > 0) + (a[1] > 0), np.add(b, c), np.logical_not(b) + np.logical_not(c), np.isnan(x) + np.isnan(y)
    tests = all([b, x > 0]) + b, math.isfinite(x) + b, max(b, c) + b, x.is_integer() + b, np.array_equal(a, a) + b
    items = (
        any(a > 0) + b,
        (a[0] > 0).item() + b,
        (a > 0).tolist()[0] + b,
        np.allclose(a, a) + b,
        any([b, a[0] > 0]) + b,
    )
    return both, more, whole, bits, numpy, tests, items


def flat(x):
    return [part for item in x for part in flat(item)] if isinstance(x, tuple) else [np.asarray(x)]


def test_truth_values_are_counted():
    compiled = dflow.jit(counted)
    for args in ((1.5, 2.5, True, True), (1.5, -2.5, False, True)):
        expected, found = (flat(f(*args, np.array([1.0, 2.0]))) for f in (counted, compiled))
        assert [x.dtype for x in found] == [x.dtype for x in expected]
        assert all(map(np.array_equal, found, expected))


def test_the_only_element_of_a_selection():
    compiled = dflow.jit(lambda x: x[x > 1.5].item())
    assert compiled(np.array([1.0, 2.0, 0.5])) == 2.0
    for x in (np.ones(3), np.array([1.0, 2.0, 3.0])):
        with pytest.raises(ValueError, match="only an array of one element"):
            compiled(x)


def mixed(x, n):
    """Truth values, some of Python and some of NumPy, where both count them alike."""
    total, late, count = 0.0, 0.0, 0
    for v in x:
        total += v
    for i in range(n):
        late += x[i]
        count += late > 1 and n > 2
    a = (x[0] > 0) and (n > 2)
    late_is_small = late < 1
    return int(a) + int(n > 0), a + (x[0] > 0), a + 1, (total > 0) + (total < 9), late_is_small + (x[0] > 0), count


def test_truth_values_of_python_or_of_numpy():
    for n in (0, 3):
        for x in (np.array([1.0, -2.0, 3.0]), -np.ones(3)):
            assert dflow.jit(mixed)(x, n) == pytest.approx(mixed(x, n))


@pytest.mark.parametrize(
    "unclear",
    [
        lambda x, n: ((x > 0) and (n > 2)) + (n > 0),
        lambda x, n: (max(x, 1.0) > 0) + (max(x, 1.0) < 5),
        lambda x, n: -((x > 0) or (n > 2)),
        lambda x, n: (((x > 0) or (n > 2)) == (n > 1)) + (n > 0),
    ],
)
def test_truth_values_of_which_the_run_decides_are_not_counted(unclear):
    with pytest.raises(dflow.errors.TraceError, match="Python's in some runs and NumPy's in others"):
        dflow.jit(unclear)(np.float64(1.0), 3)


def test_truth_values_of_python_and_of_numpy_have_programs_of_their_own():
    compiled = dflow.jit(lambda b, d: b + d["c"])
    for b in (True, np.True_, True, np.True_):
        found = compiled(b, {"c": b})
        assert found == b + b and found.dtype == np.asarray(b + b).dtype


def test_powers_of_complex_numbers():
    def powers(z, n):
        return z**-1, z**-2, z**-3.0, z**0.5, 2**-z, z**n

    z = 0.6 + 0.8j
    assert dflow.jit(powers)(z, -2) == pytest.approx(powers(z, -2))
    assert dflow.grad(lambda z: (z**-1).imag)(z) == pytest.approx(-1j * -(z**-2))
    infinite = np.array([np.inf, np.nan, 0.0]) + 0j
    assert np.array_equal(dflow.jit(np.power)(infinite, np.zeros(3)), np.ones(3))


def test_a_number_repeats_lists_and_multiplies_arrays():
    def repeated(n, truth):
        table = [0.5, 1.5] * (n + 1)
        table[n] += 1.0
        return len(table), sum(table), n * (1, 2), [3] * truth, np.array([1, 2]) * n

    for args in ((2, True), (0, False)):
        expected, found = repeated(*args), dflow.jit(repeated)(*args)
        assert expected[:4] == found[:4] and np.array_equal(expected[4], found[4])
    assert np.array_equal(dflow.jit(lambda x: np.array(x[1]) * [1.0, 2.0])(np.array([1.0, 2.0])), [2.0, 4.0])
    for number in (2.0, np.array(2)):
        with pytest.raises(TraceError, match="a list times a number that is no integer of Python's"):
            dflow.jit(lambda n: [1, 2] * n)(number)
