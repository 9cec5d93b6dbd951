"""Arrays that get a second name in a loop or a branch: an update by one name is seen by the other, or refused."""

import numpy as np
import pytest

import dflow


def trades_with_a_view(a, n):
    whole = np.outer(a, a)
    u, v = whole[1], np.cos(a)
    for i in range(n):
        whole[:] = i + 1.0
        u, v = v, u
    return u, v


def row_of_the_last_round(a, n):
    rows, v = np.outer(a, a), np.cos(a)
    for i in range(n):
        rows[:] = i + 1.0
        v = rows[1]
    rows[:] = 7.0
    return v


def row_that_is_updated_afterwards(a, n):
    rows, w = np.outer(a, a), a
    for i in range(n):
        w = rows[i % 3]
        w[0] = 5.0
    w[1] = 7.0
    return rows, w


def two_names_of_a_new_array(a, n):
    w, z = a * 0, a
    for i in range(n):
        w = a * i
        z = w
    w += 1
    return z, w


def a_view_of_a_new_array(a, n):
    w, z = a * 0, a[1:]
    for i in range(n):
        w = a * i
        z = w[1:]
    w += 1
    return z, w


def name_of_what_is_updated(a, n):
    u, w = a * 2, a * 1
    for _ in range(n):
        u *= 0.5
        w = u
    u += 1
    return u, w


def no_round_at_all(a, n):
    u = a * 2
    v = u
    for _ in range(n):
        v = v * 0.5
    u += 1
    return u, v


def part_of_a_list(a, n):
    parts, w = [a * 2, a * 3], a
    for _ in range(n):
        parts[0] = parts[0] * 0.5
        w = parts[0]
    parts[0] += 1
    return parts[0], w


def chosen_row(a, n):
    rows, w, z = np.outer(a, a), a * 1, a * 1
    for i in range(n):
        if i % 2 == 0:
            w = rows[1]
        else:
            z = w
    rows[1] = 3.0
    return rows, w, z


def chosen_row_in_the_loop(a, n):
    rows, w, s = np.outer(a, a), a * 1, 0.0
    for i in range(n):
        rows += 1.0
        s += w[0]
        w = rows[1] if i % 2 == 0 else w
    return rows, w, s


def branch_in_a_branch(a, n):
    rows = np.outer(a, a)
    if n > 1:
        if n > 2:
            w = rows[0]
        else:
            w = rows[1]
    else:
        w = a * 1
    rows += 1
    return w, rows


def two_names_in_a_branch(a, n):
    if n > 1:
        w = a * 2
        z = w
    else:
        w = a * 3
        z = w[:]
    w += 1
    return w, z


def argument_or_not(a, n):
    x = a
    for _ in range(n):
        x = x * 0.5
    x[0] = 1.0
    return x, x


def read_before_its_other_name_is_updated(a, n):
    x, y, t = a * 1, a * 2, a[0]
    b = x if a[0] > 0 else y
    for _ in range(n + 17):
        t += b[0]
        x[0] += 1.0
    return x, b * 0 + t


def updated_and_turned_around(a, n):
    x, y = a * 1, a * 2
    b = x if a[0] > 0 else y
    for _ in range(n + 17):
        x[0] += 1.0
        x = x[::-1]
    return x, b


def a_choice_is_updated_and_turned_around(a, n):
    x, y = a * 1, a * 2
    b = x if a[0] > 0 else y
    for _ in range(n + 17):
        b[0] += 1.0
        b = b[::-1]
    return x, b


def turned_around_after_the_first_round(a, n):
    whole = np.outer(a, a)
    rows = [whole[0], whole[1]]
    while True:
        n += 1
        if n > 5 or a[0] > 9:
            break
        rows[0] += 0.25
        whole = whole.T
    return whole, rows[0]


ALL = [f for f in list(globals().values()) if getattr(f, "__module__", None) == __name__]


@pytest.mark.parametrize("f", ALL, ids=lambda f: f.__name__)
def test_right_or_refused(f):
    """With the number of rounds traced, refused; then it is taken as static, and the result is right."""
    for n in (0, 3):
        a, b = np.array([0.1, 0.2, 0.3]), np.array([0.1, 0.2, 0.3])
        expected = f(a, n)
        try:
            found = dflow.jit(f)(b, n)
        except dflow.errors.TraceError as e:
            assert "another name" in str(e)
            continue
        assert all(map(np.allclose, (*expected, a), (*found, b)))


def test_the_best_so_far_is_updated_afterwards():
    """A copy has no other name, so nothing is refused."""

    def f(a, n):
        best, x = a * 1, a * 2
        for i in range(n):
            x = x * 0.9
            if x.sum() > 0.8 - 0.1 * i:
                best = x.copy()
        x[0] = 3
        best[0] = 4
        return best, x

    a = np.array([0.1, 0.2, 0.3])
    for n in (0, 3):
        assert all(map(np.allclose, f(a, n), dflow.jit(f, static_argnums=())(a, n)))
