"""The problems in CasADi, as far as they are made of steps whose number is known."""

from typing import Any

import casadi as c

from benchmarks.symbols import function


def hello(x: Any) -> Any:
    return x * x


def lse(x: Any) -> Any:
    return c.logsumexp(x)


def ode(x: Any, steps: int) -> Any:
    n, h = x.shape[0], 2.0 / steps

    def slope(y: Any) -> Any:
        return c.vertcat(x[0], x[1:] * y[:-1])

    y = c.MX.zeros(n)
    for _ in range(steps):
        k1 = slope(y)
        k2 = slope(y + h * k1 / 2)
        k3 = slope(y + h * k2 / 2)
        k4 = slope(y + h * k3)
        y = y + h * (k1 + 2 * k2 + 2 * k3 + k4) / 6
    return y


def lstm(weights: Any, state: Any, sequence: Any) -> Any:
    main, extra = weights
    (length, b), rows = sequence.shape, main.shape[0]

    def sigmoid(x: Any) -> Any:
        return 1.0 / (1.0 + c.exp(-x))

    def step(carry: Any, x: Any, wanted: Any, main: Any, extra: Any) -> Any:
        state, total = c.reshape(carry[:-1], b, rows), carry[-1]
        main, extra = c.reshape(main, 4 * b, rows), c.reshape(extra, b, 3)
        x, after = x * extra[:, 0], []
        for k in range(0, rows, 2):
            hidden, cell = state[:, k], state[:, k + 1]
            gates = c.vertcat(x, hidden, x, hidden) * main[:, k] + main[:, k + 1]
            cell = cell * sigmoid(gates[:b]) + sigmoid(gates[b : 2 * b]) * c.tanh(gates[3 * b :])
            x = sigmoid(gates[2 * b : 3 * b]) * c.tanh(cell)
            after += [x, cell]
        predicted = x * extra[:, 1] + extra[:, 2]
        normal = predicted - c.log(2.0 + c.sum1(c.exp(predicted)))
        return c.vertcat(*after, total + c.dot(wanted, normal))

    sizes = (b * rows + 1,), (b,), (b,), (4 * b * rows,), (3 * b,)
    run = function(step, *sizes).mapaccum(length - 1)
    repeated = [c.repmat(c.vec(w.T), 1, length - 1) for w in (main, extra)]
    found = run(c.vertcat(c.vec(state.T), 0.0), sequence[:-1, :].T, sequence[1:, :].T, *repeated)
    return -found[-1, -1] / ((length - 1) * b)
