"""How a call gives its arguments: static ones, chosen ones, methods; and what is no argument."""

from __future__ import annotations

import copy
import datetime
import decimal
import fractions
import pickle
from dataclasses import dataclass

import numpy as np
import pytest
import scipy.sparse

import dflow
from dflow.errors import DerivativeError, RangeError, TraceError


def ones(x, n=2):
    return x * np.ones(n)


@pytest.mark.parametrize("options", [{"static_argnums": 1}, {"static_argnames": "n"}, {"static_argnums": -1}])
def test_static_arguments_are_static_by_position_and_by_name(options):
    f = dflow.jit(ones, **options)
    assert [f(2.0, 3).shape, f(2.0, n=3).shape, f(2.0).shape, f(x=2.0, n=1).shape] == [(3,), (3,), (2,), (1,)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"static_argnums": 5}, r"static_argnums has 5, but ones takes 2 positional arguments\n(.|\n)*seen: x, n"),
        ({"static_argnames": "k"}, r"static_argnames has 'k', but ones has no such argument"),
        ({"static_argnames": ("n", "n")}, "static_argnames names an argument twice"),
        ({"static_argnums": "n"}, "static_argnums is 'n'"),
        ({"static_argnums": 1.0}, "static_argnums is 1.0"),
        ({"donate_argnums": None}, "donate_argnums is None"),
    ],
)
def test_options_that_name_no_argument(options, message):
    with pytest.raises(TraceError, match=message) as error:
        dflow.jit(ones, **options)
    assert "test_arguments.py" in str(error.value)


def product(x, y):
    return x * y**2


def test_arguments_to_differentiate_by_are_found_however_they_are_given():
    slope = dflow.grad(product, argnames="y")
    assert [slope(2.0, 3.0), slope(2.0, y=3.0), slope(x=2.0, y=3.0)] == [12.0] * 3
    assert dflow.grad(product, argnums=1)(2.0, y=3.0) == 12.0
    assert dflow.grad(product, argnums=(0, 1))(2.0, y=3.0) == (9.0, 12.0)
    assert dflow.grad(product, argnums=0, argnames="y")(2.0, 3.0) == (9.0, 12.0)
    assert dflow.grad(product, argnums=np.int64(1))(2.0, 3.0) == 12.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"argnums": (0, 0)}, "argnums names an argument twice"),
        ({"argnums": (0, -2)}, "by one argument twice"),
        ({"argnums": 1, "argnames": "y"}, "by one argument twice"),
        ({"argnums": "x"}, "argnums is 'x'"),
        ({"argnums": True}, "argnums is True"),
        ({"argnums": 2}, "by argument 2, but the call has 2 positional arguments"),
        ({"argnames": "z"}, r"by argument 'z', which the call does not give\n(.|\n)*seen: x, y"),
    ],
)
def test_arguments_to_differentiate_by_that_are_none(options, message):
    with pytest.raises(DerivativeError, match=message):
        dflow.grad(product, **options)(2.0, 3.0)


@pytest.mark.parametrize("result", [None, (), [], {}, (None, [], {"a": ()})])
def test_functions_without_results(result):
    f = dflow.jit(lambda x: result)
    assert [f(1.0), f(1.0)] == [result, result]


class Counter:
    step = 2.0

    def __init__(self, start):
        self.start = start

    @dflow.jit
    def after(self, x):
        return self.start + self.step * x

    @dflow.jit
    @staticmethod
    def inside_out(x):
        return 3.0 * x

    @dflow.jit
    @classmethod
    def made(cls, x):
        return cls.step * x

    @classmethod
    @dflow.grad
    def of_class(cls, x):
        return cls.step * x

    def plain(self, x):
        return self.start * x


class Faster(Counter):
    step = 5.0


def test_static_and_class_methods():
    assert (Counter.inside_out(2.0), Counter(0.0).inside_out(2.0)) == (6.0, 6.0)
    assert (Counter.made(1.0), Faster.made(1.0), Faster(0.0).made(1.0)) == (2.0, 5.0, 5.0)


@pytest.mark.parametrize("f", [Counter(3.0).after, dflow.jit(Counter(3.0).plain), dflow.grad(Counter(3.0).plain)])
def test_bound_methods_have_stages(f):
    assert f.lower(2.0).compile()(3.0, 2.0) == (f(2.0),)
    assert f.__name__ in repr(f)


