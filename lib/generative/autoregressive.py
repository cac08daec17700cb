"""Masked autoregression: every conditional of a sequence of symbols in one pass of one network.

MADE of Germain et al. (1502.03509), for positions 0 … M - 1 with symbols 0 … K - 1:

    log p(c) = Σ_i log p(c_i | c_0 … c_{i-1}).

Each hidden unit has a degree d and reads only units of at most that degree, so that it depends on
positions 0 … d; the logits of position i read units of degree below i. Left out: orders other than
the given one, and ensembles over them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib import _checks as check
from lib.generative import _validation as validation
from lib.neural import linear

__all__ = ["MADE"]


class MADE(nn.Module):
    """Logits of all conditionals: symbols (N, M) -> logits (N, M, K).

    h = A u(c), then h <- h + B silu(h) in each block, then the logits C silu(h), with A, B and C
    affine and masked. The inputs u tell of each symbol whether it is k, for k = 0 … K - 1; where
    symbols have an order, whether it is at least k, so that neighbours look alike.

    Parameters
    ----------
    positions : int
        M.
    symbols : int
        K.
    width : int
        Hidden units.
    blocks : int
    ordered : bool
        Whether symbols are levels of something.
    dropout : float in [0, 1)
        Share of the hidden units that :meth:`loss` leaves out before C, against learning by heart.
    generator : torch.Generator
        Of the first weights.
    """

    def __init__(
        self,
        positions: int,
        symbols: int,
        *,
        width: int,
        blocks: int = 1,
        ordered: bool = False,
        dropout: float = 0.0,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        validation.settings(positions=positions, width=width, blocks=blocks)
        validation.settings(2, symbols=symbols)
        check.generator(generator)
        self.positions, self.symbols = positions, symbols
        self.ordered, self.dropout = ordered, validation.share(dropout, "dropout")
        degree = torch.arange(width) % max(positions - 1, 1)
        position = torch.arange(positions).repeat_interleave(symbols)
        self.register_buffer("reads_symbols", (position <= degree[:, None]).float())
        self.register_buffer("reads_hidden", (degree <= degree[:, None]).float())
        self.register_buffer("leaves", (degree < position[:, None]).float())
        gain = math.sqrt(2.0 if ordered else symbols)  # of K inputs about half are 1, or only one
        self.enter = linear(positions * symbols, width, generator, gain)
        self.blocks = nn.ModuleList(
            linear(width, width, generator, math.sqrt(2.0)) for _ in range(blocks)
        )
        self.leave = linear(width, positions * symbols, generator, gain=0.1)

    def forward(self, codes: Tensor) -> Tensor:
        """Logits (N, M, K) of p(c_i | c_0 … c_{i-1}) for symbols (N, M)."""
        return self._logits(self._hidden(self._checked(codes)))

    def log_probability(self, codes: Tensor) -> Tensor:
        """log p(c) in nats of symbols (N, M): shape (N,)."""
        codes = self._checked(codes)
        return -_nats(self._logits(self._hidden(codes)), codes).sum(1)

    def loss(self, codes: Tensor, generator: torch.Generator) -> Tensor:
        """Mean nats per symbol of (N, M), with dropout."""
        h = self._hidden(codes)
        if self.dropout > 0.0:
            kept = torch.rand(h.shape, generator=generator) >= self.dropout
            h = h * kept / (1.0 - self.dropout)
        return _nats(self._logits(h), codes).mean()

    @torch.no_grad()
    def start_from(self, codes: Tensor) -> None:
        """Set the logits' biases to the log frequencies of each position's symbols in (N, M).

        Only context is left to learn; and position 0, which has none, is learned at once.
        """
        counts = F.one_hot(self._checked(codes), self.symbols).sum(0)  # (M, K)
        shares = (counts + 0.5) / (len(codes) + 0.5 * self.symbols)  # no symbol is impossible
        self.leave.bias.copy_(shares.log().flatten())

    @torch.no_grad()
    def sample(
        self,
        n: int,
        generator: torch.Generator,
        on_position: Callable[[int, Tensor], object] | None = None,
    ) -> Tensor:
        """Draw n sequences (n, M), one position after another: M passes.

        ``on_position(i, codes)`` after each, where symbols beyond position i are still 0.
        """
        n, generator = check.whole(n, "n", 1), check.generator(generator)
        codes = torch.zeros(n, self.positions, dtype=torch.int64)
        for i in range(self.positions):
            p = self._logits(self._hidden(codes))[:, i].softmax(-1)  # (n, K)
            codes[:, i] = torch.multinomial(p, 1, generator=generator)[:, 0]
            if on_position is not None:
                on_position(i, codes.clone())
        return codes

    def _checked(self, codes: Tensor) -> Tensor:
        return validation.symbols(codes, "codes", self.positions, self.symbols)

    def _hidden(self, codes: Tensor) -> Tensor:
        symbols = torch.arange(self.symbols)
        u = codes[..., None] >= symbols if self.ordered else codes[..., None] == symbols
        h = _masked(self.enter, self.reads_symbols, u.flatten(1).to(self.leave.weight.dtype))
        for block in self.blocks:
            h = h + _masked(block, self.reads_hidden, F.silu(h))
        return F.silu(h)

    def _logits(self, h: Tensor) -> Tensor:
        return _masked(self.leave, self.leaves, h).unflatten(1, (self.positions, self.symbols))


def _masked(layer: nn.Linear, mask: Tensor, x: Tensor) -> Tensor:
    return F.linear(x, layer.weight * mask, layer.bias)


def _nats(logits: Tensor, codes: Tensor) -> Tensor:
    """-log p of each symbol: logits (N, M, K), symbols (N, M) -> (N, M)."""
    return F.cross_entropy(logits.movedim(-1, 1), codes, reduction="none")
