"""The loss in two forms against its closed form, and what training promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lib.diffusion.mixture import GaussianMixture
from lib.diffusion.networks import NoiseMLP
from lib.diffusion.sampling import sample_ddim
from lib.diffusion.schedule import Schedule
from lib.diffusion.training import (
    ddpm_loss,
    ddpm_loss_four_variables,
    train,
    train_seeds,
)
from lib.neural import one_cycle

SCHEDULE = Schedule.article(50)
LOSSES = [ddpm_loss, ddpm_loss_four_variables]
SLOPE = 0.6  # of the linear predictor ε = SLOPE x
POWER = 1.7  # E x_0² of the data below


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear(x: Tensor, t: Tensor) -> Tensor:
    return SLOPE * x


def data(n: int, d: int = 1) -> Tensor:
    """±√POWER: its second moment is known without sampling error."""
    sign = 1.0 - 2.0 * (torch.arange(n * d, dtype=torch.float64) % 2)
    return POWER**0.5 * sign.reshape(n, d)


def extra(t: int) -> float:
    """(α_t β̄_{t-1}/β_t)²: what the second noise adds to the loss, by the dossier's algebra."""
    return float((SCHEDULE.alpha[t] * SCHEDULE.beta_bar[t - 1] / SCHEDULE.beta[t]) ** 2)


def exact(t: int) -> float:
    """E (ε - c x_t)² for x_t = ᾱ x_0 + β̄ ε."""
    signal, noise = SCHEDULE.alpha_bar[t], SCHEDULE.beta_bar[t]
    return float((1 - SLOPE * noise) ** 2 + SLOPE**2 * signal**2 * POWER)


def exact_gradient(t: int) -> float:
    """d/dc of it."""
    signal, noise = SCHEDULE.alpha_bar[t], SCHEDULE.beta_bar[t]
    return float(-2 * noise * (1 - SLOPE * noise) + 2 * SLOPE * signal**2 * POWER)


def agrees(values: Tensor, expected: float) -> bool:
    """Within 4.5 standard errors of their mean."""
    error = values.std().item() / len(values) ** 0.5
    return abs(values.mean().item() - expected) < 4.5 * error


def gradients(loss, t: int, n: int) -> Tensor:
    """dL/dc of each datum, for the predictor c x at c = SLOPE."""
    c = torch.full((n, 1), SLOPE, dtype=torch.float64, requires_grad=True)
    loss(lambda x, t: c * x, data(n), SCHEDULE, seeded(t), t=t, reduction="none").sum().backward()
    return c.grad[:, 0]


# --- the two losses -------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [1, 2, 10, 50])
def test_the_merged_loss_is_the_expected_squared_error(t):
    losses = ddpm_loss(linear, data(200_000), SCHEDULE, seeded(t), t=t, reduction="none")
    assert agrees(losses, exact(t))


@pytest.mark.parametrize("t", [1, 2, 10, 50])
def test_the_four_variable_loss_is_larger_by_a_constant_that_no_parameter_enters(t):
    losses = ddpm_loss_four_variables(
        linear, data(200_000), SCHEDULE, seeded(t), t=t, reduction="none"
    )
    assert agrees(losses, exact(t) + extra(t))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("t", [1, 2, 10, 50])
def test_both_losses_have_the_same_expected_gradient(loss, t):
    assert agrees(gradients(loss, t, 200_000), exact_gradient(t))


@pytest.mark.parametrize("t", [2, 10, 50])
def test_the_second_noise_adds_a_known_variance_to_the_gradient(t):
    """-2 (target - c x) x gains 4 (α_t β̄_{t-1}/β_t)² E x_t², for ω is independent of x_t."""
    merged, four = (gradients(loss, t, 200_000).var().item() for loss in LOSSES)
    power = SCHEDULE.alpha_bar[t] ** 2 * POWER + SCHEDULE.beta_bar[t] ** 2
    assert four - merged == pytest.approx(4 * extra(t) * power, rel=0.05)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_noisy_data_have_the_marginals_of_the_schedule(loss):
    seen = []
    loss(lambda x, t: seen.append(x) or x, data(200_000), SCHEDULE, seeded(), t=20)
    sign = data(200_000)
    assert agrees(seen[0] * sign.sign(), SCHEDULE.alpha_bar[20] * POWER**0.5)
    assert agrees(seen[0] ** 2, SCHEDULE.alpha_bar[20] ** 2 * POWER + SCHEDULE.beta_bar[20] ** 2)


