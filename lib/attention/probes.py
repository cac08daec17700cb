"""Can a network tell places apart? Equal tokens in, positions out; and the same on real text.

`position_deviation` and `mirror_deviation` measure, without training, how far the outputs of n
equal tokens differ from place to place and from their mirror image. `train_probe` asks for the
places 1 … n themselves: where all outputs are equal, the best answer is their mean, and the error,
counted in variances of the target, stays at 1. `train_tokens` trains the same network for a number
per token of real sequences. All seeds of a setting are trained side by side.

Notation: S seeds, B sequences, n places; targets are standardised. For the article
https://kexue.fm/archives/9105.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call, vmap
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from lib import _checks as check
from lib.attention.encoder import Encoder, EncoderConfig
from lib.attention.lengths import check_seeds
from lib.attention.side_by_side import data_generators, fit

__all__ = [
    "PositionTable",
    "ProbeResult",
    "TokenResult",
    "TokenScore",
    "mirror_deviation",
    "position_deviation",
    "probe_lengths",
    "train_probe",
    "train_tokens",
]

Floats = NDArray[np.float64]
Model = Callable[[Tensor], Tensor]
Draw = Callable[[np.random.Generator, int], tuple[NDArray[np.int64], NDArray[np.float64]]]

TRAINING = 3  # purpose of a seed's data generator
CLIP = 1.0  # greatest norm of a gradient


# --- without training -----------------------------------------------------------------------------


def position_deviation(model: Model, n: int, symbol: int = 0) -> float:
    """How far the outputs of n equal tokens lie apart: max over i of abs(y_i - y_1).

    Parameters
    ----------
    model : callable
        From tokens of int64, shape (1, n), to outputs of shape (1, n, …): an `Encoder`, or a
        function around any other network. Hand in one of double precision, ``model.double()``, and
        in evaluation mode: rounding in float32 is amplified by training, and dropout tells places
        apart by chance.
    n : int
        At least 2.
    symbol : int, default=0
        The token.

    Returns
    -------
    float
        About 1e-15 in double precision for a network with the flaw.

    See Also
    --------
    mirror_deviation : the other symmetry that a probe can fail by.
    """
    y = _of_equal_tokens(model, n, symbol)
    return float((y - y[:1]).abs().max())


def mirror_deviation(model: Model, n: int, symbol: int = 0) -> float:
    """How far the outputs of n equal tokens differ from their mirror image: y_i from y_(n + 1 - i).

    Parameters
    ----------
    model, n, symbol
        As in :func:`position_deviation`.

    Returns
    -------
    float
        About 1e-15 in double precision for a network that can't tell left from right: its outputs
        may differ from place to place, but no line can be fitted through them.
    """
    y = _of_equal_tokens(model, n, symbol)
    return float((y - y.flip(0)).abs().max())


@torch.no_grad()
def _of_equal_tokens(model: Model, n: int, symbol: int) -> Tensor:
    """Outputs of every place, shape (n, …)."""
    if not callable(model):
        raise TypeError(f"`model` must be callable, got {type(model).__name__}")
    n = check.whole(n, "n", 2)
    y = model(torch.full((1, n), check.whole(symbol, "symbol", 0)))
    if not isinstance(y, Tensor) or y.ndim < 2 or y.shape[:2] != (1, n):
        got = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(f"`model` must return a tensor of shape (1, {n}, …), got {got}")
    return y[0]


# --- places out of equal tokens -------------------------------------------------------------------


@dataclass(frozen=True)
class PositionTable:
    """Positions that trained encoders read off sequences of equal tokens.

    Attributes
    ----------
    length : int
        Places n.
    predicted : ndarray, shape (S, n)
        In steps: the right answer is 1 … n.
    """

    length: int
    predicted: Floats

    @property
    def error(self) -> Floats:
        """Mean squared error over the variance of 1 … n, shape (S,)."""
        return np.square(self._miss).mean(1) / np.arange(self.length).var()

    @property
    def accuracy(self) -> Floats:
        """Share of the places that are right to half a step, shape (S,)."""
        return (np.abs(self._miss) < 0.5).mean(1)

    @property
    def _miss(self) -> Floats:
        return self.predicted - np.arange(1, self.length + 1)


@dataclass(frozen=True)
class ProbeResult:
    """Encoders trained to map equal tokens to their positions, one per seed.

    Attributes
    ----------
    config : EncoderConfig
    length : int
        Places n0 of training.
    seeds : tuple of int
    models : tuple of Encoder
        In single precision.
    losses : ndarray, shape (S, steps)
        Mean squared error over variance before each step.
    """

    config: EncoderConfig
    length: int
    seeds: tuple[int, ...]
    models: tuple[Encoder, ...]
    losses: Floats

    @cached_property
    def table(self) -> PositionTable:
        """Positions read off at the length of training."""
        return probe_lengths(self, (self.length,))[0]

    @property
    def error(self) -> Floats:
        """Mean squared error over variance after training, shape (S,); 1 says nothing is known."""
        return self.table.error

    @property
    def accuracy(self) -> Floats:
        """Share of the places that are right to half a step after training, shape (S,)."""
        return self.table.accuracy


def train_probe(
    config: EncoderConfig,
    *,
    length: int = 32,
    seeds: Sequence[int] = (0, 1, 2),
    steps: int = 300,
    learning_rate: float = 4e-3,
) -> ProbeResult:
    """Train encoders to map n equal tokens to the positions 1 … n, standardised.

    Parameters
    ----------
    config : EncoderConfig
        With one output.
    length : int, default=32
        Places n.
    seeds : sequence of int
        Each fixes the initial parameters of one encoder; all are trained side by side.
    steps : int, default=300
    learning_rate : float, default=4e-3
        Peak rate of Adam. It rises at first, then falls along a cosine; gradients longer than 1
        are shortened to 1.

    Returns
    -------
    ProbeResult
    """
    _one_output(config)
    length = check.whole(length, "length", 2)
    place, scale = _standard(length)
    target = torch.from_numpy((np.arange(1, length + 1) - place) / scale).float()  # (n,)
    tokens = torch.zeros(1, length, dtype=torch.int64)
    company = _Company(config, seeds)

    def losses() -> Tensor:
        return (company.outputs(tokens)[:, 0] - target).square().mean(1)  # (S,)

    history = company.fit(losses, steps, learning_rate)
    return ProbeResult(config, length, company.seeds, company.models(), history)


def probe_lengths(result: ProbeResult, lengths: Sequence[int]) -> tuple[PositionTable, ...]:
    """What trained encoders read off sequences of other lengths.

    The outputs are taken on the scale of training: place i should come out as the same number
    in a sequence of any length, and places beyond those of training as numbers beyond.

    Parameters
    ----------
    result : ProbeResult
    lengths : sequence of int

    Returns
    -------
    tuple of PositionTable
        One per length.
    """
    place, scale = _standard(result.length)
    company = _Company.of(result.config, result.seeds, result.models)
    tables = []
    for n in lengths:
        n = check.whole(n, "lengths", 2)
        with torch.no_grad():
            y = company.outputs(torch.zeros(1, n, dtype=torch.int64))[:, 0]  # (S, n)
        tables.append(PositionTable(n, place + scale * y.double().numpy()))
    return tuple(tables)


def _standard(length: int) -> tuple[float, float]:
    """Mean and standard deviation of the positions 1 … n."""
    return (length + 1) / 2, float(np.arange(length).std())


# --- a number per token ---------------------------------------------------------------------------


@dataclass(frozen=True)
class TokenScore:
    """How well whole numbers per token are met.

    Attributes
    ----------
    error : ndarray, shape (S,)
        Mean squared error over the variance that the target had in training.
    accuracy : ndarray, shape (S,)
        Share of the tokens whose prediction rounds to the target.
    tokens : int
        How many were judged.
    """

    error: Floats
    accuracy: Floats
    tokens: int


@dataclass(frozen=True)
class TokenResult:
    """Encoders trained for a number per token, one per seed.

    Attributes
    ----------
    config : EncoderConfig
    seeds : tuple of int
    models : tuple of Encoder
        In single precision; their outputs are standardised.
    losses : ndarray, shape (S, steps)
        Mean squared error over variance of each batch.
    mean, scale : float
        Of the target: a prediction is ``mean + scale * output``.
    """

    config: EncoderConfig
    seeds: tuple[int, ...]
    models: tuple[Encoder, ...]
    losses: Floats
    mean: float
    scale: float

    @torch.no_grad()
    def predict(self, tokens: NDArray[np.int64]) -> Floats:
        """Predictions of every seed.

        Parameters
        ----------
        tokens : ndarray of int64, shape (B, n)

        Returns
        -------
        ndarray, shape (S, B, n)
        """
        shared = torch.from_numpy(_sequences(tokens))
        rows = [
            torch.cat([model(part)[..., 0] for part in shared.split(256)]) for model in self.models
        ]
        return self.mean + self.scale * torch.stack(rows).double().numpy()

    def score(
        self,
        tokens: NDArray[np.int64],
        target: NDArray[np.float64],
        where: NDArray[np.bool_] | None = None,
    ) -> TokenScore:
        """Judge the predictions.

        Parameters
        ----------
        tokens : ndarray of int64, shape (B, n)
        target : ndarray, shape (B, n)
        where : ndarray of bool, shape (B, n), optional
            The tokens to judge; all unless given.
        """
        tokens, target = _sequences(tokens), _targets(target, tokens)
        chosen = np.ones(tokens.shape, dtype=bool) if where is None else np.asarray(where)
        if chosen.dtype != bool or chosen.shape != tokens.shape or not chosen.any():
            raise ValueError(
                f"`where` must be of bool and of shape {tokens.shape}, and choose a token, "
                f"got {chosen.dtype} of shape {chosen.shape}"
            )
        miss = (self.predict(tokens) - target)[:, chosen]  # (S, chosen tokens)
        return TokenScore(
            np.square(miss).mean(1) / self.scale**2,
            (np.abs(miss) < 0.5).mean(1),
            int(chosen.sum()),
        )


def train_tokens(
    config: EncoderConfig,
    draw: Draw,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    steps: int = 300,
    batch: int = 16,
    learning_rate: float = 4e-3,
) -> TokenResult:
    """Train encoders for a number per token.

    Parameters
    ----------
    config : EncoderConfig
        With one output.
    draw : callable
        From a numpy generator and a count B to tokens (B, n) of int64 and targets (B, n).
    seeds : sequence of int
        Each fixes the initial parameters and the training sequences of one encoder; encoders of
        different configs with the same seed see the same sequences.
    steps, batch : int
        Number of steps, sequences per step and seed.
    learning_rate : float
        As in :func:`train_probe`.

    Returns
    -------
    TokenResult
        Mean and scale of the target are those of 256 sequences drawn for no seed.
    """
    _one_output(config)
    batch = check.whole(batch, "batch", 1)
    _, sample = _drawn(draw, np.random.default_rng([TRAINING]), 256, config.symbols)
    mean, scale = float(sample.mean()), float(sample.std())
    if scale == 0.0:
        raise ValueError(f"`draw` must give targets that differ, got {mean:g} for every token")
    company = _Company(config, seeds)
    generators = data_generators(company.seeds, TRAINING)

    def losses() -> Tensor:
        pairs = [_drawn(draw, g, batch, config.symbols) for g in generators]
        tokens, target = (torch.from_numpy(np.stack(part)) for part in zip(*pairs, strict=True))
        y = company.outputs(tokens)  # (S, B, n)
        return (y - ((target - mean) / scale).float()).square().mean((1, 2))  # (S,)

    history = company.fit(losses, steps, learning_rate)
    return TokenResult(config, company.seeds, company.models(), history, mean, scale)


# --- encoders of one config, side by side ---------------------------------------------------------


class _Company:
    """Encoders of one config, one per seed, as one matrix of parameters, shape (S, P).

    One matrix rather than a tensor per parameter: clipping and Adam then take a dozen operations a
    step instead of a dozen for each of 40 parameters, which is half the time of so small a network.
    """

    def __init__(self, config: EncoderConfig, seeds: Sequence[int]) -> None:
        self.seeds = check_seeds(seeds)
        self._hold([Encoder(config, torch.Generator().manual_seed(seed)) for seed in self.seeds])

    @classmethod
    def of(cls, config: EncoderConfig, seeds: Sequence[int], models: Sequence[Encoder]) -> _Company:
        """Encoders that exist already."""
        company = cls(config, seeds[:1])
        company.seeds = tuple(seeds)
        company._hold(models)
        return company

    def _hold(self, models: Sequence[Encoder]) -> None:
        self.base = models[0]
        self.shapes = {name: p.shape for name, p in self.base.named_parameters()}
        vectors = [parameters_to_vector(model.parameters()).detach() for model in models]
        self.parameters = torch.stack(vectors)  # (S, P)

    def outputs(self, tokens: Tensor) -> Tensor:
        """Outputs (S, B, n) of tokens (B, n) for all seeds, or (S, B, n) with each its own."""
        return vmap(self._one, in_dims=(0, 0 if tokens.ndim == 3 else None))(
            self.parameters, tokens
        )

    def _one(self, vector: Tensor, tokens: Tensor) -> Tensor:
        parts = vector.split([shape.numel() for shape in self.shapes.values()])
        named = {
            name: part.view(shape)
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }
        return functional_call(self.base, named, (tokens,))[..., 0]  # (B, n)

    def fit(self, losses: Callable[[], Tensor], steps: int, learning_rate: float) -> Floats:
        """Train; losses of shape (S, steps)."""
        return fit(
            {"parameters": self.parameters},
            losses,
            steps=check.whole(steps, "steps", 1),
            learning_rate=check.positive(learning_rate, "learning_rate"),
            clip=CLIP,
        )

    def models(self) -> tuple[Encoder, ...]:
        """The encoders one by one, without gradients."""
        models = []
        for vector in self.parameters:
            model = Encoder(self.base.config, torch.Generator().manual_seed(0))
            vector_to_parameters(vector.clone(), model.parameters())
            models.append(model.requires_grad_(False).eval())
        return tuple(models)


# --- what a caller hands in -----------------------------------------------------------------------


def _one_output(config: EncoderConfig) -> None:
    if not isinstance(config, EncoderConfig):
        raise TypeError(f"`config` must be an EncoderConfig, got {type(config).__name__}")
    if config.outputs != 1:
        raise ValueError(f"`config` must have outputs=1, got {config.outputs}")


def _sequences(tokens: NDArray[np.int64]) -> NDArray[np.int64]:
    array = np.asarray(tokens)
    if array.dtype.kind not in "iu" or array.ndim != 2 or array.size == 0:
        raise ValueError(
            "`tokens` must be whole numbers of shape (B, n), "
            f"got {array.dtype} of shape {array.shape}"
        )
    return array.astype(np.int64, copy=False)


def _targets(target: NDArray[np.float64], tokens: NDArray[np.int64]) -> Floats:
    array = check.reals(target, "target")
    if array.shape != tokens.shape:
        raise ValueError(
            f"`target` must have the shape of `tokens`, {tokens.shape}, got {array.shape}"
        )
    return array


def _drawn(
    draw: Draw, rng: np.random.Generator, count: int, symbols: int
) -> tuple[NDArray[np.int64], Floats]:
    pair = draw(rng, count)
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise ValueError(f"`draw` must return tokens and targets, got {type(pair).__name__}")
    tokens = _sequences(pair[0])
    if tokens.min() < 0 or tokens.max() >= symbols:  # the encoder cannot tell, side by side
        bad = tokens.min() if tokens.min() < 0 else tokens.max()
        raise ValueError(f"`tokens` must lie in 0 … {symbols - 1}, got {bad}")
    return tokens, _targets(pair[1], tokens)
