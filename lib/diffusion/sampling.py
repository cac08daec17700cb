"""Adding noise, and taking it away: DDPM, the family of DDIM, inversion, interpolation.

Notation of https://kexue.fm/archives/9119 and 9181 (see `schedule`). A model is a function
``model(x, t) -> ε``: x of shape (batch, …), t of shape (batch,) with times 1 … T of the training,
ε of x's shape, the merged noise of x_t = ᾱ_t x_0 + β̄_t ε as in Ho et al. (2006.11239). The ε_θ of
article 9119 *before* its last rescaling predicts β_t/β̄_t times that (`article_noise`).
Left out: clipping of x̂_0, guidance, models that predict x_0 or v.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from lib.diffusion import _tensors as tensors
from lib.diffusion import _validation as check
from lib.diffusion._tensors import Model, OnStep
from lib.diffusion._validation import Floats
from lib.diffusion.schedule import Schedule, Spacing

Variance = Literal["beta", "posterior", "optimal-batch"]


def add_noise(x0: Tensor, t: Tensor | float, noise: Tensor, schedule: Schedule) -> Tensor:
    """x_t = ᾱ_t x_0 + β̄_t ε.

    Parameters
    ----------
    x0 : Tensor of shape (batch, …)
        Data.
    t : Tensor of shape (batch,), or a number
        Times in [0, T], whole or real; one number for the whole batch.
    noise : Tensor of shape (batch, …)
        ε, like x0 in shape, dtype and device.
    schedule : Schedule

    Returns
    -------
    Tensor of shape (batch, …)

    Raises
    ------
    ValueError
        If times lie outside [0, T], or shapes, dtypes or devices differ.
    """
    tensors.state(x0, "x0")
    tensors.like(noise, x0, "noise", "x0")
    signal, noisy = _bars(t, x0, schedule)
    return signal * x0 + noisy * noise


def _bars(t: Tensor | float, x: Tensor, schedule: Schedule) -> tuple[Tensor, Tensor]:
    """ᾱ_t and β̄_t in the dtype of x, shaped to broadcast against it."""
    if isinstance(t, Tensor) and t.shape not in ((), x.shape[:1]):
        raise ValueError(
            f"`t` must be a number or have the batch's shape {tuple(x.shape[:1])}, "
            f"got {tuple(t.shape)}"
        )
    elif not isinstance(t, Tensor):
        t = check.number(t, "t")
    bars = schedule.at(t)
    shape = (-1, *[1] * (x.ndim - 1)) if bars[0].ndim else ()
    signal, noisy = (torch.tensor(bar, dtype=x.dtype, device=x.device) for bar in bars)
    return signal.reshape(shape), noisy.reshape(shape)


def article_noise(eps: Tensor, t: int, schedule: Schedule) -> Tensor:
    """From a model's ε to the ε_θ of article 9119 before its last rescaling: times β_t/β̄_t.

    The article's sampler is x_{t-1} = (x_t - β_t ε_θ)/α_t + σ_t z with the result of this. On a
    subsequence, where β_t is another one, so is the result.
    """
    check.timesteps([t], "t", schedule.times)
    k = int(np.searchsorted(schedule.times, t))
    return eps * float(schedule.beta[k] / schedule.beta_bar[k])


# --- sampling ------------------------------------------------------------------------------------


def sample_ddpm(
    model: Model,
    x_T: Tensor,
    schedule: Schedule,
    *,
    variance: Variance | ArrayLike = "beta",
    generator: torch.Generator,
    steps: int | None = None,
    timesteps: ArrayLike | None = None,
    spacing: Spacing = "trailing",
    on_step: OnStep | None = None,
) -> Tensor:
    """Ancestral sampling of Ho et al., x_{t-1} = (x_t - β_t²/β̄_t ε)/α_t + σ_t z.

    The mean is the same for every σ_t. That is the difference from `sample_ddim`, where σ_t also
    enters the mean; only σ_t = β̄_{t-1}β_t/β̄_t ("posterior") belongs to both.

    Parameters
    ----------
    model : callable
        ``model(x, t) -> ε``; a network in evaluation mode. Asked without gradients.
    x_T : Tensor of shape (batch, …)
        Standard normal noise, or x at the largest of the times.
    schedule : Schedule
        That of the training.
    variance : {"beta", "posterior", "optimal-batch"} or array-like of shape (S + 1,)
        "beta": σ_t = β_t, optimal for standard normal data. "posterior": β̄_{t-1}β_t/β̄_t, optimal
        for a single point. The optimal one of Bao et al. (2201.06503) for given data,
        σ_t² = (β̄_{t-1}β_t/β̄_t)² + (β_t²/(α_tβ̄_t))² (1 - E|ε|²/d), lies between "posterior" and
        β_t/α_t. "optimal-batch" takes the mean over the batch being sampled, which costs nothing
        but ties its members together (have some hundred numbers in it); for independent samples
        hand in `optimal_sigma`. An array holds any σ_t, for t = 0 … S of the schedule walked (the
        subsequence, if there is one). The last step, to t = 0, never adds noise.
    generator : torch.Generator
        Source of z, one draw per step.
    steps, timesteps, spacing
        Sample on a subsequence: `steps` times spaced as `Schedule.timesteps` says, or these. All
        coefficients are derived anew from ᾱ on it. Default: every time of the schedule.
    on_step : callable, optional
        ``on_step(t, x, x0_hat)`` after each step: the time reached, the state there, and the x̂_0
        with which the step was made (computed only for this).

    Returns
    -------
    Tensor of shape (batch, …)

    Raises
    ------
    ValueError
        Also if the model returns another shape or dtype, NaN or an infinity; the time is named.

    References
    ----------
    https://kexue.fm/archives/9119; Ho et al. 2006.11239, algorithm 2.
    """
    tensors.state(x_T, "x_T")
    tensors.generator(generator)
    chain = _chain(schedule, steps, timesteps, spacing)
    spread = np.zeros(chain.T + 1)
    if not isinstance(variance, str):
        sigma = check.within(variance, "variance", 0.0, np.inf)
        check.vector(sigma, "variance", (chain.T + 1,))
    elif variance == "optimal-batch":
        sigma, spread = chain.ddpm_sigma("posterior"), _spread(chain)
    else:
        check.choice(variance, "variance", ("beta", "posterior", "optimal-batch"))
        sigma = chain.ddpm_sigma(variance)
    plan = _plan(chain, -_spread(chain), sigma, spread)
    return _walk(model, x_T, plan, generator, on_step)


def sample_ddim(
    model: Model,
    x_T: Tensor,
    schedule: Schedule,
    *,
    steps: int | None = None,
    timesteps: ArrayLike | None = None,
    spacing: Spacing = "trailing",
    eta: float = 0.0,
    sigma: Literal["beta"] | ArrayLike | None = None,
    generator: torch.Generator | None = None,
    on_step: OnStep | None = None,
) -> Tensor:
    """The family with one free σ_t: x_{t-1} = x_t/α_t - (β̄_t/α_t - √(β̄_{t-1}² - σ_t²)) ε + σ_t z.

    With the exact x_0 every member keeps the marginals of x_t. σ = 0 is DDIM, a deterministic map.

    Parameters
    ----------
    model, x_T, schedule, on_step
        As in :func:`sample_ddpm`.
    steps, timesteps, spacing
        As in :func:`sample_ddpm`; α, β and σ below are those of the subsequence, not the old ones.
    eta : float, default=0.0
        σ_t = η β̄_{t-1}β_t/β̄_t. 0: DDIM. 1: DDPM with variance="posterior".
    sigma : "beta" or array-like of shape (S + 1,), optional
        In place of eta. "beta": σ_t = β_t, or β̄_{t-1} where β_t is larger (there x_{t-1} is
        ᾱ_{t-1}x̂_0 and fresh noise; always so at t = 1, where it leaves none). This is the case
        of article 9181; the σ̂ of Song et al.'s table 1 keeps DDPM's mean instead:
        ``sample_ddpm(variance="beta")``. An array holds any 0 <= σ_t <= β̄_{t-1} for t = 0 … S.
    generator : torch.Generator, optional
        Source of z, one draw for each step with σ_t > 0. Needed unless σ = 0.

    Returns
    -------
    Tensor of shape (batch, …)

    Raises
    ------
    ValueError
        If η < 0, or a σ_t exceeds β̄_{t-1}; and as :func:`sample_ddpm`.

    References
    ----------
    https://kexue.fm/archives/9181; Song et al. 2010.02502, equation 12.
    """
    tensors.state(x_T, "x_T")
    eta = check.number(eta, "eta", 0.0)
    if sigma is not None and eta != 0.0:
        raise ValueError(f"`eta` must be left at 0 where `sigma` is given, got {eta:g}")
    chain = _chain(schedule, steps, timesteps, spacing)
    sigma = _family_sigma(chain, eta, sigma)
    if sigma[1:].any():
        tensors.generator(generator)
    slope = np.zeros(chain.T + 1)
    left = np.sqrt(np.maximum(chain.beta_bar[:-1] ** 2 - sigma[1:] ** 2, 0.0))
    slope[1:] = left - chain.beta_bar[1:] / chain.alpha[1:]
    plan = _plan(chain, slope, sigma, np.zeros(chain.T + 1))
    return _walk(model, x_T, plan, generator, on_step)


def _family_sigma(chain: Schedule, eta: float, sigma: Literal["beta"] | ArrayLike | None) -> Floats:
    """σ_t for t = 0 … S, none above β̄_{t-1}."""
    most = np.concatenate([[0.0], chain.beta_bar[:-1]])
    if isinstance(sigma, str):
        check.choice(sigma, "sigma", ("beta",))
        return np.minimum(chain.beta, most)
    name = "eta" if sigma is None else "sigma"
    if sigma is None:
        wanted = eta * chain.ddpm_sigma("posterior")
    else:
        wanted = check.vector(check.within(sigma, name, 0.0, np.inf), name, (chain.T + 1,))
    over = np.flatnonzero(wanted[1:] > most[1:] * (1 + 1e-12)) + 1
    if over.size:
        k = over[0]
        raise ValueError(
            f"`{name}` must leave σ_t at most β̄_(t-1) = {most[k]:.6g} at t = {chain.times[k]}, "
            f"got σ_t = {wanted[k]:.6g}"
        )
    return wanted


def optimal_sigma(
    model: Model,
    x0: Tensor,
    schedule: Schedule,
    *,
    generator: torch.Generator,
    steps: int | None = None,
    timesteps: ArrayLike | None = None,
    spacing: Spacing = "trailing",
) -> Floats:
    """The σ_t that makes DDPM's isotropic Gaussian step optimal, from a model and data.

    σ_t² = (β̄_{t-1}β_t/β̄_t)² + (β_t²/(α_tβ̄_t))² (1 - E|ε(x_t, t)|²/d) minimises the divergence of
    N(μ, σ_t² I) from the true p(x_{t-1} | x_t), on average over x_t, if ε is the exact one.

    Parameters
    ----------
    model : callable
        As in :func:`sample_ddpm`.
    x0 : Tensor of shape (n, …)
        Data (or samples of a mixture); each gets one noise per time.
    schedule, steps, timesteps, spacing
        As in :func:`sample_ddpm`.
    generator : torch.Generator
        Source of the noise.

    Returns
    -------
    ndarray of shape (S + 1,)
        For ``sample_ddpm(variance=…)``; 0 at t = 0. One call of the model per time.

    References
    ----------
    Bao et al., Analytic-DPM, 2201.06503, theorem 1 and, for the bounds, theorem 2.
    """
    tensors.state(x0, "x0")
    tensors.generator(generator)
    chain = _chain(schedule, steps, timesteps, spacing)
    power = np.ones(chain.T + 1)
    with torch.no_grad():
        for k, time in enumerate(chain.times.tolist()):
            if k:
                x = add_noise(x0, time, tensors.normal_like(x0, generator), schedule)
                power[k] = tensors.ask(model, x, time).double().square().mean().item()
    spread = _spread(chain) ** 2 * np.maximum(1.0 - power, 0.0)
    return np.sqrt(chain.ddpm_sigma("posterior") ** 2 + spread)


def _spread(chain: Schedule) -> Floats:
    """β_t²/(α_tβ̄_t): the weight of ε in DDPM's mean, and so of what is not known of it."""
    spread = np.zeros(chain.T + 1)
    spread[1:] = chain.beta[1:] ** 2 / (chain.alpha[1:] * chain.beta_bar[1:])
    return spread


