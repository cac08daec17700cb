"""Diffusion models: schedules, training, samplers, and mixtures whose every step is exact.

For the articles https://kexue.fm/archives/9119 (DDPM) and 9181 (DDIM).

- `schedule`: α, β, ᾱ, β̄ of a noise schedule, subsequences, the papers' notation;
- `sampling`: adding noise; DDPM, the family of DDIM, inversion, interpolation;
- `solvers`: the ODE of DDIM by Euler, Heun, midpoint, DPM-Solver-2 and Runge-Kutta; two clocks;
- `mixture`: Gaussian mixtures with exact noise predictor, score and steps p(x_s | x_t);
- `training`, `networks`: the loss in two forms, training with averaged weights, small networks;
- `metrics`: distances between samples, with intervals.

Notation: x_t = α_t x_{t-1} + β_t ε with α_t² + β_t² = 1 and x_t = ᾱ_t x_0 + β̄_t ε; a model is a
function (x, t) -> ε with t in 1 … T. torch is imported only when something that needs it is.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lib.diffusion.schedule import PaperNotation, Schedule

if TYPE_CHECKING:
    from lib.diffusion.mixture import GaussianMixture, StepPosterior
    from lib.diffusion.networks import NoiseMLP, UNet
    from lib.diffusion.sampling import (
        add_noise,
        article_noise,
        ddim_encode,
        interpolate,
        optimal_sigma,
        sample_ddim,
        sample_ddpm,
    )
    from lib.diffusion.solvers import (
        clock_rhs,
        evaluations,
        ode_path,
        ode_times,
        sample_ode,
    )
    from lib.diffusion.training import (
        ddpm_loss,
        ddpm_loss_four_variables,
        train,
        train_seeds,
    )

__all__ = [
    "GaussianMixture",
    "NoiseMLP",
    "PaperNotation",
    "Schedule",
    "StepPosterior",
    "UNet",
    "add_noise",
    "article_noise",
    "clock_rhs",
    "ddim_encode",
    "ddpm_loss",
    "ddpm_loss_four_variables",
    "evaluations",
    "interpolate",
    "ode_path",
    "ode_times",
    "optimal_sigma",
    "sample_ddim",
    "sample_ddpm",
    "sample_ode",
    "train",
    "train_seeds",
]

_HOME = {
    "GaussianMixture": "mixture",
    "NoiseMLP": "networks",
    "StepPosterior": "mixture",
    "UNet": "networks",
    "add_noise": "sampling",
    "article_noise": "sampling",
    "clock_rhs": "solvers",
    "ddim_encode": "sampling",
    "ddpm_loss": "training",
    "ddpm_loss_four_variables": "training",
    "evaluations": "solvers",
    "interpolate": "sampling",
    "ode_path": "solvers",
    "ode_times": "solvers",
    "optimal_sigma": "sampling",
    "sample_ddim": "sampling",
    "sample_ddpm": "sampling",
    "sample_ode": "solvers",
    "train": "training",
    "train_seeds": "training",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"lib.diffusion.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
