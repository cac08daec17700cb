"""Masks that hide anything, and input that can't be meant."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lib.divergence import (
    bernoulli_symmetric_kl,
    globalpointer_divergence,
    kl,
    multilabel_cross_entropy,
    squared_difference,
    symmetric_kl,
    symmetric_kl_of_logits,
)

OF_SCORES = {
    "globalpointer": globalpointer_divergence,
    "softmax": lambda s, t, mask=None, dim=(-2, -1): symmetric_kl_of_logits(s, t, dim, mask),
    "squared": squared_difference,
}
MASKED = OF_SCORES | {
    "loss": lambda s, t, mask=None, dim=(-2, -1): multilabel_cross_entropy(
        s, torch.zeros_like(s, dtype=torch.bool), mask, dim
    )
}
OF_LAWS = {"kl": kl, "symmetric": symmetric_kl}
NAN, INF = float("nan"), float("inf")


def scores(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def law(seed: int, *shape: int) -> Tensor:
    return scores(seed, *shape).softmax(-1)


TRIANGLE = torch.ones(4, 4, dtype=torch.bool).triu()
NONE = torch.zeros(4, 4, dtype=torch.bool)


# --- what the mask hides --------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [NAN, INF, -INF, -1e12, 1e30])
@pytest.mark.parametrize("name", OF_SCORES)
def test_hidden_cells_play_no_part(name, hidden):
    s, t = scores(0, 2, 4, 4), scores(1, 2, 4, 4)
    expected = OF_SCORES[name](s, t, TRIANGLE)
    s, t = (x.masked_fill(~TRIANGLE, hidden).requires_grad_() for x in (s, t))
    found = OF_SCORES[name](s, t, TRIANGLE)
    assert torch.equal(found, expected)
    for gradient in torch.autograd.grad(found.sum(), (s, t)):
        assert gradient.isfinite().all()
        assert (gradient[..., ~TRIANGLE] == 0).all()
        assert (gradient[..., TRIANGLE] != 0).all()


@pytest.mark.parametrize("hidden", [NAN, INF, -INF, -1e12, 1e30])
def test_hidden_cells_play_no_part_in_the_loss(hidden):
    s, labels = scores(0, 4, 4), torch.eye(4, dtype=torch.bool)
    expected = multilabel_cross_entropy(s, labels, TRIANGLE)
    s = s.masked_fill(~TRIANGLE, hidden).requires_grad_()
    found = multilabel_cross_entropy(s, labels, TRIANGLE)
    gradient = torch.autograd.grad(found, s)[0]
    assert torch.equal(found, expected)
    assert gradient.isfinite().all()
    assert (gradient[~TRIANGLE] == 0).all()


@pytest.mark.parametrize("name", OF_SCORES)
def test_a_mask_is_the_table_without_the_hidden_columns(name):
    s, t = scores(0, 3, 4, 6), scores(1, 3, 4, 6)
    mask = torch.arange(6) < 4
    expected = OF_SCORES[name](s[..., :4], t[..., :4])
    assert torch.allclose(OF_SCORES[name](s, t, mask), expected, atol=1e-6)


def test_a_mask_leaves_the_loss_the_cells_that_count():
    s, labels = scores(0, 4, 4), torch.eye(4, dtype=torch.bool)
    expected = multilabel_cross_entropy(s[TRIANGLE], labels[TRIANGLE], None, -1)
    assert torch.allclose(multilabel_cross_entropy(s, labels, TRIANGLE), expected)


@pytest.mark.parametrize("dim", [0, -1, (0, 2), (-3, -2, -1)])
@pytest.mark.parametrize("name", OF_SCORES)
def test_any_axes_can_be_summed_over(name, dim):
    s, t = scores(0, 3, 4, 5), scores(1, 3, 4, 5)
    axes = [d % 3 for d in (dim if isinstance(dim, tuple) else (dim,))]
    kept = [d for d in range(3) if d not in axes]
    flat = [x.permute(*kept, *axes).flatten(len(kept)) for x in (s, t)]
    expected = OF_SCORES[name](*flat, None, -1)
    assert torch.allclose(OF_SCORES[name](s, t, None, dim), expected, atol=1e-5)


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OF_SCORES)
@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("which", ["s", "t", "both"])
def test_scores_that_count_must_be_finite(name, value, which):
    s, t = scores(0, 4, 4), scores(1, 4, 4)
    for x, letter in ((s, "s"), (t, "t")):
        if which in (letter, "both"):
            x[0, 1] = value
    wanted = "s" if which == "both" else which
    with pytest.raises(ValueError, match=f"`{wanted}` must be finite where it counts"):
        OF_SCORES[name](s, t, TRIANGLE)


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_scores_of_the_loss_must_be_finite(value):
    s = scores(0, 4, 4)
    s[1, 2] = value
    with pytest.raises(ValueError, match="`scores` must be finite"):
        multilabel_cross_entropy(s, NONE, TRIANGLE)


@pytest.mark.parametrize("name", OF_SCORES)
@pytest.mark.parametrize(
    ("s", "t", "error", "words"),
    [
        ([[1.0]], torch.ones(1, 1), TypeError, "`s` must be a torch.Tensor, got list"),
        (torch.ones(1, 1), [[1.0]], TypeError, "`t` must be a torch.Tensor, got list"),
        (torch.ones(1, 1).long(), torch.ones(1, 1), TypeError, "`s` must have a floating dtype"),
        (torch.ones(2, 2), torch.ones(1, 2), ValueError, "`t` must have the shape of `s`"),
        (torch.ones(2, 2), torch.ones(2, 2).double(), ValueError, "`t` must have the dtype of"),
        (torch.ones(0, 2, 2), torch.ones(0, 2, 2), ValueError, "`s` must not be empty"),
    ],
)
def test_pairs_that_do_not_fit(name, s, t, error, words):
    with pytest.raises(error, match=words):
        OF_SCORES[name](s, t)


@pytest.mark.parametrize("name", MASKED)
@pytest.mark.parametrize(
    ("mask", "error", "words"),
    [
        (NONE, ValueError, "`mask` must leave at least one cell"),
        (torch.arange(2).bool().reshape(2, 1, 1), ValueError, "`mask` must leave at least one"),
        (TRIANGLE.float(), TypeError, "`mask` must be a tensor of bool"),
        ([True], TypeError, "`mask` must be a tensor of bool, .* got list"),
        (torch.ones(3, 4, dtype=torch.bool), ValueError, "`mask` must broadcast to"),
        (torch.ones(5, 2, 4, 4, dtype=torch.bool), ValueError, "`mask` must broadcast to"),
    ],
)
def test_masks_that_do_not_fit(name, mask, error, words):
    s, t = scores(0, 2, 4, 4), scores(1, 2, 4, 4)
    with pytest.raises(error, match=words):
        MASKED[name](s, t, mask)


@pytest.mark.parametrize("name", MASKED)
@pytest.mark.parametrize(
    ("dim", "error", "words"),
    [
        (2, ValueError, "`dim` must be from -2 to 1, got 2"),
        ((), ValueError, "`dim` must name at least one axis"),
        ((0, -2), ValueError, "`dim` must name different axes"),
        ("all", TypeError, "`dim` must be a whole number"),
    ],
)
def test_axes_that_are_none(name, dim, error, words):
    s, t = scores(0, 4, 4), scores(1, 4, 4)
    with pytest.raises(error, match=words):
        MASKED[name](s, t, None, dim)


@pytest.mark.parametrize(
    ("labels", "error", "words"),
    [
        (NONE.float(), TypeError, "`labels` must be a tensor of bool"),
        ([[True]], TypeError, "`labels` must be a tensor of bool, .* got list"),
        (NONE[:2], ValueError, "`labels` must have the shape of `scores`"),
        (~TRIANGLE, ValueError, "`labels` must lie where `mask` is True, got 6 positives outside"),
    ],
)
def test_labels_that_do_not_fit(labels, error, words):
    with pytest.raises(error, match=words):
        multilabel_cross_entropy(scores(0, 4, 4), labels, TRIANGLE)


@pytest.mark.parametrize(
    ("s", "error", "words"),
    [
        ([[1.0]], TypeError, "`scores` must be a torch.Tensor"),
        (torch.ones(2, 2).int(), TypeError, "`scores` must have a floating dtype"),
        (torch.ones(0, 2), ValueError, "`scores` must not be empty"),
    ],
)
def test_scores_of_the_loss_that_are_none(s, error, words):
    with pytest.raises(error, match=words):
        multilabel_cross_entropy(s, NONE)


@pytest.mark.parametrize("name", OF_LAWS)
@pytest.mark.parametrize(
    ("p", "q", "error", "words"),
    [
        ([0.5, 0.5], law(0, 2), TypeError, "`p` must be a torch.Tensor"),
        (law(0, 3), [1.0], TypeError, "`q` must be a torch.Tensor"),
        (law(0, 3).long(), law(0, 3), TypeError, "`p` must have a floating dtype"),
        (law(0, 3), law(0, 4), ValueError, "`q` must have the shape of `p`"),
        (torch.ones(0), torch.ones(0), ValueError, "`p` must not be empty"),
        (torch.tensor([1.5, -0.5]), law(0, 2), ValueError, "`p` must hold probabilities"),
        (law(0, 2), torch.tensor([NAN, 1.0]), ValueError, "`q` must hold probabilities"),
        (law(0, 2), torch.tensor([0.5, 0.4]), ValueError, "`q` must sum to 1 along `dim` = -1"),
    ],
)
def test_laws_that_are_none(name, p, q, error, words):
    with pytest.raises(error, match=words):
        OF_LAWS[name](p, q)


@pytest.mark.parametrize("name", OF_LAWS)
def test_an_axis_that_a_law_does_not_have(name):
    with pytest.raises(ValueError, match="`dim` must be from -1 to 0, got 1"):
        OF_LAWS[name](law(0, 3), law(1, 3), dim=1)


@pytest.mark.parametrize(
    ("p", "q", "error", "words"),
    [
        (0.5, torch.tensor(0.5), TypeError, "`p` must be a torch.Tensor"),
        (torch.tensor(0.5), torch.tensor(1), ValueError, "`q` must have the dtype of `p`"),
        (torch.tensor(1), torch.tensor(1), TypeError, "`p` must have a floating dtype"),
        (torch.tensor(1.1), torch.tensor(0.5), ValueError, "`p` must hold probabilities"),
        (torch.tensor(0.5), torch.tensor(NAN), ValueError, "`q` must hold probabilities"),
    ],
)
def test_coins_that_are_none(p, q, error, words):
    with pytest.raises(error, match=words):
        bernoulli_symmetric_kl(p, q)
