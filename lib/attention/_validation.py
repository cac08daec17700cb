"""Checks of what a caller hands in, so that the mathematics elsewhere reads without them.

Every message names the argument, says what was expected and what arrived.
"""

from __future__ import annotations

import operator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lib._checks import rectangular
from lib._checks import rng as rng

Floats = NDArray[np.float64]


def real_array(values: ArrayLike, name: str) -> np.ndarray:
    """Array of real numbers in a floating dtype; integers become float64.

    A tensor of torch is taken as it is, detached and on the CPU.
    """
    array = rectangular(values, name)
    if array.dtype.kind in "iu":
        return array.astype(np.float64)
    if array.dtype.kind != "f":
        raise TypeError(f"`{name}` must hold real numbers, got dtype {array.dtype}")
    return array


def as_scores(scores: ArrayLike, axis: int = -1, name: str = "scores") -> tuple[Floats, int]:
    """Scores in float64 with the keys on the last axis, and where that axis came from.

    Returns
    -------
    rows : ndarray of shape (..., n)
        Every row holds at least one finite score; -inf hides a key.
    axis : int
        The keys' axis, counted from the end (so that it stays right when axes are put in front).
    """
    array = real_array(scores, name).astype(np.float64, copy=False)
    axis = keys_axis(array, axis, name)
    rows = np.moveaxis(array, axis, -1)
    top = rows.max(axis=-1)  # one pass that NaN, +inf and rows without a visible key all show up in
    if not np.isfinite(top).all():
        _refuse_scores(rows, name)
    # Half the largest float either way is always safe; only beyond it look closer.
    if top.max() > 8e307 or rows.min() < -8e307:
        _refuse_overflowing_range(rows, name)
    return rows, axis


def _refuse_overflowing_range(rows: Floats, name: str) -> None:
    bottom = rows.min(axis=-1, where=np.isfinite(rows), initial=np.inf)
    with np.errstate(over="ignore"):
        if np.isinf(rows.max(axis=-1) - bottom).any():
            raise ValueError(f"`{name}` must span less than the largest float, 1.8e308")


def _refuse_scores(rows: Floats, name: str) -> None:
    if np.isnan(rows).any():
        raise ValueError(f"`{name}` must not hold NaN, got {np.isnan(rows).sum()} of them")
    if np.isposinf(rows).any():
        raise ValueError(f"`{name}` must be finite, or -inf for a hidden key, got +inf")
    hidden = np.isneginf(rows).all(axis=-1)
    where = f", got none in row {first_index(hidden)}" if hidden.ndim else ""
    raise ValueError(f"`{name}` must leave at least one key visible (not -inf){where}")


def keys_axis(array: np.ndarray, axis: int, name: str) -> int:
    """`axis` counted from the end, for a non-empty array that has it."""
    axis = _integer(axis, "axis")
    if array.ndim == 0:
        raise ValueError(f"`{name}` must have at least one axis, got the single number {array}")
    if array.size == 0:
        raise ValueError(f"`{name}` must not be empty, got shape {array.shape}")
    if not -array.ndim <= axis < array.ndim:
        raise ValueError(f"`axis` must lie in [{-array.ndim}, {array.ndim}), got {axis}")
    return axis if axis < 0 else axis - array.ndim


def as_scale(scale: ArrayLike, rows: tuple[int, ...], name: str = "scale") -> Floats:
    """Inverse temperatures in [0, inf] that broadcast against the rows' shape."""
    array = real_array(scale, name).astype(np.float64, copy=False)
    bad = ~(array >= 0)
    if bad.any():
        raise ValueError(f"`{name}` must lie in [0, inf], got {array[bad].flat[0]}")
    broadcast_against_rows(array, rows, name)
    return array


def broadcast_against_rows(array: np.ndarray, rows: tuple[int, ...], name: str) -> tuple[int, ...]:
    """Common shape of `array` and the rows of scores."""
    if array.size == 0:
        raise ValueError(f"`{name}` must not be empty, got shape {array.shape}")
    try:
        return np.broadcast_shapes(array.shape, rows)
    except ValueError:
        raise ValueError(
            f"`{name}` must broadcast against the rows of scores, of shape {rows} "
            f"(the keys' axis left out), got shape {array.shape}"
        ) from None


def positive(value: float, name: str) -> float:
    """A single positive finite number."""
    number = finite(value, name)
    if number <= 0:
        raise ValueError(f"`{name}` must be positive, got {value!r}")
    return number


def finite(value: float, name: str) -> float:
    """A single finite number."""
    array = real_array(value, name)
    if array.ndim != 0:
        raise ValueError(f"`{name}` must be a single number, got shape {array.shape}")
    if not np.isfinite(array):
        raise ValueError(f"`{name}` must be finite, got {value!r}")
    return float(array)


def whole(value: int, name: str, at_least: int) -> int:
    """A single whole number, not below `at_least`."""
    number = _integer(value, name)
    if number < at_least:
        raise ValueError(f"`{name}` must be at least {at_least}, got {number}")
    return number


def counts(values: ArrayLike, name: str, at_least: float = 1.0) -> Floats:
    """Numbers of keys: real (a grid of lengths need not be whole), finite, not below `at_least`."""
    array = real_array(values, name).astype(np.float64, copy=False)
    bad = ~(np.isfinite(array) & (array >= at_least))
    if bad.any():
        raise ValueError(
            f"`{name}` must be finite and at least {at_least:g}, got {array[bad].flat[0]}"
        )
    return array


def first_index(flags: np.ndarray) -> int | tuple[int, ...]:
    """Position of the first True, as a plain int for a one-dimensional array."""
    index = tuple(int(i) for i in np.argwhere(flags)[0])
    return index[0] if len(index) == 1 else index


def _integer(value: int, name: str) -> int:
    if isinstance(value, bool):
        raise TypeError(f"`{name}` must be a whole number, got {value!r}")
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"`{name}` must be a whole number, got {value!r}") from None
