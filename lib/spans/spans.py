"""Labelled spans, their tables of cells, and how predicted sets compare with the true ones.

A span is a kind and the first and last token, both counted from 0 and both inside. Tables have the
shape (B, K, n, n) for B sentences of at most n tokens and K kinds: cell (i, j) of a kind's table
is the span from i to j. Masks are of bool, True where a cell counts.

Source: https://kexue.fm/archives/8373. Left out: spans with gaps, partial credit for spans that
overlap without being equal, and scores per kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lib import _checks as check
from lib.attention.normalisations import is_true

__all__ = ["Match", "Span", "check_lengths", "decode", "exact_match", "labels_of", "span_mask"]


class Span(NamedTuple):
    """Tokens from `start` to `end` that form one thing of a kind.

    Functions here also take plain tuples of three whole numbers in their place.

    Attributes
    ----------
    kind : int
        From 0 to K - 1.
    start, end : int
        First and last token, counted from 0; a span of one token has start = end.
    """

    kind: int
    start: int
    end: int


class Match(NamedTuple):
    """How many spans of all sentences together were found exactly.

    Attributes
    ----------
    precision, recall, f1 : float
    correct, predicted, gold : int
        Numbers of spans: in both sets, predicted, true.
    """

    precision: float
    recall: float
    f1: float
    correct: int
    predicted: int
    gold: int


# --- tables of cells ------------------------------------------------------------------------------


def span_mask(lengths: Tensor, n: int) -> Tensor:
    """Which cells are spans of their sentence: i ≤ j < length.

    Parameters
    ----------
    lengths : Tensor of int64, shape (B,)
        Tokens of each sentence, from 1 to n.
    n : int
        Tokens of a padded sentence.

    Returns
    -------
    Tensor of bool, shape (B, 1, n, n)

    Raises
    ------
    TypeError, ValueError
        If a length is not such a number, or there is no sentence.

    Examples
    --------
    >>> span_mask(torch.tensor([2]), 3).int()
    tensor([[[[1, 1, 0],
              [0, 1, 0],
              [0, 0, 0]]]], dtype=torch.int32)
    """
    n = check.whole(n, "n", 1)
    check_lengths(lengths, n)
    at = torch.arange(n, device=lengths.device)
    return (at[:, None] <= at) & (at < lengths[:, None, None, None])


def labels_of(
    spans: Sequence[Iterable[Span]], kinds: int, n: int, *, lengths: Tensor | None = None
) -> Tensor:
    """Tables that are True at the given spans.

    Parameters
    ----------
    spans : sequence of iterables of Span
        One set for each of B sentences; a set may be empty.
    kinds : int
        K.
    n : int
        Tokens of a padded sentence.
    lengths : Tensor of int64, shape (B,), optional
        Tokens of each sentence; given, spans that reach into the padding are refused.

    Returns
    -------
    Tensor of bool, shape (B, K, n, n)

    Raises
    ------
    TypeError, ValueError
        If a span ends before it starts or outside of its sentence, its kind is unknown, or there is
        no sentence.

    Examples
    --------
    >>> labels_of([[Span(0, 1, 2)]], kinds=1, n=3).nonzero().tolist()
    [[0, 0, 1, 2]]
    """
    kinds, n = check.whole(kinds, "kinds", 1), check.whole(n, "n", 1)
    sets = checked_sets(spans, "spans", kinds=kinds, n=n, lengths=lengths)
    labels = torch.zeros(len(sets), kinds, n, n, dtype=torch.bool)
    cells = [(b, *span) for b, found in enumerate(sets) for span in found]
    if cells:
        labels[torch.tensor(cells).unbind(1)] = True
    return labels


def decode(scores: Tensor, mask: Tensor, threshold: float = 0.0) -> list[frozenset[Span]]:
    """The spans that score above a threshold: the prediction of GlobalPointer.

    Parameters
    ----------
    scores : Tensor of floating dtype, shape (B, K, n, n)
    mask : Tensor of bool, broadcastable to the scores
        Which cells are spans, as from :func:`span_mask`. What stands in other cells plays no part.
    threshold : float, default=0.0
        Scores equal to it are below.

    Returns
    -------
    list of B frozensets of Span

    Raises
    ------
    TypeError, ValueError
        If shapes or dtypes don't fit, a score that counts is not finite (a score of -inf says that
        a span is impossible: hide it by the mask), the mask leaves a sentence nothing, or it shows
        a span that ends before it starts.

    Examples
    --------
    >>> scores = torch.tensor([[[[-1.0, 2.0], [5.0, 0.5]]]])
    >>> sorted(decode(scores, span_mask(torch.tensor([2]), 2))[0])
    [Span(kind=0, start=0, end=1), Span(kind=0, start=1, end=1)]
    """
    threshold = check.number(threshold, "threshold")
    _check_table(scores)
    mask = _checked_mask(mask, scores)
    shown = scores.detach().masked_fill(~mask, 0.0)
    if not check.all_finite(shown):
        raise ValueError(
            f"`scores` must be finite where the mask is True, got {check.not_finite(shown)}"
        )
    found: list[set[Span]] = [set() for _ in scores]
    for b, *span in ((shown > threshold) & mask).nonzero().tolist():
        found[b].add(Span(*span))
    return [frozenset(spans) for spans in found]


def exact_match(gold: Sequence[Iterable[Span]], predicted: Sequence[Iterable[Span]]) -> Match:
    """Precision, recall and F1 over the spans of all sentences together (micro average).

    A predicted span is correct if kind, start and end are right. With c correct spans among p
    predicted and g true ones: precision c / p, recall c / g, F1 2c / (p + g). Nothing predicted
    where nothing is true is perfect, 1 for all three; if only one of p and g is 0, all are 0.

    Parameters
    ----------
    gold, predicted : sequence of iterables of Span
        One set per sentence, in the same order. What is there twice counts once.

    Returns
    -------
    Match

    Raises
    ------
    TypeError, ValueError
        If there are not as many sets of the one as of the other, there are none at all, or
        something is no span.

    Examples
    --------
    >>> match = exact_match([{Span(0, 0, 1), Span(1, 2, 2)}], [{Span(0, 0, 1)}])
    >>> match.precision, match.recall, round(match.f1, 3)
    (1.0, 0.5, 0.667)
    """
    true, found = checked_sets(gold, "gold"), checked_sets(predicted, "predicted")
    if len(true) != len(found):
        raise ValueError(
            f"`predicted` must hold a set for each of the {len(true)} sentences of `gold`, "
            f"got {len(found)}"
        )
    correct = sum(len(a & b) for a, b in zip(true, found, strict=True))
    p, g = (sum(map(len, sets)) for sets in (found, true))
    if p == g == 0:
        return Match(1.0, 1.0, 1.0, 0, 0, 0)
    return Match(correct / max(p, 1), correct / max(g, 1), 2 * correct / (p + g), correct, p, g)


# --- checks ---------------------------------------------------------------------------------------


def check_lengths(lengths: Any, n: int, batch: int | None = None) -> Tensor:
    """Lengths of sentences, whole numbers from 1 to n, one for each of `batch` sentences if given.

    Where `torch.func.vmap` hides the values, only dtype and shape are checked.
    """
    if not isinstance(lengths, Tensor) or lengths.dtype != torch.int64:
        kind = lengths.dtype if isinstance(lengths, Tensor) else type(lengths).__name__
        raise TypeError(f"`lengths` must be a tensor of int64, got {kind}")
    if lengths.ndim != 1 or lengths.numel() == 0:
        raise ValueError(
            f"`lengths` must have shape (B,) with at least one sentence, got {tuple(lengths.shape)}"
        )
    if batch is not None and len(lengths) != batch:
        raise ValueError(f"`lengths` must name {batch} sentences, got {len(lengths)}")
    bad = (lengths < 1) | (lengths > n)
    if is_true(bad.any()):
        raise ValueError(f"`lengths` must lie from 1 to n = {n}, got {int(lengths[bad][0])}")
    return lengths


def checked_sets(
    sets: Any,
    name: str,
    *,
    kinds: int | None = None,
    n: int | None = None,
    lengths: Tensor | None = None,
) -> list[frozenset[Span]]:
    """The sets of all sentences, inside `n` tokens or their own `lengths` where these are known."""
    many = len(_sequence(sets, name))
    limits = [n] * many
    if lengths is not None and n is not None:
        limits = check_lengths(lengths, n, many).tolist()
    return [
        frozenset(_checked_spans(spans, name, kinds, limit))
        for spans, limit in zip(sets, limits, strict=True)
    ]


def _sequence(sets: Any, name: str) -> Sequence[Any]:
    if not isinstance(sets, Sequence) or isinstance(sets, str):
        raise TypeError(
            f"`{name}` must be a sequence with one set of spans per sentence, "
            f"got {type(sets).__name__}"
        )
    if not sets:
        raise ValueError(f"`{name}` must hold at least one sentence, got none")
    return sets


def _checked_spans(spans: Any, name: str, kinds: int | None, n: int | None) -> Iterator[Span]:
    if isinstance(spans, Span) or not isinstance(spans, Iterable):
        raise TypeError(f"`{name}` must hold a set of spans for each sentence, got {spans!r}")
    for span in spans:
        if not isinstance(span, tuple) or len(span) != 3:
            raise TypeError(f"`{name}` must hold spans (kind, start, end), got {span!r}")
        if any(type(part) is not int or part < 0 for part in span):  # the usual case is quick
            span = tuple(
                check.whole(part, f"{field} in {name}", 0)
                for part, field in zip(span, Span._fields, strict=True)
            )
        kind, start, end = span
        if kinds is not None and kind >= kinds:
            raise ValueError(f"`{name}` must hold kinds from 0 to {kinds - 1}, got {kind}")
        if end < start:
            raise ValueError(f"`{name}` must hold spans with start <= end, got {tuple(span)}")
        if n is not None and end >= n:
            raise ValueError(
                f"`{name}` must hold spans inside their sentence of {n} tokens, got {tuple(span)}"
            )
        yield Span(kind, start, end)


def _check_table(scores: Any) -> None:
    if not isinstance(scores, Tensor) or not scores.is_floating_point():
        kind = scores.dtype if isinstance(scores, Tensor) else type(scores).__name__
        raise TypeError(f"`scores` must be a tensor of floating dtype, got {kind}")
    if scores.ndim != 4 or scores.shape[-1] != scores.shape[-2] or scores.numel() == 0:
        raise ValueError(
            f"`scores` must have shape (B, K, n, n), none of them 0, got {tuple(scores.shape)}"
        )


def _checked_mask(mask: Any, scores: Tensor) -> Tensor:
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        kind = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"`mask` must be a tensor of bool, True where a cell counts, got {kind}")
    try:
        wide = mask.expand_as(scores)
    except RuntimeError:
        raise ValueError(
            f"`mask` must broadcast to `scores`, {tuple(scores.shape)}, got {tuple(mask.shape)}"
        ) from None
    if (~wide.flatten(1).any(1)).any():
        raise ValueError("`mask` must leave every sentence at least one span")
    if wide.tril(-1).any():
        raise ValueError("`mask` must be False where a span would end before it starts")
    return wide
