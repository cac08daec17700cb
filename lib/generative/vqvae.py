"""Autoencoder with a discrete latent, and an autoregressive prior over its codes.

VQ-VAE of van den Oord et al. (1711.00937). The encoder gives M vectors; each is replaced by the
nearest of K trained ones, and the decoder sees only those:

    L = mean (x - decoder(e))² + mean (sg z - e)² + commitment · mean (z - sg e)²,

where sg stops the gradient, and the decoder's gradient passes e as if it were z. Then `MADE` learns
p(c) of the codes. Left out: convolutions, for an 8 × 8 image is one patch; and averages in place of
a loss for the codebook.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib import _checks as check
from lib.generative import _validation as validation
from lib.generative._model import GenerativeModel
from lib.generative._training import MLP, OnStep, descend, draw_batch
from lib.generative.autoregressive import MADE

__all__ = ["VQVAE", "nearest_code", "straight_through", "train_vqvae"]

PRIOR_SHARE = 0.5  # of the steps of a training


def nearest_code(z: Tensor, codebook: Tensor) -> Tensor:
    """Number of the codebook's vector closest to each z: (…, L), (K, L) -> (…,)."""
    # ‖z - e‖² without ‖z‖², which is the same for every e
    return (codebook.square().sum(1) - 2.0 * z @ codebook.T).argmin(-1)


def straight_through(z: Tensor, e: Tensor) -> Tensor:
    """The value of e with the gradient of z."""
    return z + (e - z).detach()


class VQVAE(GenerativeModel):
    """Encoder x -> M codes out of K, decoder codes -> x, and a prior over codes.

    Parameters
    ----------
    shape : tuple of int
        Shape of one datum.
    positions : int
        M.
    codes : int
        K.
    code_size : int
        Length L of the codebook's vectors.
    width : int
        Hidden units in each of the two layers of encoder and decoder, and of the prior.
    dropout : float in [0, 1)
        Of the prior, as in `MADE`.
    generator : torch.Generator
        Of the first weights.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        positions: int,
        codes: int,
        code_size: int,
        width: int,
        dropout: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__(shape)
        validation.settings(positions=positions, code_size=code_size, width=width)
        validation.settings(2, codes=codes)
        check.generator(generator)
        self.positions, self.codes, self.code_size = positions, codes, code_size
        self.encoder = MLP(self.size, width, positions * code_size, generator)
        self.decoder = MLP(positions * code_size, width, self.size, generator)
        self.codebook = nn.Parameter(torch.randn(codes, code_size, generator=generator))
        self.prior = MADE(positions, codes, width=width, dropout=dropout, generator=generator)

    def encode(self, x: Any) -> Tensor:
        """Codes (N, M) of data ``(N, *shape)``."""
        return nearest_code(self._vectors(self.rows(x)), self.codebook)

    def decode(self, codes: Tensor) -> Tensor:
        """Data ``(N, *shape)`` of codes (N, M)."""
        codes = validation.symbols(codes, "codes", self.positions, self.codes)
        return self.shaped(self._decode(self.codebook[codes]))

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n sequences of codes from the prior and decode them: shape ``(n, *shape)``."""
        return self.decode(self.prior.sample(n, generator))

    def loss(self, rows: Tensor, commitment: float) -> Tensor:
        """Squared error per pixel, plus what draws codebook and encoder to each other.

        Parameters
        ----------
        rows : Tensor, shape (N, D)
        commitment : float
        """
        z = self._vectors(rows)  # (N, M, L)
        e = self.codebook[nearest_code(z.detach(), self.codebook.detach())]
        error = F.mse_loss(self._decode(straight_through(z, e)), rows)
        return error + F.mse_loss(e, z.detach()) + commitment * F.mse_loss(z, e.detach())

    def _vectors(self, rows: Tensor) -> Tensor:
        return self.encoder(rows).unflatten(1, (self.positions, self.code_size))

    def _decode(self, e: Tensor) -> Tensor:
        return self.decoder(e.flatten(1)).tanh()


def train_vqvae(
    data: Any,
    *,
    steps: int = 2500,
    generator: torch.Generator,
    on_step: OnStep | None = None,
    positions: int = 6,
    codes: int = 64,
    code_size: int = 8,
    width: int = 256,
    dropout: float = 0.5,
    commitment: float = 0.25,
    batch: int = 128,
    learning_rate: float = 2e-3,
    weight_decay: float = 1e-2,
) -> VQVAE:
    """Train the autoencoder for half of the steps, then the prior over its codes for the rest.

    Parameters
    ----------
    data : Tensor or array, shape (N, …)
        Numbers in [-1, 1].
    steps : int
        Number of updates, at least 2; the prior gets half of them, rounded down.
    generator : torch.Generator
        Source of the first weights, the batches and the dropout.
    on_step : callable, optional
        ``on_step(step, loss)`` after each update, counted from 0 through both halves; the loss is
        the autoencoder's, then the prior's nats per code.
    positions, codes, code_size, width, dropout
        As in `VQVAE`.
    commitment : float
        Weight of the term that draws the encoder to the codebook.
    batch : int
    learning_rate : float
        At its peak, in each half; it rises over the first 5 % and then falls to 0 as half a cosine.
    weight_decay : float

    Returns
    -------
    VQVAE

    Raises
    ------
    ValueError
        If data are empty, not finite or outside [-1, 1], or a setting lies outside its range.
    FloatingPointError
        If the loss is not finite.
    """
    rows, shape = validation.training_data(data)
    validation.settings(2, steps=steps)
    validation.settings(batch=batch)
    commitment = check.number(commitment, "commitment", 0.0)
    model = VQVAE(
        shape,
        positions=positions,
        codes=codes,
        code_size=code_size,
        width=width,
        dropout=dropout,
        generator=generator,
    )
    rates = {"learning_rate": learning_rate, "weight_decay": weight_decay}
    prior_steps = int(PRIOR_SHARE * steps)
    first = steps - prior_steps
    autoencoder = [*model.encoder.parameters(), *model.decoder.parameters(), model.codebook]
    descend(
        autoencoder,
        lambda: model.loss(draw_batch(rows, batch, generator), commitment),
        steps=first,
        on_step=on_step,
        **rates,
    )
    with torch.no_grad():
        codes_of_data = model.encode(model.shaped(rows))
    model.prior.start_from(codes_of_data)
    descend(
        model.prior.parameters(),
        lambda: model.prior.loss(draw_batch(codes_of_data, batch, generator), generator),
        steps=prior_steps,
        on_step=None if on_step is None else lambda step, loss: on_step(first + step, loss),
        **rates,
    )
    return model.finished()
