"""Langevin sampling: samples of a density of which only the score ∇ log p is known.

x <- x + h ∇ log p(x) + √(2h) ε. Unadjusted: no step is refused, so for a step size h the samples
follow a density near p, and p itself only as h -> 0. For N(0, s²) the one they follow has variance
s²/(1 - h/(2 s²)). Left out: the Metropolis correction, momentum.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from lib import _checks as check
from lib.generative import _validation as validation

__all__ = ["annealed_langevin", "langevin"]


@torch.no_grad()
def langevin(
    score: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    step_size: float,
    steps: int,
    generator: torch.Generator,
    on_step: Callable[[int, Tensor], object] | None = None,
) -> Tensor:
    """Walk along the score with noise: x <- x + h score(x) + √(2h) ε.

    Parameters
    ----------
    score : callable
        ``score(x) -> ∇ log p(x)``, of x's shape.
    x : Tensor, shape (batch, …)
        Where the walkers start; left as it is.
    step_size : float
        h; with p = N(0, s²) the walk runs away from h = 2 s² on.
    steps : int
    generator : torch.Generator
        Source of the noise ε.
    on_step : callable, optional
        ``on_step(step, x)`` after each step, counted from 0.

    Returns
    -------
    Tensor, shape (batch, …)

    Raises
    ------
    ValueError
        If x is not finite or the score has another shape or dtype than x.
    FloatingPointError
        If the walk runs away to infinity.

    References
    ----------
    Roberts and Tweedie 1996, "Exponential convergence of Langevin distributions and their discrete
    approximations".
    """
    check.state(x, "x")
    validation.positive(step_size=step_size)
    steps, generator = check.whole(steps, "steps", 1), check.generator(generator)
    for step in range(steps):
        slope = check.like(score(x), x, "score(x)", "x")
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype, device=generator.device)
        x = x + step_size * slope + math.sqrt(2.0 * step_size) * noise.to(x.device)
        if not check.all_finite(x):
            raise FloatingPointError(
                f"x is not finite after step {step}; `step_size` {step_size:g} may be too large"
            )
        if on_step is not None:
            on_step(step, x)
    return x


def annealed_langevin(
    score_at: Callable[[Tensor, float], Tensor],
    x: Tensor,
    sigmas: ArrayLike,
    *,
    steps_per_level: int,
    step_size: float,
    generator: torch.Generator,
) -> Tensor:
    """Langevin on data with less and less noise, each level starting where the last one ended.

    At noise of deviation σ the step size is `step_size` · (σ/σ_last)², so that the noise
    of a step is the same multiple of σ at all levels.

    Parameters
    ----------
    score_at : callable
        ``score_at(x, σ)``: the score of the data with normal noise of deviation σ.
    x : Tensor, shape (batch, …)
        Where the walkers start; left as it is.
    sigmas : array_like, shape (levels,)
        Deviations, positive and falling.
    steps_per_level : int
    step_size : float
        At the last level: half of the paper's ε.
    generator : torch.Generator

    Returns
    -------
    Tensor, shape (batch, …)

    References
    ----------
    Song and Ermon 1907.05600, algorithm 1.
    """
    levels = check.vector(sigmas, "sigmas")
    if levels[-1] <= 0.0 or (np.diff(levels) >= 0.0).any():
        raise ValueError(f"`sigmas` must be positive and fall, got {levels.tolist()}")
    steps_per_level = check.whole(steps_per_level, "steps_per_level", 1)
    validation.positive(step_size=step_size)
    for sigma in levels.tolist():
        x = langevin(
            lambda y, sigma=sigma: score_at(y, sigma),
            x,
            step_size=step_size * (sigma / levels[-1]) ** 2,
            steps=steps_per_level,
            generator=generator,
        )
    return x
