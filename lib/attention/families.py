"""Score distributions, the entropy of attention over them, and the scale that keeps it.

Each family says three things about n scores s and the weights softmax(λ s):

- `expected_entropy(n, λ)`: E H, exact at finite n (`quenched`, or a closed form);
- `entropy_law(n, λ)`: the textbook's closed form, with the conditions under which it holds;
- `keeping_scale(n, H0)` and `keeping_law(n, H0)`: the λ that keeps E H = H0, exactly and by the
  closed form. The power of log n in it is what https://kexue.fm/archives/9034 argues to be 1.

Independent scores obey one law as long as no single key matters (the random energy model's
"annealed" phase): with K(λ) = log E e^{λs},

    H ≈ log n - I(λ),      I(λ) = λ K'(λ) - K(λ)

I is the KL divergence of the tilted law e^{λs - K} from the scores' own. It holds below the
freezing scale λ_c, where I(λ_c) = log n; above it a few largest scores have all the weight, and for
exponential-like tails H tends to ψ(1) - ψ(1-α), α = λ_c/λ (Poisson-Dirichlet weights). How fast the
keeping scale grows is how fast I^{-1}(log n - H0) does: √log n for Gaussian scores, not at all for
exponential ones, n^{1/a} where the scores have an upper edge.

Two things that the closed forms hide and the exact integrals show. For a needle in noise the weight
1/(1 + (n-1) exp(-λΔ + λ²σ²/2)) is a lower bound for E p (Jensen), and λ = Δ/σ² the best scale of
that bound: as long as the needle is likely to be the largest score, a larger λ does better. And a
scale that keeps the needle's *weight* does not keep the *entropy*: the rest of the weight spreads
over ever more keys.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import (
    betaincinv,
    digamma,
    expit,
    gammainc,
    gammaln,
    log_ndtr,
    logsumexp,
    ndtri,
)

from lib.attention import _validation as check
from lib.attention import quenched, sphere
from lib.attention._validation import Floats


def poisson_dirichlet_entropy(alpha: ArrayLike) -> Floats:
    """ψ(1) - ψ(1-α): mean entropy of Poisson-Dirichlet weights, the frozen phase's limit.

    Parameters
    ----------
    alpha : array_like
        α in [0, 1): 0 leaves one weight (entropy 0), 1 all of them (inf).
    """
    alpha = check.real_array(alpha, "alpha").astype(np.float64, copy=False)
    bad = ~((alpha >= 0) & (alpha < 1))
    if bad.any():
        raise ValueError(f"`alpha` must lie in [0, 1), got {alpha[bad].flat[0]}")
    return (digamma(1.0) - digamma(1 - alpha))[()]


def poisson_dirichlet_alpha(entropy: float) -> float:
    """The α whose :func:`poisson_dirichlet_entropy` is `entropy` >= 0."""
    entropy = check.finite(entropy, "entropy")
    if entropy < 0:
        raise ValueError(f"`entropy` must not be negative, got {entropy}")
    low, high = -40.0, entropy + 2.0  # in log-odds of α, where 1 - α keeps its digits
    if entropy < 1e-12:
        return entropy * 6 / np.pi**2
    x = brentq(lambda x: digamma(1.0) - digamma(expit(-x)) - entropy, low, high, xtol=1e-14)
    return float(expit(x))


class ScoreFamily(ABC):
    """n scores at a time, with theory.

    `n` (keys, at least 1) and `scale` (λ >= 0) broadcast against each other everywhere.
    """

    title: ClassVar[str]
    law: ClassVar[str]  # how the keeping scale grows with n

    @abstractmethod
    def sample(self, rng: np.random.Generator, n: int, rows: int = 1) -> Floats:
        """Scores of shape (rows, n)."""

    @abstractmethod
    def _expectations(self, n: float, scale: float) -> quenched.Expectations: ...

    @abstractmethod
    def entropy_law(self, n: ArrayLike, scale: ArrayLike) -> Floats:
        """Closed form for the entropy; NaN where it says nothing."""

    @abstractmethod
    def keeping_law(self, n: ArrayLike, target: float) -> Floats:
        """Closed form for the scale that keeps the entropy at `target`; NaN where there is none."""

    def expected_entropy(self, n: ArrayLike, scale: ArrayLike) -> Floats:
        """E H over the random scores, exact (to about 1e-8) for every n."""
        return self._each("entropy", n, scale)

    def participation(self, n: ArrayLike, scale: ArrayLike) -> Floats:
        """E Σ p², exact: 1/n for uniform weights, 1 when one key has all the weight."""
        return self._each("participation", n, scale)

    def keeping_scale(self, n: ArrayLike, target: float) -> Floats:
        """The λ with E H = `target`, exact; NaN where no λ reaches it.

        Raises
        ------
        ValueError
            If the target does not lie strictly between 0 and log n.
        """
        n, target = _checked_target(n, target)
        guess = np.broadcast_to(self.keeping_law(n, target), n.shape)
        solve = np.vectorize(self._solve, otypes=[float])
        return solve(n, target, guess)[()]

    def _each(self, what: str, n: ArrayLike, scale: ArrayLike) -> Floats:
        n, scale = _checked_point(n, scale)
        return np.vectorize(
            lambda n, scale: getattr(self._expectations(n, scale), what), otypes=[float]
        )(n, scale)[()]

    def _solve(self, n: float, target: float, guess: float) -> float:
        if not np.isfinite(guess) or guess <= 0:
            guess = 1.0

        def above(log_scale: float) -> float:
            return self._expectations(n, float(np.exp(log_scale))).entropy - target

        low = high = float(np.log(guess))
        while above(low) < 0:
            low -= 0.5
        while above(high) > 0:
            high += 0.25
            if high > self._largest_log_scale(n):
                return np.nan
        return float(np.exp(brentq(above, low, high, xtol=1e-10)))

    def _largest_log_scale(self, n: float) -> float:
        return np.inf


class IidFamily(ScoreFamily):
    """Independent scores: one law for all of them below freezing."""

    @abstractmethod
    def quantile(self, log_odds: ArrayLike) -> Floats:
        """The score below which a share u of all scores lies, at log-odds log(u/(1-u))."""

    @abstractmethod
    def log_mgf(self, scale: ArrayLike) -> Floats:
        """K(λ) = log E e^{λs}; inf where it diverges."""

    @abstractmethod
    def tilted_mean(self, scale: ArrayLike) -> Floats:
        """K'(λ), the mean score under the tilted law."""

    def tilt_divergence(self, scale: ArrayLike) -> Floats:
        """I(λ) = λ K'(λ) - K(λ) = KL(tilted || own law): what the scale takes off log n."""
        scale = _checked_scale(scale)
        with np.errstate(invalid="ignore"):
            loss = scale * self.tilted_mean(scale) - self.log_mgf(scale)
        return np.where(np.isnan(loss), np.inf, loss)[()]

    def annealed_entropy(self, n: ArrayLike, scale: ArrayLike) -> Floats:
        """log n - I(λ); an approximation below the freezing scale, no bound, negative above it."""
        n, scale = _checked_point(n, scale)
        return np.log(n) - self.tilt_divergence(scale)

    def entropy_law(self, n: ArrayLike, scale: ArrayLike) -> Floats:
        """log n - I(λ) up to the freezing scale, :meth:`frozen_entropy` above it."""
        n, scale = _checked_point(n, scale)
        below = scale <= self.freezing_scale(n)
        return np.where(below, self.annealed_entropy(n, scale), self.frozen_entropy(n, scale))[()]

    def frozen_entropy(self, n: ArrayLike, scale: ArrayLike) -> Floats:
        """Limit of the entropy above the freezing scale; NaN where none is known."""
        n, scale = _checked_point(n, scale)
        return np.full(np.broadcast_shapes(n.shape, scale.shape), np.nan)[()]

    def freezing_scale(self, n: ArrayLike) -> Floats:
        """λ_c with I(λ_c) = log n, where a few largest scores take over; inf if there is none."""
        n = check.counts(n, "n")
        return np.vectorize(self._scale_with_divergence, otypes=[float])(np.log(n))[()]

    def keeping_law(self, n: ArrayLike, target: float) -> Floats:
        """The λ with log n - I(λ) = H0; NaN where no λ has it."""
        n, target = _checked_target(n, target)
        found = np.vectorize(self._scale_with_divergence, otypes=[float])(np.log(n) - target)
        return np.where(np.isinf(found), np.nan, found)[()]

    def typical_maximum(self, n: ArrayLike) -> Floats:
        """The score that one of n keys exceeds on average (upper quantile 1/n)."""
        n = check.counts(n, "n")
        with np.errstate(divide="ignore"):
            return self.quantile(np.where(n > 1, np.log(np.maximum(n - 1, 1e-300)), 0.0))

    def floor_scale(self, n: ArrayLike, target: float) -> Floats:
        """λ = (log n - H0) / (max s - mean s) with the typical maximum: the article's own formula.

        It grows as log n only if the maximum stays put; the entropy it leaves is at least H0.
        """
        n, target = _checked_target(n, target)
        with np.errstate(divide="ignore"):
            return (np.log(n) - target) / (self.typical_maximum(n) - self.tilted_mean(0.0))

    def _expectations(self, n: float, scale: float) -> quenched.Expectations:
        return quenched.expectations(self._moved_quantile, n, scale)

    def _moved_quantile(self, log_odds: Floats) -> Floats:
        """The quantile from an origin that keeps its digits among the largest scores."""
        return self.quantile(log_odds)

    def _scale_with_divergence(self, loss: float) -> float:
        if loss <= 0:
            return 0.0
        high = 1.0
        while self.tilt_divergence(high) < loss:
            high *= 2
            if high > 1e15:
                return np.inf
        return float(brentq(lambda x: self.tilt_divergence(x) - loss, 0.0, high, xtol=1e-14))


