"""Tags for tokens, which can't say that one span lies inside another: the rivals of span scores.

BIO tags mark the first token of a span by B, the rest by I and everything else by O. With one layer
of tags for all kinds, tag 0 is O, 1 + 2k is B and 2 + 2k is I of kind k; with one layer per kind,
every layer has 0 for O, 1 for B and 2 for I. Tags have the shape (B, L, n) for B sentences of at
most n tokens and L layers, L = 1 or L = K.

Two heads turn states (B, n, D) into tags: `BioTagger` decides every token by itself, `CrfTagger`
finds the best sequence under a conditional random field (Lafferty, McCallum and Pereira, 2001;
pytorch-crf does the sums over sequences). Neither forbids sequences that are not well formed, such
as an I after an O; :func:`from_bio` reads them as the usual scorers do.

Left out: tags for last tokens and single ones (BIOES), and tags that write nesting as labels of
their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor, nn
from torchcrf import CRF

from lib import _checks as check
from lib.attention.normalisations import is_true
from lib.neural import linear
from lib.spans.heads import check_states
from lib.spans.spans import Span, check_lengths, checked_sets

__all__ = ["KEEP", "BioTagger", "CrfTagger", "flat_ceiling", "flat_subset", "from_bio", "to_bio"]

KEEP = ("longest", "most")

# --- spans without overlap ------------------------------------------------------------------------


def flat_ceiling(gold: Sequence[Iterable[Span]], per_kind: bool = False) -> float:
    """Largest recall that any tagging with such layers can reach: it can't hold spans that overlap.

    Parameters
    ----------
    gold : sequence of iterables of Span
        One set per sentence.
    per_kind : bool, default=False
        Whether every kind has a layer of its own.

    Returns
    -------
    float
        1 if there are no spans at all.

    Raises
    ------
    TypeError, ValueError
        If there is no sentence or something is no span.

    Notes
    -----
    Exact. In each layer the largest set of spans of which no two overlap is found by interval
    scheduling: take the span that ends first, drop what overlaps it, and so on.

    Examples
    --------
    >>> gold = [{Span(0, 0, 4), Span(0, 0, 1), Span(1, 3, 4)}]
    >>> round(flat_ceiling(gold), 3)
    0.667
    """
    _check_bool(per_kind, "per_kind")
    sets = checked_sets(gold, "gold")
    total = sum(map(len, sets))
    return sum(map(len, flat_subset(sets, per_kind, keep="most"))) / total if total else 1.0


def flat_subset(
    spans: Sequence[Iterable[Span]], per_kind: bool = False, *, keep: str = "longest"
) -> list[frozenset[Span]]:
    """Of every sentence some spans of which no two in a layer overlap.

    Parameters
    ----------
    spans : sequence of iterables of Span
        One set per sentence.
    per_kind : bool, default=False
        Whether every kind has a layer of its own; otherwise no two spans at all overlap.
    keep : str, default="longest"
        "longest": longer spans go first, so that of nested spans the outermost stay; among equals
        the one further left, then the lower kind. "most": as many as possible, those that end
        first, then the shorter.

    Returns
    -------
    list of frozensets of Span

    Raises
    ------
    TypeError, ValueError
        If there is no sentence, something is no span or `keep` is unknown.

    Examples
    --------
    >>> nested = [{Span(0, 0, 4), Span(0, 0, 1), Span(0, 3, 4)}]
    >>> flat_subset(nested)
    [frozenset({Span(kind=0, start=0, end=4)})]
    >>> [len(kept) for kept in flat_subset(nested, keep="most")]
    [2]
    """
    check.choice(keep, "keep", KEEP)
    _check_bool(per_kind, "per_kind")
    choose = _outermost if keep == "longest" else _scheduled
    return [
        frozenset(span for layer in _layers(found, per_kind) for span in choose(layer))
        for found in checked_sets(spans, "spans")
    ]


def _layers(spans: Iterable[Span], per_kind: bool) -> Iterator[list[Span]]:
    """The spans of each layer, by kind and place."""
    in_order = sorted(spans)
    if not per_kind:
        yield in_order
        return
    for _, layer in groupby(in_order, key=lambda span: span.kind):
        yield list(layer)


def _outermost(layer: list[Span]) -> list[Span]:
    kept: list[Span] = []
    for span in sorted(layer, key=lambda s: (s.start - s.end, s.start, s.kind)):
        if all(span.end < other.start or other.end < span.start for other in kept):
            kept.append(span)
    return kept


def _scheduled(layer: list[Span]) -> list[Span]:
    kept: list[Span] = []
    for span in sorted(layer, key=lambda s: (s.end, -s.start, s.kind)):
        if not kept or kept[-1].end < span.start:
            kept.append(span)
    return kept


# --- tags -----------------------------------------------------------------------------------------


def to_bio(
    spans: Sequence[Iterable[Span]],
    kinds: int,
    n: int,
    *,
    per_kind: bool = False,
    lengths: Tensor | None = None,
) -> Tensor:
    """BIO tags of spans that don't overlap.

    Parameters
    ----------
    spans : sequence of iterables of Span
        One set for each of B sentences.
    kinds, n : int
        K and the tokens of a padded sentence.
    per_kind : bool, default=False
        Whether every kind has a layer of its own.
    lengths : Tensor of int64, shape (B,), optional
        Tokens of each sentence; given, spans that reach into the padding are refused.

    Returns
    -------
    Tensor of int64, shape (B, L, n)
        L = K with `per_kind`, 1 otherwise. Padding has the tag O.

    Raises
    ------
    TypeError, ValueError
        If two spans of a layer overlap (:func:`flat_subset` chooses some that do not), or as in
        :func:`lib.spans.labels_of`.

    Examples
    --------
    >>> to_bio([[Span(0, 0, 1), Span(1, 3, 3)]], kinds=2, n=5)
    tensor([[[1, 2, 0, 3, 0]]])
    """
    kinds, n = check.whole(kinds, "kinds", 1), check.whole(n, "n", 1)
    _check_bool(per_kind, "per_kind")
    sets = checked_sets(spans, "spans", kinds=kinds, n=n, lengths=lengths)
    tags = [[[0] * n for _ in range(kinds if per_kind else 1)] for _ in sets]
    for rows, found in zip(tags, sets, strict=True):
        for span in sorted(found):
            row, first = (rows[span.kind], 1) if per_kind else (rows[0], 1 + 2 * span.kind)
            if any(row[span.start : span.end + 1]):
                raise ValueError(
                    "`spans` must not overlap within a layer, as others do with "
                    f"{tuple(span)}; flat_subset chooses some that do not"
                )
            row[span.start] = first
            row[span.start + 1 : span.end + 1] = [first + 1] * (span.end - span.start)
    return torch.tensor(tags)


def from_bio(
    tags: Tensor, lengths: Tensor, kinds: int, *, per_kind: bool = False
) -> list[frozenset[Span]]:
    """Spans that BIO tags stand for.

    An I that continues no span of its kind begins one, as in the scorer of CoNLL-2000.

    Parameters
    ----------
    tags : Tensor of int64, shape (B, L, n)
    lengths : Tensor of int64, shape (B,)
        Tokens of each sentence; tags beyond play no part.
    kinds : int
        K.
    per_kind : bool, default=False
        Whether every kind has a layer of its own: L = K, and 1 otherwise.

    Returns
    -------
    list of B frozensets of Span

    Raises
    ------
    TypeError, ValueError
        If shapes and dtypes don't fit or a tag is unknown.

    Examples
    --------
    >>> from_bio(torch.tensor([[[1, 2, 0, 4, 0]]]), torch.tensor([5]), kinds=2) == [
    ...     {Span(0, 0, 1), Span(1, 3, 3)}
    ... ]
    True
    """
    kinds = check.whole(kinds, "kinds", 1)
    _check_bool(per_kind, "per_kind")
    layers, several = _layout(kinds, per_kind)
    _check_dtype(tags)
    if tags.ndim != 3 or tags.numel() == 0:
        raise ValueError(
            f"`tags` must have shape (B, {layers}, n), none of them 0, got {tuple(tags.shape)}"
        )
    check_lengths(lengths, tags.shape[-1], len(tags))
    tags = _checked_tags(tags, (len(tags), layers, tags.shape[-1]), several, lengths)
    return [
        frozenset(
            span
            for at, row in enumerate(rows)
            for span in _read(row[:length], at if per_kind else None)
        )
        for rows, length in zip(tags.tolist(), lengths.tolist(), strict=True)
    ]


def _read(row: list[int], only_kind: int | None) -> Iterator[Span]:
    """Spans of one layer, in order; its kind is `only_kind`, or follows from the tags."""
    kind, start = -1, 0  # of the open span; -1: none is open
    for at, tag in enumerate([*row, 0]):  # the O at the end closes what is open
        new = -1 if tag == 0 else (tag - 1) // 2
        if kind >= 0 and (new != kind or tag % 2):
            yield Span(kind if only_kind is None else only_kind, start, at - 1)
            kind = -1
        if kind < 0 <= new:
            kind, start = new, at


def _layout(kinds: int, per_kind: bool) -> tuple[int, int]:
    """Number of layers, and of tags in each."""
    return (kinds, 3) if per_kind else (1, 1 + 2 * kinds)


# --- heads ----------------------------------------------------------------------------------------


class _Tagger(nn.Module):
    """An affine map from states to a score for each tag of each layer."""

    def __init__(
        self, width: int, kinds: int, generator: torch.Generator, *, per_kind: bool = False
    ) -> None:
        super().__init__()
        self.width = check.whole(width, "width", 1)
        self.kinds = check.whole(kinds, "kinds", 1)
        self.per_kind = _check_bool(per_kind, "per_kind")
        self.layers, self.tags = _layout(self.kinds, self.per_kind)
        self.project = linear(self.width, self.layers * self.tags, check.generator(generator))

    def forward(self, hidden: Tensor) -> Tensor:
        """Scores of the tags, (B, L, n, T), of states (B, n, D)."""
        check_states(hidden, self.width)
        return self.project(hidden).unflatten(-1, (self.layers, self.tags)).transpose(1, 2)

    def loss(self, hidden: Tensor, lengths: Tensor, tags: Tensor) -> Tensor:
        """Negative log-probability of a sentence's tags, mean over sentences and layers, in nats.

        Parameters
        ----------
        hidden : Tensor, shape (B, n, D)
        lengths : Tensor of int64, shape (B,)
            Tokens of each sentence; what stands beyond plays no part.
        tags : Tensor of int64, shape (B, L, n)
            As from :func:`to_bio`.

        Returns
        -------
        Tensor with a single number

        Raises
        ------
        TypeError, ValueError
            If the arguments don't fit together, a state is not finite or a tag is unknown.
        """
        scores = self(hidden)
        mask = _real(lengths, hidden)
        tags = _checked_tags(tags, tuple(scores.shape[:3]), self.tags, lengths)
        # a tag in the padding may be any number, and still is used as an index
        tags = tags.masked_fill(~mask[:, None], 0)
        return self._negative_log(scores, mask, tags).mean()

    @torch.no_grad()
    def predict(self, hidden: Tensor, lengths: Tensor) -> list[frozenset[Span]]:
        """Spans of the most probable tags.

        Parameters
        ----------
        hidden, lengths
            As in :meth:`loss`.

        Returns
        -------
        list of B frozensets of Span

        Raises
        ------
        TypeError, ValueError
            As in :meth:`loss`.
        """
        tags = self._best(self(hidden), _real(lengths, hidden))
        return from_bio(tags, lengths, self.kinds, per_kind=self.per_kind)

    def _negative_log(self, scores: Tensor, mask: Tensor, tags: Tensor) -> Tensor:
        raise NotImplementedError

    def _best(self, scores: Tensor, mask: Tensor) -> Tensor:
        raise NotImplementedError


class BioTagger(_Tagger):
    """Every token's tag is drawn by itself, from a softmax law over the tags.

    Parameters
    ----------
    width, kinds : int
        D and K.
    generator : torch.Generator
        Source of the first weights, normal with variance 1 / D; biases start at 0.
    per_kind : bool, default=False
        Whether every kind has a layer of its own.

    Raises
    ------
    TypeError, ValueError
        If an argument is not what it must be.

    Examples
    --------
    >>> tagger = BioTagger(8, kinds=2, generator=torch.Generator().manual_seed(0))
    >>> hidden, lengths = torch.zeros(1, 3, 8), torch.tensor([3])
    >>> tagger.loss(hidden, lengths, to_bio([[Span(1, 0, 1)]], 2, 3))  # 3 log 5
    tensor(4.8283, grad_fn=<MeanBackward0>)
    """

    def _negative_log(self, scores: Tensor, mask: Tensor, tags: Tensor) -> Tensor:
        chosen = scores.log_softmax(-1).gather(-1, tags[..., None]).squeeze(-1)  # (B, L, n)
        return -chosen.masked_fill(~mask[:, None], 0.0).sum(-1)

    def _best(self, scores: Tensor, mask: Tensor) -> Tensor:
        return scores.argmax(-1)


class CrfTagger(_Tagger):
    """A linear-chain conditional random field in each layer.

    A sequence of tags has the score of its tags, plus one number for each pair of neighbouring
    tags, one for the first and one for the last tag; its probability is proportional to the
    exponential. These numbers start at 0, where the head is :class:`BioTagger`.

    Within `torch.func.vmap` the lengths must be the same for all, as pytorch-crf looks at them.

    Parameters
    ----------
    width, kinds, generator, per_kind
        As in :class:`BioTagger`.

    Raises
    ------
    TypeError, ValueError
        As in :class:`BioTagger`.

    References
    ----------
    Lafferty, McCallum and Pereira, Conditional random fields, ICML 2001.
    """

    def __init__(
        self, width: int, kinds: int, generator: torch.Generator, *, per_kind: bool = False
    ) -> None:
        super().__init__(width, kinds, generator, per_kind=per_kind)
        with torch.device("meta"):  # its own first numbers would come from the global generator
            fields = [CRF(self.tags, batch_first=True) for _ in range(self.layers)]
        self.fields = nn.ModuleList(fields).to_empty(device=self.project.weight.device)
        for parameter in self.fields.parameters():
            nn.init.zeros_(parameter)

    def _negative_log(self, scores: Tensor, mask: Tensor, tags: Tensor) -> Tensor:
        try:
            bool(mask.any())
        except RuntimeError:
            raise ValueError(
                "`lengths` must be the same for all models within torch.func.vmap, where "
                "pytorch-crf could not look at them"
            ) from None
        # all layers at once: a step of the recursion is too little work to loop over them
        names = [name for name, _ in self.fields[0].named_parameters()]
        stacked = {name: torch.stack([getattr(f, name) for f in self.fields]) for name in names}

        def log_probability(parameters: dict[str, Tensor], scores: Tensor, tags: Tensor) -> Tensor:
            arguments = (scores, tags, mask, "none")
            return torch.func.functional_call(self.fields[0], parameters, arguments)

        return -torch.func.vmap(log_probability, in_dims=(0, 1, 1), out_dims=1)(
            stacked, scores, tags
        )

    def _best(self, scores: Tensor, mask: Tensor) -> Tensor:
        best = torch.zeros(scores.shape[:3], dtype=torch.int64, device=scores.device)
        for layer, field in enumerate(self.fields):
            for b, row in enumerate(field.decode(scores[:, layer], mask)):
                best[b, layer, : len(row)] = best.new_tensor(row)
        return best


# --- checks ---------------------------------------------------------------------------------------


def _check_bool(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"`{name}` must be True or False, got {value!r}")
    return value


def _real(lengths: Tensor, hidden: Tensor) -> Tensor:
    """True at tokens, False at padding: (B, n)."""
    batch, n, _ = hidden.shape
    check_lengths(lengths, n, batch)
    return torch.arange(n, device=lengths.device) < lengths[:, None]


def _check_dtype(tags: object) -> None:
    if not isinstance(tags, Tensor) or tags.dtype != torch.int64:
        kind = tags.dtype if isinstance(tags, Tensor) else type(tags).__name__
        raise TypeError(f"`tags` must be a tensor of int64, got {kind}")


def _checked_tags(tags: Tensor, shape: tuple[int, ...], several: int, lengths: Tensor) -> Tensor:
    _check_dtype(tags)
    if tags.shape != shape:
        raise ValueError(f"`tags` must have shape (B, L, n) = {shape}, got {tuple(tags.shape)}")
    counts = torch.arange(shape[-1], device=lengths.device) < lengths[:, None, None]
    bad = counts & ((tags < 0) | (tags >= several))
    if is_true(bad.any()):
        raise ValueError(f"`tags` must lie from 0 to {several - 1}, got {int(tags[bad][0])}")
    return tags
