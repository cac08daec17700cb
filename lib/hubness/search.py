"""Exact nearest neighbours by blocks of matrix products, and how often each point is one.

Nothing of size n × n is ever in memory: per block of queries there is one matrix product, the best
few of each row are selected, and what its rounding leaves open is settled by exact values of a few
pairs. So counts do not depend on `block`, and equal values go to the smaller index.

Left out: approximate search and trees (which lose to a matrix product beyond ten dimensions).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lib import _checks as check
from lib._checks import Floats, Ints
from lib.hubness._pairs import METRICS, Pairs, block_size, two_sets

REPAIRS = ("local_scaling", "mutual_proximity", "csls")
SPARE = 8  # selected beyond k, so that rounding rarely sends anyone back to the whole row
BLURRED = 1 / 200  # share of pairs that float32 may leave open; beyond, float64 is the quicker way
GROUP = 32  # columns whose least score stands for them in the first round of selection

Progress = Callable[[int, int], None]


class Neighbours(NamedTuple):
    """Nearest neighbours, the nearest first.

    Attributes
    ----------
    indices : int64 array of shape (m, k)
        Rows of X.
    distances : float64 array of shape (m, k)
    """

    indices: Ints
    distances: Floats


def neighbours(
    X: ArrayLike,
    k: int,
    *,
    metric: str = "euclidean",
    Y: ArrayLike | None = None,
    repair: str | None = None,
    repair_k: int | None = None,
    block: int | None = None,
    progress: Progress | None = None,
) -> Neighbours:
    """The k nearest points of each query; of each point, among the others, without `Y`.

    Parameters
    ----------
    X : array_like of shape (n, d)
        Points. Scores are float32 where that is safe; what they leave open is settled in float64.
    k : int
        From 1 to n - 1, with `Y` to n.
    metric : {"euclidean", "cosine", "dot"}
        Distances are ‖x - y‖, 1 - cos and minus the inner product: small is near in all three.
    Y : array_like of shape (m, d), optional
        Queries. Without, the points are the queries and none is its own neighbour, though an equal
        point at another row may be. ``Y=X`` counts points as their own neighbours.
    repair : {"local_scaling", "mutual_proximity", "csls"}, optional
        Select by a rescaled distance, and return it: see the functions of these names.
    repair_k : int, optional
        Neighbours that "local_scaling" and "csls" take their scale from; default k.
    block : int, optional
        Queries at once; changes speed and memory, never the result. Default: 8 to 32 MB of scores.
    progress : callable, optional
        Called as ``progress(done, total)`` after each block of queries.

    Returns
    -------
    Neighbours

    Raises
    ------
    ValueError, TypeError
        For what is not finite vectors, a k out of range, zero vectors under "cosine".
    """
    search = _Search(X, k, metric, Y, repair, repair_k, block, progress)
    pairs, rule = search.pairs, search.rule
    indices = np.empty((len(pairs.Y), search.k), dtype=np.int64)
    distances = np.empty(indices.shape)
    for rows, chosen, exact in search.blocks(ordered=True):
        indices[rows] = chosen
        if rule is None:
            distances[rows] = pairs.in_callers_units(pairs.distance(exact))
        else:
            queries = np.arange(rows.start, rows.stop)[:, None]
            distances[rows] = rule.finish(exact, queries, chosen)
    return Neighbours(indices, distances)


def k_occurrence(
    X: ArrayLike,
    k: int,
    *,
    metric: str = "euclidean",
    Y: ArrayLike | None = None,
    repair: str | None = None,
    repair_k: int | None = None,
    block: int | None = None,
    progress: Progress | None = None,
) -> Ints:
    """N_k(x), in how many lists of k nearest neighbours each point is; they add up to m k.

    A point is not in its own list. (scikit-hubness and the article's code for GANs count it, so
    that N_k >= 1 and no antihub is left.)

    Parameters
    ----------
    X, k, metric, Y, repair, repair_k, block, progress
        As in :func:`neighbours`.

    Returns
    -------
    int64 array of shape (n,)

    References
    ----------
    https://kexue.fm/archives/9147; Radovanović et al., Hubs in space, JMLR 2010, section 2.
    """
    search = _Search(X, k, metric, Y, repair, repair_k, block, progress)
    counts = np.zeros(len(search.pairs.X), dtype=np.int64)
    for _, chosen, _ in search.blocks(ordered=False):
        counts += np.bincount(chosen.ravel(), minlength=counts.size)
    return counts


class _Search:
    """Checked arguments, and the lists of neighbours block by block."""

    def __init__(
        self,
        X: ArrayLike,
        k: int,
        metric: str,
        Y: ArrayLike | None,
        repair: str | None,
        repair_k: int | None,
        block: int | None,
        progress: Progress | None,
    ) -> None:
        metric = check.choice(metric, "metric", METRICS)
        if repair is not None:
            repair = check.choice(repair, "repair", REPAIRS)
        points, queries = self.sets = two_sets(X, Y)
        self.metric = metric
        self.k = neighbours_at_most(k, "k", len(points), queries is None)
        if progress is not None and not callable(progress):
            raise TypeError(f"`progress` must be a function, got {type(progress).__name__}")
        self.progress = progress
        if block is not None:
            block_size(block, 1)
        if repair is None and repair_k is not None:
            raise ValueError(f"`repair_k` must come with a `repair`, got {repair_k!r} without")
        self.rule: Any = None
        if repair is None:
            self.pairs = self._plain()
        else:
            from lib.hubness import repairs  # which searches for its scales

            scale_k = self.k if repair_k is None else repair_k
            name = "k" if repair_k is None else "repair_k"
            self.rule = repairs.fit(points, queries, scale_k, metric, repair, block, name)
            self.pairs = self.rule.pairs
        self.block = block_size(block, len(points), self.pairs.dtype.itemsize)

    def blocks(self, *, ordered: bool) -> Any:
        """Per block: rows, chosen points (b, k), and exact values if `ordered`, else any order."""
        total = len(self.pairs.Y)
        for start in range(0, total, self.block):
            rows = slice(start, min(start + self.block, total))
            chosen, exact = self._select(rows, ordered)
            yield rows, chosen, exact
            if self.progress is not None:
                self.progress(rows.stop, total)

    def _plain(self, *, double: bool = False) -> Pairs:
        pairs = Pairs(*self.sets, self.metric, double=double)
        pairs.hide_copies(self.k + pairs.themselves)  # one of the copies may be the query
        return pairs

    def _select(self, rows: slice, ordered: bool) -> tuple[Ints, Floats]:
        """The k least of each row, (b, k); a score is known up to slack (of its row) × weight."""
        scores: NDArray[Any] = self.pairs.quick(rows)
        weights: Floats | None = None
        if self.rule is not None:
            scores, weights = self.rule.quick(scores, rows)
        k, (b, n) = self.k, scores.shape
        candidates = smallest(scores, min(k + SPARE, n))  # (b, m)
        values = np.take_along_axis(scores, candidates, axis=1).astype(np.float64)
        order = np.argsort(values, axis=1, kind="stable")
        candidates = np.take_along_axis(candidates, order, axis=1)
        values = np.take_along_axis(values, order, axis=1)
        slack = (
            self.pairs.slack[rows] if self.rule is None else self.rule.slack(rows, values[:, k - 1])
        )[:, None]
        m = values.shape[1]
        if weights is None:
            certain = values[:, k - 1 : k] + slack  # k points are certainly nearer than this
            beyond = values[:, -1:] - slack
        else:
            upper = values + slack * weights[candidates]
            certain = np.partition(upper, k - 1, axis=1)[:, k - 1 : k]
            beyond = values[:, -1:] - slack * weights.max()
        exact = np.empty((b, k))
        chosen = candidates[:, :k].copy()
        narrow = (beyond > certain)[:, 0] if m < n else np.ones(b, dtype=bool)
        wide = ~narrow  # someone outside the candidates might belong
        if not ordered and weights is None and m > k:
            narrow &= values[:, k] - slack[:, 0] <= certain[:, 0]  # else the set is plain
            wide &= values[:, k] - slack[:, 0] <= certain[:, 0]
        some = np.flatnonzero(narrow)
        if some.size:
            # by index first: the stable sort then gives equal values to the smaller index
            few = np.sort(candidates[some], axis=1)
            key = self._exact(np.repeat(some + rows.start, m), few.ravel()).reshape(few.shape)
            few_self = self._is_self(some + rows.start, few)
            key[few_self] = np.inf
            order = np.argsort(key, axis=1, kind="stable")[:, :k]
            chosen[some] = np.take_along_axis(few, order, axis=1)
            exact[some] = np.take_along_axis(key, order, axis=1)
        work = 0
        for row in np.flatnonzero(wide):
            reach = slack[row] if weights is None else slack[row] * weights
            inside = scores[row] - reach <= certain[row]
            if self.pairs.themselves:
                inside[row + rows.start] = False
            many = np.flatnonzero(inside)
            work += many.size
            if work > BLURRED * scores.size and self.pairs.dtype == np.float32:
                self.pairs = self._plain(double=True)  # for the blocks to come, too
                return self._select(rows, ordered)
            key = self._exact(np.full(many.size, row + rows.start), many)
            order = np.argsort(key, kind="stable")[:k]
            chosen[row], exact[row] = many[order], key[order]
        return chosen, exact

    def _exact(self, queries: Ints, points: Ints) -> Floats:
        raw = self.pairs.raw(queries, points)
        return raw if self.rule is None else self.rule.key(raw, queries, points)

    def _is_self(self, queries: Ints, points: Ints) -> NDArray[np.bool_]:
        if not self.pairs.themselves:
            return np.zeros(points.shape, dtype=bool)
        return points == queries[:, None]


def smallest(scores: NDArray[Any], m: int) -> Ints:
    """Columns of the m least of each row, (b, n) -> (b, m), in no order.

    The least of each group of columns picks m groups, and only their columns are partitioned: one
    pass at the speed of memory instead of a partition of everything.
    """
    b, n = scores.shape
    groups = n // GROUP
    if groups < 4 * m:
        return _partition(scores, m)
    least = scores[:, : groups * GROUP].reshape(b, GROUP, groups).min(axis=1)
    picked = _partition(least, m)
    steps = groups * np.arange(GROUP)
    columns = (picked[:, None, :] + steps[:, None]).reshape(b, -1)
    tail = np.broadcast_to(np.arange(groups * GROUP, n), (b, n - groups * GROUP))
    columns = np.concatenate([columns, tail], axis=1)
    best = _partition(np.take_along_axis(scores, columns, axis=1), m)
    return np.take_along_axis(columns, best, axis=1)


def neighbours_at_most(k: int, name: str, n: int, themselves: bool) -> int:
    """A number of neighbours that there are."""
    most = n - 1 if themselves else n
    if most < 1:
        raise ValueError("`X` must hold at least 2 points, for one to have a neighbour, got 1")
    k = check.whole(k, name, 1)
    if k > most:
        raise ValueError(f"`{name}` must be at most {most}, as many as there are, got {k}")
    return k


def _partition(values: NDArray[Any], m: int) -> Ints:
    if m >= values.shape[1]:
        return np.broadcast_to(np.arange(values.shape[1]), values.shape)
    return np.argpartition(values, m - 1, axis=1)[:, :m]