@dataclass(frozen=True)
class Gaussian(IidFamily):
    """Independent N(0, σ²) scores: the random energy model, λ_c = √(2 log n) / σ."""

    sigma: float = 1.0
    title = "Gaussian"
    law = "√log n"

    def __post_init__(self) -> None:
        check.positive(self.sigma, "sigma")

    def sample(self, rng: np.random.Generator, n: int, rows: int = 1) -> Floats:
        return self.sigma * check.rng(rng).normal(size=_shape(n, rows))

    def quantile(self, log_odds: ArrayLike) -> Floats:
        return self.sigma * _normal_quantile(np.asarray(log_odds, dtype=float))

    def log_mgf(self, scale: ArrayLike) -> Floats:
        return 0.5 * (_checked_scale(scale) * self.sigma) ** 2

    def tilted_mean(self, scale: ArrayLike) -> Floats:
        return _checked_scale(scale) * self.sigma**2

    def freezing_scale(self, n: ArrayLike) -> Floats:
        """λ_c = √(2 log n) / σ."""
        return np.sqrt(2 * np.log(check.counts(n, "n"))) / self.sigma

    def frozen_entropy(self, n: ArrayLike, scale: ArrayLike) -> Floats:
        """ψ(1) - ψ(1-λ_c/λ) as n → ∞, approached slowly; NaN up to λ_c."""
        n, scale = _checked_point(n, scale)
        return _frozen(self.freezing_scale(n), scale)

    def keeping_law(self, n: ArrayLike, target: float) -> Floats:
        """λ = √(2 (log n - H0)) / σ, for targets above the frozen phase."""
        n, target = _checked_target(n, target)
        return (np.sqrt(2 * (np.log(n) - target)) / self.sigma)[()]

    def frozen_keeping_law(self, n: ArrayLike, target: float) -> Floats:
        """λ = λ_c / α with ψ(1) - ψ(1-α) = H0, for targets of a few keys."""
        n, target = _checked_target(n, target)
        return self.freezing_scale(n) / poisson_dirichlet_alpha(target)


