"""A small masked language model with rotary positions, trained short and read long.

The experiment of kexue.fm/archives/8823 in miniature: hide 15 % of the characters of a text,
guess them from both sides, train at n0 characters, test at longer ones.  Rotary positions
(RoPE) bring a second failure that has nothing to do with the number of keys: angles between far
characters never occurred in training.  Reading the same trained model in three ways tells the
two apart:

- ``rope``     as trained: new angles and more keys;
- ``clipped``  offsets beyond `reach` count as `reach` (as in ReRoPE): no new angle, more keys;
- ``window``   keys beyond `reach` are invisible: neither.

The network: pre-norm Transformer encoder, no biases in its attention, LayerNorm without
parameters, GELU.  The last layer computes only the hidden characters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lib.attention import _validation as check
from lib.attention.dot_product import scaled_dot_product_attention
from lib.attention.lengths import (
    FACTORS,
    Factor,
    LengthTable,
    check_lengths,
    check_seeds,
    factor_at,
    named_factors,
)
from lib.attention.positions import rotate as turn
from lib.attention.side_by_side import Parameters, data_generators, draw_parameters, fit, take
from lib.data.stdlib_text import Split

__all__ = [
    "MaskedLMConfig",
    "MaskedLMModels",
    "Positions",
    "evaluate_masked_lm",
    "masked_lm_queries_keys",
    "rotate",
    "train_masked_lm",
]

Positions = Literal["rope", "clipped", "window"]

TRAINING, TESTING = 3, 4  # purposes of a seed's data generators
CHUNK = 256  # queries whose scores against all keys are held at once


@dataclass(frozen=True)
class MaskedLMConfig:
    """Settings of the masked language model.

    Attributes
    ----------
    length : int
        Characters in a training text, n0.
    width, heads, layers : int
        Width d_model, a multiple of 2 * heads; number of heads; number of layers.
    hidden_per_text : int
        Characters hidden in every `length` characters, in training and in testing.
    qk_norm : bool
        Whether queries and keys are normalised (to norm sqrt(d) of a head).
    rope_base : float
        Base of the rotation frequencies.
    steps, batch, learning_rate
        Training: number of steps, texts per step and seed, peak rate of Adam.
    """

    length: int = 64
    width: int = 64
    heads: int = 2
    layers: int = 2
    hidden_per_text: int = 10
    qk_norm: bool = False
    rope_base: float = 10_000.0
    steps: int = 600
    batch: int = 16
    learning_rate: float = 4e-3

    def __post_init__(self) -> None:
        least = dict(length=2, width=2, heads=1, layers=1, hidden_per_text=1, steps=1, batch=1)
        for name, bound in least.items():
            check.whole(getattr(self, name), name, bound)
        if self.width % (2 * self.heads):
            raise ValueError(
                f"`width` must be a multiple of 2 * heads = {2 * self.heads}, got {self.width}"
            )
        if self.hidden_per_text > self.length:
            raise ValueError(
                f"`hidden_per_text` must be at most `length` = {self.length}, "
                f"got {self.hidden_per_text}"
            )
        for name in ("rope_base", "learning_rate"):
            check.positive(getattr(self, name), name)

    @property
    def head_width(self) -> int:
        """Width d of one head."""
        return self.width // self.heads


@dataclass(frozen=True)
class MaskedLMModels:
    """Trained masked language models, one per seed.

    Attributes
    ----------
    config : MaskedLMConfig
    seeds : tuple of int
    parameters : dict of Tensor, each of shape (S, …)
    losses : ndarray, shape (S, steps)
        Training loss in nats per hidden character.
    """

    config: MaskedLMConfig
    seeds: tuple[int, ...]
    parameters: Parameters
    losses: NDArray[np.float64]

    @property
    def symbols(self) -> int:
        """Number of different characters; the mask is one more."""
        return self.parameters["readout"].shape[-1]


@dataclass(frozen=True)
class Reading:
    """How attention is used: a factor on the logits and a treatment of positions.

    Attributes
    ----------
    factor : float
    positions : "rope", "clipped" or "window"
    reach : int
        Largest offset that ``clipped`` and ``window`` let through.
    """

    factor: float = 1.0
    positions: Positions = "rope"
    reach: int = 0


def rotate(x: Tensor, positions: Tensor, base: float) -> Tensor:
    """Rotary position embedding: turn pairs of coordinates by angles proportional to position.

    Coordinates 2t and 2t + 1 are one complex number, multiplied by exp(i m base^(-2t/d)) at
    position m; the inner product of two rotated vectors depends on the offset only.

    Parameters
    ----------
    x : Tensor, shape (…, m, d)
    positions : Tensor, shape broadcastable to (…, m)
    base : float

    Returns
    -------
    Tensor, shape (…, m, d)

    References
    ----------
    Su et al., RoFormer, arXiv 2104.09864; kexue.fm/archives/8265.
    """
    d = x.shape[-1]
    frequency = base ** (-torch.arange(0, d, 2, dtype=x.dtype) / d)  # (d / 2,)
    angle = positions[..., None].to(x.dtype) * frequency  # (…, m, d / 2)
    return turn(x, angle)


def train_masked_lm(
    corpus: Split,
    config: MaskedLMConfig | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    *,
    on_step: Callable[[int, NDArray[np.float64]], None] | None = None,
) -> MaskedLMModels:
    """Train one masked language model per seed, all seeds side by side.

    Parameters
    ----------
    corpus : Split
        Character numbers, as `lib.data.stdlib_text.characters` gives them; only ``train`` is
        read.
    config : MaskedLMConfig, optional
    seeds : sequence of int
        Each fixes the initial parameters and the training texts of one model.
    on_step : callable, optional
        Called after each step with its number and the losses, shape (S,).

    Returns
    -------
    MaskedLMModels
    """
    config = MaskedLMConfig() if config is None else config
    seeds = check_seeds(seeds)
    parameters = draw_parameters(lambda g: _initial(g, corpus.size, config), seeds)
    generators = data_generators(seeds, TRAINING)
    reading = Reading()

    def losses() -> Tensor:
        texts = _draw_texts(corpus.train, config, config.length, config.batch, generators)
        masked, hidden, wanted = _mask(*texts, corpus.size)
        logits, _ = _forward(parameters, config, masked, hidden, reading)
        surprise = F.cross_entropy(logits.flatten(0, 2), wanted.flatten(), reduction="none")
        return surprise.view(len(seeds), -1).mean(1)  # (S,)

    history = fit(
        parameters,
        losses,
        steps=config.steps,
        learning_rate=config.learning_rate,
        on_step=on_step,
    )
    return MaskedLMModels(config, seeds, parameters, history)


@torch.no_grad()
def evaluate_masked_lm(
    models: MaskedLMModels,
    corpus: Split,
    lengths: Sequence[int],
    factors: Sequence[str] | Mapping[str, Factor] = tuple(FACTORS),
    *,
    positions: Positions = "rope",
    reach: int | None = None,
    texts: int = 8,
) -> LengthTable:
    """Guess the same hidden characters with ever more text around them.

    Texts of the longest length are drawn from the corpus' test half; shorter lengths cut the
    same texts into pieces.  So every length, factor and treatment of positions is asked about
    the same hidden characters, and only the context grows.

    Parameters
    ----------
    models : MaskedLMModels
    corpus : Split
        Only ``test`` is read.
    lengths : sequence of int
        Increasing; each a multiple of the training length and a divisor of the longest.
    factors : sequence of str or mapping
        Names in `lib.attention.lengths.FACTORS`, or names with functions of (n, n0). The n they
        are given is the length, also where ``window`` hides most of it: there the visible keys
        do not grow, and ``constant`` is the factor that fits.
    positions : "rope", "clipped" or "window"
        As trained, offsets clipped to `reach`, or keys beyond `reach` invisible.
    reach : int, optional
        Half the training length unless given.
    texts : int
        Longest texts per seed, each seed with its own.

    Returns
    -------
    LengthTable
        Its ``entropy`` is that of the last layer's heads at the hidden characters.
    """
    config = models.config
    rules = named_factors(factors)
    lengths = check_lengths(lengths, at_least=config.length)
    if any(n % config.length or lengths[-1] % n for n in lengths):
        raise ValueError(
            f"`lengths` must be multiples of the training length {config.length} and divisors "
            f"of the longest, got {lengths}"
        )
    if positions not in get_args(Positions):
        raise ValueError(f"`positions` must be one of {get_args(Positions)}, got {positions!r}")
    reach = config.length // 2 if reach is None else check.whole(reach, "reach", at_least=1)
    texts = check.whole(texts, "texts", at_least=1)
    _check_symbols(models, corpus)

    drawn = _draw_texts(corpus.test, config, lengths[-1], texts, _testing(models))
    masked, hidden, wanted = _mask(*drawn, corpus.size)  # (S, W, N), (S, W, M), (S, W, M)
    shape = (len(models.seeds), len(rules), len(lengths))
    accuracy, entropy = np.zeros(shape), np.zeros(shape)
    for j, n in enumerate(lengths):
        for i, rule in enumerate(rules.values()):
            reading = Reading(factor_at(rule, n, config.length), positions, reach)
            for w in range(texts):  # one text at a time bounds the memory
                pieces, inside = _cut(masked[:, w], hidden[:, w], n)
                logits, spread = _forward(
                    models.parameters, config, pieces, inside, reading, measure=True
                )
                right = logits.argmax(-1) == wanted[:, w].view(inside.shape)
                accuracy[:, i, j] += right.double().mean((1, 2)).numpy() / texts
                entropy[:, i, j] += spread.double().numpy() / texts
    return LengthTable(models.seeds, tuple(rules), lengths, accuracy, entropy, wanted[0].numel())


@torch.no_grad()
def masked_lm_queries_keys(
    models: MaskedLMModels, corpus: Split, length: int, *, layer: int = 0, texts: int = 4
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Trained queries and keys of one layer on real texts, rotation included.

    Scores are ``q @ k.T / sqrt(d)``; with ``qk_norm`` the vectors come out normalised.

    Parameters
    ----------
    models : MaskedLMModels
    corpus : Split
        Only ``test`` is read.
    length : int
        Characters of each text, n, a multiple of the training length.
    layer : int
        From 0, the first.
    texts : int
        Texts per seed, B.

    Returns
    -------
    q, k : ndarray, shape (S, B, heads, n, d)
        For the last layer q has only the hidden characters' rows.
    """
    config = models.config
    if check.whole(layer, "layer", at_least=0) >= config.layers:
        raise ValueError(f"`layer` must be below {config.layers}, got {layer}")
    texts = check.whole(texts, "texts", at_least=1)
    if check.whole(length, "length", at_least=config.length) % config.length:
        raise ValueError(f"`length` must be a multiple of {config.length}, got {length}")
    _check_symbols(models, corpus)
    drawn = _draw_texts(corpus.test, config, length, texts, _testing(models))
    masked, hidden, _ = _mask(*drawn, corpus.size)
    x = take(models.parameters["embedding"], masked)
    for index in range(layer + 1):
        rows = _rows(hidden, length, last=index == config.layers - 1)
        if index < layer:
            x, _ = _layer(models.parameters, config, index, x, rows, Reading())
    q, k, _ = _project(models.parameters, config, layer, x, rows)
    q, k = _rotated(q, k, rows, config.rope_base)
    return q.numpy(), k.numpy()


