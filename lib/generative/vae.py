"""Variational autoencoder: latents with a normal prior, trained on the evidence lower bound.

Kingma and Welling (1312.6114), with one learned deviation σ for the decoder's normal distribution
(Rybkin et al., 2006.13202), which weighs reconstruction against KL without a setting to tune:

    log p(x) >= E_q[log N(x; μ(z), σ² I)] - KL(q(z | x), N(0, I)),  q(z | x) = N(m(x), diag s²(x)).

Left out: tighter bounds by importance weights, hierarchies of latents, learned priors.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from lib import _checks as check
from lib.generative import _validation as validation
from lib.generative._model import LatentModel
from lib.generative._training import MLP, OnStep, descend, draw_batch

__all__ = ["VAE", "kl_to_standard_normal", "train_vae"]


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, diag exp(log_variance)), N(0, I)) in nats, summed over the last axis.

    Parameters
    ----------
    mean, log_variance : Tensor, shape (…, k)

    Returns
    -------
    Tensor, shape (…,)
    """
    return 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).sum(-1)


class VAE(LatentModel):
    """Encoder x -> (m, log s²), decoder z -> μ with deviation σ for every number of the datum.

    Parameters
    ----------
    shape : tuple of int
        Shape of one datum.
    latent : int
        Length k of a latent.
    width : int
        Hidden units in each of the two layers on either side.
    generator : torch.Generator
        Of the first weights.
    """

    def __init__(
        self, shape: tuple[int, ...], *, latent: int, width: int, generator: torch.Generator
    ) -> None:
        super().__init__(shape, latent)
        validation.settings(width=width)
        check.generator(generator)
        self.encoder = MLP(self.size, width, 2 * latent, generator)
        self.decoder = MLP(latent, width, self.size, generator)
        self.log_sigma = nn.Parameter(torch.tensor(-1.0))

    def posterior(self, x: Any) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(z | x), each (N, k), of data ``(N, *shape)``."""
        mean, log_variance = self.encoder(self.rows(x)).chunk(2, dim=-1)
        return mean, log_variance

    def decode_rows(self, z: Tensor) -> Tensor:
        """The decoder's mean μ(z), in (-1, 1): (N, k) -> (N, D)."""
        return self.decoder(z).tanh()

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator, *, noise: bool = False) -> Tensor:
        """Draw n data, shape ``(n, *shape)``: the decoder's means of standard normal latents.

        With `noise`, plus σ times a normal number per pixel, as the model strictly says. Then the
        numbers may leave [-1, 1].
        """
        mean = super().sample(n, generator)
        if not noise:
            return mean
        drawn = torch.randn(mean.shape, generator=generator, dtype=mean.dtype)
        return mean + self.log_sigma.exp() * drawn

    def elbo(self, x: Any, generator: torch.Generator) -> Tensor:
        """Evidence lower bound of log p(x) in nats, by one draw of z for each datum.

        Parameters
        ----------
        x : array_like, shape (N, *shape)
        generator : torch.Generator
            Of z.

        Returns
        -------
        Tensor, shape (N,)
        """
        generator = check.generator(generator)
        mean, log_variance = self.posterior(x)
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype)
        z = mean + (0.5 * log_variance).exp() * noise
        error = (self.rows(x) - self.decode_rows(z)).square().sum(-1) / self.log_sigma.exp() ** 2
        log_normal = -0.5 * error - self.size * (self.log_sigma + 0.5 * math.log(2 * math.pi))
        return log_normal - kl_to_standard_normal(mean, log_variance)


def train_vae(
    data: Any,
    *,
    steps: int = 5000,
    generator: torch.Generator,
    on_step: OnStep | None = None,
    latent: int = 32,
    width: int = 128,
    batch: int = 128,
    learning_rate: float = 1e-2,
    weight_decay: float = 0.0,
) -> VAE:
    """Train a VAE by maximising the bound; its weights are averaged.

    Parameters
    ----------
    data : Tensor or array, shape (N, …)
        Numbers in [-1, 1].
    steps : int
        Number of updates.
    generator : torch.Generator
        Source of the first weights, the batches and the latents.
    on_step : callable, optional
        ``on_step(step, loss)`` after each update, counted from 0; the loss is the negative bound in
        nats per number of the datum.
    latent, width : int
        As in `VAE`.
    batch : int
    learning_rate : float
        At its peak; it rises over the first 5 % of the steps and then falls to 0 as half a cosine.
    weight_decay : float

    Returns
    -------
    VAE

    Raises
    ------
    ValueError
        If data are empty, not finite or outside [-1, 1], or a setting lies outside its range.
    FloatingPointError
        If the loss is not finite.
    """
    rows, shape = validation.training_data(data)
    validation.settings(steps=steps, batch=batch)
    model = VAE(shape, latent=latent, width=width, generator=generator)

    def loss() -> Tensor:
        x = model.shaped(draw_batch(rows, batch, generator))
        return -model.elbo(x, generator).mean() / model.size

    descend(
        model.parameters(),
        loss,
        steps=steps,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        on_step=on_step,
    )
    return model.finished()
