"""The whitening transformer ``x~ = (x - beta mu) U Lambda^(-gamma/2)`` and its moments.

Source: Jianlin Su, kexue.fm/archives/9079 (2022); the update of the moments is Chan, Golub and
LeVeque, Updating formulae and a pairwise algorithm for computing sample variances, 1979.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from lib import _checks as check
from lib._checks import Floats
from lib.whitening import _arrays as arrays

__all__ = ["Whitening"]

EPS = 1e-12  # well above d times the rounding of float64, and above float32's, 6e-8 squared
MOMENTS = ("central", "shifted")


@dataclass
class Moments:
    """Count, mean (d,) and scatter (d, d), the sum of (x - mean)(x - mean)ᵀ, of the rows seen."""

    width: int
    count: int = 0
    origin: Floats = field(init=False)  # the first row; the mean is kept as its distance from there
    offset: Floats = field(init=False)
    scatter: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.origin, self.offset = np.zeros(self.width), np.zeros(self.width)
        self.scatter = np.zeros((self.width, self.width))

    @property
    def mean(self) -> Floats:
        return self.origin + self.offset

    def add(self, x: np.ndarray) -> Moments:
        """Take in the rows of x (n, d), any real dtype, one block in float64 at a time."""
        for part in arrays.blocks(*x.shape):
            self._merge(x[part])
        return self

    def _merge(self, block: np.ndarray) -> None:
        # Distances from a point near the data are small numbers, so that a large mean costs no
        # digits; sums of raw products would lose all of them.
        if self.count == 0:
            self.origin = block[0].astype(np.float64)
        away = np.subtract(block, self.origin, dtype=np.float64)
        centre = away.mean(axis=0)
        away -= centre
        rows, total = len(block), self.count + len(block)
        step = centre - self.offset
        self.scatter += away.T @ away
        self.scatter += np.outer(step, step * (self.count * rows / total))
        self.offset = self.offset + step * (rows / total)
        self.count = total

    def spectrum(self, beta: float, moment: str) -> tuple[Floats, Floats]:
        """Eigenvalues (d,), descending, and eigenvectors as columns (d, d), with fixed signs."""
        second = self.scatter / self.count
        if moment == "shifted":
            rest = (1.0 - beta) * self.mean
            second += np.outer(rest, rest)
        if not np.isfinite(second).all():
            raise ValueError("the numbers are too large: their covariance overflows float64")
        values, vectors = np.linalg.eigh(second)
        values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
        # The sign of an eigenvector is arbitrary: let its largest entry be positive.
        largest = np.abs(vectors).argmax(axis=0)
        return values, vectors * np.where(vectors[largest, np.arange(self.width)] < 0, -1.0, 1.0)


def numerical_rank(eigenvalues: Floats, eps: float) -> int:
    """How many eigenvalues (descending) are not zero up to rounding."""
    return int((eigenvalues > eps * eigenvalues[0]).sum())


def powers(eigenvalues: Floats, exponent: float, eps: float) -> Floats:
    """Eigenvalues to a power; 0 (not infinity, nor amplified noise) where they are zero."""
    if exponent == 0.0:
        return np.ones_like(eigenvalues)
    out = np.zeros_like(eigenvalues)
    rank = numerical_rank(eigenvalues, eps)
    with np.errstate(over="ignore", under="ignore"):
        out[:rank] = eigenvalues[:rank] ** exponent
    return out


@dataclass(frozen=True)
class _Basis:
    shift: Floats  # (d,), beta times the mean
    filler: Floats  # (d,), what an inverse takes for the coordinates that were dropped
    components: Floats  # (k, d)
    eigenvalues: Floats  # (k,)
    scale: Floats  # (k,), eigenvalues ** (-gamma / 2)


class Whitening(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Linear map ``x~ = (x - beta mu) U Lambda^(-gamma/2)``, from a rotation to full whitening.

    U holds the eigenvectors and Lambda the eigenvalues, descending, of the covariance (divided by
    n, as in the article, where scikit-learn's `PCA` divides by n - 1). At beta = gamma = 1 the
    output has mean 0 and covariance 1; at beta = 1, gamma = 0 it is PCA; at beta = gamma = 0 and
    in full dimension it only rotates, which leaves every cosine as it was.

    Parameters
    ----------
    n_components : int, optional
        Directions to keep, the ones of largest eigenvalue. None keeps all d of them for
        gamma <= 0; for gamma > 0 it drops those whose eigenvalue is zero up to rounding (constant
        features, fewer samples than dimensions), as they would be noise divided by zero. A number
        beyond that rank is then refused.
    beta : float
        Share of the mean that is taken away.
    gamma : float
        Share of the differences in scale that is taken away; any finite number.
    eps : float in [0, 1)
        Eigenvalues up to `eps` times the largest count as zero.
    moment : {"central", "shifted"}
        Matrix that U and Lambda belong to. "central" is the covariance. "shifted" is the
        second moment about beta mu, that is the covariance plus (1 - beta)² muᵀmu, as the article
        defines it; it keeps the direction of the mean among the first where beta < 1 and
        n_components < d. Both are the same at beta = 1.

    Attributes
    ----------
    mean_ : ndarray of shape (d,)
    components_ : ndarray of shape (k, d)
        Eigenvectors as rows; the largest entry of each is positive.
    eigenvalues_ : ndarray of shape (k,)
    n_samples_seen_ : int
    n_features_in_ : int

    Notes
    -----
    Moments are float64, whatever comes in; a block of the input at a time is converted, so float32,
    float16, whole numbers and memory-mapped files need no copy. The output is float32 for float32
    and float64 for all else.

    Errors: ValueError for NaN, infinity, empty or misshapen input, and for parameters out of range;
    TypeError for parameters of the wrong kind.
    """

    def __init__(
        self,
        n_components: int | None = None,
        *,
        beta: float = 1.0,
        gamma: float = 1.0,
        eps: float = EPS,
        moment: str = "central",
    ) -> None:
        self.n_components = n_components
        self.beta = beta
        self.gamma = gamma
        self.eps = eps
        self.moment = moment

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def fit(self, X: ArrayLike, y: Any = None) -> Whitening:
        """Learn mean and spectrum of X, shape (n, d); y is ignored. Forgets what came before."""
        X = validate_data(self, X, dtype="numeric")
        self._check_parameters(X.shape[1])
        moments = Moments(X.shape[1]).add(X)
        self._basis = self._decompose(moments)
        return self._publish(moments)

    def partial_fit(self, X: ArrayLike, y: Any = None) -> Whitening:
        """Take in a further batch X, shape (n, d), of one row or more; y is ignored.

        Agrees with one `fit` of all batches up to rounding. The eigenvectors are computed when they
        are next asked for, so that many small batches are cheap and the rank is judged only then.
        """
        first = not hasattr(self, "_moments")
        X = validate_data(self, X, dtype="numeric", reset=first)
        self._check_parameters(X.shape[1])
        moments = Moments(X.shape[1]) if first else self._moments
        self._basis = None
        return self._publish(moments.add(X))

    def transform(self, X: ArrayLike) -> np.ndarray:
        """Map X, shape (n, d), to shape (n, k)."""
        basis = self._fitted()
        X = validate_data(self, X, dtype="numeric", reset=False)
        return _affine(X, basis.shift, basis.components.T * basis.scale, 0.0)

    def inverse_transform(self, X: ArrayLike) -> np.ndarray:
        """Map X, shape (n, k), back to shape (n, d).

        Exact where every direction of non-zero variance was kept; else the least-squares
        inverse: coordinates that were dropped (or, for gamma < 0, multiplied by zero) are put at
        their mean.
        """
        basis = self._fitted()
        X = check_array(X, dtype="numeric", input_name="X", estimator=self)
        kept = len(basis.scale)
        if X.shape[1] != kept:
            raise ValueError(
                f"`X` must have {kept} features, the number of components, got {X.shape[1]}"
            )
        undo = np.divide(1.0, basis.scale, out=np.zeros(kept), where=basis.scale > 0)
        return _affine(X, np.zeros(kept), undo[:, None] * basis.components, basis.filler)

    @property
    def components_(self) -> Floats:
        return self._fitted().components

    @property
    def eigenvalues_(self) -> Floats:
        return self._fitted().eigenvalues

    @property
    def _n_features_out(self) -> int:
        return len(self._fitted().scale)

    def _fitted(self) -> _Basis:
        check_is_fitted(self, "mean_")
        if self._basis is None:
            self._basis = self._decompose(self._moments)
        return self._basis

    def _publish(self, moments: Moments) -> Whitening:
        self._moments = moments
        self.mean_ = moments.mean
        self.n_samples_seen_ = moments.count
        return self

    def _check_parameters(self, width: int) -> None:
        if self.n_components is not None:
            check.whole(self.n_components, "n_components", 1, width)
        check.number(self.beta, "beta")
        check.number(self.gamma, "gamma")
        if check.number(self.eps, "eps", 0.0) >= 1.0:
            raise ValueError(f"`eps` must be less than 1, got {self.eps:g}")
        check.choice(self.moment, "moment", MOMENTS)

    def _decompose(self, moments: Moments) -> _Basis:
        values, vectors = moments.spectrum(self.beta, self.moment)
        rank = numerical_rank(values, self.eps)
        kept = self.n_components
        if self.gamma > 0:
            seen = f"got n_samples={moments.count}, n_features={moments.width}"
            if rank == 0:
                raise ValueError(f"`X` must hold samples that differ for gamma > 0, {seen}")
            if kept is not None and kept > rank:
                raise ValueError(
                    f"`n_components` must be at most {rank}, the rank of the covariance, for "
                    f"gamma > 0, got {kept} ({seen[4:]})"
                )
            kept = rank if kept is None else kept
        kept = moments.width if kept is None else kept
        scale = powers(values, -self.gamma / 2, self.eps)[:kept]
        if not np.isfinite(scale).all():
            raise ValueError(f"`gamma` must leave a finite scale, got {self.gamma:g}")
        components = np.ascontiguousarray(vectors[:, :kept].T)
        known = components[scale > 0]
        mean = moments.mean
        shift, rest = self.beta * mean, (1.0 - self.beta) * mean
        filler = shift + rest - (known @ rest) @ known
        return _Basis(shift, filler, components, values[:kept], scale)


def _affine(x: np.ndarray, shift: Floats, weights: Floats, offset: Floats | float) -> np.ndarray:
    """(x - shift) @ weights + offset, (n, d) -> (n, k), a block at a time.

    The shift is taken away in float64, since it may be far larger than what remains; the product
    of float32 then runs in float32.
    """
    dtype = np.float32 if x.dtype == np.float32 else np.float64
    weights = np.ascontiguousarray(weights, dtype=dtype)
    out = np.empty((len(x), weights.shape[1]), dtype)
    for part in arrays.blocks(*x.shape):
        away = np.subtract(x[part], shift, dtype=np.float64).astype(dtype, copy=False)
        np.matmul(away, weights, out=out[part])
        out[part] += offset
    return out
