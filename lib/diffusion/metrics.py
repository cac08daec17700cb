"""Distances between samples and data, and the words "noisy" and "diverse" made measurable.

- two samples in any dimension: sliced Wasserstein, energy distance, MMD, each with an interval;
- images in the features of a small classifier: a Fréchet distance (*not* FID: no Inception network,
  no 50,000 images; figures compare only within one `DigitFeatures`), and `floor`, what real data
  score against real data, without which no figure of a biased distance means anything;
- one sample alone: diversity, energy in high frequencies, distance to the nearest of the data.

Everything computes in float64 with NumPy; arrays or tensors of shape (n, …) come in, an `Estimate`
or one number per sample comes out.  Left out: precision and recall, likelihoods.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from scipy.fft import dctn
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist, pdist
from scipy.stats import norm
from scipy.stats import t as student_t
from torch import Tensor

from lib.diffusion import _tensors as tensors
from lib.diffusion import _validation as check
from lib.diffusion._validation import Floats

__all__ = [
    "DigitFeatures",
    "Estimate",
    "diversity",
    "energy_distance",
    "feature_frechet",
    "floor",
    "frechet_distance",
    "gaussian_frechet",
    "high_frequency_energy",
    "mean_estimate",
    "mmd",
    "nearest_distance",
    "sliced_wasserstein",
]

Samples = ArrayLike | Tensor
Features = Callable[[Any], NDArray[np.float64]]
TOTAL_VARIANCE = 100.0  # of the features of the digits that a classifier was trained on


@dataclass(frozen=True)
class Estimate:
    """A number with its interval; both ends are NaN where none was asked for.

    Attributes
    ----------
    value, low, high : float
    """

    value: float
    low: float = math.nan
    high: float = math.nan

    def __float__(self) -> float:
        return self.value


# --- two samples --------------------------------------------------------------------------------


def sliced_wasserstein(
    a: Samples,
    b: Samples,
    generator: torch.Generator,
    *,
    projections: int = 128,
    order: float = 2.0,
    bootstrap: int = 0,
    level: float = 0.95,
) -> Estimate:
    """Sliced Wasserstein distance: (mean over directions θ of W_p(θ·a, θ·b)^p)^(1/p).

    Zero only for equal distributions. The value is biased upwards by sampling, the more the
    smaller the samples: set it beside `floor`.

    Parameters
    ----------
    a, b : array_like of shape (n, …), (m, …)
        Two samples of at least 2, of one dimension; n and m may differ.
    generator : torch.Generator
        Source of the directions (uniform on the sphere; in one dimension there is only one) and
        of the bootstrap.
    projections : int
        Number of directions.
    order : float
        p >= 1.
    bootstrap, level
        As in :func:`energy_distance`; the directions stay the same.

    Returns
    -------
    Estimate

    References
    ----------
    Bonneel et al., Sliced and Radon Wasserstein barycenters of measures, 2015.
    """
    a, b = _two(a, b)
    tensors.generator(generator)
    projections = check.whole(projections, "projections", 1)
    order = check.number(order, "order", 1.0)
    directions = _directions(a.shape[1], projections, generator)  # (d, P)
    flat_a, flat_b = (a @ directions).T, (b @ directions).T  # (P, n), (P, m)

    def distance(i: NDArray[np.int64], j: NDArray[np.int64]) -> float:
        return float(_quantile_distance(flat_a[:, i], flat_b[:, j], order).mean() ** (1 / order))

    return _with_interval(distance, (len(a), len(b)), bootstrap, level, generator)


def energy_distance(
    a: Samples,
    b: Samples,
    *,
    unbiased: bool = True,
    bootstrap: int = 0,
    level: float = 0.95,
    generator: torch.Generator | None = None,
) -> Estimate:
    """Energy distance 2 E‖a - b‖ - E‖a - a'‖ - E‖b - b'‖; zero only for equal distributions.

    Parameters
    ----------
    a, b : array_like of shape (n, …), (m, …)
        Two samples of at least 2, of one dimension; n and m may differ. Takes 8 (n² + m² + nm)
        bytes: 200 MB for twice 3,000.
    unbiased : bool
        Leave each point's distance 0 to itself out of the means. The value then is 0 on average,
        and often negative, for equal distributions; else it is never negative, but biased.
        SciPy's `energy_distance` is the square root of the biased one, in one dimension.
    bootstrap : int
        Resamples of both samples (say 200) for the interval: value ± z times their standard
        deviation. 0 gives none. It covers the scatter of the samples, not a bias.
    level : float in (0, 1)
        Of the interval.
    generator : torch.Generator, optional
        Source of the bootstrap; needed for one.

    Returns
    -------
    Estimate

    References
    ----------
    Székely and Rizzo, Energy statistics, 2013.
    """
    a, b = _two(a, b)
    kernels = (-cdist(x, y) for x, y in ((a, a), (b, b), (a, b)))
    return _difference_of_means(*kernels, unbiased, bootstrap, level, generator)


def mmd(
    a: Samples,
    b: Samples,
    bandwidth: float | None = None,
    *,
    unbiased: bool = True,
    bootstrap: int = 0,
    level: float = 0.95,
    generator: torch.Generator | None = None,
) -> Estimate:
    """Squared maximum mean discrepancy E k(a, a') + E k(b, b') - 2 E k(a, b), Gaussian kernel.

    Parameters
    ----------
    a, b, unbiased, bootstrap, level, generator
        As in :func:`energy_distance`.
    bandwidth : float, optional
        h of k(x, y) = exp(-‖x - y‖² / 2h²). Default: the median distance between two different
        points of both samples together; figures compare only at one bandwidth.

    Returns
    -------
    Estimate

    References
    ----------
    Gretton et al., A kernel two-sample test, 2012, lemma 6.
    """
    a, b = _two(a, b)
    if bandwidth is None:
        bandwidth = float(np.median(pdist(np.concatenate([a, b]))))
        if bandwidth == 0.0:
            raise ValueError("`bandwidth` must be given: more than half of all distances are 0")
    else:
        bandwidth = check.number(bandwidth, "bandwidth")
        if bandwidth <= 0.0:
            raise ValueError(f"`bandwidth` must be positive, got {bandwidth:g}")
    factor = -0.5 / bandwidth**2
    pairs = ((a, a), (b, b), (a, b))
    kernels = (np.exp(factor * cdist(x, y, "sqeuclidean")) for x, y in pairs)
    return _difference_of_means(*kernels, unbiased, bootstrap, level, generator)


# --- Fréchet ------------------------------------------------------------------------------------


def gaussian_frechet(
    mean_a: ArrayLike, covariance_a: ArrayLike, mean_b: ArrayLike, covariance_b: ArrayLike
) -> float:
    """W_2² between two Gaussians: ‖m - m'‖² + tr(S + S' - 2 (S S')^(1/2)).

    The last trace is the sum of the singular values of L'ᵀL with S = L Lᵀ, so singular covariances
    are as good as any others and need no ridge.

    Parameters
    ----------
    mean_a, mean_b : array_like of shape (d,)
    covariance_a, covariance_b : array_like of shape (d, d)
        Symmetric positive semi-definite.

    References
    ----------
    Dowson and Landau, 1982.
    """
    m, n = (check.vector(x, name) for x, name in ((mean_a, "mean_a"), (mean_b, "mean_b")))
    if m.shape != n.shape:
        raise ValueError(f"`mean_b` must have shape {m.shape} as `mean_a`, got {n.shape}")
    roots, traces = [], []
    for covariance, name in ((covariance_a, "covariance_a"), (covariance_b, "covariance_b")):
        matrix = check.reals(covariance, name)
        if matrix.shape != (m.size, m.size):
            raise ValueError(f"`{name}` must have shape {(m.size, m.size)}, got {matrix.shape}")
        eigenvalues, vectors = np.linalg.eigh(matrix)
        slack = 1e-9 * max(abs(eigenvalues[0]), abs(eigenvalues[-1]))
        if eigenvalues[0] < -slack or abs(matrix - matrix.T).max() > slack:
            raise ValueError(f"`{name}` must be symmetric positive semi-definite")
        roots.append(vectors * np.sqrt(np.maximum(eigenvalues, 0.0)))
        traces.append(np.trace(matrix))
    overlap = np.linalg.svd(roots[1].T @ roots[0], compute_uv=False).sum()
    return float(max(((m - n) ** 2).sum() + sum(traces) - 2.0 * overlap, 0.0))


def frechet_distance(
    a: Samples,
    b: Samples,
    *,
    bootstrap: int = 0,
    level: float = 0.95,
    generator: torch.Generator | None = None,
) -> Estimate:
    """`gaussian_frechet` of the means and covariances of two samples.

    It sees nothing beyond second moments, and is biased upwards as 1/n: compare at equal sizes
    and beside `floor`.

    Parameters
    ----------
    a, b, bootstrap, level, generator
        As in :func:`energy_distance`.

    Returns
    -------
    Estimate
    """
    a, b = _two(a, b)

    def distance(i: NDArray[np.int64], j: NDArray[np.int64]) -> float:
        x, y = a[i], b[j]
        return gaussian_frechet(x.mean(0), _covariance(x), y.mean(0), _covariance(y))

    return _with_interval(distance, (len(a), len(b)), bootstrap, level, generator)


def feature_frechet(
    a: Samples,
    b: Samples,
    features: Features,
    *,
    bootstrap: int = 0,
    level: float = 0.95,
    generator: torch.Generator | None = None,
) -> Estimate:
    """`frechet_distance` of two samples of images, seen through `features`.

    The recipe of FID with other features: with `DigitFeatures` it is in percent of the variance of
    real digits, and has nothing to do with published FIDs.

    Parameters
    ----------
    a, b : array_like of shape (n, …), (m, …)
        Images as `features` takes them; usually b is real. At equal n and m figures compare.
    features : callable
        Images (n, …) to an array (n, k), such as a `DigitFeatures`.
    bootstrap, level, generator
        As in :func:`energy_distance`.

    Returns
    -------
    Estimate

    References
    ----------
    Heusel et al. 1706.08500; the bias: Chong and Forsyth 1911.07023.
    """
    seen = (_seen(x, features, name) for x, name in ((a, "a"), (b, "b")))
    return frechet_distance(*seen, bootstrap=bootstrap, level=level, generator=generator)


def floor(
    distance: Callable[[Any, Any], Estimate | float],
    data: Samples,
    generator: torch.Generator,
    *,
    size: int | None = None,
    repeats: int = 20,
    level: float = 0.95,
) -> Estimate:
    """What a distance gives for real against real: disjoint random parts of the same data.

    Parameters
    ----------
    distance : callable
        ``distance(a, b)`` -> Estimate or number, e.g. ``partial(feature_frechet, features=…)``.
    data : array_like of shape (N, …)
        At least 4.
    generator : torch.Generator
        Source of the partitions.
    size : int, optional
        Size of each part, default ⌊N/2⌋; take the size at which samples are compared.
    repeats : int
        Number of partitions.
    level : float in (0, 1)
        The interval is the central range that holds this share of the partitions.

    Returns
    -------
    Estimate
        Mean over the partitions, and that range.
    """
    data = _array(data, "data", least=4)
    tensors.generator(generator)
    size = check.whole(len(data) // 2 if size is None else size, "size", 2, len(data) // 2)
    repeats = check.whole(repeats, "repeats", 1)
    level = check.open_unit(level, "level")
    values = []
    for _ in range(repeats):
        order = torch.randperm(len(data), generator=generator).numpy()
        values.append(float(distance(data[order[:size]], data[order[size : 2 * size]])))
    low, high = np.quantile(values, [0.5 - level / 2, 0.5 + level / 2])
    return Estimate(float(np.mean(values)), float(low), float(high))


@dataclass(frozen=True, eq=False, repr=False)
class DigitFeatures:
    """Features of small images: the hidden layer of a classifier, relu(W x + b), scaled.

    One common factor gives the features of the training images a total variance of 100, so that a
    Fréchet distance reads as percent of it. Build one with `train`.

    Attributes
    ----------
    weight : Tensor, shape (D, width)
    bias : Tensor, shape (width,)
    readout : Tensor, shape (width, classes)
    readout_bias : Tensor, shape (classes,)
    scale : float
    """

    weight: Tensor
    bias: Tensor
    readout: Tensor
    readout_bias: Tensor
    scale: float

    @classmethod
    def train(
        cls,
        images: Samples,
        labels: ArrayLike | Tensor,
        *,
        generator: torch.Generator,
        width: int = 64,
        steps: int = 400,
    ) -> DigitFeatures:
        """Train the classifier: cross-entropy, AdamW, batches of 256; about 0.3 s on digits.

        Parameters
        ----------
        images : array_like of shape (N, …)
            Real images, in [-1, 1] or so.
        labels : array_like of int, shape (N,)
            0 … classes - 1.
        generator : torch.Generator
            Of the first weights and the batches.
        width : int
            Number of features.
        steps : int
        """
        x = torch.from_numpy(_flat(images, "images")).float()
        y = _labels(labels, len(x))
        tensors.generator(generator)
        width, steps = check.whole(width, "width", 1), check.whole(steps, "steps", 1)
        classes = int(y.max()) + 1
        weight = torch.randn(x.shape[1], width, generator=generator) * (2.0 / x.shape[1]) ** 0.5
        readout = torch.randn(width, classes, generator=generator) * width**-0.5
        parameters = [weight, torch.zeros(width), readout, torch.zeros(classes)]
        adam = torch.optim.AdamW(
            [p.requires_grad_() for p in parameters], weight_decay=1e-2, fused=True
        )
        for step in range(steps):
            adam.param_groups[0]["lr"] = 2.5e-3 * (1.0 + math.cos(math.pi * step / steps))
            batch = torch.randint(len(x), (256,), generator=generator)
            logits = cls(*parameters, scale=1.0)._logits(x[batch])
            adam.zero_grad()
            F.cross_entropy(logits, y[batch]).backward()
            adam.step()
        trained = cls(*(p.detach() for p in parameters), scale=1.0)
        variance = trained(x).var(0, ddof=1).sum()
        if variance == 0.0:
            raise ValueError("`images` must differ from each other: their features are all equal")
        return cls(
            *(p.detach() for p in parameters), scale=float((TOTAL_VARIANCE / variance) ** 0.5)
        )

    def __call__(self, images: Samples) -> Floats:
        """Features of images (n, …), shape (n, width), float64."""
        return self.scale * self._hidden(self._inputs(images)).double().numpy()

    def probabilities(self, images: Samples) -> Floats:
        """The classifier's opinion of images (n, …): probabilities of shape (n, classes)."""
        return self._logits(self._inputs(images)).double().softmax(-1).numpy()

    def _inputs(self, images: Samples) -> Tensor:
        x = _flat(images, "images", least=1)
        if x.shape[1] != self.weight.shape[0]:
            raise ValueError(
                f"`images` must have {self.weight.shape[0]} numbers each, got {x.shape[1]}"
            )
        return torch.from_numpy(x).float()

    def _hidden(self, x: Tensor) -> Tensor:
        return F.relu(torch.addmm(self.bias, x, self.weight))

    def _logits(self, x: Tensor) -> Tensor:
        return torch.addmm(self.readout_bias, self._hidden(x), self.readout)


# --- one sample ---------------------------------------------------------------------------------


def diversity(
    samples: Samples,
    features: Features | None = None,
    *,
    bootstrap: int = 0,
    level: float = 0.95,
    generator: torch.Generator | None = None,
) -> Estimate:
    """Mean distance between two different samples, in features if given.

    Blind to *what* is diverse: noise is, too. Read it beside a distance to the data.

    Parameters
    ----------
    samples : array_like of shape (n, …)
    features : callable, optional
        As in :func:`feature_frechet`; default the numbers themselves.
    bootstrap, level, generator
        As in :func:`energy_distance`.

    Returns
    -------
    Estimate
    """
    seen = _seen(samples, features, "samples")
    distances = cdist(seen, seen)
    n = len(seen)
    value = _mean_of_pairs(distances, np.ones((1, n)), unbiased=True)[0]
    values = _mean_of_pairs(distances, _counts(n, bootstrap, generator), unbiased=True)
    return _interval(value, values, level, least=0.0)


def high_frequency_energy(images: Samples, *, cutoff: float = 0.25) -> Floats:
    """Share of each image's energy at frequencies above `cutoff`: how noisy or smooth it looks.

    By the cosine transform (DCT-II), which unlike Fourier's does not take a difference between
    opposite edges for a high frequency. The image's mean is left out, so that brightness doesn't
    count; a constant image has the share 0.

    Parameters
    ----------
    images : array_like of shape (n, …, H, W)
        Channels or colours between count together.
    cutoff : float
        In cycles per pixel, of √(f_y² + f_x²) with f = k / 2N; each of them reaches up to ½. The
        default 0.25 is a period of 4 pixels; 75 % of the energy of white noise on 8 × 8 pixels
        lie above.

    Returns
    -------
    ndarray of shape (n,)
        In [0, 1].
    """
    x = _array(images, "images", least=1)
    if x.ndim < 3:
        raise ValueError(f"`images` must have shape (n, …, H, W), got {x.shape}")
    cutoff = check.number(cutoff, "cutoff", 0.0)
    energy = dctn(x, axes=(-2, -1), norm="ortho") ** 2
    energy[..., 0, 0] = 0.0
    height, width = x.shape[-2:]
    frequency = np.hypot(np.arange(height)[:, None] / (2 * height), np.arange(width) / (2 * width))
    axes = tuple(range(1, x.ndim))
    total = energy.sum(axes)
    above = (energy * (frequency > cutoff)).sum(axes)
    return np.divide(above, total, out=np.zeros_like(total), where=total > 1e-24 * (x**2).sum(axes))


def nearest_distance(samples: Samples, data: Samples, features: Features | None = None) -> Floats:
    """Distance from each sample to the nearest of the data.

    Small for copies, large for noise. Set it beside the distances of held-out real data: samples
    that lie nearer than those are copied.

    Parameters
    ----------
    samples : array_like of shape (n, …)
    data : array_like of shape (m, …)
        Usually the training data.
    features : callable, optional
        As in :func:`feature_frechet`; default the numbers themselves.

    Returns
    -------
    ndarray of shape (n,)
    """
    seen = _seen(samples, features, "samples", least=1)
    known = _seen(data, features, "data", least=1)
    if seen.shape[1] != known.shape[1]:
        raise ValueError(
            f"`data` must have {seen.shape[1]} numbers each as `samples`, got {known.shape[1]}"
        )
    return cKDTree(known).query(seen)[0]


def mean_estimate(values: ArrayLike, level: float = 0.95) -> Estimate:
    """Mean of independent numbers with Student's interval, e.g. of one number per sample or seed.

    Parameters
    ----------
    values : array_like of shape (n,)
        At least 2.
    level : float in (0, 1)
    """
    x = check.vector(values, "values")
    if x.size < 2:
        raise ValueError(f"`values` must hold at least 2 numbers, got {x.size}")
    level = check.open_unit(level, "level")
    half = student_t.ppf(0.5 + level / 2, x.size - 1) * x.std(ddof=1) / math.sqrt(x.size)
    return Estimate(float(x.mean()), float(x.mean() - half), float(x.mean() + half))


# --- parts --------------------------------------------------------------------------------------


def _directions(d: int, count: int, generator: torch.Generator) -> Floats:
    """Unit vectors as columns, (d, count)."""
    if d == 1:
        return np.ones((1, 1))
    normal = torch.randn(d, count, generator=generator, dtype=torch.float64).numpy()
    return normal / np.linalg.norm(normal, axis=0)


def _quantile_distance(a: Floats, b: Floats, order: float) -> Floats:
    """W_p^p between rows of numbers, (P, n) and (P, m) -> (P,): ∫|F⁻¹(u) - G⁻¹(u)|^p du."""
    a, b = np.sort(a, axis=1), np.sort(b, axis=1)
    n, m = a.shape[1], b.shape[1]
    if n == m:
        return (np.abs(a - b) ** order).mean(1)
    # Both quantile functions are constant between neighbours of {i/n} ∪ {j/m}; in units of 1/nm
    # these are whole numbers.
    ends = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    shares = np.diff(ends, prepend=0) / (n * m)
    gap = a[:, (ends - 1) // m] - b[:, (ends - 1) // n]
    return (np.abs(gap) ** order) @ shares


def _covariance(x: Floats) -> Floats:
    away = x - x.mean(0)
    return away.T @ away / (len(x) - 1)


def _difference_of_means(
    within_a: Floats,
    within_b: Floats,
    across: Floats,
    unbiased: bool,
    bootstrap: int,
    level: float,
    generator: torch.Generator | None,
) -> Estimate:
    """Mean of k(a, a') + mean of k(b, b') - 2 mean of k(a, b), with its interval."""

    def statistic(counts_a: Floats, counts_b: Floats) -> Floats:
        cross = ((counts_a @ across) * counts_b).sum(1) / across.size
        inside = _mean_of_pairs(within_a, counts_a, unbiased)
        return inside + _mean_of_pairs(within_b, counts_b, unbiased) - 2.0 * cross

    sizes = across.shape
    value = statistic(*(np.ones((1, n)) for n in sizes))[0]
    values = statistic(*(_counts(n, bootstrap, generator) for n in sizes))
    return _interval(value, values, level, least=-math.inf if unbiased else 0.0)


def _mean_of_pairs(kernel: Floats, counts: Floats, unbiased: bool) -> Floats:
    """Mean of k(x, x') for each resample: (n, n) and counts (B, n) -> (B,).

    Unbiased leaves out the pairs of a point with itself, also with its copies in a resample.
    """
    total = ((counts @ kernel) * counts).sum(1)
    n = kernel.shape[0]
    if not unbiased:
        return total / n**2
    squares = counts**2
    return (total - squares @ np.diagonal(kernel)) / (n**2 - squares.sum(1))


def _with_interval(
    statistic: Callable[[NDArray[np.int64], NDArray[np.int64]], float],
    sizes: tuple[int, int],
    bootstrap: int,
    level: float,
    generator: torch.Generator | None,
) -> Estimate:
    """A distance, never negative, from ``statistic(rows of a, rows of b)``."""
    value = statistic(*(np.arange(n) for n in sizes))
    rows = [_rows(n, bootstrap, generator) for n in sizes]
    values = np.array([statistic(i, j) for i, j in zip(*rows, strict=True)])
    return _interval(value, values, level, least=0.0)


def _interval(value: float, values: Floats, level: float, least: float) -> Estimate:
    """value ± z times the deviation of the resampled values, cut at `least`.

    Quantiles of the resampled values would miss: a resample repeats points, so it lies further
    from the other sample than the sample itself, and every biased distance moves upwards.
    """
    level = check.open_unit(level, "level")
    value = float(value)
    if values.size == 0:
        return Estimate(value)
    half = float(norm.ppf(0.5 + level / 2) * values.std(ddof=1))
    return Estimate(value, max(value - half, least), value + half)


def _rows(n: int, bootstrap: int, generator: torch.Generator | None) -> NDArray[np.int64]:
    """Row numbers drawn with replacement, (bootstrap, n)."""
    bootstrap = check.whole(bootstrap, "bootstrap", 0)
    if bootstrap == 0:
        return np.empty((0, n), dtype=np.int64)
    if bootstrap == 1:
        raise ValueError("`bootstrap` must be 0 or at least 2, got 1")
    drawn = torch.randint(n, (bootstrap, n), generator=tensors.generator(generator))
    return drawn.numpy()


def _counts(n: int, bootstrap: int, generator: torch.Generator | None) -> Floats:
    """How often each row is drawn, (bootstrap, n)."""
    rows = _rows(n, bootstrap, generator)
    shifted = rows + n * np.arange(len(rows))[:, None]
    return np.bincount(shifted.ravel(), minlength=rows.size).reshape(rows.shape).astype(float)


def _array(x: Samples, name: str, least: int = 2) -> Floats:
    """Finite samples of shape (n, …) in float64."""
    array = check.reals(x, name)
    if array.ndim < 1 or array.size == 0:
        raise ValueError(f"`{name}` must have shape (n, …) and not be empty, got {array.shape}")
    if len(array) < least:
        raise ValueError(f"`{name}` must hold at least {least} samples, got {len(array)}")
    return array


def _flat(x: Samples, name: str, least: int = 2) -> Floats:
    """Samples as rows, (n, d)."""
    array = _array(x, name, least)
    return array.reshape(len(array), -1)


def _two(a: Samples, b: Samples) -> tuple[Floats, Floats]:
    """Two samples of one dimension, as rows."""
    a, b = _flat(a, "a"), _flat(b, "b")
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"`b` must have {a.shape[1]} numbers each as `a`, got {b.shape[1]}")
    return a, b


def _seen(x: Samples, features: Features | None, name: str, least: int = 2) -> Floats:
    """Samples as rows, through `features` if given."""
    if features is None:
        return _flat(x, name, least)
    _array(x, name, least)
    if not callable(features):
        raise TypeError(f"`features` must be a function, got {type(features).__name__}")
    seen = check.reals(features(x), f"features({name})")
    if seen.ndim != 2 or len(seen) != len(x) or seen.shape[1] == 0:
        raise ValueError(f"`features({name})` must have shape ({len(x)}, k), got {seen.shape}")
    return seen


def _labels(labels: ArrayLike | Tensor, count: int) -> Tensor:
    y = check.vector(labels, "labels", (count,))
    bad = (y < 0) | (y != np.round(y))
    if bad.any():
        raise ValueError(f"`labels` must be whole numbers from 0, got {y[bad][0]:g}")
    return torch.from_numpy(y.astype(np.int64))
