"""Which inverse temperature keeps the entropy of attention where it is, as the keys grow in number?

- the article's law λ = κ log n / d (https://kexue.fm/archives/9034, 8823) and the factor
  log n / log n0 by which it multiplies the logits of a model trained at length n0;
- the exact answer for scores at hand: the λ at which H(λ) takes a given value. H falls strictly
  (dH/dλ = -λ Var_p s), so it is unique; the article's floor H >= log n - λ(max s - mean s) is the
  lower end of the bracket in which it is sought;
- the entropy curve of a reader's own scores, or queries and keys, over growing random subsets of
  the keys.

Left out: schedules for particular score distributions, which stand in `families` and `sphere`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t as student_t

from lib.attention import _validation as check
from lib.attention._validation import Floats
from lib.attention.distribution import entropy_and_variance, log_visible, mean_drop

# A head trained at 512 tokens is left as it was: λ = log n / (log 512 · √d) (archives/8823).
DEFAULT_LENGTH = 512

# exp of this is the largest float, to within rounding.
LARGEST_LOG = 709.78

TOO_CLOSE = (
    "`scores` differ by so little, at all or beside their range, that the scale for `target` is "
    "beyond the largest float"
)

Scale = float | Callable[[int], float]


def entropy_invariant_scale(n: ArrayLike, d: int, kappa: float | None = None) -> Floats:
    """λ = κ log n / d, the scale of https://kexue.fm/archives/9034 for dot products q·k.

    Parameters
    ----------
    n : array_like
        Numbers of visible keys, each at least 1. One key gives λ = 0: its weight is 1 at any λ.
    d : int
        Dimension of queries and keys.
    kappa : float, optional
        Default √d / log 512, with which λ = log_512(n) / √d: the usual 1/√d at 512 keys. Use
        √d / log n0 for a model trained at length n0.

    Returns
    -------
    float or ndarray
        λ, of the shape of `n`.

    Examples
    --------
    >>> float(entropy_invariant_scale(512, 64))
    0.125
    """
    d = check.whole(d, "d", at_least=1)
    n = check.counts(n, "n")
    if kappa is None:
        return (np.log(n) / np.log(DEFAULT_LENGTH) / np.sqrt(d))[()]
    return (check.positive(kappa, "kappa") * np.log(n) / d)[()]


def length_factor(n: ArrayLike, trained_length: float, *, minimum: float = 1.0) -> Floats:
    """log n / log n0: what the logits of a model trained at length n0 are multiplied by at n.

    Parameters
    ----------
    n : array_like
        Numbers of visible keys, each at least 1.
    trained_length : float
        n0, at least 2.
    minimum : float, default=1.0
        The factor never falls below this. 1 leaves lengths below n0 untouched, as Qwen's
        published code does; 0 takes the law as it stands (and flattens short rows).

    Returns
    -------
    float or ndarray
        Factor of the shape of `n`; the weights become p^a / Σ p^a with a the factor.
    """
    n = check.counts(n, "n")
    n0 = float(check.counts(check.finite(trained_length, "trained_length"), "trained_length", 2))
    minimum = check.finite(minimum, "minimum")
    if minimum < 0:
        raise ValueError(f"`minimum` must not be negative, got {minimum}")
    return np.maximum(np.log(n) / np.log(n0), minimum)[()]


def scale_for_entropy(scores: ArrayLike, target: ArrayLike, axis: int = -1) -> Floats:
    """The λ at which softmax(λ s) has the entropy `target`, for each row.

    Parameters
    ----------
    scores : array_like of shape (..., n)
        Real scores; -inf hides a key.
    target : array_like
        Entropy in nats, broadcast against the rows. It must lie strictly between log m, with m
        the number of keys that share the largest score, and log n. The two ends themselves give
        the limits: λ = 0 at log n, λ = inf at log m; so does a target beyond them by no more than
        1e-12, which an entropy with rounding error may be.
    axis : int, default=-1
        The keys' axis.

    Returns
    -------
    float or ndarray
        λ in [0, inf], one per row. Where all visible scores are equal the entropy is log n at
        every λ; the smallest, 0, is returned.

    Raises
    ------
    ValueError
        If no λ gives the target; the message names the row and its two ends.

    Examples
    --------
    >>> scores = np.array([0.0, 1.0, 3.0])
    >>> lam = scale_for_entropy(scores, 0.5)
    >>> from lib.attention import entropy_of_scores
    >>> round(float(entropy_of_scores(scores, lam)), 12)
    0.5
    """
    rows, _ = check.as_scores(scores, axis)
    target = check.real_array(target, "target").astype(np.float64, copy=False)
    shape = check.broadcast_against_rows(target, rows.shape[:-1], "target")
    n = rows.shape[-1]
    flat = np.broadcast_to(rows, (*shape, n)).reshape(-1, n)
    wanted = np.broadcast_to(target, shape).reshape(-1)
    lowest, highest = _ends(flat)
    _refuse_unreachable(wanted, lowest, highest, shape)

    at_highest, at_lowest = _at_ends(wanted, lowest, highest)
    scale = np.where(at_highest, 0.0, np.inf)
    inside = np.flatnonzero(~(at_highest | at_lowest))
    if inside.size:
        unit, exponent = _unit_scores(flat[inside])
        found = _solve_falling(
            lambda lam, active: entropy_and_variance(unit[active], lam),
            wanted[inside],
            ends=(lowest[inside], highest[inside]),
            first=(highest[inside] - wanted[inside]) / mean_drop(unit),
        )
        scale[inside] = _undo_unit(found, exponent)
    return scale.reshape(shape)[()]


def scale_for_mean_entropy(scores: ArrayLike, target: float, axis: int = -1) -> float:
    """The one λ at which the entropies of all rows have the mean `target`: a scale for a head.

    Parameters and limits as in :func:`scale_for_entropy`, except that `target` is a single
    number between the rows' mean log m and mean log n.

    Returns
    -------
    float
        λ in [0, inf].
    """
    rows, _ = check.as_scores(scores, axis)
    wanted = np.array([check.finite(target, "target")])
    flat = rows.reshape(-1, rows.shape[-1])
    lowest, highest = (end.mean(keepdims=True) for end in _ends(flat))
    _refuse_unreachable(wanted, lowest, highest, ())
    at_highest, at_lowest = _at_ends(wanted, lowest, highest)
    if at_highest:
        return 0.0
    if at_lowest:
        return float("inf")
    unit, exponent = _unit_scores(flat, together=True)

    def mean_entropy_and_variance(lam: Floats, active: Floats) -> tuple[Floats, Floats]:
        entropy, variance = entropy_and_variance(unit, lam)
        return entropy.mean(keepdims=True), variance.mean(keepdims=True)

    found = _solve_falling(
        mean_entropy_and_variance,
        wanted,
        ends=(lowest, highest),
        first=(highest - wanted) / mean_drop(unit).mean(keepdims=True),
    )
    return float(_undo_unit(found, exponent)[0])


# --- the entropy curve of scores at hand --------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """A number with its interval; both ends are NaN where too few rows were given."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class EntropyCurve:
    """Entropy of attention against the number of keys.

    Attributes
    ----------
    sizes : ndarray of shape (m,)
        Numbers of keys n.
    scale : ndarray of shape (m,)
        The scale λ in force at each n.
    entropy, low, high : ndarray of shape (m,)
        Mean entropy over the queries and its interval.
    slope : Estimate
        Slope of the entropy in log n: 0 is invariant, 1 is what uniform weights have.
    reference : int
        Number of keys at which the entropy is to be kept.
    kept_scale : ndarray of shape (m,)
        The one λ at which the mean entropy over the queries is that of the reference; NaN where
        no λ reaches it (so many keys share the largest score).
    exponent : Estimate
        Power of log n with which `kept_scale` grows: 1 is the article's law, 1/2 that of
        independent Gaussian scores.
    """

    sizes: np.ndarray
    scale: Floats
    entropy: Floats
    low: Floats
    high: Floats
    slope: Estimate
    reference: int
    kept_scale: Floats
    exponent: Estimate


