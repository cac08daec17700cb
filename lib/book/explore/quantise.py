"""Arrays over a parameter grid as 16-bit integers, and what the page reads back.

Values ``v`` in [low, high] become ``round((v − low) / (high − low) · 65534)``; 65535 is a gap. The
error is at most (high − low) / 131068. Whatever is constant along a parameter is stored once.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LEVELS = 65534
GAP = 65535


@dataclass(frozen=True)
class Quantised:
    """An array over the grid.

    Attributes
    ----------
    codes : ndarray of uint16, shape (g_1 or 1, ..., g_k or 1, m)
        1 where the array doesn't depend on that parameter.
    low, high : float
        Values of code 0 and code 65534.
    """

    codes: np.ndarray
    low: float
    high: float

    @property
    def values(self) -> np.ndarray:
        """The array as the page sees it, NaN in gaps; same shape as `codes`."""
        values = self.low + self.codes * ((self.high - self.low) / LEVELS)
        return np.where(self.codes == GAP, np.nan, values)

    def at(self, corners: Sequence[tuple[tuple[int, ...], float]]) -> np.ndarray:
        """Weighted mean over corners of the grid, shape (m,), as `book-explorer.js` takes it.

        A point is a gap where the heaviest corner has one; otherwise corners with gaps don't count.
        """
        rows = np.array([self.values[self._row(index)] for index, _ in corners])  # (corners, m)
        weights = np.array([weight for _, weight in corners])[:, None]
        finite = np.isfinite(rows)
        total = (weights * finite).sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(finite, weights * rows, 0).sum(axis=0) / total
        return np.where(finite[int(weights.argmax())], mean, np.nan)

    def _row(self, index: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(min(i, size - 1) for i, size in zip(index, self.codes.shape, strict=False))

    def spec(self) -> dict[str, Any]:
        """For the page: shape over the grid, ends, little-endian codes in base64."""
        data = self.codes.astype("<u2").tobytes()
        return {
            "shape": list(self.codes.shape),
            "low": float(f"{self.low:.12g}"),
            "high": float(f"{self.high:.12g}"),
            "data": base64.b64encode(data).decode() if self.codes.any() else "",
        }


def squeeze(values: np.ndarray) -> np.ndarray:
    """Keep one slice along every grid axis (all but the last) that the array doesn't depend on."""
    for axis in range(values.ndim - 1):
        first = np.take(values, [0], axis=axis)
        if np.array_equal(np.broadcast_to(first, values.shape), values, equal_nan=True):
            values = first
    return values


def quantise(values: np.ndarray, limits: tuple[float, float] | None = None) -> Quantised:
    """Store an array over the grid in 16 bits a value.

    Parameters
    ----------
    values : ndarray, shape (g_1, ..., g_k, m)
        NaN is a gap.
    limits : (float, float), optional
        What the axis shows. Values beyond three times that span on either side are moved there:
        they are out of sight, and would cost precision inside.
    """
    values = np.asarray(values, dtype=float)
    if limits is not None:
        margin = 3 * (limits[1] - limits[0])
        values = np.clip(values, limits[0] - margin, limits[1] + margin)
    values = squeeze(values)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    step = (high - low) / LEVELS or 1.0
    with np.errstate(invalid="ignore"):
        codes = np.rint((values - low) / step)
    return Quantised(np.where(np.isfinite(values), codes, GAP).astype(np.uint16), low, high)
