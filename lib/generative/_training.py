"""What the trainings share: a multilayer perceptron, batches, and descent with averaged weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib import _checks as check
from lib.generative import _validation as validation
from lib.neural import MovingAverage, linear, one_cycle

OnStep = Callable[[int, float], object]


class MLP(nn.Module):
    """Two hidden layers with SiLU between affine maps: (…, inputs) -> (…, outputs).

    `last` scales the first weights of the last map: 0 makes the outputs 0 at first.
    """

    def __init__(
        self, inputs: int, width: int, outputs: int, generator: torch.Generator, last: float = 1.0
    ) -> None:
        super().__init__()
        self.enter = linear(inputs, width, generator, math.sqrt(2.0))
        self.inner = linear(width, width, generator, math.sqrt(2.0))
        self.leave = linear(width, outputs, generator, last)

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(F.silu(self.inner(F.silu(self.enter(x)))))


def draw_batch(data: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """`size` rows of the data, drawn with replacement: (N, D) -> (size, D)."""
    return data[torch.randint(len(data), (size,), generator=generator)]


def descend(
    parameters: Iterable[nn.Parameter],
    loss: Callable[[], Tensor],
    *,
    steps: int,
    learning_rate: float,
    weight_decay: float,
    average: float = 0.99,
    on_step: OnStep | None = None,
) -> None:
    """Minimise by AdamW under `one_cycle`, and leave the averaged weights in the parameters.

    Parameters
    ----------
    parameters : iterable of Parameter
    loss : callable
        Draws the next batch and returns the loss, one number.
    steps : int
    learning_rate : float
        At its peak.
    weight_decay : float
    average : float in [0, 1)
        Decay of the moving average of the weights.
    on_step : callable, optional
        ``on_step(step, loss)`` after each update, counted from 0.

    Raises
    ------
    ValueError
        If a rate lies outside its range.
    FloatingPointError
        If the loss is not finite.
    """
    validation.positive(learning_rate=learning_rate)
    check.number(weight_decay, "weight_decay", 0.0)
    parameters = list(parameters)
    adam = torch.optim.AdamW(
        parameters, lr=learning_rate, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True
    )
    averages = MovingAverage(parameters, average)
    for step in range(steps):
        adam.param_groups[0]["lr"] = learning_rate * one_cycle(step, steps)
        value = loss()
        number = finite(value, step)
        adam.zero_grad()
        value.backward()
        adam.step()
        averages.update()
        if on_step is not None:
            on_step(step, number)
    averages.install()


def finite(loss: Tensor, step: int) -> float:
    """The loss as a number; one that is NaN or infinite stops the training."""
    number = loss.item()
    if not math.isfinite(number):
        raise FloatingPointError(
            f"the loss is {number} at step {step}; `learning_rate` may be too large"
        )
    return number
