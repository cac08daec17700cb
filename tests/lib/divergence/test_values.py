"""Divergences and the loss: oracles, identities, limits, float32, gradients, torch.func."""

from __future__ import annotations

import doctest
import itertools
import math

import numpy as np
import pytest
import scipy.special
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, kl_divergence

from lib import divergence
from lib.divergence import (
    bernoulli_symmetric_kl,
    globalpointer_divergence,
    kl,
    multilabel_cross_entropy,
    squared_difference,
    symmetric_kl,
    symmetric_kl_of_logits,
)

ALL = (-2, -1)
PAIRS = arrays(np.float64, (2, 3, 4), elements=st.floats(-30, 30))
OF_SCORES = {
    "globalpointer": globalpointer_divergence,
    "softmax": lambda s, t, mask=None: symmetric_kl_of_logits(s, t, ALL, mask),
    "squared": squared_difference,
}


def scores(*shape: int, seed: int = 0, scale: float = 3.0, dtype=torch.float64) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return scale * torch.randn(shape, generator=g, dtype=dtype)


def close(a: Tensor, b: Tensor, tolerance: float = 1e-12) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=tolerance, atol=tolerance)


def plain(s: Tensor, t: Tensor) -> Tensor:
    return ((s.sigmoid() - t.sigmoid()) * (s - t)).sum(ALL)


@pytest.fixture(params=["formula", "blocks"])
def route(request, monkeypatch) -> None:
    """Both ways of computing the span divergence: of small tables, of large ones."""
    monkeypatch.setattr(divergence, "SMALL", 2**22 if request.param == "formula" else 0)


# --- oracles --------------------------------------------------------------------------------------


def test_kl_is_scipys_and_torchs():
    p, q = scores(2, 5, 7).softmax(-1)
    assert close(kl(p, q), torch.from_numpy(scipy.special.rel_entr(p.numpy(), q.numpy()).sum(-1)))
    assert close(kl(p, q), kl_divergence(Categorical(probs=p), Categorical(probs=q)))
    assert close(kl(p.mT, q.mT, dim=0), kl(p, q))


def test_symmetric_kl_is_both_directions():
    p, q = scores(2, 5, 7, seed=1).softmax(-1)
    assert close(symmetric_kl(p, q), kl(p, q) + kl(q, p))


def test_logit_form_is_the_divergence_of_categorical_laws():
    s, t = scores(2, 5, 7, seed=2)
    one, other = Categorical(logits=s), Categorical(logits=t)
    oracle = kl_divergence(one, other) + kl_divergence(other, one)
    assert close(symmetric_kl_of_logits(s, t), oracle)


def test_logit_form_over_two_axes_makes_one_law():
    s, t = scores(2, 5, 3, 4, seed=3)
    assert close(
        symmetric_kl_of_logits(s, t, ALL), symmetric_kl_of_logits(s.flatten(1), t.flatten(1))
    )


def test_two_coins_are_torchs():
    s, t = scores(2, 40)
    one, other = Bernoulli(logits=s), Bernoulli(logits=t)
    oracle = kl_divergence(one, other) + kl_divergence(other, one)
    assert close(bernoulli_symmetric_kl(s.sigmoid(), t.sigmoid()), oracle, 1e-9)


def test_span_divergence_is_the_sum_over_coins():
    s, t = scores(2, 5, 3, 4)
    one, other = Bernoulli(logits=s), Bernoulli(logits=t)
    oracle = (kl_divergence(one, other) + kl_divergence(other, one)).sum(ALL)
    assert close(globalpointer_divergence(s, t), oracle, 1e-10)


def test_span_divergence_is_that_of_the_law_over_sets_of_spans():
    s, t = scores(2, 3, 3, seed=4)
    sets = torch.tensor(list(itertools.product([0.0, 1.0], repeat=9)), dtype=s.dtype)  # (2⁹, 9)
    one, other = ((sets @ x.flatten()).softmax(0) for x in (s, t))
    assert close(globalpointer_divergence(s, t), symmetric_kl(one, other), 1e-9)


