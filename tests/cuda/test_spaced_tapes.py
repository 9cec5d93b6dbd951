"""Tapes of parallel loops keep every few rounds; the rounds between run again."""

import numpy as np
import pytest
from on_device import compare, numbers

import dflow
from dflow.backends.cuda.planning import work
from dflow.backends.lowering.spaced_tapes import spaced_tapes
from dflow.ir.core import walk
from dflow.ir.verifier import verify


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Threads for few rounds too."""
    monkeypatch.setattr(work, "MANY", 2)


def orbit(p, n):
    """A circle and what disturbs it, in numbers."""
    x, y = p, 0.5
    for k in range(n):
        u, v = x + 0.01 * y * p, y - 0.01 * x * (1.0 + 0.1 * k)
        x, y = u * (1.0 - 0.01 * v), v + 0.01 * u * v
    return x * y


def rows(p, n):
    """The same kind of thing in a small array."""
    u = np.array([p, 0.5, 1.0])
    for _ in range(n):
        u = u + 0.01 * np.array([u[1] * u[2], -u[0] * p, u[0] * u[1]])
    return np.sum(u * u)


def jumps(p, n):
    """With a branch."""
    x = p
    for _ in range(n):
        if x > 0.5:
            x = p * x * (1.0 - x)
        else:
            x = p * x * x + 0.3
    return x


def forced(p, forces):
    """With elements of an array of the program, and one that it fills."""
    x, seen = p, np.zeros(len(forces))
    for k in range(len(forces)):
        x = x + 0.1 * (forces[k] - p * x * x)
        seen[k] = x
    return np.sum(seen * seen)


def tape_rows(f, *args):
    """The rows of the tapes in a gradient's loops, as they are and with fewer."""
    gradient = dflow.jit(dflow.vmap(dflow.grad(f), in_axes=(0, *(None for _ in args))))
    optimized = gradient.lower(numbers(3), *args).stages.optimized

    def rows_of(function):
        inner = [op for op in walk(function.body) if op.name == "for"][1:]
        return {r.type.shape[0] for op in inner for r in op.results if r.type.rank == 1}

    made = spaced_tapes(optimized)
    verify(made)
    return rows_of(optimized), rows_of(made)


@pytest.mark.parametrize("f", [orbit, rows, jumps])
@pytest.mark.parametrize("n", [0, 18, 21])
def test_rounds_that_run_again_give_the_same(gpu, f, n):
    gradient = dflow.vmap(dflow.grad(f), in_axes=(0, None))
    assert compare(gradient, np.abs(numbers(5)), n) == ["lanes"]


def test_rounds_of_known_number(gpu):
    for n in (20, 22):
        assert compare(dflow.vmap(dflow.grad(lambda p, n=n: orbit(p, n))), np.abs(numbers(5))) == ["lanes"]
    both = dflow.vmap(dflow.value_and_grad(forced, (0, 1)), in_axes=(0, None))
    assert "lanes" in compare(both, np.abs(numbers(5)), numbers(19, seed=1))


def until(p):
    """As many rounds as it takes."""
    x, t = p, 0.0
    while t < 1.0:
        x, t = x + 0.05 * (1.0 - x * x), t + 0.03 + 0.01 * p
    return x


def vectors_until(p):
    """The same kind of thing in a small array, and a sum that no tape is needed for."""
    u, s = np.array([p, 0.5, 1.0]), 0.0
    while u[2] < 2.0:
        u = u + 0.05 * np.array([u[1] * u[2], -u[0] * p, u[0] * u[1] + 1.0])
        s += u[0]
    return np.sum(u * u) + s


def shrinking(x):
    """No round at all of the first lane."""
    n = 0.0
    while x > 0.1:
        x, n = x * (1 - 0.1 * x), n + x * x
    return n


@pytest.mark.parametrize("f", [until, vectors_until, shrinking])
def test_rounds_of_a_while_run_again(gpu, f):
    """Lanes whose rounds end anywhere in a space, and order two."""
    p = np.array([0.05, 0.2, 0.31, 0.55, 0.72, 0.9, 1.3])
    assert compare(dflow.vmap(dflow.grad(f)), p) == ["lanes"]
    assert "lanes" in compare(dflow.vmap(lambda x: dflow.jvp(dflow.grad(f), (x,), (1.0,))[1]), p)


def test_a_while_writes_a_row_in_the_first_of_a_few_rounds():
    optimized = dflow.jit(dflow.vmap(dflow.grad(until))).lower(numbers(3)).stages.optimized
    made = spaced_tapes(optimized)
    verify(made)
    (loop,) = (op for op in walk(made.body) if op.name == "while")
    (branch,) = (op for op in loop.regions[1].ops if op.name == "if")
    assert [r.type.grows for r in branch.results] == [True]
    assert not any(op.name == "update" for op in loop.regions[1].ops)


def test_a_tape_has_a_row_for_every_few_rounds():
    assert tape_rows(lambda p: orbit(p, 400)) == ({400}, {100})
    assert tape_rows(lambda p: orbit(p, 402)) == ({402}, {100, 3})


def test_what_is_dear_to_do_again_is_kept():
    def pendulum(p):
        x, v = p, 0.0
        for k in range(400):
            v = v - 0.01 * np.sin(x) + 0.001 * np.cos(0.01 * k)
            x = x + 0.01 * v
        return x

    assert tape_rows(pendulum) == ({400}, {400})
