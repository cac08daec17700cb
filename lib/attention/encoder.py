"""A Transformer encoder whose positions, normalisation, mask and markers are settings.

Small, for experiments on what a position scheme can and cannot express: every scheme of
`lib.attention.positions` with every normalisation of `lib.attention.normalisations`, causal or
not, with or without marker tokens, with or without URPE's factor.

Pre-norm layers, GELU, no dropout (in training it would break the symmetry that is under study).
Notation: B sequences of n tokens, N = n + markers places, H heads of width d.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib import _checks as check
from lib.attention.normalisations import NORMALISATIONS, is_true, normalise
from lib.attention.positions import ABSOLUTE, SCHEMES, PositionScheme, Toeplitz, make_scheme
from lib.neural import linear

__all__ = ["Encoder", "EncoderConfig"]


@dataclass(frozen=True)
class EncoderConfig:
    """Settings of an encoder.

    Attributes
    ----------
    symbols, outputs : int
        Different tokens; numbers put out per token.
    width, heads, layers, feed_forward : int
        Width of the model, a multiple of the heads; width inside the feed-forward parts.
    position : str
        One of `lib.attention.positions.SCHEMES`.
    normalisation : str
        One of `lib.attention.normalisations.NORMALISATIONS`.
    toeplitz : bool
        Whether weights are multiplied by URPE's c_ij = g(j - i), in every layer.
    causal : bool
        Whether a token sees only itself and those before it.
    start, end : bool
        Marker tokens before and after the sequence, part of the model: [CLS] and [SEP].
    same_marker : bool
        Whether the two are one and the same token.
    position_layers : tuple of int, optional
        Layers, from 0, that get the scheme; all unless given. Not for schemes added to the input.
    max_length : int
        Tokens that tables of positions are made for, markers not counted; see
        :func:`lib.attention.make_scheme` for what happens beyond.
    """

    symbols: int = 2
    outputs: int = 1
    width: int = 64
    heads: int = 4
    layers: int = 2
    feed_forward: int = 256
    position: str = "none"
    normalisation: str = "softmax"
    toeplitz: bool = False
    causal: bool = False
    start: bool = False
    end: bool = False
    same_marker: bool = False
    position_layers: tuple[int, ...] | None = None
    max_length: int = 128

    def __post_init__(self) -> None:
        sizes = ("symbols", "outputs", "width", "heads", "layers", "feed_forward", "max_length")
        for name in sizes:
            check.whole(getattr(self, name), name, 1)
        if self.width % self.heads:
            raise ValueError(
                f"`width` must be a multiple of `heads` = {self.heads}, got {self.width}"
            )
        check.choice(self.position, "position", SCHEMES)
        check.choice(self.normalisation, "normalisation", NORMALISATIONS)
        if self.same_marker and not (self.start and self.end):
            raise ValueError("`same_marker` needs both `start` and `end`")
        if self.position_layers is not None:
            if not isinstance(self.position_layers, tuple):
                raise TypeError(
                    f"`position_layers` must be a tuple of layers, got {self.position_layers!r}"
                )
            if self.position in ABSOLUTE:
                raise ValueError(
                    f'`position_layers` must be None for position="{self.position}", '
                    "which is added to the input"
                )
            for layer in self.position_layers:
                check.whole(layer, "position_layers", 0, self.layers - 1)

    @property
    def markers(self) -> int:
        """Places that markers take."""
        return int(self.start) + int(self.end)

    def scheme_of(self, layer: int) -> str:
        """Name of the position scheme inside a layer's attention."""
        skipped = self.position_layers is not None and layer not in self.position_layers
        return "none" if skipped or self.position in ABSOLUTE else self.position


