"""The rivals of diffusion models, small enough to train on 8 × 8 digits in seconds.

- `vae`: variational autoencoder;
- `gan`: generative adversarial network;
- `flow`: normalising flow by affine couplings;
- `vqvae`: autoencoder with discrete codes, and a prior over them;
- `pixels`: pixel by pixel; `autoregressive`: the masked network that it and the prior are made of;
- `walk`: Langevin sampling along a score.

Each ``train_*(data, steps=…, generator=…)`` takes data (N, …) in [-1, 1] and returns a model with
``sample(n, generator)``. torch is imported only when something that needs it is.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lib.generative.flow import Flow, train_flow
    from lib.generative.gan import GAN, train_gan
    from lib.generative.pixels import PixelModel, train_pixels
    from lib.generative.vae import VAE, train_vae
    from lib.generative.vqvae import VQVAE, train_vqvae
    from lib.generative.walk import annealed_langevin, langevin

__all__ = [
    "GAN",
    "VAE",
    "VQVAE",
    "Flow",
    "PixelModel",
    "annealed_langevin",
    "langevin",
    "train_flow",
    "train_gan",
    "train_pixels",
    "train_vae",
    "train_vqvae",
]

_HOME = {
    "GAN": "gan",
    "VAE": "vae",
    "VQVAE": "vqvae",
    "Flow": "flow",
    "PixelModel": "pixels",
    "annealed_langevin": "walk",
    "langevin": "walk",
    "train_flow": "flow",
    "train_gan": "gan",
    "train_pixels": "pixels",
    "train_vae": "vae",
    "train_vqvae": "vqvae",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(f"lib.generative.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
