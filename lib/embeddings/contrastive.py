"""Word vectors trained on pairs of sentences that belong together.

A sentence is the mean of its words' vectors. In a batch of B pairs (a_i, b_i), a_i is to pick its
own partner among all B by softmax over cosines divided by a temperature t, and b_i likewise:

    loss = -1/2B ∑_i [log softmax_j(cos(a_i, b_j) / t)_i + log softmax_j(cos(a_j, b_i) / t)_i].

That is InfoNCE: van den Oord, Li and Vinyals, Representation Learning with Contrastive Predictive
Coding (1807.03748). These vectors play the part of an encoder trained on similarity, such as
SimBERT, in the chapter on whitening. Left out: a network above the mean, and negatives from beyond
the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lib import _checks as check
from lib.data.docstrings import words
from lib.embeddings.words import WordVectors, checked, vocabulary_of, word_counts
from lib.neural import one_cycle

__all__ = ["info_nce", "train_contrastive"]

OnStep = Callable[[int, float], object]


def info_nce(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    """Mean loss, in nats, of picking the partner: a, b (B, d) -> one number."""
    cosines = F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / temperature  # (B, B)
    own = torch.arange(len(a))
    return 0.5 * (F.cross_entropy(cosines, own) + F.cross_entropy(cosines.T, own))


def train_contrastive(
    pairs: Sequence[tuple[str, str]],
    *,
    steps: int = 200,
    dim: int = 128,
    generator: torch.Generator,
    start: WordVectors | None = None,
    batch: int = 256,
    temperature: float = 0.1,
    learning_rate: float = 3e-3,
    min_count: int = 2,
    on_step: OnStep | None = None,
) -> WordVectors:
    """Learn word vectors by InfoNCE.

    Parameters
    ----------
    pairs : sequence of (str, str)
        Sentences that belong together; a pair without a known word on each side is left out.
    steps : int
        Number of updates. 200 suffice from good first vectors; random ones want 400 and a learning
        rate of 0.01.
    dim : int
        d; ignored where `start` is given.
    generator : torch.Generator
        Of the first vectors and the batches.
    start : WordVectors, optional
        Vocabulary and first vectors, such as those of `train_ppmi`: the order of BERT and SimBERT.
        Only their directions count, and their relative lengths. Without it the words that occur
        `min_count` times in the pairs start at random.
    batch : int
        Pairs in a batch, at least 2; all of them where there are fewer.
    temperature : float
        t; small ones make it matter that the partner is nearest by a wide margin.
    learning_rate : float
        At its peak; the first vectors have a root mean square entry of 0.1.
    min_count : int
        Ignored where `start` is given.
    on_step : callable, optional
        ``on_step(step, loss)`` after each update, counted from 0; the loss in nats.

    Returns
    -------
    WordVectors

    Raises
    ------
    ValueError, TypeError
        For settings out of range, or if fewer than 2 pairs are left.
    FloatingPointError
        If the loss is not finite.
    """
    steps, batch = check.whole(steps, "steps", 1), check.whole(batch, "batch", 2)
    dim, min_count = check.whole(dim, "dim", 1), check.whole(min_count, "min_count", 1)
    for value, name in ((temperature, "temperature"), (learning_rate, "learning_rate")):
        check.positive(value, name)
    check.generator(generator)
    first, second = _sides(pairs)
    vocabulary, table = _start(start, [*first, *second], dim, min_count, generator)
    sides = _Bags(first, vocabulary), _Bags(second, vocabulary)
    usable = np.flatnonzero((sides[0].lengths > 0) & (sides[1].lengths > 0))
    if len(usable) < 2:
        raise ValueError(f"`pairs` must hold at least 2 pairs of known words, got {len(usable)}")
    table.requires_grad_()
    adam = torch.optim.Adam([table], lr=learning_rate, betas=(0.9, 0.99), fused=True)
    for step in range(steps):
        adam.param_groups[0]["lr"] = learning_rate * one_cycle(step, steps)
        # Without replacement: a pair twice in a batch would be its own negative.
        drawn = usable[torch.randperm(len(usable), generator=generator)[:batch].numpy()]
        loss = info_nce(*(side.means(table, drawn) for side in sides), temperature)
        number = loss.item()
        if not math.isfinite(number):
            raise FloatingPointError(
                f"the loss is {number} at step {step}; `learning_rate` may be too large"
            )
        adam.zero_grad()
        loss.backward()
        adam.step()
        if on_step is not None:
            on_step(step, number)
    return WordVectors(vocabulary, table.detach().numpy())


class _Bags:
    """Words of n sentences as one row of numbers, and where each sentence starts in it."""

    def __init__(self, sentences: Sequence[str], vocabulary: tuple[str, ...]) -> None:
        counts = word_counts(sentences, {word: i for i, word in enumerate(vocabulary)})
        self.ids, self.counts = counts.indices.astype(np.int64), counts.data
        self.starts, self.lengths = counts.indptr, np.diff(counts.indptr)
        self.totals = counts.sum(axis=1)

    def means(self, table: Tensor, rows: np.ndarray) -> Tensor:
        """Mean vectors (len(rows), d) of some of the sentences."""
        lengths = self.lengths[rows]
        offsets = np.cumsum(lengths) - lengths
        at = np.arange(lengths.sum()) + np.repeat(self.starts[rows] - offsets, lengths)
        shares = self.counts[at] / np.repeat(self.totals[rows], lengths)
        return F.embedding_bag(
            torch.from_numpy(self.ids[at]),
            table,
            torch.from_numpy(offsets.astype(np.int64)),
            mode="sum",
            per_sample_weights=torch.from_numpy(shares.astype(np.float32)),
        )


def _sides(pairs: Sequence[tuple[str, str]]) -> tuple[list[str], list[str]]:
    rows = [tuple(pair) for pair in pairs]
    if not rows:
        raise ValueError("`pairs` must hold at least 2 pairs, got none")
    wrong = next((row for row in rows if len(row) != 2), None)
    if wrong is not None:
        raise ValueError(f"`pairs` must hold pairs of sentences, got one of length {len(wrong)}")
    first, second = map(list, zip(*rows, strict=True))
    return list(checked(first, "pairs")), list(checked(second, "pairs"))


def _start(
    start: WordVectors | None,
    sentences: list[str],
    dim: int,
    min_count: int,
    generator: torch.Generator,
) -> tuple[tuple[str, ...], Tensor]:
    """Vocabulary, and first vectors (V, d) of root mean square entry 0.1."""
    if start is None:
        vocabulary = vocabulary_of(map(words, sentences), min_count)
        return vocabulary, 0.1 * torch.randn(len(vocabulary), dim, generator=generator)
    if not isinstance(start, WordVectors):
        raise TypeError(f"`start` must be a WordVectors, got {type(start).__name__}")
    table = torch.from_numpy(start.vectors.copy())
    return start.vocabulary, 0.1 * table / table.square().mean().sqrt()
