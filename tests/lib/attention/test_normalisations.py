"""Attention weights: each rule against its formula, its row sums, and what masks do to it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lib.attention.normalisations import NORMALISATIONS, normalise


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def causal(n: int) -> Tensor:
    return torch.ones(n, n, dtype=torch.bool).tril()


def close(a: Tensor, b: Tensor, tolerance: float = 1e-13) -> bool:
    return a.shape == b.shape and bool((a - b).abs().max() < tolerance)


FORMULAS = {
    "softmax": lambda b: b.exp() / b.exp().sum(-1, keepdim=True),
    "l2": lambda b: b.exp() / (2 * b).exp().sum(-1, keepdim=True).sqrt(),
    "signed_l2": lambda b: b * b.sigmoid() / ((b * b.sigmoid()) ** 2).sum(-1, keepdim=True).sqrt(),
    "relu2": lambda b: b.clamp(min=0) ** 2 / b.shape[-1],
    "exp": lambda b: b.exp() / b.shape[-1],
    "off_by_one": lambda b: b.exp() / (1 + b.exp().sum(-1, keepdim=True)),
    "sigmoid": lambda b: 1 / (1 + b.shape[-1] * (-b).exp()),
}


def test_every_name_has_a_formula():
    assert set(FORMULAS) == set(NORMALISATIONS)


@pytest.mark.parametrize("name", NORMALISATIONS)
def test_weights_are_those_of_the_formula(name):
    b = normal(2, 3, 7, 7)
    assert close(normalise(b, name), FORMULAS[name](b))


@pytest.mark.parametrize("name", NORMALISATIONS)
def test_a_masked_row_is_that_of_its_visible_keys_alone(name):
    b, mask = normal(2, 3, 7, 7), causal(7)
    weights = normalise(b, name, mask)
    assert (weights.masked_select(~mask) == 0).all()  # exactly
    for i in range(7):
        assert close(weights[..., i, : i + 1], FORMULAS[name](b[..., i, : i + 1]))


@pytest.mark.parametrize("name", NORMALISATIONS)
def test_hidden_logits_do_not_matter_even_where_they_are_huge(name):
    b, mask = normal(2, 7, 7), causal(7)
    loud = torch.where(mask, b, 1e300)
    assert torch.equal(normalise(b, name, mask), normalise(loud, name, mask))


@pytest.mark.parametrize("name", NORMALISATIONS)
def test_gradients_are_right_with_and_without_a_mask(name):
    b = normal(5, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: normalise(x, name), b)
    assert torch.autograd.gradcheck(lambda x: normalise(x, name, causal(5)), b)


def test_softmax_is_the_attention_of_torch():
    q, k, v = (normal(2, 4, 9, 8, seed=s) for s in range(3))
    logits = q @ k.mT / 8**0.5
    bias = normal(4, 9, 9, seed=3)
    for ours, theirs in (
        (normalise(logits, "softmax"), dict()),
        (normalise(logits + bias, "softmax"), dict(attn_mask=bias[None])),
        (normalise(logits, "softmax", causal(9)), dict(is_causal=True)),
    ):
        assert close(ours @ v, F.scaled_dot_product_attention(q, k, v, **theirs))


def test_rows_of_softmax_sum_to_one_and_those_of_l2_have_norm_one():
    b, mask = normal(3, 8, 8), causal(8)
    assert close(normalise(b, "softmax", mask).sum(-1), torch.ones(3, 8).double())
    for name in ("l2", "signed_l2"):
        assert close(normalise(b, name, mask).norm(dim=-1), torch.ones(3, 8).double())


@given(st.integers(0, 999), st.integers(2, 40), st.floats(0.01, 20))
def test_rows_of_l2_sum_to_the_exponential_of_half_the_renyi_entropy_of_softmax(seed, n, scale):
    b = scale * normal(4, n, seed=seed)
    p = normalise(b, "softmax")
    renyi = -p.square().sum(-1).log()  # H_2
    r = normalise(b, "l2").sum(-1)
    assert close(r / (renyi / 2).exp(), torch.ones(4).double(), 1e-12)
    assert (r >= 1 - 1e-12).all()
    assert (r <= n**0.5 + 1e-12).all()


def test_off_by_one_is_softmax_with_a_key_of_logit_zero_taken_off():
    b = normal(3, 8, 8)
    with_sink = torch.cat([b, torch.zeros(3, 8, 1)], -1).softmax(-1)
    assert close(normalise(b, "off_by_one"), with_sink[..., :-1])


@pytest.mark.parametrize("name", ["softmax", "l2", "off_by_one", "sigmoid"])
@pytest.mark.parametrize("shift", [-1e4, 1e4])
def test_large_logits_neither_overflow_nor_vanish(name, shift):
    b = (normal(4, 4).float() + shift).requires_grad_()
    weights = normalise(b, name)
    weights.sum().backward()
    assert torch.isfinite(weights).all()
    assert torch.isfinite(b.grad).all()
    if name in ("softmax", "l2"):  # both ignore a shift
        assert (weights.sum(-1) > 0.99).all()


@pytest.mark.parametrize("name", ["signed_l2", "relu2"])
def test_a_row_of_zero_logits_is_finite_and_so_is_its_gradient(name):
    b = torch.zeros(3, 3, requires_grad=True)
    weights = normalise(b, name)
    weights.sum().backward()
    assert (weights == 0).all()
    assert torch.isfinite(b.grad).all()


@pytest.mark.parametrize("name", ["relu2", "exp", "sigmoid"])
def test_the_count_of_keys_can_be_given(name):
    b, mask = normal(2, 6, 6), causal(6)
    given = normalise(b, name, mask, count=6)
    assert torch.equal(given, normalise(b, name).masked_fill(~mask, 0))
    assert torch.equal(given, normalise(b, name, mask, count=torch.tensor([[6]])))


@pytest.mark.parametrize("name", NORMALISATIONS)
def test_single_precision_stays_single(name):
    weights = normalise(normal(3, 3).float(), name, causal(3))
    assert weights.dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((torch.zeros(2, 2), "sofmax"), ValueError, '`name` must be one of "softmax", .*sofmax'),
        (([[0.0]], "l2"), TypeError, r"`logits` must be a torch.Tensor, got list"),
        ((torch.zeros(2, 2, dtype=torch.int64), "l2"), TypeError, "`logits` must have a floating"),
        ((torch.zeros(0, 2), "l2"), ValueError, r"`logits` must have shape \(…, n, n\)"),
        ((torch.zeros(2, 2), "l2", torch.ones(2, 2)), TypeError, "`mask` must be of bool"),
        ((torch.zeros(2, 2), "l2", [True]), TypeError, "`mask` must be a tensor of bool"),
        ((torch.zeros(2, 2), "l2", causal(3)), ValueError, "`mask` must broadcast to the logits"),
        (
            (torch.zeros(2, 2), "l2", torch.ones(3, 2, 2) > 0),
            ValueError,
            "`mask` must broadcast to the logits",
        ),
        (
            (torch.zeros(2, 2), "l2", causal(2).triu(1)),
            ValueError,
            "`mask` must leave every query at least one key",
        ),
    ],
)
def test_bad_input_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        normalise(*arguments)


def test_a_count_below_one_is_refused():
    with pytest.raises(ValueError, match="`count` must be at least 1, got 0"):
        normalise(torch.zeros(2, 2), "exp", count=0)
