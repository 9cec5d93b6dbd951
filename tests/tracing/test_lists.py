"""Lists that loops append to, and list comprehensions: loops of the program, not copies of their bodies."""

import bisect
import heapq
from typing import NamedTuple

import numpy as np
import pytest

import dflow
from dflow.errors import CarriedError, TraceError

N = 24
X = np.array([0.3, -0.7, 1.1])
TIMES = np.linspace(0.0, 1.0, N)


class State(NamedTuple):
    position: np.ndarray
    velocity: np.ndarray


class Log:
    def __init__(self):
        self.values = []

    def add(self, x):
        self.values.append(x)


def trajectory(x):
    xs = []
    for k in range(N):
        x = np.sin(x) + 0.1 * k
        xs.append(x)
    return np.sum(np.array(xs) ** 2)


def from_the_last(x):
    xs = [x]
    for _ in range(N):
        xs.append(np.cos(xs[-1]) + 0.1)
    return np.sum(np.stack(xs, axis=1) * np.arange(N + 1.0))


def from_the_last_two(x):
    xs = [x, 2 * x]
    for _ in range(N):
        xs.append(0.5 * xs[-1] - 0.3 * xs[-2])
    return np.sum(np.vstack(xs)[-1]) + np.sum(np.concatenate(xs) ** 2) + np.sum(xs[1])


def from_any(x):
    xs = [x[0]]
    for k in range(N):
        xs.append(xs[k] * 0.9 + xs[0] * x[1])
    return xs[-1] + xs[5] + np.array(xs)[3] + np.sum(xs[2:7])


def guarded(x):
    xs = []
    for k in range(N):
        if k > 0:
            x = 0.9 * x + 0.1 * xs[-1]
        if len(xs) > 3:
            x = x + 0.1 * xs[-3]
        xs.append(x)
    return np.sum(np.array(xs))


def pairs(x):
    history = []
    for k in range(N):
        x = 0.9 * x + 0.1
        history.append((0.1 * k, x))
    total = 0.0
    for t, y in history:
        total = total + t * np.sum(y**2)
    return total


def named(x):
    states = [State(x, 0.0 * x)]
    for _ in range(N):
        p = states[-1]
        v = p.velocity - 0.1 * p.position
        states.append(State(p.position + 0.1 * v, v))
    return np.sum(states[-1].position ** 2) + sum(np.sum(p.velocity**2) for p in states)


def nested(x):
    table = []
    for i in range(N):
        row = []
        for j in range(N + 1):
            row.append(x[0] * i + x[1] * j * np.sin(1.0 * j))
        table.append(row)
    return np.sum(np.array(table) ** 2) + table[3][4]


def backwards(x):
    xs = []
    for _ in range(N):
        xs.append(x)
        x = np.tanh(x) * 1.5
    total = np.sum(x)
    for k in range(N):
        total = total + np.sum(xs[N - 1 - k] * k)
    for k, (a, b) in enumerate(zip(xs, reversed(xs))):
        total = total + k * np.sum(a * b)
    return total


def in_objects(x):
    history, log = {"x": [], "t": []}, Log()
    for k in range(N):
        x = x * 0.9 + 0.05
        history["x"].append(x)
        history["t"].append(0.5 * k)
        log.add(np.sum(x))
    return np.sum(np.array(history["x"])[:, 0] * np.array(history["t"])) + np.mean(log.values) * log.values[3]


def records(x):
    items = []
    for k in range(N):
        items.append({"a": x * k, "b": np.sum(x), "kind": "step"})
    return sum(np.sum(d["a"]) * d["b"] for d in items if d["kind"] == "step")


def several(x):
    xs = []
    for k in range(N):
        xs.append(x * k)
        xs += [x * 0.5]
    return np.sum(np.array(xs) ** 2) + len(xs)


def window(x):
    xs = [x * k for k in range(3)]
    for _ in range(N):
        xs.append(xs[-1] * 0.5 + xs[-3] * 0.1)
        xs.pop(0)
    return np.sum(np.array(xs))


