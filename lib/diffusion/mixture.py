"""Mixtures of Gaussians under diffusion: everything that a network only learns, in closed form.

For data p_0 = Σ w_k N(m_k, S_k) the noisy x_t = ᾱ_t x_0 + β̄_t ε is again a mixture,
Σ w_k N(ᾱ_t m_k, ᾱ_t² S_k + β̄_t² I); so density, score, the exact ε*(x, t) = -β̄_t ∇log p_t(x),
E[x_0 | x_t] and the step p(x_s | x_t) are sums over components, with log-sum-exp for the weights.
Covariances are kept by their eigenvectors, which noise does not turn; all in float64, and
differentiable in x. S_k may be singular, even 0 (a set of points), once there is noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from lib.diffusion import _tensors as tensors
from lib.diffusion import _validation as check
from lib.diffusion._tensors import Model
from lib.diffusion.schedule import Schedule

LOG_2PI = math.log(2.0 * math.pi)
Numbers = ArrayLike | Tensor | Sequence[float]


@dataclass(frozen=True, eq=False, repr=False)
class GaussianMixture:
    """Σ_k w_k N(m_k, S_k) in d dimensions; immutable.

    Parameters
    ----------
    weights : array-like of shape (K,)
        Not negative, with sum 1.
    means : array-like of shape (K, d)
        m_k.
    covariances : float or array-like of shape (K,) or (K, d, d)
        S_k: one variance for all components, one variance (not a deviation) each, or full
        symmetric positive semi-definite matrices.

    Raises
    ------
    ValueError
        If weights don't add up to 1, a covariance isn't symmetric positive semi-definite, shapes
        don't fit each other, or anything is NaN.

    Examples
    --------
    >>> two = GaussianMixture([0.5, 0.5], [[-1.0], [1.0]], 0.04)
    >>> two.mean().tolist(), two.covariance().tolist()
    ([0.0], [[1.04]])
    >>> schedule = Schedule.article(100)
    >>> eps = two.noise_predictor(schedule)
    >>> eps(torch.zeros(3, 1), torch.tensor([1, 50, 100])).flatten().tolist()
    [0.0, 0.0, 0.0]
    """

    weights: Tensor
    means: Tensor
    covariances: Tensor
    _eigenvalues: Tensor = field(init=False)  # (K, d), or (K, 1) for multiples of the identity
    _vectors: Tensor | None = field(init=False)  # (K, d, d), a column each; None for the identity

    def __post_init__(self) -> None:
        weights = _float64(self.weights, "weights")
        if weights.ndim != 1 or weights.numel() == 0:
            raise ValueError(f"`weights` must be one row of numbers, got {tuple(weights.shape)}")
        K = weights.numel()
        if (weights < 0).any():
            raise ValueError(f"`weights` must not be negative, got {weights.min().item():g}")
        total = weights.sum()
        if abs(total.item() - 1.0) > 1e-6:  # what single precision may be off by
            raise ValueError(f"`weights` must add up to 1, got {total.item():.9g}")
        weights = weights / total
        means = _float64(self.means, "means", weights.device)
        if means.ndim != 2 or means.shape[0] != K or means.shape[1] == 0:
            raise ValueError(
                f"`means` must have shape ({K}, d), one row per weight, got {tuple(means.shape)}"
            )
        covariances = _float64(self.covariances, "covariances", weights.device)
        eigenvalues, vectors = _spectrum(covariances, K, means.shape[1])
        _set(self, weights, means, covariances, eigenvalues, vectors)

    # --- plain facts -----------------------------------------------------------------------------

    @property
    def components(self) -> int:
        return self.weights.numel()

    @property
    def dimension(self) -> int:
        return self.means.shape[1]

    def __repr__(self) -> str:
        return f"GaussianMixture(components={self.components}, dimension={self.dimension})"

    def mean(self) -> Tensor:
        """Σ w_k m_k, shape (d,)."""
        return self.weights @ self.means

    def covariance(self) -> Tensor:
        """Σ w_k (S_k + m_k m_kᵀ) less the mean's, shape (d, d)."""
        away = self.means - self.mean()
        within = torch.einsum("k,kde->de", self.weights, self._matrices(self._eigenvalues))
        return within + torch.einsum("k,kd,ke->de", self.weights, away, away)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n independent draws, shape (n, d), float64."""
        n = check.whole(n, "n", 1)
        tensors.generator(generator)
        which = torch.multinomial(
            self.weights.to(generator.device), n, replacement=True, generator=generator
        ).to(self.weights.device)
        z = tensors.normal_like(self.means.new_empty(n, self.dimension), generator)
        return self.means[which] + self._turn_back(self._eigenvalues.sqrt()[which] * z, which)

    def log_density(self, x: Tensor) -> Tensor:
        """log p(x), shape (n,) for x of shape (n, …) with d numbers in a row."""
        joint, _, _ = self._joint(self._rows(x, "x"), 1.0, 0.0)
        return torch.logsumexp(joint, -1)

    def score(self, x: Tensor) -> Tensor:
        """∇log p(x), of x's shape and dtype."""
        return self._score(self._rows(x, "x"), 1.0, 0.0).to(x.dtype).reshape(x.shape)

    def responsibilities(self, x: Tensor) -> Tensor:
        """P(component k | x), shape (n, K)."""
        joint, _, _ = self._joint(self._rows(x, "x"), 1.0, 0.0)
        return torch.softmax(joint, -1)

    # --- under noise -----------------------------------------------------------------------------

    def noised(self, alpha_bar: float, beta_bar: float) -> GaussianMixture:
        """The distribution of ᾱ x + β̄ ε, again a mixture."""
        a, b = check.number(alpha_bar, "alpha_bar", 0.0), check.number(beta_bar, "beta_bar", 0.0)
        eigenvalues = a**2 * self._eigenvalues + b**2
        return _made(self.weights, a * self.means, eigenvalues, self._vectors)

    def noise_predictor(self, schedule: Schedule) -> Model:
        """The exact model(x, t) -> ε* = -β̄_t ∇log p_t(x), for whole and real t in (0, T].

        It answers in x's shape and dtype and computes in float64. At t = 0 it is 0, or refused
        where a covariance is singular.
        """

        def model(x: Tensor, t: Tensor) -> Tensor:
            rows = self._rows(x, "x")
            alpha_bar, beta_bar = self._bars(rows, t, schedule)
            eps = -beta_bar * self._score(rows, alpha_bar, beta_bar)
            return eps.to(x.dtype).reshape(x.shape)

        return model

    def posterior_mean(self, x: Tensor, t: Tensor | float, schedule: Schedule) -> Tensor:
        """E[x_0 | x_t = x], of x's shape and dtype."""
        rows = self._rows(x, "x")
        posterior = self.step_posterior(rows, t, schedule, s=0.0)
        return posterior.mean().to(x.dtype).reshape(x.shape)

    def step_posterior(
        self, x: Tensor, t: Tensor | float, schedule: Schedule, s: Tensor | float | None = None
    ) -> StepPosterior:
        """p(x_s | x_t = x) of the forward chain, exactly: a mixture for each row of x.

        Parameters
        ----------
        x : Tensor of shape (n, …)
            States at time t, d numbers in a row.
        t, s : Tensor of shape (n,), or a number
            Times T >= t > s >= 0. Default for s: the time before t in the schedule, which is
            t - 1 unless it is a subsequence.
        schedule : Schedule

        Returns
        -------
        StepPosterior
            With `mean`, `covariance`, `sample` and `log_density`. s = 0 gives p(x_0 | x_t).
        """
        rows = self._rows(x, "x")
        late = self._times(rows, t, "t")
        if s is None:
            before = np.searchsorted(schedule.times, late.cpu().numpy()) - 1
            s = torch.as_tensor(schedule.times[np.maximum(before, 0)])
        early = self._times(rows, s, "s")
        if (early >= late).any() or (early < 0).any():
            raise ValueError("`s` must be at least 0 and less than `t`, the time of x")
        joint, away, spread = self._joint(rows, *self._bars(rows, late, schedule))
        step = schedule.transition(early.cpu(), late.cpu())
        a, b = (self._column(rows, part) for part in step)
        signal, noisy = self._bars(rows, early, schedule)
        # In each component x_s ~ N(μ, c) along an eigenvector, and x_t = a x_s + b ε.
        prior = signal[..., None] ** 2 * self._eigenvalues + noisy[..., None] ** 2  # (n|1, K, d|1)
        gain = a[..., None] * prior / spread
        means = signal[..., None] * self.means + self._turn_back(gain * away)  # (n, K, d)
        left = b[..., None] ** 2 * prior / spread
        return StepPosterior(torch.softmax(joint, -1), means, left, self._vectors)

    # --- inside ----------------------------------------------------------------------------------

    def _rows(self, x: Tensor, name: str) -> Tensor:
        """x as (n, d) in float64."""
        if not isinstance(x, Tensor) or not x.is_floating_point():
            tensors.state(x, name)
        if x.ndim < 1 or x.numel() != x.shape[0] * self.dimension or x.numel() == 0:
            raise ValueError(
                f"`{name}` must have {self.dimension} numbers in each of its rows, "
                f"got shape {tuple(x.shape)}"
            )
        if x.device != self.means.device:
            raise ValueError(
                f"`{name}` must be on the mixture's device, {self.means.device}, got {x.device}"
            )
        if not tensors.all_finite(x.detach()):
            tensors.state(x.detach(), name)
        return x.reshape(x.shape[0], self.dimension).double()

    def _times(self, rows: Tensor, t: Tensor | float, name: str) -> Tensor:
        """Times in float64, of shape (n,), or () for one that all rows share."""
        t = torch.as_tensor(t, dtype=torch.float64, device=rows.device)
        if t.shape not in ((), rows.shape[:1]):
            raise ValueError(
                f"`{name}` must be a number or have the batch's shape {tuple(rows.shape[:1])}, "
                f"got {tuple(t.shape)}"
            )
        shared = t.ndim == 1 and bool((t == t[0]).all())
        return t[0] if shared else t

    def _bars(self, rows: Tensor, t: Tensor | float, schedule: Schedule) -> tuple[Tensor, Tensor]:
        """ᾱ_t and β̄_t as columns (n, 1), or (1, 1) where all rows share a time."""
        t = self._times(rows, t, "t")
        alpha_bar, beta_bar = schedule.at(t.cpu())
        return self._column(rows, alpha_bar), self._column(rows, beta_bar)

    def _column(self, rows: Tensor, values: ArrayLike) -> Tensor:
        return torch.as_tensor(values, dtype=torch.float64, device=rows.device).reshape(-1, 1)

    def _joint(
        self, rows: Tensor, alpha_bar: Tensor | float, beta_bar: Tensor | float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """log of w_k N(x; ᾱm_k, ᾱ²S_k + β̄²), x - ᾱm_k along the eigenvectors, and variances."""
        a = self._column(rows, alpha_bar)[..., None]  # (n|1, 1, 1)
        b = self._column(rows, beta_bar)[..., None]
        spread = a**2 * self._eigenvalues + b**2  # (n|1, K, d|1)
        if (spread <= 0).any():
            raise ValueError(
                "`x` has no density here: a covariance is singular and there is no noise (t = 0)"
            )
        away = self._away(rows, a)  # (n, K, d)
        log_volume = spread.log().sum(-1) * (self.dimension / spread.shape[-1])
        square = (away.square() / spread).sum(-1)
        log_weights = self.weights.log()
        joint = log_weights - 0.5 * (square + log_volume + self.dimension * LOG_2PI)
        return joint, away, spread

    def _score(self, rows: Tensor, alpha_bar: Tensor | float, beta_bar: Tensor | float) -> Tensor:
        joint, away, spread = self._joint(rows, alpha_bar, beta_bar)
        pull = torch.softmax(joint, -1)[..., None] * (away / spread)  # (n, K, d)
        if self._vectors is None:
            return -pull.sum(1)
        return -(pull.flatten(1) @ self._vectors.mT.flatten(0, 1))  # one product over K·d

    def _away(self, rows: Tensor, a: Tensor) -> Tensor:
        """x - ᾱm_k in coordinates along each component's eigenvectors, (n, K, d)."""
        if self._vectors is None:
            return rows[:, None, :] - a * self.means
        turned = rows @ self._vectors.transpose(0, 1).flatten(1)  # all components in one product
        means = torch.einsum("kd,kde->ke", self.means, self._vectors)
        return turned.unflatten(1, means.shape) - a * means

    def _turn_back(self, x: Tensor, which: Tensor | None = None) -> Tensor:
        """Back from those of every component, (n, K, d), or of component which[n], (n, d)."""
        if self._vectors is None:
            return x
        if which is not None:
            return torch.einsum("nde,ne->nd", self._vectors[which], x)
        return torch.einsum("kde,nke->nkd", self._vectors, x)

    def _matrices(self, eigenvalues: Tensor) -> Tensor:
        return _matrices(eigenvalues, self._vectors, self.dimension)


@dataclass(frozen=True, eq=False, repr=False)
class StepPosterior:
    """p(x_s | x_t) for each of n states x_t: Σ_k r_k N(c_k, C_k), from `step_posterior`.

    Attributes
    ----------
    weights : Tensor of shape (n, K)
        r_k = P(component k | x_t).
    means : Tensor of shape (n, K, d)
        c_k, affine in x_t.
    """

    weights: Tensor
    means: Tensor
    _eigenvalues: Tensor  # (n or 1, K, d or 1)
    _vectors: Tensor | None

    def __repr__(self) -> str:
        n, components, dimension = self.means.shape
        return f"StepPosterior(n={n}, components={components}, dimension={dimension})"

    @property
    def covariances(self) -> Tensor:
        """C_k, shape (n, K, d, d), or (1, K, d, d) where all rows share the times."""
        return _matrices(self._eigenvalues, self._vectors, self.means.shape[-1])

    def mean(self) -> Tensor:
        """E[x_s | x_t], shape (n, d)."""
        return (self.weights[..., None] * self.means).sum(1)

    def covariance(self) -> Tensor:
        """Cov[x_s | x_t], shape (n, d, d): within the components and between them."""
        away = self.means - self.mean()[:, None]
        within = (self.weights[..., None, None] * self.covariances).sum(1)
        return within + torch.einsum("nk,nkd,nke->nde", self.weights, away, away)

    def sample(self, generator: torch.Generator) -> Tensor:
        """One draw of x_s for each row, shape (n, d), float64."""
        tensors.generator(generator)
        n, _, d = self.means.shape
        which = torch.multinomial(self.weights.to(generator.device), 1, generator=generator)[:, 0]
        which = which.to(self.means.device)
        z = tensors.normal_like(self.means.new_empty(n, d), generator)
        rows = torch.arange(n, device=which.device)
        first = rows if len(self._eigenvalues) == n else torch.zeros_like(rows)
        step = self._eigenvalues.sqrt()[first, which] * z
        if self._vectors is not None:
            step = torch.einsum("nde,ne->nd", self._vectors[which], step)
        return self.means[rows, which] + step

    def sample_gaussian(self, generator: torch.Generator) -> Tensor:
        """One draw for each row from the *single* Gaussian with the same mean and covariance.

        The best that a Gaussian step can do: what separates it from `sample` is the price of
        steps too large for one.
        """
        tensors.generator(generator)
        eigenvalues, vectors = torch.linalg.eigh(self.covariance())
        z = tensors.normal_like(self.means[:, 0], generator)
        step = eigenvalues.clamp_min(0.0).sqrt() * z
        return self.mean() + torch.einsum("nde,ne->nd", vectors, step)

    def log_density(self, x: Tensor) -> Tensor:
        """log p(x_s = x | x_t), shape (n,), for one x per row, shape (n, d)."""
        n, _, d = self.means.shape
        if not isinstance(x, Tensor) or x.shape != (n, d):
            got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"`x` must be a tensor of shape {(n, d)}, got {got}")
        tensors.state(x.detach(), "x")
        if (self._eigenvalues <= 0).any():
            raise ValueError("`x` has no density here: the step from x_t leaves no variance")
        away = x.double()[:, None] - self.means
        if self._vectors is not None:
            away = torch.einsum("nkd,kde->nke", away, self._vectors)
        square = (away.square() / self._eigenvalues).sum(-1)
        log_volume = self._eigenvalues.log().sum(-1) * (d / self._eigenvalues.shape[-1])
        return torch.logsumexp(self.weights.log() - 0.5 * (square + log_volume + d * LOG_2PI), -1)

    def mixture(self, row: int) -> GaussianMixture:
        """That of one row, for its density on a grid."""
        row = check.whole(row, "row", 0, len(self.means) - 1)
        one = row if len(self._eigenvalues) == len(self.means) else 0
        return _made(self.weights[row], self.means[row], self._eigenvalues[one], self._vectors)


