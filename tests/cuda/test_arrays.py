"""Arrays on a device do what NumPy's arrays do."""

import copy
import pickle

import numpy as np
import pytest
from ml_dtypes import bfloat16

import dflow
from dflow.devices import dlpack

X = np.arange(24.0).reshape(2, 3, 4) + 1

VALUES = """
1 - x
2**x
x @ x[0].T
(x > 3) & (x <= 20)
np.add(x, np.arange(4))
np.maximum.reduce(x, axis=1)
x.sum(axis=(0, 2), keepdims=True)
x.argmax()
x.astype(np.float32)
np.concatenate([x, x], axis=1)
np.where(x > 3, x, 0)
np.einsum("ijk,ijk->i", x, x)
np.sort(x, axis=0)
x.reshape(4, -1)
x.reshape((4, 6), order="F")
np.reshape(x, -1, order="F")
x.ravel("F")
x.flatten("F")
x.argsort(axis=1)
x.cumprod(axis=0)
x.repeat(2, axis=1)
x[0].diagonal()
x.mT
x[0, 0].searchsorted(2.5)
x[0].conjugate()
x.T
np.float64(2) * x
x[-1]
x[0, 1, 2]
x[..., -1]
x[1:, 0]
x[::-1, None, :, 1::2]
x[[0, 1], 2]
x[P(np.array([0, 1, 0]))]
x[x > 5]
[float(v.sum()) for v in x]
np.shape(x) + (len(x), x.ndim, x.size)
x.tolist()
np.linalg.norm(x)
""".strip().splitlines()

UPDATES = """
x[0] = 5
x[0, 1] = np.arange(4.0)
x[:, -1] = 7
x[x > 5] = 0
x[[0, 1]] = 3
x[0, 0, 0] = x[1, 1, 1]
x += 1
x[0] += x[0]
x[:, 1] += x[:, 2]
x[:, 1:] = x[:, :-1] * 2
y = x.reshape(-1)[2:]; y[0] = 9
y = x[:, 1]; y *= 2; x[0, 1] = 50; y += 1; x[...] = x + y.sum()
y = x.T; x[0] = 3; x += y.sum()
y = np.split(x, 2)[1]; x[...] = 7; x[0] = y[0] + 1
y = x[x > 5]; y[0] = 100; x += y[0]
y = x[:, 1:]; z = y[:, 0]; x[...] = 2; x += z[0, 0]
np.add(x, 1, out=x)
x[::-1] = x.copy(); x.sort(axis=0)
x.put([0, 5], [7.0, 8.0])
""".strip().splitlines()


def same(got, wanted):
    assert np.asarray(got).dtype == np.asarray(wanted).dtype
    np.testing.assert_allclose(np.asarray(got), wanted, rtol=1e-14)


@pytest.mark.parametrize("text", VALUES)
def test_values(gpu, text):
    wanted = eval(text, {"np": np, "x": X, "P": lambda a: a})
    got = eval(text, {"np": np, "x": dflow.device_put(X), "P": dflow.device_put})
    assert isinstance(got, dflow.Array) == isinstance(wanted, np.ndarray | np.generic)
    same(got, wanted)


@pytest.mark.parametrize("text", UPDATES)
def test_updates_and_views(gpu, text):
    mine, plain = {"np": np, "x": dflow.device_put(X)}, {"np": np, "x": X.copy()}
    exec(text, mine)
    exec(text, plain)
    same(mine["x"], plain["x"])


@pytest.mark.parametrize("index", ["x[2]", "x[0, 3]", "x[:, 5]", "x[0, 0, 0, 0]", "x[:, [7]]"])
def test_indices_outside(gpu, index):
    x = dflow.device_put(X)
    with pytest.raises(IndexError):
        eval(index, {"x": x}).numpy()


def test_what_an_array_is(gpu):
    x = dflow.device_put(X[0])
    assert (x.shape, x.dtype, x.ndim, x.size, x.nbytes, x.device) == ((3, 4), np.float64, 2, 12, 96, "cuda:0")
    assert repr(x[0]) == "dflow.Array([1., 2., 3., 4.], dtype=float64, device='cuda:0')"
    assert f"{x[0, 1]:.1f}" == "2.0" and float(x[0, 1]) == 2 and bool(x[0, 0] == 1) and int(x[0, 2]) == 3
    with pytest.raises(TypeError, match="unhashable"):
        hash(x)
    with pytest.raises(ValueError, match="without a copy"):
        np.asarray(x, copy=False)
    with pytest.raises(TypeError, match="without axes"):
        len(x[0, 0])