def copies(x):
    x, xs = x.copy(), []
    for k in range(N):
        x += 0.1 * k
        xs.append(x.copy())
    x += 5.0
    return np.sum(np.array(xs) ** 2) + np.sum(x)


def one_array_many_times(x):
    """What is appended is one array, and all items are what it is in the end."""
    x, xs = x.copy(), []
    for _ in range(N):
        x += 0.1
        xs.append(x)
    return np.sum(np.array(xs) ** 2)


def the_last_updated(x):
    xs = []
    for _ in range(N):
        x = x * 0.9
        xs.append(x)
    x += 5.0
    xs[0] += 1.0
    return np.sum(np.array(xs) ** 2)


def updated_after_appending(x):
    xs = []
    for k in range(N):
        y = x * k
        xs.append(y)
        y[0] = 3.0
    return np.sum(np.array(xs) ** 2)


def items_updated(x):
    xs = [x * k for k in range(N)]
    for y in xs:
        y *= 2.0
    return np.sum(np.array(xs) ** 2)


def one_state(x):
    state, states = {"x": x.copy()}, []
    for _ in range(N):
        state["x"] = state["x"] * 0.9
        states.append(state)
    return sum(np.sum(s["x"]) for s in states)


def sizes(x):
    """Integers and floats that hang on the loop's index alone stay known: they may be sizes."""
    counts = [2 * k for k in range(N)]
    times = [0.1 * k for k in range(N)]
    y = np.zeros(counts[-1] + 1)
    y[counts] = x[0]
    return np.sum(y**2) + np.sum(np.ones(int(times[20] * 10)) * x[1])


def comprehensions(x):
    curve = np.array([np.sin(x[0] * t) + x[1] for t in TIMES])
    grid = np.array([[x[0] * i + x[1] * j for j in range(N)] for i in range(N)])
    odd = [x[2] * i for i in range(N) if i % 2]
    weights = [x * i for i in range(N)]
    y = x
    for w in weights:
        y = np.tanh(w * y) + y
    return np.sum(curve**2) + np.mean(grid) + sum(odd) + np.sum(y) + max(odd)


def in_a_branch(x):
    xs = []
    for k in range(N):
        x = np.sin(1.3 * x) + 0.01 * k
        if x[0] > 0.3:
            xs.append(x)
    return np.sum(np.array(xs)[:, 1] ** 2) + len(xs) + np.sum(xs[-1] * xs[0])


def until_small(x):
    errors, y = [], x
    for k in range(N):
        y = 0.5 * (y + x)
        errors.append(np.sum(np.abs(y - x)) + np.exp(x[0] - k))
        if errors[-1] < 1e-3:
            break
    return errors[-1] + len(errors) * errors[0] + np.sum(errors) + max(errors)


def several_places(x):
    times, values = [], []
    for k in range(N):
        v = np.sin(x[0] * k)
        if v > 0 and x[1] < 0:
            times.append(k)
            values.append(v * x[2])
        elif v < -0.5:
            values += [v]
    total = 0.0
    for v in values:
        total = total + v * v
    return total + np.sum(np.array(times)) * x[0] + sum(v for v in values) + sum(values)


def of_two_loops(x):
    events = []
    for i in range(N):
        for j in range(i):
            d = x[0] * i - x[1] * j
            if d > 5.05:
                events.append((d, x * j))
    return sum(d * np.sum(v) for d, v in events)


def from_the_last_kept(x):
    kept = [x]
    for _ in range(N):
        y = kept[-1] * 0.9
        if np.sum(y) > 0.01:
            kept.append(y)
    return np.sum(np.stack(kept)[:, 1]) + np.sum(kept[-1])


def primes(x):
    found = []
    for n in range(2, 50):
        for p in found:
            if n % p == 0:
                break
        else:
            found.append(n)
    return x[0] * sum(found) + len(found)


def every_tenth(x):
    kept = []
    for k in range(3000):
        x = 0.999 * x
        if k % 100 == 0:
            kept.append(x)
    return np.sum(kept[2]) + len(kept) + np.mean(kept)


