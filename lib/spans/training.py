"""A small tagger on one core, several seeds side by side, under the regularisers of the articles.

The tagger: an embedding, Transformer blocks with rotary positions and dropout, and a head of
:mod:`lib.spans` on top.  What is added to the loss ℓ of a step is an *arm*:

===========  =====================================================================
Plain        ℓ: one pass
RDrop        (ℓ₁ + ℓ₂)/2 + weight/4 · D(s₁, s₂): two passes under different dropout
Adversarial  ℓ + weight/4 · D(s(x), s(x + r)) with the worst r of a given length
Distilled    ℓ + weight/4 · T² D(s/T, s*/T) with the scores s* of a teacher
===========  =====================================================================

D is a divergence of :mod:`lib.divergence`, summed over the spans i ≤ j of a sentence and averaged
over (sentence, kind), as ℓ is.  All arms of a seed share first weights, training sentences, order
of the batches and, in the first pass, dropout: differences between arms are paired.

For https://kexue.fm/archives/9039 and https://kexue.fm/archives/8496 (R-Drop).  Left out: subwords,
pre-trained encoders, early stopping, a search for learning rates.  Notation: S seeds, B sentences
of at most n tokens, K kinds, width D.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.func import functional_call, vmap

from lib import _checks as check
from lib import divergence as dv
from lib.attention.positions import frequencies, rotate
from lib.attention.side_by_side import data_generators, draw_parameters, fit, take
from lib.neural import linear
from lib.spans.heads import EfficientGlobalPointer, GlobalPointer
from lib.spans.spans import (
    Span,
    check_lengths,
    checked_sets,
    decode,
    exact_match,
    labels_of,
    span_mask,
)
from lib.spans.tagging import BioTagger, CrfTagger, flat_subset, to_bio

__all__ = [
    "DIVERGENCES",
    "HEADS",
    "Adversarial",
    "Distilled",
    "Figures",
    "Plain",
    "RDrop",
    "Sentences",
    "Tagger",
    "TaggerConfig",
    "Trained",
    "measure",
    "train",
]

Floats = NDArray[np.float64]
Spans = frozenset[Span]

DIVERGENCES = ("sigmoid", "softmax", "threshold softmax", "squared")
SPAN_HEADS = {"global": GlobalPointer, "efficient": EfficientGlobalPointer}
FLAT_HEADS = {"bio": BioTagger, "crf": CrfTagger}
# The flat ones with one layer of tags for all kinds, or one for each.
HEADS = (*SPAN_HEADS, *FLAT_HEADS, *(f"{name} per kind" for name in FLAT_HEADS))

# Streams of random numbers of a seed that must not meet.
SUBSET, ORDER, DROPOUT, TEST_DROPOUT = range(4)


class Sentences(Protocol):
    """What `train` and `measure` read, as in :class:`lib.data.nested_spans.SpanSentences`."""

    tokens: NDArray[np.int64]
    lengths: NDArray[np.int64]
    spans: Sequence[frozenset[tuple[int, int, int]]]


# --- the tagger -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class TaggerConfig:
    """Settings of a tagger.

    Attributes
    ----------
    symbols, kinds : int
        Different tokens, padding (0) included; kinds of span.
    width, heads, layers : int
        D, a multiple of twice the heads; attention heads; blocks.
    head_width : int
        Width of a query and a key in a head that scores spans, even.
    dropout : float
        Share of numbers that are set to 0 after the embedding and after each half of a block.
    head : str
        One of `HEADS`.
    """

    symbols: int
    kinds: int
    width: int = 48
    heads: int = 4
    layers: int = 1
    head_width: int = 16
    dropout: float = 0.3
    head: str = "global"

    def __post_init__(self) -> None:
        for name in ("symbols", "kinds", "width", "heads", "layers", "head_width"):
            check.whole(getattr(self, name), name, 1)
        if self.width % (2 * self.heads):
            raise ValueError(
                f"`width` must be a multiple of twice `heads` = {self.heads}, got {self.width}"
            )
        check.number(self.dropout, "dropout", 0.0)
        if self.dropout >= 1:
            raise ValueError(f"`dropout` must be below 1, got {self.dropout:g}")
        check.choice(self.head, "head", HEADS)

    @property
    def sites(self) -> int:
        """Places where dropout acts."""
        return 1 + 2 * self.layers

    @property
    def flat(self) -> bool:
        """Whether the head puts out tags instead of scores of spans."""
        return self.head not in SPAN_HEADS

    @property
    def per_kind(self) -> bool:
        """Whether a flat head has a layer of tags for each kind."""
        return self.head.endswith(" per kind")

    def make_head(self, generator: torch.Generator) -> nn.Module:
        """A head with first weights from the generator."""
        if self.flat:
            kind = FLAT_HEADS[self.head.removesuffix(" per kind")]
            return kind(self.width, self.kinds, generator, per_kind=self.per_kind)
        return SPAN_HEADS[self.head](self.width, self.kinds, self.head_width, generator)


class _Block(nn.Module):
    """Pre-norm attention with rotary positions, then a feed-forward part."""

    def __init__(self, config: TaggerConfig, generator: torch.Generator) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.inward = linear(width, 3 * width, generator)
        self.outward = linear(width, width, generator)
        self.up = linear(width, 2 * width, generator)
        self.down = linear(2 * width, width, generator)

    def forward(self, x: Tensor, hidden: Tensor, noise: Tensor | None) -> Tensor:
        x = x + _dropped(self._attention(self.first(x), hidden), noise, 0)
        return x + _dropped(self.down(F.gelu(self.up(self.second(x)))), noise, 1)

    def _attention(self, x: Tensor, hidden: Tensor) -> Tensor:
        parts = self.inward(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        both, v = parts[:2], parts[2]  # (2, B, H, n, d), (B, H, n, d)
        at = torch.arange(x.shape[-2], device=x.device)
        q, k = rotate(both, at[:, None] * frequencies(v.shape[-1], x))
        logits = (q / math.sqrt(v.shape[-1])) @ k.mT  # (B, H, n, n)
        # Softmax by hand: torch's is two orders slower where the last axis is a dozen long.
        weights = (logits - logits.detach().amax(-1, keepdim=True)).exp()
        weights = weights * ~hidden[:, None, None]
        mixed = weights @ v / weights.sum(-1, keepdim=True)
        return self.outward(mixed.transpose(1, 2).flatten(-2))


def _dropped(x: Tensor, noise: Tensor | None, site: int) -> Tensor:
    return x if noise is None else x * noise[site]


class Tagger(nn.Module):
    """Embedding, Transformer blocks and a head.

    Parameters
    ----------
    config : TaggerConfig
    generator : torch.Generator
        Source of the first weights.
    """

    def __init__(self, config: TaggerConfig, generator: torch.Generator) -> None:
        super().__init__()
        if not isinstance(config, TaggerConfig):
            raise TypeError(f"`config` must be a TaggerConfig, got {type(config).__name__}")
        check.generator(generator)
        self.config = config
        self.embedding = nn.Parameter(
            torch.randn(config.symbols, config.width, generator=generator)
        )
        self.blocks = nn.ModuleList(_Block(config, generator) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.head = config.make_head(generator)

    def forward(self, embedded: Tensor, lengths: Tensor, noise: Tensor | None = None) -> Tensor:
        """Scores of all spans; with a flat head the states that it reads.

        Parameters
        ----------
        embedded : Tensor, shape (B, n, D)
            Rows of `embedding`, perhaps changed: what an adversary may touch.
        lengths : Tensor of int64, shape (B,)
            Tokens of each sentence; others are not attended to.
        noise : Tensor, shape (sites, B, n, D), optional
            Factors of dropout, 0 or 1 / (1 - dropout); none without.

        Returns
        -------
        Tensor, shape (B, K, n, n); with a flat head (B, n, D)
        """
        at = torch.arange(embedded.shape[-2], device=embedded.device)
        padding = at >= lengths[:, None]  # (B, n)
        x = _dropped(embedded, noise, 0)
        for i, block in enumerate(self.blocks):
            x = block(x, padding, None if noise is None else noise[1 + 2 * i : 3 + 2 * i])
        states = self.norm(x)
        return states if self.config.flat else self.head(states)


# --- the arms -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plain:
    """One pass, the loss alone."""


@dataclass(frozen=True)
class RDrop:
    """Two passes under different dropout, held together by a divergence.

    Attributes
    ----------
    divergence : str
        One of `DIVERGENCES`.
    weight : float
        0 is the control that pays for two passes and does not compare them.
    """

    divergence: str = "sigmoid"
    weight: float = 1.0

    def __post_init__(self) -> None:
        check.choice(self.divergence, "divergence", DIVERGENCES)
        check.number(self.weight, "weight", 0.0)


@dataclass(frozen=True)
class Adversarial:
    """Virtual adversarial training of the embedded tokens, both passes without dropout.

    Attributes
    ----------
    divergence : str
        One of `DIVERGENCES`.
    weight : float
    radius : float
        Euclidean length of the change of a whole sentence.
    """

    divergence: str = "sigmoid"
    weight: float = 1.0
    radius: float = 1.0

    def __post_init__(self) -> None:
        check.choice(self.divergence, "divergence", DIVERGENCES)
        check.number(self.weight, "weight", 0.0)
        check.positive(self.radius, "radius")


@dataclass(frozen=True)
class Distilled:
    """Follow a teacher's scores besides the labels.

    Attributes
    ----------
    teacher : Trained
        With as many seeds as are trained, or a single one for all.
    divergence : str
        One of `DIVERGENCES`.
    weight, temperature : float
    """

    teacher: Trained
    divergence: str = "sigmoid"
    weight: float = 1.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.teacher, Trained):
            raise TypeError(f"`teacher` must be Trained, got {type(self.teacher).__name__}")
        check.choice(self.divergence, "divergence", DIVERGENCES)
        check.number(self.weight, "weight", 0.0)
        check.positive(self.temperature, "temperature")


Arm = Plain | RDrop | Adversarial | Distilled


def _distance(name: str, s: Tensor, t: Tensor, mask: Tensor) -> Tensor:
    """Divergence of scores (S, B, K, n, n): mean over (sentence, kind), summed over the seeds."""
    if name == "sigmoid":
        each = dv.globalpointer_divergence(s, t, mask)
    elif name == "squared":
        each = dv.squared_difference(s, t, mask)
    elif name == "softmax":
        each = dv.symmetric_kl_of_logits(s, t, (-2, -1), mask)
    else:  # one more class, of score 0: "none of the spans"
        shown = F.pad(mask.expand(*s.shape[:2], 1, *s.shape[-2:]).flatten(-2), (0, 1), value=True)
        s, t = (F.pad(x.flatten(-2), (0, 1)) for x in (s, t))
        each = dv.symmetric_kl_of_logits(s, t, -1, shown)
    return each.mean((1, 2)).sum()


# --- training -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trained:
    """Taggers of one configuration, one per seed.

    Attributes
    ----------
    config : TaggerConfig
    seeds : tuple of int
    parameters : dict of Tensor, each of shape (S, …)
    losses : ndarray, shape (steps,)
        Loss at each step with all additions, mean over the seeds.
    """

    config: TaggerConfig
    seeds: tuple[int, ...]
    parameters: Mapping[str, Tensor] = field(repr=False)
    losses: Floats = field(repr=False)

    @torch.no_grad()
    def scores(self, tokens: ArrayLike | Tensor, lengths: ArrayLike | Tensor) -> Tensor:
        """Scores of all spans, without dropout.

        Parameters
        ----------
        tokens : array of int64, shape (B, n)
        lengths : array of int64, shape (B,)

        Returns
        -------
        Tensor, shape (S, B, K, n, n)
            Cells outside of :func:`lib.spans.span_mask` mean nothing.

        Raises
        ------
        ValueError
            If the head is a flat one, or the tokens are not what they must be.
        """
        if self.config.flat:
            raise ValueError(f"`head` must be one that scores spans, got {self.config.head!r}")
        return self._pass(*_checked_tokens(tokens, lengths, self.config))

    @torch.no_grad()
    def predict(self, sentences: Sentences) -> list[list[Spans]]:
        """The spans that each seed's tagger finds in each sentence."""
        tokens, lengths = _checked_tokens(sentences.tokens, sentences.lengths, self.config)
        found = self._pass(tokens, lengths)
        if self.config.flat:
            run = _Run(self.config, self.parameters)
            return list(run.by_head("predict", found, lengths.expand(len(found), -1)))
        mask = span_mask(lengths, tokens.shape[1])
        return [decode(scores, mask) for scores in found]

    def _pass(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        run = _Run(self.config, self.parameters)
        many = (len(self.seeds), *tokens.shape)
        return run(run.embed(tokens.expand(many)), lengths.expand(many[:2]))


@dataclass(frozen=True)
class Figures:
    """How good and how steady the taggers of the seeds are on test sentences.

    Attributes
    ----------
    precision, recall, f1 : ndarray, shape (S,)
        Micro averages over exactly matching spans.
    inconsistency : ndarray, shape (S,)
        Sigmoid divergence of two passes under dropout, mean over (sentence, kind); NaN with a flat
        head, which has no scores of spans.
    """

    precision: Floats
    recall: Floats
    f1: Floats
    inconsistency: Floats


class _Run:
    """Run the taggers of all seeds at once, each with its own parameters and inputs."""

    def __init__(self, config: TaggerConfig, parameters: Mapping[str, Tensor]) -> None:
        self.config, self.parameters = config, parameters
        # Only the shapes of this one matter: the call below puts the seeds' parameters in place.
        self._shell = Tagger(config, torch.Generator()).to("meta")

    def embed(self, tokens: Tensor) -> Tensor:
        """(S, B, n) to (S, B, n, D)."""
        return take(self.parameters["embedding"], tokens)

    def __call__(self, embedded: Tensor, lengths: Tensor, noise: Tensor | None = None) -> Tensor:
        """(S, B, n, D), (S, B) and noise (S, sites, B, n, D) to scores (S, B, K, n, n)."""

        def one(parameters: Mapping[str, Tensor], *inputs: Tensor) -> Tensor:
            return functional_call(self._shell, dict(parameters), inputs)

        inputs = (embedded, lengths) if noise is None else (embedded, lengths, noise)
        return vmap(one)(self.parameters, *inputs)

    def by_head(self, method: str, *inputs: Tensor) -> Iterator[Any]:
        """What a method of the head returns for each seed, one after the other.

        A conditional random field looks at the lengths, which `vmap` would hide.
        """
        bound = _Method(self._shell.head, method)
        own = {n: p for n, p in self.parameters.items() if n.startswith("head.")}
        for s, given in enumerate(zip(*inputs, strict=True)):
            yield functional_call(bound, {name: p[s] for name, p in own.items()}, given)


class _Method(nn.Module):
    """A method of a head in the place of `forward`, the only one that `functional_call` calls."""

    def __init__(self, head: nn.Module, method: str) -> None:
        super().__init__()
        self.head, self.method = head, method

    def forward(self, *inputs: Tensor) -> Any:
        return getattr(self.head, self.method)(*inputs)


def train(
    pool: Sentences,
    arm: Arm | None = None,
    *,
    config: TaggerConfig,
    seeds: Sequence[int],
    sentences: int | None = None,
    steps: int = 120,
    batch: int = 8,
    learning_rate: float = 5e-3,
) -> Trained:
    """Train a tagger for each seed by Adam, side by side.

    Parameters
    ----------
    pool : Sentences
        Such as ``code_spans().train``.
    arm : Plain, RDrop, Adversarial or Distilled, optional
        Plain unless given.
    config : TaggerConfig
    seeds : sequence of int
        Each one fixes first weights, the training sentences, their order and dropout. Only an
        adversary's first directions are drawn for all seeds together.
    sentences : int, optional
        Each seed trains on so many sentences, drawn from the pool; on all of it if not given.
    steps, batch : int
        A batch never spans two epochs' orders of fewer sentences than it holds.
    learning_rate : float
        At the peak of a one-cycle schedule.

    Returns
    -------
    Trained

    Raises
    ------
    TypeError, ValueError
        If an argument is not what it must be.
    FloatingPointError
        If the loss stops being finite.
    """
    arm = Plain() if arm is None else arm
    if not isinstance(arm, Arm):
        raise TypeError(
            f"`arm` must be Plain, RDrop, Adversarial or Distilled, got {type(arm).__name__}"
        )
    seeds = _checked_seeds(seeds)
    if not isinstance(config, TaggerConfig):
        raise TypeError(f"`config` must be a TaggerConfig, got {type(config).__name__}")
    if config.flat and not isinstance(arm, Plain):
        raise ValueError(f"`arm` must be Plain with a flat head, got {type(arm).__name__}")
    if isinstance(arm, Distilled):
        _check_teacher(arm.teacher, config, len(seeds))
    available = len(pool.lengths)
    count = available if sentences is None else check.whole(sentences, "sentences", 1, available)
    steps, batch = check.whole(steps, "steps", 1), check.whole(batch, "batch", 1, count)
    learning_rate = check.positive(learning_rate, "learning_rate")

    parameters = draw_parameters(
        lambda g: {n: p.detach() for n, p in Tagger(config, g).named_parameters()}, seeds
    )
    run = _Run(config, parameters)
    data = _batches(pool, config, seeds, count, batch)
    noise = _Noise(config, seeds)
    attack = torch.Generator().manual_seed(seeds[0])

    def step() -> Tensor:
        return _loss(arm, run, next(data), noise, attack)[None]

    losses = fit(parameters, step, steps=steps, learning_rate=learning_rate, clip=1.0)[0]
    return Trained(config, seeds, parameters, losses / len(seeds))


@dataclass(frozen=True)
class _Batch:
    tokens: Tensor  # (S, B, n)
    lengths: Tensor  # (S, B)
    labels: Tensor  # (S, B, K, n, n), tags (S, B, L, n) for a flat head
    mask: Tensor  # (S, B, 1, n, n), unused by a flat head


def _loss(arm: Arm, run: _Run, batch: _Batch, noise: _Noise, attack: torch.Generator) -> Tensor:
    """Loss of a step, summed over the seeds."""
    embedded = run.embed(batch.tokens)

    def task(scores: Tensor, _: object) -> Tensor:
        each = dv.multilabel_cross_entropy(scores, batch.labels, batch.mask)
        return each.mean((1, 2)).sum()

    def apart(s: Tensor, t: Tensor, *_: object) -> Tensor:
        return _distance(arm.divergence, s, t, batch.mask)

    if isinstance(arm, RDrop):
        # Both passes in one go, as a batch of twice the size, then handed out one by one.
        both = torch.cat([noise(embedded, which) for which in range(2)], 2)
        scores = run(torch.cat([embedded] * 2, 1), torch.cat([batch.lengths] * 2, 1), both)
        passes = iter(scores.chunk(2, 1))
        return dv.r_drop(lambda _: next(passes), batch, apart, arm.weight, loss=task).total
    scores = run(embedded, batch.lengths, noise(embedded, 0))
    if run.config.flat:
        return torch.stack([*run.by_head("loss", scores, batch.lengths, batch.labels)]).sum()
    loss = task(scores, batch)
    if isinstance(arm, Adversarial):
        rows = embedded.flatten(0, 1)  # (S B, n, D): a sentence of a seed is a row

        def steady(changed: Tensor) -> Tensor:
            return run(changed.reshape(embedded.shape), batch.lengths)

        extra = dv.virtual_adversarial(steady, rows, apart, radius=arm.radius, generator=attack)
    elif isinstance(arm, Distilled):
        teacher = arm.teacher
        with torch.no_grad():
            learned = _Run(teacher.config, _repeated(teacher.parameters, len(scores)))
            targets = learned(learned.embed(batch.tokens), batch.lengths)
        extra = dv.distillation(scores, targets, apart, arm.temperature)
    else:
        return loss
    return loss + arm.weight / 4 * extra


def _repeated(parameters: Mapping[str, Tensor], seeds: int) -> Mapping[str, Tensor]:
    """A single seed's parameters for all of them; others as they are."""
    return {name: p.expand(seeds, *p.shape[1:]) for name, p in parameters.items()}


def _batches(
    pool: Sentences, config: TaggerConfig, seeds: Sequence[int], count: int, batch: int
) -> Iterator[_Batch]:
    """Batches without end; each seed draws from sentences of its own, epoch by epoch."""
    tokens, lengths = _checked_tokens(pool.tokens, pool.lengths, config)
    spans = _checked_spans(pool, config)
    own = np.stack(
        [g.choice(len(tokens), count, replace=False) for g in data_generators(seeds, SUBSET)]
    )
    used, places = np.unique(own, return_inverse=True)
    places = places.reshape(own.shape)
    tokens, lengths = tokens[used], lengths[used]
    labels, mask = _targets([spans[i] for i in used], config, lengths, tokens.shape[1])
    generators = data_generators(seeds, ORDER)
    orders = [_order(g, row, batch) for g, row in zip(generators, places, strict=True)]
    while True:
        rows = torch.from_numpy(np.stack([next(order) for order in orders]))
        yield _Batch(tokens[rows], lengths[rows], labels[rows], mask[rows])


def _targets(
    spans: Sequence[frozenset[tuple[int, int, int]]], config: TaggerConfig, lengths: Tensor, n: int
) -> tuple[Tensor, Tensor]:
    """Labels and mask; of nested spans a flat head is shown the outermost of each layer."""
    if config.flat:
        flat = flat_subset(spans, config.per_kind, keep="longest")
        tags = to_bio(flat, config.kinds, n, per_kind=config.per_kind, lengths=lengths)
        return tags, torch.ones(len(tags), 1, n, dtype=torch.bool)
    return labels_of(spans, config.kinds, n, lengths=lengths), span_mask(lengths, n)


def _order(
    generator: np.random.Generator, rows: NDArray[np.int64], batch: int
) -> Iterator[NDArray[np.int64]]:
    """All rows in random order again and again, `batch` at a time; an epoch's rest is left out."""
    while True:
        mixed = generator.permutation(rows)
        for start in range(0, len(mixed) - batch + 1, batch):
            yield mixed[start : start + batch]


class _Noise:
    """Dropout's factors, for each seed and each pass from a generator of its own."""

    def __init__(self, config: TaggerConfig, seeds: Sequence[int], purpose: int = DROPOUT) -> None:
        self.config = config
        self.generators = [
            [np.random.default_rng([purpose, which, seed]) for seed in seeds] for which in range(2)
        ]

    def __call__(self, embedded: Tensor, which: int) -> Tensor:
        """Factors (S, sites, B, n, D) for embedded tokens (S, B, n, D)."""
        keep = 1.0 - self.config.dropout
        shape = (self.config.sites, *embedded.shape[1:])
        # NumPy draws these several times faster than torch, and they are a tenth of a step.
        drawn = [g.random(shape, dtype=np.float32) < keep for g in self.generators[which]]
        return torch.from_numpy(np.stack(drawn)).to(embedded.dtype).div_(keep)


# --- measuring ------------------------------------------------------------------------------------


@torch.no_grad()
def measure(
    trained: Trained,
    test: Sentences,
    *,
    view: Callable[[Sequence[Spans]], Sequence[Spans]] | None = None,
) -> Figures:
    """Precision, recall, F1 and inconsistency on test sentences.

    Parameters
    ----------
    trained : Trained
    test : Sentences
    view : callable, optional
        Applied to the true and to the predicted sets of all sentences before they are compared;
        :func:`lib.spans.flat_subset` keeps the outermost spans.

    Returns
    -------
    Figures
    """
    if not isinstance(trained, Trained):
        raise TypeError(f"`trained` must be Trained, got {type(trained).__name__}")
    view = (lambda sets: sets) if view is None else view
    predicted = trained.predict(test)
    gold = view(_checked_spans(test, trained.config))
    matches = [exact_match(gold, view(found)) for found in predicted]
    rows = ([getattr(m, name) for m in matches] for name in ("precision", "recall", "f1"))
    return Figures(*map(np.array, rows), _inconsistency(trained, test))


def _inconsistency(trained: Trained, test: Sentences) -> Floats:
    if trained.config.flat:
        return np.full(len(trained.seeds), np.nan)
    tokens, lengths = _checked_tokens(test.tokens, test.lengths, trained.config)
    noise = _Noise(trained.config, trained.seeds, TEST_DROPOUT)
    run = _Run(trained.config, trained.parameters)
    many = (len(trained.seeds), *tokens.shape)
    embedded = run.embed(tokens.expand(many))
    first, second = (
        run(embedded, lengths.expand(many[:2]), noise(embedded, which)) for which in range(2)
    )
    apart = dv.globalpointer_divergence(first, second, span_mask(lengths, tokens.shape[1])[None])
    return apart.mean((1, 2)).double().numpy()


# --- checks ---------------------------------------------------------------------------------------


def _checked_tokens(
    tokens: ArrayLike | Tensor, lengths: ArrayLike | Tensor, config: TaggerConfig
) -> tuple[Tensor, Tensor]:
    tokens, lengths = torch.as_tensor(tokens), torch.as_tensor(lengths)
    for name, x, axes in (("tokens", tokens, 2), ("lengths", lengths, 1)):
        if x.dtype != torch.int64 or x.ndim != axes or x.numel() == 0:
            raise ValueError(
                f"`{name}` must be whole numbers (int64) on {axes} axes, "
                f"got {x.dtype} of shape {tuple(x.shape)}"
            )
    check_lengths(lengths, tokens.shape[1], len(tokens))
    low, high = int(tokens.min()), int(tokens.max())
    if low < 0 or high >= config.symbols:
        raise ValueError(f"`tokens` must lie in 0 … {config.symbols - 1}, got {low} … {high}")
    return tokens, lengths


def _checked_spans(sentences: Sentences, config: TaggerConfig) -> list[Spans]:
    """The true spans, one set for each sentence."""
    tokens, lengths = torch.as_tensor(sentences.tokens), torch.as_tensor(sentences.lengths)
    if len(sentences.spans) != len(lengths):
        raise ValueError(f"`spans` must hold {len(lengths)} sets, got {len(sentences.spans)}")
    n = tokens.shape[1]
    return checked_sets(sentences.spans, "spans", kinds=config.kinds, n=n, lengths=lengths)


def _checked_seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    numbers = tuple(check.whole(seed, "seeds", 0) for seed in seeds)
    if not numbers or len(set(numbers)) < len(numbers):
        raise ValueError(f"`seeds` must be different numbers, at least one, got {list(numbers)}")
    return numbers


def _check_teacher(teacher: Trained, config: TaggerConfig, seeds: int) -> None:
    mine, theirs = (config.symbols, config.kinds), (teacher.config.symbols, teacher.config.kinds)
    if mine != theirs:
        raise ValueError(f"`teacher` must know (symbols, kinds) = {mine}, got {theirs}")
    if teacher.config.flat:
        raise ValueError(f"`teacher` must score spans, got {teacher.config.head!r}")
    if len(teacher.seeds) not in (1, seeds):
        raise ValueError(f"`teacher` must have 1 or {seeds} seeds, got {len(teacher.seeds)}")
