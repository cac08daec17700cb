"""Queries against points: a quick block of scores by one matrix product, and exact values of pairs.

The quick score of query q and point x is ½‖x‖² - q·x, which orders the points by ‖q - x‖. Both are
moved by the mean of the points first: distances do not change, and a large mean no longer swallows
the differences. Cosine is the same on vectors of length 1: ‖u - v‖² = 2 (1 - cos). For inner
products the score is -q·(x - mean), off by a constant per query.

A quick score is wrong by at most `slack`; whoever selects by it settles closer calls by `raw`,
which takes differences in float64 pair by pair and so depends on nothing but the pair.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lib import _checks as check
from lib._checks import Floats, Ints

METRICS = ("euclidean", "cosine", "dot")
CHUNK = 1 << 20  # numbers gathered at once for exact values: 8 MB
TINY = 2.0**-40  # below, products of float32 might underflow by more than they are rounded
BLOCK = 1 << 23  # bytes of a block of scores: it then stays near the caches
FEW = 160  # queries; a product with fewer spends its time on fetching the points


def vectors(values: ArrayLike, name: str) -> NDArray[Any]:
    """Finite vectors as rows, (n, d): float32, float64 and memory-mapped arrays as they are."""
    array = check.matrix(values, name)
    if array.dtype.type not in (np.float32, np.float64):
        array = array.astype(np.float32 if array.dtype == np.float16 else np.float64)
    for rows in _chunks(array):
        bad = ~np.isfinite(array[rows]).all(axis=1)
        if bad.any():
            row = rows.start + int(bad.argmax())
            kind = "NaN" if np.isnan(array[row]).any() else "inf"
            raise ValueError(f"`{name}` must be finite, got {kind} in row {row}")
    return array


def two_sets(X: ArrayLike, Y: ArrayLike | None) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Points and queries of one dimension."""
    points = vectors(X, "X")
    queries = None if Y is None else vectors(Y, "Y")
    if queries is not None and queries.shape[1] != points.shape[1]:
        raise ValueError(
            f"`Y` must have {points.shape[1]} numbers a row as `X`, got {queries.shape[1]}"
        )
    return points, queries