def _initial(generator: torch.Generator, symbols: int, config: MaskedLMConfig) -> Parameters:
    """Parameters of one model before training; symbol number `symbols` is the mask."""

    def normal(rows: int, columns: int, std: float) -> Tensor:
        return std * torch.randn(rows, columns, generator=generator)

    d, wide = config.width, 4 * config.width
    shrink = (2 * config.layers) ** -0.5  # residual branches, as in GPT-2
    parameters = {"embedding": normal(symbols + 1, d, 1.0)}
    for layer in range(config.layers):
        parameters |= {
            f"query{layer}": normal(d, d, d**-0.5),
            f"key_value{layer}": normal(d, 2 * d, d**-0.5),
            f"out{layer}": normal(d, d, shrink * d**-0.5),
            f"up{layer}": normal(d, wide, d**-0.5),
            f"up_bias{layer}": torch.zeros(1, wide),
            f"down{layer}": normal(wide, d, shrink * wide**-0.5),
        }
    return parameters | {"readout": normal(d, symbols, d**-0.5)}


def _forward(
    parameters: Parameters,
    config: MaskedLMConfig,
    masked: Tensor,
    hidden: Tensor,
    reading: Reading,
    *,
    measure: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Logits of the hidden characters (S, B, M, symbols); mean entropy of the last layer (S,)."""
    x = take(parameters["embedding"], masked)  # (S, B, n, d_model)
    n = masked.shape[-1]
    for layer in range(config.layers):
        last = layer == config.layers - 1
        rows = _rows(hidden, n, last=last)
        x, entropy = _layer(parameters, config, layer, x, rows, reading, measure and last)
    logits = _norm(x).flatten(1, 2) @ parameters["readout"]  # (S, B M, symbols)
    return logits.unflatten(1, hidden.shape[1:]), entropy


def _rows(hidden: Tensor, n: int, *, last: bool) -> Tensor:
    """Positions whose output a layer computes: all n, in the last layer the hidden ones."""
    return hidden if last else torch.arange(n).expand(*hidden.shape[:2], n)


def _layer(
    parameters: Parameters,
    config: MaskedLMConfig,
    layer: int,
    x: Tensor,
    rows: Tensor,
    reading: Reading,
    measure: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """One layer for x (S, B, n, d_model) at positions `rows` (S, B, m): (S, B, m, d_model)."""
    q, k, v = _project(parameters, config, layer, x, rows)
    o, entropy = _attend(q, k, v, rows, config, reading, measure)  # (S, B, h, m, d)
    o = o.transpose(2, 3).flatten(3).flatten(1, 2)  # (S, B m, d_model)
    x = _pick(x, rows).flatten(1, 2)  # (S, B m, d_model)
    x = x + o @ parameters[f"out{layer}"]
    up = torch.baddbmm(parameters[f"up_bias{layer}"], _norm(x), parameters[f"up{layer}"])
    x = x + F.gelu(up) @ parameters[f"down{layer}"]
    return x.unflatten(1, rows.shape[1:]), entropy


def _project(
    parameters: Parameters, config: MaskedLMConfig, layer: int, x: Tensor, rows: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries (S, B, h, m, d) at `rows`, keys and values (S, B, h, n, d) of one layer."""
    z = _norm(x)
    heads = (config.heads, config.head_width)
    q = _pick(z, rows).flatten(1, 2) @ parameters[f"query{layer}"]  # (S, B m, d_model)
    kv = z.flatten(1, 2) @ parameters[f"key_value{layer}"]  # (S, B n, 2 d_model)
    q = q.view(*rows.shape, *heads).transpose(2, 3)  # (S, B, h, m, d)
    k, v = kv.view(*x.shape[:3], 2, *heads).permute(3, 0, 1, 4, 2, 5)  # (S, B, h, n, d) each
    return (_norm(q), _norm(k), v) if config.qk_norm else (q, k, v)


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rows: Tensor,
    config: MaskedLMConfig,
    reading: Reading,
    measure: bool,
) -> tuple[Tensor, Tensor | None]:
    """Attention output (S, B, h, m, d) and, if wanted, the mean entropy of its weights (S,)."""
    scale = reading.factor * config.head_width**-0.5
    if reading.positions == "rope" and not measure:
        q, k = _rotated(q, k, rows, config.rope_base)
        return scaled_dot_product_attention(q, k, v, scale=scale), None
    outputs, entropies = [], []
    for part, at in zip(q.split(CHUNK, 3), rows.split(CHUNK, 2), strict=True):
        s = _scores(part * scale, k, at, config.rope_base, reading)  # (S, B, h, m', n)
        p = s.softmax(-1)
        outputs.append(p @ v)
        if measure:
            entropies.append(torch.special.entr(p).sum(-1).mean((1, 2)))  # (S, m')
    return torch.cat(outputs, 3), torch.cat(entropies, 1).mean(1) if measure else None


