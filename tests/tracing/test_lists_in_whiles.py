"""Lists to which loops append that do not say how often they run."""

import math

import numpy as np
import pytest

import dflow
from dflow.check import check_grads
from dflow.tracing.lists import filling


def halves(x):
    xs = []
    while x > 1:
        xs.append(x)
        x = x / 2
    return sum(v * v for v in xs) + x * len(xs)


def steps(x):
    """Appends in a branch, two lists side by side, and reads what it has appended."""
    ts, ys, h = [0.0], [x], 0.1
    while True:
        slope = -ys[-1] * ys[-1]
        if abs(h * slope) < 0.2:
            ts.append(ts[-1] + h)
            ys.append(ys[-1] + h * slope)
        h = min(h * 1.5, 0.15 / (abs(slope) + 0.1))
        if ts[-1] > 1:
            break
    return np.trapezoid(np.array(ys), np.array(ts))


def counted(x):
    xs = []
    for k in range(int(x)):
        xs.append((x * k, k))
    return sum(v * k for v, k in xs) + x


def rows(x):
    states = [np.array([x, 1.0])]
    while states[-1][0] > 0.5:
        states.append(states[-1] * np.array([0.7, 1.1]))
    return np.sum(np.array(states) ** 2)


def phases(x):
    """A second loop goes on with the list of the first."""
    xs = []
    while x < 10:
        xs.append((x, 1.0))
        x = x * 1.5
    while x > 1:
        xs.append((x, 2.0))
        x = x * 0.5
    return sum(v * w for v, w in xs)


def inner(x):
    """A list of its own in each round, and one that all rounds make longer."""
    everything, total = [], 0.0
    for k in range(12):
        xs, y = [], x + k
        while y > 1:
            xs.append(y * x)
            everything.append(y)
            y = y * 0.6
        total += np.sum(np.array(xs) ** 2) * len(xs)
    return total + sum(everything)


def stack(x):
    """The integral of sin(x t^2) by halving, with a stack of what is to be done."""
    todo, total = [(0.0, 1.0)], 0.0
    while todo:
        left, right = todo.pop()
        mid = (left + right) / 2
        one = (right - left) * math.sin(x * mid * mid)
        two = (right - left) / 2 * (math.sin(x * (left + mid) ** 2 / 4) + math.sin(x * (mid + right) ** 2 / 4))
        if abs(one - two) < 1e-3:
            total += two
        else:
            todo.append((left, mid))
            todo.append((mid, right))
    return total


@pytest.mark.parametrize("x", [0.4, 5.3])
@pytest.mark.parametrize("f", [halves, steps, counted, rows, phases, inner, stack])
def test_values_and_derivatives(f, x):
    assert dflow.jit(f)(x) == pytest.approx(f(x), rel=1e-12)
    check_grads(f, (x,), order=2 if f in (halves, stack) else 1)


def test_a_list_without_room_says_so(monkeypatch):
    def doubled(x):
        xs = [x]
        while xs[-1] < 1:
            xs.append(xs[-1] * 2)
        return xs[-2]

    monkeypatch.setattr(filling, "ROOM", 8)
    f = dflow.jit(doubled)
    assert f(0.5**8) == 0.5
    with pytest.raises(MemoryError, match="a list becomes longer than 9 items in the loop at line"):
        f(0.5**9)


def test_nothing_is_popped_from_an_empty_list():
    def pops(x):
        xs = []
        while x < 10:
            xs.append(x)
            x += xs.pop() + xs.pop()
        return x

    with pytest.raises(IndexError, match="pop from empty list"):
        dflow.jit(pops)(1.0)


def test_what_is_popped_is_gone():
    def last(n):
        xs = [7, 8]
        while n > 0:
            xs.append(n)
            n = n // 2
            if n % 2:
                xs.pop()
                xs.pop()
        return len(xs), xs[0], xs[-1], sum(xs)

    for n in range(1, 40):
        try:
            wanted = last(n)
        except IndexError:
            with pytest.raises(IndexError):
                dflow.jit(last)(n)
        else:
            assert dflow.jit(last)(n) == wanted


def test_a_stack_of_operands():
    def evaluated(tokens, x):
        operands = [x]
        for t in tokens:
            if t == 0:
                operands.append(x)
            elif t == 1:
                b = operands.pop()
                a = operands.pop()
                operands.append(a * b)
            else:
                operands.append(-operands.pop())
        return operands.pop() * len(operands)

    tokens = np.array([0, 1, 0, 2, 1, 0, 2])
    assert dflow.jit(evaluated)(tokens, 1.5) == evaluated(tokens, 1.5)
    assert dflow.grad(evaluated, argnums=1)(tokens, 1.5) == -1.0


def test_items_taken_in_a_branch():
    def taken(x):
        xs = [1.0, x]
        if x > 0:
            xs.pop()
        return sum(xs) * len(xs)

    assert [dflow.jit(taken)(x) for x in (2.0, -2.0)] == [taken(2.0), taken(-2.0)]


def test_positions_of_the_next_larger_item():
    def larger(x):
        waiting, out = [], np.zeros(len(x))
        for i in range(len(x)):
            while waiting and x[waiting[-1]] < x[i]:
                j = waiting.pop()
                out[j] = x[i] * x[j]
            waiting.append(i)
        return np.sum(out)

    x = np.array([3.0, 1.0, 4.0, 1.0, 5.0])
    assert dflow.jit(larger)(x) == larger(x)
    check_grads(larger, (x,))


def test_all_items_taken_by_a_second_loop():
    def added(x):
        xs, total, k = [v * v for v in x if v > 0], 0.0, 1
        while xs:
            total += xs.pop() * k
            k += 1
        return total

    x = np.array([1.0, 2.0, -1.0, 3.0])
    assert dflow.jit(added)(x) == added(x)
    check_grads(added, (x,))
