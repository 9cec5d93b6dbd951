"""Updates, views and aliases behave as in NumPy."""

import operator

import numpy as np
import pytest

import dflow

X = np.arange(12.0).reshape(3, 4) + 1
V = np.array([2.0, -1.0, 3.0, 0.5, -4.0, 1.5])


def elements(x):
    y = np.zeros((3, 4))
    y[0, 1] = 5
    y[-1] = x[0]
    y[1][2] = 7
    y[:, 0] += 2
    y[1:, ::2] *= 3
    return y


def views(x):
    y = x.copy()
    v = y[1:]
    w = v[::-1, 1:3]
    w[0, 0] = 100
    v += 1
    y[2, 3] = -1
    return y, v, w


def transposed(x):
    y = x.copy()
    t = y.T
    t[0] = 9
    r = y.reshape(4, 3)
    r[0, 1] = -5
    y[1, 1] = 77
    return y, t, r


def aliases(x):
    y = x.copy()
    z = y
    z[0] = 0
    z += 1
    return y


def updates_argument(x):
    x[0] = 5
    x *= 2


def updates_argument_in_loop(x):
    for i in range(len(x)):
        x[i, 0] = i


def scalar_rebinding(x):
    a = x[0, 0]
    b = a
    a += 1
    return a, b


def indices(x):
    i = np.array([2, 0, 2])
    return (
        x[i],
        x[i, 1],
        x[:, [0, -1]],
        x[..., 1],
        x[None, 1],
        x[1, None, :, None],
        x[[0, 1], :2],
        x[[[0], [1]], [1, 2]],
    )


def index_assignment(x):
    y = x.copy()
    y[[0, 2]] = 3
    y[[0, 1], [1, 2]] += 5
    y[:, [0, 3]] = y[:, [3, 0]]
    return y


def masks(x):
    y = x.copy()
    y[y > 6] = 0
    y[y < 3] += 10
    m = np.array([True, False, True])
    return y, x[m]


def add_at(x):
    y = np.zeros(4)
    np.add.at(y, np.array([0, 1, 1, 3]), x[0])
    np.subtract.at(y, [0, 0], 1.0)
    return y


def swap(x):
    x[0], x[1] = x[1].copy(), x[0].copy()
    return x


def double_buffer(x):
    u = x.copy()
    w = np.zeros_like(x)
    for _ in range(5):
        w[1:-1] = u[:-2] + u[2:]
        u, w = w, u
    return u, w


def double_buffer_argument(u):
    w = np.zeros_like(u)
    for t in range(7):
        w[1:-1] = u[:-2] + u[2:]
        w[0] = t
        u, w = w, u
    return u


def rebinding_in_loop(x):
    y = x
    for _ in range(6):
        y = y * 2 + x
    return y


def alias_in_loop(x):
    y = x
    for i in range(6):
        y[i] = x[i] + 1
    return x


def loop_update_through_view(x):
    y = np.zeros((3, 6))
    row = y[1]
    for i in range(6):
        row[i] = x[i]
        row += 1
    return y


def update_in_branch_and_loop(x):
    y = np.zeros(6)
    z = y
    for i in range(6):
        if x[i] > 0:
            z[i] = x[i]
        else:
            y[i] -= 1
    return y


def integers(x):
    y = np.zeros(6, dtype=int)
    for i in range(6):
        y[i] = i * 2
        y[i] += 1
    return y, y / 2, y // 2, y % 3, y > 3


def histogram(x):
    h = np.zeros(4)
    for i in range(len(x)):
        h[i % 4] += x[i] * x[i]
    return h


def in_place_promotion(x):
    y = x.astype(np.float32)
    y += 1
    y[0] = 3
    return y * 2.5, y + np.float64(1), y + x


def temporaries(x):
    acc = np.zeros(6)
    for i in range(6):
        t = np.zeros(2)
        t[0] = x[i]
        t[1] = t[0] * 2
        acc[i] = t.sum()
    return acc


def function_updates(x):
    def put(a, i, v):
        a[i] = v

    y = np.zeros(6)
    for i in range(6):
        put(y, i, x[i] * 2)
    put(y, 0, -1)
    return y


def fill_and_ellipsis(x):
    y = np.empty(6)
    y.fill(3)
    y[...] += x
    z = y[...]
    z[0] = 0
    return y


MATRIX = [elements, views, transposed, aliases, updates_argument, updates_argument_in_loop, scalar_rebinding, indices,
          index_assignment, masks, add_at, swap]  # fmt: skip
VECTOR = [double_buffer, double_buffer_argument, rebinding_in_loop, alias_in_loop, loop_update_through_view,
          update_in_branch_and_loop, integers, histogram, in_place_promotion, temporaries, function_updates,
          fill_and_ellipsis]  # fmt: skip


