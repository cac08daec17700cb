"""Attention for torch: torch's own function as the oracle, and the plain formula beside it."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lib.attention import (
    entropy_invariant_scale,
    length_factor,
    scaled_dot_product_attention,
    visible_keys,
)

RANKS = [(), (3,), (2, 3), (2, 1, 3)]


@pytest.fixture
def draw():
    """Standard normal float64 tensors from one generator."""
    generator = torch.Generator().manual_seed(8823)

    def normal(*shape, dtype=torch.float64):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    return normal


def plain(q, k, v, scale, visible=None, bias=0.0):
    """softmax(λ q·k + bias) v with the n × n matrix written out; `scale` a number or one a row."""
    logits = torch.as_tensor(scale)[..., None] * (q @ k.mT) + bias
    if visible is not None:
        logits = logits.masked_fill(~visible, -math.inf)
    return torch.softmax(logits, -1) @ v


def lower(queries, keys):
    return torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)


def log_n(counts, d, kappa=None):
    return torch.as_tensor(entropy_invariant_scale(counts, d, kappa))


def close(a, b, atol=1e-12):
    torch.testing.assert_close(a, b, rtol=0, atol=atol)


# --- agreement with torch -------------------------------------------------------------------------


@pytest.mark.parametrize("lead", RANKS)
@pytest.mark.parametrize("scale", [None, "sqrt_d", 0.3])
def test_a_fixed_scale_is_torchs_own_attention(draw, lead, scale):
    q, k, v = draw(*lead, 7, 8), draw(*lead, 9, 8), draw(*lead, 9, 5)
    number = None if isinstance(scale, str) else scale
    expected = F.scaled_dot_product_attention(q, k, v, scale=number)
    close(scaled_dot_product_attention(q, k, v, scale=scale), expected)


@pytest.mark.parametrize("lead", RANKS)
def test_masks_and_biases_mean_what_they_mean_in_torch(draw, lead):
    q, k, v = draw(*lead, 6, 8), draw(*lead, 6, 8), draw(*lead, 6, 8)
    mask = torch.rand(6, 6, generator=torch.Generator().manual_seed(0)) < 0.6
    mask.fill_diagonal_(True)
    bias = draw(6, 6)
    for ours, theirs in (
        ({"mask": "causal"}, {"is_causal": True}),
        ({"mask": mask}, {"attn_mask": mask}),
        ({"bias": bias}, {"attn_mask": bias}),
        ({"bias": bias, "mask": mask}, {"attn_mask": bias.masked_fill(~mask, -math.inf)}),
        (
            {"bias": bias, "mask": "causal"},
            {"attn_mask": bias.masked_fill(~lower(6, 6), -math.inf)},
        ),
    ):
        close(
            scaled_dot_product_attention(q, k, v, **ours),
            F.scaled_dot_product_attention(q, k, v, **theirs),
        )


def test_log_n_without_a_mask_is_torch_with_one_scale(draw):
    q, k, v = draw(2, 3, 5, 16), draw(2, 3, 40, 16), draw(2, 3, 40, 16)
    scale = float(entropy_invariant_scale(40, 16))
    close(
        scaled_dot_product_attention(q, k, v, scale="log_n"),
        F.scaled_dot_product_attention(q, k, v, scale=scale),
    )


def test_log_n_at_512_keys_is_the_usual_attention(draw):
    q, k, v = draw(1, 2, 4, 8), draw(1, 2, 512, 8), draw(1, 2, 512, 8)
    close(
        scaled_dot_product_attention(q, k, v, scale="log_n"),
        F.scaled_dot_product_attention(q, k, v),
    )


@pytest.mark.parametrize("lead", RANKS)
@pytest.mark.parametrize("kappa", [None, 1.7])
def test_log_n_under_a_causal_mask_has_one_scale_per_row(draw, lead, kappa):
    q, k, v = draw(*lead, 9, 8), draw(*lead, 9, 8), draw(*lead, 9, 5)
    expected = plain(q, k, v, log_n(np.arange(1, 10), 8, kappa), lower(9, 9))
    for mask in ("causal", lower(9, 9)):
        close(
            scaled_dot_product_attention(q, k, v, scale="log_n", mask=mask, kappa=kappa), expected
        )
    one_scale = plain(q, k, v, log_n(np.full(9, 9), 8, kappa), lower(9, 9))
    assert (expected - one_scale).abs().max() > 1e-3


@pytest.mark.parametrize(
    "shape", [(5, 7), (1, 7), (5, 1), (7,), (3, 5, 7), (2, 1, 5, 7), (2, 1, 1, 7)]
)
def test_log_n_counts_the_keys_that_each_row_sees(draw, shape):
    q, k, v = draw(2, 3, 5, 8), draw(2, 3, 7, 8), draw(2, 3, 7, 8)
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.6
    mask[..., 0] = True
    full = mask.expand(2, 3, 5, 7)
    expected = plain(q, k, v, log_n(full.sum(-1), 8), full)
    close(scaled_dot_product_attention(q, k, v, scale="log_n", mask=mask), expected)


def test_a_mask_goes_with_leading_axes_of_any_number(draw):
    q, k, v = draw(2, 2, 3, 5, 8), draw(2, 2, 3, 7, 8), draw(2, 2, 3, 7, 8)
    mask = torch.rand(2, 1, 1, 5, 7, generator=torch.Generator().manual_seed(2)) < 0.7
    mask[..., 3] = True
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    close(scaled_dot_product_attention(q, k, v, mask=mask), expected)


def test_leading_axes_broadcast(draw):
    q, k, v = draw(2, 3, 5, 8), draw(1, 3, 7, 8), draw(7, 4)
    expected = plain(q, k, v, log_n(np.full(5, 7), 8))
    close(scaled_dot_product_attention(q, k, v, scale="log_n"), expected)


def test_a_tensor_of_scales_belongs_to_the_rows(draw):
    q, k, v = draw(2, 3, 5, 8), draw(2, 3, 7, 8), draw(2, 3, 7, 8)
    for shape in ((5,), (3, 5), (2, 1, 1), ()):
        scale = draw(*shape, 1).abs()[..., 0]
        expected = plain(q, k, v, scale.expand(2, 3, 5))
        close(scaled_dot_product_attention(q, k, v, scale=scale), expected)


def test_a_bias_is_added_as_it_is_beside_a_scale_of_ones_own(draw):
    q, k, v, bias = draw(2, 3, 5, 8), draw(2, 3, 7, 8), draw(2, 3, 7, 8), draw(5, 7)
    scale = draw(5).abs()
    expected = plain(q, k, v, scale, bias=bias)
    close(scaled_dot_product_attention(q, k, v, scale=scale, bias=bias), expected)
    close(
        scaled_dot_product_attention(q, k, v, scale=0.2, bias=bias),
        plain(q, k, v, torch.full((5,), 0.2, dtype=torch.float64), bias=bias),
    )


def test_a_clamped_length_factor_is_a_tensor_of_scales(draw):
    q, k, v = draw(1, 2, 12, 8), draw(1, 2, 12, 8), draw(1, 2, 12, 8)
    factor = torch.as_tensor(length_factor(visible_keys("causal", 12, 12), 4))
    ours = scaled_dot_product_attention(q, k, v, scale=factor / math.sqrt(8), mask="causal")
    usual = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    close(ours[..., :4, :], usual[..., :4, :])
    assert (ours[..., 4:, :] - usual[..., 4:, :]).abs().max() > 1e-3


# --- bias -----------------------------------------------------------------------------------------


def test_log_n_sharpens_the_bias_with_the_dot_products(draw):
    q, k, v, bias = draw(2, 3, 9, 8), draw(2, 3, 9, 8), draw(2, 3, 9, 8), draw(3, 9, 9)
    lam = log_n(np.arange(1, 10), 8)
    factor = lam * math.sqrt(8)
    whole = plain(q, k, v, lam, lower(9, 9), factor[:, None] * bias)
    close(scaled_dot_product_attention(q, k, v, scale="log_n", mask="causal", bias=bias), whole)
    as_it_is = plain(q, k, v, lam, lower(9, 9), bias)
    close(
        scaled_dot_product_attention(
            q, k, v, scale="log_n", mask="causal", bias=bias, scale_bias=False
        ),
        as_it_is,
    )


@pytest.mark.parametrize("hide", [-math.inf, torch.finfo(torch.float64).min])
@pytest.mark.parametrize("scale_bias", [True, False])
def test_keys_hidden_by_a_bias_do_not_count(draw, hide, scale_bias):
    q, k, v = draw(2, 3, 5, 8), draw(2, 3, 7, 8), draw(2, 3, 7, 8)
    bias = torch.zeros(5, 7, dtype=torch.float64)
    bias[:, 4:] = hide
    bias[2, 1:] = hide  # one key left: 0 · -inf must not appear
    ours = scaled_dot_product_attention(q, k, v, scale="log_n", bias=bias, scale_bias=scale_bias)
    mask = bias == 0
    close(ours, scaled_dot_product_attention(q, k, v, scale="log_n", mask=mask))


def test_a_bias_over_keys_alone_is_expanded(draw):
    q, k, v, bias = draw(1, 2, 5, 8), draw(1, 2, 7, 8), draw(1, 2, 7, 8), draw(7)
    lam = log_n(np.full(5, 7), 8)
    expected = plain(q, k, v, lam, bias=math.sqrt(8) * lam[:, None] * bias)
    close(scaled_dot_product_attention(q, k, v, scale="log_n", bias=bias), expected)


# --- prefixes and caches --------------------------------------------------------------------------


@pytest.mark.parametrize("queries", [1, 2, 5, 9])
def test_a_cache_of_keys_stays_valid(draw, queries):
    q, k, v = draw(2, 3, 9, 8), draw(2, 3, 9, 8), draw(2, 3, 9, 8)
    whole = scaled_dot_product_attention(q, k, v, scale="log_n", mask="causal")
    last = scaled_dot_product_attention(q[..., -queries:, :], k, v, scale="log_n", mask="causal")
    close(last, whole[..., -queries:, :])


def test_a_prefix_is_attended_as_if_nothing_followed(draw):
    q, k, v = draw(2, 3, 9, 8), draw(2, 3, 9, 8), draw(2, 3, 9, 8)
    whole = scaled_dot_product_attention(q, k, v, scale="log_n", mask="causal")
    prefix = scaled_dot_product_attention(
        q[..., :5, :], k[..., :5, :], v[..., :5, :], scale="log_n", mask="causal"
    )
    close(prefix, whole[..., :5, :])
    # One factor for the sequence would not be: rows of the prefix would change as it grows.
    one = float(entropy_invariant_scale(9, 8))
    sequence_wide = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=one)
    assert (sequence_wide[..., :5, :] - prefix).abs().max() > 1e-2


def test_a_row_with_one_key_returns_its_value(draw):
    q, k, v = draw(2, 3, 4, 8), draw(2, 3, 4, 8), draw(2, 3, 4, 8)
    ours = scaled_dot_product_attention(q, k, v, scale="log_n", mask="causal")
    close(ours[..., 0, :], v[..., 0, :])
    one = scaled_dot_product_attention(q[..., :1, :], k[..., :1, :], v[..., :1, :], scale="log_n")
    close(one, v[..., :1, :])


# --- gradients, dtypes, buffers -------------------------------------------------------------------


@pytest.mark.parametrize("mask", [None, "causal", lower(9, 9)], ids=["none", "causal", "bool"])
def test_gradients_are_those_of_torch_on_scaled_queries(draw, mask):
    inputs = [draw(2, 3, 9, 8).requires_grad_() for _ in range(3)]
    weight = draw(2, 3, 9, 8)
    counts = np.full(9, 9) if mask is None else np.arange(1, 10)
    factor = (log_n(counts, 8) * math.sqrt(8))[:, None]
    visible = None if mask is None else lower(9, 9)
    ours = (scaled_dot_product_attention(*inputs, scale="log_n", mask=mask) * weight).sum()
    q, k, v = inputs
    theirs = (F.scaled_dot_product_attention(q * factor, k, v, attn_mask=visible) * weight).sum()
    got = torch.autograd.grad(ours, inputs)
    for a, b in zip(got, torch.autograd.grad(theirs, inputs), strict=True):
        close(a, b)


def test_gradients_reach_the_bias_and_a_tensor_scale(draw):
    q, k, v = (draw(1, 1, 3, 4) for _ in range(3))
    bias, scale = draw(3, 3).requires_grad_(), draw(3).abs().requires_grad_()

    def with_bias(bias):
        return scaled_dot_product_attention(q, k, v, scale="log_n", bias=bias)

    def with_scale(scale):
        return scaled_dot_product_attention(q, k, v, scale=scale)

    assert torch.autograd.gradcheck(with_bias, bias)
    assert torch.autograd.gradcheck(with_scale, scale)


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 2e-6), (torch.float16, 4e-3), (torch.bfloat16, 3e-2)],
)
@pytest.mark.parametrize("mask", [None, "causal"])
def test_lower_precisions_stay_as_close_as_torch_does(draw, dtype, tolerance, mask):
    exact = [draw(2, 3, 64, 16) for _ in range(3)]
    rounded = [x.to(dtype) for x in exact]
    ours = scaled_dot_product_attention(*rounded, scale="log_n", mask=mask)
    assert ours.dtype == dtype
    expected = scaled_dot_product_attention(
        *(x.to(torch.float64) for x in rounded), scale="log_n", mask=mask
    )
    close(ours.to(torch.float64), expected, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rounds_the_scaled_queries_not_the_factors(draw, dtype):
    q, k, v = (draw(2, 3, 64, 16, dtype=dtype) for _ in range(3))
    factor = (log_n(np.arange(1, 65), 16) * 4).float()[:, None]
    expected = F.scaled_dot_product_attention((q.float() * factor).to(dtype), k, v, is_causal=True)
    close(scaled_dot_product_attention(q, k, v, scale="log_n", mask="causal"), expected, atol=0)


def test_the_result_does_not_depend_on_memory_layout(draw):
    q, k, v = (draw(2, 9, 3, 8).transpose(1, 2) for _ in range(3))
    for scale, mask in ((None, None), ("log_n", "causal")):
        close(
            scaled_dot_product_attention(q, k, v, scale=scale, mask=mask),
            scaled_dot_product_attention(
                q.contiguous(), k.contiguous(), v.contiguous(), scale=scale, mask=mask
            ),
        )


def test_inputs_are_not_changed(draw):
    inputs = [draw(2, 3, 6, 8) for _ in range(3)]
    before = [x.clone() for x in inputs]
    bias = draw(6, 6)
    bias_before = bias.clone()
    scaled_dot_product_attention(*inputs, scale="log_n", mask="causal", bias=bias)
    for a, b in zip([*inputs, bias], [*before, bias_before], strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("rank", [2, 3, 4, 5])
@pytest.mark.parametrize("mask", [None, "causal"])
def test_no_buffer_of_queries_times_keys_is_allocated(draw, rank, mask):
    n, d = 1024, 16
    q, k, v = (draw(*(1,) * (rank - 2), n, d, dtype=torch.float32) for _ in range(3))
    with torch.profiler.profile(profile_memory=True) as profile:
        scaled_dot_product_attention(q, k, v, scale="log_n", mask=mask)
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert largest < n * n * 4 / 4  # outside the fused kernel one buffer has n · n · 4 bytes


# --- visible keys ---------------------------------------------------------------------------------


def test_visible_keys_are_counted_per_row():
    assert visible_keys(None, 3, 5).tolist() == [5, 5, 5]
    assert visible_keys("causal", 3, 3).tolist() == [1, 2, 3]
    assert visible_keys("causal", 2, 5).tolist() == [4, 5]
    assert visible_keys(torch.tensor([[True, False, True], [True] * 3]), 2, 3).tolist() == [2, 3]
    assert visible_keys(torch.tensor([True, False, True]), 2, 3).tolist() == [2, 2]
    assert visible_keys(torch.ones(4, 1, 2, 1, dtype=torch.bool), 2, 3).shape == (4, 1, 2)
    assert visible_keys(torch.ones(2, 1, dtype=torch.bool), 2, 3).tolist() == [3, 3]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((None, 0, 3), ValueError, "`queries` must be a positive whole number, got 0"),
        ((None, 3, 2.0), ValueError, "`keys` must be a positive whole number"),
        (("causal", 4, 3), ValueError, "at least as many keys as queries, got 3 keys for 4"),
        (("future", 3, 3), ValueError, '`mask` must be None, "causal" or'),
        ((torch.ones(3, 3), 3, 3), TypeError, "`mask` must be of bool"),
        ((torch.zeros(3, 3, dtype=torch.bool), 3, 3), ValueError, "at least one key"),
        ((torch.ones(2, 3, dtype=torch.bool), 3, 3), ValueError, "`mask` must broadcast"),
    ],
)
def test_visible_keys_refuse_bad_input_by_name(arguments, error, message):
    with pytest.raises(error, match=message):
        visible_keys(*arguments)


# --- bad input ------------------------------------------------------------------------------------

GOOD = {name: torch.zeros(2, 3, 5, 8) for name in "qkv"}
BOOL = torch.ones(5, 5, dtype=torch.bool)
BLIND = BOOL.clone()
BLIND[3] = False


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"q": np.zeros((5, 8))}, TypeError, "`q` must be a torch.Tensor, got ndarray"),
        ({"k": None}, TypeError, "`k` must be a torch.Tensor"),
        ({"q": torch.zeros(5, 8, dtype=torch.int64)}, TypeError, "`q` must have a floating dtype"),
        ({"v": torch.zeros(2, 3, 5, 8).double()}, TypeError, "`v` must have the dtype of `q`"),
        ({"k": torch.zeros(8)}, ValueError, r"`k` must have shape \(..., length, d\), got \(8,\)"),
        ({"q": torch.zeros(2, 3, 0, 8)}, ValueError, "`q` must not be empty"),
        (
            {"k": torch.zeros(2, 3, 5, 4)},
            ValueError,
            "`k` must have the last axis of `q`, 8, got 4",
        ),
        ({"v": torch.zeros(2, 3, 4, 8)}, ValueError, "`v` must have one row per key, 5, got"),
        ({"v": torch.zeros(4, 3, 5, 8)}, ValueError, "the leading axes of `q`, `k` and `v` must"),
        ({"q": torch.zeros(2, 3, 5, 8, device="meta")}, ValueError, "`k` must be on the device"),
        ({"scale": "log_d"}, ValueError, '`scale` must be None, "sqrt_d", "log_n", a number'),
        ({"scale": -0.1}, ValueError, "`scale` must be finite and not negative, got -0.1"),
        ({"scale": math.nan}, ValueError, "`scale` must be finite and not negative"),
        ({"scale": True}, TypeError, "`scale` must be None"),
        ({"scale": [0.1]}, TypeError, "`scale` must be None"),
        ({"scale": torch.ones(4)}, ValueError, r"`scale` must broadcast to \(..., queries\)"),
        ({"scale": torch.ones(5).long()}, TypeError, "`scale` must have a floating dtype"),
        ({"mask": "future"}, ValueError, '`mask` must be None, "causal" or a tensor of bool'),
        ({"mask": BOOL.float()}, TypeError, "`mask` must be of bool.* go into `bias`"),
        ({"mask": np.ones((5, 5), bool)}, TypeError, "`mask` must be None.* got ndarray"),
        ({"mask": BOOL[:4]}, ValueError, r"`mask` must broadcast to .* got \(4, 5\)"),
        ({"mask": BOOL.expand(3, 1, 5, 5)}, ValueError, "`mask` must broadcast"),
        ({"mask": BOOL.expand(1, 2, 3, 5, 5)}, ValueError, "`mask` must broadcast"),
        ({"mask": torch.tensor(True)}, ValueError, "`mask` must broadcast"),
        ({"mask": BLIND}, ValueError, r"`mask` must leave every query at least one key.*\(3,\)"),
        ({"mask": BLIND, "scale": "log_n"}, ValueError, "`mask` must leave every query"),
        (
            {"bias": torch.full((5, 5), -math.inf), "scale": "log_n"},
            ValueError,
            "`bias` must leave every query at least one key",
        ),
        ({"mask": "causal", "q": torch.zeros(2, 3, 6, 8)}, ValueError, "as many keys as queries"),
        ({"bias": 1.0}, TypeError, "`bias` must be a torch.Tensor, got float"),
        ({"bias": torch.zeros(5, 5).double()}, TypeError, "`bias` must have the dtype of `q`"),
        ({"bias": BOOL}, TypeError, "`bias` must have the dtype of `q`"),
        ({"bias": torch.zeros(5, 4)}, ValueError, "`bias` must broadcast"),
        ({"kappa": 2.0}, ValueError, '`kappa` applies to scale="log_n" only, got scale=None'),
        ({"kappa": 0.0, "scale": "log_n"}, ValueError, "`kappa` must be finite and positive"),
        ({"kappa": "x", "scale": "log_n"}, ValueError, "`kappa` must be a number"),
    ],
)
def test_attention_refuses_bad_input_by_name(changes, error, message):
    arguments = GOOD | changes
    q, k, v = (arguments.pop(name) for name in "qkv")
    with pytest.raises(error, match=message):
        scaled_dot_product_attention(q, k, v, **arguments)
