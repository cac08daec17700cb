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
    state = _boltzmann(rows, as_scale(scale, rows.shape[:-1]))
    return np.moveaxis(state.weights / state.total[..., None], -1, axis)


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
    return _times(scale, rows.max(axis=-1)) + _boltzmann(rows, scale).log_total


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
    >>> bool(np.isclose(entropy_of_scores([0.0, -1.0, -2.0, -np.inf], scale=0.0), np.log(3)))
    True
    """
    rows, _ = as_scores(scores, axis)
    scale = as_scale(scale, rows.shape[:-1])
    return _entropy(_boltzmann(rows, scale), scale)


def score_mean(scores: ArrayLike, scale: ArrayLike = 1.0, axis: int = -1) -> Floats:
    """E_p s = Σ p_i s_i, the mean score under the softmax weights.

    Parameters as in :func:`softmax`; one value per row. It is the slope of
    :func:`log_sum_exp` in λ.
    """
    rows, _ = as_scores(scores, axis)
    state = _boltzmann(rows, as_scale(scale, rows.shape[:-1]))
    return rows.max(axis=-1) - state.lost


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
    state = _boltzmann(rows, scale)
    return EntropyGap(
        divergence=_divergence_from_uniform(rows, scale, state.log_total),
        shortfall=_times(scale, state.lost),
    )


# --- computation on rows (..., n) that are already checked -------------------------------------


class _Boltzmann(NamedTuple):
    """exp z for z = λ (s - max s), and what follows from it."""

    weights: Floats  # exp z, (..., n); exactly 1 at a largest score, 0 where hidden
    drop: Floats  # max s - s, (..., n); 0 where hidden, which has no weight
    total: Floats  # Σ exp z
    log_total: Floats
    lost: Floats  # max s - E_p s >= 0


def _boltzmann(rows: Floats, scale: Floats) -> _Boltzmann:
    drop = rows.max(axis=-1, keepdims=True) - rows
    with np.errstate(invalid="ignore", over="ignore"):
        fall = scale[..., None] * drop
    if np.isinf(scale).any():
        fall = np.where(drop == 0, 0.0, fall)  # a largest score keeps its weight: inf · 0 = 0
    weights = np.exp(np.negative(fall, out=fall), out=fall)
    hidden = np.isinf(drop)
    if hidden.any():  # also at λ = 0, where 0 · inf is no number
        weights = np.where(hidden, 0.0, weights)
        drop = np.where(hidden, 0.0, drop)
    rest = _sum_without_one_largest(weights)
    total = 1.0 + rest
    # Sums, not vecdot: BLAS starts threads for long rows, which costs more than the product.
    return _Boltzmann(weights, drop, total, np.log1p(rest), (weights * drop).sum(axis=-1) / total)


def _sum_without_one_largest(weights: Floats) -> Floats:
    """Σ exp z less one term that is exactly 1, which keeps a tiny remainder's digits."""
    first = weights.argmax(axis=-1, keepdims=True)
    np.put_along_axis(weights, first, 0.0, axis=-1)
    rest = weights.sum(axis=-1)
    np.put_along_axis(weights, first, 1.0, axis=-1)
    return rest


def _entropy(state: _Boltzmann, scale: Floats) -> Floats:
    return state.log_total + _times(scale, state.lost)


def entropy_and_variance(rows: Floats, scale: Floats) -> tuple[Floats, Floats]:
    """Entropy and Var_p(s) of checked rows; shared with the solver in `scaling`."""
    state = _boltzmann(rows, scale)
    centred = state.drop - state.lost[..., None]
    variance = (state.weights * centred * centred).sum(axis=-1) / state.total
    return _entropy(state, scale), variance


def log_visible(rows: Floats) -> Floats:
    """log n, with n the number of keys that are not hidden."""
    return np.log((rows > -np.inf).sum(axis=-1))


def mean_drop(rows: Floats) -> Floats:
    """max s - mean s over the visible keys, as a sum of non-negative terms."""
    visible = rows > -np.inf
    share = 1.0 / visible.sum(axis=-1, keepdims=True)
    return (np.where(visible, rows.max(axis=-1, keepdims=True) - rows, 0.0) * share).sum(axis=-1)


def _times(scale: Floats, value: Floats) -> Floats:
    """λ · value with the limit that is meant where value = 0: inf · 0 = 0."""
    with np.errstate(invalid="ignore", over="ignore"):
        return np.where(value == 0, 0.0, scale * value)[()]


def _divergence_from_uniform(rows: Floats, scale: Floats, log_total: Floats) -> Floats:
    """KL(u || p) = log mean exp(t), t = λ (s - mean s), over the visible keys."""
    fall = _times(scale, mean_drop(rows))  # λ (max s - mean s)
    direct = np.maximum(log_total - log_visible(rows) + fall, 0.0)
    # Close to uniform weights the line above cancels to rounding noise. Since mean t = 0, there
    # log mean exp(t) = log1p(mean(exp(t) - 1 - t)), and every term of that mean is >= 0.
    near = fall < 0.5
    if not np.any(near):
        return direct
    visible = rows > -np.inf
    small_scale = np.where(near, scale, 0.0)[..., None]
    below = np.where(visible, rows.max(axis=-1, keepdims=True) - rows, 0.0)
    t = np.where(near, fall, 0.0)[..., None] - _times(small_scale, below)
    excess = np.where(visible, _exp_beyond_line(t), 0.0)
    return np.where(near, np.log1p(excess.sum(axis=-1) / visible.sum(axis=-1)), direct)[()]


def _exp_beyond_line(t: Floats) -> Floats:
    """exp(t) - 1 - t >= 0, by its series where the difference would cancel."""
    series = t**2 / 2 * (1 + t / 3 * (1 + t / 4 * (1 + t / 5 * (1 + t / 6))))
    return np.where(np.abs(t) < 1e-2, series, np.expm1(t) - t)
