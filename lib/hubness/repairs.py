"""Repairs of the distances: each rescales them by a statistic of both points.

Two passes, neither with an n × n matrix: statistics of every point, then rescaled distances block
by block. ``k_occurrence(X, k, repair="local_scaling")`` runs both; the functions here give the
rescaled distances themselves, some rows at a time.

With queries Y, each side takes its statistics from the other: queries from X, points from Y.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_ndtr

from lib import _checks as check
from lib._checks import Floats, Ints
from lib.hubness._pairs import Pairs, block_size, two_sets
from lib.hubness.search import neighbours, neighbours_at_most

__all__ = ["Rescaled", "csls", "local_scaling", "mutual_proximity"]

TINY = 1e-100  # stands for a scale of 0: of a point with k copies, to which nothing else is near


class Rescaled:
    """Rescaled distances, computed when rows of them are asked for.

    Attributes
    ----------
    shape : tuple of int
        (m, n), queries by points.
    of_queries, of_points : float64 arrays of shape (m, …) and (n, …)
        The statistics: see the function that returned this.
    """

    def __init__(self, pairs: Pairs, of_queries: Floats, of_points: Floats) -> None:
        self.pairs = pairs
        self.shape = (len(pairs.Y), len(pairs.X))
        self._q, self._p = of_queries, of_points  # in the units of `pairs`

    @property
    def of_queries(self) -> Floats:
        return self.pairs.in_callers_units(self._q)

    @property
    def of_points(self) -> Floats:
        return self.pairs.in_callers_units(self._p)

    def rows(self, start: int, stop: int) -> Floats:
        """Rescaled distances of the queries from `start` to before `stop`: (stop - start, n).

        A point's entry for itself means nothing and is NaN.
        """
        start = check.whole(start, "start", 0, self.shape[0] - 1)
        stop = check.whole(stop, "stop", start + 1, self.shape[0])
        n = self.shape[1]
        points, out = np.arange(n), np.empty((stop - start, n))
        for query in range(start, stop):
            queries = np.full(n, query)
            raw = self.pairs.raw(queries, points)
            out[query - start] = self.finish(self.key(raw, queries, points), queries, points)
            if self.pairs.themselves:
                out[query - start, query] = np.nan
        return out

    # --- for the search: a key orders as the rescaled distance does, without its saturation

    def quick(self, scores: NDArray[Any], rows: slice) -> tuple[Floats, Floats | None]:
        """Approximate keys from a block of quick scores, and a weight of the slack per point."""
        raise NotImplementedError

    def slack(self, rows: slice, kth: Floats) -> Floats:
        """By how much an approximate key may be wrong, per query."""
        return 2 * self.pairs.slack[rows]

    def key(self, raw: Floats, queries: Ints, points: Ints) -> Floats:
        """Exact key per pair."""
        raise NotImplementedError

    def finish(self, key: Floats, queries: Ints, points: Ints) -> Floats:
        """Rescaled distance from the key."""
        raise NotImplementedError

    def _raw(self, scores: NDArray[Any], rows: slice) -> Floats:
        """Squared distances from quick scores, in their place."""
        scores *= 2.0
        scores += self.pairs.squares[rows, None]
        return np.maximum(scores, 0.0, out=scores)


class _LocalScaling(Rescaled):
    def __init__(self, pairs: Pairs, of_queries: Floats, of_points: Floats) -> None:
        super().__init__(pairs, of_queries, of_points)
        # d² / σ in the square's own unit: 1 - cos is half a square already
        power = 1.0 if pairs.metric == "euclidean" else 0.5
        self._weights = np.maximum(of_points, TINY) ** -power
        self._own = np.maximum(of_queries, TINY) ** -power

    def quick(self, scores: NDArray[Any], rows: slice) -> tuple[Floats, Floats | None]:
        keys = self._raw(scores, rows)
        keys *= self._weights
        return keys, self._weights

    def key(self, raw: Floats, queries: Ints, points: Ints) -> Floats:
        return raw * self._weights[points]

    def finish(self, key: Floats, queries: Ints, points: Ints) -> Floats:
        ratio = key * self._own[queries]
        if self.pairs.metric == "cosine":
            ratio = (ratio / 2) ** 2
        return -np.expm1(-ratio)


class _Csls(Rescaled):
    def quick(self, scores: NDArray[Any], rows: slice) -> tuple[Floats, Floats | None]:
        keys = self._raw(scores, rows)
        keys += self._p
        return keys, None

    def key(self, raw: Floats, queries: Ints, points: Ints) -> Floats:
        return raw + self._p[points]

    def finish(self, key: Floats, queries: Ints, points: Ints) -> Floats:
        return key + (self._q[queries] - 2.0)


class _MutualProximity(Rescaled):
    def quick(self, scores: NDArray[Any], rows: slice) -> tuple[Floats, Floats | None]:
        distance = self.pairs.distance(self._raw(scores, rows))
        return self._minus_log(distance, self._q[rows, None], self._p), None

    def slack(self, rows: slice, kth: Floats) -> Floats:
        # The slope of -log(1 - Φ(z)) is at most 1 + √(2 (-log(1 - Φ(z)))), over σ in the distance;
        # a square root may double half of its digits' error near 0.
        error = np.sqrt(2 * self.pairs.slack[rows])
        steepest = 1.0 / self._q[rows, 1] + 1.0 / self._p[:, 1].min()
        return 2.0 * error * steepest * (1.0 + np.sqrt(2.0 * np.maximum(kth, 0.0)))

    def key(self, raw: Floats, queries: Ints, points: Ints) -> Floats:
        return self._minus_log(self.pairs.distance(raw), self._q[queries], self._p[points])

    def finish(self, key: Floats, queries: Ints, points: Ints) -> Floats:
        return -np.expm1(-key)

    @staticmethod
    def _minus_log(distance: Floats, one: Floats, other: Floats) -> Floats:
        """-log P(X > d) P(Y > d); the moments on the last axis."""
        first = log_ndtr((one[..., 0] - distance) / one[..., 1])
        first += log_ndtr((other[..., 0] - distance) / other[..., 1])
        return -first


def local_scaling(
    X: ArrayLike,
    k: int,
    *,
    metric: str = "euclidean",
    Y: ArrayLike | None = None,
    block: int | None = None,
) -> Rescaled:
    """1 - exp(-d² / (σ σ')), σ the distance from a point to its k-th neighbour.

    Where σ is 0, for points with k copies, the copies are at 0 and all others at 1.

    Parameters
    ----------
    X, k, Y, block
        As in :func:`lib.hubness.neighbours`; with `Y`, k is at most the size of the smaller set.
    metric : {"euclidean", "cosine"}
        Of d: ‖x - y‖ or 1 - cos.

    Returns
    -------
    Rescaled
        Its statistics are σ.

    References
    ----------
    Zelnik-Manor and Perona 2004; for hubs: Schnitzer et al., JMLR 2012.
    """
    return fit(*two_sets(X, Y), k, metric, "local_scaling", block)


def mutual_proximity(
    X: ArrayLike,
    *,
    metric: str = "euclidean",
    Y: ArrayLike | None = None,
    block: int | None = None,
) -> Rescaled:
    """1 - P(X > d) P(Y > d), with the distances of each point to the others taken as normal.

    The form with independent Gaussians; mean and standard deviation are of the population of the
    other points. Costs two Gaussian tails per pair: ten times a plain search, or so.

    Parameters
    ----------
    X, Y, block
        As in :func:`lib.hubness.neighbours`.
    metric : {"euclidean", "cosine"}
        Of d: ‖x - y‖ or 1 - cos.

    Returns
    -------
    Rescaled
        Its statistics are means and standard deviations, shape (…, 2).

    Raises
    ------
    ValueError
        Also if all distances of some point are equal: they have no spread to measure by.

    References
    ----------
    Schnitzer et al., Local and global scaling reduce hubs in space, JMLR 2012.
    """
    return fit(*two_sets(X, Y), 1, metric, "mutual_proximity", block)


def csls(
    X: ArrayLike,
    k: int,
    *,
    metric: str = "cosine",
    Y: ArrayLike | None = None,
    block: int | None = None,
) -> Rescaled:
    """r + r' - 2 cos, r the mean cosine of a point to its k nearest; minus the similarity CSLS.

    Parameters
    ----------
    X, k, Y, block
        As in :func:`lib.hubness.neighbours`; with `Y`, k is at most the size of the smaller set.
    metric : {"cosine"}

    Returns
    -------
    Rescaled
        Its statistics are r.

    References
    ----------
    Conneau et al., Word translation without parallel data, 2018 (1710.04087).
    """
    return fit(*two_sets(X, Y), k, metric, "csls", block)


def fit(
    X: NDArray[Any],
    Y: NDArray[Any] | None,
    k: int,
    metric: str,
    repair: str,
    block: int | None,
    name: str = "k",
) -> Rescaled:
    """The first pass: statistics of every point, from checked vectors."""
    known = ("cosine",) if repair == "csls" else ("euclidean", "cosine")
    if metric not in known:
        listed = " or ".join(f'"{m}"' for m in known)
        raise ValueError(f'`metric` must be {listed} for repair "{repair}", got {metric!r}')
    if block is not None:
        block_size(block, 1)
    neighbours_at_most(1, "k", len(X), Y is None)
    sides = [(X, Y)] if Y is None else [(X, Y), (Y, X)]  # searched in, asked by
    if repair != "mutual_proximity":
        k = neighbours_at_most(k, name, min(len(a) for a, _ in sides), Y is None)
    pairs = Pairs(X, Y, metric, double=True)
    statistics = []
    for points, queries in sides:
        if repair == "mutual_proximity":
            # one scale for both sides, else their moments would be in different units
            side = pairs if points is X else Pairs(points, queries, metric, double=True)
            statistics.append(_moments(side, block))
        else:
            found = neighbours(points, k, metric=metric, Y=queries, block=block).distances
            unit = pairs.scale if metric == "euclidean" else 1.0
            found = found * unit
            statistics.append(found[:, -1] if repair == "local_scaling" else 1 - found.mean(1))
    kinds = {
        "local_scaling": _LocalScaling,
        "mutual_proximity": _MutualProximity,
        "csls": _Csls,
    }
    return kinds[repair](pairs, statistics[0], statistics[-1])


def _moments(pairs: Pairs, block: int | None) -> Floats:
    """Mean and deviation of the distances of each query to the points, (m, 2)."""
    m, n = len(pairs.Y), len(pairs.X)
    out = np.empty((m, 2))
    step = block_size(block, n)
    for start in range(0, m, step):
        rows = slice(start, min(start + step, m))
        square = 2.0 * pairs.quick(rows) + pairs.squares[rows, None]
        own = np.arange(rows.start, rows.stop)
        if pairs.themselves:
            square[own - start, own] = 0.0
        distance = pairs.distance(np.maximum(square, 0.0))
        mean = distance.sum(axis=1) / (n - pairs.themselves)
        away = distance - mean[:, None]
        if pairs.themselves:
            away[own - start, own] = 0.0
        out[rows, 0] = mean
        out[rows, 1] = np.sqrt((away * away).sum(axis=1) / (n - pairs.themselves))
    flat = out[:, 1] <= 1e-7 * out[:, 0] if math.isfinite(out.sum()) else np.ones(m, dtype=bool)
    if flat.any():
        raise ValueError(
            "mutual proximity needs distances that differ: all from row "
            f"{int(flat.argmax())} of the {'points' if pairs.themselves else 'vectors'} are equal"
        )
    return out
