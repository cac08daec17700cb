"""Checks of what a caller hands in, so that the mathematics elsewhere reads without them.

Every message names the argument, says what was expected and what arrived. Without torch; what
tensors need is in `_tensors`.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def reals(values: ArrayLike, name: str) -> Floats:
    """Finite real numbers in float64, of any shape."""
    tensor: Any = values
    if hasattr(tensor, "detach"):
        values = tensor.detach().cpu().double().numpy()
    try:
        array = np.asarray(values)
    except ValueError as error:  # NumPy's own word for ragged nesting
        raise ValueError(f"`{name}` must be a rectangular array of numbers: {error}") from error
    if array.dtype.kind not in "iuf":
        raise TypeError(f"`{name}` must hold real numbers, got dtype {array.dtype}")
    array = array.astype(np.float64, copy=False)
    bad = ~np.isfinite(array)
    if bad.any():
        raise ValueError(f"`{name}` must be finite, got {array[bad].flat[0]}")
    return array


def vector(values: ArrayLike, name: str, lengths: tuple[int, ...] | None = None) -> Floats:
    """Finite real numbers in a row, as many as one of `lengths` says."""
    array = reals(values, name)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"`{name}` must be one row of numbers, got shape {array.shape}")
    if lengths is not None and array.size not in lengths:
        wanted = " or ".join(str(n) for n in lengths)
        raise ValueError(f"`{name}` must hold {wanted} numbers, got {array.size}")
    return array


def within(values: ArrayLike, name: str, low: float, high: float) -> Floats:
    """Real numbers of the closed interval from `low` to `high`."""
    array = reals(values, name)
    bad = (array < low) | (array > high)
    if bad.any():
        raise ValueError(f"`{name}` must lie in [{low:g}, {high:g}], got {array[bad].flat[0]:g}")
    return array


def number(value: float, name: str, low: float = -np.inf, high: float = np.inf) -> float:
    """A single number of the closed interval from `low` to `high`."""
    array = within(value, name, low, high)
    if array.ndim != 0:
        raise ValueError(f"`{name}` must be a single number, got shape {array.shape}")
    return float(array)


def open_unit(value: float, name: str) -> float:
    """A single number strictly between 0 and 1."""
    inside = number(value, name)
    if not 0 < inside < 1:
        raise ValueError(f"`{name}` must lie strictly between 0 and 1, got {inside:g}")
    return inside


def whole(value: int, name: str, low: int, high: int | None = None) -> int:
    """A single whole number from `low` to `high`."""
    if isinstance(value, bool):
        raise TypeError(f"`{name}` must be a whole number, got {value!r}")
    try:
        got = operator.index(value)
    except TypeError:
        raise TypeError(f"`{name}` must be a whole number, got {value!r}") from None
    if got < low or (high is not None and got > high):
        wanted = f"at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"`{name}` must be {wanted}, got {got}")
    return got


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


def choice(value: Any, name: str, known: Iterable[str]) -> str:
    """One of the names."""
    names = list(known)
    if not isinstance(value, str) or value not in names:
        listed = ", ".join(f'"{n}"' for n in names)
        raise ValueError(f"`{name}` must be one of {listed}, got {value!r}")
    return value
