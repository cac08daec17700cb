"""Train several seeds of one small network side by side.

Every parameter carries a leading axis of seeds, shape (S, …), and the network multiplies along
it with batched matrix products.  One pass through the program then trains all seeds, which for
small networks costs little more than one.  The seeds do not touch: the sum of their losses has
one term per seed, Adam works on each number alone, and every seed owns its two generators (one
for its parameters, one for its data), so a seed trained in company equals the same seed trained
alone up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Parameters", "data_generators", "draw_parameters", "fit", "one_cycle", "take"]

Parameters = dict[str, Tensor]


def draw_parameters(
    draw: Callable[[torch.Generator], Parameters], seeds: Sequence[int]
) -> Parameters:
    """Stack one initialisation per seed: each tensor of `draw` gains a first axis of seeds."""
    drawn = [draw(torch.Generator().manual_seed(seed)) for seed in seeds]
    return {name: torch.stack([one[name] for one in drawn]) for name in drawn[0]}


def data_generators(seeds: Sequence[int], purpose: int) -> list[np.random.Generator]:
    """One generator per seed; different `purpose` numbers give unrelated streams."""
    return [np.random.default_rng([purpose, seed]) for seed in seeds]


def take(table: Tensor, rows: Tensor) -> Tensor:
    """Rows of each seed's own table.

    Parameters
    ----------
    table : Tensor, shape (S, V, d)
    rows : Tensor of int64, shape (S, …)

    Returns
    -------
    Tensor, shape (S, …, d)
    """
    width = table.shape[-1]
    flat = rows.reshape(rows.shape[0], -1, 1).expand(-1, -1, width)  # (S, N, d)
    return table.gather(1, flat).reshape(*rows.shape, width)


def one_cycle(step: int, steps: int, warmup: float = 0.15) -> float:
    """Share of the peak learning rate at `step`: a linear rise, then half a cosine down to 0."""
    rise = max(1, round(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1.0 + math.cos(math.pi * (step - rise + 1) / (steps - rise + 1)))


def fit(
    parameters: Parameters,
    losses: Callable[[], Tensor],
    *,
    steps: int,
    learning_rate: float,
    clip: float = math.inf,
    on_step: Callable[[int, NDArray[np.float64]], None] | None = None,
) -> NDArray[np.float64]:
    """Minimise the loss of every seed by Adam under a `one_cycle` schedule, in place.

    Parameters
    ----------
    parameters : dict of Tensor, each of shape (S, …)
        Changed in place; without gradients before and after.
    losses : callable
        Draws the next batch and returns the loss of every seed, shape (S,).
    steps : int
    learning_rate : float
        At the peak of the schedule.
    clip : float, optional
        Greatest norm of each seed's gradient; a longer one is scaled down to it.
    on_step : callable, optional
        Called after each step with its number (from 0) and the losses, shape (S,).

    Returns
    -------
    ndarray, shape (S, steps)
        Loss of each seed before each step.

    Raises
    ------
    FloatingPointError
        If a loss is not finite.
    """
    try:
        return _descend(parameters, losses, steps, learning_rate, clip, on_step)
    finally:
        for p in parameters.values():
            p.requires_grad_(False)
            p.grad = None


def _descend(
    parameters: Parameters,
    losses: Callable[[], Tensor],
    steps: int,
    learning_rate: float,
    clip: float,
    on_step: Callable[[int, NDArray[np.float64]], None] | None,
) -> NDArray[np.float64]:
    adam = torch.optim.Adam([p.requires_grad_() for p in parameters.values()], betas=(0.9, 0.99))
    history = []
    for step in range(steps):
        adam.param_groups[0]["lr"] = learning_rate * one_cycle(step, steps)
        loss = losses()  # (S,)
        adam.zero_grad()
        loss.sum().backward()  # one term per seed: no seed's gradient sees another
        if clip < math.inf:
            _clip([p.grad for p in parameters.values() if p.grad is not None], clip)
        adam.step()
        history.append(loss.detach().double().numpy())
        if not np.isfinite(history[-1]).all():
            raise FloatingPointError(
                f"the loss is not finite at step {step}: {history[-1]}; "
                f"`learning_rate` {learning_rate} may be too large"
            )
        if on_step is not None:
            on_step(step, history[-1])
    return np.stack(history, axis=1)


def _clip(gradients: Sequence[Tensor], longest: float) -> None:
    """Scale each seed's gradient, over all parameters, to a norm of at most `longest`, in place."""
    norm = torch.stack([g.flatten(1).norm(dim=1) for g in gradients]).norm(dim=0)  # (S,)
    factor = longest / norm.clamp(min=longest)
    for g in gradients:
        g *= factor.view(-1, *(1,) * (g.ndim - 1))
