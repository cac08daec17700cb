"""Expected entropy of softmax over n random scores, exact at every n, by two nested integrals.

For independent scores the sum Z = Σ exp(λ s_i) enters only through its Laplace transform, and that
factorises: with w = exp(λ s - y),

    P(log Z + Gumbel <= y) = E exp(-Z e^{-y}) = φ(y)^n,         φ(y) = E exp(-w)
    E log Z   = ∫ y d(φ^n) - γ                                   (γ is Euler's constant)
    E Σ p s   = n ∫ E[s w exp(-w)] φ(y)^{n-1} dy                 (since 1/Z = ∫ exp(-tZ) dt)
    E Σ p²    = n ∫ E[w² exp(-w)] φ(y)^{n-1} dy

and E H = E log Z - λ E Σ p s: averages over the scores ("quenched"), not the entropy of averaged
sums. The cost does not depend on n, which may be 10 or 10¹². A *planted* key of fixed score Δ among
n - 1 random ones adds its own factor exp(-e^{λΔ - y}).

Scores are given by their quantiles on a uniform grid of log-odds v = log(u / (1-u)), where both
tails are exponential and the trapezoidal rule converges faster than any power of the step.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from lib.attention._validation import Floats

# Log-odds beyond which nothing matters: tails of 1e-20 below, of 1e-30 above (the largest score
# among n = 1e12 keys is seen down to a probability of 1e-18).
LOWEST, HIGHEST = -45.0, 70.0
# Steps of the grids. Both integrands contain exp(-e^x), for which the trapezoidal rule with step h
# errs by about exp(-π²/h): below 1e-11 at these, in units of the width over which they change.
COARSEST_STEP, STEP, Y_STEP = 0.2, 0.4, 0.35
FINEST = 6  # halvings of the coarsest step


class Expectations(NamedTuple):
    """Averages over the random scores."""

    entropy: float
    participation: float  # E Σ p², between 1/n and 1
    planted_weight: float  # E p of the planted key; 0 without one


class _Scores(NamedTuple):
    """n keys whose scores take the value `values` with probability `shares`, and a planted one."""

    values: Floats
    shares: Floats
    n: float
    planted: float | None


def expectations(
    quantile: Callable[[Floats], Floats], n: float, scale: float, planted: float | None = None
) -> Expectations:
    """Averages of softmax(λ s) over n scores, of which one may be planted.

    Parameters
    ----------
    quantile : callable
        Score as a smooth function of the log-odds of its rank. Scores count from any origin; near
        an upper edge they need it there, or neighbours of many keys round to one number.
    n : float
        Number of keys, the planted one included.
    scale : float
        λ in [0, inf).
    planted : float, optional
        Score of the planted key.

    Raises
    ------
    ValueError
        If λ is so large that single points of the grid decide (entropies below about 0.02 nats).
    """
    low, high = quantile(np.log(max(n, 2.0)) + np.array([-0.5, 0.5]))
    steepness = scale * float(high - low)  # how λs changes with the log of the rank, at the top
    halvings = max(0, int(np.ceil(np.log2(max(COARSEST_STEP * steepness / STEP, 1.0)))))
    if halvings > FINEST:
        largest = 2**FINEST * STEP / (COARSEST_STEP * float(high - low))
        raise ValueError(
            f"`scale` must be below {largest:.3g} for n = {n:g} (beyond it one key has nearly "
            f"all the weight), got {scale:g}"
        )
    values, shares = _grid(quantile, halvings)
    scores = _Scores(values, shares, n - (planted is not None), planted)
    return _expectations(scores, scale, max(1.0, 0.5 * steepness))


@lru_cache(maxsize=64)  # some quantiles (the sphere's) cost more than the integrals
def _grid(quantile: Callable[[Floats], Floats], halvings: int) -> tuple[Floats, Floats]:
    step = COARSEST_STEP / 2**halvings
    v = np.arange(LOWEST, HIGHEST, step)
    return quantile(v), step * expit(v) * expit(-v)


def discrete_expectations(values: Floats, shares: Floats, n: float, scale: float) -> Expectations:
    """The same for scores that take finitely many values with the given probabilities."""
    return _expectations(_Scores(values, shares, n, None), scale, 1.0)


def _expectations(scores: _Scores, scale: float, width: float) -> Expectations:
    """The integrals over y, by the trapezoidal rule in steps of the distribution's `width`."""
    keys = scores.n + (scores.planted is not None)
    if scale == 0 or keys == 1:
        return Expectations(float(np.log(keys)), 1 / keys, (keys - scores.n) / keys)
    low, high = _support(scores, scale)
    y, step = np.linspace(low, high, int((high - low) / (Y_STEP * width)) + 8, retstep=True)
    rows = max(1, 1_000_000 // scores.values.size)
    parts = [_integrands(scores, scale, y[i : i + rows]) for i in range(0, y.size, rows)]
    below, mean, squares, planted = np.concatenate(parts, axis=-1)
    above = 1.0 - below
    log_total = low + step * (above.sum() - 0.5 * (above[0] + above[-1])) - np.euler_gamma
    entropy = log_total - scale * step * mean.sum()
    return Expectations(float(entropy), float(step * squares.sum()), float(step * planted.sum()))


def _integrands(scores: _Scores, scale: float, y: Floats) -> Floats:
    """P(log Z + Gumbel <= y), and the integrands of E Σ p s, E Σ p² and E p of the planted key."""
    w = _weight(scale * scores.values - y[:, None])  # (y, values)
    lost = np.expm1(-w)
    log_phi = _log_phi(-lost @ scores.shares)
    one = w * (1.0 + lost)  # w exp(-w)
    others = scores.n * np.exp((scores.n - 1) * log_phi) if scores.n > 1 else scores.n
    first = (one @ (scores.values * scores.shares)) * others
    second = ((one * w) @ scores.shares) * others
    every = np.exp(scores.n * log_phi)
    if scores.planted is None:
        return np.stack([every, first, second, np.zeros_like(y)])
    a = _weight(scale * scores.planted - y)
    keep = np.exp(-a)
    own = a * keep * every
    mean, squares = first * keep + scores.planted * own, second * keep + a * own
    return np.stack([every * keep, mean, squares, own])


def _weight(exponent: Floats) -> Floats:
    """exp, kept below overflow: beyond e^300 only exp(-w) = 0 matters."""
    return np.exp(np.minimum(exponent, 300.0))


def _log_phi(lost: Floats) -> Floats:
    """log φ from 1 - φ, which rounding may leave at 1 or a little above."""
    return np.log1p(-np.minimum(lost, 1 - 1e-16))


def _support(scores: _Scores, scale: float) -> tuple[float, float]:
    """Where log Z + Gumbel has its weight, up to 1e-18 below and 1e-17 above."""

    def log_below(y: float) -> float:
        below = _integrands(scores, scale, np.array([y]))[0, 0]
        return float(np.log(max(below, 1e-300)))

    def log_above(y: float) -> float:
        w = _weight(scale * scores.values - y)
        known = 0.0 if scores.planted is None else _weight(scale * scores.planted - y)
        return float(np.log(scores.n * (-np.expm1(-w) @ scores.shares) + known))

    known = [] if scores.planted is None else [scores.planted]
    top = scale * max([scores.values.max(), *known]) + np.log(scores.n + 2) + 50.0
    bottom = scale * scores.values.min() - 50.0
    high = brentq(lambda y: log_above(y) + 39.0, bottom, top, xtol=0.1)
    low = brentq(lambda y: log_below(y) + 41.0, bottom, high, xtol=0.1)
    return low, high
