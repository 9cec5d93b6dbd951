"""A few functions of neural networks: activations, one-hot codes, convolution, pooling."""

from dflow.nn.activations import (
    elu,
    gelu,
    leaky_relu,
    log_sigmoid,
    log_softmax,
    one_hot,
    relu,
    sigmoid,
    silu,
    softmax,
    softplus,
)
from dflow.nn.windows import avg_pool, conv, max_pool

__all__ = [
    "avg_pool",
    "conv",
    "elu",
    "gelu",
    "leaky_relu",
    "log_sigmoid",
    "log_softmax",
    "max_pool",
    "one_hot",
    "relu",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
]
