"""Checking derivatives against finite differences, for users' tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dflow import trees
from dflow.api import jvp, vjp
from dflow.ir.types import finfo, kind_of


def check_grads(
    function: Callable[..., Any],
    args: Sequence[Any],
    order: int = 1,
    modes: Sequence[str] = ("fwd", "rev"),
    eps: float | None = None,
    atol: float | None = None,
    rtol: float | None = None,
) -> None:
    """Checks derivatives of ``function`` at ``args`` up to an order.

    Forward mode is compared with central differences along a random direction, reverse mode with forward mode (the
    inner product identity). Each order is checked of the derivative of the order before, in all combinations of modes.
    ``eps`` is the step of the differences; it and the tolerances suit the narrowest dtype, and are rough for those of
    16 bits. Raises AssertionError with the figures when they disagree.
    """
    step, tolerance = _SUITED[min((_digits(x) for x in trees.flatten(tuple(args))[0] if _varies(x)), default=53)]
    atol, rtol = (tolerance if t is None else t for t in (atol, rtol))
    _check(function, tuple(args), order, tuple(modes), (eps or step, atol, rtol), np.random.default_rng(0), "")


# By the bits of a significand, the step and the tolerance.
_SUITED = {53: (1e-6, 1e-5), 24: (1e-2, 1e-1), 11: (5e-2, 1e-1), 8: (1e-1, 2.5e-1)}


def _digits(x: Any) -> int:
    return 1 - int(np.log2(float(finfo(np.asarray(x).dtype).eps)))


def _check(
    f: Callable[..., Any], args: tuple[Any, ...], order: int, modes: tuple[str, ...], tol: Any, rng: Any, where: str
) -> None:
    eps, atol, rtol = tol
    dots = _direction(args, rng)
    value, out_dot = jvp(f, args, dots)
    if "fwd" in modes:
        high, low = (f(*_moved(args, dots, s * eps)) for s in (1, -1))
        numeric = trees.map_leaves(lambda a, b: (a - b) / (2 * eps) if _varies(a) else None, high, low)
        _compare(out_dot, numeric, atol, rtol, f"{where}forward mode against central differences")
    if "rev" in modes:
        bars = _direction(value, rng)
        forward = _inner(out_dot, bars)
        back = _inner(vjp(f, *args)[1](bars), dots)
        np.testing.assert_allclose(back, forward, rtol, atol, err_msg=f"{where}reverse mode against forward mode")
    if order > 1:
        if "fwd" in modes:
            _check(lambda *xs: jvp(f, xs, dots)[1], args, order - 1, modes, tol, rng, f"{where}forward, then ")
        if "rev" in modes:
            bars = _direction(value, rng)
            _check(lambda *xs: vjp(f, *xs)[1](bars), args, order - 1, modes, tol, rng, f"{where}reverse, then ")


def _varies(x: Any) -> bool:
    return kind_of(np.asarray(x).dtype) in "fc"


def _direction(tree: Any, rng: Any) -> Any:
    def one(x: Any) -> Any:
        x = np.asarray(x)
        if not _varies(x):
            return np.zeros(x.shape, x.dtype)
        real = rng.normal(size=x.shape)
        return (real + 1j * rng.normal(size=x.shape) if x.dtype.kind == "c" else real).astype(x.dtype)

    return trees.map_leaves(one, tree)


def _moved(args: Any, dots: Any, step: float) -> Any:
    def one(x: Any, d: Any) -> Any:
        if not _varies(x):
            return x
        a = np.asarray(x)
        moved = a + np.asarray(step * d, a.dtype)
        return moved.item() if isinstance(x, float | complex) and not isinstance(x, np.generic) else moved

    return trees.map_leaves(one, args, dots)


def _leaves(tree: Any) -> list[Any]:
    return [x for x in trees.flatten(tree)[0] if x is not None and _varies(x)]


def _inner(a: Any, b: Any) -> float:
    """The real part, for complex cotangents mean the real part of their product with a tangent."""
    pairs = zip(_leaves(a), _leaves(b), strict=True)
    return float(sum(np.sum(np.multiply(x, y, dtype=np.complex128).real) for x, y in pairs))


def _compare(a: Any, b: Any, atol: float, rtol: float, what: str) -> None:
    for x, y in zip(_leaves(a), _leaves(b), strict=True):
        wide = np.asarray(x, np.complex128), np.asarray(y, np.complex128)
        np.testing.assert_allclose(wide[0], wide[1], rtol, atol, err_msg=what)