@dataclass(frozen=True)
class Exponential(IidFamily):
    """Independent Exp(1) scores: the tail e^{-s} freezes at λ = 1, whatever n is."""

    title = "exponential"
    law = "constant"

    def sample(self, rng: np.random.Generator, n: int, rows: int = 1) -> Floats:
        return check.rng(rng).exponential(size=_shape(n, rows))

    def quantile(self, log_odds: ArrayLike) -> Floats:
        return np.logaddexp(0.0, log_odds)

    def log_mgf(self, scale: ArrayLike) -> Floats:
        scale = _checked_scale(scale)
        return np.where(scale < 1, -np.log1p(-np.minimum(scale, 1 - 1e-16)), np.inf)[()]

    def tilted_mean(self, scale: ArrayLike) -> Floats:
        scale = _checked_scale(scale)
        return np.where(scale < 1, 1 / (1 - np.minimum(scale, 1 - 1e-16)), np.inf)[()]

    def freezing_scale(self, n: ArrayLike) -> Floats:
        """λ_c = 1 for every n (I(λ) diverges there)."""
        return np.ones_like(check.counts(n, "n"))[()]

    def frozen_entropy(self, n: ArrayLike, scale: ArrayLike) -> Floats:
        """ψ(1) - ψ(1-1/λ) as n → ∞; NaN up to λ = 1."""
        n, scale = _checked_point(n, scale)
        return _frozen(np.ones_like(n), scale)

    def keeping_law(self, n: ArrayLike, target: float) -> Floats:
        """The constant λ = 1/α with ψ(1) - ψ(1-α) = H0."""
        n, target = _checked_target(n, target)
        return np.full_like(n, 1 / poisson_dirichlet_alpha(target))[()]


