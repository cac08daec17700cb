"""Normalising flow: an invertible network from data to normal noise, with exact density.

Real NVP of Dinh et al. (1605.08803). With z = f(x), log p(x) = log N(z; 0, I) + log det ∂f/∂x.
f is atanh(x / EDGE), which takes the interval of pixels to the whole line, then an affine map for
each number, then affine couplings: of the numbers in a random order the first half a stays, and the
rest b becomes b exp(s(a)) + t(a), so the Jacobian is triangular and the inverse explicit.

Pixels have 17 values, and a density could be infinite there: in training, uniform noise of the
width of one level (1/8) is added to each. With ``bounded=False`` the data are any vectors, as in
BERT-flow (Li et al., 2011.05864), where z takes the place of a sentence's vector: no atanh and no
noise. Left out: convolutions, splines, several scales.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from lib import _checks as check
from lib.generative import _validation as validation
from lib.generative._model import GenerativeModel
from lib.generative._training import MLP, OnStep, descend, draw_batch

__all__ = ["EDGE", "LEVEL", "Flow", "dequantise", "train_flow"]

LEVEL = 1.0 / 8.0  # distance of two levels of ink
EDGE = 1.0 + LEVEL  # pixels with noise reach 1 + LEVEL/2; a margin keeps atanh of them finite
STEEPEST = 2.0  # bound of abs(s): a coupling stretches by at most e²


def dequantise(x: Tensor, generator: torch.Generator) -> Tensor:
    """x plus uniform noise in [-LEVEL/2, LEVEL/2)."""
    return x + LEVEL * (torch.rand(x.shape, generator=generator, dtype=x.dtype) - 0.5)


class Flow(GenerativeModel):
    """Invertible map f between data and normal noise.

    Parameters
    ----------
    shape : tuple of int
        Shape of one datum, at least 2 numbers.
    couplings : int
        Number of coupling layers.
    width : int
        Hidden units in each of the two layers of a coupling's network.
    generator : torch.Generator
        Of the orders and the first weights; every coupling starts as the identity.
    bounded : bool
        Whether data lie in (-EDGE, EDGE), as pixels do; else they are any numbers.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        couplings: int,
        width: int,
        generator: torch.Generator,
        bounded: bool = True,
    ) -> None:
        super().__init__(shape)
        self.bounded = _flag(bounded)
        validation.settings(couplings=couplings, width=width)
        check.generator(generator)
        if self.size < 2:
            raise ValueError(f"`shape` must have at least 2 numbers, got {self.shape}")
        self.register_buffer("mean", torch.zeros(self.size))
        self.register_buffer("deviation", torch.ones(self.size))
        self.couplings = nn.ModuleList(
            _Coupling(self.size, width, generator) for _ in range(couplings)
        )

    def encode(self, x: Any) -> tuple[Tensor, Tensor]:
        """z = f(x) and log det ∂f/∂x.

        Parameters
        ----------
        x : array_like, shape ``(N, *shape)``
            In (-EDGE, EDGE) if the flow is bounded.

        Returns
        -------
        z : Tensor, shape (N, D)
        log_det : Tensor, shape (N,)
        """
        rows = self.rows(x)
        if self.bounded:
            if rows.abs().max() >= EDGE:
                raise ValueError(f"`x` must lie in (-{EDGE:g}, {EDGE:g}), got {rows.abs().max():g}")
            share = rows / EDGE
            z = (share.atanh() - self.mean) / self.deviation
            log_det = -(EDGE * (1.0 - share.square()) * self.deviation).log().sum(1)
        else:
            z = (rows - self.mean) / self.deviation
            log_det = -self.deviation.log().sum().expand(len(rows))
        for coupling in self.couplings:
            z, more = coupling(z)
            log_det = log_det + more
        return z, log_det

    def decode(self, z: Any) -> Tensor:
        """The inverse of f: (N, D) -> data ``(N, *shape)``, in (-EDGE, EDGE) if bounded."""
        z = validation.batch(z, "z", (self.size,), self.dtype)
        for coupling in reversed(self.couplings):
            z = coupling.inverse(z)
        line = self.mean + self.deviation * z
        return self.shaped(EDGE * line.tanh() if self.bounded else line)

    def log_density(self, x: Any) -> Tensor:
        """Exact log p(x) in nats of data ``(N, *shape)``: shape (N,).

        If bounded, data lie in (-EDGE, EDGE), and it is a density of pixels with noise: see
        `dequantise`.
        """
        z, log_det = self.encode(x)
        return log_det - 0.5 * (z.square() + math.log(2 * math.pi)).sum(1)

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n data, shape ``(n, *shape)``: decoded noise, if bounded cut at -1 and 1."""
        n, generator = check.whole(n, "n", 1), check.generator(generator)
        z = torch.randn(n, self.size, generator=generator, dtype=self.dtype)
        x = self.decode(z)
        return x.clamp(-1.0, 1.0) if self.bounded else x


class _Coupling(nn.Module):
    """b exp(s(a)) + t(a) for the second half of the numbers in a random order."""

    def __init__(self, size: int, width: int, generator: torch.Generator) -> None:
        super().__init__()
        order = torch.randperm(size, generator=generator)
        self.register_buffer("kept", order[: size // 2])
        self.register_buffer("moved", order[size // 2 :])
        self.register_buffer("back", order.argsort())
        moved = len(self.moved)
        self.network = MLP(size - moved, width, 2 * moved, generator, last=0.0)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The map and its log determinant: (N, D) -> (N, D), (N,)."""
        a, b = x[:, self.kept], x[:, self.moved]
        s, t = self._scale_and_shift(a)
        return torch.cat([a, b * s.exp() + t], 1)[:, self.back], s.sum(1)

    def inverse(self, y: Tensor) -> Tensor:
        a, b = y[:, self.kept], y[:, self.moved]
        s, t = self._scale_and_shift(a)
        return torch.cat([a, (b - t) * (-s).exp()], 1)[:, self.back]

    def _scale_and_shift(self, a: Tensor) -> tuple[Tensor, Tensor]:
        s, t = self.network(a).chunk(2, dim=1)
        return STEEPEST * (s / STEEPEST).tanh(), t