def test_attributes_in_slots():
    class Slotted:
        __slots__ = ("name", "rate", "unset")

        def __init__(self, rate):
            self.rate, self.name = rate, "n"

        def times(self, x):
            return self.rate * x

    slotted = Slotted(3.0)
    f = dflow.jit(slotted.times)
    assert f(2.0) == 6.0
    slotted.rate = 4.0
    assert f(2.0) == 8.0


@dataclass(slots=True, frozen=True)
class Rates:
    birth: float
    name: str = "hares"


def test_dataclasses_with_slots():
    assert dflow.grad(lambda r: r.birth**2)(Rates(3.0)) == Rates(6.0)


# -- kinds of arguments ------------------------------------------------------------------------------------------------


class Kelvin(np.ndarray):
    """An array whose class means something."""


grid = np.arange(24.0).reshape(4, 6)
ORDINARY = {
    "strided": grid[::2, ::3],
    "fortran": np.asfortranarray(grid),
    "reversed": grid[::-1, ::-1],
    "transposed": grid.T,
    "empty": np.zeros((3, 0)),
    "no axes": np.array(2.0),
    "broadcast": np.broadcast_to(np.arange(3.0), (2, 3)),
    "overlapping": np.lib.stride_tricks.as_strided(np.arange(5.0), (3, 3), (8, 8)),
    "unaligned": np.frombuffer(b"\0" * 25, dtype="u1")[1:].view("f8"),
    "big endian": grid.astype(">f8"),
    "float16": grid.astype("f2"),
    "int8": np.arange(-3, 3, dtype="i1"),
    "uint64": np.array([2**63, 1], dtype="u8"),
    "eight axes": np.ones((1,) * 8),
}


@pytest.mark.parametrize("kind", ORDINARY)
def test_arrays_of_any_layout(kind):
    x = ORDINARY[kind]
    f = dflow.jit(lambda x: x + x)
    for _ in range(2):
        result = f(x)
        np.testing.assert_array_equal(result, x + x)
        assert result.dtype == (x + x).dtype.newbyteorder("=")


REFUSED = {
    "masked": (np.ma.masked_array([1.0, 2.0], [True, False]), "argument x is a MaskedArray.*filled"),
    "matrix": (np.ones((1, 2)).view(np.matrix), r"argument x is a matrix.*np\.asarray"),
    "subclass": (np.ones(2).view(Kelvin), "argument x is a Kelvin"),
    "object": (np.array([1.0, None]), r"not a number or an array of numbers.*dtype object.*x\.astype\(float\)"),
    "text": (np.array(["a"]), r"dtype <U1.*np\.unique"),
    "date": (np.array(["2020-01-01"], dtype="M8[D]"), r"dtype datetime64.*timedelta64"),
    "record": (np.zeros(2, dtype=[("a", "f8")]), r"not a number.*x\.dtype\.names"),
    "long double": (np.longdouble(1.5), r"longdouble.*pass float\(x\)"),
    "complex long double": (np.clongdouble(1.5), r"clongdouble.*complex\(x\)"),
    "fraction": (fractions.Fraction(1, 2), r"seen: Fraction.*float\(x\)"),
    "decimal": (decimal.Decimal(1), r"seen: Decimal.*float\(x\)"),
    "range": (range(3), r"seen: range.*list\(x\)"),
    "sparse matrix": (scipy.sparse.eye_array(2).tocsr(), r"seen: csr.*x\.indptr"),
    "set": ({1.0}, "seen: set.*static_argnums"),
    "day": (datetime.date(2020, 1, 1), "seen: date"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_arguments_that_are_refused(kind):
    x, message = REFUSED[kind]
    f = dflow.jit(lambda x: x)
    f(np.ones(2))  # what a call before has compiled takes nothing else
    with pytest.raises(TraceError, match=f"(?s)test_arguments.py.*{message}"):
        f(x)


@pytest.mark.parametrize("x", [2**63, -(2**63) - 1, 2**70])
def test_integers_that_do_not_fit(x):
    f = dflow.jit(lambda x: x * 2)
    f(1)
    with pytest.raises(RangeError, match=f"argument x does not fit a 64-bit integer(.|\n)*{x}"):
        f(x)
    with pytest.raises(OverflowError):
        f(x)


def test_a_compiled_program_says_what_it_takes():
    program = dflow.jit(lambda x, n: x * n).lower(np.ones(3), 2).compile()
    np.testing.assert_array_equal(program(np.ones(3), 2)[0], [2.0, 2.0, 2.0])
    with pytest.raises(TypeError, match=r"takes \(f64\[3\], i64 \(Python number\)\), got \(f64\[4\], f64 \(Python"):
        program(np.ones(4), 2.0)
    with pytest.raises(TypeError, match=r"got \(f64\[3\]\)"):
        program(np.ones(3))


# -- copies ------------------------------------------------------------------------------------------------------------


@dflow.jit
def squares(x):
    return x * x


@dflow.jit(static_argnums=1)
def many(x, n):
    return x * np.ones(n)


slope_of_squares = dflow.grad(squares)
FUNCTIONS = {
    "decorated": (squares, (3.0,)),
    "static": (many, (3.0, 2)),
    "gradient": (slope_of_squares, (3.0,)),
    "two": (dflow.grad(product, argnums=(0, 1)), (2.0, 3.0)),
    "mapped": (dflow.vmap(product), (np.ones(2), np.ones(2))),
    "jacobian": (dflow.jacobian(product), (2.0, 3.0)),
    "method": (Counter(3.0).after, (2.0,)),
    "plain method": (dflow.jit(Counter(3.0).plain), (2.0,)),
}


@pytest.mark.parametrize("kind", FUNCTIONS)
@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda f: pickle.loads(pickle.dumps(f))])
def test_compiled_functions_are_copied_and_pickled(kind, again):
    f, args = FUNCTIONS[kind]
    f(*args)
    for result, wanted in zip(np.atleast_1d(again(f)(*args)), np.atleast_1d(f(*args))):
        np.testing.assert_array_equal(result, wanted)


