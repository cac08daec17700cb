"""What all five trainings promise: learning, seeds, reports, shapes, and errors that name them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from lib.data.digits import digits
from lib.generative import (
    GAN,
    VAE,
    VQVAE,
    Flow,
    PixelModel,
    train_flow,
    train_gan,
    train_pixels,
    train_vae,
    train_vqvae,
)
from lib.generative._training import descend

IMAGES = digits().images
SMALL = {  # settings that make a training short
    train_vae: {"latent": 4, "width": 32, "batch": 32},
    train_gan: {"latent": 4, "width": 32, "batch": 32},
    train_flow: {"couplings": 2, "width": 32, "batch": 32},
    train_vqvae: {"positions": 4, "codes": 16, "code_size": 4, "width": 32, "batch": 32},
    train_pixels: {"width": 64, "batch": 32},
}
MODELS = {
    train_vae: VAE,
    train_gan: GAN,
    train_flow: Flow,
    train_vqvae: VQVAE,
    train_pixels: PixelModel,
}
every_training = pytest.mark.parametrize("train", SMALL, ids=lambda train: train.__name__)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def train_small(train, data=IMAGES, *, steps: int = 4, seed: int = 0, **more):
    return train(data, steps=steps, generator=seeded(seed), **SMALL[train] | more)


@every_training
def test_a_model_samples_data_of_the_shape_it_was_trained_on(train):
    for data in (IMAGES[:50], digits().flat[:50], digits().channels[:50]):
        model = train_small(train, data)
        assert isinstance(model, MODELS[train])
        x = model.sample(5, seeded())
        assert x.shape == (5, *data.shape[1:])
        assert x.dtype == torch.float32
        assert x.min() >= -1.0
        assert x.max() <= 1.0
        assert not x.requires_grad


@every_training
def test_the_same_generator_gives_the_same_model_and_samples(train):
    one, same, other = (train_small(train, seed=seed) for seed in (1, 1, 2))
    for p, q in zip(one.parameters(), same.parameters(), strict=True):
        assert torch.equal(p, q)
    assert torch.equal(one.sample(3, seeded()), same.sample(3, seeded()))
    assert not torch.equal(one.sample(3, seeded()), one.sample(3, seeded(1)))
    assert not torch.equal(next(one.parameters()), next(other.parameters()))


@every_training
def test_training_leaves_the_global_random_state_and_the_data_alone(train):
    data = torch.from_numpy(IMAGES[:40].copy())
    before, kept = torch.get_rng_state(), data.clone()
    train_small(train, data).sample(2, seeded())
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(data, kept)


@every_training
def test_arrays_and_tensors_of_any_dtype_train_alike(train):
    given = (IMAGES[:40], IMAGES[:40].astype(np.float64), torch.from_numpy(IMAGES[:40].copy()))
    first, *rest = (next(train_small(train, data).parameters()) for data in given)
    assert all(torch.equal(first, other) for other in rest)


@every_training
def test_losses_are_reported_once_a_step_and_the_model_is_finished(train):
    seen = []
    model = train_small(train, steps=5, on_step=lambda step, loss: seen.append((step, loss)))
    assert [step for step, _ in seen] == [0, 1, 2, 3, 4]
    assert all(isinstance(loss, float) and math.isfinite(loss) for _, loss in seen)
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("train", [train_vae, train_flow, train_pixels], ids=lambda t: t.__name__)
def test_a_short_training_lowers_the_loss(train):
    losses = []
    train_small(train, steps=150, on_step=lambda step, loss: losses.append(loss))
    assert np.mean(losses[-20:]) < np.mean(losses[:5]) - 0.1


def test_a_short_training_lowers_both_losses_of_the_vqvae():
    losses = []
    train_small(train_vqvae, steps=300, on_step=lambda step, loss: losses.append(loss))
    assert np.mean(losses[130:150]) < 0.6 * np.mean(losses[:5])
    assert losses[150] < 0.6 * math.log(16)  # the prior starts from the frequencies of codes
    assert np.mean(losses[-20:]) < losses[150] - 0.1


def test_a_short_training_brings_the_gans_samples_closer_to_the_mean_digit():
    def distance(steps: int) -> float:
        x = train_small(train_gan, steps=steps).sample(500, seeded()).numpy()
        return float(np.abs(x.mean(0) - IMAGES.mean(0)).mean())

    assert distance(300) < 0.25 * distance(1)


@every_training
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"data": np.zeros((0, 8, 8))}, ValueError, r"`data` must have shape .* not be empty"),
        ({"data": np.zeros(8)}, ValueError, r"`data` must have shape \(N, …\) .* got \(8,\)"),
        ({"data": np.full((4, 3), np.nan)}, ValueError, "`data` must be finite, got nan"),
        ({"data": np.full((4, 3), 1.5)}, ValueError, r"`data` must lie in \[-1, 1\], got 1\.5"),
        ({"data": np.full((4, 3), -2)}, ValueError, r"`data` must lie in \[-1, 1\], got -2"),
        ({"data": [["a", "b"]]}, TypeError, "`data` must hold real numbers"),
        ({"data": [[0.0, 1.0], [0.0]]}, ValueError, "`data` must be a rectangular array"),
        ({"generator": 0}, TypeError, r"`generator` must be a torch\.Generator .* got int"),
        ({"generator": None}, TypeError, r"`generator` must be a torch\.Generator"),
        ({"steps": 0}, ValueError, "`steps` must be at least [12], got 0"),
        ({"steps": 2.5}, TypeError, "`steps` must be a whole number, got 2.5"),
        ({"batch": 0}, ValueError, "`batch` must be at least 1, got 0"),
        ({"width": 0}, ValueError, "`width` must be at least 1, got 0"),
        ({"learning_rate": 0.0}, ValueError, "`learning_rate` must be positive, got 0"),
        ({"learning_rate": math.nan}, ValueError, "`learning_rate` must be finite, got nan"),
    ],
)
def test_bad_input_to_a_training_is_an_error_that_names_it(train, change, error, message):
    arguments = {"data": IMAGES[:20], "steps": 2, "generator": seeded()} | SMALL[train] | change
    with pytest.raises(error, match=message):
        train(arguments.pop("data"), **arguments)


@pytest.mark.parametrize(
    ("train", "change", "message"),
    [
        (train_vae, {"latent": 0}, "`latent` must be at least 1, got 0"),
        (train_vae, {"weight_decay": -1.0}, r"`weight_decay` must lie in \[0, inf\], got -1"),
        (train_gan, {"latent": 0}, "`latent` must be at least 1, got 0"),
        (train_gan, {"r1": -1.0}, r"`r1` must lie in \[0, inf\], got -1"),
        (train_gan, {"average": 1.0}, "`average` must be less than 1, got 1"),
        (train_flow, {"couplings": 0}, "`couplings` must be at least 1, got 0"),
        (train_flow, {"data": np.zeros((5, 1))}, "`shape` must have at least 2 numbers"),
        (train_vqvae, {"steps": 1}, "`steps` must be at least 2, got 1"),
        (train_vqvae, {"codes": 1}, "`codes` must be at least 2, got 1"),
        (train_vqvae, {"positions": 0}, "`positions` must be at least 1, got 0"),
        (train_vqvae, {"code_size": 0}, "`code_size` must be at least 1, got 0"),
        (train_vqvae, {"commitment": -0.1}, r"`commitment` must lie in \[0, inf\], got -0\.1"),
        (train_vqvae, {"dropout": 1.0}, "`dropout` must be less than 1, got 1"),
        (train_pixels, {"levels": 1}, "`levels` must be at least 2, got 1"),
        (train_pixels, {"blocks": 0}, "`blocks` must be at least 1, got 0"),
        (train_pixels, {"dropout": -0.1}, r"`dropout` must lie in \[0, 1\], got -0\.1"),
    ],
)
def test_settings_of_one_training_are_checked(train, change, message):
    arguments = {"data": IMAGES[:20], "steps": 2, "generator": seeded()} | SMALL[train] | change
    with pytest.raises(ValueError, match=message):
        train(arguments.pop("data"), **arguments)


@every_training
def test_bad_input_to_sampling_is_an_error_that_names_it(train):
    model = train_small(train)
    with pytest.raises(ValueError, match="`n` must be at least 1, got 0"):
        model.sample(0, seeded())
    with pytest.raises(TypeError, match=r"`n` must be a whole number, got 2\.0"):
        model.sample(2.0, seeded())
    with pytest.raises(TypeError, match=r"`generator` must be a torch\.Generator .* got int"):
        model.sample(2, 0)


def test_a_loss_that_is_not_finite_stops_the_descent():
    weight = nn.Parameter(torch.ones(1))
    with pytest.raises(FloatingPointError, match="loss is nan at step 0; `learning_rate`"):
        descend(
            [weight],
            lambda: (weight * torch.nan).sum(),
            steps=2,
            learning_rate=0.1,
            weight_decay=0.0,
        )


def test_descent_finds_a_minimum_and_leaves_the_averaged_weights():
    weight, path = nn.Parameter(torch.zeros(1)), []
    descend(
        [weight],
        lambda: (weight - 2.0).square().sum(),
        steps=100,
        learning_rate=0.1,
        weight_decay=0.0,
        average=0.95,
        on_step=lambda *_: path.append(weight.item()),
    )
    average = 0.0
    for k, value in enumerate(path):
        decay = min(0.95, (1 + k) / (10 + k))
        average = decay * average + (1 - decay) * value
    assert weight.item() == pytest.approx(average, rel=1e-5)
    assert weight.item() == pytest.approx(2.0, abs=0.1)
    assert abs(weight.item() - path[-1]) > 1e-4