@pytest.mark.parametrize("fn", MATRIX, ids=lambda f: f.__name__)
def test_matrix(check, fn):
    check(fn, X)


@pytest.mark.parametrize("fn", VECTOR, ids=lambda f: f.__name__)
def test_vector(check, fn):
    check(fn, V)


def stencil(u, n):
    w = u.copy()
    for _ in range(n):
        w[1:-1] = u[:-2] + u[2:]
        u, w = w, u
    return u


def stencil_copy(x, n):
    u = x.copy()
    w = np.zeros_like(u)
    t = 0
    while t < n:
        w[1:-1] = u[:-2] + u[2:]
        u, w = w, u
        t += 1
    return u


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_traded_places_in_a_dynamic_loop(check, n):
    check(stencil_copy, V, n)


def negative_index(x, i):
    y = x.copy()
    y[i] = 10
    y[i - 1] += 1
    return x[i], y


@pytest.mark.parametrize("i", [-5, -1, 0, 3])
def test_traced_index(check, i):
    check(negative_index, V, i)


def steps(x, start, stop, step):
    y = x.copy()
    y[start:stop:step] *= 2
    view = y[::step]
    view += y[start]
    y[:stop:step] = 7
    return x[start:stop:step], y


@pytest.mark.parametrize("step", [-(2**63), -7, -2, -1, 1, 2, 6])
def test_traced_step(step):
    compiled = dflow.jit(steps)
    for start, stop in ((0, 6), (5, 0), (-2, -9), (4, 1), (2, 2)):
        for found, wanted in zip(compiled(V, start, stop, step), steps(V, start, stop, step)):
            np.testing.assert_array_equal(found, wanted, strict=True)


def test_derivative_through_a_traced_step():
    value = lambda x, step: np.sum(x[::step] ** 2 * x[0])  # noqa: E731
    dflow.check_grads(lambda x: value(x, -2), (V,), order=2)
    for step in (-2, 3):
        wanted = np.zeros(6)
        wanted[::step] = 2 * V[::step] * V[0]
        wanted[0] += np.sum(V[::step] ** 2)
        np.testing.assert_allclose(dflow.grad(value)(V, step), wanted)
    with pytest.raises(ValueError, match="slice step cannot be zero"):
        dflow.jit(value)(V, 0)


def pick(x, i):
    return x[i]


def test_index_out_of_range(check):
    from tests.tracing.conftest import run

    with pytest.raises(IndexError, match="index 6 is out of bounds for axis 0 with size 6"):
        run(pick, V, 6)


def test_element_updates_are_single_operations(ops):
    names = ops(loop_update_through_view, V)
    assert names.count("update") == 2 or "transpose" not in names


def swapped_by_for(x, n):
    u, v = x, x * 0
    for _ in range(n):
        for i in range(len(u)):
            v[i] = 0.5 * (u[i] + u[i - 1])
        u, v = v, u
    return u


def swapped_by_while(x, n):
    u, v, w = x, x * 0, x + 1
    t = 0
    while t < n:
        w[:] = u + v
        u, v, w = w, u, v
        t += 1
    return u + 2 * v, w


def swapped_and_left(x, n):
    u, v = x, np.zeros_like(x)
    for _ in range(n):
        v[:] = u * 0.5
        u, v = v, u
        if u[0] < 0.1:
            break
    return u


@pytest.mark.parametrize("n", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("fn", [stencil, swapped_by_for, swapped_by_while, swapped_and_left], ids=lambda f: f.__name__)
def test_argument_among_buffers_that_trade_places(check, fn, n):
    check(fn, np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), n)


