"""The operations with their arguments."""

from collections.abc import Iterator

import numpy as np

from benchmarks.arrays import programs
from benchmarks.contest import Case

SIZES_OF_MATMUL = (2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)


def cases() -> list[Case]:
    return list(_cases())


def _cases() -> Iterator[Case]:
    r = np.random.default_rng(0)
    big, cube, matrix = r.normal(size=(3, 2_000_000)), r.normal(size=(128, 128, 128)), r.normal(size=(1024, 1024))
    yield Case("copy, 2M", programs.copy, (big[0],))
    yield Case("chain of seven, 2M", programs.chain, tuple(big))
    yield Case("chain of seven, 1000", programs.chain, tuple(x[:1000].copy() for x in big))
    yield Case("transcendental, 100k", programs.transcendental, (big[0, :100_000].copy(),))
    yield Case("sum of squares, all, 2M", programs.sum_all, (cube,))
    yield Case("sum of squares, axis 0 of 3", programs.sum_first, (cube,))
    yield Case("sum of squares, axis 1 of 3", programs.sum_middle, (cube,))
    yield Case("sum of squares, axis 2 of 3", programs.sum_last, (cube,))
    yield Case("softmax, 1024 x 1024", programs.softmax, (matrix,))
    yield Case("layer norm, 1024 x 1024", programs.layer_norm, (matrix, matrix[0].copy(), matrix[1].copy()))
    yield Case("stencil, 1024 x 1024", programs.stencil, (matrix,))
    yield Case("transpose and add, 1024 x 1024", programs.transposed, (matrix,))
    yield Case("gather, 1M of 2M", programs.gather, (big[0], r.integers(2_000_000, size=1_000_000)))
    yield Case("Monte Carlo, 100k paths", programs.monte_carlo, (big.reshape(-1)[:1_000_000].reshape(10, -1).copy(),))
    yield Case("attention, 512 x 64", programs.attention, tuple(r.normal(size=(3, 512, 64))))
    yield Case("filter 5 x 5, 512 x 512", programs.filtered, (r.normal(size=(512, 512)), r.normal(size=(5, 5))))
    layer = r.normal(size=(16, 64, 64)), r.normal(size=(3, 3, 32, 16))
    yield Case("convolution, 16 to 32 channels, 64 x 64", programs.convolution, layer)
    small, vectors = np.eye(4) + 0.1 * r.normal(size=(10_000, 4, 4)), r.normal(size=(10_000, 4, 1))
    yield Case("products of 4 x 4, 10k", programs.products, (small, small[::-1].copy()))
    yield Case("solutions of 4 x 4, 10k", programs.solutions, (small, vectors))
    yield Case("determinants of 4 x 4, 10k", programs.determinants, (small,))
    systems = 4.0 * np.eye(3)[:, :, None] + r.uniform(size=(3, 3, 10_000)), r.normal(size=(3, 10_000))
    yield Case("elimination by hand, 3 x 3, 10k", programs.gaussian_elimination, systems)
    for n in SIZES_OF_MATMUL:
        yield Case(f"matmul, {n}", programs.product, (r.normal(size=(n, n)), r.normal(size=(n, n))))
