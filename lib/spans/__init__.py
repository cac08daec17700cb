"""Labelled spans in sentences, nested ones too: heads that score them, and tags that can't nest.

For the articles https://kexue.fm/archives/9039 (divergences of span scores, in
:mod:`lib.divergence`), 8373 and 8877 (GlobalPointer).

- `Span`, `span_mask`, `labels_of`, `decode`, `exact_match`: spans, their tables, how they compare;
- `GlobalPointer`, `EfficientGlobalPointer`: a score for every span and kind;
- `to_bio`, `from_bio`, `BioTagger`, `CrfTagger`: one tag per token instead, in one layer or one
  per kind; `flat_subset`, `flat_ceiling`: what such tags can hold at all;
- `train`, `measure`: a small tagger under R-Drop, virtual adversarial training or distillation,
  several seeds side by side.

Notation: B sentences of at most n tokens, K kinds of span, states of width D, head width d.
"""

from __future__ import annotations

from lib.spans.heads import EfficientGlobalPointer, GlobalPointer
from lib.spans.spans import Match, Span, decode, exact_match, labels_of, span_mask
from lib.spans.tagging import BioTagger, CrfTagger, flat_ceiling, flat_subset, from_bio, to_bio
from lib.spans.training import (
    DIVERGENCES,
    HEADS,
    Adversarial,
    Distilled,
    Figures,
    Plain,
    RDrop,
    Sentences,
    Tagger,
    TaggerConfig,
    Trained,
    measure,
    train,
)

__all__ = [
    "DIVERGENCES",
    "HEADS",
    "Adversarial",
    "BioTagger",
    "CrfTagger",
    "Distilled",
    "EfficientGlobalPointer",
    "Figures",
    "GlobalPointer",
    "Match",
    "Plain",
    "RDrop",
    "Sentences",
    "Span",
    "Tagger",
    "TaggerConfig",
    "Trained",
    "decode",
    "exact_match",
    "flat_ceiling",
    "flat_subset",
    "from_bio",
    "labels_of",
    "measure",
    "span_mask",
    "to_bio",
    "train",
]
