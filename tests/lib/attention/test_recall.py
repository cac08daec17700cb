"""Associative recall: haystacks, the head, its training and its evaluation."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lib.attention import recall
from lib.attention.recall import (
    Haystacks,
    RecallConfig,
    RecallModels,
    draw_haystacks,
    evaluate_recall,
    recall_queries_keys,
    recall_scores,
    train_recall,
)
from lib.data.stdlib_text import Split

VOCABULARY = 64
TINY = RecallConfig(length=8, width=8, steps=60, batch=32, learning_rate=2e-2)


@pytest.fixture(scope="module")
def corpus() -> Split:
    """Random tokens, rare and frequent ones as in real text."""
    share = 1.0 / np.arange(1, VOCABULARY + 1)
    drawn = np.random.default_rng(0).choice(VOCABULARY, 6000, p=share / share.sum())
    return Split(drawn[:4000], drawn[4000:], tuple(map(str, range(VOCABULARY))))


@pytest.fixture(scope="module")
def models(corpus) -> RecallModels:
    return train_recall(corpus, TINY, seeds=(100, 101))


def one_hot_head(gain: float, seeds: int = 2) -> RecallModels:
    """A head made by hand: tokens are one-hot, so it scores `gain` for the needle, else 0."""
    eye = torch.eye(VOCABULARY).expand(seeds, -1, -1).clone()
    parameters = {
        "embedding": eye,
        "query": gain * math.sqrt(VOCABULARY) * eye,
        "key": eye,
        "value": eye,
        "bias": torch.zeros(seeds, 1, VOCABULARY),
    }
    config = RecallConfig(length=8, width=VOCABULARY, qk_norm=False)
    return RecallModels(config, tuple(range(seeds)), parameters, np.zeros((seeds, 1)))


# --- haystacks ------------------------------------------------------------------------------------


def test_a_haystack_is_consecutive_pairs_and_asks_for_a_token_that_occurs_once(corpus):
    hay = draw_haystacks(corpus.train, 16, 50, np.random.default_rng(1))
    assert hay.keys.shape == hay.values.shape == (50, 16)
    assert np.array_equal(hay.keys[:, 1:], hay.values[:, :-1])
    assert ((hay.keys == hay.asked[:, None]).sum(1) == 1).all()
    text = " ".join(map(str, corpus.train))
    assert " ".join(map(str, [*hay.keys[0], hay.values[0, -1]])) in text


def test_needles_stand_everywhere_in_the_haystack(corpus):
    hay = draw_haystacks(corpus.train, 4, 400, np.random.default_rng(1))
    assert (np.bincount(hay.place, minlength=4) > 50).all()


@pytest.mark.parametrize("n", [1, 5, 16, 64])
def test_a_shortened_haystack_asks_the_same_question(corpus, n):
    long = draw_haystacks(corpus.test, 64, 80, np.random.default_rng(2))
    short = long.shortened(n)
    assert short.keys.shape == (80, n)
    assert np.array_equal(short.asked, long.asked)
    assert np.array_equal(short.answer, long.answer)
    assert ((short.place >= 0) & (short.place < n)).all()


def test_a_shortened_haystack_is_a_part_of_the_long_one():
    long = Haystacks(np.arange(10)[None], np.arange(1, 11)[None], np.array([9]))
    assert long.shortened(5).keys.tolist() == [[5, 6, 7, 8, 9]]
    assert replace(long, place=np.array([0])).shortened(5).keys.tolist() == [[0, 1, 2, 3, 4]]


@pytest.mark.parametrize("n", [0, 65])
def test_a_haystack_cannot_be_shortened_to_nothing_or_lengthened(corpus, n):
    long = draw_haystacks(corpus.test, 64, 2, np.random.default_rng(2))
    with pytest.raises(ValueError, match="`n` must lie between 1 and 64"):
        long.shortened(n)


def test_a_text_shorter_than_a_haystack_is_an_error():
    with pytest.raises(ValueError, match="`tokens` must hold at least 17 tokens, got 16"):
        draw_haystacks(np.arange(16), 16, 4, np.random.default_rng(0))


def test_a_text_of_one_repeated_token_is_an_error_not_an_endless_search():
    with pytest.raises(ValueError, match="hardly any 16 in a row hold a token that occurs once"):
        draw_haystacks(np.zeros(100, dtype=np.int64), 16, 4, np.random.default_rng(0))


# --- the head -------------------------------------------------------------------------------------


@pytest.mark.parametrize("qk_norm", [True, False])
def test_the_head_is_softmax_attention_over_the_pairs(corpus, qk_norm):
    """Against torch's own attention on the gathered vectors, seed by seed."""
    config = replace(TINY, qk_norm=qk_norm)
    parameters = recall.draw_parameters(lambda g: recall._initial(g, VOCABULARY, 8), (0, 1))
    drawn = [draw_haystacks(corpus.test, 20, 5, np.random.default_rng(s)) for s in (0, 1)]
    keys, values, asked, _ = recall._stacked(drawn)
    logits, p = recall._read(parameters, recall._scores(parameters, config, asked, keys), values)
    for s in range(2):
        embedding = parameters["embedding"][s]
        q, k = embedding[asked[s]] @ parameters["query"][s], embedding[keys[s]]
        k = k @ parameters["key"][s]
        if qk_norm:
            q, k = (math.sqrt(8) * F.normalize(t, dim=-1) for t in (q, k))
        v = embedding[values[s]] @ parameters["value"][s]
        o = F.scaled_dot_product_attention(q[:, None], k, v)[:, 0]
        torch.testing.assert_close(logits[s], o @ embedding.T + parameters["bias"][s, 0])
    torch.testing.assert_close(p.sum(-1), torch.ones(2, 5))