def test_copies_and_pickles(gpu):
    x = dflow.device_put(X)
    for y in (x.copy(), copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
        assert y.pointer != x.pointer
        same(y, X)


def test_other_libraries_take_them_and_give_them(gpu):
    x = dflow.device_put(X)
    facts = x.__cuda_array_interface__
    assert (facts["shape"], facts["typestr"], facts["version"]) == (X.shape, "<f8", 3)
    y = dflow.from_dlpack(x)
    assert y.pointer == x.pointer == facts["data"][0] and x.__dlpack_device__() == (2, 0)
    y[0, 0, 0] = 77
    assert float(x[0, 0, 0]) == 77
    del x
    assert float(y[0, 0, 0]) == 77  # the memory lives as long as one of both

    class Foreign:
        __cuda_array_interface__ = y.__cuda_array_interface__

    same(dflow.jit(np.cos, device="cuda")(Foreign()), np.cos(y.numpy()))
    Foreign.__cuda_array_interface__ = {**facts, "strides": (8, 8, 8)}
    with pytest.raises(ValueError, match="another order than row by row"):
        dflow.jit(np.cos, device="cuda")(Foreign())
    with pytest.raises(ValueError, match="not in the memory of a GPU"):
        dflow.from_dlpack(X)


def test_what_may_be_written_is_handed_on(gpu):
    x = dflow.device_put(X)
    view, parts = x.T, x[1:]
    y = dflow.from_dlpack(view)  # of version 1
    assert y.pointer == view.pointer
    with pytest.raises(ValueError, match="read"):
        y += 1

    class Old:
        """A library that knows nothing of versions."""

        def __init__(self, x):
            self.x = x
            self.__dlpack_device__ = x.__dlpack_device__

        def __dlpack__(self, stream=None):
            return self.x.__dlpack__(stream=stream)

    assert dflow.from_dlpack(Old(view)).pointer != view.pointer  # a copy, for nothing would keep it from being written
    z = dflow.from_dlpack(Old(parts))
    assert z.pointer == parts.pointer
    z += 1
    same(x[1], X[1] + 1)


def test_numpy_says_what_may_be_written():
    """The same structures, by a library that we have not written."""
    x = X.copy()
    assert dlpack.adopt(x).is_writable and dlpack.adopt(x).pointer == x.ctypes.data
    x.flags.writeable = False
    assert not dlpack.adopt(x).is_writable and dlpack.adopt(x).shape == X.shape


def test_dlpack_says_what_it_cannot_do(gpu):
    x = dflow.device_put(X)
    with pytest.raises(BufferError, match=r"is on 'cuda:0', and not on DLPack device \(2, 3\)"):
        x.__dlpack__(dl_device=(2, 3))
    with pytest.raises(BufferError, match="not on DLPack device"):
        x.__dlpack__(dl_device=(1, 0), copy=False)
    with pytest.raises(BufferError, match="may only be read"):
        x.T.__dlpack__(copy=False)
    assert "dltensor" in repr(x.__dlpack__(dl_device=(1, 0)))
    assert "dltensor_versioned" in repr(x.__dlpack__(max_version=(1, 1)))


def test_bfloat16(gpu):
    x = (X / 8).astype(bfloat16)
    y = dflow.from_dlpack(dflow.device_put(x))  # of DLPack's own type for them
    assert y.dtype == bfloat16 and (y * 2.0 + y[0]).dtype == bfloat16
    same((y * 2.0 + y[0]).astype(np.float32), np.float32(2) * x + x[0])


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", "i1", "c16"])
def test_views_that_begin_anywhere(gpu, dtype):
    x = np.arange(5001).astype(dtype)
    run = dflow.jit(lambda x: (x * 2, x.reshape(50, 100).sum(0), x[::-1]), device="cuda")
    for got, wanted in zip(run(dflow.device_put(x)[1:]), run(x[1:])):
        same(got, wanted)


def test_streams(gpu):
    x = dflow.device_put(X)
    with dflow.Stream() as s:
        y = x + 1
        z = y * 2
    s.synchronize()
    same(y + z, (X + 1) * 3)


def test_memory_is_given_back(gpu):
    if gpu is None:
        pytest.skip("counted by the fake driver only")
    x = dflow.device_put(X)
    _ = x + 1  # what is kept between runs is there
    used = gpu.heap.used
    y = x + 1
    assert gpu.heap.used == used + X.nbytes
    del y
    assert gpu.heap.used == used
