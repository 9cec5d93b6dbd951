"""Control flow on traced values does what Python does."""

import math

import numpy as np
import pytest

import dflow

X = np.array([2.0, -1.0, 3.0, 0.5, -4.0, 1.5])


def branch(x):
    if x[0] > 0:
        y = x * 2
    else:
        y = x - 1
    return y


def nested_branch(x):
    s = 0
    if x[0] > 0:
        if x[1] > 0:
            s = x[1]
        elif x[2] > 0:
            s = 2
    else:
        s = -1.0
    return s


def early_return(x):
    if x[0] > 1:
        return x.sum()
    y = x * x
    if x[1] > 0:
        return y.sum()
    return y[0]


def inner_return(x):
    if x[0] > 1:
        if x[1] > 0:
            return 1.0
        x = x + 1
    return x[0]


def total(x):
    s = 0
    for i in range(len(x)):
        s += x[i]
    return s


def running(x):
    y = np.zeros_like(x)
    y[0] = x[0]
    for i in range(1, len(x)):
        y[i] = y[i - 1] * 0.5 + x[i]
    return y


def rows(x):
    s = 0.0
    for v in x:
        s = s + v * v
    return s


def enumerated(x):
    s = 0.0
    for i, v in enumerate(x):
        s += i * v
    return s


def zipped(x):
    s = 0.0
    for a, b in zip(x, reversed(x)):
        s += a * b
    return s


def breaks(x):
    s = 0.0
    for v in x:
        if v < 0:
            break
        s += v
    return s


def continues(x):
    s = 0.0
    for i in range(len(x)):
        if x[i] < 0:
            continue
        s += x[i]
        if s > 4:
            continue
        s += 1
    return s


def return_in_loop(x):
    for i in range(len(x)):
        if x[i] > 2:
            return i
    return -1


def return_array_in_loop(x):
    for i in range(len(x)):
        if x[i] > 2:
            return x * i
    return x


def for_else(x):
    r = 0
    for v in x:
        if v > 100:
            r = v
            break
    else:
        r = -1.0
    return r


def while_sum(x):
    i = 0
    s = 0.0
    while s < 3 and i < len(x):
        s += x[i]
        i += 1
    return s, i


def newton(x):
    y = x[0]
    while abs(y * y - 2) > 1e-12:
        y = 0.5 * (y + 2 / y)
    return y


def while_true(x):
    y = x[0]
    n = 0
    while True:
        y = 0.5 * (y + 3 / y)
        n += 1
        if abs(y * y - 3) < 1e-10:
            break
    return y, n


def while_true_return(x):
    y = x[0]
    while True:
        y = 0.5 * (y + 3 / y)
        if abs(y * y - 3) < 1e-10:
            return y


def nested_loops(x):
    s = 0.0
    for i in range(len(x)):
        for j in range(i):
            s += x[i] * x[j]
    return s


def nested_break(x):
    s = 0.0
    for i in range(len(x)):
        for j in range(len(x)):
            if x[j] > x[i]:
                break
            s += x[j]
        if s > 5:
            break
    return s


def logic(x):
    a = x[0] > 0 and x[1] > 0
    b = x[0] > 0 or x[1] > 0
    c = not a
    d = 0 < x[0] < 3
    return a, b, c, d


def conditional(x):
    return x[0] if x[1] > 0 else (x[2] if x[0] > 0 else 7)


def collatz(n):
    steps = 0
    while n != 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        steps += 1
    return steps


def unrolls_by_list(x):
    parts = []
    for i in range(6):
        parts.append(x[i] * i)
    return parts[2] + parts[5]


def unrolls_by_index(x):
    weights = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    s = 0.0
    for i in range(6):
        s += weights[i] * x[i]
    return s


def grows_unrolled(x):
    y = x[:1]
    for i in range(6):
        y = np.concatenate([y, x[i : i + 1]])
    return y


def python_max(x):
    m = x[0]
    for v in x:
        m = max(m, v, 0.25)
    return m, min(x[0], x[1]), abs(x[1]), int(x[0]), float(x[3]), round(x[3])


def traced_range(n):
    s = 0
    for i in range(n):
        s += i * i
    return s


def stepped(n):
    s = 0
    for i in range(10, n, -3):
        s = s * 2 + i
    return s


def temporary_after_loop(x):
    for i in range(len(x)):
        t = x[i] * 2
    return t, i


def conditional_array(x):
    y = np.zeros(3)
    if x[0] > 0:
        y[0] = 1
        y[1:] += x[1]
    else:
        y[2] = 5
    return y


def tuple_state(x):
    a, b = 0.0, 1.0
    for _ in range(10):
        a, b = b, a + b * x[0]
    return a, b


def tree_state(x):
    state = {"p": x[0], "q": (x[1], x * 1)}
    for _ in range(5):
        state = {"p": state["p"] + 1, "q": (state["q"][0] * 2, state["q"][1] + state["p"])}
    return state


def math_functions(x):
    return math.sin(x[0]) + math.exp(x[1]) + math.sqrt(x[0]) + math.pi


