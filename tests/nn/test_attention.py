"""Attention against its definition; initial weights by their moments; exponentials summed."""

import numpy as np
import pytest

import dflow
import dflow.numpy as dnp
from dflow import nn, random
from dflow.nn import initializers

RNG = np.random.default_rng(0)
Q, K, V = RNG.normal(size=(2, 3, 4, 2)), RNG.normal(size=(2, 5, 2, 2)), RNG.normal(size=(2, 5, 2, 2))


def by_definition(q, k, v, seen, bias=0.0):
    out = np.zeros((*q.shape[:3], v.shape[3]))
    for b, t, n in np.ndindex(*q.shape[:3]):
        scores = k[b, :, n // 2] @ q[b, t, n] / np.sqrt(2) + bias
        weights = np.where(seen[b, t], np.exp(scores), 0)
        out[b, t, n] = weights @ v[b, :, n // 2] / weights.sum()
    return out


def test_attention():
    rows, columns = np.arange(3)[:, None], np.arange(5)
    mask = RNG.random((2, 1, 3, 5)) > 0.3
    mask[..., 0] = True
    causal = mask[:, 0] & (columns <= rows)
    found = dflow.jit(nn.dot_product_attention, static_argnames="is_causal")(Q, K, V, 0.5, mask, is_causal=True)
    np.testing.assert_allclose(found, by_definition(Q, K, V, causal, 0.5), rtol=1e-12)
    lengths = {"query_seq_lengths": np.array([3, 2]), "key_value_seq_lengths": np.array([4, 5])}
    found = nn.dot_product_attention(Q, K, V, local_window_size=(1, 2), **lengths)
    near = (rows - columns <= 1) & (columns - rows <= 2)
    want = by_definition(Q, K, V, near & (columns < np.array([4, 5])[:, None, None]))
    want[1, 2] = 0
    np.testing.assert_allclose(found, want, rtol=1e-12)
    np.testing.assert_allclose(nn.dot_product_attention(Q[0], K[0], V[0], is_causal=True)[0, 0], V[0, 0, 0])
    dflow.check_grads(
        lambda q, k, v: nn.dot_product_attention(q, k, v, is_causal=True), (Q, K, V), modes=("rev",), order=1
    )
    half = nn.dot_product_attention(*(x.astype(dnp.bfloat16) for x in (Q, K, V)), is_causal=True)
    np.testing.assert_allclose(
        half.astype(float), nn.dot_product_attention(Q, K, V, is_causal=True), rtol=0.05, atol=0.02
    )
    with pytest.raises(TypeError, match="do not fit"):
        nn.dot_product_attention(Q, K[..., :1], V)


def test_sums_of_exponentials():
    x = np.array([[0.5, -1.0, 2.0], [0.1, 0.2, 0.3]])
    where = np.array([[True, False, True], [True, True, True]])
    want = np.log([np.exp(0.5) + np.exp(2.0), np.exp(x[1]).sum()])
    np.testing.assert_allclose(nn.logsumexp(x, axis=1, where=where), want)
    np.testing.assert_allclose(nn.logmeanexp(x, axis=1, where=where), want - np.log([2, 3]))
    small = np.array([1e-12, 0.5, 2.0])
    np.testing.assert_allclose(nn.log1mexp(small), np.log(-np.expm1(-small)), rtol=1e-12)
    dflow.check_grads(nn.log1mexp, (small[1:],))
    bent = np.array([-2.0, -0.5, 0.5, 2.0])
    np.testing.assert_allclose(nn.sparse_plus(bent), [0.0, 0.0625, 0.5625, 2.0])
    np.testing.assert_allclose(dflow.vmap(dflow.grad(nn.sparse_plus))(bent), nn.sparse_sigmoid(bent))


@pytest.mark.parametrize(
    ("init", "deviation"),
    [
        (initializers.he_uniform(), np.sqrt(2 / (3 * 40))),
        (initializers.variance_scaling(1.0, "fan_out", "normal", batch_axis=0), np.sqrt(1 / 50)),
        (initializers.normal(0.5), 0.5),
    ],
)
def test_initial_weights(init, deviation):
    w = init(random.key(0), (3, 40, 50), np.float32)
    assert w.dtype == np.float32 and w.shape == (3, 40, 50)
    np.testing.assert_allclose(w.std(), deviation, rtol=0.03)


def test_orthogonal_weights():
    w = initializers.orthogonal(2.0)(random.key(1), (3, 2, 4))
    np.testing.assert_allclose(np.einsum("abi,abj->ij", w, w), 4 * np.eye(4), atol=1e-12)
    kernel = initializers.delta_orthogonal()(random.key(1), (3, 2, 4))
    np.testing.assert_allclose(kernel[1] @ kernel[1].T, np.eye(2), atol=1e-12)
    assert not kernel[0].any() and not kernel[2].any()
    with pytest.raises(ValueError, match="two axes"):
        initializers.orthogonal()(random.key(1), (3,))
    with pytest.raises(ValueError, match="distribution is one of"):
        initializers.variance_scaling(1.0, "fan_in", "cauchy")
