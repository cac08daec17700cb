"""Langevin's chain on normal densities, where its law is known at every step."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from lib.generative import annealed_langevin, langevin

S = 0.8  # deviation of the density
N = 40_000


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def score(x: Tensor) -> Tensor:
    return -x / S**2


def has_moments(x: Tensor, mean: float, variance: float) -> bool:
    """Mean and variance of n independent normal numbers, within 4.5 standard errors."""
    n = x.numel()
    off_mean = abs(x.mean().item() - mean) / math.sqrt(variance / n)
    off_variance = abs(x.var().item() - variance) / (variance * math.sqrt(2.0 / n))
    return max(off_mean, off_variance) < 4.5


@pytest.mark.parametrize("h", [0.02, 0.3, 0.9])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_after_k_steps_mean_and_variance_are_those_of_the_linear_recursion(h, steps):
    x = langevin(
        score,
        torch.full((N,), 3.0, dtype=torch.float64),
        step_size=h,
        steps=steps,
        generator=seeded(),
    )
    a = 1.0 - h / S**2
    mean = 3.0 * a**steps
    variance = 2.0 * h * sum(a ** (2 * k) for k in range(steps))
    assert has_moments(x, mean, variance)


@pytest.mark.parametrize("h", [0.1, 0.5, 1.0])
def test_the_stationary_variance_is_too_large_by_what_the_step_size_says(h):
    variance = S**2 / (1.0 - h / (2.0 * S**2))
    start = math.sqrt(variance) * torch.randn(N, generator=seeded(1), dtype=torch.float64)
    stays = langevin(score, start, step_size=h, steps=20, generator=seeded(2))
    arrives = langevin(score, 0 * start, step_size=h, steps=60, generator=seeded(3))
    assert has_moments(stays, 0.0, variance)
    assert has_moments(arrives, 0.0, variance)
    assert not has_moments(arrives, 0.0, S**2)  # the test would see the difference


def test_small_steps_find_both_modes_of_a_mixture():
    def two_modes(x: Tensor) -> Tensor:  # of N(±1, 0.5²), half each
        return (torch.tanh(x / 0.25) - x) / 0.25

    start = torch.zeros(4000, dtype=torch.float64)
    x = langevin(two_modes, start, step_size=0.01, steps=400, generator=seeded())
    assert x.mean().item() == pytest.approx(0.0, abs=0.08)
    assert x.square().mean().item() == pytest.approx(1.25, rel=0.06)


def test_the_walk_is_reported_and_its_start_left_alone():
    start, seen = torch.ones(3, 2), []
    x = langevin(
        score,
        start,
        step_size=0.1,
        steps=4,
        generator=seeded(),
        on_step=lambda k, x: seen.append((k, x)),
    )
    assert [k for k, _ in seen] == [0, 1, 2, 3]
    assert torch.equal(seen[-1][1], x)
    assert len({id(x) for _, x in seen}) == 4
    assert torch.equal(start, torch.ones(3, 2))
    again = langevin(score, start, step_size=0.1, steps=4, generator=seeded())
    assert torch.equal(again, x)


def test_one_step_by_hand():
    x = torch.tensor([[1.0, -2.0]])
    noise = torch.randn(1, 2, generator=seeded())
    expected = x + 0.1 * score(x) + math.sqrt(0.2) * noise
    torch.testing.assert_close(
        langevin(score, x, step_size=0.1, steps=1, generator=seeded()), expected
    )


def test_too_large_a_step_runs_away_and_says_so():
    with pytest.raises(FloatingPointError, match=r"not finite after step \d+; `step_size` 3 may"):
        langevin(score, torch.ones(5), step_size=3.0, steps=500, generator=seeded())


def test_annealing_follows_the_recursion_through_all_levels():
    """For data N(0, 1) the score at σ is -x/(1 + σ²): linear at each level."""
    sigmas, h, steps = [4.0, 1.0, 0.25], 0.02, 5
    start = torch.full((N,), 2.0, dtype=torch.float64)
    x = annealed_langevin(
        lambda x, sigma: -x / (1.0 + sigma**2),
        start,
        sigmas,
        steps_per_level=steps,
        step_size=h,
        generator=seeded(),
    )
    mean, variance = 2.0, 0.0
    for sigma in sigmas:
        step = h * (sigma / sigmas[-1]) ** 2
        for _ in range(steps):
            a = 1.0 - step / (1.0 + sigma**2)
            mean, variance = a * mean, a**2 * variance + 2.0 * step
    assert has_moments(x, mean, variance)


GOOD = {"score": score, "x": torch.ones(3), "step_size": 0.1, "steps": 2, "generator": seeded()}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": np.ones(3)}, TypeError, "`x` must be a torch.Tensor, got ndarray"),
        ({"x": torch.ones(3, dtype=torch.int64)}, TypeError, "`x` must have a floating dtype"),
        ({"x": torch.ones(0)}, ValueError, r"`x` must have shape \(batch, …\), got \(0,\)"),
        ({"x": torch.full((3,), torch.nan)}, ValueError, "`x` must be finite, got NaN"),
        ({"step_size": 0.0}, ValueError, "`step_size` must be positive, got 0"),
        ({"step_size": math.inf}, ValueError, "`step_size` must be finite, got inf"),
        ({"steps": 0}, ValueError, "`steps` must be at least 1, got 0"),
        ({"generator": 0}, TypeError, r"`generator` must be a torch\.Generator .* got int"),
        ({"score": lambda x: x[:1]}, ValueError, r"`score\(x\)` must have the shape of `x`"),
        ({"score": lambda x: 1.0}, TypeError, r"`score\(x\)` must be a torch.Tensor, got float"),
    ],
)
def test_bad_input_is_an_error_that_names_it(change, error, message):
    with pytest.raises(error, match=message):
        langevin(**GOOD | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigmas": [1.0, 2.0]}, r"`sigmas` must be positive and fall, got \[1\.0, 2\.0\]"),
        ({"sigmas": [1.0, 0.0]}, "`sigmas` must be positive and fall"),
        ({"sigmas": []}, "`sigmas` must be one row of numbers"),
        ({"steps_per_level": 0}, "`steps_per_level` must be at least 1, got 0"),
        ({"step_size": -1.0}, "`step_size` must be positive, got -1"),
    ],
)
def test_bad_input_to_annealing_is_an_error_that_names_it(change, message):
    arguments = {
        "sigmas": [2.0, 1.0],
        "steps_per_level": 2,
        "step_size": 0.1,
        "generator": seeded(),
    }
    with pytest.raises(ValueError, match=message):
        annealed_langevin(lambda x, sigma: -x, torch.ones(3), **arguments | change)
