"""dflow's functions inside PyTorch programs; runs where PyTorch is installed."""

import numpy as np
import pytest

import dflow

torch = pytest.importorskip("torch", reason="PyTorch is not installed")


def wrap(function):
    from dflow.interop import torch as interop

    return interop.wrap(function)


def simulate(x, n):
    y = x.copy()
    for _ in range(n):
        for i in range(1, len(y)):
            if y[i] > 0:
                y[i] += 0.1 * np.sin(y[i - 1])
    return {"y": y, "n": n}


X = np.array([0.3, -1.2, 0.8])


def tensor(x):
    return torch.tensor(x, requires_grad=True)


def test_values_and_gradients_of_trees():
    f = wrap(simulate)
    x = tensor(X)
    made = f(x, 4)
    np.testing.assert_allclose(made["y"].detach(), simulate(X, 4)["y"])
    assert made["n"] == 4 and not made["n"].requires_grad
    (made["y"] ** 2).sum().backward()
    np.testing.assert_allclose(x.grad, dflow.grad(lambda x: np.sum(simulate(x, 4)["y"] ** 2))(X))


def test_autograd_checks_derivatives_of_order_two():
    def f(p, x):
        return np.sum(np.tanh(p["w"] @ x)) * p["b"], p["w"] * x

    wrapped = wrap(lambda w, b, x: f({"w": w, "b": b}, x))
    args = tensor(np.array([[0.3, -0.2], [0.5, 0.1]])), tensor(0.7), tensor(np.array([0.4, -0.6]))
    args = tuple(a.double().detach().requires_grad_() for a in args)
    assert torch.autograd.gradcheck(wrapped, args, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(wrapped, args)


def test_complex_gradients_are_those_of_pytorch():
    z = tensor(np.array([1.0 + 2.0j, -0.5j]))
    assert torch.autograd.gradcheck(wrap(lambda z: z**2 * np.conj(z)), (z,))
    (own,) = torch.autograd.grad(wrap(lambda z: np.sum(np.abs(z) ** 2))(z), z)
    (want,) = torch.autograd.grad((z.abs() ** 2).sum(), z)
    torch.testing.assert_close(own, want)


def test_transformations_of_functions():
    def f(x, scale):
        total = 0.0
        for v in x:
            if v > 0:
                total += scale * v**3
        return total

    wrapped, x = wrap(f), torch.tensor(X)
    batch = torch.stack([x, 2 * x])
    gradients = torch.func.vmap(torch.func.grad(wrapped), in_dims=(0, None))(batch, 2.0)
    torch.testing.assert_close(gradients, 6 * batch.clamp(min=0) ** 2)
    hessian = torch.func.hessian(lambda x: wrapped(x, 2.0))(x)
    torch.testing.assert_close(hessian, torch.diag(12 * x.clamp(min=0)))
    along = torch.func.jvp(lambda x: wrapped(x, 2.0), (x,), (torch.ones(3, dtype=torch.float64),))[1]
    torch.testing.assert_close(along, gradients[0].sum())


def test_single_precision_and_parts_of_tensors():
    x = torch.arange(6, dtype=torch.float32).reshape(2, 3).T.requires_grad_()
    y = wrap(lambda x: x[1] ** 2)(x)
    assert y.dtype == torch.float32
    y.sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor([[0.0, 0.0], [2.0, 8.0], [0.0, 0.0]]))


def test_memory_is_shared_with_the_arrays_of_numpy():
    from dflow.interop.torch import _array

    x = torch.ones(3)
    assert _array(x).__array_interface__["data"][0] == x.data_ptr()


def test_a_tensor_is_not_updated():
    def update(x):
        x[0] = 5.0
        return x

    with pytest.raises(ValueError, match="not a writable"):
        wrap(update)(torch.ones(3))


def test_what_numpy_cannot_read_is_refused():
    with pytest.raises(TypeError, match=r"x\.cpu"):
        wrap(np.sum)(torch.ones(3, device="meta"))


def test_bfloat16():
    f = wrap(lambda x, a: np.sin(x) * a)
    x = torch.tensor([0.5, -1.0, 2.0], dtype=torch.bfloat16, requires_grad=True)
    y = f(x, 2.0)
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    assert x.grad.dtype == torch.bfloat16
    wanted = 2 * torch.cos(x.detach().float())
    torch.testing.assert_close(x.grad.float(), wanted, rtol=2**-7, atol=2**-7)
    with pytest.raises(TypeError, match=r"x\.cpu"):
        wrap(np.sum)(torch.ones(3, dtype=torch.bfloat16, device="meta"))
    rows = torch.arange(6, dtype=torch.bfloat16).reshape(2, 3)
    for given in (rows, rows.T, rows[:, 1:]):
        doubled = dflow.jit(lambda x: x * 2)(given)  # by DLPack, which has bfloat16
        np.testing.assert_array_equal(doubled.astype(float), 2 * given.double().numpy())


def test_a_step_of_an_optimizer():
    def loss(w):
        return np.sum((w - np.arange(3.0)) ** 2)

    w = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([w])

    def closure():
        optimizer.zero_grad()
        value = wrapped(w)
        value.backward()
        return value

    wrapped = wrap(loss)
    optimizer.step(closure)
    torch.testing.assert_close(w.detach(), torch.arange(3.0, dtype=torch.float64), atol=1e-4, rtol=1e-4)
