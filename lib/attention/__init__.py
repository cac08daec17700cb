"""Attention and the entropy of its weights: does focus survive when the keys grow in number?

For the articles https://kexue.fm/archives/9034 and 8823 (entropy-invariant softmax).

- `distribution`: softmax at an inverse temperature, its entropy, the floor under it and the gap;
- `scaling`: the article's scale, the scale for a given entropy, entropy curves of your own data;
- `families`: score distributions with theory and the scale that keeps the entropy in each;
- `sphere`: keys on a sphere, the article's longer route, recomputed;
- `dot_product`: attention for torch with the entropy-invariant scale.

Notation: scores s, inverse temperature (scale) λ, weights p, entropy H in nats, n keys,
dimension d. torch is imported only when one of its functions is asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from lib.attention.distribution import (
    EntropyGap,
    entropy,
    entropy_gap,
    entropy_of_scores,
    log_sum_exp,
    mean_field_entropy,
    score_mean,
    score_variance,
    softmax,
)
from lib.attention.scaling import (
    EntropyCurve,
    Estimate,
    entropy_curve,
    entropy_curve_of_head,
    entropy_invariant_scale,
    length_factor,
    scale_for_entropy,
    scale_for_mean_entropy,
)

if TYPE_CHECKING:
    from lib.attention.dot_product import scaled_dot_product_attention, visible_keys

__all__ = [
    "EntropyCurve",
    "EntropyGap",
    "Estimate",
    "entropy",
    "entropy_curve",
    "entropy_curve_of_head",
    "entropy_gap",
    "entropy_invariant_scale",
    "entropy_of_scores",
    "length_factor",
    "log_sum_exp",
    "mean_field_entropy",
    "scale_for_entropy",
    "scale_for_mean_entropy",
    "scaled_dot_product_attention",
    "score_mean",
    "score_variance",
    "softmax",
    "visible_keys",
]

_NEEDS_TORCH = ("scaled_dot_product_attention", "visible_keys")


def __getattr__(name: str) -> Any:
    if name in _NEEDS_TORCH:
        return getattr(importlib.import_module("lib.attention.dot_product"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
