"""Checks and blocks of what a caller hands in; matrices keep their dtype and stay memory-mapped."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from lib import _checks as check
from lib._checks import Ints

BLOCK = 2**19  # numbers in a block: 4 MB in float64, so that a block stays near the processor


def blocks(rows: int, width: int) -> Iterator[slice]:
    """Slices that cut `rows` rows of `width` numbers into blocks."""
    step = max(256, BLOCK // max(width, 1))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def matrix(values: ArrayLike, name: str) -> np.ndarray:
    """Finite real numbers of shape (n, d) in the dtype they came in, checked block by block."""
    array = check.matrix(values, name)
    if array.dtype.kind == "f":
        for part in blocks(*array.shape):
            bad = ~np.isfinite(array[part])
            if bad.any():
                row, column = np.argwhere(bad)[0]
                value = array[part][row, column]
                where = f"row {part.start + row}, column {column}"
                raise ValueError(f"`{name}` must be finite, got {value} in {where}")
    return array


def index_pairs(pairs: ArrayLike, rows: int, name: str = "pairs") -> Ints:
    """Row numbers of shape (m, 2), each from 0 to rows - 1."""
    try:
        array = np.asarray(pairs)
    except ValueError as error:
        raise ValueError(f"`{name}` must be a rectangular array of numbers: {error}") from error
    if array.ndim != 2 or array.shape[1] != 2 or array.size == 0:
        raise ValueError(f"`{name}` must have shape (m, 2) and not be empty, got {array.shape}")
    if array.dtype.kind not in "iu":
        raise TypeError(f"`{name}` must hold whole numbers, got dtype {array.dtype}")
    bad = (array < 0) | (array >= rows)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise ValueError(
            f"`{name}` must hold row numbers from 0 to {rows - 1}, got {array[row, column]} "
            f"in pair {row}"
        )
    return array.astype(np.int64, copy=False)


def listed(rows: np.ndarray, most: int = 5) -> str:
    """The first few row numbers, for a message."""
    shown = ", ".join(str(r) for r in rows[:most])
    return shown + (f", … ({rows.size} in all)" if rows.size > most else "")