class Encoder(nn.Module):
    """Transformer encoder with exchangeable positions.

    Parameters
    ----------
    config : EncoderConfig
    generator : torch.Generator
        Source of all initial parameters. Encoders of one config can be stacked by
        `torch.func.stack_module_state` and run side by side by `torch.func.vmap`; values of
        tokens and padding that differ between them then go unchecked.

    Examples
    --------
    >>> model = Encoder(EncoderConfig(position="rope"), torch.Generator().manual_seed(0))
    >>> y = model.double()(torch.zeros(1, 32, dtype=torch.int64))  # 32 equal tokens
    >>> bool((y - y[:, :1]).abs().max() < 1e-12)
    True
    """

    def __init__(self, config: EncoderConfig, generator: torch.Generator) -> None:
        super().__init__()
        if not isinstance(config, EncoderConfig):
            raise TypeError(f"`config` must be an EncoderConfig, got {type(config).__name__}")
        self.config = config
        width = config.width
        self.position = _scheme(
            config, config.position if config.position in ABSOLUTE else "none", generator
        )
        self.embedding = _normal(config.symbols, width, generator)
        self.markers = _normal(1 if config.same_marker else config.markers, width, generator)
        self.layers = nn.ModuleList(Layer(config, i, generator) for i in range(config.layers))
        self.norm = nn.LayerNorm(width)
        self.readout = linear(width, config.outputs, generator)

    def forward(self, tokens: Tensor, padding: Tensor | None = None) -> Tensor:
        """Outputs of every token.

        Parameters
        ----------
        tokens : Tensor of int64, shape (B, n)
        padding : Tensor of bool, shape (B, n), optional
            True for real tokens, which come first in every sequence; the end marker follows the
            last of them. Outputs of real tokens are those of the sequence without padding.

        Returns
        -------
        Tensor, shape (B, n, outputs)
        """
        return self.readout(self.hidden(tokens, padding))

    def hidden(self, tokens: Tensor, padding: Tensor | None = None) -> Tensor:
        """Vectors that the outputs are read from, shape (B, n, width)."""
        x, _ = self._run(tokens, padding)
        first = int(self.config.start)
        return x[:, first : first + tokens.shape[1]]

    def attention(self, tokens: Tensor, padding: Tensor | None = None) -> list[Tensor]:
        """Weights of every layer, shape (B, H, N, N), with URPE's factor where there is one."""
        return self._run(tokens, padding)[1]

    def _run(self, tokens: Tensor, padding: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """Vectors of all N places (B, N, width) and the weights of all layers."""
        self._check(tokens, padding)
        x = self._embed(tokens, padding)  # (B, N, width)
        mask, count = self._visible(x.shape[1], padding, x.device)
        weights = []
        for layer in self.layers:
            x, a = layer(x, mask, count)
            weights.append(a)
        return self.norm(x), weights

    def _embed(self, tokens: Tensor, padding: Tensor | None) -> Tensor:
        """Tokens between their markers, with absolute positions: (B, N, width)."""
        x = F.embedding(tokens, self.embedding)  # (B, n, width)
        if self.config.end:
            x = self._with_end(x, padding)
        if self.config.start:
            x = torch.cat([self.markers[:1].expand(len(x), 1, -1), x], 1)
        places = self.position.embed(x.shape[1])
        return x if places is None else x + places

    def _with_end(self, x: Tensor, padding: Tensor | None) -> Tensor:
        """The end marker put after the last real token of x: (B, n + 1, width)."""
        end = self.markers[-1:]  # (1, width)
        x = torch.cat([x, end.expand(len(x), 1, -1)], 1)
        if padding is None:
            return x
        here = torch.arange(x.shape[1], device=x.device) == padding.sum(1)[:, None]
        return torch.where(here[..., None], end, x)

    def _visible(
        self, places: int, padding: Tensor | None, device: torch.device
    ) -> tuple[Tensor | None, Tensor | int]:
        """Which key a query sees, (B or 1, 1, N or 1, N); and the keys of a whole sequence."""
        mask, count = None, places
        if self.config.causal:
            mask = torch.ones(places, places, dtype=torch.bool, device=device).tril()[None, None]
        if padding is not None:
            count = padding.sum(1)[:, None, None, None] + self.config.markers  # (B, 1, 1, 1)
            real = torch.arange(places, device=device) < count  # (B, 1, 1, N)
            mask = real if mask is None else mask & real
        return mask, count

    def _check(self, tokens: Tensor, padding: Tensor | None) -> None:
        check_tokens(tokens, self.config.symbols)
        if self.config.position == "learned" and tokens.shape[1] > self.config.max_length:
            raise ValueError(
                f"`tokens` must have at most `max_length` = {self.config.max_length} columns for "
                f"learned positions, got {tokens.shape[1]}"
            )
        if padding is not None:
            _check_padding(padding, tokens)


class Layer(nn.Module):
    """One pre-norm layer: x + attention(norm(x)), then x + feed-forward(norm(x))."""

    def __init__(self, config: EncoderConfig, index: int, generator: torch.Generator) -> None:
        super().__init__()
        width, shrink = config.width, (2 * config.layers) ** -0.5  # residual branches as in GPT-2
        self.heads, self.normalisation = config.heads, config.normalisation
        self.scheme = _scheme(config, config.scheme_of(index), generator)
        self.toeplitz = (
            Toeplitz(config.heads, config.max_length + config.markers) if config.toeplitz else None
        )
        self.before_attention, self.before_feed = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query_key_value = linear(width, 3 * width, generator)
        self.out = linear(width, width, generator, gain=shrink)
        self.up = linear(width, config.feed_forward, generator)
        self.down = linear(config.feed_forward, width, generator, gain=shrink)

    def forward(self, x: Tensor, mask: Tensor | None, count: Tensor | int) -> tuple[Tensor, Tensor]:
        """Next x (B, N, width), and the weights (B, H, N, N)."""
        qkv = self.query_key_value(self.before_attention(x))  # (B, N, 3 width)
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, H, N, d)
        weights = self.weights(q, k, mask, count)
        o = weights @ v  # (B, H, N, d)
        extra = self.scheme.values(weights)
        o = o if extra is None else o + extra
        x = x + self.out(o.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.before_feed(x)))), weights

    def weights(self, q: Tensor, k: Tensor, mask: Tensor | None, count: Tensor | int) -> Tensor:
        """Attention weights (B, H, N, N) of queries and keys (B, H, N, d)."""
        turned_q, turned_k = self.scheme.rotate(q, k)
        logits = (turned_q / math.sqrt(q.shape[-1])) @ turned_k.mT  # (B, H, N, N)
        extra = self.scheme.logits(q, k)
        logits = logits if extra is None else logits + extra
        a = normalise(logits, self.normalisation, mask, count=count)
        return a if self.toeplitz is None else a * self.toeplitz.factor(q.shape[-2])