# --- the way back, and between -------------------------------------------------------------------


def ddim_encode(
    model: Model,
    x0: Tensor,
    schedule: Schedule,
    *,
    steps: int | None = None,
    timesteps: ArrayLike | None = None,
    spacing: Spacing = "trailing",
    iterations: int = 1,
    on_step: OnStep | None = None,
) -> Tensor:
    """DDIM run towards the noise: the x_T from which `sample_ddim` (η = 0) comes back to x_0.

    The step of DDIM from a time t to the one before, s, is undone by solving
    x_t = (ᾱ_t/ᾱ_s) x_s + (β̄_t - ᾱ_tβ̄_s/ᾱ_s) ε(x_t, t) for x_t. It stands on both sides; the usual
    inversion puts the known x_s into ε, and its error falls as 1/steps. Repeating that with the
    x_t found tends to the exact inverse wherever the right side contracts.

    Parameters
    ----------
    model, schedule, steps, timesteps, spacing
        As in :func:`sample_ddpm`.
    x0 : Tensor of shape (batch, …)
        Data.
    iterations : int, default=1
        How often each step is solved for x_t, and so how often the model is asked in it.
    on_step : callable, optional
        ``on_step(t, x, x0_hat)`` after each step, as in :func:`sample_ddpm`, with t ascending and
        x̂_0 what the step's ε makes of the x reached.

    Returns
    -------
    Tensor of shape (batch, …)
        At the largest of the times.

    References
    ----------
    Song et al. 2010.02502, section 5.4; the iteration: Pan et al. 2309.04907.
    """
    x = tensors.state(x0, "x0")
    iterations = check.whole(iterations, "iterations", 1)
    chain = _chain(schedule, steps, timesteps, spacing)
    slope = chain.beta_bar[1:] - chain.alpha[1:] * chain.beta_bar[:-1]
    columns = (chain.times[1:], chain.alpha[1:], slope, chain.alpha_bar[1:], chain.beta_bar[1:])
    with torch.no_grad():
        for time, keep, reach, signal, noisy in zip(*(c.tolist() for c in columns), strict=True):
            new = x
            for _ in range(iterations):
                eps = tensors.ask(model, new, time)
                new = torch.mul(x, keep).add_(eps, alpha=reach)
            if on_step is not None:
                on_step(time, new, (new - noisy * eps) / signal)
            x = new
    return x


