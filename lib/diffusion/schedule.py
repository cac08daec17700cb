"""Noise schedules of a diffusion: how much of the data is left at each time, and how to thin it.

Notation of https://kexue.fm/archives/9119 and 9181: x_t = α_t x_{t-1} + β_t ε with α_t² + β_t² = 1,
so that x_t = ᾱ_t x_0 + β̄_t ε with ᾱ_t = α_1 ⋯ α_t and β̄_t = √(1 - ᾱ_t²); t = 0 is the data.
Ho et al. (2006.11239) and diffusers write β_t for our β_t² and α_t, ᾱ_t for our α_t², ᾱ_t².
Everything derives from log α_t, so 1 - ᾱ_t² keeps its digits where ᾱ_t is close to 1.
Left out: schedules that reach ᾱ_T = 0 (x̂_0 would be 0/0 there) and learned ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lib.diffusion import _validation as check
from lib.diffusion._validation import Floats, Ints

Spacing = Literal["trailing", "leading", "linspace"]
SigmaKind = Literal["beta", "posterior"]


class PaperNotation(NamedTuple):
    """The same schedule as Ho et al. and diffusers write it, entry i at time t = i + 1."""

    beta: Floats  # β_t² of ours; diffusers: `betas`
    alpha: Floats  # α_t²; `alphas`
    alpha_bar: Floats  # ᾱ_t²; `alphas_cumprod`


@dataclass(frozen=True, eq=False, repr=False)
class Schedule:
    """Immutable noise schedule; build one with a constructor such as ``Schedule.article(1000)``.

    All arrays have length T + 1, start with t = 0 (the data: ᾱ = 1, β̄ = 0), and can't be written.
    A *time* that a caller names (`at`, `subsequence`, a model's t) always is a time of the schedule
    the model was trained with; `times` holds them, and differs from 0 … T on a subsequence only.

    Parameters
    ----------
    log_alpha : array-like of shape (T + 1,)
        log α_t: 0, then negative numbers.
    times : array-like of int, shape (T + 1,), optional
        Times in the schedule of the training, ascending from 0; default 0, 1, …, T.

    Attributes
    ----------
    T : int
        Number of steps.
    alpha, beta : ndarray
        α_t and β_t of the step from t - 1 to t; 1 and 0 at t = 0.
    alpha_bar, beta_bar : ndarray
        ᾱ_t and β̄_t of the way from 0 to t.
    snr : ndarray
        Signal-to-noise ratio ᾱ_t² / β̄_t², infinite at t = 0.
    rho : ndarray
        β̄_t / ᾱ_t, the variable in which DDIM is Euler's method.

    Raises
    ------
    ValueError
        If a step keeps all of the signal or none of it.

    Examples
    --------
    >>> schedule = Schedule.article(1000)
    >>> schedule
    Schedule(T=1000, alpha_bar_T=0.00648)
    >>> schedule.subsequence([250, 500, 1000]).alpha_bar.round(4).tolist()
    [1.0, 0.7303, 0.2846, 0.0065]
    """

    log_alpha: Floats
    times: Ints = None  # type: ignore[assignment]  # filled below

    def __post_init__(self) -> None:
        log_alpha = check.vector(self.log_alpha, "log_alpha").copy()
        if log_alpha.size < 2:
            raise ValueError(f"`log_alpha` must have at least one step, got {log_alpha.size - 1}")
        if log_alpha[0] != 0:
            raise ValueError(f"`log_alpha` must start with 0, got {log_alpha[0]:g}")
        flat = np.flatnonzero(log_alpha[1:] >= 0)
        if flat.size:
            raise ValueError(
                f"`log_alpha` must be negative after t = 0 (every step adds noise), "
                f"got {log_alpha[flat[0] + 1]:g} at t = {flat[0] + 1}"
            )
        if self.times is None:
            times = np.arange(log_alpha.size)
        else:
            row = check.vector(self.times, "times", (log_alpha.size,))
            times = row.astype(np.int64)
            if times[0] != 0 or (times != row).any() or (np.diff(times) <= 0).any():
                raise ValueError("`times` must be whole numbers ascending from 0")
        object.__setattr__(self, "log_alpha", _read_only(log_alpha))
        object.__setattr__(self, "times", _read_only(times))

    # --- constructors ----------------------------------------------------------------------------

    @classmethod
    def article(cls, T: int = 1000) -> Schedule:
        """α_t = √(1 - 0.02 t/T) of https://kexue.fm/archives/9119; log ᾱ_T < -0.005 (T + 1)."""
        T = check.whole(T, "T", 1)
        return cls.from_paper_beta(0.02 * np.arange(1, T + 1) / T)

    @classmethod
    def linear_beta(cls, T: int = 1000, first: float = 1e-4, last: float = 0.02) -> Schedule:
        """The schedule of Ho et al.: *their* β_t, our β_t², on a line from `first` to `last`.

        Both ends belong to T = 1000; a smaller T with the same ends leaves more of the data in x_T.
        """
        T = check.whole(T, "T", 1)
        first, last = check.open_unit(first, "first"), check.open_unit(last, "last")
        return cls.from_paper_beta(np.linspace(first, last, T))

    @classmethod
    def cosine(cls, T: int = 1000, offset: float = 0.008, most: float = 0.999) -> Schedule:
        """ᾱ_t ∝ cos(π/2 · (t/T + s)/(1 + s)) of Nichol and Dhariwal (2102.09672).

        Parameters
        ----------
        T : int
            Number of steps.
        offset : float
            s >= 0, which keeps the first steps from being too small.
        most : float
            Upper bound of β_t² (it would reach 1 at t = T).
        """
        T = check.whole(T, "T", 1)
        offset = check.number(offset, "offset", 0.0, 1.0)
        most = check.open_unit(most, "most")
        angle = (np.arange(T + 1) / T + offset) / (1 + offset) * np.pi / 2
        before, after = angle[:-1], angle[1:]
        # 1 - cos²a / cos²b without the cancellation
        squared = np.sin(after - before) * np.sin(after + before) / np.cos(before) ** 2
        return cls.from_paper_beta(np.minimum(squared, most))

    @classmethod
    def from_paper_beta(cls, beta: ArrayLike) -> Schedule:
        """From the papers' β_1 … β_T, which are our β_t²; diffusers calls them `betas`."""
        squared = check.vector(beta, "beta")
        bad = np.flatnonzero((squared <= 0) | (squared >= 1))
        if bad.size:
            raise ValueError(
                f"`beta` must lie strictly between 0 and 1, got {squared[bad[0]]:g} "
                f"at t = {bad[0] + 1}"
            )
        return cls(np.concatenate([[0.0], 0.5 * np.log1p(-squared)]))

    @classmethod
    def from_alpha_bar(cls, alpha_bar: ArrayLike) -> Schedule:
        """From ᾱ_1 … ᾱ_T, or from ᾱ_0 = 1, ᾱ_1 … ᾱ_T.

        diffusers holds their squares: ``Schedule.from_alpha_bar(scheduler.alphas_cumprod.sqrt())``.

        Raises
        ------
        ValueError
            Unless 1 > ᾱ_1 > … > ᾱ_T > 0.
        """
        bars = check.vector(alpha_bar, "alpha_bar")
        if bars[0] == 1.0:
            bars = bars[1:]
        if bars.size == 0:
            raise ValueError("`alpha_bar` must have at least one step, got only the 1 of t = 0")
        if bars[-1] <= 0:
            raise ValueError(f"`alpha_bar` must be positive, got {bars[-1]:g} at t = {bars.size}")
        whole = np.concatenate([[1.0], bars])
        rises = np.flatnonzero(np.diff(whole) >= 0)
        if rises.size:
            t = rises[0] + 1
            raise ValueError(
                f"`alpha_bar` must fall strictly from 1, got {whole[t]:g} at t = {t} "
                f"after {whole[t - 1]:g}"
            )
        return cls(np.concatenate([[0.0], np.log(whole[1:] / whole[:-1])]))

    # --- the arrays ------------------------------------------------------------------------------

    @property
    def T(self) -> int:
        return self.log_alpha.size - 1

    @cached_property
    def log_alpha_bar(self) -> Floats:
        return _read_only(np.cumsum(self.log_alpha))

    @cached_property
    def alpha(self) -> Floats:
        return _read_only(np.exp(self.log_alpha))

    @cached_property
    def beta(self) -> Floats:
        return _read_only(_noise_beside(self.log_alpha))

    @cached_property
    def alpha_bar(self) -> Floats:
        return _read_only(np.exp(self.log_alpha_bar))

    @cached_property
    def beta_bar(self) -> Floats:
        return _read_only(_noise_beside(self.log_alpha_bar))

    @cached_property
    def rho(self) -> Floats:
        return _read_only(np.sqrt(_inverse_snr(self.log_alpha_bar)))

    @cached_property
    def snr(self) -> Floats:
        with np.errstate(divide="ignore"):
            return _read_only(1.0 / _inverse_snr(self.log_alpha_bar))

    def paper(self) -> PaperNotation:
        """The arrays of Ho et al. and of diffusers: the squares of ours, from t = 1 on."""
        squared_beta = -np.expm1(2.0 * self.log_alpha[1:])
        return PaperNotation(
            _read_only(squared_beta),
            _read_only(np.exp(2.0 * self.log_alpha[1:])),
            _read_only(np.exp(2.0 * self.log_alpha_bar[1:])),
        )

    def ddpm_sigma(self, kind: SigmaKind) -> Floats:
        """σ_t of the two DDPM samplers, shape (T + 1,); no step has noise at t = 0.

        "beta" is β_t, right for standard normal data; "posterior" is β̄_{t-1} β_t / β̄_t, the
        deviation of p(x_{t-1} | x_t, x_0), right for a single point (and 0 at t = 1).
        """
        check.choice(kind, "kind", ("beta", "posterior"))
        if kind == "beta":
            return self.beta
        sigma = np.zeros(self.T + 1)
        sigma[1:] = self.beta_bar[:-1] * self.beta[1:] / self.beta_bar[1:]
        return _read_only(sigma)

    # --- between and across times ----------------------------------------------------------------

    def at(self, t: ArrayLike) -> tuple[Floats, Floats]:
        """(ᾱ, β̄) at real times in [0, T], with log ᾱ on a line between whole times.

        Returns two arrays of the shape of t.
        """
        log_alpha_bar = self._log_alpha_bar_at(t, "t")
        return np.exp(log_alpha_bar), _noise_beside(log_alpha_bar)

    def transition(self, s: ArrayLike, t: ArrayLike) -> tuple[Floats, Floats]:
        """(a, b) of x_t = a x_s + b ε, for real times s <= t: the forward chain from s to t."""
        log_a = self._log_alpha_bar_at(t, "t") - self._log_alpha_bar_at(s, "s")
        if (log_a > 0).any():
            raise ValueError("`s` must not exceed `t`: noise is only ever added")
        return np.exp(log_a), _noise_beside(log_a)

    def _log_alpha_bar_at(self, t: ArrayLike, name: str) -> Floats:
        t = check.within(t, name, 0.0, float(self.times[-1]))
        return np.interp(t, self.times, self.log_alpha_bar)

    def time_at(self, rho: ArrayLike) -> Floats:
        """The real time at which β̄/ᾱ equals rho, in [0, rho_T]; inverse of `at`."""
        most = float(self.rho[-1])
        rho = np.minimum(check.within(rho, "rho", 0.0, most * (1 + 1e-12)), most)
        return np.interp(0.5 * np.log1p(rho**2), -self.log_alpha_bar, self.times)

    def timesteps(self, steps: int, spacing: Spacing = "trailing") -> Ints:
        """Evenly spaced times for a subsequence, ascending.

        Parameters
        ----------
        steps : int
            How many, 1 … T.
        spacing : {"trailing", "leading", "linspace"}
            As in diffusers and table 2 of Lin et al. (2305.08891), one later because our times
            start at 1. "trailing": T, T - T/n, …: starts at pure noise. "leading": 1, 1 + ⌊T/n⌋, …,
            as Song et al.: ends at t = 1, but its largest time may be far from T (one step: t = 1
            only), and then x_T ~ N(0, 1) isn't what the model expects there. "linspace": both ends.
        """
        steps = check.whole(steps, "steps", 1, self.T)
        check.choice(spacing, "spacing", ("trailing", "leading", "linspace"))
        i = np.arange(steps)
        if spacing == "trailing":
            index = np.round(self.T - i[::-1] * (self.T / steps)).astype(np.int64)
        elif spacing == "leading":
            index = 1 + i * (self.T // steps)
        else:
            index = 1 + np.round(np.linspace(0, self.T - 1, steps)).astype(np.int64)
        return self.times[index]

    def subsequence(self, timesteps: ArrayLike) -> Schedule:
        """The schedule on some of the times, for sampling in fewer steps with the same model.

        ᾱ and β̄ are those of the times kept; α, β and every σ are *derived from them anew* (α of
        the step from τ' to τ is ᾱ_τ / ᾱ_τ', not the old α_τ). `times` remembers what to tell the
        model.

        Parameters
        ----------
        timesteps : array-like of int
            Times to keep, ascending, between 1 and T; 0 always is kept.
        """
        kept = check.timesteps(timesteps, "timesteps", self.times)
        index = np.searchsorted(self.times, kept)
        starts = np.concatenate([[0], index[:-1]])
        sums = np.add.reduceat(self.log_alpha[1 : index[-1] + 1], starts)
        return Schedule(np.concatenate([[0.0], sums]), np.concatenate([[0], kept]))

    # --- as a value ------------------------------------------------------------------------------

    def __repr__(self) -> str:
        thinned = "" if self.times[-1] == self.T else f", times up to {self.times[-1]}"
        return f"Schedule(T={self.T}, alpha_bar_T={self.alpha_bar[-1]:.3g}{thinned})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Schedule):
            return NotImplemented
        same_times = np.array_equal(self.times, other.times)
        return same_times and np.array_equal(self.log_alpha, other.log_alpha)

    def __hash__(self) -> int:
        return hash((self.log_alpha.tobytes(), self.times.tobytes()))


def _noise_beside(log_signal: Floats) -> Floats:
    """√(1 - a²), the noise that goes with a signal a; the absolute value turns -0 into 0."""
    return np.sqrt(np.abs(np.expm1(2.0 * log_signal)))


def _inverse_snr(log_signal: Floats) -> Floats:
    """(1 - a²) / a²."""
    return np.abs(np.expm1(-2.0 * log_signal))


def _read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array
