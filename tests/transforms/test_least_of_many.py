"""Derivatives of the least of many: loops over what was not the least are passed by, in all orders."""

import numpy as np

import dflow

CENTRES = np.array([[0.0] * 9, [1.0] * 9, [1.0] * 9, [4.0] * 9])


def nearest(centres, point):
    least = np.inf
    for j in range(len(centres)):
        d = 0.0
        for k in range(9):
            d += (point[k] - centres[j, k]) ** 2
        least = min(least, d)
    return least


def miss(centres, point, wanted):
    return (nearest(centres, point) - wanted) ** 2


def test_the_loop_is_passed_by_where_the_weight_is_zero():
    point = np.full(9, 3.5)
    gradient = dflow.grad(nearest)
    text = gradient.lower(CENTRES, point).ir("optimized")
    assert " if " in text[text.index("centres_bar") :]
    np.testing.assert_array_equal(gradient(CENTRES, point), 2.0 * (CENTRES - point) * [[0], [0], [0], [1]])
    point = np.full(9, 1.25)  # two are equally near
    np.testing.assert_array_equal(gradient(CENTRES, point), 2.0 * (CENTRES - point) * [[0], [0.5], [0.5], [0]])


def test_order_two_where_the_cotangent_itself_is_zero():
    point = np.arange(9.0) + 3.0
    slope = 2.0 * (CENTRES - point) * [[0], [0], [0], [1]]
    wanted = nearest(CENTRES, point)  # so that the gradient vanishes, and its derivative does not
    dots = np.cos(np.arange(36.0)).reshape(4, 9)
    gradient, change = dflow.jvp(dflow.grad(miss), (CENTRES, point, wanted), (dots, None, None))
    np.testing.assert_array_equal(gradient, 0.0 * slope)
    np.testing.assert_allclose(change, 2.0 * np.sum(slope * dots) * slope, rtol=1e-12)


def test_a_constant_factor_needs_no_choice_of_its_own():
    gradient = dflow.jit(dflow.grad(lambda x: np.where(x > 0, np.sin(3.0 * x) / 7.0, 0.0)))
    assert str(gradient.lower(1.0).stages.optimized).count(" = select ") == 2  # the choice, and the cosine's product
