"""Position schemes of attention behind one contract: what each adds, and where it enters.

A scheme can enter attention in four places: added to the input, a rotation of queries and keys, a
term of the logits, a term of the output. Each class here overrides only the places that it uses.

==============  ====================================================================
none            nothing
sinusoidal      sines and cosines of the place, added to the input
learned         a learned vector per place, added to the input
bias            a learned logit per offset
t5              a learned logit per bucket of offsets
alibi           logits that fall with the distance
rope            queries and keys turned by angles proportional to the place
shaw_k          a learned vector per offset, added to the keys
shaw_kv         the same, and one added to the values
xl              Transformer-XL: sinusoids of the offset inside the logits
deberta         content to place and place to content inside the logits
==============  ====================================================================

Notation: i is the query's place, j the key's, both from 0; offset j - i; B sequences, H heads of
width d, n places. Tables learned per offset hold -(M - 1) … M - 1 with M = `max_length`; an offset
beyond counts as the last one. Terms that depend on the offset only are made from 2n - 1 numbers
(`toeplitz`), or from products with 2n - 1 vectors (`skew`), never from n × n × d of them.

For the article https://kexue.fm/archives/9105 and Luo et al., arXiv 2205.13401 (URPE).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib import _checks as check
from lib.neural import linear

__all__ = [
    "ABSOLUTE",
    "SCHEMES",
    "PositionScheme",
    "Sizes",
    "Toeplitz",
    "alibi_slopes",
    "make_scheme",
    "rotate",
    "sinusoidal",
    "skew",
    "t5_bucket",
    "toeplitz",
    "unskew",
]

BASE = 10_000.0  # of the frequencies base^(-2t/d), for rotations and sinusoids


# --- the pieces that schemes are made of ----------------------------------------------------------


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Turn pairs of coordinates: 2t and 2t + 1 are one complex number, multiplied by e^(iφ_t).

    The interleaved layout of RoFormer; Llama pairs t with t + d/2 instead, which is the same after
    a fixed permutation of the coordinates of q and k.

    Parameters
    ----------
    x : Tensor, shape (…, n, d)
    angles : Tensor, shape broadcastable to (…, n, d / 2)
        Of float32, or of float64 for such an x: half precision can't tell places beyond 256 apart.

    Returns
    -------
    Tensor, shape (…, n, d), in the dtype of x

    References
    ----------
    Su et al., RoFormer, arXiv 2104.09864; kexue.fm/archives/8265.
    """
    if x.shape[-1] % 2:
        raise ValueError(f"`x` must have an even last axis, got shape {tuple(x.shape)}")
    wide = x.to(torch.promote_types(x.dtype, torch.float32))  # bfloat16 has no complex numbers
    turned = torch.view_as_complex(wide.unflatten(-1, (-1, 2))) * torch.polar(
        torch.ones_like(angles), angles
    )
    return torch.view_as_real(turned).flatten(-2).to(x.dtype)


def frequencies(width: int, like: Tensor) -> Tensor:
    """base^(-2t/width) for t = 0 … width/2 - 1, on the device of `like`.

    In its dtype, but float32 at least: angles of half precision would be wrong.
    """
    dtype = torch.promote_types(like.dtype, torch.float32)
    t = torch.arange(0, width, 2, dtype=dtype, device=like.device)
    return BASE ** (-t / width)  # (width / 2,)


def sinusoidal(positions: Tensor, width: int) -> Tensor:
    """sin(mω_t) and cos(mω_t) in turn, ω_t = 10000^(-2t/width), for each position m.

    Parameters
    ----------
    positions : Tensor of float32 or float64, shape (n,)
    width : int
        Even.

    Returns
    -------
    Tensor, shape (n, width)
    """
    angle = positions[:, None] * frequencies(width, positions)  # (n, width / 2)
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(-2)


def offsets(n: int, device: torch.device | None = None) -> Tensor:
    """All offsets j - i of n places, from -(n - 1) to n - 1: shape (2n - 1,)."""
    return torch.arange(1 - n, n, device=device)


