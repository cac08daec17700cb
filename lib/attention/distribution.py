"""Softmax weights at an inverse temperature, and their entropy.

    p_i = exp(λ s_i) / Σ_j exp(λ s_j),      H = -Σ_i p_i log p_i      (nats)

for scores s_1 … s_n along one axis and a scale λ in [0, inf]. A score of -inf hides its key; n
counts the visible ones. The entropy's two bounds by the article https://kexue.fm/archives/9034,
exact: H >= log n - λ (max s - mean s), and what lies between the two sides.

Everything is computed from z = λ (s - max s) <= 0, so nothing overflows, and

    H = log Σ exp z + Σ p (-z)

is a sum of two terms that cannot be negative, so nothing cancels: entropies far below the
rounding error of the weights come out with full relative precision.

`scale` always broadcasts against the *rows*, that is against the scores' shape without the keys'
axis: one λ for all rows, one per row, or (k, 1) for k values of λ on each of many rows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lib.attention._validation import Floats, as_scale, as_scores, keys_axis, real_array


class EntropyGap(NamedTuple):
    """The two parts of H - (log n - λ(max s - mean s)); neither can be negative.

    Attributes
    ----------
    divergence : float or ndarray
        KL(u || p) of the uniform weights u from p: the error of averaging scores before
        exponentiating.
    shortfall : float or ndarray
        λ (max s - E_p s): the error of taking the largest score for the weighted mean.
    """

    divergence: Floats
    shortfall: Floats

    @property
    def total(self) -> Floats:
        """The whole gap between the entropy and its floor."""
        return self.divergence + self.shortfall


def softmax(scores: ArrayLike, scale: ArrayLike = 1.0, axis: int = -1) -> Floats:
    """Weights p_i = exp(λ s_i) / Σ_j exp(λ s_j).

    Parameters
    ----------
    scores : array_like of shape (..., n)
        Real scores; -inf hides a key and gives it weight exactly 0.
    scale : array_like, default=1.0
        Inverse temperature λ in [0, inf], broadcast against the rows. 0 gives uniform weights
        over the visible keys, inf uniform weights over the largest scores.
    axis : int, default=-1
        The keys' axis.

    Returns
    -------
    ndarray of shape (..., n)
        Non-negative, summing to 1 along `axis`.

    Examples
    --------
    >>> softmax([0.0, 1.0], scale=[0.0, np.inf])
    array([[0.5, 0.5],
           [0. , 1. ]])
    """
    rows, axis = as_scores(scores, axis)
    weights, total, _ = _boltzmann(rows, as_scale(scale, rows.shape[:-1]))
    weights /= total[..., None]
    return np.moveaxis(weights, -1, axis)


def log_sum_exp(scores: ArrayLike, scale: ArrayLike = 1.0, axis: int = -1) -> Floats:
    """log Σ_j exp(λ s_j) over the visible keys, without overflow; at λ = 0 that is log n.

    Parameters and conventions as in :func:`softmax`.

    Returns
    -------
    float or ndarray
        One value per row (shape of rows and `scale`, broadcast).
    """
    rows, _ = as_scores(scores, axis)
    scale = as_scale(scale, rows.shape[:-1])
    _, _, log_total = _boltzmann(rows, scale)
    top = rows.max(axis=-1)
    with np.errstate(invalid="ignore", over="ignore"):
        return np.where(top == 0, 0.0, scale * top)[()] + log_total


def entropy(p: ArrayLike, axis: int = -1) -> Floats:
    """H = -Σ p_i log p_i in nats, with 0 log 0 = 0.

    Parameters
    ----------
    p : array_like of shape (..., n)
        Non-negative weights that sum to 1 along `axis`, up to the square root of their dtype's
        rounding unit; they are not renormalised.
    axis : int, default=-1
        The axis of the weights.

    Returns
    -------
    float or ndarray
        Between 0 and log n.

    See Also
    --------
    entropy_of_scores : the same from scores; keeps its precision where p rounds to 0 and 1.
    """
    given = real_array(p, "p")
    axis = keys_axis(given, axis, "p")
    weights = given.astype(np.float64, copy=False)
    bad = ~(np.isfinite(weights) & (weights >= 0))
    if bad.any():
        raise ValueError(f"`p` must be finite and not negative, got {weights[bad].flat[0]}")
    error = np.abs(weights.sum(axis=axis) - 1.0).max()
    if error > np.sqrt(np.finfo(given.dtype).eps):
        raise ValueError(f"`p` must sum to 1 along axis {axis}, got a sum that is {error:.3g} off")
    logs = np.log(weights, out=np.zeros_like(weights), where=weights > 0)
    return np.maximum(-(weights * logs).sum(axis=axis), 0.0)[()]


def entropy_of_scores(scores: ArrayLike, scale: ArrayLike = 1.0, axis: int = -1) -> Floats:
    """Entropy of softmax(λ s), from the scores: H = log Σ exp(λ s) - λ Σ p s.

    Parameters and conventions as in :func:`softmax`. The limits are taken: log n at λ = 0, the
    logarithm of the number of largest scores at λ = inf.

    Returns
    -------
    float or ndarray
        One entropy per row (shape of rows and `scale`, broadcast), never negative, and with
        small relative error even where H itself is tiny.

    Examples
    --------
    >>> entropy_of_scores([0.0, -1.0, -2.0, -np.inf], scale=0.0) == np.log(3)
    True
    """
    rows, _ = as_scores(scores, axis)
    return entropy_and_variance(rows, as_scale(scale, rows.shape[:-1]))[0]


def score_mean(scores: ArrayLike, scale: ArrayLike = 1.0, axis: int = -1) -> Floats:
    """E_p s = Σ p_i s_i, the mean score under the softmax weights.

    Parameters as in :func:`softmax`; one value per row. It is the slope of
    :func:`log_sum_exp` in λ.
    """
    rows, _ = as_scores(scores, axis)
    weights, total, _ = _boltzmann(rows, as_scale(scale, rows.shape[:-1]))
    return rows.max(axis=-1) - _mean(weights, total, _drop(rows))


def score_variance(scores: ArrayLike, scale: ArrayLike = 1.0, axis: int = -1) -> Floats:
    """Var_p s, the variance of the scores under the softmax weights.

    Parameters as in :func:`softmax`; one value per row. It says how fast the entropy falls:
    dH/dλ = -λ Var_p(s).
    """
    rows, _ = as_scores(scores, axis)
    scale = as_scale(scale, rows.shape[:-1])
    return entropy_and_variance(rows, scale)[1]


def mean_field_entropy(scores: ArrayLike, scale: ArrayLike = 1.0, axis: int = -1) -> Floats:
    """log n - λ (max s - mean s): the estimate of https://kexue.fm/archives/9034.

    It is a floor: never above the entropy, whatever the scores and λ >= 0, and below 0 once λ is
    large. Parameters as in :func:`softmax`; n, max and mean are over the visible keys; one value
    per row. At λ = inf the floor is -inf, or log n where all scores are equal.
    """
    rows, _ = as_scores(scores, axis)
    scale = as_scale(scale, rows.shape[:-1])
    return log_visible(rows) - _times(scale, mean_drop(rows))


def entropy_gap(scores: ArrayLike, scale: ArrayLike = 1.0, axis: int = -1) -> EntropyGap:
    """What the floor misses: H - (log n - λ(max s - mean s)) = KL(u || p) + λ(max s - E_p s).

    Parameters as in :func:`softmax`. Both parts are computed directly, not as a difference of
    entropies, so they are accurate (and not negative) also where they are tiny.

    Returns
    -------
    EntropyGap
        Named pair (`divergence`, `shortfall`), one value per row each. Both are 0 at λ = 0;
        at λ = inf the shortfall is 0 and the divergence inf (0 where all scores are equal).
    """
    rows, _ = as_scores(scores, axis)
    scale = as_scale(scale, rows.shape[:-1])
    weights, total, log_total = _boltzmann(rows, scale)
    lost = _mean(weights, total, _drop(rows))  # max s - E_p s
    return EntropyGap(
        divergence=_divergence_from_uniform(rows, scale, log_total),
        shortfall=_times(np.where(lost == 0, 0.0, scale)[()], lost),
    )


# --- computation on rows (..., n) that are already checked -------------------------------------


def entropy_and_variance(rows: Floats, scale: Floats) -> tuple[Floats, Floats]:
    """Entropy and Var_p(s) of checked rows; shared with the solver in `scaling`."""
    weights, total, log_total = _boltzmann(rows, scale)
    drop = _drop(rows)
    lost = _mean(weights, total, drop)
    # At λ = inf only the largest scores have weight, and λ · lost tends to 0, not to inf · 0.
    entropy_ = log_total + _times(np.where(lost == 0, 0.0, scale)[()], lost)
    with np.errstate(over="ignore"):
        # Weight 0 (hidden, or underflowed) beats any distance, also one that overflows.
        spread = np.where(weights > 0, drop - lost[..., None], 0.0)
        variance = _mean(weights, total, spread**2)
    return entropy_[()], variance[()]


def log_visible(rows: Floats) -> Floats:
    """log n, with n the number of keys that are not hidden."""
    return np.log((rows > -np.inf).sum(axis=-1))


def mean_drop(rows: Floats) -> Floats:
    """max s - mean s over the visible keys, as a sum of non-negative terms."""
    visible = rows > -np.inf
    share = 1.0 / visible.sum(axis=-1, keepdims=True)
    return (np.where(visible, _drop(rows), 0.0) * share).sum(axis=-1)


def _drop(rows: Floats) -> Floats:
    """max s - s >= 0, finite also for scores whose difference overflows; inf where hidden."""
    with np.errstate(over="ignore"):
        drop = rows.max(axis=-1, keepdims=True) - rows
    return np.where(rows == -np.inf, np.inf, np.minimum(drop, np.finfo(np.float64).max))


def _times(scale: Floats, drop: Floats) -> Floats:
    """λ · drop with the limits that are meant: inf · 0 = 0 (a largest score keeps its weight)."""
    with np.errstate(invalid="ignore", over="ignore"):
        product = scale * drop
    return np.where(drop == 0, 0.0, product)[()]


def _boltzmann(rows: Floats, scale: Floats) -> tuple[Floats, Floats, Floats]:
    """exp z, Σ exp z and log Σ exp z, for z = λ (s - max s)."""
    drop = _drop(rows)
    with np.errstate(invalid="ignore", over="ignore"):
        weights = np.exp(-np.where(drop == 0, 0.0, scale[..., None] * drop))
    hidden = np.isinf(drop)
    if hidden.any():  # also at λ = 0, where 0 · inf is no number
        weights = np.where(hidden, 0.0, weights)
    first = drop.argmin(axis=-1, keepdims=True)  # one largest score: its weight is exactly 1
    others = weights.copy()
    np.put_along_axis(others, np.broadcast_to(first, (*weights.shape[:-1], 1)), 0.0, axis=-1)
    rest = others.sum(axis=-1)
    return weights, 1.0 + rest, np.log1p(rest)


def _mean(weights: Floats, total: Floats, values: Floats) -> Floats:
    """Σ w v / Σ w, where a weight of 0 takes no part, whatever its value."""
    with np.errstate(invalid="ignore", over="ignore"):
        terms = np.where(weights > 0, weights * values, 0.0)
    return (terms.sum(axis=-1) / total)[()]


def _divergence_from_uniform(rows: Floats, scale: Floats, log_total: Floats) -> Floats:
    """KL(u || p) = log mean exp(t), t = λ (s - mean s), over the visible keys."""
    fall = _times(scale, mean_drop(rows))  # λ (max s - mean s)
    direct = log_total - log_visible(rows) + fall
    # Close to uniform weights the line above cancels to rounding noise. Since mean t = 0, there
    # log mean exp(t) = log1p(mean(exp(t) - 1 - t)), and every term of that mean is >= 0.
    near = np.broadcast_to(fall < 0.5, direct.shape)
    if not near.any():
        return np.maximum(direct, 0.0)[()]
    visible = rows > -np.inf
    with np.errstate(invalid="ignore", over="ignore"):
        t = np.where(
            visible, np.minimum(fall, 0.5)[..., None] - _times(scale[..., None], _drop(rows)), 0.0
        )
        excess = np.where(near[..., None] & visible, _exp_beyond_line(t), 0.0)
    small = np.log1p(excess.sum(axis=-1) / visible.sum(axis=-1))
    return np.where(near, small, np.maximum(direct, 0.0))[()]


def _exp_beyond_line(t: Floats) -> Floats:
    """exp(t) - 1 - t >= 0, by its series where the difference would cancel."""
    series = t**2 / 2 * (1 + t / 3 * (1 + t / 4 * (1 + t / 5 * (1 + t / 6))))
    return np.where(np.abs(t) < 1e-2, series, np.expm1(t) - t)