@pytest.mark.parametrize("loss", LOSSES)
def test_random_times_are_uniform_from_1_to_T(loss):
    seen = []
    loss(lambda x, t: seen.append(t) or x, data(50_000), SCHEDULE, seeded())
    counts = torch.bincount(seen[0], minlength=51)
    assert seen[0].dtype == torch.int64
    assert counts[0] == 0
    assert counts.shape == (51,)
    assert ((counts[1:] - 1000).abs() < 5 * 1000**0.5).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_a_subsequence_tells_the_model_the_times_of_its_training(loss):
    thin = SCHEDULE.subsequence([10, 25, 50])
    seen = []

    def model(x: Tensor, t: Tensor) -> Tensor:
        seen.append((x, t))
        return x

    loss(model, torch.zeros(60_000, 1, dtype=torch.float64), thin, seeded())
    x, t = seen[0]
    assert sorted(set(t.tolist())) == [10, 25, 50]
    for time in (10, 25, 50):
        assert agrees(x[t == time] ** 2, SCHEDULE.beta_bar[time] ** 2)


@pytest.mark.parametrize("loss", LOSSES)
def test_predicting_nothing_costs_the_power_of_the_target_in_any_dimension(loss):
    for shape in ((4000, 3), (500, 2, 4, 4)):
        x0 = torch.zeros(*shape, dtype=torch.float64)
        values = loss(lambda x, t: 0.0 * x, x0, SCHEDULE, seeded(), t=50, reduction="none")
        assert values.shape == shape[:1]
        assert agrees(values, 1.0 + (extra(50) if loss is ddpm_loss_four_variables else 0.0))


@pytest.mark.parametrize("loss", LOSSES)
def test_one_number_is_the_mean_over_the_batch_and_times_may_differ_in_it(loss):
    t = torch.tensor([1, 20, 50, 50])
    one = loss(linear, data(4, 3), SCHEDULE, seeded(), t=t)
    each = loss(linear, data(4, 3), SCHEDULE, seeded(), t=t, reduction="none")
    torch.testing.assert_close(one, each.mean())
    seen = []
    loss(lambda x, t: seen.append(t) or x, data(4, 3), SCHEDULE, seeded(), t=t)
    assert torch.equal(seen[0], t)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x0": torch.zeros(0, 2)}, ValueError, r"`x0` must have shape \(batch, …\), got \(0, 2\)"),
        ({"x0": torch.full((3, 2), torch.nan)}, ValueError, "`x0` must be finite, got NaN"),
        ({"x0": torch.zeros(3, 2, dtype=torch.int64)}, TypeError, "`x0` must have a floating"),
        ({"x0": np.zeros((3, 2))}, TypeError, "`x0` must be a torch.Tensor, got ndarray"),
        ({"schedule": 50}, TypeError, "`schedule` must be a Schedule, got int"),
        ({"generator": 0}, TypeError, r"`generator` must be a torch\.Generator .* got int"),
        ({"t": 0}, ValueError, "`t` must be times of the schedule, 1 to 50, got 0"),
        ({"t": 51}, ValueError, "`t` must be times of the schedule, 1 to 50, got 51"),
        ({"t": 2.5}, ValueError, "`t` must be times of the schedule, 1 to 50, got 2.5"),
        ({"t": torch.tensor([1, 2])}, ValueError, r"`t` .* the batch's shape \(3,\), got \(2,\)"),
        ({"reduction": "sum"}, ValueError, '`reduction` must be one of "mean", "none", got'),
        (
            {"model": lambda x, t: x[:, :1]},
            ValueError,
            r"`model\(x, t\)` must have the shape of `x`, \(3, 2\), got \(3, 1\)",
        ),
    ],
)
def test_bad_input_to_a_loss_is_an_error_that_names_it(loss, change, error, message):
    arguments = {
        "model": linear,
        "x0": torch.zeros(3, 2),
        "schedule": SCHEDULE,
        "generator": seeded(),
    }
    with pytest.raises(error, match=message):
        loss(**arguments | change)