def continued(x):
    xs = []
    for k in range(N):
        if x[0] * k > 3.1:
            continue
        xs.append(x[0] * k)
    doubled = [2 * y for y in xs]
    if not xs:
        return 0.0
    return xs[2] * doubled[-2] + sum(doubled)


PROGRAMS = [
    trajectory, from_the_last, from_the_last_two, from_any, guarded, pairs, named, nested, backwards, in_objects,
    records, several, window, copies, one_array_many_times, the_last_updated, updated_after_appending, items_updated,
    one_state, sizes, comprehensions, in_a_branch, until_small, several_places, of_two_loops, from_the_last_kept,
    primes, every_tenth, continued,
]  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda f: f.__name__)
def test_lists_are_pythons(program):
    np.testing.assert_allclose(dflow.jit(program)(X), program(X.copy()), rtol=1e-12)
    gradient = dflow.grad(program)(X)
    forward = [dflow.jvp(program, (X,), (e,))[1] for e in np.eye(3)]
    numeric = [(program(X + 1e-6 * e) - program(X - 1e-6 * e)) / 2e-6 for e in np.eye(3)]
    np.testing.assert_allclose(gradient, forward, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(gradient, numeric, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "program", [trajectory, from_the_last, pairs, named, nested, backwards, in_objects, comprehensions]
)
def test_the_program_does_not_grow_with_the_iterations(program):
    lines = str(dflow.jit(program).lower(X).ir("optimized")).count("\n")
    assert lines < 8 * N


def test_lists_as_results():
    def made(x):
        xs, ys = [x], []
        for k in range(6):
            x = x * 0.5
            xs.append(x)
            ys.append((k, x[0]))
        return xs, ys, [x * k for k in range(20)]

    got, want = dflow.jit(made)(X), made(X)
    for a, b in zip(got, want):
        assert len(a) == len(b)
        np.testing.assert_allclose(np.array(a[0]), np.array(b[0]))
    np.testing.assert_allclose(got[0], want[0])
    np.testing.assert_allclose(got[2], want[2])
    assert [k for k, _ in got[1]] == list(range(6))


def test_empty_at_first():
    def wrong(x):
        xs = []
        for _ in range(N):
            xs.append(xs[-1] + x)
        return xs

    with pytest.raises(IndexError, match="list index out of range"):
        dflow.jit(wrong)(X)


def test_a_position_outside():
    def read(x, k):
        xs = [x[0]]
        for i in range(N):
            xs.append(xs[k] + i)
        return xs[-1]

    assert dflow.jit(read)(X, 0) == read(X, 0)
    assert dflow.jit(read)(X, -1) == read(X, -1)
    for k in (1, -2):
        with pytest.raises(IndexError, match="list index out of range"):
            dflow.jit(read)(X, k)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.uint16])
def test_positions_of_narrow_integers(dtype):
    """The length of the list need not be a number of the position's type."""

    def histogram(values):
        counts = [0] * 300
        for v in values:
            counts[v] += 1
        return np.array(counts)

    def item(x, i):
        kept = [v for v in x if v >= 0]
        return kept[i] + [0.5 * k for k in range(300)][i]

    values = np.array([3, 100, 3, 127] * 10, dtype)
    assert np.array_equal(dflow.jit(histogram)(values), histogram(values))
    for i in (dtype(100), np.int8(-1)):
        assert dflow.jit(item)(np.arange(300.0), i) == item(np.arange(300.0), i)


def test_two_names():
    def both(x):
        xs, ys = [], []
        for _ in range(N):
            x = x * 0.9
            xs.append(x)
            ys.append(x)
        ys[-1] += 1.0
        return np.sum(np.array(xs) ** 2)

    with pytest.raises(CarriedError, match="another name"):
        dflow.jit(both)(X)


def evens(x):
    xs = []
    for k in range(N):
        if x[0] * k < 4.0:
            xs.append(x[0] * k)
    return xs


