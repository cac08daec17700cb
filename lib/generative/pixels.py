"""Autoregression pixel by pixel: p(x) = Π_i p(x_i | x_0 … x_{i-1}), row after row.

The idea of PixelRNN (van den Oord et al., 1601.06759) with MADE for a network. Pixels are symbols:
the digits' own 17 levels of ink. Nothing is approximated in log p(x); sampling costs a pass for
each pixel. Left out: convolutions, colours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lib import _checks as check
from lib.generative import _validation as validation
from lib.generative._model import GenerativeModel
from lib.generative._training import OnStep, descend, draw_batch
from lib.generative.autoregressive import MADE

__all__ = ["PixelModel", "train_pixels"]

OnPixel = Callable[[int, Tensor], object]


class PixelModel(GenerativeModel):
    """MADE over the numbers of a datum, each at one of `levels` values from -1 to 1.

    Parameters
    ----------
    shape : tuple of int
        Shape of one datum.
    levels : int
        Values that a number can take, equally spaced.
    width, blocks, dropout, generator
        As in `MADE`.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        levels: int = 17,
        width: int,
        blocks: int = 1,
        dropout: float = 0.0,
        generator: torch.Generator,
    ) -> None:
        super().__init__(shape)
        self.levels = check.whole(levels, "levels", 2)
        self.network = MADE(
            self.size,
            levels,
            width=width,
            blocks=blocks,
            ordered=True,
            dropout=dropout,
            generator=generator,
        )

    def quantise(self, rows: Tensor) -> Tensor:
        """Nearest levels 0 … levels - 1 of numbers in [-1, 1]."""
        return ((rows + 1.0) * (0.5 * (self.levels - 1))).round().long()

    def value(self, codes: Tensor) -> Tensor:
        """Numbers in [-1, 1] of levels: the inverse of `quantise`."""
        return (codes / (0.5 * (self.levels - 1)) - 1.0).to(self.dtype)

    def log_probability(self, x: Any) -> Tensor:
        """Exact log p in nats of the levels nearest to x.

        Parameters
        ----------
        x : array_like in [-1, 1], shape (N, *shape)

        Returns
        -------
        Tensor, shape (N,)
        """
        rows = self.rows(x)
        check.within(rows, "x", -1.0, 1.0)
        return self.network.log_probability(self.quantise(rows))

    @torch.no_grad()
    def sample(
        self, n: int, generator: torch.Generator, *, on_pixel: OnPixel | None = None
    ) -> Tensor:
        """Draw n data, shape ``(n, *shape)``, by one pass of the network for each pixel.

        Parameters
        ----------
        n : int
        generator : torch.Generator
        on_pixel : callable, optional
            ``on_pixel(i, images)`` after pixel i, counted from 0 row after row; pixels that are
            still to come are -1.
        """
        shown = None
        if on_pixel is not None:

            def shown(i: int, codes: Tensor) -> None:
                on_pixel(i, self.shaped(self.value(codes)))

        return self.shaped(self.value(self.network.sample(n, generator, shown)))


def train_pixels(
    data: Any,
    *,
    steps: int = 1500,
    generator: torch.Generator,
    on_step: OnStep | None = None,
    levels: int = 17,
    width: int = 256,
    blocks: int = 1,
    dropout: float = 0.3,
    batch: int = 64,
    learning_rate: float = 3e-3,
    weight_decay: float = 1e-2,
) -> PixelModel:
    """Train a pixel model by maximum likelihood; its weights are averaged.

    Parameters
    ----------
    data : Tensor or array, shape (N, …)
        Numbers in [-1, 1], rounded to the nearest level.
    steps : int
        Number of updates.
    generator : torch.Generator
        Source of the first weights, the batches and the dropout.
    on_step : callable, optional
        ``on_step(step, loss)`` after each update, counted from 0; the loss is in nats per pixel.
    levels, width, blocks, dropout
        As in `PixelModel`.
    batch : int
    learning_rate : float
        At its peak; it rises over the first 5 % of the steps and then falls to 0 as half a cosine.
    weight_decay : float

    Returns
    -------
    PixelModel

    Raises
    ------
    ValueError
        If data are empty, not finite or outside [-1, 1], or a setting lies outside its range.
    FloatingPointError
        If the loss is not finite.
    """
    rows, shape = validation.training_data(data)
    validation.settings(steps=steps, batch=batch)
    model = PixelModel(
        shape,
        levels=levels,
        width=width,
        blocks=blocks,
        dropout=dropout,
        generator=generator,
    )
    codes = model.quantise(rows)
    model.network.start_from(codes)
    descend(
        model.parameters(),
        lambda: model.network.loss(draw_batch(codes, batch, generator), generator),
        steps=steps,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        on_step=on_step,
    )
    return model.finished()