def _rotated(q: Tensor, k: Tensor, rows: Tensor, base: float) -> tuple[Tensor, Tensor]:
    """Queries turned to positions `rows` (S, B, m), keys to 0…n - 1."""
    return rotate(q, rows[:, :, None], base), rotate(k, torch.arange(k.shape[-2]), base)


def _scores(q: Tensor, k: Tensor, rows: Tensor, base: float, reading: Reading) -> Tensor:
    """Scores (S, B, h, m, n) of queries at positions `rows` (S, B, m) and keys at 0…n - 1."""
    turned_q, turned_k = _rotated(q, k, rows, base)
    near = turned_q @ turned_k.mT
    if reading.positions == "rope":
        return near
    offset = torch.arange(k.shape[-2]) - rows[:, :, None, :, None]  # (S, B, 1, m, n)
    reach = torch.tensor(reading.reach)
    if reading.positions == "window":
        return near.masked_fill(offset.abs() > reach, -torch.inf)
    # a query turned back by `reach` meets an unturned key as if that key stood `reach` ahead
    right = rotate(q, -reach, base) @ k.mT
    left = rotate(q, reach, base) @ k.mT
    return torch.where(offset > reach, right, torch.where(offset < -reach, left, near))


def _norm(x: Tensor) -> Tensor:
    """LayerNorm without parameters: mean 0, norm sqrt(d)."""
    return F.layer_norm(x, x.shape[-1:])