USES = {
    "returned": lambda xs: xs,
    "taken apart": lambda xs: _rest(xs),
    "made a set": lambda xs: len(set(xs)),
    "made a tuple": lambda xs: len(tuple(xs)),
    "sorted by a key": lambda xs: sorted(xs, key=lambda x: -x)[0],
    "shortened in the middle": lambda xs: xs.pop(1),
    "repeated": lambda xs: len(xs * 2),
    "replaced": lambda xs: xs.__setitem__(0, 1.0),
    "counted by a generator": lambda xs: sum(1 for _ in iter(xs)),
    "a dict": lambda xs: len({k: 1.0 for k in xs}),
}


def _rest(xs):
    _, *rest = xs
    return len(rest)


@pytest.mark.parametrize("use", USES)
def test_what_needs_the_length_is_refused(use):
    with pytest.raises(CarriedError, match=r"a list that becomes longer at .* is used"):
        dflow.jit(lambda x: USES[use](evens(x)))(X)


def test_a_length_that_depends_on_the_run():
    assert dflow.jit(lambda x: np.array(evens(x)))(X).shape == (14,)
    assert dflow.jit(lambda x: len(evens(x)))(X * 100) == 1
    with pytest.raises(IndexError, match="list index out of range"):
        dflow.jit(lambda x: evens(x)[5])(X * 100)
    bounded = dflow.jit(lambda x, n: _bounded(x, n))
    for n in (0, 7):
        np.testing.assert_allclose(bounded(X, n), _bounded(X, n))


def _bounded(x, n):
    assert n <= 20
    xs = []
    for k in range(n):
        xs.append(x * k)
    return np.array(xs).sum() if n > 0 else 0.0


def test_an_update_would_not_reach_the_list():
    def updated(x):
        x, xs = x.copy(), []
        for k in range(N):
            if x[0] * k < 4.0:
                y = x * k
                xs.append(y)
                y[0] = 1.0
        return np.sum(np.array(xs))

    with pytest.raises(TraceError):
        dflow.jit(updated)(X)

    def later(x):
        xs = [y * x for y in evens(x)]
        xs[1] += 1.0
        return np.sum(np.array(xs))

    with pytest.raises(CarriedError):
        dflow.jit(later)(X)


# -- searches of the standard library ----------------------------------------------------------------------------------


def _interpolated(xs, ys, t):
    k = min(max(bisect.bisect_right(xs, t) - 1, 0), len(xs) - 2)
    return ys[k] + (ys[k + 1] - ys[k]) * (t - xs[k]) / (xs[k + 1] - xs[k])


@pytest.mark.parametrize("search", [bisect.bisect_left, bisect.bisect_right])
def test_bisect(search):
    xs = np.array([0.0, 1.0, 1.0, 1.0, 4.0])
    among = dflow.jit(lambda xs, v: (search(xs, v), search(list(xs), v, 2), search(xs, v, 0, 3, key=lambda x: x * v)))
    for v in (-1.0, 0.0, 1.0, 2.0, 5.0, np.nan):
        assert among(xs, v) == (search(xs, v), search(xs, v, 2), search(xs, v, 0, 3, key=lambda x: x * v))
    assert dflow.jit(lambda xs: search(xs, 1.0))(xs[:0]) == 0
    dflow.check_grads(_interpolated, (np.array([0.0, 0.5, 2.0]), X, 0.8), order=2)


def test_the_smallest_and_the_largest():
    def ends(x, q):
        near = heapq.nsmallest(2, [(a - q) ** 2 for a in x])
        return near[0] - 2 * near[1], heapq.nlargest(2, x, key=abs)[1], len(heapq.nsmallest(-1, x))

    assert dflow.jit(ends)(X, 0.1) == ends(X, 0.1)
    dflow.check_grads(lambda x, q: sum(ends(x, q)), (X, 0.1))


@pytest.mark.parametrize("reverse", [False, True])
def test_sorted_by_several_numbers(reverse):
    def order(x):
        pairs = sorted(((v, -i) for i, v in enumerate(x)), reverse=reverse)
        return [i for _, i in pairs], sorted(x, key=lambda v: (v > 1, v * v), reverse=reverse)

    x = np.array([1.0, 0.0, 2.0, 1.0, -1.0, 0.0])
    assert dflow.jit(order)(x) == order(x)
    dflow.check_grads(lambda x: sum(k * v for k, v in enumerate(order(x)[1])), (X,))