def entropy_curve(
    scores: ArrayLike,
    sizes: Sequence[int] | None = None,
    *,
    scale: Scale = 1.0,
    reference: int | None = None,
    rng: np.random.Generator,
    repeats: int = 1,
    level: float = 0.95,
) -> EntropyCurve:
    """How entropy grows as keys are added, and the scale that would keep it: on your own data.

    Every query draws its keys in a random order and uses the first n of them, so the curves of
    one query are nested and the slope is little disturbed by the draw.

    Parameters
    ----------
    scores : array_like of shape (queries, keys)
        Finite scores s = q·k, before any scale (a column of padding is no key: drop it).
    sizes : sequence of int, optional
        Growing numbers of keys, at least 2 of them, each from 2 to all keys. Default: powers of 2
        from 16 on (from 2 with fewer than 64 keys), and all keys.
    scale : float or callable, default=1.0
        λ, or a function of n such as ``lambda n: entropy_invariant_scale(n, d)``.
    reference : int, optional
        One of `sizes`; default the first. `kept_scale` keeps the entropy found there.
    rng : numpy.random.Generator
        Draws the subsets of keys.
    repeats : int, default=1
        Draws per query; they are averaged within the query.
    level : float, default=0.95
        Level of all intervals: Student's t over the queries; for `exponent` over blocks of
        queries, each of which solves for its own scale.

    Returns
    -------
    EntropyCurve
    """
    rows = _finite_matrix(scores)
    queries, keys = rows.shape
    sizes = _sizes(sizes, keys)
    reference = int(sizes[0]) if reference is None else check.whole(reference, "reference", 2)
    if reference not in sizes:
        raise ValueError(f"`reference` must be one of the sizes {sizes.tolist()}, got {reference}")
    repeats = check.whole(repeats, "repeats", at_least=1)
    level = check.finite(level, "level")
    if not 0 < level < 1:
        raise ValueError(f"`level` must lie strictly between 0 and 1, got {level}")
    rng = check.rng(rng)
    lam = np.array([_scale_at(scale, int(n)) for n in sizes])

    drawn = rng.permuted(np.repeat(rows, repeats, axis=0), axis=-1)
    entropies = np.stack(
        [entropy_and_variance(drawn[:, :n], x)[0] for n, x in zip(sizes, lam, strict=True)], axis=-1
    )
    per_query = entropies.reshape(queries, repeats, -1).mean(axis=1)  # (queries, sizes)
    mean, low, high = _interval(per_query, level)
    target = float(mean[list(sizes).index(reference)])
    kept = np.array([_reachable_scale(drawn[:, :n], target) for n in sizes])
    return EntropyCurve(
        sizes=sizes,
        scale=lam,
        entropy=mean,
        low=low,
        high=high,
        slope=Estimate(*(float(x) for x in _interval(_slopes(np.log(sizes), per_query), level))),
        reference=reference,
        kept_scale=kept,
        exponent=_exponent(drawn, sizes, kept, target, level, repeats),
    )


