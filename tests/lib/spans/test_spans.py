"""Spans, their tables, decoding and the exact match."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.spans import Match, Span, decode, exact_match, labels_of, span_mask

N, K = 5, 3
INF, NAN = float("inf"), float("nan")


@st.composite
def sentences(draw, least: int = 1, most: int = 4):
    """Lengths and sets of spans of some sentences of at most N tokens."""
    lengths = draw(st.lists(st.integers(1, N), min_size=least, max_size=most))
    sets = []
    for length in lengths:
        cells = [Span(k, i, j) for k in range(K) for i in range(length) for j in range(i, length)]
        sets.append(draw(st.frozensets(st.sampled_from(cells), max_size=6)))
    return torch.tensor(lengths), sets


# --- tables ---------------------------------------------------------------------------------------


def test_the_mask_cell_by_cell():
    lengths = torch.tensor([1, 3, 5])
    mask = span_mask(lengths, N)
    assert mask.shape == (3, 1, N, N)
    assert mask.dtype == torch.bool
    for b, length in enumerate(lengths.tolist()):
        for i in range(N):
            for j in range(N):
                assert mask[b, 0, i, j] == (i <= j < length)
        assert mask[b].sum() == length * (length + 1) // 2


@settings(max_examples=60, deadline=None)
@given(sentences(), st.floats(-3, 3), st.randoms(use_true_random=False))
def test_labels_are_what_decoding_finds(case, threshold, random):
    lengths, sets = case
    labels = labels_of(sets, K, N, lengths=lengths)
    assert int(labels.sum()) == sum(map(len, sets))
    above = torch.full(labels.shape, threshold - 1.0)
    above[labels] = threshold + random.uniform(0.1, 2.0)
    assert decode(above, span_mask(lengths, N), threshold) == sets


def test_labels_take_plain_tuples_and_repeated_spans():
    one = labels_of([[(1, 0, 2), Span(1, 0, 2), tuple(np.array([1, 0, 2]))], ()], K, N)
    assert one.nonzero().tolist() == [[0, 1, 0, 2]]


def test_a_score_at_the_threshold_is_below():
    scores = torch.tensor([0.0, 1.0]).expand(1, 1, 2, 2)
    assert decode(scores, span_mask(torch.tensor([2]), 2)) == [{(0, 0, 1), (0, 1, 1)}]
    assert decode(scores, span_mask(torch.tensor([2]), 2), 1.0) == [set()]


@pytest.mark.parametrize("hidden", [NAN, INF, -INF, 1e30])
def test_hidden_scores_are_not_decoded(hidden):
    mask = span_mask(torch.tensor([2, 4]), 4)
    scores = torch.full((2, K, 4, 4), -1.0).masked_fill(~mask, hidden)
    assert decode(scores, mask) == [set(), set()]


def test_negative_thresholds_do_not_show_hidden_cells():
    mask = span_mask(torch.tensor([2]), 4)
    assert len(decode(torch.zeros(1, 1, 4, 4), mask, -1.0)[0]) == 3


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_scores_that_count_must_be_finite(bad):
    scores = torch.zeros(1, 1, 2, 2)
    scores[0, 0, 0, 1] = bad
    with pytest.raises(ValueError, match="`scores` must be finite where the mask is True"):
        decode(scores, span_mask(torch.tensor([2]), 2))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.zeros(2, 2, dtype=torch.bool), "must leave every sentence at least one span"),
        (torch.ones(2, 2, dtype=torch.bool), "False where a span would end before it starts"),
        (torch.ones(3, 3, dtype=torch.bool), "must broadcast to `scores`"),
        (torch.ones(2, 1, 1, 2, 2, dtype=torch.bool), "must broadcast to `scores`"),
    ],
)
def test_masks_that_do_not_fit(mask, message):
    with pytest.raises(ValueError, match=message):
        decode(torch.zeros(2, 1, 2, 2), mask)


def test_a_mask_that_leaves_one_of_two_sentences_nothing():
    mask = torch.stack([torch.ones(1, 2, 2).triu() > 0, torch.zeros(1, 2, 2) > 0])
    with pytest.raises(ValueError, match="every sentence"):
        decode(torch.zeros(2, 1, 2, 2), mask)


@pytest.mark.parametrize("mask", [None, torch.ones(2, 2), [[True, True], [False, True]]])
def test_masks_of_other_types(mask):
    with pytest.raises(TypeError, match="`mask` must be a tensor of bool"):
        decode(torch.zeros(1, 1, 2, 2), mask)


@pytest.mark.parametrize("shape", [(0, 1, 2, 2), (1, 0, 2, 2), (1, 1, 0, 0), (1, 1, 2, 3), (2, 2)])
def test_tables_of_other_shapes(shape):
    with pytest.raises(ValueError, match=r"`scores` must have shape \(B, K, n, n\)"):
        decode(torch.zeros(shape), torch.ones(2, 2).triu() > 0)


@pytest.mark.parametrize("scores", [None, torch.zeros(1, 1, 2, 2, dtype=torch.int64)])
def test_tables_of_other_types(scores):
    with pytest.raises(TypeError, match="`scores` must be a tensor of floating dtype"):
        decode(scores, torch.ones(2, 2).triu() > 0)


@pytest.mark.parametrize("threshold", [NAN, INF])
def test_thresholds_are_finite(threshold):
    with pytest.raises(ValueError, match="`threshold` must be finite"):
        decode(torch.zeros(1, 1, 2, 2), span_mask(torch.tensor([2]), 2), threshold)


@pytest.mark.parametrize("lengths", [[0], [3, -1], [N + 1], [1, 2**40]])
def test_lengths_out_of_range(lengths):
    with pytest.raises(ValueError, match=f"`lengths` must lie from 1 to n = {N}"):
        span_mask(torch.tensor(lengths), N)


@pytest.mark.parametrize(
    ("lengths", "error", "message"),
    [
        (torch.zeros(0, dtype=torch.int64), ValueError, "at least one sentence"),
        (torch.tensor(3), ValueError, r"shape \(B,\)"),
        (torch.tensor([[3]]), ValueError, r"shape \(B,\)"),
        (torch.tensor([3.0]), TypeError, "tensor of int64"),
        ([3], TypeError, "tensor of int64, got list"),
    ],
)
def test_lengths_of_other_kinds(lengths, error, message):
    with pytest.raises(error, match=message):
        span_mask(lengths, N)


@pytest.mark.parametrize("n", [0, -1])
def test_sentences_have_tokens(n):
    with pytest.raises(ValueError, match="`n` must be at least 1"):
        span_mask(torch.tensor([1]), n)


@pytest.mark.parametrize(
    ("span", "error", "message"),
    [
        ((0, 2, 1), ValueError, r"start <= end, got \(0, 2, 1\)"),
        ((0, 1, N), ValueError, f"inside their sentence of {N} tokens"),
        ((K, 0, 1), ValueError, f"kinds from 0 to {K - 1}, got {K}"),
        ((-1, 0, 1), ValueError, "`kind in spans` must be at least 0"),
        ((0, -1, 1), ValueError, "`start in spans` must be at least 0"),
        ((0, 0.0, 1), TypeError, "`start in spans` must be a whole number"),
        ((True, 0, 1), TypeError, "`kind in spans` must be a whole number"),
        ((0, 1), TypeError, r"spans \(kind, start, end\)"),
        ("abc", TypeError, r"spans \(kind, start, end\)"),
    ],
)
def test_what_is_no_span(span, error, message):
    with pytest.raises(error, match=message):
        labels_of([[span]], K, N)


def test_labels_in_the_padding():
    lengths = torch.tensor([3])
    assert labels_of([[Span(0, 1, 2)]], K, N, lengths=lengths).any()
    with pytest.raises(ValueError, match="inside their sentence of 3 tokens"):
        labels_of([[Span(0, 1, 3)]], K, N, lengths=lengths)
    with pytest.raises(ValueError, match="`lengths` must name 2 sentences, got 1"):
        labels_of([[], []], K, N, lengths=lengths)


@pytest.mark.parametrize("spans", [None, 3, {Span(0, 0, 1)}, "ab"])
def test_sets_come_in_a_sequence(spans):
    with pytest.raises(TypeError, match="`spans` must be a sequence"):
        labels_of(spans, K, N)


@pytest.mark.parametrize("spans", [[Span(0, 0, 1)], [3], [None]])
def test_every_sentence_has_a_set(spans):
    with pytest.raises(TypeError, match="`spans` must hold a set of spans for each sentence"):
        labels_of(spans, K, N)


def test_a_batch_of_nothing():
    for call in (lambda: labels_of([], K, N), lambda: exact_match([], [])):
        with pytest.raises(ValueError, match="at least one sentence"):
            call()


# --- the exact match ------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(sentences(2, 2), sentences(2, 2))
def test_the_match_counted_in_tables(gold, predicted):
    gold, predicted = gold[1], predicted[1]
    a, b = labels_of(gold, K, N), labels_of(predicted, K, N)
    match = exact_match(gold, predicted)
    both, either = int((a & b).sum()), int((a | b).sum())
    assert match[3:] == (both, int(b.sum()), int(a.sum()))
    # F1 as a function of Jaccard's index, another route
    jaccard = both / either if either else 1.0
    assert math.isclose(match.f1, 2 * jaccard / (1 + jaccard), abs_tol=1e-15)
    back = exact_match(predicted, gold)
    assert (match.precision, match.recall, match.f1) == (back.recall, back.precision, back.f1)
    if match.precision and match.recall:
        harmonic = 2 / (1 / match.precision + 1 / match.recall)
        assert math.isclose(match.f1, harmonic)


def test_spans_are_counted_over_all_sentences():
    gold = [{Span(0, 0, 0)}, {Span(0, 0, 0), Span(0, 1, 1), Span(1, 1, 1)}]
    found = [{Span(0, 0, 0)}, {Span(1, 0, 0)}]
    assert exact_match(gold, found) == Match(1 / 2, 1 / 4, 1 / 3, 1, 2, 4)


def test_a_span_belongs_to_its_sentence():
    assert exact_match([{Span(0, 0, 0)}, set()], [set(), {Span(0, 0, 0)}]).f1 == 0


@pytest.mark.parametrize(
    ("gold", "predicted", "expected"),
    [
        ([[]], [[]], (1, 1, 1)),
        ([[Span(0, 0, 0)]], [[]], (0, 0, 0)),
        ([[]], [[Span(0, 0, 0)]], (0, 0, 0)),
        ([[Span(0, 0, 0)]], [[(0, 0, 0), (0, 0, 0)]], (1, 1, 1)),
    ],
)
def test_conventions_for_empty_sets(gold, predicted, expected):
    assert exact_match(gold, predicted)[:3] == expected


def test_as_many_predictions_as_sentences():
    with pytest.raises(ValueError, match="a set for each of the 1 sentences of `gold`, got 2"):
        exact_match([[]], [[], []])


@pytest.mark.parametrize("bad", [(0, 3, 2), (-1, 0, 0)])
def test_what_can_not_be_matched(bad):
    with pytest.raises(ValueError, match="predicted"):
        exact_match([[]], [[bad]])
