"""What Python and NumPy mean by a program: names, views, jumps, structures."""

import functools
import math
from collections import namedtuple
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from programs.registry import program

RNG = np.random.default_rng(7)
X = RNG.normal(size=8)


@program(X, wrt=0, order=2)
def aliases(x):
    """Two names of one array; an update by one is seen by the other."""
    y = x.copy()
    z = y
    for i in range(1, len(y)):
        y[i] += z[i - 1] ** 2
    z[0] = 5.0
    return y.sum() * z[-1]


@program(RNG.normal(size=(6, 8)), wrt=0, updates=0)
def views_of_views(x):
    """Writes through views, to three levels."""
    inner = x[1:5, ::2]
    row = inner[2]
    part = row[::-1]
    part[1:] *= 3.0
    inner.T[0] = inner[:, 1] + 1.0
    x[0] = 0.0
    x[0, 1:4] += part[:3]
    return part[0] * inner[0, 0]


@program(X, 0.5, wrt=(0, 1))
def early_return(x, threshold):
    """Returns from within two loops, where the first pair is found."""
    for i in range(len(x)):
        for j in range(i + 1, len(x)):
            if abs(x[i] - x[j]) < threshold:
                return x[i] * x[j]
    return -1.0


@program(X, wrt=0)
def sum_by_nonlocal(x):
    """A closure that counts and adds."""
    total, calls = 0.0, 0

    def add(v):
        nonlocal total, calls
        total += v
        calls += 1
        return total

    largest = -math.inf
    for v in x:
        largest = max(largest, add(v * v - 1))
    return largest, calls


@program(2.0, X, wrt=(0, 1))
def functions_that_make_functions(a, x):
    def power(n):
        def f(v):
            y = a
            for _ in range(n):
                y = y * v
            return y

        return f

    def composed(f, g):
        return lambda v: f(g(v))

    h = composed(power(3), np.tanh)
    total = 0.0
    for v in x:
        total += h(v)
    return total + functools.partial(pow, a)(2)


@dataclass
class Body:
    position: np.ndarray
    speed: np.ndarray
    mass: float = 1.0
    hits: int = 0

    def moved(self, dt):
        return replace(self, position=self.position + dt * self.speed)

    @property
    def energy(self):
        return 0.5 * self.mass * (self.speed @ self.speed)


@program(Body(np.array([0.2, 0.9]), np.array([1.0, -2.0]), 2.0), 0.1, 20, wrt=(0, 1))
def data_classes(body, dt, steps):
    """A dataclass with methods carried by a loop."""
    for _ in range(steps):
        body = body.moved(dt)
        if body.position[1] < 0:
            body = replace(body, speed=-0.9 * body.speed, hits=body.hits + 1)
    return body.energy, body


class Interval(NamedTuple):
    lo: float
    hi: float

    def __mul__(self, other):
        products = [a * b for a in self for b in other]
        lo = hi = products[0]
        for p in products[1:]:
            lo, hi = np.minimum(lo, p), np.maximum(hi, p)
        return Interval(lo, hi)


@program(Interval(-0.5, 1.2), Interval(0.8, 1.1), 6, wrt=(0, 1), order=2)
def named_tuples(a, b, rounds):
    """Interval arithmetic."""
    for _ in range(rounds):
        a = a * b
        if a.hi - a.lo > 2.0:
            break
    return a


Point = namedtuple("Point", "x y")


@program([Point(0.0, 0.0), Point(1.0, 0.2), Point(0.7, 1.1)], wrt=0)
def list_of_points(points):
    """The area and the length of a polygon given as a list of named tuples."""
    area = length = 0.0
    for p, q in zip(points, [*points[1:], points[0]]):
        area += p.x * q.y - q.x * p.y
        length += math.hypot(q.x - p.x, q.y - p.y)
    return {"area": abs(area) / 2, "length": length}


@program({"w": X[:3].copy(), "deep": {"b": 0.5}}, X, wrt=(0, 1))
def dict_state(p, x):
    """A dict inside a dict, updated in a loop."""
    state = {"p": p, "n": 0, "loss": 0.0}
    for k in range(len(x) - 3):
        error = p["w"] @ x[k : k + 3] + p["deep"]["b"] - x[k + 3]
        state["loss"] += error**2
        state["n"] += 1
        p = {"w": p["w"] - 0.05 * error * x[k : k + 3], "deep": {"b": p["deep"]["b"] - 0.05 * error}}
        state["p"] = p
    return state


