"""Heads that score every span of a sentence for every kind: GlobalPointer and its lean variant.

Each turns the states of an encoder, (B, n, D), into a table of scores (B, K, n, n); a span is
predicted where its score is above 0 (:func:`lib.spans.decode`). Cells that are no spans get
scores as well, finite ones: what counts is said by a mask (:func:`lib.spans.span_mask`).

Sources: https://kexue.fm/archives/8373, https://kexue.fm/archives/8877 and Su et al., Global
Pointer, arXiv 2208.03054. Left out: the articles' code adds -10^12 to cells that are no spans, and
halves the second part of the lean variant's scores.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lib import _checks as check
from lib.attention.positions import frequencies, rotate
from lib.neural import linear

__all__ = ["EfficientGlobalPointer", "GlobalPointer"]


class _SpanHead(nn.Module):
    """What both heads share: sizes and checks, dot products of all pairs of places."""

    def __init__(self, width: int, kinds: int, head_width: int, rope: bool) -> None:
        super().__init__()
        self.width = check.whole(width, "width", 1)
        self.kinds = check.whole(kinds, "kinds", 1)
        self.head_width = check.whole(head_width, "head_width", 1)
        if not isinstance(rope, bool):
            raise TypeError(f"`rope` must be True or False, got {rope!r}")
        if rope and self.head_width % 2:
            raise ValueError(
                f"`head_width` must be even for rotary positions, got {self.head_width}"
            )
        self.rope = rope

    def _products(self, q: Tensor, k: Tensor) -> Tensor:
        """q_i · k_j / √d, both turned by their places if so wished: (…, n, d) to (…, n, n)."""
        if self.rope:
            at = torch.arange(q.shape[-2], device=q.device)
            angles = at[:, None] * frequencies(self.head_width, q)  # (n, d / 2)
            q, k = rotate(q, angles), rotate(k, angles)
        return (q / math.sqrt(self.head_width)) @ k.mT  # q is smaller than the table

    def extra_repr(self) -> str:
        """Sizes, for printing."""
        return (
            f"width={self.width}, kinds={self.kinds}, head_width={self.head_width}, "
            f"rope={self.rope}"
        )


class GlobalPointer(_SpanHead):
    r"""One query and one key per kind: s_α(i, j) = (R_i q_{i,α}) · (R_j k_{j,α}) / √d.

    q_{i,α} and k_{i,α} are affine in the state h_i; R_i turns pairs of coordinates by angles
    proportional to i, so that the score depends on places through j - i alone. One more kind costs
    2Dd weights and 2d biases.

    Parameters
    ----------
    width : int
        D, the width of the states.
    kinds : int
        K.
    head_width : int
        d, even with rotary positions.
    generator : torch.Generator
        Source of the first weights, normal with variance 1 / D; biases start at 0.
    rope : bool, default=True
        False leaves the R out: scores then know of places only what the states do.

    Raises
    ------
    TypeError, ValueError
        If a size is not a positive whole number or `head_width` is odd with rotary positions.

    References
    ----------
    https://kexue.fm/archives/8373

    Examples
    --------
    >>> head = GlobalPointer(8, kinds=3, head_width=4, generator=torch.Generator().manual_seed(0))
    >>> head(torch.ones(2, 5, 8)).shape
    torch.Size([2, 3, 5, 5])
    """

    def __init__(
        self,
        width: int,
        kinds: int,
        head_width: int,
        generator: torch.Generator,
        *,
        rope: bool = True,
    ) -> None:
        super().__init__(width, kinds, head_width, rope)
        check.generator(generator)
        self.project = linear(self.width, 2 * self.kinds * self.head_width, generator)

    def forward(self, hidden: Tensor) -> Tensor:
        """Scores (B, K, n, n) of states (B, n, D).

        Raises
        ------
        TypeError, ValueError
            If the states have another width, are not of floating dtype, are empty or not finite.
        """
        check_states(hidden, self.width)
        both = self.project(hidden).unflatten(-1, (self.kinds, 2, self.head_width))
        q, k = both.permute(3, 0, 2, 1, 4)  # (B, K, n, d) each
        return self._products(q, k)


class EfficientGlobalPointer(_SpanHead):
    r"""Where spans are is shared, what they are costs a vector per kind.

    s_α(i, j) = (R_i q_i) · (R_j k_j) / √d + w_α · [q_i; k_i; q_j; k_j] with q and k affine in the
    states and shared by all kinds. The second part uses q and k as they are before they are
    turned. One more kind costs 4d weights and no bias.

    Parameters
    ----------
    width, kinds, head_width, generator, rope
        As in :class:`GlobalPointer`. The w_α start normal with variance 1 / (4d).

    Raises
    ------
    TypeError, ValueError
        As in :class:`GlobalPointer`.

    References
    ----------
    https://kexue.fm/archives/8877
    """

    def __init__(
        self,
        width: int,
        kinds: int,
        head_width: int,
        generator: torch.Generator,
        *,
        rope: bool = True,
    ) -> None:
        super().__init__(width, kinds, head_width, rope)
        check.generator(generator)
        self.project = linear(self.width, 2 * self.head_width, generator)
        rows = torch.randn(self.kinds, 4 * self.head_width, generator=generator)
        self.w = nn.Parameter(rows / math.sqrt(4 * self.head_width))

    def forward(self, hidden: Tensor) -> Tensor:
        """Scores (B, K, n, n) of states (B, n, D).

        Raises
        ------
        TypeError, ValueError
            As in :meth:`GlobalPointer.forward`.
        """
        check_states(hidden, self.width)
        both = self.project(hidden)  # [q_i; k_i], shape (B, n, 2d)
        q, k = both.chunk(2, -1)
        # w_α · [q_i; k_i; q_j; k_j] is a number of i plus a number of j: no (n, n, 4d) is made
        first, last = (both @ half.mT for half in self.w.chunk(2, -1))  # (B, n, K)
        where = self._products(q, k)[:, None]  # (B, 1, n, n)
        return where + first.mT[..., None] + last.mT[..., None, :]


def check_states(hidden: Tensor, width: int) -> None:
    """States (B, n, D) of floating dtype, finite unless `torch.func.vmap` hides their values."""
    if not isinstance(hidden, Tensor) or not hidden.is_floating_point():
        kind = hidden.dtype if isinstance(hidden, Tensor) else type(hidden).__name__
        raise TypeError(f"`hidden` must be a tensor of floating dtype, got {kind}")
    if hidden.ndim != 3 or hidden.shape[-1] != width or hidden.numel() == 0:
        raise ValueError(
            f"`hidden` must have shape (B, n, {width}), none of them 0, got {tuple(hidden.shape)}"
        )
    try:
        finite = check.all_finite(hidden.detach())
    except RuntimeError:
        return
    if not finite:
        raise ValueError(f"`hidden` must be finite, got {check.not_finite(hidden)}")