def block_size(block: int | None, n: int, itemsize: int = 8) -> int:
    """Queries at once: 8 MB of scores, or up to 32 MB where those would be too few queries."""
    if block is None:
        row = n * itemsize
        return max(1, BLOCK // row, min(FEW, 4 * BLOCK // row))
    return check.whole(block, "block", 1)


class Pairs:
    """Queries Y, or the points themselves, against points X, both checked by `vectors`.

    All lengths in here are in units that bring the largest number near 1 (a power of two, so
    nothing is rounded): no square over- or underflows. `scale` takes lengths into these units.
    """

    def __init__(
        self, X: NDArray[Any], Y: NDArray[Any] | None, metric: str, *, double: bool = False
    ) -> None:
        self.metric = metric
        self.themselves = Y is None
        self.X, self.Y = X, X if Y is None else Y
        n, d = X.shape
        largest = max(_largest(X), _largest(self.Y))
        exponent = math.frexp(largest)[1] if largest > 0.0 and metric != "cosine" else 0
        self.scale = math.ldexp(1.0, -max(exponent, -1000))
        if metric == "cosine":
            _refuse_zero_rows(X, "X")
            _refuse_zero_rows(self.Y, "Y")
        self.mean = sum(self._rows(X, r).sum(axis=0) for r in _chunks(X)) / n
        self.lengths = lengths = self._lengths(X, self.mean)
        moved = np.zeros(d) if metric == "dot" else self.mean
        self._moved = moved
        own = lengths if self.themselves and metric != "dot" else self._lengths(self.Y, moved)
        # float32 gives a quick score its speed, but one far point would blur all the scores, and
        # tiny ones would underflow beside a large mean
        far = max(lengths.max(), own.max())
        narrow = not double and lengths.max() > TINY and far <= 32.0 * np.median(lengths)
        self.dtype = np.dtype(np.float32 if narrow else np.float64)
        # ½‖x‖² rides along as one more coordinate: no second pass over the block of scores
        self._right = np.empty((n, d + 1), dtype=self.dtype)
        for rows in _chunks(X):
            self._right[rows, :d] = self._rows(X, rows) - self.mean
        self._right[:, d] = 0.0 if metric == "dot" else lengths**2 / 2
        self.squares = own**2
        unit = np.finfo(self.dtype).eps / 2
        # d + 1 products and sums, the rounding of the vectors and of their squares, in any order
        self.slack = (d / 2 + 8) * unit * (own + lengths.max()) ** 2
        self._buffer = np.empty((0, n), dtype=self.dtype)

    def quick(self, rows: slice) -> NDArray[Any]:
        """Scores of queries against all points, (len(rows), n), in a buffer used again; small is
        near, and a point is infinitely far from itself."""
        d = self.X.shape[1]
        size = rows.stop - rows.start
        left = np.empty((size, d + 1), dtype=self.dtype)
        if self.themselves and self.metric != "dot":
            np.negative(self._right[rows, :d], out=left[:, :d])
        else:
            left[:, :d] = self._moved - self._rows(self.Y, rows)
        left[:, d] = 1.0
        if len(self._buffer) < size:
            self._buffer = np.empty((size, len(self.X)), dtype=self.dtype)
        scores = np.matmul(left, self._right.T, out=self._buffer[:size])
        if self.themselves:
            scores[np.arange(size), np.arange(rows.start, rows.stop)] = np.inf
        return scores

    def hide_copies(self, most: int) -> None:
        """Move each point that equals `most` earlier ones far away from all queries.

        As equal values go to the smaller index, no list of `most` neighbours misses it.
        """
        out_of_sight = np.finfo(self.dtype).max / 4  # not infinity: times 0, within BLAS, it is NaN
        _, group, size = np.unique(self.lengths, return_inverse=True, return_counts=True)
        seen: Counter[bytes] = Counter()
        for point in np.flatnonzero(size[group] > most):
            content = self.X[point].tobytes()
            if seen[content] >= most:
                self._right[point, -1] = out_of_sight
            seen[content] += 1

    def raw(self, queries: Ints, points: Ints) -> Floats:
        """Exact value per pair, shape of both: ‖y - x‖², of unit vectors under cosine; -y·x for
        inner products."""
        out = np.empty(len(queries))
        step = max(1, CHUNK // self.X.shape[1])
        for start in range(0, len(queries), step):
            part = slice(start, start + step)
            y, x = self._rows(self.Y, queries[part]), self._rows(self.X, points[part])
            if self.metric == "dot":
                y *= x
                out[part] = -y.sum(axis=1)
            else:
                y -= x
                y *= y
                out[part] = y.sum(axis=1)
        return out

    def distance(self, raw: Floats) -> Floats:
        """From `raw`, in these units: Euclidean distance, 1 - cos, or minus the inner product."""
        if self.metric == "euclidean":
            return np.sqrt(raw)
        return raw / 2 if self.metric == "cosine" else raw

    def in_callers_units(self, distance: Floats) -> Floats:
        if self.metric == "euclidean":
            return distance / self.scale
        return distance / self.scale / self.scale if self.metric == "dot" else distance

    def _rows(self, array: NDArray[Any], rows: slice | Ints) -> Floats:
        """Rows in float64 and in these units; of length 1 under cosine. A fresh array."""
        part = array[rows].astype(np.float64)
        if self.metric == "cosine":
            part /= abs(part).max(axis=1, keepdims=True)  # else tiny squares underflow
            part /= np.sqrt((part * part).sum(axis=1, keepdims=True))
        else:
            part *= self.scale
        return part

    def _lengths(self, array: NDArray[Any], centre: Floats) -> Floats:
        out = np.empty(len(array))
        for rows in _chunks(array):
            away = self._rows(array, rows) - centre
            out[rows] = np.sqrt((away * away).sum(axis=1))
        return out


def _chunks(array: NDArray[Any]) -> list[slice]:
    step = max(1, CHUNK // array.shape[1])
    return [slice(i, min(i + step, len(array))) for i in range(0, len(array), step)]


def _largest(array: NDArray[Any]) -> float:
    return max(float(abs(array[rows]).max()) for rows in _chunks(array))


def _refuse_zero_rows(array: NDArray[Any], name: str) -> None:
    for rows in _chunks(array):
        zero = ~array[rows].any(axis=1)
        if zero.any():
            row = rows.start + int(zero.argmax())
            raise ValueError(
                f"`{name}` must have no zero vectors, which have no direction for "
                f'metric "cosine", got one in row {row}'
            )
