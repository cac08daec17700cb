"""Confidence intervals of one location from few values, one for each seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

METHODS = {
    "t": "t interval",
    "bootstrap": "bootstrap interval (BCa)",
    "sign": "sign-test interval of the median",
    "wilcoxon": "signed-rank interval",
}
LEAST = {"t": 3, "bootstrap": 8, "sign": 6, "wilcoxon": 6}  # values below which it means little
RESAMPLES = 9999


@dataclass(frozen=True)
class Interval:
    """An estimate between its confidence limits."""

    low: float
    estimate: float
    high: float


def interval_of(values: np.ndarray, method: str, confidence: float = 0.95) -> Interval:
    """Return the confidence interval of the location of ``values``.

    Values that do not vary give an interval without width: the data hold no hint of how much
    other seeds would differ, and the verdict says so.
    """
    if method not in METHODS:
        raise ValueError(f"`method` must be one of {', '.join(METHODS)}, got {method!r}")
    least = LEAST[method]
    if len(values) < least:
        raise ValueError(f"the {METHODS[method]} needs at least {least} seeds, got {len(values)}")
    if spread(values) == 0:
        return Interval(float(values[0]), float(values[0]), float(values[0]))
    intervals: dict[str, Callable[[np.ndarray, float], Interval]] = {
        "t": t_interval,
        "bootstrap": bootstrap_interval,
        "sign": sign_interval,
        "wilcoxon": signed_rank_interval,
    }
    return intervals[method](values, confidence)


def t_interval(values: np.ndarray, confidence: float) -> Interval:
    """Mean ± Student's t times the standard error (exact for normal values)."""
    from scipy.stats import t

    n, mean = len(values), float(values.mean())
    half = float(t.ppf((1 + confidence) / 2, n - 1) * values.std(ddof=1) / np.sqrt(n))
    return Interval(mean - half, mean, mean + half)


def welch_interval(a: np.ndarray, b: np.ndarray, confidence: float) -> tuple[Interval, float]:
    """Difference of two means with unequal variances; also the pooled standard deviation."""
    from scipy.stats import t

    va, vb = a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)
    mean = float(a.mean() - b.mean())
    pooled = float(np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2))
    if spread(a) == 0 and spread(b) == 0:
        return Interval(mean, mean, mean), 0.0
    freedom = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1))
    half = float(t.ppf((1 + confidence) / 2, freedom) * np.sqrt(va + vb))
    return Interval(mean - half, mean, mean + half), pooled


def bootstrap_interval(values: np.ndarray, confidence: float) -> Interval:
    """Mean with the bias-corrected and accelerated bootstrap (Efron 1987), fixed resamples."""
    from scipy.stats import bootstrap

    found = bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=confidence,
        method="BCa",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Interval(float(found.low), float(values.mean()), float(found.high))


def sign_interval(values: np.ndarray, confidence: float) -> Interval:
    """Median between two order statistics, exact for any continuous distribution."""
    from scipy.stats import binom

    ordered, n = np.sort(values), len(values)
    # The widest k with P(Binomial(n, 1/2) ≤ k) ≤ α/2: the (k+1)-th value from either end.
    outside = (1 - confidence) / 2
    cut = int(np.searchsorted(binom.cdf(np.arange(n), n, 0.5), outside, side="right"))
    _require_reach(cut, n, confidence, "sign-test")
    return Interval(float(ordered[cut - 1]), float(np.median(values)), float(ordered[n - cut]))


def signed_rank_interval(values: np.ndarray, confidence: float) -> Interval:
    """Median of pairwise means (Hodges–Lehmann) with Tukey's exact signed-rank interval."""
    n = len(values)
    i, j = np.triu_indices(n)
    walsh = np.sort((values[i] + values[j]) / 2)
    # The exact null distribution of the rank sum: each rank is counted or not, at even odds.
    counts = np.ones(1)
    for rank in range(1, n + 1):
        counts = np.convolve(counts, np.eye(1, rank + 1)[0] + np.eye(1, rank + 1, rank)[0])
    cdf = np.cumsum(counts) / 2.0**n
    cut = int(np.searchsorted(cdf, (1 - confidence) / 2, side="right"))
    _require_reach(cut, n, confidence, "signed-rank")
    return Interval(float(walsh[cut - 1]), float(np.median(walsh)), float(walsh[-cut]))


def wilson_interval(successes: int, trials: int, confidence: float) -> Interval:
    """Wilson's score interval of a proportion (1927), sensible at 0 and 1 too."""
    from scipy.stats import norm

    z = float(norm.ppf((1 + confidence) / 2))
    p, n = successes / trials, trials
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return Interval(max(0.0, float(centre - half)), p, min(1.0, float(centre + half)))


def _require_reach(cut: int, n: int, confidence: float, what: str) -> None:
    if cut < 1:
        raise ValueError(
            f"{n} seeds cannot give a {what} interval at `confidence` {confidence}; take more"
        )


def spread(values: np.ndarray) -> float:
    """Return the standard deviation; exactly 0 where only rounding differs."""
    if np.ptp(values) <= 1e-12 * np.abs(values).max():
        return 0.0
    return float(values.std(ddof=1))
