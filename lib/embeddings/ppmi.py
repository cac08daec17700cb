"""Word vectors without training labels: positive pointwise mutual information, factorised.

    PPMI(w, c) = max(0, log P(w, c) / (P(w) P_a(c))),    P_a(c) ∝ count(c)^a,

for words w and their neighbours c within a window; its truncated SVD is U S Vᵀ, and U S^p are the
vectors. Levy and Goldberg, Neural Word Embedding as Implicit Matrix Factorization (2014), show
what that has to do with word2vec; the smoothing by a = 0.75 and the power p are of Levy, Goldberg
and Dagan (2015). Words that are alike in use come near each other, and all of them share a common
direction: as anisotropic as the vectors of a language model that no pairs have trained, whose
part they play in the chapter on whitening.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import svds

from lib import _checks as check
from lib.data.docstrings import words
from lib.embeddings.words import WordVectors, checked, vocabulary_of

__all__ = ["PPMIVectors", "cooccurrences", "ppmi", "train_ppmi"]


@dataclass(frozen=True, eq=False, repr=False)
class PPMIVectors(WordVectors):
    """Word vectors U S^p.

    Attributes
    ----------
    singular_values : ndarray of float64, shape (d,)
        S, descending.
    power : float
        p.
    """

    singular_values: NDArray[np.float64]
    power: float

    def with_power(self, power: float) -> PPMIVectors:
        """The same factors with another p; nothing is trained anew."""
        power = check.number(power, "power")
        scale = self.singular_values ** (power - self.power)
        vectors = (self.vectors * scale).astype(np.float32)
        return PPMIVectors(self.vocabulary, vectors, self.singular_values, power)


def train_ppmi(
    sentences: Sequence[str],
    *,
    dim: int = 128,
    window: int = 5,
    smoothing: float = 0.75,
    min_count: int = 5,
    power: float = 1.0,
    rng: np.random.Generator | None = None,
) -> PPMIVectors:
    """Learn word vectors from plain sentences.

    Parameters
    ----------
    sentences : sequence of str
        No word looks over the end of its sentence.
    dim : int
        d; less than the number of words.
    window : int
        A word's neighbours stand at most this many (known) words away.
    smoothing : float in (0, 1]
        a; below 1 rare neighbours count for less.
    min_count : int
        Rarer words are left out.
    power : float
        p; 1 is the SVD's own scale, 0 gives each direction the same weight.
    rng : numpy.random.Generator, optional
        Of the first vector of the Lanczos iteration; a constant one without it. The result depends
        on it only by rounding, and each direction's largest entry is made positive.

    Returns
    -------
    PPMIVectors

    Raises
    ------
    ValueError, TypeError
        For settings out of range, or if fewer than ``dim`` + 1 words or directions are left.
    """
    window, min_count = check.whole(window, "window", 1), check.whole(min_count, "min_count", 1)
    dim, power = check.whole(dim, "dim", 1), check.number(power, "power")
    if check.number(smoothing, "smoothing", 0.0, 1.0) == 0.0:
        raise ValueError("`smoothing` must lie in (0, 1], got 0")
    texts = [words(sentence) for sentence in checked(sentences)]
    vocabulary = vocabulary_of(texts, min_count)
    if dim >= len(vocabulary):
        raise ValueError(f"`dim` must be less than the {len(vocabulary)} words left, got {dim}")
    matrix = ppmi(cooccurrences(texts, vocabulary, window), smoothing)
    left, values = _leading(matrix, dim, rng)
    return PPMIVectors(vocabulary, (left * values**power).astype(np.float32), values, power)


def cooccurrences(
    texts: Sequence[Sequence[str]], vocabulary: Sequence[str], window: int
) -> sparse.csr_array:
    """How often two known words stand at most `window` known words apart: symmetric, (V, V)."""
    number = {word: i for i, word in enumerate(vocabulary)}
    kept = [[number[word] for word in text if word in number] for text in texts]
    ids = np.array([i for text in kept for i in text], dtype=np.int32)
    owner = np.repeat(np.arange(len(kept)), [len(text) for text in kept])
    shape = (len(vocabulary), len(vocabulary))
    counts = sparse.csr_array(shape)
    for step in range(1, window + 1):
        same = owner[step:] == owner[:-step]
        near, far = ids[:-step][same], ids[step:][same]
        counts = counts + sparse.coo_array((np.ones(len(near)), (near, far)), shape=shape).tocsr()
    return (counts + counts.T).tocsr()


def ppmi(counts: sparse.csr_array, smoothing: float = 0.75) -> sparse.csr_array:
    """Positive pointwise mutual information of word (row) and neighbour (column)."""
    total = counts.sum()
    if total == 0:
        raise ValueError("`counts` must hold two words that occur together, got none")
    row, column = counts.sum(axis=1), counts.sum(axis=0) ** smoothing
    pairs = counts.tocoo()
    i, j = pairs.coords
    # P(w, c) / (P(w) P_a(c)), where the total of P(w, c) and that of P(w) cancel.
    values = np.log(pairs.data * column.sum() / (row[i] * column[j]))
    positive = values > 0
    kept = (values[positive], (i[positive], j[positive]))
    return sparse.csr_array(kept, shape=counts.shape)


def _leading(
    matrix: sparse.csr_array, dim: int, rng: np.random.Generator | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Left singular vectors (V, d) and singular values (d,), the largest first."""
    size = matrix.shape[0]
    start = np.ones(size) if rng is None else check.rng(rng).standard_normal(size)
    left, values, _ = svds(matrix, k=dim, v0=start)
    order = np.argsort(-values)
    left, values = left[:, order], values[order]
    rank = int((values > 1e-10 * values[0]).sum())
    if rank < dim:
        raise ValueError(f"`dim` must be at most {rank}, the rank of the matrix, got {dim}")
    largest = left[np.abs(left).argmax(axis=0), np.arange(dim)]
    return left * np.sign(largest), values
