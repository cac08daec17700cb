"""What a noise predictor learns from: the loss in two forms, and training with averaged weights.

Notation of https://kexue.fm/archives/9119. Both losses draw t uniformly from 1 … T and average the
squared error over the batch *and over the numbers of a datum*: predicting 0 scores 1 in any
dimension d, and the article's ‖·‖² is d times as much. `model` is the papers' ε_θ(x, t); the
article's own, before its last rescaling, is β_t/β̄_t times that.
The weights β_t²/β̄_t² with which the article's derivation ends are left out, as everywhere since Ho
et al. (2006.11239): the "simple" loss. Also left out: learned variances, conditions.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lib.diffusion import _tensors as tensors
from lib.diffusion import _validation as check
from lib.diffusion._tensors import Model
from lib.diffusion.schedule import Schedule
from lib.neural import MovingAverage, one_cycle

__all__ = ["Trained", "ddpm_loss", "ddpm_loss_four_variables", "train", "train_seeds"]

Loss = Callable[[Model, Tensor, Schedule, torch.Generator], Tensor]


@dataclass(frozen=True, eq=False)
class Trained:
    """What a training gives.

    Attributes
    ----------
    model : Module
        A copy of the network with averaged weights, in evaluation mode: the one to sample from.
    losses : ndarray, shape (steps,)
        Loss of each batch before its step; scattered, for t is.
    """

    model: nn.Module
    losses: NDArray[np.float64]


def ddpm_loss(
    model: Model,
    x0: Tensor,
    schedule: Schedule,
    generator: torch.Generator,
    *,
    t: Tensor | int | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The merged loss: mean of (ε - ε_θ(ᾱ_t x_0 + β̄_t ε, t))², over t and one noise ε.

    Parameters
    ----------
    model : callable
        ``model(x, t) -> ε``, with t of shape (batch,) and dtype int64.
    x0 : Tensor of shape (batch, …)
        Data.
    schedule : Schedule
    generator : torch.Generator
        Source of t, unless given, and then of ε.
    t : Tensor of int, shape (batch,), or int, optional
        Times of the schedule to take the loss at, in place of random ones.
    reduction : {"mean", "none"}
        One number, or one for each datum: shape (batch,).

    Returns
    -------
    Tensor

    Raises
    ------
    ValueError
        If x0 is not finite, t is no time of the schedule, or the model's answer has another shape
        or dtype than x0.

    References
    ----------
    Ho et al. 2006.11239, equation 14; https://kexue.fm/archives/9119.
    """
    x0, k = _start(x0, schedule, generator, t, reduction)
    eps = tensors.normal_like(x0, generator)
    x = _column(schedule.alpha_bar, k, x0) * x0 + _column(schedule.beta_bar, k, x0) * eps
    return _squared_error(model, x, k, schedule, eps, reduction)


