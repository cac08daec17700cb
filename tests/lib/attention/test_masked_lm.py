"""The masked language model: rotary positions, the network, its training and its evaluation."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lib.attention import masked_lm
from lib.attention.masked_lm import (
    MaskedLMConfig,
    MaskedLMModels,
    Reading,
    evaluate_masked_lm,
    masked_lm_queries_keys,
    rotate,
    train_masked_lm,
)
from lib.data.stdlib_text import Split

SYMBOLS = 11
TINY = MaskedLMConfig(
    length=12, width=16, heads=2, hidden_per_text=3, steps=80, batch=16, learning_rate=1e-2
)


@pytest.fixture(scope="module")
def corpus() -> Split:
    """A text that can be guessed: counting up, with a jump now and then."""
    rng = np.random.default_rng(0)
    steps = np.where(rng.random(6000) < 0.1, rng.integers(0, SYMBOLS, 6000), 1)
    text = np.cumsum(steps) % SYMBOLS
    return Split(text[:4000], text[4000:], tuple("abcdefghijk"))


@pytest.fixture(scope="module")
def models(corpus) -> MaskedLMModels:
    return train_masked_lm(corpus, TINY, seeds=(100, 101))


def drawn(corpus: Split, length: int, count: int = 2, seeds: int = 2):
    """Masked texts, positions of the hidden characters, and what stood there."""
    generators = [np.random.default_rng(s) for s in range(seeds)]
    texts, hidden = masked_lm._draw_texts(corpus.test, TINY, length, count, generators)
    return masked_lm._mask(texts, hidden, SYMBOLS)


# --- rotary positions -----------------------------------------------------------------------------


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_rotation_turns_each_pair_of_coordinates_by_its_own_angle():
    x, base = normal(6), 100.0
    turned = rotate(x[None], torch.tensor([5]), base)[0]
    for t in range(3):
        angle = 5 * base ** (-2 * t / 6)
        c, s = math.cos(angle), math.sin(angle)
        expected = torch.tensor([[c, -s], [s, c]], dtype=torch.float64) @ x[2 * t : 2 * t + 2]
        torch.testing.assert_close(turned[2 * t : 2 * t + 2], expected)


def test_rotated_products_depend_on_the_offset_alone():
    q, k = normal(1, 8, seed=1), normal(1, 8, seed=2)

    def product(i, j):
        return (rotate(q, torch.tensor([i]), 1e4) * rotate(k, torch.tensor([j]), 1e4)).sum()

    torch.testing.assert_close(product(3, 17), product(103, 117))
    assert abs(product(3, 17) - product(3, 18)) > 1e-3


def test_rotation_keeps_norms_and_leaves_position_0_alone():
    x = normal(4, 8)
    torch.testing.assert_close(rotate(x, torch.arange(4), 1e4).norm(dim=-1), x.norm(dim=-1))
    torch.testing.assert_close(rotate(x, torch.zeros(4), 1e4), x)


def scores(positions: str, reach: int, n: int = 10) -> torch.Tensor:
    q, k = normal(1, 1, 1, n, 8, seed=1), normal(1, 1, 1, n, 8, seed=2)
    rows = torch.arange(n).expand(1, 1, n)
    return masked_lm._scores(q, k, rows, 1e4, Reading(1.0, positions, reach))[0, 0, 0]


def test_clipped_positions_see_every_key_at_an_offset_within_reach():
    q, k = normal(1, 1, 1, 10, 8, seed=1)[0, 0, 0], normal(1, 1, 1, 10, 8, seed=2)[0, 0, 0]
    for i in range(10):
        for j in range(10):
            offset = torch.tensor([max(-3, min(3, j - i))])
            expected = q[i] @ rotate(k[j : j + 1], offset, 1e4)[0]
            torch.testing.assert_close(scores("clipped", 3)[i, j], expected)


def test_a_window_hides_the_keys_beyond_its_reach_and_nothing_else():
    offset = (torch.arange(10) - torch.arange(10)[:, None]).abs()
    window, rope = scores("window", 3), scores("rope", 0)
    assert torch.isneginf(window[offset > 3]).all()
    assert torch.equal(window[offset <= 3], rope[offset <= 3])


@pytest.mark.parametrize("positions", ["clipped", "window"])
def test_a_reach_beyond_the_text_changes_nothing(positions):
    assert torch.equal(scores(positions, 9), scores("rope", 0))


# --- the network ----------------------------------------------------------------------------------


def plain_encoder(parameters, s: int, config: MaskedLMConfig, ids, factor: float):
    """Seed s alone, every position in every layer, torch's own attention: logits (B, n, V)."""
    p = {name: value[s] for name, value in parameters.items()}
    x, (batch, n) = p["embedding"][ids], ids.shape
    for layer in range(config.layers):
        z = F.layer_norm(x, x.shape[-1:])
        packed = torch.cat([z @ p[f"query{layer}"], z @ p[f"key_value{layer}"]], -1)
        packed = packed.view(batch, n, 3, config.heads, config.head_width)
        q, k, v = packed.permute(2, 0, 3, 1, 4)
        if config.qk_norm:
            q, k = F.layer_norm(q, q.shape[-1:]), F.layer_norm(k, k.shape[-1:])
        q, k = (rotate(t, torch.arange(n), config.rope_base) for t in (q, k))
        o = F.scaled_dot_product_attention(q, k, v, scale=factor / math.sqrt(config.head_width))
        x = x + o.transpose(1, 2).reshape(batch, n, -1) @ p[f"out{layer}"]
        up = F.gelu(F.layer_norm(x, x.shape[-1:]) @ p[f"up{layer}"] + p[f"up_bias{layer}"])
        x = x + up @ p[f"down{layer}"]
    return F.layer_norm(x, x.shape[-1:]) @ p["readout"]