def _set(
    mixture: GaussianMixture,
    weights: Tensor,
    means: Tensor,
    covariances: Tensor,
    eigenvalues: Tensor,
    vectors: Tensor | None,
) -> None:
    object.__setattr__(mixture, "weights", weights)
    object.__setattr__(mixture, "means", means)
    object.__setattr__(mixture, "covariances", covariances)
    object.__setattr__(mixture, "_eigenvalues", eigenvalues)
    object.__setattr__(mixture, "_vectors", vectors)


def _made(
    weights: Tensor, means: Tensor, eigenvalues: Tensor, vectors: Tensor | None
) -> GaussianMixture:
    """A mixture whose parts are known to be valid."""
    mixture = object.__new__(GaussianMixture)
    isotropic = vectors is None
    whole = eigenvalues[:, 0] if isotropic else _matrices(eigenvalues, vectors, means.shape[-1])
    _set(mixture, weights, means, whole, eigenvalues, vectors)
    return mixture


def _matrices(eigenvalues: Tensor, vectors: Tensor | None, d: int) -> Tensor:
    """Covariances (…, K, d, d) from their eigenvalues (…, K, d or 1)."""
    if vectors is None:
        return torch.diag_embed(eigenvalues.expand(*eigenvalues.shape[:-1], d))
    return (vectors * eigenvalues[..., None, :]) @ vectors.mT