def _scheme(config: EncoderConfig, name: str, generator: torch.Generator) -> PositionScheme:
    """Tables have room for the markers too."""
    return make_scheme(
        name,
        width=config.width,
        heads=config.heads,
        max_length=config.max_length + config.markers,
        causal=config.causal,
        generator=generator,
    )


def _normal(rows: int, width: int, generator: torch.Generator) -> nn.Parameter:
    return nn.Parameter(torch.randn(rows, width, generator=generator))


# --- what a caller hands in -----------------------------------------------------------------------


def check_tokens(tokens: Tensor, symbols: int) -> None:
    if not isinstance(tokens, Tensor):
        raise TypeError(f"`tokens` must be a torch.Tensor, got {type(tokens).__name__}")
    if tokens.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"`tokens` must be of int64, got {tokens.dtype}")
    if tokens.ndim != 2 or tokens.numel() == 0:
        raise ValueError(
            f"`tokens` must have shape (B, n) and not be empty, got {tuple(tokens.shape)}"
        )
    bad = (tokens < 0) | (tokens >= symbols)
    if is_true(bad.any()):
        raise ValueError(
            f"`tokens` must lie in 0 … {symbols - 1}, got {tokens[bad].flatten()[0].item()}"
        )


def _check_padding(padding: Tensor, tokens: Tensor) -> None:
    if not isinstance(padding, Tensor) or padding.dtype != torch.bool:
        kind = padding.dtype if isinstance(padding, Tensor) else type(padding).__name__
        raise TypeError(f"`padding` must be a tensor of bool, True for real tokens, got {kind}")
    if padding.shape != tokens.shape:
        raise ValueError(
            f"`padding` must have the shape of `tokens`, {tuple(tokens.shape)}, "
            f"got {tuple(padding.shape)}"
        )
    if is_true((~padding[:, 0]).any()):
        raise ValueError("`padding` must leave every sequence at least its first token")
    if is_true((padding[:, 1:] & ~padding[:, :-1]).any()):
        raise ValueError("`padding` must have all real tokens (True) before the others (False)")