def entropy_curve_of_head(
    queries: ArrayLike,
    keys: ArrayLike,
    sizes: Sequence[int] | None = None,
    *,
    scale: Scale | None = None,
    **options: object,
) -> EntropyCurve:
    """:func:`entropy_curve` of the dot products of a head's queries and keys.

    Parameters
    ----------
    queries : array_like of shape (queries, d)
    keys : array_like of shape (keys, d)
        As they enter the dot product (after any rotary embedding).
    scale : float or callable, optional
        Default 1/√d.
    sizes, **options
        As in :func:`entropy_curve`; `rng` is required.

    Returns
    -------
    EntropyCurve
    """
    q, k = _finite_matrix(queries, "queries"), _finite_matrix(keys, "keys")
    if q.shape[1] != k.shape[1]:
        raise ValueError(
            f"`keys` must have the dimension of `queries`, {q.shape[1]}, got shape {k.shape}"
        )
    if scale is None:
        scale = 1.0 / np.sqrt(q.shape[1])
    return entropy_curve(q @ k.T, sizes, scale=scale, **options)


# --- solving a falling entropy ------------------------------------------------------------------


def _ends(rows: Floats) -> tuple[Floats, Floats]:
    """Entropies at λ = inf (log of the number of largest scores) and at λ = 0 (log n)."""
    ties = (rows == rows.max(axis=-1, keepdims=True)).sum(axis=-1)
    return np.log(ties), log_visible(rows)


def _at_ends(target: Floats, lowest: Floats, highest: Floats) -> tuple[np.ndarray, np.ndarray]:
    """Whether a target is one of the ends, to within a few roundings of its size."""
    return target >= highest * (1 - 1e-15), target <= lowest * (1 + 1e-15)


