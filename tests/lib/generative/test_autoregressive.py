"""The masked network's order, and probabilities that sum to 1; pixels on top of it."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from lib.data.digits import digits
from lib.generative.autoregressive import MADE
from lib.generative.pixels import PixelModel, train_pixels


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def stirred(positions: int = 4, symbols: int = 3, width: int = 20, **settings) -> MADE:
    """A network far from its first weights, so that nothing is 0 by chance."""
    model = MADE(positions, symbols, width=width, generator=seeded(), **settings).double()
    g = seeded(9)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.5 * torch.randn(p.shape, generator=g))
    return model.requires_grad_(False)


orders = pytest.mark.parametrize("ordered", [False, True])


@orders
@pytest.mark.parametrize(("positions", "blocks"), [(1, 1), (2, 1), (5, 1), (5, 3)])
def test_logits_see_what_came_before_and_nothing_else(positions, blocks, ordered):
    model = stirred(positions, 3, blocks=blocks, ordered=ordered)
    codes = torch.randint(3, (40, positions), generator=seeded(1))
    before = model(codes)
    for i in range(positions):
        changed = codes.clone()
        changed[:, i] = (changed[:, i] + 1) % 3
        moved = (model(changed) - before).abs().amax((0, 2)) > 0  # (M,)
        assert moved.tolist() == [j > i for j in range(positions)]


@orders
def test_probabilities_of_all_sequences_sum_to_1(ordered):
    model = stirred(ordered=ordered)
    every = torch.tensor(list(itertools.product(range(3), repeat=4)))
    p = model.log_probability(every).exp()
    assert p.sum().item() == pytest.approx(1.0, abs=1e-12)
    assert p.max() < 0.9


def test_a_probability_is_the_product_of_its_conditionals():
    model = stirred()
    codes = torch.tensor([[2, 0, 1, 1]])
    p = model(codes).softmax(-1)[0]
    expected = math.log(math.prod(p[i, c].item() for i, c in enumerate([2, 0, 1, 1])))
    assert model.log_probability(codes).item() == pytest.approx(expected)
    assert model.loss(codes, seeded()).item() == pytest.approx(-expected / 4)


def test_samples_come_as_often_as_the_probabilities_say():
    model = stirred(3, 3)
    n = 20_000
    drawn = model.sample(n, seeded(5))
    every = torch.tensor(list(itertools.product(range(3), repeat=3)))
    p = model.log_probability(every).exp()
    counts = torch.bincount(drawn @ torch.tensor([9, 3, 1]), minlength=27)
    chi2 = ((counts - n * p).square() / (n * p)).sum().item()
    assert chi2 < 60  # 26 degrees of freedom: exceeded once in 6,000 seeds


def test_a_start_from_data_knows_how_often_each_symbol_comes():
    codes = torch.tensor([[0, 2], [0, 1], [0, 1], [1, 1]])
    model = MADE(2, 3, width=8, generator=seeded())
    with torch.no_grad():
        model.leave.weight.zero_()
    model.start_from(codes)
    expected = torch.tensor([[3.5, 1.5, 0.5], [0.5, 3.5, 1.5]]) / 5.5
    torch.testing.assert_close(model(codes).softmax(-1), expected.expand(4, 2, 3))


def test_dropout_acts_on_the_loss_only():
    model = stirred(dropout=0.5)
    same = stirred(dropout=0.0)
    codes = torch.randint(3, (8, 4), generator=seeded(1))
    assert torch.equal(model(codes), same(codes))
    assert model.loss(codes, seeded(1)) != model.loss(codes, seeded(2))
    assert same.loss(codes, seeded(1)) == same.loss(codes, seeded(2))


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ([[0, 1, 2, 3]], r"`codes` must lie in \[0, 2\], got 3"),
        ([[0, 1, -1, 0]], r"`codes` must lie in \[0, 2\], got -1"),
        ([[0, 1, 2]], r"`codes` must have shape \(N, 4\), got \(1, 3\)"),
        ([[0, 1, 2, 0.5]], r"`codes` must be whole numbers, got 0\.5"),
        (torch.zeros(0, 4), r"`codes` must have shape \(N, 4\), got \(0, 4\)"),
    ],
)
def test_bad_codes_are_an_error_that_names_them(codes, message):
    with pytest.raises(ValueError, match=message):
        stirred().log_probability(codes)
    with pytest.raises(ValueError, match=message):
        stirred()(codes)


# --- pixels --------------------------------------------------------------------------------------


def pixel_model(shape=(2, 2), levels: int = 3) -> PixelModel:
    return PixelModel(shape, levels=levels, width=16, generator=seeded()).double().finished()


def test_the_digits_own_levels_survive_quantisation():
    model = PixelModel((8, 8), width=8, generator=seeded())
    rows = torch.from_numpy(digits().flat.copy())
    codes = model.quantise(rows)
    assert codes.unique().tolist() == list(range(17))
    assert torch.equal(model.value(codes), rows)
    assert torch.equal(codes, ((rows + 1) * 8).long())


def test_probabilities_of_all_images_sum_to_1_and_images_are_rounded():
    model = pixel_model()
    every = torch.tensor(list(itertools.product([-1.0, 0.0, 1.0], repeat=4))).view(-1, 2, 2)
    log_p = model.log_probability(every)
    assert log_p.exp().sum().item() == pytest.approx(1.0, abs=1e-12)
    nudged = (every + 0.3 * torch.rand(every.shape, generator=seeded())).clamp(-1, 1)
    torch.testing.assert_close(model.log_probability(nudged), log_p)


def test_the_picture_grows_pixel_by_pixel():
    seen = []
    model = pixel_model((2, 3), levels=5)
    x = model.sample(4, seeded(), on_pixel=lambda i, images: seen.append((i, images)))
    assert [i for i, _ in seen] == list(range(6))
    for i, images in seen:
        assert images.shape == (4, 2, 3)
        assert torch.equal(images.flatten(1)[:, : i + 1], x.flatten(1)[:, : i + 1])
        assert (images.flatten(1)[:, i + 1 :] == -1.0).all()
    assert torch.equal(x, model.sample(4, seeded()))


def test_training_learns_which_pixels_agree():
    """The second pixel copies the first, the third is its opposite."""
    first = np.random.default_rng(0).choice([-1.0, 1.0], 500)
    data = np.stack([first, first, -first], 1)
    model = train_pixels(
        data,
        steps=150,
        generator=seeded(),
        levels=2,
        width=32,
        dropout=0.0,
        learning_rate=1e-2,
    )
    drawn = model.sample(400, seeded(1)).numpy()
    assert (drawn[:, 0] == drawn[:, 1]).mean() > 0.97
    assert (drawn[:, 0] == -drawn[:, 2]).mean() > 0.97
    assert abs(drawn[:, 0].mean()) < 0.2
    assert model.log_probability(data).mean().item() == pytest.approx(-math.log(2), abs=0.1)


def test_pixels_that_are_always_paper_are_so_from_the_first_step_on():
    model = train_pixels(digits().images, steps=1, generator=seeded(), width=16)
    assert (digits().images[:, 0, 0] == -1.0).all()
    assert (model.sample(300, seeded())[:, 0, 0] == -1.0).float().mean() > 0.98


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((3, 4)), r"`x` must have shape \(N, 2, 2\), got \(3, 4\)"),
        (np.full((1, 2, 2), 1.5), r"`x` must lie in \[-1, 1\], got 1\.5"),
        (np.full((1, 2, 2), np.nan), "`x` must be finite, got nan"),
    ],
)
def test_bad_images_are_an_error_that_names_them(x, message):
    with pytest.raises(ValueError, match=message):
        pixel_model().log_probability(x)
