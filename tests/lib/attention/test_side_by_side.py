"""Several seeds in one pass: parameters, schedule and optimiser."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lib.attention.side_by_side import data_generators, draw_parameters, fit, one_cycle, take


def draw(generator: torch.Generator) -> dict[str, torch.Tensor]:
    return {"w": torch.randn(3, generator=generator, dtype=torch.float64)}


def distance(parameters, target):
    """Squared distance of each seed's w from its own target: shape (S,)."""
    return lambda: (parameters["w"] - target).square().sum(-1)


def test_parameters_of_a_seed_do_not_depend_on_its_company():
    alone, company = draw_parameters(draw, [5]), draw_parameters(draw, [3, 5])
    assert torch.equal(alone["w"][0], company["w"][1])
    assert not torch.equal(company["w"][0], company["w"][1])


def test_data_of_a_seed_do_not_depend_on_its_company_but_on_their_purpose():
    one = data_generators([5], 1)[0].random(4)
    assert np.array_equal(one, data_generators([3, 5], 1)[1].random(4))
    assert not np.array_equal(one, data_generators([5], 2)[0].random(4))


def test_take_looks_each_seed_up_in_its_own_table():
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(3, 7, 2, generator=generator)
    rows = torch.randint(7, (3, 4, 5), generator=generator)
    for s in range(3):
        assert torch.equal(take(table, rows)[s], table[s][rows[s]])


@pytest.mark.parametrize("steps", [1, 2, 7, 100])
def test_the_learning_rate_rises_to_its_peak_once_and_falls_without_reaching_0(steps):
    rates = [one_cycle(step, steps) for step in range(steps)]
    top = rates.index(max(rates))
    assert rates[top] == 1.0
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert min(rates) > 0.0


def test_fit_finds_the_minimum_of_every_seed():
    parameters = draw_parameters(draw, [0, 1])
    target = torch.tensor([[1.0, 2.0, 3.0], [-4.0, 0.0, 4.0]], dtype=torch.float64)
    losses = fit(parameters, distance(parameters, target), steps=400, learning_rate=0.1)
    assert torch.allclose(parameters["w"], target, atol=1e-2)
    assert losses.shape == (2, 400)
    assert (losses[:, -1] < 1e-3 * losses[:, 0]).all()


def test_a_seed_in_company_takes_the_steps_it_takes_alone():
    company, alone = draw_parameters(draw, [0, 1]), draw_parameters(draw, [1])
    fit(company, distance(company, 3.0), steps=20, learning_rate=0.1)
    fit(alone, distance(alone, 3.0), steps=20, learning_rate=0.1)
    assert torch.equal(company["w"][1:], alone["w"])


def test_a_clipped_step_is_that_of_a_shorter_gradient_seed_by_seed():
    """A linear loss whose slope has norm 5 for one seed, 0.5 for the other."""
    slope = torch.tensor([[3.0, 4.0, 0.0], [0.3, 0.4, 0.0]], dtype=torch.float64)
    halves = {"a": torch.zeros(2, 1, dtype=torch.float64), "b": torch.zeros(2, 2).double()}
    seen = []

    def loss():
        if halves["a"].grad is not None:
            seen.append(torch.cat([p.grad for p in halves.values()], 1).clone())
        return (torch.cat([*halves.values()], 1) * slope).sum(1)

    fit(halves, loss, steps=2, learning_rate=0.1, clip=1.0)
    assert torch.allclose(seen[0], slope * torch.tensor([[0.2], [1.0]]))


def test_fitted_parameters_carry_no_gradients():
    parameters = draw_parameters(draw, [0])
    fit(parameters, distance(parameters, 0.0), steps=2, learning_rate=0.1)
    assert not parameters["w"].requires_grad
    assert parameters["w"].grad is None


def test_progress_is_reported_after_every_step():
    parameters, seen = draw_parameters(draw, [0, 1]), []
    losses = fit(
        parameters,
        distance(parameters, 0.0),
        steps=3,
        learning_rate=0.1,
        on_step=lambda step, loss: seen.append((step, loss)),
    )
    assert [step for step, _ in seen] == [0, 1, 2]
    assert np.array_equal(np.stack([loss for _, loss in seen], 1), losses)


def test_a_loss_that_is_not_finite_stops_the_training():
    parameters = draw_parameters(draw, [0])
    with pytest.raises(FloatingPointError, match=r"not finite at step 0.*`learning_rate` 0\.1"):
        fit(parameters, distance(parameters, torch.nan), steps=2, learning_rate=0.1)
    assert not parameters["w"].requires_grad