def toeplitz(values: Tensor) -> Tensor:
    """Matrices whose entry at (i, j) is the value of the offset j - i.

    Parameters
    ----------
    values : Tensor, shape (…, 2n - 1)
        For the offsets -(n - 1) … n - 1.

    Returns
    -------
    Tensor, shape (…, n, n)
    """
    n = (values.shape[-1] + 1) // 2
    return values.unfold(-1, n, 1).flip(-2)  # row s of the unfolded starts at offset s - (n - 1)


def skew(scores: Tensor) -> Tensor:
    """From one score per (place i, offset) to one per (i, j): entry (i, j) is that of j - i.

    Parameters
    ----------
    scores : Tensor, shape (…, n, 2n - 1)
        Columns are the offsets -(n - 1) … n - 1.

    Returns
    -------
    Tensor, shape (…, n, n)
    """
    n = scores.shape[-2]
    if n == 1:
        return scores
    # column j - i + n - 1 of row i is entry i (2n - 2) + (n - 1) + j of the flat matrix
    flat = scores.flatten(-2)[..., n - 1 : -1]  # (…, n (2n - 2))
    return flat.unflatten(-1, (n, 2 * n - 2))[..., :n]


def unskew(weights: Tensor) -> Tensor:
    """The way back: from one weight per (i, j) to one per (i, offset j - i), 0 where there is no j.

    Parameters
    ----------
    weights : Tensor, shape (…, n, n)

    Returns
    -------
    Tensor, shape (…, n, 2n - 1)
    """
    n = weights.shape[-1]
    if n == 1:
        return weights
    flat = F.pad(weights, (0, n - 2)).flatten(-2)  # (…, n (2n - 2))
    return F.pad(flat, (n - 1, 1)).unflatten(-1, (n, 2 * n - 1))


def t5_bucket(
    offset: Tensor, *, buckets: int = 32, max_distance: int = 128, bidirectional: bool = True
) -> Tensor:
    """T5's bucket of each offset: exact near 0, logarithmic up to `max_distance`, then one for all.

    Computed in single precision as in T5, so that the borders fall on the same offsets.

    Parameters
    ----------
    offset : Tensor of int64, any shape
        Key's place minus query's, j - i.
    buckets : int, default=32
        Even; at least 4, or 2 for one direction. For two directions half are for keys ahead.
    max_distance : int, default=128
        From here on all offsets share the last bucket. More than the exact buckets of a direction.
    bidirectional : bool, default=True
        False: all keys ahead (j > i) share bucket 0.

    Returns
    -------
    Tensor of int64, of the shape of `offset`

    References
    ----------
    Raffel et al., arXiv 1910.10683.
    """
    if not isinstance(offset, Tensor) or offset.is_floating_point():
        raise TypeError(f"`offset` must be a tensor of whole numbers, got {_kind(offset)}")
    sides = 2 if bidirectional else 1
    check.whole(buckets, "buckets", 2 * sides)
    if buckets % 2:
        raise ValueError(f"`buckets` must be even, got {buckets}")
    each = buckets // sides  # of one direction
    exact = each // 2
    check.whole(max_distance, "max_distance", exact + 1)
    distance = offset.abs() if bidirectional else -offset.clamp(max=0)
    far = torch.log(distance.clamp(min=exact).float() / exact) / math.log(max_distance / exact)
    bucket = (exact + (far * (each - exact)).long()).clamp(max=each - 1)
    bucket = torch.where(distance < exact, distance, bucket)
    return bucket + each * (offset > 0) if bidirectional else bucket


def alibi_slopes(heads: int) -> Tensor:
    """ALiBi's slope of each head: 2^(-8h/H) for h = 1 … H if H is a power of two.

    For other H: those of the power of two below, c, then every other one of those of 2c.

    Parameters
    ----------
    heads : int

    Returns
    -------
    Tensor of float64, shape (H,)

    References
    ----------
    Press, Smith & Lewis, arXiv 2108.12409.
    """
    check.whole(heads, "heads", 1)
    below = 1 << (heads.bit_length() - 1)
    slopes = [2.0 ** (-8.0 * h / below) for h in range(1, below + 1)]
    between = [2.0 ** (-4.0 * h / below) for h in range(1, 2 * below + 1, 2)]
    return torch.tensor(slopes + between[: heads - below], dtype=torch.float64)


