"""A vector for each word, and the mean of a sentence's words as the sentence's vector.

Both encoders that are trained here (`lib.embeddings.ppmi`, `lib.embeddings.contrastive`) end as a
`WordVectors`: a linear layer after the mean would be the same layer on each word. The order of the
words is lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from lib import _checks as check
from lib.data.docstrings import words

__all__ = ["WordVectors"]


@dataclass(frozen=True, eq=False, repr=False)
class WordVectors:
    """Vectors of words, and of sentences as the means of these.

    Attributes
    ----------
    vocabulary : tuple of str
        Different words, as `lib.data.docstrings.words` makes them.
    vectors : ndarray of float32, shape (V, d)
    """

    vocabulary: tuple[str, ...]
    vectors: NDArray[np.float32]
    _number: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        vectors = np.array(check.reals(self.vectors, "vectors"), dtype=np.float32)
        if vectors.ndim != 2 or vectors.size == 0 or len(vectors) != len(self.vocabulary):
            raise ValueError(
                f"`vectors` must have shape ({len(self.vocabulary)}, d), one row for each word, "
                f"got {vectors.shape}"
            )
        number = {word: i for i, word in enumerate(self.vocabulary)}
        if len(number) < len(self.vocabulary):
            raise ValueError("`vocabulary` must hold different words, got one of them twice")
        vectors.setflags(write=False)
        object.__setattr__(self, "vectors", vectors)
        object.__setattr__(self, "_number", number)

    @property
    def dim(self) -> int:
        """Numbers in a vector, d."""
        return self.vectors.shape[1]

    def known(self, sentences: Sequence[str]) -> NDArray[np.bool_]:
        """Which of n sentences hold a word of the vocabulary: shape (n,)."""
        return np.diff(self.counts(sentences).indptr) > 0

    def encode(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        """Mean of the vectors of each sentence's known words.

        Parameters
        ----------
        sentences : sequence of str, length n

        Returns
        -------
        ndarray of float32, shape (n, d)

        Raises
        ------
        ValueError
            If a sentence has no known word. It would become a zero vector, which has no cosine and
            lies near everybody; leave out what `known` says.
        """
        counts = self.counts(sentences)
        lengths = np.diff(counts.indptr)
        if not lengths.all():
            unknown = np.flatnonzero(lengths == 0)
            raise ValueError(
                f"`sentences` must each hold a known word, got {unknown.size} without one, such as "
                f"{sentences[unknown[0]]!r}; leave out those for which `known` is False"
            )
        return np.asarray(counts @ self.vectors / counts.sum(axis=1)[:, None], dtype=np.float32)

    def counts(self, sentences: Sequence[str]) -> sparse.csr_array:
        """How often each word stands in each of n sentences: sparse float32, shape (n, V)."""
        return word_counts(sentences, self._number)

    def __len__(self) -> int:
        return len(self.vocabulary)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} words, {self.dim} dimensions)"


def word_counts(sentences: Sequence[str], number: dict[str, int]) -> sparse.csr_array:
    """How often the numbered words stand in each of n sentences: float32, shape (n, V)."""
    columns, starts = [], [0]
    for sentence in checked(sentences):
        columns += [number[word] for word in words(sentence) if word in number]
        starts.append(len(columns))
    ones = np.ones(len(columns), dtype=np.float32)
    shape = (len(starts) - 1, len(number))
    counts = sparse.csr_array((ones, np.array(columns, dtype=np.int32), starts), shape=shape)
    counts.sum_duplicates()
    return counts


def vocabulary_of(texts: Iterable[list[str]], min_count: int) -> tuple[str, ...]:
    """Words that occur `min_count` times or more, most frequent first, equals in alphabet order."""
    counted = Counter(word for text in texts for word in text)
    kept = [(-n, word) for word, n in counted.items() if n >= min_count]
    if not kept:
        raise ValueError(f"`min_count` {min_count} leaves no word of {len(counted)}")
    return tuple(word for _, word in sorted(kept))


def checked(sentences: Any, name: str = "sentences") -> Sequence[str]:
    """One sentence or more; a single string would be taken for its letters."""
    if isinstance(sentences, (str, bytes)) or not all(isinstance(s, str) for s in sentences):
        raise TypeError(f"`{name}` must be a sequence of strings, got {type(sentences).__name__}")
    if not len(sentences):
        raise ValueError(f"`{name}` must hold at least one sentence, got none")
    return sentences