def interpolate(x_T_a: Tensor, x_T_b: Tensor, weights: ArrayLike) -> Tensor:
    """z = a cos(λπ/2) + b sin(λπ/2): between two noises without leaving the standard normal.

    The squared coefficients add up to 1, so z is standard normal if a and b are, for every λ; the
    straight line (1 - λ) a + λ b has variance λ² + (1 - λ)², ½ in the middle.

    Parameters
    ----------
    x_T_a, x_T_b : Tensor of shape (…)
        Independent standard normal noises.
    weights : float or array-like of shape (m,)
        λ in [0, 1]; 0 is a, 1 is b.

    Returns
    -------
    Tensor of shape (…), or (m, …) for m weights

    References
    ----------
    https://kexue.fm/archives/9181.
    """
    a = tensors.state(x_T_a, "x_T_a")
    b = tensors.like(tensors.state(x_T_b, "x_T_b"), a, "x_T_b", "x_T_a")
    lam = check.within(weights, "weights", 0.0, 1.0)
    if lam.ndim > 1:
        raise ValueError(f"`weights` must be a number or one row of them, got shape {lam.shape}")
    # sin(π/2 (1-λ)) rather than cos(π/2 λ), which rounds to 6e-17 in place of 0 at λ = 1
    parts = np.stack([np.sin((1.0 - lam) * np.pi / 2), np.sin(lam * np.pi / 2)])
    of_a, of_b = torch.tensor(parts, dtype=a.dtype, device=a.device)
    shape = (*of_a.shape, *[1] * a.ndim)
    return of_a.reshape(shape) * a + of_b.reshape(shape) * b


