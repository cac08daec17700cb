"""R-Drop, virtual adversarial training and distillation."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.divergence import (
    RDrop,
    distillation,
    globalpointer_divergence,
    r_drop,
    squared_difference,
    symmetric_kl_of_logits,
    virtual_adversarial,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scores(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def total(s: Tensor, t: Tensor) -> Tensor:
    return globalpointer_divergence(s, t, dim=tuple(range(s.ndim)))


class Passes(nn.Module):
    """A model whose passes differ by design: the n-th adds n times a step to its one parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))
        self.passes = 0

    def forward(self, batch: Tensor) -> Tensor:
        self.passes += 1
        return batch + self.passes * self.bias


# --- R-Drop ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [0.0, 1.0, 4.0])
def test_r_drop_is_half_the_losses_and_a_quarter_of_the_divergence(weight):
    batch, model = scores(2, 3, 3), Passes()
    found = r_drop(
        model,
        batch,
        lambda s, t, _: globalpointer_divergence(s, t).mean(),
        weight,
        loss=lambda s, x: (s - x).square().mean(),
    )
    s, t = batch + 0.5, batch + 1.0
    d = globalpointer_divergence(s, t).mean()
    assert isinstance(found, RDrop)
    assert model.passes == 2
    assert found.task.item() == pytest.approx((0.5**2 + 1.0**2) / 2)
    assert found.consistency.item() == pytest.approx(d.item())
    assert found.total.item() == pytest.approx(0.625 + weight / 4 * d.item())


def test_gradients_flow_into_both_passes():
    batch, model = scores(3, 3), Passes()
    zero = lambda s, x: (s * 0).sum()  # noqa: E731
    found = r_drop(model, batch, lambda s, t, _: total(s, t), 4.0, loss=zero)
    slope = torch.autograd.grad(found.total, model.bias)[0]
    b = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    s, t = batch + b, batch + 2 * b
    by_hand = torch.autograd.grad(((s.sigmoid() - t.sigmoid()) * (s - t)).sum(), b)[0]
    assert float(slope) == pytest.approx(float(by_hand))


def test_without_dropout_there_is_nothing_to_compare():
    model = nn.Sequential(nn.Dropout(0.5), nn.Identity()).eval()
    found = r_drop(model, scores(3, 3), lambda s, t, _: total(s, t), 1.0, loss=lambda s, x: s.sum())
    assert found.consistency == 0


def test_divergence_and_loss_see_the_batch():
    mask = torch.ones(3, 3, dtype=torch.bool).triu()
    batch = {"x": scores(3, 3), "mask": mask}
    model = Passes()
    found = r_drop(
        lambda b: model(b["x"]),
        batch,
        lambda s, t, b: globalpointer_divergence(s, t, b["mask"]),
        1.0,
        loss=lambda s, b: s[b["mask"]].sum(),
    )
    assert found.consistency == globalpointer_divergence(batch["x"] + 0.5, batch["x"] + 1.0, mask)


def well(s: Tensor, t: Tensor, batch: Tensor) -> Tensor:
    return total(s, t)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"model": 3}, TypeError, "`model` must be callable"),
        ({"divergence": None}, TypeError, "`divergence` must be callable"),
        ({"loss": "ce"}, TypeError, "`loss` must be callable"),
        ({"weight": -1.0}, ValueError, "`weight` must lie in"),
        ({"weight": math.nan}, ValueError, "`weight` must be finite"),
        ({"model": lambda x: [x]}, TypeError, "`model` must return a floating tensor"),
        ({"model": lambda x: x.long()}, TypeError, "`model` must return a floating tensor"),
        ({"divergence": lambda s, t, b: s - t}, ValueError, "`divergence` must return a tensor"),
        ({"loss": lambda s, b: 1.0}, ValueError, "`loss` must return a tensor with a single"),
    ],
)
def test_r_drop_refuses(changes, error, words):
    settings = {
        "model": Passes(),
        "batch": scores(3, 3),
        "divergence": well,
        "weight": 1.0,
        "loss": lambda s, b: s.sum(),
    }
    with pytest.raises(error, match=words):
        r_drop(**settings | changes)


def test_passes_of_different_shapes_are_refused():
    sizes = iter([3, 2])
    with pytest.raises(ValueError, match="`the second pass` must have the shape"):
        r_drop(lambda b: scores(next(sizes), 3), None, well, 1.0, loss=lambda s, b: s.sum())


# --- virtual adversarial training -----------------------------------------------------------------


def half_square(s: Tensor, t: Tensor) -> Tensor:
    return squared_difference(s, t, dim=(0, 1)) / 2


def test_change_finds_the_direction_of_the_largest_singular_value():
    """For scores A x and a squared difference the worst change is the first singular vector."""
    a = scores(6, 4, seed=1)
    x = scores(5, 4, seed=2)
    found = virtual_adversarial(
        lambda e: e @ a.T, x, half_square, radius=0.3, generator=generator(), steps=200
    )
    largest = torch.linalg.svdvals(a)[0]
    assert float(found) == pytest.approx(float(5 * (0.3 * largest) ** 2 / 2))


def test_one_step_beats_a_random_direction_of_the_same_length():
    a, x = scores(30, 12, seed=1), scores(5, 12, seed=2)

    def model(e: Tensor) -> Tensor:
        return e @ a.T / 12

    worst = virtual_adversarial(model, x, total, radius=1.0, generator=generator())
    blind = [total(model(x), model(x + F.normalize(scores(5, 12, seed=s)))) for s in range(3, 23)]
    assert worst > max(blind)