@dataclass(frozen=True)
class BoundedEdge(IidFamily):
    """Scores s = 1 - x in [0, 1] with P(x <= t) = t^a at the upper edge; a = 1 is uniform."""

    edge: float = 1.0
    title = "bounded"
    law = "n^(1/a)"

    def __post_init__(self) -> None:
        check.positive(self.edge, "edge")

    def sample(self, rng: np.random.Generator, n: int, rows: int = 1) -> Floats:
        return 1 - check.rng(rng).random(size=_shape(n, rows)) ** (1 / self.edge)

    def quantile(self, log_odds: ArrayLike) -> Floats:
        return -np.expm1(-np.logaddexp(0.0, log_odds) / self.edge)

    def _moved_quantile(self, log_odds: Floats) -> Floats:
        return -np.exp(-np.logaddexp(0.0, log_odds) / self.edge)  # s - 1

    def log_mgf(self, scale: ArrayLike) -> Floats:
        """λ + log E e^{-λx}, E e^{-λx} = Γ(a+1) λ^{-a} P(a, λ)."""
        a, lam = self.edge, _checked_scale(scale)
        with np.errstate(divide="ignore", invalid="ignore"):
            value = lam + gammaln(a + 1) - a * np.log(lam) + np.log(gammainc(a, lam))
        return np.where(lam < 1e-8, lam / (a + 1), value)[()]

    def tilted_mean(self, scale: ArrayLike) -> Floats:
        """1 - a P(a+1, λ) / (λ P(a, λ))."""
        a, lam = self.edge, _checked_scale(scale)
        with np.errstate(divide="ignore", invalid="ignore"):
            value = 1 - a / lam * gammainc(a + 1, lam) / gammainc(a, lam)
        return np.where(lam < 1e-8, 1 / (a + 1), value)[()]

    def keeping_law(self, n: ArrayLike, target: float) -> Floats:
        """λ = (n Γ(a+1) e^{a-H0})^{1/a}: the edge alone counts; for H0 well below log n."""
        n, target = _checked_target(n, target)
        a = self.edge
        return np.exp((np.log(n) + gammaln(a + 1) + a - target) / a)[()]


