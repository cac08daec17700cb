"""What the models share: the shape of a datum, data as rows, latents that are decoded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Self

import torch
from torch import Tensor, nn

from lib import _checks as check
from lib.generative import _validation as validation


class GenerativeModel(nn.Module, ABC):
    """A model of data of one shape.

    Attributes
    ----------
    shape : tuple of int
        Shape of one datum; `sample` returns (n, *shape).
    size : int
        Numbers in one datum, D.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = tuple(check.whole(side, "shape", 1) for side in shape)
        self.size = torch.Size(self.shape).numel()

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n data, shape ``(n, *shape)``."""

    @property
    def dtype(self) -> torch.dtype:
        """Floating dtype of the parameters; ``model.double()`` changes it."""
        return next(self.parameters()).dtype

    def rows(self, x: Any, name: str = "x") -> Tensor:
        """Data of shape ``(N, *shape)``, checked, as rows (N, D)."""
        return validation.batch(x, name, self.shape, self.dtype).flatten(1)

    def shaped(self, rows: Tensor) -> Tensor:
        """Rows (N, D) as data ``(N, *shape)``."""
        return rows.unflatten(1, self.shape)

    def finished(self) -> Self:
        """The model itself, in evaluation mode and asking for no gradient."""
        return self.eval().requires_grad_(False)


class LatentModel(GenerativeModel):
    """A model that maps k standard normal numbers, the latent z, to a datum.

    Attributes
    ----------
    latent : int
        k.
    """

    def __init__(self, shape: tuple[int, ...], latent: int) -> None:
        super().__init__(shape)
        self.latent = check.whole(latent, "latent", 1)

    @abstractmethod
    def decode_rows(self, z: Tensor) -> Tensor:
        """Data of given latents, as rows: (N, k) -> (N, D)."""

    def decode(self, z: Any) -> Tensor:
        """Data of given latents: (N, k) -> ``(N, *shape)``."""
        return self.shaped(self.decode_rows(validation.batch(z, "z", (self.latent,), self.dtype)))

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n standard normal latents and decode them: shape ``(n, *shape)``."""
        return self.decode(self.prior(n, generator))

    def prior(self, n: int, generator: torch.Generator) -> Tensor:
        """Standard normal latents, shape (n, k)."""
        n, generator = check.whole(n, "n", 1), check.generator(generator)
        return torch.randn(n, self.latent, generator=generator, dtype=self.dtype)