VIEWS_OR_COPIES = [
    lambda x: np.array(x, copy=False),
    lambda x: np.array(x, copy=None, ndmin=3)[0],
    lambda x: np.array(x),
    lambda x: np.asarray(x),
    lambda x: np.asarray(x, copy=True),
    lambda x: np.asarray(x.T, float),
    lambda x: np.ascontiguousarray(x),
    lambda x: np.ascontiguousarray(x[1]),
    lambda x: np.ascontiguousarray(x.T),
    lambda x: np.ascontiguousarray(x[:, ::2]),
    lambda x: np.asfortranarray(x),
    lambda x: np.asfortranarray(x.T),
    lambda x: np.require(x.T, requirements="C"),
    lambda x: np.require(x.T, requirements=["F", "W"]),
    lambda x: x.astype(float),
    lambda x: x.astype(float, copy=False),
    lambda x: x.astype(np.float32, copy=False),
    lambda x: np.astype(x, np.float64, copy=False),
    lambda x: x.conj(),
    lambda x: np.conj(x),
    lambda x: np.real(x),
    lambda x: x.view(),
    lambda x: x.T.reshape(-1),
    lambda x: x.reshape((3, 2), order="F"),
    lambda x: x.T.reshape(6, order="F"),
    lambda x: np.reshape(x, 6, copy=True),
    lambda x: x.ravel("F"),
    lambda x: x.T.ravel(order="F"),
    lambda x: x.flatten(order="F"),
    lambda x: np.atleast_3d(x),
    lambda x: operator.iadd(x[1, 2, ...], 5)[None],
    lambda x: operator.iadd(x[1, 2], 5)[None],
    lambda x: np.split(x, 2)[1],
    lambda x: np.unstack(x, axis=1)[0],
    lambda x: x.T.ravel("K"),
    lambda x: x.T.ravel("A"),
    lambda x: x.T[::2].flatten("K"),
    lambda x: x.T[::2].ravel("A"),
    lambda x: x[None].swapaxes(0, 1).reshape(6, order="A"),
    lambda x: np.stack([x, x]).swapaxes(0, 1).ravel("A"),
    lambda x: x.T.reshape(6, order="A", copy=False),
]


def test_views_and_copies_are_those_of_numpy():
    def updated(x):
        pairs = []
        for make in VIEWS_OR_COPIES:
            whole = x + 0
            part = make(whole)
            part[0] = 9
            pairs.append((whole, part))
        return pairs

    x = np.arange(6.0).reshape(2, 3)
    for k, (found, expected) in enumerate(zip(dflow.jit(updated)(x), updated(x))):
        for a, b in zip(found, expected):
            np.testing.assert_array_equal(a, b, err_msg=f"entry {k}")
            assert a.dtype == b.dtype


def test_a_copy_that_is_forbidden_or_a_conversion_that_may_not_be():
    x = np.arange(3.0)
    with pytest.raises(ValueError, match="Unable to avoid copy"):
        dflow.jit(lambda x: np.array(x, np.float32, copy=False))(x)
    with pytest.raises(TypeError, match="Cannot cast"):
        dflow.jit(lambda x: x.astype(int, casting="safe"))(x)


@pytest.mark.parametrize("f", [lambda x: (2 * x.T).ravel("K"), lambda x: x.copy("F").reshape(6, order="A")])
def test_an_order_in_memory_that_is_not_known(f):
    with pytest.raises(dflow.errors.TraceError, match="how the array lies in memory"):
        dflow.jit(f)(X[:2, :3])


@pytest.mark.parametrize("f", [lambda x: x.T.reshape(12, copy=False), lambda x: x.reshape(12, order="F", copy=False)])
def test_a_reshape_that_must_not_copy(f):
    for g in (f, dflow.jit(f)):
        with pytest.raises(ValueError, match="Unable to avoid creating a copy"):
            g(X)


def test_an_item_is_a_number_of_pythons(check):
    check(
        lambda x, y: (x[0].item() * y, y.max().item() ** 2, y.tolist()[1] * x, (y > 0)[0].item() * y), V, V.astype("f")
    )


def test_what_numpy_has_as_a_view_is_refused_once_the_two_differ():
    z = np.arange(3)

    def part(z):
        return z.view(np.float64)

    def written(z):
        z = z.copy()
        part(z)[0] = 1.0
        return z

    def read(z):
        z = z.copy()
        p = part(z)
        z[0] = 2
        return p

    def apart(z):
        p = part(z + 1)
        p[0] = 5.0
        return p

    for f in (written, read):
        with pytest.raises(TypeError, match="another name"):
            dflow.jit(f)(z)
    np.testing.assert_array_equal(dflow.jit(apart)(z), apart(z))


class Total:
    """A number, and arrays and lists of such, that a function changes while it computes what is added to them."""

    def __init__(self, x):
        self.sum, self.array, self.items = 0.0, x[0].copy(), [x[0, 0], 1.0]

    def walk(self, depth):
        if depth == 0:
            return self.array[2]
        self.sum += self.walk(depth - 1)
        self.items[0] -= self.walk(depth - 1) * self.items[1]
        self.array[0] += self.walk(depth - 1)
        self.array[:2] *= self.walk(depth - 1)
        return self.sum + self.items[0]


def test_what_is_updated_is_read_before_what_it_is_updated_with(check):
    def f(x):
        total = Total(x)
        total.walk(2)
        return total.sum, total.array, total.items

    check(f, X)

    def rows(x):
        total = Total(x)
        total.array[np.array([0, 1])] += total.walk(1)
        return total.array

    with pytest.raises(dflow.errors.DflowError, match="call the function before"):
        dflow.jit(rows)(X)
