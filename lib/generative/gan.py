"""Generative adversarial network: a generator against a critic that tells its work from data.

Goodfellow et al. (1406.2661) with the non-saturating logistic loss, and the R1 penalty of Mescheder
et al. (1801.04406): half of `r1` times the mean squared length of the critic's gradient at real
data, without which the two circle each other. c(x) is the critic's logit that x is real:

    critic     L_c = E softplus(-c(real)) + E softplus(c(fake)) + r1/2 E ‖∇c(real)‖²
    generator  L_g = E softplus(-c(fake))

Left out: convolutions, spectral norms, conditions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lib import _checks as check
from lib.generative import _validation as validation
from lib.generative._model import LatentModel
from lib.generative._training import MLP, OnStep, draw_batch, finite
from lib.neural import MovingAverage, one_cycle

__all__ = ["GAN", "critic_loss", "generator_loss", "r1_penalty", "train_gan"]

Critic = Callable[[Tensor], Tensor]


def critic_loss(critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
    """Mean of softplus(-c(real)) plus mean of softplus(c(fake)); 2 log 2 when c can't tell.

    Parameters
    ----------
    critic : callable
        ``critic(x)``: (N, D) -> (N, 1), the logit that x is real.
    real, fake : Tensor, shape (N, D)
    """
    return F.softplus(-critic(real)).mean() + F.softplus(critic(fake)).mean()


def generator_loss(critic: Critic, fake: Tensor) -> Tensor:
    """Mean of softplus(-c(fake)): its gradient stays large where the critic is sure of a fake."""
    return F.softplus(-critic(fake)).mean()


def r1_penalty(critic: Critic, real: Tensor) -> Tensor:
    """Mean squared length of the critic's gradient at real data (N, D), differentiable."""
    real = real.detach().requires_grad_()
    (slope,) = torch.autograd.grad(critic(real).sum(), real, create_graph=True)
    return slope.square().sum(1).mean()


class GAN(LatentModel):
    """A generator z -> x and the critic c that it was trained against.

    Parameters
    ----------
    shape : tuple of int
        Shape of one datum.
    latent : int
        Length k of a latent.
    width : int
        Hidden units in each of the two layers of either network.
    generator : torch.Generator
        Of the first weights.
    """

    def __init__(
        self, shape: tuple[int, ...], *, latent: int, width: int, generator: torch.Generator
    ) -> None:
        super().__init__(shape, latent)
        validation.settings(width=width)
        check.generator(generator)
        self.decoder = MLP(latent, width, self.size, generator)
        self.critic = MLP(self.size, width, 1, generator)

    def decode_rows(self, z: Tensor) -> Tensor:
        """The generator's data of latents, in (-1, 1): (N, k) -> (N, D)."""
        return self.decoder(z).tanh()


def train_gan(
    data: Any,
    *,
    steps: int = 2800,
    generator: torch.Generator,
    on_step: OnStep | None = None,
    latent: int = 16,
    width: int = 192,
    batch: int = 64,
    learning_rate: float = 1e-3,
    r1: float = 1.0,
    average: float = 0.99,
) -> GAN:
    """Train a GAN: one update of the critic and one of the generator a step, by Adam.

    Adam goes without momentum (β_1 = 0), as is usual in a game. The generator that is returned has
    averaged weights.

    Parameters
    ----------
    data : Tensor or array, shape (N, …)
        Numbers in [-1, 1].
    steps : int
        Number of pairs of updates.
    generator : torch.Generator
        Source of the first weights, the batches and the latents.
    on_step : callable, optional
        ``on_step(step, loss)`` after each pair of updates, counted from 0; the loss is the
        critic's, without the penalty: 2 log 2 = 1.39 when it can't tell, 0 when it is always right.
    latent, width : int
        As in `GAN`.
    batch : int
    learning_rate : float
        At its peak; it rises over the first 5 % of the steps and then falls to 0 as half a cosine.
    r1 : float
        Weight of the penalty.
    average : float in [0, 1)
        Decay of the moving average of the generator's weights.

    Returns
    -------
    GAN

    Raises
    ------
    ValueError
        If data are empty, not finite or outside [-1, 1], or a setting lies outside its range.
    FloatingPointError
        If a loss is not finite.
    """
    rows, shape = validation.training_data(data)
    validation.settings(steps=steps, batch=batch)
    validation.positive(learning_rate=learning_rate)
    r1, average = check.number(r1, "r1", 0.0), validation.share(average, "average")
    model = GAN(shape, latent=latent, width=width, generator=generator)
    critic, maker = list(model.critic.parameters()), list(model.decoder.parameters())
    adams = [torch.optim.Adam(p, betas=(0.0, 0.99), fused=True) for p in (critic, maker)]
    averages = MovingAverage(maker, average)
    for step in range(steps):
        for adam in adams:
            adam.param_groups[0]["lr"] = learning_rate * one_cycle(step, steps)

        real = draw_batch(rows, batch, generator)
        fake = model.decode_rows(model.prior(batch, generator)).detach()
        judged = critic_loss(model.critic, real, fake)
        _update(adams[0], critic, judged + 0.5 * r1 * r1_penalty(model.critic, real))

        fake = model.decode_rows(model.prior(batch, generator))
        deceived = generator_loss(model.critic, fake)
        _update(adams[1], maker, deceived)

        averages.update()
        finite(deceived, step)
        number = finite(judged, step)
        if on_step is not None:
            on_step(step, number)
    averages.install()
    return model.finished()


def _update(adam: torch.optim.Optimizer, parameters: list[Tensor], loss: Tensor) -> None:
    """One step of one player; the other's parameters get no gradient."""
    adam.zero_grad()
    loss.backward(inputs=parameters)
    adam.step()
