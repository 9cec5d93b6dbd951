"""A function of dflow's inside PyTorch programs, with its derivatives.

    import torch
    from dflow.interop.torch import wrap

    f = wrap(simulate)                       # simulate: plain NumPy with loops and branches
    f(x).square().sum().backward()

The function is compiled and runs on the CPU, on the memory of the tensors (DLPack; nothing is copied on the way in or
out). Its derivatives are compiled functions wrapped in the same way, so that they have derivatives too: double
backward, ``torch.func.jvp`` and ``torch.func.vmap`` work to any depth.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dflow import trees
from dflow.api import jit, jvp, vjp
from dflow.ir.types import bfloat16_dtype, is_bfloat16
from dflow.tracing.python.calls import call
from dflow.transforms.batching import vmap

Positions = tuple[int, ...]


def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` as a function of tensors, or trees of tensors and numbers, that autograd differentiates.

    Results are tensors in place of arrays and numbers. Dtypes are those of NumPy: tensors of float32 give float32.
    Tensors must be on the CPU and are not changed: raises TypeError for tensors on other devices, ValueError when
    ``function`` updates an argument, ImportError for bfloat16 without the package ml_dtypes, and what tracing by dflow
    raises.
    """
    flat = functools.cache(lambda spec: _Flat(lambda *leaves: call(function, *trees.unflatten(spec, leaves))))

    @functools.wraps(function)
    def wrapped(*args: Any) -> Any:
        leaves, spec = trees.flatten(args)
        return flat(spec)(*leaves)

    return wrapped


class _Flat:
    """A function of leaves, which returns a tree."""

    def __init__(self, function: Callable[..., Any]):
        self.function = function
        self.run = jit(function)
        self.derivative = functools.cache(self._derivative)
        self.mapped = functools.cache(lambda axes, size: _Flat(vmap(function, axes, axis_size=size)))

    def __call__(self, *leaves: Any) -> Any:
        made = _Call(self)
        results = _Function.apply(made, *leaves)
        return trees.unflatten(made.structure, results)

    def _derivative(self, forward: bool, wrt: Positions, outputs: Positions) -> _Flat:
        """Of the leaves, followed by tangents of those in ``wrt``, or cotangents of the results in ``outputs``."""

        def derivative(*args: Any) -> Any:
            count = len(args) - len(wrt if forward else outputs)
            leaves, given = args[:count], args[count:]

            def moving(*moved: Any) -> Any:
                place = dict(zip(wrt, moved))
                results = trees.flatten(call(self.function, *[place.get(i, x) for i, x in enumerate(leaves)]))[0]
                return tuple(results[k] for k in outputs)

            at = tuple(leaves[i] for i in wrt)
            if forward:
                return jvp(moving, at, given)[1]
            bars = vjp(moving, *at)[1](tuple(np.conj(b) for b in given))  # the gradient of PyTorch is the conjugate
            return tuple(np.conj(b) for b in bars)

        return _Flat(derivative)


@dataclass
class _Call:
    """One call: what is called, and the structure of what came back."""

    flat: _Flat
    structure: Any = None


class _Function(torch.autograd.Function):
    """The node of autograd for a call of a ``_Flat``."""

    @staticmethod
    def forward(made: _Call, *leaves: Any) -> Any:
        results, made.structure = trees.flatten(made.flat.run(*map(_array, leaves)))
        return tuple(_tensor(np.asarray(r)) for r in results)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        made, *leaves = inputs
        ctx.flat = made.flat
        ctx.numbers = [None if isinstance(x, torch.Tensor) else x for x in leaves]
        ctx.outputs = tuple(k for k, y in enumerate(output) if _varies(y))
        tensors = [x for x in leaves if isinstance(x, torch.Tensor)]
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, *bars: Any) -> Any:
        leaves = _leaves(ctx)
        wrt = tuple(i for i, x in enumerate(leaves) if ctx.needs_input_grad[1 + i] and _varies(x))
        found = ctx.flat.derivative(False, wrt, ctx.outputs)(*leaves, *[bars[k] for k in ctx.outputs])
        place = dict(zip(wrt, found))
        return None, *[place.get(i) for i in range(len(leaves))]

    @staticmethod
    def jvp(ctx: Any, *dots: Any) -> Any:
        leaves = _leaves(ctx)
        wrt = tuple(i for i, d in enumerate(dots[1:]) if d is not None)
        found = ctx.flat.derivative(True, wrt, ctx.outputs)(*leaves, *[dots[1 + i] for i in wrt])
        place = dict(zip(ctx.outputs, found))
        return tuple(place.get(k) for k in range(len(ctx.outputs) and max(ctx.outputs) + 1))

    @staticmethod
    def vmap(info: Any, in_dims: Any, made: _Call, *leaves: Any) -> Any:
        whole = _Call(made.flat.mapped(tuple(in_dims[1:]), info.batch_size))
        results = _Function.apply(whole, *leaves)
        made.structure = whole.structure
        return results, (0,) * len(results)


def _leaves(ctx: Any) -> list[Any]:
    saved = iter(ctx.saved_tensors)
    return [next(saved) if x is None else x for x in ctx.numbers]


def _varies(x: Any) -> bool:
    return isinstance(x, torch.Tensor) and (x.is_floating_point() or x.is_complex())


def _array(x: Any) -> Any:
    """The memory of a tensor as an array that cannot be written."""
    if not isinstance(x, torch.Tensor):
        return x
    if x.device.type != "cpu":
        raise TypeError(f"a tensor on {x.device}; pass one that NumPy can read: x.cpu()")
    plain = x.detach().resolve_conj().resolve_neg()
    if x.dtype == torch.bfloat16:
        array = np.from_dlpack(plain.view(torch.int16)).view(bfloat16_dtype())
    else:
        array = np.from_dlpack(plain)
    array.flags.writeable = False
    return array


def _tensor(x: np.ndarray[Any, Any]) -> Any:
    """An array as a tensor on its memory. NumPy hands over no bfloat16, but integers with its bits."""
    if is_bfloat16(x.dtype):
        return torch.from_dlpack(x.view(np.int16)).view(torch.bfloat16)
    return torch.from_dlpack(x)


__all__ = ["wrap"]
