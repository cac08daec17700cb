"""How uneven the counts N_k are: four numbers, each of the counts alone.

Skewness jumps from sample to sample, since a few hubs make it; `robin_hood` is steadier.
"""

from __future__ import annotations

from numpy.typing import ArrayLike

from lib import _checks as check
from lib._checks import Floats

__all__ = ["antihub_rate", "hub_score", "robin_hood", "skewness"]


def skewness(counts: ArrayLike) -> float:
    """Third central moment over the cube of the standard deviation, E(N - μ)³ / σ³.

    Of the population, as in `scipy.stats.skew`; pandas gives the other one. NaN if all counts are
    equal. Random lists would give about 1/√k, that of a Poisson law.

    Parameters
    ----------
    counts : array_like of shape (n,)

    References
    ----------
    Radovanović et al. 2010, equation 1.
    """
    away = _counts(counts)
    away = away - away.mean()
    variance = float((away**2).mean())
    return float((away**3).mean()) / variance**1.5 if variance > 0.0 else float("nan")


def hub_score(counts: ArrayLike, k: int) -> float:
    """Largest count over the mean one, max N_k / k: 1 if all are equal, at most (n - 1) / k.

    The division makes different k compare. The mean is k where the points are the queries; with
    other queries, divide by m k / n yourself. The largest N_k itself is the "max hub" of the
    literature (Radovanović et al. 2010; Tomašev et al. 2014).

    Parameters
    ----------
    counts : array_like of shape (n,)
    k : int
    """
    return float(_counts(counts).max() / check.whole(k, "k", 1))


def antihub_rate(counts: ArrayLike) -> float:
    """Share of the points that are in no list at all, N_k = 0.

    Parameters
    ----------
    counts : array_like of shape (n,)
    """
    return float((_counts(counts) == 0).mean())


def robin_hood(counts: ArrayLike) -> float:
    """Share of all entries that would have to move to make counts equal: Σ abs(N - μ) / (2 Σ N).

    Also called the Hoover index; from 0 to 1.

    Parameters
    ----------
    counts : array_like of shape (n,)
        Not all 0.

    References
    ----------
    Feldbauer et al., Fast approximate hubness reduction, 2018.
    """
    n = _counts(counts)
    if not n.any():
        raise ValueError("`counts` must not all be 0")
    return float(abs(n - n.mean()).sum() / (2 * n.sum()))


def _counts(counts: ArrayLike) -> Floats:
    n = check.vector(counts, "counts")
    if (n < 0).any():
        raise ValueError(f"`counts` must not be negative, got {n.min():g}")
    return n
