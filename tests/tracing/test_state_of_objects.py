"""Lists, dicts, attributes and variables of other functions that traced branches and loops change."""

from collections import deque

import numpy as np
import pytest

X = np.array([2.0, -1.0, 3.0, 0.5, -4.0, 1.5])


def dict_in_loop(x):
    state = {"sum": 0.0, "count": 0, "last": x * 0}
    for v in x:
        state["sum"] += v
        state["count"] += 1
        state["last"] = state["last"] + v
    return state


def dict_in_branch(x):
    state = {"a": 1.0, "b": 2}
    if x[0] > 0:
        state["a"] = x[1]
    else:
        state["b"] = 5
    return state["a"], state["b"]


def list_of_numbers(x):
    sums = [0.0, 0.0]
    for i in range(len(x)):
        sums[0] += x[i]
        if x[i] > 0:
            sums[1] += x[i]
    return sums


def list_of_arrays(x):
    parts = [x[:3].copy(), x[3:].copy()]
    old = parts[0]
    for _ in range(7):
        parts[1] *= 2.0
        parts[0] = parts[0] + parts[1]
    return parts, old


class Counter:
    def __init__(self):
        self.count = 0
        self.seen = {"largest": -10.0}

    def add(self, v):
        self.count += 1
        if v > self.seen["largest"]:
            self.seen["largest"] = v


def attributes(x):
    counter = Counter()
    inner = counter.seen
    for v in x:
        counter.add(v)
    inner["largest"] += 1.0
    return counter.count, counter.seen["largest"]


def inner_objects_stay_the_same(x):
    inner = {"w": 0.0}
    state = {"inner": inner, "n": 0}
    for v in x:
        state["n"] += 1
        state["inner"]["w"] += v
    inner["w"] += 1.0
    return state, inner["w"]


def inner_objects_replaced(x):
    first = {"w": 0.0}
    state = {"inner": first}
    for v in x:
        state["inner"] = {"w": state["inner"]["w"] + v}
    first["w"] -= 1.0
    return state, first["w"]


def variable_of_another_function(x):
    total = 0.0

    def add(v):
        nonlocal total
        total += v

    def both(v):
        add(v)
        add(2 * v)

    for v in x:
        if v > 0:
            both(v)
    return total


def nested(x):
    table = {"n": 0}
    for i in range(len(x)):
        for j in range(i):
            if x[i] > x[j]:
                table["n"] += 1
    return table["n"]


def in_while(x):
    state = [x[0], 0]
    while state[0] < 100:
        state[0] = state[0] * 1.5
        state[1] += 1
    return state


def traced_bounds(x):
    state = {"t": 0.0}
    for i in range(int(x[0])):
        state["t"] += x[i]
    return state["t"]


PROGRAMS = [
    dict_in_loop,
    dict_in_branch,
    list_of_numbers,
    list_of_arrays,
    attributes,
    inner_objects_stay_the_same,
    inner_objects_replaced,
    variable_of_another_function,
    nested,
    in_while,
    traced_bounds,
]


@pytest.mark.parametrize("fn", PROGRAMS, ids=lambda f: f.__name__)
def test_as_python(check, fn):
    check(fn, X)


def test_an_object_both_changed_and_replaced_is_refused(fails):
    def f(x):
        first = {"w": 0.0}
        state = {"inner": first}
        for i in range(int(x[0])):
            state["inner"]["w"] += x[i]
            state["inner"] = {"w": 1.0}
        return first["w"]

    assert "an object is updated in place and also replaced in the loop" in fails(f, X)


def test_slots_count(check):
    class Slotted:
        __slots__ = ("n",)

        def __init__(self):
            self.n = 0

    def f(x):
        s = Slotted()
        for _ in range(int(x[0])):
            s.n += 1
        return s.n

    check(f, X)


def test_byte_arrays_are_not_followed(fails):
    def f(x):
        b = bytearray(3)
        for _ in range(int(x[0])):
            b[0] += 1
        return b[0]

    assert "a bytearray is changed inside a loop" in fails(f, X)


def test_a_condition_that_counts(fails):
    def f(x):
        calls = [0]

        def more():
            calls[0] += 1
            return calls[0] < x[0]

        while more():
            pass
        return calls[0]

    assert "the condition of a traced loop updates what it reads" in fails(f, X)


def test_queue_of_constant_length(check):
    def f(x):
        last = deque([0.0, 0.0])
        for i in range(int(x[0])):
            last.append(x[i] + last[0])
            last.popleft()
        return last[0] + 10 * last[1]

    check(f, X)
