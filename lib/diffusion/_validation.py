"""Checks of what a caller hands in: the shared ones of `lib._checks`, and one of times.

Without torch; what tensors need is in `_tensors`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from lib._checks import (
    Floats,
    Ints,
    choice,
    number,
    open_unit,
    positive,
    reals,
    vector,
    whole,
    within,
)

__all__ = [
    "Floats",
    "Ints",
    "choice",
    "number",
    "open_unit",
    "positive",
    "reals",
    "timesteps",
    "vector",
    "whole",
    "within",
]


def timesteps(values: ArrayLike, name: str, known: Ints) -> Ints:
    """Whole times in ascending order, each of them one of the schedule's `known` times."""
    row = vector(values, name)
    whole_times = row.astype(np.int64)
    if (whole_times != row).any():
        odd = row[whole_times != row][0]
        raise ValueError(f"`{name}` must be whole numbers, got {odd:g}")
    falls = np.flatnonzero(np.diff(whole_times) <= 0)
    if falls.size:
        first, then = whole_times[falls[0]], whole_times[falls[0] + 1]
        raise ValueError(
            f"`{name}` must ascend without repeats (samplers walk them backwards), "
            f"got {first} before {then}"
        )
    if whole_times[0] < 1 or whole_times[-1] > known[-1]:
        odd = whole_times[0] if whole_times[0] < 1 else whole_times[-1]
        raise ValueError(f"`{name}` must lie between 1 and T = {known[-1]}, got {odd}")
    missing = whole_times[~np.isin(whole_times, known)]
    if missing.size:
        raise ValueError(f"`{name}` must be times of the schedule, which has no {missing[0]}")
    return whole_times
