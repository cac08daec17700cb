"""Probes of position: equal tokens, and a number per token."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from lib.attention.encoder import Encoder, EncoderConfig
from lib.attention.probes import (
    PositionTable,
    mirror_deviation,
    position_deviation,
    probe_lengths,
    train_probe,
    train_tokens,
)

TINY = {"width": 16, "heads": 2, "layers": 1, "feed_forward": 32, "max_length": 16}
QUICK = {"length": 12, "steps": 100, "learning_rate": 2e-2}


def encoder(**settings) -> Encoder:
    return Encoder(EncoderConfig(**TINY | settings), torch.Generator().manual_seed(1)).double()


def line(tokens: torch.Tensor) -> torch.Tensor:
    """Position itself, with a channel that knows nothing."""
    n = tokens.shape[1]
    return torch.stack([torch.arange(n).double(), torch.ones(n).double()], -1)[None]


# --- without training -----------------------------------------------------------------------------


def test_deviations_of_a_line_are_its_rise():
    assert position_deviation(line, 9) == 8.0
    assert mirror_deviation(line, 9) == 8.0


def test_a_bow_deviates_from_its_start_but_not_from_its_mirror_image():
    def bow(tokens):
        return (torch.arange(tokens.shape[1]) - 4.0).square()[None]

    assert position_deviation(bow, 9) == 16.0
    assert mirror_deviation(bow, 9) == 0.0


def test_the_symbol_is_what_the_model_sees():
    seen = []
    position_deviation(lambda tokens: seen.append(tokens) or tokens.double(), 5, symbol=3)
    assert torch.equal(seen[0], torch.full((1, 5), 3))


@pytest.mark.parametrize(
    ("settings", "moves", "mirrored"),
    [
        ({"position": "rope"}, False, True),
        ({"position": "rope", "causal": True}, False, True),
        ({"position": "alibi", "normalisation": "l2"}, True, True),
        ({"position": "rope", "start": True}, True, False),
        ({"position": "sinusoidal"}, True, False),
    ],
)
def test_verdicts_on_encoders_are_those_of_the_theorem(settings, moves, mirrored):
    model = encoder(**settings)
    position, mirror = position_deviation(model, 16), mirror_deviation(model, 16)
    assert position > 1e-6 if moves else position < 1e-12
    assert mirror < 1e-12 if mirrored else mirror > 1e-6


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: position_deviation("model", 4), TypeError, "`model` must be callable, got str"),
        (lambda: position_deviation(line, 1), ValueError, "`n` must be at least 2, got 1"),
        (lambda: mirror_deviation(line, 4, -1), ValueError, "`symbol` must be at least 0, got -1"),
        (
            lambda: position_deviation(lambda t: t[0].double(), 4),
            ValueError,
            r"`model` must return a tensor of shape \(1, 4, …\), got \(4,\)",
        ),
        (
            lambda: position_deviation(lambda t: (line(t),), 4),
            ValueError,
            r"`model` must return a tensor of shape \(1, 4, …\), got tuple",
        ),
    ],
)
def test_bad_models_are_errors_that_name_them(call, error, message):
    with pytest.raises(error, match=message):
        call()


# --- places out of equal tokens -------------------------------------------------------------------


@pytest.fixture(scope="module")
def passing():
    return train_probe(EncoderConfig(position="rope", start=True, **TINY), **QUICK)


def test_a_table_counts_its_error_in_variances_and_its_hits_in_half_steps():
    right = np.arange(1.0, 9.0)
    table = PositionTable(8, np.stack([right, np.full(8, 4.5), right + 0.4, right[::-1]]))
    np.testing.assert_allclose(table.error, [0.0, 1.0, 0.16 / 5.25, 4.0])
    assert table.accuracy.tolist() == [1.0, 0.0, 1.0, 0.0]


@pytest.mark.parametrize(
    "settings",
    [
        {"position": "t5"},
        {"position": "bias"},
        {"position": "rope", "causal": True},
        {"start": True},
        {"position": "alibi", "normalisation": "l2"},  # its mirror image
    ],
)
def test_what_provably_fails_ends_at_the_variance(settings):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a chapter must not write to stderr
        result = train_probe(EncoderConfig(**TINY | settings), **QUICK)
    np.testing.assert_allclose(result.error, 1.0, atol=2e-3)
    assert (result.accuracy <= 1 / 6).all()


@pytest.mark.parametrize(
    "settings",
    [
        {"position": "sinusoidal"},
        {"position": "t5", "start": True},
        {"position": "rope", "toeplitz": True},
        {"position": "rope", "normalisation": "l2"},
        {"causal": True, "start": True},
    ],
)
def test_what_can_pass_passes(settings):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = train_probe(EncoderConfig(**TINY | {"layers": 2} | settings), **QUICK)
    assert (result.error < 0.2).all()


def test_a_result_holds_what_its_models_put_out(passing):
    assert passing.losses.shape == (3, 100)
    assert len(passing.models) == 3
    (table,) = probe_lengths(passing, (12,))
    assert np.array_equal(table.error, passing.error)
    assert np.array_equal(table.accuracy, passing.accuracy)
    for model, predicted in zip(passing.models, table.predicted, strict=True):
        y = model(torch.zeros(1, 12, dtype=torch.int64))[0, :, 0].numpy()
        np.testing.assert_allclose(predicted, 6.5 + y * np.arange(12).std(), rtol=1e-4)


def test_other_lengths_are_read_on_the_scale_of_training(passing):
    short, long = probe_lengths(passing, (6, 20))
    assert (short.length, long.length) == (6, 20)
    assert long.predicted.shape == (3, 20)
    causal = train_probe(EncoderConfig(causal=True, start=True, **TINY), **QUICK)
    (longer,) = probe_lengths(causal, (20,))  # what comes later changes nothing before it
    np.testing.assert_allclose(longer.predicted[:, :12], causal.table.predicted, rtol=1e-3)
    np.testing.assert_allclose(causal.table.predicted[:, :6].mean(0), range(1, 7), atol=1.0)


def test_a_seed_trained_alone_equals_the_same_seed_in_company():
    config = EncoderConfig(position="xl", start=True, **TINY)
    company = train_probe(config, length=12, seeds=(3, 8), steps=10)
    alone = train_probe(config, length=12, seeds=(8,), steps=10)
    np.testing.assert_allclose(alone.losses[0], company.losses[1], rtol=1e-3)
    assert not np.allclose(company.losses[0], company.losses[1])


def test_the_first_loss_is_that_of_the_encoder_of_the_seed():
    config = EncoderConfig(position="t5", start=True, **TINY)
    result = train_probe(config, length=12, seeds=(4,), steps=1)
    target = (np.arange(12) - 5.5) / np.arange(12).std()
    with torch.no_grad():
        y = Encoder(config, torch.Generator().manual_seed(4))(torch.zeros(1, 12, dtype=torch.int64))
    loss = np.square(y[0, :, 0].numpy() - target).mean()
    np.testing.assert_allclose(result.losses[0, 0], loss, rtol=1e-5)


def test_training_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    train_probe(EncoderConfig(**TINY), length=4, seeds=(0,), steps=1)
    assert torch.equal(torch.get_rng_state(), before)


# --- a number per token ---------------------------------------------------------------------------


def twice_the_token(rng: np.random.Generator, count: int):
    tokens = rng.integers(0, 4, (count, 6))
    return tokens, 2.0 * tokens


def column_of_a_run(rng: np.random.Generator, count: int):
    tokens = np.repeat(rng.integers(0, 4, (count, 1)), 6, axis=1)
    return tokens, np.tile(np.arange(6.0), (count, 1))


@pytest.fixture(scope="module")
def doubled():
    config = EncoderConfig(symbols=4, **TINY)
    return train_tokens(config, twice_the_token, seeds=(0, 1), steps=60, learning_rate=1e-2)


def test_a_number_that_the_token_decides_is_learned_without_positions(doubled):
    tokens, target = twice_the_token(np.random.default_rng(5), 300)
    score = doubled.score(tokens, target)
    assert score.tokens == 1800
    assert (score.error < 0.05).all()
    assert (score.accuracy > 0.95).all()
    np.testing.assert_allclose(doubled.predict(tokens), np.stack([target] * 2), atol=1.5)


def test_a_score_is_that_of_the_chosen_tokens(doubled):
    tokens, target = twice_the_token(np.random.default_rng(5), 50)
    where = tokens == 3
    score = doubled.score(tokens, target, where)
    miss = doubled.predict(tokens)[:, where] - 6.0
    assert score.tokens == where.sum()
    np.testing.assert_allclose(score.error, np.square(miss).mean(1) / doubled.scale**2)
    np.testing.assert_allclose(score.accuracy, (np.abs(miss) < 0.5).mean(1))


def test_columns_of_a_run_need_a_way_out_of_the_flaw():
    settings = TINY | {"symbols": 4, "position": "rope"}
    tokens, target = column_of_a_run(np.random.default_rng(5), 40)
    scores = [
        train_tokens(
            EncoderConfig(start=start, **settings), column_of_a_run, steps=80, learning_rate=2e-2
        ).score(tokens, target)
        for start in (False, True)
    ]
    np.testing.assert_allclose(scores[0].error, 1.0, atol=0.1)
    assert (scores[1].error < 0.6).all()


def test_configs_with_the_same_seed_see_the_same_sequences():
    seen: dict[str, list] = {"none": [], "rope": []}
    for position, drawn in seen.items():

        def draw(rng, count, drawn=drawn):
            tokens, target = twice_the_token(rng, count)
            drawn.append(tokens)
            return tokens, target

        config = EncoderConfig(symbols=4, position=position, **TINY)
        train_tokens(config, draw, seeds=(0, 7), steps=2, batch=3)
    for one, two in zip(*seen.values(), strict=True):
        assert np.array_equal(one, two)


def test_tokens_of_a_seed_trained_alone_give_the_same_encoder():
    config = EncoderConfig(symbols=4, position="rope", **TINY)
    company = train_tokens(config, twice_the_token, seeds=(0, 7), steps=8)
    alone = train_tokens(config, twice_the_token, seeds=(7,), steps=8)
    np.testing.assert_allclose(alone.losses[0], company.losses[1], rtol=1e-3)


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"length": 1}, "`length` must be at least 2, got 1"),
        ({"steps": 0}, "`steps` must be at least 1, got 0"),
        ({"seeds": ()}, "`seeds` must be one or more different numbers"),
        ({"learning_rate": 0.0}, "`learning_rate` must be positive, got 0"),
        ({"learning_rate": np.nan}, "`learning_rate` must be finite, got nan"),
    ],
)
def test_a_senseless_setting_is_an_error_that_names_it(change, message):
    with pytest.raises(ValueError, match=message):
        train_probe(EncoderConfig(**TINY), **change)


def test_a_config_that_is_none_or_has_other_outputs_is_an_error():
    with pytest.raises(TypeError, match="`config` must be an EncoderConfig, got str"):
        train_probe("rope")
    with pytest.raises(ValueError, match="`config` must have outputs=1, got 2"):
        train_tokens(EncoderConfig(outputs=2), twice_the_token)


def test_a_length_of_1_is_an_error(passing):
    with pytest.raises(ValueError, match="`lengths` must be at least 2, got 1"):
        probe_lengths(passing, (1,))


@pytest.mark.parametrize(
    ("drawn", "message"),
    [
        (lambda n: (np.zeros((n, 3), int), np.ones((n, 3))), "`draw` must give targets that"),
        (lambda n: (np.zeros((n, 3), int), np.ones((n, 2))), "`target` must have the shape of"),
        (lambda n: (np.zeros((n, 3)), np.ones((n, 3))), "`tokens` must be whole numbers of"),
        (lambda n: (np.zeros((n, 3), int), np.full((n, 3), np.nan)), "`target` must be finite"),
        (lambda n: np.zeros((n, 3), int), "`draw` must return tokens and targets"),
        (
            lambda n: (np.full((n, 3), 4), np.arange(3) + np.zeros((n, 1))),
            "`tokens` must lie in 0 … 3, got 4",
        ),
    ],
)
def test_a_draw_that_is_unfit_is_an_error_that_says_so(drawn, message):
    with pytest.raises(ValueError, match=message):
        train_tokens(EncoderConfig(symbols=4, **TINY), lambda rng, n: drawn(n), steps=1)


def test_a_choice_of_no_token_or_of_another_shape_is_an_error(doubled):
    tokens, target = twice_the_token(np.random.default_rng(5), 2)
    for where in (np.zeros((2, 6), bool), np.ones((2, 5), bool), np.ones((2, 6))):
        with pytest.raises(ValueError, match=r"`where` must be of bool and of shape \(2, 6\)"):
            doubled.score(tokens, target, where)
