"""What every function of the namespace can do, found by trying it: ``python tests/surface.py NAME...`` shows it.

A function is tried with the first of a few arguments that NumPy takes: its derivatives forward (against differences)
and in reverse (against forward), ``vmap`` (against a loop), complex arguments (against NumPy).
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import dflow
import dflow.numpy as dnp

X = np.array([[0.31, 0.74, 0.52], [0.83, 0.27, 0.46], [0.64, 0.9, 0.15]])
N = np.array([2, 0, 1])
X.setflags(write=False)  # some functions write
N.setflags(write=False)


def written(f: Callable[..., Any], x: Any, *args: Any) -> Any:
    """What ``f`` makes of a copy."""
    y = x.copy()
    f(y, *args)
    return y


# What the arguments are besides one or two arrays.
SPECIAL: dict[str, Callable[..., Any]] = {
    "argpartition": lambda f, x: f(x, 1),
    "astype": lambda f, x: f(x, np.complex128 if np.iscomplexobj(x) else np.float64),
    "polyval": lambda f, x: f([1.0, 2.0, 3.0], x),
    "put_along_axis": lambda f, x: written(f, x, N[:, None], 0.5, 1),
    "fill_diagonal": lambda f, x: written(f, x, 0.5),
    "place": lambda f, x: written(f, x, np.eye(3) > 0, [1.0, 2.0]),
    "put": lambda f, x: written(f, x, N, 0.5),
    "putmask": lambda f, x: written(f, x, np.eye(3) > 0, 0.5),
    "apply_along_axis": lambda f, x: f(lambda row: np.sum(row**2), 0, x),
    "apply_over_axes": lambda f, x: f(np.sum, x, [0]),
    "array_split": lambda f, x: f(x, 2),
    "block": lambda f, x: f([[x, x]]),
    "broadcast_to": lambda f, x: f(x, (2, 3, 3)),
    "choose": lambda f, x: f(np.array([1, 0, 2]), x),
    "clip": lambda f, x: f(x, 0.33, 0.7),
    "compress": lambda f, x: f([True, False, True], x, axis=0),
    "copysign": lambda f, x: f(x, -x),
    "delete": lambda f, x: f(x, 1, 0),
    "digitize": lambda f, x: f(x, [0.2, 0.5]),
    "dsplit": lambda f, x: f(x[None], 3),
    "empty_like": lambda f, x: np.zeros_like(f(x)),
    "einsum": lambda f, x: f("ij,kj->ik", x, x),
    "expand_dims": lambda f, x: f(x, 0),
    "extract": lambda f, x: f(np.eye(3) > 0, x),
    "full_like": lambda f, x: f(x, x[0, 0]),
    "full": lambda f, x: f((2,), x[0, 0]),
    "geomspace": lambda f, x: f(x[0], x[1] + 1, 4),
    "gradient": lambda f, x: f(x, axis=0),
    "histogram": lambda f, x: f(x, 3)[0],
    "histogramdd": lambda f, x: f(x, 3)[0],
    "histogram2d": lambda f, x: f(x[0], x[1], 3)[0],
    "hsplit": lambda f, x: f(x, 3),
    "insert": lambda f, x: f(x, 1, x[0], axis=0),
    "interp": lambda f, x: f(x, [0.0, 0.5, 1.0], [1.0, 0.5, 2.0]),
    "kaiser": lambda f, x: f(5, x[0, 0]),
    "linspace": lambda f, x: f(x[0], x[1], 4),
    "logspace": lambda f, x: f(x[0], x[1], 4),
    "meshgrid": lambda f, x: f(x[0], x[1]),
    "moveaxis": lambda f, x: f(x, 0, 1),
    "pad": lambda f, x: f(x, 1),
    "partition": lambda f, x: f(x, 1),
    "percentile": lambda f, x: f(x, 30.0, axis=0),
    "nanpercentile": lambda f, x: f(x, 30.0, axis=0),
    "permute_dims": lambda f, x: f(x, (1, 0)),
    "piecewise": lambda f, x: f(x, [x > 0.5], [np.sin, np.cos]),
    "polyfit": lambda f, x: f(x[0], x[1], 1),
    "quantile": lambda f, x: f(x, 0.3, axis=0),
    "nanquantile": lambda f, x: f(x, 0.3, axis=0),
    "ravel_multi_index": lambda f, x: f((N, N), (3, 3)),
    "repeat": lambda f, x: f(x, 2, axis=0),
    "reshape": lambda f, x: f(x, (9,)),
    "resize": lambda f, x: f(x, (2, 5)),
    "roll": lambda f, x: f(x, 1, axis=0),
    "rollaxis": lambda f, x: f(x, 1),
    "searchsorted": lambda f, x: f(np.sort(x[0]), x),
    "select": lambda f, x: f([x > 0.5, x > 0.3], [x, x**2]),
    "split": lambda f, x: f(x, 3),
    "swapaxes": lambda f, x: f(x, 0, 1),
    "take": lambda f, x: f(x, N, axis=0),
    "take_along_axis": lambda f, x: f(x, N[:, None], axis=1),
    "tensordot": lambda f, x: f(x, x, 1),
    "tile": lambda f, x: f(x, 2),
    "topk": lambda f, x: f(x, 2),
    "unravel_index": lambda f, x: f(N, (3, 3)),
    "unwrap": lambda f, x: f(x * 9),
    "vander": lambda f, x: f(x[0]),
    "vsplit": lambda f, x: f(x, 3),
    "where": lambda f, x: f(x > 0.5, x, x**2),
}
ARGUMENTS: tuple[Callable[..., Any], ...] = (
    lambda f, x: f(x),
    lambda f, x: f(x, x + 0.11),
    lambda f, x: f(x[0]),
    lambda f, x: f(x[0], x[1]),
    lambda f, x: f([x, x]),
    lambda f, x: f(1.0 + x),
)
WITH_INTEGERS: tuple[Callable[..., Any], ...] = (
    lambda f, x: f(x),
    lambda f, x: f(x, x + 1),
    lambda f, x: f(x[0]),
    lambda f, x: f(x[0], x[0]),
)


def leaves(found: Any) -> Iterator[Any]:
    if isinstance(found, tuple | list):
        for part in found:
            yield from leaves(part)
    else:
        yield np.asarray(found)


def attempt(f: Callable[..., Any], *args: Any) -> list[Any] | None:
    """The parts of the result, or None where there is none, or one that NumPy itself finds odd."""
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            found = list(leaves(f(*args)))
        return found if all(p.dtype.kind in "biufc" for p in found) else None
    except Exception:
        return None


def close(a: Any, b: Any, tolerance: float = 1e-9) -> bool:
    if a is None or b is None or len(a) != len(b):
        return False
    return all(p.shape == q.shape and np.allclose(p, q, tolerance, tolerance, equal_nan=True) for p, q in zip(a, b))


def program(name: str) -> tuple[Callable[..., Any], Any] | None:
    """A function of one array that calls ``name``, and an array for which NumPy has a finite result."""
    own, theirs = getattr(dnp, name), getattr(np, name, None)
    shapes = (SPECIAL[name],) if name in SPECIAL else ARGUMENTS
    for x, candidates in ((X, shapes), (N[:, None] + N, shapes if name in SPECIAL else WITH_INTEGERS)):
        for call in candidates:
            wanted = attempt(lambda x, call=call: call(theirs or own, x), x)
            if wanted and all(np.isfinite(p).all() for p in wanted if p.size):
                return (lambda x, call=call: call(own, x)), x
    return None


def derivative(f: Callable[..., Any], x: Any) -> str:
    if x.dtype.kind != "f":
        return "none"
    dot, h = np.cos(np.arange(x.size)).reshape(x.shape), 1e-6
    _, tangents = dflow.jvp(f, (x,), (dot,))
    parts = [p for p in leaves(tangents) if p.dtype.kind in "fc"]
    pair = [[p for p in leaves(f(x + s * h * dot)) if p.dtype.kind in "fc"] for s in (1, -1)]
    if not parts or not any(p.any() for p in parts):
        return "none" if all(np.allclose(a, b, atol=1e-9) for a, b in zip(*pair)) else "wrong"
    if not close(parts, [(a - b) / (2 * h) for a, b in zip(*pair)], 1e-5):
        return "wrong"
    value, back = dflow.vjp(f, x)
    bars = [np.sin(1 + np.arange(p.size)).reshape(p.shape).astype(p.dtype) for p in leaves(value)]
    given = iter(b if b.dtype.kind in "fc" else np.zeros(b.shape, b.dtype) for b in bars)
    (x_bar,) = leaves(back(filled(value, given)))
    inner = sum(np.sum(b * t).real for b, t in zip((b for b in bars if b.dtype.kind in "fc"), parts))
    return "both" if np.isclose(np.sum(x_bar * dot), inner, 1e-8) else "wrong"


def filled(value: Any, parts: Iterator[Any]) -> Any:
    if isinstance(value, tuple | list):
        made = [filled(v, parts) for v in value]
        return type(value)(*made) if hasattr(value, "_fields") else type(value)(made)
    return next(parts)


def mapped(f: Callable[..., Any], x: Any) -> str:
    both = np.stack([x, x[::-1] if x.dtype.kind != "f" else x * 0.9])
    each = [list(leaves(f(row))) for row in both]
    if any(p.shape != q.shape for p, q in zip(*each)):
        return "sizes differ"
    whole = dflow.vmap(f)
    got = attempt(whole, both)
    if not close(got, [np.stack(p) for p in zip(*each)], 1e-8):
        return "no"
    text = whole.lower(both).ir("traced")
    return "loop" if any(f" {word} %" in text for word in ("for", "while", "if")) else "stack"


def takes_complex(name: str, x: Any) -> str:
    theirs = getattr(np, name, None)
    z = x + 1j * (0.4 - X)
    for call in (SPECIAL[name],) if name in SPECIAL else ARGUMENTS:
        wanted = attempt(lambda z, call=call: call(theirs or getattr(dnp, name), z), z) if x.dtype.kind == "f" else None
        if wanted:
            got = attempt(dflow.jit(lambda z, call=call: call(getattr(dnp, name), z)), z)
            return "yes" if close(got, wanted, 1e-8) else "no"
    return "–"


def features(name: str) -> tuple[str, str, str]:
    """Derivatives, ``vmap`` and complex numbers of one function, each in a word."""
    found = program(name)
    if found is None:
        return "–", "–", "–"
    f, x = found
    try:
        first = derivative(f, x)
    except Exception:
        first = "none" if not any(p.dtype.kind in "fc" for p in leaves(f(x))) else "refused"
    try:
        second = mapped(f, x)
    except Exception:
        second = "–"
    return first, second, takes_complex(name, x)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(name, *features(name))
