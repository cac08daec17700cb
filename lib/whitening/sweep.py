"""Which beta, gamma and dimension suit a task: cosine against gold scores over a whole grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from lib import _checks as check
from lib._checks import Floats, Ints
from lib.whitening import _arrays as arrays
from lib.whitening.transformer import EPS, MOMENTS, Moments, numerical_rank, powers

__all__ = ["Setting", "Sweep", "cosine_pairs", "whitening_sweep"]

RESAMPLED = 2**17  # numbers that one step of the bootstrap works on
DECIMALS = 12  # of a cosine; beyond them two equal cosines differ by rounding, and would be ranked


@dataclass(frozen=True)
class Setting:
    """One cell of the grid: where it lies, its Spearman correlation and the interval."""

    beta: float
    gamma: float
    dim: int
    spearman: float
    low: float
    high: float


@dataclass(frozen=True)
class Sweep:
    """Spearman correlations over a grid.

    Attributes
    ----------
    betas : ndarray of shape (B,)
    gammas : ndarray of shape (G,)
    dims : ndarray of int, shape (K,)
    spearman, low, high : ndarray of shape (B, G, K)
        NaN where it is not defined (all cosines equal, as may happen in one dimension), and the
        ends also where no interval was asked for.
    raw : Setting
        The vectors as they came, i.e. beta = gamma = 0 in full dimension.
    """

    betas: Floats
    gammas: Floats
    dims: Ints
    spearman: Floats
    low: Floats
    high: Floats
    raw: Setting

    def settings(self) -> list[Setting]:
        """All cells, the best first; equals stay in the order of the grid, undefined ones last."""
        order = np.argsort(-self.spearman, axis=None, kind="stable")
        return [self._setting(int(i)) for i in order]

    def best(self) -> Setting:
        """The cell of the highest correlation.

        Its value is that of a winner: among many cells the best one is partly lucky. Judge it on
        pairs that the search has not seen.
        """
        if np.isnan(self.spearman).all():
            raise ValueError("`spearman` must hold a number, got NaN in every cell")
        return self._setting(int(np.nanargmax(self.spearman)))

    def _setting(self, flat: int) -> Setting:
        b, g, k = np.unravel_index(flat, self.spearman.shape)
        numbers = (float(a[b, g, k]) for a in (self.spearman, self.low, self.high))
        return Setting(float(self.betas[b]), float(self.gammas[g]), int(self.dims[k]), *numbers)


def cosine_pairs(x: ArrayLike, pairs: ArrayLike) -> Floats:
    """Cosine between two rows of x for each pair, in float64.

    Parameters
    ----------
    x : array_like of shape (n, d)
    pairs : array_like of int, shape (m, 2)
        Row numbers from 0 to n - 1.

    Returns
    -------
    ndarray of shape (m,)
        In [-1, 1].

    Raises
    ------
    ValueError, TypeError
        For input that is not as above, and for rows of zeros, which have no direction.
    """
    x = arrays.matrix(x, "x")
    pairs = arrays.index_pairs(pairs, len(x))
    out = np.empty(len(pairs))
    for part in arrays.blocks(len(pairs), 2 * x.shape[1]):
        a, b = (_directions(x, rows) for rows in pairs[part].T)
        out[part] = np.einsum("id,id->i", a, b)
    return np.clip(out, -1.0, 1.0, out=out)


def whitening_sweep(
    vectors: ArrayLike,
    pairs: ArrayLike,
    scores: ArrayLike,
    *,
    betas: Sequence[float],
    gammas: Sequence[float],
    dims: Sequence[int],
    rng: np.random.Generator,
    resamples: int = 200,
    level: float = 0.95,
    eps: float = EPS,
    moment: str = "central",
) -> Sweep:
    """Spearman correlation of cosine with gold scores for every (beta, gamma, dim).

    The same as to fit a `Whitening` on all vectors for each cell, but for one eigendecomposition
    (one per beta for moment="shifted"), one projection, and sums over components that all gammas
    and dims share.

    Parameters
    ----------
    vectors : array_like of shape (n, d)
        What mean and spectrum are fitted on; no score is used for that.
    pairs : array_like of int, shape (m, 2)
        Row numbers of `vectors`; at least 3 pairs.
    scores : array_like of shape (m,)
        Gold similarity of each pair.
    betas, gammas : sequence of float
    dims : sequence of int
        From 1 to d, and for a gamma > 0 at most the rank of the covariance.
    rng : numpy.random.Generator
        Of the bootstrap.
    resamples : int
        Resamples of the pairs, the same ones for all cells and for the raw cosine; ranks are taken
        anew within each. 0 gives no intervals. Takes 16 m × resamples bytes.
    level : float in (0, 1)
        Of the intervals, which are quantiles over the resamples. Pairs count as independent, which
        is too bold where many of them share a vector.
    eps, moment
        As in :class:`Whitening`.

    Returns
    -------
    Sweep

    Raises
    ------
    ValueError, TypeError
        For input that is not as above, for scores that are all equal, and for a vector that is zero
        (in the first `dim` components) after its shift; the message names rows and cell.
    """
    x = arrays.matrix(vectors, "vectors")
    pairs = arrays.index_pairs(pairs, len(x))
    if len(pairs) < 3:
        raise ValueError(f"`pairs` must hold at least 3 pairs, got {len(pairs)}")
    gold = check.vector(scores, "scores", (len(pairs),))
    if (gold == gold[0]).all():
        raise ValueError(f"`scores` must not all be equal, got {gold[0]:g} for every pair")
    betas, gammas = check.vector(betas, "betas"), check.vector(gammas, "gammas")
    dims = _dims(dims, x.shape[1])
    check.rng(rng)
    resamples = check.whole(resamples, "resamples", 0)
    level = check.open_unit(level, "level")
    if check.number(eps, "eps", 0.0) >= 1.0:
        raise ValueError(f"`eps` must be less than 1, got {eps:g}")
    check.choice(moment, "moment", MOMENTS)

    moments = Moments(x.shape[1]).add(x)
    rows, local = np.unique(pairs, return_inverse=True)
    spearman = _Spearman(gold, resamples, level, rng)
    raw = spearman(cosine_pairs(x, pairs)[None])[:, 0]
    out = np.empty((3, betas.size, gammas.size * dims.size))
    for b, beta in enumerate(betas):
        if b == 0 or moment == "shifted":
            grid = _Grid.project(x, rows, moments, float(beta), gammas, dims, eps, moment)
        out[:, b] = spearman(grid.cosines(float(beta), local.reshape(-1, 2)))
    shape = (3, betas.size, gammas.size, dims.size)
    numbers = (float(a) for a in raw)
    return Sweep(betas, gammas, dims, *out.reshape(shape), Setting(0.0, 0.0, x.shape[1], *numbers))


# --- parts --------------------------------------------------------------------------------------


def _directions(x: np.ndarray, rows: Ints) -> Floats:
    """Rows of x scaled to length 1, float64."""
    part = x[rows].astype(np.float64)
    largest = np.abs(part).max(axis=1, keepdims=True)
    zero = largest[:, 0] == 0.0
    if zero.any():
        bad = arrays.listed(np.unique(rows[zero]))
        raise ValueError(f"a vector of zeros has no cosine; got one in row {bad}")
    part /= largest  # so that no square over- or underflows
    part /= np.linalg.norm(part, axis=1, keepdims=True)
    return part


def _dims(dims: Sequence[int], width: int) -> Ints:
    listed = np.asarray(dims)
    if listed.ndim != 1 or listed.size == 0:
        raise ValueError(f"`dims` must be one row of whole numbers, got shape {listed.shape}")
    return np.array([check.whole(k, "dims", 1, width) for k in listed.tolist()], dtype=np.int64)


@dataclass(frozen=True)
class _Grid:
    """Coordinates of the vectors in use, and the weights of the components for each cell."""

    rows: Ints  # (r,) of the vectors in use
    coordinates: Floats  # (r, d), about the mean
    centre: Floats  # (d,), the mean's own coordinates
    lengths: Floats  # (r,), squared length that rounding is to be measured by
    weights: Floats  # (d, G K): λ^-gamma within the first dim components, else 0
    cells: list[tuple[float, int]]  # gamma and dim of each

    @classmethod
    def project(
        cls,
        x: np.ndarray,
        rows: Ints,
        moments: Moments,
        beta: float,
        gammas: Floats,
        dims: Ints,
        eps: float,
        moment: str,
    ) -> _Grid:
        values, vectors = moments.spectrum(beta, moment)
        rank = numerical_rank(values, eps)
        if (gammas > 0).any() and dims.max() > rank:
            raise ValueError(
                f"`dims` must be at most {rank}, the rank of the covariance, for gamma > 0, "
                f"got {dims.max()}"
            )
        # A cosine does not see a common factor, and without one no power overflows early.
        relative = values / (values[0] or 1.0)
        scales = np.stack([powers(relative, -g, eps) for g in gammas])  # (G, d)
        if not np.isfinite(scales).all():
            raise ValueError(f"`gammas` must leave finite scales, got {np.abs(gammas).max():g}")
        inside = np.arange(len(values)) < dims[:, None]  # (K, d)
        weights = (scales[:, None] * inside).reshape(-1, len(values)).T
        coordinates = np.empty((len(rows), len(values)))
        lengths = np.empty(len(rows))
        mean = moments.mean
        for part in arrays.blocks(*coordinates.shape):
            block = x[rows[part]].astype(np.float64)
            lengths[part] = np.einsum("id,id->i", block, block)
            np.matmul(block - mean, vectors, out=coordinates[part])
        lengths += mean @ mean
        cells = [(float(g), int(k)) for g in gammas for k in dims]
        contiguous = np.ascontiguousarray(weights)
        return cls(rows, coordinates, mean @ vectors, lengths, contiguous, cells)

    def cosines(self, beta: float, pairs: Ints) -> Floats:
        """Shape (G K, m); `pairs` numbers the vectors in use."""
        shift = (1.0 - beta) * self.centre
        squares = np.empty((len(self.rows), len(self.cells)))
        for part in arrays.blocks(*self.coordinates.shape):
            squares[part] = (self.coordinates[part] + shift) ** 2 @ self.weights
        self._refuse_zeros(squares, beta)
        norms = np.sqrt(squares)
        out = np.empty((len(pairs), len(self.cells)))
        for part in arrays.blocks(len(pairs), len(shift)):
            i, j = pairs[part].T
            products = (self.coordinates[i] + shift) * (self.coordinates[j] + shift)
            out[part] = products @ self.weights / (norms[i] * norms[j])
        return np.ascontiguousarray(out.T)

    def _refuse_zeros(self, squares: Floats, beta: float) -> None:
        # A vector equal to the shift is zero only up to the rounding of its coordinates.
        rounding = (len(self.centre) * np.finfo(np.float64).eps) ** 2
        zero = squares <= rounding * np.outer(self.lengths, self.weights.sum(axis=0))
        if zero.any():
            cell = int(zero.any(axis=0).argmax())
            gamma, dim = self.cells[cell]
            raise ValueError(
                f"a vector of zeros has no cosine; at beta={beta:g}, gamma={gamma:g}, dim={dim} "
                f"`vectors` gives one in row {arrays.listed(self.rows[zero[:, cell]])}"
            )


class _Spearman:
    """Correlation with the gold scores, on all pairs and on the resamples of them.

    A resample is a count for each pair. Sorting the cosines once is enough for all resamples: the
    rank within each is then a cumulative sum of its counts.
    """

    def __init__(
        self, gold: Floats, resamples: int, level: float, rng: np.random.Generator
    ) -> None:
        m = gold.size
        self.tails = ((1.0 - level) / 2, (1.0 + level) / 2)
        drawn = (np.bincount(rng.integers(m, size=m), minlength=m) for _ in range(resamples))
        counts = np.stack([np.ones(m), *drawn], axis=1)  # all pairs once, then the resamples
        self.steps: list[tuple[Floats, Floats, Floats]] = []
        sorting = _Sorting.of(gold)
        for part in _columns(counts, max(1, RESAMPLED // m)):
            ranks = np.empty_like(part)
            ranks[sorting.order] = sorting.ranks(part[sorting.order])
            weighted = ranks * part
            self.steps.append((part, weighted, np.einsum("ir,ir->r", weighted, ranks)))

    def __call__(self, cosines: Floats) -> Floats:
        """(cells, m) -> (3, cells): value, low, high."""
        out = np.full((3, len(cosines)), math.nan)
        for cell, row in enumerate(np.round(cosines, DECIMALS)):
            sorting = _Sorting.of(row)
            got = np.concatenate([self._correlate(sorting, *step) for step in self.steps])
            out[0, cell] = got[0]
            defined = got[1:][~np.isnan(got[1:])]
            if defined.size and not np.isnan(got[0]):
                out[1:, cell] = np.quantile(defined, self.tails)
        return out

    @staticmethod
    def _correlate(sorting: _Sorting, counts: Floats, gold: Floats, spread: Floats) -> Floats:
        counted = counts[sorting.order]
        ranks = sorting.ranks(counted)
        shared = np.einsum("ir,ir->r", ranks, gold[sorting.order])
        np.multiply(counted, ranks, out=counted)
        both = np.einsum("ir,ir->r", counted, ranks) * spread
        return np.divide(shared, np.sqrt(both), out=np.full_like(both, math.nan), where=both > 0)


@dataclass(frozen=True)
class _Sorting:
    """Values in order, and where the group of equals of each begins and ends."""

    order: Ints
    first: Ints | slice
    last: Ints | slice

    @classmethod
    def of(cls, values: Floats) -> _Sorting:
        order = np.argsort(values)
        ordered = values[order]
        if (ordered[1:] > ordered[:-1]).all():
            return cls(order, slice(None, -1), slice(1, None))
        sides = (np.searchsorted(ordered, ordered, side) for side in ("left", "right"))
        return cls(order, *sides)

    def ranks(self, counts: Floats) -> Floats:
        """Mean ranks less their mean, from counts (m, R) that are sorted alike."""
        below = np.zeros((len(counts) + 1, counts.shape[1]))
        np.cumsum(counts, axis=0, out=below[1:])
        ranks = below[self.first] + below[self.last]
        ranks -= len(counts)
        ranks *= 0.5
        return ranks


def _columns(counts: Floats, width: int) -> list[Floats]:
    """Columns in groups of `width`, each contiguous."""
    starts = range(0, counts.shape[1], width)
    return [np.ascontiguousarray(counts[:, s : s + width]) for s in starts]