@dataclass(frozen=True)
class Sphere(IidFamily):
    """Scores s = d cos θ of a query with keys uniform on the sphere of radius √d in R^d."""

    d: int = 64
    title = "sphere"
    law = "√log n while log n ≪ d, then n^(2/d)"

    def __post_init__(self) -> None:
        check.whole(self.d, "d", at_least=2)

    def sample(self, rng: np.random.Generator, n: int, rows: int = 1) -> Floats:
        # One coordinate of a Gaussian vector and the squared length of all others.
        along = check.rng(rng).normal(size=_shape(n, rows))
        across = rng.chisquare(self.d - 1, size=along.shape)
        return self.d * along / np.sqrt(along**2 + across)

    def quantile(self, log_odds: ArrayLike) -> Floats:
        return self.d + self._moved_quantile(np.asarray(log_odds, dtype=float))

    def _moved_quantile(self, log_odds: Floats) -> Floats:
        half = (self.d - 1) / 2  # (1 - cos θ)/2 has a symmetric beta law; take the small tail
        tail = betaincinv(half, half, expit(-np.abs(log_odds)))
        return -2 * self.d * np.where(log_odds > 0, tail, 1 - tail)  # s - d

    def log_mgf(self, scale: ArrayLike) -> Floats:
        return sphere.log_mgf(_checked_scale(scale) * self.d, self.d)

    def tilted_mean(self, scale: ArrayLike) -> Floats:
        return self.d * sphere.mean_cosine(_checked_scale(scale) * self.d, self.d)

    def keeping_law(self, n: ArrayLike, target: float) -> Floats:
        """λ = √(1-E)/E, E = exp(-2 (log n - H0)/d)."""
        n, target = _checked_target(n, target)
        return sphere.keeping_scale(n, self.d, target)


@dataclass(frozen=True)
class FiniteVocabulary(IidFamily):
    """Keys drawn from `types` equally likely words; their scores are normal quantiles.

    About n / `types` keys share the largest score, so the entropy never falls below the
    logarithm of that, at any scale.
    """

    types: int = 32
    title = "finite vocabulary"
    law = "none"

    def __post_init__(self) -> None:
        check.whole(self.types, "types", at_least=2)

    @property
    def values(self) -> Floats:
        """The scores of the words, ascending."""
        return ndtri((np.arange(self.types) + 0.5) / self.types)

    def sample(self, rng: np.random.Generator, n: int, rows: int = 1) -> Floats:
        return self.values[check.rng(rng).integers(self.types, size=_shape(n, rows))]

    def quantile(self, log_odds: ArrayLike) -> Floats:
        return self.values[np.minimum((expit(log_odds) * self.types).astype(int), self.types - 1)]

    def log_mgf(self, scale: ArrayLike) -> Floats:
        lam = _checked_scale(scale)
        return (logsumexp(lam[..., None] * self.values, axis=-1) - np.log(self.types))[()]

    def tilted_mean(self, scale: ArrayLike) -> Floats:
        lam = _checked_scale(scale)
        weights = np.exp(lam[..., None] * (self.values - self.values[-1]))
        return (weights @ self.values / weights.sum(axis=-1))[()]

    def least_entropy(self, n: ArrayLike) -> Floats:
        """E log(keys that share the largest score): E H as λ → ∞, about log(n/types)."""
        n = check.counts(n, "n")
        return np.vectorize(self._least_entropy, otypes=[float])(n)[()]

    def _least_entropy(self, n: float) -> float:
        # The largest type that occurs is j with probability ((j+1)/V)^n - (j/V)^n, and then the
        # number of its keys is binomial(n, 1/(j+1)), given that it is not 0.
        j = np.arange(self.types)
        log_some = n * np.log1p(-1 / (j[1:] + 1.0))
        is_top = np.exp(n * np.log((j + 1) / self.types))
        is_top[1:] *= -np.expm1(log_some)
        mean_log = np.array([_mean_log_binomial(n, 1 / (i + 1.0)) for i in j])
        return float(is_top @ mean_log)

    def _expectations(self, n: float, scale: float) -> quenched.Expectations:
        shares = np.full(self.types, 1 / self.types)
        return quenched.discrete_expectations(self.values, shares, n, scale)

    def _solve(self, n: float, target: float, guess: float) -> float:
        return np.nan if target <= self._least_entropy(n) else super()._solve(n, target, guess)