@pytest.mark.parametrize("positives", [0, 1, 3, 12])
def test_loss_is_the_logarithm_of_the_sum_over_pairs(positives):
    s = scores(3, 4)
    labels = (torch.arange(12) < positives).reshape(3, 4)
    x = torch.cat([s[~labels], s.new_zeros(1)])  # negatives and the threshold
    y = torch.cat([s[labels], s.new_zeros(1)])  # positives and the threshold
    oracle = (x[:, None] - y).exp().sum().log()  # the pair of two thresholds is the 1
    assert close(multilabel_cross_entropy(s, labels), oracle)


def test_loss_of_one_cell_is_the_binary_cross_entropy():
    s = scores(20, 1, 1)
    for label in (True, False):
        labels = torch.full_like(s, label, dtype=torch.bool)
        oracle = F.binary_cross_entropy_with_logits(s, labels.double(), reduction="none")
        assert close(multilabel_cross_entropy(s, labels), oracle[:, 0, 0])


def test_squared_difference_is_torchs():
    s, t = scores(2, 3, 4)
    assert close(squared_difference(s, t), F.mse_loss(s, t, reduction="sum"))


# --- properties -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OF_SCORES)
@given(pair=PAIRS)
@settings(max_examples=60, deadline=None)
def test_divergences_are_symmetric_and_not_negative(name, pair):
    s, t = torch.from_numpy(pair)
    d = OF_SCORES[name](s, t)
    assert close(d, OF_SCORES[name](t, s))
    assert d >= -1e-12
    assert OF_SCORES[name](s, s) == 0


@given(pair=PAIRS)
@settings(max_examples=60, deadline=None)
def test_span_divergence_lies_between_its_bounds(pair):
    s, t = torch.from_numpy(pair)
    gap = (s - t).abs()
    d = globalpointer_divergence(s, t)
    assert d <= torch.minimum(gap, gap**2 / 4).sum() + 1e-9
    assert d >= 4 * (s.sigmoid() - t.sigmoid()).square().sum() - 1e-9


@given(pair=PAIRS)
@settings(max_examples=60, deadline=None)
def test_span_divergence_sees_no_difference_between_a_span_and_its_opposite(pair):
    s, t = torch.from_numpy(pair)
    assert close(globalpointer_divergence(s, t), globalpointer_divergence(-s, -t), 1e-11)


def test_a_common_shift_is_seen_by_the_span_divergence_alone():
    s = scores(3, 3)
    assert OF_SCORES["softmax"](s, s + 7).abs() < 1e-12
    assert globalpointer_divergence(s, s + 7) > 10


def test_spans_rejected_by_both_cost_nothing():
    s, t = scores(2, 10, 10, scale=1.0)
    costs = [globalpointer_divergence(s - b, t - b).item() for b in (0.0, 10.0, 20.0)]
    assert costs[1] / costs[0] < 1e-3
    assert costs[2] / costs[1] == pytest.approx(math.exp(-10), rel=1e-3)
    shifted = [OF_SCORES["softmax"](s - b, t - b) for b in (0.0, 20.0)]
    assert close(*shifted, 1e-10)


@given(table=arrays(np.float64, (3, 4), elements=st.floats(-30, 30)), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_loss_is_at_most_the_sum_of_binary_cross_entropies(table, seed):
    s = torch.from_numpy(table)
    labels = torch.rand(3, 4, generator=torch.Generator().manual_seed(seed)) < 0.3
    binary = F.binary_cross_entropy_with_logits(s, labels.double(), reduction="sum")
    loss = multilabel_cross_entropy(s, labels)
    assert 0 <= loss <= binary + 1e-9


# --- certain probabilities ------------------------------------------------------------------------


def test_zero_probabilities():
    p = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]], dtype=torch.float64)
    q = torch.tensor([[0.25, 0.75, 0.0], [0.5, 0.5, 0.0]], dtype=torch.float64)
    assert close(kl(p, q), torch.tensor([math.log(4 / 3) / 2, math.log(2)], dtype=torch.float64))
    assert kl(q, p)[1] == math.inf
    assert symmetric_kl(p, q)[0] == pytest.approx(0.25 * math.log(3))
    assert symmetric_kl(p, q)[1] == math.inf
    assert symmetric_kl(p, p).tolist() == [0, 0]


