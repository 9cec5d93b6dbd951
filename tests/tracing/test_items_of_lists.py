"""Arrays that are items of lists and have other names: what is computed is right, or refused."""

import numpy as np
import pytest

import dflow
from dflow.errors import TraceError

X = np.array([0.3, -0.7, 1.1])


def one_item_many_times(x):
    b = [x]
    for _k in range(6):
        b.append(b[-1])
    b[1] += 1.0
    return np.sum(b[0]) + np.sum(b[-1])


def one_item_until(x):
    b = [x]
    s = 0.0
    for _k in range(6):
        b.append(b[-1])
        s = s + x[0]
        if s > 3.77:
            break
    b[1] += 1.0
    return np.sum(b[0]) + np.sum(b[-1])


def an_item_after(x):
    b = [x]
    for _k in range(6):
        y = b[-1]
        b.append(y * 1.0)
    y += 1.0
    return np.sum(b[0]) + np.sum(b[-1]) + np.sum(b[-2])


def an_item_in_the_next_iteration(x):
    b = [x]
    y = x * 2
    for _k in range(6):
        y += 1.0
        y = b[-1]
        b.append(y * 1.0)
    return np.sum(b[0]) + np.sum(b[-1]) + np.sum(b[-2])


def an_item_of_a_branch(x):
    b = [x]
    y = x * 2
    for k in range(6):
        if x[0] * k > 1:
            y = b[-1]
        else:
            y = x * 3
        y += 1.0
        b.append(y * 1.0)
    return np.sum(b[0]) + np.sum(b[-1]) + np.sum(b[-2])


def an_item_by_its_index(x):
    b = [x]
    y = x * 2
    for k in range(6):
        b.append(x * k)
        y = b[k]
    y += 1
    return np.sum(b[0]) + np.sum(b[-1]) + np.sum(b[-2])


def accepted(x):
    xs = []
    for k in range(8):
        p = x + 0.1 * np.sin(k + x)
        if p[0] < 0.5:
            x = p
        xs.append(x)
    return np.sum(np.array(xs))


def accepted_and_updated(x):
    xs = []
    for k in range(8):
        p = x + 0.1 * np.sin(k + x)
        if p[0] < 0.5:
            x = p
        xs.append(x)
    x += 1
    return np.sum(np.array(xs))


def perhaps_from_outside(x):
    xs = []
    z = x * 2
    for k in range(8):
        y = z if x[0] * k > 1 else x * k
        xs.append(y)
    z += 1
    return np.sum(np.array(xs))


def the_best_updated(x):
    xs = []
    z = x * 2
    best = z
    for k in range(8):
        y = np.sin(z * k)
        if y[0] > best[0]:
            best = y
        xs.append(y)
    best[1] = 7.0
    return np.sum(np.array(xs))


def the_best_in_the_list(x):
    xs = []
    z = x * 2
    best = z
    for k in range(8):
        y = np.sin(z * k)
        if y[0] > best[0]:
            best = y
        xs.append(y)
    xs[3][1] = 7.0
    return np.sum(best) + np.sum(np.array(xs))


def the_best_updated_in_the_loop(x):
    xs = []
    z = x * 2
    best = z
    for k in range(8):
        best = best.copy() if k > 100 else best
        best[0] = 1.0 * k
        y = np.sin(z * k)
        if y[0] > best[0]:
            best = y
        xs.append(y)
    return np.sum(best) + np.sum(np.array(xs))


def accepted_later(x):
    xs = []
    for k in range(8):
        xs.append(x)
        p = x + 0.1 * np.sin(k + x)
        if p[0] < 0.5:
            x = p
    xs[-1] += 1
    return np.sum(np.array(xs)) + np.sum(x)


def kept_where_accepted(x):
    xs = []
    for k in range(8):
        p = x + 0.1 * np.sin(k + x)
        if p[0] < 0.5:
            x = p
            xs.append(x)
    x += 1
    return np.sum(np.array(xs)) + np.sum(x)


def kept_beside(x):
    xs = []
    y = x * 1.0
    for k in range(8):
        p = x + 0.1 * np.sin(k + x)
        if p[0] < 0.5:
            y = p
            xs.append(p)
        x = p
    y += 1
    return np.sum(np.array(xs)) + np.sum(x) + np.sum(y)


def rotated_items(x):
    b = [x]
    y = x * 1.0
    z = x * 2.0
    for _k in range(6):
        for j in range(7):
            b.append(y * j)
        z = b[-1]
        y, z = z, y
    z[1] = 3.0
    return np.sum(np.array(b))


def items_of_two_lists(x):
    a, b = [], [x]
    z = x * 2.0
    for _k in range(6):
        for j in range(7):
            b.append(x * j)
        a.append(z)
        z = b[-1]
    a[-1] += 1.0
    return np.sum(np.array(b))


def outside_by_turns(x):
    y, z, outer = x * 1.0, x * 2.0, x * 3.0
    for k in range(9):
        y, z = z, y
        z[1] = 0.3 * k
        z = outer
    return np.sum(outer)


def outside_in_a_branch(x):
    y, z = x * 1.0, x * 2.0
    for k in range(9):
        y += 0.1
        y = z if np.sum(y) > 0.03 * k else y * 1.0
    return np.sum(z)


ALIASES = [
    one_item_many_times,
    one_item_until,
    an_item_after,
    an_item_in_the_next_iteration,
    an_item_of_a_branch,
    an_item_by_its_index,
    accepted,
    accepted_and_updated,
    perhaps_from_outside,
    the_best_updated,
    the_best_in_the_list,
    the_best_updated_in_the_loop,
    accepted_later,
    kept_where_accepted,
    kept_beside,
    rotated_items,
    items_of_two_lists,
    outside_by_turns,
    outside_in_a_branch,
]


@pytest.mark.parametrize("program", ALIASES, ids=lambda f: f.__name__)
def test_items_with_other_names(program):
    wanted = program(X.copy())
    try:
        got = dflow.jit(program)(X.copy())
    except TraceError as e:
        assert "another name" in str(e) or "item of a list" in str(e)
    else:
        np.testing.assert_allclose(got, wanted, rtol=1e-12)


def test_accepted_steps_are_a_list():
    np.testing.assert_allclose(dflow.jit(accepted)(X), accepted(X))