@program(50.0, 1e-12, wrt=0)
def while_true(x, tolerance):
    """The square root by Hero's method."""
    y, rounds = x, 0
    while True:
        new = 0.5 * (y + x / y)
        rounds += 1
        if abs(new - y) <= tolerance * new:
            break
        y = new
    return new, rounds


@program(X, 3.5, wrt=(0, 1))
def for_else(x, limit):
    """The rest of a loop that was not left by break."""
    total = 0.0
    for v in x:
        if total > limit:
            break
        total += abs(v)
    else:
        total = -total
    count = 0
    while count < 5:
        count += 1
        if total * count < -1e3:
            break
    else:
        total *= 2.0
    return total


@program(1.3, 5, wrt=0, static="depth", order=2)
def recursion(x, depth):
    """Recursion on a static number."""
    if depth == 0:
        return x
    half = recursion(x * 0.5, depth - 1)
    return math.sin(half) + recursion(x - half, depth - 2) if depth > 1 else half


@program(X, 0.25, 9, wrt=(0, 1))
def swapped_buffers(x, k, rounds):
    """Two buffers that trade places an odd number of times."""
    u, v = x.copy(), np.zeros_like(x)
    for _ in range(rounds):
        for i in range(len(u)):
            v[i] = u[i] + k * (u[i - 1] - 2 * u[i] + u[(i + 1) % len(u)])
        u, v = v, u
    return u - v


def axpy(a, x, y):
    for i in range(len(x)):
        y[i] += a * x[i]


