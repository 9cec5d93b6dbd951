"""Real and imaginary parts are views, as in NumPy: what is written to them reaches the complex array."""

import numpy as np
import pytest

import dflow

Z = np.array([1 + 2j, 3 - 1j, 2j])


def assigned(z):
    y = z.copy()
    y.imag = y.real
    y.real[:] = 3.0
    y.real[0] += 1.0
    part = y.real
    part[1] = 5.0
    return y, part


def augmented(z):
    y = z.astype(np.complex64)
    y.real += 1.5
    y.imag **= 2
    y.imag[y.real > 3] = 9.0
    return y, y.imag.dtype.itemsize * 1.0


def through_other_views(z):
    y = z.reshape(3, 1) * np.ones((3, 2))
    y.T.real[0] = 7.0
    y.real.T[1, 2] = 5
    y[1].imag[:] = [1.0, 2.0]
    np.add.at(y.real, [0, 0], 1.0)
    last = y.imag[::-1]
    last[0] = 100.0
    np.multiply(y.real, 2, out=y.imag)
    return y, last, np.sort(y.real, axis=0)


def copied_by_a_reshape(z):
    y = z.reshape(3, 1) * np.ones((3, 2))
    y.real.T.reshape(-1)[0] = 50.0
    return y, y.imag


def carried(z):
    y = z.copy()
    part = y.imag
    for _ in range(20):
        part = y.real
        part *= 0.5
        part[0] = y[1].imag
        if part[1] > 1:
            y.imag[1:] -= part[1:]
        else:
            y.real = y.imag
    return y, part


def of_real_numbers(z):
    x = z.real.copy()
    x.real[1] = 2.0
    x.real += 1.0
    return x, x.imag


@pytest.mark.parametrize("f", [assigned, augmented, through_other_views, copied_by_a_reshape, carried, of_real_numbers])
def test_parts_are_views(f):
    for backend in ("native", "reference"):
        for wanted, got in zip(f(Z.copy()), dflow.jit(f, backend=backend)(Z.copy()), strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-14)
            assert got.dtype == np.asarray(wanted).dtype


def test_the_derivative_of_updated_parts():
    def f(x):
        y = x[:3] + 1j * x[3:]
        y.real[1] *= y.imag[0]
        y.imag += y.real**2
        y.imag[::2] = y.real[1:] * 3
        for i in range(2):
            y.real[i] += y.imag[i + 1] ** 2
            y *= 1 + 1j
        return np.sum(np.abs(y) ** 2)

    dflow.check_grads(f, (np.array([0.3, -0.7, 1.2, 0.5, 0.9, -1.1]),))


def test_a_real_array_has_no_imaginary_part_to_set():
    def f(x):
        y = x.copy()
        y.imag = 1.0
        return y

    with pytest.raises(TypeError, match="does not have imaginary part to set"):
        dflow.jit(f)(Z.real)