def train_flow(
    data: Any,
    *,
    steps: int = 1200,
    generator: torch.Generator,
    on_step: OnStep | None = None,
    couplings: int = 8,
    width: int = 128,
    batch: int = 128,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-2,
    bounded: bool = True,
) -> Flow:
    """Train a flow by maximum likelihood; its weights are averaged.

    Parameters
    ----------
    data : Tensor or array, shape (N, …)
        Numbers in [-1, 1], at least 2 in a datum; noise is added, see `dequantise`. Any finite
        numbers, and no noise, with ``bounded=False``.
    steps : int
        Number of updates.
    generator : torch.Generator
        Source of the orders, the first weights, the batches and the noise.
    on_step : callable, optional
        ``on_step(step, loss)`` after each update, counted from 0; the loss is -log p(x) in nats per
        number of the datum.
    couplings, width : int
        As in `Flow`.
    batch : int
    learning_rate : float
        At its peak; it rises over the first 5 % of the steps and then falls to 0 as half a cosine.
    weight_decay : float
    bounded : bool
        As in `Flow`.

    Returns
    -------
    Flow

    Raises
    ------
    ValueError
        If data are empty, not finite or (if bounded) outside [-1, 1], or a setting lies outside its
        range.
    FloatingPointError
        If the loss is not finite.
    """
    rows, shape = validation.training_data(data) if _flag(bounded) else _vectors(data)
    validation.settings(steps=steps, batch=batch)
    model = Flow(shape, couplings=couplings, width=width, generator=generator, bounded=bounded)
    _standardise(model, dequantise(rows, generator) if bounded else rows)

    def loss() -> Tensor:
        x = draw_batch(rows, batch, generator)
        if bounded:
            x = dequantise(x, generator)
        return -model.log_density(model.shaped(x)).mean() / model.size

    descend(
        model.parameters(),
        loss,
        steps=steps,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        on_step=on_step,
    )
    return model.finished()


def _standardise(model: Flow, rows: Tensor) -> None:
    """Give each number mean 0 and variance 1 before the couplings."""
    line = (rows / EDGE).atanh() if model.bounded else rows
    deviation = line.std(0, correction=0)
    # Against a number that never changes. Vectors come in any unit, pixels in one.
    least = 1e-3 if model.bounded else 1e-3 * deviation.max().clamp_min(1e-30)
    model.mean.copy_(line.mean(0))
    model.deviation.copy_(deviation.clamp_min(least))


def _vectors(data: Any) -> tuple[Tensor, tuple[int, ...]]:
    """Finite data of shape (N, …) as float32 rows (N, D), and the shape of one datum."""
    array = check.reals(data, "data")
    if array.ndim < 2 or array.size == 0:
        raise ValueError(f"`data` must have shape (N, …) and not be empty, got {array.shape}")
    return torch.from_numpy(array).float().flatten(1), array.shape[1:]


def _flag(bounded: Any) -> bool:
    if not isinstance(bounded, bool):
        raise TypeError(f"`bounded` must be True or False, got {bounded!r}")
    return bounded
