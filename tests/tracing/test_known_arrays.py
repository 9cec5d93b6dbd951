"""NumPy arrays of known values, made in a traced function: they may be updated where nothing else knows them."""

import numpy as np
import pytest

import dflow

X = np.array([0.1, 0.2, 0.3])
TABLE = np.array([1.0, 2.0, 3.0])


def frequencies(x):
    k = np.fft.fftfreq(3) * 2
    k[0] = 1
    return np.sum(x / k)


def normalized(x):
    w = TABLE / TABLE.sum()
    w[1] = x[0]
    return np.sum(w * x)


def diagonal(x):
    a = np.diag([1.0, 2.0, 3.0])
    a[0, 1] = x[0]
    return np.sum(a @ x)


def window(x):
    w = np.hanning(3)
    w += x
    return np.sum(w)


def mask(x):
    m = TABLE > 1.5
    m[0] = True
    return np.sum(x[m])


def loop(x):
    w = -TABLE
    for k in range(3):
        w[k] += x[k] * k
    return np.sum(w**2)


def joined(x):
    def ends():
        return np.concatenate([[1.0], [2.0, 3.0]])

    w = ends()

    def scale():
        w[1:] *= x[1:]

    scale()
    return np.sum(w)


@pytest.mark.parametrize("f", [frequencies, normalized, diagonal, window, mask, loop, joined], ids=lambda f: f.__name__)
def test_updated(f):
    np.testing.assert_allclose(dflow.jit(f)(X), f(X), rtol=1e-14)
    numeric = [(f(X + d) - f(X - d)) / 2e-6 for d in 1e-6 * np.eye(3)]
    np.testing.assert_allclose(dflow.grad(f)(X), numeric, rtol=1e-6, atol=1e-8)
    np.testing.assert_array_equal(TABLE, [1, 2, 3])


class Holder:
    def make(self):
        self.kept = np.hanning(3)
        return self.kept


def test_refused_where_something_else_may_know_them():
    def another_name(x):
        w = TABLE
        w[0] = 3
        return w * x

    def view(x):
        w = TABLE.reshape(3, 1)
        w[0] = 3
        return w * x

    def itself(x):
        w = np.asarray(TABLE)
        w[0] = 3
        return w * x

    def two_names(x):
        a = TABLE * 2
        b = a
        b[0] = 3
        return a * x

    def attribute(x):
        holder = Holder()
        w = holder.make()
        w[0] = 3
        return holder.kept * x

    for f in (another_name, view, itself, two_names, attribute):
        with pytest.raises(dflow.errors.TraceError, match="updating a captured array"):
            dflow.jit(f)(X)
    np.testing.assert_array_equal(TABLE, [1, 2, 3])


def test_a_captured_array_that_an_attempt_has_met_first():
    """The first rounds of such a loop are tried with what is known before it; then it is traced anew."""

    def relaxed(x):
        size, count = 1.0, 0
        while size > 1e-3 and count < 60:
            step = x * TABLE * 0.1
            x, count, size = x - step, count + 1, np.sum(step * step)
        return x + TABLE

    np.testing.assert_allclose(dflow.jit(relaxed)(X), relaxed(X))
    dflow.check_grads(relaxed, (X,))