# --- one loop for all of them --------------------------------------------------------------------


class _Step(NamedTuple):
    """Everything about a step that can be known before it is taken."""

    time: int  # where the model is asked
    then: int  # where the step leads
    alpha_bar: float
    beta_bar: float
    keep: float  # factor of x: 1/α
    slope: float  # factor of ε
    sigma: float
    spread: float  # factor of what the batch shows to be unknown of ε


def _chain(
    schedule: Schedule, steps: int | None, timesteps: ArrayLike | None, spacing: Spacing
) -> Schedule:
    """The schedule that is walked."""
    if not isinstance(schedule, Schedule):
        raise TypeError(f"`schedule` must be a Schedule, got {type(schedule).__name__}")
    if steps is not None and timesteps is not None:
        raise ValueError("`timesteps` must not be given together with `steps`")
    if steps is not None:
        timesteps = schedule.timesteps(steps, spacing)
    return schedule if timesteps is None else schedule.subsequence(timesteps)


def _plan(chain: Schedule, slope: Floats, sigma: Floats, spread: Floats) -> list[_Step]:
    sigma = np.concatenate([[0.0, 0.0], sigma[2:]])  # the last step adds no noise
    spread = np.concatenate([[0.0, 0.0], spread[2:]])
    columns = (
        chain.times[1:],
        chain.times[:-1],
        chain.alpha_bar[1:],
        chain.beta_bar[1:],
        1.0 / chain.alpha[1:],
        slope[1:],
        sigma[1:],
        spread[1:],
    )
    return [_Step(*row) for row in zip(*(c[::-1].tolist() for c in columns), strict=True)]


def _walk(
    model: Model,
    x: Tensor,
    plan: list[_Step],
    generator: torch.Generator | None,
    on_step: OnStep | None,
) -> Tensor:
    with torch.no_grad():
        for step in plan:
            eps = tensors.ask(model, x, step.time)
            new = torch.mul(x, step.keep).add_(eps, alpha=step.slope)
            sigma = step.sigma
            if step.spread:
                unknown = max(0.0, 1.0 - eps.double().square().mean().item())
                sigma = (sigma**2 + step.spread**2 * unknown) ** 0.5
            if sigma:
                new.add_(tensors.normal_like(x, generator), alpha=sigma)
            if on_step is not None:
                on_step(step.then, new, (x - step.beta_bar * eps) / step.alpha_bar)
            x = new
    return x