def test_clean_pass_is_a_constant():
    bias = torch.zeros((), dtype=torch.float64, requires_grad=True)
    x = scores(3, 4)
    found = virtual_adversarial(
        lambda e: e + bias, x, half_square, radius=0.5, generator=generator()
    )
    slope = torch.autograd.grad(found, bias)[0]  # of the changed pass alone; of both it is 0
    assert slope.abs() > 1e-3


def test_gradients_flow_into_the_embeddings():
    x = scores(3, 4).requires_grad_()
    found = virtual_adversarial(lambda e: e**2, x, half_square, radius=0.5, generator=generator())
    assert torch.autograd.grad(found, x)[0].abs().sum() > 0


def test_it_measures_without_gradients_too():
    x = scores(3, 4)
    with torch.no_grad():
        found = virtual_adversarial(torch.sin, x, half_square, radius=0.5, generator=generator())
    assert not found.requires_grad
    again = virtual_adversarial(torch.sin, x, half_square, radius=0.5, generator=generator())
    assert found == again


def test_same_generator_same_change():
    x = scores(3, 4)
    runs = [
        virtual_adversarial(torch.sin, x, half_square, radius=0.5, generator=generator(seed))
        for seed in (0, 0, 1)
    ]
    assert runs[0] == runs[1] != runs[2]


def test_a_model_that_does_not_see_the_change_costs_nothing_and_gives_no_nan():
    x = scores(3, 4)
    found = virtual_adversarial(lambda e: 0 * e, x, half_square, radius=0.5, generator=generator())
    assert found == 0


def test_a_faint_divergence_still_has_a_direction():
    """Squares of its gradient underflow in float32."""
    a = scores(6, 4, seed=1).float() * 1e-17
    x = scores(5, 4, seed=2).float()
    found = virtual_adversarial(
        lambda e: e @ a.T, x, half_square, radius=0.3, generator=generator(), steps=200
    )
    largest = torch.linalg.svdvals(a)[0].double()
    assert float(found) == pytest.approx(float(5 * (0.3 * largest) ** 2 / 2), rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"model": 3}, TypeError, "`model` must be callable"),
        ({"divergence": None}, TypeError, "`divergence` must be callable"),
        ({"embeddings": [[1.0]]}, TypeError, "`embeddings` must be a torch.Tensor"),
        ({"embeddings": torch.zeros(2, 3).long()}, TypeError, "`embeddings` must have a floating"),
        ({"embeddings": torch.zeros(0, 3)}, ValueError, "`embeddings` must have shape"),
        ({"embeddings": torch.tensor([math.nan])}, ValueError, "`embeddings` must be finite"),
        ({"radius": 0.0}, ValueError, "`radius` must be positive"),
        ({"probe": -1.0}, ValueError, "`probe` must be positive"),
        ({"steps": 0}, ValueError, "`steps` must be at least 1"),
        ({"generator": 0}, TypeError, "`generator` must be a torch.Generator"),
        ({"model": lambda e: None}, TypeError, "`model` must return a floating tensor"),
        ({"divergence": lambda s, t: s - t}, ValueError, "`divergence` must return a tensor"),
    ],
)
def test_virtual_adversarial_refuses(changes, error, words):
    settings = {
        "model": torch.sin,
        "embeddings": scores(3, 4),
        "divergence": half_square,
        "radius": 0.5,
        "generator": generator(),
    }
    with pytest.raises(error, match=words):
        virtual_adversarial(**settings | changes)


# --- distillation ---------------------------------------------------------------------------------


def test_at_temperature_1_it_is_the_divergence():
    s, t = scores(2, 3, 3)
    assert distillation(s, t, total) == total(s, t)


def test_hot_span_divergence_is_a_quarter_of_the_squared_difference():
    s, t = scores(2, 3, 3)
    hot = distillation(s, t, total, temperature=1e4)
    assert float(hot) == pytest.approx(float(squared_difference(s, t)) / 4, rel=1e-6)


def test_hot_softmax_divergence_is_the_variance_of_the_difference():
    s, t = scores(2, 9)
    hot = distillation(s, t, symmetric_kl_of_logits, temperature=1e4)
    assert float(hot) == pytest.approx(float((s - t).var(correction=0)), rel=1e-3)


def test_teacher_is_a_constant():
    s, t = (x.detach().requires_grad_() for x in scores(2, 3, 3))
    found = distillation(s, t, total, temperature=2.0)
    assert torch.autograd.grad(found, t, allow_unused=True, retain_graph=True)[0] is None
    assert torch.autograd.grad(found, s)[0].abs().sum() > 0


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"student": [1.0]}, TypeError, "`student` must be a torch.Tensor"),
        ({"student": torch.ones(3, 3).int()}, TypeError, "`student` must have a floating dtype"),
        ({"student": torch.ones(0, 3)}, ValueError, "`student` must not be empty"),
        ({"teacher": scores(2, 3)}, ValueError, "`teacher` must have the shape of `student`"),
        ({"divergence": 1}, TypeError, "`divergence` must be callable"),
        ({"divergence": lambda s, t: s}, ValueError, "`divergence` must return a tensor"),
        ({"temperature": 0.0}, ValueError, "`temperature` must be positive"),
        ({"temperature": math.inf}, ValueError, "`temperature` must be finite"),
    ],
)
def test_distillation_refuses(changes, error, words):
    settings = {"student": scores(3, 3), "teacher": scores(3, 3, seed=1), "divergence": total}
    with pytest.raises(error, match=words):
        distillation(**settings | changes)