def _refuse_unreachable(
    target: Floats, lowest: Floats, highest: Floats, shape: tuple[int, ...]
) -> None:
    slack = 1e-12 * np.maximum(highest, 1.0)
    bad = ~((target >= lowest - slack) & (target <= highest + slack))
    if not bad.any():
        return
    i = int(np.flatnonzero(bad)[0])
    row = f" in row {check.first_index(bad.reshape(shape))}" if shape else ""
    raise ValueError(
        f"`target` must lie strictly between log(keys that share the largest score) = "
        f"{lowest[i]:.6g} and log(visible keys) = {highest[i]:.6g}, got {target[i]:.6g}{row}"
    )


def _unit_scores(rows: Floats, together: bool = False) -> tuple[Floats, np.ndarray]:
    """Scores moved to at most 0 and divided by 2^e, so that their range lies in [1/2, 1).

    Huge and tiny scores then are alike, and a division by a power of 2 rounds nothing. They are
    halved first, or the range of scores near the largest float would overflow.
    """
    half = rows / 2
    drop = half.max(axis=-1, keepdims=True) - half
    widest = np.where(np.isfinite(drop), drop, 0.0).max(axis=None if together else -1)
    if (widest == 0).any():  # the halves of the two smallest floats are equal
        raise ValueError(TOO_CLOSE)
    exponent = np.frexp(widest)[1]
    return -np.ldexp(drop, -exponent[..., None]), exponent + 1


def _undo_unit(lam: Floats, exponent: np.ndarray) -> Floats:
    with np.errstate(over="ignore"):
        scale = np.ldexp(lam, -exponent)
    if (lam >= 1e308).any() or np.isinf(scale).any():
        raise ValueError(TOO_CLOSE)
    return scale


@dataclass
class _Search:
    """Rows of a search in x = log λ: the bracket [low, high], the place and the last step."""

    low: Floats
    high: Floats
    x: Floats
    step: Floats

    def take(self, which: np.ndarray) -> _Search:
        return _Search(self.low[which], self.high[which], self.x[which], self.step[which])


def _solve_falling(
    evaluate: Callable[[Floats, np.ndarray], tuple[Floats, Floats]],
    target: Floats,
    ends: tuple[Floats, Floats],
    first: Floats,
) -> Floats:
    """λ > 0 with H(λ) = target, for many falling H at once.

    Newton's method on logit((H - lowest) / (highest - lowest)) in x = log λ, which is nearly
    straight in both tails, kept inside a bracket: a step that does not at least halve the one
    before it is replaced by bisection, and that bounds the number of steps.

    Parameters
    ----------
    evaluate : callable
        ``evaluate(λ, rows)`` gives H and Var_p(s) of the rows so numbered.
    target : ndarray of shape (m,)
    ends : pair of ndarray of shape (m,)
        H at λ = inf and at λ = 0.
    first : ndarray of shape (m,)
        Lower ends: the floor H >= log n - λ(max s - mean s) guarantees H(first) >= target.
    """
    lowest, highest = ends
    answer = np.log(first)
    rows = np.arange(answer.size)
    search = _Search(answer.copy(), np.full_like(first, np.inf), answer.copy(), np.ones_like(first))
    for _ in range(500):
        lam = np.exp(np.minimum(search.x, LARGEST_LOG))
        entropy, variance = evaluate(lam, rows)
        wanted = target[rows]
        above = entropy - wanted  # positive: λ is too small
        search.low = np.where(above >= 0, search.x, search.low)
        search.high = np.where(above <= 0, search.x, search.high)
        to_low, to_high = entropy - lowest[rows], highest[rows] - entropy
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            logit = np.log(to_low / (wanted - lowest[rows]) * ((highest[rows] - wanted) / to_high))
            steepness = lam**2 * variance / (to_low * to_high / (highest - lowest)[rows])
            newton = logit / steepness
        settled = (np.abs(above) <= 4e-16 * wanted) | (search.high - search.low <= 1e-15)
        search.step = np.where(settled, 0.0, _next_step(search, newton))
        search.x = search.x + search.step
        answer[rows] = search.x
        open_ = np.abs(search.step) > 4e-16 * np.maximum(np.abs(search.x), 1.0)
        rows, search = rows[open_], search.take(open_)
        if rows.size == 0:
            return np.exp(np.minimum(answer, LARGEST_LOG))
    raise ArithmeticError(f"no scale found for targets {target[rows][:3]} in 500 steps")


