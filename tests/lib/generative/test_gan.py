"""The two losses and the penalty against a calculation by hand."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lib.data.digits import digits
from lib.generative.gan import GAN, critic_loss, generator_loss, r1_penalty, train_gan


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


SLOPE = torch.tensor([0.5, -1.5, 2.0], dtype=torch.float64)
REAL, FAKE = torch.randn(2, 7, 3, generator=seeded(), dtype=torch.float64)


def linear(x: Tensor) -> Tensor:
    return (x @ SLOPE + 0.3)[:, None]


def test_the_losses_are_cross_entropies_of_the_labels():
    right, wrong = torch.sigmoid(linear(REAL)), torch.sigmoid(linear(FAKE))
    expected = -right.log().mean() - (1.0 - wrong).log().mean()
    torch.testing.assert_close(critic_loss(linear, REAL, FAKE), expected)
    torch.testing.assert_close(generator_loss(linear, FAKE), -wrong.log().mean())
    blind = critic_loss(lambda x: 0.0 * x[:, :1], REAL, FAKE)
    assert abs(blind.item() - 2.0 * math.log(2.0)) < 1e-12


def test_the_generators_gradient_does_not_vanish_where_the_critic_is_sure():
    fake = FAKE.clone().requires_grad_()
    (slope,) = torch.autograd.grad(generator_loss(linear, fake), fake)
    share = torch.sigmoid(-linear(FAKE))  # -d softplus(-c)/dc
    torch.testing.assert_close(slope, -share * SLOPE / len(FAKE))
    far = (-30.0 * SLOPE / SLOPE.norm())[None].requires_grad_()
    (slope,) = torch.autograd.grad(generator_loss(linear, far), far)
    torch.testing.assert_close(slope[0], -SLOPE)


def test_the_critics_gradient_by_hand():
    slope = SLOPE.clone().requires_grad_()
    loss = critic_loss(lambda x: (x @ slope + 0.3)[:, None], REAL, FAKE)
    (got,) = torch.autograd.grad(loss, slope)
    pull = -torch.sigmoid(-linear(REAL)) * REAL
    push = torch.sigmoid(linear(FAKE)) * FAKE
    torch.testing.assert_close(got, pull.mean(0) + push.mean(0))


def test_the_penalty_is_the_squared_slope_and_its_gradient_reaches_the_critic():
    torch.testing.assert_close(r1_penalty(linear, REAL), SLOPE @ SLOPE)
    curve = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    penalty = r1_penalty(lambda x: curve * x.square().sum(1, keepdim=True), REAL)
    length = REAL.square().sum(1).mean()
    torch.testing.assert_close(penalty, 4.0 * curve**2 * length)
    (slope,) = torch.autograd.grad(penalty, curve)
    torch.testing.assert_close(slope, 8.0 * curve.detach() * length)


def test_the_penalty_of_a_network_agrees_with_finite_differences():
    critic = GAN((3,), latent=2, width=8, generator=seeded()).double().critic
    step = 1e-5
    slopes = [
        (critic(REAL + step * e) - critic(REAL - step * e))[:, 0] / (2 * step)
        for e in torch.eye(3, dtype=torch.float64)
    ]
    expected = torch.stack(slopes, 1).square().sum(1).mean()
    torch.testing.assert_close(r1_penalty(critic, REAL), expected, rtol=1e-6, atol=0)


def test_the_penalty_keeps_the_critic_flatter():
    x = digits().flat
    steep, flat = (
        train_gan(x, steps=80, generator=seeded(), width=32, r1=r1).critic for r1 in (0.0, 10.0)
    )
    rows = torch.from_numpy(x.copy())
    assert r1_penalty(flat, rows) < 0.5 * r1_penalty(steep, rows)


def test_the_generator_returned_has_averaged_weights():
    x = digits().flat
    settings = {"steps": 3, "width": 8}
    last = train_gan(x, generator=seeded(), average=0.0, **settings)
    mean = train_gan(x, generator=seeded(), average=0.99, **settings)
    torch.testing.assert_close(last.critic.enter.weight, mean.critic.enter.weight)
    assert not torch.equal(last.decoder.enter.weight, mean.decoder.enter.weight)


def test_decoding_maps_into_the_open_cube():
    model = GAN((2, 2), latent=3, width=8, generator=seeded())
    assert isinstance(model.critic, nn.Module)
    x = model.decode(5.0 * torch.randn(20, 3, generator=seeded()))
    assert x.shape == (20, 2, 2)
    assert x.abs().max() <= 1.0