# --- training -------------------------------------------------------------------------------------

MIXTURE = GaussianMixture([0.3, 0.7], [[-1.2, 0.5], [0.6, -0.4]], 0.05)
POINTS = MIXTURE.sample(4000, seeded()).float()


def small(generator: torch.Generator) -> NoiseMLP:
    return NoiseMLP(2, width=48, blocks=2, time_features=16, T=50, generator=generator)


@pytest.fixture(scope="module")
def trained():
    return train(small(seeded()), POINTS, SCHEDULE, steps=800, generator=seeded(1))


def test_training_comes_close_to_the_exact_predictor(trained):
    fresh = MIXTURE.sample(40_000, seeded(7))
    best = ddpm_loss(MIXTURE.noise_predictor(SCHEDULE), fresh, SCHEDULE, seeded(8)).item()
    learned = ddpm_loss(trained.model, fresh.float(), SCHEDULE, seeded(8)).item()
    guess = ddpm_loss(lambda x, t: 0 * x, fresh, SCHEDULE, seeded(8)).item()
    assert best < learned < best + 0.03 * (guess - best)


def test_samples_of_the_trained_model_have_the_moments_of_the_data(trained):
    x_T = torch.randn(4000, 2, generator=seeded(3))
    x = sample_ddim(trained.model, x_T, SCHEDULE).double()
    torch.testing.assert_close(x.mean(0), MIXTURE.mean(), atol=0.1, rtol=0)
    torch.testing.assert_close(x.T.cov(), MIXTURE.covariance(), atol=0.12, rtol=0)


def test_the_four_variable_loss_trains_too_but_not_as_far(trained):
    slow = train(
        small(seeded()),
        POINTS,
        SCHEDULE,
        steps=800,
        generator=seeded(1),
        loss=ddpm_loss_four_variables,
    )
    fresh = MIXTURE.sample(40_000, seeded(7)).float()
    merged, four = (
        ddpm_loss(m, fresh, SCHEDULE, seeded(8)).item() for m in (trained.model, slow.model)
    )
    assert merged < four < 0.7


def test_the_same_generator_gives_the_same_model():
    one, same, other = (
        train(small(seeded()), POINTS, SCHEDULE, steps=20, generator=seeded(s)) for s in (1, 1, 2)
    )
    assert np.array_equal(one.losses, same.losses)
    assert not np.array_equal(one.losses, other.losses)


def test_training_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    train(small(seeded()), POINTS, SCHEDULE, steps=2, generator=seeded())
    assert torch.equal(torch.get_rng_state(), before)


def test_the_averaged_weights_are_those_of_their_formula():
    model, path = small(seeded()), []
    start = model.enter.weight.detach().clone()
    result = train(
        model,
        POINTS,
        SCHEDULE,
        steps=30,
        ema=0.7,
        generator=seeded(),
        on_step=lambda *_: path.append(model.enter.weight.detach().clone()),
    )
    average = start
    for k, weight in enumerate(path):
        decay = min(0.7, (1 + k) / (10 + k))
        average = decay * average + (1 - decay) * weight
    torch.testing.assert_close(result.model.enter.weight.detach(), average)
    assert torch.equal(model.enter.weight, path[-1])