class _Planted(ScoreFamily):
    """One key of score Δ among n - 1 of independent N(0, σ²) scores, on the first place."""

    delta: float
    sigma: float

    def __post_init__(self) -> None:
        check.positive(self.delta, "delta")
        if check.finite(self.sigma, "sigma") < 0:
            raise ValueError(f"`sigma` must not be negative, got {self.sigma}")

    def sample(self, rng: np.random.Generator, n: int, rows: int = 1) -> Floats:
        scores = self.sigma * check.rng(rng).normal(size=_shape(n, rows))
        scores[:, 0] = self.delta
        return scores

    def focus(self, n: ArrayLike, scale: ArrayLike) -> Floats:
        """E p, the expected weight of the planted key, exact."""
        return self._each("planted_weight", n, scale)

    def focus_law(self, n: ArrayLike, scale: ArrayLike) -> Floats:
        """1 / (1 + (n-1) e^{-λΔ + λ²σ²/2}): a lower bound of E p, tight for λ < √(2 log n)/σ."""
        n, scale = _checked_point(n, scale)
        return expit(-self._log_rest(n, scale))[()]

    def focus_scale(self, n: ArrayLike, weight: float) -> Floats:
        """The smallest λ at which :meth:`focus_law` is `weight`; NaN beyond what noise allows.

        Without noise it is (log(n-1) + logit(weight)) / Δ: the logarithm of n, exactly.
        """
        n = check.counts(n, "n", at_least=2)
        weight = check.finite(weight, "weight")
        if not 0 < weight < 1:
            raise ValueError(f"`weight` must lie strictly between 0 and 1, got {weight}")
        need = np.maximum(np.log(n - 1) + np.log(weight) - np.log1p(-weight), 0.0)
        with np.errstate(invalid="ignore"):
            root = np.sqrt(self.delta**2 - 2 * need * self.sigma**2)
        return (2 * need / (self.delta + root))[()]

    def entropy_law(self, n: ArrayLike, scale: ArrayLike) -> Floats:
        """h(p) + (1-p)(log(n-1) - λ²σ²/2) with p the focus law; h the entropy of (p, 1-p)."""
        n, scale = _checked_point(n, scale)
        x = self._log_rest(n, scale)
        rest = expit(x)
        split = np.logaddexp(0.0, x) - rest * np.where(np.isinf(x), 0.0, x)
        with np.errstate(divide="ignore"):
            spread = np.where(n > 1, np.log(np.maximum(n - 1, 1e-300)), 0.0)
        return (split + rest * (spread - 0.5 * (scale * self.sigma) ** 2))[()]

    def keeping_law(self, n: ArrayLike, target: float) -> Floats:
        """The λ at which :meth:`entropy_law` is H0; NaN if none up to Δ/σ² is."""
        n, target = _checked_target(n, target)
        return np.vectorize(self._keeping_law, otypes=[float])(n, target)[()]

    def _keeping_law(self, n: float, target: float) -> float:
        largest = 50.0 * (np.log(n) + 50) / self.delta
        if self.sigma:
            largest = min(largest, self.delta / self.sigma**2)
        if self.entropy_law(n, largest) > target:
            return np.nan
        return float(brentq(lambda lam: self.entropy_law(n, lam) - target, 0.0, largest))

    def _log_rest(self, n: Floats, scale: Floats) -> Floats:
        """log of all other weight over the planted key's."""
        with np.errstate(divide="ignore"):
            others = np.log(n - 1)
        return others - scale * self.delta + 0.5 * (scale * self.sigma) ** 2

    def _expectations(self, n: float, scale: float) -> quenched.Expectations:
        return quenched.expectations(self._noise_quantile, n, scale, planted=self.delta)

    def _noise_quantile(self, log_odds: Floats) -> Floats:
        return self.sigma * _normal_quantile(log_odds)


@dataclass(frozen=True)
class Gap(_Planted):
    """One key of score Δ, all others 0: the model in which log n is exact for the focus."""

    delta: float = 1.0
    sigma: ClassVar[float] = 0.0
    title = "gap"
    law = "log n"

    def _expectations(self, n: float, scale: float) -> quenched.Expectations:
        p = float(self.focus_law(n, scale))
        rest = (1 - p) ** 2 / (n - 1) if n > 1 else 0.0
        return quenched.Expectations(float(self.entropy_law(n, scale)), p**2 + rest, p)