def test_normalised_queries_and_keys_have_norm_sqrt_d(models, corpus):
    q, k = recall_queries_keys(models, corpus, 32, questions=5)
    assert q.shape == (2, 5, 8)
    assert k.shape == (2, 5, 32, 8)
    np.testing.assert_allclose(np.linalg.norm(q, axis=-1), math.sqrt(8), rtol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(k, axis=-1), math.sqrt(8), rtol=1e-4)


def test_scores_are_the_dot_products_of_queries_and_keys(models, corpus):
    q, k = recall_queries_keys(models, corpus, 32, questions=5)
    scores = recall_scores(models, corpus, 32, questions=5)
    np.testing.assert_allclose(scores, np.einsum("sbd,sbnd->sbn", q, k), rtol=1e-4, atol=1e-4)


def test_the_needle_is_the_first_key(corpus):
    scores = recall_scores(one_hot_head(2.0), corpus, 32, questions=20)
    assert (scores[..., 0] > 0).all()
    assert (scores[..., 1:] == 0).all()


# --- training -------------------------------------------------------------------------------------


def test_training_lowers_the_loss_of_every_seed(models):
    assert models.losses.shape == (2, 60)
    assert (models.losses[:, -10:].mean(1) < 0.7 * models.losses[:, :5].mean(1)).all()


def test_the_same_seed_gives_the_same_head(models, corpus):
    again = train_recall(corpus, TINY, seeds=(100, 101))
    np.testing.assert_allclose(again.losses, models.losses, rtol=1e-6)


def test_different_seeds_give_different_heads(models):
    assert not np.allclose(models.losses[0], models.losses[1])


def test_a_seed_trained_alone_equals_the_same_seed_in_company(models, corpus):
    alone = train_recall(corpus, replace(TINY, steps=20), seeds=(101,))
    company = train_recall(corpus, replace(TINY, steps=20), seeds=(100, 101))
    np.testing.assert_allclose(alone.losses[0], company.losses[1], rtol=1e-3)


def test_training_leaves_the_global_random_state_alone(corpus):
    before = torch.get_rng_state()
    train_recall(corpus, replace(TINY, steps=1), seeds=(0,))
    assert torch.equal(torch.get_rng_state(), before)


# --- evaluation -----------------------------------------------------------------------------------


def test_a_head_made_by_hand_has_the_entropy_of_a_needle_in_hay(corpus):
    """One score Δ among n - 1 zeros: p = 1 / (1 + (n - 1) exp(-Δ))."""
    table = evaluate_recall(one_hot_head(3.0), corpus, [8, 32], ["constant"], questions=40)
    for j, n in enumerate(table.lengths):
        p = 1.0 / (1.0 + (n - 1) * math.exp(-3.0))
        rest = (1.0 - p) / (n - 1)
        entropy = -p * math.log(p) - (n - 1) * rest * math.log(rest)
        np.testing.assert_allclose(table.needle[:, 0, j], p, rtol=1e-5)
        np.testing.assert_allclose(table.entropy[:, 0, j], entropy, rtol=1e-5)


