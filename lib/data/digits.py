"""Handwritten digits that every reader already has: 1,797 real images of 8 × 8 pixels.

They come with scikit-learn (the test half of UCI's "Optical Recognition of Handwritten Digits";
each pixel counts the ink in a 4 × 4 patch of a scan, 0 … 16).  Here a pixel is ink / 8 - 1, so
that paper is -1 and full ink is +1, in float32.  Nothing is downloaded.  Left out: the other
3,823 images of that collection, which scikit-learn does not ship.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from lib import _checks as check

__all__ = ["SIDE", "Digits", "digits", "digits_split"]

SIDE = 8  # pixels


@dataclass(frozen=True, eq=False, repr=False)
class Digits:
    """Images in [-1, 1] with their labels.

    Attributes
    ----------
    images : ndarray of float32, shape (N, 8, 8)
    labels : ndarray of int64, shape (N,)
        0 … 9.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.int64]

    @property
    def flat(self) -> NDArray[np.float32]:
        """One row of 64 numbers per image, shape (N, 64)."""
        return self.images.reshape(len(self), SIDE * SIDE)

    @property
    def channels(self) -> NDArray[np.float32]:
        """With an axis for the one colour, as convolutions want it: shape (N, 1, 8, 8)."""
        return self.images[:, None]

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"Digits({len(self)} images of {SIDE} × {SIDE})"


@lru_cache(maxsize=1)
def digits() -> Digits:
    """All 1,797 digits, in scikit-learn's order; the arrays can't be written."""
    ink = load_digits()
    images = (ink.images / 8.0 - 1.0).astype(np.float32)
    return _frozen(images, ink.target.astype(np.int64))


def digits_split(rng: np.random.Generator, *, test_share: float = 0.2) -> tuple[Digits, Digits]:
    """Training and test digits that share no image, each label in the same proportion.

    Parameters
    ----------
    rng : numpy Generator
        Decides which image goes where; the same state gives the same split.
    test_share : float in (0, 1)
        Share of the test half, rounded for each label, with at least one image on either side.

    Returns
    -------
    train, test : Digits
        In shuffled order.

    Raises
    ------
    TypeError
        If `rng` is not a numpy Generator.
    ValueError
        If `test_share` does not lie strictly between 0 and 1.
    """
    check.rng(rng)
    if not 0.0 < test_share < 1.0:
        raise ValueError(f"`test_share` must lie strictly between 0 and 1, got {test_share}")
    everything = digits()
    train, test = [], []
    for label in range(10):
        mine = rng.permutation(np.flatnonzero(everything.labels == label))
        cut = min(max(round(test_share * mine.size), 1), mine.size - 1)
        test.append(mine[:cut])
        train.append(mine[cut:])
    parts = (rng.permutation(np.concatenate(part)) for part in (train, test))
    first, second = (_frozen(everything.images[p], everything.labels[p]) for p in parts)
    return first, second


def _frozen(images: NDArray[np.float32], labels: NDArray[np.int64]) -> Digits:
    images.flags.writeable = labels.flags.writeable = False
    return Digits(images, labels)
