"""What small networks of the book share: seeded layers, one learning rate, averaged weights.

Every random number comes from the generator that the caller hands in; torch's own layers would draw
their first weights from the global one. Nothing here checks its arguments: that is for the public
functions above it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

__all__ = ["WARMUP", "MovingAverage", "conv", "draw", "linear", "one_cycle"]

WARMUP = 0.05  # share of the steps in which the learning rate rises


def linear(inputs: int, outputs: int, generator: torch.Generator, gain: float = 1.0) -> nn.Linear:
    """Normal weights of deviation gain / √inputs, no bias at first; no global seed is used."""
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
    draw(layer, gain / math.sqrt(inputs), generator)
    return layer


def conv(
    inputs: int, outputs: int, generator: torch.Generator, gain: float = 1.0, size: int = 3
) -> nn.Conv2d:
    """The same for a convolution that keeps the image's size."""
    layer = nn.utils.skip_init(nn.Conv2d, inputs, outputs, size, padding=size // 2)
    draw(layer, gain / math.sqrt(inputs * size**2), generator)
    return layer


def draw(layer: nn.Linear | nn.Conv2d, deviation: float, generator: torch.Generator) -> None:
    """First weights of a layer: normal with that deviation, and no bias."""
    nn.init.normal_(layer.weight, 0.0, deviation, generator=generator)
    nn.init.zeros_(layer.bias)


def one_cycle(step: int, steps: int) -> float:
    """Share of the peak learning rate: a linear rise, then half a cosine down to 0."""
    rise = max(1, round(WARMUP * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1.0 + math.cos(math.pi * (step - rise + 1) / (steps - rise + 1)))


class MovingAverage:
    """Exponential moving average of parameters p: w <- decay w + (1 - decay) p.

    Early on the decay is (1 + k)/(10 + k) after k updates, where that is smaller, so that the first
    weights are forgotten.

    Attributes
    ----------
    values : list of Tensor
        The averages w, in the order of the parameters.
    """

    def __init__(self, parameters: Iterable[Tensor], decay: float) -> None:
        self.parameters = list(parameters)
        self.decay = decay
        self.updates = 0
        self.values = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the parameters as they are now."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self.values, self.parameters, 1.0 - decay)
        self.updates += 1

    @torch.no_grad()
    def install(self) -> None:
        """Put the averages in the parameters' place."""
        for p, value in zip(self.parameters, self.values, strict=True):
            p.copy_(value)
