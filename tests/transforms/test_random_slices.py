"""Programs made at random: nested loops with slices that depend on their indices, views and updates.

Each is run as plain Python and compiled; its forward derivative is compared with its reverse one.
"""

import linecache

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import dflow

N = 6


class Writer:
    """Writes one function ``f(x, y, m)`` on two vectors and a small integer, from choices that hypothesis draws."""

    def __init__(self, draw):
        self.draw = draw
        self.lines = ["def f(x, y, m):", "    x, y, t = x.copy(), y.copy(), 0.0"]
        self.names = 0

    def one_of(self, *options):
        return self.draw(st.sampled_from(options))

    def write(self, depth, line):
        self.lines.append("    " * depth + line)

    def position(self, indices):
        """An integer expression, often an index of a loop."""
        base = self.one_of(*indices[::-1], *indices, "m", "3")
        return self.one_of(base, f"{base} + 1", f"{base} - 1", f"-{base}", base)

    def part(self, indices):
        """A slice of ``x`` or ``y``: one whose size depends on the run, more often than not."""
        name, step = self.one_of("x", "y"), self.one_of("", "", ":2", ":-1")
        start, stop = (self.one_of(self.position(indices), self.position(indices), "") for _ in range(2))
        return f"{name}[{start}:{stop}{step}]"

    def statement(self, depth, indices):
        kind = self.one_of("sum", "scale", "axpy", "dot", "view", "mask", "copy", "element")
        part, k = self.part(indices), self.names
        self.names += 1
        if kind == "sum":
            self.write(depth, f"t = t + np.sin({part}).sum()")
        elif kind == "scale":
            self.write(depth, f"{part} *= {self.one_of('0.5', '-0.9', 'np.cos(t)')}")
        elif kind == "axpy":
            self.write(depth, f"v{k} = {part}")
            self.write(depth, f"v{k} += 0.3 * np.tanh({self.one_of(f'v{k}', f'v{k}[::-1]', 't')})")
        elif kind == "dot":
            other = self.part(indices)
            self.write(depth, f"n{k} = min(len({part}), len({other}))")
            self.write(depth, f"t = np.tanh(t + {part}[:n{k}] @ {other}[:n{k}])")
        elif kind == "view":
            self.write(depth, f"v{k} = {part}[{self.position(indices)}:]")
            self.write(depth, f"v{k}[1:] = v{k}[:-1] * 0.7")
            self.write(depth, f"v{k}[:1] += {part}.sum() * 0.1")
        elif kind == "mask":
            self.write(depth, f"v{k} = {part}")
            self.write(depth, f"t = t + (v{k}[v{k} > 0.1] ** 2).sum()")
        elif kind == "copy":
            self.write(depth, f"v{k} = {part}.copy()")
            self.write(depth, f"y[:len(v{k})] += v{k} * 0.2")
        else:
            self.write(depth, f"if 0 <= {self.one_of(*indices, 'm')} < {N}:")
            index = self.lines[-1].split("<=")[1].split("<")[0].strip()
            self.write(depth + 1, f"x[{index}] = t * 0.5 + y[{index}]")

    def block(self, depth, indices, statements):
        for _ in range(statements):
            kind = self.one_of("for", "plain", "plain", "if", "while") if depth < 4 else "plain"
            if kind == "for":
                i = f"i{depth}"
                bounds = self.one_of(
                    f"{N}", f"1, {N}", *(f"{k}" for k in indices), *(f"{k}, {N}" for k in indices), "m"
                )
                self.write(depth, f"for {i} in range({bounds}):")
                self.block(depth + 1, [*indices, i], self.draw(st.integers(1, 2)))
            elif kind == "if":
                self.write(depth, f"if {self.one_of(*indices, 'm')} {self.one_of('<', '>', '==')} 2:")
                self.block(depth + 1, indices, 1)
                if self.draw(st.booleans()):
                    self.write(depth, "else:")
                    self.block(depth + 1, indices, 1)
            elif kind == "while":
                w = f"w{self.names}"
                self.names += 1
                self.write(depth, f"{w} = m")
                self.write(depth, f"while {w} > 0:")
                self.block(depth + 1, [*indices, w], 1)
                self.write(depth + 1, f"{w} = {w} - 1")
            else:
                self.statement(depth, indices)


@st.composite
def programs(draw):
    writer = Writer(draw)
    writer.block(1, [], draw(st.integers(1, 2)))
    writer.write(1, "return t + (x * y).sum() + np.sin(x).sum()")
    return "\n".join(writer.lines) + "\n"


def function(source):
    name = f"<program {abs(hash(source))}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    names = {"np": np, "__name__": "program"}
    exec(compile(source, name, "exec"), names)
    return names["f"]


@settings(max_examples=15)
@given(programs(), st.integers(0, 4), st.integers(0, 100))
def test_program(source, m, seed):
    f = function(source)
    rng = np.random.default_rng(seed)
    x, y, dx, dy = (rng.normal(size=N) for _ in range(4))
    np.testing.assert_allclose(dflow.jit(f)(x, y, m), f(x, y, m), rtol=1e-9, atol=1e-9)
    slope = dflow.jvp(lambda x, y: f(x, y, m), (x, y), (dx, dy))[1]
    x_bar, y_bar = dflow.grad(f, argnums=(0, 1))(x, y, m)
    np.testing.assert_allclose(x_bar @ dx + y_bar @ dy, slope, rtol=1e-7, atol=1e-9)