def asserts(x):
    assert x[0] > 0, "must be positive"
    return x[0]


def raises(x):
    if x[0] < 0:
        raise ValueError("negative")
    return math.sqrt(x[0])


def flags_and_inner_state(x):
    found = False
    where = 0
    for i in range(len(x)):
        if not found and x[i] > 2:
            found = True
            where = i
    return found, where


def walrus(x):
    if (y := x[0] * 2) > 1:
        return y
    return y + 1


def walrus_in_an_expression(x):
    a = (y if (y := 2 * x[0]) > 10 else y * 3) + y
    for v in x:
        a += s if (s := v * v) > 4 else -s
    return a * s


def deep(x):
    s = 0.0
    for i in range(5):
        if x[i] > 0:
            for j in range(5):
                if x[j] < 0:
                    s += x[i] * x[j]
                    continue
                while s > 1:
                    s = s / 2
        else:
            s -= 1
    return s


FUNCTIONS = [
    branch, nested_branch, early_return, inner_return, total, running, rows, enumerated, zipped, breaks, continues,
    return_in_loop, return_array_in_loop, for_else, while_sum, newton, while_true, while_true_return, nested_loops,
    nested_break, logic, conditional, unrolls_by_list, unrolls_by_index, grows_unrolled, python_max,
    temporary_after_loop, conditional_array, tuple_state, tree_state, math_functions, asserts, raises,
    flags_and_inner_state, walrus, walrus_in_an_expression, deep,
]  # fmt: skip


@pytest.mark.parametrize("fn", FUNCTIONS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("sign", [1.0, 0.3])
def test_array(check, fn, sign):
    check(fn, X * sign)


@pytest.mark.parametrize("fn", [collatz, traced_range, stepped], ids=lambda f: f.__name__)
@pytest.mark.parametrize("n", [0, 1, 6, 7])
def test_number(check, fn, n):
    check(fn, max(n, 1) if fn is collatz else n)


def test_other_branch(check):
    for fn in (branch, nested_branch, early_return, inner_return, conditional, conditional_array):
        check(fn, -X)
    check(logic, -X)


def test_early_return_below_a_docstring(check):
    def f(x):
        """Has a text."""
        for i in range(len(x)):
            if x[i] < 0:
                return x[i]
        return 0.0

    check(f, np.array([1.0, 2.0, 3.0, 4.0, 5.0, -6.0]))


def test_variable_of_a_loop_after_it(check):
    def f(x, n):
        for k in range(n):
            y = x * k
            x = x * 0.5
            if x < 0.1:
                break
        return x, k, y

    for n in (1, 3, 20):
        check(f, 1.0, n)
    with pytest.raises(UnboundLocalError, match="variable 'k' is defined only inside the loop"):
        dflow.jit(f)(1.0, 0)


def test_conditions_join_numbers_and_booleans(check):
    def f(x):
        n = 0
        for i in range(len(x)):
            k = i % 3
            n += 1 if x[i] > 2 or (x[i] > 1 and k) else 0
            if not (k and x[i]):
                n += 10
        return n

    check(f, np.array([1.0, 2.0, 3.0, 4.0, 5.0, -6.0]))


def test_names_bound_within_conditions(check):
    def f(x):
        total, i = 0.0, 0
        while i < len(x) and (v := x[i]) < 4.5:
            if v > 1 and (w := v * v) > 4:
                total += w
            if v < 2 or (w := v - 10) > 0:
                total += 1
            elif v > 3 and (u := v + 1) > 4 and not (t := u) < 1:
                total -= u * t
            i += 1
        return total, i

    check(f, np.array([1.0, 2.0, 3.0, 4.0, 5.0, -6.0]))


def left_at_once(x, n):
    s = t = 0.0
    for v in x:
        t = v
        break
    for k in range(n):
        s += x[k]
        if x[k] > 2:
            s *= 2
        break
    for v in x:
        for k in range(n):
            s += v * k
            break
        else:
            s += 100
    return s, t


def returned_at_once(x, n):
    for k in range(n):
        if x[k] > 2:
            return x[0]
        else:
            return x[1] * k
    return 9.0


@pytest.mark.parametrize("fn", [left_at_once, returned_at_once], ids=lambda f: f.__name__)
@pytest.mark.parametrize("n", [0, 3])
def test_loops_that_end_with_their_first_iteration(check, fn, n):
    check(fn, np.array([2.5, 1.0, 3.0, 4.0, 5.0, 6.0]), n)


def test_a_first_round_that_certainly_runs_is_one_of_the_loop(check):
    def doublings(x):
        t, rounds = 0.0, 0
        while t < 1.0:
            t = t + np.exp(-x[0])
            rounds += 1
        return t * rounds

    check(doublings, np.array([0.7]))
    traced = dflow.jit(doublings).lower(np.array([0.7])).stages.traced
    assert str(traced).count(" = exp ") == 1


def test_a_first_round_of_another_type_stands_alone(check):
    def f(x):
        y, n = None, 0.0
        while n < 3.0:
            y = x if y is None else y + x
            n = n + x[0]
        return y

    check(f, np.array([0.7, 1.0]))