def test_an_absent_outcome_leaves_every_slope_finite():
    s, t = (torch.tensor(x) for x in ([0.0, 120.0, 3.0], [1.0, 100.0, 90.0]))
    assert (s.softmax(0) == 0).any()  # in float32
    s.requires_grad_()
    kl(s.softmax(0), t.softmax(0)).backward()
    p, q = (x.detach().double().softmax(0) for x in (s, t))
    surprise = (p / q).log()
    exact = p * (surprise - (p * surprise).sum())
    torch.testing.assert_close(s.grad.double(), exact, atol=1e-6, rtol=1e-4)


def test_certain_coins():
    p, q = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.5]), torch.tensor([0.0, 1.0, 1.0, 0.5, 0.5])
    assert bernoulli_symmetric_kl(p, q).tolist() == [0, 0, math.inf, math.inf, 0]


# --- float32 and gradients ------------------------------------------------------------------------


@pytest.mark.parametrize("level", [-1e4, -60.0, 0.0, 60.0, 1e4])
@pytest.mark.parametrize("name", OF_SCORES)
def test_float32_agrees_with_float64(name, level):
    s, t = scores(2, 6, 6).float() + level
    d = OF_SCORES[name](s, t)
    exact = OF_SCORES[name](s.double(), t.double())
    assert d.dtype == torch.float32
    assert float(d) == pytest.approx(float(exact), rel=1e-3, abs=1e-4)


@pytest.mark.usefixtures("route")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", [*OF_SCORES, "loss"])
def test_half_precision_is_summed_in_single(name, dtype):
    s, t = (scores(2, 400, 400, seed=i, scale=8.0).to(dtype) for i in (0, 1))
    mask = torch.ones(400, 400, dtype=torch.bool).triu()
    positive = mask.expand_as(s) & (t > 16)

    def of(s: Tensor, t: Tensor) -> Tensor:
        if name == "loss":
            return multilabel_cross_entropy(s, positive, mask)
        return OF_SCORES[name](s, t, mask=mask)

    s.requires_grad_()
    exact = s.detach().double().requires_grad_()
    half, right = of(s, t), of(exact, t.double())
    assert half.dtype == torch.float32
    assert torch.allclose(half.double(), right, rtol=1e-5)
    if name in ("globalpointer", "squared"):
        assert (right > torch.finfo(torch.float16).max).all()  # which half precision can't hold
    slopes = [torch.autograd.grad(total.sum(), x)[0] for total, x in ((half, s), (right, exact))]
    assert slopes[0].dtype == dtype
    digits = torch.finfo(dtype).eps  # the gradient is rounded once, at the end
    ulps = 64 * torch.finfo(torch.float32).eps  # 1 - σ and p - q cancel, times a gap of 50
    torch.testing.assert_close(slopes[0].double(), slopes[1], rtol=digits, atol=ulps)


@pytest.mark.parametrize("scale", [1.0, 100.0, 1e4, 1e30])
def test_loss_in_float32_is_finite_and_right(scale):
    s = scores(6, 6, scale=scale, dtype=torch.float32).requires_grad_()
    labels = torch.eye(6, dtype=torch.bool)
    loss = multilabel_cross_entropy(s, labels)
    exact = multilabel_cross_entropy(s.detach().double(), labels)
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5)
    assert torch.autograd.grad(loss, s)[0].isfinite().all()


def test_small_loss_keeps_its_digits():
    s = torch.full((5, 5), -30.0)
    none = torch.zeros(5, 5, dtype=torch.bool)
    assert float(multilabel_cross_entropy(s, none)) == pytest.approx(25 * math.exp(-30), rel=1e-5)


