"""What samplers ask of tensors: checks of states, and one question to the model.

Messages as in `_validation`. Kept apart from it so that schedules need no torch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lib._checks import all_finite, generator, like, not_finite, state

__all__ = [
    "Model",
    "OnStep",
    "all_finite",
    "ask",
    "generator",
    "like",
    "normal_like",
    "state",
]

Model = Callable[[Tensor, Tensor], Tensor]
OnStep = Callable[[float, Tensor, Tensor], object]


def normal_like(x: Tensor, g: torch.Generator) -> Tensor:
    """Standard normal numbers of x's shape and dtype, drawn on the generator's own device.

    So one seed on the CPU gives the same samples wherever the model lives.
    """
    drawn = torch.randn(x.shape, generator=g, dtype=x.dtype, device=g.device)
    return drawn.to(x.device)


def ask(model: Model, x: Tensor, time: float) -> Tensor:
    """ε = model(x, t) with the same time for the whole batch, and what it returned checked.

    A whole time goes in as int64 (so that tables of embeddings work), any other in x's dtype.
    """
    dtype = torch.int64 if isinstance(time, int) else _time_dtype(x)
    t = torch.full((x.shape[0],), time, dtype=dtype, device=x.device)
    eps = model(x, t)
    name = f"model(x, t) at t = {time:g}"
    like(eps, x, name, "x")
    if not all_finite(eps):
        raise ValueError(f"`{name}` must be finite, got {not_finite(eps)}")
    return eps


def _time_dtype(x: Tensor) -> torch.dtype:
    """At least single precision: half of it can't tell t = 1000 from 1000.3."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32
