"""The problem lstm: the loss of predicting a sequence by cells of long short-term memory with diagonal weights."""

import numpy as np


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def loss(main, extra, state, sequence):
    """``main`` [2 l, 4 b] has weights and biases of each layer, ``state`` [2 l, b] hidden units and cells.

    ``extra`` [3, b] has weights before the layers, and weights and biases behind them; ``sequence`` is [c, b].
    A 2 is added to the sum of exponentials, as GradBench has it.
    """
    layers, (c, b) = len(main) // 2, sequence.shape
    state = state.copy()
    total = 0.0
    for t in range(c - 1):
        x = sequence[t] * extra[0]
        for k in range(layers):
            weight, bias, hidden, cell = main[2 * k], main[2 * k + 1], state[2 * k], state[2 * k + 1]
            forget = sigmoid(x * weight[:b] + bias[:b])
            take = sigmoid(hidden * weight[b : 2 * b] + bias[b : 2 * b])
            give = sigmoid(x * weight[2 * b : 3 * b] + bias[2 * b : 3 * b])
            change = np.tanh(hidden * weight[3 * b :] + bias[3 * b :])
            cell[:] = cell * forget + take * change
            hidden[:] = give * np.tanh(cell)
            x = hidden
        predicted = x * extra[1] + extra[2]
        total += np.sum(sequence[t + 1] * (predicted - np.log(2.0 + np.sum(np.exp(predicted)))))
    return -total / ((c - 1) * b)