@dataclass(frozen=True)
class NeedleInNoise(_Planted):
    """One key of score Δ among N(0, σ²) noise: log n works up to the capacity e^{Δ²/2σ²}."""

    delta: float = 6.0
    sigma: float = 1.0
    title = "needle in noise"
    law = "log n up to a capacity"

    def __post_init__(self) -> None:
        super().__post_init__()
        check.positive(self.sigma, "sigma")

    @property
    def capacity(self) -> float:
        """n_max = e^{Δ²/2σ²}: beyond it no scale gives the needle half of the weight."""
        return float(np.exp(0.5 * (self.delta / self.sigma) ** 2))

    @property
    def best_scale(self) -> float:
        """Δ/σ², at which :meth:`focus_law` is largest (E p itself may be larger further up)."""
        return self.delta / self.sigma**2

    def focus_at_infinite_scale(self, n: ArrayLike) -> Floats:
        """Φ(Δ/σ)^{n-1}: the probability that the needle has the largest score.

        It falls to 1/2 at about √(2π) log 2 · Δ/σ times the capacity.
        """
        n = check.counts(n, "n")
        return np.exp((n - 1) * log_ndtr(self.delta / self.sigma))[()]


def table() -> tuple[ScoreFamily, ...]:
    """One member of each family, in the order of the book's table."""
    return (
        Gap(8.0),
        NeedleInNoise(6.0, 1.0),
        Gaussian(1.0),
        Sphere(64),
        Exponential(),
        BoundedEdge(1.0),
        FiniteVocabulary(32),
    )


# --- helpers -------------------------------------------------------------------------------------


def _frozen(freezing: Floats, scale: Floats) -> Floats:
    above = scale > freezing
    alpha = np.where(above, freezing / np.where(above, scale, 1.0), 0.0)
    return np.where(above, digamma(1.0) - digamma(1 - alpha), np.nan)[()]


def _normal_quantile(v: Floats) -> Floats:
    """Φ^{-1} at log-odds v, with the digits of both tails."""
    return np.copysign(ndtri(expit(-np.abs(v))), v)


def _mean_log_binomial(n: float, share: float) -> float:
    """E log m for m ~ binomial(n, share), given m > 0."""
    if share == 1:
        return float(np.log(n))
    m = np.arange(1, int(n) + 1)
    spread = 12 * np.sqrt(n * share) + 30
    m = m[np.abs(m - n * share) <= spread]
    logs = gammaln(n + 1) - gammaln(m + 1) - gammaln(n - m + 1)
    logs = logs + m * np.log(share) + (n - m) * np.log1p(-share)
    weights = np.exp(logs - logsumexp(logs))
    return float(weights @ np.log(m))


def _shape(n: int, rows: int) -> tuple[int, int]:
    return check.whole(rows, "rows", at_least=1), check.whole(n, "n", at_least=1)


def _checked_scale(scale: ArrayLike) -> Floats:
    array = check.real_array(scale, "scale").astype(np.float64, copy=False)
    bad = ~(np.isfinite(array) & (array >= 0))
    if bad.any():
        raise ValueError(f"`scale` must be finite and not negative, got {array[bad].flat[0]}")
    return array


def _checked_point(n: ArrayLike, scale: ArrayLike) -> tuple[Floats, Floats]:
    n, scale = check.counts(n, "n"), _checked_scale(scale)
    try:
        np.broadcast_shapes(n.shape, scale.shape)
    except ValueError:
        raise ValueError(
            f"`n` and `scale` must broadcast, got shapes {n.shape} and {scale.shape}"
        ) from None
    return n, scale


def _checked_target(n: ArrayLike, target: float) -> tuple[Floats, float]:
    n, target = check.counts(n, "n"), check.finite(target, "target")
    if not (target > 0 and (target < np.log(n)).all()):
        raise ValueError(
            f"`target` must lie strictly between 0 and log n = {np.log(n.min()):.6g}, got {target}"
        )
    return n, target
