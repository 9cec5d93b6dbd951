"""Lists of what a condition leaves, and what is said where there is none."""

import numpy as np
import pytest

import dflow

X = np.array([0.5, -1.2, 2.0])


def of_a_tuple(x):
    return np.array([v * v for v in (x[0], x[1], x[2]) if v > 0])


def of_a_generator(x):
    return np.array(list(v * v for v in x if v > 0))


def quantified(x):
    high = [v > 1 for v in x if v > 0]
    return any(high), all(high), all([v > 0 for v in x if v > 1]), any([v > 5 for v in x if v > 4])


@pytest.mark.parametrize("f", [of_a_tuple, of_a_generator, quantified])
def test_filters(f):
    np.testing.assert_array_equal(dflow.jit(f, backend="reference")(X), f(X))


def test_derivative():
    np.testing.assert_allclose(dflow.grad(lambda x: of_a_tuple(x).sum())(X), [1.0, 0.0, 4.0])


def noisy(v):
    print(f"{v:.1f}")
    return v > 0


def of_a_condition_that_prints(x):
    return np.array([v for v in (x[0], x[1]) if noisy(v)])


def test_a_condition_is_computed_once(capfd):
    dflow.jit(of_a_condition_that_prints)(X)
    assert capfd.readouterr().out == "0.5\n-1.2\n"


def returned(x):
    found = [v for v in x if v > 0]
    return found


def in_a_while(x):
    found, v = [], x[2]
    while v > 0.1:
        found.append([v])
        v = v * 0.5
    return found[0]


def in_a_branch(x):
    found = [x[:2]]
    if x[1] > 0:
        found.append(x)
    return sum(found)


def generated(x):
    def positive():
        for v in x:
            if v > 0:
                yield v

    return sum(positive())


def with_a_walrus(x):
    return 1 < (y := 2 * x[0]) < 3, y


@pytest.mark.parametrize(
    ("f", "said"),
    [
        (returned, "return found\n           ^^^^^"),
        (in_a_while, "append numbers, arrays or tuples that"),
        (in_a_branch, "and a mask of those that there are"),
        (generated, "a `for` loop that appends to a list"),
        (with_a_walrus, "a statement of its own before the condition"),
    ],
)
def test_the_mend_is_that_of_the_case(f, said):
    with pytest.raises(dflow.errors.DflowError) as e:
        dflow.jit(f, backend="reference")(X)
    assert said in str(e.value)
