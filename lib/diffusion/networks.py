"""Small networks that predict the noise: model(x, t) -> ε, for t in 1 … T.

- `NoiseMLP` for points and flattened small images: at 8 × 8 pixels it learns faster than a U-Net;
- `UNet`, a small convolutional one, for images whose sides are multiples of 4.

Both read time the same way (`TimeFeatures`) and use it the same way, as a factor on hidden units;
both add g(t) x to what they predict, for the best *linear* guess of ε is a multiple of x, and a
network whose layers normalise cannot see how long x is.
First weights come from the generator handed in; no global seed is touched. Left out: attention,
dropout, conditions.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.diffusion import _tensors as tensors
from lib.diffusion import _validation as check
from lib.neural import conv, linear

__all__ = ["NoiseMLP", "TimeEmbedding", "TimeFeatures", "UNet"]

TimeEmbedding = Literal["sinusoidal", "learned"]
FASTEST = 30.0  # radians over the whole schedule; with 10 or 100 digits come out as well


class TimeFeatures(nn.Module):
    """Features of time that networks read: (batch,) -> (batch, features).

    "sinusoidal": √2 sin(ω t/T), √2 cos(ω t/T) with ω geometric from 1 to 30 radians, fixed, for
    any real t; only t/T matters, so a network trained at T = 1000 understands T = 100.
    "learned": a row of a trained table for each whole t from 1 to T, at first standard normal; rows
    of neighbouring times have nothing in common but what training teaches them.

    Parameters
    ----------
    features : int
        Even number of features, each with mean square 1.
    T : int
        Number of steps of the schedule.
    kind : {"sinusoidal", "learned"}
    generator : torch.Generator
        Of the table.
    """

    def __init__(
        self, features: int, T: int, kind: TimeEmbedding, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.features = check.whole(features, "time_features", 2)
        if self.features % 2:
            raise ValueError(f"`time_features` must be even, got {features}")
        self.T = check.whole(T, "T", 1)
        self.kind = check.choice(kind, "time_embedding", get_args(TimeEmbedding))
        if self.kind == "learned":
            table = torch.randn(self.T, self.features, generator=generator)
            self.table = nn.Parameter(table)
        else:
            omega = torch.logspace(0.0, math.log10(FASTEST), self.features // 2)
            self.register_buffer("omega", omega)

    def forward(self, t: Tensor) -> Tensor:
        if self.kind == "sinusoidal":
            angle = (t.to(self.omega.dtype) / self.T)[:, None] * self.omega  # (B, features / 2)
            return math.sqrt(2.0) * torch.cat([angle.sin(), angle.cos()], dim=1)
        if t.is_floating_point():
            raise TypeError(f"`t` must be whole numbers for a learned embedding, got {t.dtype}")
        if ((t < 1) | (t > self.T)).any():
            raise ValueError(f"`t` must lie between 1 and T = {self.T}, got {t.tolist()}")
        return self.table[t - 1]


class NoiseMLP(nn.Module):
    """ε by a residual multilayer perceptron, whose hidden units time turns up and down.

    h = A x; in each block h <- h + D (s(t) ⊙ silu(U norm(h))); ε = C norm(h) + g(t) x. Here norm is
    LayerNorm without parameters, s and g are functions of `TimeFeatures`; A, U, D, C are affine.

    Parameters
    ----------
    dim : int
        Numbers in one datum; x may have any shape (batch, …) with that many, and ε has its shape.
    width : int
        Length of h.
    blocks : int
    time_features : int
    time_embedding : {"sinusoidal", "learned"}
    T : int
        Number of steps of the schedule, the scale of t.
    generator : torch.Generator
        Of the first weights; the last map C starts near 0.

    Examples
    --------
    >>> model = NoiseMLP(2, width=32, generator=torch.Generator().manual_seed(0))
    >>> model(torch.zeros(5, 2), torch.tensor([1, 10, 100, 500, 1000])).shape
    torch.Size([5, 2])
    """

    def __init__(
        self,
        dim: int,
        *,
        width: int = 192,
        blocks: int = 3,
        time_features: int = 64,
        time_embedding: TimeEmbedding = "sinusoidal",
        T: int = 1000,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        g = tensors.generator(generator)
        self.dim = check.whole(dim, "dim", 1)
        self.width = check.whole(width, "width", 1)
        self.blocks = check.whole(blocks, "blocks", 1)
        self.time = TimeFeatures(time_features, T, time_embedding, g)
        self.gates = _Gates(time_features, width * blocks, g)
        self.direct = linear(time_features, 1, g, gain=0.01)
        self.enter = linear(dim, width, g)
        self.up = nn.ModuleList(linear(width, width, g, math.sqrt(2.0)) for _ in range(blocks))
        self.down = nn.ModuleList(linear(width, width, g, blocks**-0.5) for _ in range(blocks))
        self.leave = linear(width, dim, g, gain=0.01)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        flat = x.flatten(1)  # (B, …) -> (B, dim)
        if flat.shape[1] != self.dim:
            raise ValueError(f"`x` must have {self.dim} numbers each, got shape {tuple(x.shape)}")
        time = self.time(t)  # (B, time_features)
        gates = self.gates(time).split(self.width, dim=1)  # blocks × (B, width)
        h = self.enter(flat)
        for gate, up, down in zip(gates, self.up, self.down, strict=True):
            h = h + down(F.silu(up(_norm(h))) * gate)
        eps = torch.addcmul(self.leave(_norm(h)), self.direct(time), flat)
        return eps.view(x.shape)


class UNet(nn.Module):
    """ε by a small convolutional U-Net with three resolutions: full, half, quarter.

    One residual block per resolution on the way down, one on the way up, which also reads what the
    way down left at its resolution. Blocks are GroupNorm, SiLU, 3 × 3 convolution, twice, with time
    as a factor on the channels between.

    Parameters
    ----------
    channels : int
        Of x, shape (batch, channels, H, W) with H and W multiples of 4; without that axis,
        (batch, H, W), for channels = 1.
    base : int
        Channels at full resolution, a multiple of 8; twice as many below.
    time_features, time_embedding, T, generator
        As in `NoiseMLP`.
    """

    def __init__(
        self,
        channels: int = 1,
        *,
        base: int = 32,
        time_features: int = 64,
        time_embedding: TimeEmbedding = "sinusoidal",
        T: int = 1000,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        g = tensors.generator(generator)
        self.channels = check.whole(channels, "channels", 1)
        if check.whole(base, "base", 8) % 8:
            raise ValueError(f"`base` must be a multiple of 8, got {base}")
        self.time = TimeFeatures(time_features, T, time_embedding, g)
        self.direct = linear(time_features, 1, g, gain=0.01)
        wide = 2 * base
        self.enter = conv(channels, base, g)
        self.down_full = _Block(base, base, time_features, g)
        self.down_half = _Block(base, wide, time_features, g)
        self.quarter = _Block(wide, wide, time_features, g)
        self.up_half = _Block(wide + wide, wide, time_features, g)
        self.up_full = _Block(wide + base, base, time_features, g)
        self.norm = nn.GroupNorm(8, base)
        self.leave = conv(base, channels, g, gain=0.01)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        image = x[:, None] if x.ndim == 3 else x  # (B, channels, H, W)
        if image.ndim != 4 or image.shape[1] != self.channels:
            raise ValueError(
                f"`x` must have shape (batch, {self.channels}, H, W), got {tuple(x.shape)}"
            )
        if image.shape[2] % 4 or image.shape[3] % 4:
            raise ValueError(f"`x` must have sides that are multiples of 4, got {tuple(x.shape)}")
        time = self.time(t)
        full = self.down_full(self.enter(image), time)  # (B, base, H, W)
        half = self.down_half(F.avg_pool2d(full, 2), time)  # (B, 2 base, H/2, W/2)
        h = self.quarter(F.avg_pool2d(half, 2), time)  # (B, 2 base, H/4, W/4)
        h = self.up_half(torch.cat([_double(h), half], 1), time)
        h = self.up_full(torch.cat([_double(h), full], 1), time)
        eps = self.leave(F.silu(self.norm(h))) + self.direct(time)[:, :, None, None] * image
        return eps.view(x.shape)


class _Gates(nn.Module):
    """Factors on hidden units as functions of time, 1 at first but for a little noise."""

    def __init__(self, features: int, units: int, generator: torch.Generator) -> None:
        super().__init__()
        self.inner = linear(features, features, generator)
        self.outer = linear(features, units, generator, gain=0.1)
        nn.init.ones_(self.outer.bias)

    def forward(self, time: Tensor) -> Tensor:
        return self.outer(F.silu(self.inner(time)))


class _Block(nn.Module):
    """Residual block of two convolutions: (B, inputs, H, W) -> (B, outputs, H, W)."""

    def __init__(
        self, inputs: int, outputs: int, time_features: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.first_norm = nn.GroupNorm(8, inputs)
        self.first = conv(inputs, outputs, generator, gain=math.sqrt(2.0))
        self.gates = _Gates(time_features, outputs, generator)
        self.second_norm = nn.GroupNorm(8, outputs)
        self.second = conv(outputs, outputs, generator, gain=0.5)
        same = inputs == outputs
        self.past = nn.Identity() if same else conv(inputs, outputs, generator, size=1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        h = self.first(F.silu(self.first_norm(x)))
        h = self.second_norm(h) * self.gates(time)[:, :, None, None]
        return self.past(x) + self.second(F.silu(h))


def _norm(h: Tensor) -> Tensor:
    return F.layer_norm(h, h.shape[-1:])


def _double(h: Tensor) -> Tensor:
    return F.interpolate(h, scale_factor=2.0, mode="nearest")