def test_copies_of_lambdas():
    f = dflow.grad(lambda x: x**3)
    assert copy.copy(f)(2.0) == copy.deepcopy({"f": f})["f"](2.0) == 12.0


@pytest.mark.parametrize(
    "f", [dflow.grad(np.sin), dflow.jit(np.sin), dflow.checkpoint(np.sin)], ids=["grad", "jit", "checkpoint"]
)
def test_transformations_of_functions_of_numpy_nest(f):
    want = -np.sin(0.5) if "grad" in str(f) else np.cos(0.5)
    assert dflow.grad(f)(0.5) == pytest.approx(want)
    np.testing.assert_allclose(dflow.vmap(dflow.grad(f))(np.full(2, 0.5)), want)


@pytest.mark.parametrize("transform", [dflow.jit, dflow.grad, dflow.vmap, dflow.jacrev])
def test_a_value_in_place_of_a_function(transform):
    with pytest.raises(TraceError, match=r"takes a function\n(.|\n)*f, not f\(x\)"):
        transform(np.sin(2.0))


@pytest.mark.parametrize("transform", [dflow.jvp, dflow.hvp])
def test_arrays_are_no_tuples_of_arguments(transform):
    with pytest.raises(DerivativeError, match="takes primals in a tuple"):
        transform(np.sum, np.ones(1), np.ones(1))


def test_is_leaf_stops_at_pairs():
    pairs = {"a": (1.0, 2.0), "b": [(3.0, 4.0)]}

    def is_pair(x):
        return isinstance(x, tuple)

    assert dflow.tree.map(lambda p: p[0] * p[1], pairs, is_leaf=is_pair) == {"a": 2.0, "b": [12.0]}
    assert dflow.tree.leaves(pairs, is_leaf=is_pair) == [(1.0, 2.0), (3.0, 4.0)]
    leaves, structure = dflow.tree.flatten(pairs, is_leaf=is_pair)
    assert dflow.tree.unflatten(structure, leaves) == pairs


def test_generators_are_refused_with_the_mend():
    with pytest.raises(dflow.errors.DflowError, match=r"dflow\.random"):
        dflow.jit(lambda g, x: x * g.normal())(np.random.default_rng(0), 1.0)