@program(X, X[::-1].copy(), 0.3, wrt=(0, 1, 2), updates=(0, 1))
def updates_of_arguments(x, y, a):
    """A helper that updates its argument, called on a part, and an argument that is sorted by swaps."""
    axpy(a, x[:4], y[2:6])
    axpy(-a, y[::2], x[::2])
    for i in range(len(x) // 2):
        x[i], x[-1 - i] = x[-1 - i], x[i]


@program(X, -0.5, 0.8, wrt=(0, 1, 2))
def chained_comparisons(x, lo, hi):
    inside, total = 0, 0.0
    for v in x:
        if lo < v < hi != 0:
            inside += 1
            total += v * hi
        elif not v >= lo or v == hi:
            total -= lo * lo
    return inside, total


@program(X, wrt=0)
def walrus(x):
    """Assignments within conditions."""
    total, k = 0.0, 0
    while k < len(x) and (v := x[k] * 2) < 3.0:
        if (w := v - 1) > 0 and (z := w * w) < 4:
            total += z
        k += 1
    return total, k


@program(RNG.normal(size=(5, 3)), RNG.normal(size=5), wrt=(0, 1))
def ways_to_loop(a, b):
    """enumerate, zip and reversed, and of each other."""
    total = 0.0
    for i, row in enumerate(a):
        for x, y in zip(row, reversed(b)):
            total += (i + 1) * x * y
    for k, (u, v) in enumerate(zip(b, b[1:]), start=2):
        total += k * u * v
    for i in reversed(range(0, 5, 2)):
        total = total * 0.9 + b[i]
    for i, v in reversed(list(enumerate(b))):
        total -= i * v
    return total


@program([X.copy(), X[:5] * 2, np.ones(3)], 6, wrt=0)
def list_of_arrays(arrays, rounds):
    """Arrays of several lengths in a list, updated in place and replaced."""
    sums = [0.0 for _ in arrays]
    work = [a.copy() for a in arrays]
    for r in range(rounds):
        for k, a in enumerate(work):
            a *= 0.5
            a[0] += r
            sums[k] = sums[k] + a.sum()
    work.append(work[0][:3] + work[2])
    return work[-1], sums


@program(X, wrt=0)
def comprehensions(x):
    """Lists made by comprehensions, with conditions that are known."""
    n = len(x)
    pairs = [(i, j) for i in range(n) for j in range(i) if (i + j) % 3 == 0]
    products = np.array([x[i] * x[j] for i, j in pairs])
    table = {i: x[i] ** 2 for i in range(0, n, 2)}
    return products.sum(), sum(table.values()), max([abs(v) for v in x])


@program(X, "square", wrt=0)
def match_on_strings(x, kind):
    match kind:
        case "square":
            f = lambda v: v * v  # noqa: E731
        case "cube" | "cubic":
            f = lambda v: v**3  # noqa: E731
        case _:
            raise ValueError(kind)
    total = 0.0
    for v in x:
        total += f(v)
    return total


@program(X, wrt=0)
def integers_that_become_floats(x):
    """Numbers that begin as Python's integers."""
    total = largest = 0
    for i in range(len(x)):
        total += x[i] * i
        largest = max(largest, x[i])
    count = 0
    for v in x:
        count += v > 0
    return total / 2, largest, count, count // 2


@program(X, 3, wrt=0)
def traced_bounds(x, n):
    """Ranges whose ends, steps and directions are known only when the program runs."""
    total = 0.0
    for i in range(n, len(x)):
        total += x[i]
    for i in range(len(x) - 1, n, -2):
        total += 2 * x[i]
    for i in range(0, len(x), n):
        total *= 1.0 + x[i]
    for i in range(n):
        for j in range(i, n):
            total += x[i] * x[j]
    return total


@program(RNG.normal(size=(4, 5)), wrt=0, updates=0)
def masks_and_indices(a):
    """Assignment by masks and integer arrays, gathering, and np.add.at."""
    a[a < -0.5] = -0.5
    a[1, [0, 2, 4]] = a[0, [4, 2, 0]]
    a[:, 3] *= np.where(a[:, 3] > 0, 2.0, 1.0)
    np.add.at(a, (np.array([0, 0, 3]), np.array([1, 1, 2])), np.array([1.0, 2.0, 3.0]))
    a[2, ...] -= a[[0, 1, 0], :].sum(axis=0)
    return a[a.shape[0] - 1, -1]


@program(X, wrt=0)
def fills_and_outputs(x):
    """out=, fill, in-place ufuncs, ravel, reshape as views."""
    y = np.empty((2, 4))
    flat = y.reshape(-1)
    np.multiply(x, 2.0, out=flat)
    y[1].fill(1.5)
    np.add(y[0], y[1], out=y[0])
    y.ravel()[0] = 7.0
    z = np.zeros_like(y)
    z += y.T.copy().T
    z[:, ::2] -= y[:, 1::2]
    return z, flat.sum()


class Accumulator:
    """A plain class that holds arrays."""

    def __init__(self, n):
        self.values = np.zeros(n)
        self.count = 0

    def push(self, v):
        self.values[1:] = self.values[:-1].copy()
        self.values[0] = v

    def __call__(self, weights):
        return self.values @ weights


@program(X, np.array([0.5, 0.3, 0.2]), wrt=(0, 1))
def objects(x, weights):
    """An object with state in arrays, made and used inside."""
    window = Accumulator(3)
    total = 0.0
    for v in x:
        window.push(v)
        total += window(weights) ** 2
    return total


@program(1.0, 0.2, 2, wrt=(0, 1))
def arguments_of_all_kinds(x, y, n):
    """Defaults, keywords, and lists of arguments."""

    def f(a, /, b=2.0, *rest, c, **more):
        return a * b + sum(rest) * c + more.get("d", 0.0)

    total = f(x, c=y)
    total += f(x, y, n, x, c=2.0, d=y)
    args, kwargs = (x, y), {"c": x}
    return total + f(*args, **kwargs)


@program(X, wrt=0)
def continue_and_break(x):
    """Jumps of every kind in one nest."""
    total, k = 0.0, 0
    for i in range(len(x)):
        if x[i] < -1.0:
            continue
        k = 0
        while True:
            k += 1
            if k > 6:
                break
            if k % 2:
                continue
            total += x[i] * k
            if total > 8.0:
                break
        if total > 10.0:
            break
    return total, i, k


@program(X, wrt=0)
def conditional_expressions(x):
    total = 0.0
    for i, v in enumerate(x):
        sign = 1.0 if v > 0 else -1.0 if v < 0 else 0.0
        total += sign * (v**2 if i % 2 == 0 else abs(v))
        total = total and total * 1.1
        total = v if v > 10 else total or 1.0
    return total


@program(
    np.float32(1.5),
    np.arange(6, dtype=np.float32),
    np.arange(6, dtype=np.int32),
    wrt=1,
    step=1e-2,
    rtol=1e-6,
    derivative_rtol=1e-3,
)
def types_of_numbers(a, x, k):
    """Single precision stays single with Python's numbers, and integers keep their width."""
    total = x[0]
    for i in range(len(x)):
        total = total + a * x[i] * 0.5
    shifted = k << 2
    return total, x * 2.0, shifted, k * 2, (k % 4).astype(np.int8)


@program(X, 1.7, wrt=(0, 1))
def asserts_and_raises(x, scale):
    """Checks that hold."""
    assert scale > 0, "scale must be positive"
    total = 0.0
    for v in x:
        if v != v:
            raise ValueError("not a number")
        total += math.log(scale + v * v)
    assert 0 < total < 1e6
    return total