def test_without_averaging_the_last_weights_stay():
    model = small(seeded())
    result = train(model, POINTS, SCHEDULE, steps=3, ema=0.0, generator=seeded())
    for p, q in zip(model.parameters(), result.model.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_the_result_is_ready_to_sample_and_does_not_share_memory(trained):
    model = small(seeded())
    result = train(model, POINTS, SCHEDULE, steps=2, generator=seeded())
    before = result.model.enter.weight.clone()
    with torch.no_grad():
        model.enter.weight.add_(1.0)
    assert torch.equal(result.model.enter.weight, before)
    assert not result.model.training
    assert not any(p.requires_grad for p in result.model.parameters())


def test_losses_are_reported_as_they_come_and_kept():
    seen = []
    result = train(
        small(seeded()),
        POINTS,
        SCHEDULE,
        steps=4,
        generator=seeded(),
        on_step=lambda step, loss: seen.append((step, loss)),
    )
    assert seen == list(enumerate(result.losses))
    assert result.losses.dtype == np.float64


@pytest.mark.parametrize("steps", [1, 2, 7, 100])
def test_the_learning_rate_rises_to_its_peak_once_and_falls_without_reaching_0(steps):
    rates = [one_cycle(step, steps) for step in range(steps)]
    top = rates.index(max(rates))
    assert rates[top] == 1.0
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert min(rates) > 0.0


def test_arrays_of_any_kind_of_number_train_in_the_models_dtype():
    points = (100 * POINTS[:64]).round().long().numpy()
    for given in (points, points.astype(np.float64), POINTS.double()):
        train(small(seeded()), given, SCHEDULE, steps=1, generator=seeded())
    train(small(seeded()).double(), POINTS, SCHEDULE, steps=1, generator=seeded())


def test_a_seed_does_not_depend_on_its_company():
    settings = {"steps": 5, "batch": 16}
    company = train_seeds(small, POINTS, SCHEDULE, (3, 8), **settings)
    (alone,) = train_seeds(small, POINTS, SCHEDULE, [8], **settings)
    assert np.array_equal(company[1].losses, alone.losses)
    assert not np.array_equal(company[0].losses, alone.losses)
    x = torch.zeros(1, 2)
    t = torch.tensor([5])
    assert torch.equal(company[1].model(x, t), alone.model(x, t))


def test_seeds_report_which_of_them_is_training():
    seen = []
    train_seeds(
        small, POINTS, SCHEDULE, (3, 8), steps=2, on_step=lambda s, k, loss: seen.append((s, k))
    )
    assert seen == [(3, 0), (3, 1), (8, 0), (8, 1)]


def test_a_loss_that_is_not_finite_stops_the_training():
    def broken(model, x0, schedule, generator):
        return ddpm_loss(model, x0, schedule, generator) * torch.nan

    with pytest.raises(FloatingPointError, match=r"loss is nan at step 0; `learning_rate` 0\.004"):
        train(small(seeded()), POINTS, SCHEDULE, steps=2, generator=seeded(), loss=broken)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model": linear}, TypeError, "`model` must be a torch.nn.Module, got function"),
        ({"model": nn.Identity()}, ValueError, "`model` must have parameters to train, got none"),
        ({"data": torch.zeros(0, 2)}, ValueError, r"`data` must be .* of shape \(N, …\)"),
        ({"data": torch.zeros(5)}, ValueError, r"`data` must be .* of shape \(5,\)"),
        ({"data": POINTS.long()}, ValueError, "`data` must be floating-point .* got torch.int64"),
        ({"data": torch.full((3, 2), torch.inf)}, ValueError, "`data` must be finite, got inf"),
        ({"data": np.array([["a", "b"]])}, TypeError, "`data` must hold real numbers"),
        ({"generator": 1}, TypeError, r"`generator` must be a torch\.Generator"),
        ({"steps": 0}, ValueError, "`steps` must be at least 1, got 0"),
        ({"steps": 1.5}, TypeError, "`steps` must be a whole number, got 1.5"),
        ({"batch": 0}, ValueError, "`batch` must be at least 1, got 0"),
        ({"learning_rate": 0.0}, ValueError, "`learning_rate` must be positive, got 0"),
        ({"learning_rate": float("nan")}, ValueError, "`learning_rate` must be finite, got nan"),
        ({"weight_decay": -0.1}, ValueError, r"`weight_decay` must lie in \[0, inf\], got -0.1"),
        ({"ema": 1.0}, ValueError, "`ema` must be less than 1"),
        ({"ema": -0.5}, ValueError, r"`ema` must lie in \[0, 1\], got -0.5"),
    ],
)
def test_bad_input_to_a_training_is_an_error_that_names_it(change, error, message):
    arguments = {
        "model": small(seeded()),
        "data": POINTS,
        "schedule": SCHEDULE,
        "generator": seeded(),
        "steps": 1,
    }
    with pytest.raises(error, match=message):
        train(**arguments | change)


@pytest.mark.parametrize("seeds", [(), (1, 1)])
def test_seeds_must_be_some_and_different(seeds):
    with pytest.raises(ValueError, match="`seeds` must be different numbers, at least one"):
        train_seeds(small, POINTS, SCHEDULE, seeds, steps=1)
