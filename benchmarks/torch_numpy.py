"""NumPy's names for what PyTorch calls otherwise, or takes only as arrays. All else is PyTorch's own."""

from typing import Any

import torch


class TorchNumpy:
    linalg = torch.linalg

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def sum(self, x: Any, axis: int | None = None) -> Any:
        return torch.sum(x) if axis is None else torch.sum(x, axis)

    def mean(self, x: Any, axis: int | None = None) -> Any:
        return torch.mean(x) if axis is None else torch.mean(x, axis)

    def max(self, x: Any, axis: int | None = None, keepdims: bool = False) -> Any:
        return torch.amax(x) if axis is None else torch.amax(x, axis, keepdims)

    def min(self, x: Any, axis: int | None = None) -> Any:
        return torch.amin(x) if axis is None else torch.amin(x, axis)

    def maximum(self, x: Any, y: Any) -> Any:
        return torch.maximum(*torch.broadcast_tensors(*map(torch.as_tensor, (x, y))))

    def minimum(self, x: Any, y: Any) -> Any:
        return torch.minimum(*torch.broadcast_tensors(*map(torch.as_tensor, (x, y))))

    def array(self, x: Any) -> Any:
        if isinstance(x, list):
            return torch.stack([self.array(part) for part in x])
        return torch.as_tensor(x)

    def concatenate(self, parts: Any, axis: int = 0) -> Any:
        return torch.cat(tuple(parts), axis)

    def stack(self, parts: Any, axis: int = 0) -> Any:
        return torch.stack([torch.as_tensor(x) for x in parts], axis)

    def full(self, size: int, value: float) -> Any:
        return torch.full((size,), value)

    def tril_indices(self, size: int, offset: int = 0) -> Any:
        return torch.tril_indices(size, size, offset)

    def transpose(self, x: Any, axes: tuple[int, ...]) -> Any:
        return torch.permute(x, axes)