def _next_step(search: _Search, newton: Floats) -> Floats:
    """Newton's step where it can be trusted, else a bisection; a leap while there is no upper end.

    Leaps at least double, so that an upper end 1e300 away is found in about 10 of them.
    """
    x, low, high, last = search.x, search.low, search.high, np.abs(search.step)
    bounded = np.isfinite(high)
    middle = 0.5 * (np.where(bounded, high, low) + low) - x
    inside = (x + newton >= low) & (x + newton <= high)
    trusted = inside & (newton != 0) & (np.abs(newton) <= 0.5 * last)
    leap = np.where((newton > 0) & (newton < 2 * last + 1), newton, 2 * last + 1)
    return np.where(bounded, np.where(trusted, newton, middle), leap)


# --- helpers of the curve -----------------------------------------------------------------------


def _finite_matrix(values: ArrayLike, name: str = "scores") -> Floats:
    array = check.real_array(values, name).astype(np.float64, copy=False)
    if array.ndim != 2:
        raise ValueError(f"`{name}` must have shape (rows, columns), got {array.shape}")
    if array.size == 0:
        raise ValueError(f"`{name}` must not be empty, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"`{name}` must be finite: leave hidden keys out")
    return array


def _sizes(sizes: Sequence[int] | None, keys: int) -> np.ndarray:
    if keys < 3:
        raise ValueError(f"`scores` must have at least 3 keys for a curve, got {keys}")
    if sizes is None:
        powers = 2 ** np.arange(1 if keys < 64 else 4, int(np.log2(keys)) + 1)
        return np.unique(np.append(powers, keys))
    numbers = np.array([check.whole(n, "sizes", at_least=2) for n in sizes])
    if numbers.size < 2 or (np.diff(numbers) <= 0).any() or numbers[-1] > keys:
        raise ValueError(
            f"`sizes` must be at least 2 growing numbers up to the {keys} keys, got {list(sizes)}"
        )
    return numbers


def _scale_at(scale: Scale, n: int) -> float:
    value = check.finite(scale(n) if callable(scale) else scale, "scale")
    if value < 0:
        raise ValueError(f"`scale` must not be negative, got {value} at n = {n}")
    return value


def _interval(samples: Floats, level: float) -> tuple[Floats, Floats, Floats]:
    """Mean over the first axis and Student's interval for it."""
    mean = samples.mean(axis=0)
    if len(samples) < 2:
        return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    error = samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
    half = student_t.ppf(0.5 + level / 2, len(samples) - 1) * error
    return mean, mean - half, mean + half


def _slopes(x: Floats, y: Floats) -> Floats:
    """Least-squares slope of every row of y in x."""
    centred = x - x.mean()
    return (y @ centred) / (centred @ centred)


def _reachable_scale(rows: Floats, target: float) -> float:
    """The head's scale for the target, NaN where ties keep the entropy above it."""
    lowest, highest = _ends(rows)
    if not lowest.mean() < target < highest.mean():
        return np.nan
    return scale_for_mean_entropy(rows, target)


def _exponent(
    rows: Floats, sizes: np.ndarray, kept: Floats, target: float, level: float, repeats: int
) -> Estimate:
    """Slope of log λ in log log n, with Student's interval from blocks of queries."""
    known = np.isfinite(kept) & (kept > 0)
    if known.sum() < 2:
        return Estimate(np.nan, np.nan, np.nan)
    x = np.log(np.log(sizes[known]))
    value = float(_slopes(x, np.log(kept[known])))
    queries = len(rows) // repeats
    blocks = min(8, queries // 8)
    if blocks < 2:
        return Estimate(value, np.nan, np.nan)
    parts = np.array_split(rows.reshape(queries, repeats, -1), blocks)
    each = np.array(
        [
            [
                _reachable_scale(part.reshape(-1, part.shape[-1])[:, :n], target)
                for n in sizes[known]
            ]
            for part in parts
        ]
    )
    if not np.isfinite(each).all():
        return Estimate(value, np.nan, np.nan)
    _, low, high = _interval(_slopes(x, np.log(each)), level)
    half = float(high - low) / 2
    return Estimate(value, value - half, value + half)