@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("layers", [1, 3])
def test_the_network_equals_a_plain_encoder_read_at_the_hidden_characters(corpus, qk_norm, layers):
    config = replace(TINY, qk_norm=qk_norm, layers=layers)
    parameters = masked_lm.draw_parameters(lambda g: masked_lm._initial(g, SYMBOLS, config), (0, 1))
    masked, hidden, _ = drawn(corpus, 24)
    logits, _ = masked_lm._forward(parameters, config, masked, hidden, Reading(1.3))
    for s in range(2):
        full = plain_encoder(parameters, s, config, masked[s], 1.3)
        expected = full.gather(1, hidden[s, ..., None].expand(-1, -1, SYMBOLS))
        torch.testing.assert_close(logits[s], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("positions", ["rope", "clipped", "window"])
def test_chunks_of_queries_change_nothing(models, corpus, monkeypatch, positions):
    lengths = [12, 36]
    whole = evaluate_masked_lm(models, corpus, lengths, positions=positions, texts=2)
    monkeypatch.setattr(masked_lm, "CHUNK", 7)
    parts = evaluate_masked_lm(models, corpus, lengths, positions=positions, texts=2)
    assert np.array_equal(whole.accuracy, parts.accuracy)
    np.testing.assert_allclose(whole.entropy, parts.entropy, rtol=1e-5)


def test_as_many_characters_are_hidden_in_each_piece_and_none_twice(corpus):
    masked, hidden, wanted = drawn(corpus, 36, count=5)
    assert hidden.shape == wanted.shape == (2, 5, 9)
    assert (hidden.diff() > 0).all()
    assert torch.equal((masked == SYMBOLS).view(2, 5, 3, 12).sum(-1), torch.full((2, 5, 3), 3))
    assert (masked.gather(-1, hidden) == SYMBOLS).all()
    assert (wanted < SYMBOLS).all()


def test_each_part_of_the_corpus_gives_one_text():
    counting = np.arange(1000)
    texts, _ = masked_lm._draw_texts(counting, TINY, 12, 4, [np.random.default_rng(0)])
    part = (1000 - 12 + 1) / 4
    assert (texts[0, :, 0] // part).tolist() == [0, 1, 2, 3]
    assert torch.equal(texts.diff(), torch.ones(1, 4, 11, dtype=torch.int64))


def test_a_corpus_of_one_text_gives_that_text():
    texts, _ = masked_lm._draw_texts(np.arange(12), TINY, 12, 3, [np.random.default_rng(0)])
    assert torch.equal(texts[0], torch.arange(12).expand(3, 12))


def test_cutting_a_text_keeps_its_hidden_characters(corpus):
    masked, hidden, _ = drawn(corpus, 36)
    pieces, inside = masked_lm._cut(masked[:, 0], hidden[:, 0], 12)
    assert pieces.shape == (2, 3, 12)
    assert inside.shape == (2, 3, 3)
    assert torch.equal(pieces.flatten(1), masked[:, 0])
    assert (pieces.gather(-1, inside) == SYMBOLS).all()


# --- training -------------------------------------------------------------------------------------


def test_training_lowers_the_loss_of_every_seed(models):
    assert models.losses.shape == (2, 80)
    assert (models.losses[:, -10:].mean(1) < 0.75 * models.losses[:, :5].mean(1)).all()


def test_the_same_seed_gives_the_same_model_and_another_seed_another(models, corpus):
    again = train_masked_lm(corpus, replace(TINY, steps=80), seeds=(100, 101))
    np.testing.assert_allclose(again.losses, models.losses, rtol=1e-6)
    assert not np.allclose(models.losses[0], models.losses[1])


def test_a_seed_trained_alone_equals_the_same_seed_in_company(corpus):
    short = replace(TINY, steps=10)
    alone = train_masked_lm(corpus, short, seeds=(101,))
    company = train_masked_lm(corpus, short, seeds=(100, 101))
    np.testing.assert_allclose(alone.losses[0], company.losses[1], rtol=1e-3)


def test_training_leaves_the_global_random_state_alone(corpus):
    before = torch.get_rng_state()
    train_masked_lm(corpus, replace(TINY, steps=1), seeds=(0,))
    assert torch.equal(torch.get_rng_state(), before)


# --- evaluation -----------------------------------------------------------------------------------


def test_a_trained_model_guesses_a_text_that_can_be_guessed(models, corpus):
    table = evaluate_masked_lm(models, corpus, [12], ["constant"], texts=40)
    assert table.accuracy.shape == (2, 1, 1)
    assert (table.accuracy > 3 / SYMBOLS).all()
    assert table.questions == 120


def test_every_factor_is_the_constant_one_at_the_training_length(models, corpus):
    table = evaluate_masked_lm(models, corpus, [12, 48], texts=2)
    for values in (table.accuracy[:, :, 0], table.entropy[:, :, 0]):
        assert np.array_equal(values, np.repeat(values[:, :1], 4, axis=1))
    assert not np.array_equal(table.entropy[:, 0, 1], table.entropy[:, 2, 1])


def test_a_function_that_returns_1_is_the_constant_factor(models, corpus):
    named = evaluate_masked_lm(models, corpus, [12, 48], ["constant"], texts=2)
    one = evaluate_masked_lm(models, corpus, [12, 48], {"one": lambda n, n0: 1.0}, texts=2)
    assert np.array_equal(named.accuracy, one.accuracy)
    assert np.array_equal(named.entropy, one.entropy)


def test_entropy_falls_as_the_factor_rises_and_stays_below_log_n(models, corpus):
    rules = {"half": lambda n, n0: 0.5, "one": lambda n, n0: 1.0, "two": lambda n, n0: 2.0}
    table = evaluate_masked_lm(models, corpus, [12, 48], rules, texts=4)
    assert (np.diff(table.entropy, axis=1) < 0).all()
    assert (table.entropy < np.log(table.lengths)).all()


def test_a_vanishing_factor_gives_uniform_weights(models, corpus):
    rules = {"flat": lambda n, n0: 1e-9}
    table = evaluate_masked_lm(models, corpus, [12, 48], rules, texts=2)
    np.testing.assert_allclose(table.entropy[:, 0], np.log([[12, 48]] * 2), rtol=1e-5)


def test_entropy_in_a_window_stays_below_the_logarithm_of_what_is_visible(models, corpus):
    rules = {"flat": lambda n, n0: 1e-9}
    table = evaluate_masked_lm(models, corpus, [48], rules, positions="window", reach=3, texts=2)
    assert (table.entropy < math.log(7) + 1e-5).all()
    assert (table.entropy > math.log(6)).all()


def test_lengths_share_the_questions_whatever_stands_between_them(models, corpus):
    few = evaluate_masked_lm(models, corpus, [12, 48], ["constant"], texts=2)
    more = evaluate_masked_lm(models, corpus, [12, 24, 48], ["constant"], texts=2)
    assert np.array_equal(few.accuracy[..., [0, 1]], more.accuracy[..., [0, 2]])


def test_positions_are_asked_the_same_questions(models, corpus):
    """Within reach of everything the three treatments agree, so their questions do."""
    tables = [
        evaluate_masked_lm(models, corpus, [12, 48], positions=positions, reach=48, texts=2)
        for positions in ("rope", "clipped", "window")
    ]
    for table in tables[1:]:
        assert np.array_equal(table.accuracy, tables[0].accuracy)


def test_questions_of_a_seed_do_not_depend_on_its_company(models, corpus):
    second = {name: p[1:] for name, p in models.parameters.items()}
    one = MaskedLMModels(models.config, (101,), second, models.losses[1:])
    both = evaluate_masked_lm(models, corpus, [12, 48], texts=2)
    alone = evaluate_masked_lm(one, corpus, [12, 48], texts=2)
    np.testing.assert_allclose(alone.entropy[0], both.entropy[1], rtol=1e-5)


# --- queries and keys -----------------------------------------------------------------------------


@pytest.mark.parametrize(("layer", "rows"), [(0, 24), (1, 6)])
def test_queries_and_keys_give_the_entropy_of_the_network(models, corpus, layer, rows):
    q, k = masked_lm_queries_keys(models, corpus, 24, layer=layer, texts=2)
    assert q.shape == (2, 2, 2, rows, 8)
    assert k.shape == (2, 2, 2, 24, 8)
    if layer == 1:
        p = (torch.from_numpy(q) @ torch.from_numpy(k).mT / math.sqrt(8)).softmax(-1)
        entropy = torch.special.entr(p).sum(-1).mean((1, 2, 3))
        table = evaluate_masked_lm(models, corpus, [24], ["constant"], texts=2)
        np.testing.assert_allclose(entropy.numpy(), table.entropy[:, 0, 0], rtol=1e-4)


def test_normalised_queries_and_keys_have_norm_sqrt_d(corpus):
    config = replace(TINY, qk_norm=True, steps=2)
    q, k = masked_lm_queries_keys(train_masked_lm(corpus, config, (0,)), corpus, 12)
    np.testing.assert_allclose(np.linalg.norm(q, axis=-1), math.sqrt(8), rtol=1e-2)
    np.testing.assert_allclose(np.linalg.norm(k, axis=-1), math.sqrt(8), rtol=1e-2)


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"length": 1}, ValueError, "`length` must be at least 2, got 1"),
        ({"heads": 0}, ValueError, "`heads` must be at least 1, got 0"),
        ({"width": 66, "heads": 4}, ValueError, r"`width` must be a multiple of 2 \* heads = 8"),
        ({"hidden_per_text": 65}, ValueError, "`hidden_per_text` must be at most `length` = 64"),
        ({"layers": 1.0}, TypeError, "`layers` must be a whole number, got 1.0"),
        ({"rope_base": -1.0}, ValueError, "`rope_base` must be positive, got -1.0"),
        ({"learning_rate": math.inf}, ValueError, "`learning_rate` must be finite, got inf"),
    ],
)
def test_a_senseless_setting_is_an_error_that_names_it(change, error, message):
    with pytest.raises(error, match=message):
        MaskedLMConfig(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lengths": [18]}, "`lengths` must be multiples of the training length 12"),
        ({"lengths": [24, 36]}, "divisors of the longest"),
        ({"lengths": [6, 12]}, "`lengths` must be at least 12, got 6"),
        ({"lengths": [2400]}, "`corpus` must hold at least 2400 characters, got 2000"),
        ({"positions": "alibi"}, "`positions` must be one of .* got 'alibi'"),
        ({"reach": 0}, "`reach` must be at least 1, got 0"),
        ({"texts": 0}, "`texts` must be at least 1, got 0"),
        ({"factors": ["ln"]}, "`factors` must be names among"),
    ],
)
def test_a_senseless_evaluation_is_an_error_that_names_the_argument(
    models, corpus, change, message
):
    with pytest.raises(ValueError, match=message):
        evaluate_masked_lm(models, corpus, **({"lengths": [12]} | change))


def test_a_corpus_with_other_symbols_is_an_error(models, corpus):
    other = replace(corpus, symbols=corpus.symbols[:-1])
    for use in (evaluate_masked_lm, masked_lm_queries_keys):
        with pytest.raises(ValueError, match="must have the 11 symbols of training, got 10"):
            use(models, other, 12 if use is masked_lm_queries_keys else [12])


@pytest.mark.parametrize(("length", "layer"), [(18, 0), (12, 2), (6, 0)])
def test_queries_of_a_layer_or_length_that_is_not_there_are_an_error(models, corpus, length, layer):
    with pytest.raises(ValueError, match=r"`(length|layer)` must be"):
        masked_lm_queries_keys(models, corpus, length, layer=layer)
