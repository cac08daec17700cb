"""The trunk: a small Transformer encoder, pretrained to guess hidden tokens of Python source.

Pre-norm blocks with rotary positions, GELU, no dropout; all windows are full, so there is no mask.
The output layer is the embedding once more. Notation: B windows of n tokens, width D, H heads of
width d = D / H, V words.

The weights come with the book, in half precision: one safetensors file that also holds the settings
and the words. ``python -m lib.tuning.pretrain`` makes it again; the card beside it, ``trunk.md``,
says how it came about.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from lib import _checks as check
from lib.attention.encoder import check_tokens
from lib.attention.positions import frequencies, rotate
from lib.neural import linear

__all__ = [
    "CHECKPOINT",
    "Block",
    "Trunk",
    "TrunkConfig",
    "load_trunk",
    "save_trunk",
    "stored_words",
    "write_whole",
]

CHECKPOINT = Path(__file__).with_name("trunk.safetensors")

_KEY = "trunk"  # one entry of metadata: safetensors writes several in an order of its own


@dataclass(frozen=True)
class TrunkConfig:
    """Sizes of a trunk.

    Attributes
    ----------
    vocabulary : int
        Different tokens, V.
    width, heads : int
        D, and how many heads share it: each gets an even number of coordinates.
    layers : int
        Blocks.
    feed_forward : int
        Width inside the feed-forward parts.
    """

    vocabulary: int
    width: int = 96
    heads: int = 4
    layers: int = 6
    feed_forward: int = 384

    def __post_init__(self) -> None:
        for field in fields(self):
            check.whole(getattr(self, field.name), field.name, 1)
        _check_heads(self.width, self.heads)


class Block(nn.Module):
    """One pre-norm block: x + attention(norm(x)), then x + feed-forward(norm(x)).

    Parameters
    ----------
    width, heads, feed_forward : int
        As in :class:`TrunkConfig`.
    generator : torch.Generator
        Source of all initial parameters.
    gain : float
        Factor on the initial weights of the two layers that add to x.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        feed_forward: int,
        generator: torch.Generator,
        *,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        for name, value in (("width", width), ("heads", heads), ("feed_forward", feed_forward)):
            check.whole(value, name, 1)
        _check_heads(width, heads)
        check.generator(generator)
        self.heads = heads
        self.before_attention, self.before_feed = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value = (linear(width, width, generator) for _ in range(3))
        self.out = linear(width, width, generator, gain=gain)
        self.up = linear(width, feed_forward, generator)
        self.down = linear(feed_forward, width, generator, gain=gain)

    def forward(self, x: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Next states of x, shape (B, n, D), in the same shape.

        `tokens`, of bool and shape (B, n), is True where there is one; to the other places, the
        padding, no token looks.
        """
        x = x + self.attention(self.before_attention(x), tokens)
        return x + self.down(F.gelu(self.up(self.before_feed(x))))

    def attention(self, x: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Every token looks at all n of its window: (B, n, D) to (B, n, D)."""
        q, k, v = (self._split(part(x)) for part in (self.query, self.key, self.value))
        angles = _angles(q)
        seen = None if tokens is None else tokens[:, None, None]  # (B, 1, 1, n), by every query
        o = F.scaled_dot_product_attention(rotate(q, angles), rotate(k, angles), v, seen)
        return self.out(o.transpose(1, 2).flatten(2))  # of (B, H, n, d)

    def _split(self, x: Tensor) -> Tensor:
        """Coordinates dealt to the heads: (B, n, D) to (B, H, n, d)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Trunk(nn.Module):
    """A masked language model.

    Parameters
    ----------
    config : TrunkConfig
    generator : torch.Generator
        Source of all initial parameters.

    Attributes
    ----------
    embedding : nn.Embedding
        One vector per word, shape (V, D); the output layer, too.
    blocks : nn.ModuleList of Block
    norm : nn.LayerNorm
        After the last block.

    Examples
    --------
    >>> config = TrunkConfig(vocabulary=10, width=8, heads=2, layers=1, feed_forward=16)
    >>> trunk = Trunk(config, torch.Generator().manual_seed(0))
    >>> hidden = trunk(torch.tensor([[1, 2, 3]]))
    >>> hidden.shape, trunk.logits(hidden).shape
    (torch.Size([1, 3, 8]), torch.Size([1, 3, 10]))
    """

    def __init__(self, config: TrunkConfig, generator: torch.Generator) -> None:
        super().__init__()
        if not isinstance(config, TrunkConfig):
            raise TypeError(f"`config` must be a TrunkConfig, got {type(config).__name__}")
        check.generator(generator)
        self.config = config
        self.embedding = nn.utils.skip_init(nn.Embedding, config.vocabulary, config.width)
        nn.init.normal_(self.embedding.weight, generator=generator)
        gain = (2 * config.layers) ** -0.5  # residual branches as in GPT-2
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads, config.feed_forward, generator, gain=gain)
            for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.width)

    def embed(self, tokens: Tensor) -> Tensor:
        """What enters the first block, shape (B, n, D), for tokens of int64, shape (B, n)."""
        check_tokens(tokens, self.config.vocabulary)
        return self.embedding(tokens)

    def forward(self, tokens: Tensor) -> Tensor:
        """States after the last norm.

        Parameters
        ----------
        tokens : Tensor of int64, shape (B, n)
            Full windows, of any length.

        Returns
        -------
        Tensor, shape (B, n, D)
        """
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of all words for states (…, D), shape (…, V): ⟨h, E_w⟩ / √D."""
        return F.linear(hidden, self.embedding.weight) / math.sqrt(self.config.width)


# --- the file -------------------------------------------------------------------------------------


def save_trunk(trunk: Trunk, words: Sequence[str], path: str | Path = CHECKPOINT) -> None:
    """Write weights in half precision, settings and words into one file, whole or not at all.

    Parameters
    ----------
    trunk : Trunk
    words : sequence of V str
        A word's place is its token.
    path : path
        A safetensors file; one that is there is replaced.

    Raises
    ------
    ValueError
        If there is not one word per token, a word comes twice, or a weight is NaN or too large
        for half precision.
    """
    if not isinstance(trunk, Trunk):
        raise TypeError(f"`trunk` must be a Trunk, got {type(trunk).__name__}")
    words = list(words)
    if not all(isinstance(w, str) for w in words) or len(set(words)) != len(words):
        raise ValueError("`words` must be different strings")
    if len(words) != trunk.config.vocabulary:
        raise ValueError(f"`words` must be {trunk.config.vocabulary} strings, got {len(words)}")
    weights = {name: w.detach().half().contiguous() for name, w in trunk.state_dict().items()}
    for name, weight in weights.items():
        if not torch.isfinite(weight).all():
            raise ValueError(f"`trunk` must be finite in half precision, {name} is not")
    about = json.dumps({"config": asdict(trunk.config), "words": words})
    write_whole(Path(path), save(weights, {_KEY: about}))


def load_trunk(path: str | Path = CHECKPOINT) -> Trunk:
    """The pretrained trunk, in single precision and evaluation mode.

    Parameters
    ----------
    path : path
        The file that comes with the book, unless given.

    Raises
    ------
    FileNotFoundError
        If it is not there.
    ValueError
        If it is not whole, or its weights do not fit its settings.
    """
    config, _, weights = _read(Path(path))
    trunk = Trunk(config, torch.Generator())
    wanted = trunk.state_dict()
    for name in wanted.keys() ^ weights.keys():
        what = "lacks" if name in wanted else "should not hold"
        raise ValueError(f"`path` must be a trunk's file, but {path} {what} {name}")
    for name, weight in weights.items():
        if weight.shape != wanted[name].shape:
            raise ValueError(
                f"`path` must hold weights that fit its settings: {name} should have shape "
                f"{tuple(wanted[name].shape)}, got {tuple(weight.shape)} in {path}"
            )
        if not torch.isfinite(weight).all():
            raise ValueError(f"`path` must hold finite weights, {name} in {path} is not")
    trunk.load_state_dict(weights)
    return trunk.eval()


def stored_words(path: str | Path = CHECKPOINT) -> tuple[str, ...]:
    """The words of a trunk's file; a word's place is its token.

    Parameters
    ----------
    path : path
        The file that comes with the book, unless given.

    Raises
    ------
    FileNotFoundError, ValueError
        As :func:`load_trunk`.
    """
    return _read(Path(path))[1]


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that nobody ever sees half of it: beside its place first, then moved there.

    Parameters
    ----------
    path : Path
        In a folder that exists.
    content : bytes
    """
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(beside, 0o644)  # mkstemp's files are for their owner alone
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise


def _read(path: Path) -> tuple[TrunkConfig, tuple[str, ...], dict[str, Tensor]]:
    """Settings, words and weights of a file."""
    if not path.is_file():
        raise FileNotFoundError(
            f"no trunk at {path}; `python -m lib.tuning.pretrain` trains it in some minutes"
        )
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"`path` must be a whole safetensors file, got {path}: {error}") from error
    config, words = _about(about.get(_KEY, ""), path)
    return config, words, {name: w.float() for name, w in weights.items()}


def _about(text: str, path: Path) -> tuple[TrunkConfig, tuple[str, ...]]:
    """Settings and words as the metadata have them."""
    try:
        about: dict[str, Any] = json.loads(text)
        config, words = TrunkConfig(**about["config"]), tuple(about["words"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"`path` must hold a trunk's settings and words, {path} does not: {error}"
        ) from error
    if len(words) != config.vocabulary:
        raise ValueError(
            f"`path` must hold one word per token, {config.vocabulary}, got {len(words)} in {path}"
        )
    return config, words


# --- shared ---------------------------------------------------------------------------------------


def _angles(x: Tensor) -> Tensor:
    """m ω_t for every place m and pair t of x (…, n, d): shape (n, d / 2)."""
    places = torch.arange(x.shape[-2], device=x.device)
    return places[:, None] * frequencies(x.shape[-1], x)


def _check_heads(width: int, heads: int) -> None:
    if width % (2 * heads):
        raise ValueError(
            f"`width` must be a multiple of 2 * `heads` = {2 * heads}, for rotary positions, "
            f"got {width}"
        )
