"""Every ufunc on every dtype that it takes, with broadcasting and Python numbers, against NumPy."""

import numpy as np
import pytest
from traced_numpy import agrees, run, traced

import dflow.numpy as dnp
from dflow.numpy import ufunc_rules

SAMPLES = {
    "f8": [[0.25, -1.5, 3.0], [2.0, 0.5, -0.75]],
    "f4": [[0.25, -1.5, 3.0], [2.0, 0.5, -0.75]],
    "f2": [[0.25, -1.5, 3.0], [2.0, 0.5, -0.75]],
    "i8": [[1, -2, 3], [4, 5, -7]],
    "i4": [[1, -2, 3], [4, 5, -7]],
    "i1": [[1, -2, 3], [4, 5, -7]],
    "u1": [[1, 2, 3], [4, 5, 250]],
    "?": [[True, False, True], [False, False, True]],
}
SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 2.5, -2.5])


def operands(ufunc, kind):
    x = np.array(SAMPLES[kind], kind)
    second = x[::-1, ::-1]
    if ufunc.__name__ in ("power", "left_shift", "right_shift"):
        second = np.abs(second)
    if ufunc.__name__ == "ldexp":
        second = np.array([[1, 2, -3], [0, 4, 5]], "i4")
    if ufunc.__name__ in ("left_shift", "right_shift"):
        second = second % 5
    return (x, np.ascontiguousarray(second))[: ufunc.nin]


def accepts(ufunc, args):
    try:
        with np.errstate(all="ignore"):
            ufunc(*args)
    except TypeError:
        return False
    return True


CASES = [
    (name, kind)
    for name in ufunc_rules.NAMES
    for kind in SAMPLES
    if accepts(getattr(np, name), operands(getattr(np, name), kind))
]


@pytest.mark.parametrize("name, kind", CASES)
def test_ufunc(name, kind):
    ufunc = getattr(np, name)
    args = operands(ufunc, kind)
    agrees(ufunc, *args)
    if ufunc.nin == 2:
        agrees(ufunc, args[0], args[1][0])  # broadcast
        agrees(lambda x: ufunc(x, args[1]), args[0])  # a captured array
        agrees(lambda y: ufunc(args[0][:, :1], y), args[1])


# SciPy's functions are in the table, too, when something has asked for them.
FLOAT = [u for u in (getattr(np, n, None) for n in ufunc_rules.FLOAT) if isinstance(u, np.ufunc)]


@pytest.mark.parametrize("name", [u.__name__ for u in FLOAT if u.nin == 1])
def test_special_values(name):
    agrees(getattr(np, name), SPECIAL)


@pytest.mark.parametrize("name", [u.__name__ for u in FLOAT if u.nin == 2 and u is not np.ldexp])
def test_special_pairs(name):
    x, y = np.meshgrid(SPECIAL, SPECIAL)
    agrees(getattr(np, name), x, y)


@pytest.mark.parametrize("kind", SAMPLES)
@pytest.mark.parametrize("number", [2, 0.5, True])
@pytest.mark.parametrize("ufunc", [np.add, np.multiply, np.divide, np.maximum, np.less, np.arctan2, np.floor_divide])
def test_python_numbers_are_weak(ufunc, number, kind):
    x = np.array(SAMPLES[kind], kind)
    agrees(lambda x: ufunc(x, number), x)
    agrees(lambda x: ufunc(number, x), x)
    if number is not True:
        agrees(ufunc, x, number)  # a traced Python number


@pytest.mark.parametrize("kinds", [("f4", "f8"), ("i4", "f4"), ("i8", "f4"), ("?", "i1"), ("u1", "i1"), ("f2", "i2")])
@pytest.mark.parametrize("ufunc", [np.add, np.multiply, np.divide, np.minimum, np.equal, np.remainder, np.hypot])
def test_promotion(ufunc, kinds):
    agrees(ufunc, np.array([1, 2, 3], kinds[0]), np.array([1, 1, 5], kinds[1]))


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 5, -1, -2, 0.5, 2.5, 0.0])
@pytest.mark.parametrize("kind", ["f8", "f4"])
def test_power(kind, exponent):
    x = np.array([0.5, 1.0, 2.0, 3.25, 7.0], kind)
    agrees(lambda x: np.power(x, exponent), x)
    agrees(lambda x: x**exponent, x)
    agrees(lambda x: exponent**x, x)


def test_integer_power():
    agrees(np.power, np.array([2, -3, 5, 0, 1]), np.array([10, 3, 0, 0, 62]))
    agrees(lambda x: x**3, np.array([2, -3, 5]))
    with pytest.raises(ValueError, match="negative integer powers"):
        traced(lambda x: x ** np.int64(-1), np.array([2]))
    with pytest.raises(Exception, match="negative integer powers"):
        run(np.power, np.array([2, 3]), np.array([1, -1]))


def test_python_power_stays_a_python_number():
    agrees(lambda x, p: x * (p**2), np.ones(2, "f4"), 3.0)
    agrees(lambda x, p: x * (p**-2), np.ones(2, "f4"), 3)