def _pick(x: Tensor, rows: Tensor) -> Tensor:
    """Positions `rows` (S, B, m) of x (S, B, n, d): (S, B, m, d)."""
    if rows.shape[-1] == x.shape[2]:
        return x
    return x.gather(2, rows[..., None].expand(-1, -1, -1, x.shape[-1]))


def _draw_texts(
    characters: NDArray[np.int64],
    config: MaskedLMConfig,
    length: int,
    count: int,
    generators: Sequence[np.random.Generator],
) -> tuple[Tensor, Tensor]:
    """Texts (S, count, length) and the positions to hide in them (S, count, M), increasing.

    One text comes from each of `count` equal parts of the corpus: neighbouring places resemble
    each other, and a draw that is spread out varies less.  In each `config.length` characters of
    a text the same number is hidden, so that cutting it into pieces of that length leaves as
    many in each.
    """
    room = len(characters) - length
    if room < 0:
        raise ValueError(f"`corpus` must hold at least {length} characters, got {len(characters)}")
    n0, m = config.length, config.hidden_per_text
    texts, hidden = [], []
    for rng in generators:
        start = ((np.arange(count) + rng.random(count)) / count * (room + 1)).astype(np.int64)
        texts.append(characters[start[:, None] + np.arange(length)])
        order = rng.random((count, length // n0, n0)).argsort(-1)[..., :m]
        places = np.sort(order, -1) + n0 * np.arange(length // n0)[:, None]
        hidden.append(places.reshape(count, -1))
    return torch.from_numpy(np.stack(texts)), torch.from_numpy(np.stack(hidden))


def _mask(texts: Tensor, hidden: Tensor, mask: int) -> tuple[Tensor, Tensor, Tensor]:
    """Texts with their hidden characters replaced by `mask`, the positions, what stood there."""
    return texts.scatter(-1, hidden, mask), hidden, texts.gather(-1, hidden)


def _cut(masked: Tensor, hidden: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Cut texts (S, N) into pieces of n characters: (S, N / n, n), with positions inside them."""
    pieces = masked.unflatten(1, (-1, n))
    inside = hidden.view(*pieces.shape[:2], -1) % n
    return pieces, inside


def _testing(models: MaskedLMModels) -> list[np.random.Generator]:
    return data_generators(models.seeds, TESTING)


def _check_symbols(models: MaskedLMModels, corpus: Split) -> None:
    if corpus.size != models.symbols:
        raise ValueError(
            f"`corpus` must have the {models.symbols} symbols of training, got {corpus.size}"
        )
