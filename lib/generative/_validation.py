"""Checks that only generative models need; the rest is in `lib._checks`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lib import _checks as check


def training_data(data: Any) -> tuple[Tensor, tuple[int, ...]]:
    """Data in [-1, 1] of shape (N, …) as float32 rows (N, D), and the shape of one datum."""
    array = check.within(data, "data", -1.0, 1.0)
    if array.ndim < 2 or array.size == 0:
        raise ValueError(f"`data` must have shape (N, …) and not be empty, got {array.shape}")
    return torch.from_numpy(array).float().flatten(1), array.shape[1:]


def settings(low: int = 1, **values: int) -> None:
    """Settings that are whole numbers, `low` or more."""
    for name, value in values.items():
        check.whole(value, name, low)


def positive(**values: float) -> None:
    """Settings that are real numbers above 0."""
    for name, value in values.items():
        check.positive(value, name)


def share(value: float, name: str) -> float:
    """A number in [0, 1), such as a decay or a share of hidden units to leave out."""
    number = check.number(value, name, 0.0, 1.0)
    if number == 1.0:
        raise ValueError(f"`{name}` must be less than 1, got 1")
    return number


def symbols(codes: Any, name: str, positions: int, count: int) -> Tensor:
    """Whole numbers from 0 to count - 1, shape (N, positions), as int64."""
    array = check.within(codes, name, 0, count - 1)
    if array.ndim != 2 or array.shape[1] != positions or array.size == 0:
        raise ValueError(f"`{name}` must have shape (N, {positions}), got {array.shape}")
    whole = array.astype(np.int64)
    if (whole != array).any():
        raise ValueError(f"`{name}` must be whole numbers, got {array[whole != array][0]:g}")
    return torch.from_numpy(whole)


def batch(x: Any, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Finite numbers of shape ``(N, *shape)`` in that dtype; a tensor keeps its gradient."""
    if not isinstance(x, Tensor):
        x = torch.from_numpy(check.reals(x, name))
    if x.ndim == 0 or x.shape[1:] != shape or x.numel() == 0:
        wanted = ", ".join(map(str, ("N", *shape)))
        raise ValueError(f"`{name}` must have shape ({wanted}), got {tuple(x.shape)}")
    return check.state(x.to(dtype), name)
