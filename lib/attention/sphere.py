"""Keys uniform on a sphere: the author's longer route to the entropy-invariant scale, recomputed.

https://kexue.fm/archives/8823 takes |q| = |k| = √d, so that a score is s = q·k = d cos θ, and
replaces sums over keys by n times an expectation; https://kexue.fm/archives/7695 evaluates it.
With θ the angle between a fixed direction and a uniform one in R^d,

- density: Γ(d/2) / (Γ((d-1)/2) √π) · sin^{d-2} θ (`lib.hubness.angle_density`)
- entropy: H ≈ log n + h(d, λ), with h = log M - λ d E[cos θ e^{λ d cos θ}] / M and
  M = E e^{λ d cos θ}
- large d: h / d → -½ log(λ / c), with c = (√(1 + 4λ²) - 1) / (2λ)

so -h is the KL divergence of the von Mises-Fisher law with concentration λd from the uniform one.
At λ = 1 the last line is -½ log φ = -0.2406 with φ the golden ratio: the articles' "0.24". They
use -0.24 λ d for every λ; the law is not linear: it starts as -λ²/2.

The expectation is computed on two independent routes: Bessel functions, and quadrature over the
angle. Left out: keys that are not uniform (see `families` for other distributions).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import expit, gammaln, ive, log_expit, logsumexp

from lib.attention import _validation as check
from lib.attention._validation import Floats

# -h(d, 1)/d as d grows: half the logarithm of the golden ratio.
GOLDEN_RATE = 0.5 * np.log((1 + np.sqrt(5)) / 2)


def log_mgf(x: ArrayLike, d: int) -> Floats:
    """log E e^{x cos θ} = log Γ(ν+1) + ν log(2/x) + log I_ν(x), with ν = d/2 - 1.

    Parameters
    ----------
    x : array_like
        x = λ d >= 0 for scores s = d cos θ.
    d : int
        Dimension, at least 2.
    """
    d = check.whole(d, "d", at_least=2)
    x = _non_negative(x, "x")
    nu = d / 2 - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        bessel = gammaln(nu + 1) + nu * np.log(2 / x) + np.log(ive(nu, x)) + x
    # I_ν underflows for x far below ν; there its power series has few terms.
    return np.where(_bessel_is_safe(nu, x), bessel, _series(x, d)[0])[()]


def mean_cosine(x: ArrayLike, d: int) -> Floats:
    """E[cos θ e^{x cos θ}] / E[e^{x cos θ}] = I_{ν+1}(x) / I_ν(x), with ν = d/2 - 1.

    Parameters as in :func:`log_mgf`; it is that function's slope.
    """
    d = check.whole(d, "d", at_least=2)
    x = _non_negative(x, "x")
    nu = d / 2 - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = ive(nu + 1, x) / ive(nu, x)
    return np.where(_bessel_is_safe(nu, x), ratio, _series(x, d)[1])[()]


def log_mgf_and_mean_by_quadrature(x: float, d: int, nodes: int = 8000) -> tuple[float, float]:
    """:func:`log_mgf` and :func:`mean_cosine` by integrating over the angle, without Bessel.

    θ = π / (1 + e^{-v}) turns the two ends of [0, π] into exponential tails, on which the
    trapezoidal rule in v converges faster than any power of its step.
    """
    d = check.whole(d, "d", at_least=2)
    x = float(_non_negative(check.finite(x, "x"), "x"))
    v, step = np.linspace(-75.0, 75.0, check.whole(nodes, "nodes", at_least=2), retstep=True)
    theta = np.pi * expit(v)
    log_step = np.log(np.pi * step) + log_expit(v) + log_expit(-v)
    log_constant = gammaln(d / 2) - gammaln((d - 1) / 2) - 0.5 * np.log(np.pi)
    log_sine = np.log(np.sin(np.pi * expit(-np.abs(v))))  # sin θ = sin(π - θ), and θ may round to π
    logs = x * np.cos(theta) + log_constant + (d - 2) * log_sine + log_step
    total = logsumexp(logs)
    return float(total), float(np.exp(logs - total) @ np.cos(theta))


def entropy_loss(scale: ArrayLike, d: int) -> Floats:
    """h(d, λ) = log E e^{λ d cos θ} - λ d E_λ cos θ <= 0: what the scale takes off log n.

    Parameters
    ----------
    scale : array_like
        λ >= 0 (1/√d is the usual one).
    d : int
        Dimension, at least 2.

    Returns
    -------
    float or ndarray
        h, of the shape of `scale`. The table of https://kexue.fm/archives/7695 is h(d, 1).
    """
    x = _non_negative(scale, "scale") * check.whole(d, "d", at_least=2)
    return log_mgf(x, d) - x * mean_cosine(x, d)


def saddle_cosine(scale: ArrayLike) -> Floats:
    """c = (√(1+4λ²) - 1) / (2λ): where log sin θ + λ cos θ is largest; 1 - c² = c / λ."""
    lam = _non_negative(scale, "scale")
    return (2 * lam / (np.sqrt(1 + 4 * lam**2) + 1))[()]


def loss_rate(scale: ArrayLike) -> Floats:
    """lim h(d, λ)/d = ½ log(1 - c²) = -½ log(λ/c), the large-d limit of the entropy's loss.

    -λ²/2 + 3λ⁴/4 - … for small λ, and -½ log φ = -0.2406 at λ = 1.
    """
    # λ/c = (√(1+4λ²) + 1) / 2 has no 0/0 at λ = 0; log1p keeps the digits of small λ.
    lam = _non_negative(scale, "scale")
    root = np.sqrt(1 + 4 * lam**2)
    return (-0.5 * np.log1p(2 * lam**2 / (root + 1)))[()]


def keeping_scale(n: ArrayLike, d: int, target: float) -> Floats:
    """λ_n = √(1-E)/E with E = exp(-2 (log n - H0)/d): inverse of the large-d limit.

    For log n ≪ d it is √(2 (log n - H0)/d); for log n ≫ d it grows as n^{2/d}.

    Parameters
    ----------
    n : array_like
        Numbers of keys, each at least 1.
    d : int
        Dimension, at least 2.
    target : float
        Entropy H0 to keep, below every log n (log n itself gives λ = 0).
    """
    lost = _lost(n, target)
    d = check.whole(d, "d", at_least=2)
    with np.errstate(over="ignore"):
        return (np.sqrt(-np.expm1(-2 * lost / d)) * np.exp(2 * lost / d))[()]


def keeping_scale_at_finite_d(n: ArrayLike, d: int, target: float) -> Floats:
    """The λ with log n + h(d, λ) = H0, from the Bessel functions; parameters as above."""
    lost = _lost(n, target)
    d = check.whole(d, "d", at_least=2)
    return np.vectorize(lambda loss: _scale_with_loss(loss, d), otypes=[float])(lost)[()]


def _scale_with_loss(loss: float, d: int) -> float:
    if loss == 0:
        return 0.0
    high = 1.0
    while -entropy_loss(high, d) < loss:
        high *= 2
    return float(brentq(lambda lam: -entropy_loss(lam, d) - loss, 0.0, high, xtol=1e-14))


def _lost(n: ArrayLike, target: float) -> Floats:
    """log n - H0, the entropy that the scale must take away."""
    lost = np.log(check.counts(n, "n")) - check.finite(target, "target")
    if (lost < 0).any() or target < 0:
        raise ValueError(
            f"`target` must lie between 0 and log n = {(lost.min() + target):.6g}, got {target}"
        )
    return lost


def _bessel_is_safe(nu: float, x: Floats) -> np.ndarray:
    return (x > 0) & (ive(nu + 1, x) > 1e-280)


def _series(x: Floats, d: int) -> tuple[Floats, Floats]:
    """log E e^{x cos θ} and the mean cosine from Σ_k (x²/4)^k / (k! (d/2)_k), all terms positive.

    Used for x up to about the order ν only, where 60 + ν terms are plenty.
    """
    small = np.minimum(x, d + 50.0)[..., None]
    k = np.arange(60 + d)
    with np.errstate(divide="ignore", invalid="ignore"):
        powers = np.where(k == 0, 0.0, 2 * k * np.log(small / 2))
    logs = powers - gammaln(k + 1) - gammaln(d / 2 + k) + gammaln(d / 2)
    total = logsumexp(logs, axis=-1)
    terms = np.exp(logs[..., 1:] - total[..., None])
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(x == 0, 0.0, 2 / x * (k[1:] * terms).sum(axis=-1))
    return total, mean


def _non_negative(values: ArrayLike, name: str) -> Floats:
    array = check.real_array(values, name).astype(np.float64, copy=False)
    bad = ~(np.isfinite(array) & (array >= 0))
    if bad.any():
        raise ValueError(f"`{name}` must be finite and not negative, got {array[bad].flat[0]}")
    return array