@pytest.mark.parametrize("block", [1, 5, 10**6])
def test_blocks_change_no_value_and_no_gradient(block, monkeypatch):
    monkeypatch.setattr(divergence, "SMALL", 0)
    monkeypatch.setattr(divergence, "BLOCK", block)
    s, t = scores(2, 3, 4, 5).requires_grad_()
    mask = torch.rand(3, 1, 5, generator=torch.Generator().manual_seed(1)) < 0.7
    mask[..., 0] = True
    by_hand = (((s.sigmoid() - t.sigmoid()) * (s - t)) * mask).sum(ALL)
    ours = globalpointer_divergence(s, t, mask)
    weights = scores(3, seed=5)
    assert close(ours, by_hand)
    for a, b in zip(
        torch.autograd.grad(ours @ weights, (s, t)),
        torch.autograd.grad(by_hand @ weights, (s, t)),
        strict=True,
    ):
        assert close(a, b)


@pytest.mark.usefixtures("route")
@pytest.mark.parametrize("name", OF_SCORES)
def test_derivatives_agree_with_finite_differences(name):
    s, t = (x.detach().requires_grad_() for x in scores(2, 2, 3, scale=1.0))
    assert torch.autograd.gradcheck(OF_SCORES[name], (s, t))
    assert torch.autograd.gradgradcheck(OF_SCORES[name], (s, t))


@pytest.mark.usefixtures("route")
def test_curvature_of_the_span_divergence_is_twice_the_slope_of_sigma():
    s = scores(2, 3)
    hessian = torch.func.jacrev(torch.func.jacrev(lambda x: globalpointer_divergence(x, s)))(s)
    slope = s.sigmoid() * (1 - s.sigmoid())
    assert close(hessian.reshape(6, 6), (2 * slope.flatten()).diag())


def test_gradient_of_large_tables_is_kept_in_no_tensor_of_their_size(monkeypatch):
    monkeypatch.setattr(divergence, "SMALL", 0)
    s, t = (x.detach().requires_grad_() for x in scores(2, 30, 30))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        globalpointer_divergence(s, t)
    large = [x.data_ptr() for x in kept if x.numel() >= s.numel()]
    assert set(large) == {s.data_ptr(), t.data_ptr()}


@pytest.mark.usefixtures("route")
@pytest.mark.parametrize("shared_mask", [True, False])
@pytest.mark.parametrize("name", OF_SCORES)
def test_vmap_does_what_a_loop_does(name, shared_mask):
    s, t = scores(2, 5, 3, 4)
    mask = torch.rand(5, 4, generator=torch.Generator().manual_seed(2)) < 0.6
    mask[:, 0] = True
    f = torch.func.grad(OF_SCORES[name])
    if shared_mask:
        found = torch.func.vmap(f, in_dims=(0, 0, None))(s, t, mask[0])
        looped = torch.stack([f(a, b, mask[0]) for a, b in zip(s, t, strict=True)])
    else:
        found = torch.func.vmap(f, in_dims=(1, 0, 0))(s.transpose(0, 1), t, mask)
        looped = torch.stack([f(a, b, m) for a, b, m in zip(s, t, mask, strict=True)])
    assert close(found, looped)
    one = torch.func.vmap(OF_SCORES[name], in_dims=(0, None))(s, t[0])
    assert close(one, torch.stack([OF_SCORES[name](a, t[0]) for a in s]))


def test_vmap_of_the_loss_does_what_a_loop_does():
    s = scores(5, 3, 4)
    labels = torch.rand(5, 3, 4, generator=torch.Generator().manual_seed(3)) < 0.2
    looped = torch.stack([multilabel_cross_entropy(*x) for x in zip(s, labels, strict=True)])
    assert close(torch.func.vmap(multilabel_cross_entropy)(s, labels), looped)


def test_example_in_the_docstring():
    assert doctest.testmod(divergence).failed == 0