def _float64(values: Numbers, name: str, device: torch.device | None = None) -> Tensor:
    """A finite constant in float64, a copy."""
    if isinstance(values, Tensor):
        if values.is_complex() or values.dtype == torch.bool:
            raise TypeError(f"`{name}` must hold real numbers, got dtype {values.dtype}")
        copy = values.detach().to(device or values.device, torch.float64, copy=True)
        if not torch.isfinite(copy).all():
            raise ValueError(f"`{name}` must be finite, got {copy[~torch.isfinite(copy)][0]}")
        return copy
    return torch.tensor(check.reals(values, name), dtype=torch.float64, device=device)


def _spectrum(covariances: Tensor, K: int, d: int) -> tuple[Tensor, Tensor | None]:
    """Eigenvalues (K, d) and eigenvectors, or (K, 1) and None for multiples of the identity."""
    if covariances.shape in ((), (K,)):
        if (covariances < 0).any():
            raise ValueError(
                f"`covariances` must not be negative, got the variance {covariances.min():g}"
            )
        return covariances.expand(K)[:, None].clone(), None
    if covariances.shape != (K, d, d):
        raise ValueError(
            f"`covariances` must be a number or have shape ({K},) or ({K}, {d}, {d}), "
            f"got {tuple(covariances.shape)}"
        )
    size = covariances.abs().amax((-2, -1))
    skew = (covariances - covariances.mT).abs().amax((-2, -1)) > 1e-10 * size
    if skew.any():
        raise ValueError(f"`covariances` must be symmetric, component {_first(skew)} is not")
    eigenvalues, vectors = torch.linalg.eigh((covariances + covariances.mT) / 2)
    negative = eigenvalues[:, 0] < -1e-10 * size
    if negative.any():
        k = _first(negative)
        raise ValueError(
            f"`covariances` must be positive semi-definite, component {k} has "
            f"the eigenvalue {eigenvalues[k, 0]:g}"
        )
    # what is below rounding is 0, so that a singular matrix is known as one
    return torch.where(eigenvalues > 1e-14 * size[:, None], eigenvalues, 0.0), vectors


def _first(flags: Tensor) -> int:
    return int(flags.nonzero()[0, 0])
