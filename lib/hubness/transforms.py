"""Two repairs of the vectors themselves, as transformers of scikit-learn: centre, then normalise.

Centring undoes hubs of cosine and inner product (Suzuki et al. 2013) and does nothing to Euclidean
distances; normalising takes the spread of the norms away, and with it most Euclidean hubs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted, validate_data

__all__ = ["Centring", "Normalise"]


class Centring(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Subtract the mean of the vectors that it was fitted to.

    Attributes
    ----------
    mean_ : float64 array of shape (d,)
    """

    def fit(self, X: ArrayLike, y: Any = None) -> Centring:
        """Take the mean of X, shape (n, d)."""
        X = validate_data(self, X, dtype=[np.float64, np.float32])
        self.mean_ = X.mean(axis=0, dtype=np.float64)
        return self

    def transform(self, X: ArrayLike) -> np.ndarray:
        """Vectors (n, d) without that mean, in their dtype."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return (X - self.mean_).astype(X.dtype, copy=False)


class Normalise(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Bring every vector to length 1; scikit-learn's `Normalizer` lets zero vectors pass."""

    def fit(self, X: ArrayLike, y: Any = None) -> Normalise:
        """Nothing is learnt from X, shape (n, d), but d."""
        validate_data(self, X, dtype=[np.float64, np.float32])
        return self

    def transform(self, X: ArrayLike) -> np.ndarray:
        """Vectors (n, d) at length 1, in their dtype; ValueError for a zero vector."""
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        largest = abs(X).max(axis=1, keepdims=True).astype(np.float64)
        if not largest.all():
            raise ValueError(
                f"`X` must have no zero vectors, got one in row {int((largest == 0.0).argmax())}"
            )
        scaled = X / largest  # else squares of tiny numbers underflow
        return (scaled / np.linalg.norm(scaled, axis=1, keepdims=True)).astype(X.dtype)

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        return tags
