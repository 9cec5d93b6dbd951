"""Operations of whole arrays: value, and gradient of the mean square of the result by the first argument."""

from benchmarks.arrays.run import run as run
