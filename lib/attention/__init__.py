"""Attention and the entropy of its weights: does focus survive when the keys grow in number?

For the articles https://kexue.fm/archives/9034 and 8823 (entropy-invariant softmax), and 9105 (what
relative positions cannot express).

- `distribution`: softmax at an inverse temperature, its entropy, the floor under it and the gap;
- `scaling`: the article's scale, the scale for a given entropy, entropy curves of your own data;
- `families`: score distributions with theory and the scale that keeps the entropy in each;
- `sphere`: keys on a sphere, the article's longer route, recomputed;
- `dot_product`: attention for torch with the entropy-invariant scale;
- `positions`: position schemes behind one contract, URPE's factor;
- `normalisations`: softmax, and what does not make the rows sum to 1;
- `encoder`: a Transformer encoder with all of these as settings;
- `probes`: can a network tell places apart? Equal tokens in, positions out.

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
    from lib.attention.encoder import Encoder, EncoderConfig
    from lib.attention.normalisations import normalise
    from lib.attention.positions import (
        PositionScheme,
        Toeplitz,
        alibi_slopes,
        make_scheme,
        t5_bucket,
    )

__all__ = [
    "Encoder",
    "EncoderConfig",
    "EntropyCurve",
    "EntropyGap",
    "Estimate",
    "PositionScheme",
    "Toeplitz",
    "alibi_slopes",
    "entropy",
    "entropy_curve",
    "entropy_curve_of_head",
    "entropy_gap",
    "entropy_invariant_scale",
    "entropy_of_scores",
    "length_factor",
    "log_sum_exp",
    "make_scheme",
    "mean_field_entropy",
    "normalise",
    "scale_for_entropy",
    "scale_for_mean_entropy",
    "scaled_dot_product_attention",
    "score_mean",
    "score_variance",
    "softmax",
    "t5_bucket",
    "visible_keys",
]

_NEEDS_TORCH = {
    "Encoder": "encoder",
    "EncoderConfig": "encoder",
    "PositionScheme": "positions",
    "Toeplitz": "positions",
    "alibi_slopes": "positions",
    "make_scheme": "positions",
    "normalise": "normalisations",
    "scaled_dot_product_attention": "dot_product",
    "t5_bucket": "positions",
    "visible_keys": "dot_product",
}  # name: the module it lives in


def __getattr__(name: str) -> Any:
    if name in _NEEDS_TORCH:
        return getattr(importlib.import_module(f"lib.attention.{_NEEDS_TORCH[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