# --- the contract ---------------------------------------------------------------------------------


class Sizes(NamedTuple):
    """What a scheme is built for: its constructor's first argument."""

    width: int
    heads: int
    max_length: int
    causal: bool

    @property
    def head_width(self) -> int:
        """Width d of one head."""
        return self.width // self.heads


class PositionScheme(nn.Module):
    """No position at all, "none"; the others override the places where they enter.

    Parameters
    ----------
    sizes : Sizes
    generator : torch.Generator
        Source of the initial parameters. Learned vectors start with entries of variance 1, learned
        logits at variance 1: the size of the content's own logits.
    """

    def __init__(self, sizes: Sizes, generator: torch.Generator) -> None:
        super().__init__()
        self.sizes = sizes

    def embed(self, n: int) -> Tensor | None:
        """What is added to the input, shape (n, width)."""
        return None

    def rotate(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys as they enter the dot product, both of shape (B, H, n, d)."""
        return q, k

    def logits(self, q: Tensor, k: Tensor) -> Tensor | None:
        """What is added to q·k/√d, shape (B or 1, H, n, n), from q and k before rotation."""
        return None

    def values(self, weights: Tensor) -> Tensor | None:
        """What is added to the output, shape (B, H, n, d), from weights (B, H, n, n)."""
        return None


class Sinusoidal(PositionScheme):
    """Sines and cosines of the place, added to the input (Vaswani et al., arXiv 1706.03762)."""

    def __init__(self, sizes: Sizes, generator: torch.Generator) -> None:
        super().__init__(sizes, generator)
        if sizes.width % 2:
            raise ValueError(f"`width` must be even for sinusoids, got {sizes.width}")
        self.register_buffer("like", torch.empty(0), persistent=False)  # dtype and device

    def embed(self, n: int) -> Tensor:
        exact = torch.promote_types(self.like.dtype, torch.float32)
        m = torch.arange(n, dtype=exact, device=self.like.device)
        return sinusoidal(m, self.sizes.width).to(self.like.dtype)  # (n, width)


class Learned(PositionScheme):
    """A learned vector per place, added to the input; there are `max_length` of them."""

    def __init__(self, sizes: Sizes, generator: torch.Generator) -> None:
        super().__init__(sizes, generator)
        self.table = _normal(sizes.max_length, sizes.width, generator=generator)

    def embed(self, n: int) -> Tensor:
        if n > len(self.table):
            raise ValueError(
                f"`n` must be at most `max_length` = {len(self.table)} for learned positions, "
                f"got {n}"
            )
        return self.table[:n]  # (n, width)


class Bias(PositionScheme):
    """A learned logit per head and offset."""

    def __init__(self, sizes: Sizes, generator: torch.Generator) -> None:
        super().__init__(sizes, generator)
        self.table = _normal(sizes.heads, 2 * sizes.max_length - 1, generator=generator)

    def logits(self, q: Tensor, k: Tensor) -> Tensor:
        return toeplitz(_by_offset(self.table, q.shape[-2]))[None]  # (1, H, n, n)


class T5(PositionScheme):
    """A learned logit per head and bucket of offsets (32 buckets up to distance 128).

    T5 itself does not divide q·k by √d; here the bias stands beside q·k/√d.
    """

    BUCKETS = 32

    def __init__(self, sizes: Sizes, generator: torch.Generator) -> None:
        super().__init__(sizes, generator)
        self.table = _normal(sizes.heads, self.BUCKETS, generator=generator)

    def logits(self, q: Tensor, k: Tensor) -> Tensor:
        bucket = t5_bucket(
            offsets(q.shape[-2], q.device),
            buckets=self.BUCKETS,
            bidirectional=not self.sizes.causal,
        )
        return toeplitz(self.table[:, bucket])[None]  # (1, H, n, n)


class ALiBi(PositionScheme):
    """Logits that fall with the distance, -slope · abs(j - i); nothing is learned."""

    def logits(self, q: Tensor, k: Tensor) -> Tensor:
        slopes = alibi_slopes(self.sizes.heads).to(q)
        return toeplitz(-slopes[:, None] * offsets(q.shape[-2], q.device).abs())[None]


class RoPE(PositionScheme):
    """Queries and keys turned by angles proportional to the place; see :func:`rotate`."""

    def __init__(self, sizes: Sizes, generator: torch.Generator) -> None:
        super().__init__(sizes, generator)
        if sizes.head_width % 2:
            raise ValueError(
                "`width` must be a multiple of 2 * heads for rotary positions, "
                f"got {sizes.width} for {sizes.heads} heads"
            )

    def rotate(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        m = torch.arange(q.shape[-2], device=q.device)
        angles = m[:, None] * frequencies(q.shape[-1], q)  # (n, d / 2)
        return rotate(q, angles), rotate(k, angles)


class Shaw(PositionScheme):
    """A learned vector per offset on the side of the keys, q_i · (k_j + r_(j-i)).

    Shared by the heads, as in Shaw, Uszkoreit & Vaswani, arXiv 1803.02155.
    """

    def __init__(self, sizes: Sizes, generator: torch.Generator) -> None:
        super().__init__(sizes, generator)
        shape = (sizes.head_width, 2 * sizes.max_length - 1)
        self.keys = _normal(*shape, generator=generator)  # transposed: (d, 2M - 1)

    def logits(self, q: Tensor, k: Tensor) -> Tensor:
        n, d = q.shape[-2:]
        return skew((q / math.sqrt(d)) @ _by_offset(self.keys, n))  # (B, H, n, n)


class ShawValues(Shaw):
    """The same, and a learned vector per offset on the side of the values, Σ_j a_ij r_(j-i)."""

    def __init__(self, sizes: Sizes, generator: torch.Generator) -> None:
        super().__init__(sizes, generator)
        self.rows = _normal(*self.keys.shape, generator=generator)  # transposed: (d, 2M - 1)

    def values(self, weights: Tensor) -> Tensor:
        return unskew(weights) @ _by_offset(self.rows, weights.shape[-1]).mT  # (B, H, n, d)


class TransformerXL(PositionScheme):
    """Sinusoids of the offset inside the logits: (q_i + u)·k_j + (q_i + v)·W R_(i-j), over √d.

    Reads as far as one likes: nothing is clipped. Dai et al., arXiv 1901.02860.
    """

    def __init__(self, sizes: Sizes, generator: torch.Generator) -> None:
        super().__init__(sizes, generator)
        if sizes.width % 2:
            raise ValueError(f"`width` must be even for sinusoids, got {sizes.width}")
        self.project = linear(sizes.width, sizes.width, generator)
        del self.project.bias  # W has none in the paper
        self.project.register_parameter("bias", None)
        self.u = _normal(sizes.heads, 1, sizes.head_width, generator=generator)
        self.v = _normal(sizes.heads, 1, sizes.head_width, generator=generator)

    def logits(self, q: Tensor, k: Tensor) -> Tensor:
        n, d = q.shape[-2:]
        exact = torch.promote_types(q.dtype, torch.float32)
        back = -offsets(n, q.device).to(exact)  # i - j, in the order of j - i
        r = self.project(sinusoidal(back, self.sizes.width).to(q.dtype))  # (2n - 1, width)
        r = r.unflatten(-1, (-1, d)).permute(1, 2, 0)  # (H, d, 2n - 1)
        place = skew((q + self.v) @ r)  # (B, H, n, n)
        return (place + self.u @ k.mT) / math.sqrt(d)


class DeBERTa(PositionScheme):
    """Content to place and place to content: q_i·K P_(j-i) + k_j·Q P_(i-j), over √d.

    The paper divides all three terms by √(3d); here it is √d, which a smaller projection of the
    queries undoes. Offsets are named from the looking side: the key sees the query at i - j.
    He et al., arXiv 2006.03654.
    """

    def __init__(self, sizes: Sizes, generator: torch.Generator) -> None:
        super().__init__(sizes, generator)
        self.table = _normal(2 * sizes.max_length - 1, sizes.width, generator=generator)
        self.project = linear(sizes.width, 2 * sizes.width, generator)

    def logits(self, q: Tensor, k: Tensor) -> Tensor:
        n, d = q.shape[-2:]
        table = _by_offset(self.table.mT, n).mT  # (2n - 1, width)
        query, key = self.project(table).unflatten(-1, (2, -1, d)).permute(1, 2, 3, 0)
        content_to_place = skew(q @ key)  # (B, H, n, n); key and query: (H, d, 2n - 1)
        place_to_content = skew(k @ query).mT
        return (content_to_place + place_to_content) / math.sqrt(d)


_CLASSES: dict[str, type[PositionScheme]] = {
    "none": PositionScheme,
    "sinusoidal": Sinusoidal,
    "learned": Learned,
    "bias": Bias,
    "t5": T5,
    "alibi": ALiBi,
    "rope": RoPE,
    "shaw_k": Shaw,
    "shaw_kv": ShawValues,
    "xl": TransformerXL,
    "deberta": DeBERTa,
}
# Names of all schemes.
SCHEMES = tuple(_CLASSES)
# Those that are added to the input, once; all others enter in every layer.
ABSOLUTE = ("sinusoidal", "learned")


def make_scheme(
    name: str,
    *,
    width: int,
    heads: int,
    max_length: int,
    causal: bool,
    generator: torch.Generator,
) -> PositionScheme:
    """A position scheme by its name, one of `SCHEMES`.

    Parameters
    ----------
    name : str
    width, heads : int
        Width of the model, a multiple of the number of heads (of twice as many for "rope").
    max_length : int
        M. "learned" refuses more places; "bias", "shaw_k", "shaw_kv" and "deberta" take offsets
        beyond M - 1 for M - 1; the others extrapolate.
    causal : bool
        Whether keys ahead are hidden; "t5" then spends all its buckets on those behind.
    generator : torch.Generator

    Returns
    -------
    PositionScheme
    """
    check.choice(name, "name", SCHEMES)
    sizes = Sizes(
        check.whole(width, "width", 1),
        check.whole(heads, "heads", 1),
        check.whole(max_length, "max_length", 1),
        bool(causal),
    )
    if width % heads:
        raise ValueError(f"`width` must be a multiple of `heads` = {heads}, got {width}")
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"`generator` must be a torch.Generator, got {_kind(generator)}")
    return _CLASSES[name](sizes, generator)


class Toeplitz(nn.Module):
    """URPE's factor: weights are multiplied by a learned c_ij = g(j - i), one g per head.

    Starts at ones, where it changes nothing. Offsets beyond `max_length` - 1 count as the last.

    Parameters
    ----------
    heads, max_length : int

    Attributes
    ----------
    g : Parameter, shape (H, 2M - 1)
        For the offsets -(M - 1) … M - 1.

    References
    ----------
    Luo et al., Your Transformer May Not be as Powerful as You Expect, arXiv 2205.13401.
    """

    def __init__(self, heads: int, max_length: int) -> None:
        super().__init__()
        check.whole(heads, "heads", 1)
        check.whole(max_length, "max_length", 1)
        self.g = nn.Parameter(torch.ones(heads, 2 * max_length - 1))

    def factor(self, n: int) -> Tensor:
        """C of n places, shape (H, n, n)."""
        return toeplitz(_by_offset(self.g, check.whole(n, "n", 1)))


def _by_offset(table: Tensor, n: int) -> Tensor:
    """From a table (…, 2M - 1) the columns of all offsets of n places: (…, 2n - 1)."""
    most = (table.shape[-1] - 1) // 2  # M - 1
    if n - 1 <= most:
        return table[..., most - n + 1 : most + n]
    return table[..., offsets(n, table.device).clamp(-most, most) + most]


def _normal(*shape: int, generator: torch.Generator) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape, generator=generator))


def _kind(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of {value.dtype}"
    return type(value).__name__