def test_out_where_dtype():
    x, y = np.array([1.0, -2.0, 3.0]), np.array([4.0, 5.0, 6.0])

    def out(x, y):
        z = np.zeros_like(x)
        r = np.add(x, y, out=z)
        return r, z

    def masked(x, y):
        z = x * 0.5
        np.multiply(x, y, out=z, where=x > 0)
        return z

    agrees(out, x, y)
    agrees(masked, x, y)
    agrees(lambda x, y: np.add(x, y, dtype=np.float32), x, y)
    agrees(lambda x, y: np.add(x, y, dtype="f4"), np.array([1, 2]), np.array([3, 4]).astype("i2"))
    with pytest.raises(TypeError, match=r"Cannot cast|in place"):
        traced(lambda x, i: np.add(x, x, out=i), x, np.array([1, 2, 3]))


@pytest.mark.parametrize("kind", ["f8", "f4", "i8", "?"])
def test_selection(kind):
    x = np.array([[1, 0, 3], [0, 5, 6]]).astype(kind)
    agrees(lambda x: np.where(x > 1, x, 0), x)
    agrees(lambda x: np.where(x, x, 2.5), x)
    agrees(lambda x: np.where(x > 1, 1, 0), x)
    agrees(lambda x: np.where([True, False, True], x, -x if kind != "?" else x), x)
    agrees(lambda x: np.select([x < 1, x > 4], [x, x * 2], 7), x)
    agrees(lambda x: np.nan_to_num(x), x)
    agrees(lambda x: np.round(x), x) if kind != "?" else None
    agrees(lambda x: np.isposinf(x), x)
    agrees(lambda x: (np.real(x), np.imag(x), np.array_equal(x, x)), x)
    if kind != "?":
        agrees(lambda x: np.clip(x, 1, 4), x)
        agrees(lambda x: np.clip(x, 0.5, None), x)
        agrees(lambda x: np.clip(x, None, x[0]), x)
        agrees(lambda x: x.clip(2), x)
        agrees(lambda x: np.clip(x, min=1, max=2), x)


def test_clip_out():
    def f(x):
        np.clip(x, 0.0, 1.0, out=x)
        return x

    agrees(f, np.array([-1.0, 0.5, 3.0]))


@pytest.mark.parametrize("kind", ["f8", "f4", "i8"])
def test_composed(kind):
    x, y = np.array([0, 1, -2, 5]).astype(kind), np.array([0, 1, 2, 5]).astype(kind)
    agrees(np.sinc, x)
    agrees(np.isclose, x, y)
    agrees(np.allclose, x, y)
    agrees(lambda x: np.isclose(x, 1.0), x)
    agrees(np.array_equal, x, y)
    agrees(np.angle, x)
    agrees(np.fix, x)
    agrees(lambda x: np.nan_to_num(x, nan=3, posinf=2), x)


def test_floats_only():
    agrees(np.sinc, np.linspace(-2, 2, 101))
    agrees(np.nan_to_num, SPECIAL)
    agrees(lambda x: np.nan_to_num(x, nan=1.0, posinf=5.0, neginf=-5.0), SPECIAL.astype("f4"))
    agrees(lambda x: np.round(x, 2), np.array([1.234, 5.675, -0.555]))
    agrees(lambda x: np.round(x, -1), np.array([123.4, 55.0, 45.0]))
    agrees(lambda x: np.isclose(x, x, equal_nan=True), SPECIAL)
    agrees(lambda x: (np.isposinf(x), np.isneginf(x)), SPECIAL)
    agrees(lambda x: np.isclose(x, x[::-1]), SPECIAL)


def test_ufunc_methods():
    x, y = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([5.0, 6.0, 7.0])
    agrees(lambda x: np.add.reduce(x), x)
    agrees(lambda x: np.multiply.reduce(x, axis=1), x)
    agrees(lambda x: np.maximum.reduce(x, axis=None), x)
    agrees(lambda x: np.logical_and.reduce(x > 1), x)
    agrees(lambda x: np.add.accumulate(x, axis=1), x)
    agrees(lambda x: np.multiply.accumulate(x), x)
    agrees(lambda x, y: np.multiply.outer(x, y), x, y)
    agrees(lambda x, y: np.subtract.outer(y, x), x, y)


def test_add_at():
    def f(x):
        np.add.at(x, [0, 1, 1], 2.0)
        np.subtract.at(x, np.array([2, 2]), np.array([1.0, 5.0]))
        return x

    agrees(f, np.array([1.0, 2.0, 3.0]))


@pytest.mark.parametrize(
    "f, message",
    [
        (lambda x: np.add(x, np.ones(4)), r"could not be broadcast together with shapes \(3,\) \(4,\)"),
        (lambda x: np.subtract(x > 0, x > 0), "boolean subtract"),
        (lambda x: np.where(x > 0, x), "both or neither of x and y"),
        (lambda x: np.bitwise_and(x, x), "not supported for the input types"),
        (lambda x: np.emath.sqrt(x), "sqrt is not supported"),
        (lambda x: np.isnat(x), "np.isnat is not supported"),
    ],
)
def test_errors_tell(f, message):
    with pytest.raises((TypeError, ValueError), match=message):
        traced(f, np.ones(3))


def test_a_name_like_it_is_suggested():
    with pytest.raises(TypeError, match=r"did you mean .*np\.nansum"):
        dnp.dispatch.refuse("np.nansums")


def test_without_tracing_it_is_numpy():
    assert isinstance(dnp.sin(1.0), np.float64)
    assert dnp.sum([1, 2]) == 3 and dnp.zeros(2).tolist() == [0.0, 0.0]
    assert dnp.linalg.norm([3.0, 4.0]) == 5.0 and dnp.pi == np.pi and dnp.float32 is np.float32
    assert dnp.sort([2, 1]).tolist() == [1, 2]
