"""What dimension alone does: ball and cube, angles, and the counts of a Gaussian cloud.

For x and y in R^d with y ~ N(0, I), ‖x - y‖² given ‖x‖ is non-central χ² with mean ‖x‖² + d and
variance 4 ‖x‖² + 2 d: a point closer to the centre is closer to everybody. That, and not the
emptiness of the cube, makes the hubs: a torus has none, at the same ratio of ball to cube.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betainc, gammaln, ndtr, ndtri, polygamma, xlogy
from scipy.stats import chi2, ncx2

from lib import _checks as check
from lib._checks import Floats

__all__ = [
    "angle_density",
    "angle_variance",
    "ball_cube_ratio",
    "log_ball_cube_ratio",
    "predicted_occurrence",
    "squared_distance_moments",
]

NODES = 64  # of the quadrature over the norm of the query


def log_ball_cube_ratio(d: int) -> float:
    """log of :func:`ball_cube_ratio`, for any d.

    Parameters
    ----------
    d : int
        Dimension, at least 1.
    """
    d = check.whole(d, "d", 1)
    return d / 2 * math.log(math.pi) - d * math.log(2) - math.lgamma(d / 2 + 1)


def ball_cube_ratio(d: int) -> float:
    """Volume of the ball inscribed in a cube over that of the cube: π^(d/2) / (2^d Γ(d/2 + 1)).

    0 beyond d of about 340, where it is less than the least float64.

    Parameters
    ----------
    d : int
        Dimension, at least 1.

    References
    ----------
    https://kexue.fm/archives/9147
    """
    return math.exp(log_ball_cube_ratio(d))


def angle_density(theta: ArrayLike, d: int) -> Floats:
    """Density of the angle of two random directions: Γ(d/2) / (Γ((d-1)/2) √π) sin^(d-2) θ.

    Parameters
    ----------
    theta : array_like
        Angles; outside [0, π] the density is 0.
    d : int
        Dimension, at least 2; a million is fine.

    Returns
    -------
    float64 array of the shape of `theta`

    References
    ----------
    https://kexue.fm/archives/7076
    """
    theta, d = check.reals(theta, "theta"), check.whole(d, "d", 2)
    inside = (theta >= 0) & (theta <= np.pi)
    sine = np.clip(np.sin(np.where(inside, theta, 0.5 * np.pi)), 0.0, None)
    constant = gammaln(d / 2) - gammaln((d - 1) / 2) - 0.5 * math.log(math.pi)
    return np.where(inside, np.exp(constant + xlogy(d - 2, sine)), 0.0)[()]


def angle_variance(d: int) -> float:
    """Variance of that angle, ψ'(d/2) / 2 with the trigamma function; near 1 / (d - 1).

    Parameters
    ----------
    d : int
        Dimension, at least 2.
    """
    return float(polygamma(1, check.whole(d, "d", 2) / 2) / 2)


def squared_distance_moments(norms: ArrayLike, d: int) -> tuple[Floats, Floats]:
    """Mean ‖x‖² + d and variance 4 ‖x‖² + 2 d of ‖x - y‖² over y ~ N(0, I), for each ‖x‖.

    Parameters
    ----------
    norms : array_like
        Norms of points, >= 0.
    d : int
        Dimension, at least 1.

    Returns
    -------
    mean, variance : float64 arrays of the shape of `norms`
    """
    squares = check.within(norms, "norms", 0.0, np.inf) ** 2
    d = check.whole(d, "d", 1)
    return squares + d, 4 * squares + 2 * d


def predicted_occurrence(
    norms: ArrayLike, d: int, n: int, k: int, *, method: str = "integral"
) -> Floats:
    """Mean N_k of a point by its norm, in a cloud of n points from N(0, I), Euclidean.

    A query y at norm s has its k neighbours within R_s, with k = (n - 1) P(‖x - y‖ < R_s), and
    N_k(x) = (n - 1) E_y P(‖x - y‖ < R_s).

    - "integral": non-central χ² for R_s, the law of angles for the inner probability, quadrature
      over s ~ χ_d. Right as n grows, at any d.
    - "normal": both squares taken as normal, which is right as d grows, closes the integral:
      (n - 1) Φ((√6 q - √2 z) / 2) with q = Φ⁻¹(k / (n - 1)) and z = (‖x‖² - d) / √(2d).

    Parameters
    ----------
    norms : array_like
        Norms of points, >= 0.
    d : int
        Dimension, at least 2.
    n : int
        Number of points, at least 3.
    k : int
        From 1 to n - 2.
    method : {"integral", "normal"}

    Returns
    -------
    float64 array of the shape of `norms`
    """
    norms = check.within(norms, "norms", 0.0, np.inf)
    d, n = check.whole(d, "d", 2), check.whole(n, "n", 3)
    share = check.whole(k, "k", 1, n - 2) / (n - 1)
    if check.choice(method, "method", ("integral", "normal")) == "normal":
        z = (norms**2 - d) / math.sqrt(2 * d)
        return (n - 1) * ndtr((math.sqrt(6) * ndtri(share) - math.sqrt(2) * z) / 2)
    # quantiles of s, by a rule for [0, 1] that crowds at both ends: so do the hubs' queries
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    angle = np.pi / 2 * (nodes + 1) / 2
    level, weights = np.sin(angle) ** 2, weights * np.pi / 4 * np.sin(2 * angle)
    square = chi2.ppf(level, d)  # (NODES,)
    radius = ncx2.ppf(share, d, square)  # R_s²
    r2 = norms[..., None] ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        cosine = (r2 + square - radius) / (2 * np.sqrt(r2 * square))
    # at the centre itself every angle is the same: inside or not
    cosine = np.where(r2 > 0.0, cosine, np.where(square < radius, -1.0, 1.0))
    cosine = np.clip(cosine, -1.0, 1.0)
    tail = betainc((d - 1) / 2, 0.5, 1.0 - cosine**2) / 2
    inner = np.where(cosine > 0.0, tail, 1.0 - tail)
    return ((n - 1) * (inner * weights).sum(axis=-1))[()]
