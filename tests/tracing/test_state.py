"""What blocks do to variables and objects around them is right, or refused."""

from dataclasses import dataclass

import numpy as np
import pytest

X = np.array([2.0, -1.0, 3.0, 0.5, -4.0, 1.5])


def nonlocal_in_loop(x):
    k = 0

    def count(v):
        nonlocal k
        k += 1
        return v * k

    s = 0.0
    for i in range(6):
        s += count(x[i])
    return s, k


def nonlocal_in_branch(x):
    k = 1

    def double():
        nonlocal k
        k = k * 2

    if x[0] > 0:
        double()
    return k


def make_counter():
    n = 0

    def count():
        nonlocal n
        n += 1
        return n

    return count


def counter_of_another_function(x):
    count = make_counter()
    s = 0.0
    for i in range(6):
        s += x[i] * count()
    return s


def long_while(x):
    i = 0
    s = 0.0
    while i < 1000:
        s = s * 0.5 + x[i % 6]
        i += 1
    return s, i


def short_while(x):
    n = 1
    while n < 6:
        n *= 2
    return np.zeros(n) + x[0]


def static_while_without_operations(x):
    n = 0
    while n < 100:
        n += 1
    return np.zeros(n) + x[0]


def list_elements_in_loop(x):
    p = [x[0], x[1]]
    for i in range(6):
        p[0] = p[0] + x[i]
        p[1] = p[1] * 0.5
    return p


@dataclass
class Counter:
    n: int = 0
    total: float = 0.0


def attributes_in_loop(x):
    c = Counter()
    for i in range(6):
        c.n += 1
        c.total += x[i]
    return c.n, c.total


def dictionary_in_loop(x):
    d = {}
    for i in range(6):
        d[i] = x[i] * 2
    return d[0] + d[5]


def conditional_temporary(x):
    s = 0.0
    for i in range(6):
        if x[i] > 0:
            t = x[i] * 2
            s += t
        else:
            u = x[i]
            s -= u
    return s


def same_name_other_shape(x):
    s = 0.0
    for i in range(6):
        t = x * i
        s += t.sum()
        t = x[i]
        s += t
    t = s
    return t


def while_walrus(x):
    i = 0
    s = 0.0
    while (v := x[i]) > -3:
        s += v
        i += 1
    return s


def loop_variable_after(x):
    for i in range(6):  # noqa: B007
        pass
    return x[i]


def bool_state(x):
    seen = False
    for v in x:
        seen = seen or v < -3
    return seen


def number_to_array(x):
    s = 0
    for i in range(6):
        s = s + x[i] * 2
    m = 1
    while m < x[2] * 10:
        m = m * 2
    return s, m


def views_in_branch(x):
    y = x.copy()
    v = y[2:]
    if x[0] > 0:
        v[0] = 9
    else:
        y[3] = 4
    return y, v


def same_array_either_way(x):
    y = np.zeros(6)
    if x[0] > 0:
        z = y
    else:
        z = y
    z[0] = 1
    return y


def none_default(x, scale=None):
    if scale is None:
        scale = 2.0
    return x * scale


def string_modes(x):
    mode = "sum"
    s = 0.0
    for i in range(6):
        if mode == "sum":
            s += x[i]
    return s


def keys_of_the_index(x):
    """Loops of more iterations than are unrolled anyway, whose numbers become keys."""
    paid, groups, seen, s = {}, {}, set(), 0.0
    for i in range(6):
        paid[i / 2] = 20.0
    for i in range(6):
        groups.setdefault(i % 2, []).append(x[i] * paid[i / 2])
    for i in range(6):
        if i // 2 in seen:
            continue
        seen.add(i // 2)
        s += x[i]
    return s, sum(t * v for t, v in paid.items()), sum(groups[0]) - 2 * sum(groups[1])


def recursion_that_ends_by_the_index(x):
    def binomial(n, k):
        return 1 if k in (0, n) else binomial(n - 1, k - 1) + binomial(n - 1, k)

    s = 0.0
    for i in range(6):
        s += binomial(5, i) * x[i]
    return s, sum(binomial(n, k) * x[k] for n in range(5) for k in range(n + 1))


FUNCTIONS = [
    nonlocal_in_loop, nonlocal_in_branch, counter_of_another_function, long_while, short_while,
    static_while_without_operations, list_elements_in_loop, attributes_in_loop, dictionary_in_loop,
    conditional_temporary, same_name_other_shape, while_walrus, loop_variable_after, bool_state, number_to_array,
    views_in_branch, same_array_either_way, none_default, string_modes, keys_of_the_index,
    recursion_that_ends_by_the_index,
]  # fmt: skip


@pytest.mark.parametrize("fn", FUNCTIONS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_state(check, fn, sign):
    if fn is while_walrus and sign < 0:
        pytest.skip("runs past the end")
    check(fn, X * sign)


def test_long_while_is_a_loop(ops):
    names = ops(long_while, X)
    assert names.count("while") == 1 and len(names) < 60


def global_store(x):
    global COUNT
    COUNT = x[0]
    return x


def test_global_store_is_refused(fails):
    assert "the function assigns the global variable 'COUNT'" in fails(global_store, X)


def maybe_alias(x):
    y = x.copy()
    if x[0] > 0:
        z = y
    else:
        z = y * 2
    z[0] = 1
    return y


def maybe_stale(x):
    y = x.copy()
    if x[0] > 0:
        z = y
    else:
        z = y * 2
    y[0] = 1
    return z


def test_what_may_be_an_alias_is_not_updated(fails):
    assert "may be another name" in fails(maybe_alias, X)
    assert "may be another name" in fails(maybe_stale, X)


def endless(x):
    return endless(x) + 1


def endless_with_a_loop(x):
    s = 0.0
    for i in range(6):
        s += endless_with_a_loop(x + i)
    return s


@pytest.mark.parametrize("fn", [endless, endless_with_a_loop])
def test_endless_recursion(fails, fn):
    assert f"recursion of {fn.__name__}" in fails(fn, X)
