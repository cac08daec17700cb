"""What samplers ask of tensors: checks of states, and one question to the model.

Messages as in `_validation`. Kept apart from it so that schedules need no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Model = Callable[[Tensor, Tensor], Tensor]
OnStep = Callable[[float, Tensor, Tensor], object]


def state(x: Any, name: str) -> Tensor:
    """A batch of finite floating-point states, shape (batch, …)."""
    if not isinstance(x, Tensor):
        raise TypeError(f"`{name}` must be a torch.Tensor, got {type(x).__name__}")
    if not x.is_floating_point():
        raise TypeError(f"`{name}` must have a floating dtype, got {x.dtype}")
    if x.ndim < 1 or x.numel() == 0:
        raise ValueError(f"`{name}` must have shape (batch, …), got {tuple(x.shape)}")
    if not all_finite(x):
        raise ValueError(f"`{name}` must be finite, got {_not_finite(x)}")
    return x


def like(x: Any, other: Tensor, name: str, other_name: str) -> Tensor:
    """A tensor of the same shape, dtype and device as another."""
    if not isinstance(x, Tensor):
        raise TypeError(f"`{name}` must be a torch.Tensor, got {type(x).__name__}")
    for trait in ("shape", "dtype", "device"):
        mine, wanted = getattr(x, trait), getattr(other, trait)
        if mine != wanted:
            if trait == "shape":
                mine, wanted = tuple(mine), tuple(wanted)
            raise ValueError(
                f"`{name}` must have the {trait} of `{other_name}`, {wanted}, got {mine}"
            )
    return x


def generator(g: Any, name: str = "generator") -> torch.Generator:
    """A generator handed in by the caller; seeds and the global state are refused."""
    if not isinstance(g, torch.Generator):
        raise TypeError(
            f"`{name}` must be a torch.Generator such as torch.Generator().manual_seed(0), "
            f"got {type(g).__name__}"
        )
    return g


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
        raise ValueError(f"`{name}` must be finite, got {_not_finite(eps)}")
    return eps


def _time_dtype(x: Tensor) -> torch.dtype:
    """At least single precision: half of it can't tell t = 1000 from 1000.3."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def all_finite(x: Tensor) -> bool:
    """No NaN and no infinity; the sum is quick and shows both, and only a sum may overflow."""
    return math.isfinite(x.sum().item()) or bool(torch.isfinite(x).all())


def _not_finite(x: Tensor) -> str:
    bad = ~torch.isfinite(x)
    kind = "NaN" if torch.isnan(x).any() else "inf"
    return f"{kind} ({int(bad.sum())} of {x.numel()} numbers are not finite)"