def ddpm_loss_four_variables(
    model: Model,
    x0: Tensor,
    schedule: Schedule,
    generator: torch.Generator,
    *,
    t: Tensor | int | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The loss before its two noises are merged: x_0, t, ε̄_{t-1} and ε_t are all drawn.

    Mean of (β̄_t/β_t ε_t - ε_θ(x_t, t))² with x_t = ᾱ_t x_0 + α_t β̄_{t-1} ε̄_{t-1} + β_t ε_t: the
    article's ‖ε_t - β_t/β̄_t ε_θ‖², divided by the weight (β_t/β̄_t)² that `ddpm_loss` leaves out
    as well.

    Notes
    -----
    Its expectation at a time t is that of `ddpm_loss` plus (α_t β̄_{t-1}/β_t)², which no parameter
    enters: β̄_t/β_t ε_t = ε - (α_t β̄_{t-1}/β_t) ω, with ω standard normal and independent of ε and
    x_t. So the gradients agree on average; but what ω adds to their variance is large, since
    α_t β̄_{t-1}/β_t is about 7 at t = T = 1000.

    Parameters
    ----------
    model, x0, schedule, t, reduction
        As in :func:`ddpm_loss`.
    generator : torch.Generator
        Source of t, unless given, then of ε̄_{t-1} and of ε_t.

    Returns
    -------
    Tensor
    """
    x0, k = _start(x0, schedule, generator, t, reduction)
    before, last = (tensors.normal_like(x0, generator) for _ in range(2))
    old = schedule.alpha * np.concatenate([[0.0], schedule.beta_bar[:-1]])  # α_t β̄_{t-1}
    x = (
        _column(schedule.alpha_bar, k, x0) * x0
        + _column(old, k, x0) * before
        + _column(schedule.beta, k, x0) * last
    )
    ratio = np.ones(schedule.T + 1)
    ratio[1:] = schedule.beta_bar[1:] / schedule.beta[1:]
    return _squared_error(model, x, k, schedule, _column(ratio, k, x0) * last, reduction)


def train(
    model: nn.Module,
    data: Any,
    schedule: Schedule,
    *,
    steps: int,
    generator: torch.Generator,
    batch: int = 128,
    learning_rate: float = 4e-3,
    weight_decay: float = 1e-2,
    ema: float = 0.995,
    loss: Loss = ddpm_loss,
    on_step: Callable[[int, float], object] | None = None,
) -> Trained:
    """Train a noise predictor: AdamW, warm-up and cosine, moving average of the weights.

    Parameters
    ----------
    model : Module
        ``model(x, t) -> ε``, such as a `NoiseMLP` or `UNet`. Trained in place; its own weights end
        where the last step leaves them.
    data : Tensor or array, shape (N, …)
        About mean 0 and variance 1; images in [-1, 1] do. Takes the model's dtype and device.
    schedule : Schedule
    steps : int
        Number of updates.
    generator : torch.Generator
        Source of batches (drawn with replacement), times and noises.
    batch : int
    learning_rate : float
        At its peak; it rises over the first 5 % of the steps and then falls to 0 as half a cosine.
    weight_decay : float
    ema : float in [0, 1)
        Decay of the moving average of the weights; 0 keeps the last ones. Early on the decay is
        (1 + k)/(10 + k) after k updates, where that is smaller, so that the first weights are
        forgotten.
    loss : callable
        ``loss(model, x0, schedule, generator)``, default `ddpm_loss`.
    on_step : callable, optional
        ``on_step(step, loss)`` after each update, counted from 0.

    Returns
    -------
    Trained

    Raises
    ------
    ValueError
        If data are empty or not finite, or a setting lies outside its range.
    FloatingPointError
        If the loss is not finite.
    """
    parameters = _trainable(model)
    x = _data(data, parameters[0])
    tensors.generator(generator)
    steps, batch = check.whole(steps, "steps", 1), check.whole(batch, "batch", 1)
    learning_rate = check.positive(learning_rate, "learning_rate")
    weight_decay = check.number(weight_decay, "weight_decay", 0.0)
    ema = check.number(ema, "ema", 0.0, 1.0)
    if ema == 1.0:
        raise ValueError("`ema` must be less than 1, which would keep the first weights for ever")

    model.train()
    adam = torch.optim.AdamW(
        parameters, lr=learning_rate, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True
    )
    average = MovingAverage(parameters, ema)
    losses = np.empty(steps)
    for step in range(steps):
        adam.param_groups[0]["lr"] = learning_rate * one_cycle(step, steps)
        chosen = torch.randint(len(x), (batch,), generator=generator, device=generator.device)
        value = loss(model, x[chosen.to(x.device)], schedule, generator)
        losses[step] = value.item()
        if not math.isfinite(losses[step]):
            raise FloatingPointError(
                f"the loss is {losses[step]} at step {step}; "
                f"`learning_rate` {learning_rate:g} may be too large"
            )
        adam.zero_grad()
        value.backward()
        adam.step()
        average.update()
        if on_step is not None:
            on_step(step, float(losses[step]))
    return Trained(_averaged(model, average.values), losses)


def train_seeds(
    build: Callable[[torch.Generator], nn.Module],
    data: Any,
    schedule: Schedule,
    seeds: Sequence[int],
    *,
    on_step: Callable[[int, int, float], object] | None = None,
    **settings: Any,
) -> tuple[Trained, ...]:
    """The same training from several seeds, one after another.

    Each seed owns one generator, for its first weights and then for its training, so its result
    does not depend on which other seeds are trained. They are *not* trained side by side: at these
    widths the matrix products fill the time, and stacking seeds into batched products (or vmap)
    saved nothing when it was measured.

    Parameters
    ----------
    build : callable
        ``build(generator) -> model``, e.g. ``lambda g: NoiseMLP(64, generator=g)``.
    data, schedule
        As in :func:`train`.
    seeds : sequence of int
    on_step : callable, optional
        ``on_step(seed, step, loss)`` after each update.
    **settings
        ``steps`` and the other settings of :func:`train`.

    Returns
    -------
    tuple of Trained
        In the order of the seeds.
    """
    seeds = [check.whole(seed, "seeds", 0) for seed in seeds]
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"`seeds` must be different numbers, at least one, got {seeds}")
    results = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        report = None if on_step is None else _with_seed(on_step, seed)
        results.append(
            train(build(generator), data, schedule, generator=generator, on_step=report, **settings)
        )
    return tuple(results)


# --- parts ---------------------------------------------------------------------------------------


def _start(
    x0: Tensor,
    schedule: Schedule,
    generator: torch.Generator,
    t: Tensor | int | None,
    reduction: str,
) -> tuple[Tensor, NDArray[np.int64]]:
    """Checked data, and where in the schedule's arrays each datum's time stands."""
    tensors.state(x0, "x0")
    tensors.generator(generator)
    if not isinstance(schedule, Schedule):
        raise TypeError(f"`schedule` must be a Schedule, got {type(schedule).__name__}")
    check.choice(reduction, "reduction", ("mean", "none"))
    size = (len(x0),)
    if t is None:
        drawn = torch.randint(1, schedule.T + 1, size, generator=generator, device=generator.device)
        return x0, drawn.cpu().numpy()
    times = check.reals(t, "t")
    if times.shape not in ((), size):
        raise ValueError(
            f"`t` must be a number or have the batch's shape {size}, got {times.shape}"
        )
    bad = ~np.isin(times, schedule.times[1:])
    if bad.any():
        raise ValueError(
            f"`t` must be times of the schedule, 1 to {schedule.times[-1]}, got {times[bad][0]:g}"
        )
    return x0, np.searchsorted(schedule.times, np.broadcast_to(times, size))


def _column(values: NDArray[np.float64], k: NDArray[np.int64], x: Tensor) -> Tensor:
    """values[k] in the dtype of x, shaped (batch, 1, …) to broadcast against it."""
    column = torch.from_numpy(values[k]).to(x.device, x.dtype)
    return column.view(-1, *[1] * (x.ndim - 1))


def _squared_error(
    model: Model,
    x: Tensor,
    k: NDArray[np.int64],
    schedule: Schedule,
    target: Tensor,
    reduction: str,
) -> Tensor:
    answer = model(x, torch.from_numpy(schedule.times[k]).to(x.device))
    tensors.like(answer, x, "model(x, t)", "x")
    squared = (answer - target).square()
    return squared.mean() if reduction == "mean" else squared.flatten(1).mean(1)


def _trainable(model: nn.Module) -> list[nn.Parameter]:
    if not isinstance(model, nn.Module):
        raise TypeError(f"`model` must be a torch.nn.Module, got {type(model).__name__}")
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("`model` must have parameters to train, got none")
    return parameters


def _data(data: Any, like: Tensor) -> Tensor:
    if not isinstance(data, Tensor):
        data = torch.from_numpy(check.reals(data, "data"))
    if not data.is_floating_point() or data.ndim < 2 or data.numel() == 0:
        raise ValueError(
            f"`data` must be floating-point numbers of shape (N, …), got {data.dtype} "
            f"of shape {tuple(data.shape)}"
        )
    return tensors.state(data.detach().to(like.device, like.dtype), "data")


def _averaged(model: nn.Module, average: Sequence[Tensor]) -> nn.Module:
    """A copy of the model with these weights for its trainable ones, in evaluation mode."""
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for p, value in zip(_trainable(twin), average, strict=True):
            p.copy_(value)
            p.grad = None
    return twin.eval().requires_grad_(False)


def _with_seed(
    on_step: Callable[[int, int, float], object], seed: int
) -> Callable[[int, float], object]:
    return lambda step, loss: on_step(seed, step, loss)