def test_a_head_with_a_wide_margin_answers_everything_and_a_blind_one_next_to_nothing(corpus):
    assert evaluate_recall(one_hot_head(20.0), corpus, [8, 128], questions=40).accuracy.min() == 1
    blind = evaluate_recall(one_hot_head(0.0), corpus, [128], ["constant"], questions=40)
    assert blind.accuracy.max() < 0.4
    np.testing.assert_allclose(blind.entropy, math.log(128), rtol=1e-5)


def test_every_factor_is_the_constant_one_at_the_training_length(models, corpus):
    table = evaluate_recall(models, corpus, [8, 64], questions=40)
    for name in ("accuracy", "entropy", "needle"):
        values = getattr(table, name)[:, :, 0]
        assert np.array_equal(values, np.repeat(values[:, :1], 4, axis=1))


def test_a_function_that_returns_1_is_the_constant_factor(models, corpus):
    named = evaluate_recall(models, corpus, [8, 64], ["constant"], questions=40)
    given = evaluate_recall(models, corpus, [8, 64], {"one": lambda n, n0: 1.0}, questions=40)
    assert given.factors == ("one",)
    assert np.array_equal(named.accuracy, given.accuracy)
    assert np.array_equal(named.entropy, given.entropy)


def test_entropy_grows_with_the_haystack_and_falls_with_the_factor(models, corpus):
    table = evaluate_recall(models, corpus, [8, 32, 128], ["constant", "sqrt_log_n", "log_n"])
    assert (np.diff(table.entropy[:, 0], axis=-1) > 0).all()
    assert (np.diff(table.entropy[:, :, -1], axis=-1) < 0).all()


def test_questions_of_a_seed_do_not_depend_on_its_company_or_on_the_factors(models, corpus):
    both = evaluate_recall(models, corpus, [8, 64], questions=40)
    second = {name: p[1:] for name, p in models.parameters.items()}
    one = RecallModels(models.config, (101,), second, models.losses[1:])
    alone = evaluate_recall(one, corpus, [8, 64], ["log_n"], questions=40)
    np.testing.assert_allclose(alone.entropy[0, 0], both.entropy[1, 2], rtol=1e-5)


def test_the_longest_length_decides_the_questions_and_shorter_ones_share_them(models, corpus):
    few = evaluate_recall(models, corpus, [8, 64], ["constant"], questions=40)
    more = evaluate_recall(models, corpus, [8, 16, 32, 64], ["constant"], questions=40)
    np.testing.assert_allclose(few.entropy[..., 0], more.entropy[..., 0], rtol=1e-6)


def test_evaluating_changes_nothing(models, corpus):
    before = {name: p.clone() for name, p in models.parameters.items()}
    first = evaluate_recall(models, corpus, [8, 64], questions=20)
    second = evaluate_recall(models, corpus, [8, 64], questions=20)
    assert np.array_equal(first.accuracy, second.accuracy)
    assert all(torch.equal(before[name], p) for name, p in models.parameters.items())


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"length": 1}, ValueError, "`length` must be at least 2, got 1"),
        ({"width": 0}, ValueError, "`width` must be at least 2, got 0"),
        ({"steps": 0}, ValueError, "`steps` must be at least 1, got 0"),
        ({"batch": 2.5}, TypeError, "`batch` must be a whole number, got 2.5"),
        ({"learning_rate": 0.0}, ValueError, "`learning_rate` must be positive, got 0.0"),
        ({"learning_rate": math.nan}, ValueError, "`learning_rate` must be finite, got nan"),
    ],
)
def test_a_senseless_setting_is_an_error_that_names_it(change, error, message):
    with pytest.raises(error, match=message):
        RecallConfig(**change)


def test_a_corpus_with_other_symbols_is_an_error(models, corpus):
    other = replace(corpus, symbols=corpus.symbols[:-1])
    with pytest.raises(ValueError, match="`corpus` must have the 64 symbols of training, got 63"):
        evaluate_recall(models, other, [8])
    with pytest.raises(ValueError, match="`corpus` must have the 64 symbols of training, got 63"):
        recall_scores(models, other, 8)


def test_a_test_half_shorter_than_the_longest_haystack_is_an_error(models, corpus):
    with pytest.raises(ValueError, match="`tokens` must hold at least 4001 tokens, got 2000"):
        evaluate_recall(models, corpus, [8, 4000])


def test_no_questions_is_an_error(models, corpus):
    with pytest.raises(ValueError, match="`questions` must be at least 1, got 0"):
        evaluate_recall(models, corpus, [8], questions=0)
